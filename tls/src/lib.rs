//! TLS on the doors and between the planes: rustls with ring, 1.2 and newer, set up in one place.
//!
//! | Module | What |
//! |---|---|
//! | [`authority`] | who vouches for control plane and data planes |
//! | [`identity`] | who a data plane is |
//! | [`acceptor`] | connections as they come in, encrypted or not |
//! | [`certificates`] | what a door shows, followed in its files |
//! | [`client`] | the line from a data plane to its control plane |
//!
//! Hides rustls: who listens and who dials sees streams and settings.

pub mod acceptor;
pub mod authority;
pub mod certificates;
pub mod client;
pub mod identity;
mod verifier;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

pub use acceptor::{Accepted, Acceptor, HandshakeLimits, Stream, Tls};
pub use certificates::{Certificates, Files};
pub use client::{Connector, is_distrust};

/// Over HTTP/2, and over HTTP/1.1 for who does not speak it.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} holds no {what} in PEM form")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// The key does not belong to the certificate, or neither can be used.
    #[error("the certificate {certificate} and the key {key} cannot be used together: {problem}")]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong; nothing of the key.
        problem: String,
    },
    /// TLS cannot be set up with these parts.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
    /// A certificate of our own cannot be made.
    #[error(transparent)]
    Unmade(#[from] authority::Unmade),
    /// A key cannot be read.
    #[error("a private key cannot be read")]
    Key,
}

/// What happens at a door, for its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A handshake failed: the peer does not trust us, is not trusted, or speaks something else.
    HandshakeFailed,
    /// A handshake took longer than [`HandshakeLimits::time`].
    HandshakeTimedOut,
    /// A changed certificate is in use.
    Reloaded,
    /// A changed certificate cannot be used; the one before stays.
    ReloadRefused,
}

impl Event {
    /// A label for it.
    pub fn code(self) -> &'static str {
        match self {
            Self::HandshakeFailed => "handshake_failed",
            Self::HandshakeTimedOut => "handshake_timed_out",
            Self::Reloaded => "reloaded",
            Self::ReloadRefused => "reload_refused",
        }
    }
}

/// Hears of every [`Event`].
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(Event) + Send + Sync>);

impl Observer {
    /// Calls `hear` for every event.
    pub fn new(hear: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    fn tell(&self, event: Event) {
        (self.0)(event);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// The time of day that certificates are checked with, in milliseconds since the Unix epoch.
#[derive(Clone)]
pub struct Time(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Time {
    /// Reads it by `now`.
    pub fn new(now: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

impl Time {
    fn now(&self) -> i64 {
        (self.0)()
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let millis = u64::try_from((self.0)()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(millis)))
    }
}

/// A certificate as a file holds it.
pub fn certificate_pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let lines = (0..text.len()).step_by(64).filter_map(|at| text.get(at..(at + 64).min(text.len())));
    let lines: Vec<&str> = lines.collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
