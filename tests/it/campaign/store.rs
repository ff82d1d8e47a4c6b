//! Faults of the shared store under load, with real processes: a server in trouble (F25), one that loses its last seconds (F21, ST2), a
//! pair that is torn apart (F23, ST4).

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::PoisonError;

use serde_json::json;
use sluice::destination::{Answer, Gate};
use sluice_tests::redis_server::tell;
use sluice_tests::{Callee, Line, Mood, RawHttp, RedisServer, Request, eventually, long};

use super::ledger::Sent;
use super::{Campaign, SENDERS};

#[tokio::test(flavor = "multi_thread")]
async fn f25_a_redis_in_trouble_takes_nothing_or_keeps_it() {
    let mut campaign = Campaign::start_with_short_leases(RedisServer::start().await, |_| {}).await;
    for _ in 0..long::either(1, 20) {
        campaign.under_load(trouble).await;
        campaign.holds().await;
    }
    campaign.end().await;
}

/// One trouble after the other.
async fn trouble(campaign: &mut Campaign) {
    let mut console = campaign.redis.as_ref().unwrap().console().await;
    let socket = campaign.redis.as_ref().unwrap().socket();
    campaign.answers(100).await;

    // Its file is written anew, and is what it comes back from.
    assert!(console.tell("BGREWRITEAOF").await.starts_with('+'));
    campaign.answers(100).await;
    let is_rewritten = async || {
        let info = tell(&socket, "INFO persistence").await;
        (info.contains("aof_rewrite_in_progress:0") && info.contains("aof_last_bgrewrite_status:ok")).then_some(())
    };
    eventually("the file to be written anew", is_rewritten).await;
    campaign.redis.as_mut().unwrap().crash().await;
    campaign.paused();
    campaign.answers(100).await;

    // It is busy with somebody's endless script.
    let mut console = campaign.redis.as_ref().unwrap().console().await;
    assert_eq!(console.tell("CONFIG SET busy-reply-threshold 50").await, "+OK");
    let mut other = campaign.redis.as_ref().unwrap().console().await;
    let endless = tokio::spawn(async move { other.tell("EVAL \"while true do end\" 0").await });
    campaign.paused();
    campaign.refusals(SENDERS).await;
    assert_eq!(tell(&socket, "SCRIPT KILL").await, "+OK");
    assert!(endless.await.unwrap().starts_with('-'));
    campaign.answers(100).await;

    // Its memory is full.
    assert_eq!(console.tell("CONFIG SET maxmemory 1").await, "+OK");
    campaign.refusals(SENDERS).await;
    assert_eq!(console.tell("CONFIG SET maxmemory 0").await, "+OK");
    campaign.answers(100).await;

    // It takes no more connections, and has ended those it had.
    assert_eq!(console.tell("CONFIG SET maxclients 1").await, "+OK");
    campaign.paused();
    assert!(console.tell("CLIENT KILL SKIPME yes").await.starts_with(':'));
    campaign.refusals(SENDERS).await;
    assert_eq!(console.tell("CONFIG SET maxclients 10000").await, "+OK");
    campaign.answers(100).await;
}

/// What was answered among the first so many requests is delivered. What was answered later and is lost was lost with its key: sent
/// again, it is taken and delivered. Answers how many were lost.
async fn lost_with_their_keys(campaign: &mut Campaign, kept: usize) -> usize {
    campaign.idle().await;
    let sent = campaign.load.sent.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let missing = lost(campaign, &sent);
    let early: Vec<&Sent> = sent[..kept].iter().filter(|sent| missing.contains(&sent.marker)).collect();
    assert!(early.iter().all(|sent| sent.answer.is_none()), "promised in time and lost: {early:?}");
    let keyed: BTreeSet<&str> = sent.iter().filter(|sent| sent.keyed).map(|sent| sent.marker.as_str()).collect();
    let mut again = Vec::new();
    for marker in missing.iter().filter(|marker| keyed.contains(marker.as_str())) {
        let request = Request::post(&campaign.load.path, json!({ "marker": marker }).to_string());
        let request = request.header("X-Deduplication-Hash", marker);
        let answer = RawHttp::connect(campaign.load.doors[0]).await.exchange(&request).await;
        assert_eq!(answer.status, 200, "{marker}: a key without its job (I2)");
        again.push(Sent { marker: marker.clone(), keyed: true, answer: Some(200) });
    }
    campaign.idle().await;
    assert_eq!(lost(campaign, &again), BTreeSet::new());
    missing.len()
}

/// What was promised and has not arrived.
fn lost(campaign: &Campaign, sent: &[Sent]) -> BTreeSet<String> {
    let seen = campaign.destination.requests();
    let arrived: BTreeSet<String> =
        seen.iter().map(|seen| seen.json().unwrap()["marker"].as_str().unwrap().to_owned()).collect();
    let promised = sent.iter().filter(|sent| sent.answer.is_some()).map(|sent| sent.marker.clone());
    promised.filter(|marker| !arrived.contains(marker)).collect()
}

/// The destination answers nobody until the gate is open: what is accepted piles up, so that there is something to lose.
fn piling_up(campaign: &Campaign) -> Gate {
    let gate = Gate::new();
    campaign.destination.script((0..5_000).map(|_| Answer::status(200).after(&gate)));
    gate
}

fn sent_so_far(campaign: &Campaign) -> usize {
    campaign.load.sent.lock().unwrap_or_else(PoisonError::into_inner).len()
}

#[tokio::test(flavor = "multi_thread")]
async fn st2_in_fast_mode_a_power_loss_takes_the_last_moments_and_their_keys_together() {
    let redis = RedisServer::start_with(&["--appendfsync", "everysec"], &[]).await;
    let file = redis.folder().join("appendonlydir/appendonly.aof.1.incr.aof");
    let mut campaign = Campaign::start_with_short_leases(redis, |setup| setup.fast = true).await;
    let gate = piling_up(&campaign);
    let mut kept = 0;
    campaign
        .under_load(async |campaign| {
            campaign.answers(300).await;
            // What is answered is in the file; up to here it is flushed as well.
            kept = sent_so_far(campaign);
            let flushed = std::fs::metadata(&file).unwrap().len();
            campaign.answers(200).await;
            let redis = campaign.redis.as_mut().unwrap();
            redis.kill().await;
            assert!(std::fs::metadata(&file).unwrap().len() > flushed);
            std::fs::File::options().write(true).open(&file).unwrap().set_len(flushed).unwrap();
            redis.revive().await;
            campaign.answers(100).await;
            gate.open();
        })
        .await;
    let lost = lost_with_their_keys(&mut campaign, kept).await;
    println!("{lost} of the last requests before the power loss are lost");
    assert!(lost > 0, "the loss was none");
    campaign.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn st4_a_primary_that_is_cut_off_soon_takes_nothing_and_what_it_took_is_lost_with_its_keys() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let mut options = vec!["--port", &port, "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0"];
    options.extend(["--min-replicas-to-write", "1", "--min-replicas-max-lag", "2"]);
    let primary = RedisServer::start_with(&options, &[]).await;
    let between = Line::to(Callee::Tcp(format!("127.0.0.1:{port}").parse().unwrap())).await;
    let between_port = between.address.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &between_port], &[]).await;
    let is_followed = async || {
        let info = primary.tell("INFO replication").await;
        info.contains("min_slaves_good_slaves:1").then_some(())
    };
    eventually("the primary to have its replica", is_followed).await;
    let line = Line::to(Callee::Unix(primary.socket())).await;
    let url = format!("redis://{}", line.address);
    let mut campaign = Campaign::start_with_short_leases(primary, |setup| setup.redis = Some(url)).await;
    let gate = piling_up(&campaign);
    let mut kept = 0;
    campaign
        .under_load(async |campaign| {
            campaign.answers(300).await;
            kept = sent_so_far(campaign);
            let primary = campaign.redis.as_ref().unwrap();
            let wanted = offset(primary, "master_repl_offset:").await;
            let has_it = async || (offset(&replica, "slave_repl_offset:").await >= wanted).then_some(());
            eventually("the replica to have what was answered", has_it).await;
            between.be(Mood::Silent);
            // It notices, and takes nothing any more.
            campaign.refusals(SENDERS).await;
            assert!(primary.tell("SET x y").await.starts_with("-NOREPLICAS"));
            campaign.redis.as_mut().unwrap().kill().await;
            between.be(Mood::Cut);
            assert_eq!(replica.tell("REPLICAOF NO ONE").await, "+OK");
            line.leads_to(Callee::Unix(replica.socket()));
            campaign.answers(100).await;
            gate.open();
        })
        .await;
    let lost = lost_with_their_keys(&mut campaign, kept).await;
    println!("{lost} requests of the side that was cut off are lost");
    campaign.end().await;
}

/// A number that the server tells of its replication.
async fn offset(redis: &RedisServer, name: &str) -> u64 {
    let info = redis.tell("INFO replication").await;
    info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
}
