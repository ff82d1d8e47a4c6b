//! The client against real sockets and real TLS: what is sent, what is refused, and what a failure is called.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use sluice_core::credentials::Credential;
use sluice_egress::{
    Egress, Exchange, Phase, Proxy, Request, RequestError, SendError, Settings, SettingsError, apply, limits,
};

use crate::server::{Play, Server, Tls};

pub(super) const NAME: &str = "shop.example";
/// Long enough that only a hang reaches it.
pub(super) const AMPLE: Duration = Duration::from_secs(30);
/// For exchanges that must run out of time.
pub(super) const SHORT: Duration = Duration::from_millis(300);

pub(super) fn post(url: &str) -> Request {
    Request {
        method: Method::POST,
        url: url.into(),
        headers: vec![("Content-Type".into(), "application/json".into())],
        body: Bytes::from_static(b"{\"a\":1}"),
        hops: 0,
    }
}

pub(super) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Lets the connection of a finished exchange go back to the pool, which it does in a task of its own.
pub(super) async fn settled() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

/// One POST to `https://shop.example/in` on a server that plays one thing.
pub(super) async fn play(play: Play, timeout: Duration) -> (Result<Exchange, SendError>, Server) {
    let server = Server::start(NAME, vec![play]).await;
    let egress = Egress::new(server.settings(NAME)).unwrap();
    let outcome = egress.send(post("https://shop.example/in"), timeout).await;
    (outcome, server)
}

#[tokio::test]
async fn a_request_arrives_and_its_answer_returns() {
    let server = Server::start(NAME, vec![Play::Answer(ok("one")), Play::Answer(ok("two"))]).await;
    let egress = Egress::new(server.settings(NAME)).unwrap();

    let mut request = post("https://SHOP.example/in?x=1#part");
    apply(
        &mut request,
        Credential {
            headers: vec![("X-Api-Key".into(), sluice_core::seal::Secret::new("k"))],
            url_parameters: vec![("access_token".into(), sluice_core::seal::Secret::new("tok en/1"))],
        },
    );
    let first = egress.send(request, AMPLE).await.unwrap();
    assert_eq!((first.status, &first.body[..], first.truncated), (200, &b"one"[..], false));
    assert_eq!(first.headers, [("content-length".to_owned(), "3".to_owned())]);
    settled().await;

    let second = egress.send(post("https://shop.example/in"), AMPLE).await.unwrap();
    assert_eq!(&second.body[..], b"two");
    server.seen(|seen| {
        assert_eq!(seen.connections, 1, "the second request uses the first one's connection");
        assert_eq!(seen.names, [Some(NAME.to_owned())], "SNI is the name");
        let request = &seen.requests[0];
        assert!(request.starts_with("POST /in?x=1&access_token=tok%20en%2F1 HTTP/1.1\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n{\"a\":1}"), "{request}");
        for line in [
            "\r\nhost: shop.example\r\n",
            "\r\ncontent-type: application/json\r\n",
            "\r\nx-api-key: k\r\n",
            "\r\ncontent-length: 7\r\n",
            "\r\nsluice-hops: 1\r\n",
            concat!("\r\nuser-agent: Sluice/", env!("CARGO_PKG_VERSION"), "\r\n"),
        ] {
            assert!(request.contains(line), "{line:?} in {request}");
        }
        assert!(!request.contains("accept-encoding"), "nothing is decompressed, so nothing compressed is asked for");
    });
}

#[tokio::test]
async fn a_forbidden_address_sees_no_connection() {
    let server = Server::start(NAME, vec![]).await;
    let settings = Settings { extra_networks: vec![], ..server.settings(NAME) };
    let refused = Egress::new(settings).unwrap().send(post("https://shop.example/"), AMPLE).await.unwrap_err();
    assert_eq!(refused, SendError::AddressDenied);
    assert!(!refused.is_retryable() && !refused.reached_destination());

    // One forbidden answer beside an allowed one refuses both.
    let mut settings = server.settings(NAME);
    settings.static_addresses.get_mut(NAME).unwrap().push("10.0.0.1:443".parse().unwrap());
    let refused = Egress::new(settings).unwrap().send(post("https://shop.example/"), AMPLE).await.unwrap_err();
    assert_eq!(refused, SendError::AddressDenied);
    assert_eq!(server.seen(|seen| seen.connections), 0);
}

#[tokio::test]
async fn what_is_no_url_of_ours_is_never_tried() {
    let server = Server::start(NAME, vec![]).await;
    let mut settings = server.settings(NAME);
    settings.ports = vec![443, server.address.port()];
    let egress = Egress::new(settings).unwrap();
    let port = server.address.port();
    for url in [
        "http://shop.example/".to_owned(),
        format!("https://127.0.0.1:{port}/"),
        format!("https://2130706433:{port}/"),
        format!("https://localhost:{port}/"),
        "https://shop.example:22/".to_owned(),
        "https://user:password@shop.example/".to_owned(),
        "https://shop.example\\@127.0.0.1/".to_owned(),
        "/relative".to_owned(),
    ] {
        let refused = egress.send(post(&url), AMPLE).await.unwrap_err();
        assert!(matches!(refused, SendError::UrlDenied(_)), "{url}: {refused:?}");
        assert!(!refused.is_retryable() && !refused.reached_destination());
    }
    assert_eq!(server.seen(|seen| seen.connections), 0);
}

#[tokio::test]
async fn what_is_no_request_of_ours_is_never_sent() {
    let server = Server::start(NAME, vec![]).await;
    let egress = Egress::new(server.settings(NAME)).unwrap();
    for method in ["TRACE", "CONNECT", "PRI", "get"] {
        let request = Request { method: method.parse().unwrap(), ..post("https://shop.example/") };
        let refused = egress.send(request, AMPLE).await.unwrap_err();
        assert_eq!(refused, SendError::BadRequest(RequestError::Method), "{method}");
    }
    let request = Request { headers: vec![("x".into(), "a\r\nb: c".into())], ..post("https://shop.example/") };
    let refused = egress.send(request, AMPLE).await.unwrap_err();
    assert_eq!(refused, SendError::BadRequest(RequestError::HeaderValue("x".into())));
    for hops in [limits::HOPS, u32::MAX] {
        let refused = egress.send(Request { hops, ..post("https://shop.example/") }, AMPLE).await.unwrap_err();
        assert_eq!(refused, SendError::LoopDetected);
        assert!(!refused.is_retryable() && !refused.reached_destination());
    }
    assert_eq!(server.seen(|seen| seen.connections), 0);
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let location =
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: https://shop.example/other\r\ncontent-length: 0\r\n\r\n";
    let (outcome, server) = play(Play::Answer(location.into()), AMPLE).await;
    assert_eq!(outcome.unwrap().status, 307);
    assert_eq!(server.seen(|seen| seen.requests.len()), 1);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_cut_and_marked() {
    let endless = Play::Endless(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".into(),
        format!("1000\r\n{}\r\n", "x".repeat(0x1000)),
    );
    let (outcome, _server) = play(endless, AMPLE).await;
    let exchange = outcome.unwrap();
    assert_eq!((exchange.status, exchange.body.len(), exchange.truncated), (200, 1024 * 1024, true));

    let server = Server::start(NAME, vec![Play::Answer(ok("12345")), Play::Answer(ok("123456"))]).await;
    let settings = Settings { response_body_max: 5, ..server.settings(NAME) };
    let egress = Egress::new(settings).unwrap();
    for truncated in [false, true] {
        let exchange = egress.send(post("https://shop.example/"), AMPLE).await.unwrap();
        assert_eq!((&exchange.body[..], exchange.truncated), (&b"12345"[..], truncated));
    }
}

#[tokio::test]
async fn the_deadline_covers_head_and_body() {
    for partial in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"] {
        let (outcome, server) = play(Play::Hold(partial.into()), SHORT).await;
        let error = outcome.unwrap_err();
        assert_eq!(error, SendError::Timeout { phase: Phase::Exchange }, "{partial:?}");
        assert!(error.is_retryable() && error.reached_destination());
        assert_eq!(server.seen(|seen| seen.requests.len()), 1);
    }
}

#[tokio::test]
async fn a_handshake_that_hangs_is_a_connect_timeout() {
    // It accepts (the kernel does) and says nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::start(NAME, vec![]).await;
    let mut settings = server.settings(NAME);
    settings.static_addresses.insert(NAME.into(), vec![listener.local_addr().unwrap()]);
    let timed_out = SendError::Timeout { phase: Phase::Connect };

    // The exchange's deadline comes first, then the connect timeout does.
    for (connect_timeout, timeout) in [(AMPLE, SHORT), (SHORT, AMPLE)] {
        let egress = Egress::new(Settings { connect_timeout, ..settings.clone() }).unwrap();
        let started = Instant::now();
        let error = egress.send(post("https://shop.example/"), timeout).await.unwrap_err();
        assert_eq!(error, timed_out);
        assert!(error.is_retryable() && !error.reached_destination());
        assert!(started.elapsed() < AMPLE / 2);
    }
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_refuses() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::start(NAME, vec![Play::Answer(ok(""))]).await;
    let mut settings = server.settings(NAME);
    settings.static_addresses.insert(NAME.into(), vec![closed, server.address]);
    let egress = Egress::new(settings.clone()).unwrap();
    assert_eq!(egress.send(post("https://shop.example/"), AMPLE).await.unwrap().status, 200);

    settings.static_addresses.insert(NAME.into(), vec![closed]);
    let error = Egress::new(settings).unwrap().send(post("https://shop.example/"), AMPLE).await.unwrap_err();
    assert_eq!(error, SendError::Connect);
    assert!(error.is_retryable() && !error.reached_destination());
}

#[tokio::test]
async fn certificates_are_checked_for_the_name_and_the_authority() {
    let wrong_name = Server::start("other.example", vec![]).await;
    let unknown_ca = Server::start(NAME, vec![]).await;
    let untrusting = Settings { extra_ca_pem: vec![], ..unknown_ca.settings(NAME) };
    let expired = Server::with_tls(Tls::Expired, NAME, vec![]).await;
    for (settings, server) in
        [(wrong_name.settings(NAME), &wrong_name), (untrusting, &unknown_ca), (expired.settings(NAME), &expired)]
    {
        let error = Egress::new(settings).unwrap().send(post("https://shop.example/"), AMPLE).await.unwrap_err();
        assert_eq!(error, SendError::CertificateInvalid);
        assert!(error.is_retryable() && !error.reached_destination());
        assert_eq!(server.seen(|seen| seen.requests.len()), 0);
    }
}

#[tokio::test]
async fn a_server_without_tls_is_a_failed_handshake() {
    use tokio::io::AsyncWriteExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::start(NAME, vec![]).await;
    let mut settings = server.settings(NAME);
    settings.static_addresses.insert(NAME.into(), vec![listener.local_addr().unwrap()]);
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    let error = Egress::new(settings).unwrap().send(post("https://shop.example/"), AMPLE).await.unwrap_err();
    assert_eq!(error, SendError::TlsHandshake);
    assert!(!error.reached_destination());
}

#[tokio::test]
async fn a_server_that_demands_our_certificate_gets_no_request() {
    let server = Server::with_tls(Tls::DemandsCertificate, NAME, vec![]).await;
    let egress = Egress::new(server.settings(NAME)).unwrap();
    let error = egress.send(post("https://shop.example/"), AMPLE).await.unwrap_err();
    // TLS 1.3 says no after our side is done, so the refusal can cross our first bytes and arrive as a plain reset.
    assert!(matches!(error, SendError::TlsHandshake | SendError::ConnectionClosed { .. }), "{error:?}");
    assert!(error.is_retryable());
    assert_eq!(server.seen(|seen| (seen.handshakes, seen.requests.len())), (0, 0));
}

#[tokio::test]
async fn a_connection_closed_early_is_ambiguous_and_retryable() {
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
    for partial in ["", "HTTP/1.1 200 OK\r\n", cut] {
        let (outcome, _server) = play(Play::Close(partial.into()), AMPLE).await;
        let error = outcome.unwrap_err();
        assert_eq!(error, SendError::ConnectionClosed { sent: true }, "{partial:?}");
        assert!(error.is_retryable() && error.reached_destination());
    }
}

#[tokio::test]
async fn a_connection_closed_while_idle_costs_nothing() {
    let server = Server::start(NAME, vec![Play::Close(ok("one")), Play::Answer(ok("two"))]).await;
    let egress = Egress::new(server.settings(NAME)).unwrap();
    for body in ["one", "two"] {
        let exchange = egress.send(post("https://shop.example/"), AMPLE).await.unwrap();
        assert_eq!(&exchange.body[..], body.as_bytes());
        if body == "one" {
            server.left().await;
        }
    }
    assert_eq!(server.seen(|seen| (seen.connections, seen.requests.len())), (2, 2));
}

#[tokio::test]
async fn answers_that_are_not_http_or_too_large_are_refused() {
    let too_many = format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "x: y\r\n".repeat(100));
    let too_long = format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n", "y".repeat(64 * 1024));
    let switching = "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_owned();
    for garbage in ["220 mail ready\r\n\r\n".to_owned(), too_many, too_long, switching] {
        let (outcome, _server) = play(Play::Close(garbage.clone()), AMPLE).await;
        assert_eq!(outcome.unwrap_err(), SendError::ResponseInvalid, "{}", &garbage[..16]);
    }
    let most = format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "x: y\r\n".repeat(99));
    let (outcome, _server) = play(Play::Answer(most), AMPLE).await;
    assert_eq!(outcome.unwrap().headers.len(), 100);
}

#[tokio::test]
async fn an_old_connection_is_not_used_again() {
    let server = Server::start(NAME, vec![Play::Answer(ok("")), Play::Answer(ok(""))]).await;
    let mut settings = server.settings(NAME);
    settings.pool_max_age = settings.pool_idle;
    let egress = Egress::new(settings).unwrap();
    for _ in 0..2 {
        egress.send(post("https://shop.example/"), AMPLE).await.unwrap();
    }
    assert_eq!(server.seen(|seen| seen.connections), 2);
}

#[tokio::test]
async fn the_operators_proxy_opens_a_tunnel_or_says_no_d13() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
    let server = Server::start(NAME, vec![Play::Answer(ok("through"))]).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy {
        host: "127.0.0.1".into(),
        port: listener.local_addr().unwrap().port(),
        credentials: Some(("sluice".into(), sluice_core::seal::Secret::new("pw"))),
    };
    let settings =
        Settings { extra_ca_pem: vec![server.ca_pem.clone().into_bytes()], proxy: Some(proxy), ..Settings::default() };
    let inside = server.address;
    let questions = tokio::spawn(async move {
        let mut questions = Vec::new();
        for answer in ["HTTP/1.1 407 No\r\n\r\n", "HTTP/1.1 503 No\r\n\r\n", "HTTP/1.1 200 OK\r\nvia: us\r\n\r\n"] {
            let (mut outer, _) = listener.accept().await.unwrap();
            let mut question = Vec::new();
            while !question.ends_with(b"\r\n\r\n") {
                question.push(outer.read_u8().await.unwrap());
            }
            questions.push(String::from_utf8(question).unwrap());
            outer.write_all(answer.as_bytes()).await.unwrap();
            if answer.contains("200") {
                #[allow(clippy::disallowed_methods, reason = "this is the proxy, not Sluice")]
                let mut inner = tokio::net::TcpStream::connect(inside).await.unwrap();
                let _ = copy_bidirectional(&mut outer, &mut inner).await;
            }
        }
        questions
    });

    let egress = Egress::new(settings.clone()).unwrap();
    for _ in ["407", "503"] {
        let error = egress.send(post("https://shop.example/"), AMPLE).await.unwrap_err();
        assert_eq!((&error, error.code()), (&SendError::ProxyDenied, "egress.proxy_denied"));
        assert!(error.is_retryable() && !error.reached_destination());
    }
    assert_eq!(&egress.send(post("https://shop.example/"), AMPLE).await.unwrap().body[..], b"through");
    let denied = egress.send(post("https://127.0.0.1/"), AMPLE).await.unwrap_err();
    assert!(matches!(denied, SendError::UrlDenied(_)), "our own checks still run");
    drop(egress);
    let question = "CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\n\
                    Proxy-Authorization: Basic c2x1aWNlOnB3\r\n\r\n";
    assert_eq!(questions.await.unwrap(), [question; 3]);

    let ambiguous = Settings { extra_networks: vec!["10.0.0.0/8".parse().unwrap()], ..settings };
    assert!(matches!(Egress::new(ambiguous), Err(SettingsError::ProxyWithAddresses)));
}

/// The environment of a whole process, so the check runs in one of its own.
#[test]
fn proxies_in_the_environment_are_ignored_d12() {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "exchange::a_request_arrives_and_its_answer_returns"]);
    for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"] {
        command.env(variable, "http://127.0.0.1:9");
    }
    command.env("NO_PROXY", "").env("no_proxy", "");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
