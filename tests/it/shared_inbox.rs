//! Several data planes on one Redis: whichever is asked, it is one inbox; whichever dies or hangs, the other goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use sluice::destination::{Answer, Gate, Seen};
use sluice_client::admin::{self, DeliveryState};
use sluice_data_plane::clock::Clock;
use sluice_data_plane::inbox::{Inbox, InboxSettings, RedisSettings};
use sluice_tests::resources::post;
use sluice_tests::subject::{Joined, Setup, Subject};
use sluice_tests::{Authority, Numbers, RawHttp, RedisServer, Request, World, eventually};
use tempfile::TempDir;

const URL: &str = "https://api.example.com/orders";
/// So long that a plane on a busy machine renews in time, so short that a test can wait for it.
const LEASE: Duration = Duration::from_secs(10);
/// Deliveries that are on their way when something happens.
const HELD: usize = 6;

/// A world, and another data plane in a process of its own, on one Redis.
struct Pair {
    world: World,
    second: Option<Subject>,
    setup: Setup,
    incoming: admin::IncomingIntegration,
    _redis: RedisServer,
    _folder: TempDir,
}

impl Pair {
    async fn start() -> Self {
        let redis = RedisServer::start().await;
        let settings = RedisSettings { lease: LEASE, ..redis.inbox("test") };
        let world = World::with(|options| {
            options.data_plane.inbox = InboxSettings::Redis(settings);
            // A share of these is one.
            options.data_plane.workers.realtime = 4;
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let mut setup = Setup::on(&folder.path().join("data"));
        setup.id = "second".to_owned();
        setup.user_agent = "second".to_owned();
        setup.joins = Some(Joined { url: world.grpc_url(), folder: world.folder.path().to_owned() });
        setup.redis = Some(redis.url());
        setup.lease = LEASE;
        setup.ca_pem = world.destination.ca_pem();
        setup.static_addresses = world.destination.static_addresses();
        let second = Subject::start(env!("CARGO_BIN_EXE_subject"), &setup, Stdio::inherit()).await.unwrap();
        let incoming = world.acme.flow("orders", post(URL, r#"{"id":{{ request.body.id }}}"#)).await;
        let pair = Self { world, second: Some(second), setup, incoming, _redis: redis, _folder: folder };
        pair.served().await;
        pair
    }

    /// Both serve what is published now.
    async fn served(&self) {
        self.world.served().await;
        let revision = self.world.acme.get().await.revision;
        eventually("both planes to serve the configuration", || async {
            let request = admin::ListDataPlanesRequest::default();
            let planes = self.world.client.data_planes().list_data_planes(request).await.unwrap().into_inner();
            let serves = |plane: &&admin::DataPlane| {
                plane.connected && plane.workspaces.iter().any(|served| served.revision >= revision)
            };
            (planes.data_planes.iter().filter(serves).count() == 2).then_some(())
        })
        .await;
    }

    /// Asks the first plane or the second.
    async fn trigger(&self, plane: usize, id: usize, key: Option<&str>) -> u16 {
        let request = Request::post(&self.incoming.endpoint_path, json!({ "id": id }).to_string());
        let request = match key {
            Some(key) => request.header("X-Deduplication-Hash", key),
            None => request,
        };
        let address = [self.world.ingress(), self.setup.ingress][plane];
        RawHttp::connect(address).await.exchange(&request).await.status
    }

    /// What the second plane has sent.
    fn sent_by_second(&self) -> Vec<Seen> {
        let seen = self.world.destination.requests();
        seen.into_iter().filter(|seen| seen.header("user-agent") == Some("second")).collect()
    }

    /// Triggers both; the destination answers nobody, so that both planes hold something: the first has one place for it.
    async fn hold(&self, gate: &Gate) {
        self.world.destination.script((0..4 * HELD).map(|_| Answer::status(200).after(gate)));
        for n in 0..HELD {
            assert_eq!(self.trigger(n % 2, n, None).await, 200);
        }
        self.world.destination.wait_for(HELD).await.unwrap();
        assert!(!self.sent_by_second().is_empty());
    }

    fn signal(&self, name: &str) {
        self.second.as_ref().unwrap().signal(name);
    }

    /// Waits until so many deliveries have ended, and checks that each was told once and that a destination that saw one twice saw the same.
    async fn ended(&self, count: usize) -> BTreeMap<String, Vec<Seen>> {
        let deliveries = self.world.acme.deliveries(count).await;
        assert_eq!(deliveries.len(), count);
        assert!(deliveries.iter().all(|delivery| delivery.state() == DeliveryState::Delivered), "{deliveries:?}");
        assert_eq!(self.world.acme.events(count).await.len(), count, "each is told once");
        let mut seen: BTreeMap<String, Vec<Seen>> = BTreeMap::new();
        for request in self.world.destination.requests() {
            seen.entry(request.header("idempotency-key").unwrap().to_owned()).or_default().push(request);
        }
        assert_eq!(seen.len(), count);
        for (id, arrivals) in &seen {
            assert!(arrivals.iter().all(|one| one.body == arrivals[0].body), "{id} has different bytes");
            let delivery = deliveries.iter().find(|delivery| delivery.name.ends_with(id.as_str())).unwrap();
            let ambiguous = delivery.attempts.iter().any(|attempt| attempt.ambiguous);
            assert!(arrivals.len() == 1 || ambiguous, "{id} arrived {} times and does not say so", arrivals.len());
        }
        seen
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_plane_is_asked_it_is_one_inbox() {
    let mut pair = Pair::start().await;
    for (n, key) in ["a", "b", "c", "d"].into_iter().enumerate() {
        assert_eq!(pair.trigger(n % 2, n, Some(key)).await, 200);
        assert_eq!(pair.trigger(1 - n % 2, n, Some(key)).await, 204, "known to the other one too");
    }
    for n in 4..40 {
        assert_eq!(pair.trigger(n % 2, n, None).await, 200);
    }
    let seen = pair.ended(40).await;
    assert!(seen.values().all(|arrivals| arrivals.len() == 1), "each once");
    let ids: BTreeSet<String> = seen.values().map(|arrivals| arrivals[0].json().unwrap()["id"].to_string()).collect();
    assert_eq!(ids.len(), 40);
    for health in [pair.world.health(), pair.setup.health] {
        let idle = || async { Numbers::of(health).await.is_idle().then_some(()) };
        eventually("both to say that nothing is left", idle).await;
    }
    assert!(pair.second.take().unwrap().stop().await.unwrap().success());
    pair.world.stop().await;
}

/// CP5 to CP9 across planes: what a plane held that was killed is done by the other, with the same bytes.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_plane_held_is_done_by_the_other() {
    let mut pair = Pair::start().await;
    let gate = Gate::new();
    pair.hold(&gate).await;
    let held = pair.sent_by_second().len();
    pair.second.take().unwrap().kill().await.unwrap();
    gate.open();
    let seen = pair.ended(HELD).await;
    let twice = seen.values().filter(|arrivals| arrivals.len() > 1).count();
    assert!(twice >= held, "{twice} of {held} were on their way and came again");
    assert_eq!(pair.trigger(0, HELD, None).await, 200);
    pair.ended(HELD + 1).await;
    pair.world.stop().await;
}

/// CP14: what a plane held that hung is done by the other; what the first says of it when it goes on counts no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_plane_that_hung_and_goes_on_is_too_late() {
    let mut pair = Pair::start().await;
    let gate = Gate::new();
    pair.hold(&gate).await;
    pair.signal("-STOP");
    gate.open();
    pair.ended(HELD).await;
    pair.signal("-CONT");
    assert_eq!(pair.trigger(1, HELD, None).await, 200);
    pair.ended(HELD + 1).await;
    assert!(pair.second.take().unwrap().stop().await.unwrap().success());
    // Not before it has said everything it had to say.
    pair.ended(HELD + 1).await;
    pair.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_behind_tls_is_believed_by_its_authority() {
    let authority = Authority::new();
    let redis = RedisServer::start_with_tls(&authority).await;
    let trusting = RedisSettings { ca_pem: Some(authority.pem().into_bytes()), ..redis.inbox("test") };
    let world = World::with(|options| options.data_plane.inbox = InboxSettings::Redis(trusting.clone())).await;
    let incoming = world.acme.flow("orders", post(URL, "{}")).await;
    world.served().await;
    assert_eq!(world.trigger(&incoming, &json!({})).await.status, 200);
    world.acme.deliveries(1).await;
    world.stop().await;
    for ca_pem in [None, Some(Authority::new().pem().into_bytes())] {
        let stranger = RedisSettings { ca_pem, ..trusting.clone() };
        let refused = Inbox::open(InboxSettings::Redis(stranger), Clock::system()).await.unwrap_err().to_string();
        assert!(refused.contains("certificate"), "{refused}");
    }
}
