//! Mode `replicated` on a real primary and its replica. WAITAOF came with 7.2: where the server is older, `tests/run` has these run on
//! Valkey alone.

use std::time::Duration;

use serde_json::json;
use sluice_data_plane::inbox::{Durability, InboxSettings, RedisSettings};
use sluice_tests::resources::post;
use sluice_tests::{RedisServer, Request, World, eventually};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs WAITAOF: tests/run has it run on Valkey"]
async fn a_trigger_is_answered_200_when_the_replica_has_it_on_disk_and_503_otherwise() {
    let primary = RedisServer::start_primary().await;
    let replica = RedisServer::start_replica(&primary).await;
    let durability = Durability::Replicated { replicas: 1 };
    // A delivery that cannot be begun is tried again when its lease is over.
    let lease = Duration::from_secs(5);
    let settings = RedisSettings { durability, lease, ..primary.inbox("test") };
    let world = World::with(|options| options.data_plane.inbox = InboxSettings::Redis(settings)).await;
    let incoming = world.acme.flow("orders", post("https://api.example.com/orders", "{}")).await;
    world.served().await;
    let trigger = |hash: &str| {
        let request = Request::post(&incoming.endpoint_path, json!({}).to_string());
        let request = request.header("X-Deduplication-Hash", hash);
        let world = &world;
        async move { world.send(&request).await }
    };
    // A replica that has just been filled flushes nothing before it has written its file anew.
    eventually("the replica to follow", async || (trigger("first").await.status < 300).then_some(())).await;
    replica.signal("-STOP");
    let refused = trigger("second").await;
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    replica.signal("-CONT");
    let again = eventually("it to be kept", async || {
        let status = trigger("second").await.status;
        (status != 503).then_some(status)
    });
    // It was written, and nobody was told: whoever comes again finds it.
    assert_eq!(again.await, 204);
    world.acme.deliveries(2).await;
    world.stop().await;
}
