//! Nothing is lost when the server ends, and keys can be rotated.

use sluice_control_plane::{ControlPlane, Error};
use sluice_core::seal::{MasterKeys, WrappedKey};
use sluice_proto::admin::v1 as admin;

use crate::sync::DataPlane;
use crate::world::{ACME, World, settings};

pub(crate) const SECOND: &str = "second:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\n";

#[tokio::test]
async fn a_restart_keeps_everything() {
    const ID: &str = "5b0cdd4e-7a5a-4a0e-9d49-62a2c9b6a0f1";
    let world = World::new().await;
    let connection = world.connection("crm", "s3cret").await;
    let incoming = world.incoming_integration("orders").await.name;
    let outgoing = world.outgoing_integration("send", &connection.name).await.name;
    let workflow = world.workflow("flow", &incoming, &outgoing).await.name;
    world.publish_incoming(&incoming).await.unwrap();
    world.publish_outgoing(&outgoing).await.unwrap();
    let published = world.publish_workflow(&workflow).await.unwrap();
    let request = admin::DeleteConnectionRequest { name: connection.name.clone(), ..Default::default() };
    let refused = world.connections().delete_connection(request).await.unwrap_err();
    assert!(refused.message().contains(&outgoing));
    let remembered = admin::UpdateConnectionRequest {
        connection: Some(admin::Connection { display_name: "New".to_owned(), ..connection.clone() }),
        request_id: ID.to_owned(),
        ..Default::default()
    };
    let answer = world.connections().update_connection(remembered.clone()).await.unwrap().into_inner();
    let list = admin::ListWorkspacesRequest { page_size: 1, ..Default::default() };
    world.workspace("second").await;
    let token = world.workspaces().list_workspaces(list.clone()).await.unwrap().into_inner().next_page_token;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    plane.sync().await;
    let (epoch, cursors) = (plane.epoch.clone(), plane.cursors());
    drop(plane);

    let world = world.restart().await;
    let request = admin::GetWorkflowRequest { name: workflow };
    assert_eq!(world.workflows().get_workflow(request).await.unwrap().into_inner(), published);
    let again = world.connections().update_connection(remembered).await.unwrap().into_inner();
    assert_eq!(again, answer, "remembered requests too");
    let list = admin::ListWorkspacesRequest { page_token: token, ..list };
    assert_eq!(world.workspaces().list_workspaces(list).await.unwrap().into_inner().workspaces.len(), 1);
    let mut plane = DataPlane::connect(&world, "dp-1", &epoch, &cursors).await;
    assert_eq!(plane.epoch, epoch);
    assert!(plane.sync().await.is_empty(), "the same revision, the same digest");
}

/// K05: the master key is changed while data planes are connected, without a restart; the old one goes when nothing needs it.
#[tokio::test]
async fn a_new_master_key_wraps_everything_and_the_old_one_can_go() {
    let world = World::new().await;
    world.connection("crm", "s3cret").await;
    world.workspace("other").await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    plane.sync().await;
    let ring = world.folder.path().join("master.key");
    let old = std::fs::read_to_string(&ring).unwrap();
    assert_eq!(world.master_keys_listed().await, ["masterKeys/first primary 3"]);

    std::fs::write(&ring, format!("{old}{SECOND}")).unwrap();
    world.until_master_keys(&["masterKeys/first primary 3", "masterKeys/second removable 0"]).await;
    // A ring that cannot be used, or lacks a key in use, changes nothing.
    std::fs::write(&ring, "broken").unwrap();
    std::fs::write(&ring, SECOND).unwrap();
    std::fs::write(&ring, format!("{SECOND}{old}")).unwrap();
    world.until_master_keys(&["masterKeys/first removable 0", "masterKeys/second primary 3"]).await;
    let revision = world.revision("acme").await;
    plane.until(ACME, revision).await;
    let wrapped = plane.data_key(ACME);
    assert_eq!(wrapped.key_id, "second", "data planes get the new wrapping");
    let wrapped = WrappedKey { key_id: wrapped.key_id, bytes: wrapped.ciphertext.to_vec() };
    assert!(MasterKeys::parse(SECOND).unwrap().unwrap(&wrapped, ACME).is_ok());

    std::fs::write(&ring, SECOND).unwrap();
    world.until_master_keys(&["masterKeys/second primary 3"]).await;
    world.connection("later", "s3cret").await;
    drop(plane);
    let world = world.restart().await;
    assert_eq!(world.revision("acme").await, revision + 1, "what is wrapped already is left alone");
}

/// K04, K06, K12: without a ring, or with that of another installation, nothing starts, and the error names the key.
#[tokio::test]
async fn nothing_starts_without_the_keys_in_use() {
    let world = World::new().await;
    world.workspace("other").await;
    let (folder, clock) = world.end().await;
    let ring = folder.path().join("master.key");
    std::fs::write(&ring, SECOND).unwrap();
    let start = || async { ControlPlane::start(settings(folder.path(), &clock)).await.err().unwrap() };
    let error = start().await;
    assert!(matches!(&error, Error::MasterKeyWrong { key_id, data_keys: 3, .. } if key_id == "first"), "{error}");
    assert!(error.to_string().contains("`first`"));
    // Another key under the same id.
    std::fs::write(&ring, SECOND.replace("second", "first")).unwrap();
    assert!(matches!(start().await, Error::MasterKeyWrong { .. }));
    std::fs::remove_file(&ring).unwrap();
    assert!(matches!(start().await, Error::MasterKeyMissing { .. }));
}
