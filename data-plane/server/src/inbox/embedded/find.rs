//! Jobs that an operator wants to see: one by its id, and those that wait.

use bytes::Bytes;
use futures::TryStreamExt as _;
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::super::{Fence, Found, Place, Waited};
use crate::clock::UnixMillis;

/// Finds a job by its id, on any connection: among those that wait or are dead by their index, among all others one by one.
/// Who works on it the file does not say.
pub(super) async fn find(conn: &mut SqliteConnection, id: Uuid) -> Result<Option<Found>, sqlx::Error> {
    const COLUMNS: &str = "SELECT seq, epoch, state, accepted,
            payload,
            (SELECT r.bytes FROM rendered AS r WHERE r.job = seq)
        FROM job WHERE id = ?1 AND ";
    let mut row = None;
    for condition in ["state >= 2", "state < 2"] {
        let sql = sqlx::AssertSqlSafe(format!("{COLUMNS}{condition}"));
        row = sqlx::query(sql).bind(id.as_bytes().to_vec()).fetch_optional(&mut *conn).await?;
        if row.is_some() {
            break;
        }
    }
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Found {
        fence: Fence { row: row.try_get(0)?, epoch: row.try_get(1)? },
        place: place(row.try_get(2)?)?,
        accepted_at: row.try_get(3)?,
        payload: Bytes::from(row.try_get::<Vec<u8>, _>(4)?),
        rendered: row.try_get::<Option<Vec<u8>>, _>(5)?.map(Bytes::from),
    }))
}

/// Jobs without an attempt, on any connection, in the order they were accepted in; it ends with the first that is too young, so that
/// what came lately is not gone through again and again.
pub(super) async fn waited(
    conn: &mut SqliteConnection,
    after: i64,
    accepted_before: UnixMillis,
    max_rows: u32,
    max_bytes: usize,
) -> Result<Vec<Waited>, sqlx::Error> {
    let mut rows = sqlx::query(
        "SELECT seq, epoch, id, state, at, accepted, payload FROM job
         WHERE seq > ?1 AND state IN (0, 2) AND retry = 0 ORDER BY seq LIMIT ?2",
    )
    .bind(after)
    .bind(max_rows)
    .fetch(conn);
    let (mut found, mut bytes) = (Vec::new(), 0usize);
    while let Some(row) = rows.try_next().await? {
        let accepted_at: UnixMillis = row.try_get(5)?;
        if accepted_at > accepted_before {
            break;
        }
        let payload = Bytes::from(row.try_get::<Vec<u8>, _>(6)?);
        bytes = bytes.saturating_add(payload.len());
        if bytes > max_bytes && !found.is_empty() {
            break;
        }
        let is_delayed = place(row.try_get(3)?)? == Place::Delayed;
        let at: UnixMillis = row.try_get(4)?;
        let id = Uuid::from_slice(row.try_get(2)?).map_err(|error| sqlx::Error::Decode(error.into()))?;
        found.push(Waited {
            number: row.try_get(0)?,
            id,
            payload,
            due: is_delayed.then_some(at),
            order: row.try_get(1)?,
            accepted_at,
        });
    }
    Ok(found)
}

/// By the number a state has in the file.
pub(super) fn place(state: i64) -> Result<Place, sqlx::Error> {
    match state {
        0 => Ok(Place::Ready),
        2 => Ok(Place::Delayed),
        3 => Ok(Place::Dead),
        _ => Err(sqlx::Error::Decode(format!("job.state {state}").into())),
    }
}
