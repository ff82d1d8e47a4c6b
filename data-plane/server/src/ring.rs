//! The ring of master keys, which grows while the plane runs: it is read again when a data key names a key that it lacks (K05).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use sluice_core::seal::{MasterKeys, Secret};
use tokio::sync::watch;

use crate::Error;

/// The master keys and where they come from.
#[derive(Debug)]
pub struct Ring {
    file: PathBuf,
    keys: ArcSwap<MasterKeys>,
    marks: watch::Sender<Vec<String>>,
}

impl Ring {
    /// Reads the ring.
    ///
    /// # Errors
    /// The file cannot be read or breaks its format.
    pub fn open(file: &Path) -> Result<Self, Error> {
        let keys = read(file)?;
        let marks = watch::Sender::new(keys.marks());
        Ok(Self { file: file.to_owned(), keys: ArcSwap::from_pointee(keys), marks })
    }

    /// By what the installation is known whose keys these are, now and from now on ([`MasterKeys::marks`]).
    pub fn marks(&self) -> watch::Receiver<Vec<String>> {
        self.marks.subscribe()
    }

    /// The keys as they were read last.
    pub fn keys(&self) -> Arc<MasterKeys> {
        self.keys.load_full()
    }

    /// The keys, read again when `key_id` is not one of them. Blocks then; call it off the runtime.
    pub fn keys_for(&self, key_id: &str) -> Arc<MasterKeys> {
        let keys = self.keys.load_full();
        if keys.ids().any(|id| id == key_id) {
            return keys;
        }
        match read(&self.file) {
            Ok(keys) => {
                tracing::info!(ring = ?keys, "the ring of master keys was read again");
                self.marks.send_replace(keys.marks());
                self.keys.store(Arc::new(keys));
            }
            Err(error) => tracing::error!(%error, "the ring of master keys cannot be used; keeping the one before"),
        }
        self.keys.load_full()
    }
}

fn read(file: &Path) -> Result<MasterKeys, Error> {
    let text = std::fs::read_to_string(file).map(Secret::new);
    let text = text.map_err(|source| Error::File { what: "the master key file", path: file.to_owned(), source })?;
    Ok(MasterKeys::parse(text.expose())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_looked_for_and_a_broken_ring_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("master.key");
        let line = |id: &str| format!("{id}:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n");
        assert!(matches!(Ring::open(&file), Err(Error::File { .. })));
        std::fs::write(&file, line("first")).unwrap();
        let ring = Ring::open(&file).unwrap();
        let ids = |keys: Arc<MasterKeys>| keys.ids().map(str::to_owned).collect::<Vec<_>>();
        std::fs::write(&file, line("first") + &line("second")).unwrap();
        assert_eq!(ids(ring.keys_for("first")), ["first"], "nothing is missing");
        let marks = ring.marks();
        assert_eq!(ids(ring.keys_for("second")), ["first", "second"]);
        assert_eq!((marks.borrow().len(), marks.has_changed().unwrap()), (2, true));
        std::fs::write(&file, "broken").unwrap();
        assert_eq!(ids(ring.keys_for("third")), ["first", "second"]);
    }
}
