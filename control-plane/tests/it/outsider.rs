//! The store as somebody sees it who can get at the database itself.

use std::path::Path;

use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Error, Row as _, ValueRef as _};

use crate::postgres::Postgres;
use crate::world::World;

/// One connection: another one may still think of a table as it was.
pub(crate) enum Outsider {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Outsider {
    pub(crate) async fn of(world: &World) -> Self {
        Self::at(world.folder.path()).await
    }

    async fn at(folder: &Path) -> Self {
        if let Some(url) = Postgres::wanted_for(folder) {
            return Self::Postgres(PgPoolOptions::new().max_connections(1).connect(&url).await.unwrap());
        }
        let options = SqliteConnectOptions::new().filename(folder.join("control-plane.db"));
        Self::Sqlite(SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap())
    }

    /// Statements in the words of SQLite; blobs are written `X'00'`.
    pub(crate) async fn run(&self, sql: &str) -> Result<(), Error> {
        match self {
            Self::Sqlite(pool) => sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.map(drop),
            Self::Postgres(pool) => {
                let sql = sql.replace("zeroblob(32)", "decode(repeat('00', 32), 'hex')").replace("X'", "'\\x");
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.map(drop)
            }
        }
    }

    /// Writes, and does not end until [`Outsider::let_go`].
    pub(crate) async fn hold(&self) {
        let sql = match self {
            Self::Sqlite(_) => "BEGIN IMMEDIATE",
            // The lock of all writers: `sluice` in ASCII.
            Self::Postgres(_) => "BEGIN; SELECT pg_advisory_xact_lock(126943944437605)",
        };
        self.run(sql).await.unwrap();
    }

    pub(crate) async fn let_go(&self) {
        self.run("ROLLBACK").await.unwrap();
    }

    pub(crate) async fn drop_trigger(&self, name: &str, table: &str) {
        let sql = match self {
            Self::Sqlite(_) => format!("DROP TRIGGER {name}"),
            Self::Postgres(_) => format!("DROP TRIGGER {name} ON {table}"),
        };
        self.run(&sql).await.unwrap();
    }

    /// No entry of the audit log is taken until [`Outsider::drop_trigger`] of `full`.
    pub(crate) async fn refuse_entries(&self) {
        let sql = match self {
            Self::Sqlite(_) => {
                "CREATE TRIGGER full BEFORE INSERT ON audit_entry BEGIN SELECT RAISE(ABORT, 'full'); END"
            }
            Self::Postgres(_) => {
                "CREATE OR REPLACE FUNCTION is_full() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN RAISE EXCEPTION 'full'; END $$; \
                 CREATE TRIGGER \"full\" BEFORE INSERT ON audit_entry FOR EACH ROW EXECUTE FUNCTION is_full()"
            }
        };
        self.run(sql).await.unwrap();
    }
}

/// Everything that the store holds, as bytes: of SQLite the files, its journal too.
pub(crate) async fn stored(folder: &Path) -> Vec<u8> {
    let Outsider::Postgres(pool) = Outsider::at(folder).await else {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("control-plane.db"));
        return files.flat_map(|path| std::fs::read(path).unwrap()).collect();
    };
    let tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&pool).await.unwrap();
    let mut bytes = Vec::new();
    for table in tables {
        for row in sqlx::query(AssertSqlSafe(format!("SELECT * FROM {table}"))).fetch_all(&pool).await.unwrap() {
            for column in 0..row.len() {
                let value = row.try_get_raw(column).unwrap();
                if !value.is_null() {
                    bytes.extend_from_slice(value.as_bytes().unwrap());
                    bytes.push(b'\n');
                }
            }
        }
    }
    bytes
}
