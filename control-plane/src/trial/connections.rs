//! Connections that are tried out (R048), stored or not. Hides which secrets go along: those of a draft that are new, and those that are
//! stored for the connection whose name it has.

use prost::Message;
use sluice_core::validate::Violation;
use sluice_proto::admin::v1::connection::Scheme;
use sluice_proto::admin::v1::connection_target::Kind as Which;
use sluice_proto::admin::v1::{
    Connection, ConnectionTarget, RetrieveAuthResponseRequest, RetrieveAuthResponseResponse, TestConnectionRequest,
    TestConnectionResponse, TokenError,
};
use sluice_proto::sync::v1::command::Kind;
use sluice_proto::sync::v1::command_result::Outcome;
use sluice_proto::sync::v1::{self as sync, TestConnection, TestedConnection, WorkspaceBody};

use super::target::in_force;
use super::{made_before, no_data_plane, workspace_of};
use crate::call::{Begun, Call};
use crate::commands::{able, ask_any};
use crate::error::Failure;
use crate::names::{self, workspace_name};
use crate::publish::frame;
use crate::resource::{Resource as _, Rules, Stamp};
use crate::secrets::{mark, take};
use crate::shared::Shared;
use crate::store::{Transaction, WorkspaceRow};
use crate::stored::Stored;

/// Needed to use stored secrets with something else than what they are stored with.
const CHANGE_CONNECTIONS: &str = "connections.update";

/// Runs the authorization request and shows its answer.
pub(crate) async fn retrieve(
    shared: &Shared,
    call: Call,
    asked: RetrieveAuthResponseRequest,
) -> Result<RetrieveAuthResponseResponse, Failure> {
    let made = make(shared, call, &asked.parent, asked.target, true, RetrieveAuthResponseResponse::default()).await?;
    Ok(match made {
        Made::Tried(nothing) => nothing,
        Made::Tested(data_plane, tested) => RetrieveAuthResponseResponse {
            status: tested.status,
            error: tested.error,
            message: tested.message,
            response: tested.response,
            placements: tested.placements,
            data_plane,
        },
    })
}

/// Says whether a connection can be used.
pub(crate) async fn test(
    shared: &Shared,
    call: Call,
    asked: TestConnectionRequest,
) -> Result<TestConnectionResponse, Failure> {
    let made = make(shared, call, &asked.parent, asked.target, false, TestConnectionResponse::default()).await?;
    Ok(match made {
        Made::Tried(nothing) => nothing,
        Made::Tested(data_plane, tested) => {
            let usable = tested.error() == TokenError::Unspecified;
            let status = if usable { 0 } else { tested.status };
            TestConnectionResponse { usable, error: tested.error, status, message: tested.message, data_plane }
        }
    })
}

/// What came of a call.
enum Made<R> {
    /// It was to be checked only.
    Tried(R),
    /// Which data plane did it, and its answer.
    Tested(String, TestedConnection),
}

async fn make<R: Message + Default>(
    shared: &Shared,
    call: Call,
    parent: &str,
    target: Option<ConnectionTarget>,
    fetches: bool,
    nothing: R,
) -> Result<Made<R>, Failure> {
    made_before::<R>(shared, &call).await?;
    let mut tx = shared.store.read().await?;
    let workspace = workspace_of(&mut tx, parent).await?;
    let resource = match target.and_then(|target| target.kind) {
        Some(Which::Connection(name)) => stored(&mut tx, &workspace, &name).await?,
        Some(Which::Draft(draft)) => drafted(shared, &mut tx, &workspace, &call, draft).await?,
        None => return Err(Failure::field("target", "REQUIRED", "one of connection, draft is required")),
    };
    drop(tx);
    if fetches && !fetches_token(&resource) {
        let message = "this kind of connection makes no authorization request";
        return Err(Failure::field("target", "NO_AUTH_REQUEST", message));
    }
    let (only_tried, name) = (call.validate_only, workspace_name(&workspace.id));
    if !only_tried && able(shared, &name).await.is_empty() {
        return Err(no_data_plane());
    }
    // What is only checked counts against no limit.
    let take = || shared.tests.take(&workspace.id, &shared.settings.limits, shared.settings.clock.now());
    let place = (!only_tried).then(take).transpose()?;
    let nothing = match call.begin::<R>(shared).await? {
        Begun::New(change) => change.finish(shared, nothing).await?,
        Begun::Known(_) => return Err(Failure::TestMade),
    };
    if only_tried {
        return Ok(Made::Tried(nothing));
    }
    let command = TestConnection {
        workspace: name.clone(),
        connection: resource.name.clone(),
        configuration: Some(WorkspaceBody { upserts: vec![resource], ..frame(&workspace) }),
    };
    let patience = shared.settings.limits.call_time * 9 / 10;
    let (data_plane, outcome) =
        ask_any(shared, (&name, "target"), Kind::TestConnection(command), patience, no_data_plane).await?;
    drop(place);
    let Outcome::TestedConnection(tested) = outcome else {
        return Err(Failure::Internal(format!("data plane `{data_plane}` answered something else")));
    };
    Ok(Made::Tested(format!("dataPlanes/{data_plane}"), tested))
}

async fn stored(tx: &mut Transaction, workspace: &WorkspaceRow, name: &str) -> Result<sync::Resource, Failure> {
    let parsed = names::parse(name, Connection::COLLECTION, "target.connection")?;
    let found = if parsed.workspace == workspace.id { in_force(tx, workspace, name).await? } else { None };
    found.ok_or_else(|| Failure::NotFound(name.to_owned()))
}

/// A connection that is not stored, with the stored secrets of the one it is a change of.
async fn drafted(
    shared: &Shared,
    tx: &mut Transaction,
    workspace: &WorkspaceRow,
    call: &Call,
    mut draft: Connection,
) -> Result<sync::Resource, Failure> {
    let (mut name, mut saves, mut secrets, mut before) = (std::mem::take(&mut draft.name), 0, Vec::new(), None);
    if !name.is_empty() {
        let parsed = names::parse(&name, Connection::COLLECTION, "target.draft.name")?;
        if parsed.workspace != workspace.id {
            return Err(Failure::NotFound(name));
        }
        let stored = Stored::<Connection>::load(tx, &parsed, "").await?;
        if !call.access().may(CHANGE_CONNECTIONS) {
            return Err(Failure::PermissionMissing(CHANGE_CONNECTIONS.to_owned()));
        }
        (saves, secrets, before) = (stored.row.saves, stored.secrets, Some(stored.draft));
    } else {
        // No connection can have this id.
        name = format!("{}/{}/-", workspace_name(&workspace.id), Connection::COLLECTION);
    }
    draft.stamp(Stamp::default());
    draft.complete(before.as_ref());
    mark(&mut draft, &secrets);
    let broken = draft.violations(&Rules::without_snippets(&shared.settings.urls));
    if !broken.is_empty() {
        let at = |one: Violation| Violation { field: format!("target.draft.{}", one.field), ..one };
        return Err(Failure::Fields(broken.into_iter().map(at).collect()));
    }
    let taken = take(&mut draft, &secrets);
    let secrets = shared.secrets.seal(workspace, &name, saves + 1, taken, shared.settings.clock.now())?;
    draft.stamp(Stamp { name: name.clone(), ..Stamp::default() });
    Ok(sync::Resource { name, version: 0, document: Some(draft.into_document()), secrets })
}

fn fetches_token(resource: &sync::Resource) -> bool {
    let connection = resource.document.clone().and_then(Connection::from_document).unwrap_or_default();
    match connection.scheme {
        Some(Scheme::Custom(_) | Scheme::Oauth2ClientCredentials(_) | Scheme::SyneriseApiKey(_)) => true,
        Some(
            Scheme::None(_)
            | Scheme::LoginPassword(_)
            | Scheme::ApiKey(_)
            | Scheme::Token(_)
            | Scheme::Sha256(_)
            | Scheme::StandardWebhooks(_)
            | Scheme::HmacSignature(_),
        )
        | None => false,
    }
}
