//! Which parameters a body has (D15, R147, P9), and whether a body may come in at all (D16).
//!
//! Hides the JSON reader and the walk. A body is read once, under limits, without rounding a number and without
//! recursing; [`flatten`] then lists every value under the text that [`crate::path`]
//! reads back. The list is injective: two different documents never give the same one.

mod json;
mod pick;

use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;

use serde_json::Value;

pub(crate) use self::json::check_body;
pub use self::json::{BodyError, parse_body};
pub(crate) use self::pick::pick;
use crate::envelope::Envelope;
use crate::path::{self, Root};

/// How deep objects and arrays may be nested unless a setting says otherwise: `[[1]]` is 2 deep (D16).
pub const DEFAULT_DEPTH: u8 = 64;
/// How many values a body may have unless a setting says otherwise (D16).
pub const DEFAULT_LEAVES: usize = 2_000;
/// How long a path to a value may be, in bytes, unless a setting says otherwise (D16).
pub const DEFAULT_PATH_BYTES: usize = path::MAX_BYTES;

/// What a body may look like (D16). Its size in bytes is limited where it is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nested objects and arrays. A byte, because walking and dropping a value take stack for each level.
    pub depth: u8,
    /// Values: texts, numbers, booleans, nulls, empty objects and empty arrays.
    pub leaves: usize,
    /// Bytes of the canonical path to any value, `body` included.
    pub path_bytes: usize,
}

impl Limits {
    /// For what has been accepted once and is read back from our own storage.
    pub const STORED: Self = Self { depth: u8::MAX, leaves: usize::MAX, path_bytes: usize::MAX };
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: DEFAULT_DEPTH, leaves: DEFAULT_LEAVES, path_bytes: DEFAULT_PATH_BYTES }
    }
}

/// Which of the [`Limits`] was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::depth`].
    Depth,
    /// [`Limits::leaves`].
    Leaves,
    /// [`Limits::path_bytes`].
    PathBytes,
}

impl Limit {
    /// The limit's name in messages and error codes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Depth => "DEPTH",
            Self::Leaves => "LEAVES",
            Self::PathBytes => "PATH_BYTES",
        }
    }
}

/// A body went over a limit (I8: the error says which one).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body goes over the limit {} = {allowed} at {place}", limit.name())]
pub struct LimitExceeded {
    /// Which limit.
    pub limit: Limit,
    /// The value it is set to.
    pub allowed: usize,
    /// Where it was crossed.
    pub place: Place,
}

/// A place in a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the text: line and character, from 1.
    Text {
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
    },
    /// In the parsed value: its path, cut at 512 bytes.
    Path(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { line, column } => write!(f, "line {line}, column {column}"),
            Self::Path(path) => f.write_str(path),
        }
    }
}

/// Checks a value that did not come through [`parse_body`] (a context given over gRPC) against the same limits.
/// Builds no text unless a limit is crossed, and looks at no more values than the limit allows.
pub fn check(value: &Value, limits: &Limits) -> Result<(), LimitExceeded> {
    let mut check = Check { limits, leaves: 0, trail: Vec::new() };
    check.value(value, Root::Body.name().len())
}

enum Step<'v> {
    Key(&'v str),
    Index(usize),
}

struct Check<'v> {
    limits: &'v Limits,
    leaves: usize,
    trail: Vec<Step<'v>>,
}

impl<'v> Check<'v> {
    fn value(&mut self, value: &'v Value, path_bytes: usize) -> Result<(), LimitExceeded> {
        if path_bytes > self.limits.path_bytes {
            return Err(self.exceeded(Limit::PathBytes, self.limits.path_bytes));
        }
        match value {
            Value::Object(object) if !object.is_empty() => {
                self.enter()?;
                for (key, inner) in object {
                    self.trail.push(Step::Key(key));
                    self.value(inner, path_bytes + path::key_bytes(key))?;
                    self.trail.pop();
                }
            }
            Value::Array(array) if !array.is_empty() => {
                self.enter()?;
                for (index, inner) in array.iter().enumerate() {
                    self.trail.push(Step::Index(index));
                    self.value(inner, path_bytes + path::index_bytes(index))?;
                    self.trail.pop();
                }
            }
            _ => {
                if matches!(value, Value::Object(_) | Value::Array(_)) {
                    self.enter()?;
                }
                self.leaves += 1;
                if self.leaves > self.limits.leaves {
                    return Err(self.exceeded(Limit::Leaves, self.limits.leaves));
                }
            }
        }
        Ok(())
    }

    fn enter(&self) -> Result<(), LimitExceeded> {
        let allowed = usize::from(self.limits.depth);
        if self.trail.len() >= allowed { Err(self.exceeded(Limit::Depth, allowed)) } else { Ok(()) }
    }

    fn exceeded(&self, limit: Limit, allowed: usize) -> LimitExceeded {
        let mut text = Root::Body.name().to_owned();
        for step in &self.trail {
            match step {
                Step::Key(key) => path::push_key(&mut text, key),
                Step::Index(index) => path::push_index(&mut text, *index),
            }
        }
        text.truncate(text.floor_char_boundary(path::MAX_BYTES));
        LimitExceeded { limit, allowed, place: Place::Path(text) }
    }
}

/// A value that flattening does not go into (S06). `Display` writes it as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaf<'e> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A number, as the text it was sent as (S07).
    Number(Cow<'e, str>),
    /// A text.
    Text(&'e str),
    /// `{}`.
    EmptyObject,
    /// `[]`.
    EmptyArray,
}

impl<'e> Leaf<'e> {
    /// `None` for an object or array that has something in it.
    fn of(value: &'e Value) -> Option<Self> {
        match value {
            Value::Null => Some(Self::Null),
            Value::Bool(truth) => Some(Self::Boolean(*truth)),
            Value::Number(number) => Some(Self::Number(Cow::Borrowed(number.as_str()))),
            Value::String(text) => Some(Self::Text(text)),
            Value::Array(array) => array.is_empty().then_some(Self::EmptyArray),
            Value::Object(object) => object.is_empty().then_some(Self::EmptyObject),
        }
    }
}

impl fmt::Display for Leaf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Boolean(truth) => write!(f, "{truth}"),
            Self::Number(text) => f.write_str(text),
            Self::Text(text) => write!(f, "{}", Value::from(*text)),
            Self::EmptyObject => f.write_str("{}"),
            Self::EmptyArray => f.write_str("[]"),
        }
    }
}

/// Every parameter of a trigger with its canonical path: the body's in order of appearance, then the headers',
/// then method, time and ids (P9). The body has been held to its [`Limits`] before.
pub fn flatten(envelope: &Envelope) -> Vec<(String, Leaf<'_>)> {
    let mut list = Vec::new();
    // Nothing stops this walk: the visitor never breaks.
    let _ = walk(&mut Root::Body.name().to_owned(), envelope.body.value(), &mut |path, value| {
        list.extend(Leaf::of(value).map(|leaf| (path.to_owned(), leaf)));
        ControlFlow::Continue(())
    });
    for (name, value) in envelope.headers.iter() {
        let mut path = Root::Headers.name().to_owned();
        path::push_key(&mut path, name);
        list.push((path, Leaf::Text(value)));
    }
    let mut add = |root: Root, leaf| list.push((root.name().to_owned(), leaf));
    add(Root::Method, Leaf::Text(&envelope.method));
    add(Root::Time, Leaf::Number(Cow::Owned(envelope.time.to_string())));
    add(Root::EventId, Leaf::Text(&envelope.event_id));
    add(Root::EndpointId, Leaf::Text(&envelope.endpoint_id));
    add(Root::BusinessProfileId, Leaf::Number(Cow::Owned(envelope.business_profile_id.to_string())));
    list
}

/// Visits every leaf below `value` in order; `path` is the text of `value`'s own path and is restored.
/// The visitor may stop the walk.
pub(crate) fn walk<'v>(
    path: &mut String,
    value: &'v Value,
    visit: &mut dyn FnMut(&str, &'v Value) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let length = path.len();
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (key, inner) in object {
                path::push_key(path, key);
                walk(path, inner, visit)?;
                path.truncate(length);
            }
            ControlFlow::Continue(())
        }
        Value::Array(array) if !array.is_empty() => {
            for (index, inner) in array.iter().enumerate() {
                path::push_index(path, index);
                walk(path, inner, visit)?;
                path.truncate(length);
            }
            ControlFlow::Continue(())
        }
        _ => visit(path, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Headers;
    use std::collections::HashMap;

    fn envelope(body: Value) -> Envelope {
        Envelope {
            body: body.into(),
            business_profile_id: 7,
            endpoint_id: "ep".into(),
            event_id: "ev".into(),
            headers: Headers::from_iter([("X-Request-ID", "r-1"), ("X:odd", "o")]),
            method: "POST".into(),
            time: 12,
        }
    }

    fn body_list(body: &Value) -> Vec<String> {
        let envelope = envelope(body.clone());
        let all = flatten(&envelope);
        all.iter().take(all.len() - 7).map(|(path, leaf)| format!("{path} = {leaf}")).collect()
    }

    /// `text` (repeated `repeat` times, then `end`) or `hex` gives `list`, or is refused with `error`.
    #[test]
    fn golden() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/flatten/bodies.jsonl");
        let mut lists: HashMap<Vec<String>, Value> = HashMap::new();
        for line in std::fs::read_to_string(file).unwrap().lines().filter(|line| !line.is_empty()) {
            let case: Value = serde_json::from_str(line).unwrap();
            let bytes = match case["hex"].as_str() {
                Some(hex) => hex::decode(hex).unwrap(),
                None => {
                    let times = case["repeat"].as_u64().unwrap_or(1) as usize;
                    let end = case["end"].as_str().unwrap_or_default();
                    (case["text"].as_str().unwrap().repeat(times) + end).into_bytes()
                }
            };
            match (parse_body(&bytes, &Limits::default()), case["error"].as_str()) {
                (Err(error), Some(code)) => {
                    assert_eq!(error.code(), code, "{line}: {error}");
                    if let Some(message) = case["message"].as_str() {
                        assert_eq!(error.to_string(), message, "{line}");
                    }
                }
                (Ok(body), None) => {
                    check(&body, &Limits::default()).unwrap();
                    let list = body_list(&body);
                    if let Some(expected) = case["list"].as_array() {
                        let expected: Vec<_> = expected.iter().map(|entry| entry.as_str().unwrap()).collect();
                        assert_eq!(list, expected, "{line}");
                    }
                    // Injective: equal lists only from equal documents, and every path leads back to its value.
                    if let Some(known) = lists.insert(list, body.clone()) {
                        assert_eq!(known, body, "{line}");
                    }
                    paths_lead_back(body);
                }
                (outcome, expected) => panic!("{line}: {outcome:?}, expected {expected:?}"),
            }
        }
    }

    fn paths_lead_back(body: Value) {
        let envelope = envelope(body);
        for (text, leaf) in flatten(&envelope) {
            let path: crate::path::Path = text.parse().unwrap();
            assert_eq!(path.to_string(), text);
            match path.resolve(&envelope).as_slice() {
                [path::Found::Json(value)] => assert_eq!(Leaf::of(value).unwrap().to_string(), leaf.to_string()),
                [path::Found::Text(value)] => assert_eq!(leaf, Leaf::Text(value)),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_rest_of_the_envelope_follows_the_body() {
        let envelope = envelope(Value::Null);
        let list: Vec<_> = flatten(&envelope).into_iter().map(|(path, leaf)| format!("{path} = {leaf}")).collect();
        assert_eq!(
            list,
            [
                "body = null",
                "headers.X-Request-ID = \"r-1\"",
                "headers[\"X:odd\"] = \"o\"",
                "method = \"POST\"",
                "time = 12",
                "eventId = \"ev\"",
                "endpointId = \"ep\"",
                "businessProfileId = 7",
            ]
        );
    }

    #[test]
    fn check_agrees_with_the_reader() {
        let limits = Limits { depth: 2, leaves: 3, path_bytes: 12 };
        for (text, outcome) in [
            ("[[1]]", None),
            ("[[]]", None),
            ("[[[]]]", Some((Limit::Depth, "body[0][0]"))),
            ("[[[1]]]", Some((Limit::Depth, "body[0][0]"))),
            ("[1,2,3]", None),
            ("[1,2,{}, 4]", Some((Limit::Leaves, "body[3]"))),
            (r#"{"1234567":1}"#, None),
            (r#"{"12345678":1}"#, Some((Limit::PathBytes, "body.12345678"))),
        ] {
            let value = parse_body(text.as_bytes(), &Limits::STORED).unwrap();
            let checked = check(&value, &limits).err();
            let expected = outcome.map(|(limit, path): (_, &str)| (limit, Place::Path(path.into())));
            assert_eq!(checked.map(|e| (e.limit, e.place)), expected, "{text}");
            match parse_body(text.as_bytes(), &limits) {
                Ok(_) => assert!(outcome.is_none(), "{text}"),
                Err(BodyError::Limit(e)) => assert_eq!(Some(e.limit), outcome.map(|(limit, _)| limit), "{text}"),
                Err(other) => panic!("{text}: {other}"),
            }
        }
    }
}
