//! What is in force and what is only a draft: a publish changes the next delivery and all of it at once, and what breaks a
//! rule is refused with its place while the version in force goes on.

use prost::Message as _;
use serde_json::json;
use sluice::destination::{Answer, Gate, Seen};
use sluice_client::admin;
use sluice_control_plane::Database;
use sluice_core::snapshot::content_hash;
use sluice_proto::sync::v1 as sync;
use sluice_proto::sync::v1::resource::Document;
use sluice_tests::resources::{custom_webhook, existing, header, open, post, workflow};
use sluice_tests::{World, eventually, reason, violations};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const URL: &str = "https://api.example.com/orders";
/// A template that no version can have.
const BROKEN: &str = "{\n  \"id\": \"{{ request.body.id | uppr }}\"\n}";
/// A template that only a workflow with a customer can have (R080).
const CUSTOMER: &str = "{\n  \"mail\": \"{{ customer.email }}\"\n}";

/// A request that carries the mark of a version in its body and in a header.
fn marked(mark: u32) -> admin::OutgoingRequest {
    let body = format!(r#"{{"id": {{{{ request.body.id }}}}, "version": "{mark}"}}"#);
    let value = format!("{mark}-{{{{ request.body.id }}}}");
    admin::OutgoingRequest { headers: vec![header("x-version", &value)], ..post(URL, &body) }
}

/// A published endpoint, workflow and outgoing integration that sends `marked(1)`.
async fn started() -> (World, admin::IncomingIntegration, admin::OutgoingIntegration) {
    let world = World::start().await;
    let incoming = world.acme.incoming("orders", open()).await;
    let outgoing = world.acme.outgoing("orders", marked(1)).await;
    world.acme.workflow("orders", workflow(&incoming, [existing("Send", &outgoing)])).await;
    world.served().await;
    (world, incoming, outgoing)
}

/// Stores another request as the draft.
async fn redraft(
    world: &World,
    outgoing: &admin::OutgoingIntegration,
    request: admin::OutgoingRequest,
) -> admin::OutgoingIntegration {
    let changed = admin::OutgoingIntegration { etag: String::new(), request: Some(request), ..outgoing.clone() };
    world.acme.update_outgoing(changed).await
}

async fn stored(world: &World, name: &str) -> admin::OutgoingIntegration {
    let request = admin::GetOutgoingIntegrationRequest { name: name.to_owned() };
    world.client.outgoing_integrations().get_outgoing_integration(request).await.unwrap().into_inner()
}

/// Triggers once more, and returns the mark that arrives at the destination.
async fn next_mark(world: &World, incoming: &admin::IncomingIntegration) -> String {
    let before = world.destination.requests().len();
    assert_eq!(world.trigger(incoming, &json!({"id": before})).await.status, 200);
    mark(world.destination.wait_for(before + 1).await.unwrap().last().unwrap())
}

/// The mark of a delivery, which must be the same everywhere in it.
fn mark(seen: &Seen) -> String {
    let body = seen.json().unwrap();
    let mark = body["version"].as_str().unwrap().to_owned();
    let header = format!("{mark}-{}", body["id"]);
    assert_eq!(seen.header("x-version"), Some(header.as_str()), "one delivery, one version");
    mark
}

/// What a description says of the place of `what` in a template: line, column, and an excerpt with a mark under it.
fn place(source: &str, what: &str) -> String {
    let (index, line) = source.lines().enumerate().find(|(_, line)| line.contains(what)).unwrap();
    let before = line.find(what).unwrap();
    format!("(line {}, column {})\n{line}\n{}^", index + 1, before + 1, " ".repeat(before))
}

/// Asserts that `field` is refused for `reason` with the place of `what` in `source`.
fn assert_told(status: &Status, field: &str, reason: &str, source: &str, what: &str) -> String {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let all = violations(status);
    let found = all.iter().find(|(told, why, _)| told == field && why == reason);
    let (_, _, description) = found.unwrap_or_else(|| panic!("no {reason} of {field}: {all:?}"));
    assert!(description.contains(&place(source, what)), "{description}\n--- lacks\n{}", place(source, what));
    description.clone()
}

/// Asserts that a refusal names the resource, for people and for programs.
fn assert_names(status: &Status, name: &str) {
    assert!(status.message().contains(name), "{}", status.message());
    assert_eq!(status.get_error_details().resource_info().unwrap().resource_name, name);
}

#[tokio::test]
async fn a_draft_touches_nothing_and_a_publish_changes_the_next_delivery() {
    let (world, incoming, outgoing) = started().await;
    assert_eq!(next_mark(&world, &incoming).await, "1");
    let revision = world.acme.get().await.revision;
    let draft = redraft(&world, &outgoing, marked(2)).await;
    assert!(draft.has_unpublished_changes);
    assert_eq!(draft.published_version, 1);
    assert_eq!(world.acme.get().await.revision, revision, "a draft is no news to a data plane");
    world.served().await;
    assert_eq!(next_mark(&world, &incoming).await, "1");

    let published = world.acme.publish_outgoing(&outgoing.name).await.unwrap();
    assert_eq!((published.published_version, published.has_unpublished_changes), (2, false));
    world.served().await;
    assert_eq!(next_mark(&world, &incoming).await, "2");
}

#[tokio::test]
async fn a_draft_that_breaks_rules_is_refused_with_all_of_them() {
    let (world, incoming, outgoing) = started().await;
    let before = stored(&world, &outgoing.name).await;
    let broken = admin::OutgoingIntegration {
        display_name: String::new(),
        request: Some(admin::OutgoingRequest {
            url: "ftp://api.example.com/".to_owned(),
            headers: vec![header("x version", "1")],
            ..post(URL, BROKEN)
        }),
        ..before.clone()
    };
    let request = admin::UpdateOutgoingIntegrationRequest { outgoing_integration: Some(broken), ..Default::default() };
    let status = world.client.outgoing_integrations().update_outgoing_integration(request).await.unwrap_err();
    assert_told(&status, "request.body", "UNKNOWN_FILTER", BROKEN, "uppr");
    let fields: Vec<_> = violations(&status).into_iter().map(|(field, ..)| field).collect();
    for field in ["display_name", "request.url", "request.headers[0].name", "request.body"] {
        assert!(fields.iter().any(|told| told == field), "{field} is not among {fields:?}");
    }

    assert_eq!(stored(&world, &outgoing.name).await, before, "neither the draft nor the version has changed");
    world.served().await;
    assert_eq!(next_mark(&world, &incoming).await, "1");
}

/// Writes a template into the stored draft, past every rule. The control plane is stopped.
async fn smuggle(world: &World, name: &str, body: &str) {
    match &world.settings.control_plane.database {
        Database::Sqlite(path) => {
            let options = SqliteConnectOptions::new().filename(path);
            let mut store = SqliteConnection::connect_with(&options).await.unwrap();
            let draft = sqlx::query_scalar(DRAFT).bind(name).fetch_one(&mut store).await.unwrap();
            let (draft, hash) = smuggled(draft, body);
            sqlx::query(SMUGGLE).bind(draft).bind(hash).bind(name).execute(&mut store).await.unwrap();
            store.close().await.unwrap();
        }
        Database::Postgres(url) => {
            let mut store = PgConnection::connect(url.expose()).await.unwrap();
            let draft = sqlx::query_scalar(DRAFT).bind(name).fetch_one(&mut store).await.unwrap();
            let (draft, hash) = smuggled(draft, body);
            sqlx::query(SMUGGLE).bind(draft).bind(hash).bind(name).execute(&mut store).await.unwrap();
            store.close().await.unwrap();
        }
    }
}

const DRAFT: &str = "SELECT draft FROM document WHERE name = $1";
const SMUGGLE: &str = "UPDATE document SET draft = $1, draft_hash = $2 WHERE name = $3";

/// The draft with another body, and its hash.
fn smuggled(draft: Vec<u8>, body: &str) -> (Vec<u8>, Vec<u8>) {
    let mut resource = sync::Resource::decode(draft.as_slice()).unwrap();
    let Some(Document::OutgoingIntegration(outgoing)) = &mut resource.document else { panic!("not ours") };
    outgoing.request.as_mut().unwrap().body = Some(body.to_owned());
    (resource.encode_to_vec(), content_hash(&resource).to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_with_a_broken_template_is_refused_and_the_old_version_keeps_serving() {
    let (mut world, incoming, outgoing) = started().await;
    world.stop_control_plane().await;
    smuggle(&world, &outgoing.name, BROKEN).await;
    world.start_control_plane().await;
    let revision = world.acme.get().await.revision;
    assert_eq!(stored(&world, &outgoing.name).await.request.unwrap().body.as_deref(), Some(BROKEN));

    let status = world.acme.publish_outgoing(&outgoing.name).await.unwrap_err();
    assert_eq!(reason(&status), "FIELDS_INVALID");
    assert_told(&status, "request.body", "UNKNOWN_FILTER", BROKEN, "uppr");
    assert_names(&status, &outgoing.name);

    assert_eq!(world.acme.get().await.revision, revision);
    assert_eq!(stored(&world, &outgoing.name).await.published_version, 1);
    assert_eq!(next_mark(&world, &incoming).await, "1");
    world.restart_data_plane().await;
    world.served().await;
    assert_eq!(next_mark(&world, &incoming).await, "1", "nor does a data plane that starts anew get anything else");
}

#[tokio::test]
async fn a_workflow_that_requests_start_has_no_customer_r080() {
    let world = World::start().await;
    let incoming = world.acme.incoming("orders", open()).await;
    let inline = workflow(&incoming, [custom_webhook("Send", post(URL, CUSTOMER))]);
    let inline = world.acme.draft_workflow("inline", inline).await;
    let status = world.acme.publish_workflow(&inline.name).await.unwrap_err();
    assert_told(&status, "steps[0].custom_webhook.body", "CUSTOMER_NOT_AVAILABLE", CUSTOMER, "customer");
    assert_names(&status, &inline.name);

    let outgoing = world.acme.outgoing("mailer", post(URL, CUSTOMER)).await;
    let steps = [custom_webhook("First", marked(1)), existing("Second", &outgoing)];
    let referring = world.acme.draft_workflow("referring", workflow(&incoming, steps)).await;
    let status = world.acme.publish_workflow(&referring.name).await.unwrap_err();
    let told = assert_told(&status, "steps[1].outgoing_integration", "CUSTOMER_NOT_AVAILABLE", CUSTOMER, "customer");
    assert!(told.contains(&format!("in field `body` of {}", outgoing.name)), "{told}");
    assert_names(&status, &referring.name);

    world.served().await;
    assert_eq!(world.trigger(&incoming, &json!({"id": 1})).await.status, 200);
    assert!(world.destination.requests().is_empty(), "neither workflow is in force");
}

#[tokio::test]
async fn an_integration_cannot_begin_to_need_a_customer_under_a_workflow_that_has_none_r080() {
    let (world, incoming, outgoing) = started().await;
    redraft(&world, &outgoing, post(URL, CUSTOMER)).await;
    let status = world.acme.publish_outgoing(&outgoing.name).await.unwrap_err();
    let told = assert_told(&status, "request", "CUSTOMER_NOT_AVAILABLE", CUSTOMER, "customer");
    assert!(told.contains("workspaces/acme/workflows/orders"), "the workflow that would break is named: {told}");
    assert_names(&status, &outgoing.name);
    world.served().await;
    assert_eq!(next_mark(&world, &incoming).await, "1");
}

#[tokio::test]
async fn what_is_unpublished_is_gone_until_it_is_published_again() {
    let (world, incoming, _) = started().await;
    let flow = "workspaces/acme/workflows/orders";
    let status = world.acme.unpublish_incoming(&incoming.name).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "RESOURCE_IN_USE"));
    assert!(status.message().contains(flow), "{}", status.message());
    let users = status.get_error_details().precondition_failure().unwrap().violations.clone();
    assert_eq!(users.iter().map(|user| user.subject.as_str()).collect::<Vec<_>>(), [flow]);
    world.served().await;
    assert_eq!(next_mark(&world, &incoming).await, "1");

    world.acme.unpublish_workflow(flow).await.unwrap();
    world.acme.unpublish_incoming(&incoming.name).await.unwrap();
    world.served().await;
    assert_eq!(world.trigger(&incoming, &json!({"id": 1})).await.status, 404);

    let again = world.acme.publish_incoming(&incoming.name).await.unwrap();
    assert_eq!(again.endpoint_path, incoming.endpoint_path, "senders need not be told");
    world.acme.publish_workflow(flow).await.unwrap();
    world.served().await;
    assert_eq!(next_mark(&world, &incoming).await, "1");
}

#[tokio::test]
async fn a_publish_that_is_late_or_only_tried_changes_nothing() {
    let (world, incoming, outgoing) = started().await;
    let draft = redraft(&world, &outgoing, marked(2)).await;
    let revision = world.acme.get().await.revision;
    let publish = async |request| world.client.outgoing_integrations().publish_outgoing_integration(request).await;

    let name = outgoing.name.clone();
    let late = admin::PublishOutgoingIntegrationRequest { name, etag: outgoing.etag.clone(), ..Default::default() };
    let status = publish(late).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "ETAG_MISMATCH"));

    let name = outgoing.name.clone();
    let tried = admin::PublishOutgoingIntegrationRequest { name, validate_only: true, ..Default::default() };
    assert_eq!(publish(tried).await.unwrap().into_inner().published_version, 2, "what it would be");

    assert_eq!(stored(&world, &outgoing.name).await, draft);
    assert_eq!(world.acme.get().await.revision, revision);
    world.served().await;
    assert_eq!(next_mark(&world, &incoming).await, "1");

    let name = outgoing.name.clone();
    let in_time = admin::PublishOutgoingIntegrationRequest { name, etag: draft.etag, ..Default::default() };
    publish(in_time).await.unwrap();
    world.served().await;
    assert_eq!(next_mark(&world, &incoming).await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_tried_again_stays_what_it_was_d08() {
    let world = World::start().await;
    let incoming = world.acme.incoming("orders", open()).await;
    let first_wait = std::time::Duration::from_secs(1).try_into().ok();
    let retry = Some(admin::RetryPolicy { attempts_max: 2, first_wait, ..Default::default() });
    let outgoing = world.acme.outgoing("orders", admin::OutgoingRequest { retry, ..marked(1) }).await;
    world.acme.workflow("orders", workflow(&incoming, [existing("Send", &outgoing)])).await;
    world.served().await;

    let gate = Gate::new();
    world.destination.script([Answer::status(503).after(&gate)]);
    assert_eq!(next_mark(&world, &incoming).await, "1");
    redraft(&world, &outgoing, marked(2)).await;
    world.acme.publish_outgoing(&outgoing.name).await.unwrap();
    world.served().await;
    assert_eq!(next_mark(&world, &incoming).await, "2");
    gate.open();
    let seen = world.destination.wait_for(3).await.unwrap();
    assert_eq!(mark(&seen[2]), "1");
    assert_eq!(seen[2].body, seen[0].body, "the second attempt sends the bytes of the first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_under_load_is_all_or_nothing() {
    const VERSIONS: u32 = 12;
    const SENDERS: usize = 4;
    let (world, incoming, outgoing) = started().await;
    let done = std::sync::atomic::AtomicBool::new(false);
    let send = async |sender: usize| {
        let mut taken = 0;
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            assert_eq!(world.trigger(&incoming, &json!({"id": sender * 1_000_000 + taken})).await.status, 200);
            taken += 1;
        }
        taken
    };
    let met = async |version: u32, before: usize| {
        eventually("deliveries of this version", || async {
            let seen = world.destination.requests();
            seen[before..].iter().any(|seen| mark(seen) == version.to_string()).then_some(())
        })
        .await;
    };
    let publish = async {
        // The next version comes only when this one has met traffic, from the first on.
        met(1, 0).await;
        for version in 2..=VERSIONS {
            let before = world.destination.requests().len();
            redraft(&world, &outgoing, marked(version)).await;
            world.acme.publish_outgoing(&outgoing.name).await.unwrap();
            met(version, before).await;
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (taken, ()) = tokio::join!(futures::future::join_all((0..SENDERS).map(send)), publish);
    let taken = taken.into_iter().sum();
    let seen = world.destination.wait_for(taken).await.unwrap();
    let marks: std::collections::BTreeSet<_> = seen.iter().map(mark).collect();
    assert_eq!(marks.len(), VERSIONS as usize, "every version has been delivered, each whole: {marks:?}");
    assert_eq!(next_mark(&world, &incoming).await, VERSIONS.to_string());
}

/// I8: what one request may start is known when a workflow is published, and never cut afterwards.
#[tokio::test]
async fn one_request_starts_no_more_than_a_hundred_deliveries() {
    use sluice_tests::resources::{custom_webhook, post, workflow};
    let world = World::start().await;
    let incoming = world.acme.incoming("orders", sluice_tests::resources::open()).await;
    let url = "https://api.example.com/orders";
    let steps =
        |count: usize| (0..count).map(|n| custom_webhook(&format!("Step {n}"), post(url, "{}"))).collect::<Vec<_>>();
    for number in 0..5 {
        world.acme.workflow(&format!("full-{number}"), workflow(&incoming, steps(20))).await;
    }
    world.served().await;
    let answer = world.trigger(&incoming, &serde_json::json!({})).await;
    assert_eq!(answer.status, 200);
    assert_eq!(world.acme.deliveries(100).await.len(), 100);

    let twice = admin::Workflow {
        triggers: vec![workflow(&incoming, []).triggers.remove(0); 2],
        ..workflow(&incoming, steps(1))
    };
    let draft = world.acme.draft_workflow("one-more", twice).await;
    let broken = sluice_tests::violations(&world.acme.publish_workflow(&draft.name).await.unwrap_err());
    let [(field, reason, description)] = broken.as_slice() else { panic!("{broken:?}") };
    assert_eq!((field.as_str(), reason.as_str()), ("triggers[0]", "STARTS_TOO_MANY"));
    for part in ["101 deliveries", "1 of this workflow", "100 of", "full-4", "limit is 100"] {
        assert!(description.contains(part), "{part}: {description}");
    }
    // One that is published already is not counted twice, and room is made by taking one away.
    let mut last = world
        .acme
        .workflow(
            "full-4-again",
            workflow(&world.acme.incoming("other", sluice_tests::resources::open()).await, steps(20)),
        )
        .await;
    last.display_name = "Once more".to_owned();
    world.acme.publish_workflow(&world.acme.update_workflow(last).await.name).await.unwrap();
    world.acme.unpublish_workflow(&format!("{}/workflows/full-4", world.acme.name)).await.unwrap();
    world.acme.publish_workflow(&draft.name).await.unwrap();

    // The same for response events.
    let listening = |count: usize| {
        let response_event = Some(admin::ResponseEventTrigger { action: "told".to_owned() });
        let triggers = vec![admin::Trigger { response_event, ..Default::default() }];
        admin::Workflow { triggers, ..workflow(&incoming, steps(count)) }
    };
    for number in 0..5 {
        world.acme.workflow(&format!("told-{number}"), listening(20)).await;
    }
    let draft = world.acme.draft_workflow("told-too", listening(1)).await;
    let broken = sluice_tests::violations(&world.acme.publish_workflow(&draft.name).await.unwrap_err());
    assert_eq!((broken.len(), broken[0].1.as_str()), (1, "STARTS_TOO_MANY"));
}
