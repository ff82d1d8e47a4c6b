//! What benches make of what they measure.

use std::time::Duration;

/// The middle one.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// In milliseconds.
pub(crate) fn percentile(latencies: &mut [Duration], percent: usize) -> f64 {
    latencies.sort_unstable();
    latencies[(latencies.len() - 1) * percent / 100].as_secs_f64() * 1e3
}

/// Says whether what must hold does.
pub(crate) fn verdict(name: &str, value: f64, holds: bool, target: &str) -> bool {
    println!("{} {name}: {value:.2}, {target}", if holds { "PASS" } else { "FAIL" });
    holds
}
