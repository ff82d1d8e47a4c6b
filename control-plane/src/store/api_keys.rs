//! API keys: hashes, never the keys.

use super::{StoreError, Transaction};
use crate::clock::UnixMillis;

/// An API key as stored.
#[derive(Clone, Debug)]
pub(crate) struct ApiKeyRow {
    /// Its public part.
    pub(crate) id: String,
    /// What it was made for.
    pub(crate) role: String,
    /// SHA-256 of its secret part, which is random enough that nothing slower is needed (K14).
    pub(crate) hash: Vec<u8>,
    /// Patterns, separated by spaces.
    pub(crate) permissions: String,
}

impl Transaction {
    /// The key that has the public part `id` and was not revoked.
    pub(crate) async fn api_key(&mut self, id: &str) -> Result<Option<ApiKeyRow>, StoreError> {
        let sql = "SELECT id, role, hash, permissions FROM api_key WHERE id = $1 AND revoke_time IS NULL";
        let Some(mut row) = self.row(sql, &[id.into()]).await? else { return Ok(None) };
        Ok(Some(ApiKeyRow { id: row.text(0)?, role: row.text(1)?, hash: row.blob(2)?, permissions: row.text(3)? }))
    }

    /// Makes `key` the only key of its role. Returns how many others were revoked.
    pub(crate) async fn api_key_set(&mut self, key: &ApiKeyRow, now: UnixMillis) -> Result<u64, StoreError> {
        let sql = "UPDATE api_key SET revoke_time = $1 WHERE role = $2 AND id <> $3 AND revoke_time IS NULL";
        let revoked = self.run(sql, &[now.into(), (&key.role).into(), (&key.id).into()]).await?;
        let sql = "INSERT INTO api_key (id, role, hash, permissions, create_time) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (id) DO UPDATE SET role = excluded.role, hash = excluded.hash, \
                   permissions = excluded.permissions, revoke_time = NULL";
        let values = [(&key.id).into(), (&key.role).into(), (&key.hash).into(), (&key.permissions).into(), now.into()];
        self.run(sql, &values).await?;
        Ok(revoked)
    }
}
