//! An installation that moves from SQLite to PostgreSQL: whoever reads the copy reads what he would have read before.

use std::path::Path;

use sluice_control_plane::{Clock, Database, Error, Settings, StoreError, migrate};
use sluice_core::seal::Secret;
use sluice_proto::admin::v1 as admin;

use crate::postgres::Postgres;
use crate::world::{ACME, RING, START, World, settings};

fn on_sqlite(folder: &Path, clock: &Clock) -> Settings {
    Settings { database: Database::Sqlite(Database::file_in(folder)), ..settings(folder, clock) }
}

fn database_of(folder: &Path) -> Secret {
    Postgres::database_of(folder).into()
}

/// Everything that is shown of it, as far as reading it leaves no trace.
async fn shown(world: &World) -> String {
    let workspaces = world.workspaces().list_workspaces(admin::ListWorkspacesRequest::default()).await.unwrap();
    let parent = ACME.to_owned();
    let request = admin::ListConnectionsRequest { parent: parent.clone(), ..Default::default() };
    let connections = world.connections().list_connections(request).await.unwrap();
    let request = admin::ListIncomingIntegrationsRequest { parent: parent.clone(), ..Default::default() };
    let incoming = world.incoming().list_incoming_integrations(request).await.unwrap();
    let request = admin::ListApiKeysRequest { parent, ..Default::default() };
    let keys = world.api_keys().list_api_keys(request).await.unwrap();
    format!(
        "{:?}\n{:?}\n{:?}\n{:?}",
        workspaces.into_inner(),
        connections.into_inner(),
        incoming.into_inner(),
        keys.into_inner()
    )
}

#[tokio::test]
async fn everything_is_there_as_it_was_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("master.key"), RING).unwrap();
    let (path, clock) = (folder.path().to_owned(), Clock::manual(START));
    let (file, database) = (Database::file_in(&path), database_of(&path));
    let world = World::start_with(folder, on_sqlite(&path, &clock)).await;
    world.workspace("acme").await;
    world.connection("crm", "back\\slash").await;
    let orders = world.incoming_integration("orders").await;
    world.publish_incoming(&orders.name).await.unwrap();
    let before = shown(&world).await;
    let revision = world.revision("acme").await;

    let refused = migrate(&file, &database).await.unwrap_err();
    assert!(matches!(&refused, Error::SourceInUse { path } if *path == file), "{refused:?}");

    // A control plane that was killed leaves a journal beside its file.
    let killed = tempfile::tempdir().unwrap();
    for name in ["control-plane.db", "control-plane.db-wal"] {
        std::fs::copy(path.join(name), killed.path().join(name)).unwrap();
    }
    let of_killed = migrate(&Database::file_in(killed.path()), &database_of(killed.path())).await.unwrap();
    assert!(of_killed.tables > 20 && of_killed.rows > 10, "{of_killed:?}");

    let (folder, clock) = world.end().await;
    let moved = migrate(&file, &database).await.unwrap();
    assert_eq!(moved.tables, of_killed.tables);
    let refused = migrate(&file, &database).await.unwrap_err();
    assert!(matches!(refused, Error::TargetNotEmpty), "{refused:?}");

    let settings = Settings { database: Database::Postgres(database), ..on_sqlite(&path, &clock) };
    let world = World::start_with(folder, settings).await;
    assert_eq!(shown(&world).await, before);
    assert_eq!(world.revision("acme").await, revision);
    let more = world.incoming_integration("more").await;
    world.publish_incoming(&more.name).await.unwrap();
    assert_eq!(world.revision("acme").await, revision + 1);
}

#[tokio::test]
async fn what_no_control_plane_made_is_not_moved() {
    let folder = tempfile::tempdir().unwrap();
    let (file, database) = (folder.path().join("some.db"), database_of(folder.path()));
    let refused = migrate(&file, &database).await.unwrap_err();
    assert!(matches!(refused, Error::File { .. }), "{refused:?}");
    assert!(!file.exists(), "nothing was made");
    std::fs::write(&file, "").unwrap();
    let refused = migrate(&file, &database).await.unwrap_err();
    assert!(matches!(refused, Error::Store(StoreError::Corrupt(_))), "{refused:?}");
    std::fs::write(&file, "nonsense".repeat(1000)).unwrap();
    let refused = migrate(&file, &database).await.unwrap_err();
    assert!(matches!(refused, Error::Store(StoreError::Unavailable(_))), "{refused:?}");
}
