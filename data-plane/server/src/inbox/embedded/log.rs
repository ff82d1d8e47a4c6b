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

/// The log is moved when about so many bytes were written to it.
const EVERY: usize = if cfg!(test) { 2 << 20 } else { 32 << 20 };
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
    moving: Option<JoinHandle<Result<(), sqlx::Error>>>,
}

impl Log {
    /// Of the database at `path`, with a handle on it. What an earlier process left in the log counts.
    pub(super) fn new(path: &Path, file: File) -> Self {
        let mut beside = path.as_os_str().to_owned();
        beside.push("-wal");
        let left = std::fs::metadata(beside).map_or(0, |log| log.len());
        let written = usize::try_from(left).unwrap_or(usize::MAX);
        Self { path: path.to_owned(), file: Arc::new(file), written, moving: None }
    }

    /// A transaction wrote so many bytes. Answers whether the writer is to move what is left.
    pub(super) async fn wrote(&mut self, bytes: usize) -> bool {
        self.written = self.written.saturating_add(bytes).saturating_add(BESIDE);
        if let Some(moving) = self.moving.take_if(|moving| moving.is_finished()) {
            self.written = 0;
            return match moving.await {
                Ok(Ok(())) => true,
                // SQLite sees to it that the log does not grow for ever (`CHECKPOINT_PAGES`).
                Ok(Err(error)) => {
                    tracing::warn!(error = %error, "the log of the inbox could not be moved into its file");
                    false
                }
                Err(_stopped) => false,
            };
        }
        if self.moving.is_none() && self.written >= EVERY {
            self.moving = Some(tokio::spawn(move_most(self.path.clone(), self.file.clone())));
        }
        false
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
