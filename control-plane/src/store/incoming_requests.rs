//! Accepted triggers: what is shown of them, and the sealed envelope that a replay needs.

use std::sync::LazyLock;

use super::many::Insert;
use super::{Place, Placed, StoreError, Transaction, Value};
use crate::clock::UnixMillis;

/// An accepted trigger as stored.
#[derive(Clone, Debug)]
pub(crate) struct IncomingRequestRow {
    pub(crate) workspace: String,
    pub(crate) name: String,
    pub(crate) incoming: String,
    pub(crate) accept_time: UnixMillis,
    /// The encoded message.
    pub(crate) body: Vec<u8>,
    /// The sealed envelope.
    pub(crate) envelope: Vec<u8>,
}

/// Which incoming requests; an empty text means any.
#[derive(Clone, Debug)]
pub(crate) struct IncomingSelection {
    pub(crate) incoming: String,
    pub(crate) accepted_from: UnixMillis,
    pub(crate) accepted_before: UnixMillis,
}

macro_rules! placed {
    ($driver:literal, $beyond:literal) => {
        concat!(
            "SELECT accept_time, sequence, body FROM incoming_request WHERE workspace = $1 AND ($2 = '' OR incoming = $2) ",
            $driver,
            "AND accept_time >= $3 AND accept_time < $4 AND (accept_time, sequence) ",
            $beyond,
            " LIMIT $7"
        )
    };
}

impl IncomingRequestRow {
    fn values(&self, sequence: i64, now: UnixMillis) -> Vec<Value<'_>> {
        vec![
            sequence.into(),
            Value::Text(&self.workspace),
            Value::Text(&self.name),
            Value::Text(&self.incoming),
            self.accept_time.into(),
            now.into(),
            Value::Blob(&self.body),
            Value::Blob(&self.envelope),
        ]
    }
}

impl Transaction {
    /// Whether the trigger is kept; keeps it for as long as something that happened now.
    pub(crate) async fn incoming_request_touch(
        &mut self,
        workspace: &str,
        name: &str,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE incoming_request SET store_time = $3 WHERE name = $1 AND workspace = $2";
        Ok(self.run(sql, &[name.into(), workspace.into(), now.into()]).await? > 0)
    }

    /// Keeps triggers, no two of one name; one that is kept already stays as it is, and stays longer.
    pub(crate) async fn incoming_requests_put(
        &mut self,
        requests: &[(i64, &IncomingRequestRow)],
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        static INSERT: LazyLock<Insert> = LazyLock::new(|| {
            Insert::new(
                "incoming_request (sequence, workspace, name, incoming, accept_time, store_time, body, envelope)",
                8,
                "ON CONFLICT (name) DO UPDATE SET store_time = excluded.store_time",
            )
        });
        let rows: Vec<Vec<Value<'_>>> = requests.iter().map(|(sequence, row)| row.values(*sequence, now)).collect();
        self.insert(&INSERT, &rows).await.map(drop)
    }

    /// What is shown of one.
    pub(crate) async fn incoming_request(
        &mut self,
        workspace: &str,
        name: &str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT body FROM incoming_request WHERE name = $1 AND workspace = $2";
        self.row(sql, &[name.into(), workspace.into()]).await?.map(|mut row| row.blob(0)).transpose()
    }

    /// What is shown of one, and its sealed envelope.
    pub(crate) async fn incoming_request_whole(
        &mut self,
        workspace: &str,
        name: &str,
    ) -> Result<Option<(Vec<u8>, Vec<u8>)>, StoreError> {
        let sql = "SELECT body, envelope FROM incoming_request WHERE name = $1 AND workspace = $2";
        let row = self.row(sql, &[name.into(), workspace.into()]).await?;
        row.map(|mut row| Ok((row.blob(0)?, row.blob(1)?))).transpose()
    }

    /// Those that match and come after `after`: the newest first if `descending`, else the oldest.
    pub(crate) async fn incoming_requests(
        &mut self,
        workspace: &str,
        selection: &IncomingSelection,
        (after, descending): (Place, bool),
        limit: i64,
    ) -> Result<Vec<Placed>, StoreError> {
        let sql = match (selection.incoming.is_empty(), descending) {
            (true, true) => placed!("", "< ($5, $6) ORDER BY accept_time DESC, sequence DESC"),
            (true, false) => placed!("", "> ($5, $6) ORDER BY accept_time, sequence"),
            (false, true) => placed!("AND incoming = $2 ", "< ($5, $6) ORDER BY accept_time DESC, sequence DESC"),
            (false, false) => placed!("AND incoming = $2 ", "> ($5, $6) ORDER BY accept_time, sequence"),
        };
        let values = [
            workspace.into(),
            (&selection.incoming).into(),
            selection.accepted_from.into(),
            selection.accepted_before.into(),
            after.accept_time.into(),
            after.sequence.into(),
            limit.into(),
        ];
        let placed = |mut row: super::Row| {
            let place = Place { accept_time: row.integer(0)?, sequence: row.integer(1)? };
            Ok(Placed { place, body: row.blob(2)? })
        };
        self.rows(sql, &values).await?.into_iter().map(placed).collect()
    }
}
