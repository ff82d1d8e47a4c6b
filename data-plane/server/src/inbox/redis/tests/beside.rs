//! A step is asked while another is under way.

use futures::future::join_all;
use tokio::sync::oneshot;

use super::*;

/// Requests that are all asked before any of them is answered: the first by itself, the others together.
struct Held {
    server: Server,
    proxy: Proxy,
    inbox: Redis,
    ids: Vec<Uuid>,
    asking: tokio::task::JoinHandle<Vec<Result<Accepted, Unavailable>>>,
}

impl Held {
    async fn requests(first_is_lost: bool) -> Self {
        let server = Server::start().await;
        let proxy = Proxy::before(server.dir());
        let inbox = open(RedisSettings { url: proxy.url(), ..settings(&server, "a") }).await;
        let accepts: Vec<Accept> = (0..40).map(|n| request(key(n, DAY), vec![job(Lane::Realtime)])).collect();
        let ids: Vec<Uuid> = accepts.iter().map(|accept| accept.jobs[0].id).collect();
        if first_is_lost {
            proxy.faults.lose_answer_to(ids[0].as_bytes());
        }
        // Whatever a plane asks by itself when it starts has been answered with it.
        enqueue(&inbox).await;
        take(&inbox, 1).await;
        proxy.faults.held.send_replace(true);
        let (first_is_kept, others) = oneshot::channel();
        let asking = tokio::spawn({
            let inbox = inbox.clone();
            async move {
                let mut asking: Vec<_> = accepts.into_iter().map(|accept| inbox.accept(accept).boxed()).collect();
                assert!((&mut asking[0]).now_or_never().is_none());
                others.await.unwrap();
                join_all(asking).await
            }
        });
        let held = Self { server, proxy, inbox, ids, asking };
        held.wait_for(1).await;
        first_is_kept.send(()).unwrap();
        // At least one step of the others.
        held.wait_for(2).await;
        held
    }

    async fn wait_for(&self, kept: usize) {
        soon(async {
            while self.kept() < kept {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// How many of them the store has.
    fn kept(&self) -> usize {
        let kept = |id: &Uuid| -> bool {
            ::redis::cmd("HEXISTS").arg("{sluice:0}ids").arg(id.as_bytes()).query(&mut self.server.client()).unwrap()
        };
        self.ids.iter().filter(|id| kept(id)).count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_is_kept_before_the_one_before_it_is_answered() {
    let held = Held::requests(false).await;
    assert!(!held.asking.is_finished());
    held.proxy.faults.held.send_replace(false);
    assert_eq!(soon(held.asking).await.unwrap(), vec![Ok(Accepted::Accepted); held.ids.len()]);
    let leased: HashSet<Uuid> = take(&held.inbox, 100).await.iter().map(|job| job.id).collect();
    assert_eq!(leased, held.ids.iter().copied().collect());
}

/// What is asked again is not accepted twice, nor said to be a duplicate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_whose_answers_are_lost_together_are_asked_again_once() {
    let held = Held::requests(true).await;
    held.proxy.faults.held.send_replace(false);
    assert_eq!(soon(held.asking).await.unwrap(), vec![Ok(Accepted::Accepted); held.ids.len()]);
    let mut leased: Vec<Uuid> = Vec::new();
    while leased.len() < held.ids.len() {
        leased.extend(take(&held.inbox, 100).await.iter().map(|job| job.id));
    }
    let ids: HashSet<Uuid> = leased.iter().copied().collect();
    assert_eq!((leased.len(), ids), (held.ids.len(), held.ids.iter().copied().collect()));
}
