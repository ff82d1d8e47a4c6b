//! What a workflow's steps fill into the forms of their integrations (R007, D25, S39, S40).

use sluice_proto::admin::v1 as admin;

use super::{Check, InForce, Violation};
use crate::address::UrlPolicy;
use crate::form::Form;
use crate::model::{Action, Step};
use crate::template::{Context, OnMissing, Template};
use crate::wire;

/// The reason of form values where there is no form.
pub const FORM_VALUES_NOT_TAKEN: &str = "FORM_VALUES_NOT_TAKEN";

/// Whether a form may still lack values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Completeness {
    /// A draft: required fields may be filled in later.
    Draft,
    /// What is to be in force.
    Whole,
}

/// Rules that the draft of a workflow keeps together with `drafts` of the integrations that it uses. What it breaks by itself is not
/// repeated.
pub fn workflow_forms(workflow: &admin::Workflow, urls: &UrlPolicy, drafts: &impl InForce) -> Vec<Violation> {
    let Ok(parsed) = wire::workflow_with(workflow, urls, drafts.snippets()) else { return Vec::new() };
    let mut check = Check::default();
    for (index, step) in parsed.steps.iter().enumerate() {
        let Action::Outgoing(name) = &step.action else { continue };
        let found = drafts.outgoing(name).and_then(|proto| wire::outgoing_with(proto, urls, drafts.snippets()).ok());
        if let Some(found) = found {
            check.within(format!("steps[{index}]"), |check| {
                check_values(check, step, found.form.as_ref(), Completeness::Draft);
            });
        }
    }
    check.found
}

/// Every value has a field, and what is known of it keeps the field's rules.
pub(super) fn check_values(check: &mut Check, step: &Step, form: Option<&Form>, completeness: Completeness) {
    let Some(form) = form else {
        if !step.form_values.is_empty() {
            let message = "the outgoing integration has no schema template: it takes no form values (R009)";
            check.fail("form_values", FORM_VALUES_NOT_TAKEN, message);
        }
        return;
    };
    check_fields(check, step, form);
    for field in &form.fields {
        let given = step.form_values.iter().find(|(id, _)| *id == field.id);
        let Some(text) = given.map_or(Some(String::new()), |(_, value)| known(value)) else { continue };
        if let Err(refused) = field.value(&text)
            && !(refused.is_missing && completeness == Completeness::Draft)
        {
            let reason = if refused.is_missing { "REQUIRED" } else { "FORM_VALUE_INVALID" };
            check.fail(&format!("form_values[{}]", field.id), reason, refused.to_string());
        }
    }
}

/// The values of a step for which its form has no field.
pub fn unknown_fields(step: &Step, form: &Form) -> Vec<Violation> {
    let mut check = Check::default();
    check_fields(&mut check, step, form);
    check.found
}

fn check_fields(check: &mut Check, step: &Step, form: &Form) {
    for (id, _) in step.form_values.iter().filter(|(id, _)| form.field(id).is_none()) {
        let message = format!("the schema template has no field `{id}`");
        check.fail(&format!("form_values[{id}]"), "UNKNOWN_FORM_FIELD", message);
    }
}

/// What a value will be, if that is known before it is rendered.
fn known(value: &Template) -> Option<String> {
    let rendered = value.is_static().then(|| value.render(&Context::new(), OnMissing::Empty).ok())?;
    rendered.map(|rendered| rendered.text)
}
