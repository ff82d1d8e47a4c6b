//! Watches: what was stored is sent as it arrives. A watcher holds a position in the store and nothing else, so it costs the same
//! however slowly its caller reads; one that takes nothing for long is told so and ended.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
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
pub(crate) const EVERY: Duration = Duration::from_secs(5);

/// What a watcher gets.
pub(crate) type Watched<M> = BoxStream<'static, Result<M, Status>>;

/// Where messages to a watcher go.
pub(crate) struct Out<M> {
    messages: mpsc::Sender<M>,
    patience: Duration,
    stop: CancellationToken,
}

impl<M> Out<M> {
    /// Hands a message over. Whether the caller is still there.
    ///
    /// # Errors
    /// The caller takes nothing for too long, or the server stops.
    pub(crate) async fn send(&self, message: M) -> Result<bool, Failure> {
        tokio::select! {
            () = self.stop.cancelled() => Err(Failure::Stopping),
            sent = tokio::time::timeout(self.patience, self.messages.send(message)) => match sent {
                Ok(sent) => Ok(sent.is_ok()),
                Err(_late) => Err(Failure::WatcherTooSlow(self.patience)),
            },
        }
    }

    /// Resolves when the caller is gone.
    pub(crate) async fn closed(&self) {
        self.messages.closed().await;
    }
}

/// Runs `work` in a place for streams; at most `ahead` of its messages wait for the caller. What it fails with ends the stream: the
/// caller is told whenever it reads on, and nothing waits for that.
///
/// # Errors
/// All places for streams are taken.
pub(crate) fn watched<M, W>(
    shared: &Shared,
    ahead: usize,
    work: impl FnOnce(Out<M>) -> W,
) -> Result<Response<Watched<M>>, Failure>
where
    M: Send + 'static,
    W: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let place = shared.stream_place()?;
    let (sender, messages) = mpsc::channel(ahead);
    let (end, failed) = oneshot::channel::<Status>();
    let patience = shared.settings.limits.watcher_patience;
    let work = work(Out { messages: sender, patience, stop: shared.stop.clone() });
    let work = async move {
        if let Err(failure) = work.await {
            // Nobody is told when the caller is gone.
            let _ = end.send(failure.into());
        }
        drop(place);
    };
    tokio::spawn(work.in_current_span());
    let last = stream::once(failed).filter_map(async |failed| failed.ok().map(Err));
    Ok(Response::new(ReceiverStream::new(messages).map(Ok).chain(last).boxed()))
}

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
        let wake = shared.wakes.outcomes();
        Self { shared, wake, workspace, position: 0, feed }
    }

    /// Sends what comes after `position` until the caller, the workspace or the server is gone.
    ///
    /// # Errors
    /// All places for streams are taken.
    pub(crate) fn start(mut self, position: i64) -> Result<Response<Watched<F::Message>>, Failure> {
        self.position = position;
        let shared = self.shared.clone();
        watched(&shared, AHEAD, |out| self.run(out))
    }

    async fn run(mut self, out: Out<F::Message>) -> Result<(), Failure> {
        let stop = self.shared.stop.clone();
        loop {
            let rows = self.read().await?;
            let more = i64::try_from(rows.len()).is_ok_and(|read| read == BATCH);
            for row in rows {
                if !out.send(self.feed.message(&self.shared, &row)?).await? {
                    return Ok(());
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
