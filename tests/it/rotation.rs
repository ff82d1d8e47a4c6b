//! Secrets and master keys are changed while requests flow (S16, M17, K05).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use sluice_client::admin::operation::{State, Work};
use sluice_client::{Client, admin};
use sluice_tests::resources::{api_key_header, meta, oauth2, post};
use sluice_tests::subject::{Setup, Subject};
use sluice_tests::{Numbers, RawHttp, Request, Workspace, World, eventually, resources};

use crate::meta::{SIGNATURE, sign};
use sluice::destination::{self, Answer, Destination};

/// A secret field of a resource.
struct Field<'a> {
    client: &'a Client,
    name: &'a str,
    field: &'a str,
}

impl Field<'_> {
    async fn stage(&self, value: &str) {
        let (name, field, value) = (self.name.to_owned(), self.field.to_owned(), value.to_owned());
        let request = admin::StageSecretRequest { name, field, value, ..Default::default() };
        self.client.secrets().stage_secret(request).await.unwrap();
    }

    async fn activate(&self) {
        let (name, field) = (self.name.to_owned(), self.field.to_owned());
        let request = admin::ActivateSecretRequest { name, field, ..Default::default() };
        self.client.secrets().activate_secret(request).await.unwrap();
    }

    async fn revert(&self) {
        let (name, field) = (self.name.to_owned(), self.field.to_owned());
        let request = admin::RevertSecretRequest { name, field, ..Default::default() };
        self.client.secrets().revert_secret(request).await.unwrap();
    }

    async fn retire_previous(&self) {
        let (name, field) = (self.name.to_owned(), self.field.to_owned());
        let slot = admin::SecretSlot::Previous.into();
        let request = admin::RetireSecretRequest { name, field, slot, ..Default::default() };
        self.client.secrets().retire_secret(request).await.unwrap();
    }
}

#[tokio::test]
async fn both_app_secrets_are_accepted_until_the_old_one_retires_m17_s16() {
    let world = World::start().await;
    let incoming = world.acme.incoming("meta", meta("app-one", "verify-one")).await;
    world.served().await;
    let body = r#"{"object": "page"}"#;
    let post = async |secret: &str| {
        let request = Request::post(&incoming.endpoint_path, body).header(SIGNATURE, sign(secret, body.as_bytes()));
        world.send(&request).await.status
    };
    let shake = async |token: &str| {
        let path = &incoming.endpoint_path;
        let query = format!("{path}?hub.mode=subscribe&hub.challenge=1&hub.verify_token={token}");
        world.send(&Request::new("GET", &query)).await.status
    };
    let field = |field| Field { client: &world.client, name: &incoming.name, field };
    assert_eq!((post("app-one").await, post("app-two").await), (200, 401));

    field("meta.app_secret").stage("app-two").await;
    field("meta.verify_token").stage("verify-two").await;
    world.served().await;
    assert_eq!((post("app-one").await, post("app-two").await), (200, 200));
    assert_eq!((shake("verify-one").await, shake("verify-two").await, shake("verify-three").await), (200, 200, 403));

    field("meta.app_secret").activate().await;
    world.served().await;
    assert_eq!((post("app-one").await, post("app-two").await), (200, 200));
    let numbers = Numbers::of(world.health()).await;
    let signed_by = |slot: &str| numbers.get(&format!("sluice_signatures_total{{slot=\"{slot}\"}}"));
    assert_eq!((signed_by("active"), signed_by("staged"), signed_by("previous")), (3.0, 1.0, 1.0));

    field("meta.app_secret").retire_previous().await;
    world.served().await;
    assert_eq!((post("app-one").await, post("app-two").await), (401, 200));
    let request = admin::GetIncomingIntegrationRequest { name: incoming.name.clone() };
    let shown = world.client.incoming_integrations().get_incoming_integration(request).await.unwrap().into_inner();
    assert!(shown.published_version == 1 && !shown.has_unpublished_changes, "nothing was published");
}

#[tokio::test]
async fn the_active_secret_is_sent_and_activating_is_taken_back_s16() {
    let world = World::start().await;
    let connection = world.acme.connection("crm", api_key_header("secret-one", "x-key", "{{secret}}")).await;
    let request =
        admin::OutgoingRequest { connection: connection.name.clone(), ..post("https://api.example.com/orders", "{}") };
    let incoming = world.acme.flow("orders", request).await;
    let field = Field { client: &world.client, name: &connection.name, field: "api_key.secret" };
    let mut sent = 0;
    let mut key = async || {
        world.served().await;
        assert_eq!(world.trigger(&incoming, &json!({})).await.status, 200);
        sent += 1;
        let seen = world.destination.wait_for(sent).await.unwrap();
        seen.last().unwrap().header("x-key").unwrap().to_owned()
    };
    assert_eq!(key().await, "secret-one");
    field.stage("secret-two").await;
    assert_eq!(key().await, "secret-one");
    field.activate().await;
    assert_eq!(key().await, "secret-two");
    field.revert().await;
    assert_eq!(key().await, "secret-one");
    field.activate().await;
    field.retire_previous().await;
    assert_eq!(key().await, "secret-two");
}

/// What was fetched with the secret before is not used after (S16, R15).
#[tokio::test]
async fn a_token_fetched_with_the_secret_before_is_dropped_s16() {
    let world = World::start().await;
    let connection = world.acme.connection("crm", oauth2("https://api.example.com/token", "secret-one")).await;
    let request =
        admin::OutgoingRequest { connection: connection.name.clone(), ..post("https://api.example.com/orders", "{}") };
    let incoming = world.acme.flow("orders", request).await;
    let granted = ["token-one", "token-two", "token-three"]
        .map(|token| Answer::json(200, json!({ "access_token": token, "expires_in": 3600 }).to_string()));
    world.destination.script_for("/token", granted);
    let field =
        Field { client: &world.client, name: &connection.name, field: "oauth2_client_credentials.client_secret" };
    // The secret of the last fetch, and the token of the last delivery.
    let mut sent = 0;
    let mut used = async || {
        world.served().await;
        assert_eq!(world.trigger(&incoming, &json!({})).await.status, 200);
        sent += 1;
        world.acme.events(sent).await;
        let seen = world.destination.requests();
        let last = |path: &str| seen.iter().rfind(|seen| seen.target == path).unwrap();
        let form = String::from_utf8_lossy(&last("/token").body).into_owned();
        let secret = form.split('&').find_map(|pair| pair.strip_prefix("client_secret=")).unwrap().to_owned();
        (secret, last("/orders").header("authorization").unwrap().to_owned())
    };
    assert_eq!(used().await, ("secret-one".to_owned(), "Bearer token-one".to_owned()));
    assert_eq!(used().await, ("secret-one".to_owned(), "Bearer token-one".to_owned()));
    field.stage("secret-two").await;
    field.activate().await;
    let (secret, token) = used().await;
    assert_eq!(secret, "secret-two");
    assert_ne!(token, "Bearer token-one");
}

/// A process whose master key is changed.
pub(crate) struct Stage {
    setup: Setup,
    pub(crate) client: Client,
}

impl Stage {
    /// Makes workspaces; some have an endpoint that sends with a secret, which only the workspace's data key opens, the last one
    /// sends nothing.
    async fn tenants(&self) -> Vec<String> {
        let mut paths = Vec::new();
        for number in 1..=WORKSPACES {
            let workspace = Workspace::create(&self.client, &format!("tenant-{number}")).await;
            if number % 20 == 1 {
                let connection = workspace.connection("crm", api_key_header("secret-one", "x-key", "{{secret}}")).await;
                let request = admin::OutgoingRequest {
                    connection: connection.name,
                    ..post("https://api.example.com/orders", r#"{"id": 1}"#)
                };
                paths.push(workspace.flow("orders", request).await.endpoint_path);
            } else if number == WORKSPACES {
                paths.push(workspace.incoming("open", resources::open()).await.endpoint_path);
            }
        }
        paths
    }

    /// Each master key and how many data keys it wraps.
    async fn wrapped(&self) -> Vec<(String, i64)> {
        let request = admin::ListMasterKeysRequest::default();
        let listed = self.client.master_keys().list_master_keys(request).await.unwrap().into_inner().master_keys;
        listed.into_iter().map(|key| (key.name, key.data_keys)).collect()
    }

    /// Waits until the data plane serves the current revisions, and so holds no old wrapping.
    pub(crate) async fn served(&self) {
        let request = admin::ListWorkspacesRequest { page_size: 1000, ..Default::default() };
        let workspaces = self.client.workspaces().list_workspaces(request).await.unwrap().into_inner().workspaces;
        eventually("the current revisions to be served", || async {
            let request = admin::ListDataPlanesRequest::default();
            let planes = self.client.data_planes().list_data_planes(request).await.unwrap().into_inner().data_planes;
            let serves = |workspace: &admin::Workspace| {
                let mut served = planes.iter().flat_map(|plane| &plane.workspaces);
                served.any(|one| one.workspace == workspace.name && one.revision == workspace.revision)
            };
            workspaces.iter().all(serves).then_some(())
        })
        .await;
    }

    /// Where the rotation of a data key stands, and how much is done.
    async fn rotation(&self, name: &str) -> (State, i64) {
        let request = admin::GetOperationRequest { name: name.to_owned() };
        let operation = self.client.operations().get_operation(request).await.unwrap().into_inner();
        let Some(Work::DataKeyRotation(rotation)) = &operation.work else { panic!("no rotation: {operation:?}") };
        (operation.state(), rotation.done)
    }

    /// Sends 100 in a second, one after the other, until `done`; how many were kept.
    pub(crate) async fn flow(&self, path: &str, done: impl AsyncFn() -> bool) -> usize {
        let mut connection = RawHttp::connect(self.setup.ingress).await;
        let mut kept = 0;
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        while !done().await {
            pace.tick().await;
            let answer = connection.exchange(&Request::post(path, "{}")).await;
            assert_eq!(answer.status, 200);
            kept += 1;
        }
        kept
    }
}

const WORKSPACES: i64 = 80;

/// A process with both planes, to be started, killed and started again; what it logs, and where it sends.
pub(crate) struct House {
    setup: Setup,
    log: PathBuf,
    pub(crate) destination: Destination,
    _folder: tempfile::TempDir,
}

impl House {
    pub(crate) async fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let destination = Destination::start(destination::Options::named(["api.example.com"])).await.unwrap();
        let mut setup = Setup::on(&parent.path().join("data"));
        setup.ca_pem = destination.ca_pem();
        setup.static_addresses = destination.static_addresses();
        setup.log = "sluice=info,sluice_data_plane=info,sluice_control_plane=info".to_owned();
        Self { setup, log: parent.path().join("log"), destination, _folder: parent }
    }

    pub(crate) async fn start(&self) -> (Subject, Stage) {
        let log = std::fs::File::options().create(true).append(true).open(&self.log).unwrap();
        let subject = Subject::start(env!("CARGO_BIN_EXE_subject"), &self.setup, Stdio::from(log)).await.unwrap();
        let key = std::fs::read_to_string(self.setup.folder.join("admin.key")).unwrap().trim().to_owned();
        let client = Client::connect(&format!("http://{}", self.setup.grpc), &key).await.unwrap();
        (subject, Stage { setup: self.setup.clone(), client })
    }

    fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_key_is_changed_under_load_and_through_a_kill_k05() {
    let house = House::new().await;
    let (setup, destination) = (&house.setup, &house.destination);
    let start = || house.start();
    let (subject, stage) = start().await;
    let paths = stage.tenants().await;
    let ring = setup.folder.join("master.key");
    let first = std::fs::read_to_string(&ring).unwrap();
    let second = sluice::folder::master_key_line("second").unwrap() + "\n";
    std::fs::write(&ring, format!("{second}{first}")).unwrap();
    // Killed when some are wrapped anew and some are not.
    let half = async || {
        let wrapped = stage.wrapped().await;
        wrapped.iter().any(|(name, count)| name.ends_with("/second") && (5..WORKSPACES - 5).contains(count))
    };
    let mut kept = stage.flow(&paths[0], half).await;
    subject.kill().await.unwrap();

    let (subject, stage) = start().await;
    let all = WORKSPACES + 1;
    let done = async || {
        let expected = [("masterKeys/first".to_owned(), 0), ("masterKeys/second".to_owned(), all)];
        stage.wrapped().await == expected
    };
    assert!(!done().await, "it was killed before the end");
    kept += stage.flow(&paths[1], done).await;
    stage.served().await;
    // Nothing needs the old key: it goes, and the process starts without it.
    std::fs::write(&ring, &second).unwrap();
    assert!(subject.stop().await.unwrap().success());
    let (subject, stage) = start().await;
    for path in &paths {
        let last = std::cell::Cell::new(false);
        kept += stage.flow(path, async || last.replace(true)).await;
    }
    assert!(kept > 10, "{kept}");
    let sending = kept - 1;
    eventually("everything to arrive", || async {
        (destination.requests().len() >= sending && Numbers::of(setup.health).await.is_idle()).then_some(())
    })
    .await;
    assert!(destination.requests().iter().all(|seen| seen.header("x-key") == Some("secret-one")));
    let planes = stage.client.data_planes().list_data_planes(admin::ListDataPlanesRequest::default()).await;
    let planes = planes.unwrap().into_inner().data_planes;
    assert!(planes.iter().flat_map(|plane| &plane.workspaces).all(|served| served.refusal.is_none()), "{planes:?}");
    assert!(subject.stop().await.unwrap().success());
    let log = house.logged();
    assert!(!log.contains("cannot be opened") && log.contains("wrap nothing any more"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_key_is_changed_under_load_and_through_a_kill_k05() {
    const BEFORE: usize = 500;
    const DEAD: usize = 20;
    let house = House::new().await;
    let destination = &house.destination;
    let (subject, stage) = house.start().await;
    let acme = Workspace::create(&stage.client, "acme").await;
    let connection = acme.connection("crm", api_key_header("secret-one", "x-key", "{{secret}}")).await;
    let request = admin::OutgoingRequest {
        connection: connection.name,
        ..post("https://api.example.com/orders", r#"{"id": 1}"#)
    };
    let path = acme.flow("orders", request).await.endpoint_path;
    stage.served().await;
    destination.script(vec![Answer::status(400); DEAD]);
    let left = std::cell::Cell::new(BEFORE);
    let mut kept = stage.flow(&path, async || left.replace(left.get().saturating_sub(1)) == 0).await;
    let old = acme.deliveries(BEFORE).await;

    let request = admin::RotateDataKeyRequest { name: acme.name.clone(), ..Default::default() };
    let name = stage.client.workspaces().rotate_data_key(request).await.unwrap().into_inner().operation;
    let half = async || stage.rotation(&name).await.1 > 50;
    kept += stage.flow(&path, half).await;
    subject.kill().await.unwrap();
    let (subject, stage) = house.start().await;
    let (state, ..) = stage.rotation(&name).await;
    assert_eq!(state, State::Running, "it was killed before the end");
    kept += stage.flow(&path, async || stage.rotation(&name).await.0 == State::Succeeded).await;
    assert!(kept > BEFORE, "{kept}");

    // What was sent before and after the change can be read, and what was given up is delivered again.
    let acme = Workspace { client: stage.client.clone(), ..acme };
    let all = acme.deliveries(kept).await;
    for delivery in [&old[0], &old[BEFORE - 1], &all[kept - 1]] {
        let request = admin::GetDeliveryRequest { name: delivery.name.clone() };
        let delivery = stage.client.deliveries().get_delivery(request).await.unwrap().into_inner();
        assert_eq!(delivery.request.unwrap().body, r#"{"id": 1}"#);
    }
    let filter = admin::DeliveryFilter { states: vec![admin::DeliveryState::Dead.into()], ..Default::default() };
    let request =
        admin::ReplayDeliveriesRequest { parent: acme.name.clone(), filter: Some(filter), ..Default::default() };
    let plan = stage.client.deliveries().replay_deliveries(request).await.unwrap().into_inner().plan.unwrap();
    assert_eq!(plan.count, i64::try_from(DEAD).unwrap());
    acme.deliveries(kept + DEAD).await;
    let seen = destination.requests();
    assert!(seen.iter().all(|seen| seen.header("x-key") == Some("secret-one")));
    let sent: BTreeSet<_> = seen.iter().map(|seen| seen.header("idempotency-key")).collect();
    assert_eq!(sent.len(), kept + DEAD, "each of them arrived");
    assert!(subject.stop().await.unwrap().success());
    assert!(!house.logged().contains("cannot be opened"), "{}", house.logged());
}
