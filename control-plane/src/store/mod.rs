//! Where configuration, keys and outcomes are kept. Hides the database behind transactions whose methods speak in rows.
//!
//! Statements are written once, in the subset that SQLite and PostgreSQL share, with `$1` placeholders; only opening a
//! database and passing values differ, and those live in one module per database. Every statement is a constant: values
//! are bound and never become part of it (A21).

mod api_keys;
mod audit;
mod captures;
mod copy;
mod data_keys;
mod deliveries;
mod documents;
mod enrolment;
mod incoming_requests;
mod many;
mod operations;
mod outcomes;
mod postgres;
mod principals;
mod replicas;
mod requests;
mod sqlite;
mod workspaces;

pub(crate) use api_keys::ApiKeyRow;
pub(crate) use audit::{AuditAnchor, AuditRow, AuditSelection};
pub(crate) use captures::CaptureRow;
pub use copy::{Migrated, migrate};
pub(crate) use data_keys::SealedRow;
pub(crate) use deliveries::{DeliveryRow, Place, Placed, Selected, Selection, Tally};
pub(crate) use documents::{DocumentRow, HeadRow, UsageRow, VersionRow};
pub(crate) use enrolment::{AuthorityRow, EnrolledRow, JoinTokenRow};
pub(crate) use incoming_requests::{IncomingRequestRow, IncomingSelection};
pub(crate) use operations::{OperationKind, OperationRow};
pub(crate) use outcomes::{EventRow, OutcomeRow};
pub(crate) use postgres::{Claim, Listener};
pub(crate) use principals::PrincipalRow;
pub(crate) use replicas::{LetterRow, PartRow};
pub(crate) use requests::Remembered;
pub(crate) use workspaces::{DataKeyRow, RevisionRow, ServerKeyRow, WorkspaceRow};

/// What brings the schema from one version to the next. Tables are written once, with the type names of SQLite; where the
/// databases differ in more than names, each has a part of its own.
struct Migration {
    both: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! migration {
    ($both:literal) => {
        Migration { both: include_str!(concat!("migrations/", $both)), sqlite: "", postgres: "" }
    };
    ($both:literal, sqlite: $sqlite:literal) => {
        Migration { sqlite: include_str!(concat!("migrations/sqlite/", $sqlite)), ..migration!($both) }
    };
    ($both:literal, sqlite: $sqlite:literal, postgres: $postgres:literal) => {
        Migration {
            postgres: include_str!(concat!("migrations/postgres/", $postgres)),
            ..migration!($both, sqlite: $sqlite)
        }
    };
}

/// Comes before them all: the versions that the schema has had.
const SCHEMA_VERSION: &str = "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)";

/// One per schema version, the first for version 1.
const MIGRATIONS: [Migration; 16] = [
    migration!("0001_first.sql"),
    migration!("0002_deliveries.sql", sqlite: "0002_statistics.sql"),
    migration!("0003_operations.sql", sqlite: "0003_statistics.sql"),
    migration!("0004_access.sql"),
    migration!("0005_deleted.sql"),
    migration!("0006_captures.sql"),
    migration!("0007_audit.sql", sqlite: "0007_append_only.sql", postgres: "0007_append_only.sql"),
    migration!("0008_data_keys.sql"),
    migration!("0009_audit_anchor.sql", sqlite: "0009_forward_only.sql", postgres: "0009_forward_only.sql"),
    migration!("0010_lists.sql"),
    migration!("0011_key_networks.sql"),
    migration!("0012_enrolment.sql"),
    migration!("0013_set_back.sql"),
    // A file has one control plane.
    Migration { both: "", sqlite: "", postgres: include_str!("migrations/postgres/0014_replicas.sql") },
    migration!("0015_operation_moves.sql"),
    migration!("0016_levels.sql"),
];

use crate::settings::Database;

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database did not do what it was asked; nothing was changed.
    #[error("the configuration store did not answer: {0}")]
    Unavailable(#[from] sqlx::Error),
    /// The database holds something that this program cannot have written.
    #[error("the configuration store holds what cannot be read: {0}")]
    Corrupt(String),
    /// The database was written by a newer program; it is left alone.
    #[error("the configuration store has schema version {found}, this program knows {known}: use a newer sluice")]
    Newer {
        /// The version of the database.
        found: i64,
        /// The newest version this program knows.
        known: i64,
    },
    /// It was set back: data planes have served a later revision than it holds, so its next one would have a number that was used.
    #[error(
        "the configuration store was set back: it holds revision {revision} of workspace `{workspace}`, and data planes have served up to \
         {seen}. Restore a newer store, or declare this one right with DataPlaneService.StartStoreEpoch"
    )]
    Regressed {
        /// The id of the workspace.
        workspace: String,
        /// Its newest revision.
        revision: i64,
        /// The newest that was seen elsewhere.
        seen: i64,
    },
}

/// An open configuration store.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    /// The default: one file.
    Sqlite(sqlite::Database),
    /// A server.
    Postgres(postgres::Database),
}

/// Everything in it happens, or nothing. Dropped without [`Transaction::commit`], it is rolled back.
#[derive(Debug)]
pub(crate) enum Transaction {
    Sqlite(sqlite::Transaction),
    Postgres(postgres::Transaction),
}

/// A value to bind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Integer(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Blob(value)
    }
}

impl<'a> From<&'a Vec<u8>> for Value<'a> {
    fn from(value: &'a Vec<u8>) -> Self {
        Self::Blob(value)
    }
}

/// A value that was read.
#[derive(Debug)]
enum Owned {
    Null,
    Integer(i64),
    Text(String),
    Blob(Vec<u8>),
}

/// A row that was read; columns are taken in the order the statement names them.
#[derive(Debug)]
pub(crate) struct Row(Vec<Owned>);

impl Row {
    fn take(&mut self, column: usize) -> Owned {
        self.0.get_mut(column).map_or(Owned::Null, |value| std::mem::replace(value, Owned::Null))
    }

    fn integer(&mut self, column: usize) -> Result<i64, StoreError> {
        match self.take(column) {
            Owned::Integer(value) => Ok(value),
            other => Err(StoreError::Corrupt(format!("column {column} is no integer but {}", other.kind()))),
        }
    }

    fn text(&mut self, column: usize) -> Result<String, StoreError> {
        match self.take(column) {
            Owned::Text(value) => Ok(value),
            other => Err(StoreError::Corrupt(format!("column {column} is no text but {}", other.kind()))),
        }
    }

    fn blob(&mut self, column: usize) -> Result<Vec<u8>, StoreError> {
        match self.take(column) {
            Owned::Blob(value) => Ok(value),
            other => Err(StoreError::Corrupt(format!("column {column} is no blob but {}", other.kind()))),
        }
    }

    fn is_null(&self, column: usize) -> bool {
        matches!(self.0.get(column), None | Some(Owned::Null))
    }
}

impl Owned {
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Integer(_) => "an integer",
            Self::Text(_) => "a text",
            Self::Blob(_) => "a blob",
        }
    }
}

impl Store {
    /// Opens the database, makes what is not there and brings its schema up to date.
    ///
    /// # Errors
    /// It cannot be opened, or a newer program wrote it.
    pub(crate) async fn open(database: &Database) -> Result<Self, StoreError> {
        let store = match database {
            Database::Sqlite(path) => Self::Sqlite(sqlite::Database::open(path).await?),
            Database::Postgres(url) => Self::Postgres(postgres::Database::open(url).await?),
        };
        store.migrate().await?;
        Ok(store)
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        write.script(SCHEMA_VERSION).await?;
        write.commit().await?;
        let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
        for (version, migration) in (1..).zip(&MIGRATIONS) {
            let mut write = self.write().await?;
            let found = write.schema_version().await?;
            if found > known {
                return Err(StoreError::Newer { found, known });
            }
            if found < version {
                write.script(migration.both).await?;
                let own = match &write {
                    Transaction::Sqlite(_) => migration.sqlite,
                    Transaction::Postgres(_) => migration.postgres,
                };
                write.script(own).await?;
                write.run("INSERT INTO schema_version (version) VALUES ($1)", &[version.into()]).await?;
                write.commit().await?;
            }
        }
        Ok(())
    }

    /// A view of the store as it is now; it does not move while it is read.
    pub(crate) async fn read(&self) -> Result<Transaction, StoreError> {
        match self {
            Self::Sqlite(database) => Ok(Transaction::Sqlite(database.read().await?)),
            Self::Postgres(database) => Ok(Transaction::Postgres(database.read().await?)),
        }
    }

    /// The right to change; writers stand in line.
    pub(crate) async fn write(&self) -> Result<Transaction, StoreError> {
        match self {
            Self::Sqlite(database) => Ok(Transaction::Sqlite(database.write().await?)),
            Self::Postgres(database) => Ok(Transaction::Postgres(database.write().await?)),
        }
    }

    /// The right to change what control planes tell each other of the moment; nobody else's turn is waited for.
    pub(crate) async fn write_aside(&self) -> Result<Transaction, StoreError> {
        match self {
            Self::Sqlite(database) => Ok(Transaction::Sqlite(database.write().await?)),
            Self::Postgres(database) => Ok(Transaction::Postgres(database.write_aside().await?)),
        }
    }

    /// Ends all connections; a journal is folded into its file.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(database) => database.close().await,
            Self::Postgres(database) => database.close().await,
        }
    }
}

impl Transaction {
    /// Makes everything durable.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(transaction) => Ok(transaction.commit().await?),
            Self::Postgres(transaction) => transaction.commit().await,
        }
    }

    async fn rows(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(transaction) => sqlite::rows(transaction, sql, values).await,
            Self::Postgres(transaction) => transaction.rows(sql, values).await,
        }
    }

    async fn row(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    async fn run(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(transaction) => sqlite::run(transaction, sql, values).await,
            Self::Postgres(transaction) => transaction.run(sql, values).await,
        }
    }

    /// Many statements without values.
    async fn script(&mut self, sql: &'static str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(transaction) => sqlite::script(transaction, sql).await,
            Self::Postgres(transaction) => transaction.script(sql).await,
        }
    }

    async fn schema_version(&mut self) -> Result<i64, StoreError> {
        let row = self.row("SELECT COALESCE(MAX(version), 0) FROM schema_version", &[]).await?;
        row.map_or(Ok(0), |mut row| row.integer(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_newer_schema_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = Database::Sqlite(folder.path().join("store.db"));
        let store = Store::open(&path).await.unwrap();
        let mut write = store.write().await.unwrap();
        let known = i64::try_from(MIGRATIONS.len()).unwrap();
        write.run("INSERT INTO schema_version (version) VALUES ($1)", &[(known + 1).into()]).await.unwrap();
        write.commit().await.unwrap();
        store.close().await;
        let error = Store::open(&path).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Newer { found, known: ours } if found == known + 1 && ours == known),
            "{error}"
        );
    }

    #[tokio::test]
    async fn what_is_not_committed_did_not_happen() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&Database::Sqlite(folder.path().join("store.db"))).await.unwrap();
        let mut write = store.write().await.unwrap();
        write.run("INSERT INTO schema_version (version) VALUES ($1)", &[9.into()]).await.unwrap();
        drop(write);
        assert_eq!(
            store.write().await.unwrap().schema_version().await.unwrap(),
            i64::try_from(MIGRATIONS.len()).unwrap()
        );
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn nobody_else_can_read_the_files() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&Database::Sqlite(folder.path().join("store.db"))).await.unwrap();
        let mut write = store.write().await.unwrap();
        write.run("INSERT INTO schema_version (version) VALUES ($1)", &[1.into()]).await.unwrap();
        write.commit().await.unwrap();
        let mut files = 0;
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            files += 1;
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        }
        assert!(files >= 2, "the journal is there too");
    }
}
