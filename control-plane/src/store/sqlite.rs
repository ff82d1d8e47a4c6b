//! SQLite: one file, one writer, readers beside it. Hides pools, pragmas and how values cross into the driver.

use std::fs;
use std::path::Path;
use std::time::Duration;

use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Row as _, Sqlite, SqliteConnection, SqlitePool, TypeInfo as _, ValueRef as _};

use super::{Owned, Row, StoreError, Value};

/// Connections that read at once.
const READERS: u32 = 4;
/// Pages of the log before they are moved into the file, 32 MiB: pages of indices change again and again, and are moved once.
const CHECKPOINT_PAGES: &str = "8192";
/// What the log is cut to when it was moved.
const LOG_BYTES: &str = "33554432";
/// What the writer keeps in memory of the file at most, in KiB, with the minus that SQLite wants: the ends of all indices, which every
/// report goes on with.
const WRITER_CACHE: &str = "-16384";
/// How long a call waits for a connection, and a connection for a lock of another process.
const WAIT: Duration = Duration::from_secs(5);

pub(super) type Transaction = sqlx::Transaction<'static, Sqlite>;

/// An open database file.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Database {
    /// Opens the file, making it with mode 0600 when it is not there; its journal inherits the mode.
    pub(super) async fn open(path: &Path) -> Result<Self, StoreError> {
        restrict(path).map_err(|error| StoreError::Unavailable(sqlx::Error::Io(error)))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            // 200 means kept: a commit returns after its fsync.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // What is deleted, sealed secrets included, is overwritten in the file.
            .pragma("secure_delete", "ON")
            .busy_timeout(WAIT);
        let pool = |connections| {
            PoolOptions::<Sqlite>::new()
                .min_connections(1)
                .max_connections(connections)
                .acquire_timeout(WAIT)
                .idle_timeout(None)
                .max_lifetime(None)
        };
        let writing = options.clone().pragma("cache_size", WRITER_CACHE);
        let writing = writing.pragma("wal_autocheckpoint", CHECKPOINT_PAGES).pragma("journal_size_limit", LOG_BYTES);
        let writer = pool(1).connect_with(writing).await?;
        let readers = pool(READERS).connect_with(options.read_only(true)).await?;
        Ok(Self { writer, readers })
    }

    pub(super) async fn read(&self) -> Result<Transaction, StoreError> {
        Ok(self.readers.begin().await?)
    }

    pub(super) async fn write(&self) -> Result<Transaction, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// A connection to a file that is there, beside which there is no other: whoever has it open keeps a lock on it.
pub(super) async fn alone(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .locking_mode(SqliteLockingMode::Exclusive)
        .busy_timeout(Duration::ZERO);
    options.connect().await
}

/// Whether this code of an error says that somebody else has the file open; its low byte says what, the others why.
pub(super) fn is_busy(code: &str) -> bool {
    const BUSY: i32 = 5;
    code.parse::<i32>().is_ok_and(|code| code & 0xff == BUSY)
}

#[cfg(unix)]
fn restrict(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn restrict(path: &Path) -> std::io::Result<()> {
    fs::OpenOptions::new().create(true).append(true).open(path).map(drop)
}

/// Many statements without values.
pub(super) async fn script(transaction: &mut Transaction, sql: &'static str) -> Result<(), StoreError> {
    sqlx::raw_sql(sql).execute(&mut **transaction).await?;
    Ok(())
}

pub(super) async fn rows(
    transaction: &mut Transaction,
    sql: &'static str,
    values: &[Value<'_>],
) -> Result<Vec<Row>, StoreError> {
    let found = bind(sql, values).fetch_all(&mut **transaction).await?;
    found.iter().map(row).collect()
}

pub(super) async fn run(
    transaction: &mut Transaction,
    sql: &'static str,
    values: &[Value<'_>],
) -> Result<u64, StoreError> {
    Ok(bind(sql, values).execute(&mut **transaction).await?.rows_affected())
}

fn bind(sql: &'static str, values: &[Value<'_>]) -> sqlx::query::Query<'static, Sqlite, sqlx::sqlite::SqliteArguments> {
    values.iter().fold(sqlx::query(sql), |query, value| match value {
        Value::Integer(value) => query.bind(*value),
        Value::Text(value) => query.bind((*value).to_owned()),
        Value::Blob(value) => query.bind(value.to_vec()),
    })
}

pub(super) fn row(row: &sqlx::sqlite::SqliteRow) -> Result<Row, StoreError> {
    let column = |index| {
        let raw = row.try_get_raw(index)?;
        if raw.is_null() {
            return Ok(Owned::Null);
        }
        let kind = raw.type_info().name().to_owned();
        match kind.as_str() {
            "INTEGER" => Ok(Owned::Integer(row.try_get_unchecked(index)?)),
            "TEXT" => Ok(Owned::Text(row.try_get_unchecked(index)?)),
            "BLOB" => Ok(Owned::Blob(row.try_get_unchecked(index)?)),
            _ => Err(StoreError::Corrupt(format!("a column of type {kind}"))),
        }
    };
    (0..row.len()).map(column).collect::<Result<_, _>>().map(Row)
}
