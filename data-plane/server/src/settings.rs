//! Settings of one data plane, with their defaults.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use sluice_core::flatten;
use sluice_tls::{Files, HandshakeLimits};

use crate::clock::Clock;
use crate::dispatch::DispatchSettings;
use crate::inbox::InboxSettings;

/// Everything a data plane needs to start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A stable id, shown in `ListDataPlanes`: `[a-z][a-z0-9-]{2,62}`.
    pub data_plane_id: String,
    /// Where the control plane's gRPC is, for example `http://127.0.0.1:7070` or `https://control.example:7070`.
    pub control_plane_url: String,
    /// How this data plane shows the control plane who it is.
    pub admission: Admission,
    /// How often is looked whether its certificate is to be renewed: 60 s by default.
    pub certificate_checked_every: Duration,
    /// The file with the master keys, the same as the control plane's.
    pub master_key_file: PathBuf,
    /// How often a master key is looked for that a workspace's data key names and the ring lacks.
    pub keys_read_every: Duration,
    /// How long compiling a revision may take before it is refused: 60 s by default.
    pub compile_max: Duration,
    /// How it is noticed that the connection to the control plane is dead.
    pub pings: Pings,
    /// How often the control plane is told what is served, give or take a fifth: 15 s by default.
    pub beat_every: Duration,
    /// Where the inbox and the last good configuration are kept.
    pub data_dir: PathBuf,
    /// Limits of what comes in.
    pub ingress: IngressSettings,
    /// How much is sent at once.
    pub workers: WorkerSettings,
    /// What holds for every destination.
    pub dispatch: DispatchSettings,
    /// The way out, with the operator's settings of D20.
    pub egress: sluice_egress::Settings,
    /// The inbox.
    pub inbox: InboxSettings,
    /// After which time a delivery without an attempt is told of.
    pub waiting_told_after: Duration,
    /// How long triggers are still taken after the stop signal, while `/readyz` says no and answers say `Connection: close`: balancers
    /// turn away meanwhile, and no sender is cut off.
    pub lame_duck: Duration,
    /// How long a stop then waits for what is running: requests at most 10 s of it.
    pub drain: Duration,
    /// The time of day.
    pub clock: Clock,
}

/// How it is noticed that a connection is dead of whose other end nothing is heard: HTTP/2 pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pings {
    /// How long nothing comes before one is sent: 20 s by default.
    pub every: Duration,
    /// How long its answer may take before the connection is closed: 10 s by default.
    pub answer: Duration,
}

impl Default for Pings {
    fn default() -> Self {
        Self { every: Duration::from_secs(20), answer: Duration::from_secs(10) }
    }
}

/// How a data plane shows its control plane who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// On the machine of the control plane, with its `http` URL: the file with the key that it made for all data planes.
    Key(PathBuf),
    /// Anywhere, with its `https` URL: a certificate of its own, kept in `data_dir`.
    Certificate {
        /// The file with the join token to get one with; needed once.
        join_token_file: Option<PathBuf>,
    },
}

/// Limits of what comes in (D16, section 1.5 of the attack tables).
#[derive(Clone, Debug)]
pub struct IngressSettings {
    /// Largest body, in bytes: 413 above it.
    pub body_bytes_max: usize,
    /// Depth, leaves and path length of a body: 400 above them.
    pub body_limits: flatten::Limits,
    /// For a whole body to arrive: 408 after it.
    pub body_deadline: Duration,
    /// For the head of a request to arrive: the connection is closed after it.
    pub head_deadline: Duration,
    /// For an answer once the body is there: 503 after it.
    pub answer_deadline: Duration,
    /// Longest path and query, in bytes: 414 above it.
    pub uri_bytes_max: usize,
    /// Most headers: 431 above it.
    pub headers_max: usize,
    /// Longest sum of header names and values, in bytes: 431 above it.
    pub header_bytes_max: usize,
    /// Requests in work at once: 503 above it.
    pub in_flight_max: usize,
    /// Open connections: further ones wait to be taken.
    pub connections_max: usize,
    /// Networks of the proxies before this door: what they say in `X-Forwarded-For` is believed, of nobody else. None by default.
    pub proxies: Vec<IpNet>,
    /// The certificate for triggers, which then come over TLS 1.2 or newer. `None`: in plaintext.
    pub tls: Option<Files>,
    /// TLS handshakes: further connections wait to be taken; a late one is closed.
    pub handshakes: HandshakeLimits,
}

impl Default for IngressSettings {
    fn default() -> Self {
        Self {
            body_bytes_max: 1024 * 1024,
            body_limits: flatten::Limits::default(),
            body_deadline: Duration::from_secs(10),
            head_deadline: Duration::from_secs(10),
            answer_deadline: Duration::from_secs(10),
            uri_bytes_max: 8 * 1024,
            headers_max: 64,
            header_bytes_max: 32 * 1024,
            in_flight_max: 1024,
            connections_max: 10_000,
            proxies: Vec::new(),
            tls: None,
            handshakes: HandshakeLimits::default(),
        }
    }
}

/// How much is sent at once.
#[derive(Clone, Copy, Debug)]
pub struct WorkerSettings {
    /// Deliveries of the realtime lane in work at once: what begins and ends together costs one fsync, so fewer make each one dearer.
    /// 512 by default, of which one destination has a quarter.
    pub realtime: usize,
    /// Deliveries of the bulk lane in work at once; they never take a realtime place (R126). 64 by default.
    pub bulk: usize,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self { realtime: 512, bulk: 64 }
    }
}
