//! Requests that are tried out before anything is published (D22, S41): compiled from what comes with the command, rendered, authorised
//! and sent by the functions of a delivery ([`crate::exchange`]). Hides that nothing of it is served: no job, no retry, no limit of a
//! destination, no breaker, no event.

mod connection;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_core::cause::EventEnvelope;
use sluice_core::envelope::{Envelope, Headers};
use sluice_core::flatten::{Limits, parse_body};
use sluice_core::request::{self, BodyType, RenderFailure, Unmade, body_type, is_json};
use sluice_core::response_event::{self, Customer, Delivery, FailureReason};
use sluice_core::template::{Context, value_from_json};
use sluice_egress::{Exchange, Request};
use sluice_proto::admin::v1::failure::Reason;
use sluice_proto::admin::v1::{JsonCheck, RequestPreview, RequestProblem, TestOutcome};
use sluice_proto::sync::v1::command_error::Code;
use sluice_proto::sync::v1::{CommandError, RenderedRequest, TestRequest, TestedRequest, WorkspaceBody};
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

use crate::aside::QUICK_BYTES;
use crate::commands::refuse;
use crate::credentials::{self, Given, Withheld};
use crate::exchange::{Call, Sent, reason, result_label};
use crate::outcome::{self, timestamp};
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
    let (outcome, event_parameters) = match (asked.send, rendered) {
        (false, _) => (None, Vec::new()),
        (true, Ok(kept)) => {
            let (outcome, parameters) = trial.sent(&kept).await;
            (Some(outcome), parameters)
        }
        (true, Err(unmade)) => (Some(trial.unsent(unmade)), Vec::new()),
    };
    if let Some(outcome) = &outcome {
        let (workspace, status, failure) = (&asked.workspace, outcome.status, outcome.failure().as_str_name());
        tracing::info!(test = true, %id, workspace, status, failure, "a test request was made");
    }
    let event_action = request.event_name.clone();
    Ok(TestedRequest { preview: Some(preview), outcome, event_action, event_parameters })
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
                        let (reason, message) = told(withheld);
                        let problem = RequestProblem { reason: reason.into(), message, ..RequestProblem::default() };
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

    /// Sends the request, within the time that a test may take; with the names of the parameters that the response event would have.
    async fn sent(&self, kept: &RenderedRequest) -> (TestOutcome, Vec<String>) {
        let time_max = self.asked.time_max.and_then(|time| Duration::try_from(time).ok()).unwrap_or(TIME_MAX);
        let sent = tokio::time::timeout(time_max, self.exchange(kept)).await;
        let (outcome, parameters) = sent.unwrap_or_else(|_late| {
            let message = format!("a test may take {} s at most, with all that it waits for", time_max.as_secs());
            (TestOutcome { failure: Reason::Timeout.into(), message, ..TestOutcome::default() }, Vec::new())
        });
        if outcome.send_time.is_none() {
            self.plane.metrics.test_request(outcome.failure().as_str_name());
        }
        (outcome, parameters)
    }

    async fn exchange(&self, kept: &RenderedRequest) -> (TestOutcome, Vec<String>) {
        let (request, given) = match self.authorised(kept).await {
            Ok(authorised) => authorised,
            Err(withheld) => return (withheld_outcome(withheld), Vec::new()),
        };
        let (begun, clock) = (self.plane.clock.now(), Instant::now());
        let Sent { result, token_renewed } = match self.call.send(kept, request, given).await {
            Ok(sent) => sent,
            Err(withheld) => return (withheld_outcome(withheld), Vec::new()),
        };
        let parameters = result.as_ref().map(|exchange| self.parameters(exchange)).unwrap_or_default();
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
        (outcome, parameters)
    }

    /// The names of the parameters that the response event would have.
    fn parameters(&self, exchange: &Exchange) -> Vec<String> {
        let request = self.call.request;
        let headers: Headers = exchange.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let parameters: Vec<(String, String)> =
            request.event_parameters.iter().map(|(name, _)| (name.clone(), String::new())).collect();
        let (workflow, step) = (&self.target.workflow, self.target.step());
        let built = response_event::build(&Delivery {
            event_uuid: "",
            business_profile_id: self.call.workspace.business_profile_id,
            time: self.plane.clock.now(),
            action: &request.event_name,
            name: &request.webhook_name,
            request_url: request.template.published_url.as_url().as_str(),
            step: Some(response_event::Step {
                diagram_id: &workflow.uid,
                diagram_name: &workflow.display_name,
                block_id: &step.id,
                block_name: &step.name,
            }),
            customer: Customer::default(),
            outcome: response_event::Outcome::Response {
                status: exchange.status,
                headers: &headers,
                body: &exchange.body,
                truncated: exchange.truncated,
            },
            parameters: &parameters,
        });
        built.event.params.into_iter().map(|(name, _)| name).collect()
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
    fn unsent(&self, unmade: Unmade) -> TestOutcome {
        let (reason, message) = match unmade {
            Unmade::Skipped(message) => (Reason::Skipped, message),
            Unmade::Failed(failure) => (failure.reason.into(), failure.message),
        };
        self.plane.metrics.test_request(reason.as_str_name());
        TestOutcome { failure: reason.into(), message, ..TestOutcome::default() }
    }
}

fn told(withheld: Withheld) -> (Reason, String) {
    match withheld {
        Withheld::Refused { reason, message } => (reason.into(), message),
        Withheld::NoToken { message, .. } => (Reason::AuthError, message),
    }
}

fn withheld_outcome(withheld: Withheld) -> TestOutcome {
    let (failure, message) = told(withheld);
    TestOutcome { failure: failure.into(), message, ..TestOutcome::default() }
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
