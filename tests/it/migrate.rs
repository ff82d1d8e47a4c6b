//! The control plane moves from SQLite to PostgreSQL while a data plane runs, which notices nothing.

use serde_json::json;
use sluice_client::admin;
use sluice_control_plane::{Database, migrate};
use sluice_tests::postgres::Postgres;
use sluice_tests::{Numbers, World, eventually, resources};

/// Configuration that came, and how often there was nothing more to come.
async fn moved(world: &World) -> (f64, f64) {
    let numbers = Numbers::of(world.health()).await;
    let of = |kind: &str| numbers.get(&format!("sluice_sync_messages_total{{kind=\"{kind}\"}}"));
    (of("snapshot") + of("delta") + of("drop"), of("synced"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_plane_notices_nothing_of_the_move_to_postgresql() {
    let mut world = World::with(|options| {
        let folder = options.control_plane.admin_key_file.parent().unwrap().to_owned();
        options.control_plane.database = Database::Sqlite(Database::file_in(&folder));
    })
    .await;
    let scheme = resources::api_key_header("s3cret", "x-api-key", "{{secret}}");
    let connection = world.acme.connection("crm", scheme).await;
    let request = resources::post("https://api.example.com/orders", r#"{"id": {{ request.body.id }}}"#);
    let request = admin::OutgoingRequest { connection: connection.name, ..request };
    let incoming = world.acme.flow("orders", request).await;
    world.served().await;
    assert_eq!(world.trigger(&incoming, &json!({ "id": 0 })).await.status, 200);
    world.acme.events(1).await;
    let (before, synced) = moved(&world).await;
    let revision = world.acme.get().await.revision;

    world.stop_control_plane().await;
    assert_eq!(world.trigger(&incoming, &json!({ "id": 1 })).await.status, 200);
    let database: String = Postgres::database_of(world.folder.path());
    let file = Database::file_in(world.folder.path());
    migrate(&file, &database.clone().into()).await.unwrap();
    world.settings.control_plane.database = Database::Postgres(database.into());
    world.start_control_plane().await;

    eventually("another sync", || async { (moved(&world).await.1 > synced).then_some(()) }).await;
    assert_eq!(moved(&world).await.0, before, "no configuration was sent");
    assert_eq!(world.acme.get().await.revision, revision);
    assert_eq!(world.acme.events(2).await.len(), 2, "what was delivered meanwhile is told, once");
    assert_eq!(world.trigger(&incoming, &json!({ "id": 2 })).await.status, 200);
    let seen = world.destination.wait_for(3).await.unwrap();
    assert!(seen.iter().all(|seen| seen.header("x-api-key") == Some("s3cret")));
    assert_eq!(world.acme.events(3).await.len(), 3);
    world.acme.incoming("more", resources::open()).await;
    world.served().await;
}
