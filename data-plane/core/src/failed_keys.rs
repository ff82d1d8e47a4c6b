//! How many calls with a wrong key one source may make. Hides the buckets and that they are bounded. A good key is never refused for
//! what others at the same address do: only answers to wrong ones change. Time, in milliseconds since 1970, comes in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Sources that are counted by themselves; what comes beyond shares one count.
const SOURCES_MAX: usize = 10_000;
const MINUTE: i64 = 60_000;

/// Wrong keys by source: an address, or the first 64 bits of one of version 6.
#[derive(Debug, Default)]
pub struct FailedKeys {
    buckets: Mutex<HashMap<Option<IpAddr>, Bucket>>,
}

/// What a source has left, in wrong keys times [`MINUTE`], so that nothing is lost in rounding.
#[derive(Debug)]
struct Bucket {
    left: i64,
    since: i64,
}

impl Bucket {
    fn refill(&mut self, per_minute: i64, now: i64) {
        let gained = (now - self.since).clamp(0, MINUTE) * per_minute;
        self.left = (self.left + gained).min(per_minute * MINUTE);
        self.since = now;
    }
}

impl FailedKeys {
    /// Counts a wrong key. Whether its source is still within the limit.
    pub fn count(&self, source: Option<IpAddr>, per_minute: u32, now: i64) -> bool {
        let per_minute = i64::from(per_minute);
        let full = per_minute * MINUTE;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut source = source.map(network);
        if buckets.len() >= SOURCES_MAX && !buckets.contains_key(&source) {
            buckets.retain(|_, bucket| {
                bucket.refill(per_minute, now);
                bucket.left < full
            });
            if buckets.len() >= SOURCES_MAX {
                source = None;
            }
        }
        let bucket = buckets.entry(source).or_insert(Bucket { left: full, since: now });
        bucket.refill(per_minute, now);
        let within = bucket.left >= MINUTE;
        if within {
            bucket.left -= MINUTE;
        }
        within
    }
}

/// Who has one address of version 6 has all that share its first 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn so_many_in_a_minute_and_no_more() {
        let failed = FailedKeys::default();
        let within = |source, now| failed.count(source, 3, now);
        assert!((0..3).all(|_| within(ip("10.0.0.1"), 0)) && !within(ip("10.0.0.1"), 0));
        assert!(within(ip("10.0.0.2"), 0), "another source");
        assert!(!within(ip("10.0.0.1"), 19_999) && within(ip("10.0.0.1"), 20_000) && !within(ip("10.0.0.1"), 20_000));
        let later = 3_600_000;
        assert!(
            (0..3).all(|_| within(ip("10.0.0.1"), later)) && !within(ip("10.0.0.1"), later),
            "not more for waiting"
        );
        assert!(!within(ip("10.0.0.1"), 0), "a clock that is set back gives nothing");
    }

    #[test]
    fn addresses_of_one_network_are_one_source() {
        let failed = FailedKeys::default();
        assert!(failed.count(ip("2001:db8::1"), 1, 0) && !failed.count(ip("2001:db8::ffff:2"), 1, 0));
        assert!(failed.count(ip("2001:db8:0:1::1"), 1, 0));
        assert!(failed.count(ip("10.0.0.1"), 1, 0) && !failed.count(ip("::ffff:10.0.0.1"), 1, 0));
    }

    #[test]
    fn memory_is_bounded() {
        let failed = FailedKeys::default();
        let source = |index: usize| Some(IpAddr::from(std::net::Ipv4Addr::from(index as u32)));
        for index in 0..3 * SOURCES_MAX {
            failed.count(source(index), 5, 0);
        }
        assert!(failed.buckets.lock().unwrap().len() <= SOURCES_MAX + 1);
        assert!(!failed.count(source(4 * SOURCES_MAX), 5, 0), "the rest shares one count");
        assert!(failed.count(source(5 * SOURCES_MAX), 5, 2 * MINUTE), "and those that waited are forgotten");
        assert!(failed.buckets.lock().unwrap().len() < 10);
    }
}
