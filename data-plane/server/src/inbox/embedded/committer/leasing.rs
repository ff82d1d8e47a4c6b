//! How jobs are leased: at once where the file need not be asked or told first, otherwise with the group.

use super::super::super::{Grant, LEASE_LIMIT, Leased};
use super::super::book::Held;
use super::super::group::Reply;
use super::super::pack::Lease;
use super::Committer;
use crate::clock::UnixMillis;

impl Committer {
    /// Whether all that these grants take was written by this process and was never leased.
    pub(super) fn are_fresh(&self, grants: &[Grant]) -> bool {
        let is_fresh = |grant: &Grant| {
            let heads = self.book.flows.heads(grant.flow.0);
            grant.takes_in_order() && heads.take(grant.first).all(|job| self.fresh.holds(job.seq))
        };
        let jobs: usize = grants.iter().map(|grant| grant.first).sum();
        (1..=LEASE_LIMIT).contains(&jobs) && grants.iter().all(is_fresh)
    }

    /// Leases jobs of which the file need not say yet that they are leased: it says so with the attempt that begins. If the process
    /// ends before, they are ready as if nothing had happened, and nothing has.
    pub(super) fn lease_at_once(&mut self, grants: &[Grant], reply: Reply<Vec<Leased>>) {
        // Who stopped waiting gets no jobs.
        if reply.is_closed() {
            return;
        }
        let (mut jobs, _none_of_the_file) = self.granted(grants);
        jobs.sort_by_key(|job| job.fence.row);
        let mut given = std::mem::take(&mut self.given);
        self.hold(&jobs, self.book.numbers.next_step, self.clock.now(), &mut given);
        self.given = given;
        self.settle(&Ok(()));
        for job in reply.send(jobs).err().into_iter().flatten() {
            self.book.abandon(job.id, job.fence);
        }
    }

    /// Takes what is granted and ready, in the order of acceptance.
    pub(super) async fn lease(
        &mut self,
        grants: &[Grant],
        step: i64,
        now: UnixMillis,
        leases: &mut Vec<Lease>,
    ) -> Result<Vec<Leased>, sqlx::Error> {
        let (mut jobs, others) = self.granted(grants);
        if !others.is_empty() {
            jobs.extend(self.store.jobs(&others).await?);
        }
        jobs.sort_by_key(|job| job.fence.row);
        self.hold(&jobs, step, now, leases);
        Ok(jobs)
    }

    /// What is granted and ready: jobs, and the numbers of those that are in the file alone.
    fn granted(&mut self, grants: &[Grant]) -> (Vec<Leased>, Vec<i64>) {
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
        (jobs, others)
    }

    /// Their leases are in force, and named by this row of `work`.
    fn hold(&mut self, jobs: &[Leased], step: i64, now: UnixMillis, leases: &mut Vec<Lease>) {
        let until = now.saturating_add(self.limits.lease_ms);
        for job in jobs {
            self.book.take(job.fence.row, Held::of(job, step), until);
            leases.push((job.fence.row, job.fence.epoch));
        }
    }
}
