//! Who may do what, as administrators see it: API keys, roles and service accounts.

use super::{Row, StoreError, Transaction};
use crate::clock::UnixMillis;

/// An API key, a role or a service account as stored.
#[derive(Clone, Debug)]
pub(crate) struct PrincipalRow {
    pub(crate) name: String,
    /// The id of its workspace; empty for one of the server.
    pub(crate) workspace: String,
    pub(crate) collection: String,
    pub(crate) uid: String,
    /// Counts every change.
    pub(crate) saves: i64,
    /// The encoded message, without what only the server writes.
    pub(crate) body: Vec<u8>,
    pub(crate) create_time: UnixMillis,
    pub(crate) update_time: UnixMillis,
}

macro_rules! select_principal {
    ($tail:literal) => {
        concat!(
            "SELECT name, COALESCE(workspace, ''), collection, uid, saves, body, create_time, update_time FROM principal ",
            $tail
        )
    };
}

fn principal(mut row: Row) -> Result<PrincipalRow, StoreError> {
    Ok(PrincipalRow {
        name: row.text(0)?,
        workspace: row.text(1)?,
        collection: row.text(2)?,
        uid: row.text(3)?,
        saves: row.integer(4)?,
        body: row.blob(5)?,
        create_time: row.integer(6)?,
        update_time: row.integer(7)?,
    })
}

impl Transaction {
    /// The one with this name, which holds its place.
    pub(crate) async fn principal(&mut self, name: &str) -> Result<Option<PrincipalRow>, StoreError> {
        self.row(select_principal!("WHERE name = $1"), &[name.into()]).await?.map(principal).transpose()
    }

    /// All of a collection in a workspace, or of the server, by name. There are never many: their number is limited.
    pub(crate) async fn principals(
        &mut self,
        workspace: &str,
        collection: &str,
    ) -> Result<Vec<PrincipalRow>, StoreError> {
        let sql = select_principal!("WHERE COALESCE(workspace, '') = $1 AND collection = $2 ORDER BY name");
        self.rows(sql, &[workspace.into(), collection.into()]).await?.into_iter().map(principal).collect()
    }

    /// Adds one, or writes back what can change.
    pub(crate) async fn principal_put(&mut self, row: &PrincipalRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO principal (name, workspace, collection, uid, saves, body, create_time, update_time) \
                   VALUES ($1, NULLIF($2, ''), $3, $4, $5, $6, $7, $8) \
                   ON CONFLICT (name) DO UPDATE SET saves = excluded.saves, body = excluded.body, \
                   update_time = excluded.update_time";
        let values = [
            (&row.name).into(),
            (&row.workspace).into(),
            (&row.collection).into(),
            (&row.uid).into(),
            row.saves.into(),
            (&row.body).into(),
            row.create_time.into(),
            row.update_time.into(),
        ];
        self.run(sql, &values).await.map(drop)
    }

    /// Deletes one.
    pub(crate) async fn principal_delete(&mut self, name: &str) -> Result<(), StoreError> {
        self.run("DELETE FROM principal WHERE name = $1", &[name.into()]).await.map(drop)
    }
}
