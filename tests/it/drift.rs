//! What a data plane serves and what it has said can come apart by a fault that nobody has thought of. Beats tell, and what differs is
//! sent again without a reconnect.

use std::time::Duration;

use serde_json::json;
use sluice_tests::{Numbers, World, eventually, resources};

const ACME: &str = "workspaces/acme";

#[tokio::test(flavor = "multi_thread")]
async fn a_data_plane_that_serves_something_else_than_it_said_is_put_right() {
    let world = World::with(|options| options.data_plane.beat_every = Duration::from_millis(20)).await;
    let incoming = world.acme.incoming("orders", resources::open()).await;
    world.served().await;
    let old = world.plane().served.load().workspace(ACME).cloned().unwrap();
    let later = world.acme.incoming("later", resources::open()).await;
    world.served().await;
    assert_eq!(world.trigger(&later, &json!({})).await.status, 200);
    let synced = Numbers::of(world.health()).await.get("sluice_sync_messages_total{kind=\"synced\"}");

    // The revision before is served again, and nobody was told.
    world.plane().served.put(old);
    eventually("what is served to be right again", || async {
        (Numbers::of(world.control_health()).await.get("sluice_control_drifts_repaired_total") == 1.0).then_some(())
    })
    .await;
    for incoming in [&incoming, &later] {
        assert_eq!(world.trigger(incoming, &json!({})).await.status, 200);
    }

    // And so is one that is gone altogether.
    world.plane().served.drop_workspace(ACME);
    eventually("what is served to be there again", || async {
        (Numbers::of(world.control_health()).await.get("sluice_control_drifts_repaired_total") == 2.0).then_some(())
    })
    .await;
    assert_eq!(world.trigger(&later, &json!({})).await.status, 200);
    let numbers = Numbers::of(world.health()).await;
    assert_eq!(numbers.get("sluice_sync_messages_total{kind=\"synced\"}"), synced, "on the same stream");
}
