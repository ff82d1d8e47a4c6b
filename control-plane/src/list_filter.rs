//! The filter of a list: a subset of what AIP-160 describes, read against the contract's descriptors, so that every field a
//! caller can read can be filtered by, and a misspelt one is refused.
//!
//! `published_version > 0 AND (display_name : "crm" OR NOT steps.action_url = x)`: tests of fields joined by `AND`, `OR` (which
//! binds closer, as AIP-160 has it) and `NOT` or `-`, with parentheses. A path goes through messages and lists with dots; a list
//! matches when one of its entries does. `=`, `!=`, `<`, `<=`, `>`, `>=` compare; `:` finds a text within a text whatever its
//! capitals, and `field:*` asks whether the field is set. Texts with anything but letters, digits and `-_./@` stand in double
//! quotes.

use std::cmp::Ordering;

use prost_reflect::{
    Cardinality, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value,
};
use prost_types::Timestamp;
use sluice_core::validate::Violation;

use crate::error::violation;

/// Longest filter, in bytes.
const BYTES_MAX: usize = 1000;
/// Most tests in one filter.
const TESTS_MAX: usize = 50;
/// Deepest nesting of parentheses and `NOT`.
const DEPTH_MAX: usize = 16;

/// A filter that was understood.
#[derive(Debug)]
pub(crate) struct Filter(Option<Node>);

#[derive(Debug)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Test(Test),
}

/// One field compared with one value.
#[derive(Debug)]
struct Test {
    path: Vec<FieldDescriptor>,
    comparator: Comparator,
    operand: Operand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Has,
}

#[derive(Debug)]
enum Operand {
    /// `*`: set at all.
    Anything,
    Text(String),
    Bool(bool),
    Number(i64),
    Time(Timestamp),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    Comparator(Comparator),
    Open,
    Close,
}

fn broken(reason: &'static str, message: impl Into<String>) -> Violation {
    violation("filter", reason, message)
}

impl Filter {
    /// Reads a filter over messages of this kind; an empty one lets everything through.
    ///
    /// # Errors
    /// It cannot be read, names a field that is not there, or is over a limit.
    pub(crate) fn parse(text: &str, kind: &MessageDescriptor) -> Result<Self, Violation> {
        if text.len() > BYTES_MAX {
            return Err(broken("TOO_LONG", format!("has {} bytes; the limit is {BYTES_MAX}", text.len())));
        }
        let tokens = scan(text)?;
        if tokens.is_empty() {
            return Ok(Self(None));
        }
        let mut parser = Parser { tokens: tokens.into_iter().peekable(), kind, tests: 0 };
        let node = parser.all(0)?;
        match parser.tokens.next() {
            None => Ok(Self(Some(node))),
            Some(_) => Err(broken("SYNTAX", "has a `)` too many")),
        }
    }

    /// It lets everything through.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether it lets the message through.
    pub(crate) fn matches(&self, message: &DynamicMessage) -> bool {
        self.0.as_ref().is_none_or(|node| node.matches(message))
    }
}

fn scan(text: &str) -> Result<Vec<Token>, Violation> {
    let mut tokens = Vec::new();
    let mut rest = text.char_indices().peekable();
    while let Some((at, first)) = rest.next() {
        let mut then_equals = || rest.next_if(|(_, next)| *next == '=').is_some();
        let token = match first {
            _ if first.is_whitespace() => continue,
            '(' => Token::Open,
            ')' => Token::Close,
            ':' => Token::Comparator(Comparator::Has),
            '=' => Token::Comparator(Comparator::Equal),
            '!' if then_equals() => Token::Comparator(Comparator::NotEqual),
            '<' if then_equals() => Token::Comparator(Comparator::LessOrEqual),
            '<' => Token::Comparator(Comparator::Less),
            '>' if then_equals() => Token::Comparator(Comparator::GreaterOrEqual),
            '>' => Token::Comparator(Comparator::Greater),
            '"' => Token::Quoted(quoted(&mut rest)?),
            _ if is_plain(first) => {
                let mut word = String::from(first);
                while let Some((_, next)) = rest.next_if(|(_, next)| is_plain(*next)) {
                    word.push(next);
                }
                Token::Word(word)
            }
            _ => {
                let message = format!("cannot be read at byte {at}: put texts in double quotes");
                return Err(broken("SYNTAX", message));
            }
        };
        tokens.push(token);
    }
    Ok(tokens)
}

fn is_plain(character: char) -> bool {
    character.is_alphanumeric() || "-_./@*".contains(character)
}

/// The text up to the closing quote; `\` takes the next character as it is.
fn quoted(rest: &mut impl Iterator<Item = (usize, char)>) -> Result<String, Violation> {
    let mut text = String::new();
    while let Some((_, next)) = rest.next() {
        match next {
            '"' => return Ok(text),
            '\\' => text.extend(rest.next().map(|(_, escaped)| escaped)),
            _ => text.push(next),
        }
    }
    Err(broken("SYNTAX", "has a text without its closing quote"))
}

struct Parser<'a, I: Iterator<Item = Token>> {
    tokens: std::iter::Peekable<I>,
    kind: &'a MessageDescriptor,
    tests: usize,
}

impl<I: Iterator<Item = Token>> Parser<'_, I> {
    fn take_word(&mut self, word: &str) -> bool {
        self.tokens.next_if(|token| matches!(token, Token::Word(found) if found == word)).is_some()
    }

    /// Parts joined by `AND`, or by nothing, which means the same.
    fn all(&mut self, depth: usize) -> Result<Node, Violation> {
        let mut parts = vec![self.any(depth)?];
        while self.tokens.peek().is_some_and(|token| *token != Token::Close) {
            self.take_word("AND");
            parts.push(self.any(depth)?);
        }
        Ok(one_or(parts, Node::All))
    }

    fn any(&mut self, depth: usize) -> Result<Node, Violation> {
        let mut parts = vec![self.term(depth)?];
        while self.take_word("OR") {
            parts.push(self.term(depth)?);
        }
        Ok(one_or(parts, Node::Any))
    }

    fn term(&mut self, depth: usize) -> Result<Node, Violation> {
        if depth > DEPTH_MAX {
            return Err(broken("TOO_DEEP", format!("is nested deeper than {DEPTH_MAX}")));
        }
        if self.take_word("NOT") || self.take_word("-") {
            return Ok(Node::Not(Box::new(self.term(depth + 1)?)));
        }
        match self.tokens.next() {
            Some(Token::Open) => {
                let node = self.all(depth + 1)?;
                match self.tokens.next() {
                    Some(Token::Close) => Ok(node),
                    _ => Err(broken("SYNTAX", "has a `(` without its `)`")),
                }
            }
            Some(Token::Word(path)) => match path.strip_prefix('-') {
                Some(path) => Ok(Node::Not(Box::new(self.test(path)?))),
                None => self.test(&path),
            },
            Some(Token::Quoted(_) | Token::Comparator(_) | Token::Close) | None => {
                Err(broken("SYNTAX", "needs a field where there is none"))
            }
        }
    }

    fn test(&mut self, path: &str) -> Result<Node, Violation> {
        self.tests += 1;
        if self.tests > TESTS_MAX {
            return Err(broken("TOO_MANY", format!("has more than {TESTS_MAX} tests")));
        }
        let Some(Token::Comparator(comparator)) = self.tokens.next() else {
            return Err(broken("SYNTAX", format!("needs one of = != < <= > >= : after `{path}`")));
        };
        let path = resolve(self.kind, path)?;
        let operand = match self.tokens.next() {
            Some(Token::Word(word)) if word == "*" && comparator == Comparator::Has => Operand::Anything,
            Some(Token::Word(text) | Token::Quoted(text)) => operand(&path, comparator, text)?,
            Some(Token::Comparator(_) | Token::Open | Token::Close) | None => {
                return Err(broken("SYNTAX", "needs a value after a comparison"));
            }
        };
        Ok(Node::Test(Test { path, comparator, operand }))
    }
}

fn one_or(mut parts: Vec<Node>, join: impl FnOnce(Vec<Node>) -> Node) -> Node {
    match (parts.len(), parts.pop()) {
        (1, Some(one)) => one,
        (_, last) => {
            parts.extend(last);
            join(parts)
        }
    }
}

/// The fields that a dotted path goes through.
fn resolve(kind: &MessageDescriptor, path: &str) -> Result<Vec<FieldDescriptor>, Violation> {
    let mut found: Vec<FieldDescriptor> = Vec::new();
    let mut within = Some(kind.clone());
    for part in path.split('.') {
        let here =
            within.take().ok_or_else(|| broken("FIELD_UNKNOWN", format!("`{path}`: there is nothing below it")))?;
        let readable = |field: &FieldDescriptor| !sluice_proto::SENSITIVE.contains(&field.full_name());
        let field = here.get_field_by_name(part).filter(readable).ok_or_else(|| {
            let known: Vec<String> = here.fields().filter(readable).map(|field| field.name().to_owned()).collect();
            broken(
                "FIELD_UNKNOWN",
                format!("`{part}` is not a field of {}; those are {}", here.name(), known.join(", ")),
            )
        })?;
        within = match field.kind() {
            Kind::Message(message) if !field.is_map() => Some(message),
            _ => None,
        };
        found.push(field);
    }
    Ok(found)
}

/// The value as what the field holds.
fn operand(path: &[FieldDescriptor], comparator: Comparator, text: String) -> Result<Operand, Violation> {
    let Some(field) = path.last() else { return Err(broken("SYNTAX", "needs a field")) };
    let name = field.name();
    let wrong = |expected: &str| broken("VALUE_INVALID", format!("`{name}` is compared with {expected}"));
    let unfit = || broken("COMPARISON_INVALID", format!("`{name}` cannot be compared that way"));
    match field.kind() {
        Kind::String => Ok(Operand::Text(if comparator == Comparator::Has { text.to_lowercase() } else { text })),
        _ if comparator == Comparator::Has => Err(unfit()),
        Kind::Bool => match comparator {
            Comparator::Equal | Comparator::NotEqual => {
                text.parse().map(Operand::Bool).map_err(|_| wrong("`true` or `false`"))
            }
            Comparator::Less
            | Comparator::LessOrEqual
            | Comparator::Greater
            | Comparator::GreaterOrEqual
            | Comparator::Has => Err(unfit()),
        },
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 | Kind::Sint32 | Kind::Sint64 => {
            text.parse().map(Operand::Number).map_err(|_| wrong("a whole number"))
        }
        Kind::Enum(kind) => {
            let value = kind.get_value_by_name(&text).ok_or_else(|| wrong("one of its names"))?;
            Ok(Operand::Number(value.number().into()))
        }
        Kind::Message(message) if message.full_name() == "google.protobuf.Timestamp" => {
            text.parse().map(Operand::Time).map_err(|_| wrong("a time such as \"2026-11-22T12:00:00Z\""))
        }
        _ => Err(unfit()),
    }
}

impl Node {
    fn matches(&self, message: &DynamicMessage) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.matches(message)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(message)),
            Self::Not(part) => !part.matches(message),
            Self::Test(test) if test.comparator == Comparator::NotEqual => !test.holds(message, &test.path),
            Self::Test(test) => test.holds(message, &test.path),
        }
    }
}

impl Test {
    fn holds(&self, message: &DynamicMessage, path: &[FieldDescriptor]) -> bool {
        let Some((field, deeper)) = path.split_first() else { return false };
        // A plain field that is not set holds its default; a message that is not set holds nothing.
        let plain = field.cardinality() != Cardinality::Repeated && !field.supports_presence();
        if !plain && !message.has_field(field) {
            return false;
        }
        let value = message.get_field(field);
        let one = |value: &Value| match value {
            Value::Message(within) if !deeper.is_empty() => self.holds(within, deeper),
            value => deeper.is_empty() && self.compare(value),
        };
        match value.as_ref() {
            Value::List(values) => values.iter().any(one),
            Value::Map(_) => matches!(self.operand, Operand::Anything),
            value => one(value),
        }
    }

    fn compare(&self, value: &Value) -> bool {
        let order = match (&self.operand, value) {
            (Operand::Anything, Value::String(text)) => return !text.is_empty(),
            (Operand::Anything, Value::Bool(value)) => return *value,
            (Operand::Anything, Value::I64(number)) => return *number != 0,
            (Operand::Anything, Value::I32(number) | Value::EnumNumber(number)) => return *number != 0,
            (Operand::Anything, _) => return true,
            (Operand::Text(wanted), Value::String(text)) if self.comparator == Comparator::Has => {
                return text.to_lowercase().contains(wanted);
            }
            (Operand::Text(wanted), Value::String(text)) => text.as_str().cmp(wanted),
            (Operand::Bool(wanted), Value::Bool(value)) => value.cmp(wanted),
            (Operand::Number(wanted), value) => match whole(value) {
                Some(number) => number.cmp(wanted),
                None => return false,
            },
            (Operand::Time(wanted), Value::Message(message)) => match time(message) {
                Some(time) => (time.seconds, time.nanos).cmp(&(wanted.seconds, wanted.nanos)),
                None => return false,
            },
            (Operand::Text(_) | Operand::Bool(_) | Operand::Time(_), _) => return false,
        };
        match self.comparator {
            // What is not equal is what `=` does not hold for, lists and absent fields included.
            Comparator::Equal | Comparator::NotEqual | Comparator::Has => order == Ordering::Equal,
            Comparator::Less => order == Ordering::Less,
            Comparator::LessOrEqual => order != Ordering::Greater,
            Comparator::Greater => order == Ordering::Greater,
            Comparator::GreaterOrEqual => order != Ordering::Less,
        }
    }
}

/// A whole number, or the number of an enum's value.
pub(crate) fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::I64(number) => Some(*number),
        Value::I32(number) | Value::EnumNumber(number) => Some((*number).into()),
        Value::U32(number) => Some((*number).into()),
        Value::U64(number) => i64::try_from(*number).ok(),
        _ => None,
    }
}

/// A message that is a time.
pub(crate) fn time(message: &DynamicMessage) -> Option<Timestamp> {
    (message.descriptor().full_name() == "google.protobuf.Timestamp").then(|| message.transcode_to().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::{kind, tree};
    use sluice_proto::admin::v1 as admin;

    const WORKFLOW: &str = "sluice.admin.v1.Workflow";

    fn parse(text: &str) -> Result<Filter, Violation> {
        Filter::parse(text, &kind(WORKFLOW).unwrap())
    }

    fn matches(text: &str) -> bool {
        let step = |name: &str| admin::Step { step_name: name.to_owned(), ..Default::default() };
        let workflow = admin::Workflow {
            name: "workspaces/acme/workflows/flow".to_owned(),
            display_name: "Orders to CRM".to_owned(),
            create_time: Some(Timestamp { seconds: 1_800_000_000, nanos: 0 }),
            published_version: 3,
            steps: vec![step("one"), step("two")],
            ..Default::default()
        };
        parse(text).unwrap().matches(&tree(WORKFLOW, &workflow).unwrap())
    }

    #[test]
    fn what_a_filter_lets_through() {
        for (text, expected) in [
            ("", true),
            ("published_version = 3", true),
            ("published_version > 3", false),
            ("published_version >= 3 published_version<4", true),
            ("display_name : crm", true),
            ("display_name = crm", false),
            ("display_name = \"Orders to CRM\"", true),
            ("display_name : \"\\\"\"", false),
            ("has_unpublished_changes = false", true),
            ("NOT has_unpublished_changes = true", true),
            ("-published_version = 3", false),
            ("published_version = 1 OR published_version = 3", true),
            // OR binds closer than AND.
            ("published_version = 3 OR published_version = 3 AND display_name = x", false),
            ("published_version = 3 OR (published_version = 3 AND display_name = x)", true),
            ("steps.step_name = two", true),
            ("steps.step_name != two", false),
            ("steps.step_name = three", false),
            ("steps.custom_webhook.url : crm", false),
            ("triggers:*", false),
            ("steps:*", true),
            ("create_time > \"2027-01-01T00:00:00Z\"", true),
            ("create_time > \"2028-01-01T00:00:00Z\"", false),
            ("update_time < \"2028-01-01T00:00:00Z\"", false),
            ("steps.custom_webhook.method = POST", false),
        ] {
            assert_eq!(matches(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_refused() {
        for (text, reason) in [
            ("dispaly_name = x", "FIELD_UNKNOWN"),
            ("display_name.x = x", "FIELD_UNKNOWN"),
            ("display_name", "SYNTAX"),
            ("display_name =", "SYNTAX"),
            ("= x", "SYNTAX"),
            ("(published_version = 3", "SYNTAX"),
            ("published_version = 3)", "SYNTAX"),
            ("display_name = \"x", "SYNTAX"),
            ("display_name = ä#", "SYNTAX"),
            ("published_version = three", "VALUE_INVALID"),
            ("has_unpublished_changes = 1", "VALUE_INVALID"),
            ("has_unpublished_changes > true", "COMPARISON_INVALID"),
            ("create_time > yesterday", "VALUE_INVALID"),
            ("steps = x", "COMPARISON_INVALID"),
            ("published_version : 3", "COMPARISON_INVALID"),
            (&"x".repeat(1001), "TOO_LONG"),
            (&"name=x ".repeat(51), "TOO_MANY"),
            (&format!("{}published_version=3", "NOT ".repeat(18)), "TOO_DEEP"),
        ] {
            assert_eq!(parse(text).unwrap_err().reason, reason, "{text}");
        }
        let secret = Filter::parse("api_key.secret = x", &kind("sluice.admin.v1.Connection").unwrap());
        assert_eq!(secret.unwrap_err().reason, "FIELD_UNKNOWN", "nobody guesses at secrets");
        assert!(parse(&"published_version=3 ".repeat(50)).is_ok());
    }
}
