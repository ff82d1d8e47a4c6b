//! A configuration store that comes back from an old copy: data planes lose nothing by it until somebody says that the copy is right
//! (rows 3 and 4 of the failure matrix).

use std::path::{Path, PathBuf};

use serde_json::json;
use sluice_client::admin;
use sluice_control_plane::Database;
use sluice_tests::{World, eventually, resources};

const URL: &str = "https://api.example.com/orders";

/// The files of the SQLite store.
fn files(folder: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("control-plane.db")).collect()
}

fn copy(from: &Path, to: &Path) {
    files(to).iter().for_each(|file| std::fs::remove_file(file).unwrap());
    for file in files(from) {
        std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

async fn data_plane(world: &World) -> admin::DataPlane {
    let request = admin::ListDataPlanesRequest::default();
    let listed = world.client.data_planes().list_data_planes(request).await.unwrap().into_inner().data_planes;
    listed.into_iter().find(|plane| plane.name == "dataPlanes/test").unwrap_or_default()
}

/// Sends a trigger and returns the body of the delivery it leads to.
async fn sent(world: &World, incoming: &admin::IncomingIntegration, number: usize) -> String {
    assert_eq!(world.trigger(incoming, &json!({ "id": number })).await.status, 200);
    let seen = world.destination.wait_for(number).await.unwrap();
    String::from_utf8(seen.last().unwrap().body.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_3_and_4_an_old_copy_changes_nothing_until_it_is_declared_right() {
    let mut world = World::start().await;
    let Database::Sqlite(path) = &world.settings.control_plane.database else { return };
    let folder = path.parent().unwrap().to_owned();
    let incoming = world.acme.flow("orders", resources::post(URL, r#"{"old": {{ request.body.id }}}"#)).await;
    world.served().await;
    let old = world.acme.get().await.revision;
    world.stop_control_plane().await;
    let backup = tempfile::tempdir().unwrap();
    copy(&folder, backup.path());
    world.start_control_plane().await;
    let connection =
        world.acme.connection("later", resources::api_key_header("s3cret", "x-api-key", "{{secret}}")).await;
    world.served().await;
    let newer = world.acme.get().await.revision;
    assert!(newer > old);

    world.stop_control_plane().await;
    copy(backup.path(), &folder);
    world.start_control_plane().await;
    let refusal = eventually("the refusal to go back", || async {
        let plane = data_plane(&world).await;
        plane.workspaces.into_iter().find(|served| served.revision == newer)?.refusal
    })
    .await;
    assert_eq!((refusal.revision, refusal.problems[0].reason.as_str()), (old, "REVISION_BACKWARDS"));
    assert_eq!(sent(&world, &incoming, 1).await, r#"{"old": 1}"#);
    assert!(world.plane().served.load().workspace("workspaces/acme").unwrap().connection(&connection.name).is_some());
    let draft = world.acme.draft_incoming("another", resources::open()).await;
    let refused = world.acme.publish_incoming(&draft.name).await.unwrap_err();
    assert!(refused.message().contains("set back"), "{}", refused.message());

    let request = admin::StartStoreEpochRequest::default();
    let answer = world.client.data_planes().start_store_epoch(request).await.unwrap().into_inner();
    assert_eq!(answer.regressed_workspaces, ["workspaces/acme"]);
    eventually("the data plane to go back", || async {
        let runtime = world.plane().served.load();
        (runtime.workspace("workspaces/acme")?.revision == old).then_some(())
    })
    .await;
    assert!(world.plane().served.load().workspace("workspaces/acme").unwrap().connection(&connection.name).is_none());
    assert_eq!(sent(&world, &incoming, 2).await, r#"{"old": 2}"#);
    world.acme.publish_incoming(&draft.name).await.unwrap();
    world.served().await;
}
