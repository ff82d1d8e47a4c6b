//! The circuit breaker of one destination: calls that keep failing are stopped for a while, then tried with a single one.
//! It only delays; no attempt is used and nothing is dropped. A state machine of what it is told and the time.

use super::Millis;

/// How far back calls count.
const WINDOW_SECONDS: u64 = 30;
/// Fewer calls in the window say nothing.
const CALLS_MIN: u32 = 20;
/// The longest pause between probes.
const WAIT_MAX: Millis = 5 * 60 * 1000;

/// What a breaker changed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Opened,
    Closed,
}

/// Whether a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// One, to see.
    Probe,
    /// Not before this time.
    Wait(Millis),
    /// Not before the probe under way has ended.
    Probing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    /// A probe may be made from `until` on.
    Open {
        until: Millis,
        wait: Millis,
    },
    Probing {
        wait: Millis,
    },
}

/// Calls within one second.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    number: u64,
    calls: u32,
    failed: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Breaker {
    state: State,
    first_wait: Millis,
    seconds: [Second; WINDOW_SECONDS as usize],
}

impl Breaker {
    /// A closed one; `first_wait` is its first pause, each further one is twice as long, up to 5 minutes.
    pub(super) fn new(first_wait: Millis) -> Self {
        Self { state: State::Closed, first_wait, seconds: Default::default() }
    }

    pub(super) fn verdict(&self, now: Millis) -> Verdict {
        match self.state {
            State::Closed => Verdict::Pass,
            State::Open { until, .. } if until <= now => Verdict::Probe,
            State::Open { until, .. } => Verdict::Wait(until),
            State::Probing { .. } => Verdict::Probing,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Closed, and no call in the window: forgetting it changes nothing.
    pub(super) fn is_fresh(&self, now: Millis) -> bool {
        self.is_closed() && self.window(now) == (0, 0)
    }

    /// The call that [`Verdict::Probe`] allows is made.
    pub(super) fn probe(&mut self) {
        if let State::Open { wait, .. } = self.state {
            self.state = State::Probing { wait };
        }
    }

    /// The probe was not made after all: another may.
    pub(super) fn probe_given_back(&mut self, now: Millis) {
        if let State::Probing { wait } = self.state {
            self.state = State::Open { until: now, wait };
        }
    }

    /// A call ended. What was begun before the breaker opened says nothing new.
    pub(super) fn ended(&mut self, probe: bool, failed: bool, now: Millis) -> Option<Change> {
        match (self.state, probe) {
            (State::Closed, _) => {
                self.count(failed, now);
                let (calls, failures) = self.window(now);
                (calls >= CALLS_MIN && failures * 2 >= calls).then(|| self.open(self.first_wait, now))
            }
            (State::Probing { wait }, true) if failed => Some(self.open((wait * 2).min(WAIT_MAX), now)),
            (State::Probing { .. }, true) => {
                *self = Self::new(self.first_wait);
                Some(Change::Closed)
            }
            (State::Probing { .. } | State::Open { .. }, _) => None,
        }
    }

    fn open(&mut self, wait: Millis, now: Millis) -> Change {
        self.state = State::Open { until: now + wait, wait };
        Change::Opened
    }

    fn count(&mut self, failed: bool, now: Millis) {
        let number = now / 1000;
        let slot = usize::try_from(number % WINDOW_SECONDS).unwrap_or(0);
        if let Some(second) = self.seconds.get_mut(slot) {
            if second.number != number {
                *second = Second { number, ..Second::default() };
            }
            second.calls += 1;
            second.failed += u32::from(failed);
        }
    }

    fn window(&self, now: Millis) -> (u32, u32) {
        let oldest = (now / 1000 + 1).saturating_sub(WINDOW_SECONDS);
        let counted = self.seconds.iter().filter(|second| second.number >= oldest);
        counted.fold((0, 0), |(calls, failed), second| (calls + second.calls, failed + second.failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line of the file is a story: steps at times, each with what the breaker must say afterwards.
    #[test]
    fn golden_stories() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/dispatch/breaker.jsonl");
        let text = std::fs::read_to_string(file).unwrap();
        let mut stories = 0;
        for line in text.lines().filter(|line| !line.is_empty()) {
            let story: serde_json::Value = serde_json::from_str(line).unwrap();
            let mut breaker = Breaker::new(10_000);
            for step in story["steps"].as_array().unwrap() {
                let (now, count) = (step["at"].as_u64().unwrap(), |key: &str| step[key].as_u64().unwrap_or(0));
                let mut change = None;
                for failed in (0..count("fine")).map(|_| false).chain((0..count("failed")).map(|_| true)) {
                    change = breaker.ended(false, failed, now).or(change);
                }
                match step["probe"].as_str() {
                    Some("begins") => breaker.probe(),
                    Some("given back") => breaker.probe_given_back(now),
                    Some("fine") => change = breaker.ended(true, false, now),
                    Some("failed") => change = breaker.ended(true, true, now),
                    Some(other) => panic!("{other}"),
                    None => {}
                }
                let verdict = match breaker.verdict(now) {
                    Verdict::Pass => "pass".to_owned(),
                    Verdict::Probe => "probe".to_owned(),
                    Verdict::Wait(until) => format!("wait until {until}"),
                    Verdict::Probing => "probing".to_owned(),
                };
                assert_eq!(verdict, step["then"].as_str().unwrap(), "{}: {step}", story["name"]);
                let changed = change.map(|change| match change {
                    Change::Opened => "opened",
                    Change::Closed => "closed",
                });
                assert_eq!(changed, step["change"].as_str(), "{}: {step}", story["name"]);
            }
            stories += 1;
        }
        assert!(stories > 5);
    }
}
