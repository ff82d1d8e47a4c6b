//! `kill -9` at each moment at which something could be lost or done twice (CP1 to CP11, CP13), with the inbox in a file and in Redis:
//! what the sender was told, what arrived, what is marked ambiguous.

use serde_json::json;
use sluice::destination::Answer;
use sluice_tests::{Numbers, RawHttp, Request, eventually};

use super::Campaign;
use crate::campaign::recorded_and_told;

async fn send(campaign: &Campaign, marker: &str) -> Option<u16> {
    let request = Request::post(&campaign.load.path, json!({ "marker": marker }).to_string());
    let mut connection = RawHttp::try_connect(campaign.load.setup.ingress).await.ok()?;
    connection.send(&request.header("X-Deduplication-Hash", marker).bytes()).await;
    connection.answer_or_end().await.map(|answer| answer.status)
}

/// Everything has ended and was told: how often this marker arrived, and whether its delivery is marked ambiguous.
async fn outcome(campaign: &Campaign, marker: &str, deliveries: usize) -> (usize, bool) {
    let health = campaign.load.setup.health;
    eventually("the inbox to be empty", || async move { Numbers::of(health).await.is_idle().then_some(()) }).await;
    let (recorded, events) = recorded_and_told(&campaign.client, &campaign.workspace.name).await;
    assert_eq!((recorded.len(), events.len()), (deliveries, deliveries), "{marker}: one delivery, told once");
    assert!(recorded.iter().all(|one| one.delivered), "{marker}");
    let seen = campaign.destination.requests();
    let seen: Vec<_> = seen.iter().filter(|seen| seen.json().unwrap()["marker"] == marker).collect();
    let key = seen[0].header("idempotency-key").unwrap();
    assert!(seen.iter().all(|one| one.header("idempotency-key") == Some(key) && one.body == seen[0].body), "{marker}");
    let recorded = recorded.iter().find(|one| one.delivery == key).unwrap();
    (seen.len(), recorded.ambiguous.contains(&true))
}

/// CP5, CP8, CP13: one delivery is on its way, another waits for it; the process is asked to stop, lets it finish, and is killed.
async fn killed_while_stopping(mut campaign: Campaign) {
    campaign.destination.script([Answer::hang()]);
    assert_eq!(send(&campaign, "sent").await, Some(200));
    campaign.destination.wait_for(1).await.unwrap();
    let mut subject = campaign.subject.take().unwrap();
    subject.ask_to_stop();
    let health = campaign.load.setup.health;
    eventually("it to be stopping", || async move {
        let ready = RawHttp::try_connect(health).await.ok()?.exchange(&Request::new("GET", "/readyz")).await;
        (ready.status == 503).then_some(())
    })
    .await;
    subject.kill().await.unwrap();
    campaign.restart(None).await;
    assert_eq!(send(&campaign, "sent").await, Some(204));
    assert_eq!(outcome(&campaign, "sent", 1).await, (2, true));
    campaign.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_when_a_stop_is_cut_short_is_sent_again() {
    killed_while_stopping(Campaign::start(|_| {}).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_when_a_stop_is_cut_short_is_sent_again_on_redis() {
    killed_while_stopping(Campaign::start_on_redis().await).await;
}

#[cfg(feature = "fault-injection")]
mod each {
    use sluice_tests::long;
    use sluice_tests::subject::{Fault, PlaneMoment as At};

    use super::{Campaign, outcome, send};

    /// A moment, and what it may lead to.
    struct Point {
        at: At,
        /// What the first request is answered; none when the process dies before.
        first: &'static [Option<u16>],
        /// What the same request is answered in the next life.
        again: &'static [u16],
        /// How often the destination sees the delivery.
        arrivals: &'static [usize],
    }

    const KEPT: &[Option<u16>] = &[Some(200), None];

    const POINTS: [Point; 8] = [
        // CP1: nothing was kept.
        Point { at: At::Received, first: &[None], again: &[200], arrivals: &[1] },
        // CP2, CP3: all of it or nothing.
        Point { at: At::Keeping, first: &[None], again: &[200, 204], arrivals: &[1] },
        // CP4: kept, with its key.
        Point { at: At::Kept, first: &[None], again: &[204], arrivals: &[1] },
        // CP5, CP6: kept; its lease ends with the process.
        Point { at: At::Leased, first: KEPT, again: &[204], arrivals: &[1] },
        // CP7: the bytes are fixed; nobody has seen them.
        Point { at: At::Begun, first: KEPT, again: &[204], arrivals: &[1] },
        // CP9: taken by the destination, and not known here.
        Point { at: At::Heard, first: KEPT, again: &[204], arrivals: &[2] },
        // CP10: all of the outcome or nothing.
        Point { at: At::Recording, first: KEPT, again: &[204], arrivals: &[1, 2] },
        // CP11: the report waits.
        Point { at: At::Recorded, first: KEPT, again: &[204], arrivals: &[1] },
    ];

    async fn each_point(mut campaign: Campaign) {
        for (n, point) in (0..long::either(1, 25)).flat_map(|_| &POINTS).enumerate() {
            let marker = format!("{:?}-{n}", point.at);
            campaign.restart(Some(Fault::EndAt(point.at))).await;
            let first = send(&campaign, &marker).await;
            assert!(point.first.contains(&first), "{marker}: first answered {first:?}");
            let ended = campaign.subject.take().unwrap().ended().await.unwrap();
            assert!(!ended.success(), "{marker}: it ended {ended}");
            if let Some(redis) = &mut campaign.redis {
                redis.crash().await;
            }
            campaign.restart(None).await;
            let again = send(&campaign, &marker).await.unwrap();
            assert!(point.again.contains(&again), "{marker}: then answered {again}");
            let (arrivals, ambiguous) = outcome(&campaign, &marker, n + 1).await;
            assert!(point.arrivals.contains(&arrivals), "{marker}: arrived {arrivals} times");
            // What was begun is marked, whether anybody has seen it or not.
            assert_eq!(ambiguous, arrivals > 1 || point.at == At::Begun, "{marker}: arrived {arrivals} times");
        }
        campaign.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_crash_at_each_moment_is_survived() {
        each_point(Campaign::start(|_| {}).await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_crash_at_each_moment_is_survived_on_redis() {
        each_point(Campaign::start_on_redis().await).await;
    }
}
