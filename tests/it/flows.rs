//! From a trigger to a destination and back as a response event.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use sluice::destination::{Answer, Gate};
use sluice_client::admin::failure::Reason;
use sluice_client::admin::step::Action;
use sluice_client::admin::{self, DeliveryState, Operator, OutgoingRequest, RetryPolicy};
use sluice_tests::World;
use sluice_tests::resources::{
    api_key_header, api_key_parameter, condition, custom_webhook, header, login_password, open, parameter, post, token,
    workflow,
};

/// A complaint (data D1, the sample of R181 with a second attachment).
fn complaint() -> Value {
    json!({
        "complaint": {
            "id": "cmp-77",
            "customer": {"id": "c9", "firstName": "Jo", "email": "Jo@Shop.example", "phone": "+48111222333"},
            "dateReceived": "2024-06-10T09:15:30Z",
            "orderId": "o-5",
            "issueType": "product_defect",
            "description": "Lid \"broke\"\nafter 2 days",
            "priority": "high",
            "attachments": [
                {"fileName": "a.jpg", "fileUrl": "https://f.example/a.jpg"},
                {"fileName": "b.jpg", "fileUrl": "https://f.example/b.jpg"},
            ],
        },
        "source": "portal",
    })
}

/// An order (data D2).
fn order() -> Value {
    json!({
        "customer_email": "ewa@example.com",
        "order_number": "A-1001",
        "paid_at": "2024-06-10T09:15:30Z",
        "currency": "EUR",
        "total": 37.5,
        "products": [
            {"id": "sku-1", "name": "Tea", "qty": 2, "price": 12.5},
            {"id": "sku-2", "name": "Mug", "qty": 1, "price": 12.5},
        ],
    })
}

/// A world that sends this request whenever its endpoint is triggered.
async fn sending(request: OutgoingRequest) -> (World, admin::IncomingIntegration) {
    let world = World::start().await;
    let incoming = world.acme.flow("orders", request).await;
    world.served().await;
    (world, incoming)
}

/// Same, with a connection of this scheme.
async fn sending_with(
    scheme: admin::connection::Scheme,
    request: OutgoingRequest,
) -> (World, admin::IncomingIntegration) {
    let world = World::start().await;
    let connection = world.acme.connection("credentials", scheme).await.name;
    let incoming = world.acme.flow("orders", OutgoingRequest { connection, ..request }).await;
    world.served().await;
    (world, incoming)
}

#[tokio::test]
async fn a_trigger_becomes_one_request_one_event_and_one_delivery() {
    let (world, incoming) = sending(post("https://api.example.com/orders", r#"{"id": "{{ request.body.id }}"}"#)).await;
    assert_eq!(world.trigger(&incoming, &json!({"id": "A-1"})).await.status, 200);

    let seen = world.destination.wait_for(1).await.unwrap();
    assert_eq!((seen[0].method.as_str(), seen[0].target.as_str()), ("POST", "/orders"));
    assert_eq!(seen[0].json().unwrap(), json!({"id": "A-1"}));

    let events = world.acme.events(1).await;
    assert_eq!(events[0].action, "webhook.response");
    assert_eq!((&events[0].params["status"], &events[0].params["name"]), (&json!(200), &json!("Hook")));

    let deliveries = world.acme.deliveries(1).await;
    assert_eq!((deliveries[0].state(), deliveries[0].attempts.len()), (DeliveryState::Delivered, 1));
    assert_eq!(deliveries[0].name, events[0].delivery);
    let key = deliveries[0].name.rsplit('/').next();
    assert_eq!(seen[0].header("idempotency-key"), key);
    world.stop().await;
}

#[tokio::test]
async fn an_order_becomes_a_custom_event_r180_x11_x12_p2_f62() {
    let body = r#"{"action":"order.received","label":"Order received","client":{"email":"{{ request.body.customer_email }}"},"time":"{{ request.body.paid_at }}","params":{"orderNumber":"{{ request.body.order_number }}","itemCount":{{ request.body.products|length }},"firstName":{{ request.body.products[0].name|tojson }},"skus":{{ request.body.products|map(attribute='id')|list|tojson }}}}"#;
    let request = post("https://api.synerise.com/v4/events/custom", body);
    let scheme = api_key_header("k-1", "Authorization", "Basic {{secret}}");
    let (world, incoming) = sending_with(scheme, request).await;
    world.destination.script([Answer::status(202)]);
    assert_eq!(world.trigger(&incoming, &order()).await.status, 200);

    let seen = world.destination.wait_for(1).await.unwrap();
    assert_eq!((seen[0].host.as_str(), seen[0].target.as_str()), ("api.synerise.com", "/v4/events/custom"));
    assert_eq!(seen[0].header("authorization"), Some("Basic k-1"));
    let sent = r#"{"action":"order.received","label":"Order received","client":{"email":"ewa@example.com"},"time":"2024-06-10T09:15:30Z","params":{"orderNumber":"A-1001","itemCount":2,"firstName":"Tea","skus":["sku-1","sku-2"]}}"#;
    assert_eq!(String::from_utf8_lossy(&seen[0].body), sent, "to the byte");
    let events = world.acme.events(1).await;
    assert_eq!(
        (&events[0].params["status"], &events[0].params["statusDescription"]),
        (&json!(202), &json!("Accepted"))
    );
}

#[tokio::test]
async fn a_wrong_path_renders_empty_and_is_told_x11_d32() {
    let body = r#"{"group_id":"{{request.body.group_id}}","name":"{{request.body.name}}","right":"{{request.body.products[0].name}}"}"#;
    let (world, incoming) = sending(post("https://api.synerise.com/v4/events/custom", body)).await;
    assert_eq!(world.trigger(&incoming, &order()).await.status, 200);

    let seen = world.destination.wait_for(1).await.unwrap();
    assert_eq!(seen[0].json().unwrap(), json!({"group_id": "", "name": "", "right": "Tea"}));
    let deliveries = world.acme.deliveries(1).await;
    assert_eq!(deliveries[0].state(), DeliveryState::Delivered);
    let mut missing = deliveries[0].missing_paths.clone();
    missing.sort();
    assert_eq!(missing, ["request.body.group_id", "request.body.name"]);
}

#[tokio::test]
async fn a_complaint_arrives_with_what_is_nested_in_it_r181() {
    let body = r#"{"phone":"{{ request.body.complaint.customer.phone }}","at":"{{ request.body.complaint.dateReceived }}","text":{{ request.body.complaint.description|tojson }},"second":"{{ request.body.complaint.attachments[1].fileName }}","all":{{ request.body.complaint.attachments|tojson }},"source":"{{ request.body.source }}"}"#;
    let (world, incoming) = sending(post("https://desk.example/api/tickets", body)).await;
    assert_eq!(world.trigger(&incoming, &complaint()).await.status, 200);

    let seen = world.destination.wait_for(1).await.unwrap();
    let expected = json!({
        "phone": "+48111222333",
        "at": "2024-06-10T09:15:30Z",
        "text": "Lid \"broke\"\nafter 2 days",
        "second": "b.jpg",
        "all": complaint()["complaint"]["attachments"],
        "source": "portal",
    });
    assert_eq!(seen[0].json().unwrap(), expected);
}

#[tokio::test]
async fn a_complaint_becomes_a_ticket_p1() {
    let body = r#"{% set c = request.body.complaint %}{"title":"[{{ c.priority|upper }}] {{ c.issueType|replace('_',' ') }}","requester":{"name":"{{ c.customer.firstName }}{{ ' ' ~ c.customer.lastName if c.customer.lastName }}","email":"{{ c.customer.email|lower }}"},"severity":{% if c.priority == 'high' %}1{% elif c.priority == 'normal' %}2{% else %}3{% endif %},"text":{{ c.description|tojson }},"links":[{% for a in c.attachments %}{{ a.fileUrl|tojson }}{{ ',' if not loop.last }}{% endfor %}]}"#;
    let (world, incoming) = sending(post("https://desk.example/api/tickets", body)).await;
    assert_eq!(world.trigger(&incoming, &complaint()).await.status, 200);

    let seen = world.destination.wait_for(1).await.unwrap();
    let sent = r#"{"title":"[HIGH] product defect","requester":{"name":"Jo","email":"jo@shop.example"},"severity":1,"text":"Lid \"broke\"\nafter 2 days","links":["https://f.example/a.jpg","https://f.example/b.jpg"]}"#;
    assert_eq!(String::from_utf8_lossy(&seen[0].body), sent, "to the byte");
}

/// A template can say that nothing is to be sent: no request, no event, and no second try.
#[tokio::test]
async fn a_template_that_kills_itself_ends_the_delivery_as_skipped_d19_f88() {
    let body = r#"{"id": "{{ request.body.id }}"{% if request.body.test %}{% kill %}{% endif %}}"#;
    let (mut world, incoming) = sending(post("https://api.example.com/orders", body)).await;
    assert_eq!(world.trigger(&incoming, &json!({"id": "A-1", "test": true})).await.status, 200);
    let deliveries = world.acme.deliveries(1).await;
    assert_eq!((deliveries[0].state(), deliveries[0].attempts.len()), (DeliveryState::Skipped, 0));

    assert_eq!(world.trigger(&incoming, &json!({"id": "A-2", "test": false})).await.status, 200);
    let events = world.acme.events(1).await;
    assert_eq!(world.acme.deliveries(2).await.len(), 2);
    assert_eq!((events.len(), &events[0].params["status"]), (1, &json!(200)));
    world.stop_data_plane().await;
    let seen = world.destination.requests();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].json().unwrap(), json!({"id": "A-2"}));
}

/// What takes longer to render is rendered aside, and comes out the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_costly_template_is_rendered_like_any_other() {
    let costly = "{% set sum = namespace(value=0) %}{% for i in range(1000) %}{% set sum.value = sum.value + i * 2 - i %}{% endfor %}{{ sum.value }}";
    let request = OutgoingRequest {
        event_parameters: vec![parameter("sum", costly)],
        ..post("https://api.example.com/orders", &format!(r#"{{"sum": {costly}}}"#))
    };
    let (world, incoming) = sending(request).await;
    assert_eq!(world.trigger(&incoming, &order()).await.status, 200);
    let seen = world.destination.wait_for(1).await.unwrap();
    assert_eq!(seen[0].json().unwrap(), json!({"sum": 499_500}));
    assert_eq!(world.acme.events(1).await[0].params["sum"], "499500");
}

#[tokio::test]
async fn only_what_the_filter_lets_through_is_sent_r128() {
    let mut world = World::start().await;
    let incoming = world.acme.incoming("forms", open()).await;
    let url = "https://hooks.slack.com/services/T0/B0/x";
    let step = custom_webhook("Post", post(url, r#"{"text":"Form {{ request.body.params.formId }}"}"#));
    let mut forms = workflow(&incoming, [step]);
    forms.triggers[0].filter = Some(condition("body.action", Operator::Equals, [r#""form.submit""#]));
    world.acme.workflow("forms", forms).await;
    world.served().await;

    for (action, form) in [("form.open", "not-this"), ("form.submit", "contact")] {
        let answer = world.trigger(&incoming, &json!({"action": action, "params": {"formId": form}})).await;
        assert_eq!(answer.status, 200, "a sender does not learn what filters say: {action}");
    }
    assert_eq!(world.acme.deliveries(1).await.len(), 1);
    // Whatever were still under way ends before the data plane does.
    world.stop_data_plane().await;
    let seen = world.destination.requests();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].host.as_str(), seen[0].target.as_str()), ("hooks.slack.com", "/services/T0/B0/x"));
    assert_eq!(seen[0].json().unwrap(), json!({"text": "Form contact"}));
}

#[tokio::test]
async fn the_event_tells_what_was_answered_p8_d18() {
    let world = World::start().await;
    let incoming = world.acme.incoming("complaints", open()).await;
    let request = OutgoingRequest {
        webhook_name: "Help desk".to_owned(),
        event_parameters: vec![
            parameter("ticket", "{{ response.body.id }}"),
            parameter("prio", "{{ request.body.complaint.priority }}"),
        ],
        ..post("https://desk.example/api/tickets", "{}")
    };
    let complaints = workflow(&incoming, [custom_webhook("Open ticket", request)]);
    let complaints = admin::Workflow { display_name: "Complaints".to_owned(), ..complaints };
    world.acme.workflow("complaints", complaints).await;
    world.served().await;
    world.destination.script([Answer::json(201, r#"{"id":"T-9","tags":["a","b"],"ok":true}"#)]);
    assert_eq!(world.trigger(&incoming, &complaint()).await.status, 200);

    let event = world.acme.events(1).await.remove(0);
    assert_eq!(event.action, "webhook.response");
    let mut params = event.params.as_object().unwrap().clone();
    for made in ["eventUUID", "businessProfileId", "time", "eventCreateTime", "diagramId", "blockId"] {
        assert!(params.remove(made).is_some_and(|value| !value.is_null() && value != ""), "{made}");
    }
    let expected = json!({
        "name": "Help desk",
        "status": 201,
        "statusDescription": "Created",
        "req.url": "https://desk.example/api/tickets",
        "diagramName": "Complaints",
        "blockName": "Open ticket",
        "body.id": "T-9",
        "body.tags[0]": "a",
        "body.tags[1]": "b",
        "body.ok": true,
        "ticket": "T-9",
        "prio": "high",
    });
    assert_eq!(Value::from(params), expected, "this and nothing else");
}

#[tokio::test]
async fn the_author_names_the_event_r066() {
    let request = post("https://desk.example/api/tickets", "{}");
    let (world, incoming) = sending(OutgoingRequest { event_name: "ticket.opened".to_owned(), ..request }).await;
    assert_eq!(world.trigger(&incoming, &complaint()).await.status, 200);
    assert_eq!(world.acme.events(1).await[0].action, "ticket.opened");
}

#[tokio::test]
async fn login_and_password_become_basic_authentication_r023() {
    let scheme = login_password("Aladdin", "open sesame");
    let (world, incoming) = sending_with(scheme, post("https://api.example.com/orders", "{}")).await;
    assert_eq!(world.trigger(&incoming, &order()).await.status, 200);
    let seen = world.destination.wait_for(1).await.unwrap();
    assert_eq!(seen[0].header("authorization"), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
}

#[tokio::test]
async fn a_secret_in_the_url_is_encoded_and_appended_r037_r040_p3() {
    let body = r#"{"data":[{"event_name":"Purchase","event_time":{{ (request.body.paid_at|iso8601_to_time|unixtimestamp / 1000)|int }},"action_source":"physical_store","user_data":{"em":["{{ request.body.customer_email|trim|lower|hash('SHA-256') }}"]},"custom_data":{"currency":"{{ request.body.currency }}","value":{{ request.body.total }},"order_id":"{{ request.body.order_number }}","contents":[{% for p in request.body.products %}{"id":"{{ p.id }}","quantity":{{ p.qty }},"item_price":{{ p.price }}}{% if not loop.last %},{% endif %}{% endfor %}]}}]}"#;
    let scheme = api_key_parameter("tok en/1", "access_token", "{{secret}}");
    let (world, incoming) = sending_with(scheme, post("https://graph.example.com/events?v=2", body)).await;
    assert_eq!(world.trigger(&incoming, &order()).await.status, 200);

    let seen = world.destination.wait_for(1).await.unwrap();
    assert_eq!(seen[0].target, "/events?v=2&access_token=tok%20en%2F1");
    let sent = r#"{"data":[{"event_name":"Purchase","event_time":1718010930,"action_source":"physical_store","user_data":{"em":["ffc2863a74c36c5cbc06bff75c8b578b016d691df175d9f1800c1e48d0168af3"]},"custom_data":{"currency":"EUR","value":37.5,"order_id":"A-1001","contents":[{"id":"sku-1","quantity":2,"item_price":12.5},{"id":"sku-2","quantity":1,"item_price":12.5}]}}]}"#;
    assert_eq!(String::from_utf8_lossy(&seen[0].body), sent, "to the byte");
    let events = world.acme.events(1).await;
    let url = events[0].params["req.url"].as_str().unwrap();
    assert!(url.starts_with("https://graph.example.com/events?v=2") && !url.contains("tok"), "masked (I7): {url}");
}

#[tokio::test]
async fn an_api_key_goes_where_its_author_says_r034_r036_r038_r039() {
    use admin::connection::Scheme;
    let Scheme::ApiKey(mut key) = api_key_header("k-1", "x-api-key", "{{secret}}") else { unreachable!() };
    let Scheme::ApiKey(parameter) = api_key_parameter("k-1", "client_id", "id-{{secret}}") else { unreachable!() };
    key.url_parameters = parameter.url_parameters;
    let (world, incoming) =
        sending_with(Scheme::ApiKey(key), post("https://api.example.com/orders", r#"{"id":"1"}"#)).await;
    for _ in 0..2 {
        assert_eq!(world.trigger(&incoming, &order()).await.status, 200);
    }
    for seen in world.destination.wait_for(2).await.unwrap() {
        assert_eq!(seen.header("x-api-key"), Some("k-1"));
        assert_eq!(seen.target, "/orders?client_id=id-k-1");
        assert_eq!(seen.json().unwrap(), json!({"id": "1"}));
    }
}

#[tokio::test]
async fn a_token_is_an_api_key_of_an_older_name_r021_r035_x01() {
    use admin::connection::Scheme;
    let (world, incoming) = sending_with(token("t-1"), post("https://api.example.com/orders", "{}")).await;
    assert_eq!(world.trigger(&incoming, &order()).await.status, 200);
    let seen = world.destination.wait_for(1).await.unwrap();
    assert_eq!(seen[0].header("authorization"), Some("Bearer t-1"));

    let name = format!("{}/connections/credentials", world.acme.name);
    let request = admin::GetConnectionRequest { name };
    let stored = world.client.connections().get_connection(request).await.unwrap().into_inner();
    assert!(matches!(stored.scheme, Some(Scheme::ApiKey(key)) if key.secret_set && key.secret.is_empty()));
}

#[tokio::test]
async fn a_failed_attempt_is_repeated_as_it_was_d09_d08() {
    let world = World::start().await;
    let incoming = world.acme.incoming("orders", open()).await;
    let wait = Duration::from_secs(1).try_into().ok();
    let retry = Some(RetryPolicy { first_wait: wait, longest_wait: wait, ..Default::default() });
    let url = "https://api.example.com/orders";
    let request = OutgoingRequest { retry, ..post(url, r#"{"id":"{{ request.body.order_number }}"}"#) };
    let orders = workflow(&incoming, [custom_webhook("Send", request.clone())]);
    let mut orders = world.acme.workflow("orders", orders).await;
    world.served().await;
    let gate = Gate::new();
    world.destination.script([Answer::status(503).after(&gate), Answer::status(503), Answer::status(200)]);
    assert_eq!(world.trigger(&incoming, &order()).await.status, 200);

    // What is published meanwhile is for the deliveries to come.
    world.destination.wait_for(1).await.unwrap();
    orders.steps[0].action = Some(Action::CustomWebhook(OutgoingRequest { body: Some("{}".to_owned()), ..request }));
    let draft = world.acme.update_workflow(orders).await;
    world.acme.publish_workflow(&draft.name).await.unwrap();
    world.served().await;
    gate.open();

    let seen = world.destination.wait_for(3).await.unwrap();
    assert_eq!(seen[0].json().unwrap(), json!({"id": "A-1001"}));
    let key = seen[0].header("idempotency-key");
    assert!(key.is_some());
    for again in &seen[1..] {
        assert_eq!((&again.target, &again.body), (&seen[0].target, &seen[0].body));
        assert_eq!(again.header("idempotency-key"), key);
    }
    let deliveries = world.acme.deliveries(1).await;
    let statuses: Vec<_> = deliveries[0].attempts.iter().map(|attempt| attempt.status).collect();
    assert_eq!((deliveries[0].state(), statuses), (DeliveryState::Delivered, vec![503, 503, 200]));
    let events = world.acme.events(1).await;
    assert_eq!((events.len(), &events[0].params["status"]), (1, &json!(200)), "one event, after the last attempt");
}

#[tokio::test]
async fn gone_is_the_end_at_once_d09() {
    let (world, incoming) = sending(post("https://api.example.com/orders", "{}")).await;
    world.destination.script([Answer::status(410)]);
    assert_eq!(world.trigger(&incoming, &order()).await.status, 200);

    let deliveries = world.acme.deliveries(1).await;
    assert_eq!((deliveries[0].state(), deliveries[0].attempts.len()), (DeliveryState::Dead, 1));
    let events = world.acme.events(1).await;
    assert_eq!((&events[0].params["status"], &events[0].params["statusDescription"]), (&json!(410), &json!("Gone")));
    assert_eq!(world.destination.requests().len(), 1);
}

#[tokio::test]
async fn a_failure_without_a_response_is_told_too_s20_d18_r108() {
    let mut world = World::start().await;
    let failing = [
        ("closes", "https://api.example.com/closes", "CONNECTION_RESET"),
        ("hangs", "https://api.example.com/hangs", "TIMEOUT"),
        ("impostor", "https://impostor.example.org/", "TLS_ERROR"),
        ("nobody", "https://nobody.example.org/", "CONNECT_ERROR"),
    ];
    world.destination.script_for("/closes", [Answer::close()]);
    world.destination.script_for("/hangs", [Answer::hang()]);
    // One is answered by a server whose certificate is for others, one by nobody.
    let addresses = &mut world.settings.data_plane.egress.static_addresses;
    addresses.insert("impostor.example.org".to_owned(), vec![world.destination.address()]);
    addresses.insert("nobody.example.org".to_owned(), vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 1))]);
    world.restart_data_plane().await;

    let mut endpoints = Vec::new();
    for (id, url, _) in failing {
        let request = OutgoingRequest {
            webhook_name: id.to_owned(),
            retry: Some(RetryPolicy { attempts_max: 1, ..Default::default() }),
            timeout: Duration::from_secs(1).try_into().ok(),
            event_parameters: vec![
                parameter("order", "{{ request.body.order_number }}"),
                parameter("ticket", "{{ response.body.id }}"),
            ],
            ..post(url, "{}")
        };
        endpoints.push(world.acme.flow(id, request).await);
    }
    world.served().await;
    for incoming in &endpoints {
        assert_eq!(world.trigger(incoming, &order()).await.status, 200);
    }
    let events = world.acme.events(failing.len()).await;
    assert_eq!(events.len(), failing.len());
    for (id, _, description) in failing {
        let params = &events.iter().find(|event| event.params["name"] == id).unwrap().params;
        assert_eq!((&params["status"], &params["statusDescription"]), (&json!(0), &json!(description)), "{id}");
        assert_eq!((&params["order"], &params["ticket"]), (&json!("A-1001"), &json!("")), "{id}");
    }
    for delivery in world.acme.deliveries(failing.len()).await {
        assert_eq!((delivery.state(), delivery.attempts.len()), (DeliveryState::Dead, 1), "{}", delivery.name);
        assert_eq!(delivery.attempts[0].failure(), delivery.reason());
    }
}

#[tokio::test]
async fn what_is_data_stays_data_t35_o01_d07() {
    let body = r#"{"name":"{{ request.body.name }}","tpl":"{{ request.body.tpl }}"}"#;
    let data = json!({"name": r#"x","admin":true,"y":""#, "tpl": "{{ 7*7 }} {{ secret }}"});
    let scheme = api_key_header("S3CR", "x-api-key", "{{secret}}");
    let request = OutgoingRequest {
        headers: vec![header("x-tpl", "{{ request.body.tpl }}")],
        event_parameters: vec![parameter("tpl", "{{ request.body.tpl }}")],
        ..post("https://api.example.com/orders", body)
    };
    let (world, incoming) = sending_with(scheme, request).await;
    assert_eq!(world.trigger(&incoming, &data).await.status, 200);

    let seen = world.destination.wait_for(1).await.unwrap();
    assert_eq!(seen[0].json().unwrap(), data);
    assert_eq!(seen[0].header("x-tpl"), Some("{{ 7*7 }} {{ secret }}"));
    assert_eq!(world.acme.events(1).await[0].params["tpl"], "{{ 7*7 }} {{ secret }}");
}

#[tokio::test]
async fn a_header_with_a_line_break_is_not_sent_s28() {
    let headers = vec![header("x-name", "{{ request.body.name }}")];
    let (world, incoming) = sending(OutgoingRequest { headers, ..post("https://api.example.com/orders", "{}") }).await;
    assert_eq!(world.trigger(&incoming, &json!({"name": "a\r\nx-admin: true"})).await.status, 200);

    let deliveries = world.acme.deliveries(1).await;
    assert_eq!((deliveries[0].state(), deliveries[0].reason()), (DeliveryState::Dead, Reason::RequestInvalid));
    let events = world.acme.events(1).await;
    let params = &events[0].params;
    assert_eq!((&params["status"], &params["statusDescription"]), (&json!(0), &json!("REQUEST_INVALID")));
    assert_eq!(world.destination.requests().len(), 0);
}
