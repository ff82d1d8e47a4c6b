//! What the control plane has this data plane do for an operator, and what came of it. Every command may come twice: doing it
//! again changes nothing.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use sluice_core::envelope::Envelope;
use sluice_core::lineage;
use sluice_core::response_event::FailureReason;
use sluice_proto::admin::v1::failure::Reason;
use sluice_proto::admin::v1::{Delivery, DeliveryState};
use sluice_proto::sync::v1::command::Kind;
use sluice_proto::sync::v1::command_error::Code;
use sluice_proto::sync::v1::command_result::Outcome;
use sluice_proto::sync::v1::{
    CaptureSet, Command, CommandError, CommandResult, Job, OpenCapture, RenderedRequest, ReplayJob, ReplayJobs,
    ReplayedJobs,
};
use uuid::Uuid;

use crate::captures::{self, NotOpened};
use crate::drain;
use crate::inbox::{Accept, Accepted, Claim, Flow, Found, Lane, LeaseError, NewJob, Place, Steer, Unavailable};
use crate::outcome::{End, Of, Record, tell};
use crate::plane::Plane;
use crate::submitted;
use crate::trial;

/// How long it is remembered that an operation has repeated a delivery: longer than an operation may be held up.
const REPLAY_WINDOW: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often a job that changes under our hands is looked at again.
const TRIES: usize = 5;

/// What an operator wants of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Retry,
    Cancel,
}

/// Does a command.
pub async fn run(plane: &Plane, command: Command) -> CommandResult {
    let done = match command.kind {
        Some(Kind::Retry(asked)) => steer(plane, &asked.delivery, Wish::Retry).await.map(Outcome::Delivery),
        Some(Kind::Cancel(asked)) => steer(plane, &asked.delivery, Wish::Cancel).await.map(Outcome::Delivery),
        Some(Kind::Replay(asked)) => replay(plane, asked).await.map(Outcome::Replayed),
        Some(Kind::OpenCapture(asked)) => open_capture(plane, asked).await.map(Outcome::Capture),
        Some(Kind::CloseCapture(asked)) => {
            plane.captures.close(&asked.capture_id);
            Ok(Outcome::Capture(CaptureSet {}))
        }
        Some(Kind::TestRequest(asked)) => trial::request(plane, asked).await.map(Outcome::TestedRequest),
        Some(Kind::TestConnection(asked)) => trial::connection(plane, asked).await.map(Outcome::TestedConnection),
        Some(Kind::SubmitEvents(asked)) => submitted::take(plane, asked).await.map(Outcome::Taken),
        Some(Kind::Drain(asked)) => drain::run(plane, asked).await.map(Outcome::Drained).map_err(unavailable),
        None => Err(refuse(Code::UnknownCommand, "this release does not know the command")),
    };
    CommandResult { id: command.id, outcome: Some(done.unwrap_or_else(Outcome::Error)) }
}

/// The answer to a command that there is no room for.
pub fn busy(command: &Command) -> CommandResult {
    let error = refuse(Code::Unavailable, "too many commands run already; call again");
    CommandResult { id: command.id, outcome: Some(Outcome::Error(error)) }
}

/// Why a command is not done.
pub(crate) fn refuse(code: Code, message: &str) -> CommandError {
    CommandError { code: code.into(), message: message.to_owned(), problems: Vec::new() }
}

fn unavailable(_: Unavailable) -> CommandError {
    refuse(Code::Unavailable, "the inbox does not answer; call again")
}

/// Waits for a request to an endpoint. Drafts are compiled off the request path.
async fn open_capture(plane: &Plane, asked: OpenCapture) -> Result<CaptureSet, CommandError> {
    let plane = plane.clone();
    let opened = tokio::task::spawn_blocking(move || captures::open(&plane, &asked)).await;
    match opened {
        Ok(Ok(())) => Ok(CaptureSet {}),
        Ok(Err(NotOpened::TooMany)) => Err(refuse(Code::LimitReached, "too many captures are open; try again later")),
        Ok(Err(NotOpened::Draft(problems))) => {
            let error = refuse(Code::DraftInvalid, "the draft cannot be used here");
            Err(CommandError { problems, ..error })
        }
        Err(_panicked) => Err(refuse(Code::Unavailable, "opening the capture failed; the log has the details")),
    }
}

/// Finds the delivery's job and changes it, unless somebody works on it.
async fn steer(plane: &Plane, delivery: &str, wish: Wish) -> Result<Delivery, CommandError> {
    let not_kept = || refuse(Code::JobNotKept, "the delivery is not kept here");
    let (workspace, id) = delivery.split_once("/deliveries/").ok_or_else(not_kept)?;
    let id = Uuid::try_parse(id).map_err(|_| not_kept())?;
    for _ in 0..TRIES {
        let found = plane.inbox.find(id).await.map_err(unavailable)?.ok_or_else(not_kept)?;
        let job = Job::decode(found.payload.clone()).map_err(|_| not_kept())?;
        if job.workspace != workspace {
            return Err(not_kept());
        }
        let (told, change) = match (found.place, wish) {
            (Place::Leased, Wish::Retry | Wish::Cancel) => {
                return Err(refuse(Code::JobInWork, "the delivery is being sent right now"));
            }
            (Place::Dead, Wish::Cancel) => return Err(refuse(Code::JobEnded, "the delivery has ended")),
            // It was asked for before.
            (Place::Ready, Wish::Retry) => (record(plane, id, &found, &job, wish)?, None),
            (Place::Delayed | Place::Dead, Wish::Retry) => {
                let told = record(plane, id, &found, &job, wish)?;
                let report = told.encode_to_vec().into();
                (told, Some(Steer::Retry { report }))
            }
            (Place::Ready | Place::Delayed, Wish::Cancel) => {
                let told = record(plane, id, &found, &job, wish)?;
                let report = told.encode_to_vec().into();
                (told, Some(Steer::Cancel { report }))
            }
        };
        let changed = match change {
            Some(change) => plane.inbox.steer(id, found.fence, change).await,
            None => Ok(()),
        };
        match changed {
            Ok(()) => {
                tracing::info!(%id, ?wish, "an operator has steered a delivery");
                if wish == Wish::Cancel {
                    plane.metrics.delivery("cancelled");
                }
                return told.delivery.ok_or_else(not_kept);
            }
            Err(LeaseError::Fenced) => {}
            Err(LeaseError::Unavailable(error)) => return Err(unavailable(error)),
        }
    }
    Err(refuse(Code::JobInWork, "the delivery changes all the time; call again"))
}

/// How the delivery stands when the wish has come true.
fn record(
    plane: &Plane,
    id: Uuid,
    found: &Found,
    job: &Job,
    wish: Wish,
) -> Result<sluice_proto::sync::v1::Outcome, CommandError> {
    let runtime = plane.served.load();
    let workspace = runtime.workspace(&job.workspace);
    let workspace =
        workspace.ok_or_else(|| refuse(Code::WorkspaceNotServed, "the workspace is not served here (yet)"))?;
    let kept = found.rendered.clone().and_then(|bytes| RenderedRequest::decode(bytes).ok()).unwrap_or_default();
    let now = plane.clock.now();
    let of = Of {
        workspace,
        job,
        delivery_id: id,
        starts: None,
        order: found.fence.order() + 1,
        accepted_at: found.accepted_at,
        now,
    };
    let target = workspace.target(&job.workflow, &job.step_id);
    let (state, reason, message, next_attempt, end) = match wish {
        Wish::Retry => {
            let reason = kept.attempts.last().map_or(Reason::Unspecified, |last| last.failure());
            (DeliveryState::Waiting, reason, "an operator has it tried now", Some(now), End::NoAttempt)
        }
        Wish::Cancel => {
            let end = End::NoResponse(FailureReason::Cancelled);
            (DeliveryState::Cancelled, Reason::Cancelled, "an operator ended it", None, end)
        }
    };
    let target = target.as_ref();
    Ok(tell(plane, Record { of, state, reason, message, next_attempt, target, kept, request: None, end }))
}

/// Enqueues deliveries once more, each as a job of its own. Its id comes from the operation and the old delivery, and so does the
/// key it claims: however often the command comes, there is one. No key of an integration is looked at (D05).
async fn replay(plane: &Plane, asked: ReplayJobs) -> Result<ReplayedJobs, CommandError> {
    let runtime = plane.served.load();
    let workspace = runtime.workspace(&asked.workspace).filter(|workspace| workspace.left_out.is_empty());
    let workspace =
        workspace.ok_or_else(|| refuse(Code::WorkspaceNotServed, "the workspace is not served here (yet)"))?;
    let asked = &asked;
    let repeat = |job: ReplayJob| async move {
        let target = workspace.target(&job.workflow, &job.step_id);
        let flow = target.and_then(|target| workspace.flow(&target.workflow, target.step()));
        let Some(flow) = flow else { return Code::StepRemoved };
        match plane.inbox.accept(repeated(asked, job, workspace.revision, flow)).await {
            // Another request can only have the key if it is the same one, a long time ago.
            Ok(Accepted::Accepted | Accepted::Duplicate) => Code::Unspecified,
            Ok(Accepted::Full) | Err(Unavailable) => Code::Unavailable,
        }
    };
    let codes = join_all(asked.jobs.iter().cloned().map(repeat)).await;
    tracing::info!(operation = asked.operation, deliveries = codes.len(), "deliveries are repeated");
    Ok(ReplayedJobs { codes: codes.into_iter().map(i32::from).collect() })
}

/// The job that repeats a delivery.
fn repeated(asked: &ReplayJobs, job: ReplayJob, revision: i64, flow: Flow) -> Accept {
    let once = format!("{} {}", asked.operation, job.delivery);
    let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, once.as_bytes());
    // A digest like those that integrations claim, and of something that none of theirs is of.
    let key = Sha256::new().chain_update(b"sluice.replay.1").chain_update(id.as_bytes()).finalize().into();
    let job = Job {
        workspace: asked.workspace.clone(),
        workflow: job.workflow,
        step_id: job.step_id,
        trigger_id: job.trigger_id,
        revision,
        hops: if job.event.is_empty() { hops(&job.envelope) } else { job.hops },
        envelope: job.envelope,
        trace: None,
        incoming_integration: job.incoming_integration,
        body_bytes: job.body_bytes,
        replay_of: job.delivery,
        operation: asked.operation.clone(),
        event: job.event,
        submitted: job.submitted,
    };
    let job = NewJob { id, lane: Lane::Bulk, flow: Arc::new(flow), payload: job.encode_to_vec().into() };
    Accept { request: id, claim: Some(Claim { key, window: REPLAY_WINDOW }), jobs: vec![job] }
}

/// How many calls came before the trigger (D01).
fn hops(envelope: &[u8]) -> u32 {
    Envelope::from_json(envelope).map_or(0, |envelope| lineage::hops(&envelope.headers))
}
