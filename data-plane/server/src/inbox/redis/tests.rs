//! What only a store that is shared, and a server of its own, can get wrong. What every backend must do is in the shared suite.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use futures::FutureExt as _;

use super::*;
use crate::inbox::suite::{DAY, MINUTE, START, dead, done, job, job_of, key, request, soon};

mod beside;
mod cluster;
mod first_layout;
mod limits;
mod node;
mod proxy;
mod remembered;
mod replicas;
mod scripts;
pub(in crate::inbox) mod server;
mod store_faults;
mod together;

use proxy::Proxy;
use server::Server;

fn settings(server: &Server, plane: &str) -> RedisSettings {
    RedisSettings::new(server.url(), plane)
}

/// With leases that a test can wait for.
fn quick(server: &Server, plane: &str) -> RedisSettings {
    RedisSettings { lease: Duration::from_millis(300), ..settings(server, plane) }
}

async fn open(settings: RedisSettings) -> Redis {
    Redis::open(settings, Clock::system()).await.unwrap()
}

async fn enqueue(inbox: &Redis) -> Uuid {
    let accept = request(None, vec![job(Lane::Realtime)]);
    let id = accept.jobs[0].id;
    assert_eq!(inbox.accept(accept).await, Ok(Accepted::Accepted));
    id
}

/// Leases whatever is ready, as soon as something is.
async fn take(inbox: &Redis, most: usize) -> Vec<Leased> {
    let mut since = 0;
    loop {
        let flows = inbox.0.flows.news(Lane::Realtime, 0).waiting;
        let grants = flows.iter().map(|flow| Grant::any(flow.id, most, most)).collect();
        let jobs = inbox.lease(grants).await.unwrap();
        if !jobs.is_empty() {
            return jobs;
        }
        since = soon(inbox.waiting(Lane::Realtime, since)).await.unwrap().version;
    }
}

/// Tries until the store is there again.
async fn back<T>(mut ask: impl AsyncFnMut() -> Result<T, Unavailable>) -> T {
    let trying = async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(Unavailable) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    soon(trying).await
}

async fn losses(inbox: &Redis, wanted: u64) {
    let mut losses = inbox.0.losses.clone();
    soon(losses.wait_for(|losses| *losses == wanted)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_cannot_keep_the_promise_is_refused() {
    let mut cases: Vec<(&[&str], Durability, &str)> = vec![
        (&["--appendonly", "no"], Durability::Fast, "appendonly yes"),
        (&["--appendfsync", "everysec"], Durability::Strict, "appendfsync is `everysec`"),
        (&["--appendfsync", "always", "--maxmemory-policy", "allkeys-lru"], Durability::Strict, "allkeys-lru"),
    ];
    if !Server::start().await.has("WAITAOF") {
        cases.push((&["--appendfsync", "always"], Durability::Replicated { replicas: 1 }, "WAITAOF came with 7.2"));
    }
    for (options, durability, told) in cases {
        let server = Server::with(options).await;
        let error = Redis::open(RedisSettings { durability, ..settings(&server, "a") }, Clock::system()).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
        let keys: i64 = ::redis::cmd("DBSIZE").query(&mut server.client()).unwrap();
        assert_eq!(keys, 0, "nothing was changed");
    }
    let server = Server::with(&["--appendfsync", "everysec"]).await;
    open(RedisSettings { durability: Durability::Fast, ..settings(&server, "a") }).await.close().await;
}

#[tokio::test]
async fn another_number_of_shards_is_refused() {
    let server = Server::start().await;
    open(RedisSettings { shards: 3, ..settings(&server, "a") }).await.close().await;
    let error = Redis::open(settings(&server, "a"), Clock::system()).await.unwrap_err().to_string();
    assert!(error.contains("made with 3 shards and the settings say 1"), "{error}");
    open(RedisSettings { shards: 3, ..settings(&server, "a") }).await.close().await;
}

/// F44: each would take the jobs of the other, and could open none of them.
#[tokio::test]
async fn a_store_of_another_installation_is_left_alone() {
    let server = Server::start().await;
    let marked = |marks: &[&str]| marks.iter().map(|mark| (*mark).to_owned()).collect::<Vec<_>>();
    let of =
        |marks: &[&str], plane: &str| RedisSettings { marks: watch::channel(marked(marks)).1, ..quick(&server, plane) };
    let (ring, marks) = watch::channel(marked(&["old"]));
    let ours = open(RedisSettings { marks, ..of(&[], "a") }).await;
    enqueue(&ours).await;
    let ask = |command: &str, key: &str| -> i64 { ::redis::cmd(command).arg(key).query(&mut server.client()).unwrap() };
    for _ in 0..2 {
        let refused = Redis::open(of(&["foreign"], "b"), Clock::system()).await.unwrap_err().to_string();
        for told in ["the prefix `sluice`", "--redis-prefix", "delete the key `{sluice:0}owners`"] {
            assert!(refused.contains(told), "{refused}");
        }
    }
    assert_eq!((ask("HLEN", "{sluice:0}planes"), ask("ZCARD", "{sluice:0}owners")), (1, 1), "nothing was changed");
    open(RedisSettings { prefix: "other".to_owned(), ..of(&["foreign"], "b") }).await.close().await;
    open(of(&["new", "old"], "b")).await.close().await;

    // A ring that grows while a plane runs: what only has the newest key is of the same installation.
    ring.send_replace(marked(&["newest", "old"]));
    soon(async {
        while ask("ZCARD", "{sluice:0}owners") < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    open(of(&["newest"], "b")).await.close().await;
    assert_eq!(take(&ours, 1).await.len(), 1);

    // Whoever says that the store is his takes it.
    assert_eq!(ask("DEL", "{sluice:0}owners"), 1);
    open(of(&["foreign"], "b")).await.close().await;
}

#[tokio::test]
async fn a_password_is_shown_to_the_server_and_to_nobody_else() {
    let server = Server::with(&["--appendfsync", "always", "--requirepass", "hunter2"]).await;
    let with = |password: &str| RedisSettings {
        url: Secret::new(format!("{}?pass={password}", server.url().expose())),
        ..settings(&server, "a")
    };
    let inbox = open(with("hunter2")).await;
    enqueue(&inbox).await;
    assert!(!format!("{:?}{inbox:?}", with("hunter2")).contains("hunter2"));
    let wrong = Redis::open(with("wr0ng"), Clock::system()).await.unwrap_err();
    let broken = RedisSettings { url: Secret::new("redis//user:hunter2@host"), ..settings(&server, "a") };
    let broken = Redis::open(broken, Clock::system()).await.unwrap_err();
    for error in [wrong, broken] {
        let told = format!("{error} {error:?}");
        assert!(!told.contains("hunter2") && !told.contains("wr0ng"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planes_share_jobs_and_never_a_lease() {
    let server = Server::start().await;
    let planes = [open(settings(&server, "a")).await, open(settings(&server, "b")).await];
    let wanted: HashSet<Uuid> = join_all((0..200).map(|n| enqueue(&planes[n % 2]))).await.into_iter().collect();
    let work = |inbox: Redis| async move {
        let mut done_here = Vec::new();
        let mut since = 0;
        loop {
            let news = inbox.waiting(Lane::Realtime, since).await.unwrap();
            since = news.version;
            let grants = news.waiting.iter().map(|flow| Grant::any(flow.id, 3, 3)).collect();
            let jobs = inbox.lease(grants).await.unwrap();
            if jobs.is_empty() && inbox.stats().await.unwrap().realtime == LaneStats::default() {
                return done_here;
            }
            for job in &jobs {
                assert_eq!(inbox.finish(job.id, job.fence, done()).await, Ok(()));
                done_here.push(job.id);
            }
        }
    };
    let done_by = soon(join_all(planes.iter().map(|inbox| tokio::spawn(work(inbox.clone()))))).await;
    let done_by: Vec<Vec<Uuid>> = done_by.into_iter().map(Result::unwrap).collect();
    let all: HashSet<Uuid> = done_by.iter().flatten().copied().collect();
    assert_eq!((all.len(), done_by[0].len() + done_by[1].len()), (200, 200), "each once");
    assert_eq!(all, wanted);
    assert!(!done_by[0].is_empty() && !done_by[1].is_empty(), "both have worked");
}

#[tokio::test]
async fn what_one_plane_accepts_another_hears_of() {
    let server = Server::start().await;
    let [a, b] = [open(settings(&server, "a")).await, open(settings(&server, "b")).await];
    assert!(b.waiting(Lane::Realtime, 0).now_or_never().is_none());
    let id = enqueue(&a).await;
    let news = soon(b.waiting(Lane::Realtime, 0)).await.unwrap();
    assert_eq!((news.waiting.len(), news.waiting[0].first), (1, 1));
    let job = take(&b, 1).await.remove(0);
    assert_eq!(job.id, id);
    // And that it is gone.
    let gone = async {
        let mut since = 0;
        loop {
            let news = a.waiting(Lane::Realtime, since).await.unwrap();
            since = news.version;
            if news.waiting[0].first == 0 {
                return;
            }
        }
    };
    soon(gone).await;
    assert_eq!(
        a.finish(job.id, Fence { epoch: job.fence.epoch - 1, ..job.fence }, done()).await,
        Err(LeaseError::Fenced)
    );
    assert_eq!(b.finish(job.id, job.fence, done()).await, Ok(()));
}

#[tokio::test]
async fn what_a_dead_plane_held_and_told_is_taken_over() {
    let server = Server::start().await;
    let dead_plane = open(quick(&server, "a")).await;
    let alive = open(quick(&server, "b")).await;
    let (first, second) = (enqueue(&dead_plane).await, enqueue(&dead_plane).await);
    let jobs = take(&dead_plane, 2).await;
    assert_eq!(dead_plane.finish(jobs[0].id, jobs[0].fence, done()).await, Ok(()));
    dead_plane.begin(jobs[1].id, jobs[1].fence, Bytes::from_static(b"sent?")).await.unwrap();
    assert_eq!([jobs[0].id, jobs[1].id], [first, second]);
    drop(dead_plane);
    let job = take(&alive, 1).await.remove(0);
    assert_eq!((job.id, job.ambiguous, job.rendered.as_deref()), (second, true, Some(&b"sent?"[..])));
    soon(alive.wait_outbox(0)).await.unwrap();
    let told = alive.outbox_read(0, 10, usize::MAX).await.unwrap();
    assert_eq!(told, [(1, Bytes::from_static(b"done"))]);
    alive.outbox_trim(1).await.unwrap();
    // It comes back, and finds nothing of it.
    let again = open(quick(&server, "a")).await;
    assert!(again.outbox_read(0, 10, usize::MAX).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_an_orderly_plane_leaves_is_adopted_without_waiting_for_its_lease() {
    let server = Server::start().await;
    // Long leases: only the heartbeat of the other is waited for.
    let leaving = open(settings(&server, "a")).await;
    let jobs: Vec<_> = (0..250).map(|_| job(Lane::Realtime)).collect();
    leaving.accept(request(None, jobs)).await.unwrap();
    for job in take(&leaving, 250).await.iter().skip(1) {
        assert_eq!(leaving.finish(job.id, job.fence, done()).await, Ok(()));
    }
    leaving.close().await;
    let staying = open(settings(&server, "b")).await;
    assert_eq!(take(&staying, 9).await.len(), 1, "its lease ended with it");
    let mut after = 0;
    while after < 249 {
        soon(staying.wait_outbox(after)).await.unwrap();
        let told = staying.outbox_read(after, 1_000, usize::MAX).await.unwrap();
        assert_eq!(told.first().map(|row| row.0), Some(after + 1));
        after = told.last().unwrap().0;
    }
    assert_eq!(after, 249, "each once, in more than one batch");
}

#[tokio::test]
async fn of_two_processes_with_one_id_the_earlier_ends() {
    let server = Server::start().await;
    let earlier = open(settings(&server, "a")).await;
    enqueue(&earlier).await;
    let job = take(&earlier, 1).await.remove(0);
    let later = open(settings(&server, "a")).await;
    assert_eq!(earlier.finish(job.id, job.fence, done()).await, Err(LeaseError::Unavailable(Unavailable)));
    let told = soon(earlier.failed()).await;
    assert!(told.contains("data plane `a`"), "{told}");
    assert_eq!(take(&later, 1).await[0].id, job.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_comes_back_with_everything() {
    let mut server = Server::start().await;
    let inbox = open(settings(&server, "a")).await;
    let keyed = request(key(1, DAY), vec![job(Lane::Realtime)]);
    inbox.accept(keyed.clone()).await.unwrap();
    inbox.stats().await.unwrap();
    server.kill();
    // Fails closed: no 200 comes from memory.
    assert_eq!(inbox.accept(request(None, vec![job(Lane::Realtime)])).await, Err(Unavailable));
    let not_ready = async {
        while inbox.stats().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(not_ready).await;
    let since = inbox.shown()[0].away_since.unwrap();
    assert!(since.elapsed() >= AWAY_MAX, "a moment's absence is no news");
    server.restart().await;
    assert_eq!(back(|| inbox.accept(keyed.clone())).await, Accepted::Accepted, "it was kept, with its key");
    assert_eq!(inbox.accept(request(key(1, DAY), vec![])).await, Ok(Accepted::Duplicate));
    assert_eq!(take(&inbox, 9).await.len(), 1);
    assert_eq!(inbox.stats().await.unwrap().store_losses, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_answered_is_lost_when_the_server_is_killed_again_and_again() {
    let mut server = Server::start().await;
    let inbox = open(settings(&server, "a")).await;
    let mut kept = HashSet::new();
    for _ in 0..10 {
        let mut asked = Vec::new();
        for _ in 0..60 {
            let (inbox, accept) = (inbox.clone(), request(None, vec![job(Lane::Realtime)]));
            asked.push(tokio::spawn(async move { (accept.jobs[0].id, inbox.accept(accept).await) }));
        }
        tokio::task::yield_now().await;
        server.kill();
        server.restart().await;
        for asked in asked {
            let (id, answer) = asked.await.unwrap();
            if answer.is_ok() {
                kept.insert(id);
            }
        }
        kept.insert(
            back(async || {
                let accept = request(None, vec![job(Lane::Realtime)]);
                let id = accept.jobs[0].id;
                inbox.accept(accept).await.map(|_| id)
            })
            .await,
        );
    }
    let stored: HashSet<Uuid> = take(&inbox, 1_000).await.into_iter().map(|job| job.id).collect();
    assert!(kept.is_subset(&stored), "{} of {} are there", kept.intersection(&stored).count(), kept.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_unavailable_within_the_deadline() {
    let server = Server::start().await;
    let inbox = open(settings(&server, "a")).await;
    let signal = |name: &str| {
        let sent = std::process::Command::new("kill").arg(name).arg(server.id().to_string()).status();
        assert!(sent.unwrap().success());
    };
    signal("-STOP");
    assert_eq!(soon(inbox.accept(request(None, vec![job(Lane::Realtime)]))).await, Err(Unavailable));
    assert_eq!(inbox.stats().await, Err(Unavailable));
    signal("-CONT");
    back(|| inbox.stats()).await;
    enqueue(&inbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_lost_is_asked_for_again() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.dir());
    let inbox = open(RedisSettings { url: proxy.url(), ..settings(&server, "a") }).await;
    let accept = request(None, vec![job(Lane::Realtime)]);
    let id = accept.jobs[0].id;
    proxy.faults.lose_answer_to(id.as_bytes());
    assert_eq!(inbox.accept(accept).await, Ok(Accepted::Accepted));
    let jobs = take(&inbox, 9).await;
    assert_eq!(jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [id], "kept once");
    proxy.faults.lose_answer_to(id.as_bytes());
    let lost = inbox.finish(id, jobs[0].fence, done()).await;
    assert_eq!(lost, Err(LeaseError::Unavailable(Unavailable)), "whether it happened is unknown");
    let again = back(async || match inbox.finish(id, jobs[0].fence, done()).await {
        Err(LeaseError::Unavailable(error)) => Err(error),
        told => Ok(told),
    });
    assert_eq!(again.await, Err(LeaseError::Fenced), "it had");
    assert_eq!(inbox.outbox_read(0, 9, usize::MAX).await.unwrap().len(), 1, "and was told once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_replicas_an_answer_waits_for_them() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.dir());
    proxy.faults.replicas.store(2, Ordering::SeqCst);
    let durability = Durability::Replicated { replicas: 2 };
    let inbox = open(RedisSettings { url: proxy.url(), durability, ..settings(&server, "a") }).await;
    let id = enqueue(&inbox).await;
    let asked = proxy.faults.waits.load(Ordering::SeqCst);
    assert!(asked > 0, "replicas were asked");
    proxy.faults.replicas.store(1, Ordering::SeqCst);
    let keyed = request(key(1, DAY), vec![job(Lane::Bulk)]);
    assert_eq!(inbox.accept(keyed.clone()).await, Err(Unavailable), "one replica is too few");
    let jobs = take(&inbox, 9).await;
    assert_eq!(jobs[0].id, id, "a lease is no promise");
    assert_eq!(inbox.begin(id, jobs[0].fence, Bytes::new()).await, Err(LeaseError::Unavailable(Unavailable)));
    proxy.faults.replicas.store(2, Ordering::SeqCst);
    assert_eq!(inbox.accept(keyed).await, Ok(Accepted::Accepted));
    assert_eq!(inbox.stats().await.unwrap().bulk.ready, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_emptied_raises_the_alarm_and_is_gone_on_with() {
    let server = Server::start().await;
    let memory = Some(server.dir().join("memory"));
    let with = || RedisSettings { memory: memory.clone(), ..settings(&server, "a") };
    let inbox = open(with()).await;
    for _ in 0..3 {
        enqueue(&inbox).await;
    }
    let jobs = take(&inbox, 2).await;
    assert_eq!(inbox.finish(jobs[0].id, jobs[0].fence, done()).await, Ok(()));
    assert_eq!(inbox.outbox_read(0, 9, usize::MAX).await.unwrap()[0].0, 1);
    let flush = || ::redis::cmd("FLUSHALL").query::<()>(&mut server.client()).unwrap();
    flush();
    let lost = back(async || match inbox.finish(jobs[1].id, jobs[1].fence, done()).await {
        Err(LeaseError::Unavailable(error)) => Err(error),
        told => Ok(told),
    });
    assert_eq!(lost.await, Err(LeaseError::Fenced));
    losses(&inbox, 1).await;
    assert_eq!(inbox.stats().await.unwrap().realtime, LaneStats::default());
    let id = enqueue(&inbox).await;
    let job = take(&inbox, 1).await.remove(0);
    assert_eq!(job.id, id);
    assert_eq!(inbox.finish(job.id, job.fence, done()).await, Ok(()));
    soon(inbox.wait_outbox(1)).await.unwrap();
    assert_eq!(inbox.outbox_read(1, 9, usize::MAX).await.unwrap()[0].0, 2, "numbers do not begin again");
    inbox.close().await;
    // While nobody looked.
    flush();
    let inbox = open(with()).await;
    assert_eq!(inbox.stats().await.unwrap().store_losses, 1);
    inbox.close().await;
    assert_eq!(open(with()).await.stats().await.unwrap().store_losses, 0, "said once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_the_store_raises_the_alarm() {
    let mut server = Server::start().await;
    let inbox = open(settings(&server, "a")).await;
    enqueue(&inbox).await;
    let copy = tempfile::tempdir().unwrap();
    let files = |from: &std::path::Path, to: &std::path::Path| {
        let copied = std::process::Command::new("cp").arg("-r").arg(from).arg(to).status();
        assert!(copied.unwrap().success());
    };
    let log = server.dir().join("appendonlydir");
    files(&log, copy.path());
    enqueue(&inbox).await;
    server.kill();
    std::fs::remove_dir_all(&log).unwrap();
    files(&copy.path().join("appendonlydir"), server.dir());
    server.restart().await;
    losses(&inbox, 1).await;
    let stats = back(|| inbox.stats()).await;
    assert_eq!((stats.realtime.ready, stats.store_losses), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_memory_nothing_is_accepted_and_everything_else_is_done() {
    let server = Server::start().await;
    let inbox = open(settings(&server, "a")).await;
    enqueue(&inbox).await;
    let limit = |bytes: &str| {
        ::redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).query::<()>(&mut server.client()).unwrap()
    };
    limit("1");
    let keyed = request(key(1, DAY), vec![job(Lane::Realtime), job(Lane::Bulk)]);
    assert_eq!(inbox.accept(keyed.clone()).await, Err(Unavailable));
    let job = take(&inbox, 9).await.remove(0);
    inbox.begin(job.id, job.fence, Bytes::from_static(b"bytes")).await.unwrap();
    let both = join_all([
        inbox.accept(keyed.clone()).map(|answer| answer.map(drop)).left_future(),
        async { inbox.finish(job.id, job.fence, done()).await.map_err(|_| Unavailable) }.right_future(),
    ]);
    assert_eq!(both.await, [Err(Unavailable), Ok(())], "also when both are asked together");
    limit("0");
    let stats = inbox.stats().await.unwrap();
    assert_eq!((stats.realtime, stats.bulk, stats.outbox), (LaneStats::default(), LaneStats::default(), 1));
    assert_eq!(inbox.accept(keyed).await, Ok(Accepted::Accepted), "nothing of it was kept");
}

#[tokio::test]
async fn an_idle_plane_asks_for_nothing() {
    let server = Server::start().await;
    let inbox = open(settings(&server, "a")).await;
    enqueue(&inbox).await;
    let job = take(&inbox, 1).await.remove(0);
    inbox.postpone(job.id, job.fence, START + 100 * 365 * DAY).await.unwrap();
    let mut client = server.client();
    let mut processed = || {
        let info: String = ::redis::cmd("INFO").arg("stats").query(&mut client).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    let before = processed();
    // A measurement: it takes its time.
    tokio::time::sleep(Duration::from_secs(3)).await;
    // The first INFO counts.
    let asked = processed() - before - 1;
    assert!(asked < 6, "{asked} commands in 3 seconds");
}

/// The number that follows a name, however deep.
fn number_of(value: &::redis::Value, name: &str) -> i64 {
    let ::redis::Value::Array(values) = value else { return 0 };
    let named =
        values.windows(2).filter(|pair| value::text(&pair[0]) == Some(name)).filter_map(|pair| value::int(&pair[1]));
    named.chain(values.iter().map(|value| number_of(value, name))).sum()
}

#[tokio::test]
async fn a_dedup_key_takes_little_memory() {
    // Just more than a table of 2^14 places holds: its successor is half empty, and no key ever costs more.
    const KEYS: usize = 16_500;
    let server = Server::with(&["--appendfsync", "everysec"]).await;
    let inbox = open(RedisSettings { durability: Durability::Fast, ..settings(&server, "a") }).await;
    let mut client = server.client();
    // Keys and values, and their entries in the tables of keys and of expiries.
    let mut used = || {
        let stats: ::redis::Value = ::redis::cmd("MEMORY").arg("STATS").query(&mut client).unwrap();
        ["dataset.bytes", "overhead.hashtable.main", "overhead.hashtable.expires"]
            .map(|name| number_of(&stats, name))
            .iter()
            .sum::<i64>()
    };
    let claim = |n: usize| {
        let mut key = [0; 32];
        // Spread like a digest.
        key[..8].copy_from_slice(&(n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        key[8..16].copy_from_slice(&(n as u64).to_be_bytes());
        request(Some(super::super::Claim { key, window: Duration::from_secs(3_600) }), vec![])
    };
    let before = used();
    for from in (0..KEYS).step_by(500) {
        join_all((from..from + 500).map(|n| inbox.accept(claim(n)))).await;
    }
    let each = (used() - before) / KEYS as i64;
    let key: Vec<u8> = ::redis::cmd("RANDOMKEY").query(&mut server.client()).unwrap();
    let asked: i64 = ::redis::cmd("MEMORY").arg("USAGE").arg(&key).query(&mut server.client()).unwrap();
    println!("a dedup key takes {each} bytes in all; MEMORY USAGE says {asked}");
    assert!(each <= 160 && asked <= 160, "{each} and {asked} bytes");
    let ttl: i64 = ::redis::cmd("PTTL").arg(&key).query(&mut server.client()).unwrap();
    assert!((1..=3_600_000).contains(&ttl) || key.ends_with(b"meta"), "it goes by itself: {ttl} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_are_one_inbox() {
    let server = Server::start().await;
    let clock = Clock::manual(START);
    let with = || RedisSettings { shards: 3, max_jobs: 3_000, ..settings(&server, "a") };
    let inbox = Redis::open(with(), clock.clone()).await.unwrap();
    let mut ids = Vec::new();
    for n in 0..60u8 {
        clock.advance(1);
        let accept = request(key(n, DAY), vec![job_of(Lane::Realtime, "a.example.com")]);
        ids.push(accept.jobs[0].id);
        assert_eq!(inbox.accept(accept.clone()).await, Ok(Accepted::Accepted));
        assert_eq!(inbox.accept(accept).await, Ok(Accepted::Accepted));
        assert_eq!(inbox.accept(request(key(n, DAY), vec![])).await, Ok(Accepted::Duplicate));
    }
    let used: HashSet<usize> =
        inbox.0.flows.news(Lane::Realtime, 0).waiting.iter().map(|flow| shard_of(flow.id.0)).collect();
    assert_eq!(used.len(), 3, "all are used");
    let mut waited = Vec::new();
    let mut after = 0;
    loop {
        let part = inbox.waited(after, clock.now(), 7, usize::MAX).await.unwrap();
        let Some(last) = part.last() else { break };
        after = last.number;
        waited.extend(part.iter().map(|waited| waited.id));
    }
    assert_eq!(waited, ids, "in the order they were accepted in, each once");
    assert_eq!(inbox.find(ids[7]).await.unwrap().unwrap().payload.as_ref(), ids[7].as_bytes());
    assert_eq!(inbox.stats().await.unwrap().realtime.ready, 60);
    let jobs = take(&inbox, 60).await;
    assert_eq!(jobs.len(), 60);
    let leases: Vec<(Uuid, Fence)> = jobs.iter().map(|job| (job.id, job.fence)).collect();
    clock.advance(MINUTE - 1);
    assert_eq!(inbox.renew(&leases).await, Ok(vec![]));
    clock.advance(MINUTE - 1);
    for (n, job) in jobs.iter().enumerate() {
        let finish = if n % 2 == 0 { done() } else { dead("no") };
        assert_eq!(inbox.finish(job.id, job.fence, finish).await, Ok(()));
    }
    let numbers = |rows: &[(i64, Bytes)]| rows.iter().map(|row| row.0).collect::<Vec<i64>>();
    let first = inbox.outbox_read(0, 25, usize::MAX).await.unwrap();
    assert_eq!(numbers(&first), (1..=25).collect::<Vec<i64>>());
    assert_eq!(inbox.outbox_read(0, 25, usize::MAX).await.unwrap(), first, "the same when read again");
    inbox.outbox_trim(20).await.unwrap();
    let rest = inbox.outbox_read(0, 100, usize::MAX).await.unwrap();
    assert_eq!(numbers(&rest), (21..=60).collect::<Vec<i64>>());
    assert_eq!(rest[..5], first[20..]);
    let stats = inbox.stats().await.unwrap();
    assert_eq!((stats.realtime.dead, stats.outbox), (30, 40));
    inbox.close().await;
    let inbox = Redis::open(with(), clock).await.unwrap();
    let rest = inbox.outbox_read(0, 100, usize::MAX).await.unwrap();
    assert_eq!(numbers(&rest), (21..=60).collect::<Vec<i64>>());
}
