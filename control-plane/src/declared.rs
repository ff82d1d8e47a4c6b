//! A workspace's drafts as one document, and back. Hides the order in which resources that use each other are stored, and what of a
//! draft is its author's and what the server's.

use std::collections::BTreeSet;

use prost::Message as _;
use sluice_core::validate::{Violation, resource_id};
use sluice_proto::admin::v1::apply_configuration_request::Source;
use sluice_proto::admin::v1::{
    ApplyConfigurationRequest, ApplyConfigurationResponse, Connection, DocumentFormat, EventDefinition,
    ExportConfigurationRequest, ExportConfigurationResponse, FieldChange, IncomingIntegration, OutgoingIntegration,
    ResourceChange, ResourceChangeKind, SchemaTemplate, Snippet, TestProfile, Workflow, WorkspaceConfiguration,
};
use uuid::Uuid;

use crate::call::{Begun, Call, Change};
use crate::error::{Failure, violation};
use crate::fields::{REDACTED, canonical_json, differences, kind, set_text, tree};
use crate::lifecycle::{READ_AT_ONCE, USERS_NAMED, lock, remove, save, settle};
use crate::names::{self, Name};
use crate::resource::{Resource, Stamp};
use crate::secrets::{mark, take};
use crate::shared::Shared;
use crate::store::{Transaction, WorkspaceRow};
use crate::stored::Stored;
use crate::yaml::{self, Lines};

/// What a document is.
const MESSAGE: &str = "sluice.admin.v1.WorkspaceConfiguration";
/// Most resources of one document.
const RESOURCES_MAX: usize = 2_000;
/// Most bytes of one document, encoded or as text: less than a message may have.
const BYTES_MAX: usize = 2 << 20;

/// All drafts of a workspace, without what only the server writes and without secrets.
pub(crate) async fn export(
    shared: &Shared,
    asked: &ExportConfigurationRequest,
) -> Result<ExportConfigurationResponse, Failure> {
    let workspace = names::workspace_id(&asked.parent, "parent")?;
    let mut tx = shared.store.read().await?;
    if tx.workspace(&workspace).await?.is_none() {
        return Err(Failure::NotFound(asked.parent.clone()));
    }
    let configuration = WorkspaceConfiguration {
        connections: exported(&mut tx, &workspace).await?,
        snippets: exported(&mut tx, &workspace).await?,
        schema_templates: exported(&mut tx, &workspace).await?,
        event_definitions: exported(&mut tx, &workspace).await?,
        test_profiles: exported(&mut tx, &workspace).await?,
        incoming_integrations: exported(&mut tx, &workspace).await?,
        outgoing_integrations: exported(&mut tx, &workspace).await?,
        workflows: exported(&mut tx, &workspace).await?,
    };
    refuse_size("parent", &configuration)?;
    let tree = || tree(MESSAGE, &configuration);
    let document = match DocumentFormat::try_from(asked.format) {
        Ok(DocumentFormat::Unspecified) => {
            return Ok(ExportConfigurationResponse { configuration: Some(configuration), document: String::new() });
        }
        Ok(DocumentFormat::Yaml) => yaml::write(&tree()?),
        Ok(DocumentFormat::Json) => canonical_json(&tree()?)
            .and_then(|shown| serde_json::to_string_pretty(&shown))
            .map_err(|error| Failure::Internal(format!("a configuration is not shown as JSON: {error}")))?,
        Err(_) => return Err(Failure::field("format", "UNKNOWN", "is none of the formats of the contract")),
    };
    if document.len() > BYTES_MAX {
        let message = format!(
            "the document has {} bytes as text; the limit is {BYTES_MAX}: export it without a format",
            document.len()
        );
        return Err(Failure::field("format", "CONFIGURATION_TOO_LARGE", message));
    }
    Ok(ExportConfigurationResponse { configuration: None, document })
}

/// Makes the drafts of a workspace those of a document: all of them or none.
pub(crate) async fn apply(
    shared: &Shared,
    call: Call,
    asked: ApplyConfigurationRequest,
) -> Result<ApplyConfigurationResponse, Failure> {
    let mut lines = Lines::default();
    let applied = apply_source(shared, call, asked, &mut lines).await;
    applied.map_err(|failure| match failure {
        Failure::Fields(found) => Failure::Fields(lines.point(found)),
        other => other,
    })
}

/// Applies a document, saying where its fields stand when it is a text.
async fn apply_source(
    shared: &Shared,
    call: Call,
    asked: ApplyConfigurationRequest,
    lines: &mut Lines,
) -> Result<ApplyConfigurationResponse, Failure> {
    let workspace = names::workspace_id(&asked.parent, "parent")?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let workspace = lock(&mut change, &workspace, &asked.parent).await?;
    let mut wanted = match asked.source {
        Some(Source::Configuration(configuration)) => configuration,
        Some(Source::Document(text)) => {
            let read = yaml::read(&kind(MESSAGE)?, "configuration", &text).map_err(Failure::Fields)?;
            *lines = read.lines;
            let decoded = read.message.transcode_to();
            decoded.map_err(|error| Failure::Internal(format!("a {MESSAGE} cannot be read as one: {error}")))?
        }
        None => return Err(Failure::field("configuration", "REQUIRED", "is required, or a `document`")),
    };
    refuse_size("configuration", &wanted)?;
    relocate(&mut wanted, &workspace.id)?;
    let mut applying = Applying { shared, change, workspace, named: BTreeSet::new(), changes: Vec::new() };
    // All stand there before any is checked: they may need each other.
    let connections = applying.place(wanted.connections).await?;
    let snippets = applying.place(wanted.snippets).await?;
    let schema_templates = applying.place(wanted.schema_templates).await?;
    let event_definitions = applying.place(wanted.event_definitions).await?;
    let test_profiles = applying.place(wanted.test_profiles).await?;
    let incoming_integrations = applying.place(wanted.incoming_integrations).await?;
    let outgoing_integrations = applying.place(wanted.outgoing_integrations).await?;
    let workflows = applying.place(wanted.workflows).await?;
    applying.keep(connections).await?;
    applying.keep(snippets).await?;
    applying.keep(schema_templates).await?;
    applying.keep(event_definitions).await?;
    applying.keep(test_profiles).await?;
    applying.keep(incoming_integrations).await?;
    applying.keep(outgoing_integrations).await?;
    applying.keep(workflows).await?;
    if asked.prune {
        applying.prune().await?;
    }
    applying.finish().await
}

/// Makes a document whose names are all of one other workspace one of this workspace.
fn relocate(wanted: &mut WorkspaceConfiguration, workspace: &str) -> Result<(), Failure> {
    let mut homes = BTreeSet::new();
    homes_of(&wanted.connections, &mut homes);
    homes_of(&wanted.snippets, &mut homes);
    homes_of(&wanted.schema_templates, &mut homes);
    homes_of(&wanted.event_definitions, &mut homes);
    homes_of(&wanted.test_profiles, &mut homes);
    homes_of(&wanted.incoming_integrations, &mut homes);
    homes_of(&wanted.outgoing_integrations, &mut homes);
    homes_of(&wanted.workflows, &mut homes);
    let mut homes = homes.into_iter();
    let (Some(Some(from)), None) = (homes.next(), homes.next()) else { return Ok(()) };
    if from == workspace {
        return Ok(());
    }
    let (from, to) = (names::workspace_name(&from) + "/", names::workspace_name(workspace) + "/");
    move_all(&mut wanted.connections, &from, &to)?;
    move_all(&mut wanted.snippets, &from, &to)?;
    move_all(&mut wanted.schema_templates, &from, &to)?;
    move_all(&mut wanted.event_definitions, &from, &to)?;
    move_all(&mut wanted.test_profiles, &from, &to)?;
    move_all(&mut wanted.incoming_integrations, &from, &to)?;
    move_all(&mut wanted.outgoing_integrations, &from, &to)?;
    move_all(&mut wanted.workflows, &from, &to)
}

/// The workspaces that resources are named in; `None` stands for a name that is none.
fn homes_of<R: Resource>(resources: &[R], homes: &mut BTreeSet<Option<String>>) {
    homes.extend(resources.iter().map(|one| names::split(one.sent().0).map(|(workspace, ..)| workspace.to_owned())));
}

/// Moves names and references from one workspace to another.
fn move_all<R: Resource>(resources: &mut [R], from: &str, to: &str) -> Result<(), Failure> {
    for one in resources {
        let name = ("name".to_owned(), one.sent().0.to_owned());
        let mut moved = tree(R::MESSAGE, one)?;
        for (field, target) in one.references().into_iter().chain([name]) {
            if let Some(rest) = target.strip_prefix(from) {
                set_text(&mut moved, &field, format!("{to}{rest}"));
            }
        }
        let read = moved.transcode_to::<R>();
        *one = read.map_err(|error| Failure::Internal(format!("a moved {}: {error}", R::MESSAGE)))?;
    }
    Ok(())
}

fn refuse_size(field: &str, configuration: &WorkspaceConfiguration) -> Result<(), Failure> {
    let resources = configuration.connections.len()
        + configuration.snippets.len()
        + configuration.schema_templates.len()
        + configuration.event_definitions.len()
        + configuration.test_profiles.len()
        + configuration.incoming_integrations.len()
        + configuration.outgoing_integrations.len()
        + configuration.workflows.len();
    let bytes = configuration.encoded_len();
    let too_large = |what: &str, has: usize, limit: usize| {
        let message = format!("the configuration has {has} {what}; the limit is {limit}");
        Err(Failure::field(field, "CONFIGURATION_TOO_LARGE", message))
    };
    if resources > RESOURCES_MAX {
        return too_large("resources", resources, RESOURCES_MAX);
    }
    if bytes > BYTES_MAX { too_large("bytes", bytes, BYTES_MAX) } else { Ok(()) }
}

/// The drafts of a kind as their authors wrote them, by name.
async fn exported<R: Resource>(tx: &mut Transaction, workspace: &str) -> Result<Vec<R>, Failure> {
    let stored = all::<R>(tx, workspace).await?;
    Ok(stored.iter().map(|stored| authored(&stored.draft, &stored.row.name)).collect())
}

async fn all<R: Resource>(tx: &mut Transaction, workspace: &str) -> Result<Vec<Stored<R>>, Failure> {
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let rows = tx.documents(workspace, R::COLLECTION, &after, false, READ_AT_ONCE).await?;
        let Some(last) = rows.last() else { return Ok(found) };
        after.clone_from(&last.name);
        for row in rows {
            found.push(Stored::of(row)?);
        }
    }
}

/// What of a draft is its author's.
fn authored<R: Resource>(draft: &R, name: &str) -> R {
    let mut authored = R::default();
    for field in R::MUTABLE {
        authored.copy(field, draft);
    }
    mark(&mut authored, &[]);
    authored.stamp(Stamp { name: name.to_owned(), ..Stamp::default() });
    authored
}

/// A document that is applied.
struct Applying<'a> {
    shared: &'a Shared,
    change: Change,
    workspace: WorkspaceRow,
    /// What it names.
    named: BTreeSet<String>,
    changes: Vec<ResourceChange>,
}

/// A resource of the document that is other than what is stored.
struct Placed<R> {
    /// Where it stands in the document.
    place: String,
    name: Name,
    sent: R,
    /// What was there before.
    stored: Stored<R>,
    is_new: bool,
}

impl Applying<'_> {
    /// Puts resources that are new or changed where those that use them find them, unchecked.
    async fn place<R: Resource>(&mut self, sent: Vec<R>) -> Result<Vec<Placed<R>>, Failure> {
        let mut placed = Vec::new();
        for (at, sent) in sent.into_iter().enumerate() {
            let place = format!("configuration.{}s[{at}]", R::FIELD);
            let Some(name) = self.name(&place, &sent) else { continue };
            if let Some(one) = self.place_one(place, name, sent).await? {
                placed.push(one);
            }
        }
        Ok(placed)
    }

    /// The name of a resource of the document, if it may have it.
    fn name<R: Resource>(&mut self, place: &str, sent: &R) -> Option<Name> {
        let (full, field) = (sent.sent().0, format!("{place}.name"));
        let workspace = &self.workspace.id;
        let parts = names::split(full).filter(|(of, kind, _)| of == workspace && *kind == R::COLLECTION);
        if parts.is_none_or(|(_, _, id)| resource_id(id).is_err()) {
            let message = format!("must be `workspaces/{workspace}/{}/{{id}}`", R::COLLECTION);
            self.change.found.push(violation(&field, "NAME_INVALID", message));
            return None;
        }
        if !self.named.insert(full.to_owned()) {
            self.change.found.push(violation(&field, "REPEATED", "is named before"));
            return None;
        }
        Some(Name { workspace: workspace.clone(), full: full.to_owned() })
    }

    async fn place_one<R: Resource>(
        &mut self,
        place: String,
        name: Name,
        sent: R,
    ) -> Result<Option<Placed<R>>, Failure> {
        let change = &mut self.change;
        let row = change.tx.document(&name.workspace, &name.full).await?;
        let is_new = row.is_none();
        let stored = match row {
            Some(row) if row.delete_time > 0 => {
                let message = "is deleted: undelete it first, or wait until it is purged";
                change.found.push(violation(&format!("{place}.name"), "RESOURCE_DELETED", message));
                return Ok(None);
            }
            Some(row) => Stored::of(row)?,
            None => Stored::<R>::new(&name, Uuid::new_v4().to_string(), change.now),
        };
        let etag = sent.sent().1;
        if !etag.is_empty() && (is_new || etag != stored.etag()) {
            return Err(Failure::EtagMismatch(name.full));
        }
        let mut draft = sent.clone();
        draft.stamp(Stamp::default());
        draft.complete((!is_new).then_some(&stored.draft));
        let taken = take(&mut draft, &stored.secrets);
        if !is_new && !taken.has_fresh() && draft == stored.draft {
            return Ok(None);
        }
        let mut unchecked = stored.clone();
        unchecked.save(draft, Vec::new(), change.now);
        change.tx.document_put(&unchecked.row).await?;
        Ok(Some(Placed { place, name, sent, stored, is_new }))
    }

    /// Checks and stores what was placed.
    async fn keep<R: Resource>(&mut self, placed: Vec<Placed<R>>) -> Result<(), Failure> {
        for one in placed {
            self.keep_one(one).await?;
        }
        Ok(())
    }

    async fn keep_one<R: Resource>(&mut self, placed: Placed<R>) -> Result<(), Failure> {
        let Placed { place, name, sent, mut stored, is_new } = placed;
        let before = (!is_new).then_some((&stored.draft, stored.secrets.as_slice()));
        let others = std::mem::take(&mut self.change.found);
        let settled = settle(self.shared, &mut self.change, &name, sent, before).await;
        self.change.found = others;
        let (draft, taken) = match settled {
            Ok(settled) => settled,
            Err(Failure::Fields(found)) => {
                let placed = |broken: Violation| Violation { field: format!("{place}.{}", broken.field), ..broken };
                self.change.found.extend(found.into_iter().map(placed));
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        let old = if is_new { authored(&R::default(), "") } else { authored(&stored.draft, "") };
        let mut fields = differences(&tree(R::MESSAGE, &old)?, &tree(R::MESSAGE, &authored(&draft, ""))?);
        fields.extend(taken.fresh_fields().map(|field| FieldChange {
            path: field.to_owned(),
            old_value: None,
            new_value: Some(REDACTED.to_owned()),
        }));
        save(self.shared, &mut self.change, &mut self.workspace, &mut stored, draft, taken).await?;
        let kind = if is_new { ResourceChangeKind::ResourceAdded } else { ResourceChangeKind::ResourceChanged };
        self.changes.push(ResourceChange { name: name.full, kind: kind.into(), fields });
        Ok(())
    }

    /// Deletes what the document does not name.
    async fn prune(&mut self) -> Result<(), Failure> {
        let workflows = self.unnamed::<Workflow>().await?;
        let outgoing_integrations = self.unnamed::<OutgoingIntegration>().await?;
        let incoming_integrations = self.unnamed::<IncomingIntegration>().await?;
        let test_profiles = self.unnamed::<TestProfile>().await?;
        let event_definitions = self.unnamed::<EventDefinition>().await?;
        let schema_templates = self.unnamed::<SchemaTemplate>().await?;
        let snippets = self.unnamed::<Snippet>().await?;
        let connections = self.unnamed::<Connection>().await?;
        self.remove_all(workflows).await?;
        self.remove_all(outgoing_integrations).await?;
        self.remove_all(incoming_integrations).await?;
        self.remove_all(test_profiles).await?;
        self.remove_all(event_definitions).await?;
        self.remove_all(schema_templates).await?;
        self.remove_all(snippets).await?;
        self.remove_all(connections).await
    }

    /// What the document does not name. Their drafts use nothing any more: they go together.
    async fn unnamed<R: Resource>(&mut self) -> Result<Vec<Stored<R>>, Failure> {
        let mut stored = all::<R>(&mut self.change.tx, &self.workspace.id).await?;
        stored.retain(|stored| !self.named.contains(&stored.row.name));
        for stored in &stored {
            self.change.tx.references_set(&stored.row.name, false, &[]).await?;
        }
        Ok(stored)
    }

    async fn remove_all<R: Resource>(&mut self, stored: Vec<Stored<R>>) -> Result<(), Failure> {
        for mut stored in stored {
            let name = stored.row.name.clone();
            let users = self.change.tx.users(&name, false, USERS_NAMED).await?;
            if !users.is_empty() {
                let message = format!("`{name}` is used by {}", users.join(", "));
                self.change.found.push(violation("prune", "RESOURCE_IN_USE", message));
            } else if stored.is_published() && !R::IMMEDIATE {
                let message = format!("`{name}` is published: unpublish it first");
                self.change.found.push(violation("prune", "RESOURCE_PUBLISHED", message));
            } else {
                let (old, new) = (authored(&stored.draft, ""), authored(&R::default(), ""));
                let fields = differences(&tree(R::MESSAGE, &old)?, &tree(R::MESSAGE, &new)?);
                remove(&mut self.change, &mut self.workspace, &mut stored).await?;
                let kind = ResourceChangeKind::ResourceRemoved.into();
                self.changes.push(ResourceChange { name, kind, fields });
            }
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<ApplyConfigurationResponse, Failure> {
        let parent = format!("{}/", names::workspace_name(&self.workspace.id));
        let mut written = Vec::new();
        for change in &self.changes {
            let id = change.name.strip_prefix(&parent).unwrap_or(&change.name);
            written.extend(change.fields.iter().map(|field| format!("{id}.{}", field.path)));
        }
        self.change.writes(written);
        self.change.finish(self.shared, ApplyConfigurationResponse { changes: self.changes }).await
    }
}
