//! Who data planes are (A11 to A15): how they join, what a certificate is good for, and what happens when it ends. Real sockets and
//! TLS; only the time is the test's.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType, SerialNumber};
use serde_json::json;
use sluice::dev::{self, RunningControlPlane};
use sluice::folder::Folder;
use sluice_client::{Client, admin};
use sluice_control_plane::{Certificate, Clock};
use sluice_core::address::UrlPolicy;
use sluice_core::join_token::JoinToken;
use sluice_core::seal::{self, Aad, MasterKeys, Sealed, WrappedKey};
use sluice_data_plane::Admission;
use sluice_proto::sync::v1::enrollment_service_client::EnrollmentServiceClient;
use sluice_proto::sync::v1::sync_request::Kind as Say;
use sluice_proto::sync::v1::sync_response::Kind as Hear;
use sluice_proto::sync::v1::sync_service_client::SyncServiceClient;
use sluice_proto::sync::v1::{
    CaptureSample, EnrollDataPlaneRequest, EnrollDataPlaneResponse, Hello, Outcome, RenewDataPlaneRequest,
    ReportRequest, SyncRequest, SyncResponse,
};
use sluice_tests::world::joining;
use sluice_tests::{Numbers, World, eventually, reason, resources, violations, within};
use sluice_tls::authority::Authority;
use sluice_tls::identity::NodeKey;
use sluice_tls::{Connector, Time, is_distrust};
use sqlx::Row as _;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

const SECOND: i64 = 1000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;

/// A control plane with certificates of its own authority, and two workspaces.
struct Installation {
    running: RunningControlPlane,
    client: Client,
    clock: Clock,
    folder: Folder,
    _parent: TempDir,
}

fn own() -> Option<Certificate> {
    Some(Certificate::Own(vec!["127.0.0.1".to_owned()]))
}

impl Installation {
    async fn start() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::open(&parent.path().join("data")).unwrap();
        folder.ensure_master_key().unwrap();
        let mut settings = folder.control_plane(UrlPolicy::default());
        // The administrator's client looks at the real time.
        settings.clock = Clock::manual(Clock::system().now());
        settings.tls = own();
        settings.rights_checked_every = Duration::from_millis(5);
        let clock = settings.clock.clone();
        let authority = settings.authority_file.clone();
        let any = "127.0.0.1:0".parse().unwrap();
        let running = dev::run_control_plane(settings, any, any).await.unwrap();
        let authority = std::fs::read_to_string(authority).unwrap();
        let client = Client::connect_trusting(&running.url(), &running.admin_key, &authority).await.unwrap();
        for id in ["acme", "rival"] {
            sluice_tests::Workspace::create(&client, id).await;
        }
        Self { running, client, clock, folder, _parent: parent }
    }

    fn time(&self) -> Time {
        let clock = self.clock.clone();
        Time::new(move || clock.now())
    }

    async fn create(&self, request: admin::CreateJoinTokenRequest) -> Result<admin::JoinToken, Status> {
        Ok(self.client.join_tokens().create_join_token(request).await?.into_inner())
    }

    async fn token(&self, workspaces: &[&str]) -> admin::JoinToken {
        self.create(wanted(workspaces)).await.unwrap()
    }

    async fn dial(&self, connector: Connector) -> Result<Channel, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.running.grpc)).unwrap();
        let dialling = tower::service_fn(move |uri: Uri| {
            let connector = connector.clone();
            async move {
                let dialled = connector.connect(uri.host().unwrap(), uri.port_u16().unwrap()).await;
                dialled.map(TokioIo::new)
            }
        });
        within("the control plane to answer", endpoint.connect_with_connector(dialling)).await
    }

    /// Asks to join, over a line that trusts the token's pin.
    async fn ask(&self, token: &str, id: &str, request: Vec<u8>) -> Result<EnrollDataPlaneResponse, Status> {
        let authority = std::fs::read_to_string(self.folder.path().join("authority.pem")).unwrap();
        let pin = JoinToken::parse(token).map_or_else(|| pin_of(&authority), |token| token.pin);
        let channel = self.dial(Connector::pinned(pin, self.time()).unwrap()).await.unwrap();
        let request = EnrollDataPlaneRequest {
            join_token: token.to_owned(),
            data_plane_id: id.to_owned(),
            certificate_request: request.into(),
        };
        Ok(EnrollmentServiceClient::new(channel).enroll_data_plane(request).await?.into_inner())
    }

    /// A data plane that has joined.
    async fn joined(&self, id: &str, workspaces: &[&str]) -> Node {
        let (key, token) = (NodeKey::generate().unwrap(), self.token(workspaces).await.token);
        let answer = self.ask(&token, id, key.request().unwrap()).await.unwrap();
        Node {
            id: id.to_owned(),
            key: key.pem().to_string(),
            certificate: answer.certificate.to_vec(),
            authority: answer.authority.to_vec(),
        }
    }

    /// The line of a data plane.
    async fn line(&self, node: &Node) -> Result<Channel, tonic::transport::Error> {
        let connector = Connector::identified(&node.authority, &node.certificate, &node.key, self.time()).unwrap();
        self.dial(connector).await
    }

    async fn delete(&self, id: &str) {
        let request = admin::DeleteDataPlaneRequest { name: format!("dataPlanes/{id}"), ..Default::default() };
        self.client.data_planes().delete_data_plane(request).await.unwrap();
    }

    async fn log(&self) -> Vec<admin::AuditEntry> {
        let request = admin::ListAuditEntriesRequest { page_size: 1000, ..Default::default() };
        self.client.audit().list_audit_entries(request).await.unwrap().into_inner().audit_entries
    }
}

fn wanted(workspaces: &[&str]) -> admin::CreateJoinTokenRequest {
    let workspaces = workspaces.iter().map(ToString::to_string).collect();
    let join_token = Some(admin::JoinToken { workspaces, ..Default::default() });
    admin::CreateJoinTokenRequest { join_token, ..Default::default() }
}

fn pin_of(pem: &str) -> [u8; 32] {
    use rustls::pki_types::pem::PemObject as _;
    use sha2::Digest as _;
    sha2::Sha256::digest(rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).into()
}

/// A data plane without its insides.
struct Node {
    id: String,
    key: String,
    certificate: Vec<u8>,
    authority: Vec<u8>,
}

async fn renew(channel: Channel, key: &NodeKey) -> Result<Vec<u8>, Status> {
    let request = RenewDataPlaneRequest { certificate_request: key.request().unwrap().into() };
    Ok(EnrollmentServiceClient::new(channel).renew_data_plane(request).await?.into_inner().certificate.to_vec())
}

/// Says hello as `id`.
async fn hello(channel: Channel, id: &str) -> (mpsc::Sender<SyncRequest>, Result<Streaming<SyncResponse>, Status>) {
    let (say, said) = mpsc::channel(16);
    let hello = Hello { data_plane_id: id.to_owned(), takes_commands: true, ..Hello::default() };
    say.send(SyncRequest { kind: Some(Say::Hello(hello)) }).await.unwrap();
    let heard = SyncServiceClient::new(channel).sync(ReceiverStream::new(said)).await;
    (say, heard.map(tonic::Response::into_inner))
}

/// How a stream ends that is refused.
async fn refused(channel: Channel, id: &str) -> (Code, String) {
    let (_say, heard) = hello(channel, id).await;
    let status = match heard {
        Err(status) => status,
        Ok(mut heard) => ended(&mut heard).await,
    };
    (status.code(), reason(&status))
}

async fn ended(heard: &mut Streaming<SyncResponse>) -> Status {
    within("the stream to end", async {
        loop {
            match heard.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended without a word"),
                Err(status) => return status,
            }
        }
    })
    .await
}

fn certificate_invalid(code: Code) -> (Code, String) {
    (code, "CERTIFICATE_INVALID".to_owned())
}

fn token_invalid(answer: Result<EnrollDataPlaneResponse, Status>) {
    let refused = answer.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::Unauthenticated, "JOIN_TOKEN_INVALID".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a12_a_join_token_is_shown_once_and_good_for_one_data_plane() {
    let world = Installation::start().await;
    let tried = admin::CreateJoinTokenRequest { validate_only: true, ..wanted(&["workspaces/-"]) };
    assert_eq!(world.create(tried).await.unwrap().token, "");
    let request_id = "67e55044-10b1-426f-9247-bb680e5fe0c8".to_owned();
    let request = admin::CreateJoinTokenRequest { request_id, ..wanted(&["workspaces/acme"]) };
    let made = world.create(request.clone()).await.unwrap();
    let again = world.create(request).await.unwrap();
    assert_eq!((again.name.as_str(), again.token.as_str()), (made.name.as_str(), ""), "shown once");
    let get = admin::GetJoinTokenRequest { name: made.name.clone() };
    let shown = world.client.join_tokens().get_join_token(get.clone()).await.unwrap().into_inner();
    assert_eq!(admin::JoinToken { token: made.token.clone(), ..shown.clone() }, made);
    let database = std::fs::read(world.folder.path().join("control-plane.db")).unwrap();
    let journal = std::fs::read(world.folder.path().join("control-plane.db-wal")).unwrap_or_default();
    let secret = made.token.splitn(3, '_').nth(2).unwrap().as_bytes().to_vec();
    for file in [database, journal] {
        assert!(!file.windows(secret.len()).any(|window| window == secret), "only a hash is kept");
    }

    let (key, other) =
        (NodeKey::generate().unwrap().request().unwrap(), NodeKey::generate().unwrap().request().unwrap());
    let refused = world.ask(&made.token, "dp-1", include_bytes!("../../tls/testdata/rsa-1024.csr").to_vec()).await;
    assert_eq!(violations(&refused.unwrap_err())[0].0, "certificate_request");
    let refused = world.ask(&made.token, "dp/1", key.clone()).await.unwrap_err();
    assert_eq!(violations(&refused)[0].0, "data_plane_id");
    world.ask(&made.token, "dp-1", key.clone()).await.expect("what was refused has not used the token");
    world.ask(&made.token, "dp-1", key.clone()).await.expect("the same one may ask again: its answer may be lost");
    token_invalid(world.ask(&made.token, "dp-1", other.clone()).await);
    token_invalid(world.ask(&made.token, "dp-2", key.clone()).await);
    let used = world.client.join_tokens().get_join_token(get).await.unwrap().into_inner();
    assert_eq!((used.data_plane.as_str(), used.use_time.is_some()), ("dataPlanes/dp-1", true));
    assert_ne!(used.etag, shown.etag);
    world.delete("dp-1").await;
    token_invalid(world.ask(&made.token, "dp-1", key.clone()).await);

    let entries = world.log().await;
    let joined = entries
        .iter()
        .find(|entry| entry.method.ends_with("/EnrollDataPlane") && entry.outcome() == admin::AuditOutcome::Done);
    let joined = joined.expect("who joins is written down");
    assert_eq!((joined.resource.as_str(), &joined.principal), ("dataPlanes/dp-1", &made.name));
    let refusals = entries.iter().filter(|entry| entry.reason() == admin::ErrorReason::JoinTokenInvalid).count();
    assert_eq!(refusals, 3, "and who is refused");

    let taken = world.token(&["workspaces/-"]).await.token;
    world.ask(&taken, "dp-3", key).await.unwrap();
    let second = world.token(&["workspaces/-"]).await.token;
    assert_eq!(
        world.ask(&second, "dp-3", other).await.unwrap_err().code(),
        Code::AlreadyExists,
        "an id is one plane's"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a12_of_two_that_race_one_wins() {
    let world = Installation::start().await;
    for round in 0..8 {
        let token = world.token(&["workspaces/-"]).await.token;
        let ask =
            async |id: String| world.ask(&token, &id, NodeKey::generate().unwrap().request().unwrap()).await.map(drop);
        let (one, other) = tokio::join!(ask(format!("a-{round}")), ask(format!("b-{round}")));
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a12_what_is_no_token_opens_nothing() {
    let world = Installation::start().await;
    let request = || NodeKey::generate().unwrap().request().unwrap();
    let made = world.token(&["workspaces/-"]).await;
    let expires = made.expire_time.unwrap();
    assert_eq!(expires.seconds - made.create_time.unwrap().seconds, 15 * 60, "15 minutes by default");
    let lifetime = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    for seconds in [0, 3601, -1] {
        let request = admin::CreateJoinTokenRequest { lifetime: lifetime(seconds), ..wanted(&["workspaces/-"]) };
        assert_eq!(violations(&world.create(request).await.unwrap_err())[0].0, "lifetime");
    }
    for bad in [&[][..], &["workspaces/nowhere"], &["acme"], &["workspaces/-", "workspaces/acme"]] {
        assert!(violations(&world.create(wanted(bad)).await.unwrap_err())[0].0.starts_with("join_token.workspaces"));
    }
    world
        .create(admin::CreateJoinTokenRequest { lifetime: lifetime(3600), ..wanted(&["workspaces/-"]) })
        .await
        .unwrap();
    let late = world.token(&["workspaces/-"]).await.token;
    world.clock.advance(15 * 60 * SECOND - 1);
    world.ask(&made.token, "in-time", request()).await.expect("it counts until its end");
    world.clock.advance(1);
    token_invalid(world.ask(&late, "late", request()).await);

    let token = world.token(&["workspaces/-"]).await;
    let parsed = JoinToken::parse(&token.token).unwrap();
    token_invalid(world.ask(&token.token[..token.token.len() - 9], "cut", request()).await);
    let forged =
        |secret: u8| JoinToken::new(id_bytes(&parsed.id), zeroize::Zeroizing::new([secret; 32]), parsed.pin).text();
    token_invalid(world.ask(&forged(1), "forged", request()).await);
    let delete = admin::DeleteJoinTokenRequest { name: token.name.clone(), ..Default::default() };
    world.client.join_tokens().delete_join_token(delete).await.unwrap();
    token_invalid(world.ask(&token.token, "deleted", request()).await);

    // Nobody tells the token to a control plane that it was not made by.
    let elsewhere = Connector::pinned([7; 32], world.time()).unwrap();
    assert!(is_distrust(&world.dial(elsewhere).await.unwrap_err()));

    // Guessing ends soon; who has a good one is let in all the same.
    let mut answers = Vec::new();
    for guess in 0..40 {
        answers.push(world.ask(&forged(guess), "guess", request()).await.unwrap_err().code());
    }
    assert_eq!(answers.last(), Some(&Code::ResourceExhausted), "{answers:?}");
    assert!(answers.iter().filter(|code| **code == Code::Unauthenticated).count() <= 20, "{answers:?}");
    world.joined("good", &["workspaces/-"]).await;
}

fn id_bytes(id: &str) -> [u8; 4] {
    hex::decode(id).unwrap().try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a11_only_a_data_planes_own_certificate_opens_the_sync_service() {
    let world = Installation::start().await;
    let node = world.joined("dp-1", &["workspaces/-"]).await;
    let pinned =
        || Connector::pinned(JoinToken::new([0; 4], Default::default(), pin(&node)).pin, world.time()).unwrap();
    let bare = world.dial(pinned()).await.unwrap();
    assert_eq!(refused(bare.clone(), "dp-1").await, (Code::Unauthenticated, "API_KEY_INVALID".to_owned()));
    let key = |file: &str| std::fs::read_to_string(world.folder.path().join(file)).unwrap().trim().to_owned();
    for (file, expected) in [
        ("data-plane.key", certificate_invalid(Code::Unauthenticated)),
        ("admin.key", (Code::PermissionDenied, "PERMISSION_MISSING".to_owned())),
    ] {
        let (_say, said) = mpsc::channel::<SyncRequest>(1);
        let mut request = tonic::Request::new(ReceiverStream::new(said));
        request.metadata_mut().insert("authorization", format!("Bearer {}", key(file)).parse().unwrap());
        let status = SyncServiceClient::new(bare.clone()).sync(request).await.unwrap_err();
        assert_eq!((status.code(), reason(&status)), expected, "{file}");
    }
    // Another authority: the handshake ends.
    let (foreign, _) = Authority::generate(world.clock.now()).unwrap();
    let own = NodeKey::generate().unwrap();
    let requested = sluice_tls::authority::Requested::read(&own.request().unwrap()).unwrap();
    let certificate = foreign.vouch(&requested, "dp-1", *b"Aaaaaaaabbbbbbbb", world.clock.now(), DAY).unwrap();
    let stranger =
        Node { id: "dp-1".to_owned(), key: own.pem().to_string(), certificate, authority: node.authority.clone() };
    assert_closed(&world, &stranger).await;
    // The right authority, but no data plane's name.
    for (uri, eku, connects) in [
        ("spiffe://sluice/admin/dp-1", ExtendedKeyUsagePurpose::ClientAuth, true),
        ("spiffe://sluice/data-plane/dp-1", ExtendedKeyUsagePurpose::ServerAuth, false),
    ] {
        let odd = odd(&world, &node, uri, eku).await;
        match connects {
            true => {
                let line = world.line(&odd).await.unwrap();
                assert_eq!(refused(line, "dp-1").await, certificate_invalid(Code::Unauthenticated), "{uri}");
            }
            false => assert_closed(&world, &odd).await,
        }
    }
    // The right name, from an enrolment that never was.
    let odd = odd(&world, &node, "spiffe://sluice/data-plane/dp-1", ExtendedKeyUsagePurpose::ClientAuth).await;
    assert_eq!(refused(world.line(&odd).await.unwrap(), "dp-1").await, certificate_invalid(Code::Unauthenticated));

    // A certificate of a data plane opens nothing of the administration, whatever key comes with it.
    let line = world.line(&node).await.unwrap();
    let mut workspaces = sluice_proto::admin::v1::workspace_service_client::WorkspaceServiceClient::new(line.clone());
    let mut request = tonic::Request::new(admin::ListWorkspacesRequest::default());
    request.metadata_mut().insert("authorization", format!("Bearer {}", key("admin.key")).parse().unwrap());
    let status = workspaces.list_workspaces(request).await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::PermissionDenied, "PERMISSION_MISSING".to_owned()));
    let (_say, heard) = hello(line, &node.id).await;
    let first = within("the welcome", heard.unwrap().message()).await.unwrap().unwrap();
    assert!(matches!(first.kind, Some(Hear::Welcome(_))));
}

fn pin(node: &Node) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(&node.authority).into()
}

/// The control plane ends the connection: with TLS 1.3 the client hears of it when it first reads.
async fn assert_closed(world: &Installation, node: &Node) {
    let Ok(line) = world.line(node).await else { return };
    let (_say, heard) = hello(line, &node.id).await;
    let status = match heard {
        Err(status) => status,
        Ok(mut heard) => ended(&mut heard).await,
    };
    assert!([Code::Unknown, Code::Unavailable, Code::Internal, Code::Cancelled].contains(&status.code()), "{status:?}");
    use tonic_types::StatusExt as _;
    assert!(status.get_error_details().error_info().is_none(), "no call came through: {status:?}");
}

/// A certificate that the installation's authority would never make: its key is taken out of the store with the master key.
async fn odd(world: &Installation, node: &Node, uri: &str, eku: ExtendedKeyUsagePurpose) -> Node {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.folder.path().join("control-plane.db"));
    let store = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let row = sqlx::query("SELECT sealed_key FROM authority").fetch_one(&store).await.unwrap();
    let server = sqlx::query("SELECT server_key_id, server_key FROM store_meta").fetch_one(&store).await.unwrap();
    let ring = MasterKeys::parse(&std::fs::read_to_string(world.folder.master_key_file()).unwrap()).unwrap();
    let wrapped = WrappedKey { key_id: server.get(0), bytes: server.get(1) };
    let data_key = ring.unwrap(&wrapped, "server").unwrap();
    let aad = Aad { workspace: "", object: "server", field: "authority_key", version: 1 };
    let secret = seal::open(&data_key, aad, &Sealed::from_bytes(row.get(0))).unwrap();
    let issuer = KeyPair::try_from(secret.as_slice()).unwrap();
    let issuer = Issuer::from_ca_cert_der(&node.authority.clone().into(), issuer).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![eku];
    params.serial_number = Some(SerialNumber::from_slice(b"Aaaaaaaabbbbbbbb"));
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().der().to_vec();
    Node { id: node.id.clone(), key: key.serialize_pem(), certificate, authority: node.authority.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_an_expired_certificate_may_be_renewed_for_a_week_and_nothing_else() {
    let world = Installation::start().await;
    let node = world.joined("dp-1", &["workspaces/-"]).await;
    let (_say, heard) = hello(world.line(&node).await.unwrap(), "dp-1").await;
    let mut heard = heard.unwrap();
    world.clock.advance(DAY);
    let status = ended(&mut heard).await;
    assert_eq!((status.code(), reason(&status)), certificate_invalid(Code::Unauthenticated), "the stream ends with it");
    let line = world.line(&node).await.expect("it is taken at the door");
    assert_eq!(refused(line.clone(), "dp-1").await, certificate_invalid(Code::Unauthenticated));
    let report = ReportRequest { data_plane_id: "dp-1".to_owned(), ..Default::default() };
    let answers = SyncServiceClient::new(line.clone()).report(tokio_stream::once(report)).await;
    assert_eq!(answers.err().map(|status| reason(&status)).as_deref(), Some("CERTIFICATE_INVALID"));
    let key = NodeKey::generate().unwrap();
    world.clock.advance(7 * DAY - SECOND);
    let certificate = renew(line, &key).await.expect("a second before the grace ends");
    let renewed =
        Node { certificate, key: key.pem().to_string(), id: node.id.clone(), authority: node.authority.clone() };
    let (_say, heard) = hello(world.line(&renewed).await.unwrap(), "dp-1").await;
    assert!(within("the welcome", heard.unwrap().message()).await.unwrap().is_some());
    world.clock.advance(SECOND);
    match world.line(&node).await {
        Ok(line) => assert!(renew(line, &key).await.is_err(), "the grace is over"),
        Err(_closed) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a11_a_data_plane_that_is_deleted_is_out_at_once() {
    let world = Installation::start().await;
    let node = world.joined("dp-1", &["workspaces/-"]).await;
    let line = world.line(&node).await.unwrap();
    let (_say, heard) = hello(line.clone(), "dp-1").await;
    let mut heard = heard.unwrap();
    assert!(within("the welcome", heard.message()).await.unwrap().is_some());
    let list = async || {
        let request = admin::ListDataPlanesRequest::default();
        world.client.data_planes().list_data_planes(request).await.unwrap().into_inner().data_planes
    };
    let shown = list().await;
    assert_eq!(
        (shown.len(), shown[0].connected, shown[0].visible_workspaces.as_slice()),
        (1, true, &["workspaces/-".to_owned()][..])
    );
    let stale = admin::DeleteDataPlaneRequest {
        name: "dataPlanes/dp-1".to_owned(),
        etag: "00".to_owned(),
        ..Default::default()
    };
    assert_eq!(world.client.data_planes().delete_data_plane(stale).await.unwrap_err().code(), Code::Aborted);
    world.delete("dp-1").await;
    assert_eq!(reason(&ended(&mut heard).await), "CERTIFICATE_INVALID");
    assert_eq!(refused(line.clone(), "dp-1").await, certificate_invalid(Code::Unauthenticated));
    let status = renew(line, &NodeKey::generate().unwrap()).await.unwrap_err();
    assert_eq!(reason(&status), "CERTIFICATE_INVALID");
    assert_eq!(list().await, []);
    // Another one may have the id; the certificate of the first stays worthless.
    let next = world.joined("dp-1", &["workspaces/acme"]).await;
    assert_eq!(refused(world.line(&node).await.unwrap(), "dp-1").await, certificate_invalid(Code::Unauthenticated));
    let (_say, heard) = hello(world.line(&next).await.unwrap(), "dp-1").await;
    assert!(within("the welcome", heard.unwrap().message()).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a15_a_data_plane_sees_and_tells_of_its_workspaces_only() {
    let world = Installation::start().await;
    let workspace = |name: &str| sluice_tests::Workspace { name: name.to_owned(), client: world.client.clone() };
    for name in ["workspaces/acme", "workspaces/rival"] {
        workspace(name).incoming("orders", resources::open()).await;
    }
    let node = world.joined("dp-1", &["workspaces/acme"]).await;
    let line = world.line(&node).await.unwrap();
    assert_eq!(refused(line.clone(), "dp-2").await, certificate_invalid(Code::PermissionDenied), "it is dp-1");
    let (say, heard) = hello(line.clone(), "dp-1").await;
    let mut heard = heard.unwrap();
    let mut workspaces = Vec::new();
    loop {
        match within("what it sees", heard.message()).await.unwrap().unwrap().kind.unwrap() {
            Hear::Snapshot(chunk) => workspaces.push(chunk.cursor.unwrap().workspace),
            Hear::Delta(delta) => workspaces.push(delta.cursor.unwrap().workspace),
            Hear::Synced(_) => break,
            _ => {}
        }
    }
    assert_eq!(workspaces, ["workspaces/acme"]);
    // What is published elsewhere is nothing to it, and it is not waited for there.
    workspace("workspaces/rival").incoming("returns", resources::open()).await;
    let wait = |workspace: &str| admin::WaitServedRequest {
        parent: workspace.to_owned(),
        timeout: Some(prost_types::Duration::default()),
        ..Default::default()
    };
    let waited = world.client.configuration().wait_served(wait("workspaces/rival")).await.unwrap().into_inner();
    assert_eq!((waited.serving, waited.not_serving), (vec![], vec![]));
    let shown = world.client.data_planes().list_data_planes(admin::ListDataPlanesRequest::default()).await.unwrap();
    let served = &shown.into_inner().data_planes[0].workspaces;
    assert!(served.iter().all(|workspace| workspace.workspace == "workspaces/acme"), "{served:?}");

    // Outcomes: of its own one is stored, of another's none.
    let outcome = |workspace: &str| Outcome {
        workspace: format!("workspaces/{workspace}"),
        delivery: Some(admin::Delivery {
            name: format!("workspaces/{workspace}/deliveries/d-1"),
            state: admin::DeliveryState::Dead.into(),
            ..Default::default()
        }),
        order: 1,
        ..Outcome::default()
    };
    let report = async |id: &str, outcomes: Vec<Outcome>| {
        let request = ReportRequest { sequence: 1, outcomes, data_plane_id: id.to_owned() };
        let (say, said) = mpsc::channel(1);
        say.send(request).await.unwrap();
        let mut answers = SyncServiceClient::new(line.clone()).report(ReceiverStream::new(said)).await?.into_inner();
        within("an answer to the report", answers.message()).await
    };
    report("dp-1", vec![outcome("rival"), outcome("acme")]).await.unwrap();
    let stored = async |workspace: &str| {
        let request = admin::ListDeliveriesRequest { parent: format!("workspaces/{workspace}"), ..Default::default() };
        world.client.deliveries().list_deliveries(request).await.unwrap().into_inner().deliveries.len()
    };
    assert_eq!((stored("acme").await, stored("rival").await), (1, 0));
    let refused = report("dp-2", vec![outcome("acme")]).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), certificate_invalid(Code::PermissionDenied));

    let sample = CaptureSample { workspace: "workspaces/rival".to_owned(), ..Default::default() };
    say.send(SyncRequest { kind: Some(Say::Sample(sample)) }).await.unwrap();
    let status = ended(&mut heard).await;
    assert_eq!((status.code(), reason(&status)), certificate_invalid(Code::PermissionDenied));
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_a_data_plane_joins_renews_by_itself_and_outlives_its_certificate() {
    let (authority, files) = (sluice_tests::Authority::new(), tempfile::tempdir().unwrap());
    let clock = Clock::manual(Clock::system().now());
    let plane_clock = sluice_data_plane::clock::Clock::manual(clock.now());
    let both = |millis: i64| {
        clock.advance(millis);
        plane_clock.advance(millis);
    };
    let mut world = World::with(|options| {
        // The administrator's client looks at the real time: it is shown a certificate that does not move with the test's.
        options.control_plane.tls = Some(Certificate::Files(authority.write(files.path(), &["127.0.0.1"])));
        options.trusts = Some(authority.pem());
        options.control_plane.clock = clock.clone();
        options.control_plane.rights_checked_every = Duration::from_millis(5);
        options.data_plane.clock = plane_clock.clone();
        options.data_plane.certificate_checked_every = Duration::from_millis(5);
    })
    .await;
    let orders = world.acme.incoming("orders", resources::open()).await;
    world.served().await;
    assert_eq!(world.trigger(&orders, &json!({"n": 1})).await.status, 200);
    let identity = world.folder.path().join("identity.pem");
    assert_eq!(std::fs::metadata(&identity).unwrap().permissions().mode() & 0o777, 0o600);
    let first = std::fs::read_to_string(&identity).unwrap();

    // The token is used: what is kept is enough.
    world.settings.data_plane.admission = Admission::Certificate { join_token_file: None };
    world.restart_data_plane().await;
    connected(&world, true).await;
    assert_eq!(std::fs::read_to_string(&identity).unwrap(), first, "nothing is renewed before its time");

    both(12 * HOUR + 10 * 60 * SECOND);
    let renewed = eventually("the certificate to be renewed", async || {
        std::fs::read_to_string(&identity).ok().filter(|text| *text != first)
    })
    .await;
    connected(&world, true).await;

    // The control plane is away until after the end.
    world.stop_control_plane().await;
    both(20 * HOUR);
    eventually("the alarm", async || (number(&world, "sluice_certificate_alarm").await == 1.0).then_some(())).await;
    both(10 * HOUR);
    assert_eq!(world.trigger(&orders, &json!({"n": 2})).await.status, 200, "it serves what it has");
    world.restart_data_plane().await;
    assert_eq!(world.trigger(&orders, &json!({"n": 3})).await.status, 200, "after a restart, too");
    world.start_control_plane().await;
    connected(&world, true).await;
    assert_ne!(std::fs::read_to_string(&identity).unwrap(), renewed);
    eventually("the alarm to end", async || (number(&world, "sluice_certificate_alarm").await == 0.0).then_some(()))
        .await;

    let request = admin::DeleteDataPlaneRequest { name: "dataPlanes/test".to_owned(), ..Default::default() };
    world.client.data_planes().delete_data_plane(request).await.unwrap();
    connected(&world, false).await;
    assert_eq!(world.trigger(&orders, &json!({"n": 4})).await.status, 200, "it serves what it has");
    world.stop().await;
}

async fn number(world: &World, series: &str) -> f64 {
    Numbers::of(world.health()).await.get(series)
}

async fn connected(world: &World, wanted: bool) {
    let wanted = if wanted { 1.0 } else { 0.0 };
    eventually("the line to open or close", async || {
        (number(world, "sluice_sync_connected").await == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_join_says_why_and_does_not_start() {
    let world = Installation::start().await;
    let settings = |admission: Admission, url: String| {
        let folder = Folder::open(&world.folder.path().join(uuid::Uuid::new_v4().to_string())).unwrap();
        let mut settings = folder.data_plane("dp-1", url, sluice_egress::Settings::default());
        settings.master_key_file = world.folder.master_key_file();
        settings.admission = admission;
        settings.clock = sluice_data_plane::clock::Clock::manual(world.clock.now());
        settings
    };
    let any = "127.0.0.1:0".parse().unwrap();
    let start =
        async |admission: Admission, url: String| match dev::run_data_plane(settings(admission, url), any, any).await {
            Ok(running) => running.stop().await.map(|()| "started".to_owned()).unwrap(),
            Err(error) => error.to_string(),
        };
    let (https, http) = (world.running.url(), world.running.url().replace("https", "http"));
    let without = || Admission::Certificate { join_token_file: None };
    assert!(start(without(), https.clone()).await.contains("--join-token-file"));
    assert!(start(without(), http).await.contains("write https://"));
    let key = Admission::Key(world.folder.data_plane_key_file());
    assert!(start(key, https.clone()).await.contains("join with a join token"));
    let good = joining(&world.client, world.folder.path(), &["workspaces/acme"]).await;
    assert_eq!(start(good.clone(), https.clone()).await, "started");
    assert!(start(good, https.clone()).await.contains("used already"), "another data plane with the same token");
    let file = world.folder.path().join("other.join");
    let token = JoinToken::parse(&world.token(&["workspaces/-"]).await.token).unwrap();
    let with_pin = |pin| JoinToken::new(id_bytes(&token.id), zeroize::Zeroizing::new([1; 32]), pin).text();
    let from = || Admission::Certificate { join_token_file: Some(file.clone()) };
    std::fs::write(&file, &*with_pin([9; 32])).unwrap();
    assert!(start(from(), https.clone()).await.contains("not the one that the join token was made by"));
    std::fs::write(&file, "slj_").unwrap();
    assert!(start(from(), https).await.contains("cut or mistyped"));
}
