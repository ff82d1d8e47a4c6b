//! What is being applied right now, on disk, so that a revision that ends the process is not applied for ever (R10 of sync).
//!
//! Before a revision is compiled a mark is written, and taken away when it is served or refused. A mark that is found was left behind by a
//! process that died. A revision with two of them is not tried again by the same build; from the second attempt on the mark also says which
//! resource is worked on, so that the refusal can name it. Nothing is flushed: a mark has to survive the process, not the machine.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::runtime::Position;

/// A revision is tried so often.
const ATTEMPTS_MAX: usize = 2;

/// Where the marks are.
#[derive(Clone, Debug)]
pub struct Applying {
    folder: PathBuf,
}

/// A revision that is being applied; dropping it says that the process has survived it.
#[derive(Debug)]
pub struct Attempt {
    path: PathBuf,
    /// Resources are written down too.
    detailed: Option<Mutex<File>>,
}

/// The process has died of this revision as often as it may.
#[derive(Debug, PartialEq, Eq)]
pub struct Deadly {
    /// The resource it was working on; empty when that is not known.
    pub resource: String,
}

impl Applying {
    /// Opens, and makes if needed, `folder`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Begins an attempt. Blocks; call it off the runtime. Without a disk there are no marks, and everything is tried.
    ///
    /// # Errors
    /// The process has died of it before.
    pub fn begin(&self, at: &Position) -> Result<Attempt, Deadly> {
        let path = self.folder.join(format!("{}.{}", at.workspace.replace('/', "."), at.revision));
        let title = format!("{} {} {:02x?}\n", env!("CARGO_PKG_VERSION"), at.store_epoch, at.digest);
        let left = std::fs::read_to_string(&path).unwrap_or_default();
        // Of another build or another history: that one begins anew.
        let left = left.strip_prefix(&title).unwrap_or_default();
        let before = left.lines().filter(|line| *line == ATTEMPT).count();
        if before >= ATTEMPTS_MAX {
            let resource = left.lines().last().filter(|line| *line != ATTEMPT).unwrap_or_default();
            return Err(Deadly { resource: resource.to_owned() });
        }
        let detailed = mark(&path, &title, before).inspect_err(|error| {
            tracing::warn!(%error, "what is being applied cannot be written down");
        });
        let detailed = detailed.ok().filter(|_| before > 0).map(Mutex::new);
        Ok(Attempt { path, detailed })
    }

    /// Forgets the marks of revisions before this one. Blocks; call it off the runtime.
    pub fn passed(&self, at: &Position) {
        let prefix = format!("{}.", at.workspace.replace('/', "."));
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let revision = name.strip_prefix(&prefix).and_then(|revision| revision.parse::<i64>().ok());
            if revision.is_some_and(|revision| revision < at.revision) {
                // Left behind, it would do no harm.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// Begins the notes of one attempt.
const ATTEMPT: &str = "-";

fn mark(path: &Path, title: &str, before: usize) -> io::Result<File> {
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(path)?;
    file.write_all(title.as_bytes())?;
    for _ in 0..=before {
        writeln!(file, "{ATTEMPT}")?;
    }
    Ok(file)
}

impl Attempt {
    /// This resource is worked on now.
    pub fn works_on(&self, resource: &str) {
        let Some(file) = self.detailed.as_ref().and_then(|file| file.lock().ok()) else { return };
        // A name that is missing is only not told.
        let _ = writeln!(&*file, "{resource}");
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // One that stays would count as a death.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, "what was applied cannot be crossed out");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(revision: i64, digest: u8) -> Position {
        Position {
            workspace: "workspaces/acme".to_owned(),
            store_epoch: "epoch".to_owned(),
            revision,
            digest: vec![digest; 32],
        }
    }

    /// An attempt that the process does not survive.
    fn dies(applying: &Applying, at: &Position, resources: &[&str]) {
        let attempt = applying.begin(at).unwrap();
        resources.iter().for_each(|resource| attempt.works_on(resource));
        std::mem::forget(attempt);
    }

    fn deadly(resource: &str) -> Deadly {
        Deadly { resource: resource.to_owned() }
    }

    #[test]
    fn a_revision_that_killed_twice_is_not_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let applying = Applying::open(folder.path()).unwrap();
        dies(&applying, &at(2, 2), &["a", "b"]);
        dies(&applying, &at(2, 2), &["a", "b"]);
        for _ in 0..3 {
            assert_eq!(applying.begin(&at(2, 2)).unwrap_err(), deadly("b"));
        }
        // Another revision, and another content under this number, are tried.
        drop(applying.begin(&at(1, 1)).unwrap());
        drop(applying.begin(&at(3, 3)).unwrap());
        assert_eq!(applying.begin(&at(2, 2)).unwrap_err(), deadly("b"));
        drop(applying.begin(&at(2, 9)).unwrap());
    }

    #[test]
    fn a_revision_that_was_survived_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let applying = Applying::open(folder.path()).unwrap();
        for _ in 0..3 {
            dies(&applying, &at(2, 2), &[]);
            drop(applying.begin(&at(2, 2)).unwrap());
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        dies(&applying, &at(2, 2), &[]);
        dies(&applying, &at(2, 2), &[]);
        assert_eq!(applying.begin(&at(2, 2)).unwrap_err(), deadly(""), "it died before the first resource");
        applying.passed(&at(2, 2));
        assert!(applying.begin(&at(2, 2)).is_err(), "it is not before itself");
        applying.passed(&at(3, 3));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn another_build_tries_again() {
        let folder = tempfile::tempdir().unwrap();
        let applying = Applying::open(folder.path()).unwrap();
        dies(&applying, &at(2, 2), &[]);
        dies(&applying, &at(2, 2), &[]);
        let file = folder.path().join("workspaces.acme.2");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replacen(env!("CARGO_PKG_VERSION"), "0.0.0", 1)).unwrap();
        drop(applying.begin(&at(2, 2)).unwrap());
    }
}
