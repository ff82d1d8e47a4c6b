//! A document as it is stored and as it is shown: drafts without secrets, sealed secrets beside them, and the fields only
//! the server writes. Hides how a draft is encoded and when it counts as changed.

use prost::Message as _;
use prost_types::Timestamp;
use sha2::{Digest as _, Sha256};
use sluice_core::snapshot::content_hash;
use sluice_proto::admin::v1::SchemaField;
use sluice_proto::sync::v1::{self as sync, SealedSecret};

use crate::clock::{UnixMillis, timestamp};
use crate::error::Failure;
use crate::names::Name;
use crate::resource::{Resource, Stamp, Versioned};
use crate::secrets::mark;
use crate::snippets;
use crate::store::{DocumentRow, Transaction};

/// A stored document of kind `R`.
#[derive(Clone, Debug)]
pub(crate) struct Stored<R> {
    pub(crate) row: DocumentRow,
    /// The draft, without the fields that only the server writes.
    pub(crate) draft: R,
    /// The draft's secrets.
    pub(crate) secrets: Vec<SealedSecret>,
}

/// The etag of the resource `uid` after `saves` changes.
pub(crate) fn etag(uid: &str, saves: i64) -> String {
    hex::encode(&Sha256::digest(format!("{uid} {saves}"))[..8])
}

/// How long what was deleted can come back (D30).
pub(crate) const KEPT_MILLIS: i64 = 30 * 24 * 3600 * 1000;

/// When something was deleted, as callers see it; `None` when it was not.
pub(crate) fn delete_time(deleted: UnixMillis) -> Option<Timestamp> {
    (deleted > 0).then(|| timestamp(deleted))
}

/// From when on it may be gone for good.
pub(crate) fn purge_time(deleted: UnixMillis) -> Option<Timestamp> {
    (deleted > 0).then(|| timestamp(deleted.saturating_add(KEPT_MILLIS)))
}

impl<R: Resource> Stored<R> {
    /// Loads the document `name` to change it.
    ///
    /// # Errors
    /// It is not there, is deleted, or `wanted_etag` is filled and not its etag.
    pub(crate) async fn load(tx: &mut Transaction, name: &Name, wanted_etag: &str) -> Result<Self, Failure> {
        let stored = Self::find(tx, name, wanted_etag).await?;
        if stored.is_deleted() { Err(Failure::Deleted(name.full.clone())) } else { Ok(stored) }
    }

    /// Loads the document `name`, deleted or not.
    ///
    /// # Errors
    /// It is not there, or `wanted_etag` is filled and not its etag.
    pub(crate) async fn find(tx: &mut Transaction, name: &Name, wanted_etag: &str) -> Result<Self, Failure> {
        let row = tx.document(&name.workspace, &name.full).await?;
        let stored = Self::of(row.ok_or_else(|| Failure::NotFound(name.full.clone()))?)?;
        if !wanted_etag.is_empty() && wanted_etag != stored.etag() {
            return Err(Failure::EtagMismatch(name.full.clone()));
        }
        Ok(stored)
    }

    /// Reads a row.
    pub(crate) fn of(row: DocumentRow) -> Result<Self, Failure> {
        let (draft, secrets) = decode(&row.draft)?;
        Ok(Self { row, draft, secrets })
    }

    /// A new document; it gets its draft with [`Stored::save`].
    pub(crate) fn new(name: &Name, uid: String, now: UnixMillis) -> Self {
        let row = DocumentRow {
            name: name.full.clone(),
            workspace: name.workspace.clone(),
            collection: R::COLLECTION.to_owned(),
            uid,
            saves: 0,
            draft: Vec::new(),
            draft_hash: Vec::new(),
            last_version: 0,
            published_version: 0,
            published_hash: Vec::new(),
            create_time: now,
            update_time: now,
            delete_time: 0,
        };
        Self { row, draft: R::default(), secrets: Vec::new() }
    }

    /// Takes a draft over. Its secrets were sealed for the save after the last one.
    pub(crate) fn save(&mut self, draft: R, secrets: Vec<SealedSecret>, now: UnixMillis) {
        self.draft = draft;
        self.reseal(secrets);
        self.touch(now);
    }

    /// Takes other sealed secrets over. The same ones sealed anew are no change.
    pub(crate) fn reseal(&mut self, secrets: Vec<SealedSecret>) {
        self.secrets = secrets;
        self.row.draft = self.encoded(self.draft.clone(), 0, self.secrets.clone()).encode_to_vec();
        let mut versioned = self.draft.clone();
        drop_icon(&mut versioned);
        self.row.draft_hash = content_hash(&self.encoded(versioned, 0, self.secrets.clone())).to_vec();
    }

    /// Counts a change.
    pub(crate) fn touch(&mut self, now: UnixMillis) {
        self.row.saves += 1;
        self.row.update_time = now;
    }

    /// Notes the version of the schema template that is in force with it.
    pub(crate) fn pin(&mut self, version: i64)
    where
        R: Versioned,
    {
        self.draft.pin(version);
        let secrets = std::mem::take(&mut self.secrets);
        self.reseal(secrets);
    }

    /// Puts the draft in force under the next version number, with the form that its steps fill in, and returns it as data planes
    /// get it.
    pub(crate) fn put_in_force(&mut self, form: Vec<SchemaField>) -> sync::Resource {
        self.row.last_version = if R::IMMEDIATE { self.row.saves } else { self.row.last_version + 1 };
        self.row.published_version = self.row.last_version;
        self.row.published_hash.clone_from(&self.row.draft_hash);
        let mut document = self.draft.clone();
        document.embed(form);
        drop_icon(&mut document);
        document.stamp(Stamp {
            name: self.row.name.clone(),
            uid: self.row.uid.clone(),
            version: self.row.published_version,
            ..Stamp::default()
        });
        self.encoded(document, self.row.published_version, self.secrets.clone())
    }

    /// Gives what is in force other secrets under the same version, and returns it as data planes get it.
    pub(crate) fn refresh_in_force(
        &mut self,
        in_force: sync::Resource,
        change: impl FnOnce(&[SealedSecret]) -> Vec<SealedSecret>,
    ) -> Result<sync::Resource, Failure> {
        let version = in_force.version;
        let (mut document, secrets) = open::<R>(in_force)?;
        let secrets = change(&secrets);
        mark(&mut document, &secrets);
        Ok(self.stay_in_force(version, document, secrets))
    }

    /// Changes what the server made in what is in force, under the same version, and returns it as data planes get it.
    pub(crate) fn amend_in_force(
        &mut self,
        in_force: sync::Resource,
        change: impl FnOnce(&mut R),
    ) -> Result<sync::Resource, Failure> {
        let version = in_force.version;
        let (mut document, secrets) = open::<R>(in_force)?;
        change(&mut document);
        Ok(self.stay_in_force(version, document, secrets))
    }

    fn stay_in_force(&mut self, version: i64, document: R, secrets: Vec<SealedSecret>) -> sync::Resource {
        let mut draft = document.clone();
        draft.embed(Vec::new());
        draft.stamp(Stamp::default());
        self.row.published_hash = content_hash(&self.encoded(draft, 0, secrets.clone())).to_vec();
        self.encoded(document, version, secrets)
    }

    /// Takes it out of force; its version numbers go on.
    pub(crate) fn take_out_of_force(&mut self) {
        self.row.published_version = 0;
        self.row.published_hash.clear();
    }

    /// It is deleted and waits to be purged.
    pub(crate) fn is_deleted(&self) -> bool {
        self.row.delete_time > 0
    }

    /// A version is in force.
    pub(crate) fn is_published(&self) -> bool {
        self.row.published_version > 0
    }

    /// The draft is what is in force.
    pub(crate) fn is_in_force(&self) -> bool {
        self.row.published_hash == self.row.draft_hash
    }

    /// Changes with every change.
    pub(crate) fn etag(&self) -> String {
        etag(&self.row.uid, self.row.saves)
    }

    /// What this draft uses, by name.
    pub(crate) fn targets(&self) -> Vec<String> {
        let snippets = self.draft.snippets().into_iter().map(|id| snippets::name(&self.row.workspace, &id));
        self.draft.references().into_iter().map(|(_, target)| target).chain(snippets).collect()
    }

    /// As callers see it among others.
    pub(crate) fn listed(&self) -> R {
        let mut shown = self.present();
        if let Some((icon, _)) = shown.icon() {
            icon.clear();
        }
        shown
    }

    /// As callers see it.
    pub(crate) fn present(&self) -> R {
        let mut shown = self.draft.clone();
        shown.stamp(Stamp {
            name: self.row.name.clone(),
            uid: self.row.uid.clone(),
            etag: self.etag(),
            create_time: Some(timestamp(self.row.create_time)),
            update_time: Some(timestamp(self.row.update_time)),
            version: self.row.published_version,
            has_unpublished_changes: !self.is_in_force(),
            delete_time: delete_time(self.row.delete_time),
            purge_time: purge_time(self.row.delete_time),
        });
        shown
    }

    fn encoded(&self, document: R, version: i64, secrets: Vec<SealedSecret>) -> sync::Resource {
        sync::Resource { name: self.row.name.clone(), version, document: Some(document.into_document()), secrets }
    }
}

/// Takes away what is no part of versions and not for data planes.
pub(crate) fn drop_icon<R: Resource>(document: &mut R) {
    if let Some((icon, icon_type)) = document.icon() {
        icon.clear();
        icon_type.clear();
    }
}

/// The document and its secrets in an encoded `sync.v1.Resource`.
pub(crate) fn decode<R: Resource>(bytes: &[u8]) -> Result<(R, Vec<SealedSecret>), Failure> {
    open(sync::Resource::decode(bytes).map_err(|_| unreadable::<R>())?)
}

fn open<R: Resource>(resource: sync::Resource) -> Result<(R, Vec<SealedSecret>), Failure> {
    let document = resource.document.and_then(R::from_document).ok_or_else(unreadable::<R>)?;
    Ok((document, resource.secrets))
}

fn unreadable<R: Resource>() -> Failure {
    Failure::Internal(format!("a stored {} cannot be read", R::FIELD))
}
