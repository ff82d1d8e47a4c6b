//! From a draft to what every data plane serves. This is the only place that moves a workspace's revision.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use sluice_core::snapshot::{content_hash, digest};
use sluice_core::validate::Violation;
use sluice_proto::admin::v1::{
    DraftToPublish, IncomingIntegration, OutgoingIntegration, PublishDraftsRequest, PublishDraftsResponse,
    PublishedDraft, SchemaTemplate, Snippet, Workflow,
};
use sluice_proto::sync::v1::resource::Document;
use sluice_proto::sync::v1::{self as sync, WorkspaceBody};

use crate::call::{Begun, Call, Change};
use crate::clock::UnixMillis;
use crate::error::{Failure, violation};
use crate::forms;
use crate::levels;
use crate::lifecycle::{answer, lock, refuse_used};
use crate::login_keys;
use crate::names;
use crate::resource::{Resource, Versioned, of_published_kind};
use crate::shared::Shared;
use crate::store::{HeadRow, StoreError, Transaction, WorkspaceRow};
use crate::stored::Stored;
use crate::together;

/// Most drafts that are published together.
const TOGETHER_MAX: usize = 200;

/// Makes the draft an immutable version and puts it in force everywhere. What is in force already stays as it is.
///
/// draft → version → in force, revision + 1, the encoded change → all rules, as it would be → committed → the reconciler
/// ([`crate::snapshots`]) wakes, re-reads and hands it to every data plane's session ([`crate::session`]).
pub(crate) async fn publish<R: Versioned>(shared: &Shared, call: Call, name: &str, etag: &str) -> Result<R, Failure> {
    let name = names::parse(name, R::COLLECTION, "name")?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let mut workspace = lock(&mut change, &name.workspace, &name.full).await?;
    let mut stored = Stored::<R>::load(&mut change.tx, &name, etag).await?;
    put_in_force(shared, &mut change, &mut workspace, &mut stored).await?;
    answer(shared, change, &stored).await
}

/// Publishes several drafts in one revision: all of them or none.
pub(crate) async fn publish_together(
    shared: &Shared,
    call: Call,
    asked: PublishDraftsRequest,
) -> Result<PublishDraftsResponse, Failure> {
    let workspace = names::workspace_id(&asked.parent, "parent")?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let mut workspace = lock(&mut change, &workspace, &asked.parent).await?;
    refuse_list(&asked.drafts)?;
    let (mut published, mut staged) = (BTreeMap::new(), Vec::new());
    // Integrations take the version of their schema template that comes into force with them.
    let mut drafts: Vec<(usize, &DraftToPublish)> = asked.drafts.iter().enumerate().collect();
    let is_schema = |name: &str| names::split(name).is_some_and(|(_, kind, _)| kind == SchemaTemplate::COLLECTION);
    drafts.sort_by_key(|(_, draft)| !is_schema(&draft.name));
    for (index, draft) in drafts {
        let field = format!("drafts[{index}].name");
        let parts = names::split(&draft.name).filter(|(of, _, _)| *of == workspace.id);
        let collection = parts.map(|(_, collection, _)| collection);
        let (answer, draft) = of_published_kind!(collection, stage_named(shared, &mut change, draft), field)?;
        published.insert(index, answer);
        staged.extend(draft.map(|draft| (index, draft)));
    }
    let (places, staged): (Vec<usize>, Vec<Staged>) = staged.into_iter().unzip();
    let broken = enforce(shared, &mut change, &mut workspace, staged).await?;
    change.found.extend(broken.into_iter().map(|(at, name, broken)| {
        let place = places.get(at).copied().unwrap_or_default();
        let field = format!("drafts[{place}].{}", broken.field);
        Violation { field, message: format!("in `{name}`: {}", broken.message), ..broken }
    }));
    let published = published.into_values().collect();
    change.finish(shared, PublishDraftsResponse { revision: workspace.revision, published }).await
}

fn refuse_list(drafts: &[DraftToPublish]) -> Result<(), Failure> {
    let mut found = Vec::new();
    if !(1..=TOGETHER_MAX).contains(&drafts.len()) {
        let message = format!("has {} entries; it must have 1 to {TOGETHER_MAX}", drafts.len());
        found.push(violation("drafts", "OUT_OF_RANGE", message));
    }
    let mut seen = BTreeSet::new();
    for (index, draft) in drafts.iter().take(TOGETHER_MAX).enumerate() {
        if !seen.insert(&draft.name) {
            found.push(violation(&format!("drafts[{index}].name"), "REPEATED", "is named before"));
        }
    }
    if found.is_empty() { Ok(()) } else { Err(Failure::Fields(found)) }
}

/// A draft that has become a version and is to be in force.
struct Staged {
    /// As data planes get it.
    resource: sync::Resource,
    /// They do get it.
    in_revisions: bool,
    /// The draft, and what it refers to.
    document: Document,
    references: Vec<(String, String)>,
}

/// Stages the draft with this name.
async fn stage_named<R: Versioned>(
    shared: &Shared,
    change: &mut Change,
    draft: &DraftToPublish,
) -> Result<(PublishedDraft, Option<Staged>), Failure> {
    let name = names::parse(&draft.name, R::COLLECTION, "name")?;
    let mut stored = Stored::<R>::load(&mut change.tx, &name, &draft.etag).await?;
    let staged = stage(shared, change, &mut stored).await?;
    let etag = if change.validate_only() { String::new() } else { stored.etag() };
    Ok((PublishedDraft { name: name.full, version: stored.row.published_version, etag }, staged))
}

/// Makes the draft a version, unless it is in force already.
async fn stage<R: Versioned>(
    shared: &Shared,
    change: &mut Change,
    stored: &mut Stored<R>,
) -> Result<Option<Staged>, Failure> {
    let (tx, now) = (&mut change.tx, change.now);
    let (schema_template, pinned) = stored.draft.schema_template();
    let form = forms::in_force(tx, &stored.row.workspace, schema_template).await?;
    // A later version of its form is a change too.
    if stored.is_in_force() && form.version == pinned {
        return Ok(None);
    }
    stored.touch(now);
    stored.pin(form.version);
    let resource = stored.put_in_force(form.fields.clone());
    tx.document_put(&stored.row).await?;
    // Secrets do not belong to versions: one that comes back gets those of then, and never one that was retired (K13).
    let version = sync::Resource { secrets: Vec::new(), ..resource.clone() };
    tx.version_insert(&stored.row.name, resource.version, &version.encode_to_vec(), now).await?;
    tx.versions_purge(&stored.row.name, resource.version - i64::from(shared.settings.versions_kept.get())).await?;
    tx.references_set(&stored.row.name, true, &stored.targets()).await?;
    let (references, mut document) = (stored.draft.references(), stored.draft.clone());
    document.embed(form.fields);
    Ok(Some(Staged { resource, in_revisions: R::IN_REVISIONS, document: document.into_document(), references }))
}

/// Puts one draft in force, or refuses it by name.
pub(crate) async fn put_in_force<R: Versioned>(
    shared: &Shared,
    change: &mut Change,
    workspace: &mut WorkspaceRow,
    stored: &mut Stored<R>,
) -> Result<(), Failure> {
    let staged = stage(shared, change, stored).await?;
    let broken = enforce(shared, change, workspace, staged.into_iter().collect()).await?;
    if broken.is_empty() {
        return Ok(());
    }
    let violations = broken.into_iter().map(|(_, _, broken)| broken).collect();
    Err(Failure::Draft { name: stored.row.name.clone(), violations })
}

/// Moves the workspace to the revision in which all of `staged` are in force, and returns every rule that would be broken in it:
/// the place in `staged`, the document's name and the rule. With a broken rule the change must not be finished.
async fn enforce(
    shared: &Shared,
    change: &mut Change,
    workspace: &mut WorkspaceRow,
    staged: Vec<Staged>,
) -> Result<Vec<(usize, String, Violation)>, Failure> {
    if staged.is_empty() {
        return Ok(Vec::new());
    }
    let upserts: Vec<_> =
        staged.iter().filter(|staged| staged.in_revisions).map(|staged| staged.resource.clone()).collect();
    let moves = !upserts.is_empty();
    if moves {
        commit_revision(&mut change.tx, workspace, upserts, Vec::new(), change.now).await?;
    }
    let together: BTreeSet<String> = staged.iter().map(|staged| staged.resource.name.clone()).collect();
    let mut found = Vec::new();
    for (at, staged) in staged.into_iter().enumerate() {
        let name = staged.resource.name.clone();
        let broken = check(shared, &mut change.tx, &workspace.id, staged, &together).await?;
        found.extend(broken.into_iter().map(|broken| (at, name.clone(), broken)));
    }
    if moves && found.is_empty() {
        levels::refuse_older(shared, change, workspace).await?;
    }
    Ok(found)
}

/// Takes a published document out of force everywhere, unless something in force uses it.
pub(crate) async fn unpublish<R: Versioned>(shared: &Shared, call: Call, name: &str, etag: &str) -> Result<R, Failure> {
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
    stored.pin(0);
    stored.take_out_of_force();
    change.tx.document_put(&stored.row).await?;
    change.tx.references_set(&name.full, true, &[]).await?;
    if R::IN_REVISIONS {
        commit_revision(&mut change.tx, &mut workspace, Vec::new(), vec![name.full], change.now).await?;
    }
    answer(shared, change, &stored).await
}

/// Moves the workspace to its next revision: what is in force, its digest, and the encoded change for data planes, which is
/// made here once and never again. The caller holds the workspace's row and commits; where it brings what its author has written, it asks
/// [`levels::refuse_older`] first. What takes away, or puts keys and secrets in force, waits for no data plane.
pub(crate) async fn commit_revision(
    tx: &mut Transaction,
    workspace: &mut WorkspaceRow,
    upserts: Vec<sync::Resource>,
    deletes: Vec<String>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    if workspace.seen_ahead > workspace.revision {
        let (workspace, revision, seen) = (workspace.id.clone(), workspace.revision, workspace.seen_ahead);
        return Err(StoreError::Regressed { workspace, revision, seen });
    }
    for resource in &upserts {
        let head = HeadRow {
            name: resource.name.clone(),
            resource: resource.encode_to_vec(),
            content_hash: content_hash(resource).to_vec(),
            config_level: levels::need(resource)?.level,
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
    workspace.config_level = tx.head_level(&workspace.id).await?.unwrap_or(levels::FIRST);
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
            key_id: workspace.data_key.key_id.clone(),
            ciphertext: workspace.data_key.wrapped.clone().into(),
        }),
        ..WorkspaceBody::default()
    }
}

/// Whether something can be used by what is in force. API keys are no documents; what is in no revision has no head.
async fn is_in_force(tx: &mut Transaction, workspace: &str, name: &str) -> Result<bool, Failure> {
    if tx.head(workspace, name).await?.is_some() {
        return Ok(true);
    }
    Ok(tx.document(workspace, name).await?.is_some_and(|row| row.published_version > 0))
}

/// Every rule a document must keep to be in force: its own, that what it refers to is in force, and that it holds together
/// with the workflows that use it. Those among `together` are checked by themselves.
async fn check(
    shared: &Shared,
    tx: &mut Transaction,
    workspace: &str,
    staged: Staged,
    together: &BTreeSet<String>,
) -> Result<Vec<Violation>, Failure> {
    let name = &staged.resource.name;
    let mut found = together::broken_alone(shared, tx, workspace, name, &staged.document).await?;
    for (field, target) in &staged.references {
        if !is_in_force(tx, workspace, target).await? {
            found.push(
                login_keys::unusable(field, target)
                    .unwrap_or_else(|| violation(field, "NOT_PUBLISHED", format!("`{target}` is not published"))),
            );
        }
    }
    found.extend(together::broken(shared, tx, workspace, &staged.document, None).await?);
    found.extend(together::started_beyond(tx, workspace, name, &staged.document).await?);
    let field = if matches!(staged.document, Document::Snippet(_)) { "text" } else { "request" };
    for broken in together::broken_users(shared, tx, workspace, name, &staged.document, together).await? {
        found.push(Violation { field: field.to_owned(), ..broken });
    }
    Ok(found)
}
