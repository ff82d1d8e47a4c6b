//! Which level of configuration ([`sluice_core::level`]) a published document needs, and what is done when a data plane does not have it. Hides
//! that it is read from the contract: a field that came with a level says so there, and nowhere else.
//!
//! Before a change: it is refused while a connected data plane would not understand what it puts in force ([`refuse_older`]). After it: a
//! data plane that connects later, or that the caller has left behind, is not sent the workspace, and that is shown ([`problems`]).

use std::collections::HashSet;
use std::fmt;
use std::sync::LazyLock;

use prost::Message as _;
use prost_reflect::{
    DynamicMessage, EnumValueDescriptor, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value,
};
use sluice_proto::admin::v1::Problem;
use sluice_proto::sync::v1::command::Kind as Command;
use sluice_proto::sync::v1::{Resource, WorkspaceBody};
use tonic_types::PreconditionViolation;

use crate::call::Change;
use crate::error::Failure;
use crate::fields::CONTRACT;
use crate::names::workspace_name;
use crate::shared::Shared;
use crate::store::{StoreError, Transaction, WorkspaceRow};

/// Data planes that say no level have this one.
pub(crate) const FIRST: i32 = 1;
/// Most resources that are named when a data plane is too old for them.
const NAMED_MAX: i64 = 20;
/// What is published.
const KIND: &str = "sluice.sync.v1.Resource";
/// How many data planes one answer lists: its details travel in headers, which are limited.
const LISTED_MAX: usize = 10;
/// How many data planes and resources a message names.
const TOLD_MAX: usize = 5;
/// The reason, in answers and in what is shown of a data plane.
const REASON: &str = "CONFIG_LEVEL_UNSUPPORTED";

/// What a document needs, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) level: i32,
    /// The path of the first field that needs it; empty at the first level.
    pub(crate) field: String,
}

/// A connected data plane that is too old.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Older {
    pub(crate) id: String,
    pub(crate) build: String,
    pub(crate) level: i32,
}

/// Connected data planes that are too old for what would be in force. Prints as what the caller reads.
#[derive(Debug)]
pub(crate) struct LeftBehind {
    older: Vec<Older>,
    needs: Vec<(String, Need)>,
}

impl LeftBehind {
    /// One for each of them.
    pub(crate) fn violations(&self) -> Vec<PreconditionViolation> {
        let violation = |Older { id, build, level }: &Older| {
            let understands = format!("build `{build}` understands configuration level {level}");
            PreconditionViolation::new(REASON, format!("dataPlanes/{id}"), understands)
        };
        self.older.iter().take(LISTED_MAX).map(violation).collect()
    }
}

impl fmt::Display for LeftBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let planes = self.older.iter().map(|plane| format!("`{}` (level {})", plane.id, plane.level));
        let needs = self.needs.iter().map(|(name, need)| format!("`{name}` ({}) needs {}", need.field, need.level));
        write!(
            f,
            "connected data planes are too old for what would be in force: {}; {}; nothing was changed. Update them first, or allow it \
             (`allow_partial_rollout`): they go on with what they serve until they are updated",
            some_of(planes),
            some_of(needs)
        )
    }
}

/// A few of these, and how many more there are.
fn some_of(all: impl ExactSizeIterator<Item = String>) -> String {
    let more = all.len().saturating_sub(TOLD_MAX);
    let some: Vec<String> = all.take(TOLD_MAX).collect();
    if more > 0 { format!("{} and {more} more", some.join(", ")) } else { some.join(", ") }
}

/// Which levels the contract names, and where.
struct Levels {
    resource: MessageDescriptor,
    /// Full names of messages in which something of a higher level can be, however deep: all others are not looked into.
    messages: HashSet<String>,
}

static LEVELS: LazyLock<Levels> = LazyLock::new(|| {
    let resource = CONTRACT.get_message_by_name(KIND).expect("resources are part of the contract");
    let mut messages = HashSet::new();
    // A message may be within itself: until nothing is new.
    loop {
        let before = messages.len();
        let mut seen = HashSet::new();
        mark(&resource, &mut seen, &mut messages);
        if messages.len() == before {
            return Levels { resource, messages };
        }
    }
});

/// Finds messages with something of a higher level.
fn mark(message: &MessageDescriptor, seen: &mut HashSet<String>, found: &mut HashSet<String>) {
    if !seen.insert(message.full_name().to_owned()) {
        return;
    }
    for field in message.fields() {
        let within = match field.kind() {
            Kind::Message(kind) => {
                mark(&kind, seen, found);
                found.contains(kind.full_name())
            }
            Kind::Enum(kind) => kind.values().any(|value| value_level(&value) > FIRST),
            _ => false,
        };
        if within || field_level(&field) > FIRST {
            found.insert(message.full_name().to_owned());
        }
    }
}

/// The level a field came with.
fn field_level(field: &FieldDescriptor) -> i32 {
    let option = CONTRACT.get_extension_by_name("sluice.admin.v1.config_level");
    option.and_then(|option| field.options().get_extension(&option).as_i32()).unwrap_or(FIRST).max(FIRST)
}

/// The level a value of an enum came with.
fn value_level(value: &EnumValueDescriptor) -> i32 {
    let option = CONTRACT.get_extension_by_name("sluice.admin.v1.value_config_level");
    option.and_then(|option| value.options().get_extension(&option).as_i32()).unwrap_or(FIRST).max(FIRST)
}

/// What a resource needs of those who are to serve it.
///
/// # Errors
/// It is not of the contract, which is a defect.
pub(crate) fn need(resource: &Resource) -> Result<Need, StoreError> {
    need_of(&resource.encode_to_vec())
}

/// The level that a command needs of the data plane that does it: that of the configuration it brings.
///
/// # Errors
/// As those of [`need`].
pub(crate) fn of_command<'a>(kind: &'a Command) -> Result<i32, StoreError> {
    let of = |body: &'a Option<WorkspaceBody>| body.as_ref().map_or(&[][..], |body| &body.upserts);
    let resources: &[Resource] = match kind {
        Command::TestRequest(test) => of(&test.configuration),
        Command::TestConnection(test) => of(&test.configuration),
        Command::OpenCapture(capture) => capture.draft.as_slice(),
        Command::Retry(_)
        | Command::Cancel(_)
        | Command::Replay(_)
        | Command::CloseCapture(_)
        | Command::SubmitEvents(_)
        | Command::Drain(_) => &[],
    };
    resources.iter().try_fold(FIRST, |level, resource| Ok(level.max(need(resource)?.level)))
}

fn need_of(resource: &[u8]) -> Result<Need, StoreError> {
    let read = |error| StoreError::Corrupt(format!("a published resource: {error}"));
    let tree = DynamicMessage::decode(LEVELS.resource.clone(), resource).map_err(read)?;
    let mut need = Need { level: FIRST, field: String::new() };
    look_into(&tree, "", &mut need);
    // It belongs to the document, of which the caller knows the fields.
    if let Some((_, field)) = need.field.split_once('.').filter(|(document, _)| !document.ends_with(']')) {
        need.field = field.to_owned();
    }
    Ok(need)
}

fn look_into(message: &DynamicMessage, path: &str, need: &mut Need) {
    if !LEVELS.messages.contains(message.descriptor().full_name()) {
        return;
    }
    for (field, value) in message.fields() {
        let path = if path.is_empty() { field.name().to_owned() } else { format!("{path}.{}", field.name()) };
        raise(need, field_level(&field), &path);
        match value {
            Value::List(values) => {
                for (at, value) in values.iter().enumerate() {
                    look_at(&field, value, &format!("{path}[{at}]"), need);
                }
            }
            Value::Map(values) => {
                for (key, value) in values {
                    look_at(&field, value, &format!("{path}[{key:?}]"), need);
                }
            }
            value => look_at(&field, value, &path, need),
        }
    }
}

fn look_at(field: &FieldDescriptor, value: &Value, path: &str, need: &mut Need) {
    match (value, field.kind()) {
        (Value::Message(message), _) => look_into(message, path, need),
        (Value::EnumNumber(number), Kind::Enum(kind)) => {
            let level = kind.get_value(*number).map_or(FIRST, |value| value_level(&value));
            raise(need, level, path);
        }
        _ => {}
    }
}

fn raise(need: &mut Need, level: i32, path: &str) {
    if level > need.level {
        *need = Need { level, field: path.to_owned() };
    }
}

/// Refuses a change that has put something new in force, unless every connected data plane that sees the workspace understands all that is
/// in force then, or the caller leaves those behind that do not. Nothing of the change is kept yet.
pub(crate) async fn refuse_older(
    shared: &Shared,
    change: &mut Change,
    workspace: &WorkspaceRow,
) -> Result<(), Failure> {
    let level = workspace.config_level;
    if level <= FIRST || change.allows_partial_rollout() {
        return Ok(());
    }
    // Those that are connected to other control planes count too.
    shared.replicas.fresh().await;
    let older = shared.data_planes.older(&workspace_name(&workspace.id), level);
    let Some(oldest) = older.iter().map(|plane| plane.level).min() else { return Ok(()) };
    let needs = above(&mut change.tx, &workspace.id, oldest).await?;
    Err(Failure::ConfigLevel(LeftBehind { older, needs }))
}

/// Why a data plane of this level does not get a workspace.
pub(crate) async fn problems(tx: &mut Transaction, workspace: &str, level: i32) -> Result<Vec<Problem>, Failure> {
    let problem = |(resource, need): (String, Need)| Problem {
        resource,
        field: need.field,
        reason: REASON.to_owned(),
        message: format!(
            "needs configuration level {}, and this data plane understands {level}: update it; it is sent nothing of the workspace \
             until then",
            need.level
        ),
        ..Problem::default()
    };
    Ok(above(tx, workspace, level).await?.into_iter().map(problem).collect())
}

/// What is in force in a workspace and needs more than this level.
async fn above(tx: &mut Transaction, workspace: &str, level: i32) -> Result<Vec<(String, Need)>, StoreError> {
    let rows = tx.heads_above(workspace, level, NAMED_MAX).await?;
    rows.into_iter().map(|(name, resource)| Ok((name, need_of(&resource)?))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sluice_core::level::CONFIG_LEVEL;
    use sluice_proto::admin::v1::{AudienceTrigger, EventTrigger, Trigger, Workflow};
    use sluice_proto::sync::v1 as sync;
    use sluice_proto::sync::v1::resource::Document;

    use super::*;

    fn workflow(triggers: Vec<Trigger>) -> Resource {
        let document = Workflow { triggers, ..Workflow::default() };
        Resource { document: Some(Document::Workflow(document)), ..Resource::default() }
    }

    #[test]
    fn a_document_needs_the_level_of_the_newest_field_that_is_set() {
        let event = Trigger { event: Some(EventTrigger::default()), ..Trigger::default() };
        let audience = Trigger { audience: Some(AudienceTrigger {}), ..Trigger::default() };
        let needs = |triggers| need(&workflow(triggers)).unwrap();
        assert_eq!(needs(vec![event.clone()]), Need { level: 1, field: String::new() });
        assert_eq!(needs(vec![event, audience]), Need { level: 2, field: "triggers[1].audience".to_owned() });
        assert!(LEVELS.messages.contains(KIND) && !LEVELS.messages.contains("sluice.admin.v1.Connection"));
    }

    #[test]
    fn a_command_needs_what_the_configuration_needs_that_it_brings() {
        let audience = Trigger { audience: Some(AudienceTrigger {}), ..Trigger::default() };
        let body = WorkspaceBody { upserts: vec![workflow(vec![audience])], ..WorkspaceBody::default() };
        let test = sync::TestRequest { configuration: Some(body), ..sync::TestRequest::default() };
        assert_eq!(of_command(&Command::TestRequest(test)).unwrap(), 2);
        assert_eq!(of_command(&Command::TestRequest(sync::TestRequest::default())).unwrap(), 1);
        assert_eq!(of_command(&Command::OpenCapture(sync::OpenCapture::default())).unwrap(), 1);
    }

    /// Every field and every value of an enum that a published resource can have, with its level.
    fn contract() -> BTreeMap<String, i32> {
        let (mut found, mut open) = (BTreeMap::new(), vec![LEVELS.resource.clone()]);
        let mut seen = HashSet::new();
        while let Some(message) = open.pop() {
            if message.package_name() == "google.protobuf" || !seen.insert(message.full_name().to_owned()) {
                continue;
            }
            for field in message.fields() {
                found.insert(field.full_name().to_owned(), field_level(&field));
                match field.kind() {
                    Kind::Message(kind) => open.push(kind),
                    Kind::Enum(kind) => found.extend(
                        kind.values()
                            .map(|value| (format!("{}.{}", kind.full_name(), value.name()), value_level(&value))),
                    ),
                    _ => {}
                }
            }
        }
        found
    }

    /// Row 19 of the failure matrix: nobody adds a field and forgets that older data planes do not know it.
    #[test]
    fn every_field_of_a_resource_has_the_level_it_came_with() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/sync/levels.jsonl");
        let text = std::fs::read_to_string(path).unwrap();
        let row = |line: &str| {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            (row["field"].as_str().unwrap().to_owned(), i32::try_from(row["level"].as_i64().unwrap()).unwrap())
        };
        let golden: BTreeMap<String, i32> = text.lines().map(row).collect();
        let contract = contract();
        let highest = contract.values().copied().max().unwrap();
        for (field, level) in &contract {
            assert_eq!(
                golden.get(field),
                Some(level),
                "{field}: what data planes of an earlier release do not know has `config_level` in the contract, of which the highest is \
                 {CONFIG_LEVEL}, and a row in levels.jsonl"
            );
        }
        assert!(golden.keys().all(|field| contract.contains_key(field)), "a field that was released stays");
        assert_eq!(highest, CONFIG_LEVEL, "the level of the build is that of its newest field");
    }
}
