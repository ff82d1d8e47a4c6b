//! Which API keys have logged in here: told to the control plane, so that a key that senders use does not look unused. Hides that
//! each is told at most once a minute.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sluice_proto::sync::v1::{KeyUses as Told, SyncRequest, sync_request};
use tokio::sync::{mpsc, watch};

use crate::plane::Plane;

/// For so long a use is not told again, in milliseconds.
const QUIET_MILLIS: i64 = 60_000;
/// Keys whose last telling is remembered; beyond them all are forgotten and told again.
const KEYS_MAX: usize = 10_000;

/// The uses of keys.
#[derive(Debug)]
pub struct KeyUses {
    uses: Mutex<Uses>,
    /// Moves when there is one to tell.
    came: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Uses {
    untold: BTreeSet<String>,
    told: HashMap<String, i64>,
}

impl Default for KeyUses {
    fn default() -> Self {
        Self { uses: Mutex::default(), came: watch::Sender::new(()) }
    }
}

impl KeyUses {
    /// The key with this id has logged in.
    pub fn note(&self, id: &str, now: i64) {
        let mut uses = self.lock();
        if uses.told.get(id).is_some_and(|told| (*told..told.saturating_add(QUIET_MILLIS)).contains(&now)) {
            return;
        }
        if uses.told.len() >= KEYS_MAX {
            uses.told.clear();
        }
        uses.told.insert(id.to_owned(), now);
        uses.untold.insert(id.to_owned());
        self.came.send_replace(());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().untold).into_iter().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Uses> {
        // Nothing panics while it is held; if something did, what is in it is still whole.
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells a stream of every use. One that is lost with a stream is told with the next use after a minute.
///
/// # Errors
/// The stream is gone.
pub async fn tell(plane: &Plane, answers: mpsc::Sender<SyncRequest>) -> Result<(), String> {
    let mut came = plane.key_uses.came.subscribe();
    loop {
        came.mark_unchanged();
        let ids = plane.key_uses.take();
        if !ids.is_empty() {
            let kind = Some(sync_request::Kind::KeyUses(Told { ids }));
            answers.send(SyncRequest { kind }).await.map_err(|_closed| "closed".to_owned())?;
        }
        came.changed().await.map_err(|_closed| "closed".to_owned())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_told_once_a_minute() {
        let uses = KeyUses::default();
        uses.note("a", 0);
        uses.note("b", 0);
        uses.note("a", 0);
        assert_eq!(uses.take(), ["a", "b"]);
        uses.note("a", QUIET_MILLIS - 1);
        assert_eq!(uses.take(), Vec::<String>::new());
        uses.note("a", QUIET_MILLIS);
        assert_eq!(uses.take(), ["a"]);
        uses.note("a", 0);
        assert_eq!(uses.take(), ["a"], "a clock that was set back hides nothing");
        for key in 0..2 * KEYS_MAX {
            uses.note(&key.to_string(), 0);
        }
        assert!(uses.lock().told.len() <= KEYS_MAX);
    }
}
