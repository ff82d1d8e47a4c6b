//! How deliveries leave: whether one destination disturbs another, and whether limits hold. What sending costs is in the bench `paths`.
//!
//! `cargo bench -p sluice-tests --bench delivery`, with `-- isolation` or `limit` for a part of it. Everything is on: fsync before each
//! attempt and each outcome, reports to the control plane, metrics. Planes, senders and destinations share the machine's cores.
//!
//! | Row | What |
//! |---|---|
//! | alone, beside one that hangs | from the trigger's answer to the arrival, at 50 per second, without and with 10,000 jobs that wait for a destination that answers nothing for 30 s |
//! | limit | arrivals in 30 s of an integration with a limit, 8 workers, more waiting than may be sent |

#![allow(clippy::print_stdout, reason = "its result is what it prints")]

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluice::destination::{self, Answer, Destination, Otherwise};
use sluice_client::admin;
use sluice_data_plane::settings::WorkerSettings;
use sluice_tests::{Numbers, RawHttp, Request, World, resources};
use tokio::task::JoinSet;

use crate::measure::percentile;
use crate::verdict::verdict;

mod measure;
mod verdict;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Per second, to the destination that is well.
const PACE: u32 = 50;
const PHASE: Duration = Duration::from_secs(15);
const HANGING: usize = 10_000;
const LIMIT: i32 = 100;
const LIMIT_TIME: Duration = Duration::from_secs(30);
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
        let isolated = !wanted("isolation") || isolation().await;
        let limited = !wanted("limit") || limit().await;
        isolated && limited
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
