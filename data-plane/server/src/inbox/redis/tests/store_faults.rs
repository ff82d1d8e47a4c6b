//! Faults of the store itself (ST1 to ST8), as far as one server and one plane show them.

use std::collections::HashMap;
use std::path::Path;

use ::redis::cmd;

use super::*;
use crate::inbox::NewJob;
use crate::inbox::suite::again;

/// Where every row is, as kept in the structures that say so, and as its job says itself.
pub(super) struct Walk {
    pub(super) client: ::redis::Connection,
}

impl Walk {
    pub(super) const BASE: &str = "{sluice:0}";

    pub(super) fn keys(&mut self, of: &str) -> Vec<Vec<u8>> {
        cmd("KEYS").arg(format!("{}{of}", Self::BASE)).query(&mut self.client).unwrap()
    }

    /// Everything that contradicts "each job is in exactly one place" (I18), and "no key without its jobs" (I2).
    pub(super) fn contradictions(&mut self) -> Vec<String> {
        let mut places: HashMap<String, Vec<char>> = HashMap::new();
        for (pattern, place) in [("q:*", 'r'), ("x:*", 'l'), ("z:*", 'd'), ("dead:*", 'x')] {
            for key in self.keys(pattern) {
                let read = if place == 'r' { "LRANGE" } else { "ZRANGE" };
                let rows: Vec<String> = cmd(read).arg(&key).arg(0).arg(-1).query(&mut self.client).unwrap();
                rows.into_iter().for_each(|row| places.entry(row).or_default().push(place));
            }
        }
        let mut ids: HashMap<Vec<u8>, String> =
            cmd("HGETALL").arg(format!("{}ids", Self::BASE)).query(&mut self.client).unwrap();
        // One is none, see `store.lua`.
        ids.retain(|id, _| id.len() == 16);
        let mut found = Vec::new();
        for (id, row) in &ids {
            let job = format!("{}j:{row}", Self::BASE);
            let own: Vec<u8> = cmd("GET").arg(&job).query(&mut self.client).unwrap();
            // The id, the lane and the place, with a space between them.
            let (own_id, own_place) = (own.get(..16).unwrap_or_default(), own.get(19).map(|place| char::from(*place)));
            let payload: i64 = cmd("EXISTS").arg(format!("{}p:{row}", Self::BASE)).query(&mut self.client).unwrap();
            let place: String = places.remove(row).unwrap_or_default().into_iter().collect();
            if own_id != id || own_place.map(String::from).as_ref() != Some(&place) || payload != 1 {
                found.push(format!("row {row} says {own_place:?} and is in {place:?}, payload {payload}"));
            }
        }
        found.extend(places.keys().map(|row| format!("row {row} is somewhere and no job")));
        let rows = self.keys("j:*").len();
        if rows != ids.len() {
            found.push(format!("{rows} jobs and {} ids", ids.len()));
        }
        found
    }

    /// How many dedup keys there are, how many jobs were ever accepted.
    fn accepted(&mut self) -> (usize, i64) {
        let kept: i64 = cmd("HLEN").arg(format!("{}ids", Self::BASE)).query(&mut self.client).unwrap();
        let told: i64 = cmd("LLEN").arg(format!("{}o:a", Self::BASE)).query(&mut self.client).unwrap();
        (self.keys("d????????????????").len(), kept - 1 + told)
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// ST2, CP2, CP10, CP12: whatever moment a loss of power cuts the append-only file at, steps are in it as a whole or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_ends_in_the_middle_of_a_step_holds_whole_steps() {
    const CUTS: u64 = 40;
    let mut server = Server::start().await;
    let log = server.dir().join("appendonlydir");
    let file = log.join("appendonly.aof.1.incr.aof");
    let clock = Clock::manual(START);
    let inbox = Redis::open(settings(&server, "a"), clock.clone()).await.unwrap();
    let from = std::fs::metadata(&file).unwrap().len();
    // One job with each key, so that keys can be counted against jobs.
    for n in 0..3 {
        assert_eq!(inbox.accept(request(key(n, DAY), vec![job(Lane::Realtime)])).await, Ok(Accepted::Accepted));
    }
    let jobs = take(&inbox, 3).await;
    inbox.begin(jobs[0].id, jobs[0].fence, Bytes::from_static(b"bytes")).await.unwrap();
    inbox.finish(jobs[0].id, jobs[0].fence, done()).await.unwrap();
    inbox.postpone(jobs[1].id, jobs[1].fence, START + MINUTE).await.unwrap();
    inbox.finish(jobs[2].id, jobs[2].fence, dead("no")).await.unwrap();
    clock.advance(MINUTE);
    // Promoted, and leased again.
    take(&inbox, 1).await;
    server.kill();
    drop(inbox);
    let to = std::fs::metadata(&file).unwrap().len();
    let whole = tempfile::tempdir().unwrap();
    copy(&log, whole.path());
    let mut seen = HashSet::new();
    for cut in 0..=CUTS {
        copy(whole.path(), &log);
        let length = from + (to - from) * cut / CUTS;
        std::fs::File::options().write(true).open(&file).unwrap().set_len(length).unwrap();
        server.restart().await;
        let mut walk = Walk { client: server.client() };
        assert_eq!(walk.contradictions(), Vec::<String>::new(), "cut at {length} of {to}");
        let (keys, accepted) = walk.accepted();
        assert!(keys as i64 <= accepted, "cut at {length} of {to}: {keys} keys and {accepted} jobs");
        seen.insert((keys, accepted));
        server.kill();
    }
    assert!(seen.contains(&(0, 0)) && seen.len() >= 4, "the cuts were everywhere: {seen:?}");
}

/// ST5: what is answered is on the disk, also when it is full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_takes_nothing_and_keeps_everything() {
    for (flush, durability) in [("always", Durability::Strict), ("everysec", Durability::Fast)] {
        let mut server = Server::within(200, &["--appendfsync", flush, "--auto-aof-rewrite-percentage", "0"]).await;
        let inbox = open(RedisSettings { durability, ..settings(&server, "a") }).await;
        let mut kept = HashSet::new();
        let refused = async {
            loop {
                let large = NewJob { payload: Bytes::from(vec![7; 3_000]), ..job(Lane::Realtime) };
                let id = large.id;
                match inbox.accept(request(None, vec![large])).await {
                    Ok(answer) => assert_eq!(answer, Accepted::Accepted),
                    Err(Unavailable) => return,
                }
                kept.insert(id);
            }
        };
        soon(refused).await;
        assert!(kept.len() > 20, "{flush}: {} were kept", kept.len());
        match durability {
            // Redis ends itself.
            Durability::Strict => {
                server.kill();
                server.unlimited();
                server.restart().await;
            }
            Durability::Fast | Durability::Replicated { .. } => server.has_room_again(),
        }
        let accept = request(None, vec![job(Lane::Realtime)]);
        kept.insert(accept.jobs[0].id);
        assert_eq!(back(|| inbox.accept(accept.clone())).await, Accepted::Accepted);
        let stored: HashSet<Uuid> = take(&inbox, 1_000).await.into_iter().map(|job| job.id).collect();
        assert!(kept.is_subset(&stored), "{flush}: {} of {}", kept.intersection(&stored).count(), kept.len());
        assert_eq!(inbox.stats().await.unwrap().store_losses, 0);
    }
}

/// ST8: keys and leases end early or late when the clock of the store jumps, and no job is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_loses_nothing() {
    for jump in [7 * DAY, -7 * DAY] {
        let server = Server::start().await;
        let clock = Clock::manual(START);
        let inbox = Redis::open(settings(&server, "a"), clock.clone()).await.unwrap();
        let keyed = || request(key(1, DAY), vec![job(Lane::Realtime)]);
        assert_eq!(inbox.accept(keyed()).await, Ok(Accepted::Accepted));
        let retried = take(&inbox, 1).await.remove(0);
        inbox.finish(retried.id, retried.fence, again(START + MINUTE, Bytes::new())).await.unwrap();
        enqueue(&inbox).await;
        let leased = take(&inbox, 1).await.remove(0);
        inbox.begin(leased.id, leased.fence, Bytes::from_static(b"sent?")).await.unwrap();
        clock.advance(jump);
        let again = inbox.accept(keyed()).await.unwrap();
        let stats = inbox.stats().await.unwrap().realtime;
        if jump > 0 {
            assert_eq!(again, Accepted::Accepted, "the key had ended");
            assert_eq!((stats.ready, stats.leased, stats.delayed), (3, 0, 0));
            assert_eq!(inbox.finish(leased.id, leased.fence, done()).await, Err(LeaseError::Fenced));
            assert!(take(&inbox, 9).await.iter().any(|job| job.id == leased.id && job.ambiguous));
        } else {
            assert_eq!(again, Accepted::Duplicate);
            assert_eq!((stats.ready, stats.leased, stats.delayed), (0, 1, 1));
            enqueue(&inbox).await;
            assert_eq!(inbox.finish(leased.id, leased.fence, done()).await, Ok(()));
            assert_eq!(take(&inbox, 9).await.len(), 1);
            clock.advance(-jump + MINUTE);
            inbox.renew(&[]).await.unwrap();
            assert!(take(&inbox, 9).await.iter().any(|job| job.id == retried.id), "due when its time comes");
        }
        let mut walk = Walk { client: server.client() };
        assert_eq!(walk.contradictions(), Vec::<String>::new());
    }
}
