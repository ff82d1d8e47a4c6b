//! What follows an attempt: done, again at some time, or given up (D09). Pure: the time and the dice come from the caller.

use std::time::Duration;

use sluice_core::model::RetryPolicy;
use sluice_core::response_event::FailureReason;

use crate::clock::UnixMillis;

/// The shortest wait between attempts.
const WAIT_FLOOR: Duration = Duration::from_secs(1);
/// The longest `Retry-After` that counts (D09).
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// How an attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempted {
    /// The destination answered.
    Answered {
        /// The status.
        status: u16,
        /// What its `Retry-After` asks for.
        retry_after: Option<Duration>,
    },
    /// There was no answer.
    Failed {
        /// Why.
        reason: FailureReason,
        /// Whether it may go better next time.
        retryable: bool,
    },
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The destination took it.
    Delivered,
    /// Another attempt.
    RetryAt(UnixMillis),
    /// No further attempt.
    GiveUp,
}

/// Decides after attempt number `attempt` (from 1) of a delivery accepted at `accepted_at`. `dice` is uniform in `0.0..1.0`.
pub fn decide(
    policy: &RetryPolicy,
    attempted: Attempted,
    attempt: u32,
    accepted_at: UnixMillis,
    now: UnixMillis,
    dice: f64,
) -> Decision {
    let retry_after = match attempted {
        Attempted::Answered { status, .. } if (200..300).contains(&status) => return Decision::Delivered,
        Attempted::Answered { status, retry_after } if is_retryable(policy, status) => retry_after,
        Attempted::Failed { retryable: true, .. } => None,
        Attempted::Answered { .. } | Attempted::Failed { .. } => return Decision::GiveUp,
    };
    if attempt >= policy.attempts_max {
        return Decision::GiveUp;
    }
    let longest = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX).min(policy.waits.len() - 1);
    let jittered = policy.waits[longest].mul_f64(dice.clamp(0.0, 1.0)).max(WAIT_FLOOR);
    let wait = retry_after.map_or(jittered, |asked| asked.min(RETRY_AFTER_MAX).max(jittered));
    let due = now.saturating_add(millis(wait));
    if due.saturating_sub(accepted_at) > millis(policy.age_max) { Decision::GiveUp } else { Decision::RetryAt(due) }
}

/// How long nothing more is sent to a destination that answered this: it asked for a pause, which concerns every job that
/// goes there. At least our shortest wait, at most a day.
pub fn hold(attempted: Attempted) -> Option<Duration> {
    match attempted {
        Attempted::Answered { status: 429 | 503, retry_after: Some(asked) } if !asked.is_zero() => {
            Some(asked.clamp(WAIT_FLOOR, RETRY_AFTER_MAX))
        }
        Attempted::Answered { .. } | Attempted::Failed { .. } => None,
    }
}

fn is_retryable(policy: &RetryPolicy, status: u16) -> bool {
    match &policy.statuses {
        Some(statuses) => statuses.contains(&status),
        None => matches!(status, 408 | 425 | 429 | 500..=599),
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// What the `Retry-After` headers of an answer ask for. What cannot be read is ignored; of several, the longest counts.
pub fn retry_after<'a>(values: impl IntoIterator<Item = &'a str>, now: UnixMillis) -> Option<Duration> {
    values.into_iter().filter_map(|value| parse_retry_after(value, now)).max()
}

/// Seconds, or an HTTP date.
fn parse_retry_after(value: &str, now: UnixMillis) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are longer than any cap.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(Duration::from_millis(u64::try_from(at.as_millisecond() - now).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = 1_718_010_930_000;

    fn answered(status: u16) -> Attempted {
        Attempted::Answered { status, retry_after: None }
    }

    fn after(attempted: Attempted, attempt: u32, dice: f64) -> Decision {
        decide(&RetryPolicy::default(), attempted, attempt, NOW, NOW, dice)
    }

    #[test]
    fn statuses() {
        for status in [200, 201, 204, 299] {
            assert_eq!(after(answered(status), 1, 0.5), Decision::Delivered, "{status}");
        }
        for status in [301, 302, 400, 401, 404, 410, 422] {
            assert_eq!(after(answered(status), 1, 0.5), Decision::GiveUp, "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 599] {
            assert!(matches!(after(answered(status), 1, 0.5), Decision::RetryAt(_)), "{status}");
        }
    }

    #[test]
    fn own_statuses_replace_the_default_ones() {
        let policy = RetryPolicy { statuses: Some(vec![404]), ..RetryPolicy::default() };
        assert!(matches!(decide(&policy, answered(404), 1, NOW, NOW, 0.0), Decision::RetryAt(_)));
        assert_eq!(decide(&policy, answered(503), 1, NOW, NOW, 0.0), Decision::GiveUp);
    }

    #[test]
    fn waits_follow_the_schedule_with_full_jitter_above_a_floor() {
        assert_eq!(after(answered(503), 1, 0.0), Decision::RetryAt(NOW + 1_000));
        assert_eq!(after(answered(503), 1, 1.0), Decision::RetryAt(NOW + 5_000));
        assert_eq!(after(answered(503), 2, 1.0), Decision::RetryAt(NOW + 30_000));
        assert_eq!(after(answered(503), 7, 0.5), Decision::RetryAt(NOW + 5 * 3_600_000));
        assert_eq!(after(answered(503), 8, 0.5), Decision::GiveUp);
    }

    #[test]
    fn retry_after_counts_when_it_is_later_and_is_capped() {
        let asked = |seconds| Attempted::Answered { status: 429, retry_after: Some(Duration::from_secs(seconds)) };
        assert_eq!(after(asked(60), 1, 1.0), Decision::RetryAt(NOW + 60_000));
        assert_eq!(after(asked(2), 1, 1.0), Decision::RetryAt(NOW + 5_000));
        assert_eq!(after(asked(u64::MAX), 1, 1.0), Decision::RetryAt(NOW + 24 * 3_600_000));
    }

    #[test]
    fn failures_without_an_answer() {
        let failed = |retryable| Attempted::Failed { reason: FailureReason::Timeout, retryable };
        assert!(matches!(after(failed(true), 1, 0.0), Decision::RetryAt(_)));
        assert_eq!(after(failed(false), 1, 0.0), Decision::GiveUp);
    }

    #[test]
    fn an_old_delivery_is_given_up() {
        let policy = RetryPolicy { age_max: Duration::from_secs(60), ..RetryPolicy::default() };
        assert_eq!(decide(&policy, answered(503), 1, NOW - 59_500, NOW, 0.0), Decision::GiveUp);
        assert!(matches!(decide(&policy, answered(503), 1, NOW - 58_000, NOW, 0.0), Decision::RetryAt(_)));
    }

    /// Each line: the values of the header, and the seconds they ask for; nothing when they are ignored.
    #[test]
    fn golden_retry_after_r07() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/dispatch/retry_after.jsonl");
        let text = std::fs::read_to_string(file).unwrap();
        let mut cases = 0;
        for line in text.lines().filter(|line| !line.is_empty()) {
            let case: serde_json::Value = serde_json::from_str(line).unwrap();
            let values = case["values"].as_array().unwrap().iter().map(|value| value.as_str().unwrap());
            let asked = retry_after(values, NOW);
            assert_eq!(asked, case["seconds"].as_u64().map(Duration::from_secs), "{case}");
            let answered = Attempted::Answered { status: 429, retry_after: asked };
            let Decision::RetryAt(due) = after(answered, 1, 1.0) else { panic!("{case}") };
            let wait = asked.unwrap_or_default().clamp(Duration::from_secs(5), RETRY_AFTER_MAX);
            assert_eq!(due - NOW, millis(wait), "within our own wait and a day: {case}");
            let held = hold(answered).map(|hold| hold.as_secs());
            assert_eq!(held, case["hold"].as_u64(), "{case}");
            cases += 1;
        }
        assert!(cases > 10);
    }

    #[test]
    fn jitter_never_undercuts_what_was_asked_for() {
        let asked = Attempted::Answered { status: 503, retry_after: Some(Duration::from_secs(20)) };
        for dice in [0.0, 0.3, 0.999] {
            assert_eq!(after(asked, 1, dice), Decision::RetryAt(NOW + 20_000));
        }
    }

    #[test]
    fn only_429_and_503_hold_the_destination() {
        for status in [200, 400, 404, 408, 425, 500, 502, 504] {
            let answered = Attempted::Answered { status, retry_after: Some(Duration::from_secs(60)) };
            assert_eq!(hold(answered), None, "{status}");
        }
    }
}
