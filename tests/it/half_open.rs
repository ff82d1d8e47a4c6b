//! A connection that is dead in the middle: nothing comes, and nothing says that it is over. Both ends find out by their pings (row 16 of
//! the failure matrix).

use std::time::Duration;

use serde_json::json;
use sluice_client::admin;
use sluice_tests::{Callee, Line, Mood, Numbers, World, eventually, resources};

const PING: Duration = Duration::from_millis(500);

async fn is_shown_connected(world: &World) -> bool {
    let request = admin::ListDataPlanesRequest::default();
    let planes = world.client.data_planes().list_data_planes(request).await.unwrap().into_inner().data_planes;
    planes.iter().any(|plane| plane.connected)
}

#[tokio::test(flavor = "multi_thread")]
async fn row_16_both_ends_of_a_dead_connection_notice_and_connect_again() {
    let mut world = World::with(|options| {
        options.data_plane.pings.every = PING;
        options.data_plane.pings.answer = PING;
        options.control_plane.limits.ping_every = PING;
        options.control_plane.limits.ping_answer = PING;
    })
    .await;
    let line = Line::to(Callee::Tcp(world.grpc())).await;
    world.settings.data_plane.control_plane_url = format!("http://{}", line.address);
    world.restart_data_plane().await;
    let incoming = world.acme.incoming("orders", resources::open()).await;
    world.served().await;

    line.be(Mood::Silent);
    let later = world.acme.incoming("later", resources::open()).await;
    eventually("the control plane to notice", async || (!is_shown_connected(&world).await).then_some(())).await;
    eventually("the data plane to notice", async || {
        (Numbers::of(world.health()).await.get("sluice_sync_connected") == 0.0).then_some(())
    })
    .await;
    assert_eq!(world.trigger(&incoming, &json!({})).await.status, 200, "it serves on");

    line.be(Mood::Well);
    world.served().await;
    assert_eq!(world.trigger(&later, &json!({})).await.status, 200);
}
