//! What is served: published configuration compiled for use, one workspace revision at a time, behind one swappable handle.
//!
//! A revision is compiled whole or refused whole (I4). What did not change since the revision before is taken over as it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;

use arc_swap::ArcSwap;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use sluice_core::address::UrlPolicy;
use sluice_core::model::{
    Action, Incoming, Outgoing, OutgoingRequest, Purpose, RateLimit, SenderSecret, Start, Step, Trigger, Workflow,
};
use sluice_core::seal::{self, Aad, DataKey, MasterKeys, Sealed, Slot, WrappedKey};
use sluice_core::snapshot::{self, Resources};
use sluice_core::validate::Violation;
use sluice_core::wire::{self, SecretFields};
use sluice_proto::admin::v1::{AttemptVersions, Problem};
use sluice_proto::sync::v1::{Resource, WorkspaceBody, resource::Document};

use crate::credentials::{Connected, Tokens};
use crate::dispatch::{Limits, destination_of};
use crate::inbox::Flow;

/// Between a workflow's name and the id of one of its steps, where that step is named.
const STEPS: &str = "/steps/";
/// Most problems named in one refusal.
pub const PROBLEMS_MAX: usize = 100;

/// All that is served. A request holds the one it started with.
#[derive(Debug, Default)]
pub struct Runtime {
    workspaces: BTreeMap<String, Arc<Workspace>>,
    endpoints: HashMap<String, Arc<Endpoint>>,
    /// Something was loaded, so an endpoint that is not here does not exist.
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
    endpoints: HashMap<String, Arc<Endpoint>>,
    /// By the action of the response events they ask for.
    listening: HashMap<String, Vec<Wanting>>,
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
    pub limiter: Arc<DefaultDirectRateLimiter>,
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
}

impl Runtime {
    /// The published endpoint with this id.
    pub fn endpoint(&self, id: &str) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(id)
    }

    /// Whether an endpoint that is not here does not exist.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// A workspace.
    pub fn workspace(&self, name: &str) -> Option<&Arc<Workspace>> {
        self.workspaces.get(name)
    }

    /// What the owner of a flow sets; nothing when it is no longer published: its jobs find that out themselves.
    pub fn limits(&self, flow: &Flow) -> Limits {
        let workspace = self.workspaces.get(&flow.workspace);
        let limits = workspace.and_then(|workspace| workspace.owned(&flow.owner)).map(|request| Limits {
            rate: request.rate_limit,
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
    /// What a job of this workflow's step needs; `None` when it is no longer published.
    pub fn target(&self, workflow: &str, step_id: &str) -> Option<Target> {
        let Parsed::Workflow(workflow) = &self.compiled.get(workflow)?.document else { return None };
        let step = workflow.steps.iter().position(|step| step.id == step_id)?;
        let outgoing = match &workflow.steps[step].action {
            Action::Custom(_) => None,
            Action::Outgoing(name) => match &self.compiled.get(name)?.document {
                Parsed::Outgoing(outgoing) => Some(outgoing.clone()),
                Parsed::Connection(_) | Parsed::Incoming(_) | Parsed::Workflow(_) => return None,
            },
        };
        Some(Target { revision: self.revision, workflow: workflow.clone(), step, outgoing })
    }

    /// With what a job of this step waits; `None` when it is no longer published.
    pub fn flow(&self, workflow: &Workflow, step: &Step) -> Option<Flow> {
        let (request, owner) = match &step.action {
            Action::Custom(request) => (request, format!("{}{STEPS}{}", workflow.name, step.id)),
            Action::Outgoing(name) => match &self.compiled.get(name)?.document {
                Parsed::Outgoing(outgoing) => (&outgoing.request, name.clone()),
                Parsed::Connection(_) | Parsed::Incoming(_) | Parsed::Workflow(_) => return None,
            },
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
            Parsed::Connection(_) | Parsed::Incoming(_) => None,
        }
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

    /// How many endpoints it has.
    pub fn endpoints(&self) -> usize {
        self.endpoints.len()
    }
}

fn connected(compiled: &Compiled) -> Option<&Arc<Connected>> {
    match &compiled.document {
        Parsed::Connection(connected) => Some(connected),
        Parsed::Incoming(_) | Parsed::Outgoing(_) | Parsed::Workflow(_) => None,
    }
}

/// Where the revision to compile stands.
#[derive(Clone, Debug)]
pub struct Position {
    /// `workspaces/{workspace}`.
    pub workspace: String,
    /// Which store the revision counts in.
    pub store_epoch: String,
    /// The revision.
    pub revision: i64,
    /// What the sender says the digest is.
    pub digest: Vec<u8>,
}

/// Compiles one revision whole, or says everything that is wrong with it.
pub fn compile(
    at: &Position,
    source: Source,
    previous: Option<&Workspace>,
    keys: &MasterKeys,
    urls: &UrlPolicy,
    tokens: &Tokens,
) -> Result<Workspace, Vec<Problem>> {
    let contents: BTreeMap<&str, [u8; 32]> =
        source.resources.iter().map(|(name, resource)| (name.as_str(), snapshot::content_hash(resource))).collect();
    let digest = snapshot::digest(contents.iter().map(|(name, content)| (*name, content)));
    if digest.as_slice() != at.digest {
        let message = "the content does not have the digest that was announced";
        return Err(vec![problem(&at.workspace, "", "DIGEST_MISMATCH", message)]);
    }
    let data_key = open_data_key(&at.workspace, &source, keys)?;
    let mut compiled = HashMap::with_capacity(source.resources.len());
    let mut problems = Vec::new();
    for (name, resource) in &source.resources {
        let content = contents[name.as_str()];
        let kept = previous.and_then(|previous| previous.compiled.get(name)).filter(|kept| kept.content == content);
        let document = match kept {
            Some(kept) => Ok(kept.document.clone()),
            None => parse(&at.workspace, resource, &data_key, urls, tokens),
        };
        match document {
            Ok(document) => drop(compiled.insert(name.clone(), Compiled { content, document })),
            Err(found) => problems.extend(found),
        }
    }
    problems.extend(dangling(&compiled));
    if !problems.is_empty() {
        problems.truncate(PROBLEMS_MAX);
        return Err(problems);
    }
    let mut workspace = Workspace {
        name: at.workspace.clone(),
        store_epoch: at.store_epoch.clone(),
        revision: at.revision,
        digest,
        business_profile_id: u64::try_from(source.business_profile_id).unwrap_or_default(),
        source: Arc::new(source),
        compiled,
        endpoints: HashMap::new(),
        listening: HashMap::new(),
    };
    workspace.endpoints = endpoints(&workspace, previous);
    workspace.listening = listening(&workspace);
    Ok(workspace)
}

fn problem(resource: &str, field: &str, reason: &str, message: &str) -> Problem {
    Problem {
        resource: resource.to_owned(),
        field: field.to_owned(),
        line: 0,
        column: 0,
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

fn open_data_key(workspace: &str, source: &Source, keys: &MasterKeys) -> Result<DataKey, Vec<Problem>> {
    let wrapped = WrappedKey { key_id: source.data_key.key_id.clone(), bytes: source.data_key.ciphertext.to_vec() };
    keys.unwrap(&wrapped, workspace).map_err(|error| {
        let message = format!(
            "the workspace's data key cannot be opened: {error}; then restart this data plane or publish again"
        );
        vec![problem(workspace, "", "DATA_KEY_UNREADABLE", &message)]
    })
}

/// Opens the secrets of one resource and parses it.
fn parse(
    workspace: &str,
    resource: &Resource,
    key: &DataKey,
    urls: &UrlPolicy,
    tokens: &Tokens,
) -> Result<Parsed, Vec<Problem>> {
    let problems = |found: Vec<Violation>| -> Vec<Problem> {
        let of = |violation: Violation| Problem {
            resource: resource.name.clone(),
            field: violation.field,
            line: violation.line.cast_signed(),
            column: violation.column.cast_signed(),
            reason: violation.reason.to_owned(),
            message: violation.message,
        };
        found.into_iter().map(of).collect()
    };
    match resource.document.clone() {
        Some(Document::Connection(mut document)) => {
            open_secrets(workspace, resource, &mut document, key)?;
            let parsed = wire::connection(&document, urls).map_err(problems)?;
            Ok(Parsed::Connection(Arc::new(tokens.connect(parsed))))
        }
        Some(Document::IncomingIntegration(mut document)) => {
            let beside = open_secrets(workspace, resource, &mut document, key)?;
            let mut parsed = wire::incoming(&document).map_err(problems)?;
            for (path, accepted) in beside {
                parsed.accept_also(&path, accepted);
            }
            Ok(Parsed::Incoming(Arc::new(parsed)))
        }
        Some(Document::OutgoingIntegration(document)) => {
            wire::outgoing(&document, urls).map(|parsed| Parsed::Outgoing(Arc::new(parsed))).map_err(problems)
        }
        Some(Document::Workflow(document)) => {
            wire::workflow(&document, urls).map(|parsed| Parsed::Workflow(Arc::new(parsed))).map_err(problems)
        }
        None => {
            Err(vec![problem(&resource.name, "", "KIND_UNKNOWN", "this build does not know this kind of resource")])
        }
    }
}

/// Puts every active secret into its field, and returns those that are accepted beside them (S16). A secret that is said to be set
/// and is not there is a refusal, never an empty secret.
fn open_secrets(
    workspace: &str,
    resource: &Resource,
    document: &mut impl SecretFields,
    key: &DataKey,
) -> Result<Vec<(String, SenderSecret)>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut beside = Vec::new();
    for field in document.secret_fields() {
        let path = field.path.as_ref();
        let of_field = resource.secrets.iter().filter(|sealed| sealed.field == path);
        let mut is_there = false;
        for sealed in of_field.filter(|sealed| field.overlaps || wire::slot_of(sealed) == Slot::Active) {
            let slot = wire::slot_of(sealed);
            is_there |= slot == Slot::Active;
            let aad = Aad { workspace, object: &resource.name, field: path, version: sealed.version.cast_unsigned() };
            match seal::open_text(key, aad, &Sealed::from_bytes(sealed.ciphertext.to_vec())) {
                Ok(secret) if slot == Slot::Active => secret.expose().clone_into(field.value),
                Ok(secret) => beside.push((path.to_owned(), SenderSecret { slot, secret })),
                Err(error) => {
                    let message = format!("the secret cannot be opened: {error}");
                    problems.push(problem(&resource.name, path, "SECRET_UNREADABLE", &message));
                }
            }
        }
        if *field.is_set && !is_there {
            let message = "the secret cannot be opened: it is missing";
            problems.push(problem(&resource.name, path, "SECRET_UNREADABLE", message));
        }
    }
    if problems.is_empty() { Ok(beside) } else { Err(problems) }
}

/// References to what is not part of the revision, or not for what refers to it: it would not be whole.
fn dangling(compiled: &HashMap<String, Compiled>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut require = |from: &str, field: String, to: &str, purpose: Option<Purpose>| {
        let found = compiled.get(to).map(|entry| &entry.document);
        let fits = match (found, purpose) {
            (Some(Parsed::Connection(found)), Some(wanted)) => found.connection.scheme.purpose() == wanted,
            (Some(_), wanted) => wanted.is_none(),
            (None, _) => false,
        };
        if found.is_none() {
            let message = format!("`{to}` is not part of this revision");
            problems.push(problem(from, &field, "REFERENCE_MISSING", &message));
        } else if !fits {
            let message = format!("`{to}` is not for this: one kind of connection authenticates, another signs");
            problems.push(problem(from, &field, "CONNECTION_PURPOSE", &message));
        }
    };
    for (name, entry) in compiled {
        match &entry.document {
            Parsed::Connection(_) | Parsed::Incoming(_) => {}
            Parsed::Outgoing(outgoing) => {
                for (field, connection, purpose) in outgoing.request.connections() {
                    require(name, format!("request.{field}"), connection, Some(purpose));
                }
            }
            Parsed::Workflow(workflow) => {
                for (index, trigger) in workflow.triggers.iter().enumerate() {
                    if let Start::Incoming(incoming) = &trigger.start {
                        require(name, format!("triggers[{index}].incoming_integration"), incoming, None);
                    }
                }
                for (index, step) in workflow.steps.iter().enumerate() {
                    match &step.action {
                        Action::Outgoing(to) => {
                            require(name, format!("steps[{index}].outgoing_integration"), to, None);
                        }
                        Action::Custom(request) => {
                            for (field, connection, purpose) in request.connections() {
                                let field = format!("steps[{index}].custom_webhook.{field}");
                                require(name, field, connection, Some(purpose));
                            }
                        }
                    }
                }
            }
        }
    }
    problems
}

fn endpoints(workspace: &Workspace, previous: Option<&Workspace>) -> HashMap<String, Arc<Endpoint>> {
    let mut endpoints = HashMap::new();
    for entry in workspace.compiled.values() {
        let Parsed::Incoming(incoming) = &entry.document else { continue };
        let wants = |workflow: &Workflow| workflow.triggers.iter().any(|trigger| trigger.is_incoming(&incoming.name));
        let workflows = workspace.compiled.values().filter_map(|entry| match &entry.document {
            Parsed::Workflow(workflow) if wants(workflow) => Some(wanting(workspace, workflow)),
            Parsed::Workflow(_) | Parsed::Connection(_) | Parsed::Incoming(_) | Parsed::Outgoing(_) => None,
        });
        // A publish must not refill the bucket of an endpoint whose limit did not change.
        let limiter = previous
            .and_then(|previous| previous.endpoints.get(&incoming.endpoint_id))
            .filter(|kept| kept.incoming.rate_limit == incoming.rate_limit)
            .map_or_else(|| Arc::new(limiter(incoming.rate_limit)), |kept| kept.limiter.clone());
        let endpoint = Endpoint {
            incoming: incoming.clone(),
            workspace: workspace.name.clone(),
            business_profile_id: workspace.business_profile_id,
            revision: workspace.revision,
            workflows: workflows.collect(),
            limiter,
        };
        endpoints.insert(incoming.endpoint_id.clone(), Arc::new(endpoint));
    }
    endpoints
}

fn wanting(workspace: &Workspace, workflow: &Arc<Workflow>) -> Wanting {
    // What a revision refers to is part of it.
    let flow = |step| workspace.flow(workflow, step).unwrap_or_default();
    let flows = workflow.steps.iter().map(|step| Arc::new(flow(step))).collect();
    Wanting { workflow: workflow.clone(), flows }
}

fn listening(workspace: &Workspace) -> HashMap<String, Vec<Wanting>> {
    let mut listening: HashMap<String, Vec<Wanting>> = HashMap::new();
    for entry in workspace.compiled.values() {
        let Parsed::Workflow(workflow) = &entry.document else { continue };
        let asked: BTreeSet<&String> = workflow.triggers.iter().filter_map(Trigger::response_events).collect();
        for action in asked {
            listening.entry(action.clone()).or_default().push(wanting(workspace, workflow));
        }
    }
    listening
}

fn limiter(limit: RateLimit) -> DefaultDirectRateLimiter {
    let at_least_one = |value| NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::per_second(at_least_one(limit.requests_per_second)).allow_burst(at_least_one(limit.burst));
    RateLimiter::direct(quota)
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
            runtime.workspaces.insert(workspace.name.clone(), workspace.clone());
        });
    }

    /// Stops serving a workspace that was deleted.
    pub fn drop_workspace(&self, name: &str) {
        self.change(|runtime| {
            runtime.workspaces.remove(name);
        });
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
                complete: current.complete,
            };
            change(&mut next);
            let all = next.workspaces.values().flat_map(|workspace| &workspace.endpoints);
            next.endpoints = all.map(|(id, endpoint)| (id.clone(), endpoint.clone())).collect();
            next
        });
    }
}
