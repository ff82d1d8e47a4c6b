//! One step of a shard: what it asks, what it is answered, and whom that concerns.

use std::time::Duration;

use tokio::time::Instant;

use super::super::super::bulk_share;
use super::super::arguments::Arguments;
use super::super::ask::{Answer, Ask};
use super::super::link::{ANSWER_DEADLINE, Link, Trouble};
use super::super::scripts::Script;
use super::super::value::{int, list};
use super::{Call, SLEEP_MAX, Shard};
use crate::clock::UnixMillis;

/// What a step has done.
pub(super) struct Done {
    /// When, by the store's clock.
    now: UnixMillis,
    version: i64,
    pub(super) answers: Vec<::redis::Value>,
}

impl Shard {
    /// One script call, and its answers. What was lost on the way and is safe to repeat is repeated once.
    pub(super) async fn step(&mut self, link: &mut Link, calls: Vec<Call>) -> Result<(), Trouble> {
        let (calls, script) = self.prepare(link, calls).await?;
        let is_moving = link.is_moving();
        let answer = link.run(script, |to| self.say(&calls, is_moving, to)).await;
        self.finish(link, calls, script, answer).await
    }

    /// What is really asked, and with which script.
    #[cfg_attr(not(feature = "fault-injection"), expect(clippy::unused_async, reason = "faults take time"))]
    pub(super) async fn prepare(
        &mut self,
        link: &mut Link,
        mut calls: Vec<Call>,
    ) -> Result<(Vec<Call>, Script), Trouble> {
        // Who stopped waiting gets no jobs.
        calls.retain(|call| {
            !matches!(call.ask, Ask::Lease { .. }) || call.reply.as_ref().is_some_and(|to| !to.is_closed())
        });
        #[cfg(feature = "fault-injection")]
        self.misbehave(link, &mut calls).await?;
        #[cfg(not(feature = "fault-injection"))]
        let _ = link;
        let accepts = calls.iter().any(|call| matches!(call.ask, Ask::Accept(_)));
        Ok((calls, if accepts { Script::Step } else { Script::Relief }))
    }

    /// What the step was answered.
    pub(super) async fn finish(
        &mut self,
        link: &mut Link,
        mut calls: Vec<Call>,
        script: Script,
        answer: Result<::redis::Value, ::redis::RedisError>,
    ) -> Result<(), Trouble> {
        let done = match self.read(answer, calls.len()) {
            Err(Trouble::NoMemory) if script == Script::Step => {
                // What makes room is done without what takes it.
                calls.retain(|call| !matches!(call.ask, Ask::Accept(_)));
                tracing::warn!(shard = self.number, "the store has no memory left: nothing is accepted");
                self.ask(link, Script::Relief, &calls).await
            }
            done => done,
        };
        #[cfg(feature = "fault-injection")]
        self.end_if_asked(&calls);
        let done = match done {
            Ok(done) => done,
            Err(trouble) => {
                match trouble {
                    Trouble::Lost(_) => self.keep_for_repetition(calls),
                    Trouble::Moved(_) => self.keep_untouched(calls),
                    Trouble::Refused(_) | Trouble::NoMemory | Trouble::StoreChanged | Trouble::Superseded => {}
                }
                return Err(trouble);
            }
        };
        let promises = calls.iter().any(|call| call.ask.is_promise());
        let kept = if promises { link.flushed(self.settings.durability).await } else { Ok(()) };
        if kept.is_ok() && (promises || !self.settings.durability.waits()) {
            self.version = done.version;
        }
        self.answer(calls, done, kept.is_ok());
        kept
    }

    /// Nothing of it was done. What the plane asks by itself it asks again by itself.
    pub(super) fn keep_untouched(&mut self, calls: Vec<Call>) {
        let kept = |call: &Call| call.reply.is_some() || matches!(call.ask, Ask::Postpone { .. });
        self.repeat.extend(calls.into_iter().filter(kept));
    }

    fn keep_for_repetition(&mut self, calls: Vec<Call>) {
        let repeatable =
            |call: &Call| matches!(call.ask, Ask::Accept(_)) && !call.again && call.since.elapsed() < ANSWER_DEADLINE;
        self.repeat.extend(calls.into_iter().filter(repeatable).map(|call| Call { again: true, ..call }));
    }

    pub(super) async fn ask(&mut self, link: &mut Link, script: Script, calls: &[Call]) -> Result<Done, Trouble> {
        let is_moving = link.is_moving();
        let answer = link.run(script, |to| self.say(calls, is_moving, to)).await;
        self.read(answer, calls.len())
    }

    pub(super) fn say(&self, calls: &[Call], is_moving: bool, to: &mut Arguments) {
        to.word(self.clock.set_by_hand().map(|now| now.to_string()).unwrap_or_default());
        to.word(&self.identity.store).word(&self.settings.plane).digits(self.identity.opened);
        to.number(self.version).number(self.number).number(self.settings.lease.as_millis());
        let quota = self.settings.max_jobs / u64::from(self.settings.shards);
        to.number(self.settings.dead_retention.as_millis()).number(quota).number(bulk_share(quota));
        to.number(u8::from(is_moving));
        to.words(calls.iter().flat_map(|call| call.ask.rows()).map(|row| row.to_string()));
        to.words(calls.iter().filter_map(|call| call.ask.claims()));
        to.word(self.fresh.oldest().map(|row| row.to_string()).unwrap_or_default());
        calls.iter().for_each(|call| call.ask.write(to, self.offset));
    }

    /// What a script said to so many questions, without their answers.
    fn read(&mut self, answer: Result<::redis::Value, ::redis::RedisError>, asked: usize) -> Result<Done, Trouble> {
        let answer = answer.map_err(|error| Trouble::of(&error))?;
        let unexpected = || Trouble::Refused("a script answered something unexpected".to_owned());
        let fields = list(answer).and_then(|fields| <[_; 7]>::try_from(fields).ok());
        let [now, version, next_at, trimmed, last, news, answers] = fields.ok_or_else(unexpected)?;
        let number = |value| int(value).ok_or_else(unexpected);
        let (now, version) = (number(&now)?, number(&version)?);
        self.plan(now, number(&next_at)?);
        if let ::redis::Value::BulkString(news) = &news
            && !news.is_empty()
        {
            self.take_news(news, true);
        }
        let (trimmed, last) = (number(&trimmed)?, number(&last)?);
        self.show_reports(trimmed, last);
        let answers = list(answers).filter(|answers| answers.len() == asked).ok_or_else(unexpected)?;
        Ok(Done { now, version, answers })
    }

    fn answer(&mut self, calls: Vec<Call>, done: Done, kept: bool) {
        for (call, value) in calls.into_iter().zip(done.answers) {
            let Some(answer) = call.ask.read(value, done.now, &mut self.fresh) else {
                tracing::error!(shard = self.number, "a script answered something unexpected");
                continue;
            };
            if call.ask.is_promise() && !kept {
                continue;
            }
            if let Answer::LeasedInPart(jobs, unknown) = answer {
                self.repeat.push(Call { ask: Ask::Read(jobs, unknown), ..call });
                continue;
            }
            if matches!((&call.ask, &answer), (Ask::Here { .. }, Answer::More(true))) {
                self.here_at = Instant::now();
            }
            let untaken = match call.reply {
                Some(reply) => reply.send(answer).err(),
                None => None,
            };
            // Nobody took them: they are given back with the next step, which is at once.
            if let Some(Answer::Leased(jobs)) = untaken {
                let back = jobs.into_iter().map(|job| Ask::Postpone { id: job.id, fence: job.fence, due: 0 });
                self.repeat.extend(back.map(|ask| Call::new(ask, None)));
            }
        }
    }

    /// When to take a step that nobody asks for. Times are the store's.
    fn plan(&mut self, now: i64, next_at: i64) {
        let wait = next_at.saturating_sub(now).max(0).unsigned_abs();
        self.wake_at = (next_at > 0).then(|| Instant::now() + Duration::from_millis(wait).min(SLEEP_MAX));
    }
}
