//! A whole installation moves from SQLite to PostgreSQL. Hides how rows cross from one driver into the other and how it is made sure that
//! every one of them did.
//!
//! Rows are copied as they are, whatever they mean: ids, etags, revisions, the name of the store, sealed keys, audit logs. So whoever
//! reads the copy, data planes among them, reads what he would have read before. All of it is one transaction of the database that is
//! written, and the file is only read: what fails leaves both as they were.

use std::path::Path;

use futures::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use sluice_core::seal::Secret;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

use super::{MIGRATIONS, Owned, Row, SCHEMA_VERSION, StoreError, postgres, sqlite};
use crate::error::Error;

/// How much is handed to PostgreSQL at once, in bytes; one row may exceed it alone.
const PART_BYTES: usize = 256 * 1024;
/// What every control plane's file has.
const OURS: &str =
    "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name IN ('schema_version', 'store_meta')";
/// Those that others refer to were made before them.
const TABLES: &str = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid";
const COLUMNS: &str = "SELECT name, pk FROM pragma_table_info($1) ORDER BY cid";
const IS_EMPTY: &str = "SELECT NOT EXISTS (SELECT 1 FROM pg_class WHERE relnamespace = current_schema()::regnamespace)";
const VERSION: &str = "SELECT COALESCE(MAX(version), 0) FROM schema_version";

/// What was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Tables.
    pub tables: usize,
    /// Rows of all of them.
    pub rows: u64,
}

/// Copies everything of the SQLite file `from`, on which no control plane may be running, into the empty PostgreSQL database `to`.
///
/// # Errors
/// The file is not there, is in use or was written by a newer program; the database is not empty; or one of them fails. Nothing was
/// changed.
pub async fn migrate(from: &Path, to: &Secret) -> Result<Migrated, Error> {
    let mut source = open(from).await?;
    let copied = copy(from, &mut source, to).await;
    source.close().await.map_err(StoreError::from)?;
    copied
}

/// Opens the file for itself alone.
async fn open(path: &Path) -> Result<SqliteConnection, Error> {
    let file = |source| Error::File { path: path.to_owned(), source };
    std::fs::metadata(path).map_err(file)?;
    let in_use = |error: sqlx::Error| match &error {
        sqlx::Error::Database(told) if told.code().is_some_and(|code| sqlite::is_busy(&code)) => {
            Error::SourceInUse { path: path.to_owned() }
        }
        _ => StoreError::from(error).into(),
    };
    let mut source = sqlite::alone(path).await.map_err(in_use)?;
    let ours: i64 = sqlx::query_scalar(OURS).fetch_one(&mut source).await.map_err(in_use)?;
    if ours < 2 {
        return Err(StoreError::Corrupt(format!("{} was not made by a control plane", path.display())).into());
    }
    Ok(source)
}

/// The whole story, in one transaction.
async fn copy(path: &Path, source: &mut SqliteConnection, to: &Secret) -> Result<Migrated, Error> {
    let version: i64 = sqlx::query_scalar(VERSION).fetch_one(&mut *source).await.map_err(StoreError::from)?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if version > known {
        return Err(StoreError::Newer { found: version, known }.into());
    }
    let target = postgres::Database::open_unhurried(to).await?;
    let mut tx = target.write().await?;
    if !sqlx::query_scalar::<_, bool>(IS_EMPTY).fetch_one(tx.connection()).await.map_err(StoreError::from)? {
        return Err(Error::TargetNotEmpty);
    }
    // As the source has it; the control plane that opens the copy brings it up to date as it would have done with the source.
    tx.script(SCHEMA_VERSION).await?;
    for (_, migration) in (1..=version).zip(&MIGRATIONS) {
        tx.script(migration.both).await?;
        tx.script(migration.postgres).await?;
    }
    let names: Vec<String> = sqlx::query_scalar(TABLES).fetch_all(&mut *source).await.map_err(StoreError::from)?;
    let mut rows = 0;
    for name in &names {
        let table = Table::read(source, name).await?;
        let sent = table.send(source, tx.connection()).await?;
        let kept = table.kept(tx.connection()).await?;
        if sent != kept {
            return Err(Error::CopyDiffers { table: name.clone() });
        }
        tracing::info!(table = name, rows = sent.rows, "copied");
        rows += sent.rows;
    }
    tx.commit().await?;
    target.close().await;
    tracing::info!(from = %path.display(), "everything was copied");
    Ok(Migrated { tables: names.len(), rows })
}

/// A table of our own schema, so that its names can be part of statements.
struct Table {
    name: String,
    columns: String,
    /// By what its rows are in one order in both databases.
    key: String,
}

impl Table {
    async fn read(source: &mut SqliteConnection, name: &str) -> Result<Self, StoreError> {
        let columns: Vec<(String, i64)> = sqlx::query_as(COLUMNS).bind(name).fetch_all(source).await?;
        let all: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let mut key: Vec<_> = columns.iter().filter(|(_, place)| *place > 0).collect();
        key.sort_by_key(|(_, place)| place);
        let key: Vec<&str> = key.into_iter().map(|(name, _)| name.as_str()).collect();
        let columns = all.join(", ");
        let key = if key.is_empty() { columns.clone() } else { key.join(", ") };
        Ok(Self { name: name.to_owned(), columns, key })
    }

    fn select(&self) -> AssertSqlSafe<String> {
        let Self { name, columns, key } = self;
        AssertSqlSafe(format!("SELECT {columns} FROM {name} ORDER BY {key}"))
    }

    /// Sends all rows, and says what they were.
    async fn send(&self, source: &mut SqliteConnection, target: &mut PgConnection) -> Result<Tally, StoreError> {
        let mut copy = target.copy_in_raw(&format!("COPY {} ({}) FROM STDIN", self.name, self.columns)).await?;
        let mut rows = sqlx::query(self.select()).fetch(source);
        let (mut tally, mut part) = (Tally::default(), Vec::with_capacity(PART_BYTES));
        while let Some(row) = rows.try_next().await? {
            let row = sqlite::row(&row)?;
            tally.add(&row);
            write_row(&row, &mut part);
            if part.len() >= PART_BYTES {
                copy.send(std::mem::take(&mut part)).await?;
            }
        }
        copy.send(part).await?;
        copy.finish().await?;
        Ok(tally)
    }

    /// What the rows are that were received.
    async fn kept(&self, target: &mut PgConnection) -> Result<Tally, StoreError> {
        let mut rows = sqlx::query(self.select()).fetch(target);
        let mut tally = Tally::default();
        while let Some(row) = rows.try_next().await? {
            tally.add(&postgres::row(&row)?);
        }
        Ok(tally)
    }
}

/// How many rows there were, and a hash over all of them in their order.
#[derive(Default)]
struct Tally {
    rows: u64,
    hash: Sha256,
}

impl Tally {
    fn add(&mut self, row: &Row) {
        self.rows += 1;
        for value in &row.0 {
            let (kind, bytes) = match value {
                Owned::Null => (0_u8, &[][..]),
                Owned::Integer(value) => (1, &value.to_be_bytes()[..]),
                Owned::Text(value) => (2, value.as_bytes()),
                Owned::Blob(value) => (3, value.as_slice()),
            };
            self.hash.update([kind]);
            self.hash.update((bytes.len() as u64).to_be_bytes());
            self.hash.update(bytes);
        }
    }
}

impl PartialEq for Tally {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows && self.hash.clone().finalize() == other.hash.clone().finalize()
    }
}

/// One row in the text format of COPY.
fn write_row(row: &Row, to: &mut Vec<u8>) {
    for (index, value) in row.0.iter().enumerate() {
        if index > 0 {
            to.push(b'\t');
        }
        match value {
            Owned::Null => to.extend_from_slice(b"\\N"),
            Owned::Integer(value) => to.extend_from_slice(value.to_string().as_bytes()),
            Owned::Text(value) => value.bytes().for_each(|byte| match byte {
                b'\\' => to.extend_from_slice(b"\\\\"),
                b'\n' => to.extend_from_slice(b"\\n"),
                b'\r' => to.extend_from_slice(b"\\r"),
                b'\t' => to.extend_from_slice(b"\\t"),
                _ => to.push(byte),
            }),
            Owned::Blob(value) => {
                to.extend_from_slice(b"\\\\x");
                to.extend_from_slice(hex::encode(value).as_bytes());
            }
        }
    }
    to.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_written_as_copy_reads_it() {
        let text = |text: &str| Owned::Text(text.to_owned());
        let mut written = Vec::new();
        let row =
            vec![Owned::Null, Owned::Integer(-7), text("a\tb\\N\nc\r"), Owned::Blob(vec![0, 255]), text(""), text("ż")];
        write_row(&Row(row), &mut written);
        assert_eq!(String::from_utf8(written).unwrap(), "\\N\t-7\ta\\tb\\\\N\\nc\\r\t\\\\x00ff\t\tż\n");
    }

    #[test]
    fn rows_that_differ_in_anything_are_told_apart() {
        let of = |rows: Vec<Vec<Owned>>| {
            let mut tally = Tally::default();
            rows.into_iter().for_each(|row| tally.add(&Row(row)));
            tally
        };
        let text = |text: &str| Owned::Text(text.to_owned());
        let one = || of(vec![vec![text("ab"), text("c")]]);
        assert!(one() == one());
        for other in [
            vec![],
            vec![vec![text("a"), text("bc")]],
            vec![vec![text("ab"), Owned::Blob(b"c".to_vec())]],
            vec![vec![text("ab"), text("c")], vec![]],
            vec![vec![text("ab"), Owned::Null]],
        ] {
            assert!(one() != of(other));
        }
    }
}
