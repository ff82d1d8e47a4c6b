//! Which method an HTTP request means, by the paths that the contract gives its methods (`google.api.http`, AIP-127), and how path,
//! query and body become one message. Hides the language of those paths and percent-encoding.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Range;

use bytes::Bytes;
use http::Method as Verb;
use percent_encoding::percent_decode_str;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};
use serde_json::{Value, json};
use url::form_urlencoded;

/// The option of the contract's methods that names their paths.
const OPTION: &str = "google.api.http";
/// The HTTP methods of paths, as the option calls them.
const VERBS: [(&str, Verb); 5] =
    [("get", Verb::GET), ("put", Verb::PUT), ("post", Verb::POST), ("delete", Verb::DELETE), ("patch", Verb::PATCH)];

/// Every path of the contract.
#[derive(Debug)]
pub(crate) struct Paths(Vec<Route>);

/// One path of a method.
#[derive(Debug)]
pub(crate) struct Route {
    /// The gRPC path of the method.
    pub(crate) method: String,
    verb: Verb,
    template: Template,
    input: MessageDescriptor,
    body: Content,
}

/// What of a request its body holds.
#[derive(Debug)]
enum Content {
    /// Nothing: what the path does not say comes after `?`.
    Nothing,
    /// All that the path does not say.
    All,
    /// One field, a message.
    Field(FieldDescriptor),
}

/// A path with places in it: `/v1/{name=workspaces/*/connections/*}:undelete`.
#[derive(Debug)]
struct Template {
    segments: Vec<Segment>,
    /// Fields of the request, from the outside, and the segments that they are.
    bound: Vec<(Vec<FieldDescriptor>, Range<usize>)>,
    /// What comes after `:`; empty when nothing does.
    action: String,
}

#[derive(Debug, PartialEq)]
enum Segment {
    Literal(String),
    /// `*`
    One,
    /// `**`, the last one.
    Rest,
}

/// What a path leads to.
pub(crate) enum Found<'a> {
    /// A method, and what the path says of its request.
    Route(&'a Route, Vec<String>),
    /// Methods that are called otherwise: the value of `Allow`.
    Otherwise(String),
    Nowhere,
}

impl Paths {
    pub(crate) fn new(contract: &DescriptorPool) -> Self {
        let methods = contract.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        Self(methods.flat_map(|method| routes(contract, &method)).collect())
    }

    /// Where a request goes; `path` is without its query.
    pub(crate) fn find(&self, verb: &Verb, path: &str) -> Found<'_> {
        let asked = split(path);
        let matching = || self.0.iter().filter(|route| route.template.matches(&asked));
        if let Some(route) = matching().find(|route| route.verb == *verb) {
            return Found::Route(route, route.template.values(&asked.0));
        }
        let verbs: BTreeSet<&str> = matching().map(|route| route.verb.as_str()).collect();
        if verbs.is_empty() {
            return Found::Nowhere;
        }
        Found::Otherwise(verbs.into_iter().collect::<Vec<_>>().join(", "))
    }
}

fn routes(contract: &DescriptorPool, method: &MethodDescriptor) -> Vec<Route> {
    let Some(option) = contract.get_extension_by_name(OPTION) else { return Vec::new() };
    let options = method.options();
    if !options.has_extension(&option) {
        return Vec::new();
    }
    let rule = options.get_extension(&option);
    let Some(rule) = rule.as_message() else { return Vec::new() };
    let more = rule.get_field_by_name("additional_bindings");
    let more = more.as_ref().and_then(|more| more.as_list()).unwrap_or_default();
    let rules = std::iter::once(rule).chain(more.iter().filter_map(|one| one.as_message()));
    rules.filter_map(|rule| Route::of(method, rule)).collect()
}

impl Route {
    fn of(method: &MethodDescriptor, rule: &DynamicMessage) -> Option<Self> {
        let text = |field: &str| Some(rule.get_field_by_name(field)?.as_str()?.to_owned());
        let (verb, path) = VERBS.iter().find_map(|(field, verb)| {
            let path = text(field).filter(|path| !path.is_empty())?;
            Some((verb.clone(), path))
        })?;
        let input = method.input();
        let body = match text("body")?.as_str() {
            "" => Content::Nothing,
            "*" => Content::All,
            field => {
                let field = input.get_field_by_name(field)?;
                field.kind().as_message()?;
                Content::Field(field)
            }
        };
        let template = Template::parse(&path, &input)?;
        let method = format!("/{}/{}", method.parent_service().full_name(), method.name());
        Some(Self { method, verb, template, input, body })
    }

    /// The request that path, query and body make together, encoded.
    ///
    /// # Errors
    /// One of them is not what the method takes; the text says which and why, and nothing of what was sent but names.
    pub(crate) fn request(&self, said: &[String], query: &str, body: &[u8]) -> Result<Bytes, String> {
        let mut encoded = self.read_body(said, body)?;
        let mut before = BTreeSet::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let path = self.parameter(&name)?;
            let repeats = path.last().is_some_and(FieldDescriptor::is_list);
            if !before.insert(joined(&path)) && !repeats {
                return Err(format!("the query parameter `{name}` is there twice"));
            }
            let read = put(&self.input, &path, &value);
            encoded.extend(read.ok_or_else(|| format!("the query parameter `{name}` has no value of its kind"))?);
        }
        for ((path, _), value) in self.template.bound.iter().zip(said) {
            encoded.extend(put(&self.input, path, value).unwrap_or_default());
        }
        // Encoded messages one after the other are one message.
        Ok(encoded.into())
    }

    fn read_body(&self, said: &[String], body: &[u8]) -> Result<Vec<u8>, String> {
        let (kind, within) = match &self.body {
            Content::Nothing if body.trim_ascii().is_empty() => return Ok(Vec::new()),
            Content::Nothing => return Err("the method takes no body: what it needs comes after `?`".to_owned()),
            Content::All => (self.input.clone(), None),
            Content::Field(field) => match field.kind() {
                Kind::Message(kind) => (kind, Some(field)),
                _ => return Err("the method takes no body".to_owned()),
            },
        };
        let message = read_json(&kind, body)?;
        for ((path, _), value) in self.template.bound.iter().zip(said) {
            let inside = match within {
                None => Some(path.as_slice()),
                Some(field) => path.split_first().filter(|(first, _)| *first == field).map(|(_, rest)| rest),
            };
            let there = inside.map(|path| text_at(&message, path)).unwrap_or_default();
            if !there.is_empty() && there != *value {
                return Err(format!("`{}` of the body is not what the path says", joined(path)));
            }
        }
        let Some(field) = within else { return Ok(message.encode_to_vec()) };
        let mut request = DynamicMessage::new(self.input.clone());
        request.set_field(field, prost_reflect::Value::Message(message));
        Ok(request.encode_to_vec())
    }

    /// The field that a query parameter is: `filter.workflow`, its parts written as in the contract or as in JSON.
    fn parameter(&self, name: &str) -> Result<Vec<FieldDescriptor>, String> {
        let unknown = || format!("there is no query parameter `{name}` here");
        let mut kind = Some(self.input.clone());
        let mut path = Vec::new();
        for part in name.split('.') {
            let inside = kind.take().ok_or_else(unknown)?;
            let field = inside.get_field_by_name(part).or_else(|| inside.get_field_by_json_name(part));
            let field = field.filter(|field| !field.is_map()).ok_or_else(unknown)?;
            kind = field.kind().as_message().filter(|_| !field.is_list()).filter(|kind| !is_plain(kind)).cloned();
            path.push(field);
        }
        // A message as a whole is no text.
        if path.last().is_some_and(|last| last.kind().as_message().is_some_and(|kind| !is_plain(kind))) {
            return Err(unknown());
        }
        if self.template.bound.iter().any(|(bound, _)| *bound == path) {
            return Err(format!("`{name}` stands in the path and is no query parameter"));
        }
        match &self.body {
            Content::All => Err(format!("`{name}` comes in the body: the method takes no query parameters")),
            Content::Field(field) if path.first() == Some(field) => Err(format!("`{name}` comes in the body")),
            Content::Field(_) | Content::Nothing => Ok(path),
        }
    }
}

impl Template {
    fn parse(path: &str, input: &MessageDescriptor) -> Option<Self> {
        let rest = path.strip_prefix('/')?;
        // Inside of `{}` there is no action.
        let (rest, action) = match rest.rsplit_once(':').filter(|(_, action)| !action.contains(['}', '/'])) {
            Some((rest, action)) => (rest, action),
            None => (rest, ""),
        };
        let mut template = Self { segments: Vec::new(), bound: Vec::new(), action: action.to_owned() };
        let mut rest = rest;
        while !rest.is_empty() {
            if let Some(variable) = rest.strip_prefix('{') {
                let (variable, after) = variable.split_once('}')?;
                let (field, pattern) = variable.split_once('=').unwrap_or((variable, "*"));
                let start = template.segments.len();
                template.segments.extend(pattern.split('/').map(Segment::of));
                template.bound.push((fields(input, field)?, start..template.segments.len()));
                rest = after;
            } else {
                let (segment, _) = rest.split_once('/').unwrap_or((rest, ""));
                template.segments.push(Segment::of(segment));
                rest = rest.strip_prefix(segment)?;
            }
            rest = rest.strip_prefix('/').unwrap_or(rest);
        }
        Some(template)
    }

    fn matches(&self, (segments, action): &(Vec<&str>, &str)) -> bool {
        let fixed = match self.segments.split_last() {
            Some((Segment::Rest, fixed)) if segments.len() >= fixed.len() => fixed,
            _ if segments.len() == self.segments.len() => &self.segments,
            _ => return false,
        };
        self.action == *action && fixed.iter().zip(segments).all(|(segment, given)| segment.matches(given))
    }

    /// What the fields are that the path says.
    fn values(&self, segments: &[&str]) -> Vec<String> {
        let value = |range: &Range<usize>| {
            let end = if self.segments.get(range.end - 1) == Some(&Segment::Rest) { segments.len() } else { range.end };
            let given = segments.get(range.start..end).unwrap_or_default();
            given.iter().map(|segment| decoded(segment)).collect::<Vec<_>>().join("/")
        };
        self.bound.iter().map(|(_, range)| value(range)).collect()
    }
}

impl Segment {
    fn of(text: &str) -> Self {
        match text {
            "*" => Self::One,
            "**" => Self::Rest,
            literal => Self::Literal(literal.to_owned()),
        }
    }

    fn matches(&self, given: &str) -> bool {
        match self {
            Self::Literal(literal) => decoded(given) == *literal,
            Self::One => !given.is_empty(),
            Self::Rest => true,
        }
    }
}

/// The segments of a path and what comes after the `:` of the last one. A colon of a name is written `%3A`.
fn split(path: &str) -> (Vec<&str>, &str) {
    let path = path.strip_prefix('/').unwrap_or(path);
    let start_of_last = path.rfind('/').map_or(0, |at| at + 1);
    let (path, action) = match path.rfind(':').filter(|at| *at >= start_of_last) {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (path, ""),
    };
    (path.split('/').collect(), action)
}

/// A segment without percent-encoding; one that would become several, or no text, stays as it is.
fn decoded(segment: &str) -> String {
    let text = percent_decode_str(segment).decode_utf8().ok().filter(|text| !text.contains('/'));
    text.map_or_else(|| segment.to_owned(), |text| text.into_owned())
}

fn fields(message: &MessageDescriptor, path: &str) -> Option<Vec<FieldDescriptor>> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let field = message.get_field_by_name(first)?;
    let deeper = match rest {
        Some(rest) => fields(field.kind().as_message()?, rest)?,
        None => Vec::new(),
    };
    Some(std::iter::once(field).chain(deeper).collect())
}

fn joined(path: &[FieldDescriptor]) -> String {
    path.iter().map(FieldDescriptor::name).collect::<Vec<_>>().join(".")
}

fn text_at(message: &DynamicMessage, path: &[FieldDescriptor]) -> String {
    let Some((first, rest)) = path.split_first() else { return String::new() };
    let value = message.get_field(first);
    match value.as_message() {
        Some(inner) => text_at(inner, rest),
        None => value.as_str().unwrap_or_default().to_owned(),
    }
}

/// A message of the standard library that JSON writes as one text: a time, a duration, a mask of fields.
fn is_plain(message: &MessageDescriptor) -> bool {
    message.package_name() == "google.protobuf"
}

/// A message with nothing in it but this, encoded; `None` when the text is no value of the field.
fn put(message: &MessageDescriptor, path: &[FieldDescriptor], text: &str) -> Option<Vec<u8>> {
    let last = path.last()?;
    let value = match last.kind() {
        Kind::Bool => Value::Bool(text.parse().ok()?),
        Kind::Message(kind) if kind.name() == "FieldMask" => camel(text).into(),
        _ => text.into(),
    };
    let value = if last.is_list() { json!([value]) } else { value };
    let tree = path.iter().rev().fold(value, |value, field| json!({ field.json_name(): value }));
    DynamicMessage::deserialize(message.clone(), tree).ok().map(|message| message.encode_to_vec())
}

/// The paths of a mask as JSON writes them.
fn camel(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    let mut upper = false;
    for character in text.chars() {
        match character {
            '_' => upper = true,
            _ if std::mem::take(&mut upper) => written.push(character.to_ascii_uppercase()),
            _ => written.push(character),
        }
    }
    if upper {
        let _ = written.write_char('_');
    }
    written
}

/// A message in the canonical JSON form.
///
/// # Errors
/// It is not one; the text says where, and nothing of what was sent.
pub(crate) fn read_json(kind: &MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, String> {
    let text: &[u8] = if text.trim_ascii().is_empty() { b"{}" } else { text };
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = DynamicMessage::deserialize(kind.clone(), &mut reader).and_then(|message| {
        reader.end()?;
        Ok(message)
    });
    read.map_err(|error| {
        let (line, column, name) = (error.line(), error.column(), kind.full_name());
        format!("the body is not the JSON form of a {name}: line {line}, column {column}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::CONTRACT;

    fn paths() -> Paths {
        Paths::new(&CONTRACT)
    }

    fn found(verb: &Verb, path: &str) -> Result<(String, Vec<String>), String> {
        match paths().find(verb, path) {
            Found::Route(route, said) => Ok((route.method.rsplit('/').next().unwrap().to_owned(), said)),
            Found::Otherwise(allow) => Err(allow),
            Found::Nowhere => Err(String::new()),
        }
    }

    #[test]
    fn a_path_leads_to_its_method() {
        let to =
            |method: &str, said: &[&str]| Ok((method.to_owned(), said.iter().map(|&one| one.to_owned()).collect()));
        let no = |allow: &str| Err(allow.to_owned());
        let crm = "workspaces/acme/connections/crm";
        for (verb, path, expected) in [
            (Verb::GET, "/v1/workspaces", to("ListWorkspaces", &[])),
            (Verb::GET, "/v1/workspaces/acme/connections/crm", to("GetConnection", &[crm])),
            (Verb::PATCH, "/v1/workspaces/acme/connections/crm", to("UpdateConnection", &[crm])),
            (Verb::POST, "/v1/workspaces/acme/connections/crm:undelete", to("UndeleteConnection", &[crm])),
            (Verb::GET, "/v1/%77orkspaces/acme/connections/c%72m", to("GetConnection", &[crm])),
            (
                Verb::GET,
                "/v1/workspaces/acme/connections/a%3Ab",
                to("GetConnection", &["workspaces/acme/connections/a:b"]),
            ),
            // What would be another segment is none.
            (Verb::GET, "/v1/workspaces/a%2Fb", to("GetWorkspace", &["workspaces/a%2Fb"])),
            (Verb::GET, "/v1/workspaces/%ff", to("GetWorkspace", &["workspaces/%ff"])),
            (Verb::GET, "/v1/workspaces/acme/events:watch", to("WatchEvents", &["workspaces/acme"])),
            (Verb::PUT, "/v1/workspaces/acme/connections/crm", no("DELETE, GET, PATCH")),
            (Verb::GET, "/v1/workspaces/acme/connections/crm:undelete", no("POST")),
            (Verb::OPTIONS, "/v1/workspaces", no("GET, POST")),
            (Verb::GET, "/v1/workspaces/", no("")),
            (Verb::GET, "/v1/workspaces//connections/crm", no("")),
            (Verb::GET, "/v1/workspaces/acme/connections/crm:drop", no("")),
            (Verb::GET, "/v1/workspaces/acme:", to("GetWorkspace", &["workspaces/acme"])),
            (Verb::GET, "/v1/nothing", no("")),
            (Verb::GET, "/v2/workspaces", no("")),
            (Verb::GET, "", no("")),
        ] {
            assert_eq!(found(&verb, path), expected, "{verb} {path}");
        }
    }

    #[test]
    fn two_stars_are_all_that_is_left() {
        let input = CONTRACT.get_message_by_name("sluice.admin.v1.GetWorkspaceRequest").unwrap();
        let template = Template::parse("/v1/{name=files/**}:read", &input).unwrap();
        for (path, expected) in [
            ("/v1/files/a/b/c:read", Some("files/a/b/c")),
            ("/v1/files/a:read", Some("files/a")),
            ("/v1/files:read", Some("files")),
            ("/v1/files/a", None),
            ("/v1/other/a:read", None),
        ] {
            let asked = split(path);
            let found = template.matches(&asked).then(|| template.values(&asked.0));
            assert_eq!(found, expected.map(|one| vec![one.to_owned()]), "{path}");
        }
    }

    fn request(verb: &Verb, path: &str, query: &str, body: &str) -> Result<Value, String> {
        let paths = paths();
        let Found::Route(route, said) = paths.find(verb, path) else { panic!("{path} leads nowhere") };
        let bytes = route.request(&said, query, body.as_bytes())?;
        Ok(serde_json::to_value(DynamicMessage::decode(route.input.clone(), bytes).unwrap()).unwrap())
    }

    #[test]
    fn path_query_and_body_make_one_request() {
        let list = "/v1/workspaces/acme/deliveries";
        let crm = "/v1/workspaces/acme/connections/crm";
        let ok = [
            (
                Verb::GET,
                list,
                "page_size=7&filter.workflow=workspaces%2Facme%2Fworkflows%2Ff&filter.states=DEAD&filter.states=WAITING",
                "",
                json!({"parent": "workspaces/acme", "pageSize": 7,
                    "filter": {"workflow": "workspaces/acme/workflows/f", "states": ["DEAD", "WAITING"]}}),
            ),
            (Verb::GET, list, "pageSize=7", "", json!({"parent": "workspaces/acme", "pageSize": 7})),
            (
                Verb::PATCH,
                crm,
                "update_mask=display_name,hosts&validateOnly=true",
                r#"{"display_name": "CRM"}"#,
                json!({"connection": {"name": "workspaces/acme/connections/crm", "displayName": "CRM"},
                    "updateMask": "displayName,hosts", "validateOnly": true}),
            ),
            (
                Verb::POST,
                "/v1/workspaces/acme/connections",
                "connectionId=crm",
                r#"{"displayName": "CRM"}"#,
                json!({"parent": "workspaces/acme", "connectionId": "crm", "connection": {"displayName": "CRM"}}),
            ),
            (
                Verb::POST,
                "/v1/workspaces/acme/connections/crm:undelete",
                "",
                r#"{"etag": "x", "name": "workspaces/acme/connections/crm"}"#,
                json!({"name": "workspaces/acme/connections/crm", "etag": "x"}),
            ),
            (
                Verb::GET,
                "/v1/workspaces/acme:waitServed",
                "revision=12345678901&timeout=2s",
                "",
                json!({"parent": "workspaces/acme", "revision": "12345678901", "timeout": "2s"}),
            ),
        ];
        for (verb, path, query, body, expected) in ok {
            assert_eq!(request(&verb, path, query, body), Ok(expected), "{verb} {path}?{query}");
        }
        let refused = [
            (Verb::GET, list, "page=7", "", "there is no query parameter `page` here"),
            (Verb::GET, list, "filter=x", "", "there is no query parameter `filter` here"),
            (Verb::GET, list, "filter.workflow.x=x", "", "there is no query parameter `filter.workflow.x` here"),
            (Verb::GET, list, "page_size=CANARY", "", "the query parameter `page_size` has no value of its kind"),
            (
                Verb::GET,
                list,
                "filter.states=CANARY",
                "",
                "the query parameter `filter.states` has no value of its kind",
            ),
            (Verb::GET, list, "page_size=1&pageSize=2", "", "the query parameter `pageSize` is there twice"),
            (Verb::GET, list, "parent=workspaces/x", "", "`parent` stands in the path and is no query parameter"),
            (Verb::GET, list, "", "{}", "the method takes no body: what it needs comes after `?`"),
            (Verb::PATCH, crm, "connection.display_name=x", "{}", "`connection.display_name` comes in the body"),
            (
                Verb::PATCH,
                crm,
                "",
                r#"{"name": "workspaces/other/connections/crm"}"#,
                "`connection.name` of the body is not what the path says",
            ),
            (
                Verb::POST,
                "/v1/workspaces/acme/connections/crm:undelete",
                "etag=x",
                "",
                "`etag` comes in the body: the method takes no query parameters",
            ),
            (
                Verb::POST,
                "/v1/workspaces/acme/connections",
                "",
                r#"{"CANARY": 1}"#,
                "the body is not the JSON form of a sluice.admin.v1.Connection: line 1, column 9",
            ),
        ];
        for (verb, path, query, body, expected) in refused {
            assert_eq!(request(&verb, path, query, body), Err(expected.to_owned()), "{verb} {path}?{query}");
        }
    }

    /// Methods without a path: only data planes call them.
    const WITHOUT: [&str; 4] = [
        "/sluice.sync.v1.EnrollmentService/EnrollDataPlane",
        "/sluice.sync.v1.EnrollmentService/RenewDataPlane",
        "/sluice.sync.v1.SyncService/Report",
        "/sluice.sync.v1.SyncService/Sync",
    ];

    #[test]
    fn every_method_has_a_path_and_no_two_have_the_same() {
        let paths = paths();
        let mut rules = 0;
        let option = CONTRACT.get_extension_by_name(OPTION).unwrap();
        for method in CONTRACT.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let name = format!("/{}/{}", method.parent_service().full_name(), method.name());
            let has = paths.0.iter().any(|route| route.method == name);
            assert_eq!(has, !WITHOUT.contains(&name.as_str()), "{name} has a path");
            let rule = method.options().get_extension(&option).into_owned();
            let more = rule.as_message().unwrap().get_field_by_name("additional_bindings").unwrap().into_owned();
            rules += usize::from(has) + more.as_list().map_or(0, <[_]>::len);
        }
        assert_eq!(paths.0.len(), rules, "every rule of the contract can be read");
        for (at, one) in paths.0.iter().enumerate() {
            for other in paths.0[..at].iter().filter(|other| other.verb == one.verb) {
                let (a, b) = (&one.template, &other.template);
                let meet = |(a, b): (&Segment, &Segment)| !matches!((a, b), (Segment::Literal(a), Segment::Literal(b)) if a != b);
                let same = a.action == b.action
                    && a.segments.len() == b.segments.len()
                    && a.segments.iter().zip(&b.segments).all(meet);
                assert!(!same, "{} and {} can have the same path", one.method, other.method);
            }
        }
    }

    #[test]
    fn every_path_written_out_leads_to_its_method_and_says_its_fields() {
        let paths = paths();
        for (at, route) in paths.0.iter().enumerate() {
            let written = |one: &Segment| match one {
                Segment::Literal(literal) => literal.clone(),
                Segment::One | Segment::Rest => format!("x-{at}"),
            };
            let segments: Vec<String> = route.template.segments.iter().map(written).collect();
            let action = Some(&route.template.action).filter(|action| !action.is_empty());
            let path = format!("/{}{}", segments.join("/"), action.map(|one| format!(":{one}")).unwrap_or_default());
            let Found::Route(found, said) = paths.find(&route.verb, &path) else { panic!("{path} leads nowhere") };
            assert_eq!((&found.method, &found.verb), (&route.method, &route.verb), "{path}");
            let expected: Vec<String> =
                route.template.bound.iter().map(|(_, range)| segments[range.clone()].join("/")).collect();
            assert_eq!(said, expected, "{path}");
            let body = if matches!(route.body, Content::Nothing) { "" } else { "{}" };
            let request = DynamicMessage::decode(
                route.input.clone(),
                route.request(&said, "", body.as_bytes()).unwrap_or_else(|why| panic!("{path}: {why}")),
            );
            let request = request.unwrap();
            for ((path, _), value) in route.template.bound.iter().zip(&said) {
                assert_eq!(text_at(&request, path), *value, "{}", route.method);
            }
        }
    }
}
