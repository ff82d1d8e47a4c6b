//! Turns and limits: single stories, and a model under random loads.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::state::PLAN_MAX;
use super::*;
use crate::inbox::{Accept, EmbeddedSettings, Flow, FlowId, Inbox, InboxSettings, NewJob};

const UNIX: UnixMillis = 1_700_000_000_000;

fn rate(requests_per_second: u32, burst: u32) -> RateLimit {
    RateLimit { requests_per_second, burst }
}

/// A dispatcher with a clock moved by hand, and what it was told to keep waiting.
struct Stage {
    state: State,
    now: Millis,
    limits: HashMap<String, Limits>,
    waiting: BTreeMap<(usize, FlowId), Waiting>,
    flying: Vec<Slot>,
}

impl Stage {
    fn new(settings: DispatchSettings, places: [usize; 2]) -> Self {
        let state = State::new(settings, places);
        Self { state, now: 1, limits: HashMap::new(), waiting: BTreeMap::new(), flying: Vec::new() }
    }

    /// Many places, all for whoever wants them.
    fn wide() -> Self {
        let settings = DispatchSettings { destination_share: 100, ..DispatchSettings::default() };
        Self::new(settings, [10_000, 0])
    }

    /// So many jobs wait in `workspace/destination/owner`; the number names the flow.
    fn wait(&mut self, number: i64, name: &str, first: u64, retries: u64) {
        self.wait_in(Lane::Realtime, number, name, first, retries);
    }

    fn wait_in(&mut self, lane: Lane, number: i64, name: &str, first: u64, retries: u64) {
        let [workspace, destination, owner] = name.split('/').collect::<Vec<_>>()[..] else { panic!("{name}") };
        let text = str::to_owned;
        let flow =
            Flow { workspace: text(workspace), destination: text(destination), owner: format!("{workspace}/{owner}") };
        let waiting = Waiting { id: FlowId::made_up(number), flow: Arc::new(flow), first, retries };
        self.waiting.insert((lane.index(), waiting.id), waiting.clone());
        let limits = self.limits.get(owner).copied().unwrap_or_default();
        self.state.update(lane, waiting, |_| limits, self.now);
    }

    /// Takes what may be taken; answers which flows, in order. Grants and slots say the same.
    fn take(&mut self) -> Vec<Slot> {
        self.take_in(Lane::Realtime).slots
    }

    fn take_in(&mut self, lane: Lane) -> Plan {
        let plan = self.state.plan(lane, self.now, UNIX + self.now as i64);
        let granted: usize = plan.grants.iter().map(|grant| grant.first + grant.retries).sum();
        assert_eq!(granted, plan.slots.len());
        for slot in &plan.slots {
            if slot.expiry {
                continue;
            }
            let waiting = self.waiting.get_mut(&(lane.index(), slot.id)).expect("it waits");
            let kind = if slot.retry { &mut waiting.retries } else { &mut waiting.first };
            *kind = kind.checked_sub(1).expect("no more is taken than waits");
        }
        self.flying.extend(plan.slots.iter().cloned());
        plan
    }

    fn end(&mut self, slot: &Slot, heard: Heard) -> Option<Change> {
        let at = self.flying.iter().position(|flying| flying == slot).expect("it is under way");
        self.flying.swap_remove(at);
        let change = self.state.heard(slot, heard, self.now);
        self.state.leave(slot);
        change
    }

    /// Takes and ends until nothing more may be taken; answers how many.
    fn run(&mut self, heard: Heard) -> usize {
        let mut sent = 0;
        loop {
            let slots = self.take();
            if slots.is_empty() {
                return sent;
            }
            for slot in slots {
                self.end(&slot, heard);
                sent += 1;
            }
        }
    }

    fn reason(&self) -> Vec<(Reason, u64)> {
        let waiting = self.state.waiting(self.now);
        let of = |reason| (reason, waiting.get(&(Lane::Realtime, reason)).copied().unwrap_or(0));
        Reason::ALL.into_iter().map(of).filter(|(_, jobs)| *jobs > 0).collect()
    }
}

fn count(slots: &[Slot], workspace: &str) -> usize {
    slots.iter().filter(|slot| slot.flow.workspace == workspace).count()
}

#[test]
fn workspaces_take_turns_then_destinations_then_flows() {
    let mut stage = Stage::wide();
    for number in 0..90 {
        stage.wait(number, &format!("many/{}.example/{number}", number % 10), 1_000, 0);
    }
    stage.wait(100, "one/a.example/x", 1_000, 0);
    stage.wait(101, "two/a.example/x", 100, 0);
    stage.wait(102, "two/a.example/y", 100, 0);
    stage.wait(103, "two/b.example/x", 100, 0);
    let slots = stage.take();
    let counts = ["many", "one", "two"].map(|workspace| count(&slots, workspace));
    let (all, third) = (PLAN_MAX as usize, PLAN_MAX as usize / 3);
    assert!(slots.len() == all && counts.iter().all(|count| (third..=third + 1).contains(count)), "{counts:?}");
    let of = |number| slots.iter().filter(|slot| slot.id == FlowId::made_up(number)).count();
    let two = [of(101), of(102), of(103)];
    assert!(two[2] >= 10 && two[0].abs_diff(two[1]) <= 1, "half to each destination: {two:?}");
    let flows: HashSet<FlowId> =
        slots.iter().filter(|slot| slot.flow.workspace == "many").map(|slot| slot.id).collect();
    assert_eq!(flows.len(), counts[0], "each of the many once");
}

#[test]
fn turns_go_on_from_plan_to_plan() {
    // One place: a plan is one job.
    let mut stage = Stage::new(DispatchSettings::default(), [1, 0]);
    for number in 0..5 {
        stage.wait(number, &format!("w{number}/a.example/x"), 100, 0);
    }
    let mut served = [0; 5];
    for _ in 0..50 {
        let slot = stage.take().remove(0);
        stage.end(&slot, Heard::Answer);
        served[usize::try_from(slot.flow.workspace[1..].parse::<u32>().unwrap()).unwrap()] += 1;
    }
    assert_eq!(served, [10; 5]);
}

/// Who always comes anew with one job must not pass who waits.
#[test]
fn newcomers_stand_behind_those_that_wait() {
    let mut stage = Stage::new(DispatchSettings::default(), [1, 0]);
    stage.wait(0, "patient/a.example/x", 100, 0);
    let mut patient = 0;
    for round in 1..=100 {
        stage.wait(round, &format!("w{round}/a.example/x"), 1, 0);
        let slot = stage.take().remove(0);
        patient += count(std::slice::from_ref(&slot), "patient");
        stage.end(&slot, Heard::Answer);
    }
    // More come than there are places, so all wait longer and longer; nobody is passed by who came later.
    assert!(patient >= 10, "{patient}");
}

#[test]
fn three_first_attempts_to_one_retry_and_no_place_stays_empty() {
    let mut stage = Stage::wide();
    stage.wait(0, "w/a.example/x", 1_000, 1_000);
    let retries = stage.take().iter().filter(|slot| slot.retry).count();
    assert_eq!(retries, 10, "a quarter would be 16, the budget knows better");
    let mut stage = Stage::wide();
    stage.wait(0, "w/a.example/x", 20, 5);
    let slots = stage.take();
    assert_eq!(slots.len(), 25);
    assert!(slots[..12].iter().map(|slot| slot.retry).eq((1..=12).map(|place| place % 4 == 0)));
}

#[test]
fn a_destination_and_a_workspace_that_hang_leave_room_n01() {
    let mut stage = Stage::new(DispatchSettings::default(), [100, 0]);
    stage.wait(0, "a/hangs.example/x", 10_000, 0);
    let taken = |stage: &mut Stage| std::iter::from_fn(|| Some(stage.take().len()).filter(|taken| *taken > 0)).sum();
    let all: usize = taken(&mut stage);
    assert_eq!(all, 25, "a quarter");
    assert_eq!(stage.reason(), [(Reason::Concurrency, 9_975)]);
    for number in 1..10 {
        stage.wait(number, &format!("a/hangs{number}.example/x"), 10_000, 0);
    }
    let all: usize = taken(&mut stage);
    assert_eq!(all + 25, 75, "three quarters for a workspace");
    stage.wait(20, "b/hangs.example/x", 10_000, 0);
    stage.wait(21, "b/hangs2.example/x", 10_000, 0);
    let _: usize = taken(&mut stage);
    assert!(stage.flying.len() < 100, "never everything");
    stage.wait(30, "c/fine.example/x", 1, 0);
    assert_eq!(stage.take().len(), 1);
}

#[test]
fn bulk_has_places_of_its_own_r126() {
    let mut stage = Stage::new(DispatchSettings { destination_share: 100, ..Default::default() }, [8, 4]);
    stage.wait_in(Lane::Bulk, 0, "w/a.example/x", 1_000, 0);
    stage.wait_in(Lane::Realtime, 1, "w/a.example/x", 1_000, 0);
    assert_eq!(stage.take_in(Lane::Bulk).slots.len(), 3, "three quarters");
    assert_eq!(stage.take_in(Lane::Realtime).slots.len(), 6);
}

#[test]
fn an_owners_concurrency_holds_over_both_lanes() {
    let mut stage = Stage::wide();
    stage.state = State::new(DispatchSettings { destination_share: 100, ..Default::default() }, [100, 100]);
    stage.limits.insert("x".to_owned(), Limits { concurrency_max: Some(3), ..Limits::default() });
    stage.wait_in(Lane::Realtime, 0, "w/a.example/x", 10, 0);
    stage.wait_in(Lane::Bulk, 1, "w/a.example/x", 10, 0);
    stage.wait_in(Lane::Realtime, 2, "w/a.example/y", 10, 0);
    let slots = stage.take();
    assert_eq!(slots.iter().filter(|slot| slot.flow.owner == "w/x").count(), 3);
    assert_eq!(slots.len(), 13, "the other owner is not held up");
    assert!(stage.take_in(Lane::Bulk).slots.is_empty());
    let one = slots.into_iter().find(|slot| slot.flow.owner == "w/x").unwrap();
    stage.end(&one, Heard::Answer);
    assert_eq!(stage.take_in(Lane::Bulk).slots.len(), 1);
}

#[test]
fn a_rate_holds_and_says_when_to_ask_again() {
    let mut stage = Stage::wide();
    stage.limits.insert("x".to_owned(), Limits { rate: Some(rate(20, 2).into()), ..Limits::default() });
    stage.wait(0, "w/a.example/x", 10_000, 0);
    let (mut sent, mut wakes) = (0, 0);
    while stage.now < 30_000 {
        let plan = stage.take_in(Lane::Realtime);
        sent += plan.slots.len();
        for slot in plan.slots {
            stage.end(&slot, Heard::Answer);
        }
        let wake = stage.take_in(Lane::Realtime).wake_at.expect("time brings more");
        assert!(wake > stage.now);
        (stage.now, wakes) = (wake, wakes + 1);
    }
    assert_eq!(sent, 601, "20 a second, and the burst");
    assert!(wakes <= 601, "nothing is polled: {wakes}");
    stage.now -= 1;
    assert_eq!(stage.reason(), [(Reason::Rate, 10_000 - 601)]);
}

#[test]
fn a_destinations_rate_is_the_operators() {
    let settings =
        DispatchSettings { destination_rate: Some(rate(10, 5)), destination_share: 100, ..Default::default() };
    let mut stage = Stage::new(settings, [1_000, 0]);
    stage.wait(0, "w/a.example/x", 100, 0);
    stage.wait(1, "w/a.example/y", 100, 0);
    stage.wait(2, "v/a.example/y", 100, 0);
    let slots = stage.take();
    assert_eq!((count(&slots, "w"), count(&slots, "v")), (5, 5), "for each workspace");
}

#[test]
fn what_was_not_sent_costs_nothing() {
    let mut stage = Stage::wide();
    stage.limits.insert("x".to_owned(), Limits { rate: Some(rate(1, 1).into()), ..Limits::default() });
    stage.wait(0, "w/a.example/x", 50, 0);
    assert_eq!(stage.run(Heard::Nothing), 50);
    stage.wait(0, "w/a.example/x", 50, 0);
    assert_eq!(stage.run(Heard::Answer), 1);
}

/// The inbox was not there for a moment: nobody tells again what waits.
#[test]
fn what_was_not_taken_after_all_waits_still() {
    let mut stage = Stage::wide();
    stage.limits.insert("x".to_owned(), Limits { rate: Some(rate(1, 5).into()), ..Limits::default() });
    stage.wait(0, "w/a.example/x", 3, 2);
    for _ in 0..10 {
        let plan = stage.state.plan(Lane::Realtime, stage.now, UNIX);
        assert_eq!(plan.slots.len(), 5);
        plan.slots.iter().for_each(|slot| stage.state.not_taken(slot, stage.now));
    }
}

#[test]
fn limits_survive_a_publish_that_does_not_change_them() {
    let mut stage = Stage::wide();
    let limits = Limits { rate: Some(rate(1, 10).into()), concurrency_max: Some(100), age_max: None };
    stage.limits.insert("x".to_owned(), limits);
    stage.wait(0, "w/a.example/x", 100, 0);
    assert_eq!(stage.run(Heard::Answer), 10);
    stage.state.configure(|_| limits, stage.now);
    assert_eq!(stage.run(Heard::Answer), 0, "not filled anew");
    stage.state.configure(|_| Limits::default(), stage.now);
    assert_eq!(stage.run(Heard::Answer), 90, "taken away");
}

#[test]
fn a_failing_destination_is_paused_probed_and_ramps_n06_n07() {
    let mut stage = Stage::wide();
    stage.wait(0, "a/down.example/x", 1_000, 0);
    stage.wait(1, "b/up.example/x", 10, 0);
    let slots = stage.take();
    let mut opened = 0;
    for slot in &slots {
        let heard = if slot.flow.workspace == "a" { Heard::Trouble } else { Heard::Answer };
        opened += usize::from(stage.end(slot, heard) == Some(Change::Opened));
    }
    assert_eq!(opened, 1);
    assert!(stage.take().is_empty());
    assert_eq!(stage.reason(), [(Reason::Breaker, 1_010 - u64::from(PLAN_MAX))]);
    stage.wait(1, "b/up.example/x", 10, 0);
    assert_eq!(stage.run(Heard::Answer), 10, "others do not notice");
    // A probe that fails, then one that does not.
    let plan = stage.take_in(Lane::Realtime);
    assert_eq!((plan.slots.len(), plan.wake_at), (0, Some(10_001)));
    stage.now = 10_001;
    let probe = stage.take();
    assert_eq!(probe.len(), 1);
    assert!(stage.take().is_empty(), "one");
    assert_eq!(stage.end(&probe[0], Heard::Trouble), Some(Change::Opened));
    stage.now = 30_000;
    assert!(stage.take().is_empty());
    stage.now = 30_001;
    let probe = stage.take();
    assert_eq!(stage.end(&probe[0], Heard::Answer), Some(Change::Closed));
    let mut together = Vec::new();
    for _ in 0..6 {
        let slots = stage.take();
        together.push(slots.len());
        for slot in &slots {
            stage.end(slot, Heard::Answer);
        }
    }
    assert_eq!(together, [1, 2, 4, 8, 16, 32], "as fast as it answers, not all at once");
}

#[test]
fn retries_of_a_failing_destination_stay_within_a_fifth_n06() {
    let settings = DispatchSettings { destination_share: 100, breaker_wait: Duration::ZERO, ..Default::default() };
    let mut stage = Stage::new(settings, [10_000, 0]);
    let (mut first, mut retries) = (0, 0);
    for minute in 0..10 {
        for second in 0..60_u64 {
            stage.now = (minute * 60 + second) * 1_000 + 1;
            stage.wait(0, "w/a.example/x", 20, 100_000);
            let slots = stage.take();
            for slot in slots {
                *(if slot.retry { &mut retries } else { &mut first }) += 1;
                // Fails less often than opens the breaker.
                let heard = if slot.retry { Heard::Trouble } else { Heard::Answer };
                stage.end(&slot, heard);
            }
        }
    }
    let most = (first + retries) / 5 + 10 * 10 + 10;
    assert!(retries <= most && retries > 1_000, "{retries} retries, {first} first attempts");
}

#[test]
fn a_storm_of_due_retries_ramps_and_then_flows_n07() {
    let mut stage = Stage::wide();
    stage.wait(0, "w/a.example/x", 0, 100_000);
    let mut rounds = Vec::new();
    for _ in 0..40 {
        let slots = stage.take();
        rounds.push(slots.len());
        for slot in &slots {
            stage.end(slot, Heard::Answer);
        }
    }
    assert_eq!(rounds[0], 10, "the floor");
    assert!(rounds.windows(2).all(|pair| pair[1] <= pair[0] * 3 / 2), "no jump: {rounds:?}");
    assert_eq!(rounds[39], 100, "and in the end a burst at once");
}

#[test]
fn a_hold_keeps_a_flow_or_a_destination_waiting() {
    let mut stage = Stage::wide();
    stage.wait(0, "w/a.example/x", 100, 0);
    stage.wait(1, "w/a.example/y", 100, 0);
    stage.wait(2, "v/a.example/x", 100, 0);
    let slots = stage.take();
    let held = slots.iter().find(|slot| slot.id == FlowId::made_up(0)).unwrap();
    stage.state.hold_flow(held, 5_000);
    let slots = stage.take();
    assert!(!slots.is_empty() && slots.iter().all(|slot| slot.id != FlowId::made_up(0)));
    stage.state.hold_destination(held, 9_000);
    stage.state.hold_destination(held, 8_000);
    let _more: usize = (0..10).map(|_| stage.take().len()).sum();
    let left = stage.waiting.values().filter(|waiting| waiting.flow.workspace == "v").map(|waiting| waiting.first);
    assert_eq!(left.sum::<u64>(), 0, "the same host of another workspace goes on");
    assert_eq!(stage.take_in(Lane::Realtime).wake_at, Some(9_000), "the later of two");
    stage.now = 9_000;
    assert!(!stage.take().is_empty());
}

#[test]
fn what_is_too_old_is_looked_for_where_nothing_may_be_sent() {
    let mut stage = Stage::wide();
    let age_max = Some(Duration::from_secs(3_600));
    stage.limits.insert("x".to_owned(), Limits { age_max, ..Limits::default() });
    stage.wait(0, "w/a.example/x", 100, 100);
    let held = stage.take().remove(0);
    stage.state.hold_destination(&held, u64::MAX);
    stage.flying.clear();
    let plan = stage.take_in(Lane::Realtime);
    assert_eq!((plan.slots.len(), plan.wake_at), (0, Some(30_001)));
    stage.now = 30_001;
    let plan = stage.take_in(Lane::Realtime);
    assert_eq!(plan.grants.len(), 1);
    assert_eq!(plan.grants[0].accepted_until, UNIX + 30_001 - 3_600_001);
    assert!(plan.slots.iter().all(|slot| slot.expiry));
    let taken = plan.slots.clone();
    assert!(stage.take().is_empty(), "not again for a while");
    stage.state.expire_more(&taken[0], stage.now);
    assert!(!stage.take().is_empty(), "unless there was more");
}

/// Of very large jobs the inbox gives fewer than were granted, and there are more all the same.
#[tokio::test]
async fn where_some_were_too_old_it_is_looked_again_at_once() {
    let mut stage = Stage::wide();
    let age_max = Some(Duration::from_secs(3_600));
    stage.limits.insert("x".to_owned(), Limits { age_max, ..Limits::default() });
    stage.wait(0, "w/a.example/x", 200, 0);
    let held = stage.take().remove(0);
    stage.state.hold_destination(&held, u64::MAX);
    stage.flying.clear();
    stage.take_in(Lane::Realtime);
    stage.now = 30_001;
    let plan = stage.take_in(Lane::Realtime);
    assert!(plan.slots.len() > 1 && plan.slots.iter().all(|slot| slot.expiry));

    let folder = tempfile::tempdir().unwrap();
    let (clock, fleet) = (Clock::manual(stage.now as i64), Fleet::open(folder.path(), None));
    let settings = InboxSettings::Embedded(EmbeddedSettings::new(folder.path().join("inbox.db")));
    let inbox = Inbox::open(settings, clock.clone()).await.unwrap();
    let flow = Arc::new(Flow { workspace: "w".to_owned(), destination: "d".to_owned(), owner: "o".to_owned() });
    let job = NewJob { id: uuid::Uuid::new_v4(), lane: Lane::Realtime, flow, payload: bytes::Bytes::new() };
    inbox.accept(Accept { request: uuid::Uuid::new_v4(), claim: None, jobs: vec![job] }).await.unwrap();
    let waiting = inbox.waiting(Lane::Realtime, 0).await.unwrap().waiting.remove(0);
    let job = inbox.lease(vec![Grant::any(waiting.id, 1, 0)]).await.unwrap().remove(0);
    let dispatch = Dispatch::new(DispatchSettings::default(), [1, 1], clock, fleet, Family::default());
    let (id, slots) = (plan.slots[0].id, plan.slots);
    dispatch.inner().state = stage.state;
    let given = |count: usize| {
        let (slots, grants) = (slots.clone(), Vec::new());
        let taking = Taking { dispatch: dispatch.clone(), grants, slots, wake_after: None };
        let jobs = vec![Leased { flow: id, ..job.clone() }; count];
        assert_eq!(taking.give(jobs).len(), count);
        dispatch.inner().state.plan(Lane::Realtime, stage.now, UNIX).slots.len()
    };
    assert_eq!(given(0), 0, "there were none");
    assert_ne!(given(1), 0, "there was one, and may be more");
}

#[test]
fn a_job_that_goes_elsewhere_counts_there() {
    let mut stage = Stage::wide();
    stage.wait(0, "w/old.example/x", 50, 0);
    let mut slots = stage.take();
    let now = stage.now;
    for slot in slots.iter_mut().take(20) {
        stage.flying.retain(|flying| flying != slot);
        assert_eq!(stage.state.redirect(slot, "new.example", now), Ok(()));
        stage.flying.push(slot.clone());
    }
    for slot in slots.iter().take(20) {
        stage.end(slot, Heard::Trouble);
    }
    let mut late = slots[30].clone();
    assert!(matches!(stage.state.redirect(&mut late, "new.example", now), Err((Reason::Breaker, Some(_)))));
    stage.wait(0, "w/old.example/x", 1, 0);
    assert_eq!(stage.take().len(), 1, "where it was accepted for, nothing failed");
}

#[test]
fn what_is_idle_is_forgotten() {
    let mut stage = Stage::wide();
    for number in 0..100 {
        stage.wait(number, &format!("w{number}/a.example/x"), 3, 0);
    }
    assert_eq!(stage.run(Heard::Answer), 300);
    stage.now = 200_000;
    stage.wait(200, "other/a.example/x", 1, 0);
    stage.run(Heard::Answer);
    stage.now = 400_000;
    stage.take();
    assert_eq!(stage.state.sizes(), (0, 0));
}

/// Random loads on random limits. After every step: no limit is exceeded; in the end: nothing is left waiting.
#[test]
fn no_limit_is_ever_exceeded_and_nobody_waits_for_ever() {
    for seed in 0..8 {
        Model::new(seed).run();
    }
}

struct Model {
    stage: Stage,
    dice: u64,
    settings: DispatchSettings,
    places: [usize; 2],
    flows: Vec<(Lane, i64, String)>,
    ends: Vec<(Millis, Slot)>,
    /// When each owner was sent to.
    sent: HashMap<String, Vec<Millis>>,
    wake_at: [Option<Millis>; 2],
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let settings = DispatchSettings {
            destination_share: 10 + u8::try_from(roll(&mut dice, 90)).unwrap(),
            destination_rate: (roll(&mut dice, 2) == 0).then(|| rate(50, 5)),
            breaker_wait: Duration::from_secs(1),
        };
        let places = [1 + roll(&mut dice, 40) as usize, 1 + roll(&mut dice, 10) as usize];
        let mut stage = Stage::new(settings, places);
        let mut flows = Vec::new();
        for number in 0..24 {
            let owner = format!("o{number}");
            let limits = Limits {
                rate: (roll(&mut dice, 2) == 0)
                    .then(|| rate(1 + roll(&mut dice, 60) as u32, 1 + roll(&mut dice, 9) as u32).into()),
                concurrency_max: (roll(&mut dice, 2) == 0).then(|| 1 + roll(&mut dice, 5) as u32),
                age_max: (roll(&mut dice, 2) == 0).then(|| Duration::from_secs(3600)),
            };
            stage.limits.insert(owner.clone(), limits);
            let lane = Lane::ALL[usize::from(number % 3 == 0)];
            flows.push((lane, number, format!("w{}/d{}.example/{owner}", number % 4, number % 5)));
        }
        let (ends, sent) = (Vec::new(), HashMap::new());
        Self { stage, dice, settings, places, flows, ends, sent, wake_at: [Some(0); 2] }
    }

    fn run(&mut self) {
        let mut idle_since = 0;
        while self.stage.now < 3_600_000 {
            let loading = self.stage.now < 10_000;
            let mut woken = self.ends_and_arrivals(loading);
            for lane in Lane::ALL {
                if woken || self.wake_at[lane.index()].is_some_and(|at| at <= self.stage.now) {
                    self.plan(lane);
                    woken = true;
                }
            }
            if woken {
                idle_since = self.stage.now;
            }
            let left: u64 = self.stage.waiting.values().map(|waiting| waiting.first + waiting.retries).sum();
            if !loading && left == 0 && self.ends.is_empty() {
                return;
            }
            assert!(self.stage.now - idle_since < 600_000, "{left} wait and nobody is ever woken");
            let next = self.wake_at.into_iter().flatten().chain(self.ends.iter().map(|(at, _)| *at)).min();
            let step = if loading { self.stage.now + roll(&mut self.dice, 20) } else { u64::MAX };
            self.stage.now = step.min(next.unwrap_or(self.stage.now + 1_000)).max(self.stage.now + 1);
        }
        panic!("in an hour not everything was sent: {:?}", self.stage.reason());
    }

    /// What ends, fails a third of the time and then comes back as a retry; what comes.
    fn ends_and_arrivals(&mut self, loading: bool) -> bool {
        let now = self.stage.now;
        let over: Vec<Slot> = self.ends.iter().filter(|(at, _)| *at <= now).map(|(_, slot)| slot.clone()).collect();
        self.ends.retain(|(at, _)| *at > now);
        for slot in &over {
            let fails = !slot.expiry && roll(&mut self.dice, if loading { 3 } else { 20 }) == 0;
            let heard = if slot.expiry {
                Heard::Nothing
            } else if fails {
                Heard::Trouble
            } else {
                Heard::Answer
            };
            self.stage.end(slot, heard);
            if fails {
                self.more(slot.id, 0, 1);
            }
        }
        let came = loading && roll(&mut self.dice, 3) == 0;
        if came {
            let number = roll(&mut self.dice, 24) as i64;
            let (first, retries) = (roll(&mut self.dice, 8), roll(&mut self.dice, 2));
            self.more(FlowId::made_up(number), first, retries);
        }
        came || !over.is_empty()
    }

    fn more(&mut self, id: FlowId, first: u64, retries: u64) {
        let (lane, number, name) =
            self.flows.iter().find(|(_, number, _)| FlowId::made_up(*number) == id).unwrap().clone();
        let before = self.stage.waiting.get(&(lane.index(), id)).map_or((0, 0), |one| (one.first, one.retries));
        self.stage.wait_in(lane, number, &name, before.0 + first, before.1 + retries);
    }

    fn plan(&mut self, lane: Lane) {
        let now = self.stage.now;
        let plan = self.stage.take_in(lane);
        self.wake_at[lane.index()] = plan.wake_at;
        assert!(plan.wake_at.is_none_or(|at| at > now), "computed wake-ups lie ahead");
        let went_on = !plan.slots.is_empty();
        for slot in plan.slots {
            let ends = now + 1 + if slot.expiry { 0 } else { roll(&mut self.dice, 400) };
            if !slot.expiry {
                self.sent.entry(slot.flow.owner.clone()).or_default().push(now);
            }
            self.ends.push((ends, slot));
        }
        self.check();
        if went_on {
            // What was left out for want of room in the plan.
            self.wake_at[lane.index()] = Some(now + 1);
        }
    }

    fn check(&self) {
        for lane in Lane::ALL {
            let flying = self.stage.flying.iter().filter(|slot| slot.lane == lane).count();
            assert!(flying <= self.places[lane.index()], "places of {lane:?}");
        }
        let mut by_destination: HashMap<(usize, &str, &str), u32> = HashMap::new();
        let mut by_owner: HashMap<&str, u32> = HashMap::new();
        for slot in self.stage.flying.iter().filter(|slot| !slot.expiry) {
            *by_destination.entry((slot.lane.index(), &slot.flow.workspace, slot.destination())).or_default() += 1;
            *by_owner.entry(&slot.flow.owner).or_default() += 1;
        }
        for ((lane, workspace, destination), flying) in by_destination {
            let most = self.settings.share(self.places[lane] as u32);
            assert!(flying <= most, "{workspace} {destination}: {flying} of {most}");
        }
        for (owner, flying) in by_owner {
            let limits = self.stage.limits[owner.split_once('/').unwrap().1];
            assert!(limits.concurrency_max.is_none_or(|most| flying <= most), "{owner}: {flying}");
        }
        for (owner, times) in &self.sent {
            let Some(limit) = self.stage.limits[owner.split_once('/').unwrap().1].rate else { continue };
            // Over any span that ends now.
            let now = self.stage.now;
            for (at, from) in times.iter().enumerate().rev().take(12) {
                let most = u64::from(limit.limit().burst)
                    + (now - from) * u64::from(limit.limit().requests_per_second) / 1_000
                    + 1;
                let sent = (times.len() - at) as u64;
                assert!(sent <= most, "{owner}: {sent} in {} ms, at most {most}", now - from);
            }
        }
    }
}

fn roll(dice: &mut u64, sides: u64) -> u64 {
    *dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*dice >> 33) % sides
}

#[test]
fn settings_that_cannot_be_kept_are_refused() {
    let good = DispatchSettings::default();
    assert_eq!(good.check(), Ok(()));
    for broken in [
        DispatchSettings { destination_share: 0, ..good },
        DispatchSettings { destination_share: 101, ..good },
        DispatchSettings { destination_rate: Some(rate(0, 1)), ..good },
        DispatchSettings { destination_rate: Some(rate(1, 0)), ..good },
    ] {
        assert!(broken.check().is_err(), "{broken:?}");
    }
}

#[tokio::test]
async fn a_place_is_free_when_its_call_is_over_while_what_came_of_it_is_being_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(UNIX);
    let settings = InboxSettings::Embedded(EmbeddedSettings::new(folder.path().join("inbox.db")));
    let inbox = Inbox::open(settings, clock.clone()).await.unwrap();
    let fleet = Fleet::open(folder.path(), None);
    let dispatch = Dispatch::new(DispatchSettings::default(), [1, 1], clock, fleet, Family::default());
    let (served, lane) = (Served::default(), Lane::Realtime);
    let flow = Arc::new(Flow { workspace: "w".to_owned(), destination: "d".to_owned(), owner: "o".to_owned() });
    let job = || NewJob { id: uuid::Uuid::new_v4(), lane, flow: flow.clone(), payload: bytes::Bytes::new() };
    inbox.accept(Accept { request: uuid::Uuid::new_v4(), claim: None, jobs: vec![job(), job()] }).await.unwrap();
    dispatch.update(lane, inbox.waiting(lane, 0).await.unwrap().waiting, &served);
    let taking = dispatch.plan(lane, &served).await;
    let leased = inbox.lease(taking.grants()).await.unwrap();
    let (_job, permit) = taking.give(leased).pop().unwrap();
    assert!(dispatch.plan(lane, &served).await.grants().is_empty(), "the one place is taken");
    permit.heard(Heard::Answer);
    let taking = dispatch.plan(lane, &served).await;
    assert_eq!(taking.grants().iter().map(|grant| grant.first).collect::<Vec<_>>(), [1]);
    drop(permit);
    assert!(dispatch.plan(lane, &served).await.grants().is_empty(), "it is given back once");
    drop(taking);
    assert_eq!(dispatch.plan(lane, &served).await.grants().len(), 1);
    inbox.close().await;
}
