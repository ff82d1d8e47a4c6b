//! `kill -9` of the real process and of its store at random moments under load, and at each named moment ([`points`]): whatever was
//! promised before is kept after (I1 to I3). 5 crashes; in the long mode 60.

mod points;

use std::time::Duration;

use serde_json::json;
use sluice::destination::Answer;
use sluice_client::admin;
use sluice_data_plane::inbox::MAX_LEASES;
use sluice_tests::{RawHttp, RedisServer, Request, long};

use crate::campaign::Campaign;

/// The latest moment of a crash, in answers and in microseconds after them.
const ANSWERS_MAX: u64 = 300;
const MICROS_MAX: u64 = 30_000;

/// Loads, kills `kills` times at random moments; kills the store in turn, if there is one and it is wanted.
async fn round(campaign: &mut Campaign, kills: usize, store_too: bool) {
    campaign
        .under_load(async |campaign| {
            for _ in 0..kills {
                let (more, micros) = (1 + campaign.dice.below(ANSWERS_MAX), campaign.dice.below(MICROS_MAX));
                campaign.answers(more).await;
                // Nothing is waited for here: this is the random moment.
                tokio::time::sleep(Duration::from_micros(micros)).await;
                kill_one(campaign, store_too).await;
            }
        })
        .await;
}

async fn kill_one(campaign: &mut Campaign, store_too: bool) {
    let victim = campaign.dice.below(3);
    match &mut campaign.redis {
        Some(redis) if store_too && victim == 0 => {
            redis.crash().await;
            campaign.kills += 1;
        }
        Some(_) | None => match campaign.joiners.first_mut() {
            Some(joiner) if victim == 1 => {
                joiner.subject.take().unwrap().kill().await.unwrap();
                campaign.kills += 1;
                campaign.joiner_lives_again(0).await;
            }
            Some(_) | None => campaign.crash().await,
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_promised_before_a_crash_is_kept_after_it() {
    survive(Campaign::start(|_| {}).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_promised_is_kept_when_redis_and_the_process_crash() {
    survive(Campaign::start_on_redis().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_promised_is_kept_when_two_planes_and_redis_crash() {
    let mut campaign = Campaign::start_on(RedisServer::start().await, |_| {}).await;
    campaign.join(|_| {}).await;
    survive(campaign).await;
}

async fn survive(mut campaign: Campaign) {
    // Between rounds everything ends: a job that is hit by MAX_LEASES crashes in a row would be given up instead (CRASH_LOOP).
    let rounds = long::either(vec![3, 2], vec![4; 15]);
    assert!(rounds.iter().all(|kills| *kills < MAX_LEASES as usize));
    for kills in rounds {
        round(&mut campaign, kills, true).await;
        campaign.holds().await;
    }
    campaign.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_ends_in_a_crash_loop_says_that_it_may_have_arrived() {
    let mut campaign = Campaign::start(|_| {}).await;
    let lives = MAX_LEASES as usize;
    campaign.destination.script(vec![Answer::hang(); lives]);
    let request = Request::post(&campaign.load.path, json!({ "marker": "one" }).to_string());
    let answer = RawHttp::connect(campaign.load.setup.ingress).await.exchange(&request).await;
    assert_eq!(answer.status, 200);
    for life in 1..=lives {
        campaign.destination.wait_for(life).await.unwrap();
        campaign.crash().await;
    }
    let deliveries = campaign.workspace.deliveries(1).await;
    assert_eq!(
        (deliveries[0].state(), deliveries[0].reason()),
        (admin::DeliveryState::Dead, admin::failure::Reason::CrashLoop)
    );
    let attempts: Vec<_> = deliveries[0].attempts.iter().map(|attempt| (attempt.number, attempt.ambiguous)).collect();
    assert_eq!(attempts, [(1, true)]);
    assert_eq!(campaign.workspace.events(1).await.len(), 1);
    let seen = campaign.destination.requests();
    assert_eq!(seen.len(), lives, "nothing is sent any more");
    assert!(seen.iter().all(|again| again.body == seen[0].body), "{seen:?}");
    let key = seen[0].header("idempotency-key");
    assert!(key.is_some() && seen.iter().all(|again| again.header("idempotency-key") == key), "{seen:?}");
    campaign.end().await;
}

#[cfg(feature = "fault-injection")]
mod red {
    use super::{Campaign, round};
    use sluice_tests::subject::Fault;

    /// Kills once a round until the ledger shows a breach.
    async fn first_breach(mut campaign: Campaign, fault: Fault) -> Vec<String> {
        campaign.restart(Some(fault)).await;
        let mut breaches = Vec::new();
        for _ in 0..10 {
            round(&mut campaign, 1, false).await;
            breaches = campaign.ledger().await.breaches();
            if !breaches.is_empty() {
                break;
            }
        }
        campaign.end().await;
        breaches
    }

    async fn key_before_jobs(campaign: Campaign) {
        let breaches = first_breach(campaign, Fault::KeyBeforeJobs).await;
        assert!(breaches.iter().any(|breach| breach.contains("(I2)")), "{breaches:#?}");
    }

    async fn answer_before_commit(campaign: Campaign) {
        let breaches = first_breach(campaign, Fault::AnswerBeforeCommit).await;
        assert!(breaches.iter().any(|breach| breach.contains("(I1)")), "{breaches:#?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_campaign_goes_red_when_the_claim_is_written_before_the_jobs() {
        key_before_jobs(Campaign::start(|_| {}).await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_campaign_goes_red_when_the_claim_is_written_before_the_jobs_on_redis() {
        key_before_jobs(Campaign::start_on_redis().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_campaign_goes_red_when_the_answer_goes_out_before_the_commit() {
        answer_before_commit(Campaign::start(|_| {}).await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_campaign_goes_red_when_the_answer_goes_out_before_the_commit_on_redis() {
        answer_before_commit(Campaign::start_on_redis().await).await;
    }
}
