//! Limits that several data planes keep together in their Redis: exactly, whichever of them is asked (D10, N08).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use sluice::destination::{Answer, Gate};
use sluice::dev::{self, RunningDataPlane};
use sluice_client::admin::{self, OutgoingRequest, RateLimit};
use sluice_data_plane::inbox::{InboxSettings, RedisSettings};
use sluice_data_plane::plane::Plane;
use sluice_tests::resources::{open, post};
use sluice_tests::{RawHttp, RedisServer, Request, World, eventually};
use tempfile::TempDir;

const URL: &str = "https://api.example.com/orders";

/// Three data planes on one Redis.
struct Trio {
    world: World,
    others: Vec<RunningDataPlane>,
    redis: RedisServer,
    _folders: Vec<TempDir>,
}

impl Trio {
    async fn start() -> Self {
        let redis = RedisServer::start().await;
        let inbox = |plane: &str| InboxSettings::Redis(RedisSettings { exact_limits: true, ..redis.inbox(plane) });
        let world = World::with(|options| options.data_plane.inbox = inbox("test")).await;
        let (mut others, mut folders) = (Vec::new(), Vec::new());
        for id in ["second", "third"] {
            let folder = tempfile::tempdir().unwrap();
            let mut settings = world.settings.data_plane.clone();
            (settings.data_plane_id, settings.data_dir) = (id.to_owned(), folder.path().to_owned());
            settings.inbox = inbox(id);
            let any = "127.0.0.1:0".parse().unwrap();
            others.push(dev::run_data_plane(settings, any, any).await.unwrap());
            folders.push(folder);
        }
        let trio = Self { world, others, redis, _folders: folders };
        eventually("all to know of each other", async || {
            trio.planes().iter().all(|plane| plane.fleet.planes() == 3).then_some(())
        })
        .await;
        trio
    }

    fn planes(&self) -> Vec<&Plane> {
        let others = self.others.iter().map(|other| other.plane.plane());
        std::iter::once(self.world.plane()).chain(others).collect()
    }

    async fn served(&self) {
        self.world.served().await;
        let revision = self.world.acme.get().await.revision;
        eventually("all to serve the configuration", async || {
            let serves = |plane: &&Plane| {
                let runtime = plane.served.load();
                runtime.workspace("workspaces/acme").is_some_and(|served| served.revision >= revision)
            };
            self.planes().iter().all(serves).then_some(())
        })
        .await;
    }

    async fn endpoint(&self, id: &str, burst: i32) -> String {
        let rate_limit = Some(RateLimit { requests_per_second: 1, burst });
        let limited = admin::IncomingIntegration { rate_limit, ..open() };
        let path = self.world.acme.incoming(id, limited).await.endpoint_path;
        self.served().await;
        path
    }

    /// The statuses a plane answers with until it says 429.
    async fn until_too_many(&self, plane: usize, path: &str) -> Vec<u16> {
        let ingress = match plane {
            0 => self.world.ingress(),
            other => self.others[other - 1].ingress,
        };
        let mut door = RawHttp::connect(ingress).await;
        let mut statuses = Vec::new();
        loop {
            match door.exchange(&Request::post(path, "{}")).await.status {
                429 => return statuses,
                status => statuses.push(status),
            }
        }
    }

    async fn stop(self) {
        for other in self.others {
            other.stop().await.unwrap();
        }
        self.world.stop().await;
    }
}

/// What the time brought, rounded up.
fn brought(began: Instant) -> usize {
    usize::try_from(began.elapsed().as_secs()).unwrap() + 1
}

#[tokio::test(flavor = "multi_thread")]
async fn n08_one_plane_has_all_of_an_endpoints_limit_and_three_have_no_more() {
    let mut trio = Trio::start().await;
    let path = trio.endpoint("alone", 60).await;
    let began = Instant::now();
    let mut taken = trio.until_too_many(1, &path).await.len();
    assert!((60..=60 + brought(began)).contains(&taken), "{taken} by the one that was asked");
    for plane in [0, 2, 1] {
        taken += trio.until_too_many(plane, &path).await.len();
    }
    assert!(taken <= 60 + brought(began), "{taken} by all");

    // Without it nothing can be kept; what is refused is counted by each plane's part.
    let path = trio.endpoint("away", 60).await;
    trio.redis.kill().await;
    let began = Instant::now();
    let statuses = trio.until_too_many(0, &path).await;
    assert!((20..=20 + brought(began)).contains(&statuses.len()), "{} are a third", statuses.len());
    assert!(statuses.iter().all(|status| *status == 503), "{statuses:?}");
    trio.redis.revive().await;
    let path = trio.endpoint("back", 60).await;
    let began = Instant::now();
    let taken = AtomicUsize::new(0);
    eventually("the limit to be kept together again", async || {
        let statuses = trio.until_too_many(2, &path).await;
        let more = statuses.iter().filter(|status| **status == 200).count();
        (taken.fetch_add(more, Ordering::SeqCst) + more >= 60).then_some(())
    })
    .await;
    let taken = taken.into_inner();
    assert!(taken <= 60 + brought(began), "{taken}");
    trio.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_planes_make_no_more_requests_at_once_than_one_may() {
    let trio = Trio::start().await;
    let request = OutgoingRequest { concurrency_max: 2, ..post(URL, "{}") };
    let incoming = trio.world.acme.flow("orders", request).await;
    trio.served().await;
    let gate = Gate::new();
    trio.world.destination.script((0..12).map(|_| Answer::status(200).after(&gate)));
    for n in 0..12 {
        let ingress = [trio.world.ingress(), trio.others[0].ingress, trio.others[1].ingress][n % 3];
        let request = Request::post(&incoming.endpoint_path, json!({}).to_string());
        assert_eq!(RawHttp::connect(ingress).await.exchange(&request).await.status, 200);
    }
    trio.world.destination.wait_for(2).await.unwrap();
    // Whoever has none asks again and again, and gets none.
    let asked = trio.redis.scripts_run().await;
    eventually("all to have asked", async || (trio.redis.scripts_run().await > asked + 20).then_some(())).await;
    assert_eq!(trio.world.destination.requests().len(), 2);
    gate.open();
    let deliveries = trio.world.acme.deliveries(12).await;
    assert!(deliveries.iter().all(|delivery| delivery.attempts.len() == 1), "waiting uses no attempt");
    trio.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_planes_send_at_the_rate_of_one() {
    let trio = Trio::start().await;
    let rate_limit = Some(RateLimit { requests_per_second: 1, burst: 1 });
    let incoming = trio.world.acme.flow("orders", OutgoingRequest { rate_limit, ..post(URL, "{}") }).await;
    trio.served().await;
    for n in 0..4 {
        let ingress = [trio.world.ingress(), trio.others[0].ingress, trio.others[1].ingress][n % 3];
        let request = Request::post(&incoming.endpoint_path, json!({}).to_string());
        assert_eq!(RawHttp::connect(ingress).await.exchange(&request).await.status, 200);
    }
    let seen = trio.world.destination.wait_for(4).await.unwrap();
    assert!(seen[2].at - seen[0].at >= Duration::from_millis(500), "one after the other, a second apart");
    trio.world.acme.deliveries(4).await;
    trio.stop().await;
}
