//! What every service of one control plane works with.

use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use sluice_core::failed_keys::FailedKeys;
use sluice_tls::authority::Authority;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::contract::Contract;
use crate::data_planes::Registry;
use crate::error::Failure;
use crate::lead::Lead;
use crate::members::{self, Members};
use crate::metrics::Metrics;
use crate::replicas::Replicas;
use crate::secrets::Secrets;
use crate::settings::{Database, Settings};
use crate::snapshots::Snapshots;
use crate::store::{Store, StoreError};
use crate::trial::Tests;
use crate::wakes::{Topic, Wakes};

/// Groups of members of audiences that are under way at once.
const BATCH_GROUPS: usize = 16;

/// The parts of a running control plane.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) secrets: Arc<Secrets>,
    /// Vouches for data planes; `None` where TLS is off.
    pub(crate) authority: Option<Arc<Authority>>,
    /// Wrong keys and join tokens, by where they come from.
    pub(crate) failed_keys: FailedKeys,
    pub(crate) snapshots: Snapshots,
    pub(crate) data_planes: Registry,
    /// Which of them share limits.
    pub(crate) members: watch::Receiver<Members>,
    pub(crate) contract: Contract,
    pub(crate) metrics: Arc<Metrics>,
    /// Who waits for something in this process; [`Shared::tell`] wakes those of other control planes, too.
    pub(crate) wakes: Wakes,
    /// The other control planes of the database.
    pub(crate) replicas: Replicas,
    /// Who does what one control plane does for all.
    pub(crate) lead: Lead,
    /// Tests that are made.
    pub(crate) tests: Tests,
    /// How fast events may be submitted, by the id of the workspace.
    pub(crate) events: DefaultKeyedRateLimiter<String>,
    /// Groups of members of audiences that are under way, of all streams together: operators' commands and single events find room
    /// beside them.
    pub(crate) batch_groups: Semaphore,
    /// Ends every stream.
    pub(crate) stop: CancellationToken,
    /// Places for streams.
    streams: Arc<Semaphore>,
    /// How fast configuration streams may begin.
    starts: DefaultDirectRateLimiter,
    /// Ends the tasks when everything else is gone.
    _end: DropGuard,
}

impl Shared {
    pub(crate) fn new(
        settings: Settings,
        store: Store,
        secrets: Arc<Secrets>,
        snapshots: Snapshots,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Self {
        let streams = Arc::new(Semaphore::new(settings.limits.streams));
        let at_least_one = |rate| NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN);
        let starts = RateLimiter::direct(Quota::per_second(at_least_one(settings.limits.stream_starts_per_second)));
        let rate = at_least_one(settings.limits.events_per_second);
        let events = RateLimiter::keyed(Quota::per_second(rate).allow_burst(rate.saturating_add(rate.get())));
        let wakes = Wakes::new(snapshots.waker());
        let data_planes = match settings.database {
            Database::Sqlite(_) => Registry::default(),
            Database::Postgres(_) => Registry::telling(wakes.replicas.clone()),
        };
        Self {
            settings,
            store,
            secrets,
            authority: None,
            failed_keys: FailedKeys::default(),
            snapshots,
            members: members::watch(data_planes.clone(), stop.clone()),
            data_planes,
            contract: Contract::new(),
            metrics,
            wakes,
            replicas: Replicas::default(),
            lead: Lead::always(),
            tests: Tests::default(),
            events,
            batch_groups: Semaphore::new(BATCH_GROUPS),
            _end: stop.clone().drop_guard(),
            stop,
            streams,
            starts,
        }
    }

    /// Something has changed: wakes whoever waits for it, here and at other control planes.
    pub(crate) fn tell(&self, topic: Topic) {
        self.wakes.wake(topic);
        self.replicas.tell(topic);
    }

    /// Lets one more data plane begin its stream now.
    ///
    /// # Errors
    /// As many have begun in this second as may.
    pub(crate) fn begin_stream(&self) -> Result<(), Failure> {
        self.starts.check().map_err(|_not_yet| Failure::Overloaded("stream_starts_per_second"))
    }

    /// How many places for streams are taken.
    pub(crate) fn streams_taken(&self) -> usize {
        self.settings.limits.streams.saturating_sub(self.streams.available_permits())
    }

    /// Of how many workspaces data planes have served later revisions than the store holds.
    pub(crate) async fn workspaces_regressed(&self) -> Result<i64, StoreError> {
        self.store.read().await?.regressed_count().await
    }

    /// How many captures wait for a request.
    pub(crate) async fn captures_open(&self) -> Result<i64, StoreError> {
        self.store.read().await?.captures_open_count(self.settings.clock.now()).await
    }

    /// A place for a stream, given back when dropped.
    ///
    /// # Errors
    /// All are taken.
    pub(crate) fn stream_place(&self) -> Result<OwnedSemaphorePermit, Failure> {
        self.streams.clone().try_acquire_owned().map_err(|_| Failure::Overloaded("streams"))
    }
}
