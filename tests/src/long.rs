//! What the long mode is (`SLUICE_LONG=1`), in one place. The short mode is what every run of the tests can afford; the long one takes
//! hours and is for a night:
//!
//! - crashes at random moments: 60 in place of 5; at each named moment 25 in place of 1 (`tests/it/crash.rs`),
//! - pauses, restarts, lines and stores that misbehave: 20 to 50 rounds in place of 1, and longer (`tests/it/campaign/`,
//!   `tests/it/rolling.rs`),
//! - clocks that jump, where `libfaketime` is; it says loudly when it is not,
//! - the soak: random faults for [`SOAK_MINUTES`],
//! - each sabotage of the source (`tests/golden/faults/sabotage.jsonl`) is built and must be noticed (`tests/it/sabotage.rs`),
//! - 100,000 integrations are published in place of 5,000 (`tests/it/import.rs`), and as many deliveries wait for one token in place of
//!   10,000 (`tests/it/tokens.rs`),
//! - the model of the inbox with 200 seeds (`data-plane/server/src/inbox/suite.rs`),
//! - each fuzz target for a minute (`tests/run`).

use std::ops::RangeInclusive;

/// How many minutes the soak lasts: this variable, between these.
pub const SOAK_MINUTES: (&str, RangeInclusive<u64>) = ("SLUICE_SOAK", 1..=7 * 24 * 60);
/// Unless it says otherwise.
const SOAK_MINUTES_DEFAULT: u64 = 60;

/// What whoever runs the tests asks for.
#[expect(clippy::disallowed_methods, reason = "a test has no caller to bring its settings")]
pub fn asked(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Whether the long mode was asked for.
pub fn is_long() -> bool {
    asked("SLUICE_LONG").is_some_and(|value| value == "1")
}

/// The one or the other.
pub fn either<T>(short: T, long: T) -> T {
    if is_long() { long } else { short }
}

/// How long the soak lasts.
///
/// # Panics
/// If what was asked for is no such number.
pub fn soak_minutes() -> u64 {
    let (name, range) = SOAK_MINUTES;
    let minutes = asked(name).map_or(SOAK_MINUTES_DEFAULT, |minutes| minutes.parse().expect("a number of minutes"));
    assert!(range.contains(&minutes), "{name} is {minutes}; it must be within {range:?}");
    minutes
}
