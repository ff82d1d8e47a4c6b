//! What control planes on one PostgreSQL database tell each other. Times are the database's, so that clocks need not agree.

use std::sync::LazyLock;

use super::many::Insert;
use super::{Row, StoreError, Transaction, Value};

/// A part of what a replica knows of one of its data planes, as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct PartRow {
    pub(crate) data_plane: String,
    pub(crate) part: String,
    pub(crate) session: i64,
    pub(crate) change: i64,
    pub(crate) body: Vec<u8>,
}

impl PartRow {
    fn values<'a>(&'a self, replica: &'a str) -> Vec<Value<'a>> {
        let Self { data_plane, part, session, change, body } = self;
        vec![replica.into(), data_plane.into(), part.into(), (*session).into(), (*change).into(), body.into()]
    }
}

/// A command for a data plane of another replica, or, without a data plane, what came of one.
#[derive(Clone, Debug)]
pub(crate) struct LetterRow {
    pub(crate) receiver: String,
    pub(crate) sender: String,
    /// The sender's, for a command and its answer.
    pub(crate) number: i64,
    pub(crate) data_plane: String,
    pub(crate) session: i64,
    pub(crate) body: Vec<u8>,
}

static PARTS_PUT: LazyLock<Insert> = LazyLock::new(|| {
    Insert::new(
        "data_plane_part (replica, data_plane, part, session, change, body)",
        6,
        "ON CONFLICT (replica, data_plane, part) DO UPDATE SET session = excluded.session, change = excluded.change, \
         body = excluded.body",
    )
});

impl Transaction {
    /// A number greater than that of every stream before.
    pub(crate) async fn session_number(&mut self) -> Result<i64, StoreError> {
        let row = self.row("SELECT nextval('session_number')", &[]).await?;
        row.map_or(Err(StoreError::Corrupt("no session number".to_owned())), |mut row| row.integer(0))
    }

    /// Says that the replica is there; `false`: it is not known, or not any more.
    pub(crate) async fn replica_seen(&mut self, id: &str) -> Result<bool, StoreError> {
        Ok(self.run("UPDATE replica SET seen = now() WHERE id = $1", &[id.into()]).await? > 0)
    }

    pub(crate) async fn replica_put(&mut self, id: &str) -> Result<(), StoreError> {
        self.run("INSERT INTO replica (id, seen) VALUES ($1, now())", &[id.into()]).await.map(drop)
    }

    pub(crate) async fn replica_delete(&mut self, id: &str) -> Result<(), StoreError> {
        self.run("DELETE FROM replica WHERE id = $1", &[id.into()]).await.map(drop)
    }

    /// The others; those that said nothing for so many seconds are forgotten, and letters that nobody waits for any more with them.
    pub(crate) async fn replicas_but(&mut self, id: &str, silent: i64, waited: i64) -> Result<Vec<String>, StoreError> {
        // Whoever is just forgotten by somebody else needs not be waited for.
        let sql = "DELETE FROM replica WHERE id IN (SELECT id FROM replica \
                   WHERE seen < now() - $1 * INTERVAL '1 second' FOR UPDATE SKIP LOCKED)";
        self.run(sql, &[silent.into()]).await?;
        let sql = "DELETE FROM letter WHERE sequence IN (SELECT sequence FROM letter \
                   WHERE sent < now() - $1 * INTERVAL '1 second' FOR UPDATE SKIP LOCKED)";
        self.run(sql, &[waited.into()]).await?;
        let rows = self.rows("SELECT id FROM replica WHERE id <> $1 ORDER BY id", &[id.into()]).await?;
        rows.into_iter().map(|mut row| row.text(0)).collect()
    }

    /// Writes what is new of the replica's data planes.
    pub(crate) async fn parts_put(&mut self, replica: &str, parts: &[PartRow]) -> Result<(), StoreError> {
        let rows: Vec<Vec<Value<'_>>> = parts.iter().map(|row| row.values(replica)).collect();
        self.insert(&PARTS_PUT, &rows).await.map(drop)
    }

    /// Forgets what the replica told of streams of the data plane before this one.
    pub(crate) async fn parts_delete(
        &mut self,
        replica: &str,
        data_plane: &str,
        before: i64,
    ) -> Result<(), StoreError> {
        let sql = "DELETE FROM data_plane_part WHERE replica = $1 AND data_plane = $2 AND session < $3";
        self.run(sql, &[replica.into(), data_plane.into(), before.into()]).await.map(drop)
    }

    /// What the replica told after this change, in its order; what begins a stream comes first.
    pub(crate) async fn parts_after(&mut self, replica: &str, change: i64) -> Result<Vec<PartRow>, StoreError> {
        let sql = "SELECT data_plane, part, session, change, body FROM data_plane_part \
                   WHERE replica = $1 AND change > $2 ORDER BY change, data_plane, part";
        let rows = self.rows(sql, &[replica.into(), change.into()]).await?;
        let part = |mut row: Row| {
            Ok::<_, StoreError>(PartRow {
                data_plane: row.text(0)?,
                part: row.text(1)?,
                session: row.integer(2)?,
                change: row.integer(3)?,
                body: row.blob(4)?,
            })
        };
        rows.into_iter().map(part).collect()
    }

    pub(crate) async fn letter_put(&mut self, letter: &LetterRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO letter (receiver, sender, number, data_plane, session, body, sent) \
                   VALUES ($1, $2, $3, $4, $5, $6, now())";
        let LetterRow { receiver, sender, number, data_plane, session, body } = letter;
        let values =
            [receiver.into(), sender.into(), (*number).into(), data_plane.into(), (*session).into(), body.into()];
        self.run(sql, &values).await.map(drop)
    }

    /// The letters to a replica, which are its from then on, in the order in which they were sent.
    pub(crate) async fn letters_take(&mut self, receiver: &str) -> Result<Vec<LetterRow>, StoreError> {
        let sql = "WITH taken AS (DELETE FROM letter WHERE receiver = $1 \
                   RETURNING sequence, sender, number, data_plane, session, body) \
                   SELECT sender, number, data_plane, session, body FROM taken ORDER BY sequence";
        let rows = self.rows(sql, &[receiver.into()]).await?;
        let letter = |mut row: Row| {
            Ok::<_, StoreError>(LetterRow {
                receiver: receiver.to_owned(),
                sender: row.text(0)?,
                number: row.integer(1)?,
                data_plane: row.text(2)?,
                session: row.integer(3)?,
                body: row.blob(4)?,
            })
        };
        rows.into_iter().map(letter).collect()
    }

    /// Wakes whoever listens, once this is committed.
    pub(crate) async fn notify(&mut self, word: &str) -> Result<(), StoreError> {
        self.run("SELECT pg_notify('sluice', $1)", &[word.into()]).await.map(drop)
    }
}
