//! The last configuration that was served, one file per workspace, secrets still sealed (I5).
//!
//! It is a cache: a file that cannot be read or does not have its digest is left out and asked for again. So nothing here
//! waits for the disk to flush, and nothing here can stop a publish.

use std::io;
use std::path::{Path, PathBuf};

use prost::Message as _;
use sluice_proto::sync::v1::{Cursor, LastGood};

use crate::runtime::{Position, Source, Workspace};

/// What was found on disk.
#[derive(Debug, Default)]
pub struct Loaded {
    /// What could be read, not yet checked.
    pub workspaces: Vec<(Position, Source)>,
    /// Files that could not.
    pub unreadable: usize,
}

/// Where the files are.
#[derive(Clone, Debug)]
pub struct LastGoodStore {
    folder: PathBuf,
}

impl LastGoodStore {
    /// Opens, and makes if needed, `folder`.
    pub fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    fn file(&self, workspace: &str) -> PathBuf {
        // Ids are `[a-z0-9-]`, so the name is safe as a file name once the slash is gone.
        self.folder.join(format!("{}.pb", workspace.replace('/', ".")))
    }

    /// Writes a workspace. Blocks; call it off the runtime.
    pub fn write(&self, workspace: &Workspace) -> io::Result<()> {
        let file = LastGood {
            store_epoch: workspace.store_epoch.clone(),
            cursor: Some(Cursor {
                workspace: workspace.name.clone(),
                revision: workspace.revision,
                digest: workspace.digest.to_vec().into(),
            }),
            body: Some(workspace.source.to_snapshot()),
        };
        let target = self.file(&workspace.name);
        let fresh = target.with_extension("new");
        std::fs::write(&fresh, file.encode_to_vec())?;
        std::fs::rename(fresh, target)
    }

    /// Forgets a workspace that was deleted. Blocks; call it off the runtime.
    pub fn remove(&self, workspace: &str) -> io::Result<()> {
        match std::fs::remove_file(self.file(workspace)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Everything that can be read. Blocks; call it off the runtime.
    pub fn load(&self) -> io::Result<Loaded> {
        let mut loaded = Loaded::default();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "pb") {
                continue;
            }
            let file = std::fs::read(&path).ok().and_then(|bytes| LastGood::decode(bytes.as_slice()).ok());
            match file.and_then(position) {
                Some(workspace) => loaded.workspaces.push(workspace),
                None => {
                    tracing::warn!(file = %path.display(), "a last good file cannot be read");
                    loaded.unreadable += 1;
                }
            }
        }
        Ok(loaded)
    }
}

fn position(file: LastGood) -> Option<(Position, Source)> {
    let (cursor, body) = file.cursor.zip(file.body)?;
    let position = Position {
        workspace: cursor.workspace,
        store_epoch: file.store_epoch,
        revision: cursor.revision,
        digest: cursor.digest.to_vec(),
    };
    Some((position, Source::from_snapshot(body)))
}
