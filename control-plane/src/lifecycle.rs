//! The life of a document, the same for all kinds: created, read, listed, changed and deleted here; put in force and taken out
//! of it in [`crate::publish`]. The services only unpack requests.

use prost_types::FieldMask;
use sluice_core::validate::{Violation, resource_id};
use sluice_proto::sync::v1::SealedSecret;
use uuid::Uuid;

use crate::call::{Begun, Call, Change};
use crate::error::{Failure, violation};
use crate::fields::tree;
use crate::forms;
use crate::levels;
use crate::listing::{Listing, Query};
use crate::login_keys;
use crate::names::{self, Name};
use crate::publish::commit_revision;
use crate::resource::{Resource, Rules, Stamp};
use crate::secrets::{Taken, mark, take};
use crate::shared::Shared;
use crate::snippets::{self, Reading};
use crate::store::{Transaction, WorkspaceRow};
use crate::stored::Stored;
use crate::together;

/// How many documents of a list are read at once.
pub(crate) const READ_AT_ONCE: i64 = 200;
/// How many users of a resource an error names.
pub(crate) const USERS_NAMED: i64 = 20;

/// Stores a new draft; a connection is in force at once.
pub(crate) async fn create<R: Resource>(
    shared: &Shared,
    call: Call,
    parent: &str,
    id: &str,
    document: Option<R>,
) -> Result<R, Failure> {
    let workspace_id = names::workspace_id(parent, "parent")?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let mut workspace = lock(&mut change, &workspace_id, parent).await?;
    let id = if id.is_empty() { made_id::<R>() } else { id.to_owned() };
    if let Err(message) = resource_id(&id) {
        change.found.push(violation(R::ID_FIELD, "ID_INVALID", message));
    }
    let name = Name { full: format!("{parent}/{}/{id}", R::COLLECTION), workspace: workspace_id };
    match change.tx.document(&name.workspace, &name.full).await? {
        Some(row) if row.delete_time > 0 => return Err(Failure::Deleted(name.full)),
        Some(_) => return Err(Failure::Exists(name.full)),
        None => {}
    }
    let Some(document) = document else {
        change.found.push(violation(R::FIELD, "REQUIRED", "is required"));
        return Err(Failure::Fields(change.found));
    };
    let mut stored = Stored::<R>::new(&name, Uuid::new_v4().to_string(), change.now);
    let (draft, taken) = settle(shared, &mut change, &name, document, None).await?;
    save(shared, &mut change, &mut workspace, &mut stored, draft, taken).await?;
    let mut answer = stored.present();
    if change.validate_only() {
        answer.forget_made();
        answer.stamp(Stamp { name: name.full, has_unpublished_changes: !R::IMMEDIATE, ..Stamp::default() });
    }
    change.finish(shared, answer).await
}

/// Returns one document.
pub(crate) async fn get<R: Resource>(shared: &Shared, name: &str) -> Result<R, Failure> {
    let name = names::parse(name, R::COLLECTION, "name")?;
    let mut tx = shared.store.read().await?;
    Ok(Stored::<R>::find(&mut tx, &name, "").await?.present())
}

/// Lists the documents of a workspace, and the token of the next page.
pub(crate) async fn list<R: Resource>(
    shared: &Shared,
    parent: &str,
    query: Query<'_>,
) -> Result<(Vec<R>, String), Failure> {
    let workspace = names::workspace_id(parent, "parent")?;
    let mut tx = shared.store.read().await?;
    let uid = tx.workspace(&workspace).await?.ok_or_else(|| Failure::NotFound(parent.to_owned()))?.uid;
    let mut listing = Listing::new(&shared.secrets, R::MESSAGE, &[R::COLLECTION, &uid], query)?;
    let mut after = listing.by_name().unwrap_or_default().to_owned();
    loop {
        let rows = tx.documents(&workspace, R::COLLECTION, &after, query.show_deleted, READ_AT_ONCE).await?;
        let Some(last) = rows.last().map(|row| row.name.clone()) else { break };
        for row in rows {
            let name = row.name.clone();
            let shown = Stored::<R>::of(row)?.listed();
            listing.offer(&name, &tree(R::MESSAGE, &shown)?, shown.encoded_len(), shown);
        }
        if listing.by_name().is_some() && listing.is_full() {
            break;
        }
        after = last;
    }
    Ok(listing.finish())
}

/// Changes the draft; a connection's change is in force at once. A change that changes nothing counts as none.
pub(crate) async fn update<R: Resource>(
    shared: &Shared,
    call: Call,
    document: Option<R>,
    mask: Option<FieldMask>,
) -> Result<R, Failure> {
    let document = document.ok_or_else(|| Failure::field(R::FIELD, "REQUIRED", "is required"))?;
    let (name, etag) = document.sent();
    let name = names::parse(name, R::COLLECTION, "name")?;
    let etag = etag.to_owned();
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let mut workspace = lock(&mut change, &name.workspace, &name.full).await?;
    let mut stored = Stored::<R>::load(&mut change.tx, &name, &etag).await?;
    let (wanted, found) = masked(&stored.draft, document, &mask.unwrap_or_default());
    change.found.extend(found);
    let before = Some((&stored.draft, stored.secrets.as_slice()));
    let (draft, taken) = settle(shared, &mut change, &name, wanted, before).await?;
    change.changes(R::MESSAGE, &stored.draft, &draft)?;
    change.changes_secrets(taken.fresh_fields());
    if taken.has_fresh() || draft != stored.draft {
        save(shared, &mut change, &mut workspace, &mut stored, draft, taken).await?;
    }
    answer(shared, change, &stored).await
}

/// Deletes a document that is not published and that nothing uses. It can come back until it is purged, and uses nothing until then.
pub(crate) async fn delete<R: Resource, A: prost::Message + Default>(
    shared: &Shared,
    call: Call,
    name: &str,
    etag: &str,
) -> Result<A, Failure> {
    let name = names::parse(name, R::COLLECTION, "name")?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let mut workspace = lock(&mut change, &name.workspace, &name.full).await?;
    let mut stored = Stored::<R>::load(&mut change.tx, &name, etag).await?;
    refuse_used(&mut change.tx, &name.full, false).await?;
    if stored.is_published() && !R::IMMEDIATE {
        return Err(Failure::Published(name.full));
    }
    remove(&mut change, &mut workspace, &mut stored).await?;
    change.finish(shared, A::default()).await
}

/// Deletes a document that may be deleted.
pub(crate) async fn remove<R: Resource>(
    change: &mut Change,
    workspace: &mut WorkspaceRow,
    stored: &mut Stored<R>,
) -> Result<(), Failure> {
    stored.touch(change.now);
    stored.take_out_of_force();
    stored.row.delete_time = change.now;
    change.tx.document_put(&stored.row).await?;
    for published in [false, true] {
        change.tx.references_set(&stored.row.name, published, &[]).await?;
    }
    if R::IMMEDIATE {
        let deleted = vec![stored.row.name.clone()];
        commit_revision(&mut change.tx, workspace, Vec::new(), deleted, change.now).await?;
    }
    Ok(())
}

/// Brings a deleted document back as a draft, a connection in force. What it uses must still be there.
pub(crate) async fn undelete<R: Resource>(shared: &Shared, call: Call, name: &str, etag: &str) -> Result<R, Failure> {
    let name = names::parse(name, R::COLLECTION, "name")?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let mut workspace = lock(&mut change, &name.workspace, &name.full).await?;
    let mut stored = Stored::<R>::find(&mut change.tx, &name, etag).await?;
    if !stored.is_deleted() {
        return Err(Failure::Exists(name.full));
    }
    let before = Some((&stored.draft, stored.secrets.as_slice()));
    let (draft, taken) = settle(shared, &mut change, &name, stored.draft.clone(), before).await?;
    stored.row.delete_time = 0;
    save(shared, &mut change, &mut workspace, &mut stored, draft, taken).await?;
    answer(shared, change, &stored).await
}

/// Takes the workspace's row, so that nobody else changes anything in it until this change has ended. `asked` is the
/// resource that is not there when the workspace is not.
pub(crate) async fn lock(change: &mut Change, workspace: &str, asked: &str) -> Result<WorkspaceRow, Failure> {
    let row = change.tx.workspace_locked(workspace).await?.filter(|row| row.delete_time == 0);
    row.ok_or_else(|| Failure::NotFound(asked.to_owned()))
}

/// Ends a change of an existing document.
pub(crate) async fn answer<R: Resource>(shared: &Shared, change: Change, stored: &Stored<R>) -> Result<R, Failure> {
    let answer = shown(&change, stored);
    change.finish(shared, answer).await
}

/// The document as the answer to a change shows it. What was only tried shows no etag: it never existed.
pub(crate) fn shown<R: Resource>(change: &Change, stored: &Stored<R>) -> R {
    let mut shown = stored.present();
    if change.validate_only() {
        shown.clear_etag();
    }
    shown
}

/// Refuses what would take `name` away from those who use it.
pub(crate) async fn refuse_used(tx: &mut Transaction, name: &str, published_only: bool) -> Result<(), Failure> {
    let users = tx.users(name, published_only, USERS_NAMED).await?;
    if users.is_empty() { Ok(()) } else { Err(Failure::InUse { name: name.to_owned(), users }) }
}

/// What a caller wants stored: the fields of the mask from `sent`, all others from `stored`; with the mask's broken rules.
fn masked<R: Resource>(stored: &R, mut sent: R, mask: &FieldMask) -> (R, Vec<Violation>) {
    let paths: Vec<&str> = mask.paths.iter().map(String::as_str).collect();
    sent.stamp(Stamp::default());
    if paths.is_empty() || paths == ["*"] {
        return (sent, Vec::new());
    }
    let mut found = Vec::new();
    let mut wanted = stored.clone();
    for path in paths {
        if R::MUTABLE.contains(&path) {
            wanted.copy(path, &sent);
        } else {
            let message = format!("`{path}` is not a field that can be changed; those are {}", R::MUTABLE.join(", "));
            found.push(violation("update_mask", "PATH_INVALID", message));
        }
    }
    (wanted, found)
}

/// Brings what a caller wants into the form that is stored and checks it whole; its secrets come out beside it.
pub(crate) async fn settle<R: Resource>(
    shared: &Shared,
    change: &mut Change,
    name: &Name,
    mut wanted: R,
    before: Option<(&R, &[SealedSecret])>,
) -> Result<(R, Taken), Failure> {
    let secrets = before.map_or(&[][..], |(_, secrets)| secrets);
    wanted.stamp(Stamp::default());
    let moved = wanted.moved_field();
    wanted.complete(before.map(|(document, _)| document));
    mark(&mut wanted, secrets);
    let snippets = snippets::load(&mut change.tx, &name.workspace, wanted.snippets(), Reading::Draft).await?;
    let references = wanted.references();
    let form = forms::of_draft(&mut change.tx, &name.workspace, &references).await?;
    let rules = Rules { urls: &shared.settings.urls, snippets, form };
    change.found.extend(wanted.violations(&rules).into_iter().map(|broken| match moved {
        Some((stored, sent)) if broken.field == stored => Violation { field: sent.to_owned(), ..broken },
        _ => broken,
    }));
    for (field, target) in references {
        // A name that is none is a broken rule of the document already.
        if names::split(&target).is_none() {
            continue;
        }
        match change.tx.document(&name.workspace, &target).await? {
            Some(row) if row.delete_time > 0 => {
                change.found.push(violation(&field, "RESOURCE_DELETED", format!("`{target}` is deleted")));
            }
            Some(row) => change.found.extend(together::misnamed(shared, &field, row)?),
            // API keys are no documents; those that may log in are in force.
            None if change.tx.head(&name.workspace, &target).await?.is_some() => {}
            None => change.found.push(login_keys::unusable(&field, &target).unwrap_or_else(|| {
                let message = format!("`{target}` does not exist in this workspace");
                violation(&field, "RESOURCE_NOT_FOUND", message)
            })),
        }
    }
    if R::IMMEDIATE && before.is_some() {
        let candidate = wanted.clone().into_document();
        let (tx, workspace) = (&mut change.tx, &name.workspace);
        change.found.extend(together::broken_by_connection(shared, tx, workspace, &name.full, &candidate).await?);
    }
    if !R::IMMEDIATE {
        let draft = wanted.clone().into_document();
        let (tx, workspace) = (&mut change.tx, &name.workspace);
        change.found.extend(together::broken_draft(shared, tx, workspace, &draft).await?);
    }
    change.refuse_broken()?;
    let taken = take(&mut wanted, secrets);
    Ok((wanted, taken))
}

/// Stores a checked draft, sealing its new secrets; puts it in force when its kind is not published.
pub(crate) async fn save<R: Resource>(
    shared: &Shared,
    change: &mut Change,
    workspace: &mut WorkspaceRow,
    stored: &mut Stored<R>,
    draft: R,
    taken: Taken,
) -> Result<(), Failure> {
    let secrets = shared.secrets.seal(workspace, &stored.row.name, stored.row.saves + 1, taken, change.now)?;
    stored.save(draft, secrets, change.now);
    let in_force = R::IMMEDIATE.then(|| stored.put_in_force(Vec::new()));
    change.tx.document_put(&stored.row).await?;
    change.tx.references_set(&stored.row.name, false, &stored.targets()).await?;
    if let Some(resource) = in_force {
        commit_revision(&mut change.tx, workspace, vec![resource], Vec::new(), change.now).await?;
        levels::refuse_older(shared, change, workspace).await?;
    }
    Ok(())
}

/// An id for a resource whose caller chose none.
fn made_id<R: Resource>() -> String {
    format!("{}-{}", &R::COLLECTION[..1], Uuid::new_v4().simple())
}
