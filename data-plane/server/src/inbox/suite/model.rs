//! What an inbox means, as a program in memory: one `Model`, and random steps that are taken by it and by a backend. Whatever a backend
//! answers or holds differently is told as a difference. A crash is a step like any other.
//!
//! A step of the inbox that may take one of several jobs is decided by the backend; the model says whether it may.

use std::collections::{BTreeMap, HashMap};

use super::*;

/// The name and the text of a bug for a backend to have, and what stands there without it.
pub(super) type Sabotage = (&'static str, &'static str, &'static str);

const MAX_JOBS: u64 = 12;
/// Destinations, dedup keys.
const FLOWS: u64 = 3;
const KEYS: u64 = 4;

#[derive(Clone, Debug)]
enum At {
    Ready,
    Leased { fence: Fence, until: UnixMillis },
    Delayed { due: UnixMillis },
    Dead,
}

impl At {
    fn place(&self) -> Place {
        match self {
            Self::Ready => Place::Ready,
            Self::Leased { .. } => Place::Leased,
            Self::Delayed { .. } => Place::Delayed,
            Self::Dead => Place::Dead,
        }
    }
}

#[derive(Clone, Debug)]
struct Kept {
    new: NewJob,
    at: At,
    attempts: u32,
    /// Leases in a row that ended without a word.
    silent: u32,
    /// How many it ever had.
    leases: u32,
    /// Its first lease ended with the process: the file may know nothing of it, as nothing was sent.
    unknown: bool,
    begun: bool,
    ambiguous: bool,
    rendered: Option<Bytes>,
    accepted_at: UnixMillis,
    /// The greatest number its fences had.
    order: i64,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    request: Uuid,
    until: UnixMillis,
}

/// An inbox.
#[derive(Debug, Default)]
struct Model {
    now: UnixMillis,
    keys: HashMap<[u8; 32], Known>,
    requests: HashMap<Uuid, UnixMillis>,
    jobs: BTreeMap<Uuid, Kept>,
    outbox: Vec<(i64, Bytes)>,
    told: i64,
    /// A first lease may be given before the store knows of it.
    trusts_first_leases: bool,
}

impl Model {
    fn live(&self) -> u64 {
        self.jobs.values().filter(|job| job.at.place() != Place::Dead).count() as u64
    }

    /// Whether a request is a repetition or a duplicate now: one that comes again when it is forgotten brings ids that are in use.
    fn knows(&self, accept: &Accept) -> bool {
        let until = match accept.claim {
            Some(claim) => self.keys.get(&claim.key).map(|known| known.until),
            None => self.requests.get(&accept.request).copied(),
        };
        until.is_some_and(|until| self.now < until)
    }

    fn has_room(&self, jobs: &[NewJob]) -> bool {
        let is_large = |lane: Lane| lane == Lane::Bulk;
        let large = jobs.iter().filter(|job| is_large(job.lane)).count() as u64;
        let kept =
            self.jobs.values().filter(|job| is_large(job.new.lane) && job.at.place() != Place::Dead).count() as u64;
        let shares = large == 0 || kept + large <= bulk_share(MAX_JOBS);
        jobs.is_empty() || (shares && self.live() + jobs.len() as u64 <= MAX_JOBS)
    }

    fn enqueue(&mut self, jobs: &[NewJob]) {
        for new in jobs {
            let kept = Kept {
                new: new.clone(),
                at: At::Ready,
                attempts: 0,
                silent: 0,
                leases: 0,
                unknown: false,
                begun: false,
                ambiguous: false,
                rendered: None,
                accepted_at: self.now,
                order: i64::MIN,
            };
            self.jobs.insert(new.id, kept);
        }
    }

    fn tell(&mut self, report: &Bytes) {
        self.told += 1;
        self.outbox.push((self.told, report.clone()));
    }

    fn accept(&mut self, accept: &Accept) -> Accepted {
        let known = match accept.claim {
            Some(claim) => self.keys.get(&claim.key).copied(),
            None => self.requests.get(&accept.request).map(|until| Known { request: accept.request, until: *until }),
        };
        let earlier = known.filter(|known| self.now < known.until);
        if earlier.is_none() && !self.has_room(&accept.jobs) {
            return Accepted::Full;
        }
        let request = earlier.map_or(accept.request, |known| known.request);
        match accept.claim {
            Some(Claim { key, window }) => {
                let until = self.now + window.as_millis() as i64;
                self.keys.insert(key, Known { request, until });
            }
            None => {
                self.requests.insert(request, self.now + REQUEST_MEMORY.as_millis() as i64);
            }
        }
        if earlier.is_none() {
            self.enqueue(&accept.jobs);
        }
        if request == accept.request { Accepted::Accepted } else { Accepted::Duplicate }
    }

    /// The job if this lease of it is in force.
    fn held(&mut self, id: Uuid, fence: Fence) -> Option<&mut Kept> {
        self.jobs.get_mut(&id).filter(|job| matches!(&job.at, At::Leased { fence: now, .. } if *now == fence))
    }

    fn begin(&mut self, id: Uuid, fence: Fence, bytes: &Bytes) -> Result<(), LeaseError> {
        let job = self.held(id, fence).ok_or(LeaseError::Fenced)?;
        job.begun = true;
        job.rendered.get_or_insert_with(|| bytes.clone());
        Ok(())
    }

    fn postpone(&mut self, id: Uuid, fence: Fence, due: UnixMillis) -> Result<(), LeaseError> {
        let now = self.now;
        let job = self.held(id, fence).ok_or(LeaseError::Fenced)?;
        job.begun = false;
        job.at = if due <= now { At::Ready } else { At::Delayed { due } };
        Ok(())
    }

    fn finish(&mut self, id: Uuid, fence: Fence, finish: &Finish) -> Result<(), LeaseError> {
        let now = self.now;
        let job = self.held(id, fence).ok_or(LeaseError::Fenced)?;
        match finish {
            Finish::Done { .. } => {
                self.jobs.remove(&id);
            }
            Finish::Retry { due, rendered, .. } => {
                job.rendered = Some(rendered.clone());
                job.attempts += 1;
                (job.silent, job.unknown, job.begun, job.ambiguous) = (0, false, false, false);
                job.at = if *due <= now { At::Ready } else { At::Delayed { due: *due } };
            }
            Finish::Dead { rendered, .. } => {
                if let Some(rendered) = rendered {
                    job.rendered = Some(rendered.clone());
                }
                if job.begun {
                    job.attempts += 1;
                    (job.begun, job.ambiguous) = (false, false);
                }
                job.at = At::Dead;
            }
        }
        let report = finish.report();
        self.tell(&report.told);
        if self.has_room(&report.jobs) {
            self.enqueue(&report.jobs);
        }
        Ok(())
    }

    fn steer(&mut self, id: Uuid, steer: &Steer) -> Result<(), LeaseError> {
        let job = self.jobs.get_mut(&id).ok_or(LeaseError::Fenced)?;
        match (steer, job.at.place()) {
            (Steer::Retry { .. }, Place::Delayed | Place::Dead) => {
                (job.silent, job.unknown) = (0, false);
                job.at = At::Ready;
            }
            (Steer::Cancel { .. }, Place::Ready | Place::Delayed) => {
                self.jobs.remove(&id);
            }
            (Steer::Retry { .. }, Place::Ready | Place::Leased)
            | (Steer::Cancel { .. }, Place::Leased | Place::Dead) => {
                return Err(LeaseError::Fenced);
            }
        }
        self.tell(steer.report());
        Ok(())
    }

    /// A lease ended without a word.
    fn let_go(job: &mut Kept) {
        job.silent += 1;
        job.ambiguous |= std::mem::take(&mut job.begun);
        job.at = At::Ready;
    }

    /// What is so with time alone.
    fn wake(&mut self) {
        for job in self.jobs.values_mut() {
            match job.at {
                At::Leased { until, .. } if until <= self.now => Self::let_go(job),
                At::Delayed { due } if due <= self.now => job.at = At::Ready,
                At::Ready | At::Leased { .. } | At::Delayed { .. } | At::Dead => {}
            }
        }
    }

    fn crash(&mut self) {
        for job in self.jobs.values_mut().filter(|job| job.at.place() == Place::Leased) {
            if self.trusts_first_leases && job.leases == 1 && !job.begun {
                (job.unknown, job.order) = (true, job.order - 1);
            }
            Self::let_go(job);
        }
    }

    fn ready(&self, lane: Lane, flow: &Flow, retry: bool) -> usize {
        let of = |job: &&Kept| job.new.lane == lane && *job.new.flow == *flow && (job.attempts > 0) == retry;
        self.jobs.values().filter(of).filter(|job| job.at.place() == Place::Ready).count()
    }

    /// Takes over that these were leased, if they may have been: of each flow and kind, how many were asked for.
    fn lease(&mut self, lane: Lane, asked: &[(Waiting, usize, usize)], given: &[Leased]) -> Result<(), String> {
        for (waiting, first, retries) in asked {
            for (retry, most) in [(false, *first), (true, *retries)] {
                let of = |job: &&Leased| job.flow == waiting.id && (job.attempt > 0) == retry;
                let (got, wanted) = (given.iter().filter(of).count(), self.ready(lane, &waiting.flow, retry).min(most));
                same(&format!("jobs leased of {:?}, retries {retry}", waiting.flow), &got, &wanted)?;
            }
        }
        for leased in given {
            let job = self.jobs.get_mut(&leased.id).ok_or_else(|| format!("{} was leased and is gone", leased.id))?;
            same("place of a leased job", &job.at.place(), &Place::Ready)?;
            if job.unknown && job.silent == MAX_LEASES && !leased.poisoned {
                (job.unknown, job.silent) = (false, job.silent - 1);
            }
            job.leases += 1;
            let expected = Leased {
                id: leased.id,
                lane: job.new.lane,
                flow: leased.flow,
                payload: job.new.payload.clone(),
                attempt: job.attempts,
                rendered: job.rendered.clone(),
                ambiguous: job.ambiguous,
                poisoned: job.silent >= MAX_LEASES,
                fence: leased.fence,
                accepted_at: job.accepted_at,
            };
            same("leased job", leased, &expected)?;
            if leased.fence.order() <= job.order {
                return Err(format!("{}: the fence does not grow", leased.id));
            }
            job.order = leased.fence.order();
            job.at = At::Leased { fence: leased.fence, until: self.now + LEASE };
        }
        Ok(())
    }

    fn stats(&self) -> [(u64, u64, u64, u64); 2] {
        Lane::ALL.map(|lane| {
            let count = |place| {
                let here = |job: &&Kept| job.new.lane == lane && job.at.place() == place;
                self.jobs.values().filter(here).count() as u64
            };
            (count(Place::Ready), count(Place::Leased), count(Place::Delayed), count(Place::Dead))
        })
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, backend: &T, model: &T) -> Result<(), String> {
    if backend == model { Ok(()) } else { Err(format!("{what}: {backend:?} instead of {model:?}")) }
}

/// Small, seeded, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// A backend and its model, side by side.
struct Pair {
    bench: Bench,
    model: Model,
    dice: Dice,
    /// Requests to repeat.
    asked: Vec<Accept>,
    /// Leases that were given, in force or not.
    given: Vec<Leased>,
    bytes: u64,
}

impl Pair {
    fn jobs(&mut self, most: u64) -> Vec<NewJob> {
        let count = self.dice.below(most + 1);
        let mut one = || {
            let lane = Lane::ALL[self.dice.below(4) as usize / 3];
            job_of(lane, &format!("{}.example.com", self.dice.below(FLOWS)))
        };
        (0..count).map(|_| one()).collect()
    }

    fn bytes(&mut self) -> Bytes {
        self.bytes += 1;
        Bytes::from(format!("bytes-{}", self.bytes))
    }

    fn due(&mut self) -> UnixMillis {
        self.model.now + self.dice.below(90_000) as i64 - 30_000
    }

    async fn step(&mut self) -> Result<(), String> {
        match self.dice.below(20) {
            0..=4 => self.accept().await,
            5..=8 => self.lease().await,
            9..=13 => self.work().await,
            14 => self.renew().await,
            15 => self.steer().await,
            16 => self.trim().await,
            17 | 18 => {
                let moved = (self.dice.below(2) * LEASE as u64 / 2 + self.dice.below(LEASE as u64)) as i64;
                self.bench.clock.advance(moved);
                self.model.now += moved;
                // Any step has what became so with time.
                self.bench.inbox.lease(Vec::new()).await.map_err(|error| error.to_string())?;
                self.model.wake();
                Ok(())
            }
            _ if self.dice.below(4) == 0 => {
                self.bench.crash().await;
                self.model.crash();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn accept(&mut self) -> Result<(), String> {
        let earlier = self.dice.below(1 + 4 * self.asked.len() as u64) as usize;
        let accept = if let Some(accept) = self.asked.get(earlier).filter(|accept| self.model.knows(accept)) {
            accept.clone()
        } else {
            let claim = (self.dice.below(2) == 0).then(|| {
                let window = Duration::from_millis(10_000 + self.dice.below(100_000));
                Claim { key: [self.dice.below(KEYS) as u8; 32], window }
            });
            request(claim, self.jobs(3))
        };
        let answer = self.bench.inbox.accept(accept.clone()).await.map_err(|error| error.to_string())?;
        same("answer to a request", &answer, &self.model.accept(&accept))?;
        self.asked.push(accept);
        Ok(())
    }

    async fn lease(&mut self) -> Result<(), String> {
        let lane = Lane::ALL[self.dice.below(2) as usize];
        let mut asked = Vec::new();
        for flow in self.bench.flows(lane).await {
            asked.push((flow, self.dice.below(3) as usize, self.dice.below(3) as usize));
        }
        let grants = asked.iter().map(|(flow, first, retries)| Grant::any(flow.id, *first, *retries)).collect();
        let given = self.bench.inbox.lease(grants).await.map_err(|error| error.to_string())?;
        self.model.lease(lane, &asked, &given)?;
        self.given.extend(given);
        Ok(())
    }

    /// Something is said about a lease that was given, whether it is in force or not.
    async fn work(&mut self) -> Result<(), String> {
        if self.given.is_empty() {
            return Ok(());
        }
        let at = self.dice.below(self.given.len() as u64) as usize;
        let (id, fence) = (self.given[at].id, self.given[at].fence);
        let (bytes, due) = (self.bytes(), self.due());
        let inbox = &self.bench.inbox;
        let (said, expected) = match self.dice.below(6) {
            0 | 1 => (inbox.begin(id, fence, bytes.clone()).await, self.model.begin(id, fence, &bytes)),
            2 => (inbox.postpone(id, fence, due).await, self.model.postpone(id, fence, due)),
            end => {
                let report = Report { told: bytes.clone(), jobs: self.jobs(2) };
                let finish = match end {
                    3 => Finish::Done { report },
                    4 => Finish::Retry { due, rendered: bytes, report },
                    _ => Finish::Dead { reason: "chance".to_owned(), rendered: None, report },
                };
                let said = self.bench.inbox.finish(id, fence, finish.clone()).await;
                (said, self.model.finish(id, fence, &finish))
            }
        };
        same("answer about a lease", &said, &expected)?;
        // Mostly those in force are of interest.
        if said.is_err() && self.dice.below(2) == 0 {
            self.given.remove(at);
        }
        Ok(())
    }

    async fn renew(&mut self) -> Result<(), String> {
        let leases: Vec<(Uuid, Fence)> = self.given.iter().map(|job| (job.id, job.fence)).collect();
        let mut lost = self.bench.inbox.renew(&leases).await.map_err(|error| error.to_string())?;
        let until = self.model.now + LEASE;
        let mut expected = Vec::new();
        for (id, fence) in leases {
            match self.model.held(id, fence) {
                Some(job) => job.at = At::Leased { fence, until },
                None => expected.push(id),
            }
        }
        lost.sort_unstable();
        expected.sort_unstable();
        same("lost leases", &lost, &expected)
    }

    async fn steer(&mut self) -> Result<(), String> {
        let ids: Vec<Uuid> = self.model.jobs.keys().copied().collect();
        if ids.is_empty() {
            return Ok(());
        }
        let id = ids[self.dice.below(ids.len() as u64) as usize];
        let found = self.bench.inbox.find(id).await.map_err(|error| error.to_string())?;
        let found = found.ok_or_else(|| format!("{id} is not found"))?;
        let report = self.bytes();
        let steer = if self.dice.below(3) == 0 { Steer::Cancel { report } } else { Steer::Retry { report } };
        let said = self.bench.inbox.steer(id, found.fence, steer.clone()).await;
        same("answer to an operator", &said, &self.model.steer(id, &steer))?;
        if said.is_ok() {
            let again = self.bench.inbox.steer(id, found.fence, steer).await;
            same("the same again", &again, &Err(LeaseError::Fenced))?;
        }
        Ok(())
    }

    async fn trim(&mut self) -> Result<(), String> {
        let up_to = self.model.told - self.dice.below(4) as i64;
        self.bench.inbox.outbox_trim(up_to).await.map_err(|error| error.to_string())?;
        self.model.outbox.retain(|(number, _)| *number > up_to);
        Ok(())
    }

    /// Everything that can be seen is the same.
    async fn compare(&self) -> Result<(), String> {
        let unavailable = |error: Unavailable| error.to_string();
        let stats = self.bench.inbox.stats().await.map_err(unavailable)?;
        let lanes = [stats.realtime, stats.bulk].map(|lane| (lane.ready, lane.leased, lane.delayed, lane.dead));
        same("ready, leased, delayed and dead", &lanes, &self.model.stats())?;
        let outbox = self.bench.inbox.outbox_read(0, 10_000, usize::MAX).await.map_err(unavailable)?;
        same("reports", &outbox, &self.model.outbox)?;
        same("number of reports", &stats.outbox, &(self.model.outbox.len() as u64))?;
        for lane in Lane::ALL {
            for flow in self.bench.flows(lane).await {
                let ready = [false, true].map(|retry| self.model.ready(lane, &flow.flow, retry) as u64);
                same("ready in a flow", &[flow.first, flow.retries], &ready)?;
            }
        }
        for (id, job) in &self.model.jobs {
            let found = self.bench.inbox.find(*id).await.map_err(unavailable)?;
            let found = found.map(|found| (found.place, found.payload, found.rendered, found.accepted_at));
            let place = job.at.place();
            // Of an attempt that is under way nothing need be told.
            let told = found.as_ref().and_then(|(_, _, rendered, _)| rendered.clone());
            let rendered = if place == Place::Leased { told } else { job.rendered.clone() };
            let expected = (place, job.new.payload.clone(), rendered, job.accepted_at);
            same("a job by its id", &found, &Some(expected))?;
        }
        let waited = self.bench.inbox.waited(0, self.model.now, 10_000, usize::MAX).await.map_err(unavailable)?;
        let mut waited: Vec<(Uuid, Option<UnixMillis>)> = waited.into_iter().map(|job| (job.id, job.due)).collect();
        waited.sort_unstable();
        let without = self.model.jobs.iter().filter(|(_, job)| job.attempts == 0 && job.at.place() != Place::Dead);
        let due = |job: &Kept| if let At::Delayed { due } = job.at { Some(due) } else { None };
        let mut expected: Vec<(Uuid, Option<UnixMillis>)> = without.map(|(id, job)| (*id, due(job))).collect();
        expected.sort_unstable();
        same("jobs without an attempt", &waited, &expected)
    }
}

/// Takes so many steps with a backend, one that has this bug if one is given; answers the first difference.
pub(super) async fn difference(
    backend: Backend,
    seed: u64,
    steps: usize,
    sabotage: Option<Sabotage>,
) -> Option<String> {
    let clock = Clock::manual(START);
    let bench = Bench::sabotaged(backend, clock, MAX_JOBS, Duration::from_millis(LEASE as u64), sabotage).await;
    let trusts_first_leases = matches!(backend, Backend::Embedded);
    let model = Model { now: START, trusts_first_leases, ..Model::default() };
    let mut pair = Pair { bench, model, dice: Dice(seed), asked: Vec::new(), given: Vec::new(), bytes: 0 };
    for step in 0..steps {
        let mut taken = pair.step().await;
        if taken.is_ok() {
            taken = pair.compare().await;
        }
        if let Err(difference) = taken {
            return Some(format!("seed {seed}, step {step}: {difference}"));
        }
    }
    None
}

/// Bugs in what Redis does of a step, one for each thing that must hold.
const SABOTAGES: [Sabotage; 19] = [
    ("I1: a job is not kept", "    local row = enqueue(new, number)\n    claim", "    local row = 1\n    claim"),
    ("I2: a full queue claims the key", "then return 3 end", "then claim(key, request, window) return 3 end"),
    ("I2: a request that is repeated is a duplicate of itself", "return first == request and 1 or 2", "return 2"),
    ("I3: a key is forgotten at once", "claim(key, request .. until_when, window)", ""),
    ("D05: the window does not slide", "claim(key, first .. until_when, window)", ""),
    ("I3: what was begun is not ambiguous", "if job[BEGUN] == '1' then job[AMBIGUOUS] = '1' end", ""),
    ("I3: the bytes of the first attempt are replaced", "bytes, 'NX')", "bytes)"),
    ("I3: every attempt counts as the first", "if job[EPOCH] == '1' and job[BEGUN] == '0' then", "if true then"),
    ("I3: a lease of long ago may still be finished", "job[EPOCH] ~= epoch or job[PLACE] ~= 'l'", "false"),
    ("I1: a retry is promoted into nothing", "            make_ready(row, job)\n            keep", "            keep"),
    ("I18: a retry is promoted and stays", "            remove('ZREM', delayed_key(lane), row)\n", ""),
    ("I18: a finished job is still leased", "remove('ZREM', leased_key(job[LANE]), row)\n    ends", "ends"),
    (
        "I18: a cancelled job is still ready",
        "call('LREM', ready_key(job[FLOW], job[ATTEMPTS] ~= '0'), 1, row)\n        change",
        "change",
    ),
    ("I15: an outcome is not told", "push(base .. 'o:' .. me, told)\n    if not has_room", "if not has_room"),
    (
        "I15: an outcome is told twice",
        "push(base .. 'o:' .. me, told)\n    if not",
        "push(base .. 'o:' .. me, told)\n    push(base .. 'o:' .. me, told)\n    if not",
    ),
    ("I8: the quota is not looked at", "return live + number <= quota", "return true"),
    ("I10: a lease of a crashed life goes on", "if find(row)[NOTE] == me then", "if false then"),
    ("I10: a renewed lease ends all the same", "            put('ZADD', leased_key(job[LANE]), upto, row)\n", ""),
    ("I12: a crash loop is not counted", "job[LEASES] = text(job[LEASES] + 1)", ""),
];

/// Seeds and steps in which a bug must have shown itself.
const TRIES: u64 = 8;
const STEPS: usize = 250;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sabotage_is_noticed() {
    for sabotage in SABOTAGES {
        let mut noticed = None;
        for seed in 0..TRIES {
            noticed = difference(Backend::Redis, seed, STEPS, Some(sabotage)).await;
            if noticed.is_some() {
                break;
            }
        }
        println!("{}: {}", sabotage.0, noticed.as_deref().unwrap_or("NOT NOTICED"));
        assert!(noticed.is_some(), "{} was not noticed", sabotage.0);
    }
}
