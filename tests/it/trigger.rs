//! What a sender is answered: every status of D12, with the real bytes over a real socket.

use std::time::Duration;

use serde_json::json;
use sluice::destination::{Answer as Scripted, Gate};
use sluice_client::admin;
use sluice_tests::resources::{dedup, meta, open, post};
use sluice_tests::{Answer, RawHttp, Request, World, eventually};

/// A world with an endpoint for anyone, which starts nothing.
async fn with_open_endpoint() -> (World, String) {
    let world = World::start().await;
    let path = world.acme.incoming("open", open()).await.endpoint_path;
    world.served().await;
    (world, path)
}

/// Checks a refusal and its shape (D12): `{"error":{"code","message","request_id"}}`, the id also in the head.
#[track_caller]
fn assert_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body = answer.json();
    let fields: Vec<&str> = body["error"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((body.as_object().unwrap().len(), fields), (1, vec!["code", "message", "request_id"]));
    assert!(!body["error"]["message"].as_str().unwrap().is_empty());
    assert_eq!(answer.header("x-request-id"), body["error"]["request_id"].as_str());
    assert!(!answer.header("x-request-id").unwrap().is_empty());
}

#[track_caller]
fn assert_accepted(answer: &Answer) {
    assert_eq!((answer.status, answer.text().as_str()), (200, "OK"), "{answer:?}");
}

#[track_caller]
fn retry_after(answer: &Answer) -> u64 {
    answer.header("retry-after").expect("Retry-After").parse().expect("seconds")
}

// ---------------------------------------------------------------------------------------------------------------
// 200, 204, request ids

#[tokio::test]
async fn a_kept_request_is_answered_200_ok_r162_r163() {
    let (world, path) = with_open_endpoint().await;
    let answer = world.send(&Request::post(&path, r#"{"a":1}"#)).await;
    assert_accepted(&answer);
    assert_eq!(answer.header("content-length"), Some("2"));
    assert!(answer.header("server").is_none(), "says nothing of what runs here");
}

#[tokio::test]
async fn a_duplicate_is_answered_204_without_a_body_r161_x08() {
    let world = World::start().await;
    let incoming = admin::IncomingIntegration { deduplication: dedup(["body.id"]), ..open() };
    let path = world.acme.incoming("orders", incoming).await.endpoint_path;
    world.served().await;
    // All over one connection: an answer with a stray byte would spoil the next one.
    let mut connection = world.connect().await;
    assert_accepted(&connection.exchange(&Request::post(&path, r#"{"id":1}"#)).await);
    for _ in 0..3 {
        let duplicate = connection.exchange(&Request::post(&path, r#"{"id":1}"#)).await;
        assert_eq!((duplicate.status, duplicate.text().as_str()), (204, ""));
        assert_eq!((duplicate.header("content-length"), duplicate.header("transfer-encoding")), (None, None));
        assert!(duplicate.header("x-request-id").is_some());
    }
    assert_accepted(&connection.exchange(&Request::post(&path, r#"{"id":2}"#)).await);
}

#[tokio::test]
async fn every_answer_carries_a_request_id_d12() {
    let (world, path) = with_open_endpoint().await;
    let good = Request::post(&path, "{}");
    let bad = Request::post(&path, "{");
    let (first, second) = (world.send(&good).await, world.send(&good).await);
    assert!(first.header("x-request-id").is_some());
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
    for sent in ["r-1", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", &"x".repeat(128)] {
        assert_eq!(world.send(&good.clone().header("X-Request-ID", sent)).await.header("x-request-id"), Some(sent));
        let refused = world.send(&bad.clone().header("X-Request-ID", sent)).await;
        assert_refused(&refused, 400, "SYNTAX");
        assert_eq!(refused.header("x-request-id"), Some(sent));
    }
    for unusable in ["", "with space", &"x".repeat(129), "\u{e9}"] {
        let refused = world.send(&bad.clone().header("X-Request-ID", unusable)).await;
        assert_refused(&refused, 400, "SYNTAX");
        assert_ne!(refused.header("x-request-id"), Some(unusable), "one that cannot be used is replaced");
    }
}

#[tokio::test]
async fn many_requests_on_one_connection_are_answered_in_order_h24() {
    let (world, path) = with_open_endpoint().await;
    let requests = 0..100;
    let request = |number: u32| {
        let request = Request::post(&path, if number.is_multiple_of(3) { "{" } else { "{}" });
        request.header("X-Request-ID", number.to_string())
    };
    let bytes: Vec<u8> = requests.clone().flat_map(|number| request(number).bytes()).collect();
    let mut connection = world.connect().await;
    connection.send(&bytes).await;
    for number in requests {
        let answer = connection.answer().await;
        assert_eq!(answer.header("x-request-id"), Some(number.to_string().as_str()));
        assert_eq!(answer.status, if number.is_multiple_of(3) { 400 } else { 200 });
    }
}

// ---------------------------------------------------------------------------------------------------------------
// 400: bodies

#[tokio::test]
async fn any_json_value_is_accepted_d16() {
    let (world, path) = with_open_endpoint().await;
    let cases: &[&str] = &[
        "{}",
        "[]",
        "null",
        "\"x\"",
        "[1,2]",
        "-0",
        "1e-400",
        "1e400",
        "18446744073709551617",
        " \t\r\n{}\n",
        r#"{"a":1,"a":2}"#,
        r#"{"a\u0000b":"\u0000"}"#,
        r#"{"__proto__":1,"request":2,"headers":3,"":4,"a.b":5,"a[0]":6}"#,
        r#"{"emoji":"😀","escaped":"\ud83d\ude00"}"#,
    ];
    for case in cases {
        assert_accepted(&world.send(&Request::post(&path, case)).await);
    }
}

#[tokio::test]
async fn a_body_that_is_not_json_is_answered_400_p08_p09_p10() {
    let (world, path) = with_open_endpoint().await;
    let utf16: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cases: &[(&[u8], &str)] = &[
        (b"", "EMPTY"),
        (b" \n ", "EMPTY"),
        (b"{", "SYNTAX"),
        (b"hello", "SYNTAX"),
        (b"[1,]", "SYNTAX"),
        (b"{'a':1}", "SYNTAX"),
        (b"{/*x*/}", "SYNTAX"),
        (b"NaN", "SYNTAX"),
        (b"Infinity", "SYNTAX"),
        (b"+1", "SYNTAX"),
        (b"01", "SYNTAX"),
        (b"0x1", "TRAILING"),
        (b"{} {}", "TRAILING"),
        (b"{}x", "TRAILING"),
        (b"\"\x01\"", "SYNTAX"),
        (b"\"\\ud800\"", "SYNTAX"),
        (b"\"\\udc00\"", "SYNTAX"),
        (b"\"\xff\"", "NOT_UTF8"),
        (b"\"\xc0\xaf\"", "NOT_UTF8"),
        (b"\"\xed\xa0\x80\"", "NOT_UTF8"),
        (b"\xef\xbb\xbf{}", "BYTE_ORDER_MARK"),
        (b"\xff\xfe{\0}\0", "BYTE_ORDER_MARK"),
        (&utf16, "SYNTAX"),
    ];
    for (body, code) in cases {
        let answer = world.send(&Request::post(&path, body)).await;
        assert_refused(&answer, 400, code);
    }
    let refused = world.send(&Request::post(&path, "{\"a\":1,\n  \"b\" 2}")).await;
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("line 2, column 7"), "says where: {message}");
}

#[tokio::test]
async fn a_body_over_a_limit_is_answered_400_and_the_limit_is_named_s03_d16() {
    let (world, path) = with_open_endpoint().await;
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let leaves = |count: usize| format!("[{}]", vec!["1"; count].join(","));
    let key = |length: usize| format!("{{\"{}\":1}}", "k".repeat(length));
    // The path is `body.` and the key.
    let within = [nested(64), leaves(2_000), key(512 - 5)];
    for body in within {
        assert_accepted(&world.send(&Request::post(&path, body)).await);
    }
    let over = [
        (nested(65), "DEPTH", "DEPTH = 64"),
        (nested(500_000), "DEPTH", "DEPTH = 64"),
        ("{\"a\":".repeat(100_000), "DEPTH", "DEPTH = 64"),
        (leaves(2_001), "LEAVES", "LEAVES = 2000"),
        (key(512 - 4), "PATH_BYTES", "PATH_BYTES = 512"),
    ];
    for (body, code, names) in over {
        let answer = world.send(&Request::post(&path, body)).await;
        assert_refused(&answer, 400, code);
        assert!(answer.text().contains(names), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_deduplication_header_that_is_no_identity_is_answered_400_h34() {
    let (world, path) = with_open_endpoint().await;
    let good = Request::post(&path, "{}");
    let long = "x".repeat(257);
    let cases: &[&[u8]] = &[b"", long.as_bytes(), b"caf\xc3\xa9"];
    for value in cases {
        let answer = world.send(&good.clone().header("X-Deduplication-Hash", value)).await;
        assert_refused(&answer, 400, "DEDUPLICATION_HASH_INVALID");
    }
    let twice = good.clone().header("X-Deduplication-Hash", "a").header("x-deduplication-hash", "a");
    assert_refused(&world.send(&twice).await, 400, "DEDUPLICATION_HASH_INVALID");
    assert_accepted(&world.send(&good.clone().header("X-Deduplication-Hash", "x".repeat(256))).await);
}

// ---------------------------------------------------------------------------------------------------------------
// 400: framing

#[tokio::test]
async fn exactly_one_host_is_required_h11() {
    let (world, path) = with_open_endpoint().await;
    let good = Request::post(&path, "{}");
    assert_refused(&world.send(&good.clone().without("Host")).await, 400, "HOST_INVALID");
    assert_refused(&world.send(&good.clone().header("Host", "evil.example")).await, 400, "HOST_INVALID");
    // H12: what stands before the path does not matter for the way.
    let absolute = Request::post(&format!("http://evil.example{path}"), "{}");
    assert_accepted(&world.send(&absolute).await);
}

#[tokio::test]
async fn only_chunked_is_accepted_as_transfer_coding_h05_to_h08() {
    let (world, path) = with_open_endpoint().await;
    let body = b"2\r\n{}\r\n0\r\n\r\n";
    let codings: &[&[&str]] = &[
        &["xchunked"],
        &["chunked, identity"],
        &["chunked", "chunked"],
        &["chunked", "identity"],
        &["gzip, chunked"],
        &["identity"],
        &["\u{b}chunked"],
    ];
    for coding in codings {
        let request = Request::new("POST", &path).header("Content-Type", "application/json");
        let request = coding.iter().fold(request, |request, coding| request.header("Transfer-Encoding", coding));
        let mut connection = world.connect().await;
        connection.send(&request.head()).await;
        connection.send(body).await;
        assert_eq!(connection.answer().await.status, 400, "{coding:?}");
        assert_eq!(connection.closed().await, b"", "what follows is not read as a request: {coding:?}");
    }
    let space = format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n");
    let old = format!("POST {path} HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for head in [space, old] {
        let mut connection = world.connect().await;
        connection.send(head.as_bytes()).await;
        assert_eq!(connection.answer().await.status, 400, "{head}");
    }
}

#[tokio::test]
async fn lengths_that_lie_smuggle_nothing_h01_to_h04() {
    let (world, path) = with_open_endpoint().await;
    let json = "Content-Type: application/json";
    for (length, coding) in
        [("Content-Length: 6", "Transfer-Encoding: chunked"), ("Transfer-Encoding: chunked", "Content-Length: 6")]
    {
        let mut connection = world.connect().await;
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{json}\r\n{length}\r\n{coding}\r\n\r\n");
        connection.send(head.as_bytes()).await;
        connection.send(b"2\r\n{}\r\n0\r\n\r\nG").await;
        let answer = connection.answer().await;
        assert!([200, 400].contains(&answer.status), "{answer:?}");
        connection.finish().await;
        let rest = String::from_utf8(connection.closed().await).unwrap();
        assert!(!rest.contains("200 OK") && !rest.contains("404"), "`G` became a request: {rest}");
    }
    for lengths in ["2\r\nContent-Length: 3", "2, 2", "+2", "-1", "0x2", "18446744073709551616", ""] {
        let mut connection = world.connect().await;
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{json}\r\nContent-Length: {lengths}\r\n\r\n{{}}");
        connection.send(head.as_bytes()).await;
        assert_eq!(connection.answer().await.status, 400, "{lengths}");
    }
}

#[tokio::test]
async fn nonsense_ends_the_connection_and_nothing_else_h09_h14_h17() {
    let (world, path) = with_open_endpoint().await;
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n");
    let cases: Vec<Vec<u8>> = vec![
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(50),
        b"GET /\r\n\r\n".to_vec(),
        format!("POST {path} HTTP/1.2\r\nHost: a\r\n\r\n").into_bytes(),
        format!("POST {path} x HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes(),
        format!("{head}X-Folded: a\r\n b\r\n\r\n").into_bytes(),
        format!("{head}X-Nul: a\0b\r\n\r\n").into_bytes(),
        format!("{head}X-Return: a\rb\r\n\r\n").into_bytes(),
        format!("{head}Transfer-Encoding: chunked\r\n\r\nf0000000000000002\r\n{{}}\r\n0\r\n\r\n").into_bytes(),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}0\r\n\r\n").into_bytes(),
        format!("{head}Transfer-Encoding: chunked\r\n\r\nxyz\r\n").into_bytes(),
    ];
    for case in cases {
        let mut connection = world.connect().await;
        connection.send(&case).await;
        if let Some(answer) = connection.answer_or_end().await {
            assert_refused(&answer, 400, &answer.code());
        }
        connection.closed().await;
    }
    // What was read before it is answered before it.
    let mut connection = world.connect().await;
    let good = Request::post(&path, "{}");
    connection.send(&[good.bytes(), good.bytes(), b"GET /\r\n\r\n".to_vec()].concat()).await;
    assert_accepted(&connection.answer().await);
    assert_accepted(&connection.answer().await);
    assert_refused(&connection.answer().await, 400, "REQUEST_UNREADABLE");
    connection.closed().await;
    assert_accepted(&world.send(&good).await);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_accepted() {
    let (world, path) = with_open_endpoint().await;
    let mut connection = world.connect().await;
    connection
        .send(
            &Request::new("POST", &path)
                .header("Content-Type", "application/json")
                .header("Content-Length", "10")
                .head(),
        )
        .await;
    connection.send(b"{}").await;
    connection.finish().await;
    let answer = connection.answer_or_end().await;
    assert!(answer.is_none_or(|answer| answer.status == 400));
    connection.closed().await;
}

// ---------------------------------------------------------------------------------------------------------------
// 404, 405

#[tokio::test]
async fn only_the_exact_path_of_a_published_endpoint_exists_r132_r142_h30() {
    let (world, path) = with_open_endpoint().await;
    let draft = world.acme.draft_incoming("draft", open()).await.endpoint_path;
    let id = path.split('/').nth(4).unwrap().to_owned();
    assert_eq!(path, format!("/automation-endpoint/endpoints/authorized/{id}/trigger"));
    let before = "/automation-endpoint/endpoints/authorized";
    let unknown = "00000000-0000-4000-8000-000000000000";
    let cases = [
        draft,
        format!("{before}/{unknown}/trigger"),
        format!("{before}/{}/trigger", id.to_uppercase()),
        format!("{path}/"),
        format!("{path}/../x"),
        format!("{before}/x/../{id}/trigger"),
        format!("{before}/x/%2e%2e/{id}/trigger"),
        format!("/{path}"),
        format!("{before}//{id}/trigger"),
        format!("{path};a=b"),
        format!("{path}%00"),
        format!("{before}/{id}%00/trigger"),
        format!("{before}/{}/trigger", "a".repeat(4096)),
        format!("{before}/ä/trigger"),
        format!("{before}//trigger"),
        format!("/automation-endpoint/endpoints/{id}/trigger"),
        format!("/x{path}"),
        path.replace("trigger", "Trigger"),
        path.replace("trigger", "%74rigger"),
        "/".to_owned(),
        "/healthz".to_owned(),
        "/metrics".to_owned(),
    ];
    for case in cases {
        let answer = world.send(&Request::post(&case, "{}")).await;
        assert_refused(&answer, 404, "ENDPOINT_UNKNOWN");
        assert!(answer.header("location").is_none());
    }
    assert_accepted(&world.send(&Request::post(&format!("{path}?a=b"), "{}")).await);
}

#[tokio::test]
async fn another_method_is_answered_405_with_what_is_allowed_h19_m16() {
    let (world, path) = with_open_endpoint().await;
    let meta_path = world.acme.incoming("meta", meta("secret", "token")).await.endpoint_path;
    world.served().await;
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"] {
        let answer = world.send(&Request::new(method, &path)).await;
        assert_refused(&answer, 405, "METHOD_NOT_ALLOWED");
        assert_eq!(answer.header("allow"), Some("POST"), "{method}");
        if method != "GET" {
            let answer = world.send(&Request::new(method, &meta_path)).await;
            assert_refused(&answer, 405, "METHOD_NOT_ALLOWED");
            assert_eq!(answer.header("allow"), Some("GET, POST"), "{method}");
        }
    }
    let mut connection = world.connect().await;
    connection.send(&Request::new("HEAD", &path).bytes()).await;
    assert_eq!(connection.answer_to_head().await.status, 405);
    // H19: a body does not make a GET a POST, and what follows it is the next request.
    let mut connection = world.connect().await;
    assert_refused(&connection.exchange(&Request::new("GET", &path).body("{}")).await, 405, "METHOD_NOT_ALLOWED");
}

// ---------------------------------------------------------------------------------------------------------------
// 408: slow senders

/// A world that waits only this long for bodies.
async fn impatient(deadline: Duration) -> (World, String) {
    let world = World::with(|options| {
        options.data_plane.ingress.body_deadline = deadline;
        options.data_plane.ingress.head_deadline = deadline;
    })
    .await;
    let path = world.acme.incoming("open", open()).await.endpoint_path;
    world.served().await;
    (world, path)
}

fn promise(path: &str, bytes: usize) -> Vec<u8> {
    let request = Request::new("POST", path).header("Content-Type", "application/json");
    request.header("Content-Length", bytes.to_string()).head()
}

#[tokio::test]
async fn a_slow_body_is_answered_408_and_the_connection_closed_h21_h22() {
    let (world, path) = impatient(Duration::from_millis(300)).await;

    let mut silent = world.connect().await;
    silent.send(&promise(&path, 10)).await;
    let answer = silent.answer().await;
    assert_refused(&answer, 408, "BODY_TIMEOUT");
    assert_eq!((answer.header("connection"), silent.closed().await), (Some("close"), Vec::new()));

    // A byte now and then does not buy time.
    let mut trickling = world.connect().await;
    let request = Request::new("POST", &path).header("Content-Type", "application/json");
    trickling.send(&request.header("Transfer-Encoding", "chunked").head()).await;
    let answer = trickling.answer_while_sending(b"1\r\n \r\n", Duration::from_millis(20)).await;
    assert_refused(&answer, 408, "BODY_TIMEOUT");
    assert_eq!(answer.header("connection"), Some("close"));
}

#[tokio::test]
async fn a_slow_head_ends_the_connection_h20() {
    let (world, path) = impatient(Duration::from_millis(300)).await;
    let mut connection = world.connect().await;
    connection.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nX-Slow: ").as_bytes()).await;
    connection.closed().await;
}

/// Opens as many connections as are taken, all of which never finish.
async fn slow_senders(world: &World, path: &str, count: usize) -> Vec<RawHttp> {
    let mut senders = Vec::new();
    for _ in 0..count {
        let mut sender = world.connect().await;
        sender.send(&promise(path, 100)).await;
        senders.push(sender);
    }
    senders
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_senders_neither_hold_up_others_nor_leak_connections() {
    const SLOW: usize = 150;
    let world = World::with(|options| {
        options.data_plane.ingress.body_deadline = Duration::from_millis(700);
        options.data_plane.ingress.connections_max = SLOW + 2;
    })
    .await;
    let path = world.acme.incoming("open", open()).await.endpoint_path;
    world.served().await;
    // Were one connection of a round not given back, the next round would find no place.
    for _ in 0..3 {
        let mut senders = slow_senders(&world, &path, SLOW).await;
        let mut good = world.connect().await;
        for _ in 0..20 {
            assert_accepted(&good.exchange(&Request::post(&path, "{}")).await);
        }
        for sender in &mut senders {
            assert_eq!(sender.answer().await.status, 408);
            assert_eq!(sender.closed().await, b"");
        }
    }
    world.stop().await;
}

// ---------------------------------------------------------------------------------------------------------------
// 413, 414, 415, 431

#[tokio::test]
async fn a_body_over_1_mib_is_answered_413_h27_s03() {
    const LIMIT: usize = 1024 * 1024;
    let (world, path) = with_open_endpoint().await;
    let text = |bytes: usize| format!("\"{}\"", "a".repeat(bytes - 2));
    assert_accepted(&world.send(&Request::post(&path, text(LIMIT))).await);
    assert_accepted(&world.send(&Request::post(&path, text(LIMIT)).chunked(60_000)).await);
    // Declared: refused before a byte of it came.
    for declared in [LIMIT + 1, 2_147_483_648] {
        let mut connection = world.connect().await;
        connection.send(&promise(&path, declared)).await;
        let answer = connection.answer().await;
        assert_refused(&answer, 413, "BODY_TOO_LARGE");
        assert!(answer.text().contains("1048576"), "names the limit: {}", answer.text());
        connection.closed().await;
    }
    // Not declared: refused as soon as it is too much, and not read on.
    let mut connection = world.connect().await;
    let head = Request::new("POST", &path).header("Content-Type", "application/json");
    connection.send(&head.header("Transfer-Encoding", "chunked").head()).await;
    connection.send(format!("{:x}\r\n", LIMIT + 1).as_bytes()).await;
    connection.send(text(LIMIT + 1).as_bytes()).await;
    assert_refused(&connection.answer().await, 413, "BODY_TOO_LARGE");
}

#[tokio::test]
async fn a_uri_over_8_kib_is_answered_414_h16() {
    let (world, path) = with_open_endpoint().await;
    let query = |bytes: usize| format!("{path}?{}", "q".repeat(bytes - path.len() - 1));
    assert_accepted(&world.send(&Request::post(&query(8192), "{}")).await);
    assert_refused(&world.send(&Request::post(&query(8193), "{}")).await, 414, "URI_TOO_LONG");
    assert_refused(&world.send(&Request::post(&query(70_000), "{}")).await, 414, "URI_TOO_LONG");
}

#[tokio::test]
async fn too_many_or_too_large_headers_are_answered_431_h16() {
    let (world, path) = with_open_endpoint().await;
    let good = Request::post(&path, "{}");
    let many = |count: usize| (0..count).fold(good.clone(), |request, n| request.header(&format!("X-{n}"), "v"));
    // Host, Content-Type and Content-Length count too.
    assert_accepted(&world.send(&many(61)).await);
    assert_refused(&world.send(&many(62)).await, 431, "HEADERS_TOO_LARGE");
    assert_refused(&world.send(&many(101)).await, 431, "HEADERS_TOO_LARGE");
    assert_refused(&world.send(&many(300)).await, 431, "HEADERS_TOO_LARGE");
    assert_accepted(&world.send(&good.clone().header("X-Large", "v".repeat(32_000))).await);
    assert_refused(&world.send(&good.clone().header("X-Large", "v".repeat(33_000))).await, 431, "HEADERS_TOO_LARGE");
    let huge = good.header("X-Large", "v".repeat(500_000));
    assert_refused(&world.send(&huge).await, 431, "HEADERS_TOO_LARGE");
}

#[tokio::test]
async fn only_json_without_encoding_is_taken_else_415_r145_h28_h29() {
    let (world, path) = with_open_endpoint().await;
    let good = Request::post(&path, "{}");
    let good_types = [
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON ; charset=UTF-8",
        "application/json;charset=\"utf-8\"",
        "application/json; profile=x",
    ];
    for good_type in good_types {
        assert_accepted(&world.send(&good.clone().with("Content-Type", good_type)).await);
    }
    assert_refused(&world.send(&good.clone().without("Content-Type")).await, 415, "CONTENT_TYPE_UNSUPPORTED");
    let twice = good.clone().header("Content-Type", "application/json");
    assert_refused(&world.send(&twice).await, 415, "CONTENT_TYPE_UNSUPPORTED");
    let bad_types = [
        "",
        "text/plain",
        "application/json; charset=utf-16",
        "application/json; charset=iso-8859-1",
        "application/json-patch+json",
        "application/x-www-form-urlencoded",
        "application/json, text/plain",
        "json",
    ];
    for bad_type in bad_types {
        let answer = world.send(&good.clone().with("Content-Type", bad_type)).await;
        assert_refused(&answer, 415, "CONTENT_TYPE_UNSUPPORTED");
    }
    for encoding in ["gzip", "br", "zstd", "deflate", "identity, gzip"] {
        let answer = world.send(&good.clone().header("Content-Encoding", encoding)).await;
        assert_refused(&answer, 415, "CONTENT_ENCODING_UNSUPPORTED");
    }
    assert_accepted(&world.send(&good.clone().header("Content-Encoding", "identity")).await);
}

/// Pages of this process that are in memory, in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test]
async fn bodies_that_are_refused_leave_no_memory_behind() {
    let (world, path) = with_open_endpoint().await;
    let oversized = Request::post(&path, vec![b'x'; 3 << 20]).chunked(64 << 10).bytes();
    let deep = Request::post(&path, "[".repeat(1 << 20)).bytes();
    let not_json = Request::post(&path, vec![b'x'; 1 << 20]).bytes();
    let round = async |times: usize| {
        for _ in 0..times {
            for (bytes, status) in [(&oversized, 413), (&deep, 400), (&not_json, 400)] {
                let mut connection = world.connect().await;
                connection.send(bytes).await;
                // The door is closed while bytes are on their way, so the sender may see a reset instead of the answer.
                let answer = connection.answer_or_end().await;
                assert!(answer.as_ref().is_none_or(|answer| answer.status == status), "{answer:?}");
            }
        }
    };
    round(5).await;
    let before = resident();
    round(60).await;
    // 300 MiB came in. Other tests run in this process too, so the bound is wide; what is kept would be far beyond it.
    let grown = resident().saturating_sub(before);
    assert!(grown < 150 << 20, "{} MiB more", grown >> 20);
}

// ---------------------------------------------------------------------------------------------------------------
// 429, 503

#[tokio::test]
async fn over_the_rate_limit_is_answered_429_with_retry_after_d10() {
    let world = World::start().await;
    let slow = admin::RateLimit { requests_per_second: 1, burst: 3 };
    let slow = world.acme.incoming("slow", admin::IncomingIntegration { rate_limit: Some(slow), ..open() }).await;
    let other = world.acme.incoming("other", open()).await;
    world.served().await;
    let mut connection = world.connect().await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(connection.exchange(&Request::post(&slow.endpoint_path, "{}")).await);
    }
    for answer in &statuses[..3] {
        assert_accepted(answer);
    }
    // The machine may be slow enough for one more to be let through, not for two.
    let refused = statuses[4].clone();
    assert_refused(&refused, 429, "RATE_LIMITED");
    assert_eq!(retry_after(&refused), 1);
    assert_accepted(&connection.exchange(&Request::post(&other.endpoint_path, "{}")).await);
}

#[tokio::test]
async fn an_endpoint_takes_50_requests_a_second_and_100_at_once_f01() {
    let world = World::start().await;
    let incoming = world.acme.incoming("default", admin::IncomingIntegration { rate_limit: None, ..open() }).await;
    world.served().await;
    let mut connection = world.connect().await;
    let began = std::time::Instant::now();
    connection.send(&Request::post(&incoming.endpoint_path, "{}").bytes().repeat(300)).await;
    let mut accepted = 0;
    for _ in 0..300 {
        accepted += usize::from(connection.answer().await.status == 200);
    }
    let most = 100 + 50 * (began.elapsed().as_secs() as usize + 1);
    assert!((100..=most.min(299)).contains(&accepted), "{accepted} of at most {most}");
}

#[tokio::test]
async fn before_the_first_configuration_everything_is_answered_503_and_nothing_404() {
    let mut world = World::start().await;
    let incoming = world.acme.incoming("open", open()).await;
    world.served().await;
    world.stop_data_plane().await;
    world.stop_control_plane().await;
    std::fs::remove_dir_all(world.folder.path().join("last-good")).unwrap();
    world.start_data_plane().await;

    for path in [incoming.endpoint_path.as_str(), "/unknown"] {
        let answer = world.send(&Request::post(path, "{}")).await;
        assert_refused(&answer, 503, "NOT_READY");
        assert!(retry_after(&answer) >= 1);
    }
    assert_eq!(world.health_answer("/readyz").await.status, 503);
    assert_eq!(world.health_answer("/healthz").await.status, 200);

    world.start_control_plane().await;
    eventually("the endpoint to be served", async || {
        (world.trigger(&incoming, &json!({})).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(world.health_answer("/readyz").await.status, 200);
    assert_refused(&world.send(&Request::post("/unknown", "{}")).await, 404, "ENDPOINT_UNKNOWN");
}

#[tokio::test]
async fn a_full_queue_is_answered_503_and_claims_nothing_d06_s02() {
    let world = World::with(|options| *options.data_plane.inbox.max_jobs_mut() = 1).await;
    let gate = Gate::new();
    world.destination.script([Scripted::status(200).after(&gate)]);
    let incoming = world.acme.flow("orders", post("https://api.example.com/orders", "{}")).await;
    world.served().await;
    let unique = |id: &str| Request::post(&incoming.endpoint_path, "{}").header("X-Deduplication-Hash", id);
    assert_accepted(&world.send(&unique("a")).await);
    for _ in 0..2 {
        let answer = world.send(&unique("b")).await;
        assert_refused(&answer, 503, "QUEUE_FULL");
        assert!(retry_after(&answer) >= 1);
    }
    gate.open();
    world.acme.events(1).await;
    // Not 204: what was refused has left no key.
    assert_accepted(&world.send(&unique("b")).await);
    assert_eq!(world.send(&unique("a")).await.status, 204);
}

#[tokio::test]
async fn too_many_requests_at_once_are_answered_503_at_once() {
    let world = World::with(|options| options.data_plane.ingress.in_flight_max = 1).await;
    let path = world.acme.incoming("open", open()).await.endpoint_path;
    world.served().await;
    let mut first = world.connect().await;
    let head = Request::post(&path, "{}").header("Expect", "100-continue").head();
    first.send(&head).await;
    // "100 Continue" comes when the body is asked for: from then on the request is in work.
    first.expect_continue().await;
    let answer = world.send(&Request::post(&path, "{}")).await;
    assert_refused(&answer, 503, "OVERLOADED");
    assert!(retry_after(&answer) >= 1);
    first.send(b"{}").await;
    assert_accepted(&first.answer().await);
    assert_accepted(&world.send(&Request::post(&path, "{}")).await);
}
