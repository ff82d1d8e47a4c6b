//! Requests that are tried out before anything is published (R110 to R121, D22, S41). Hides that a test is a small configuration of its own:
//! one step with what it needs, drafts in place of what is in force, which any connected data plane compiles, renders and sends.

mod connections;
mod context;
mod evaluate;
mod limits;
mod response_event;
mod target;

use std::time::Duration;

use prost::Message;
use sluice_proto::admin::v1::{
    ContextUse, PreviewRequestRequest, PreviewRequestResponse, RequestPreview, SendTestRequestRequest,
    SendTestRequestResponse, TestContext, TestTarget,
};
use sluice_proto::sync::v1::command::Kind;
use sluice_proto::sync::v1::command_result::Outcome;
use sluice_proto::sync::v1::{TestRequest, TestedRequest};

use crate::call::{Begun, Call};
use crate::commands::{able, ask_any};
use crate::error::Failure;
use crate::names::{self, workspace_name};
use crate::reports;
use crate::shared::Shared;
use crate::store::{Transaction, WorkspaceRow};
use context::Chosen;
use target::Target;

pub(crate) use connections::{retrieve, test};
pub(crate) use evaluate::evaluate;
pub(crate) use limits::Tests;
pub(crate) use response_event::update;

/// Needed to send the credentials of connections.
const USE_CONNECTIONS: &str = "connections.test";
/// Needed to tell an event that may start workflows in force.
const SUBMIT_EVENTS: &str = "events.submit";

/// Shows a request as it would be sent.
pub(crate) async fn preview(shared: &Shared, asked: PreviewRequestRequest) -> Result<PreviewRequestResponse, Failure> {
    let test = Test::read(shared, &asked.parent, asked.target, asked.context).await?;
    if test.lacks_context() {
        let preview = RequestPreview { needs_context: test.target.uses, ..RequestPreview::default() };
        return Ok(PreviewRequestResponse { preview: Some(preview) });
    }
    let (_, tested) = test.run(shared, Sending::Shown).await?;
    Ok(PreviewRequestResponse { preview: tested.preview })
}

/// Sends a request, once at most.
pub(crate) async fn send(
    shared: &Shared,
    call: Call,
    asked: SendTestRequestRequest,
) -> Result<SendTestRequestResponse, Failure> {
    made_before::<SendTestRequestResponse>(shared, &call).await?;
    let test = Test::read(shared, &asked.parent, asked.target, asked.context).await?;
    for (permission, is_needed) in
        [(USE_CONNECTIONS, !test.target.connections.is_empty()), (SUBMIT_EVENTS, asked.emit_event)]
    {
        if is_needed && !call.access().may(permission) {
            return Err(Failure::PermissionMissing(permission.to_owned()));
        }
    }
    if test.lacks_context() {
        let used = test.target.uses.iter().map(place).collect::<Vec<_>>().join(", ");
        let message = format!("is required: the request uses {used}");
        return Err(Failure::field("context", "REQUIRED", message));
    }
    let only_tried = call.validate_only;
    if !only_tried && able(shared, &workspace_name(&test.workspace)).await.is_empty() {
        return Err(no_data_plane());
    }
    // What is sent is written down before it is, and never sent again under the same id.
    let change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(SendTestRequestResponse { .. }) => return Err(Failure::TestMade),
    };
    let nothing = change.finish(shared, SendTestRequestResponse::default()).await?;
    if only_tried {
        return Ok(nothing);
    }
    let parent = asked.parent;
    let (data_plane, tested) = test.run(shared, Sending::Sent { emit_event: asked.emit_event }).await?;
    let response_receipt = response_event::receipt(shared, &parent, &tested).await?;
    let TestedRequest { preview, outcome, event_action, event_parameters, event } = tested;
    if let Some(event) = &event {
        reports::store_event(shared, &parent, event).await?;
    }
    let (data_plane, event) = (format!("dataPlanes/{data_plane}"), event.unwrap_or_default().name);
    Ok(SendTestRequestResponse {
        preview,
        outcome,
        data_plane,
        event_action,
        event_parameters,
        response_receipt,
        event,
    })
}

/// Refuses a test that was made under the same request id: nothing is kept of its answer.
async fn made_before<R: Message + Default>(shared: &Shared, call: &Call) -> Result<(), Failure> {
    if call.known::<R>(shared).await?.is_some() { Err(Failure::TestMade) } else { Ok(()) }
}

/// The workspace `parent`.
async fn workspace_of(tx: &mut Transaction, parent: &str) -> Result<WorkspaceRow, Failure> {
    let id = names::workspace_id(parent, "parent")?;
    let workspace = tx.workspace(&id).await?.filter(|row| row.delete_time == 0);
    workspace.ok_or_else(|| Failure::NotFound(parent.to_owned()))
}

fn no_data_plane() -> Failure {
    Failure::NoDataPlane("no data plane is connected that could make the test".to_owned())
}

fn place(used: &ContextUse) -> String {
    let ContextUse { root, field, line, column } = used;
    format!("`{root}` ({field}, line {line}, column {column})")
}

/// What is done with the request of a test.
#[derive(Clone, Copy)]
enum Sending {
    Shown,
    Sent { emit_event: bool },
}

/// Everything that a test needs.
struct Test {
    /// The id of the workspace.
    workspace: String,
    target: Target,
    chosen: Chosen,
}

impl Test {
    async fn read(
        shared: &Shared,
        parent: &str,
        target: Option<TestTarget>,
        context: Option<TestContext>,
    ) -> Result<Self, Failure> {
        let mut tx = shared.store.read().await?;
        let workspace = workspace_of(&mut tx, parent).await?;
        let target = target::read(shared, &mut tx, &workspace, target.unwrap_or_default()).await?;
        let chosen = context::read(shared, &mut tx, &workspace, context.unwrap_or_default()).await?;
        if let Some(why) = target.without_customer.as_ref().filter(|_| chosen.has_customer()) {
            return Err(Failure::field("context.test_profile", "CUSTOMER_NOT_AVAILABLE", why.clone()));
        }
        Ok(Self { workspace: workspace.id, target, chosen })
    }

    /// Something has to be chosen first (R113).
    fn lacks_context(&self) -> bool {
        self.chosen.is_nothing() && !self.target.uses.is_empty()
    }

    /// Has a data plane make the test; which one did.
    async fn run(self, shared: &Shared, sending: Sending) -> Result<(String, TestedRequest), Failure> {
        let limits = &shared.settings.limits;
        let _place = shared.tests.take(&self.workspace, limits, shared.settings.clock.now())?;
        // Whoever has the answer must still have time to give it.
        let (time_max, patience) = (limits.call_time * 8 / 10, limits.call_time * 9 / 10);
        let workspace = workspace_name(&self.workspace);
        let command = Kind::TestRequest(self.command(sending, time_max));
        let (data_plane, outcome) = ask_any(shared, (&workspace, "target"), command, patience, no_data_plane).await?;
        let Outcome::TestedRequest(tested) = outcome else {
            return Err(Failure::Internal(format!("data plane `{data_plane}` answered something else")));
        };
        Ok((data_plane, tested))
    }

    fn command(self, sending: Sending, time_max: Duration) -> TestRequest {
        let Chosen { envelope, event, customer } = self.chosen;
        let (send, emit_event) = match sending {
            Sending::Shown => (false, false),
            Sending::Sent { emit_event } => (true, emit_event),
        };
        TestRequest {
            workspace: workspace_name(&self.workspace),
            configuration: Some(self.target.configuration),
            workflow: self.target.workflow,
            step_id: self.target.step_id,
            envelope: envelope.into(),
            event: event.into(),
            customer: customer.into(),
            send,
            emit_event,
            time_max: time_max.try_into().ok(),
        }
    }
}
