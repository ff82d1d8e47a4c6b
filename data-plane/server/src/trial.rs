//! Requests that are tried out before anything is published (D22, S41): compiled from what comes with the command, rendered, authorised
//! and sent by the functions of a delivery ([`crate::exchange`]). Hides that nothing of it is served: no job, no retry, no limit of a
//! destination, no breaker, and no event unless it is asked for.

mod connection;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_core::cause::EventEnvelope;
use sluice_core::envelope::Envelope;
use sluice_core::flatten::{Limits, parse_body};
use sluice_core::request::{self, BodyType, RenderFailure, Unmade, body_type, is_json};
use sluice_core::response_event::{self, Built, Delivery, FailureReason};
use sluice_core::template::{Context, value_from_json};
use sluice_egress::{Exchange, Request};
use sluice_proto::admin::v1::failure::Reason;
use sluice_proto::admin::v1::{Event, JsonCheck, RequestPreview, RequestProblem, TestOutcome};
use sluice_proto::sync::v1::command_error::Code;
use sluice_proto::sync::v1::{CommandError, Job, RenderedRequest, TestRequest, TestedRequest, WorkspaceBody};
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

use crate::aside::QUICK_BYTES;
use crate::chain;
use crate::commands::refuse;
use crate::credentials::{self, Given, Withheld};
use crate::exchange::{Call, Sent, failure, reason, result_label};
use crate::inbox::{Accept, Accepted, Lane, Unavailable};
use crate::outcome::{self, End, timestamp};
use crate::plane::Plane;
use crate::runtime::{self, Target, Workspace};

/// Tests that run at once.
const AT_ONCE: usize = 16;
/// How long a test may take that says nothing of it.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Places for tests.
#[derive(Debug)]
pub struct Tests(Semaphore);

impl Default for Tests {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONCE))
    }
}

pub(crate) use connection::connection;

fn place(plane: &Plane) -> Result<SemaphorePermit<'_>, CommandError> {
    let full = |_full| refuse(Code::TooManyTests, "so many tests run on this data plane already");
    plane.tests.0.try_acquire().map_err(full)
}

/// Renders a request and, if asked to, sends it.
///
/// # Errors
/// Nothing was sent: there is no place, or what came with the command cannot be used.
pub(crate) async fn request(plane: &Plane, asked: TestRequest) -> Result<TestedRequest, CommandError> {
    let _place = place(plane)?;
    let workspace = compiled(plane, &asked.workspace, asked.configuration.clone()).await?;
    let target = workspace.target(&asked.workflow, &asked.step_id);
    let invalid = || refuse(Code::ConfigurationInvalid, "the step is not part of what came with the test");
    let target = target.ok_or_else(invalid)?;
    let request = target.request().ok_or_else(invalid)?;
    let id = Uuid::new_v4();
    let call = Call { plane, workspace: &workspace, target: &target, request, id, hops: 0, trace: None };
    let trial = Trial { plane, asked: &asked, target: &target, call };
    let rendered = trial.rendered();
    let preview = trial.preview(&rendered);
    let made = match (asked.send, rendered) {
        (false, _) => None,
        (true, Ok(kept)) => Some(trial.sent(&kept).await),
        (true, Err(unmade)) => Some(trial.unsent(unmade)),
    };
    let event_action = request.event_name.to_string();
    let mut tested = TestedRequest { preview: Some(preview), event_action, ..TestedRequest::default() };
    if let Some(made) = made {
        let (workspace, status, failure) =
            (&asked.workspace, made.outcome.status, made.outcome.failure().as_str_name());
        tracing::info!(test = true, %id, workspace, status, failure, "a test request was made");
        let told = trial.told(&made);
        if let (End::Response(_), Some(built)) = (made.end(), &told) {
            tested.event_parameters = built.event.params.keys().cloned().collect();
        }
        if let Some(built) = told.filter(|_| asked.emit_event) {
            tested.event = trial.tell(built, &made).await;
        }
        tested.outcome = Some(made.outcome);
    }
    Ok(tested)
}

/// Compiles what came with the command, off the request path.
async fn compiled(plane: &Plane, workspace: &str, body: Option<WorkspaceBody>) -> Result<Arc<Workspace>, CommandError> {
    let (plane, name, body) = (plane.clone(), workspace.to_owned(), body.unwrap_or_default());
    let compiled = tokio::task::spawn_blocking(move || runtime::for_test(&plane, &name, body)).await;
    match compiled {
        Ok(Ok(workspace)) => Ok(Arc::new(workspace)),
        Ok(Err(problems)) => {
            let why = problems.first().map_or("", |problem| problem.message.as_str());
            Err(refuse(Code::ConfigurationInvalid, why))
        }
        Err(_panicked) => Err(refuse(Code::Unavailable, "compiling the test failed; the log has the details")),
    }
}

/// What came of sending a request.
struct Made {
    outcome: TestOutcome,
    /// The URL as rendered; empty when it was not.
    url: String,
    /// The answer, or why there is none; `None`: a template said that nothing is to be sent (D19).
    result: Option<Result<Exchange, FailureReason>>,
}

impl Made {
    fn end(&self) -> End<'_> {
        match &self.result {
            Some(Ok(exchange)) => End::Response(exchange),
            Some(Err(reason)) => End::NoResponse(*reason),
            None => End::NoAttempt,
        }
    }
}

/// One test.
struct Trial<'a> {
    plane: &'a Plane,
    asked: &'a TestRequest,
    target: &'a Target,
    call: Call<'a>,
}

impl Trial<'_> {
    fn rendered(&self) -> Result<RenderedRequest, Unmade> {
        let TestRequest { envelope, event, customer, .. } = self.asked;
        let quick = envelope.len() + event.len() + customer.len() <= QUICK_BYTES;
        self.call.render(quick, || self.context())
    }

    /// What templates see: what was chosen for the test, or nothing.
    fn context(&self) -> Result<Context, Unmade> {
        let unreadable = || RenderFailure::new(FailureReason::RenderError, "", "what was chosen cannot be read");
        let TestRequest { envelope, event, customer, .. } = self.asked;
        let (workflow, step, id) = (&self.target.workflow, self.target.step(), self.call.id.to_string());
        let mut context = if !envelope.is_empty() {
            let envelope = Envelope::from_json(envelope).map_err(|_| unreadable())?;
            request::context(&envelope, workflow, step, &id)
        } else if !event.is_empty() {
            let event = EventEnvelope::from_json(event).map_err(|_| unreadable())?;
            request::context(&event, workflow, step, &id)
        } else {
            let mut context = request::step_context(workflow, step, &id);
            context.set_now(self.plane.clock.now());
            context
        };
        if !customer.is_empty() {
            let customer = parse_body(customer, &Limits::STORED).map_err(|_| unreadable())?;
            context.set("customer", value_from_json(&customer));
        }
        Ok(context)
    }

    /// The request as it is shown: with what its connections add, and none of their secrets.
    fn preview(&self, rendered: &Result<RenderedRequest, Unmade>) -> RequestPreview {
        match rendered {
            Ok(kept) => {
                let json_check = json_check(kept).into();
                let missing_paths = kept.missing_paths.clone();
                let preview = RequestPreview { json_check, missing_paths, ..RequestPreview::default() };
                match self.masked(kept) {
                    Ok(request) => RequestPreview { request: Some(outcome::shown(kept, &request)), ..preview },
                    Err(withheld) => {
                        let (reason, message) = refusal(withheld);
                        let problem = RequestProblem {
                            reason: Reason::from(reason).into(),
                            message,
                            ..RequestProblem::default()
                        };
                        RequestPreview { problem: Some(problem), ..preview }
                    }
                }
            }
            Err(Unmade::Skipped(message)) => RequestPreview { skipped: message.clone(), ..RequestPreview::default() },
            Err(Unmade::Failed(failure)) => {
                let broken = failure.reason == FailureReason::RenderInvalidJson;
                let json_check = if broken { JsonCheck::JsonInvalid } else { JsonCheck::Unspecified }.into();
                RequestPreview { problem: Some(problem(failure)), json_check, ..RequestPreview::default() }
            }
        }
    }

    fn masked(&self, kept: &RenderedRequest) -> Result<Request, Withheld> {
        let mut request = self.call.plain(kept)?;
        credentials::put_masked(self.plane, self.call.workspace, self.call.request, &mut request)?;
        Ok(request)
    }

    /// Sends the request, within the time that a test may take.
    async fn sent(&self, kept: &RenderedRequest) -> Made {
        let time_max = self.asked.time_max.and_then(|time| Duration::try_from(time).ok()).unwrap_or(TIME_MAX);
        let sent = tokio::time::timeout(time_max, self.exchange(kept)).await;
        let (outcome, result) = sent.unwrap_or_else(|_late| {
            let message = format!("a test may take {} s at most, with all that it waits for", time_max.as_secs());
            failed(FailureReason::Timeout, message)
        });
        if outcome.send_time.is_none() {
            self.plane.metrics.test_request(outcome.failure().as_str_name());
        }
        Made { outcome, url: kept.url.clone(), result: Some(result) }
    }

    async fn exchange(&self, kept: &RenderedRequest) -> (TestOutcome, Result<Exchange, FailureReason>) {
        let withheld = |withheld| {
            let (reason, message) = refusal(withheld);
            failed(reason, message)
        };
        let (request, given) = match self.authorised(kept).await {
            Ok(authorised) => authorised,
            Err(why) => return withheld(why),
        };
        let (begun, clock) = (self.plane.clock.now(), Instant::now());
        let Sent { result, token_renewed } = match self.call.send(kept, request, given).await {
            Ok(sent) => sent,
            Err(why) => return withheld(why),
        };
        self.plane.metrics.test_request(result_label(&result));
        let message = match &result {
            Ok(exchange) if (200..300).contains(&exchange.status) => String::new(),
            Ok(exchange) => format!("the destination answered with status {}", exchange.status),
            Err(error) => error.to_string(),
        };
        let outcome = TestOutcome {
            status: result.as_ref().map_or(0, |exchange| exchange.status.into()),
            failure: reason(&result).into(),
            message,
            response: result.as_ref().ok().map(outcome::received),
            duration_ms: i64::try_from(clock.elapsed().as_millis()).unwrap_or(i64::MAX),
            send_time: Some(timestamp(begun)),
            token_renewed,
        };
        (outcome, result.map_err(|error| failure(&error)))
    }

    /// The response event that a delivery would tell of this.
    fn told(&self, made: &Made) -> Option<Built> {
        let (request, end) = (self.call.request, made.end());
        let headers = end.headers(|_| true);
        let outcome = end.told(&headers)?;
        let context = || self.context().unwrap_or_else(|_unreadable| Context::new());
        let parameters = outcome::rendered_parameters(self.target, end, &headers, context);
        let started = EventEnvelope::from_json(&self.asked.event).ok();
        let (workflow, step) = (&self.target.workflow, self.target.step());
        Some(response_event::build(&Delivery {
            event_uuid: &outcome::event_id(self.call.id).to_string(),
            business_profile_id: self.call.workspace.business_profile_id,
            time: self.plane.clock.now(),
            action: &request.event_name,
            name: &request.webhook_name,
            request_url: &made.url,
            step: Some(response_event::Step {
                diagram_id: &workflow.uid,
                diagram_name: &workflow.display_name,
                block_id: &step.id,
                block_name: &step.name,
            }),
            customer: started.as_ref().map(EventEnvelope::profile).unwrap_or_default(),
            outcome,
            parameters: &parameters,
        }))
    }

    /// Tells the event of a test that is asked to (D22): starts what asks for it, in one durable step. `None`: there is no room for
    /// that, and nobody is told.
    async fn tell(&self, built: Built, made: &Made) -> Option<Event> {
        let Built { event, cut_parameters, .. } = built;
        let runtime = self.plane.served.load();
        let served = runtime.workspace(&self.asked.workspace);
        // A chain that was cut stays cut (D01).
        let served = served.filter(|_| !matches!(made.end(), End::NoResponse(FailureReason::LoopDetected)));
        let jobs = served.map(|workspace| chain::jobs(workspace, &event, &Job::default(), Lane::Realtime));
        if let Some(jobs) = jobs.filter(|jobs| !jobs.is_empty()) {
            let accept = Accept { request: outcome::event_id(self.call.id), claim: None, jobs };
            match self.plane.inbox.accept(accept).await {
                Ok(Accepted::Accepted | Accepted::Duplicate) => {}
                Ok(Accepted::Full) | Err(Unavailable) => {
                    tracing::warn!(test = true, id = %self.call.id, "no room for what the event of a test starts");
                    return None;
                }
            }
        }
        self.plane.metrics.event_values_cut(cut_parameters);
        Some(outcome::shown_event(&self.asked.workspace, event, "", self.plane.clock.now()))
    }

    /// Waits for a token that is being fetched: nobody else wants the place of a test.
    async fn authorised(&self, kept: &RenderedRequest) -> Result<(Request, Given), Withheld> {
        loop {
            match self.call.authorised(kept).await {
                Err(Withheld::NoToken { after, under_way: true, .. }) => tokio::time::sleep(after).await,
                authorised => return authorised,
            }
        }
    }

    /// Nothing was sent.
    fn unsent(&self, unmade: Unmade) -> Made {
        let made = |outcome, result| Made { outcome, url: String::new(), result };
        let made = match unmade {
            Unmade::Skipped(message) => {
                made(TestOutcome { failure: Reason::Skipped.into(), message, ..TestOutcome::default() }, None)
            }
            Unmade::Failed(failure) => {
                let (outcome, result) = failed(failure.reason, failure.message);
                made(outcome, Some(result))
            }
        };
        self.plane.metrics.test_request(made.outcome.failure().as_str_name());
        made
    }
}

fn refusal(withheld: Withheld) -> (FailureReason, String) {
    match withheld {
        Withheld::Refused { reason, message } => (reason, message),
        Withheld::NoToken { message, .. } => (FailureReason::AuthError, message),
    }
}

/// There is no answer.
fn failed(reason: FailureReason, message: String) -> (TestOutcome, Result<Exchange, FailureReason>) {
    (TestOutcome { failure: Reason::from(reason).into(), message, ..TestOutcome::default() }, Err(reason))
}

fn problem(failure: &RenderFailure) -> RequestProblem {
    RequestProblem {
        reason: Reason::from(failure.reason).into(),
        field: failure.field.clone(),
        line: failure.line.cast_signed(),
        column: failure.column.cast_signed(),
        message: failure.message.clone(),
    }
}

/// Whether the body is what its type says (S31).
fn json_check(kept: &RenderedRequest) -> JsonCheck {
    let kind = body_type(kept.headers.iter().map(|header| (header.name.as_str(), header.value.as_str())));
    match (&kept.body, kind) {
        (Some(body), BodyType::Json) if is_json(body) => JsonCheck::JsonValid,
        (Some(_), BodyType::Json) => JsonCheck::JsonInvalid,
        (Some(_) | None, BodyType::Unset | BodyType::Other) | (None, BodyType::Json) => JsonCheck::Unspecified,
    }
}
