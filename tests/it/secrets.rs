//! Secrets go in and never come out (I7): not over the API, not in events, logs, numbers or files, in no shape. Only their
//! destination sees them.
//!
//! The planes run in a process of their own that logs everything there is to log. Whatever they say and keep is gathered
//! and searched ([`search`]).

mod search;

use std::fmt::Debug;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use prost::Message;
use search::{Canary, Places};
use sha2::Sha256;
use sluice::destination::{self, Answer as Scripted, Destination, Seen};
use sluice_client::{Client, admin};
use sluice_tests::subject::{Setup, Subject};
use sluice_tests::{Numbers, RawHttp, Request, Workspace, eventually, resources};
use tonic::{Response, Status};

const PASSWORD: &str = "CANARY-pa$$w/rd+\"1\"-5f1c";
const HEADER_SECRET: &str = "CANARY-h&ader=key/2-77ab";
const URL_SECRET: &str = "CANARY-url key+%/3-e019";
const TOKEN: &str = "CANARY-t0ken.~/4-33d0";
const APP_SECRET: &str = "CANARY-app&secret+/5-90ef";
const VERIFY_TOKEN: &str = "CANARY-verify t0ken/6-c2b1";
/// Never accepted, so that a refusal is what could tell them.
const BAD_PASSWORD: &str = "CANARY-with\nbreak/7-1d44";
const BAD_SECRET: &str = "CANARY-badly placed/8-ab10";
/// Gets [`FETCHED`].
const CLIENT_SECRET: &str = "CANARY-cl1ent+s&cret/10-4f7e";
/// What a token endpoint gives for it.
const FETCHED: &str = "CANARY-fetched.~t0k3n-11-9ac2";
/// Replaces [`HEADER_SECRET`] in the end.
const NEW_SECRET: &str = "CANARY-rotated/9+key-08fa";

/// All that was said to administrators and senders.
#[derive(Default)]
struct Said(Vec<u8>);

impl Said {
    fn message<M: Message + Debug>(&mut self, message: &M) {
        self.0.extend(format!("{message:?}\n").into_bytes());
        self.0.extend(message.encode_to_vec());
    }

    fn answer<M: Message + Debug>(&mut self, answer: Result<Response<M>, Status>) {
        match answer {
            Ok(response) => self.message(response.get_ref()),
            Err(status) => self.status(&status),
        }
    }

    fn status(&mut self, status: &Status) {
        self.0.extend(format!("{status:?}\n").into_bytes());
        self.0.extend(status.details());
    }
}

struct Scene {
    setup: Setup,
    client: Client,
    acme: Workspace,
    said: Said,
}

impl Scene {
    async fn trigger(&mut self, request: &Request) -> u16 {
        let answer = RawHttp::connect(self.setup.ingress).await.exchange(request).await;
        self.said.0.extend(format!("{answer:?}\n").into_bytes());
        self.said.0.extend(&answer.body);
        answer.status
    }

    /// A connection, and an endpoint that leads to a request with it.
    async fn flow(&mut self, id: &str, scheme: admin::connection::Scheme, host: &str) -> String {
        let connection = self.acme.connection(id, scheme).await;
        self.said.message(&connection);
        let incoming = self.acme.incoming(id, resources::open()).await;
        let request = admin::OutgoingRequest {
            connection: connection.name,
            // The destination's answer and the request as rendered go into the event.
            event_parameters: vec![
                resources::parameter("answer", "{{ response.body }}"),
                resources::parameter("answer_headers", "{{ response.headers }}"),
            ],
            retry: Some(admin::RetryPolicy { attempts_max: 1, ..Default::default() }),
            timeout: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
            ..resources::post(&format!("https://{host}/{id}?q=1"), r#"{"all": {{ request | tojson }}}"#)
        };
        let workflow = resources::workflow(&incoming, [resources::custom_webhook("Send", request)]);
        self.said.message(&self.acme.workflow(id, workflow).await);
        incoming.endpoint_path
    }

    /// Calls that are refused, each with a secret in hand.
    async fn refusals(&mut self) {
        let connection =
            |scheme| admin::Connection { display_name: "Bad".to_owned(), scheme: Some(scheme), ..Default::default() };
        let bad = [
            connection(resources::login_password("login", BAD_PASSWORD)),
            connection(resources::login_password("lo:gin", PASSWORD)),
            connection(resources::api_key_header(BAD_SECRET, "bad name", "{{ secret | nope }}")),
            connection(resources::api_key_header(&BAD_SECRET.repeat(400), "x-key", "{{secret}}")),
            connection(resources::token(&BAD_SECRET.repeat(400))),
        ];
        for bad in bad {
            let request = admin::CreateConnectionRequest {
                parent: self.acme.name.clone(),
                connection: Some(bad),
                ..Default::default()
            };
            let refused = self.client.connections().create_connection(request).await;
            assert!(refused.is_err(), "{refused:?}");
            self.said.answer(refused);
        }
        let meta = resources::meta(&BAD_SECRET.repeat(100), VERIFY_TOKEN);
        let request = admin::CreateIncomingIntegrationRequest {
            parent: self.acme.name.clone(),
            incoming_integration: Some(meta),
            ..Default::default()
        };
        let refused = self.client.incoming_integrations().create_incoming_integration(request).await;
        assert!(refused.is_err());
        self.said.answer(refused);
        let stranger = Client::connect(&format!("http://{}", self.setup.grpc), BAD_SECRET).await.unwrap();
        let refused = stranger.connections().list_connections(admin::ListConnectionsRequest::default()).await;
        assert!(refused.is_err());
        self.said.answer(refused);
    }

    /// The same create twice, a change that comes too late, a rotation: each could keep what it was sent.
    async fn repetitions(&mut self) {
        let request = admin::CreateConnectionRequest {
            parent: self.acme.name.clone(),
            connection_id: "twice".to_owned(),
            connection: Some(admin::Connection {
                display_name: "Twice".to_owned(),
                scheme: Some(resources::api_key_header(HEADER_SECRET, "x-key", "Key {{secret}}")),
                ..Default::default()
            }),
            request_id: uuid::Uuid::new_v4().to_string(),
            ..Default::default()
        };
        for _ in 0..2 {
            let answer = self.client.connections().create_connection(request.clone()).await;
            assert!(answer.is_ok());
            self.said.answer(answer);
        }
        let scheme = || Some(resources::api_key_header(NEW_SECRET, "x-api-key", "{{secret}}"));
        let name = format!("{}/connections/by-header", self.acme.name);
        let change = |etag: &str| admin::UpdateConnectionRequest {
            connection: Some(admin::Connection {
                name: name.clone(),
                etag: etag.to_owned(),
                display_name: "New".to_owned(),
                scheme: scheme(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let late = self.client.connections().update_connection(change("\"stale\"")).await;
        assert!(late.is_err());
        self.said.answer(late);
        let rotated = self.client.connections().update_connection(change("")).await;
        assert!(rotated.is_ok());
        self.said.answer(rotated);
    }

    /// Meta's requests: signed well, badly and not at all, and both handshakes.
    async fn webhooks(&mut self) {
        let meta = self.acme.incoming("meta", resources::meta(APP_SECRET, VERIFY_TOKEN)).await;
        self.said.message(&meta);
        let path = meta.endpoint_path;
        self.served().await;
        let body = r#"{"object": "page"}"#;
        let mut hmac = Hmac::<Sha256>::new_from_slice(APP_SECRET.as_bytes()).unwrap();
        hmac.update(body.as_bytes());
        let good = format!("sha256={}", hex::encode(hmac.finalize().into_bytes()));
        let signed = |signature: &str| Request::post(&path, body).header("X-Hub-Signature-256", signature);
        assert_eq!(self.trigger(&signed(&good)).await, 200);
        assert_eq!(self.trigger(&signed(&good.replace('1', "2"))).await, 401);
        assert_eq!(self.trigger(&Request::post(&path, body)).await, 401);
        let handshake = |token: &str| {
            let token = token.replace(' ', "%20").replace('/', "%2F");
            Request::new("GET", &format!("{path}?hub.mode=subscribe&hub.challenge=4711&hub.verify_token={token}"))
        };
        assert_eq!(self.trigger(&handshake(VERIFY_TOKEN)).await, 200);
        assert_eq!(self.trigger(&handshake("wrong")).await, 403);
    }

    /// A token endpoint that refuses the client's secret, and repeats it.
    async fn a_refused_client(&mut self) {
        let scheme = resources::oauth2("https://api.example.com/refuse", CLIENT_SECRET);
        let path = self.flow("refused", scheme, "api.example.com").await;
        self.served().await;
        assert_eq!(self.trigger(&Request::post(&path, "{}")).await, 200);
        let told = eventually("the refusal to be told", || async {
            let parent = format!("{}/connections/refused", self.acme.name);
            let request = admin::ListTokenStatesRequest { parent, ..Default::default() };
            let told = self.client.connections().list_token_states(request).await.unwrap().into_inner();
            told.token_states.iter().any(|state| state.last_error_status == 401).then_some(told)
        })
        .await;
        self.said.message(&told);
    }

    async fn served(&self) {
        let revision = self.acme.get().await.revision;
        eventually("the configuration to be served", || async {
            let request = admin::ListDataPlanesRequest::default();
            let planes = self.client.data_planes().list_data_planes(request).await.unwrap().into_inner().data_planes;
            planes.iter().flat_map(|plane| &plane.workspaces).any(|served| served.revision >= revision).then_some(())
        })
        .await;
    }

    /// Everything there is to read.
    async fn read_everything(&mut self) {
        let parent = || self.acme.name.clone();
        let page_size = 1000;
        macro_rules! list {
            ($($clients:ident.$list:ident($Request:ident)),*) => {
                $(let request = admin::$Request { parent: parent(), page_size, ..Default::default() };
                let listed = self.client.$clients().$list(request).await;
                assert!(listed.is_ok());
                self.said.answer(listed);)*
            };
        }
        list!(
            connections.list_connections(ListConnectionsRequest),
            incoming_integrations.list_incoming_integrations(ListIncomingIntegrationsRequest),
            outgoing_integrations.list_outgoing_integrations(ListOutgoingIntegrationsRequest),
            workflows.list_workflows(ListWorkflowsRequest),
            events.list_events(ListEventsRequest),
            deliveries.list_deliveries(ListDeliveriesRequest),
            incoming_requests.list_incoming_requests(ListIncomingRequestsRequest),
            operations.list_operations(ListOperationsRequest)
        );
        // One by one they come with the request and the answer.
        let request = admin::ListDeliveriesRequest { parent: parent(), page_size, ..Default::default() };
        for delivery in self.client.deliveries().list_deliveries(request).await.unwrap().into_inner().deliveries {
            let request = admin::GetDeliveryRequest { name: delivery.name };
            self.said.answer(self.client.deliveries().get_delivery(request).await);
        }
        self.said.message(&self.acme.get().await);
        let planes = self.client.data_planes().list_data_planes(admin::ListDataPlanesRequest::default()).await;
        self.said.answer(planes);
        for id in ["by-login", "by-header", "by-url", "by-token", "by-fetch", "refused"] {
            let name = format!("{}/connections/{id}", self.acme.name);
            let request = admin::ListTokenStatesRequest { parent: name.clone(), ..Default::default() };
            self.said.answer(self.client.connections().list_token_states(request).await);
            let request = admin::GetConnectionRequest { name };
            self.said.answer(self.client.connections().get_connection(request).await);
        }
    }
}

/// The connections whose requests arrive, each with its secret and the value it makes of it.
fn arriving() -> [(&'static str, &'static str, String); 5] {
    [
        ("by-login", PASSWORD, format!("Basic {}", STANDARD.encode(format!("login:{PASSWORD}")))),
        ("by-header", HEADER_SECRET, format!("Key {HEADER_SECRET}")),
        ("by-url", URL_SECRET, URL_SECRET.to_owned()),
        ("by-token", TOKEN, format!("Bearer {TOKEN}")),
        ("by-fetch", FETCHED, format!("Bearer {FETCHED}")),
    ]
}

/// A destination that takes, refuses, breaks off, keeps silent, and tells us what we sent it, in every form it may have.
async fn scripted() -> Destination {
    let destination = Destination::start(destination::Options::named(["api.example.com"])).await.unwrap();
    for (id, secret, value) in arriving() {
        let forms = search::told(secret);
        let told = serde_json::json!({
            "message": format!("we got {value}"),
            "headers": { "authorization": value },
            "forms": forms,
            "whole": [STANDARD.encode(&value), hex::encode(&value)],
        });
        let location = format!("https://api.example.com/{id}?key={}", search::url_encoded(secret));
        let answers = [
            Scripted::json(200, r#"{"fine": true}"#),
            Scripted::json(401, r#"{"error": "who are you"}"#),
            Scripted::close(),
            Scripted::hang(),
            Scripted::json(200, told.to_string()).header("x-you-sent", &value),
            Scripted::status(403).header("location", &location).body(format!("no: {value} {}", forms.join(" "))),
        ];
        destination.script_for(&format!("/{id}"), answers);
    }
    // After its 401 the call is repeated once, with another token.
    destination.script_for("/by-fetch", [Scripted::json(200, r#"{"fine": true}"#)]);
    let granted = serde_json::json!({ "access_token": FETCHED, "expires_in": 3600 }).to_string();
    destination.script_for("/token", vec![Scripted::json(200, granted); 2]);
    let told = search::told(CLIENT_SECRET).join(" ");
    let refused = serde_json::json!({ "error": "invalid_client", "error_description": told }).to_string();
    destination.script_for("/refuse", vec![Scripted::json(401, refused).header("x-you-sent", CLIENT_SECRET); 20]);
    destination
}

/// Every secret there is: those that were handed in, and the keys of the installation.
fn canaries(setup: &Setup) -> Vec<Canary> {
    let key = |file: &str| std::fs::read_to_string(setup.folder.join(file)).unwrap().trim().to_owned();
    let master_key = key("master.key").rsplit(':').next().unwrap().to_owned();
    [
        ("password", PASSWORD),
        ("header secret", HEADER_SECRET),
        ("URL secret", URL_SECRET),
        ("token", TOKEN),
        ("app secret", APP_SECRET),
        ("verify token", VERIFY_TOKEN),
        ("refused password", BAD_PASSWORD),
        ("refused secret", BAD_SECRET),
        ("rotated secret", NEW_SECRET),
        ("client secret", CLIENT_SECRET),
        ("fetched token", FETCHED),
        ("admin key", &key("admin.key")),
        ("data plane key", &key("data-plane.key")),
        ("master key", &master_key),
    ]
    .map(|(name, secret)| Canary::new(name, secret))
    .into()
}

/// The search looks where something is to be found, and the secrets were in use.
fn assert_looks_where_something_is(places: &Places, seen: &[Seen]) {
    assert!(places.holds("log", "TRACE") && places.holds("answers", "by-login") && places.holds("metrics", "4xx"));
    assert!(places.holds("running: control-plane.db", "by-login") && places.holds("stopped: inbox.db", "SQLite"));
    assert!(places.holds("running: last-good", "by-login") && places.holds("answers", "TLS"));
    // What the destination told of us is there, without what we were let in with.
    assert!(places.holds("answers", r#"we got ******"#) && places.holds("answers", "no: ******"));
    let sent: String = seen.iter().map(|seen| format!("{} {:?}\n", seen.target, seen.headers)).collect();
    for used in [PASSWORD, HEADER_SECRET, URL_SECRET, TOKEN, FETCHED, NEW_SECRET] {
        assert!(!Canary::new("used", used).found_in(&sent).is_empty(), "{used} was never sent: {sent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_go_in_and_never_come_out() {
    let parent = tempfile::tempdir().unwrap();
    let log = parent.path().join("log");
    let destination = scripted().await;
    let mut setup = Setup::on(&parent.path().join("data"));
    setup.ca_pem = destination.ca_pem();
    setup.static_addresses = destination.static_addresses();
    // A name that leads to a server whose certificate does not name it.
    setup.static_addresses.insert("elsewhere.example.com".to_owned(), vec![destination.address()]);
    setup.log = "trace".to_owned();
    let log_file = std::fs::File::create(&log).unwrap();
    let subject = Subject::start(env!("CARGO_BIN_EXE_subject"), &setup, Stdio::from(log_file)).await.unwrap();
    let admin_key = std::fs::read_to_string(setup.folder.join("admin.key")).unwrap().trim().to_owned();
    let client = Client::connect(&format!("http://{}", setup.grpc), &admin_key).await.unwrap();
    let acme = Workspace::create(&client, "acme").await;
    let mut scene = Scene { setup: setup.clone(), client, acme, said: Said::default() };

    let mut paths = Vec::new();
    let schemes = [
        ("by-login", resources::login_password("login", PASSWORD), "api.example.com"),
        ("by-header", resources::api_key_header(HEADER_SECRET, "x-api-key", "Key {{secret}}"), "api.example.com"),
        ("by-url", resources::api_key_parameter(URL_SECRET, "api_key", "{{secret}}"), "api.example.com"),
        ("by-token", resources::token(TOKEN), "api.example.com"),
        ("by-fetch", resources::oauth2("https://api.example.com/token", CLIENT_SECRET), "api.example.com"),
        ("elsewhere", resources::api_key_parameter(URL_SECRET, "api_key", "{{secret}}"), "elsewhere.example.com"),
    ];
    for (id, scheme, host) in schemes {
        paths.push(scene.flow(id, scheme, host).await);
    }
    scene.refusals().await;
    scene.webhooks().await;
    // Each meets the six answers of its destination.
    for path in &paths {
        for id in 0..6 {
            assert_eq!(scene.trigger(&Request::post(path, format!("{{\"id\": {id}}}"))).await, 200);
        }
    }
    assert_eq!(scene.trigger(&Request::post(&paths[0], "{broken")).await, 400);
    destination.wait_for(33).await.unwrap();
    scene.acme.deliveries(36).await;
    scene.repetitions().await;
    scene.served().await;
    assert_eq!(scene.trigger(&Request::post(&paths[1], "{\"id\": 5}")).await, 200);
    let seen = destination.wait_for(34).await.unwrap();
    scene.acme.deliveries(37).await;
    scene.a_refused_client().await;
    scene.read_everything().await;

    let mut places = Places::default();
    places.add("metrics", Numbers::of(setup.health).await.text().as_bytes());
    places.add_folder("running", &setup.folder);
    assert!(subject.stop().await.unwrap().success());
    places.add_folder("stopped", &setup.folder);
    places.add("log", &std::fs::read(&log).unwrap());
    places.add("answers", &scene.said.0);

    assert_eq!(places.leaks(&canaries(&setup)), Vec::<String>::new());
    assert_looks_where_something_is(&places, &seen);
}
