//! Limits that all planes keep together (D10), as this plane sees them: what it says of each of them and wants of it, and what comes of
//! the answer. Its own buckets and counters hold beside them: what is too much for this plane alone is not asked for.

use std::collections::HashMap;

use super::destination::{Blocked, wait_until};
use super::queue::Owner;
use super::state::{Slot, State};
use super::{Millis, Reason, millis};
use crate::clock::UnixMillis;
use crate::inbox::{Given, Grant, Short, Unused, Wanted};

/// What others were told of an owner's requests, and what they left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Together {
    /// Requests under way, as the others know.
    said: Option<u32>,
    said_at: Millis,
    /// Permits of its rate that were given and not used.
    unused: Unused,
    /// There is nothing left before this.
    blocked: Option<(Reason, Millis)>,
}

impl Default for Together {
    fn default() -> Self {
        Self { said: Some(0), said_at: 0, unused: Unused::default(), blocked: None }
    }
}

impl Together {
    pub(super) fn check(&self, now: Millis) -> Result<(), Blocked> {
        self.blocked.map_or(Ok(()), |(reason, until)| wait_until(reason, until, now))
    }

    /// The others know what there is to know.
    pub(super) fn is_settled(&self) -> bool {
        self.said.unwrap_or(0) == 0 && self.unused.count == 0
    }

    /// A request has ended; or was not made, and its permit was given then.
    pub(super) fn ended(&mut self, unused: Option<u64>) {
        if let Some(at) = unused {
            self.unused.add(at);
        }
        self.blocked = self.blocked.filter(|(reason, _)| *reason != Reason::Concurrency);
    }
}

/// What is said of an owner, and wanted for it.
#[derive(Debug)]
pub(super) struct Said {
    workspace: String,
    owner: String,
    pub(super) wanted: Wanted,
}

impl Owner {
    /// What there is to say when so many more are wanted; what is no news is said again after a while.
    fn say(&mut self, name: impl FnOnce() -> String, count: u32, again_after: Millis, now: Millis) -> Option<Wanted> {
        let (rate, concurrency_max) = (self.limits.rate.map(|rate| rate.limit()), self.limits.concurrency_max);
        let in_use = self.in_flight.saturating_sub(count);
        let together = &mut self.together;
        let is_old = in_use > 0 && together.said_at.saturating_add(again_after) <= now;
        let is_news = concurrency_max.is_some() && (together.said != Some(in_use) || is_old);
        let unused = std::mem::take(&mut together.unused);
        if count == 0 && unused.count == 0 && !is_news || rate.is_none() && concurrency_max.is_none() {
            return None;
        }
        // Unknown until it is answered.
        together.said = None;
        Some(Wanted { name: name(), rate, concurrency_max, in_use, unused, count })
    }
}

impl State {
    /// What there is to say of limits, and to want of them for these slots.
    pub(super) fn say(&mut self, slots: &[Slot], again_after: Millis, now: Millis) -> Vec<Said> {
        let mut counts: HashMap<(&str, &str), u32> = HashMap::new();
        for slot in slots.iter().filter(|slot| !slot.expiry) {
            *counts.entry((&slot.flow.workspace, &slot.flow.owner)).or_default() += 1;
        }
        let mut said = Vec::new();
        for (workspace, state) in &mut self.workspaces {
            for (owner, state) in &mut state.owners {
                let count = counts.get(&(workspace.as_str(), owner.as_str())).copied().unwrap_or(0);
                let name = || format!("owner:{workspace}:{owner}");
                if let Some(wanted) = state.say(name, count, again_after, now) {
                    said.push(Said { workspace: workspace.clone(), owner: owner.clone(), wanted });
                }
            }
        }
        said
    }

    /// Takes over the answer: what was not given is not taken, the last of it first. Answers when to ask again.
    pub(super) fn settle(
        &mut self,
        said: &[Said],
        given: &[Given],
        slots: &mut Vec<Slot>,
        grants: &mut Vec<Grant>,
        now: Millis,
    ) -> Option<Millis> {
        let mut wake_at = None;
        for (said, given) in said.iter().zip(given) {
            let is_theirs =
                |slot: &Slot| !slot.expiry && slot.flow.owner == said.owner && slot.flow.workspace == said.workspace;
            slots.iter_mut().filter(|slot| is_theirs(slot)).for_each(|slot| slot.permitted_at = Some(given.at));
            for _ in given.count..said.wanted.count {
                let Some(at) = slots.iter().rposition(is_theirs) else { break };
                let slot = Slot { permitted_at: None, ..slots.remove(at) };
                self.not_taken(&slot, now);
                withdraw(grants, &slot);
            }
            let workspace = self.workspaces.get_mut(&said.workspace);
            let Some(owner) = workspace.and_then(|workspace| workspace.owners.get_mut(&said.owner)) else { continue };
            let blocked = given.short(&said.wanted).map(|short| match short {
                Short::Rate(wait) => (Reason::Rate, until(now, wait)),
                Short::Concurrency(wait) => (Reason::Concurrency, until(now, wait)),
            });
            let in_use = said.wanted.concurrency_max.map(|_| said.wanted.in_use + given.count);
            owner.together = Together { said: in_use, said_at: now, blocked, ..owner.together };
            wake_at = wake_at.into_iter().chain(blocked.map(|(_, until)| until)).min();
        }
        wake_at
    }
}

fn until(now: Millis, wait: std::time::Duration) -> Millis {
    // Rounded up: a moment too early is asked in vain.
    now + millis(wait + std::time::Duration::from_nanos(999_999))
}

/// One less of what the slot was granted with.
fn withdraw(grants: &mut Vec<Grant>, slot: &Slot) {
    let granted = grants.iter_mut().find(|grant| grant.flow == slot.id && grant.accepted_until == UnixMillis::MAX);
    if let Some(grant) = granted {
        let kind = if slot.retry { &mut grant.retries } else { &mut grant.first };
        *kind = kind.saturating_sub(1);
    }
    grants.retain(|grant| grant.first + grant.retries > 0);
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use sluice_core::model::RateLimit;

    use super::super::{DispatchSettings, Heard, Limits};
    use super::*;
    use crate::inbox::{Flow, FlowId, Lane, Waiting};

    const AGAIN: Millis = 20_000;

    /// One owner with twenty jobs, and its limits.
    fn state(limits: Limits) -> State {
        let mut state = State::new(DispatchSettings { destination_share: 100, ..Default::default() }, [100, 0]);
        let flow = Flow { workspace: "w".to_owned(), destination: "d".to_owned(), owner: "o".to_owned() };
        let waiting = Waiting { id: FlowId::made_up(1), flow: Arc::new(flow), first: 20, retries: 0 };
        state.update(Lane::Realtime, waiting, |_| limits, 1);
        state
    }

    fn limits(rate: Option<(u32, u32)>, concurrency_max: Option<u32>) -> Limits {
        let rate = rate.map(|(requests_per_second, burst)| RateLimit { requests_per_second, burst }.into());
        Limits { rate, concurrency_max, age_max: None }
    }

    /// Plans, says what there is to say, and is given so many; answers what was said and what may be sent.
    fn round(state: &mut State, now: Millis, given: Given) -> (Vec<Said>, Vec<Slot>, Option<Millis>) {
        let mut plan = state.plan(Lane::Realtime, now, 0);
        let said = state.say(&plan.slots, AGAIN, now);
        let given = vec![given; said.len()];
        let wake_at = state.settle(&said, &given, &mut plan.slots, &mut plan.grants, now);
        let granted: usize = plan.grants.iter().map(|grant| grant.first).sum();
        assert_eq!(granted, plan.slots.len());
        (said, plan.slots, wake_at)
    }

    fn given(count: u32) -> Given {
        Given { count, left: 0, at: 7 }
    }

    fn wanted(said: &[Said]) -> Vec<(u32, u32, u32)> {
        said.iter().map(|said| (said.wanted.in_use, said.wanted.unused.count, said.wanted.count)).collect()
    }

    #[test]
    fn what_is_not_given_is_not_sent_and_not_asked_for_before_its_time() {
        let mut state = state(limits(Some((10, 8)), None));
        let (said, slots, wake_at) = round(&mut state, 1, given(3));
        assert_eq!((wanted(&said), slots.len(), wake_at), (vec![(0, 0, 8)], 3, Some(101)));
        let (said, slots, _) = round(&mut state, 100, given(8));
        assert!(said.is_empty() && slots.is_empty());
        let (said, slots, wake_at) = round(&mut state, 101, given(6));
        assert_eq!((wanted(&said), slots.len(), wake_at), (vec![(3, 0, 6)], 6, None));
    }

    #[test]
    fn a_permit_that_is_not_used_is_given_back_once() {
        let mut state = state(limits(Some((10, 8)), None));
        let (_, slots, _) = round(&mut state, 1, given(3));
        for (slot, heard) in slots.iter().zip([Heard::Nothing, Heard::Answer, Heard::Nothing]) {
            state.heard(slot, heard, 1);
            state.leave(slot);
        }
        // The five that were not given were not taken anywhere.
        assert_eq!(wanted(&state.say(&[], AGAIN, 2)), [(0, 2, 0)]);
        assert!(state.say(&[], AGAIN, 3).is_empty());
    }

    #[test]
    fn what_is_under_way_is_said_when_it_changes_and_again_before_it_is_believed_no_more() {
        let mut state = state(limits(None, Some(4)));
        let (said, slots, wake_at) = round(&mut state, 1, given(2));
        assert_eq!((wanted(&said), slots.len(), wake_at), (vec![(0, 0, 4)], 2, Some(101)));
        assert!(round(&mut state, 50, given(0)).0.is_empty(), "others have the rest");
        // One of its own has ended: that is worth asking at once.
        state.heard(&slots[0], Heard::Answer, 60);
        state.leave(&slots[0]);
        let (said, slots, _) = round(&mut state, 60, given(1));
        assert_eq!((wanted(&said), slots.len()), (vec![(1, 0, 3)], 1));
        assert!(state.say(&[], AGAIN, 60 + AGAIN - 1).is_empty());
        assert_eq!(wanted(&state.say(&[], AGAIN, 60 + AGAIN)), [(2, 0, 0)]);
        assert_eq!(wanted(&state.say(&[], AGAIN, 61 + AGAIN)), [(2, 0, 0)], "the answer was lost");
    }

    #[test]
    fn without_limits_nothing_is_said() {
        let mut state = state(limits(None, None));
        let (said, slots, _) = round(&mut state, 1, given(0));
        assert!(said.is_empty() && slots.len() == 20);
        state.heard(&slots[0], Heard::Nothing, 1);
        assert!(state.say(&[], AGAIN, Duration::from_secs(3_600).as_millis() as u64).is_empty());
    }
}
