//! Wall-clock time for everything that is stored: due times, dedup windows, event times. The only place that reads it,
//! so that a test can move seven days in one call (D05). And time that only goes forward, for what lives in memory (R19).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Milliseconds since the Unix epoch.
pub type UnixMillis = i64;

/// Reads the time of day, or plays one set by hand.
#[derive(Clone, Debug)]
pub struct Clock {
    manual: Option<Arc<AtomicI64>>,
    started: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self { manual: None, started: Instant::now() }
    }

    /// A clock that stands at `start` until [`Clock::advance`] moves it.
    pub fn manual(start: UnixMillis) -> Self {
        Self { manual: Some(Arc::new(AtomicI64::new(start))), started: Instant::now() }
    }

    /// The time now.
    #[allow(clippy::disallowed_methods)]
    pub fn now(&self) -> UnixMillis {
        match &self.manual {
            Some(at) => at.load(Ordering::SeqCst),
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
        }
    }

    /// Time since some fixed point, the same for all clones, whatever happens to the time of day.
    pub fn monotonic(&self) -> Duration {
        match &self.manual {
            Some(at) => Duration::from_millis(at.load(Ordering::SeqCst).try_into().unwrap_or_default()),
            None => self.started.elapsed(),
        }
    }

    /// What a manual clock says; nothing for the machine's: a store with a clock of its own goes by that.
    pub fn set_by_hand(&self) -> Option<UnixMillis> {
        self.manual.as_ref().map(|at| at.load(Ordering::SeqCst))
    }

    /// Moves a manual clock forward; a system clock ignores it.
    pub fn advance(&self, millis: i64) {
        if let Some(at) = &self.manual {
            at.fetch_add(millis, Ordering::SeqCst);
        }
    }
}
