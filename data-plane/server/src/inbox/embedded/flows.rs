//! Which flows there are and how many ready jobs each has: [`FlowBook`] as the committer counts, [`FlowBoard`] as
//! others see it after each commit.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::{Flow, FlowId, Lane, News, Waiting};

/// Ready jobs of one flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) first: u64,
    pub(super) retries: u64,
}

impl Ready {
    fn of(&mut self, retry: bool) -> &mut u64 {
        if retry { &mut self.retries } else { &mut self.first }
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

/// The committer's count. Like the rest of its book it follows statements, and is kept or undone with the transaction.
#[derive(Debug, Default)]
pub(super) struct FlowBook {
    flows: HashMap<i64, Entry>,
    numbers: [HashMap<Arc<Flow>, i64>; 2],
    next: i64,
    /// What changed in this transaction, as it was before; nothing: the flow is new.
    before: HashMap<i64, Option<Ready>>,
}

impl FlowBook {
    /// With what the file says. Everything counts as changed, so that the first commit tells all.
    pub(super) fn new(loaded: &[Entry]) -> Self {
        let mut book = Self::default();
        for entry in loaded {
            book.insert(entry.clone());
            book.before.insert(entry.number, None);
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
        self.before.insert(number, None);
        (number, true)
    }

    pub(super) fn ready(&self, number: i64) -> Ready {
        self.flows.get(&number).map_or(Ready::default(), |entry| entry.ready)
    }

    pub(super) fn add(&mut self, number: i64, retry: bool) {
        self.change(number, |ready| *ready.of(retry) += 1);
    }

    pub(super) fn remove(&mut self, number: i64, retry: bool) {
        self.change(number, |ready| *ready.of(retry) = ready.of(retry).saturating_sub(1));
    }

    fn change(&mut self, number: i64, change: impl FnOnce(&mut Ready)) {
        if let Some(entry) = self.flows.get_mut(&number) {
            self.before.entry(number).or_insert(Some(entry.ready));
            change(&mut entry.ready);
        }
    }

    /// Keeps what changed, and answers it. A flow in which as many jobs came as went is told of too: who took the ones does not
    /// know of the others.
    pub(super) fn commit(&mut self) -> Vec<(Lane, Waiting)> {
        let touched = self.before.drain().filter_map(|(number, _)| self.flows.get(&number));
        let told = touched.map(|Entry { number, lane, flow, ready: Ready { first, retries } }| {
            (*lane, Waiting { id: FlowId(*number), flow: flow.clone(), first: *first, retries: *retries })
        });
        told.collect()
    }

    pub(super) fn rollback(&mut self) {
        for (number, before) in self.before.drain() {
            match before {
                Some(before) => drop(self.flows.get_mut(&number).map(|entry| entry.ready = before)),
                None => {
                    if let Some(entry) = self.flows.remove(&number) {
                        self.numbers[entry.lane.index()].remove(&entry.flow);
                    }
                }
            }
        }
    }
}

/// What others see: every flow as of the last commit, and in which order they changed.
#[derive(Debug, Default)]
pub(super) struct FlowBoard([Mutex<Shown>; 2]);

#[derive(Debug, Default)]
struct Shown {
    version: u64,
    flows: HashMap<FlowId, (u64, Waiting)>,
    /// Each flow under the version of its last change.
    order: BTreeMap<u64, FlowId>,
}

impl FlowBoard {
    /// Shows what changed; answers the new version of each lane that something changed in.
    pub(super) fn show(&self, changed: Vec<(Lane, Waiting)>) -> [Option<u64>; 2] {
        let mut versions = [None, None];
        for (lane, waiting) in changed {
            let mut shown = self.lane(lane);
            shown.version += 1;
            let (version, id) = (shown.version, waiting.id);
            if let Some((before, _)) = shown.flows.insert(id, (version, waiting)) {
                shown.order.remove(&before);
            }
            shown.order.insert(version, id);
            versions[lane.index()] = Some(version);
        }
        versions
    }

    /// What is newer than `since`.
    pub(super) fn news(&self, lane: Lane, since: u64) -> News {
        let shown = self.lane(lane);
        let newer = shown.order.range(since.saturating_add(1)..).filter_map(|(_, id)| shown.flows.get(id));
        News { version: shown.version, waiting: newer.map(|(_, waiting)| waiting.clone()).collect() }
    }

    fn lane(&self, lane: Lane) -> std::sync::MutexGuard<'_, Shown> {
        let [realtime, bulk] = &self.0;
        let shown = match lane {
            Lane::Realtime => realtime,
            Lane::Bulk => bulk,
        };
        shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_told_of_in_which_one_job_came_and_one_was_taken_at_once() {
        let mut book = FlowBook::default();
        let flow = Arc::new(Flow { workspace: "w".to_owned(), destination: "a".to_owned(), owner: "o".to_owned() });
        let (number, _) = book.number(Lane::Realtime, &flow);
        book.add(number, false);
        assert_eq!(book.commit().len(), 1);
        book.remove(number, false);
        book.add(number, false);
        let told = book.commit();
        assert_eq!(told.iter().map(|(_, waiting)| waiting.first).collect::<Vec<_>>(), [1]);
        assert!(book.commit().is_empty(), "what was not touched is not told again");
    }
}
