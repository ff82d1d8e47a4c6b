//! Takes jobs of one lane while there is room, keeps their leases alive, and lets them finish when the plane stops.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::delivery::deliver;
use crate::inbox::{Fence, Lane, Leased};
use crate::plane::Plane;

/// Most jobs taken in one step.
const LEASE_MAX: usize = 64;

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
pub async fn run(plane: Plane, lane: Lane, places: usize, shutdown: CancellationToken, drain: Duration) {
    let room = Arc::new(Semaphore::new(places));
    let tasks = TaskTracker::new();
    let in_work = InWork::default();
    let stopped = CancellationToken::new();
    let renewing = tokio::spawn(renew(plane.clone(), in_work.clone(), stopped.clone()));
    let abort = CancellationToken::new();
    while let Some(leased) = next(&plane, lane, &room, &shutdown).await {
        for job in leased {
            let Ok(permit) = room.clone().try_acquire_owned() else { break };
            in_work.add(&job);
            let (plane, in_work, abort) = (plane.clone(), in_work.clone(), abort.clone());
            tasks.spawn(async move {
                let id = job.id;
                tokio::select! {
                    // What is cut off here is repeated after its lease, marked ambiguous if bytes may have left (I3).
                    () = abort.cancelled() => {}
                    () = deliver(&plane, job) => {}
                }
                in_work.remove(id);
                drop(permit);
            });
        }
    }
    tasks.close();
    if tokio::time::timeout(drain, tasks.wait()).await.is_err() {
        tracing::warn!(left = tasks.len(), "deliveries were still in work when the drain time was over");
        abort.cancel();
        tasks.wait().await;
    }
    stopped.cancel();
    // The task only ends by the token.
    let _ended = renewing.await;
}

/// The next jobs that fit; `None` when the plane stops or the inbox is gone.
async fn next(plane: &Plane, lane: Lane, room: &Semaphore, shutdown: &CancellationToken) -> Option<Vec<Leased>> {
    loop {
        let work = async {
            // Wait for a place before taking work: what is leased is worked on at once.
            drop(room.acquire().await);
            plane.inbox.wait(lane).await?;
            plane.inbox.lease(lane, room.available_permits().clamp(1, LEASE_MAX)).await
        };
        let leased = tokio::select! {
            biased;
            () = shutdown.cancelled() => return None,
            leased = work => leased,
        };
        match leased {
            Ok(leased) if leased.is_empty() => {}
            Ok(leased) => return Some(leased),
            Err(error) => {
                tracing::warn!(%error, ?lane, "no work can be taken");
                tokio::select! {
                    () = shutdown.cancelled() => return None,
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
            }
        }
    }
}

/// Renews every lease in work each third of its time.
async fn renew(plane: Plane, in_work: InWork, stopped: CancellationToken) {
    let every = plane.settings.inbox.lease / 3;
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
