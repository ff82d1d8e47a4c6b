//! What a template, a filter and a dedup rule see of a trigger (R177, D13).
//!
//! Hides how headers are kept (sender's order, names without regard to case, repeated names joined) and how an
//! envelope survives storage: [`Envelope`] round-trips through JSON without losing the text of a number (D16).

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

use bytes::Bytes;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::flatten::{self, BodyError, Limits};
use crate::path::{self, Segment};

/// One accepted trigger request, as templates (`request.…`), filters, dedup rules and samples see it (R177).
///
/// Written ([`Envelope::to_json`]) with the field names and order of R177. Reading it back keeps every number's text and takes keys
/// literally, which plain `serde_json` does not: it rewrites `1e400` to `1e+400` and gives some keys a meaning.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// The request body; any JSON value (D16).
    pub body: Body,
    /// The workspace (S48).
    pub business_profile_id: u64,
    /// The endpoint that was called.
    pub endpoint_id: String,
    /// The id given to this trigger when it was accepted.
    pub event_id: String,
    /// The request's headers.
    pub headers: Headers,
    /// The request's method, `POST`.
    pub method: String,
    /// When the request arrived, in milliseconds since 1970 (UTC).
    pub time: i64,
}

impl Envelope {
    /// As JSON, the body in its own text: what a job keeps. [`Envelope::from_json`] gives back the same.
    pub fn to_json(&self) -> Vec<u8> {
        let Self { body, business_profile_id, endpoint_id, event_id, headers, method, time } = self;
        let (business_profile_id, time) = (*business_profile_id, *time);
        let rest = Rest { business_profile_id, endpoint_id, event_id, headers, method, time };
        let mut json = Vec::with_capacity(body.text().len() + 512);
        json.extend_from_slice(b"{\"body\":");
        json.extend_from_slice(body.text().as_bytes());
        let brace = json.len();
        serde_json::to_writer(&mut json, &rest).expect("an envelope has only text keys");
        json[brace] = b',';
        json
    }

    /// Reads what [`Envelope::to_json`] wrote.
    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The same from what was kept since: its body was checked before, and stays where it is.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_kept(kept: &Bytes) -> Result<Self, serde_json::Error> {
        let Kept { body, business_profile_id, endpoint_id, event_id, headers, method, time } =
            serde_json::from_slice(kept)?;
        let body = Body { text: kept.slice_ref(body.get().as_bytes()), value: OnceLock::new() };
        Ok(Self { body, business_profile_id, endpoint_id, event_id, headers, method, time })
    }
}

/// An [`Envelope`] as it lies there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept<'k> {
    #[serde(borrow)]
    body: &'k RawValue,
    business_profile_id: u64,
    endpoint_id: String,
    event_id: String,
    headers: Headers,
    method: String,
    time: i64,
}

/// An [`Envelope`] after its body.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rest<'a> {
    business_profile_id: u64,
    endpoint_id: &'a str,
    event_id: &'a str,
    headers: &'a Headers,
    method: &'a str,
    time: i64,
}

/// A body that is known to be JSON. It is kept as the text it was sent as, and its values are built when they are first
/// asked for: most requests are taken in without.
#[derive(Clone, Debug)]
pub struct Body {
    /// UTF-8, without the white space around.
    text: Bytes,
    value: OnceLock<Value>,
}

impl Body {
    /// Reads a body under limits.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &Bytes, limits: &Limits) -> Result<Self, BodyError> {
        flatten::check_body(text, limits)?;
        Ok(Self { text: text.slice_ref(text.trim_ascii()), value: OnceLock::new() })
    }

    /// Its text.
    pub fn text(&self) -> &str {
        // It is UTF-8 since it was made.
        std::str::from_utf8(&self.text).unwrap_or_default()
    }

    /// One value of it, at the end of steps of which none is `[*]`. Builds no more than that, unless all is built already.
    pub(crate) fn pick<K: AsRef<str>>(&self, steps: impl Iterator<Item = Segment<K>>) -> Option<Cow<'_, Value>> {
        if let Some(value) = self.value.get() {
            return path::descend_one(value, steps).map(Cow::Borrowed);
        }
        let text = flatten::pick(self.text(), steps)?;
        flatten::parse_body(text.as_bytes(), &Limits::STORED).ok().map(Cow::Owned)
    }

    /// Its value, with the text of each number (D16).
    pub fn value(&self) -> &Value {
        // It has been read once under limits that are not wider.
        self.value.get_or_init(|| flatten::parse_body(&self.text, &Limits::STORED).unwrap_or_default())
    }
}

impl From<Value> for Body {
    fn from(value: Value) -> Self {
        Self { text: value.to_string().into(), value: value.into() }
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.value() == other.value()
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::read(&Box::<str>::from(raw).into_boxed_bytes().into(), &Limits::STORED).map_err(D::Error::custom)
    }
}

/// Header fields in the order they arrived; names ignore case, repeated names are joined with `, ` (D13).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value. A name that is already there (in any case) keeps its first spelling and place and gets
    /// `, ` and the value appended.
    pub fn push(&mut self, name: &str, value: &str) {
        self.put(name.to_owned(), value.to_owned());
    }

    fn put(&mut self, name: String, value: String) {
        match self.0.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(&name)) {
            Some((_, joined)) => {
                joined.push_str(", ");
                joined.push_str(&value);
            }
            None => self.0.push((name, value)),
        }
    }

    /// Adds a field as the HTTP layer hands it over: a lower-cased name gets its usual capitals (R178), and value
    /// bytes that are not UTF-8 are read as ISO 8859-1, so that no byte is lost.
    pub fn push_received(&mut self, name: &str, value: &[u8]) {
        let value = match std::str::from_utf8(value) {
            Ok(text) => text.to_owned(),
            Err(_) => value.iter().map(|&byte| char::from(byte)).collect(),
        };
        let cased = name.bytes().any(|byte| byte.is_ascii_uppercase());
        self.put(if cased { name.to_owned() } else { usual_capitals(name) }, value);
    }

    /// The value of `name`, whatever the case of either; several values come joined.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Name and value of each field, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How many different names there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no field at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        let mut headers = Self::new();
        for (name, value) in fields {
            headers.push(name.as_ref(), value.as_ref());
        }
        headers
    }
}

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Headers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of header names and texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut headers = Headers::new();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    headers.push(&name, &value);
                }
                Ok(headers)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// The usual spelling of a header name that a library has lower-cased: `x-request-id` → `X-Request-ID` (R178).
///
/// Each part between hyphens starts with a capital; abbreviations are written as their specifications write them.
pub fn usual_capitals(lowercase_name: &str) -> String {
    let mut name = String::with_capacity(lowercase_name.len());
    for (index, part) in lowercase_name.split('-').enumerate() {
        if index > 0 {
            name.push('-');
        }
        match part {
            "etag" => name.push_str("ETag"),
            "websocket" => name.push_str("WebSocket"),
            "cf" | "ch" | "ct" | "dns" | "dnt" | "gpc" | "http2" | "id" | "ip" | "md5" | "mime" | "nel" | "te"
            | "ua" | "www" | "xss" => name.push_str(&part.to_ascii_uppercase()),
            _ => {
                let mut letters = part.chars();
                name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
                name.push_str(letters.as_str());
            }
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_their_usual_capitals() {
        for (lower, usual) in [
            ("x-request-id", "X-Request-ID"),
            ("x-forwarded-host", "X-Forwarded-Host"),
            ("etag", "ETag"),
            ("www-authenticate", "WWW-Authenticate"),
            ("content-type", "Content-Type"),
            ("x-hub-signature-256", "X-Hub-Signature-256"),
            ("dnt", "DNT"),
            ("te", "TE"),
            ("sec-websocket-key", "Sec-WebSocket-Key"),
            ("", ""),
            ("a--b-", "A--B-"),
        ] {
            assert_eq!(usual_capitals(lower), usual);
        }
    }

    #[test]
    fn headers_ignore_case_and_join_repeats() {
        let mut headers = Headers::new();
        headers.push_received("accept", b"a");
        headers.push_received("x-b", &[b'h', 0xe9]);
        headers.push("ACCEPT", "b");
        headers.push_received("x-MiXed", "ł".as_bytes());
        assert_eq!(headers.get("aCCept"), Some("a, b"));
        assert_eq!(headers.get("absent"), None);
        let fields: Vec<_> = headers.iter().collect();
        assert_eq!(fields, [("Accept", "a, b"), ("X-B", "h\u{e9}"), ("x-MiXed", "ł")]);
    }

    #[test]
    fn the_bodys_own_text_gives_the_same_envelope() {
        for body in [r#" {"a":1e400,"b":[1.10,null,"\u0142"],"a":2} "#, "[]", "\"x\"", "18446744073709551617"] {
            let envelope = Envelope {
                body: Body::read(&body.into(), &Limits::default()).unwrap(),
                business_profile_id: 7,
                endpoint_id: "ep".into(),
                event_id: "ev".into(),
                headers: Headers::from_iter([("X-A", "1")]),
                method: "POST".into(),
                time: 5,
            };
            let json = envelope.to_json();
            assert!(json.starts_with(format!("{{\"body\":{},\"", body.trim()).as_bytes()), "{body}");
            assert_eq!(Envelope::from_json(&json).unwrap(), envelope, "{body}");
            let kept = Envelope::from_kept(&json.into()).unwrap();
            assert_eq!((kept.body.text(), &kept), (body.trim(), &envelope));
            // What is built of the text says the same.
            let built = Envelope { body: envelope.body.value().clone().into(), ..envelope.clone() };
            assert_eq!(Envelope::from_json(&built.to_json()).unwrap(), envelope, "{body}");
        }
    }

    #[test]
    fn an_envelope_survives_storage_to_the_byte() {
        let with_body = |body: &str| {
            format!(
                r#"{{"body":{body},"businessProfileId":7,"endpointId":"e","eventId":"v","headers":{{"X-Request-ID":"r-1","X-Forwarded-Host":"h"}},"method":"POST","time":1718010931000}}"#
            )
        };
        for body in [
            r#"{"big":18446744073709551617,"e":1e400,"E":1E5,"neg":-0,"d":9007199254740993.0}"#,
            // Keys that serde_json gives a meaning of its own must stay keys.
            r#"{"$serde_json::private::Number":"1"}"#,
            r#"[{"$serde_json::private::RawValue":"{"}]"#,
            "null",
        ] {
            let text = with_body(body);
            let envelope: Envelope = serde_json::from_str(&text).unwrap();
            assert_eq!(String::from_utf8(envelope.to_json()).unwrap(), text);
            assert_eq!(serde_json::from_slice::<Envelope>(text.as_bytes()).unwrap(), envelope);
        }
        let text = with_body("{}");
        assert!(serde_json::from_str::<Envelope>(&text.replace("\"r-1\"", "5")).is_err());
    }
}
