//! What a plane remembers of the store over its own restarts, in a file of its own: enough to notice that it is another store
//! now, or an older state of it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Who a shard of the store is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Made with the shard.
    pub(super) store: String,
    /// How often this plane has opened it.
    pub(super) opened: i64,
}

/// The file; without one nothing is remembered.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    path: Option<PathBuf>,
    shards: Arc<Mutex<Vec<Option<Identity>>>>,
}

impl Memory {
    /// Reads the file. One that cannot be read counts as empty, and the log says so: it is a witness, not the store.
    pub(super) fn open(path: Option<PathBuf>) -> Self {
        let read = path.as_deref().filter(|path| path.exists()).map(std::fs::read).transpose();
        let shards = read.map(|bytes| bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose());
        let shards = match shards {
            Ok(Ok(shards)) => shards.unwrap_or_default(),
            Ok(Err(error)) => {
                tracing::warn!(%error, "what was remembered of the inbox's store cannot be read");
                Vec::new()
            }
            Err(error) => {
                tracing::warn!(%error, "what was remembered of the inbox's store cannot be read");
                Vec::new()
            }
        };
        Self { path, shards: Arc::new(Mutex::new(shards)) }
    }

    /// Who this shard was.
    pub(super) fn of(&self, shard: u16) -> Option<Identity> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).get(usize::from(shard)).cloned().flatten()
    }

    /// Who it is now.
    pub(super) fn remember(&self, shard: u16, identity: &Identity) {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let at = usize::from(shard);
        if shards.len() <= at {
            shards.resize(at + 1, None);
        }
        if let Some(place) = shards.get_mut(at) {
            *place = Some(identity.clone());
        }
        let Some(path) = &self.path else { return };
        let written = serde_json::to_vec(&*shards).map_err(std::io::Error::other).and_then(|bytes| write(path, &bytes));
        if let Err(error) = written {
            tracing::warn!(%error, "what is to be remembered of the inbox's store cannot be written");
        }
    }
}

/// All of it or nothing.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}
