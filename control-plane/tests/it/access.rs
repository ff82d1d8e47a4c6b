//! Who may call what, and what happens at the door.

use std::path::Path;
use std::time::Duration;

use sluice_control_plane::{Clock, ControlPlane, Error, Limits, Settings};
use sluice_proto::admin::v1 as admin;
use sluice_proto::admin::v1::workspace_service_client::WorkspaceServiceClient;
use sluice_proto::sync::v1::SyncRequest;
use sluice_proto::sync::v1::sync_service_client::SyncServiceClient;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::outsider::stored;
use crate::world::{ACME, RING, START, World, api_key, key_in, refusal, settings, within};

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

async fn list_with(channel: Channel, entries: &[(&'static str, &str)]) -> Result<(), Status> {
    let mut request = Request::new(admin::ListWorkspacesRequest::default());
    for (name, value) in entries {
        request.metadata_mut().append(*name, MetadataValue::try_from(*value).unwrap());
    }
    WorkspaceServiceClient::new(channel).list_workspaces(request).await.map(drop)
}

#[tokio::test]
async fn a_call_needs_exactly_one_known_key() {
    let world = World::new().await;
    let key = text(&world.folder.path().join("admin.key"));
    let good = format!("Bearer {key}");
    list_with(world.channel(), &[("authorization", &good)]).await.unwrap();
    list_with(world.channel(), &[("authorization", &good.replace("Bearer", "bearer"))]).await.unwrap();

    let mut other = key.clone().into_bytes();
    let last = other.len() - 2;
    other[last] = if other[last] == b'A' { b'B' } else { b'A' };
    let other = format!("Bearer {}", String::from_utf8(other).unwrap());
    let unknown = format!("Bearer {}", key.replacen(&key[4..12], "00000000", 1));
    let basic = format!("Basic {key}");
    let bad: [&[(&str, &str)]; 9] = [
        &[],
        &[("authorization", "")],
        &[("authorization", &key)],
        &[("authorization", &basic)],
        &[("authorization", &other)],
        &[("authorization", &unknown)],
        &[("authorization", &good), ("authorization", &good)],
        &[("x-api-key", &key)],
        &[("authorization", "Bearer slc_")],
    ];
    for entries in bad {
        let status = list_with(world.channel(), entries).await.unwrap_err();
        assert_eq!(refusal(&status), (Code::Unauthenticated, "API_KEY_INVALID".to_owned()), "{entries:?}");
        assert!(!status.message().contains(&key[12..]), "the key is not told");
    }
}

#[tokio::test]
async fn a_key_does_what_it_is_for_and_permission_comes_first() {
    let world = World::new().await;
    let with_plane_key = WorkspaceServiceClient::with_interceptor(world.channel(), world.plane.clone());
    // Neither that the workspace is not there nor that the name is none is told.
    for name in ["workspaces/nobody", "x"] {
        let request = admin::GetWorkspaceRequest { name: name.to_owned() };
        let status = with_plane_key.clone().get_workspace(request).await.unwrap_err();
        assert_eq!(refusal(&status), (Code::PermissionDenied, "PERMISSION_MISSING".to_owned()));
        assert!(status.message().contains("workspaces.get"));
    }
    let mut with_admin_key = SyncServiceClient::with_interceptor(world.channel(), world.admin.clone());
    let status = with_admin_key.sync(tokio_stream::empty::<SyncRequest>()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn every_answer_names_its_call() {
    let world = World::new().await;
    let request = admin::GetWorkspaceRequest { name: ACME.to_owned() };
    let first = world.workspaces().get_workspace(request.clone()).await.unwrap();
    let second = world.workspaces().get_workspace(request).await.unwrap();
    let id =
        |metadata: &tonic::metadata::MetadataMap| metadata.get("x-request-id").unwrap().to_str().unwrap().to_owned();
    assert_ne!(id(first.metadata()), id(second.metadata()));
    let request = admin::GetWorkspaceRequest { name: "workspaces/nobody".to_owned() };
    let refused = world.workspaces().get_workspace(request).await.unwrap_err();
    assert!(!id(refused.metadata()).is_empty());
    let refused = list_with(world.channel(), &[]).await.unwrap_err();
    assert!(!id(refused.metadata()).is_empty());
}

#[tokio::test]
async fn health_is_open_and_reflection_takes_any_key() {
    let world = World::new().await;
    let health = HealthClient::new(world.channel()).check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(health.into_inner().status, 1);

    let asking = || {
        let message_request = Some(MessageRequest::ListServices(String::new()));
        tokio_stream::once(ServerReflectionRequest { message_request, ..Default::default() })
    };
    let refused = ServerReflectionClient::new(world.channel()).server_reflection_info(asking()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    for key in [world.admin.clone(), world.plane.clone()] {
        let mut client = ServerReflectionClient::with_interceptor(world.channel(), key);
        let mut answers = client.server_reflection_info(asking()).await.unwrap().into_inner();
        let answer: ServerReflectionResponse = answers.message().await.unwrap().unwrap();
        let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("{answer:?}") };
        let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
        for name in ["sluice.admin.v1.WorkflowService", "sluice.sync.v1.SyncService", "grpc.health.v1.Health"] {
            assert!(names.contains(&name), "{names:?}");
        }
    }
    let mut older = tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient::with_interceptor(
        world.channel(),
        world.admin.clone(),
    );
    let message_request =
        Some(tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()));
    let request = tonic_reflection::pb::v1alpha::ServerReflectionRequest { message_request, ..Default::default() };
    older.server_reflection_info(tokio_stream::once(request)).await.unwrap();
}

#[tokio::test]
async fn a_method_the_contract_does_not_have_is_refused() {
    let world = World::new().await;
    let mut client = tonic::client::Grpc::new(world.channel());
    client.ready().await.unwrap();
    let mut request = Request::new(admin::ListWorkspacesRequest::default());
    let key = format!("Bearer {}", text(&world.folder.path().join("admin.key")));
    request.metadata_mut().insert("authorization", MetadataValue::try_from(key).unwrap());
    let path = http::uri::PathAndQuery::from_static("/sluice.admin.v1.WorkspaceService/DropEverything");
    let codec = tonic_prost::ProstCodec::<admin::ListWorkspacesRequest, admin::ListWorkspacesResponse>::default();
    let refused = client.unary(request, path.clone(), codec.clone()).await.unwrap_err();
    assert_eq!(refusal(&refused), (Code::Unimplemented, "CALL_INVALID".to_owned()));
    // Who shows no key is not told which methods there are.
    client.ready().await.unwrap();
    let strangers = Request::new(admin::ListWorkspacesRequest::default());
    let refused = client.unary(strangers, path, codec).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_with_a_reason() {
    let world = World::new().await;
    let workspace = admin::Workspace { display_name: "x".repeat(5 << 20), ..Default::default() };
    let request = admin::CreateWorkspaceRequest { workspace: Some(workspace), ..Default::default() };
    let refused = world.workspaces().create_workspace(request).await.unwrap_err();
    assert_eq!(refusal(&refused), (Code::OutOfRange, "CALL_INVALID".to_owned()));
    // The connection is as good as before.
    world.revision("acme").await;
}

#[tokio::test]
async fn key_files_are_made_once_for_the_owner_alone() {
    let world = World::new().await;
    let database = std::iter::once("control-plane.db").filter(|file| world.folder.path().join(file).exists());
    for file in ["admin.key", "data-plane.key"].into_iter().chain(database) {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = world.folder.path().join(file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let database = stored(world.folder.path()).await;
    let key = text(&world.folder.path().join("admin.key"));
    assert!(!database.windows(43).any(|window| window == &key.as_bytes()[13..]), "the store holds a hash");
    let world = world.restart().await;
    assert_eq!(text(&world.folder.path().join("admin.key")), key);
    world.revision("acme").await;
}

#[tokio::test]
async fn a_lost_key_file_is_made_anew_and_the_old_key_is_revoked() {
    let world = World::new().await;
    let (folder, clock) = world.end().await;
    let path = folder.path().join("admin.key");
    let lost = format!("Bearer {}", text(&path));
    std::fs::remove_file(&path).unwrap();
    let world = World::start(folder, clock).await;
    world.revision("acme").await;
    let refused = list_with(world.channel(), &[("authorization", &lost)]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    // A key the operator puts there is taken over.
    let (folder, clock) = world.end().await;
    std::fs::write(&path, lost.strip_prefix("Bearer ").unwrap()).unwrap();
    let world = World::start(folder, clock).await;
    list_with(world.channel(), &[("authorization", &lost)]).await.unwrap();

    let (folder, clock) = world.end().await;
    std::fs::write(&path, "not a key").unwrap();
    let error = ControlPlane::start(settings(folder.path(), &clock)).await.err().unwrap();
    assert!(matches!(error, Error::KeyFileInvalid { .. }), "{error}");
    assert_eq!(text(&path), "not a key", "what is there is not overwritten");
    let _ = key_in(&folder.path().join("data-plane.key"));
}

#[tokio::test]
async fn nothing_starts_without_a_master_key() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START);
    let error = ControlPlane::start(settings(folder.path(), &clock)).await.err().unwrap();
    assert!(matches!(error, Error::MasterKeyMissing { .. }));
    assert!(error.to_string().contains("master.key") && error.to_string().contains("sluice dev"), "{error}");
    std::fs::write(folder.path().join("master.key"), "no ring").unwrap();
    let error = ControlPlane::start(settings(folder.path(), &clock)).await.err().unwrap();
    assert!(matches!(error, Error::MasterKeyInvalid { .. }), "{error}");
}

/// What a server with these limits says to a list and to a stream.
async fn under(limits: Limits) -> (Result<(), Status>, Result<(), Status>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("master.key"), RING).unwrap();
    let settings = Settings { limits, ..settings(folder.path(), &Clock::manual(START)) };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let ready = ControlPlane::start(settings).await.unwrap();
    let running = tokio::spawn(ready.serve(listener, stop.clone()));
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let key = format!("Bearer {}", text(&folder.path().join("admin.key")));
    let listed = within(list_with(channel.clone(), &[("authorization", &key)])).await;
    let plane = key_in(&folder.path().join("data-plane.key"));
    let mut client = SyncServiceClient::with_interceptor(channel, plane);
    let streamed = within(client.sync(tokio_stream::empty::<SyncRequest>())).await.map(drop);
    drop(client);
    stop.cancel();
    within(running).await.unwrap().unwrap();
    (listed, streamed)
}

#[tokio::test]
async fn every_limit_is_enforced_and_named() {
    let overloaded = (Code::ResourceExhausted, "OVERLOADED".to_owned());
    let (listed, streamed) = under(Limits { calls: 0, ..Limits::default() }).await;
    assert_eq!(refusal(&listed.unwrap_err()), overloaded);
    assert_eq!(refusal(&streamed.unwrap_err()), overloaded);
    let (listed, streamed) = under(Limits { streams: 0, ..Limits::default() }).await;
    listed.unwrap();
    let refused = streamed.unwrap_err();
    assert_eq!(refusal(&refused), overloaded);
    assert!(refused.message().contains("`streams`"), "{}", refused.message());
    // A call that is answered within the timer's first tick may get through.
    let refused = loop {
        if let (Err(refused), _) = under(Limits { call_time: Duration::ZERO, ..Limits::default() }).await {
            break refused;
        }
    };
    assert_eq!(refusal(&refused), (Code::DeadlineExceeded, "TOOK_TOO_LONG".to_owned()));
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_half_of_a_change() {
    let world = World::new().await;
    for steps in 0..60 {
        let mut client = world.connections();
        let request = admin::CreateConnectionRequest {
            parent: ACME.to_owned(),
            connection: Some(api_key("s3cret")),
            ..Default::default()
        };
        let call = tokio::spawn(async move { client.create_connection(request).await.map(drop) });
        for _ in 0..steps {
            tokio::task::yield_now().await;
        }
        call.abort();
    }
    // The writer is free, and what is there is whole: as many revisions as connections.
    world.connection("last", "s3cret").await;
    let request = admin::ListConnectionsRequest { parent: ACME.to_owned(), page_size: 100, ..Default::default() };
    let connections = world.connections().list_connections(request).await.unwrap().into_inner().connections;
    assert_eq!(i64::try_from(connections.len()).unwrap(), world.revision("acme").await);
}
