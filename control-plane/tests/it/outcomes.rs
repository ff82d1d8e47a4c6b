//! What data planes report, and who reads it.

use sluice_proto::admin::v1 as admin;
use sluice_proto::sync::v1::{Outcome, ReportRequest, ReportResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::world::{ACME, World, refusal, violations, within};

pub(crate) struct Reporter {
    say: mpsc::Sender<ReportRequest>,
    hear: Streaming<ReportResponse>,
    sequence: i64,
}

impl Reporter {
    pub(crate) async fn connect(world: &World) -> Self {
        let (say, said) = mpsc::channel(16);
        let hear = within(world.sync().report(ReceiverStream::new(said))).await.unwrap().into_inner();
        Self { say, hear, sequence: 0 }
    }

    pub(crate) async fn report(&mut self, outcomes: Vec<Outcome>) {
        self.report_as("dp-1", outcomes).await;
    }

    pub(crate) async fn report_as(&mut self, data_plane: &str, outcomes: Vec<Outcome>) {
        self.sequence += 1;
        let request = ReportRequest { sequence: self.sequence, outcomes, data_plane_id: data_plane.to_owned() };
        self.say.send(request).await.unwrap();
        let answer = within(self.hear.message()).await.unwrap().unwrap();
        assert_eq!(answer.sequence, self.sequence);
    }
}

fn outcome(workspace: &str, id: &str, state: admin::DeliveryState, action: &str) -> Outcome {
    let delivery =
        admin::Delivery { name: format!("{workspace}/deliveries/{id}"), state: state.into(), ..Default::default() };
    let event = admin::Event {
        name: format!("{workspace}/events/{id}"),
        action: action.to_owned(),
        delivery: delivery.name.clone(),
        params: "{\"status\":200}".to_owned(),
        ..Default::default()
    };
    Outcome { workspace: workspace.to_owned(), delivery: Some(delivery), event: Some(event), ..Default::default() }
}

fn delivered(id: &str) -> Outcome {
    outcome(ACME, id, admin::DeliveryState::Delivered, "webhook.response")
}

pub(crate) fn ids<'a>(names: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    names.map(|name| name.rsplit('/').next().unwrap()).collect()
}

async fn events(world: &World, action: &str, page_size: i32, page_token: &str) -> admin::ListEventsResponse {
    let request = admin::ListEventsRequest {
        parent: ACME.to_owned(),
        page_size,
        page_token: page_token.to_owned(),
        action: action.to_owned(),
        ..Default::default()
    };
    world.events().list_events(request).await.unwrap().into_inner()
}

async fn watch(world: &World, action: &str, after: &str) -> Streaming<admin::Event> {
    let request =
        admin::WatchEventsRequest { parent: ACME.to_owned(), action: action.to_owned(), after: after.to_owned() };
    within(world.events().watch_events(request)).await.unwrap().into_inner()
}

async fn next(events: &mut Streaming<admin::Event>) -> String {
    let event = within(events.message()).await.unwrap().unwrap();
    event.name.rsplit('/').next().unwrap().to_owned()
}

#[tokio::test]
async fn an_outcome_reported_twice_is_kept_once() {
    let world = World::new().await;
    let mut reporter = Reporter::connect(&world).await;
    reporter.report(vec![delivered("d-1"), delivered("d-2")]).await;
    reporter.report(vec![delivered("d-2"), delivered("d-3"), delivered("d-3")]).await;
    drop(reporter);
    Reporter::connect(&world).await.report(vec![delivered("d-1")]).await;
    let listed = events(&world, "", 0, "").await;
    assert_eq!(ids(listed.events.iter().map(|event| &event.name)), ["d-3", "d-2", "d-1"], "newest first");
    let request = admin::ListDeliveriesRequest { parent: ACME.to_owned(), ..Default::default() };
    let listed = world.deliveries().list_deliveries(request).await.unwrap().into_inner();
    assert_eq!(ids(listed.deliveries.iter().map(|delivery| &delivery.name)), ["d-3", "d-2", "d-1"]);
}

#[tokio::test]
async fn outcomes_of_nobody_are_acknowledged_and_dropped() {
    let world = World::new().await;
    let mut reporter = Reporter::connect(&world).await;
    let mut crossed = delivered("d-9");
    crossed.workspace = "workspaces/other".to_owned();
    world.workspace("other").await;
    let nobody = outcome("workspaces/nobody", "d-1", admin::DeliveryState::Dead, "");
    reporter.report(vec![nobody, crossed, Outcome::default(), delivered("d-2")]).await;
    reporter.report(Vec::new()).await;
    assert_eq!(ids(events(&world, "", 0, "").await.events.iter().map(|event| &event.name)), ["d-2"]);
    let request = admin::ListEventsRequest { parent: "workspaces/other".to_owned(), ..Default::default() };
    assert!(world.events().list_events(request).await.unwrap().into_inner().events.is_empty());

    reporter.say.send(ReportRequest { outcomes: vec![delivered("d"); 501], ..Default::default() }).await.unwrap();
    let refused = within(reporter.hear.message()).await.unwrap_err();
    assert!(crate::world::has(&violations(&refused), "outcomes", "TOO_MANY"));
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let world = World::new().await;
    let mut reporter = Reporter::connect(&world).await;
    let all = (0..7).map(|index| {
        let state = if index % 2 == 0 { admin::DeliveryState::Delivered } else { admin::DeliveryState::Dead };
        outcome(ACME, &format!("d-{index}"), state, if index < 3 { "early" } else { "late" })
    });
    reporter.report(all.collect()).await;
    let page = events(&world, "late", 3, "").await;
    assert_eq!(ids(page.events.iter().map(|event| &event.name)), ["d-6", "d-5", "d-4"]);
    let rest = events(&world, "late", 3, &page.next_page_token).await;
    assert_eq!(ids(rest.events.iter().map(|event| &event.name)), ["d-3"]);
    assert_eq!(rest.next_page_token, "");
    let request = admin::ListEventsRequest {
        parent: ACME.to_owned(),
        page_token: page.next_page_token,
        action: "early".to_owned(),
        ..Default::default()
    };
    let refused = world.events().list_events(request).await.unwrap_err();
    assert_eq!(refusal(&refused).1, "PAGE_TOKEN_INVALID", "a token belongs to its filter");

    let filter = |state: i32| Some(admin::DeliveryFilter { states: vec![state], ..Default::default() });
    let dead = admin::ListDeliveriesRequest {
        parent: ACME.to_owned(),
        filter: filter(admin::DeliveryState::Dead.into()),
        ..Default::default()
    };
    let listed = world.deliveries().list_deliveries(dead.clone()).await.unwrap().into_inner();
    assert_eq!(ids(listed.deliveries.iter().map(|delivery| &delivery.name)), ["d-5", "d-3", "d-1"]);
    let unknown = admin::ListDeliveriesRequest { filter: filter(77), ..dead };
    assert!(crate::world::has(
        &violations(&world.deliveries().list_deliveries(unknown).await.unwrap_err()),
        "filter.states[0]",
        "UNKNOWN"
    ));

    let name = format!("{ACME}/deliveries/d-1");
    let request = admin::GetDeliveryRequest { name: name.clone() };
    assert_eq!(world.deliveries().get_delivery(request).await.unwrap().into_inner().name, name);
    for gone in [format!("{ACME}/deliveries/nope"), "workspaces/other/deliveries/d-1".to_owned()] {
        let refused = world.deliveries().get_delivery(admin::GetDeliveryRequest { name: gone }).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
    }
}

#[tokio::test]
async fn a_watcher_sees_what_arrives_and_can_go_on_where_it_was() {
    let world = World::new().await;
    let mut reporter = Reporter::connect(&world).await;
    reporter.report(vec![delivered("d-0")]).await;
    let mut all = watch(&world, "", "").await;
    let mut some = watch(&world, "special", "").await;
    reporter.report(vec![delivered("d-1")]).await;
    reporter.report(vec![outcome(ACME, "d-2", admin::DeliveryState::Dead, "special")]).await;
    assert_eq!(next(&mut all).await, "d-1", "from now on");
    assert_eq!(next(&mut all).await, "d-2");
    assert_eq!(next(&mut some).await, "d-2");
    drop((all, some));

    let many: Vec<_> = (10..460).map(|index| delivered(&format!("d-{index}"))).collect();
    reporter.report(many).await;
    let mut resumed = watch(&world, "", &format!("{ACME}/events/d-1")).await;
    assert_eq!(next(&mut resumed).await, "d-2");
    for index in 10..460 {
        assert_eq!(next(&mut resumed).await, format!("d-{index}"));
    }
    for (parent, after, code) in [
        ("workspaces/nobody", "", Code::NotFound),
        (ACME, "workspaces/acme/events/nope", Code::NotFound),
        (ACME, "nope", Code::InvalidArgument),
    ] {
        let request =
            admin::WatchEventsRequest { parent: parent.to_owned(), after: after.to_owned(), ..Default::default() };
        assert_eq!(world.events().watch_events(request).await.unwrap_err().code(), code);
    }
}

#[tokio::test]
async fn a_watcher_hears_when_its_workspace_is_deleted_or_the_server_stops() {
    let world = World::new().await;
    world.workspace("other").await;
    let mut kept = watch(&world, "", "").await;
    let request = admin::WatchEventsRequest { parent: "workspaces/other".to_owned(), ..Default::default() };
    let mut gone = world.events().watch_events(request).await.unwrap().into_inner();
    let request = admin::DeleteWorkspaceRequest { name: "workspaces/other".to_owned(), ..Default::default() };
    world.workspaces().delete_workspace(request).await.unwrap();
    Reporter::connect(&world).await.report(vec![delivered("d-1")]).await;
    assert_eq!(within(gone.message()).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(next(&mut kept).await, "d-1");
    let ended = tokio::spawn(async move { within(kept.message()).await });
    drop(gone);
    world.end().await;
    assert_eq!(refusal(&ended.await.unwrap().unwrap_err()), (Code::Unavailable, "SERVER_STOPPING".to_owned()));
}

#[tokio::test]
async fn outcomes_are_kept_for_thirty_days() {
    const DAY: i64 = 24 * 3600 * 1000;
    let world = World::new().await;
    Reporter::connect(&world).await.report((0..450).map(|index| delivered(&format!("old-{index}"))).collect()).await;
    world.clock.advance(20 * DAY);
    Reporter::connect(&world).await.report(vec![delivered("young")]).await;
    world.clock.advance(10 * DAY + 1);
    // What is too old goes when the server starts, and then every hour.
    let world = world.restart().await;
    within(async {
        while events(&world, "", 10, "").await.events.len() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(ids(events(&world, "", 10, "").await.events.iter().map(|event| &event.name)), ["young"]);
}
