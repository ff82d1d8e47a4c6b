//! Values as the dialect sees them. Hides how JSON becomes values without losing number text or key order (D16), how
//! values are looked into, how they print (Java's way and JSON's way), and keeps every walk free of recursion.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{DynObject, Object, ObjectRepr, ValueKind};

use super::containers::{self, Entry, Items, List, Map, MapKind};
use super::dates;
use super::document;
use super::entries::{Entries, Key};
use super::json_text;
use super::limits::VALUE_DEPTH;

/// A number whose text neither `i64` nor `f64` would print back (D16): `1.10`, `1e2`, `18446744073709551617`.
#[derive(Debug)]
pub(super) struct ExactNumber {
    text: Box<str>,
    number: Number,
}

/// A number to calculate with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    pub(super) fn as_f64(self) -> f64 {
        match self {
            Number::Int(int) => int as f64,
            Number::Float(float) => float,
        }
    }

    pub(super) fn parse(text: &str) -> Option<Number> {
        // Longer ones are no numbers anybody calculates with, and reading them again and again would cost time.
        let digits = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
        if text.len() > 400 || !text.bytes().all(digits) {
            return None;
        }
        if let Ok(int) = text.parse() {
            return Some(Number::Int(int));
        }
        text.parse().ok().map(Number::Float)
    }

    pub(super) fn into_value(self) -> Value {
        match self {
            Number::Int(int) => i64::try_from(int).map_or_else(|_| Value::from(int), Value::from),
            Number::Float(float) => Value::from(float),
        }
    }
}

impl Object for ExactNumber {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<std::cmp::Ordering> {
        Some(self.number.as_f64().total_cmp(&other.downcast_ref::<Self>()?.number.as_f64()))
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// A JSON value as a template sees it: key order is kept, and number text as far as serde_json kept it (it rewrites
/// `1e2` as `1e+2`; [`value_from_json_text`] does not, D16).
///
/// A document nested deeper than [`VALUE_DEPTH`] becomes an invalid value, which fails the render that uses it.
pub fn value_from_json(json: &serde_json::Value) -> Value {
    from_json(json, 0).unwrap_or_else(invalid)
}

/// What is nested too deeply. Whatever comes to it fails with a limit.
fn invalid() -> Value {
    Value::from(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, "nested too deeply"))
}

/// A JSON text as a template sees it: key order and number text are kept to the last digit (D16). Faster than going
/// through [`value_from_json`]. `None` for what is no JSON, or nested deeper than [`VALUE_DEPTH`].
pub fn value_from_json_text(text: &str) -> Option<Value> {
    json_text::judge(text).ok()?;
    value_from_known_json_text(text)
}

/// As [`value_from_json_text`], of a text that has been read as JSON before.
pub(crate) fn value_from_known_json_text(text: &str) -> Option<Value> {
    document::read(text, VALUE_DEPTH as usize).ok()
}

/// `None` when it is too deep.
fn from_json(json: &serde_json::Value, depth: u32) -> Option<Value> {
    use serde_json::Value as Json;
    Some(match json {
        Json::Null => Value::from(()),
        Json::Bool(bool) => Value::from(*bool),
        Json::Number(number) => number_from_text(number.as_str()),
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(_) | Json::Object(_) if depth == VALUE_DEPTH => return None,
        Json::Array(items) => {
            containers::shared_list(items.iter().map(|item| from_json(item, depth + 1)).collect::<Option<_>>()?)
        }
        Json::Object(entries) => {
            let entry = |(key, value): (&String, _)| Some((key.as_str().into(), from_json(value, depth + 1)?));
            containers::shared_map(entries.iter().map(entry).collect::<Option<_>>()?, MapKind::Plain)
        }
    })
}

/// A JSON number. Keeps the text wherever the plain number would print otherwise.
pub(super) fn number_from_text(text: &str) -> Value {
    if let Ok(int) = text.parse::<i64>()
        && (text == "0" || !text.trim_start_matches('-').starts_with(['0', '+']))
    {
        return Value::from(int);
    }
    let float = text.parse::<f64>().unwrap_or(f64::NAN);
    if is_short_decimal(text) || float.is_finite() && java_double(float) == text {
        return Value::from(float);
    }
    let number = text.parse().map_or(Number::Float(float), Number::Int);
    Value::from_object(ExactNumber { text: text.into(), number })
}

/// Whether a text is what Java prints for the number it is, as can be seen without printing it: so few digits are not
/// rounded, and there is one way to write them.
fn is_short_decimal(text: &str) -> bool {
    let Some((whole, part)) = text.strip_prefix('-').unwrap_or(text).split_once('.') else { return false };
    let digits =
        |text: &str, most: usize| (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_whole = digits(whole, 7) && (whole == "0" || !whole.starts_with('0'));
    let is_part = part == "0" || !part.ends_with('0') && (whole != "0" || !part.starts_with("000"));
    is_whole && digits(part, 8) && is_part
}

/// A map of named values, in this order.
pub fn map_value<'n>(entries: impl IntoIterator<Item = (&'n str, Value)>) -> Value {
    let entries = entries.into_iter().map(|(name, value)| (name.into(), value)).collect();
    containers::shared_map(entries, MapKind::Plain)
}

/// Headers as a map: looked up without regard to ASCII case (T02), printed with the capitals they came with. Of a name
/// that comes twice, the last value wins.
pub fn headers_value<'h>(headers: impl Iterator<Item = (&'h str, &'h str)>) -> Value {
    let mut entries = Entries::new();
    for (name, value) in headers {
        let known = entries.keys().find(|known| known.eq_ignore_ascii_case(name)).cloned();
        entries.insert(known.unwrap_or_else(|| name.into()), Value::from(value));
    }
    containers::shared_map(entries, MapKind::Headers)
}

pub(super) fn is_null(value: &Value) -> bool {
    value.is_undefined() || value.is_none()
}

/// The number a value *is*; texts that look like one are not.
pub(super) fn number(value: &Value) -> Option<Number> {
    if value.kind() == ValueKind::Number {
        if value.is_integer() {
            return i128::try_from(value.clone()).ok().map(Number::Int);
        }
        return f64::try_from(value.clone()).ok().map(Number::Float);
    }
    value.downcast_object_ref::<ExactNumber>().map(|exact| exact.number)
}

/// The number a value can be read as in arithmetic: null is 0, texts are parsed.
pub(super) fn coerced_number(value: &Value) -> Option<Number> {
    if is_null(value) {
        return Some(Number::Int(0));
    }
    match value.as_str() {
        Some("") => Some(Number::Int(0)),
        Some(text) => Number::parse(text),
        None => number(value),
    }
}

/// Whether a number's own text holds a plus (`1e+2`), which is a blank in a URL's query.
pub(super) fn has_plus(value: &Value) -> bool {
    value.downcast_object_ref::<ExactNumber>().is_some_and(|exact| exact.text.contains('+'))
}

pub(super) fn as_bool(value: &Value) -> Option<bool> {
    (value.kind() == ValueKind::Bool).then(|| value.is_true())
}

/// Jinjava's truth (T42): null, `false`, 0, empty text, the text `false` in any case, and empty lists and maps are false.
pub(super) fn is_true(value: &Value) -> bool {
    if let Some(text) = value.as_str() {
        return !text.is_empty() && !text.eq_ignore_ascii_case("false");
    }
    if let Some(number) = number(value) {
        return number.as_f64() != 0.0;
    }
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => false,
        ValueKind::Bool => value.is_true(),
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => value.len() != Some(0),
        _ => true,
    }
}

/// The items of a list; nothing else has items.
pub(super) fn items(value: &Value) -> Option<Items<'_>> {
    if let Some(list) = value.downcast_object_ref::<List>() {
        return Some(list.items());
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => value.try_iter().ok().map(|items| items.collect::<Vec<_>>().into()),
        _ => None,
    }
}

/// The entries of a map, in order.
pub(super) fn entries(value: &Value) -> Option<Vec<(Key, Value)>> {
    if let Some(map) = value.downcast_object_ref::<Map>() {
        return Some(map.look(|entries| entries.iter().map(|(key, value)| (key.clone(), value.clone())).collect()));
    }
    if value.kind() != ValueKind::Map {
        return None;
    }
    let keys = value.try_iter().ok()?;
    Some(
        keys.map(|key| {
            let item = value.get_item(&key).unwrap_or(Value::UNDEFINED);
            let key = key.to_str().unwrap_or_else(|| display(&key, usize::MAX).unwrap_or_default().into());
            (key.into(), item)
        })
        .collect(),
    )
}

/// `value.name`: `UNDEFINED` when there is no such thing.
pub(super) fn attr(value: &Value, name: &str) -> Value {
    found(value, name).map_or(Value::UNDEFINED, Cow::into_owned)
}

/// `value.a.b.c`. What the context shares is gone through where it lies, and nothing is cloned.
pub(super) fn attrs<'v, 'n>(value: &'v Value, mut names: impl Iterator<Item = &'n str>) -> Cow<'v, Value> {
    let mut value = value;
    while let Some(name) = names.next() {
        match found(value, name) {
            Some(Cow::Borrowed(inner)) => value = inner,
            Some(Cow::Owned(inner)) => return Cow::Owned(names.fold(inner, |value, name| attr(&value, name))),
            None => return Cow::Owned(Value::UNDEFINED),
        }
    }
    Cow::Borrowed(value)
}

fn found<'v>(value: &'v Value, name: &str) -> Option<Cow<'v, Value>> {
    let object = value.as_object()?;
    match object.downcast_ref::<Map>() {
        Some(map) => map.find(name),
        None => object.get_value_by_str(name).map(Cow::Owned),
    }
}

/// `value[key]`: maps by the key's text, lists by position, also from the end. Texts have no items (Jinjava).
pub(super) fn item(value: &Value, key: &Value) -> Value {
    if matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        let Some(Number::Int(index)) = coerced_index(key) else { return Value::UNDEFINED };
        let Some(items) = items(value) else { return Value::UNDEFINED };
        let index = if index < 0 { index + items.len() as i128 } else { index };
        return usize::try_from(index).ok().and_then(|index| items.get(index).cloned()).unwrap_or(Value::UNDEFINED);
    }
    match key.as_str() {
        Some(name) => attr(value, name),
        None if is_null(key) || items(key).is_some() || key.kind() == ValueKind::Map => Value::UNDEFINED,
        None => attr(value, &display(key, usize::MAX).unwrap_or_default()),
    }
}

fn coerced_index(key: &Value) -> Option<Number> {
    if is_null(key) || key.as_str() == Some("") {
        return None;
    }
    match coerced_number(key)? {
        Number::Float(float) if float.fract() == 0.0 => Some(Number::Int(float as i128)),
        number => Some(number),
    }
}

/// The text is longer than allowed.
#[derive(Debug)]
pub(super) struct TooLong;

/// A value as Jinjava prints it in text: `{a=1, b=[x, null]}`; null alone is empty.
pub(super) fn display(value: &Value, cap: usize) -> Result<String, TooLong> {
    let mut out = String::new();
    print(value, cap, &mut out).map(|()| out)
}

/// As [`display`], behind what `out` holds: at most `cap` bytes more, or [`TooLong`].
pub(super) fn print(value: &Value, cap: usize, out: &mut String) -> Result<(), TooLong> {
    if is_null(value) {
        return Ok(());
    }
    write(value, Style::Java, cap, out)
}

/// A value as compact JSON: keys in order, number text kept, nothing escaped that JSON does not ask for.
pub(super) fn to_json(value: &Value, cap: usize) -> Result<String, TooLong> {
    let quoted = |text: &str| text.len().min(cap) + 2;
    let mut out = String::with_capacity(value.as_str().map_or(0, quoted));
    print_json(value, cap, &mut out).map(|()| out)
}

/// As [`to_json`], behind what `out` holds: at most `cap` bytes more, or [`TooLong`].
pub(super) fn print_json(value: &Value, cap: usize, out: &mut String) -> Result<(), TooLong> {
    write(value, Style::Json, cap, out)
}

#[derive(Clone, Copy, PartialEq)]
enum Style {
    Java,
    Json,
}

/// A list or map half way through being printed.
struct Open {
    rest: Rest,
    close: char,
    first: bool,
}

enum Rest {
    Items(std::vec::IntoIter<Value>),
    Entries(std::vec::IntoIter<(Key, Value)>),
}

impl Iterator for Rest {
    type Item = (Option<Key>, Value);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Rest::Items(items) => items.next().map(|item| (None, item)),
            Rest::Entries(entries) => entries.next().map(|(key, value)| (Some(key), value)),
        }
    }
}

/// Prints without recursion: `open` is the stack.
fn write(value: &Value, style: Style, cap: usize, out: &mut String) -> Result<(), TooLong> {
    let end = out.len() + cap.min(isize::MAX as usize);
    if value.as_object().is_none() {
        if value.as_str().is_none_or(|text| text.len() <= cap) {
            write_scalar(value, style, out);
        }
        return if out.len() > end || value.as_str().is_some_and(|text| text.len() > cap) {
            Err(TooLong)
        } else {
            Ok(())
        };
    }
    let mut open: Vec<Open> = Vec::new();
    let mut next = Some(value.clone());
    loop {
        if let Some(value) = next.take() {
            match children(&value, style) {
                Some((start, opened)) => {
                    out.push_str(start);
                    open.push(opened);
                }
                None => write_scalar(&value, style, out),
            }
        }
        if out.len() > end {
            return Err(TooLong);
        }
        let Some(top) = open.last_mut() else { return Ok(()) };
        match top.rest.next() {
            Some((key, value)) => {
                if !std::mem::take(&mut top.first) {
                    out.push_str(if style == Style::Json { "," } else { ", " });
                }
                match key {
                    Some(key) if style == Style::Json => {
                        write_json_string(&key, out);
                        out.push(':');
                    }
                    Some(key) => {
                        out.push_str(&key);
                        out.push('=');
                    }
                    None => {}
                }
                next = Some(value);
            }
            None => {
                if top.close != '\0' {
                    out.push(top.close);
                }
                open.pop();
            }
        }
    }
}

fn children(value: &Value, style: Style) -> Option<(&'static str, Open)> {
    if let Some(items) = items(value) {
        let rest = Rest::Items(items.into_owned().into_iter());
        return Some(("[", Open { rest, close: ']', first: true }));
    }
    if let Some(entries) = entries(value) {
        return Some(("{", Open { rest: Rest::Entries(entries.into_iter()), close: '}', first: true }));
    }
    let entry = value.downcast_object_ref::<Entry>()?;
    let rest = Rest::Entries(vec![(entry.key.clone(), entry.value.clone())].into_iter());
    let (start, close) = if style == Style::Json { ("{", '}') } else { ("", '\0') };
    Some((start, Open { rest, close, first: true }))
}

fn write_scalar(value: &Value, style: Style, out: &mut String) {
    if is_null(value) {
        out.push_str("null");
    } else if let Some(text) = value.as_str() {
        match style {
            Style::Java => out.push_str(text),
            Style::Json => write_json_string(text, out),
        }
    } else if let Some(bool) = as_bool(value) {
        out.push_str(if bool { "true" } else { "false" });
    } else if let Some(exact) = value.downcast_object_ref::<ExactNumber>() {
        out.push_str(&exact.text);
    } else if let Some(date) = dates::date(value) {
        match style {
            Style::Java => out.push_str(&date.text()),
            Style::Json => write_json_string(&date.text(), out),
        }
    } else {
        match number(value) {
            Some(Number::Int(int)) => {
                let _ = match i64::try_from(int) {
                    Ok(short) => write!(out, "{short}"),
                    Err(_) => write!(out, "{int}"),
                };
            }
            Some(Number::Float(float)) if style == Style::Json && !float.is_finite() => out.push_str("null"),
            Some(Number::Float(float)) => write_double(float, out),
            // Objects of our own code that have no text (a `loop`): nothing to show in text, null in JSON.
            None if style == Style::Json => out.push_str("null"),
            None => {}
        }
    }
}

/// `Double.toString` of Java: `1.0`, `1.0E8`, `1.619618967E9`.
pub(super) fn java_double(float: f64) -> String {
    let mut out = String::new();
    write_double(float, &mut out);
    out
}

fn write_double(float: f64, out: &mut String) {
    if float.is_nan() {
        return out.push_str("NaN");
    }
    if float.is_infinite() {
        return out.push_str(if float > 0.0 { "Infinity" } else { "-Infinity" });
    }
    let size = float.abs();
    let thousandths = (size * 1000.0).round();
    if (1.0..1e10).contains(&thousandths) && thousandths / 1000.0 == size {
        return write_thousandths(float < 0.0, thousandths as u64, out);
    }
    if size == 0.0 || (1e-3..1e7).contains(&size) {
        let _ = write!(out, "{float:?}");
        return;
    }
    let text = format!("{float:e}");
    let _ = match text.split_once('e') {
        Some((mantissa, exponent)) if mantissa.contains('.') => write!(out, "{mantissa}E{exponent}"),
        Some((mantissa, exponent)) => write!(out, "{mantissa}.0E{exponent}"),
        None => write!(out, "{text}"),
    };
}

/// What most numbers are, and what is printed much faster: so few digits are all there is of it.
fn write_thousandths(negative: bool, thousandths: u64, out: &mut String) {
    let _ = write!(out, "{}{}.", if negative { "-" } else { "" }, thousandths / 1000);
    for digit in [thousandths / 100, thousandths / 10, thousandths].map(|digits| (digits % 10) as u8) {
        out.push(char::from(b'0' + digit));
    }
    let zeros = [100, 10].iter().filter(|unit| thousandths.is_multiple_of(**unit)).count();
    out.truncate(out.len() - zeros);
}

/// A JSON string with its quotes.
pub(super) fn write_json_string(text: &str, out: &mut String) {
    out.push('"');
    write_json_content(text, out);
    out.push('"');
}

/// The inside of a JSON string. Escapes what JSON asks for and nothing else.
pub(super) fn write_json_content(text: &str, out: &mut String) {
    // Most texts need nothing, and looking at every byte without stopping is the fastest way to know.
    let special = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    if !text.bytes().fold(false, |any, byte| any | special(byte)) {
        out.push_str(text);
        return;
    }
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escaped = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x08 => "\\b",
            0x0c => "\\f",
            0..=0x1f => "",
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        plain = at + 1;
        if escaped.is_empty() {
            let _ = write!(out, "\\u{byte:04X}");
        } else {
            out.push_str(escaped);
        }
    }
    out.push_str(&text[plain..]);
}
