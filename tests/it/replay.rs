//! Deliveries that are delivered once more: planned, followed, held up, cut off.

use std::collections::BTreeSet;

use serde_json::json;
use sluice::destination::Answer;
use sluice_client::admin::DeliveryState::{Dead, Delivered, Waiting};
use sluice_client::admin::operation::{State, Work};
use sluice_client::admin::refused_replays::Reason;
use sluice_client::admin::step::Action;
use sluice_client::admin::{self, DeliveryFilter, OutgoingRequest, RetryPolicy};
use sluice_tests::resources::{custom_webhook, dedup, oauth2, open, post, workflow};
use sluice_tests::{Workspace, World, eventually, violations, within};

use crate::rotation::House;

const URL: &str = "https://api.example.com/orders";

/// A request that is tried once.
fn once(body: &str) -> OutgoingRequest {
    OutgoingRequest { retry: Some(RetryPolicy { attempts_max: 1, ..Default::default() }), ..post(URL, body) }
}

/// Triggers `count` times and waits until all are dead.
async fn dead(world: &World, incoming: &admin::IncomingIntegration, count: usize) -> Vec<admin::Delivery> {
    world.destination.script((0..count).map(|_| Answer::status(400)));
    for id in 0..count {
        assert_eq!(world.trigger(incoming, &json!({"id": id})).await.status, 200);
    }
    world.acme.deliveries_in(count, &[Dead]).await
}

fn of_state(state: admin::DeliveryState) -> DeliveryFilter {
    DeliveryFilter { states: vec![state.into()], ..Default::default() }
}

async fn replay(world: &World, filter: DeliveryFilter, validate_only: bool) -> admin::ReplayDeliveriesResponse {
    let request = admin::ReplayDeliveriesRequest {
        parent: world.acme.name.clone(),
        filter: Some(filter),
        validate_only,
        ..Default::default()
    };
    world.client.deliveries().replay_deliveries(request).await.unwrap().into_inner()
}

async fn operation(world: &World, name: &str) -> admin::Operation {
    let request = admin::GetOperationRequest { name: name.to_owned() };
    world.client.operations().get_operation(request).await.unwrap().into_inner()
}

fn counts(operation: &admin::Operation) -> (i64, i64) {
    let Some(Work::Replay(replay)) = &operation.work else { panic!("no replay: {operation:?}") };
    (replay.done, replay.failed)
}

async fn ended(world: &World, name: &str) -> admin::Operation {
    eventually("the operation to end", || async {
        let now = operation(world, name).await;
        now.end_time.is_some().then_some(now)
    })
    .await
}

/// The deliveries an operation made, when they are all there.
async fn made(world: &World, operation: &str, count: usize) -> Vec<admin::Delivery> {
    eventually(&format!("{count} deliveries of the operation"), || async {
        let filter = DeliveryFilter { operation: operation.to_owned(), ..of_state(Delivered) };
        let request = admin::ListDeliveriesRequest {
            parent: world.acme.name.clone(),
            page_size: 1000,
            filter: Some(filter),
            ..Default::default()
        };
        let listed = world.client.deliveries().list_deliveries(request).await.unwrap().into_inner().deliveries;
        (listed.len() >= count).then_some(listed)
    })
    .await
}

#[tokio::test]
async fn what_died_is_delivered_again_under_the_configuration_in_force() {
    let world = World::start().await;
    let shop = admin::IncomingIntegration { deduplication: dedup(["body.id"]), ..open() };
    let incoming = world.acme.incoming("orders", shop).await;
    let first = workflow(&incoming, [custom_webhook("Send", once(r#"{"old":{{ request.body.id }}}"#))]);
    let mut orders = world.acme.workflow("orders", first).await;
    world.served().await;
    let old = dead(&world, &incoming, 3).await;

    orders.steps[0].action = Some(Action::CustomWebhook(once(r#"{"new":{{ request.body.id }}}"#)));
    let draft = world.acme.update_workflow(orders).await;
    world.acme.publish_workflow(&draft.name).await.unwrap();
    world.served().await;
    let planned = replay(&world, of_state(Dead), true).await;
    let plan = planned.plan.unwrap();
    assert_eq!((planned.operation.as_str(), plan.count, plan.refused.len()), ("", 3, 0));
    assert_eq!((plan.oldest_accept_time, plan.newest_accept_time), (old[0].accept_time, old[2].accept_time));
    let list = admin::ListOperationsRequest { parent: world.acme.name.clone(), ..Default::default() };
    let listed = world.client.operations().list_operations(list.clone()).await.unwrap().into_inner();
    assert!(listed.operations.is_empty(), "a plan starts nothing");

    let name = replay(&world, of_state(Dead), false).await.operation;
    let watch = admin::WatchOperationRequest { name: name.clone() };
    let mut watched = world.client.operations().watch_operation(watch).await.unwrap().into_inner();
    let mut last = None;
    while let Some(operation) = within("the operation", watched.message()).await.unwrap() {
        last = Some(operation);
    }
    let last = last.unwrap();
    assert_eq!((last.state(), counts(&last)), (State::Succeeded, (3, 0)));
    let new = made(&world, &name, 3).await;
    let repeated: BTreeSet<_> = new.iter().map(|one| one.replay_of.as_str()).collect();
    assert_eq!(repeated, old.iter().map(|one| one.name.as_str()).collect());
    assert!(new.iter().all(|one| one.operation == name && one.trigger_id != one.name));
    let mut bodies: Vec<_> = world.destination.requests()[3..].iter().map(|one| one.json().unwrap()).collect();
    bodies.sort_by_key(ToString::to_string);
    assert_eq!(bodies, [json!({"new": 0}), json!({"new": 1}), json!({"new": 2})]);
    let keys: BTreeSet<_> =
        world.destination.requests().iter().map(|one| one.header("idempotency-key").unwrap().to_owned()).collect();
    assert_eq!(keys.len(), 6, "a replay is another delivery");
    assert_eq!(world.acme.deliveries_in(3, &[Dead]).await, old, "the old ones stay what they were");
    assert_eq!(world.client.operations().list_operations(list).await.unwrap().into_inner().operations, [last]);
    world.stop().await;
}

#[tokio::test]
async fn a_replay_goes_on_where_it_was_and_repeats_nothing() {
    const ALL: usize = 120;
    let mut world = World::with(|options| options.control_plane.limits.replays_per_second = 50).await;
    let incoming = world.acme.flow("orders", once(r#"{"id":{{ request.body.id }}}"#)).await;
    world.served().await;
    dead(&world, &incoming, ALL).await;
    let name = replay(&world, of_state(Dead), false).await.operation;
    eventually("the first step", || async { (counts(&operation(&world, &name).await).0 > 0).then_some(()) }).await;
    world.stop_control_plane().await;
    world.start_control_plane().await;
    let between = operation(&world, &name).await;
    assert!(between.end_time.is_none(), "cut off halfway: {between:?}");
    // And the data plane too.
    world.restart_data_plane().await;
    let last = ended(&world, &name).await;
    assert_eq!((last.state(), counts(&last)), (State::Succeeded, (ALL as i64, 0)));
    let new = made(&world, &name, ALL).await;
    let repeated: BTreeSet<_> = new.iter().map(|one| one.replay_of.as_str()).collect();
    assert_eq!((new.len(), repeated.len()), (ALL, ALL), "each once");
    assert_eq!(world.destination.requests().len(), 2 * ALL);
    world.stop().await;
}

#[tokio::test]
async fn a_replay_can_be_cancelled_and_what_was_done_stays() {
    let world = World::with(|options| options.control_plane.limits.replays_per_second = 10).await;
    let incoming = world.acme.flow("orders", once("{}")).await;
    world.served().await;
    dead(&world, &incoming, 60).await;
    let name = replay(&world, of_state(Dead), false).await.operation;
    eventually("the first step", || async { (counts(&operation(&world, &name).await).0 > 0).then_some(()) }).await;
    let request = admin::CancelOperationRequest { name: name.clone(), ..Default::default() };
    let cancelling = world.client.operations().cancel_operation(request.clone()).await.unwrap().into_inner();
    assert_eq!(cancelling.state(), State::Cancelling);
    let last = ended(&world, &name).await;
    assert_eq!((last.state(), counts(&last)), (State::Cancelled, (50, 0)));
    assert_eq!(made(&world, &name, 50).await.len(), 50);
    assert_eq!(world.client.operations().cancel_operation(request).await.unwrap().into_inner(), last);
    world.stop().await;
}

#[tokio::test]
async fn a_replay_says_what_it_leaves_out_and_what_it_waits_for() {
    let mut world = World::start().await;
    let incoming = world.acme.flow("orders", once("{}")).await;
    let other = world.acme.flow("other", once("{}")).await;
    let slow = world.acme.flow("slow", post(URL, "{}")).await;
    world.served().await;
    dead(&world, &incoming, 2).await;
    dead(&world, &other, 1).await;
    world.acme.deliveries_in(3, &[Dead]).await;
    world.destination.script([Answer::status(500).header("Retry-After", "3600")]);
    assert_eq!(world.trigger(&slow, &json!({})).await.status, 200);
    world.acme.deliveries_in(1, &[Waiting]).await;
    world.acme.unpublish_workflow(&format!("{}/workflows/other", world.acme.name)).await.unwrap();

    let everything = admin::ReplayDeliveriesRequest { parent: world.acme.name.clone(), ..Default::default() };
    let refused = world.client.deliveries().replay_deliveries(everything).await.unwrap_err();
    assert_eq!(violations(&refused)[0].0, "filter", "nobody sends everything again by leaving something out");
    let all = DeliveryFilter { status_min: 400, ..Default::default() };
    let plan = replay(&world, all.clone(), true).await.plan.unwrap();
    let told: Vec<_> = plan.refused.iter().map(|one| (one.reason(), one.count)).collect();
    assert_eq!((plan.count, told), (2, vec![(Reason::NotEnded, 1), (Reason::StepNotPublished, 1)]));

    world.stop_data_plane().await;
    let name = replay(&world, all, false).await.operation;
    let waits = eventually("the operation to wait", || async {
        let now = operation(&world, &name).await;
        (!now.message.is_empty()).then_some(now)
    })
    .await;
    assert!(waits.message.contains("data plane") && waits.end_time.is_none(), "{}", waits.message);
    world.start_data_plane().await;
    let last = ended(&world, &name).await;
    assert_eq!((last.state(), counts(&last), last.message.as_str()), (State::Succeeded, (2, 2), ""));
    made(&world, &name, 2).await;
    world.stop().await;
}

/// A chain (D01): what a response event started is started by it again, with as many calls before it.
#[tokio::test]
async fn a_delivery_that_an_event_started_is_delivered_again() {
    let world = World::start().await;
    let told = |action: &str, request| OutgoingRequest { event_name: action.to_owned(), ..request };
    let incoming = world.acme.flow("orders", told("order.sent", post(URL, "{}"))).await;
    let follow_up =
        once(r#"{"of": {{ event.eventUUID }}, "status": {{ event.status }}, "at": {{ event.createDate }}}"#);
    let follow_up = OutgoingRequest { url: "https://api.example.com/follow-up".to_owned(), ..follow_up };
    let response_event = Some(admin::ResponseEventTrigger { action: "order.sent".to_owned() });
    let workflow = admin::Workflow {
        display_name: "Follow-up".to_owned(),
        triggers: vec![admin::Trigger { response_event, ..Default::default() }],
        steps: vec![custom_webhook("Follow up", told("followed.up", follow_up))],
        ..Default::default()
    };
    world.acme.workflow("follow-up", workflow).await;
    world.served().await;
    world.destination.script_for("/follow-up", [Answer::status(400)]);
    let trigger = sluice_tests::Request::post(&incoming.endpoint_path, "{}").header("Sluice-Hops", "3");
    assert_eq!(world.send(&trigger).await.status, 200);
    let dead = world.acme.deliveries_in(1, &[Dead]).await.remove(0);
    let planned = replay(&world, of_state(Dead), true).await.plan.unwrap();
    assert_eq!((planned.count, planned.refused.len()), (1, 0));
    let name = replay(&world, of_state(Dead), false).await.operation;
    assert_eq!(counts(&ended(&world, &name).await), (1, 0));
    let again = made(&world, &name, 1).await.remove(0);
    assert_eq!((&again.replay_of, &again.trigger_id), (&dead.name, &dead.trigger_id));
    let seen = world.destination.requests();
    let sent: Vec<_> = seen.iter().filter(|seen| seen.target == "/follow-up").collect();
    assert_eq!((sent.len(), &sent[0].body), (2, &sent[1].body));
    assert_eq!((sent[0].header("sluice-hops"), sent[1].header("sluice-hops")), (Some("5"), Some("5")));
    assert_ne!(sent[0].header("idempotency-key"), sent[1].header("idempotency-key"));
    world.stop().await;
}

/// Killed between two steps: each delivery is delivered again once, with a token that was fetched anew (D21).
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_goes_on_after_a_kill_and_so_do_tokens() {
    const DEAD: usize = 120;
    let house = House::new().await;
    let destination = &house.destination;
    let (subject, stage) = house.start().await;
    let acme = Workspace::create(&stage.client, "acme").await;
    let connection = acme.connection("crm", oauth2("https://api.example.com/token", "s3cr3t")).await;
    let incoming = acme.flow("orders", OutgoingRequest { connection: connection.name, ..once("{}") }).await;
    stage.served().await;
    let grants = |token: &str| Answer::json(200, json!({"access_token": token, "expires_in": 3600}).to_string());
    destination.script_for("/token", [grants("t1"), grants("t2")]);
    destination.script_for("/orders", vec![Answer::status(400); DEAD]);
    let left = std::cell::Cell::new(DEAD);
    stage.flow(&incoming.endpoint_path, async || left.replace(left.get().saturating_sub(1)) == 0).await;
    let old = acme.deliveries(DEAD).await;

    let request = admin::ReplayDeliveriesRequest {
        parent: acme.name.clone(),
        filter: Some(of_state(Dead)),
        ..Default::default()
    };
    let name = stage.client.deliveries().replay_deliveries(request).await.unwrap().into_inner().operation;
    let state = async |client: &sluice_client::Client| {
        let request = admin::GetOperationRequest { name: name.clone() };
        client.operations().get_operation(request).await.unwrap().into_inner()
    };
    eventually("the first step", || async { (counts(&state(&stage.client).await).0 > 0).then_some(()) }).await;
    subject.kill().await.unwrap();
    let (subject, stage) = house.start().await;
    assert_eq!(state(&stage.client).await.state(), State::Running, "it was killed before the end");
    let end = eventually("the replay to end", || async {
        let now = state(&stage.client).await;
        now.end_time.is_some().then_some(now)
    })
    .await;
    assert_eq!((end.state(), counts(&end)), (State::Succeeded, (DEAD as i64, 0)));
    let acme = Workspace { client: stage.client.clone(), ..acme };
    let all = acme.deliveries_in(DEAD, &[Delivered]).await;
    let repeated: BTreeSet<_> = all.iter().map(|delivery| delivery.replay_of.as_str()).collect();
    assert_eq!((all.len(), repeated), (DEAD, old.iter().map(|delivery| delivery.name.as_str()).collect()), "each once");

    // One token for each life of the process; nothing went out without one.
    let seen = destination.requests();
    assert_eq!(seen.iter().filter(|seen| seen.target == "/token").count(), 2);
    let mut sent = seen.iter().filter(|seen| seen.target == "/orders");
    assert!(sent.all(|seen| matches!(seen.header("authorization"), Some("Bearer t1" | "Bearer t2"))));
    assert!(subject.stop().await.unwrap().success());
}

#[tokio::test]
async fn the_same_request_starts_one_replay() {
    let world = World::start().await;
    let incoming = world.acme.flow("orders", once("{}")).await;
    world.served().await;
    let old = dead(&world, &incoming, 2).await;
    let request = admin::ReplayDeliveriesRequest {
        parent: world.acme.name.clone(),
        filter: Some(DeliveryFilter { delivery: old[1].name.clone(), ..Default::default() }),
        request_id: "0b6f2a52-43c2-4d0c-8f5b-1f3a1f0f6d11".to_owned(),
        ..Default::default()
    };
    let first = world.client.deliveries().replay_deliveries(request.clone()).await.unwrap().into_inner();
    let again = world.client.deliveries().replay_deliveries(request).await.unwrap().into_inner();
    assert_eq!(first, again);
    ended(&world, &first.operation).await;
    assert_eq!(made(&world, &first.operation, 1).await[0].replay_of, old[1].name, "one alone");
    world.stop().await;
}
