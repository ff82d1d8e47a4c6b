//! Requests on their way in: whether their keys are known, their jobs, and what is recorded of them.

use std::collections::HashMap;
use std::time::Duration;

use uuid::Uuid;

use super::super::super::fresh::Fresh;
use super::super::super::{Accept, Accepted, Flow, Lane, NewJob, REQUEST_MEMORY, bulk_share};
use super::super::book::Book;
use super::super::claims::{Key, Known, swept_at};
use super::super::flows::ReadyJob;
use super::super::group::Reply;
use super::super::script::Script;
use super::{ASK_FIRST, Committer, SWEEP_PAUSE_MS, millis};
use crate::clock::UnixMillis;

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
pub(super) struct NewJobs<'a> {
    jobs: Vec<(i64, i64, &'a NewJob)>,
    flows: Vec<(i64, Lane, &'a Flow)>,
}

impl<'a> NewJobs<'a> {
    pub(super) fn take(&mut self, book: &mut Book, fresh: &mut Fresh, jobs: &'a [NewJob], now: UnixMillis) {
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

    pub(super) fn write(&self, script: &mut Script, now: UnixMillis) {
        if !self.flows.is_empty() {
            script.add_flows(&self.flows);
        }
        if !self.jobs.is_empty() {
            script.add_jobs(&self.jobs, now);
        }
    }
}

impl Committer {
    /// What is known of the keys of these requests: here, or in the file. Most are new, and asking first would be a second way to the file
    /// and back: the script expects it of them.
    pub(super) async fn known(
        &mut self,
        accepts: &[(Accept, Reply<Accepted>)],
        script: &mut Script,
    ) -> Result<HashMap<Key, Known>, sqlx::Error> {
        let mut known = HashMap::with_capacity(accepts.len());
        let mut others = Vec::with_capacity(accepts.len());
        for (accept, _) in accepts {
            let (key, _) = key_of(accept);
            if let Some(claim) = self.book.claims.get(&key) {
                known.insert(key, claim);
            } else {
                others.push(key);
            }
        }
        if others.is_empty() {
            return Ok(known);
        }
        if self.asks_first > 0 {
            let found = self.store.known(&others).await?;
            if !found.is_empty() {
                self.asks_first = self.asks_first.max(ASK_FIRST);
            }
            known.extend(found);
        } else {
            script.expect_new(&others);
        }
        Ok(known)
    }

    /// Decides in order of arrival. `known` is what is known of their keys.
    pub(super) async fn accept(
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
        if self.limits.fault == Some(super::super::super::Fault::KeyBeforeJobs) && !changed.is_empty() {
            let mut keys = Script::default();
            keys.move_keys(&changed);
            self.store.commit(keys).await?;
            tokio::time::sleep(super::super::FAULT_DELAY).await;
        }
        new.write(script, now);
        if !changed.is_empty() {
            self.claim(changed, now, script);
        }
        Ok(answers)
    }

    fn claim(&mut self, keys: Vec<(Key, Known)>, now: UnixMillis, script: &mut Script) {
        let step = self.book.claims.add(keys, now);
        script.claim(step.row, self.book.claims.coming());
        if let Some(first) = step.moved.iter().map(|(_, known)| known.exp).min() {
            script.move_keys(&step.moved);
            let numbers = &mut self.book.numbers;
            numbers.next_sweep = numbers.next_sweep.min(swept_at(first).max(now.saturating_add(SWEEP_PAUSE_MS)));
        }
        if let Some(over) = step.over {
            script.forget_claims(over);
        }
    }

    pub(super) fn has_room(&self, jobs: &[NewJob]) -> bool {
        let bulk = jobs.iter().filter(|job| job.lane == Lane::Bulk).count() as u64;
        let max_jobs = self.limits.max_jobs;
        let fits = self.book.live() + jobs.len() as u64 <= max_jobs;
        let shares = bulk == 0 || self.book.live_in(Lane::Bulk) + bulk <= bulk_share(max_jobs);
        jobs.is_empty() || (fits && shares)
    }
}
