//! What is served: published configuration compiled for use, one workspace revision at a time, behind one swappable handle.
//!
//! How a revision is compiled is [`compile`]'s business.

mod compile;
mod quarantine;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use sluice_core::model::{Action, Incoming, LoginKey, Outgoing, OutgoingRequest, Step, Workflow};
use sluice_core::request::Unmade;
use sluice_core::snapshot::{self, Resources};
use sluice_core::template::Context;
use sluice_proto::admin::v1::AttemptVersions;
use sluice_proto::sync::v1::WorkspaceBody;

pub use self::compile::{DATA_KEY_UNREADABLE, Position, With, compile, draft, for_test};
pub use self::quarantine::{Faulty, LeftOut};
use crate::credentials::Connected;
use crate::dispatch::{Limits, Rate, destination_of};
use crate::fleet::EndpointRate;
use crate::inbox::Flow;
use crate::senders::{Login, Remembered, TokenIssuer};

/// Between a workflow's name and the id of one of its steps, where that step is named.
const STEPS: &str = "/steps/";
/// The revision of what is compiled for a test; those that are published count from 1.
const TEST_REVISION: i64 = 0;
/// All that is served. A request holds the one it started with.
#[derive(Debug, Default)]
pub struct Runtime {
    workspaces: BTreeMap<String, Arc<Workspace>>,
    endpoints: HashMap<String, Arc<Endpoint>>,
    /// Ids of endpoints that exist and cannot be served.
    held_up: HashSet<String>,
    /// Workspaces that exist and of which nothing can be served.
    refused: BTreeSet<String>,
    /// Everything was loaded that there is, or refused.
    complete: bool,
}

/// One workspace at one revision.
#[derive(Debug)]
pub struct Workspace {
    /// `workspaces/{workspace}`.
    pub name: String,
    /// Which store the revision counts in.
    pub store_epoch: String,
    /// The revision.
    pub revision: i64,
    /// Over its resources.
    pub digest: [u8; 32],
    /// The number templates see.
    pub business_profile_id: u64,
    /// What it was compiled from, secrets still sealed: base of the next delta, content of the last good file.
    pub source: Arc<Source>,
    compiled: HashMap<String, Compiled>,
    /// Who may log in, and whose tokens are accepted.
    pub login: Arc<Login>,
    endpoints: HashMap<String, Arc<Endpoint>>,
    /// By the action of the response events they ask for.
    listening: HashMap<String, Vec<Wanting>>,
    /// By the action of the submitted events they ask for.
    submitted: HashMap<String, Vec<Wanting>>,
    /// Those that audiences may start, by name.
    audiences: HashMap<String, Vec<Wanting>>,
    /// What is not served of it.
    pub left_out: LeftOut,
}

/// The published resources of a workspace as they came.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// By name.
    pub resources: Resources,
    /// The wrapped data key.
    pub data_key: sluice_proto::sync::v1::WrappedKey,
    /// The number templates see.
    pub business_profile_id: i64,
}

impl Source {
    /// What a snapshot holds.
    pub fn from_snapshot(body: WorkspaceBody) -> Self {
        Self::default().changed(body)
    }

    /// What is held after a delta.
    pub fn changed(self, mut delta: WorkspaceBody) -> Self {
        let business_profile_id = delta.business_profile_id;
        let data_key = delta.data_key.take().unwrap_or_default();
        Self { resources: snapshot::apply(self.resources, delta), data_key, business_profile_id }
    }

    /// Everything as one whole body.
    pub fn to_snapshot(&self) -> WorkspaceBody {
        WorkspaceBody {
            business_profile_id: self.business_profile_id,
            data_key: Some(self.data_key.clone()),
            upserts: self.resources.values().cloned().collect(),
            deletes: Vec::new(),
        }
    }
}

#[derive(Clone, Debug)]
struct Compiled {
    content: [u8; 32],
    document: Parsed,
}

#[derive(Clone, Debug)]
enum Parsed {
    Connection(Arc<Connected>),
    Incoming(Arc<Incoming>),
    Outgoing(Arc<Outgoing>),
    Workflow(Arc<Workflow>),
    LoginKey(Arc<LoginKey>),
    TokenKeys(Arc<TokenIssuer>),
    /// Part of the templates that name it.
    Snippet,
}

impl Parsed {
    /// Snippets are compiled into it.
    fn has_templates(&self) -> bool {
        match self {
            Self::Outgoing(_) | Self::Workflow(_) | Self::Snippet => true,
            Self::Connection(_) | Self::Incoming(_) | Self::LoginKey(_) | Self::TokenKeys(_) => false,
        }
    }
}

/// One published endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// Its rules.
    pub incoming: Arc<Incoming>,
    /// `workspaces/{workspace}`.
    pub workspace: String,
    /// The number templates see.
    pub business_profile_id: u64,
    /// The revision it belongs to.
    pub revision: i64,
    /// The workflows that may want its requests.
    pub workflows: Vec<Wanting>,
    /// How much it takes (D10).
    pub rate: Arc<EndpointRate>,
    /// Of its workspace.
    pub login: Arc<Login>,
    /// Tokens of its own issuer that were verified; forgotten when the endpoint changes.
    pub remembered: Arc<Remembered>,
    /// It is there for a capture only, and starts nothing.
    pub is_draft: bool,
}

/// A workflow, and where its steps lead.
#[derive(Clone, Debug)]
pub struct Wanting {
    /// The workflow.
    pub workflow: Arc<Workflow>,
    /// Of each step.
    pub flows: Vec<Arc<Flow>>,
}

/// What a job needs of the configuration in force.
#[derive(Debug)]
pub struct Target {
    /// The workspace's revision.
    pub revision: i64,
    /// The workflow.
    pub workflow: Arc<Workflow>,
    /// Where its step stands.
    step: usize,
    outgoing: Option<Arc<Outgoing>>,
}

impl Target {
    /// The step.
    pub fn step(&self) -> &Step {
        &self.workflow.steps[self.step]
    }

    /// The request to send.
    pub fn request(&self) -> Option<&OutgoingRequest> {
        match &self.step().action {
            Action::Custom(request) => Some(request),
            Action::Outgoing(_) => self.outgoing.as_ref().map(|outgoing| &outgoing.request),
        }
    }

    /// Fills in the form of the integration, so that its templates find the values. The paths that were missing.
    ///
    /// # Errors
    /// As [`Form::fill`](sluice_core::form::Form::fill).
    pub fn fill(&self, context: &mut Context) -> Result<Vec<String>, Unmade> {
        let filled = self.outgoing.as_ref().and_then(|outgoing| Some((outgoing.form.as_ref()?, &outgoing.request)));
        let Some((form, request)) = filled else { return Ok(Vec::new()) };
        form.fill(&self.step().form_values, request.template.on_missing, context)
    }
}

impl Runtime {
    /// The published endpoint with this id.
    pub fn endpoint(&self, id: &str) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(id)
    }

    /// Whether the endpoint with this id exists and cannot be served.
    pub fn holds_up(&self, id: &str) -> bool {
        self.held_up.contains(id)
    }

    /// Whether everything was loaded that there is, or refused.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether an endpoint that is not here does not exist.
    pub fn denies_endpoints(&self) -> bool {
        self.complete && self.refused.is_empty()
    }

    /// Whether an API key that is not here does not exist.
    pub fn denies_keys(&self) -> bool {
        self.denies_endpoints() && self.workspaces.values().all(|workspace| workspace.left_out.is_empty())
    }

    /// A workspace.
    pub fn workspace(&self, name: &str) -> Option<&Arc<Workspace>> {
        self.workspaces.get(name)
    }

    /// What the owner of a flow sets; nothing when it is no longer published: its jobs find that out themselves.
    pub fn limits(&self, flow: &Flow) -> Limits {
        let workspace = self.workspaces.get(&flow.workspace);
        let limits = workspace.and_then(|workspace| workspace.owned(&flow.owner)).map(|request| Limits {
            rate: request.rate_limit.map(Rate::from),
            concurrency_max: request.concurrency_max,
            age_max: Some(request.retry.age_max),
        });
        limits.unwrap_or_default()
    }

    /// All workspaces by name.
    pub fn workspaces(&self) -> impl Iterator<Item = &Arc<Workspace>> {
        self.workspaces.values()
    }
}

impl Workspace {
    /// Where it stands.
    pub fn position(&self) -> Position {
        Position {
            workspace: self.name.clone(),
            store_epoch: self.store_epoch.clone(),
            revision: self.revision,
            digest: self.digest.to_vec(),
        }
    }

    /// It is compiled for a test and served nowhere.
    pub fn is_for_test(&self) -> bool {
        self.revision == TEST_REVISION
    }

    /// What a job of this workflow's step needs; `None` when it is no longer published.
    pub fn target(&self, workflow: &str, step_id: &str) -> Option<Target> {
        let Parsed::Workflow(workflow) = &self.compiled.get(workflow)?.document else { return None };
        let step = workflow.steps.iter().position(|step| step.id == step_id)?;
        let outgoing = match &workflow.steps[step].action {
            Action::Custom(_) => None,
            Action::Outgoing(name) => Some(self.outgoing(name)?.clone()),
        };
        Some(Target { revision: self.revision, workflow: workflow.clone(), step, outgoing })
    }

    /// With what a job of this step waits; `None` when it is no longer published.
    pub fn flow(&self, workflow: &Workflow, step: &Step) -> Option<Flow> {
        let (request, owner) = match &step.action {
            Action::Custom(request) => (request, format!("{}{STEPS}{}", workflow.name, step.id)),
            Action::Outgoing(name) => (&self.outgoing(name)?.request, name.clone()),
        };
        let destination = destination_of(request.template.published_url.as_url().as_str()).to_owned();
        Some(Flow { workspace: self.name.clone(), destination, owner })
    }

    /// The request of the owner of a flow.
    fn owned(&self, owner: &str) -> Option<&OutgoingRequest> {
        let (name, step_id) = owner.split_once(STEPS).unwrap_or((owner, ""));
        match &self.compiled.get(name)?.document {
            Parsed::Outgoing(outgoing) => Some(&outgoing.request),
            Parsed::Workflow(workflow) => {
                let step = workflow.steps.iter().find(|step| step.id == step_id)?;
                match &step.action {
                    Action::Custom(request) => Some(request),
                    Action::Outgoing(_) => None,
                }
            }
            Parsed::Connection(_)
            | Parsed::Incoming(_)
            | Parsed::LoginKey(_)
            | Parsed::TokenKeys(_)
            | Parsed::Snippet => None,
        }
    }

    fn outgoing(&self, name: &str) -> Option<&Arc<Outgoing>> {
        let Parsed::Outgoing(outgoing) = &self.compiled.get(name)?.document else { return None };
        Some(outgoing)
    }

    /// A connection.
    pub fn connection(&self, name: &str) -> Option<&Arc<Connected>> {
        connected(self.compiled.get(name)?)
    }

    /// All connections, in no order.
    pub fn connections(&self) -> impl Iterator<Item = &Arc<Connected>> {
        self.compiled.values().filter_map(connected)
    }

    /// The versions an attempt at this target is made under (D08).
    pub fn versions(&self, target: &Target) -> AttemptVersions {
        let version = |name: &str| self.source.resources.get(name).map_or(0, |resource| resource.version);
        let outgoing = match &target.step().action {
            Action::Custom(_) => "",
            Action::Outgoing(name) => name,
        };
        let connection = target.request().and_then(|request| request.connection.as_deref()).unwrap_or_default();
        AttemptVersions {
            revision: target.revision,
            workflow_version: version(&target.workflow.name),
            outgoing_integration: outgoing.to_owned(),
            outgoing_integration_version: version(outgoing),
            connection: connection.to_owned(),
            connection_version: version(connection),
        }
    }

    /// The workflows that response events with this action may start (D01).
    pub fn listening(&self, action: &str) -> &[Wanting] {
        self.listening.get(action).map_or(&[], Vec::as_slice)
    }

    /// The workflows that submitted events with this action may start (D01).
    pub fn submitted(&self, action: &str) -> &[Wanting] {
        self.submitted.get(action).map_or(&[], Vec::as_slice)
    }

    /// The workflow with this name, if audiences may start it (R126).
    pub fn audience(&self, workflow: &str) -> Option<&Wanting> {
        self.audiences.get(workflow)?.first()
    }

    /// How many endpoints it has.
    pub fn endpoints(&self) -> usize {
        self.endpoints.len()
    }
}

fn connected(compiled: &Compiled) -> Option<&Arc<Connected>> {
    let Parsed::Connection(connected) = &compiled.document else { return None };
    Some(connected)
}

/// The handle everything reads through; only the sync task writes.
#[derive(Debug, Default)]
pub struct Served {
    current: ArcSwap<Runtime>,
}

impl Served {
    /// What is served now.
    pub fn load(&self) -> Arc<Runtime> {
        self.current.load_full()
    }

    /// Serves another revision of one workspace.
    pub fn put(&self, workspace: Arc<Workspace>) {
        self.change(|runtime| {
            runtime.refused.remove(&workspace.name);
            runtime.workspaces.insert(workspace.name.clone(), workspace.clone());
        });
    }

    /// Stops serving a workspace that was deleted.
    pub fn drop_workspace(&self, name: &str) {
        self.change(|runtime| {
            runtime.refused.remove(name);
            runtime.workspaces.remove(name);
        });
    }

    /// A workspace exists whose revision cannot be served. What is served of it stays; if nothing is, nobody can say which endpoints it has.
    pub fn refuse(&self, name: &str) {
        if self.load().workspace(name).is_none() {
            self.change(|runtime| {
                runtime.refused.insert(name.to_owned());
            });
        }
    }

    /// From now on an endpoint that is not here does not exist.
    pub fn set_complete(&self) {
        self.change(|runtime| runtime.complete = true);
    }

    fn change(&self, change: impl Fn(&mut Runtime)) {
        self.current.rcu(|current| {
            let mut next = Runtime {
                workspaces: current.workspaces.clone(),
                endpoints: HashMap::new(),
                held_up: HashSet::new(),
                refused: current.refused.clone(),
                complete: current.complete,
            };
            change(&mut next);
            let all = next.workspaces.values().flat_map(|workspace| &workspace.endpoints);
            next.endpoints = all.map(|(id, endpoint)| (id.clone(), endpoint.clone())).collect();
            next.held_up =
                next.workspaces.values().flat_map(|workspace| workspace.left_out.endpoints()).cloned().collect();
            next
        });
    }
}
