//! What the four kinds of documents have in common, so that one lifecycle serves all: where their shared fields are, which
//! fields a caller may change, what the server adds, and what makes them valid.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use prost_types::Timestamp;
use sluice_core::address::UrlPolicy;
use sluice_core::icon;
use sluice_core::template::Snippets;
use sluice_core::validate::{self, Violation};
use sluice_core::wire::{self, References, SecretFields};
use sluice_proto::admin::v1::{
    Connection, EventDefinition, IncomingIntegration, OutgoingIntegration, SchemaField, SchemaTemplate, Snippet,
    TestProfile, VersionedDocument, Workflow,
};
use sluice_proto::admin::v1::{connection::Scheme, incoming_integration::Authorization, versioned_document};
use sluice_proto::sync::v1::resource::Document;
use uuid::Uuid;

use crate::error::{Failure, violation};

/// The fields that only the server writes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stamp {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) etag: String,
    pub(crate) create_time: Option<Timestamp>,
    pub(crate) update_time: Option<Timestamp>,
    /// The version in force; 0 when none is.
    pub(crate) version: i64,
    pub(crate) has_unpublished_changes: bool,
    pub(crate) delete_time: Option<Timestamp>,
    pub(crate) purge_time: Option<Timestamp>,
}

/// What a document is checked against besides itself.
pub(crate) struct Rules<'a> {
    pub(crate) urls: &'a UrlPolicy,
    /// What its templates may insert.
    pub(crate) snippets: Arc<Snippets>,
    /// The fields of the form that its steps are to fill in.
    pub(crate) form: Vec<SchemaField>,
}

impl<'a> Rules<'a> {
    /// For documents that insert nothing.
    pub(crate) fn without_snippets(urls: &'a UrlPolicy) -> Self {
        Self { urls, snippets: Arc::default(), form: Vec::new() }
    }
}

/// A kind of document.
pub(crate) trait Resource:
    Message + Default + Clone + PartialEq + SecretFields + References + Send + Sync + 'static
{
    /// The part of its name before the id.
    const COLLECTION: &'static str;
    /// The full name of its message.
    const MESSAGE: &'static str;
    /// The field of requests that holds one.
    const FIELD: &'static str;
    /// The field of create requests that holds the id.
    const ID_FIELD: &'static str;
    /// Whether a change is in force at once, without publishing.
    const IMMEDIATE: bool;
    /// The top-level fields a caller may change.
    const MUTABLE: &'static [&'static str];

    /// Sets the fields that only the server writes; the default clears them.
    fn stamp(&mut self, stamp: Stamp);
    /// Empties the etag alone.
    fn clear_etag(&mut self);
    /// The name and the etag as the caller sent them.
    fn sent(&self) -> (&str, &str);
    /// Takes one of [`Resource::MUTABLE`] from `other`, whether it is set there or not.
    fn copy(&mut self, field: &str, other: &Self);
    /// Brings what a caller sent into the form that is stored, adding what the server makes; `stored` is what was there before.
    fn complete(&mut self, stored: Option<&Self>);
    /// When [`Resource::complete`] will put a field elsewhere: where, and what the caller calls it.
    fn moved_field(&self) -> Option<(&'static str, &'static str)> {
        None
    }
    /// Empties what [`Resource::complete`] made and was not stored.
    fn forget_made(&mut self) {}
    /// Takes the fields of the form that it is published with, or empties them.
    fn embed(&mut self, _: Vec<SchemaField>) {}
    /// Its icon and the icon's type, for kinds that have one. They count when they are saved: no version and no data plane has them.
    fn icon(&mut self) -> Option<(&mut Bytes, &mut String)> {
        None
    }
    /// Every broken rule of the document by itself.
    fn violations(&self, rules: &Rules<'_>) -> Vec<Violation>;
    /// As data planes get it.
    fn into_document(self) -> Document;
    /// From what data planes get; `None` when it is of another kind.
    fn from_document(document: Document) -> Option<Self>;
}

/// A kind that is published, version by version.
pub(crate) trait Versioned: Resource {
    /// What is in force is part of the workspace's revision and goes to data planes.
    const IN_REVISIONS: bool;

    /// As callers see one of its versions.
    fn into_versioned(self) -> VersionedDocument;
    /// The schema template that it takes a form from, and the version that it was published with; empty and 0: none.
    fn schema_template(&self) -> (&str, i64) {
        ("", 0)
    }
    /// Notes the version of its schema template that it is published with.
    fn pin(&mut self, _: i64) {}
}

/// Calls a function for the published kind that a collection (an `Option<&str>`) holds; `field` is where the name was given.
macro_rules! of_published_kind {
    ($collection:expr, $function:ident($($argument:expr),*), $field:expr) => {
        match $collection {
            Some(IncomingIntegration::COLLECTION) => $function::<IncomingIntegration>($($argument),*).await,
            Some(OutgoingIntegration::COLLECTION) => $function::<OutgoingIntegration>($($argument),*).await,
            Some(Workflow::COLLECTION) => $function::<Workflow>($($argument),*).await,
            Some(Snippet::COLLECTION) => $function::<Snippet>($($argument),*).await,
            Some(SchemaTemplate::COLLECTION) => $function::<SchemaTemplate>($($argument),*).await,
            _ => Err($crate::resource::not_published_kind(&$field)),
        }
    };
}
pub(crate) use of_published_kind;

/// The name is of nothing that is published.
pub(crate) fn not_published_kind(field: &str) -> Failure {
    let message = "must be `workspaces/{workspace}/{collection}/{id}` with a collection that is published: \
                   incomingIntegrations, outgoingIntegrations, schemaTemplates, snippets or workflows";
    Failure::field(field, "NAME_INVALID", message)
}

/// How a version of a kind is shown.
macro_rules! versioned {
    ($($kind:ident: $in_revisions:literal),*) => {
        $(impl Versioned for $kind {
            const IN_REVISIONS: bool = $in_revisions;

            fn into_versioned(self) -> VersionedDocument {
                VersionedDocument { kind: Some(versioned_document::Kind::$kind(self)) }
            }
        })*
    };
}

// Integrations bring the form they were published with.
versioned!(IncomingIntegration: true, SchemaTemplate: false, Snippet: true, Workflow: true);

impl Versioned for OutgoingIntegration {
    const IN_REVISIONS: bool = true;

    fn into_versioned(self) -> VersionedDocument {
        VersionedDocument { kind: Some(versioned_document::Kind::OutgoingIntegration(self)) }
    }

    fn schema_template(&self) -> (&str, i64) {
        (&self.schema_template, self.schema_template_version)
    }

    fn pin(&mut self, version: i64) {
        self.schema_template_version = version;
    }
}

/// The fields all kinds but connections share.
macro_rules! stamp_published {
    () => {
        fn stamp(&mut self, stamp: Stamp) {
            self.name = stamp.name;
            self.uid = stamp.uid;
            self.etag = stamp.etag;
            self.create_time = stamp.create_time;
            self.update_time = stamp.update_time;
            self.published_version = stamp.version;
            self.has_unpublished_changes = stamp.has_unpublished_changes;
            self.delete_time = stamp.delete_time;
            self.purge_time = stamp.purge_time;
        }

        fn clear_etag(&mut self) {
            self.etag.clear();
        }

        fn sent(&self) -> (&str, &str) {
            (&self.name, &self.etag)
        }
    };
}

/// The fields of kinds that are neither published nor for data planes.
macro_rules! stamp_plain {
    () => {
        fn stamp(&mut self, stamp: Stamp) {
            self.name = stamp.name;
            self.uid = stamp.uid;
            self.etag = stamp.etag;
            self.create_time = stamp.create_time;
            self.update_time = stamp.update_time;
            self.delete_time = stamp.delete_time;
            self.purge_time = stamp.purge_time;
        }

        fn clear_etag(&mut self) {
            self.etag.clear();
        }

        fn sent(&self) -> (&str, &str) {
            (&self.name, &self.etag)
        }
    };
}

/// How a kind travels inside a `sync.v1.Resource`.
macro_rules! travels_as {
    ($variant:ident) => {
        fn into_document(self) -> Document {
            Document::$variant(self)
        }

        fn from_document(document: Document) -> Option<Self> {
            match document {
                Document::$variant(this) => Some(this),
                _ => None,
            }
        }
    };
}

/// A kind with an icon (R014).
macro_rules! icon {
    () => {
        fn icon(&mut self) -> Option<(&mut Bytes, &mut String)> {
            Some((&mut self.icon, &mut self.icon_type))
        }
    };
}

/// The media type of an icon; empty for none.
fn icon_type(icon: &Bytes) -> String {
    icon::check(icon).map_or_else(|_| String::new(), |format| format.media_type().to_owned())
}

/// Copies one alternative of a oneof: taken when `other` chose it, cleared when only `self` did.
macro_rules! copy_choice {
    ($self:ident . $oneof:ident, $other:ident, $variant:pat) => {
        if matches!($other.$oneof, Some($variant)) || matches!($self.$oneof, Some($variant)) {
            $self.$oneof.clone_from(&$other.$oneof);
        }
    };
}

impl Resource for Connection {
    const COLLECTION: &'static str = "connections";
    const MESSAGE: &'static str = "sluice.admin.v1.Connection";
    const FIELD: &'static str = "connection";
    const ID_FIELD: &'static str = "connection_id";
    const IMMEDIATE: bool = true;
    const MUTABLE: &'static [&'static str] = &[
        "display_name",
        "allowed_hosts",
        "none",
        "login_password",
        "api_key",
        "token",
        "oauth2_client_credentials",
        "synerise_api_key",
        "custom",
        "sha256",
        "standard_webhooks",
        "hmac_signature",
    ];

    fn stamp(&mut self, stamp: Stamp) {
        self.name = stamp.name;
        self.uid = stamp.uid;
        self.etag = stamp.etag;
        self.create_time = stamp.create_time;
        self.update_time = stamp.update_time;
        self.version = stamp.version;
        self.delete_time = stamp.delete_time;
        self.purge_time = stamp.purge_time;
    }

    fn clear_etag(&mut self) {
        self.etag.clear();
    }

    fn sent(&self) -> (&str, &str) {
        (&self.name, &self.etag)
    }

    fn copy(&mut self, field: &str, other: &Self) {
        match field {
            "display_name" => self.display_name.clone_from(&other.display_name),
            "allowed_hosts" => self.allowed_hosts.clone_from(&other.allowed_hosts),
            "none" => copy_choice!(self.scheme, other, Scheme::None(_)),
            "login_password" => copy_choice!(self.scheme, other, Scheme::LoginPassword(_)),
            "api_key" => copy_choice!(self.scheme, other, Scheme::ApiKey(_)),
            "token" => copy_choice!(self.scheme, other, Scheme::Token(_)),
            "oauth2_client_credentials" => copy_choice!(self.scheme, other, Scheme::Oauth2ClientCredentials(_)),
            "synerise_api_key" => copy_choice!(self.scheme, other, Scheme::SyneriseApiKey(_)),
            "custom" => copy_choice!(self.scheme, other, Scheme::Custom(_)),
            "sha256" => copy_choice!(self.scheme, other, Scheme::Sha256(_)),
            "standard_webhooks" => copy_choice!(self.scheme, other, Scheme::StandardWebhooks(_)),
            "hmac_signature" => copy_choice!(self.scheme, other, Scheme::HmacSignature(_)),
            _ => {}
        }
    }

    fn complete(&mut self, _: Option<&Self>) {
        wire::normalise(self);
    }

    /// A token is stored as an API key.
    fn moved_field(&self) -> Option<(&'static str, &'static str)> {
        matches!(self.scheme, Some(Scheme::Token(_))).then_some(("api_key.secret", "token.token"))
    }

    fn violations(&self, rules: &Rules<'_>) -> Vec<Violation> {
        validate::connection(self, rules.urls)
    }

    travels_as!(Connection);
}

impl Resource for IncomingIntegration {
    const COLLECTION: &'static str = "incomingIntegrations";
    const MESSAGE: &'static str = "sluice.admin.v1.IncomingIntegration";
    const FIELD: &'static str = "incoming_integration";
    const ID_FIELD: &'static str = "incoming_integration_id";
    const IMMEDIATE: bool = false;
    const MUTABLE: &'static [&'static str] =
        &["display_name", "none", "meta", "jwt", "deduplication", "rate_limit", "icon"];

    stamp_published!();

    fn copy(&mut self, field: &str, other: &Self) {
        match field {
            "display_name" => self.display_name.clone_from(&other.display_name),
            "none" => copy_choice!(self.authorization, other, Authorization::None(_)),
            "meta" => copy_choice!(self.authorization, other, Authorization::Meta(_)),
            "jwt" => copy_choice!(self.authorization, other, Authorization::Jwt(_)),
            "deduplication" => self.deduplication.clone_from(&other.deduplication),
            "rate_limit" => self.rate_limit.clone_from(&other.rate_limit),
            "icon" => self.icon.clone_from(&other.icon),
            _ => {}
        }
    }

    /// The endpoint's id is made once and stays: senders hold the URL. Only its own calls change it, pause it and set its sample.
    fn complete(&mut self, stored: Option<&Self>) {
        self.endpoint_id = stored.map_or_else(|| Uuid::new_v4().to_string(), |stored| stored.endpoint_id.clone());
        self.paused = stored.is_some_and(|stored| stored.paused);
        self.sample = stored.and_then(|stored| stored.sample.clone());
        self.endpoint_path = wire::endpoint_path(&self.endpoint_id);
        self.icon_type = icon_type(&self.icon);
    }

    icon!();

    fn forget_made(&mut self) {
        self.endpoint_id.clear();
        self.endpoint_path.clear();
    }

    fn violations(&self, _: &Rules<'_>) -> Vec<Violation> {
        validate::incoming_integration(self)
    }

    travels_as!(IncomingIntegration);
}

impl Resource for OutgoingIntegration {
    const COLLECTION: &'static str = "outgoingIntegrations";
    const MESSAGE: &'static str = "sluice.admin.v1.OutgoingIntegration";
    const FIELD: &'static str = "outgoing_integration";
    const ID_FIELD: &'static str = "outgoing_integration_id";
    const IMMEDIATE: bool = false;
    const MUTABLE: &'static [&'static str] = &["display_name", "request", "schema_template", "icon"];

    stamp_published!();

    fn copy(&mut self, field: &str, other: &Self) {
        match field {
            "display_name" => self.display_name.clone_from(&other.display_name),
            "request" => self.request.clone_from(&other.request),
            "schema_template" => self.schema_template.clone_from(&other.schema_template),
            "icon" => self.icon.clone_from(&other.icon),
            _ => {}
        }
    }

    /// Publishing pins the version of its schema template.
    fn complete(&mut self, stored: Option<&Self>) {
        self.schema_template_version = stored.map_or(0, |stored| stored.schema_template_version);
        self.schema_fields.clear();
        self.icon_type = icon_type(&self.icon);
    }

    icon!();

    fn embed(&mut self, fields: Vec<SchemaField>) {
        self.schema_fields = fields;
    }

    fn violations(&self, rules: &Rules<'_>) -> Vec<Violation> {
        let whole = Self { schema_fields: rules.form.clone(), ..self.clone() };
        validate::outgoing_integration(&whole, rules.urls, &rules.snippets)
    }

    travels_as!(OutgoingIntegration);
}

impl Resource for Snippet {
    const COLLECTION: &'static str = "snippets";
    const MESSAGE: &'static str = "sluice.admin.v1.Snippet";
    const FIELD: &'static str = "snippet";
    const ID_FIELD: &'static str = "snippet_id";
    const IMMEDIATE: bool = false;
    const MUTABLE: &'static [&'static str] = &["display_name", "text"];

    stamp_published!();

    fn copy(&mut self, field: &str, other: &Self) {
        match field {
            "display_name" => self.display_name.clone_from(&other.display_name),
            "text" => self.text.clone_from(&other.text),
            _ => {}
        }
    }

    fn complete(&mut self, _: Option<&Self>) {}

    /// That it does not use itself is checked when it is published: here it has no name.
    fn violations(&self, rules: &Rules<'_>) -> Vec<Violation> {
        validate::snippet(self, "", &rules.snippets)
    }

    travels_as!(Snippet);
}

impl Resource for SchemaTemplate {
    const COLLECTION: &'static str = "schemaTemplates";
    const MESSAGE: &'static str = "sluice.admin.v1.SchemaTemplate";
    const FIELD: &'static str = "schema_template";
    const ID_FIELD: &'static str = "schema_template_id";
    const IMMEDIATE: bool = false;
    const MUTABLE: &'static [&'static str] = &["display_name", "fields"];

    stamp_published!();

    fn copy(&mut self, field: &str, other: &Self) {
        match field {
            "display_name" => self.display_name.clone_from(&other.display_name),
            "fields" => self.fields.clone_from(&other.fields),
            _ => {}
        }
    }

    fn complete(&mut self, _: Option<&Self>) {}

    fn violations(&self, _: &Rules<'_>) -> Vec<Violation> {
        validate::schema_template(self)
    }

    travels_as!(SchemaTemplate);
}

impl Resource for EventDefinition {
    const COLLECTION: &'static str = "eventDefinitions";
    const MESSAGE: &'static str = "sluice.admin.v1.EventDefinition";
    const FIELD: &'static str = "event_definition";
    const ID_FIELD: &'static str = "event_definition_id";
    const IMMEDIATE: bool = false;
    const MUTABLE: &'static [&'static str] = &["display_name", "action", "parameters"];

    stamp_plain!();

    fn copy(&mut self, field: &str, other: &Self) {
        match field {
            "display_name" => self.display_name.clone_from(&other.display_name),
            "action" => self.action.clone_from(&other.action),
            "parameters" => self.parameters.clone_from(&other.parameters),
            _ => {}
        }
    }

    fn complete(&mut self, _: Option<&Self>) {}

    fn violations(&self, _: &Rules<'_>) -> Vec<Violation> {
        validate::event_definition(self)
    }

    travels_as!(EventDefinition);
}

impl Resource for TestProfile {
    const COLLECTION: &'static str = "testProfiles";
    const MESSAGE: &'static str = "sluice.admin.v1.TestProfile";
    const FIELD: &'static str = "test_profile";
    const ID_FIELD: &'static str = "test_profile_id";
    const IMMEDIATE: bool = false;
    const MUTABLE: &'static [&'static str] = &["display_name", "attributes", "events"];

    stamp_plain!();

    fn copy(&mut self, field: &str, other: &Self) {
        match field {
            "display_name" => self.display_name.clone_from(&other.display_name),
            "attributes" => self.attributes.clone_from(&other.attributes),
            "events" => self.events.clone_from(&other.events),
            _ => {}
        }
    }

    fn complete(&mut self, _: Option<&Self>) {}

    fn violations(&self, _: &Rules<'_>) -> Vec<Violation> {
        validate::test_profile(self)
    }

    travels_as!(TestProfile);
}

impl Resource for Workflow {
    const COLLECTION: &'static str = "workflows";
    const MESSAGE: &'static str = "sluice.admin.v1.Workflow";
    const FIELD: &'static str = "workflow";
    const ID_FIELD: &'static str = "workflow_id";
    const IMMEDIATE: bool = false;
    const MUTABLE: &'static [&'static str] = &["display_name", "triggers", "steps"];

    stamp_published!();

    fn copy(&mut self, field: &str, other: &Self) {
        match field {
            "display_name" => self.display_name.clone_from(&other.display_name),
            "triggers" => self.triggers.clone_from(&other.triggers),
            "steps" => self.steps.clone_from(&other.steps),
            _ => {}
        }
    }

    /// A step without an id is the stored one of its name, if there is one that nobody else is, or else a new one.
    fn complete(&mut self, stored: Option<&Self>) {
        let stored = stored.map(|stored| stored.steps.as_slice()).unwrap_or_default();
        let mut taken: BTreeSet<String> = self.steps.iter().map(|step| step.step_id.clone()).collect();
        for step in self.steps.iter_mut().filter(|step| step.step_id.is_empty()) {
            let mut same = stored.iter().filter(|other| other.step_name == step.step_name).map(|other| &other.step_id);
            let kept = same.find(|id| !taken.contains(*id)).cloned();
            step.step_id = kept.unwrap_or_else(|| Uuid::new_v4().to_string());
            taken.insert(step.step_id.clone());
        }
    }

    fn violations(&self, rules: &Rules<'_>) -> Vec<Violation> {
        let mut found = validate::workflow(self, rules.urls, &rules.snippets);
        for (index, step) in self.steps.iter().enumerate() {
            if !is_uuid(&step.step_id) {
                let message = "must be a UUID in lower case, or empty: then the server makes one";
                found.push(violation(&format!("steps[{index}].step_id"), "UUID_INVALID", message));
            }
        }
        found
    }

    travels_as!(Workflow);
}

/// Whether `text` is a UUID written the usual way: lower case, with hyphens.
pub(crate) fn is_uuid(text: &str) -> bool {
    Uuid::try_parse(text).is_ok_and(|uuid| uuid.hyphenated().to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_proto::admin::v1::{ApiKey, LoginPassword, Step};

    #[test]
    fn a_masked_choice_replaces_or_clears_only_itself() {
        let api_key = Connection { scheme: Some(Scheme::ApiKey(ApiKey::default())), ..Default::default() };
        let login = Connection { scheme: Some(Scheme::LoginPassword(LoginPassword::default())), ..Default::default() };
        let mut changed = api_key.clone();
        changed.copy("login_password", &login);
        assert_eq!(changed, login);
        let mut untouched = api_key.clone();
        untouched.copy("login_password", &Connection::default());
        assert_eq!(untouched, api_key);
        let mut cleared = api_key;
        cleared.copy("api_key", &login);
        assert_eq!(cleared.scheme, login.scheme, "the caller sent another choice for the one he named");
    }

    /// A field that the list forgets could never be changed by a mask.
    #[test]
    fn every_field_can_be_changed_or_is_the_servers() {
        use prost_types::FileDescriptorSet;
        let set = FileDescriptorSet::decode(sluice_proto::DESCRIPTORS).unwrap();
        let messages: Vec<_> = set.file.iter().flat_map(|file| &file.message_type).collect();
        let check = |name: &str, mutable: &[&str]| {
            let message = messages.iter().find(|message| message.name() == name).unwrap();
            let servers = ["name", "uid", "etag", "create_time", "update_time", "version", "delete_time", "purge_time"];
            let servers = [
                &servers[..],
                &["published_version", "has_unpublished_changes", "endpoint_id", "endpoint_path", "paused", "sample"],
                &["schema_template_version", "schema_fields", "icon_type"],
            ];
            let servers = servers.concat();
            let fields = message.field.iter().map(|field| field.name());
            let theirs: Vec<&str> = fields.filter(|field| !servers.contains(field)).collect();
            assert_eq!(sorted(theirs), sorted(mutable.to_vec()), "{name}");
        };
        check("Connection", Connection::MUTABLE);
        check("IncomingIntegration", IncomingIntegration::MUTABLE);
        check("OutgoingIntegration", OutgoingIntegration::MUTABLE);
        check("Workflow", Workflow::MUTABLE);
        check("Snippet", Snippet::MUTABLE);
        check("SchemaTemplate", SchemaTemplate::MUTABLE);
        check("EventDefinition", EventDefinition::MUTABLE);
        check("TestProfile", TestProfile::MUTABLE);
    }

    fn sorted(mut fields: Vec<&str>) -> Vec<&str> {
        fields.sort_unstable();
        fields
    }

    #[test]
    fn every_connection_scheme_is_copied() {
        let schemes = [
            ("none", Scheme::None(Default::default())),
            ("login_password", Scheme::LoginPassword(Default::default())),
            ("api_key", Scheme::ApiKey(Default::default())),
            ("token", Scheme::Token(Default::default())),
            ("oauth2_client_credentials", Scheme::Oauth2ClientCredentials(Default::default())),
            ("synerise_api_key", Scheme::SyneriseApiKey(Default::default())),
            ("custom", Scheme::Custom(Default::default())),
            ("sha256", Scheme::Sha256(Default::default())),
            ("standard_webhooks", Scheme::StandardWebhooks(Default::default())),
            ("hmac_signature", Scheme::HmacSignature(Default::default())),
        ];
        for (field, scheme) in schemes {
            let other = Connection { scheme: Some(scheme), ..Default::default() };
            let mut changed = Connection::default();
            changed.copy(field, &other);
            assert_eq!(changed, other, "{field}");
        }
        let other = Connection { allowed_hosts: vec!["a.example".to_owned()], ..Default::default() };
        let mut changed = Connection::default();
        changed.copy("allowed_hosts", &other);
        assert_eq!(changed, other);
    }

    #[test]
    fn an_endpoint_id_never_changes() {
        let mut first = IncomingIntegration::default();
        first.complete(None);
        assert!(is_uuid(&first.endpoint_id));
        let mut second = IncomingIntegration { endpoint_id: "chosen".to_owned(), ..Default::default() };
        second.complete(Some(&first));
        assert_eq!(second.endpoint_id, first.endpoint_id);
        assert!(second.endpoint_path.contains(&first.endpoint_id));
    }

    #[test]
    fn steps_get_ids_and_keep_them() {
        let mut workflow = Workflow { steps: vec![Step::default(), Step::default()], ..Default::default() };
        workflow.complete(None);
        let made: Vec<_> = workflow.steps.iter().map(|step| step.step_id.clone()).collect();
        assert!(made.iter().all(|id| is_uuid(id)) && made[0] != made[1]);
        workflow.complete(None);
        assert_eq!(workflow.steps[0].step_id, made[0]);
        // By name: another order, a new one between them, and one that names the id of another itself.
        let named =
            |name: &str, id: &str| Step { step_name: name.to_owned(), step_id: id.to_owned(), ..Default::default() };
        let stored = Workflow { steps: vec![named("a", &made[0]), named("b", &made[1])], ..Default::default() };
        let mut sent = Workflow { steps: vec![named("b", ""), named("c", ""), named("a", "")], ..Default::default() };
        sent.complete(Some(&stored));
        let ids: Vec<_> = sent.steps.iter().map(|step| &step.step_id).collect();
        assert_eq!((ids[0], ids[2]), (&made[1], &made[0]));
        assert!(is_uuid(ids[1]) && !made.contains(ids[1]));
        let mut sent = Workflow { steps: vec![named("c", &made[0]), named("a", "")], ..Default::default() };
        sent.complete(Some(&stored));
        assert!(is_uuid(&sent.steps[1].step_id) && sent.steps[1].step_id != made[0], "an id is one step's");
        assert!(!is_uuid("67E55044-10B1-426F-9247-BB680E5FE0C8") && !is_uuid("x"));
    }
}
