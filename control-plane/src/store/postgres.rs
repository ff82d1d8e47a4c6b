//! PostgreSQL, 13 or newer. Hides pools, how writers of all control planes stand in one line, and how values cross into the driver.
//!
//! Several control planes work on one database. A write begins with a lock that the whole database has once, so that it means what it
//! means in SQLite: nobody else writes meanwhile, and numbers are given in the order in which they are committed. A watcher that has seen
//! one has seen all before it. What only one of them may do at a time is done by who holds the [`Claim`].

use std::sync::Arc;
use std::time::Duration;

use sluice_core::seal::Secret;
use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgListener, PgRow};
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, PgPool, Postgres, Row as _, TypeInfo as _, ValueRef as _,
};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{Owned, Row, StoreError, Value};

/// Connections that read at once.
const READERS: u32 = 8;
/// Connections for what stands in no line: what control planes tell each other, and numbers of streams.
const ASIDE: u32 = 2;
/// How long a call waits for a connection or for its turn to write.
const WAIT: Duration = Duration::from_secs(5);
/// What the server keeps to on our connections: a statement ends, and who holds the lock and says nothing loses it.
const LIMITS: [(&str, &str); 4] = [
    ("statement_timeout", "30s"),
    ("lock_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "30s"),
    ("application_name", "sluice"),
];
/// The one lock of all writers; the number is `sluice` in ASCII.
const LOCK: &str = "SELECT pg_advisory_xact_lock(126943944437605)";
/// The lock of the control plane that does what one does for all: `control` in ASCII.
const CLAIM: &str = "SELECT pg_advisory_lock(27991471307026284)";
const TRY_CLAIM: &str = "SELECT pg_try_advisory_lock(27991471307026284)";
/// When the server finds out that whoever holds the claim cannot be reached any more, in seconds.
const KEPT_ALIVE: [(&str, &str); 3] =
    [("tcp_keepalives_idle", "10"), ("tcp_keepalives_interval", "5"), ("tcp_keepalives_count", "3")];
/// Where control planes wake each other.
const CHANNEL: &str = "sluice";
/// How often it is made sure that the claim still stands.
const CLAIM_LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

/// An open database.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    writer: PgPool,
    readers: PgPool,
    /// For what stands in no line.
    aside: PgPool,
    /// The line of this process, before that of the database: it is fair, and those who wait in it hold no connection.
    line: Arc<Mutex<()>>,
}

/// The place of the one control plane of a database that does what one does for all. It ends with its connection, so when the process
/// ends, however it does.
#[derive(Debug)]
pub(crate) struct Claim {
    url: PgConnectOptions,
    connection: PgConnection,
}

impl Claim {
    /// Waits until no other control plane has it.
    pub(crate) async fn take(url: &Secret) -> Result<Self, StoreError> {
        let url = url.expose().parse::<PgConnectOptions>()?.application_name("sluice-claim").options(KEPT_ALIVE);
        // It may wait for days.
        let url = url.disable_statement_logging();
        let mut connection = PgConnection::connect_with(&url).await?;
        if !try_claim(&mut connection).await? {
            sqlx::query(CLAIM).execute(&mut connection).await?;
        }
        Ok(Self { url, connection })
    }

    /// Resolves when another control plane has it, which can happen when the server was away. Until the server is back, nobody writes, so
    /// nothing is lost by waiting.
    pub(crate) async fn lost(mut self) {
        loop {
            tokio::time::sleep(CLAIM_LOOKED_AT_EVERY).await;
            if self.connection.ping().await.is_ok() {
                continue;
            }
            let Ok(mut connection) = PgConnection::connect_with(&self.url).await else { continue };
            match try_claim(&mut connection).await {
                Ok(true) => self.connection = connection,
                Ok(false) => return,
                Err(_) => {}
            }
        }
    }
}

async fn try_claim(connection: &mut PgConnection) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar(TRY_CLAIM).fetch_one(connection).await?)
}

/// Hears what others say with NOTIFY: a wake-up and nothing more.
pub(crate) struct Listener(PgListener);

impl Listener {
    pub(crate) async fn start(url: &Secret) -> Result<Self, StoreError> {
        let options = url.expose().parse::<PgConnectOptions>()?.application_name("sluice-listen");
        let pool = PoolOptions::<Postgres>::new().max_connections(1).max_lifetime(None).idle_timeout(None);
        let mut listener = PgListener::connect_with(&pool.connect_with(options).await?).await?;
        listener.listen(CHANNEL).await?;
        Ok(Self(listener))
    }

    /// The next word; `None`: the connection was lost and is there again, and nobody knows what was said meanwhile.
    pub(crate) async fn heard(&mut self) -> Result<Option<String>, StoreError> {
        Ok(self.0.try_recv().await?.map(|said| said.payload().to_owned()))
    }
}

/// Everything in it happens, or nothing.
#[derive(Debug)]
pub(crate) struct Transaction {
    inner: sqlx::Transaction<'static, Postgres>,
    /// The place of a writer in the line.
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Database {
    pub(super) async fn open(url: &Secret) -> Result<Self, StoreError> {
        let options = url.expose().parse::<PgConnectOptions>()?.options(LIMITS);
        let pool = |connections| {
            PoolOptions::<Postgres>::new().min_connections(1).max_connections(connections).acquire_timeout(WAIT)
        };
        let writer = pool(1).connect_with(options.clone()).await?;
        let readers = pool(READERS).connect_with(options.clone()).await?;
        let aside = pool(ASIDE).connect_with(options).await?;
        Ok(Self { writer, readers, aside, line: Arc::default() })
    }

    /// As [`Database::open`], for work of which a statement may take as long as it takes.
    pub(super) async fn open_unhurried(url: &Secret) -> Result<Self, StoreError> {
        let options = url.expose().parse::<PgConnectOptions>()?.application_name("sluice-migrate");
        let pool = || PoolOptions::<Postgres>::new().max_connections(1).acquire_timeout(WAIT);
        let pool = || pool().connect_lazy_with(options.clone());
        Ok(Self { writer: pool(), readers: pool(), aside: pool(), line: Arc::default() })
    }

    pub(super) async fn read(&self) -> Result<Transaction, StoreError> {
        let inner = self.readers.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        Ok(Transaction { inner, _turn: None })
    }

    pub(super) async fn write(&self) -> Result<Transaction, StoreError> {
        let turn = tokio::time::timeout(WAIT, self.line.clone().lock_owned()).await;
        let turn = turn.map_err(|_| StoreError::Unavailable(sqlx::Error::PoolTimedOut))?;
        // Each statement sees what was committed before it: all of what was written before the lock was had.
        let mut inner = self.writer.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        sqlx::query(LOCK).execute(&mut *inner).await?;
        Ok(Transaction { inner, _turn: Some(turn) })
    }

    pub(super) async fn write_aside(&self) -> Result<Transaction, StoreError> {
        let inner = self.aside.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        Ok(Transaction { inner, _turn: None })
    }

    pub(super) async fn close(&self) {
        self.aside.close().await;
        self.readers.close().await;
        self.writer.close().await;
    }
}

impl Transaction {
    /// For what statements with values cannot do.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.inner
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        Ok(self.inner.commit().await?)
    }

    pub(super) async fn rows(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>, StoreError> {
        // No text here holds a NUL, so there is nothing to find by one; asking would end the transaction.
        if sql.starts_with("SELECT")
            && values.iter().any(|value| matches!(value, Value::Text(text) if text.contains('\0')))
        {
            return Ok(Vec::new());
        }
        let found = bind(sql, values).fetch_all(&mut *self.inner).await?;
        found.iter().map(row).collect()
    }

    pub(super) async fn run(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<u64, StoreError> {
        Ok(bind(sql, values).execute(&mut *self.inner).await?.rows_affected())
    }

    /// Many statements, in the words of SQLite: a blob is a `bytea` here, and texts are ordered by their bytes.
    pub(super) async fn script(&mut self, sql: &'static str) -> Result<(), StoreError> {
        let sql = sql.replace(" BLOB", " BYTEA").replace(" TEXT", " TEXT COLLATE \"C\"");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *self.inner).await?;
        Ok(())
    }
}

fn bind(sql: &'static str, values: &[Value<'_>]) -> sqlx::query::Query<'static, Postgres, PgArguments> {
    values.iter().fold(sqlx::query(sql), |query, value| match value {
        Value::Integer(value) => query.bind(*value),
        Value::Text(value) => query.bind((*value).to_owned()),
        Value::Blob(value) => query.bind(value.to_vec()),
    })
}

pub(super) fn row(row: &PgRow) -> Result<Row, StoreError> {
    let column = |index| {
        let raw = row.try_get_raw(index)?;
        if raw.is_null() {
            return Ok(Owned::Null);
        }
        let kind = raw.type_info().name().to_owned();
        match kind.as_str() {
            "INT8" => Ok(Owned::Integer(row.try_get_unchecked(index)?)),
            "INT4" => Ok(Owned::Integer(row.try_get_unchecked::<i32, _>(index)?.into())),
            "TEXT" => Ok(Owned::Text(row.try_get_unchecked(index)?)),
            "BYTEA" => Ok(Owned::Blob(row.try_get_unchecked(index)?)),
            _ => Err(StoreError::Corrupt(format!("a column of type {kind}"))),
        }
    };
    (0..row.len()).map(column).collect::<Result<_, _>>().map(Row)
}
