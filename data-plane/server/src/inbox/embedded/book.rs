//! What the committer knows without asking the file: counts, who holds which lease until when, the next due times.
//!
//! It is the single writer, so this is the truth as long as it follows every transaction: changes are made as
//! statements succeed, kept by [`Book::commit`] and undone by [`Book::rollback`]. That a lease is checked and renewed
//! here is what makes both cost no disk access.

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

use super::super::{Fence, Lane, LaneStats, Place, Waiting};
use super::flows::FlowBook;
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
    pub(super) outbox_last: i64,
    pub(super) outbox_trimmed: i64,
    pub(super) next_sweep: UnixMillis,
}

/// A lease in force.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) id: Uuid,
    pub(super) lane: Lane,
    pub(super) epoch: i64,
    pub(super) flow: i64,
    /// An attempt was finished before.
    pub(super) retry: bool,
}

#[derive(Debug)]
pub(super) struct Book {
    pub(super) numbers: Numbers,
    pub(super) flows: FlowBook,
    saved: Numbers,
    leases: HashMap<i64, (Held, UnixMillis)>,
    /// The same leases by the time they run out.
    expiry: [BTreeSet<(UnixMillis, i64)>; 2],
    undo: Vec<(i64, Option<(Held, UnixMillis)>)>,
}

impl Book {
    /// Of a file without leases. The first sweep is due at once.
    pub(super) fn new(loaded: &Loaded) -> Self {
        let numbers = Numbers {
            counts: loaded.counts,
            next_due: loaded.next_due,
            next_seq: loaded.next_seq,
            outbox_last: loaded.outbox_last,
            outbox_trimmed: loaded.outbox_trimmed,
            next_sweep: UnixMillis::MIN,
        };
        Self {
            numbers,
            flows: FlowBook::new(&loaded.flows),
            saved: numbers,
            leases: HashMap::new(),
            expiry: Default::default(),
            undo: Vec::new(),
        }
    }

    /// Keeps everything, and answers which flows changed.
    pub(super) fn commit(&mut self) -> Vec<(Lane, Waiting)> {
        self.saved = self.numbers;
        self.undo.clear();
        self.flows.commit()
    }

    pub(super) fn rollback(&mut self) {
        self.numbers = self.saved;
        self.flows.rollback();
        while let Some((seq, before)) = self.undo.pop() {
            self.put(seq, before);
        }
    }

    fn put(&mut self, seq: i64, lease: Option<(Held, UnixMillis)>) -> Option<(Held, UnixMillis)> {
        let before = match lease {
            Some(lease) => self.leases.insert(seq, lease),
            None => self.leases.remove(&seq),
        };
        if let Some((held, until)) = before {
            self.expiry[held.lane.index()].remove(&(until, seq));
        }
        if let Some((held, until)) = lease {
            self.expiry[held.lane.index()].insert((until, seq));
        }
        before
    }

    fn change(&mut self, seq: i64, lease: Option<(Held, UnixMillis)>) {
        let before = self.put(seq, lease);
        self.undo.push((seq, before));
    }

    /// The lease this fence names, if it is still in force. One that ran out but was not yet given to another is.
    pub(super) fn held(&self, id: Uuid, fence: Fence) -> Option<Held> {
        let (held, _) = self.leases.get(&fence.row)?;
        (held.id == id && held.epoch == fence.epoch).then_some(*held)
    }

    pub(super) fn renew(&mut self, id: Uuid, fence: Fence, until: UnixMillis) -> bool {
        let held = self.held(id, fence);
        if let Some(held) = held {
            self.change(fence.row, Some((held, until)));
        }
        held.is_some()
    }

    /// A job became ready.
    pub(super) fn ready(&mut self, lane: Lane, flow: i64, retry: bool) {
        self.counts(lane).ready += 1;
        self.flows.add(flow, retry);
    }

    /// Ready becomes leased.
    pub(super) fn take(&mut self, seq: i64, held: Held, until: UnixMillis) {
        let counts = self.counts(held.lane);
        counts.ready = counts.ready.saturating_sub(1);
        counts.leased += 1;
        self.flows.remove(held.flow, held.retry);
        self.change(seq, Some((held, until)));
    }

    /// Ends a lease; the caller says what the job became by adding it to the counts this answers.
    pub(super) fn end(&mut self, id: Uuid, fence: Fence) -> Option<&mut Counts> {
        let held = self.held(id, fence)?;
        self.change(fence.row, None);
        let counts = self.counts(held.lane);
        counts.leased = counts.leased.saturating_sub(1);
        Some(counts)
    }

    /// Ends a lease; the job is ready at once or delayed, as a retry if an attempt was `finished`. `false`: not the
    /// caller's lease.
    pub(super) fn put_back(
        &mut self,
        id: Uuid,
        fence: Fence,
        (due, now): (UnixMillis, UnixMillis),
        finished: bool,
    ) -> bool {
        let Some(held) = self.held(id, fence) else { return false };
        let Some(counts) = self.end(id, fence) else { return false };
        if due <= now {
            self.ready(held.lane, held.flow, held.retry || finished);
            return true;
        }
        counts.delayed += 1;
        let next = &mut self.numbers.next_due[held.lane.index()];
        *next = Some(next.map_or(due, |next| next.min(due)));
        true
    }

    /// Delayed becomes ready.
    pub(super) fn promote(&mut self, lane: Lane, flow: i64, retry: bool) {
        let counts = self.counts(lane);
        counts.delayed = counts.delayed.saturating_sub(1);
        self.ready(lane, flow, retry);
    }

    /// A delayed or dead job is delayed until now: the next lease finds it.
    pub(super) fn make_due(&mut self, kept: Kept, now: UnixMillis) {
        self.forget(kept);
        self.counts(kept.lane).delayed += 1;
        let next = &mut self.numbers.next_due[kept.lane.index()];
        *next = Some(next.map_or(now, |next| next.min(now)));
    }

    /// A job that nobody works on is gone from where it was.
    pub(super) fn forget(&mut self, kept: Kept) {
        if kept.place == Place::Ready {
            self.flows.remove(kept.flow, kept.retry);
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

    /// Ends leases that ran out, the oldest first, and answers which; their jobs count as ready.
    pub(super) fn expire(&mut self, lane: Lane, now: UnixMillis, max: usize) -> Vec<i64> {
        let over: Vec<i64> =
            self.expiry[lane.index()].iter().take_while(|(until, _)| *until <= now).take(max).map(|e| e.1).collect();
        for seq in &over {
            let Some((held, _)) = self.leases.get(seq).copied() else { continue };
            self.change(*seq, None);
            let counts = self.counts(lane);
            counts.leased = counts.leased.saturating_sub(1);
            self.ready(lane, held.flow, held.retry);
        }
        over
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
        self.numbers.counts.iter().map(|counts| counts.ready + counts.leased + counts.delayed).sum()
    }

    /// When something becomes ready next without anybody's help.
    pub(super) fn next_at(&self) -> Option<UnixMillis> {
        let expiry = self.expiry.iter().filter_map(|lane| lane.first()).map(|(until, _)| *until);
        self.numbers.next_due.into_iter().flatten().chain(expiry).min()
    }
}
