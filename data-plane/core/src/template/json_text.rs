//! JSON text straight into values. Exists because serde_json, even where it keeps number texts, rewrites some of them
//! (`1e2` comes back as `1e+2`), and because it recurses: this keeps every digit (D16) and recurses nowhere.

use std::borrow::Cow;

use minijinja::Value;
use serde::de::IgnoredAny;

use super::containers::{self, MapKind};
use super::entries::{Entries, Key};
use super::values;

/// Why a text was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    NotJson,
    TooDeep,
}

/// A list or map that is not closed yet.
enum Open {
    List(Vec<Value>),
    Map { entries: Entries, key: Key },
}

/// Reads one document of at most `depth` levels, for one render, which may change it. Of a key that comes twice the last
/// value wins.
pub(super) fn read(text: &str, depth: usize) -> Result<Value, Refused> {
    judge(text)?;
    let mut reader = Reader::of(text);
    let mut open: Vec<Open> = Vec::new();
    loop {
        let mut value = match reader.next().ok_or(Refused::NotJson)? {
            b'[' => {
                open.push(Open::List(Vec::new()));
                None
            }
            b'{' => {
                open.push(Open::Map { entries: Entries::new(), key: "".into() });
                None
            }
            b']' | b'}' => {
                let level = open.len() as u32;
                open.pop().map(|open| open.close(level))
            }
            b'"' => {
                let string = reader.string()?;
                if reader.peek() == Some(b':') {
                    reader.at += 1;
                    if let Some(Open::Map { key, .. }) = open.last_mut() {
                        *key = (&*string).into();
                    }
                    None
                } else {
                    Some(Value::from(&*string))
                }
            }
            b',' => None,
            first => Some(reader.leaf(first)?),
        };
        if open.len() > depth {
            return Err(Refused::TooDeep);
        }
        match (open.last_mut(), value.take()) {
            (None, Some(value)) => return Ok(value),
            (None, None) => return Err(Refused::NotJson),
            (_, None) => {}
            (Some(Open::List(items)), Some(value)) => items.push(value),
            (Some(Open::Map { entries, key }), Some(value)) => {
                entries.insert(key.clone(), value);
            }
        }
    }
}

/// Whether a text is JSON. serde_json judges that, without recursion, and what follows may rely on it.
pub(super) fn judge(text: &str) -> Result<(), Refused> {
    serde_json::from_str::<IgnoredAny>(text).map(drop).map_err(|_| Refused::NotJson)
}

impl Open {
    fn close(self, level: u32) -> Value {
        match self {
            Open::List(items) => containers::own_list_at(items, level),
            Open::Map { entries, .. } => containers::own_map_at(entries, MapKind::Plain, level),
        }
    }
}

/// A place in a text that is known to be JSON, but for half surrogates.
pub(super) struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    pub(super) fn of(text: &'t str) -> Reader<'t> {
        Reader { text, at: 0 }
    }

    /// Before which byte it stands.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn go_to(&mut self, at: usize) {
        self.at = at;
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.text.as_bytes().get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// As [`peek`](Self::peek), and goes behind it.
    pub(super) fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// Goes behind the string whose quote has just been read.
    pub(super) fn pass_string(&mut self) -> Result<(), Refused> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut doubtful = false;
        loop {
            self.at += plain(bytes.get(self.at..).unwrap_or_default());
            if bytes.get(self.at) != Some(&b'\\') {
                break;
            }
            doubtful |= matches!(bytes.get(self.at + 1..self.at + 3), Some([b'u', b'd' | b'D']));
            self.at += 2;
        }
        self.at = (self.at + 1).min(bytes.len());
        if doubtful { self.unescaped(start).map(drop) } else { Ok(()) }
    }

    /// The string whose quote has just been read.
    pub(super) fn string(&mut self) -> Result<Cow<'t, str>, Refused> {
        let start = self.at;
        let rest = self.text.get(start..).unwrap_or_default();
        let length = plain(rest.as_bytes());
        if rest.as_bytes().get(length) == Some(&b'"') {
            self.at += length + 1;
            return Ok(Cow::Borrowed(&rest[..length]));
        }
        self.pass_string()?;
        self.unescaped(start).map(Cow::Owned)
    }

    /// The string from there to here. Half of a surrogate pair is grammar, but no text.
    fn unescaped(&self, start: usize) -> Result<String, Refused> {
        let quoted = self.text.get(start - 1..self.at).unwrap_or_default();
        serde_json::from_str(quoted).map_err(|_| Refused::NotJson)
    }

    /// The string, number or word whose first byte has just been read.
    pub(super) fn leaf(&mut self, first: u8) -> Result<Value, Refused> {
        if first == b'"' {
            return self.string().map(|string| Value::from(&*string));
        }
        let rest = self.text.get(self.at - 1..).unwrap_or_default();
        let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
        let length = rest.bytes().position(|byte| ends(&byte)).unwrap_or(rest.len());
        self.at = self.at - 1 + length;
        Ok(match &rest[..length] {
            "" => return Err(Refused::NotJson),
            "null" => Value::from(()),
            "true" => Value::from(true),
            "false" => Value::from(false),
            number => values::number_from_text(number),
        })
    }
}

/// How far it is to the next quote or backslash. Looks at eight bytes at once.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    // Whether one of eight bytes is this one: of those it says it of, the first one is.
    let has = |eight: u64, byte: u8| {
        let apart = eight ^ (ONES * u64::from(byte));
        apart.wrapping_sub(ONES) & !apart & (ONES << 7)
    };
    let mut passed = 0;
    while let Some(eight) = bytes.get(passed..).and_then(<[u8]>::first_chunk) {
        let eight = u64::from_le_bytes(*eight);
        let special = has(eight, b'"') | has(eight, b'\\');
        if special != 0 {
            return passed + special.trailing_zeros() as usize / 8;
        }
        passed += 8;
    }
    passed + bytes[passed..].iter().take_while(|byte| !matches!(byte, b'"' | b'\\')).count()
}
