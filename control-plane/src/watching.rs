//! Watches: what was stored is sent as it arrives. A watcher holds a position in the store and nothing else, so it costs the same
//! however slowly its caller reads; one that takes nothing for long is told so and ended.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};
use tracing::Instrument as _;

use crate::error::Failure;
use crate::shared::Shared;
use crate::store::{OutcomeRow, StoreError, Transaction};

/// Rows read at once for a watcher.
const BATCH: i64 = 100;
/// Messages that wait for a watcher that reads slowly; the others stay in the store.
const AHEAD: usize = 16;
/// How often a watcher looks when nothing wakes it.
const EVERY: Duration = Duration::from_secs(5);

/// What a watcher gets.
pub(crate) type Watched<M> = ReceiverStream<Result<M, Status>>;

/// What is watched.
pub(crate) trait Feed: Send + Sync + 'static {
    /// As it is sent.
    type Message: Send + 'static;

    /// What came after the position `after`, in order; each row carries its position.
    fn read(
        &self,
        tx: &mut Transaction,
        after: i64,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<OutcomeRow>, StoreError>> + Send;

    /// One row as it is sent.
    fn message(&self, shared: &Shared, row: &OutcomeRow) -> Result<Self::Message, Failure>;
}

/// One caller who watches.
pub(crate) struct Watcher<F> {
    shared: Arc<Shared>,
    wake: tokio::sync::watch::Receiver<()>,
    /// The id of the workspace.
    workspace: String,
    position: i64,
    feed: F,
}

impl<F: Feed> Watcher<F> {
    /// A watcher of the workspace with this id. Make it before the position is read, so that nothing is missed between.
    pub(crate) fn new(shared: Arc<Shared>, workspace: String, feed: F) -> Self {
        let wake = shared.outcomes.subscribe();
        Self { shared, wake, workspace, position: 0, feed }
    }

    /// Sends what comes after `position` until the caller, the workspace or the server is gone.
    ///
    /// # Errors
    /// All places for streams are taken.
    pub(crate) fn start(mut self, position: i64) -> Result<Response<Watched<F::Message>>, Failure> {
        self.position = position;
        let place = self.shared.stream_place()?;
        let patience = self.shared.settings.limits.watcher_patience;
        let (out, messages) = mpsc::channel(AHEAD);
        let work = async move {
            if let Err(failure) = self.run(&out).await {
                // Who reads nothing cannot be told for ever.
                let _ = tokio::time::timeout(patience, out.send(Err(failure.into()))).await;
            }
            drop(place);
        };
        tokio::spawn(work.in_current_span());
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn run(mut self, out: &mpsc::Sender<Result<F::Message, Status>>) -> Result<(), Failure> {
        let stop = self.shared.stop.clone();
        let patience = self.shared.settings.limits.watcher_patience;
        loop {
            let rows = self.read().await?;
            let more = i64::try_from(rows.len()).is_ok_and(|read| read == BATCH);
            for row in rows {
                let message = self.feed.message(&self.shared, &row)?;
                tokio::select! {
                    () = stop.cancelled() => return Err(Failure::Stopping),
                    sent = tokio::time::timeout(patience, out.send(Ok(message))) => match sent {
                        Ok(Ok(())) => {}
                        Ok(Err(_gone)) => return Ok(()),
                        Err(_late) => return Err(Failure::WatcherTooSlow(patience)),
                    },
                }
                self.position = row.sequence;
            }
            if !more {
                tokio::select! {
                    () = stop.cancelled() => return Err(Failure::Stopping),
                    () = out.closed() => return Ok(()),
                    _ = self.wake.changed() => {}
                    () = tokio::time::sleep(EVERY) => {}
                }
            }
        }
    }

    async fn read(&mut self) -> Result<Vec<OutcomeRow>, Failure> {
        let mut tx = self.shared.store.read().await?;
        if tx.workspace(&self.workspace).await?.is_none() {
            return Err(Failure::NotFound(crate::names::workspace_name(&self.workspace)));
        }
        Ok(self.feed.read(&mut tx, self.position, BATCH).await?)
    }
}
