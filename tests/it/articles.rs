//! The two articles on incoming integrations, walked step by step through the API in the order of their text. Each step asserts what
//! the text says the author, or the sender, sees. Sentences of the articles stand above the steps.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_client::admin::incoming_integration::Authorization;
use sluice_client::admin::jwt_authorization::Source;
use sluice_client::{Client, admin};
use sluice_data_plane::clock::Clock;
use sluice_tests::resources::{condition, custom_webhook, dedup, post, workflow};
use sluice_tests::{Answer, Request, World, eventually, within};
use tonic::{Code, Status};

const START: i64 = 1_718_010_930_000;
const DAY: i64 = 24 * 3_600_000;
const CONTENT_TYPE: &str = "Content-Type";

/// A new integration as its author's first step leaves it: named, with what was chosen for authorization.
fn named(display_name: &str, authorization: Authorization) -> admin::IncomingIntegration {
    let authorization = Some(authorization);
    admin::IncomingIntegration { display_name: display_name.to_owned(), authorization, ..Default::default() }
}

async fn create(
    client: &Client,
    id: &str,
    incoming: admin::IncomingIntegration,
) -> Result<admin::IncomingIntegration, Status> {
    let request = admin::CreateIncomingIntegrationRequest {
        parent: "workspaces/acme".to_owned(),
        incoming_integration_id: id.to_owned(),
        incoming_integration: Some(incoming),
        ..Default::default()
    };
    Ok(client.incoming_integrations().create_incoming_integration(request).await?.into_inner())
}

async fn update(world: &World, incoming: admin::IncomingIntegration) -> Result<admin::IncomingIntegration, Status> {
    let request =
        admin::UpdateIncomingIntegrationRequest { incoming_integration: Some(incoming), ..Default::default() };
    Ok(world.client.incoming_integrations().update_incoming_integration(request).await?.into_inner())
}

/// "Click Retrieve data", "Send a POST request to the endpoint": what the author sees then.
async fn retrieve(world: &World, incoming: &admin::IncomingIntegration, sample: &Request) -> admin::Capture {
    let request = admin::StartCaptureRequest { parent: incoming.name.clone(), ..Default::default() };
    let capture = eventually("a data plane to wait for the request", || async {
        world.client.captures().start_capture(request.clone()).await.ok()
    });
    let capture = capture.await.into_inner();
    // "The system waits for the incoming request for 90 seconds" (1 minute and 30 seconds).
    let (start, end) = (capture.start_time.unwrap(), capture.expire_time.unwrap());
    assert_eq!((end.seconds - start.seconds, end.nanos - start.nanos), (90, 0));
    assert_eq!(world.send(sample).await.status, 200);
    let request = admin::WatchCaptureRequest { name: capture.name, uid: capture.uid };
    let mut stream = world.client.captures().watch_capture(request).await.unwrap().into_inner();
    let mut seen = None;
    within("the sample", async {
        while let Some(message) = stream.message().await.unwrap() {
            seen = message.capture;
        }
    })
    .await;
    let seen: admin::Capture = seen.unwrap();
    assert_eq!(seen.state(), admin::CaptureState::Taken);
    seen
}

/// "If the received data has the expected structure, confirm by clicking the Apply button."
async fn apply(world: &World, capture: &admin::Capture) -> admin::IncomingIntegration {
    let request =
        admin::ConfirmCaptureRequest { name: capture.name.clone(), uid: capture.uid.clone(), ..Default::default() };
    world.client.captures().confirm_capture(request).await.unwrap().into_inner()
}

/// The flattened list as the author reads it.
fn listed(capture: &admin::Capture) -> Vec<(&str, &str)> {
    let parameters = &capture.request.as_ref().unwrap().parameters;
    let body = parameters.iter().filter(|parameter| parameter.path.starts_with("body"));
    body.map(|parameter| (parameter.path.as_str(), parameter.value.as_str())).collect()
}

fn raw(capture: &admin::Capture) -> &str {
    &capture.request.as_ref().unwrap().raw_json
}

fn assert_closed(answer: &Answer) {
    assert_eq!((answer.status, answer.code().as_str()), (404, "ENDPOINT_UNKNOWN"));
}

/// Whether the path has the shape that the article shows (R142).
fn is_endpoint(path: &str) -> bool {
    let id =
        path.strip_prefix("/automation-endpoint/endpoints/authorized/").and_then(|rest| rest.strip_suffix("/trigger"));
    id.is_some_and(|id| id.len() == 36 && id.split('-').map(str::len).eq([8, 4, 4, 4, 12]))
}

/// The order of `003`, put right (X11).
fn order() -> Value {
    json!({
        "customer_email": "example@example.com",
        "order_number": "111111111",
        "type": "email",
        "language": "eng",
        "products": [{
            "name": "Earwax",
            "category": "Hygiene",
            "id": "abcdefgh",
            "image_url": "http://exampleimage.url",
            "product_url": "http://exampleproduct.url",
            "group_id": "groupid",
        }],
    })
}

/// `003`, "Configuration".
async fn configured(world: &World) -> admin::IncomingIntegration {
    // 1. "Go to Automation > Incoming > New integration." What may be chosen is chosen, never assumed (X13).
    let nothing = create(
        &world.client,
        "forms",
        admin::IncomingIntegration { display_name: "Forms".to_owned(), ..Default::default() },
    );
    assert!(nothing.await.unwrap_err().message().starts_with("authorization: one of none, meta, jwt is required"));
    let open = || Authorization::None(admin::NoAuthorization {});
    let forms = create(&world.client, "forms", named("Forms", open())).await.unwrap();

    // 2. "In the Endpoint section, the endpoint URL is generated automatically. The endpoint is unique for every integration."
    assert!(is_endpoint(&forms.endpoint_path), "{}", forms.endpoint_path);
    let other = create(&world.client, "other", named("Other", open())).await.unwrap();
    assert!(is_endpoint(&other.endpoint_path) && other.endpoint_path != forms.endpoint_path);

    // 3. "Optionally, you can personalize the integration by adding an icon." 4. "Confirm the settings by clicking Apply."
    let no_picture = admin::IncomingIntegration { icon: "no picture".into(), ..forms.clone() };
    assert!(update(world, no_picture).await.unwrap_err().message().contains("PNG, JPEG or WebP"));
    let forms = update(world, admin::IncomingIntegration { icon: super::articles_outgoing::PNG.into(), ..forms }).await;
    let forms = forms.unwrap();
    assert_eq!(forms.icon_type, "image/png");

    // 5. "In the Incoming data, send the first request to the endpoint … by clicking Retrieve data." Data "must be in the JSON format";
    // "if the data is nested, it will be flattened in accordance with the structure".
    let sample = order();
    let sent = Request::post(&forms.endpoint_path, sample.to_string());
    let capture = retrieve(world, &forms, &sent).await;
    // "The system lists parameters … in flattened form."
    assert_eq!(
        listed(&capture),
        [
            ("body.customer_email", "example@example.com"),
            ("body.order_number", "111111111"),
            ("body.type", "email"),
            ("body.language", "eng"),
            ("body.products[0].name", "Earwax"),
            ("body.products[0].category", "Hygiene"),
            ("body.products[0].id", "abcdefgh"),
            ("body.products[0].image_url", "http://exampleimage.url"),
            ("body.products[0].product_url", "http://exampleproduct.url"),
            ("body.products[0].group_id", "groupid"),
        ]
    );

    // 6. "To see the raw JSON, click the icon."
    assert_eq!(raw(&capture), sample.to_string());

    // 7. "… confirm by clicking the Apply button."
    let forms = apply(world, &capture).await;
    assert!(forms.sample.as_ref().unwrap().parameters.iter().any(|one| one.path == "body.products[0].name"));

    // 8. "Publish the integration by clicking Save & publish."
    let forms = world.acme.publish_incoming(&forms.name).await.unwrap();
    assert_eq!((forms.published_version, forms.has_unpublished_changes), (1, false));
    forms
}

/// What the article sends on, with the label that the target demands (X12) and the paths put right (X11).
const CUSTOM_EVENT: &str = r#"{
    "action": "goal.achieve",
    "label": "Goal",
    "client": {"email": "{{request.body.customer_email}}"},
    "params": {
        "created_at": "2021-04-28T14:09:27.000Z",
        "group_id": "{{request.body.products[0].group_id}}",
        "image_url": "{{request.body.products[0].image_url}}",
        "name": "{{request.body.products[0].name}}",
        "product_url": "{{request.body.products[0].product_url}}",
        "as_the_article_has_it": "{{request.body.name}}",
        "request": "{{request.headers["X-Request-ID"]}}"
    }
}"#;

/// `003`, "Example of use".
#[tokio::test]
async fn incoming_integration_configuration_and_example_of_use() {
    let world = World::start().await;
    let forms = configured(&world).await;
    // Example, 1. "Add a Business Event trigger node … select the Incoming integration." Its parameters filter requests.
    // Example, 2. "Select the POST method", "Enter the endpoint URL", "enter the JSON of a custom event", "use Jinja".
    let request = admin::OutgoingRequest {
        event_name: "order.sent".to_owned(),
        ..post("https://api.synerise.com/v4/events/custom", CUSTOM_EVENT)
    };
    let mut flow = workflow(&forms, [custom_webhook("Outgoing Integration", request)]);
    flow.triggers[0].filter = Some(condition("body.type", admin::Operator::Equals, [r#""email""#]));
    world.acme.workflow("flow", flow).await;
    world.served().await;
    let sent = Request::post(&forms.endpoint_path, order().to_string()).header("X-Request-ID", "request-1");
    assert_eq!(world.send(&sent).await.status, 200);
    let seen = world.destination.wait_for(1).await.unwrap();
    assert_eq!((seen[0].method.as_str(), seen[0].target.as_str()), ("POST", "/v4/events/custom"));
    assert_eq!(
        seen[0].json().unwrap(),
        json!({
            "action": "goal.achieve",
            "label": "Goal",
            "client": {"email": "example@example.com"},
            "params": {
                "created_at": "2021-04-28T14:09:27.000Z",
                "group_id": "groupid",
                "image_url": "http://exampleimage.url",
                "name": "Earwax",
                "product_url": "http://exampleproduct.url",
                // The sample's name lies in `products`: the wrong path renders empty and does not fail.
                "as_the_article_has_it": "",
                "request": "request-1",
            },
        })
    );

    // Example, 3. "Connect the Outgoing Integration with the End node": the delivery has ended, and its event says so.
    assert_eq!(world.acme.deliveries(1).await[0].state(), admin::DeliveryState::Delivered);
    assert_eq!(world.acme.events(1).await[0].action, "order.sent");
    // What the filter does not want starts nothing.
    let unwanted = Request::post(&forms.endpoint_path, r#"{"type": "sms"}"#);
    assert_eq!(world.send(&unwanted).await.status, 200);
    assert_eq!(world.acme.deliveries(1).await.len(), 1);
}

/// The complaint of `004`.
fn complaint(id: &str) -> Value {
    json!({
        "complaint": {
            "id": id,
            "customer": {
                "id": "c123456789",
                "firstName": "Jane",
                "lastName": "Smith",
                "email": "jane.smith@example.com",
                "phone": "+1234567890",
            },
            "dateReceived": "2024-06-10T09:15:30Z",
            "orderId": "o987654321",
            "issueType": "product_defect",
            "description": "The wireless headphones stopped working after two days of use.",
            "priority": "high",
            "status": "new",
            "attachments": [{
                "fileName": "photo_of_defect.jpg",
                "fileUrl": "https://example.com/uploads/photo_of_defect.jpg",
            }],
        },
        "source": "customer_support_portal",
    })
}

/// "Create a workspace API key with the following permission: INCOMING_WEBHOOK_EXECUTE".
async fn api_key(world: &World, role: &str) -> admin::AccessKey {
    let api_key = admin::AccessKey {
        display_name: "Support portal".to_owned(),
        roles: vec![format!("workspaces/acme/roles/{role}")],
        ..Default::default()
    };
    let request = admin::CreateApiKeyRequest {
        parent: "workspaces/acme".to_owned(),
        api_key: Some(api_key),
        ..Default::default()
    };
    world.client.api_keys().create_api_key(request).await.unwrap().into_inner()
}

/// "To generate the JWT, use the /uauth/v2/auth/login/profile endpoint."
async fn jwt(world: &World, key: &admin::AccessKey) -> String {
    let body = json!({ "apiKey": key.key }).to_string();
    let answer = world.send(&Request::post("/uauth/v2/auth/login/profile", body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["token"].as_str().unwrap().to_owned()
}

/// `004`, "Requirements" and "Authorization".
#[tokio::test]
async fn incoming_integration_requirements_and_authorization() {
    let world = World::start().await;
    // "You must have the following user permissions": to see, to create and edit, to publish (R172, F30).
    let open = || named("Support", Authorization::None(admin::NoAuthorization {}));
    let as_role =
        async |role: &str| Client::connect(&world.grpc_url(), &api_key(&world, role).await.key).await.unwrap();
    let (viewer, editor, publisher) = (as_role("viewer").await, as_role("editor").await, as_role("publisher").await);
    assert_eq!(create(&viewer, "support", open()).await.unwrap_err().code(), Code::PermissionDenied);
    let draft = create(&editor, "support", open()).await.unwrap();
    let get = admin::GetIncomingIntegrationRequest { name: draft.name.clone() };
    assert!(viewer.incoming_integrations().get_incoming_integration(get).await.is_ok());
    let publish = admin::PublishIncomingIntegrationRequest { name: draft.name.clone(), ..Default::default() };
    let refused = editor.incoming_integrations().publish_incoming_integration(publish.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    publisher.incoming_integrations().publish_incoming_integration(publish).await.unwrap();

    // "The following authorization methods are supported": none, JWT, Meta; one shape of URL for all (R142).
    let key = api_key(&world, "webhook-sender").await;
    let by_key = admin::JwtAuthorization { source: Some(Source::ApiKey(key.name.clone())) };
    let by_meta = admin::MetaAuthorization {
        app_secret: "app-secret".to_owned(),
        verify_token: "tok-1".to_owned(),
        ..Default::default()
    };
    let token = world.acme.incoming("token", named("JWT", Authorization::Jwt(by_key))).await;
    let meta = world.acme.incoming("meta", named("Meta", Authorization::Meta(by_meta))).await;
    assert!([&draft, &token, &meta].iter().all(|incoming| is_endpoint(&incoming.endpoint_path)));
    world.served().await;
    let body = complaint("cmp-20240610-001").to_string();
    let send = async |incoming: &admin::IncomingIntegration, header: Option<(&str, String)>| {
        let request = Request::post(&incoming.endpoint_path, body.clone());
        let request = header.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        world.send(&request).await
    };
    assert_eq!(send(&draft, None).await.text(), "OK");
    // "Requires a JSON Web Token", "Authorization: Bearer {jwt_token}".
    assert_eq!(send(&token, None).await.status, 401);
    let shown = ("Authorization", format!("Bearer {}", jwt(&world, &key).await));
    let answer = send(&token, Some(shown)).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "OK"));
    // "SHA-256 signature", "X-Hub-Signature-256: sha256={signature}".
    assert_eq!(send(&meta, None).await.status, 401);
    let signature = super::meta::sign("app-secret", body.as_bytes());
    assert_eq!(send(&meta, Some((super::meta::SIGNATURE, signature))).await.text(), "OK");
    // "Content-Type … must be application/json", "Yes": required.
    let without = Request::post(&draft.endpoint_path, body.clone()).without(CONTENT_TYPE);
    assert_eq!(world.send(&without).await.status, 415);
    let other = Request::post(&draft.endpoint_path, body.clone()).with(CONTENT_TYPE, "text/plain");
    assert_eq!(world.send(&other).await.status, 415);
}

/// `004`, "Select authentication method".
async fn chosen_key(world: &World, key: &admin::AccessKey) -> admin::IncomingIntegration {
    // "From the API key dropdown list, select the key which will be used for generating JWT".
    let filter = admin::AccessKeyFilter { permission: "INCOMING_WEBHOOK_EXECUTE".to_owned(), ..Default::default() };
    let request =
        admin::ListApiKeysRequest { parent: "workspaces/acme".to_owned(), filter: Some(filter), ..Default::default() };
    let offered = world.client.api_keys().list_api_keys(request).await.unwrap().into_inner().api_keys;
    assert_eq!(offered.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), [key.name.as_str()]);
    let by_key = admin::JwtAuthorization { source: Some(Source::ApiKey(offered[0].name.clone())) };
    // "In the URL field, you can find the endpoint URL which is generated automatically." "Confirm the settings by clicking Apply."
    let draft = create(&world.client, "support", named("Support", Authorization::Jwt(by_key))).await.unwrap();
    assert!(is_endpoint(&draft.endpoint_path));
    // "Optionally, you can personalize the integration by adding an icon in Node icon."
    let icon = super::articles_outgoing::PNG;
    let with_icon = admin::IncomingIntegration { icon: icon.into(), etag: String::new(), ..draft.clone() };
    let draft = update(world, with_icon).await.unwrap();
    assert_eq!((&draft.icon[..], draft.icon_type.as_str()), (icon, "image/png"));
    draft
}

/// The draft with this rule, without what may be chosen unseen.
async fn deduplicating<const N: usize>(
    world: &World,
    draft: &admin::IncomingIntegration,
    paths: [&str; N],
) -> Result<admin::IncomingIntegration, Status> {
    let deduplication = dedup(paths).map(|rule| admin::Deduplication { allow_unseen: false, ..rule });
    update(world, admin::IncomingIntegration { deduplication, etag: String::new(), ..draft.clone() }).await
}

/// `004`, "Send sample data".
async fn with_sample(world: &World, draft: &admin::IncomingIntegration, sent: &Request) -> admin::IncomingIntegration {
    let capture = retrieve(world, draft, sent).await;
    // "If the endpoint receives the data, they appear in flattened form." "Nested JSON objects are automatically flattened."
    let list = listed(&capture);
    assert_eq!(list.len(), 15);
    for expected in [
        ("body.complaint.id", "cmp-20240610-001"),
        ("body.complaint.customer.email", "jane.smith@example.com"),
        ("body.complaint.attachments[0].fileName", "photo_of_defect.jpg"),
        ("body.source", "customer_support_portal"),
    ] {
        assert!(list.contains(&expected), "{expected:?}");
    }
    // "To see the raw JSON, click the icon."
    assert_eq!(raw(&capture), complaint("cmp-20240610-001").to_string());
    apply(world, &capture).await
}

/// `004`, "Set deduplication rules".
async fn with_rules(world: &World, draft: &admin::IncomingIntegration) -> admin::IncomingIntegration {
    // "Select up to 5 parameters … You can use any incoming data from request body and headers."
    let [id, order, issue, status] =
        ["id", "orderId", "issueType", "status"].map(|field| format!("body.complaint.{field}"));
    let six = [&id, &order, &issue, &status, "body.source", "header:Host"];
    let refused = deduplicating(world, draft, six).await.unwrap_err();
    let said = "at most 5 deduplication parameters can be chosen; there are 6";
    assert!(refused.message().contains(said), "{}", refused.message());
    deduplicating(world, draft, [&id, &order, &issue, "body.source", "header:Host"]).await.unwrap()
}

/// `004`, "Creating incoming integration".
#[tokio::test]
async fn creating_incoming_integration() {
    let clock = Clock::manual(START);
    let world = World::with(|options| options.data_plane.clock = clock.clone()).await;
    let key = api_key(&world, "webhook-sender").await;
    let draft = chosen_key(&world, &key).await;
    // "To select request parameters, you must first perform instructions described in the Retrieve data section."
    let early = deduplicating(&world, &draft, ["body.complaint.id"]).await.unwrap_err();
    assert!(early.message().contains("capture a request first"), "{}", early.message());
    world.served().await;
    let complain = async |path: &str, id: &str| {
        let request = Request::post(path, complaint(id).to_string());
        request.header("Authorization", format!("Bearer {}", jwt(&world, &key).await))
    };
    let sent = complain(&draft.endpoint_path, "cmp-20240610-001").await;
    let draft = with_sample(&world, &draft, &sent).await;
    let draft = with_rules(&world, &draft).await;

    // "To save the integration as a draft, click Save": not accessible, and not available for use in workflows.
    assert_closed(&world.send(&sent).await);
    let flow = workflow(&draft, [custom_webhook("Send", post("https://api.example.com/complaints", "{}"))]);
    let flow = world.acme.draft_workflow("flow", flow).await;
    let refused = world.acme.publish_workflow(&flow.name).await.unwrap_err();
    assert!(refused.message().contains("is not published"), "{}", refused.message());
    // "To save the integration and make it available for use in workflows, click Save & publish."
    let published = world.acme.publish_incoming(&draft.name).await.unwrap();
    world.acme.publish_workflow(&flow.name).await.unwrap();
    world.served().await;
    let send = async |id: &str| {
        let answer = world.send(&complain(&published.endpoint_path, id).await).await;
        (answer.status, answer.text())
    };
    // "For non-duplicated request, Synerise will return 200", "Response OK"; "if a duplicated request is sent, … 204".
    assert_eq!(send("cmp-20240610-001").await, (200, "OK".to_owned()));
    assert_eq!(send("cmp-20240610-001").await, (204, String::new()));
    assert_eq!(send("cmp-20240610-002").await, (200, "OK".to_owned()));
    world.destination.wait_for(2).await.unwrap();
    // "… for a period of only 7 days from the last sent request."
    clock.advance(7 * DAY - 60_000);
    assert_eq!(send("cmp-20240610-001").await.0, 204);
    clock.advance(7 * DAY - 60_000);
    assert_eq!(send("cmp-20240610-001").await.0, 204, "the last sent request counts");
    clock.advance(7 * DAY + 1);
    assert_eq!(send("cmp-20240610-001").await.0, 200);
}

/// `004`: "If you would like to provide your own deduplication hash, … choose only your header."
#[tokio::test]
async fn ones_own_hash_in_ones_own_header() {
    let world = World::start().await;
    let mut incoming = named("Support", Authorization::None(admin::NoAuthorization {}));
    incoming.deduplication = dedup(["header:X-Complaint-Hash"]);
    let incoming = world.acme.incoming("support", incoming).await;
    world.served().await;
    let hashed = async |id: &str, hash: &str| {
        let request = Request::post(&incoming.endpoint_path, complaint(id).to_string());
        world.send(&request.header("X-Complaint-Hash", hash)).await.status
    };
    let statuses = (hashed("cmp-1", "one").await, hashed("cmp-2", "one").await, hashed("cmp-1", "two").await);
    assert_eq!(statuses, (200, 204, 200));
}

/// `004`, "Other headers": "X-Deduplication-Hash … to identify duplicate requests and avoid multiple triggers", optional.
#[tokio::test]
async fn a_senders_own_hash_needs_no_choice() {
    let world = World::start().await;
    let open = named("Support", Authorization::None(admin::NoAuthorization {}));
    let incoming = world.acme.incoming("support", open).await;
    world.served().await;
    let send = async |hash: Option<&str>| {
        let request = Request::post(&incoming.endpoint_path, complaint("cmp-1").to_string());
        let request = hash.into_iter().fold(request, |request, hash| request.header("X-Deduplication-Hash", hash));
        world.send(&request).await.status
    };
    assert_eq!([send(None).await, send(None).await], [200, 200]);
    assert_eq!([send(Some("a")).await, send(Some("a")).await, send(Some("b")).await], [200, 204, 200]);
    // "Capacity 50 requests per second" (F01): the first hundred at once, then 429.
    tokio::time::timeout(Duration::from_secs(30), async { while send(None).await != 429 {} }).await.unwrap();
}
