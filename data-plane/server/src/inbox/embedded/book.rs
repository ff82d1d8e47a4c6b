//! What the committer knows without asking the file: counts, who holds which lease until when, the next due times.
//!
//! It is the single writer, so this is the truth as long as it follows every transaction: changes are made as
//! statements succeed, kept by [`Book::commit`] and undone by [`Book::rollback`]. That a lease is checked and renewed
//! here is what makes both cost no disk access.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use uuid::Uuid;

use super::super::{Fence, Grant, Lane, LaneStats, Place, Waiting};
use super::claims::Claims;
use super::flows::{FlowBook, ReadyJob};
use super::store::{Kept, Loaded};
use crate::clock::UnixMillis;

/// Jobs of one lane by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) ready: u64,
    pub(super) leased: u64,
    pub(super) delayed: u64,
    pub(super) dead: u64,
}

impl Counts {
    /// By the number a state has in the file.
    pub(super) fn set(&mut self, state: usize, number: u64) {
        let [ready, leased, delayed, dead] = [&mut self.ready, &mut self.leased, &mut self.delayed, &mut self.dead];
        if let Some(count) = [ready, leased, delayed, dead].into_iter().nth(state) {
            *count = number;
        }
    }

    pub(super) fn stats(self, oldest_ready_ms: u64) -> LaneStats {
        let Self { ready, leased, delayed, dead } = self;
        LaneStats { ready, leased, delayed, dead, oldest_ready_ms }
    }
}

/// Everything small; copied before each transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub(super) counts: [Counts; 2],
    pub(super) next_due: [Option<UnixMillis>; 2],
    pub(super) next_seq: i64,
    pub(super) next_step: i64,
    pub(super) outbox_last: i64,
    pub(super) outbox_trimmed: i64,
    pub(super) next_sweep: UnixMillis,
}

/// A lease in force.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) id: Uuid,
    pub(super) lane: Lane,
    pub(super) epoch: i64,
    pub(super) flow: i64,
    /// An attempt was finished before.
    pub(super) retry: bool,
    /// The file holds bytes of an earlier attempt.
    pub(super) rendered: bool,
    pub(super) accepted: UnixMillis,
    /// Which row of `work` names the lease.
    pub(super) step: i64,
    /// An attempt was begun: which row of `work` holds its bytes, and the bytes.
    pub(super) begun: Option<(i64, Bytes)>,
}

impl Held {
    /// The bytes that have to be written beside the job when it goes on: those of the first attempt, unless they are there.
    pub(super) fn unwritten(&self) -> Option<&Bytes> {
        self.begun.as_ref().filter(|_| !self.rendered).map(|(_, bytes)| bytes)
    }
}

#[derive(Debug)]
pub(super) struct Book {
    pub(super) numbers: Numbers,
    pub(super) flows: FlowBook,
    /// Keys that the file does not have in their place.
    pub(super) claims: Claims,
    saved: Numbers,
    leases: HashMap<i64, (Held, UnixMillis)>,
    /// The same leases by the time they run out.
    expiry: [BTreeSet<(UnixMillis, i64)>; 2],
    /// How many leases each row of `work` is needed for.
    steps: HashMap<i64, usize>,
    undo: Vec<(i64, Option<(Held, UnixMillis)>)>,
}

impl Book {
    /// Of a file without leases. The first sweep is due at once.
    pub(super) fn new(loaded: Loaded) -> Self {
        let numbers = Numbers {
            counts: loaded.counts,
            next_due: loaded.next_due,
            next_seq: loaded.next_seq,
            next_step: 1,
            outbox_last: loaded.outbox_last,
            outbox_trimmed: loaded.outbox_trimmed,
            next_sweep: UnixMillis::MIN,
        };
        Self {
            numbers,
            flows: FlowBook::new(loaded.flows),
            claims: loaded.claims,
            saved: numbers,
            leases: HashMap::new(),
            expiry: Default::default(),
            steps: HashMap::new(),
            undo: Vec::new(),
        }
    }

    /// Keeps everything, and answers which flows changed.
    pub(super) fn commit(&mut self) -> Vec<(Lane, Waiting)> {
        self.saved = self.numbers;
        self.undo.clear();
        self.claims.commit();
        self.flows.commit()
    }

    pub(super) fn rollback(&mut self) {
        self.numbers = self.saved;
        self.claims.rollback();
        self.flows.rollback();
        while let Some((seq, before)) = self.undo.pop() {
            self.put(seq, before);
        }
    }

    fn put(&mut self, seq: i64, lease: Option<(Held, UnixMillis)>) -> Option<(Held, UnixMillis)> {
        if let Some((held, until)) = &lease {
            self.expiry[held.lane.index()].insert((*until, seq));
            for step in steps(held) {
                *self.steps.entry(step).or_default() += 1;
            }
        }
        let (lane_until, before) = match lease {
            Some(lease) => (Some((lease.0.lane, lease.1)), self.leases.insert(seq, lease)),
            None => (None, self.leases.remove(&seq)),
        };
        if let Some((held, until)) = &before {
            if lane_until != Some((held.lane, *until)) {
                self.expiry[held.lane.index()].remove(&(*until, seq));
            }
            for step in steps(held) {
                if let Some(needed) = self.steps.get_mut(&step) {
                    *needed = needed.saturating_sub(1);
                }
            }
        }
        before
    }

    fn change(&mut self, seq: i64, lease: Option<(Held, UnixMillis)>) {
        let before = self.put(seq, lease);
        self.undo.push((seq, before));
    }

    /// The rows of `work` that nothing needs since this transaction.
    pub(super) fn steps_over(&self) -> Vec<i64> {
        let touched = self.undo.iter().filter_map(|(_, before)| before.as_ref()).flat_map(|(held, _)| steps(held));
        let mut over: Vec<i64> = touched.filter(|step| self.steps.get(step) == Some(&0)).collect();
        over.sort_unstable();
        over.dedup();
        over
    }

    /// Forgets them: they were removed.
    pub(super) fn forget_steps(&mut self, over: &[i64]) {
        for step in over {
            self.steps.remove(step);
        }
    }

    /// The lease this fence names, if it is still in force. One that ran out but was not yet given to another is.
    pub(super) fn held(&self, id: Uuid, fence: Fence) -> Option<&Held> {
        self.lease_of(fence.row).filter(|held| held.id == id && held.epoch == fence.epoch)
    }

    /// Whoever holds this job.
    pub(super) fn lease_of(&self, seq: i64) -> Option<&Held> {
        self.leases.get(&seq).map(|(held, _)| held)
    }

    pub(super) fn renew(&mut self, id: Uuid, fence: Fence, until: UnixMillis) -> bool {
        let held = self.held(id, fence).cloned();
        let holds = held.is_some();
        if let Some(held) = held {
            self.change(fence.row, Some((held, until)));
        }
        holds
    }

    /// An attempt begins under a lease; the first bytes stay.
    pub(super) fn begin(&mut self, seq: i64, step: i64, bytes: &Bytes) {
        if let Some((held, until)) = self.leases.get(&seq).cloned() {
            let begun = held.begun.clone().or_else(|| Some((step, bytes.clone())));
            self.change(seq, Some((Held { begun, ..held }, until)));
        }
    }

    /// A job became ready.
    pub(super) fn ready(&mut self, lane: Lane, flow: i64, retry: bool, job: ReadyJob) {
        self.counts(lane).ready += 1;
        self.flows.add(flow, retry, job);
    }

    /// Ready jobs that are granted, at most so many of each kind; they are to be leased.
    pub(super) fn grant(&mut self, grant: &Grant) -> Vec<ReadyJob> {
        let Some(lane) = self.flows.lane(grant.flow.0) else { return Vec::new() };
        let mut jobs = self.flows.take(grant, false, grant.first);
        jobs.extend(self.flows.take(grant, true, grant.retries));
        let counts = self.counts(lane);
        counts.ready = counts.ready.saturating_sub(jobs.len() as u64);
        jobs
    }

    /// A granted job is leased.
    pub(super) fn take(&mut self, seq: i64, held: Held, until: UnixMillis) {
        self.counts(held.lane).leased += 1;
        self.change(seq, Some((held, until)));
    }

    /// Ends a lease and answers it; the caller says what the job became.
    pub(super) fn end(&mut self, id: Uuid, fence: Fence) -> Option<Held> {
        let held = self.held(id, fence)?.clone();
        self.change(fence.row, None);
        let counts = self.counts(held.lane);
        counts.leased = counts.leased.saturating_sub(1);
        Some(held)
    }

    /// Ends a lease; the job is ready at once or delayed, as a retry if an attempt was `finished`. Nothing: not the caller's
    /// lease.
    pub(super) fn put_back(
        &mut self,
        id: Uuid,
        fence: Fence,
        (due, now): (UnixMillis, UnixMillis),
        finished: bool,
    ) -> Option<Held> {
        let held = self.end(id, fence)?;
        if due <= now {
            let job = ReadyJob { seq: fence.row, at: now, accepted: held.accepted };
            self.ready(held.lane, held.flow, held.retry || finished, job);
        } else {
            self.delay(held.lane, due);
        }
        Some(held)
    }

    fn delay(&mut self, lane: Lane, due: UnixMillis) {
        self.counts(lane).delayed += 1;
        let next = &mut self.numbers.next_due[lane.index()];
        *next = Some(next.map_or(due, |next| next.min(due)));
    }

    /// Delayed becomes ready.
    pub(super) fn promote(&mut self, lane: Lane, flow: i64, retry: bool, job: ReadyJob) {
        let counts = self.counts(lane);
        counts.delayed = counts.delayed.saturating_sub(1);
        self.ready(lane, flow, retry, job);
    }

    /// A delayed or dead job is delayed until now: the next lease finds it.
    pub(super) fn make_due(&mut self, seq: i64, kept: Kept, now: UnixMillis) {
        self.forget(seq, kept);
        self.delay(kept.lane, now);
    }

    /// A job that nobody works on is gone from where it was.
    pub(super) fn forget(&mut self, seq: i64, kept: Kept) {
        if kept.place == Place::Ready {
            self.flows.remove(kept.flow, kept.retry, seq);
        }
        let counts = self.counts(kept.lane);
        let count = match kept.place {
            Place::Ready => &mut counts.ready,
            Place::Leased => &mut counts.leased,
            Place::Delayed => &mut counts.delayed,
            Place::Dead => &mut counts.dead,
        };
        *count = count.saturating_sub(1);
    }

    /// There are leases that ran out.
    pub(super) fn has_expired(&self, now: UnixMillis) -> bool {
        self.expiry.iter().filter_map(|lane| lane.first()).any(|(until, _)| *until <= now)
    }

    /// Ends leases that ran out, the oldest first, and answers them; their jobs are ready.
    pub(super) fn expire(&mut self, lane: Lane, now: UnixMillis, max: usize) -> Vec<(i64, Held)> {
        let over = self.expiry[lane.index()].iter().take_while(|(until, _)| *until <= now).take(max);
        let over: Vec<i64> = over.map(|(_, seq)| *seq).collect();
        let mut expired = Vec::with_capacity(over.len());
        for seq in over {
            let Some(held) = self.lease_of(seq).cloned() else { continue };
            self.change(seq, None);
            let counts = self.counts(lane);
            counts.leased = counts.leased.saturating_sub(1);
            self.ready(lane, held.flow, held.retry, ReadyJob { seq, at: now, accepted: held.accepted });
            expired.push((seq, held));
        }
        expired
    }

    /// A lease whose answer reached nobody runs out at once.
    pub(super) fn abandon(&mut self, id: Uuid, fence: Fence) {
        self.renew(id, fence, UnixMillis::MIN);
        self.saved = self.numbers;
        self.undo.clear();
    }

    pub(super) fn counts(&mut self, lane: Lane) -> &mut Counts {
        &mut self.numbers.counts[lane.index()]
    }

    /// Jobs that count against the queue quota: all but the dead.
    pub(super) fn live(&self) -> u64 {
        Lane::ALL.into_iter().map(|lane| self.live_in(lane)).sum()
    }

    /// Those of a lane.
    pub(super) fn live_in(&self, lane: Lane) -> u64 {
        let counts = &self.numbers.counts[lane.index()];
        counts.ready + counts.leased + counts.delayed
    }

    /// When something becomes ready next without anybody's help.
    pub(super) fn next_at(&self) -> Option<UnixMillis> {
        let expiry = self.expiry.iter().filter_map(|lane| lane.first()).map(|(until, _)| *until);
        self.numbers.next_due.into_iter().flatten().chain(expiry).min()
    }
}

/// The rows of `work` that a lease needs.
fn steps(held: &Held) -> impl Iterator<Item = i64> + use<> {
    [Some(held.step), held.begun.as_ref().map(|(step, _)| *step)].into_iter().flatten()
}
