//! Several control planes on one PostgreSQL database, all at work: what is done at one holds at the others.

use std::path::Path;

use sluice_control_plane::{Clock, ControlPlane, Database, Error, Settings};
use sluice_proto::admin::v1 as admin;
use sluice_proto::sync::v1::command::Kind;
use sluice_proto::sync::v1::command_result::Outcome as Answer;
use sluice_proto::sync::v1::sync_request::Kind as Say;
use sluice_proto::sync::v1::{CaptureSample, CaptureSet, Outcome};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::commands::{answer, command};
use crate::outcomes::Reporter;
use crate::postgres::Postgres;
use crate::sync::DataPlane;
use crate::world::{ACME, RING, START, World, refusal, settings, within};

fn on_postgres(folder: &Path, clock: &Clock) -> Settings {
    let url = Postgres::database_of(folder);
    Settings { database: Database::Postgres(url.into()), ..settings(folder, clock) }
}

/// A control plane on a database of its own, with the workspace `workspaces/acme`.
pub(crate) async fn first() -> World {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("master.key"), RING).unwrap();
    let settings = on_postgres(folder.path(), &Clock::manual(START));
    let world = World::start_with(folder, settings).await;
    world.workspace("acme").await;
    world
}

/// Another one on its database.
pub(crate) async fn beside(world: &World) -> World {
    let settings = on_postgres(world.folder.path(), &world.clock);
    World::start_with(tempfile::tempdir().unwrap(), settings).await
}

pub(crate) async fn database(world: &World) -> PgPool {
    PgPool::connect(&Postgres::database_of(world.folder.path())).await.unwrap()
}

pub(crate) fn wait_served(world: &World) -> JoinHandle<admin::WaitServedResponse> {
    let mut client = world.configuration();
    let request = admin::WaitServedRequest { parent: ACME.to_owned(), ..Default::default() };
    tokio::spawn(async move { client.wait_served(request).await.unwrap().into_inner() })
}

/// The data planes that are connected, as this control plane lists them.
pub(crate) async fn connected(world: &World) -> Vec<String> {
    let request = admin::ListDataPlanesRequest::default();
    let listed = world.data_planes().list_data_planes(request).await.unwrap().into_inner().data_planes;
    listed.into_iter().filter(|plane| plane.connected).map(|plane| plane.name).collect()
}

pub(crate) async fn until_connected(world: &World, expected: &[&str]) {
    within(async {
        while connected(world).await != expected {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_publish_is_served_wherever_data_planes_are_connected_and_waited_for_anywhere() {
    let one = first().await;
    let two = beside(&one).await;
    let mut here = DataPlane::connect(&one, "dp-1", "", &[]).await;
    let mut there = DataPlane::connect(&two, "dp-2", "", &[]).await;
    assert_eq!(here.epoch, there.epoch);
    here.sync().await;
    there.sync().await;
    one.connection("crm", "s3cret").await;
    let (from_one, from_two) = (wait_served(&one), wait_served(&two));
    here.until(ACME, 1).await;
    there.until(ACME, 1).await;
    for told in [within(from_one).await.unwrap(), within(from_two).await.unwrap()] {
        assert!(told.served, "{told:?}");
        assert_eq!(told.serving, ["dataPlanes/dp-1", "dataPlanes/dp-2"]);
    }
    // What one publishes, the other goes on from.
    two.connection("erp", "s3cret").await;
    here.until(ACME, 2).await;
    let mut client = one.configuration();
    let short = Some(prost_types::Duration { seconds: 0, nanos: 1 });
    let request = admin::WaitServedRequest { parent: ACME.to_owned(), timeout: short, ..Default::default() };
    let told = client.wait_served(request).await.unwrap().into_inner();
    assert!(!told.served && told.not_serving.iter().any(|plane| plane.data_plane == "dataPlanes/dp-2"), "{told:?}");
    there.until(ACME, 2).await;
    assert!(within(wait_served(&one)).await.unwrap().served);
}

fn retry(world: &World) -> JoinHandle<Result<admin::Delivery, Status>> {
    let mut client = world.deliveries();
    let request = admin::RetryDeliveryRequest { name: format!("{ACME}/deliveries/d"), ..Default::default() };
    tokio::spawn(async move { Ok(client.retry_delivery(request).await?.into_inner()) })
}

#[tokio::test]
async fn a_command_reaches_a_data_plane_that_another_one_holds() {
    let one = first().await;
    let two = beside(&one).await;
    let name = format!("{ACME}/deliveries/d");
    let delivery = admin::Delivery { name, state: admin::DeliveryState::Waiting.into(), ..Default::default() };
    let outcome = Outcome { workspace: ACME.to_owned(), delivery: Some(delivery), order: 1, ..Default::default() };
    Reporter::connect(&one).await.report_as("dp-2", vec![outcome]).await;
    let mut plane = DataPlane::connect(&two, "dp-2", "", &[]).await;
    for message in ["first", "second"] {
        let asked = retry(&one);
        let told = command(&mut plane).await;
        assert!(matches!(told.kind, Some(Kind::Retry(_))));
        let delivery = admin::Delivery { message: message.to_owned(), ..Default::default() };
        answer(&plane, told.id, Answer::Delivery(delivery)).await;
        assert_eq!(within(asked).await.unwrap().unwrap().message, message);
    }
    // It goes away while it has a command: not known, and soon.
    let asked = retry(&one);
    command(&mut plane).await;
    drop(plane);
    let refused = within(asked).await.unwrap().unwrap_err();
    assert_eq!(refusal(&refused), (Code::Unavailable, "DATA_PLANE_UNAVAILABLE".to_owned()));
    until_connected(&one, &[]).await;
    let refused = within(retry(&one)).await.unwrap().unwrap_err();
    assert_eq!(refusal(&refused).1, "NO_DATA_PLANE");
    // It comes back, elsewhere.
    let mut plane = DataPlane::connect(&one, "dp-2", "", &[]).await;
    let asked = retry(&two);
    let told = command(&mut plane).await;
    answer(&plane, told.id, Answer::Delivery(admin::Delivery::default())).await;
    within(asked).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_capture_waits_at_every_data_plane_and_ends_at_all_of_them() {
    let one = first().await;
    let two = beside(&one).await;
    let integration = one.incoming_integration("orders").await;
    let mut here = DataPlane::connect(&one, "dp-1", "", &[]).await;
    let mut there = DataPlane::connect(&two, "dp-2", "", &[]).await;
    let mut captures = one.captures();
    let request = admin::StartCaptureRequest { parent: integration.name, ..Default::default() };
    let started = tokio::spawn(async move { captures.start_capture(request).await.unwrap().into_inner() });
    let mut id = String::new();
    for plane in [&mut here, &mut there] {
        let told = command(plane).await;
        let Some(Kind::OpenCapture(open)) = told.kind else { panic!("{:?}", told.kind) };
        id = open.capture_id;
        answer(plane, told.id, Answer::Capture(CaptureSet {})).await;
    }
    let capture = within(started).await.unwrap();
    let request = admin::WatchCaptureRequest { name: capture.name, uid: capture.uid };
    let mut watched = one.captures().watch_capture(request).await.unwrap().into_inner();
    assert!(within(watched.message()).await.unwrap().is_some());
    let envelope = r#"{"body":{"id":1},"businessProfileId":1,"endpointId":"e","eventId":"t","headers":{},"method":"POST","time":1}"#;
    let sample = CaptureSample { capture_id: id.clone(), workspace: ACME.to_owned(), envelope: envelope.into() };
    there.say(Say::Sample(sample)).await;
    for plane in [&mut here, &mut there] {
        let told = command(plane).await;
        assert!(matches!(&told.kind, Some(Kind::CloseCapture(close)) if close.capture_id == id), "{:?}", told.kind);
    }
    let taken = within(watched.message()).await.unwrap().unwrap().capture.unwrap();
    assert_eq!(taken.state(), admin::CaptureState::Taken);
    assert_eq!(taken.request.unwrap().data_plane, "dataPlanes/dp-2");
}

#[tokio::test]
async fn a_data_plane_that_goes_elsewhere_is_connected_once_and_its_old_stream_ends() {
    let one = first().await;
    let two = beside(&one).await;
    one.connection("crm", "s3cret").await;
    let mut old = DataPlane::connect(&one, "dp-1", "", &[]).await;
    old.sync().await;
    until_connected(&two, &["dataPlanes/dp-1"]).await;
    let (epoch, cursors) = (old.epoch.clone(), old.cursors());
    let mut new = DataPlane::connect(&two, "dp-1", &epoch, &cursors).await;
    new.held.clone_from(&old.held);
    assert!(new.sync().await.is_empty(), "it has everything");
    let ended = old.end().await.unwrap();
    assert_eq!(refusal(&ended).1, "STREAM_REPLACED");
    for world in [&one, &two] {
        until_connected(world, &["dataPlanes/dp-1"]).await;
        assert!(within(wait_served(world)).await.unwrap().served);
    }
    one.connection("erp", "s3cret").await;
    new.until(ACME, 2).await;
    // And back.
    let mut third = DataPlane::connect(&one, "dp-1", &epoch, &new.cursors()).await;
    third.sync().await;
    assert_eq!(refusal(&new.end().await.unwrap()).1, "STREAM_REPLACED");
    until_connected(&two, &["dataPlanes/dp-1"]).await;
}

#[tokio::test]
async fn one_that_ends_takes_its_data_planes_from_the_list_of_the_others() {
    let one = first().await;
    let two = beside(&one).await;
    let _here = DataPlane::connect(&one, "dp-1", "", &[]).await;
    let _there = DataPlane::connect(&two, "dp-2", "", &[]).await;
    until_connected(&one, &["dataPlanes/dp-1", "dataPlanes/dp-2"]).await;
    two.end().await;
    let there: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM replica").fetch_one(&database(&one).await).await.unwrap();
    assert_eq!(there, 1, "it says so itself: nobody has to wait until it is missed");
    until_connected(&one, &["dataPlanes/dp-1"]).await;
    let third = beside(&one).await;
    assert_eq!(connected(&third).await, ["dataPlanes/dp-1"], "one that starts knows what the others know");
}

#[tokio::test]
async fn a_key_that_is_deleted_at_one_is_refused_at_the_other_at_once() {
    let one = first().await;
    let two = beside(&one).await;
    let roles = vec![format!("{ACME}/roles/viewer")];
    let key = admin::AccessKey { display_name: "Shop".to_owned(), roles, ..Default::default() };
    let request = admin::CreateApiKeyRequest { parent: ACME.to_owned(), api_key: Some(key), ..Default::default() };
    let key = one.api_keys().create_api_key(request).await.unwrap().into_inner();
    let caller = two.caller(&key.key);
    let request = admin::GetWorkspaceRequest { name: ACME.to_owned() };
    caller.workspaces().get_workspace(request.clone()).await.unwrap();
    let delete = admin::DeleteApiKeyRequest { name: key.name, ..Default::default() };
    one.api_keys().delete_api_key(delete).await.unwrap();
    let refused = caller.workspaces().get_workspace(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
}

#[tokio::test]
async fn a_request_sent_again_to_another_one_gets_the_first_answer() {
    let one = first().await;
    let two = beside(&one).await;
    let workspace = admin::Workspace { display_name: "Other".to_owned(), ..Default::default() };
    let request = admin::CreateWorkspaceRequest {
        workspace_id: "other".to_owned(),
        workspace: Some(workspace),
        request_id: uuid::Uuid::new_v4().to_string(),
        ..Default::default()
    };
    let made = one.workspaces().create_workspace(request.clone()).await.unwrap().into_inner();
    assert_eq!(two.workspaces().create_workspace(request).await.unwrap().into_inner(), made);
}

#[tokio::test]
async fn all_of_it_comes_again_after_the_database_was_away_and_has_forgotten() {
    let one = first().await;
    let two = beside(&one).await;
    let pool = database(&one).await;
    let mut here = DataPlane::connect(&one, "dp-1", "", &[]).await;
    let mut there = DataPlane::connect(&two, "dp-2", "", &[]).await;
    here.sync().await;
    there.sync().await;
    // As a crash of the server leaves it: no connection, and nothing of the moment.
    sqlx::query("TRUNCATE replica, data_plane_part, letter").execute(&pool).await.unwrap();
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    sqlx::query(cut).execute(&pool).await.unwrap();
    let both = ["dataPlanes/dp-1", "dataPlanes/dp-2"];
    within(async {
        for world in [&one, &two] {
            let request = admin::ListDataPlanesRequest::default();
            loop {
                // A call that comes while it is away is refused.
                let Ok(listed) = world.data_planes().list_data_planes(request.clone()).await else { continue };
                let listed = listed.into_inner().data_planes;
                if listed.iter().filter(|plane| plane.connected).map(|plane| &plane.name).eq(both) {
                    break;
                }
            }
        }
    })
    .await;
    two.connection("crm", "s3cret").await;
    here.until(ACME, 1).await;
    there.until(ACME, 1).await;
    assert!(within(wait_served(&one)).await.unwrap().served);
}

/// Without a word from anybody, what is published is found by looking.
#[tokio::test]
async fn what_nobody_was_told_of_is_found() {
    let one = first().await;
    let two = beside(&one).await;
    let pool = database(&one).await;
    let mut there = DataPlane::connect(&two, "dp-2", "", &[]).await;
    there.sync().await;
    // Nobody hears anything from now on: whoever listens again is silenced, too.
    let deaf = tokio::spawn(async move {
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND application_name = 'sluice-listen'";
        loop {
            sqlx::query(cut).execute(&pool).await.unwrap();
        }
    });
    one.connection("crm", "s3cret").await;
    there.until(ACME, 1).await;
    assert!(within(wait_served(&one)).await.unwrap().served);
    deaf.abort();
}

/// The id of the backend that holds the claim.
pub(crate) async fn leader(pool: &PgPool) -> Option<i32> {
    let held = "SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted \
                AND application_name = 'sluice-claim' AND datname = current_database()";
    sqlx::query_scalar(held).fetch_optional(pool).await.unwrap()
}

/// How many wait for the claim.
pub(crate) async fn waiting_to_lead(pool: &PgPool) -> i64 {
    let waiting = "SELECT COUNT(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND NOT granted \
                   AND application_name = 'sluice-claim' AND datname = current_database()";
    sqlx::query_scalar(waiting).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn one_carries_out_operations_and_the_next_goes_on_when_it_ends() {
    let one = first().await;
    let two = beside(&one).await;
    let pool = database(&one).await;
    within(async { while leader(&pool).await.is_none() {} }).await;
    let rotated = async |world: &World| {
        let request = admin::RotateDataKeyRequest { name: ACME.to_owned(), ..Default::default() };
        let name = world.workspaces().rotate_data_key(request).await.unwrap().into_inner().operation;
        let mut client = world.operations();
        within(async {
            loop {
                let request = admin::GetOperationRequest { name: name.clone() };
                if client.get_operation(request).await.unwrap().into_inner().end_time.is_some() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    // Whichever does it: both can ask for it.
    rotated(&one).await;
    rotated(&two).await;
    // The connection that holds the claim is lost: one of them takes it again.
    let cut = "SELECT pg_terminate_backend($1)";
    sqlx::query(cut).bind(leader(&pool).await).execute(&pool).await.unwrap();
    rotated(&two).await;
    // Whoever has lost it stands in line again.
    within(async { while waiting_to_lead(&pool).await == 0 {} }).await;
    let (folder, _) = one.end().await;
    rotated(&two).await;
    drop(folder);
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_told_without_its_password() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("master.key"), RING).unwrap();
    let settings = settings(folder.path(), &Clock::manual(START));
    for url in [
        "postgres://sluice:hunter22@127.0.0.1:1/sluice",
        "postgres://sluice:hunter22@127.0.0.1:99999/x",
        "nonsense hunter22",
    ] {
        let settings = Settings { database: Database::Postgres(url.to_owned().into()), ..settings.clone() };
        assert!(!format!("{settings:?}").contains("hunter22"));
        let error = ControlPlane::start(settings).await.err().unwrap();
        assert!(matches!(error, Error::Store(_)) && !format!("{error} {error:?}").contains("hunter22"), "{error:?}");
    }
}
