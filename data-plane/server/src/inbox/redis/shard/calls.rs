//! Questions on their way to a shard, and those that become one step.

use std::collections::VecDeque;

use ::redis::{RedisError, Value};
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::ask::{Answer, Ask};
use super::super::link::Coming;
use super::super::scripts::Script;

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

/// A step that was asked.
pub(super) struct Asked {
    pub(super) calls: Vec<Call>,
    pub(super) script: Script,
    pub(super) accepts: usize,
    pub(super) leaves: bool,
    pub(super) began: Instant,
}

/// Steps whose answers are not there yet. The store takes them in their order, and so do their answers come.
#[derive(Default)]
pub(super) struct UnderWay {
    asked: VecDeque<Asked>,
    answers: FuturesOrdered<Coming>,
}

impl UnderWay {
    pub(super) fn push(&mut self, asked: Asked, answer: Coming) {
        self.asked.push_back(asked);
        self.answers.push_back(answer);
    }

    pub(super) fn steps(&self) -> usize {
        self.asked.len()
    }

    pub(super) fn calls(&self) -> usize {
        self.asked.iter().map(|asked| asked.calls.len()).sum()
    }

    pub(super) fn leaves(&self) -> bool {
        self.asked.iter().any(|asked| asked.leaves)
    }

    pub(super) fn accepts(&self) -> usize {
        self.asked.iter().map(|asked| asked.accepts).sum()
    }

    /// The first, once it is answered; nothing when there is none.
    pub(super) async fn next(&mut self) -> Option<(Asked, Result<Value, RedisError>)> {
        let answer = self.answers.next().await?;
        Some((self.asked.pop_front()?, answer))
    }
}
