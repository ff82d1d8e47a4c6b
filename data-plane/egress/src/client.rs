//! One request, one answer, one deadline.
//!
//! Hides the connection pool, the rules for request headers, and the limits on what is read back. The caller decides
//! *whether* and *when* to send; this module only sends once. (The pool may repeat a request on a new connection
//! only if its old one turned out to be closed before the first byte was written.)

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use ipnet::IpNet;
use sluice_core::address::{DEFAULT_PORTS, IpPolicy, UrlPolicy, check_url};
use sluice_core::redact::Redactor;
use tokio::sync::Notify;

use crate::error::{Phase, RequestError, SendError, SettingsError};
use crate::guard::{Guard, GuardSettings, Since};
use crate::proxy::Proxy;

/// The limits that are not settings. Each has a name because an error says which one was hit (I8).
pub mod limits {
    use std::time::Duration;

    /// Time for the resolver to answer, before and apart from the connect timeout.
    pub const RESOLVER_DEADLINE: Duration = Duration::from_secs(5);
    /// Names being resolved at the same time; more wait, within the same deadline.
    pub const CONCURRENT_LOOKUPS: usize = 1024;
    /// Addresses of one name that are tried. All are checked.
    pub const DIALLED_ADDRESSES: usize = 8;
    /// Bytes of the egress proxy's answer to one request for a tunnel.
    pub const PROXY_ANSWER_BYTES: usize = 8 * 1024;
    /// Calls that follow each other, each caused by the one before (D01, S59).
    pub const HOPS: u32 = sluice_core::lineage::HOPS_MAX;
    /// Headers of one request, with those of the connection (O08).
    pub const REQUEST_HEADERS: usize = sluice_core::request::SENT_HEADERS_MAX;
    /// Bytes of one request header, name and value (O08).
    pub const REQUEST_HEADER_BYTES: usize = sluice_core::request::HEADER_BYTES_MAX;
    /// Bytes of all request headers, names and values (O08).
    pub const REQUEST_HEADERS_BYTES: usize = sluice_core::request::HEADERS_BYTES_MAX;
    /// Headers of one answer.
    pub const RESPONSE_HEADERS: usize = 100;
    /// Bytes of the head of one answer.
    pub const RESPONSE_HEAD_BYTES: usize = 32 * 1024;
    /// Interim answers (1xx) before the real one, over HTTP/1; over HTTP/2 the deadline alone ends them.
    pub const INTERIM_ANSWERS: usize = 16;
    /// Unused connections kept per destination: as many as a data plane uses at once by default. Deliveries begin in groups, as
    /// they are recorded; with fewer, each group would open connections anew, which costs several times the call itself.
    pub const IDLE_PER_DESTINATION: usize = 256;
    /// How often a busy HTTP/2 connection is asked whether it is still there, and how long it may take to say so.
    pub const PING_EVERY: Duration = Duration::from_secs(20);
    /// See [`PING_EVERY`].
    pub const PING_TIMEOUT: Duration = Duration::from_secs(10);
}

/// What the operator decides (D20); never a tenant.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Time to dial and finish the TLS handshake, over all addresses of the name (S19, D11). Default 5 s.
    pub connect_timeout: Duration,
    /// Bytes of an answer's body that are read; what is beyond is cut off with a mark (S19). Default 1 MiB.
    pub response_body_max: usize,
    /// How long an unused connection is kept. Default 90 s; shorter than `pool_max_age`.
    pub pool_idle: Duration,
    /// No request is started on a connection older than this, so that a changed address takes effect. Default 5 min.
    pub pool_max_age: Duration,
    /// Networks that may be called although the policy forbids them or this machine is in them, for tests and for inner
    /// destinations.
    pub extra_networks: Vec<IpNet>,
    /// Names that are answered here instead of by the resolver. Port 0 stands for the URL's port; another port
    /// replaces it. The answers are checked against the policy like any other.
    pub static_addresses: HashMap<String, Vec<SocketAddr>>,
    /// Name servers that are asked, each over UDP and TCP. Default: those of `/etc/resolv.conf`, read once when the client
    /// is made. Names are asked for as they are, without search domains. Names in `/etc/hosts`, also read once, are not
    /// asked for; their addresses are checked against the policy like any other.
    pub nameservers: Vec<SocketAddr>,
    /// CA certificates in PEM trusted besides the public ones.
    pub extra_ca_pem: Vec<Vec<u8>>,
    /// A proxy for everything that is sent. With one, names are resolved and addresses judged by the proxy, so
    /// `static_addresses` and `extra_networks` may not be set. Default none.
    pub proxy: Option<Proxy>,
    /// Ports a URL may name. Default 443 and 8443.
    pub ports: Vec<u16>,
    /// Host names under which this installation is reached from outside; calling them would be a loop. Default none.
    pub own_names: Vec<String>,
    /// Sent unless the author set one (S27). Default `Sluice/<version>`.
    pub user_agent: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            response_body_max: 1024 * 1024,
            pool_idle: Duration::from_secs(90),
            pool_max_age: Duration::from_secs(300),
            extra_networks: Vec::new(),
            static_addresses: HashMap::new(),
            nameservers: Vec::new(),
            extra_ca_pem: Vec::new(),
            proxy: None,
            ports: DEFAULT_PORTS.to_vec(),
            own_names: Vec::new(),
            user_agent: concat!("Sluice/", env!("CARGO_PKG_VERSION")).into(),
        }
    }
}

/// A request as rendered, before the checks.
#[derive(Clone)]
pub struct Request {
    /// GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS.
    pub method: Method,
    /// Absolute; checked again when sent, whoever checked it before. A fragment is dropped.
    pub url: String,
    /// In order, names in any case. Spaces around a value are dropped; a repeated name is sent repeatedly.
    pub headers: Vec<(String, String)>,
    /// The exact bytes sent.
    pub body: Bytes,
    /// How many calls came before this one, each caused by the one before; it says so by one more in its `Sluice-Hops`
    /// (D01). 0 for a call that nobody else's call caused.
    pub hops: u32,
}

/// Headers, path and query may hold credentials; only what cannot is shown.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.url.split("://").nth(1).and_then(|rest| rest.split(['/', '?', '#', '\\']).next());
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("host", &authority.and_then(|text| text.rsplit('@').next()).unwrap_or_default())
            .field("headers", &self.headers.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// An answer, whatever its status: 3xx, 4xx and 5xx are answers too.
#[derive(Clone, PartialEq, Eq)]
pub struct Exchange {
    /// 200 to 999 as the destination sent it.
    pub status: u16,
    /// In order, names in lower case. Bytes that are not UTF-8 are replaced by U+FFFD.
    pub headers: Vec<(String, String)>,
    /// As sent, not decompressed; at most [`Settings::response_body_max`] bytes.
    pub body: Bytes,
    /// Whether more body followed, which was not read.
    pub truncated: bool,
    /// From the call of [`Egress::send`] to the last byte read.
    pub elapsed: Duration,
}

/// A destination may send our credentials back; nothing it sent is shown.
impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("status", &self.status)
            .field("headers", &self.headers.len())
            .field("body_bytes", &self.body.len())
            .field("truncated", &self.truncated)
            .field("elapsed", &self.elapsed)
            .finish()
    }
}

impl Exchange {
    /// Takes out what must not come back (R11). Whoever sends secrets calls it before anything else sees the answer.
    pub fn redact(&mut self, redactor: &Redactor) {
        for (_, value) in &mut self.headers {
            if let Some(redacted) = redactor.text(value) {
                *value = redacted;
            }
        }
        if let Some(redacted) = redactor.bytes(&self.body, self.truncated) {
            self.body = redacted.into();
        }
    }
}

/// The guarded client. Clones share one pool of connections.
#[derive(Clone)]
pub struct Egress {
    client: Client<Guard, Full<Bytes>>,
    url_policy: UrlPolicy,
    user_agent: HeaderValue,
    response_body_max: usize,
    /// A connection that reached this age at the end of an exchange is not kept: waiting unused for `pool_idle`, it
    /// could otherwise be taken up again after `pool_max_age`.
    retire_at: Duration,
}

impl std::fmt::Debug for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Egress").finish_non_exhaustive()
    }
}

impl Egress {
    /// Makes the client; opens no connection. Must be called, like [`send`](Self::send), inside a Tokio runtime.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        for (name, is_zero) in [
            ("connect_timeout", settings.connect_timeout.is_zero()),
            ("response_body_max", settings.response_body_max == 0),
            ("pool_idle", settings.pool_idle.is_zero()),
        ] {
            if is_zero {
                return Err(SettingsError::Zero(name));
            }
        }
        // A setting that is accepted is enforced (I9), and through a proxy these two would not be.
        if settings.proxy.is_some() && !(settings.static_addresses.is_empty() && settings.extra_networks.is_empty()) {
            return Err(SettingsError::ProxyWithAddresses);
        }
        let guard = Guard::new(GuardSettings {
            connect_timeout: settings.connect_timeout,
            ip_policy: IpPolicy { extra_networks: settings.extra_networks },
            static_addresses: settings.static_addresses,
            nameservers: settings.nameservers,
            extra_ca_pem: settings.extra_ca_pem,
            proxy: settings.proxy,
        })?;
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(settings.pool_idle)
            .pool_max_idle_per_host(limits::IDLE_PER_DESTINATION)
            .retry_canceled_requests(true)
            .http1_max_headers(limits::RESPONSE_HEADERS)
            .http1_max_buf_size(limits::RESPONSE_HEAD_BYTES)
            .http2_max_header_list_size(limits::RESPONSE_HEAD_BYTES as u32)
            .http2_keep_alive_interval(limits::PING_EVERY)
            .http2_keep_alive_timeout(limits::PING_TIMEOUT)
            .build(guard);
        Ok(Self {
            client,
            url_policy: UrlPolicy { ports: settings.ports, own_names: settings.own_names },
            user_agent: HeaderValue::from_str(&settings.user_agent).map_err(|_| SettingsError::UserAgent)?,
            response_body_max: settings.response_body_max,
            retire_at: settings.pool_max_age.checked_sub(settings.pool_idle).ok_or(SettingsError::PoolAge)?,
        })
    }

    /// The rules every URL is checked against here, for checking one earlier: on save, on publish, on import.
    pub fn url_policy(&self) -> &UrlPolicy {
        &self.url_policy
    }

    /// Sends one request and reads its answer, both within `timeout` (D11: 1–120 s, kept by whoever stores the
    /// setting). Follows nothing, repeats nothing.
    ///
    /// # Errors
    /// Every reason for which there is no complete answer. An answer cut at the size limit is complete and marked.
    pub async fn send(&self, request: Request, timeout: Duration) -> Result<Exchange, SendError> {
        let started = Instant::now();
        let mut request = self.checked(request)?;
        let connection = capture_connection(&mut request);
        let too_many = count_interim(&mut request);
        let exchange = async {
            let response = tokio::select! {
                // An answer behind too many interim ones comes too late, however soon.
                biased;
                () = too_many.notified() => return Err(SendError::ResponseInvalid),
                response = self.client.request(request) => response.map_err(|error| SendError::from_client(&error))?,
            };
            self.retire_if_old(&connection);
            self.receive(response, started).await
        };
        let outcome = tokio::time::timeout(timeout, exchange).await;
        outcome.unwrap_or_else(|_| {
            let phase = match connection.connection_metadata().as_ref() {
                None => Phase::Connect,
                Some(connected) => {
                    // It may be a shared HTTP/2 connection to a machine that is gone: nobody should take it again.
                    connected.poison();
                    Phase::Exchange
                }
            };
            Err(SendError::Timeout { phase })
        })
    }

    fn checked(&self, request: Request) -> Result<http::Request<Full<Bytes>>, SendError> {
        if !is_sent(&request.method) {
            return Err(SendError::BadRequest(RequestError::Method));
        }
        let url = check_url(&request.url, &self.url_policy).map_err(SendError::UrlDenied)?;
        // From the parsed URL, never from the text: two parsers must not read one URL differently.
        let target: Uri = url.as_url().as_str().parse().map_err(|_| SendError::BadRequest(RequestError::Target))?;
        let hops = request.hops.saturating_add(1);
        if hops > limits::HOPS {
            return Err(SendError::LoopDetected);
        }
        let mut headers = checked_headers(&request.headers).map_err(SendError::BadRequest)?;
        headers.insert(HeaderName::from_static("sluice-hops"), hops.into());
        headers.entry(USER_AGENT).or_insert_with(|| self.user_agent.clone());

        let mut checked = http::Request::new(Full::new(request.body));
        *checked.method_mut() = request.method;
        *checked.uri_mut() = target;
        *checked.headers_mut() = headers;
        Ok(checked)
    }

    fn retire_if_old(&self, connection: &CaptureConnection) {
        if let Some(connected) = connection.connection_metadata().as_ref() {
            let mut extras = http::Extensions::new();
            connected.get_extras(&mut extras);
            if extras.get::<Since>().is_some_and(|since| since.0.elapsed() >= self.retire_at) {
                connected.poison();
            }
        }
    }

    async fn receive(&self, response: http::Response<Incoming>, started: Instant) -> Result<Exchange, SendError> {
        let (head, mut body) = response.into_parts();
        // HTTP/1 counts headers while parsing; HTTP/2 only weighs them. Of the 1xx only 101 comes this far, and
        // nobody asked for another protocol.
        if head.status.is_informational() || head.headers.len() > limits::RESPONSE_HEADERS {
            return Err(SendError::ResponseInvalid);
        }
        let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX).min(self.response_body_max);
        let mut read = BytesMut::new();
        let mut truncated = false;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| SendError::from_hyper(&error, true))?;
            let Ok(data) = frame.into_data() else { continue };
            let room = self.response_body_max - read.len();
            if data.len() > room {
                read.extend_from_slice(&data[..room]);
                truncated = true;
                break;
            }
            // Growing by itself it would be copied again and again, and have twice the room it needs.
            if read.len() + data.len() > read.capacity() {
                read.reserve(data.len().max(declared.saturating_sub(read.len())));
            }
            read.extend_from_slice(&data);
        }
        // Dropping an unfinished body ends its connection, or its stream: what is too much is never transferred.
        drop(body);
        Ok(Exchange {
            status: head.status.as_u16(),
            headers: shown(&head.headers),
            body: read.freeze(),
            truncated,
            elapsed: started.elapsed(),
        })
    }
}

/// Tells when a destination goes on and on saying that its answer will come.
fn count_interim<B>(request: &mut http::Request<B>) -> Arc<Notify> {
    let too_many = Arc::new(Notify::new());
    let (seen, tell) = (AtomicUsize::new(0), Arc::clone(&too_many));
    hyper::ext::on_informational(request, move |_| {
        if seen.fetch_add(1, Ordering::Relaxed) == limits::INTERIM_ANSWERS {
            tell.notify_one();
        }
    });
    too_many
}

fn is_sent(method: &Method) -> bool {
    const SENT: [Method; 7] =
        [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
    SENT.contains(method)
}

fn shown(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}

/// The header rules (S28, O04–O08), for the author's headers and the connection's alike.
fn checked_headers(headers: &[(String, String)]) -> Result<HeaderMap, RequestError> {
    if headers.len() > limits::REQUEST_HEADERS {
        return Err(RequestError::TooManyHeaders);
    }
    let mut checked = HeaderMap::with_capacity(headers.len() + 2);
    let mut total = 0;
    for (name, value) in headers {
        let value = value.trim_matches([' ', '\t']);
        let size = name.len() + value.len();
        if size > limits::REQUEST_HEADER_BYTES {
            return Err(RequestError::HeaderTooLarge(printable(name)));
        }
        total += size;
        if total > limits::REQUEST_HEADERS_BYTES {
            return Err(RequestError::HeadersTooLarge);
        }
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| RequestError::HeaderName(printable(name)))?;
        if is_reserved(parsed.as_str()) {
            return Err(RequestError::HeaderReserved(parsed.as_str().to_owned()));
        }
        let mut value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| RequestError::HeaderValue(parsed.as_str().to_owned()))?;
        // Any of them may be a credential or a customer's data: no compression table and no debug output keeps it.
        value.set_sensitive(true);
        checked.append(parsed, value);
    }
    Ok(checked)
}

/// Headers that frame the message or belong to one hop, by which requests are smuggled, and the one that ends circles.
fn is_reserved(name: &str) -> bool {
    const RESERVED: [&str; 12] = [
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "sluice-hops",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    ];
    RESERVED.contains(&name) || name.starts_with("proxy-")
}

/// A name that is not one, made fit for a message: short, and without control characters.
fn printable(name: &str) -> String {
    const SHOWN: usize = 64;
    name.chars().take(SHOWN).map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: &str) -> Result<HeaderMap, RequestError> {
        checked_headers(&[(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn header_names_that_are_not_the_authors() {
        for name in [
            "Host",
            "content-length",
            "Transfer-Encoding",
            "Connection",
            "Keep-Alive",
            "TE",
            "Trailer",
            "Upgrade",
            "Expect",
            "Sluice-Hops",
            "Proxy-Authorization",
            "proxy-connection",
        ] {
            assert_eq!(check(name, "1"), Err(RequestError::HeaderReserved(name.to_ascii_lowercase())));
        }
        for name in ["X Y", "X:Y", "", ":authority", "X\r\nY", "ü"] {
            assert!(matches!(check(name, "1"), Err(RequestError::HeaderName(_))), "{name:?}");
        }
        assert_eq!(check("X\r\nY", "1"), Err(RequestError::HeaderName("X\u{FFFD}\u{FFFD}Y".into())));
    }

    #[test]
    fn header_values() {
        for value in ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b", "a\x7fb", "a\x1bb"] {
            assert_eq!(check("x-a", value), Err(RequestError::HeaderValue("x-a".into())), "{value:?}");
        }
        for (value, sent) in [("%0d%0a", "%0d%0a"), ("  a b\t", "a b"), ("a\tb", "a\tb"), ("嘍嘊", "嘍嘊"), ("", "")]
        {
            let headers = check("x-a", value).unwrap();
            assert_eq!(headers["x-a"].as_bytes(), sent.as_bytes());
            assert!(headers["x-a"].is_sensitive());
        }
    }

    #[test]
    fn header_limits() {
        let many = |count: usize, size: usize| {
            let headers: Vec<_> = (0..count).map(|_| ("n".to_owned(), "v".repeat(size - 1))).collect();
            checked_headers(&headers).map(|headers| headers.len())
        };
        assert_eq!(many(limits::REQUEST_HEADERS, 2), Ok(limits::REQUEST_HEADERS));
        assert_eq!(many(limits::REQUEST_HEADERS + 1, 2), Err(RequestError::TooManyHeaders));
        assert_eq!(many(4, limits::REQUEST_HEADER_BYTES), Ok(4));
        assert_eq!(many(1, limits::REQUEST_HEADER_BYTES + 1), Err(RequestError::HeaderTooLarge("n".into())));
        assert_eq!(many(5, limits::REQUEST_HEADER_BYTES), Err(RequestError::HeadersTooLarge));
    }

    #[test]
    fn debug_shows_neither_path_nor_query_nor_values() {
        let request = Request {
            method: Method::POST,
            url: "https://user:s3cr3t@hooks.example:8443/s3cr3t?token=s3cr3t#s3cr3t".into(),
            headers: vec![("x-key".into(), "s3cr3t".into())],
            body: Bytes::from_static(b"s3cr3t"),
            hops: 0,
        };
        let shown = format!("{request:?}");
        assert!(
            shown.contains("hooks.example:8443") && shown.contains("x-key") && !shown.contains("s3cr3t"),
            "{shown}"
        );
    }
}
