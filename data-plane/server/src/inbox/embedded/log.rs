//! The log of the file, moved into it beside the writer. Left to SQLite, the writer moves it in one of its commits: everybody waits
//! until all of it is copied and flushed. Here a connection of its own copies while the writer goes on, then what came meanwhile, and so
//! on until little is left. That the writer moves itself, between two groups: only when nothing is left does the log begin anew.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::sqlite::SqliteSynchronous;
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::task::JoinHandle;

use super::options;

/// The log is moved when about so many bytes were written to it, or before they are more than its disk has room for: a log that took all
/// the room could not be moved into the file any more, and nothing would go on (F35).
const EVERY: usize = if cfg!(test) { 2 << 20 } else { 32 << 20 };
/// Fewer are not moved, however full the disk is, and after a failure it is tried again when so many more were written.
const LEAST: usize = 1 << 20;
/// What a transaction writes beside what it is given: pages that it changes a little.
const BESIDE: usize = 8 * 8192;
/// Pages that the writer moves in no time.
const FEW: i64 = 128;
/// Where copying is not faster than what comes meanwhile, it ends after so many times.
const TIMES: usize = 4;

/// The log of one file.
pub(super) struct Log {
    path: PathBuf,
    /// Open for as long as the database is: a process that closes any handle of a file loses all its locks on it.
    file: Arc<File>,
    written: usize,
    /// It is not moved before so many were written.
    not_before: usize,
    moving: Option<JoinHandle<Result<(), sqlx::Error>>>,
}

impl Log {
    /// Of the database at `path`, with a handle on it. What an earlier process left in the log counts.
    pub(super) fn new(path: &Path, file: File) -> Self {
        let mut beside = path.as_os_str().to_owned();
        beside.push("-wal");
        let left = std::fs::metadata(beside).map_or(0, |log| log.len());
        let written = usize::try_from(left).unwrap_or(usize::MAX);
        Self { path: path.to_owned(), file: Arc::new(file), written, not_before: LEAST, moving: None }
    }

    /// A transaction wrote so many bytes. Answers whether the writer is to move what is left.
    pub(super) async fn wrote(&mut self, bytes: usize) -> bool {
        self.written = self.written.saturating_add(bytes).saturating_add(BESIDE);
        if let Some(moving) = self.moving.take_if(|moving| moving.is_finished()) {
            if let Err(error) = moving.await.unwrap_or_else(|stopped| Err(std::io::Error::other(stopped).into())) {
                // SQLite sees to it that the log does not grow for ever (`CHECKPOINT_PAGES`).
                tracing::warn!(error = %error, "the log of the inbox could not be moved into its file");
                self.not_before = self.written.saturating_add(LEAST);
                return false;
            }
            (self.written, self.not_before) = (0, LEAST);
            return true;
        }
        if self.moving.is_none()
            && self.written >= self.not_before
            && (self.written >= EVERY || self.written >= self.room())
        {
            self.moving = Some(tokio::spawn(move_most(self.path.clone(), self.file.clone())));
        }
        false
    }

    /// Bytes that are free on the disk.
    #[cfg(unix)]
    fn room(&self) -> usize {
        let free = |disk: rustix::fs::StatVfs| disk.f_bavail.saturating_mul(disk.f_frsize);
        let free = rustix::fs::fstatvfs(&*self.file).map_or(u64::MAX, free);
        usize::try_from(free).unwrap_or(usize::MAX)
    }

    #[cfg(not(unix))]
    fn room(&self) -> usize {
        usize::MAX
    }

    /// Waits until nobody moves anything.
    pub(super) async fn rest(&mut self) {
        if let Some(moving) = self.moving.take() {
            // However it ended: closing the file moves the rest.
            let _ended = moving.await;
        }
    }
}

async fn move_most(path: PathBuf, file: Arc<File>) -> Result<(), sqlx::Error> {
    let mut conn = options(&path).synchronous(SqliteSynchronous::Full).pragma("fullfsync", "1").connect().await?;
    let mut before = 0;
    for _ in 0..TIMES {
        let row = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(&mut conn).await?;
        let moved: i64 = row.try_get(2)?;
        // SQLite flushes the file only when nothing is left in the log; the writer would wait for all of it.
        let file = file.clone();
        let flushed = tokio::task::spawn_blocking(move || file.sync_data()).await;
        flushed.map_err(std::io::Error::other).flatten()?;
        if moved - before < FEW {
            break;
        }
        before = moved;
    }
    conn.close().await
}
