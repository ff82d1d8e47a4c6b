//! How much is taken in, how fast a publish is in force, and what an idle process weighs.
//!
//! `cargo bench -p sluice-tests --bench ingest`. Rounds alternate, so that a noisy machine is noisy for all; ratios are of
//! one run and hold better than rates, and so does processor time, which is that of planes, sender and destination together.
//! Everything is on: fsync before each answer, limits, request ids, metrics. Sender, destination and planes share the
//! machine's cores.
//!
//! | Row | What |
//! |---|---|
//! | rows in groups | the rows of a trigger through the inbox, 64 callers at once, no HTTP |
//! | rows one by one | the same by one caller: a commit and an fsync each |
//! | triggers | the same rows by HTTP, 64 kept connections, 1 KB of JSON; workers off, so that only taking in is measured |
//! | triggers, delivering | the same with workers that deliver at the same time to a local HTTPS destination |
//! | triggers with a token | as `triggers`, to endpoints that take the JSON Web Tokens of an API key |
//! | events | events submitted to the control plane by gRPC, 64 calls at once; workers off |
//! | members of an audience | one stream of `SubmitBatch`, 100 members to a message; workers off |

#![allow(clippy::print_stdout, reason = "its result is what it prints")]

use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message as _;
use sluice_client::admin;
use sluice_core::envelope::{Envelope, Headers};
use sluice_data_plane::clock::Clock;
use sluice_data_plane::inbox::{Accept, Accepted, Embedded, EmbeddedSettings, Flow, Inbox, Lane, NewJob};
use sluice_data_plane::settings::WorkerSettings;
use sluice_proto::sync::v1::Job;
use sluice_tests::subject::{Setup, Subject};
use sluice_tests::{Numbers, Request, World, resources};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::measure::{median, percentile, verdict};

mod measure;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 11;
const ROUND: Duration = Duration::from_millis(1500);
const CONNECTIONS: usize = 64;
/// An endpoint takes at most 10,000 requests per second (D10), so the load is spread.
const ENDPOINTS: usize = 8;
const PUBLISHES: usize = 250;
/// What starts the workflow for events and members, and its id.
const ACTION: &str = "order.paid";
const SUBMITTED: &str = "submitted";
/// What must hold: taking in over HTTP against the rows alone, and against a commit per request.
const OF_GROUPS_MIN: f64 = 0.5;
const OF_SINGLES_MIN: f64 = 4.0;
/// A token that was verified before costs a hash and a look-up.
const OF_OPEN_MIN: f64 = 0.9;

fn main() {
    // `cargo test --all-targets` builds and starts this too.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("run with: cargo bench -p sluice-tests --bench ingest");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let held = runtime.block_on(run());
    std::process::exit(i32::from(!held));
}

async fn run() -> bool {
    let body = body();
    println!("{} bytes of JSON, {CONNECTIONS} connections, {ROUNDS} rounds of {} ms", body.len(), ROUND.as_millis());
    let rows = Rows::open(&body).await;
    let quiet = Door::open(WorkerSettings { realtime: 0, bulk: 0 }, false).await;
    let guarded = Door::open(WorkerSettings { realtime: 0, bulk: 0 }, true).await;
    let busy = Door::open(WorkerSettings::default(), false).await;
    let (mut groups, mut singles) = (Measured::default(), Measured::default());
    let (mut taken, mut taken_busy) = (Measured::default(), Measured::default());
    let (mut delivered, mut taken_guarded) = (Measured::default(), Measured::default());
    let (mut events, mut members) = (Measured::default(), Measured::default());
    for round in 0..=ROUNDS {
        let measured = [rows.round(CONNECTIONS).await, rows.round(1).await, quiet.round(&body).await];
        let guarded_round = guarded.round(&body).await;
        let (events_round, members_round) = (quiet.events(&body).await, quiet.members(&body).await);
        let begun = Instant::now();
        let busy_round = busy.round(&body).await;
        busy.drained().await;
        let whole_way = busy_round.latencies.len() as f64 / begun.elapsed().as_secs_f64();
        // The first round warms up.
        if round > 0 {
            let [grouped, single, accepted] = measured;
            groups.add(grouped);
            singles.add(single);
            taken.add(accepted);
            taken_guarded.add(guarded_round);
            taken_busy.add(busy_round);
            events.add(events_round);
            members.add(members_round);
            delivered.rates.push(whole_way);
        }
    }
    println!(
        "\n{:<24}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "per second", "min", "median", "max", "p50 ms", "p99 ms", "CPU us"
    );
    groups.print("rows in groups");
    singles.print("rows one by one");
    taken.print("triggers");
    taken_guarded.print("triggers with a token");
    taken_busy.print("triggers, delivering");
    delivered.print("delivered and recorded");
    events.print("events");
    members.print("members of an audience");
    println!();
    let of_groups = at_least("triggers / rows in groups", taken.against(&groups), OF_GROUPS_MIN);
    let of_singles = at_least("triggers / rows one by one", taken.against(&singles), OF_SINGLES_MIN);
    let of_open = at_least("triggers with a token / triggers", taken_guarded.against(&taken), OF_OPEN_MIN);
    publishes(&quiet.world).await;
    idle().await;
    of_groups && of_singles && of_open
}

/// 1 KB as a shop sends it.
fn body() -> String {
    let items: Vec<serde_json::Value> = (0..8)
        .map(|item| serde_json::json!({ "sku": format!("SKU-{item:06}"), "name": "A thing of some kind", "quantity": item, "price": 19.99 }))
        .collect();
    let mut order = serde_json::json!({
        "orderId": "2026-000123",
        "customer": { "email": "jane@example.com", "name": "Jane Doe", "city": "Kraków" },
        "items": items,
        "note": "",
    });
    let missing = 1024_usize.saturating_sub(order.to_string().len());
    order["note"] = "x".repeat(missing).into();
    order.to_string()
}

/// Rates of rounds and latencies of all.
#[derive(Default)]
struct Measured {
    rates: Vec<f64>,
    latencies: Vec<Duration>,
    /// Processor time of the whole process per request, in microseconds.
    cpu: Vec<f64>,
}

/// What one round brought.
struct Round {
    rate: f64,
    latencies: Vec<Duration>,
    cpu: f64,
}

/// Where a round began, in time and in processor time.
#[derive(Clone, Copy)]
struct Begun {
    at: Instant,
    cpu: Duration,
}

impl Begun {
    fn now() -> Self {
        Self { at: Instant::now(), cpu: processor_time() }
    }

    fn is_over(&self) -> bool {
        self.at.elapsed() >= ROUND
    }

    fn round(&self, latencies: Vec<Duration>) -> Round {
        let count = latencies.len() as f64;
        let cpu = (processor_time() - self.cpu).as_secs_f64() * 1e6 / count;
        Round { rate: count / self.at.elapsed().as_secs_f64(), latencies, cpu }
    }
}

/// What this process has used so far, sender and destination included; nothing where there is no `/proc`.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |field: usize| after_name.split_whitespace().nth(field).and_then(|ticks| ticks.parse().ok());
    // User and system time, in hundredths of a second on every Linux.
    Duration::from_millis(10 * (ticks(11).unwrap_or(0_u64) + ticks(12).unwrap_or(0_u64)))
}

impl Measured {
    fn add(&mut self, round: Round) {
        self.rates.push(round.rate);
        self.latencies.extend(round.latencies);
        self.cpu.push(round.cpu);
    }

    fn median(&self) -> f64 {
        median(&self.rates)
    }

    /// The ratio of rates that were measured right after each other, so that a machine whose speed drifts does not matter.
    fn against(&self, other: &Self) -> f64 {
        let ratios: Vec<f64> = self.rates.iter().zip(&other.rates).map(|(rate, other)| rate / other).collect();
        median(&ratios)
    }

    fn print(&mut self, name: &str) {
        let (min, max) =
            self.rates.iter().fold((f64::MAX, 0.0_f64), |(min, max), rate| (min.min(*rate), max.max(*rate)));
        print!("{name:<24}{min:>10.0}{:>10.0}{max:>10.0}", self.median());
        if !self.latencies.is_empty() {
            print!("{:>10.2}{:>10.2}", percentile(&mut self.latencies, 50), percentile(&mut self.latencies, 99));
            print!("{:>10.0}", median(&self.cpu));
        }
        println!();
    }
}

fn at_least(name: &str, ratio: f64, min: f64) -> bool {
    verdict(name, ratio, ratio >= min, &format!("at least {min}"))
}

/// An inbox of its own, and the rows that a trigger leads to.
struct Rows {
    inbox: Inbox,
    payload: bytes::Bytes,
    _folder: tempfile::TempDir,
}

impl Rows {
    async fn open(body: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = EmbeddedSettings::new(folder.path().join("inbox.db"));
        let inbox = Inbox::Embedded(Embedded::open(settings, Clock::system()).await.expect("an inbox"));
        let mut headers = Headers::new();
        for (name, value) in [
            ("Host", "sluice.test"),
            ("Content-Type", "application/json"),
            ("Content-Length", "1024"),
            ("X-Request-ID", "01a20180-6afa-706f-ac5b-8ec817ff6626"),
            ("X-Forwarded-Host", "sluice.test"),
        ] {
            headers.push(name, value);
        }
        let envelope = Envelope {
            body: serde_json::from_str(body).expect("JSON"),
            business_profile_id: 1,
            endpoint_id: "0123456789abcdef0123456789abcdef".to_owned(),
            event_id: Uuid::now_v7().to_string(),
            headers,
            method: "POST".to_owned(),
            time: 1_800_000_000_000,
        };
        let job = Job {
            workspace: "workspaces/acme".to_owned(),
            workflow: "workspaces/acme/workflows/load".to_owned(),
            step_id: Uuid::now_v7().to_string(),
            trigger_id: envelope.event_id.clone(),
            revision: 1,
            envelope: envelope.to_json().into(),
            ..Job::default()
        };
        Self { inbox, payload: job.encode_to_vec().into(), _folder: folder }
    }

    async fn round(&self, callers: usize) -> Round {
        let begun = Begun::now();
        let flow = Arc::new(Flow {
            workspace: "workspaces/acme".to_owned(),
            destination: "api.example.com".to_owned(),
            owner: "workspaces/acme/workflows/load".to_owned(),
        });
        let mut all = JoinSet::new();
        for _ in 0..callers {
            let (inbox, payload, flow) = (self.inbox.clone(), self.payload.clone(), flow.clone());
            all.spawn(async move {
                let mut latencies = Vec::new();
                while !begun.is_over() {
                    let asked = Instant::now();
                    let (flow, payload) = (flow.clone(), payload.clone());
                    let job = NewJob { id: Uuid::now_v7(), lane: Lane::Realtime, flow, payload };
                    let accept = Accept { request: Uuid::now_v7(), claim: None, jobs: vec![job] };
                    assert_eq!(inbox.accept(accept).await, Ok(Accepted::Accepted));
                    latencies.push(asked.elapsed());
                }
                latencies
            });
        }
        begun.round(all.join_all().await.into_iter().flatten().collect())
    }
}

/// Both planes with endpoints that lead to a local destination.
struct Door {
    world: World,
    paths: Vec<String>,
    /// What senders show.
    token: Option<String>,
}

impl Door {
    async fn open(workers: WorkerSettings, with_token: bool) -> Self {
        let world = World::with(|options| {
            options.data_plane.workers = workers;
            options.control_plane.limits.events_per_second = 1_000_000;
            options.destination.remembered = 1;
        })
        .await;
        let key = if with_token { Some(api_key(&world).await) } else { None };
        let mut paths = Vec::new();
        for endpoint in 0..ENDPOINTS {
            let mut incoming = resources::open();
            if let Some(key) = &key {
                let source = Some(admin::jwt_authorization::Source::ApiKey(key.name.clone()));
                let jwt = admin::JwtAuthorization { source };
                incoming.authorization = Some(admin::incoming_integration::Authorization::Jwt(jwt));
            }
            let incoming = world.acme.incoming(&format!("load-{endpoint}"), incoming).await;
            let request = resources::post("https://api.example.com/in", r#"{"order": "{{ request.body.orderId }}"}"#);
            let workflow = resources::workflow(&incoming, [resources::custom_webhook("Send", request)]);
            world.acme.workflow(&format!("load-{endpoint}"), workflow).await;
            paths.push(incoming.endpoint_path);
        }
        let request = resources::post("https://api.example.com/in", r#"{"order": "{{ event.params.orderId }}"}"#);
        let event = Some(admin::EventTrigger { action: ACTION.to_owned() });
        let submitted = admin::Workflow {
            display_name: ACTION.to_owned(),
            triggers: vec![
                admin::Trigger { event, ..Default::default() },
                admin::Trigger { audience: Some(admin::AudienceTrigger {}), ..Default::default() },
            ],
            steps: vec![resources::custom_webhook("Send", request)],
            ..Default::default()
        };
        world.acme.workflow(SUBMITTED, submitted).await;
        world.served().await;
        world.acme.ready().await;
        let token = match key {
            Some(key) => Some(login(&world, &key).await),
            None => None,
        };
        Self { world, paths, token }
    }

    /// The load comes from a thread of its own, so that it does not stand in the planes' queue of tasks.
    async fn round(&self, body: &str) -> Round {
        let (address, body, paths) = (self.world.ingress(), body.to_owned(), self.paths.clone());
        let token = self.token.clone();
        let generate = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(load(address, &paths, &body, token.as_deref()))
        };
        tokio::task::spawn_blocking(generate).await.expect("the load")
    }

    /// Events, each in a call of its own.
    async fn events(&self, body: &str) -> Round {
        let begun = Begun::now();
        let mut all = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let request = admin::SubmitEventRequest {
                parent: self.world.acme.name.clone(),
                action: ACTION.to_owned(),
                params: body.to_owned(),
                ..Default::default()
            };
            let mut client = self.world.client.events();
            all.spawn(async move {
                let mut latencies = Vec::new();
                while !begun.is_over() {
                    let asked = Instant::now();
                    client.submit_event(request.clone()).await.expect("an answer");
                    latencies.push(asked.elapsed());
                }
                latencies
            });
        }
        begun.round(all.join_all().await.into_iter().flatten().collect())
    }

    /// Members of an audience, in one stream.
    async fn members(&self, body: &str) -> Round {
        let begun = Begun::now();
        let name = format!("{}/workflows/{SUBMITTED}", self.world.acme.name);
        let body = body.to_owned();
        let messages = futures::stream::unfold(name, move |name| {
            let item =
                |_| admin::BatchItem { id: Uuid::now_v7().to_string(), params: body.clone(), ..Default::default() };
            let items = (0..100).map(item).collect();
            let message = admin::SubmitBatchRequest { name, items, ..Default::default() };
            std::future::ready((!begun.is_over()).then_some((message, String::new())))
        });
        let answers = self.world.client.events().submit_batch(messages).await.expect("a stream");
        let (mut answers, mut latencies) = (answers.into_inner(), Vec::new());
        while let Some(answer) = answers.message().await.expect("answers") {
            // Of a member nothing is known but that it was answered.
            latencies.extend(answer.results.iter().map(|_| Duration::ZERO));
        }
        begun.round(latencies)
    }

    async fn drained(&self) {
        while !Numbers::of(self.world.health()).await.is_idle() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A key whose tokens the endpoints take.
async fn api_key(world: &World) -> admin::AccessKey {
    let api_key = admin::AccessKey {
        display_name: "load".to_owned(),
        roles: vec!["workspaces/acme/roles/webhook-sender".to_owned()],
        ..Default::default()
    };
    let parent = "workspaces/acme".to_owned();
    let request = admin::CreateApiKeyRequest { parent, api_key: Some(api_key), ..Default::default() };
    world.client.api_keys().create_api_key(request).await.expect("a key").into_inner()
}

/// A token of this key.
async fn login(world: &World, key: &admin::AccessKey) -> String {
    let body = serde_json::json!({ "apiKey": key.key }).to_string();
    let answer = world.send(&Request::post("/uauth/v2/auth/login/profile", body)).await;
    answer.json()["token"].as_str().expect("a token").to_owned()
}

async fn load(address: SocketAddr, paths: &[String], body: &str, token: Option<&str>) -> Round {
    let mut senders = Vec::new();
    for connection in 0..CONNECTIONS {
        let request = Request::post(&paths[connection % paths.len()], body);
        let shown = token.map(|token| format!("Bearer {token}"));
        let request = shown.into_iter().fold(request, |request, shown| request.header("Authorization", shown)).bytes();
        senders.push((Sender::open(address).await.expect("a connection"), request));
    }
    let begun = Begun::now();
    let mut all = JoinSet::new();
    for (mut sender, request) in senders {
        all.spawn(async move {
            let mut latencies = Vec::new();
            while !begun.is_over() {
                let asked = Instant::now();
                sender.send(&request).await.expect("200");
                latencies.push(asked.elapsed());
            }
            latencies
        });
    }
    begun.round(all.join_all().await.into_iter().flatten().collect())
}

/// A connection that knows the one answer it wants, so that it costs the planes little of their cores.
struct Sender {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Sender {
    #[expect(clippy::disallowed_methods, reason = "the sender is outside of the building")]
    async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::with_capacity(1024) })
    }

    async fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await?;
        self.received.clear();
        while !self.received.ends_with(b"\r\n\r\nOK") {
            if self.stream.read_buf(&mut self.received).await? == 0 || !self.received.starts_with(b"HTTP/1.1 200") {
                return Err(io::Error::other(String::from_utf8_lossy(&self.received).into_owned()));
            }
        }
        Ok(())
    }
}

/// From the call of Publish to the data plane serving that revision.
async fn publishes(world: &World) {
    let incoming = world.acme.incoming("publish", resources::open()).await;
    let draft = |number: usize| {
        let request = resources::post("https://api.example.com/in", &format!(r#"{{"number": {number}}}"#));
        resources::workflow(&incoming, [resources::custom_webhook("Send", request)])
    };
    let mut workflow = world.acme.workflow("publish", draft(0)).await;
    world.served().await;
    let mut took = Vec::new();
    for number in 1..=PUBLISHES {
        let name = workflow.name.clone();
        world.acme.update_workflow(admin::Workflow { name: name.clone(), ..draft(number) }).await;
        let served = || world.plane().served.load().workspace("workspaces/acme").map_or(0, |served| served.revision);
        let before = served();
        let begun = Instant::now();
        workflow = world.acme.publish_workflow(&name).await.expect("published");
        while served() == before {
            tokio::task::yield_now().await;
        }
        took.push(begun.elapsed());
    }
    let resources = 2 * ENDPOINTS + 2;
    println!(
        "\npublish to served, {PUBLISHES} times, {resources} resources: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        percentile(&mut took, 50),
        percentile(&mut took, 99),
        percentile(&mut took, 100),
    );
}

/// Both planes in a fresh process that nobody calls.
async fn idle() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::on(&folder.path().join("data"));
    let subject = Subject::start(env!("CARGO_BIN_EXE_subject"), &setup, Stdio::inherit()).await.expect("a process");
    // Until the first sync is over and nothing is left to do.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let status = format!("/proc/{}/status", subject.id().expect("it runs"));
    let status = std::fs::read_to_string(status).unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    match resident.and_then(|kilobytes| kilobytes.parse::<f64>().ok()) {
        Some(kilobytes) => println!("idle process, both planes: {:.1} MB resident", kilobytes / 1024.0),
        None => println!("idle process: this system does not tell (no /proc)"),
    }
    subject.stop().await.expect("a proper stop");
}
