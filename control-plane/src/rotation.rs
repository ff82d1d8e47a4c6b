//! Rotating one secret of a document (S16): what each step does to the slots of its field, and how the draft and the version in
//! force get it together, without publishing.

use prost::Message as _;
use sluice_core::seal::{Secret, Slot};
use sluice_core::validate::Violation;
use sluice_core::wire::slot_of;
use sluice_proto::admin::v1::{SecretInSlot, SecretSlot, SecretState, Secrets};
use sluice_proto::sync::v1::{self as sync, SealedSecret};

use crate::call::{Begun, Call, Change};
use crate::clock::{UnixMillis, timestamp};
use crate::error::Failure;
use crate::lifecycle::lock;
use crate::names;
use crate::publish::commit_revision;
use crate::resource::{Resource, Rules};
use crate::secrets::mark;
use crate::shared::Shared;
use crate::store::WorkspaceRow;
use crate::stored::Stored;

/// What a resource with secrets is called.
pub(crate) const NAME_RULE: &str =
    "must be `workspaces/{workspace}/connections/{id}` or `workspaces/{workspace}/incomingIntegrations/{id}`";

/// One step of one field.
pub(crate) struct Rotation {
    /// The resource.
    pub(crate) name: String,
    /// The field's path.
    pub(crate) field: String,
    /// Must be the current one, when filled.
    pub(crate) etag: String,
    pub(crate) step: Step,
}

/// What is done.
pub(crate) enum Step {
    /// A new secret is put beside the active one.
    Stage(Secret),
    /// The staged one becomes active, the active one previous.
    Activate,
    /// The previous one becomes active, the active one staged.
    Revert,
    /// The secret in this slot is deleted.
    Retire(Slot),
}

/// Where every secret of a document stands.
pub(crate) async fn get<R: Resource>(shared: &Shared, name: &str) -> Result<Secrets, Failure> {
    let name = names::parse(name, R::COLLECTION, "name")?;
    let mut tx = shared.store.read().await?;
    let stored = Stored::<R>::load(&mut tx, &name, "").await?;
    let in_force = tx.head(&name.workspace, &name.full).await?.map(|bytes| decode(&bytes)).transpose()?;
    Ok(present(&stored, in_force.as_ref()))
}

/// Does one step.
pub(crate) async fn rotate<R: Resource>(shared: &Shared, call: Call, rotation: &Rotation) -> Result<Secrets, Failure> {
    let name = names::parse(&rotation.name, R::COLLECTION, "name")?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let mut workspace = lock(&mut change, &name.workspace, &name.full).await?;
    let mut stored = Stored::<R>::load(&mut change.tx, &name, &rotation.etag).await?;
    let in_force = change.tx.head(&name.workspace, &name.full).await?.map(|bytes| decode(&bytes)).transpose()?;
    check_field(shared, &mut change, &stored.draft, rotation)?;
    if in_force.as_ref().is_some_and(|in_force| is_unpublished(&stored.secrets, in_force, &rotation.field)) {
        return Err(Failure::SecretUnpublished(rotation.field.clone()));
    }
    let slots = of_field(&stored.secrets, &rotation.field);
    let slots = stepped(shared, &workspace, &stored, rotation, slots, change.now)?;
    let mut draft = stored.draft.clone();
    let secrets = replaced(&stored.secrets, &rotation.field, &slots);
    mark(&mut draft, &secrets);
    if matches!(rotation.step, Step::Retire(Slot::Active)) {
        // Only a field that may be empty can lose its active secret.
        change.found.extend(draft.violations(&Rules::without_snippets(&shared.settings.urls)));
        change.refuse_broken()?;
    }
    stored.save(draft, secrets, change.now);
    let refreshed = match in_force.clone() {
        _ if R::IMMEDIATE => Some(stored.put_in_force(Vec::new())),
        Some(in_force) if has_field::<R>(&in_force, &rotation.field) => {
            Some(stored.refresh_in_force(in_force, |secrets| replaced(secrets, &rotation.field, &slots))?)
        }
        Some(_) | None => None,
    };
    change.tx.document_put(&stored.row).await?;
    if let Some(resource) = refreshed.clone() {
        commit_revision(&mut change.tx, &mut workspace, vec![resource], Vec::new(), change.now).await?;
    }
    let mut answer = present(&stored, refreshed.or(in_force).as_ref());
    if change.validate_only() {
        answer.etag.clear();
    }
    change.finish(shared, answer).await
}

fn decode(bytes: &[u8]) -> Result<sync::Resource, Failure> {
    sync::Resource::decode(bytes).map_err(|_| Failure::Internal("what is in force cannot be read".to_owned()))
}

/// The field must be one of the draft's, and a new secret must keep its rules.
fn check_field<R: Resource>(
    shared: &Shared,
    change: &mut Change,
    draft: &R,
    rotation: &Rotation,
) -> Result<(), Failure> {
    let mut wanted = draft.clone();
    let known: Vec<String> = wanted.secret_fields().iter().map(|field| field.path.to_string()).collect();
    if !known.contains(&rotation.field) {
        let message = if known.is_empty() {
            "the resource has no secret".to_owned()
        } else {
            format!("is not a secret of the resource; those are {}", known.join(", "))
        };
        return Err(Failure::field("field", "FIELD_UNKNOWN", message));
    }
    if let Step::Stage(secret) = &rotation.step {
        if secret.is_empty() {
            return Err(Failure::field("value", "REQUIRED", "is required"));
        }
        for field in wanted.secret_fields().iter_mut().filter(|field| field.path == rotation.field) {
            secret.expose().clone_into(field.value);
        }
        let broken = wanted.violations(&Rules::without_snippets(&shared.settings.urls)).into_iter();
        let broken = broken.filter(|violation| violation.field == rotation.field);
        change.found.extend(broken.map(|violation| Violation { field: "value".to_owned(), ..violation }));
        change.refuse_broken()?;
    }
    Ok(())
}

/// The slots of a field after the step.
fn stepped<R: Resource>(
    shared: &Shared,
    workspace: &WorkspaceRow,
    stored: &Stored<R>,
    rotation: &Rotation,
    mut slots: Vec<SealedSecret>,
    now: UnixMillis,
) -> Result<Vec<SealedSecret>, Failure> {
    use Slot::{Active, Previous, Staged};
    let is_filled = |slots: &[SealedSecret], slot: Slot| slots.iter().any(|sealed| slot_of(sealed) == slot);
    let empty = |slot: Slot| Failure::SecretSlotEmpty { field: rotation.field.clone(), slot };
    let taken = |slot: Slot| Failure::SecretSlotTaken { field: rotation.field.clone(), slot };
    match &rotation.step {
        Step::Stage(secret) => {
            slots.retain(|sealed| slot_of(sealed) != Staged);
            let mut sealed = shared.secrets.seal_one(
                workspace,
                &rotation.name,
                &rotation.field,
                stored.row.saves + 1,
                secret,
                now,
            )?;
            sealed.slot = SecretSlot::from(Staged).into();
            slots.push(sealed);
        }
        Step::Activate if !is_filled(&slots, Staged) => return Err(empty(Staged)),
        Step::Activate if is_filled(&slots, Previous) => return Err(taken(Previous)),
        Step::Activate => moved(&mut slots, &[(Active, Previous), (Staged, Active)], now),
        Step::Revert if !is_filled(&slots, Previous) => return Err(empty(Previous)),
        Step::Revert if is_filled(&slots, Staged) => return Err(taken(Staged)),
        Step::Revert => moved(&mut slots, &[(Active, Staged), (Previous, Active)], now),
        Step::Retire(slot) if !is_filled(&slots, *slot) => return Err(empty(*slot)),
        Step::Retire(slot) => slots.retain(|sealed| slot_of(sealed) != *slot),
    }
    Ok(slots)
}

/// Moves secrets from slot to slot, all at once.
fn moved(slots: &mut [SealedSecret], moves: &[(Slot, Slot)], now: UnixMillis) {
    for sealed in slots {
        if let Some((_, to)) = moves.iter().find(|(from, _)| slot_of(sealed) == *from) {
            sealed.slot = SecretSlot::from(*to).into();
            sealed.since_time = Some(timestamp(now));
        }
    }
}

fn of_field(secrets: &[SealedSecret], field: &str) -> Vec<SealedSecret> {
    secrets.iter().filter(|sealed| sealed.field == field).cloned().collect()
}

/// All secrets, those of this field replaced.
fn replaced(secrets: &[SealedSecret], field: &str, slots: &[SealedSecret]) -> Vec<SealedSecret> {
    let mut all: Vec<SealedSecret> = secrets.iter().filter(|sealed| sealed.field != field).cloned().collect();
    all.extend_from_slice(slots);
    all.sort_by(|one, other| (&one.field, slot_of(one)).cmp(&(&other.field, slot_of(other))));
    all
}

/// Whether the version in force is set to something with this secret.
fn has_field<R: Resource>(in_force: &sync::Resource, field: &str) -> bool {
    let document = in_force.document.clone().and_then(R::from_document);
    document.is_some_and(|mut document| document.secret_fields().iter().any(|known| known.path == field))
}

/// Whether publishing would change the field's secrets.
fn is_unpublished(secrets: &[SealedSecret], in_force: &sync::Resource, field: &str) -> bool {
    let (mut draft, mut published) = (of_field(secrets, field), of_field(&in_force.secrets, field));
    draft.sort_by_key(slot_of);
    published.sort_by_key(slot_of);
    !published.is_empty() && draft != published
}

fn present<R: Resource>(stored: &Stored<R>, in_force: Option<&sync::Resource>) -> Secrets {
    let mut draft = stored.draft.clone();
    let fields = draft.secret_fields();
    let state = |path: &str, overlaps: bool| {
        let in_slot = |slot: Slot| {
            let sealed = stored.secrets.iter().find(|sealed| sealed.field == path && slot_of(sealed) == slot)?;
            Some(SecretInSlot { since_time: sealed.since_time, change: sealed.version })
        };
        SecretState {
            field: path.to_owned(),
            active: in_slot(Slot::Active),
            staged: in_slot(Slot::Staged),
            previous: in_slot(Slot::Previous),
            overlaps,
            unpublished: in_force.is_some_and(|in_force| is_unpublished(&stored.secrets, in_force, path)),
        }
    };
    Secrets {
        name: stored.row.name.clone(),
        etag: stored.etag(),
        secrets: fields.iter().map(|field| state(&field.path, field.overlaps)).collect(),
    }
}
