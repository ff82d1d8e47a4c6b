//! Jobs from the inbox until their outcomes are recorded, beside the same client in a loop. Planes and destination are in this process;
//! the control plane is stopped, as elsewhere it has cores of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use sluice_core::envelope::{Envelope, Headers};
use sluice_data_plane::inbox::{Accept, Accepted, Lane, NewJob};
use sluice_egress::Egress;
use sluice_proto::sync::v1::Job;
use sluice_tests::{World, resources};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::bare;
use crate::process::Watched;
use crate::table::Target::AtLeast;
use crate::table::{Measured, Round, Table};

const ROUNDS: usize = 7;
const BATCH: usize = 4_000;
/// Calls of the bare client in a round: it is faster.
const CALLS: usize = 5 * BATCH;
/// Places as the plane has them unless it is told.
const PLACES: usize = 512;

/// Requests at once: what one workspace gets of so many places.
fn at_once(places: usize) -> usize {
    places / 4 * 3
}

/// With both versions of HTTP: the second costs a bare client far less. And with fewer connections.
pub(crate) async fn run(table: &mut Table) {
    let versions = [
        ("HTTP/1.1", false, PLACES, Some(AtLeast(0.6))),
        ("HTTP/1.1, half the places", false, PLACES / 2, None),
        ("HTTP/2", true, PLACES, None),
    ];
    for (version, http2, places, target) in versions {
        let world = world(http2, places).await;
        let bare = Arc::new(Egress::new(world.0.plane().settings.egress.clone()).expect("a client"));
        let (mut delivered, mut called) = (Measured::default(), Measured::default());
        for round in 0..=ROUNDS {
            let (ours, theirs) = (deliveries(&world).await, calls(&bare, at_once(places)).await);
            // The first round warms up.
            if round > 0 {
                delivered.add(ours);
                called.add(theirs);
            }
        }
        table.rate(&format!("bare client, TLS, {version}"), &mut called);
        table.against(&format!("deliveries, TLS, {version}"), &mut delivered, &called, target);
    }
}

/// Nothing but deliveries, for a profiler.
pub(crate) async fn profile() {
    let world = world(false, PLACES).await;
    for _ in 0..5 * ROUNDS {
        deliveries(&world).await;
    }
}

async fn world(http2: bool, places: usize) -> (World, String) {
    let mut world = World::with(|options| {
        options.destination.remembered = 1;
        options.destination.http2 = http2;
        options.data_plane.dispatch.destination_share = 100;
        options.data_plane.workers.realtime = places;
    })
    .await;
    let body = r#"{"order": "{{ request.body.order }}"}"#;
    let incoming = world.acme.flow("load", resources::post("https://api.example.com/in", body)).await;
    world.served().await;
    world.stop_control_plane().await;
    (world, incoming.endpoint_id)
}

/// Nothing but the bare client.
pub(crate) async fn profile_bare() {
    let (world, _) = world(false, PLACES).await;
    let bare = Arc::new(Egress::new(world.plane().settings.egress.clone()).expect("a client"));
    for _ in 0..2 * ROUNDS {
        calls(&bare, at_once(PLACES)).await;
    }
}

/// Puts jobs straight into the inbox, until all are over.
async fn deliveries((world, endpoint_id): &(World, String)) -> Round {
    let plane = world.plane();
    let runtime = plane.served.load();
    let endpoint = runtime.endpoint(endpoint_id).expect("it is served");
    let wanting = &endpoint.workflows()[0];
    let envelope = Envelope {
        body: serde_json::from_str(r#"{"order": "A-1001"}"#).expect("JSON"),
        business_profile_id: 1,
        endpoint_id: endpoint_id.clone(),
        event_id: Uuid::now_v7().to_string(),
        headers: Headers::new(),
        method: "POST".to_owned(),
        time: 1_800_000_000_000,
    };
    let job = Job {
        workspace: endpoint.of.workspace.clone(),
        workflow: wanting.workflow.name.clone(),
        step_id: wanting.workflow.steps[0].id.clone(),
        trigger_id: envelope.event_id.clone(),
        revision: 1,
        envelope: envelope.to_json().into(),
        ..Job::default()
    };
    let payload = Bytes::from(job.encode_to_vec());
    let accept = || {
        let flow = wanting.flows[0].clone();
        let job = |_| NewJob { id: Uuid::now_v7(), lane: Lane::Realtime, flow: flow.clone(), payload: payload.clone() };
        Accept { request: Uuid::now_v7(), claim: None, jobs: (0..500).map(job).collect() }
    };
    let (begun, cpu) = (Instant::now(), Watched::this().cpu());
    for _ in 0..BATCH / 500 {
        assert_eq!(plane.inbox.accept(accept()).await, Ok(Accepted::Accepted));
    }
    loop {
        let stats = plane.inbox.stats().await.expect("stats").realtime;
        if stats.ready + stats.leased + stats.delayed == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    round(BATCH, begun, cpu)
}

/// The same requests without anything else.
async fn calls(egress: &Arc<Egress>, at_once: usize) -> Round {
    let (begun, cpu) = (Instant::now(), Watched::this().cpu());
    let mut all = JoinSet::new();
    for _ in 0..at_once {
        let egress = egress.clone();
        all.spawn(async move {
            for _ in 0..CALLS / at_once {
                bare::call(&egress).await;
            }
        });
    }
    all.join_all().await;
    round(CALLS / at_once * at_once, begun, cpu)
}

fn round(count: usize, begun: Instant, cpu: Duration) -> Round {
    let time = begun.elapsed();
    Round { count, time, latencies: Vec::new(), cpu: Watched::this().cpu() - cpu, resident: 0.0 }
}
