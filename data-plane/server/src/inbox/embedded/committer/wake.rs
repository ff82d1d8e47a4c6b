//! What happens with time alone, when nobody asks.

use super::super::super::{LEASE_LIMIT, Lane};
use super::super::script::Script;
use super::super::store::Due;
use super::{Committer, SWEEP_PAUSE_MS};
use crate::clock::UnixMillis;

impl Committer {
    /// What becomes so with time alone, in a transaction of its own after the group's: leases that ran out and jobs that are due are ready, and a
    /// batch of what is over is forgotten.
    pub(super) async fn wake_up(&mut self) -> Result<(), sqlx::Error> {
        let now = self.clock.now();
        let due = Lane::ALL.map(|lane| self.book.numbers.next_due[lane.index()].is_some_and(|due| due <= now));
        let swept = now >= self.book.numbers.next_sweep;
        if due == [false; 2] && !swept && !self.book.has_expired(now) {
            return Ok(());
        }
        let mut script = Script::default();
        for lane in Lane::ALL {
            let expired = self.book.expire(lane, now, LEASE_LIMIT);
            if !expired.is_empty() {
                tracing::warn!(jobs = expired.len(), lane = ?lane, "leases ran out");
                script.release(&expired, now);
            }
            if due[lane.index()] {
                self.promote(lane, now, &mut script).await?;
            }
        }
        if swept {
            self.sweep(now, &mut script).await?;
        }
        let over = self.book.steps_over();
        if !over.is_empty() {
            script.forget_steps(&over);
        }
        if !script.is_empty() {
            self.store.commit(script).await?;
        }
        self.book.forget_steps(&over);
        for lane in Lane::ALL.into_iter().filter(|lane| due[lane.index()]) {
            self.book.numbers.next_due[lane.index()] = self.store.next_due(lane).await?;
        }
        if swept {
            self.plan_sweep(now).await?;
        }
        Ok(())
    }

    async fn promote(&mut self, lane: Lane, now: UnixMillis, script: &mut Script) -> Result<(), sqlx::Error> {
        let due = self.store.due(lane, now).await?;
        if !due.is_empty() {
            let seqs: Vec<i64> = due.iter().map(|due| due.job.seq).collect();
            script.promote(&seqs);
        }
        for Due { flow, retry, job } in due {
            self.book.promote(lane, flow, retry, job);
        }
        Ok(())
    }

    /// Forgets a batch of what is over.
    async fn sweep(&mut self, now: UnixMillis, script: &mut Script) -> Result<(), sqlx::Error> {
        let over = self.store.over(now, now.saturating_sub(self.limits.dead_retention_ms)).await?;
        script.sweep(&over, now);
        for lane in Lane::ALL {
            let counts = self.book.counts(lane);
            counts.dead = counts.dead.saturating_sub(over.dead[lane.index()]);
        }
        // `UnixMillis::MIN`: at once, whatever the file says.
        self.book.numbers.next_sweep = if over.is_full() { UnixMillis::MIN } else { UnixMillis::MAX };
        Ok(())
    }

    async fn plan_sweep(&mut self, now: UnixMillis) -> Result<(), sqlx::Error> {
        if self.book.numbers.next_sweep == UnixMillis::MAX {
            let (key, dead) = self.store.first_over().await?;
            let dead = dead.map(|at| at.saturating_add(self.limits.dead_retention_ms));
            let next = key.into_iter().chain(dead).min().unwrap_or(UnixMillis::MAX);
            self.book.numbers.next_sweep = next.max(now.saturating_add(SWEEP_PAUSE_MS));
        }
        Ok(())
    }
}
