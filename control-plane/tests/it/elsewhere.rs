//! What is asked of one control plane and concerns a data plane that another one holds: it makes no difference to who asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sluice_control_plane::{Clock, Database, Settings};
use sluice_proto::admin::v1 as admin;
use sluice_proto::admin::v1::operation::State;
use sluice_proto::admin::v1::test_target::Kind as Target;
use sluice_proto::sync::v1::command::Kind;
use sluice_proto::sync::v1::command_error::Code as Refusal;
use sluice_proto::sync::v1::command_result::Outcome as Answer;
use sluice_proto::sync::v1::taken_event::State as Taken;
use sluice_proto::sync::v1::{DrainPlane, DrainedPlane, Outcome, TakenEvent, TakenEvents, TestedRequest};
use sqlx::postgres::PgListener;
use tokio::task::JoinHandle;
use tonic::{Code, Response, Status};

use crate::commands::{answer, command};
use crate::outcomes::Reporter;
use crate::postgres::{Mode, Postgres};
use crate::replay::{asked, codes, ended, record_dead, start};
use crate::replicas::{beside, connected, database, first, leader, wait_served, waiting_to_lead};
use crate::sync::DataPlane;
use crate::world::{ACME, RING, START, World, outgoing, refusal, settings, within};

/// Makes a call beside what goes on.
fn call<A: Send + 'static>(
    call: impl Future<Output = Result<Response<A>, Status>> + Send + 'static,
) -> JoinHandle<Result<A, Status>> {
    tokio::spawn(async move { call.await.map(Response::into_inner) })
}

/// Two control planes, and the data plane `dp-2` that the second one holds and that serves what is published.
async fn pair() -> (World, World, DataPlane) {
    let one = first().await;
    let two = beside(&one).await;
    one.connection("crm", "s3cret").await;
    let mut plane = DataPlane::connect(&two, "dp-2", "", &[]).await;
    plane.sync().await;
    assert!(within(wait_served(&one)).await.unwrap().served);
    (one, two, plane)
}

fn delivered(id: &str) -> Outcome {
    let name = format!("{ACME}/deliveries/{id}");
    let state = admin::DeliveryState::Delivered.into();
    let event = admin::Event { name: format!("{ACME}/events/{id}"), delivery: name.clone(), ..Default::default() };
    let delivery = Some(admin::Delivery { name, state, ..Default::default() });
    Outcome { workspace: ACME.to_owned(), delivery, event: Some(event), ..Default::default() }
}

fn taken(states: &[Taken]) -> Answer {
    let event = |state: &Taken| TakenEvent { state: (*state).into(), workflows: 1, deliveries: 2 };
    Answer::Taken(TakenEvents { events: states.iter().map(event).collect() })
}

#[tokio::test]
async fn an_event_is_kept_by_a_data_plane_that_another_one_holds() {
    let (one, _two, mut plane) = pair().await;
    for (state, expected) in [(Taken::Accepted, (false, 2)), (Taken::Duplicate, (true, 2))] {
        let mut events = one.events();
        let request = admin::SubmitEventRequest {
            parent: ACME.to_owned(),
            action: "form.submit".to_owned(),
            event_id: "e-1".to_owned(),
            ..Default::default()
        };
        let submitted = call(async move { events.submit_event(request).await });
        let told = command(&mut plane).await;
        let Some(Kind::SubmitEvents(asked)) = told.kind else { panic!("{:?}", told.kind) };
        assert_eq!(asked.events[0].submitted.as_ref().unwrap().id, "e-1");
        answer(&plane, told.id, taken(&[state])).await;
        let submitted = within(submitted).await.unwrap().unwrap();
        assert_eq!((submitted.duplicate, submitted.deliveries), expected);
    }
}

#[tokio::test]
async fn members_of_an_audience_are_kept_by_a_data_plane_that_another_one_holds() {
    let (one, _two, mut plane) = pair().await;
    let outgoing = one.outgoing_integration("send", &format!("{ACME}/connections/crm")).await.name;
    one.publish_outgoing(&outgoing).await.unwrap();
    let mut workflow = crate::world::workflow("", &outgoing);
    workflow.triggers = vec![admin::Trigger { audience: Some(admin::AudienceTrigger {}), ..Default::default() }];
    let request = admin::CreateWorkflowRequest {
        parent: ACME.to_owned(),
        workflow_id: "segment".to_owned(),
        workflow: Some(workflow),
        ..Default::default()
    };
    let workflow = one.workflows().create_workflow(request).await.unwrap().into_inner().name;
    one.publish_workflow(&workflow).await.unwrap();
    let item = |id: &str| admin::BatchItem { id: id.to_owned(), ..Default::default() };
    let request = admin::SubmitBatchRequest {
        name: workflow.clone(),
        items: vec![item("m-1"), item("m-2")],
        ..Default::default()
    };
    let mut events = one.events();
    let submitted = call(async move { events.submit_batch(tokio_stream::once(request)).await });
    let told = command(&mut plane).await;
    let Some(Kind::SubmitEvents(asked)) = told.kind else { panic!("{:?}", told.kind) };
    assert_eq!((asked.workflow, asked.events.len()), (workflow, 2));
    answer(&plane, told.id, taken(&[Taken::Accepted, Taken::Duplicate])).await;
    let mut answers = within(submitted).await.unwrap().unwrap();
    let mut states = Vec::new();
    while let Some(answer) = within(answers.message()).await.unwrap() {
        states.extend(answer.results.iter().map(|result| (result.id.clone(), result.state())));
    }
    use admin::batch_item_result::State::{Accepted, Duplicate};
    assert_eq!(states, [("m-1".to_owned(), Accepted), ("m-2".to_owned(), Duplicate)]);
}

#[tokio::test]
async fn a_request_is_tested_by_a_data_plane_that_another_one_holds() {
    let (one, _two, mut plane) = pair().await;
    let request = admin::OutgoingRequest { body: None, ..outgoing("").request.unwrap() };
    let target = admin::TestTarget { kind: Some(Target::Request(request)), ..Default::default() };
    let request = admin::SendTestRequestRequest { parent: ACME.to_owned(), target: Some(target), ..Default::default() };
    let mut outgoing = one.tests();
    let tested = call(async move { outgoing.send_test_request(request).await });
    let told = command(&mut plane).await;
    let Some(Kind::TestRequest(asked)) = told.kind else { panic!("{:?}", told.kind) };
    assert!(asked.send && asked.workspace == ACME);
    let outcome = Some(admin::TestOutcome { status: 204, ..Default::default() });
    answer(&plane, told.id, Answer::TestedRequest(TestedRequest { outcome, ..Default::default() })).await;
    let tested = within(tested).await.unwrap().unwrap();
    assert_eq!((tested.data_plane.as_str(), tested.outcome.unwrap().status), ("dataPlanes/dp-2", 204));
}

#[tokio::test]
async fn a_replay_is_done_by_a_data_plane_that_another_one_holds_and_watched_anywhere() {
    let one = first().await;
    let two = beside(&one).await;
    record_dead(&two, &["a", "b"]).await;
    let mut plane = DataPlane::connect(&two, "dp-2", "", &[]).await;
    plane.sync().await;
    assert!(within(wait_served(&one)).await.unwrap().served);
    for (started_at, watched_at) in [(&one, &two), (&two, &one)] {
        let name = start(started_at).await;
        let (id, jobs) = asked(&mut plane).await;
        assert_eq!((&jobs.operation, jobs.jobs.len()), (&name, 2));
        answer(&plane, id, codes(&[Refusal::Unspecified; 2])).await;
        assert_eq!(ended(watched_at, &name).await, (State::Succeeded, 2, 0));
    }
}

/// Two lead for a moment when the connection that holds the claim is lost. What the first one was at is done by the second one, and what
/// the first one hears of it later changes nothing.
#[tokio::test]
async fn a_step_of_one_that_leads_no_more_counts_for_nothing() {
    let one = first().await;
    let pool = database(&one).await;
    within(async { while leader(&pool).await.is_none() {} }).await;
    let ids: Vec<String> = (0..60).map(|number| format!("d-{number:02}")).collect();
    record_dead(&one, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut plane = DataPlane::connect(&one, "dp-1", "", &[]).await;
    plane.sync().await;
    let two = beside(&one).await;
    within(async { while waiting_to_lead(&pool).await == 0 {} }).await;
    let name = start(&one).await;
    let (late, jobs) = asked(&mut plane).await;
    assert_eq!(jobs.jobs.len(), 50, "one step of two");
    let held_by = leader(&pool).await;
    sqlx::query("SELECT pg_terminate_backend($1)").bind(held_by).execute(&pool).await.unwrap();
    // The second one begins where the first one is: with the same data plane, which knows what it has.
    let (id, again) = asked(&mut plane).await;
    assert_eq!(again, jobs);
    answer(&plane, id, codes(&[Refusal::Unspecified; 50])).await;
    let (id, rest) = asked(&mut plane).await;
    assert_eq!(rest.jobs.len(), 10);
    answer(&plane, id, codes(&[Refusal::Unspecified; 10])).await;
    assert_eq!(ended(&two, &name).await, (State::Succeeded, 60, 0));
    answer(&plane, late, codes(&[Refusal::Unspecified; 50])).await;
    // The first one hears it some time now.
    for _ in 0..100 {
        assert_eq!(ended(&one, &name).await, (State::Succeeded, 60, 0));
    }
}

async fn draining(world: &World) -> Vec<String> {
    let request = admin::ListDataPlanesRequest { filter: "draining = true".to_owned(), ..Default::default() };
    let listed = world.data_planes().list_data_planes(request).await.unwrap().into_inner().data_planes;
    listed.into_iter().map(|plane| plane.name).collect()
}

fn event() -> admin::SubmitEventRequest {
    admin::SubmitEventRequest { parent: ACME.to_owned(), action: "form.submit".to_owned(), ..Default::default() }
}

#[tokio::test]
async fn a_data_plane_is_drained_and_resumed_at_any_and_all_know_it() {
    let (one, two, mut plane) = pair().await;
    let name = || "dataPlanes/dp-2".to_owned();
    let only_tried = admin::DrainDataPlaneRequest { name: name(), validate_only: true, ..Default::default() };
    one.data_planes().drain_data_plane(only_tried).await.unwrap();
    for (asked_at, others) in [(&one, &two), (&two, &one)] {
        let mut planes = asked_at.data_planes();
        let request = admin::DrainDataPlaneRequest { name: name(), ..Default::default() };
        let drained = call(async move { planes.drain_data_plane(request).await });
        let told = command(&mut plane).await;
        assert!(matches!(&told.kind, Some(Kind::Drain(DrainPlane { resume: false, grace: Some(_) }))));
        let done = DrainedPlane { refuses_triggers: true, jobs: 0, reports: 0 };
        answer(&plane, told.id, Answer::Drained(done)).await;
        assert!(within(drained).await.unwrap().unwrap().drained);
        let third = beside(&one).await;
        for world in [asked_at, others, &third] {
            assert_eq!(draining(world).await, [name()]);
            let refused = world.events().submit_event(event()).await.unwrap_err();
            assert_eq!(refusal(&refused), (Code::FailedPrecondition, "NO_DATA_PLANE".to_owned()));
        }
        third.end().await;

        let mut planes = others.data_planes();
        let request = admin::ResumeDataPlaneRequest { name: name(), ..Default::default() };
        let resumed = call(async move { planes.resume_data_plane(request).await });
        let told = command(&mut plane).await;
        assert!(matches!(&told.kind, Some(Kind::Drain(DrainPlane { resume: true, .. }))));
        answer(&plane, told.id, Answer::Drained(DrainedPlane::default())).await;
        within(resumed).await.unwrap().unwrap();
        for world in [asked_at, others] {
            assert!(draining(world).await.is_empty());
            let mut events = world.events();
            let submitted = call(async move { events.submit_event(event()).await });
            let told = command(&mut plane).await;
            answer(&plane, told.id, taken(&[Taken::Accepted])).await;
            within(submitted).await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn a_data_plane_that_is_deleted_at_one_is_let_go_where_it_is_connected() {
    let (one, two, plane) = pair().await;
    // As one that has joined with a certificate.
    let joined = "INSERT INTO enrolled (id, enrolment, workspaces, enroll_time, renew_time, expire_time) \
                  VALUES ('dp-2', ''::bytea, 'workspaces/-', 1, 1, 1)";
    sqlx::query(joined).execute(&database(&one).await).await.unwrap();
    let request = admin::DeleteDataPlaneRequest { name: "dataPlanes/dp-2".to_owned(), ..Default::default() };
    one.data_planes().delete_data_plane(request).await.unwrap();
    let ended = plane.end().await.unwrap();
    assert_eq!(refusal(&ended).1, "CERTIFICATE_INVALID", "{ended:?}");
    for world in [&one, &two] {
        let listed = world.data_planes().list_data_planes(admin::ListDataPlanesRequest::default()).await.unwrap();
        assert!(listed.into_inner().data_planes.is_empty());
    }
}

#[tokio::test]
async fn what_is_reported_at_one_is_told_to_who_watches_at_the_other() {
    let one = first().await;
    let two = beside(&one).await;
    let request = admin::WatchEventsRequest { parent: ACME.to_owned(), ..Default::default() };
    let mut watched = within(two.events().watch_events(request)).await.unwrap().into_inner();
    let mut reporter = Reporter::connect(&one).await;
    for id in ["d-1", "d-2"] {
        reporter.report_as("dp-1", vec![delivered(id)]).await;
        let event = within(watched.message()).await.unwrap().unwrap();
        assert_eq!(event.name, format!("{ACME}/events/{id}"));
    }
}

/// Whoever waits looks by himself now and then. Here it is heard that he need not.
#[tokio::test]
async fn each_change_wakes_the_others() {
    let one = first().await;
    let mut heard = PgListener::connect_with(&database(&one).await).await.unwrap();
    heard.listen("sluice").await.unwrap();
    let mut until = async |topic: &str| {
        within(async {
            let said = |word: &str| word.split_once(' ').map(|(said, _)| said == topic);
            while said(heard.recv().await.unwrap().payload()) != Some(true) {}
        })
        .await;
    };
    one.connection("crm", "s3cret").await;
    until("revisions").await;
    Reporter::connect(&one).await.report_as("dp-1", vec![delivered("d")]).await;
    until("outcomes").await;
    let request = admin::RotateDataKeyRequest { name: ACME.to_owned(), ..Default::default() };
    one.workspaces().rotate_data_key(request).await.unwrap();
    until("operations").await;
    let _plane = DataPlane::connect(&one, "dp-1", "", &[]).await;
    until("replicas").await;
    let integration = one.incoming_integration("orders").await.name;
    let mut captures = one.captures();
    let request = admin::StartCaptureRequest { parent: integration, ..Default::default() };
    let _started = call(async move { captures.start_capture(request).await });
    until("captures").await;
}

/// Its data planes notice nothing, calls are refused as long as it is away and never answered wrongly, and then everything goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_restarted_is_away_for_a_moment() {
    let server = tokio::task::block_in_place(Postgres::start);
    let database = Database::Postgres(server.database("sluice").into());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("master.key"), RING).unwrap();
    let clock = Clock::manual(START);
    let settings = Settings { database, ..settings(folder.path(), &clock) };
    let one = World::start_with(folder, settings.clone()).await;
    let two = World::start_with(tempfile::tempdir().unwrap(), settings).await;
    one.workspace("acme").await;
    let mut here = DataPlane::connect(&one, "dp-1", "", &[]).await;
    let mut there = DataPlane::connect(&two, "dp-2", "", &[]).await;
    here.sync().await;
    there.sync().await;
    for (mode, id) in [(Mode::Fast, "first"), (Mode::Immediate, "second")] {
        let is_back = Arc::<AtomicBool>::default();
        let asking = tokio::spawn({
            let (mut workspaces, is_back) = (two.workspaces(), is_back.clone());
            async move {
                let mut answers = Vec::new();
                while !is_back.load(Ordering::SeqCst) || answers.last() != Some(&Ok(())) {
                    let request = admin::GetWorkspaceRequest { name: ACME.to_owned() };
                    let answer = workspaces.get_workspace(request).await.map(drop).map_err(|status| status.code());
                    answers.push(answer);
                }
                answers
            }
        });
        tokio::task::block_in_place(|| server.restart(mode));
        is_back.store(true, Ordering::SeqCst);
        let answers = within(asking).await.unwrap();
        let is_meant = |answer: &Result<(), Code>| matches!(answer, Ok(()) | Err(Code::Unavailable));
        assert!(answers.iter().all(is_meant), "{answers:?}");
        until_connected_again(&one, &two).await;
        let revision = one.revision("acme").await + 1;
        one.connection(id, "s3cret").await;
        here.until(ACME, revision).await;
        there.until(ACME, revision).await;
        assert!(within(wait_served(&two)).await.unwrap().served);
    }
    tokio::task::block_in_place(|| server.stop());
}

/// Each knows the data plane of the other, and makes changes.
async fn until_connected_again(one: &World, two: &World) {
    let both = ["dataPlanes/dp-1", "dataPlanes/dp-2"];
    within(async {
        for world in [one, two] {
            while connected(world).await != both {
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
}
