//! The line between a data plane and what it needs is slow, torn, silent, deaf or cut, under load: to the shared store (F24), to the
//! control plane (F30), from there to its database (F28).

use std::path::Path;
use std::time::Duration;

use sluice_client::admin;
use sluice_tests::postgres::Postgres;
use sluice_tests::{Callee, Line, Mood, RedisServer, long};

use super::{Campaign, SENDERS};

#[tokio::test(flavor = "multi_thread")]
async fn f24_whatever_the_line_to_redis_does_each_request_is_kept_once() {
    let redis = RedisServer::start().await;
    let line = Line::to(Callee::Unix(redis.socket())).await;
    let url = format!("redis://{}", line.address);
    let mut campaign = Campaign::start_with_short_leases(redis, |setup| setup.redis = Some(url)).await;
    for _ in 0..long::either(1, 20) {
        campaign
            .under_load(async |campaign| {
                campaign.answers(100).await;
                for mood in [Mood::Torn(40), Mood::Slow(Duration::from_millis(long::either(100, 2_000)))] {
                    line.be(mood);
                    campaign.paused();
                    campaign.answers(long::either(60, 200)).await;
                    line.be(Mood::Well);
                    campaign.answers(50).await;
                }
                for mood in [Mood::Deaf, Mood::Cut, Mood::Silent] {
                    line.be(mood);
                    campaign.paused();
                    campaign.refusals(SENDERS).await;
                    line.be(Mood::Well);
                    campaign.answers(100).await;
                }
            })
            .await;
        campaign.holds().await;
    }
    campaign.end().await;
}

/// Whatever this line does, nobody who triggers notices, and each delivery is told once. `while_cut` is asked while it is cut.
async fn nobody_notices(campaign: &mut Campaign, line: &Line, while_cut: impl AsyncFn(&Campaign)) {
    for _ in 0..long::either(1, 20) {
        campaign
            .under_load(async |campaign| {
                let late = Mood::Slow(Duration::from_millis(long::either(300, 5_000)));
                for mood in [Mood::Silent, Mood::Deaf, Mood::Torn(9), late, Mood::Cut] {
                    line.be(mood);
                    campaign.answers(100).await;
                    if mood == Mood::Cut {
                        while_cut(campaign).await;
                    }
                    line.be(Mood::Well);
                    campaign.answers(20).await;
                }
            })
            .await;
        assert_eq!(*campaign.load.refused.borrow(), 0, "nobody has noticed");
        let ledger = campaign.holds().await;
        assert_eq!(ledger.arrived.len(), ledger.recorded.len(), "each once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f30_whatever_the_line_to_the_control_plane_does_triggers_are_taken_and_told_later() {
    let mut campaign = Campaign::start(|_| {}).await;
    let line = Line::to(Callee::Tcp(campaign.load.setup.grpc)).await;
    let url = format!("http://{}", line.address);
    campaign.join(|setup| setup.joins.as_mut().unwrap().url = url).await;
    // Only the one behind the line is asked.
    campaign.load.doors.remove(0);
    nobody_notices(&mut campaign, &line, async |_| {}).await;
    campaign.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f28_whatever_the_line_to_postgresql_does_triggers_are_taken_and_told_later() {
    let postgres = Postgres::start();
    let url = postgres.database("lines");
    // Where its socket is.
    let (_, home) = url.split_once("host=").unwrap();
    let line = Line::to(Callee::Unix(Path::new(home).join(".s.PGSQL.5432"))).await;
    let url = format!("postgres://sluice@{}/lines", line.address);
    let mut campaign = Campaign::start(|setup| setup.database = Some(url)).await;
    let is_told = async |campaign: &Campaign| {
        let asked = campaign.client.workspaces().list_workspaces(admin::ListWorkspacesRequest::default()).await;
        assert_eq!(asked.unwrap_err().code(), tonic::Code::Unavailable);
    };
    nobody_notices(&mut campaign, &line, is_told).await;
    campaign.end().await;
    postgres.stop();
}
