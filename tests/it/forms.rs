//! What a workflow's step fills into the form of its integration is in what is sent (R006 to R009, R081, T16, D25, S40).

use serde_json::json;
use sluice_client::admin;
use sluice_client::admin::schema_field::Type;
use sluice_tests::resources::{field, filled, open, parameter, post, with_form, workflow};
use sluice_tests::{World, violations};
use tonic::Status;

const URL: &str = "https://api.example.com/in";

fn required(id: &str, kind: Type) -> admin::SchemaField {
    let validation = Some(admin::SchemaValidation { required: true, ..Default::default() });
    admin::SchemaField { validation, ..field(id, kind) }
}

/// The fields and reasons that a call was refused with.
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>) -> Vec<(String, String)> {
    violations(&answer.unwrap_err()).into_iter().map(|(field, reason, _)| (field, reason)).collect()
}

fn pair(field: &str, reason: &str) -> Vec<(String, String)> {
    vec![(field.to_owned(), reason.to_owned())]
}

/// T16: values are rendered once, what they bring is not rendered again, and what is not filled in prints nothing.
#[tokio::test]
async fn values_stand_where_the_body_names_them() {
    let world = World::start().await;
    let schema = world
        .acme
        .schema("order", [field("field1", Type::Text), field("field2", Type::Text), field("missing", Type::Text)]);
    let body = r#"{"field1": "{% context field1 %}","field2": "{% context field2 %}","m":"{% context missing %}"}"#;
    let request = admin::OutgoingRequest {
        event_parameters: vec![parameter("second", "{% context field2 %}")],
        ..post(URL, body)
    };
    let draft = world.acme.draft_outgoing("send", with_form(&schema.await, request)).await;
    let outgoing = world.acme.publish_outgoing(&draft.name).await.unwrap();
    assert_eq!(outgoing.schema_template_version, 1);
    let incoming = world.acme.incoming("orders", open()).await;
    let values = [("field1", "Value1"), ("field2", "Order {{ request.body.order_number }}")];
    world.acme.workflow("flow", workflow(&incoming, [filled("Send", &outgoing, values)])).await;
    world.served().await;
    world.trigger(&incoming, &json!({"order_number": "A-1001"})).await;
    world.trigger(&incoming, &json!({"order_number": "\"{{ 7*7 }}\""})).await;
    let seen = world.destination.wait_for(2).await.unwrap();
    let mut bodies: Vec<String> =
        seen.iter().map(|request| String::from_utf8(request.body.to_vec()).unwrap()).collect();
    bodies.sort_unstable();
    assert_eq!(
        bodies,
        [
            r#"{"field1": "Value1","field2": "Order A-1001","m":""}"#,
            r#"{"field1": "Value1","field2": "Order \"{{ 7*7 }}\"","m":""}"#
        ]
    );
    let events = world.acme.events(2).await;
    assert!(events.iter().any(|event| event.params["second"] == json!("Order A-1001")), "{events:?}");
    world.stop().await;
}

/// In a value position a typed value is JSON (D07); defaults stand in for what is empty; a date is its text.
#[tokio::test]
async fn typed_values_are_json_and_defaults_stand_in() {
    let world = World::start().await;
    let options = ["red", "blue"].map(|value| admin::SchemaOption { value: value.to_owned(), ..Default::default() });
    let fields = [
        required("amount", Type::Number),
        field("express", Type::Boolean),
        field("day", Type::Date),
        admin::SchemaField { options: options.into(), ..field("colours", Type::MultiSelect) },
        admin::SchemaField { default_value: "EUR".to_owned(), ..field("currency", Type::Text) },
        field("note", Type::TextArea),
    ];
    let schema = world.acme.schema("order", fields).await;
    let body = r#"{"amount": {{ context.amount }}, "tag": {% context amount %}, "double": {{ context.amount * 2 }},
        "express": {{ context.express }}, "day": {{ context.day }}, "colours": {{ context.colours }},
        "tagged": {% context colours %}, "first": "{{ context.colours[0] }}", "currency": "{{ context["currency"] }}",
        "note": {{ context.note }}, "empty": "{{ context.note }}"}"#;
    let draft = world.acme.draft_outgoing("send", with_form(&schema, post(URL, body))).await;
    let outgoing = world.acme.publish_outgoing(&draft.name).await.unwrap();
    let incoming = world.acme.incoming("orders", open()).await;
    let values = [
        ("amount", "{{ request.body.amount }}"),
        ("express", "{{ request.body.express }}"),
        ("day", "2026-11-22"),
        ("colours", "{{ request.body.colours|tojson }}"),
        ("currency", "{{ request.body.currency }}"),
    ];
    world.acme.workflow("flow", workflow(&incoming, [filled("Send", &outgoing, values)])).await;
    world.served().await;
    world.trigger(&incoming, &json!({"amount": 12.5, "express": true, "colours": ["red", "blue"]})).await;
    let seen = world.destination.wait_for(1).await.unwrap();
    let expected = json!({"amount": 12.5, "tag": 12.5, "double": 25.0, "express": true, "day": "2026-11-22",
        "colours": ["red", "blue"], "tagged": ["red", "blue"], "first": "red", "currency": "EUR", "note": null, "empty": ""});
    assert_eq!(seen[0].json().unwrap(), expected);
    world.stop().await;
}

/// S40: a value that breaks a rule after it was rendered ends the delivery, naming the field and never the value; nothing is sent.
#[tokio::test]
async fn a_rendered_value_that_breaks_a_rule_ends_the_delivery() {
    let world = World::start().await;
    let rules = admin::SchemaValidation {
        pattern: "[0-9]{5}".to_owned(),
        error_message: "Give a postal code".to_owned(),
        ..Default::default()
    };
    let postal = admin::SchemaField { validation: Some(rules), ..field("postal", Type::Text) };
    let schema = world.acme.schema("order", [postal, required("name", Type::Text)]).await;
    let body = r#"{"postal": "{% context postal %}", "name": "{{ context.name }}"}"#;
    let draft = world.acme.draft_outgoing("send", with_form(&schema, post(URL, body))).await;
    let outgoing = world.acme.publish_outgoing(&draft.name).await.unwrap();
    let incoming = world.acme.incoming("orders", open()).await;
    let values = [("postal", "{{ request.body.postal }}"), ("name", "{{ request.body.name }}")];
    world.acme.workflow("flow", workflow(&incoming, [filled("Send", &outgoing, values)])).await;
    world.served().await;
    world.trigger(&incoming, &json!({"postal": "CANARY", "name": "Jo"})).await;
    world.trigger(&incoming, &json!({"postal": "12345", "name": ""})).await;
    let ended = world.acme.deliveries(2).await;
    let mut told: Vec<(admin::failure::Reason, &str)> =
        ended.iter().map(|delivery| (delivery.reason(), delivery.message.as_str())).collect();
    told.sort_unstable_by_key(|(_, message)| message.to_owned());
    let reason = admin::failure::Reason::FormValueInvalid;
    let expected = [
        (reason, "form_values[name]: a value is required"),
        (reason, "form_values[postal]: Give a postal code (must match the field's pattern)"),
    ];
    assert_eq!(told, expected);
    assert!(
        ended.iter().all(|delivery| delivery.state() == admin::DeliveryState::Dead && delivery.attempts.is_empty())
    );
    let events = world.acme.events(2).await;
    assert!(events.iter().all(|event| event.params["statusDescription"] == json!("FORM_VALUE_INVALID")), "{events:?}");
    world.trigger(&incoming, &json!({"postal": "12345", "name": "Jo"})).await;
    let seen = world.destination.wait_for(1).await.unwrap();
    assert_eq!(seen[0].json().unwrap(), json!({"postal": "12345", "name": "Jo"}));
    world.stop().await;
}

/// A published integration stays with the version of its form until it is published again, together with what uses it.
#[tokio::test]
async fn a_form_is_pinned_when_its_integration_is_published() {
    let world = World::start().await;
    let first = world.acme.schema("order", [field("note", Type::Text)]).await;
    let draft = world.acme.draft_outgoing("send", with_form(&first, post(URL, r#"{"n": "{% context note %}"}"#))).await;
    let outgoing = world.acme.publish_outgoing(&draft.name).await.unwrap();
    let incoming = world.acme.incoming("orders", open()).await;
    let step = filled("Send", &outgoing, [("note", "{{ request.body.note }}")]);
    world.acme.workflow("flow", workflow(&incoming, [step])).await;

    let note = admin::SchemaField {
        validation: Some(admin::SchemaValidation { max_length: 3, ..Default::default() }),
        ..field("note", Type::Text)
    };
    world
        .acme
        .update_schema(admin::SchemaTemplate { fields: vec![note, required("code", Type::Text)], ..first.clone() })
        .await;
    assert_eq!(world.acme.publish_schema(&first.name).await.unwrap().published_version, 2);
    world.served().await;
    world.trigger(&incoming, &json!({"note": "long enough"})).await;
    let seen = world.destination.wait_for(1).await.unwrap();
    assert_eq!(seen[0].json().unwrap(), json!({"n": "long enough"}), "the version that it was published with");

    // Its workflow does not fill in the new required field: the new version cannot come into force by itself.
    let found = violations(&world.acme.publish_outgoing(&outgoing.name).await.unwrap_err());
    assert_eq!((found[0].0.as_str(), found[0].1.as_str()), ("request", "REQUIRED"));
    assert!(found[0].2.contains("workspaces/acme/workflows/flow"), "{found:?}");
    let step = filled("Send", &outgoing, [("note", "{{ request.body.note }}"), ("code", "7")]);
    let flow = admin::Workflow { name: format!("{}/workflows/flow", world.acme.name), ..workflow(&incoming, [step]) };
    let flow = world.acme.update_workflow(flow).await;
    let drafts = [&outgoing.name, &flow.name];
    let drafts = drafts.map(|name| admin::DraftToPublish { name: name.clone(), ..Default::default() }).into();
    let request = admin::PublishDraftsRequest { parent: world.acme.name.clone(), drafts, ..Default::default() };
    world.client.configuration().publish_drafts(request).await.unwrap();
    world.served().await;
    world.trigger(&incoming, &json!({"note": "long enough"})).await;
    assert_eq!(world.acme.deliveries(2).await[1].reason(), admin::failure::Reason::FormValueInvalid);
    world.stop().await;
}

/// What is wrong with a form or its values is said when it is saved, or at the latest when it is published.
#[tokio::test]
async fn what_does_not_fit_a_form_is_refused() {
    let world = World::start().await;
    let schema = world.acme.schema("order", [required("note", Type::Text), field("amount", Type::Number)]).await;
    let body = |text: &str| post(URL, &format!("{{\"a\": 1,\n \"n\": \"{text}\"}}"));
    let create = |id: &str, outgoing: admin::OutgoingIntegration| {
        let request = admin::CreateOutgoingIntegrationRequest {
            parent: world.acme.name.clone(),
            outgoing_integration_id: id.to_owned(),
            outgoing_integration: Some(outgoing),
            ..Default::default()
        };
        let client = world.client.clone();
        async move { client.outgoing_integrations().create_outgoing_integration(request).await }
    };
    // An id that the form lacks, with its place (D25).
    let answer = create("send", with_form(&schema, body("{% context nope %}{{ context.note }}"))).await;
    let found = violations(answer.as_ref().unwrap_err());
    assert_eq!((found.len(), found[0].0.as_str(), found[0].1.as_str()), (1, "request.body", "UNKNOWN_FORM_FIELD"));
    assert!(found[0].2.contains("(line 2, column 19)"), "{found:?}");
    // No form at all (R009).
    let fixed =
        admin::OutgoingIntegration { schema_template: String::new(), ..with_form(&schema, body("{{ context.note }}")) };
    assert_eq!(refused(create("send", fixed).await), pair("request.body", "UNKNOWN_FORM_FIELD"));
    // A schema template that is not there (R013).
    let gone = admin::OutgoingIntegration {
        schema_template: format!("{}-not-there", schema.name),
        ..with_form(&schema, body("{{ context.note }}"))
    };
    assert_eq!(refused(create("send", gone).await), pair("schema_template", "RESOURCE_NOT_FOUND"));

    let draft = world.acme.draft_outgoing("send", with_form(&schema, body("{{ context.note }}"))).await;
    let outgoing = world.acme.publish_outgoing(&draft.name).await.unwrap();
    let fixed = world.acme.outgoing("fixed", post(URL, "{}")).await;
    let incoming = world.acme.incoming("orders", open()).await;
    let save = |step: admin::Step| {
        let request = admin::CreateWorkflowRequest {
            parent: world.acme.name.clone(),
            workflow: Some(workflow(&incoming, [step])),
            ..Default::default()
        };
        let client = world.client.clone();
        async move { client.workflows().create_workflow(request).await.map(tonic::Response::into_inner) }
    };
    let cases = [
        (filled("Send", &outgoing, [("other", "x")]), "steps[0].form_values[other]", "UNKNOWN_FORM_FIELD"),
        (filled("Send", &outgoing, [("amount", "much")]), "steps[0].form_values[amount]", "FORM_VALUE_INVALID"),
        (filled("Send", &outgoing, [("note", "{% if %}")]), "steps[0].form_values[note]", "SYNTAX"),
        (
            filled("Send", &outgoing, [("note", "{{ context.amount }}")]),
            "steps[0].form_values[note]",
            "UNKNOWN_FORM_FIELD",
        ),
        (filled("Send", &outgoing, [("a b", "x")]), "steps[0].form_values", "ID_INVALID"),
        (filled("Send", &fixed, [("note", "x")]), "steps[0].form_values", "FORM_VALUES_NOT_TAKEN"),
    ];
    for (step, field, reason) in cases {
        let found = refused(save(step.clone()).await);
        assert_eq!(found.first(), pair(field, reason).first(), "{step:?}");
    }
    // What is required may come later than the draft, but not later than its publishing; a customer never comes (R080).
    let incomplete = save(filled("Send", &outgoing, [])).await.unwrap();
    let found = refused(world.acme.publish_workflow(&incomplete.name).await);
    assert_eq!(found, pair("steps[0].form_values[note]", "REQUIRED"));
    let customer = save(filled("Send", &outgoing, [("note", "{{ customer.email }}")])).await.unwrap();
    let found = refused(world.acme.publish_workflow(&customer.name).await);
    assert_eq!(found, pair("steps[0].form_values[note]", "CUSTOMER_NOT_AVAILABLE"));
    world.stop().await;
}

/// Who uses a form is named when it is to go (D30), and found (`FindUsages`).
#[tokio::test]
async fn a_form_in_use_stays() {
    let world = World::start().await;
    let schema = world.acme.schema("order", [field("note", Type::Text)]).await;
    let draft = world.acme.draft_outgoing("send", with_form(&schema, post(URL, "{}"))).await;
    let delete = admin::DeleteSchemaTemplateRequest { name: schema.name.clone(), ..Default::default() };
    let status = world.client.schema_templates().delete_schema_template(delete).await.unwrap_err();
    assert!(sluice_tests::reason(&status) == "RESOURCE_IN_USE" && status.message().contains(&draft.name), "{status:?}");
    world.acme.publish_outgoing(&draft.name).await.unwrap();
    let status = world.acme.unpublish_schema(&schema.name).await.unwrap_err();
    assert!(sluice_tests::reason(&status) == "RESOURCE_IN_USE" && status.message().contains(&draft.name), "{status:?}");
    let request = admin::FindUsagesRequest {
        name: schema.name.clone(),
        direction: admin::UsageDirection::UsedBy.into(),
        ..Default::default()
    };
    let usages = world.client.configuration().find_usages(request).await.unwrap().into_inner().usages;
    assert_eq!((usages.len(), usages[0].name.as_str(), usages[0].in_force), (1, draft.name.as_str(), true));
    // Without a published schema template nothing can be pinned.
    let other = world.acme.draft_schema("other", admin::SchemaTemplate { name: String::new(), ..schema.clone() }).await;
    let unpinned = world.acme.draft_outgoing("unpinned", with_form(&other, post(URL, "{}"))).await;
    let found = refused(world.acme.publish_outgoing(&unpinned.name).await);
    assert_eq!(found, pair("schema_template", "NOT_PUBLISHED"));
    // Published together, in whatever order, it can.
    let drafts = [&unpinned.name, &other.name];
    let drafts = drafts.map(|name| admin::DraftToPublish { name: name.clone(), ..Default::default() }).into();
    let request = admin::PublishDraftsRequest { parent: world.acme.name.clone(), drafts, ..Default::default() };
    let answer = world.client.configuration().publish_drafts(request).await.unwrap().into_inner();
    assert_eq!(answer.published.iter().map(|one| &one.name).collect::<Vec<_>>(), [&unpinned.name, &other.name]);
    world.stop().await;
}
