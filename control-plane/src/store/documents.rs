//! Documents: drafts, versions, what is in force, and who uses whom.

use super::workspaces::level;
use super::{Row, StoreError, Transaction};
use crate::clock::UnixMillis;

/// A document as stored.
#[derive(Clone, Debug)]
pub(crate) struct DocumentRow {
    pub(crate) name: String,
    /// The id of its workspace.
    pub(crate) workspace: String,
    pub(crate) collection: String,
    pub(crate) uid: String,
    /// Counts every change.
    pub(crate) saves: i64,
    /// An encoded `sync.v1.Resource`.
    pub(crate) draft: Vec<u8>,
    pub(crate) draft_hash: Vec<u8>,
    /// The last version number given.
    pub(crate) last_version: i64,
    /// 0 when none is in force.
    pub(crate) published_version: i64,
    /// `draft_hash` of the version in force; empty when none is.
    pub(crate) published_hash: Vec<u8>,
    pub(crate) create_time: UnixMillis,
    pub(crate) update_time: UnixMillis,
    /// 0 when it is not deleted.
    pub(crate) delete_time: UnixMillis,
}

/// A published version, without its content in lists.
#[derive(Clone, Debug)]
pub(crate) struct VersionRow {
    pub(crate) version: i64,
    /// An encoded `sync.v1.Resource` without secrets; empty in lists.
    pub(crate) resource: Vec<u8>,
    pub(crate) create_time: UnixMillis,
}

/// One end of a reference, seen from the other.
#[derive(Clone, Debug)]
pub(crate) struct UsageRow {
    pub(crate) name: String,
    pub(crate) in_draft: bool,
    pub(crate) in_force: bool,
}

/// What is in force under a name.
#[derive(Clone, Debug)]
pub(crate) struct HeadRow {
    pub(crate) name: String,
    /// An encoded `sync.v1.Resource`.
    pub(crate) resource: Vec<u8>,
    pub(crate) content_hash: Vec<u8>,
    /// Which level of configuration data planes must understand to serve it.
    pub(crate) config_level: i32,
}

macro_rules! select_document {
    ($tail:literal) => {
        concat!(
            "SELECT name, workspace, collection, uid, saves, draft, draft_hash, last_version, published_version, ",
            "published_hash, create_time, update_time, delete_time FROM document ",
            $tail
        )
    };
}

fn document(mut row: Row) -> Result<DocumentRow, StoreError> {
    Ok(DocumentRow {
        name: row.text(0)?,
        workspace: row.text(1)?,
        collection: row.text(2)?,
        uid: row.text(3)?,
        saves: row.integer(4)?,
        draft: row.blob(5)?,
        draft_hash: row.blob(6)?,
        last_version: row.integer(7)?,
        published_version: row.integer(8)?,
        published_hash: row.blob(9)?,
        create_time: row.integer(10)?,
        update_time: row.integer(11)?,
        delete_time: row.integer(12)?,
    })
}

impl Transaction {
    /// The document `name` of the workspace with the id `workspace`, deleted or not.
    pub(crate) async fn document(&mut self, workspace: &str, name: &str) -> Result<Option<DocumentRow>, StoreError> {
        let sql = select_document!("WHERE name = $1 AND workspace = $2");
        self.row(sql, &[name.into(), workspace.into()]).await?.map(document).transpose()
    }

    /// At most `limit` documents of a collection by name, those after `after`; deleted ones too if `deleted`.
    pub(crate) async fn documents(
        &mut self,
        workspace: &str,
        collection: &str,
        after: &str,
        deleted: bool,
        limit: i64,
    ) -> Result<Vec<DocumentRow>, StoreError> {
        let sql = select_document!(
            "WHERE workspace = $1 AND collection = $2 AND name > $3 AND (delete_time = 0 OR $4 = 1) ORDER BY name LIMIT $5"
        );
        let deleted = i64::from(deleted);
        let values = [workspace.into(), collection.into(), after.into(), deleted.into(), limit.into()];
        self.rows(sql, &values).await?.into_iter().map(document).collect()
    }

    /// Names of at most `limit` documents of the workspace that are not deleted.
    pub(crate) async fn document_names(&mut self, workspace: &str, limit: i64) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT name FROM document WHERE workspace = $1 AND delete_time = 0 ORDER BY name LIMIT $2";
        self.rows(sql, &[workspace.into(), limit.into()]).await?.iter_mut().map(|row| row.text(0)).collect()
    }

    /// Adds the document or replaces what can change of it.
    pub(crate) async fn document_put(&mut self, row: &DocumentRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO document (name, workspace, collection, uid, saves, draft, draft_hash, last_version, \
                   published_version, published_hash, create_time, update_time, delete_time) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
                   ON CONFLICT (name) DO UPDATE SET saves = excluded.saves, draft = excluded.draft, \
                   draft_hash = excluded.draft_hash, last_version = excluded.last_version, \
                   published_version = excluded.published_version, published_hash = excluded.published_hash, \
                   update_time = excluded.update_time, delete_time = excluded.delete_time";
        let values = [
            (&row.name).into(),
            (&row.workspace).into(),
            (&row.collection).into(),
            (&row.uid).into(),
            row.saves.into(),
            (&row.draft).into(),
            (&row.draft_hash).into(),
            row.last_version.into(),
            row.published_version.into(),
            (&row.published_hash).into(),
            row.create_time.into(),
            row.update_time.into(),
            row.delete_time.into(),
        ];
        self.run(sql, &values).await.map(drop)
    }

    /// Takes away at most `limit` documents that were deleted before `before`, with their versions; `true` when there may be more.
    pub(crate) async fn documents_purge(&mut self, before: UnixMillis, limit: i64) -> Result<bool, StoreError> {
        let sql = "DELETE FROM document WHERE name IN (SELECT name FROM document \
                   WHERE delete_time > 0 AND delete_time <= $1 ORDER BY delete_time LIMIT $2)";
        Ok(self.run(sql, &[before.into(), limit.into()]).await? >= limit.unsigned_abs())
    }

    /// Adds a published version, which never changes again; without secrets.
    pub(crate) async fn version_insert(
        &mut self,
        document: &str,
        version: i64,
        resource: &[u8],
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO version (document, version, resource, create_time) VALUES ($1, $2, $3, $4)";
        self.run(sql, &[document.into(), version.into(), resource.into(), now.into()]).await.map(drop)
    }

    /// Takes away the versions of a document up to this number.
    pub(crate) async fn versions_purge(&mut self, document: &str, up_to: i64) -> Result<(), StoreError> {
        let sql = "DELETE FROM version WHERE document = $1 AND version <= $2";
        self.run(sql, &[document.into(), up_to.into()]).await.map(drop)
    }

    /// Takes away at most `limit` versions that are not among the newest `kept` of their document and not in force; `true` when there
    /// may be more.
    pub(crate) async fn versions_sweep(&mut self, kept: i64, limit: i64) -> Result<bool, StoreError> {
        let sql = "DELETE FROM version WHERE (document, version) IN (SELECT v.document, v.version FROM document AS d \
                   JOIN version AS v ON v.document = d.name AND v.version <= d.last_version - $1 \
                   WHERE v.version <> d.published_version LIMIT $2)";
        Ok(self.run(sql, &[kept.into(), limit.into()]).await? >= limit.unsigned_abs())
    }

    /// At most `limit` versions of a document with numbers below `before`, the newest first.
    pub(crate) async fn versions(
        &mut self,
        document: &str,
        before: i64,
        limit: i64,
    ) -> Result<Vec<VersionRow>, StoreError> {
        let sql = "SELECT version, create_time FROM version WHERE document = $1 AND version < $2 \
                   ORDER BY version DESC LIMIT $3";
        let rows = self.rows(sql, &[document.into(), before.into(), limit.into()]).await?;
        let of = |mut row: Row| {
            Ok(VersionRow { version: row.integer(0)?, resource: Vec::new(), create_time: row.integer(1)? })
        };
        rows.into_iter().map(of).collect()
    }

    /// One version of a document.
    pub(crate) async fn version(&mut self, document: &str, number: i64) -> Result<Option<VersionRow>, StoreError> {
        let sql = "SELECT version, resource, create_time FROM version WHERE document = $1 AND version = $2";
        let row = self.row(sql, &[document.into(), number.into()]).await?;
        let of = |mut row: Row| {
            Ok(VersionRow { version: row.integer(0)?, resource: row.blob(1)?, create_time: row.integer(2)? })
        };
        row.map(of).transpose()
    }

    /// Puts `head` in force in the workspace.
    pub(crate) async fn head_put(&mut self, workspace: &str, head: &HeadRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO head (name, workspace, resource, content_hash, config_level) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (name) DO UPDATE SET resource = excluded.resource, content_hash = excluded.content_hash, \
                   config_level = excluded.config_level";
        let values = [
            (&head.name).into(),
            workspace.into(),
            (&head.resource).into(),
            (&head.content_hash).into(),
            i64::from(head.config_level).into(),
        ];
        self.run(sql, &values).await.map(drop)
    }

    /// Takes `name` out of force.
    pub(crate) async fn head_delete(&mut self, name: &str) -> Result<(), StoreError> {
        self.run("DELETE FROM head WHERE name = $1", &[name.into()]).await.map(drop)
    }

    /// What is in force under `name` in the workspace: an encoded `sync.v1.Resource`.
    pub(crate) async fn head(&mut self, workspace: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT resource FROM head WHERE name = $1 AND workspace = $2";
        self.row(sql, &[name.into(), workspace.into()]).await?.map(|mut row| row.blob(0)).transpose()
    }

    /// Everything in force in the workspace by name, encoded.
    pub(crate) async fn heads(&mut self, workspace: &str) -> Result<Vec<Vec<u8>>, StoreError> {
        let sql = "SELECT resource FROM head WHERE workspace = $1 ORDER BY name";
        self.rows(sql, &[workspace.into()]).await?.iter_mut().map(|row| row.blob(0)).collect()
    }

    /// Names and hashes of everything in force in the workspace.
    pub(crate) async fn head_hashes(&mut self, workspace: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let rows = self.rows("SELECT name, content_hash FROM head WHERE workspace = $1", &[workspace.into()]).await?;
        rows.into_iter().map(|mut row| Ok((row.text(0)?, row.blob(1)?))).collect()
    }

    /// The highest level of configuration that something in force in the workspace needs; `None`: all of it needs the first.
    pub(crate) async fn head_level(&mut self, workspace: &str) -> Result<Option<i32>, StoreError> {
        let sql = "SELECT MAX(config_level) FROM head WHERE workspace = $1 AND config_level > 1";
        let row = self.row(sql, &[workspace.into()]).await?.filter(|row| !row.is_null(0));
        row.map(|mut row| level(row.integer(0)?)).transpose()
    }

    /// At most `limit` of what is in force in the workspace and needs more than this level, by name: its name, and it as it is encoded.
    pub(crate) async fn heads_above(
        &mut self,
        workspace: &str,
        level: i32,
        limit: i64,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let sql = "SELECT name, resource FROM head WHERE workspace = $1 AND config_level > 1 AND config_level > $2 \
                   ORDER BY name LIMIT $3";
        let rows = self.rows(sql, &[workspace.into(), i64::from(level).into(), limit.into()]).await?;
        rows.into_iter().map(|mut row| Ok((row.text(0)?, row.blob(1)?))).collect()
    }

    /// Sets what `source` uses, by its draft or by its version in force.
    pub(crate) async fn references_set(
        &mut self,
        source: &str,
        published: bool,
        targets: &[String],
    ) -> Result<(), StoreError> {
        let published = i64::from(published);
        let sql = "DELETE FROM reference WHERE source = $1 AND published = $2";
        self.run(sql, &[source.into(), published.into()]).await?;
        for target in targets {
            let sql = "INSERT INTO reference (source, target, published) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
            self.run(sql, &[source.into(), target.into(), published.into()]).await?;
        }
        Ok(())
    }

    /// Who uses `target`: at most `limit` names. `published_only` leaves out those whose draft alone uses it.
    pub(crate) async fn users(
        &mut self,
        target: &str,
        published_only: bool,
        limit: i64,
    ) -> Result<Vec<String>, StoreError> {
        let sql =
            "SELECT DISTINCT source FROM reference WHERE target = $1 AND published >= $2 ORDER BY source LIMIT $3";
        let values = [target.into(), i64::from(published_only).into(), limit.into()];
        self.rows(sql, &values).await?.iter_mut().map(|row| row.text(0)).collect()
    }

    /// At most `limit` of those that use `target`, by name, those after `after`.
    pub(crate) async fn usages_of(
        &mut self,
        target: &str,
        after: &str,
        limit: i64,
    ) -> Result<Vec<UsageRow>, StoreError> {
        let sql = "SELECT source, MIN(published), MAX(published) FROM reference WHERE target = $1 AND source > $2 \
                   GROUP BY source ORDER BY source LIMIT $3";
        let rows = self.rows(sql, &[target.into(), after.into(), limit.into()]).await?;
        rows.into_iter().map(usage).collect()
    }

    /// At most `limit` of those that `source` uses, by name, those after `after`.
    pub(crate) async fn usages_by(
        &mut self,
        source: &str,
        after: &str,
        limit: i64,
    ) -> Result<Vec<UsageRow>, StoreError> {
        let sql = "SELECT target, MIN(published), MAX(published) FROM reference WHERE source = $1 AND target > $2 \
                   GROUP BY target ORDER BY target LIMIT $3";
        let rows = self.rows(sql, &[source.into(), after.into(), limit.into()]).await?;
        rows.into_iter().map(usage).collect()
    }
}

/// References by drafts are 0, those by what is in force 1.
fn usage(mut row: Row) -> Result<UsageRow, StoreError> {
    Ok(UsageRow { name: row.text(0)?, in_draft: row.integer(1)? == 0, in_force: row.integer(2)? == 1 })
}
