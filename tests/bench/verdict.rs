//! What benches say of what must hold.

/// Says whether what must hold does.
pub(crate) fn verdict(name: &str, value: f64, holds: bool, target: &str) -> bool {
    println!("{} {name}: {value:.2}, {target}", if holds { "PASS" } else { "FAIL" });
    holds
}
