//! What waits in a flow, and the limits of who owns it: an outgoing integration, or a workflow's step.

use std::sync::Arc;

use super::bucket::{Bucket, Rate};
use super::destination::{Blocked, wait_until};
use super::together::Together;
use super::{Limits, Millis, Reason};
use crate::inbox::Flow;

/// Of four places in a flow, the last prefers retries.
const PLACES: u64 = 4;

/// An outgoing integration or a step, with its own limits.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) limits: Limits,
    pub(super) bucket: Option<Bucket>,
    pub(super) in_flight: u32,
    /// Its flows.
    pub(super) flows: u32,
    /// What the other planes know of it, and it of them.
    pub(super) together: Together,
}

impl Owner {
    /// Nobody refers to it, and forgetting it changes nothing.
    pub(super) fn is_idle(&self, now: Millis) -> bool {
        let limit = self.limits.rate.zip(self.bucket);
        self.flows == 0
            && self.in_flight == 0
            && self.together.is_settled()
            && limit.is_none_or(|(rate, bucket)| bucket.is_full(rate, now))
    }

    pub(super) fn new(limits: Limits, now: Millis) -> Self {
        let bucket = limits.rate.map(|rate| Bucket::new(rate, now));
        Self { limits, bucket, in_flight: 0, flows: 0, together: Together::default() }
    }

    /// Takes over changed limits; what they have in common goes on.
    pub(super) fn configure(&mut self, limits: Limits, now: Millis) {
        self.bucket = limits.rate.map(|rate| self.bucket.unwrap_or_else(|| Bucket::new(rate, now)));
        self.limits = limits;
    }

    pub(super) fn rate(&mut self) -> Option<(Rate, &mut Bucket)> {
        self.limits.rate.zip(self.bucket.as_mut())
    }

    pub(super) fn check(&self, now: Millis) -> Result<(), Blocked> {
        if self.limits.concurrency_max.is_some_and(|most| self.in_flight >= most) {
            return Err((Reason::Concurrency, None));
        }
        if let Some((rate, bucket)) = self.limits.rate.zip(self.bucket) {
            wait_until(Reason::Rate, bucket.ready_at(rate, now), now)?;
        }
        self.together.check(now)
    }
}

/// What waits in a flow.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) flow: Arc<Flow>,
    pub(super) first: u64,
    pub(super) retries: u64,
    pub(super) turn: u64,
    /// Places given; see [`PLACES`].
    pub(super) places: u64,
    pub(super) in_flight: u32,
    pub(super) hold_until: Millis,
    pub(super) expiry_at: Millis,
    pub(super) expiry_of_retries: bool,
}

impl Queue {
    /// Nothing waits yet; behind everybody who was served up to `turn`.
    pub(super) fn new(flow: Arc<Flow>, turn: u64, expiry_at: Millis) -> Self {
        Self {
            flow,
            first: 0,
            retries: 0,
            turn,
            places: 0,
            in_flight: 0,
            hold_until: 0,
            expiry_at,
            expiry_of_retries: false,
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.first + self.retries > 0
    }

    /// Which kind is next, if a retry may be: every fourth place prefers one, and no place stays empty for it.
    pub(super) fn next_is_retry(&self, retry: Result<(), Blocked>) -> Result<bool, Blocked> {
        let prefers_retry = (self.places + 1).is_multiple_of(PLACES);
        match (self.first > 0, self.retries > 0) {
            (true, false) => Ok(false),
            (false, _) => retry.map(|()| true),
            (true, true) => Ok(prefers_retry && retry.is_ok()),
        }
    }
}
