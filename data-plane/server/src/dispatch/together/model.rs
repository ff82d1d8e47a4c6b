//! Several planes, one store, and jobs that whoever is first gets: at any moment the planes together keep to the limits of one, also when
//! answers are lost and planes die; and in the end nothing is left waiting.

use std::sync::Arc;

use sluice_core::model::RateLimit;

use super::super::{DispatchSettings, Heard, Limits};
use super::*;
use crate::inbox::{Flow, FlowId, Lane, Waiting};

const LIMIT: RateLimit = RateLimit { requests_per_second: 40, burst: 6 };
const AT_ONCE: u32 = 3;
const PLANES: usize = 3;
/// How long what a plane says is believed.
const BELIEVED: Millis = 2_000;
const REQUEST: u64 = 1_000_000;

/// What `limits.lua` does.
struct Store {
    left: u64,
    at: Millis,
    full_at: Millis,
    in_use: [(u32, Millis); PLANES],
}

impl Store {
    fn take(&mut self, plane: usize, wanted: &Wanted, now: Millis) -> Given {
        let full = REQUEST * u64::from(LIMIT.burst);
        let came = (now - self.at) * 1_000 * u64::from(LIMIT.requests_per_second);
        self.left += came;
        if self.left < full && wanted.unused.since >= self.full_at {
            self.left += REQUEST * u64::from(wanted.unused.count);
        }
        if self.left >= full {
            (self.left, self.full_at) = (full, now);
        }
        self.at = now;
        let others = self.in_use.iter().enumerate().filter(|(other, (_, until))| *other != plane && *until > now);
        let others: u32 = others.map(|(_, (count, _))| count).sum();
        let room = AT_ONCE.saturating_sub(others + wanted.in_use);
        let count = wanted.count.min(room).min(u32::try_from(self.left / REQUEST).unwrap());
        self.left -= REQUEST * u64::from(count);
        self.in_use[plane] = (wanted.in_use + count, now + BELIEVED);
        Given { count, left: self.left, at: now }
    }
}

struct Model {
    dice: u64,
    now: Millis,
    store: Store,
    planes: Vec<State>,
    ready: u64,
    /// By plane, with their place among what was sent.
    flying: Vec<Vec<(Slot, usize)>>,
    /// When each was sent; nothing when it turned out that it was not.
    sent: Vec<Option<Millis>>,
}

impl Model {
    fn new(seed: u64) -> Self {
        let dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let store = Store { left: REQUEST * u64::from(LIMIT.burst), at: 1, full_at: 1, in_use: [(0, 0); PLANES] };
        let planes = (0..PLANES).map(|_| plane()).collect();
        Self { dice, now: 1, store, planes, ready: 0, flying: vec![Vec::new(); PLANES], sent: Vec::new() }
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides
    }

    /// A plane decides, asks, and takes what jobs there are.
    fn work(&mut self, plane: usize, answer_is_lost: bool) {
        let (now, state) = (self.now, &mut self.planes[plane]);
        let flow = Flow { workspace: "w".to_owned(), destination: "d".to_owned(), owner: "o".to_owned() };
        let waiting = Waiting { id: FlowId::made_up(1), flow: Arc::new(flow), first: self.ready, retries: 0 };
        state.update(Lane::Realtime, waiting, |_| limits(), now);
        let mut plan = state.plan(Lane::Realtime, now, 0);
        let said = state.say(&plan.slots, BELIEVED / 3, now);
        let given: Vec<Given> = said.iter().map(|said| self.store.take(plane, &said.wanted, now)).collect();
        if answer_is_lost {
            plan.slots.iter().for_each(|slot| state.not_taken(slot, now));
            return;
        }
        state.settle(&said, &given, &mut plan.slots, &mut plan.grants, now);
        for slot in plan.slots {
            if self.ready == 0 {
                state.not_taken(&slot, now);
            } else {
                self.ready -= 1;
                self.flying[plane].push((slot, self.sent.len()));
                self.sent.push(Some(now));
            }
        }
        let flying: usize = self.flying.iter().map(Vec::len).sum();
        assert!(flying <= AT_ONCE as usize, "{flying} at once at {now}");
    }

    fn end(&mut self, plane: usize, heard: Heard) {
        let Some((slot, place)) = self.flying[plane].pop() else { return };
        if heard == Heard::Nothing {
            self.sent[place] = None;
            self.ready += 1;
        }
        self.planes[plane].heard(&slot, heard, self.now);
        self.planes[plane].leave(&slot);
    }

    fn die(&mut self, plane: usize) {
        self.ready += self.flying[plane].len() as u64;
        self.flying[plane].clear();
        self.planes[plane] = self::plane();
    }

    fn run(mut self) {
        for _ in 0..4_000 {
            self.now += self.roll(12);
            let plane = usize::try_from(self.roll(PLANES as u64)).unwrap();
            match self.roll(100) {
                0..55 => {
                    let lost = self.roll(12) == 0;
                    self.work(plane, lost);
                }
                55..75 => self.end(plane, Heard::Answer),
                75..80 => self.end(plane, Heard::Nothing),
                80 => self.die(plane),
                _ => self.ready += 1,
            }
        }
        let began = self.now;
        while self.ready > 0 || self.flying.iter().any(|flying| !flying.is_empty()) {
            self.now += 20;
            for plane in 0..PLANES {
                self.work(plane, false);
                while !self.flying[plane].is_empty() {
                    self.end(plane, Heard::Answer);
                }
            }
            // Three at once, each of which has ended within 20 ms.
            assert!(self.now - began < 60_000, "{} wait for ever", self.ready);
        }
        let sent: Vec<Millis> = self.sent.into_iter().flatten().collect();
        for (n, from) in sent.iter().enumerate() {
            for (count, to) in (1..).zip(&sent[n..]) {
                let most = u64::from(LIMIT.burst) * 1_000 + (to - from) * u64::from(LIMIT.requests_per_second);
                assert!(count * 1_000 <= most, "{count} within {} ms", to - from);
            }
        }
        assert!(sent.len() > 200, "{} were sent", sent.len());
    }
}

fn limits() -> Limits {
    Limits { rate: Some(LIMIT.into()), concurrency_max: Some(AT_ONCE), age_max: None }
}

fn plane() -> State {
    State::new(DispatchSettings { destination_share: 100, ..Default::default() }, [100, 0])
}

#[test]
fn n08_planes_together_keep_to_the_limits_of_one() {
    for seed in 0..20 {
        Model::new(seed).run();
    }
}
