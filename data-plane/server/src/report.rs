//! Outcomes and events to the control plane: read from the outbox, sent, and forgotten only when they were acknowledged.
//! A control plane that is away for an hour loses nothing.

use prost::Message as _;
use sluice_proto::sync::v1::{Outcome, ReportRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::link::{Backoff, Link};
use crate::plane::Plane;

/// Most outcomes in one message.
const OUTCOMES_MAX: u32 = 500;
/// Most bytes of outcomes in one message, under gRPC's 4 MiB.
const OUTCOME_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Reports until `shutdown`.
pub async fn run(plane: Plane, link: Link, shutdown: CancellationToken) {
    let mut backoff = Backoff::default();
    loop {
        let ended = tokio::select! {
            () = shutdown.cancelled() => return,
            ended = session(&plane, &link, &mut backoff) => ended,
        };
        let wait = backoff.failed();
        tracing::debug!(reason = ended.err().unwrap_or_default(), wait_ms = wait.as_millis(), "reports wait");
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn session(plane: &Plane, link: &Link, backoff: &mut Backoff) -> Result<(), String> {
    // An idle plane needs no stream: dial when there is something to say.
    plane.inbox.wait_outbox(0).await.map_err(|error| error.to_string())?;
    let mut client = link.connect().await.map_err(|error| error.to_string())?;
    let (requests, outgoing) = mpsc::channel(1);
    let mut acknowledged =
        client.report(ReceiverStream::new(outgoing)).await.map_err(|status| status.to_string())?.into_inner();
    let mut reported = 0;
    loop {
        plane.inbox.wait_outbox(reported).await.map_err(|error| error.to_string())?;
        let rows = plane
            .inbox
            .outbox_read(reported, OUTCOMES_MAX, OUTCOME_BYTES_MAX)
            .await
            .map_err(|error| error.to_string())?;
        let Some((sequence, _)) = rows.last() else { continue };
        let sequence = *sequence;
        let outcomes = rows.into_iter().filter_map(|(row, bytes)| match Outcome::decode(bytes) {
            Ok(outcome) => Some(outcome),
            Err(error) => {
                tracing::error!(row, %error, "an outcome in the outbox cannot be read and is left out");
                None
            }
        });
        let request = ReportRequest {
            sequence,
            outcomes: outcomes.collect(),
            data_plane_id: plane.settings.data_plane_id.clone(),
        };
        requests.send(request).await.map_err(|_closed| "the stream closed".to_owned())?;
        match acknowledged.message().await.map_err(|status| status.to_string())? {
            Some(answer) if answer.sequence == sequence => {}
            Some(_) => return Err("another message was acknowledged than the one sent".to_owned()),
            None => return Err("the stream closed".to_owned()),
        }
        plane.inbox.outbox_trim(sequence).await.map_err(|error| error.to_string())?;
        backoff.reset();
        reported = sequence;
    }
}
