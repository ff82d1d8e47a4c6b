//! What is tested, as a configuration of one step with all that it needs: the draft or version, what it refers to as it is in force, and
//! the snippets its templates name. Hides where each of them comes from.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message as _;
use sluice_core::model::{self, Action};
use sluice_core::template::Snippets;
use sluice_core::validate::{self, Violation};
use sluice_core::wire::{self, References as _};
use sluice_proto::admin::v1::step::Action as Does;
use sluice_proto::admin::v1::test_target::Kind;
use sluice_proto::admin::v1::{
    AudienceTrigger, Connection, ContextUse, OutgoingIntegration, Step, TestStep, TestTarget, Trigger, Workflow,
};
use sluice_proto::sync::v1::{self as sync, WorkspaceBody};

use crate::error::{Failure, violation};
use crate::forms;
use crate::names::{self, Name, workspace_name};
use crate::publish::frame;
use crate::resource::{Resource, Versioned};
use crate::shared::Shared;
use crate::snippets::{self, Reading};
use crate::store::{Transaction, WorkspaceRow};
use crate::stored::Stored;
use crate::versions;

/// The roots of templates that a context gives.
const ROOTS: [&str; 3] = ["request", "event", "customer"];
/// Where a caller names an outgoing integration.
const INTEGRATION: &str = "target.outgoing_integration";
/// The step of a request that stands in no workflow.
const ALONE: &str = "test";

/// A request with all that it needs.
pub(super) struct Target {
    pub(super) configuration: WorkspaceBody,
    /// The workflow's name.
    pub(super) workflow: String,
    pub(super) step_id: String,
    /// What its templates take from the context.
    pub(super) uses: Vec<ContextUse>,
    /// Those it names.
    pub(super) connections: Vec<String>,
    /// Why there can be no customer; `None`: there can be one.
    pub(super) without_customer: Option<String>,
}

/// What was named, before anything else is looked up.
struct Named {
    /// With the one step that is tested.
    workflow: Workflow,
    /// What the step refers to.
    outgoing: Option<sync::Resource>,
    reading: Reading,
    /// Where the caller said so.
    field: &'static str,
}

/// Finds what is tested.
pub(super) async fn read(
    shared: &Shared,
    tx: &mut Transaction,
    workspace: &WorkspaceRow,
    asked: TestTarget,
) -> Result<Target, Failure> {
    if !asked.form_values.is_empty() && !matches!(asked.kind, Some(Kind::OutgoingIntegration(_))) {
        let message = "are for an outgoing integration alone: a step brings its own";
        return Err(Failure::field("target.form_values", "FORM_VALUES_NOT_TAKEN", message));
    }
    let named = match asked.kind {
        Some(Kind::OutgoingIntegration(name)) => integration(tx, workspace, &name, asked.form_values).await?,
        Some(Kind::Step(step)) => step_of(tx, workspace, &step).await?,
        Some(Kind::Request(request)) => alone(workspace, Does::CustomWebhook(request), None),
        None => {
            let message = "one of outgoing_integration, step, request is required";
            return Err(Failure::field("target", "REQUIRED", message));
        }
    };
    let Named { mut workflow, outgoing, reading, field } = named;
    let mut resources: Vec<sync::Resource> = outgoing.iter().cloned().collect();
    let outgoing = outgoing.and_then(|resource| resource.document).and_then(OutgoingIntegration::from_document);
    let ids = workflow.snippets().into_iter().chain(outgoing.iter().flat_map(OutgoingIntegration::snippets));
    let mut texts = Snippets::new();
    for (id, snippet) in snippets::documents(tx, &workspace.id, ids.collect(), reading).await? {
        texts.set(&id, &snippet.text);
        resources.push(resource(snippets::name(&workspace.id, &id), snippet));
    }
    let parsed = Parsed::read(shared, &workflow, outgoing.as_ref(), &Arc::new(texts), field)?;
    let without_customer = parsed.without_customer(field)?;
    let (uses, mut connections) = (parsed.uses(), Vec::new());
    for (part, name, _) in parsed.request()?.connections() {
        let connection = connection(shared, tx, workspace, &format!("{field}.{part}"), name).await?;
        if !resources.iter().any(|known| known.name == connection.name) {
            connections.push(name.to_owned());
            resources.push(connection);
        }
    }
    let step_id = parsed.workflow.steps.first().map(|step| step.id.clone()).unwrap_or_default();
    // Whatever starts it need not be there for a test.
    workflow.triggers = started_by_nothing();
    let name = workflow.name.clone();
    resources.push(resource(name.clone(), workflow));
    let configuration = WorkspaceBody { upserts: resources, ..frame(workspace) };
    Ok(Target { configuration, workflow: name, step_id, uses, connections, without_customer })
}

fn resource<R: Resource>(name: String, document: R) -> sync::Resource {
    sync::Resource { name, version: 0, document: Some(document.into_document()), secrets: Vec::new() }
}

pub(super) fn started_by_nothing() -> Vec<Trigger> {
    vec![Trigger { audience: Some(AudienceTrigger {}), ..Trigger::default() }]
}

/// A request that stands in no workflow.
fn alone(workspace: &WorkspaceRow, mut action: Does, outgoing: Option<sync::Resource>) -> Named {
    let mut field = INTEGRATION;
    if let Does::CustomWebhook(request) = &mut action {
        field = "target.request";
        // It is not part of what is sent, so it need not be chosen yet.
        if request.webhook_name.is_empty() {
            ALONE.clone_into(&mut request.webhook_name);
        }
    }
    let step = Step { step_id: ALONE.to_owned(), step_name: ALONE.to_owned(), action: Some(action), ..Step::default() };
    let workflow = Workflow {
        // No workflow can have this id.
        name: format!("{}/{}/-", workspace_name(&workspace.id), Workflow::COLLECTION),
        display_name: ALONE.to_owned(),
        triggers: started_by_nothing(),
        steps: vec![step],
        ..Workflow::default()
    };
    Named { workflow, outgoing, reading: Reading::Draft, field }
}

/// The draft or a version of an outgoing integration.
async fn integration(
    tx: &mut Transaction,
    workspace: &WorkspaceRow,
    name: &str,
    form_values: BTreeMap<String, String>,
) -> Result<Named, Failure> {
    let (name, document, reading) = outgoing(tx, workspace, name, INTEGRATION).await?;
    if !form_values.is_empty() && document.schema_template.is_empty() {
        let message = "are not taken: the integration has no schema template (R009)";
        return Err(Failure::field("target.form_values", "FORM_VALUES_NOT_TAKEN", message));
    }
    let outgoing = Some(resource(name.clone(), document));
    let mut named = alone(workspace, Does::OutgoingIntegration(name), outgoing);
    if let Some(step) = named.workflow.steps.first_mut() {
        step.form_values = form_values;
    }
    Ok(Named { reading, ..named })
}

/// An outgoing integration, or a version of it, with its form.
async fn outgoing(
    tx: &mut Transaction,
    workspace: &WorkspaceRow,
    name: &str,
    field: &str,
) -> Result<(String, OutgoingIntegration, Reading), Failure> {
    let (stored, content, reading) = draft_or_version::<OutgoingIntegration>(tx, workspace, name, field).await?;
    let name = stored.row.name;
    let mut document = OutgoingIntegration { name: name.clone(), ..content };
    if reading == Reading::Draft {
        document.embed(forms::of_draft(tx, &workspace.id, &document.references()).await?);
    }
    Ok((name, document, reading))
}

/// A step of the draft or of a version of a workflow. What the draft refers to is tested as a draft, too; what a version refers to, as it
/// is in force.
async fn step_of(tx: &mut Transaction, workspace: &WorkspaceRow, asked: &TestStep) -> Result<Named, Failure> {
    let (stored, content, reading) =
        draft_or_version::<Workflow>(tx, workspace, &asked.workflow, "target.step.workflow").await?;
    let step = content.steps.iter().find(|step| step.step_id == asked.step_id).cloned();
    let step = step.ok_or_else(|| {
        Failure::field("target.step.step_id", "STEP_NOT_FOUND", "the workflow has no step with this id")
    })?;
    let outgoing = match (&step.action, reading) {
        (Some(Does::OutgoingIntegration(name)), Reading::Draft) => {
            let (name, document, _) = outgoing(tx, workspace, name, "target.step").await?;
            Some(resource(name, document))
        }
        (Some(Does::OutgoingIntegration(name)), Reading::InForce) => {
            let head = in_force(tx, workspace, name).await?;
            Some(head.ok_or_else(|| Failure::NotPublished(name.clone()))?)
        }
        (Some(Does::CustomWebhook(_)) | None, _) => None,
    };
    let triggers = content.triggers.into_iter().map(|trigger| Trigger { filter: None, ..trigger });
    let workflow = Workflow {
        name: stored.row.name,
        uid: stored.row.uid,
        display_name: content.display_name,
        triggers: triggers.collect(),
        steps: vec![step],
        ..Workflow::default()
    };
    Ok(Named { workflow, outgoing, reading, field: "target.step" })
}

async fn draft_or_version<R: Versioned>(
    tx: &mut Transaction,
    workspace: &WorkspaceRow,
    name: &str,
    field: &str,
) -> Result<(Stored<R>, R, Reading), Failure> {
    let (document, number) = match name.contains("/versions/") {
        true => versions::split(name, field).map(|(document, number)| (document, Some(number)))?,
        false => (name, None),
    };
    let parsed: Name = names::parse(document, R::COLLECTION, field)?;
    if parsed.workspace != workspace.id {
        return Err(Failure::NotFound(name.to_owned()));
    }
    let stored = Stored::<R>::load(tx, &parsed, "").await?;
    match number {
        Some(number) => {
            let content = versions::content(tx, &parsed, number).await?;
            Ok((stored, content, Reading::InForce))
        }
        None => {
            let draft = stored.draft.clone();
            Ok((stored, draft, Reading::Draft))
        }
    }
}

pub(super) async fn in_force(
    tx: &mut Transaction,
    workspace: &WorkspaceRow,
    name: &str,
) -> Result<Option<sync::Resource>, Failure> {
    let Some(head) = tx.head(&workspace.id, name).await? else { return Ok(None) };
    let resource = sync::Resource::decode(head.as_slice());
    resource.map(Some).map_err(|_| Failure::Internal("a resource in force cannot be read".to_owned()))
}

/// A connection with its secrets, if it is for what it is named for.
async fn connection(
    shared: &Shared,
    tx: &mut Transaction,
    workspace: &WorkspaceRow,
    field: &str,
    name: &str,
) -> Result<sync::Resource, Failure> {
    let Some(resource) = in_force(tx, workspace, name).await? else {
        let message = format!("`{name}` does not exist in this workspace");
        return Err(Failure::field(field, "RESOURCE_NOT_FOUND", message));
    };
    let document = resource.document.clone().and_then(Connection::from_document).unwrap_or_default();
    let misnamed = validate::connection_purpose(field, &document, &shared.settings.urls);
    if misnamed.is_empty() { Ok(resource) } else { Err(Failure::Fields(misnamed)) }
}

/// What is tested with its templates compiled, to see what they use.
struct Parsed {
    workflow: model::Workflow,
    outgoing: Option<model::Outgoing>,
}

impl Parsed {
    fn read(
        shared: &Shared,
        workflow: &Workflow,
        outgoing: Option<&OutgoingIntegration>,
        snippets: &Arc<Snippets>,
        field: &str,
    ) -> Result<Self, Failure> {
        let urls = &shared.settings.urls;
        let refuse = |found: Vec<Violation>| {
            let at = |broken: Violation| {
                let within = ["steps[0].custom_webhook", "steps[0]", "request"];
                let inner = within.iter().find_map(|within| broken.field.strip_prefix(within));
                let place = inner.unwrap_or_default().to_owned();
                // The values for an integration alone stand beside it.
                let beside = field == INTEGRATION && place.starts_with(".form_values");
                Violation { field: format!("{}{place}", if beside { "target" } else { field }), ..broken }
            };
            Failure::Fields(found.into_iter().map(at).collect())
        };
        let outgoing = outgoing.map(|outgoing| wire::outgoing_with(outgoing, urls, snippets)).transpose();
        let parsed = Self {
            workflow: wire::workflow_with(workflow, urls, snippets).map_err(refuse)?,
            outgoing: outgoing.map_err(refuse)?,
        };
        let unknown = parsed.unknown_fields();
        if unknown.is_empty() { Ok(parsed) } else { Err(refuse(unknown)) }
    }

    /// Form values for which the integration has no field, as a step would be refused for (D25).
    fn unknown_fields(&self) -> Vec<Violation> {
        let form = self.outgoing.as_ref().and_then(|outgoing| outgoing.form.as_ref());
        let Some((step, form)) = self.workflow.steps.first().zip(form) else { return Vec::new() };
        let within = |one: Violation| Violation { field: format!("steps[0].{}", one.field), ..one };
        validate::unknown_fields(step, form).into_iter().map(within).collect()
    }

    fn request(&self) -> Result<&model::OutgoingRequest, Failure> {
        let own = self.workflow.steps.first().and_then(|step| match &step.action {
            Action::Custom(request) => Some(request),
            Action::Outgoing(_) => None,
        });
        let request = own.or(self.outgoing.as_ref().map(|outgoing| &outgoing.request));
        request.ok_or_else(|| Failure::Internal("a test has no request".to_owned()))
    }

    fn uses(&self) -> Vec<ContextUse> {
        let Ok(request) = self.request() else { return Vec::new() };
        let mut uses = Vec::new();
        let step = self.workflow.steps.first().map(|step| step.form_values.as_slice()).unwrap_or_default();
        let values = step.iter().map(|(id, value)| (format!("form_values[{id}]"), value));
        for (field, template) in request.template.templates().into_iter().chain(values) {
            for root in template.roots().iter().filter(|root| ROOTS.contains(&root.name.as_str())) {
                uses.push(ContextUse {
                    root: root.name.clone(),
                    field: field.clone(),
                    line: root.line.cast_signed(),
                    column: root.column.cast_signed(),
                });
            }
        }
        uses
    }

    /// Why there can be no customer, if so: then no template may use one (R080).
    fn without_customer(&self, at: &str) -> Result<Option<String>, Failure> {
        let Some(why) = self.workflow.triggers.iter().find_map(|trigger| trigger.start.no_customer()) else {
            return Ok(None);
        };
        let mut found = Vec::new();
        for (field, template) in self.request()?.templates() {
            for root in template.roots().iter().filter(|root| root.name == "customer") {
                let message = format!(
                    "`customer` cannot be used in this workflow: {why} ({field}, line {}, column {})\n{}",
                    root.line, root.column, root.excerpt
                );
                found.push(violation(at, "CUSTOMER_NOT_AVAILABLE", message));
            }
        }
        if found.is_empty() { Ok(Some(why.to_owned())) } else { Err(Failure::Fields(found)) }
    }
}
