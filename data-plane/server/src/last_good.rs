//! The last configuration that was served, one file per workspace and one of the revision before, encrypted (I5).
//!
//! It is a cache: a file that cannot be opened or does not have its digest is left out and asked for again. So nothing here
//! waits for the disk to flush, and nothing here can stop a publish. Each file has a key of its own, wrapped by a master key; secrets
//! within it stay sealed by the workspace's own key.

use std::io;
use std::path::{Path, PathBuf};

use prost::Message as _;
use sluice_core::seal::{self, Aad, DataKey, Sealed, WrappedKey};
use sluice_proto::sync::v1::{self as sync, Cursor, LastGood, SealedLastGood};

use crate::ring::Ring;
use crate::runtime::{Position, Source, Workspace};

/// Of the revision that is served.
const NEWEST: &str = "pb";
/// Of the one before it.
const BEFORE: &str = "before";

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

    fn file(&self, workspace: &str, extension: &str) -> PathBuf {
        // Ids are `[a-z0-9-]`, so the name is safe as a file name once the slash is gone.
        self.folder.join(format!("{}.{extension}", workspace.replace('/', ".")))
    }

    /// Writes a workspace; the file there becomes that of the revision before. Blocks; call it off the runtime.
    pub fn write(&self, workspace: &Workspace, ring: &Ring) -> io::Result<()> {
        let file = LastGood {
            store_epoch: workspace.store_epoch.clone(),
            cursor: Some(Cursor {
                workspace: workspace.name.clone(),
                revision: workspace.revision,
                digest: workspace.digest.to_vec().into(),
            }),
            body: Some(workspace.source.to_snapshot()),
        };
        let sealed = sealed(&workspace.name, &file.encode_to_vec(), ring)?;
        let target = self.file(&workspace.name, NEWEST);
        let fresh = target.with_extension("new");
        std::fs::write(&fresh, sealed.encode_to_vec())?;
        match std::fs::rename(&target, self.file(&workspace.name, BEFORE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        std::fs::rename(fresh, target)
    }

    /// Forgets a workspace that was deleted. Blocks; call it off the runtime.
    pub fn remove(&self, workspace: &str) -> io::Result<()> {
        for extension in [BEFORE, NEWEST] {
            match std::fs::remove_file(self.file(workspace, extension)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// The newest of every workspace that can be read. Blocks; call it off the runtime.
    pub fn load(&self, ring: &Ring) -> io::Result<Loaded> {
        let mut loaded = Loaded::default();
        let mut names = std::collections::BTreeSet::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            // One that died between two renames has left only the file of the revision before.
            if path.extension().is_some_and(|extension| extension == NEWEST || extension == BEFORE) {
                names.insert(path.file_stem().unwrap_or_default().to_string_lossy().replacen('.', "/", 1));
            }
        }
        for name in names {
            let newest = self.file(&name, NEWEST);
            let file = if newest.exists() { newest } else { self.file(&name, BEFORE) };
            match opened(&name, &file, ring) {
                Some(workspace) => loaded.workspaces.push(workspace),
                None => {
                    tracing::warn!(file = %file.display(), "a last good file cannot be read");
                    loaded.unreadable += 1;
                }
            }
        }
        Ok(loaded)
    }

    /// The revision before the newest, if it can be read. Blocks; call it off the runtime.
    pub fn before(&self, workspace: &str, ring: &Ring) -> Option<(Position, Source)> {
        opened(workspace, &self.file(workspace, BEFORE), ring)
    }
}

/// To what the contents are bound.
fn place(workspace: &str) -> Aad<'_> {
    Aad { workspace, object: "last-good", field: "contents", version: 1 }
}

fn sealed(workspace: &str, contents: &[u8], ring: &Ring) -> io::Result<SealedLastGood> {
    let mut random = zeroize::Zeroizing::new([0; seal::KEY_BYTES]);
    let mut nonces = [[0; seal::NONCE_BYTES]; 2];
    getrandom::fill(&mut *random).map_err(io::Error::other)?;
    for nonce in &mut nonces {
        getrandom::fill(nonce).map_err(io::Error::other)?;
    }
    let key = DataKey::new(*random);
    let WrappedKey { key_id, bytes } = ring.keys().wrap(&key, workspace, &nonces[0]);
    let sealed = seal::seal(&key, place(workspace), contents, &nonces[1]);
    Ok(SealedLastGood {
        data_key: Some(sync::WrappedKey { key_id, ciphertext: bytes.into() }),
        sealed: sealed.as_bytes().to_vec().into(),
    })
}

fn opened(workspace: &str, file: &Path, ring: &Ring) -> Option<(Position, Source)> {
    let file = SealedLastGood::decode(std::fs::read(file).ok()?.as_slice()).ok()?;
    let sync::WrappedKey { key_id, ciphertext } = file.data_key?;
    let wrapped = WrappedKey { key_id, bytes: ciphertext.to_vec() };
    let key = ring.keys_for(&wrapped.key_id).unwrap(&wrapped, workspace).ok()?;
    let contents = seal::open(&key, place(workspace), &Sealed::from_bytes(file.sealed.to_vec())).ok()?;
    let file = LastGood::decode(contents.as_slice()).ok()?;
    let (cursor, body) = file.cursor.zip(file.body)?;
    let position = Position {
        workspace: cursor.workspace,
        store_epoch: file.store_epoch,
        revision: cursor.revision,
        digest: cursor.digest.to_vec(),
    };
    (position.workspace == workspace).then(|| (position, Source::from_snapshot(body)))
}
