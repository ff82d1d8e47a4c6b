//! What a plane has brought it remembers: a first lease does not tell it again.

use ::redis::cmd;

use super::store_faults::Walk;
use super::*;
use crate::inbox::{Finish, NewJob, Report};

/// Has the store tell something else, so that it is seen who tells.
fn forge_payloads(server: &Server) {
    let mut walk = Walk { client: server.client() };
    for key in walk.keys("p:*") {
        cmd("SET").arg(key).arg("told").query::<()>(&mut walk.client).unwrap();
    }
}

fn payloads(jobs: &[Leased]) -> HashSet<&[u8]> {
    jobs.iter().map(|job| job.payload.as_ref()).collect()
}

#[tokio::test]
async fn what_a_plane_has_brought_it_is_not_told_again() {
    let server = Server::start().await;
    let [a, b] = [open(settings(&server, "a")).await, open(settings(&server, "b")).await];
    let (first, second) = (job(Lane::Realtime), job(Lane::Realtime));
    let brought = a.accept(request(None, vec![first.clone(), second.clone()])).await;
    assert_eq!(brought, Ok(Accepted::Accepted));
    forge_payloads(&server);
    let jobs = take(&a, 2).await;
    assert_eq!(payloads(&jobs), HashSet::from([first.payload.as_ref(), second.payload.as_ref()]));
    let known: Vec<_> = jobs.iter().map(|job| (job.id, job.lane, job.attempt, job.rendered.as_ref())).collect();
    assert_eq!(known, [(first.id, Lane::Realtime, 0, None), (second.id, Lane::Realtime, 0, None)]);
    assert_eq!(jobs[0].flow, a.0.flows.news(Lane::Realtime, 0).waiting[0].id);

    // A later lease tells, whatever this one had under way.
    a.postpone(first.id, jobs[0].fence, 0).await.unwrap();
    assert_eq!(payloads(&take(&a, 1).await), HashSet::from([&b"told"[..]]));

    // What an end starts is brought by it.
    let next = job(Lane::Realtime);
    let report = Report { told: Bytes::new(), jobs: vec![next.clone()] };
    a.finish(second.id, jobs[1].fence, Finish::Done { report }).await.unwrap();
    forge_payloads(&server);
    assert_eq!(payloads(&take(&a, 1).await), HashSet::from([next.payload.as_ref()]));

    // Another plane has brought nothing, nor has the next life of this one.
    for _ in 0..2 {
        enqueue(&a).await;
    }
    forge_payloads(&server);
    assert_eq!(payloads(&take(&b, 1).await), HashSet::from([&b"told"[..]]));
    let again = open(settings(&server, "a")).await;
    assert_eq!(payloads(&take(&again, 9).await), HashSet::from([&b"told"[..]]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_plane_has_brought_without_being_told_where_it_is_is_read() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.dir());
    let inbox = open(RedisSettings { url: proxy.url(), ..settings(&server, "a") }).await;
    let accepts: [Accept; 3] = std::array::from_fn(|_| request(None, vec![job(Lane::Realtime)]));
    // The answer to the second is lost, and repeated without its row; what comes before it is remembered.
    proxy.faults.lose_answer_to(accepts[1].jobs[0].id.as_bytes());
    for accept in &accepts {
        assert_eq!(inbox.accept(accept.clone()).await, Ok(Accepted::Accepted));
    }
    let jobs = take(&inbox, 9).await;
    let expected: HashSet<&[u8]> = accepts.iter().map(|accept| accept.jobs[0].payload.as_ref()).collect();
    assert_eq!((jobs.len(), payloads(&jobs)), (3, expected));
    for job in jobs {
        assert_eq!(inbox.finish(job.id, job.fence, done()).await, Ok(()));
    }
}

/// A server ends the connection of somebody who hears news when 32 MB wait to be sent to them (`client-output-buffer-limit`).
#[tokio::test]
async fn of_very_large_jobs_no_more_are_leased_at_once_than_a_connection_carries() {
    const LARGE: usize = 1 << 20;
    let server = Server::start().await;
    let [a, b] = [open(settings(&server, "a")).await, open(settings(&server, "b")).await];
    let mut brought = Vec::new();
    for _ in 0..40 {
        let large = NewJob { payload: vec![7; LARGE].into(), ..job(Lane::Realtime) };
        brought.push(large.id);
        assert_eq!(a.accept(request(None, vec![large])).await, Ok(Accepted::Accepted));
    }
    let mut leased = Vec::new();
    while leased.len() < brought.len() {
        let jobs = take(&b, 100).await;
        assert!(jobs.iter().all(|job| job.payload.len() == LARGE));
        assert!(jobs.len() <= 8, "{} of them", jobs.len());
        leased.extend(jobs.iter().map(|job| job.id));
    }
    assert_eq!(leased, brought, "in their order");
}
