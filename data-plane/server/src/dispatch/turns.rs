//! One round of turns: those that wait, in the order in which they were served longest ago. Who has nothing left, or may
//! not be sent to now, leaves the round; who was served goes to its end.

use std::collections::{HashMap, VecDeque};

use super::destination::{Blocked, Destination, Gate, wait_until};
use super::queue::{Owner, Queue};
use super::state::{Plan, Slot, Workspace};
use super::{Millis, Reason};
use crate::inbox::{FlowId, Lane};

/// A workspace takes a further place only while it has fewer than this many times the free ones: alone at most three
/// quarters of a lane of four places or more, two at most three sevenths each, and so on: what few can take never is
/// everything (I10).
const WORKSPACE_FACTOR: u32 = 3;

/// What every turn of a plan knows.
pub(super) struct Turns<'a> {
    pub(super) lane: Lane,
    pub(super) now: Millis,
    /// How many of the lane's places one destination may have.
    pub(super) most: u32,
    pub(super) turn: u64,
    pub(super) plan: &'a mut Plan,
}

/// Those that wait, in the order of their turns.
pub(super) struct Round<'a>(VecDeque<WorkspaceRound<'a>>);

struct WorkspaceRound<'a> {
    turn: &'a mut u64,
    in_flight: &'a mut u32,
    owners: &'a mut HashMap<String, Owner>,
    destinations: VecDeque<DestinationRound<'a>>,
}

struct DestinationRound<'a> {
    turn: &'a mut u64,
    gate: &'a mut Gate,
    queues: VecDeque<(FlowId, &'a mut Queue)>,
}

impl<'a> Round<'a> {
    pub(super) fn of(workspaces: &'a mut HashMap<String, Workspace>, lane: Lane) -> Self {
        let mut round: Vec<WorkspaceRound<'a>> =
            workspaces.values_mut().filter_map(|workspace| WorkspaceRound::of(workspace, lane)).collect();
        round.sort_by_key(|workspace| *workspace.turn);
        Self(round.into())
    }

    /// The next job. Who has nothing, or may not be sent to, is left out of the rest of this round.
    pub(super) fn next(&mut self, turns: &mut Turns<'_>, free: u32) -> Option<Slot> {
        while let Some(mut workspace) = self.0.pop_front() {
            if let Some(slot) = workspace.next(turns, free) {
                self.0.push_back(workspace);
                return Some(slot);
            }
        }
        None
    }
}

impl<'a> WorkspaceRound<'a> {
    fn of(workspace: &'a mut Workspace, lane: Lane) -> Option<Self> {
        let Workspace { turn, in_flight, destinations, owners } = workspace;
        let waiting = destinations.values_mut().filter_map(|destination| DestinationRound::of(destination, lane));
        let mut waiting: Vec<DestinationRound<'a>> = waiting.collect();
        waiting.sort_by_key(|destination| *destination.turn);
        let (turn, in_flight) = (&mut turn[lane.index()], &mut in_flight[lane.index()]);
        (!waiting.is_empty()).then(|| Self { turn, in_flight, owners, destinations: waiting.into() })
    }

    fn next(&mut self, turns: &mut Turns<'_>, free: u32) -> Option<Slot> {
        if *self.in_flight >= free.saturating_mul(WORKSPACE_FACTOR) {
            return None;
        }
        while let Some(mut destination) = self.destinations.pop_front() {
            if let Some(slot) = destination.next(turns, self.owners) {
                self.destinations.push_back(destination);
                *self.in_flight += 1;
                *self.turn = turns.turn;
                return Some(slot);
            }
        }
        None
    }
}

impl<'a> DestinationRound<'a> {
    fn of(destination: &'a mut Destination, lane: Lane) -> Option<Self> {
        let Destination { turn, queues, gate } = destination;
        let queues = queues[lane.index()].iter_mut().map(|(id, queue)| (*id, queue));
        let mut waiting: Vec<(FlowId, &mut Queue)> = queues.filter(|(_, queue)| queue.is_waiting()).collect();
        waiting.sort_by_key(|(_, queue)| queue.turn);
        (!waiting.is_empty()).then(|| Self { turn: &mut turn[lane.index()], gate, queues: waiting.into() })
    }

    fn next(&mut self, turns: &mut Turns<'_>, owners: &mut HashMap<String, Owner>) -> Option<Slot> {
        let now = turns.now;
        while let Some((id, queue)) = self.queues.pop_front() {
            let owner = owners.get_mut(&queue.flow.owner)?;
            match self.may(queue, owner, turns) {
                Ok(retry) => {
                    let slot = self.take(id, queue, owner, retry, turns);
                    if queue.is_waiting() {
                        self.queues.push_back((id, queue));
                    }
                    return Some(slot);
                }
                Err((_, until)) => turns.plan.wake(until.filter(|until| *until > now)),
            }
        }
        None
    }

    /// Whether the flow may be sent to now, and whether with a retry.
    fn may(&self, queue: &Queue, owner: &Owner, turns: &Turns<'_>) -> Result<bool, Blocked> {
        let now = turns.now;
        self.gate.check(turns.lane, turns.most, now)?;
        wait_until(Reason::Hold, queue.hold_until, now)?;
        owner.check(now)?;
        queue.next_is_retry(self.gate.check_retry(now))
    }

    fn take(&mut self, id: FlowId, queue: &mut Queue, owner: &mut Owner, retry: bool, turns: &mut Turns<'_>) -> Slot {
        turns.turn += 1;
        (*self.turn, queue.turn) = (turns.turn, turns.turn);
        queue.places += 1;
        let waiting = if retry { &mut queue.retries } else { &mut queue.first };
        *waiting = waiting.saturating_sub(1);
        queue.in_flight += 1;
        owner.in_flight += 1;
        if let Some((rate, bucket)) = owner.rate() {
            bucket.take(rate, turns.now);
        }
        let probe = self.gate.take(turns.lane, retry, turns.now);
        Slot {
            lane: turns.lane,
            id,
            flow: queue.flow.clone(),
            destination: None,
            retry,
            probe,
            expiry: false,
            taken_at: turns.now,
            permitted_at: None,
        }
    }
}
