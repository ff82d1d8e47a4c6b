//! Whether this data plane is being drained: not ready at once, so that balancers turn away, and a while later closed for triggers. What it
//! has accepted is delivered as always. A process that stops begins in the same way and refuses nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sluice_proto::sync::v1::{DrainPlane, DrainedPlane};

use crate::inbox::{LaneStats, Unavailable};
use crate::plane::Plane;

/// It is not being drained.
const OFF: u64 = u64::MAX;

/// The state of one data plane; it ends with the process.
#[derive(Debug)]
pub struct Drain {
    started: Instant,
    /// From when on triggers are refused, in milliseconds since the start; [`OFF`]: never.
    refuses_from: AtomicU64,
    /// The process is about to end.
    stops: AtomicBool,
}

impl Default for Drain {
    fn default() -> Self {
        Self { started: Instant::now(), refuses_from: AtomicU64::new(OFF), stops: AtomicBool::new(false) }
    }
}

impl Drain {
    /// Triggers are refused when `grace` is over. A second time nothing is prolonged.
    pub fn begin(&self, grace: Duration) {
        let from = u64::try_from((self.started.elapsed() + grace).as_millis()).unwrap_or(OFF - 1);
        self.refuses_from.fetch_min(from, Ordering::Relaxed);
    }

    /// Triggers are taken again.
    pub fn resume(&self) {
        self.refuses_from.store(OFF, Ordering::Relaxed);
    }

    /// The process is about to end: nothing undoes that.
    pub fn stop(&self) {
        self.stops.store(true, Ordering::Relaxed);
    }

    /// It has begun, or the process is about to end.
    pub fn is_on(&self) -> bool {
        self.stops.load(Ordering::Relaxed) || self.refuses_from.load(Ordering::Relaxed) != OFF
    }

    /// Triggers are refused now.
    pub fn refuses(&self) -> bool {
        let from = self.refuses_from.load(Ordering::Relaxed);
        from != OFF && self.started.elapsed().as_millis() >= u128::from(from)
    }
}

/// Begins or ends a drain, and says how far it is.
pub(crate) async fn run(plane: &Plane, asked: DrainPlane) -> Result<DrainedPlane, Unavailable> {
    let was_on = plane.drain.is_on();
    if asked.resume {
        plane.drain.resume();
    } else {
        let grace = asked.grace.and_then(|grace| Duration::try_from(grace).ok()).unwrap_or_default();
        plane.drain.begin(grace);
    }
    match (was_on, plane.drain.is_on()) {
        (false, true) => tracing::info!("an operator drains this data plane"),
        (true, false) => tracing::info!("this data plane is in use again"),
        (true, true) | (false, false) => {}
    }
    // Whoever is refused from now on is not among the jobs that are counted.
    let refuses_triggers = plane.drain.refuses();
    let stats = plane.inbox.stats().await?;
    let open = |lane: LaneStats| lane.ready + lane.leased + lane.delayed;
    Ok(DrainedPlane {
        refuses_triggers,
        jobs: (open(stats.realtime) + open(stats.bulk)).cast_signed(),
        reports: stats.outbox.cast_signed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_begins_once_and_ends_when_it_is_told_to() {
        let drain = Drain::default();
        assert!(!drain.is_on() && !drain.refuses());
        drain.begin(Duration::from_secs(3600));
        assert!(drain.is_on() && !drain.refuses());
        drain.begin(Duration::ZERO);
        assert!(drain.refuses(), "sooner than said before");
        drain.begin(Duration::from_secs(3600));
        assert!(drain.refuses(), "and not later again");
        drain.resume();
        assert!(!drain.is_on() && !drain.refuses());
        drain.begin(Duration::MAX.min(Duration::from_secs(u64::MAX / 4000)));
        assert!(drain.is_on() && !drain.refuses());
    }

    #[test]
    fn a_process_that_stops_turns_away_and_refuses_nothing() {
        let drain = Drain::default();
        drain.stop();
        assert!(drain.is_on() && !drain.refuses());
        drain.resume();
        assert!(drain.is_on(), "it stops all the same");
    }
}
