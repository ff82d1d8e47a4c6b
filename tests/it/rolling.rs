//! The whole building under load while everything is restarted in turn: three data planes on one Redis, two control planes on one
//! PostgreSQL, each a process of its own, and both stores. Senders come through a plain TCP balancer.
//!
//! The planes' own restarts are noticed by no sender. While Redis is away a sender may be told to come again (503 with `Retry-After`), at no
//! other time. At the end of each round the logs are laid side by side ([`Ledger`]): whatever was answered 200 has ended as it was
//! promised, and was told. One pass; with `SLUICE_LONG=1` 20.

#![allow(clippy::print_stdout, reason = "what a run was worth")]

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use sluice::destination::{self, Answer, Destination, Manner, Otherwise};
use sluice_client::{Client, admin};
use sluice_core::seal::Secret;
use sluice_data_plane::clock::Clock;
use sluice_data_plane::inbox::{Inbox, InboxSettings, RedisSettings};
use sluice_tests::balancer::Server;
use sluice_tests::postgres::{Mode, Postgres};
use sluice_tests::subject::{Joined, Setup, Subject};
use sluice_tests::{Balancer, Numbers, RawHttp, RedisServer, Request, Workspace, eventually, long, within};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::campaign::ledger::{Ledger, Sent};
use crate::campaign::{arrival, configure, recorded_and_told};

/// The binary that is restarted.
const PROGRAM: &str = env!("CARGO_BIN_EXE_subject");
const DATA_PLANES: [&str; 3] = ["dp-1", "dp-2", "dp-3"];
const SENDERS: usize = 4;
/// Between two requests of a sender, and between two publishes: the machine is to have time for the others, too.
const PAUSE: Duration = Duration::from_millis(20);
/// Requests that are answered before the next thing happens.
const SOME: usize = 40;
/// Much longer than the balancer needs to turn away, and than a sender is silent.
const LAME_DUCK: Duration = Duration::from_secs(3);

/// What the senders and the publisher share with the test.
#[derive(Clone)]
struct Load {
    /// Where triggers are taken, and by which path.
    front: std::net::SocketAddr,
    path: String,
    /// What the markers begin with.
    round: String,
    sent: Arc<Mutex<Vec<Sent>>>,
    /// What nobody should have been told.
    wrong: Arc<Mutex<Vec<String>>>,
    answers: watch::Sender<usize>,
    published: watch::Sender<i64>,
    /// Redis is not there, or was not a moment ago.
    redis_away: Arc<AtomicBool>,
    /// Calls may be refused: a control plane or its database is not there, or was not a moment ago.
    calls_refused: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Load {
    fn new(front: std::net::SocketAddr, path: String, round: String) -> Self {
        Self {
            front,
            path,
            round,
            sent: Arc::default(),
            wrong: Arc::default(),
            answers: watch::Sender::new(0),
            published: watch::Sender::new(0),
            redis_away: Arc::default(),
            calls_refused: Arc::default(),
            stop: Arc::default(),
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    fn is_wrong(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }

    /// Sends one request after the other; every other one with a key, some of those again.
    async fn send(self, sender: usize) {
        let mut connection = None;
        let mut number = 0;
        while self.goes_on() {
            number += 1;
            let marker = format!("{}-{sender}-{number}", self.round);
            let has_key = number % 2 == 0;
            let times = if number % 8 == 0 { 2 } else { 1 };
            for _ in 0..times {
                while self.once(&mut connection, self.front, &marker, has_key).await.is_none() && has_key {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The status of a request that was taken, or had been; as a client does that keeps connections and looks whether one is still
    /// there before it uses it again.
    async fn once(
        &self,
        connection: &mut Option<RawHttp>,
        door: std::net::SocketAddr,
        marker: &str,
        has_key: bool,
    ) -> Option<u16> {
        let redis_was_away = self.redis_away.load(Ordering::SeqCst);
        let mut open = match connection.take().filter(|open| !open.is_closed()) {
            Some(open) => open,
            None => RawHttp::connect(door).await,
        };
        let request = Request::post(&self.path, json!({ "marker": marker }).to_string());
        let request = if has_key { request.header("X-Deduplication-Hash", marker) } else { request };
        open.send(&request.bytes()).await;
        let answer = open.answer_or_end().await;
        let taken = match &answer {
            None => {
                self.is_wrong(format!("{marker}: the connection ended without an answer"));
                None
            }
            Some(answer) if answer.status == 503 => {
                let may_be = redis_was_away || self.redis_away.load(Ordering::SeqCst);
                if !may_be || answer.header("retry-after").is_none() {
                    self.is_wrong(format!("{marker}: {} {:?}", answer.text(), answer.headers));
                }
                None
            }
            Some(answer) => Some(answer.status),
        };
        self.sent.lock().unwrap().push(Sent { marker: marker.to_owned(), keyed: has_key, answer: taken });
        if let Some(answer) = answer {
            self.answers.send_modify(|answers| *answers += usize::from(answer.status < 300));
            *connection = Some(open).filter(|_| answer.header("connection") != Some("close"));
        }
        taken
    }

    /// Publishes one version of the endpoint after the other, each until it is answered, under one request id.
    async fn publish(self, client: Client, name: String) {
        let mut number = 0;
        while self.goes_on() {
            number += 1;
            let rate_limit = Some(admin::RateLimit { requests_per_second: 10_000, burst: 20_000 });
            let draft = admin::IncomingIntegration {
                name: name.clone(),
                display_name: format!("Version {number}"),
                rate_limit,
                ..sluice_tests::resources::open()
            };
            let request_id = uuid::Uuid::new_v4().to_string();
            let request = admin::UpdateIncomingIntegrationRequest {
                incoming_integration: Some(draft),
                request_id,
                ..Default::default()
            };
            self.answered(|| {
                let (mut calls, request) = (client.incoming_integrations(), request.clone());
                async move { calls.update_incoming_integration(request).await }
            })
            .await;
            let request_id = uuid::Uuid::new_v4().to_string();
            let request =
                admin::PublishIncomingIntegrationRequest { name: name.clone(), request_id, ..Default::default() };
            let published = self
                .answered(|| {
                    let (mut calls, request) = (client.incoming_integrations(), request.clone());
                    async move { calls.publish_incoming_integration(request).await }
                })
                .await;
            // Each exactly once: the endpoint was published for the first time before.
            if published.published_version != number + 1 {
                self.is_wrong(format!("publish {number} made version {}", published.published_version));
            }
            self.published.send_replace(number);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The answer to a call that is made until it is answered.
    async fn answered<A, F>(&self, call: impl Fn() -> F) -> A
    where
        F: Future<Output = Result<tonic::Response<A>, Status>>,
    {
        let begun = std::time::Instant::now();
        loop {
            let may_be = self.calls_refused.load(Ordering::SeqCst);
            let refused = match call().await {
                Ok(answer) => return answer.into_inner(),
                Err(refused) => refused,
            };
            let may_be = may_be || self.calls_refused.load(Ordering::SeqCst);
            if !may_be || refused.code() != Code::Unavailable {
                self.is_wrong(format!("a call was refused: {refused:?}"));
            }
            assert!(begun.elapsed() < sluice_tests::PATIENCE, "the call was never answered: {refused:?}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until some more requests were answered.
    async fn some_answers(&self) {
        let so_far = *self.answers.borrow();
        let mut answers = self.answers.subscribe();
        within("more answers", answers.wait_for(|answers| *answers >= so_far + SOME)).await.unwrap();
    }

    /// Waits until two more versions were published: the second one was begun after this.
    async fn some_publishes(&self) {
        let so_far = *self.published.borrow();
        let mut published = self.published.subscribe();
        within("more publishes", published.wait_for(|published| *published >= so_far + 2)).await.unwrap();
    }
}

/// A process that can be restarted.
struct Part {
    setup: Setup,
    running: Subject,
    life: u32,
}

impl Part {
    async fn start(setup: Setup) -> Self {
        let running = live(&setup, 1).await;
        Self { setup, running, life: 1 }
    }

    /// SIGTERM, and another life once it has ended by itself.
    async fn restart(&mut self) {
        assert!(self.running.terminate().await.unwrap().success(), "a proper stop ends with 0");
        self.life += 1;
        self.running = live(&self.setup, self.life).await;
    }

    async fn ready(&self) {
        eventually("it to be ready", || async {
            let asked = RawHttp::connect(self.setup.health).await.exchange(&Request::new("GET", "/readyz")).await;
            (asked.status == 200).then_some(())
        })
        .await;
    }
}

/// The next life of a process; the destination sees which one it is.
async fn live(setup: &Setup, life: u32) -> Subject {
    let setup = Setup { user_agent: format!("{}-{life}", setup.id), ..setup.clone() };
    Subject::start(PROGRAM, &setup, Stdio::inherit()).await.unwrap()
}

struct Building {
    redis: RedisServer,
    postgres: Postgres,
    control_planes: Vec<Part>,
    data_planes: Vec<Part>,
    triggers: Balancer,
    /// Before the control planes.
    _calls: Balancer,
    client: Client,
    destination: Destination,
    log: PathBuf,
    _folder: TempDir,
}

impl Building {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("destination.jsonl");
        // It takes its time, so that whatever is restarted has deliveries under way.
        let slow = Answer::json(200, r#"{"ok":1}"#).manner(Manner::Slow(PAUSE));
        let options = destination::Options {
            otherwise: Otherwise::Answer(slow),
            ..destination::Options::named(["api.example.com"])
        };
        let destination = Destination::start(options).await.unwrap();
        destination.log_to(&log).await.unwrap();
        let redis = RedisServer::start().await;
        let postgres = tokio::task::block_in_place(Postgres::start);
        let database = postgres.database("sluice");
        let mut control_planes = Vec::new();
        for _ in 0..2 {
            let mut setup = Setup::on(&folder.path().join("control"));
            (setup.control_plane_alone, setup.database) = (true, Some(database.clone()));
            // The first one makes the keys that the second one shares.
            control_planes.push(Part::start(setup).await);
        }
        let server = |part: &Part| Server { address: part.setup.grpc, health: None };
        let calls = Balancer::start(control_planes.iter().map(server).collect()).await;
        let url = format!("http://{}", calls.address);
        let mut data_planes = Vec::new();
        for id in DATA_PLANES {
            let mut setup = Setup::on(&folder.path().join(id));
            setup.id = id.to_owned();
            setup.joins = Some(Joined { url: url.clone(), folder: folder.path().join("control") });
            setup.redis = Some(redis.url());
            setup.lame_duck = LAME_DUCK;
            (setup.ca_pem, setup.static_addresses) = (destination.ca_pem(), destination.static_addresses());
            data_planes.push(Part::start(setup).await);
        }
        let server = |part: &Part| Server { address: part.setup.ingress, health: Some(part.setup.health) };
        let triggers = Balancer::start(data_planes.iter().map(server).collect()).await;
        let key = std::fs::read_to_string(folder.path().join("control/admin.key")).unwrap();
        let client = Client::connect(&url, &key).await.unwrap();
        Self {
            redis,
            postgres,
            control_planes,
            data_planes,
            triggers,
            _calls: calls,
            client,
            destination,
            log,
            _folder: folder,
        }
    }

    /// A workspace of its own under load.
    async fn round(&mut self, name: String, kills: usize, what: impl AsyncFn(&mut Self, &Load)) {
        let workspace = Workspace::create(&self.client, &name).await;
        let path = configure(&workspace).await;
        self.served(&self.client, &workspace).await;
        let load = Load::new(self.triggers.address, path, name);
        let mut running = JoinSet::new();
        for sender in 0..SENDERS {
            running.spawn(load.clone().send(sender));
        }
        let endpoint = format!("{}/incomingIntegrations/load", workspace.name);
        running.spawn(load.clone().publish(self.client.clone(), endpoint.clone()));
        load.some_answers().await;
        what(self, &load).await;
        load.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = running.join_next().await {
            ended.unwrap();
        }
        self.served(&self.client, &workspace).await;
        let ledger = self.ledger(&workspace, &load, kills).await;
        println!(
            "{}: {} requests, {} deliveries, {} publishes",
            load.round,
            ledger.sent.len(),
            ledger.recorded.len(),
            *load.published.borrow()
        );
        assert_eq!(*load.wrong.lock().unwrap(), Vec::<String>::new());
        assert_eq!(ledger.breaches(), Vec::<String>::new());
    }

    /// Waits until everything of the round has ended and was told, and lays the logs side by side.
    async fn ledger(&self, workspace: &Workspace, load: &Load, kills: usize) -> Ledger {
        for part in &self.data_planes {
            eventually("the inbox to be empty", || async {
                Numbers::of(part.setup.health).await.is_idle().then_some(())
            })
            .await;
        }
        let (recorded, events) = recorded_and_told(&self.client, &workspace.name).await;
        let log = std::fs::read_to_string(&self.log).unwrap();
        let of_round = format!("{}-", load.round);
        let arrived = log.lines().map(arrival).filter(|arrived| arrived.marker.starts_with(&of_round)).collect();
        let sent = load.sent.lock().unwrap().clone();
        Ledger { sent, arrived, recorded, events, left: 0, kills, paused: false }
    }

    /// Waits until all data planes serve what is published, as whoever is asked by this client says.
    async fn served(&self, client: &Client, workspace: &Workspace) {
        eventually("the configuration to be served", || async {
            let request = admin::WaitServedRequest { parent: workspace.name.clone(), ..Default::default() };
            let told = client.configuration().wait_served(request).await.ok()?.into_inner();
            (told.served && told.serving.len() == DATA_PLANES.len()).then_some(())
        })
        .await;
    }

    /// Waits until each control plane knows that all data planes are connected.
    async fn all_are_known(&self) {
        for part in &self.control_planes {
            let key = std::fs::read_to_string(part.setup.folder.join("admin.key")).unwrap();
            let client = Client::connect(&format!("http://{}", part.setup.grpc), &key).await.unwrap();
            eventually("all data planes to be connected", || async {
                let request = admin::ListDataPlanesRequest::default();
                let listed = client.data_planes().list_data_planes(request).await.ok()?.into_inner().data_planes;
                let connected = listed.iter().filter(|plane| plane.connected).count();
                (connected == DATA_PLANES.len()).then_some(())
            })
            .await;
        }
    }

    async fn data_planes_in_turn(&mut self, load: &Load) {
        for part in &mut self.data_planes {
            part.restart().await;
            part.ready().await;
            load.some_answers().await;
        }
    }

    async fn control_planes_in_turn(&mut self, load: &Load) {
        load.calls_refused.store(true, Ordering::SeqCst);
        for at in 0..self.control_planes.len() {
            self.control_planes[at].restart().await;
            self.control_planes[at].ready().await;
            self.all_are_known().await;
            load.some_publishes().await;
        }
        load.calls_refused.store(false, Ordering::SeqCst);
        load.some_answers().await;
    }

    /// It comes back with all it had said to have: SIGTERM, and `kill -9`.
    async fn redis_twice(&mut self, load: &Load) {
        load.redis_away.store(true, Ordering::SeqCst);
        for is_killed in [false, true] {
            match is_killed {
                false => self.redis.restart().await,
                true => self.redis.crash().await,
            }
            load.some_answers().await;
        }
        // Each has noticed that it is back.
        for part in &self.data_planes {
            let marker = format!("{}-{}-after", load.round, part.setup.id);
            let asked = || async { load.once(&mut None, part.setup.ingress, &marker, true).await.map(drop) };
            eventually("it to take triggers again", asked).await;
        }
        load.redis_away.store(false, Ordering::SeqCst);
        load.some_answers().await;
    }

    async fn postgres_twice(&mut self, load: &Load) {
        load.calls_refused.store(true, Ordering::SeqCst);
        for mode in [Mode::Fast, Mode::Immediate] {
            tokio::task::block_in_place(|| self.postgres.restart(mode));
            load.some_publishes().await;
            self.all_are_known().await;
        }
        load.calls_refused.store(false, Ordering::SeqCst);
        load.some_answers().await;
    }

    /// Everything stops; nothing is left.
    async fn end(self) {
        // What data planes still have to say is heard before the control planes end.
        for parts in [self.data_planes, self.control_planes] {
            parts.iter().for_each(|part| part.running.signal("-TERM"));
            for part in parts {
                assert!(part.running.ended().await.unwrap().success(), "a proper stop ends with 0");
            }
        }
        let settings = RedisSettings::new(Secret::new(self.redis.url()), DATA_PLANES[0]);
        let inbox = Inbox::open(InboxSettings::Redis(settings), Clock::system()).await.unwrap();
        let stats = inbox.stats().await.unwrap();
        inbox.close().await;
        let open = [stats.realtime, stats.bulk].iter().map(|lane| lane.ready + lane.leased + lane.delayed).sum::<u64>();
        assert_eq!((open, stats.outbox), (0, 0), "jobs and reports that are left");
        tokio::task::block_in_place(|| self.postgres.stop());
        self.destination.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_restarted_in_turn_under_load() {
    let mut building = Building::start().await;
    for pass in 1..=long::either(1, 20) {
        // Nothing is killed: no destination sees anything twice.
        building
            .round(format!("planes-{pass}"), 0, async |building, load| {
                building.data_planes_in_turn(load).await;
                building.control_planes_in_turn(load).await;
            })
            .await;
        building
            .round(format!("stores-{pass}"), 2, async |building, load| {
                building.redis_twice(load).await;
                building.postgres_twice(load).await;
            })
            .await;
    }
    building.end().await;
}
