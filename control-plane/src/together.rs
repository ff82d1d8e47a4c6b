//! Rules that documents keep together: a workflow with its integrations, requests with their connections. Hides what is looked
//! up for them. The rules themselves are [`validate`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message as _;
use sluice_core::template::Snippets;
use sluice_core::validate::{self, InForce, Violation};
use sluice_core::wire::References;
use sluice_proto::admin::v1::{Connection, IncomingIntegration, OutgoingIntegration, Trigger, Workflow};
use sluice_proto::sync::v1 as sync;
use sluice_proto::sync::v1::resource::Document;

use crate::error::{Failure, violation};
use crate::forms;
use crate::lifecycle::USERS_NAMED;
use crate::resource::Resource;
use crate::shared::Shared;
use crate::snippets::{self, Reading};
use crate::store::{DocumentRow, Transaction};
use crate::stored::Stored;

/// What a document uses.
#[derive(Default)]
struct Used {
    incoming: BTreeMap<String, IncomingIntegration>,
    outgoing: BTreeMap<String, OutgoingIntegration>,
    connections: BTreeMap<String, Connection>,
    snippets: Arc<Snippets>,
}

impl InForce for Used {
    fn incoming(&self, name: &str) -> Option<&IncomingIntegration> {
        self.incoming.get(name)
    }

    fn outgoing(&self, name: &str) -> Option<&OutgoingIntegration> {
        self.outgoing.get(name)
    }

    fn connection(&self, name: &str) -> Option<&Connection> {
        self.connections.get(name)
    }

    fn snippets(&self) -> &Arc<Snippets> {
        &self.snippets
    }
}

impl Used {
    /// What stands in force under `targets`; `candidate` stands in place of the one of its name.
    async fn load(
        tx: &mut Transaction,
        workspace: &str,
        user: &impl References,
        candidate: Option<(&str, &Document)>,
    ) -> Result<Self, Failure> {
        let mut used = Self::default();
        let mut ids = user.snippets();
        for (_, target) in user.references() {
            let document = match candidate {
                Some((name, document)) if name == target => Some(document.clone()),
                _ => in_force(tx, workspace, &target).await?,
            };
            match document {
                Some(Document::OutgoingIntegration(document)) => {
                    ids.extend(document.snippets());
                    used.outgoing.insert(target, document);
                }
                Some(Document::Connection(document)) => drop(used.connections.insert(target, document)),
                Some(Document::IncomingIntegration(document)) => drop(used.incoming.insert(target, document)),
                Some(
                    Document::Workflow(_)
                    | Document::Snippet(_)
                    | Document::SchemaTemplate(_)
                    | Document::EventDefinition(_)
                    | Document::TestProfile(_)
                    | Document::LoginKey(_)
                    | Document::TokenKeys(_),
                )
                | None => {}
            }
        }
        used.snippets = snippets::load(tx, workspace, ids, Reading::InForce).await?;
        Ok(used)
    }

    /// The drafts of the outgoing integrations of a workflow's draft, each with the draft of its form.
    async fn drafts(tx: &mut Transaction, workspace: &str, user: &Workflow) -> Result<Self, Failure> {
        let mut used = Self::default();
        let mut ids = user.snippets();
        for (_, target) in user.references() {
            let row = tx.document(workspace, &target).await?;
            let Some(row) = row.filter(|row| row.collection == OutgoingIntegration::COLLECTION) else { continue };
            let mut draft = Stored::<OutgoingIntegration>::of(row)?.draft;
            draft.embed(forms::of_draft(tx, workspace, &draft.references()).await?);
            ids.extend(draft.snippets());
            used.outgoing.insert(target, draft);
        }
        used.snippets = snippets::load(tx, workspace, ids, Reading::Draft).await?;
        Ok(used)
    }
}

pub(crate) async fn in_force(tx: &mut Transaction, workspace: &str, name: &str) -> Result<Option<Document>, Failure> {
    let Some(head) = tx.head(workspace, name).await? else { return Ok(None) };
    let resource = sync::Resource::decode(head.as_slice())
        .map_err(|_| Failure::Internal("a resource in force cannot be read".to_owned()))?;
    Ok(resource.document)
}

/// The rules that `document` breaks together with what it uses: what is in force, and `candidate` in place of the one of its
/// name.
pub(crate) async fn broken(
    shared: &Shared,
    tx: &mut Transaction,
    workspace: &str,
    document: &Document,
    candidate: Option<(&str, &Document)>,
) -> Result<Vec<Violation>, Failure> {
    let urls = &shared.settings.urls;
    Ok(match document {
        Document::Workflow(workflow) => {
            let used = Used::load(tx, workspace, workflow, candidate).await?;
            validate::workflow_publish(workflow, urls, &used)
        }
        Document::OutgoingIntegration(outgoing) => {
            let used = Used::load(tx, workspace, outgoing, candidate).await?;
            validate::outgoing_publish(outgoing, urls, &used)
        }
        Document::Connection(_)
        | Document::IncomingIntegration(_)
        | Document::Snippet(_)
        | Document::SchemaTemplate(_)
        | Document::EventDefinition(_)
        | Document::TestProfile(_)
        | Document::LoginKey(_)
        | Document::TokenKeys(_) => Vec::new(),
    })
}

/// The rules that a document, called `name`, breaks by itself with the snippets that are in force.
pub(crate) async fn broken_alone(
    shared: &Shared,
    tx: &mut Transaction,
    workspace: &str,
    name: &str,
    document: &Document,
) -> Result<Vec<Violation>, Failure> {
    let urls = &shared.settings.urls;
    let ids = match document {
        Document::Workflow(workflow) => workflow.snippets(),
        Document::OutgoingIntegration(outgoing) => outgoing.snippets(),
        Document::Snippet(snippet) => snippet.snippets(),
        Document::Connection(_)
        | Document::IncomingIntegration(_)
        | Document::SchemaTemplate(_)
        | Document::EventDefinition(_)
        | Document::TestProfile(_)
        | Document::LoginKey(_)
        | Document::TokenKeys(_) => Vec::new(),
    };
    let snippets = snippets::load(tx, workspace, ids, Reading::InForce).await?;
    Ok(match document {
        Document::Workflow(workflow) => validate::workflow(workflow, urls, &snippets),
        Document::OutgoingIntegration(outgoing) => validate::outgoing_integration(outgoing, urls, &snippets),
        Document::IncomingIntegration(incoming) => validate::incoming_integration(incoming),
        Document::Connection(connection) => validate::connection(connection, urls),
        Document::Snippet(snippet) => {
            validate::snippet(snippet, name.rsplit('/').next().unwrap_or_default(), &snippets)
        }
        Document::SchemaTemplate(template) => validate::schema_template(template),
        Document::EventDefinition(_) | Document::TestProfile(_) | Document::LoginKey(_) | Document::TokenKeys(_) => {
            Vec::new()
        }
    })
}

/// The rules that documents in force, but those of `but`, would break because the snippet `name` is in force as it is now: those
/// that name it, and those that use what does.
async fn broken_by_snippet(
    shared: &Shared,
    tx: &mut Transaction,
    workspace: &str,
    name: &str,
    but: &BTreeSet<String>,
) -> Result<Vec<Violation>, Failure> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::from([name.to_owned()]);
    let mut named = vec![name.to_owned()];
    while let Some(name) = named.pop() {
        for user in tx.users(&name, true, i64::MAX).await? {
            if !seen.insert(user.clone()) {
                continue;
            }
            let Some(document) = in_force(tx, workspace, &user).await? else { continue };
            if matches!(document, Document::Snippet(_) | Document::OutgoingIntegration(_)) {
                named.push(user.clone());
            }
            if but.contains(&user) {
                continue;
            }
            let mut broken_rules = broken_alone(shared, tx, workspace, &user, &document).await?;
            broken_rules.extend(broken(shared, tx, workspace, &document, None).await?);
            found.extend(broken_rules.into_iter().map(|broken| would_break(&user, broken)));
        }
    }
    Ok(found)
}

fn would_break(user: &str, broken: Violation) -> Violation {
    let message = format!("`{user}`, which is published and uses it, would break: {}", broken.message);
    Violation { message, ..broken }
}

/// The rules that published users of `name`, but those of `but`, would break if `candidate` came into force under it; the messages
/// name the users, the fields are theirs.
pub(crate) async fn broken_users(
    shared: &Shared,
    tx: &mut Transaction,
    workspace: &str,
    name: &str,
    candidate: &Document,
    but: &BTreeSet<String>,
) -> Result<Vec<Violation>, Failure> {
    if matches!(candidate, Document::Snippet(_)) {
        return broken_by_snippet(shared, tx, workspace, name, but).await;
    }
    let mut found = Vec::new();
    for user in tx.users(name, true, i64::MAX).await? {
        if but.contains(&user) {
            continue;
        }
        let Some(document) = in_force(tx, workspace, &user).await? else { continue };
        for broken in broken(shared, tx, workspace, &document, Some((name, candidate))).await? {
            found.push(would_break(&user, broken));
        }
    }
    Ok(found)
}

/// What keeps a connection from changing to `candidate`: published requests that it would no longer fit.
pub(crate) async fn broken_by_connection(
    shared: &Shared,
    tx: &mut Transaction,
    workspace: &str,
    name: &str,
    candidate: &Document,
) -> Result<Vec<Violation>, Failure> {
    let found = broken_users(shared, tx, workspace, name, candidate, &BTreeSet::new()).await?;
    let of_connection = found.into_iter().filter_map(|broken| {
        let [purpose, host, headers] = validate::CONNECTION_REASONS;
        let field = if broken.reason == host { "allowed_hosts" } else { "scheme" };
        [purpose, host, headers].contains(&broken.reason).then(|| Violation { field: field.to_owned(), ..broken })
    });
    Ok(of_connection.take(USERS_NAMED as usize).collect())
}

/// What one request or event may start with all that is in force, the workflow `name` among it, is bounded (I8).
pub(crate) async fn started_beyond(
    tx: &mut Transaction,
    workspace: &str,
    name: &str,
    document: &Document,
) -> Result<Vec<Violation>, Failure> {
    let Document::Workflow(workflow) = document else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for (index, trigger) in workflow.triggers.iter().enumerate() {
        if workflow.triggers.iter().take(index).any(|other| is_same_source(other, trigger)) {
            continue;
        }
        let (mut others, mut users) = (0, Vec::new());
        for (user, other) in workflows_in_force(tx, workspace, trigger).await? {
            if user != name && other.triggers.iter().any(|other| is_same_source(other, trigger)) {
                others += other.steps.len();
                users.push(format!("`{user}`"));
            }
        }
        let all = others + workflow.steps.len();
        if all > validate::STARTED_MAX {
            users.truncate(USERS_NAMED as usize);
            let message = format!(
                "each request or event from here would start {all} deliveries: {} of this workflow and {others} of {}; the \
                 limit is {}: remove steps or unpublish a workflow",
                workflow.steps.len(),
                users.join(", "),
                validate::STARTED_MAX,
            );
            found.push(violation(&format!("triggers[{index}]"), "STARTS_TOO_MANY", message));
        }
    }
    Ok(found)
}

/// What several workflows may have in common: the kind of a trigger and what it names. Each audience is of one workflow alone.
fn source(trigger: &Trigger) -> Option<(&'static str, &str)> {
    let Trigger { incoming_integration, response_event, event, audience, .. } = trigger;
    match (response_event, event, audience) {
        (Some(of), ..) => Some(("response_event", &of.action)),
        (None, Some(of), _) => Some(("event", &of.action)),
        (None, None, Some(_)) => None,
        (None, None, None) => Some(("incoming_integration", incoming_integration)),
    }
}

fn is_same_source(one: &Trigger, other: &Trigger) -> bool {
    source(one).is_some_and(|one| source(other) == Some(one))
}

/// The workflows in force that may have the source of a trigger. Nobody is on record as user of an event: all are looked at.
async fn workflows_in_force(
    tx: &mut Transaction,
    workspace: &str,
    trigger: &Trigger,
) -> Result<Vec<(String, Workflow)>, Failure> {
    let heads = if trigger.response_event.is_some() || trigger.event.is_some() {
        tx.heads(workspace).await?
    } else {
        let mut heads = Vec::new();
        for user in tx.users(&trigger.incoming_integration, true, i64::MAX).await? {
            heads.extend(tx.head(workspace, &user).await?);
        }
        heads
    };
    let mut found = Vec::new();
    for head in heads {
        let resource = sync::Resource::decode(head.as_slice())
            .map_err(|_| Failure::Internal("a resource in force cannot be read".to_owned()))?;
        if let Some(Document::Workflow(workflow)) = resource.document {
            found.push((resource.name, workflow));
        }
    }
    Ok(found)
}

/// What is wrong with a draft together with what it uses, and known when it is saved: more headers than are sent (O08), which no later
/// change of anything else can make right, and values that their form does not take (S40).
pub(crate) async fn broken_draft(
    shared: &Shared,
    tx: &mut Transaction,
    workspace: &str,
    draft: &Document,
) -> Result<Vec<Violation>, Failure> {
    let mut found = broken(shared, tx, workspace, draft, None).await?;
    found.retain(|broken| broken.reason == validate::HEADERS);
    if let Document::Workflow(workflow) = draft {
        let used = Used::drafts(tx, workspace, workflow).await?;
        found.extend(validate::workflow_forms(workflow, &shared.settings.urls, &used));
    }
    Ok(found)
}

/// What is wrong with naming the document `row` in `field`, if it is a connection (R027).
pub(crate) fn misnamed(shared: &Shared, field: &str, row: DocumentRow) -> Result<Vec<Violation>, Failure> {
    if row.collection != Connection::COLLECTION {
        return Ok(Vec::new());
    }
    let connection = Stored::<Connection>::of(row)?.draft;
    Ok(validate::connection_purpose(field, &connection, &shared.settings.urls))
}
