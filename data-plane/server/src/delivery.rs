//! **Spine 2**: what happens to one job, from its lease to its recorded outcome.
//!
//! [`deliver`] is the whole story, one step a line. Every way out of it records exactly one outcome, or leaves the job to be
//! leased again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use sluice_core::address::destination_of;
use sluice_core::request::{self, RenderFailure, Unmade};
use sluice_core::response_event::FailureReason;
use sluice_core::template::Context;
use sluice_egress::{Exchange, SendError};
use sluice_proto::admin::v1::failure::Reason;
use sluice_proto::admin::v1::{Attempt, DeliveryState, SentRequest};
use sluice_proto::sync::v1::{Job, RenderedRequest};

use crate::aside::QUICK_BYTES;
use crate::chain::{Started, started_bytes};
use crate::clock::UnixMillis;
use crate::crash::Moment;
use crate::credentials::Withheld;
use crate::dispatch::{Heard, Permit};
use crate::exchange::{Call, Sent, failure, reason, result_label};
use crate::inbox::{Finish, LeaseError, Leased, Report};
use crate::link::dice;
use crate::outcome::{self, Record, timestamp};
use crate::plane::Plane;
use crate::retry::{Attempted, Decision, decide, hold, retry_after};
use crate::runtime::{Target, Workspace};

/// How long a job waits whose workspace, or part of it, is not served: the configuration may still be on its way.
const NOT_SERVED_WAIT_MS: i64 = 30_000;

/// Between tries to record an outcome while the inbox is unavailable.
const SETTLE_AGAIN: Duration = Duration::from_millis(200);

/// Why a job ends without an attempt.
struct Refused {
    reason: FailureReason,
    message: String,
}

impl Refused {
    fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Works on one job until its lease is given back.
pub async fn deliver(plane: &Plane, leased: Leased, permit: Permit) {
    plane.settings.inbox.reached(Moment::Leased);
    let Ok(job) = Job::decode(leased.payload.clone()) else {
        // Written by another build: nothing can be said of it, not even whose it is.
        tracing::error!(id = %leased.id, "a job cannot be read and is kept as dead");
        let finish = Finish::Dead { reason: "unreadable".to_owned(), rendered: None, report: Report::default() };
        settle(plane, &leased, finish).await;
        return;
    };
    let runtime = plane.served.load();
    let Some(workspace) = runtime.workspace(&job.workspace) else {
        tracing::debug!(id = %leased.id, "the workspace is not served; the job waits");
        postpone(plane, &leased, plane.clock.now() + NOT_SERVED_WAIT_MS).await;
        return;
    };
    let work = Work { plane, leased: &leased, job: &job, workspace, permit: &permit };
    let finish = match work.attempt().await {
        Ok(finish) => finish,
        Err(Stopped::Refused { refused, target, attempts }) => work.give_up(refused, target.as_ref(), attempts),
        Err(Stopped::Skipped(message)) => work.skip(&message),
        Err(Stopped::Waits(due)) => {
            postpone(plane, &leased, due).await;
            return;
        }
        Err(Stopped::Lease(error)) => {
            tracing::warn!(id = %leased.id, %error, "an attempt was not begun");
            return;
        }
    };
    settle(plane, &leased, finish).await;
}

/// Why an attempt was not made.
enum Stopped {
    Refused {
        refused: Refused,
        target: Option<Target>,
        attempts: Vec<Attempt>,
    },
    /// A template said that nothing is to be sent (D19).
    Skipped(String),
    Lease(LeaseError),
    /// Not now: there is no token yet, or no room where it goes. Again at this time, without using an attempt (D10).
    Waits(UnixMillis),
}

/// An attempt that was made.
struct Tried<'a> {
    target: &'a Target,
    /// With this attempt.
    kept: RenderedRequest,
    /// As it is shown, at the first attempt.
    request: Option<SentRequest>,
    sent: Result<Exchange, SendError>,
}

/// One job under the configuration in force.
struct Work<'a> {
    plane: &'a Plane,
    leased: &'a Leased,
    job: &'a Job,
    workspace: &'a Arc<Workspace>,
    permit: &'a Permit,
}

impl Work<'_> {
    /// One attempt: render or recall, fetch credentials, record that it begins, send, decide what follows.
    async fn attempt(&self) -> Result<Finish, Stopped> {
        let target = self.target()?;
        let (mut kept, bytes) = self.rendered(&target)?;
        self.permit.call(destination_of(&kept.url)).map_err(Stopped::Waits)?;
        let call = self.call(&target);
        let withheld = |withheld| self.withheld(&target, &kept, withheld);
        let (request, given) = call.authorised(&kept).await.map_err(withheld)?;
        self.check_age(&target, &kept)?;
        let shown = kept.attempts.is_empty().then(|| outcome::shown(&kept, &request));
        let request_bytes = i64::try_from(request.body.len()).unwrap_or(i64::MAX);
        // An operator may have a delivery tried again that was given up with an attempt of which nothing is known.
        let number = kept.attempts.last().map_or(0, |last| last.number).max(self.leased.attempt.cast_signed()) + 1;
        let begun = self.plane.inbox.begin(self.leased.id, self.leased.fence, bytes).await;
        begun.map_err(Stopped::Lease)?;
        self.plane.settings.inbox.reached(Moment::Begun);
        let (started, clock) = (self.plane.clock.now(), Instant::now());
        let Sent { result: sent, token_renewed } = call.send(&kept, request, given).await.map_err(withheld)?;
        self.plane.settings.inbox.reached(Moment::Heard);
        let took = clock.elapsed();
        let now = self.plane.clock.now();
        let attempted = attempted(&sent, now);
        if let Some(hold) = hold(attempted) {
            self.permit.hold_destination(now.saturating_add(millis(hold)));
        }
        self.permit.heard(heard(&sent));
        kept.attempts.push(Attempt {
            number,
            start_time: Some(timestamp(started)),
            duration_ms: i64::try_from(took.as_millis()).unwrap_or(i64::MAX),
            status: sent.as_ref().map_or(0, |exchange| i32::from(exchange.status)),
            failure: reason(&sent).into(),
            ambiguous: self.leased.ambiguous,
            request_bytes,
            response_bytes: sent.as_ref().map_or(0, |exchange| i64::try_from(exchange.body.len()).unwrap_or(i64::MAX)),
            versions: Some(self.workspace.versions(&target)),
            response: None,
            token_renewed,
        });
        kept.revision = target.revision;
        self.plane.metrics.attempt(result_label(&sent), took);
        let policy = &request_of(&target).retry;
        let decision = decide(policy, attempted, number.unsigned_abs(), self.leased.accepted_at, now, dice());
        Ok(self.follow(decision, Tried { target: &target, kept, request: shown, sent }))
    }

    /// What the job is to send, under the configuration in force (D08).
    fn target(&self) -> Result<Target, Stopped> {
        let refuse = |reason, message: &str| {
            let attempts = self.kept().map(|kept| kept.attempts).unwrap_or_default();
            Stopped::Refused { refused: Refused::new(reason, message), target: None, attempts }
        };
        if self.leased.poisoned {
            let message = "the process ended again and again while working on this delivery; nothing more is sent";
            return Err(refuse(FailureReason::CrashLoop, message));
        }
        let left_out = &self.workspace.left_out;
        let target = self.workspace.target(&self.job.workflow, &self.job.step_id);
        let request = target.as_ref().and_then(Target::request);
        // It was not taken out of force, and neither was what its event would start.
        if left_out.has(&self.job.workflow) || request.is_some_and(|request| left_out.asks_for(&request.event_name)) {
            return Err(Stopped::Waits(self.plane.clock.now() + NOT_SERVED_WAIT_MS));
        }
        target.filter(|target| target.request().is_some()).ok_or_else(|| {
            let message = "the workflow or this step of it was taken out of force before the delivery was made";
            refuse(FailureReason::StepRemoved, message)
        })
    }

    /// A job that waited longer than it may is not sent any more (D09).
    fn check_age(&self, target: &Target, kept: &RenderedRequest) -> Result<(), Stopped> {
        let now = self.plane.clock.now();
        if now.saturating_sub(self.leased.accepted_at) > millis(request_of(target).retry.age_max) {
            let message = "it waited longer than its age limit allows".to_owned();
            return Err(self.refuse(FailureReason::Expired, message, kept));
        }
        // Taken for its age under a configuration that has changed since: it goes back to its place.
        if self.permit.is_for_expiry() { Err(Stopped::Waits(now)) } else { Ok(()) }
    }

    /// The bytes of the first attempt, and as the inbox keeps them; rendered now if this is the first (D08).
    fn rendered(&self, target: &Target) -> Result<(RenderedRequest, Bytes), Stopped> {
        if let (Some(kept), Some(bytes)) = (self.kept(), &self.leased.rendered) {
            return Ok((kept, bytes.clone()));
        }
        let refuse = |failure: RenderFailure| Stopped::Refused {
            refused: Refused::new(failure.reason, failure.message),
            target: self.workspace.target(&self.job.workflow, &self.job.step_id),
            attempts: Vec::new(),
        };
        let quick = started_bytes(self.job) <= QUICK_BYTES;
        let rendered = self.call(target).render(quick, || self.context(target)).map_err(|unmade| match unmade {
            Unmade::Skipped(message) => Stopped::Skipped(message),
            Unmade::Failed(failure) => refuse(failure),
        })?;
        let bytes = Bytes::from(rendered.encode_to_vec());
        // What was encoded can be read; its body lies in what is kept, and is there once.
        let rendered = RenderedRequest::decode(bytes.clone()).unwrap_or(rendered);
        Ok((rendered, bytes))
    }

    /// What templates see: what the trigger brought.
    fn context(&self, target: &Target) -> Result<Context, Unmade> {
        let unreadable = || RenderFailure::new(FailureReason::RenderError, "", "the stored request cannot be read");
        let started = Started::read(self.job).ok_or_else(unreadable)?;
        Ok(request::context(started.cause(), &target.workflow, target.step(), &self.job.trigger_id))
    }

    fn call<'c>(&'c self, target: &'c Target) -> Call<'c> {
        Call {
            plane: self.plane,
            workspace: self.workspace,
            target,
            request: request_of(target),
            id: self.leased.id,
            hops: self.job.hops,
            trace: self.job.trace.as_ref(),
        }
    }

    fn kept(&self) -> Option<RenderedRequest> {
        self.leased.rendered.as_ref().and_then(|bytes| RenderedRequest::decode(bytes.clone()).ok())
    }

    /// Why the request is not sent now.
    fn withheld(&self, target: &Target, kept: &RenderedRequest, withheld: Withheld) -> Stopped {
        match withheld {
            Withheld::Refused { reason, message } => self.refuse(reason, message, kept),
            Withheld::NoToken { after, message, under_way: _ } => self.wait(target, kept, after, message),
        }
    }

    /// Deliveries wait for a token, they do not fail: no attempt is used, until the delivery is too old (D21). Those behind it
    /// need not find out one by one.
    fn wait(&self, target: &Target, kept: &RenderedRequest, after: Duration, message: String) -> Stopped {
        let now = self.plane.clock.now();
        let end = self.leased.accepted_at.saturating_add(millis(request_of(target).retry.age_max));
        if now >= end {
            return self.refuse(FailureReason::AuthError, message, kept);
        }
        let due = now.saturating_add(millis(after)).min(end);
        self.permit.hold_flow(due);
        Stopped::Waits(due)
    }

    /// The delivery ends without this attempt.
    fn refuse(&self, reason: FailureReason, message: String, kept: &RenderedRequest) -> Stopped {
        Stopped::Refused {
            refused: Refused::new(reason, message),
            target: self.workspace.target(&self.job.workflow, &self.job.step_id),
            attempts: kept.attempts.clone(),
        }
    }

    /// Turns the decision into what the inbox records.
    fn follow(&self, decision: Decision, tried: Tried<'_>) -> Finish {
        match decision {
            Decision::RetryAt(due) => {
                let rendered = tried.kept.encode_to_vec().into();
                let report = self.report(DeliveryState::Waiting, Some(due), tried);
                Finish::Retry { due, rendered, report }
            }
            Decision::Delivered => {
                self.plane.metrics.delivery("delivered");
                Finish::Done { report: self.report(DeliveryState::Delivered, None, tried) }
            }
            Decision::GiveUp => {
                self.plane.metrics.delivery("dead");
                let reason = reason(&tried.sent).as_str_name().to_owned();
                let rendered = Some(tried.kept.encode_to_vec().into());
                let report = self.report(DeliveryState::Dead, None, tried);
                Finish::Dead { reason, rendered, report }
            }
        }
    }

    /// Where the delivery stands after an attempt.
    fn report(&self, state: DeliveryState, next_attempt: Option<UnixMillis>, tried: Tried<'_>) -> Report {
        let (end, message) = match &tried.sent {
            Ok(exchange) if state == DeliveryState::Delivered => (outcome::End::Response(exchange), String::new()),
            Ok(exchange) => {
                (outcome::End::Response(exchange), format!("the destination answered with status {}", exchange.status))
            }
            Err(error) => (outcome::End::NoResponse(failure(error)), error.to_string()),
        };
        outcome::encode(
            self.plane,
            Record {
                of: self.of(),
                state,
                reason: reason(&tried.sent),
                message: &message,
                next_attempt,
                target: Some(tried.target),
                kept: tried.kept,
                request: tried.request,
                end,
            },
        )
    }

    fn of(&self) -> outcome::Of<'_> {
        outcome::Of {
            workspace: self.workspace,
            job: self.job,
            delivery_id: self.leased.id,
            starts: Some(self.leased.lane),
            order: self.leased.fence.order(),
            accepted_at: self.leased.accepted_at,
            now: self.plane.clock.now(),
        }
    }

    /// Ends the delivery without another attempt. One that was begun before and never recorded is told with it: the destination
    /// may have seen it (I3).
    fn give_up(&self, refused: Refused, target: Option<&Target>, mut attempts: Vec<Attempt>) -> Finish {
        self.plane.metrics.delivery("dead");
        let reason = refused.reason.description();
        if self.leased.ambiguous {
            attempts.push(Attempt {
                number: attempts.last().map_or(0, |last| last.number).max(self.leased.attempt.cast_signed()) + 1,
                failure: Reason::from(refused.reason).into(),
                ambiguous: true,
                ..Attempt::default()
            });
        }
        tracing::info!(id = %self.leased.id, reason, message = refused.message, "given up");
        let before = self.kept();
        let rendered = before.is_some();
        let kept = RenderedRequest { attempts, ..before.unwrap_or_default() };
        let rendered = rendered.then(|| kept.encode_to_vec().into());
        let report = outcome::encode(
            self.plane,
            Record {
                of: self.of(),
                state: DeliveryState::Dead,
                reason: refused.reason.into(),
                message: &refused.message,
                next_attempt: None,
                target,
                kept,
                request: None,
                end: outcome::End::NoResponse(refused.reason),
            },
        );
        Finish::Dead { reason: reason.to_owned(), rendered, report }
    }

    /// Ends the delivery without a request, as its template asked for: recorded, and not retried (D19).
    fn skip(&self, message: &str) -> Finish {
        self.plane.metrics.delivery("skipped");
        tracing::info!(id = %self.leased.id, message, "skipped");
        let target = self.workspace.target(&self.job.workflow, &self.job.step_id);
        let revision = target.as_ref().map_or(0, |target| target.revision);
        let kept = RenderedRequest { revision, ..RenderedRequest::default() };
        let report = outcome::encode(
            self.plane,
            Record {
                of: self.of(),
                state: DeliveryState::Skipped,
                reason: Reason::Skipped,
                message,
                next_attempt: None,
                target: target.as_ref(),
                kept,
                request: None,
                end: outcome::End::NoAttempt,
            },
        );
        Finish::Done { report }
    }
}

/// Only targets with a request are worked on.
fn request_of(target: &Target) -> &sluice_core::model::OutgoingRequest {
    target.request().expect("a target without a request is refused before")
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn attempted(sent: &Result<Exchange, SendError>, now: UnixMillis) -> Attempted {
    match sent {
        Ok(exchange) => {
            let headers = exchange.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("retry-after"));
            let retry_after = retry_after(headers.map(|(_, value)| value.as_str()), now);
            Attempted::Answered { status: exchange.status, retry_after }
        }
        Err(error) => Attempted::Failed { reason: failure(error), retryable: error.is_retryable() },
    }
}

/// What an attempt says of the destination's health.
fn heard(sent: &Result<Exchange, SendError>) -> Heard {
    match sent {
        Ok(exchange) if exchange.status >= 500 => Heard::Trouble,
        Ok(_) => Heard::Answer,
        Err(error) => match error {
            SendError::UrlDenied(_)
            | SendError::AddressDenied
            | SendError::LoopDetected
            | SendError::ProxyDenied
            | SendError::BadRequest(_) => Heard::Nothing,
            SendError::Dns
            | SendError::DnsTimeout
            | SendError::Connect
            | SendError::TlsHandshake
            | SendError::CertificateInvalid
            | SendError::Timeout { .. }
            | SendError::ConnectionClosed { .. }
            | SendError::ResponseInvalid => Heard::Trouble,
        },
    }
}

/// Gives the job back without using an attempt.
async fn postpone(plane: &Plane, leased: &Leased, due: UnixMillis) {
    if let Err(error) = plane.inbox.postpone(leased.id, leased.fence, due).await {
        tracing::warn!(id = %leased.id, %error, "a job could not be given back");
    }
}

/// Records the outcome. Without it, the lease runs out and the job is worked on again, marked ambiguous.
async fn settle(plane: &Plane, leased: &Leased, finish: Finish) {
    // What is known of the attempt is worth a few tries: a store that is away for a moment costs no second delivery.
    let clock = Instant::now();
    loop {
        match plane.inbox.finish(leased.id, leased.fence, finish.clone()).await {
            Ok(()) => {
                plane.settings.inbox.reached(Moment::Recorded);
                return;
            }
            Err(LeaseError::Unavailable(error)) if clock.elapsed() < plane.settings.inbox.lease() => {
                tracing::debug!(id = %leased.id, %error, "an outcome is recorded later");
                tokio::time::sleep(SETTLE_AGAIN).await;
            }
            Err(error) => {
                tracing::warn!(id = %leased.id, %error, "an outcome was not recorded");
                return;
            }
        }
    }
}
