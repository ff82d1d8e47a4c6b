//! How many data planes keep the limits of the configuration together (D10): each keeps its part of them. The control plane tells the
//! number while it is there; a plane that starts without it goes on with the last one it was told, which is kept on disk.
//!
//! A part is never nothing: of a limit smaller than the number of planes each plane still has one request at a time.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use sluice_core::model::RateLimit;

/// More are not told of.
const PLANES_MAX: u32 = 10_000;

/// A handle on the number; cheap to clone.
#[derive(Clone, Debug)]
pub struct Fleet(Arc<Number>);

#[derive(Debug)]
struct Number {
    planes: AtomicU32,
    file: PathBuf,
}

impl Fleet {
    /// With the number that was told last, from `folder`; a plane that was told none is alone.
    pub fn open(folder: &Path) -> Self {
        let file = folder.join("fleet");
        let told = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
        let planes = AtomicU32::new(within(told.unwrap_or(1)));
        Self(Arc::new(Number { planes, file }))
    }

    /// How many there are, this one included: at least 1.
    pub fn planes(&self) -> u32 {
        self.0.planes.load(Ordering::Relaxed)
    }

    /// The control plane says how many there are.
    pub async fn told(&self, planes: u32) {
        let planes = within(planes);
        if self.0.planes.swap(planes, Ordering::Relaxed) == planes {
            return;
        }
        tracing::info!(planes, "data planes that share limits");
        let fresh = self.0.file.with_extension("new");
        let kept = match tokio::fs::write(&fresh, format!("{planes}\n")).await {
            Ok(()) => tokio::fs::rename(&fresh, &self.0.file).await,
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            tracing::warn!(%error, "the number of data planes is not kept: a restart without a control plane begins with an older one");
        }
    }
}

fn within(planes: u32) -> u32 {
    planes.clamp(1, PLANES_MAX)
}

/// This plane's part of how much an endpoint takes.
#[derive(Debug)]
pub struct EndpointRate {
    limit: RateLimit,
    /// For this number of planes.
    limiter: ArcSwap<(u32, DefaultDirectRateLimiter)>,
}

impl EndpointRate {
    /// Nothing was taken yet.
    pub fn new(limit: RateLimit) -> Self {
        Self { limit, limiter: ArcSwap::from_pointee((1, part(limit, 1))) }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// It is too many; how long until the next one may come.
    pub fn check(&self, fleet: &Fleet) -> Result<(), Duration> {
        let planes = fleet.planes();
        let mut limiter = self.limiter.load_full();
        if limiter.0 != planes {
            limiter = Arc::new((planes, part(self.limit, planes)));
            self.limiter.store(limiter.clone());
        }
        limiter.1.check().map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now()))
    }
}

fn part(limit: RateLimit, planes: u32) -> DefaultDirectRateLimiter {
    let at_least_one = |value| NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN);
    let every = Duration::from_secs(planes.into()) / at_least_one(limit.requests_per_second).get();
    let burst = at_least_one(limit.burst / planes);
    let quota = Quota::with_period(every).unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN));
    RateLimiter::direct(quota.allow_burst(burst))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_number_told_last_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let fleet = Fleet::open(folder.path());
        assert_eq!(fleet.planes(), 1);
        fleet.told(3).await;
        assert_eq!((fleet.planes(), Fleet::open(folder.path()).planes()), (3, 3));
        fleet.told(0).await;
        assert_eq!(fleet.planes(), 1, "this one is there");
        std::fs::write(folder.path().join("fleet"), "nonsense").unwrap();
        assert_eq!(Fleet::open(folder.path()).planes(), 1);
    }

    #[tokio::test]
    async fn n08_planes_together_take_what_the_limit_says() {
        let folder = tempfile::tempdir().unwrap();
        let fleet = Fleet::open(folder.path());
        // One request in 1,000 s comes back: nothing that a test would see.
        let slow = |burst| RateLimit { requests_per_second: 1, burst };
        let taken = |rate: &EndpointRate| std::iter::from_fn(|| rate.check(&fleet).ok()).count();
        fleet.told(1_000).await;
        assert_eq!(taken(&EndpointRate::new(slow(5_000))), 5);
        assert_eq!(taken(&EndpointRate::new(slow(3))), 1, "never nothing");
        let rate = EndpointRate::new(slow(9_000));
        assert_eq!(taken(&rate), 9);
        let wait = rate.check(&fleet).unwrap_err();
        assert!(wait > Duration::from_secs(990) && wait <= Duration::from_secs(1_000), "{wait:?}");
        fleet.told(3_000).await;
        assert_eq!(taken(&rate), 3, "a changed number counts at once");
    }
}
