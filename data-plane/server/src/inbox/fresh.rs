//! Jobs that were just written, kept for their first lease: most are taken a moment later, and need not be read again.
//!
//! Only what is in the store is here, and only as it is there: a job leaves with its first lease, whatever becomes of it.

use std::collections::{HashMap, VecDeque};

use super::{Fence, FlowId, Leased, NewJob};
use crate::clock::UnixMillis;

/// What is kept of all shards of a store (I8). Under a backlog the oldest wait longest and are read from the store.
const BYTES_MAX: usize = 4 << 20;
/// What a job takes beside its payload, more or less.
const PLACE: usize = 256;

/// Jobs by their numbers.
#[derive(Debug)]
pub(super) struct Fresh {
    bytes_max: usize,
    jobs: HashMap<i64, Leased>,
    /// The order they came in; those that were taken are skipped.
    order: VecDeque<i64>,
    bytes: usize,
    /// Of a transaction that is not committed yet.
    coming: Vec<Leased>,
}

impl Fresh {
    /// Of one of so many shards.
    pub(super) fn new(shards: u16) -> Self {
        let bytes_max = BYTES_MAX / usize::from(shards.max(1));
        Self { bytes_max, jobs: HashMap::new(), order: VecDeque::new(), bytes: 0, coming: Vec::new() }
    }

    /// A job that is being written.
    pub(super) fn add(&mut self, seq: i64, flow: i64, job: &NewJob, now: UnixMillis) {
        self.coming.push(Leased {
            fence: Fence { row: seq, epoch: 1 },
            id: job.id,
            lane: job.lane,
            flow: FlowId(flow),
            payload: job.payload.clone(),
            attempt: 0,
            rendered: None,
            ambiguous: false,
            poisoned: false,
            accepted_at: now,
        });
    }

    /// What is being written is there.
    pub(super) fn commit(&mut self) {
        for job in self.coming.drain(..) {
            self.bytes += size(&job);
            self.order.push_back(job.fence.row);
            self.jobs.insert(job.fence.row, job);
        }
        while let Some(oldest) = self.order.front().copied()
            && (self.bytes > self.bytes_max || !self.holds(oldest))
        {
            self.take(oldest);
            self.order.pop_front();
        }
    }

    /// None that can be taken is older.
    pub(super) fn oldest(&self) -> Option<i64> {
        self.order.front().copied()
    }

    /// It is not.
    pub(super) fn rollback(&mut self) {
        self.coming.clear();
    }

    /// Whether it can be taken.
    pub(super) fn holds(&self, seq: i64) -> bool {
        self.jobs.contains_key(&seq)
    }

    /// The job, as its first lease.
    pub(super) fn take(&mut self, seq: i64) -> Option<Leased> {
        let job = self.jobs.remove(&seq)?;
        self.bytes -= size(&job);
        Some(job)
    }
}

fn size(job: &Leased) -> usize {
    job.payload.len() + PLACE
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use uuid::Uuid;

    use super::super::{Flow, Lane};
    use super::*;

    #[test]
    fn what_is_committed_can_be_taken_once_and_no_more_is_kept_than_fits() {
        let job = |bytes: usize| NewJob {
            id: Uuid::new_v4(),
            lane: Lane::Bulk,
            flow: Arc::new(Flow::default()),
            payload: Bytes::from(vec![0; bytes]),
        };
        let mut fresh = Fresh::new(1);
        let one = job(10);
        fresh.add(1, 7, &one, 5);
        assert_eq!(fresh.take(1), None, "not before it is written");
        fresh.commit();
        let taken = fresh.take(1).unwrap();
        assert_eq!((taken.id, taken.flow, taken.accepted_at, taken.fence.order()), (one.id, FlowId(7), 5, 1));
        assert_eq!(fresh.take(1), None);
        fresh.add(2, 7, &one, 5);
        fresh.rollback();
        fresh.commit();
        assert_eq!(fresh.take(2), None);
        for seq in 3..8 {
            fresh.add(seq, 7, &job(BYTES_MAX / 4 - PLACE), 5);
            fresh.commit();
        }
        assert_eq!(fresh.oldest(), Some(4));
        assert_eq!((3..8).filter(|seq| fresh.take(*seq).is_some()).collect::<Vec<_>>(), [4, 5, 6, 7]);
        fresh.commit();
        assert_eq!((fresh.bytes, fresh.order.len()), (0, 0));
        let mut half = Fresh::new(2);
        (1..4).for_each(|seq| half.add(seq, 7, &job(BYTES_MAX / 4 - PLACE), 5));
        half.commit();
        assert_eq!(half.oldest(), Some(2));
    }
}
