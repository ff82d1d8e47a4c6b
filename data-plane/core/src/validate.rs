//! Broken rules, all of them at once. A document is checked by parsing it ([`crate::wire`]); this module holds what a broken
//! rule looks like, how they are collected, and the limits that have no better home.

mod forms;

use std::fmt;
use std::sync::Arc;

use sluice_proto::admin::v1 as admin;

use crate::address::UrlPolicy;
use crate::credentials::header_names;
use crate::form::Form;
use crate::lineage::{TRACE_HEADERS, is_trace_header};
use crate::model::{Purpose, RequestTemplate, Scheme, Start, Trigger};
use crate::request::SENT_HEADERS_MAX;
use crate::sample::Seen;
use crate::template::{Context, OnMissing, RootUse, Snippets, Template, TemplateError};
use crate::wire;

use forms::Completeness;
pub use forms::{FORM_VALUES_NOT_TAKEN, unknown_fields, workflow_forms};

/// Longest display name, step name and webhook name, in characters.
pub const NAME_CHARS_MAX: usize = 128;
/// Most triggers of a workflow.
pub const TRIGGERS_MAX: usize = 10;
/// Most steps of a workflow (D01).
pub const STEPS_MAX: usize = 20;
/// Most deliveries that one request or one response event may start (I8): the steps of all published workflows that it may start.
pub const STARTED_MAX: usize = 100;
/// Most headers an author may set on a request.
pub const HEADERS_MAX: usize = 50;
/// Longest template of a header's name or value, an event parameter or a credential placement, in bytes.
pub const SHORT_TEMPLATE_BYTES_MAX: usize = 4 * 1024;
/// Most headers and most URL parameters that a connection places its credentials in.
pub const PLACEMENTS_MAX: usize = 10;
/// Longest secret of a connection, in characters.
pub const SECRET_CHARS_MAX: usize = 4 * 1024;

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field's path from the resource, for example `request.headers[2].value`.
    pub field: String,
    /// Upper-case code, for example `UNKNOWN_FILTER`.
    pub reason: &'static str,
    /// What is wrong and what to do; with the marked line for a template. Never holds a secret.
    pub message: String,
    /// The line in a template, from 1; 0 when there is none.
    pub line: u32,
    /// The column in a template, from 1; 0 when there is none.
    pub column: u32,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Collects violations under a field path that grows and shrinks with the walk through the document.
#[derive(Debug, Default)]
pub struct Check {
    path: Vec<String>,
    found: Vec<Violation>,
    /// What templates may insert.
    snippets: Arc<Snippets>,
}

impl Check {
    /// A check of a document whose templates may insert these.
    pub fn with_snippets(snippets: &Arc<Snippets>) -> Self {
        Self { snippets: snippets.clone(), ..Self::default() }
    }

    /// What templates may insert.
    pub fn snippets(&self) -> &Snippets {
        &self.snippets
    }

    /// Runs `body` with `field` appended to the path.
    pub fn within<T>(&mut self, field: impl Into<String>, body: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(field.into());
        let result = body(self);
        self.path.pop();
        result
    }

    fn field(&self, field: &str) -> String {
        let mut path = self.path.join(".");
        if !field.is_empty() {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(field);
        }
        path
    }

    /// Records a broken rule of `field` (empty: the field the walk stands at).
    pub fn fail(&mut self, field: &str, reason: &'static str, message: impl Into<String>) {
        let field = self.field(field);
        self.found.push(Violation { field, reason, message: message.into(), line: 0, column: 0 });
    }

    /// Records the errors of a template.
    pub fn fail_template(&mut self, field: &str, errors: &[TemplateError]) {
        for error in errors {
            let (line, column) = (error.line, error.column);
            let message = format!("{} (line {line}, column {column})\n{}", error.message, error.excerpt);
            let field = self.field(field);
            self.found.push(Violation { field, reason: error.code.reason(), message, line, column });
        }
    }

    /// Requires that `template` takes from a form only what it has.
    pub fn known_fields(&mut self, field: &str, template: &Template, form: Option<&Form>) {
        for used in template.context_fields() {
            let id = &used.name;
            let why = match form {
                Some(form) if form.field(id).is_some() => continue,
                Some(_) => format!("the schema template has no field `{id}`"),
                None => format!("`context.{id}`: there is no form here to fill in"),
            };
            self.fail_use(field, "UNKNOWN_FORM_FIELD", &why, &used);
        }
    }

    /// Records what is wrong with a name that the template of `field` uses.
    fn fail_use(&mut self, field: &str, reason: &'static str, why: &str, used: &RootUse) {
        let (line, column) = (used.line, used.column);
        let message = format!("{why} (line {line}, column {column})\n{}", used.excerpt);
        let field = self.field(field);
        self.found.push(Violation { field, reason, message, line, column });
    }

    /// Requires between 1 and `max` characters and no control characters.
    pub fn name(&mut self, field: &str, text: &str, max: usize) {
        let chars = text.chars().count();
        if chars == 0 {
            self.fail(field, "REQUIRED", "is required");
        } else if chars > max {
            self.fail(field, "TOO_LONG", format!("has {chars} characters; the limit is {max}"));
        }
        if text.chars().any(char::is_control) {
            self.fail(field, "CONTROL_CHARACTER", "must not hold control characters");
        }
    }

    /// Requires at most `max` items.
    pub fn count(&mut self, field: &str, count: usize, max: usize) {
        if count > max {
            self.fail(field, "TOO_MANY", format!("has {count} items; the limit is {max}"));
        }
    }

    /// Requires `value` within `min..=max`.
    pub fn range(&mut self, field: &str, value: i64, min: i64, max: i64, unit: &str) {
        if !(min..=max).contains(&value) {
            self.fail(field, "OUT_OF_RANGE", format!("is {value}{unit}; it must be {min} to {max}{unit}"));
        }
    }

    /// The value if nothing was found, else everything that was found.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Vec<Violation>> {
        match value {
            Some(value) if self.found.is_empty() => Ok(value),
            _ => Err(self.found),
        }
    }

    /// How many violations were found so far.
    pub fn found(&self) -> usize {
        self.found.len()
    }
}

/// Checks the last segment of a name as chosen by a caller: `[a-z][a-z0-9-]{2,62}` (AIP-122).
pub fn resource_id(id: &str) -> Result<(), String> {
    let bytes = id.as_bytes();
    let well_formed = (3..=63).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    if well_formed {
        Ok(())
    } else {
        Err("must be 3 to 63 lower-case letters, digits and hyphens, and start with a letter".to_owned())
    }
}

/// Broken rules of a workspace.
pub fn workspace(workspace: &admin::Workspace) -> Vec<Violation> {
    let mut check = Check::default();
    check.name("display_name", &workspace.display_name, NAME_CHARS_MAX);
    check.found
}

/// Broken rules of a connection.
pub fn connection(connection: &admin::Connection, urls: &UrlPolicy) -> Vec<Violation> {
    wire::connection(connection, urls).err().unwrap_or_default()
}

/// Broken rules of an incoming integration.
pub fn incoming_integration(incoming: &admin::IncomingIntegration) -> Vec<Violation> {
    wire::incoming(incoming).err().unwrap_or_default()
}

/// Broken rules of an outgoing integration.
pub fn outgoing_integration(
    outgoing: &admin::OutgoingIntegration,
    urls: &UrlPolicy,
    snippets: &Arc<Snippets>,
) -> Vec<Violation> {
    wire::outgoing_with(outgoing, urls, snippets).err().unwrap_or_default()
}

/// Broken rules of a workflow by itself; what it refers to is checked by who can look it up.
pub fn workflow(workflow: &admin::Workflow, urls: &UrlPolicy, snippets: &Arc<Snippets>) -> Vec<Violation> {
    wire::workflow_with(workflow, urls, snippets).err().unwrap_or_default()
}

/// Broken rules of a snippet, whose own id this is, with those it names.
pub fn snippet(snippet: &admin::Snippet, id: &str, snippets: &Arc<Snippets>) -> Vec<Violation> {
    wire::snippet(snippet, id, snippets).err().unwrap_or_default()
}

/// Broken rules of a schema template.
pub fn schema_template(template: &admin::SchemaTemplate) -> Vec<Violation> {
    wire::schema_template(template).err().unwrap_or_default()
}

/// Broken rules of an event definition.
pub fn event_definition(definition: &admin::EventDefinition) -> Vec<Violation> {
    wire::event_definition(definition).err().unwrap_or_default()
}

/// Broken rules of a test profile.
pub fn test_profile(profile: &admin::TestProfile) -> Vec<Violation> {
    wire::test_profile(profile).err().unwrap_or_default()
}

/// What a document uses, by name, as it is in force.
pub trait InForce {
    /// A published outgoing integration.
    fn outgoing(&self, name: &str) -> Option<&admin::OutgoingIntegration>;
    /// A published incoming integration.
    fn incoming(&self, name: &str) -> Option<&admin::IncomingIntegration>;
    /// A connection. Its secrets need not be there.
    fn connection(&self, name: &str) -> Option<&admin::Connection>;
    /// The snippets that templates among them name, however far around.
    fn snippets(&self) -> &Arc<Snippets>;
}

/// The reasons of rules that a request keeps together with its connections.
pub const CONNECTION_REASONS: [&str; 3] = [PURPOSE, HOST, HEADERS];
const NOT_SEEN: &str = "NOT_SEEN";
const PURPOSE: &str = "CONNECTION_PURPOSE";
const HOST: &str = "HOST_NOT_ALLOWED";
/// The reason of a request that would have more headers than are sent.
pub const HEADERS: &str = "HEADERS_TOO_MANY";

/// Rules a workflow must keep together with what it uses: if one of its triggers gives no customer, none of its templates may use
/// `customer` (R080); and its own requests fit their connections. What it breaks by itself is not repeated.
pub fn workflow_publish(workflow: &admin::Workflow, urls: &UrlPolicy, in_force: &impl InForce) -> Vec<Violation> {
    let Ok(parsed) = wire::workflow_with(workflow, urls, in_force.snippets()) else { return Vec::new() };
    let mut check = Check::default();
    for (index, (trigger, wire)) in parsed.triggers.iter().zip(&workflow.triggers).enumerate() {
        if !wire.allow_unseen {
            check.within(format!("triggers[{index}]"), |check| check_seen(check, trigger, in_force));
        }
    }
    let without = parsed.triggers.iter().enumerate().find_map(|(index, trigger)| {
        let why = trigger.start.no_customer()?;
        Some(format!("`triggers[{index}]` gives no customer: {why}"))
    });
    for (index, step) in parsed.steps.iter().enumerate() {
        check.within(format!("steps[{index}]"), |check| match &step.action {
            crate::model::Action::Custom(request) => check.within("custom_webhook", |check| {
                refuse_customer(check, without.as_deref(), request, "");
                check_connections(check, request, urls, in_force);
            }),
            crate::model::Action::Outgoing(name) => {
                let found = in_force
                    .outgoing(name)
                    .and_then(|proto| wire::outgoing_with(proto, urls, in_force.snippets()).ok());
                for (id, value) in &step.form_values {
                    refuse_customer_in(check, without.as_deref(), &format!("form_values[{id}]"), value, "");
                }
                if let Some(found) = found {
                    forms::check_values(check, step, found.form.as_ref(), Completeness::Whole);
                    check.within("outgoing_integration", |check| {
                        refuse_customer(check, without.as_deref(), &found.request, name)
                    });
                }
            }
        });
    }
    check.found
}

/// Rules an outgoing integration must keep together with its connections. What it breaks by itself is not repeated.
pub fn outgoing_publish(
    outgoing: &admin::OutgoingIntegration,
    urls: &UrlPolicy,
    in_force: &impl InForce,
) -> Vec<Violation> {
    let Ok(parsed) = wire::outgoing_with(outgoing, urls, in_force.snippets()) else { return Vec::new() };
    let mut check = Check::default();
    check.within("request", |check| check_connections(check, &parsed.request, urls, in_force));
    check.found
}

/// The rule between a field that names a connection, `….connection` or `….signature`, and the connection: the one
/// authenticates, the other signs (R027).
pub fn connection_purpose(field: &str, connection: &admin::Connection, urls: &UrlPolicy) -> Vec<Violation> {
    let wanted = if field.ends_with("signature") { Purpose::Signs } else { Purpose::Authenticates };
    let mut check = Check::default();
    if let Ok(parsed) = wire::connection(connection, urls) {
        check_purpose(&mut check, field, wanted, &parsed.scheme);
    }
    check.found
}

fn check_purpose(check: &mut Check, field: &str, wanted: Purpose, scheme: &Scheme) {
    let message = match (wanted, scheme.purpose()) {
        (Purpose::Authenticates, Purpose::Authenticates) | (Purpose::Signs, Purpose::Signs) => return,
        (Purpose::Authenticates, Purpose::Signs) => "this connection signs requests: name it in `signature`",
        (Purpose::Signs, Purpose::Authenticates) => {
            "this connection authenticates requests and does not sign them: name it in `connection`"
        }
    };
    check.fail(field, PURPOSE, message);
}

/// A connection is named for what it does (R027), its secrets go to no other hosts than its own, and there is room for its headers.
fn check_connections(
    check: &mut Check,
    request: &crate::model::OutgoingRequest,
    urls: &UrlPolicy,
    in_force: &impl InForce,
) {
    let host = request.template.published_url.host();
    let mut added = Vec::new();
    for (field, name, wanted) in request.connections() {
        let parsed = in_force.connection(name).and_then(|proto| wire::connection(proto, urls).ok());
        let Some(connection) = parsed else { continue };
        check_purpose(check, field, wanted, &connection.scheme);
        if !connection.allowed_hosts.allow(host) {
            let message = format!("requests with `{name}` may not go to `{host}`: it is not among its allowed_hosts");
            check.fail(field, HOST, message);
        }
        let names = header_names(&connection.scheme).into_iter().map(str::to_ascii_lowercase);
        added.push((name, names.collect::<Vec<_>>()));
    }
    check_sent_headers(check, &request.template, &added);
}

/// The author's headers, those of `connections`, and Sluice's own are together no more than are sent (O08): what a connection sets
/// takes the place of others of its name.
fn check_sent_headers(check: &mut Check, template: &RequestTemplate, connections: &[(&str, Vec<String>)]) {
    let name = |(name, _): &(Template, Template)| {
        let text = name.is_static().then(|| name.render(&Context::new(), OnMissing::Empty).ok()).flatten();
        text.map(|rendered| rendered.text.to_ascii_lowercase())
    };
    // `None` is only known when it is rendered.
    let mut names: Vec<Option<String>> = template.headers.iter().map(name).collect();
    let own = names.len();
    names.extend(template.default_json_type.then(|| Some("content-type".to_owned())));
    names.push(Some("idempotency-key".to_owned()));
    let traced = names.iter().flatten().any(|name| is_trace_header(name));
    names.extend((!traced).then(|| TRACE_HEADERS.map(|name| Some(name.to_owned()))).into_iter().flatten());
    let of_sluice = names.len() - own;
    let mut parts = vec![format!("{own} of its own"), format!("{of_sluice} of Sluice")];
    for (connection, added) in connections {
        names.retain(|name| name.as_ref().is_none_or(|name| !added.contains(name)));
        names.extend(added.iter().cloned().map(Some));
        parts.push(format!("{} of `{connection}`", added.len()));
    }
    if names.len() > SENT_HEADERS_MAX {
        let (all, over) = (names.len(), names.len() - SENT_HEADERS_MAX);
        let message = format!(
            "the request would be sent with {all} headers ({}); the limit is {SENT_HEADERS_MAX}: remove {over} of them",
            parts.join(", ")
        );
        check.fail("headers", HEADERS, message);
    }
}

/// What a filter looks at is chosen from the confirmed sample of its integration, if there is one (R168).
fn check_seen(check: &mut Check, trigger: &Trigger, in_force: &impl InForce) {
    let (Start::Incoming(name), Some(filter)) = (&trigger.start, &trigger.filter) else { return };
    let Some(sample) = in_force.incoming(name).and_then(|incoming| incoming.sample.as_ref()) else { return };
    for path in Seen::of(sample).unseen(filter) {
        let message = format!(
            "`{path}` is not in the confirmed sample of `{name}`: capture a request that has it, or set `allow_unseen` (R168)"
        );
        check.fail("filter", NOT_SEEN, message);
    }
}

/// `why` there is no customer, if there may be none.
fn refuse_customer(check: &mut Check, why: Option<&str>, request: &crate::model::OutgoingRequest, resource: &str) {
    for (field, template) in request.templates() {
        let place = if resource.is_empty() { String::new() } else { format!(" in field `{field}` of {resource}") };
        refuse_customer_in(check, why, if resource.is_empty() { &field } else { "" }, template, &place);
    }
}

fn refuse_customer_in(check: &mut Check, why: Option<&str>, field: &str, template: &Template, place: &str) {
    let Some(why) = why else { return };
    for root in template.roots().iter().filter(|root| root.name == "customer") {
        let why = format!("`customer` cannot be used in this workflow{place}: {why}");
        check.fail_use(field, "CUSTOMER_NOT_AVAILABLE", &why, root);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for good in ["abc", "a-1", "orders-2024", &"a".repeat(63)] {
            assert!(resource_id(good).is_ok(), "{good}");
        }
        for bad in ["", "ab", "1abc", "-abc", "Abc", "a_b", "a b", &"a".repeat(64), "ä-abc"] {
            assert!(resource_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_broken_rule_is_reported_with_its_path() {
        let mut check = Check::default();
        check.within("request", |check| {
            check.name("webhook_name", "", 5);
            check.within("headers[1]", |check| check.name("name", "abcdef", 5));
            check.range("timeout", 0, 1, 120, " s");
        });
        let found = check.finish(Some(())).unwrap_err();
        let fields: Vec<&str> = found.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["request.webhook_name", "request.headers[1].name", "request.timeout"]);
    }
}
