//! Requests that are tried out before anything is published (R080, R110 to R121, D22, S41).

use serde_json::json;
use sluice::destination::{Answer, Gate};
use sluice::dev;
use sluice_client::admin::connection::Scheme;
use sluice_client::admin::connection_target::Kind as Which;
use sluice_client::admin::failure::Reason;
use sluice_client::admin::schema_field::Type;
use sluice_client::admin::test_context::StartedBy;
use sluice_client::admin::test_target::Kind;
use sluice_client::{Client, admin};
use sluice_data_plane::inbox::{EmbeddedSettings, InboxSettings};
use sluice_tests::patience::eventually;
use sluice_tests::resources::{
    api_key_header, api_key_parameter, custom_webhook, existing, field, filled, header, oauth2, open, parameter, post,
    with_form,
};
use sluice_tests::resources::{condition, login_password, workflow};
use sluice_tests::{Numbers, Request, World, reason, violations};
use tonic::{Code, Status};

const URL: &str = "https://api.example.com/orders";
const SECRET: &str = "CANARY-secret-7f3a";

/// A world whose data plane takes commands.
async fn world() -> World {
    let world = World::start().await;
    connected(&world, 1).await;
    world
}

async fn connected(world: &World, count: usize) {
    eventually(&format!("{count} data planes to be connected"), || async {
        let request = admin::ListDataPlanesRequest::default();
        let planes = world.client.data_planes().list_data_planes(request).await.unwrap().into_inner().data_planes;
        (planes.iter().filter(|plane| plane.connected).count() == count).then_some(())
    })
    .await;
}

fn target(kind: Kind) -> Option<admin::TestTarget> {
    Some(admin::TestTarget { kind: Some(kind), ..Default::default() })
}

fn inline(request: admin::OutgoingRequest) -> Option<admin::TestTarget> {
    target(Kind::Request(request))
}

fn step(workflow: &str, step_id: &str) -> Option<admin::TestTarget> {
    target(Kind::Step(admin::TestStep { workflow: workflow.to_owned(), step_id: step_id.to_owned() }))
}

fn started(by: StartedBy) -> Option<admin::TestContext> {
    Some(admin::TestContext { started_by: Some(by), ..Default::default() })
}

/// A request of a sender with this body.
fn sample(body: &str) -> Option<admin::TestContext> {
    let headers = vec![admin::TestHeader { name: "X-Shop".to_owned(), value: "7".to_owned() }];
    started(StartedBy::Request(admin::TestTrigger { body: body.to_owned(), headers }))
}

async fn preview(
    world: &World,
    target: Option<admin::TestTarget>,
    context: Option<admin::TestContext>,
) -> Result<admin::RequestPreview, Status> {
    let request = admin::PreviewRequestRequest { parent: world.acme.name.clone(), target, context };
    Ok(world.client.tests().preview_request(request).await?.into_inner().preview.unwrap())
}

async fn send(
    world: &World,
    target: Option<admin::TestTarget>,
    context: Option<admin::TestContext>,
) -> Result<admin::SendTestRequestResponse, Status> {
    send_by(&world.client, sending(world, target, context)).await
}

fn sending(
    world: &World,
    target: Option<admin::TestTarget>,
    context: Option<admin::TestContext>,
) -> admin::SendTestRequestRequest {
    admin::SendTestRequestRequest { parent: world.acme.name.clone(), target, context, ..Default::default() }
}

async fn send_by(
    client: &Client,
    request: admin::SendTestRequestRequest,
) -> Result<admin::SendTestRequestResponse, Status> {
    Ok(client.tests().send_test_request(request).await?.into_inner())
}

fn body(preview: &admin::RequestPreview) -> String {
    String::from_utf8(preview.request.as_ref().unwrap_or_else(|| panic!("{preview:?}")).body.to_vec()).unwrap()
}

fn header_of<'p>(preview: &'p admin::RequestPreview, name: &str) -> &'p str {
    let headers = &preview.request.as_ref().unwrap().headers;
    &headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).unwrap_or_else(|| panic!("{name}")).value
}

/// A client that holds these roles of the workspace.
async fn caller(world: &World, roles: &[&str]) -> Client {
    let api_key = admin::AccessKey {
        display_name: "Tester".to_owned(),
        roles: roles.iter().map(|role| format!("{}/roles/{role}", world.acme.name)).collect(),
        ..Default::default()
    };
    let parent = world.acme.name.clone();
    let request = admin::CreateApiKeyRequest { parent, api_key: Some(api_key), ..Default::default() };
    let key = world.client.api_keys().create_api_key(request).await.unwrap().into_inner().key;
    Client::connect(&world.grpc_url(), &key).await.unwrap()
}

#[tokio::test]
async fn a_static_request_is_previewed_at_once_and_a_dynamic_one_says_what_it_needs_r112_r113_r114() {
    let world = world().await;
    let fixed = post(URL, r#"{"a": 1}"#);
    let shown = preview(&world, inline(fixed.clone()), None).await.unwrap();
    let request = shown.request.as_ref().unwrap();
    assert_eq!((request.method.as_str(), request.url.as_str(), body(&shown).as_str()), ("POST", URL, r#"{"a": 1}"#));
    assert_eq!((shown.json_check(), shown.needs_context.len()), (admin::JsonCheck::JsonValid, 0));
    let dynamic = admin::OutgoingRequest {
        headers: vec![header("X-Shop", "{{ request.headers['x-shop'] }}")],
        ..post(URL, "{\"id\": {{ request.body.id }},\n \"who\": \"{{ customer.email }}\"}")
    };
    let asked = preview(&world, inline(dynamic.clone()), None).await.unwrap();
    assert!(asked.request.is_none());
    let needs: Vec<_> = asked
        .needs_context
        .iter()
        .map(|used| (used.root.as_str(), used.field.as_str(), used.line, used.column))
        .collect();
    assert_eq!(needs, [("request", "headers[0].value", 1, 4), ("request", "body", 1, 11), ("customer", "body", 2, 13)]);
    let refused = send(&world, inline(dynamic.clone()), None).await.unwrap_err();
    assert_eq!((violations(&refused)[0].0.as_str(), violations(&refused)[0].1.as_str()), ("context", "REQUIRED"));
    assert!(refused.message().contains("`customer` (body, line 2, column 13)"), "{}", refused.message());
    // With a context there is a preview, and what is missing is told by name (D32).
    let shown_now = preview(&world, inline(dynamic), sample(r#"{"id": 5}"#)).await.unwrap();
    assert_eq!((body(&shown_now).as_str(), header_of(&shown_now, "x-shop")), ("{\"id\": 5,\n \"who\": \"\"}", "7"));
    assert_eq!(shown_now.missing_paths, ["customer.email"]);
    assert!(world.destination.requests().is_empty(), "nothing is sent to anybody");
}

#[tokio::test]
async fn what_is_tested_is_a_draft_a_version_or_a_step_before_it_is_used_r110_r111_s41() {
    let world = world().await;
    let outgoing = world.acme.outgoing("send", post(URL, r#"{"version": 1}"#)).await;
    let mut draft = outgoing.clone();
    draft.request = Some(post(URL, r#"{"version": 2}"#));
    world.acme.update_outgoing(draft).await;
    let of = |name: &str| target(Kind::OutgoingIntegration(name.to_owned()));
    let first = format!("{}/versions/1", outgoing.name);
    for (name, version) in [(outgoing.name.as_str(), 2), (first.as_str(), 1)] {
        let shown = preview(&world, of(name), None).await.unwrap();
        assert_eq!(body(&shown), format!(r#"{{"version": {version}}}"#));
    }
    let incoming = world.acme.incoming("orders", open()).await;
    let own = custom_webhook("Own", post(URL, r#"{"step": "{{ currentStep.blockName }}"}"#));
    let flow = world.acme.draft_workflow("flow", workflow(&incoming, [own, existing("Refers", &outgoing)])).await;
    let ids: Vec<&str> = flow.steps.iter().map(|step| step.step_id.as_str()).collect();
    assert_eq!(body(&preview(&world, step(&flow.name, ids[0]), None).await.unwrap()), r#"{"step": "Own"}"#);
    // What the draft of a workflow refers to is tested as a draft; what a version of it refers to, as it is in force.
    let sent = send(&world, step(&flow.name, ids[1]), None).await.unwrap();
    assert_eq!(body(&sent.preview.unwrap()), r#"{"version": 2}"#);
    assert_eq!(world.destination.wait_for(1).await.unwrap()[0].json().unwrap(), json!({"version": 2}));
    world.acme.publish_workflow(&flow.name).await.unwrap();
    let published = format!("{}/versions/1", flow.name);
    assert_eq!(body(&preview(&world, step(&published, ids[1]), None).await.unwrap()), r#"{"version": 1}"#);
    let refused = preview(&world, step(&flow.name, "nope"), None).await.unwrap_err();
    assert_eq!(violations(&refused)[0].1, "STEP_NOT_FOUND");
    let refused = preview(&world, of(&format!("{}/versions/9", outgoing.name)), None).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let refused = preview(&world, None, None).await.unwrap_err();
    assert_eq!(violations(&refused)[0].1, "REQUIRED");
    let broken = post("https://192.0.2.1/", "{{ nope");
    let refused = violations(&preview(&world, inline(broken), None).await.unwrap_err());
    let fields: Vec<&str> = refused.iter().map(|(field, ..)| field.as_str()).collect();
    assert_eq!(fields, ["target.request.url", "target.request.body"]);
}

/// D25: refused as in a step, beside the integration and in the draft of one whose form has changed.
#[tokio::test]
async fn a_value_for_which_the_form_has_no_field_is_refused() {
    let world = world().await;
    let schema = world.acme.schema("order", [field("note", Type::Text), field("more", Type::Text)]).await;
    let request = post(URL, r#"{"note": "{% context note %}"}"#);
    let outgoing = world.acme.draft_outgoing("send", with_form(&schema, request)).await;
    let with = |ids: &[&str]| {
        let form_values = ids.iter().map(|id| ((*id).to_owned(), "x".to_owned())).collect();
        let kind = Some(Kind::OutgoingIntegration(outgoing.name.clone()));
        Some(admin::TestTarget { kind, form_values })
    };
    assert_eq!(body(&preview(&world, with(&["note", "more"]), None).await.unwrap()), r#"{"note": "x"}"#);
    let first = |status: &Status| {
        let (field, reason, _) = violations(status).remove(0);
        (field, reason)
    };
    let unknown = |place: &str| (format!("{place}.form_values[other]"), "UNKNOWN_FORM_FIELD".to_owned());
    assert_eq!(first(&preview(&world, with(&["note", "other"]), None).await.unwrap_err()), unknown("target"));
    assert_eq!(first(&send(&world, with(&["other"]), None).await.unwrap_err()), unknown("target"));
    let incoming = world.acme.incoming("orders", open()).await;
    let values = [("note", "x"), ("more", "y")];
    let flow = world.acme.draft_workflow("flow", workflow(&incoming, [filled("Send", &outgoing, values)])).await;
    let target = step(&flow.name, &flow.steps[0].step_id);
    assert_eq!(body(&preview(&world, target.clone(), None).await.unwrap()), r#"{"note": "x"}"#);
    let fewer = admin::SchemaTemplate { fields: vec![field("note", Type::Text)], ..schema };
    world.acme.update_schema(fewer).await;
    let refused = first(&preview(&world, target, None).await.unwrap_err());
    assert_eq!(refused, ("target.step.form_values[more]".to_owned(), "UNKNOWN_FORM_FIELD".to_owned()));
    assert!(world.destination.requests().is_empty());
}

/// D22, S41: nobody is told of a test unless it is asked to tell; then its event is one like any other.
#[tokio::test]
async fn a_test_tells_its_response_event_when_it_is_asked_to() {
    let world = world().await;
    let telling = |action: &str, request| admin::OutgoingRequest { event_name: action.to_owned(), ..request };
    let response_event = Some(admin::ResponseEventTrigger { action: "crm.tested".to_owned() });
    let next = telling("next.told", post("https://api.example.com/next", r#"{"of": "{{ event.params.order }}"}"#));
    let follow_up = admin::Workflow {
        display_name: "Follow-up".to_owned(),
        triggers: vec![admin::Trigger { response_event, ..Default::default() }],
        steps: vec![custom_webhook("Next", next)],
        ..Default::default()
    };
    world.acme.workflow("follow-up", follow_up).await;
    world.acme.ready().await;
    world.destination.script_for("/orders", (0..2).map(|_| Answer::json(201, r#"{"total": 9.50}"#)));
    let request = admin::OutgoingRequest {
        event_parameters: vec![
            parameter("order", "{{ request.body.id }}"),
            parameter("answer", "{{ response.status }}"),
        ],
        ..telling("crm.tested", post(URL, r#"{"id": {{ request.body.id }}}"#))
    };
    let of = |id: &str| sending(&world, inline(request.clone()), sample(&format!(r#"{{"id": {id}}}"#)));
    let loud = |request| admin::SendTestRequestRequest { emit_event: true, ..request };
    assert_eq!(send_by(&world.client, of("1")).await.unwrap().event, "");
    let only_tried = admin::SendTestRequestRequest { validate_only: true, ..loud(of("2")) };
    assert_eq!(send_by(&world.client, only_tried).await.unwrap().event, "");
    let refused = send_by(&caller(&world, &["editor"]).await, loud(of("2"))).await.unwrap_err();
    assert_eq!((refused.code(), refused.message().contains("`events.submit`")), (Code::PermissionDenied, true));
    let tester = caller(&world, &["editor", "event-sender"]).await;
    let told = send_by(&tester, loud(of("2"))).await.unwrap().event;
    let away = inline(telling("crm.away", post("https://nowhere.example.org/", "{}")));
    assert!(!send_by(&tester, loud(sending(&world, away, None))).await.unwrap().event.is_empty());
    let killed = inline(post(URL, "{% kill %}"));
    assert_eq!(
        send_by(&tester, loud(sending(&world, killed, None))).await.unwrap().event,
        "",
        "nothing was attempted (D19)"
    );

    // What asks for it is started; what was not told has started nothing.
    assert_eq!(world.acme.deliveries(1).await.len(), 1);
    let mut events = world.acme.events(3).await;
    events.sort_by(|one, other| one.action.cmp(&other.action));
    let actions: Vec<&str> = events.iter().map(|event| event.action.as_str()).collect();
    assert_eq!(actions, ["crm.away", "crm.tested", "next.told"]);
    let [away, tested, next] = events.as_slice() else { panic!() };
    assert_eq!((&away.params["status"], &away.params["statusDescription"]), (&json!(0), &json!("DNS_ERROR")));
    let (order, answer, total) = (&tested.params["order"], &tested.params["answer"], &tested.params["body.total"]);
    assert_eq!((order, answer, total.to_string().as_str()), (&json!("2"), &json!("201"), "9.50"));
    assert_eq!(told, format!("{}/events/{}", world.acme.name, tested.params["eventUUID"].as_str().unwrap()));
    assert_eq!((tested.delivery.as_str(), next.delivery.is_empty()), ("", false));
    let seen = world.destination.requests();
    let of_next: Vec<_> = seen.iter().filter(|seen| seen.target == "/next").map(|seen| seen.json().unwrap()).collect();
    assert_eq!(of_next, [json!({"of": "2"})]);
    let hops = seen.iter().filter(|seen| seen.target == "/next").map(|seen| seen.header("sluice-hops").unwrap());
    assert_eq!(hops.collect::<Vec<_>>(), ["2"]);
}

#[tokio::test]
async fn a_test_profile_and_an_event_of_it_or_ones_own_are_the_context_r115_r116_r117() {
    let world = world().await;
    let event = |action: &str, params: &str| admin::TestEvent {
        action: action.to_owned(),
        params: params.to_owned(),
        time: None,
    };
    let profile = admin::TestProfile {
        display_name: "Ann".to_owned(),
        attributes: r#"{"email": "ann@example.com"}"#.to_owned(),
        events: vec![event("page.visit", r#"{"url": "/a"}"#), event("order.made", r#"{"total": 12.50}"#)],
        ..Default::default()
    };
    let create = admin::CreateTestProfileRequest {
        parent: world.acme.name.clone(),
        test_profile: Some(profile),
        ..Default::default()
    };
    let profile = world.client.test_profiles().create_test_profile(create).await.unwrap().into_inner();
    let request =
        post(URL, r#"{"who": "{{ customer.email }}", "did": "{{ event.action }}", "total": {{ event.params.total }}}"#);
    let context =
        |by: Option<StartedBy>| Some(admin::TestContext { test_profile: profile.name.clone(), started_by: by });
    for (by, printed) in [
        (None, r#"{"who": "ann@example.com", "did": "", "total": null}"#),
        (Some(StartedBy::ProfileEvent(1)), r#"{"who": "ann@example.com", "did": "order.made", "total": 12.50}"#),
        (
            Some(StartedBy::Event(event("mine", r#"{"total": 1.500}"#))),
            r#"{"who": "ann@example.com", "did": "mine", "total": 1.500}"#,
        ),
    ] {
        let shown = preview(&world, inline(request.clone()), context(by.clone())).await.unwrap();
        assert_eq!(body(&shown), printed, "{by:?}");
    }
    let refused =
        preview(&world, inline(request.clone()), context(Some(StartedBy::ProfileEvent(2)))).await.unwrap_err();
    assert_eq!(violations(&refused)[0].1, "OUT_OF_RANGE");
    let wrong = context(Some(StartedBy::Event(event("", "[1]"))));
    let refused = violations(&preview(&world, inline(request), wrong).await.unwrap_err());
    let fields: Vec<&str> = refused.iter().map(|(field, ..)| field.as_str()).collect();
    assert_eq!(fields, ["context.event.action", "context.event.params"]);
    // A workflow that is started by a request has no customer, on test too (R080, D02).
    let incoming = world.acme.incoming("orders", open()).await;
    let steps = [
        custom_webhook("Uses", post(URL, r#"{"who": "{{ customer.email }}"}"#)),
        custom_webhook("Plain", post(URL, r#"{"id": "{{ request.body.id }}"}"#)),
    ];
    let flow = world.acme.draft_workflow("flow", workflow(&incoming, steps)).await;
    for (id, context) in [(0, sample("{}")), (0, context(None)), (1, context(None))] {
        let refused = preview(&world, step(&flow.name, &flow.steps[id].step_id), context).await.unwrap_err();
        assert_eq!(violations(&refused)[0].1, "CUSTOMER_NOT_AVAILABLE", "{id}");
    }
}

#[tokio::test]
async fn a_captured_request_is_the_context() {
    let world = world().await;
    let incoming = world.acme.draft_incoming("orders", open()).await;
    let request = post(URL, r#"{"id": {{ request.body.id }}, "by": "{{ request.headers['x-shop'] }}"}"#);
    let context = || started(StartedBy::Captured(incoming.name.clone()));
    let none = preview(&world, inline(request.clone()), context()).await.unwrap_err();
    assert_eq!(reason(&none), "NOT_CAPTURED");
    let start = admin::StartCaptureRequest { parent: incoming.name.clone(), ..Default::default() };
    world.client.captures().start_capture(start).await.unwrap();
    let sent = Request::post(&incoming.endpoint_path, r#"{"id": 18446744073709551617}"#).header("X-Shop", "9");
    assert_eq!(world.send(&sent).await.status, 200);
    let shown = eventually("the sample to be stored", || async {
        preview(&world, inline(request.clone()), context()).await.ok()
    })
    .await;
    assert_eq!(body(&shown), r#"{"id": 18446744073709551617, "by": "9"}"#);
}

#[tokio::test]
async fn a_test_request_is_sent_once_with_its_credentials_and_shows_the_response_r118_r119() {
    let world = world().await;
    let connection = world.acme.connection("crm", login_password("login", SECRET)).await;
    let request = admin::OutgoingRequest {
        connection: connection.name.clone(),
        retry: Some(admin::RetryPolicy { attempts_max: 5, ..Default::default() }),
        ..post(URL, r#"{"id": {{ request.body.id }}}"#)
    };
    let answer = Answer::json(503, r#"{"error": "later"}"#).header("Retry-After", "120").header("X-Id", "r-1");
    world.destination.script_for("/orders", [answer]);
    let sent = send(&world, inline(request.clone()), sample(r#"{"id": 3}"#)).await.unwrap();
    let outcome = sent.outcome.unwrap();
    assert_eq!((outcome.status, outcome.failure()), (503, Reason::Status));
    assert!(outcome.send_time.is_some() && outcome.message.contains("503"));
    let response = outcome.response.unwrap();
    assert_eq!((&response.body[..], response.body_truncated), (&br#"{"error": "later"}"#[..], false));
    assert!(response.headers.iter().any(|header| header.name == "x-id" && header.value == "r-1"));
    assert_eq!(sent.data_plane, "dataPlanes/test");
    assert_eq!(header_of(&sent.preview.unwrap(), "authorization"), "******");
    let seen = world.destination.wait_for(1).await.unwrap();
    assert!(seen[0].header("authorization").is_some_and(|value| value.starts_with("Basic ")));
    assert_eq!(seen[0].json().unwrap(), json!({"id": 3}));

    // No retry, no delivery, no event, nothing of an attempt in the numbers; the destination is not held up for others (S41).
    let again = Answer::json(200, format!("{}x", "y".repeat(70 * 1024)));
    world.destination.script_for("/orders", [again]);
    let sent = send(&world, inline(request), sample(r#"{"id": 4}"#)).await.unwrap();
    let response = sent.outcome.unwrap().response.unwrap();
    assert_eq!((response.body.len(), response.body_truncated), (64 * 1024, true));
    assert_eq!(world.destination.requests().len(), 2);
    let request = admin::ListDeliveriesRequest { parent: world.acme.name.clone(), ..Default::default() };
    let listed = world.client.deliveries().list_deliveries(request).await.unwrap().into_inner().deliveries;
    assert!(listed.is_empty(), "{listed:?}");
    let numbers = Numbers::of(world.health()).await;
    assert!(!numbers.text().contains("sluice_attempts_total{"), "{}", numbers.text());
    assert_eq!(numbers.get(r#"sluice_test_requests_total{result="5xx"}"#), 1.0);
    assert_eq!(numbers.get(r#"sluice_test_requests_total{result="2xx"}"#), 1.0);
    assert!(numbers.is_idle());
}

/// Without the id that each test has.
fn unnamed(mut preview: admin::RequestPreview) -> admin::RequestPreview {
    preview.request.as_mut().unwrap().headers.retain(|header| header.name != "Idempotency-Key");
    preview
}

#[tokio::test]
async fn no_answer_tells_a_secret_i7() {
    let world = world().await;
    let echo = format!(r#"{{"you": "{SECRET}"}}"#);
    world.destination.script_for("/orders", (0..2).map(|_| Answer::json(200, echo.clone()).header("X-You", SECRET)));
    let schemes =
        [api_key_header(SECRET, "X-Key", "Key {{secret}}"), api_key_parameter(SECRET, "api_key", "{{secret}}")];
    for (index, scheme) in schemes.into_iter().enumerate() {
        let connection = world.acme.connection(&format!("crm-{index}"), scheme).await;
        let request = admin::OutgoingRequest {
            connection: connection.name,
            headers: vec![header("Authorization", &format!("Bearer {SECRET}")), header("X-Plain", "plain")],
            ..post(&format!("{URL}?token={SECRET}&a=1"), r#"{"a": 1}"#)
        };
        let shown_first = preview(&world, inline(request.clone()), None).await.unwrap();
        assert_eq!((header_of(&shown_first, "authorization"), header_of(&shown_first, "x-plain")), ("******", "plain"));
        let url = &shown_first.request.as_ref().unwrap().url;
        assert!(url.starts_with(&format!("{URL}?token=******&a=1")), "{url}");
        let sent = send(&world, inline(request), None).await.unwrap();
        let told = format!(
            "{shown_first:?}{sent:?}{}",
            String::from_utf8_lossy(&sent.outcome.as_ref().unwrap().response.as_ref().unwrap().body)
        );
        assert!(!told.contains("CANARY"), "{told}");
        assert_eq!(unnamed(sent.preview.unwrap()), unnamed(shown_first), "what is previewed is what is sent");
    }
    let seen = world.destination.wait_for(2).await.unwrap();
    assert_eq!(seen[0].header("x-key"), Some(format!("Key {SECRET}").as_str()));
    assert!(seen[1].target.ends_with(&format!("&api_key={SECRET}")), "{}", seen[1].target);
}

#[tokio::test]
async fn what_keeps_a_request_from_being_made_is_told_by_field_line_and_column() {
    let world = world().await;
    let problem = async |request: admin::OutgoingRequest, context| {
        let shown = preview(&world, inline(request.clone()), context).await.unwrap();
        (shown.problem.unwrap_or_default(), shown.json_check)
    };
    let broken = post(URL, "{\"a\": 1,\n \"b\": {{ request.body.raw | safe }}}");
    let (found, check) = problem(broken.clone(), sample(r#"{"raw": "{{{"}"#)).await;
    assert_eq!(found.reason(), Reason::RenderInvalidJson, "{found:?}");
    assert_eq!((found.field.as_str(), found.line), ("body", 2));
    assert_eq!(check, i32::from(admin::JsonCheck::JsonInvalid));
    let outcome = send(&world, inline(broken), sample(r#"{"raw": "{{{"}"#)).await.unwrap().outcome.unwrap();
    assert_eq!((outcome.failure(), outcome.status, outcome.send_time), (Reason::RenderInvalidJson, 0, None));
    // Exactly as written, it is sent as it is and flagged (S31).
    let exact = admin::OutgoingRequest { template_mode: admin::TemplateMode::Exact.into(), ..post(URL, "{nope") };
    let shown = preview(&world, inline(exact), None).await.unwrap();
    assert_eq!((shown.json_check(), body(&shown).as_str()), (admin::JsonCheck::JsonInvalid, "{nope"));
    let xml = admin::OutgoingRequest { headers: vec![header("Content-Type", "text/xml")], ..post(URL, "<a/>") };
    assert_eq!(preview(&world, inline(xml), None).await.unwrap().json_check(), admin::JsonCheck::Unspecified);
    // Skipped is a clean result (D19).
    let killed = post(URL, r#"{% if request.body.stop %}{% kill %}{% endif %}{"a": 1}"#);
    let shown = preview(&world, inline(killed.clone()), sample(r#"{"stop": true}"#)).await.unwrap();
    assert!(shown.skipped.contains("kill") && shown.problem.is_none() && shown.request.is_none(), "{shown:?}");
    let outcome = send(&world, inline(killed), sample(r#"{"stop": true}"#)).await.unwrap().outcome.unwrap();
    assert_eq!(outcome.failure(), Reason::Skipped);
    let elsewhere = post("https://nowhere.example.org/", "{}");
    let outcome = send(&world, inline(elsewhere), None).await.unwrap().outcome.unwrap();
    assert_eq!((outcome.failure(), outcome.response.is_none()), (Reason::DnsError, true), "{outcome:?}");
    assert!(world.destination.requests().is_empty());
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_and_shared_with_deliveries_s21() {
    let world = world().await;
    let grants = |token: &str| {
        Answer::json(200, json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600}).to_string())
    };
    world.destination.script_for("/token", [grants("CANARY-token-1"), grants("CANARY-token-2")]);
    world.destination.script_for("/orders", [Answer::json(200, "{}"), Answer::status(401), Answer::json(200, "{}")]);
    let connection = world.acme.connection("crm", oauth2("https://api.example.com/token", SECRET)).await;
    world.served().await;
    let request = admin::OutgoingRequest { connection: connection.name, ..post(URL, "{}") };
    for renewed in [false, true] {
        let sent = send(&world, inline(request.clone()), None).await.unwrap();
        let outcome = sent.outcome.clone().unwrap();
        assert_eq!((outcome.status, outcome.token_renewed), (200, renewed), "{outcome:?}");
        assert!(!format!("{sent:?}").contains("CANARY"));
    }
    let paths: Vec<String> = world.destination.requests().iter().map(|seen| seen.target.clone()).collect();
    assert_eq!(paths, ["/token", "/orders", "/orders", "/token", "/orders"]);
    // A preview fetches none.
    let shown_only = preview(&world, inline(request), None).await.unwrap();
    assert_eq!(header_of(&shown_only, "authorization"), "******");
    assert_eq!(world.destination.requests().len(), 5);
}

#[tokio::test]
async fn who_sends_with_a_connection_may_use_connections() {
    let world = world().await;
    let connection = world.acme.connection("crm", login_password("login", SECRET)).await;
    let plain = sending(&world, inline(post(URL, "{}")), None);
    let secret =
        sending(&world, inline(admin::OutgoingRequest { connection: connection.name, ..post(URL, "{}") }), None);
    let editor = caller(&world, &["editor"]).await;
    send_by(&editor, plain.clone()).await.unwrap();
    let refused = send_by(&editor, secret.clone()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message().contains("connections.test")), (Code::PermissionDenied, true));
    send_by(&caller(&world, &["editor", "connection-executor"]).await, secret.clone()).await.unwrap();
    let viewer = caller(&world, &["viewer"]).await;
    assert_eq!(send_by(&viewer, plain.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    let asked = admin::PreviewRequestRequest { parent: plain.parent, target: plain.target, context: None };
    viewer.tests().preview_request(asked).await.unwrap();
    assert_eq!(world.destination.requests().len(), 2);
}

#[tokio::test]
async fn the_same_test_is_sent_once_and_nothing_is_kept_of_its_answer() {
    let world = world().await;
    let request_id = "67e55044-10b1-426f-9247-bb680e5fe0c8".to_owned();
    let request = admin::SendTestRequestRequest { request_id, ..sending(&world, inline(post(URL, "{}")), None) };
    let only_tried = admin::SendTestRequestRequest { validate_only: true, ..request.clone() };
    assert_eq!(send_by(&world.client, only_tried).await.unwrap().outcome, None);
    assert!(send_by(&world.client, request.clone()).await.unwrap().outcome.is_some());
    let again = send_by(&world.client, request.clone()).await.unwrap_err();
    assert_eq!((again.code(), reason(&again).as_str()), (Code::AlreadyExists, "TEST_MADE"));
    assert!(again.message().contains("test again with another one"), "{}", again.message());
    let other = admin::SendTestRequestRequest { target: inline(post(URL, "[]")), ..request };
    assert_eq!(reason(&send_by(&world.client, other).await.unwrap_err()), "REQUEST_ID_REUSED");
    assert_eq!(world.destination.requests().len(), 1);
}

#[tokio::test]
async fn a_workspace_makes_so_many_tests_at_once_and_in_a_minute() {
    let world = World::with(|options| {
        options.control_plane.limits.tests_at_once = 1;
        options.control_plane.limits.tests_per_minute = 2;
    })
    .await;
    connected(&world, 1).await;
    let gate = Gate::new();
    world.destination.script_for("/orders", [Answer::json(200, "{}").after(&gate)]);
    let held = tokio::spawn(send_by_owned(world.client.clone(), sending(&world, inline(post(URL, "{}")), None)));
    world.destination.wait_for(1).await.unwrap();
    let refused = preview(&world, inline(post(URL, "{}")), None).await.unwrap_err();
    assert_eq!((refused.code(), refused.message().contains("`tests_at_once`")), (Code::ResourceExhausted, true));
    gate.open();
    held.await.unwrap().unwrap();
    preview(&world, inline(post(URL, "{}")), None).await.unwrap();
    let refused = preview(&world, inline(post(URL, "{}")), None).await.unwrap_err();
    assert!(refused.message().contains("`tests_per_minute`"), "{}", refused.message());
}

async fn send_by_owned(
    client: Client,
    request: admin::SendTestRequestRequest,
) -> Result<admin::SendTestRequestResponse, Status> {
    send_by(&client, request).await
}

#[tokio::test]
async fn any_data_plane_will_do_and_one_that_goes_away_midway_is_not_replaced_d22() {
    let mut world = world().await;
    let folder = tempfile::tempdir().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let mut settings = world.settings.data_plane.clone();
    settings.data_plane_id = "second".to_owned();
    settings.data_dir = folder.path().to_owned();
    settings.inbox = InboxSettings::Embedded(EmbeddedSettings::new(folder.path().join("inbox.db")));
    let second = dev::run_data_plane(settings, any, any).await.unwrap();
    connected(&world, 2).await;
    let fixed = || inline(post(URL, "{}"));
    let mut made = std::collections::BTreeSet::new();
    while made.len() < 2 {
        made.insert(send(&world, fixed(), None).await.unwrap().data_plane);
    }
    world.stop_data_plane().await;
    connected(&world, 1).await;
    assert_eq!(send(&world, fixed(), None).await.unwrap().data_plane, "dataPlanes/second");

    let before = world.destination.requests().len();
    world.destination.script_for("/held", [Answer::hang()]);
    let held = inline(post("https://api.example.com/held", "{}"));
    let sent = tokio::spawn(send_by_owned(world.client.clone(), sending(&world, held, None)));
    world.destination.wait_for(before + 1).await.unwrap();
    second.stop().await.unwrap();
    let away = sent.await.unwrap().unwrap_err();
    assert_eq!((away.code(), reason(&away).as_str()), (Code::Unavailable, "DATA_PLANE_UNAVAILABLE"));
    assert_eq!(world.destination.requests().len(), before + 1, "never twice");
    // Each is written down once, the one that failed after it had begun, too.
    let filter =
        admin::AuditFilter { method: "sluice.admin.v1.TestService/SendTestRequest".to_owned(), ..Default::default() };
    let parent = world.acme.name.clone();
    let request =
        admin::ListAuditEntriesRequest { parent, page_size: 1000, filter: Some(filter), ..Default::default() };
    let entries = world.client.audit().list_audit_entries(request).await.unwrap().into_inner().audit_entries;
    assert!(entries.iter().all(|entry| entry.outcome() == admin::AuditOutcome::Done), "{entries:?}");
    assert_eq!(entries.len(), before + 1);
    connected(&world, 0).await;
    for refused in [send(&world, fixed(), None).await.unwrap_err(), preview(&world, fixed(), None).await.unwrap_err()] {
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "NO_DATA_PLANE"));
    }
}

fn stored(connection: &admin::Connection) -> Option<admin::ConnectionTarget> {
    Some(admin::ConnectionTarget { kind: Some(Which::Connection(connection.name.clone())) })
}

fn drafted(connection: admin::Connection) -> Option<admin::ConnectionTarget> {
    Some(admin::ConnectionTarget { kind: Some(Which::Draft(connection)) })
}

async fn retrieve(
    client: &Client,
    parent: &str,
    target: Option<admin::ConnectionTarget>,
) -> Result<admin::RetrieveAuthResponseResponse, Status> {
    let request = admin::RetrieveAuthResponseRequest { parent: parent.to_owned(), target, ..Default::default() };
    Ok(client.tests().retrieve_auth_response(request).await?.into_inner())
}

async fn try_connection(world: &World, target: Option<admin::ConnectionTarget>) -> admin::TestConnectionResponse {
    let request = admin::TestConnectionRequest { parent: world.acme.name.clone(), target, ..Default::default() };
    world.client.tests().test_connection(request).await.unwrap().into_inner()
}

fn custom(url: &str, placed: &str) -> Scheme {
    Scheme::Custom(admin::CustomConnection {
        secret: SECRET.to_owned(),
        auth_request: Some(admin::CustomAuthRequest {
            url: url.to_owned(),
            body: Some(r#"{"api-key": "{{secret}}"}"#.to_owned()),
            ..Default::default()
        }),
        headers: vec![admin::CustomPlacement { name: "X-Auth".to_owned(), value: placed.to_owned() }],
        ..Default::default()
    })
}

#[tokio::test]
async fn the_authorization_request_is_run_and_its_answer_shown_without_the_token_r048() {
    let world = world().await;
    let token = json!({"data": {"token": "CANARY-token-9f3c"}, "ttl": 60, "said": SECRET, "token_type": "Bearer"});
    world
        .destination
        .script_for("/auth", (0..4).map(|_| Answer::json(200, token.to_string()).header("X-Token", "CANARY")));
    let url = "https://api.example.com/auth";
    let good = "Bearer {{ authResponseBody | fromjson | attr('data') | attr('token') }}";
    let connection = world.acme.connection("crm", custom(url, good)).await;
    world.served().await;
    let parent = world.acme.name.clone();
    let shown = retrieve(&world.client, &parent, stored(&connection)).await.unwrap();
    let body = String::from_utf8(shown.response.as_ref().unwrap().body.to_vec()).unwrap();
    assert_eq!(body, r#"{"data":{"token":"******"},"ttl":60,"said":"******","token_type":"Bearer"}"#);
    let placed: Vec<_> = shown.placements.iter().map(|one| (one.name.as_str(), one.value.as_str())).collect();
    assert_eq!((placed.as_slice(), shown.status), (&[("X-Auth", "Bearer ******")][..], 200));
    assert!(!format!("{shown:?}{body}").contains("CANARY"));
    assert_eq!(world.destination.requests()[0].json().unwrap(), json!({"api-key": SECRET}));
    // A draft whose placement finds nothing yet, with the secret that is stored.
    let change =
        |scheme| admin::Connection { name: connection.name.clone(), scheme: Some(scheme), ..connection.clone() };
    let Scheme::Custom(unfinished) = custom(url, "{{ authResponseBody | fromjson | attr('nope') }}") else { panic!() };
    let unfinished = change(Scheme::Custom(admin::CustomConnection { secret: String::new(), ..unfinished }));
    let shown = retrieve(&world.client, &parent, drafted(unfinished.clone())).await.unwrap();
    assert_eq!(shown.error(), admin::TokenError::NoToken);
    assert!(shown.placements[0].error.contains("headers[0].value"), "{shown:?}");
    assert!(!format!("{shown:?}").contains("CANARY"));
    // Who may only use connections sends stored secrets nowhere else.
    let executor = caller(&world, &["connection-executor"]).await;
    let refused = retrieve(&executor, &parent, drafted(unfinished)).await.unwrap_err();
    assert_eq!((refused.code(), refused.message().contains("connections.update")), (Code::PermissionDenied, true));
    retrieve(&executor, &parent, stored(&connection)).await.unwrap();
    // Deliveries neither had the token nor got it.
    let request = admin::ListTokenStatesRequest { parent: connection.name.clone(), ..Default::default() };
    let states = world.client.connections().list_token_states(request).await.unwrap().into_inner().token_states;
    assert!(states.is_empty(), "{states:?}");
    let plain = world.acme.connection("plain", login_password("login", SECRET)).await;
    let refused = retrieve(&world.client, &parent, stored(&plain)).await.unwrap_err();
    assert_eq!(violations(&refused)[0].1, "NO_AUTH_REQUEST");
}

#[tokio::test]
async fn a_connection_says_whether_it_can_be_used() {
    let world = world().await;
    let granted = json!({"access_token": "CANARY-token", "token_type": "Bearer", "expires_in": 3600}).to_string();
    let refused = Answer::json(401, format!(r#"{{"error": "no {SECRET}"}}"#));
    world.destination.script_for("/token", [Answer::json(200, granted), refused, Answer::json(200, "{}")]);
    let connection = world.acme.connection("crm", oauth2("https://api.example.com/token", SECRET)).await;
    let tested = try_connection(&world, stored(&connection)).await;
    assert!(tested.usable && tested.message.is_empty(), "{tested:?}");
    for (error, status) in [(admin::TokenError::Refused, 401), (admin::TokenError::NoToken, 200)] {
        let tested = try_connection(&world, stored(&connection)).await;
        assert_eq!((tested.usable, tested.error(), tested.status), (false, error, status), "{tested:?}");
        assert!(!format!("{tested:?}").contains("CANARY"));
    }
    let plain = world.acme.connection("plain", api_key_header(SECRET, "X-Key", "{{secret}}")).await;
    assert!(try_connection(&world, stored(&plain)).await.usable);
    let away = admin::Connection {
        display_name: "Away".to_owned(),
        scheme: Some(oauth2("https://nowhere.example.org/token", SECRET)),
        ..Default::default()
    };
    assert_eq!(try_connection(&world, drafted(away)).await.error(), admin::TokenError::Dns);
    assert_eq!(world.destination.requests().len(), 3);
}

#[tokio::test]
async fn a_sample_tells_which_workflows_it_would_start_and_why_d17() {
    use admin::filter::Kind as Is;
    let world = World::start().await;
    let incoming = world.acme.incoming("orders", open()).await;
    let group = |filters: Vec<admin::Filter>| admin::FilterGroup { filters };
    let not = |filter| admin::Filter { kind: Some(Is::Not(Box::new(filter))) };
    let filter = admin::Filter {
        kind: Some(Is::All(group(vec![
            condition("body.total", admin::Operator::Greater, ["10"]),
            not(condition("body.kind", admin::Operator::Equals, ["\"test\""])),
            condition("body.items[*].sku", admin::Operator::Equals, ["\"b\""]),
        ]))),
    };
    let step = || [custom_webhook("Send", post(URL, "{}"))];
    let mut wanting = workflow(&incoming, step());
    wanting.triggers[0].filter = Some(filter);
    wanting.triggers[0].allow_unseen = true;
    let published = world.acme.workflow("wants", wanting).await;
    let draft = world.acme.draft_workflow("draft", workflow(&incoming, step())).await;
    let evaluate = async |body: &str, drafts: bool| {
        let request = admin::EvaluateWorkflowsRequest {
            parent: world.acme.name.clone(),
            context: sample(body),
            incoming_integration: incoming.name.clone(),
            drafts,
        };
        world.client.tests().evaluate_workflows(request).await.unwrap().into_inner().workflows
    };
    let found = evaluate(r#"{"total": "12", "kind": "real", "items": [{"sku": "a"}, {"sku": "b"}]}"#, false).await;
    assert_eq!((found.len(), found[0].workflow.as_str(), found[0].matches), (1, published.name.as_str(), false));
    let told: Vec<_> = found[0].triggers[0]
        .conditions
        .iter()
        .map(|one| {
            let values: Vec<_> = one.found.iter().map(|found| (found.r#type(), found.value.as_str())).collect();
            (one.place.as_str(), one.holds, values)
        })
        .collect();
    use admin::FoundType::FoundText;
    assert_eq!(
        told,
        [
            ("all.filters[0].condition", false, vec![(FoundText, "\"12\"")]),
            ("all.filters[1].not.condition", false, vec![(FoundText, "\"real\"")]),
            ("all.filters[2].condition", true, vec![(FoundText, "\"a\""), (FoundText, "\"b\"")]),
        ]
    );
    let body = r#"{"total": 12, "kind": "real", "items": [{"sku": "b"}]}"#;
    assert!(evaluate(body, false).await[0].matches);
    let names: Vec<String> = evaluate(body, true).await.into_iter().map(|one| one.workflow).collect();
    assert_eq!(names, [draft.name.clone(), published.name.clone()]);
}

#[tokio::test]
async fn an_event_tells_which_workflows_it_would_start_and_a_member_which_audiences_take_it_r126() {
    let world = World::start().await;
    let shop = condition("event.params.shop", admin::Operator::Equals, ["7"]);
    let audience = admin::Trigger {
        audience: Some(admin::AudienceTrigger {}),
        filter: Some(shop),
        allow_unseen: true,
        ..Default::default()
    };
    let members = admin::Workflow {
        display_name: "Members".to_owned(),
        triggers: vec![audience],
        steps: vec![custom_webhook("Send", post(URL, "{}"))],
        ..Default::default()
    };
    let members = world.acme.workflow("members", members).await.name;
    let evaluate = async |action: &str, params: &str| {
        let event = admin::TestEvent { action: action.to_owned(), params: params.to_owned(), ..Default::default() };
        let request = admin::EvaluateWorkflowsRequest {
            parent: world.acme.name.clone(),
            context: started(StartedBy::Event(event)),
            ..Default::default()
        };
        let found = world.client.tests().evaluate_workflows(request).await.unwrap().into_inner().workflows;
        found.into_iter().map(|one| (one.workflow, one.matches)).collect::<Vec<_>>()
    };
    assert_eq!(evaluate("audience", r#"{"shop": 7}"#).await, [(members.clone(), true)]);
    assert_eq!(evaluate("audience", r#"{"shop": 8}"#).await, [(members, false)]);
    assert!(evaluate("nobody.listens", r#"{"shop": 7}"#).await.is_empty());
}

#[tokio::test]
async fn what_a_response_has_becomes_known_of_its_event_r120_r121() {
    let world = world().await;
    let body = r#"{"id": "T-1", "items": [{"sku": "a"}], "total": 1}"#;
    world.destination.script_for("/orders", [Answer::json(200, body), Answer::json(200, r#"{"more": 1}"#)]);
    let request = admin::OutgoingRequest { event_name: "ticket.made".to_owned(), ..post(URL, "{}") };
    let update = async |receipt: &str, etag: &str| {
        let request = admin::UpdateResponseEventRequest {
            parent: world.acme.name.clone(),
            response_receipt: receipt.to_owned(),
            etag: etag.to_owned(),
            ..Default::default()
        };
        Ok::<_, Status>(world.client.tests().update_response_event(request).await?.into_inner())
    };
    let names = |definition: &admin::EventDefinition| -> Vec<String> {
        definition.parameters.iter().map(|parameter| parameter.name.clone()).collect()
    };
    let first = send(&world, inline(request.clone()), None).await.unwrap();
    let made = update(&first.response_receipt, "").await.unwrap();
    assert_eq!((made.action.as_str(), names(&made)), ("ticket.made", first.event_parameters.clone()));
    for expected in ["status", "req.url", "body.id", "body.items[0].sku", "body.total"] {
        assert!(names(&made).iter().any(|name| name == expected), "{expected}: {:?}", names(&made));
    }
    let second = send(&world, inline(request.clone()), None).await.unwrap();
    let stale = update(&second.response_receipt, "stale").await.unwrap_err();
    assert_eq!(stale.code(), Code::Aborted);
    let merged = update(&second.response_receipt, &made.etag).await.unwrap();
    assert_eq!((&merged.name, names(&merged).last().map(String::as_str)), (&made.name, Some("body.more")));
    assert_eq!(names(&merged).len(), names(&made).len() + 1, "what was known stays, once");
    // Only after a response (R120), and only here.
    let nowhere = send(&world, inline(post("https://nowhere.example.org/", "{}")), None).await.unwrap();
    assert!(nowhere.response_receipt.is_empty());
    let other = world.workspace("other").await;
    let elsewhere = admin::UpdateResponseEventRequest {
        parent: other.name,
        response_receipt: second.response_receipt,
        ..Default::default()
    };
    for refused in [
        world.client.tests().update_response_event(elsewhere).await.unwrap_err(),
        update("", "").await.unwrap_err(),
        update("AAAA", "").await.unwrap_err(),
    ] {
        assert_eq!(violations(&refused)[0].1, "RECEIPT_INVALID");
    }
}
