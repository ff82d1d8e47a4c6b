//! Workflows.

use std::sync::Arc;

use sluice_proto::admin::v1 as admin;

use super::filter::Of;
use super::outgoing::request;
use super::schema::{FIELD_ID, FIELDS_MAX, is_field_id};
use super::{Parsed, filter, reference, refuse_unknown_fields, template};
use crate::address::UrlPolicy;
use crate::model::{Action, Start, Step, Trigger, Workflow};
use crate::template::limits::SOURCE_BYTES;
use crate::template::{Mode, Snippets, Template};
use crate::validate::{Check, FORM_VALUES_NOT_TAKEN, NAME_CHARS_MAX, STEPS_MAX, TRIGGERS_MAX};

/// Parses a workflow that uses no snippets.
pub fn workflow(proto: &admin::Workflow, urls: &UrlPolicy) -> Parsed<Workflow> {
    workflow_with(proto, urls, &Arc::default())
}

/// Parses a workflow.
pub fn workflow_with(proto: &admin::Workflow, urls: &UrlPolicy, snippets: &Arc<Snippets>) -> Parsed<Workflow> {
    let mut check = Check::with_snippets(snippets);
    check.name("display_name", &proto.display_name, NAME_CHARS_MAX);
    if proto.triggers.is_empty() {
        check.fail("triggers", "REQUIRED", "at least one is required");
    }
    if proto.steps.is_empty() {
        check.fail("steps", "REQUIRED", "at least one is required");
    }
    check.count("triggers", proto.triggers.len(), TRIGGERS_MAX);
    check.count("steps", proto.steps.len(), STEPS_MAX);
    let mut triggers = Vec::new();
    for (index, wire) in proto.triggers.iter().enumerate() {
        triggers.extend(check.within(format!("triggers[{index}]"), |check| trigger(check, wire)));
    }
    let mut steps = Vec::new();
    for (index, wire) in proto.steps.iter().enumerate() {
        let earlier = &proto.steps[..index];
        steps.extend(check.within(format!("steps[{index}]"), |check| step(check, wire, earlier, urls)));
    }
    let whole = triggers.len() == proto.triggers.len() && steps.len() == proto.steps.len();
    check.finish(whole.then(|| Workflow {
        name: proto.name.clone(),
        uid: proto.uid.clone(),
        display_name: proto.display_name.clone(),
        version: proto.published_version,
        triggers,
        steps,
    }))
}

fn trigger(check: &mut Check, wire: &admin::Trigger) -> Option<Trigger> {
    let (start, of) = source(check, wire);
    let filter = match &wire.filter {
        None => None,
        Some(wire) => Some(check.within("filter", |check| filter::filter(check, wire, of))?),
    };
    start.map(|start| Trigger { start, filter })
}

/// What starts the workflow, and what its filter looks at. What is set beside it is refused where it is set.
fn source(check: &mut Check, wire: &admin::Trigger) -> (Option<Start>, Of) {
    let mut action =
        |field: &str, action: &str| check.within(field, |check| check.name("action", action, NAME_CHARS_MAX));
    let (chosen, start, of) = if let Some(event) = &wire.response_event {
        action("response_event", &event.action);
        ("response_event", Start::ResponseEvents(event.action.clone()), Of::ResponseEvent)
    } else if let Some(event) = &wire.event {
        action("event", &event.action);
        ("event", Start::Events(event.action.clone()), Of::Submitted)
    } else if wire.audience.is_some() {
        ("audience", Start::Audience, Of::Submitted)
    } else {
        let named = reference(check, "incoming_integration", &wire.incoming_integration, "incomingIntegrations");
        return (named.then(|| Start::Incoming(wire.incoming_integration.clone())), Of::Request);
    };
    let others = [
        ("incoming_integration", !wire.incoming_integration.is_empty()),
        ("event", wire.event.is_some()),
        ("audience", wire.audience.is_some()),
    ];
    let mut alone = true;
    for (field, _) in others.into_iter().filter(|(field, is_set)| *is_set && *field != chosen) {
        alone = false;
        check.fail(field, "CONFLICT", format!("leave it empty when {chosen} is set: one source each"));
    }
    (alone.then_some(start), of)
}

fn step(check: &mut Check, wire: &admin::Step, earlier: &[admin::Step], urls: &UrlPolicy) -> Option<Step> {
    use admin::step::Action as Wire;
    check.name("step_name", &wire.step_name, NAME_CHARS_MAX);
    if earlier.iter().any(|other| other.step_name == wire.step_name) {
        check.fail("step_name", "DUPLICATE", format!("`{}` is there twice", wire.step_name));
    }
    if !wire.step_id.is_empty() && earlier.iter().any(|other| other.step_id == wire.step_id) {
        check.fail("step_id", "DUPLICATE", "is there twice");
    }
    let action = match &wire.action {
        Some(Wire::OutgoingIntegration(name)) => reference(check, "outgoing_integration", name, "outgoingIntegrations")
            .then(|| Action::Outgoing(name.clone())),
        Some(Wire::CustomWebhook(wire)) => {
            let request = check.within("custom_webhook", |check| {
                request(check, wire, urls).inspect(|request| refuse_unknown_fields(check, request, None))
            });
            request.map(Action::Custom)
        }
        None => {
            check.fail("action", "REQUIRED", "one of outgoing_integration, custom_webhook is required (R002)");
            None
        }
    };
    let form_values = form_values(check, wire)?;
    Some(Step { id: wire.step_id.clone(), name: wire.step_name.clone(), action: action?, form_values })
}

/// What a step fills in. Which fields there are, and what they take, is known to whoever looks up the integration.
fn form_values(check: &mut Check, wire: &admin::Step) -> Option<Vec<(String, Template)>> {
    let of_integration = matches!(wire.action, Some(admin::step::Action::OutgoingIntegration(_)));
    if !of_integration && !wire.form_values.is_empty() {
        let message = "only a step with an outgoing integration fills in a form";
        check.fail("form_values", FORM_VALUES_NOT_TAKEN, message);
    }
    check.count("form_values", wire.form_values.len(), FIELDS_MAX);
    let values = wire.form_values.iter().take(FIELDS_MAX).map(|(id, text)| {
        if !is_field_id(id) {
            check.fail("form_values", "ID_INVALID", FIELD_ID);
            return None;
        }
        let field = format!("form_values[{id}]");
        let value = template(check, &field, text, Mode::Text, SOURCE_BYTES)?;
        check.known_fields(&field, &value, None);
        Some((id.clone(), value))
    });
    let values: Vec<Option<(String, Template)>> = values.collect();
    values.into_iter().collect()
}
