//! What a test has found in a response becomes known of the response event (R120, R121). Hides the receipt that carries it from the test
//! to the update: sealed with the workspace's data key, and good for a while.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message as _;
use sluice_proto::admin::v1::{EventDefinition, KnownParameter, UpdateResponseEventRequest};
use sluice_proto::sync::v1::{ResponseReceipt, TestedRequest};
use uuid::Uuid;

use super::workspace_of;
use crate::call::{Begun, Call, Change};
use crate::clock::{UnixMillis, millis, timestamp};
use crate::error::Failure;
use crate::lifecycle::{READ_AT_ONCE, answer, lock, save, settle};
use crate::names::{self, Name};
use crate::resource::Resource as _;
use crate::shared::Shared;
use crate::store::WorkspaceRow;
use crate::stored::Stored;

/// How long a receipt is good.
const GOOD_MILLIS: UnixMillis = 15 * 60 * 1000;
/// Under which it is sealed.
const FIELD: &str = "response_receipt";
/// Longest receipt that is read, in bytes.
const RECEIPT_BYTES_MAX: usize = 2 << 20;
/// Needed to make a definition.
const CREATE: &str = "eventDefinitions.create";

/// What lets the parameters of a response be added; empty without a response.
pub(super) async fn receipt(shared: &Shared, parent: &str, tested: &TestedRequest) -> Result<String, Failure> {
    if tested.event_parameters.is_empty() {
        return Ok(String::new());
    }
    let workspace = workspace_of(&mut shared.store.read().await?, parent).await?;
    let receipt = ResponseReceipt {
        event_action: tested.event_action.clone(),
        event_parameters: tested.event_parameters.clone(),
        expire_time: Some(timestamp(shared.settings.clock.now() + GOOD_MILLIS)),
    };
    let sealed = shared.secrets.vault(&workspace)?.seal(parent, FIELD, 1, &receipt.encode_to_vec())?;
    Ok(URL_SAFE_NO_PAD.encode(sealed))
}

fn opened(shared: &Shared, workspace: &WorkspaceRow, parent: &str, text: &str) -> Result<ResponseReceipt, Failure> {
    let invalid = || {
        let message = "is not one of this workspace, or older than 15 minutes: test again";
        Failure::field(FIELD, "RECEIPT_INVALID", message)
    };
    if text.is_empty() || text.len() > RECEIPT_BYTES_MAX {
        return Err(invalid());
    }
    let sealed = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
    let opened = shared.secrets.vault(workspace)?.open(parent, FIELD, 1, sealed).map_err(|_| invalid())?;
    let receipt = ResponseReceipt::decode(opened.as_slice()).map_err(|_| invalid())?;
    let ends = receipt.expire_time.as_ref().map_or(0, millis);
    if shared.settings.clock.now() < ends { Ok(receipt) } else { Err(invalid()) }
}

/// Adds what a test has found to the definition of its event.
pub(crate) async fn update(
    shared: &Shared,
    call: Call,
    asked: UpdateResponseEventRequest,
) -> Result<EventDefinition, Failure> {
    let id = names::workspace_id(&asked.parent, "parent")?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let mut workspace = lock(&mut change, &id, &asked.parent).await?;
    let receipt = opened(shared, &workspace, &asked.parent, &asked.response_receipt)?;
    let (mut stored, is_new) = match defined(&mut change, &id, &receipt.event_action).await? {
        Some(stored) => (stored, false),
        None if !change.caller().may(CREATE) => return Err(Failure::PermissionMissing(CREATE.to_owned())),
        None => (made(&change, &asked.parent, &id), true),
    };
    if !asked.etag.is_empty() && (is_new || asked.etag != stored.etag()) {
        return Err(Failure::EtagMismatch(stored.row.name));
    }
    let mut wanted = stored.draft.clone();
    if is_new {
        wanted.display_name.clone_from(&receipt.event_action);
        wanted.action.clone_from(&receipt.event_action);
    }
    for name in receipt.event_parameters {
        if !wanted.parameters.iter().any(|known| known.name == name) {
            wanted.parameters.push(KnownParameter { name, description: String::new() });
        }
    }
    let name = Name { full: stored.row.name.clone(), workspace: id };
    let before = (!is_new).then_some((&stored.draft, stored.secrets.as_slice()));
    let (draft, taken) = settle(shared, &mut change, &name, wanted, before).await?;
    change.changes(EventDefinition::MESSAGE, &stored.draft, &draft)?;
    if draft != stored.draft {
        save(shared, &mut change, &mut workspace, &mut stored, draft, taken).await?;
    }
    answer(shared, change, &stored).await
}

/// The definition of an action; the first by name, should there be several.
async fn defined(
    change: &mut Change,
    workspace: &str,
    action: &str,
) -> Result<Option<Stored<EventDefinition>>, Failure> {
    let mut after = String::new();
    loop {
        let rows = change.tx.documents(workspace, EventDefinition::COLLECTION, &after, false, READ_AT_ONCE).await?;
        let Some(last) = rows.last().map(|row| row.name.clone()) else { return Ok(None) };
        for row in rows {
            let stored = Stored::<EventDefinition>::of(row)?;
            if stored.draft.action == action {
                return Ok(Some(stored));
            }
        }
        after = last;
    }
}

fn made(change: &Change, parent: &str, workspace: &str) -> Stored<EventDefinition> {
    let id = format!("e-{}", Uuid::new_v4().simple());
    let full = format!("{parent}/{}/{id}", EventDefinition::COLLECTION);
    let name = Name { full, workspace: workspace.to_owned() };
    Stored::new(&name, Uuid::new_v4().to_string(), change.now)
}
