//! A Redis Cluster of real processes: shards on several nodes, one that moves while planes work, and one whose node dies.

use std::sync::atomic::AtomicBool;

use ::redis::cmd;

use super::node::{Node, until};
use super::*;

const SHARDS: u16 = 6;
const SLOTS: u16 = 16_384;
const OPTIONS: &[&str] =
    &["--cluster-enabled", "yes", "--cluster-node-timeout", "5000", "--cluster-replica-validity-factor", "0"];

/// Three nodes, each with a third of the slots.
struct Cluster([Node; 3]);

impl Cluster {
    async fn start() -> Self {
        let cluster = Self([Node::start(OPTIONS).await, Node::start(OPTIONS).await, Node::start(OPTIONS).await]);
        for (n, node) in (0u16..).zip(&cluster.0) {
            let (first, last) = (n * (SLOTS / 3), if n == 2 { SLOTS } else { (n + 1) * (SLOTS / 3) } - 1);
            node.ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            node.ask::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]);
            cluster.meet(node);
        }
        cluster.is_whole(3).await;
        cluster
    }

    fn meet(&self, node: &Node) {
        let first = &self.0[0];
        let place = [first.port, first.bus].map(|port| port.to_string());
        node.ask::<()>(&["CLUSTER", "MEET", "127.0.0.1", &place[0], &place[1]]);
    }

    /// All of the first so many nodes know all others, and all slots are served.
    async fn is_whole(&self, nodes: usize) {
        until("the cluster to be whole", || {
            self.0.iter().all(|node| {
                let info: String = node.ask(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{nodes}\r"))
            })
        })
        .await;
    }

    fn settings(&self, seed: usize, plane: &str) -> RedisSettings {
        let url = Secret::new(self.0[seed].url());
        let marks = watch::channel(vec!["ours".to_owned()]).1;
        RedisSettings { shards: SHARDS, marks, ..RedisSettings::new(url, plane) }
    }

    fn slot(&self, shard: u16) -> u16 {
        self.0[0].ask(&["CLUSTER", "KEYSLOT", &shard::base("sluice", shard)])
    }

    fn owner(&self, slot: u16) -> usize {
        usize::from((slot / (SLOTS / 3)).min(2))
    }

    /// Moves a slot as `redis-cli --cluster reshard` does.
    fn reshard(&self, slot: u16, to: usize) {
        self.begin_move(slot, to);
        while self.move_keys(slot, to, 10) > 0 {}
        self.end_move(slot, to);
    }

    fn begin_move(&self, slot: u16, to: usize) {
        let from = &self.0[self.owner(slot)];
        let (to, slot) = (&self.0[to], slot.to_string());
        to.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from.id()]);
        from.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to.id()]);
    }

    /// So many of them; answers how many that was.
    fn move_keys(&self, slot: u16, to: usize, most: usize) -> usize {
        let mut connection = self.0[self.owner(slot)].connect().unwrap();
        let keys: Vec<Vec<u8>> =
            cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(most).query(&mut connection).unwrap();
        if !keys.is_empty() {
            let mut migrate = cmd("MIGRATE");
            migrate.arg("127.0.0.1").arg(self.0[to].port).arg("").arg(0).arg(5_000).arg("KEYS").arg(&keys);
            migrate.query::<()>(&mut connection).unwrap();
        }
        keys.len()
    }

    fn end_move(&self, slot: u16, to: usize) {
        let from = &self.0[self.owner(slot)];
        let (to, slot) = (&self.0[to], slot.to_string());
        for node in [to, from, &self.0[0], &self.0[1], &self.0[2]] {
            node.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &to.id()]);
        }
    }
}

/// Asks until it is answered.
async fn answered(inbox: &Redis, accept: Accept) -> Accepted {
    let asking = async {
        loop {
            match inbox.accept(accept.clone()).await {
                Ok(answer) => return answer,
                Err(Unavailable) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    soon(asking).await
}

/// Accepts one request after the other until told to stop; answers the ids of all jobs.
async fn load(inbox: Redis, stop: Arc<AtomicBool>) -> Vec<Uuid> {
    let mut ids = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let accept = request(key_of(ids.len()), vec![job(Lane::Realtime)]);
        let other = request(key_of(ids.len()), vec![job(Lane::Realtime)]);
        ids.push(accept.jobs[0].id);
        assert_eq!(answered(&inbox, accept).await, Accepted::Accepted, "its own repetition is no duplicate");
        assert_eq!(answered(&inbox, other).await, Accepted::Duplicate);
    }
    ids
}

fn key_of(n: usize) -> Option<super::super::super::Claim> {
    let mut claim = key(0, DAY).unwrap();
    // Spread over the shards.
    claim.key[8..16].copy_from_slice(&(n as u64).to_be_bytes());
    claim.key[..8].copy_from_slice(&(n as u64).to_be_bytes());
    Some(claim)
}

/// Works until all of these are done; answers how many were.
async fn work(inbox: &Redis, wanted: &HashSet<Uuid>) -> usize {
    let (mut done_here, mut since) = (Vec::new(), 0);
    let working = async {
        while done_here.len() < wanted.len() {
            let flows = inbox.0.flows.news(Lane::Realtime, 0).waiting;
            let grants = flows.iter().map(|flow| Grant::any(flow.id, 100, 100)).collect();
            let jobs = back(|| inbox.lease(Vec::clone(&grants))).await;
            if jobs.is_empty() {
                since = inbox.waiting(Lane::Realtime, since).await.unwrap().version;
            }
            for job in jobs {
                assert_eq!(inbox.finish(job.id, job.fence, done()).await, Ok(()));
                done_here.push(job.id);
            }
        }
    };
    soon(working).await;
    let all: HashSet<Uuid> = done_here.iter().copied().collect();
    assert_eq!(&all, wanted, "each of them");
    done_here.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_moves_to_another_node_takes_everything_along() {
    let cluster = Cluster::start().await;
    let owners: HashSet<usize> = (0..SHARDS).map(|shard| cluster.owner(cluster.slot(shard))).collect();
    assert!(owners.len() > 1, "the shards are on several nodes");
    let [a, b] = [open(cluster.settings(0, "a")).await, open(cluster.settings(2, "b")).await];
    let stop = Arc::new(AtomicBool::new(false));
    let loading = tokio::spawn(load(a.clone(), stop.clone()));
    until("load", || b.0.flows.news(Lane::Realtime, 0).waiting.iter().map(|flow| flow.first).sum::<u64>() > 20).await;
    for shard in [0, 1] {
        let slot = cluster.slot(shard);
        let to = (cluster.owner(slot) + 1) % 3;
        let before: i64 = cluster.0[to].ask(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]);
        cluster.reshard(slot, to);
        let after: i64 = cluster.0[to].ask(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]);
        assert!(before == 0 && after > 5, "{after} keys have moved");
    }
    // And goes on after it.
    for inbox in [&a, &b] {
        back(|| inbox.stats()).await;
        back(|| inbox.accept(request(None, vec![]))).await;
    }
    stop.store(true, Ordering::SeqCst);
    let ids: HashSet<Uuid> = loading.await.unwrap().into_iter().collect();
    let stats = back(|| b.stats()).await;
    assert_eq!((stats.realtime.ready, stats.store_losses), (ids.len() as u64, 0));
    assert_eq!(work(&b, &ids).await, ids.len(), "each once");
    // Whoever comes later finds its way from any node.
    let later = open(cluster.settings(1, "c")).await;
    assert_eq!(later.stats().await.unwrap().realtime, LaneStats::default());
}

/// A request for the first shard.
fn for_first_shard(n: u64) -> Accept {
    let mut claim = key(0, DAY).unwrap();
    claim.key[..8].copy_from_slice(&n.to_be_bytes());
    claim.key[8..16].copy_from_slice(&(n * u64::from(SHARDS)).to_be_bytes());
    request(Some(claim), vec![job(Lane::Realtime)])
}

/// No script sees a part of a shard: none is run while its keys move, and all of them where the keys are when they have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_moving_is_asked_where_it_is_as_a_whole() {
    let cluster = Cluster::start().await;
    let slot = cluster.slot(0);
    let (from, to) = (cluster.owner(slot), (cluster.owner(slot) + 1) % 3);
    let keys = |node: usize| cluster.0[node].ask::<i64>(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]);
    let inbox = open(cluster.settings(0, "a")).await;
    let mut ids = HashSet::new();
    for n in 0..5 {
        let accept = for_first_shard(n);
        ids.insert(accept.jobs[0].id);
        assert_eq!(inbox.accept(accept).await, Ok(Accepted::Accepted));
    }
    let leased = take(&inbox, 2).await;

    cluster.begin_move(slot, to);
    assert_eq!(cluster.move_keys(slot, to, 6), 6);
    let before = [from, to].map(keys);
    let unavailable = soon(inbox.accept(for_first_shard(5))).await;
    assert_eq!((unavailable, [from, to].map(keys)), (Err(Unavailable), before), "half of it takes nothing");

    while cluster.move_keys(slot, to, 10) > 0 {}
    let accept = for_first_shard(6);
    ids.insert(accept.jobs[0].id);
    assert_eq!(answered(&inbox, accept).await, Accepted::Accepted, "its old node still owns it");
    assert_eq!(answered(&inbox, for_first_shard(1)).await, Accepted::Duplicate);
    let done_first = back(async || match inbox.finish(leased[0].id, leased[0].fence, done()).await {
        Err(LeaseError::Unavailable(error)) => Err(error),
        told => Ok(told),
    });
    assert_eq!(done_first.await, Ok(()));
    assert!(keys(from) == 0 && keys(to) > 0);
    let later = open(cluster.settings(2, "b")).await;
    assert_eq!(back(|| later.stats()).await.store_losses, 0);

    cluster.end_move(slot, to);
    assert_eq!(answered(&later, for_first_shard(2)).await, Accepted::Duplicate);
    assert_eq!(inbox.finish(leased[1].id, leased[1].fence, done()).await, Ok(()));
    leased.iter().for_each(|job| assert!(ids.remove(&job.id)));
    assert_eq!(work(&inbox, &ids).await, ids.len(), "each once");
    assert_eq!(*inbox.0.losses.borrow(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_a_shard_that_has_moved_does_not_notice() {
    let cluster = Cluster::start().await;
    let slot = cluster.slot(0);
    let inbox = open(cluster.settings(0, "a")).await;
    assert_eq!(inbox.accept(for_first_shard(1)).await, Ok(Accepted::Accepted));
    let leased = take(&inbox, 1).await.remove(0);
    cluster.reshard(slot, (cluster.owner(slot) + 1) % 3);
    assert_eq!(soon(inbox.finish(leased.id, leased.fence, done())).await, Ok(()), "nothing of it was done before");
    assert_eq!(inbox.accept(for_first_shard(2)).await, Ok(Accepted::Accepted));
}

/// ST3: nothing is lost of what the replica had, and the plane finds it by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_over_is_found() {
    let mut cluster = Cluster::start().await;
    let slot = cluster.slot(0);
    let (dies, seed) = (cluster.owner(slot), (cluster.owner(slot) + 1) % 3);
    let replica = Node::start(OPTIONS).await;
    cluster.meet(&replica);
    cluster.is_whole(4).await;
    let master = cluster.0[dies].id();
    until("the replica to know its master", || {
        let nodes: String = replica.ask(&["CLUSTER", "NODES"]);
        nodes.contains(&master)
    })
    .await;
    replica.ask::<()>(&["CLUSTER", "REPLICATE", &master]);
    // The first one that is asked is the one that dies.
    let urls = [dies, seed].map(|node| cluster.settings(node, "a").url.expose().to_owned());
    let inbox = open(RedisSettings { url: Secret::new(urls.join("\n")), ..cluster.settings(seed, "a") }).await;
    let mut ids = HashSet::new();
    for _ in 0..30 {
        ids.insert(enqueue(&inbox).await);
    }
    let node = &cluster.0[dies];
    until("the replica to have everything", || {
        let size: i64 = node.ask(&["DBSIZE"]);
        let mirrored: i64 = replica.ask(&["DBSIZE"]);
        let info: String = replica.ask(&["INFO", "replication"]);
        let other: String = node.ask(&["INFO", "replication"]);
        let offset = |info: &str, name: &str| {
            info.lines().find_map(|line| line.strip_prefix(name).map(str::trim).map(str::to_owned))
        };
        info.contains("master_link_status:up")
            && size == mirrored
            && offset(&info, "slave_repl_offset:") == offset(&other, "master_repl_offset:")
    })
    .await;
    cluster.0[dies].kill();
    replica.ask::<()>(&["CLUSTER", "FAILOVER", "TAKEOVER"]);
    let stats = async {
        loop {
            // What the store said last is told for a moment, while it is away.
            let stats = back(|| inbox.stats()).await;
            if inbox.shown().iter().all(|shard| shard.away_since.is_none()) {
                return stats;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(soon(stats).await.store_losses, 0);
    for _ in 0..30 {
        let accept = request(None, vec![job(Lane::Realtime)]);
        ids.insert(accept.jobs[0].id);
        back(|| inbox.accept(accept.clone())).await;
    }
    assert_eq!(work(&inbox, &ids).await, ids.len(), "each once");
    assert!(replica.dir.path().exists());
}
