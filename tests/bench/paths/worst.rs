//! What a data plane needs of memory at worst: as many deliveries as there are places, each with a request and an answer of almost
//! 1 MiB, and beside them as many triggers in work as there may be, each with a body of that size.

use std::time::Duration;

use sluice::destination::{Answer, Destination, Gate, Options, Otherwise};
use sluice_client::admin;
use sluice_tests::{RawHttp, RedisServer, Request, Workspace, resources};
use tokio::task::JoinSet;

use crate::bare::{NAME, Sink};
use crate::building::{Building, Wanted};
use crate::table::Table;

/// Deliveries at once of so many workspaces, each: nearly all of 512 places. Some are always left for another workspace.
const EACH: usize = 31;
const WORKSPACES: usize = 16;
const PLACES: usize = EACH * WORKSPACES;
/// Triggers in work at once.
const IN_FLIGHT: usize = 1_024;
/// Of a body and of an answer: with what is around it, just below 1 MiB.
const PAYLOAD: usize = 1_048_000;
/// As long as a call may take, so that all wait at once.
const TIMEOUT: prost_types::Duration = prost_types::Duration { seconds: 120, nanos: 0 };

pub(crate) async fn run(table: &mut Table) {
    let server = RedisServer::start().await;
    let url = server.url();
    for redis in [None, Some(url.as_str())] {
        at_worst(table, redis).await;
    }
}

async fn at_worst(table: &mut Table, redis: Option<&str>) {
    let gate = Gate::new();
    let answer = Answer::json(200, format!(r#"{{"payload":"{}"}}"#, "y".repeat(PAYLOAD))).after(&gate);
    let otherwise = Otherwise::Answer(answer);
    let options = Options { remembered: 1, http2: false, otherwise, ..Options::named([NAME]) };
    let destination = Destination::start(options).await.expect("a destination");
    let sink = Sink { address: destination.address(), ca_pem: destination.ca_pem() };
    let building = Building::start(&[], Wanted { sink: Some(&sink), redis, alone: true, ..Wanted::default() }).await;
    let resident = || building.watched().resident();
    let paths = endpoints(&building).await;
    let before = resident();

    let body = format!(r#"{{"payload":"{}"}}"#, "x".repeat(PAYLOAD));
    for path in &paths {
        for _ in 0..EACH {
            let request = Request::post(path, &body);
            let answer = RawHttp::connect(building.setup.ingress).await.exchange(&request).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    destination.wait_for(PLACES).await.expect("every place is taken");
    let calls = settled(resident).await;

    let (mut senders, request) = (Vec::new(), Request::post(&paths[0], &body).bytes());
    let (all, last) = request.split_at(request.len() - 1);
    for _ in 0..IN_FLIGHT {
        let mut sender = RawHttp::connect(building.setup.ingress).await;
        sender.send(all).await;
        senders.push(sender);
    }
    let triggers = settled(resident).await;

    gate.open();
    let mut answers = JoinSet::new();
    for mut sender in senders {
        let last = last.to_vec();
        answers.spawn(async move {
            sender.send(&last).await;
            sender.answer().await.status
        });
    }
    let taken = answers.join_all().await.into_iter().filter(|status| *status == 200).count();
    building.drained().await;
    let store = if redis.is_some() { "Redis" } else { "SQLite" };
    table.figure(&format!("{PLACES} calls of 1 MiB that wait for an answer, {store}"), calls - before, "MB", None);
    table.figure(&format!("  and {IN_FLIGHT} triggers of 1 MiB that are not complete"), triggers - before, "MB", None);
    table.figure("  of which are taken", taken as f64, "", None);
    table.figure("  all of the process at worst, until all is delivered", building.watched().most(), "MB", None);
    table.figure("  after it", resident(), "MB", None);
    building.stop().await;
    destination.shutdown().await;
}

/// One endpoint of each workspace.
async fn endpoints(building: &Building) -> Vec<String> {
    let mut paths = Vec::new();
    for number in 0..WORKSPACES {
        let workspace = Workspace::create(&building.acme.client, &format!("worst-{number}")).await;
        let request = admin::OutgoingRequest {
            timeout: Some(TIMEOUT),
            ..resources::post(&format!("https://{NAME}/in"), r#"{"of": "{{ request.body.payload }}"}"#)
        };
        paths.push(workspace.flow("all", request).await.endpoint_path);
        workspace.ready().await;
    }
    paths
}

/// Once it no longer grows.
async fn settled(resident: impl Fn() -> f64) -> f64 {
    let mut last = resident();
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = resident();
        if now <= last + 1.0 {
            return now;
        }
        last = now;
    }
}
