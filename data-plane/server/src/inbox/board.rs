//! What is ready in each flow, for those who wait for it: as the store said last, and in which order it changed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use super::{FlowId, Lane, News, Waiting};

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
