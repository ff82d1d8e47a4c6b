//! Response events that start workflows (D01, F82): what they see, which of them count, and where a circle ends.

use serde_json::json;
use sluice::destination::Answer;
use sluice_client::admin::failure::Reason;
use sluice_client::admin::{self, DeliveryState, Operator, OutgoingRequest};
use sluice_core::lineage::HOPS_MAX;
use sluice_tests::World;
use sluice_tests::raw_http::Request;
use sluice_tests::resources::{condition, custom_webhook, post};

const TICKETS: &str = "https://api.example.com/tickets";

/// A workflow that response events start.
fn started_by(action: &str, filter: Option<admin::Filter>, request: OutgoingRequest) -> admin::Workflow {
    let response_event = Some(admin::ResponseEventTrigger { action: action.to_owned() });
    admin::Workflow {
        display_name: "Follow-up".to_owned(),
        triggers: vec![admin::Trigger { filter, response_event, ..Default::default() }],
        steps: vec![custom_webhook("Follow up", request)],
        ..Default::default()
    }
}

fn telling(action: &str, request: OutgoingRequest) -> OutgoingRequest {
    OutgoingRequest { event_name: action.to_owned(), ..request }
}

#[tokio::test]
async fn a_response_event_starts_the_workflows_that_ask_for_it() {
    let world = World::start().await;
    let incoming = world.acme.flow("complaints", telling("ticket.created", post(TICKETS, "{}"))).await;
    let filter = condition("event.params.status", Operator::Equals, ["201"]);
    let follow_up = post(
        "https://hooks.slack.com/tickets/{{ event.params['body.id'] }}",
        r#"{"action": {{ event.action }}, "status": {{ event.status }}, "tags": "{{ event.params['body.tags[0]'] }}",
            "by": {{ currentStep.executionId }}, "of": {{ event.eventUUID }}, "request": {{ request.body.id }}}"#,
    );
    world.acme.workflow("follow-up", started_by("ticket.created", Some(filter), telling("told", follow_up))).await;
    let other = post("https://desk.example/", "{}");
    world.acme.workflow("other", started_by("ticket.closed", None, telling("told", other))).await;
    world.served().await;

    world.destination.script([Answer::json(201, r#"{"id": "T-9", "tags": ["a"]}"#)]);
    assert_eq!(world.send(&Request::post(&incoming.endpoint_path, "{}")).await.status, 200);
    let seen = world.destination.wait_for(2).await.unwrap();
    assert_eq!((seen[1].host.as_str(), seen[1].target.as_str()), ("hooks.slack.com", "/tickets/T-9"));
    let body = seen[1].json().unwrap();
    assert_eq!((&body["action"], &body["status"], &body["tags"]), (&json!("ticket.created"), &json!(201), &json!("a")));
    assert_eq!((&body["by"], &body["request"]), (&body["of"], &json!(null)));
    assert_eq!((seen[0].header("sluice-hops"), seen[1].header("sluice-hops")), (Some("1"), Some("2")));

    world.acme.events(2).await;

    // An event that the filter does not want starts nothing.
    world.destination.script([Answer::json(200, r#"{"id": "T-10"}"#)]);
    assert_eq!(world.send(&Request::post(&incoming.endpoint_path, "{}")).await.status, 200);
    let events = world.acme.events(3).await;
    let told: Vec<_> = events.iter().map(|event| (event.action.as_str(), event.params["status"].clone())).collect();
    assert_eq!(told, [("ticket.created", json!(201)), ("told", json!(200)), ("ticket.created", json!(200))]);
    let deliveries = world.acme.deliveries(3).await;
    assert_eq!((deliveries.len(), world.destination.requests().len()), (3, 3));
    assert!(deliveries[1].trigger_id == body["of"], "the event is its trigger");
}

#[tokio::test]
async fn an_event_of_another_workspace_starts_nothing_i10() {
    let world = World::start().await;
    let globex = world.workspace("globex").await;
    let other = post("https://desk.example/", "{}");
    globex.workflow("follow-up", started_by("ticket.created", None, telling("told", other))).await;
    let incoming = world.acme.flow("complaints", telling("ticket.created", post(TICKETS, "{}"))).await;
    world.served().await;
    assert_eq!(world.send(&Request::post(&incoming.endpoint_path, "{}")).await.status, 200);
    assert_eq!(world.acme.events(1).await.len(), 1);
    assert!(globex.events(0).await.is_empty());
    assert_eq!(world.destination.requests().len(), 1);
}

#[tokio::test]
async fn workflows_that_start_each_other_end_after_eight_hops_d01() {
    let world = World::start().await;
    let incoming = world.acme.flow("orders", telling("ping", post(TICKETS, "{}"))).await;
    world.acme.workflow("pong", started_by("ping", None, telling("pong", post(TICKETS, "{}")))).await;
    world.acme.workflow("ping", started_by("pong", None, telling("ping", post(TICKETS, "{}")))).await;
    world.served().await;
    assert_eq!(world.send(&Request::post(&incoming.endpoint_path, "{}")).await.status, 200);

    let sent = HOPS_MAX as usize;
    let deliveries = world.acme.deliveries(sent + 1).await;
    let last = deliveries.last().unwrap();
    assert_eq!((last.state(), last.reason()), (DeliveryState::Dead, Reason::LoopDetected));
    let events = world.acme.events(sent + 1).await;
    assert_eq!(events.last().unwrap().params["statusDescription"], "LOOP_DETECTED");
    // Its event is told, and starts nothing: the inbox has nothing left to do.
    assert_eq!((deliveries.len(), events.len(), world.destination.requests().len()), (sent + 1, sent + 1, sent));
    let held = world.plane().inbox.stats().await.unwrap().realtime;
    assert_eq!((held.ready, held.leased, held.delayed), (0, 0, 0));
}
