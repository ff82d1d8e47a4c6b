//! Where traffic runs: triggers in, deliveries out. Stateless but for its inbox and the last good configuration.
//!
//! The caller brings the sockets and the stop signal; [`start`] builds the parts in reading order and starts eight loops:
//!
//! | Loop | Module |
//! |---|---|
//! | take requests, keep them, answer 200 or 204 | [`ingress`] → [`trigger`] (spine 1) → [`inbox`] |
//! | decide what is next, lease it, send it, record what came of it; one for each lane | [`worker`] → [`dispatch`] → [`delivery`] (spine 2) |
//! | follow the control plane's configuration, do its commands | [`sync`] → [`runtime`], [`commands`], [`trial`] |
//! | take events that callers submit | [`sync`] → [`commands`] → [`submitted`] → [`inbox`] |
//! | renew the certificate that the control plane knows it by | [`identity`] |
//! | report outcomes, and what waits long | [`report`], [`waiting`] |
//! | health and numbers | [`admin`] |

pub mod admin;
pub mod applying;
pub mod aside;
mod beat;
pub mod captures;
pub mod chain;
pub mod clock;
pub mod commands;
pub mod compiling;
mod crash;
pub mod credentials;
pub mod delivery;
pub mod dispatch;
pub mod drain;
mod exchange;
pub mod fleet;
pub mod identity;
pub mod inbox;
pub mod ingress;
pub mod intake;
pub mod key_uses;
pub mod last_good;
pub mod link;
pub mod login;
pub mod metrics;
pub mod objection;
pub mod outcome;
pub mod plane;
pub mod rejection;
pub mod report;
pub mod requests_told;
pub mod retry;
pub mod ring;
pub mod runtime;
pub mod senders;
pub mod settings;
pub mod submitted;
pub mod sync;
pub mod trial;
pub mod trigger;
pub mod waiting;
pub mod worker;

use std::path::PathBuf;
use std::time::Duration;

use sluice_core::failed_keys::FailedKeys;
use sluice_core::seal::{KeyRingError, Secret};
use sluice_egress::Egress;
use sluice_tls::{Acceptor, Certificates, Tls};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use applying::Applying;
use captures::Captures;
use clock::Clock;
use compiling::Compilations;
pub use crash::Moment;
use credentials::Tokens;
use dispatch::Dispatch;
use drain::Drain;
use fleet::Fleet;
use identity::{IdentityError, Keeper};
use inbox::{Inbox, Lane};
use key_uses::KeyUses;
use last_good::LastGoodStore;
use link::{Address, Link, LinkError};
use metrics::Metrics;
use plane::{Parts, Plane};
use ring::Ring;
use runtime::Served;
pub use settings::{Admission, IngressSettings, Settings};
use sync::Asked;
use trial::Tests;

/// How long requests in work may take when the plane stops.
const INGRESS_DRAIN_MAX: Duration = Duration::from_secs(10);

/// The sockets a data plane listens on.
#[derive(Debug)]
pub struct Listeners {
    /// Triggers.
    pub ingress: TcpListener,
    /// Health, readiness and numbers.
    pub admin: TcpListener,
}

/// Why a data plane does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("{what} {path}: {source}")]
    File {
        /// What it is.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The master key file breaks its format.
    #[error("the master key file: {0}")]
    MasterKeys(#[from] KeyRingError),
    /// The inbox could not be opened.
    #[error(transparent)]
    Inbox(#[from] inbox::NotOpened),
    /// The way out is not set up right.
    #[error("egress settings: {0}")]
    Egress(#[from] sluice_egress::SettingsError),
    /// What holds for destinations is not set up right.
    #[error(transparent)]
    Dispatch(#[from] dispatch::SettingsError),
    /// This data plane cannot show who it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] sluice_tls::Error),
    /// The control plane cannot be reached like this.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The inbox can no longer keep its promise (I1): the process must end.
    #[error("the inbox failed, nothing more is acknowledged: {0}")]
    InboxFailed(String),
}

/// A running data plane.
#[derive(Debug)]
pub struct DataPlane {
    plane: Plane,
    ended: JoinHandle<Result<(), Error>>,
}

impl DataPlane {
    /// The parts, for who runs in the same process: what is served, how many jobs there are.
    pub fn plane(&self) -> &Plane {
        &self.plane
    }

    /// Waits for the end: after the stop signal, the lame-duck time and the drain, or when the inbox failed.
    pub async fn wait(self) -> Result<(), Error> {
        match self.ended.await {
            Ok(ended) => ended,
            Err(error) => Err(Error::InboxFailed(format!("a part of the data plane ended: {error}"))),
        }
    }
}

/// Starts a data plane on these sockets. It runs until `shutdown`.
pub async fn start(settings: Settings, listeners: Listeners, shutdown: CancellationToken) -> Result<DataPlane, Error> {
    let ring = Ring::open(&settings.master_key_file)?;
    settings.dispatch.check()?;
    let link = link(&settings, &shutdown).await?;
    let egress = Egress::new(settings.egress.clone())?;
    let last_good = settings.data_dir.join("last-good");
    let applying = last_good.join("applying");
    let unusable = |what, path| move |source| Error::File { what, path, source };
    let last_good = LastGoodStore::open(&last_good).map_err(unusable("the last good folder", last_good))?;
    let applying = Applying::open(&applying).map_err(unusable("the folder of what is being applied", applying))?;
    let clock = settings.clock.clone();
    let inbox = Inbox::open(settings.inbox.clone().of_installation(ring.marks()), clock.clone()).await?;
    let fleet = Fleet::open(&settings.data_dir, inbox.ledger());
    let tokens = Tokens::new(clock.clone());
    let (metrics, workers) = (Metrics::default(), settings.workers);
    let places = [workers.realtime, workers.bulk];
    let dispatch = Dispatch::new(settings.dispatch, places, clock.clone(), fleet.clone(), metrics.breaker_changes());
    let plane = Plane::new(Parts {
        urls: egress.url_policy().clone(),
        settings,
        clock,
        ring,
        served: Served::default(),
        failed_logins: FailedKeys::default(),
        key_uses: KeyUses::default(),
        captures: Captures::default(),
        tests: Tests::default(),
        asked: Asked::default(),
        last_good,
        applying,
        inbox,
        fleet,
        dispatch,
        compilations: Compilations::default(),
        drain: Drain::default(),
        egress,
        tokens,
        requests_told: requests_told::RequestsTold::default(),
        metrics,
    });
    let doors = Doors { ingress: ingress(&plane, listeners.ingress, &shutdown).await?, admin: listeners.admin };
    compiling::load_last_good(&plane).await;
    let ended = tokio::spawn(run(plane.clone(), link, doors, shutdown));
    Ok(DataPlane { plane, ended })
}

/// Where requests come in, encrypted as the settings say.
struct Doors {
    ingress: Acceptor,
    admin: TcpListener,
}

/// The line to the control plane. Who has no certificate yet waits here until it has joined.
async fn link(settings: &Settings, stop: &CancellationToken) -> Result<Link, Error> {
    let url = &settings.control_plane_url;
    let address = Address::parse(url, settings.pings)?;
    match &settings.admission {
        Admission::Key(_) if address.is_encrypted() => Err(LinkError::Encrypted(url.clone()).into()),
        Admission::Certificate { .. } if !address.is_encrypted() => Err(LinkError::Plaintext(url.clone()).into()),
        Admission::Key(path) => {
            let what = "the data-plane key file";
            let key = std::fs::read_to_string(path).map(Secret::new);
            let key = key.map_err(|source| Error::File { what, path: path.clone(), source })?;
            Ok(Link::with_key(address, &key)?)
        }
        Admission::Certificate { join_token_file } => {
            let (folder, id, clock) = (&settings.data_dir, &settings.data_plane_id, &settings.clock);
            let token = join_token_file.as_deref();
            let keeper = Keeper::open(address.clone(), folder, id, token, clock, stop).await?;
            Ok(Link::with_certificate(address, keeper))
        }
    }
}

/// The door for triggers.
async fn ingress(plane: &Plane, listener: TcpListener, stop: &CancellationToken) -> Result<Acceptor, Error> {
    let IngressSettings { tls, handshakes, .. } = &plane.settings.ingress;
    let Some(files) = tls else { return Ok(Acceptor::new(listener, None)) };
    let observer = plane.metrics.tls();
    let certificates = Certificates::follow(files.clone(), observer.clone(), stop.clone()).await?;
    let tls = Tls::new(certificates, *handshakes, observer, time(&plane.clock))?;
    Ok(Acceptor::new(listener, Some(tls)))
}

/// The time that certificates are checked with.
pub(crate) fn time(clock: &Clock) -> sluice_tls::Time {
    let clock = clock.clone();
    sluice_tls::Time::new(move || clock.now())
}

/// Resolves a while after `shutdown`: meanwhile everything goes on, but no balancer that asks whether it is ready sends anybody here.
async fn turned_away(plane: &Plane, shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    plane.drain.stop();
    tokio::time::sleep(plane.settings.lame_duck).await;
}

/// Runs the loops, and ends them in the order that loses nothing: first nobody new is sent here, then no more requests, then no more
/// sends, then reports.
async fn run(plane: Plane, link: Link, doors: Doors, shutdown: CancellationToken) -> Result<(), Error> {
    let drain = plane.settings.drain;
    let (stop, late) = (CancellationToken::new(), CancellationToken::new());
    let sync = tokio::spawn(sync::follow(plane.clone(), link.clone(), stop.clone()));
    let taking = ingress::serve(plane.clone(), doors.ingress, stop.clone(), drain.min(INGRESS_DRAIN_MAX));
    let asked = plane.clone();
    let ingress = tokio::spawn(async move {
        asked.asked.once().await;
        taking.await;
    });
    let lane = |lane| tokio::spawn(worker::run(plane.clone(), lane, stop.clone(), drain));
    let (realtime, bulk) = (lane(Lane::Realtime), lane(Lane::Bulk));
    let waiting = tokio::spawn(waiting::run(plane.clone(), link.clone(), stop.clone()));
    let keeper = link.keeper().cloned();
    let keeping = keeper.map(|keeper| tokio::spawn(keeper.keep(plane.clone(), stop.clone())));
    let report = tokio::spawn(report::run(plane.clone(), link, late.clone()));
    let admin = tokio::spawn(admin::serve(plane.clone(), doors.admin, shutdown.clone(), late.clone()));
    let failed = tokio::select! {
        () = turned_away(&plane, &shutdown) => None,
        reason = plane.inbox.failed() => Some(reason),
    };
    stop.cancel();
    if let Some(reason) = failed {
        // Nothing that is in memory can be kept any more: ending at once is the honest answer.
        shutdown.cancel();
        late.cancel();
        return Err(Error::InboxFailed(reason));
    }
    for part in [ingress, realtime, bulk, sync, waiting].into_iter().chain(keeping) {
        part.await.unwrap_or_else(|error| tracing::error!(%error, "a part of the data plane ended badly"));
    }
    late.cancel();
    for part in [report, admin] {
        part.await.unwrap_or_else(|error| tracing::error!(%error, "a part of the data plane ended badly"));
    }
    plane.inbox.close().await;
    Ok(())
}
