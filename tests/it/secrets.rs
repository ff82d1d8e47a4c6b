//! Secrets go in and never come out (I7): not over the API, not in events, logs, numbers or files, in no shape. Only their
//! destination sees them.
//!
//! The planes run in a process of their own that logs everything there is to log. Whatever they say and keep is gathered
//! and searched ([`search`]).

mod kinds;
mod search;

use std::fmt::Debug;
use std::process::Stdio;

use hmac::{Hmac, KeyInit as _, Mac as _};
use kinds::{
    APP_SECRET, BAD_PASSWORD, BAD_SECRET, HEADER_SECRET, IMPORTED_SECRET, Kind, NEW_SECRET, PARSED_SECRET, PASSWORD,
    STAGED_SECRET, VERIFY_TOKEN, kinds,
};
use prost::Message;
use search::{Canary, Places};
use sha2::Sha256;
use sluice::destination::Seen;
use sluice_client::admin::connection_target::Kind as Which;
use sluice_client::{Client, admin};
use sluice_tests::subject::{Setup, Subject};
use sluice_tests::{Numbers, RawHttp, RedisServer, Request, Workspace, eventually, resources};
use tonic::{Response, Status};

/// In the body and in a header of each request.
const SENDER_DATA: &str = "CANARY-data of a customer-21";
/// The sender's own `Authorization`: data like any other header.
const SENDER_KEY: &str = "CANARY-sender-key/22-01af";

/// How it is forwarded.
const FORWARDED: &str = "session=Bearer CANARY-sender-key";

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

/// A request with a connection that is tried.
fn trial_target(kind: &Kind, connection: &str) -> Option<admin::TestTarget> {
    let (connection, signature) = match kind.signs {
        true => (String::new(), connection.to_owned()),
        false => (connection.to_owned(), String::new()),
    };
    let request = admin::OutgoingRequest {
        event_name: "trial.told".to_owned(),
        ..request(connection, signature, &format!("https://{}/trial-{}?q=1", kind.host, kind.id))
    };
    Some(admin::TestTarget { kind: Some(admin::test_target::Kind::Request(request)), ..Default::default() })
}

/// What the sender of an order would have sent.
fn trial_context() -> Option<admin::TestContext> {
    let header = |name: &str, value: &str| admin::TestHeader { name: name.to_owned(), value: value.to_owned() };
    let headers = vec![header("authorization", &format!("Bearer {SENDER_KEY}")), header("x-note", SENDER_DATA)];
    let body = serde_json::json!({ "id": 0, "note": SENDER_DATA }).to_string();
    let started_by = Some(admin::test_context::StartedBy::Request(admin::TestTrigger { body, headers }));
    Some(admin::TestContext { started_by, ..Default::default() })
}

/// Sends all that came in, and tells all that was answered.
fn request(connection: String, signature: String, url: &str) -> admin::OutgoingRequest {
    admin::OutgoingRequest {
        connection,
        signature,
        // The sender's own credential goes on; it is shown to nobody.
        headers: vec![resources::header("Cookie", "session={{ request.headers.authorization }}")],
        // The destination's answer and the request as rendered go into the event.
        event_parameters: vec![
            resources::parameter("answer", "{{ response.body }}"),
            resources::parameter("answer_headers", "{{ response.headers }}"),
        ],
        retry: Some(admin::RetryPolicy { attempts_max: 1, ..Default::default() }),
        timeout: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
        ..resources::post(url, r#"{"all": {{ request | tojson }}}"#)
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

    /// What senders send: data that flows on to destinations, and is told in no log and no number (K15).
    async fn order(&mut self, path: &str, id: usize) -> u16 {
        let order = Request::post(path, serde_json::json!({ "id": id, "note": SENDER_DATA }).to_string());
        self.trigger(&order.header("authorization", format!("Bearer {SENDER_KEY}")).header("x-note", SENDER_DATA)).await
    }

    /// A connection, and an endpoint that leads to a request with it.
    async fn flow(&mut self, kind: Kind) -> String {
        let Kind { id, scheme, signs, host, .. } = kind;
        let connection = self.acme.connection(id, scheme).await;
        self.said.message(&connection);
        let (connection, signature) = match signs {
            true => (String::new(), connection.name),
            false => (connection.name, String::new()),
        };
        let incoming = self.acme.incoming(id, resources::open()).await;
        let request = request(connection, signature, &format!("https://{host}/{id}?q=1"));
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

    /// Credentials in cURL commands, which are read and not stored: understood, tried and refused.
    async fn commands(&mut self) {
        let mut client = self.client.outgoing_integrations();
        let parse = |command: String| admin::ParseCurlRequest { parent: self.acme.name.clone(), command };
        for command in [
            format!("curl -u 'login:{PARSED_SECRET}' https://crm.example.com/"),
            format!("curl https://crm.example.com/ -d '@{PARSED_SECRET}'"),
        ] {
            self.said.answer(client.parse_curl(parse(command)).await);
        }
        let request = resources::post("https://crm.example.com/", "{}");
        let integration = admin::OutgoingIntegration {
            display_name: "Imported".to_owned(),
            request: Some(admin::OutgoingRequest { webhook_name: "Imported".to_owned(), ..request }),
            ..Default::default()
        };
        let create = admin::CreateOutgoingIntegrationRequest {
            parent: self.acme.name.clone(),
            outgoing_integration: Some(integration),
            ..Default::default()
        };
        let made = client.create_outgoing_integration(create).await.unwrap().into_inner();
        let command =
            format!("curl https://crm.example.com/ -H 'Authorization: Bearer {IMPORTED_SECRET}' --json '{{}}'");
        let import = admin::ImportCurlRequest { name: made.name, command, etag: made.etag, ..Default::default() };
        let mut refused = import.clone();
        refused.command.push_str(" --proxy x");
        self.said.answer(client.import_curl(refused).await);
        let tried = admin::ImportCurlRequest { validate_only: true, ..import.clone() };
        self.said.answer(client.import_curl(tried).await);
        let imported = client.import_curl(import).await;
        assert!(imported.is_ok(), "{imported:?}");
        self.said.answer(imported);
    }

    /// What authors try with each connection: requests that are shown and sent, tokens that are fetched, connections that are stored and
    /// that are not. How many events were told.
    async fn trials(&mut self) -> usize {
        let mut tests = self.client.tests();
        let (parent, mut told) = (self.acme.name.clone(), 0);
        for kind in kinds() {
            let name = format!("{parent}/connections/{}", kind.id);
            let (target, context) = (trial_target(&kind, &name), trial_context());
            let preview = admin::PreviewRequestRequest {
                parent: parent.clone(),
                target: target.clone(),
                context: context.clone(),
            };
            let shown = tests.preview_request(preview).await;
            assert!(shown.is_ok(), "{shown:?}");
            self.said.answer(shown);
            let sending = admin::SendTestRequestRequest {
                parent: parent.clone(),
                target,
                context,
                emit_event: true,
                ..Default::default()
            };
            let sent = tests.send_test_request(sending).await.unwrap().into_inner();
            assert!(!sent.event.is_empty(), "{sent:?}");
            told += 1;
            self.said.message(&sent);
            let update = admin::UpdateResponseEventRequest {
                parent: parent.clone(),
                response_receipt: sent.response_receipt.clone(),
                ..Default::default()
            };
            self.said.answer(tests.update_response_event(update).await);
            let draft = admin::Connection {
                name: name.clone(),
                display_name: kind.id.to_owned(),
                scheme: Some(kind.scheme),
                ..Default::default()
            };
            for which in [Which::Connection(name), Which::Draft(draft)] {
                let target = Some(admin::ConnectionTarget { kind: Some(which) });
                let trying = admin::TestConnectionRequest {
                    parent: parent.clone(),
                    target: target.clone(),
                    ..Default::default()
                };
                let tried = tests.test_connection(trying).await;
                assert!(tried.is_ok(), "{}: {tried:?}", kind.id);
                self.said.answer(tried);
                let retrieving =
                    admin::RetrieveAuthResponseRequest { parent: parent.clone(), target, ..Default::default() };
                // Those that fetch no token are refused.
                self.said.answer(tests.retrieve_auth_response(retrieving).await);
            }
        }
        self.refused_trials().await;
        told
    }

    /// Tests that are refused, each with a secret in hand.
    async fn refused_trials(&mut self) {
        let mut tests = self.client.tests();
        let parent = self.acme.name.clone();
        for scheme in [
            resources::login_password("login", BAD_PASSWORD),
            resources::api_key_header(BAD_SECRET, "bad name", "{{ secret | nope }}"),
            resources::token(&BAD_SECRET.repeat(400)),
        ] {
            let draft =
                admin::Connection { display_name: "Bad".to_owned(), scheme: Some(scheme), ..Default::default() };
            let target = Some(admin::ConnectionTarget { kind: Some(Which::Draft(draft)) });
            let trying = admin::TestConnectionRequest { parent: parent.clone(), target, ..Default::default() };
            let refused = tests.test_connection(trying).await;
            assert!(refused.is_err(), "{refused:?}");
            self.said.answer(refused);
        }
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

    /// Each step of a rotation, refused and taken.
    async fn rotation(&mut self) {
        let (name, field) = (format!("{}/connections/by-header", self.acme.name), "api_key.secret".to_owned());
        let stage = |value: &str, request_id: &str| admin::StageSecretRequest {
            name: name.clone(),
            field: field.clone(),
            value: value.to_owned(),
            request_id: request_id.to_owned(),
            ..Default::default()
        };
        let refused = self.client.secrets().stage_secret(stage(BAD_PASSWORD, "")).await;
        assert!(refused.is_err());
        self.said.answer(refused);
        let id = uuid::Uuid::new_v4().to_string();
        for _ in 0..2 {
            let staged = self.client.secrets().stage_secret(stage(STAGED_SECRET, &id)).await;
            assert!(staged.is_ok());
            self.said.answer(staged);
        }
        let activate = admin::ActivateSecretRequest { name: name.clone(), field, ..Default::default() };
        for active in [true, false] {
            let answer = self.client.secrets().activate_secret(activate.clone()).await;
            assert_eq!(answer.is_ok(), active);
            self.said.answer(answer);
        }
        self.said.answer(self.client.secrets().get_secrets(admin::GetSecretsRequest { name }).await);
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

    /// A token endpoint that refuses the client's secret, and repeats it. The delivery waits.
    async fn a_refused_client(&mut self) {
        let refused = Kind { id: "by-nothing", scheme: kinds::oauth("by-nothing"), ..kinds().remove(0) };
        let path = self.flow(refused).await;
        self.served().await;
        assert_eq!(self.trigger(&Request::post(&path, "{}")).await, 200);
        let told = eventually("the refusal to be told", || async {
            let parent = format!("{}/connections/by-nothing", self.acme.name);
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
        for id in kinds().iter().map(|kind| kind.id).chain(["by-nothing"]) {
            let name = format!("{}/connections/{id}", self.acme.name);
            let request = admin::GetConnectionRequest { name: name.clone() };
            self.said.answer(self.client.connections().get_connection(request).await);
            let request = admin::ListTokenStatesRequest { parent: name, ..Default::default() };
            self.said.answer(self.client.connections().list_token_states(request).await);
        }
        self.said.answer(self.client.master_keys().list_master_keys(admin::ListMasterKeysRequest::default()).await);
    }
}

/// Every secret there is: those that were handed in, and the keys of the installation.
fn canaries(setup: &Setup) -> Vec<Canary> {
    let key = |file: &str| std::fs::read_to_string(setup.folder.join(file)).unwrap().trim().to_owned();
    let master_key = key("master.key").rsplit(':').next().unwrap().to_owned();
    let own = [("admin key", key("admin.key")), ("data plane key", key("data-plane.key")), ("master key", master_key)];
    kinds::secrets().into_iter().chain(own).map(|(name, secret)| Canary::new(name, &secret)).collect()
}

/// K01: a secret field that is added to the contract needs a canary here.
#[test]
fn every_secret_field_of_the_contract_has_a_canary() {
    // A join token is made by the server and of no use after its first: it is hashed, and no configuration.
    let of_a_caller = |field: &&str| *field != "sluice.sync.v1.EnrollDataPlaneRequest.join_token";
    let mut fields: Vec<&str> = sluice_proto::SENSITIVE.iter().copied().filter(of_a_caller).collect();
    let secrets = kinds::secrets();
    let mut tested: Vec<&str> =
        secrets.iter().map(|(name, _)| *name).filter(|name| name.starts_with("sluice.")).collect();
    fields.sort_unstable();
    tested.sort_unstable();
    assert_eq!(fields, tested);
}

/// The search looks where something is to be found, and the secrets were in use.
fn assert_looks_where_something_is(places: &Places, seen: &[Seen]) {
    assert!(places.holds("log", "TRACE") && places.holds("answers", "by-login") && places.holds("metrics", "4xx"));
    assert!(places.holds("running: control-plane.db", "by-login"));
    assert!(places.holds("stopped: inbox.db", "SQLite") || places.holds("inbox: appendonlydir", "RPUSH"));
    // Of the last good files only the name of the master key can be read.
    assert!(places.holds("running: last-good", "first") && !places.holds("running: last-good", "by-login"));
    assert!(places.holds("answers", "TLS"));
    // What the destination told of us is there, without what we were let in with.
    assert!(places.holds("answers", "trial.told") && seen.iter().any(|seen| seen.target.starts_with("/trial-by-url")));
    assert!(places.holds("answers", r#"we got ******"#) && places.holds("answers", "no: ******"));
    let sent = |seen: &Seen| format!("{} {:?} {}\n", seen.target, seen.headers, String::from_utf8_lossy(&seen.body));
    let sent: String = seen.iter().map(sent).collect();
    let known = kinds().into_iter().flat_map(|kind| kind.sent).chain([NEW_SECRET.to_owned(), STAGED_SECRET.to_owned()]);
    for used in known {
        assert!(!Canary::new("used", &used).found_in(&sent).is_empty(), "{used} was never sent");
    }
    assert!(sent.contains(FORWARDED) && !places.holds("answers", FORWARDED));
    assert!(sent.contains("x-ees-auth-hash") && sent.contains("x-signature") && sent.contains("webhook-signature"));
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_go_in_and_never_come_out() {
    let parent = tempfile::tempdir().unwrap();
    let log = parent.path().join("log");
    let destination = kinds::destination().await;
    let mut setup = Setup::on(&parent.path().join("data"));
    let redis = RedisServer::if_asked().await;
    setup.redis = redis.as_ref().map(RedisServer::url);
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
    for kind in kinds() {
        let tries = kind.tries;
        paths.push((scene.flow(kind).await, tries));
    }
    scene.refusals().await;
    scene.commands().await;
    scene.webhooks().await;
    let mut ended = scene.trials().await;
    for (path, tries) in &paths {
        for id in 0..*tries {
            assert_eq!(scene.order(path, id).await, 200);
            ended += 1;
        }
    }
    assert_eq!(scene.trigger(&Request::post(&paths[0].0, "{broken")).await, 400);
    scene.acme.events(ended).await;
    scene.repetitions().await;
    scene.served().await;
    assert_eq!(scene.trigger(&Request::post(&paths[1].0, "{\"id\": 7}")).await, 200);
    scene.acme.events(ended + 1).await;
    scene.rotation().await;
    scene.served().await;
    assert_eq!(scene.trigger(&Request::post(&paths[1].0, "{\"id\": 8}")).await, 200);
    scene.acme.events(ended + 2).await;
    scene.a_refused_client().await;
    let seen = destination.requests();
    scene.read_everything().await;

    let mut places = Places::default();
    let mut telemetry = Places::default();
    telemetry.add("metrics", Numbers::of(setup.health).await.text().as_bytes());
    places.add("metrics", Numbers::of(setup.health).await.text().as_bytes());
    places.add_folder("running", &setup.folder);
    assert!(subject.stop().await.unwrap().success());
    places.add_folder("stopped", &setup.folder);
    if let Some(redis) = &redis {
        places.add_folder("inbox", redis.folder());
    }
    places.add("log", &std::fs::read(&log).unwrap());
    telemetry.add("log", &std::fs::read(&log).unwrap());
    places.add("answers", &scene.said.0);

    assert_eq!(places.leaks(&canaries(&setup)), Vec::<String>::new());
    let data = [Canary::new("sender's data", SENDER_DATA), Canary::new("sender's key", SENDER_KEY)];
    assert_eq!(telemetry.leaks(&data), Vec::<String>::new());
    assert_looks_where_something_is(&places, &seen);
}
