//! Requests captured while an integration is built (R159, R165 to R169, D23).

use serde_json::json;
use sluice::dev;
use sluice_client::admin;
use sluice_data_plane::clock::Clock;
use sluice_data_plane::inbox::{EmbeddedSettings, InboxSettings};
use sluice_tests::patience::{eventually, within};
use sluice_tests::resources::{condition, custom_webhook, dedup, meta, open, post, workflow};
use sluice_tests::{Answer, Request, World};
use tonic::{Code, Status, Streaming};

use super::meta::{SIGNATURE, sign};

const START: i64 = 1_718_010_930_000;

/// Begins to wait for a request to this integration.
async fn start(world: &World, incoming: &admin::IncomingIntegration) -> admin::Capture {
    connected(world, 1).await;
    let request = admin::StartCaptureRequest { parent: incoming.name.clone(), ..Default::default() };
    world.client.captures().start_capture(request).await.unwrap().into_inner()
}

/// Waits until so many data planes are connected.
async fn connected(world: &World, count: usize) {
    let look = async || {
        let request = admin::ListDataPlanesRequest::default();
        let planes = world.client.data_planes().list_data_planes(request).await.unwrap().into_inner().data_planes;
        (planes.iter().filter(|plane| plane.connected).count() >= count).then_some(())
    };
    eventually(&format!("{count} data planes to be connected"), look).await;
}

async fn get(world: &World, incoming: &admin::IncomingIntegration) -> Result<admin::Capture, Status> {
    let request = admin::GetCaptureRequest { name: format!("{}/capture", incoming.name) };
    Ok(world.client.captures().get_capture(request).await?.into_inner())
}

/// Waits for the end of a capture, as its author does.
async fn ended(world: &World, capture: &admin::Capture) -> admin::Capture {
    last_seen(watch(world, capture).await).await
}

async fn watch(world: &World, capture: &admin::Capture) -> Streaming<admin::WatchCaptureResponse> {
    let request = admin::WatchCaptureRequest { name: capture.name.clone(), uid: capture.uid.clone() };
    world.client.captures().watch_capture(request).await.unwrap().into_inner()
}

async fn last_seen(mut stream: Streaming<admin::WatchCaptureResponse>) -> admin::Capture {
    let mut last = None;
    within("the end of a capture", async {
        while let Some(message) = stream.message().await.unwrap() {
            last = message.capture;
        }
    })
    .await;
    last.unwrap()
}

async fn confirm(world: &World, capture: &admin::Capture) -> Result<admin::IncomingIntegration, Status> {
    let request =
        admin::ConfirmCaptureRequest { name: capture.name.clone(), uid: capture.uid.clone(), ..Default::default() };
    Ok(world.client.captures().confirm_capture(request).await?.into_inner())
}

/// What is shown of a parameter.
fn value<'c>(capture: &'c admin::Capture, path: &str) -> Option<&'c str> {
    let parameters = &capture.request.as_ref()?.parameters;
    Some(&parameters.iter().find(|parameter| parameter.path == path)?.value)
}

fn unknown(answer: &Answer) {
    assert_eq!((answer.status, answer.code().as_str()), (404, "ENDPOINT_UNKNOWN"));
}

#[tokio::test]
async fn a_draft_takes_the_one_request_that_is_waited_for_d23_r165_r166_r167() {
    let world = World::start().await;
    let draft = world.acme.draft_incoming("orders", open()).await;
    world.acme.incoming("other", open()).await;
    world.served().await;
    let body = r#"{"order": {"id": 7, "lines": [{"sku": "a"}, {"sku": "b"}]}, "note": "a.b", "none": null}"#;
    let sent =
        Request::post(&draft.endpoint_path, body).header("Authorization", "Bearer opq-xyz").header("X-Shop", "7");
    unknown(&world.send(&sent).await);

    let capture = start(&world, &draft).await;
    assert_eq!(capture.state(), admin::CaptureState::Waiting);
    assert_eq!(capture.name, format!("{}/capture", draft.name));
    let millis = |time: &Option<prost_types::Timestamp>| {
        let time = time.unwrap();
        time.seconds * 1000 + i64::from(time.nanos) / 1_000_000
    };
    assert_eq!(millis(&capture.expire_time) - millis(&capture.start_time), 90_000);
    let watched = async { ended(&world, &capture).await };
    let answered = async { world.send(&sent).await };
    let (taken, answer) = tokio::join!(watched, answered);
    assert_eq!((answer.status, answer.text().as_str()), (200, "OK"));
    // One was enough.
    unknown(&world.send(&sent).await);

    assert_eq!(taken.state(), admin::CaptureState::Taken);
    assert_eq!(taken.request.as_ref().unwrap().raw_json, body);
    assert_eq!(taken.request.as_ref().unwrap().data_plane, "dataPlanes/test");
    for (path, shown) in [
        ("body.order.id", "7"),
        ("body.order.lines[0].sku", "a"),
        ("body.order.lines[1].sku", "b"),
        ("body.note", "a.b"),
        ("body.none", "null"),
        (r"headers.X-Shop", "7"),
        (r"headers.Authorization", "******"),
        ("method", "POST"),
    ] {
        assert_eq!(value(&taken, path), Some(shown), "{path} of {taken:#?}");
    }
    assert!(!format!("{taken:?}").contains("opq-xyz"));
    assert_eq!(get(&world, &draft).await.unwrap(), taken);
    // It can be read when the workspace has another data key.
    let request = admin::RotateDataKeyRequest { name: world.acme.name.clone(), ..Default::default() };
    let rotation = world.client.workspaces().rotate_data_key(request).await.unwrap().into_inner().operation;
    eventually("the old key to be gone", || async {
        let request = admin::GetOperationRequest { name: rotation.clone() };
        world.client.operations().get_operation(request).await.unwrap().into_inner().end_time
    })
    .await;
    assert_eq!(get(&world, &draft).await.unwrap(), taken);
    // Nothing was kept of it, and nothing started.
    let request = admin::ListIncomingRequestsRequest { parent: world.acme.name.clone(), ..Default::default() };
    let listed = world.client.incoming_requests().list_incoming_requests(request).await.unwrap().into_inner();
    assert!(listed.incoming_requests.is_empty());
}

#[tokio::test]
async fn an_integration_that_was_never_published_has_a_capture_in_a_workspace_nobody_serves() {
    let world = World::start().await;
    let draft = world.acme.draft_incoming("orders", open()).await;
    let capture = start(&world, &draft).await;
    let answer = world.send(&Request::post(&draft.endpoint_path, "{}")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(ended(&world, &capture).await.state(), admin::CaptureState::Taken);
}

#[tokio::test]
async fn a_published_endpoint_also_processes_what_is_captured_d23() {
    let world = World::start().await;
    let incoming =
        world.acme.incoming("orders", admin::IncomingIntegration { deduplication: dedup(["body.id"]), ..open() }).await;
    let request = post("https://api.example.com/orders", r#"{"id": "{{ request.body.id }}"}"#);
    world.acme.workflow("flow", workflow(&incoming, [custom_webhook("Send", request)])).await;
    world.served().await;
    let capture = start(&world, &incoming).await;
    assert_eq!(world.trigger(&incoming, &json!({ "id": 1 })).await.status, 200);
    let taken = ended(&world, &capture).await;
    assert_eq!(value(&taken, "body.id"), Some("1"));
    assert_eq!(world.destination.wait_for(1).await.unwrap()[0].json().unwrap()["id"], "1");
    // The first wins; a duplicate is a request like any other to who captures.
    let again = start(&world, &incoming).await;
    assert_eq!(world.trigger(&incoming, &json!({ "id": 1 })).await.status, 204);
    assert_eq!(world.trigger(&incoming, &json!({ "id": 2 })).await.status, 200);
    assert_eq!(value(&ended(&world, &again).await, "body.id"), Some("1"));
}

#[tokio::test]
async fn who_may_not_send_is_not_captured_d23() {
    let world = World::start().await;
    let draft = world.acme.draft_incoming("meta", meta("app-secret", "tok-1")).await;
    let capture = start(&world, &draft).await;
    let path = &draft.endpoint_path;
    assert_eq!(world.send(&Request::post(path, "{}")).await.status, 401);
    assert_eq!(world.send(&Request::post(path, "{}").header(SIGNATURE, sign("other", b"{}"))).await.status, 401);
    let bad = Request::post(path, "not json").header(SIGNATURE, sign("app-secret", b"not json"));
    assert_eq!(world.send(&bad).await.status, 400);
    assert_eq!(get(&world, &draft).await.unwrap().state(), admin::CaptureState::Waiting);
    // Meta asks first whether the endpoint is ours (S08).
    let query = "hub.mode=subscribe&hub.challenge=42&hub.verify_token=tok-1";
    let handshake = world.send(&Request::new("GET", &format!("{path}?{query}"))).await;
    assert_eq!((handshake.status, handshake.text().as_str()), (200, "42"));
    let signature = sign("app-secret", b"{}");
    let good = Request::post(path, "{}").header(SIGNATURE, &signature).header("Cookie", "session=1");
    assert_eq!(world.send(&good).await.status, 200);
    let taken = ended(&world, &capture).await;
    assert_eq!(value(&taken, "headers.X-Hub-Signature-256"), Some("******"));
    assert_eq!(value(&taken, "headers.Cookie"), Some("******"));
}

#[tokio::test]
async fn a_wait_that_ends_empty_is_a_clean_result_r165() {
    let (control, data) = (sluice_control_plane::Clock::manual(START), Clock::manual(START));
    let world = World::with(|options| {
        options.control_plane.clock = control.clone();
        options.data_plane.clock = data.clone();
    })
    .await;
    let draft = world.acme.draft_incoming("orders", open()).await;
    let capture = start(&world, &draft).await;
    control.advance(89_999);
    data.advance(89_999);
    assert_eq!(get(&world, &draft).await.unwrap().state(), admin::CaptureState::Waiting);
    control.advance(1);
    data.advance(1);
    let ended = ended(&world, &capture).await;
    assert_eq!(ended.state(), admin::CaptureState::Empty);
    assert!(ended.request.is_none());
    unknown(&world.send(&Request::post(&draft.endpoint_path, "{}")).await);
    // The last moment counts.
    let again = start(&world, &draft).await;
    data.advance(89_999);
    assert_eq!(world.send(&Request::post(&draft.endpoint_path, "{}")).await.status, 200);
    assert_eq!(self::ended(&world, &again).await.state(), admin::CaptureState::Taken);
}

#[tokio::test]
async fn a_new_capture_replaces_the_old_one_and_a_cancelled_one_takes_nothing_d23() {
    let world = World::start().await;
    let draft = world.acme.draft_incoming("orders", open()).await;
    let old = start(&world, &draft).await;
    let (replaced, new) = tokio::join!(ended(&world, &old), start(&world, &draft));
    assert_eq!(replaced.state(), admin::CaptureState::Replaced);
    assert_eq!(world.send(&Request::post(&draft.endpoint_path, r#"{"a":1}"#)).await.status, 200);
    let taken = ended(&world, &new).await;
    assert_eq!((taken.uid.as_str(), value(&taken, "body.a")), (new.uid.as_str(), Some("1")));
    assert_eq!(confirm(&world, &old).await.unwrap_err().code(), Code::FailedPrecondition);

    let cancelled = start(&world, &draft).await;
    let cancel = admin::CancelCaptureRequest { name: cancelled.name.clone(), ..Default::default() };
    // Who watches since before hears of it.
    let watching = watch(&world, &cancelled).await;
    world.client.captures().cancel_capture(cancel).await.unwrap();
    assert_eq!(last_seen(watching).await.state(), admin::CaptureState::Replaced);
    assert_eq!(get(&world, &draft).await.unwrap_err().code(), Code::NotFound);
    let closed = async || (world.send(&Request::post(&draft.endpoint_path, "{}")).await.status == 404).then_some(());
    eventually("the endpoint to be closed", closed).await;
    assert_eq!(confirm(&world, &cancelled).await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_new_endpoint_id_ends_the_capture() {
    let world = World::start().await;
    let draft = world.acme.draft_incoming("orders", open()).await;
    let capture = start(&world, &draft).await;
    let request = admin::RegenerateEndpointRequest { name: draft.name.clone(), ..Default::default() };
    // Who watches since before hears of it.
    let watching = watch(&world, &capture).await;
    let regenerated = world.client.incoming_integrations().regenerate_endpoint(request).await.unwrap().into_inner();
    assert_eq!(last_seen(watching).await.state(), admin::CaptureState::Replaced);
    let closed = async || (world.send(&Request::post(&draft.endpoint_path, "{}")).await.status == 404).then_some(());
    eventually("the old endpoint to be closed", closed).await;
    let again = start(&world, &regenerated).await;
    assert_eq!(world.send(&Request::post(&regenerated.endpoint_path, "{}")).await.status, 200);
    assert_eq!(ended(&world, &again).await.state(), admin::CaptureState::Taken);
}

#[tokio::test]
async fn values_are_cut_and_a_list_of_paths_that_is_too_long_is_not_stored() {
    let world = World::start().await;
    let draft = world.acme.draft_incoming("orders", open()).await;
    let long = json!({ "cut": "ł".repeat(257), "whole": "ł".repeat(256) });
    let capture = start(&world, &draft).await;
    assert_eq!(world.send(&Request::post(&draft.endpoint_path, long.to_string())).await.status, 200);
    let taken = ended(&world, &capture).await;
    for path in ["body.cut", "body.whole"] {
        assert_eq!(value(&taken, path).unwrap().chars().count(), 256, "{path}");
    }
    // 600 paths of 435 bytes and those of the head are a little less than 256 KiB; with 440 bytes each they are more.
    for (key, fits) in [(430, true), (435, false)] {
        let body: serde_json::Map<String, serde_json::Value> =
            (0..600).map(|number| (format!("{number:04}{}", "k".repeat(key - 4)), json!(1))).collect();
        let capture = start(&world, &draft).await;
        let sent = Request::post(&draft.endpoint_path, serde_json::Value::from(body).to_string());
        assert_eq!(world.send(&sent).await.status, 200);
        ended(&world, &capture).await;
        let confirmed = confirm(&world, &capture).await;
        assert_eq!(confirmed.is_ok(), fits, "{confirmed:?}");
        if let Err(refused) = confirmed {
            assert!(refused.message().contains("the limit is 262144"), "{}", refused.message());
        }
    }
}

#[tokio::test]
async fn what_came_while_the_line_was_down_arrives_with_the_next_stream() {
    let mut world = World::start().await;
    let draft = world.acme.draft_incoming("orders", open()).await;
    let capture = start(&world, &draft).await;
    world.stop_control_plane().await;
    assert_eq!(world.send(&Request::post(&draft.endpoint_path, r#"{"a":1}"#)).await.status, 200);
    world.start_control_plane().await;
    let taken = eventually("the sample", || async {
        get(&world, &draft).await.ok().filter(|capture| capture.state() == admin::CaptureState::Taken)
    })
    .await;
    assert_eq!((taken.uid.as_str(), value(&taken, "body.a")), (capture.uid.as_str(), Some("1")));
}

#[tokio::test]
async fn a_data_plane_that_comes_later_is_told_of_what_is_waited_for() {
    let mut world = World::start().await;
    let draft = world.acme.draft_incoming("orders", open()).await;
    let capture = start(&world, &draft).await;
    world.restart_data_plane().await;
    let taken = async || (world.send(&Request::post(&draft.endpoint_path, "{}")).await.status == 200).then_some(());
    eventually("the capture to be open again", taken).await;
    assert_eq!(ended(&world, &capture).await.state(), admin::CaptureState::Taken);
    world.stop_data_plane().await;
    let request = admin::StartCaptureRequest { parent: draft.name.clone(), ..Default::default() };
    let nobody = eventually("the data plane to be gone", || async {
        world.client.captures().start_capture(request.clone()).await.err()
    })
    .await;
    assert!([Code::FailedPrecondition, Code::Unavailable].contains(&nobody.code()), "{nobody}");
}

#[tokio::test]
async fn of_two_data_planes_the_first_that_is_hit_wins_d23() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let mut settings = world.settings.data_plane.clone();
    settings.data_plane_id = "second".to_owned();
    settings.data_dir = folder.path().to_owned();
    settings.inbox = InboxSettings::Embedded(EmbeddedSettings::new(folder.path().join("inbox.db")));
    let second = dev::run_data_plane(settings, any, any).await.unwrap();
    connected(&world, 2).await;
    let draft = world.acme.draft_incoming("orders", open()).await;
    let capture = start(&world, &draft).await;
    let send = async |body: &str| {
        let request = Request::post(&draft.endpoint_path, body);
        sluice_tests::RawHttp::connect(second.ingress).await.exchange(&request).await.status
    };
    assert_eq!(send(r#"{"at":"second"}"#).await, 200);
    let taken = ended(&world, &capture).await;
    assert_eq!(value(&taken, "body.at"), Some("second"));
    assert_eq!(taken.request.as_ref().unwrap().data_plane, "dataPlanes/second");
    let over = async || (world.send(&Request::post(&draft.endpoint_path, "{}")).await.status == 404).then_some(());
    eventually("the first data plane to know that it is over", over).await;
    assert_eq!(get(&world, &draft).await.unwrap(), taken);
    second.stop().await.unwrap();
}

#[tokio::test]
async fn deduplication_and_filters_choose_from_what_was_confirmed_r159_r168_r169() {
    let world = World::start().await;
    let strict = |paths: [&str; 1]| dedup(paths).map(|rule| admin::Deduplication { allow_unseen: false, ..rule });
    let create = |deduplication: Option<admin::Deduplication>| admin::CreateIncomingIntegrationRequest {
        parent: world.acme.name.clone(),
        incoming_integration_id: "orders".to_owned(),
        incoming_integration: Some(admin::IncomingIntegration { deduplication, ..open() }),
        ..Default::default()
    };
    let mut service = world.client.incoming_integrations();
    let too_early = service.create_incoming_integration(create(strict(["body.id"]))).await.unwrap_err();
    assert!(too_early.message().contains("capture a request first"), "{}", too_early.message());
    let draft = service.create_incoming_integration(create(None)).await.unwrap().into_inner();
    assert!(draft.sample.is_none());

    let capture = start(&world, &draft).await;
    assert_eq!(confirm(&world, &capture).await.unwrap_err().code(), Code::FailedPrecondition, "nothing came yet");
    let body = json!({ "id": 1, "products": [{ "name": "a", "price": 2 }] });
    let sent = Request::post(&draft.endpoint_path, body.to_string()).header("X-Shop", "7");
    assert_eq!(world.send(&sent).await.status, 200);
    ended(&world, &capture).await;
    let confirmed = confirm(&world, &capture).await.unwrap();
    let paths: Vec<&str> =
        confirmed.sample.as_ref().unwrap().parameters.iter().map(|parameter| parameter.path.as_str()).collect();
    assert_eq!(paths[..3], ["body.id", "body.products[0].name", "body.products[0].price"]);
    assert!(paths.contains(&"headers.X-Shop"));
    assert_eq!(confirm(&world, &capture).await.unwrap(), confirmed, "what is so already stays as it is");

    let with = |deduplication| admin::IncomingIntegration { deduplication, etag: String::new(), ..confirmed.clone() };
    let update = async |incoming: admin::IncomingIntegration| {
        let request =
            admin::UpdateIncomingIntegrationRequest { incoming_integration: Some(incoming), ..Default::default() };
        Ok::<_, Status>(world.client.incoming_integrations().update_incoming_integration(request).await?.into_inner())
    };
    for unseen in ["body.other", "body.products[0].sku", "header:X-Other"] {
        let refused = update(with(strict([unseen]))).await.unwrap_err();
        assert!(refused.message().contains("is not in the confirmed sample"), "{unseen}: {}", refused.message());
    }
    for seen in ["body.id", "body.products[3].name", "header:x-shop", "header:X-Deduplication-Hash"] {
        update(with(strict([seen]))).await.unwrap();
    }
    let unseen = update(with(dedup(["body.other"]))).await.unwrap();
    assert_eq!(unseen.sample, confirmed.sample, "a caller cannot change it");
    let published = world.acme.publish_incoming(&confirmed.name).await.unwrap();
    world.served().await;

    let flow = |path: &str, allow_unseen: bool| {
        let request = post("https://api.example.com/orders", "{}");
        let mut flow = workflow(&published, [custom_webhook("Send", request)]);
        flow.triggers[0].filter = Some(condition(path, admin::Operator::Exists, []));
        flow.triggers[0].allow_unseen = allow_unseen;
        flow
    };
    let refused = world.acme.draft_workflow("unseen", flow("body.other", false)).await;
    let refused = world.acme.publish_workflow(&refused.name).await.unwrap_err();
    assert!(refused.message().contains("is not in the confirmed sample"), "{}", refused.message());
    world.acme.workflow("seen", flow("body.products[*].price", false)).await;
    world.acme.workflow("allowed", flow("body.other", true)).await;
    // Another sample must not take away what a published filter looks at.
    let again = start(&world, &published).await;
    assert_eq!(world.trigger(&published, &json!({ "other": 2 })).await.status, 200);
    ended(&world, &again).await;
    confirm(&world, &again).await.unwrap();
    let refused = world.acme.publish_incoming(&published.name).await.unwrap_err();
    assert!(refused.message().contains("workflows/seen"), "{}", refused.message());
}

/// Captures that may be open at once at one data plane.
const OPEN_MAX: usize = 256;

#[tokio::test(flavor = "multi_thread")]
async fn so_many_captures_wait_at_once_and_one_more_is_refused_by_name() {
    let world = World::start().await;
    connected(&world, 1).await;
    let mut drafts = Vec::new();
    for number in 0..=OPEN_MAX {
        drafts.push(world.acme.draft_incoming(&format!("orders-{number}"), open()).await);
    }
    let (one_more, within_the_limit) = drafts.split_last().unwrap();
    for draft in within_the_limit {
        start(&world, draft).await;
    }
    let request = admin::StartCaptureRequest { parent: one_more.name.clone(), ..Default::default() };
    let refused = world.client.captures().start_capture(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().contains("`open captures of a data plane`"), "{}", refused.message());
    let numbers = sluice_tests::Numbers::of(world.control_health()).await;
    assert_eq!(numbers.get("sluice_control_captures_open"), 257.0, "it waits for a data plane with room");
    // One that is open can be begun anew, and whoever ends makes room.
    let anew = start(&world, &within_the_limit[0]).await;
    let cancel = admin::CancelCaptureRequest { name: anew.name.clone(), ..Default::default() };
    world.client.captures().cancel_capture(cancel).await.unwrap();
    eventually("room for one more", || async {
        world.client.captures().start_capture(request.clone()).await.ok().map(drop)
    })
    .await;
    world.stop().await;
}
