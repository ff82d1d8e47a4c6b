//! Webhooks from Meta: the signature over the raw bytes (R154), and the GET handshake (S08). The rows are in `golden/meta`.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use sluice_client::admin;
use sluice_tests::resources::{custom_webhook, dedup, meta, open, post, workflow};
use sluice_tests::{Request, World, within};

pub(crate) const SIGNATURE: &str = "X-Hub-Signature-256";
const SECRET: &str = "sluice-test-app-secret";

/// As Meta signs.
pub(crate) fn sign(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// The cases of a golden file.
fn golden(file: &str) -> Vec<Value> {
    let path = format!("{}/golden/meta/{file}", env!("CARGO_MANIFEST_DIR"));
    let cases = std::fs::read_to_string(path).unwrap();
    cases.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text<'c>(case: &'c Value, field: &str) -> &'c str {
    case[field].as_str().unwrap()
}

#[tokio::test]
async fn signatures_decide_over_the_raw_bytes_m01_to_m08_f53() {
    let world = World::start().await;
    let mut tested = 0;
    for case in golden("signatures.jsonl") {
        // An integration has one secret here; rotation (M17) and none at all are the verifier's own cases.
        let Some([secret]) = case["secrets"].as_array().map(Vec::as_slice) else { continue };
        let secret = secret.as_str().unwrap();
        if secret.is_empty() {
            continue;
        }
        tested += 1;
        let path = world.acme.incoming(&format!("meta-{tested}"), meta(secret, "tok-1")).await.endpoint_path;
        world.served().await;
        let request = Request::post(&path, text(&case, "body"));
        let headers = case["headers"].as_array().unwrap().iter();
        let request = headers.fold(request, |request, value| request.header(SIGNATURE, value.as_str().unwrap()));
        let answer = world.send(&request).await;
        // Spaces around a header's value are no part of it: HTTP takes them away before anyone sees them.
        let stripped = ["M04 leading space", "M04 trailing space"].contains(&text(&case, "case"));
        match text(&case, "expect") {
            "secret 0" if text(&case, "body").is_empty() => assert_eq!(answer.code(), "EMPTY", "{case}"),
            "secret 0" => assert_eq!((answer.status, answer.text().as_str()), (200, "OK"), "{case}"),
            _ if stripped => assert_eq!(answer.status, 200, "{case}"),
            _ => {
                assert_eq!((answer.status, answer.code().as_str()), (401, "UNAUTHORIZED"), "{case}");
                let body = answer.json();
                // Whatever was wrong, the answer is the same, and names neither.
                assert_eq!(body["error"]["message"], "the request could not be authenticated", "{case}");
                assert!(answer.header("www-authenticate").is_some());
            }
        }
    }
    assert!(tested > 40, "the golden file is read: {tested}");
}

#[tokio::test]
async fn only_the_new_signature_counts_m05() {
    let world = World::start().await;
    let path = world.acme.incoming("meta", meta(SECRET, "tok-1")).await.endpoint_path;
    world.served().await;
    let legacy = Request::post(&path, "{}").header("X-Hub-Signature", "sha1=3e5ca9f0a8b5b3bbd2d9d7a1ee2ea3b9e3a9c1f2");
    assert_eq!(world.send(&legacy).await.status, 401);
}

#[tokio::test]
async fn what_is_signed_is_what_workflows_see_m01() {
    let world = World::start().await;
    let incoming = world.acme.incoming("meta", meta(SECRET, "tok-1")).await;
    let request = post("https://api.example.com/meta", r#"{"m": "{{ request.body.m }}"}"#);
    world.acme.workflow("flow", workflow(&incoming, [custom_webhook("Send", request)])).await;
    world.served().await;
    let body = r#"{"m":"\u00e4\u00f6\u00e5 \/ ok"}"#;
    let signed = Request::post(&incoming.endpoint_path, body).header(SIGNATURE, sign(SECRET, body.as_bytes()));
    assert_eq!(world.send(&signed).await.status, 200);
    let seen = world.destination.wait_for(1).await.unwrap();
    assert_eq!(seen[0].json().unwrap()["m"], "äöå / ok");
}

#[tokio::test]
async fn however_the_bytes_are_carried_they_are_the_same_m09() {
    let world = World::start().await;
    let path = world.acme.incoming("meta", meta(SECRET, "tok-1")).await.endpoint_path;
    world.served().await;
    let body = r#"{"object":"page","entry":[{"id":"42"}]}"#;
    let whole = Request::post(&path, body).header(SIGNATURE, sign(SECRET, body.as_bytes()));
    for size in [1, 7, 4096] {
        assert_eq!(world.send(&whole.clone().chunked(size)).await.status, 200, "chunks of {size}");
    }
    let mut connection = world.connect().await;
    connection.send(&whole.clone().header("Expect", "100-continue").head()).await;
    connection.expect_continue().await;
    for byte in body.bytes() {
        connection.send(&[byte]).await;
    }
    assert_eq!(connection.answer().await.status, 200);
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "the sender is outside of the building: it is the test that calls in")]
async fn http_2_carries_the_same_bytes_m09() {
    let world = World::start().await;
    let path = world.acme.incoming("meta", meta(SECRET, "tok-1")).await.endpoint_path;
    world.served().await;
    let body = br#"{"object":"page","entry":[{"id":"42"}]}"#;
    let stream = tokio::net::TcpStream::connect(world.ingress()).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for (secret, status) in [(SECRET, 200), ("another", 401)] {
        let request = http::Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/json")
            .header(SIGNATURE, sign(secret, body));
        let (answer, mut sending) = client.send_request(request.body(()).unwrap(), false).unwrap();
        // One byte a frame.
        for byte in body {
            sending.send_data(vec![*byte].into(), false).unwrap();
        }
        sending.send_data(Vec::new().into(), true).unwrap();
        assert_eq!(within("an answer", answer).await.unwrap().status(), status);
        client = client.ready().await.unwrap();
    }
}

#[tokio::test]
async fn a_body_that_trickles_in_is_cut_before_its_signature_is_looked_at_m12() {
    let deadline = Duration::from_millis(300);
    let world = World::with(|options| options.data_plane.ingress.body_deadline = deadline).await;
    let path = world.acme.incoming("meta", meta(SECRET, "tok-1")).await.endpoint_path;
    world.served().await;
    let unsigned = Request::post(&path, "").without("Content-Length").header("Content-Length", "1000");
    let mut connection = world.connect().await;
    connection.send(&unsigned.header(SIGNATURE, sign("another", b"")).head()).await;
    let answer = connection.answer_while_sending(b" ", Duration::from_millis(20)).await;
    assert_eq!((answer.status, answer.code().as_str()), (408, "BODY_TIMEOUT"));
}

#[tokio::test]
async fn only_endpoints_for_meta_have_a_handshake_m16() {
    let world = World::start().await;
    let path = world.acme.incoming("open", open()).await.endpoint_path;
    world.served().await;
    let query = "hub.mode=subscribe&hub.challenge=1&hub.verify_token=tok-1";
    let answer = world.send(&Request::new("GET", &format!("{path}?{query}"))).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
}

#[tokio::test]
async fn a_valid_request_that_is_sent_again_is_a_duplicate_if_duplicates_are_recognised_m18() {
    let world = World::start().await;
    let plain = world.acme.incoming("plain", meta(SECRET, "tok-1")).await.endpoint_path;
    let rule = admin::IncomingIntegration { deduplication: dedup(["body.entry[0].id"]), ..meta(SECRET, "tok-1") };
    let once = world.acme.incoming("once", rule).await.endpoint_path;
    world.served().await;
    let body = r#"{"object":"page","entry":[{"id":"42"}]}"#;
    let send = async |path: &str| {
        world.send(&Request::post(path, body).header(SIGNATURE, sign(SECRET, body.as_bytes()))).await.status
    };
    // Meta sends no time: without deduplication nothing tells the two apart.
    assert_eq!([send(&plain).await, send(&plain).await], [200, 200]);
    assert_eq!([send(&once).await, send(&once).await], [200, 204]);
}

#[tokio::test]
async fn what_is_wrong_is_found_in_the_right_order_m10_m11_m12() {
    let world = World::start().await;
    let path = world.acme.incoming("meta", meta(SECRET, "tok-1")).await.endpoint_path;
    world.served().await;
    let signed = |body: &str| Request::post(&path, body).header(SIGNATURE, sign(SECRET, body.as_bytes()));
    let unsigned = |body: &str| Request::post(&path, body).header(SIGNATURE, sign("another", body.as_bytes()));
    // M10: nothing is unpacked.
    assert_eq!(world.send(&signed("{}").header("Content-Encoding", "gzip")).await.status, 415);
    // M11: who cannot sign learns nothing about what is read.
    assert_eq!(world.send(&unsigned("not json")).await.status, 401);
    assert_eq!(world.send(&unsigned("{}").with("Content-Type", "text/plain")).await.status, 401);
    assert_eq!(world.send(&signed("not json")).await.status, 400);
    assert_eq!(world.send(&signed("{}").with("Content-Type", "text/plain")).await.status, 415);
    // M12: too large is said before anything is computed, and before it is read.
    let mut connection = world.connect().await;
    connection.send(&unsigned("").without("Content-Length").header("Content-Length", "5000000").head()).await;
    assert_eq!(connection.answer().await.status, 413);
}

#[tokio::test]
async fn the_handshake_answers_the_challenge_and_nothing_else_m13_to_m15() {
    let world = World::start().await;
    let path = world.acme.incoming("meta", meta(SECRET, "tok-1")).await.endpoint_path;
    world.served().await;
    let mut tested = 0;
    for case in golden("handshakes.jsonl") {
        if text(&case, "token") != "tok-1" {
            continue;
        }
        tested += 1;
        // As they stand, these two cannot be sent: no URI may hold them.
        let query = text(&case, "query").replace('<', "%3C").replace('>', "%3E").replace("{10KB}", &"a".repeat(10_240));
        let too_long = query.len() > 8_000;
        let answer = world.send(&Request::new("GET", &format!("{path}?{query}"))).await;
        match text(&case, "expect").split_once(' ') {
            Some(("200", challenge)) => {
                assert_eq!((answer.status, answer.text().as_str()), (200, challenge), "{case}");
                assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
                assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
            }
            _ => {
                let expected = if too_long { 414 } else { text(&case, "expect").parse().unwrap() };
                assert_eq!(answer.status, expected, "{case}");
                assert!(answer.header("set-cookie").is_none());
                let said = answer.text();
                assert!(!said.contains("script") && !said.contains("1158201444") && !said.contains("tok-"), "{said}");
            }
        }
    }
    assert!(tested > 15, "the golden file is read: {tested}");
}

#[tokio::test]
async fn a_wrong_verify_token_is_answered_403_d12() {
    let world = World::start().await;
    let path = world.acme.incoming("meta", meta(SECRET, "tok-1")).await.endpoint_path;
    world.served().await;
    let query = "hub.mode=subscribe&hub.challenge=1&hub.verify_token=wrong";
    let answer = world.send(&Request::new("GET", &format!("{path}?{query}"))).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "HANDSHAKE_REFUSED"));
    assert_eq!(answer.header("x-request-id"), answer.json()["error"]["request_id"].as_str());
}
