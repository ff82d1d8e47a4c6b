//! Flows: what waits together because the same limits hold for it. Who leases names flows and numbers, so that a job
//! that may not be sent yet is never taken, held and given back.

use std::sync::Arc;

use crate::clock::UnixMillis;

/// Where a job goes and whose limits hold for it, as known when it was accepted. As many as the configuration has ways
/// out. All three empty: accepted before flows were kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flow {
    /// `workspaces/{workspace}`.
    pub workspace: String,
    /// Host, and port unless it is 443, of the published URL.
    pub destination: String,
    /// The outgoing integration, or the workflow's step, that brings the limits.
    pub owner: String,
}

/// A flow of one lane; the number belongs to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub(super) i64);

#[cfg(test)]
impl FlowId {
    /// For tests of who only passes it on.
    pub(crate) fn made_up(number: i64) -> Self {
        Self(number)
    }
}

/// What is ready in a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which.
    pub id: FlowId,
    /// What it is.
    pub flow: Arc<Flow>,
    /// Jobs without a finished attempt.
    pub first: u64,
    /// Jobs with one.
    pub retries: u64,
}

/// What changed in the flows of a lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Shown the next time, to hear only what is newer.
    pub version: u64,
    /// The flows that changed, as they are now, each once.
    pub waiting: Vec<Waiting>,
}

/// How much may be taken from a flow: the longest waiting first attempts, and the longest waiting retries. A job that two
/// grants of one lease would take is given once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Which.
    pub flow: FlowId,
    /// At most so many first attempts.
    pub first: usize,
    /// At most so many retries.
    pub retries: usize,
    /// Only jobs accepted at this time or before; looked for among the [`HEADS`] that wait longest of each kind.
    pub accepted_until: UnixMillis,
}

/// How far a [`Grant::accepted_until`] is looked for.
pub const HEADS: usize = 256;

impl Grant {
    /// However old.
    pub fn any(flow: FlowId, first: usize, retries: usize) -> Self {
        Self { flow, first, retries, accepted_until: UnixMillis::MAX }
    }

    /// It takes nothing but first attempts, just as they wait.
    pub(super) fn takes_in_order(&self) -> bool {
        self.retries == 0 && self.accepted_until == UnixMillis::MAX
    }
}
