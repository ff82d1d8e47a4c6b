//! The door between the wire and the model: the only place where proto messages and domain types meet.
//!
//! Parsing is checking: each function returns the parsed document or **every** broken rule with its field's path.

mod authoring;
mod connection;
mod curl;
mod failure;
mod filter;
mod incoming;
mod outgoing;
mod proposal;
mod schema;
mod secrets;
mod sender;
mod signing;
mod submitted;
mod workflow;

use std::time::Duration;

use crate::form::Form;
use crate::icon;
use crate::model::OutgoingRequest;
use crate::template::{Mode, Template};
use crate::validate::{Check, Violation};

pub use authoring::{event_definition, snippet, test_profile};
pub use connection::{connection, normalise};
pub use incoming::{endpoint_path, incoming};
pub use outgoing::{outgoing, outgoing_with};
pub use proposal::{Proposal, of_json, of_sample};
pub use schema::{FIELDS_MAX, schema_template};
pub use secrets::{References, SecretField, SecretFields, slot_of};
pub use sender::{login_key, token_keys, token_seed_field};
pub use submitted::{audience_member, submitted_event};
pub use workflow::{workflow, workflow_with};

/// What parsing gives: the document, or all its broken rules.
pub type Parsed<T> = Result<T, Vec<Violation>>;

/// Compiles a template, recording what is wrong with it.
fn template(check: &mut Check, field: &str, source: &str, mode: Mode, bytes_max: usize) -> Option<Template> {
    if source.len() > bytes_max {
        check.fail(field, "TOO_LONG", format!("has {} bytes; the limit is {bytes_max}", source.len()));
        return None;
    }
    match Template::compile_with(source, mode, check.snippets()) {
        Ok(template) => Some(template),
        Err(errors) => {
            check.fail_template(field, &errors);
            None
        }
    }
}

/// The icon of an integration (R014).
fn icon(check: &mut Check, bytes: &[u8]) {
    if !bytes.is_empty()
        && let Err(problem) = icon::check(bytes)
    {
        check.fail("icon", "ICON_INVALID", problem.to_string());
    }
}

/// Refuses what templates take from a form that does not have it (D25).
fn refuse_unknown_fields(check: &mut Check, request: &OutgoingRequest, form: Option<&Form>) {
    for (field, template) in request.templates() {
        check.known_fields(&field, template, form);
    }
}

/// A duration within limits; the default when absent.
fn duration(
    check: &mut Check,
    field: &str,
    value: Option<&prost_types::Duration>,
    default: Duration,
    limits: (Duration, Duration),
) -> Duration {
    let Some(value) = value else { return default };
    let parsed = u64::try_from(value.seconds)
        .ok()
        .zip(u32::try_from(value.nanos).ok())
        .filter(|(_, nanos)| *nanos < 1_000_000_000)
        .map(|(seconds, nanos)| Duration::new(seconds, nanos));
    match parsed {
        Some(parsed) if (limits.0..=limits.1).contains(&parsed) => parsed,
        _ => {
            let (min, max) = (limits.0.as_secs(), limits.1.as_secs());
            check.fail(field, "OUT_OF_RANGE", format!("must be {min} s to {max} s"));
            default
        }
    }
}

/// Whether `name` is `workspaces/{workspace}/{collection}/{id}`.
fn is_name_of(name: &str, collection: &str) -> bool {
    let mut parts = name.split('/');
    parts.next() == Some("workspaces")
        && parts.next().is_some_and(|workspace| !workspace.is_empty())
        && parts.next() == Some(collection)
        && parts.next().is_some_and(|id| !id.is_empty())
        && parts.next().is_none()
}

fn reference(check: &mut Check, field: &str, name: &str, collection: &str) -> bool {
    let good = is_name_of(name, collection);
    if !good {
        check.fail(field, "NAME_INVALID", format!("must be `workspaces/{{workspace}}/{collection}/{{id}}`"));
    }
    good
}
