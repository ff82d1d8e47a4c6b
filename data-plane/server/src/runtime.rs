//! What is served: published configuration compiled for use, one workspace revision at a time, behind one swappable handle.
//!
//! How a revision is compiled is [`compile`]'s business, how an endpoint is found among many that of [`served`].

mod compile;
mod quarantine;
mod served;
mod table;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prost::DecodeError;
use sluice_core::model::{Action, Incoming, LoginKey, Outgoing, OutgoingRequest, Step, Workflow};
use sluice_core::request::Unmade;
use sluice_core::snapshot::{self, EncodedBody, Resources};
use sluice_core::template::Context;
use sluice_proto::admin::v1::AttemptVersions;
use sluice_proto::sync::v1::WrappedKey;

pub use self::compile::{DATA_KEY_UNREADABLE, Position, With, compile, draft, for_test};
pub use self::quarantine::{Faulty, LeftOut};
pub use self::served::{Runtime, Served};
use self::table::{Keyed, Places, Table};
use crate::credentials::Connected;
use crate::fleet::{EndpointRate, Fleet};
use crate::inbox::Flow;
use crate::senders::{Login, Remembered, TokenIssuer};

/// Between a workflow's name and the id of one of its steps, where that step is named.
const STEPS: &str = "/steps/";
/// The revision of what is compiled for a test; those that are published count from 1.
const TEST_REVISION: i64 = 0;

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
    /// By name.
    compiled: Table<Compiled>,
    connections: Box<[Arc<Connected>]>,
    /// Who may log in, and whose tokens are accepted.
    pub login: Arc<Login>,
    /// Which of `compiled` are endpoints, by id.
    endpoints: Places,
    /// What they share.
    of: Arc<Of>,
    /// The workflows that may want the requests of an endpoint, by its place.
    requested: HashMap<u32, Arc<[Wanting]>>,
    /// By the action of the response events they ask for.
    listening: HashMap<String, Vec<Wanting>>,
    /// By the action of the submitted events they ask for.
    submitted: HashMap<String, Vec<Wanting>>,
    /// Those that audiences may start, by name.
    audiences: HashMap<String, Vec<Wanting>>,
    /// What is not served of it.
    pub left_out: LeftOut,
}

/// The published resources of a workspace as they came, secrets still sealed. It is compiled and written to the last good file, and then
/// only that has it: what is served is far smaller.
#[derive(Debug, Default)]
pub struct Source {
    /// By name.
    pub resources: Resources,
    /// The wrapped data key.
    pub data_key: WrappedKey,
    /// The number templates see.
    pub business_profile_id: i64,
}

impl Source {
    /// What a snapshot holds.
    ///
    /// # Errors
    /// A resource of it is none.
    pub fn from_snapshot(body: EncodedBody) -> Result<Self, DecodeError> {
        Self::default().changed(body)
    }

    /// What is held after a delta.
    ///
    /// # Errors
    /// A resource of it is none.
    pub fn changed(self, mut delta: EncodedBody) -> Result<Self, DecodeError> {
        let business_profile_id = delta.business_profile_id;
        let data_key = delta.data_key.take().unwrap_or_default();
        Ok(Self { resources: snapshot::apply(self.resources, delta)?, data_key, business_profile_id })
    }

    /// Everything as one whole body.
    pub fn to_snapshot(&self) -> EncodedBody {
        EncodedBody {
            business_profile_id: self.business_profile_id,
            data_key: Some(self.data_key.clone()),
            upserts: self.resources.values().cloned().collect(),
            deletes: Vec::new(),
        }
    }
}

/// A resource that can be used.
#[derive(Clone, Debug)]
struct Compiled {
    name: Arc<str>,
    content: Content,
    version: i64,
    document: Parsed,
}

/// The beginning of a content hash: by it a resource is known to be the same.
type Content = [u8; 16];

impl Keyed for Compiled {
    fn key(&self) -> &str {
        &self.name
    }
}

impl Compiled {
    /// Of one that is an endpoint: its id.
    fn endpoint_id(&self) -> Option<&str> {
        let Parsed::Incoming(receiver) = &self.document else { return None };
        Some(&receiver.endpoint_id)
    }
}

#[derive(Clone, Debug)]
enum Parsed {
    Connection(Arc<Connected>),
    Incoming(Arc<Receiver>),
    Outgoing(Arc<Outgoing>),
    Workflow(Arc<Workflow>),
    LoginKey(Arc<LoginKey>),
    TokenKeys(Arc<TokenIssuer>),
    /// Part of the templates that name it.
    Snippet,
}

impl Parsed {
    /// Where it keeps its name to be shared.
    fn name(&self) -> Option<Arc<str>> {
        match self {
            Self::Incoming(incoming) => Some(incoming.name.clone()),
            Self::Outgoing(outgoing) => Some(outgoing.name.clone()),
            Self::Connection(_) | Self::Workflow(_) | Self::LoginKey(_) | Self::TokenKeys(_) | Self::Snippet => None,
        }
    }

    /// Snippets are compiled into it.
    fn has_templates(&self) -> bool {
        match self {
            Self::Outgoing(_) | Self::Workflow(_) | Self::Snippet => true,
            Self::Connection(_) | Self::Incoming(_) | Self::LoginKey(_) | Self::TokenKeys(_) => false,
        }
    }
}

/// One published endpoint at one revision.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its rules.
    pub incoming: Arc<Receiver>,
    /// What all endpoints of its workspace have.
    pub of: Arc<Of>,
    workflows: Option<Arc<[Wanting]>>,
}

impl Endpoint {
    /// One whose requests start nothing.
    pub fn new(incoming: Arc<Receiver>, of: Arc<Of>) -> Self {
        Self { incoming, of, workflows: None }
    }

    /// The workflows that may want its requests.
    pub fn workflows(&self) -> &[Wanting] {
        self.workflows.as_deref().unwrap_or_default()
    }
}

/// An incoming integration, and what is known of the requests to it: the same one in all revisions that do not change it.
#[derive(Debug)]
pub struct Receiver {
    incoming: Incoming,
    /// Nothing of one that nobody has called: most may be such.
    known: OnceLock<Box<Known>>,
}

/// What is known of requests.
#[derive(Debug)]
struct Known {
    /// How much it takes (D10).
    rate: Arc<EndpointRate>,
    /// Tokens of its own issuer that were verified; forgotten when it changes.
    remembered: OnceLock<Box<Remembered>>,
}

impl Deref for Receiver {
    type Target = Incoming;

    fn deref(&self) -> &Incoming {
        &self.incoming
    }
}

impl From<Incoming> for Receiver {
    fn from(incoming: Incoming) -> Self {
        Self { incoming, known: OnceLock::new() }
    }
}

impl Receiver {
    /// It takes the place of this one: a publish must not refill the bucket of an endpoint whose limit did not change.
    fn following(self, before: &Self) -> Self {
        let is_same = self.endpoint_id == before.endpoint_id && self.rate_limit == before.rate_limit;
        let known = is_same.then(|| Known { rate: before.known().rate.clone(), remembered: OnceLock::new() });
        Self { known: known.map(Box::new).map_or_else(OnceLock::new, OnceLock::from), ..self }
    }

    fn known(&self) -> &Known {
        let rate = || Arc::new(EndpointRate::new(self.rate_limit));
        self.known.get_or_init(|| Box::new(Known { rate: rate(), remembered: OnceLock::new() }))
    }

    /// Counts a request.
    ///
    /// # Errors
    /// It is too many; how long until the next one may come.
    pub async fn check_rate(&self, fleet: &Fleet) -> Result<(), Duration> {
        self.known().rate.check(&self.endpoint_id, fleet).await
    }

    /// Tokens of its own issuer that were verified.
    pub fn remembered(&self) -> &Remembered {
        self.known().remembered.get_or_init(Box::default)
    }
}

/// What all endpoints of a workspace have.
#[derive(Debug)]
pub struct Of {
    /// `workspaces/{workspace}`.
    pub workspace: String,
    /// The number templates see.
    pub business_profile_id: u64,
    /// The revision they belong to.
    pub revision: i64,
    /// Whose tokens they accept.
    pub login: Arc<Login>,
    /// They are there for a capture only, and start nothing.
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
        let destination = request.template.published_url.destination().to_owned();
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
        self.connections.iter()
    }

    /// How many resources are served.
    pub fn resources(&self) -> usize {
        self.compiled.len()
    }

    /// The names of its resources, also of those that are not served.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.compiled.iter().map(Keyed::key).chain(self.left_out.names())
    }

    /// The versions an attempt at this target is made under (D08).
    pub fn versions(&self, target: &Target) -> AttemptVersions {
        let version = |name: &str| self.compiled.get(name).map_or(0, |resource| resource.version);
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

    /// The endpoint with this id.
    fn endpoint(&self, id: &str) -> Option<Endpoint> {
        let (place, found) = self.compiled.find(&self.endpoints, id, Compiled::endpoint_id)?;
        let Parsed::Incoming(incoming) = &found.document else { return None };
        let workflows = self.requested.get(&place).cloned();
        Some(Endpoint { incoming: incoming.clone(), of: self.of.clone(), workflows })
    }

    /// How many endpoints it has.
    pub fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    /// By which requests look for it: the ids of its endpoints, also of those that are held up, and of the keys that log in.
    fn ids(&self) -> impl Iterator<Item = &str> {
        let served = self.endpoints.iter().filter_map(|place| self.compiled.at(place)?.endpoint_id());
        served.chain(self.left_out.endpoints()).chain(self.login.ids())
    }

    /// Whether one of them is this.
    fn has(&self, id: &str) -> bool {
        let is_served = || self.compiled.find(&self.endpoints, id, Compiled::endpoint_id).is_some();
        is_served() || self.left_out.holds_up(id) || self.login.key(id).is_some()
    }
}

fn connected(compiled: &Compiled) -> Option<&Arc<Connected>> {
    let Parsed::Connection(connected) = &compiled.document else { return None };
    Some(connected)
}

#[cfg(test)]
mod tests {
    use sluice_core::dedup::{DEFAULT_WINDOW, Rule};
    use sluice_core::model::{Authorization, RateLimit};

    use super::*;

    fn receiver(endpoint_id: &str, requests_per_second: u32) -> Receiver {
        let incoming = Incoming {
            name: "workspaces/acme/incomingIntegrations/orders".into(),
            endpoint_id: endpoint_id.into(),
            authorization: Authorization::None,
            dedup: Rule::new(Vec::new(), DEFAULT_WINDOW, true).unwrap(),
            rate_limit: RateLimit { requests_per_second, burst: 10 },
            paused: false,
        };
        incoming.into()
    }

    #[test]
    fn a_change_keeps_the_bucket_of_an_endpoint_with_its_limit_and_forgets_its_tokens() {
        let before = receiver("a", 5);
        let same_rate = |next: &Receiver| Arc::ptr_eq(&next.known().rate, &before.known().rate);
        let next = receiver("a", 5).following(&before);
        assert!(same_rate(&next));
        assert!(!std::ptr::eq(next.remembered(), before.remembered()));
        assert!(!same_rate(&receiver("a", 6).following(&before)), "its limit was changed");
        assert!(!same_rate(&receiver("b", 5).following(&before)), "it is another endpoint");
    }
}
