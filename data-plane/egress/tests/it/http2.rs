//! A destination that speaks HTTP/2 frame by frame, also wrongly (D17, R20, R08).

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use sluice_egress::{Egress, SendError, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::dialled::Dialled;
use crate::exchange::{AMPLE, NAME, post};
use crate::server::{Tls, certificate};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const ALTSVC: u8 = 10;
const ORIGIN: u8 = 12;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:status: 200`.
const STATUS_200: &[u8] = &[0x88];
/// `:status: 103`, written out.
const STATUS_103: &[u8] = &[0x08, 3, b'1', b'0', b'3'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn answer(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, STATUS_200)
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// Frames for the stream of a request.
type Play = fn(u32) -> Vec<u8>;

#[derive(Default)]
struct Seen {
    connections: usize,
    requests: usize,
}

struct Server {
    address: SocketAddr,
    ca_pem: String,
    seen: Arc<Mutex<Seen>>,
}

impl Server {
    async fn start(names: &[&str], plays: &[Play]) -> Self {
        let (ca_pem, mut config) = certificate(names, Tls::Sound);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let plays = Arc::new(Mutex::new(VecDeque::from(plays.to_vec())));
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                shared.lock().unwrap().connections += 1;
                tokio::spawn(serve(socket, acceptor.clone(), Arc::clone(&plays), Arc::clone(&shared)));
            }
        });
        Self { address, ca_pem, seen }
    }

    fn egress(&self, names: &[&str]) -> Egress {
        let settings = Settings {
            extra_networks: vec!["127.0.0.0/8".parse().unwrap()],
            static_addresses: names
                .iter()
                .map(|name| ((*name).to_owned(), vec![self.address]))
                .collect::<HashMap<_, _>>(),
            extra_ca_pem: vec![self.ca_pem.clone().into_bytes()],
            ..Settings::default()
        };
        Egress::new(settings).unwrap()
    }

    /// Connections and requests so far.
    fn seen(&self) -> (usize, usize) {
        let seen = self.seen.lock().unwrap();
        (seen.connections, seen.requests)
    }
}

async fn serve(
    socket: TcpStream,
    acceptor: TlsAcceptor,
    plays: Arc<Mutex<VecDeque<Play>>>,
    seen: Arc<Mutex<Seen>>,
) -> std::io::Result<()> {
    let mut stream = acceptor.accept(socket).await?;
    stream.read_exact(&mut [0; 24]).await?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    stream.flush().await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [high, middle, low, kind, flags, a, b, c, d] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
        stream.read_exact(&mut payload).await?;
        let id = u32::from_be_bytes([a, b, c, d]);
        let ends = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
        let answer = match kind {
            SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(PING, ACK, 0, &payload),
            _ if ends => {
                seen.lock().unwrap().requests += 1;
                let Some(play) = plays.lock().unwrap().pop_front() else { return Ok(()) };
                play(id)
            }
            _ => continue,
        };
        stream.write_all(&answer).await?;
        stream.flush().await?;
    }
}

/// One request to a server that plays one thing, and how many requests it saw.
async fn play(play: Play) -> (Result<u16, SendError>, usize) {
    let server = Server::start(&[NAME], &[play]).await;
    let outcome = server.egress(&[NAME]).send(post("https://shop.example/in"), AMPLE).await;
    (outcome.map(|exchange| exchange.status), server.seen().1)
}

#[tokio::test]
async fn an_answer_comes_back_over_http2() {
    assert_eq!(play(answer).await, (Ok(200), 1));
    let with_body: Play = |stream| {
        let head = frame(HEADERS, END_HEADERS, stream, STATUS_200);
        [head, frame(DATA, END_STREAM, stream, b"body")].concat()
    };
    assert_eq!(play(with_body).await, (Ok(200), 1));
}

#[tokio::test]
async fn nothing_is_repeated_that_may_have_been_seen_r20() {
    const REFUSED_STREAM: u32 = 7;
    // The standard's promise that nothing was done with it (RFC 9113, 8.7): the next attempt is not ambiguous.
    let refused: Play = |stream| reset(stream, REFUSED_STREAM);
    assert_eq!(play(refused).await, (Err(SendError::ConnectionClosed { sent: false }), 1));

    let ambiguous: [(&str, Play); 7] = [
        ("reset: no error", |stream| reset(stream, 0)),
        ("reset: internal error", |stream| reset(stream, 2)),
        ("reset: cancelled", |stream| reset(stream, 8)),
        ("reset: go slower", |stream| reset(stream, 11)),
        ("reset: use HTTP/1.1", |stream| reset(stream, 13)),
        ("reset in the body", |stream| [frame(HEADERS, END_HEADERS, stream, STATUS_200), reset(stream, 7)].concat()),
        ("leaving before this one", |_| goaway(0, 0)),
    ];
    for (what, it) in ambiguous {
        let server = Server::start(&[NAME], &[it]).await;
        let outcome = server.egress(&[NAME]).send(post("https://shop.example/in"), AMPLE).await;
        let error = outcome.expect_err(what);
        assert_eq!(error, SendError::ConnectionClosed { sent: true }, "{what}");
        assert!(error.is_retryable(), "{what}");
        assert_eq!(server.seen(), (1, 1), "{what}");
    }
}

#[tokio::test]
async fn a_server_that_leaves_finishes_what_it_took_r20() {
    let last: Play = |stream| [goaway(stream, 0), answer(stream)].concat();
    let server = Server::start(&[NAME], &[last, answer]).await;
    let egress = server.egress(&[NAME]);
    for connections in [1, 2] {
        assert_eq!(egress.send(post("https://shop.example/in"), AMPLE).await.unwrap().status, 200);
        assert_eq!(server.seen(), (connections, connections));
    }
}

#[tokio::test]
async fn names_do_not_share_a_connection_whatever_the_server_says_d17() {
    let offers: Play = |stream| {
        let origin = [&[0, 21][..], b"https://other.example"].concat();
        let altsvc = [&[0, 0][..], b"h2=\"127.0.0.1:9\"; ma=86400"].concat();
        let unknown = frame(0xbe, 0xff, 0, b"?");
        [frame(ORIGIN, 0, 0, &origin), frame(ALTSVC, 0, 0, &altsvc), unknown, answer(stream)].concat()
    };
    let server = Server::start(&[NAME, "other.example"], &[offers, offers, answer]).await;
    let egress = server.egress(&[NAME, "other.example"]);
    let dialled = Dialled::listen();
    for (name, connections) in [(NAME, 1), (NAME, 1), ("other.example", 2)] {
        assert_eq!(egress.send(post(&format!("https://{name}/in")), AMPLE).await.unwrap().status, 200);
        assert_eq!(server.seen().0, connections);
    }
    assert_eq!(dialled.take(), [server.address.to_string(), server.address.to_string()]);
}

#[tokio::test]
async fn a_promised_answer_is_a_broken_promise_d17() {
    // `GET https://other.example/`: what nobody asked for.
    let push: Play = |stream| {
        let request = [&[0x82, 0x87, 0x84, 0x41, 13][..], b"other.example"].concat();
        let promise = [&2_u32.to_be_bytes()[..], &request].concat();
        let pushed = frame(HEADERS, END_HEADERS | END_STREAM, 2, STATUS_200);
        [frame(PUSH_PROMISE, END_HEADERS, stream, &promise), pushed, answer(stream)].concat()
    };
    let (outcome, requests) = play(push).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, SendError::ConnectionClosed { sent: true } | SendError::ResponseInvalid), "{error:?}");
    assert_eq!(requests, 1);
}

#[tokio::test]
async fn answers_that_are_not_http2_r08() {
    let wrong: [(&str, Play); 8] = [
        ("text", |_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("no status", |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &[])),
        ("a status of letters", |stream| {
            frame(HEADERS, END_HEADERS | END_STREAM, stream, &[0x08, 3, b'a', b'b', b'c'])
        }),
        ("a capital in a name", |stream| {
            frame(HEADERS, END_HEADERS | END_STREAM, stream, &[0x88, 0x00, 1, b'X', 1, b'y'])
        }),
        ("a frame that is too long", |stream| frame(HEADERS, END_HEADERS, stream, &[0x88; 17_000])),
        ("a body before its head", |stream| frame(DATA, END_STREAM, stream, b"x")),
        ("a compression that does not exist", |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &[0xff; 8])),
        ("a continuation of nothing", |stream| frame(CONTINUATION, END_HEADERS, stream, STATUS_200)),
    ];
    for (what, it) in wrong {
        let (outcome, requests) = play(it).await;
        let error = outcome.expect_err(what);
        assert!(matches!(error, SendError::ResponseInvalid), "{what}: {error:?}");
        assert!(error.is_retryable() && error.reached_destination(), "{what}");
        assert_eq!(requests, 1, "{what}");
    }
}

#[tokio::test]
async fn heads_over_http2_have_the_same_limits_r08() {
    let many: Play = |stream| {
        let fields = [0x00, 1, b'x', 1, b'y'].repeat(101);
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &[STATUS_200, &fields].concat())
    };
    let large: Play = |stream| {
        // Three fields of 12,000 bytes: the length is 127 + 11,873 in groups of seven bits.
        let field = [&[0x00, 1, b'x', 0x7f, 0xe1, 0x5c][..], &b"y".repeat(12_000)].concat();
        let first = frame(HEADERS, END_STREAM, stream, &[STATUS_200, &field].concat());
        [first, frame(CONTINUATION, 0, stream, &field), frame(CONTINUATION, END_HEADERS, stream, &field)].concat()
    };
    for (what, it) in [("many", many), ("large", large)] {
        assert_eq!(play(it).await, (Err(SendError::ResponseInvalid), 1), "{what}");
    }
    let interim: Play = |stream| {
        let hints = frame(HEADERS, END_HEADERS, stream, STATUS_103).repeat(3);
        [hints, answer(stream)].concat()
    };
    assert_eq!(play(interim).await, (Ok(200), 1));
}
