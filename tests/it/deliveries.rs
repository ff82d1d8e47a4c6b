//! Deliveries as an operator sees them.

use serde_json::json;
use sluice::destination::Answer;
use sluice_client::admin::DeliveryState::{Dead, Delivered, Waiting};
use sluice_client::admin::failure::Reason;
use sluice_client::admin::{self, OutgoingRequest};
use sluice_tests::World;
use sluice_tests::resources::{api_key_header, api_key_parameter, existing, header, open, post, workflow};

async fn get(world: &World, name: &str) -> admin::Delivery {
    let request = admin::GetDeliveryRequest { name: name.to_owned() };
    world.client.deliveries().get_delivery(request).await.unwrap().into_inner()
}

fn headers(headers: &[admin::HttpHeader]) -> Vec<(&str, &str)> {
    headers.iter().map(|header| (header.name.as_str(), header.value.as_str())).collect()
}

#[tokio::test]
async fn what_was_sent_and_answered_can_be_read_without_credentials() {
    let world = World::start().await;
    let scheme = api_key_header("s3cr3t", "Authorization", "Basic {{secret}}");
    let connection = world.acme.connection("crm", scheme).await.name;
    let request = OutgoingRequest {
        connection: connection.clone(),
        headers: vec![header("X-Tag", "{{ request.body.id }}")],
        ..post("https://api.example.com/orders", r#"{"id":"{{ request.body.id }}"}"#)
    };
    let outgoing = world.acme.outgoing("send", request).await;
    let incoming = world.acme.incoming("orders", open()).await;
    let orders = world.acme.workflow("orders", workflow(&incoming, [existing("Send", &outgoing)])).await;
    world.served().await;
    world
        .destination
        .script([Answer::json(422, r#"{"wrong":"id"}"#).header("Set-Cookie", "sid=1").header("X-Why", "id")]);
    assert_eq!(world.trigger(&incoming, &json!({"id": "A-1"})).await.status, 200);

    let listed = world.acme.deliveries(1).await.remove(0);
    let delivery = get(&world, &listed.name).await;
    assert_eq!((delivery.state(), delivery.reason()), (Dead, Reason::Status));
    assert_eq!((&delivery.incoming_integration, &delivery.workflow), (&incoming.name, &orders.name));
    assert_eq!(delivery.data_plane, "test");
    let sent = delivery.request.unwrap();
    assert_eq!((sent.method.as_str(), sent.url.as_str()), ("POST", "https://api.example.com/orders"));
    assert_eq!((&sent.body[..], sent.body_truncated), (&br#"{"id":"A-1"}"#[..], false));
    let id = delivery.name.rsplit('/').next().unwrap();
    assert_eq!(
        headers(&sent.headers),
        [("X-Tag", "A-1"), ("Content-Type", "application/json"), ("Idempotency-Key", id), ("Authorization", "******"),]
    );
    let attempt = &delivery.attempts[0];
    assert_eq!((attempt.status, attempt.failure()), (422, Reason::Status));
    assert_eq!((attempt.request_bytes, attempt.response_bytes), (12, 14));
    let versions = attempt.versions.clone().unwrap();
    assert_eq!((&versions.outgoing_integration, versions.outgoing_integration_version), (&outgoing.name, 1));
    assert_eq!((&versions.connection, versions.workflow_version), (&connection, 1));
    assert!(versions.connection_version >= 1 && versions.revision == delivery.revision);
    let answer = attempt.response.clone().unwrap();
    assert_eq!((&answer.body[..], answer.body_truncated), (&br#"{"wrong":"id"}"#[..], false));
    let told = headers(&answer.headers);
    assert!(told.contains(&("x-why", "id")) && !told.iter().any(|(name, _)| name.eq_ignore_ascii_case("set-cookie")));
    world.stop().await;
}

#[tokio::test]
async fn url_parameters_of_the_connection_are_named_and_large_bodies_cut() {
    let world = World::start().await;
    let connection = world.acme.connection("crm", api_key_parameter("s3cr3t", "key", "{{secret}}")).await.name;
    let body = r#"{"all":"{{ request.body.all }}"}"#;
    let request = OutgoingRequest { connection, ..post("https://api.example.com/orders?a=1", body) };
    let incoming = world.acme.flow("orders", request).await;
    world.served().await;
    world.destination.script([Answer::status(200).body("y".repeat(70_000))]);
    assert_eq!(world.trigger(&incoming, &json!({"all": "x".repeat(70_000)})).await.status, 200);

    let listed = world.acme.deliveries(1).await.remove(0);
    let delivery = get(&world, &listed.name).await;
    let sent = delivery.request.unwrap();
    assert_eq!(sent.url, "https://api.example.com/orders?a=1&key=******");
    assert_eq!((sent.body.len(), sent.body_truncated), (65_536, true));
    let attempt = &delivery.attempts[0];
    assert_eq!((attempt.request_bytes, attempt.response_bytes), (70_010, 70_000));
    let answer = attempt.response.as_ref().unwrap();
    assert_eq!((answer.body.len(), answer.body_truncated), (65_536, true));
    world.stop().await;
}

#[tokio::test]
async fn a_delivery_that_waits_is_seen_and_so_is_what_came_in() {
    let world = World::start().await;
    let incoming = world.acme.flow("orders", post("https://api.example.com/orders", "{}")).await;
    world.served().await;
    let filter = admin::DeliveryFilter { states: vec![Waiting.into()], ..Default::default() };
    let request =
        admin::WatchDeliveriesRequest { parent: world.acme.name.clone(), filter: Some(filter), ..Default::default() };
    let mut watched = world.client.deliveries().watch_deliveries(request).await.unwrap().into_inner();
    world.destination.script([Answer::json(503, r#"{"later":true}"#)]);
    assert_eq!(world.trigger(&incoming, &json!({"id": "A-1"})).await.status, 200);

    let told = watched.message().await.unwrap().unwrap().delivery.unwrap();
    assert_eq!((told.state(), told.reason(), told.attempts.len()), (Waiting, Reason::Status, 1));
    assert!(told.end_time.is_none());
    let next = told.next_attempt_time.unwrap();
    assert!(next.seconds >= told.accept_time.unwrap().seconds);
    let delivery = get(&world, &told.name).await;
    assert_eq!(delivery.attempts[0].response.as_ref().unwrap().body, r#"{"later":true}"#);

    let name = format!("{}/incomingRequests/{}", world.acme.name, told.trigger_id);
    let request = admin::GetIncomingRequestRequest { name };
    let came = world.client.incoming_requests().get_incoming_request(request).await.unwrap().into_inner();
    assert_eq!((&came.incoming_integration, came.body_bytes), (&incoming.name, 12));
    assert!(came.envelope_bytes > came.body_bytes);
    let events = admin::ListEventsRequest { parent: world.acme.name.clone(), ..Default::default() };
    let events = world.client.events().list_events(events).await.unwrap().into_inner().events;
    assert!(events.is_empty(), "it has not ended");

    // The same delivery ends later, with one event.
    world.destination.script([Answer::status(200)]);
    assert_eq!(world.acme.deliveries_in(1, &[Delivered]).await[0].name, told.name);
    assert_eq!(world.acme.events(1).await.len(), 1);
    world.stop().await;
}
