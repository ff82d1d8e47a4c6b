//! The methods of `x.method()`: those of lists and maps are here, those of texts in
//! [`text_methods`](super::text_methods). Hides their names, what each takes, and what may be put where. Lists and maps
//! change in place, and are the render's own (`containers`).

use std::sync::Arc;

use minijinja::Value;

use super::containers::{Entry, List, Map};
use super::entries::{Entries, Key};
use super::error::Fault;
use super::filters::text_of;
use super::limits::Meter;
use super::nodes::Loop;
use super::operators::{self, build_list, build_map, kind};
use super::text_methods;
use super::traced::{Origin, Traced};
use super::values::{self, Number, is_null};

type Done = Result<Traced, Box<Fault>>;

/// One method: its names, how many arguments it takes, and what it is a method of.
struct Spec {
    names: &'static [&'static str],
    least: usize,
    most: usize,
    on: &'static [On],
    /// The first argument is a regular expression.
    pattern: bool,
}

/// What a method is called on, and what it does there.
enum On {
    List(fn(&mut Call<'_>, &List) -> Done),
    Map(fn(&mut Call<'_>, &Map) -> Done),
    Text(fn(&mut Call<'_>, &str) -> Done),
    Loop(fn(&mut Call<'_>, &Loop) -> Done),
    Any(fn(&mut Call<'_>) -> Done),
}

const fn method(names: &'static [&'static str], least: usize, most: usize, on: &'static [On]) -> Spec {
    Spec { names, least, most, on, pattern: false }
}

/// A method whose first argument is a regular expression.
const fn matching(names: &'static [&'static str], least: usize, most: usize, on: &'static [On]) -> Spec {
    Spec { names, least, most, on, pattern: true }
}

/// A method that can be called.
#[derive(Clone, Copy)]
pub(super) struct Method(&'static Spec);

impl std::fmt::Debug for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Methods that change what they are called on.
const CHANGING: &[&str] = &[
    "append",
    "add",
    "addAll",
    "clear",
    "extend",
    "insert",
    "pop",
    "put",
    "putAll",
    "putIfAbsent",
    "remove",
    "reverse",
    "set",
    "update",
];

static METHODS: &[Spec] = &[
    method(&["append"], 1, 1, &[On::List(append)]),
    method(&["add"], 1, 2, &[On::List(add)]),
    method(&["insert"], 2, 2, &[On::List(insert)]),
    method(&["extend", "addAll"], 1, 1, &[On::List(extend)]),
    method(&["pop"], 0, 1, &[On::List(pop)]),
    method(&["set"], 2, 2, &[On::List(set)]),
    method(&["reverse"], 0, 0, &[On::List(reverse)]),
    method(&["index"], 1, 3, &[On::List(index)]),
    method(&["count"], 1, 1, &[On::List(count)]),
    method(&["subList"], 2, 2, &[On::List(sub_list)]),
    method(&["put"], 2, 2, &[On::Map(put)]),
    method(&["putIfAbsent"], 2, 2, &[On::Map(put_if_absent)]),
    method(&["update", "putAll"], 1, 1, &[On::Map(update)]),
    method(&["keys", "keySet"], 0, 0, &[On::Map(keys)]),
    method(&["values"], 0, 0, &[On::Map(map_values)]),
    method(&["items", "entrySet"], 0, 0, &[On::Map(items)]),
    method(&["containsKey"], 1, 1, &[On::Map(contains_key)]),
    method(&["containsValue"], 1, 1, &[On::Map(contains_value)]),
    method(&["get", "getOrDefault"], 1, 2, &[On::List(get), On::Map(get_or)]),
    method(&["remove"], 1, 1, &[On::List(remove), On::Map(remove_key)]),
    method(&["clear"], 0, 0, &[On::List(clear), On::Map(clear_map)]),
    method(&["copy"], 0, 0, &[On::List(copy), On::Map(copy_map)]),
    method(&["size"], 0, 0, &[On::List(size), On::Map(map_size)]),
    method(&["isEmpty"], 0, 0, &[On::List(is_empty), On::Map(map_is_empty), On::Text(text_methods::is_empty)]),
    method(&["contains"], 1, 1, &[On::List(contains), On::Text(text_methods::contains)]),
    method(&["indexOf"], 1, 2, &[On::List(index), On::Text(text_methods::index_of)]),
    method(&["lastIndexOf"], 1, 1, &[On::List(last_index), On::Text(text_methods::last_index_of)]),
    method(&["charAt"], 1, 1, &[On::Text(text_methods::char_at)]),
    method(&["compareTo"], 1, 1, &[On::Text(text_methods::compare_to)]),
    method(&["concat"], 1, 1, &[On::Text(text_methods::concat)]),
    method(&["endsWith"], 1, 1, &[On::Text(text_methods::ends_with)]),
    method(&["equalsIgnoreCase"], 1, 1, &[On::Text(text_methods::equals_ignore_case)]),
    method(&["isBlank"], 0, 0, &[On::Text(text_methods::is_blank)]),
    method(&["length"], 0, 0, &[On::Text(text_methods::length)]),
    method(&["repeat"], 1, 1, &[On::Text(text_methods::repeat)]),
    method(&["replace"], 2, 2, &[On::Text(text_methods::replace)]),
    matching(&["matches"], 1, 1, &[On::Text(text_methods::matches)]),
    matching(&["replaceAll"], 2, 2, &[On::Text(text_methods::replace_all)]),
    matching(&["replaceFirst"], 2, 2, &[On::Text(text_methods::replace_first)]),
    matching(&["split"], 1, 2, &[On::Text(text_methods::split)]),
    method(&["startsWith"], 1, 2, &[On::Text(text_methods::starts_with)]),
    method(&["strip"], 0, 0, &[On::Text(text_methods::strip)]),
    method(&["stripLeading"], 0, 0, &[On::Text(text_methods::strip_leading)]),
    method(&["stripTrailing"], 0, 0, &[On::Text(text_methods::strip_trailing)]),
    method(&["substring"], 1, 2, &[On::Text(text_methods::substring)]),
    method(&["toLowerCase"], 0, 0, &[On::Text(text_methods::to_lower_case)]),
    method(&["toUpperCase"], 0, 0, &[On::Text(text_methods::to_upper_case)]),
    method(&["trim"], 0, 0, &[On::Text(text_methods::trim)]),
    method(&["cycle"], 1, 100, &[On::Loop(cycle)]),
    method(&["equals"], 1, 1, &[On::Any(equals)]),
    method(&["toString"], 0, 0, &[On::Any(to_string)]),
];

impl Method {
    pub(super) fn named(name: &str) -> Option<Method> {
        METHODS.iter().find(|spec| spec.names.contains(&name)).map(Method)
    }

    pub(super) fn names() -> Vec<&'static str> {
        METHODS.iter().flat_map(|spec| spec.names.iter().copied()).collect()
    }

    /// How many arguments it takes, if not so many.
    pub(super) fn takes_other_than(self, given: usize) -> Option<String> {
        let Spec { least, most, .. } = *self.0;
        (given < least || given > most).then(|| match (least, most) {
            (0, 0) => "nothing".to_owned(),
            _ if least == most => format!("{least} {}", if least == 1 { "argument" } else { "arguments" }),
            _ => format!("{least} to {most} arguments"),
        })
    }

    /// Whether it changes what it is called on.
    pub(super) fn changes(self) -> bool {
        self.0.names.iter().any(|name| CHANGING.contains(name))
    }

    /// Whether the first argument is a regular expression.
    pub(super) fn takes_pattern(self) -> bool {
        self.0.pattern
    }

    /// Whether its regular expression is for the whole text.
    pub(super) fn matches_whole(self) -> bool {
        self.name() == "matches"
    }

    fn name(self) -> &'static str {
        self.0.names.first().copied().unwrap_or_default()
    }

    /// What it works on, for messages.
    fn needs(self) -> String {
        let kinds = self.0.on.iter().map(|on| match on {
            On::List(_) => "a list",
            On::Map(_) => "a map",
            On::Text(_) => "a text",
            On::Loop(_) => "'loop'",
            On::Any(_) => "a value",
        });
        kinds.collect::<Vec<_>>().join(" or ")
    }
}

/// One call of a method.
pub(super) struct Call<'c> {
    pub(super) target: &'c Traced,
    pub(super) args: &'c [Traced],
    pub(super) meter: &'c mut Meter,
}

/// Calls `method`. On null there is nothing to call: the result is null (Jinjava).
pub(super) fn call(method: Method, target: &Traced, args: &[Traced], meter: &mut Meter) -> Done {
    if is_null(&target.value) {
        return Ok(Traced::data(Value::from(())));
    }
    let value = &target.value;
    let mut call = Call { target, args, meter };
    for on in method.0.on {
        match on {
            On::List(run) => {
                if let Some(list) = value.downcast_object_ref::<List>() {
                    return run(&mut call, list);
                }
            }
            On::Map(run) => {
                if let Some(map) = value.downcast_object_ref::<Map>() {
                    return run(&mut call, map);
                }
            }
            On::Text(run) => {
                if let Some(text) = value.as_str() {
                    call.meter.reading(text.len())?;
                    return run(&mut call, text);
                }
            }
            On::Loop(run) => {
                if let Some(this) = value.downcast_object_ref::<Loop>() {
                    return run(&mut call, this);
                }
            }
            On::Any(run) => return run(&mut call),
        }
    }
    Err(Fault::eval(format!("'{}' needs {}, not {}", method.name(), method.needs(), kind(value))))
}

impl Call<'_> {
    pub(super) fn value(&self, position: usize) -> Value {
        self.args.get(position).map_or(Value::UNDEFINED, |arg| arg.value.clone())
    }

    pub(super) fn text(&mut self, position: usize) -> Result<Arc<str>, Box<Fault>> {
        text_of(&self.value(position), self.meter)
    }

    /// A whole number.
    pub(super) fn int(&self, position: usize) -> Result<i64, Box<Fault>> {
        let value = self.value(position);
        match values::coerced_number(&value).filter(|_| !is_null(&value)) {
            Some(Number::Int(int)) => Ok(i64::try_from(int).unwrap_or(if int < 0 { i64::MIN } else { i64::MAX })),
            Some(Number::Float(float)) => Ok(float as i64),
            None => Err(Fault::eval(format!("a whole number is needed, not {}", kind(&value)))),
        }
    }

    /// A whole number that counts from 0, if it is in range.
    fn position(&self, position: usize) -> Result<Option<usize>, Box<Fault>> {
        Ok(usize::try_from(self.int(position)?).ok())
    }

    /// What was taken out of, or found in, what the method was called on.
    fn found(&self, value: Option<Value>) -> Done {
        Ok(Traced::found(value.unwrap_or_else(|| Value::from(())), self.target.origin))
    }

    /// A list of what was found.
    fn list(&mut self, items: Vec<Value>) -> Done {
        Ok(Traced { value: build_list(items, self.meter)?, origin: self.target.origin })
    }
}

/// A yes, no or number: it says something about data and holds none of it.
pub(super) fn fact(value: impl Into<Value>) -> Done {
    Ok(Traced::author(value.into()))
}

/// What a change answers. Counts as data, so that whatever it is put together with is read as changed.
fn changed(value: impl Into<Value>) -> Done {
    Ok(Traced::data(value.into()))
}

/// Numbers and texts as they are compared by `contains`, `index` and `count`.
fn is_same(a: &Value, b: &Value, meter: &mut Meter) -> Result<bool, Box<Fault>> {
    match operators::equal(a, b, meter) {
        Err(fault) if fault.kind == super::RenderErrorKind::Eval => Ok(false),
        result => result,
    }
}

/// What a change that only takes away puts in.
const NOTHING: (&[Value], bool) = (&[], true);

fn by_author(call: &Call<'_>) -> bool {
    call.args.iter().all(|arg| arg.origin == Origin::Author)
}

// ---- lists ----

fn append(call: &mut Call<'_>, list: &List) -> Done {
    let item = call.value(0);
    list.change((std::slice::from_ref(&item), by_author(call)), call.meter, |items| items.push(item.clone()))?;
    changed(true)
}

/// `add(item)`, or `add(position, item)`.
fn add(call: &mut Call<'_>, list: &List) -> Done {
    if call.args.len() == 2 { insert(call, list) } else { append(call, list) }
}

/// Beyond the end nothing is put in; before the start it comes first (Jinjava).
fn insert(call: &mut Call<'_>, list: &List) -> Done {
    let (at, item) = (call.int(0)?, call.value(1));
    let length = list.items().len() as i64;
    let at = if at < 0 { (at.saturating_add(length)).max(0) } else { at };
    if at < length {
        call.meter.visiting(length as usize)?;
        list.change((std::slice::from_ref(&item), by_author(call)), call.meter, |items| {
            items.insert(at as usize, item.clone())
        })?;
    }
    changed(())
}

fn extend(call: &mut Call<'_>, list: &List) -> Done {
    let more = call.value(0);
    if is_null(&more) {
        return changed(false);
    }
    let Some(more) = values::items(&more) else {
        return Err(Fault::eval(format!("'extend' needs a list to add, not {}", kind(&more))));
    };
    list.change((&more, by_author(call)), call.meter, |items| items.extend_from_slice(&more))?;
    changed(!more.is_empty())
}

fn pop(call: &mut Call<'_>, list: &List) -> Done {
    let length = list.items().len();
    let at = if call.args.is_empty() { -1 } else { call.int(0)? };
    let at = if at < 0 { at.saturating_add(length as i64) } else { at };
    let Some(at) = usize::try_from(at).ok().filter(|at| *at < length) else { return changed(()) };
    call.meter.visiting(length - at)?;
    let item = list.change(NOTHING, call.meter, |items| items.remove(at))?;
    Ok(Traced::data(item))
}

fn set(call: &mut Call<'_>, list: &List) -> Done {
    let (at, item) = (call.position(0)?, call.value(1));
    let Some(at) = at.filter(|at| *at < list.items().len()) else { return changed(()) };
    let before = list.change((std::slice::from_ref(&item), by_author(call)), call.meter, |items| {
        items.get_mut(at).map(|place| std::mem::replace(place, item.clone()))
    })?;
    Ok(Traced::data(before.unwrap_or_default()))
}

/// The first that equals the argument goes.
fn remove(call: &mut Call<'_>, list: &List) -> Done {
    let Some(at) = find(call, &list.items(), 0..usize::MAX)? else { return changed(false) };
    list.change(NOTHING, call.meter, |items| items.remove(at))?;
    changed(true)
}

fn reverse(call: &mut Call<'_>, list: &List) -> Done {
    call.meter.visiting(list.items().len())?;
    list.change(NOTHING, call.meter, |items| items.reverse())?;
    changed(())
}

fn clear(call: &mut Call<'_>, list: &List) -> Done {
    list.change(NOTHING, call.meter, Vec::clear)?;
    changed(())
}

fn get(call: &mut Call<'_>, list: &List) -> Done {
    let at = call.position(0)?;
    call.found(at.and_then(|at| list.items().get(at).cloned()))
}

fn find(call: &mut Call<'_>, items: &[Value], within: std::ops::Range<usize>) -> Result<Option<usize>, Box<Fault>> {
    let wanted = call.value(0);
    call.meter.visiting(items.len())?;
    for (at, item) in items.iter().enumerate().take(within.end).skip(within.start) {
        if is_same(item, &wanted, call.meter)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// Where the item stands, from 0, or -1. Two more arguments say where to look.
fn index(call: &mut Call<'_>, list: &List) -> Done {
    let start = if call.args.len() > 1 { call.int(1)?.max(0) as usize } else { 0 };
    let end = if call.args.len() > 2 { call.int(2)?.max(0) as usize } else { usize::MAX };
    let at = find(call, &list.items(), start..end)?;
    fact(at.map_or(-1, |at| at as i64))
}

fn last_index(call: &mut Call<'_>, list: &List) -> Done {
    let (items, wanted) = (list.items(), call.value(0));
    call.meter.visiting(items.len())?;
    for (at, item) in items.iter().enumerate().rev() {
        if is_same(item, &wanted, call.meter)? {
            return fact(at as i64);
        }
    }
    fact(-1)
}

fn contains(call: &mut Call<'_>, list: &List) -> Done {
    let at = find(call, &list.items(), 0..usize::MAX)?;
    fact(at.is_some())
}

fn count(call: &mut Call<'_>, list: &List) -> Done {
    let (items, wanted) = (list.items(), call.value(0));
    call.meter.visiting(items.len())?;
    let mut found = 0;
    for item in items.iter() {
        found += i64::from(is_same(item, &wanted, call.meter)?);
    }
    fact(found)
}

fn size(_: &mut Call<'_>, list: &List) -> Done {
    fact(list.items().len() as i64)
}

fn is_empty(_: &mut Call<'_>, list: &List) -> Done {
    fact(list.items().is_empty())
}

fn copy(call: &mut Call<'_>, list: &List) -> Done {
    call.list(list.items().into_owned())
}

fn sub_list(call: &mut Call<'_>, list: &List) -> Done {
    let (start, end) = (call.position(0)?, call.position(1)?);
    let items = list.items();
    match (start, end) {
        (Some(start), Some(end)) if start <= end && end <= items.len() => {
            let part = items.get(start..end).unwrap_or_default().to_vec();
            call.list(part)
        }
        _ => Err(Fault::eval("'subList' needs a start and an end inside the list")),
    }
}

// ---- maps ----

fn put(call: &mut Call<'_>, map: &Map) -> Done {
    let (key, value) = (call.text(0)?, call.value(1));
    call.meter.spend(key.len())?;
    let before = map.change((std::slice::from_ref(&value), by_author(call)), call.meter, |entries| {
        entries.insert(key.into(), value.clone())
    })?;
    Ok(Traced::data(before.unwrap_or_else(|| Value::from(()))))
}

fn put_if_absent(call: &mut Call<'_>, map: &Map) -> Done {
    let key = call.text(0)?;
    match map.get(&key).filter(|value| !is_null(value)) {
        Some(there) => Ok(Traced::data(there)),
        None => put(call, map),
    }
}

fn update(call: &mut Call<'_>, map: &Map) -> Done {
    let more = call.value(0);
    if is_null(&more) {
        return changed(());
    }
    let Some(more) = values::entries(&more) else {
        return Err(Fault::eval(format!("'update' needs a map to add, not {}", kind(&more))));
    };
    let added: Vec<Value> = more.iter().map(|(_, value)| value.clone()).collect();
    call.meter.spend(more.iter().map(|(key, _)| key.len()).sum())?;
    map.change((&added, by_author(call)), call.meter, |entries| entries.extend(more))?;
    changed(())
}

fn remove_key(call: &mut Call<'_>, map: &Map) -> Done {
    let key = call.text(0)?;
    call.meter.visiting(map.look(Entries::len))?;
    let before = map.change(NOTHING, call.meter, |entries| entries.remove(&key))?;
    Ok(Traced::data(before.unwrap_or_else(|| Value::from(()))))
}

fn clear_map(call: &mut Call<'_>, map: &Map) -> Done {
    map.change(NOTHING, call.meter, Entries::clear)?;
    changed(())
}

/// The value of a key; the second argument where there is none.
fn get_or(call: &mut Call<'_>, map: &Map) -> Done {
    let key = call.text(0)?;
    match (map.get(&key), call.args.get(1)) {
        (None, Some(otherwise)) => Ok(otherwise.clone()),
        (found, _) => call.found(found),
    }
}

fn keys(call: &mut Call<'_>, map: &Map) -> Done {
    let keys = map.look(|entries| entries.keys().map(|key| Value::from(key.clone())).collect());
    call.list(keys)
}

fn map_values(call: &mut Call<'_>, map: &Map) -> Done {
    let values = map.look(|entries| entries.values().cloned().collect());
    call.list(values)
}

fn items(call: &mut Call<'_>, map: &Map) -> Done {
    let entry = |(key, value): (&Key, &Value)| Value::from_object(Entry { key: key.clone(), value: value.clone() });
    let entries = map.look(|entries| entries.iter().map(entry).collect());
    call.list(entries)
}

fn contains_key(call: &mut Call<'_>, map: &Map) -> Done {
    let key = call.text(0)?;
    fact(map.get(&key).is_some())
}

fn contains_value(call: &mut Call<'_>, map: &Map) -> Done {
    let values: Vec<Value> = map.look(|entries| entries.values().cloned().collect());
    let at = find(call, &values, 0..usize::MAX)?;
    fact(at.is_some())
}

fn map_size(_: &mut Call<'_>, map: &Map) -> Done {
    fact(map.look(Entries::len) as i64)
}

fn map_is_empty(_: &mut Call<'_>, map: &Map) -> Done {
    fact(map.look(Entries::is_empty))
}

fn copy_map(call: &mut Call<'_>, map: &Map) -> Done {
    let entries = map.look(Clone::clone);
    Ok(Traced { value: build_map(entries, call.meter)?, origin: call.target.origin })
}

// ---- everything ----

/// The argument whose turn it is in this pass of the loop.
fn cycle(call: &mut Call<'_>, this: &Loop) -> Done {
    let turn = this.index() % call.args.len().max(1);
    Ok(call.args.get(turn).cloned().unwrap_or_else(|| Traced::data(Value::from(()))))
}

fn equals(call: &mut Call<'_>) -> Done {
    let other = call.value(0);
    fact(is_same(&call.target.value, &other, call.meter)?)
}

fn to_string(call: &mut Call<'_>) -> Done {
    let text = text_of(&call.target.value, call.meter)?;
    Ok(Traced { value: Value::from(text), origin: call.target.origin })
}
