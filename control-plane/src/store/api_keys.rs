//! API keys as calls are checked with: hashes, never the keys.

use super::{Row, StoreError, Transaction};
use crate::clock::UnixMillis;

/// From how many networks a key's use is remembered.
const NETWORKS_REMEMBERED: i64 = 100;

/// An API key as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiKeyRow {
    /// Its public part.
    pub(crate) id: String,
    /// The id of its workspace; empty for a key of the server.
    pub(crate) workspace: String,
    /// What it was made for, when it is kept in a file; empty otherwise.
    pub(crate) role: String,
    /// The name of its service account; empty for none.
    pub(crate) account: String,
    /// SHA-256 of its secret part, which is random enough that nothing slower is needed (K14).
    pub(crate) hash: Vec<u8>,
    /// What it may do: permissions and `@role`s, separated by spaces.
    pub(crate) permissions: String,
    /// From where it may be used, separated by spaces; empty for anywhere.
    pub(crate) networks: String,
    /// 0 when it does not expire.
    pub(crate) expire_time: UnixMillis,
    /// 0 when it was never used.
    pub(crate) last_use_time: UnixMillis,
    pub(crate) create_time: UnixMillis,
    /// 0 when it was not revoked.
    pub(crate) revoke_time: UnixMillis,
}

macro_rules! select_api_key {
    ($tail:literal) => {
        concat!(
            "SELECT id, COALESCE(workspace, ''), role, account, hash, permissions, networks, expire_time, last_use_time, ",
            "create_time, revoke_time FROM api_key ",
            $tail
        )
    };
}

fn api_key(mut row: Row) -> Result<ApiKeyRow, StoreError> {
    Ok(ApiKeyRow {
        id: row.text(0)?,
        workspace: row.text(1)?,
        role: row.text(2)?,
        account: row.text(3)?,
        hash: row.blob(4)?,
        permissions: row.text(5)?,
        networks: row.text(6)?,
        expire_time: row.integer(7)?,
        last_use_time: row.integer(8)?,
        create_time: row.integer(9)?,
        revoke_time: row.integer(10)?,
    })
}

impl Transaction {
    /// The key that has the public part `id`, revoked or not.
    pub(crate) async fn api_key(&mut self, id: &str) -> Result<Option<ApiKeyRow>, StoreError> {
        self.row(select_api_key!("WHERE id = $1"), &[id.into()]).await?.map(api_key).transpose()
    }

    /// The keys of a workspace, or of the server, that were not revoked, by id.
    pub(crate) async fn api_keys(&mut self, workspace: &str) -> Result<Vec<ApiKeyRow>, StoreError> {
        let sql = select_api_key!("WHERE COALESCE(workspace, '') = $1 AND revoke_time = 0 ORDER BY id");
        self.rows(sql, &[workspace.into()]).await?.into_iter().map(api_key).collect()
    }

    /// The ids of the keys that are kept in the file of this role and were not revoked.
    pub(crate) async fn api_keys_of_role(&mut self, role: &str) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT id FROM api_key WHERE role = $1 AND revoke_time = 0";
        self.rows(sql, &[role.into()]).await?.iter_mut().map(|row| row.text(0)).collect()
    }

    /// Adds a key, or replaces what is stored of it.
    pub(crate) async fn api_key_put(&mut self, key: &ApiKeyRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO api_key (id, workspace, role, account, hash, permissions, networks, expire_time, \
                   last_use_time, create_time, revoke_time) \
                   VALUES ($1, NULLIF($2, ''), $3, $4, $5, $6, $7, $8, $9, $10, $11) \
                   ON CONFLICT (id) DO UPDATE SET workspace = excluded.workspace, role = excluded.role, \
                   account = excluded.account, hash = excluded.hash, permissions = excluded.permissions, \
                   networks = excluded.networks, expire_time = excluded.expire_time, \
                   last_use_time = excluded.last_use_time, revoke_time = excluded.revoke_time";
        let values = [
            (&key.id).into(),
            (&key.workspace).into(),
            (&key.role).into(),
            (&key.account).into(),
            (&key.hash).into(),
            (&key.permissions).into(),
            (&key.networks).into(),
            key.expire_time.into(),
            key.last_use_time.into(),
            key.create_time.into(),
            key.revoke_time.into(),
        ];
        self.run(sql, &values).await.map(drop)
    }

    /// Revokes a key for good.
    pub(crate) async fn api_key_revoke(&mut self, id: &str, now: UnixMillis) -> Result<(), StoreError> {
        self.run("UPDATE api_key SET revoke_time = $1 WHERE id = $2", &[now.into(), id.into()]).await.map(drop)
    }

    /// Notes that a key was used.
    pub(crate) async fn api_key_used(&mut self, id: &str, now: UnixMillis) -> Result<(), StoreError> {
        let sql = "UPDATE api_key SET last_use_time = $1 WHERE id = $2 AND last_use_time < $1";
        self.run(sql, &[now.into(), id.into()]).await.map(drop)
    }

    /// Notes that a key was used from a network. `true`: it had been used before, and never from there. Of a key that was used from
    /// very many the newest are remembered.
    pub(crate) async fn api_key_network(
        &mut self,
        id: &str,
        network: &str,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let used = self.row("SELECT 1 FROM key_network WHERE api_key = $1 LIMIT 1", &[id.into()]).await?.is_some();
        let sql = "INSERT INTO key_network (api_key, network, first_time) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        let is_new = self.run(sql, &[id.into(), network.into(), now.into()]).await? > 0;
        let sql = "DELETE FROM key_network WHERE api_key = $1 AND network NOT IN \
                   (SELECT network FROM key_network WHERE api_key = $1 ORDER BY first_time DESC, network LIMIT $2)";
        self.run(sql, &[id.into(), NETWORKS_REMEMBERED.into()]).await?;
        Ok(used && is_new)
    }
}
