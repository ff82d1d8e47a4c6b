//! Messages of the contract as YAML 1.2 for people, and back; JSON is YAML too. Hides the parser and what of YAML is dangerous: a
//! document is read by the fields of its message, so that `no`, `1e3` or a date in a text field is that text, and anchors, depth and
//! size have limits.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, Span};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value};
use sluice_core::validate::Violation;

use crate::error::violation;
use crate::fields::json;

/// Most bytes of a document.
const BYTES_MAX: usize = 2 << 20;
/// How deep lists and mappings may lie within each other.
const DEPTH_MAX: usize = 64;
/// How often a document may repeat what an anchor names.
const ALIASES_MAX: usize = 100;

/// What the text of a document was read as.
pub(crate) struct Document {
    pub(crate) message: DynamicMessage,
    pub(crate) lines: Lines,
}

/// On which line each field of a document stands.
#[derive(Default)]
pub(crate) struct Lines(BTreeMap<String, usize>);

impl Lines {
    /// Says of every broken rule on which line it is broken.
    pub(crate) fn point(&self, mut found: Vec<Violation>) -> Vec<Violation> {
        for one in &mut found {
            if let Some(line) = self.of(&one.field) {
                one.message = format!("line {line} of the document: {}", one.message);
            }
        }
        found
    }

    /// The line of a field, or of what it would stand in.
    fn of(&self, field: &str) -> Option<usize> {
        let mut field = field;
        loop {
            if let Some(line) = self.0.get(field) {
                return Some(*line);
            }
            field = field.get(..field.rfind(['.', '['])?)?;
        }
    }
}

/// Reads a document that is a message of this kind; `root` is what its fields are called within.
///
/// # Errors
/// All that is wrong with it, each with its line and field, and nothing of what it says.
pub(crate) fn read(kind: &MessageDescriptor, root: &str, text: &str) -> Result<Document, Vec<Violation>> {
    if text.len() > BYTES_MAX {
        let message = format!("has {} bytes; the limit is {BYTES_MAX}: apply it in parts", text.len());
        return Err(vec![violation("document", "DOCUMENT_TOO_LARGE", message)]);
    }
    let node = Reader::new(&escaped(text)).document().map_err(|broken| vec![broken])?;
    let mut builder = Builder::default();
    match builder.message(kind, root, &node) {
        Some(message) if builder.found.is_empty() => Ok(Document { message, lines: builder.lines }),
        _ => Err(builder.found),
    }
}

/// JSON with escapes for what it may hold as it is and YAML may not. Outside of its texts there is none of it.
fn escaped(text: &str) -> Cow<'_, str> {
    let is_told = |character: char| character >= ' ' && !is_printable(character);
    if !text.trim_start().starts_with('{') || !text.contains(is_told) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            told if is_told(told) => escape(&mut escaped, told),
            other => escaped.push(other),
        }
    }
    Cow::Owned(escaped)
}

/// Something of a document, and its line.
#[derive(Clone, Debug)]
struct Node {
    line: usize,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// A text; a plain one has no quotes and is no block.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// Keys with their lines.
    Map(Vec<(String, usize, Node)>),
}

impl Node {
    /// Nothing stands there.
    fn is_null(&self) -> bool {
        matches!(&self.what, What::Scalar { text, plain: true } if ["", "~", "null"].contains(&text.as_str()))
    }

    /// Bytes and depth, with all that is in it.
    fn measure(&self) -> (usize, usize) {
        let all = |nodes: &mut dyn Iterator<Item = (usize, usize)>| {
            nodes.fold((1, 0), |(bytes, depth), (more, deeper)| (bytes + more, depth.max(deeper)))
        };
        let (bytes, depth) = match &self.what {
            What::Scalar { text, .. } => return (text.len() + 1, 0),
            What::List(nodes) => all(&mut nodes.iter().map(Self::measure)),
            What::Map(nodes) => all(&mut nodes.iter().map(|(key, _, node)| {
                let (bytes, depth) = node.measure();
                (bytes + key.len(), depth)
            })),
        };
        (bytes, depth + 1)
    }
}

/// Makes a tree of a text.
struct Reader<'a> {
    events: Parser<'a, granit_parser::StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    aliases: usize,
    /// Bytes that aliases may still repeat.
    room: usize,
}

type Read<T> = Result<T, Violation>;

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        let events = Parser::new_from_str_with_options(text, Options::default());
        Self { events, anchors: HashMap::new(), aliases: 0, room: BYTES_MAX }
    }

    fn document(mut self) -> Read<Node> {
        let mut found = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => {
                    let nothing = Node { line: 1, what: What::Map(Vec::new()) };
                    return Ok(found.unwrap_or(nothing));
                }
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) if found.is_some() => {
                    return Err(broken(&span, "YAML_INVALID", "another document begins: there can be one"));
                }
                Event::DocumentStart(..) => {
                    let (event, span) = self.next()?;
                    found = Some(self.node(event, &span, 0)?);
                }
                _ => return Err(broken(&span, "YAML_INVALID", "nothing can stand here")),
            }
        }
    }

    fn next(&mut self) -> Read<(Event<'a>, Span)> {
        match self.events.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let (line, column) = (error.marker().line(), error.marker().col() + 1);
                if *error.kind() == ErrorKind::RecursionLimitExceeded {
                    let message = format!("line {line}: lists and mappings lie more than {DEPTH_MAX} deep");
                    return Err(violation("document", "DOCUMENT_TOO_DEEP", message));
                }
                let message = format!("line {line}, column {column}: {}", error.info());
                Err(violation("document", "YAML_INVALID", message))
            }
            None => Err(violation("document", "YAML_INVALID", "it ends early")),
        }
    }

    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Read<Node> {
        if depth > DEPTH_MAX {
            let message = format!("lists and mappings lie more than {DEPTH_MAX} deep");
            return Err(broken(span, "DOCUMENT_TOO_DEEP", message));
        }
        let line = span.start.line();
        let (what, anchor, tag) = match event {
            Event::Alias(anchor) => return self.alias(anchor, span, depth),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = matches!(style, ScalarStyle::Plain);
                (What::Scalar { text: text.into_owned(), plain }, anchor, tag)
            }
            Event::SequenceStart(_, anchor, tag) => (self.list(depth)?, anchor, tag),
            Event::MappingStart(_, anchor, tag) => (self.map(depth)?, anchor, tag),
            _ => return Err(broken(span, "YAML_INVALID", "a value is missing")),
        };
        if tag.is_some() {
            return Err(broken(span, "YAML_INVALID", "tags (`!…`) are not taken: the field says what a value is"));
        }
        let node = Node { line, what };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Read<What> {
        let mut nodes = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(What::List(nodes));
            }
            nodes.push(self.node(event, &span, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Read<What> {
        let (mut nodes, mut keys) = (Vec::new(), HashMap::new());
        loop {
            let (event, span) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(What::Map(nodes)),
                Event::Scalar(key, ..) => key.into_owned(),
                _ => return Err(broken(&span, "YAML_INVALID", "a key must be a text")),
            };
            let line = span.start.line();
            if let Some(first) = keys.insert(key.clone(), line) {
                let message = format!("`{key}` is there already, on line {first}");
                return Err(broken(&span, "REPEATED", message));
            }
            let (event, span) = self.next()?;
            let node = self.node(event, &span, depth + 1)?;
            nodes.push((key, line, node));
        }
    }

    fn alias(&mut self, anchor: usize, span: &Span, depth: usize) -> Read<Node> {
        self.aliases += 1;
        if self.aliases > ALIASES_MAX {
            let message = format!("there are more than {ALIASES_MAX} aliases (`*…`)");
            return Err(broken(span, "TOO_MANY_ALIASES", message));
        }
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(broken(span, "YAML_INVALID", "an alias stands within what it repeats"));
        };
        let (bytes, deeper) = node.measure();
        if depth + deeper > DEPTH_MAX {
            let message = format!("with what the alias repeats, lists and mappings lie more than {DEPTH_MAX} deep");
            return Err(broken(span, "DOCUMENT_TOO_DEEP", message));
        }
        let Some(room) = self.room.checked_sub(bytes) else {
            let message = format!("its aliases repeat more than {BYTES_MAX} bytes");
            return Err(broken(span, "DOCUMENT_TOO_LARGE", message));
        };
        self.room = room;
        Ok(node.clone())
    }
}

fn broken(span: &Span, reason: &'static str, message: impl AsRef<str>) -> Violation {
    violation("document", reason, format!("line {}: {}", span.start.line(), message.as_ref()))
}

/// Makes a message of a tree.
#[derive(Default)]
struct Builder {
    lines: Lines,
    found: Vec<Violation>,
}

impl Builder {
    fn refuse(&mut self, path: &str, line: usize, reason: &'static str, message: &str) {
        self.found.push(violation(path, reason, format!("line {line} of the document: {message}")));
    }

    fn message(&mut self, kind: &MessageDescriptor, path: &str, node: &Node) -> Option<DynamicMessage> {
        self.lines.0.entry(path.to_owned()).or_insert(node.line);
        let mut message = DynamicMessage::new(kind.clone());
        let fields = match &node.what {
            What::Map(fields) => fields,
            What::Scalar { .. } if node.is_null() => return Some(message),
            What::Scalar { .. } | What::List(_) => {
                self.refuse(path, node.line, "VALUE_INVALID", "must be a mapping of fields");
                return None;
            }
        };
        for (key, line, node) in fields {
            let Some(field) = kind.get_field_by_name(key).or_else(|| kind.get_field_by_json_name(key)) else {
                let message = format!("{} has no field of this name", kind.name());
                self.refuse(&format!("{path}.{key}"), *line, "FIELD_UNKNOWN", &message);
                continue;
            };
            // What is null is not there, as in JSON.
            if node.is_null() {
                continue;
            }
            let place = format!("{path}.{}", field.name());
            self.lines.0.insert(place.clone(), *line);
            let others = field.containing_oneof().into_iter().flat_map(|one| one.fields().collect::<Vec<_>>());
            let other = others.into_iter().find(|other| *other != field && message.has_field(other));
            if message.has_field(&field) {
                self.refuse(&place, *line, "REPEATED", "is there already, under its other name");
            } else if let Some(other) = other {
                let message = format!("there can be one of this and `{}`, which is there too", other.name());
                self.refuse(&place, *line, "REPEATED", &message);
            } else if let Some(value) = self.field(&field, &place, node) {
                message.set_field(&field, value);
            }
        }
        Some(message)
    }

    fn field(&mut self, field: &FieldDescriptor, path: &str, node: &Node) -> Option<Value> {
        if !field.is_list() {
            return self.value(field, path, node);
        }
        let What::List(nodes) = &node.what else {
            self.refuse(path, node.line, "VALUE_INVALID", "must be a list");
            return None;
        };
        let values = nodes.iter().enumerate().map(|(at, node)| self.value(field, &format!("{path}[{at}]"), node));
        let values: Vec<_> = values.collect();
        values.into_iter().collect::<Option<Vec<_>>>().map(Value::List)
    }

    /// One value of a field.
    fn value(&mut self, field: &FieldDescriptor, path: &str, node: &Node) -> Option<Value> {
        self.lines.0.entry(path.to_owned()).or_insert(node.line);
        match field.kind() {
            Kind::Message(kind) if !field.is_map() && !is_plain(&kind) => {
                self.message(&kind, path, node).map(Value::Message)
            }
            kind => {
                let value = json_of(field, node).and_then(|value| single(field, value));
                if value.is_none() {
                    self.refuse(path, node.line, "VALUE_INVALID", &format!("must be {}", wanted(&kind)));
                }
                value
            }
        }
    }
}

/// A value as the JSON form of its field has it; `None` when it is none of its kind.
fn json_of(field: &FieldDescriptor, node: &Node) -> Option<serde_json::Value> {
    match (&node.what, field.kind()) {
        (What::Map(nodes), Kind::Message(entry)) if field.is_map() && holds_texts(&entry) => {
            // A text needs no quotes to be one: here the field says its kind.
            let text = |node: &Node| match &node.what {
                What::Scalar { text, .. } => text.as_str().into(),
                What::List(_) | What::Map(_) => open(node),
            };
            Some(nodes.iter().map(|(key, _, node)| (key.clone(), text(node))).collect())
        }
        (_, Kind::Message(kind)) if field.is_map() || OPEN.contains(&kind.full_name()) => Some(open(node)),
        (What::Scalar { text, plain: true }, Kind::Bool) => text.parse().ok().map(serde_json::Value::Bool),
        (What::Scalar { .. }, Kind::Bool) | (What::List(_) | What::Map(_), _) => None,
        (What::Scalar { text, .. }, _) => Some(text.as_str().into()),
    }
}

/// Whether a map's values are texts.
fn holds_texts(entry: &MessageDescriptor) -> bool {
    entry.get_field_by_name("value").is_some_and(|value| value.kind() == Kind::String)
}

/// One value of a field from its JSON form.
fn single(field: &FieldDescriptor, value: serde_json::Value) -> Option<Value> {
    let tree =
        serde_json::json!({ field.json_name(): if field.is_list() { serde_json::json!([value]) } else { value } });
    let value = DynamicMessage::deserialize(field.parent_message().clone(), tree).ok()?.get_field(field).into_owned();
    match value {
        Value::List(values) => values.into_iter().next(),
        value => Some(value),
    }
}

/// Messages that hold any JSON.
const OPEN: [&str; 3] = ["google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"];

/// What is written without a field that says its kind.
fn open(node: &Node) -> serde_json::Value {
    match &node.what {
        What::Scalar { .. } if node.is_null() => serde_json::Value::Null,
        What::Scalar { text, plain: true } => serde_json::from_str(text)
            .ok()
            .filter(|value: &serde_json::Value| value.is_boolean() || value.is_number())
            .unwrap_or_else(|| text.as_str().into()),
        What::Scalar { text, .. } => text.as_str().into(),
        What::List(nodes) => nodes.iter().map(open).collect(),
        What::Map(nodes) => nodes.iter().map(|(key, _, node)| (key.clone(), open(node))).collect(),
    }
}

/// A message that JSON writes as one value.
fn is_plain(kind: &MessageDescriptor) -> bool {
    kind.package_name() == "google.protobuf"
}

fn wanted(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "`true` or `false`".to_owned(),
        Kind::String => "a text".to_owned(),
        Kind::Bytes => "base64".to_owned(),
        Kind::Double | Kind::Float => "a number".to_owned(),
        Kind::Enum(kind) => {
            let named: Vec<String> = kind.values().map(|value| value.name().to_owned()).collect();
            format!("one of {}", named.join(", "))
        }
        Kind::Message(kind) if kind.name() == "Duration" => "a duration, for example `90s`".to_owned(),
        Kind::Message(kind) if kind.name() == "Timestamp" => "a time, for example `2026-01-31T08:00:00Z`".to_owned(),
        Kind::Message(kind) => format!("a {}", kind.name()),
        _ => "a whole number in its range".to_owned(),
    }
}

/// Writes a message: fields in the order of the contract, texts of several lines as they are read, quotes where they are needed.
pub(crate) fn write(message: &DynamicMessage) -> String {
    let mut written = String::new();
    write_fields(&mut written, message, 0);
    if written.is_empty() { "{}\n".to_owned() } else { written }
}

/// Writes the fields of a message, each on lines of its own.
fn write_fields(out: &mut String, message: &DynamicMessage, depth: usize) {
    for field in message.descriptor().fields().filter(|field| message.has_field(field)) {
        indent(out, depth);
        out.push_str(field.name());
        out.push(':');
        match message.get_field(&field).as_ref() {
            Value::List(values) => {
                out.push('\n');
                for value in values {
                    indent(out, depth + 1);
                    out.push('-');
                    write_value(out, &field, value, depth + 1, true);
                }
            }
            value => write_value(out, &field, value, depth, false),
        }
    }
}

/// Writes a value after its `key:` or `-`, with the end of its line.
fn write_value(out: &mut String, field: &FieldDescriptor, value: &Value, depth: usize, listed: bool) {
    match value {
        Value::Message(message) if !is_plain(&message.descriptor()) => {
            let mut fields = String::new();
            write_fields(&mut fields, message, depth + 1);
            match fields.trim_start() {
                "" => out.push_str(" {}\n"),
                // The first field stands on the line of its `-`.
                first if listed => {
                    out.push(' ');
                    out.push_str(first);
                }
                _ => {
                    out.push('\n');
                    out.push_str(&fields);
                }
            }
        }
        Value::String(text) => write_text(out, text, depth + 1),
        value => {
            out.push(' ');
            match json(field, value) {
                serde_json::Value::String(text) if !is_guessed(&field.kind()) => out.push_str(&text),
                value => out.push_str(&value.to_string()),
            }
            out.push('\n');
        }
    }
}

/// A value that other readers would take for something else without quotes.
fn is_guessed(kind: &Kind) -> bool {
    matches!(kind, Kind::Message(kind) if kind.name() != "Duration") || *kind == Kind::Bytes
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

fn write_text(out: &mut String, text: &str, depth: usize) {
    out.push(' ');
    if is_safe_plain(text) {
        out.push_str(text);
        out.push('\n');
    } else if is_safe_block(text) {
        let kept = text.trim_end_matches('\n');
        out.push_str(match text.len() - kept.len() {
            0 => "|-\n",
            1 => "|\n",
            _ => "|+\n",
        });
        let body = text.strip_suffix('\n').unwrap_or(text);
        for line in body.split('\n') {
            if !line.is_empty() {
                indent(out, depth);
                out.push_str(line);
            }
            out.push('\n');
        }
    } else {
        write_quoted(out, text);
        out.push('\n');
    }
}

/// What YAML may hold as it is.
fn is_printable(character: char) -> bool {
    matches!(character, ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}'
        | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
}

/// A text that reads as itself without quotes, in this reader and in those that guess at what is a number, a date or a truth value.
fn is_safe_plain(text: &str) -> bool {
    const GUESSED: [&str; 10] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan"];
    text.starts_with(|first: char| first.is_alphabetic() || first == '/' || first == '_')
        && text.chars().all(is_printable)
        && !text.ends_with([' ', ':', '\u{a0}'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !GUESSED.contains(&text.to_ascii_lowercase().as_str())
}

/// A text of several lines that stands in a block as it is.
fn is_safe_block(text: &str) -> bool {
    text.trim_end_matches('\n').contains('\n')
        && text.chars().all(|character| is_printable(character) || character == '\n' || character == '\t')
        && !text.starts_with(char::is_whitespace)
        && text.split('\n').all(|line| line.is_empty() || !line.trim().is_empty())
}

fn write_quoted(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            printable if is_printable(printable) => out.push(printable),
            other => escape(out, other),
        }
    }
    out.push('"');
}

/// What is not printable takes no more than 16 bits.
fn escape(out: &mut String, character: char) {
    let _ = write!(out, "\\u{:04x}", u32::from(character));
}

#[cfg(test)]
mod tests;
