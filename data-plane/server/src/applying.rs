//! What is being applied right now, on disk, so that a revision that ends the process is not applied for ever (R10 of sync).
//!
//! Before a revision is compiled a mark is written, and taken away when it is served or refused. A mark that is found was left behind by a
//! process that died. A revision with two of them is not tried again by the same build; from the second attempt on the mark also says which
//! resource is worked on, so that the refusal can name it, or the resource can be left out where there is nothing to fall back to (R06).
//! Nothing is flushed: a mark has to survive the process, not the machine.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::runtime::Position;

/// A revision is tried so often.
const ATTEMPTS_MAX: usize = 2;
/// And so often again, each time without one more resource, before nothing of it is tried.
const ATTEMPTS_WITHOUT_MAX: usize = 8;

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
    /// What stays in the file: the resources without which the process has survived it.
    stays: Option<String>,
}

/// The process has died of this revision as often as it may.
#[derive(Debug, PartialEq, Eq)]
pub struct Deadly {
    /// The resource it was working on; empty when that is not known.
    pub resource: String,
    /// Those that were left out by then.
    pub left_out: BTreeSet<String>,
    attempts: usize,
}

impl Deadly {
    /// All resources that are known to have ended the process.
    pub fn resources(&self) -> BTreeSet<String> {
        let last = (!self.resource.is_empty()).then(|| self.resource.clone());
        self.left_out.iter().cloned().chain(last).collect()
    }
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
        let (path, title) = (self.path(at), title(at));
        let left = std::fs::read_to_string(&path).unwrap_or_default();
        // Of another build or another history: that one begins anew.
        let left = left.strip_prefix(&title).unwrap_or_default();
        let attempts = left.lines().filter(|line| *line == ATTEMPT).count();
        if attempts >= ATTEMPTS_MAX {
            let left_out = left.lines().filter_map(|line| line.strip_prefix(LEFT_OUT)).map(str::to_owned).collect();
            let is_note = |line: &&str| *line == ATTEMPT || line.starts_with(LEFT_OUT);
            let resource = left.lines().last().filter(|line| !is_note(line)).unwrap_or_default().to_owned();
            return Err(Deadly { resource, left_out, attempts });
        }
        let detailed = mark(&path, &title, attempts + 1, &BTreeSet::new()).filter(|_| attempts > 0);
        Ok(Attempt { path, detailed, stays: None })
    }

    /// Begins an attempt without the resources that have ended the process; `None` when none is known, or it has ended without them too
    /// often. What was left out is remembered with the revision. Blocks.
    pub fn begin_without(&self, at: &Position, deadly: &Deadly) -> Option<Attempt> {
        let left_out = deadly.resources();
        if left_out.is_empty() || deadly.attempts >= ATTEMPTS_MAX + ATTEMPTS_WITHOUT_MAX {
            return None;
        }
        let (path, title) = (self.path(at), title(at));
        let detailed = mark(&path, &title, deadly.attempts + 1, &left_out);
        Some(Attempt { path, detailed, stays: Some(notes(&title, ATTEMPTS_MAX, &left_out)) })
    }

    fn path(&self, at: &Position) -> PathBuf {
        self.folder.join(format!("{}.{}", at.workspace.replace('/', "."), at.revision))
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

/// Stands for one attempt.
const ATTEMPT: &str = "-";
/// Before the name of a resource that is left out.
const LEFT_OUT: &str = "without ";

/// Whose attempts they are: of one build, at one content.
fn title(at: &Position) -> String {
    format!("{} {} {:02x?}\n", env!("CARGO_PKG_VERSION"), at.store_epoch, at.digest)
}

fn notes(title: &str, attempts: usize, left_out: &BTreeSet<String>) -> String {
    let mut notes = title.to_owned() + &format!("{ATTEMPT}\n").repeat(attempts);
    for name in left_out {
        notes.extend([LEFT_OUT, name, "\n"]);
    }
    notes
}

/// Writes down that an attempt begins; where that cannot be done, what comes is tried all the same.
fn mark(path: &Path, title: &str, attempts: usize, left_out: &BTreeSet<String>) -> Option<Mutex<File>> {
    let write = || {
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(path)?;
        file.write_all(notes(title, attempts, left_out).as_bytes())?;
        Ok(Mutex::new(file))
    };
    let written: io::Result<_> = write();
    written.inspect_err(|error| tracing::warn!(%error, "what is being applied cannot be written down")).ok()
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
        let crossed_out = match &self.stays {
            Some(notes) => std::fs::write(&self.path, notes),
            None => std::fs::remove_file(&self.path),
        };
        if let Err(error) = crossed_out {
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
        Deadly { resource: resource.to_owned(), left_out: BTreeSet::new(), attempts: 2 }
    }

    #[test]
    fn what_killed_is_left_out_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let applying = Applying::open(folder.path()).unwrap();
        dies(&applying, &at(2, 2), &["a", "b"]);
        dies(&applying, &at(2, 2), &["a", "b"]);
        let first = applying.begin(&at(2, 2)).unwrap_err();
        let attempt = applying.begin_without(&at(2, 2), &first).unwrap();
        ["a", "c"].iter().for_each(|resource| attempt.works_on(resource));
        std::mem::forget(attempt);
        let second = applying.begin(&at(2, 2)).unwrap_err();
        assert_eq!(second.resources(), ["b", "c"].map(str::to_owned).into());
        // It survives without both, and every time after that.
        let mut deadly = second;
        for _ in 0..20 {
            drop(applying.begin_without(&at(2, 2), &deadly).unwrap());
            deadly = applying.begin(&at(2, 2)).unwrap_err();
            assert_eq!((deadly.resource.as_str(), deadly.attempts), ("", 2));
            assert_eq!(deadly.resources(), ["b", "c"].map(str::to_owned).into());
        }
        // One that ends it whatever is left out is given up.
        let died = (0..20).take_while(|_| {
            let deadly = applying.begin(&at(2, 2)).unwrap_err();
            applying.begin_without(&at(2, 2), &deadly).map(std::mem::forget).is_some()
        });
        assert_eq!(died.count(), ATTEMPTS_WITHOUT_MAX);
    }

    #[test]
    fn who_died_of_nothing_that_is_known_has_nothing_to_leave_out() {
        let folder = tempfile::tempdir().unwrap();
        let applying = Applying::open(folder.path()).unwrap();
        dies(&applying, &at(2, 2), &[]);
        dies(&applying, &at(2, 2), &[]);
        let deadly = applying.begin(&at(2, 2)).unwrap_err();
        assert!(applying.begin_without(&at(2, 2), &deadly).is_none());
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
