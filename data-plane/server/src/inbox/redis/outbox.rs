//! One row of numbers for the reports of all shards. A shard numbers its own reports without gaps; a reader of this plane sees
//! them in the order in which they were first read, whichever shard they come from.
//!
//! The order is kept in memory alone, from the first report that is not forgotten on: who reads after a restart begins anew.

use std::collections::VecDeque;

use bytes::Bytes;

use super::shard::Shown;

/// Which report has which number.
#[derive(Debug)]
pub(super) struct Order {
    /// Everything up to this number is forgotten.
    base: i64,
    /// The shards of the numbers that follow; nothing: another plane has adopted it.
    shards: VecDeque<Option<usize>>,
    /// Reports of each shard that are forgotten, by its own numbers.
    forgotten: Vec<i64>,
}

/// What to read of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) shard: usize,
    pub(super) after: i64,
}

impl Order {
    /// Of shards as they are now.
    pub(super) fn new(shards: &[Shown]) -> Self {
        let forgotten: Vec<i64> = shards.iter().map(|shard| shard.trimmed).collect();
        Self { base: forgotten.iter().sum(), shards: VecDeque::new(), forgotten }
    }

    /// Takes note of reports that went without us: they were adopted while we were away.
    pub(super) fn reconcile(&mut self, shards: &[Shown]) {
        for (number, (shard, forgotten)) in shards.iter().zip(&mut self.forgotten).enumerate() {
            while *forgotten < shard.trimmed {
                match self.shards.iter_mut().find(|one| **one == Some(number)) {
                    Some(one) => {
                        *one = None;
                        *forgotten += 1;
                    }
                    None => *forgotten = shard.trimmed,
                }
            }
        }
    }

    fn numbered(&self) -> i64 {
        i64::try_from(self.shards.len()).unwrap_or(i64::MAX)
    }

    fn numbered_of(&self, shard: usize) -> i64 {
        self.shards.iter().filter(|one| **one == Some(shard)).count().try_into().unwrap_or(i64::MAX)
    }

    /// Reports of a shard that have no number yet.
    fn unnumbered(&self, shard: usize, shown: &Shown) -> i64 {
        let forgotten = self.forgotten.get(shard).copied().unwrap_or(shown.last);
        (shown.last - forgotten - self.numbered_of(shard)).max(0)
    }

    fn index(&self, after: i64) -> usize {
        usize::try_from(after.max(self.base) - self.base).unwrap_or(0)
    }

    /// Whether there is a report with a greater number.
    pub(super) fn has_after(&self, after: i64, shards: &[Shown]) -> bool {
        let unnumbered: i64 = shards.iter().enumerate().map(|(number, shown)| self.unnumbered(number, shown)).sum();
        let last = self.base + self.numbered() + unnumbered;
        after < last && (unnumbered > 0 || self.shards.iter().skip(self.index(after)).any(Option::is_some))
    }

    /// What to read for the reports after a number.
    pub(super) fn wanted(&self, after: i64, shards: &[Shown]) -> Vec<Part> {
        let before = self.index(after);
        let wanted = shards.iter().zip(&self.forgotten).enumerate().filter_map(|(number, (shown, forgotten))| {
            let skipped = self.shards.iter().take(before).filter(|one| **one == Some(number)).count();
            let after = forgotten + i64::try_from(skipped).unwrap_or(0);
            (after < shown.last).then_some(Part { shard: number, after })
        });
        wanted.collect()
    }

    /// Puts what was read in order, and numbers what has no number yet.
    pub(super) fn merge(
        &mut self,
        after: i64,
        mut read: Vec<VecDeque<Bytes>>,
        max_rows: u32,
        max_bytes: usize,
    ) -> Vec<(i64, Bytes)> {
        let (mut at, mut turn, mut bytes) = (self.index(after), 0, 0usize);
        let mut merged: Vec<(i64, Bytes)> = Vec::new();
        while merged.len() < usize::try_from(max_rows).unwrap_or(usize::MAX) {
            let shard = match self.shards.get(at) {
                Some(None) => {
                    at += 1;
                    continue;
                }
                Some(Some(shard)) => *shard,
                None => {
                    let turns = (turn..read.len()).chain(0..turn);
                    let next = turns.into_iter().find(|shard| read.get(*shard).is_some_and(|read| !read.is_empty()));
                    let Some(next) = next else { break };
                    turn = next + 1;
                    next
                }
            };
            let Some(report) = read.get(shard).and_then(|read| read.front()) else { break };
            bytes = bytes.saturating_add(report.len());
            if bytes > max_bytes && !merged.is_empty() {
                break;
            }
            if at == self.shards.len() {
                self.shards.push_back(Some(shard));
            }
            at += 1;
            let number = self.base + i64::try_from(at).unwrap_or(i64::MAX);
            merged.extend(read.get_mut(shard).and_then(VecDeque::pop_front).map(|report| (number, report)));
        }
        merged
    }

    /// Forgets the reports up to a number, read or not; answers up to where each shard has to forget its own.
    pub(super) fn forget(&mut self, up_to: i64, shards: &[Shown]) -> Vec<Part> {
        for (number, shown) in shards.iter().enumerate() {
            let room = up_to.saturating_sub(self.base).saturating_sub(self.numbered()).max(0);
            let more = self.unnumbered(number, shown).min(room);
            self.shards.extend((0..more).map(|_| Some(number)));
        }
        while self.base < up_to
            && let Some(shard) = self.shards.pop_front()
        {
            self.base += 1;
            if let Some(forgotten) = shard.and_then(|shard| self.forgotten.get_mut(shard)) {
                *forgotten += 1;
            }
        }
        let wanted = shards.iter().zip(&self.forgotten).enumerate();
        let wanted = wanted.filter(|(_, (shown, forgotten))| shown.trimmed < **forgotten);
        wanted.map(|(shard, (_, after))| Part { shard, after: *after }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(trimmed: i64, last: i64) -> Shown {
        Shown { trimmed, last, away_since: None }
    }

    fn read(reports: &[&[&'static str]]) -> Vec<VecDeque<Bytes>> {
        let of = |reports: &&[&'static str]| reports.iter().map(|text| Bytes::from_static(text.as_bytes())).collect();
        reports.iter().map(of).collect()
    }

    fn texts(rows: &[(i64, Bytes)]) -> Vec<(i64, &str)> {
        rows.iter().map(|(number, text)| (*number, std::str::from_utf8(text).unwrap())).collect()
    }

    #[test]
    fn numbers_stay_whichever_shard_a_report_comes_from() {
        let mut shards = [shown(3, 5), shown(0, 1)];
        let mut order = Order::new(&shards);
        assert!(order.has_after(0, &shards) && order.has_after(5, &shards) && !order.has_after(6, &shards));
        assert_eq!(order.wanted(0, &shards), [Part { shard: 0, after: 3 }, Part { shard: 1, after: 0 }]);
        let merged = order.merge(0, read(&[&["a4", "a5"], &["b1"]]), 9, 99);
        assert_eq!(texts(&merged), [(4, "a4"), (5, "b1"), (6, "a5")]);
        // More came to the first shard; who reads again sees the same numbers.
        shards[0].last = 7;
        assert_eq!(order.wanted(4, &shards), [Part { shard: 0, after: 4 }, Part { shard: 1, after: 0 }]);
        let merged = order.merge(4, read(&[&["a5", "a6", "a7"], &["b1"]]), 3, 99);
        assert_eq!(texts(&merged), [(5, "b1"), (6, "a5"), (7, "a6")]);
        assert_eq!(texts(&order.merge(5, read(&[&["a5", "a6"], &[]]), 9, 1)), [(6, "a5")], "one always goes through");
        assert_eq!(order.forget(5, &shards), [Part { shard: 0, after: 4 }, Part { shard: 1, after: 1 }]);
        assert_eq!(order.forget(5, &shards).len(), 2, "what a shard has not done is asked for again");
        (shards[0].trimmed, shards[1].trimmed) = (4, 1);
        assert!(order.forget(5, &shards).is_empty());
        assert_eq!(order.wanted(0, &shards), [Part { shard: 0, after: 4 }]);
        assert_eq!(order.forget(i64::MAX, &shards), [Part { shard: 0, after: 7 }]);
        assert!(!order.has_after(0, &shards));
    }

    #[test]
    fn what_another_plane_has_adopted_leaves_its_number_empty() {
        let mut shards = [shown(0, 2), shown(0, 2)];
        let mut order = Order::new(&shards);
        order.merge(0, read(&[&["a1", "a2"], &["b1"]]), 9, 99);
        (shards[0].trimmed, shards[1].trimmed) = (2, 2);
        order.reconcile(&shards);
        assert!(!order.has_after(0, &shards), "nothing is left");
        shards[1].last = 3;
        assert!(order.has_after(3, &shards) && !order.has_after(4, &shards));
        assert_eq!(order.wanted(0, &shards), [Part { shard: 1, after: 2 }]);
        assert_eq!(texts(&order.merge(0, read(&[&[], &["b3"]]), 9, 99)), [(4, "b3")]);
    }
}
