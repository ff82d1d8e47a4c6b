//! The audit log: rows that are only ever added.

use super::{Row, StoreError, Transaction};
use crate::clock::UnixMillis;

/// An entry as stored.
#[derive(Clone, Debug)]
pub(crate) struct AuditRow {
    /// The uid of the workspace; empty for the server's log.
    pub(crate) place: String,
    pub(crate) number: i64,
    pub(crate) time: UnixMillis,
    pub(crate) principal: String,
    pub(crate) method: String,
    pub(crate) resource: String,
    pub(crate) outcome: i64,
    /// An encoded `admin.v1.AuditEntry`.
    pub(crate) body: Vec<u8>,
    pub(crate) hash: Vec<u8>,
}

/// Which entries of a log are meant; what is empty or 0 is no condition.
#[derive(Clone, Debug)]
pub(crate) struct AuditSelection {
    pub(crate) principal: String,
    pub(crate) method: String,
    pub(crate) resource: String,
    pub(crate) outcome: i64,
    pub(crate) from: UnixMillis,
    pub(crate) before: UnixMillis,
}

macro_rules! select_audit {
    ($tail:literal) => {
        concat!("SELECT place, number, time, principal, method, resource, outcome, body, hash FROM audit_entry ", $tail)
    };
}

fn entry(mut row: Row) -> Result<AuditRow, StoreError> {
    Ok(AuditRow {
        place: row.text(0)?,
        number: row.integer(1)?,
        time: row.integer(2)?,
        principal: row.text(3)?,
        method: row.text(4)?,
        resource: row.text(5)?,
        outcome: row.integer(6)?,
        body: row.blob(7)?,
        hash: row.blob(8)?,
    })
}

impl Transaction {
    /// Number and hash of the last entry of a log; 0 and nothing when it is empty. Whoever adds one has the right to change.
    pub(crate) async fn audit_last(&mut self, place: &str) -> Result<(i64, Vec<u8>), StoreError> {
        let sql = "SELECT number, hash FROM audit_entry WHERE place = $1 ORDER BY number DESC LIMIT 1";
        let row = self.row(sql, &[place.into()]).await?;
        row.map_or(Ok((0, Vec::new())), |mut row| Ok((row.integer(0)?, row.blob(1)?)))
    }

    /// Adds an entry.
    pub(crate) async fn audit_insert(&mut self, row: &AuditRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO audit_entry (place, number, time, principal, method, resource, outcome, body, hash) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let values = [
            (&row.place).into(),
            row.number.into(),
            row.time.into(),
            (&row.principal).into(),
            (&row.method).into(),
            (&row.resource).into(),
            row.outcome.into(),
            (&row.body).into(),
            (&row.hash).into(),
        ];
        self.run(sql, &values).await.map(drop)
    }

    /// At most `limit` entries of a log that are older than the one with the number `before`, newest first.
    pub(crate) async fn audit_before(
        &mut self,
        place: &str,
        selection: &AuditSelection,
        before: i64,
        limit: i64,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let sql = select_audit!(
            "WHERE place = $1 AND number < $2 AND ($3 = '' OR principal = $3) AND ($4 = '' OR method = $4) \
             AND ($5 = '' OR resource = $5 OR substr(resource, 1, length($5) + 1) = $5 || '/') \
             AND ($6 = 0 OR outcome = $6) AND time >= $7 AND time < $8 ORDER BY number DESC LIMIT $9"
        );
        let values = [
            place.into(),
            before.into(),
            (&selection.principal).into(),
            (&selection.method).into(),
            (&selection.resource).into(),
            selection.outcome.into(),
            selection.from.into(),
            selection.before.into(),
            limit.into(),
        ];
        self.rows(sql, &values).await?.into_iter().map(entry).collect()
    }

    /// At most `limit` entries of a log after the one with the number `after`, oldest first.
    pub(crate) async fn audit_after(
        &mut self,
        place: &str,
        after: i64,
        limit: i64,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let sql = select_audit!("WHERE place = $1 AND number > $2 ORDER BY number LIMIT $3");
        self.rows(sql, &[place.into(), after.into(), limit.into()]).await?.into_iter().map(entry).collect()
    }
}
