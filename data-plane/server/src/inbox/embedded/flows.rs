//! Which flows there are and which jobs are ready in each, as the committer knows. What is ready is known here alone, in the order in
//! which it became so: taking it reads no index.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::super::{Flow, FlowId, Grant, HEADS, Lane, Waiting};
use crate::clock::UnixMillis;

/// A job that may be taken. 24 bytes for each, and no more than the queue quota allows (I8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadyJob {
    pub(super) seq: i64,
    /// Since when.
    pub(super) at: UnixMillis,
    pub(super) accepted: UnixMillis,
}

/// Ready jobs of one flow: first attempts, and retries.
#[derive(Clone, Debug, Default)]
pub(super) struct Ready([VecDeque<ReadyJob>; 2]);

impl Ready {
    pub(super) fn of(&mut self, retry: bool) -> &mut VecDeque<ReadyJob> {
        let [first, retries] = &mut self.0;
        if retry { retries } else { first }
    }

    fn oldest(&self) -> Option<UnixMillis> {
        self.0.iter().filter_map(|jobs| jobs.front()).map(|job| job.at).min()
    }

    fn count(&self, retry: bool) -> u64 {
        self.0[usize::from(retry)].len() as u64
    }
}

/// A flow with its number in the file.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) number: i64,
    pub(super) lane: Lane,
    pub(super) flow: Arc<Flow>,
    pub(super) ready: Ready,
}

/// What was done in this transaction, to be undone from the last to the first.
#[derive(Debug)]
enum Done {
    Flow(i64),
    Added { number: i64, retry: bool },
    Taken { number: i64, retry: bool, at: usize, job: ReadyJob },
}

/// What the committer knows. Like the rest of its book it follows statements, and is kept or undone with the transaction.
#[derive(Debug, Default)]
pub(super) struct FlowBook {
    flows: HashMap<i64, Entry>,
    numbers: [HashMap<Arc<Flow>, i64>; 2],
    next: i64,
    done: Vec<Done>,
    /// What changed in this transaction.
    changed: HashSet<i64>,
}

impl FlowBook {
    /// With what the file says. Everything counts as changed, so that the first commit tells all.
    pub(super) fn new(loaded: Vec<Entry>) -> Self {
        let mut book = Self::default();
        for entry in loaded {
            book.changed.insert(entry.number);
            book.insert(entry);
        }
        book
    }

    fn insert(&mut self, entry: Entry) {
        self.next = self.next.max(entry.number + 1);
        self.numbers[entry.lane.index()].insert(entry.flow.clone(), entry.number);
        self.flows.insert(entry.number, entry);
    }

    /// The flow's number, and whether it has to be written.
    pub(super) fn number(&mut self, lane: Lane, flow: &Arc<Flow>) -> (i64, bool) {
        if let Some(number) = self.numbers[lane.index()].get(flow) {
            return (*number, false);
        }
        let number = self.next;
        self.insert(Entry { number, lane, flow: flow.clone(), ready: Ready::default() });
        self.changed.insert(number);
        self.done.push(Done::Flow(number));
        (number, true)
    }

    pub(super) fn lane(&self, number: i64) -> Option<Lane> {
        self.flows.get(&number).map(|entry| entry.lane)
    }

    /// A job became ready: it stands behind all that are.
    pub(super) fn add(&mut self, number: i64, retry: bool, job: ReadyJob) {
        if let Some(entry) = self.flows.get_mut(&number) {
            entry.ready.of(retry).push_back(job);
            self.done.push(Done::Added { number, retry });
            self.changed.insert(number);
        }
    }

    /// First attempts that are ready, those that are ready longest first.
    pub(super) fn heads(&self, number: i64) -> impl Iterator<Item = &ReadyJob> {
        self.flows.get(&number).into_iter().flat_map(|entry| &entry.ready.0[0])
    }

    /// Takes at most so many of a kind, those that are ready longest first.
    pub(super) fn take(&mut self, grant: &Grant, retry: bool, most: usize) -> Vec<ReadyJob> {
        let number = grant.flow.0;
        let Some(entry) = self.flows.get_mut(&number) else { return Vec::new() };
        let jobs = entry.ready.of(retry);
        let mut taken = Vec::new();
        let (mut at, mut seen) = (0, 0);
        let all = grant.accepted_until == UnixMillis::MAX;
        while taken.len() < most && (all || seen < HEADS) {
            let Some(job) = jobs.get(at).copied() else { break };
            seen += 1;
            if job.accepted > grant.accepted_until {
                at += 1;
                continue;
            }
            jobs.remove(at);
            taken.push(job);
            self.done.push(Done::Taken { number, retry, at, job });
        }
        if !taken.is_empty() {
            self.changed.insert(number);
        }
        // What a long queue took is given back when it is empty.
        if jobs.is_empty() && jobs.capacity() > HEADS {
            jobs.shrink_to(HEADS);
        }
        taken
    }

    /// Takes this one.
    pub(super) fn remove(&mut self, number: i64, retry: bool, seq: i64) {
        let Some(entry) = self.flows.get_mut(&number) else { return };
        let jobs = entry.ready.of(retry);
        if let Some(at) = jobs.iter().position(|job| job.seq == seq)
            && let Some(job) = jobs.remove(at)
        {
            self.done.push(Done::Taken { number, retry, at, job });
            self.changed.insert(number);
        }
    }

    /// Since when the longest waiting job of a lane is ready.
    pub(super) fn oldest(&self, lane: Lane) -> Option<UnixMillis> {
        self.flows.values().filter(|entry| entry.lane == lane).filter_map(|entry| entry.ready.oldest()).min()
    }

    /// Keeps what changed, and answers it. A flow in which as many jobs came as went is told of too: who took the ones does not
    /// know of the others.
    pub(super) fn commit(&mut self) -> Vec<(Lane, Waiting)> {
        self.done.clear();
        let changed = self.changed.drain().filter_map(|number| self.flows.get(&number));
        let told = changed.map(|Entry { number, lane, flow, ready }| {
            let (first, retries) = (ready.count(false), ready.count(true));
            (*lane, Waiting { id: FlowId(*number), flow: flow.clone(), first, retries })
        });
        told.collect()
    }

    pub(super) fn rollback(&mut self) {
        self.changed.clear();
        while let Some(done) = self.done.pop() {
            match done {
                Done::Flow(number) => {
                    if let Some(entry) = self.flows.remove(&number) {
                        self.numbers[entry.lane.index()].remove(&entry.flow);
                    }
                }
                Done::Added { number, retry } => {
                    if let Some(entry) = self.flows.get_mut(&number) {
                        entry.ready.of(retry).pop_back();
                    }
                }
                Done::Taken { number, retry, at, job } => {
                    if let Some(entry) = self.flows.get_mut(&number) {
                        entry.ready.of(retry).insert(at, job);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(seq: i64, accepted: UnixMillis) -> ReadyJob {
        ReadyJob { seq, at: seq, accepted }
    }

    fn book() -> (FlowBook, i64) {
        let mut book = FlowBook::default();
        let flow = Arc::new(Flow { workspace: "w".to_owned(), destination: "a".to_owned(), owner: "o".to_owned() });
        let (number, new) = book.number(Lane::Realtime, &flow);
        assert!(new);
        (book, number)
    }

    fn seqs(jobs: &[ReadyJob]) -> Vec<i64> {
        jobs.iter().map(|job| job.seq).collect()
    }

    #[test]
    fn a_flow_is_told_of_in_which_one_job_came_and_one_was_taken_at_once() {
        let (mut book, number) = book();
        book.add(number, false, ready(1, 1));
        assert_eq!(book.commit().len(), 1);
        book.remove(number, false, 1);
        book.add(number, false, ready(2, 2));
        let told = book.commit();
        assert_eq!(told.iter().map(|(_, waiting)| waiting.first).collect::<Vec<_>>(), [1]);
        assert!(book.commit().is_empty(), "what was not touched is not told again");
    }

    #[test]
    fn what_is_undone_stands_where_it_stood() {
        let (mut book, number) = book();
        for seq in 0..10 {
            book.add(number, true, ready(seq, 10 - seq));
        }
        book.commit();
        let grant = Grant { flow: FlowId(number), first: 0, retries: 3, accepted_until: 7 };
        assert_eq!(seqs(&book.take(&grant, true, 3)), [3, 4, 5], "only what is old enough");
        book.remove(number, true, 8);
        book.add(number, true, ready(10, 0));
        assert_eq!(seqs(&book.take(&Grant::any(grant.flow, 0, 2), true, 2)), [0, 1]);
        book.rollback();
        assert!(book.commit().is_empty());
        assert_eq!(seqs(&book.take(&Grant::any(grant.flow, 0, 99), true, 99)), (0..10).collect::<Vec<_>>());
        assert_eq!(book.oldest(Lane::Realtime), None);
    }
}
