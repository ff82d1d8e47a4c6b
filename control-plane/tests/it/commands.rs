//! Commands, played by a scripted data plane that may go away, say no, or know nothing of it.

use sluice_proto::admin::v1 as admin;
use sluice_proto::sync::v1::command::Kind;
use sluice_proto::sync::v1::command_error::Code as Refusal;
use sluice_proto::sync::v1::command_result::Outcome as Answer;
use sluice_proto::sync::v1::sync_request::Kind as Say;
use sluice_proto::sync::v1::sync_response::Kind as Hear;
use sluice_proto::sync::v1::{Command, CommandError, CommandResult, Outcome};
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::outcomes::Reporter;
use crate::sync::DataPlane;
use crate::world::{ACME, World, refusal, violations, within};

const NAME: &str = "workspaces/acme/deliveries/d";

/// A delivery that waits at the data plane with this id.
async fn waiting(world: &World, plane: &str) {
    let delivery =
        admin::Delivery { name: NAME.to_owned(), state: admin::DeliveryState::Waiting.into(), ..Default::default() };
    let outcome = Outcome { workspace: ACME.to_owned(), delivery: Some(delivery), order: 1, ..Default::default() };
    Reporter::connect(world).await.report_as(plane, vec![outcome]).await;
}

fn retry(world: &World) -> JoinHandle<Result<admin::Delivery, Status>> {
    let mut client = world.deliveries();
    let request = admin::RetryDeliveryRequest { name: NAME.to_owned(), ..Default::default() };
    tokio::spawn(async move { Ok(client.retry_delivery(request).await?.into_inner()) })
}

/// The next command, past everything else.
pub(crate) async fn command(plane: &mut DataPlane) -> Command {
    loop {
        if let Hear::Command(command) = plane.hear().await {
            return command;
        }
    }
}

pub(crate) async fn answer(plane: &DataPlane, id: u64, outcome: Answer) {
    plane.say(Say::Result(CommandResult { id, outcome: Some(outcome) })).await;
}

/// A data plane that connects while something is to be done hears first whom it hears; `connect` would fail.
#[tokio::test]
async fn the_welcome_comes_before_every_command() {
    let world = World::new().await;
    let integration = world.incoming_integration("orders").await;
    let mut first = DataPlane::connect(&world, "dp-1", "", &[]).await;
    let request = admin::StartCaptureRequest { parent: integration.name, ..Default::default() };
    let mut captures = world.captures();
    tokio::spawn(async move { captures.start_capture(request).await });
    assert!(matches!(command(&mut first).await.kind, Some(Kind::OpenCapture(_))));
    drop(first);
    let mut again = DataPlane::connect(&world, "dp-1", "", &[]).await;
    assert!(matches!(command(&mut again).await.kind, Some(Kind::OpenCapture(_))));
}

#[tokio::test]
async fn a_command_goes_to_the_data_plane_that_works_on_it_and_its_answer_comes_back() {
    let world = World::new().await;
    waiting(&world, "dp-1").await;
    let mut other = DataPlane::connect(&world, "dp-2", "", &[]).await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    let (first, second) = (retry(&world), retry(&world));
    let (one, two) = (command(&mut plane).await, command(&mut plane).await);
    assert!(matches!(&one.kind, Some(Kind::Retry(retry)) if retry.delivery == NAME));
    assert_ne!(one.id, two.id);
    // In any order, and what nobody asked for is nobody's.
    for id in [two.id, 4711, one.id] {
        let message = format!("{id}");
        answer(&plane, id, Answer::Delivery(admin::Delivery { message, ..Default::default() })).await;
    }
    let mut messages = Vec::new();
    for call in [first, second] {
        let steered = within(call).await.unwrap().unwrap();
        assert_eq!(steered.data_plane, "dp-1");
        messages.push(steered.message);
    }
    messages.sort();
    assert_eq!(messages, [one.id.to_string(), two.id.to_string()]);
    assert!(matches!(other.hear().await, Hear::Synced(_)), "nothing else was said to the other");
}

#[tokio::test]
async fn a_data_plane_that_goes_away_leaves_it_unknown_and_it_can_be_asked_again() {
    let world = World::new().await;
    waiting(&world, "dp-1").await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    let call = retry(&world);
    command(&mut plane).await;
    drop(plane);
    let away = (Code::Unavailable, "DATA_PLANE_UNAVAILABLE".to_owned());
    assert_eq!(refusal(&within(call).await.unwrap().unwrap_err()), away);

    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    let call = retry(&world);
    command(&mut plane).await;
    let _next = DataPlane::connect(&world, "dp-1", "", &[]).await;
    assert_eq!(refusal(&within(call).await.unwrap().unwrap_err()), away, "another stream took over");
}

#[tokio::test]
async fn every_refusal_of_a_data_plane_is_one_of_the_call() {
    let world = World::new().await;
    waiting(&world, "dp-1").await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    let table = [
        (Refusal::JobNotKept, Code::FailedPrecondition, "DELIVERY_NOT_KEPT"),
        (Refusal::JobInWork, Code::FailedPrecondition, "DELIVERY_IN_WORK"),
        (Refusal::JobEnded, Code::FailedPrecondition, "DELIVERY_ENDED"),
        (Refusal::WorkspaceNotServed, Code::FailedPrecondition, "NO_DATA_PLANE"),
        (Refusal::DraftInvalid, Code::InvalidArgument, "FIELDS_INVALID"),
        (Refusal::UnknownCommand, Code::FailedPrecondition, "DATA_PLANE_TOO_OLD"),
        (Refusal::Unavailable, Code::Unavailable, "DATA_PLANE_UNAVAILABLE"),
    ];
    for (refused, code, reason) in table {
        let call = retry(&world);
        let asked = command(&mut plane).await;
        let error = CommandError { code: refused.into(), ..Default::default() };
        answer(&plane, asked.id, Answer::Error(error)).await;
        assert_eq!(refusal(&within(call).await.unwrap().unwrap_err()), (code, reason.to_owned()));
    }
}

#[tokio::test]
async fn a_draft_that_a_data_plane_refuses_is_told_with_its_field() {
    let world = World::new().await;
    let integration = world.incoming_integration("orders").await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    let request = admin::StartCaptureRequest { parent: integration.name.clone(), ..Default::default() };
    let mut captures = world.captures();
    let call = tokio::spawn(async move { captures.start_capture(request).await });
    let asked = command(&mut plane).await;
    let problem = admin::Problem {
        resource: integration.name.clone(),
        field: "meta.app_secret".to_owned(),
        reason: "SECRET_UNREADABLE".to_owned(),
        message: "cannot be opened".to_owned(),
        ..Default::default()
    };
    let error = CommandError { code: Refusal::DraftInvalid.into(), problems: vec![problem], ..Default::default() };
    answer(&plane, asked.id, Answer::Error(error)).await;
    let refused = within(call).await.unwrap().unwrap_err();
    assert_eq!(refusal(&refused), (Code::InvalidArgument, "FIELDS_INVALID".to_owned()));
    assert_eq!(violations(&refused), [("meta.app_secret".to_owned(), "REFUSED_BY_DATA_PLANE".to_owned())]);
    let told = refused.message();
    assert!(told.contains(&integration.name) && told.contains("dp-1") && told.contains("cannot be opened"), "{told}");
}

#[tokio::test]
async fn without_a_data_plane_that_can_do_it_the_call_says_so() {
    let world = World::new().await;
    let missing = world
        .deliveries()
        .retry_delivery(admin::RetryDeliveryRequest { name: NAME.to_owned(), ..Default::default() })
        .await;
    assert_eq!(missing.unwrap_err().code(), Code::NotFound);
    waiting(&world, "old").await;
    let away = (Code::FailedPrecondition, "NO_DATA_PLANE".to_owned());
    assert_eq!(refusal(&within(retry(&world)).await.unwrap().unwrap_err()), away);
    // A release that says nothing of commands is sent none: it would end its stream over one.
    let _old = DataPlane::connect(&world, "old", "", &[]).await;
    let old = (Code::FailedPrecondition, "DATA_PLANE_TOO_OLD".to_owned());
    assert_eq!(refusal(&within(retry(&world)).await.unwrap().unwrap_err()), old);
}
