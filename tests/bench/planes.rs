//! What a thousand data planes cost one control plane, and how long a change is on its way to the last of them.
//!
//! `cargo bench -p sluice-tests --bench planes`. The planes of the product run in a process of their own, whose memory and processor time
//! are looked at; the thousand are tasks of this one, without insides. All share the machine's cores.
//!
//! | Row | What |
//! |---|---|
//! | connected | memory of the process for each of them, all up to date |
//! | publish | from the call of Publish until the last has acknowledged it; bytes and processor time for each |
//! | come back | the process starts again: until all are up to date, and what had to move |
//! | deaf | as many that never read: memory while a large workspace is changed again and again |

#![allow(clippy::print_stdout, reason = "its result is what it prints")]

use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sluice::folder::Folder;
use sluice_client::{Client, admin};
use sluice_proto::sync::v1::sync_request::Kind;
use sluice_proto::sync::v1::sync_service_client::SyncServiceClient;
use sluice_proto::sync::v1::{Hello, SyncRequest, SyncResponse};
use sluice_tests::fleet::Fleet;
use sluice_tests::subject::{Setup, Subject};
use sluice_tests::{Workspace, resources};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use crate::measure::percentile;
use crate::verdict::verdict;

mod measure;
mod verdict;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PLANES: usize = 1000;
const PUBLISHES: usize = 50;
const LARGE_PUBLISHES: usize = 200;
/// What must hold: for each plane, in kB of memory, in bytes of a small change, and in MB that deaf ones may cost altogether.
const MEMORY_MAX: f64 = 30.0;
const BYTES_MAX: f64 = 1024.0;
const DEAF_MAX: f64 = 300.0;

fn main() {
    // `cargo test --all-targets` builds and starts this too.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("run with: cargo bench -p sluice-tests --bench planes");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let held = runtime.block_on(run());
    std::process::exit(i32::from(!held));
}

/// The process with both planes, and the way to it.
struct Building {
    subject: Subject,
    acme: Workspace,
    url: String,
    plane_key: String,
}

async fn run() -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::on(&folder.path().join("data"));
    let building = Building::start(&setup).await;
    let incoming = building.acme.incoming("orders", resources::open()).await;
    let before = building.memory();
    let fleet = Fleet::start(&building.url, &building.plane_key, PLANES);
    let begun = Instant::now();
    fleet.synced().await;
    let each = (building.memory() - before) / PLANES as f64;
    println!("connected: {PLANES} in {:.1} s", begun.elapsed().as_secs_f64());
    let memory = verdict("memory for each, kB", each, each <= MEMORY_MAX, "at most 30");

    let changes = publishes(&building, &fleet, &incoming).await;
    let building = come_back(building, &setup, &fleet).await;
    drop(fleet);
    let deaf = deaf(&building).await;
    building.subject.stop().await.expect("a proper stop");
    memory && changes && deaf
}

/// Publishes a small change again and again.
async fn publishes(building: &Building, fleet: &Fleet, incoming: &admin::IncomingIntegration) -> bool {
    let (mut took, bytes) = (Vec::new(), fleet.counts().bytes.load(Ordering::Relaxed));
    let cpu = building.processor_time();
    for number in 0..PUBLISHES {
        let display_name = format!("Orders {number}");
        building
            .acme
            .update_incoming(admin::IncomingIntegration { display_name, etag: String::new(), ..incoming.clone() })
            .await;
        let begun = Instant::now();
        building.acme.publish_incoming(&incoming.name).await.expect("published");
        let revision = building.acme.get().await.revision;
        fleet.serve(&building.acme.name, revision).await;
        took.push(begun.elapsed());
    }
    let all = (PUBLISHES * PLANES) as f64;
    let cpu = (building.processor_time() - cpu).as_secs_f64() * 1e6 / all;
    let bytes = (fleet.counts().bytes.load(Ordering::Relaxed) - bytes) as f64 / all;
    println!(
        "publish to the last acknowledgement, {PUBLISHES} times: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms; {cpu:.0} us of processor for each",
        percentile(&mut took, 50),
        percentile(&mut took, 99),
        percentile(&mut took, 100),
    );
    verdict("bytes of a change for each", bytes, bytes <= BYTES_MAX, "at most 1024")
}

/// The process ends and starts again; everybody holds what it has.
async fn come_back(building: Building, setup: &Setup, fleet: &Fleet) -> Building {
    let (bytes, streams) =
        (fleet.counts().bytes.load(Ordering::Relaxed), fleet.counts().streams.load(Ordering::Relaxed));
    building.subject.stop().await.expect("a proper stop");
    let begun = Instant::now();
    let subject = Subject::start(env!("CARGO_BIN_EXE_subject"), setup, Stdio::inherit()).await.expect("a process");
    while fleet.counts().streams.load(Ordering::Relaxed) < streams + PLANES as u64 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fleet.synced().await;
    let moved = fleet.counts().bytes.load(Ordering::Relaxed) - bytes;
    println!("come back: all after {:.1} s, {moved} bytes of configuration moved", begun.elapsed().as_secs_f64());
    Building { subject, ..building }
}

/// As many that say hello and never read, while a workspace of half a megabyte changes all the time.
async fn deaf(building: &Building) -> bool {
    let text = "x".repeat(9_000);
    let mut names = Vec::new();
    for number in 0..50 {
        let id = format!("large-{number}");
        let mut request = resources::post("https://api.example.com/in", &text);
        request.template_mode = admin::TemplateMode::Exact.into();
        names.push(building.acme.outgoing(&id, request).await.name);
    }
    let before = building.memory();
    let mut streams = Vec::new();
    let mut channel = None;
    for number in 0..PLANES {
        if number % 100 == 0 {
            let endpoint = Channel::from_shared(building.url.clone()).expect("a URL");
            channel = Some(endpoint.initial_stream_window_size(65_535).connect().await.expect("a connection"));
        }
        let channel = channel.clone().expect("one was made");
        streams.push(hold(channel, building, number).await);
    }
    let connected = building.memory();
    let mut most = connected;
    for number in 0..LARGE_PUBLISHES {
        let mut request = resources::post("https://api.example.com/in", &format!("{number}{text}"));
        request.template_mode = admin::TemplateMode::Exact.into();
        let name = names[number % names.len()].clone();
        let display_name = "large".to_owned();
        let changed = admin::OutgoingIntegration {
            name: name.clone(),
            display_name,
            request: Some(request),
            ..Default::default()
        };
        building.acme.update_outgoing(changed).await;
        building.acme.publish_outgoing(&name).await.expect("published");
        most = most.max(building.memory());
    }
    let grown = (most - connected) / 1024.0;
    println!("deaf: {PLANES} cost {:.1} MB", (connected - before) / 1024.0);
    drop(streams);
    verdict("grown by 200 publishes, MB", grown, grown <= DEAF_MAX, "at most 300")
}

/// A stream that is held open and not read. One that is turned away tries again.
async fn hold(
    channel: Channel,
    building: &Building,
    number: usize,
) -> (mpsc::Sender<SyncRequest>, Streaming<SyncResponse>) {
    loop {
        let (say, said) = mpsc::channel(1);
        let hello = Hello { data_plane_id: format!("deaf-{number}"), ..Hello::default() };
        say.send(SyncRequest { kind: Some(Kind::Hello(hello)) }).await.expect("room");
        let mut request = Request::new(ReceiverStream::new(said));
        let key = format!("Bearer {}", building.plane_key.trim());
        request.metadata_mut().insert("authorization", key.parse().expect("a key"));
        match SyncServiceClient::new(channel.clone()).sync(request).await {
            Ok(hear) => return (say, hear.into_inner()),
            Err(_later) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

impl Building {
    async fn start(setup: &Setup) -> Self {
        let subject = Subject::start(env!("CARGO_BIN_EXE_subject"), setup, Stdio::inherit()).await.expect("a process");
        let folder = Folder::open(&setup.folder).expect("a folder");
        let read = |path| std::fs::read_to_string(path).expect("a key");
        let url = format!("http://{}", setup.grpc);
        let client = Client::connect(&url, read(folder.admin_key_file()).trim()).await.expect("a client");
        let acme = Workspace::create(&client, "acme").await;
        Self { subject, acme, url, plane_key: read(folder.data_plane_key_file()) }
    }

    fn told(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.subject.id().expect("it runs"));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// Resident, in kB; 0 where there is no `/proc`.
    fn memory(&self) -> f64 {
        let status = self.told("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        resident.and_then(|kilobytes| kilobytes.parse().ok()).unwrap_or(0.0)
    }

    /// Of all its threads, in hundredths of a second.
    fn processor_time(&self) -> Duration {
        let stat = self.told("stat");
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }
}
