//! How the data planes keep the limits of the configuration together (D10): each keeps its part of them, or, where that is set, all
//! of them keep each limit in the store they share, exactly, and keep their parts while the store is away (N08).
//!
//! The control plane tells the number of planes while it is there; a plane that starts without it goes on with the last one it was
//! told, which is kept on disk. A part is never nothing: of a limit smaller than the number of planes each plane still has one
//! request at a time.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use sluice_core::model::RateLimit;
use tokio::time::Instant;

use crate::inbox::{Given, Ledger, Short, Wanted};

/// More are not told of.
const PLANES_MAX: u32 = 10_000;

/// A handle on the number; cheap to clone.
#[derive(Clone, Debug)]
pub struct Fleet(Arc<Number>);

#[derive(Debug)]
struct Number {
    planes: AtomicU32,
    file: PathBuf,
    ledger: Option<Ledger>,
    /// The store did not answer when it was asked last.
    away: AtomicBool,
}

impl Fleet {
    /// With the number that was told last, from `folder`; a plane that was told none is alone.
    pub fn open(folder: &Path, ledger: Option<Ledger>) -> Self {
        let file = folder.join("fleet");
        let told = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
        let planes = AtomicU32::new(within(told.unwrap_or(1)));
        Self(Arc::new(Number { planes, file, ledger, away: AtomicBool::new(false) }))
    }

    /// Whether limits are kept together, and how long the others believe what this plane says of them.
    pub fn together(&self) -> Option<Duration> {
        self.0.ledger.as_ref().map(Ledger::believed)
    }

    /// Into how many parts a limit is divided of which this plane keeps one: a limit that is kept together is not divided.
    pub fn parts(&self) -> u32 {
        let together = self.0.ledger.is_some() && !self.0.away.load(Ordering::Relaxed);
        if together { 1 } else { self.planes() }
    }

    /// Takes from limits that are kept together; nothing when they are not, or the store is away: this plane's part counts then.
    pub async fn take(&self, wanted: Vec<Wanted>) -> Option<Vec<Given>> {
        let given = self.0.ledger.as_ref()?.take(wanted).await.ok();
        let away = given.is_none();
        if self.0.away.swap(away, Ordering::Relaxed) != away {
            let planes = self.planes();
            if away {
                tracing::warn!(planes, "limits cannot be kept together: this plane keeps its part of them");
            } else {
                tracing::info!(planes, "limits are kept together again");
            }
        }
        given
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

/// With a clock that is made of nothing. The usual one asks the processor what it is each time it is made, which a virtual machine has
/// to be left for: dearer than all else of a first request.
type Limiter = RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// How much an endpoint takes.
#[derive(Debug)]
pub struct EndpointRate {
    limit: RateLimit,
    /// There is nothing left of that before.
    none_before: Mutex<Option<Instant>>,
    /// For this number of planes: this one's part.
    limiter: ArcSwap<(u32, Limiter)>,
}

impl EndpointRate {
    /// Nothing was taken yet.
    pub fn new(limit: RateLimit) -> Self {
        Self { limit, none_before: Mutex::new(None), limiter: ArcSwap::from_pointee((1, part(limit, 1))) }
    }

    /// Counts a request to the endpoint with this id.
    ///
    /// # Errors
    /// It is too many; how long until the next one may come.
    pub async fn check(&self, endpoint_id: &str, fleet: &Fleet) -> Result<(), Duration> {
        match self.check_together(endpoint_id, fleet).await {
            Some(checked) => checked,
            None => self.check_part(fleet.planes()),
        }
    }

    /// Nothing when the limit is not kept together.
    async fn check_together(&self, endpoint_id: &str, fleet: &Fleet) -> Option<Result<(), Duration>> {
        fleet.together()?;
        // A flood is not asked about: nobody has anything left before this.
        let known = *self.none_before.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = known.map(|at| at.saturating_duration_since(Instant::now())).filter(|wait| !wait.is_zero());
        if let Some(wait) = wait {
            return Some(Err(wait));
        }
        let wanted = Wanted::request(format!("endpoint:{endpoint_id}"), self.limit);
        let given = fleet.take(vec![wanted.clone()]).await?;
        let Some(Short::Rate(wait) | Short::Concurrency(wait)) = given.first()?.short(&wanted) else {
            return Some(Ok(()));
        };
        *self.none_before.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + wait);
        Some(Err(wait))
    }

    fn check_part(&self, planes: u32) -> Result<(), Duration> {
        let mut limiter = self.limiter.load();
        if limiter.0 != planes {
            self.limiter.store(Arc::new((planes, part(self.limit, planes))));
            limiter = self.limiter.load();
        }
        limiter.1.check().map_err(|not_until| not_until.wait_time_from(MonotonicClock.now()))
    }
}

fn part(limit: RateLimit, planes: u32) -> Limiter {
    let at_least_one = |value| NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN);
    let every = Duration::from_secs(planes.into()) / at_least_one(limit.requests_per_second).get();
    let burst = at_least_one(limit.burst / planes);
    let quota = Quota::with_period(every).unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN));
    RateLimiter::direct_with_clock(quota.allow_burst(burst), MonotonicClock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_number_told_last_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let fleet = Fleet::open(folder.path(), None);
        assert_eq!(fleet.planes(), 1);
        fleet.told(3).await;
        assert_eq!((fleet.planes(), Fleet::open(folder.path(), None).planes()), (3, 3));
        fleet.told(0).await;
        assert_eq!(fleet.planes(), 1, "this one is there");
        std::fs::write(folder.path().join("fleet"), "nonsense").unwrap();
        assert_eq!(Fleet::open(folder.path(), None).planes(), 1);
    }

    #[tokio::test]
    async fn n08_planes_together_take_what_the_limit_says() {
        let folder = tempfile::tempdir().unwrap();
        let fleet = Fleet::open(folder.path(), None);
        // One request in 1,000 s comes back: nothing that a test would see.
        let slow = |burst| RateLimit { requests_per_second: 1, burst };
        let taken = |rate: &EndpointRate| std::iter::from_fn(|| rate.check_part(fleet.planes()).ok()).count();
        fleet.told(1_000).await;
        assert_eq!(taken(&EndpointRate::new(slow(5_000))), 5);
        assert_eq!(taken(&EndpointRate::new(slow(3))), 1, "never nothing");
        let rate = EndpointRate::new(slow(9_000));
        assert_eq!(taken(&rate), 9);
        let wait = rate.check("e", &fleet).await.unwrap_err();
        assert!(wait > Duration::from_secs(990) && wait <= Duration::from_secs(1_000), "{wait:?}");
        fleet.told(3_000).await;
        assert_eq!(taken(&rate), 3, "a changed number counts at once");
    }
}
