//! The one who talks to a shard for this plane: takes a first question and whatever is already waiting, asks it all in one script call,
//! and answers everybody when that is as durable as promised. A busy shard makes large steps by itself, an idle one answers at
//! once. Nothing is polled: what other planes did comes as news, what becomes ready with time at a computed moment.
//!
//! Dropped, a reply is the answer "unavailable". While the store is away every question is answered so at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::super::fresh::Fresh;
use super::super::pace::Pace;
use super::arguments::Arguments;
use super::ask::Ask;
use super::link::{ANSWER_DEADLINE, Link, LinkError, Push, Trouble};
use super::memory::{Identity, Memory};
use super::scripts::{self, Script};
use super::value::{int, list};
use super::{Board, LAYOUT, Life, RedisSettings, Unfit};
use crate::clock::Clock;
use crate::link::dice;

mod calls;
#[cfg(feature = "fault-injection")]
mod fault;
mod news;
mod steps;

use news::Known;

pub(super) use calls::Call;
use calls::{Asked, Gathered, UnderWay};

/// A plane that was not heard of for so many leases is gone: another adopts its reports.
const ABSENT_LEASES: i64 = 3;
/// Between tries to come back.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(2);
/// A step that is asked while another is under way has at least so many questions.
const BESIDE_MIN: usize = 8;
/// After a step that was refused nothing is tried again before this without being asked.
const REST: Duration = Duration::from_secs(1);
/// A longer sleep is slept in parts, so that a clock that jumps is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(3_600);

/// What others see of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// Reports of this plane: how many were ever written here, and how many of them were forgotten. Never goes back, not
    /// even when the store was lost.
    pub(super) last: i64,
    pub(super) trimmed: i64,
    /// Since when it does not answer.
    pub(super) away_since: Option<Instant>,
}

/// How work over a connection ended.
enum End {
    Closed,
    /// Why, and since when.
    Away(String, Instant),
    /// It is elsewhere, or will be in a moment: whoever asks waits so long for it.
    Moved(String, Instant),
    Failed(String),
}

/// Talks to one shard.
pub(super) struct Shard {
    number: u16,
    settings: Arc<RedisSettings>,
    clock: Clock,
    memory: Memory,
    board: Arc<Board>,
    asks: mpsc::Receiver<Call>,
    identity: Identity,
    /// The last version that was as durable as promised: a store that does not have it is an older state of this one.
    version: i64,
    known: HashMap<i64, Known>,
    /// What has to be added to the store's numbers of reports, so that they never go back.
    offset: i64,
    /// Nothing was answered yet since the connection was made.
    is_back: bool,
    wake_at: Option<Instant>,
    here_at: Instant,
    repeat: Vec<Call>,
    pace: Pace,
    /// Jobs that this plane has brought: their first lease need not tell them.
    fresh: Fresh,
}

/// A shard that was opened.
pub(super) struct Opened {
    pub(super) link: Link,
    pub(super) identity: Identity,
    /// It is not the store that this plane worked with before, or an older state of it.
    pub(super) changed: bool,
}

/// The prefix of all keys of a shard: its hash tag.
pub(super) fn base(prefix: &str, number: u16) -> String {
    format!("{{{prefix}:{number}}}")
}

/// Connects to a shard and says who is there; as a new life of the plane if it `starts`, or if the store does not know it.
pub(super) async fn open(
    settings: &RedisSettings,
    clock: &Clock,
    number: u16,
    before: Option<&Identity>,
    starts: bool,
) -> Result<Opened, LinkError> {
    let base = base(&settings.prefix, number);
    let mut link = Link::connect(settings, &base).await?;
    let mut identity = enter(&mut link, &base, settings, clock, starts).await?;
    let (mut changed, same) = (false, before.is_some_and(|before| before.store == identity.store));
    if let Some(before) = before {
        // A life fewer than there were: restored from a copy.
        changed = !same || identity.opened < before.opened.saturating_add(i64::from(starts));
    }
    if changed && !starts {
        identity = enter(&mut link, &base, settings, clock, true).await?;
    }
    Ok(Opened { link, identity, changed })
}

async fn enter(
    link: &mut Link,
    base: &str,
    settings: &RedisSettings,
    clock: &Clock,
    starts: bool,
) -> Result<Identity, LinkError> {
    let fresh = Uuid::new_v4().to_string();
    let write = |to: &mut Arguments| {
        to.word(clock.set_by_hand().map(|now| now.to_string()).unwrap_or_default());
        to.word(LAYOUT).digits(settings.shards).word(&fresh).word(&settings.plane);
        to.number(settings.dead_retention.as_millis()).number(u8::from(starts));
        to.words(settings.marks.borrow().iter());
    };
    let answer = link.run(Script::Open, write).await?;
    let fields = list(answer).and_then(|fields| <[_; 5]>::try_from(fields).ok());
    let [layout, shards, store, opened, is_ours] = fields.ok_or(Unfit::Answer("open"))?;
    let text = |value| super::value::text(value).map(str::to_owned).ok_or(Unfit::Answer("open"));
    if text(&layout)? != LAYOUT {
        return Err(Unfit::Layout(text(&layout)?).into());
    }
    if text(&shards)? != settings.shards.to_string() {
        return Err(Unfit::Shards { found: text(&shards)?, wanted: settings.shards }.into());
    }
    if int(&is_ours) != Some(1) {
        return Err(Unfit::Foreign { prefix: settings.prefix.clone(), marks: format!("{base}owners") }.into());
    }
    Ok(Identity { store: text(&store)?, opened: int(&opened).ok_or(Unfit::Answer("open"))? })
}

/// Work that was acknowledged may be gone: said as loudly as can be (ST6).
pub(super) fn alarm(shard: u16, before: Option<&Identity>, now: &Identity) {
    let before = before.map_or("", |before| &before.store);
    tracing::error!(
        shard,
        before,
        now = now.store,
        "ALARM: the store of the inbox was replaced, emptied or restored from a copy: accepted requests may be lost, and \
         duplicates accepted"
    );
}

impl Shard {
    pub(super) fn new(
        number: u16,
        (settings, clock, memory, board): (Arc<RedisSettings>, Clock, Memory, Arc<Board>),
        asks: mpsc::Receiver<Call>,
        identity: Identity,
    ) -> Self {
        Self {
            number,
            fresh: Fresh::new(settings.shards),
            settings,
            clock,
            memory,
            board,
            asks,
            identity,
            version: 0,
            known: HashMap::new(),
            offset: 0,
            is_back: false,
            wake_at: None,
            here_at: Instant::now(),
            repeat: Vec::new(),
            pace: Pace::default(),
        }
    }

    /// The first step of a life: the leases of earlier ones end, and every flow is read.
    pub(super) async fn start(&mut self, link: &mut Link) -> Result<(), LinkError> {
        let asked = self.step(link, vec![Call::new(Ask::Enter, None), Call::new(Ask::Flows, None)]).await;
        asked.map_err(|trouble| Unfit::NotStarted(format!("{trouble:?}")).into())
    }

    /// Runs until everybody let go of the inbox, it was closed, or it failed.
    pub(super) async fn run(mut self, mut link: Link) {
        let mut tries = 0;
        loop {
            let mut held_until = Instant::now();
            match self.work(&mut link).await {
                End::Closed => {
                    self.board.life.send_replace(Life::Closed);
                    return;
                }
                End::Failed(reason) => {
                    tracing::error!(reason, "inbox failed; nothing is acknowledged any more");
                    self.board.life.send_replace(Life::Failed(reason));
                    return;
                }
                End::Away(reason, since) => {
                    tracing::warn!(shard = self.number, reason, "the store of the inbox is away");
                    self.show(|shown| shown.away_since = Some(since));
                }
                End::Moved(reason, since) => {
                    tracing::info!(shard = self.number, reason, "a shard of the inbox moves to another node");
                    self.show(|shown| shown.away_since = Some(since));
                    held_until = since + ANSWER_DEADLINE;
                }
            }
            drop(link);
            match self.come_back(&mut tries, held_until).await {
                Some(Ok(back)) => link = back,
                Some(Err(reason)) => {
                    self.board.life.send_replace(Life::Failed(reason));
                    return;
                }
                None => {
                    self.board.life.send_replace(Life::Closed);
                    return;
                }
            }
        }
    }

    /// Connects again; tells everybody who asks later than `held_until` and before it is done that the inbox is unavailable. Nothing
    /// when it was closed.
    async fn come_back(&mut self, tries: &mut u32, held_until: Instant) -> Option<Result<Link, String>> {
        loop {
            let longest = RETRY_FIRST.saturating_mul(1 << (*tries).min(10)).min(RETRY_LONGEST);
            *tries = tries.saturating_add(1);
            let is_held = || Instant::now() < held_until;
            let pause = if is_held() { Duration::ZERO } else { longest.mul_f64(dice().max(0.25)) };
            let (settings, clock, before) = (self.settings.clone(), self.clock.clone(), self.identity.clone());
            let number = self.number;
            let opening = async move {
                tokio::time::sleep(pause).await;
                open(&settings, &clock, number, Some(&before), false).await
            };
            tokio::pin!(opening);
            self.repeat.retain(|call| call.since.elapsed() < ANSWER_DEADLINE);
            let opened = loop {
                tokio::select! {
                    opened = &mut opening => break opened,
                    () = tokio::time::sleep_until(held_until), if is_held() => {
                        self.repeat.retain(|call| call.reply.is_none());
                    }
                    call = self.asks.recv(), if !is_held() => match call {
                        // Its reply is dropped.
                        Some(call) if !matches!(call.ask, Ask::Leave) => {}
                        Some(_) | None => return None,
                    },
                }
            };
            match opened {
                Err(error) => {
                    tracing::warn!(shard = self.number, %error, "the store of the inbox cannot be worked with")
                }
                Ok(Opened { identity, changed: false, .. }) if identity.opened > self.identity.opened => {
                    return Some(Err(superseded(&self.settings.plane)));
                }
                Ok(Opened { mut link, identity, changed }) => {
                    if changed {
                        self.lose(identity);
                    }
                    self.forget_flows();
                    let first = if changed { Ask::Enter } else { Ask::Flows };
                    match self.step(&mut link, vec![Call::new(first, None), Call::new(Ask::Flows, None)]).await {
                        Ok(()) => {
                            *tries = 0;
                            tracing::info!(shard = self.number, "the store of the inbox is back");
                            return Some(Ok(link));
                        }
                        Err(Trouble::StoreChanged) => self.lose(self.identity.clone()),
                        Err(trouble) => tracing::warn!(shard = self.number, ?trouble, "the store refuses to go on"),
                    }
                }
            }
        }
    }

    /// Goes on with what there is.
    fn lose(&mut self, identity: Identity) {
        alarm(self.number, Some(&self.identity), &identity);
        self.board.losses.send_modify(|losses| *losses += 1);
        self.memory.remember(self.number, &identity);
        self.identity = identity;
        self.version = 0;
        // Whatever number it begins with, it follows the last one here.
        self.offset = i64::MIN;
    }

    async fn work(&mut self, link: &mut Link) -> End {
        let (mut gathered, mut under_way) = (Gathered::default(), UnderWay::default());
        let end = self.go_on(link, &mut gathered, &mut under_way).await;
        while let Some((asked, answer)) = under_way.next().await {
            // It says no more than the first that went wrong.
            let _why = self.finish(link, asked.calls, asked.script, answer).await;
        }
        match end {
            End::Away(..) | End::Moved(..) if gathered.leaves => End::Closed,
            End::Moved(..) => {
                self.keep_untouched(gathered.calls);
                end
            }
            End::Closed | End::Away(..) | End::Failed(_) => end,
        }
    }

    async fn go_on(&mut self, link: &mut Link, gathered: &mut Gathered, under_way: &mut UnderWay) -> End {
        loop {
            std::mem::take(&mut self.repeat).into_iter().for_each(|call| gathered.add(call));
            let sleep = self.wake_at.map_or(self.here_at, |at| at.min(self.here_at));
            let alone = under_way.steps() == 0;
            if gathered.calls.is_empty() || !(alone || self.goes_beside(link, gathered, under_way)) {
                tokio::select! {
                    biased;
                    Some((asked, answer)) = under_way.next() => {
                        match self.answered(link, asked, answer, gathered.accepts + under_way.accepts()).await {
                            Some(end) => return end,
                            None => continue,
                        }
                    }
                    call = self.asks.recv(), if !gathered.is_full() => match call {
                        Some(call) => gathered.add(call),
                        None => return End::Closed,
                    },
                    push = link.pushes.recv() => match push {
                        Some(Push::News(news)) => {
                            self.hear(&news);
                            continue;
                        }
                        Some(Push::Disconnected) | None => {
                            return End::Away("the connection ended".to_owned(), Instant::now());
                        }
                    },
                    () = tokio::time::sleep_until(sleep), if alone => {}
                }
                if !alone {
                    self.take_waiting(gathered);
                    continue;
                }
            }
            if link.has_missed() {
                gathered.add(Call::new(Ask::Flows, None));
            }
            if self.here_at <= Instant::now() {
                gathered.add(self.here());
            }
            if alone {
                self.gather(gathered, self.most_under_way(link)).await;
            }
            let Gathered { calls, accepts, leaves, .. } = std::mem::take(gathered);
            let began = Instant::now();
            let (calls, script) = match self.prepare(link, calls).await {
                Ok(prepared) => prepared,
                Err(trouble) => match self.end_of(Err(trouble), began) {
                    Some(end) => return end,
                    None => continue,
                },
            };
            // Of a shard that moves, one at a time is asked: it is told each time that we know.
            let answer = if link.is_moving() {
                let answer = link.run(script, |to| self.say(&calls, true, to)).await;
                std::future::ready(answer).boxed()
            } else {
                link.send(script, |to| self.say(&calls, false, to))
            };
            under_way.push(Asked { calls, script, accepts, leaves, began }, answer);
        }
    }

    /// How many steps may be under way: where an answer waits for replicas it waits for all that was written.
    fn most_under_way(&self, link: &Link) -> usize {
        if self.settings.durability.waits() || link.is_moving() { 1 } else { 2 }
    }

    /// Whether to ask another step before those under way are answered: when about as many wait for it. The store need not wait for
    /// this plane then, nor this plane for the store; fewer would make steps that cost the store more than they gain.
    fn goes_beside(&self, link: &Link, gathered: &Gathered, under_way: &UnderWay) -> bool {
        let worth = (under_way.calls() * 3 / 4).max(BESIDE_MIN);
        let leaves = gathered.leaves || under_way.leaves();
        gathered.calls.len() >= worth && !leaves && under_way.steps() < self.most_under_way(link)
    }

    /// What a step was answered; how work ends, if it does.
    async fn answered(
        &mut self,
        link: &mut Link,
        asked: Asked,
        answer: Result<::redis::Value, ::redis::RedisError>,
        others: usize,
    ) -> Option<End> {
        let Asked { calls, script, accepts, leaves, began } = asked;
        let answer = match answer {
            Err(error) if scripts::is_forgotten(&error) => link.run(script, |to| self.say(&calls, false, to)).await,
            answer => answer,
        };
        let done = self.finish(link, calls, script, answer).await;
        self.pace.committed(accepts, self.asks.len() + others, began.elapsed());
        if leaves {
            return Some(End::Closed);
        }
        self.end_of(done, began)
    }

    fn end_of(&mut self, done: Result<(), Trouble>, began: Instant) -> Option<End> {
        match done {
            Ok(()) => None,
            Err(Trouble::Refused(reason)) => {
                tracing::warn!(shard = self.number, reason, "the store refused a step");
                self.wake_at = Some(Instant::now() + REST);
                None
            }
            Err(Trouble::NoMemory) => {
                tracing::warn!(shard = self.number, "the store has no memory left");
                self.wake_at = Some(Instant::now() + REST);
                None
            }
            Err(Trouble::StoreChanged) => Some(End::Away("it is not the store it was".to_owned(), began)),
            Err(Trouble::Superseded) => Some(End::Failed(superseded(&self.settings.plane))),
            Err(Trouble::Moved(reason)) => Some(End::Moved(reason, began)),
            Err(Trouble::Lost(reason)) => Some(End::Away(reason, began)),
        }
    }

    /// Adds what is already waiting. Yielding once lets those run who were answered a moment ago and are about to ask again. Of so many
    /// steps that may be under way, this is one.
    async fn gather(&mut self, gathered: &mut Gathered, steps: usize) {
        tokio::task::yield_now().await;
        self.take_waiting(gathered);
        let Some((expected, patience)) = self.pace.expects() else { return };
        let over = tokio::time::sleep(patience);
        tokio::pin!(over);
        while gathered.has_accepts_alone() && gathered.accepts < expected.div_ceil(steps) && !gathered.is_full() {
            tokio::select! {
                biased;
                call = self.asks.recv() => match call {
                    Some(call) => gathered.add(call),
                    None => return,
                },
                () = &mut over => return self.pace.in_vain(),
            }
            self.take_waiting(gathered);
        }
    }

    fn take_waiting(&mut self, gathered: &mut Gathered) {
        while !gathered.is_full()
            && let Ok(call) = self.asks.try_recv()
        {
            gathered.add(call);
        }
    }

    fn here(&mut self) -> Call {
        let every = self.settings.lease / 3;
        self.here_at = Instant::now() + every.min(SLEEP_MAX);
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let absent_after_ms = millis(self.settings.lease).saturating_mul(ABSENT_LEASES);
        let marks = self.settings.marks.borrow().clone();
        Call::new(Ask::Here { away_ms: millis(self.settings.lease), absent_after_ms, marks }, None)
    }

    fn show(&self, change: impl FnOnce(&mut Shown)) {
        self.board.shards.send_modify(|all| {
            if let Some(shown) = all.get_mut(usize::from(self.number)) {
                change(shown);
            }
        });
    }
}

fn superseded(plane: &str) -> String {
    format!("another process runs as data plane `{plane}` on the same store: ids must be different")
}
