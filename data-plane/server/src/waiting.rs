//! Tells the control plane of deliveries that have waited long without an attempt: for their turn, a limit, or a token. They are listed
//! then and can be ended.
//!
//! Costs the way of a delivery nothing: the inbox is read beside its writer, and what is told rests with the control plane alone. It is
//! told again after a restart, and anything that is reported of an attempt counts for more, whichever comes first.

use std::time::Duration;

use prost::Message as _;
use sluice_proto::admin::v1::{Delivery, DeliveryState};
use sluice_proto::sync::v1::{Job, Outcome, ReportRequest};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::inbox::Waited;
use crate::link::Link;
use crate::outcome::timestamp;
use crate::plane::Plane;

/// Deliveries told of in a second, so that a long queue takes nothing from what is being delivered.
const PACE: u32 = 200;
/// Bytes of jobs that are read at once.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Tells until `shutdown`.
pub async fn run(plane: Plane, link: Link, shutdown: CancellationToken) {
    let mut told = 0;
    let mut wait = plane.settings.waiting_told_after;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = match tell(&plane, &link, &mut told).await {
            // There may be more.
            Ok(count) if count > 0 => Duration::from_secs(1).min(plane.settings.waiting_told_after),
            Ok(_) => plane.settings.waiting_told_after / 2,
            Err(reason) => {
                tracing::debug!(reason, "deliveries that wait are told of later");
                plane.settings.waiting_told_after
            }
        };
    }
}

/// Tells of the next ones after the number `told`; how many.
async fn tell(plane: &Plane, link: &Link, told: &mut i64) -> Result<usize, String> {
    let millis = i64::try_from(plane.settings.waiting_told_after.as_millis()).unwrap_or(i64::MAX);
    let before = plane.clock.now().saturating_sub(millis);
    let waited = plane.inbox.waited(*told, before, PACE, READ_BYTES_MAX).await.map_err(|error| error.to_string())?;
    let Some(last) = waited.last() else { return Ok(0) };
    let (sequence, count) = (last.number, waited.len());
    let outcomes = waited.iter().filter_map(outcome).collect();
    let report = ReportRequest { sequence, outcomes, data_plane_id: plane.settings.data_plane_id.clone() };
    let mut client = link.connect().await.map_err(|error| error.to_string())?;
    // The stream stays open until the answer has come.
    let requests = tokio_stream::once(report).chain(tokio_stream::pending());
    let mut answers = client.report(requests).await.map_err(|status| status.to_string())?.into_inner();
    match answers.message().await.map_err(|status| status.to_string())? {
        Some(answer) if answer.sequence == sequence => {}
        Some(_) | None => return Err("the report was not acknowledged".to_owned()),
    }
    *told = sequence;
    Ok(count)
}

fn outcome(waited: &Waited) -> Option<Outcome> {
    let job = Job::decode(waited.payload.clone()).ok()?;
    let delivery = Delivery {
        name: format!("{}/deliveries/{}", job.workspace, waited.id),
        trigger_id: job.trigger_id,
        workflow: job.workflow,
        step_id: job.step_id,
        state: DeliveryState::Waiting.into(),
        message: "it has had no attempt yet: it waits for its turn, a limit, or a token".to_owned(),
        revision: job.revision,
        accept_time: Some(timestamp(waited.accepted_at)),
        next_attempt_time: waited.due.map(timestamp),
        incoming_integration: job.incoming_integration,
        replay_of: job.replay_of,
        operation: job.operation,
        ..Delivery::default()
    };
    Some(Outcome { workspace: job.workspace, delivery: Some(delivery), order: waited.order, ..Outcome::default() })
}
