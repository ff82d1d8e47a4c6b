//! What every backend must do, run on each: add a backend to [`Backend`] and one `suite!` line at the end.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use tempfile::TempDir;
use uuid::Uuid;

use super::redis::tests::server::Server;
use super::*;
use crate::clock::Clock;

mod model;

pub(super) const START: UnixMillis = 1_700_000_000_000;
pub(super) const MINUTE: i64 = 60_000;
pub(super) const DAY: i64 = 24 * 60 * MINUTE;
const LEASE: i64 = 60_000;
/// Nothing takes this long: a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The backends the suite runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    Embedded,
    /// A crash is one of the plane: it goes away without a word.
    Redis,
    /// A crash is one of the server as well: `kill -9`, and a new one on what it left on disk.
    RedisKilled,
}

/// An inbox on trial, with a clock that can be moved.
pub(super) struct Bench {
    pub(super) inbox: Inbox,
    pub(super) clock: Clock,
    max_jobs: u64,
    lease: Duration,
    store: Store,
    sabotage: Option<model::Sabotage>,
}

enum Store {
    Embedded { dir: TempDir, generation: u32 },
    Redis { server: Server, kill: bool },
}

impl Bench {
    async fn new(backend: Backend) -> Self {
        Self::with(backend, Clock::manual(START), 1_000_000, Duration::from_millis(LEASE as u64)).await
    }

    async fn with(backend: Backend, clock: Clock, max_jobs: u64, lease: Duration) -> Self {
        Self::sabotaged(backend, clock, max_jobs, lease, None).await
    }

    async fn sabotaged(
        backend: Backend,
        clock: Clock,
        max_jobs: u64,
        lease: Duration,
        sabotage: Option<model::Sabotage>,
    ) -> Self {
        let store = match backend {
            Backend::Embedded => Store::Embedded { dir: tempfile::tempdir().unwrap(), generation: 0 },
            Backend::Redis => Store::Redis { server: Server::start().await, kill: false },
            Backend::RedisKilled => Store::Redis { server: Server::start().await, kill: true },
        };
        let inbox = Self::open(&store, &clock, max_jobs, lease, sabotage).await;
        Self { inbox, clock, max_jobs, lease, store, sabotage }
    }

    async fn open(
        store: &Store,
        clock: &Clock,
        max_jobs: u64,
        lease: Duration,
        sabotage: Option<model::Sabotage>,
    ) -> Inbox {
        match store {
            Store::Embedded { dir, generation } => {
                let settings = EmbeddedSettings { max_jobs, lease, ..EmbeddedSettings::new(file(dir, *generation)) };
                Inbox::Embedded(Embedded::open(settings, clock.clone()).await.unwrap())
            }
            Store::Redis { server, .. } => {
                let settings = RedisSettings { max_jobs, lease, sabotage, ..RedisSettings::new(server.url(), "plane") };
                Inbox::Redis(Redis::open(settings, clock.clone()).await.unwrap())
            }
        }
    }

    async fn reopen(&mut self) -> Inbox {
        Self::open(&self.store, &self.clock, self.max_jobs, self.lease, self.sabotage).await
    }

    /// Continues from what a kill would have left at this moment: nothing is closed before.
    async fn crash(&mut self) {
        match &mut self.store {
            Store::Embedded { dir, generation } => {
                let old = file(dir, *generation);
                *generation += 1;
                let new = file(dir, *generation);
                for suffix in ["", "-wal"] {
                    let (from, to) = (format!("{}{suffix}", old.display()), format!("{}{suffix}", new.display()));
                    if std::fs::exists(&from).unwrap() {
                        std::fs::copy(from, to).unwrap();
                    }
                }
            }
            Store::Redis { server, kill: true } => {
                server.kill();
                server.restart().await;
            }
            Store::Redis { kill: false, .. } => {}
        }
        let inbox = self.reopen().await;
        let before = std::mem::replace(&mut self.inbox, inbox);
        match self.store {
            Store::Embedded { .. } => before.close().await,
            Store::Redis { .. } => drop(before),
        }
    }

    /// An orderly restart.
    async fn restart(&mut self) {
        self.inbox.close().await;
        self.inbox = self.reopen().await;
    }

    async fn stats(&self) -> Stats {
        self.inbox.stats().await.unwrap()
    }

    /// Enqueues one job without a key.
    async fn enqueue(&self, lane: Lane) -> Uuid {
        let accept = request(None, vec![job(lane)]);
        assert_eq!(self.inbox.accept(accept.clone()).await, Ok(Accepted::Accepted));
        accept.jobs[0].id
    }

    /// Every flow of a lane as it is now.
    async fn flows(&self, lane: Lane) -> Vec<Waiting> {
        // Any step makes ready what is due.
        self.inbox.lease(Vec::new()).await.unwrap();
        self.inbox.waiting(lane, 0).now_or_never().map_or(Vec::new(), |news| news.unwrap().waiting)
    }

    /// Leases from whatever flow, first attempts first.
    async fn lease(&self, lane: Lane, max: usize) -> Vec<Leased> {
        let mut room = max;
        let mut take = |ready: u64| {
            let take = room.min(ready as usize);
            room -= take;
            take
        };
        let flows = self.flows(lane).await;
        let grants = flows.iter().map(|flow| Grant::any(flow.id, take(flow.first), take(flow.retries))).collect();
        self.inbox.lease(grants).await.unwrap()
    }

    /// Leases exactly one realtime job.
    async fn one(&self) -> Leased {
        let mut jobs = self.lease(Lane::Realtime, 1).await;
        assert_eq!(jobs.len(), 1, "one job is ready: {:?}", self.stats().await);
        jobs.remove(0)
    }

    async fn finish(&self, job: &Leased, finish: Finish) -> Result<(), LeaseError> {
        self.inbox.finish(job.id, job.fence, finish).await
    }

    async fn retry_at(&self, job: &Leased, due: UnixMillis) {
        let rendered = job.rendered.clone().unwrap_or_default();
        self.finish(job, again(due, rendered)).await.unwrap();
    }

    async fn reports(&self) -> Vec<Bytes> {
        let rows = self.inbox.outbox_read(0, 10_000, usize::MAX).await.unwrap();
        rows.into_iter().map(|(_, report)| report).collect()
    }
}

fn file(dir: &TempDir, generation: u32) -> PathBuf {
    dir.path().join(format!("inbox-{generation}"))
}

pub(super) fn job(lane: Lane) -> NewJob {
    job_of(lane, "api.example.com")
}

pub(super) fn job_of(lane: Lane, destination: &str) -> NewJob {
    let id = Uuid::new_v4();
    let flow = Flow {
        workspace: "workspaces/acme".to_owned(),
        destination: destination.to_owned(),
        owner: "workspaces/acme/outgoingIntegrations/orders".to_owned(),
    };
    NewJob { id, lane, flow: Arc::new(flow), payload: Bytes::copy_from_slice(id.as_bytes()) }
}

pub(super) fn request(claim: Option<Claim>, jobs: Vec<NewJob>) -> Accept {
    Accept { request: Uuid::new_v4(), claim, jobs }
}

pub(super) fn key(n: u8, window_ms: i64) -> Option<Claim> {
    Some(Claim { key: [n; 32], window: Duration::from_millis(window_ms as u64) })
}

pub(super) fn done() -> Finish {
    Finish::Done { report: Bytes::from_static(b"done").into() }
}

pub(super) fn again(due: UnixMillis, rendered: Bytes) -> Finish {
    Finish::Retry { due, rendered, report: Bytes::from_static(b"waits").into() }
}

pub(super) fn dead(reason: &str) -> Finish {
    Finish::Dead { reason: reason.to_owned(), rendered: None, report: Bytes::from_static(b"dead").into() }
}

pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens at all")
}

pub(super) async fn a_repeated_request_is_accepted_again_and_kept_once(backend: Backend) {
    let bench = Bench::new(backend).await;
    for claim in [None, key(1, DAY)] {
        let accept = request(claim, vec![job(Lane::Realtime), job(Lane::Bulk)]);
        for _ in 0..3 {
            assert_eq!(bench.inbox.accept(accept.clone()).await, Ok(Accepted::Accepted));
        }
        let both = join_all([bench.inbox.accept(accept.clone()), bench.inbox.accept(accept.clone())]).await;
        assert_eq!(both, [Ok(Accepted::Accepted), Ok(Accepted::Accepted)]);
        let leased = bench.one().await;
        assert_eq!((leased.id, leased.payload.clone()), (accept.jobs[0].id, accept.jobs[0].payload.clone()));
        bench.finish(&leased, done()).await.unwrap();
        // Even when the job is long done.
        assert_eq!(bench.inbox.accept(accept.clone()).await, Ok(Accepted::Accepted));
        assert!(bench.lease(Lane::Realtime, 10).await.is_empty());
        let bulk = bench.lease(Lane::Bulk, 10).await;
        assert_eq!(bulk.len(), 1);
        bench.finish(&bulk[0], done()).await.unwrap();
    }
    // The same request, twice in one group and never seen before.
    let accept = request(None, vec![job(Lane::Realtime)]);
    let answers = join_all((0..8).map(|_| bench.inbox.accept(accept.clone()))).await;
    assert!(answers.iter().all(|answer| *answer == Ok(Accepted::Accepted)));
    assert_eq!(bench.stats().await.realtime.ready, 1);
}

pub(super) async fn a_request_without_a_key_is_forgotten_after_its_time(backend: Backend) {
    let bench = Bench::new(backend).await;
    let accept = request(None, vec![job(Lane::Realtime)]);
    let memory = REQUEST_MEMORY.as_millis() as i64;
    bench.inbox.accept(accept.clone()).await.unwrap();
    bench.clock.advance(memory - 1);
    bench.inbox.accept(accept.clone()).await.unwrap();
    assert_eq!(bench.stats().await.realtime.ready, 1);
    bench.clock.advance(memory);
    bench.inbox.accept(accept).await.unwrap();
    assert_eq!(bench.stats().await.realtime.ready, 2);
}

pub(super) async fn the_window_slides_with_every_request(backend: Backend) {
    let bench = Bench::new(backend).await;
    let ask = async |window| bench.inbox.accept(request(key(7, window), vec![job(Lane::Realtime)])).await.unwrap();
    assert_eq!(ask(7 * DAY).await, Accepted::Accepted);
    for _ in 0..3 {
        bench.clock.advance(7 * DAY - 1);
        assert_eq!(ask(7 * DAY).await, Accepted::Duplicate);
    }
    bench.clock.advance(7 * DAY);
    assert_eq!(ask(MINUTE).await, Accepted::Accepted, "known until, not including, the end of the window");
    bench.clock.advance(MINUTE - 1);
    assert_eq!(ask(2 * MINUTE).await, Accepted::Duplicate);
    bench.clock.advance(MINUTE + 1);
    assert_eq!(ask(2 * MINUTE).await, Accepted::Duplicate, "the last request sets the window");
    assert_eq!(bench.stats().await.realtime.ready, 2, "duplicates enqueue nothing");
}

pub(super) async fn of_parallel_equals_exactly_one_is_accepted(backend: Backend) {
    let bench = Bench::new(backend).await;
    for round in 0..40 {
        let ask = |_| {
            let inbox = bench.inbox.clone();
            let accept = request(key(round, DAY), vec![job(Lane::Realtime)]);
            async move { tokio::spawn(async move { inbox.accept(accept).await.unwrap() }).await.unwrap() }
        };
        let answers = join_all((0..64).map(ask)).await;
        let accepted = answers.iter().filter(|answer| **answer == Accepted::Accepted).count();
        let duplicates = answers.iter().filter(|answer| **answer == Accepted::Duplicate).count();
        assert_eq!((accepted, duplicates), (1, 63), "round {round}");
    }
    assert_eq!(bench.stats().await.realtime.ready, 40);
}

pub(super) async fn a_key_can_be_claimed_without_jobs(backend: Backend) {
    let bench = Bench::with(backend, Clock::manual(START), 1, Duration::from_secs(60)).await;
    bench.enqueue(Lane::Realtime).await;
    // Needs no place in the queue.
    assert_eq!(bench.inbox.accept(request(key(1, DAY), vec![])).await, Ok(Accepted::Accepted));
    assert_eq!(bench.inbox.accept(request(key(1, DAY), vec![])).await, Ok(Accepted::Duplicate));
    assert_eq!(bench.inbox.accept(request(key(1, DAY), vec![job(Lane::Bulk)])).await, Ok(Accepted::Duplicate));
    assert_eq!(bench.stats().await.bulk.ready, 0);
}

pub(super) async fn a_full_queue_takes_and_claims_nothing(backend: Backend) {
    let bench = Bench::with(backend, Clock::manual(START), 3, Duration::from_secs(60)).await;
    bench.enqueue(Lane::Realtime).await;
    let two = request(key(2, DAY), vec![job(Lane::Bulk), job(Lane::Bulk)]);
    assert_eq!(bench.inbox.accept(two.clone()).await, Ok(Accepted::Accepted));
    let one = request(key(3, DAY), vec![job(Lane::Realtime)]);
    let answers =
        join_all([one.clone(), request(key(3, DAY), vec![job(Lane::Bulk)])].map(|a| bench.inbox.accept(a))).await;
    assert_eq!(answers, [Ok(Accepted::Full), Ok(Accepted::Full)]);
    assert_eq!(bench.inbox.accept(two).await, Ok(Accepted::Accepted), "what is kept already needs no room");
    let leased = bench.one().await;
    assert_eq!(bench.inbox.accept(one.clone()).await, Ok(Accepted::Full), "a leased job still counts");
    bench.retry_at(&leased, START + MINUTE).await;
    assert_eq!(bench.inbox.accept(one.clone()).await, Ok(Accepted::Full), "a delayed job still counts");
    bench.clock.advance(MINUTE);
    let leased = bench.one().await;
    bench.finish(&leased, dead("gone")).await.unwrap();
    assert_eq!(bench.inbox.accept(one).await, Ok(Accepted::Accepted), "the dead do not count, the key was not claimed");
}

pub(super) async fn large_amounts_leave_room_for_what_is_done_in_real_time(backend: Backend) {
    let bench = Bench::with(backend, Clock::manual(START), 8, Duration::from_secs(60)).await;
    let bulk = |count: usize| request(None, (0..count).map(|_| job(Lane::Bulk)).collect());
    assert_eq!(bench.inbox.accept(bulk(5)).await, Ok(Accepted::Accepted));
    assert_eq!(bench.inbox.accept(bulk(2)).await, Ok(Accepted::Full), "six of eight at most");
    assert_eq!(bench.inbox.accept(bulk(1)).await, Ok(Accepted::Accepted));
    assert_eq!(bench.inbox.accept(bulk(1)).await, Ok(Accepted::Full));
    let realtime = request(None, vec![job(Lane::Realtime), job(Lane::Realtime)]);
    assert_eq!(bench.inbox.accept(realtime).await, Ok(Accepted::Accepted));
    let leased = bench.lease(Lane::Bulk, 1).await.remove(0);
    bench.finish(&leased, dead("gone")).await.unwrap();
    assert_eq!(bench.inbox.accept(bulk(1)).await, Ok(Accepted::Accepted));
}

pub(super) async fn jobs_come_in_order_with_what_was_accepted(backend: Backend) {
    let bench = Bench::new(backend).await;
    let empty = NewJob { payload: Bytes::new(), ..job(Lane::Bulk) };
    let large = NewJob { payload: Bytes::from(vec![7; 300_000]), ..job(Lane::Bulk) };
    let jobs = vec![job(Lane::Bulk), empty, large, job(Lane::Bulk)];
    bench.inbox.accept(request(None, jobs.clone())).await.unwrap();
    bench.clock.advance(5);
    let leased = bench.lease(Lane::Bulk, 3).await;
    for (leased, job) in leased.iter().zip(&jobs) {
        assert_eq!((leased.id, leased.lane, &leased.payload), (job.id, job.lane, &job.payload));
        assert_eq!((leased.attempt, leased.rendered.clone(), leased.accepted_at), (0, None, START));
        assert!(!leased.ambiguous && !leased.poisoned);
    }
    let stats = bench.stats().await;
    assert_eq!(stats.bulk, LaneStats { ready: 1, leased: 3, delayed: 0, dead: 0, oldest_ready_ms: 5 });
    assert_eq!(bench.lease(Lane::Bulk, 3).await.len(), 1);
    assert!(bench.lease(Lane::Bulk, 3).await.is_empty());
    assert!(bench.lease(Lane::Bulk, 0).await.is_empty());
}

pub(super) async fn an_end_and_what_it_starts_are_one_step(backend: Backend) {
    let mut bench = Bench::new(backend).await;
    bench.max_jobs = 3;
    bench.restart().await;
    bench.enqueue(Lane::Realtime).await;
    let leased = bench.one().await;
    let starts =
        |jobs: &[NewJob]| Finish::Done { report: Report { told: Bytes::from_static(b"end"), jobs: jobs.to_vec() } };
    let first = [job(Lane::Realtime), job_of(Lane::Bulk, "other.example.com")];
    bench.finish(&leased, starts(&first)).await.unwrap();
    assert_eq!(bench.finish(&leased, starts(&first)).await, Err(LeaseError::Fenced), "and starts nothing");
    bench.crash().await;
    assert_eq!(bench.reports().await, [&b"end"[..]]);
    let (realtime, bulk) = (bench.lease(Lane::Realtime, 9).await, bench.lease(Lane::Bulk, 9).await);
    assert_eq!([realtime[0].id, bulk[0].id], [first[0].id, first[1].id]);
    assert_eq!((realtime.len(), bulk.len(), &realtime[0].payload), (1, 1, &first[0].payload));

    // Three fit, its own place included.
    let many = [job(Lane::Realtime), job(Lane::Realtime), job(Lane::Realtime)];
    bench.finish(&realtime[0], starts(&many)).await.unwrap();
    assert_eq!(bench.stats().await.realtime.ready, 0, "a full queue takes none of them");
    assert_eq!(bench.reports().await.len(), 2, "the end is told all the same");
    bench.finish(&bulk[0], starts(&many)).await.unwrap();
    assert_eq!(bench.stats().await.realtime.ready, 3);
}

pub(super) async fn parallel_leases_never_share_a_job(backend: Backend) {
    let bench = Bench::new(backend).await;
    let jobs: Vec<NewJob> = (0..100).map(|_| job(Lane::Realtime)).collect();
    bench.inbox.accept(request(None, jobs)).await.unwrap();
    let leased = join_all((0..30).map(|_| bench.lease(Lane::Realtime, 4))).await;
    let ids: HashSet<Uuid> = leased.iter().flatten().map(|job| job.id).collect();
    assert_eq!((leased.iter().flatten().count(), ids.len()), (100, 100));
    assert!(leased.iter().all(|jobs| jobs.len() <= 4));
}

pub(super) async fn lanes_are_independent(backend: Backend) {
    let bench = Bench::new(backend).await;
    let bulk: Vec<NewJob> = (0..500).map(|_| job(Lane::Bulk)).collect();
    bench.inbox.accept(request(None, bulk)).await.unwrap();
    assert!(bench.lease(Lane::Realtime, 10).await.is_empty());
    let id = bench.enqueue(Lane::Realtime).await;
    assert_eq!(bench.one().await.id, id);
    let stats = bench.stats().await;
    assert_eq!((stats.realtime.leased, stats.bulk.ready, stats.bulk.leased), (1, 500, 0));
}

pub(super) async fn a_late_finisher_is_fenced(backend: Backend) {
    let bench = Bench::new(backend).await;
    bench.enqueue(Lane::Realtime).await;
    let late = bench.one().await;
    bench.clock.advance(LEASE);
    let present = bench.one().await;
    assert_eq!(present.id, late.id);
    let fenced = Err(LeaseError::Fenced);
    for finish in [done(), dead("late"), again(0, Bytes::from_static(b"late"))] {
        assert_eq!(bench.finish(&late, finish).await, fenced);
    }
    assert_eq!(bench.inbox.begin(late.id, late.fence, Bytes::from_static(b"late")).await, fenced);
    assert_eq!(bench.inbox.postpone(late.id, late.fence, 0).await, fenced);
    assert_eq!(bench.inbox.finish(Uuid::new_v4(), present.fence, done()).await, fenced, "another job's fence");
    assert!(bench.reports().await.is_empty());
    let twice = join_all([bench.finish(&present, done()), bench.finish(&present, done())]).await;
    assert_eq!(twice, [Ok(()), fenced], "in one group as in two");
    assert_eq!(bench.finish(&present, done()).await, fenced);
    assert_eq!(bench.reports().await.len(), 1);
    assert_eq!(bench.stats().await.realtime, LaneStats::default());
}

pub(super) async fn a_lease_nobody_took_over_may_still_finish(backend: Backend) {
    let bench = Bench::new(backend).await;
    bench.enqueue(Lane::Realtime).await;
    let job = bench.one().await;
    bench.clock.advance(10 * LEASE);
    assert_eq!(bench.finish(&job, done()).await, Ok(()));
}

pub(super) async fn renewing_keeps_a_lease_and_names_the_lost(backend: Backend) {
    let bench = Bench::new(backend).await;
    let (_, _) = (bench.enqueue(Lane::Realtime).await, bench.enqueue(Lane::Realtime).await);
    let jobs = bench.lease(Lane::Realtime, 2).await;
    let leases: Vec<(Uuid, Fence)> = jobs.iter().map(|job| (job.id, job.fence)).collect();
    for _ in 0..5 {
        bench.clock.advance(LEASE - 1);
        assert_eq!(bench.inbox.renew(&leases[..1]).await, Ok(vec![]));
    }
    let stolen = bench.one().await;
    assert_eq!(stolen.id, jobs[1].id, "the one that was not renewed");
    assert_eq!(bench.inbox.renew(&leases).await, Ok(vec![jobs[1].id]));
    assert_eq!(bench.finish(&jobs[0], done()).await, Ok(()));
    assert_eq!(bench.inbox.renew(&leases).await, Ok(vec![jobs[0].id, jobs[1].id]));
}

pub(super) async fn a_retry_comes_when_due_with_the_same_bytes(backend: Backend) {
    let bench = Bench::new(backend).await;
    bench.enqueue(Lane::Realtime).await;
    let first = bench.one().await;
    let bytes = Bytes::from_static(b"POST / fixed");
    bench.inbox.begin(first.id, first.fence, bytes.clone()).await.unwrap();
    let learned = Bytes::from_static(b"POST / fixed, attempt 1 failed");
    bench.finish(&first, again(START + 5_000, learned.clone())).await.unwrap();
    assert_eq!(bench.stats().await.realtime.delayed, 1);
    bench.clock.advance(4_999);
    assert!(bench.lease(Lane::Realtime, 1).await.is_empty());
    bench.clock.advance(1);
    let second = bench.one().await;
    assert_eq!((second.attempt, second.rendered.clone(), second.ambiguous), (1, Some(learned.clone()), false));
    bench.inbox.begin(second.id, second.fence, Bytes::from_static(b"other")).await.unwrap();
    bench.retry_at(&second, START).await;
    let third = bench.one().await;
    assert_eq!((third.attempt, third.rendered.clone()), (2, Some(learned)), "what was kept stays; past means at once");
    bench.finish(&third, done()).await.unwrap();
    assert_eq!(bench.reports().await, [&b"waits"[..], b"waits", b"done"], "each attempt is told");
    assert_eq!(bench.stats().await.realtime, LaneStats::default());
}

fn steer_again() -> Steer {
    Steer::Retry { report: Bytes::from_static(b"again") }
}

fn cancel() -> Steer {
    Steer::Cancel { report: Bytes::from_static(b"cancelled") }
}

pub(super) async fn a_job_is_found_wherever_it_is(backend: Backend) {
    let bench = Bench::new(backend).await;
    assert_eq!(bench.inbox.find(Uuid::new_v4()).await, Ok(None));
    let id = bench.enqueue(Lane::Bulk).await;
    let ready = bench.inbox.find(id).await.unwrap().unwrap();
    assert_eq!((ready.place, ready.payload.as_ref(), ready.rendered), (Place::Ready, &id.as_bytes()[..], None));
    let job = bench.lease(Lane::Bulk, 1).await.remove(0);
    let leased = bench.inbox.find(id).await.unwrap().unwrap();
    assert_eq!((leased.place, leased.fence), (Place::Leased, job.fence));
    assert!(leased.fence.order() > ready.fence.order());
    bench.inbox.begin(id, job.fence, Bytes::from_static(b"bytes")).await.unwrap();
    bench.retry_at(&Leased { rendered: Some(Bytes::from_static(b"one")), ..job }, START + MINUTE).await;
    let delayed = bench.inbox.find(id).await.unwrap().unwrap();
    assert_eq!((delayed.place, delayed.rendered, delayed.accepted_at), (Place::Delayed, Some("one".into()), START));
    bench.clock.advance(MINUTE);
    let job = bench.lease(Lane::Bulk, 1).await.remove(0);
    bench.finish(&job, dead("no")).await.unwrap();
    assert_eq!(bench.inbox.find(id).await.unwrap().unwrap().place, Place::Dead);
}

pub(super) async fn a_delayed_job_is_due_when_an_operator_says_so(backend: Backend) {
    let mut bench = Bench::new(backend).await;
    let id = bench.enqueue(Lane::Realtime).await;
    let job = bench.one().await;
    bench.inbox.begin(id, job.fence, Bytes::from_static(b"bytes")).await.unwrap();
    bench.retry_at(&Leased { rendered: Some(Bytes::from_static(b"one")), ..job }, START + DAY).await;
    let found = bench.inbox.find(id).await.unwrap().unwrap();
    let both =
        join_all([bench.inbox.steer(id, found.fence, steer_again()), bench.inbox.steer(id, found.fence, cancel())]);
    let both = both.await;
    assert!(both.contains(&Ok(())) && both.contains(&Err(LeaseError::Fenced)), "one of two: {both:?}");
    assert_eq!(both[0], Ok(()), "in their order");
    bench.crash().await;
    assert_eq!(bench.reports().await, [&b"waits"[..], b"again"]);
    let again = bench.one().await;
    assert_eq!((again.id, again.attempt, again.rendered.clone()), (id, 1, Some("one".into())));
    assert!(again.fence.order() > found.fence.order() + 1, "the report of the steering has an order of its own");
    let leased = bench.inbox.find(id).await.unwrap().unwrap();
    for steer in [steer_again(), cancel()] {
        assert_eq!(bench.inbox.steer(id, leased.fence, steer).await, Err(LeaseError::Fenced), "it is worked on");
    }
    bench.finish(&again, done()).await.unwrap();
    assert_eq!(bench.stats().await.realtime, LaneStats::default());
}

pub(super) async fn a_dead_job_lives_again_and_counts_on(backend: Backend) {
    let mut bench = Bench::new(backend).await;
    let id = bench.enqueue(Lane::Realtime).await;
    let job = bench.one().await;
    bench.inbox.begin(id, job.fence, Bytes::from_static(b"bytes")).await.unwrap();
    let learned = Some(Bytes::from_static(b"bytes, one attempt"));
    let finish =
        Finish::Dead { reason: "no".to_owned(), rendered: learned.clone(), report: Bytes::from_static(b"dead").into() };
    bench.finish(&job, finish).await.unwrap();
    let found = bench.inbox.find(id).await.unwrap().unwrap();
    assert_eq!((found.place, found.rendered.clone()), (Place::Dead, learned.clone()));
    assert_eq!(bench.inbox.steer(id, found.fence, cancel()).await, Err(LeaseError::Fenced), "it has ended");
    bench.inbox.steer(id, found.fence, steer_again()).await.unwrap();
    assert_eq!(bench.inbox.steer(id, found.fence, steer_again()).await, Err(LeaseError::Fenced), "once");
    bench.crash().await;
    let again = bench.one().await;
    assert_eq!((again.attempt, again.rendered.clone(), again.ambiguous, again.poisoned), (1, learned, false, false));
    bench.finish(&again, dead("no again")).await.unwrap();
    assert_eq!(bench.stats().await.realtime, LaneStats { dead: 1, ..LaneStats::default() });
    assert_eq!(bench.reports().await, [&b"dead"[..], b"again", b"dead"]);
}

pub(super) async fn a_job_that_waits_can_be_cancelled_and_is_gone(backend: Backend) {
    let mut bench = Bench::new(backend).await;
    let (queued, waiting) = (bench.enqueue(Lane::Realtime).await, bench.enqueue(Lane::Bulk).await);
    let job = bench.lease(Lane::Bulk, 1).await.remove(0);
    bench.retry_at(&job, START + DAY).await;
    for id in [queued, waiting] {
        let found = bench.inbox.find(id).await.unwrap().unwrap();
        bench.inbox.steer(id, found.fence, cancel()).await.unwrap();
        assert_eq!(bench.inbox.find(id).await, Ok(None));
        assert_eq!(bench.inbox.steer(id, found.fence, cancel()).await, Err(LeaseError::Fenced));
    }
    bench.crash().await;
    bench.clock.advance(2 * DAY);
    let stats = bench.stats().await;
    assert_eq!((stats.realtime, stats.bulk), (LaneStats::default(), LaneStats::default()));
    assert_eq!(bench.reports().await, [&b"waits"[..], b"cancelled", b"cancelled"]);
}

pub(super) async fn an_attempt_without_an_outcome_is_ambiguous(backend: Backend) {
    let bench = Bench::new(backend).await;
    bench.enqueue(Lane::Realtime).await;
    bench.one().await;
    bench.clock.advance(LEASE);
    let job = bench.one().await;
    assert!(!job.ambiguous, "leased, but nothing was begun");
    bench.inbox.begin(job.id, job.fence, Bytes::from_static(b"x")).await.unwrap();
    bench.clock.advance(LEASE);
    let job = bench.one().await;
    assert_eq!((job.ambiguous, job.attempt, job.rendered.as_deref()), (true, 0, Some(&b"x"[..])));
    bench.inbox.postpone(job.id, job.fence, 0).await.unwrap();
    let job = bench.one().await;
    assert!(job.ambiguous, "giving it back does not settle an older attempt");
    bench.retry_at(&job, 0).await;
    assert!(!bench.one().await.ambiguous, "a finished attempt does");
}

pub(super) async fn a_job_that_kills_its_workers_is_poisoned_and_reported_once(backend: Backend) {
    let mut bench = Bench::new(backend).await;
    bench.enqueue(Lane::Realtime).await;
    for round in 0..MAX_LEASES {
        let job = bench.one().await;
        assert!(!job.poisoned, "lease {round}");
        if round == 0 {
            // A first lease of which nothing came but a crash may be unknown afterwards.
            bench.inbox.begin(job.id, job.fence, Bytes::from_static(b"x")).await.unwrap();
        }
        if round % 2 == 0 {
            bench.crash().await;
        } else {
            bench.clock.advance(LEASE);
        }
    }
    assert!(bench.one().await.poisoned);
    bench.crash().await;
    let job = bench.one().await;
    assert!(job.poisoned, "until somebody buries it");
    bench.finish(&job, dead("crash_loop")).await.unwrap();
    assert_eq!(bench.reports().await, [&b"dead"[..]]);
    assert_eq!(bench.stats().await.realtime, LaneStats { dead: 1, ..LaneStats::default() });
    bench.clock.advance(DAY);
    assert!(bench.lease(Lane::Realtime, 1).await.is_empty());
}

pub(super) async fn orderly_returns_do_not_poison(backend: Backend) {
    let bench = Bench::new(backend).await;
    bench.enqueue(Lane::Realtime).await;
    for round in 0..4 * MAX_LEASES {
        let job = bench.one().await;
        assert!(!job.poisoned, "round {round}");
        if round < 2 * MAX_LEASES {
            bench.inbox.postpone(job.id, job.fence, 0).await.unwrap();
        } else {
            bench.retry_at(&job, 0).await;
        }
    }
}

pub(super) async fn exactly_what_is_granted_is_given(backend: Backend) {
    let bench = Bench::new(backend).await;
    let jobs = |destination, count| (0..count).map(|_| job_of(Lane::Realtime, destination)).collect::<Vec<_>>();
    bench.inbox.accept(request(None, jobs("a.example.com", 20))).await.unwrap();
    let old = bench.lease(Lane::Realtime, 20).await;
    for job in &old {
        bench.retry_at(job, START).await;
    }
    bench.clock.advance(5);
    let new = jobs("a.example.com", 30);
    bench.inbox.accept(request(None, new.clone())).await.unwrap();
    bench.inbox.accept(request(None, jobs("b.example.com", 10))).await.unwrap();
    bench.inbox.accept(request(None, vec![job_of(Lane::Bulk, "a.example.com")])).await.unwrap();
    let flows = bench.flows(Lane::Realtime).await;
    let counts: Vec<(&str, u64, u64)> =
        flows.iter().map(|waiting| (waiting.flow.destination.as_str(), waiting.first, waiting.retries)).collect();
    assert_eq!(counts, [("a.example.com", 30, 20), ("b.example.com", 10, 0)]);
    let (a, b) = (flows[0].id, flows[1].id);

    let taken = bench.inbox.lease(vec![Grant::any(a, 3, 2)]).await.unwrap();
    let ids = |jobs: &[Leased]| jobs.iter().map(|job| job.id).collect::<HashSet<_>>();
    let expected: HashSet<Uuid> = new[..3].iter().map(|job| job.id).chain(old[..2].iter().map(|job| job.id)).collect();
    assert_eq!((taken.len(), ids(&taken)), (5, expected), "those that waited longest");
    assert!(taken.iter().all(|job| job.flow == a));
    assert!(bench.inbox.lease(vec![Grant::any(b, 0, 5)]).await.unwrap().is_empty(), "no retry waits");
    // Far more grants than one statement takes.
    let many: Vec<NewJob> = (0..40).map(|n| job_of(Lane::Realtime, &format!("{n}.example.com"))).collect();
    bench.inbox.accept(request(None, many)).await.unwrap();
    let flows = bench.flows(Lane::Realtime).await;
    let grants = flows.iter().filter(|flow| flow.id != a).map(|flow| Grant::any(flow.id, 1, 1)).collect();
    let taken = bench.inbox.lease(grants).await.unwrap();
    assert_eq!((taken.len(), taken.iter().filter(|job| job.flow == b).count()), (41, 1));
    let twice = vec![Grant::any(b, 5, 0), Grant::any(b, 5, 0)];
    assert!(bench.inbox.lease(twice).await.unwrap().len() <= 9, "a job is given once");
    let taken = bench.inbox.lease(vec![Grant::any(a, 1, 0)]).await.unwrap();
    // A postponed first attempt stays one.
    bench.inbox.postpone(taken[0].id, taken[0].fence, 0).await.unwrap();
    assert_eq!(bench.inbox.lease(vec![Grant::any(a, 0, 99)]).await.unwrap().len(), 18);
    let first = bench.inbox.lease(vec![Grant::any(a, 99, 0)]).await.unwrap();
    assert_eq!(first.len(), 27);
    assert!(first.iter().any(|job| job.id == taken[0].id && job.attempt == 0));
}

pub(super) async fn only_what_is_old_enough_is_given(backend: Backend) {
    let bench = Bench::new(backend).await;
    let old = [bench.enqueue(Lane::Realtime).await, bench.enqueue(Lane::Realtime).await];
    let tried = bench.one().await;
    bench.clock.advance(MINUTE);
    bench.retry_at(&tried, 0).await;
    bench.enqueue(Lane::Realtime).await;
    let flow = bench.flows(Lane::Realtime).await[0].id;
    let until = |accepted_until| vec![Grant { flow, first: 9, retries: 9, accepted_until }];
    assert!(bench.inbox.lease(until(START - 1)).await.unwrap().is_empty());
    let taken: HashSet<Uuid> = bench.inbox.lease(until(START)).await.unwrap().iter().map(|job| job.id).collect();
    assert_eq!(taken, HashSet::from(old), "first attempts and retries, whenever they became ready");
    assert_eq!(bench.stats().await.realtime.ready, 1);
}

pub(super) async fn flows_tell_what_changed(backend: Backend) {
    let mut bench = Bench::new(backend).await;
    let ask = async |destination| {
        let jobs = vec![job_of(Lane::Realtime, destination)];
        bench.inbox.accept(request(None, jobs)).await.unwrap();
    };
    ask("a.example.com").await;
    ask("b.example.com").await;
    let all = bench.inbox.waiting(Lane::Realtime, 0).await.unwrap();
    assert_eq!(all.waiting.len(), 2);
    assert!(bench.inbox.waiting(Lane::Realtime, all.version).now_or_never().is_none(), "nothing is newer");
    assert!(bench.inbox.waiting(Lane::Bulk, 0).now_or_never().is_none());
    ask("b.example.com").await;
    ask("b.example.com").await;
    let news = bench.inbox.waiting(Lane::Realtime, all.version).await.unwrap();
    let told: Vec<(&str, u64)> = news.waiting.iter().map(|one| (one.flow.destination.as_str(), one.first)).collect();
    assert_eq!(told, [("b.example.com", 3)], "a flow is told once, as it is now");
    bench.restart().await;
    let again = bench.inbox.waiting(Lane::Realtime, 0).await.unwrap();
    let mut told: Vec<(&str, u64)> =
        again.waiting.iter().map(|one| (one.flow.destination.as_str(), one.first)).collect();
    told.sort_unstable();
    assert_eq!(told, [("a.example.com", 1), ("b.example.com", 3)], "flows are kept");
    for job in bench.lease(Lane::Realtime, 9).await {
        bench.finish(&job, done()).await.unwrap();
    }
    assert!(bench.flows(Lane::Realtime).await.iter().all(|one| (one.first, one.retries) == (0, 0)));
}

pub(super) async fn postponing_gives_back_without_an_attempt(backend: Backend) {
    let bench = Bench::new(backend).await;
    bench.enqueue(Lane::Realtime).await;
    let job = bench.one().await;
    bench.inbox.begin(job.id, job.fence, Bytes::from_static(b"x")).await.unwrap();
    bench.inbox.postpone(job.id, job.fence, START + 1_000).await.unwrap();
    assert!(bench.lease(Lane::Realtime, 1).await.is_empty());
    assert_eq!(bench.finish(&job, done()).await, Err(LeaseError::Fenced));
    bench.clock.advance(1_000);
    let job = bench.one().await;
    assert_eq!((job.attempt, job.ambiguous, job.rendered.as_deref()), (0, false, Some(&b"x"[..])));
    bench.inbox.postpone(job.id, job.fence, bench.clock.now()).await.unwrap();
    assert_eq!(bench.stats().await.realtime.ready, 1);
    bench.one().await;
}

pub(super) async fn everything_survives_a_crash(backend: Backend) {
    let mut bench = Bench::new(backend).await;
    let keyed = request(key(9, DAY), vec![job(Lane::Bulk)]);
    bench.inbox.accept(keyed.clone()).await.unwrap();
    let ids = join_all((0..6).map(|_| bench.enqueue(Lane::Realtime))).await;
    let jobs = bench.lease(Lane::Realtime, 5).await;
    bench.retry_at(&jobs[0], START + MINUTE).await;
    bench.finish(&jobs[1], dead("no \"such\" place\n")).await.unwrap();
    bench.finish(&jobs[2], done()).await.unwrap();
    bench.inbox.begin(jobs[3].id, jobs[3].fence, Bytes::from_static(b"sent?")).await.unwrap();
    let before = bench.stats().await;
    assert_eq!(before.realtime, LaneStats { ready: 1, leased: 2, delayed: 1, dead: 1, oldest_ready_ms: 0 });

    bench.crash().await;
    let after = bench.stats().await;
    assert_eq!(after.realtime, LaneStats { ready: 3, leased: 0, delayed: 1, dead: 1, oldest_ready_ms: 0 });
    assert_eq!((after.bulk.ready, after.outbox), (1, 3));
    assert_eq!(bench.reports().await, [&b"waits"[..], b"dead", b"done"]);
    assert_eq!(bench.inbox.accept(keyed.clone()).await, Ok(Accepted::Accepted));
    assert_eq!(bench.inbox.accept(request(key(9, DAY), vec![])).await, Ok(Accepted::Duplicate));
    assert_eq!(bench.finish(&jobs[3], done()).await, Err(LeaseError::Fenced), "leases end with their process");
    let again = bench.lease(Lane::Realtime, 10).await;
    let ambiguous: Vec<(Uuid, bool)> = again.iter().map(|job| (job.id, job.ambiguous)).collect();
    assert_eq!(ambiguous.len(), 3);
    assert!(ambiguous.contains(&(jobs[3].id, true)) && ambiguous.contains(&(jobs[4].id, false)));
    assert!(ambiguous.contains(&(ids[5], false)));
    assert_eq!(bench.finish(&jobs[3], done()).await, Err(LeaseError::Fenced), "also when the job is leased again");
    bench.clock.advance(MINUTE);
    assert!(bench.lease(Lane::Realtime, 10).await.iter().any(|job| job.id == jobs[0].id && job.attempt == 1));
}

pub(super) async fn the_outbox_keeps_order_and_numbers(backend: Backend) {
    let mut bench = Bench::new(backend).await;
    let jobs: Vec<NewJob> = (0..5).map(|_| job(Lane::Realtime)).collect();
    bench.inbox.accept(request(None, jobs)).await.unwrap();
    for (n, job) in bench.lease(Lane::Realtime, 5).await.iter().enumerate() {
        let report = if n == 4 { Bytes::new() } else { Bytes::from(vec![n as u8; 10]) };
        bench.finish(job, Finish::Done { report: report.into() }).await.unwrap();
    }
    let all = bench.inbox.outbox_read(0, 100, usize::MAX).await.unwrap();
    assert_eq!(all.iter().map(|row| row.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert!((0..4).all(|n| all[n].1 == vec![n as u8; 10]) && all[4].1.is_empty());
    let read = async |after, rows, bytes| {
        let rows = bench.inbox.outbox_read(after, rows, bytes).await.unwrap();
        rows.into_iter().map(|row| row.0).collect::<Vec<i64>>()
    };
    assert_eq!(read(1, 2, usize::MAX).await, [2, 3]);
    assert_eq!(read(0, 100, 29).await, [1, 2]);
    assert_eq!(read(0, 100, 0).await, [1], "one always goes through");
    assert!(read(5, 100, 100).await.is_empty() && read(0, 0, 100).await.is_empty());
    bench.inbox.outbox_trim(2).await.unwrap();
    bench.inbox.outbox_trim(1).await.unwrap();
    assert_eq!(read(0, 100, usize::MAX).await, [3, 4, 5]);
    assert_eq!(bench.stats().await.outbox, 3);
    bench.inbox.outbox_trim(i64::MAX).await.unwrap();
    assert_eq!((read(0, 100, usize::MAX).await.len(), bench.stats().await.outbox), (0, 0));
    bench.restart().await;
    assert!(bench.inbox.wait_outbox(0).now_or_never().is_none(), "trimmed reports wake nobody");
    bench.enqueue(Lane::Realtime).await;
    let job = bench.one().await;
    bench.finish(&job, done()).await.unwrap();
    let rows = bench.inbox.outbox_read(0, 100, usize::MAX).await.unwrap();
    assert_eq!(rows[0].0, 6, "a number is never given twice");
}

pub(super) async fn a_large_outbox_is_trimmed_to_the_end(backend: Backend) {
    let bench = Bench::new(backend).await;
    for _ in 0..5 {
        let jobs: Vec<NewJob> = (0..1_000).map(|_| job(Lane::Bulk)).collect();
        bench.inbox.accept(request(None, jobs)).await.unwrap();
        let jobs = bench.lease(Lane::Bulk, LEASE_LIMIT).await;
        assert_eq!(join_all(jobs.iter().map(|job| bench.finish(job, done()))).await.len(), 1_000);
    }
    assert_eq!(bench.stats().await.outbox, 5_000);
    bench.inbox.outbox_trim(4_999).await.unwrap();
    assert_eq!(bench.inbox.outbox_read(0, 10, 1_000).await.unwrap()[0].0, 5_000);
    assert_eq!(bench.stats().await.outbox, 1);
}

pub(super) async fn waiting_ends_when_there_is_something(backend: Backend) {
    let bench = Bench::new(backend).await;
    let wait = |lane, since| {
        let inbox = bench.inbox.clone();
        tokio::spawn(async move { inbox.waiting(lane, since).await })
    };
    let (mut waiting, bulk) = (wait(Lane::Realtime, 0), wait(Lane::Bulk, 0));
    let nothing = tokio::spawn({
        let inbox = bench.inbox.clone();
        async move { inbox.wait_outbox(0).await }
    });
    assert!((&mut waiting).now_or_never().is_none());
    bench.enqueue(Lane::Realtime).await;
    let news = soon(waiting).await.unwrap().unwrap();
    assert_eq!((news.waiting.len(), news.waiting[0].first), (1, 1));
    let again = bench.inbox.waiting(Lane::Realtime, 0).now_or_never();
    assert_eq!(again, Some(Ok(news)), "it is the state that counts");
    let job = bench.one().await;
    let leased = bench.inbox.waiting(Lane::Realtime, 0).await.unwrap();
    assert_eq!(leased.waiting[0].first, 0, "leased is not ready");
    let waiting = wait(Lane::Realtime, leased.version);
    bench.inbox.postpone(job.id, job.fence, 0).await.unwrap();
    assert_eq!(soon(waiting).await.unwrap().unwrap().waiting[0].first, 1);
    let job = bench.one().await;
    assert!(!nothing.is_finished() && !bulk.is_finished());
    bench.finish(&job, done()).await.unwrap();
    assert_eq!(soon(nothing).await.unwrap(), Ok(()));
    assert!(bench.inbox.wait_outbox(1).now_or_never().is_none());
    bench.inbox.close().await;
    assert_eq!(soon(bulk).await.unwrap(), Err(Unavailable), "nobody waits for a closed inbox");
}

pub(super) async fn waiting_ends_with_time_alone(backend: Backend) {
    let lease = Duration::from_millis(150);
    let bench = Bench::with(backend, Clock::system(), 100, lease).await;
    let ready = async || {
        let mut since = 0;
        loop {
            let news = soon(bench.inbox.waiting(Lane::Realtime, since)).await.unwrap();
            since = news.version;
            if news.waiting.iter().any(|one| one.first + one.retries > 0) {
                return;
            }
        }
    };
    bench.enqueue(Lane::Realtime).await;
    let job = bench.one().await;
    let due = bench.clock.now() + 100;
    bench.retry_at(&job, due).await;
    ready().await;
    assert!(bench.clock.now() >= due);
    let job = bench.one().await;
    let leased = bench.clock.now();
    // Nobody renews: the lease runs out by itself.
    ready().await;
    assert!(bench.clock.now() - leased >= 100);
    assert_eq!(bench.one().await.id, job.id);
}

pub(super) async fn a_lease_whose_answer_nobody_took_is_given_again(backend: Backend) {
    let bench = Bench::new(backend).await;
    let id = bench.enqueue(Lane::Realtime).await;
    let flow = bench.flows(Lane::Realtime).await[0].id;
    // Polled once, so that it is asked, and dropped. Where another thread has answered by then, it is given back.
    for _ in 0..20 {
        let answered = bench.inbox.lease(vec![Grant::any(flow, 1, 0)]).now_or_never();
        for job in answered.into_iter().flat_map(Result::unwrap) {
            bench.inbox.postpone(job.id, job.fence, 0).await.unwrap();
        }
    }
    let mut since = 0;
    let job = loop {
        if let Some(job) = bench.inbox.lease(vec![Grant::any(flow, 1, 0)]).await.unwrap().pop() {
            break job;
        }
        since = soon(bench.inbox.waiting(Lane::Realtime, since)).await.unwrap().version;
    };
    assert_eq!(job.id, id);
}

pub(super) async fn the_dead_are_kept_for_their_time(backend: Backend) {
    let mut bench = Bench::new(backend).await;
    for lane in Lane::ALL {
        bench.enqueue(lane).await;
        let job = bench.lease(lane, 1).await.remove(0);
        if lane == Lane::Bulk {
            bench.retry_at(&job, 0).await;
        }
    }
    bench.crash().await;
    for lane in Lane::ALL {
        let job = bench.lease(lane, 1).await.remove(0);
        bench.finish(&job, dead("gone")).await.unwrap();
    }
    bench.clock.advance(30 * DAY - 1);
    bench.enqueue(Lane::Realtime).await;
    let stats = bench.stats().await;
    assert_eq!((stats.realtime.dead, stats.bulk.dead), (1, 1));
    bench.clock.advance(2_000);
    bench.enqueue(Lane::Realtime).await;
    let stats = bench.stats().await;
    assert_eq!((stats.realtime.dead, stats.bulk.dead, stats.realtime.ready), (0, 0, 2));
}

pub(super) async fn a_closed_inbox_is_unavailable(backend: Backend) {
    let bench = Bench::new(backend).await;
    bench.enqueue(Lane::Realtime).await;
    let job = bench.one().await;
    bench.inbox.close().await;
    bench.inbox.close().await;
    assert_eq!(bench.inbox.accept(request(None, vec![])).await, Err(Unavailable));
    assert_eq!(bench.inbox.lease(Vec::new()).await, Err(Unavailable));
    assert_eq!(bench.finish(&job, done()).await, Err(LeaseError::Unavailable(Unavailable)));
    assert_eq!(bench.inbox.outbox_read(0, 1, 1).await, Err(Unavailable));
    assert_eq!(bench.inbox.stats().await, Err(Unavailable));
    assert_eq!(bench.inbox.waiting(Lane::Realtime, 0).await, Err(Unavailable));
    assert_eq!(bench.inbox.wait_outbox(0).await, Err(Unavailable));
    assert!(bench.inbox.failed().now_or_never().is_none());
}

#[expect(clippy::disallowed_methods, reason = "who runs the tests says how long")]
fn is_long() -> bool {
    std::env::var("SLUICE_LONG").is_ok_and(|value| value == "1")
}

/// Random steps, taken by the backend and by [`model`]: whatever can be seen of them is the same.
pub(super) async fn it_means_what_the_model_means(backend: Backend) {
    let seeds = match (is_long(), backend) {
        (true, _) => 200,
        (false, Backend::RedisKilled) => 3,
        (false, Backend::Embedded | Backend::Redis) => 6,
    };
    for seed in 0..seeds {
        assert_eq!(model::difference(backend, seed, 250, None).await, None);
    }
}

macro_rules! suite {
    ($backend:ident, $module:ident: $($test:ident)*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test(super::Backend::$backend).await;
                }
            )*
        }
    };
    ($($backend:ident as $module:ident)*) => {
        $(suite!($backend, $module:
            a_repeated_request_is_accepted_again_and_kept_once
            a_request_without_a_key_is_forgotten_after_its_time
            the_window_slides_with_every_request
            of_parallel_equals_exactly_one_is_accepted
            a_key_can_be_claimed_without_jobs
            a_full_queue_takes_and_claims_nothing
            large_amounts_leave_room_for_what_is_done_in_real_time
            jobs_come_in_order_with_what_was_accepted
            an_end_and_what_it_starts_are_one_step
            parallel_leases_never_share_a_job
            lanes_are_independent
            a_late_finisher_is_fenced
            a_lease_nobody_took_over_may_still_finish
            renewing_keeps_a_lease_and_names_the_lost
            a_retry_comes_when_due_with_the_same_bytes
            an_attempt_without_an_outcome_is_ambiguous
            a_job_is_found_wherever_it_is
            a_delayed_job_is_due_when_an_operator_says_so
            a_dead_job_lives_again_and_counts_on
            a_job_that_waits_can_be_cancelled_and_is_gone
            a_job_that_kills_its_workers_is_poisoned_and_reported_once
            orderly_returns_do_not_poison
            exactly_what_is_granted_is_given
            only_what_is_old_enough_is_given
            flows_tell_what_changed
            postponing_gives_back_without_an_attempt
            everything_survives_a_crash
            the_outbox_keeps_order_and_numbers
            a_large_outbox_is_trimmed_to_the_end
            waiting_ends_when_there_is_something
            waiting_ends_with_time_alone
            a_lease_whose_answer_nobody_took_is_given_again
            the_dead_are_kept_for_their_time
            a_closed_inbox_is_unavailable
            it_means_what_the_model_means
        );)*
    };
}

suite!(Embedded as embedded Redis as redis);
// Those in which something crashes.
suite!(RedisKilled, redis_killed:
    an_end_and_what_it_starts_are_one_step
    a_delayed_job_is_due_when_an_operator_says_so
    a_dead_job_lives_again_and_counts_on
    a_job_that_waits_can_be_cancelled_and_is_gone
    a_job_that_kills_its_workers_is_poisoned_and_reported_once
    everything_survives_a_crash
    the_dead_are_kept_for_their_time
    it_means_what_the_model_means
);
