//! The life of one fetched token, decided purely (D21): when to fetch, whom to let wait, what to remember of a failure, what a
//! 401 means. Time comes in as a [`Moment`] of a clock that never jumps (R19), chance as dice.
//!
//! | State | What who asks is told |
//! |---|---|
//! | a token | it; late in its life, also to fetch the next one in the background |
//! | none, a fetch under way | to wait |
//! | none, the last fetch failed a moment ago | to come back later |
//! | none otherwise | to fetch, and to wait |
//!
//! Nothing happens without being asked: a token that nobody uses is not refreshed.

use std::fmt;
use std::time::Duration;

use super::error::FetchError;

/// Time on a clock that never jumps, since some fixed point.
pub(crate) type Moment = Duration;

/// The longest rest after the first failed fetch in a row; it doubles up to [`REST_LONGEST`]. At least half of it is kept.
const REST_FIRST: Duration = Duration::from_secs(10);
/// The longest rest between fetches.
const REST_LONGEST: Duration = Duration::from_secs(60);
/// A 401 so soon after another one took a token away says nothing about the new token: it stays, and the 401 stands.
const REFUSAL_PAUSE: Duration = Duration::from_secs(5);

/// Which token of a life: grows with every fetch.
pub(crate) type Serial = u64;

/// What a fetch brought.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Obtained<T> {
    pub(crate) token: T,
    /// How long it may be used from now on.
    pub(crate) lifetime: Duration,
    /// From then on, who uses it fetches the next one; from `lifetime` on, nobody does.
    pub(crate) refresh_after: Duration,
}

/// How a fetch ends.
pub(crate) type Fetched<T> = Result<Obtained<T>, FetchError>;

/// What is known of the token of one version of one connection.
pub(crate) struct Life<T> {
    held: Option<Held<T>>,
    /// Since when a fetch is under way.
    fetching: Option<Moment>,
    /// Failed fetches in a row.
    failures: u32,
    failure: Option<Failure>,
    /// When a 401 last took a token away.
    refused: Option<Moment>,
    serial: Serial,
    /// Grows with every change that [`Life::state`] shows.
    changes: u64,
}

struct Held<T> {
    token: T,
    obtained: Moment,
    refresh: Moment,
    expires: Moment,
}

/// How the last fetch failed. Forgotten when one succeeds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failure {
    /// Why.
    pub(crate) error: FetchError,
    /// When.
    pub(crate) at: Moment,
    /// No fetch is tried before.
    pub(crate) rests_until: Moment,
}

/// What who asks for a token is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told<T> {
    /// Use this one.
    Use { token: T, serial: Serial },
    /// A fetch has been under way since then.
    Wait { since: Moment },
    /// The last one failed; there is no other before `rests_until`.
    Rest(Failure),
}

/// What is shown of a token: never the token.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
    /// Since when the token is held and when it ends.
    pub(crate) held: Option<(Moment, Moment)>,
    /// How the last fetch failed, if none has succeeded since.
    pub(crate) failure: Option<Failure>,
    /// Grows with every change of the rest; 0: never fetched.
    pub(crate) changes: u64,
}

impl<T> Default for Life<T> {
    fn default() -> Self {
        Self { held: None, fetching: None, failures: 0, failure: None, refused: None, serial: 0, changes: 0 }
    }
}

/// The token stays out.
impl<T> fmt::Debug for Life<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Life")
            .field("held", &self.held.is_some())
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

impl<T> Life<T> {
    /// Somebody needs the token. `true`: start a fetch now; its end is told to [`Life::fetched`].
    pub(crate) fn ask(&mut self, now: Moment) -> (Told<T>, bool)
    where
        T: Clone,
    {
        self.held.take_if(|held| held.expires <= now);
        let rest = self.failure.as_ref().filter(|failure| now < failure.rests_until);
        let due = self.held.as_ref().is_none_or(|held| held.refresh <= now);
        let fetch = due && self.fetching.is_none() && rest.is_none();
        if fetch {
            self.fetching = Some(now);
        }
        let told = match (&self.held, self.fetching, rest) {
            (Some(held), _, _) => Told::Use { token: held.token.clone(), serial: self.serial },
            (None, Some(since), _) => Told::Wait { since },
            (None, None, Some(failure)) => Told::Rest(failure.clone()),
            // Without a token, a fetch under way or a rest, one was begun above.
            (None, None, None) => Told::Wait { since: now },
        };
        (told, fetch)
    }

    /// The fetch that [`Life::ask`] asked for has ended. `dice` is uniform in `0.0..1.0`.
    pub(crate) fn fetched(&mut self, now: Moment, ended: Fetched<T>, dice: f64) {
        self.fetching = None;
        self.changes += 1;
        match ended {
            Ok(Obtained { token, lifetime, refresh_after }) => {
                self.serial += 1;
                self.failures = 0;
                self.failure = None;
                let (refresh, expires) = (now.saturating_add(refresh_after), now.saturating_add(lifetime));
                self.held = Some(Held { token, obtained: now, refresh, expires });
            }
            Err(error) => {
                let longest = REST_FIRST.saturating_mul(1 << self.failures.min(8)).min(REST_LONGEST);
                self.failures = self.failures.saturating_add(1);
                let rests_until = now + longest.mul_f64(0.5 + 0.5 * dice.clamp(0.0, 1.0));
                self.failure = Some(Failure { error, at: now, rests_until });
            }
        }
    }

    /// The destination answered 401 to a request with this token. Whether another one should be asked for: the token is gone, or
    /// was replaced in the meantime. Only what was used is dropped, so that many 401s at once lead to one fetch (S21).
    pub(crate) fn refused(&mut self, serial: Serial, now: Moment) -> bool {
        if self.held.is_none() || self.serial != serial {
            return true;
        }
        if self.refused.is_some_and(|before| now < before + REFUSAL_PAUSE) {
            return false;
        }
        self.held = None;
        self.refused = Some(now);
        self.changes += 1;
        true
    }

    /// What may be shown.
    pub(crate) fn state(&self) -> State {
        State {
            held: self.held.as_ref().map(|held| (held.obtained, held.expires)),
            failure: self.failure.clone(),
            changes: self.changes,
        }
    }

    /// Whether the last fetch failed.
    pub(crate) fn is_troubled(&self) -> bool {
        self.failures > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    const FAILED: FetchError = FetchError::Internal;

    /// A token that is refreshed in the last tenth of its life.
    fn obtained(token: &'static str, seconds: u64) -> Fetched<&'static str> {
        let lifetime = at(seconds);
        Ok(Obtained { token, lifetime, refresh_after: lifetime - lifetime / 10 })
    }

    fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    fn told(token: &'static str, serial: Serial) -> (Told<&'static str>, bool) {
        (Told::Use { token, serial }, false)
    }

    /// A token `a`, asked for and obtained at 100 s, that lives for an hour.
    fn holding() -> Life<&'static str> {
        let mut life = Life::default();
        assert_eq!(life.ask(at(100)), (Told::Wait { since: at(100) }, true));
        life.fetched(at(100), obtained("a", HOUR), 0.0);
        life
    }

    #[test]
    fn one_fetch_however_many_ask() {
        let mut life = Life::default();
        assert_eq!(life.ask(at(1)), (Told::Wait { since: at(1) }, true));
        for _ in 0..10_000 {
            assert_eq!(life.ask(at(2)), (Told::Wait { since: at(1) }, false));
        }
        life.fetched(at(3), obtained("a", 60), 0.0);
        for _ in 0..10_000 {
            assert_eq!(life.ask(at(4)), told("a", 1));
        }
    }

    #[test]
    fn the_next_token_is_fetched_in_the_background_in_the_last_tenth() {
        let mut life = holding();
        assert_eq!(life.ask(at(100 + 3239)), told("a", 1));
        assert_eq!(life.ask(at(100 + 3240)), (Told::Use { token: "a", serial: 1 }, true), "nobody waits");
        assert_eq!(life.ask(at(100 + 3241)), told("a", 1), "one fetch");
        life.fetched(at(100 + 3242), obtained("b", HOUR), 0.0);
        assert_eq!(life.ask(at(100 + 3243)), told("b", 2));
    }

    #[test]
    fn an_idle_token_ends_and_is_not_refreshed() {
        let mut life = holding();
        assert_eq!(life.ask(at(100 + HOUR)), (Told::Wait { since: at(100 + HOUR) }, true));
    }

    #[test]
    fn a_failed_refresh_keeps_the_token_until_it_ends() {
        let mut life = holding();
        assert!(life.ask(at(100 + 3300)).1);
        life.fetched(at(100 + 3301), Err(FAILED), 0.0);
        assert_eq!(life.ask(at(100 + 3302)), told("a", 1), "rests");
        assert_eq!(life.ask(at(100 + 3306)), (Told::Use { token: "a", serial: 1 }, true), "tries again");
        life.fetched(at(100 + 3599), Err(FAILED), 1.0);
        let (answer, fetch) = life.ask(at(100 + HOUR));
        assert!(matches!(answer, Told::Rest(Failure { error: FAILED, .. })) && !fetch);
    }

    #[test]
    fn failures_are_remembered_for_a_moment_that_grows() {
        for (dice, expected) in [(0.0, [5, 10, 20, 30, 30]), (1.0, [10, 20, 40, 60, 60])] {
            let mut life = Life::<&str>::default();
            let mut now = 100;
            for seconds in expected {
                assert!(life.ask(at(now)).1);
                life.fetched(at(now), Err(FAILED), dice);
                let until = at(now + seconds);
                let rest = Failure { error: FAILED, at: at(now), rests_until: until };
                assert_eq!(life.ask(at(now)), (Told::Rest(rest.clone()), false));
                assert_eq!(life.ask(until - Duration::from_nanos(1)), (Told::Rest(rest.clone()), false));
                now += seconds;
            }
            assert!(life.ask(at(now)).1);
            life.fetched(at(now), obtained("a", HOUR), dice);
            assert_eq!(life.state().failure, None);
            // The next failure is the first again.
            assert!(life.ask(at(now + HOUR)).1);
            life.fetched(at(now + HOUR), Err(FAILED), dice);
            assert_eq!(life.state().failure.unwrap().rests_until, at(now + HOUR + expected[0]));
        }
    }

    #[test]
    fn many_401s_lead_to_one_fetch() {
        let mut life = holding();
        assert!(life.refused(1, at(200)));
        assert_eq!(life.ask(at(200)), (Told::Wait { since: at(200) }, true));
        for _ in 0..10 {
            assert!(life.refused(1, at(201)), "its token is gone already");
            assert_eq!(life.ask(at(201)), (Told::Wait { since: at(200) }, false));
        }
        life.fetched(at(202), obtained("b", HOUR), 0.0);
        assert!(life.refused(1, at(203)), "a late one takes the new token");
        assert_eq!(life.ask(at(203)), told("b", 2));
    }

    #[test]
    fn a_401_to_a_token_that_is_new_because_of_a_401_stands() {
        let mut life = holding();
        assert!(life.refused(1, at(200)));
        life.ask(at(200));
        life.fetched(at(200), obtained("b", HOUR), 0.0);
        assert!(!life.refused(2, at(201)));
        assert_eq!(life.ask(at(202)), told("b", 2), "it stays");
        assert!(life.refused(2, at(205)), "later it may have ended early");
    }

    #[test]
    fn state_shows_times_and_errors_and_says_when_it_changed() {
        let mut life = Life::<&str>::default();
        assert_eq!(life.state(), State::default());
        life.ask(at(1));
        life.fetched(at(2), Err(FAILED), 0.0);
        let failure = Failure { error: FAILED, at: at(2), rests_until: at(7) };
        assert_eq!(life.state(), State { held: None, failure: Some(failure), changes: 1 });
        life.ask(at(7));
        life.fetched(at(8), obtained("a", 60), 0.0);
        assert_eq!(life.state(), State { held: Some((at(8), at(68))), failure: None, changes: 2 });
        life.refused(1, at(9));
        assert_eq!(life.state(), State { held: None, failure: None, changes: 3 });
        let mut secret = Life::default();
        secret.fetched(at(1), obtained("s3cr3t", 60), 0.0);
        assert!(!format!("{secret:?}").contains("s3cr3t"));
    }
}
