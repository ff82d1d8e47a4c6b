//! The durable heart: what a trigger was promised lives here until it ends in exactly one way (I1, I2, I3).
//!
//! Hides where jobs, dedup keys and outcomes are kept, how several requests share one fsync, and how the right to work
//! on a job is handed out, renewed, lost and fenced. Callers see a closed enum of backends with one meaning:
//!
//! - **A job is in exactly one of** *ready* (may be leased), *leased* (somebody works on it), *delayed* (waits for a
//!   time) and *dead* (gave up, kept for a while); a job that is done is gone, and its report waits in the outbox.
//! - **Durable before answered.** `Ok` means flushed to disk. [`Unavailable`] means that nothing may be relied on: it
//!   was rolled back, or whether it happened is unknown, and repeating it is safe.
//! - **Accepting is one step.** Jobs first, then the key, together or not at all. It is idempotent on
//!   [`Accept::request`]: a repeated request is [`Accepted::Accepted`] again and enqueues nothing twice, for as long as
//!   its key is remembered, or [`REQUEST_MEMORY`] without a key.
//! - **A lease is a time-limited right**, named by a [`Fence`]. Who comes late is [`LeaseError::Fenced`]. A lease that runs out
//!   (the worker hung or died) makes the job ready again, marked ambiguous when an attempt was begun (I3); after more
//!   than [`MAX_LEASES`] leases in a row that ended without a word the job is handed out marked poisoned, so that the
//!   worker buries it with a report like any other.
//! - **Jobs wait in flows** ([`Flow`]): [`Inbox::waiting`] tells how many are ready in each, [`Inbox::lease`] takes what its
//!   caller grants. Who is next, and who may not be sent to now, is decided outside ([`crate::dispatch`]).
//! - **Idle costs nothing**: nothing is polled; what becomes ready with time does so at a computed moment.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use uuid::Uuid;

use crate::clock::UnixMillis;

mod board;
mod embedded;
#[cfg(feature = "fault-injection")]
mod fault;
mod flow;
mod fresh;
mod ledger;
mod life;
mod pace;
mod redis;
mod settings;
#[cfg(test)]
mod suite;

pub use embedded::{Embedded, EmbeddedSettings, OpenError};
#[cfg(feature = "fault-injection")]
pub use fault::Fault;
pub use flow::{Flow, FlowId, Grant, HEADS, News, Waiting};
pub use ledger::{Given, Ledger, Short, Unused, Wanted};
pub use redis::{Durability, Redis, RedisOpenError, RedisSettings, Unfit};
pub use settings::{InboxSettings, NotOpened};

/// How many leases in a row may end without a word (crash, hang) before a job is handed out as poisoned. The first lease of a job may
/// be given before the store knows of it: it is not counted if the process ends before an attempt has begun.
pub const MAX_LEASES: u32 = 5;

/// How long a request without a key is remembered, so that a lost reply can be repeated without enqueuing twice.
pub const REQUEST_MEMORY: Duration = Duration::from_secs(15 * 60);

/// The most jobs one [`Inbox::lease`] gives, however many are granted.
pub const LEASE_LIMIT: usize = 1_000;

/// A separate queue with its own workers: bulk can never delay realtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Answers a person or a system that waits.
    Realtime,
    /// Large amounts without hurry.
    Bulk,
}

impl Lane {
    /// Every lane.
    pub const ALL: [Self; 2] = [Self::Realtime, Self::Bulk];

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Realtime => 0,
            Self::Bulk => 1,
        }
    }
}

/// Of so many jobs as a queue may hold, how many may be in [`Lane::Bulk`]: the rest is kept free for what is done in real time (R126).
fn bulk_share(max_jobs: u64) -> u64 {
    max_jobs.saturating_mul(3).div_ceil(4)
}

/// One piece of work to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// Made by the caller and never used for another job; also the `Idempotency-Key` of the delivery.
    pub id: Uuid,
    /// Whose workers do it.
    pub lane: Lane,
    /// With what it waits.
    pub flow: Arc<Flow>,
    /// What the worker needs; opaque here, free of secrets (I7).
    pub payload: Bytes,
}

/// The dedup key a request takes, and for how long (D05).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// A digest, of which a backend may keep any half; must already bind the workspace and the integration (I10).
    pub key: [u8; 32],
    /// How long the key stays known after the last request that carried it.
    pub window: Duration,
}

/// What one incoming request asks to be kept, as one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// Made by the caller, one per incoming request; repeated unchanged when the reply was lost.
    pub request: Uuid,
    /// The dedup key, if the integration has one.
    pub claim: Option<Claim>,
    /// May be empty: then only the key is recorded.
    pub jobs: Vec<NewJob>,
}

/// How a request was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Kept, durably; also the answer to a repetition of the same request.
    Accepted,
    /// Another request took the key inside its window; the window starts anew (it slides, D05) and nothing is enqueued.
    Duplicate,
    /// The queue quota, or the share of it that the bulk lane may take, is reached: nothing is enqueued, nothing is claimed (D06).
    Full,
}

/// Which lease of which job: what a late worker lacks. The numbers belong to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fence {
    row: i64,
    epoch: i64,
}

impl Fence {
    /// Grows with every lease and every steering of the job: of two reports of one job, the one with the greater order is
    /// newer.
    pub fn order(self) -> i64 {
        self.epoch
    }
}

/// A job, and the right to work on it until the lease runs out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    /// The job.
    pub id: Uuid,
    /// Where it was queued.
    pub lane: Lane,
    /// With what it waited.
    pub flow: FlowId,
    /// As accepted.
    pub payload: Bytes,
    /// Finished attempts so far; 0 for a first attempt.
    pub attempt: u32,
    /// The bytes given to the first [`Inbox::begin`], or to the last [`Finish::Retry`] since; every later attempt sends
    /// the request they hold (D08).
    pub rendered: Option<Bytes>,
    /// An earlier attempt was begun and its outcome never recorded: the destination may have seen it (I3).
    pub ambiguous: bool,
    /// More than [`MAX_LEASES`] leases in a row ended without a word: do not work on it, finish it as
    /// [`Finish::Dead`] with reason `crash_loop`.
    pub poisoned: bool,
    /// Shown with every later call about this lease.
    pub fence: Fence,
    /// When it was accepted.
    pub accepted_at: UnixMillis,
}

/// What the end of an attempt leads to, kept in the same transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// For the outbox.
    pub told: Bytes,
    /// Further work, by the same rules as [`Accept::jobs`]. When the queue quota is reached it is not taken, and the log says so:
    /// an end must be recorded also then.
    pub jobs: Vec<NewJob>,
}

impl From<Bytes> for Report {
    fn from(told: Bytes) -> Self {
        Self { told, jobs: Vec::new() }
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Over (delivered, filtered out, skipped): the job is gone, the report waits in the outbox.
    Done {
        /// For the outbox.
        report: Report,
    },
    /// The attempt failed and is tried again.
    Retry {
        /// Not before; in the past means at once.
        due: UnixMillis,
        /// Takes the place of the bytes given to [`Inbox::begin`]: the same request, and what was learned of it so far.
        rendered: Bytes,
        /// For the outbox: how far it is.
        report: Report,
    },
    /// Given up: kept as dead until the retention is over.
    Dead {
        /// Why, for people and filters; free of secrets (I7).
        reason: String,
        /// As with [`Finish::Retry`], for an operator who has it tried again; `None` leaves what is there.
        rendered: Option<Bytes>,
        /// For the outbox.
        report: Report,
    },
}

impl Finish {
    fn report(&self) -> &Report {
        match self {
            Self::Done { report } | Self::Dead { report, .. } | Self::Retry { report, .. } => report,
        }
    }

    fn rendered(&self) -> Option<&Bytes> {
        match self {
            Self::Done { .. } => None,
            Self::Retry { rendered, .. } => Some(rendered),
            Self::Dead { rendered, .. } => rendered.as_ref(),
        }
    }

    /// How much it brings along.
    fn bytes(&self) -> usize {
        let report = self.report();
        report.told.len() + bytes_of(&report.jobs) + self.rendered().map_or(0, Bytes::len)
    }
}

fn bytes_of(jobs: &[NewJob]) -> usize {
    jobs.iter().map(|job| job.payload.len()).sum()
}

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// May be leased now.
    Ready,
    /// Somebody works on it.
    Leased,
    /// Waits for a time.
    Delayed,
    /// Given up and kept.
    Dead,
}

/// A job as it is kept, for an operator who asks for it by its id. It gives no right to work on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub place: Place,
    /// As accepted.
    pub payload: Bytes,
    /// As a lease would give it. While somebody works on it, what was begun may be missing.
    pub rendered: Option<Bytes>,
    /// Shown with [`Inbox::steer`]; the report made for it has an order of one more.
    pub fence: Fence,
    /// When it was accepted.
    pub accepted_at: UnixMillis,
}

/// A job that has had no attempt since it was accepted. Somebody may work on it by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waited {
    /// Grows in the order of acceptance.
    pub number: i64,
    /// Its id.
    pub id: Uuid,
    /// As accepted.
    pub payload: Bytes,
    /// Until when it waits; `None`: it may be leased.
    pub due: Option<UnixMillis>,
    /// A report with this order is older than any of its attempts.
    pub order: i64,
    /// When it was accepted.
    pub accepted_at: UnixMillis,
}

/// What an operator wants of a job that nobody works on. Its report tells of it, in the same transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steer {
    /// A delayed or dead job is due now; what was learned of it stays, and attempts are counted on.
    Retry {
        /// For the outbox.
        report: Bytes,
    },
    /// A ready or delayed job is over: it is gone.
    Cancel {
        /// For the outbox.
        report: Bytes,
    },
}

impl Steer {
    fn report(&self) -> &Bytes {
        match self {
            Self::Retry { report } | Self::Cancel { report } => report,
        }
    }
}

/// How many jobs a lane holds, each job counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// May be leased now.
    pub ready: u64,
    /// Being worked on. A lease that ran out counts here for a moment longer.
    pub leased: u64,
    /// Waiting for a time. A job whose time has come counts here for a moment longer.
    pub delayed: u64,
    /// Given up and kept.
    pub dead: u64,
    /// How long the longest waiting ready job has been ready, in milliseconds; 0 when none is.
    pub oldest_ready_ms: u64,
}

/// What the inbox holds; a shared store, for all who share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Lane `realtime`.
    pub realtime: LaneStats,
    /// Lane `bulk`.
    pub bulk: LaneStats,
    /// Reports not yet trimmed; of a shared store, those of this plane.
    pub outbox: u64,
    /// How often a shared store turned out to be another one than before, or an older state of it (ST6): what it had accepted may
    /// be lost. An embedded one does not open at all then.
    pub store_losses: u64,
}

/// The inbox cannot keep or give anything now: its disk is full, it was closed, or it failed (see [`Inbox::failed`]).
/// The caller's answer is 503 with `Retry-After` (D06); the cause is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the inbox is unavailable")]
pub struct Unavailable;

/// Why a step of a lease was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LeaseError {
    /// The lease is no longer the caller's: it ran out and the job was leased again, or the job was finished. Nothing
    /// changed; drop the work.
    #[error("the lease is over: the job was finished or leased again")]
    Fenced,
    /// See [`Unavailable`].
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// The durable inbox; cheap to clone, every clone is the same inbox.
#[derive(Clone, Debug)]
pub enum Inbox {
    /// SQLite in this process, on its own file.
    Embedded(Embedded),
    /// A Redis that several processes share.
    Redis(Redis),
}

impl Inbox {
    /// The limits that all planes keep together in the store they share, if they do.
    pub fn ledger(&self) -> Option<Ledger> {
        match self {
            Self::Embedded(_) => None,
            Self::Redis(inbox) => inbox.ledger(),
        }
    }

    /// Keeps a request: one atomic, durable step (I1, I2).
    ///
    /// # Errors
    /// [`Unavailable`]; repeat with the same [`Accept::request`] or answer 503.
    pub async fn accept(&self, accept: Accept) -> Result<Accepted, Unavailable> {
        match self {
            Self::Embedded(inbox) => inbox.accept(accept).await,
            Self::Redis(inbox) => inbox.accept(accept).await,
        }
    }

    /// Takes the right to work on what is granted, at most [`LEASE_LIMIT`] jobs: fewer than granted when fewer are ready, or
    /// when they are very large.
    /// What is leased is held in memory: grant as many as there are workers.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn lease(&self, grants: Vec<Grant>) -> Result<Vec<Leased>, Unavailable> {
        match self {
            Self::Embedded(inbox) => inbox.lease(grants).await,
            Self::Redis(inbox) => inbox.lease(grants).await,
        }
    }

    /// Starts the time of these leases anew; call it every third of the lease. Answers the jobs whose lease is lost.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn renew(&self, leases: &[(Uuid, Fence)]) -> Result<Vec<Uuid>, Unavailable> {
        match self {
            Self::Embedded(inbox) => inbox.renew(leases).await,
            Self::Redis(inbox) => inbox.renew(leases).await,
        }
    }

    /// Records durably that an attempt starts, before its first byte is sent (I3). The first call keeps the bytes of the
    /// job; later ones leave them as they are (D08).
    ///
    /// # Errors
    /// [`LeaseError`]; on either, do not send.
    pub async fn begin(&self, id: Uuid, fence: Fence, rendered: Bytes) -> Result<(), LeaseError> {
        match self {
            Self::Embedded(inbox) => inbox.begin(id, fence, rendered).await,
            Self::Redis(inbox) => inbox.begin(id, fence, rendered).await,
        }
    }

    /// Ends the lease with an outcome: job and report change in one transaction.
    ///
    /// # Errors
    /// [`LeaseError`]; repeating after `Unavailable` is safe and answers `Fenced` if the first did succeed.
    pub async fn finish(&self, id: Uuid, fence: Fence, finish: Finish) -> Result<(), LeaseError> {
        match self {
            Self::Embedded(inbox) => inbox.finish(id, fence, finish).await,
            Self::Redis(inbox) => inbox.finish(id, fence, finish).await,
        }
    }

    /// Gives the job back without using an attempt, not to be leased before `due` (in the past: at once, which
    /// releases it). Says that nothing was sent under this lease; an older ambiguity stays.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn postpone(&self, id: Uuid, fence: Fence, due: UnixMillis) -> Result<(), LeaseError> {
        match self {
            Self::Embedded(inbox) => inbox.postpone(id, fence, due).await,
            Self::Redis(inbox) => inbox.postpone(id, fence, due).await,
        }
    }

    /// The job with this id; `None` when it is not kept (any more).
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn find(&self, id: Uuid) -> Result<Option<Found>, Unavailable> {
        match self {
            Self::Embedded(inbox) => inbox.find(id).await,
            Self::Redis(inbox) => inbox.find(id).await,
        }
    }

    /// Jobs that were accepted before `accepted_before` and have had no attempt, those after the number `after`, in its order: at most
    /// `max_rows`, and no more than fit in `max_bytes`, but at least one if there is one.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn waited(
        &self,
        after: i64,
        accepted_before: UnixMillis,
        max_rows: u32,
        max_bytes: usize,
    ) -> Result<Vec<Waited>, Unavailable> {
        match self {
            Self::Embedded(inbox) => inbox.waited(after, accepted_before, max_rows, max_bytes).await,
            Self::Redis(inbox) => inbox.waited(after, accepted_before, max_rows, max_bytes).await,
        }
    }

    /// Changes a job that [`Inbox::find`] has found, as long as nothing happened to it since: job and report change in one
    /// transaction, and its fence moves on.
    ///
    /// # Errors
    /// [`LeaseError::Fenced`]: it was leased, steered or finished in between, or is not where this can be done: find it
    /// again. [`Unavailable`]: whether it happened is unknown; finding it again tells.
    pub async fn steer(&self, id: Uuid, fence: Fence, steer: Steer) -> Result<(), LeaseError> {
        match self {
            Self::Embedded(inbox) => inbox.steer(id, fence, steer).await,
            Self::Redis(inbox) => inbox.steer(id, fence, steer).await,
        }
    }

    /// Reports with a number above `after_seq`, in the order of their numbers, without gaps: at most `max_rows`, and
    /// no more than fit in `max_bytes`, but at least one if there is one.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn outbox_read(
        &self,
        after_seq: i64,
        max_rows: u32,
        max_bytes: usize,
    ) -> Result<Vec<(i64, Bytes)>, Unavailable> {
        match self {
            Self::Embedded(inbox) => inbox.outbox_read(after_seq, max_rows, max_bytes).await,
            Self::Redis(inbox) => inbox.outbox_read(after_seq, max_rows, max_bytes).await,
        }
    }

    /// Forgets the reports up to and including `up_to_seq`: they were acknowledged. Numbers are never used again.
    ///
    /// # Errors
    /// [`Unavailable`]; some may have been forgotten, repeating is safe.
    pub async fn outbox_trim(&self, up_to_seq: i64) -> Result<(), Unavailable> {
        match self {
            Self::Embedded(inbox) => inbox.outbox_trim(up_to_seq).await,
            Self::Redis(inbox) => inbox.outbox_trim(up_to_seq).await,
        }
    }

    /// Resolves when flows of a lane changed after `since` (0: from the beginning) and tells them: something became ready,
    /// with an accept, in time, or by a lease that ran out; or something was leased.
    ///
    /// # Errors
    /// [`Unavailable`]: closed or failed, nothing will come.
    pub async fn waiting(&self, lane: Lane, since: u64) -> Result<News, Unavailable> {
        match self {
            Self::Embedded(inbox) => inbox.waiting(lane, since).await,
            Self::Redis(inbox) => inbox.waiting(lane, since).await,
        }
    }

    /// Resolves when a report with a number above `after_seq` waits.
    ///
    /// # Errors
    /// [`Unavailable`]: closed or failed, nothing will come.
    pub async fn wait_outbox(&self, after_seq: i64) -> Result<(), Unavailable> {
        match self {
            Self::Embedded(inbox) => inbox.wait_outbox(after_seq).await,
            Self::Redis(inbox) => inbox.wait_outbox(after_seq).await,
        }
    }

    /// What the inbox holds.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn stats(&self) -> Result<Stats, Unavailable> {
        match self {
            Self::Embedded(inbox) => inbox.stats().await,
            Self::Redis(inbox) => inbox.stats().await,
        }
    }

    /// Resolves, with the reason for the log, when the inbox can no longer keep its promise; the process must exit
    /// non-zero. Never resolves otherwise, not even after [`Inbox::close`].
    pub async fn failed(&self) -> String {
        match self {
            Self::Embedded(inbox) => inbox.failed().await,
            Self::Redis(inbox) => inbox.failed().await,
        }
    }

    /// Finishes what was asked before, then lets go of the store. Every later call is [`Unavailable`].
    pub async fn close(&self) {
        match self {
            Self::Embedded(inbox) => inbox.close().await,
            Self::Redis(inbox) => inbox.close().await,
        }
    }
}
