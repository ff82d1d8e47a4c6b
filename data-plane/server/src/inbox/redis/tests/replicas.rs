//! Mode `replicated` on a real primary and its replica. WAITAOF came with 7.2: where the server is older, `tests/run` has these run on
//! Valkey alone.

use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::node::{Node, until};
use super::*;

struct Pair {
    primary: Node,
    replica: Node,
}

impl Pair {
    async fn start() -> Self {
        let (primary, replica) = (Node::start(&[]).await, Node::start(&[]).await);
        replica.ask::<()>(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
        let pair = Self { primary, replica };
        pair.is_in_step().await;
        pair
    }

    /// A replica that has just been filled flushes nothing before it has written its file anew.
    async fn is_in_step(&self) {
        until("the replica to follow", || {
            let mut connection = self.primary.connect().unwrap();
            ::redis::cmd("SET").arg("probe").arg(1).query::<()>(&mut connection).unwrap();
            let flushed = ::redis::cmd("WAITAOF").arg(1).arg(1).arg(1_000).query::<(i64, i64)>(&mut connection);
            flushed.unwrap() == (1, 1)
        })
        .await;
    }

    /// Whichever of both is the primary.
    fn settings(&self, plane: &str) -> RedisSettings {
        let urls = [self.primary.url(), self.replica.url()].join("\n");
        let durability = Durability::Replicated { replicas: 1 };
        RedisSettings { durability, ..RedisSettings::new(Secret::new(urls), plane) }
    }
}

/// What came of requests that are asked one after the other, in several tasks at once, until it is dropped.
#[derive(Default)]
struct Load {
    /// The jobs of those that were answered.
    answered: std::sync::Mutex<HashSet<Uuid>>,
    refused: AtomicUsize,
    stop: AtomicBool,
}

impl Load {
    async fn run(&self, inbox: &Redis) {
        while !self.stop.load(Ordering::SeqCst) {
            let accept = request(None, vec![job(Lane::Realtime)]);
            let id = accept.jobs[0].id;
            match inbox.accept(accept).await {
                Ok(accepted) => {
                    assert_eq!(accepted, Accepted::Accepted);
                    self.answered.lock().unwrap().insert(id);
                }
                Err(Unavailable) => {
                    self.refused.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }
}

/// ST1, ST3: whatever was answered is on the replica's disk, whatever was asked for while it did not answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs WAITAOF: tests/run has it run on Valkey"]
async fn what_was_answered_is_on_the_disk_of_the_replica_that_takes_over() {
    let mut pair = Pair::start().await;
    let inbox = open(pair.settings("a")).await;
    let load = Arc::new(Load::default());
    let loading: Vec<_> = (0..4)
        .map(|_| {
            let (load, inbox) = (load.clone(), inbox.clone());
            tokio::spawn(async move { load.run(&inbox).await })
        })
        .collect();
    until("load", || load.answered.lock().unwrap().len() > 100).await;
    pair.replica.signal("-STOP");
    let before = load.refused.load(Ordering::SeqCst);
    until("requests that are not answered", || load.refused.load(Ordering::SeqCst) > before + 4).await;
    pair.primary.kill();
    load.stop.store(true, Ordering::SeqCst);
    join_all(loading).await.into_iter().for_each(|ended| ended.unwrap());
    // Nothing but its disk counts. Started again, it follows nobody.
    pair.replica.kill();
    pair.replica.restart().await;

    let answered = std::mem::take(&mut *load.answered.lock().unwrap());
    let mut stored = HashSet::new();
    while !answered.is_subset(&stored) {
        let flows = inbox.0.flows.news(Lane::Realtime, 0).waiting;
        let grants: Vec<Grant> = flows.iter().map(|flow| Grant::any(flow.id, 500, 500)).collect();
        let jobs = back(|| inbox.lease(grants.clone())).await;
        assert!(!jobs.is_empty(), "{} of {} are there", answered.intersection(&stored).count(), answered.len());
        stored.extend(jobs.into_iter().map(|job| job.id));
    }
    assert_eq!(*inbox.0.losses.borrow(), 0, "nothing that was promised is missing");
    assert_eq!(inbox.accept(request(None, vec![])).await, Err(Unavailable), "alone it promises nothing");

    // What was the primary follows it now, and is still the first that is asked.
    pair.primary.restart().await;
    pair.primary.ask::<()>(&["REPLICAOF", "127.0.0.1", &pair.replica.port.to_string()]);
    back(|| inbox.accept(request(None, vec![]))).await;
    let later = open(pair.settings("b")).await;
    back(|| later.accept(request(None, vec![]))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs WAITAOF: tests/run has it run on Valkey"]
async fn while_a_replica_does_not_answer_nothing_is() {
    let pair = Pair::start().await;
    let inbox = open(pair.settings("a")).await;
    let accept = request(None, vec![job(Lane::Realtime)]);
    let id = accept.jobs[0].id;
    back(|| inbox.accept(accept.clone())).await;
    pair.replica.signal("-STOP");
    let keyed = request(key(1, DAY), vec![job(Lane::Bulk)]);
    assert_eq!(soon(inbox.accept(keyed.clone())).await, Err(Unavailable));
    let jobs = take(&inbox, 9).await;
    assert_eq!(jobs[0].id, id, "a lease is no promise");
    assert_eq!(inbox.begin(id, jobs[0].fence, Bytes::new()).await, Err(LeaseError::Unavailable(Unavailable)));
    pair.replica.signal("-CONT");
    assert_eq!(back(|| inbox.accept(keyed.clone())).await, Accepted::Accepted);
    assert_eq!(inbox.stats().await.unwrap().bulk.ready, 1, "kept once");
}
