//! From a name to a connection, with a name server that lies (D01–D12 of the attack tables).
//!
//! `127.0.0.1` stands for the outside world here: it is the one address that is allowed. Other addresses of the machine,
//! which a connection could reach as well, are not.

use std::net::TcpListener;
use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use sluice_egress::{Egress, Exchange, Phase, SendError, Settings, limits};

use crate::dialled::Dialled;
use crate::dns::{Asked, Dns, Reply, addresses, alias};
use crate::exchange::{AMPLE, NAME, ok, post, settled};
use crate::golden;
use crate::server::{Play, Server};

/// Stands for the outside world.
const GOOD: &str = "127.0.0.1";
/// Reachable and forbidden.
const BAD: &str = "127.0.0.2";

struct Scene {
    server: Server,
    dns: Dns,
    egress: Egress,
    dialled: Dialled,
    /// Takes what is dialled at [`BAD`].
    trap: TcpListener,
}

impl Scene {
    async fn new(plays: Vec<Play>, dns: Dns) -> Self {
        Self::with(plays, dns, |_| {}).await
    }

    async fn with(plays: Vec<Play>, dns: Dns, change: impl FnOnce(&mut Settings)) -> Self {
        let server = Server::start(NAME, plays).await;
        let trap = TcpListener::bind((BAD, server.address.port())).unwrap();
        trap.set_nonblocking(true).unwrap();
        let mut settings = server.settings(NAME);
        settings.static_addresses.clear();
        settings.extra_networks = vec![format!("{GOOD}/32").parse().unwrap()];
        settings.nameservers = vec![dns.address];
        settings.ports = vec![server.address.port()];
        change(&mut settings);
        let egress = Egress::new(settings).unwrap();
        Self { server, dns, egress, dialled: Dialled::listen(), trap }
    }

    async fn send(&self) -> Result<Exchange, SendError> {
        self.send_to(NAME).await
    }

    async fn send_to(&self, name: &str) -> Result<Exchange, SendError> {
        let url = format!("https://{name}:{}/in", self.server.address.port());
        let outcome = self.egress.send(post(&url), AMPLE).await;
        settled().await;
        outcome
    }

    /// The address behind [`GOOD`], as the connector tells it.
    fn good(&self) -> String {
        self.server.address.to_string()
    }

    /// Refused for its address, for good, without a packet to anybody.
    async fn refuses(&self, what: &str) {
        let refused = self.send().await.unwrap_err();
        assert_eq!(refused, SendError::AddressDenied, "{what}");
        assert_eq!(refused.code(), "egress.denied_ip");
        assert!(!refused.is_retryable() && !refused.reached_destination(), "{what}");
        self.reached_nobody(what);
    }

    fn reached_nobody(&self, what: &str) {
        assert_eq!(self.dialled.take(), Vec::<String>::new(), "{what}");
        assert_eq!(self.trap.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "{what}");
    }

    /// Not resolved: worth another attempt, and nothing was dialled.
    async fn is_not_resolved(&self, expected: SendError) {
        let error = self.send().await.unwrap_err();
        assert_eq!(error, expected);
        assert!(error.code().starts_with("dns.") && error.is_retryable() && !error.reached_destination());
        self.reached_nobody("not resolved");
    }
}

#[tokio::test]
async fn every_forbidden_address_is_refused_d01_d02() {
    let next = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let script = std::sync::Arc::clone(&next);
    let dns = Dns::start(move |asked| addresses(asked, &[script.lock().unwrap().clone()])).await;
    let scene = Scene::with(vec![], dns, |settings| settings.extra_networks.clear()).await;
    let rows = golden::cases("address/ips.jsonl");
    let denied = rows.iter().filter(|row| row["denied"].is_string() && row["extra"].is_null());
    let mut count = 0;
    for row in denied {
        row["ip"].as_str().unwrap().clone_into(&mut next.lock().unwrap());
        scene.refuses(&row.to_string()).await;
        count += 1;
    }
    assert!(count > 50, "the rows are not found");
    assert_eq!(scene.dns.lookups(), count);
}

#[tokio::test]
async fn the_answer_that_is_checked_is_the_one_that_is_dialled_d04() {
    let plays = vec![Play::Close(ok("one"))];
    let scene = Scene::new(plays, Dns::playing(&[&[GOOD], &[BAD]]).await).await;
    assert_eq!(&scene.send().await.unwrap().body[..], b"one");
    assert_eq!(scene.dialled.take(), [scene.good()]);
    let asked = |kind| Asked { name: format!("{NAME}."), kind, over_tcp: false };
    let mut questions = scene.dns.asked();
    questions.sort_by_key(|asked| asked.kind);
    assert_eq!(questions, [asked(RecordType::A), asked(RecordType::AAAA)], "one lookup for one connection");

    scene.server.left().await;
    scene.refuses("the name leads elsewhere now").await;
    assert_eq!(scene.dns.lookups(), 1);
    assert_eq!(scene.server.seen(|seen| seen.connections), 1);
}

#[tokio::test]
async fn one_forbidden_answer_refuses_all_d05_d06() {
    for answers in [
        [GOOD, "10.0.0.1"],
        ["10.0.0.1", GOOD],
        [GOOD, BAD],
        [GOOD, "fd00::1"],
        [GOOD, "::1"],
        [GOOD, "::ffff:127.0.0.2"],
        ["2606:4700:4700::1111", "169.254.169.254"],
    ] {
        let scene = Scene::new(vec![], Dns::playing(&[&answers]).await).await;
        scene.refuses(&format!("{answers:?}")).await;
    }
}

#[tokio::test]
async fn an_alias_is_judged_by_where_it_leads_d07() {
    let own = format!("{NAME}.");
    // All at once, as a resolver answers.
    let chain: Vec<String> = (0..20).map(|n| format!("h{n}.example.")).collect();
    for (what, end) in [("private", Some("10.0.0.1")), ("this machine", Some(BAD)), ("localhost", None)] {
        let (own, chain) = (own.clone(), chain.clone());
        let dns = Dns::start(move |asked| {
            let mut records = vec![alias(&own, &chain[0])];
            records.extend(chain.windows(2).map(|pair| alias(&pair[0], &pair[1])));
            match end {
                Some(end) => {
                    let last = Asked { name: chain[19].clone(), ..asked.clone() };
                    let Reply::Records(found) = addresses(&last, &[end]) else { unreachable!() };
                    records.extend(found);
                }
                None => records.push(alias(&chain[19], "localhost.")),
            }
            Reply::Records(records)
        });
        let scene = Scene::with(vec![], dns.await, |settings| {
            if what == "localhost" {
                settings.extra_networks.clear();
            }
        });
        scene.await.refuses(what).await;
    }

    // Step by step: each answer is the next name.
    for (what, names) in [("a circle", 2), ("itself", 1), ("a long way", 20)] {
        let dns = Dns::start(move |asked| {
            let number = asked.name.strip_prefix('h').and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
            let next = match number {
                None => 0,
                Some(number) if number + 1 == 20 => return addresses(asked, &[GOOD]),
                Some(number) => (number + 1) % names,
            };
            Reply::Records(vec![alias(&asked.name, &format!("h{next}.example."))])
        });
        let scene = Scene::new(vec![], dns.await).await;
        scene.is_not_resolved(SendError::Dns).await;
        assert!(scene.dns.asked().len() <= 20, "{what}");
    }
}

#[tokio::test]
async fn many_addresses_are_all_checked_and_few_are_dialled_d08() {
    let many = |count: u16, last: &str| -> Vec<String> {
        let addresses = (1..count).map(|n| format!("127.3.{}.{}", n / 256, n % 256));
        addresses.chain([last.to_owned()]).collect()
    };
    // 2,200 addresses are some 60,000 bytes, nearly the longest answer there can be, and only over TCP.
    for count in [500, 2200] {
        for last in ["10.0.0.1", "127.3.255.255"] {
            let answer = many(count, last);
            let dns = Dns::start(move |asked| addresses(asked, &answer)).await;
            let scene =
                Scene::with(vec![], dns, |settings| settings.extra_networks = vec!["127.0.0.0/8".parse().unwrap()]);
            let scene = scene.await;
            if last == "10.0.0.1" {
                scene.refuses("the last of many").await;
            } else {
                assert_eq!(scene.send().await.unwrap_err(), SendError::Connect);
                assert_eq!(scene.dialled.take().len(), limits::DIALLED_ADDRESSES);
            }
            let asked = scene.dns.asked();
            assert!(asked.iter().any(|asked| asked.over_tcp) && asked.len() <= 4, "{asked:?}");
        }
    }
}

#[tokio::test]
async fn a_name_that_is_not_resolved_is_tried_again_later_d08() {
    for (reply, most) in [
        (Reply::Code(ResponseCode::NXDomain), 2),
        (Reply::Code(ResponseCode::ServFail), 4),
        (Reply::Code(ResponseCode::Refused), 4),
        (Reply::Records(vec![]), 2),
        (Reply::Garbage(vec![0xff; 40]), 4),
        (Reply::Garbage(vec![0x81, 0x80, 0, 1, 0xff, 0xff, 0, 0, 0, 0, 0xc0, 0x0c]), 4),
    ] {
        let dns = Dns::start(move |_| reply.clone()).await;
        let scene = Scene::new(vec![], dns).await;
        scene.is_not_resolved(SendError::Dns).await;
        // Under no other name either (D09).
        let asked = scene.dns.asked();
        assert!(asked.len() <= most && asked.iter().all(|asked| asked.name == format!("{NAME}.")), "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_server_that_is_silent_costs_five_seconds_d08() {
    for half in [None, Some(RecordType::A), Some(RecordType::AAAA)] {
        let dns = Dns::start(move |asked| match half {
            Some(answered) if answered == asked.kind => addresses(asked, &["10.0.0.1", "fd00::1"]),
            _ => Reply::Silence,
        });
        let scene = Scene::new(vec![], dns.await).await;
        let started = tokio::time::Instant::now();
        match half {
            None => scene.is_not_resolved(SendError::DnsTimeout).await,
            // What is known is judged.
            Some(_) => scene.refuses("half an answer").await,
        }
        assert!(started.elapsed() <= limits::RESOLVER_DEADLINE + Duration::from_millis(10));
    }
}

#[tokio::test]
async fn a_name_is_asked_for_as_it_is_d09() {
    let scene = Scene::new(vec![], Dns::start(|_| Reply::Code(ResponseCode::NXDomain)).await).await;
    for (name, asked) in [("a.b", "a.b."), ("Shop.Example.", "shop.example."), ("my_host.example", "my_host.example.")]
    {
        assert_eq!(scene.send_to(name).await.unwrap_err(), SendError::Dns);
        let questions = scene.dns.asked();
        assert_eq!(questions.len(), 2);
        assert!(questions.iter().all(|question| question.name == asked), "{questions:?}");
    }
}

#[tokio::test]
async fn a_warm_connection_outlives_its_name_only_for_a_while_d11() {
    let plays = || vec![Play::Answer(ok("")), Play::Answer(ok(""))];
    let scene = Scene::new(plays(), Dns::playing(&[&[GOOD], &[BAD]]).await).await;
    for _ in 0..2 {
        scene.send().await.unwrap();
    }
    assert_eq!((scene.dialled.take(), scene.dns.lookups()), (vec![scene.good()], 1), "it was checked when it was made");

    let retire_at_once = |settings: &mut Settings| settings.pool_max_age = settings.pool_idle;
    let scene = Scene::with(plays(), Dns::playing(&[&[GOOD], &[BAD]]).await, retire_at_once).await;
    scene.send().await.unwrap();
    assert_eq!(scene.dialled.take(), [scene.good()]);
    scene.refuses("a new connection is a new question").await;
}

#[tokio::test]
async fn the_next_address_is_dialled_when_one_is_silent() {
    // The second of them refuses, the third answers.
    let scene =
        Scene::with(vec![Play::Answer(ok(""))], Dns::playing(&[&["127.0.0.4", "127.0.0.5", GOOD]]).await, |settings| {
            settings.extra_networks = vec!["127.0.0.0/8".parse().unwrap()]
        })
        .await;
    assert_eq!(scene.send().await.unwrap().status, 200);
    let port = scene.server.address.port();
    assert_eq!(scene.dialled.take(), [format!("127.0.0.4:{port}"), format!("127.0.0.5:{port}"), scene.good()]);
}

#[tokio::test]
async fn static_answers_are_judged_like_any_other() {
    let scene = Scene::with(vec![], Dns::playing(&[&[GOOD]]).await, |settings| {
        settings.static_addresses.insert(NAME.into(), vec![format!("{BAD}:0").parse().unwrap()]);
    });
    let scene = scene.await;
    scene.refuses("an answer of the operator's").await;
    assert_eq!(scene.dns.asked(), []);
}

#[tokio::test]
async fn every_url_is_checked_again_when_it_is_sent_s60() {
    let dns = Dns::start(|_| Reply::Code(ResponseCode::NXDomain)).await;
    let settings = Settings {
        nameservers: vec![dns.address],
        own_names: vec!["hooks.sluice.example".into()],
        ..Settings::default()
    };
    let egress = Egress::new(settings).unwrap();
    let dialled = Dialled::listen();
    for row in golden::cases("address/urls.jsonl") {
        let url = golden::expanded(row["url"].as_str().unwrap());
        let error = egress.send(post(&url), AMPLE).await.unwrap_err();
        match row["code"].as_str() {
            Some(code) => {
                assert!(matches!(error, SendError::UrlDenied(_)), "{row}: {error:?}");
                assert_eq!(error.code(), code, "{row}");
                assert!(!error.is_retryable() && !error.reached_destination() && dns.asked().is_empty(), "{row}");
            }
            None => {
                let host = row["accepted"].as_str().unwrap().split(['/', ':']).nth(3).unwrap().to_owned();
                let host = golden::expanded(&host);
                assert_eq!(error, SendError::Dns, "{row}");
                assert!(dns.asked().iter().all(|asked| asked.name == format!("{host}.")), "{row}");
            }
        }
    }
    assert!(dialled.take().is_empty());
}

#[tokio::test]
async fn the_proxys_own_name_is_resolved_and_nobody_elses_d13() {
    let closed = TcpListener::bind((GOOD, 0)).unwrap().local_addr().unwrap();
    let dns = Dns::playing(&[&[GOOD]]).await;
    let proxy = sluice_egress::Proxy { host: "proxy.internal".into(), port: closed.port(), credentials: None };
    let settings = Settings { nameservers: vec![dns.address], proxy: Some(proxy), ..Settings::default() };
    let egress = Egress::new(settings).unwrap();
    let dialled = Dialled::listen();
    let error = egress.send(post("https://shop.example/"), AMPLE).await.unwrap_err();
    assert!(matches!(error, SendError::Connect | SendError::Timeout { phase: Phase::Connect }), "{error:?}");
    assert!(dns.asked().iter().all(|asked| asked.name == "proxy.internal."));
    assert_eq!(dialled.take(), [closed.to_string()]);
}
