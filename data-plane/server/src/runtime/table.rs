//! Many things found by their names in as little memory as they need. Hides that a place costs four bytes and no name is kept twice.

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;

/// What is found by a name that it knows itself.
pub(super) trait Keyed {
    /// No two in a table have the same.
    fn key(&self) -> &str;
}

/// Made once and never changed.
#[derive(Debug)]
pub(super) struct Table<T> {
    items: Box<[T]>,
    /// Where in `items`.
    places: HashTable<u32>,
    hasher: RandomState,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { items: Box::default(), places: HashTable::new(), hasher: RandomState::new() }
    }
}

impl<T: Keyed> Table<T> {
    /// The item with this name.
    pub(super) fn get(&self, key: &str) -> Option<&T> {
        let at = |place: &u32| usize::try_from(*place).ok().and_then(|place| self.items.get(place));
        let is_it = |place: &u32| at(place).is_some_and(|item| item.key() == key);
        self.places.find(self.hasher.hash_one(key), is_it).and_then(at)
    }
}

impl<T> Table<T> {
    /// In the order they were given in.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.items.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }
}

impl<T: Keyed> FromIterator<T> for Table<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let (items, hasher): (Box<[T]>, _) = (items.into_iter().collect(), RandomState::new());
        let hash = |place: &u32| {
            let item = usize::try_from(*place).ok().and_then(|place| items.get(place));
            hasher.hash_one(item.map_or("", Keyed::key))
        };
        let mut places = HashTable::with_capacity(items.len());
        for place in (0..items.len()).filter_map(|place| u32::try_from(place).ok()) {
            places.insert_unique(hash(&place), place, hash);
        }
        Self { items, places, hasher }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Keyed for String {
        fn key(&self) -> &str {
            self
        }
    }

    #[test]
    fn what_is_there_is_found_and_nothing_else() {
        for count in [0, 1, 7, 1000] {
            let names = || (0..count).map(|number| format!("name-{number}"));
            let table: Table<String> = names().collect();
            assert_eq!(table.len(), count);
            assert!(table.iter().cloned().eq(names()));
            assert!(names().all(|name| table.get(&name) == Some(&name)));
            assert_eq!(table.get("another"), None);
        }
    }
}
