//! Deliveries as an operator finds, reads and follows them.

use std::time::Duration;

use sluice_control_plane::{Clock, Settings};
use sluice_proto::admin::v1 as admin;
use sluice_proto::admin::v1::DeliveryState::{Dead, Delivered, Waiting};
use sluice_proto::admin::v1::failure::Reason;
use sluice_proto::sync::v1::{AcceptedRequest, Outcome};
use tonic::{Code, Streaming};

use crate::outcomes::{Reporter, ids};
use crate::world::{ACME, RING, START, World, has, refusal, settings, violations, within};

fn at(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: START / 1000 + seconds, nanos: 0 })
}

fn attempt(number: i32, status: i32, body: &str) -> admin::Attempt {
    let response = admin::ReceivedResponse { body: body.to_owned().into(), ..Default::default() };
    admin::Attempt { number, status, response: Some(response), ..Default::default() }
}

/// A delivery that was triggered `second` seconds after the start.
fn outcome(id: &str, second: i64, state: admin::DeliveryState) -> Outcome {
    let delivery = admin::Delivery {
        name: format!("{ACME}/deliveries/{id}"),
        state: state.into(),
        trigger_id: format!("t-{id}"),
        workflow: format!("{ACME}/workflows/orders"),
        step_id: "first".to_owned(),
        incoming_integration: format!("{ACME}/incomingIntegrations/shop"),
        accept_time: at(second),
        attempts: vec![attempt(1, if state == Delivered { 200 } else { 503 }, "answer")],
        reason: if state == Delivered { Reason::Unspecified } else { Reason::Status }.into(),
        ..Default::default()
    };
    Outcome { workspace: ACME.to_owned(), delivery: Some(delivery), order: 1, ..Default::default() }
}

fn changed(outcome: Outcome, change: impl FnOnce(&mut admin::Delivery)) -> Outcome {
    let mut outcome = outcome;
    change(outcome.delivery.as_mut().unwrap());
    outcome
}

async fn page(world: &World, filter: admin::DeliveryFilter, size: i32, token: &str) -> admin::ListDeliveriesResponse {
    let request = admin::ListDeliveriesRequest {
        parent: ACME.to_owned(),
        page_size: size,
        page_token: token.to_owned(),
        filter: Some(filter),
    };
    world.deliveries().list_deliveries(request).await.unwrap().into_inner()
}

async fn listed(world: &World, filter: admin::DeliveryFilter) -> Vec<String> {
    let page = page(world, filter, 0, "").await;
    ids(page.deliveries.iter().map(|delivery| &delivery.name)).into_iter().map(str::to_owned).collect()
}

async fn get(world: &World, id: &str) -> admin::Delivery {
    let request = admin::GetDeliveryRequest { name: format!("{ACME}/deliveries/{id}") };
    world.deliveries().get_delivery(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn every_condition_selects_and_all_combine() {
    let world = World::new().await;
    let mut reporter = Reporter::connect(&world).await;
    reporter
        .report(vec![
            outcome("a", 10, Delivered),
            outcome("b", 20, Dead),
            changed(outcome("c", 30, Dead), |d| d.workflow = format!("{ACME}/workflows/other")),
            changed(outcome("d", 40, Waiting), |d| d.step_id = "second".to_owned()),
            changed(outcome("e", 50, Dead), |d| {
                d.reason = Reason::Timeout.into();
                d.attempts[0].status = 0;
                d.incoming_integration = format!("{ACME}/incomingIntegrations/desk");
            }),
        ])
        .await;
    let states = |states: &[admin::DeliveryState]| states.iter().map(|state| i32::from(*state)).collect();
    let reasons = |reasons: &[Reason]| reasons.iter().map(|reason| i32::from(*reason)).collect();
    let table: Vec<(admin::DeliveryFilter, &[&str])> = vec![
        (admin::DeliveryFilter::default(), &["e", "d", "c", "b", "a"]),
        (admin::DeliveryFilter { delivery: format!("{ACME}/deliveries/b"), ..Default::default() }, &["b"]),
        (admin::DeliveryFilter { states: states(&[Dead]), ..Default::default() }, &["e", "c", "b"]),
        (admin::DeliveryFilter { states: states(&[Waiting, Delivered]), ..Default::default() }, &["d", "a"]),
        (admin::DeliveryFilter { states: states(&[Dead, Waiting]), ..Default::default() }, &["e", "d", "c", "b"]),
        (admin::DeliveryFilter { workflow: format!("{ACME}/workflows/other"), ..Default::default() }, &["c"]),
        (admin::DeliveryFilter { step_id: "second".to_owned(), ..Default::default() }, &["d"]),
        (
            admin::DeliveryFilter {
                incoming_integration: format!("{ACME}/incomingIntegrations/desk"),
                ..Default::default()
            },
            &["e"],
        ),
        (admin::DeliveryFilter { trigger_id: "t-c".to_owned(), ..Default::default() }, &["c"]),
        (admin::DeliveryFilter { reasons: reasons(&[Reason::Timeout]), ..Default::default() }, &["e"]),
        (
            admin::DeliveryFilter { reasons: reasons(&[Reason::Timeout, Reason::Status]), ..Default::default() },
            &["e", "d", "c", "b"],
        ),
        (admin::DeliveryFilter { status_min: 500, status_max: 599, ..Default::default() }, &["d", "c", "b"]),
        (admin::DeliveryFilter { status_max: 299, ..Default::default() }, &["a"]),
        (admin::DeliveryFilter { accepted_from: at(20), accepted_before: at(40), ..Default::default() }, &["c", "b"]),
        (
            admin::DeliveryFilter {
                states: states(&[Dead]),
                workflow: format!("{ACME}/workflows/orders"),
                status_min: 500,
                accepted_before: at(40),
                ..Default::default()
            },
            &["b"],
        ),
        (admin::DeliveryFilter { trigger_id: "t-c".to_owned(), states: states(&[Waiting]), ..Default::default() }, &[]),
    ];
    for (filter, expected) in table {
        assert_eq!(listed(&world, filter.clone()).await, expected, "{filter:?}");
    }
    let foreign = admin::DeliveryFilter { workflow: "workspaces/other/workflows/x".to_owned(), ..Default::default() };
    let request = admin::ListDeliveriesRequest { parent: ACME.to_owned(), filter: Some(foreign), ..Default::default() };
    let refused = world.deliveries().list_deliveries(request).await.unwrap_err();
    assert!(has(&violations(&refused), "filter.workflow", "NAME_INVALID"));
}

#[tokio::test]
async fn pages_stay_what_they_are_while_deliveries_come_and_change() {
    let world = World::new().await;
    let mut reporter = Reporter::connect(&world).await;
    let all = (0..6).map(|index| outcome(&format!("d{index}"), 10 * (index / 2), Waiting));
    reporter.report(all.collect()).await;
    let first = page(&world, admin::DeliveryFilter::default(), 3, "").await;
    assert_eq!(ids(first.deliveries.iter().map(|one| &one.name)), ["d5", "d4", "d3"]);
    let later = Outcome { order: 2, ..outcome("d2", 10, Dead) };
    reporter.report(vec![outcome("new", 99, Delivered), later]).await;
    let rest = page(&world, admin::DeliveryFilter::default(), 3, &first.next_page_token).await;
    assert_eq!(ids(rest.deliveries.iter().map(|one| &one.name)), ["d2", "d1", "d0"]);
    assert_eq!((rest.deliveries[0].state(), rest.next_page_token.as_str()), (Dead, ""));
    let several = || admin::DeliveryFilter { states: vec![Waiting.into(), Dead.into()], ..Default::default() };
    let (mut token, mut walked) = (String::new(), Vec::new());
    for _ in 0..3 {
        let part = page(&world, several(), 2, &token).await;
        walked.extend(ids(part.deliveries.iter().map(|one| &one.name)).into_iter().map(str::to_owned));
        token = part.next_page_token;
    }
    assert_eq!((walked.join(" ").as_str(), token.as_str()), ("d5 d4 d3 d2 d1 d0", ""), "each state is found by itself");
    let other = admin::ListDeliveriesRequest {
        parent: ACME.to_owned(),
        page_token: first.next_page_token,
        filter: Some(admin::DeliveryFilter { step_id: "first".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let refused = world.deliveries().list_deliveries(other).await.unwrap_err();
    assert_eq!(refusal(&refused).1, "PAGE_TOKEN_INVALID", "a token belongs to its filter");
}

#[tokio::test]
async fn a_delivery_grows_with_its_attempts_and_an_older_report_changes_nothing() {
    let world = World::new().await;
    let mut reporter = Reporter::connect(&world).await;
    let request = admin::SentRequest { method: "POST".to_owned(), body: "sent".into(), ..Default::default() };
    let first = changed(outcome("d", 0, Waiting), |d| d.request = Some(request.clone()));
    let second = changed(Outcome { order: 4, ..outcome("d", 0, Delivered) }, |d| {
        d.attempts = vec![admin::Attempt { number: 1, status: 503, ..Default::default() }, attempt(2, 200, "taken")];
    });
    reporter.report(vec![first.clone()]).await;
    let waiting = get(&world, "d").await;
    assert_eq!(
        (waiting.state(), waiting.data_plane.as_str(), waiting.request),
        (Waiting, "dp-1", Some(request.clone()))
    );
    reporter.report(vec![second, first]).await;
    let delivered = get(&world, "d").await;
    assert_eq!((delivered.state(), delivered.request), (Delivered, Some(request)));
    let answers: Vec<_> = delivered.attempts.iter().map(|one| one.response.clone().unwrap().body).collect();
    assert_eq!(answers, [&b"answer"[..], b"taken"], "each attempt has its own answer");
    let listed = page(&world, admin::DeliveryFilter::default(), 0, "").await.deliveries.remove(0);
    assert!(listed.request.is_none() && listed.attempts.iter().all(|one| one.response.is_none()));
}

#[tokio::test]
async fn what_was_sent_answered_and_received_rests_sealed() {
    const MARK: &str = "personal-data-4711";
    let world = World::new().await;
    let mut reporter = Reporter::connect(&world).await;
    let shown = admin::IncomingRequest {
        name: format!("{ACME}/incomingRequests/t-d"),
        incoming_integration: format!("{ACME}/incomingIntegrations/shop"),
        accept_time: at(1),
        body_bytes: 12,
        ..Default::default()
    };
    let accepted = AcceptedRequest { request: Some(shown.clone()), envelope: MARK.into() };
    let sent = admin::SentRequest { body: MARK.into(), ..Default::default() };
    let with_data = changed(Outcome { request: Some(accepted), ..outcome("d", 1, Dead) }, |d| {
        d.request = Some(sent);
        d.attempts = vec![attempt(1, 400, MARK)];
    });
    reporter.report(vec![with_data, outcome("e", 2, Dead)]).await;
    assert_eq!(get(&world, "d").await.attempts[0].response.as_ref().unwrap().body, MARK);

    let request = admin::GetIncomingRequestRequest { name: shown.name.clone() };
    assert_eq!(world.incoming_requests().get_incoming_request(request).await.unwrap().into_inner(), shown);
    let list = |incoming: &str, from| admin::ListIncomingRequestsRequest {
        parent: ACME.to_owned(),
        incoming_integration: incoming.to_owned(),
        accepted_from: at(from),
        ..Default::default()
    };
    for (incoming, from, found) in [
        ("", 0, 1),
        (&*shown.incoming_integration, 1, 1),
        ("", 2, 0),
        (&format!("{ACME}/incomingIntegrations/x"), 0, 0),
    ] {
        let listed = world.incoming_requests().list_incoming_requests(list(incoming, from)).await.unwrap().into_inner();
        assert_eq!(listed.incoming_requests.len(), found, "{incoming} {from}");
    }
    let gone = admin::GetIncomingRequestRequest { name: format!("{ACME}/incomingRequests/t-e") };
    assert_eq!(world.incoming_requests().get_incoming_request(gone).await.unwrap_err().code(), Code::NotFound);

    let (folder, _) = world.end().await;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(MARK.len()).any(|window| window == MARK.as_bytes()));
    }
}

async fn watch(
    world: &World,
    filter: admin::DeliveryFilter,
    resume_token: &str,
) -> Result<Streaming<admin::WatchDeliveriesResponse>, tonic::Status> {
    let request = admin::WatchDeliveriesRequest {
        parent: ACME.to_owned(),
        filter: Some(filter),
        resume_token: resume_token.to_owned(),
    };
    Ok(within(world.deliveries().watch_deliveries(request)).await?.into_inner())
}

async fn next(watched: &mut Streaming<admin::WatchDeliveriesResponse>) -> (String, i32, String) {
    let told = within(watched.message()).await.unwrap().unwrap();
    let delivery = told.delivery.unwrap();
    (delivery.name.rsplit('/').next().unwrap().to_owned(), delivery.state, told.resume_token)
}

#[tokio::test]
async fn a_watcher_sees_what_is_new_and_what_changes_and_goes_on_where_it_was() {
    let world = World::new().await;
    let mut reporter = Reporter::connect(&world).await;
    reporter.report(vec![outcome("old", 0, Delivered)]).await;
    let dead = || admin::DeliveryFilter { states: vec![Dead.into()], ..Default::default() };
    let mut all = watch(&world, admin::DeliveryFilter::default(), "").await.unwrap();
    let mut dying = watch(&world, dead(), "").await.unwrap();
    reporter.report(vec![outcome("a", 1, Waiting)]).await;
    let (name, state, token) = next(&mut all).await;
    assert_eq!((name.as_str(), state), ("a", Waiting.into()), "from now on");
    reporter.report(vec![Outcome { order: 2, ..outcome("a", 1, Dead) }, outcome("b", 2, Delivered)]).await;
    assert_eq!(next(&mut all).await.1, i32::from(Dead));
    assert_eq!(next(&mut all).await.0, "b");
    assert_eq!(next(&mut dying).await.0, "a");
    drop(all);
    let mut resumed = watch(&world, admin::DeliveryFilter::default(), &token).await.unwrap();
    assert_eq!((next(&mut resumed).await.0, next(&mut resumed).await.0), ("a".to_owned(), "b".to_owned()));
    let refused = watch(&world, dead(), &token).await.unwrap_err();
    assert!(has(&violations(&refused), "resume_token", "TOKEN_INVALID"), "a token belongs to its filter");
}

#[tokio::test]
async fn a_watcher_that_takes_nothing_is_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("master.key"), RING).unwrap();
    let clock = Clock::manual(START);
    let mut settings: Settings = settings(folder.path(), &clock);
    settings.limits.watcher_patience = Duration::from_millis(5);
    let world = World::start_with(folder, settings).await;
    world.workspace("acme").await;
    let mut slow = watch(&world, admin::DeliveryFilter::default(), "").await.unwrap();
    let mut reporter = Reporter::connect(&world).await;
    for round in 0..40 {
        let large = changed(outcome(&format!("d{round}"), round, Dead), |d| d.message = "x".repeat(200_000));
        reporter.report(vec![large]).await;
    }
    let told = within(async {
        loop {
            match slow.message().await {
                Ok(message) => assert!(message.is_some(), "the stream ended without a word"),
                Err(status) => return status,
            }
            // Slower than the server waits.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(refusal(&told), (Code::ResourceExhausted, "WATCHER_TOO_SLOW".to_owned()));
}
