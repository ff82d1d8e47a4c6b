//! Workspaces, their revisions, and the one row about the store itself.

use super::{Row, StoreError, Transaction};
use crate::clock::UnixMillis;

/// How many revisions of a workspace are kept for deltas; who is further behind gets a snapshot.
const REVISIONS_KEPT: i64 = 256;

/// A data key, wrapped by a master key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DataKeyRow {
    /// The master key.
    pub(crate) key_id: String,
    pub(crate) wrapped: Vec<u8>,
}

/// A workspace as stored.
#[derive(Clone, Debug)]
pub(crate) struct WorkspaceRow {
    pub(crate) id: String,
    pub(crate) uid: String,
    pub(crate) display_name: String,
    pub(crate) business_profile_id: i64,
    pub(crate) revision: i64,
    pub(crate) digest: Vec<u8>,
    pub(crate) data_key: DataKeyRow,
    /// The one before, while something is sealed with it.
    pub(crate) old_data_key: Option<DataKeyRow>,
    pub(crate) saves: i64,
    pub(crate) create_time: UnixMillis,
    pub(crate) update_time: UnixMillis,
    /// 0 when it is not deleted.
    pub(crate) delete_time: UnixMillis,
    /// What data planes have served of it, where that is later than `revision`: the store was set back.
    pub(crate) seen_ahead: i64,
    /// Which level of configuration data planes must understand to serve it.
    pub(crate) config_level: i32,
}

/// Where a workspace stands, for data planes.
#[derive(Clone, Debug)]
pub(crate) struct RevisionRow {
    pub(crate) id: String,
    pub(crate) revision: i64,
    pub(crate) digest: Vec<u8>,
    /// The newest revision that may take most of it away.
    pub(crate) deletes_confirmed: i64,
    /// Which level of configuration data planes must understand to serve it.
    pub(crate) config_level: i32,
}

/// One revision's change as stored.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) revision: i64,
    pub(crate) body: Vec<u8>,
}

/// The server's own key, wrapped, and what it seals.
#[derive(Clone, Debug)]
pub(crate) struct ServerKeyRow {
    pub(crate) key: DataKeyRow,
    pub(crate) hash_key: Vec<u8>,
}

macro_rules! select_workspace {
    ($tail:literal) => {
        concat!(
            "SELECT id, uid, display_name, business_profile_id, revision, digest, key_id, wrapped_key, saves, ",
            "create_time, update_time, delete_time, old_key_id, old_wrapped_key, seen_ahead, config_level FROM workspace ",
            $tail
        )
    };
}

fn workspace(mut row: Row) -> Result<WorkspaceRow, StoreError> {
    let has_old = !row.is_null(12);
    let old = has_old.then(|| Ok::<_, StoreError>(DataKeyRow { key_id: row.text(12)?, wrapped: row.blob(13)? }));
    let old_data_key = old.transpose()?;
    Ok(WorkspaceRow {
        id: row.text(0)?,
        uid: row.text(1)?,
        display_name: row.text(2)?,
        business_profile_id: row.integer(3)?,
        revision: row.integer(4)?,
        digest: row.blob(5)?,
        data_key: DataKeyRow { key_id: row.text(6)?, wrapped: row.blob(7)? },
        old_data_key,
        saves: row.integer(8)?,
        create_time: row.integer(9)?,
        update_time: row.integer(10)?,
        delete_time: row.integer(11)?,
        seen_ahead: row.integer(14)?,
        config_level: level(row.integer(15)?)?,
    })
}

/// A level of configuration, from its column.
pub(super) fn level(stored: i64) -> Result<i32, StoreError> {
    i32::try_from(stored).map_err(|_| StoreError::Corrupt(format!("{stored} is no level of configuration")))
}

impl Transaction {
    /// The workspace, for reading, unless it is deleted.
    pub(crate) async fn workspace(&mut self, id: &str) -> Result<Option<WorkspaceRow>, StoreError> {
        Ok(self.workspace_or_deleted(id).await?.filter(|row| row.delete_time == 0))
    }

    /// The workspace, deleted or not, for reading.
    pub(crate) async fn workspace_or_deleted(&mut self, id: &str) -> Result<Option<WorkspaceRow>, StoreError> {
        self.row(select_workspace!("WHERE id = $1"), &[id.into()]).await?.map(workspace).transpose()
    }

    /// The workspace, deleted or not, which nobody else changes until this transaction ends.
    pub(crate) async fn workspace_locked(&mut self, id: &str) -> Result<Option<WorkspaceRow>, StoreError> {
        self.run("UPDATE workspace SET saves = saves WHERE id = $1", &[id.into()]).await?;
        self.workspace_or_deleted(id).await
    }

    /// At most `limit` workspaces by id, those after `after`; deleted ones too if `deleted`.
    pub(crate) async fn workspaces(
        &mut self,
        after: &str,
        deleted: bool,
        limit: i64,
    ) -> Result<Vec<WorkspaceRow>, StoreError> {
        let sql = select_workspace!("WHERE id > $1 AND (delete_time = 0 OR $2 = 1) ORDER BY id LIMIT $3");
        self.rows(sql, &[after.into(), i64::from(deleted).into(), limit.into()])
            .await?
            .into_iter()
            .map(workspace)
            .collect()
    }

    /// How many data keys each master key wraps, the server's own included; by the master key's id.
    pub(crate) async fn key_references(&mut self) -> Result<Vec<(String, i64)>, StoreError> {
        let sql = "SELECT key_id, COUNT(*) FROM (SELECT key_id FROM workspace UNION ALL \
                   SELECT old_key_id FROM workspace WHERE old_key_id IS NOT NULL UNION ALL \
                   SELECT server_key_id FROM store_meta WHERE server_key_id IS NOT NULL) AS wrapped \
                   GROUP BY key_id ORDER BY key_id";
        self.rows(sql, &[]).await?.into_iter().map(|mut row| Ok((row.text(0)?, row.integer(1)?))).collect()
    }

    /// A workspace with a data key that this master key wraps.
    pub(crate) async fn workspace_wrapped_by(&mut self, key_id: &str) -> Result<Option<WorkspaceRow>, StoreError> {
        let sql = select_workspace!("WHERE key_id = $1 OR old_key_id = $1 LIMIT 1");
        self.row(sql, &[key_id.into()]).await?.map(workspace).transpose()
    }

    /// A workspace with a data key that another master key wraps.
    pub(crate) async fn workspace_not_wrapped_by(&mut self, key_id: &str) -> Result<Option<WorkspaceRow>, StoreError> {
        let sql = select_workspace!("WHERE key_id <> $1 OR old_key_id <> $1 LIMIT 1");
        self.row(sql, &[key_id.into()]).await?.map(workspace).transpose()
    }

    /// Adds a workspace.
    pub(crate) async fn workspace_insert(&mut self, row: &WorkspaceRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO workspace (id, uid, display_name, business_profile_id, revision, digest, key_id, \
                   wrapped_key, saves, create_time, update_time) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
        let values = [
            (&row.id).into(),
            (&row.uid).into(),
            (&row.display_name).into(),
            row.business_profile_id.into(),
            row.revision.into(),
            (&row.digest).into(),
            (&row.data_key.key_id).into(),
            (&row.data_key.wrapped).into(),
            row.saves.into(),
            row.create_time.into(),
            row.update_time.into(),
        ];
        self.run(sql, &values).await.map(drop)
    }

    /// Writes back what can change: name, revision, digest, level, data key, saves, update and delete time.
    pub(crate) async fn workspace_update(&mut self, row: &WorkspaceRow) -> Result<(), StoreError> {
        let sql = "UPDATE workspace SET display_name = $1, revision = $2, digest = $3, key_id = $4, wrapped_key = $5, \
                   saves = $6, update_time = $7, delete_time = $8, config_level = $9 WHERE id = $10";
        let values = [
            (&row.display_name).into(),
            row.revision.into(),
            (&row.digest).into(),
            (&row.data_key.key_id).into(),
            (&row.data_key.wrapped).into(),
            row.saves.into(),
            row.update_time.into(),
            row.delete_time.into(),
            i64::from(row.config_level).into(),
            (&row.id).into(),
        ];
        self.run(sql, &values).await.map(drop)
    }

    /// Sets the data key that the workspace had before, or deletes it.
    pub(crate) async fn old_data_key_set(&mut self, id: &str, old: Option<&DataKeyRow>) -> Result<(), StoreError> {
        let Some(old) = old else {
            let sql = "UPDATE workspace SET old_key_id = NULL, old_wrapped_key = NULL WHERE id = $1";
            return self.run(sql, &[id.into()]).await.map(drop);
        };
        let sql = "UPDATE workspace SET old_key_id = $1, old_wrapped_key = $2 WHERE id = $3";
        self.run(sql, &[(&old.key_id).into(), (&old.wrapped).into(), id.into()]).await.map(drop)
    }

    /// Forgets the changes before the revision that `row` stands at: who is behind gets a snapshot.
    pub(crate) async fn revisions_forget(&mut self, row: &WorkspaceRow) -> Result<(), StoreError> {
        let sql = "DELETE FROM revision WHERE workspace = $1 AND revision < $2";
        self.run(sql, &[(&row.id).into(), row.revision.into()]).await.map(drop)
    }

    /// Takes away a workspace that was deleted before `before` and holds no documents any more, with its revisions and outcomes, and
    /// leaves a tombstone; `true` when there may be more.
    pub(crate) async fn workspace_purge(&mut self, before: UnixMillis) -> Result<bool, StoreError> {
        let sql = select_workspace!(
            "WHERE delete_time > 0 AND delete_time <= $1 AND NOT EXISTS \
             (SELECT 1 FROM document WHERE document.workspace = workspace.id) LIMIT 1"
        );
        let Some(row) = self.row(sql, &[before.into()]).await?.map(workspace).transpose()? else { return Ok(false) };
        // Without documents nothing is in force but keys that may log in, and those of their tokens.
        self.run("DELETE FROM head WHERE workspace = $1", &[(&row.id).into()]).await?;
        self.run("DELETE FROM workspace WHERE id = $1", &[(&row.id).into()]).await?;
        let sql = "INSERT INTO tombstone (workspace, revision, delete_time) VALUES ($1, $2, $3)";
        let values = [(&row.id).into(), (row.revision + 1).into(), row.delete_time.into()];
        self.run(sql, &values).await.map(|_| true)
    }

    /// Takes away the tombstone of `id` and returns the revision to go on from; 0 when there is none.
    pub(crate) async fn tombstone_take(&mut self, id: &str) -> Result<i64, StoreError> {
        let row = self.row("DELETE FROM tombstone WHERE workspace = $1 RETURNING revision", &[id.into()]).await?;
        row.map_or(Ok(0), |mut row| row.integer(0))
    }

    /// Ids of the workspaces that are deleted, or were and have not been made again.
    pub(crate) async fn tombstones(&mut self) -> Result<Vec<String>, StoreError> {
        self.rows("SELECT workspace FROM tombstone UNION SELECT id FROM workspace WHERE delete_time > 0", &[])
            .await?
            .iter_mut()
            .map(|row| row.text(0))
            .collect()
    }

    /// Every workspace that is there and has published something.
    pub(crate) async fn revisions(&mut self) -> Result<Vec<RevisionRow>, StoreError> {
        let sql = "SELECT id, revision, digest, deletes_confirmed, config_level FROM workspace \
                   WHERE revision > 0 AND delete_time = 0";
        let read = |mut row: Row| {
            let (id, revision, digest) = (row.text(0)?, row.integer(1)?, row.blob(2)?);
            let (deletes_confirmed, config_level) = (row.integer(3)?, level(row.integer(4)?)?);
            Ok(RevisionRow { id, revision, digest, deletes_confirmed, config_level })
        };
        self.rows(sql, &[]).await?.into_iter().map(read).collect()
    }

    /// Revisions up to this one may take most of the workspace away.
    pub(crate) async fn deletes_confirm(&mut self, id: &str, revision: i64) -> Result<(), StoreError> {
        let sql = "UPDATE workspace SET deletes_confirmed = $1 WHERE id = $2";
        self.run(sql, &[revision.into(), id.into()]).await.map(drop)
    }

    /// Remembers that a data plane serves this revision with this digest, if the store cannot have made it: it holds older ones, or another
    /// content under its number. Whether it is so.
    pub(crate) async fn seen_ahead(&mut self, id: &str, revision: i64, digest: &[u8]) -> Result<bool, StoreError> {
        let sql = "UPDATE workspace SET seen_ahead = CASE WHEN seen_ahead > $1 THEN seen_ahead \
                   WHEN revision = $1 THEN $1 + 1 ELSE $1 END \
                   WHERE id = $2 AND (revision < $1 OR (revision = $1 AND digest <> $3))";
        Ok(self.run(sql, &[revision.into(), id.into(), digest.into()]).await? > 0)
    }

    /// At most `limit` ids of workspaces of which later revisions were seen than they have.
    pub(crate) async fn regressed(&mut self, limit: i64) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT id FROM workspace WHERE seen_ahead > revision AND delete_time = 0 ORDER BY id LIMIT $1";
        self.rows(sql, &[limit.into()]).await?.iter_mut().map(|row| row.text(0)).collect()
    }

    /// How many those are.
    pub(crate) async fn regressed_count(&mut self) -> Result<i64, StoreError> {
        let sql = "SELECT COUNT(*) FROM workspace WHERE seen_ahead > revision AND delete_time = 0";
        self.row(sql, &[]).await?.map_or(Ok(0), |mut row| row.integer(0))
    }

    /// Gives the store another name: what data planes hold of it is compared by content from now on.
    pub(crate) async fn epoch_start(&mut self, epoch: &str) -> Result<(), StoreError> {
        self.run("UPDATE workspace SET seen_ahead = 0", &[]).await?;
        self.run("UPDATE store_meta SET epoch = $1 WHERE id = 1", &[epoch.into()]).await.map(drop)
    }

    /// The name of this store.
    pub(crate) async fn epoch_now(&mut self) -> Result<String, StoreError> {
        let row = self.row("SELECT epoch FROM store_meta WHERE id = 1", &[]).await?;
        row.map_or(Err(StoreError::Corrupt("no epoch".to_owned())), |mut row| row.text(0))
    }

    /// Adds the revision that `row` stands at and forgets those that are too old.
    pub(crate) async fn revision_insert(
        &mut self,
        row: &WorkspaceRow,
        body: &[u8],
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO revision (workspace, revision, digest, body, commit_time) VALUES ($1, $2, $3, $4, $5)";
        let values = [(&row.id).into(), row.revision.into(), (&row.digest).into(), body.into(), now.into()];
        self.run(sql, &values).await?;
        let sql = "DELETE FROM revision WHERE workspace = $1 AND revision <= $2";
        self.run(sql, &[(&row.id).into(), (row.revision - REVISIONS_KEPT).into()]).await.map(drop)
    }

    /// The changes after `base` up to `head`, oldest first; fewer than asked for when some are forgotten.
    pub(crate) async fn changes(&mut self, workspace: &str, base: i64, head: i64) -> Result<Vec<Change>, StoreError> {
        let sql = "SELECT revision, body FROM revision WHERE workspace = $1 AND revision > $2 AND revision <= $3 \
                   ORDER BY revision";
        let rows = self.rows(sql, &[workspace.into(), base.into(), head.into()]).await?;
        rows.into_iter().map(|mut row| Ok(Change { revision: row.integer(0)?, body: row.blob(1)? })).collect()
    }

    /// The name of this store; a new one gets `fresh`.
    pub(crate) async fn epoch(&mut self, fresh: &str) -> Result<String, StoreError> {
        let sql = "INSERT INTO store_meta (id, epoch, business_profile_id, outcome_sequence) VALUES (1, $1, 0, 0) \
                   ON CONFLICT (id) DO NOTHING";
        self.run(sql, &[fresh.into()]).await?;
        self.epoch_now().await
    }

    /// A number no workspace has had.
    pub(crate) async fn business_profile_id_next(&mut self) -> Result<i64, StoreError> {
        let sql = "UPDATE store_meta SET business_profile_id = business_profile_id + 1 WHERE id = 1 \
                   RETURNING business_profile_id";
        let row = self.row(sql, &[]).await?;
        row.map_or(Err(StoreError::Corrupt("no store_meta".to_owned())), |mut row| row.integer(0))
    }

    /// The server's own key.
    pub(crate) async fn server_key(&mut self) -> Result<Option<ServerKeyRow>, StoreError> {
        let sql = "SELECT server_key_id, server_key, hash_key FROM store_meta WHERE id = 1";
        let Some(mut row) = self.row(sql, &[]).await? else { return Ok(None) };
        if row.is_null(0) {
            return Ok(None);
        }
        let key = DataKeyRow { key_id: row.text(0)?, wrapped: row.blob(1)? };
        Ok(Some(ServerKeyRow { key, hash_key: row.blob(2)? }))
    }

    /// Sets the server's own key.
    pub(crate) async fn server_key_set(&mut self, row: &ServerKeyRow) -> Result<(), StoreError> {
        let sql = "UPDATE store_meta SET server_key_id = $1, server_key = $2, hash_key = $3 WHERE id = 1";
        self.run(sql, &[(&row.key.key_id).into(), (&row.key.wrapped).into(), (&row.hash_key).into()]).await.map(drop)
    }
}
