//! Takes the jobs of one lane that may be sent, keeps their leases alive, and lets them finish when the plane stops.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::delivery::deliver;
use crate::dispatch::Permit;
use crate::inbox::{Fence, Lane, Leased, News, Unavailable};
use crate::plane::Plane;

/// The leases in work, so that one task can renew them together.
#[derive(Clone, Debug, Default)]
struct InWork(Arc<Mutex<HashMap<Uuid, Fence>>>);

impl InWork {
    fn add(&self, leased: &Leased) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(leased.id, leased.fence);
    }

    fn remove(&self, id: Uuid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    fn all(&self) -> Vec<(Uuid, Fence)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(id, fence)| (*id, *fence)).collect()
    }
}

/// Works on a lane until `shutdown`, then lets what is in work finish for at most `drain`.
pub async fn run(plane: Plane, lane: Lane, shutdown: CancellationToken, drain: Duration) {
    let tasks = TaskTracker::new();
    let in_work = InWork::default();
    let stopped = CancellationToken::new();
    let renewing = tokio::spawn(renew(plane.clone(), in_work.clone(), stopped.clone()));
    let abort = CancellationToken::new();
    let mut source = Source { plane: &plane, lane, heard: 0 };
    while let Some(leased) = source.next(&shutdown).await {
        for (job, permit) in leased {
            in_work.add(&job);
            let (plane, in_work, abort) = (plane.clone(), in_work.clone(), abort.clone());
            tasks.spawn(async move {
                let id = job.id;
                // On its own on the heap: tasks are aligned in a way that makes large ones expensive to allocate.
                let delivering = Box::pin(deliver(&plane, job, permit));
                tokio::select! {
                    // One that can end does; and a wish to stop need not be looked for before.
                    biased;
                    () = delivering => {}
                    // What is cut off here is repeated after its lease, marked ambiguous if bytes may have left (I3).
                    () = abort.cancelled() => {}
                }
                in_work.remove(id);
            });
        }
    }
    tasks.close();
    if tokio::time::timeout(drain, tasks.wait()).await.is_err() {
        tracing::warn!(left = tasks.len(), "deliveries were still in work when the drain time was over");
        abort.cancel();
        tasks.wait().await;
    }
    plane.dispatch.tell().await;
    stopped.cancel();
    // The task only ends by the token.
    let _ended = renewing.await;
}

/// Where the jobs of a lane come from.
struct Source<'a> {
    plane: &'a Plane,
    lane: Lane,
    /// The version of what the inbox told last.
    heard: u64,
}

impl Source<'_> {
    /// The next jobs that may be sent, as soon as there are some; `None` when the plane stops.
    async fn next(&mut self, shutdown: &CancellationToken) -> Option<Vec<(Leased, Permit)>> {
        loop {
            let taken = tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                taken = self.take() => taken,
            };
            match taken {
                Ok(leased) if leased.is_empty() => {}
                Ok(leased) => return Some(leased),
                Err(error) => {
                    tracing::warn!(%error, lane = ?self.lane, "no work can be taken");
                    tokio::select! {
                        () = shutdown.cancelled() => return None,
                        () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    }
                }
            }
        }
    }

    /// Takes what may be taken now, or waits until that may be more than nothing.
    async fn take(&mut self) -> Result<Vec<(Leased, Permit)>, Unavailable> {
        let (dispatch, inbox) = (&self.plane.dispatch, &self.plane.inbox);
        if let Some(news) = inbox.waiting(self.lane, self.heard).now_or_never() {
            self.hear(news?);
        }
        let taking = dispatch.plan(self.lane, &self.plane.served).await;
        let grants = taking.grants();
        if !grants.is_empty() {
            let leased = inbox.lease(grants).await?;
            return Ok(taking.give(leased));
        }
        let wake = async {
            match taking.wake_after() {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            news = inbox.waiting(self.lane, self.heard) => self.hear(news?),
            () = dispatch.changed(self.lane) => {}
            () = wake => {}
        }
        Ok(Vec::new())
    }

    fn hear(&mut self, news: News) {
        self.heard = news.version;
        self.plane.dispatch.update(self.lane, news.waiting, &self.plane.served);
    }
}

/// Renews every lease in work each third of its time.
async fn renew(plane: Plane, in_work: InWork, stopped: CancellationToken) {
    let every = plane.settings.inbox.lease() / 3;
    loop {
        tokio::select! {
            () = stopped.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let leases = in_work.all();
        if leases.is_empty() {
            continue;
        }
        match plane.inbox.renew(&leases).await {
            Ok(lost) if lost.is_empty() => {}
            Ok(lost) => tracing::warn!(lost = lost.len(), "leases were lost while working"),
            Err(error) => tracing::warn!(%error, "leases cannot be renewed"),
        }
    }
}
