//! What is told of a delivery when it has ended: the record and its response event (D18), built in one place.

use prost_types::Timestamp;
use sluice_core::envelope::{Envelope, Headers};
use sluice_core::request;
use sluice_core::response_event::{self, FailureReason};
use sluice_core::template::{
    Context, OnMissing, Template, Unrendered, Value, headers_value, map_value, value_from_json,
};
use sluice_egress::Exchange;
use sluice_proto::admin::v1::{Delivery, DeliveryState, Event};
use sluice_proto::sync::v1::{Job, Outcome, RenderedRequest};
use uuid::Uuid;

use crate::aside::{QUICK_STEPS, aside};
use crate::clock::UnixMillis;
use crate::runtime::{Target, Workspace};

/// How the last attempt ended.
#[derive(Clone, Copy, Debug)]
pub enum End<'a> {
    /// With a response.
    Response(&'a Exchange),
    /// Without one.
    NoResponse(FailureReason),
    /// There was none: a template said that nothing is to be sent (D19).
    Skipped,
}

/// A delivery that has ended.
#[derive(Debug)]
pub struct Ended<'a> {
    /// Whose.
    pub workspace: &'a Workspace,
    /// The job.
    pub job: &'a Job,
    /// Its id.
    pub delivery_id: Uuid,
    /// When its trigger was accepted.
    pub accepted_at: UnixMillis,
    /// Now.
    pub now: UnixMillis,
    /// How it ended.
    pub state: DeliveryState,
    /// Why, when it was not delivered.
    pub reason: &'a str,
    /// For the author; no data, no secrets.
    pub message: &'a str,
    /// The step, if it is still published.
    pub target: Option<&'a Target>,
    /// What was sent, without credentials.
    pub kept: &'a RenderedRequest,
    /// How the last attempt ended.
    pub end: End<'a>,
}

/// The outcome, and what was cut.
#[derive(Debug)]
pub struct Built {
    /// For the outbox.
    pub outcome: Outcome,
    /// Additional parameters that were cut at 230 characters.
    pub values_cut: usize,
}

/// Milliseconds as a timestamp.
pub fn timestamp(at: UnixMillis) -> Timestamp {
    let nanos = i32::try_from(at.rem_euclid(1000) * 1_000_000).unwrap_or_default();
    Timestamp { seconds: at.div_euclid(1000), nanos }
}

/// Builds the outcome of a delivery.
pub fn build(ended: &Ended<'_>) -> Built {
    // The same delivery always gives the same event, so that a report sent twice is stored once.
    let event_id = Uuid::new_v5(&ended.delivery_id, b"response-event").to_string();
    let name = format!("{}/deliveries/{}", ended.workspace.name, ended.delivery_id);
    let headers = match ended.end {
        End::Response(exchange) => {
            exchange.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
        }
        End::NoResponse(_) | End::Skipped => Headers::new(),
    };
    let outcome = match ended.end {
        End::Response(exchange) => Some(response_event::Outcome::Response {
            status: exchange.status,
            headers: &headers,
            body: &exchange.body,
            truncated: exchange.truncated,
        }),
        End::NoResponse(reason) => Some(response_event::Outcome::NoResponse(reason)),
        // What was not attempted has no response, and no event that tells of one.
        End::Skipped => None,
    };
    let (event, values_cut) = match outcome {
        Some(outcome) => {
            let (event, values_cut) = event(ended, outcome, &headers, &event_id, &name);
            (Some(event), values_cut)
        }
        None => (None, 0),
    };
    let delivery = Delivery {
        name,
        trigger_id: ended.job.trigger_id.clone(),
        workflow: ended.job.workflow.clone(),
        step_id: ended.job.step_id.clone(),
        state: ended.state.into(),
        reason: ended.reason.to_owned(),
        message: ended.message.to_owned(),
        revision: ended.kept.revision,
        accept_time: Some(timestamp(ended.accepted_at)),
        end_time: Some(timestamp(ended.now)),
        attempts: ended.kept.attempts.clone(),
        missing_paths: ended.kept.missing_paths.clone(),
    };
    let outcome = Outcome { workspace: ended.workspace.name.clone(), delivery: Some(delivery), event };
    Built { outcome, values_cut }
}

fn event(
    ended: &Ended<'_>,
    outcome: response_event::Outcome<'_>,
    headers: &Headers,
    event_id: &str,
    delivery: &str,
) -> (Event, usize) {
    let request = ended.target.and_then(Target::request);
    let step = ended.target.map(|target| response_event::Step {
        diagram_id: &target.workflow.uid,
        diagram_name: &target.workflow.display_name,
        block_id: &target.step().id,
        block_name: &target.step().name,
    });
    let gone = response_event::Step {
        diagram_id: ended.job.workflow.rsplit('/').next().unwrap_or_default(),
        diagram_name: "",
        block_id: &ended.job.step_id,
        block_name: "",
    };
    let built = response_event::build(&response_event::Delivery {
        event_uuid: event_id,
        business_profile_id: ended.workspace.business_profile_id,
        time: ended.now,
        action: request.map_or("", |request| &request.event_name),
        name: request.map_or("", |request| &request.webhook_name),
        // As rendered: credentials are added after this and are never part of it.
        request_url: &ended.kept.url,
        step: Some(step.unwrap_or(gone)),
        customer: response_event::Customer::default(),
        outcome,
        parameters: &parameters(ended, headers),
    });
    let params = serde_json::Value::Object(built.event.params).to_string();
    let event = Event {
        name: format!("{}/events/{event_id}", ended.workspace.name),
        action: built.event.action,
        delivery: delivery.to_owned(),
        time: Some(timestamp(ended.now)),
        params,
    };
    (event, built.cut_parameters)
}

/// The additional parameters, present on failures too (R108). One that cannot be rendered is left empty: the delivery has
/// ended, and its event must be told.
fn parameters(ended: &Ended<'_>, headers: &Headers) -> Vec<(String, String)> {
    let Some(target) = ended.target else { return Vec::new() };
    let Some(request) = target.request().filter(|request| !request.event_parameters.is_empty()) else {
        return Vec::new();
    };
    let mut context = match Envelope::from_json(&ended.job.envelope) {
        Ok(envelope) => request::context(&envelope, &target.workflow, target.step(), &ended.job.trigger_id),
        Err(_unreadable) => Context::new(),
    };
    context.set("response", response(ended.end, headers));
    let print = |context: &Context| {
        let print = |(name, template): &(String, Template)| {
            let text = template.render(context, OnMissing::Empty).map(|rendered| rendered.text);
            (name.clone(), text)
        };
        request.event_parameters.iter().map(print).collect::<Vec<_>>()
    };
    let mut quick = context.clone();
    quick.limit_steps(QUICK_STEPS / request.event_parameters.len());
    let mut printed = print(&quick);
    if printed.iter().any(|(_, text)| matches!(text, Err(Unrendered::Failed(_)))) {
        // One takes longer, or is wrong and will be again.
        printed = aside(|| print(&context));
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
        End::NoResponse(_) | End::Skipped => (0, Value::UNDEFINED),
    };
    map_value([("status", Value::from(status)), ("headers", headers_value(headers.iter())), ("body", body)])
}
