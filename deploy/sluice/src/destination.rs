//! A destination that plays a script: an HTTPS server with a CA of its own, for the demo and for tests.
//!
//! Hides certificates, TLS, both HTTP versions and the ways a server can misbehave. Each request takes the next
//! [`Answer`] for its path, else the next one of the common sequence, else what [`Otherwise`] says; every request is
//! remembered, and on demand written to a log *before* it is answered, so that after a crash of the sender the log
//! holds whatever the sender can have been told. Nothing here waits for time: tests wait for requests
//! ([`Destination::wait_for`]) and hold answers back with a [`Gate`].

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Bytes of one request's body; more is answered 413.
pub const REQUEST_BODY_MAX: usize = 16 * 1024 * 1024;
/// Time a client gets, after [`Destination::shutdown`], to take what was already being sent.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

// ---------------------------------------------------------------------------------------------------------------
// The script

/// What is answered to one request.
#[derive(Debug, Clone)]
pub struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    manner: Manner,
    gate: Option<Gate>,
}

/// How an answer is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// At once and complete.
    Whole,
    /// Byte by byte, with this pause before each.
    Slow(Duration),
    /// Head and body, then silence: the end never comes.
    Stall,
    /// Head and body, then the connection breaks (HTTP/2: the stream is reset) before the end.
    Cut,
    /// Head, and the body over and over without end.
    Endless,
    /// Nothing, with the connection open.
    Hang,
    /// Nothing, and the connection is closed (HTTP/2: the stream is reset).
    Close,
}

impl Answer {
    /// A status with an empty body.
    ///
    /// # Panics
    /// If `status` is not within 100 to 999.
    pub fn status(status: u16) -> Self {
        Self {
            status: StatusCode::from_u16(status).expect("a scripted status is within 100 to 999"),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            manner: Manner::Whole,
            gate: None,
        }
    }

    /// A status with a JSON body and its content type.
    ///
    /// # Panics
    /// If `status` is not within 100 to 999.
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self::status(status).header("content-type", "application/json").body(body)
    }

    /// No answer, with the connection open until the client or [`Destination::shutdown`] ends it.
    pub fn hang() -> Self {
        Self::status(200).manner(Manner::Hang)
    }

    /// No answer, and the connection closed.
    pub fn close() -> Self {
        Self::status(200).manner(Manner::Close)
    }

    /// Adds a header.
    ///
    /// # Panics
    /// If name or value cannot be a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a scripted header name is valid");
        self.headers.append(name, HeaderValue::from_str(value).expect("a scripted header value is valid"));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets how the answer is given.
    #[must_use]
    pub fn manner(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }

    /// Holds the answer back until the gate is open. The request is recorded before.
    #[must_use]
    pub fn after(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }
}

/// Holds answers back until it is opened; clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Lets every answer through that waits here or will.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn opened(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

/// What happens to a request for which the script holds nothing.
#[derive(Debug, Clone)]
pub enum Otherwise {
    /// This answer, as often as needed.
    Answer(Answer),
    /// 501, so that a sender that calls too often fails visibly. See [`Destination::unexpected`].
    Refuse,
}

// ---------------------------------------------------------------------------------------------------------------
// What was seen

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// 1 for the first request of this destination.
    pub number: usize,
    /// Since the destination was started.
    pub at: Duration,
    /// HTTP/1.1 or HTTP/2.
    pub version: Version,
    /// As sent.
    pub method: String,
    /// Host and, if it is not 443, port, as the request names them.
    pub host: String,
    /// Path and query, as sent.
    pub target: String,
    /// In order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The exact bytes.
    pub body: Bytes,
}

impl Seen {
    /// The first header of this (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(seen, _)| seen == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::from_slice(&self.body)
    }

    /// One line for the log. A body that is not UTF-8 is under `body_base64` instead of `body`.
    fn line(&self) -> String {
        let (key, body) = match std::str::from_utf8(&self.body) {
            Ok(text) => ("body", text.to_owned()),
            Err(_) => ("body_base64", STANDARD.encode(&self.body)),
        };
        let line = serde_json::json!({
            "number": self.number,
            "at_ms": u64::try_from(self.at.as_millis()).unwrap_or(u64::MAX),
            "method": self.method,
            "host": self.host,
            "target": self.target,
            "headers": self.headers,
            key: body,
        });
        format!("{line}\n")
    }
}

/// Fewer requests arrived than were waited for, within [`Options::patience`].
#[derive(Debug, thiserror::Error)]
#[error("{arrived} of {wanted} requests arrived in time")]
pub struct TooFew {
    /// How many were waited for.
    pub wanted: usize,
    /// How many there were.
    pub arrived: usize,
}

// ---------------------------------------------------------------------------------------------------------------
// The server

/// A certificate authority that exists only in memory. Clones are the same authority, so that several destinations
/// can be trusted with one CA certificate.
#[derive(Clone)]
pub struct Authority(Arc<CertifiedIssuer<'static, KeyPair>>);

impl Authority {
    /// Makes a CA with a fresh key.
    pub fn new() -> Result<Self, StartError> {
        let mut params = CertificateParams::new(vec![])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "Sluice scripted destination");
        Ok(Self(Arc::new(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)))
    }

    /// The CA certificate, for those who shall trust it.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    fn server_config(&self, names: &[String], http2: bool) -> Result<ServerConfig, StartError> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names)?.signed_by(&key, &*self.0)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
        config.alpn_protocols = match http2 {
            true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            false => vec![b"http/1.1".to_vec()],
        };
        Ok(config)
    }
}

/// How a destination is set up.
#[derive(Clone)]
pub struct Options {
    /// Where to listen. Default `127.0.0.1:0`, a free port.
    pub listen: SocketAddr,
    /// The names in its certificate.
    pub names: Vec<String>,
    /// Who signs it; without one, a new [`Authority`].
    pub authority: Option<Authority>,
    /// Whether HTTP/2 is offered besides HTTP/1.1. Default yes.
    pub http2: bool,
    /// What happens when the script is used up. Default: 200 with an empty body.
    pub otherwise: Otherwise,
    /// How long [`Destination::wait_for`] waits. Default 30 s.
    pub patience: Duration,
    /// How many requests are remembered, the latest ones. Default 100,000.
    pub remembered: usize,
}

impl Options {
    /// The defaults, for these names.
    pub fn named<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            names: names.into_iter().map(Into::into).collect(),
            authority: None,
            http2: true,
            otherwise: Otherwise::Answer(Answer::status(200)),
            patience: Duration::from_secs(30),
            remembered: 100_000,
        }
    }
}

/// Why a destination could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Keys or certificates could not be made, for example because a name is not one.
    #[error("the certificate could not be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS could not be set up.
    #[error("TLS could not be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The address could not be listened on.
    #[error("could not listen: {0}")]
    Listen(#[from] io::Error),
}

/// A running scripted destination. Dropping it stops it, without waiting.
pub struct Destination {
    address: SocketAddr,
    names: Vec<String>,
    authority: Authority,
    patience: Duration,
    stage: Arc<Stage>,
    tasks: TaskTracker,
}

/// What the connections share.
struct Stage {
    started: Instant,
    remembered: usize,
    otherwise: Otherwise,
    play: Mutex<Play>,
    arrived: watch::Sender<usize>,
    log: tokio::sync::Mutex<Option<File>>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Play {
    sequence: VecDeque<Answer>,
    by_path: HashMap<String, VecDeque<Answer>>,
    seen: VecDeque<Seen>,
    unexpected: usize,
}

impl Destination {
    /// Listens and answers, with an empty script.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let authority = match options.authority {
            Some(authority) => authority,
            None => Authority::new()?,
        };
        let tls = authority.server_config(&options.names, options.http2)?;
        let listener = TcpListener::bind(options.listen).await?;
        let stage = Arc::new(Stage {
            started: Instant::now(),
            remembered: options.remembered,
            otherwise: options.otherwise,
            play: Mutex::default(),
            arrived: watch::Sender::new(0),
            log: tokio::sync::Mutex::default(),
            stop: CancellationToken::new(),
        });
        let address = listener.local_addr()?;
        let tasks = TaskTracker::new();
        tasks.spawn(accept(listener, TlsAcceptor::from(Arc::new(tls)), Arc::clone(&stage), tasks.clone()));
        Ok(Self { address, names: options.names, authority, patience: options.patience, stage, tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The CA certificate to trust.
    pub fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// Its names, each leading here: the static answers an egress client needs.
    pub fn static_addresses(&self) -> HashMap<String, Vec<SocketAddr>> {
        self.names.iter().map(|name| (name.clone(), vec![self.address])).collect()
    }

    /// Appends answers that are given in order, to whatever path.
    pub fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.stage.play().sequence.extend(answers);
    }

    /// Appends answers for one path (without query); they come before those of [`script`](Self::script).
    pub fn script_for(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        self.stage.play().by_path.entry(path.to_owned()).or_default().extend(answers);
    }

    /// The answers of the script that no request has taken.
    pub fn unused(&self) -> usize {
        let play = self.stage.play();
        play.sequence.len() + play.by_path.values().map(VecDeque::len).sum::<usize>()
    }

    /// The requests for which the script held nothing.
    pub fn unexpected(&self) -> usize {
        self.stage.play().unexpected
    }

    /// The remembered requests, in the order of their arrival.
    pub fn requests(&self) -> Vec<Seen> {
        self.stage.play().seen.iter().cloned().collect()
    }

    /// Waits until at least `count` requests have arrived since the start, and returns those remembered.
    pub async fn wait_for(&self, count: usize) -> Result<Vec<Seen>, TooFew> {
        let mut arrived = self.stage.arrived.subscribe();
        match tokio::time::timeout(self.patience, arrived.wait_for(|arrived| *arrived >= count)).await {
            Ok(_) => Ok(self.requests()),
            Err(_) => Err(TooFew { wanted: count, arrived: *self.stage.arrived.borrow() }),
        }
    }

    /// From now on appends one JSON line per request to this file, handed to the operating system before the request
    /// is answered. Should that fail, the request is not answered.
    pub async fn log_to(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let file = File::options().create(true).append(true).open(path).await?;
        *self.stage.log.lock().await = Some(file);
        Ok(())
    }

    /// Takes no new connection, ends what hangs or is held back, lets the rest finish within [`SHUTDOWN_GRACE`].
    pub async fn shutdown(self) {
        self.stage.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        self.stage.stop.cancel();
    }
}

/// The request is not answered; hyper ends the connection or resets the stream.
#[derive(Debug, thiserror::Error)]
#[error("the script ends the connection here")]
struct Broken;

type ReplyBody = UnsyncBoxBody<Bytes, Broken>;

async fn accept(listener: TcpListener, tls: TlsAcceptor, stage: Arc<Stage>, tasks: TaskTracker) {
    while let Some(accepted) = stage.stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((socket, _)) => {
                tasks.spawn(serve(socket, tls.clone(), Arc::clone(&stage)));
            }
            // A connection that was gone before it was taken, or no file descriptor left: others may still come.
            Err(error) => {
                tracing::warn!(%error, "the scripted destination could not accept a connection");
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn serve(socket: TcpStream, tls: TlsAcceptor, stage: Arc<Stage>) {
    let Some(Ok(stream)) = stage.stop.run_until_cancelled(tls.accept(socket)).await else { return };
    let service = service_fn(|request| {
        let stage = Arc::clone(&stage);
        async move { stage.answer(request).await }
    });
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new());
    http.http2().timer(TokioTimer::new());
    let connection = http.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // A client that goes away, or an answer that breaks off, is part of the play and no error to report.
    if stage.stop.run_until_cancelled(connection.as_mut()).await.is_none() {
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(SHUTDOWN_GRACE, connection).await;
    }
}

impl Stage {
    fn play(&self) -> MutexGuard<'_, Play> {
        // Nothing below panics halfway through a change, so a poisoned play is still a whole one.
        self.play.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(self: Arc<Self>, request: http::Request<Incoming>) -> Result<Response<ReplyBody>, Broken> {
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, REQUEST_BODY_MAX).collect().await else {
            return Ok(reply(Answer::status(413), self.stop.clone()));
        };
        let answer = self.record(&head, body.to_bytes()).await.map_err(|error| {
            tracing::error!(%error, "the scripted destination could not write its log");
            Broken
        })?;
        if let Some(gate) = &answer.gate {
            self.stop.run_until_cancelled(gate.opened()).await.ok_or(Broken)?;
        }
        match answer.manner {
            Manner::Close => Err(Broken),
            Manner::Hang => {
                self.stop.cancelled().await;
                Err(Broken)
            }
            _ => Ok(reply(answer, self.stop.clone())),
        }
    }

    /// Logs, remembers and counts one request, and takes its answer from the script.
    async fn record(&self, head: &http::request::Parts, body: Bytes) -> io::Result<Answer> {
        // Held throughout, so that numbers, the log and the order in memory agree.
        let mut log = self.log.lock().await;
        let number = *self.arrived.borrow() + 1;
        let seen = seen(number, self.started.elapsed(), head, body);
        if let Some(file) = log.as_mut() {
            file.write_all(seen.line().as_bytes()).await?;
            file.flush().await?;
        }
        let answer = {
            let mut play = self.play();
            play.seen.push_back(seen);
            while play.seen.len() > self.remembered {
                play.seen.pop_front();
            }
            play.next(head.uri.path(), &self.otherwise)
        };
        self.arrived.send_replace(number);
        Ok(answer)
    }
}

impl Play {
    fn next(&mut self, path: &str, otherwise: &Otherwise) -> Answer {
        let scripted = self.by_path.get_mut(path).and_then(VecDeque::pop_front);
        scripted.or_else(|| self.sequence.pop_front()).unwrap_or_else(|| {
            self.unexpected += 1;
            match otherwise {
                Otherwise::Answer(answer) => answer.clone(),
                Otherwise::Refuse => Answer::status(501).body("the script is used up"),
            }
        })
    }
}

fn seen(number: usize, at: Duration, head: &http::request::Parts, body: Bytes) -> Seen {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    // HTTP/2 names the host in the request line's successor, HTTP/1.1 in a header.
    let authority = head.uri.authority().map(|authority| authority.as_str().to_owned());
    Seen {
        number,
        at,
        version: head.version,
        method: head.method.as_str().to_owned(),
        host: authority.or_else(|| head.headers.get(HOST).map(text)).unwrap_or_default(),
        target: head.uri.path_and_query().map_or_else(|| head.uri.path().to_owned(), |target| target.to_string()),
        headers: head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
        body,
    }
}

fn reply(answer: Answer, stop: CancellationToken) -> Response<ReplyBody> {
    let Answer { status, headers, body, manner, gate: _ } = answer;
    let mut response = Response::new(match manner {
        Manner::Whole => Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync(),
        _ => paced(body, manner, stop),
    });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A body that is not given at once, or not to its end.
fn paced(body: Bytes, manner: Manner, stop: CancellationToken) -> ReplyBody {
    let pieces = stream::try_unfold(0, move |step: usize| {
        let (body, stop) = (body.clone(), stop.clone());
        async move {
            // Between two pieces hyper gets its turn to send what it has, and an endless body gives way to others.
            tokio::task::yield_now().await;
            let piece = match manner {
                Manner::Slow(pause) if step < body.len() => {
                    stop.run_until_cancelled(tokio::time::sleep(pause)).await.ok_or(Broken)?;
                    body.slice(step..=step)
                }
                Manner::Slow(_) => return Ok(None),
                Manner::Whole | Manner::Stall | Manner::Cut if step == 0 => body,
                Manner::Whole => return Ok(None),
                Manner::Stall => {
                    stop.cancelled().await;
                    return Err(Broken);
                }
                Manner::Endless if !stop.is_cancelled() => body,
                Manner::Endless | Manner::Cut | Manner::Hang | Manner::Close => return Err(Broken),
            };
            Ok(Some((Frame::data(piece), step + 1)))
        }
    });
    StreamBody::new(pieces).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_egress::{Egress, Exchange, Phase, Request, SendError, Settings};

    const NAME: &str = "shop.example";
    const AMPLE: Duration = Duration::from_secs(30);
    const SHORT: Duration = Duration::from_millis(300);

    async fn start(change: impl FnOnce(&mut Options)) -> (Destination, Egress) {
        let mut options = Options::named([NAME]);
        change(&mut options);
        let destination = Destination::start(options).await.unwrap();
        let egress = client(&destination, destination.static_addresses());
        (destination, egress)
    }

    fn client(trusted: &Destination, static_addresses: HashMap<String, Vec<SocketAddr>>) -> Egress {
        Egress::new(Settings {
            extra_networks: vec!["127.0.0.0/8".parse().unwrap()],
            static_addresses,
            extra_ca_pem: vec![trusted.ca_pem().into_bytes()],
            ..Settings::default()
        })
        .unwrap()
    }

    async fn post(egress: &Egress, path: &str, timeout: Duration) -> Result<Exchange, SendError> {
        let request = Request {
            method: http::Method::POST,
            url: format!("https://{NAME}{path}"),
            headers: vec![("x-trace".into(), "7".into())],
            body: Bytes::from_static(b"{\"a\":1}"),
            hops: 0,
        };
        egress.send(request, timeout).await
    }

    #[tokio::test]
    async fn answers_follow_the_script_over_both_http_versions() {
        for http2 in [true, false] {
            let (destination, egress) = start(|options| options.http2 = http2).await;
            destination.script([Answer::status(503).header("retry-after", "7"), Answer::json(201, "{}")]);
            destination.script_for("/b", [Answer::status(410)]);
            assert_eq!(destination.unused(), 3);

            let first = post(&egress, "/a?x=1", AMPLE).await.unwrap();
            assert_eq!(first.status, 503);
            assert!(first.headers.contains(&("retry-after".into(), "7".into())));
            assert_eq!(post(&egress, "/b", AMPLE).await.unwrap().status, 410);
            let third = post(&egress, "/b", AMPLE).await.unwrap();
            assert_eq!((third.status, &third.body[..]), (201, &b"{}"[..]));
            assert_eq!((destination.unused(), destination.unexpected()), (0, 0));
            assert_eq!(post(&egress, "/a", AMPLE).await.unwrap().status, 200);
            assert_eq!((destination.unused(), destination.unexpected()), (0, 1));

            let seen = destination.wait_for(4).await.unwrap();
            let first = &seen[0];
            assert_eq!((first.number, &*first.method, &*first.host, &*first.target), (1, "POST", NAME, "/a?x=1"));
            assert_eq!(first.version, if http2 { Version::HTTP_2 } else { Version::HTTP_11 });
            assert_eq!(first.header("x-trace"), Some("7"));
            assert_eq!(first.json().unwrap()["a"], 1);
            assert!(seen.iter().map(|seen| seen.number).eq(1..=4));
            drop(egress);
            destination.shutdown().await;
        }
    }

    #[tokio::test]
    async fn a_strict_destination_refuses_what_is_not_scripted() {
        let (destination, egress) = start(|options| options.otherwise = Otherwise::Refuse).await;
        assert_eq!(post(&egress, "/", AMPLE).await.unwrap().status, 501);
        assert_eq!(destination.unexpected(), 1);
    }

    #[tokio::test]
    async fn it_misbehaves_as_told_over_both_http_versions() {
        for http2 in [true, false] {
            let timed_out = Err(SendError::Timeout { phase: Phase::Exchange });
            let closed = Err(SendError::ConnectionClosed { sent: true });
            let cases = [
                (Answer::hang(), SHORT, timed_out.clone()),
                (Answer::status(200).body("part").manner(Manner::Stall), SHORT, timed_out),
                (Answer::close(), AMPLE, closed.clone()),
                (Answer::status(200).body("part").manner(Manner::Cut), AMPLE, closed),
                (Answer::status(200).body("all").manner(Manner::Slow(Duration::ZERO)), AMPLE, Ok((3, false))),
                (Answer::status(200).body(vec![b'x'; 4096]).manner(Manner::Endless), AMPLE, Ok((1024 * 1024, true))),
            ];
            for (answer, timeout, expected) in cases {
                let (destination, egress) = start(|options| options.http2 = http2).await;
                destination.script([answer.clone()]);
                let outcome = post(&egress, "/", timeout).await;
                let outcome = outcome.map(|exchange| (exchange.body.len(), exchange.truncated));
                assert_eq!(outcome, expected, "{answer:?} http2={http2}");
                assert_eq!((destination.requests().len(), destination.unused()), (1, 0));
            }
        }
    }

    #[tokio::test]
    async fn a_gate_holds_the_answer_and_not_the_record() {
        let (destination, egress) = start(|_| {}).await;
        let gate = Gate::new();
        destination.script([Answer::status(202).after(&gate)]);
        let waiting = tokio::spawn(async move { post(&egress, "/", AMPLE).await });
        destination.wait_for(1).await.unwrap();
        assert!(!waiting.is_finished());
        gate.open();
        assert_eq!(waiting.await.unwrap().unwrap().status, 202);
    }

    #[tokio::test]
    async fn waiting_for_too_many_says_how_many_came() {
        let (destination, egress) = start(|options| {
            options.patience = Duration::from_millis(50);
            options.remembered = 1;
        })
        .await;
        post(&egress, "/1", AMPLE).await.unwrap();
        post(&egress, "/2", AMPLE).await.unwrap();
        let remembered = destination.wait_for(2).await.unwrap();
        assert_eq!(remembered.iter().map(|seen| &*seen.target).collect::<Vec<_>>(), ["/2"]);
        let too_few = destination.wait_for(3).await.unwrap_err();
        assert_eq!((too_few.arrived, too_few.wanted), (2, 3));
    }

    #[tokio::test]
    async fn the_log_holds_each_request_before_its_answer() {
        let path = std::env::temp_dir().join(format!("sluice-destination-{}.jsonl", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let (destination, egress) = start(|_| {}).await;
        destination.log_to(&path).await.unwrap();
        let gate = Gate::new();
        destination.script([Answer::status(200).after(&gate), Answer::close()]);
        let held = tokio::spawn({
            let egress = egress.clone();
            async move { post(&egress, "/held", AMPLE).await }
        });
        destination.wait_for(1).await.unwrap();
        let lines = || std::fs::read_to_string(&path).unwrap();
        let line: serde_json::Value = serde_json::from_str(lines().trim()).unwrap();
        assert_eq!(
            (&line["number"], &line["target"], &line["body"]),
            (&1.into(), &"/held".into(), &"{\"a\":1}".into())
        );
        gate.open();
        held.await.unwrap().unwrap();
        post(&egress, "/closed", AMPLE).await.unwrap_err();
        assert_eq!(lines().lines().count(), 2);
        std::fs::remove_file(&path).unwrap();
    }

    #[tokio::test]
    async fn one_authority_serves_several_destinations_and_no_other_is_trusted() {
        let (first, _) = start(|_| {}).await;
        let (second, _) = start(|options| options.authority = Some(first.authority.clone())).await;
        let (stranger, _) = start(|_| {}).await;
        let egress = client(&first, second.static_addresses());
        assert_eq!(post(&egress, "/", AMPLE).await.unwrap().status, 200);
        let egress = client(&first, stranger.static_addresses());
        assert_eq!(post(&egress, "/", AMPLE).await.unwrap_err(), SendError::CertificateInvalid);
        assert_eq!((second.requests().len(), stranger.requests().len()), (1, 0));
    }

    #[tokio::test]
    async fn shutdown_ends_what_hangs() {
        let (destination, egress) = start(|_| {}).await;
        destination.script([Answer::hang(), Answer::status(200).after(&Gate::new())]);
        let clients =
            [egress.clone(), egress].map(|egress| tokio::spawn(async move { post(&egress, "/", AMPLE).await }));
        destination.wait_for(2).await.unwrap();
        tokio::time::timeout(AMPLE, destination.shutdown()).await.unwrap();
        for client in clients {
            assert!(client.await.unwrap().is_err());
        }
    }
}
