//! Who is next, decided from data and the time alone.
//!
//! Turns are fair on three levels: between workspaces, between destinations of a workspace, between flows of a destination.
//! On each, whoever was served longest ago and may be sent to now is next, so nobody who may be sent to waits for more
//! than one turn of everybody else.

use std::collections::HashMap;
use std::sync::Arc;

use super::breaker::Change;
use super::destination::{Blocked, Destination, wait_until};
use super::queue::{Owner, Queue};
use super::turns::{Round, Turns};
use super::{DispatchSettings, Heard, Limits, Millis, Reason};
use crate::clock::UnixMillis;
use crate::inbox::{Flow, FlowId, Grant, Lane, Waiting};

/// Most jobs in one plan: a quarter of a lane's places by default, which is what one destination has. What is leased together begins
/// together, and is recorded together.
pub(super) const PLAN_MAX: u32 = 128;
/// How often a flow in which jobs wait is looked through for those over their age limit: first attempts and retries in
/// turns.
const EXPIRY_EVERY: Millis = 30_000;
/// Jobs over their age limit taken at once.
const EXPIRED_MAX: u32 = 16;
/// How often what is idle is forgotten.
const FORGET_EVERY: Millis = 60_000;

/// Everything that decides.
#[derive(Debug)]
pub(super) struct State {
    settings: DispatchSettings,
    lanes: [Places; 2],
    known: HashMap<FlowId, (Lane, Arc<Flow>)>,
    /// How many of them are of each lane.
    flows: [usize; 2],
    pub(super) workspaces: HashMap<String, Workspace>,
    /// Counts what was served.
    turn: u64,
    forget_at: Millis,
}

/// Places of one lane.
#[derive(Clone, Copy, Debug)]
struct Places {
    all: u32,
    taken: u32,
}

#[derive(Debug)]
pub(super) struct Workspace {
    pub(super) turn: [u64; 2],
    pub(super) in_flight: [u32; 2],
    pub(super) destinations: HashMap<String, Destination>,
    pub(super) owners: HashMap<String, Owner>,
}

/// One job that may be taken: what it counts against until it has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) lane: Lane,
    pub(super) id: FlowId,
    pub(super) flow: Arc<Flow>,
    /// Where it really goes; the flow's destination unless the configuration has changed since.
    pub(super) destination: Option<String>,
    pub(super) retry: bool,
    pub(super) probe: bool,
    /// Taken only to be ended: it counts against nothing but the lane's places.
    pub(super) expiry: bool,
    /// When it was taken; limits are given back what was not used.
    pub(super) taken_at: Millis,
    /// When limits that all planes keep together gave it its permit, if they did.
    pub(super) permitted_at: Option<u64>,
}

impl Slot {
    pub(super) fn destination(&self) -> &str {
        self.destination.as_deref().unwrap_or(&self.flow.destination)
    }
}

/// What to take next, and when to ask again if nothing else happens.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) grants: Vec<Grant>,
    pub(super) slots: Vec<Slot>,
    pub(super) wake_at: Option<Millis>,
}

impl Plan {
    pub(super) fn wake(&mut self, at: Option<Millis>) {
        self.wake_at = self.wake_at.into_iter().chain(at).min();
    }
}

impl State {
    pub(super) fn new(settings: DispatchSettings, places: [usize; 2]) -> Self {
        let all = |all: usize| Places { all: u32::try_from(all).unwrap_or(u32::MAX), taken: 0 };
        let [realtime, bulk] = places;
        Self {
            settings,
            lanes: [all(realtime), all(bulk)],
            known: HashMap::new(),
            flows: [0; 2],
            workspaces: HashMap::new(),
            turn: 0,
            forget_at: 0,
        }
    }

    /// A flow as it is now.
    pub(super) fn update(&mut self, lane: Lane, waiting: Waiting, limits: impl FnOnce(&Flow) -> Limits, now: Millis) {
        let Waiting { id, flow, first, retries } = waiting;
        if first + retries > 0 {
            let queue = self.queue(lane, id, &flow, limits, now);
            (queue.first, queue.retries) = (first, retries);
        } else if let Some(queue) = self.find_queue(lane, id) {
            (queue.first, queue.retries) = (0, 0);
            self.forget_queue(lane, id);
        }
    }

    fn queue(
        &mut self,
        lane: Lane,
        id: FlowId,
        flow: &Arc<Flow>,
        limits: impl FnOnce(&Flow) -> Limits,
        now: Millis,
    ) -> &mut Queue {
        // Who comes anew stands behind all that wait already.
        let turn = self.turn;
        let settings = &self.settings;
        let workspace = self.workspaces.entry(flow.workspace.clone()).or_insert_with(|| Workspace::new(turn));
        let destination = workspace.destinations.entry(flow.destination.clone());
        let destination = destination.or_insert_with(|| Destination::new(turn, settings.gate(now)));
        let owners = &mut workspace.owners;
        let (known, flows) = (&mut self.known, &mut self.flows[lane.index()]);
        destination.queues[lane.index()].entry(id).or_insert_with(|| {
            known.insert(id, (lane, flow.clone()));
            *flows += 1;
            owners.entry(flow.owner.clone()).or_insert_with(|| Owner::new(limits(flow), now)).flows += 1;
            Queue::new(flow.clone(), turn, now + EXPIRY_EVERY)
        })
    }

    fn find_queue(&mut self, lane: Lane, id: FlowId) -> Option<&mut Queue> {
        let (_, flow) = self.known.get(&id)?;
        let workspace = self.workspaces.get_mut(&flow.workspace)?;
        workspace.destinations.get_mut(&flow.destination)?.queues[lane.index()].get_mut(&id)
    }

    /// Forgets a flow in which nothing waits or is in work. Its owner's limits stay as long as they bind.
    fn forget_queue(&mut self, lane: Lane, id: FlowId) {
        let Some((_, flow)) = self.known.get(&id) else { return };
        let Some(workspace) = self.workspaces.get_mut(&flow.workspace) else { return };
        let Some(destination) = workspace.destinations.get_mut(&flow.destination) else { return };
        let queues = &mut destination.queues[lane.index()];
        if queues.get(&id).is_some_and(|queue| !queue.is_waiting() && queue.in_flight == 0) {
            queues.remove(&id);
            if let Some(owner) = workspace.owners.get_mut(&flow.owner) {
                owner.flows = owner.flows.saturating_sub(1);
            }
            self.known.remove(&id);
            self.flows[lane.index()] -= 1;
        }
    }

    /// Reads every owner's limits anew: the configuration changed.
    pub(super) fn configure(&mut self, limits: impl Fn(&Flow) -> Limits, now: Millis) {
        for (name, workspace) in &mut self.workspaces {
            for (owner, state) in &mut workspace.owners {
                let flow = Flow { workspace: name.clone(), destination: String::new(), owner: owner.clone() };
                state.configure(limits(&flow), now);
            }
        }
    }

    /// Forgets, now and then, what is idle and binds nobody.
    fn forget_idle(&mut self, now: Millis) {
        if now < self.forget_at {
            return;
        }
        self.forget_at = now + FORGET_EVERY;
        self.workspaces.retain(|_, workspace| {
            workspace.destinations.retain(|_, destination| !destination.is_idle(now));
            workspace.owners.retain(|_, owner| !owner.is_idle(now));
            !workspace.destinations.is_empty() || !workspace.owners.is_empty() || workspace.in_flight != [0; 2]
        });
    }

    /// Decides what a lane may take next, and counts it as taken.
    pub(super) fn plan(&mut self, lane: Lane, now: Millis, unix: UnixMillis) -> Plan {
        self.forget_idle(now);
        let mut plan = Plan::default();
        let Places { all, taken } = self.lanes[lane.index()];
        let mut free = all.saturating_sub(taken);
        if free == 0 {
            return plan;
        }
        let mut turns = Turns { lane, now, most: self.settings.share(all), turn: self.turn, plan: &mut plan };
        let mut round = Round::of(&mut self.workspaces, lane);
        let mut granted: HashMap<FlowId, Grant> = HashMap::new();
        let mut left = free.min(PLAN_MAX);
        while left > 0 {
            let Some(slot) = round.next(&mut turns, free) else { break };
            let grant = granted.entry(slot.id).or_insert(Grant::any(slot.id, 0, 0));
            let kind = if slot.retry { &mut grant.retries } else { &mut grant.first };
            *kind += 1;
            turns.plan.slots.push(slot);
            (free, left) = (free - 1, left - 1);
        }
        self.turn = turns.turn;
        plan.grants.extend(granted.into_values());
        self.expire(lane, &mut plan, left, now, unix);
        self.lanes[lane.index()].taken += u32::try_from(plan.slots.len()).unwrap_or(u32::MAX);
        plan
    }

    /// Adds jobs over their age limit of flows that wait for long: they end without being sent (D09).
    fn expire(&mut self, lane: Lane, plan: &mut Plan, mut left: u32, now: Millis, unix: UnixMillis) {
        for workspace in self.workspaces.values_mut() {
            let owners = &workspace.owners;
            let queues = workspace.destinations.values_mut().flat_map(|one| one.queues[lane.index()].iter_mut());
            for (id, queue) in queues.filter(|(_, queue)| queue.is_waiting()) {
                let Some(age) = owners.get(&queue.flow.owner).and_then(|owner| owner.limits.age_max) else { continue };
                if queue.expiry_at > now {
                    plan.wake(Some(queue.expiry_at));
                    continue;
                }
                let take = left.min(EXPIRED_MAX);
                if take == 0 {
                    // A place that becomes free leads to another plan.
                    continue;
                }
                left -= take;
                queue.expiry_at = now + EXPIRY_EVERY;
                queue.in_flight += take;
                let retry = queue.expiry_of_retries;
                queue.expiry_of_retries = !retry;
                let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
                let [first, retries] =
                    [(!retry, take), (retry, take)].map(|(of, take)| if of { take as usize } else { 0 });
                let accepted_until = unix.saturating_sub(age).saturating_sub(1);
                plan.grants.push(Grant { flow: *id, first, retries, accepted_until });
                let (flow, destination) = (queue.flow.clone(), None);
                let slot = Slot {
                    lane,
                    id: *id,
                    flow,
                    destination,
                    retry,
                    probe: false,
                    expiry: true,
                    taken_at: now,
                    permitted_at: None,
                };
                plan.slots.extend(std::iter::repeat_n(slot, take as usize));
                plan.wake(Some(queue.expiry_at));
            }
        }
    }

    /// A job was not leased after all: it waits still. If it is not there any more, the inbox has told so.
    pub(super) fn not_taken(&mut self, slot: &Slot, now: Millis) {
        if let Some(queue) = self.find_queue(slot.lane, slot.id).filter(|_| !slot.expiry) {
            let waiting = if slot.retry { &mut queue.retries } else { &mut queue.first };
            *waiting += 1;
        }
        self.heard(slot, Heard::Nothing, now);
        self.leave(slot);
    }

    /// What came of a job's call, or that none was made: from now on it counts against no limit but the lane's places.
    pub(super) fn heard(&mut self, slot: &Slot, heard: Heard, now: Millis) -> Option<Change> {
        if slot.expiry {
            return None;
        }
        let workspace = self.workspaces.get_mut(&slot.flow.workspace)?;
        if let Some(owner) = workspace.owners.get_mut(&slot.flow.owner) {
            owner.in_flight = owner.in_flight.saturating_sub(1);
            owner.together.ended(slot.permitted_at.filter(|_| heard == Heard::Nothing));
            if let (Heard::Nothing, Some((rate, bucket))) = (heard, owner.rate()) {
                bucket.give_back(rate, slot.taken_at, now);
            }
        }
        workspace.destinations.get_mut(slot.destination())?.gate.heard(slot, heard, now)
    }

    /// A job's place is free again. It was heard of before.
    pub(super) fn leave(&mut self, slot: &Slot) {
        let places = &mut self.lanes[slot.lane.index()];
        places.taken = places.taken.saturating_sub(1);
        if let Some(workspace) = self.workspaces.get_mut(&slot.flow.workspace).filter(|_| !slot.expiry) {
            let in_flight = &mut workspace.in_flight[slot.lane.index()];
            *in_flight = in_flight.saturating_sub(1);
        }
        if let Some(queue) = self.find_queue(slot.lane, slot.id) {
            queue.in_flight = queue.in_flight.saturating_sub(1);
        }
        self.forget_queue(slot.lane, slot.id);
    }

    /// A job turns out to go elsewhere: it counts there from now on, if it may be sent there now.
    pub(super) fn redirect(&mut self, slot: &mut Slot, destination: &str, now: Millis) -> Result<(), Blocked> {
        if slot.destination() == destination {
            return Ok(());
        }
        let (lane, turn, most) = (slot.lane, self.turn, self.settings.share(self.lanes[slot.lane.index()].all));
        let settings = &self.settings;
        let workspace = self.workspaces.entry(slot.flow.workspace.clone()).or_insert_with(|| Workspace::new(turn));
        let other = workspace.destinations.entry(destination.to_owned());
        let other = other.or_insert_with(|| Destination::new(turn, settings.gate(now)));
        other.gate.check(lane, most, now)?;
        if slot.retry {
            other.gate.check_retry(now)?;
        }
        let probe = other.gate.take(lane, slot.retry, now);
        if let Some(before) = workspace.destinations.get_mut(slot.destination()) {
            before.gate.heard(slot, Heard::Nothing, now);
        }
        (slot.destination, slot.probe) = (Some(destination.to_owned()), probe);
        Ok(())
    }

    /// There was more over the age limit than could be taken at once.
    pub(super) fn expire_more(&mut self, slot: &Slot, now: Millis) {
        if let Some(queue) = self.find_queue(slot.lane, slot.id) {
            (queue.expiry_at, queue.expiry_of_retries) = (now, slot.retry);
        }
    }

    /// Nothing is taken from the flow before this time.
    pub(super) fn hold_flow(&mut self, slot: &Slot, until: Millis) {
        if let Some(queue) = self.find_queue(slot.lane, slot.id) {
            queue.hold_until = queue.hold_until.max(until);
        }
    }

    /// Nothing is sent to the destination before this time.
    pub(super) fn hold_destination(&mut self, slot: &Slot, until: Millis) {
        let workspace = self.workspaces.get_mut(&slot.flow.workspace);
        if let Some(destination) = workspace.and_then(|workspace| workspace.destinations.get_mut(slot.destination())) {
            destination.gate.hold(until);
        }
    }

    /// Nothing waits or is in work.
    pub(super) fn is_idle(&self, lane: Lane) -> bool {
        self.flows[lane.index()] == 0
    }

    /// Jobs that are ready and not taken, by what they wait for.
    pub(super) fn waiting(&self, now: Millis) -> HashMap<(Lane, Reason), u64> {
        let mut waiting = HashMap::new();
        for lane in Lane::ALL {
            let most = self.settings.share(self.lanes[lane.index()].all);
            for workspace in self.workspaces.values() {
                for destination in workspace.destinations.values() {
                    for queue in destination.queues[lane.index()].values() {
                        let (first, retry) = workspace.reasons(destination, queue, lane, most, now);
                        *waiting.entry((lane, first)).or_default() += queue.first;
                        *waiting.entry((lane, retry)).or_default() += queue.retries;
                    }
                }
            }
        }
        waiting
    }

    /// Destinations that are not sent to, or only probed.
    pub(super) fn open_breakers(&self) -> u64 {
        let all = self.workspaces.values().flat_map(|workspace| workspace.destinations.values());
        all.filter(|destination| destination.gate.is_open()).count() as u64
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.known.len(), self.workspaces.len())
    }
}

impl Workspace {
    fn new(turn: u64) -> Self {
        Self { turn: [turn; 2], in_flight: [0; 2], destinations: HashMap::new(), owners: HashMap::new() }
    }

    /// What a flow's first attempts wait for, and what its retries.
    fn reasons(
        &self,
        destination: &Destination,
        queue: &Queue,
        lane: Lane,
        most: u32,
        now: Millis,
    ) -> (Reason, Reason) {
        let owner = self.owners.get(&queue.flow.owner);
        let all = destination
            .gate
            .check(lane, most, now)
            .and_then(|()| wait_until(Reason::Hold, queue.hold_until, now))
            .and_then(|()| owner.map_or(Ok(()), |owner| owner.check(now)));
        let reason = |checked: Result<(), Blocked>| checked.map_or_else(|(reason, _)| reason, |()| Reason::Turn);
        (reason(all), reason(all.and_then(|()| destination.gate.check_retry(now))))
    }
}
