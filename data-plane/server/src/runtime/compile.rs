//! From a revision as it came to one that can be served: secrets opened, documents parsed, references followed. Whole or not at
//! all (I4); what did not change since the revision before is taken over as it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use prost::Message as _;
use sluice_core::address::UrlPolicy;
use sluice_core::model::{Action, Incoming, Purpose, SenderSecret, Start, Trigger, Workflow};
use sluice_core::seal::{self, Aad, DataKey, MasterKeys, Sealed, Secret, Slot, WrappedKey};
use sluice_core::snapshot::{self, EncodedBody};
use sluice_core::template::Snippets;
use sluice_core::validate::{STARTED_MAX, Violation};
use sluice_core::wire::{self, SecretFields};
use sluice_proto::admin::v1::{IncomingIntegration, Problem};
use sluice_proto::sync::v1::{self as proto, Resource, resource::Document};

use super::quarantine::{Faulty, LeftOut, QUARANTINED_WITH};
use super::table::{Places, Table};
use super::{Compiled, Content, Of, Parsed, Receiver, Source, TEST_REVISION, Wanting, Workspace, connected};
use crate::captures::Draft;
use crate::credentials::Tokens;
use crate::plane::Plane;
use crate::senders::{Login, TokenIssuer};

/// Why a revision is refused whose data key no master key of the ring opens.
pub const DATA_KEY_UNREADABLE: &str = "DATA_KEY_UNREADABLE";
/// Most problems named in one refusal.
pub(super) const PROBLEMS_MAX: usize = 100;

/// Where the revision to compile stands.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// What a revision is compiled with.
#[derive(Clone, Copy)]
pub struct With<'a> {
    /// They open the data key.
    pub keys: &'a MasterKeys,
    /// Which URLs may be called.
    pub urls: &'a UrlPolicy,
    /// What tokens share.
    pub tokens: &'a Tokens,
    /// Hears the name of each resource before it is worked on.
    pub works_on: &'a dyn Fn(&str),
    /// What is to be done with one that is not whole.
    pub faulty: Faulty<'a>,
}

/// Compiles one revision whole, or says everything that is wrong with it; or what is good of it, where that is wanted.
pub fn compile(
    at: &Position,
    source: &Source,
    previous: Option<&Workspace>,
    with: With<'_>,
) -> Result<Workspace, Vec<Problem>> {
    let contents = contents(source);
    let digest = digest(&contents);
    if digest.as_slice() != at.digest {
        return Err(digest_mismatch(at));
    }
    let data_key = open_data_key(&at.workspace, &source.data_key, with.keys)?;
    let (mut compiled, problems) = each(at, source, &contents, previous, (with, &data_key))?;
    let together = faults_together(&compiled, &BTreeSet::new());
    let is_whole = problems.is_empty() && together.is_empty() && compiled.len() == source.resources.len();
    let mut left_out = if is_whole {
        LeftOut::default()
    } else {
        let whole = problems.iter().cloned().chain(together).take(PROBLEMS_MAX);
        let refusal: Vec<Problem> = whole.collect();
        LeftOut::of(source, &mut compiled, problems, previous, with.faulty).map_err(|_lost| refusal)?
    };
    let compiled: Table<Compiled> = compiled.into_values().collect();
    let of = Arc::new(Of {
        workspace: at.workspace.clone(),
        business_profile_id: u64::try_from(source.business_profile_id).unwrap_or_default(),
        revision: at.revision,
        login: Arc::new(login(&compiled)),
        is_draft: false,
    });
    let mut workspace = Workspace {
        name: at.workspace.clone(),
        store_epoch: at.store_epoch.clone(),
        revision: at.revision,
        digest,
        business_profile_id: of.business_profile_id,
        connections: compiled.iter().filter_map(connected).cloned().collect(),
        compiled,
        login: of.login.clone(),
        endpoints: Places::default(),
        of,
        requested: HashMap::new(),
        listening: HashMap::new(),
        submitted: HashMap::new(),
        audiences: HashMap::new(),
        left_out: LeftOut::default(),
    };
    left_out.hold(source, &workspace.compiled);
    let serves = |id: &&str| !left_out.holds_up(id);
    workspace.endpoints = workspace.compiled.places_by(|entry| entry.endpoint_id().filter(serves));
    workspace.left_out = left_out;
    workspace.requested = requested(&workspace);
    workspace.listening = wanting_by(&workspace, |_, trigger| trigger.response_events());
    workspace.submitted = wanting_by(&workspace, |_, trigger| trigger.events());
    workspace.audiences = wanting_by(&workspace, |workflow, trigger| trigger.is_audience().then_some(&workflow.name));
    Ok(workspace)
}

type Contents<'s> = BTreeMap<&'s str, [u8; 32]>;

fn contents(source: &Source) -> Contents<'_> {
    source.resources.iter().map(|(name, resource)| (name.as_str(), snapshot::encoded_hash(resource))).collect()
}

fn digest(contents: &Contents<'_>) -> [u8; 32] {
    snapshot::digest(contents.iter().map(|(name, content)| (*name, content)))
}

fn short(content: &[u8; 32]) -> Content {
    content.first_chunk().copied().unwrap_or_default()
}

/// What is good by itself, and what is wrong with the rest.
type Each = (BTreeMap<Arc<str>, Compiled>, Vec<Problem>);

/// Compiles each resource by itself; with what is wrong with those that are not good. What is compiled already stays.
fn each(
    at: &Position,
    source: &Source,
    contents: &Contents<'_>,
    previous: Option<&Workspace>,
    (with, data_key): (With<'_>, &DataKey),
) -> Result<Each, Vec<Problem>> {
    let With { works_on, faulty, .. } = with;
    let (mut compiled, mut problems) = (BTreeMap::new(), Vec::new());
    let snippets = Arc::new(snippets(source, faulty));
    let same_snippets = previous.is_some_and(|previous| same_snippets(previous, contents));
    for ((name, encoded), content) in source.resources.iter().zip(contents.values()) {
        if faulty.skips(name) {
            continue;
        }
        let content = short(content);
        let before = previous.and_then(|previous| previous.compiled.get(name));
        let kept = before.filter(|kept| kept.content == content);
        if let Some(kept) = kept.filter(|kept| same_snippets || !kept.document.has_templates()) {
            compiled.insert(kept.name.clone(), kept.clone());
            continue;
        }
        works_on(name);
        let mut understood = true;
        let parsed = Resource::decode(encoded.clone()).map_err(|error| {
            let message = format!("the resource cannot be read: {error}");
            vec![problem(name, "", "UNDECODABLE", &message)]
        });
        let parsed = parsed.and_then(|resource| {
            let version = resource.version;
            understood &= resource.encode_to_vec() == *encoded;
            let before = before.map(|before| &before.document);
            Ok((version, parse(&at.workspace, resource, before, (with, data_key), &snippets)?))
        });
        // A field of a later release is refused rather than half understood.
        if !understood {
            return Err(digest_mismatch(at));
        }
        match parsed {
            Ok((version, document)) => {
                let shared = document.name().filter(|shared| **shared == **name);
                let name: Arc<str> = shared.unwrap_or_else(|| name.as_str().into());
                compiled.insert(name.clone(), Compiled { name, content, version, document });
            }
            Err(found) => problems.extend(found),
        }
    }
    Ok((compiled, problems))
}

fn digest_mismatch(at: &Position) -> Vec<Problem> {
    let message = "the content does not have the digest that was announced";
    vec![problem(&at.workspace, "", "DIGEST_MISMATCH", message)]
}

/// Compiles what a test needs; nothing of it is served. Connections that are as the workspace has them in force are the same ones: their
/// tokens are fetched once for deliveries and tests.
///
/// # Errors
/// Everything that is wrong with it.
pub fn for_test(plane: &Plane, workspace: &str, body: proto::WorkspaceBody) -> Result<Workspace, Vec<Problem>> {
    let body = EncodedBody::decode(body.encode_to_vec().as_slice()).and_then(Source::from_snapshot);
    let source = body.map_err(|error| vec![problem(workspace, "", "UNDECODABLE", &error.to_string())])?;
    let at = Position {
        workspace: workspace.to_owned(),
        store_epoch: String::new(),
        revision: TEST_REVISION,
        digest: digest(&contents(&source)).to_vec(),
    };
    let keys = plane.ring.keys_for(&source.data_key.key_id);
    let runtime = plane.served.load();
    let works_on = |_: &str| {};
    let faulty = Faulty::Refuse;
    let with = With { keys: &keys, urls: &plane.urls, tokens: &plane.tokens, works_on: &works_on, faulty };
    compile(&at, &source, runtime.workspace(workspace).map(Arc::as_ref), with)
}

/// The texts that templates of the workspace may insert (D26).
fn snippets(source: &Source, faulty: Faulty<'_>) -> Snippets {
    let mut snippets = Snippets::new();
    for (name, encoded) in source.resources.iter().filter(|(name, _)| is_snippet(name) && !faulty.skips(name)) {
        // What cannot be read is said when it is its turn.
        if let Ok(Resource { document: Some(Document::Snippet(snippet)), .. }) = Resource::decode(encoded.clone()) {
            snippets.set(snippet_id(name), &snippet.text);
        }
    }
    snippets
}

fn is_snippet(name: &str) -> bool {
    name.split('/').nth(2) == Some("snippets")
}

fn snippet_id(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or_default()
}

/// Whether the revision before had the same snippets, so that what was compiled with them can stay.
fn same_snippets(previous: &Workspace, contents: &Contents<'_>) -> bool {
    let is_snippet_of = |compiled: &&Compiled| is_snippet(&compiled.name);
    let before = previous.compiled.iter().filter(is_snippet_of);
    let now = contents.iter().filter(|(name, _)| is_snippet(name));
    // Both are in the order of their names.
    now.map(|(name, content)| (*name, short(content))).eq(before.map(|kept| (&*kept.name, kept.content)))
}

pub(super) fn problem(resource: &str, field: &str, reason: &str, message: &str) -> Problem {
    Problem {
        resource: resource.to_owned(),
        field: field.to_owned(),
        line: 0,
        column: 0,
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

fn open_data_key(workspace: &str, key: &proto::WrappedKey, keys: &MasterKeys) -> Result<DataKey, Vec<Problem>> {
    let wrapped = WrappedKey { key_id: key.key_id.clone(), bytes: key.ciphertext.to_vec() };
    keys.unwrap(&wrapped, workspace).map_err(|error| {
        let message =
            format!("the workspace's data key cannot be opened: {error}; this data plane looks for the key by itself");
        vec![problem(workspace, "", DATA_KEY_UNREADABLE, &message)]
    })
}

/// Compiles the draft of an incoming integration, for a capture.
///
/// # Errors
/// Everything that is wrong with it.
pub fn draft(asked: &proto::OpenCapture, keys: &MasterKeys) -> Result<Draft, Vec<Problem>> {
    let workspace = asked.workspace.as_str();
    let key = open_data_key(workspace, &asked.data_key.clone().unwrap_or_default(), keys)?;
    let resource = asked.draft.clone().unwrap_or_default();
    let Some(Document::IncomingIntegration(document)) = resource.document.clone() else {
        return Err(vec![problem(
            &resource.name,
            "",
            "KIND_UNKNOWN",
            "it is not the draft of an incoming integration",
        )]);
    };
    let incoming = incoming(workspace, &resource, document, &key)?;
    Ok(Draft {
        incoming: Arc::new(incoming.into()),
        workspace: workspace.to_owned(),
        business_profile_id: u64::try_from(asked.business_profile_id).unwrap_or_default(),
    })
}

fn incoming(
    workspace: &str,
    resource: &Resource,
    mut document: IncomingIntegration,
    key: &DataKey,
) -> Result<Incoming, Vec<Problem>> {
    let beside = open_secrets(workspace, resource, &mut document, key)?;
    let mut parsed = wire::incoming(&document).map_err(|found| problems(resource, found))?;
    for (path, accepted) in beside {
        parsed.accept_also(&path, accepted);
    }
    Ok(parsed)
}

/// Broken rules as refusals name them.
fn problems(resource: &Resource, found: Vec<Violation>) -> Vec<Problem> {
    let of = |violation: Violation| Problem {
        resource: resource.name.clone(),
        field: violation.field,
        line: violation.line.cast_signed(),
        column: violation.column.cast_signed(),
        reason: violation.reason.to_owned(),
        message: violation.message,
    };
    found.into_iter().map(of).collect()
}

/// Opens the secrets of one resource and parses it; `before` is what the revision before has of it.
fn parse(
    workspace: &str,
    mut resource: Resource,
    before: Option<&Parsed>,
    (With { urls, tokens, .. }, key): (With<'_>, &DataKey),
    snippets: &Arc<Snippets>,
) -> Result<Parsed, Vec<Problem>> {
    let document = resource.document.take();
    let resource = &resource;
    let problems = |found| problems(resource, found);
    match document {
        Some(Document::Connection(mut document)) => {
            open_secrets(workspace, resource, &mut document, key)?;
            let parsed = wire::connection(&document, urls).map_err(problems)?;
            Ok(Parsed::Connection(Arc::new(tokens.connect(parsed))))
        }
        Some(Document::IncomingIntegration(document)) => {
            let receiver = Receiver::from(incoming(workspace, resource, document, key)?);
            let receiver = match before {
                Some(Parsed::Incoming(before)) => receiver.following(before),
                Some(_) | None => receiver,
            };
            Ok(Parsed::Incoming(Arc::new(receiver)))
        }
        Some(Document::OutgoingIntegration(document)) => wire::outgoing_with(&document, urls, snippets)
            .map(|parsed| Parsed::Outgoing(Arc::new(parsed)))
            .map_err(problems),
        Some(Document::Workflow(document)) => wire::workflow_with(&document, urls, snippets)
            .map(|parsed| Parsed::Workflow(Arc::new(parsed)))
            .map_err(problems),
        Some(Document::Snippet(document)) => {
            let id = snippet_id(&resource.name);
            wire::snippet(&document, id, snippets).map(|()| Parsed::Snippet).map_err(problems)
        }
        Some(Document::EventDefinition(_) | Document::TestProfile(_) | Document::SchemaTemplate(_)) => {
            Err(vec![problem(&resource.name, "", "KIND_UNKNOWN", "this kind of resource is not for data planes")])
        }
        Some(Document::LoginKey(document)) => wire::login_key(&resource.name, &document)
            .map(|parsed| Parsed::LoginKey(Arc::new(parsed)))
            .map_err(problems),
        Some(Document::TokenKeys(document)) => {
            let seed = token_seed(workspace, resource, &document, key)?;
            let keys = wire::token_keys(workspace, &document, seed.expose()).map_err(problems)?;
            Ok(Parsed::TokenKeys(Arc::new(TokenIssuer::new(keys))))
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

/// What signs the workspace's tokens.
fn token_seed(
    workspace: &str,
    resource: &Resource,
    document: &proto::TokenKeys,
    key: &DataKey,
) -> Result<Secret, Vec<Problem>> {
    let field = wire::token_seed_field(document.keys.first().map_or("", |active| &active.id));
    let sealed = resource.secrets.iter().find(|sealed| sealed.field == field);
    let opened = sealed.and_then(|sealed| {
        let version = sealed.version.cast_unsigned();
        let aad = Aad { workspace, object: &resource.name, field: &field, version };
        seal::open_text(key, aad, &Sealed::from_bytes(sealed.ciphertext.to_vec())).ok()
    });
    let message = "the key that signs tokens cannot be opened";
    opened.ok_or_else(|| vec![problem(&resource.name, &field, "SECRET_UNREADABLE", message)])
}

/// What is wrong with resources that are good by themselves.
pub(super) fn faults_together(compiled: &BTreeMap<Arc<str>, Compiled>, left_out: &BTreeSet<String>) -> Vec<Problem> {
    let dangling = dangling(compiled, left_out);
    if dangling.is_empty() { starting_too_many(compiled) } else { dangling }
}

/// References to what is not part of the revision, or left out of it, or not for what refers to it: it would not be whole.
fn dangling(compiled: &BTreeMap<Arc<str>, Compiled>, left_out: &BTreeSet<String>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut require = |from: &str, field: String, to: &str, purpose: Option<Purpose>| {
        let found = compiled.get(to).map(|entry| &entry.document);
        let fits = match (found, purpose) {
            (Some(Parsed::Connection(found)), Some(wanted)) => found.connection.scheme.purpose() == wanted,
            (Some(_), wanted) => wanted.is_none(),
            (None, _) => false,
        };
        if left_out.contains(to) {
            let message = format!("`{to}`, which it needs, is left out");
            problems.push(problem(from, &field, QUARANTINED_WITH, &message));
        } else if found.is_none() {
            let message = format!("`{to}` is not part of this revision");
            problems.push(problem(from, &field, "REFERENCE_MISSING", &message));
        } else if !fits {
            let message = format!("`{to}` is not for this: one kind of connection authenticates, another signs");
            problems.push(problem(from, &field, "CONNECTION_PURPOSE", &message));
        }
    };
    for (name, entry) in compiled {
        match &entry.document {
            // An API key that is gone is not missed: its tokens are refused, which is what whoever revoked it wanted.
            Parsed::Connection(_)
            | Parsed::Incoming(_)
            | Parsed::LoginKey(_)
            | Parsed::TokenKeys(_)
            | Parsed::Snippet => {}
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

/// Sources of which one request or event would start more deliveries than it may (I8). Nothing is ever cut.
fn starting_too_many(compiled: &BTreeMap<Arc<str>, Compiled>) -> Vec<Problem> {
    let mut started: BTreeMap<(u8, &str), BTreeMap<&str, usize>> = BTreeMap::new();
    for entry in compiled.values() {
        let Parsed::Workflow(workflow) = &entry.document else { continue };
        let sources = workflow.triggers.iter().map(|trigger| match &trigger.start {
            Start::Incoming(name) => (0, name.as_str()),
            Start::ResponseEvents(action) => (1, action.as_str()),
            Start::Events(action) => (2, action.as_str()),
            // Of this workflow alone.
            Start::Audience => (3, workflow.name.as_str()),
        });
        let sources: BTreeSet<(u8, &str)> = sources.collect();
        for source in sources {
            started.entry(source).or_default().insert(&workflow.name, workflow.steps.len());
        }
    }
    let mut problems = Vec::new();
    for (source, workflows) in started {
        let count: usize = workflows.values().sum();
        if count <= STARTED_MAX {
            continue;
        }
        let message = format!("one request or event would start {count} deliveries; the limit is {STARTED_MAX}");
        let at_fault: Vec<&str> = match source {
            (0, incoming) => vec![incoming],
            (_, _action) => workflows.into_keys().collect(),
        };
        problems.extend(at_fault.into_iter().map(|name| problem(name, "", "STARTS_TOO_MANY", &message)));
    }
    problems
}

/// The workflows that may want the requests of endpoints, by their place.
fn requested(workspace: &Workspace) -> HashMap<u32, Arc<[Wanting]>> {
    let by_name = wanting_by(workspace, |_, trigger| match &trigger.start {
        Start::Incoming(name) => Some(name),
        Start::ResponseEvents(_) | Start::Events(_) | Start::Audience => None,
    });
    by_name.into_iter().filter_map(|(name, all)| Some((workspace.compiled.place(&name)?, all.into()))).collect()
}

fn login(compiled: &Table<Compiled>) -> Login {
    let mut login = Login::default();
    for entry in compiled.iter() {
        match &entry.document {
            Parsed::LoginKey(key) => login.add(key.clone()),
            Parsed::TokenKeys(issuer) => login.issue_by(issuer.clone()),
            Parsed::Connection(_)
            | Parsed::Incoming(_)
            | Parsed::Outgoing(_)
            | Parsed::Workflow(_)
            | Parsed::Snippet => {}
        }
    }
    login
}

fn wanting(workspace: &Workspace, workflow: &Arc<Workflow>) -> Wanting {
    // What a revision refers to is part of it.
    let flow = |step| workspace.flow(workflow, step).unwrap_or_default();
    let flows = workflow.steps.iter().map(|step| Arc::new(flow(step))).collect();
    Wanting { workflow: workflow.clone(), flows }
}

/// The workflows by what may start them.
fn wanting_by(
    workspace: &Workspace,
    by: impl for<'w> Fn(&'w Workflow, &'w Trigger) -> Option<&'w String>,
) -> HashMap<String, Vec<Wanting>> {
    let mut found: HashMap<String, Vec<Wanting>> = HashMap::new();
    for entry in workspace.compiled.iter() {
        let Parsed::Workflow(workflow) = &entry.document else { continue };
        let sources: BTreeSet<&String> = workflow.triggers.iter().filter_map(|trigger| by(workflow, trigger)).collect();
        for source in sources {
            found.entry(source.clone()).or_default().push(wanting(workspace, workflow));
        }
    }
    found
}
