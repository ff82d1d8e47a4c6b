//! The one writer: takes a first command and whatever is already waiting, does it all in one transaction, and answers
//! everybody after the fsync. A busy inbox makes large groups by itself, an idle one answers at once; there is no timer.
//!
//! A dropped reply is the answer "unavailable", so a group that failed is answered by forgetting it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::super::board::FlowBoard;
use super::super::life::Life;
use super::super::{
    Accept, Accepted, Fence, Finish, Flow, Grant, LEASE_LIMIT, Lane, Leased, NewJob, Place, REQUEST_MEMORY, Steer,
    Waiting, bulk_share,
};
use super::book::{Book, Counts, Held};
use super::flows::ReadyJob;
use super::fresh::Fresh;
use super::group::{Answers, Command, Group, Leases, Question, Reply};
use super::pack::Lease;
use super::script::Script;
use super::store::{Kept, Key, Known, Store};
use crate::clock::{Clock, UnixMillis};

mod trouble;
mod wake;

use trouble::Trouble;

/// Reports trimmed by one command.
const TRIM_ROWS: i64 = 2_048;
/// Between sweeps that found less than a full batch, and after a failed group.
const SWEEP_PAUSE_MS: i64 = 1_000;
/// A longer sleep is slept in parts, so that a wall clock that jumps is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(3_600);

/// The numbers of the last report written and of the last one trimmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OutboxView {
    pub(super) last: i64,
    pub(super) trimmed: i64,
}

/// Where the committer publishes.
pub(super) struct Board {
    pub(super) flows: Arc<FlowBoard>,
    /// The versions of the lanes' flows.
    pub(super) lanes: [watch::Sender<u64>; 2],
    pub(super) outbox: watch::Sender<OutboxView>,
    pub(super) counts: watch::Sender<[Counts; 2]>,
    pub(super) life: watch::Sender<Life>,
}

/// The limits the committer enforces, in milliseconds where they are times.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_jobs: u64,
    pub(super) lease_ms: i64,
    pub(super) dead_retention_ms: i64,
    #[cfg(feature = "fault-injection")]
    pub(super) fault: Option<super::super::Fault>,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A request without a key is remembered under its own id. Padded with zeros to the length of a key: no digest that
/// occurs ends in sixteen zero bytes.
fn own_key(request: Uuid) -> Key {
    let mut key = [0; 32];
    key[..16].copy_from_slice(request.as_bytes());
    key
}

fn key_of(accept: &Accept) -> (Key, Duration) {
    accept.claim.map_or((own_key(accept.request), REQUEST_MEMORY), |claim| (claim.key, claim.window))
}

/// Jobs and flows that a group adds.
#[derive(Default)]
struct NewJobs<'a> {
    jobs: Vec<(i64, i64, &'a NewJob)>,
    flows: Vec<(i64, Lane, &'a Flow)>,
}

impl<'a> NewJobs<'a> {
    fn take(&mut self, book: &mut Book, fresh: &mut Fresh, jobs: &'a [NewJob], now: UnixMillis) {
        for job in jobs {
            let (flow, new) = book.flows.number(job.lane, &job.flow);
            if new {
                self.flows.push((flow, job.lane, &*job.flow));
            }
            let seq = book.numbers.next_seq;
            book.numbers.next_seq += 1;
            self.jobs.push((seq, flow, job));
            fresh.add(seq, flow, job, now);
            book.ready(job.lane, flow, false, ReadyJob { seq, at: now, accepted: now });
        }
    }

    fn write(&self, script: &mut Script, now: UnixMillis) {
        if !self.flows.is_empty() {
            script.add_flows(&self.flows);
        }
        if !self.jobs.is_empty() {
            script.add_jobs(&self.jobs, now);
        }
    }
}

/// Owns the writer connection and the lock on the file.
pub(super) struct Committer {
    store: Store,
    book: Book,
    fresh: Fresh,
    clock: Clock,
    limits: Limits,
    board: Board,
    commands: mpsc::Receiver<Command>,
    lock: File,
    /// After a failed group nothing is tried again before this without being asked.
    rest_until: UnixMillis,
}

impl Committer {
    pub(super) fn new(
        store: Store,
        book: Book,
        clock: Clock,
        limits: Limits,
        board: Board,
        commands: mpsc::Receiver<Command>,
        lock: File,
    ) -> Self {
        let rest_until = UnixMillis::MIN;
        let fresh = Fresh::default();
        let mut committer = Self { store, book, fresh, clock, limits, board, commands, lock, rest_until };
        committer.settle(&Ok(()));
        committer
    }

    /// Runs until everybody let go of the inbox, it was closed, or it failed.
    pub(super) async fn run(mut self) {
        loop {
            let wait = Duration::from_millis(self.idle_for().unsigned_abs()).min(LONGEST_SLEEP);
            let mut group = Group::default();
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.gather(&mut group, command).await,
                    None => return self.finish(None).await,
                },
                () = tokio::time::sleep(wait) => {}
            }
            let close = group.close.take();
            if let Err(error) = self.serve(group).await {
                let reason = format!("the inbox cannot write to its file any more: {error}");
                tracing::error!(error = %error, "inbox failed; nothing is acknowledged any more");
                self.board.life.send_replace(Life::Failed(reason));
                return;
            }
            if close.is_some() {
                return self.finish(close).await;
            }
        }
    }

    /// Until something has to be done that nobody asks for.
    fn idle_for(&self) -> i64 {
        let next = self.book.next_at().map_or(self.book.numbers.next_sweep, |at| at.min(self.book.numbers.next_sweep));
        next.max(self.rest_until).saturating_sub(self.clock.now()).max(0)
    }

    /// Adds what is already waiting. Yielding once lets those run who were answered a moment ago and are about to ask
    /// again; otherwise the first of them would make a group, and pay an fsync, alone.
    async fn gather(&mut self, group: &mut Group, first: Command) {
        group.push(first);
        tokio::task::yield_now().await;
        while !group.is_full() {
            match self.commands.try_recv() {
                Ok(command) => group.push(command),
                Err(_) => return,
            }
        }
    }

    /// Lets go of file and lock, then says so.
    async fn finish(mut self, close: Option<Reply<()>>) {
        self.commands.close();
        if let Err(error) = self.store.close().await {
            tracing::warn!(error = %error, "closing the inbox file; it is complete, its log stays");
        }
        drop(self.lock);
        self.board.life.send_replace(Life::Closed);
        if let Some(reply) = close {
            let _nobody_waits = reply.send(());
        }
    }

    /// Does a group. Without space, what makes space (finishing, trimming) is tried again without what takes it.
    async fn serve(&mut self, mut group: Group) -> Result<(), sqlx::Error> {
        // Who stopped waiting gets no jobs.
        group.leases.retain(|(_, reply)| !reply.is_closed());
        let mut result = self.transact(&mut group).await;
        if matches!(&result, Err(error) if matches!(Trouble::of(error), Trouble::Passing))
            && !group.accepts.is_empty()
            && group.ops > group.accepts.len()
        {
            group.accepts.clear();
            result = self.transact(&mut group).await;
        }
        let done = match result {
            Ok(answers) => Ok(Some(answers)),
            Err(error) => self.pass(error, group.ops).map(|()| None),
        };
        // Before anybody is answered: who asked hears what became ready meanwhile. A lease that ran out is in force until its group is
        // done.
        let woken = self.wake_up().await;
        self.settle(&woken);
        if let Some(answers) = done? {
            for job in group.answer(answers) {
                // Ready again with the next step, which is at once.
                self.book.abandon(job.id, job.fence);
            }
        }
        woken.or_else(|error| self.pass(error, 0))
    }

    /// An error after which the inbox itself is well.
    fn pass(&self, error: sqlx::Error, commands: usize) -> Result<(), sqlx::Error> {
        match Trouble::of(&error) {
            Trouble::Fatal => Err(error),
            Trouble::Passing => {
                tracing::warn!(error = %error, commands, "the inbox refused a group of commands");
                Ok(())
            }
        }
    }

    /// One transaction: all of the group or, rolled back, nothing.
    async fn transact(&mut self, group: &mut Group) -> Result<Answers, sqlx::Error> {
        let result = self.attempt(group).await;
        self.settle(&result);
        result
    }

    /// What was written is true; what was not, is not.
    fn settle<T>(&mut self, result: &Result<T, sqlx::Error>) {
        if result.is_ok() {
            self.fresh.commit();
            let flows = self.book.commit();
            self.publish(flows);
        } else {
            self.fresh.rollback();
            self.book.rollback();
            self.rest_until = self.clock.now().saturating_add(SWEEP_PAUSE_MS);
        }
    }

    /// Jobs are leased first: what else the group does to jobs is not yet in the file.
    async fn attempt(&mut self, group: &mut Group) -> Result<Answers, sqlx::Error> {
        let now = self.clock.now();
        let step = self.book.numbers.next_step;
        let mut script = Script::default();
        let mut new_leases = Vec::new();
        let mut leases = Vec::with_capacity(group.leases.len());
        for (grants, _) in &group.leases {
            leases.push(self.lease(grants, step, now, &mut new_leases).await?);
        }
        let known = self.known(&group.accepts).await?;
        let mut new_attempts = Vec::new();
        let mut answers = Answers {
            leases,
            renews: self.renew(&group.renews, now),
            begins: self.begin(&group.begins, step, &mut new_attempts),
            finishes: self.finish_jobs(&group.finishes, now, &mut script),
            postpones: self.postpone(&group.postpones, now, &mut script),
            steers: self.steer(&group.steers, now, &mut script).await?,
            accepts: self.accept(&group.accepts, known, now, &mut script).await?,
            trims: self.trim(&group.trims, &mut script),
            questions: self.answers(&group.questions),
        };
        if !new_leases.is_empty() || !new_attempts.is_empty() {
            self.book.numbers.next_step += 1;
            script.work(step, &new_leases, &new_attempts);
        }
        let over = self.book.steps_over();
        if !over.is_empty() {
            script.forget_steps(&over);
        }
        #[cfg(feature = "fault-injection")]
        if self.limits.fault == Some(super::super::Fault::AnswerBeforeCommit) && !group.accepts.is_empty() {
            for ((_, reply), answer) in group.accepts.drain(..).zip(answers.accepts.drain(..)) {
                let _nobody_waits = reply.send(answer);
            }
            tokio::time::sleep(super::FAULT_DELAY).await;
        }
        #[cfg(feature = "fault-injection")]
        group.end_if_asked(self.limits.fault);
        if !script.is_empty() {
            self.store.commit(script).await?;
        }
        self.book.forget_steps(&over);
        Ok(std::mem::take(&mut answers))
    }

    /// What the file says of the keys of these requests.
    async fn known(&mut self, accepts: &[(Accept, Reply<Accepted>)]) -> Result<HashMap<Key, Known>, sqlx::Error> {
        if accepts.is_empty() {
            return Ok(HashMap::new());
        }
        let keys: Vec<Key> = accepts.iter().map(|(accept, _)| key_of(accept).0).collect();
        self.store.known(&keys).await
    }

    /// Decides in order of arrival. `known` is what the file says of their keys.
    async fn accept(
        &mut self,
        accepts: &[(Accept, Reply<Accepted>)],
        mut known: HashMap<Key, Known>,
        now: UnixMillis,
        script: &mut Script,
    ) -> Result<Vec<Accepted>, sqlx::Error> {
        let mut changed: HashMap<Key, Known> = HashMap::with_capacity(accepts.len());
        let mut new = NewJobs::default();
        let mut answers = Vec::with_capacity(accepts.len());
        for (accept, _) in accepts {
            let (key, window) = key_of(accept);
            let exp = now.saturating_add(millis(window));
            let earlier = known.get(&key).filter(|known| now < known.exp);
            let (answer, request) = match earlier {
                Some(earlier) if earlier.request == accept.request => (Accepted::Accepted, earlier.request),
                Some(earlier) => (Accepted::Duplicate, earlier.request),
                None if !self.has_room(&accept.jobs) => {
                    answers.push(Accepted::Full);
                    continue;
                }
                None => {
                    new.take(&mut self.book, &mut self.fresh, &accept.jobs, now);
                    (Accepted::Accepted, accept.request)
                }
            };
            known.insert(key, Known { request, exp });
            changed.insert(key, Known { request, exp });
            answers.push(answer);
        }
        let changed: Vec<(Key, Known)> = changed.into_iter().collect();
        #[cfg(feature = "fault-injection")]
        if self.limits.fault == Some(super::super::Fault::KeyBeforeJobs) && !changed.is_empty() {
            let mut keys = Script::default();
            keys.add_keys(&changed);
            self.store.commit(keys).await?;
            tokio::time::sleep(super::FAULT_DELAY).await;
        }
        new.write(script, now);
        if let Some(first) = changed.iter().map(|(_, known)| known.exp).min() {
            script.add_keys(&changed);
            let numbers = &mut self.book.numbers;
            numbers.next_sweep = numbers.next_sweep.min(first.max(now.saturating_add(SWEEP_PAUSE_MS)));
        }
        Ok(answers)
    }

    fn has_room(&self, jobs: &[NewJob]) -> bool {
        let bulk = jobs.iter().filter(|job| job.lane == Lane::Bulk).count() as u64;
        let max_jobs = self.limits.max_jobs;
        let fits = self.book.live() + jobs.len() as u64 <= max_jobs;
        let shares = bulk == 0 || self.book.live_in(Lane::Bulk) + bulk <= bulk_share(max_jobs);
        jobs.is_empty() || (fits && shares)
    }

    fn renew(&mut self, renews: &[(Leases, Reply<Vec<Uuid>>)], now: UnixMillis) -> Vec<Vec<Uuid>> {
        let until = now.saturating_add(self.limits.lease_ms);
        renews
            .iter()
            .map(|(leases, _)| {
                leases.iter().filter(|(id, fence)| !self.book.renew(*id, *fence, until)).map(|(id, _)| *id).collect()
            })
            .collect()
    }

    fn begin(
        &mut self,
        begins: &[(Uuid, Fence, Bytes, Reply<bool>)],
        step: i64,
        attempts: &mut Vec<(Lease, Bytes)>,
    ) -> Vec<bool> {
        let mut begin = |(id, fence, rendered, _): &(Uuid, Fence, Bytes, Reply<bool>)| {
            let holds = self.book.held(*id, *fence).is_some();
            if holds {
                self.book.begin(fence.row, step, rendered);
                attempts.push(((fence.row, fence.epoch), rendered.clone()));
            }
            holds
        };
        begins.iter().map(&mut begin).collect()
    }

    fn finish_jobs(
        &mut self,
        finishes: &[(Uuid, Fence, Finish, Reply<bool>)],
        now: UnixMillis,
        script: &mut Script,
    ) -> Vec<bool> {
        let mut verdicts = Vec::with_capacity(finishes.len());
        let (mut done, mut rendered, mut retries, mut dead) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut reports = Vec::with_capacity(finishes.len());
        let mut new = NewJobs::default();
        for (id, fence, finish, _) in finishes {
            let held = match finish {
                Finish::Retry { due, .. } => self.book.put_back(*id, *fence, (*due, now), true),
                Finish::Done { .. } => self.book.end(*id, *fence),
                Finish::Dead { .. } => self.book.end(*id, *fence).inspect(|held| self.book.counts(held.lane).dead += 1),
            };
            verdicts.push(held.is_some());
            let Some(held) = held else { continue };
            match finish {
                Finish::Done { .. } => {
                    done.push(fence.row);
                    if held.rendered {
                        rendered.push(fence.row);
                    }
                }
                Finish::Retry { due, rendered, .. } => retries.push((fence.row, fence.epoch, *due, rendered)),
                Finish::Dead { reason, rendered, .. } => {
                    dead.push((fence.row, held, reason.as_str(), rendered.as_ref()));
                }
            }
            let report = finish.report();
            reports.push(&report.told);
            if self.has_room(&report.jobs) {
                new.take(&mut self.book, &mut self.fresh, &report.jobs, now);
            } else {
                tracing::error!(delivery = %id, jobs = report.jobs.len(), "the inbox is full: an event starts nothing");
            }
        }
        if !done.is_empty() {
            script.remove(&done, &rendered);
        }
        if !retries.is_empty() {
            script.retry(&retries, now);
        }
        if !dead.is_empty() {
            script.bury(&dead, now);
            let numbers = &mut self.book.numbers;
            let over = now.saturating_add(self.limits.dead_retention_ms.max(SWEEP_PAUSE_MS));
            numbers.next_sweep = numbers.next_sweep.min(over);
        }
        self.report(&reports, script);
        new.write(script, now);
        verdicts
    }

    fn report(&mut self, reports: &[&Bytes], script: &mut Script) {
        if !reports.is_empty() {
            script.report(self.book.numbers.outbox_last, reports);
            self.book.numbers.outbox_last += i64::try_from(reports.len()).unwrap_or(0);
        }
    }

    fn postpone(
        &mut self,
        postpones: &[(Uuid, Fence, UnixMillis, Reply<bool>)],
        now: UnixMillis,
        script: &mut Script,
    ) -> Vec<bool> {
        let mut verdicts = Vec::with_capacity(postpones.len());
        let mut jobs = Vec::with_capacity(postpones.len());
        for (id, fence, due, _) in postpones {
            let held = self.book.put_back(*id, *fence, (*due, now), false);
            verdicts.push(held.is_some());
            jobs.extend(held.map(|held| (fence.row, held, *due)));
        }
        if !jobs.is_empty() {
            script.postpone(&jobs, now);
        }
        verdicts
    }

    /// Operators are rare: one job at a time.
    async fn steer(
        &mut self,
        steers: &[(Uuid, Fence, Steer, Reply<bool>)],
        now: UnixMillis,
        script: &mut Script,
    ) -> Result<Vec<bool>, sqlx::Error> {
        let mut verdicts = Vec::with_capacity(steers.len());
        let mut seen = HashSet::new();
        for (id, fence, steer, _) in steers {
            // Whoever else steers it in this group comes too late, as does whoever asks for what is worked on.
            let alone = self.book.lease_of(fence.row).is_none() && !seen.contains(&fence.row);
            let kept = if alone { self.store.kept(*id, *fence).await? } else { None };
            let steered = match (kept, steer) {
                (Some(kept @ Kept { place: Place::Delayed | Place::Dead, .. }), Steer::Retry { .. }) => {
                    script.make_due(fence.row, now);
                    self.book.make_due(fence.row, kept, now);
                    true
                }
                (Some(kept @ Kept { place: Place::Ready | Place::Delayed, .. }), Steer::Cancel { .. }) => {
                    script.remove(&[fence.row], &[fence.row]);
                    self.fresh.take(fence.row);
                    self.book.forget(fence.row, kept);
                    true
                }
                (None | Some(_), Steer::Retry { .. } | Steer::Cancel { .. }) => false,
            };
            if steered {
                seen.insert(fence.row);
                self.report(&[steer.report()], script);
            }
            verdicts.push(steered);
        }
        Ok(verdicts)
    }

    fn trim(&mut self, trims: &[(i64, Reply<bool>)], script: &mut Script) -> Vec<bool> {
        let numbers = &mut self.book.numbers;
        let wanted = trims.iter().map(|(up_to, _)| *up_to).max().unwrap_or(0).min(numbers.outbox_last);
        if wanted > numbers.outbox_trimmed {
            numbers.outbox_trimmed = wanted.min(numbers.outbox_trimmed.saturating_add(TRIM_ROWS));
            script.trim(numbers.outbox_trimmed);
        }
        let (last, trimmed) = (self.book.numbers.outbox_last, self.book.numbers.outbox_trimmed);
        trims.iter().map(|(up_to, _)| (*up_to).min(last) > trimmed).collect()
    }

    fn answers(&self, questions: &[(Question, Reply<Option<i64>>)]) -> Vec<Option<i64>> {
        let answer = |(question, _): &(Question, _)| match question {
            Question::OldestReady(lane) => self.book.flows.oldest(*lane),
            Question::LeasedAs(seq) => self.book.lease_of(*seq).map(|held| held.epoch),
        };
        questions.iter().map(answer).collect()
    }

    /// Takes what is granted and ready, in the order of acceptance.
    async fn lease(
        &mut self,
        grants: &[Grant],
        step: i64,
        now: UnixMillis,
        leases: &mut Vec<Lease>,
    ) -> Result<Vec<Leased>, sqlx::Error> {
        let mut room = LEASE_LIMIT;
        let (mut jobs, mut others) = (Vec::new(), Vec::new());
        for grant in grants {
            let first = grant.first.min(room);
            let granted = Grant { first, retries: grant.retries.min(room - first), ..*grant };
            let ready = self.book.grant(&granted);
            room -= ready.len();
            for ready in ready {
                match self.fresh.take(ready.seq) {
                    Some(job) => jobs.push(job),
                    None => others.push(ready.seq),
                }
            }
        }
        if !others.is_empty() {
            jobs.extend(self.store.jobs(&others).await?);
        }
        jobs.sort_by_key(|job| job.fence.row);
        let until = now.saturating_add(self.limits.lease_ms);
        for job in &jobs {
            self.book.take(job.fence.row, Held::of(job, step), until);
            leases.push((job.fence.row, job.fence.epoch));
        }
        Ok(jobs)
    }

    fn publish(&self, flows: Vec<(Lane, Waiting)>) {
        let numbers = &self.book.numbers;
        for (lane, version) in self.board.lanes.iter().zip(self.board.flows.show(flows)) {
            if let Some(version) = version {
                lane.send_replace(version);
            }
        }
        replace(&self.board.outbox, OutboxView { last: numbers.outbox_last, trimmed: numbers.outbox_trimmed });
        replace(&self.board.counts, numbers.counts);
    }
}

/// Wakes waiters only for news.
fn replace<T: PartialEq>(watch: &watch::Sender<T>, new: T) {
    watch.send_if_modified(|old| {
        let news = *old != new;
        *old = new;
        news
    });
}
