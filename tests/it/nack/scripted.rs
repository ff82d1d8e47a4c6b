//! A control plane that says whatever the test wants, over the real wire, and a data plane that listens to it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;

use prost::Message as _;
use sluice::destination::{self, Destination};
use sluice::dev::{self, RunningDataPlane};
use sluice::folder::Folder;
use sluice_client::admin;
use sluice_core::seal::{self, Aad, DataKey, MasterKeys};
use sluice_core::snapshot;
use sluice_data_plane::Settings;
use sluice_proto::sync::v1::resource::Document;
use sluice_proto::sync::v1::sync_service_server::{SyncService, SyncServiceServer};
use sluice_proto::sync::v1::{
    Ack, Cursor, Delta, Hello, Nack, ReportRequest, ReportResponse, Resource, SealedSecret, SnapshotChunk, SyncRequest,
    SyncResponse, Synced, Welcome, WorkspaceBody, WrappedKey, sync_request, sync_response,
};
use sluice_tests::{Answer, RawHttp, Request, resources, within};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Response, Status, Streaming};

pub(super) const ACME: &str = "workspaces/acme";
pub(super) const INCOMING: &str = "workspaces/acme/incomingIntegrations/orders";
pub(super) const WORKFLOW: &str = "workspaces/acme/workflows/orders";
pub(super) const CONNECTION: &str = "workspaces/acme/connections/crm";
pub(super) const ENDPOINT: &str = "/automation-endpoint/endpoints/authorized/scripted/trigger";
/// The name of the scripted store.
pub(super) const EPOCH: &str = "epoch";
const DATA_KEY: [u8; 32] = [7; 32];

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// One stream of a data plane.
pub(super) struct Line {
    pub(super) hello: Hello,
    out: mpsc::Sender<Result<SyncResponse, Status>>,
    incoming: Streaming<SyncRequest>,
}

/// Hands every stream to the test.
struct Script(mpsc::Sender<Line>);

#[tonic::async_trait]
impl SyncService for Script {
    type SyncStream = Answers<SyncResponse>;
    type ReportStream = Answers<ReportResponse>;

    async fn sync(
        &self,
        request: tonic::Request<Streaming<SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let (out, answers) = mpsc::channel(64);
        let (streams, mut incoming) = (self.0.clone(), request.into_inner());
        // The headers go out first: the data plane says hello when it has them.
        tokio::spawn(async move {
            let Ok(Some(SyncRequest { kind: Some(sync_request::Kind::Hello(hello)) })) = incoming.message().await
            else {
                return;
            };
            // A test that is over takes no stream any more.
            let _ = streams.send(Line { hello, out, incoming }).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn report(
        &self,
        request: tonic::Request<Streaming<ReportRequest>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let (out, answers) = mpsc::channel(4);
        let mut reports = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(report)) = reports.message().await {
                if out.send(Ok(ReportResponse { sequence: report.sequence })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

impl Line {
    pub(super) async fn say(&self, kind: sync_response::Kind) {
        assert!(self.said(kind).await, "the data plane ended the stream");
    }

    /// Whether the data plane still listened.
    pub(super) async fn said(&self, kind: sync_response::Kind) -> bool {
        self.out.send(Ok(SyncResponse { kind: Some(kind) })).await.is_ok()
    }

    /// Something that only a later release knows.
    pub(super) async fn unknown(&self) {
        assert!(self.out.send(Ok(SyncResponse { kind: None })).await.is_ok());
    }

    pub(super) async fn welcome(&self) {
        self.welcome_of(EPOCH).await;
    }

    /// By a store of this name.
    pub(super) async fn welcome_of(&self, epoch: &str) {
        self.say(sync_response::Kind::Welcome(Welcome { store_epoch: epoch.to_owned(), ..Welcome::default() })).await;
    }

    pub(super) async fn synced(&self) {
        self.say(sync_response::Kind::Synced(Synced {})).await;
    }

    /// A whole workspace in parts of this many bytes.
    pub(super) async fn snapshot(&self, cursor: &Cursor, body: &WorkspaceBody, part: usize) {
        for chunk in chunks(cursor, body, part) {
            self.say(sync_response::Kind::Snapshot(chunk)).await;
        }
    }

    /// A whole workspace that may lack most of what was there.
    pub(super) async fn allowed(&self, cursor: &Cursor, body: &WorkspaceBody) {
        for chunk in chunks(cursor, body, 1 << 20) {
            self.say(sync_response::Kind::Snapshot(SnapshotChunk { allow_mass_delete: true, ..chunk })).await;
        }
    }

    pub(super) async fn delta(&self, cursor: &Cursor, base_revision: i64, body: &WorkspaceBody) {
        let body = body.encode_to_vec().into();
        let delta = Delta { cursor: Some(cursor.clone()), base_revision, body, ..Delta::default() };
        self.say(sync_response::Kind::Delta(delta)).await;
    }

    async fn hear(&mut self) -> sync_request::Kind {
        within("an ack or a nack", self.incoming.message()).await.unwrap().unwrap().kind.unwrap()
    }

    pub(super) async fn ack(&mut self) -> Ack {
        match self.hear().await {
            sync_request::Kind::Ack(ack) => ack,
            other => panic!("not an ack: {other:?}"),
        }
    }

    pub(super) async fn nack(&mut self) -> Nack {
        match self.hear().await {
            sync_request::Kind::Nack(nack) => nack,
            other => panic!("not a nack: {other:?}"),
        }
    }

    /// Waits until the data plane ends this stream.
    pub(super) async fn ended(mut self) {
        while let Ok(Some(_)) = within("the end of the stream", self.incoming.message()).await {}
    }
}

pub(super) fn chunks(cursor: &Cursor, body: &WorkspaceBody, part: usize) -> Vec<SnapshotChunk> {
    chunks_of(cursor, &body.encode_to_vec(), part)
}

pub(super) fn chunks_of(cursor: &Cursor, encoded: &[u8], part: usize) -> Vec<SnapshotChunk> {
    let parts: Vec<&[u8]> = encoded.chunks(part).collect();
    let count = u32::try_from(parts.len()).unwrap();
    let chunk = |(index, part): (u32, &&[u8])| SnapshotChunk {
        cursor: Some(cursor.clone()),
        index,
        count,
        body: part.to_vec().into(),
        ..SnapshotChunk::default()
    };
    (0..).zip(&parts).map(chunk).collect()
}

/// A data plane that follows the script.
pub(super) struct Stage {
    pub(super) folder: Folder,
    pub(super) destination: Destination,
    pub(super) data_plane: RunningDataPlane,
    settings: Settings,
    streams: mpsc::Receiver<Line>,
    master_keys: MasterKeys,
    _folder: TempDir,
}

const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

impl Stage {
    pub(super) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With settings that `change` has changed.
    pub(super) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::open(&parent.path().join("data")).unwrap();
        folder.ensure_master_key().unwrap();
        std::fs::write(folder.data_plane_key_file(), "key").unwrap();
        let master_keys = MasterKeys::parse(&std::fs::read_to_string(folder.master_key_file()).unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, streams) = mpsc::channel(4);
        let server = Server::builder().add_service(SyncServiceServer::new(Script(sender)));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let destination = Destination::start(destination::Options::named(["api.example.com"])).await.unwrap();
        let egress = sluice_egress::Settings {
            static_addresses: destination.static_addresses(),
            extra_networks: vec!["127.0.0.0/8".parse().unwrap()],
            extra_ca_pem: vec![destination.ca_pem().into_bytes()],
            ..Default::default()
        };
        let mut settings = folder.data_plane("scripted", url, egress);
        change(&mut settings);
        let data_plane = dev::run_data_plane(settings.clone(), ANY_PORT, ANY_PORT).await.unwrap();
        Self { folder, destination, data_plane, settings, streams, master_keys, _folder: parent }
    }

    /// Stops the data plane, does something to its folder, and starts it again.
    pub(super) async fn restarted(self, change: impl FnOnce(&Folder)) -> Self {
        let Self { folder, destination, data_plane, settings, streams, master_keys, _folder } = self;
        data_plane.stop().await.unwrap();
        change(&folder);
        let data_plane = dev::run_data_plane(settings.clone(), ANY_PORT, ANY_PORT).await.unwrap();
        Self { folder, destination, data_plane, settings, streams, master_keys, _folder }
    }

    /// The data plane's next stream, after its hello.
    pub(super) async fn stream(&mut self) -> Line {
        within("the data plane to call", self.streams.recv()).await.unwrap()
    }

    /// A stream on which revision 1, a good one, is served.
    pub(super) async fn serving(&mut self) -> Line {
        let mut stream = self.stream().await;
        let body = self.body([incoming(), connection("s3cret"), workflow(GOOD)]);
        stream.welcome().await;
        stream.snapshot(&cursor(1, &body), &body, 1 << 20).await;
        stream.synced().await;
        assert_eq!(stream.ack().await.serving.unwrap().revision, 1);
        stream
    }

    /// A body with this workspace's data key.
    pub(super) fn body(&self, upserts: impl Into<Vec<Resource>>) -> WorkspaceBody {
        body(&self.master_keys, upserts)
    }

    pub(super) async fn trigger(&self) -> Answer {
        self.trigger_at(ENDPOINT).await
    }

    pub(super) async fn trigger_at(&self, path: &str) -> Answer {
        RawHttp::connect(self.data_plane.ingress).await.exchange(&Request::post(path, r#"{"id": 1}"#)).await
    }

    /// The revision that is served.
    pub(super) fn revision(&self) -> Option<i64> {
        let runtime = self.data_plane.plane.plane().served.load();
        runtime.workspace(ACME).map(|workspace| workspace.revision)
    }
}

pub(super) const GOOD: &str = r#"{"id": {{ request.body.id }}}"#;

pub(super) fn body(keys: &MasterKeys, upserts: impl Into<Vec<Resource>>) -> WorkspaceBody {
    let wrapped = keys.wrap(&DataKey::new(DATA_KEY), ACME, &[1; seal::NONCE_BYTES]);
    WorkspaceBody {
        business_profile_id: 1,
        data_key: Some(WrappedKey { key_id: wrapped.key_id, ciphertext: wrapped.bytes.into() }),
        upserts: upserts.into(),
        deletes: Vec::new(),
    }
}

/// The cursor of a workspace that holds exactly these resources.
pub(super) fn cursor(revision: i64, whole: &WorkspaceBody) -> Cursor {
    let hashes: Vec<_> = whole.upserts.iter().map(|one| (one.name.as_str(), snapshot::content_hash(one))).collect();
    let digest = snapshot::digest(hashes.iter().map(|(name, hash)| (*name, hash)));
    Cursor { workspace: ACME.to_owned(), revision, digest: digest.to_vec().into() }
}

pub(super) fn incoming() -> Resource {
    let document = admin::IncomingIntegration {
        name: INCOMING.to_owned(),
        endpoint_id: "scripted".to_owned(),
        published_version: 1,
        ..resources::open()
    };
    let document = Some(Document::IncomingIntegration(document));
    Resource { name: INCOMING.to_owned(), version: 1, document, secrets: Vec::new() }
}

pub(super) fn workflow(template: &str) -> Resource {
    let request = admin::OutgoingRequest {
        connection: CONNECTION.to_owned(),
        ..resources::post("https://api.example.com/orders", template)
    };
    let incoming = admin::IncomingIntegration { name: INCOMING.to_owned(), ..Default::default() };
    let document = admin::Workflow {
        name: WORKFLOW.to_owned(),
        uid: "uid".to_owned(),
        published_version: 1,
        ..resources::workflow(&incoming, [resources::custom_webhook("Send", request)])
    };
    Resource {
        name: WORKFLOW.to_owned(),
        version: 1,
        document: Some(Document::Workflow(document)),
        secrets: Vec::new(),
    }
}

pub(super) fn connection(secret: &str) -> Resource {
    let mut scheme = resources::api_key_header("", "x-api-key", "{{secret}}");
    if let admin::connection::Scheme::ApiKey(key) = &mut scheme {
        key.secret_set = true;
    }
    let document = admin::Connection {
        name: CONNECTION.to_owned(),
        display_name: "CRM".to_owned(),
        version: 1,
        scheme: Some(scheme),
        ..Default::default()
    };
    let aad = Aad { workspace: ACME, object: CONNECTION, field: "api_key.secret", version: 1 };
    let sealed = seal::seal(&DataKey::new(DATA_KEY), aad, secret.as_bytes(), &[2; seal::NONCE_BYTES]);
    let sealed = SealedSecret {
        field: "api_key.secret".to_owned(),
        version: 1,
        ciphertext: sealed.as_bytes().to_vec().into(),
        ..Default::default()
    };
    let document = Some(Document::Connection(document));
    Resource { name: CONNECTION.to_owned(), version: 1, document, secrets: vec![sealed] }
}
