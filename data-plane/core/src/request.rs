//! From templates to a complete request. The one way a request is made: for a delivery, for a custom connection's
//! authorization request, for previews and tests as they come.

use std::fmt;

use crate::address::{UrlPolicy, check_rendered};
use crate::cause::{Cause, EventEnvelope};
use crate::envelope::{Body, Envelope};
use crate::model::{RequestTemplate, Step, Workflow};
use crate::response_event::FailureReason;
use crate::template::{
    Context, RenderError, RenderErrorKind, Skip, Unrendered, Value, headers_value, map_value, value_from_json,
    value_from_known_json_text,
};

/// Longest header, name and value, in bytes (O08).
pub const HEADER_BYTES_MAX: usize = 8 * 1024;
/// Headers of a request as it is sent, with those of its connections and of Sluice (O08).
pub const SENT_HEADERS_MAX: usize = 64;
/// All headers of a request, names and values, in bytes (O08).
pub const HEADERS_BYTES_MAX: usize = 32 * 1024;

/// Headers the connection to the destination owns: an author cannot set them (S28).
const RESERVED_HEADERS: [&str; 15] = [
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "idempotency-key",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "sluice-hops",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A complete request before credentials: these bytes are sent at every attempt (D08).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedRequest {
    /// An upper-case HTTP method.
    pub method: String,
    /// The URL, percent-encoded.
    pub url: String,
    /// In the author's order.
    pub headers: Vec<(String, String)>,
    /// Absent: no body is sent.
    pub body: Option<String>,
    /// Paths that were asked for and not found (D32).
    pub missing: Vec<String>,
}

impl RenderedRequest {
    /// Notes paths that were asked for before the request itself, and not found.
    pub fn add_missing(&mut self, paths: Vec<String>) {
        self.missing.extend(paths);
        self.missing.sort();
        self.missing.dedup();
        self.missing.truncate(crate::template::limits::MISSING_PATHS);
    }
}

/// Why there is no request. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmade {
    /// A template has said that nothing is to be sent: an outcome of its own, not retried (D19). Which field, which tag
    /// and why, for the author.
    Skipped(String),
    /// It could not be made.
    Failed(RenderFailure),
}

impl From<RenderFailure> for Unmade {
    fn from(failure: RenderFailure) -> Unmade {
        Unmade::Failed(failure)
    }
}

/// Why a request could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderFailure {
    /// What the response event says.
    pub reason: FailureReason,
    /// The field, line and column, and what to do. Never holds data.
    pub message: String,
    /// The field alone, as `headers[0].value`; empty: none of them.
    pub field: String,
    /// The line in it, from 1; 0: no one of them.
    pub line: u32,
    /// The column in that line, from 1; 0: no one of them.
    pub column: u32,
}

impl RenderFailure {
    /// One that is of no line.
    pub fn new(reason: FailureReason, field: &str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), field: field.to_owned(), line: 0, column: 0 }
    }
}

/// What a body is, by its `Content-Type` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyType {
    /// No such header: JSON is assumed and declared (X20).
    Unset,
    /// `application/json`, or something `+json`.
    Json,
    /// Anything else, or a type that only rendering will tell.
    Other,
}

/// Reads the type of a body from the header templates.
pub fn body_type<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> BodyType {
    for (name, value) in headers {
        if name.trim().eq_ignore_ascii_case("content-type") {
            let media = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            let json = media == "application/json" || media.ends_with("+json");
            return if json { BodyType::Json } else { BodyType::Other };
        }
    }
    BodyType::Unset
}

/// Whether a body is a JSON document.
pub fn is_json(body: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
}

/// What is wrong with a header's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderProblem {
    /// Not an HTTP token.
    NotAToken,
    /// Set by the connection to the destination.
    Reserved,
}

impl fmt::Display for HeaderProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAToken => "must be an HTTP header name: letters, digits and !#$%&'*+-.^_`|~",
            Self::Reserved => "is set by Sluice and cannot be set here",
        })
    }
}

/// Whether `name` is an HTTP token (RFC 9110) of at most 256 bytes.
pub fn is_token(name: &str) -> bool {
    (1..=256).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Checks a header's name as set by an author, static or rendered.
pub fn check_header_name(name: &str) -> Result<(), HeaderProblem> {
    if !is_token(name) {
        return Err(HeaderProblem::NotAToken);
    }
    let lower = name.to_ascii_lowercase();
    if RESERVED_HEADERS.contains(&lower.as_str()) { Err(HeaderProblem::Reserved) } else { Ok(()) }
}

/// What templates of a delivery see: `request` (R177) or `event` (F82) and its `customer` if it has one (D02), and `currentStep`
/// (F84). Their present is when the
/// request arrived or the event was told, so that a delivery that is rendered again prints the same; who needs another
/// sets it.
pub fn context<'a>(cause: impl Into<Cause<'a>>, workflow: &Workflow, step: &Step, execution_id: &str) -> Context {
    let mut context = step_context(workflow, step, execution_id);
    match cause.into() {
        Cause::Request(envelope) => {
            context.set("request", request_value(envelope));
            context.set_now(envelope.time);
        }
        Cause::Event(event) => {
            context.set("event", event_value(event));
            if let Some(customer) = event.customer() {
                context.set("customer", value_from_json(customer));
            }
            context.set_now(event.time());
        }
    }
    context
}

/// What templates see when nothing has started the step.
pub fn step_context(workflow: &Workflow, step: &Step, execution_id: &str) -> Context {
    let mut context = Context::new();
    let current_step = map_value([
        ("diagramId", Value::from(workflow.uid.as_str())),
        ("diagramName", Value::from(workflow.display_name.as_str())),
        ("blockId", Value::from(step.id.as_str())),
        ("blockName", Value::from(step.name.as_str())),
        ("executionId", Value::from(execution_id)),
    ]);
    context.set("currentStep", current_step);
    context
}

/// The event, and its parameters once more beside `params`, as newer templates name them: `event.status` (F82).
fn event_value(event: &EventEnvelope) -> Value {
    let document = event.document();
    let params = document.get("params").and_then(serde_json::Value::as_object).into_iter().flatten();
    let fixed = document.as_object().into_iter().flatten();
    map_value(params.chain(fixed).map(|(name, value)| (name.as_str(), value_from_json(value))))
}

fn json_value(json: &Body) -> Value {
    // Only what is nested too deeply is not read from its text.
    value_from_known_json_text(json.text()).unwrap_or_else(|| value_from_json(json.value()))
}

fn request_value(envelope: &Envelope) -> Value {
    map_value([
        ("body", json_value(&envelope.body)),
        ("headers", headers_value(envelope.headers.iter())),
        ("method", Value::from(envelope.method.as_str())),
        ("time", Value::from(envelope.time)),
        ("eventId", Value::from(envelope.event_id.as_str())),
        ("endpointId", Value::from(envelope.endpoint_id.as_str())),
        ("businessProfileId", Value::from(envelope.business_profile_id)),
    ])
}

/// Renders a request. Where the context limits steps, they are for all its templates together.
pub fn render(request: &RequestTemplate, context: &Context, urls: &UrlPolicy) -> Result<RenderedRequest, Unmade> {
    let mut missing = Vec::new();
    let mut context = context.clone();
    let mut print = |field: &dyn Fn() -> String, template: &crate::template::Template| match template
        .render(&context, request.on_missing)
    {
        Ok(rendered) => {
            context.use_steps(rendered.steps);
            missing.extend(rendered.missing);
            Ok(rendered.text)
        }
        Err(unrendered) => Err(unmade(&field(), unrendered)),
    };
    let url = print(&|| "url".to_owned(), &request.url)?;
    let mut headers = Vec::with_capacity(request.headers.len() + 1);
    let mut header_bytes = 0;
    for (index, (name, value)) in request.headers.iter().enumerate() {
        let name = print(&|| format!("headers[{index}].name"), name)?;
        let value = print(&|| format!("headers[{index}].value"), value)?;
        header_bytes += name.len() + value.len();
        check_rendered_header(index, &name, &value, header_bytes)?;
        headers.push((name, value));
    }
    let body = request.body.as_ref().map(|body| print(&|| "body".to_owned(), body)).transpose()?;
    let url = check_url(request, &url, urls)?;
    if request.default_json_type {
        headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
    }
    let mut rendered = RenderedRequest { method: request.method.to_owned(), url, headers, body, missing: Vec::new() };
    rendered.add_missing(missing);
    Ok(rendered)
}

/// Why the template of `field` has not become part of a request.
pub(crate) fn unmade(field: &str, unrendered: Unrendered) -> Unmade {
    match unrendered {
        Unrendered::Skipped(skip) => {
            let Skip { reason, line, column, .. } = skip;
            Unmade::Skipped(format!("{field}: {reason} (line {line}, column {column})"))
        }
        Unrendered::Failed(error) => failure(field, &error).into(),
    }
}

fn failure(field: &str, error: &RenderError) -> RenderFailure {
    let reason = match error.kind {
        RenderErrorKind::InvalidJson => FailureReason::RenderInvalidJson,
        RenderErrorKind::BadHeader | RenderErrorKind::BadUrl => FailureReason::RequestInvalid,
        RenderErrorKind::Eval | RenderErrorKind::Missing | RenderErrorKind::Limit => FailureReason::RenderError,
    };
    let (line, column) = (error.line, error.column);
    let message = format!("{field}: {} (line {line}, column {column})\n{}", error.message, error.excerpt);
    RenderFailure { reason, message, field: field.to_owned(), line, column }
}

/// `all` counts the bytes of this header and those before it.
fn check_rendered_header(index: usize, name: &str, value: &str, all: usize) -> Result<(), RenderFailure> {
    let fail = |part: &str, what: String| {
        let field = format!("headers[{index}]{part}");
        Err(RenderFailure::new(FailureReason::RequestInvalid, &field, format!("{field}: {what}")))
    };
    if let Err(problem) = check_header_name(name) {
        return fail(".name", format!("the rendered name {problem}"));
    }
    if name.len() + value.len() > HEADER_BYTES_MAX {
        return fail(".value", format!("name and value are longer than {HEADER_BYTES_MAX} bytes"));
    }
    if all > HEADERS_BYTES_MAX {
        return fail("", format!("the headers are longer than {HEADERS_BYTES_MAX} bytes in all"));
    }
    Ok(())
}

/// The rendered URL must pass every rule again and lead where the published one leads (R073). What is called is the checked URL.
fn check_url(request: &RequestTemplate, url: &str, urls: &UrlPolicy) -> Result<String, RenderFailure> {
    check_rendered(url, &request.published_url, urls).map_err(|error| {
        let message = format!("url: the rendered URL is refused: {error}");
        RenderFailure::new(FailureReason::RequestInvalid, "url", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::OnMissing;

    #[test]
    fn header_names() {
        for good in ["X-Api-Key", "accept", "a!#$%&'*+-.^_`|~9"] {
            assert_eq!(check_header_name(good), Ok(()), "{good}");
        }
        for bad in ["", "X Y", "X:Y", "X\r\nY", ":authority", "ä", &"a".repeat(257)] {
            assert_eq!(check_header_name(bad), Err(HeaderProblem::NotAToken), "{bad:?}");
        }
        for reserved in
            ["Host", "content-LENGTH", "Transfer-Encoding", "Proxy-Authorization", crate::lineage::HOPS_HEADER]
        {
            assert_eq!(check_header_name(reserved), Err(HeaderProblem::Reserved), "{reserved}");
        }
    }

    #[test]
    fn templates_see_the_request_and_the_step() {
        let envelope: Envelope = serde_json::from_str(
            r#"{"body":{"a":[{"n":18446744073709551617}]},"businessProfileId":7,"endpointId":"ep","eventId":"ev",
                "headers":{"X-Request-ID":"r-1"},"method":"POST","time":1718010930123}"#,
        )
        .unwrap();
        let step = Step {
            id: "s1".into(),
            name: "Send".into(),
            action: crate::model::Action::Outgoing("x".into()),
            form_values: Vec::new(),
        };
        let workflow = Workflow {
            name: "workspaces/w/workflows/f".into(),
            uid: "u1".into(),
            display_name: "Flow".into(),
            version: 1,
            triggers: vec![],
            steps: vec![],
        };
        let source = "{{ request.body.a[0].n }} {{ request.headers['x-request-id'] }} {{ request.method }} \
                      {{ request.time }} {{ request.eventId }} {{ request.endpointId }} {{ request.businessProfileId }} \
                      {{ currentStep.diagramId }} {{ currentStep.diagramName }} {{ currentStep.blockId }} \
                      {{ currentStep.blockName }} {{ currentStep.executionId }} {{ null|unixtimestamp }}";
        let template = crate::template::Template::compile(source, crate::template::Mode::Text).unwrap();
        let rendered = template.render(&context(&envelope, &workflow, &step, "e1"), OnMissing::Fail).unwrap();
        assert_eq!(
            rendered.text,
            "18446744073709551617 r-1 POST 1718010930123 ev ep 7 u1 Flow s1 Send e1 1718010930123"
        );
    }

    #[test]
    fn body_types() {
        let of = |value: &str| body_type([("content-TYPE", value)].into_iter());
        assert_eq!(body_type([].into_iter()), BodyType::Unset);
        assert_eq!(of("application/json; charset=utf-8"), BodyType::Json);
        assert_eq!(of("application/vnd.api+JSON"), BodyType::Json);
        assert_eq!(of("text/xml"), BodyType::Other);
        assert_eq!(of("{{ request.headers.accept }}"), BodyType::Other);
    }
}
