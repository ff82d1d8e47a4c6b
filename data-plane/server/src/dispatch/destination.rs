//! What holds for one destination of one workspace: its share of the places, its rate, its breaker, its retry budget, a
//! hold it asked for, and a ramp after it recovered.

use std::collections::HashMap;

use super::breaker::{Breaker, Change, Verdict};
use super::bucket::{Bucket, Budget, Rate};
use super::queue::Queue;
use super::state::Slot;
use super::{Heard, Millis, Reason};
use crate::inbox::{FlowId, Lane};

/// Why not now, and until when if time alone ends it.
pub(super) type Blocked = (Reason, Option<Millis>);

#[derive(Debug)]
pub(super) struct Destination {
    /// When each lane was last served, in turns.
    pub(super) turn: [u64; 2],
    pub(super) queues: [HashMap<FlowId, Queue>; 2],
    pub(super) gate: Gate,
}

impl Destination {
    pub(super) fn new(turn: u64, gate: Gate) -> Self {
        Self { turn: [turn; 2], queues: Default::default(), gate }
    }

    /// Nobody waits for it, and forgetting it changes nothing.
    pub(super) fn is_idle(&self, now: Millis) -> bool {
        self.queues.iter().all(HashMap::is_empty) && self.gate.is_fresh(now)
    }
}

/// What every call passes, whichever flow it is of.
#[derive(Debug)]
pub(super) struct Gate {
    /// By lane.
    in_flight: [u32; 2],
    rate: Option<(Rate, Bucket)>,
    breaker: Breaker,
    budget: Budget,
    hold_until: Millis,
    /// After a recovery: calls at once, one more with each that succeeds, until it is no limit any more.
    ramp: Option<u32>,
}

/// From here on a ramp is over.
const RAMP_END: u32 = 256;

impl Gate {
    pub(super) fn new(rate: Option<Rate>, breaker_wait: Millis, now: Millis) -> Self {
        Self {
            in_flight: [0; 2],
            rate: rate.map(|limit| (limit, Bucket::new(limit, now))),
            breaker: Breaker::new(breaker_wait),
            budget: Budget::new(now),
            hold_until: 0,
            ramp: None,
        }
    }

    fn is_fresh(&self, now: Millis) -> bool {
        let rested = self.rate.as_ref().is_none_or(|(limit, bucket)| bucket.is_full(*limit, now));
        let held = self.hold_until > now || self.ramp.is_some();
        self.in_flight == [0; 2] && rested && !held && self.breaker.is_fresh(now) && self.budget.is_full(now)
    }

    /// Whether a call may be made: one more of this lane, which may have `most` at once here.
    pub(super) fn check(&self, lane: Lane, most: u32, now: Millis) -> Result<(), Blocked> {
        if self.in_flight[lane.index()] >= most {
            return Err((Reason::Concurrency, None));
        }
        if self.hold_until > now {
            return Err((Reason::Hold, Some(self.hold_until)));
        }
        match self.breaker.verdict(now) {
            Verdict::Pass | Verdict::Probe => {}
            Verdict::Wait(until) => return Err((Reason::Breaker, Some(until))),
            Verdict::Probing => return Err((Reason::Breaker, None)),
        }
        if self.ramp.is_some_and(|most| self.in_flight.iter().sum::<u32>() >= most) {
            return Err((Reason::Breaker, None));
        }
        match &self.rate {
            Some((limit, bucket)) => wait_until(Reason::Rate, bucket.ready_at(*limit, now), now),
            None => Ok(()),
        }
    }

    /// Whether it may be a retry.
    pub(super) fn check_retry(&self, now: Millis) -> Result<(), Blocked> {
        // A probe is one call, whatever it is.
        if !self.breaker.is_closed() {
            return Ok(());
        }
        wait_until(Reason::Budget, self.budget.ready_at(now), now)
    }

    /// Counts a call that will be made; answers whether it is the breaker's probe.
    pub(super) fn take(&mut self, lane: Lane, retry: bool, now: Millis) -> bool {
        self.in_flight[lane.index()] += 1;
        if let Some((limit, bucket)) = &mut self.rate {
            bucket.take(*limit, now);
        }
        if retry {
            self.budget.take(now);
        }
        let probe = self.breaker.verdict(now) == Verdict::Probe;
        if probe {
            self.breaker.probe();
        }
        probe
    }

    /// What came of it.
    pub(super) fn heard(&mut self, slot: &Slot, heard: Heard, now: Millis) -> Option<Change> {
        let Slot { lane, retry, probe, taken_at, .. } = *slot;
        let in_flight = &mut self.in_flight[lane.index()];
        *in_flight = in_flight.saturating_sub(1);
        let failed = match heard {
            Heard::Nothing => {
                if let Some((limit, bucket)) = &mut self.rate {
                    bucket.give_back(*limit, taken_at, now);
                }
                if retry {
                    self.budget.give_back(taken_at, now);
                }
                if probe {
                    self.breaker.probe_given_back(now);
                }
                return None;
            }
            Heard::Answer => false,
            Heard::Trouble => true,
        };
        if !retry || !failed {
            self.budget.earn(retry, now);
        }
        let change = self.breaker.ended(probe, failed, now);
        self.ramp = match (change, self.ramp) {
            (Some(Change::Closed), _) => Some(1),
            (Some(Change::Opened), _) => None,
            (None, Some(most)) if !failed => Some(most + 1).filter(|most| *most < RAMP_END),
            (None, ramp) => ramp,
        };
        change
    }

    /// Nothing is sent before this time; an earlier one changes nothing.
    pub(super) fn hold(&mut self, until: Millis) {
        self.hold_until = self.hold_until.max(until);
    }

    pub(super) fn is_open(&self) -> bool {
        !self.breaker.is_closed()
    }
}

/// Blocked for this reason until then, unless then has come.
pub(super) fn wait_until(reason: Reason, at: Millis, now: Millis) -> Result<(), Blocked> {
    if at > now { Err((reason, Some(at))) } else { Ok(()) }
}
