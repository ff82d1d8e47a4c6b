//! What a workspace's data key seals beside its secrets, page by page: what was sent and answered at attempts, and the envelopes of
//! incoming requests.

use super::{Place, Row, StoreError, Transaction};

/// A sealed value, or several of one delivery.
#[derive(Clone, Debug)]
pub(crate) struct SealedRow {
    pub(crate) place: Place,
    /// Of the delivery, or of the incoming request.
    pub(crate) name: String,
    /// Empty for a delivery: its values are read by [`Transaction::exchanges`].
    pub(crate) sealed: Vec<u8>,
}

impl Transaction {
    /// How many deliveries and incoming requests of the workspace are kept.
    pub(crate) async fn kept_count(&mut self, workspace: &str) -> Result<i64, StoreError> {
        let sql = "SELECT (SELECT COUNT(*) FROM delivery WHERE workspace = $1) + \
                   (SELECT COUNT(*) FROM incoming_request WHERE workspace = $1)";
        self.row(sql, &[workspace.into()]).await?.map_or(Ok(0), |mut row| row.integer(0))
    }

    /// Deliveries after `after` that were recorded up to the sequence `until`, oldest first.
    pub(crate) async fn deliveries_sealed(
        &mut self,
        workspace: &str,
        after: Place,
        (until, limit): (i64, i64),
    ) -> Result<Vec<SealedRow>, StoreError> {
        let sql = "SELECT accept_time, sequence, name FROM delivery WHERE workspace = $1 \
                   AND (accept_time, sequence) > ($2, $3) AND sequence <= $4 ORDER BY accept_time, sequence LIMIT $5";
        let values = [workspace.into(), after.accept_time.into(), after.sequence.into(), until.into(), limit.into()];
        let row = |mut row: Row| {
            let place = Place { accept_time: row.integer(0)?, sequence: row.integer(1)? };
            Ok(SealedRow { place, name: row.text(2)?, sealed: Vec::new() })
        };
        self.rows(sql, &values).await?.into_iter().map(row).collect()
    }

    /// Incoming requests after `after` that were recorded up to the sequence `until`, oldest first.
    pub(crate) async fn envelopes_sealed(
        &mut self,
        workspace: &str,
        after: Place,
        (until, limit): (i64, i64),
    ) -> Result<Vec<SealedRow>, StoreError> {
        let sql = "SELECT accept_time, sequence, name, envelope FROM incoming_request WHERE workspace = $1 \
                   AND (accept_time, sequence) > ($2, $3) AND sequence <= $4 ORDER BY accept_time, sequence LIMIT $5";
        let values = [workspace.into(), after.accept_time.into(), after.sequence.into(), until.into(), limit.into()];
        let row = |mut row: Row| {
            let place = Place { accept_time: row.integer(0)?, sequence: row.integer(1)? };
            Ok(SealedRow { place, name: row.text(2)?, sealed: row.blob(3)? })
        };
        self.rows(sql, &values).await?.into_iter().map(row).collect()
    }

    /// Puts an exchange as it is sealed now in the place of the one before.
    pub(crate) async fn exchange_reseal(
        &mut self,
        delivery: &str,
        attempt: i64,
        sealed: &[u8],
    ) -> Result<(), StoreError> {
        let sql = "UPDATE exchange SET sealed = $1 WHERE delivery = $2 AND attempt = $3";
        self.run(sql, &[sealed.into(), delivery.into(), attempt.into()]).await.map(drop)
    }

    /// Puts an envelope as it is sealed now in the place of the one before.
    pub(crate) async fn envelope_reseal(&mut self, request: &str, sealed: &[u8]) -> Result<(), StoreError> {
        let sql = "UPDATE incoming_request SET envelope = $1 WHERE name = $2";
        self.run(sql, &[sealed.into(), request.into()]).await.map(drop)
    }
}
