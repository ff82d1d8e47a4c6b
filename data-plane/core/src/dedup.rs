//! Which triggers are the same (D04, D05, R156–R164, S13).
//!
//! Hides the key: a SHA-256 over workspace, endpoint and each chosen parameter with its type and length,
//! so that no two different choices of values give the same bytes and nobody outside can aim at another's key.
//!
//! Values are the same when their JSON is: numbers by their text (`1` and `1.0` differ), objects whatever the order
//! of their keys (senders' serialisers do not promise one), arrays in order. Absent, null, `""` and `"null"` are
//! four values. A header sent several times counts as one with its values joined, as HTTP reads it.

use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::envelope::Envelope;
use crate::path::{self, Found, Path, PathError, Root};
use crate::request::is_token;

/// The header by which a caller may name its own identity of a request (R156).
pub const HASH_HEADER: &str = "X-Deduplication-Hash";
/// The longest value of [`HASH_HEADER`], in bytes.
pub const MAX_HASH_HEADER_BYTES: usize = 256;
/// How many parameters a rule may choose (R158).
pub const MAX_PARAMETERS: usize = 5;
/// How long a key is kept after the last request with it, unless a setting says otherwise (D05).
pub const DEFAULT_WINDOW: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The shortest window.
pub const MIN_WINDOW: Duration = Duration::from_secs(60);
/// The longest window.
pub const MAX_WINDOW: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// One chosen value of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// A value of the body; its path has no `[*]`.
    Body(Path),
    /// A header, in any case.
    Header(String),
}

impl Parameter {
    /// Reads the path as flattening lists it: `body.…` or `headers.…`.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        let refused = |problem: String| RuleError::Parameter { parameter: text.chars().take(100).collect(), problem };
        let path: Path = text.parse().map_err(|error: PathError| refused(error.to_string()))?;
        match (path.root(), path.header()) {
            // A rule over what is no header name would silently never see a value.
            (_, Some(name)) if is_token(name) => Ok(Self::Header(name.to_owned())),
            (Root::Headers, _) => Err(refused("no header can have this name".into())),
            (Root::Body, _) if path.has_any() => {
                Err(refused("[*] names several values; choose one place, such as [0]".into()))
            }
            (Root::Body, _) => Ok(Self::Body(path)),
            _ => Err(refused("only values of the body and headers can be chosen".into())),
        }
    }

    /// What makes it this parameter and no other: the canonical path, header names lower-cased.
    fn identity(&self) -> String {
        match self {
            Self::Body(path) => path.to_string(),
            Self::Header(name) => format!("{HEADERS}{}", name.to_ascii_lowercase()),
        }
    }
}

/// What the identities of headers begin with.
const HEADERS: &str = "headers.";
/// The identity of [`HASH_HEADER`].
const HASH_HEADER_IDENTITY: &str = "headers.x-deduplication-hash";

/// The name of the header that is this parameter.
fn header_of(identity: &str) -> Option<&str> {
    identity.strip_prefix(HEADERS)
}

/// Why a rule is refused on save.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A sixth parameter (R158).
    #[error("at most {MAX_PARAMETERS} deduplication parameters can be chosen; there are {count}")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// One parameter twice.
    #[error("the deduplication parameter {parameter} is chosen twice")]
    Twice {
        /// Which one.
        parameter: String,
    },
    /// Something that cannot be chosen.
    #[error("the deduplication parameter {parameter} cannot be used: {problem}")]
    Parameter {
        /// Its text, cut.
        parameter: String,
        /// What is wrong.
        problem: String,
    },
    /// Outside [`MIN_WINDOW`] … [`MAX_WINDOW`] (D05).
    #[error("the deduplication window must be between 1 minute and 30 days")]
    Window,
}

/// How an endpoint recognises duplicates. There may be very many: what is chosen is kept as it is written, in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What makes each parameter it and no other, in order, a line each: no path or header name has a line's end in it.
    parameters: Box<str>,
    /// The longest there may be fits.
    window_millis: u32,
    honour_header: bool,
}

impl Rule {
    /// The choice itself is part of every key, so that a changed one starts a new key space (S15). `honour_header` says
    /// whether [`HASH_HEADER`] counts while no parameter is chosen (X07). Parts of a millisecond of the window do not count.
    pub fn new(parameters: Vec<Parameter>, window: Duration, honour_header: bool) -> Result<Self, RuleError> {
        if parameters.len() > MAX_PARAMETERS {
            return Err(RuleError::TooMany { count: parameters.len() });
        }
        let identities: Vec<String> = parameters.iter().map(Parameter::identity).collect();
        for (index, identity) in identities.iter().enumerate() {
            if identities[..index].contains(identity) {
                return Err(RuleError::Twice { parameter: identity.clone() });
            }
        }
        if let Some(Parameter::Body(path)) = parameters
            .iter()
            .find(|parameter| matches!(parameter, Parameter::Body(path) if path.has_any() || path.root() != Root::Body))
        {
            let problem = "it must name one value of the body".into();
            return Err(RuleError::Parameter { parameter: path.to_string(), problem });
        }
        if !(MIN_WINDOW..=MAX_WINDOW).contains(&window) {
            return Err(RuleError::Window);
        }
        let window_millis = u32::try_from(window.as_millis()).map_err(|_too_long| RuleError::Window)?;
        Ok(Self { parameters: identities.join("\n").into(), window_millis, honour_header })
    }

    /// How long a key is kept, counted from the last request with it, duplicate or not (D05).
    pub fn window(&self) -> Duration {
        Duration::from_millis(self.window_millis.into())
    }

    /// Whether [`HASH_HEADER`] has a say in this rule.
    fn reads_hash_header(&self) -> bool {
        let chosen = |identity| header_of(identity).is_some_and(|name| name.eq_ignore_ascii_case(HASH_HEADER));
        if self.parameters.is_empty() { self.honour_header } else { self.parameters.lines().any(chosen) }
    }

    /// Checks the values of [`HASH_HEADER`] as they arrived, one per field; to be called before [`key`].
    /// A rule that does not read the header does not look at it. The trigger answers the error with 400.
    pub fn check_hash_header(&self, values: &[&[u8]]) -> Result<(), DedupHeaderInvalid> {
        if !self.reads_hash_header() {
            return Ok(());
        }
        match values {
            [] => Ok(()),
            [[]] => Err(DedupHeaderInvalid::Empty),
            [value] if value.len() > MAX_HASH_HEADER_BYTES => Err(DedupHeaderInvalid::TooLong),
            [value] if !value.iter().all(|byte| matches!(byte, b' '..=b'~')) => Err(DedupHeaderInvalid::NotText),
            [_] => Ok(()),
            _ => Err(DedupHeaderInvalid::Several),
        }
    }
}

/// [`HASH_HEADER`] came with a value that is no identity; the answer is 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DedupHeaderInvalid {
    /// Present without a value.
    #[error("{HASH_HEADER} is empty; send a value or leave the header out")]
    Empty,
    /// Over [`MAX_HASH_HEADER_BYTES`].
    #[error("{HASH_HEADER} is longer than {MAX_HASH_HEADER_BYTES} bytes")]
    TooLong,
    /// Bytes other than printable ASCII.
    #[error("{HASH_HEADER} must be printable ASCII text")]
    NotText,
    /// More than one field.
    #[error("{HASH_HEADER} was sent more than once")]
    Several,
}

/// The identity of a request at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DedupKey(pub [u8; 32]);

/// Why a request has no key and is always processed; counted in a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotDeduplicated {
    /// Nothing is chosen and the header is switched off.
    Off,
    /// Nothing is chosen and no [`HASH_HEADER`] was sent.
    NoHeader,
    /// Not one of the chosen parameters is in the request (D04).
    AllAbsent,
}

impl NotDeduplicated {
    /// The reason as a metric label.
    pub fn code(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::NoHeader => "no_header",
            Self::AllAbsent => "all_absent",
        }
    }
}

/// The key of a request under a rule.
pub fn key(rule: &Rule, workspace: &str, endpoint_id: &str, envelope: &Envelope) -> Result<DedupKey, NotDeduplicated> {
    let (parameters, when_absent) = match (&*rule.parameters, rule.honour_header) {
        ("", false) => return Err(NotDeduplicated::Off),
        ("", true) => (HASH_HEADER_IDENTITY, NotDeduplicated::NoHeader),
        (parameters, _) => (parameters, NotDeduplicated::AllAbsent),
    };
    let mut hash = Canonical(Sha256::new());
    hash.text("sluice.dedup.1");
    hash.text(workspace);
    hash.text(endpoint_id);
    hash.count(parameters.lines().count());
    let mut any_present = false;
    for identity in parameters.lines() {
        hash.text(identity);
        let found = match header_of(identity) {
            Some(name) => envelope.headers.get(name).map(Found::Text),
            None => envelope.body.pick(path::steps(identity)).map(Found::Json),
        };
        any_present |= hash.found(found.as_ref());
    }
    if any_present { Ok(DedupKey(hash.0.finalize().into())) } else { Err(when_absent) }
}

/// Writes values so that different ones never give the same bytes: a type byte, then lengths before contents.
struct Canonical(Sha256);

impl Canonical {
    fn tag(&mut self, tag: u8) {
        self.0.update([tag]);
    }

    fn count(&mut self, count: usize) {
        self.0.update((count as u64).to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.update(text);
    }

    /// Whether there was a value.
    fn found(&mut self, found: Option<&Found<'_>>) -> bool {
        match found {
            None => self.tag(b'-'),
            Some(Found::Text(text)) => {
                self.tag(b's');
                self.text(text);
            }
            Some(Found::Json(value)) => self.value(value),
        }
        found.is_some()
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.tag(b'0'),
            Value::Bool(false) => self.tag(b'f'),
            Value::Bool(true) => self.tag(b't'),
            Value::Number(number) => {
                self.tag(b'n');
                self.text(number.as_str());
            }
            Value::String(text) => {
                self.tag(b's');
                self.text(text);
            }
            Value::Array(array) => {
                self.tag(b'a');
                self.count(array.len());
                array.iter().for_each(|element| self.value(element));
            }
            Value::Object(object) => {
                self.tag(b'o');
                self.count(object.len());
                let mut entries: Vec<_> = object.iter().collect();
                entries.sort_unstable_by_key(|(key, _)| key.as_str());
                for (key, inner) in entries {
                    self.text(key);
                    self.value(inner);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::envelope::{Body, Headers};
    use crate::flatten::Limits;

    fn envelope(request: &Value) -> Envelope {
        let body = Bytes::from(request["body"].as_str().unwrap_or("{}").to_owned());
        let headers = request["headers"].as_object().into_iter().flatten();
        Envelope {
            body: Body::read(&body, &Limits::default()).unwrap(),
            business_profile_id: 7,
            endpoint_id: "ep".into(),
            event_id: "ev".into(),
            headers: Headers::from_iter(headers.map(|(name, value)| (name.as_str(), value.as_str().unwrap()))),
            method: "POST".into(),
            time: 0,
        }
    }

    fn rule(parameters: &Value, honour_header: bool) -> Rule {
        let parameters = parameters.as_array().unwrap().iter();
        let parameters = parameters.map(|text| Parameter::parse(text.as_str().unwrap()).unwrap()).collect();
        Rule::new(parameters, DEFAULT_WINDOW, honour_header).unwrap()
    }

    /// Each line: `parameters`, `honour_header` (true if not given), and either `requests` that are all `same` or
    /// all `different`, or one request with the reason why it is `none`, or the exact `key`.
    #[test]
    fn golden() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/dedup/keys.jsonl");
        for line in std::fs::read_to_string(file).unwrap().lines().filter(|line| !line.is_empty()) {
            let case: Value = serde_json::from_str(line).unwrap();
            let rule = rule(&case["parameters"], case["honour_header"].as_bool().unwrap_or(true));
            let requests = case["requests"].as_array().unwrap();
            let envelopes: Vec<Envelope> = requests.iter().map(envelope).collect();
            let keys: Vec<_> = envelopes.iter().map(|request| key(&rule, "7", "ep", request)).collect();
            // The same where the values are built already.
            for (request, expected) in envelopes.iter().zip(&keys) {
                request.body.value();
                assert_eq!(key(&rule, "7", "ep", request), *expected, "{line}");
            }
            match case["expect"].as_str().unwrap() {
                "same" => assert!(keys[0].is_ok() && keys.iter().all(|key| *key == keys[0]), "{line}"),
                "different" => {
                    for (index, key) in keys.iter().enumerate() {
                        assert!(key.is_ok() && !keys[..index].contains(key), "{line}: {index}");
                    }
                }
                expected => match keys[0] {
                    Ok(DedupKey(bytes)) => assert_eq!(hex::encode(bytes), expected, "{line}"),
                    Err(reason) => assert_eq!(reason.code(), expected, "{line}"),
                },
            }
        }
    }

    #[test]
    fn keys_do_not_cross_workspaces_endpoints_or_choices() {
        let request = envelope(&serde_json::json!({"body":"{\"a\":1}"}));
        let of = |parameters: &[&str], workspace, endpoint| {
            let parameters = parameters.iter().map(|text| Parameter::parse(text).unwrap()).collect();
            let rule = Rule::new(parameters, DEFAULT_WINDOW, true).unwrap();
            key(&rule, workspace, endpoint, &request).unwrap()
        };
        let (a, ab) = (["body.a"], ["body.a", "body.b"]);
        let keys = [of(&a, "7", "ep"), of(&ab, "7", "ep"), of(&a, "8", "ep"), of(&a, "7", "eq"), of(&a, "7e", "p")];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key));
        }
        assert_eq!(keys[0], of(&a, "7", "ep"));
    }

    #[test]
    fn rules_are_checked_when_made() {
        let parse = |text| Parameter::parse(text).unwrap();
        let new = |parameters| Rule::new(parameters, DEFAULT_WINDOW, true);
        let six = ["body.a", "body.b", "body.c", "body.d", "body.e", "headers.F"].map(parse).to_vec();
        assert!(new(six[..5].to_vec()).is_ok());
        assert_eq!(new(six), Err(RuleError::TooMany { count: 6 }));
        let twice = vec![parse("headers.X-A"), parse(r#"headers["x-a"]"#)];
        assert_eq!(new(twice), Err(RuleError::Twice { parameter: "headers.x-a".into() }));
        for text in ["body.a[*]", "method", "time", "headers", "nope", "", r#"headers["a b"]"#, r#"headers[""]"#] {
            assert!(matches!(Parameter::parse(text), Err(RuleError::Parameter { .. })), "{text}");
        }
        assert!(matches!(new(vec![Parameter::Body("body[*]".parse().unwrap())]), Err(RuleError::Parameter { .. })));
        for (window, ok) in [(59_999, false), (60_000, true), (2_592_000_000, true), (2_592_000_001, false)] {
            assert_eq!(Rule::new(vec![], Duration::from_millis(window), true).is_ok(), ok, "{window}");
        }
    }

    #[test]
    fn the_hash_header_is_checked_where_it_counts() {
        let long = [b'x'; 257];
        let honouring = rule(&serde_json::json!([]), true);
        for (values, outcome) in [
            (vec![], Ok(())),
            (vec![b"abc".as_slice()], Ok(())),
            (vec![&long[..256]], Ok(())),
            (vec![&long[..]], Err(DedupHeaderInvalid::TooLong)),
            (vec![b"".as_slice()], Err(DedupHeaderInvalid::Empty)),
            (vec![b"a".as_slice(), b"a"], Err(DedupHeaderInvalid::Several)),
            (vec![[0xff].as_slice()], Err(DedupHeaderInvalid::NotText)),
        ] {
            assert_eq!(honouring.check_hash_header(&values), outcome);
            let chosen = rule(&serde_json::json!(["body.a", "headers.x-deduplication-hash"]), false);
            assert_eq!(chosen.check_hash_header(&values), outcome);
            assert_eq!(rule(&serde_json::json!([]), false).check_hash_header(&values), Ok(()));
            assert_eq!(rule(&serde_json::json!(["body.a"]), true).check_hash_header(&values), Ok(()));
        }
    }
}
