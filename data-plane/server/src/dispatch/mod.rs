//! Which jobs are sent next: fair turns between workspaces, destinations and flows (I10, N01), and what may not be sent to
//! now: limits of rate and concurrency (D10, this plane's part of them, or all of them with the other planes), a destination that keeps failing or asked for a pause, and a budget for
//! retries (D09). What may not be sent waits in the inbox, ready and unleased: no attempt is used, no worker is held.
//!
//! [`State`] decides from data and the time alone; [`Dispatch`] brings the time, wakes those that wait for a decision, and
//! hands out a [`Permit`] with each job, which counts until it is dropped.
//!
//! | Module | What |
//! |---|---|
//! | [`state`] | plans: what is counted, and what is taken next |
//! | [`turns`] | whose turn it is |
//! | [`queue`] | what waits in a flow, and its owner's limits |
//! | [`destination`] | what holds for one destination of one workspace |
//! | [`breaker`] | pauses a destination that keeps failing |
//! | [`bucket`] | rates, and the share of retries |
//! | [`together`] | limits that all planes keep together: what is said of them, and what comes of it |

mod breaker;
mod bucket;
mod destination;
mod queue;
mod state;
#[cfg(test)]
mod tests;
mod together;
mod turns;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use sluice_core::model::RateLimit;
use tokio::sync::Notify;

use breaker::Change;
pub use bucket::Rate;
use destination::Gate;
use state::{Plan, Slot, State};
use together::Said;

use crate::clock::{Clock, UnixMillis};
use crate::fleet::Fleet;
use crate::inbox::{Given, Grant, Lane, Leased, Waiting};
use crate::runtime::{Runtime, Served};

/// What is said of limits that all planes keep together is said so often while it is believed.
const SAID_AGAIN: u32 = 3;

/// Milliseconds on a clock that only goes forward ([`Clock::monotonic`]).
type Millis = u64;

/// The operator's settings for every destination of every workspace.
#[derive(Clone, Copy, Debug)]
pub struct DispatchSettings {
    /// How much of a lane's places one destination of one workspace may have at once, in percent: 1 to 100; at least one
    /// place. 25 by default: a destination that hangs never takes more.
    pub destination_share: u8,
    /// How much one destination of one workspace is sent, per data plane. No limit by default.
    pub destination_rate: Option<RateLimit>,
    /// How long a destination is not called after at least half of at least 20 calls in 30 s failed; each failed probe
    /// doubles it, up to 5 minutes. 10 s by default.
    pub breaker_wait: Duration,
}

impl Default for DispatchSettings {
    fn default() -> Self {
        Self { destination_share: 25, destination_rate: None, breaker_wait: Duration::from_secs(10) }
    }
}

/// A setting that cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("setting `{0}` of dispatch must be {1}")]
pub struct SettingsError(&'static str, &'static str);

impl DispatchSettings {
    /// Whether they can be kept.
    ///
    /// # Errors
    /// Which cannot, and what it must be.
    pub fn check(&self) -> Result<(), SettingsError> {
        if !(1..=100).contains(&self.destination_share) {
            return Err(SettingsError("destination_share", "1 to 100"));
        }
        if self.destination_rate.is_some_and(|rate| rate.requests_per_second == 0 || rate.burst == 0) {
            return Err(SettingsError("destination_rate", "at least 1 request per second with a burst of at least 1"));
        }
        Ok(())
    }

    fn share(&self, places: u32) -> u32 {
        let share = u64::from(places) * u64::from(self.destination_share) / 100;
        u32::try_from(share).unwrap_or(u32::MAX).max(1)
    }

    fn gate(&self, now: Millis) -> Gate {
        Gate::new(self.destination_rate.map(Rate::from), millis(self.breaker_wait), now)
    }
}

/// What the owner of a flow sets (D10), or this plane's part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// How much is sent.
    pub rate: Option<Rate>,
    /// Requests under way at once.
    pub concurrency_max: Option<u32>,
    /// How old a job may grow; nothing: unknown.
    pub age_max: Option<Duration>,
}

impl Limits {
    /// The part of one of so many planes: of each limit at least one request.
    fn of(self, planes: u32) -> Self {
        Self {
            rate: self.rate.map(|rate| rate.of(planes)),
            concurrency_max: self.concurrency_max.map(|most| (most / planes.max(1)).max(1)),
            age_max: self.age_max,
        }
    }
}

/// Why ready jobs are not being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nothing is in the way: a place, or their turn.
    Turn,
    /// A limit of requests per second.
    Rate,
    /// A limit of requests at once.
    Concurrency,
    /// The destination kept failing.
    Breaker,
    /// The destination asked for a pause, or credentials cannot be had.
    Hold,
    /// Too much of the traffic would be retries.
    Budget,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 6] = [Self::Turn, Self::Rate, Self::Concurrency, Self::Breaker, Self::Hold, Self::Budget];

    /// As metrics name it.
    pub fn code(self) -> &'static str {
        match self {
            Self::Turn => "turn",
            Self::Rate => "rate",
            Self::Concurrency => "concurrency",
            Self::Breaker => "breaker",
            Self::Hold => "hold",
            Self::Budget => "budget",
        }
    }
}

/// What came of a call, as far as the health of its destination goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing was sent.
    Nothing,
    /// The destination answered, and not with 5xx.
    Answer,
    /// It did not answer, or with 5xx.
    Trouble,
}

/// A handle; cheap to clone, every clone is the same.
#[derive(Clone, Debug)]
pub struct Dispatch(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    clock: Clock,
    fleet: Fleet,
    /// Limits that all planes keep together are asked for by one at a time: what is said of them replaces what was said before.
    asking: tokio::sync::Mutex<()>,
    changed: [Notify; 2],
    breaker_changes: Family<[(&'static str, &'static str); 1], Counter>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    /// The configuration that limits were read from.
    runtime: Arc<Runtime>,
    /// Into how many parts they were divided.
    parts: u32,
}

impl Dispatch {
    /// With so many places in each lane. Changes of breakers are counted in `breaker_changes`, by what they changed to.
    pub fn new(
        settings: DispatchSettings,
        places: [usize; 2],
        clock: Clock,
        fleet: Fleet,
        breaker_changes: Family<[(&'static str, &'static str); 1], Counter>,
    ) -> Self {
        let inner = Inner { state: State::new(settings, places), runtime: Arc::default(), parts: fleet.parts() };
        Self(Arc::new(Shared {
            inner: Mutex::new(inner),
            clock,
            fleet,
            asking: tokio::sync::Mutex::new(()),
            changed: [Notify::new(), Notify::new()],
            breaker_changes,
        }))
    }

    fn now(&self) -> Millis {
        millis(self.0.clock.monotonic())
    }

    /// The same moment on the dispatcher's own clock.
    fn at(&self, unix: UnixMillis) -> Millis {
        self.now() + u64::try_from(unix.saturating_sub(self.0.clock.now())).unwrap_or(0)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Flows of a lane as they are now.
    pub fn update(&self, lane: Lane, waiting: Vec<Waiting>, served: &Served) {
        let (now, runtime) = (self.now(), served.load());
        let mut inner = self.inner();
        let parts = inner.parts;
        for waiting in waiting {
            inner.state.update(lane, waiting, |flow| runtime.limits(flow).of(parts), now);
        }
    }

    /// Decides what to take now: what the limits leave that all planes keep together, if they do.
    pub async fn plan(&self, lane: Lane, served: &Served) -> Taking {
        let Some(believed) = self.0.fleet.together() else { return self.decide(lane, served) };
        let _one_at_a_time = self.0.asking.lock().await;
        let again_after = believed / SAID_AGAIN;
        loop {
            let parts = self.0.fleet.parts();
            let mut taking = self.decide(lane, served);
            taking.wake_within(again_after);
            let said = self.inner().state.say(&taking.slots, millis(again_after), self.now());
            if said.is_empty() {
                return taking;
            }
            match self.0.fleet.take(said.iter().map(|said| said.wanted.clone()).collect()).await {
                Some(given) => {
                    taking.settle(&said, &given);
                    return taking;
                }
                None if parts == self.0.fleet.parts() => return taking,
                // What was decided is given back: from now on this plane's part counts.
                None => {}
            }
        }
    }

    /// Tells the other planes what is under way here: nothing, when the plane has stopped.
    pub async fn tell(&self) {
        if self.0.fleet.together().is_none() {
            return;
        }
        let _one_at_a_time = self.0.asking.lock().await;
        let said = self.inner().state.say(&[], 0, self.now());
        if !said.is_empty() {
            // What they are not told they find out when it is not said again.
            let _told = self.0.fleet.take(said.into_iter().map(|said| said.wanted).collect()).await;
        }
    }

    fn decide(&self, lane: Lane, served: &Served) -> Taking {
        let (now, runtime, parts) = (self.now(), served.load(), self.0.fleet.parts());
        let mut inner = self.inner();
        if !Arc::ptr_eq(&runtime, &inner.runtime) || parts != inner.parts {
            inner.state.configure(|flow| runtime.limits(flow).of(parts), now);
            (inner.runtime, inner.parts) = (runtime, parts);
        }
        let Plan { grants, slots, wake_at } = inner.state.plan(lane, now, self.0.clock.now());
        let wake_after = wake_at.map(|at| Duration::from_millis(at.saturating_sub(now)));
        Taking { dispatch: self.clone(), grants, slots, wake_after }
    }

    /// Resolves when a new plan may find more than the last one of this lane.
    pub async fn changed(&self, lane: Lane) {
        self.0.changed[lane.index()].notified().await;
    }

    /// Jobs that are ready and not taken, by what they wait for.
    pub fn waiting(&self) -> HashMap<(Lane, Reason), u64> {
        self.inner().state.waiting(self.now())
    }

    /// Destinations that are not sent to, or only probed.
    pub fn open_breakers(&self) -> u64 {
        self.inner().state.open_breakers()
    }

    /// A call is over, or was not made: what it counted against and its place are free again.
    fn ended(&self, slot: &Slot, heard: Heard) {
        let (change, idle) = {
            let mut inner = self.inner();
            let change = inner.state.heard(slot, heard, self.now());
            inner.state.leave(slot);
            (change, Lane::ALL.map(|lane| inner.state.is_idle(lane)))
        };
        let (workspace, destination) = (&slot.flow.workspace, slot.destination());
        match change {
            Some(Change::Opened) => {
                self.0.breaker_changes.get_or_create(&[("to", "open")]).inc();
                tracing::warn!(workspace, destination, "calls keep failing: they are paused, jobs wait");
            }
            Some(Change::Closed) => {
                self.0.breaker_changes.get_or_create(&[("to", "closed")]).inc();
                tracing::info!(workspace, destination, "a probe succeeded: calls go on");
            }
            None => {}
        }
        // Limits are shared by the lanes.
        for (changed, idle) in self.0.changed.iter().zip(idle) {
            if !idle {
                changed.notify_one();
            }
        }
    }
}

/// What was decided to be taken. What is not given to a job is free again when this is dropped.
#[derive(Debug)]
pub struct Taking {
    dispatch: Dispatch,
    grants: Vec<Grant>,
    slots: Vec<Slot>,
    wake_after: Option<Duration>,
}

impl Taking {
    /// For the inbox.
    pub fn grants(&self) -> Vec<Grant> {
        self.grants.clone()
    }

    /// When to ask again, if nothing else happens.
    pub fn wake_after(&self) -> Option<Duration> {
        self.wake_after
    }

    fn wake_within(&mut self, wait: Duration) {
        self.wake_after = Some(self.wake_after.map_or(wait, |before| before.min(wait)));
    }

    /// What was not given of limits that all planes keep together is not taken.
    fn settle(&mut self, said: &[Said], given: &[Given]) {
        let now = self.dispatch.now();
        let wake_at = self.dispatch.inner().state.settle(said, given, &mut self.slots, &mut self.grants, now);
        if let Some(at) = wake_at {
            self.wake_within(Duration::from_millis(at.saturating_sub(now)));
        }
    }

    /// Gives each job that was leased its permit.
    pub fn give(mut self, leased: Vec<Leased>) -> Vec<(Leased, Permit)> {
        let mut slots: HashMap<_, Vec<Slot>> = HashMap::new();
        // From the back: what was granted for sending is used before what was for ending.
        for slot in std::mem::take(&mut self.slots).into_iter().rev() {
            slots.entry((slot.id, slot.retry)).or_default().push(slot);
        }
        let mut given = Vec::with_capacity(leased.len());
        for job in leased {
            // The inbox gives no more than was granted.
            let Some(slot) = slots.get_mut(&(job.flow, job.attempt > 0)).and_then(Vec::pop) else { continue };
            // Where one had waited too long there may be more: of very large jobs the inbox gives fewer than there are.
            if slot.expiry {
                self.dispatch.inner().state.expire_more(&slot, self.dispatch.now());
            }
            given.push((job, Permit::new(self.dispatch.clone(), slot)));
        }
        self.slots = slots.into_values().flatten().collect();
        given
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        let now = self.dispatch.now();
        for slot in &self.slots {
            self.dispatch.inner().state.not_taken(slot, now);
            self.dispatch.0.changed[slot.lane.index()].notify_one();
        }
    }
}

/// A job's right to its place and to one call. Both are free again when the call is over, or when it is dropped: recording what came of a
/// call keeps nobody else from being sent. Nothing new begins before it is recorded what begins, behind what has ended, so what is not
/// recorded yet is no more than what had places.
#[derive(Debug)]
pub struct Permit {
    dispatch: Dispatch,
    /// The slot, and whether it was told what came of the call.
    slot: Mutex<(Slot, bool)>,
}

impl Permit {
    fn new(dispatch: Dispatch, slot: Slot) -> Self {
        Self { dispatch, slot: Mutex::new((slot, false)) }
    }

    fn slot(&self) -> MutexGuard<'_, (Slot, bool)> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job was taken because it may be over its age limit: it must not be sent.
    pub fn is_for_expiry(&self) -> bool {
        self.slot().0.expiry
    }

    /// Asks to call this host (with its port unless it is 443). Where the flow leads is decided already; elsewhere the
    /// limits of that destination count.
    ///
    /// # Errors
    /// Not now; ask again then.
    pub fn call(&self, destination: &str) -> Result<(), UnixMillis> {
        let (now, unix) = (self.dispatch.now(), self.dispatch.0.clock.now());
        let mut slot = self.slot();
        let redirected = self.dispatch.inner().state.redirect(&mut slot.0, destination, now);
        redirected.map_err(|(_, until)| {
            let wait = until.map_or(REDIRECT_WAIT, |until| until.saturating_sub(now));
            unix.saturating_add(i64::try_from(wait).unwrap_or(i64::MAX))
        })
    }

    /// What came of the call. Only the first time counts.
    pub fn heard(&self, heard: Heard) {
        let mut slot = self.slot();
        if !std::mem::replace(&mut slot.1, true) {
            self.dispatch.ended(&slot.0, heard);
        }
    }

    /// Takes no job of this flow before this time: for what concerns all of them, such as credentials that cannot be had.
    pub fn hold_flow(&self, until: UnixMillis) {
        let (slot, until) = (self.slot(), self.dispatch.at(until));
        self.dispatch.inner().state.hold_flow(&slot.0, until);
    }

    /// Sends nothing to this destination of this workspace before this time: it asked for that.
    pub fn hold_destination(&self, until: UnixMillis) {
        let (slot, at) = (self.slot(), self.dispatch.at(until));
        let (workspace, destination) = (&slot.0.flow.workspace, slot.0.destination());
        tracing::info!(workspace, destination, until, "the destination asked for a pause: its jobs wait");
        self.dispatch.inner().state.hold_destination(&slot.0, at);
    }
}

/// How long a job waits that goes elsewhere than its flow when that destination has no room.
const REDIRECT_WAIT: Millis = 1_000;

impl Drop for Permit {
    fn drop(&mut self) {
        self.heard(Heard::Nothing);
    }
}

fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
