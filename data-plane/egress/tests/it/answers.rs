//! What a destination may answer, and what becomes of it (D14–D19, R01–R10 of the attack tables).

use std::time::Duration;

use sluice_egress::{Egress, Phase, SendError, Settings, limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::dialled::Dialled;
use crate::exchange::{AMPLE, NAME, SHORT, ok, play, post, settled};
use crate::server::{Play, Server, Tls};

/// An answer with these header lines and no body.
fn head(status: &str, lines: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{lines}content-length: 0\r\n\r\n")
}

#[tokio::test]
async fn no_redirect_is_followed_d14() {
    let elsewhere = Server::start("other.example", vec![]).await;
    for status in ["301 a", "302 a", "303 a", "307 a", "308 a", "300 a", "304 a", "305 a", "306 a"] {
        for location in [
            "https://169.254.169.254/latest/meta-data/",
            "http://shop.example/",
            "https://other.example/in",
            "https://shop.example/in",
            "//other.example/in",
            "/in",
            "",
        ] {
            let answer = head(status, &format!("location: {location}\r\n"));
            let server = Server::start(NAME, vec![Play::Answer(answer)]).await;
            let mut settings = server.settings(NAME);
            settings.static_addresses.insert("other.example".into(), vec![elsewhere.address]);
            let egress = Egress::new(settings).unwrap();
            let mut request = post("https://shop.example/in");
            request.headers.extend([("Authorization".into(), "Bearer k".into()), ("X-Api-Key".into(), "k".into())]);
            let dialled = Dialled::listen();
            let exchange = egress.send(request, AMPLE).await.unwrap();
            assert_eq!(exchange.status.to_string(), status[..3], "{location}");
            assert_eq!(dialled.take(), [server.address.to_string()], "{status} {location}");
            assert_eq!(server.seen(|seen| seen.requests.len()), 1, "{status} {location}");
        }
    }
    assert_eq!(elsewhere.seen(|seen| seen.connections), 0);
}

#[tokio::test]
async fn a_location_is_a_header_like_any_other_d15() {
    let (outcome, _server) = play(Play::Answer(head("302 Found", "")), AMPLE).await;
    assert_eq!(outcome.unwrap().status, 302);
    let split = head("302 Found", "location: https://shop.example/\r\nset-cookie: a=b\r\n");
    let (outcome, _server) = play(Play::Answer(split), AMPLE).await;
    assert_eq!(outcome.unwrap().headers.len(), 3);
    let huge = head("302 Found", &format!("location: https://shop.example/{}\r\n", "a".repeat(1024 * 1024)));
    let (outcome, _server) = play(Play::Close(huge), AMPLE).await;
    assert_eq!(outcome.unwrap_err(), SendError::ResponseInvalid);
}

#[tokio::test]
async fn hints_to_go_elsewhere_are_ignored_d16() {
    let hints = "refresh: 0; url=https://169.254.169.254/\r\nalt-svc: h2=\"127.0.0.1:443\"; ma=86400\r\n\
                 link: </style.css>; rel=preload\r\nwww-authenticate: Bearer realm=\"https://other.example/\"\r\n\
                 content-location: https://other.example/\r\n";
    let early = "HTTP/1.1 103 Early Hints\r\nlink: <https://other.example/x>; rel=preconnect\r\n\r\n";
    let body = "<meta http-equiv=\"refresh\" content=\"0; url=https://169.254.169.254/\">";
    let unauthorised = format!("{early}HTTP/1.1 401 No\r\n{hints}content-length: {}\r\n\r\n{body}", body.len());
    let server = Server::start(NAME, vec![Play::Answer(unauthorised), Play::Answer(ok("again"))]).await;
    let egress = Egress::new(server.settings(NAME)).unwrap();
    let dialled = Dialled::listen();
    let first = egress.send(post("https://shop.example/in"), AMPLE).await.unwrap();
    assert_eq!((first.status, &first.body[..]), (401, body.as_bytes()));
    settled().await;
    assert_eq!(&egress.send(post("https://shop.example/in"), AMPLE).await.unwrap().body[..], b"again");
    assert_eq!(dialled.take(), [server.address.to_string()]);
    server.seen(|seen| {
        assert_eq!((seen.connections, seen.requests.len()), (1, 2));
        assert!(!seen.requests[1].to_lowercase().contains("authorization"));
    });
}

#[tokio::test]
async fn a_certificate_for_the_address_is_not_one_for_the_name_d18_d19() {
    for (what, server) in [
        ("for the address", Server::start("127.0.0.1", vec![]).await),
        ("for names below", Server::start("*.shop.example", vec![]).await),
        ("its own authority", Server::with_tls(Tls::SelfSigned, NAME, vec![]).await),
    ] {
        let error = Egress::new(server.settings(NAME)).unwrap().send(post("https://shop.example/"), AMPLE).await;
        assert_eq!(error.unwrap_err(), SendError::CertificateInvalid, "{what}");
        assert_eq!(server.seen(|seen| (seen.handshakes, seen.requests.len())), (0, 0), "{what}");
    }
}

#[tokio::test]
async fn an_old_tls_is_refused_d18() {
    // A server's answer that agrees on TLS 1.1 and AES128-SHA.
    let mut hello = vec![0x16, 0x03, 0x02, 0x00, 42, 0x02, 0x00, 0x00, 38, 0x03, 0x02];
    hello.extend([7; 32]);
    hello.extend([0x00, 0x00, 0x2f, 0x00]);
    let only_alert = vec![0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 70];
    for answer in [hello, only_alert] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::start(NAME, vec![]).await;
        let mut settings = server.settings(NAME);
        settings.static_addresses.insert(NAME.into(), vec![listener.local_addr().unwrap()]);
        let seen = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(&answer).await.unwrap();
            let mut seen = Vec::new();
            let _ = socket.read_to_end(&mut seen).await;
            seen
        });
        let error = Egress::new(settings).unwrap().send(post("https://shop.example/"), AMPLE).await.unwrap_err();
        assert_eq!(error, SendError::TlsHandshake);
        assert!(error.is_retryable() && !error.reached_destination());
        let seen = seen.await.unwrap();
        assert!(!seen.windows(4).any(|bytes| bytes == b"POST"), "nothing of the request is sent");
    }
}

#[tokio::test]
async fn a_declared_length_is_not_believed_r01() {
    let endless = Play::Endless("HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n".into(), "x".repeat(4096));
    let (outcome, server) = play(endless, AMPLE).await;
    let exchange = outcome.unwrap();
    assert_eq!((exchange.body.len(), exchange.truncated), (Settings::default().response_body_max, true));
    server.left().await;
}

#[tokio::test]
async fn nothing_is_decompressed_r03() {
    // 10 MB of zeros behind 20 bytes of brotli would be the same: what is declared is not acted upon.
    for encoding in ["gzip", "br", "zstd", "deflate", "gzip, gzip, gzip"] {
        let body: Vec<u8> = [0x1f, 0x8b, 8, 0].into_iter().chain(0..=255).collect();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: {encoding}\r\ncontent-length: {}\r\n\r\n", body.len());
        let (outcome, server) = play(Play::Bytes([head.as_bytes(), &body].concat()), AMPLE).await;
        let exchange = outcome.unwrap();
        assert_eq!((&exchange.body[..], exchange.truncated), (&body[..], false), "{encoding}");
        assert!(exchange.headers.contains(&("content-encoding".to_owned(), encoding.to_owned())));
        assert!(!server.seen(|seen| seen.requests[0].to_lowercase().contains("accept-encoding")));
    }
    let transfer = "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n3\r\n\x1f\x08\x01\r\n0\r\n\r\n";
    let (outcome, _server) = play(Play::Answer(transfer.into()), AMPLE).await;
    assert_eq!(&outcome.unwrap().body[..], b"\x1f\x08\x01");
}

#[tokio::test]
async fn a_connection_that_breaks_is_told_from_one_that_ends_r04() {
    let started = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
    // Until the end of the connection: only a proper end of TLS says that it was all.
    let open = "HTTP/1.1 200 OK\r\n\r\nhalf";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    for play_it in [
        Play::Reset(String::new()),
        Play::Reset(started.into()),
        Play::Reset(open.into()),
        Play::Drop(String::new()),
        Play::Drop(started.into()),
        Play::Drop(open.into()),
        Play::Drop(chunked.into()),
        Play::Close(chunked.into()),
    ] {
        let what = format!("{play_it:?}");
        let (outcome, _server) = play(play_it, AMPLE).await;
        let error = outcome.unwrap_err();
        assert_eq!(error, SendError::ConnectionClosed { sent: true }, "{what}");
        assert!(error.is_retryable() && error.reached_destination());
    }
    let (outcome, _server) = play(Play::Close(open.into()), AMPLE).await;
    assert_eq!(&outcome.unwrap().body[..], b"half");
    // What was complete before the line broke is an answer.
    let (outcome, _server) = play(Play::Drop(ok("whole")), AMPLE).await;
    assert_eq!(&outcome.unwrap().body[..], b"whole");
}

#[tokio::test]
async fn a_reset_before_tls_reached_nobody_r04() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::start(NAME, vec![]).await;
    let mut settings = server.settings(NAME);
    settings.static_addresses.insert(NAME.into(), vec![listener.local_addr().unwrap()]);
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_zero_linger().unwrap();
    });
    let error = Egress::new(settings).unwrap().send(post("https://shop.example/"), AMPLE).await.unwrap_err();
    assert_eq!(error, SendError::TlsHandshake);
    assert!(error.is_retryable() && !error.reached_destination());
}

#[tokio::test]
async fn any_status_is_an_answer_r05() {
    for (line, status) in [
        ("199 x", None),
        ("200 OK", Some(200)),
        ("200", Some(200)),
        ("200 ", Some(200)),
        ("205 Reset", Some(205)),
        ("299 x", Some(299)),
        ("304 x", Some(304)),
        ("410 Gone", Some(410)),
        ("600 x", Some(600)),
        ("999 x", Some(999)),
        ("099 x", None),
        ("1000 x", None),
        ("2x0 OK", None),
        ("-200 OK", None),
    ] {
        let (outcome, _server) = play(Play::Close(head(line, "")), AMPLE).await;
        match status {
            Some(status) => assert_eq!(outcome.unwrap().status, status, "{line}"),
            // An answer that is only an interim one, or none: the connection ends without the real one.
            None => {
                let error = outcome.unwrap_err();
                assert!(
                    matches!(error, SendError::ResponseInvalid | SendError::ConnectionClosed { sent: true }),
                    "{line}: {error:?}"
                );
                assert!(error.is_retryable() && error.reached_destination());
            }
        }
    }
    // A body that must not be there does not become the next answer.
    for line in ["204 No Content", "304 Not Modified"] {
        let smuggled =
            format!("HTTP/1.1 {line}\r\ncontent-length: 38\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        let server = Server::start(NAME, vec![Play::Answer(smuggled), Play::Answer(ok("second"))]).await;
        let egress = Egress::new(server.settings(NAME)).unwrap();
        let first = egress.send(post("https://shop.example/"), AMPLE).await.unwrap();
        assert_eq!((first.status.to_string(), first.body.len()), (line[..3].to_owned(), 0));
        let second = egress.send(post("https://shop.example/"), AMPLE).await.unwrap();
        assert_eq!((&second.body[..], server.seen(|seen| seen.connections)), (&b"second"[..], 2));
    }
}

#[tokio::test]
async fn interim_answers_are_counted_r05() {
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n";
    let some = format!("{}{}", interim.repeat(limits::INTERIM_ANSWERS), ok("at last"));
    let (outcome, _server) = play(Play::Answer(some), AMPLE).await;
    let exchange = outcome.unwrap();
    assert_eq!((exchange.status, &exchange.body[..], exchange.headers.len()), (200, &b"at last"[..], 1));
    let many = format!("{}{}", interim.repeat(limits::INTERIM_ANSWERS + 1), ok("too late"));
    let forever = Play::Endless(String::new(), "HTTP/1.1 100 Continue\r\n\r\n".into());
    for too_many in [Play::Answer(many), forever] {
        let (outcome, server) = play(too_many, AMPLE).await;
        assert_eq!(outcome.unwrap_err(), SendError::ResponseInvalid);
        server.left().await;
    }
}

#[tokio::test]
async fn heads_that_are_too_large_or_not_http_r08() {
    let folded = head("200 OK", "x-a: 1\r\n continued\r\n");
    let no_colon = head("200 OK", "x-a 1\r\n");
    let no_name = head("200 OK", ": 1\r\n");
    let space_before_colon = head("200 OK", "x-a : 1\r\n");
    let two_lengths = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_owned();
    let negative = "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n".to_owned();
    let half_megabyte = head("200 OK", &format!("x-a: {}\r\n", "y".repeat(500 * 1024)));
    let many = head("200 OK", &"x: y\r\n".repeat(limits::RESPONSE_HEADERS));
    let nul = head("200 OK", "x-a: a\0b\r\n");
    let bare_return = head("200 OK", "x-a: a\rx-b: c\r\n");
    for (what, answer) in [
        ("a folded line", folded),
        ("a line without a colon", no_colon),
        ("a line without a name", no_name),
        ("a space before the colon", space_before_colon),
        ("two lengths", two_lengths),
        ("a negative length", negative),
        ("half a megabyte", half_megabyte),
        ("101 headers", many),
        ("NUL in a value", nul),
        ("CR in a value", bare_return),
        ("HTTP/0.9", "<html>".to_owned()),
        ("HTTP/2 in clear", "HTTP/2 200\r\n\r\n".to_owned()),
        ("another protocol", "SSH-2.0-OpenSSH_9.9\r\n".to_owned()),
    ] {
        let (outcome, _server) = play(Play::Close(answer), AMPLE).await;
        let error = outcome.expect_err(what);
        assert_eq!(error, SendError::ResponseInvalid, "{what}");
        assert!(error.is_retryable() && error.reached_destination());
    }
    // Lines that end with LF alone are read, as everybody does.
    let (outcome, _server) = play(Play::Answer("HTTP/1.1 200 OK\nx-a: 1\ncontent-length: 0\n\n".into()), AMPLE).await;
    assert_eq!(outcome.unwrap().headers[0], ("x-a".to_owned(), "1".to_owned()));
}

#[tokio::test]
async fn bytes_of_any_kind_come_back_as_they_are_r09() {
    let body = b"\xff\xfe\0{\"n\":1e400}\xed\xa0\x80";
    let head = format!("HTTP/1.1 200 OK\r\nx-a: \u{fc}\r\ncontent-length: {}\r\n\r\n", body.len());
    let (outcome, _server) = play(Play::Bytes([head.as_bytes(), body].concat()), AMPLE).await;
    assert_eq!(&outcome.unwrap().body[..], body);
}

#[tokio::test]
async fn no_cookie_is_kept_r10() {
    let cookie = head("200 OK", "set-cookie: session=1; Path=/; Secure\r\n");
    let server = Server::start(NAME, vec![Play::Answer(cookie), Play::Answer(ok(""))]).await;
    let egress = Egress::new(server.settings(NAME)).unwrap();
    for _ in 0..2 {
        egress.send(post("https://shop.example/in"), AMPLE).await.unwrap();
        settled().await;
    }
    server.seen(|seen| {
        assert_eq!((seen.connections, seen.requests.len()), (1, 2));
        assert!(!seen.requests[1].to_lowercase().contains("cookie"), "{}", seen.requests[1]);
    });
}

#[tokio::test]
async fn a_trickle_ends_at_the_deadline_r02() {
    let (outcome, server) = play(
        Play::Trickle("HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n".into(), Duration::from_millis(20)),
        SHORT,
    )
    .await;
    assert_eq!(outcome.unwrap_err(), SendError::Timeout { phase: Phase::Exchange });
    server.left().await;
}
