//! The filters. Hides their names, their parameters and what each does with null, with numbers and with text that is
//! already encoded. Names are resolved at compile time; a closed enum stands for what can be called.

use std::sync::Arc;

use minijinja::Value;
use minijinja::value::ValueKind;

use super::Mode;
use super::error::Fault;
use super::json_text::{self, Owner, Refused};
use super::limits::{FROMJSON_DEPTH, Meter, STRING_BYTES, over};
use super::traced::{Origin, Traced};
use super::values::{self, display, is_null};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    Attr,
    Default,
    EscapeJson,
    FromJson,
    Join,
    Length,
    Lower,
    Safe,
    ToJson,
    Trim,
    Upper,
    UrlEncode,
}

impl Filter {
    pub(super) const NAMES: &[&str] = &[
        "attr",
        "count",
        "d",
        "default",
        "escapejson",
        "fromjson",
        "join",
        "length",
        "lower",
        "safe",
        "tojson",
        "trim",
        "upper",
        "urlencode",
    ];

    pub(super) fn named(name: &str) -> Option<Filter> {
        Some(match name {
            "attr" => Filter::Attr,
            "d" | "default" => Filter::Default,
            "escapejson" => Filter::EscapeJson,
            "fromjson" => Filter::FromJson,
            "join" => Filter::Join,
            "count" | "length" => Filter::Length,
            "lower" => Filter::Lower,
            "safe" => Filter::Safe,
            "tojson" => Filter::ToJson,
            "trim" => Filter::Trim,
            "upper" => Filter::Upper,
            "urlencode" => Filter::UrlEncode,
            _ => return None,
        })
    }

    /// Parameters in their order; each can also be given by name.
    pub(super) fn parameters(self) -> &'static [&'static str] {
        match self {
            Filter::Attr => &["name"],
            Filter::Default => &["default_value", "boolean"],
            Filter::Join => &["d", "attribute"],
            _ => &[],
        }
    }

    /// How many of the first parameters cannot be left out.
    pub(super) fn required(self) -> usize {
        match self {
            Filter::Attr | Filter::Default => 1,
            _ => 0,
        }
    }

    /// A missing input is what this filter is for, so that it is no missing path (D32).
    pub(super) fn asks_for_missing(self) -> bool {
        self == Filter::Default
    }
}

/// Applies `filter`. `args` has one place for each of its parameters.
pub(super) fn apply(
    filter: Filter,
    input: Traced,
    args: &[Option<Traced>],
    mode: Mode,
    meter: &mut Meter,
) -> Result<Traced, Box<Fault>> {
    let arg = |position: usize| args.get(position).and_then(Option::as_ref);
    match filter {
        Filter::Attr => attr(&input, arg(0)),
        Filter::Default => default(input, arg(0), arg(1), meter),
        Filter::EscapeJson => escapejson(&input, meter),
        Filter::FromJson => fromjson(&input.value, meter),
        Filter::Join => join(&input, arg(0), arg(1), meter),
        Filter::Length => length(&input.value, meter),
        Filter::Lower => change_text(input, meter, |text| text.to_lowercase()),
        Filter::Upper => change_text(input, meter, |text| text.to_uppercase()),
        Filter::Safe => Ok(Traced { origin: Origin::Safe, ..input }),
        Filter::ToJson => {
            let text = json_text(&input.value, meter)?;
            Ok(Traced { value: Value::from(text), origin: Origin::Json })
        }
        Filter::Trim => trim(&input, meter),
        Filter::UrlEncode => urlencode(&input.value, mode, meter),
    }
}

/// A value's text as an operand of text operations, charged.
pub(super) fn text_of(value: &Value, meter: &mut Meter) -> Result<Arc<str>, Box<Fault>> {
    if let Some(text) = value.to_str() {
        meter.reading(text.len())?;
        return Ok(text);
    }
    let text = display(value, STRING_BYTES).map_err(|_| over("bytes in one string", STRING_BYTES))?;
    meter.string(text.len())?;
    Ok(text.into())
}

pub(super) fn json_text(value: &Value, meter: &mut Meter) -> Result<String, Box<Fault>> {
    let text = values::to_json(value, STRING_BYTES).map_err(|_| over("bytes in one string", STRING_BYTES))?;
    meter.string(text.len())?;
    // A wide value costs more than its text.
    meter.steps(text.len() / 64)?;
    Ok(text)
}

fn attr(input: &Traced, name: Option<&Traced>) -> Result<Traced, Box<Fault>> {
    let name = name.map(|name| &name.value).filter(|name| !is_null(name));
    let Some(name) = name else { return Err(Fault::eval("'attr' needs the name of an attribute, and got nothing")) };
    Ok(Traced::found(values::item(&input.value, name), input.origin))
}

/// Null counts as missing; with `true` also what is empty, 0 or false. The default becomes text, as it does in Jinjava,
/// unless it is a list or a map.
fn default(
    input: Traced,
    fallback: Option<&Traced>,
    boolean: Option<&Traced>,
    meter: &mut Meter,
) -> Result<Traced, Box<Fault>> {
    let truthy = boolean.is_some_and(|boolean| values::is_true(&boolean.value));
    let present = if truthy { values::is_true(&input.value) } else { !is_null(&input.value) };
    let Some(fallback) = fallback.filter(|_| !present) else { return Ok(input) };
    if is_null(&fallback.value) || fallback.value.as_object().is_some() {
        return Ok(fallback.clone());
    }
    Ok(Traced { value: Value::from(text_of(&fallback.value, meter)?), origin: fallback.origin })
}

/// Null is the text `null`, as `trim` and `escapejson` have it in Jinjava.
fn text_or_null(value: &Value, meter: &mut Meter) -> Result<Arc<str>, Box<Fault>> {
    if is_null(value) { Ok("null".into()) } else { text_of(value, meter) }
}

/// Escapes as Jinjava does: also `/` and everything beyond ASCII.
fn escapejson(input: &Traced, meter: &mut Meter) -> Result<Traced, Box<Fault>> {
    let text = text_or_null(&input.value, meter)?;
    meter.spend(text.len())?;
    let mut plain = String::with_capacity(text.len());
    values::write_json_content(&text, &mut plain);
    let mut escaped = String::with_capacity(plain.len());
    let mut units = [0u16; 2];
    for c in plain.chars() {
        match c {
            '/' => escaped.push_str("\\/"),
            '\u{20}'..='\u{7e}' => escaped.push(c),
            _ => escaped.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04X}"))),
        }
    }
    meter.string(escaped.len())?;
    Ok(Traced { value: Value::from(escaped), origin: Origin::JsonContent })
}

/// The document in a text (T14). What is not JSON fails the render and is never sent (T43).
fn fromjson(value: &Value, meter: &mut Meter) -> Result<Traced, Box<Fault>> {
    if is_null(value) {
        return Ok(Traced::data(Value::UNDEFINED));
    }
    let Some(text) = value.as_str() else { return Err(Fault::eval("'fromjson' needs a text")) };
    meter.string(text.len())?;
    // What is read takes more room than its text: about one value for each comma.
    let values = 1 + text.bytes().filter(|byte| matches!(byte, b',' | b':' | b'[' | b'{')).count();
    meter.spend(values * super::limits::BYTES_PER_ITEM)?;
    meter.visiting(values)?;
    match json_text::read(text, FROMJSON_DEPTH, Owner::Render) {
        Ok(value) => Ok(Traced::data(value)),
        Err(Refused::NotJson) => Err(Fault::eval("'fromjson' got a text that is not JSON")),
        Err(Refused::TooDeep) => Err(over("levels in the JSON given to 'fromjson'", FROMJSON_DEPTH)),
    }
}

fn join(
    input: &Traced,
    separator: Option<&Traced>,
    attribute: Option<&Traced>,
    meter: &mut Meter,
) -> Result<Traced, Box<Fault>> {
    if is_null(&input.value) {
        return Ok(Traced { value: Value::UNDEFINED, origin: input.origin });
    }
    let (glue, mut origin) = match separator {
        Some(separator) => (text_of(&separator.value, meter)?, separator.origin.with(input.origin)),
        None => ("".into(), input.origin),
    };
    if attribute.is_some() {
        origin = origin.with(input.origin);
    }
    let single = [input.value.clone()];
    let entries;
    let items = match values::items(&input.value) {
        Some(items) => items,
        None => {
            entries = values::entries(&input.value)
                .map(|entries| entries.into_iter().map(|(_, value)| value).collect::<Vec<_>>());
            entries.as_deref().unwrap_or(&single).into()
        }
    };
    meter.visiting(items.len())?;
    let mut joined = String::new();
    for (position, item) in items.iter().enumerate() {
        let attribute = attribute.map(|attribute| values::item(item, &attribute.value));
        let text = text_of(attribute.as_ref().unwrap_or(item), meter)?;
        let glue = if position == 0 { "" } else { &*glue };
        let added = glue.len() + text.len();
        meter.spend(added)?;
        if joined.len() + added > STRING_BYTES {
            return Err(over("bytes in one string", STRING_BYTES));
        }
        joined.push_str(glue);
        joined.push_str(&text);
    }
    Ok(Traced { value: Value::from(joined), origin })
}

/// Texts are measured in UTF-16 units, as Java does.
fn length(value: &Value, meter: &mut Meter) -> Result<Traced, Box<Fault>> {
    let length = match value.as_str() {
        Some(text) => {
            meter.reading(text.len())?;
            text.encode_utf16().count()
        }
        None => match value.kind() {
            ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => value.len().unwrap_or(0),
            _ => 0,
        },
    };
    Ok(Traced { value: Value::from(length as i64), origin: Origin::Author })
}

/// `lower` and `upper` leave everything that is not text alone.
fn change_text(input: Traced, meter: &mut Meter, change: impl Fn(&str) -> String) -> Result<Traced, Box<Fault>> {
    let Some(text) = input.value.as_str() else { return Ok(input) };
    // Some letters grow (`ß` to `SS`), at most threefold.
    meter.string(text.len().min(STRING_BYTES))?;
    let changed = change(text);
    if changed.len() > STRING_BYTES {
        return Err(over("bytes in one string", STRING_BYTES));
    }
    Ok(Traced { value: Value::from(changed), origin: input.origin.reshaped() })
}

fn trim(input: &Traced, meter: &mut Meter) -> Result<Traced, Box<Fault>> {
    let text = text_or_null(&input.value, meter)?;
    // Java's `trim`: everything up to the space.
    let trimmed = text.trim_matches(|c| c <= ' ');
    meter.string(trimmed.len())?;
    Ok(Traced { value: Value::from(trimmed), origin: input.origin.reshaped() })
}

/// Java's form encoding; in a URL a space is `%20`, which is right in path and query alike (D31, T19).
fn urlencode(value: &Value, mode: Mode, meter: &mut Meter) -> Result<Traced, Box<Fault>> {
    let mut encoded = String::new();
    if let Some(entries) = values::entries(value) {
        meter.visiting(entries.len())?;
        for (position, (key, value)) in entries.iter().enumerate() {
            if position > 0 {
                encoded.push('&');
            }
            form_encode(key, mode, &mut encoded, meter)?;
            encoded.push('=');
            form_encode(&text_of(value, meter)?, mode, &mut encoded, meter)?;
        }
    } else {
        form_encode(&text_of(value, meter)?, mode, &mut encoded, meter)?;
    }
    Ok(Traced { value: Value::from(encoded), origin: Origin::UrlEncoded })
}

fn form_encode(text: &str, mode: Mode, out: &mut String, meter: &mut Meter) -> Result<(), Box<Fault>> {
    meter.string(text.len())?;
    meter.spend(text.len() * 2)?;
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' => out.push(char::from(byte)),
            b' ' if mode != Mode::Url => out.push('+'),
            _ => super::url_sites::push_percent(byte, out),
        }
    }
    if out.len() > STRING_BYTES {
        return Err(over("bytes in one string", STRING_BYTES));
    }
    Ok(())
}
