//! `kill -9` of the real process at random moments under load: whatever was promised before is kept after (I1 to I3).
//!
//! Senders and destination live in this process and survive; the planes live in the binary `subject` and do not. At the
//! end the three logs are laid side by side ([`ledger`]). 5 crashes; with `SLUICE_LONG=1` 60. A failure repeats its dice
//! with `SLUICE_SEED`.

#![allow(clippy::print_stdout, reason = "what a failed campaign needs to be repeated")]

pub(crate) mod ledger;
mod points;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ledger::{Arrived, Ledger, Recorded, Sent};
use serde_json::{Value, json};
use sluice::destination::{self, Answer, Destination};
use sluice_client::{Client, admin};
use sluice_core::seal::Secret;
use sluice_data_plane::clock::Clock;
use sluice_data_plane::inbox::{EmbeddedSettings, Inbox, InboxSettings, MAX_LEASES, RedisSettings};
use sluice_tests::subject::{Fault, Joined, Setup, Subject};
use sluice_tests::{Numbers, RawHttp, RedisServer, Request, Workspace, eventually, resources, within};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The binary that is killed.
const PROGRAM: &str = env!("CARGO_BIN_EXE_subject");
/// Requests at once.
const SENDERS: u64 = 16;
/// The latest moment of a crash, in answers and in microseconds after them.
const ANSWERS_MAX: u64 = 300;
const MICROS_MAX: u64 = 30_000;

/// Small, seeded, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What whoever runs the tests asks for.
#[expect(clippy::disallowed_methods, reason = "a test has no caller to bring its settings")]
fn asked(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn seed() -> u64 {
    let seed = asked("SLUICE_SEED").map(|seed| seed.parse().unwrap());
    let seed = seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    println!("SLUICE_SEED={seed}");
    seed
}

pub(crate) fn is_long() -> bool {
    asked("SLUICE_LONG").is_some_and(|value| value == "1")
}

/// What the senders share with the test.
#[derive(Clone)]
struct Load {
    sent: Arc<Mutex<Vec<Sent>>>,
    answers: watch::Sender<u64>,
    /// Counts the lives of the process; 0 before the first.
    life: watch::Sender<u64>,
    stop: watch::Sender<bool>,
    setup: Setup,
    /// Where triggers are taken.
    doors: Vec<SocketAddr>,
    path: String,
}

impl Load {
    /// Sends one request after the other until told to stop; one with a key is repeated until it is answered.
    async fn run(self, sender: u64, round: usize, mut dice: Dice) {
        let door = self.doors[usize::try_from(sender).unwrap() % self.doors.len()];
        let mut connection: Option<RawHttp> = None;
        let mut keyed: Vec<String> = Vec::new();
        let mut number = 0;
        while !*self.stop.borrow() {
            number += 1;
            let again = (!keyed.is_empty() && dice.below(8) == 0).then(|| dice.below(keyed.len() as u64));
            let (marker, has_key) = match again {
                Some(earlier) => (keyed[usize::try_from(earlier).unwrap()].clone(), true),
                None => (format!("{round}-{sender}-{number}"), dice.below(2) == 0),
            };
            loop {
                let answer = self.exchange(door, &mut connection, &marker, has_key).await;
                self.sent.lock().unwrap().push(Sent { marker: marker.clone(), keyed: has_key, answer });
                if answer.is_some() || !has_key {
                    break;
                }
            }
            if has_key && again.is_none() {
                keyed.push(marker);
            }
        }
    }

    /// The status, or none when the process died first; then waits for its next life.
    async fn exchange(
        &self,
        door: SocketAddr,
        connection: &mut Option<RawHttp>,
        marker: &str,
        keyed: bool,
    ) -> Option<u16> {
        let life = *self.life.borrow();
        if connection.is_none() {
            *connection = RawHttp::try_connect(door).await.ok();
        }
        let answer = match connection {
            Some(connection) => {
                let body = json!({ "marker": marker, "filling": "x".repeat(200) }).to_string();
                let request = Request::post(&self.path, body);
                let request = if keyed { request.header("X-Deduplication-Hash", marker) } else { request };
                connection.send(&request.bytes()).await;
                connection.answer_or_end().await
            }
            None => None,
        };
        if let Some(answer) = answer {
            // A shared store that is away promises nothing, and may have kept the request.
            if answer.status == 503 && self.setup.redis.is_some() {
                return None;
            }
            self.answers.send_modify(|answers| *answers += 1);
            return Some(answer.status);
        }
        *connection = None;
        let mut lives = self.life.subscribe();
        within("the process to live again", lives.wait_for(|now| *now > life)).await.unwrap();
        None
    }
}

/// One folder, one destination, many lives.
struct Campaign {
    /// Killed in turn with the process, if there is one.
    redis: Option<RedisServer>,
    /// Another data plane on it, and how it is started.
    second: Option<(Setup, Option<Subject>)>,
    folder: TempDir,
    log: PathBuf,
    destination: Destination,
    client: Client,
    workspace: Workspace,
    load: Load,
    subject: Option<Subject>,
    kills: usize,
    dice: Dice,
}

impl Campaign {
    async fn start(change: impl FnOnce(&mut Setup)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("destination.jsonl");
        let destination = Destination::start(destination::Options::named(["api.example.com"])).await.unwrap();
        destination.log_to(&log).await.unwrap();
        let mut setup = Setup::on(&folder.path().join("data"));
        setup.ca_pem = destination.ca_pem();
        setup.static_addresses = destination.static_addresses();
        change(&mut setup);
        let subject = live(&setup, 1).await;
        let key = std::fs::read_to_string(setup.folder.join("admin.key")).unwrap();
        let client = Client::connect(&format!("http://{}", setup.grpc), &key).await.unwrap();
        let workspace = Workspace::create(&client, "acme").await;
        let path = configure(&workspace).await;
        served(&client, &workspace, 1).await;
        let load = Load {
            sent: Arc::default(),
            answers: watch::Sender::new(0),
            life: watch::Sender::new(1),
            stop: watch::Sender::new(false),
            doors: vec![setup.ingress],
            setup,
            path,
        };
        let dice = Dice(seed());
        Self {
            redis: None,
            second: None,
            folder,
            log,
            destination,
            client,
            workspace,
            load,
            subject: Some(subject),
            kills: 0,
            dice,
        }
    }

    /// On a Redis of its own, which dies as well.
    async fn start_on_redis() -> Self {
        let redis = RedisServer::start().await;
        let campaign = Self::start(|setup| setup.redis = Some(redis.url())).await;
        Self { redis: Some(redis), ..campaign }
    }

    /// The same, and another data plane on it.
    async fn start_with_two_planes() -> Self {
        let mut campaign = Self::start_on_redis().await;
        let first = campaign.load.setup.clone();
        let mut setup = Setup::on(&campaign.folder.path().join("second"));
        setup.id = "second".to_owned();
        setup.joins = Some(Joined { url: format!("http://{}", first.grpc), folder: first.folder });
        (setup.redis, setup.ca_pem, setup.static_addresses) = (first.redis, first.ca_pem, first.static_addresses);
        campaign.load.doors.push(setup.ingress);
        campaign.second = Some((setup, None));
        campaign.second_lives_again().await;
        served(&campaign.client, &campaign.workspace, 2).await;
        campaign
    }

    /// Loads, kills `kills` times at random moments, and lets the senders finish.
    async fn round(&mut self, kills: usize) {
        self.round_of(kills, true).await;
    }

    /// The same; kills the store in turn, if there is one and it is wanted.
    async fn round_of(&mut self, kills: usize, store_too: bool) {
        self.load.stop.send_replace(false);
        if self.subject.is_none() {
            self.live_again().await;
            self.second_lives_again().await;
        }
        let mut senders = JoinSet::new();
        for sender in 0..SENDERS {
            let dice = Dice(self.dice.below(u64::MAX));
            senders.spawn(self.load.clone().run(sender, self.kills, dice));
        }
        for _ in 0..kills {
            let so_far = *self.load.answers.borrow();
            let (more, micros) = (1 + self.dice.below(ANSWERS_MAX), self.dice.below(MICROS_MAX));
            let mut answers = self.load.answers.subscribe();
            within("answers", answers.wait_for(|answers| *answers >= so_far + more)).await.unwrap();
            // Nothing is waited for here: this is the random moment.
            tokio::time::sleep(Duration::from_micros(micros)).await;
            let victim = self.dice.below(3);
            match (&mut self.redis, &mut self.second) {
                (Some(redis), _) if store_too && victim == 0 => {
                    redis.crash().await;
                    self.kills += 1;
                }
                (_, Some((_, second))) if victim == 1 => {
                    second.take().unwrap().kill().await.unwrap();
                    self.kills += 1;
                    self.second_lives_again().await;
                }
                _ => self.crash().await,
            }
        }
        self.load.stop.send_replace(true);
        while let Some(ended) = senders.join_next().await {
            ended.unwrap();
        }
    }

    async fn crash(&mut self) {
        self.subject.take().unwrap().kill().await.unwrap();
        self.kills += 1;
        self.live_again().await;
    }

    /// Another life, with this bug if one is given; the one before is stopped if it lives.
    async fn restart(&mut self, fault: Option<Fault>) {
        if let Some(subject) = self.subject.take() {
            subject.stop().await.unwrap();
        }
        self.load.setup.fault = fault;
        self.live_again().await;
    }

    async fn second_lives_again(&mut self) {
        let life = *self.load.life.borrow() + 1;
        if let Some((setup, second)) = &mut self.second {
            *second = Some(live(setup, life).await);
            self.load.life.send_replace(life);
        }
    }

    async fn live_again(&mut self) {
        let life = *self.load.life.borrow() + 1;
        self.subject = Some(live(&self.load.setup, life).await);
        self.load.life.send_replace(life);
    }

    /// Waits until everything has ended and was told, stops properly, and lays the logs side by side.
    async fn ledger(&mut self) -> Ledger {
        self.store_is_back().await;
        for health in self.healths() {
            let is_idle = || async move { Numbers::of(health).await.is_idle().then_some(()) };
            eventually("the inbox to be empty", is_idle).await;
        }
        let (recorded, events) = recorded_and_told(&self.client, &self.workspace.name).await;
        if let Some((_, second)) = &mut self.second {
            assert!(second.take().unwrap().stop().await.unwrap().success(), "a proper stop ends with 0");
        }
        assert!(self.subject.take().unwrap().stop().await.unwrap().success(), "a proper stop ends with 0");
        let log = std::fs::read_to_string(&self.log).unwrap();
        let sent = self.load.sent.lock().unwrap().clone();
        Ledger {
            sent,
            arrived: log.lines().map(arrival).collect(),
            recorded,
            events,
            left: self.left().await,
            kills: self.kills,
        }
    }

    /// A shared store that was away a moment ago is asked again: until then, numbers are those of before.
    async fn store_is_back(&self) {
        if self.redis.is_none() {
            return;
        }
        let marker = format!("after-{}-crashes", self.kills);
        for door in &self.load.doors {
            eventually("the store to be back", || async {
                let answer = self.load.exchange(*door, &mut None, &marker, true).await;
                self.load.sent.lock().unwrap().push(Sent { marker: marker.clone(), keyed: true, answer });
                answer.map(drop)
            })
            .await;
        }
    }

    fn healths(&self) -> Vec<SocketAddr> {
        let second = self.second.iter().map(|(setup, _)| setup.health);
        std::iter::once(self.load.setup.health).chain(second).collect()
    }

    /// What the inbox still holds.
    async fn left(&self) -> u64 {
        let setup = &self.load.setup;
        let settings = match &setup.redis {
            None => InboxSettings::Embedded(EmbeddedSettings::new(setup.folder.join("inbox.db"))),
            Some(url) => InboxSettings::Redis(RedisSettings::new(Secret::new(url), "subject")),
        };
        let inbox = Inbox::open(settings, Clock::system()).await.unwrap();
        let stats = inbox.stats().await.unwrap();
        inbox.close().await;
        let lanes = [stats.realtime, stats.bulk];
        lanes.iter().map(|lane| lane.ready + lane.leased + lane.delayed).sum::<u64>() + stats.outbox
    }

    async fn end(self) {
        let second = self.second.and_then(|(_, second)| second);
        for subject in second.into_iter().chain(self.subject) {
            subject.stop().await.unwrap();
        }
        self.destination.shutdown().await;
        self.folder.close().unwrap();
    }
}

/// The next life of the process; the destination sees which one it is.
async fn live(setup: &Setup, life: u64) -> Subject {
    let setup = Setup { user_agent: format!("life-{life}"), ..setup.clone() };
    Subject::start(PROGRAM, &setup, Stdio::inherit()).await.unwrap()
}

/// An endpoint and a workflow that sends each marker on; returns the endpoint's path.
pub(crate) async fn configure(workspace: &Workspace) -> String {
    let rate_limit = Some(admin::RateLimit { requests_per_second: 10_000, burst: 20_000 });
    let incoming = admin::IncomingIntegration { rate_limit, ..resources::open() };
    let incoming = workspace.incoming("load", incoming).await;
    let request = resources::post("https://api.example.com/in", r#"{"marker": "{{ request.body.marker }}"}"#);
    workspace.workflow("load", resources::workflow(&incoming, [resources::custom_webhook("Send", request)])).await;
    incoming.endpoint_path
}

async fn served(client: &Client, workspace: &Workspace, planes_wanted: usize) {
    let revision = workspace.get().await.revision;
    eventually("the configuration to be served", || async {
        let request = admin::ListDataPlanesRequest::default();
        let planes = client.data_planes().list_data_planes(request).await.unwrap().into_inner().data_planes;
        let served = planes.iter().flat_map(|plane| &plane.workspaces).filter(|served| served.revision >= revision);
        (served.count() == planes_wanted).then_some(())
    })
    .await;
}

fn id(name: &str) -> String {
    name.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The deliveries that the control plane has recorded in a workspace, and the one that each event tells of.
pub(crate) async fn recorded_and_told(client: &Client, workspace: &str) -> (Vec<Recorded>, Vec<String>) {
    let (mut recorded, mut told, mut page_token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let parent = workspace.to_owned();
        let request = admin::ListDeliveriesRequest { parent, page_size: 1000, page_token, ..Default::default() };
        let page = client.deliveries().list_deliveries(request).await.unwrap().into_inner();
        recorded.extend(page.deliveries.iter().map(|delivery| Recorded {
            delivery: id(&delivery.name),
            delivered: delivery.state() == admin::DeliveryState::Delivered,
            ambiguous: delivery.attempts.iter().map(|attempt| attempt.ambiguous).collect(),
        }));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    loop {
        let parent = workspace.to_owned();
        let request = admin::ListEventsRequest { parent, page_size: 1000, page_token, ..Default::default() };
        let page = client.events().list_events(request).await.unwrap().into_inner();
        told.extend(page.events.iter().map(|event| id(&event.delivery)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return (recorded, told);
        }
    }
}

/// A line of the destination's log.
pub(crate) fn arrival(line: &str) -> Arrived {
    let line: Value = serde_json::from_str(line).unwrap();
    let headers: HashMap<String, String> =
        serde_json::from_value::<Vec<(String, String)>>(line["headers"].clone()).unwrap().into_iter().collect();
    let body = line["body"].as_str().unwrap();
    let marker = serde_json::from_str::<Value>(body).unwrap()["marker"].as_str().unwrap().to_owned();
    Arrived {
        marker,
        delivery: headers["idempotency-key"].clone(),
        life: headers["user-agent"].clone(),
        bytes: format!("{} {} {body}", line["method"], line["target"]),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_promised_before_a_crash_is_kept_after_it() {
    survive(Campaign::start(|_| {}).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_promised_is_kept_when_redis_and_the_process_crash() {
    survive(Campaign::start_on_redis().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_promised_is_kept_when_two_planes_and_redis_crash() {
    survive(Campaign::start_with_two_planes().await).await;
}

async fn survive(mut campaign: Campaign) {
    // Between rounds everything ends: a job that is hit by MAX_LEASES crashes in a row would be given up instead (CRASH_LOOP).
    let rounds = if is_long() { vec![4; 15] } else { vec![3, 2] };
    assert!(rounds.iter().all(|kills| *kills < MAX_LEASES as usize));
    for kills in rounds {
        campaign.round(kills).await;
        let ledger = campaign.ledger().await;
        let unanswered = ledger.sent.iter().filter(|sent| sent.answer.is_none()).count();
        let repeated = ledger.recorded.iter().filter(|recorded| recorded.ambiguous.contains(&true)).count();
        println!(
            "{} crashes: {} requests, {unanswered} unanswered, {} deliveries, {repeated} marked ambiguous",
            ledger.kills,
            ledger.sent.len(),
            ledger.recorded.len(),
        );
        assert!(ledger.sent.iter().any(|sent| sent.answer == Some(200)), "the load was no load");
        assert_eq!(ledger.breaches(), Vec::<String>::new());
    }
    campaign.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_ends_in_a_crash_loop_says_that_it_may_have_arrived() {
    let mut campaign = Campaign::start(|_| {}).await;
    let lives = MAX_LEASES as usize;
    campaign.destination.script(vec![Answer::hang(); lives]);
    let request = Request::post(&campaign.load.path, json!({ "marker": "one" }).to_string());
    let answer = RawHttp::connect(campaign.load.setup.ingress).await.exchange(&request).await;
    assert_eq!(answer.status, 200);
    for life in 1..=lives {
        campaign.destination.wait_for(life).await.unwrap();
        campaign.crash().await;
    }
    let deliveries = campaign.workspace.deliveries(1).await;
    assert_eq!(
        (deliveries[0].state(), deliveries[0].reason()),
        (admin::DeliveryState::Dead, admin::failure::Reason::CrashLoop)
    );
    let attempts: Vec<_> = deliveries[0].attempts.iter().map(|attempt| (attempt.number, attempt.ambiguous)).collect();
    assert_eq!(attempts, [(1, true)]);
    assert_eq!(campaign.workspace.events(1).await.len(), 1);
    let seen = campaign.destination.requests();
    assert_eq!(seen.len(), lives, "nothing is sent any more");
    assert!(seen.iter().all(|again| again.body == seen[0].body), "{seen:?}");
    let key = seen[0].header("idempotency-key");
    assert!(key.is_some() && seen.iter().all(|again| again.header("idempotency-key") == key), "{seen:?}");
    campaign.end().await;
}

#[cfg(feature = "fault-injection")]
mod red {
    use super::Campaign;
    use sluice_tests::subject::Fault;

    /// Kills once a round until the ledger shows a breach.
    async fn first_breach(mut campaign: Campaign, fault: Fault) -> Vec<String> {
        campaign.restart(Some(fault)).await;
        let mut breaches = Vec::new();
        for _ in 0..10 {
            campaign.round_of(1, false).await;
            breaches = campaign.ledger().await.breaches();
            if !breaches.is_empty() {
                break;
            }
        }
        campaign.end().await;
        breaches
    }

    async fn key_before_jobs(campaign: Campaign) {
        let breaches = first_breach(campaign, Fault::KeyBeforeJobs).await;
        println!("{breaches:#?}");
        assert!(breaches.iter().any(|breach| breach.contains("(I2)")), "{breaches:#?}");
    }

    async fn answer_before_commit(campaign: Campaign) {
        let breaches = first_breach(campaign, Fault::AnswerBeforeCommit).await;
        println!("{breaches:#?}");
        assert!(breaches.iter().any(|breach| breach.contains("(I1)")), "{breaches:#?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_campaign_goes_red_when_the_claim_is_written_before_the_jobs() {
        key_before_jobs(Campaign::start(|_| {}).await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_campaign_goes_red_when_the_claim_is_written_before_the_jobs_on_redis() {
        key_before_jobs(Campaign::start_on_redis().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_campaign_goes_red_when_the_answer_goes_out_before_the_commit() {
        answer_before_commit(Campaign::start(|_| {}).await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_campaign_goes_red_when_the_answer_goes_out_before_the_commit_on_redis() {
        answer_before_commit(Campaign::start_on_redis().await).await;
    }
}
