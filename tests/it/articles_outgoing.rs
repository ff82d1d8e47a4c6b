//! The two articles on outgoing integrations, walked step by step through the API in the order of their text: the node with its custom
//! webhook (`001`), and reusable integrations (`002`). Each step asserts what the text says the author sees.

use serde_json::json;
use sluice::destination::Answer;
use sluice_client::admin;
use sluice_client::admin::connection::Scheme;
use sluice_client::admin::schema_field::Type;
use sluice_tests::resources::{
    api_key_header, api_key_parameter, custom_webhook, existing, field, filled, header, login_password, oauth2, open,
    parameter, post, with_form, workflow,
};
use sluice_tests::{World, violations};
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
