//! Whom a group waits for. Senders who were answered ask again a moment later: a group that goes without them pays an fsync for itself,
//! and they pay another one. Where an fsync costs more than that moment, waiting for them is faster for all; of a shared store a script
//! call as well. Where the moment is longer, a file writes faster what is there while they come.

use std::time::{Duration, Instant};

/// Fewer are not worth it: an inbox that has little to do answers at once.
const FEW: usize = 8;
/// A commit that is faster is cheaper than waiting.
const FAST: Duration = Duration::from_micros(500);
/// The longest wait.
const PATIENCE: Duration = Duration::from_millis(2);
/// Groups that go at once after one that waited in vain: senders come as they like, and do not wait for their answers.
const UNASKED: u32 = 16;

/// What the last group tells of the next one.
#[derive(Debug, Default)]
pub(in crate::inbox) struct Pace {
    expected: usize,
    took: Duration,
    answered: Option<Instant>,
    at_once: u32,
}

impl Pace {
    /// A group of so many requests was committed while others came, and took so long.
    pub(in crate::inbox) fn committed(&mut self, answered: usize, waiting: usize, took: Duration) {
        // One of eight may come later.
        let all = answered + waiting;
        self.expected = all - all / 8;
        self.took = took;
        self.at_once = self.at_once.saturating_sub(1);
    }

    /// How many requests the next group should have, and how long it waits for them.
    pub(in crate::inbox) fn expects(&self) -> Option<(usize, Duration)> {
        let waits = self.at_once == 0 && self.expected >= FEW && self.took >= FAST;
        waits.then_some((self.expected, self.took.min(PATIENCE)))
    }

    /// All of a group were answered, and may ask again.
    pub(in crate::inbox) fn answered(&mut self) {
        self.answered = Some(Instant::now());
    }

    /// They were waited for, and came. It took them too long if they needed more than half of what a group takes: about so much does not
    /// depend on its size, and is what waiting saves.
    pub(in crate::inbox) fn gathered(&mut self) {
        if self.answered.is_some_and(|answered| answered.elapsed() > self.took / 2) {
            self.in_vain();
        }
    }

    /// They did not come.
    pub(in crate::inbox) fn in_vain(&mut self) {
        self.at_once = UNASKED;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_for_those_who_were_answered_where_that_is_cheaper_and_they_do_come() {
        let slow = Duration::from_millis(3);
        let mut pace = Pace::default();
        assert_eq!(pace.expects(), None);
        pace.committed(4, 2, slow);
        assert_eq!(pace.expects(), None, "little to do");
        pace.committed(32, 32, FAST / 2);
        assert_eq!(pace.expects(), None, "a fast disk");
        pace.committed(32, 32, slow);
        assert_eq!(pace.expects(), Some((56, PATIENCE)));
        pace.in_vain();
        for _ in 1..UNASKED {
            pace.committed(64, 0, slow);
            assert_eq!(pace.expects(), None);
        }
        pace.committed(64, 0, slow / 3);
        assert_eq!(pace.expects(), Some((56, slow / 3)));
    }

    #[test]
    fn it_does_not_wait_for_those_who_need_longer_than_waiting_saves() {
        let (mut pace, hour) = (Pace::default(), Duration::from_secs(3_600));
        pace.committed(64, 0, hour);
        pace.answered();
        pace.gathered();
        assert_eq!(pace.expects(), Some((56, PATIENCE)), "they were back at once");
        pace.committed(64, 0, FAST);
        pace.answered();
        let begun = Instant::now();
        while begun.elapsed() <= FAST / 2 {
            std::hint::spin_loop();
        }
        pace.gathered();
        assert_eq!(pace.expects(), None);
    }
}
