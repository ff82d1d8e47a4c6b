//! What a call carries on from its trigger: circles end (D01, S59), traces go on.

use std::time::Duration;

use serde_json::json;
use sluice::destination::{Answer, Seen};
use sluice_client::admin::failure::Reason;
use sluice_client::admin::{DeliveryState, OutgoingRequest, RetryPolicy};
use sluice_core::lineage::HOPS_MAX;
use sluice_tests::World;
use sluice_tests::raw_http::Request;
use sluice_tests::resources::{header, oauth2, post};

const URL: &str = "https://api.example.com/orders";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A call as the proxy before the triggers would hand it on: everything that is not about the connection.
fn handed_on(path: &str, call: &Seen) -> Request {
    let ours = |name: &str| !["host", "content-length", "content-type"].contains(&name);
    let headers = call.headers.iter().filter(|(name, _)| ours(name));
    headers.fold(Request::post(path, &call.body), |request, (name, value)| request.header(name, value))
}

#[tokio::test]
async fn a_workflow_that_calls_its_own_endpoint_ends_after_eight_calls_d01_s59() {
    const EVENTS: usize = 100;
    let world = World::start().await;
    let incoming = world.acme.flow("orders", post(URL, r#"{"n": {{ request.body.n }}}"#)).await;
    world.served().await;
    let mut door = world.connect().await;
    for n in 0..EVENTS {
        let answer = door.exchange(&Request::post(&incoming.endpoint_path, json!({"n": n}).to_string())).await;
        assert_eq!(answer.status, 200);
    }
    // The destination is the endpoint itself: every call becomes a trigger, as long as calls come.
    let most = EVENTS * HOPS_MAX as usize;
    for call in 0..most {
        let seen = world.destination.wait_for(call + 1).await.unwrap();
        let answer = door.exchange(&handed_on(&incoming.endpoint_path, &seen[call])).await;
        assert_eq!(answer.status, 200);
    }

    // Each event: eight calls that arrived, and the ninth that was not sent.
    let deliveries = world.acme.deliveries(most + EVENTS).await;
    assert_eq!((deliveries.len(), world.destination.requests().len()), (most + EVENTS, most));
    let (dead, delivered): (Vec<_>, Vec<_>) =
        deliveries.iter().partition(|delivery| delivery.state() == DeliveryState::Dead);
    assert_eq!((dead.len(), delivered.len()), (EVENTS, most));
    assert!(dead.iter().all(|delivery| delivery.reason() == Reason::LoopDetected), "{dead:?}");
    for n in 0..EVENTS {
        let about = |call: &&Seen| call.json().unwrap()["n"] == n;
        let hops = world.destination.requests();
        let hops: Vec<_> =
            hops.iter().filter(about).map(|call| call.header("sluice-hops").map(str::to_owned)).collect();
        assert_eq!(hops, (1..=HOPS_MAX).map(|hop| Some(hop.to_string())).collect::<Vec<_>>());
    }
    let events = world.acme.events(most + EVENTS).await;
    let refused: Vec<_> = events.iter().filter(|event| event.params["statusDescription"] == "LOOP_DETECTED").collect();
    assert_eq!(refused.len(), EVENTS);
    assert!(refused.iter().all(|event| event.params["status"] == 0));
}

#[tokio::test]
async fn a_trace_goes_on_with_the_same_parent_at_every_attempt() {
    let world = World::start().await;
    let wait = Duration::from_secs(1).try_into().ok();
    let retry = Some(RetryPolicy { first_wait: wait, longest_wait: wait, ..Default::default() });
    let incoming = world.acme.flow("orders", OutgoingRequest { retry, ..post(URL, "{}") }).await;
    world.served().await;
    world.destination.script([Answer::status(503), Answer::status(200)]);
    let trigger =
        Request::post(&incoming.endpoint_path, "{}").header("traceparent", PARENT).header("tracestate", "a=1");
    assert_eq!(world.send(&trigger).await.status, 200);

    let seen = world.destination.wait_for(2).await.unwrap();
    let delivery = &world.acme.deliveries(1).await[0].name;
    let id = delivery.rsplit('/').next().unwrap().replace('-', "");
    let ours = format!("00-{TRACE}-{}-01", &id[16..]);
    for attempt in &seen {
        let sent = (attempt.header("traceparent"), attempt.header("tracestate"));
        assert_eq!(sent, (Some(ours.as_str()), Some("a=1")));
    }

    // One that cannot be read is not passed on, and none is made up.
    for parent in ["00-zz-00f067aa0ba902b7-01", ""] {
        let calls = world.destination.requests().len();
        let trigger =
            Request::post(&incoming.endpoint_path, "{}").header("traceparent", parent).header("tracestate", "a=1");
        assert_eq!(world.send(&trigger).await.status, 200);
        let seen = world.destination.wait_for(calls + 1).await.unwrap();
        assert_eq!((seen[calls].header("traceparent"), seen[calls].header("tracestate")), (None, None));
    }
}

#[tokio::test]
async fn an_authors_own_trace_wins() {
    let world = World::start().await;
    let headers = vec![header("Traceparent", "00-{{ request.body.trace }}-00f067aa0ba902b7-01")];
    let incoming = world.acme.flow("orders", OutgoingRequest { headers, ..post(URL, "{}") }).await;
    world.served().await;
    let body = json!({"trace": "a".repeat(32)}).to_string();
    let trigger =
        Request::post(&incoming.endpoint_path, body).header("traceparent", PARENT).header("tracestate", "a=1");
    assert_eq!(world.send(&trigger).await.status, 200);
    let seen = world.destination.wait_for(1).await.unwrap();
    let traces: Vec<_> = seen[0].headers.iter().filter(|(name, _)| name.starts_with("trace")).collect();
    assert_eq!(traces, [&("traceparent".to_owned(), format!("00-{}-00f067aa0ba902b7-01", "a".repeat(32)))]);
}

#[tokio::test]
async fn what_a_token_fetch_starts_sends_nothing_d01() {
    let world = World::start().await;
    let scheme = oauth2("https://api.example.com/token", "s3cr3t");
    let connection = world.acme.connection("crm", scheme).await.name;
    let incoming = world.acme.flow("orders", OutgoingRequest { connection, ..post(URL, "{}") }).await;
    world.served().await;
    world.destination.script([Answer::json(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":600}"#)]);
    assert_eq!(world.trigger(&incoming, &json!({})).await.status, 200);
    let seen = world.destination.wait_for(2).await.unwrap();
    let last = HOPS_MAX.to_string();
    let hops: Vec<_> = seen.iter().map(|call| (call.target.as_str(), call.header("sluice-hops"))).collect();
    assert_eq!(hops, [("/token", Some(last.as_str())), ("/orders", Some("1"))]);

    // The fetch, had it come to us.
    let answer = world.send(&handed_on(&incoming.endpoint_path, &seen[0]).body("{}")).await;
    assert_eq!(answer.status, 200);
    let deliveries = world.acme.deliveries(2).await;
    assert_eq!(
        deliveries.iter().filter(|delivery| delivery.reason() == Reason::LoopDetected).count(),
        1,
        "{deliveries:?}"
    );
    assert_eq!(world.destination.requests().len(), 2);
}
