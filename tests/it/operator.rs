//! What an operator does about deliveries: tried now, tried once more, ended.

use std::time::Duration;

use serde_json::json;
use sluice::destination::{Answer, Gate};
use sluice_client::admin::DeliveryState::{Cancelled, Dead, Delivered, Waiting};
use sluice_client::admin::failure::Reason;
use sluice_client::admin::{self, OutgoingRequest, RetryPolicy};
use sluice_data_plane::settings::WorkerSettings;
use sluice_tests::resources::{oauth2, post};
use sluice_tests::{World, eventually, reason};
use tonic::{Code, Status};

/// A world with one delivery, after the answers it got.
async fn after(answers: impl IntoIterator<Item = Answer>, attempts_max: i32) -> (World, admin::Delivery) {
    let world = World::start().await;
    let retry = Some(RetryPolicy { attempts_max, ..Default::default() });
    let request =
        OutgoingRequest { retry, ..post("https://api.example.com/orders", r#"{"id":{{ request.body.id }}}"#) };
    let incoming = world.acme.flow("orders", request).await;
    world.served().await;
    world.destination.script(answers);
    assert_eq!(world.trigger(&incoming, &json!({"id": 7})).await.status, 200);
    let delivery = world.acme.deliveries_in(1, &[Waiting, Dead]).await.remove(0);
    (world, delivery)
}

/// Nothing follows for an hour.
fn later() -> Answer {
    // Not 503: that would hold everything else for the destination back too (D10).
    Answer::status(500).header("Retry-After", "3600")
}

async fn retry(world: &World, delivery: &admin::Delivery) -> Result<admin::Delivery, Status> {
    let request = admin::RetryDeliveryRequest { name: delivery.name.clone(), ..Default::default() };
    Ok(world.client.deliveries().retry_delivery(request).await?.into_inner())
}

async fn cancel(world: &World, delivery: &admin::Delivery) -> Result<admin::Delivery, Status> {
    let request = admin::CancelDeliveryRequest { name: delivery.name.clone(), ..Default::default() };
    Ok(world.client.deliveries().cancel_delivery(request).await?.into_inner())
}

/// The delivery when it has this state and so many attempts.
async fn when(
    world: &World,
    delivery: &admin::Delivery,
    state: admin::DeliveryState,
    attempts: usize,
) -> admin::Delivery {
    eventually(&format!("{state:?} after {attempts} attempts"), || async {
        let request = admin::GetDeliveryRequest { name: delivery.name.clone() };
        let now = world.client.deliveries().get_delivery(request).await.unwrap().into_inner();
        (now.state() == state && now.attempts.len() == attempts).then_some(now)
    })
    .await
}

fn refused(result: Result<admin::Delivery, Status>) -> (Code, String) {
    let status = result.unwrap_err();
    (status.code(), reason(&status))
}

#[tokio::test]
async fn a_waiting_delivery_is_tried_now_as_it_was() {
    let (world, waiting) = after([later(), Answer::status(200)], 8).await;
    assert!(waiting.next_attempt_time.unwrap().seconds - waiting.accept_time.unwrap().seconds >= 3600);
    let steered = retry(&world, &waiting).await.unwrap();
    assert_eq!((steered.state(), steered.data_plane.as_str()), (Waiting, "test"));
    let seen = world.destination.wait_for(2).await.unwrap();
    assert_eq!((&seen[1].body, seen[1].header("idempotency-key")), (&seen[0].body, seen[0].header("idempotency-key")));
    let ended = when(&world, &waiting, Delivered, 2).await;
    let statuses: Vec<_> = ended.attempts.iter().map(|attempt| (attempt.number, attempt.status)).collect();
    assert_eq!(statuses, [(1, 500), (2, 200)]);
    assert_eq!(refused(retry(&world, &waiting).await), (Code::FailedPrecondition, "DELIVERY_ENDED".to_owned()));
    assert_eq!(refused(cancel(&world, &waiting).await), (Code::FailedPrecondition, "DELIVERY_ENDED".to_owned()));
    assert_eq!(world.acme.events(1).await.len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn a_dead_delivery_lives_again_attempt_by_attempt_and_keeps_one_event() {
    let (world, dead) = after([Answer::status(500), Answer::status(400), Answer::status(204)], 1).await;
    assert_eq!((dead.state(), dead.reason()), (Dead, Reason::Status));
    let first = world.acme.events(1).await.remove(0);
    assert_eq!(first.params["status"], json!(500));
    assert_eq!(retry(&world, &dead).await.unwrap().state(), Waiting);
    let again = when(&world, &dead, Dead, 2).await;
    retry(&world, &again).await.unwrap();
    let ended = when(&world, &dead, Delivered, 3).await;
    let statuses: Vec<_> = ended.attempts.iter().map(|attempt| (attempt.number, attempt.status)).collect();
    assert_eq!(statuses, [(1, 500), (2, 400), (3, 204)]);
    let seen = world.destination.requests();
    assert!(seen.iter().all(|one| one.header("idempotency-key") == seen[0].header("idempotency-key")));
    assert!(seen.iter().all(|one| one.body == seen[0].body));
    let last = eventually("the event of the last attempt", || async {
        let events = world.acme.events(1).await;
        assert_eq!(events.len(), 1, "one for each delivery");
        (events[0].params["status"] == json!(204)).then(|| events[0].clone())
    })
    .await;
    assert_eq!((last.params["eventUUID"].clone(), last.delivery), (first.params["eventUUID"].clone(), first.delivery));
    world.stop().await;
}

#[tokio::test]
async fn a_waiting_delivery_is_cancelled_with_one_event_and_nothing_more_is_sent() {
    let (mut world, waiting) = after([later()], 8).await;
    let steered = cancel(&world, &waiting).await.unwrap();
    assert_eq!((steered.state(), steered.reason()), (Cancelled, Reason::Cancelled));
    let ended = when(&world, &waiting, Cancelled, 1).await;
    assert!(ended.end_time.is_some() && ended.next_attempt_time.is_none());
    assert_eq!(cancel(&world, &waiting).await.unwrap().state(), Cancelled, "again changes nothing");
    let events = world.acme.events(1).await;
    let told = (&events[0].params["status"], &events[0].params["statusDescription"]);
    assert_eq!((events.len(), told), (1, (&json!(0), &json!("CANCELLED"))));
    world.restart_data_plane().await;
    assert_eq!(world.destination.requests().len(), 1);
    let stats = world.plane().inbox.stats().await.unwrap();
    assert_eq!((stats.realtime.ready, stats.realtime.delayed, stats.realtime.dead), (0, 0, 0));
    world.stop().await;
}

/// Without anybody to send it.
#[tokio::test]
async fn a_delivery_that_waits_for_its_turn_is_listed_and_can_be_ended() {
    const COUNT: usize = 250;
    let mut world = World::with(|options| {
        options.data_plane.workers = WorkerSettings { realtime: 0, bulk: 0 };
        options.data_plane.waiting_told_after = Duration::from_millis(100);
    })
    .await;
    let incoming = world.acme.flow("orders", post("https://api.example.com/orders", "{}")).await;
    world.served().await;
    for _ in 0..COUNT {
        assert_eq!(world.trigger(&incoming, &json!({})).await.status, 200);
    }
    let waiting = world.acme.deliveries_in(COUNT, &[Waiting]).await;
    assert_eq!(waiting.len(), COUNT);
    for delivery in &waiting {
        assert!(delivery.attempts.is_empty() && delivery.next_attempt_time.is_none(), "{delivery:?}");
        assert_eq!((delivery.data_plane.as_str(), delivery.incoming_integration == incoming.name), ("test", true));
    }
    let ended = cancel(&world, &waiting[7]).await.unwrap();
    assert_eq!((ended.state(), ended.reason()), (Cancelled, Reason::Cancelled));
    when(&world, &waiting[7], Cancelled, 0).await;
    assert_eq!(world.acme.events(1).await[0].params["statusDescription"], json!("CANCELLED"));

    // The others go out when somebody sends them, and what is told of them first changes nothing.
    world.settings.data_plane.workers = WorkerSettings::default();
    world.restart_data_plane().await;
    let delivered = world.acme.deliveries_in(COUNT - 1, &[Delivered]).await;
    assert_eq!((delivered.len(), world.destination.requests().len()), (COUNT - 1, COUNT - 1));
    when(&world, &waiting[7], Cancelled, 0).await;
    assert!(world.acme.deliveries_in(0, &[Waiting]).await.is_empty());
    world.stop().await;
}

#[tokio::test]
async fn a_delivery_that_waits_for_a_token_is_listed_and_can_be_ended() {
    let world = World::with(|options| options.data_plane.waiting_told_after = Duration::from_millis(100)).await;
    let connection = world.acme.connection("crm", oauth2("https://api.example.com/token", "s3cr3t")).await;
    let request = OutgoingRequest { connection: connection.name, ..post("https://api.example.com/orders", "{}") };
    let incoming = world.acme.flow("orders", request).await;
    world.served().await;
    world.destination.script_for("/token", vec![Answer::status(503); 100]);
    assert_eq!(world.trigger(&incoming, &json!({})).await.status, 200);
    let waiting = world.acme.deliveries_in(1, &[Waiting]).await.remove(0);
    assert!(waiting.attempts.is_empty(), "{waiting:?}");
    eventually("a moment in which nobody works on it", || async { cancel(&world, &waiting).await.ok() }).await;
    when(&world, &waiting, Cancelled, 0).await;
    assert!(world.destination.requests().iter().all(|seen| seen.target == "/token"));
    world.stop().await;
}

#[tokio::test]
async fn what_is_being_sent_is_left_alone() {
    let gate = Gate::new();
    let (world, waiting) = after([later(), Answer::status(200).after(&gate)], 8).await;
    retry(&world, &waiting).await.unwrap();
    world.destination.wait_for(2).await.unwrap();
    for result in [cancel(&world, &waiting).await, retry(&world, &waiting).await] {
        assert_eq!(refused(result), (Code::FailedPrecondition, "DELIVERY_IN_WORK".to_owned()));
    }
    gate.open();
    when(&world, &waiting, Delivered, 2).await;
    world.stop().await;
}

#[tokio::test]
async fn without_its_data_plane_nothing_is_done_and_that_is_said() {
    let (mut world, waiting) = after([later(), Answer::status(200)], 8).await;
    world.stop_data_plane().await;
    let status = retry(&world, &waiting).await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::FailedPrecondition, "NO_DATA_PLANE".to_owned()));
    assert!(status.message().contains("`test`"), "{}", status.message());
    world.start_data_plane().await;
    eventually("the data plane to take the command", || async { retry(&world, &waiting).await.ok() }).await;
    when(&world, &waiting, Delivered, 2).await;
    world.stop().await;
}
