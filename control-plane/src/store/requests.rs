//! Answers to requests that carried a `request_id`, so that the same request sent again gets the first answer.

use super::{StoreError, Transaction};
use crate::clock::UnixMillis;

/// A remembered request.
#[derive(Clone, Debug)]
pub(crate) struct Remembered {
    /// What was asked, as a keyed hash: requests hold secrets.
    pub(crate) hash: Vec<u8>,
    /// The encoded answer; answers hold none.
    pub(crate) answer: Vec<u8>,
}

impl Transaction {
    /// What this API key asked under `id` since `since`.
    pub(crate) async fn request(
        &mut self,
        api_key: &str,
        id: &str,
        since: UnixMillis,
    ) -> Result<Option<Remembered>, StoreError> {
        let sql = "SELECT hash, answer FROM request WHERE api_key = $1 AND id = $2 AND create_time >= $3";
        let row = self.row(sql, &[api_key.into(), id.into(), since.into()]).await?;
        row.map(|mut row| Ok(Remembered { hash: row.blob(0)?, answer: row.blob(1)? })).transpose()
    }

    /// Remembers a request; one under the same id that was too old is replaced.
    pub(crate) async fn request_put(
        &mut self,
        api_key: &str,
        id: &str,
        request: &Remembered,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO request (api_key, id, hash, answer, create_time) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (api_key, id) DO UPDATE SET hash = excluded.hash, answer = excluded.answer, \
                   create_time = excluded.create_time";
        let values = [api_key.into(), id.into(), (&request.hash).into(), (&request.answer).into(), now.into()];
        self.run(sql, &values).await.map(drop)
    }
}
