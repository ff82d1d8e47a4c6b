//! Limits that all planes keep together, exactly, in the store they share (D10): what a plane asks of them, and what it gets.
//!
//! Of rates, permits are taken with each request. Of requests at once, a plane says how many it has, and how many more it wants: what it
//! says replaces what it said before, so that a lost answer is made up for by the next one, and is believed for the time of a lease.

use std::time::Duration;

use sluice_core::model::RateLimit;

use super::{Redis, Unavailable};

/// A request, in what is left of a rate: a rate of `n` per second brings `n` of these units each microsecond.
const REQUEST: u64 = 1_000_000;
/// Who wants several waits for several, but no longer than this: a fast rate is not asked for each of its permits.
const TOGETHER: Duration = Duration::from_millis(20);
/// How long until it is worth asking again where others have all requests at once: they do not say when one of theirs ends.
const ASKED_AGAIN: Duration = Duration::from_millis(100);

/// Permits of a rate that were given and not used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unused {
    /// How many.
    pub count: u32,
    /// When the first of them was given ([`Given::at`]): they count only if the rate was not full since.
    pub since: u64,
}

impl Unused {
    /// One more, that was given then.
    pub fn add(&mut self, at: u64) {
        self.since = if self.count == 0 { at } else { self.since.min(at) };
        self.count += 1;
    }
}

/// What is wanted of a limit, and what is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Of the limit; the same for all planes.
    pub name: String,
    /// Requests per second, and their burst.
    pub rate: Option<RateLimit>,
    /// Requests at once.
    pub concurrency_max: Option<u32>,
    /// How many of these this plane has under way.
    pub in_use: u32,
    /// Permits of the rate that this plane gives back.
    pub unused: Unused,
    /// Requests that it wants to make now.
    pub count: u32,
}

impl Wanted {
    /// One request of a rate.
    pub fn request(name: String, rate: RateLimit) -> Self {
        Self { name, rate: Some(rate), concurrency_max: None, in_use: 0, unused: Unused::default(), count: 1 }
    }
}

/// Why less was given than was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// The rate is used up for so long.
    Rate(Duration),
    /// Others have the rest of the requests at once; when it is worth asking again.
    Concurrency(Duration),
}

/// What was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// Requests that may be made now.
    pub count: u32,
    /// What is left of the rate then, in millionths of a request.
    pub left: u64,
    /// When that is, in microseconds of the store.
    pub at: u64,
}

impl Given {
    /// Why it is less than was wanted, if it is.
    pub fn short(self, wanted: &Wanted) -> Option<Short> {
        let missing = wanted.count.checked_sub(self.count).filter(|missing| *missing > 0)?;
        let Some(rate) = wanted.rate.filter(|_| self.left < REQUEST) else {
            return Some(Short::Concurrency(ASKED_AGAIN));
        };
        let until = |requests: u32| {
            let micros = (REQUEST * u64::from(requests)).saturating_sub(self.left);
            Duration::from_micros(micros.div_ceil(u64::from(rate.requests_per_second).max(1)))
        };
        let several = missing.min(rate.burst.div_ceil(2));
        Some(Short::Rate(until(several).min(TOGETHER).max(until(1))))
    }
}

/// A handle on the limits; cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger {
    pub(super) redis: Redis,
    pub(super) believed: Duration,
}

impl Ledger {
    /// How long what a plane says of its requests under way is believed.
    pub fn believed(&self) -> Duration {
        self.believed
    }

    /// Takes what there is of what is wanted, in the same order.
    ///
    /// # Errors
    /// [`Unavailable`]: whether something was taken is unknown. It counts as taken.
    pub async fn take(&self, wanted: Vec<Wanted>) -> Result<Vec<Given>, Unavailable> {
        self.redis.take(wanted).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_when_to_ask_again() {
        let wanted = |requests_per_second, burst, count| Wanted {
            count,
            ..Wanted::request(String::new(), RateLimit { requests_per_second, burst })
        };
        let millis = |millis| Some(Short::Rate(Duration::from_millis(millis)));
        let cases = [
            (wanted(1, 1, 1), 0, 1_000_000, None),
            (wanted(1, 1, 1), 0, 250_000, millis(750)),
            (wanted(50, 100, 1), 0, 0, millis(20)),
            // Many wait for a moment, and take several then; never more than half a burst.
            (wanted(1_000, 100, 64), 0, 0, millis(20)),
            (wanted(1_000, 10, 64), 0, 0, millis(5)),
            (wanted(1_000, 1, 64), 0, 0, millis(1)),
            (wanted(1_000, 100, 64), 61, 0, millis(3)),
            (wanted(10, 100, 64), 0, 0, millis(100)),
        ];
        for (wanted, count, left, short) in cases {
            let count = if short.is_none() { wanted.count } else { count };
            assert_eq!(Given { count, left, at: 0 }.short(&wanted), short, "{wanted:?} and {count}, {left}");
        }
        let at_once = Wanted { rate: None, concurrency_max: Some(3), ..wanted(1, 1, 5) };
        assert_eq!(Given { count: 2, left: 0, at: 0 }.short(&at_once), Some(Short::Concurrency(ASKED_AGAIN)));
        let both = Wanted { concurrency_max: Some(3), ..wanted(1, 1, 5) };
        assert_eq!(Given { count: 2, left: REQUEST, at: 0 }.short(&both), Some(Short::Concurrency(ASKED_AGAIN)));
    }
}
