//! What data planes reported: the order it came in, response events, and how long all of it is kept. Deliveries and incoming
//! requests have parts of their own.

use std::sync::LazyLock;

use super::many::Insert;
use super::{Row, StoreError, Transaction, Value};
use crate::clock::UnixMillis;

/// How many old rows one sweep step deletes, so that writers do not wait long.
const SWEEP_ROWS: i64 = 1000;

/// Something reported, as stored.
#[derive(Clone, Debug)]
pub(crate) struct OutcomeRow {
    /// Grows with every stored outcome.
    pub(crate) sequence: i64,
    /// The encoded message.
    pub(crate) body: Vec<u8>,
}

/// An event to store.
#[derive(Clone, Debug)]
pub(crate) struct EventRow {
    pub(crate) sequence: i64,
    pub(crate) workspace: String,
    pub(crate) name: String,
    pub(crate) action: String,
    /// The encoded message.
    pub(crate) body: Vec<u8>,
}

/// One statement with the action, whose index is used then, and one without.
macro_rules! events {
    ($action:literal, $order:literal) => {
        concat!("SELECT sequence, body FROM event WHERE workspace = $1 ", $action, "AND ", $order, " LIMIT $3")
    };
}

pub(super) fn outcome(mut row: Row) -> Result<OutcomeRow, StoreError> {
    Ok(OutcomeRow { sequence: row.integer(0)?, body: row.blob(1)? })
}

impl EventRow {
    fn values(&self, now: UnixMillis) -> Vec<Value<'_>> {
        vec![
            self.sequence.into(),
            Value::Text(&self.workspace),
            Value::Text(&self.name),
            Value::Text(&self.action),
            Value::Blob(&self.body),
            now.into(),
        ]
    }
}

impl Transaction {
    /// Reserves `count` sequences and returns the first. The lock it takes makes them visible in order.
    pub(crate) async fn outcome_sequences(&mut self, count: i64) -> Result<i64, StoreError> {
        let sql =
            "UPDATE store_meta SET outcome_sequence = outcome_sequence + $1 WHERE id = 1 RETURNING outcome_sequence";
        let row = self.row(sql, &[count.into()]).await?;
        let last = row.map_or(Err(StoreError::Corrupt("no store_meta".to_owned())), |mut row| row.integer(0))?;
        Ok(last - count + 1)
    }

    /// The last sequence given.
    pub(crate) async fn outcome_sequence(&mut self) -> Result<i64, StoreError> {
        let row = self.row("SELECT outcome_sequence FROM store_meta WHERE id = 1", &[]).await?;
        row.map_or(Ok(0), |mut row| row.integer(0))
    }

    /// Stores events, no two of one name. A delivery that was tried again after its end tells its event again: it takes the place
    /// of the first.
    pub(crate) async fn events_put(&mut self, events: &[&EventRow], now: UnixMillis) -> Result<(), StoreError> {
        static INSERT: LazyLock<Insert> = LazyLock::new(|| {
            Insert::new(
                "event (sequence, workspace, name, action, body, store_time)",
                6,
                "ON CONFLICT (name) DO UPDATE SET sequence = excluded.sequence, action = excluded.action, \
                 body = excluded.body, store_time = excluded.store_time WHERE event.workspace = excluded.workspace",
            )
        });
        let rows: Vec<Vec<Value<'_>>> = events.iter().map(|row| row.values(now)).collect();
        self.insert(&INSERT, &rows).await.map(drop)
    }

    /// Events before the sequence `before`, newest first; an empty `action` means any.
    pub(crate) async fn events_before(
        &mut self,
        workspace: &str,
        action: &str,
        before: i64,
        limit: i64,
    ) -> Result<Vec<OutcomeRow>, StoreError> {
        let sql = match action {
            "" => events!("", "sequence < $2 ORDER BY sequence DESC"),
            _ => events!("AND action = $4 ", "sequence < $2 ORDER BY sequence DESC"),
        };
        self.events(sql, workspace, action, [before, limit]).await
    }

    /// Events after the sequence `after`, oldest first; an empty `action` means any.
    pub(crate) async fn events_after(
        &mut self,
        workspace: &str,
        action: &str,
        after: i64,
        limit: i64,
    ) -> Result<Vec<OutcomeRow>, StoreError> {
        let sql = match action {
            "" => events!("", "sequence > $2 ORDER BY sequence"),
            _ => events!("AND action = $4 ", "sequence > $2 ORDER BY sequence"),
        };
        self.events(sql, workspace, action, [after, limit]).await
    }

    async fn events(
        &mut self,
        sql: &'static str,
        workspace: &str,
        action: &str,
        [position, limit]: [i64; 2],
    ) -> Result<Vec<OutcomeRow>, StoreError> {
        let values = [workspace.into(), position.into(), limit.into(), action.into()];
        let bound = if action.is_empty() { &values[..3] } else { &values[..] };
        self.rows(sql, bound).await?.into_iter().map(outcome).collect()
    }

    /// An event of the workspace, encoded.
    pub(crate) async fn event(&mut self, workspace: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT body FROM event WHERE name = $1 AND workspace = $2";
        self.row(sql, &[name.into(), workspace.into()]).await?.map(|mut row| row.blob(0)).transpose()
    }

    /// The sequence of an event of the workspace.
    pub(crate) async fn event_sequence(&mut self, workspace: &str, name: &str) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT sequence FROM event WHERE name = $1 AND workspace = $2";
        self.row(sql, &[name.into(), workspace.into()]).await?.map(|mut row| row.integer(0)).transpose()
    }

    /// Deletes some outcomes stored before `outcomes_before` and some remembered requests from before `requests_before`.
    /// Returns whether there may be more.
    pub(crate) async fn sweep(
        &mut self,
        outcomes_before: UnixMillis,
        requests_before: UnixMillis,
    ) -> Result<bool, StoreError> {
        let deliveries = "DELETE FROM delivery WHERE sequence IN \
                          (SELECT sequence FROM delivery WHERE store_time < $1 ORDER BY store_time LIMIT $2)";
        let events = "DELETE FROM event WHERE sequence IN \
                      (SELECT sequence FROM event WHERE store_time < $1 ORDER BY store_time LIMIT $2)";
        let incoming = "DELETE FROM incoming_request WHERE sequence IN \
                        (SELECT sequence FROM incoming_request WHERE store_time < $1 ORDER BY store_time LIMIT $2)";
        let operations = "DELETE FROM operation WHERE sequence IN (SELECT sequence FROM operation \
                          WHERE end_time > 0 AND end_time < $1 ORDER BY end_time LIMIT $2)";
        let requests = "DELETE FROM request WHERE (api_key, id) IN \
                        (SELECT api_key, id FROM request WHERE create_time < $1 ORDER BY create_time LIMIT $2)";
        let mut more = false;
        for (sql, before) in [
            (deliveries, outcomes_before),
            (events, outcomes_before),
            (incoming, outcomes_before),
            (operations, outcomes_before),
            (requests, requests_before),
        ] {
            let deleted = self.run(sql, &[before.into(), SWEEP_ROWS.into()]).await?;
            more |= i64::try_from(deleted).is_ok_and(|deleted| deleted == SWEEP_ROWS);
        }
        Ok(more)
    }
}
