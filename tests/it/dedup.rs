//! The same again: which requests are duplicates, for how long, and of whom (D04, D05, R156 to R164).

use std::time::Duration;

use serde_json::json;
use sluice_client::admin;
use sluice_data_plane::clock::Clock;
use sluice_tests::resources::{dedup, meta, open};
use sluice_tests::{Request, World};

const START: i64 = 1_718_010_930_000;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// A world with an endpoint that deduplicates like this, and that endpoint's path.
async fn deduplicating(deduplication: Option<admin::Deduplication>) -> (World, String) {
    let world = World::start().await;
    let incoming = admin::IncomingIntegration { deduplication, ..open() };
    let path = world.acme.incoming("orders", incoming).await.endpoint_path;
    world.served().await;
    (world, path)
}

async fn status(world: &World, path: &str, body: &str) -> u16 {
    world.send(&Request::post(path, body)).await.status
}

#[tokio::test]
async fn the_same_parameters_are_the_same_request_r158_r161() {
    let (world, path) = deduplicating(dedup(["body.order.id", "header:X-Shop"])).await;
    let send =
        async |body: &str, shop: &str| world.send(&Request::post(&path, body).header("x-shop", shop)).await.status;
    assert_eq!(send(r#"{"order":{"id":1}}"#, "a").await, 200);
    assert_eq!(send(r#"{"order":{"id":1}, "more": true}"#, "a").await, 204);
    assert_eq!(send(r#"{"order":{"id":1}}"#, "b").await, 200);
    assert_eq!(send(r#"{"order":{"id":2}}"#, "a").await, 200);
    assert_eq!(send(r#"{"order":{"id":2}}"#, "a").await, 204);
}

#[tokio::test]
async fn values_that_look_alike_are_not_the_same_d04_p05_p07_p19() {
    let (world, path) = deduplicating(dedup(["body.id", "body.more"])).await;
    let different = [
        r#"{"id":1}"#,
        r#"{"id":"1"}"#,
        r#"{"id":1.0}"#,
        r#"{"id":null}"#,
        r#"{"id":""}"#,
        r#"{"id":"null"}"#,
        r#"{"more":1}"#,
        r#"{"id":true}"#,
        r#"{"id":"true"}"#,
        r#"{"id":18446744073709551616}"#,
        r#"{"id":18446744073709551617}"#,
        r#"{"id":"a","more":"bc"}"#,
        r#"{"id":"ab","more":"c"}"#,
        r#"{"id":"{x}\r\n*"}"#,
    ];
    for body in different {
        assert_eq!(status(&world, &path, body).await, 200, "{body}");
    }
    for body in different {
        assert_eq!(status(&world, &path, body).await, 204, "{body}");
    }
}

#[tokio::test]
async fn without_any_chosen_value_nothing_is_a_duplicate_d04_p20() {
    let (world, path) = deduplicating(dedup(["body.id"])).await;
    for _ in 0..3 {
        assert_eq!(status(&world, &path, r#"{"other":1}"#).await, 200);
    }
    let metrics = world.health_answer("/metrics").await.text();
    let counted = metrics.lines().any(|line| line.contains("not_dedup") && line.ends_with(" 3"));
    assert!(counted, "and it is counted:\n{metrics}");
}

#[tokio::test]
async fn the_window_slides_for_7_days_from_the_last_request_x06_p24() {
    let clock = Clock::manual(START);
    let world = World::with(|options| options.data_plane.clock = clock.clone()).await;
    let path =
        world.acme.incoming("orders", admin::IncomingIntegration { deduplication: dedup(["body.id"]), ..open() }).await;
    let path = path.endpoint_path;
    world.served().await;
    let again = async || status(&world, &path, r#"{"id":1}"#).await;
    assert_eq!(again().await, 200);
    clock.advance(7 * DAY - HOUR);
    assert_eq!(again().await, 204, "6 d 23 h after the first");
    clock.advance(7 * DAY - HOUR);
    assert_eq!(again().await, 204, "6 d 23 h after the duplicate, which has begun the 7 days anew");
    clock.advance(7 * DAY + 1);
    assert_eq!(again().await, 200, "7 days without one");
    assert_eq!(again().await, 204);
}

#[tokio::test]
async fn the_window_is_a_setting_d05() {
    let clock = Clock::manual(START);
    let world = World::with(|options| options.data_plane.clock = clock.clone()).await;
    let window = Duration::from_secs(60).try_into().ok();
    let deduplication = dedup(["body.id"]).map(|rule| admin::Deduplication { window, ..rule });
    let path =
        world.acme.incoming("orders", admin::IncomingIntegration { deduplication, ..open() }).await.endpoint_path;
    world.served().await;
    assert_eq!(status(&world, &path, r#"{"id":1}"#).await, 200);
    clock.advance(59_000);
    assert_eq!(status(&world, &path, r#"{"id":1}"#).await, 204);
    clock.advance(60_001);
    assert_eq!(status(&world, &path, r#"{"id":1}"#).await, 200);
}

#[tokio::test]
async fn keys_outlive_a_restart() {
    let (mut world, path) = deduplicating(dedup(["body.id"])).await;
    assert_eq!(status(&world, &path, r#"{"id":1}"#).await, 200);
    world.restart_data_plane().await;
    assert_eq!(status(&world, &path, r#"{"id":1}"#).await, 204);
}

#[tokio::test]
async fn one_header_alone_is_the_identity_r164() {
    let (world, path) = deduplicating(dedup(["header:X-Event-Id"])).await;
    let send =
        async |name: &str, id: &str, body: &str| world.send(&Request::post(&path, body).header(name, id)).await.status;
    assert_eq!(send("X-Event-Id", "1", "{}").await, 200);
    assert_eq!(send("x-EVENT-id", "1", r#"{"other":1}"#).await, 204, "whatever the body, however the name is written");
    assert_eq!(send("X-Event-Id", "2", "{}").await, 200);
    assert_eq!(send("X-Event-Id", "a", "{}").await, 200);
    assert_eq!(send("X-Event-Id", "A", "{}").await, 200, "values are taken as they are");
}

const HASH: &str = "X-Deduplication-Hash";

async fn status_with_hash(world: &World, path: &str, hash: &str, body: &str) -> u16 {
    world.send(&Request::post(path, body).header(HASH, hash)).await.status
}

#[tokio::test]
async fn the_senders_hash_counts_when_nothing_is_chosen_r156_x07() {
    let (world, path) = deduplicating(None).await;
    assert_eq!(status_with_hash(&world, &path, "h-1", r#"{"a":1}"#).await, 200);
    assert_eq!(status_with_hash(&world, &path, "h-1", r#"{"a":2}"#).await, 204);
    assert_eq!(status_with_hash(&world, &path, "h-2", r#"{"a":1}"#).await, 200);
    assert_eq!(
        [status(&world, &path, "{}").await, status(&world, &path, "{}").await],
        [200, 200],
        "none sent: none looked for"
    );
}

#[tokio::test]
async fn the_senders_hash_is_ignored_when_switched_off_or_not_chosen_x07() {
    let ignoring = admin::Deduplication { ignore_deduplication_header: true, ..Default::default() };
    let (world, path) = deduplicating(Some(ignoring)).await;
    assert_eq!(
        [status_with_hash(&world, &path, "h", "{}").await, status_with_hash(&world, &path, "h", "{}").await],
        [200, 200]
    );

    let (world, path) = deduplicating(dedup(["body.id"])).await;
    assert_eq!(status_with_hash(&world, &path, "h", r#"{"id":1}"#).await, 200);
    assert_eq!(
        status_with_hash(&world, &path, "h", r#"{"id":2}"#).await,
        200,
        "the same hash does not make it the same"
    );
    assert_eq!(
        status_with_hash(&world, &path, "other", r#"{"id":1}"#).await,
        204,
        "another hash does not make it another"
    );

    let (world, path) = deduplicating(dedup(["body.id", "header:x-deduplication-hash"])).await;
    assert_eq!(status_with_hash(&world, &path, "h", r#"{"id":1}"#).await, 200);
    assert_eq!(status_with_hash(&world, &path, "other", r#"{"id":1}"#).await, 200, "chosen, it is one of the parts");
    assert_eq!(status_with_hash(&world, &path, "h", r#"{"id":1}"#).await, 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_at_once_exactly_one_is_kept_p23_i2() {
    const ROUNDS: usize = 10;
    let (world, path) = deduplicating(dedup(["body.id"])).await;
    let mut connections = Vec::new();
    for _ in 0..64 {
        connections.push(world.connect().await);
    }
    for round in 0..ROUNDS {
        let request = Request::post(&path, json!({"id": round}).to_string());
        let answers = connections.iter_mut().map(|connection| connection.exchange(&request));
        let mut statuses: Vec<u16> =
            futures::future::join_all(answers).await.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses[0], 200, "round {round}");
        assert!(statuses[1..].iter().all(|status| *status == 204), "round {round}: {statuses:?}");
    }
}

#[tokio::test]
async fn endpoints_and_tenants_never_share_keys_s15_p22() {
    let world = World::start().await;
    let other = world.workspace("other").await;
    let incoming = || admin::IncomingIntegration { deduplication: dedup(["body.id"]), ..open() };
    let paths = [
        world.acme.incoming("first", incoming()).await.endpoint_path,
        world.acme.incoming("second", incoming()).await.endpoint_path,
        other.incoming("first", incoming()).await.endpoint_path,
    ];
    world.served().await;
    for expected in [200, 204] {
        for path in &paths {
            assert_eq!(status(&world, path, r#"{"id":1}"#).await, expected);
        }
    }
}

#[tokio::test]
async fn another_choice_of_parameters_begins_anew_s15() {
    let (world, path) = deduplicating(dedup(["body.id"])).await;
    assert_eq!(status(&world, &path, r#"{"id":1}"#).await, 200);
    let name = "workspaces/acme/incomingIntegrations/orders".to_owned();
    let changed =
        admin::IncomingIntegration { name: name.clone(), deduplication: dedup(["body.id", "body.more"]), ..open() };
    world.acme.update_incoming(changed).await;
    world.acme.publish_incoming(&name).await.unwrap();
    world.served().await;
    assert_eq!(status(&world, &path, r#"{"id":1}"#).await, 200);
    assert_eq!(status(&world, &path, r#"{"id":1}"#).await, 204);
}

#[tokio::test]
async fn what_is_refused_leaves_no_key_s15() {
    let world = World::start().await;
    let limited = admin::IncomingIntegration {
        deduplication: dedup(["header:X-Id"]),
        rate_limit: Some(admin::RateLimit { requests_per_second: 1, burst: 1 }),
        ..open()
    };
    let limited = world.acme.incoming("limited", limited).await.endpoint_path;
    let signed = admin::IncomingIntegration { deduplication: dedup(["header:X-Id"]), ..meta("secret", "token") };
    let signed = world.acme.incoming("signed", signed).await.endpoint_path;
    let plain = admin::IncomingIntegration { deduplication: dedup(["header:X-Id"]), ..open() };
    let plain = world.acme.incoming("plain", plain).await.endpoint_path;
    world.served().await;
    let send = async |path: &str, id: &str, body: &str| world.send(&Request::post(path, body).header("X-Id", id)).await;

    // 400 and 415
    assert_eq!(send(&plain, "a", "{").await.status, 400);
    let text = Request::post(&plain, "{}").header("X-Id", "a").with("Content-Type", "text/plain");
    assert_eq!(world.send(&text).await.status, 415);
    assert_eq!(send(&plain, "a", "{}").await.status, 200);
    // 401: only the signature of `{}` under `secret` opens the door.
    let signature = "sha256=77325902caca812dc259733aacd046b73817372c777b8d95b402647474516e13";
    let request = Request::post(&signed, "{}").header("X-Id", "a");
    assert_eq!(world.send(&request).await.status, 401);
    assert_eq!(world.send(&request.clone().header("X-Hub-Signature-256", signature)).await.status, 200);
    assert_eq!(world.send(&request.header("X-Hub-Signature-256", signature)).await.status, 204);
    // 429
    assert_eq!(send(&limited, "first", "{}").await.status, 200);
    let refused = send(&limited, "second", "{}").await;
    if refused.status == 429 {
        let accepted = sluice_tests::eventually("the limit to let one through", async || {
            let answer = send(&limited, "second", "{}").await;
            (answer.status != 429).then_some(answer)
        });
        assert_eq!(accepted.await.status, 200);
    }
}
