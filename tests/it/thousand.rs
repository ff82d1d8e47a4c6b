//! A thousand data planes on one control plane: all come at once, all come back at once, and each change reaches all of them (A18, rows 2
//! and 15 of the failure matrix).

use std::sync::atomic::Ordering;

use sluice_client::admin;
use sluice_tests::fleet::Fleet;
use sluice_tests::{World, eventually, resources, within};

const PLANES: usize = 1000;

#[tokio::test(flavor = "multi_thread")]
async fn row_2_a_thousand_come_back_at_once_and_nothing_moves() {
    let mut world = World::with(|options| options.control_plane.limits.stream_starts_per_second = 400).await;
    let incoming = world.acme.incoming("orders", resources::open()).await;
    let key = std::fs::read_to_string(world.folder.data_plane_key_file()).unwrap();
    let fleet = Fleet::start(&world.grpc_url(), &key, PLANES);
    within("all to be connected", fleet.synced()).await;
    let first = fleet.counts().changes.load(Ordering::Relaxed);
    assert_eq!(first, PLANES as u64, "one snapshot each");

    let changed = admin::IncomingIntegration { display_name: "Other".to_owned(), ..incoming.clone() };
    world.acme.update_incoming(changed).await;
    world.acme.publish_incoming(&incoming.name).await.unwrap();
    let revision = world.acme.get().await.revision;
    within("all to serve it", fleet.serve(&world.acme.name, revision)).await;
    let timeout = Some(prost_types::Duration { seconds: 25, nanos: 0 });
    let request = admin::WaitServedRequest { parent: world.acme.name.clone(), revision, timeout };
    let answer = world.client.configuration().wait_served(request).await.unwrap().into_inner();
    assert!(answer.served, "{:?}", answer.not_serving);
    assert_eq!(fleet.counts().changes.load(Ordering::Relaxed), 2 * PLANES as u64, "one delta each");

    let streams = fleet.counts().streams.load(Ordering::Relaxed);
    world.stop_control_plane().await;
    world.start_control_plane().await;
    eventually("all to begin again", || async {
        let begun = fleet.counts().streams.load(Ordering::Relaxed) - streams;
        (begun >= PLANES as u64).then_some(())
    })
    .await;
    within("all to be connected again", fleet.synced()).await;
    assert_eq!(fleet.counts().changes.load(Ordering::Relaxed), 2 * PLANES as u64, "nothing moves");
}
