//! What is deleted can come back for 30 days (D30), and is in nobody's way until then.

use sluice_proto::admin::v1 as admin;
use tonic::{Code, Status};

use crate::world::{ACME, World, has, incoming, refusal, violations, within};

const DAY: i64 = 24 * 3600 * 1000;

async fn delete_outgoing(world: &World, name: &str) -> Result<(), Status> {
    let request = admin::DeleteOutgoingIntegrationRequest { name: name.to_owned(), ..Default::default() };
    world.outgoing().delete_outgoing_integration(request).await.map(drop)
}

async fn undelete_outgoing(world: &World, name: &str) -> Result<admin::OutgoingIntegration, Status> {
    let request = admin::UndeleteOutgoingIntegrationRequest { name: name.to_owned(), ..Default::default() };
    world.outgoing().undelete_outgoing_integration(request).await.map(tonic::Response::into_inner)
}

async fn delete_connection(world: &World, name: &str) -> Result<(), Status> {
    let request = admin::DeleteConnectionRequest { name: name.to_owned(), ..Default::default() };
    world.connections().delete_connection(request).await.map(drop)
}

async fn undelete_connection(world: &World, name: &str) -> Result<admin::Connection, Status> {
    let request = admin::UndeleteConnectionRequest { name: name.to_owned(), ..Default::default() };
    world.connections().undelete_connection(request).await.map(tonic::Response::into_inner)
}

async fn listed(world: &World, show_deleted: bool) -> Vec<String> {
    let request =
        admin::ListOutgoingIntegrationsRequest { parent: ACME.to_owned(), show_deleted, ..Default::default() };
    let page = world.outgoing().list_outgoing_integrations(request).await.unwrap().into_inner();
    page.outgoing_integrations.into_iter().map(|one| one.name).collect()
}

#[tokio::test]
async fn what_is_deleted_is_kept_apart_and_comes_back_as_it_was() {
    let world = World::new().await;
    let made = world.outgoing_integration("send", "").await;
    world.clock.advance(1000);
    delete_outgoing(&world, &made.name).await.unwrap();
    assert_eq!(listed(&world, false).await, Vec::<String>::new());
    assert_eq!(listed(&world, true).await, [made.name.as_str()]);
    let request = admin::GetOutgoingIntegrationRequest { name: made.name.clone() };
    let shown = world.outgoing().get_outgoing_integration(request).await.unwrap().into_inner();
    let (deleted, purged) = (shown.delete_time.unwrap(), shown.purge_time.unwrap());
    assert_eq!((purged.seconds - deleted.seconds) * 1000, 30 * DAY);

    let is_deleted = |status: Status| {
        assert_eq!(refusal(&status), (Code::FailedPrecondition, "RESOURCE_DELETED".to_owned()));
        assert!(status.message().contains(&made.name) && status.message().contains("undelete"), "{status:?}");
    };
    is_deleted(delete_outgoing(&world, &made.name).await.unwrap_err());
    is_deleted(world.publish_outgoing(&made.name).await.unwrap_err());
    let request = admin::UpdateOutgoingIntegrationRequest {
        outgoing_integration: Some(admin::OutgoingIntegration { etag: String::new(), ..made.clone() }),
        ..Default::default()
    };
    is_deleted(world.outgoing().update_outgoing_integration(request).await.unwrap_err());
    // The id stays taken.
    let request = admin::CreateOutgoingIntegrationRequest {
        parent: ACME.to_owned(),
        outgoing_integration_id: "send".to_owned(),
        outgoing_integration: Some(crate::world::outgoing("")),
        ..Default::default()
    };
    is_deleted(world.outgoing().create_outgoing_integration(request).await.unwrap_err());

    let stale = admin::UndeleteOutgoingIntegrationRequest {
        name: made.name.clone(),
        etag: made.etag.clone(),
        ..Default::default()
    };
    assert_eq!(world.outgoing().undelete_outgoing_integration(stale).await.unwrap_err().code(), Code::Aborted);
    let back = undelete_outgoing(&world, &made.name).await.unwrap();
    let blank = |one: &admin::OutgoingIntegration| admin::OutgoingIntegration {
        etag: String::new(),
        update_time: None,
        ..one.clone()
    };
    assert_eq!(blank(&back), blank(&made));
    assert_eq!(undelete_outgoing(&world, &made.name).await.unwrap_err().code(), Code::AlreadyExists);
    world.publish_outgoing(&made.name).await.unwrap();
}

#[tokio::test]
async fn what_is_deleted_uses_nothing_and_needs_it_again_to_come_back() {
    let world = World::new().await;
    let connection = world.connection("crm", "s3cret").await.name;
    let outgoing = world.outgoing_integration("send", &connection).await.name;
    assert_eq!(delete_connection(&world, &connection).await.unwrap_err().code(), Code::FailedPrecondition);
    delete_outgoing(&world, &outgoing).await.unwrap();
    delete_connection(&world, &connection).await.unwrap();

    let found = violations(&undelete_outgoing(&world, &outgoing).await.unwrap_err());
    assert!(has(&found, "request.connection", "RESOURCE_DELETED"), "{found:?}");
    let revision = world.revision("acme").await;
    let back = undelete_connection(&world, &connection).await.unwrap();
    assert!(back.version > 1 && back.delete_time.is_none());
    assert_eq!(world.revision("acme").await, revision + 1, "a connection is in force again at once");
    let Some(admin::connection::Scheme::ApiKey(key)) = back.scheme else { panic!("another scheme") };
    assert!(key.secret_set && key.secret.is_empty());
    undelete_outgoing(&world, &outgoing).await.unwrap();
    assert_eq!(delete_connection(&world, &connection).await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn an_endpoint_comes_back_with_its_address_and_no_other_gets_it() {
    let world = World::new().await;
    let made = world.incoming_integration("orders").await;
    let delete = admin::DeleteIncomingIntegrationRequest { name: made.name.clone(), ..Default::default() };
    world.incoming().delete_incoming_integration(delete.clone()).await.unwrap();
    let undelete = admin::UndeleteIncomingIntegrationRequest { name: made.name.clone(), ..Default::default() };
    let back = world.incoming().undelete_incoming_integration(undelete).await.unwrap().into_inner();
    assert_eq!(back.endpoint_id, made.endpoint_id);

    world.incoming().delete_incoming_integration(delete).await.unwrap();
    world.clock.advance(30 * DAY);
    let world = world.restart().await;
    let get = admin::GetIncomingIntegrationRequest { name: made.name.clone() };
    within(async {
        while world.incoming().get_incoming_integration(get.clone()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let again = admin::CreateIncomingIntegrationRequest {
        parent: ACME.to_owned(),
        incoming_integration_id: "orders".to_owned(),
        incoming_integration: Some(admin::IncomingIntegration { endpoint_id: made.endpoint_id.clone(), ..incoming() }),
        ..Default::default()
    };
    let again = world.incoming().create_incoming_integration(again).await.unwrap().into_inner();
    assert!(again.endpoint_id != made.endpoint_id && again.uid != made.uid);
}

#[tokio::test]
async fn nothing_is_purged_a_moment_too_early() {
    let world = World::new().await;
    let outgoing = world.outgoing_integration("send", "").await.name;
    delete_outgoing(&world, &outgoing).await.unwrap();
    let delete = admin::DeleteWorkspaceRequest { name: "workspaces/other".to_owned(), ..Default::default() };
    world.workspace("other").await;
    world.workspaces().delete_workspace(delete.clone()).await.unwrap();
    world.clock.advance(30 * DAY - 1);
    // When the second workspace, deleted at the same time as nothing else, is looked for, the sweep has been there.
    let world = world.restart().await;
    let gone = admin::DeleteWorkspaceRequest { name: "workspaces/acme".to_owned(), ..Default::default() };
    world.workspaces().delete_workspace(gone).await.unwrap();
    let show = admin::ListWorkspacesRequest { show_deleted: true, ..Default::default() };
    let page = world.workspaces().list_workspaces(show).await.unwrap().into_inner();
    assert_eq!(page.workspaces.len(), 2);
}

#[tokio::test]
async fn a_workspace_comes_back_empty() {
    let world = World::new().await;
    let connection = world.connection("crm", "s3cret").await.name;
    delete_connection(&world, &connection).await.unwrap();
    let delete = admin::DeleteWorkspaceRequest { name: ACME.to_owned(), ..Default::default() };
    let before = world.revision("acme").await;
    world.workspaces().delete_workspace(delete.clone()).await.unwrap();
    assert_eq!(world.workspaces().delete_workspace(delete).await.unwrap_err().code(), Code::NotFound);
    let inside = admin::ListConnectionsRequest { parent: ACME.to_owned(), show_deleted: true, ..Default::default() };
    assert_eq!(world.connections().list_connections(inside.clone()).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(undelete_connection(&world, &connection).await.unwrap_err().code(), Code::NotFound);
    let create = admin::CreateWorkspaceRequest {
        workspace_id: "acme".to_owned(),
        workspace: Some(admin::Workspace { display_name: "A".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    assert_eq!(refusal(&world.workspaces().create_workspace(create).await.unwrap_err()).1, "RESOURCE_DELETED");

    let undelete = admin::UndeleteWorkspaceRequest { name: ACME.to_owned(), ..Default::default() };
    let back = world.workspaces().undelete_workspace(undelete.clone()).await.unwrap().into_inner();
    assert!(back.delete_time.is_none() && back.revision == before + 1);
    assert_eq!(world.workspaces().undelete_workspace(undelete).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(world.connections().list_connections(inside).await.unwrap().into_inner().connections.len(), 1);
    undelete_connection(&world, &connection).await.unwrap();
}
