//! Pauses under load: of a data plane (F16, CP14), of the store that several share (F20). What was paused goes on as if nothing had
//! been, so it must be told that it is too late.

use std::time::Duration;

use sluice_tests::{RawHttp, RedisServer, Request, eventually, long};

use super::{Campaign, SENDERS};

fn pauses() -> Vec<Duration> {
    long::either(vec![6], vec![10, 90, 300]).into_iter().map(Duration::from_secs).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn f16_what_a_paused_plane_held_is_done_by_the_other_and_not_again_when_it_goes_on() {
    let mut campaign = Campaign::start_with_short_leases(RedisServer::start().await, |_| {}).await;
    campaign.join(|_| {}).await;
    for pause in pauses() {
        campaign
            .under_load(async |campaign| {
                campaign.answers(200).await;
                campaign.joiners[0].subject.as_ref().unwrap().signal("-STOP");
                campaign.paused();
                // The fault itself lasts so long.
                tokio::time::sleep(pause).await;
                campaign.joiners[0].subject.as_ref().unwrap().signal("-CONT");
                campaign.answers(200).await;
            })
            .await;
        campaign.holds().await;
    }
    campaign.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f16_a_plane_on_a_file_goes_on_after_a_pause_longer_than_its_leases() {
    let mut campaign = Campaign::start(|setup| setup.lease = Duration::from_secs(1)).await;
    for pause in long::either(vec![Duration::from_secs(2)], pauses()) {
        campaign
            .under_load(async |campaign| {
                campaign.answers(200).await;
                campaign.subject.as_ref().unwrap().signal("-STOP");
                campaign.paused();
                tokio::time::sleep(pause).await;
                campaign.subject.as_ref().unwrap().signal("-CONT");
                campaign.answers(200).await;
            })
            .await;
        campaign.holds().await;
    }
    campaign.end().await;
}

async fn ready(campaign: &Campaign) -> u16 {
    let health = campaign.load.setup.health;
    RawHttp::connect(health).await.exchange(&Request::new("GET", "/readyz")).await.status
}

/// Until the plane is not ready, 503 is all that is answered, and after it as well.
async fn nothing_is_promised(campaign: &mut Campaign) {
    campaign.paused();
    campaign.refusals(SENDERS).await;
    eventually("it to be not ready", async || (ready(campaign).await == 503).then_some(())).await;
    let answered = *campaign.load.answers.borrow();
    campaign.refusals(SENDERS).await;
    assert_eq!(*campaign.load.answers.borrow(), answered, "nothing is answered that is not kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn f20_while_redis_hangs_nothing_is_promised_and_then_all_goes_on() {
    let mut campaign = Campaign::start_with_short_leases(RedisServer::start().await, |_| {}).await;
    campaign
        .under_load(async |campaign| {
            campaign.answers(200).await;
            campaign.redis.as_ref().unwrap().signal("-STOP");
            nothing_is_promised(campaign).await;
            tokio::time::sleep(Duration::from_secs(long::either(0, 60))).await;
            campaign.redis.as_ref().unwrap().signal("-CONT");
            campaign.answers(200).await;
            // It listens, and answers no step.
            assert_eq!(campaign.redis.as_ref().unwrap().tell("CLIENT PAUSE 600000 WRITE").await, "+OK");
            nothing_is_promised(campaign).await;
            assert_eq!(campaign.redis.as_ref().unwrap().tell("CLIENT UNPAUSE").await, "+OK");
            campaign.answers(200).await;
            eventually("it to be ready again", async || (ready(campaign).await == 200).then_some(())).await;
        })
        .await;
    campaign.holds().await;
    campaign.end().await;
}
