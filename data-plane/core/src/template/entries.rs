//! What a map holds. Hides how a key is found: among few by looking at each, which is faster than hashing and takes no
//! room; among many by their hash, so that whoever chooses the keys cannot make lookups slow.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use minijinja::Value;

/// A key. A short one takes no memory of its own.
#[derive(Clone, Debug)]
pub(super) struct Key {
    text: Value,
    /// By which most keys are known to be others.
    length: usize,
}

impl Key {
    fn is(&self, text: &str) -> bool {
        self.length == text.len() && **self == *text
    }
}

impl Deref for Key {
    type Target = str;

    fn deref(&self) -> &str {
        self.text.as_str().unwrap_or_default()
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.is(other)
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Key {
        Key { length: text.len(), text: text.into() }
    }
}

impl From<Arc<str>> for Key {
    fn from(text: Arc<str>) -> Key {
        Key { length: text.len(), text: text.into() }
    }
}

impl From<Key> for Value {
    fn from(key: Key) -> Value {
        key.text
    }
}

/// Up to so many keys are compared one by one.
const COMPARED_KEYS: usize = 12;

/// Text keys in the order they came, and a value for each.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    all: Vec<(Key, Value)>,
    /// Where each key is, if they are many.
    places: Option<HashMap<Key, usize>>,
}

impl Entries {
    pub(super) fn new() -> Entries {
        Entries::default()
    }

    pub(super) fn with_capacity(count: usize) -> Entries {
        Entries { all: Vec::with_capacity(count), places: None }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.all.iter().map(|(key, value)| (key, value))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.all.iter().map(|(key, _)| key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Value> {
        self.all.iter().map(|(_, value)| value)
    }

    #[inline]
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        match &self.places {
            None => self.all.iter().find(|(known, _)| known.is(key)).map(|(_, value)| value),
            Some(places) => self.all.get(*places.get(key)?).map(|(_, value)| value),
        }
    }

    fn place(&self, key: &str) -> Option<usize> {
        match &self.places {
            None => self.all.iter().position(|(known, _)| known.is(key)),
            Some(places) => places.get(key).copied(),
        }
    }

    /// Gives `key` a value, in the place of the one it had, which is returned.
    pub(super) fn insert(&mut self, key: Key, value: Value) -> Option<Value> {
        let next = self.all.len();
        let at = match &mut self.places {
            Some(places) => *places.entry(key.clone()).or_insert(next),
            None => self.place(&key).unwrap_or(next),
        };
        if let Some((_, place)) = self.all.get_mut(at) {
            return Some(std::mem::replace(place, value));
        }
        self.all.push((key, value));
        if self.places.is_none() && next == COMPARED_KEYS {
            let places = self.all.iter().enumerate().map(|(at, (key, _))| (key.clone(), at)).collect();
            self.places = Some(places);
        }
        None
    }

    /// Takes a key out; those behind it move up.
    pub(super) fn remove(&mut self, key: &str) -> Option<Value> {
        let removed = self.place(key)?;
        if let Some(places) = &mut self.places {
            places.remove(key);
            places.values_mut().filter(|at| **at > removed).for_each(|at| *at -= 1);
        }
        Some(self.all.remove(removed).1)
    }

    pub(super) fn clear(&mut self) {
        *self = Entries::new();
    }
}

impl Extend<(Key, Value)> for Entries {
    fn extend<I: IntoIterator<Item = (Key, Value)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl FromIterator<(Key, Value)> for Entries {
    fn from_iter<I: IntoIterator<Item = (Key, Value)>>(entries: I) -> Entries {
        let entries = entries.into_iter();
        let mut all = Entries::with_capacity(entries.size_hint().0);
        all.extend(entries);
        all
    }
}
