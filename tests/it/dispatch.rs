//! What waits, and why: limits, a destination that fails or asks for a pause, and others that do not notice.

use std::time::Duration;

use serde_json::json;
use sluice::destination::{Answer, Gate};
use sluice_client::admin::failure::Reason;
use sluice_client::admin::{self, DeliveryState, OutgoingRequest, RateLimit, RetryPolicy};
use sluice_data_plane::clock::Clock;
use sluice_tests::resources::{custom_webhook, existing, open, post, workflow};
use sluice_tests::{Numbers, World, eventually};

const URL: &str = "https://api.example.com/orders";

fn once() -> Option<RetryPolicy> {
    Some(RetryPolicy { attempts_max: 1, ..Default::default() })
}

async fn trigger(world: &World, incoming: &admin::IncomingIntegration, times: usize) {
    for _ in 0..times {
        assert_eq!(world.trigger(incoming, &json!({})).await.status, 200);
    }
}

/// Waits until so many jobs wait for this reason, and no job is on its way.
async fn waits(world: &World, reason: &str, jobs: f64) {
    let series = format!("sluice_dispatch_waiting_jobs{{lane=\"realtime\",reason=\"{reason}\"}}");
    eventually(&format!("{jobs} jobs to wait for {reason}"), || async {
        let numbers = Numbers::of(world.health()).await;
        (numbers.get(&series) == jobs).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_integrations_requests_at_once_are_limited_for_all_its_workflows_d10() {
    let world = World::start().await;
    let request = OutgoingRequest { concurrency_max: 2, ..post(URL, "{}") };
    let outgoing = world.acme.outgoing("orders", request).await;
    let incoming = world.acme.incoming("orders", open()).await;
    for id in ["first", "second"] {
        world.acme.workflow(id, workflow(&incoming, [existing("Send", &outgoing)])).await;
    }
    let others = world.acme.flow("others", post("https://api.example.com/others", "{}")).await;
    world.served().await;
    let gate = Gate::new();
    world.destination.script_for("/orders", (0..6).map(|_| Answer::status(200).after(&gate)));
    trigger(&world, &incoming, 3).await;
    waits(&world, "concurrency", 4.0).await;
    trigger(&world, &others, 1).await;
    world.acme.deliveries(1).await;
    let paths = |path| world.destination.requests().iter().filter(|seen| seen.target == path).count();
    assert_eq!((paths("/orders"), paths("/others")), (2, 1));
    gate.open();
    let deliveries = world.acme.deliveries(7).await;
    assert!(deliveries.iter().all(|delivery| delivery.attempts.len() == 1), "waiting uses no attempt");
}

#[tokio::test]
async fn a_steps_rate_is_limited_and_nothing_is_lost_d10() {
    let world = World::start().await;
    let rate_limit = Some(RateLimit { requests_per_second: 1, burst: 2 });
    let incoming = world.acme.flow("orders", OutgoingRequest { rate_limit, ..post(URL, "{}") }).await;
    world.served().await;
    trigger(&world, &incoming, 5).await;
    let seen = world.destination.wait_for(5).await.unwrap();
    assert!(seen[4].at - seen[0].at >= Duration::from_secs(2), "two at once, then one a second");
    let deliveries = world.acme.deliveries(5).await;
    assert!(deliveries.iter().all(|delivery| delivery.attempts.len() == 1));
}

#[tokio::test]
async fn a_failing_destination_is_paused_and_probed_and_jobs_wait_n06() {
    let world = World::with(|options| options.data_plane.dispatch.breaker_wait = Duration::from_millis(200)).await;
    let incoming = world.acme.flow("orders", OutgoingRequest { retry: once(), ..post(URL, "{}") }).await;
    let fine = world.acme.flow("fine", post("https://hooks.slack.com/fine", "{}")).await;
    world.served().await;
    world.destination.script_for("/orders", (0..20).map(|_| Answer::status(500)));
    trigger(&world, &incoming, 20).await;
    world.acme.deliveries(20).await;
    let gate = Gate::new();
    world.destination.script_for("/orders", [Answer::status(200).after(&gate)]);
    trigger(&world, &incoming, 9).await;
    // The probe is on its way, once the pause is over; the others wait.
    world.destination.wait_for(21).await.unwrap();
    waits(&world, "breaker", 8.0).await;
    trigger(&world, &fine, 3).await;
    world.acme.deliveries(23).await;
    let numbers = Numbers::of(world.health()).await;
    let changes = |to| numbers.get(&format!("sluice_breaker_changes_total{{to=\"{to}\"}}"));
    assert_eq!((changes("open"), changes("closed"), numbers.get("sluice_breakers_open")), (1.0, 0.0, 1.0));
    gate.open();
    let deliveries = world.acme.deliveries(32).await;
    let delivered = deliveries.iter().filter(|one| one.state() == DeliveryState::Delivered).count();
    assert_eq!(delivered, 12, "what waited was delivered");
    assert!(deliveries.iter().all(|delivery| delivery.attempts.len() == 1), "waiting uses no attempt");
}

#[tokio::test]
async fn a_pause_that_was_asked_for_holds_the_destination_of_that_workspace_r07() {
    let world = World::start().await;
    let other = world.workspace("other").await;
    let incoming = world.acme.flow("orders", post(URL, "{}")).await;
    let same_host = world.acme.flow("same-host", post("https://api.example.com/other", "{}")).await;
    let elsewhere = world.acme.flow("elsewhere", post("https://hooks.slack.com/x", "{}")).await;
    let others = other.flow("orders", post(URL, "{}")).await;
    world.served().await;
    world.destination.script_for("/orders", [Answer::status(429).header("retry-after", "3600")]);
    trigger(&world, &incoming, 1).await;
    eventually("the first attempt to be over", || async {
        let numbers = Numbers::of(world.health()).await;
        (numbers.get("sluice_inbox_jobs{lane=\"realtime\",state=\"delayed\"}") == 1.0).then_some(())
    })
    .await;
    trigger(&world, &same_host, 3).await;
    waits(&world, "hold", 3.0).await;
    trigger(&world, &elsewhere, 1).await;
    world.acme.deliveries(1).await;
    trigger(&world, &others, 1).await;
    other.deliveries(1).await;
    assert_eq!(world.destination.requests().len(), 3);
}

#[tokio::test]
async fn a_job_that_waits_longer_than_it_may_expires_d09() {
    let clock = Clock::manual(1_700_000_000_000);
    let moved = clock.clone();
    let world = World::with(move |options| options.data_plane.clock = moved).await;
    let age_max = Duration::from_secs(60).try_into().ok();
    let retry = Some(RetryPolicy { age_max, ..Default::default() });
    let request = OutgoingRequest { concurrency_max: 1, retry, ..post(URL, "{}") };
    let incoming = world.acme.flow("orders", request).await;
    world.served().await;
    let gate = Gate::new();
    world.destination.script([Answer::status(200).after(&gate)]);
    trigger(&world, &incoming, 3).await;
    waits(&world, "concurrency", 2.0).await;
    clock.advance(60_001);
    gate.open();
    let deliveries = world.acme.deliveries(3).await;
    let ended = |reason| deliveries.iter().filter(|one| one.reason() == reason).map(|one| one.attempts.len()).collect();
    let (delivered, expired): (Vec<usize>, Vec<usize>) = (ended(Reason::Unspecified), ended(Reason::Expired));
    assert_eq!((delivered, expired), (vec![1], vec![0, 0]), "without an attempt");
    let events = world.acme.events(3).await;
    assert_eq!(events.iter().filter(|event| event.params["statusDescription"] == "EXPIRED").count(), 2);
}

#[tokio::test]
async fn a_destination_that_hangs_takes_its_share_and_no_more_n01() {
    let world = World::start().await;
    let healthy = world.workspace("healthy").await;
    let hangs = world.acme.flow("hangs", post("https://api.example.com/hangs", "{}")).await;
    let fine = healthy.flow("fine", post("https://hooks.slack.com/fine", "{}")).await;
    world.served().await;
    world.destination.script_for("/hangs", (0..300).map(|_| Answer::hang()));
    trigger(&world, &hangs, 300).await;
    // A quarter of 512 places.
    waits(&world, "concurrency", 172.0).await;
    trigger(&world, &fine, 100).await;
    healthy.deliveries(100).await;
    let hanging = world.destination.requests().iter().filter(|seen| seen.target == "/hangs").count();
    assert_eq!(hanging, 128);
    waits(&world, "concurrency", 172.0).await;
}

#[tokio::test]
async fn limits_are_checked_when_they_are_set() {
    let world = World::start().await;
    let incoming = world.acme.incoming("orders", open()).await;
    let rate = |requests_per_second, burst| Some(RateLimit { requests_per_second, burst });
    for (rate_limit, concurrency_max, fields) in [
        (rate(0, 0), 0, vec!["requests_per_second"]),
        (rate(10_001, 20_001), 0, vec!["requests_per_second", "burst"]),
        (rate(1, -1), 1_001, vec!["burst", "concurrency_max"]),
        (None, -1, vec!["concurrency_max"]),
    ] {
        let request = OutgoingRequest { rate_limit, concurrency_max, ..post(URL, "{}") };
        let broken = admin::CreateWorkflowRequest {
            parent: world.acme.name.clone(),
            workflow: Some(workflow(&incoming, [custom_webhook("Send", request)])),
            ..Default::default()
        };
        let status = world.client.workflows().create_workflow(broken).await.unwrap_err();
        let found = sluice_tests::violations(&status);
        let found: Vec<&str> = found.iter().map(|(field, ..)| field.rsplit('.').next().unwrap()).collect();
        assert_eq!(found, fields);
    }
}
