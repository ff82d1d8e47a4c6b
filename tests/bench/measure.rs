//! What benches make of what they measure.

use std::time::Duration;

/// In milliseconds.
pub(crate) fn percentile(latencies: &mut [Duration], percent: usize) -> f64 {
    latencies.sort_unstable();
    latencies[(latencies.len() - 1) * percent / 100].as_secs_f64() * 1e3
}
