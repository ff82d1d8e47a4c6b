//! The one writer: takes a first command and whatever is already waiting, does it all in one transaction, and answers
//! everybody after the fsync. A busy inbox makes large groups by itself, an idle one answers at once. Where an fsync takes long, a group
//! waits a moment for senders who were answered just now, if they are back soon ([`Pace`]).
//!
//! A dropped reply is the answer "unavailable", so a group that failed is answered by forgetting it.

use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

#[cfg(feature = "fault-injection")]
use super::super::Fault;
use super::super::board::FlowBoard;
use super::super::fresh::Fresh;
use super::super::life::Life;
use super::super::pace::Pace;
use super::super::{Fence, Finish, Lane, Place, Steer, Waiting};
use super::book::{Book, Counts};
use super::group::{Answers, Command, Group, Leases, Question, Reply};
use super::log::Log;
use super::pack::Lease;
use super::script::Script;
use super::store::{Kept, Store, is_not_new};
use crate::clock::{Clock, UnixMillis};

mod accepting;
mod leasing;
mod trouble;
mod wake;

use accepting::NewJobs;
use trouble::Trouble;

/// Groups whose keys are looked for before they are written, after the last one that had a key which was not new.
const ASK_FIRST: u32 = 64;
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
    pub(super) fault: Option<Fault>,
}

impl Limits {
    /// For how many groups the file is asked first. A bug in what comes before the commit is not to be hidden by a second attempt.
    fn asks_first(self) -> u32 {
        #[cfg(feature = "fault-injection")]
        if let Some(Fault::KeyBeforeJobs | Fault::AnswerBeforeCommit) = self.fault {
            return u32::MAX;
        }
        0
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Owns the writer connection and the lock on the file.
pub(super) struct Committer {
    store: Store,
    log: Log,
    book: Book,
    fresh: Fresh,
    clock: Clock,
    limits: Limits,
    board: Board,
    commands: mpsc::Receiver<Command>,
    lock: File,
    /// Leases that were given and are not in the file yet: the next transaction writes them.
    given: Vec<Lease>,
    pace: Pace,
    /// For so many groups.
    asks_first: u32,
    /// After a failed group nothing is tried again before this without being asked.
    rest_until: UnixMillis,
}

impl Committer {
    pub(super) fn new(
        (store, log): (Store, Log),
        book: Book,
        clock: Clock,
        limits: Limits,
        board: Board,
        commands: mpsc::Receiver<Command>,
        lock: File,
    ) -> Self {
        let rest_until = UnixMillis::MIN;
        let (fresh, given, pace) = (Fresh::new(1), Vec::new(), Pace::default());
        let mut committer = Self {
            store,
            log,
            book,
            fresh,
            clock,
            limits,
            board,
            commands,
            lock,
            given,
            pace,
            asks_first: limits.asks_first(),
            rest_until,
        };
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
                    Some(command) => {
                        self.gather(&mut group, command).await;
                        if group.ops == 0 {
                            continue;
                        }
                    }
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

    /// Adds what is already waiting, and waits for those who were answered just now where that is faster.
    async fn gather(&mut self, group: &mut Group, first: Command) {
        self.add(group, first);
        self.take_waiting(group);
        let Some((expected, patience)) = self.pace.expects() else { return };
        let over = tokio::time::sleep(patience);
        tokio::pin!(over);
        let mut waited = false;
        while group.has_accepts_alone() && group.accepts.len() < expected && !group.is_full() {
            waited = true;
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.add(group, command),
                    None => return,
                },
                () = &mut over => return self.pace.in_vain(),
            }
            self.take_waiting(group);
        }
        if waited && group.has_accepts_alone() {
            self.pace.gathered();
        }
    }

    fn take_waiting(&mut self, group: &mut Group) {
        while !group.is_full()
            && let Ok(command) = self.commands.try_recv()
        {
            self.add(group, command);
        }
    }

    /// Adds a command to the group. A lease that needs nothing of the file waits for no commit.
    fn add(&mut self, group: &mut Group, command: Command) {
        match command {
            Command::Lease(grants, reply) if self.are_fresh(&grants) => self.lease_at_once(&grants, reply),
            other => group.push(other),
        }
    }

    /// Lets go of file and lock, then says so.
    async fn finish(mut self, close: Option<Reply<()>>) {
        self.commands.close();
        self.log.rest().await;
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
        let (began, bytes) = (Instant::now(), group.bytes);
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
        self.pace.committed(group.accepts.len(), self.commands.len(), began.elapsed());
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
        if self.log.wrote(bytes).await {
            self.move_log().await;
        }
        self.pace.answered();
        woken.or_else(|error| self.pass(error, 0))
    }

    /// What is not moved now is moved later, and so is the cause if it lasts.
    async fn move_log(&mut self) {
        if let Err(error) = self.store.move_log().await {
            tracing::warn!(error = %error, "the rest of the inbox's log could not be moved into its file");
        }
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
        let mut result = self.attempt(group).await;
        if self.asks_first == 0 && result.as_ref().is_err_and(is_not_new) {
            self.undo();
            self.asks_first = ASK_FIRST;
            result = self.attempt(group).await;
        }
        if !group.accepts.is_empty() {
            self.asks_first = self.asks_first.saturating_sub(1);
        }
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
            self.undo();
            self.rest_until = self.clock.now().saturating_add(SWEEP_PAUSE_MS);
        }
    }

    fn undo(&mut self) {
        self.fresh.rollback();
        self.book.rollback();
    }

    /// Jobs are leased first: what else the group does to jobs is not yet in the file.
    async fn attempt(&mut self, group: &mut Group) -> Result<Answers, sqlx::Error> {
        let now = self.clock.now();
        let step = self.book.numbers.next_step;
        let mut script = Script::default();
        let in_force = |(seq, epoch): &Lease| self.book.lease_of(*seq).is_some_and(|held| held.epoch == *epoch);
        self.given.retain(in_force);
        let mut new_leases = Vec::new();
        let mut leases = Vec::with_capacity(group.leases.len());
        for (grants, _) in &group.leases {
            leases.push(self.lease(grants, step, now, &mut new_leases).await?);
        }
        let known = self.known(&group.accepts, &mut script).await?;
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
        if !new_leases.is_empty() || !new_attempts.is_empty() || (!script.is_empty() && !self.given.is_empty()) {
            self.book.numbers.next_step += 1;
            new_leases.extend(&self.given);
            script.work(step, &new_leases, &new_attempts);
        }
        let over = self.book.steps_over();
        if !over.is_empty() {
            script.forget_steps(&over);
        }
        #[cfg(feature = "fault-injection")]
        if self.limits.fault == Some(Fault::AnswerBeforeCommit) && !group.accepts.is_empty() {
            for ((_, reply), answer) in group.accepts.drain(..).zip(answers.accepts.drain(..)) {
                let _nobody_waits = reply.send(answer);
            }
            tokio::time::sleep(super::FAULT_DELAY).await;
        }
        #[cfg(feature = "fault-injection")]
        group.end_if_asked(self.limits.fault);
        if !script.is_empty() {
            self.store.commit(script).await?;
            self.given.clear();
        }
        self.book.forget_steps(&over);
        Ok(std::mem::take(&mut answers))
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
