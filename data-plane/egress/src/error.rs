//! What can go wrong between a request and its answer: one closed enum, recognised by type and never by text.
//!
//! Hides how hyper, rustls and the operating system report failures. No message here contains a URL, a header value,
//! an address or anything a destination sent: errors travel into outcomes, events and logs.

use std::error::Error as StdError;
use std::io;

use sluice_core::address::UrlError;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SendError {
    /// The URL is not one that Sluice ever calls (D20, R070–R072). The author's fault; nothing was looked up or sent.
    #[error("the URL is refused: {0}")]
    UrlDenied(UrlError),
    /// Too many calls came before this one, each caused by the one before (D01): it would go round in a circle. Nothing was
    /// looked up or sent.
    #[error("more than {} calls followed each other, each caused by the one before", crate::limits::HOPS)]
    LoopDetected,
    /// The request itself cannot be sent as it is. The author's fault; nothing was sent.
    #[error("the request is refused: {0}")]
    BadRequest(RequestError),
    /// The name leads to an address that may not be called (S26), or is itself an address. Nothing was dialled.
    #[error("the destination's name leads to an address that may not be called")]
    AddressDenied,
    /// The name has no address, or the resolver could not say.
    #[error("the destination's name could not be resolved")]
    Dns,
    /// The resolver did not answer within [`limits::RESOLVER_DEADLINE`](crate::limits::RESOLVER_DEADLINE).
    #[error("resolving the destination's name took too long")]
    DnsTimeout,
    /// The operator's proxy did not open a tunnel: it forbids the destination, or cannot reach it.
    #[error("the egress proxy did not open a way to the destination")]
    ProxyDenied,
    /// No address accepted a connection.
    #[error("the destination refused the connection")]
    Connect,
    /// The TLS handshake failed for another reason than the certificate.
    #[error("the TLS handshake failed")]
    TlsHandshake,
    /// The destination's certificate is expired, for another name, or from an unknown authority.
    #[error("the destination's certificate is not valid")]
    CertificateInvalid,
    /// Time ran out.
    #[error("no complete answer in time ({phase})")]
    Timeout {
        /// What was going on when it did.
        phase: Phase,
    },
    /// The connection was closed or reset before the answer was complete.
    #[error("the connection was closed before the answer was complete")]
    ConnectionClosed {
        /// Whether any byte of the request may have left.
        sent: bool,
    },
    /// The answer is not HTTP, or its head exceeds the limits in [`limits`](crate::limits).
    #[error("the destination's answer is not valid HTTP or its head is too large")]
    ResponseInvalid,
}

/// Where time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// While connecting: no byte of the request was sent.
    Connect,
    /// After a connection was there: the destination may have seen the request.
    Exchange,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connect => "while connecting",
            Self::Exchange => "while waiting for the answer",
        })
    }
}

/// Why a request cannot be sent. Header *names* are shown (made printable and short); values never.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Only GET, HEAD, POST, PUT, PATCH, DELETE and OPTIONS are sent.
    #[error("the method is not one that is sent")]
    Method,
    /// The URL passed the check but cannot be written as a request target.
    #[error("the URL cannot be written as a request target")]
    Target,
    /// Not a header name (O06).
    #[error("`{0}` is not a header name")]
    HeaderName(String),
    /// The value contains CR, LF, NUL or another control character (S28, O04).
    #[error("the value of the header `{0}` contains a control character")]
    HeaderValue(String),
    /// Hop-by-hop or framing headers belong to the connection, not to the author (S28).
    #[error("the header `{0}` may not be set")]
    HeaderReserved(String),
    /// More than [`limits::REQUEST_HEADERS`](crate::limits::REQUEST_HEADERS) headers (O08).
    #[error("more than {} headers", crate::limits::REQUEST_HEADERS)]
    TooManyHeaders,
    /// One name and value exceed [`limits::REQUEST_HEADER_BYTES`](crate::limits::REQUEST_HEADER_BYTES) (O08).
    #[error("the header `{0}` exceeds {max} bytes", max = crate::limits::REQUEST_HEADER_BYTES)]
    HeaderTooLarge(String),
    /// Together the headers exceed [`limits::REQUEST_HEADERS_BYTES`](crate::limits::REQUEST_HEADERS_BYTES) (O08).
    #[error("the headers exceed {} bytes together", crate::limits::REQUEST_HEADERS_BYTES)]
    HeadersTooLarge,
}

impl SendError {
    /// Whether another attempt may succeed (D09): connect, TLS handshake and DNS failures, timeouts and resets are
    /// retried; what the author or the policy has to change is not.
    ///
    /// A certificate that is not valid today is a failed handshake and is renewed by its owner, so it is retried too.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::UrlDenied(_) | Self::LoopDetected | Self::BadRequest(_) | Self::AddressDenied => false,
            Self::Dns
            | Self::DnsTimeout
            | Self::ProxyDenied
            | Self::Connect
            | Self::TlsHandshake
            | Self::CertificateInvalid
            | Self::Timeout { .. }
            | Self::ConnectionClosed { .. }
            | Self::ResponseInvalid => true,
        }
    }

    /// Whether the destination may have seen any byte of the request, so that the next attempt is ambiguous (I3).
    /// `false` is certain; `true` is a maybe.
    pub fn reached_destination(&self) -> bool {
        match self {
            Self::UrlDenied(_)
            | Self::LoopDetected
            | Self::BadRequest(_)
            | Self::AddressDenied
            | Self::Dns
            | Self::DnsTimeout
            | Self::ProxyDenied
            | Self::Connect
            | Self::TlsHandshake
            | Self::CertificateInvalid => false,
            Self::Timeout { phase } => *phase == Phase::Exchange,
            Self::ConnectionClosed { sent } => *sent,
            Self::ResponseInvalid => true,
        }
    }

    /// The reason as a stable word, part of the contract with whoever reads outcomes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UrlDenied(reason) => reason.code(),
            Self::LoopDetected => "egress.loop",
            Self::BadRequest(_) => "request.invalid",
            Self::AddressDenied => "egress.denied_ip",
            Self::Dns => "dns.failed",
            Self::DnsTimeout => "dns.timeout",
            Self::ProxyDenied => "egress.proxy_denied",
            Self::Connect => "connect.failed",
            Self::TlsHandshake => "tls.handshake",
            Self::CertificateInvalid => "tls.certificate",
            Self::Timeout { phase: Phase::Connect } => "connect.timeout",
            Self::Timeout { phase: Phase::Exchange } => "exchange.timeout",
            Self::ConnectionClosed { .. } => "connection.closed",
            Self::ResponseInvalid => "response.invalid",
        }
    }

    /// Sorts a failure of the pooled client. `sent` is whether a connection had been handed to the request.
    pub(crate) fn from_client(error: &hyper_util::client::legacy::Error) -> Self {
        // The connector speaks our language already; the client only wraps what it says.
        if let Some(ours) = find::<Self>(error) {
            return ours.clone();
        }
        match find::<hyper::Error>(error) {
            // The destination's word that it did nothing with the request (RFC 9113, 8.7), before any of its answer.
            Some(hyper) if find::<h2::Error>(hyper).is_some_and(refused_stream) => {
                Self::ConnectionClosed { sent: false }
            }
            Some(hyper) => Self::from_hyper(hyper, error.connect_info().is_some()),
            None => Self::ConnectionClosed { sent: error.connect_info().is_some() },
        }
    }

    /// Sorts a failure of one connection, in its head or in its body.
    pub(crate) fn from_hyper(error: &hyper::Error, connected: bool) -> Self {
        // Over HTTP/2, what the library itself finds wrong is what the destination sent.
        if error.is_parse() || find::<h2::Error>(error).is_some_and(h2::Error::is_library) {
            return Self::ResponseInvalid;
        }
        // A TLS 1.3 server that demands a client certificate says so after the client's part of the handshake is
        // done. It is a failed handshake all the same: nothing was read by the application behind it.
        let certificate_demanded = find::<io::Error>(error)
            .and_then(rustls_error)
            .is_some_and(|tls| *tls == rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired));
        if certificate_demanded {
            return Self::TlsHandshake;
        }
        // hyper calls a request cancelled only when it hands it back before its first byte was written.
        Self::ConnectionClosed { sent: connected && !error.is_canceled() }
    }

    /// Sorts a failed TLS handshake.
    pub(crate) fn from_handshake(error: &io::Error) -> Self {
        match rustls_error(error) {
            Some(rustls::Error::InvalidCertificate(_)) => Self::CertificateInvalid,
            _ => Self::TlsHandshake,
        }
    }
}

fn refused_stream(error: &h2::Error) -> bool {
    error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
}

/// The TLS error inside an I/O error, which is how tokio-rustls reports it.
fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// The first error of one type in a chain of causes.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut cause = Some(error);
    while let Some(current) = cause {
        if let Some(found) = current.downcast_ref() {
            return Some(found);
        }
        cause = current.source();
    }
    None
}

/// Settings that cannot work; found when the client is made, never later.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// An extra CA certificate is not PEM, or holds no certificate.
    #[error("extra CA certificate number {0} holds no readable certificate")]
    ExtraCa(usize),
    /// A static answer belongs to a name that has no addresses, so it could only ever fail.
    #[error("the static answer for `{0}` has no address")]
    StaticAnswerEmpty(String),
    /// The user agent is not a header value.
    #[error("the user agent is not a valid header value")]
    UserAgent,
    /// An idle connection may not outlive the oldest age a connection may reach.
    #[error("pool_idle must be shorter than pool_max_age")]
    PoolAge,
    /// A duration or size that must be above zero is zero.
    #[error("`{0}` must be above zero")]
    Zero(&'static str),
    /// Static answers and extra networks mean nothing when a proxy resolves the names.
    #[error("static_addresses and extra_networks cannot be used together with a proxy")]
    ProxyWithAddresses,
    /// The resolver refused its own settings.
    #[error("the resolver could not be set up")]
    Resolver,
    /// The TLS library refused its own settings.
    #[error("TLS could not be set up")]
    Tls,
}
