//! The data plane does not need the control plane (I5): it goes on without it, comes up without it, and tells it
//! everything when it is back. What it cannot know it does not deny: 503, never 404.

use std::path::PathBuf;

use serde_json::json;
use sluice_client::admin;
use sluice_tests::{Answer, Numbers, Workspace, World, eventually, resources};

const URL: &str = "https://api.example.com/orders";
const BODY: &str = r#"{"id": {{ request.body.id }}}"#;

/// An endpoint whose workflow sends on with a secret in a header.
async fn with_secret(workspace: &Workspace, secret: &str) -> admin::IncomingIntegration {
    let scheme = resources::api_key_header(secret, "x-api-key", "{{secret}}");
    let connection = workspace.connection("crm", scheme).await;
    let request = admin::OutgoingRequest { connection: connection.name, ..resources::post(URL, BODY) };
    workspace.flow("orders", request).await
}

async fn idle(world: &World) {
    eventually("the inbox to be empty", || async { Numbers::of(world.health()).await.is_idle().then_some(()) }).await;
}

async fn ready(world: &World) -> u16 {
    world.health_answer("/readyz").await.status
}

async fn trigger(world: &World, incoming: &admin::IncomingIntegration, id: u32) -> Answer {
    world.trigger(incoming, &json!({ "id": id })).await
}

/// The last good file of a workspace.
fn last_good(world: &World, workspace: &str) -> PathBuf {
    world.folder.path().join("last-good").join(format!("workspaces.{workspace}.pb"))
}

/// Configuration that moved, told by the data plane.
async fn moved(world: &World) -> (f64, f64) {
    let numbers = Numbers::of(world.health()).await;
    let of = |kind: &str| numbers.get(&format!("sluice_sync_messages_total{{kind=\"{kind}\"}}"));
    (of("snapshot") + of("delta") + of("drop"), of("synced"))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_control_plane_requests_are_taken_and_delivered_and_told_later() {
    let mut world = World::start().await;
    let incoming = with_secret(&world.acme, "s3cret").await;
    world.served().await;
    assert_eq!(trigger(&world, &incoming, 0).await.status, 200);
    world.acme.events(1).await;

    world.stop_control_plane().await;
    for id in 1..=20 {
        assert_eq!(trigger(&world, &incoming, id).await.status, 200);
    }
    let seen = world.destination.wait_for(21).await.unwrap();
    assert!(seen.iter().all(|seen| seen.header("x-api-key") == Some("s3cret")));
    eventually("all outcomes to wait in the outbox", || async {
        (Numbers::of(world.health()).await.get("sluice_outbox_reports") == 20.0).then_some(())
    })
    .await;
    assert_eq!(ready(&world).await, 200);

    world.start_control_plane().await;
    idle(&world).await;
    assert_eq!(world.acme.events(21).await.len(), 21, "each delivery is told once");
    let deliveries = world.acme.deliveries(21).await;
    assert_eq!(deliveries.len(), 21);
    assert!(deliveries.iter().all(|delivery| delivery.state() == admin::DeliveryState::Delivered));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_plane_comes_up_from_its_last_good_configuration() {
    let mut world = World::start().await;
    let incoming = with_secret(&world.acme, "s3cret").await;
    world.served().await;
    let revision = world.acme.get().await.revision;
    world.stop_control_plane().await;
    world.restart_data_plane().await;

    assert_eq!(ready(&world).await, 200);
    assert_eq!(world.plane().served.load().workspace("workspaces/acme").map(|served| served.revision), Some(revision));
    assert_eq!(trigger(&world, &incoming, 1).await.status, 200);
    let seen = world.destination.wait_for(1).await.unwrap();
    assert_eq!(seen[0].header("x-api-key"), Some("s3cret"), "sealed secrets are opened without the control plane");
    assert_eq!(seen[0].json().unwrap(), json!({ "id": 1 }));

    world.start_control_plane().await;
    assert_eq!(world.acme.events(1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_the_outbox_survives_a_restart_of_both() {
    let mut world = World::start().await;
    let incoming = with_secret(&world.acme, "s3cret").await;
    world.served().await;
    world.stop_control_plane().await;
    for id in 0..5 {
        assert_eq!(trigger(&world, &incoming, id).await.status, 200);
    }
    world.destination.wait_for(5).await.unwrap();
    world.restart_data_plane().await;
    world.start_control_plane().await;
    idle(&world).await;
    assert_eq!(world.acme.events(5).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnect_with_nothing_changed_moves_nothing() {
    let mut world = World::start().await;
    with_secret(&world.acme, "s3cret").await;
    world.workspace("other").await;
    world.served().await;
    let (before, synced) = moved(&world).await;
    assert!(before > 0.0, "the first sync moves configuration");

    world.stop_control_plane().await;
    world.start_control_plane().await;
    eventually("a second sync", || async { (moved(&world).await.1 > synced).then_some(()) }).await;
    assert_eq!(moved(&world).await.0, before, "the stream was opened again and carried nothing");

    // The counters of a new process begin at 0; what it holds is the last good configuration.
    world.restart_data_plane().await;
    eventually("the first sync of the new process", || async { (moved(&world).await.1 > 0.0).then_some(()) }).await;
    assert_eq!(moved(&world).await.0, 0.0, "what was kept on disk is not sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_made_while_it_was_away_arrives_as_one_delta() {
    let mut world = World::start().await;
    let incoming = with_secret(&world.acme, "s3cret").await;
    world.served().await;
    world.stop_data_plane().await;
    for id in ["second", "third"] {
        world.acme.incoming(id, resources::open()).await;
    }
    world.start_data_plane().await;
    world.served().await;
    let numbers = Numbers::of(world.health()).await;
    assert_eq!(numbers.get("sluice_sync_messages_total{kind=\"delta\"}"), 1.0, "{}", numbers.text());
    assert_eq!(numbers.get("sluice_sync_messages_total{kind=\"snapshot\"}"), 0.0);
    assert_eq!(trigger(&world, &incoming, 1).await.status, 200);
}

/// Stops both, does something to the last good files, and starts the data plane alone.
async fn alone_after(world: &mut World, spoil: impl FnOnce(&World)) {
    world.stop_control_plane().await;
    world.stop_data_plane().await;
    spoil(world);
    world.start_data_plane().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_good_file_that_is_not_whole_is_left_out_and_nothing_is_denied() {
    type Spoil = fn(Vec<u8>) -> Vec<u8>;
    let spoilt: [(&str, Spoil); 4] = [
        ("cut off", |bytes| bytes[..bytes.len() / 2].to_vec()),
        ("not ours", |_| b"nonsense".to_vec()),
        ("empty", |_| Vec::new()),
        ("changed", |mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes
        }),
    ];
    let mut world = World::start().await;
    let incoming = with_secret(&world.acme, "s3cret").await;
    world.served().await;
    for (how, spoil) in spoilt {
        alone_after(&mut world, |world| {
            let file = last_good(world, "acme");
            std::fs::write(&file, spoil(std::fs::read(&file).unwrap())).unwrap();
        })
        .await;
        assert_eq!(ready(&world).await, 503, "{how}: not ready");
        assert_eq!(trigger(&world, &incoming, 1).await.status, 503, "{how}: unknown is not denied");
        world.start_control_plane().await;
        world.served().await;
        assert_eq!(ready(&world).await, 200, "{how}: whole again");
        assert_eq!(trigger(&world, &incoming, 1).await.status, 200, "{how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_that_is_not_whole_does_not_make_its_endpoints_unknown() {
    let mut world = World::start().await;
    let incoming = with_secret(&world.acme, "s3cret").await;
    let other = with_secret(&world.workspace("other").await, "0ther").await;
    world.served().await;
    alone_after(&mut world, |world| std::fs::write(last_good(world, "acme"), b"nonsense").unwrap()).await;
    // The whole one is served; of the other nobody can say whether its endpoint exists.
    assert_eq!(trigger(&world, &other, 1).await.status, 200);
    assert_eq!(trigger(&world, &incoming, 1).await.status, 503);
    assert_eq!(ready(&world).await, 503);
    world.start_control_plane().await;
    world.served().await;
    assert_eq!(trigger(&world, &incoming, 1).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_sync_nothing_is_denied_and_after_it_is() {
    let mut world = World::start().await;
    let unknown = admin::IncomingIntegration {
        endpoint_path: "/automation-endpoint/endpoints/authorized/nobody/trigger".to_owned(),
        ..Default::default()
    };
    world.served().await;
    assert_eq!(trigger(&world, &unknown, 1).await.status, 404);
    alone_after(&mut world, |world| std::fs::remove_dir_all(world.folder.path().join("last-good")).unwrap()).await;
    let answer = trigger(&world, &unknown, 1).await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some(), "the sender is told to come back");
    assert_eq!(ready(&world).await, 503);
    world.start_control_plane().await;
    world.served().await;
    assert_eq!(ready(&world).await, 200);
    assert_eq!(trigger(&world, &unknown, 1).await.status, 404);
}
