//! Replays, played by scripted data planes that come and go.

use sluice_proto::admin::v1 as admin;
use sluice_proto::admin::v1::operation::{State, Work};
use sluice_proto::sync::v1::command::Kind;
use sluice_proto::sync::v1::command_error::Code as Refusal;
use sluice_proto::sync::v1::command_result::Outcome as Answer;
use sluice_proto::sync::v1::{AcceptedRequest, Command, Outcome, ReplayJobs, ReplayedJobs};

use crate::commands::{answer, command};
use crate::outcomes::Reporter;
use crate::sync::DataPlane;
use crate::world::{ACME, World, within};

/// A world with a published workflow and two dead deliveries of it.
async fn with_dead() -> World {
    let world = World::new().await;
    record_dead(&world, &["a", "b"]).await;
    world
}

/// Publishes a workflow and records these deliveries of it as dead.
pub(crate) async fn record_dead(world: &World, ids: &[&str]) {
    let connection = world.connection("crm", "s3cret").await.name;
    let incoming = world.incoming_integration("shop").await.name;
    world.publish_incoming(&incoming).await.unwrap();
    let outgoing = world.outgoing_integration("send", &connection).await.name;
    world.publish_outgoing(&outgoing).await.unwrap();
    let workflow = world.workflow("orders", &incoming, &outgoing).await;
    world.publish_workflow(&workflow.name).await.unwrap();
    let dead = |id: &str| {
        let delivery = admin::Delivery {
            name: format!("{ACME}/deliveries/{id}"),
            state: admin::DeliveryState::Dead.into(),
            trigger_id: format!("t-{id}"),
            workflow: workflow.name.clone(),
            step_id: workflow.steps[0].step_id.clone(),
            ..Default::default()
        };
        let request = admin::IncomingRequest { name: format!("{ACME}/incomingRequests/t-{id}"), ..Default::default() };
        let accepted = AcceptedRequest { request: Some(request), envelope: format!("envelope of {id}").into() };
        Outcome {
            workspace: ACME.to_owned(),
            delivery: Some(delivery),
            order: 1,
            request: Some(accepted),
            ..Default::default()
        }
    };
    Reporter::connect(world).await.report(ids.iter().map(|id| dead(id)).collect()).await;
}

/// Has all that are dead delivered again.
pub(crate) async fn start(world: &World) -> String {
    let filter = admin::DeliveryFilter { states: vec![admin::DeliveryState::Dead.into()], ..Default::default() };
    let request =
        admin::ReplayDeliveriesRequest { parent: ACME.to_owned(), filter: Some(filter), ..Default::default() };
    let started = world.deliveries().replay_deliveries(request).await.unwrap().into_inner();
    assert!(started.plan.unwrap().count >= 2);
    started.operation
}

/// How it ended: how many were enqueued, how many could not be.
pub(crate) async fn ended(world: &World, name: &str) -> (State, i64, i64) {
    let request = admin::WatchOperationRequest { name: name.to_owned() };
    let mut watched = world.operations().watch_operation(request).await.unwrap().into_inner();
    let mut last = None;
    while let Some(operation) = within(watched.message()).await.unwrap() {
        last = Some(operation);
    }
    let last = last.unwrap();
    let Some(Work::Replay(replay)) = &last.work else { panic!("no replay") };
    (last.state(), replay.done, replay.failed)
}

/// Connects and serves everything.
async fn connect(world: &World, id: &str) -> DataPlane {
    let mut plane = DataPlane::connect(world, id, "", &[]).await;
    plane.sync().await;
    plane
}

/// The next step that a data plane is to do.
pub(crate) async fn asked(plane: &mut DataPlane) -> (u64, ReplayJobs) {
    let Command { id, kind: Some(Kind::Replay(jobs)) } = command(plane).await else { panic!("no replay") };
    (id, jobs)
}

pub(crate) fn codes(codes: &[Refusal]) -> Answer {
    Answer::Replayed(ReplayedJobs { codes: codes.iter().map(|code| i32::from(*code)).collect() })
}

#[tokio::test]
async fn a_step_whose_answer_was_lost_is_asked_again_of_the_same_data_plane() {
    let world = with_dead().await;
    let mut first = connect(&world, "dp-2").await;
    let name = start(&world).await;
    let (_, jobs) = asked(&mut first).await;
    assert_eq!((jobs.workspace.as_str(), jobs.operation.as_str(), jobs.jobs.len()), (ACME, name.as_str(), 2));
    assert_eq!(jobs.jobs[0].envelope, "envelope of a");
    // It may have been done there. Another data plane that is there all the time is not asked, whoever restarts.
    drop(first);
    let mut other = connect(&world, "dp-1").await;
    let mut first = connect(&world, "dp-2").await;
    let (id, again) = asked(&mut first).await;
    assert_eq!(again, jobs);
    answer(&first, id, codes(&[Refusal::Unspecified, Refusal::StepRemoved])).await;
    assert_eq!(ended(&world, &name).await, (State::Succeeded, 1, 1));
    drop(first);
    // What is not in doubt goes to whoever is there.
    let next = start(&world).await;
    let (id, jobs) = asked(&mut other).await;
    assert_eq!(jobs.operation, next, "and this is the first it hears");
    answer(&other, id, codes(&[Refusal::Unspecified; 2])).await;
    assert_eq!(ended(&world, &next).await, (State::Succeeded, 2, 0));
}

#[tokio::test]
async fn a_step_is_asked_again_after_a_restart_and_when_there_is_no_room() {
    let world = with_dead().await;
    let mut plane = connect(&world, "dp-1").await;
    let name = start(&world).await;
    let (id, jobs) = asked(&mut plane).await;
    answer(&plane, id, codes(&[Refusal::Unspecified, Refusal::Unavailable])).await;
    let (_, again) = asked(&mut plane).await;
    assert_eq!(again, jobs, "all of it: what was enqueued is known there");
    drop(plane);
    let world = world.restart().await;
    let mut plane = connect(&world, "dp-1").await;
    let (id, again) = asked(&mut plane).await;
    assert_eq!(again, jobs);
    answer(&plane, id, codes(&[Refusal::Unspecified; 2])).await;
    assert_eq!(ended(&world, &name).await, (State::Succeeded, 2, 0));
}
