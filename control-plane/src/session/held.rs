//! What is known of one workspace at a data plane, and what it is to be sent next.

use std::time::Instant;

use sluice_proto::sync::v1::Cursor;

/// What is known of one workspace at the data plane.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub(super) serving: Option<Cursor>,
    /// What it serves comes from another store: numbers cannot be compared, digests can.
    pub(super) foreign: bool,
    /// Sent and not answered.
    pub(super) sent: Option<Sent>,
    /// Refused; not sent again until there is a newer one, or it is confirmed.
    pub(super) refused: Option<Refused>,
    /// A delta did not fit.
    pub(super) wants_snapshot: bool,
    /// This store has never had it: it is neither sent nor dropped.
    pub(super) left_alone: bool,
    /// The data plane held something else than it had acknowledged, and has not come to the newest revision since.
    pub(super) drifted: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) cursor: Cursor,
    pub(super) whole: bool,
    /// Its deletions were confirmed.
    pub(super) confirmed: bool,
    /// Since when it was to be served, of a data plane that was up to date before.
    pub(super) since: Option<Instant>,
}

/// A revision that was refused as it was then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) revision: i64,
    pub(super) confirmed: bool,
}

/// What to send next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    Delta {
        base: i64,
    },
    /// It holds the same under another number.
    Renumber {
        base: i64,
    },
    Snapshot,
}

impl Held {
    /// What the data plane needs to come to `head`, whose deletions are confirmed or not.
    pub(super) fn next(&self, head: &Cursor, confirmed: bool) -> Step {
        if self.sent.is_some() || self.refused == Some(Refused { revision: head.revision, confirmed }) {
            return Step::Nothing;
        }
        match &self.serving {
            None => Step::Snapshot,
            Some(serving) if serving.digest == head.digest && serving.revision == head.revision => Step::Nothing,
            Some(serving) if self.foreign && serving.digest == head.digest => Step::Renumber { base: serving.revision },
            Some(_) if self.foreign || self.wants_snapshot => Step::Snapshot,
            // It is ahead, or has another content under the same number: this store was set back. The data plane, which goes
            // forward only, refuses by name what it must not take, and that is shown.
            Some(serving) if serving.revision >= head.revision => Step::Snapshot,
            Some(serving) => Step::Delta { base: serving.revision },
        }
    }

    /// The store cannot have made what is served: it was set back, or two go by the same name.
    pub(super) fn is_ahead_of(&self, head: &Cursor) -> bool {
        let ahead = |serving: &Cursor| {
            serving.revision > head.revision || (serving.revision == head.revision && serving.digest != head.digest)
        };
        !self.foreign && self.serving.as_ref().is_some_and(ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(revision: i64, digest: u8) -> Cursor {
        Cursor { workspace: "workspaces/abc".to_owned(), revision, digest: vec![digest].into() }
    }

    fn holding(revision: i64, digest: u8) -> Held {
        Held { serving: Some(cursor(revision, digest)), ..Held::default() }
    }

    #[test]
    fn what_to_send() {
        let head = cursor(5, 5);
        let foreign = |held| Held { foreign: true, ..held };
        let unanswered = Some(Sent { cursor: cursor(4, 4), whole: false, confirmed: false, since: None });
        let refused = |revision, confirmed| Some(Refused { revision, confirmed });
        let table = [
            (Held::default(), Step::Snapshot),
            (holding(5, 5), Step::Nothing),
            (holding(4, 4), Step::Delta { base: 4 }),
            (holding(1, 1), Step::Delta { base: 1 }),
            // Published and taken back: the number moves though the content is the same.
            (holding(4, 5), Step::Delta { base: 4 }),
            (holding(5, 9), Step::Snapshot),
            (holding(6, 6), Step::Snapshot),
            (foreign(holding(5, 5)), Step::Nothing),
            (foreign(holding(9, 5)), Step::Renumber { base: 9 }),
            (foreign(holding(5, 9)), Step::Snapshot),
            (foreign(holding(9, 9)), Step::Snapshot),
            (Held { wants_snapshot: true, ..holding(4, 4) }, Step::Snapshot),
            (Held { refused: refused(5, false), ..holding(4, 4) }, Step::Nothing),
            // What somebody confirms afterwards is sent again.
            (Held { refused: refused(5, true), ..holding(4, 4) }, Step::Delta { base: 4 }),
            (Held { refused: refused(4, false), ..holding(3, 3) }, Step::Delta { base: 3 }),
            (Held { sent: unanswered, ..holding(3, 3) }, Step::Nothing),
        ];
        for (held, step) in table {
            assert_eq!(held.next(&head, false), step, "{held:?}");
        }
    }
}
