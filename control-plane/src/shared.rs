//! What every service of one control plane works with.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::contract::Contract;
use crate::data_planes::Registry;
use crate::error::Failure;
use crate::secrets::Secrets;
use crate::settings::Settings;
use crate::snapshots::Snapshots;
use crate::store::Store;

/// The parts of a running control plane.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) snapshots: Snapshots,
    pub(crate) data_planes: Registry,
    pub(crate) contract: Contract,
    /// Moves when outcomes were stored; carries nothing but the wake-up.
    pub(crate) outcomes: watch::Sender<()>,
    /// Moves when an operation was started, cancelled or has moved on.
    pub(crate) operations: watch::Sender<()>,
    /// Moves when a capture was started, taken or cancelled.
    pub(crate) captures: watch::Sender<()>,
    /// The name of this store.
    pub(crate) epoch: String,
    /// Ends every stream.
    pub(crate) stop: CancellationToken,
    /// Places for streams.
    streams: Arc<Semaphore>,
    /// Ends the tasks when everything else is gone.
    _end: DropGuard,
}

impl Shared {
    pub(crate) fn new(
        settings: Settings,
        store: Store,
        secrets: Arc<Secrets>,
        snapshots: Snapshots,
        epoch: String,
        stop: CancellationToken,
    ) -> Self {
        let streams = Arc::new(Semaphore::new(settings.limits.streams));
        let ((outcomes, _), (operations, _)) = (watch::channel(()), watch::channel(()));
        Self {
            settings,
            store,
            secrets,
            snapshots,
            data_planes: Registry::default(),
            contract: Contract::new(),
            outcomes,
            operations,
            captures: watch::Sender::new(()),
            epoch,
            _end: stop.clone().drop_guard(),
            stop,
            streams,
        }
    }

    /// A place for a stream, given back when dropped.
    ///
    /// # Errors
    /// All are taken.
    pub(crate) fn stream_place(&self) -> Result<OwnedSemaphorePermit, Failure> {
        self.streams.clone().try_acquire_owned().map_err(|_| Failure::Overloaded("streams"))
    }
}
