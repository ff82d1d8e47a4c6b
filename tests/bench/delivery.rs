//! How deliveries leave: whether one destination disturbs another, whether limits hold, and what sending costs.
//!
//! `cargo bench -p sluice-tests --bench delivery`, with `-- isolation`, `limit` or `cost` for a part of it, or `profile`: only
//! deliveries, for a profiler. Everything is on: fsync before each attempt and each outcome, reports to the
//! control plane, metrics. Planes, senders and destinations share the machine's cores.
//!
//! | Row | What |
//! |---|---|
//! | alone, beside one that hangs | from the trigger's answer to the arrival, at 50 per second, without and with 10,000 jobs that wait for a destination that answers nothing for 30 s |
//! | limit | arrivals in 30 s of an integration with a limit, 8 workers, more waiting than may be sent |
//! | deliveries | jobs from the inbox to a local TLS destination that keeps connections, until their outcomes are recorded; the control plane is stopped, as elsewhere it has cores of its own |
//! | bare client | the same requests by the same client in a loop, with as many at once |
//!
//! The last two alternate in one run, once with HTTP/1.1 and once with HTTP/2, which costs a bare client far less.

#![allow(clippy::print_stdout, reason = "its result is what it prints")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use sluice::destination::{self, Answer, Destination, Otherwise};
use sluice_client::admin;
use sluice_core::envelope::{Envelope, Headers};
use sluice_data_plane::inbox::{Accept, Accepted, Lane, NewJob};
use sluice_data_plane::settings::WorkerSettings;
use sluice_egress::Egress;
use sluice_proto::sync::v1::Job;
use sluice_tests::{Numbers, RawHttp, Request, World, resources};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::measure::{median, percentile, verdict};

mod measure;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Per second, to the destination that is well.
const PACE: u32 = 50;
const PHASE: Duration = Duration::from_secs(15);
const HANGING: usize = 10_000;
const LIMIT: i32 = 100;
const LIMIT_TIME: Duration = Duration::from_secs(30);
const ROUNDS: usize = 7;
const BATCH: usize = 4_000;
/// Calls of the bare client in a round: it is faster.
const CALLS: usize = 5 * BATCH;
/// Requests at once: what one workspace gets of 256 places.
const AT_ONCE: usize = 192;
/// Senders of triggers.
const SENDERS: usize = 64;

fn main() {
    // `cargo test --all-targets` builds and starts this too.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("run with: cargo bench -p sluice-tests --bench delivery");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let part = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let wanted = |name: &str| part.as_deref().is_none_or(|part| part == name);
    let held = runtime.block_on(async {
        if part.as_deref() == Some("profile") {
            return cost(false, false).await;
        }
        let isolated = !wanted("isolation") || isolation().await;
        let limited = !wanted("limit") || limit().await;
        if !wanted("cost") {
            return isolated && limited;
        }
        let cheap = cost(false, true).await;
        // Told, not judged.
        cost(true, true).await;
        isolated && limited && cheap
    });
    std::process::exit(i32::from(!held));
}

/// One destination hangs; does the other notice?
async fn isolation() -> bool {
    let hangs = destination::Options {
        otherwise: Otherwise::Answer(Answer::hang()),
        remembered: 1,
        ..destination::Options::named(["hangs.example.com"])
    };
    let hangs = Destination::start(hangs).await.expect("a destination");
    let world = World::with(|options| {
        options.destination.remembered = 1;
        options.data_plane.egress.static_addresses.extend(hangs.static_addresses());
        options.data_plane.egress.extra_ca_pem.push(hangs.ca_pem().into_bytes());
    })
    .await;
    let fine = world.workspace("fine").await.flow("fine", resources::post("https://api.example.com/in", "{}")).await;
    let hanging = world.acme.flow("hangs", resources::post("https://hangs.example.com/in", "{}")).await;
    world.served().await;
    let mut arrived = 0;
    // Connections are made once.
    paced(&world, &fine.endpoint_path, Duration::from_secs(2), &mut arrived).await;
    let mut alone = paced(&world, &fine.endpoint_path, PHASE, &mut arrived).await;
    flood(&world, &hanging.endpoint_path).await;
    let mut beside = paced(&world, &fine.endpoint_path, PHASE, &mut arrived).await;
    println!("{:<44}{:>10}{:>10}{:>10}", "trigger answered to arrived", "p50 ms", "p99 ms", "max ms");
    let mut p99 = [0.0; 2];
    for (p99, (name, latencies)) in p99.iter_mut().zip([("alone", &mut alone), ("beside one that hangs", &mut beside)])
    {
        *p99 = percentile(latencies, 99);
        println!("{name:<44}{:>10.2}{p99:>10.2}{:>10.2}", percentile(latencies, 50), percentile(latencies, 100));
    }
    let numbers = Numbers::of(world.health()).await;
    let waiting = numbers.get("sluice_dispatch_waiting_jobs{lane=\"realtime\",reason=\"concurrency\"}")
        + numbers.get("sluice_dispatch_waiting_jobs{lane=\"realtime\",reason=\"breaker\"}");
    println!("{HANGING} jobs for the one that hangs, {waiting} of them still waiting");
    let ratio = p99[1] / p99[0];
    verdict("p99 beside / alone", ratio, ratio < 2.0, "under 2")
}

/// Triggers at a steady pace; answers how long each took from its answer to its arrival.
async fn paced(world: &World, path: &str, time: Duration, arrived: &mut usize) -> Vec<Duration> {
    let request = Request::post(path, "{}").bytes();
    let mut connection = world.connect().await;
    let count = (time.as_secs_f64() * f64::from(PACE)) as usize;
    let before = *arrived;
    let triggering = async {
        let mut sent = Vec::with_capacity(count);
        let mut pace = tokio::time::interval(Duration::from_secs(1) / PACE);
        for _ in 0..count {
            pace.tick().await;
            connection.send(&request).await;
            assert_eq!(connection.answer().await.status, 200);
            sent.push(Instant::now());
        }
        sent
    };
    let arriving = async {
        let mut at = Vec::with_capacity(count);
        for number in 1..=count {
            world.destination.wait_for(before + number).await.expect("it arrives");
            at.push(Instant::now());
        }
        at
    };
    let (sent, at) = tokio::join!(triggering, arriving);
    *arrived += count;
    sent.iter().zip(&at).map(|(sent, at)| at.saturating_duration_since(*sent)).collect()
}

async fn flood(world: &World, path: &str) {
    let mut all = JoinSet::new();
    for _ in 0..SENDERS {
        let (address, request) = (world.ingress(), Request::post(path, "{}").bytes());
        all.spawn(async move {
            let mut connection = RawHttp::connect(address).await;
            for _ in 0..HANGING.div_ceil(SENDERS) {
                connection.send(&request).await;
                assert_eq!(connection.answer().await.status, 200);
            }
        });
    }
    all.join_all().await;
}

/// Does a limit hold, with more waiting than may be sent?
async fn limit() -> bool {
    let world = World::with(|options| {
        options.data_plane.workers = WorkerSettings { realtime: 8, bulk: 0 };
        options.data_plane.dispatch.destination_share = 100;
    })
    .await;
    let rate_limit = Some(admin::RateLimit { requests_per_second: LIMIT, burst: 0 });
    let request = resources::post("https://api.example.com/in", r#"{"n": {{ request.body.n }}}"#);
    let incoming = world.acme.flow("limited", admin::OutgoingRequest { rate_limit, ..request }).await;
    world.served().await;
    let jobs = LIMIT as usize * (LIMIT_TIME.as_secs() as usize + 3);
    let mut connection = world.connect().await;
    for number in 0..jobs {
        connection.send(&Request::post(&incoming.endpoint_path, format!(r#"{{"n": {number}}}"#)).bytes()).await;
        assert_eq!(connection.answer().await.status, 200);
    }
    let seen = eventually_all(&world, jobs).await;
    let first = seen[0].at;
    let within = seen.iter().filter(|seen| seen.at - first < LIMIT_TIME).count();
    let different: HashSet<&Bytes> = seen.iter().map(|seen| &seen.body).collect();
    println!("\n{within} arrived in {} s at {LIMIT} per second, 8 workers", LIMIT_TIME.as_secs());
    let share = within as f64 / (f64::from(LIMIT) * LIMIT_TIME.as_secs_f64());
    let held = verdict("arrived / allowed", share, (share - 1.0).abs() <= 0.05, "within 5 %");
    let lost = jobs - different.len();
    verdict("lost", lost as f64, lost == 0 && seen.len() == jobs, "none, and none twice") && held
}

/// The destination waits for less long than this takes.
async fn eventually_all(world: &World, jobs: usize) -> Vec<destination::Seen> {
    while world.destination.wait_for(jobs).await.is_err() {}
    world.destination.requests()
}

/// What does dispatching and recording cost, next to sending alone?
async fn cost(http2: bool, compared: bool) -> bool {
    let mut world = World::with(|options| {
        options.destination.remembered = 1;
        options.destination.http2 = http2;
        options.data_plane.dispatch.destination_share = 100;
    })
    .await;
    let body = r#"{"order": "{{ request.body.order }}"}"#;
    let incoming = world.acme.flow("load", resources::post("https://api.example.com/in", body)).await;
    world.served().await;
    world.stop_control_plane().await;
    let bare = Arc::new(Egress::new(world.plane().settings.egress.clone()).expect("a client"));
    let (mut delivered, mut sent, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let ours = deliveries(&world, &incoming.endpoint_id).await;
        let theirs = if compared { calls(&bare).await } else { f64::INFINITY };
        // The first round warms up.
        if round > 0 {
            delivered.push(ours);
            sent.push(theirs);
            ratios.push(ours / theirs);
        }
    }
    let version = if http2 { "per second, HTTP/2" } else { "per second, HTTP/1.1" };
    println!("\n{version:<24}{:>10}{:>10}{:>10}", "min", "median", "max");
    for (name, rates) in [("deliveries", &delivered), ("bare client", &sent)] {
        let (min, max) = rates.iter().fold((f64::MAX, 0.0_f64), |(min, max), rate| (min.min(*rate), max.max(*rate)));
        println!("{name:<24}{min:>10.0}{:>10.0}{max:>10.0}", median(rates));
    }
    let ratio = median(&ratios);
    verdict("deliveries / bare client", ratio, ratio >= 0.6, "at least 0.6")
}

/// Puts jobs straight into the inbox; answers how many a second were over.
async fn deliveries(world: &World, endpoint_id: &str) -> f64 {
    let plane = world.plane();
    let runtime = plane.served.load();
    let endpoint = runtime.endpoint(endpoint_id).expect("it is served");
    let wanting = &endpoint.workflows[0];
    let envelope = Envelope {
        body: serde_json::from_str(r#"{"order": "A-1001"}"#).expect("JSON"),
        business_profile_id: 1,
        endpoint_id: endpoint_id.to_owned(),
        event_id: Uuid::now_v7().to_string(),
        headers: Headers::new(),
        method: "POST".to_owned(),
        time: 1_800_000_000_000,
    };
    let job = Job {
        workspace: endpoint.workspace.clone(),
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
    let begun = Instant::now();
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
    BATCH as f64 / begun.elapsed().as_secs_f64()
}

/// The same requests without anything else.
async fn calls(egress: &Arc<Egress>) -> f64 {
    let begun = Instant::now();
    let mut all = JoinSet::new();
    for _ in 0..AT_ONCE {
        let egress = egress.clone();
        all.spawn(async move {
            for _ in 0..CALLS / AT_ONCE {
                let request = sluice_egress::Request {
                    method: "POST".parse().expect("a method"),
                    url: "https://api.example.com/in".to_owned(),
                    headers: vec![
                        ("Content-Type".to_owned(), "application/json".to_owned()),
                        ("Idempotency-Key".to_owned(), Uuid::now_v7().to_string()),
                    ],
                    body: Bytes::from_static(br#"{"order": "A-1001"}"#),
                    hops: 0,
                };
                let answered = egress.send(request, Duration::from_secs(30)).await;
                assert_eq!(answered.expect("an answer").status, 200);
            }
        });
    }
    all.join_all().await;
    (CALLS / AT_ONCE * AT_ONCE) as f64 / begun.elapsed().as_secs_f64()
}
