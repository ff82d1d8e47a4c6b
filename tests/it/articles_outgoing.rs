//! The two articles on outgoing integrations, walked step by step through the API in the order of their text: the node with its custom
//! webhook (`001`), and reusable integrations (`002`). Each step asserts what the text says the author sees.

use serde_json::{Value, json};
use sluice::destination::Answer;
use sluice_client::admin;
use sluice_client::admin::connection::Scheme;
use sluice_client::admin::connection_target::Kind as Which;
use sluice_client::admin::schema_field::Type;
use sluice_client::admin::test_context::StartedBy;
use sluice_client::admin::test_target::Kind as Target;
use sluice_tests::resources::{
    api_key_header, api_key_parameter, custom_webhook, existing, field, filled, header, login_password, oauth2, open,
    parameter, post, with_form, workflow,
};
use sluice_tests::{World, eventually, violations};
use tonic::Status;

const RESERVED: [&str; 12] = [
    "eventUUID",
    "status",
    "statusDescription",
    "uuid",
    "clientId",
    "diagramId",
    "diagramName",
    "blockId",
    "blockName",
    "req",
    "name",
    "body",
];

/// A picture of one pixel.
pub(crate) const PNG: &[u8] =
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0\x3a\x7e\x9b\x55\0\0\0\0IEND\xaeB`\x82";

async fn create(
    world: &World,
    id: &str,
    outgoing: admin::OutgoingIntegration,
) -> Result<admin::OutgoingIntegration, Status> {
    let request = admin::CreateOutgoingIntegrationRequest {
        parent: world.acme.name.clone(),
        outgoing_integration_id: id.to_owned(),
        outgoing_integration: Some(outgoing),
        ..Default::default()
    };
    Ok(world.client.outgoing_integrations().create_outgoing_integration(request).await?.into_inner())
}

/// What is wrong with a request, as its author is told.
async fn wrong(world: &World, request: admin::OutgoingRequest) -> Vec<(String, String, String)> {
    let outgoing =
        admin::OutgoingIntegration { display_name: "Tried".to_owned(), request: Some(request), ..Default::default() };
    violations(&create(world, "tried", outgoing).await.unwrap_err())
}

/// "Select the authentication method": every one of the newest list (R020), as the dropdown "Select connection" shows it.
async fn connections(world: &World) -> Vec<admin::Connection> {
    let custom = Scheme::Custom(admin::CustomConnection {
        secret: "k-1".to_owned(),
        auth_request: Some(admin::CustomAuthRequest {
            url: "https://api.example.com/login".to_owned(),
            // "Enter the request body. For example".
            body: Some(r#"{ "api-key": "{{secret}}" }"#.to_owned()),
            ..Default::default()
        }),
        // "For example": what the placement takes from the response.
        headers: vec![admin::CustomPlacement {
            name: "Authorization".to_owned(),
            value: r#"Bearer {{ authResponseBody | fromjson | attr("token") }}"#.to_owned(),
        }],
        ..Default::default()
    });
    let synerise = Scheme::SyneriseApiKey(admin::SyneriseApiKey {
        api_key: "5e5e5e5e-0000-4000-8000-000000000000".to_owned(),
        login_url: "https://api.synerise.com/uauth/v2/auth/login/profile".to_owned(),
        ..Default::default()
    });
    let sha256 = Scheme::Sha256(admin::Sha256Authentication {
        client_id: "1234567890".to_owned(),
        client_secret: "s3cr3t-EE".to_owned(),
        ..Default::default()
    });
    let methods = [
        ("no-authentication", Scheme::None(admin::NoAuthentication {})),
        ("login-password", login_password("me", "p@ss")),
        ("custom", custom),
        ("synerise", synerise),
        ("oauth2", oauth2("https://api.example.com/token", "client-secret")),
        ("api-key-header", api_key_header("s3cret", "x-api-key", "{{secret}}")),
        ("api-key-parameter", api_key_parameter("s3cret", "client_id", "{{secret}}")),
        ("sha256", sha256),
    ];
    let mut made = Vec::new();
    for (id, scheme) in methods {
        made.push(world.acme.connection(id, scheme).await);
    }
    // "This value will be anonymized and displayed as asterisks": whether one is there, and nothing of it (R047).
    let shown = format!("{made:?}");
    assert!(["k-1", "p@ss", "client-secret", "s3cret", "s3cr3t-EE", "5e5e5e5e"].iter().all(|one| !shown.contains(one)));
    // The list of a method holds the connections of that method (R027).
    for (filter, count) in [("login_password:*", 1), ("api_key:*", 2), ("custom:*", 1), ("sha256:*", 1)] {
        let request = admin::ListConnectionsRequest {
            parent: world.acme.name.clone(),
            filter: filter.to_owned(),
            ..Default::default()
        };
        let listed = world.client.connections().list_connections(request).await.unwrap().into_inner().connections;
        assert_eq!(listed.len(), count, "{filter}");
    }
    made
}

/// `001`, "Define the endpoint": the warnings of its fields.
async fn refused_endpoints(world: &World) {
    let url = |url: &str| admin::OutgoingRequest { url: url.to_owned(), ..post("", "{}") };
    // "This field requires a defined domain (for example, https://example.com) and the HTTPS protocol."
    assert_eq!(wrong(world, url("http://example.com")).await[0].0, "request.url");
    // "You can't use an IP (for example, 192.0.2.0) or use Jinjava for defining the domain as a dynamic value."
    for refused in ["https://192.0.2.0/", "https://51.145.180.18/", "https://{{ request.body.host }}/", "https:///path"]
    {
        assert_eq!(wrong(world, url(refused)).await[0].0, "request.url", "{refused}");
    }
}

/// `001`, "Import and export cURL".
async fn curl(world: &World) -> admin::OutgoingIntegration {
    const COMMAND: &str = "curl -X POST 'https://hooks.slack.com/services/T0/B0/X?thread=1' -H 'X-Tag: forms' --json '{\"text\": \"hi\"}'";
    let mut client = world.client.outgoing_integrations();
    // "Click Import": "The URL, HTTP method, headers, body, and parameters in the configuration form are populated".
    let parse = admin::ParseCurlRequest { parent: world.acme.name.clone(), command: COMMAND.to_owned() };
    let read = client.parse_curl(parse).await.unwrap().into_inner().request.unwrap();
    assert_eq!(read.method(), admin::HttpMethod::Post);
    assert_eq!(read.url, "https://hooks.slack.com/services/T0/B0/X?thread=1");
    assert!(read.headers.contains(&header("X-Tag", "forms")), "{:?}", read.headers);
    assert_eq!(read.body.as_deref(), Some(r#"{"text": "hi"}"#));
    // "Fill out Webhook name and optionally Event name": an import sets neither (R086).
    assert!(read.webhook_name.is_empty() && read.event_name.is_empty());
    let request = admin::OutgoingRequest { webhook_name: "Slack".to_owned(), ..read };
    let outgoing =
        admin::OutgoingIntegration { display_name: "Slack".to_owned(), request: Some(request), ..Default::default() };
    let draft = create(world, "slack", outgoing).await.unwrap();

    // "If the node already contains a configuration, an Overwrite settings? confirmation pop-up appears."
    let other = COMMAND.replace("\"hi\"", "\"hello\"");
    let import = |command: &str, etag: &str, validate_only: bool| admin::ImportCurlRequest {
        name: draft.name.clone(),
        command: command.to_owned(),
        etag: etag.to_owned(),
        validate_only,
        ..Default::default()
    };
    let asked = client.import_curl(import(&other, "", true)).await.unwrap().into_inner();
    let changes: Vec<&str> = asked.changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(changes, ["body"], "the changes list");
    // "To keep the current settings, click No, cancel": nothing has changed.
    let get = admin::GetOutgoingIntegrationRequest { name: draft.name.clone() };
    assert_eq!(client.get_outgoing_integration(get.clone()).await.unwrap().into_inner(), draft);
    // "If the imported command is identical to the current configuration, the Changes list displays No changes."
    assert_eq!(client.import_curl(import(COMMAND, "", true)).await.unwrap().into_inner().changes, []);
    // "The syntax of the pasted command is validated. If it is invalid, an error is displayed and the import is blocked."
    assert!(client.import_curl(import("curl 'https://hooks.slack.com/", "", true)).await.is_err());
    // "To apply the changes, click Yes, overwrite".
    client.import_curl(import(&other, &asked.etag, false)).await.unwrap();
    let changed = client.get_outgoing_integration(get).await.unwrap().into_inner();
    assert_eq!(changed.request.as_ref().unwrap().body.as_deref(), Some(r#"{"text": "hello"}"#));
    // "To export the configuration of the webhook, click Export cURL": only URL, headers and body (R094, R095).
    let export = admin::ExportCurlRequest { name: draft.name.clone() };
    let command = client.export_curl(export).await.unwrap().into_inner().command;
    assert!(command.contains("hooks.slack.com") && command.contains("X-Tag"), "{command}");
    assert!(
        !command.contains("Slack\"")
            && client.import_curl(import(&command, "", true)).await.unwrap().into_inner().changes.is_empty()
    );
    changed
}

/// `001`, "Custom response event parameters" (R100 to R107).
async fn event_parameters(world: &World) {
    let with = |parameters: Vec<admin::EventParameter>| admin::OutgoingRequest {
        event_parameters: parameters,
        ..post("https://api.example.com/", "{}")
    };
    let many = |count: usize| (0..count).map(|number| parameter(&format!("p{number}"), "v")).collect::<Vec<_>>();
    // "You can add up to 10 custom parameters in each event".
    let message = &wrong(world, with(many(11))).await[0].2;
    assert!(message.contains("11") && message.contains("10"), "{message}");
    // "The name must not contain special characters or exceed 128 characters".
    for name in ["a-b", "a b", "ą", "a.b", "", &"n".repeat(129)] {
        let found = wrong(world, with(vec![parameter(name, "v")])).await;
        assert_eq!(found[0].0, "request.event_parameters[0].name", "{name}");
    }
    // "The following parameters cannot be sent".
    for name in RESERVED {
        assert_eq!(wrong(world, with(vec![parameter(name, "v")])).await[0].1, "PARAMETER_NAME", "{name}");
    }
    // "The maximum length of the value is 230 characters."
    let message = &wrong(world, with(vec![parameter("p", &"v".repeat(231))])).await[0].2;
    assert!(message.contains("230"), "{message}");
    let mut good = many(9);
    good.push(parameter(&"n".repeat(128), &"v".repeat(230)));
    let outgoing =
        admin::OutgoingIntegration { display_name: "Ten".to_owned(), request: Some(with(good)), ..Default::default() };
    create(world, "ten", outgoing).await.unwrap();
}

/// `001`, the node: "Node configuration" to "Custom response event parameters".
#[tokio::test]
async fn outgoing_integration_node_configuration() {
    let world = World::start().await;
    let incoming = world.acme.incoming("forms", open()).await;
    // "Select the type of the Outgoing Integration": one of the two (R002).
    let neither = admin::Step { step_name: "Send".to_owned(), ..Default::default() };
    let request = admin::CreateWorkflowRequest {
        parent: world.acme.name.clone(),
        workflow: Some(workflow(&incoming, [neither])),
        ..Default::default()
    };
    let found = violations(&world.client.workflows().create_workflow(request).await.unwrap_err());
    assert_eq!((found[0].0.as_str(), found[0].1.as_str()), ("steps[0].action", "REQUIRED"));
    let made = connections(&world).await;
    refused_endpoints(&world).await;
    let slack = curl(&world).await;
    event_parameters(&world).await;

    // "The connection you created is saved and can be used later in other nodes and workflows" (R024): in two at once.
    let login = made.iter().find(|one| one.name.ends_with("/login-password")).unwrap();
    let request = admin::OutgoingRequest {
        connection: login.name.clone(),
        event_parameters: vec![parameter("form", "{{ request.body.form }}"), parameter("number", "{{ 2 + 3 }}")],
        ..slack.request.clone().unwrap()
    };
    let event_name = admin::OutgoingRequest { event_name: "slack.posted".to_owned(), ..request.clone() };
    let steps = [custom_webhook("Default name", request), custom_webhook("Own name", event_name)];
    world.acme.workflow("notify", workflow(&incoming, steps)).await;
    // "A custom webhook … configurable only in a specific workflow and node": it is not among the integrations (R004).
    let list = admin::ListOutgoingIntegrationsRequest { parent: world.acme.name.clone(), ..Default::default() };
    let listed = world.client.outgoing_integrations().list_outgoing_integrations(list).await.unwrap().into_inner();
    let names: Vec<&str> = listed.outgoing_integrations.iter().map(|one| one.display_name.as_str()).collect();
    assert_eq!(names, ["Slack", "Ten"]);
    world.served().await;
    world.destination.script([Answer::json(200, r#"{"ok": true}"#), Answer::json(200, r#"{"ok": true}"#)]);
    world.trigger(&incoming, &json!({"form": "contact"})).await;
    let seen = world.destination.wait_for(2).await.unwrap();
    assert!(seen.iter().all(|request| request.header("authorization") == Some("Basic bWU6cEBzcw==")));
    // "If you leave the field blank, the action defaults to webhook.response." The webhook name is parameter `name`.
    let events = world.acme.events(2).await;
    let mut actions: Vec<&str> = events.iter().map(|event| event.action.as_str()).collect();
    actions.sort_unstable();
    assert_eq!(actions, ["slack.posted", "webhook.response"]);
    // "The value is always sent as a string"; parameters enrich the event and are no part of the request (R096).
    assert!(events.iter().all(|event| event.params["name"] == "Slack" && event.params["number"] == "5"));
    assert!(events.iter().all(|event| event.params["form"] == "contact" && event.params["body.ok"] == true));
    assert!(seen.iter().all(|request| request.json().unwrap() == json!({"text": "hello"})));
    world.stop().await;
}

/// What the message to Slack says of a form.
const FORM: &str = r#"{"text": "{{ customer.name }} has filled in {{ event.params.formId }}"}"#;

fn test_event(action: &str, params: &str) -> admin::TestEvent {
    admin::TestEvent { action: action.to_owned(), params: params.to_owned(), time: None }
}

/// `001`, "Example of use": from the form to Slack, with the node that is tested.
async fn notifying(world: &World) -> admin::Workflow {
    // "This event may not be the Synerise default event. In such case, you need to add this event … on your own".
    let definition = admin::EventDefinition {
        display_name: "Form".to_owned(),
        action: "form.submit".to_owned(),
        ..Default::default()
    };
    let request = admin::CreateEventDefinitionRequest {
        parent: world.acme.name.clone(),
        event_definition: Some(definition),
        ..Default::default()
    };
    world.client.event_definitions().create_event_definition(request).await.unwrap();
    // "It starts with a Profile Event trigger node. In the settings of the trigger, select the form.submit event."
    let event = Some(admin::EventTrigger { action: "form.submit".to_owned() });
    let request = |body: &str| admin::OutgoingRequest {
        webhook_name: "Slack".to_owned(),
        event_name: "slack.posted".to_owned(),
        ..post("https://hooks.slack.com/services/T0/B0/X", body)
    };
    let flow = admin::Workflow {
        display_name: "Notify".to_owned(),
        triggers: vec![admin::Trigger { event, ..Default::default() }],
        steps: vec![
            custom_webhook("Message", request(FORM)),
            custom_webhook("Fixed", request(r#"{"text": "a form"}"#)),
        ],
        ..Default::default()
    };
    world.acme.draft_workflow("notify", flow).await
}

/// The node of a workflow.
fn node(flow: &admin::Workflow, index: usize) -> Option<admin::TestTarget> {
    let step = admin::TestStep { workflow: flow.name.clone(), step_id: flow.steps[index].step_id.clone() };
    Some(admin::TestTarget { kind: Some(Target::Step(step)), ..Default::default() })
}

async fn previewed(
    world: &World,
    target: Option<admin::TestTarget>,
    context: Option<admin::TestContext>,
) -> admin::RequestPreview {
    let request = admin::PreviewRequestRequest { parent: world.acme.name.clone(), target, context };
    world.client.tests().preview_request(request).await.unwrap().into_inner().preview.unwrap()
}

fn text_of(preview: &admin::RequestPreview) -> Value {
    serde_json::from_slice::<Value>(&preview.request.as_ref().unwrap().body).unwrap()["text"].clone()
}

/// `001`, "Test integration", 1 to 3: the context of the request, and its body.
async fn built_test(world: &World, flow: &admin::Workflow) -> Option<admin::TestContext> {
    // "A request body contains static data, the preview of the body request appears immediately" (R112).
    let fixed = previewed(world, node(flow, 1), None).await;
    assert_eq!((text_of(&fixed), fixed.needs_context.len()), (json!("a form"), 0), "the options are not available");
    // "A request body contains dynamic references, the request preview appears after you select the context" (R113, R114).
    let empty = previewed(world, node(flow, 0), None).await;
    let needs: Vec<&str> = empty.needs_context.iter().map(|used| used.root.as_str()).collect();
    assert_eq!((empty.request.is_none(), needs.as_slice()), (true, &["customer", "event"][..]));
    // "From the Test profile dropdown, select a test profile in the context of whom the test request will be performed" (R115).
    let profile = admin::TestProfile {
        display_name: "Ewa".to_owned(),
        attributes: r#"{"name": "Ewa"}"#.to_owned(),
        events: vec![test_event("page.visit", "{}"), test_event("form.submit", r#"{"formId": "contact"}"#)],
        ..Default::default()
    };
    let request = admin::CreateTestProfileRequest {
        parent: world.acme.name.clone(),
        test_profile: Some(profile),
        ..Default::default()
    };
    world.client.test_profiles().create_test_profile(request).await.unwrap();
    let list = admin::ListTestProfilesRequest { parent: world.acme.name.clone(), ..Default::default() };
    let profiles = world.client.test_profiles().list_test_profiles(list).await.unwrap().into_inner().test_profiles;
    let [profile] = profiles.as_slice() else { panic!("{profiles:?}") };
    let context =
        |started_by| Some(admin::TestContext { test_profile: profile.name.clone(), started_by: Some(started_by) });
    // "Select a test profile. Result: A history of test profile events appears."
    let history: Vec<&str> = profile.events.iter().map(|event| event.action.as_str()).collect();
    assert_eq!(history, ["page.visit", "form.submit"]);
    // "If there is no event you can use, … click Define own event and provide the body of the event" (R117).
    let own = context(StartedBy::Event(test_event("form.submit", r#"{"formId": "newsletter"}"#)));
    assert_eq!(text_of(&previewed(world, node(flow, 0), own).await), "Ewa has filled in newsletter");
    // "From the list of events, select one whose data you want use as a context" (R116).
    let chosen = context(StartedBy::ProfileEvent(1));
    // "Verify the request body" (R118).
    assert_eq!(text_of(&previewed(world, node(flow, 0), chosen.clone()).await), "Ewa has filled in contact");
    assert!(world.destination.requests().is_empty());
    chosen
}

/// `001`, "Test integration" and "Example of use".
#[tokio::test]
async fn a_node_is_tested_and_notifies_slack_of_each_form() {
    let world = World::start().await;
    let flow = notifying(&world).await;
    eventually("a data plane to be connected", || async {
        let request = admin::ListDataPlanesRequest::default();
        let planes = world.client.data_planes().list_data_planes(request).await.unwrap().into_inner().data_planes;
        planes.iter().any(|plane| plane.connected).then_some(())
    })
    .await;
    let context = built_test(&world, &flow).await;
    let parent = world.acme.name.clone();
    let update = |receipt: &str| admin::UpdateResponseEventRequest {
        parent: parent.clone(),
        response_receipt: receipt.to_owned(),
        ..Default::default()
    };
    // "Click Send request. Result: The response section appears and the Update response event button becomes active": not before.
    let early = world.client.tests().update_response_event(update("")).await.unwrap_err();
    assert_eq!(violations(&early)[0].0, "response_receipt");
    world.destination.script([Answer::json(200, r#"{"ok": true, "ts": "1718010930.000100"}"#)]);
    let target = node(&flow, 0);
    let request = admin::SendTestRequestRequest { parent: parent.clone(), target, context, ..Default::default() };
    let sent = world.client.tests().send_test_request(request).await.unwrap().into_inner();
    let outcome = sent.outcome.unwrap();
    let response = outcome.response.unwrap();
    assert_eq!((outcome.status, &response.body[..]), (200, &br#"{"ok": true, "ts": "1718010930.000100"}"#[..]));
    assert_eq!(world.destination.requests()[0].json().unwrap(), json!({"text": "Ewa has filled in contact"}));
    // "Optionally, you can update response event with new parameters" (R121).
    let updated =
        world.client.tests().update_response_event(update(&sent.response_receipt)).await.unwrap().into_inner();
    let known = |name: &str| updated.parameters.iter().any(|parameter| parameter.name == name);
    assert!(updated.action == "slack.posted" && known("body.ok") && known("body.ts"), "{updated:?}");

    // "Send a notification on a Slack channel every time a user submits a form on a website."
    world.acme.publish_workflow(&flow.name).await.unwrap();
    world.acme.ready().await;
    for (form, name) in [("contact", "Jan"), ("newsletter", "Ann")] {
        let request = admin::SubmitEventRequest {
            parent: parent.clone(),
            action: "form.submit".to_owned(),
            params: json!({ "formId": form }).to_string(),
            customer: json!({ "name": name }).to_string(),
            ..Default::default()
        };
        let taken = world.client.events().submit_event(request).await.unwrap().into_inner();
        assert_eq!((taken.workflows, taken.deliveries), (1, 2));
    }
    // "When the message is sent to the Slack channel, the automation process is completed."
    let ended = world.acme.deliveries(4).await;
    assert!(ended.iter().all(|delivery| delivery.state() == admin::DeliveryState::Delivered), "{ended:?}");
    let seen = world.destination.requests();
    assert!(
        seen.iter().all(|seen| (seen.host.as_str(), seen.target.as_str()) == ("hooks.slack.com", "/services/T0/B0/X"))
    );
    let mut texts: Vec<String> = seen.iter().skip(1).map(|seen| seen.json().unwrap()["text"].to_string()).collect();
    texts.sort_unstable();
    let said = ["\"Ann has filled in newsletter\"", "\"Jan has filled in contact\"", "\"a form\"", "\"a form\""];
    assert_eq!(texts, said);
    assert!(world.acme.events(4).await.iter().all(|event| event.action == "slack.posted"));
    world.stop().await;
}

/// `001` and `002`, "Custom connection": the authorization request, "Retrieve response", and where the token goes.
#[tokio::test]
async fn a_custom_connection_is_made_with_its_retrieved_response() {
    let world = World::start().await;
    world.acme.flow("ready", post("https://api.example.com/", "{}")).await;
    world.acme.ready().await;
    let token = json!({"token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2lnbmVk", "region": "eu"}).to_string();
    world.destination.script_for("/login", (0..3).map(|_| Answer::json(200, token.clone())));
    // "In Secret, enter a value"; "In the Headers section, add request headers"; "In the Body field, enter the request body."
    let request = admin::CustomAuthRequest {
        url: "https://api.example.com/login".to_owned(),
        headers: vec![header("X-Client", "shop")],
        body: Some(r#"{ "api-key": "{{secret}}" }"#.to_owned()),
        ..Default::default()
    };
    let custom = admin::CustomConnection {
        secret: "a-secret-of-the-author".to_owned(),
        auth_request: Some(request),
        ..Default::default()
    };
    let named = |custom: &admin::CustomConnection| admin::Connection {
        display_name: "CRM".to_owned(),
        scheme: Some(Scheme::Custom(custom.clone())),
        ..Default::default()
    };
    let retrieve = async |custom: &admin::CustomConnection| {
        let target = Some(admin::ConnectionTarget { kind: Some(Which::Draft(named(custom))) });
        let request =
            admin::RetrieveAuthResponseRequest { parent: world.acme.name.clone(), target, ..Default::default() };
        world.client.tests().retrieve_auth_response(request).await.unwrap().into_inner()
    };
    // "Click Retrieve response. Result: Retrieved token in the Response section": where it is, and nothing of it (R047).
    let placing = |value: &str| admin::CustomConnection {
        headers: vec![admin::CustomPlacement { name: "Authorization".to_owned(), value: value.to_owned() }],
        ..custom.clone()
    };
    let first = retrieve(&placing(r#"Bearer {{ authResponseBody | fromjson | attr("tokn") }}"#)).await;
    let body = String::from_utf8(first.response.unwrap().body.to_vec()).unwrap();
    assert_eq!((first.status, body.as_str()), (200, r#"{"token":"******","region":"******"}"#));
    let login = &world.destination.requests()[0];
    assert_eq!(
        (login.header("x-client"), login.json().unwrap()),
        (Some("shop"), json!({"api-key": "a-secret-of-the-author"}))
    );
    // "You can use the following values": the body, as the example has it, the status and the headers (R051).
    let example = placing(r#"Bearer {{ authResponseBody | fromjson | attr("token") }}"#);
    let found = retrieve(&example).await;
    let placed: Vec<(&str, &str)> =
        found.placements.iter().map(|one| (one.name.as_str(), one.value.as_str())).collect();
    assert_eq!(
        (placed.as_slice(), found.error()),
        (&[("Authorization", "Bearer ******")][..], admin::TokenError::Unspecified)
    );
    // "Confirm by clicking Apply."
    let made = world.acme.connection("crm", Scheme::Custom(example)).await;
    // "The token is fetched when the request data is uncached, then cached according to its TTL, and added to the target request."
    let request =
        admin::OutgoingRequest { connection: made.name.clone(), ..post("https://api.example.com/orders", "{}") };
    let incoming = world.acme.flow("orders", request).await;
    world.served().await;
    world.trigger(&incoming, &json!({})).await;
    world.trigger(&incoming, &json!({})).await;
    let seen = world.destination.wait_for(5).await.unwrap();
    let orders: Vec<_> = seen.iter().skip(2).filter(|seen| seen.target == "/orders").collect();
    let bearer = Some("Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2lnbmVk");
    assert!(orders.len() == 2 && orders.iter().all(|order| order.header("authorization") == bearer), "{orders:?}");
    world.stop().await;
}

/// `002`, "Creating reusable integration", by schema template.
#[tokio::test]
async fn reusable_integration_with_a_schema_template() {
    let world = World::start().await;
    // "Use schema builder to create a schema template".
    let schema = world.acme.schema("order", [field("field1", Type::Text), field("field2", Type::Text)]).await;
    // "Enter a name for the integration"; "From the URL drop-down list, select an HTTP method"; "The URI can contain inserts".
    let request = admin::OutgoingRequest {
        headers: vec![header("X-{{ request.body.kind }}", "{{ request.body.id }}")],
        ..post(
            "https://api.example.com/orders/{{ request.body.id }}",
            "{\n    \"field1\": \"{% context field1 %}\",\n    \"field2\": \"{% context field2 %}\"\n}",
        )
    };
    // "This field doesn't allow the endpoints defined as IPs (for example, 51.145.180.18)."
    let by_ip = admin::OutgoingRequest { url: "https://51.145.180.18/".to_owned(), ..request.clone() };
    let refused = create(&world, "by-ip", with_form(&schema, by_ip)).await.unwrap_err();
    assert_eq!(violations(&refused)[0].0, "request.url");
    // "Upload an icon for the node."
    let no_icon = admin::OutgoingIntegration { icon: "no picture".into(), ..with_form(&schema, request.clone()) };
    let refused = create(&world, "no-icon", no_icon).await.unwrap_err();
    assert_eq!(violations(&refused)[0].0, "icon");
    // "From the Schema template drop-down list, select a schema you created before." Then "Save": a draft.
    let outgoing = admin::OutgoingIntegration { icon: PNG.into(), ..with_form(&schema, request) };
    let draft = create(&world, "orders", outgoing).await.unwrap();
    assert_eq!(
        (draft.icon_type.as_str(), draft.published_version, draft.has_unpublished_changes),
        ("image/png", 0, true)
    );

    // A draft is not available for use in workflows (R132) …
    let incoming = world.acme.incoming("orders", open()).await;
    let step = filled("Send", &draft, [("field1", "Value1"), ("field2", "Value{{ request.body.id }}")]);
    let flow = world.acme.draft_workflow("flow", workflow(&incoming, [step])).await;
    let refused = violations(&world.acme.publish_workflow(&flow.name).await.unwrap_err());
    assert_eq!((refused[0].0.as_str(), refused[0].1.as_str()), ("steps[0].outgoing_integration", "NOT_PUBLISHED"));
    // … "to save and make the outgoing integration available for use in workflows, click Save & publish".
    let published = world.acme.publish_outgoing(&draft.name).await.unwrap();
    assert_eq!((published.published_version, published.schema_template_version), (1, 1));
    world.acme.publish_workflow(&flow.name).await.unwrap();
    world.served().await;
    // "The request body will be as follows".
    world.trigger(&incoming, &json!({"id": 2, "kind": "Order"})).await;
    let seen = world.destination.wait_for(1).await.unwrap();
    assert_eq!(seen[0].body, "{\n    \"field1\": \"Value1\",\n    \"field2\": \"Value2\"\n}");
    assert_eq!((seen[0].target.as_str(), seen[0].header("x-order")), ("/orders/2", Some("2")));
    assert_eq!(world.acme.events(1).await[0].action, "webhook.response", "the event name was left blank");
    world.stop().await;
}

/// `002`, "Send a custom request body": the same body each time, and nothing to fill in.
#[tokio::test]
async fn reusable_integration_with_a_fixed_body() {
    let world = World::start().await;
    let request = admin::OutgoingRequest {
        webhook_name: "Orders".to_owned(),
        event_name: "order.told".to_owned(),
        event_parameters: vec![parameter("order", "{{ request.body.id }}")],
        ..post("https://api.example.com/orders", r#"{"order": "{{ request.body.id }}", "source": "shop"}"#)
    };
    let outgoing = world.acme.outgoing("orders", request).await;
    // "If you use such integration in the Outgoing Integration node, the node won't require further configuration": in two workflows (R003).
    let incoming = world.acme.incoming("orders", open()).await;
    for id in ["first", "second"] {
        world.acme.workflow(id, workflow(&incoming, [existing("Send", &outgoing)])).await;
    }
    // And none is taken (R009).
    let draft = workflow(&incoming, [filled("Send", &outgoing, [("order", "5")])]);
    let request =
        admin::CreateWorkflowRequest { parent: world.acme.name.clone(), workflow: Some(draft), ..Default::default() };
    let refused = violations(&world.client.workflows().create_workflow(request).await.unwrap_err());
    assert_eq!((refused[0].0.as_str(), refused[0].1.as_str()), ("steps[0].form_values", "FORM_VALUES_NOT_TAKEN"));
    world.served().await;
    world.trigger(&incoming, &json!({"id": "A-1"})).await;
    let seen = world.destination.wait_for(2).await.unwrap();
    assert!(seen.iter().all(|request| request.json().unwrap() == json!({"order": "A-1", "source": "shop"})));
    let events = world.acme.events(2).await;
    assert!(events.iter().all(|event| event.action == "order.told" && event.params["name"] == "Orders"), "{events:?}");
    assert!(events.iter().all(|event| event.params["order"] == "A-1"), "{events:?}");
    // "One published change is seen by all of them" (R003).
    let changed =
        admin::OutgoingRequest { url: "https://api.example.com/other".to_owned(), ..outgoing.request.clone().unwrap() };
    world.acme.update_outgoing(admin::OutgoingIntegration { request: Some(changed), ..outgoing.clone() }).await;
    world.acme.publish_outgoing(&outgoing.name).await.unwrap();
    world.served().await;
    world.trigger(&incoming, &json!({"id": "A-2"})).await;
    let seen = world.destination.wait_for(4).await.unwrap();
    assert_eq!(seen.iter().filter(|request| request.target == "/other").count(), 2);
    world.stop().await;
}
