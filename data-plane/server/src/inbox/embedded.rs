//! The embedded backend: SQLite on a file of its own, in WAL mode with `synchronous=FULL`.
//!
//! Hides the file (its mode, its lock, its version), the single writer behind a bounded channel ([`committer`]) and a
//! second connection for reading reports, so that a slow reader never stands in the way of a commit.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use thiserror::Error;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use uuid::Uuid;

use super::board::FlowBoard;
use super::life::{self, Life};
use super::{
    Accept, Accepted, Fence, Finish, Found, Grant, Lane, LeaseError, Leased, News, Place, Stats, Steer, Unavailable,
    Waited,
};
use crate::clock::{Clock, UnixMillis};

mod book;
mod claims;
mod committer;
mod find;
mod flows;
mod group;
mod log;
mod pack;
mod script;
mod store;

use book::{Book, Counts};
use committer::{Board, Committer, Limits, OutboxView};
use group::{Command, Question, Reply};
use log::Log;
use store::Store;

/// The schema this build reads and writes: as many steps as there are in [`SCHEMA`].
const SCHEMA_VERSION: i64 = 4;
/// "SLIX": a file that says otherwise is not an inbox.
const APPLICATION_ID: i64 = 0x534c_4958;
/// Each step leads from one version to the next, the first from an empty file, and sets the numbers above (a test
/// compares them).
const SCHEMA: [&str; 4] = [
    concat!(
        "BEGIN IMMEDIATE;\n",
        include_str!("embedded/schema/1.sql"),
        "\nPRAGMA user_version = 1; PRAGMA application_id = 1397508440; COMMIT;",
    ),
    concat!("BEGIN IMMEDIATE;\n", include_str!("embedded/schema/2.sql"), "\nPRAGMA user_version = 2; COMMIT;"),
    concat!("BEGIN IMMEDIATE;\n", include_str!("embedded/schema/3.sql"), "\nPRAGMA user_version = 3; COMMIT;"),
    concat!("BEGIN IMMEDIATE;\n", include_str!("embedded/schema/4.sql"), "\nPRAGMA user_version = 4; COMMIT;"),
];
/// By which a job that waits or is dead is found; the others are not in it, so that most jobs cost it nothing.
const FIND_INDEX: &str = "CREATE INDEX IF NOT EXISTS job_find ON job (id) WHERE state >= 2";
/// Of a new file; an older one keeps its own.
const PAGE_BYTES: u64 = 8192;
/// Pages that the writer holds in memory: 16 MiB.
const CACHE_PAGES: &str = "-16384";
/// Pages in the log before SQLite moves them into the file in a commit, if they were not moved before it ([`log`]): 128 MiB.
const CHECKPOINT_PAGES: &str = "16000";
/// The log is cut to this size when it starts anew.
const LOG_BYTES: &str = "67108864";
/// Commands that wait for the committer; more callers wait for a place (I8).
const COMMANDS: usize = 1_024;

/// Where the embedded inbox is kept, and its limits.
#[derive(Clone, Debug)]
pub struct EmbeddedSettings {
    /// The database file; its log and its lock lie beside it. Created with mode 0600, its folder must exist.
    pub path: PathBuf,
    /// Jobs that may be ready, leased or delayed at once; more are [`Accepted::Full`]. Those in the lane [`Lane::Bulk`]
    /// may be three quarters of them. Default 1,000,000.
    pub max_jobs: u64,
    /// Size of the file in bytes (rounded down to pages of 8 KiB), without its log; when it is reached, accepting is
    /// [`Unavailable`] and finishing makes room. Default 64 GiB.
    pub max_file_bytes: u64,
    /// How long a lease lasts unless renewed. Default 60 s.
    pub lease: Duration,
    /// How long dead jobs are kept. Default 30 days.
    pub dead_retention: Duration,
    /// A bug to have, so that a crash test can show it would notice.
    #[cfg(feature = "fault-injection")]
    pub fault: Option<super::Fault>,
}

impl EmbeddedSettings {
    /// The defaults, on this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            max_jobs: 1_000_000,
            max_file_bytes: 64 << 30,
            lease: Duration::from_secs(60),
            dead_retention: Duration::from_secs(30 * 24 * 3_600),
            #[cfg(feature = "fault-injection")]
            fault: None,
        }
    }
}

/// How long a fault holds its window open.
#[cfg(feature = "fault-injection")]
const FAULT_DELAY: Duration = Duration::from_millis(500);

/// Why the inbox could not be opened. Nothing was changed; the operator has to act.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process (or another inbox in this one) has the file.
    #[error("the inbox {0} is in use by another process")]
    InUse(PathBuf),
    /// Written by a newer release.
    #[error("the inbox {path} has schema version {found}; this release knows versions up to {SCHEMA_VERSION}")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// A database, but somebody else's.
    #[error("{0} is a database but not an inbox")]
    Foreign(PathBuf),
    /// Its pages contradict each other: what is in it cannot be relied on, and nothing is thrown away quietly (F37).
    #[error("the inbox {path} is damaged ({found}): restore it, or move it away to begin with an empty one")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What contradicts what, in SQLite's words.
        found: String,
    },
    /// A setting that cannot be kept.
    #[error("setting `{0}` of the embedded inbox must be {1}")]
    Setting(&'static str, &'static str),
    /// The file, its lock or its folder.
    #[error("inbox file {path}: {source}")]
    File {
        /// What was opened.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The thread that writes to the file.
    #[error("no thread for the inbox {path}: {source}")]
    Thread {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// SQLite.
    #[error("inbox database: {0}")]
    Database(#[from] sqlx::Error),
}

/// A handle on the embedded inbox. When the last one is dropped the file is let go, as after a crash nothing is lost.
#[derive(Clone, Debug)]
pub struct Embedded(Arc<Shared>);

struct Shared {
    commands: mpsc::Sender<Command>,
    flows: Arc<FlowBoard>,
    lanes: [watch::Receiver<u64>; 2],
    outbox: watch::Receiver<OutboxView>,
    counts: watch::Receiver<[Counts; 2]>,
    life: watch::Receiver<Life>,
    reader: Mutex<Option<SqliteConnection>>,
    clock: Clock,
    path: PathBuf,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Embedded {
    /// Opens or creates the file, releases the leases of earlier processes and starts the committer. All of the file is
    /// read once: about a second for each GB, if the disk is as fast.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(settings: EmbeddedSettings, clock: Clock) -> Result<Self, OpenError> {
        let limits = limits(&settings)?;
        let lock = lock(&settings.path)?;
        let file = create(&settings.path)?;
        let version = inspect(&settings.path).await?;
        let mut conn = connect(&settings).await?;
        for step in SCHEMA.into_iter().skip(version) {
            sqlx::raw_sql(step).execute(&mut conn).await?;
        }
        // Older releases keep it up to date without knowing it.
        sqlx::raw_sql(FIND_INDEX).execute(&mut conn).await?;
        let mut store = Store::new(conn);
        store.recover(clock.now()).await?;
        let book = Book::new(store.load().await?);
        let log = Log::new(&settings.path, file);
        let reader = options(&settings.path).read_only(true).connect().await?;
        let (commands, queue) = mpsc::channel(COMMANDS);
        let flows = Arc::new(FlowBoard::default());
        let board = Board {
            flows: flows.clone(),
            lanes: [watch::Sender::new(0), watch::Sender::new(0)],
            outbox: watch::Sender::new(OutboxView::default()),
            counts: watch::Sender::new(Default::default()),
            life: watch::Sender::new(Life::Working),
        };
        let shared = Shared {
            commands,
            flows,
            lanes: [board.lanes[0].subscribe(), board.lanes[1].subscribe()],
            outbox: board.outbox.subscribe(),
            counts: board.counts.subscribe(),
            life: board.life.subscribe(),
            reader: Mutex::new(Some(reader)),
            clock: clock.clone(),
            path: settings.path,
        };
        let committer = Committer::new((store, log), book, clock, limits, board, queue, lock);
        start(committer).await.map_err(|source| OpenError::Thread { path: shared.path.clone(), source })?;
        Ok(Self(Arc::new(shared)))
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.0.commands.send(command(reply)).await.map_err(|_| Unavailable)?;
        answer.await.map_err(|_| Unavailable)
    }

    async fn step(&self, command: impl FnOnce(Reply<bool>) -> Command) -> Result<(), LeaseError> {
        if self.ask(command).await? { Ok(()) } else { Err(LeaseError::Fenced) }
    }

    pub(super) async fn accept(&self, accept: Accept) -> Result<Accepted, Unavailable> {
        self.ask(|reply| Command::Accept(accept, reply)).await
    }

    pub(super) async fn lease(&self, grants: Vec<Grant>) -> Result<Vec<Leased>, Unavailable> {
        self.ask(|reply| Command::Lease(grants, reply)).await
    }

    pub(super) async fn renew(&self, leases: &[(Uuid, Fence)]) -> Result<Vec<Uuid>, Unavailable> {
        self.ask(|reply| Command::Renew(leases.to_vec(), reply)).await
    }

    pub(super) async fn begin(&self, id: Uuid, fence: Fence, rendered: Bytes) -> Result<(), LeaseError> {
        self.step(|reply| Command::Begin { id, fence, rendered, reply }).await
    }

    pub(super) async fn finish(&self, id: Uuid, fence: Fence, finish: Finish) -> Result<(), LeaseError> {
        self.step(|reply| Command::Finish { id, fence, finish, reply }).await
    }

    pub(super) async fn postpone(&self, id: Uuid, fence: Fence, due: UnixMillis) -> Result<(), LeaseError> {
        self.step(|reply| Command::Postpone { id, fence, due, reply }).await
    }

    pub(super) async fn find(&self, id: Uuid) -> Result<Option<Found>, Unavailable> {
        let found = {
            let mut reader = self.0.reader.lock().await;
            let conn = reader.as_mut().ok_or(Unavailable)?;
            find::find(conn, id).await.map_err(unreadable)?
        };
        let Some(found) = found else { return Ok(None) };
        let row = found.fence.row;
        Ok(Some(match self.ask(|reply| Command::Ask(Question::LeasedAs(row), reply)).await? {
            Some(epoch) => Found { place: Place::Leased, fence: Fence { row, epoch }, ..found },
            None => found,
        }))
    }

    pub(super) async fn waited(
        &self,
        after: i64,
        accepted_before: UnixMillis,
        max_rows: u32,
        max_bytes: usize,
    ) -> Result<Vec<Waited>, Unavailable> {
        let mut reader = self.0.reader.lock().await;
        let conn = reader.as_mut().ok_or(Unavailable)?;
        find::waited(conn, after, accepted_before, max_rows, max_bytes).await.map_err(unreadable)
    }

    pub(super) async fn steer(&self, id: Uuid, fence: Fence, steer: Steer) -> Result<(), LeaseError> {
        self.step(|reply| Command::Steer { id, fence, steer, reply }).await
    }

    pub(super) async fn outbox_read(
        &self,
        after_seq: i64,
        max_rows: u32,
        max_bytes: usize,
    ) -> Result<Vec<(i64, Bytes)>, Unavailable> {
        let mut reader = self.0.reader.lock().await;
        let conn = reader.as_mut().ok_or(Unavailable)?;
        // The last ones trimmed may still share a row with others.
        let after_seq = after_seq.max(self.0.outbox.borrow().trimmed);
        let mut rows = sqlx::query("SELECT last, bytes, reports FROM outbox WHERE last > ?1 ORDER BY last")
            .bind(after_seq)
            .fetch(conn);
        let (mut read, mut bytes) = (Vec::new(), 0usize);
        while let Some(row) = rows.try_next().await.map_err(unreadable)? {
            for (seq, report) in reports(&row).map_err(unreadable)?.into_iter().filter(|(seq, _)| *seq > after_seq) {
                bytes = bytes.saturating_add(report.len());
                if (bytes > max_bytes && !read.is_empty())
                    || read.len() >= usize::try_from(max_rows).unwrap_or(usize::MAX)
                {
                    return Ok(read);
                }
                read.push((seq, report));
            }
        }
        Ok(read)
    }

    pub(super) async fn outbox_trim(&self, up_to_seq: i64) -> Result<(), Unavailable> {
        while self.ask(|reply| Command::Trim { up_to: up_to_seq, reply }).await? {}
        Ok(())
    }

    pub(super) async fn waiting(&self, lane: Lane, since: u64) -> Result<News, Unavailable> {
        let mut version = self.0.lanes[lane.index()].clone();
        version.wait_for(|version| *version > since).await.map_err(|_| Unavailable)?;
        if self.0.commands.is_closed() { Err(Unavailable) } else { Ok(self.0.flows.news(lane, since)) }
    }

    pub(super) async fn wait_outbox(&self, after_seq: i64) -> Result<(), Unavailable> {
        let mut view = self.0.outbox.clone();
        let waits = |view: &OutboxView| view.last > after_seq.max(view.trimmed);
        view.wait_for(waits).await.map(drop).map_err(|_| Unavailable)?;
        if self.0.commands.is_closed() { Err(Unavailable) } else { Ok(()) }
    }

    pub(super) async fn stats(&self) -> Result<Stats, Unavailable> {
        let mut oldest = [0; 2];
        for (lane, oldest) in Lane::ALL.into_iter().zip(&mut oldest) {
            let since = self.ask(|reply| Command::Ask(Question::OldestReady(lane), reply)).await?;
            let waited = since.map_or(0, |since| self.0.clock.now().saturating_sub(since));
            *oldest = u64::try_from(waited).unwrap_or(0);
        }
        let counts = *self.0.counts.borrow();
        let outbox = *self.0.outbox.borrow();
        Ok(Stats {
            realtime: counts[0].stats(oldest[0]),
            bulk: counts[1].stats(oldest[1]),
            outbox: u64::try_from(outbox.last - outbox.trimmed).unwrap_or(0),
            store_losses: 0,
        })
    }

    pub(super) async fn failed(&self) -> String {
        life::failed(self.0.life.clone()).await
    }

    pub(super) async fn close(&self) {
        // The reader first: the last connection to close moves the log into the file.
        if let Some(reader) = self.0.reader.lock().await.take()
            && let Err(error) = reader.close().await
        {
            tracing::warn!(error = %error, "closing the inbox reader");
        }
        let _already_closed = self.ask(Command::Close).await;
    }
}

/// Runs the committer in a thread of its own. As a task among others it would wait behind requests whenever the file has answered, and
/// meanwhile nothing would be written.
async fn start(committer: Committer) -> io::Result<()> {
    let (started, has_started) = oneshot::channel();
    let work = move || match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => {
            let _nobody_waits = started.send(Ok(()));
            runtime.block_on(committer.run());
        }
        Err(error) => {
            let _nobody_waits = started.send(Err(error));
        }
    };
    std::thread::Builder::new().name("inbox".to_owned()).spawn(work)?;
    has_started.await.map_err(io::Error::other)?
}

/// The reports of a row with their numbers.
fn reports(row: &SqliteRow) -> Result<Vec<(i64, Bytes)>, sqlx::Error> {
    let (last, bytes, number): (i64, Vec<u8>, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let reports = usize::try_from(number).ok().and_then(|number| pack::read_reports(bytes.into(), number));
    let reports = reports.ok_or_else(|| sqlx::Error::Decode(format!("outbox row {last}").into()))?;
    Ok((last - number + 1..).zip(reports).collect())
}

fn unreadable(error: sqlx::Error) -> Unavailable {
    tracing::error!(error = %error, "reading the inbox");
    Unavailable
}

fn limits(settings: &EmbeddedSettings) -> Result<Limits, OpenError> {
    let millis = |duration: Duration, name| {
        i64::try_from(duration.as_millis())
            .ok()
            .filter(|millis| *millis > 0)
            .ok_or(OpenError::Setting(name, "between 1 ms and 292 million years"))
    };
    if settings.max_jobs == 0 {
        return Err(OpenError::Setting("max_jobs", "at least 1"));
    }
    // SQLite counts pages in 32 bits and needs some for the schema.
    if !(32..u64::from(u32::MAX)).contains(&(settings.max_file_bytes / PAGE_BYTES)) {
        return Err(OpenError::Setting("max_file_bytes", "between 256 KiB and 32 TiB"));
    }
    Ok(Limits {
        max_jobs: settings.max_jobs,
        lease_ms: millis(settings.lease, "lease")?,
        dead_retention_ms: millis(settings.dead_retention, "dead_retention")?,
        #[cfg(feature = "fault-injection")]
        fault: settings.fault,
    })
}

fn open_private(path: &Path) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|source| OpenError::File { path: path.to_owned(), source })
}

/// Held as long as the committer lives; the system releases it when the process dies.
fn lock(path: &Path) -> Result<File, OpenError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let file = open_private(&beside)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(OpenError::File { path: beside, source }),
    }
}

/// Sees to it that the file exists, is nobody else's to read (SQLite gives its log the same mode), and that its name
/// survives a power loss.
fn create(path: &Path) -> Result<File, OpenError> {
    let file = open_private(path)?;
    let failed = |source| OpenError::File { path: path.to_owned(), source };
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    #[cfg(unix)]
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    // Elsewhere folders cannot be flushed.
    #[cfg(not(unix))]
    std::fs::metadata(folder).map_err(failed)?;
    Ok(file)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(false)
        .busy_timeout(Duration::from_secs(5))
        .disable_statement_logging()
}

async fn connect(settings: &EmbeddedSettings) -> Result<SqliteConnection, sqlx::Error> {
    let mut conn = options(&settings.path)
        .page_size(u32::try_from(PAGE_BYTES).unwrap_or(8192))
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("fullfsync", "1")
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        .pragma("journal_size_limit", LOG_BYTES)
        // What a statement of many rows would need to be undone is written nowhere.
        .pragma("temp_store", "MEMORY")
        .pragma("cache_size", CACHE_PAGES)
        .connect()
        .await?;
    let page: i64 = sqlx::query_scalar("PRAGMA page_size").fetch_one(&mut conn).await?;
    let pages = settings.max_file_bytes / page.unsigned_abs().max(1);
    sqlx::raw_sql(AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"))).execute(&mut conn).await?;
    Ok(conn)
}

/// Refuses what this release does not understand and what is damaged, before anything is changed; answers the file's version, 0 when it is
/// empty.
async fn inspect(path: &Path) -> Result<usize, OpenError> {
    let mut conn = options(path).connect().await?;
    let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut conn).await?;
    let application: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut conn).await?;
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(&mut conn).await?;
    let version = match (application, version, tables) {
        (APPLICATION_ID, found, _) if found > SCHEMA_VERSION => {
            return Err(OpenError::Newer { path: path.to_owned(), found });
        }
        (APPLICATION_ID, found @ 1.., _) => usize::try_from(found).unwrap_or(SCHEMA.len()),
        (0, 0, 0) => 0,
        _ => return Err(OpenError::Foreign(path.to_owned())),
    };
    // Reads the whole file: a start takes as long as that, about a second for each GB, and as long as the disk takes to read it.
    let found: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut conn).await?;
    conn.close().await?;
    if found == "ok" { Ok(version) } else { Err(OpenError::Damaged { path: path.to_owned(), found }) }
}

#[cfg(test)]
mod tests;
