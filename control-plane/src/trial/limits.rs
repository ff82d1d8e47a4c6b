//! How many tests a workspace makes: at once and in a minute, so that none takes the data planes' places from others (I8, I10).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::UnixMillis;
use crate::error::Failure;
use crate::settings::Limits;

const MINUTE: UnixMillis = 60_000;

/// The tests of each workspace that run or began in the last minute.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tests(Arc<Mutex<HashMap<String, Made>>>);

#[derive(Debug, Default)]
struct Made {
    running: usize,
    begun: VecDeque<UnixMillis>,
}

/// A place for a test, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    tests: Tests,
    workspace: String,
}

impl Tests {
    /// Takes a place.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(crate) fn take(&self, workspace: &str, limits: &Limits, now: UnixMillis) -> Result<Place, Failure> {
        let mut all = self.lock();
        all.retain(|_, made| {
            while made.begun.front().is_some_and(|begun| now - begun >= MINUTE) {
                made.begun.pop_front();
            }
            made.running > 0 || !made.begun.is_empty()
        });
        let made = all.entry(workspace.to_owned()).or_default();
        if made.running >= limits.tests_at_once {
            return Err(Failure::Overloaded("tests_at_once"));
        }
        if made.begun.len() >= limits.tests_per_minute {
            return Err(Failure::Overloaded("tests_per_minute"));
        }
        made.running += 1;
        made.begun.push_back(now);
        Ok(Place { tests: self.clone(), workspace: workspace.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Made>> {
        // Nothing panics while it is held; if something did, what is in it is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(made) = self.tests.lock().get_mut(&self.workspace) {
            made.running = made.running.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_workspace_has_its_own_places_at_once_and_in_a_minute() {
        let limits = Limits { tests_at_once: 2, tests_per_minute: 3, ..Limits::default() };
        let tests = Tests::default();
        let take = |workspace: &str, now| tests.take(workspace, &limits, now);
        let refused = |taken: Result<Place, Failure>| match taken {
            Err(Failure::Overloaded(limit)) => limit,
            other => panic!("{other:?}"),
        };
        let first = take("a", 0).unwrap();
        let second = take("a", 1).unwrap();
        assert_eq!(refused(take("a", 2)), "tests_at_once");
        drop(take("b", 2).unwrap());
        drop(first);
        drop(take("a", 3).unwrap());
        assert_eq!(refused(take("a", 59_999)), "tests_per_minute");
        drop(take("a", 60_000).unwrap());
        drop(second);
        // Nothing is remembered of who tests no more.
        drop(take("c", 200_000).unwrap());
        assert_eq!(tests.lock().keys().collect::<Vec<_>>(), ["c"]);
    }
}
