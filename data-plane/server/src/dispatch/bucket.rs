//! Token buckets: requests per second (D10), and the share of traffic that may be retries (D09). Both are functions of
//! the time they are given; nothing is rounded away, so that a rate holds over any length of time.

use sluice_core::model::RateLimit;

use super::Millis;

/// One request, in the units a rate bucket counts in: a rate of `n` per second brings `n` units each millisecond.
const REQUEST: u64 = 1_000;

/// A limit that so many data planes keep together: what one of them sends counts for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    limit: RateLimit,
    planes: u32,
}

impl From<RateLimit> for Rate {
    fn from(limit: RateLimit) -> Self {
        Self { limit, planes: 1 }
    }
}

impl Rate {
    /// The part of one of so many planes.
    pub fn of(self, planes: u32) -> Self {
        Self { planes: planes.max(1), ..self }
    }

    /// Of all planes together.
    pub(super) fn limit(self) -> RateLimit {
        self.limit
    }

    /// What a request takes.
    fn cost(self) -> u64 {
        REQUEST * u64::from(self.planes)
    }

    /// What may be saved up: one request at least.
    fn most(self) -> u64 {
        REQUEST * u64::from(self.limit.burst.max(self.planes))
    }
}

/// What is left of a rate. The limit comes with every call, so that a changed one counts at once and keeps the level.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    credit: u64,
    at: Millis,
    /// When time had brought all there may be last: what was taken before has been made up for.
    full_at: Millis,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(rate: Rate, now: Millis) -> Self {
        Self { credit: rate.most(), at: now, full_at: now }
    }

    /// With what time has brought.
    fn by(self, rate: Rate, now: Millis) -> Self {
        let came = now.saturating_sub(self.at).saturating_mul(rate.limit.requests_per_second.into());
        let credit = self.credit.saturating_add(came);
        let full_at = if credit < rate.most() { self.full_at } else { now.max(self.at) };
        Self { credit: credit.min(rate.most()), at: now.max(self.at), full_at }
    }

    /// When the next request may be sent: `now` or later.
    pub(super) fn ready_at(&self, rate: Rate, now: Millis) -> Millis {
        let missing = rate.cost().saturating_sub(self.by(rate, now).credit);
        now + missing.div_ceil(u64::from(rate.limit.requests_per_second).max(1))
    }

    /// Counts a request.
    pub(super) fn take(&mut self, rate: Rate, now: Millis) {
        *self = self.by(rate, now);
        self.credit = self.credit.saturating_sub(rate.cost());
    }

    /// Nothing was taken lately.
    pub(super) fn is_full(&self, rate: Rate, now: Millis) -> bool {
        self.by(rate, now).credit >= rate.most()
    }

    /// Takes back a request that was counted then and not sent, unless time has made up for it.
    pub(super) fn give_back(&mut self, rate: Rate, taken_at: Millis, now: Millis) {
        *self = self.by(rate, now);
        if taken_at >= self.full_at {
            self.credit = self.credit.saturating_add(rate.cost()).min(rate.most());
        }
    }
}

/// One retry, in the units a budget counts in: one unit comes each millisecond, which is the floor of 10 a minute.
const RETRY: u64 = 6_000;
/// What a request brings: of five requests one may be a retry.
const SHARE: u64 = RETRY / 4;
/// What time alone brings together: 10 retries.
const FLOOR: u64 = 10 * RETRY;
/// The most that may be saved up: 100 retries.
const MOST: u64 = 100 * RETRY;

/// How many retries a destination may be sent (D09): one for each four other requests, and 10 a minute whatever happens.
/// A retry that succeeds is no burden: it gives back what it took and brings its share, so that after a recovery
/// waiting retries ramp up as fast as the destination takes them, and none dies of the budget.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    credit: u64,
    at: Millis,
    /// When time had brought its part last, as with [`Bucket`].
    full_at: Millis,
}

impl Budget {
    pub(super) fn new(now: Millis) -> Self {
        Self { credit: FLOOR, at: now, full_at: now }
    }

    /// With what time has brought.
    fn by(self, now: Millis) -> Self {
        let at = now.max(self.at);
        let credit = self.credit.saturating_add(at - self.at);
        match (self.credit < FLOOR, credit < FLOOR) {
            (true, true) => Self { credit, at, ..self },
            (true, false) => Self { credit: FLOOR, at, full_at: at },
            (false, _) => Self { at, ..self },
        }
    }

    /// When the next retry may be sent.
    pub(super) fn ready_at(&self, now: Millis) -> Millis {
        now + RETRY.saturating_sub(self.by(now).credit)
    }

    /// Nothing is owed.
    pub(super) fn is_full(&self, now: Millis) -> bool {
        self.by(now).credit >= FLOOR
    }

    /// Counts a retry.
    pub(super) fn take(&mut self, now: Millis) {
        *self = self.by(now);
        self.credit = self.credit.saturating_sub(RETRY);
    }

    /// A retry that was counted then was not sent.
    pub(super) fn give_back(&mut self, taken_at: Millis, now: Millis) {
        *self = self.by(now);
        if taken_at >= self.full_at {
            self.credit = self.credit.saturating_add(RETRY).min(MOST);
        }
    }

    /// A request was sent: a first attempt, or a retry that succeeded.
    pub(super) fn earn(&mut self, retry: bool, now: Millis) {
        let earned = if retry { RETRY + SHARE } else { SHARE };
        *self = self.by(now);
        self.credit = self.credit.saturating_add(earned).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(requests_per_second: u32, burst: u32) -> Rate {
        RateLimit { requests_per_second, burst }.into()
    }

    /// Takes whenever it may, looking every `step` ms.
    fn taken(bucket: &mut Bucket, limit: Rate, from: Millis, until: Millis, step: usize) -> u32 {
        let mut taken = 0;
        for now in (from..until).step_by(step) {
            while bucket.ready_at(limit, now) <= now {
                bucket.take(limit, now);
                taken += 1;
            }
        }
        taken
    }

    #[test]
    fn a_rate_holds_however_often_it_is_asked() {
        for (rate, burst, step) in [(1, 1, 7), (3, 1, 1), (100, 10, 13), (1_000, 100, 50), (10_000, 1_000, 1)] {
            let limit = limit(rate, burst);
            let count = taken(&mut Bucket::new(limit, 0), limit, 0, 30_000, step);
            let most = 30 * rate + burst;
            assert!(count <= most && f64::from(count) >= f64::from(30 * rate) * 0.95, "{rate}/s: {count} of {most}");
        }
    }

    #[test]
    fn n08_planes_together_send_what_the_limit_says() {
        for (rate, burst, planes) in [(10, 30, 3), (1, 1, 3), (7, 10, 4), (100, 2, 16)] {
            let limit = limit(rate, burst).of(planes);
            let sent: u32 = (0..planes).map(|_| taken(&mut Bucket::new(limit, 0), limit, 0, 60_000, 1)).sum();
            let most = 60 * rate + burst.max(planes);
            assert!(sent <= most && f64::from(sent) >= f64::from(60 * rate) * 0.9, "{rate}/s by {planes}: {sent}");
        }
        // A plane that finds itself with others goes on with what it has left.
        let alone = limit(1, 6);
        let mut bucket = Bucket::new(alone, 0);
        bucket.take(alone, 0);
        bucket.take(alone, 0);
        assert_eq!(taken(&mut bucket, alone.of(2), 0, 1, 1), 2);
        assert_eq!(bucket.ready_at(alone.of(2), 0), 2_000);
    }

    #[test]
    fn it_says_when_to_ask_again() {
        let slow = limit(2, 1);
        let mut bucket = Bucket::new(slow, 0);
        assert_eq!(bucket.ready_at(slow, 0), 0);
        bucket.take(slow, 0);
        assert_eq!(bucket.ready_at(slow, 100), 500);
        bucket.give_back(slow, 0, 100);
        assert_eq!(bucket.ready_at(slow, 100), 100);
    }

    #[test]
    fn what_is_given_back_late_was_brought_by_time_already() {
        let slow = limit(1, 2);
        let mut bucket = Bucket::new(slow, 0);
        bucket.take(slow, 0);
        bucket.take(slow, 100);
        bucket.give_back(slow, 100, 200);
        assert_eq!(bucket.ready_at(slow, 200), 200, "nothing was brought yet");
        // All is there again at 1,000.
        bucket.take(slow, 1_500);
        bucket.take(slow, 1_500);
        bucket.give_back(slow, 0, 1_500);
        assert_eq!(bucket.ready_at(slow, 1_500), 2_500);
        bucket.give_back(slow, 1_500, 1_600);
        assert_eq!(bucket.ready_at(slow, 1_600), 1_600);

        let mut budget = Budget::new(0);
        budget.take(0);
        budget.give_back(0, 3_000);
        assert_eq!(taken_retries(&mut budget, 3_000), 10, "and no eleventh");
        budget.give_back(3_000, 3_000);
        assert_eq!(taken_retries(&mut budget, 3_000), 1);
        // Time has brought ten again at 63,000.
        budget.give_back(3_000, 70_000);
        assert_eq!(taken_retries(&mut budget, 70_000), 10);
        // Beyond those, nothing comes by itself.
        (0..80).for_each(|_| budget.earn(false, 70_000));
        budget.take(70_000);
        budget.give_back(70_000, 200_000);
        assert_eq!(taken_retries(&mut budget, 200_000), 20);
    }

    fn taken_retries(budget: &mut Budget, now: Millis) -> u32 {
        let mut taken = 0;
        while budget.ready_at(now) <= now {
            budget.take(now);
            taken += 1;
        }
        taken
    }

    /// Whatever is given back, and whenever: what was given back may be sent beside a burst, and no more than another burst of it.
    #[test]
    fn a_rate_holds_whatever_is_given_back() {
        let mut dice = 1_u64;
        let mut roll = |sides: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        for (rate, burst) in [(1, 1), (1, 5), (20, 3), (500, 40)] {
            let limit = limit(rate, burst);
            let (mut bucket, mut sent, mut now) = (Bucket::new(limit, 0), Vec::new(), 0);
            let mut flying: Vec<Millis> = Vec::new();
            for _ in 0..3_000 {
                now += roll(2_000 / u64::from(rate));
                while roll(4) > 0 && bucket.ready_at(limit, now) <= now {
                    bucket.take(limit, now);
                    flying.push(now);
                }
                while roll(3) == 0 && !flying.is_empty() {
                    let one = flying.swap_remove(usize::try_from(roll(flying.len() as u64)).unwrap());
                    if roll(2) == 0 { bucket.give_back(limit, one, now) } else { sent.push(one) }
                }
            }
            sent.sort_unstable();
            for (n, from) in sent.iter().enumerate() {
                for (count, to) in (1..).zip(&sent[n..]) {
                    let most = 2 * u64::from(burst) * 1_000 + (to - from) * u64::from(rate);
                    assert!(count * 1_000 <= most, "{rate}/s, {burst}: {count} within {} ms", to - from);
                }
            }
            assert!(sent.len() > 500, "{}", sent.len());
        }
    }

    #[test]
    fn a_changed_limit_keeps_the_level() {
        let (slow, fast) = (limit(1, 1), limit(10, 5));
        let mut bucket = Bucket::new(slow, 0);
        bucket.take(slow, 0);
        assert_eq!(bucket.ready_at(fast, 0), 100, "raising it does not fill it");
        assert_eq!(taken(&mut bucket, fast, 0, 10_000, 1), 99);
        assert_eq!(taken(&mut bucket, slow, 10_000, 20_000, 1), 10, "lowering it keeps no more than its burst");
    }

    #[test]
    fn of_five_requests_one_may_be_a_retry_and_ten_a_minute_always() {
        let mut budget = Budget::new(0);
        let retries = |budget: &mut Budget, from: Millis, until: Millis| {
            let mut taken = 0;
            for now in from..until {
                while budget.ready_at(now) <= now {
                    budget.take(now);
                    taken += 1;
                }
            }
            taken
        };
        assert_eq!(retries(&mut budget, 0, 1), 10);
        assert_eq!(retries(&mut budget, 1, 600_001), 100, "ten minutes");
        for now in 0..400 {
            budget.earn(false, 600_001 + now);
        }
        assert_eq!(retries(&mut budget, 600_401, 600_402), 100, "a fifth of 500");
    }

    #[test]
    fn a_retry_that_succeeds_lets_more_follow() {
        let mut budget = Budget::new(0);
        let (mut sent, mut rounds) = (0, 0);
        while sent < 500 {
            let mut together = 0;
            while budget.ready_at(0) == 0 {
                budget.take(0);
                together += 1;
            }
            (0..together).for_each(|_| budget.earn(true, 0));
            sent += together;
            rounds += 1;
        }
        assert!((8..=14).contains(&rounds), "a ramp, not a jump: {rounds}");
    }
}
