//! A store that an earlier build has written, with its jobs in hashes, is gone on with.

use std::collections::BTreeMap;

use ::redis::cmd;

use super::store_faults::Walk;
use super::*;
use crate::inbox::Place;
use crate::inbox::suite::again;

fn key_of(name: &str) -> String {
    format!("{}{name}", Walk::BASE)
}

/// Makes of everything what the first layout made of it.
fn bring_back(server: &Server) {
    let mut walk = Walk { client: server.client() };
    for key in walk.keys("j:*") {
        let job: Vec<u8> = cmd("GET").arg(&key).query(&mut walk.client).unwrap();
        let (id, rest) = job.split_at(16);
        let rest = std::str::from_utf8(rest).unwrap();
        let fields: Vec<&str> = rest[1..].splitn(11, ' ').collect();
        let mut hash = cmd("HSET");
        hash.arg(&key).arg("id").arg(id);
        for (name, value) in ["l", "s", "b", "m", "f", "a", "at", "n", "k", "e"].iter().zip(&fields) {
            hash.arg(name).arg(value);
        }
        // Who had the last lease stayed there.
        match fields[1] {
            "x" => hash.arg("o").arg("somebody").arg("why").arg(fields[10]),
            "l" => hash.arg("o").arg(fields[10]),
            _ => &mut hash,
        };
        cmd("DEL").arg(&key).query::<()>(&mut walk.client).unwrap();
        hash.query::<()>(&mut walk.client).unwrap();
    }
    let mut ask = |command: &str, words: &[&str]| {
        cmd(command).arg(key_of("meta")).arg(words).query::<Option<String>>(&mut walk.client).unwrap()
    };
    let changes = ask("HGET", &["changes"]).unwrap();
    ask("HSET", &["layout", "1", "version", &changes]);
    ask("HDEL", &["changes"]);
    cmd("HDEL").arg(key_of("ids")).arg("-".repeat(65)).query::<()>(&mut walk.client).unwrap();
}

#[tokio::test]
async fn a_store_of_the_first_layout_is_gone_on_with() {
    let server = Server::start().await;
    let clock = Clock::manual(START);
    let inbox = Redis::open(settings(&server, "a"), clock.clone()).await.unwrap();
    for _ in 0..6 {
        enqueue(&inbox).await;
    }
    let jobs = take(&inbox, 6).await;
    let [waits, retried, leased, begun, delayed, buried] = jobs.as_slice() else { panic!("{} jobs", jobs.len()) };
    inbox.postpone(waits.id, waits.fence, 0).await.unwrap();
    for job in [retried, begun, delayed, buried] {
        inbox.begin(job.id, job.fence, Bytes::from_static(b"first")).await.unwrap();
    }
    for (job, due) in [(retried, 0), (delayed, START + MINUTE)] {
        inbox.finish(job.id, job.fence, again(due, Bytes::from_static(b"second"))).await.unwrap();
    }
    inbox.finish(buried.id, buried.fence, dead("no")).await.unwrap();
    let fresh = enqueue(&inbox).await;
    drop(inbox);
    bring_back(&server);

    let inbox = Redis::open(settings(&server, "b"), clock.clone()).await.unwrap();
    let layout: (String, Option<String>) =
        cmd("HMGET").arg(key_of("meta")).arg("layout").arg("version").query(&mut server.client()).unwrap();
    assert_eq!(layout, ("2".to_owned(), None), "an earlier build finds no version, and is refused");
    let stats = inbox.stats().await.unwrap().realtime;
    assert_eq!((stats.ready, stats.leased, stats.delayed, stats.dead), (3, 2, 1, 1));
    let waited = inbox.waited(0, START, 9, usize::MAX).await.unwrap();
    let without: HashSet<Uuid> = waited.into_iter().map(|job| job.id).collect();
    assert_eq!(without, HashSet::from([fresh, waits.id, leased.id, begun.id]));
    let found = inbox.find(buried.id).await.unwrap().unwrap();
    assert_eq!((found.place, found.rendered.as_deref()), (Place::Dead, Some(&b"first"[..])));
    inbox.steer(buried.id, found.fence, Steer::Retry { report: Bytes::new() }).await.unwrap();
    assert_eq!(inbox.finish(leased.id, leased.fence, done()).await, Ok(()), "its lease is in force");
    clock.advance(MINUTE);
    inbox.stats().await.unwrap();
    let told = |job: Leased| (job.id, (job.attempt, job.ambiguous, job.rendered));
    let taken = take(&inbox, 9).await;
    let mut again: BTreeMap<_, _> = taken.iter().cloned().map(told).collect();
    let bytes = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    for (id, expected) in [
        (waits.id, (0, false, None)),
        (retried.id, (1, false, bytes("second"))),
        (begun.id, (0, true, bytes("first"))),
        (delayed.id, (1, false, bytes("second"))),
        (buried.id, (1, false, bytes("first"))),
        (fresh, (0, false, None)),
    ] {
        assert_eq!(again.remove(&id), Some(expected));
    }
    assert!(again.is_empty());
    let mut walk = Walk { client: server.client() };
    assert_eq!(walk.contradictions(), Vec::<String>::new());
    for job in taken {
        assert_eq!(inbox.finish(job.id, job.fence, done()).await, Ok(()));
    }
    assert_eq!([walk.keys("j:*"), walk.keys("p:*"), walk.keys("r:*")], [const { Vec::<Vec<u8>>::new() }; 3]);
}
