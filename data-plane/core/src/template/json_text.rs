//! JSON text straight into values. Exists because serde_json, even where it keeps number texts, rewrites some of them
//! (`1e2` comes back as `1e+2`), and because it recurses: this keeps every digit (D16) and recurses nowhere.

use std::sync::Arc;

use minijinja::Value;
use serde::de::IgnoredAny;

use super::containers::{self, Entries, MapKind};
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
    Map { entries: Entries, key: Arc<str> },
}

/// Whose the lists and maps are that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Shared between renders, and never changed.
    Context,
    /// One render's, which may change them.
    Render,
}

/// Reads one document of at most `depth` levels. Of a key that comes twice the last value wins.
pub(super) fn read(text: &str, depth: usize, owner: Owner) -> Result<Value, Refused> {
    // serde_json judges the grammar, without recursion; what follows may rely on it.
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| Refused::NotJson)?;
    let mut reader = Reader { text, at: 0 };
    let mut open: Vec<Open> = Vec::new();
    loop {
        let mut value = match reader.next() {
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
                open.pop().map(|open| open.close(owner, level))
            }
            b'"' => {
                let string = reader.string()?;
                if reader.peek() == Some(b':') {
                    reader.at += 1;
                    if let Some(Open::Map { key, .. }) = open.last_mut() {
                        *key = string;
                    }
                    None
                } else {
                    Some(Value::from(string))
                }
            }
            b',' => None,
            _ => Some(reader.scalar()),
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

impl Open {
    fn close(self, owner: Owner, level: u32) -> Value {
        match (self, owner) {
            (Open::List(items), Owner::Context) => containers::shared_list(items),
            (Open::List(items), Owner::Render) => containers::own_list_at(items, level),
            (Open::Map { entries, .. }, Owner::Context) => containers::shared_map(entries, MapKind::Plain),
            (Open::Map { entries, .. }, Owner::Render) => containers::own_map_at(entries, MapKind::Plain, level),
        }
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> u8 {
        let byte = self.peek().unwrap_or_default();
        self.at += 1;
        byte
    }

    /// The string whose quote has just been read.
    fn string(&mut self) -> Result<Arc<str>, Refused> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut escaped = false;
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.at += 2;
                }
                _ => self.at += 1,
            }
        }
        let end = self.at.min(bytes.len());
        self.at = (end + 1).min(bytes.len());
        if escaped {
            // With its quotes. Half of a surrogate pair is grammar, but no text.
            let quoted = self.text.get(start - 1..self.at).unwrap_or_default();
            return serde_json::from_str::<String>(quoted).map(Into::into).map_err(|_| Refused::NotJson);
        }
        Ok(self.text.get(start..end).unwrap_or_default().into())
    }

    /// The number or word whose first byte has just been read.
    fn scalar(&mut self) -> Value {
        let start = (self.at - 1).min(self.text.len());
        let rest = &self.text[start..];
        let length = rest.find([',', ']', '}', ' ', '\t', '\n', '\r']).unwrap_or(rest.len());
        self.at = start + length;
        match &rest[..length] {
            "null" => Value::from(()),
            "true" => Value::from(true),
            "false" => Value::from(false),
            number => values::number_from_text(number),
        }
    }
}
