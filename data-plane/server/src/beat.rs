//! The beat of a configuration stream: says every while what is served, in a constant number of bytes, so that the control plane notices
//! when that is not what was acknowledged; and hears by how much the two clocks differ.

use std::pin::Pin;
use std::time::Duration;

use sluice_core::level::CONFIG_LEVEL;
use sluice_core::snapshot;
use sluice_proto::sync::v1::{Ack, Beat, BeatHeard, Cursor, Hello, Holding, SyncRequest, sync_request};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::clock::UnixMillis;
use crate::link::dice;
use crate::outcome::timestamp;
use crate::plane::Plane;
use crate::runtime::Workspace;

/// From how far on a clock that is wrong is said aloud.
const SKEW_WARNED_MS: u64 = 5000;

/// What is held now, to begin a stream with.
pub(crate) fn hello(plane: &Plane) -> SyncRequest {
    let Holding { store_epoch, cursors } = holding(plane);
    let hello = Hello {
        data_plane_id: plane.settings.data_plane_id.clone(),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        store_epoch,
        cursors,
        takes_commands: true,
        shares_limits: true,
        config_level: CONFIG_LEVEL,
        draining: plane.drain.is_on(),
        incomplete: plane
            .served
            .load()
            .workspaces()
            .filter(|held| !held.left_out.is_empty())
            .map(|held| ack(held))
            .collect(),
    };
    SyncRequest { kind: Some(sync_request::Kind::Hello(hello)) }
}

/// Where everything stands that is served.
fn holding(plane: &Plane) -> Holding {
    let runtime = plane.served.load();
    // Workspaces of two stores (a stream broke in the middle of a new one): then none can be named, and all are compared.
    let mut epochs: Vec<&str> = runtime.workspaces().map(|workspace| workspace.store_epoch.as_str()).collect();
    epochs.dedup();
    let store_epoch = if let [one] = epochs.as_slice() { (*one).to_owned() } else { String::new() };
    Holding { store_epoch, cursors: runtime.workspaces().map(|workspace| cursor(workspace)).collect() }
}

/// Where one workspace stands.
pub(crate) fn cursor(workspace: &Workspace) -> Cursor {
    Cursor { workspace: workspace.name.clone(), revision: workspace.revision, digest: workspace.digest.to_vec().into() }
}

/// That a workspace is served, and what is left out of it.
pub(crate) fn ack(workspace: &Workspace) -> Ack {
    let quarantined = workspace.left_out.problems().to_vec();
    Ack { serving: Some(cursor(workspace)), apply_micros: 0, quarantined }
}

/// The beats of one stream.
#[derive(Debug)]
pub(crate) struct Beats<'a> {
    plane: &'a Plane,
    next: Pin<Box<Sleep>>,
    /// When the last one was sent that was not answered.
    sent: Option<UnixMillis>,
    /// It was said that the clocks differ.
    warned: bool,
}

impl<'a> Beats<'a> {
    /// The first one comes after a while: hello has just said more.
    pub(crate) fn new(plane: &'a Plane) -> Self {
        Self { plane, next: Box::pin(sleep(after(plane.settings.beat_every, dice()))), sent: None, warned: false }
    }

    /// Waits until the next one is due; it may be given up.
    pub(crate) async fn due(&mut self) {
        self.next.as_mut().await;
    }

    /// The one that is due.
    pub(crate) fn beat(&mut self) -> sync_request::Kind {
        self.next = Box::pin(sleep_until(Instant::now() + after(self.plane.settings.beat_every, dice())));
        let (now, held) = (self.plane.clock.now(), holding(self.plane));
        self.sent = Some(now);
        let digest = snapshot::holding(held.cursors.iter()).to_vec().into();
        sync_request::Kind::Beat(Beat { digest, time: Some(timestamp(now)) })
    }

    /// What is to be said to the answer, if anything is.
    pub(crate) fn heard(&mut self, heard: &BeatHeard) -> Option<sync_request::Kind> {
        if let (Some(sent), Some(time)) = (self.sent.take(), &heard.time) {
            self.compare_clocks(sent, millis(time));
        }
        heard.wants_holding.then(|| {
            tracing::warn!("the control plane knows otherwise of what is served here: both compare");
            sync_request::Kind::Holding(holding(self.plane))
        })
    }

    /// The control plane's clock was read between sending a beat and hearing its answer.
    fn compare_clocks(&mut self, sent: UnixMillis, theirs: UnixMillis) {
        let middle = sent.saturating_add(self.plane.clock.now().saturating_sub(sent) / 2);
        let skew_ms = middle.saturating_sub(theirs);
        self.plane.metrics.clock_skew(skew_ms);
        let is_wrong = skew_ms.unsigned_abs() > SKEW_WARNED_MS;
        if is_wrong && !std::mem::replace(&mut self.warned, is_wrong) {
            tracing::warn!(
                skew_ms,
                "this machine's clock is wrong, or that of the control plane: tokens and signatures depend on it"
            );
        }
    }
}

/// When the next one comes, for a roll of the dice in `0.0..1.0`: not those of all data planes at once.
fn after(every: Duration, dice: f64) -> Duration {
    every.mul_f64(0.8 + 0.4 * dice)
}

/// A message's time; parts of a millisecond are dropped.
fn millis(at: &prost_types::Timestamp) -> UnixMillis {
    at.seconds.saturating_mul(1000).saturating_add(i64::from(at.nanos) / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_of_many_data_planes_come_apart() {
        let every = Duration::from_secs(15);
        for (dice, seconds) in [(0.0, 12), (0.5, 15), (1.0, 18)] {
            assert_eq!(after(every, dice).as_secs_f64().round(), f64::from(seconds));
        }
    }
}
