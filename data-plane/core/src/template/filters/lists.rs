//! Filters on lists and maps. Hides what counts as a list (a map is its values, a scalar is itself once), and what
//! equality and order mean between items.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;
use minijinja::Value;
use minijinja::value::ValueKind;

use super::super::containers::Entry;
use super::super::dates;
use super::super::entries::Key;
use super::super::error::Fault;
use super::super::json_sites;
use super::super::limits::{ITEMS, Meter, STRING_BYTES, over};
use super::super::operators::{self, kind};
use super::super::traced::{Origin, Traced};
use super::super::values::{self, Number, TooLong, as_bool, is_null, number};
use super::{Builder, Call, Done, Spec, author, items_of, resolve, text_of};

pub(super) const FILTERS: &[Spec] = &[
    Spec::new("batch", &["linecount", "fill_with"], 1, batch),
    Spec::new("dictsort", &["case_sensitive", "by"], 0, dictsort),
    Spec::new("difference", &["list"], 1, difference),
    Spec::new("first", &[], 0, first),
    Spec::new("groupby", &["attribute"], 1, groupby),
    Spec::new("intersect", &["list"], 1, intersect),
    Spec::new("join", &["d", "attribute"], 0, join),
    Spec::new("last", &[], 0, last),
    Spec::new("length", &[], 0, length).also(&["count"]),
    Spec::new("list", &[], 0, list),
    Spec::new("reverse", &[], 0, reverse),
    Spec::new("slice", &["slices", "fill_with"], 1, slice),
    Spec::new("sort", &["reverse", "case_sensitive", "attribute"], 0, sort),
    Spec::new("symmetric_difference", &["list"], 1, symmetric_difference),
    Spec::new("union", &["list"], 1, union),
    Spec::new("unique", &["attr"], 0, unique),
];

/// Most items in one row of `slice`; more are taken for this many (Jinjava).
const SLICE_MAX: i64 = 1_000;

/// Texts are measured in UTF-16 units, as Java does.
fn length(call: &mut Call<'_>) -> Done {
    let value = &call.input.value;
    let length = match value.as_str() {
        Some(text) => {
            call.meter.reading(text.len())?;
            text.encode_utf16().count()
        }
        None => match value.kind() {
            ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => value.len().unwrap_or(0),
            _ => 0,
        },
    };
    Ok(author(length as i64))
}

fn first(call: &mut Call<'_>) -> Done {
    let item = call.input_items()?.into_iter().next();
    Ok(one(item, call))
}

fn last(call: &mut Call<'_>) -> Done {
    let item = call.input_items()?.pop();
    Ok(one(item, call))
}

/// One item of the input. That there is none is no missing path.
fn one(item: Option<Value>, call: &Call<'_>) -> Traced {
    Traced { value: item.unwrap_or_else(|| Value::from(())), origin: call.input.origin }
}

/// The items of a list, the characters of a text, the values of a map, or the one thing there is.
fn list(call: &mut Call<'_>) -> Done {
    if let Some(text) = call.input_string()? {
        call.meter.items(text.chars().take(ITEMS + 1).count())?;
        let mut buffer = [0; 4];
        let letters = text.chars().map(|c| Value::from(&*c.encode_utf8(&mut buffer))).collect();
        return call.made_list(letters, &[]);
    }
    let items = call.input_items()?;
    call.made_list(items, &[])
}

fn reverse(call: &mut Call<'_>) -> Done {
    if let Some(text) = call.input_string()? {
        return call.made_text(text.chars().rev().collect(), &[]);
    }
    if !matches!(call.input.value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map) {
        return call.same();
    }
    let mut items = call.input_items()?;
    items.reverse();
    call.made_list(items, &[])
}

fn join(call: &mut Call<'_>) -> Done {
    let origin = call.given(0).map_or(call.input.origin, |glue| glue.origin.with(call.input.origin));
    joined(call, origin, |_, _| None, |_, _| None)
}

/// `join` where its text goes into a JSON string, whose border the items cannot move.
pub(super) static JOIN_INSIDE_STRING: Spec = Spec::new("join", &["d", "attribute"], 0, |call| {
    joined(call, Origin::Safe, json_sites::content, json_sites::separator)
});

/// `join` where its text is all that stands in a JSON list: numbers, truth values and nulls are items of that list. Any
/// other item makes it one text, as elsewhere.
pub(super) static JOIN_IN_LIST: Spec = Spec::new("join", &["d", "attribute"], 0, |call| match list_items(call)? {
    Some(text) => Ok(Traced { value: Value::from(text), origin: Origin::Json }),
    None => join(call),
});

fn list_items(call: &mut Call<'_>) -> Result<Option<String>, Box<Fault>> {
    let glue = call.text(0)?.unwrap_or_default();
    let by_author = call.given(0).is_some_and(|glue| glue.origin == Origin::Author);
    if !by_author || glue.trim_matches([' ', '\t', '\n', '\r']) != "," || is_null(&call.input.value) {
        return Ok(None);
    }
    let attribute = call.text(1)?;
    let items = call.input_items()?;
    let mut list = Builder::new(&mut *call.meter);
    for (position, item) in items.iter().enumerate() {
        let found = attribute.as_ref().map(|attribute| resolve(item, attribute, list.meter)).transpose()?;
        let item = found.as_ref().unwrap_or(item);
        if !(is_null(item) || as_bool(item).is_some() || number(item).is_some()) {
            return Ok(None);
        }
        if position > 0 {
            list.push(&glue)?;
        }
        list.push(&values::to_json(item, STRING_BYTES).map_err(|TooLong| over("bytes in one string", STRING_BYTES))?)?;
    }
    Ok(Some(list.text))
}

/// How a text is written, unless that is as it is.
type Written = fn(&str, Origin) -> Option<String>;

fn joined(call: &mut Call<'_>, origin: Origin, item_text: Written, glue_text: Written) -> Done {
    if is_null(&call.input.value) {
        return call.same();
    }
    let mut glue = call.text(0)?.unwrap_or_default();
    if let Some(written) = glue_text(&glue, call.given(0).map_or(Origin::Author, |glue| glue.origin)) {
        glue = written.into();
    }
    let attribute = call.text(1)?;
    let items = call.input_items()?;
    let mut joined = String::new();
    for (position, item) in items.iter().enumerate() {
        let found = attribute.as_ref().map(|attribute| resolve(item, attribute, call.meter)).transpose()?;
        let text = text_of(found.as_ref().unwrap_or(item), call.meter)?;
        let mut builder = Builder { text: joined, meter: &mut *call.meter };
        if position > 0 {
            builder.push(&glue)?;
        }
        builder.push(item_text(&text, call.input.origin).as_deref().unwrap_or(&text))?;
        joined = builder.text;
    }
    Ok(Traced { value: Value::from(joined), origin })
}

// ---- order ----

/// What is sorted, each with what it is sorted by.
struct Sorted {
    items: Vec<(Value, Value)>,
}

impl Sorted {
    /// Stable. What cannot be compared is an error, as it is in Java.
    fn sort(mut self, call: &mut Call<'_>, reverse: bool, case_sensitive: bool) -> Result<Vec<Value>, Box<Fault>> {
        let mut longest = 0;
        for (key, _) in &mut self.items {
            let Some(text) = key.as_str() else { continue };
            longest = longest.max(text.len());
            if !case_sensitive {
                call.meter.string(text.len())?;
                if !text.is_ascii() {
                    // Each letter is looked up in tables, twice.
                    call.meter.reading(8 * text.len())?;
                }
                *key = folded(text).into();
            }
        }
        let comparisons = self.items.len() * (usize::BITS - self.items.len().leading_zeros()) as usize;
        call.meter.visiting(comparisons)?;
        call.meter.steps(comparisons.saturating_mul(longest) / 4096)?;
        let mut odd = None;
        self.items.sort_by(|(a, _), (b, _)| {
            let order = order(a, b).unwrap_or_else(|| {
                odd.get_or_insert((kind(a), kind(b)));
                Ordering::Equal
            });
            if reverse { order.reverse() } else { order }
        });
        match odd {
            Some((a, b)) => Err(call.fault(&format!("cannot compare {a} with {b}"))),
            None => Ok(self.items.into_iter().map(|(_, item)| item).collect()),
        }
    }
}

/// Without regard to case, as Java compares.
fn folded(text: &str) -> String {
    match text.is_ascii() {
        true => text.to_ascii_lowercase(),
        false => text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect(),
    }
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        return Some(a.cmp(b));
    }
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return match (a, b) {
            (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
            (a, b) => a.as_f64().partial_cmp(&b.as_f64()),
        };
    }
    if let (Some(a), Some(b)) = (dates::moment(a), dates::moment(b)) {
        return Some(a.cmp(&b));
    }
    as_bool(a).zip(as_bool(b)).map(|(a, b)| a.cmp(&b))
}

fn sort(call: &mut Call<'_>) -> Done {
    if is_null(&call.input.value) {
        return call.same();
    }
    if call.given(2).is_some_and(|attribute| is_null(&attribute.value)) {
        return Err(call.fault("needs the name of an attribute, and got nothing"));
    }
    let attribute = call.text(2)?;
    let mut items = Vec::new();
    for item in call.input_items()? {
        let key = match &attribute {
            Some(attribute) => resolve(&item, attribute, call.meter)?,
            None => item.clone(),
        };
        if is_null(&key) {
            return Err(call.fault("cannot sort by null"));
        }
        items.push((key, item));
    }
    let (reverse, case_sensitive) = (call.flag(0, false), call.flag(1, false));
    let sorted = Sorted { items }.sort(call, reverse, case_sensitive)?;
    call.made_list(sorted, &[])
}

/// Entries by key, or by value.
fn dictsort(call: &mut Call<'_>) -> Done {
    let Some(entries) = values::entries(&call.input.value) else { return call.same() };
    let by_value = call.text(1)?.is_some_and(|by| by.eq_ignore_ascii_case("value"));
    call.meter.items(entries.len())?;
    let pair = |(key, value): (Key, Value)| {
        let by = if by_value { value.clone() } else { Value::from(key.clone()) };
        (by, Value::from_object(Entry { key, value }))
    };
    let items = entries.into_iter().map(pair).collect();
    let case_sensitive = call.flag(0, false);
    let sorted = Sorted { items }.sort(call, false, case_sensitive)?;
    call.made_list(sorted, &[])
}

// ---- sets ----

/// Items as a set: equal ones once, in their order. Equal means the same kind and the same value, as in Java.
struct Set {
    items: IndexMap<Arc<str>, Value>,
}

impl Set {
    fn of(items: Vec<Value>, meter: &mut Meter) -> Result<Set, Box<Fault>> {
        let mut set = Set { items: IndexMap::new() };
        for item in items {
            let key = identity(&item, meter)?;
            set.items.entry(key).or_insert(item);
        }
        Ok(set)
    }

    fn has(&self, key: &str) -> bool {
        self.items.contains_key(key)
    }
}

/// A text that equal values share and others do not: their JSON, in which `1`, `1.0` and `"1"` differ.
fn identity(value: &Value, meter: &mut Meter) -> Result<Arc<str>, Box<Fault>> {
    if let Some(moment) = dates::moment(value) {
        return Ok(format!("@{moment}").into());
    }
    Ok(super::encode::json_text(value, meter)?.into())
}

/// Both lists as sets. Null is a list without items.
fn sets(call: &mut Call<'_>) -> Result<(Set, Set), Box<Fault>> {
    let own = call.input_items()?;
    let other = match call.value(0).cloned() {
        Some(other) => items_of(&other, call.meter)?,
        None => Vec::new(),
    };
    Ok((Set::of(own, call.meter)?, Set::of(other, call.meter)?))
}

fn difference(call: &mut Call<'_>) -> Done {
    let (own, other) = sets(call)?;
    let kept = own.items.into_iter().filter(|(key, _)| !other.has(key)).map(|(_, item)| item).collect();
    call.made_list(kept, &[])
}

fn intersect(call: &mut Call<'_>) -> Done {
    let (own, other) = sets(call)?;
    let kept = own.items.into_iter().filter(|(key, _)| other.has(key)).map(|(_, item)| item).collect();
    call.made_list(kept, &[])
}

fn union(call: &mut Call<'_>) -> Done {
    let (mut own, other) = sets(call)?;
    for (key, item) in other.items {
        own.items.entry(key).or_insert(item);
    }
    let all = own.items.into_values().collect();
    call.made_list(all, &[0])
}

fn symmetric_difference(call: &mut Call<'_>) -> Done {
    let (own, other) = sets(call)?;
    let only_own = own.items.iter().filter(|(key, _)| !other.has(key));
    let only_other = other.items.iter().filter(|(key, _)| !own.has(key));
    let kept = only_own.chain(only_other).map(|(_, item)| item.clone()).collect();
    call.made_list(kept, &[0])
}

fn unique(call: &mut Call<'_>) -> Done {
    let attribute = call.text(0)?;
    let mut seen: HashMap<Arc<str>, ()> = HashMap::new();
    let mut kept = Vec::new();
    for item in call.input_items()? {
        let found = attribute.as_ref().map(|attribute| resolve(&item, attribute, call.meter)).transpose()?;
        let key = identity(found.as_ref().unwrap_or(&item), call.meter)?;
        if seen.insert(key, ()).is_none() {
            kept.push(item);
        }
    }
    call.made_list(kept, &[])
}

// ---- rows and groups ----

/// Rows of a length; the last one is filled up, with null if nothing else is given.
fn batch(call: &mut Call<'_>) -> Done {
    let length = usize::try_from(call.int(0, 0)).unwrap_or(0);
    if length == 0 {
        return call.made_list(Vec::new(), &[]);
    }
    let fill = call.given(1).map_or(Value::from(()), |fill| fill.value.clone());
    rows(call, length, Some(fill))
}

/// Rows of a length; the last one is filled up only if there is something to do it with.
fn slice(call: &mut Call<'_>) -> Done {
    let length = usize::try_from(call.int(0, 3).min(SLICE_MAX)).unwrap_or(0);
    if length == 0 {
        return Err(call.fault("needs a length above 0"));
    }
    let fill = call.given(1).map(|fill| fill.value.clone());
    rows(call, length, fill)
}

fn rows(call: &mut Call<'_>, length: usize, fill: Option<Value>) -> Done {
    let items = call.input_items()?;
    let mut rows = Vec::new();
    for chunk in items.chunks(length) {
        let filled = if fill.is_some() { length } else { chunk.len() };
        // Charged before the row is made as long as it is asked to be.
        call.meter.items(filled)?;
        let mut row = chunk.to_vec();
        if let Some(fill) = &fill {
            row.resize(length, fill.clone());
        }
        rows.push(operators::build_list(row, call.meter)?);
    }
    call.made_list(rows, &[1])
}

/// Maps of `grouper` and `list`, in the order in which the groups come up.
fn groupby(call: &mut Call<'_>) -> Done {
    let attribute = call.needed_text(0, "the name of an attribute")?;
    let mut groups: IndexMap<Arc<str>, Vec<Value>> = IndexMap::new();
    for item in call.input_items()? {
        let found = resolve(&item, &attribute, call.meter)?;
        let grouper = if is_null(&found) { "null".into() } else { text_of(&found, call.meter)? };
        groups.entry(grouper).or_default().push(item);
    }
    let mut built = Vec::new();
    for (grouper, items) in groups {
        let list = operators::build_list(items, call.meter)?;
        let entries = [("grouper".into(), Value::from(grouper)), ("list".into(), list)];
        built.push(operators::build_map(entries.into_iter().collect(), call.meter)?);
    }
    call.made_list(built, &[])
}
