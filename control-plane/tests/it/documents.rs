//! Creating, reading, listing, changing and deleting, the same for all kinds.

use prost_types::FieldMask;
use sluice_proto::admin::v1 as admin;
use sluice_proto::admin::v1::connection::Scheme;
use tonic::Code;

use crate::world::{ACME, World, api_key, details, has, incoming, outgoing, refusal, violations, workflow};

fn creating(id: &str) -> admin::CreateConnectionRequest {
    admin::CreateConnectionRequest {
        parent: ACME.to_owned(),
        connection_id: id.to_owned(),
        connection: Some(api_key("s3cret")),
        ..Default::default()
    }
}

fn getting(name: &str) -> admin::GetConnectionRequest {
    admin::GetConnectionRequest { name: name.to_owned() }
}

async fn get(world: &World, name: &str) -> admin::Connection {
    world.connections().get_connection(getting(name)).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_connection_is_created_read_changed_and_deleted() {
    let world = World::new().await;
    let made = world.connection("crm", "s3cret").await;
    assert_eq!(made.name, "workspaces/acme/connections/crm");
    assert_eq!(made.version, 1);
    assert!(!made.uid.is_empty() && !made.etag.is_empty() && made.create_time.is_some());
    assert_eq!(get(&world, &made.name).await, made);
    assert_eq!(world.revision("acme").await, 1, "a connection is in force at once");

    world.clock.advance(5);
    let changed = admin::Connection { display_name: "New".to_owned(), etag: made.etag.clone(), ..made.clone() };
    let request = admin::UpdateConnectionRequest { connection: Some(changed), ..Default::default() };
    let changed = world.connections().update_connection(request.clone()).await.unwrap().into_inner();
    assert_eq!((changed.version, changed.display_name.as_str()), (2, "New"));
    assert!(changed.etag != made.etag && changed.uid == made.uid && changed.update_time != made.update_time);
    assert_eq!(changed.create_time, made.create_time);

    let stale = world.connections().update_connection(request).await.unwrap_err();
    assert_eq!(refusal(&stale), (Code::Aborted, "ETAG_MISMATCH".to_owned()));

    let deleting = |etag: &str| admin::DeleteConnectionRequest {
        name: made.name.clone(),
        etag: etag.to_owned(),
        ..Default::default()
    };
    let stale = world.connections().delete_connection(deleting(&made.etag)).await.unwrap_err();
    assert_eq!(stale.code(), Code::Aborted);
    world.connections().delete_connection(deleting(&changed.etag)).await.unwrap();
    let gone = get(&world, &made.name).await;
    assert!(gone.delete_time.is_some() && gone.version == 0, "out of force, and not forgotten");
    assert_eq!(world.revision("acme").await, 3);
    let nobody = world.connections().get_connection(getting("workspaces/acme/connections/nobody")).await.unwrap_err();
    assert_eq!(refusal(&nobody), (Code::NotFound, "RESOURCE_NOT_FOUND".to_owned()));
    assert_eq!(details(&nobody).resource_info().unwrap().resource_name, "workspaces/acme/connections/nobody");
}

#[tokio::test]
async fn ids_are_made_checked_and_taken_once() {
    let world = World::new().await;
    let made = world.connections().create_connection(creating("")).await.unwrap().into_inner();
    let id = made.name.strip_prefix("workspaces/acme/connections/").unwrap();
    assert!(sluice_core::validate::resource_id(id).is_ok(), "{id}");
    world.connections().create_connection(creating("crm")).await.unwrap();
    let again = world.connections().create_connection(creating("crm")).await.unwrap_err();
    assert_eq!(refusal(&again), (Code::AlreadyExists, "RESOURCE_EXISTS".to_owned()));
    for bad in ["A", "a", "1abc", "x'; DROP TABLE document;--", "a\0b", &"a".repeat(10_000)] {
        let refused = world.connections().create_connection(creating(bad)).await.unwrap_err();
        assert!(has(&violations(&refused), "connection_id", "ID_INVALID"), "{bad:.20}");
    }
}

#[tokio::test]
async fn all_broken_rules_are_told_at_once() {
    let world = World::new().await;
    let mut broken = api_key("");
    broken.display_name.clear();
    if let Some(Scheme::ApiKey(key)) = &mut broken.scheme {
        key.headers.clear();
    }
    let request_id = "1".to_owned();
    let request = admin::CreateConnectionRequest { connection: Some(broken), request_id, ..creating("-") };
    let found = violations(&world.connections().create_connection(request).await.unwrap_err());
    for (field, reason) in [
        ("connection_id", "ID_INVALID"),
        ("request_id", "UUID_INVALID"),
        ("display_name", "REQUIRED"),
        ("api_key.secret", "REQUIRED"),
        ("api_key.headers", "REQUIRED"),
    ] {
        assert!(has(&found, field, reason), "{field} is not in {found:?}");
    }

    let mut broken =
        workflow("workspaces/acme/incomingIntegrations/nope", "workspaces/other/outgoingIntegrations/nope");
    broken.steps[0].step_id = "not a uuid".to_owned();
    let request = admin::CreateWorkflowRequest {
        parent: ACME.to_owned(),
        workflow_id: "abc".to_owned(),
        workflow: Some(broken),
        ..Default::default()
    };
    let found = violations(&world.workflows().create_workflow(request).await.unwrap_err());
    assert!(has(&found, "triggers[0].incoming_integration", "RESOURCE_NOT_FOUND"), "{found:?}");
    assert!(has(&found, "steps[0].outgoing_integration", "RESOURCE_NOT_FOUND"), "{found:?}");
    assert!(has(&found, "steps[0].step_id", "UUID_INVALID"), "{found:?}");
}

#[tokio::test]
async fn existence_comes_before_validation() {
    let world = World::new().await;
    let request =
        admin::CreateConnectionRequest { parent: "workspaces/nobody".to_owned(), connection: None, ..creating("-") };
    assert_eq!(world.connections().create_connection(request).await.unwrap_err().code(), Code::NotFound);
    let request = admin::UpdateConnectionRequest {
        connection: Some(admin::Connection {
            name: "workspaces/acme/connections/nope".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(world.connections().update_connection(request).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn another_workspace_sees_nothing() {
    let world = World::new().await;
    world.workspace("other").await;
    let mine = world.connection("crm", "s3cret").await.name;
    let theirs = mine.replace("acme", "other");
    let gone = world.connections().get_connection(getting(&theirs)).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    let request = admin::CreateOutgoingIntegrationRequest {
        parent: "workspaces/other".to_owned(),
        outgoing_integration_id: "send".to_owned(),
        outgoing_integration: Some(outgoing(&mine)),
        ..Default::default()
    };
    let found = violations(&world.outgoing().create_outgoing_integration(request).await.unwrap_err());
    assert!(has(&found, "request.connection", "RESOURCE_NOT_FOUND"), "{found:?}");
}

#[tokio::test]
async fn validate_only_checks_everything_and_changes_nothing() {
    let world = World::new().await;
    let trying = admin::CreateConnectionRequest { validate_only: true, ..creating("crm") };
    let tried = world.connections().create_connection(trying.clone()).await.unwrap().into_inner();
    assert_eq!(
        (tried.name.as_str(), tried.etag.as_str(), tried.uid.as_str()),
        ("workspaces/acme/connections/crm", "", "")
    );
    assert_eq!(world.revision("acme").await, 0);
    assert_eq!(world.connections().get_connection(getting(&tried.name)).await.unwrap_err().code(), Code::NotFound);

    let made = world.connection("crm", "s3cret").await;
    assert_eq!(world.connections().create_connection(trying).await.unwrap_err().code(), Code::AlreadyExists);
    let changed = admin::Connection { display_name: "New".to_owned(), ..made.clone() };
    let request =
        admin::UpdateConnectionRequest { connection: Some(changed), validate_only: true, ..Default::default() };
    let tried = world.connections().update_connection(request).await.unwrap().into_inner();
    assert_eq!((tried.display_name.as_str(), tried.etag.as_str()), ("New", ""));
    let request = admin::DeleteConnectionRequest { name: made.name.clone(), validate_only: true, ..Default::default() };
    world.connections().delete_connection(request).await.unwrap();
    let request = admin::DeleteWorkspaceRequest { name: ACME.to_owned(), validate_only: true, ..Default::default() };
    assert_eq!(world.workspaces().delete_workspace(request).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(get(&world, &made.name).await, made);
    assert_eq!(world.revision("acme").await, 1);

    let request = admin::CreateIncomingIntegrationRequest {
        parent: ACME.to_owned(),
        incoming_integration: Some(incoming()),
        validate_only: true,
        ..Default::default()
    };
    let tried = world.incoming().create_incoming_integration(request).await.unwrap().into_inner();
    assert_eq!(tried.endpoint_id, "", "an endpoint that was only tried has no id");
}

#[tokio::test]
async fn the_same_request_gets_the_first_answer() {
    const ID: &str = "5b0cdd4e-7a5a-4a0e-9d49-62a2c9b6a0f1";
    let world = World::new().await;
    let request = admin::CreateConnectionRequest { request_id: ID.to_owned(), ..creating("crm") };
    let made = world.connections().create_connection(request.clone()).await.unwrap().into_inner();
    let again = world.connections().create_connection(request.clone()).await.unwrap().into_inner();
    assert_eq!(again, made);
    assert_eq!(world.revision("acme").await, 1);

    let other = admin::CreateConnectionRequest { connection: Some(api_key("other")), ..request.clone() };
    let refused = world.connections().create_connection(other).await.unwrap_err();
    assert_eq!(refusal(&refused), (Code::InvalidArgument, "REQUEST_ID_REUSED".to_owned()));
    let other = admin::DeleteConnectionRequest { name: made.name, request_id: ID.to_owned(), ..Default::default() };
    let refused = world.connections().delete_connection(other).await.unwrap_err();
    assert_eq!(refusal(&refused).1, "REQUEST_ID_REUSED");

    world.clock.advance(24 * 3600 * 1000 + 1);
    let late = world.connections().create_connection(request).await.unwrap_err();
    assert_eq!(late.code(), Code::AlreadyExists, "after a day it is a new request");
    let bad = admin::CreateConnectionRequest { request_id: "1".to_owned(), ..creating("abc") };
    let found = violations(&world.connections().create_connection(bad).await.unwrap_err());
    assert!(has(&found, "request_id", "UUID_INVALID"));
}

#[tokio::test]
async fn many_copies_of_a_request_at_once_act_once() {
    let world = World::new().await;
    let request = admin::CreateConnectionRequest {
        request_id: "5b0cdd4e-7a5a-4a0e-9d49-62a2c9b6a0f2".to_owned(),
        ..creating("crm")
    };
    let calls = (0..16).map(|_| {
        let (mut client, request) = (world.connections(), request.clone());
        tokio::spawn(async move { client.create_connection(request).await.unwrap().into_inner() })
    });
    let mut answers = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        answers.push(call.await.unwrap());
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(world.revision("acme").await, 1);
}

#[tokio::test]
async fn lists_come_in_pages_and_tokens_cannot_be_forged() {
    let world = World::new().await;
    world.workspace("other").await;
    for index in 0..5 {
        world.connection(&format!("con-{index}"), "s3cret").await;
    }
    let asking = |page_size, page_token: &str| admin::ListConnectionsRequest {
        parent: ACME.to_owned(),
        page_size,
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    let mut names = Vec::new();
    let mut token = String::new();
    let mut tokens = Vec::new();
    loop {
        let page = world.connections().list_connections(asking(2, &token)).await.unwrap().into_inner();
        names.extend(page.connections.into_iter().map(|connection| connection.name));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        tokens.push(token.clone());
    }
    assert_eq!(tokens.len(), 2);
    let expected: Vec<_> = (0..5).map(|index| format!("workspaces/acme/connections/con-{index}")).collect();
    assert_eq!(names, expected);

    let good = &tokens[0];
    let mut changed = good.clone().into_bytes();
    changed[30] = if changed[30] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).unwrap();
    let huge = "A".repeat(1 << 20);
    for forged in ["x", "AAAA", "'; DROP TABLE document;--", &good[..good.len() - 4], &changed, &huge] {
        let refused = world.connections().list_connections(asking(2, forged)).await.unwrap_err();
        assert_eq!(refusal(&refused), (Code::InvalidArgument, "PAGE_TOKEN_INVALID".to_owned()));
    }
    // The same token for another list.
    let other = admin::ListConnectionsRequest { parent: "workspaces/other".to_owned(), ..asking(2, good) };
    assert_eq!(refusal(&world.connections().list_connections(other).await.unwrap_err()).1, "PAGE_TOKEN_INVALID");
    let other = admin::ListWorkflowsRequest {
        parent: ACME.to_owned(),
        page_size: 2,
        page_token: good.clone(),
        ..Default::default()
    };
    assert_eq!(refusal(&world.workflows().list_workflows(other).await.unwrap_err()).1, "PAGE_TOKEN_INVALID");

    for size in [-1, 1001, i32::MIN, i32::MAX] {
        let found = violations(&world.connections().list_connections(asking(size, "")).await.unwrap_err());
        assert!(has(&found, "page_size", "OUT_OF_RANGE"));
    }
}

#[tokio::test]
async fn a_mask_changes_what_it_names() {
    let world = World::new().await;
    let made = world.connection("crm", "s3cret").await;
    let updating = |connection: admin::Connection, paths: &[&str]| admin::UpdateConnectionRequest {
        connection: Some(admin::Connection { name: made.name.clone(), ..connection }),
        update_mask: Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
        ..Default::default()
    };
    let named = admin::Connection { display_name: "New".to_owned(), ..Default::default() };
    let changed = world.connections().update_connection(updating(named.clone(), &["display_name"])).await.unwrap();
    let changed = changed.into_inner();
    assert_eq!(changed.display_name, "New");
    assert_eq!(changed.scheme, made.scheme);

    let unchanged = world.connections().update_connection(updating(named.clone(), &["display_name"])).await.unwrap();
    assert_eq!(unchanged.into_inner(), changed, "what changes nothing is no change");

    for bad in ["secret", "api_key.secret", "name", "etag", "version", ""] {
        let refused = world.connections().update_connection(updating(named.clone(), &["display_name", bad])).await;
        assert!(has(&violations(&refused.unwrap_err()), "update_mask", "PATH_INVALID"), "{bad}");
    }
    let found = world.connections().update_connection(updating(named, &["*"])).await.unwrap_err();
    assert!(has(&violations(&found), "scheme", "REQUIRED"), "* replaces everything");
}

#[tokio::test]
async fn the_older_token_scheme_is_kept_as_an_api_key() {
    let world = World::new().await;
    let token = admin::Token { token: "t0ken".to_owned() };
    let connection =
        admin::Connection { display_name: "Old".to_owned(), scheme: Some(Scheme::Token(token)), ..Default::default() };
    let request = admin::CreateConnectionRequest { connection: Some(connection), ..creating("old") };
    let made = world.connections().create_connection(request).await.unwrap().into_inner();
    let Some(Scheme::ApiKey(key)) = made.scheme else { panic!("{made:?}") };
    assert!(key.secret_set && key.secret.is_empty());
    assert_eq!(key.headers[0].value, "Bearer {{secret}}");
}

#[tokio::test]
async fn workspaces_live_and_die_empty() {
    let world = World::new().await;
    let name = || ACME.to_owned();
    let get = admin::GetWorkspaceRequest { name: name() };
    let made = world.workspaces().get_workspace(get.clone()).await.unwrap().into_inner();
    assert_eq!((made.business_profile_id, made.revision), (1, 0));
    let renamed = admin::Workspace { display_name: "ACME Ltd".to_owned(), ..made.clone() };
    let request = admin::UpdateWorkspaceRequest { workspace: Some(renamed), ..Default::default() };
    let renamed = world.workspaces().update_workspace(request.clone()).await.unwrap().into_inner();
    assert!(renamed.display_name == "ACME Ltd" && renamed.etag != made.etag);
    assert_eq!(world.workspaces().update_workspace(request).await.unwrap_err().code(), Code::Aborted);

    world.connection("crm", "s3cret").await;
    let delete = admin::DeleteWorkspaceRequest { name: name(), ..Default::default() };
    let refused = world.workspaces().delete_workspace(delete.clone()).await.unwrap_err();
    assert_eq!(refusal(&refused), (Code::FailedPrecondition, "WORKSPACE_NOT_EMPTY".to_owned()));
    assert!(refused.message().contains("workspaces/acme/connections/crm"), "{}", refused.message());
    let request =
        admin::DeleteConnectionRequest { name: "workspaces/acme/connections/crm".to_owned(), ..Default::default() };
    world.connections().delete_connection(request).await.unwrap();
    world.workspaces().delete_workspace(delete).await.unwrap();
    assert!(world.workspaces().get_workspace(get).await.unwrap().into_inner().delete_time.is_some());

    let world = world.purged(ACME).await;
    let again = world.workspace("acme").await;
    assert!(again.uid != made.uid && again.business_profile_id == 2);
    assert_eq!(again.revision, 3, "revisions of an id only grow");
    world.workspace("beta").await;
    let request = admin::ListWorkspacesRequest { page_size: 1, ..Default::default() };
    let page = world.workspaces().list_workspaces(request).await.unwrap().into_inner();
    assert_eq!(page.workspaces[0].name, ACME);
    let request = admin::ListWorkspacesRequest { page_size: 1, page_token: page.next_page_token, ..Default::default() };
    let page = world.workspaces().list_workspaces(request).await.unwrap().into_inner();
    assert_eq!((page.workspaces[0].name.as_str(), page.next_page_token.as_str()), ("workspaces/beta", ""));
}

#[tokio::test]
async fn a_large_page_ends_before_clients_refuse_it() {
    let world = World::new().await;
    for index in 0..70 {
        let mut document = outgoing("");
        if let Some(request) = &mut document.request {
            request.body = Some("x".repeat(64 * 1024));
            request.template_mode = admin::TemplateMode::Exact.into();
        }
        let request = admin::CreateOutgoingIntegrationRequest {
            parent: ACME.to_owned(),
            outgoing_integration_id: format!("out-{index:02}"),
            outgoing_integration: Some(document),
            ..Default::default()
        };
        world.outgoing().create_outgoing_integration(request).await.unwrap();
    }
    let (mut seen, mut token) = (0, String::new());
    loop {
        let request = admin::ListOutgoingIntegrationsRequest {
            parent: ACME.to_owned(),
            page_size: 1000,
            page_token: token.clone(),
            ..Default::default()
        };
        let page = world.outgoing().list_outgoing_integrations(request).await.unwrap().into_inner();
        seen += page.outgoing_integrations.len();
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, 70);
}
