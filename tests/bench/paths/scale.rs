//! What very much configuration costs a data plane: a scripted control plane sends it, and answers the same to whoever comes back.

use std::net::SocketAddr;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use sluice::folder::Folder;
use sluice_client::admin;
use sluice_core::seal::{DataKey, MasterKeys, NONCE_BYTES};
use sluice_core::snapshot;
use sluice_proto::sync::v1::resource::Document;
use sluice_proto::sync::v1::sync_request::Kind as Said;
use sluice_proto::sync::v1::sync_response::Kind as Answer;
use sluice_proto::sync::v1::sync_service_server::{SyncService, SyncServiceServer};
use sluice_proto::sync::v1::{
    Cursor, ReportRequest, ReportResponse, Resource, SnapshotChunk, SyncRequest, SyncResponse, Synced, Welcome,
    WorkspaceBody, WrappedKey,
};
use sluice_tests::subject::{Joined, Setup, Subject};
use sluice_tests::{RawHttp, Request, resources};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Response, Status, Streaming};

use crate::building::body;
use crate::load::{Load, Shot};
use crate::process::Watched;
use crate::table::Target::AtMost;
use crate::table::{Table, median};

/// Of one workspace.
const EACH: usize = 1000;
const CONNECTIONS: usize = 64;
const ROUNDS: usize = 7;
const PATIENCE: Duration = Duration::from_secs(300);
const PART_BYTES: usize = 1 << 20;

pub(crate) async fn run(table: &mut Table) {
    let mut stages = Vec::new();
    for (count, sync) in [(10, None), (100_000, Some(2.0)), (1_000_000, Some(15.0))] {
        let (stage, loaded) = Stage::load(count, incoming).await;
        if count > 10 {
            let first = format!("{count} incoming integrations: first sync");
            table.figure(&first, loaded.time.as_secs_f64(), "s", sync.map(AtMost));
            table.figure("  decoding alone", loaded.decoding.as_secs_f64(), "s", None);
            table.figure("  longest answer to a trigger meanwhile", loaded.longest.as_secs_f64() * 1e3, "ms", None);
            table.figure("  memory of each", loaded.bytes_each, "B", Some(AtMost(600.0)));
        }
        stages.push((count, stage));
    }
    triggers(table, &stages).await;
    for (count, stage) in stages.into_iter().skip(1) {
        let took = stage.warm_start(count).await.as_secs_f64();
        let target = (count == 1_000_000).then_some(AtMost(6.0));
        table.figure(&format!("warm start of {count} without a control plane"), took, "s", target);
    }
    let (_stage, loaded) = Stage::load(20_000, outgoing).await;
    table.figure("20000 outgoing integrations: memory of each", loaded.bytes_each, "B", Some(AtMost(4096.0)));
}

/// What a trigger costs among few and among many, in turn: a machine whose speed drifts is as slow for all.
async fn triggers(table: &mut Table, stages: &[(usize, Stage)]) {
    let mut costs = vec![Vec::new(); stages.len()];
    let mut growth = costs.clone();
    for round in 0..=ROUNDS {
        let mut now = Vec::new();
        for (count, stage) in stages {
            now.push(stage.cost_of_a_trigger(*count).await);
        }
        // The first round warms up.
        if round > 0 {
            growth.iter_mut().zip(&now).for_each(|(growth, cost)| growth.push(cost / now[0]));
            costs.iter_mut().zip(now).for_each(|(costs, now)| costs.push(now));
        }
    }
    for ((count, _), costs) in stages.iter().zip(&costs) {
        table.figure(&format!("CPU of a trigger among {count}"), median(costs), "us", None);
    }
    let dearest = growth.iter().map(|growth| median(growth)).fold(0.0, f64::max);
    table.figure("  the dearest / among 10", dearest, "x", Some(AtMost(1.1)));
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What there is to send, and how far whoever takes it is.
#[derive(Clone)]
struct Script {
    all: Arc<[(Cursor, Bytes)]>,
    began: watch::Sender<Option<Instant>>,
    acknowledged: watch::Sender<usize>,
}

#[tonic::async_trait]
impl SyncService for Script {
    type SyncStream = Answers<SyncResponse>;
    type ReportStream = Answers<ReportResponse>;

    async fn sync(
        &self,
        request: tonic::Request<Streaming<SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let (out, answers) = mpsc::channel(4);
        let (script, mut said) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            let Ok(Some(SyncRequest { kind: Some(Said::Hello(_)) })) = said.message().await else { return };
            let say = async |kind| out.send(Ok(SyncResponse { kind: Some(kind) })).await;
            script.began.send_replace(Some(Instant::now()));
            let sending = async {
                say(Answer::Welcome(Welcome { store_epoch: "scale".to_owned(), ..Welcome::default() })).await?;
                for (cursor, body) in script.all.iter() {
                    let count = body.len().div_ceil(PART_BYTES).max(1);
                    for index in 0..count {
                        let part = body.slice(index * PART_BYTES..body.len().min((index + 1) * PART_BYTES));
                        say(Answer::Snapshot(SnapshotChunk {
                            cursor: Some(cursor.clone()),
                            index: u32::try_from(index).unwrap_or(u32::MAX),
                            count: u32::try_from(count).unwrap_or(u32::MAX),
                            body: part,
                            ..SnapshotChunk::default()
                        }))
                        .await?;
                    }
                }
                say(Answer::Synced(Synced {})).await
            };
            let listening = async {
                while let Ok(Some(SyncRequest { kind })) = said.message().await {
                    match kind {
                        Some(Said::Ack(_)) => script.acknowledged.send_modify(|count| *count += 1),
                        Some(Said::Nack(nack)) => panic!("it refuses {nack:?}"),
                        _ => {}
                    }
                }
            };
            // Who is gone hears nothing.
            let _ = tokio::join!(sending, listening);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn report(
        &self,
        _: tonic::Request<Streaming<ReportRequest>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::pending())))
    }
}

/// How a data plane took it over.
struct Loaded {
    time: Duration,
    decoding: Duration,
    /// The first endpoint to be served took so long to answer while the others came.
    longest: Duration,
    bytes_each: f64,
}

/// A data plane that holds it all, and who sent it.
struct Stage {
    setup: Setup,
    subject: Subject,
    server: JoinHandle<()>,
    _folder: TempDir,
}

impl Stage {
    /// So many of these.
    async fn load(count: usize, resource: fn(&str, usize) -> Resource) -> (Self, Loaded) {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(&parent.path().join("control")).expect("a folder");
        folder.ensure_master_key().expect("a key");
        std::fs::write(folder.data_plane_key_file(), "key").expect("a key");
        let keys = std::fs::read_to_string(folder.master_key_file()).expect("a key");
        let keys = MasterKeys::parse(&keys).expect("a key");
        let all: Vec<_> =
            (0..count.div_ceil(EACH)).map(|number| workspace(&keys, number, EACH.min(count), resource)).collect();
        let begun = Instant::now();
        for (_, body) in &all {
            std::hint::black_box(WorkspaceBody::decode(body.clone()).expect("a body"));
        }
        let decoding = begun.elapsed();
        let workspaces = all.len();
        let script = Script { all: all.into(), began: watch::Sender::new(None), acknowledged: watch::Sender::new(0) };

        // Bound and not served yet: the data plane starts with nothing.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let mut setup = Setup::on(&parent.path().join("data"));
        setup.joins = Some(Joined { url, folder: parent.path().join("control") });
        setup.workers = Some([0, 0]);
        let subject = start(&setup).await;
        let before = Watched::new(subject.id()).resident();
        let (mut began, mut acknowledged) = (script.began.subscribe(), script.acknowledged.subscribe());
        let server = Server::builder().add_service(SyncServiceServer::new(script));
        let server = tokio::spawn(async move {
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("it serves");
        });
        let mut longest = Duration::ZERO;
        tokio::select! {
            done = tokio::time::timeout(PATIENCE, acknowledged.wait_for(|count| *count >= workspaces)) => {
                done.expect("it takes it in time").expect("it is there");
            }
            () = ask(setup.ingress, &mut longest) => {}
        }
        let time = began.borrow_and_update().expect("it began").elapsed();
        // What was only needed on the way is given back.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let grown = Watched::new(subject.id()).resident() - before;
        let loaded = Loaded { time, decoding, longest, bytes_each: grown * 1024.0 * 1024.0 / count as f64 };
        (Self { setup, subject, server, _folder: parent }, loaded)
    }

    /// Processor time of a trigger to any of its endpoints, in microseconds. Of very many, most are asked for the first time.
    async fn cost_of_a_trigger(&self, count: usize) -> f64 {
        let shot = Shot::numbered(&path(0), &body(), &[]).spread_over(ENDPOINT_DIGITS, count);
        let load = Load { address: self.setup.ingress, shots: vec![shot], connections: CONNECTIONS, status: 200 };
        let round = load.closed(Duration::from_millis(1500), Watched::new(self.subject.id())).await;
        round.cpu.as_secs_f64() * 1e6 / round.count as f64
    }

    /// From its start until it serves what it has on its disk.
    async fn warm_start(self, count: usize) -> Duration {
        self.server.abort();
        self.subject.stop().await.expect("a proper stop");
        let begun = Instant::now();
        let subject = start(&self.setup).await;
        let request = Request::post(&path(count - 1), body());
        while RawHttp::connect(self.setup.ingress).await.exchange(&request).await.status != 200 {
            assert!(begun.elapsed() < PATIENCE, "it does not serve what it has");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let took = begun.elapsed();
        subject.stop().await.expect("a proper stop");
        took
    }
}

/// Asks the first endpoint again and again, and notes the longest it took to answer once it is served.
async fn ask(ingress: SocketAddr, longest: &mut Duration) {
    let request = Request::post(&path(0), body());
    let mut is_served = false;
    loop {
        let begun = Instant::now();
        // The same again is a duplicate.
        let taken = matches!(RawHttp::connect(ingress).await.exchange(&request).await.status, 200 | 204);
        assert!(taken || !is_served, "it does not go on serving what it has");
        if is_served {
            *longest = begun.elapsed().max(*longest);
        }
        is_served |= taken;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn start(setup: &Setup) -> Subject {
    Subject::start(env!("CARGO_BIN_EXE_subject"), setup, Stdio::inherit()).await.expect("a process")
}

/// A whole workspace as it goes over the wire.
fn workspace(keys: &MasterKeys, number: usize, count: usize, resource: fn(&str, usize) -> Resource) -> (Cursor, Bytes) {
    let workspace = format!("workspaces/scale-{number}");
    let wrapped = keys.wrap(&DataKey::new([7; 32]), &workspace, &[1; NONCE_BYTES]);
    let upserts: Vec<Resource> = (0..count).map(|one| resource(&workspace, number * EACH + one)).collect();
    let hashes: Vec<_> = upserts.iter().map(|one| (one.name.as_str(), snapshot::content_hash(one))).collect();
    let digest = snapshot::digest(hashes.iter().map(|(name, hash)| (*name, hash)));
    let body = WorkspaceBody {
        business_profile_id: i64::try_from(number).unwrap_or(i64::MAX),
        data_key: Some(WrappedKey { key_id: wrapped.key_id, ciphertext: wrapped.bytes.into() }),
        upserts,
        deletes: Vec::new(),
    };
    (Cursor { workspace, revision: 1, digest: digest.to_vec().into() }, body.encode_to_vec().into())
}

/// What stands in an endpoint's id for its number.
const ENDPOINT_DIGITS: &str = "0000000";

fn path(number: usize) -> String {
    format!("/automation-endpoint/endpoints/authorized/{}/trigger", endpoint(number))
}

fn endpoint(number: usize) -> String {
    format!("scale{number:07}00000000000000000000")
}

fn incoming(workspace: &str, number: usize) -> Resource {
    let name = format!("{workspace}/incomingIntegrations/orders-{number}");
    let document = admin::IncomingIntegration {
        name: name.clone(),
        uid: format!("{number:032}"),
        endpoint_id: endpoint(number),
        published_version: 1,
        deduplication: resources::dedup(["body.orderId", "body.customer.email"]),
        ..resources::open()
    };
    Resource { name, version: 1, document: Some(Document::IncomingIntegration(document)), secrets: Vec::new() }
}

/// With a body of 1 KB, of which a fifth comes from the request.
fn outgoing(workspace: &str, number: usize) -> Resource {
    let field = |at: usize| format!(r#""field{at}":"some text {{{{ request.body.value{at} }}}} and more of it","#);
    let fields: String = (0..18).map(field).collect();
    let name = format!("{workspace}/outgoingIntegrations/orders-{number}");
    let body = format!(r#"{{{fields}"number":{number}}}"#);
    let document = admin::OutgoingIntegration {
        name: name.clone(),
        uid: format!("{number:032}"),
        display_name: format!("Orders {number}"),
        request: Some(resources::post("https://api.example.com/orders", &body)),
        published_version: 1,
        ..Default::default()
    };
    Resource { name, version: 1, document: Some(Document::OutgoingIntegration(document)), secrets: Vec::new() }
}
