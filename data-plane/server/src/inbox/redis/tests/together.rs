//! What many ask in one moment is one step, whose writes wait for each other: it must leave the store as if each had asked alone.

use std::collections::HashMap;

use ::redis::cmd;

use super::store_faults::Walk;
use super::*;
use crate::inbox::Steer;
use crate::inbox::suite::again;

/// What a lease ends with, by the number of its turn.
async fn work(inbox: &Redis, job: Leased, turn: usize) -> Result<(), LeaseError> {
    if turn % 5 != 4 {
        inbox.begin(job.id, job.fence, Bytes::from_static(b"bytes")).await?;
    }
    match turn % 5 {
        0 | 1 => inbox.finish(job.id, job.fence, done()).await,
        2 => inbox.finish(job.id, job.fence, again(0, Bytes::from_static(b"other"))).await,
        3 => inbox.finish(job.id, job.fence, dead("no")).await,
        _ => inbox.postpone(job.id, job.fence, 0).await,
    }
}

/// Whatever is counted in places of its own says what the jobs say.
async fn is_sound(server: &Server, inbox: &Redis) {
    let mut walk = Walk { client: server.client() };
    assert_eq!(walk.contradictions(), Vec::<String>::new());
    let kept = walk.keys("j:*");
    let (mut flows, mut bulk, mut waited): (HashMap<String, i64>, i64, HashSet<String>) = Default::default();
    for key in kept {
        let job: Vec<u8> = cmd("GET").arg(&key).query(&mut walk.client).unwrap();
        let fields: Vec<String> = String::from_utf8_lossy(&job[17..]).split(' ').map(str::to_owned).collect();
        *flows.entry(fields[4].clone()).or_default() += 1;
        bulk += i64::from(fields[0] == "1");
        if fields[7] == "0" && fields[1] != "x" {
            let row = String::from_utf8(key).unwrap();
            waited.insert(row.rsplit_once(':').unwrap().1.to_owned());
        }
    }
    let of = |name: &str| format!("{}{name}", Walk::BASE);
    let mut uses: HashMap<String, i64> = cmd("HGETALL").arg(of("uses")).query(&mut walk.client).unwrap();
    uses.retain(|_, count| *count != 0);
    let bulk_kept: Option<i64> = cmd("HGET").arg(of("meta")).arg("bulk").query(&mut walk.client).unwrap();
    let kept_waited: HashSet<String> = cmd("ZRANGE").arg(of("waited")).arg(0).arg(-1).query(&mut walk.client).unwrap();
    assert_eq!((uses, bulk_kept.unwrap_or(0), kept_waited), (flows, bulk, waited));
    let shown: u64 = Lane::ALL
        .into_iter()
        .flat_map(|lane| inbox.0.flows.news(lane, 0).waiting)
        .map(|flow| flow.first + flow.retries)
        .sum();
    let ready: usize =
        walk.keys("q:*").iter().map(|key| cmd("LLEN").arg(key).query::<usize>(&mut walk.client).unwrap()).sum();
    assert_eq!(shown, ready as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_together_is_as_if_asked_alone() {
    let server = Server::start().await;
    let inbox = open(settings(&server, "a")).await;
    for round in 0..30usize {
        let accepts = (0..40u8).map(|n| {
            let lane = if n % 3 == 0 { Lane::Bulk } else { Lane::Realtime };
            let jobs = (0..1 + n % 2).map(|_| job_of(lane, &format!("{}.example.com", n % 4))).collect();
            // Some are duplicates.
            inbox.accept(request(key(n.wrapping_mul(round as u8), DAY), jobs)).map(drop)
        });
        let workers = (0..6usize).map(|worker| {
            let inbox = &inbox;
            async move {
                let lane = Lane::ALL[worker % 2];
                let flows = inbox.0.flows.news(lane, 0).waiting;
                let grants = flows.iter().map(|flow| Grant::any(flow.id, 3, 3)).collect();
                let jobs = inbox.lease(grants).await.unwrap();
                let leases: Vec<(Uuid, Fence)> = jobs.iter().map(|job| (job.id, job.fence)).collect();
                let turns = jobs.into_iter().enumerate().map(|(turn, job)| work(inbox, job, turn + worker + round));
                let (ends, renewed) = tokio::join!(join_all(turns), inbox.renew(&leases));
                assert!(ends.into_iter().all(|end| end.is_ok()) && renewed.is_ok());
            }
        });
        let operator = async {
            let waited = inbox.waited(0, i64::MAX, 5, usize::MAX).await.unwrap();
            for job in waited {
                let Some(found) = inbox.find(job.id).await.unwrap() else { continue };
                // It may have gone on since.
                let _gone = inbox.steer(job.id, found.fence, Steer::Cancel { report: Bytes::new() }).await;
            }
        };
        tokio::join!(join_all(accepts), join_all(workers), operator);
        if round % 10 == 9 {
            is_sound(&server, &inbox).await;
        }
    }
}

/// Commands are what a job costs in Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_are_done_together_share_their_commands() {
    const JOBS: usize = 200;
    let server = Server::start().await;
    let inbox = open(settings(&server, "a")).await;
    let mut client = server.client();
    let mut calls = || -> u64 {
        let told: String = cmd("INFO").arg("commandstats").query(&mut client).unwrap();
        let counts =
            told.lines().filter_map(|line| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok());
        counts.sum()
    };
    let before = calls();
    let all = join_all((0..JOBS).map(|_| inbox.accept(request(None, vec![job(Lane::Realtime)])))).await;
    assert!(all.into_iter().all(|answer| answer == Ok(Accepted::Accepted)));
    let jobs = take(&inbox, JOBS).await;
    let begun = join_all(jobs.iter().map(|job| inbox.begin(job.id, job.fence, Bytes::from_static(b"bytes")))).await;
    let ended = join_all(jobs.iter().map(|job| inbox.finish(job.id, job.fence, done()))).await;
    assert!(begun.into_iter().chain(ended).all(|answer| answer == Ok(())) && jobs.len() == JOBS);
    inbox.outbox_trim(i64::MAX).await.unwrap();
    let each = (calls() - before) as f64 / JOBS as f64;
    println!("{each:.1} commands for each job");
    // Its key is read and written alone; everything else is shared.
    assert!(each < 6.0, "{each:.1} commands for each job");
}

/// I4: a step that ends in the middle may leave a job whose key is not there, which is delivered twice, but no key without its jobs,
/// which would be lost.
#[tokio::test]
async fn what_ends_a_step_in_the_middle_leaves_no_key_without_its_jobs() {
    let server = Server::start().await;
    let inbox = open(settings(&server, "a")).await;
    enqueue(&inbox).await;
    let mut walk = Walk { client: server.client() };
    let waited = format!("{}waited", Walk::BASE);
    cmd("RENAME").arg(&waited).arg("aside").query::<()>(&mut walk.client).unwrap();
    cmd("SET").arg(&waited).arg("of another kind").query::<()>(&mut walk.client).unwrap();
    let accept = || request(key(7, DAY), vec![job(Lane::Realtime)]);
    assert_eq!(inbox.accept(accept()).await, Err(Unavailable));
    assert_eq!(walk.keys("d*"), Vec::<Vec<u8>>::new());
    cmd("RENAME").arg("aside").arg(&waited).query::<()>(&mut walk.client).unwrap();
    assert_eq!(inbox.accept(accept()).await, Ok(Accepted::Accepted));
}
