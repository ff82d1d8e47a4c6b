//! Questions on their way to a shard, and those that become one step.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::ask::{Answer, Ask};

/// Accepted requests in one step.
const STEP_ACCEPTS: usize = 64;
/// Questions in one step.
const STEP_ASKS: usize = 256;
/// Bytes in one step; one question may exceed it alone.
const STEP_BYTES: usize = 8 << 20;

/// A question, and whom to tell.
pub(in super::super) struct Call {
    pub(super) ask: Ask,
    pub(super) reply: Option<oneshot::Sender<Answer>>,
    pub(super) since: Instant,
    /// It was asked before, and the answer was lost: it is safe to repeat.
    pub(super) again: bool,
}

impl Call {
    pub(in super::super) fn new(ask: Ask, reply: Option<oneshot::Sender<Answer>>) -> Self {
        Self { ask, reply, since: Instant::now(), again: false }
    }
}

/// What becomes one step.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) calls: Vec<Call>,
    pub(super) accepts: usize,
    bytes: usize,
    pub(super) leaves: bool,
}

impl Gathered {
    pub(super) fn add(&mut self, call: Call) {
        self.bytes += call.ask.bytes();
        self.accepts += usize::from(matches!(call.ask, Ask::Accept(_)));
        self.leaves |= matches!(call.ask, Ask::Leave);
        self.calls.push(call);
    }

    pub(super) fn has_accepts_alone(&self) -> bool {
        !self.calls.is_empty() && self.calls.len() == self.accepts
    }

    pub(super) fn is_full(&self) -> bool {
        let is_full = self.calls.len() >= STEP_ASKS || self.accepts >= STEP_ACCEPTS || self.bytes >= STEP_BYTES;
        is_full || self.leaves
    }
}
