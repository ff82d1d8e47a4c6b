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
    places: Places,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { items: Box::default(), places: Places::default() }
    }
}

impl<T: Keyed> Table<T> {
    /// The item with this name.
    pub(super) fn get(&self, key: &str) -> Option<&T> {
        self.find(&self.places, key, |item| Some(item.key())).map(|(_, item)| item)
    }

    /// Where the item with this name is.
    pub(super) fn place(&self, key: &str) -> Option<u32> {
        self.find(&self.places, key, |item| Some(item.key())).map(|(place, _)| place)
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

    /// The item at this place.
    pub(super) fn at(&self, place: u32) -> Option<&T> {
        at(&self.items, place)
    }

    /// Where those are that have another name, by that name.
    pub(super) fn places_by<'t>(&'t self, name: impl Fn(&'t T) -> Option<&'t str>) -> Places {
        Places::new(&self.items, name)
    }

    /// The item with this name among `places`, which were made by it, and where it is.
    pub(super) fn find<'t>(
        &'t self,
        places: &Places,
        wanted: &str,
        name: impl Fn(&'t T) -> Option<&'t str>,
    ) -> Option<(u32, &'t T)> {
        let is_it = |place: &u32| at(&self.items, *place).and_then(&name) == Some(wanted);
        let place = *places.table.find(places.hasher.hash_one(wanted), is_it)?;
        Some((place, at(&self.items, place)?))
    }
}

impl<T: Keyed> FromIterator<T> for Table<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let items: Box<[T]> = items.into_iter().collect();
        let places = Places::new(&items, |item| Some(item.key()));
        Self { items, places }
    }
}

/// Where in a table items are, by the hash of their name.
#[derive(Debug)]
pub(super) struct Places {
    table: HashTable<u32>,
    hasher: RandomState,
}

impl Default for Places {
    fn default() -> Self {
        Self { table: HashTable::new(), hasher: RandomState::new() }
    }
}

impl Places {
    fn new<'t, T>(items: &'t [T], name: impl Fn(&'t T) -> Option<&'t str>) -> Self {
        let hasher = RandomState::new();
        let hash = |place: &u32| hasher.hash_one(at(items, *place).and_then(&name).unwrap_or_default());
        let mut table = HashTable::with_capacity(items.iter().filter(|item| name(item).is_some()).count());
        for (place, _) in (0..).zip(items).filter(|(_, item)| name(item).is_some()) {
            table.insert_unique(hash(&place), place, hash);
        }
        Self { table, hasher }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// In no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.table.iter().copied()
    }
}

fn at<T>(items: &[T], place: u32) -> Option<&T> {
    items.get(usize::try_from(place).ok()?)
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

    #[test]
    fn what_has_another_name_is_found_by_it_and_only_that() {
        // Every other one has its number.
        fn short(name: &str) -> Option<&str> {
            name.strip_prefix("name-").filter(|number| number.ends_with(['0', '2', '4', '6', '8']))
        }
        let table: Table<String> = (0..100).map(|number| format!("name-{number}")).collect();
        let places = table.places_by(|name| short(name));
        assert_eq!(places.len(), 50);
        let find = |wanted| table.find(&places, wanted, |name| short(name));
        let found = find("42").unwrap();
        assert_eq!((found.1.as_str(), Some(found.0)), ("name-42", table.place("name-42")));
        assert!(find("43").is_none() && find("name-42").is_none());
    }
}
