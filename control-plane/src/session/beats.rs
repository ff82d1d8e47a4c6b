//! What a data plane says that it serves, on a beat, against what it has acknowledged (anti-entropy, section 2.3 of sync). Hides when the
//! two are compared workspace by workspace: one beat that differs may have met a message on its way, two in a row have not.
//!
//! Costs one hash for each beat and nothing of the store, unless something of another history is found.

use std::collections::BTreeMap;

use sluice_core::snapshot;
use sluice_proto::sync::v1::{Beat, BeatHeard, Cursor, Holding};

use super::{Held, Session, Step};
use crate::clock::{UnixMillis, millis, timestamp};
use crate::error::Failure;

/// So many beats in a row that differ lead to a comparison.
const ODD_MAX: u32 = 2;

/// What the beats of one stream have told.
#[derive(Debug, Default)]
pub(super) struct Beats {
    /// What it serves beyond what it may see; part of what it says.
    beyond: Vec<Cursor>,
    /// How many beats in a row differed.
    odd: u32,
    /// To be sent: only the newest counts.
    answer: Option<BeatHeard>,
}

impl Beats {
    /// Of a data plane that serves this beside what it may see.
    pub(super) fn beside(beyond: Vec<Cursor>) -> Self {
        Self { beyond, ..Self::default() }
    }

    pub(super) fn has_answer(&self) -> bool {
        self.answer.is_some()
    }

    pub(super) fn answer(&mut self) -> Option<BeatHeard> {
        self.answer.take()
    }

    /// Takes one beat over against what is known to be served.
    fn hear(&mut self, beat: &Beat, held: impl Iterator<Item = Cursor>, now: UnixMillis) {
        let known: Vec<Cursor> = held.chain(self.beyond.iter().cloned()).collect();
        // One that asks and was not sent yet is asked by this one.
        let asks = self.answer.take().is_some_and(|answer| answer.wants_holding);
        let is_odd = beat.digest.as_ref() != snapshot::holding(known.iter()).as_slice();
        self.odd = if is_odd { self.odd + 1 } else { 0 };
        let wants_holding = asks || self.odd >= ODD_MAX;
        if wants_holding {
            self.odd = 0;
        }
        self.answer = Some(BeatHeard { time: Some(timestamp(now)), wants_holding });
    }
}

impl Session {
    /// A beat came.
    pub(super) fn heard(&mut self, beat: &Beat) {
        let now = self.shared.settings.clock.now();
        if let Some(time) = &beat.time {
            self.registration.clock_says(millis(time), now);
        }
        self.beats.hear(beat, self.held.values().filter_map(|held| held.serving.clone()), now);
        // Whatever was not seen to have changed is seen now.
        self.look_at_all();
    }

    /// Compares what is served with what was acknowledged, workspace by workspace as at hello, and has sent again what differs.
    pub(super) async fn compare(&mut self, holding: Holding) -> Result<(), Failure> {
        let foreign = holding.store_epoch != self.epoch;
        let scope = &self.registration.scope;
        let (seen, beyond): (Vec<_>, Vec<_>) =
            holding.cursors.into_iter().partition(|cursor| scope.sees(&cursor.workspace));
        self.beats.beyond = beyond;
        let known = self.held.keys().map(|name| (name.clone(), None));
        let served = seen.into_iter().map(|cursor| (cursor.workspace.clone(), Some(cursor)));
        let found: BTreeMap<String, Option<Cursor>> = known.chain(served).collect();
        for (workspace, serving) in found {
            self.found(&workspace, serving, foreign);
        }
        self.note_ahead().await?;
        self.look_at_all();
        Ok(())
    }

    /// What a workspace was found to be served at.
    fn found(&mut self, workspace: &str, serving: Option<Cursor>, foreign: bool) {
        let held = self.held.entry(workspace.to_owned()).or_default();
        if held.serving == serving {
            return;
        }
        let revision = |cursor: &Option<Cursor>| cursor.as_ref().map_or(0, |cursor| cursor.revision);
        let (data_plane, acknowledged, serves) = (self.registration.id(), revision(&held.serving), revision(&serving));
        tracing::warn!(
            data_plane,
            workspace,
            acknowledged,
            serves,
            "a data plane serves something else than it had acknowledged"
        );
        self.registration.found(workspace, serves);
        // What it refused, it refused in place of what it no longer has. An answer may still be on its way.
        *held = Held { serving, foreign, sent: held.sent.take(), drifted: true, ..Held::default() };
        self.pending.insert(workspace.to_owned());
        self.repaired(workspace);
    }

    /// Says aloud when what had drifted is at the newest revision.
    pub(super) fn repaired(&mut self, workspace: &str) {
        let heads = self.heads.borrow();
        let Some(head) = heads.workspaces.get(workspace) else { return };
        let Some(held) = self.held.get_mut(workspace).filter(|held| held.drifted) else { return };
        if held.serving.is_some()
            && held.next(&head.cursor, head.deletes_confirmed) == Step::Nothing
            && held.refused.is_none()
        {
            held.drifted = false;
            self.shared.metrics.drift_repaired();
            tracing::info!(data_plane = self.registration.id(), workspace, "a data plane serves again what it should");
        }
    }
}
