//! Work that is done again and again, in a task of its own: on a wake-up and on a timer. Whoever needs to know that it was done once more
//! since he asked can wait for that; one round answers all who asked before it began.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, watch};

/// What the task and those who wake it share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    wake: Notify,
    asked: AtomicU64,
    /// The newest question that was answered.
    answered: watch::Sender<u64>,
}

impl Rounds {
    /// There may be something to do.
    pub(crate) fn wake(&self) {
        self.0.wake.notify_one();
    }

    /// Waits until a whole round was made, or could not be; not at all when the task has ended.
    pub(crate) async fn fresh(&self) {
        let mine = self.0.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.wake();
        // The sender is here.
        let _ = self.0.answered.subscribe().wait_for(|answered| *answered >= mine).await;
    }

    /// Waits until the task has ended.
    pub(crate) async fn ended(&self) {
        // The sender is here.
        let _ = self.0.answered.subscribe().wait_for(|answered| *answered == u64::MAX).await;
    }

    /// Of the task: resolves when somebody wakes it.
    pub(crate) async fn woken(&self) {
        self.0.wake.notified().await;
    }

    /// Of the task: which questions the round that begins now answers.
    pub(crate) fn begin(&self) -> u64 {
        self.0.asked.load(Ordering::SeqCst)
    }

    /// Of the task: the round that began with this is over.
    pub(crate) fn done(&self, began: u64) {
        self.0.answered.send_replace(began);
    }

    /// Of the task: it ends, and nobody is to wait any more.
    pub(crate) fn end(&self) {
        self.done(u64::MAX);
    }
}
