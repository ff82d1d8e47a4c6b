//! A job that an operator asks for by its id.

use bytes::Bytes;
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::super::{Fence, Found, Place};

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

/// By the number a state has in the file.
pub(super) fn place(state: i64) -> Result<Place, sqlx::Error> {
    match state {
        0 => Ok(Place::Ready),
        2 => Ok(Place::Delayed),
        3 => Ok(Place::Dead),
        _ => Err(sqlx::Error::Decode(format!("job.state {state}").into())),
    }
}
