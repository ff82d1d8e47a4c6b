//! What the caller decides. This package reads no environment and opens no port by itself.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sluice_core::address::UrlPolicy;
use sluice_core::seal::Secret;
use sluice_tls::{Files, HandshakeLimits};
use tokio::net::TcpListener;

use crate::clock::Clock;
use crate::error::Error;

/// Versions of each resource that are kept when nobody decides.
const VERSIONS_KEPT: NonZeroU32 = NonZeroU32::new(1000).expect("is not 0");

/// Where everything is kept.
#[derive(Clone, Debug)]
pub enum Database {
    /// A SQLite file; made with mode 0600 when it is not there.
    Sqlite(PathBuf),
    /// A database of a PostgreSQL server, 13 or newer: `postgres://user:password@host:5432/database?sslmode=verify-full`. Tables
    /// are made when they are not there. Any number of control planes work on it at once.
    Postgres(Secret),
}

impl Database {
    /// The file of a control plane that keeps everything in `folder`.
    pub fn file_in(folder: &Path) -> PathBuf {
        folder.join("control-plane.db")
    }
}

/// Settings of a control plane.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where everything is kept.
    pub database: Database,
    /// The ring of master keys, which must be there: secrets are sealed with keys that are wrapped by its first key.
    pub master_key_file: PathBuf,
    /// Where the API key for administrators is kept: everything but `sync.*`. Made with mode 0600 when it is not there,
    /// which revokes the one before; taken over when it is; never overwritten.
    pub admin_key_file: PathBuf,
    /// Where the API key for data planes is kept: `sync.*`. Treated like `admin_key_file`. With `tls` it opens nothing.
    pub data_plane_key_file: PathBuf,
    /// The certificate of the listener: callers reach it with TLS 1.2 or newer, and data planes join and come with certificates of their
    /// own. `None`: in plaintext, and data planes come with a key.
    pub tls: Option<Certificate>,
    /// Where the certificate of the authority is written that vouches for data planes, for whoever wants to trust it too. It is no secret.
    pub authority_file: PathBuf,
    /// How often is looked whether a data plane that is connected still may: 60 s by default. One that is deleted is disconnected at once.
    pub rights_checked_every: Duration,
    /// Plaintext may be served beyond this machine, where API keys and secrets can be read on the way: no by default.
    pub allow_plaintext: bool,
    /// Which URLs integrations may name (D20).
    pub urls: UrlPolicy,
    /// How long events and deliveries are kept (D18): 30 days by default.
    pub retention: Duration,
    /// How long entries of the audit logs are kept: 400 days by default. The newest of each log is kept for ever.
    pub audit_retention: Duration,
    /// How many published versions of each resource are kept, the newest ones and the one in force: 1,000 by default.
    pub versions_kept: NonZeroU32,
    /// How often the ring of master keys is looked at for a change: 10 s by default.
    pub ring_read_every: Duration,
    /// The pause after each data key that is wrapped anew, for the calls that wait: 20 ms by default.
    pub rewrap_pause: Duration,
    /// What is done at once, at most.
    pub limits: Limits,
    /// The time of day.
    pub clock: Clock,
    /// Where to end the process, for tests.
    #[cfg(feature = "fault-injection")]
    pub crash: Option<crate::crash::Crash>,
}

/// What callers are shown.
#[derive(Clone, Debug)]
pub enum Certificate {
    /// Certificates that the installation's own authority makes, for these names and addresses.
    Own(Vec<String>),
    /// What is in these files. Data planes are shown one of the own authority all the same.
    Files(Files),
}

/// Limits of one control plane; a call above one is refused and the error names it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls that are answered at once: 256 by default.
    pub calls: usize,
    /// Data plane streams and watchers at once: 4,096 by default.
    pub streams: usize,
    /// Configuration streams of data planes that may begin in a second, and at once after a quiet second: 200 by default. When all come
    /// back together, those above it try again later (A18).
    pub stream_starts_per_second: u32,
    /// How old a data plane's configuration stream gets, give or take a fifth, before it is ended: the data plane connects again, to any
    /// control plane, and both compare what it holds. 30 min by default.
    pub stream_age: Duration,
    /// How long a call may take, streams excepted: 30 s by default.
    pub call_time: Duration,
    /// Deliveries that replays enqueue in a second, all together: 100 by default.
    pub replays_per_second: u32,
    /// Events that a workspace may submit in a second, and twice as many at once: 1,000 by default.
    pub events_per_second: u32,
    /// How long a watcher, or a data plane that is being sent configuration, may take nothing before it is ended: 30 s by default.
    pub watcher_patience: Duration,
    /// Wrong API keys that one address may show in a minute, counted over time; those above are answered with another error: 20 by
    /// default.
    pub failed_keys_per_minute: u32,
    /// Tests of one workspace that run at once: 5 by default.
    pub tests_at_once: usize,
    /// Tests of one workspace in any minute: 60 by default.
    pub tests_per_minute: usize,
    /// How long streams may take to end when the server stops: 10 s by default.
    pub drain_time: Duration,
    /// How long nothing comes on a connection before it is pinged: 20 s by default.
    pub ping_every: Duration,
    /// How long the answer to a ping may take before the connection is closed: 20 s by default.
    pub ping_answer: Duration,
    /// TLS handshakes: at most 256 at once, each within 10 s by default. Further connections wait; a late one is closed.
    pub handshakes: HandshakeLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: 256,
            streams: 4096,
            stream_starts_per_second: 200,
            stream_age: Duration::from_secs(30 * 60),
            call_time: Duration::from_secs(30),
            replays_per_second: 100,
            events_per_second: 1000,
            watcher_patience: Duration::from_secs(30),
            failed_keys_per_minute: 20,
            tests_at_once: 5,
            tests_per_minute: 60,
            drain_time: Duration::from_secs(10),
            ping_every: Duration::from_secs(20),
            ping_answer: Duration::from_secs(20),
            handshakes: HandshakeLimits::default(),
        }
    }
}

impl Settings {
    /// Whether gRPC may be served there as it is.
    ///
    /// # Errors
    /// API keys and secrets would leave this machine in plaintext, which was not allowed.
    pub fn check_listener(&self, listener: &TcpListener) -> Result<(), Error> {
        let address = listener.local_addr().map_err(Error::Listener)?;
        if self.tls.is_some() || self.allow_plaintext || address.ip().is_loopback() {
            Ok(())
        } else {
            Err(Error::Plaintext { address })
        }
    }

    /// Settings with everything in `folder` under its usual name, and the defaults.
    pub fn in_folder(folder: impl Into<PathBuf>, urls: UrlPolicy) -> Self {
        let folder = folder.into();
        Self {
            database: Database::Sqlite(Database::file_in(&folder)),
            master_key_file: folder.join("master.key"),
            admin_key_file: folder.join("admin.key"),
            data_plane_key_file: folder.join("data-plane.key"),
            tls: None,
            authority_file: folder.join("authority.pem"),
            rights_checked_every: Duration::from_secs(60),
            allow_plaintext: false,
            urls,
            retention: Duration::from_secs(30 * 24 * 3600),
            audit_retention: Duration::from_secs(400 * 24 * 3600),
            versions_kept: VERSIONS_KEPT,
            ring_read_every: Duration::from_secs(10),
            rewrap_pause: Duration::from_millis(20),
            limits: Limits::default(),
            clock: Clock::system(),
            #[cfg(feature = "fault-injection")]
            crash: None,
        }
    }
}
