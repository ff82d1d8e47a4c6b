//! What a delivery tells afterwards: the response event (D18, P8, F20, F21).
//!
//! Hides the event's shape: which parameters it has and in which order, how a response body becomes `body.<path>`
//! parameters, and what is cut. Pure: ids, time and rendered values come in. There is one event per delivery, after
//! its last attempt, also when there was no response (R108, S20).

use std::ops::ControlFlow;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::envelope::Headers;
use crate::flatten::{self, Limits};
use crate::path::Root;

/// The action of an event whose integration names none (R067).
pub const DEFAULT_ACTION: &str = "webhook.response";
/// Names a custom parameter may not have, compared exactly (R104).
pub const RESERVED_NAMES: [&str; 12] = [
    "eventUUID",
    "status",
    "statusDescription",
    "uuid",
    "clientId",
    "diagramId",
    "diagramName",
    "blockId",
    "blockName",
    "req",
    "name",
    "body",
];
/// How many custom parameters an event may have (R100).
pub const MAX_PARAMETERS: usize = 10;
/// The longest name of a custom parameter, in characters (R103).
pub const MAX_NAME_CHARACTERS: usize = 128;
/// The longest value of a custom parameter, in Unicode scalar values (R106, D24).
pub const MAX_VALUE_CHARACTERS: usize = 230;
/// How many `body.…` parameters an event may have.
pub const MAX_BODY_PARAMETERS: usize = 2_000;
/// How many bytes of a response body an event keeps, names of parameters included (D11, D18).
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// How many parameters most events have that tell of no body.
const BASE_PARAMETERS: usize = 20;
/// Present and true when not all of the response's body is in the event. Neither a custom parameter (no dots) nor
/// a body parameter can have this name.
pub const TRUNCATED_MARK: &str = "response.truncated";

/// Why a delivery ended without a response; its name is the event's `statusDescription` (D18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// The exchange took longer than allowed.
    Timeout,
    /// The host name did not resolve.
    DnsError,
    /// No connection.
    ConnectError,
    /// No TLS session, or a certificate that is not the host's.
    TlsError,
    /// The connection ended before the response did.
    ConnectionReset,
    /// The host, address, port or proxy may not be called (D20).
    EgressDenied,
    /// A connection of the request is bound to other hosts; nothing was sent.
    HostNotAllowed,
    /// The call would come after too many others that each caused the next: a circle (D01).
    LoopDetected,
    /// The answer is not HTTP, or over a limit.
    ResponseInvalid,
    /// The credentials could not be fetched; the main request was not sent (S22).
    AuthError,
    /// The connection the integration refers to is no longer there.
    ConnectionMissing,
    /// The workflow or its step is no longer there.
    StepRemoved,
    /// A template failed (S32).
    RenderError,
    /// The rendered body is not the JSON it should be (D07).
    RenderInvalidJson,
    /// A value of the form breaks a rule of its field (S40).
    FormValueInvalid,
    /// The rendered URL or a rendered header cannot be sent.
    RequestInvalid,
    /// The delivery became older than its age limit before it could be attempted (D09).
    Expired,
    /// The delivery was given up because handling it kept ending the process.
    CrashLoop,
    /// An operator ended the delivery.
    Cancelled,
}

impl FailureReason {
    /// Every reason.
    pub const ALL: [Self; 19] = [
        Self::Timeout,
        Self::DnsError,
        Self::ConnectError,
        Self::TlsError,
        Self::ConnectionReset,
        Self::EgressDenied,
        Self::HostNotAllowed,
        Self::LoopDetected,
        Self::ResponseInvalid,
        Self::AuthError,
        Self::ConnectionMissing,
        Self::StepRemoved,
        Self::RenderError,
        Self::RenderInvalidJson,
        Self::FormValueInvalid,
        Self::RequestInvalid,
        Self::Expired,
        Self::CrashLoop,
        Self::Cancelled,
    ];

    /// The `statusDescription`.
    pub fn description(self) -> &'static str {
        match self {
            Self::Timeout => "TIMEOUT",
            Self::DnsError => "DNS_ERROR",
            Self::ConnectError => "CONNECT_ERROR",
            Self::TlsError => "TLS_ERROR",
            Self::ConnectionReset => "CONNECTION_RESET",
            Self::EgressDenied => "EGRESS_DENIED",
            Self::HostNotAllowed => "HOST_NOT_ALLOWED",
            Self::LoopDetected => "LOOP_DETECTED",
            Self::ResponseInvalid => "RESPONSE_INVALID",
            Self::AuthError => "AUTH_ERROR",
            Self::ConnectionMissing => "CONNECTION_MISSING",
            Self::StepRemoved => "STEP_REMOVED",
            Self::RenderError => "RENDER_ERROR",
            Self::RenderInvalidJson => "RENDER_INVALID_JSON",
            Self::FormValueInvalid => "FORM_VALUE_INVALID",
            Self::RequestInvalid => "REQUEST_INVALID",
            Self::Expired => "EXPIRED",
            Self::CrashLoop => "CRASH_LOOP",
            Self::Cancelled => "CANCELLED",
        }
    }
}

/// How the last attempt ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// With a response, whatever its status.
    Response {
        /// The HTTP status.
        status: u16,
        /// The response's headers; only `Content-Type` is looked at.
        headers: &'a Headers,
        /// The body as far as it was read, with credentials it echoes masked by the caller, who knows them (I7).
        /// The caller's read limit bounds the work done here.
        body: &'a [u8],
        /// Whether there was more of it.
        truncated: bool,
    },
    /// Without one.
    NoResponse(FailureReason),
}

/// Where in a workflow the request stood (F21). Names may be empty; ids are always there.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The workflow's id.
    pub diagram_id: &'a str,
    /// The workflow's name.
    pub diagram_name: &'a str,
    /// The step's id.
    pub block_id: &'a str,
    /// The step's name.
    pub block_name: &'a str,
}

/// Whose delivery it was, where the trigger's caller said so (D02, F24); business workflows have none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Customer<'a> {
    /// The profile's number.
    pub client_id: Option<u64>,
    /// The profile's UUID.
    pub uuid: Option<&'a str>,
}

/// What an event is built from.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The event's id, a UUID.
    pub event_uuid: &'a str,
    /// The workspace.
    pub business_profile_id: u64,
    /// When the last attempt ended, in milliseconds since 1970 (UTC).
    pub time: i64,
    /// The event name; blank means [`DEFAULT_ACTION`].
    pub action: &'a str,
    /// The webhook name (R065).
    pub name: &'a str,
    /// The URL that was called, **already redacted**: credentials in the query are the caller's to mask (I7). Empty
    /// when none was rendered; the parameter is then left out.
    pub request_url: &'a str,
    /// Where in a workflow, if in one.
    pub step: Option<Step<'a>>,
    /// Whose, if anybody's.
    pub customer: Customer<'a>,
    /// How it ended.
    pub outcome: Outcome<'a>,
    /// The custom parameters, names checked on save, values rendered.
    pub parameters: &'a [(String, String)],
}

/// A response event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResponseEvent {
    /// The event's id, also in `params` as `eventUUID`.
    #[serde(skip)]
    pub id: String,
    /// The event name.
    pub action: String,
    /// The parameters, in the order of P8.
    pub params: Map<String, Value>,
}

/// An event and what building it had to leave out, for metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    /// The event.
    pub event: ResponseEvent,
    /// How many custom values were cut at [`MAX_VALUE_CHARACTERS`] (S34).
    pub cut_parameters: usize,
    /// Whether the body is not wholly there ([`TRUNCATED_MARK`]).
    pub body_truncated: bool,
}

/// Builds the event of a delivery.
///
/// A custom parameter named like one of the base parameters that R104 does not reserve (`time`, …) takes its place.
pub fn build(delivery: &Delivery<'_>) -> Built {
    let mut params = base_parameters(delivery);
    let mut body_truncated = false;
    if let Outcome::Response { headers, body, truncated, .. } = delivery.outcome {
        body_truncated = add_body(&mut params, headers.get("Content-Type"), body) || truncated;
        if body_truncated {
            params.insert(TRUNCATED_MARK.into(), true.into());
        }
    }
    let mut cut_parameters = 0;
    for (name, value) in delivery.parameters {
        let end = value.char_indices().nth(MAX_VALUE_CHARACTERS).map(|(at, _)| at);
        cut_parameters += usize::from(end.is_some());
        params.insert(name.clone(), value[..end.unwrap_or(value.len())].into());
    }
    let action = if delivery.action.trim().is_empty() { DEFAULT_ACTION } else { delivery.action };
    let event = ResponseEvent { id: delivery.event_uuid.into(), action: action.into(), params };
    Built { event, cut_parameters, body_truncated }
}

/// A time in milliseconds since 1970 as ISO 8601 in UTC; `None` beyond the year 9999, where there is no such text.
pub(crate) fn create_time(time: i64) -> Option<String> {
    let time = jiff::Timestamp::from_millisecond(time).ok()?;
    Some(time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string())
}

fn base_parameters(delivery: &Delivery<'_>) -> Map<String, Value> {
    let mut params = Map::with_capacity(BASE_PARAMETERS + delivery.parameters.len());
    let mut add = |name: &str, value: Value| {
        params.insert(name.to_owned(), value);
    };
    add("eventUUID", delivery.event_uuid.into());
    add("businessProfileId", delivery.business_profile_id.into());
    if let Some(client_id) = delivery.customer.client_id {
        add("clientId", client_id.into());
    }
    if let Some(uuid) = delivery.customer.uuid {
        add("uuid", uuid.into());
    }
    add("time", delivery.time.into());
    if let Some(time) = create_time(delivery.time) {
        add("eventCreateTime", time.into());
    }
    add("name", delivery.name.into());
    let (status, description) = match delivery.outcome {
        Outcome::Response { status, .. } => (status, reason_phrase(status)),
        Outcome::NoResponse(reason) => (0, reason.description()),
    };
    add("status", status.into());
    add("statusDescription", description.into());
    if !delivery.request_url.is_empty() {
        add("req.url", delivery.request_url.into());
    }
    if let Some(step) = delivery.step {
        add("diagramId", step.diagram_id.into());
        add("diagramName", step.diagram_name.into());
        add("blockId", step.block_id.into());
        add("blockName", step.block_name.into());
    }
    params
}

/// Adds the response's body and says whether something of it had to be left out.
///
/// An object or array is flattened whatever the content type says, as many APIs answer JSON as `text/plain`; a lone
/// number or text only counts as JSON when the content type says so (S36).
fn add_body(params: &mut Map<String, Value>, content_type: Option<&str>, body: &[u8]) -> bool {
    if body.is_empty() {
        return false;
    }
    let limits = Limits { leaves: usize::MAX, ..Limits::default() };
    match flatten::parse_body(body, &limits) {
        Ok(json) if json.is_object() || json.is_array() || content_type.is_some_and(is_json) => {
            return add_json(params, &json);
        }
        _ => {}
    }
    match as_text(body) {
        Some(text) => {
            let end = text.floor_char_boundary(MAX_BODY_BYTES);
            params.insert("body".into(), text[..end].into());
            end < text.len()
        }
        None => {
            let kind: String = content_type.unwrap_or("unknown type").chars().take(100).collect();
            params.insert("body".into(), format!("[binary, {} bytes, {kind}]", body.len()).into());
            false
        }
    }
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(essence.as_str(), "application/json" | "text/json") || essence.ends_with("+json")
}

/// `None` when it is binary. A character that the end of the body cuts in two is left out.
fn as_text(body: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&body[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    // An empty text here is nothing but half a character.
    if text.contains('\0') || text.is_empty() { None } else { Some(text) }
}

/// Adds each value of the body under its path, while they fit; a value that does not fit is left out, smaller ones
/// after it still go in.
fn add_json(params: &mut Map<String, Value>, json: &Value) -> bool {
    let (mut count, mut bytes, mut left_out) = (0, 0, false);
    let mut path = Root::Body.name().to_owned();
    // Whether the visitor stopped early is in `left_out`.
    let _ = flatten::walk(&mut path, json, &mut |path, value| {
        if count == MAX_BODY_PARAMETERS {
            left_out = true;
            return ControlFlow::Break(());
        }
        let size = path.len()
            + match value {
                Value::String(text) => text.len(),
                Value::Number(number) => number.as_str().len(),
                _ => 5,
            };
        if bytes + size > MAX_BODY_BYTES {
            left_out = true;
        } else {
            count += 1;
            bytes += size;
            params.insert(path.to_owned(), value.clone());
        }
        ControlFlow::Continue(())
    });
    left_out
}

/// Why a custom parameter is refused on save.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// No name.
    #[error("the parameter has no name")]
    NameEmpty,
    /// Over [`MAX_NAME_CHARACTERS`] (R103).
    #[error("the parameter name is longer than {MAX_NAME_CHARACTERS} characters")]
    NameTooLong,
    /// A character outside the allowed set (R102, S33).
    #[error("character {position} of the parameter name is not allowed: use letters, digits and _, not a digit first")]
    NameCharacter {
        /// From 1.
        position: usize,
    },
    /// One of [`RESERVED_NAMES`] (R104).
    #[error("`{0}` is reserved for the event itself")]
    NameReserved(&'static str),
    /// A name that was there before.
    #[error("this parameter name is used twice")]
    NameTwice,
    /// An eleventh parameter (R100).
    #[error("an event may have at most {MAX_PARAMETERS} custom parameters")]
    TooMany,
    /// A static value over [`MAX_VALUE_CHARACTERS`] (S34).
    #[error("the parameter value is longer than {MAX_VALUE_CHARACTERS} characters")]
    ValueTooLong,
}

/// Checks one name: `[A-Za-z_][A-Za-z0-9_]{0,127}`, not reserved (D24).
pub fn check_parameter_name(name: &str) -> Result<(), ParameterError> {
    if name.is_empty() {
        return Err(ParameterError::NameEmpty);
    }
    let is_allowed = |(at, c): (usize, char)| c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit());
    if let Some(at) = name.chars().enumerate().position(|indexed| !is_allowed(indexed)) {
        return Err(ParameterError::NameCharacter { position: at + 1 });
    }
    if name.len() > MAX_NAME_CHARACTERS {
        return Err(ParameterError::NameTooLong);
    }
    match RESERVED_NAMES.iter().find(|reserved| **reserved == name) {
        Some(reserved) => Err(ParameterError::NameReserved(reserved)),
        None => Ok(()),
    }
}

/// Checks a value without inserts; one with inserts is cut when it is rendered instead.
pub fn check_static_value(value: &str) -> Result<(), ParameterError> {
    match value.chars().nth(MAX_VALUE_CHARACTERS) {
        Some(_) => Err(ParameterError::ValueTooLong),
        None => Ok(()),
    }
}

/// Checks all names of an event together; each problem with the place (from 0) of the parameter it is about.
pub fn check_parameter_names(names: &[&str]) -> Vec<(usize, ParameterError)> {
    let mut problems = Vec::new();
    for (index, name) in names.iter().enumerate().take(MAX_PARAMETERS) {
        match check_parameter_name(name) {
            Err(problem) => problems.push((index, problem)),
            Ok(()) if names[..index].contains(name) => problems.push((index, ParameterError::NameTwice)),
            Ok(()) => {}
        }
    }
    if names.len() > MAX_PARAMETERS {
        problems.push((MAX_PARAMETERS, ParameterError::TooMany));
    }
    problems
}

/// Statuses with their standard phrases, in order (RFC 9110 and the IANA registry).
const PHRASES: [(u16, &str); 62] = [
    (100, "Continue"),
    (101, "Switching Protocols"),
    (102, "Processing"),
    (103, "Early Hints"),
    (200, "OK"),
    (201, "Created"),
    (202, "Accepted"),
    (203, "Non-Authoritative Information"),
    (204, "No Content"),
    (205, "Reset Content"),
    (206, "Partial Content"),
    (207, "Multi-Status"),
    (208, "Already Reported"),
    (226, "IM Used"),
    (300, "Multiple Choices"),
    (301, "Moved Permanently"),
    (302, "Found"),
    (303, "See Other"),
    (304, "Not Modified"),
    (305, "Use Proxy"),
    (307, "Temporary Redirect"),
    (308, "Permanent Redirect"),
    (400, "Bad Request"),
    (401, "Unauthorized"),
    (402, "Payment Required"),
    (403, "Forbidden"),
    (404, "Not Found"),
    (405, "Method Not Allowed"),
    (406, "Not Acceptable"),
    (407, "Proxy Authentication Required"),
    (408, "Request Timeout"),
    (409, "Conflict"),
    (410, "Gone"),
    (411, "Length Required"),
    (412, "Precondition Failed"),
    (413, "Content Too Large"),
    (414, "URI Too Long"),
    (415, "Unsupported Media Type"),
    (416, "Range Not Satisfiable"),
    (417, "Expectation Failed"),
    (418, "I'm a teapot"),
    (421, "Misdirected Request"),
    (422, "Unprocessable Content"),
    (423, "Locked"),
    (424, "Failed Dependency"),
    (425, "Too Early"),
    (426, "Upgrade Required"),
    (428, "Precondition Required"),
    (429, "Too Many Requests"),
    (431, "Request Header Fields Too Large"),
    (451, "Unavailable For Legal Reasons"),
    (500, "Internal Server Error"),
    (501, "Not Implemented"),
    (502, "Bad Gateway"),
    (503, "Service Unavailable"),
    (504, "Gateway Timeout"),
    (505, "HTTP Version Not Supported"),
    (506, "Variant Also Negotiates"),
    (507, "Insufficient Storage"),
    (508, "Loop Detected"),
    (510, "Not Extended"),
    (511, "Network Authentication Required"),
];

/// The standard phrase of a status; for one without, the name of its class.
pub fn reason_phrase(status: u16) -> &'static str {
    if let Ok(at) = PHRASES.binary_search_by_key(&status, |(known, _)| *known) {
        return PHRASES[at].1;
    }
    match status / 100 {
        1 => "Informational",
        2 => "Success",
        3 => "Redirection",
        4 => "Client Error",
        5 => "Server Error",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn built(outcome: Outcome<'_>, parameters: &[(String, String)]) -> Built {
        build(&Delivery {
            event_uuid: "0198c7a2-0000-7000-8000-000000000001",
            business_profile_id: 1,
            time: 1_718_010_931_000,
            action: " ",
            name: "Help desk",
            request_url: "https://desk.example/api/tickets",
            step: Some(Step {
                diagram_id: "d-1",
                diagram_name: "Complaints",
                block_id: "b-1",
                block_name: "Open ticket",
            }),
            customer: Customer::default(),
            outcome,
            parameters,
        })
    }

    fn of_body(content_type: &str, body: &[u8]) -> Built {
        let headers = Headers::from_iter([("content-type", content_type)]);
        built(Outcome::Response { status: 200, headers: &headers, body, truncated: false }, &[])
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn p8() {
        let headers = Headers::from_iter([("Content-Type", "application/json; charset=utf-8")]);
        let body = br#"{"id":"T-9","tags":["a","b"],"ok":true}"#;
        let outcome = Outcome::Response { status: 201, headers: &headers, body, truncated: false };
        let built = built(outcome, &owned(&[("ticket", "T-9"), ("prio", "high")]));
        let expected = concat!(
            r#"{"action":"webhook.response","params":{"eventUUID":"0198c7a2-0000-7000-8000-000000000001","#,
            r#""businessProfileId":1,"time":1718010931000,"eventCreateTime":"2024-06-10T09:15:31.000Z","#,
            r#""name":"Help desk","status":201,"statusDescription":"Created","#,
            r#""req.url":"https://desk.example/api/tickets","diagramId":"d-1","diagramName":"Complaints","#,
            r#""blockId":"b-1","blockName":"Open ticket","body.id":"T-9","body.tags[0]":"a","body.tags[1]":"b","#,
            r#""body.ok":true,"ticket":"T-9","prio":"high"}}"#
        );
        assert_eq!(serde_json::to_string(&built.event).unwrap(), expected);
        assert_eq!((built.cut_parameters, built.body_truncated), (0, false));
        assert_eq!(built.event.id, "0198c7a2-0000-7000-8000-000000000001");
    }

    #[test]
    fn a_failure_without_response_tells_why_and_keeps_custom_parameters() {
        let event = built(Outcome::NoResponse(FailureReason::Timeout), &owned(&[("prio", "high")])).event;
        assert_eq!(event.params["status"], 0);
        assert_eq!(event.params["statusDescription"], "TIMEOUT");
        assert_eq!(event.params["prio"], "high");
        assert!(event.params.keys().all(|name| !name.starts_with("body")));
        for (index, reason) in FailureReason::ALL.iter().enumerate() {
            let is_same = |other: &FailureReason| other.description() == reason.description();
            assert!(!FailureReason::ALL[..index].iter().any(is_same));
        }
    }

    #[test]
    fn what_a_body_becomes() {
        let big = format!("\"{}\"", "x".repeat(70_000));
        for (content_type, body, expected) in [
            ("text/plain", &b"{\"a\":1e400}"[..], ("body.a", json!("1e400"))),
            ("application/problem+json", b"[1]", ("body[0]", json!("1"))),
            ("application/json", b"\"x\"", ("body", json!("x"))),
            ("application/json", b"{}", ("body", json!({}))),
            ("text/plain", b"42", ("body", json!("42"))),
            ("application/json", b"not json", ("body", json!("not json"))),
            ("text/html", "<p>ł</p>".as_bytes(), ("body", json!("<p>ł</p>"))),
            ("image/png", &[0x89, b'P', b'N', b'G', 0], ("body", json!("[binary, 5 bytes, image/png]"))),
            ("text/plain", b"a\0b", ("body", json!("[binary, 3 bytes, text/plain]"))),
            ("text/plain", &[b'a', 0xc5], ("body", json!("a"))),
            ("text/plain", &[0xc5], ("body", json!("[binary, 1 bytes, text/plain]"))),
            ("application/json", &b"[".repeat(70), ("body", json!("[".repeat(70)))),
        ] {
            let built = of_body(content_type, body);
            let value = &built.event.params[expected.0];
            let value = if value.is_number() { json!(value.to_string()) } else { value.clone() };
            assert_eq!(value, expected.1, "{body:?}");
            assert!(!built.body_truncated && !built.event.params.contains_key(TRUNCATED_MARK));
        }
        assert!(of_body("text/plain", b"").event.params.keys().all(|name| !name.starts_with("body")));
        assert!(of_body("application/json", big.as_bytes()).body_truncated);
    }

    #[test]
    fn long_bodies_are_cut_with_a_mark() {
        let built = of_body("text/plain", "ł".repeat(40_000).as_bytes());
        assert_eq!(built.event.params["body"].as_str().unwrap().len(), MAX_BODY_BYTES);
        assert_eq!(built.event.params[TRUNCATED_MARK], true);

        let count = |built: &Built| built.event.params.keys().filter(|name| name.starts_with("body")).count();
        let exact = of_body("application/json", format!("[{}0]", "0,".repeat(1_999)).as_bytes());
        assert_eq!((count(&exact), exact.body_truncated), (2_000, false));
        let over = of_body("application/json", format!("[{}0]", "0,".repeat(2_000)).as_bytes());
        assert_eq!((count(&over), over.body_truncated), (2_000, true));

        let large = format!(r#"{{"a":"{}","b":2}}"#, "x".repeat(70_000));
        let large = of_body("application/json", large.as_bytes());
        assert!(large.body_truncated && !large.event.params.contains_key("body.a"));
        assert!(large.event.params.contains_key("body.b"));

        let headers = Headers::new();
        let outcome = Outcome::Response { status: 200, headers: &headers, body: b"{\"a\":", truncated: true };
        let partial = built_with(outcome);
        assert_eq!(partial.event.params["body"], "{\"a\":");
        assert!(partial.body_truncated);
    }

    fn built_with(outcome: Outcome<'_>) -> Built {
        built(outcome, &[])
    }

    #[test]
    fn values_are_cut_by_characters() {
        let long = "😀".repeat(231);
        let exact = "ł".repeat(230);
        let parameters = owned(&[("a", &long), ("b", &exact), ("time", "mine")]);
        let built = built(Outcome::NoResponse(FailureReason::DnsError), &parameters);
        assert_eq!(built.cut_parameters, 1);
        assert_eq!(built.event.params["a"], "😀".repeat(230));
        assert_eq!(built.event.params["b"], exact);
        assert_eq!(built.event.params["time"], "mine");
        assert_eq!(check_static_value(&exact), Ok(()));
        assert_eq!(check_static_value(&long), Err(ParameterError::ValueTooLong));
    }

    #[test]
    fn names_follow_d24() {
        for name in ["a", "_", "A9_", "Status", "bodyx", "params", &"a".repeat(128)] {
            assert_eq!(check_parameter_name(name), Ok(()), "{name}");
        }
        for (name, problem) in [
            ("", ParameterError::NameEmpty),
            ("9a", ParameterError::NameCharacter { position: 1 }),
            ("a b", ParameterError::NameCharacter { position: 2 }),
            ("a.b", ParameterError::NameCharacter { position: 2 }),
            ("a-b", ParameterError::NameCharacter { position: 2 }),
            ("aé", ParameterError::NameCharacter { position: 2 }),
            ("😀", ParameterError::NameCharacter { position: 1 }),
            (&"a".repeat(129), ParameterError::NameTooLong),
        ] {
            assert_eq!(check_parameter_name(name), Err(problem), "{name}");
        }
        for name in RESERVED_NAMES {
            assert_eq!(check_parameter_name(name), Err(ParameterError::NameReserved(name)));
        }
        let names: Vec<String> = (0..11).map(|index| format!("p{index}")).collect();
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(check_parameter_names(&names), [(10, ParameterError::TooMany)]);
        names.pop();
        assert!(check_parameter_names(&names).is_empty());
        names[3] = "body";
        names[9] = "p0";
        let problems = [(3, ParameterError::NameReserved("body")), (9, ParameterError::NameTwice)];
        assert_eq!(check_parameter_names(&names), problems);
    }

    #[test]
    fn a_customer_is_named_where_there_is_one() {
        let event = build(&Delivery {
            event_uuid: "e",
            business_profile_id: 1,
            time: i64::MAX,
            action: "order.sent",
            name: "",
            request_url: "",
            step: None,
            customer: Customer { client_id: Some(5), uuid: Some("u") },
            outcome: Outcome::NoResponse(FailureReason::RenderError),
            parameters: &[],
        })
        .event;
        assert_eq!(event.action, "order.sent");
        let names: Vec<&str> = event.params.keys().map(String::as_str).collect();
        let expected =
            ["eventUUID", "businessProfileId", "clientId", "uuid", "time", "name", "status", "statusDescription"];
        assert_eq!(names, expected);
    }

    #[test]
    fn every_status_has_a_description() {
        assert!(PHRASES.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(
            [200, 404, 299, 599, 0, 999].map(reason_phrase),
            ["OK", "Not Found", "Success", "Server Error", "Unknown", "Unknown"]
        );
    }
}
