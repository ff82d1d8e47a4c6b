//! Both planes in a process of their own, with endpoints of every kind that lead to a destination.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use sluice::folder::Folder;
use sluice_client::{Client, admin};
use sluice_tests::subject::{Joined, Setup, Subject};
use sluice_tests::{Numbers, RawHttp, Request, Workspace, resources};
use tempfile::TempDir;

use crate::bare::{NAME, Sink};
use crate::load::{APP_SECRET, Load, Shot};
use crate::process::Watched;

/// An endpoint takes at most 10,000 requests per second (D10), so the load is spread.
const ENDPOINTS: usize = 8;

/// As long as the planes have it unless they are told.
const LEASE: Duration = Duration::from_secs(60);

/// How an endpoint knows its senders, and whether it knows duplicates.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Open { dedup: bool },
    Token { dedup: bool },
    Meta { dedup: bool },
}

pub(crate) const DOORS: [Door; 6] = [
    Door::Open { dedup: false },
    Door::Open { dedup: true },
    Door::Token { dedup: false },
    Door::Token { dedup: true },
    Door::Meta { dedup: false },
    Door::Meta { dedup: true },
];

impl Door {
    fn id(self) -> &'static str {
        match self {
            Self::Open { dedup: false } => "open",
            Self::Open { dedup: true } => "open-dedup",
            Self::Token { dedup: false } => "token",
            Self::Token { dedup: true } => "token-dedup",
            Self::Meta { dedup: false } => "meta",
            Self::Meta { dedup: true } => "meta-dedup",
        }
    }

    fn dedup(self) -> bool {
        let (Self::Open { dedup } | Self::Token { dedup } | Self::Meta { dedup }) = self;
        dedup
    }

    fn integration(self, key: &str) -> admin::IncomingIntegration {
        let deduplication = if self.dedup() { resources::dedup(["body.orderId"]) } else { None };
        let of = match self {
            Self::Open { .. } => resources::open(),
            Self::Meta { .. } => resources::meta(APP_SECRET, "verify"),
            Self::Token { .. } => {
                let source = Some(admin::jwt_authorization::Source::ApiKey(key.to_owned()));
                let jwt = admin::incoming_integration::Authorization::Jwt(admin::JwtAuthorization { source });
                admin::IncomingIntegration { authorization: Some(jwt), ..resources::open() }
            }
        };
        admin::IncomingIntegration { display_name: self.id().to_owned(), deduplication, ..of }
    }
}

/// What is different from both planes as they come.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wanted<'a> {
    /// Where it goes; nobody: nothing is delivered.
    pub(crate) sink: Option<&'a Sink>,
    /// In place of the file.
    pub(crate) redis: Option<&'a str>,
    /// The data plane is in a process of its own.
    pub(crate) alone: bool,
    /// The control plane is in a process of its own with a disk of its own: it is in memory.
    pub(crate) elsewhere: bool,
    /// How many events may be submitted.
    pub(crate) events_per_second: Option<u32>,
}

pub(crate) struct Building {
    pub(crate) acme: Workspace,
    pub(crate) setup: Setup,
    subject: Subject,
    /// Of a data plane that is alone.
    control_plane: Option<Subject>,
    paths: Vec<(Door, Vec<String>)>,
    token: String,
    _folders: (TempDir, Option<TempDir>),
}

impl Building {
    pub(crate) async fn start(doors: &[Door], wanted: Wanted<'_>) -> Self {
        let parent = tempfile::tempdir().expect("a folder");
        let memory = wanted.elsewhere.then(|| tempfile::tempdir_in("/dev/shm").expect("a folder in memory"));
        let mut setup = Setup::on(&memory.as_ref().unwrap_or(&parent).path().join("data"));
        setup.redis = wanted.redis.map(str::to_owned);
        setup.lease = LEASE;
        match wanted.sink {
            Some(sink) => {
                setup.ca_pem.clone_from(&sink.ca_pem);
                setup.static_addresses.insert(NAME.to_owned(), vec![sink.address]);
            }
            None => setup.workers = Some([0, 0]),
        }
        setup.events_per_second = wanted.events_per_second;
        let start = async |setup: &Setup| {
            Subject::start(env!("CARGO_BIN_EXE_subject"), setup, Stdio::inherit()).await.expect("a process")
        };
        let mut control_plane = None;
        if wanted.alone || wanted.elsewhere {
            let mut other = Setup::on(&setup.folder);
            other.control_plane_alone = true;
            control_plane = Some(start(&other).await);
            let url = format!("http://{}", other.grpc);
            setup.joins = Some(Joined { url, folder: setup.folder });
            setup.folder = parent.path().join("alone");
            setup.grpc = other.grpc;
        }
        let subject = start(&setup).await;
        let folder = setup.joins.as_ref().map_or(&setup.folder, |joined| &joined.folder);
        let folder = Folder::open(folder).expect("a folder");
        let key = std::fs::read_to_string(folder.admin_key_file()).expect("a key");
        let client = Client::connect(&format!("http://{}", setup.grpc), key.trim()).await.expect("a client");
        let acme = Workspace::create(&client, "acme").await;
        let key =
            if doors.iter().any(|door| matches!(door, Door::Token { .. })) { Some(api_key(&acme).await) } else { None };
        let mut paths = Vec::new();
        for door in doors {
            let mut incoming = Vec::new();
            for number in 0..ENDPOINTS {
                let integration = door.integration(key.as_ref().map_or("", |key| &key.name));
                incoming.push(acme.incoming(&format!("{}-{number}", door.id()), integration).await);
            }
            let request = resources::post(&format!("https://{NAME}/in"), r#"{"order": "{{ request.body.orderId }}"}"#);
            let all = incoming
                .iter()
                .map(|one| admin::Trigger { incoming_integration: one.name.clone(), ..Default::default() });
            let workflow = admin::Workflow {
                triggers: all.collect(),
                ..resources::workflow(&incoming[0], [resources::custom_webhook("Send", request)])
            };
            acme.workflow(door.id(), workflow).await;
            paths.push((*door, incoming.into_iter().map(|one| one.endpoint_path).collect()));
        }
        // Where nothing is published yet there is nothing to serve.
        if !doors.is_empty() {
            acme.ready().await;
        }
        let token = match &key {
            Some(key) => login(setup.ingress, key).await,
            None => String::new(),
        };
        Self { acme, setup, subject, control_plane, paths, token, _folders: (parent, memory) }
    }

    /// Requests to the endpoints of this kind, each with an order of its own.
    pub(crate) fn load(&self, door: Door, body: &str, connections: usize) -> Load {
        let shown = format!("Bearer {}", self.token);
        let paths = self.paths.iter().find(|(of, _)| *of == door).map(|(_, paths)| paths).expect("it has such");
        let shot = |path: &String| match door {
            Door::Open { .. } => Shot::numbered(path, body, &[]),
            Door::Token { .. } => Shot::numbered(path, body, &[("Authorization", &shown)]),
            Door::Meta { .. } => Shot::signed(path, body),
        };
        let shots = paths.iter().map(shot).collect();
        Load { address: self.setup.ingress, shots, connections, status: 200 }
    }

    /// The same order again and again, which has come before.
    pub(crate) async fn duplicates(&self, body: &str, connections: usize) -> Load {
        let door = Door::Open { dedup: true };
        let load = self.load(door, body, connections);
        let (_, paths) = self.paths.iter().find(|(of, _)| *of == door).expect("it has such");
        for path in paths {
            let first = RawHttp::connect(self.setup.ingress).await.exchange(&Request::post(path, body)).await;
            assert_eq!(first.status, 200);
        }
        let shots = paths.iter().map(|path| Shot::same(path, body, &[])).collect();
        Load { shots, status: 204, ..load }
    }

    /// The data plane goes on alone.
    pub(crate) async fn stop_control_plane(&mut self) {
        if let Some(control_plane) = self.control_plane.take() {
            control_plane.stop().await.expect("a proper stop");
        }
    }

    /// Waits until nothing waits or is being worked on; nor is not yet reported, where there is somebody to report to.
    pub(crate) async fn drained(&self) {
        let reports = self.setup.joins.is_none() || self.control_plane.is_some();
        let is_over = |numbers: &Numbers| if reports { numbers.is_idle() } else { numbers.has_no_jobs() };
        while !is_over(&Numbers::of(self.setup.health).await) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) fn watched(&self) -> Watched {
        Watched::new(self.subject.id())
    }

    pub(crate) async fn stop(mut self) {
        self.stop_control_plane().await;
        self.subject.stop().await.expect("a proper stop");
    }
}

/// A key whose tokens the endpoints take.
async fn api_key(acme: &Workspace) -> admin::AccessKey {
    let api_key = admin::AccessKey {
        display_name: "load".to_owned(),
        roles: vec![format!("{}/roles/webhook-sender", acme.name)],
        ..Default::default()
    };
    let request =
        admin::CreateApiKeyRequest { parent: acme.name.clone(), api_key: Some(api_key), ..Default::default() };
    acme.client.api_keys().create_api_key(request).await.expect("a key").into_inner()
}

/// A token of this key.
async fn login(ingress: SocketAddr, key: &admin::AccessKey) -> String {
    let body = serde_json::json!({ "apiKey": key.key }).to_string();
    let request = Request::post("/uauth/v2/auth/login/profile", body);
    let answer = RawHttp::connect(ingress).await.exchange(&request).await;
    answer.json()["token"].as_str().expect("a token").to_owned()
}

/// 1 KB as a shop sends it.
pub(crate) fn body() -> String {
    let items: Vec<serde_json::Value> = (0..8)
        .map(|item| serde_json::json!({ "sku": format!("SKU-{item:06}"), "name": "A thing of some kind", "quantity": item, "price": 19.99 }))
        .collect();
    let mut order = serde_json::json!({
        "orderId": crate::load::NUMBER,
        "customer": { "email": "jane@example.com", "name": "Jane Doe", "city": "Kraków" },
        "items": items,
        "note": "",
    });
    let missing = 1024_usize.saturating_sub(order.to_string().len());
    order["note"] = "x".repeat(missing).into();
    order.to_string()
}
