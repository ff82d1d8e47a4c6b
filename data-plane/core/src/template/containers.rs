//! Lists and maps. Hides that those of the context are shared between renders and never change, while those a render
//! makes are its own and change in place, seen through every name they have (`append`, `update`); and that, however they
//! change, none can become too deep to be dropped and none can hold itself.
//!
//! Every list or map of a render's own knows its *level*: 1, or one more than the deepest list or map it was ever put
//! into. Levels only rise, and end at [`VALUE_DEPTH`]. Putting a list into itself would raise its own level.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use minijinja::Value;
use minijinja::value::{Enumerator, Object, ObjectRepr, ValueKind};

use super::document::Part;
use super::entries::{Entries, Key};
use super::error::Fault;
use super::limits::{BYTES_PER_ITEM, ITEMS, Meter, VALUE_DEPTH, over};
use super::values;

#[derive(Debug)]
pub(super) struct List {
    store: Store<Vec<Value>>,
}

#[derive(Debug)]
pub(super) struct Map {
    store: Store<Entries>,
    kind: MapKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MapKind {
    Plain,
    /// Keys are HTTP header names: looked up without regard to ASCII case.
    Headers,
    /// Made by `namespace()`: `{% set ns.x = 1 %}` changes it.
    Namespace,
}

impl MapKind {
    fn find<'e>(self, entries: &'e Entries, key: &str) -> Option<&'e Value> {
        let found = entries.get(key);
        if found.is_none() && self == MapKind::Headers {
            return entries.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value);
        }
        found
    }
}

/// One entry of `map.items()`: unpacks to two names, and has `key` and `value`.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) value: Value,
}

#[derive(Debug)]
enum Store<T> {
    /// Of the context. `height` is how deep lists and maps are nested in it, itself included.
    Shared { content: Shared<T>, height: u32 },
    /// Of one render.
    Own { content: Mutex<Arc<T>>, level: AtomicU32, author: AtomicBool },
}

/// What a list or map of the context holds. That of a document is made when it is first looked at.
#[derive(Debug)]
struct Shared<T> {
    made: OnceLock<T>,
    part: Option<Part>,
}

impl<T: Content> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.made.get_or_init(|| self.part.as_ref().map(T::of_part).unwrap_or_default())
    }
}

/// What a list or map can hold.
trait Content: Clone + Default {
    fn of_part(part: &Part) -> Self;
}

impl Content for Vec<Value> {
    fn of_part(part: &Part) -> Self {
        part.items()
    }
}

impl Content for Entries {
    fn of_part(part: &Part) -> Self {
        part.entries()
    }
}

/// What a list or map held when it was looked at. A later change makes a copy, so that a loop goes through what was
/// there when it began.
pub(super) enum Looked<'c, T: ?Sized, O> {
    Borrowed(&'c T),
    Held(Arc<O>),
}

/// The items of a list.
pub(super) type Items<'c> = Looked<'c, [Value], Vec<Value>>;

impl<T: ?Sized, O: Deref<Target = T>> Deref for Looked<'_, T, O> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Looked::Borrowed(content) => content,
            Looked::Held(content) => content,
        }
    }
}

impl Items<'_> {
    pub(super) fn into_owned(self) -> Vec<Value> {
        match self {
            Looked::Borrowed(items) => items.to_vec(),
            Looked::Held(items) => Arc::unwrap_or_clone(items),
        }
    }
}

impl From<Vec<Value>> for Items<'_> {
    fn from(items: Vec<Value>) -> Self {
        Looked::Held(Arc::new(items))
    }
}

impl<'c> From<&'c [Value]> for Items<'c> {
    fn from(items: &'c [Value]) -> Self {
        Looked::Borrowed(items)
    }
}

impl<T: Content> Store<T> {
    fn shared(content: T, height: u32) -> Store<T> {
        Store::Shared { content: Shared { made: content.into(), part: None }, height }
    }

    fn of_part(part: Part) -> Store<T> {
        let height = part.height();
        Store::Shared { content: Shared { made: OnceLock::new(), part: Some(part) }, height }
    }

    fn own(content: T, level: u32) -> Store<T> {
        Store::Own {
            content: Mutex::new(Arc::new(content)),
            level: AtomicU32::new(level),
            author: AtomicBool::new(false),
        }
    }

    /// Looks at the content. Nothing else of this render runs meanwhile.
    fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        match self {
            Store::Shared { content, .. } => look(content),
            Store::Own { content, .. } => look(&content.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// How deep lists and maps can be nested in it, itself included.
    fn height(&self) -> u32 {
        match self {
            Store::Shared { height, .. } => *height,
            Store::Own { level, .. } => VALUE_DEPTH.saturating_sub(level.load(Ordering::Relaxed)),
        }
    }

    /// Changes the content. `added` is what is put in, `by_author` whether the author wrote all of it.
    fn change<R>(
        &self,
        size: impl Fn(&T) -> usize,
        (added, by_author): (&[Value], bool),
        meter: &mut Meter,
        change: impl FnOnce(&mut T) -> R,
    ) -> Result<R, Box<Fault>> {
        let Store::Own { content, level, author } = self else {
            return Err(Fault::eval("what the context shares cannot be changed"));
        };
        let before = level.load(Ordering::Relaxed);
        let mut visited = 0;
        for value in added {
            visited += place(value, before + 1).map_err(|TooDeep| too_deep())?;
        }
        if level.load(Ordering::Relaxed) != before {
            return Err(Fault::eval("a list or map cannot be put into itself"));
        }
        if !by_author && !added.iter().all(is_harmless) {
            author.store(false, Ordering::Relaxed);
        }
        let mut content = content.lock().unwrap_or_else(PoisonError::into_inner);
        let length = size(&content);
        if length + added.len() > ITEMS {
            return Err(over("entries in one list or map", ITEMS));
        }
        meter.visiting(visited + added.len())?;
        meter.spend(added.len() * BYTES_PER_ITEM)?;
        if Arc::strong_count(&content) > 1 {
            meter.items(length)?;
        }
        Ok(change(Arc::make_mut(&mut content)))
    }
}

fn too_deep() -> Box<Fault> {
    over("levels of lists and maps", VALUE_DEPTH as usize)
}

/// Deeper than [`VALUE_DEPTH`].
#[derive(Debug)]
pub(super) struct TooDeep;

/// Raises `value` to `level`, and what it holds to the levels below. Says how many values were looked at.
fn place(value: &Value, level: u32) -> Result<usize, TooDeep> {
    if value.as_object().is_none() {
        return Ok(0);
    }
    let mut visited = 0;
    let mut waiting = vec![(value.clone(), level)];
    while let Some((value, level)) = waiting.pop() {
        visited += 1;
        let mut below = |values: &mut dyn Iterator<Item = &Value>| {
            for value in values {
                visited += 1;
                if value.as_object().is_some() {
                    waiting.push((value.clone(), level + 1));
                }
            }
        };
        let (height, raised) = if let Some(list) = value.downcast_object_ref::<List>() {
            list.store.rise(level, |items| below(&mut items.iter()))
        } else if let Some(map) = value.downcast_object_ref::<Map>() {
            map.store.rise(level, |entries| below(&mut entries.values()))
        } else if let Some(entry) = value.downcast_object_ref::<Entry>() {
            below(&mut std::iter::once(&entry.value));
            (1, true)
        } else {
            (1, false)
        };
        if raised && level + height - 1 > VALUE_DEPTH {
            return Err(TooDeep);
        }
    }
    Ok(visited)
}

impl<T: Content> Store<T> {
    /// Raises the level, and tells `below` what it holds if that may have to rise as well. Gives the height that is
    /// known, and whether anything was raised.
    fn rise(&self, to: u32, below: impl FnOnce(&T)) -> (u32, bool) {
        match self {
            Store::Shared { height, .. } => (*height, true),
            Store::Own { level, .. } if level.load(Ordering::Relaxed) >= to => (1, false),
            Store::Own { level, .. } => {
                level.store(to, Ordering::Relaxed);
                if to <= VALUE_DEPTH {
                    self.look(below);
                }
                (1, true)
            }
        }
    }
}

impl List {
    pub(super) fn items(&self) -> Items<'_> {
        match &self.store {
            Store::Shared { content, .. } => Looked::Borrowed(content),
            Store::Own { content, .. } => {
                Looked::Held(Arc::clone(&content.lock().unwrap_or_else(PoisonError::into_inner)))
            }
        }
    }

    /// Changes the list in place. `added` is what `change` puts in, at most, and whether the author wrote all of it.
    pub(super) fn change<R>(
        &self,
        added: (&[Value], bool),
        meter: &mut Meter,
        change: impl FnOnce(&mut Vec<Value>) -> R,
    ) -> Result<R, Box<Fault>> {
        self.store.change(Vec::len, added, meter, change)
    }
}

impl Map {
    pub(super) fn kind(&self) -> MapKind {
        self.kind
    }

    pub(super) fn look<R>(&self, look: impl FnOnce(&Entries) -> R) -> R {
        self.store.look(look)
    }

    pub(super) fn get(&self, key: &str) -> Option<Value> {
        self.find(key).map(Cow::into_owned)
    }

    /// What lies under `key`: where it lies, if nothing can change it there.
    pub(super) fn find(&self, key: &str) -> Option<Cow<'_, Value>> {
        match &self.store {
            Store::Shared { content, .. } => self.kind.find(content, key).map(Cow::Borrowed),
            own @ Store::Own { .. } => own.look(|entries| self.kind.find(entries, key).cloned()).map(Cow::Owned),
        }
    }

    /// Changes the map in place. `added` is what `change` puts in, at most, and whether the author wrote all of it.
    pub(super) fn change<R>(
        &self,
        added: (&[Value], bool),
        meter: &mut Meter,
        change: impl FnOnce(&mut Entries) -> R,
    ) -> Result<R, Box<Fault>> {
        self.store.change(Entries::len, added, meter, change)
    }
}

// ---- whose text they hold (D07) ----

/// What can hold no text: whoever it comes from, it changes nothing.
fn is_harmless(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Undefined | ValueKind::None | ValueKind::Bool)
        || values::number(value).is_some() && !values::has_plus(value)
}

/// Notes that a list or map, as it was made, holds only what the author wrote.
pub(super) fn mark_author(value: &Value) {
    let store = (value.downcast_object_ref::<List>().map(|list| list.store.mark_author()))
        .or_else(|| value.downcast_object_ref::<Map>().map(|map| map.store.mark_author()));
    store.unwrap_or_default();
}

/// How many lists and maps are looked into before they count as data.
const AUTHOR_DEPTH: usize = 64;

/// Whether a list or map holds only what the author wrote, after all that was put into it.
pub(super) fn is_only_author(value: &Value) -> bool {
    let mut waiting = vec![value.clone()];
    let mut looked = 0;
    while let Some(value) = waiting.pop() {
        looked += 1;
        let mut below = |values: &mut dyn Iterator<Item = &Value>| {
            waiting.extend(values.filter(|value| value.as_object().is_some()).take(AUTHOR_DEPTH).cloned());
        };
        let by_author = if let Some(list) = value.downcast_object_ref::<List>() {
            list.store.is_author()
                && list.store.look(|items| (items.len() <= AUTHOR_DEPTH).then(|| below(&mut items.iter()))).is_some()
        } else if let Some(map) = value.downcast_object_ref::<Map>() {
            map.store.is_author()
                && map
                    .store
                    .look(|entries| (entries.len() <= AUTHOR_DEPTH).then(|| below(&mut entries.values())))
                    .is_some()
        } else {
            is_harmless(&value)
        };
        if !by_author || looked > AUTHOR_DEPTH {
            return false;
        }
    }
    true
}

impl<T: Content> Store<T> {
    fn mark_author(&self) {
        if let Store::Own { author, .. } = self {
            author.store(true, Ordering::Relaxed);
        }
    }

    fn is_author(&self) -> bool {
        matches!(self, Store::Own { author, .. } if author.load(Ordering::Relaxed))
    }
}

// ---- making them ----

/// A list of a render's own, and how many values were looked at.
pub(super) fn own_list(items: Vec<Value>) -> Result<(Value, usize), TooDeep> {
    let mut visited = 0;
    for item in &items {
        visited += place(item, 2)?;
    }
    Ok((own_list_at(items, 1), visited))
}

/// A map of a render's own, and how many values were looked at.
pub(super) fn own_map(entries: Entries, kind: MapKind) -> Result<(Value, usize), TooDeep> {
    let mut visited = 0;
    for value in entries.values() {
        visited += place(value, 2)?;
    }
    Ok((own_map_at(entries, kind, 1), visited))
}

/// For whoever makes what is inside first and knows how deep it will be. What is inside must have higher levels.
pub(super) fn own_list_at(items: Vec<Value>, level: u32) -> Value {
    Value::from_object(List { store: Store::own(items, level) })
}

/// As [`own_list_at`].
pub(super) fn own_map_at(entries: Entries, kind: MapKind, level: u32) -> Value {
    Value::from_object(Map { store: Store::own(entries, level), kind })
}

/// A list of the context.
pub(super) fn shared_list(items: Vec<Value>) -> Value {
    let height = 1 + items.iter().map(height).max().unwrap_or(0);
    Value::from_object(List { store: Store::shared(items, height) })
}

/// A map of the context.
pub(super) fn shared_map(entries: Entries, kind: MapKind) -> Value {
    let height = 1 + entries.values().map(height).max().unwrap_or(0);
    Value::from_object(Map { store: Store::shared(entries, height), kind })
}

/// A list of a document.
pub(super) fn list_of_part(part: Part) -> Value {
    Value::from_object(List { store: Store::of_part(part) })
}

/// A map of a document.
pub(super) fn map_of_part(part: Part) -> Value {
    Value::from_object(Map { store: Store::of_part(part), kind: MapKind::Plain })
}

fn height(value: &Value) -> u32 {
    let Some(object) = value.as_object() else { return 0 };
    let list = object.downcast_ref::<List>().map(|list| list.store.height());
    let own = list.or_else(|| object.downcast_ref::<Map>().map(|map| map.store.height()));
    // A number that keeps its text holds nothing. What others made may.
    own.unwrap_or_else(|| u32::from(object.repr() != ObjectRepr::Plain))
}

/// A copy of a value of the context, down to its last list, that a render may change. Recurses nowhere.
pub(super) fn own_copy(value: &Value, meter: &mut Meter) -> Result<Value, Box<Fault>> {
    let mut open: Vec<Copying> = Vec::new();
    let mut next = value.clone();
    loop {
        let mut done = match Copying::begin(&next, meter)? {
            Some(copying) => {
                open.push(copying);
                None
            }
            None => Some(next),
        };
        if open.len() > VALUE_DEPTH as usize {
            return Err(too_deep());
        }
        next = loop {
            let level = open.len() as u32;
            let Some(top) = open.last_mut() else { return Ok(done.unwrap_or_default()) };
            top.made.extend(done.take());
            if let Some(value) = top.rest.next() {
                break value;
            }
            done = open.pop().map(|top| top.end(level));
        };
    }
}

/// A list or map half way through being copied.
struct Copying {
    /// The keys and the kind of a map.
    map: Option<(Vec<Key>, MapKind)>,
    rest: std::vec::IntoIter<Value>,
    made: Vec<Value>,
}

impl Copying {
    fn begin(value: &Value, meter: &mut Meter) -> Result<Option<Copying>, Box<Fault>> {
        let (map, values) = if let Some(map) = value.downcast_object_ref::<Map>() {
            map.look(|entries| {
                let keys = entries.keys().cloned().collect();
                (Some((keys, map.kind)), entries.values().cloned().collect::<Vec<_>>())
            })
        } else if let Some(items) = super::values::items(value) {
            (None, items.into_owned())
        } else if value.kind() == ValueKind::Map {
            let (keys, values) = super::values::entries(value).unwrap_or_default().into_iter().unzip();
            (Some((keys, MapKind::Plain)), values)
        } else {
            return Ok(None);
        };
        meter.visiting(values.len())?;
        meter.spend(values.len() * BYTES_PER_ITEM)?;
        Ok(Some(Copying { map, made: Vec::with_capacity(values.len()), rest: values.into_iter() }))
    }

    fn end(self, level: u32) -> Value {
        match self.map {
            Some((keys, kind)) => own_map_at(keys.into_iter().zip(self.made).collect(), kind, level),
            None => own_list_at(self.made, level),
        }
    }
}

// ---- as minijinja sees them ----

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.items().get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.store.look(Vec::len))
    }
}

impl Object for Map {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.get(key)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.look(|entries| entries.keys().map(|key| Value::from(key.clone())).collect()))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.look(Entries::len))
    }
}

impl Object for Entry {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "key" => Some(Value::from(self.key.clone())),
            "value" => Some(self.value.clone()),
            _ => None,
        }
    }
}
