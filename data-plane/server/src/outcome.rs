//! What is told of a delivery: the record after each attempt, and the response event when it has ended (D18). Built in one
//! place, which also hides what of a request and its answer is shown: no credential, nothing beyond [`SHOWN_BYTES`].

use bytes::Bytes;
use prost::Message as _;
use prost_types::Timestamp;
use sluice_core::envelope::Headers;
use sluice_core::redact::{MASK, is_secret_name};
use sluice_core::request;
use sluice_core::response_event::{self, FailureReason, ResponseEvent};
use sluice_core::template::{
    Context, OnMissing, Template, Unrendered, Value, headers_value, map_value, value_from_json,
};
use sluice_egress::{Exchange, Request};
use sluice_proto::admin::v1::failure::Reason;
use sluice_proto::admin::v1::{
    Delivery, DeliveryState, Event, HttpHeader, IncomingRequest, ReceivedResponse, SentRequest,
};
use sluice_proto::sync::v1::{AcceptedRequest, Job, Outcome, RenderedRequest, Submitted};
use uuid::Uuid;

use crate::aside::{QUICK_BYTES, QUICK_STEPS, aside};
use crate::chain::{self, Started, started_bytes};
use crate::clock::UnixMillis;
use crate::inbox::{Lane, NewJob, Report};
use crate::plane::Plane;
use crate::runtime::{Target, Workspace};

/// How much of a body is kept for reading, in bytes (D11).
pub const SHOWN_BYTES: usize = 64 * 1024;
/// Headers that Sluice adds itself and that tell nothing secret.
const OWN_HEADERS: [&str; 4] = ["idempotency-key", "sluice-hops", "traceparent", "tracestate"];

/// How the last attempt ended.
#[derive(Clone, Copy, Debug)]
pub enum End<'a> {
    /// With a response.
    Response(&'a Exchange),
    /// Without one.
    NoResponse(FailureReason),
    /// There was none: a template said that nothing is to be sent (D19), or it is still to come.
    NoAttempt,
}

/// Whose record it is.
#[derive(Clone, Copy, Debug)]
pub struct Of<'a> {
    /// The workspace.
    pub workspace: &'a Workspace,
    /// The job.
    pub job: &'a Job,
    /// Its id.
    pub delivery_id: Uuid,
    /// Where that waits which its event starts; `None`: it starts nothing.
    pub starts: Option<Lane>,
    /// Grows with every record of the delivery.
    pub order: i64,
    /// When its trigger was accepted.
    pub accepted_at: UnixMillis,
    /// Now.
    pub now: UnixMillis,
}

/// Where a delivery stands.
#[derive(Debug)]
pub struct Record<'a> {
    /// Whose.
    pub of: Of<'a>,
    /// Where it stands.
    pub state: DeliveryState,
    /// Why, when it was not delivered.
    pub reason: Reason,
    /// For the author; no data, no secrets.
    pub message: &'a str,
    /// When it is tried again, if it is.
    pub next_attempt: Option<UnixMillis>,
    /// The step, if it is still published.
    pub target: Option<&'a Target>,
    /// What was sent, without credentials, and the attempts.
    pub kept: RenderedRequest,
    /// What was sent, as it is shown; with the first attempt.
    pub request: Option<SentRequest>,
    /// How the last attempt ended.
    pub end: End<'a>,
}

/// The record for the outbox, and what its event starts.
pub fn encode(plane: &Plane, record: Record<'_>) -> Report {
    let (outcome, told) = built(plane, record);
    Report { told: outcome.encode_to_vec().into(), jobs: told.jobs }
}

/// The record alone.
pub fn tell(plane: &Plane, record: Record<'_>) -> Outcome {
    built(plane, record).0
}

/// Builds the record. Counts what had to be cut.
fn built(plane: &Plane, record: Record<'_>) -> (Outcome, Told) {
    let Of { job, delivery_id, .. } = record.of;
    let quick = started_bytes(job) <= QUICK_BYTES;
    let (mut outcome, told) = if quick { build(record) } else { aside(|| build(record)) };
    if outcome.request.is_some() && !plane.requests_told.tells(&job.trigger_id, delivery_id) {
        outcome.request = None;
    }
    plane.metrics.event_values_cut(told.values_cut);
    (outcome, told)
}

/// What comes with an event.
#[derive(Default)]
struct Told {
    /// How many of its values were cut.
    values_cut: usize,
    /// What it starts.
    jobs: Vec<NewJob>,
}

/// Milliseconds as a timestamp.
pub fn timestamp(at: UnixMillis) -> Timestamp {
    let nanos = i32::try_from(at.rem_euclid(1000) * 1_000_000).unwrap_or_default();
    Timestamp { seconds: at.div_euclid(1000), nanos }
}

/// Builds a record.
fn build(record: Record<'_>) -> (Outcome, Told) {
    let name = format!("{}/deliveries/{}", record.of.workspace.name, record.of.delivery_id);
    let (event, told) = match event_of(&record, &name) {
        Some((event, told)) => (Some(event), told),
        None => (None, Told::default()),
    };
    let Record { of, state, reason, message, next_attempt, target: _, kept, request, end } = record;
    let job = of.job;
    // Later records need not say again what led to the delivery.
    let first = kept.attempts.len() <= 1;
    let mut attempts = kept.attempts;
    if let (End::Response(exchange), Some(last)) = (end, attempts.last_mut()) {
        last.response = Some(received(exchange));
    }
    let delivery = Delivery {
        name,
        trigger_id: job.trigger_id.clone(),
        workflow: job.workflow.clone(),
        step_id: job.step_id.clone(),
        state: state.into(),
        reason: reason.into(),
        message: message.to_owned(),
        revision: kept.revision,
        accept_time: Some(timestamp(of.accepted_at)),
        end_time: (state != DeliveryState::Waiting).then(|| timestamp(of.now)),
        next_attempt_time: next_attempt.map(timestamp),
        attempts,
        missing_paths: kept.missing_paths,
        incoming_integration: job.incoming_integration.clone(),
        request,
        // The control plane knows who reports.
        data_plane: String::new(),
        replay_of: job.replay_of.clone(),
        operation: job.operation.clone(),
    };
    let outcome = Outcome {
        workspace: of.workspace.name.clone(),
        delivery: Some(delivery),
        event,
        order: of.order,
        request: (first && (job.event.is_empty() || job.submitted.is_some())).then(|| accepted(&of)),
    };
    (outcome, told)
}

fn accepted(of: &Of<'_>) -> AcceptedRequest {
    let Of { workspace, job, accepted_at, .. } = *of;
    let (envelope, submitted) = match &job.submitted {
        Some(submitted) => (&job.event, submitted.clone()),
        None => (&job.envelope, Submitted::default()),
    };
    let request = IncomingRequest {
        name: format!("{}/incomingRequests/{}", workspace.name, job.trigger_id),
        incoming_integration: job.incoming_integration.clone(),
        accept_time: Some(timestamp(accepted_at)),
        body_bytes: job.body_bytes,
        envelope_bytes: i64::try_from(envelope.len()).unwrap_or(i64::MAX),
        revision: job.revision,
        action: submitted.action,
        event_id: submitted.id,
    };
    AcceptedRequest { request: Some(request), envelope: envelope.clone() }
}

/// The request as it is shown. Whatever was not rendered is a credential, unless it is known to be none; so is what was rendered
/// under the name of one, for example a sender's `Authorization` that goes on to the destination.
pub(crate) fn shown(kept: &RenderedRequest, sent: &Request) -> SentRequest {
    let rendered = |name: &str, value: &str| {
        kept.headers.iter().any(|header| header.name == name && header.value == value && !is_secret_name(name))
            || OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name))
    };
    let header = |(name, value): &(String, String)| {
        let value = if rendered(name, value) { value.clone() } else { MASK.to_owned() };
        HttpHeader { name: name.clone(), value }
    };
    let (body, body_truncated) = cut(&sent.body);
    SentRequest {
        method: sent.method.to_string(),
        url: shown_url(&kept.url, &sent.url),
        headers: sent.headers.iter().map(header).collect(),
        body,
        body_truncated,
    }
}

/// The rendered URL and the names of the parameters that were added to it, without the values of those that hold secrets by their
/// names.
fn shown_url(rendered: &str, sent: &str) -> String {
    let (rendered, fragment) = rendered.split_at(rendered.find('#').unwrap_or(rendered.len()));
    let added = sent.strip_prefix(rendered).unwrap_or_default();
    let added = added.split('#').next().unwrap_or_default().trim_start_matches(['?', '&']);
    let (path, own) = rendered.split_once('?').map_or((rendered, None), |(path, own)| (path, Some(own)));
    let own = own.into_iter().flat_map(|own| own.split('&')).map(|parameter| match parameter.split_once('=') {
        Some((name, _)) if is_secret_name(name) => format!("{name}={MASK}"),
        Some(_) | None => parameter.to_owned(),
    });
    let added = added.split('&').filter(|parameter| !parameter.is_empty());
    let added = added.map(|parameter| format!("{}={MASK}", parameter.split('=').next().unwrap_or_default()));
    let parameters: Vec<String> = own.chain(added).collect();
    if parameters.is_empty() {
        return format!("{rendered}{fragment}");
    }
    format!("{path}?{}{fragment}", parameters.join("&"))
}

/// The response as it is shown.
pub(crate) fn received(exchange: &Exchange) -> ReceivedResponse {
    let shown = exchange.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("set-cookie"));
    let headers = shown.map(|(name, value)| HttpHeader { name: name.clone(), value: value.clone() }).collect();
    let (body, cut) = cut(&exchange.body);
    ReceivedResponse { headers, body, body_truncated: cut || exchange.truncated }
}

fn cut(body: &Bytes) -> (Bytes, bool) {
    (body.slice(..body.len().min(SHOWN_BYTES)), body.len() > SHOWN_BYTES)
}

impl End<'_> {
    /// These headers of the response.
    pub(crate) fn headers(&self, is_seen: impl Fn(&str) -> bool) -> Headers {
        match self {
            End::Response(exchange) => {
                let seen = exchange.headers.iter().filter(|(name, _)| is_seen(name));
                seen.map(|(name, value)| (name.as_str(), value.as_str())).collect()
            }
            End::NoResponse(_) | End::NoAttempt => Headers::new(),
        }
    }

    /// As an event tells of it. What was not attempted has no response, and no event that tells of one (D19).
    pub(crate) fn told<'t>(&'t self, headers: &'t Headers) -> Option<response_event::Outcome<'t>> {
        match self {
            End::Response(exchange) => Some(response_event::Outcome::Response {
                status: exchange.status,
                headers,
                body: &exchange.body,
                truncated: exchange.truncated,
            }),
            End::NoResponse(reason) => Some(response_event::Outcome::NoResponse(*reason)),
            End::NoAttempt => None,
        }
    }
}

/// The same delivery always gives the same event, so that a report sent twice is stored once.
pub(crate) fn event_id(delivery: Uuid) -> Uuid {
    Uuid::new_v5(&delivery, b"response-event")
}

/// The event of a delivery that has ended.
fn event_of(record: &Record<'_>, delivery: &str) -> Option<(Event, Told)> {
    if record.state == DeliveryState::Waiting {
        return None;
    }
    // Templates see all of them, the event itself only what says what the body is.
    let is_seen = |name: &str| name.eq_ignore_ascii_case("content-type") || has_parameters(record.target);
    let headers = record.end.headers(is_seen);
    let outcome = record.end.told(&headers)?;
    Some(event(record, outcome, &headers, &event_id(record.of.delivery_id).to_string(), delivery))
}

fn event(
    record: &Record<'_>,
    outcome: response_event::Outcome<'_>,
    headers: &Headers,
    event_id: &str,
    delivery: &str,
) -> (Event, Told) {
    let request = record.target.and_then(Target::request);
    let step = record.target.map(|target| response_event::Step {
        diagram_id: &target.workflow.uid,
        diagram_name: &target.workflow.display_name,
        block_id: &target.step().id,
        block_name: &target.step().name,
    });
    let gone = response_event::Step {
        diagram_id: record.of.job.workflow.rsplit('/').next().unwrap_or_default(),
        diagram_name: "",
        block_id: &record.of.job.step_id,
        block_name: "",
    };
    // Only what a caller submitted has a customer (D02).
    let started = record.of.job.submitted.as_ref().and_then(|_| Started::read(record.of.job));
    let built = response_event::build(&response_event::Delivery {
        event_uuid: event_id,
        business_profile_id: record.of.workspace.business_profile_id,
        time: record.of.now,
        action: request.map_or("", |request| &request.event_name),
        name: request.map_or("", |request| &request.webhook_name),
        // As rendered: credentials are added after this and are never part of it.
        request_url: &record.kept.url,
        step: Some(step.unwrap_or(gone)),
        customer: started.as_ref().map(Started::profile).unwrap_or_default(),
        outcome,
        parameters: &parameters(record, headers),
    });
    // A chain that was cut stays cut (D01).
    let jobs = match (record.end, record.of.starts) {
        (End::NoResponse(FailureReason::LoopDetected), _) | (_, None) => Vec::new(),
        (End::Response(_) | End::NoResponse(_) | End::NoAttempt, Some(lane)) => {
            chain::jobs(record.of.workspace, &built.event, record.of.job, lane)
        }
    };
    let event = shown_event(&record.of.workspace.name, built.event, delivery, record.of.now);
    (event, Told { values_cut: built.cut_parameters, jobs })
}

/// An event as it is stored and shown.
pub(crate) fn shown_event(workspace: &str, event: ResponseEvent, delivery: &str, now: UnixMillis) -> Event {
    Event {
        name: format!("{workspace}/events/{}", event.id),
        action: event.action,
        delivery: delivery.to_owned(),
        time: Some(timestamp(now)),
        params: serde_json::Value::Object(event.params).to_string(),
    }
}

fn has_parameters(target: Option<&Target>) -> bool {
    target.and_then(Target::request).is_some_and(|request| !request.event_parameters.is_empty())
}

/// The additional parameters, present on failures too (R108). One that cannot be rendered is left empty: the delivery has
/// ended, and its event must be told.
fn parameters(record: &Record<'_>, headers: &Headers) -> Vec<(String, String)> {
    let Some(target) = record.target else { return Vec::new() };
    rendered_parameters(target, record.end, headers, || match Started::read(record.of.job) {
        Some(started) => request::context(started.cause(), &target.workflow, target.step(), &record.of.job.trigger_id),
        None => Context::new(),
    })
}

/// The additional parameters of a step's event, with what its templates saw and `response`.
pub(crate) fn rendered_parameters(
    target: &Target,
    end: End<'_>,
    headers: &Headers,
    context: impl FnOnce() -> Context,
) -> Vec<(String, String)> {
    let Some(request) = target.request().filter(|request| !request.event_parameters.is_empty()) else {
        return Vec::new();
    };
    let mut context = context();
    context.set("response", response(end, headers));
    let print = |mut context: Context| {
        // Values that are wrong have ended the delivery; its event is told without them.
        let is_filled = target.fill(&mut context).is_ok();
        let print = |(name, template): &(Box<str>, Template)| {
            let text = template.render(&context, OnMissing::Empty).map(|rendered| rendered.text);
            (name.to_string(), text)
        };
        (is_filled, request.event_parameters.iter().map(print).collect::<Vec<_>>())
    };
    let mut quick = context.clone();
    quick.limit_steps(QUICK_STEPS / request.event_parameters.len());
    let (is_filled, mut printed) = print(quick);
    if !is_filled || printed.iter().any(|(_, text)| matches!(text, Err(Unrendered::Failed(_)))) {
        // One takes longer, or is wrong and will be again.
        (_, printed) = aside(|| print(context));
    }
    printed.into_iter().map(|(name, text)| (name, text.unwrap_or_default())).collect()
}

/// `response.*` as templates see it (S35): a JSON body parsed, another as text; status 0 without a response.
fn response(end: End<'_>, headers: &Headers) -> Value {
    let (status, body) = match end {
        End::Response(exchange) => {
            let limits = sluice_core::flatten::Limits::default();
            let body = match sluice_core::flatten::parse_body(&exchange.body, &limits) {
                Ok(json) => value_from_json(&json),
                Err(_not_json) => Value::from(String::from_utf8_lossy(&exchange.body).into_owned()),
            };
            (exchange.status, body)
        }
        End::NoResponse(_) | End::NoAttempt => (0, Value::UNDEFINED),
    };
    map_value([("status", Value::from(status)), ("headers", headers_value(headers.iter())), ("body", body)])
}
