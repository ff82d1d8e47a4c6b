//! Events that callers submit by their action (D01): whom they start, what is seen of their customer, and that each counts once.

use serde_json::json;
use sluice::destination::Answer;
use sluice_client::admin::{self, DeliveryFilter, DeliveryState, OutgoingRequest, RetryPolicy, SubmitEventRequest};
use sluice_tests::resources::{condition, custom_webhook, post};
use sluice_tests::{World, eventually, reason, violations};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const SLACK: &str = "https://hooks.slack.com/services/T0/B0/x";
const CRM: &str = "https://api.example.com/orders";

/// A workflow that submitted events start.
fn started_by(action: &str, request: OutgoingRequest) -> admin::Workflow {
    let event = Some(admin::EventTrigger { action: action.to_owned() });
    admin::Workflow {
        display_name: "Forms".to_owned(),
        triggers: vec![admin::Trigger { event, ..Default::default() }],
        steps: vec![custom_webhook("Post", request)],
        ..Default::default()
    }
}

fn event(world: &World, action: &str) -> SubmitEventRequest {
    SubmitEventRequest { parent: world.acme.name.clone(), action: action.to_owned(), ..Default::default() }
}

async fn submit(world: &World, request: SubmitEventRequest) -> Result<admin::SubmitEventResponse, Status> {
    Ok(world.client.events().submit_event(request).await?.into_inner())
}

/// P4, by the event that the article names.
#[tokio::test]
async fn a_form_is_posted_to_slack_r128() {
    let world = World::start().await;
    let body = r#"{"text":"Form {{ event.params.formId }}","blocks":[{"type":"section","text":{"type":"mrkdwn","text":"*{{ event.params.subject|default('No subject', true) }}*"}}{% if event.params.message %},{"type":"section","text":{"type":"plain_text","text":{{ event.params.message|truncate(20,true)|tojson }}}}{% endif %}]}"#;
    world.acme.workflow("forms", started_by("form.submit", post(SLACK, body))).await;
    // A response event with the same action starts nothing: that is asked for by itself.
    world.acme.workflow("opens", started_by("webhook.response", post(CRM, "{}"))).await;
    world.acme.ready().await;

    let params = r#"{"formId":"contact","subject":"","message":"Please call me back about the \"Mug\""}"#.to_owned();
    let answer = submit(&world, SubmitEventRequest { params, ..event(&world, "form.submit") }).await.unwrap();
    assert_eq!((answer.duplicate, answer.workflows, answer.deliveries), (false, 1, 1));
    assert_eq!(answer.event_id, answer.trigger_id, "one is made");
    let delivery = world.acme.deliveries(1).await.remove(0);
    assert_eq!((delivery.state(), &delivery.trigger_id), (DeliveryState::Delivered, &answer.trigger_id));
    world.acme.events(1).await;
    let seen = world.destination.requests();
    assert_eq!(
        (seen.len(), seen[0].host.as_str(), seen[0].target.as_str()),
        (1, "hooks.slack.com", "/services/T0/B0/x")
    );
    let block = |kind: &str, text: &str| json!({"type": "section", "text": {"type": kind, "text": text}});
    assert_eq!(
        seen[0].json().unwrap(),
        json!({"text": "Form contact", "blocks": [block("mrkdwn", "*No subject*"), block("plain_text", "Please call me back ...")]})
    );

    // An action that nobody asks for is fine too (R129), and so is checking alone.
    let nobodys = submit(&world, event(&world, "form.close")).await.unwrap();
    assert_eq!((nobodys.duplicate, nobodys.workflows, nobodys.deliveries), (false, 0, 0));
    let tried = SubmitEventRequest { validate_only: true, ..event(&world, "form.submit") };
    assert_eq!(submit(&world, tried).await.unwrap(), admin::SubmitEventResponse::default());
    let refused =
        submit(&world, SubmitEventRequest { params: "[]".to_owned(), ..event(&world, "") }).await.unwrap_err();
    let fields: Vec<_> = violations(&refused).into_iter().map(|(field, ..)| field).collect();
    assert_eq!(fields, ["action", "params"]);
    assert_eq!(world.destination.requests().len(), 1);
    world.stop().await;
}

/// D02, F24, T17, T18: in the filter, in the templates, in the response event; and again in a replay.
#[tokio::test]
async fn a_customer_comes_with_the_event_and_stays_with_it() {
    let world = World::start().await;
    let once = RetryPolicy { attempts_max: 1, ..Default::default() };
    let body = r#"{"text": "Hi {{ customer.firstname }} [{{ customer.lastname }}] {{ customer["my attr"] }}", "to": "{% customer email %}"}"#;
    let mut workflow = started_by("cart.left", OutgoingRequest { retry: Some(once), ..post(CRM, body) });
    workflow.triggers[0].filter = Some(condition("customer.consent", admin::Operator::IsTrue, []));
    world.acme.workflow("carts", workflow).await;
    world.acme.ready().await;

    let left = |customer: &str, event_id: &str| SubmitEventRequest {
        customer: customer.to_owned(),
        event_id: event_id.to_owned(),
        ..event(&world, "cart.left")
    };
    let uuid = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
    let ewa = json!({"firstname": "Ewa", "email": "ewa@example.com", "my attr": "z", "consent": true, "clientId": 7, "uuid": uuid});
    world.destination.script([Answer::status(400), Answer::status(200)]);
    let answer = submit(&world, left(&ewa.to_string(), "cart-1")).await.unwrap();
    assert_eq!((answer.event_id.as_str(), answer.deliveries), ("cart-1", 1));
    for (customer, deliveries) in [("", 0), (r#"{"consent":false}"#, 0), (r#"{"consent":true}"#, 1)] {
        assert_eq!(submit(&world, left(customer, "")).await.unwrap().deliveries, deliveries, "{customer}");
    }
    let ended = world.acme.deliveries(2).await;
    let states: Vec<_> = ended.iter().map(|delivery| delivery.state()).collect();
    assert!(states.contains(&DeliveryState::Dead) && states.contains(&DeliveryState::Skipped), "{states:?}");
    let told = world.acme.events(1).await.remove(0);
    assert_eq!((&told.params["clientId"], &told.params["uuid"]), (&json!(7), &json!(uuid)));

    // It is shown among the incoming requests, and can be delivered again.
    let request = admin::GetIncomingRequestRequest {
        name: format!("{}/incomingRequests/{}", world.acme.name, answer.trigger_id),
    };
    let shown = world.client.incoming_requests().get_incoming_request(request).await.unwrap().into_inner();
    assert_eq!((shown.action.as_str(), shown.event_id.as_str()), ("cart.left", "cart-1"));
    assert_eq!((shown.incoming_integration.as_str(), shown.body_bytes), ("", ewa.to_string().len() as i64));
    let filter = Some(DeliveryFilter { states: vec![DeliveryState::Dead.into()], ..Default::default() });
    let replay = admin::ReplayDeliveriesRequest { parent: world.acme.name.clone(), filter, ..Default::default() };
    let planned = world.client.deliveries().replay_deliveries(replay).await.unwrap().into_inner().plan.unwrap();
    assert_eq!((planned.count, planned.refused.len()), (1, 0));
    world.acme.deliveries_in(1, &[DeliveryState::Delivered]).await;
    let again = world.acme.events(2).await.remove(1);
    assert_eq!((&again.params["clientId"], &again.params["uuid"]), (&json!(7), &json!(uuid)));
    let seen = world.destination.requests();
    let hi = json!({"text": "Hi Ewa [] z", "to": "ewa@example.com"});
    assert_eq!(seen.iter().map(|seen| seen.json().unwrap()).collect::<Vec<_>>(), [hi.clone(), hi]);
    world.stop().await;
}

/// I2: by workspace, action and id; also over a restart of the data plane.
#[tokio::test]
async fn an_event_counts_once() {
    let mut world = World::start().await;
    let body = r#"{"event": {{ event.eventUUID }}, "of": {{ currentStep.executionId }}}"#;
    world.acme.workflow("forms", started_by("form.submit", post(CRM, body))).await;
    world.acme.workflow("more", started_by("form.open", post(CRM, body))).await;
    world.acme.ready().await;
    let uuid = "0190A6C1-7E2B-7000-8000-000000000001";
    let with_id =
        |action: &str, event_id: &str| SubmitEventRequest { event_id: event_id.to_owned(), ..event(&world, action) };
    let first = with_id("form.submit", uuid);
    let (other_action, other_id) = (with_id("form.open", uuid), with_id("form.submit", "order-7"));
    let globex = world.workspace("globex").await;
    let early = SubmitEventRequest { parent: globex.name.clone(), ..first.clone() };
    let refused = submit(&world, early.clone()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "NOT_PUBLISHED"));
    assert!(refused.message().contains("nothing of `workspaces/globex`"), "{}", refused.message());
    let nowhere = submit(&world, SubmitEventRequest { parent: "workspaces/none".to_owned(), ..early }).await;
    assert_eq!(nowhere.unwrap_err().code(), Code::NotFound);
    globex.workflow("opens", started_by("form.open", post(CRM, "{}"))).await;
    let answer = submit(&world, first.clone()).await.unwrap();
    assert_eq!((answer.event_id.as_str(), answer.duplicate, answer.deliveries), (uuid, false, 1));
    let again = admin::SubmitEventResponse { event_id: uuid.to_owned(), duplicate: true, ..Default::default() };
    let changed = SubmitEventRequest { params: r#"{"other":1}"#.to_owned(), ..first.clone() };
    for repeated in [first.clone(), changed] {
        assert_eq!(submit(&world, repeated).await.unwrap(), again);
    }
    assert!(!submit(&world, other_action).await.unwrap().duplicate);
    assert!(!submit(&world, other_id).await.unwrap().duplicate);
    globex.ready().await;
    let elsewhere = submit(&world, SubmitEventRequest { parent: globex.name.clone(), ..first.clone() }).await.unwrap();
    assert_eq!((elsewhere.duplicate, elsewhere.workflows), (false, 0), "its own (I10)");
    world.restart_data_plane().await;
    world.acme.ready().await;
    assert_eq!(submit(&world, first).await.unwrap(), again);
    assert_eq!(world.acme.deliveries(3).await.len(), 3);
    let seen = world.destination.requests();
    let bodies: Vec<_> = seen.iter().map(|seen| seen.json().unwrap()).collect();
    assert!(bodies.contains(&json!({"event": uuid, "of": answer.trigger_id})), "{bodies:?}");
    assert_eq!(bodies.iter().filter(|body| body["event"] == body["of"]).count(), 1, "one has no UUID of its own");
    world.stop().await;
}

/// D06, D10: what cannot be taken now is refused by name, and nothing of it is kept.
#[tokio::test]
async fn what_cannot_be_taken_is_refused_and_can_be_sent_again() {
    let mut world = World::with(|options| {
        options.control_plane.limits.events_per_second = 2;
        *options.data_plane.inbox.max_jobs_mut() = 1;
    })
    .await;
    let mut workflow = started_by("form.submit", post(CRM, "{}"));
    workflow.steps.push(custom_webhook("Again", post(SLACK, "{}")));
    world.acme.workflow("forms", workflow).await;
    world.acme.ready().await;
    let refused = |status: &Status| (status.code(), reason(status));
    let full = submit(&world, SubmitEventRequest { event_id: "a".to_owned(), ..event(&world, "form.submit") });
    let full = full.await.unwrap_err();
    assert_eq!(refused(&full), (Code::ResourceExhausted, "INBOX_FULL".to_owned()));
    assert!(full.get_error_details().retry_info().unwrap().retry_delay.is_some());
    let last =
        eventually("a burst that is too much", || async { submit(&world, event(&world, "nobodys")).await.err() });
    let last = last.await;
    assert_eq!(refused(&last), (Code::ResourceExhausted, "OVERLOADED".to_owned()));
    assert!(last.message().contains("events_per_second"), "{}", last.message());
    assert!(last.get_error_details().retry_info().unwrap().retry_delay.is_some());

    *world.settings.data_plane.inbox.max_jobs_mut() = 10;
    world.stop_data_plane().await;
    let request = SubmitEventRequest { event_id: "a".to_owned(), ..event(&world, "form.submit") };
    let away = eventually("the data plane to be gone", || async {
        let status = submit(&world, request.clone()).await.unwrap_err();
        (refused(&status) == (Code::FailedPrecondition, "NO_DATA_PLANE".to_owned())).then_some(status)
    });
    away.await;
    world.start_data_plane().await;
    world.acme.ready().await;
    let taken = eventually("room for an event", || async { submit(&world, request.clone()).await.ok() }).await;
    assert_eq!((taken.duplicate, taken.deliveries), (false, 2), "what was refused was not claimed");
    world.stop().await;
}
