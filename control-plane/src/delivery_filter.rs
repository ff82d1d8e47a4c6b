//! Which deliveries a caller means: the filter of the contract, checked and made ready to be bound.

use std::ops::Range;

use prost_types::Timestamp;
use sluice_core::validate::Violation;
use sluice_proto::admin::v1::failure::Reason;
use sluice_proto::admin::v1::{DeliveryFilter, DeliveryState};

use crate::clock::{UnixMillis, millis};
use crate::error::{Failure, violation};
use crate::names;
use crate::store::Selection;

/// Largest HTTP status there is.
const STATUS_MAX: i32 = 999;
/// Longest id of a step or a trigger, in bytes.
const ID_BYTES_MAX: usize = 128;

/// Checks a filter of the workspace with this id.
///
/// # Errors
/// All its broken rules.
pub(crate) fn selection(filter: &DeliveryFilter, workspace: &str) -> Result<Selection, Failure> {
    let mut found = Vec::new();
    name(&mut found, workspace, &filter.delivery, "deliveries", "filter.delivery");
    name(&mut found, workspace, &filter.workflow, "workflows", "filter.workflow");
    name(&mut found, workspace, &filter.incoming_integration, "incomingIntegrations", "filter.incoming_integration");
    name(&mut found, workspace, &filter.operation, "operations", "filter.operation");
    for (field, id) in [("filter.step_id", &filter.step_id), ("filter.trigger_id", &filter.trigger_id)] {
        if id.len() > ID_BYTES_MAX {
            found.push(violation(field, "TOO_LONG", format!("is longer than {ID_BYTES_MAX} bytes")));
        }
    }
    let states = bits(&mut found, &filter.states, "filter.states", |number| DeliveryState::try_from(number).is_ok());
    let reasons = bits(&mut found, &filter.reasons, "filter.reasons", |number| Reason::try_from(number).is_ok());
    let (status_min, status_max) = statuses(&mut found, filter.status_min, filter.status_max);
    let accepted = accepted(filter.accepted_from.as_ref(), filter.accepted_before.as_ref());
    let accepted = accepted.unwrap_or_else(|broken| {
        found.push(Violation { field: format!("filter.{}", broken.field), ..broken });
        0..0
    });
    if !found.is_empty() {
        return Err(Failure::Fields(found));
    }
    Ok(Selection {
        name: filter.delivery.clone(),
        trigger_id: filter.trigger_id.clone(),
        workflow: filter.workflow.clone(),
        step: filter.step_id.clone(),
        incoming: filter.incoming_integration.clone(),
        operation: filter.operation.clone(),
        states,
        reasons,
        status_min,
        status_max,
        accepted_from: accepted.start,
        accepted_before: accepted.end,
    })
}

/// The time from the first to before the second; absent is no bound.
pub(crate) fn accepted(from: Option<&Timestamp>, before: Option<&Timestamp>) -> Result<Range<UnixMillis>, Violation> {
    let range = from.map_or(UnixMillis::MIN, millis)..before.map_or(UnixMillis::MAX, millis);
    if range.is_empty() {
        return Err(violation("accepted_before", "OUT_OF_RANGE", "must be later than accepted_from"));
    }
    Ok(range)
}

/// A name that may be empty, of a resource of the workspace.
fn name(found: &mut Vec<Violation>, workspace: &str, name: &str, collection: &str, field: &str) {
    if !name.is_empty() && names::parse(name, collection, field).map_or(true, |name| name.workspace != workspace) {
        let message = format!("must be `workspaces/{workspace}/{collection}/{{id}}`");
        found.push(violation(field, "NAME_INVALID", message));
    }
}

/// One bit for each number.
fn bits(found: &mut Vec<Violation>, numbers: &[i32], field: &str, known: impl Fn(i32) -> bool) -> i64 {
    let mut bits = 0;
    for (index, number) in numbers.iter().enumerate() {
        if (1..63).contains(number) && known(*number) {
            bits |= 1 << number;
        } else {
            found.push(violation(&format!("{field}[{index}]"), "UNKNOWN", format!("{number} is none of the list")));
        }
    }
    bits
}

/// The least and the greatest status to be bound: without a bound, 0 (no response) is one too.
fn statuses(found: &mut Vec<Violation>, min: i32, max: i32) -> (i64, i64) {
    for (field, status) in [("filter.status_min", min), ("filter.status_max", max)] {
        if !(0..=STATUS_MAX).contains(&status) {
            found.push(violation(field, "OUT_OF_RANGE", format!("is {status}; it must be 0 to {STATUS_MAX}")));
        }
    }
    if max > 0 && min > max {
        found.push(violation("filter.status_max", "OUT_OF_RANGE", "must not be less than status_min"));
    }
    match (min, max) {
        (0, 0) => (0, STATUS_MAX.into()),
        (min, 0) => (min.into(), STATUS_MAX.into()),
        (min, max) => (min.max(1).into(), max.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_broken_rule_is_told() {
        let filter = DeliveryFilter {
            delivery: "workspaces/other/deliveries/d".to_owned(),
            states: vec![2, 0, 77],
            workflow: "x".to_owned(),
            step_id: "s".repeat(129),
            incoming_integration: "workspaces/acme/workflows/f".to_owned(),
            reasons: vec![-1],
            status_min: 500,
            status_max: 400,
            accepted_from: Some(Timestamp { seconds: 5, nanos: 0 }),
            accepted_before: Some(Timestamp { seconds: 5, nanos: 0 }),
            ..Default::default()
        };
        let Err(Failure::Fields(found)) = selection(&filter, "acme") else { panic!("refused") };
        let fields: Vec<_> = found.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "filter.delivery",
                "filter.workflow",
                "filter.incoming_integration",
                "filter.step_id",
                "filter.states[1]",
                "filter.states[2]",
                "filter.reasons[0]",
                "filter.status_max",
                "filter.accepted_before"
            ]
        );
    }

    #[test]
    fn what_is_not_set_selects_everything() {
        let all = selection(&DeliveryFilter::default(), "acme").unwrap();
        assert_eq!((all.states, all.reasons, all.status_min, all.status_max), (0, 0, 0, 999));
        let bad = |status_min, status_max| DeliveryFilter { status_min, status_max, ..Default::default() };
        for (min, max, bound) in [(500, 0, (500, 999)), (0, 499, (1, 499)), (404, 404, (404, 404))] {
            let selection = selection(&bad(min, max), "acme").unwrap();
            assert_eq!((selection.status_min, selection.status_max), bound);
        }
    }
}
