//! Load on real planes while something goes wrong, and three logs that are laid side by side at the end: whatever was promised before
//! is kept after (I1 to I3).
//!
//! Senders and destination live in this process and survive; the planes live in the binary `subject` and may be killed, stopped or
//! starved. [`ledger`] says what must hold whatever the fault was; the files beside it bring the faults, `crash.rs` the crashes. A
//! failure repeats its dice with `SLUICE_SEED`.

#![allow(clippy::print_stdout, reason = "what a failed campaign needs to be repeated")]

mod attacks;
mod clocks;
mod disk;
pub(crate) mod ledger;
mod restarts;
mod soak;
mod stall;
mod store;
mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ledger::{Arrived, Ledger, Recorded, Sent};
use serde_json::{Value, json};
use sluice::destination::{self, Destination};
use sluice_client::{Client, admin};
use sluice_core::seal::Secret;
use sluice_data_plane::clock::Clock;
use sluice_data_plane::inbox::{Durability, EmbeddedSettings, Inbox, InboxSettings, RedisSettings};
use sluice_tests::subject::{Fault, Joined, Setup, Subject};
use sluice_tests::{
    Numbers, RawHttp, RedisServer, Request, Workspace, eventually, eventually_within, long, resources, within,
};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The binary that is killed.
const PROGRAM: &str = env!("CARGO_BIN_EXE_subject");
/// Requests at once.
const SENDERS: u64 = 16;
/// How long what has piled up may take to be worked off on a slow machine.
const DRAIN_MAX: Duration = Duration::from_secs(120);

/// A sender waits no longer for an answer; then it asks again.
const SENDER_PATIENCE: Duration = Duration::from_secs(10);
/// A lease that a test can wait for: what a fault left in the middle is taken up again after it.
const SHORT_LEASE: Duration = Duration::from_secs(4);
/// Between two tries of a sender whose request was not taken, so that it does not spend the machine on asking.
const SENDER_PAUSE: Duration = Duration::from_millis(20);

/// Small, seeded, and the same everywhere.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn seed() -> u64 {
    let seed = long::asked("SLUICE_SEED").map(|seed| seed.parse().unwrap());
    let seed = seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    println!("SLUICE_SEED={seed}");
    seed
}

/// What the senders share with the test.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) sent: Arc<Mutex<Vec<Sent>>>,
    pub(crate) answers: watch::Sender<u64>,
    /// How often 503 was answered.
    pub(crate) refused: watch::Sender<u64>,
    /// Counts the lives of all processes; 0 before the first.
    life: watch::Sender<u64>,
    stop: watch::Sender<bool>,
    /// What a sender waits between two requests.
    pub(crate) pace: Duration,
    /// Whether 503 may be answered: it promises nothing, and the request may have been kept.
    pub(crate) may_refuse: bool,
    pub(crate) setup: Setup,
    /// Where triggers are taken.
    pub(crate) doors: Vec<SocketAddr>,
    pub(crate) path: String,
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
            if !self.pace.is_zero() {
                tokio::time::sleep(self.pace).await;
            }
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

    /// The status, or none when the process died first or could not take it; then waits a moment, or for its next life.
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
                let exchange = async {
                    connection.send(&request.bytes()).await;
                    connection.answer_or_end().await
                };
                tokio::time::timeout(SENDER_PATIENCE, exchange).await.ok().flatten()
            }
            None => None,
        };
        match answer {
            Some(answer) if answer.status == 503 && self.may_refuse => {
                self.refused.send_modify(|refused| *refused += 1);
                tokio::time::sleep(SENDER_PAUSE).await;
                None
            }
            Some(answer) => {
                self.answers.send_modify(|answers| *answers += 1);
                Some(answer.status)
            }
            None => {
                *connection = None;
                let mut lives = self.life.subscribe();
                let _next_life = tokio::time::timeout(SENDER_PAUSE, lives.wait_for(|now| *now > life)).await;
                None
            }
        }
    }
}

/// Another data plane, and how it is started.
pub(crate) struct Joiner {
    pub(crate) setup: Setup,
    pub(crate) subject: Option<Subject>,
}

/// One folder, one destination, many lives.
pub(crate) struct Campaign {
    /// Killed in turn with the process, if there is one.
    pub(crate) redis: Option<RedisServer>,
    /// Other data planes on it.
    pub(crate) joiners: Vec<Joiner>,
    folder: TempDir,
    log: PathBuf,
    pub(crate) destination: Destination,
    pub(crate) client: Client,
    pub(crate) workspace: Workspace,
    pub(crate) load: Load,
    pub(crate) subject: Option<Subject>,
    /// Crashes and pauses, after which a delivery may be sent again.
    pub(crate) kills: usize,
    /// Whether there were pauses.
    paused: bool,
    rounds: usize,
    /// Lines of the destination's log that are of an earlier workspace.
    seen_before: usize,
    pub(crate) dice: Dice,
}

impl Campaign {
    pub(crate) async fn start(change: impl FnOnce(&mut Setup)) -> Self {
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
            refused: watch::Sender::new(0),
            life: watch::Sender::new(1),
            stop: watch::Sender::new(false),
            pace: Duration::ZERO,
            // A shared store may be away.
            may_refuse: setup.redis.is_some(),
            doors: vec![setup.ingress],
            setup,
            path,
        };
        Self {
            redis: None,
            joiners: Vec::new(),
            folder,
            log,
            destination,
            client,
            workspace,
            load,
            subject: Some(subject),
            kills: 0,
            paused: false,
            rounds: 0,
            seen_before: 0,
            dice: Dice(seed()),
        }
    }

    /// On a Redis of its own, which may die as well.
    pub(crate) async fn start_on_redis() -> Self {
        Self::start_on(RedisServer::start().await, |_| {}).await
    }

    /// On this one, with leases that a test can wait for.
    pub(crate) async fn start_with_short_leases(redis: RedisServer, change: impl FnOnce(&mut Setup)) -> Self {
        Self::start_on(redis, |setup| {
            setup.lease = SHORT_LEASE;
            change(setup);
        })
        .await
    }

    /// On this one.
    pub(crate) async fn start_on(redis: RedisServer, change: impl FnOnce(&mut Setup)) -> Self {
        let campaign = Self::start(|setup| {
            setup.redis = Some(redis.url());
            change(setup);
        })
        .await;
        Self { redis: Some(redis), ..campaign }
    }

    /// Another data plane, with the inbox of the first if that is shared.
    pub(crate) async fn join(&mut self, change: impl FnOnce(&mut Setup)) {
        let first = self.load.setup.clone();
        let id = format!("joiner-{}", self.joiners.len());
        let mut setup = Setup::on(&self.folder.path().join(&id));
        setup.id = id;
        setup.joins = Some(Joined { url: format!("http://{}", first.grpc), folder: first.folder });
        (setup.redis, setup.ca_pem, setup.static_addresses) = (first.redis, first.ca_pem, first.static_addresses);
        (setup.lease, setup.fast) = (first.lease, first.fast);
        change(&mut setup);
        self.load.doors.push(setup.ingress);
        self.joiners.push(Joiner { setup, subject: None });
        self.joiner_lives_again(self.joiners.len() - 1).await;
        served(&self.client, &self.workspace, 1 + self.joiners.len()).await;
    }

    /// Loads while something goes wrong, and lets the senders finish when it is over.
    pub(crate) async fn under_load(&mut self, fault: impl AsyncFnOnce(&mut Self)) {
        self.load.stop.send_replace(false);
        if self.subject.is_none() {
            self.live_again().await;
            for n in 0..self.joiners.len() {
                self.joiner_lives_again(n).await;
            }
        }
        self.rounds += 1;
        let mut senders = JoinSet::new();
        for sender in 0..SENDERS {
            let dice = Dice(self.dice.below(u64::MAX));
            senders.spawn(self.load.clone().run(sender, self.rounds, dice));
        }
        fault(self).await;
        self.load.stop.send_replace(true);
        while let Some(ended) = senders.join_next().await {
            ended.unwrap();
        }
    }

    /// Waits until so many more requests were answered.
    pub(crate) async fn answers(&self, more: u64) {
        let so_far = *self.load.answers.borrow();
        let mut answers = self.load.answers.subscribe();
        within("answers", answers.wait_for(|answers| *answers >= so_far + more)).await.unwrap();
    }

    /// Waits until so many more requests were refused.
    pub(crate) async fn refusals(&self, more: u64) {
        let so_far = *self.load.refused.borrow();
        let mut refused = self.load.refused.subscribe();
        within("refusals", refused.wait_for(|refused| *refused >= so_far + more)).await.unwrap();
    }

    /// Something was paused, or cut off from what it was asked.
    pub(crate) fn paused(&mut self) {
        self.kills += 1;
        self.paused = true;
    }

    pub(crate) async fn crash(&mut self) {
        self.subject.take().unwrap().kill().await.unwrap();
        self.kills += 1;
        self.live_again().await;
    }

    /// Another life, with this bug if one is given; the one before is stopped if it lives.
    pub(crate) async fn restart(&mut self, fault: Option<Fault>) {
        if let Some(subject) = self.subject.take() {
            subject.stop().await.unwrap();
        }
        self.load.setup.fault = fault;
        self.live_again().await;
    }

    pub(crate) async fn joiner_lives_again(&mut self, n: usize) {
        let life = *self.load.life.borrow() + 1;
        self.joiners[n].subject = Some(live(&self.joiners[n].setup, life).await);
        self.load.life.send_replace(life);
    }

    pub(crate) async fn live_again(&mut self) {
        let life = *self.load.life.borrow() + 1;
        self.subject = Some(live(&self.load.setup, life).await);
        self.load.life.send_replace(life);
    }

    /// Waits until everything has ended and was told, and lays the logs side by side.
    pub(crate) async fn logs(&self) -> Ledger {
        self.store_is_back().await;
        self.idle().await;
        let (recorded, events) = recorded_and_told(&self.client, &self.workspace.name).await;
        Ledger {
            sent: self.load.sent.lock().unwrap().clone(),
            arrived: self.arrived(),
            recorded,
            events,
            left: 0,
            kills: self.kills,
            paused: self.paused,
        }
    }

    /// The same, when all have stopped properly.
    pub(crate) async fn ledger(&mut self) -> Ledger {
        let ledger = self.logs().await;
        for joiner in &mut self.joiners {
            assert!(joiner.subject.take().unwrap().stop().await.unwrap().success(), "a proper stop ends with 0");
        }
        assert!(self.subject.take().unwrap().stop().await.unwrap().success(), "a proper stop ends with 0");
        Ledger { arrived: self.arrived(), left: self.left().await, ..ledger }
    }

    /// What the destination has seen of the load in this workspace.
    fn arrived(&self) -> Vec<Arrived> {
        let log = std::fs::read_to_string(&self.log).unwrap();
        log.lines().skip(self.seen_before).filter(|line| is_of_the_load(line)).map(arrival).collect()
    }

    /// Goes on in another workspace, with empty logs.
    pub(crate) async fn begin_anew(&mut self) {
        let log = std::fs::read_to_string(&self.log).unwrap();
        self.seen_before = log.lines().count();
        self.workspace = Workspace::create(&self.client, &format!("acme-{}", self.rounds)).await;
        self.load.path = configure(&self.workspace).await;
        served(&self.client, &self.workspace, 1 + self.joiners.len()).await;
        self.load.sent.lock().unwrap().clear();
        (self.kills, self.paused) = (0, false);
    }

    /// Waits until everything has ended and was told.
    pub(crate) async fn idle(&self) {
        for health in self.healths() {
            let is_idle = || async move { Numbers::of(health).await.is_idle().then_some(()) };
            eventually_within(DRAIN_MAX, "the inbox to be empty", is_idle).await;
        }
    }

    /// A shared store that was away a moment ago is asked again: until then, numbers are those of before.
    async fn store_is_back(&self) {
        if self.redis.is_none() {
            return;
        }
        let marker = format!("after-{}-rounds", self.rounds);
        for door in &self.load.doors {
            eventually("the store to be back", || async {
                let answer = self.load.exchange(*door, &mut None, &marker, true).await;
                self.load.sent.lock().unwrap().push(Sent { marker: marker.clone(), keyed: true, answer });
                answer.map(drop)
            })
            .await;
        }
    }

    pub(crate) fn healths(&self) -> Vec<SocketAddr> {
        let joiners = self.joiners.iter().map(|joiner| joiner.setup.health);
        std::iter::once(self.load.setup.health).chain(joiners).collect()
    }

    /// What the inbox still holds.
    async fn left(&self) -> u64 {
        let setup = &self.load.setup;
        let settings = match &setup.redis {
            None => InboxSettings::Embedded(EmbeddedSettings::new(setup.folder.join("inbox.db"))),
            Some(url) => InboxSettings::Redis(RedisSettings {
                durability: if setup.fast { Durability::Fast } else { Durability::Strict },
                ..RedisSettings::new(Secret::new(url), "subject")
            }),
        };
        let inbox = Inbox::open(settings, Clock::system()).await.unwrap();
        let stats = inbox.stats().await.unwrap();
        inbox.close().await;
        let lanes = [stats.realtime, stats.bulk];
        lanes.iter().map(|lane| lane.ready + lane.leased + lane.delayed).sum::<u64>() + stats.outbox
    }

    /// The ledger is clean; says what happened.
    pub(crate) async fn holds(&mut self) -> Ledger {
        let ledger = self.ledger().await;
        clean(&ledger);
        ledger
    }

    pub(crate) async fn end(self) {
        let joiners = self.joiners.into_iter().filter_map(|joiner| joiner.subject);
        for subject in joiners.chain(self.subject) {
            subject.stop().await.unwrap();
        }
        self.destination.shutdown().await;
        self.folder.close().unwrap();
    }
}

/// Shows no breach; says what happened.
pub(crate) fn clean(ledger: &Ledger) {
    let unanswered = ledger.sent.iter().filter(|sent| sent.answer.is_none()).count();
    let repeated = ledger.recorded.iter().filter(|recorded| recorded.ambiguous.contains(&true)).count();
    println!(
        "{} crashes or pauses: {} requests, {unanswered} unanswered, {} deliveries, {repeated} marked ambiguous",
        ledger.kills,
        ledger.sent.len(),
        ledger.recorded.len(),
    );
    assert!(ledger.sent.iter().any(|sent| sent.answer == Some(200)), "the load was no load");
    assert_eq!(ledger.breaches(), Vec::<String>::new());
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
        let served = planes.iter().flat_map(|plane| &plane.workspaces);
        let served = served.filter(|served| served.workspace == workspace.name && served.revision >= revision);
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
            expired: delivery.reason() == admin::failure::Reason::Expired,
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

/// Others may send there as well.
fn is_of_the_load(line: &str) -> bool {
    serde_json::from_str::<Value>(line).unwrap()["target"] == "/in"
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
