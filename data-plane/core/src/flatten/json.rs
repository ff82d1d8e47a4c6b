//! Reads a body. Our own reader, because serde_json's rewrites numbers (`1e400` → `1e+400`), gives the keys
//! `$serde_json::private::…` a meaning a sender could use, and knows one fixed depth; this one also counts leaves
//! and path lengths on the way, so that a bomb is refused after the first 2,000 values, not after building it.

use std::borrow::Cow;

use serde_json::{Map, Number, Value};

use super::{Limit, LimitExceeded, Limits, Place};
use crate::path::{self, Root};

/// Why a body is not taken (the trigger answers 400 with this message; it repeats nothing of the body).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Nothing but white space.
    #[error("the body is empty; a JSON value is expected")]
    Empty,
    /// It starts with a byte order mark, which JSON between systems must not have (RFC 8259, 8.1).
    #[error("the body starts with a byte order mark; send JSON as UTF-8 without one")]
    ByteOrderMark,
    /// It is not UTF-8 from this place on.
    #[error("the body is not UTF-8 at line {line}, column {column}")]
    NotUtf8 {
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
    },
    /// It is not JSON.
    #[error("the body is not JSON: at line {line}, column {column}: expected {expected}")]
    Syntax {
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// What may stand there.
        expected: &'static str,
    },
    /// Something follows the JSON value.
    #[error("the body goes on after the JSON value at line {line}, column {column}")]
    Trailing {
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
    },
    /// It goes over one of the [`Limits`].
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
}

impl BodyError {
    /// A stable name of the reason; for a limit, the limit's name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "EMPTY",
            Self::ByteOrderMark => "BYTE_ORDER_MARK",
            Self::NotUtf8 { .. } => "NOT_UTF8",
            Self::Syntax { .. } => "SYNTAX",
            Self::Trailing { .. } => "TRAILING",
            Self::Limit(exceeded) => exceeded.limit.name(),
        }
    }
}

/// Reads one JSON value (RFC 8259; any value, D16) under limits.
///
/// A duplicate key's last value wins and stands in the first one's place; both count towards the limits.
/// Numbers keep their exact text. Time and memory are linear in `bytes`; nesting takes no stack.
pub fn parse_body(bytes: &[u8], limits: &Limits) -> Result<Value, BodyError> {
    read::<true>(bytes, limits)
}

/// Finds what [`parse_body`] would find wrong, without building a value.
pub(crate) fn check_body(bytes: &[u8], limits: &Limits) -> Result<(), BodyError> {
    read::<false>(bytes, limits).map(drop)
}

/// What is read is also built, or is null.
fn read<const BUILD: bool>(bytes: &[u8], limits: &Limits) -> Result<Value, BodyError> {
    if bytes.starts_with(&[0xef, 0xbb, 0xbf]) || bytes.starts_with(&[0xfe, 0xff]) || bytes.starts_with(&[0xff, 0xfe]) {
        return Err(BodyError::ByteOrderMark);
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        // The prefix is UTF-8 by the error's own word.
        let (line, column) = position(bytes.get(..error.valid_up_to()).unwrap_or_default());
        BodyError::NotUtf8 { line, column }
    })?;
    let mut reader = Reader::<BUILD> { text, at: 0, limits, leaves: 0 };
    reader.skip_space();
    if reader.peek().is_none() {
        return Err(BodyError::Empty);
    }
    let value = reader.document()?;
    reader.skip_space();
    if reader.peek().is_some() {
        let (line, column) = reader.position();
        return Err(BodyError::Trailing { line, column });
    }
    Ok(value)
}

/// Line and column (in characters) just after `before`, from 1.
fn position(before: &[u8]) -> (usize, usize) {
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let is_char_start = |byte: &&u8| (**byte & 0xc0) != 0x80;
    let lines = before.iter().filter(|&&byte| byte == b'\n').count();
    (lines + 1, before[line_start..].iter().filter(is_char_start).count() + 1)
}

/// An object or array that is not closed yet, and how long the path to it is.
struct Open {
    inside: Inside,
    path_bytes: usize,
}

enum Inside {
    /// What came before, and the key of the value that is being read.
    Object { object: Map<String, Value>, key: Key },
    /// What came before, and how many there were.
    Array { array: Vec<Value>, length: usize },
}

/// A key, and how much longer it makes a path.
#[derive(Default)]
struct Key {
    text: String,
    path_bytes: usize,
}

impl Open {
    /// How much longer the path to the value being read is.
    fn step_bytes(&self) -> usize {
        match &self.inside {
            Inside::Object { key, .. } => key.path_bytes,
            Inside::Array { length, .. } => path::index_bytes(*length),
        }
    }
}

/// Where a value went.
enum Put {
    /// Into a container that goes on with another one.
    Next { path_bytes: usize },
    /// Nothing is open any more.
    Whole(Value),
}

pub(super) struct Reader<'b, const BUILD: bool> {
    pub(super) text: &'b str,
    pub(super) at: usize,
    limits: &'b Limits,
    leaves: usize,
}

impl<'b> Reader<'b, false> {
    /// At the beginning of a text that was read before.
    pub(super) fn of(text: &'b str) -> Self {
        Self { text, at: 0, limits: &Limits::STORED, leaves: 0 }
    }
}

impl<'b, const BUILD: bool> Reader<'b, BUILD> {
    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn position(&self) -> (usize, usize) {
        position(&self.text.as_bytes()[..self.at])
    }

    fn expected(&self, expected: &'static str) -> BodyError {
        let (line, column) = self.position();
        BodyError::Syntax { line, column, expected }
    }

    fn exceeded(&self, limit: Limit, allowed: usize) -> BodyError {
        let (line, column) = self.position();
        BodyError::Limit(LimitExceeded { limit, allowed, place: Place::Text { line, column } })
    }

    /// Reads a value with all that is in it. Containers wait in a list, not on the stack: what may be sent is nested as deep
    /// as its sender likes, up to the limit.
    fn document(&mut self) -> Result<Value, BodyError> {
        let mut open: Vec<Open> = Vec::new();
        let mut path_bytes = Root::Body.name().len();
        loop {
            if path_bytes > self.limits.path_bytes {
                return Err(self.exceeded(Limit::PathBytes, self.limits.path_bytes));
            }
            if let Some(container) = self.container(open.len(), path_bytes)? {
                path_bytes += container.step_bytes();
                open.push(container);
                continue;
            }
            let leaf = self.leaf()?;
            match self.put(leaf, &mut open)? {
                Put::Next { path_bytes: next } => path_bytes = next,
                Put::Whole(document) => return Ok(document),
            }
        }
    }

    /// The object or array that begins here with something in it, up to its first value. `depth` are open around it.
    fn container(&mut self, depth: usize, path_bytes: usize) -> Result<Option<Open>, BodyError> {
        let Some(begin @ (b'{' | b'[')) = self.peek() else { return Ok(None) };
        let allowed = usize::from(self.limits.depth);
        if depth >= allowed {
            return Err(self.exceeded(Limit::Depth, allowed));
        }
        let start = self.at;
        self.at += 1;
        self.skip_space();
        if matches!((begin, self.peek()), (b'{', Some(b'}')) | (b'[', Some(b']'))) {
            self.at = start;
            return Ok(None);
        }
        let inside = match begin {
            b'{' => Inside::Object { object: Map::new(), key: self.key()? },
            _ => Inside::Array { array: Vec::new(), length: 0 },
        };
        Ok(Some(Open { inside, path_bytes }))
    }

    /// A value that has nothing in it, counted.
    fn leaf(&mut self) -> Result<Value, BodyError> {
        let value = match self.peek() {
            Some(b'{') => self.empty(Value::Object(Map::new())),
            Some(b'[') => self.empty(Value::Array(Vec::new())),
            Some(b'"') => {
                let text = self.string()?;
                if BUILD { Value::String(text.into_owned()) } else { Value::Null }
            }
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word("true", Value::Bool(true))?,
            Some(b'f') => self.word("false", Value::Bool(false))?,
            Some(b'n') => self.word("null", Value::Null)?,
            _ => return Err(self.expected("a JSON value")),
        };
        self.leaves += 1;
        if self.leaves > self.limits.leaves {
            return Err(self.exceeded(Limit::Leaves, self.limits.leaves));
        }
        Ok(value)
    }

    /// Passes the two brackets.
    fn empty(&mut self, value: Value) -> Value {
        self.at += 1;
        self.skip_space();
        self.at += 1;
        value
    }

    /// Puts a value into the container around it, and that one into its own when it ends with it.
    fn put(&mut self, mut value: Value, open: &mut Vec<Open>) -> Result<Put, BodyError> {
        while let Some(mut around) = open.pop() {
            self.skip_space();
            let next = self.peek();
            match &mut around.inside {
                Inside::Object { object, key } => {
                    if BUILD {
                        object.insert(std::mem::take(key).text, value);
                    }
                    match next {
                        Some(b',') => {
                            self.at += 1;
                            self.skip_space();
                            *key = self.key()?;
                        }
                        Some(b'}') => {}
                        _ => return Err(self.expected("',' or '}'")),
                    }
                }
                Inside::Array { array, length } => {
                    if BUILD {
                        array.push(value);
                    }
                    *length += 1;
                    match next {
                        Some(b',') => {
                            self.at += 1;
                            self.skip_space();
                        }
                        Some(b']') => {}
                        _ => return Err(self.expected("',' or ']'")),
                    }
                }
            }
            if next == Some(b',') {
                let path_bytes = around.path_bytes + around.step_bytes();
                open.push(around);
                return Ok(Put::Next { path_bytes });
            }
            self.at += 1;
            value = match around.inside {
                Inside::Object { object, .. } => Value::Object(object),
                Inside::Array { array, .. } => Value::Array(array),
            };
        }
        Ok(Put::Whole(value))
    }

    /// A key and its colon, up to the value.
    fn key(&mut self) -> Result<Key, BodyError> {
        let key = self.key_text()?;
        let path_bytes = path::key_bytes(&key);
        Ok(Key { text: if BUILD { key.into_owned() } else { String::new() }, path_bytes })
    }

    pub(super) fn key_text(&mut self) -> Result<Cow<'b, str>, BodyError> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a key in double quotes"));
        }
        let key = self.string()?;
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err(self.expected("':'"));
        }
        self.at += 1;
        self.skip_space();
        Ok(key)
    }

    fn word(&mut self, word: &'static str, value: Value) -> Result<Value, BodyError> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.expected("a JSON value"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn digits(&mut self) -> Result<(), BodyError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.expected("a digit")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<Value, BodyError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err(self.expected("a number without leading zeros"));
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        // The only door that keeps the text: parsing a `Number` rewrites exponents. The text is a number by the
        // grammar above; the test `numbers_keep_their_text` watches the door.
        let text = &self.text[start..self.at];
        Ok(if BUILD { Value::Number(Number::from_string_unchecked(text.to_owned())) } else { Value::Null })
    }

    fn string(&mut self) -> Result<Cow<'b, str>, BodyError> {
        self.at += 1;
        let plain = self.plain();
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        let mut string = plain.to_owned();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(string));
                }
                Some(b'\\') => string.push(self.escape()?),
                Some(_) => return Err(self.expected("control characters to be escaped")),
                None => return Err(self.expected("the closing '\"'")),
            }
            string.push_str(self.plain());
        }
    }

    /// What stands for itself in a string, from here.
    fn plain(&mut self) -> &'b str {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte != b'"' && byte != b'\\' && byte >= 0x20) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    /// Stands on the backslash; ends after the escape.
    fn escape(&mut self) -> Result<char, BodyError> {
        let c = match self.text.as_bytes().get(self.at + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.expected("a JSON escape")),
        };
        self.at += 2;
        Ok(c)
    }

    fn unicode_escape(&mut self) -> Result<char, BodyError> {
        let first = self.hex(self.at).ok_or_else(|| self.expected("four hex digits after \\u"))?;
        let (code, length) = match (first, self.hex(self.at + 6)) {
            (0xd800..=0xdbff, Some(second @ 0xdc00..=0xdfff)) => {
                (0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00), 12)
            }
            _ => (first, 6),
        };
        let c = char::from_u32(code).ok_or_else(|| self.expected("both halves of a surrogate pair"))?;
        self.at += length;
        Ok(c)
    }

    /// The code of a `\uXXXX` at byte `at`, if there is one.
    fn hex(&self, at: usize) -> Option<u32> {
        let digits = self.text.as_bytes().get(at..at + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0, |code, &digit| Some(code * 16 + char::from(digit).to_digit(16)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_text() {
        for text in ["0", "-0", "1.0", "1e400", "1E5", "1e+5", "18446744073709551617", "9007199254740993.0", "-1.5e-7"]
        {
            let value = parse_body(text.as_bytes(), &Limits::default()).unwrap();
            assert_eq!(value.to_string(), text);
            assert!(value.is_number());
        }
    }

    #[test]
    fn agrees_with_serde_json_where_it_should() {
        for text in [
            r#"{"a":[1,2,{"b":null}],"c":"x\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00","d":true,"e":false,"":{}}"#,
            " [ 1 , \"\u{7f}\u{2028}\" ]\r\n\t",
            "\"\\u0000\"",
        ] {
            let expected: Value = serde_json::from_str(text).unwrap();
            assert_eq!(parse_body(text.as_bytes(), &Limits::default()).unwrap(), expected);
        }
    }

    #[test]
    fn no_prefix_of_a_document_panics() {
        let text = "{\"ł\\u00e9\\ud83d\\ude00\":[-1.5e+7,true,null,{\"a\":\"\\n\"}]}".as_bytes();
        for end in 0..text.len() {
            assert!(parse_body(&text[..end], &Limits::default()).is_err(), "{end}");
            assert!(check_body(&text[..end], &Limits::default()).is_err(), "{end}");
        }
        for at in 0..text.len() {
            for byte in [0, b'"', b'\\', b'{', b'u', b'9', 0xff] {
                let mut changed = text.to_vec();
                changed[at] = byte;
                let (parsed, checked) =
                    (parse_body(&changed, &Limits::default()), check_body(&changed, &Limits::default()));
                assert_eq!(parsed.map(drop), checked);
            }
        }
    }
}
