//! Which workflows a request or an event would start, and why (D17). Decided here, by the functions that data planes decide with.

use sluice_core::cause::{AUDIENCE, Cause, EventEnvelope};
use sluice_core::envelope::Envelope;
use sluice_core::filter::Explained;
use sluice_core::model::{self, Start};
use sluice_core::path::Found;
use sluice_core::wire;
use sluice_proto::admin::v1::test_context::StartedBy;
use sluice_proto::admin::v1::{
    Condition, EvaluateWorkflowsRequest, EvaluateWorkflowsResponse, EvaluatedCondition, EvaluatedTrigger,
    EvaluatedWorkflow, Filter, FoundType, FoundValue, IncomingIntegration, Operator, Step, Workflow, filter,
};

use super::target::started_by_nothing;
use super::{context, target, workspace_of};
use crate::error::Failure;
use crate::lifecycle::READ_AT_ONCE;
use crate::names;
use crate::resource::Resource as _;
use crate::shared::Shared;
use crate::store::{Transaction, WorkspaceRow};
use crate::stored::Stored;

/// Most workflows that are told of.
const WORKFLOWS_MAX: usize = 200;
/// Most values that are shown of a condition.
const FOUND_MAX: usize = 10;
/// Longest value that is shown, in characters.
const VALUE_CHARS_MAX: usize = 256;

/// What comes in.
enum Sample {
    /// A request to the incoming integration of this name.
    Request(String, Envelope),
    Event(EventEnvelope),
}

impl Sample {
    fn cause(&self) -> Cause<'_> {
        match self {
            Self::Request(_, envelope) => Cause::Request(envelope),
            Self::Event(event) => Cause::Event(event),
        }
    }

    /// Whether it is of the source that a trigger names. An event with their action stands for members of audiences.
    fn is_from(&self, start: &Start) -> bool {
        let action = |event: &EventEnvelope| {
            event.document().get("action").and_then(|action| action.as_str()).unwrap_or_default().to_owned()
        };
        match (self, start) {
            (Self::Request(name, _), Start::Incoming(wanted)) => name == wanted,
            (Self::Event(event), Start::ResponseEvents(wanted) | Start::Events(wanted)) => action(event) == *wanted,
            (Self::Event(event), Start::Audience) => action(event) == AUDIENCE,
            (Self::Request(..), Start::ResponseEvents(_) | Start::Events(_) | Start::Audience)
            | (Self::Event(_), Start::Incoming(_)) => false,
        }
    }
}

/// Says which workflows would be started.
pub(crate) async fn evaluate(
    shared: &Shared,
    asked: EvaluateWorkflowsRequest,
) -> Result<EvaluateWorkflowsResponse, Failure> {
    let mut tx = shared.store.read().await?;
    let workspace = workspace_of(&mut tx, &asked.parent).await?;
    let sample = sample(shared, &mut tx, &workspace, &asked).await?;
    let mut answer = EvaluateWorkflowsResponse::default();
    let mut after = String::new();
    loop {
        let rows = tx.documents(&workspace.id, Workflow::COLLECTION, &after, false, READ_AT_ONCE).await?;
        let Some(last) = rows.last().map(|row| row.name.clone()) else { return Ok(answer) };
        for row in rows {
            let stored = Stored::<Workflow>::of(row)?;
            let (name, version) = (stored.row.name.clone(), stored.row.published_version);
            let found = match asked.drafts {
                true => Some((0, stored.draft)),
                false => target::in_force(&mut tx, &workspace, &name)
                    .await?
                    .and_then(|resource| Some((version, Workflow::from_document(resource.document?)?))),
            };
            let Some((version, workflow)) = found else { continue };
            let triggers = triggers(shared, &workflow, &sample)?;
            if triggers.is_empty() {
                continue;
            }
            if answer.workflows.len() >= WORKFLOWS_MAX {
                answer.truncated = true;
                return Ok(answer);
            }
            let matches = triggers.iter().any(|trigger| trigger.matches);
            answer.workflows.push(EvaluatedWorkflow { workflow: name, version, matches, triggers });
        }
        after = last;
    }
}

async fn sample(
    shared: &Shared,
    tx: &mut Transaction,
    workspace: &WorkspaceRow,
    asked: &EvaluateWorkflowsRequest,
) -> Result<Sample, Failure> {
    let context = asked.context.clone().unwrap_or_default();
    let incoming = match &context.started_by {
        Some(StartedBy::Request(_)) => {
            let field = "incoming_integration";
            let name = names::parse(&asked.incoming_integration, IncomingIntegration::COLLECTION, field)?;
            if name.workspace != workspace.id {
                return Err(Failure::NotFound(name.full));
            }
            Stored::<IncomingIntegration>::load(tx, &name, "").await?.row.name
        }
        Some(StartedBy::Captured(name)) => name.clone(),
        Some(StartedBy::ProfileEvent(_) | StartedBy::Event(_)) => String::new(),
        None => {
            let message = "one of request, captured, profile_event, event is required";
            return Err(Failure::field("context", "REQUIRED", message));
        }
    };
    let chosen = context::read(shared, tx, workspace, context).await?;
    let unreadable = |_| Failure::Internal("a sample cannot be read back".to_owned());
    match chosen.event.as_slice() {
        [] => Ok(Sample::Request(incoming, Envelope::from_json(&chosen.envelope).map_err(|_| unreadable(()))?)),
        event => Ok(Sample::Event(EventEnvelope::from_json(event).map_err(|_| unreadable(()))?)),
    }
}

/// What came of each trigger for the sample's source.
fn triggers(shared: &Shared, workflow: &Workflow, sample: &Sample) -> Result<Vec<EvaluatedTrigger>, Failure> {
    // Its steps do not matter, and may use what is not there.
    let alone = Workflow { steps: vec![step()], triggers: workflow.triggers.clone(), ..plain() };
    let parsed = wire::workflow(&alone, &shared.settings.urls);
    let parsed: model::Workflow =
        parsed.map_err(|_| Failure::Internal("a stored workflow cannot be evaluated".to_owned()))?;
    let mut evaluated = Vec::new();
    for (index, (trigger, wire)) in parsed.triggers.iter().zip(&workflow.triggers).enumerate() {
        if !sample.is_from(&trigger.start) {
            continue;
        }
        let filter = trigger.filter.as_ref();
        let operators = wire.filter.as_ref().map(operators).unwrap_or_default();
        let explained = filter.map(|filter| filter.explain(sample.cause())).unwrap_or_default();
        evaluated.push(EvaluatedTrigger {
            index: i32::try_from(index).unwrap_or(i32::MAX),
            matches: filter.is_none_or(|filter| filter.matches(sample.cause())),
            conditions: explained.iter().zip(operators).map(|(one, operator)| condition(one, operator)).collect(),
        });
    }
    Ok(evaluated)
}

fn plain() -> Workflow {
    Workflow { display_name: "-".to_owned(), triggers: started_by_nothing(), ..Workflow::default() }
}

fn step() -> Step {
    use sluice_proto::admin::v1::step::Action;
    let action = Some(Action::OutgoingIntegration("workspaces/-/outgoingIntegrations/-".to_owned()));
    Step { step_name: "-".to_owned(), action, ..Step::default() }
}

/// The operators of all conditions, in the order of the filter.
fn operators(filter: &Filter) -> Vec<Operator> {
    match &filter.kind {
        Some(filter::Kind::All(group) | filter::Kind::Any(group)) => group.filters.iter().flat_map(operators).collect(),
        Some(filter::Kind::Not(inner)) => operators(inner),
        Some(filter::Kind::Condition(condition)) => vec![Condition::operator(condition)],
        None => Vec::new(),
    }
}

fn condition(explained: &Explained<'_, '_>, operator: Operator) -> EvaluatedCondition {
    EvaluatedCondition {
        place: explained.place.clone(),
        path: explained.path.to_string(),
        operator: operator.into(),
        holds: explained.holds,
        found: explained.found.iter().take(FOUND_MAX).map(found).collect(),
    }
}

fn found(found: &Found<'_>) -> FoundValue {
    use serde_json::Value;
    let (kind, value) = match found {
        Found::Text(text) => (FoundType::FoundText, Value::from(*text).to_string()),
        Found::Json(value) => {
            let kind = match value.as_ref() {
                Value::Null => FoundType::FoundNull,
                Value::Bool(_) => FoundType::FoundBoolean,
                Value::Number(_) => FoundType::FoundNumber,
                Value::String(_) => FoundType::FoundText,
                Value::Array(_) => FoundType::FoundArray,
                Value::Object(_) => FoundType::FoundObject,
            };
            (kind, value.to_string())
        }
    };
    FoundValue { r#type: kind.into(), value: value.chars().take(VALUE_CHARS_MAX).collect() }
}
