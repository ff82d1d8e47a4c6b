//! Keys that were taken or renewed a while ago at most: the file has them in the order they came in, and here they are by themselves.
//!
//! A dedup key is a digest, so its place among all keys is anywhere: put there at once, each would cost a page of the file, the reading of
//! it and its writing. They wait here instead until there are many, and are moved in their order, those that lie side by side at once: a
//! walk through all keys that begins anew when it is over, a few of them with each step. What the file has in the order it came is what
//! is here, so that nothing is lost with the process.

use std::collections::{BTreeMap, VecDeque};

use uuid::Uuid;

use crate::clock::UnixMillis;

/// A dedup key, or a request id padded with zeros.
pub(super) type Key = [u8; 32];

/// A key as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) request: Uuid,
    pub(super) exp: UnixMillis,
}

/// Keys that wait, about 100 bytes of memory each (I8). Tests need fewer for their keys to be moved.
const KEYS: usize = if cfg!(test) { 64 } else { 32_768 };
/// Keys in the rows that are not forgotten yet: more of them when some are renewed again and again.
const WRITTEN: usize = 2 * KEYS;
/// Moved with each step beside twice as many as came.
const MORE: usize = 16;
/// Rows forgotten in one step, of which each writes one.
const ROWS: usize = 4;

/// Keys that have their place are looked for when they are over by spans of so many bits of milliseconds: 4 minutes (schema version 4).
pub(super) const SPAN_BITS: u32 = 18;

/// When a key is looked for that is over then.
pub(super) fn swept_at(exp: UnixMillis) -> UnixMillis {
    ((exp >> SPAN_BITS) + 1) << SPAN_BITS
}

/// What one step does to them. It counts when the step is committed.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// The number of the row of those that came.
    pub(super) row: i64,
    /// To be moved into the order of all.
    pub(super) moved: Vec<(Key, Known)>,
    /// Rows up to this one are not needed any more.
    pub(super) over: Option<i64>,
}

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct Claims {
    keys: BTreeMap<Key, Known>,
    /// The rows in the file, and how many keys each has.
    rows: VecDeque<(i64, usize)>,
    written: usize,
    /// The last row there was.
    last: i64,
    /// From where the walk goes on.
    from: Key,
    /// The last row there was when it began: when it is over, nothing of them waits.
    began: i64,
    /// Nothing of the rows up to this one waits.
    over: i64,
    coming: Option<Coming>,
}

#[derive(Debug)]
struct Coming {
    row: i64,
    keys: Vec<(Key, Known)>,
    /// Those that leave, moved or over.
    gone: Vec<Key>,
    from: Key,
    began: i64,
    over: i64,
    rows_over: usize,
}

impl Claims {
    /// A row of the file, in their order.
    pub(super) fn load(&mut self, row: i64, keys: Vec<(Key, Known)>) {
        self.rows.push_back((row, keys.len()));
        self.written += keys.len();
        self.last = row;
        self.keys.extend(keys);
    }

    pub(super) fn get(&self, key: &Key) -> Option<Known> {
        self.keys.get(key).copied()
    }

    /// Keys come; some that wait are moved.
    pub(super) fn add(&mut self, keys: Vec<(Key, Known)>, now: UnixMillis) -> Step {
        let row = self.last + 1;
        let (mut from, mut began, mut over) = (self.from, self.began, self.over);
        let (mut gone, mut moved) = (Vec::new(), Vec::new());
        if self.keys.len() > KEYS || self.written > WRITTEN {
            if from == Key::default() {
                began = self.last;
            }
            let most = 2 * keys.len() + MORE;
            let walk = self.keys.range(from..).take(most);
            for (key, known) in walk {
                gone.push(*key);
                if now < known.exp {
                    moved.push((*key, *known));
                }
            }
            match self.keys.range(from..).nth(most) {
                Some((next, _)) => from = *next,
                None => (from, over) = (Key::default(), began),
            }
        }
        let rows_over = self.rows.iter().take(ROWS).take_while(|(row, _)| *row <= over).count();
        let last_over = rows_over.checked_sub(1).and_then(|at| self.rows.get(at)).map(|(row, _)| *row);
        self.coming = Some(Coming { row, keys, gone, from, began, over, rows_over });
        Step { row, moved, over: last_over }
    }

    /// What comes with the step.
    pub(super) fn coming(&self) -> &[(Key, Known)] {
        self.coming.as_ref().map_or(&[], |coming| &coming.keys)
    }

    /// What came is there, and what was moved is not here any more.
    pub(super) fn commit(&mut self) {
        let Some(Coming { row, keys, gone, from, began, over, rows_over }) = self.coming.take() else { return };
        for key in gone {
            self.keys.remove(&key);
        }
        for (_, count) in self.rows.drain(..rows_over) {
            self.written -= count;
        }
        (self.from, self.began, self.over) = (from, began, over);
        self.load(row, keys);
    }

    /// All is as it was.
    pub(super) fn rollback(&mut self) {
        self.coming = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the file would have.
    #[derive(Default)]
    struct File {
        rows: BTreeMap<i64, Vec<(Key, Known)>>,
        moved: BTreeMap<Key, Known>,
    }

    impl File {
        fn write(&mut self, keys: Vec<(Key, Known)>, step: Step) {
            self.rows.insert(step.row, keys);
            self.moved.extend(step.moved);
            if let Some(over) = step.over {
                self.rows.retain(|row, _| *row > over);
            }
        }

        fn opened(&self) -> Claims {
            let mut claims = Claims::default();
            self.rows.iter().for_each(|(row, keys)| claims.load(*row, keys.clone()));
            claims
        }

        fn known(&self, claims: &Claims, key: &Key) -> Option<Known> {
            claims.get(key).or_else(|| self.moved.get(key).copied())
        }
    }

    fn key(n: u64) -> Key {
        // Far from the one before.
        let mut key = Key::default();
        key[..8].copy_from_slice(&n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
        key
    }

    #[test]
    fn whatever_comes_and_whenever_it_is_opened_anew_each_key_is_as_it_was_said_last() {
        let (mut file, mut claims) = (File::default(), Claims::default());
        let mut said: BTreeMap<Key, Known> = BTreeMap::new();
        let mut random = 1_u64;
        for step in 0..5_000_i64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Among ever more keys, some of them again and again.
            let count = (random >> 60) + 1;
            let keys: BTreeMap<Key, Known> = (0..count)
                .map(|n| {
                    let among = if random & 1 == 0 { 20 } else { step.unsigned_abs() + 50 };
                    let known = Known { request: Uuid::from_u128(n.into()), exp: 1_000_000 + step };
                    (key((random >> 20).wrapping_add(n * 7_919) % among), known)
                })
                .collect();
            let keys: Vec<(Key, Known)> = keys.into_iter().collect();
            let plan = claims.add(keys.clone(), step);
            if random % 7 == 3 {
                claims.rollback();
                continue;
            }
            claims.commit();
            file.write(keys.clone(), plan);
            said.extend(keys);
            assert!(claims.keys.len() <= 2 * WRITTEN && claims.written <= 2 * WRITTEN + KEYS, "{}", claims.written);
            assert_eq!(claims.written, file.rows.values().map(Vec::len).sum::<usize>());
            if random % 101 == 5 {
                claims = file.opened();
            }
            if step % 50 == 0 {
                for (key, known) in &said {
                    assert_eq!(file.known(&claims, key), Some(*known), "at step {step}");
                }
            }
        }
        assert!(file.moved.len() > 1_000 && file.rows.len() < 1_000, "{} {}", file.moved.len(), file.rows.len());
    }

    #[test]
    fn what_is_over_is_not_moved() {
        let mut claims = Claims::default();
        let known = |exp| Known { request: Uuid::nil(), exp };
        for n in 0..=(KEYS as u64) {
            claims.add(vec![(key(n), known(if n % 2 == 0 { 5 } else { 50 }))], 1);
            claims.commit();
        }
        let step = claims.add(vec![(key(9_999), known(60))], 5);
        assert!(!step.moved.is_empty() && step.moved.iter().all(|(_, known)| known.exp == 50));
        claims.commit();
        assert_eq!(claims.keys.len(), KEYS + 2 - (2 + MORE));
    }

    #[test]
    fn the_same_keys_again_and_again_do_not_fill_the_file() {
        let mut claims = Claims::default();
        for n in 0..20_000 {
            claims.add(vec![(key(n % 3), Known { request: Uuid::nil(), exp: 9 })], 1);
            claims.commit();
            assert!(claims.rows.len() <= WRITTEN + 10, "{}", claims.rows.len());
        }
    }
}
