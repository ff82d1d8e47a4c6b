//! Statements that go to SQLite together. Crossing to its thread costs more than most statements, so the writes of a
//! transaction cross once, rows travel together (their bytes in one blob, everything else as JSON that `json_each` unfolds),
//! and the number of statements does not depend on the number of rows.

use serde::Serialize;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments, AssertSqlSafe, Encode, Sqlite, Type};

/// Bytes of many rows in one blob, cut apart again by SQLite's `substr`.
pub(super) struct Arena(Vec<u8>);

impl Arena {
    /// Starts with one byte: SQLite takes an empty blob for NULL when it cuts.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        let mut arena = Vec::with_capacity(bytes + 1);
        arena.push(0);
        Self(arena)
    }

    /// Answers where the bytes start, counted from 1.
    pub(super) fn put(&mut self, bytes: &[u8]) -> usize {
        self.0.extend_from_slice(bytes);
        self.0.len() - bytes.len() + 1
    }

    pub(super) fn into_blob(self) -> Vec<u8> {
        self.0
    }
}

/// Rows for `json_each`.
pub(super) fn json(rows: &impl Serialize) -> String {
    serde_json::to_string(rows).expect("numbers and strings always serialize")
}

/// The writes of one transaction.
#[derive(Default)]
pub(super) struct Script {
    sql: String,
    arguments: SqliteArguments,
    /// The first error of an argument; there is none for numbers, texts and blobs.
    error: Option<sqlx::Error>,
}

impl Script {
    pub(super) fn is_empty(&self) -> bool {
        self.sql.is_empty()
    }

    /// Adds statements; their parameters are `?1`, `?2` and so on, bound by what is called on the answer. They become names:
    /// SQLite gives a statement as many places as its highest number, and sqlx stumbles over those that are left out.
    pub(super) fn add(&mut self, sql: &'static str) -> Binder<'_> {
        let before = self.arguments.len();
        let mut parts = sql.split('?');
        self.sql.push_str(parts.next().unwrap_or_default());
        for part in parts {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            let number: usize = part[..digits].parse().unwrap_or_default();
            self.sql.push('$');
            self.sql.push_str(&(before + number).to_string());
            self.sql.push_str(&part[digits..]);
        }
        self.sql.push_str(";\n");
        Binder(self)
    }

    /// Runs it as one transaction and returns after the fsync. On an error everything was undone.
    pub(super) async fn commit(self, conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let sql = format!("BEGIN IMMEDIATE;\n{}COMMIT", self.sql);
        let done = sqlx::query_with(AssertSqlSafe(sql), self.arguments).execute(&mut *conn).await.map(drop);
        if done.is_err() {
            // SQLite may have rolled back by itself, which makes this fail; a transaction that is really stuck shows at the next
            // `BEGIN`.
            let _already_over = sqlx::query("ROLLBACK").execute(conn).await;
        }
        done
    }
}

/// Binds the parameters of the statements just added, in their order.
pub(super) struct Binder<'a>(&'a mut Script);

impl Binder<'_> {
    pub(super) fn bind<'q, T: Encode<'q, Sqlite> + Type<Sqlite>>(self, value: T) -> Self {
        if let Err(error) = self.0.arguments.add(value) {
            self.0.error.get_or_insert(sqlx::Error::Encode(error));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;

    use super::*;

    #[tokio::test]
    async fn each_statement_gets_its_own_parameters_and_an_error_undoes_all() {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::raw_sql("CREATE TABLE t (a INTEGER UNIQUE, b BLOB)").execute(&mut conn).await.unwrap();
        let mut script = Script::default();
        assert!(script.is_empty());
        script.add("INSERT INTO t VALUES (?1, ?2); UPDATE t SET a = a + ?1 WHERE a = ?1").bind(1i64).bind(vec![7u8]);
        script.add("INSERT INTO t VALUES (?2, ?1)").bind("two").bind(3i64);
        script.commit(&mut conn).await.unwrap();
        let mut script = Script::default();
        script.add("INSERT INTO t VALUES (?1, NULL)").bind(9i64);
        script.add("INSERT INTO t VALUES (?1, NULL)").bind(3i64);
        assert!(script.commit(&mut conn).await.is_err());
        let rows: Vec<(i64, Vec<u8>)> =
            sqlx::query_as("SELECT a, b FROM t ORDER BY a").fetch_all(&mut conn).await.unwrap();
        assert_eq!(rows, [(2, vec![7]), (3, b"two".to_vec())]);
    }
}
