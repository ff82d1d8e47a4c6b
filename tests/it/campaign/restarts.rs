//! Data planes on one store that are stopped properly and started again, one after the other, under load (F17): nothing is lost and
//! nothing is done twice (I13).

use sluice_tests::long;

use super::Campaign;

#[tokio::test(flavor = "multi_thread")]
async fn f17_planes_that_are_restarted_in_turn_lose_nothing_and_do_nothing_twice() {
    let mut campaign = Campaign::start_on_redis().await;
    campaign.join(|_| {}).await;
    campaign.join(|_| {}).await;
    for _ in 0..long::either(1, 50) {
        campaign
            .under_load(async |campaign| {
                for n in 0..campaign.joiners.len() {
                    campaign.answers(150).await;
                    let stopped = campaign.joiners[n].subject.take().unwrap().stop().await.unwrap();
                    assert!(stopped.success(), "a proper stop ends with 0: {stopped}");
                    campaign.joiner_lives_again(n).await;
                }
                campaign.answers(150).await;
                // The control plane with it.
                campaign.restart(None).await;
                campaign.answers(150).await;
            })
            .await;
        // No crash and no pause is an excuse.
        let ledger = campaign.holds().await;
        assert_eq!(ledger.kills, 0);
        assert_eq!(ledger.arrived.len(), ledger.recorded.len(), "each once");
        assert!(ledger.recorded.iter().all(|recorded| !recorded.ambiguous.contains(&true)));
    }
    campaign.end().await;
}
