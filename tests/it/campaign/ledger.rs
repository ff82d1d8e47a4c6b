//! What a crash may and may not do, told from three logs: what the sender was answered, what the destination saw, what
//! the stores hold. Pure: it is shown every kind of breach below.

use std::collections::{BTreeMap, BTreeSet};

/// All that is known at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// In the order of sending, marker by marker.
    pub(crate) sent: Vec<Sent>,
    /// In the order of arrival.
    pub(crate) arrived: Vec<Arrived>,
    /// The control plane's deliveries.
    pub(crate) recorded: Vec<Recorded>,
    /// The delivery each response event tells of.
    pub(crate) events: Vec<String>,
    /// Jobs and reports that are still in the inbox.
    pub(crate) left: u64,
    /// How often a process or a store was killed or paused.
    pub(crate) kills: usize,
    /// Whether a pause was one of them: it may outlast a lease, and then the same life may send again (CP14).
    pub(crate) paused: bool,
}

/// One request of the sender.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// What it is about: unique, but for the same request sent again with its key.
    pub(crate) marker: String,
    /// It carried a dedup key.
    pub(crate) keyed: bool,
    /// The status; none when the process died before an answer.
    pub(crate) answer: Option<u16>,
}

/// One request as the destination saw it.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    /// What it is about.
    pub(crate) marker: String,
    /// Its `Idempotency-Key`.
    pub(crate) delivery: String,
    /// Which life of the process sent it.
    pub(crate) life: String,
    /// Method, target and body.
    pub(crate) bytes: String,
}

/// One delivery as the control plane was told of it.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    /// Its id.
    pub(crate) delivery: String,
    /// It ended with a 2xx.
    pub(crate) delivered: bool,
    /// It ended because it was too old.
    pub(crate) expired: bool,
    /// For each attempt, whether it is marked ambiguous.
    pub(crate) ambiguous: Vec<bool>,
}

impl Ledger {
    /// Every breach of I1 to I3, in words.
    pub(crate) fn breaches(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut by_marker: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for arrived in &self.arrived {
            by_marker.entry(&arrived.marker).or_default().insert(&arrived.delivery);
        }
        self.answers_were_kept(&by_marker, &mut found);
        self.nothing_was_made_up(&by_marker, &mut found);
        self.repetitions_are_the_same(&mut found);
        self.everything_was_told(&mut found);
        found
    }

    /// 200 means kept (I1), 204 means that an earlier one was kept (I2).
    fn answers_were_kept(&self, by_marker: &BTreeMap<&str, BTreeSet<&str>>, found: &mut Vec<String>) {
        let mut taken: BTreeSet<&str> = BTreeSet::new();
        let mut tried: BTreeSet<&str> = BTreeSet::new();
        for Sent { marker, keyed, answer } in &self.sent {
            let delivered = by_marker.contains_key(marker.as_str());
            let earlier = tried.contains(marker.as_str());
            match answer {
                None => {}
                Some(200) if !delivered => found.push(format!("{marker}: answered 200 and never delivered (I1)")),
                Some(200) if taken.contains(marker.as_str()) => {
                    found.push(format!("{marker}: answered 200 after its key was taken (I2)"));
                }
                Some(204) if !keyed || !earlier => {
                    found.push(format!("{marker}: answered 204 without an earlier one (I2)"))
                }
                Some(204) if !delivered => {
                    found.push(format!("{marker}: answered 204, and no earlier one was delivered (I2)"));
                }
                Some(200 | 204) => {}
                Some(other) => found.push(format!("{marker}: answered {other}")),
            }
            tried.insert(marker);
            if answer.is_some() {
                taken.insert(marker);
            }
        }
    }

    /// Nothing is delivered that was not sent, and nothing as two deliveries.
    fn nothing_was_made_up(&self, by_marker: &BTreeMap<&str, BTreeSet<&str>>, found: &mut Vec<String>) {
        let sent: BTreeSet<&str> = self.sent.iter().map(|sent| sent.marker.as_str()).collect();
        for (marker, deliveries) in by_marker {
            if !sent.contains(marker) {
                found.push(format!("{marker}: delivered and never sent"));
            }
            if deliveries.len() > 1 {
                found.push(format!("{marker}: became {} deliveries (I2)", deliveries.len()));
            }
        }
    }

    /// A destination sees a delivery twice only across a crash; then the bytes are the same and the record says so (I3).
    fn repetitions_are_the_same(&self, found: &mut Vec<String>) {
        let mut by_delivery: BTreeMap<&str, Vec<&Arrived>> = BTreeMap::new();
        for arrived in &self.arrived {
            by_delivery.entry(&arrived.delivery).or_default().push(arrived);
        }
        let recorded: BTreeMap<&str, &Recorded> =
            self.recorded.iter().map(|recorded| (recorded.delivery.as_str(), recorded)).collect();
        for (delivery, arrivals) in &by_delivery {
            let lives: BTreeSet<&str> = arrivals.iter().map(|arrived| arrived.life.as_str()).collect();
            if lives.len() < arrivals.len() && !self.paused {
                found.push(format!("{delivery}: arrived twice without a crash in between (I3)"));
            }
            if arrivals.len() > 1 + self.kills {
                found.push(format!("{delivery}: arrived {} times after {} crashes (I3)", arrivals.len(), self.kills));
            }
            if arrivals.iter().any(|arrived| arrived.bytes != arrivals[0].bytes) {
                found.push(format!("{delivery}: arrived with different bytes (I3)"));
            }
            let recorded = recorded.get(delivery);
            let marked = recorded.is_some_and(|recorded| recorded.ambiguous.contains(&true));
            if arrivals.len() > recorded.map_or(0, |recorded| recorded.ambiguous.len()) && !marked {
                found.push(format!("{delivery}: arrived {} times and is not marked ambiguous (I3)", arrivals.len()));
            }
        }
    }

    /// In the end nothing is left over, and each delivery was told once with one event.
    fn everything_was_told(&self, found: &mut Vec<String>) {
        if self.left > 0 {
            found.push(format!("{} jobs or reports are left in the inbox", self.left));
        }
        let arrived: BTreeSet<&str> = self.arrived.iter().map(|arrived| arrived.delivery.as_str()).collect();
        let recorded: BTreeSet<&str> = self.recorded.iter().map(|recorded| recorded.delivery.as_str()).collect();
        let told: BTreeSet<&str> = self.events.iter().map(String::as_str).collect();
        for delivery in arrived.difference(&recorded) {
            found.push(format!("{delivery}: arrived and was never reported (I1)"));
        }
        for recorded in &self.recorded {
            if recorded.delivered && !arrived.contains(recorded.delivery.as_str()) {
                found.push(format!("{}: reported as delivered and never arrived (I1)", recorded.delivery));
            }
            if recorded.expired {
                found.push(format!("{}: given up as too old", recorded.delivery));
            } else if !recorded.delivered {
                found.push(format!("{}: given up, though its destination takes everything", recorded.delivery));
            }
        }
        if recorded.len() < self.recorded.len() {
            found.push("a delivery was recorded twice".to_owned());
        }
        if told != recorded || told.len() < self.events.len() {
            found.push(format!("{} events tell of {} deliveries (X09)", self.events.len(), recorded.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(marker: &str, keyed: bool, answer: Option<u16>) -> Sent {
        Sent { marker: marker.to_owned(), keyed, answer }
    }

    fn arrived(marker: &str, delivery: &str, life: &str) -> Arrived {
        let bytes = format!("POST /{marker}");
        Arrived { marker: marker.to_owned(), delivery: delivery.to_owned(), life: life.to_owned(), bytes }
    }

    fn recorded(delivery: &str, ambiguous: &[bool]) -> Recorded {
        Recorded { delivery: delivery.to_owned(), delivered: true, expired: false, ambiguous: ambiguous.to_vec() }
    }

    /// One crash: `a` was accepted and delivered, `b` was delivered on both sides of it, `c` was answered only after.
    fn honest() -> Ledger {
        Ledger {
            sent: vec![
                sent("a", false, Some(200)),
                sent("b", true, Some(200)),
                sent("c", true, None),
                sent("c", true, Some(204)),
                sent("d", false, None),
            ],
            arrived: vec![
                arrived("a", "1", "0"),
                arrived("b", "2", "0"),
                arrived("b", "2", "1"),
                arrived("c", "3", "1"),
            ],
            recorded: vec![recorded("1", &[false]), recorded("2", &[true]), recorded("3", &[false])],
            events: vec!["1".to_owned(), "2".to_owned(), "3".to_owned()],
            left: 0,
            kills: 1,
            paused: false,
        }
    }

    #[test]
    fn an_honest_crash_breaches_nothing() {
        assert_eq!(honest().breaches(), Vec::<String>::new());
    }

    #[test]
    fn every_breach_is_noticed() {
        type Spoil = fn(&mut Ledger);
        let cases: [(&str, Spoil); 17] = [
            ("200 and never delivered", |ledger| ledger.sent.push(sent("e", false, Some(200)))),
            ("204, and no earlier one", |ledger| {
                ledger.sent.extend([sent("e", true, None), sent("e", true, Some(204))]);
            }),
            ("204 without an earlier one", |ledger| {
                ledger.sent[1].answer = Some(204);
            }),
            ("after its key was taken", |ledger| ledger.sent.push(sent("b", true, Some(200)))),
            ("answered 500", |ledger| ledger.sent[0].answer = Some(500)),
            ("never sent", |ledger| ledger.arrived[0].marker = "z".to_owned()),
            ("became 2 deliveries", |ledger| ledger.arrived.push(arrived("a", "9", "1"))),
            ("without a crash in between", |ledger| ledger.arrived[2].life = "0".to_owned()),
            ("arrived 3 times after 1 crashes", |ledger| ledger.arrived.push(arrived("b", "2", "2"))),
            ("different bytes", |ledger| ledger.arrived[2].bytes.push('!')),
            ("not marked ambiguous", |ledger| ledger.recorded[1].ambiguous = vec![false]),
            ("left in the inbox", |ledger| ledger.left = 1),
            ("never reported", |ledger| drop(ledger.recorded.pop())),
            ("never arrived", |ledger| drop(ledger.arrived.pop())),
            ("given up", |ledger| ledger.recorded[0].delivered = false),
            ("too old", |ledger| ledger.recorded[0].expired = true),
            ("4 events tell of 3 deliveries", |ledger| ledger.events.push("1".to_owned())),
        ];
        for (expected, spoil) in cases {
            let mut ledger = honest();
            spoil(&mut ledger);
            let breaches = ledger.breaches();
            assert!(breaches.iter().any(|breach| breach.contains(expected)), "{expected}: {breaches:#?}");
        }
    }
}
