//! From a draft to what every data plane serves. This is the only place that moves a workspace's revision.

use std::collections::BTreeMap;

use prost::Message as _;
use sluice_core::snapshot::{content_hash, digest};
use sluice_core::validate::Violation;
use sluice_proto::sync::v1::{self as sync, WorkspaceBody};

use crate::call::{Begun, Call};
use crate::clock::UnixMillis;
use crate::error::{Failure, violation};
use crate::lifecycle::{answer, lock, refuse_used};
use crate::names;
use crate::resource::Resource;
use crate::shared::Shared;
use crate::store::{HeadRow, StoreError, Transaction, WorkspaceRow};
use crate::stored::Stored;
use crate::together;

/// Makes the draft an immutable version and puts it in force everywhere. What is in force already stays as it is.
///
/// draft → all rules → version → in force, revision + 1, the encoded change → committed → the reconciler
/// ([`crate::snapshots`]) wakes, re-reads and hands it to every data plane's session ([`crate::session`]).
pub(crate) async fn publish<R: Resource>(shared: &Shared, call: Call, name: &str, etag: &str) -> Result<R, Failure> {
    let name = names::parse(name, R::COLLECTION, "name")?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let mut workspace = lock(&mut change, &name.workspace, &name.full).await?;
    let mut stored = Stored::<R>::load(&mut change.tx, &name, etag).await?;
    if !stored.is_in_force() {
        check(shared, &mut change.tx, &stored).await?;
        let (tx, now) = (&mut change.tx, change.now);
        stored.touch(now);
        let resource = stored.put_in_force();
        tx.document_put(&stored.row).await?;
        // Secrets do not belong to versions: one that comes back gets those of then, and never one that was retired (K13).
        let version = sync::Resource { secrets: Vec::new(), ..resource.clone() };
        tx.version_insert(&name.full, resource.version, &version.encode_to_vec(), now).await?;
        tx.references_set(&name.full, true, &stored.targets()).await?;
        commit_revision(tx, &mut workspace, vec![resource], Vec::new(), now).await?;
    }
    answer(shared, change, &stored).await
}

/// Takes a published document out of force everywhere, unless something in force uses it.
pub(crate) async fn unpublish<R: Resource>(shared: &Shared, call: Call, name: &str, etag: &str) -> Result<R, Failure> {
    let name = names::parse(name, R::COLLECTION, "name")?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let mut workspace = lock(&mut change, &name.workspace, &name.full).await?;
    let mut stored = Stored::<R>::load(&mut change.tx, &name, etag).await?;
    if !stored.is_published() {
        return Err(Failure::NotPublished(name.full));
    }
    refuse_used(&mut change.tx, &name.full, true).await?;
    stored.touch(change.now);
    stored.take_out_of_force();
    change.tx.document_put(&stored.row).await?;
    change.tx.references_set(&name.full, true, &[]).await?;
    commit_revision(&mut change.tx, &mut workspace, Vec::new(), vec![name.full], change.now).await?;
    answer(shared, change, &stored).await
}

/// Moves the workspace to its next revision: what is in force, its digest, and the encoded change for data planes, which is
/// made here once and never again. The caller holds the workspace's row and commits.
pub(crate) async fn commit_revision(
    tx: &mut Transaction,
    workspace: &mut WorkspaceRow,
    upserts: Vec<sync::Resource>,
    deletes: Vec<String>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    for resource in &upserts {
        let head = HeadRow {
            name: resource.name.clone(),
            resource: resource.encode_to_vec(),
            content_hash: content_hash(resource).to_vec(),
        };
        tx.head_put(&workspace.id, &head).await?;
    }
    for name in &deletes {
        tx.head_delete(name).await?;
    }
    let mut hashes = BTreeMap::new();
    for (name, hash) in tx.head_hashes(&workspace.id).await? {
        let hash: [u8; 32] =
            hash.try_into().map_err(|_| StoreError::Corrupt(format!("the hash of {name} is not SHA-256")))?;
        hashes.insert(name, hash);
    }
    workspace.digest = digest(hashes.iter().map(|(name, hash)| (name.as_str(), hash))).to_vec();
    workspace.revision += 1;
    tx.workspace_update(workspace).await?;
    let body = WorkspaceBody { upserts, deletes, ..frame(workspace) };
    tx.revision_insert(workspace, &body.encode_to_vec(), now).await
}

/// What every change and every snapshot of a workspace carries beside resources.
pub(crate) fn frame(workspace: &WorkspaceRow) -> WorkspaceBody {
    WorkspaceBody {
        business_profile_id: workspace.business_profile_id,
        data_key: Some(sync::WrappedKey {
            key_id: workspace.key_id.clone(),
            ciphertext: workspace.wrapped_key.clone().into(),
        }),
        ..WorkspaceBody::default()
    }
}

/// Every rule a document must keep to be in force: its own, that what it refers to is in force, and that it holds together
/// with the workflows that use it.
async fn check<R: Resource>(shared: &Shared, tx: &mut Transaction, stored: &Stored<R>) -> Result<(), Failure> {
    let workspace = &stored.row.workspace;
    let mut found = stored.draft.violations(&shared.settings.urls);
    for (field, target) in stored.draft.references() {
        if tx.head(workspace, &target).await?.is_none() {
            found.push(violation(&field, "NOT_PUBLISHED", format!("`{target}` is not published")));
        }
    }
    let document = stored.draft.clone().into_document();
    let name = &stored.row.name;
    found.extend(together::broken(shared, tx, workspace, &document, None).await?);
    for broken in together::broken_users(shared, tx, workspace, name, &document).await? {
        found.push(Violation { field: "request".to_owned(), ..broken });
    }
    if found.is_empty() { Ok(()) } else { Err(Failure::Draft { name: name.clone(), violations: found }) }
}
