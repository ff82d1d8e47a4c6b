//! The audit log: rows that are only ever added, and let go from the beginning.

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

/// Where a log begins when its oldest entries were let go.
#[derive(Clone, Debug)]
pub(crate) struct AuditAnchor {
    pub(crate) place: String,
    /// The number of the last entry that was let go.
    pub(crate) number: i64,
    /// Its hash.
    pub(crate) hash: Vec<u8>,
    /// A keyed hash over all of it.
    pub(crate) seal: Vec<u8>,
}

/// What decides whether an entry is let go.
#[derive(Clone, Debug)]
pub(crate) struct AuditStep {
    pub(crate) number: i64,
    pub(crate) time: UnixMillis,
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

impl AuditSelection {
    /// Whether an entry is meant.
    pub(crate) fn matches(&self, row: &AuditRow) -> bool {
        let same = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        let within = |found: &str| found.strip_prefix(&self.resource).is_some_and(|rest| rest.starts_with('/'));
        same(&self.principal, &row.principal)
            && same(&self.method, &row.method)
            && (same(&self.resource, &row.resource) || within(&row.resource))
            && (self.outcome == 0 || self.outcome == row.outcome)
            && (self.from..self.before).contains(&row.time)
    }
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
        before: i64,
        limit: i64,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let sql = select_audit!("WHERE place = $1 AND number < $2 ORDER BY number DESC LIMIT $3");
        self.rows(sql, &[place.into(), before.into(), limit.into()]).await?.into_iter().map(entry).collect()
    }

    /// Numbers between which lie all entries of a log that were written from `from` to before `before`: those next to the bounds by time,
    /// so that none has to be looked at in between. Without any, the second is less than the first.
    pub(crate) async fn audit_bounds(
        &mut self,
        place: &str,
        from: UnixMillis,
        before: UnixMillis,
    ) -> Result<(i64, i64), StoreError> {
        // A clock that was set back makes later entries with earlier times: the bounds are those of the whole log then, as they are
        // when no time is asked for.
        let first = "SELECT number FROM audit_entry WHERE place = $1 AND time >= $2 ORDER BY time, number LIMIT 1";
        let last =
            "SELECT number FROM audit_entry WHERE place = $1 AND time < $2 ORDER BY time DESC, number DESC LIMIT 1";
        let number = |row: Option<Row>, none: i64| row.map_or(Ok(none), |mut row| row.integer(0));
        let first = match from {
            UnixMillis::MIN => 1,
            from => number(self.row(first, &[place.into(), from.into()]).await?, i64::MAX)?,
        };
        let last = match before {
            UnixMillis::MAX => i64::MAX,
            before => number(self.row(last, &[place.into(), before.into()]).await?, 0)?,
        };
        Ok((first, last))
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

    /// At most `limit` of the oldest entries of a log, the oldest first.
    pub(crate) async fn audit_oldest(&mut self, place: &str, limit: i64) -> Result<Vec<AuditStep>, StoreError> {
        let sql = "SELECT number, time, hash FROM audit_entry WHERE place = $1 ORDER BY number LIMIT $2";
        let rows = self.rows(sql, &[place.into(), limit.into()]).await?;
        let step = |mut row: Row| Ok(AuditStep { number: row.integer(0)?, time: row.integer(1)?, hash: row.blob(2)? });
        rows.into_iter().map(step).collect()
    }

    /// Where a log begins, when its oldest entries were let go.
    pub(crate) async fn audit_anchor(&mut self, place: &str) -> Result<Option<AuditAnchor>, StoreError> {
        let sql = "SELECT number, hash, seal FROM audit_anchor WHERE place = $1";
        let row = self.row(sql, &[place.into()]).await?;
        let anchor = |mut row: Row| {
            let (number, hash, seal) = (row.integer(0)?, row.blob(1)?, row.blob(2)?);
            Ok(AuditAnchor { place: place.to_owned(), number, hash, seal })
        };
        row.map(anchor).transpose()
    }

    /// Lets go the entries of a log up to the one that `anchor` names.
    pub(crate) async fn audit_let_go(&mut self, anchor: &AuditAnchor) -> Result<(), StoreError> {
        let sql = "INSERT INTO audit_anchor (place, number, hash, seal) VALUES ($1, $2, $3, $4) \
                   ON CONFLICT (place) DO UPDATE SET number = excluded.number, hash = excluded.hash, seal = excluded.seal";
        let values = [(&anchor.place).into(), anchor.number.into(), (&anchor.hash).into(), (&anchor.seal).into()];
        self.run(sql, &values).await?;
        let sql = "DELETE FROM audit_entry WHERE place = $1 AND number <= $2";
        self.run(sql, &[(&anchor.place).into(), anchor.number.into()]).await.map(drop)
    }

    /// The first place by name, after `after`, that has a log.
    pub(crate) async fn audit_place_after(&mut self, after: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT place FROM audit_entry WHERE place > $1 ORDER BY place LIMIT 1";
        self.row(sql, &[after.into()]).await?.map(|mut row| row.text(0)).transpose()
    }

    /// Whether the log of this place can still grow: it is the server's, or its workspace is there, deleted or not.
    pub(crate) async fn audit_place_lives(&mut self, place: &str) -> Result<bool, StoreError> {
        let row = self.row("SELECT 1 FROM workspace WHERE uid = $1", &[place.into()]).await?;
        Ok(place.is_empty() || row.is_some())
    }
}
