//! Events that callers submit (D01), one by one and as members of an audience ([`batch`]): read here, and kept by the data plane
//! that their id leads to (I1, I2). The control plane stores nothing of them.

mod batch;

use governor::clock::{Clock as _, DefaultClock};
use sluice_core::cause::EventEnvelope;
use sluice_core::wire;
use sluice_proto::admin::v1::{SubmitEventRequest, SubmitEventResponse};
use sluice_proto::sync::v1::command::Kind;
use sluice_proto::sync::v1::command_result::Outcome;
use sluice_proto::sync::v1::taken_event::State;
use sluice_proto::sync::v1::{SubmitEvents, Submitted, SubmittedEvent, TakenEvent};
use uuid::Uuid;

use crate::commands::ask_in_turn;
use crate::error::Failure;
use crate::names::workspace_id;
use crate::shared::Shared;

pub(crate) use batch::batch;

/// Has one event taken.
pub(crate) async fn submit(shared: &Shared, asked: SubmitEventRequest) -> Result<SubmitEventResponse, Failure> {
    let workspace = workspace_id(&asked.parent, "parent")?;
    let is_published = is_published(shared, &asked.parent, &workspace).await?;
    let trigger_id = Uuid::now_v7().to_string();
    let event = wire::submitted_event(&asked, &trigger_id, shared.settings.clock.now()).map_err(Failure::Fields)?;
    if asked.validate_only {
        return Ok(SubmitEventResponse { event_id: asked.event_id, ..SubmitEventResponse::default() });
    }
    if !is_published {
        return Err(Failure::NotPublished(asked.parent));
    }
    check_rate(shared, workspace)?;
    let event_id = if asked.event_id.is_empty() { trigger_id.clone() } else { asked.event_id };
    let event = SubmittedEvent {
        submitted: Some(Submitted { action: asked.action, id: event_id.clone() }),
        trigger_id: trigger_id.clone(),
        event: EventEnvelope::from(event).to_json().into(),
        body_bytes: i64::try_from(asked.params.len() + asked.customer.len()).unwrap_or(i64::MAX),
    };
    let mut plane = keeper(shared, &asked.parent, &event_id);
    if plane.is_err() {
        // One may just have connected to another control plane.
        shared.replicas.fresh().await;
        plane = keeper(shared, &asked.parent, &event_id);
    }
    let plane = plane?;
    let events = SubmitEvents { workspace: asked.parent, workflow: String::new(), events: vec![event] };
    let unknown = |failure: Failure| match failure {
        Failure::DataPlaneAway(data_plane) => Failure::EventUnknown { data_plane, event_id: event_id.clone() },
        known => known,
    };
    let taken = taken(shared, &plane, events).await.map_err(unknown)?;
    let taken = taken.into_iter().next().unwrap_or_default();
    let duplicate = match taken.state() {
        State::Accepted => false,
        State::Duplicate => true,
        State::Full => return Err(Failure::InboxFull(plane)),
        State::Unavailable | State::Unspecified => return Err(unknown(Failure::DataPlaneAway(plane))),
    };
    let trigger_id = if duplicate { String::new() } else { trigger_id };
    let TakenEvent { workflows, deliveries, .. } = taken;
    Ok(SubmitEventResponse { event_id, duplicate, trigger_id, workflows, deliveries })
}

/// Whether data planes are to serve anything of a workspace. What is known in memory is not looked up for each event.
async fn is_published(shared: &Shared, name: &str, id: &str) -> Result<bool, Failure> {
    if shared.snapshots.has(name) {
        return Ok(true);
    }
    let row = shared.store.read().await?.workspace(id).await?;
    Ok(row.ok_or_else(|| Failure::NotFound(name.to_owned()))?.revision > 0)
}

fn check_rate(shared: &Shared, workspace: String) -> Result<(), Failure> {
    shared.events.check_key(&workspace).map_err(|not_until| {
        Failure::TooFast("events_per_second", not_until.wait_time_from(DefaultClock::default().now()))
    })
}

/// The data plane that keeps what has this id.
fn keeper(shared: &Shared, workspace: &str, id: &str) -> Result<String, Failure> {
    let none = || Failure::NoDataPlane(format!("no data plane is connected that serves `{workspace}`"));
    shared.data_planes.keeper(workspace, id).ok_or_else(none)
}

/// Has a data plane take events. What came of each, in their order.
async fn taken(shared: &Shared, plane: &str, events: SubmitEvents) -> Result<Vec<TakenEvent>, Failure> {
    let (count, subject) = (events.events.len(), events.workflow.clone());
    match ask_in_turn(shared, plane, &subject, Kind::SubmitEvents(events)).await? {
        Outcome::Taken(taken) if taken.events.len() == count => Ok(taken.events),
        _ => Err(Failure::Internal("a command was answered with something else".to_owned())),
    }
}
