//! How a value in a trigger is named, and found again (D15, R147, S05).
//!
//! Hides the grammar. A path starts with a part of the envelope and goes on with keys and places:
//! `body.a.b[0].c`, `body["og:title"]`, `body.products[*].id`, `headers.X-Request-ID`, `method`, `time`.
//! [`Path`]'s `Display` writes the one canonical form, the same text that flattening lists.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use crate::cause::Cause;

/// The longest path, in bytes, as written and in canonical form (D16).
pub const MAX_BYTES: usize = 512;

/// The part of the envelope a path starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Root {
    /// The request body; keys and places may follow.
    Body,
    /// The headers; exactly one name follows.
    Headers,
    /// The request method.
    Method,
    /// Arrival, milliseconds since 1970.
    Time,
    /// The trigger's id.
    EventId,
    /// The endpoint's id.
    EndpointId,
    /// The workspace.
    BusinessProfileId,
    /// An event that starts a workflow; keys and places may follow (F82).
    Event,
    /// Whose event it is; keys and places may follow (D02).
    Customer,
}

impl Root {
    /// Every root: those of a request in the order flattening lists them (P9), then the event's and its customer's.
    pub const ALL: [Self; 9] = [
        Self::Body,
        Self::Headers,
        Self::Method,
        Self::Time,
        Self::EventId,
        Self::EndpointId,
        Self::BusinessProfileId,
        Self::Event,
        Self::Customer,
    ];

    /// The name as written in a path and in the envelope (R177).
    pub fn name(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Headers => "headers",
            Self::Method => "method",
            Self::Time => "time",
            Self::EventId => "eventId",
            Self::EndpointId => "endpointId",
            Self::BusinessProfileId => "businessProfileId",
            Self::Event => "event",
            Self::Customer => "customer",
        }
    }
}

/// One step of a path below its root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment<K = String> {
    /// A key of an object, or a header name.
    Key(K),
    /// A place in an array, from 0.
    Index(u32),
    /// `[*]`: every element of an array; a condition holds when it holds for any of them (D17).
    Any,
}

impl Segment<Cow<'_, str>> {
    fn into_owned(self) -> Segment {
        match self {
            Self::Key(key) => Segment::Key(key.into_owned()),
            Self::Index(index) => Segment::Index(index),
            Self::Any => Segment::Any,
        }
    }
}

/// The steps below the root of a path that was written by [`Path`] itself; only what is escaped in it is copied.
pub(crate) fn steps(canonical: &str) -> impl Iterator<Item = Segment<Cow<'_, str>>> {
    let mut reader = Reader { text: canonical, at: 0 };
    reader.plain();
    std::iter::from_fn(move || reader.segment().ok())
}

/// A parsed path; see the module's grammar. Two paths are equal exactly when their canonical texts are
/// (header names keep their capitals but are looked up without regard to them).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    root: Root,
    segments: Box<[Segment]>,
}

/// A value that a path leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Found<'e> {
    /// A JSON value: from the body, or one of the envelope's numbers.
    Json(Cow<'e, Value>),
    /// A header's value, the method or an id: always text.
    Text(&'e str),
}

/// Why a text is not a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The text, or its canonical form, is over [`MAX_BYTES`].
    #[error("path is {length} bytes long; the limit is {MAX_BYTES}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// Something else was expected at a position.
    #[error("at character {position}: expected {expected}")]
    Syntax {
        /// Where, counted in characters from 1.
        position: usize,
        /// What may stand there.
        expected: &'static str,
    },
}

impl Path {
    /// The part of the envelope it starts from.
    pub fn root(&self) -> Root {
        self.root
    }

    /// The steps below the root.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The header name, when this path names a header.
    pub fn header(&self) -> Option<&str> {
        match (self.root, &*self.segments) {
            (Root::Headers, [Segment::Key(name)]) => Some(name),
            _ => None,
        }
    }

    /// Whether it contains `[*]`, so that it may lead to several values.
    pub fn has_any(&self) -> bool {
        self.segments.contains(&Segment::Any)
    }

    /// Every value the path leads to, in order: none when it is absent, a JSON null when it is null.
    /// Without `[*]` there is at most one.
    /// A request has no event and no customer, and an event has nothing of a request.
    pub fn resolve<'e>(&self, cause: impl Into<Cause<'e>>) -> Vec<Found<'e>> {
        let descend = |value: &'e Value| {
            let mut found = Vec::new();
            descend(value, &self.segments, &mut found);
            found
        };
        let envelope = match (cause.into(), self.root) {
            (Cause::Event(event), Root::Event) => return descend(event.document()),
            (Cause::Event(event), Root::Customer) => return event.customer().map(descend).unwrap_or_default(),
            (Cause::Event(_), _) => return Vec::new(),
            (Cause::Request(envelope), _) => envelope,
        };
        match self.root {
            Root::Event | Root::Customer => Vec::new(),
            Root::Body => descend(envelope.body.value()),
            Root::Headers => {
                self.header().and_then(|name| envelope.headers.get(name)).map(Found::Text).into_iter().collect()
            }
            Root::Method => vec![Found::Text(&envelope.method)],
            Root::EventId => vec![Found::Text(&envelope.event_id)],
            Root::EndpointId => vec![Found::Text(&envelope.endpoint_id)],
            Root::Time => vec![Found::Json(Cow::Owned(Value::from(envelope.time)))],
            Root::BusinessProfileId => vec![Found::Json(Cow::Owned(Value::from(envelope.business_profile_id)))],
        }
    }
}

/// The value at the end of steps of which none is `[*]`.
pub(crate) fn descend_one<K: AsRef<str>>(value: &Value, mut steps: impl Iterator<Item = Segment<K>>) -> Option<&Value> {
    steps.try_fold(value, |value, step| match step {
        Segment::Key(key) => value.as_object()?.get(key.as_ref()),
        Segment::Index(index) => value.as_array()?.get(index as usize),
        Segment::Any => None,
    })
}

fn descend<'e>(value: &'e Value, segments: &[Segment], found: &mut Vec<Found<'e>>) {
    let Some((segment, rest)) = segments.split_first() else {
        found.push(Found::Json(Cow::Borrowed(value)));
        return;
    };
    match (segment, value) {
        (Segment::Key(key), Value::Object(object)) => {
            object.get(key).into_iter().for_each(|inner| descend(inner, rest, found));
        }
        (Segment::Index(index), Value::Array(array)) => {
            array.get(*index as usize).into_iter().for_each(|inner| descend(inner, rest, found));
        }
        (Segment::Any, Value::Array(array)) => array.iter().for_each(|inner| descend(inner, rest, found)),
        _ => {}
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.root.name().to_owned();
        for segment in &*self.segments {
            match segment {
                Segment::Key(key) => push_key(&mut text, key),
                Segment::Index(index) => push_index(&mut text, *index as usize),
                Segment::Any => text.push_str("[*]"),
            }
        }
        f.write_str(&text)
    }
}

/// Appends a key in canonical form: `.key`, or `["…"]` when it is not letters, digits, `_` and `-` only (D15).
pub(crate) fn push_key(text: &mut String, key: &str) {
    if is_plain(key) {
        text.push('.');
        text.push_str(key);
        return;
    }
    text.push_str("[\"");
    for c in key.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\0'..='\u{1f}' | '\u{7f}' => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => text.push(c),
        }
    }
    text.push_str("\"]");
}

/// Appends `[index]`.
pub(crate) fn push_index(text: &mut String, index: usize) {
    text.push_str(&format!("[{index}]"));
}

/// How many bytes [`push_key`] would append, without writing them.
pub(crate) fn key_bytes(key: &str) -> usize {
    if is_plain(key) {
        return 1 + key.len();
    }
    let escaped = |byte| match byte {
        b'"' | b'\\' => 2,
        0..=0x1f | 0x7f => 6,
        _ => 1,
    };
    4 + key.bytes().map(escaped).sum::<usize>()
}

/// How many bytes [`push_index`] would append.
pub(crate) fn index_bytes(index: usize) -> usize {
    2 + index.checked_ilog10().map_or(1, |digits| digits as usize + 1)
}

fn is_plain(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(is_plain_byte)
}

fn is_plain_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text.len() > MAX_BYTES {
            return Err(PathError::TooLong { length: text.len() });
        }
        let mut reader = Reader { text, at: 0 };
        let name = reader.plain();
        let root = Root::ALL.into_iter().find(|root| root.name() == name).ok_or(PathError::Syntax {
            position: 1,
            expected: "body, headers, method, time, eventId, endpointId, businessProfileId, event or customer",
        })?;
        let mut segments = Vec::new();
        while !reader.rest().is_empty() {
            match root {
                Root::Body | Root::Event | Root::Customer => segments.push(reader.segment()?.into_owned()),
                Root::Headers if segments.is_empty() => match reader.segment()? {
                    Segment::Key(name) => segments.push(Segment::Key(name.into_owned())),
                    _ => return Err(PathError::Syntax { position: 8, expected: "a header name" }),
                },
                _ => return Err(reader.expected("the end of the path")),
            }
        }
        if root == Root::Headers && segments.is_empty() {
            return Err(reader.expected("a header name, as in headers.Content-Type"));
        }
        let path = Self { root, segments: segments.into() };
        match path.to_string().len() {
            length if length > MAX_BYTES => Err(PathError::TooLong { length }),
            _ => Ok(path),
        }
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn expected(&self, expected: &'static str) -> PathError {
        PathError::Syntax { position: self.text[..self.at].chars().count() + 1, expected }
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn plain(&mut self) -> &'t str {
        let rest = self.rest();
        let length = rest.bytes().take_while(|&byte| is_plain_byte(byte)).count();
        self.at += length;
        &rest[..length]
    }

    fn segment(&mut self) -> Result<Segment<Cow<'t, str>>, PathError> {
        if self.eat(".") {
            return match self.plain() {
                "" => Err(self.expected("a key of letters, digits, _ or - (write any other key as [\"key\"])")),
                key => Ok(Segment::Key(key.into())),
            };
        }
        if !self.eat("[") {
            return Err(self.expected("'.', '[' or the end of the path"));
        }
        let segment = match self.rest().chars().next() {
            Some('*') => {
                self.at += 1;
                Segment::Any
            }
            Some(quote @ ('"' | '\'')) => {
                self.at += 1;
                Segment::Key(self.quoted(quote)?)
            }
            Some('0'..='9') => Segment::Index(self.index()?),
            _ => return Err(self.expected("a place such as 0, a quoted key, or *")),
        };
        if self.eat("]") { Ok(segment) } else { Err(self.expected("']'")) }
    }

    fn index(&mut self) -> Result<u32, PathError> {
        let start = self.at;
        let length = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        let digits = &self.rest()[..length];
        self.at += length;
        match digits.parse() {
            // One text per place: `[007]` is not another name of `[7]`.
            Ok(index) if length == 1 || !digits.starts_with('0') => Ok(index),
            _ => {
                self.at = start;
                Err(self.expected("a place below 4294967296 without leading zeros"))
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Result<Cow<'t, str>, PathError> {
        let rest = self.rest();
        if let Some((key, _)) = rest.split_once(quote).filter(|(key, _)| !key.contains('\\')) {
            self.at += key.len() + quote.len_utf8();
            return Ok(key.into());
        }
        let mut key = String::new();
        loop {
            let Some(c) = self.rest().chars().next() else {
                return Err(self.expected("the closing quote"));
            };
            self.at += c.len_utf8();
            match c {
                _ if c == quote => return Ok(key.into()),
                '\\' => key.push(self.escape()?),
                _ => key.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, PathError> {
        const KNOWN: &str = "an escape as in JSON: \\\" \\\\ \\/ \\b \\f \\n \\r \\t or \\u with four hex digits";
        let c = self.rest().chars().next().ok_or_else(|| self.expected(KNOWN))?;
        let plain = match c {
            '"' | '\'' | '\\' | '/' => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let hex = self.rest().get(1..5).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
                // Surrogate halves are no characters; such keys are written with the character itself.
                let code = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32);
                let c = code.ok_or_else(|| self.expected(KNOWN))?;
                self.at += 5;
                return Ok(c);
            }
            _ => return Err(self.expected(KNOWN)),
        };
        self.at += c.len_utf8();
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Envelope;
    use crate::envelope::Headers;
    use serde_json::json;

    fn envelope() -> Envelope {
        Envelope {
            body: json!({"a":{"b":[{"c":1},{"c":null}]},"og:title":"t","a.b":2,"":3,"products":[{"id":"x"},{},{"id":"y"}]}).into(),
            business_profile_id: 7,
            endpoint_id: "ep".into(),
            event_id: "ev".into(),
            headers: Headers::from_iter([("X-Request-ID", "r-1")]),
            method: "POST".into(),
            time: 1_718_010_931_000,
        }
    }

    fn found(path: &str) -> Vec<Value> {
        let read = |found| match found {
            Found::Json(value) => value.into_owned(),
            Found::Text(text) => json!(text),
        };
        path.parse::<Path>().unwrap().resolve(&envelope()).into_iter().map(read).collect()
    }

    #[test]
    fn the_steps_of_what_is_written_are_those_that_were_read() {
        let odd = r#"body["a\\b"]["\"]["]["\u0007"]["\n'"][""]['it"s'][3].é"#.replace(".é", r#"["é]"]"#);
        for text in ["body", "body.a.b[0].c", "body[*].a", "headers.X-Request-ID", "event.a", "time", &odd] {
            let path: Path = text.parse().unwrap();
            let canonical = path.to_string();
            let read: Vec<Segment> = steps(&canonical).map(Segment::into_owned).collect();
            assert_eq!(read, path.segments(), "{canonical}");
        }
    }

    #[test]
    fn leads_to_values_and_tells_absent_from_null() {
        assert_eq!(found("body.a.b[0].c"), [json!(1)]);
        assert_eq!(found("body.a.b[1].c"), [Value::Null]);
        assert!(found("body.a.b[2].c").is_empty());
        assert!(found("body.a[0]").is_empty());
        assert_eq!(found("body['og:title']"), [json!("t")]);
        assert_eq!(found(r#"body["a.b"]"#), [json!(2)]);
        assert_eq!(found(r#"body[""]"#), [json!(3)]);
        assert_eq!(found("body.products[*].id"), [json!("x"), json!("y")]);
        assert_eq!(found(r#"headers["x-request-ID"]"#), [json!("r-1")]);
        assert_eq!(found("headers.X-REQUEST-ID"), [json!("r-1")]);
        assert!(found("headers.Other").is_empty());
        assert_eq!(found("time"), [json!(1_718_010_931_000_i64)]);
        assert_eq!(found("method"), [json!("POST")]);
        assert_eq!(found("businessProfileId"), [json!(7)]);
        assert_eq!(found("body").len(), 1);
    }

    #[test]
    fn has_one_canonical_text() {
        for (text, canonical) in [
            ("body", "body"),
            ("body.a.b[0].c", "body.a.b[0].c"),
            (r#"body["a"]['b-c'][10]"#, "body.a.b-c[10]"),
            (r#"body["og:title"]"#, r#"body["og:title"]"#),
            (r#"body['it\'s "x"\\\n']"#, r#"body["it's \"x\"\\\u000a"]"#),
            (r#"body["\u0041"]"#, "body.A"),
            (r#"body["ł"][""]"#, r#"body["ł"][""]"#),
            ("body[*][*].id", "body[*][*].id"),
            (r#"headers["X-Request-ID"]"#, "headers.X-Request-ID"),
        ] {
            let path: Path = text.parse().unwrap();
            assert_eq!(path.to_string(), canonical);
            assert_eq!(path.to_string().parse::<Path>().unwrap(), path);
        }
    }

    #[test]
    fn says_where_and_what_was_expected() {
        for (text, position) in [
            ("", 1),
            ("Body.a", 1),
            ("bodyx", 1),
            ("body.", 6),
            ("body..a", 6),
            ("body.ł", 6),
            ("body a", 5),
            ("body[", 6),
            ("body[-1]", 6),
            ("body[01]", 6),
            ("body[4294967296]", 6),
            ("body[1", 7),
            (r#"body["a]"#, 9),
            (r#"body["\x"]"#, 8),
            (r#"body["\ud800"]"#, 8),
            ("headers", 8),
            ("headers[0]", 8),
            ("headers.a.b", 10),
            ("method.x", 7),
            ("łbody", 1),
            (r#"body["ł"x"#, 9),
        ] {
            match text.parse::<Path>() {
                Err(PathError::Syntax { position: at, .. }) => assert_eq!(at, position, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        let long = format!("body.{}", "a".repeat(508));
        assert_eq!(long.parse::<Path>(), Err(PathError::TooLong { length: 513 }));
        assert!(long[..512].parse::<Path>().is_ok());
        assert!(format!("body['{}']", "\"".repeat(300)).parse::<Path>().is_err(), "the canonical form is longer");
    }

    #[test]
    fn lengths_are_those_of_the_text() {
        for key in ["a", "", "og:title", "\"\\\n\u{7f}", "łódź"] {
            let mut text = String::new();
            push_key(&mut text, key);
            assert_eq!(key_bytes(key), text.len());
        }
        for index in [0, 9, 10, 99, 100, 12345] {
            let mut text = String::new();
            push_index(&mut text, index);
            assert_eq!(index_bytes(index), text.len());
        }
    }
}
