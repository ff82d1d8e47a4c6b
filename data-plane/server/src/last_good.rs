//! The last configuration that was served, one file per workspace and one of the revision before, encrypted (I5). What a delta changes is
//! read here too: nothing of it stays in memory beside what it was compiled to.
//!
//! It is a cache: a file that cannot be opened or does not have its digest is left out and asked for again. So nothing here
//! waits for the disk to flush, and nothing here can stop a publish. Each file has a key of its own, wrapped by a master key; secrets
//! within it stay sealed by the workspace's own key.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message as _;
use sluice_core::seal::{self, Aad, DataKey, Sealed, WrappedKey};
use sluice_core::snapshot::EncodedBody;
use sluice_proto::sync::v1::{self as sync, Cursor, LastGood, SealedLastGood};

use crate::ring::Ring;
use crate::runtime::{Position, Source};

/// Of the revision that is served.
const NEWEST: &str = "pb";
/// Of the one before it.
const BEFORE: &str = "before";

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
    pub fn write(&self, at: &Position, source: &Source, ring: &Ring) -> io::Result<()> {
        let file = LastGood {
            store_epoch: at.store_epoch.clone(),
            cursor: Some(Cursor {
                workspace: at.workspace.clone(),
                revision: at.revision,
                digest: at.digest.clone().into(),
            }),
            body: source.to_snapshot().encode_to_vec().into(),
        };
        let sealed = sealed(&at.workspace, &file.encode_to_vec(), ring)?;
        let target = self.file(&at.workspace, NEWEST);
        let fresh = target.with_extension("new");
        std::fs::write(&fresh, sealed.encode_to_vec())?;
        // Nothing is renamed onto a file: what takes the place of one is written out at once, and whoever waits for the disk waits for it.
        // Either file is there at any moment.
        if target.exists() {
            let before = self.file(&at.workspace, BEFORE);
            remove(&before)?;
            std::fs::rename(&target, before)?;
        }
        std::fs::rename(fresh, target)
    }

    /// Forgets a workspace that was deleted. Blocks; call it off the runtime.
    pub fn remove(&self, workspace: &str) -> io::Result<()> {
        [BEFORE, NEWEST].iter().try_for_each(|extension| remove(&self.file(workspace, extension)))
    }

    /// The names of all workspaces. Blocks; call it off the runtime.
    pub fn workspaces(&self) -> io::Result<Vec<String>> {
        let mut names = std::collections::BTreeSet::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            // One that died between two renames has left only the file of the revision before.
            if path.extension().is_some_and(|extension| extension == NEWEST || extension == BEFORE) {
                names.insert(path.file_stem().unwrap_or_default().to_string_lossy().replacen('.', "/", 1));
            }
        }
        Ok(names.into_iter().collect())
    }

    /// The newest revision, if it can be read; not yet checked. Blocks; call it off the runtime.
    pub fn newest(&self, workspace: &str, ring: &Ring) -> Option<(Position, Source)> {
        let newest = self.file(workspace, NEWEST);
        let file = if newest.exists() { newest } else { self.file(workspace, BEFORE) };
        let found = opened(workspace, &file, ring);
        if found.is_none() {
            tracing::warn!(file = %file.display(), "a last good file cannot be read");
        }
        found
    }

    /// The revision before the newest, if it can be read. Blocks; call it off the runtime.
    pub fn before(&self, workspace: &str, ring: &Ring) -> Option<(Position, Source)> {
        opened(workspace, &self.file(workspace, BEFORE), ring)
    }

    /// Exactly this revision, if it can be read. Blocks; call it off the runtime.
    pub fn at(&self, at: &Position, ring: &Ring) -> Option<Source> {
        let files = [NEWEST, BEFORE].into_iter().map(|extension| self.file(&at.workspace, extension));
        let mut found = files.filter_map(|file| opened(&at.workspace, &file, ring));
        found.find_map(|(position, source)| (position == *at).then_some(source))
    }
}

/// It may not be there.
fn remove(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
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
    let file = SealedLastGood::decode(Bytes::from(std::fs::read(file).ok()?)).ok()?;
    let sync::WrappedKey { key_id, ciphertext } = file.data_key?;
    let wrapped = WrappedKey { key_id, bytes: ciphertext.to_vec() };
    let key = ring.keys_for(&wrapped.key_id).unwrap(&wrapped, workspace).ok()?;
    let contents = seal::open(&key, place(workspace), &Sealed::from_bytes(file.sealed.to_vec())).ok()?;
    let file = LastGood::decode(Bytes::from(contents.to_vec())).ok()?;
    let (cursor, body) = (file.cursor?, EncodedBody::decode(file.body).ok()?);
    let position = Position {
        workspace: cursor.workspace,
        store_epoch: file.store_epoch,
        revision: cursor.revision,
        digest: cursor.digest.to_vec(),
    };
    let source = Source::from_snapshot(body).ok()?;
    (position.workspace == workspace).then_some((position, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(revision: i64) -> Position {
        Position {
            workspace: "workspaces/acme".to_owned(),
            store_epoch: "epoch".to_owned(),
            revision,
            digest: vec![7; 32],
        }
    }

    #[test]
    fn wherever_a_write_is_cut_off_what_was_served_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("master.key");
        std::fs::write(&keys, "first:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n").unwrap();
        let ring = Ring::open(&keys).unwrap();
        let store = LastGoodStore::open(&folder.path().join("last-good")).unwrap();
        let newest = || store.newest("workspaces/acme", &ring).map(|(at, _)| at.revision);
        let before = || store.before("workspaces/acme", &ring).map(|(at, _)| at.revision);
        for revision in 1..4 {
            store.write(&at(revision), &Source::default(), &ring).unwrap();
            assert_eq!((newest(), before()), (Some(revision), (revision > 1).then_some(revision - 1)));
        }
        // Cut off after the one before has become the newest's name: only that is there, and is not lost by the next write either.
        std::fs::rename(store.file("workspaces/acme", NEWEST), store.file("workspaces/acme", BEFORE)).unwrap();
        assert_eq!((newest(), before()), (Some(3), Some(3)));
        store.write(&at(4), &Source::default(), &ring).unwrap();
        assert_eq!((newest(), before()), (Some(4), Some(3)));
    }
}
