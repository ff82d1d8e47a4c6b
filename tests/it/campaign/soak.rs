//! The soak (F43): two data planes on one Redis under a steady load, a random fault every few seconds, for as long as was asked
//! ([`long::soak_minutes`]). After each round the ledger is clean; in the end the process that lived through all of it is not larger than
//! after the first quarter.

use std::time::{Duration, Instant};

use sluice_tests::{Callee, Line, Mood, RedisServer, long};

use super::attacks::memory;
use super::{Campaign, clean};

/// Faults in a round.
const FAULTS: u64 = 6;
/// Between two faults at most, in answers.
const ANSWERS_MAX: u64 = 400;
/// What a sender waits between two requests: the load is steady, not heavy.
const PACE: Duration = Duration::from_millis(40);
/// What the process may grow from the first quarter to the end, in KiB.
const GROWTH_MAX: u64 = 64 << 10;

async fn fault(campaign: &mut Campaign, line: &Line) {
    match campaign.dice.below(7) {
        0 => {
            campaign.redis.as_mut().unwrap().crash().await;
            campaign.paused();
        }
        1 => {
            campaign.joiners[0].subject.take().unwrap().kill().await.unwrap();
            campaign.kills += 1;
            campaign.joiner_lives_again(0).await;
        }
        2 => {
            assert!(campaign.joiners[0].subject.take().unwrap().stop().await.unwrap().success());
            campaign.joiner_lives_again(0).await;
        }
        3 => {
            campaign.joiners[0].subject.as_ref().unwrap().signal("-STOP");
            campaign.paused();
            tokio::time::sleep(Duration::from_secs(campaign.dice.below(8))).await;
            campaign.joiners[0].subject.as_ref().unwrap().signal("-CONT");
        }
        4 => {
            assert!(campaign.redis.as_ref().unwrap().tell("BGREWRITEAOF").await.starts_with(['+', '-']));
        }
        mood => {
            line.be(if mood == 5 { Mood::Cut } else { Mood::Torn(30) });
            campaign.paused();
            tokio::time::sleep(Duration::from_millis(campaign.dice.below(3_000))).await;
            line.be(Mood::Well);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f43_hours_of_load_and_random_faults_leave_a_clean_ledger_and_no_growth() {
    if !long::is_long() {
        return;
    }
    let until = Instant::now() + Duration::from_secs(60 * long::soak_minutes());
    let redis = RedisServer::start().await;
    let line = Line::to(Callee::Unix(redis.socket())).await;
    let url = format!("redis://{}", line.address);
    let mut campaign = Campaign::start_with_short_leases(redis, |setup| setup.redis = Some(url)).await;
    campaign.join(|_| {}).await;
    campaign.load.pace = PACE;
    let process = campaign.subject.as_ref().unwrap().id().unwrap();
    let mut sizes = Vec::new();
    while Instant::now() < until {
        campaign
            .under_load(async |campaign| {
                for _ in 0..FAULTS {
                    let more = 1 + campaign.dice.below(ANSWERS_MAX);
                    campaign.answers(more).await;
                    fault(campaign, &line).await;
                }
                campaign.answers(ANSWERS_MAX).await;
            })
            .await;
        clean(&campaign.logs().await);
        sizes.push((Instant::now(), memory(process, "VmRSS:")));
        campaign.begin_anew().await;
    }
    let (first, last) = (sizes[sizes.len() / 4], sizes[sizes.len() - 1]);
    let hours = (last.0 - first.0).as_secs_f64() / 3_600.0;
    let grown = last.1.saturating_sub(first.1);
    println!("{} rounds; {} KiB, then {} KiB: {:.0} KiB an hour", sizes.len(), first.1, last.1, grown as f64 / hours);
    assert!(grown < GROWTH_MAX, "{grown} KiB");
    campaign.ledger().await;
    campaign.end().await;
}
