//! What changes of an endpoint at once, in the draft and in force alike, without publishing: its id, and whether it is paused.

use std::sync::Arc;

use prost::Message as _;
use sluice_core::wire;
use sluice_proto::admin::v1::IncomingIntegration;
use sluice_proto::sync::v1 as sync;
use uuid::Uuid;

use crate::call::{Begun, Call};
use crate::captures;
use crate::error::Failure;
use crate::lifecycle::{answer, lock};
use crate::names;
use crate::publish::commit_revision;
use crate::resource::Resource as _;
use crate::shared::Shared;
use crate::stored::Stored;

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Another id (122 random bits): the old one is never used again.
    Regenerate,
    Pause,
    Resume,
}

impl Change {
    /// What sets it in a document; made once, so that draft and version in force get the same.
    fn setter(self) -> impl Fn(&mut IncomingIntegration) {
        let fresh = Uuid::new_v4().to_string();
        move |incoming| match self {
            Self::Regenerate => {
                incoming.endpoint_path = wire::endpoint_path(&fresh);
                incoming.endpoint_id.clone_from(&fresh);
            }
            Self::Pause => incoming.paused = true,
            Self::Resume => incoming.paused = false,
        }
    }
}

/// Changes an endpoint. What is so already stays as it is.
pub(crate) async fn change(
    shared: &Arc<Shared>,
    call: Call,
    name: &str,
    etag: &str,
    what: Change,
) -> Result<IncomingIntegration, Failure> {
    let name = names::parse(name, IncomingIntegration::COLLECTION, "name")?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let mut workspace = lock(&mut change, &name.workspace, &name.full).await?;
    let mut stored = Stored::<IncomingIntegration>::load(&mut change.tx, &name, etag).await?;
    let waiting = change.tx.capture(&name.full).await?;
    let set = what.setter();
    let mut draft = stored.draft.clone();
    set(&mut draft);
    if draft != stored.draft {
        let secrets = stored.secrets.clone();
        stored.save(draft, secrets, change.now);
        let in_force = change.tx.head(&name.workspace, &name.full).await?;
        let in_force = in_force.map(|bytes| sync::Resource::decode(bytes.as_slice())).transpose();
        let in_force = in_force.map_err(|_| Failure::Internal("what is in force cannot be read".to_owned()))?;
        let amended = in_force.map(|in_force| stored.amend_in_force(in_force, set)).transpose()?;
        change.tx.document_put(&stored.row).await?;
        if what == Change::Regenerate {
            // It waits for a request to the old id.
            change.tx.capture_delete(&name.full).await?;
        }
        if let Some(resource) = amended {
            commit_revision(&mut change.tx, &mut workspace, vec![resource], Vec::new(), change.now).await?;
        }
        tracing::info!(name = name.full, ?what, "an endpoint was changed");
    }
    let ended = waiting.filter(|_| what == Change::Regenerate && !change.validate_only());
    let answer = answer(shared, change, &stored).await?;
    if let Some(capture) = ended {
        captures::close(shared, &capture.uid);
    }
    Ok(answer)
}
