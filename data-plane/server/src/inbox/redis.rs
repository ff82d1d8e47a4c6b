//! The shared backend: Redis 7.0 or newer, or Valkey. Several data planes work on one store at once: a job that one of them has leased
//! is given to no other until its lease ends.
//!
//! Hides where jobs lie in Redis (`redis/lua/store.lua`), that every step is one script call which Redis does as a whole, how it comes to
//! have the scripts ([`scripts`]), who talks to which node ([`shard`]), what is refused as not durable enough ([`mod@check`]), and how a store that was lost is noticed.
//!
//! - **Shards.** All keys of a shard have one hash tag, so that a cluster keeps them together. A request is kept in one shard, with
//!   everything that follows from it. The number of shards is part of the store.
//! - **Time** is the store's own, the same for all planes; a test brings its own.
//! - **Reports** belong to the plane that made them. Those of a plane that is gone are adopted by another; one that was paused in between
//!   may tell some again.
//! - **Memory.** What is in a job a plane remembers that has brought it, until its first lease, which then need not tell it; a lease is
//!   the store's to give.
//! - **Away.** Nothing is answered from memory alone: while the store does not answer, everything is [`Unavailable`].

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use sluice_core::seal::Secret;
use thiserror::Error;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use uuid::Uuid;

use super::board::FlowBoard;
use super::life::{self, Life};
use super::{
    Accept, Accepted, Fence, Finish, FlowId, Found, Grant, LEASE_LIMIT, Lane, LaneStats, LeaseError, Leased, News,
    Stats, Steer, Unavailable, Waited, Waiting,
};
use crate::clock::{Clock, UnixMillis};

mod answered;
mod arguments;
mod ask;
mod check;
mod limits;
mod link;
mod memory;
mod outbox;
mod scripts;
mod shard;
mod value;

use answered::answered;
use ask::{Answer, Ask, Counts};
pub use check::Unfit;
use link::LinkError;
use memory::Memory;
use outbox::{Order, Part};
use shard::{Call, Opened, Shard, Shown};

/// The keys and values this build writes; it goes on with a store of the first layout, which earlier builds cannot come back to.
const LAYOUT: &str = "2";
/// Rows and flows are numbered so that the shard is the rest of a division by this.
const SHARDS_MAX: u16 = 64;
/// Questions that wait for a shard; more callers wait for a place (I8).
const CALLS: usize = 1_024;
/// How long the store may be away before the plane is not ready.
const AWAY_MAX: Duration = Duration::from_secs(3);

/// When an answer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After it is on the server's disk (`appendfsync always`). A server that dies or loses its power loses nothing it has
    /// answered.
    Strict,
    /// After the server has it in memory; it is on disk within about a second (`appendfsync everysec`). **A power loss may take up to two
    /// seconds of accepted requests**, always together with their dedup keys.
    Fast,
    /// After it is on the disks of the server and of so many replicas (WAITAOF; Redis or Valkey 7.2): a failover to one of them
    /// loses nothing.
    Replicated {
        /// How many, at least 1.
        replicas: u16,
    },
}

impl Durability {
    /// As settings name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Fast => "fast",
            Self::Replicated { .. } => "replicated",
        }
    }

    /// Whether what was written is waited for beyond the reply.
    fn waits(self) -> bool {
        match self {
            Self::Strict | Self::Fast => false,
            Self::Replicated { .. } => true,
        }
    }
}

/// Where the shared inbox is kept, and its limits. What the store limits must be the same for all planes on it.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// `redis://`, `rediss://` (TLS) or `unix://`, with user and password: a secret. Of a cluster, those of several nodes, one on each
    /// line: the first that answers is asked where a shard is.
    pub url: Secret,
    /// Certificates (PEM) to trust in place of the public ones, for `rediss://`.
    pub ca_pem: Option<Vec<u8>>,
    /// What all keys begin with: `[a-z0-9-]{1,32}`. Default `sluice`.
    pub prefix: String,
    /// The marks of this installation's master keys ([`MasterKeys::marks`]), as they are now: a store that is marked with none of them is
    /// another installation's, and is left alone. Ids of keys would not do: most first keys are called `first`. Default: none, and the
    /// store is anybody's.
    ///
    /// [`MasterKeys::marks`]: sluice_core::seal::MasterKeys::marks
    pub marks: watch::Receiver<Vec<String>>,
    /// This plane's id. No two processes may have the same on one store: the later one takes over, the earlier one ends.
    pub plane: String,
    /// Into how many parts the store is divided: 1 to 64, more than 1 only for a cluster. Default 1.
    pub shards: u16,
    /// When an answer is given. Default [`Durability::Strict`].
    pub durability: Durability,
    /// Jobs that may be ready, leased or delayed at once, an equal part of them in each shard; more are [`Accepted::Full`]. Those in the
    /// lane [`Lane::Bulk`] may be three quarters of them. Default 1,000,000.
    pub max_jobs: u64,
    /// How long a lease lasts unless renewed. Default 60 s.
    pub lease: Duration,
    /// How long dead jobs are kept. Default 30 days.
    pub dead_retention: Duration,
    /// Whether all planes keep limits of rate and concurrency together here, exactly (D10): one more question for each trigger, asked
    /// together with whatever else is. Otherwise each keeps its part of them. Must be the same for all planes on the store.
    /// Default false.
    pub exact_limits: bool,
    /// A file in which this plane remembers which store it worked with, to notice one that was lost. Default: none.
    pub memory: Option<PathBuf>,
    /// A bug to have, so that a crash test can show it would notice.
    #[cfg(feature = "fault-injection")]
    pub fault: Option<super::Fault>,
    /// A bug to have, so that a test can show it would notice: its name, a part of the scripts, and what stands there instead.
    #[cfg(test)]
    pub(super) sabotage: Option<(&'static str, &'static str, &'static str)>,
}

impl RedisSettings {
    /// The defaults, on this server.
    pub fn new(url: Secret, plane: impl Into<String>) -> Self {
        Self {
            url,
            ca_pem: None,
            prefix: "sluice".to_owned(),
            marks: watch::channel(Vec::new()).1,
            plane: plane.into(),
            shards: 1,
            durability: Durability::Strict,
            max_jobs: 1_000_000,
            lease: Duration::from_secs(60),
            dead_retention: Duration::from_secs(30 * 24 * 3_600),
            exact_limits: false,
            memory: None,
            #[cfg(feature = "fault-injection")]
            fault: None,
            #[cfg(test)]
            sabotage: None,
        }
    }

    fn check(&self) -> Result<(), RedisOpenError> {
        let wrong = |name, must| Err(RedisOpenError::Setting(name, must));
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !(1..=32).contains(&self.prefix.len()) || !plain(&self.prefix) {
            return wrong("prefix", "1 to 32 of a-z, 0-9 and -");
        }
        if !(1..=SHARDS_MAX).contains(&self.shards) {
            return wrong("shards", "1 to 64");
        }
        if self.max_jobs < u64::from(self.shards) {
            return wrong("max_jobs", "at least 1 for each shard");
        }
        if self.durability == (Durability::Replicated { replicas: 0 }) {
            return wrong("replicas", "at least 1");
        }
        let year = Duration::from_secs(366 * 24 * 3_600);
        if !(Duration::from_millis(1)..=year).contains(&self.lease) {
            return wrong("lease", "between 1 ms and a year");
        }
        if !(Duration::from_millis(1)..=100 * year).contains(&self.dead_retention) {
            return wrong("dead_retention", "between 1 ms and 100 years");
        }
        Ok(())
    }
}

/// Why the shared inbox could not be opened. Nothing was changed; the operator has to act.
#[derive(Debug, Error)]
pub enum RedisOpenError {
    /// A setting that cannot be kept.
    #[error("setting `{0}` of the Redis inbox must be {1}")]
    Setting(&'static str, &'static str),
    /// Not an address. It is not quoted, as it may hold a password.
    #[error("the URL of the Redis inbox is not one of redis://, rediss:// or unix://")]
    Url,
    /// It does not answer, or not us.
    #[error("Redis at {place}: {reason}")]
    Unreachable {
        /// Host and port, or path.
        place: String,
        /// Why.
        reason: String,
    },
    /// It does not keep what is promised.
    #[error("Redis at {place}: {unfit}")]
    Unfit {
        /// Host and port, or path.
        place: String,
        /// Why.
        unfit: Unfit,
    },
}

/// Where shards publish.
struct Board {
    flows: Arc<FlowBoard>,
    /// The versions of the lanes' flows.
    lanes: [watch::Sender<u64>; 2],
    shards: watch::Sender<Vec<Shown>>,
    /// How often the store was found to be another, or an older state of itself.
    losses: watch::Sender<u64>,
    life: watch::Sender<Life>,
}

impl Board {
    fn show(&self, changed: Vec<(Lane, Waiting)>) {
        for (lane, version) in self.lanes.iter().zip(self.flows.show(changed)) {
            if let Some(version) = version {
                // Another shard may have shown something in between.
                lane.send_if_modified(|shown| std::mem::replace(shown, version.max(*shown)) < version);
            }
        }
    }
}

/// A handle on the shared inbox. When the last one is dropped, it is as if the process had died: its leases run out.
#[derive(Clone, Debug)]
pub struct Redis(Arc<Shared>);

struct Shared {
    /// Whether limits are kept here, and how long what a plane says of them is believed.
    exact_limits: Option<Duration>,
    shards: Vec<mpsc::Sender<Call>>,
    flows: Arc<FlowBoard>,
    lanes: [watch::Receiver<u64>; 2],
    shown: watch::Receiver<Vec<Shown>>,
    losses: watch::Receiver<u64>,
    life: watch::Receiver<Life>,
    order: Mutex<Order>,
    /// As they were when the store was last there.
    stats: std::sync::Mutex<Option<Stats>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

impl Redis {
    /// Opens the store, or makes it, releases the leases of earlier processes with this id, and starts one task for each shard on
    /// this runtime.
    ///
    /// # Errors
    /// [`RedisOpenError`].
    pub async fn open(settings: RedisSettings, clock: Clock) -> Result<Self, RedisOpenError> {
        settings.check()?;
        let place = link::place(&link::parse(&settings).map_err(|_may_quote| RedisOpenError::Url)?);
        let refused = |error| match error {
            LinkError::Unreachable(error) => {
                RedisOpenError::Unreachable { place: place.clone(), reason: error.to_string() }
            }
            LinkError::Unfit(unfit) => RedisOpenError::Unfit { place: place.clone(), unfit },
            error @ LinkError::Moving => {
                RedisOpenError::Unreachable { place: place.clone(), reason: error.to_string() }
            }
        };
        if settings.durability == Durability::Fast {
            tracing::warn!(
                "the inbox runs in mode `fast`: a power loss of Redis may take up to two seconds of accepted requests"
            );
        }
        let settings = Arc::new(settings);
        let memory = Memory::open(settings.memory.clone());
        let flows = Arc::new(FlowBoard::default());
        let board = Arc::new(Board {
            flows: flows.clone(),
            lanes: [watch::Sender::new(0), watch::Sender::new(0)],
            shards: watch::Sender::new(vec![Shown::default(); usize::from(settings.shards)]),
            losses: watch::Sender::new(0),
            life: watch::Sender::new(Life::Working),
        });
        let (mut shards, mut running) = (Vec::new(), Vec::new());
        for number in 0..settings.shards {
            let before = memory.of(number);
            let opened = shard::open(&settings, &clock, number, before.as_ref(), true).await;
            let Opened { mut link, identity, changed } = opened.map_err(refused)?;
            if changed {
                shard::alarm(number, before.as_ref(), &identity);
                board.losses.send_modify(|losses| *losses += 1);
            }
            memory.remember(number, &identity);
            let (calls, asks) = mpsc::channel(CALLS);
            let parts = (settings.clone(), clock.clone(), memory.clone(), board.clone());
            let mut shard = Shard::new(number, parts, asks, identity);
            shard.start(&mut link).await.map_err(refused)?;
            shards.push(calls);
            running.push((shard, link));
        }
        let shown = board.shards.subscribe();
        let order = Mutex::new(Order::new(&shown.borrow()));
        let shared = Shared {
            exact_limits: settings.exact_limits.then_some(settings.lease),
            shards,
            flows,
            lanes: [board.lanes[0].subscribe(), board.lanes[1].subscribe()],
            shown,
            losses: board.losses.subscribe(),
            life: board.life.subscribe(),
            order,
            stats: std::sync::Mutex::new(None),
        };
        for (shard, link) in running {
            tokio::spawn(shard.run(link));
        }
        Ok(Self(Arc::new(shared)))
    }

    async fn ask(&self, shard: usize, ask: Ask) -> Result<Answer, Unavailable> {
        let (reply, answer) = oneshot::channel();
        let calls = self.0.shards.get(shard).ok_or(Unavailable)?;
        calls.send(Call::new(ask, Some(reply))).await.map_err(|_| Unavailable)?;
        answered(calls, answer).await
    }

    async fn step(&self, fence: Fence, ask: Ask) -> Result<(), LeaseError> {
        match self.ask(shard_of(fence.row), ask).await? {
            Answer::Held(true) => Ok(()),
            Answer::Held(false) => Err(LeaseError::Fenced),
            _ => Err(Unavailable.into()),
        }
    }

    pub(super) async fn accept(&self, accept: Accept) -> Result<Accepted, Unavailable> {
        let key = accept.claim.map_or(accept.request.into_bytes().to_vec(), |claim| claim.key.to_vec());
        // A digest, or random: any part of it is as good as another. The key in the store begins with the same bytes.
        let part = key.get(8..16).and_then(|part| part.try_into().ok()).map_or(0, u64::from_be_bytes);
        let shard = usize::try_from(part % self.0.shards.len() as u64).unwrap_or(0);
        match self.ask(shard, Ask::Accept(accept)).await? {
            Answer::Accepted(accepted) => Ok(accepted),
            _ => Err(Unavailable),
        }
    }

    pub(super) async fn lease(&self, grants: Vec<Grant>) -> Result<Vec<Leased>, Unavailable> {
        let mut by_shard: Vec<Vec<Grant>> = vec![Vec::new(); self.0.shards.len()];
        for grant in grants {
            if let Some(grants) = by_shard.get_mut(shard_of(grant.flow.0)) {
                grants.push(grant);
            }
        }
        // Each may give its part of the limit. Nothing granted is a step all the same: of every shard.
        let asked = by_shard.iter().filter(|grants| !grants.is_empty()).count();
        let most = LEASE_LIMIT / asked.max(1);
        let ask = by_shard.into_iter().enumerate().filter(|(_, grants)| asked == 0 || !grants.is_empty());
        let answers = join_all(ask.map(|(shard, grants)| self.ask(shard, Ask::Lease { grants, most }))).await;
        let mut jobs = Vec::new();
        let mut failed = None;
        for answer in answers {
            match answer {
                Ok(Answer::Leased(leased)) => jobs.extend(leased),
                Ok(_) => failed = Some(Unavailable),
                Err(error) => failed = Some(error),
            }
        }
        // What one shard gave is worked on although another is away.
        failed.filter(|_| jobs.is_empty()).map_or(Ok(jobs), Err)
    }

    pub(super) async fn renew(&self, leases: &[(Uuid, Fence)]) -> Result<Vec<Uuid>, Unavailable> {
        let mut by_shard: Vec<Vec<(Uuid, Fence)>> = vec![Vec::new(); self.0.shards.len()];
        for lease in leases {
            by_shard.get_mut(shard_of(lease.1.row)).ok_or(Unavailable)?.push(*lease);
        }
        let ask = by_shard.into_iter().enumerate().filter(|(_, leases)| !leases.is_empty());
        let answers = join_all(ask.map(|(shard, leases)| self.ask(shard, Ask::Renew(leases)))).await;
        let mut lost = Vec::new();
        for answer in answers {
            let Answer::Lost(ids) = answer? else { return Err(Unavailable) };
            lost.extend(ids);
        }
        Ok(lost)
    }

    pub(super) async fn begin(&self, id: Uuid, fence: Fence, rendered: Bytes) -> Result<(), LeaseError> {
        self.step(fence, Ask::Begin { id, fence, rendered }).await
    }

    pub(super) async fn finish(&self, id: Uuid, fence: Fence, finish: Finish) -> Result<(), LeaseError> {
        self.step(fence, Ask::Finish { id, fence, finish }).await
    }

    pub(super) async fn postpone(&self, id: Uuid, fence: Fence, due: UnixMillis) -> Result<(), LeaseError> {
        self.step(fence, Ask::Postpone { id, fence, due }).await
    }

    pub(super) async fn find(&self, id: Uuid) -> Result<Option<Found>, Unavailable> {
        for shard in 0..self.0.shards.len() {
            match self.ask(shard, Ask::Find(id)).await? {
                Answer::Found(None) => {}
                Answer::Found(found) => return Ok(found),
                _ => return Err(Unavailable),
            }
        }
        Ok(None)
    }

    pub(super) async fn waited(
        &self,
        after: i64,
        accepted_before: UnixMillis,
        max_rows: u32,
        max_bytes: usize,
    ) -> Result<Vec<Waited>, Unavailable> {
        let ask = |shard| self.ask(shard, Ask::Waited { after, accepted_before, max_rows, max_bytes });
        let mut all = Vec::new();
        for answer in join_all((0..self.0.shards.len()).map(ask)).await {
            let Answer::Waited(waited) = answer? else { return Err(Unavailable) };
            all.extend(waited);
        }
        // Numbers of all shards grow with time.
        all.sort_unstable_by_key(|waited| waited.number);
        all.truncate(usize::try_from(max_rows).unwrap_or(usize::MAX));
        let mut bytes = 0usize;
        let fits = all.iter().take_while(|waited| {
            bytes = bytes.saturating_add(waited.payload.len());
            bytes <= max_bytes
        });
        let fits = fits.count().max(1);
        all.truncate(fits);
        Ok(all)
    }

    pub(super) async fn steer(&self, id: Uuid, fence: Fence, steer: Steer) -> Result<(), LeaseError> {
        self.step(fence, Ask::Steer { id, fence, steer }).await
    }

    fn shown(&self) -> Vec<Shown> {
        self.0.shown.borrow().clone()
    }

    pub(super) async fn outbox_read(
        &self,
        after_seq: i64,
        max_rows: u32,
        max_bytes: usize,
    ) -> Result<Vec<(i64, Bytes)>, Unavailable> {
        let mut order = self.0.order.lock().await;
        let shown = self.shown();
        order.reconcile(&shown);
        let wanted = order.wanted(after_seq, &shown);
        let ask = |Part { shard, after }| self.ask(shard, Ask::Reports { after, max_rows, max_bytes });
        let answers = join_all(wanted.iter().copied().map(ask)).await;
        let mut read = vec![VecDeque::new(); shown.len()];
        for (wanted, answer) in wanted.iter().zip(answers) {
            let Answer::Reports(reports) = answer? else { return Err(Unavailable) };
            if let Some(place) = read.get_mut(wanted.shard) {
                *place = reports.into();
            }
        }
        if self.0.shards.iter().any(mpsc::Sender::is_closed) {
            return Err(Unavailable);
        }
        Ok(order.merge(after_seq, read, max_rows, max_bytes))
    }

    pub(super) async fn outbox_trim(&self, up_to_seq: i64) -> Result<(), Unavailable> {
        let mut order = self.0.order.lock().await;
        let shown = self.shown();
        order.reconcile(&shown);
        let wanted = order.forget(up_to_seq, &shown);
        let ask = |Part { shard, after }| self.ask(shard, Ask::Trim(after));
        join_all(wanted.into_iter().map(ask)).await.into_iter().try_for_each(|answer| answer.map(drop))
    }

    pub(super) async fn waiting(&self, lane: Lane, since: u64) -> Result<News, Unavailable> {
        let mut version = self.0.lanes[lane.index()].clone();
        version.wait_for(|version| *version > since).await.map_err(|_| Unavailable)?;
        if self.is_closed() { Err(Unavailable) } else { Ok(self.0.flows.news(lane, since)) }
    }

    pub(super) async fn wait_outbox(&self, after_seq: i64) -> Result<(), Unavailable> {
        let mut shown = self.0.shown.clone();
        loop {
            if self.is_closed() {
                return Err(Unavailable);
            }
            let now = shown.borrow_and_update().clone();
            {
                let mut order = self.0.order.lock().await;
                order.reconcile(&now);
                if order.has_after(after_seq, &now) {
                    return Ok(());
                }
            }
            shown.changed().await.map_err(|_| Unavailable)?;
        }
    }

    fn is_closed(&self) -> bool {
        self.0.shards.iter().all(mpsc::Sender::is_closed)
    }

    pub(super) async fn stats(&self) -> Result<Stats, Unavailable> {
        let asked = self.count().await;
        let mut known = self.0.stats.lock().unwrap_or_else(PoisonError::into_inner);
        match asked {
            Ok(stats) => {
                *known = Some(stats);
                Ok(stats)
            }
            // A moment's absence is no news: a plane is not ready when it lasts.
            Err(error) if !self.is_closed() => {
                let away = self.shown().iter().filter_map(|shard| shard.away_since).map(|since| since.elapsed()).max();
                known.filter(|_| away.is_some_and(|away| away < AWAY_MAX)).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    async fn count(&self) -> Result<Stats, Unavailable> {
        let news = Lane::ALL.map(|lane| self.0.flows.news(lane, 0));
        let ask = |shard| {
            let flows = news.each_ref().map(|news| {
                let waiting =
                    news.waiting.iter().filter(|one| one.first + one.retries > 0 && shard_of(one.id.0) == shard);
                waiting.map(|one| one.id).collect::<Vec<FlowId>>()
            });
            self.ask(shard, Ask::Counts(flows))
        };
        let mut stats = Stats { store_losses: *self.0.losses.borrow(), ..Stats::default() };
        for answer in join_all((0..self.0.shards.len()).map(ask)).await {
            let Answer::Counts(counts) = answer? else { return Err(Unavailable) };
            for (lane, counts) in [&mut stats.realtime, &mut stats.bulk].into_iter().zip(counts) {
                add(lane, counts);
            }
        }
        // After the answers, which tell what is ready as well.
        for (lane, stats) in Lane::ALL.into_iter().zip([&mut stats.realtime, &mut stats.bulk]) {
            stats.ready = self.0.flows.news(lane, 0).waiting.iter().map(|one| one.first + one.retries).sum();
        }
        let outbox: i64 = self.shown().iter().map(|shard| shard.last - shard.trimmed).sum();
        stats.outbox = outbox.unsigned_abs();
        Ok(stats)
    }

    pub(super) async fn failed(&self) -> String {
        life::failed(self.0.life.clone()).await
    }

    pub(super) async fn close(&self) {
        let all = (0..self.0.shards.len()).map(|shard| self.ask(shard, Ask::Leave));
        let _already_closed = join_all(all).await;
    }
}

/// Rows and flows say in which shard they are.
fn shard_of(number: i64) -> usize {
    usize::try_from(number.rem_euclid(i64::from(SHARDS_MAX))).unwrap_or(0)
}

fn add(lane: &mut LaneStats, counts: Counts) {
    lane.leased += counts.leased;
    lane.delayed += counts.delayed;
    lane.dead += counts.dead;
    lane.oldest_ready_ms = lane.oldest_ready_ms.max(counts.oldest_ready_ms);
}

#[cfg(test)]
pub(super) mod tests;
