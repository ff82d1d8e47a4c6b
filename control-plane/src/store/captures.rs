//! Captures: at most one for each incoming integration.

use super::{Row, StoreError, Transaction};
use crate::clock::UnixMillis;

/// A capture as stored.
#[derive(Clone, Debug)]
pub(crate) struct CaptureRow {
    /// The name of its incoming integration.
    pub(crate) integration: String,
    /// The id of its workspace.
    pub(crate) workspace: String,
    pub(crate) uid: String,
    pub(crate) start_time: UnixMillis,
    pub(crate) expire_time: UnixMillis,
    /// An encoded `sync.v1.OpenCapture`.
    pub(crate) opening: Vec<u8>,
    /// Where the request came in; empty until then.
    pub(crate) data_plane: String,
    /// The sealed envelope; empty until a request has come.
    pub(crate) sample: Vec<u8>,
}

macro_rules! select_capture {
    ($tail:literal) => {
        concat!(
            "SELECT integration, workspace, uid, start_time, expire_time, opening, data_plane, sample FROM capture ",
            $tail
        )
    };
}

fn capture(mut row: Row) -> Result<CaptureRow, StoreError> {
    Ok(CaptureRow {
        integration: row.text(0)?,
        workspace: row.text(1)?,
        uid: row.text(2)?,
        start_time: row.integer(3)?,
        expire_time: row.integer(4)?,
        opening: row.blob(5)?,
        data_plane: row.text(6)?,
        sample: row.blob(7)?,
    })
}

impl Transaction {
    /// The capture of an incoming integration.
    pub(crate) async fn capture(&mut self, integration: &str) -> Result<Option<CaptureRow>, StoreError> {
        self.row(select_capture!("WHERE integration = $1"), &[integration.into()]).await?.map(capture).transpose()
    }

    /// The capture with this id.
    pub(crate) async fn capture_by_uid(&mut self, uid: &str) -> Result<Option<CaptureRow>, StoreError> {
        self.row(select_capture!("WHERE uid = $1"), &[uid.into()]).await?.map(capture).transpose()
    }

    /// The ids of a workspace's captures.
    pub(crate) async fn captures_of(&mut self, workspace: &str) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT uid FROM capture WHERE workspace = $1 ORDER BY uid";
        self.rows(sql, &[workspace.into()]).await?.iter_mut().map(|row| row.text(0)).collect()
    }

    /// Captures that began after `since` and still wait at `now`.
    pub(crate) async fn captures_open(
        &mut self,
        since: UnixMillis,
        now: UnixMillis,
    ) -> Result<Vec<CaptureRow>, StoreError> {
        let sql = select_capture!("WHERE start_time > $1 AND expire_time > $2 AND data_plane = '' ORDER BY start_time");
        self.rows(sql, &[since.into(), now.into()]).await?.into_iter().map(capture).collect()
    }

    /// How many captures wait at `now`.
    pub(crate) async fn captures_open_count(&mut self, now: UnixMillis) -> Result<i64, StoreError> {
        let sql = "SELECT COUNT(*) FROM capture WHERE expire_time > $1 AND data_plane = ''";
        self.row(sql, &[now.into()]).await?.map_or(Ok(0), |mut row| row.integer(0))
    }

    /// Puts a capture in the place of the one that its incoming integration had.
    pub(crate) async fn capture_put(&mut self, row: &CaptureRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO capture (integration, workspace, uid, start_time, expire_time, opening, data_plane, sample) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
                   ON CONFLICT (integration) DO UPDATE SET uid = excluded.uid, start_time = excluded.start_time, \
                   expire_time = excluded.expire_time, opening = excluded.opening, data_plane = excluded.data_plane, \
                   sample = excluded.sample";
        let values = [
            (&row.integration).into(),
            (&row.workspace).into(),
            (&row.uid).into(),
            row.start_time.into(),
            row.expire_time.into(),
            (&row.opening).into(),
            (&row.data_plane).into(),
            (&row.sample).into(),
        ];
        self.run(sql, &values).await.map(drop)
    }

    /// Forgets the capture of an incoming integration.
    pub(crate) async fn capture_delete(&mut self, integration: &str) -> Result<(), StoreError> {
        self.run("DELETE FROM capture WHERE integration = $1", &[integration.into()]).await.map(drop)
    }

    /// Forgets the captures that began before then.
    pub(crate) async fn captures_sweep(&mut self, before: UnixMillis) -> Result<(), StoreError> {
        self.run("DELETE FROM capture WHERE start_time < $1", &[before.into()]).await.map(drop)
    }
}
