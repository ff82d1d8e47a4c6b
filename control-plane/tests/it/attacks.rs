//! What an attacker sends who has a key, or nearly one: to every method of the contract (A03, A04, A06, A07, A20, A21), and what data
//! planes do that do not behave (A17, A18). Where each row of the table has its tests: `tests/golden/access/attacks.jsonl`.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use serde_json::{Value, json};
use sluice_control_plane::{Clock, Limits, Settings};
use sluice_proto::admin::v1::audit_service_client::AuditServiceClient;
use sluice_proto::admin::v1::workspace_service_client::WorkspaceServiceClient;
use sluice_proto::admin::v1::{self as admin, AuditOutcome, ErrorReason};
use sluice_proto::sync::v1::sync_request::Kind;
use sluice_proto::sync::v1::sync_service_client::SyncServiceClient;
use sluice_proto::sync::v1::{Hello, SyncRequest, SyncResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{BinaryMetadataValue, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Streaming};

use crate::any_call::{AnyMethod, methods, put, put_choosing};
use crate::matrix::{REQUESTS, furnish, lines};
use crate::outsider::Outsider;
use crate::sync::{DataPlane, resources};
use crate::world::{ACME, RING, START, World, refusal, settings, within};

/// Texts that are put wherever a text can stand.
const TEXTS: &str = "../tests/golden/access/texts.jsonl";

fn key(world: &World) -> String {
    std::fs::read_to_string(world.folder.path().join("admin.key")).unwrap().trim().to_owned()
}

fn about(method: &AnyMethod) -> Value {
    method.smallest(if method.path().contains("WorkspaceService") { ACME } else { "workspaces/acme/x/y" })
}

/// The methods that an administrator may call, once each.
fn callable() -> impl Iterator<Item = AnyMethod> {
    methods().into_iter().filter(|method| !method.takes_stream() && !method.path().starts_with("sluice.sync."))
}

/// What a refusal may be called; anything else is a defect of the server.
fn is_fair(code: Code) -> bool {
    [
        Code::InvalidArgument,
        Code::NotFound,
        Code::AlreadyExists,
        Code::FailedPrecondition,
        Code::OutOfRange,
        Code::PermissionDenied,
        Code::Aborted,
    ]
    .contains(&code)
}

#[tokio::test]
async fn a06_a21_no_text_breaks_any_method_wherever_it_stands() {
    let world = World::new().await;
    let key = key(&world);
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(TEXTS)).unwrap();
    for row in text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let times = row.get("times").map_or(1, |times| usize::try_from(times.as_u64().unwrap()).unwrap());
        let text = row["text"].as_str().unwrap().repeat(times);
        for method in callable() {
            // What is very long is put into the first places only: each is measured by the same code.
            let places = if times > 100_000 { 3 } else { usize::MAX };
            for path in method.texts().into_iter().take(places) {
                let mut request = about(&method);
                put_choosing(&method.input(), &mut request, &path, json!(text));
                if let Err(status) = method.call(world.channel(), Some(&key), &request).await {
                    let place = format!("{} in {} of {}", row["what"], path.join("."), method.path());
                    assert!(is_fair(status.code()), "{place}: {status:?}");
                    assert!(status.message().len() < 2048, "{place}");
                }
            }
        }
    }
    world.revision("acme").await;
}

#[tokio::test]
async fn a06_no_bytes_break_any_method() {
    let world = World::new().await;
    let key = key(&world);
    let deep: Vec<u8> = (0..200).fold(Vec::new(), |inner, _| {
        let mut outer = vec![0x0a];
        prost::encoding::encode_varint(inner.len() as u64, &mut outer);
        [outer, inner].concat()
    });
    let repeated = [0x1a, 0x00].repeat(100_000);
    let payloads: [(&str, Vec<u8>); 7] = [
        ("an unknown field", vec![0xf8, 0x7f, 0x01]),
        ("a number in place of the first field", vec![0x08, 0x01]),
        ("a text that is none", vec![0x0a, 0x02, 0xff, 0xfe]),
        ("a length beyond the end", vec![0x0a, 0x7f, 0x61]),
        ("a tag without an end", vec![0xff; 11]),
        ("messages 200 deep", deep),
        ("100,000 empty items", repeated),
    ];
    for method in callable() {
        for (what, payload) in &payloads {
            let answer = method.call_with(world.channel(), Some(&key), Bytes::from(payload.clone())).await;
            if let Err(status) = answer {
                assert!(is_fair(status.code()), "{what} to {}: {status:?}", method.path());
            }
        }
    }
    world.revision("acme").await;
}

#[tokio::test]
async fn a03_a_page_token_is_good_for_its_own_list_and_caller_alone() {
    let world = World::new().await;
    let key = key(&world);
    world.workspace("rival").await;
    for id in ["one", "two"] {
        world.connection(id, "s3cret").await;
    }
    let request = admin::ListConnectionsRequest { parent: ACME.to_owned(), page_size: 1, ..Default::default() };
    let good = world.connections().list_connections(request).await.unwrap().into_inner().next_page_token;
    let sealed = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&good).unwrap();
    assert!(!sealed.windows(3).any(|part| part == b"one" || part == b"two"), "a token shows nothing");
    let (cut, longer) = (good[..good.len() - 4].to_owned(), format!("{good}AAAA"));
    let tokens = ["AAAA", "'; DROP TABLE x;--", &good, &cut, &longer, &"A".repeat(1 << 20)];
    let mut lists = 0;
    for method in callable().filter(|method| method.input().get_field_by_name("page_token").is_some()) {
        for token in tokens {
            let mut request = method.smallest("workspaces/rival");
            put(&mut request, &["page_token".to_owned()], json!(token));
            let refused = method.call(world.channel(), Some(&key), &request).await.unwrap_err();
            // A list within something that is not there is told first.
            let expected = (Code::InvalidArgument, "PAGE_TOKEN_INVALID".to_owned());
            let absent = matches!(refused.code(), Code::NotFound) || refusal(&refused).1 == "FIELDS_INVALID";
            assert!(absent || refusal(&refused) == expected, "{} with {token:.40}: {refused:?}", method.path());
            lists += i32::from(!absent);
        }
    }
    assert!(lists >= 60, "{lists}");
}

#[tokio::test]
async fn a03_no_mask_reaches_what_callers_do_not_change() {
    let world = World::new().await;
    let key = key(&world);
    furnish(&world, ACME, "ours", "Ours").await;
    let made = admin::CreateApiKeyRequest {
        parent: ACME.to_owned(),
        api_key: Some(admin::AccessKey { display_name: "CI".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let made = world.api_keys().create_api_key(made).await.unwrap().into_inner().name;
    let mut asked = 0;
    for method in callable().filter(|method| method.input().get_field_by_name("update_mask").is_some()) {
        let row = lines(REQUESTS).into_iter().find(|row| row["method"] == json!(method.path())).unwrap();
        let request = row["request"].to_string().replace("{key}", &made);
        for path in ["secret", "apiKey.secret", "uid", "etag", "createTime", "name", "noSuchField"] {
            let mut request: Value = serde_json::from_str(&request).unwrap();
            put(&mut request, &["update_mask".to_owned()], json!(path));
            let refused = method.call(world.channel(), Some(&key), &request).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{} with {path}: {refused:?}", method.path());
            asked += 1;
        }
    }
    assert!(asked >= 49, "{asked}");
}

#[tokio::test]
async fn a04_a_key_is_taken_from_one_place_only() {
    let world = World::new().await;
    let good = format!("Bearer {}", key(&world));
    let list = async |change: &dyn Fn(&mut Request<admin::ListWorkspacesRequest>)| {
        let mut request = Request::new(admin::ListWorkspacesRequest::default());
        change(&mut request);
        WorkspaceServiceClient::new(world.channel()).list_workspaces(request).await.map(drop)
    };
    let text = |value: &str| MetadataValue::try_from(value).unwrap();
    list(&|request| drop(request.metadata_mut().insert("authorization", text(&good)))).await.unwrap();
    let binary = BinaryMetadataValue::from_bytes(good.as_bytes());
    for refused in [
        list(&|request| drop(request.metadata_mut().insert_bin("authorization-bin", binary.clone()))).await,
        list(&|request| drop(request.metadata_mut().insert("api-key", text(&good)))).await,
        list(&|request| drop(request.metadata_mut().insert("cookie", text(&format!("authorization={good}"))))).await,
        list(&|request| {
            request.metadata_mut().append("authorization", text(&good));
            request.metadata_mut().append("authorization", text(&good));
        })
        .await,
        list(&|request| drop(request.metadata_mut().insert("authorization", text(&format!("{good}, {good}"))))).await,
        list(&|request| drop(request.metadata_mut().insert("authorization", text(&format!("{good} "))))).await,
    ] {
        assert_eq!(refusal(&refused.unwrap_err()), (Code::Unauthenticated, "API_KEY_INVALID".to_owned()));
    }
}

/// A world with limits of its own.
async fn under(limits: Limits) -> World {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("master.key"), RING).unwrap();
    let settings = settings(folder.path(), &Clock::manual(START));
    World::start_with(folder, Settings { limits, ..settings }).await
}

fn create_beta() -> admin::CreateWorkspaceRequest {
    let workspace = admin::Workspace { display_name: "Beta".to_owned(), ..Default::default() };
    admin::CreateWorkspaceRequest { workspace_id: "beta".to_owned(), workspace: Some(workspace), ..Default::default() }
}

#[tokio::test]
async fn a20_no_deadline_of_a_caller_is_longer_than_the_servers() {
    assert_eq!(Limits::default().call_time, Duration::from_secs(30));
    let world = under(Limits { call_time: Duration::from_millis(300), ..Limits::default() }).await;
    // Somebody else writes, and does not end: a change waits for its turn.
    let database = Outsider::of(&world).await;
    database.hold().await;
    let client = world.workspaces();
    let call = tokio::spawn(async move {
        let mut client = client;
        let mut request = Request::new(create_beta());
        request.metadata_mut().insert("grpc-timeout", MetadataValue::from_static("99999999H"));
        client.create_workspace(request).await
    });
    // The entry of the refusal waits for the same turn.
    tokio::time::sleep(Duration::from_millis(600)).await;
    database.let_go().await;
    let refused = within(call).await.unwrap().unwrap_err();
    assert_eq!(refusal(&refused), (Code::DeadlineExceeded, "TOOK_TOO_LONG".to_owned()));
    // What was given up left nothing, and can be done now.
    world.workspaces().create_workspace(create_beta()).await.unwrap();
    let entries = world.entries("").await;
    let told: Vec<_> = entries.iter().map(|entry| (entry.outcome(), entry.reason())).collect();
    let expected = [(AuditOutcome::Done, ErrorReason::Unspecified), (AuditOutcome::Refused, ErrorReason::TookTooLong)];
    assert_eq!(told, expected, "{entries:?}");
}

#[tokio::test]
async fn a20_who_hangs_up_inside_a_change_leaves_nothing_of_it() {
    let world = World::new().await;
    let database = Outsider::of(&world).await;
    database.hold().await;
    let mut client = world.workspaces();
    let mut request = Request::new(create_beta());
    request.set_timeout(Duration::from_millis(200));
    let refused = within(client.create_workspace(request)).await.unwrap_err();
    assert!([Code::Cancelled, Code::DeadlineExceeded].contains(&refused.code()), "{refused:?}");
    // What comes behind it on the same line is answered when the server has heard of it; a change it has not heard of is made.
    client.get_workspace(admin::GetWorkspaceRequest { name: ACME.to_owned() }).await.unwrap();
    database.let_go().await;
    // The writer is free again, nothing of it is there, and no entry says that it was done.
    let made = world.workspaces().create_workspace(create_beta()).await.unwrap().into_inner();
    let entries = world.log_of("beta").await;
    assert_eq!(entries.iter().filter(|entry| entry.outcome() == AuditOutcome::Done).count(), 1, "{entries:?}");
    assert_eq!(made.revision, 0);
}

impl World {
    async fn entries(&self, parent: &str) -> Vec<admin::AuditEntry> {
        let request = admin::ListAuditEntriesRequest { parent: parent.to_owned(), ..Default::default() };
        let mut client = AuditServiceClient::with_interceptor(self.channel(), self.admin.clone());
        client.list_audit_entries(request).await.unwrap().into_inner().audit_entries
    }

    /// What is written of a workspace: in the server's log, which has its making, and in its own.
    async fn log_of(&self, id: &str) -> Vec<admin::AuditEntry> {
        let name = format!("workspaces/{id}");
        let mut entries = self.entries(&name).await;
        entries.extend(self.entries("").await.into_iter().filter(|entry| entry.resource == name));
        entries
    }
}

#[tokio::test]
async fn a06_five_megabytes_are_too_much_for_any_method() {
    let world = World::new().await;
    let key = key(&world);
    // One unknown field, so that it could be of any method.
    let mut payload = Vec::new();
    prost::encoding::bytes::encode(500, &vec![0_u8; 5 << 20], &mut payload);
    for method in callable() {
        let answer = method.call_with(world.channel(), Some(&key), Bytes::from(payload.clone())).await;
        let refused = answer.unwrap_err();
        assert_eq!(refusal(&refused), (Code::OutOfRange, "CALL_INVALID".to_owned()), "{}", method.path());
        assert!(refused.message().contains("4194304 bytes"), "{}", refused.message());
    }
    world.revision("acme").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a07_of_two_updates_with_one_etag_one_is_aborted() {
    let world = World::new().await;
    furnish(&world, ACME, "ours", "Ours").await;
    let key = key(&world);
    let mut kinds = 0;
    for method in callable().filter(|method| method.path().contains("/Update")) {
        let Some(path) = method.resource() else { continue };
        let get = method.path().replace("/Update", "/Get");
        // What a test found is added to an event's definition, which has an Update of its own.
        let Some(get) = methods().into_iter().find(|method| method.path() == get) else { continue };
        let row = lines(REQUESTS).into_iter().find(|row| row["method"] == json!(method.path())).unwrap();
        let mut request = row["request"].clone();
        let [document, _] = path.as_slice() else { continue };
        let name = request[document]["name"].as_str().unwrap().to_owned();
        if name.contains("{key}") {
            continue;
        }
        let before = get.call(world.channel(), Some(&key), &json!({ "name": name })).await.unwrap();
        request[document]["etag"] = get.answer(&before)["etag"].clone();
        request["validate_only"] = json!(false);
        let call = |display_name: &str| {
            let mut request = request.clone();
            request[document]["display_name"] = json!(display_name);
            let (method, channel, key) = (method.clone(), world.channel(), key.clone());
            tokio::spawn(async move { method.call(channel, Some(&key), &request).await })
        };
        let (one, other) = (call("One"), call("Other"));
        let mut codes = [one, other].map(Some);
        let mut answers = Vec::new();
        for call in &mut codes {
            answers.push(within(call.take().unwrap()).await.unwrap().map_or_else(|status| status.code(), |_| Code::Ok));
        }
        answers.sort_by_key(|code| *code as i32);
        assert_eq!(answers, [Code::Ok, Code::Aborted], "{}", method.path());
        kinds += 1;
    }
    assert!(kinds >= 9, "{kinds}");
}

#[tokio::test]
async fn a07_what_a_published_workflow_uses_is_not_deleted() {
    let world = World::new().await;
    furnish(&world, ACME, "ours", "Ours").await;
    for collection in ["connections", "incomingIntegrations", "outgoingIntegrations"] {
        let name = format!("{ACME}/{collection}/ours");
        let method = callable().find(|method| {
            method.path().contains("/Delete")
                && method.path().to_lowercase().ends_with(&collection[..collection.len() - 1].to_lowercase())
        });
        let key = key(&world);
        let refused = method.unwrap().call(world.channel(), Some(&key), &json!({ "name": name })).await.unwrap_err();
        assert_eq!(refusal(&refused), (Code::FailedPrecondition, "RESOURCE_IN_USE".to_owned()), "{collection}");
    }
}

/// Saves the draft of both under one number.
async fn save_both(world: &World, names: &[String; 2], number: u32) {
    for name in names {
        let document = admin::OutgoingIntegration {
            name: name.clone(),
            display_name: format!("number {number}"),
            ..crate::world::outgoing("")
        };
        let request =
            admin::UpdateOutgoingIntegrationRequest { outgoing_integration: Some(document), ..Default::default() };
        world.outgoing().update_outgoing_integration(request).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a07_what_is_published_together_is_served_together_while_authors_go_on() {
    const PUBLISHES: i64 = 12;
    let world = World::new().await;
    let names = ["one", "two"];
    let names =
        [world.outgoing_integration(names[0], "").await.name, world.outgoing_integration(names[1], "").await.name];
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    plane.sync().await;
    let drafts = names.clone().map(|name| admin::DraftToPublish { name, etag: String::new() });
    let publishing =
        admin::PublishDraftsRequest { parent: ACME.to_owned(), drafts: drafts.to_vec(), ..Default::default() };
    // Both are saved before each publish, and one of them again while it goes on.
    let authors = async {
        for number in 0..u32::try_from(PUBLISHES).unwrap() {
            save_both(&world, &names, number * 2).await;
            let mut publisher = world.configuration();
            let (published, ()) =
                tokio::join!(publisher.publish_drafts(publishing.clone()), save_both(&world, &names, number * 2 + 1));
            published.unwrap();
        }
    };
    let watching = async {
        let mut seen = 0;
        while plane.held.get(ACME).is_none_or(|held| held.revision < PUBLISHES) {
            let heard = plane.hear().await;
            if let Some(workspace) = plane.take(&heard) {
                plane.ack(&workspace).await;
                let versions: Vec<_> = resources(&plane, ACME).values().map(|one| one.version).collect();
                assert_eq!(versions.len(), 2);
                assert_eq!(versions[0], versions[1], "half of a publish is served");
                seen += 1;
            }
        }
        seen
    };
    let ((), seen) = within(async { tokio::join!(authors, watching) }).await;
    assert!(seen > 1, "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a17_a_data_plane_that_reads_nothing_is_ended_and_gets_the_newest_when_it_returns() {
    const PLANES: usize = 12;
    const WORKSPACES: usize = 12;
    let patience = Duration::from_millis(300);
    let world = under(Limits { watcher_patience: patience, ..Limits::default() }).await;
    // More than a stream takes without its reader: one message for each workspace, and no second one before the first is answered.
    for number in 0..WORKSPACES {
        let workspace = format!("acme-{number}");
        world.workspace(&workspace).await;
        let mut document = crate::world::outgoing("");
        let request = document.request.as_mut().unwrap();
        request.template_mode = admin::TemplateMode::Exact.into();
        request.body = Some("x".repeat(60_000));
        let request = admin::CreateOutgoingIntegrationRequest {
            parent: format!("workspaces/{workspace}"),
            outgoing_integration: Some(document),
            ..Default::default()
        };
        let name = world.outgoing().create_outgoing_integration(request).await.unwrap().into_inner().name;
        world.publish_outgoing(&name).await.unwrap();
    }
    let mut deaf = Vec::new();
    for number in 0..PLANES {
        deaf.push(Deaf::connect(&world, &format!("deaf-{number}")).await);
    }
    // All of them are let go, without one of them having read.
    within(async {
        while connected(&world).await > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // One comes back and gets everything as it is now, at once.
    drop(deaf);
    let mut plane = DataPlane::connect(&world, "deaf-0", "", &[]).await;
    plane.sync().await;
    assert_eq!(plane.held.values().map(|held| held.revision).collect::<Vec<_>>(), [1; WORKSPACES]);
    assert_eq!(connected(&world).await, 1);
}

async fn connected(world: &World) -> usize {
    let request = admin::ListDataPlanesRequest::default();
    let planes = world.data_planes().list_data_planes(request).await.unwrap().into_inner().data_planes;
    planes.into_iter().filter(|plane| plane.connected).count()
}

/// A data plane on a connection of its own that says hello and reads nothing.
struct Deaf {
    _say: mpsc::Sender<SyncRequest>,
    _hear: Streaming<SyncResponse>,
}

impl Deaf {
    async fn connect(world: &World, id: &str) -> Self {
        let (say, said) = mpsc::channel(1);
        let hello = Hello { data_plane_id: id.to_owned(), ..Hello::default() };
        say.send(SyncRequest { kind: Some(Kind::Hello(hello)) }).await.unwrap();
        // As little as HTTP/2 lets a receiver take without its reader.
        let endpoint = Channel::from_shared(format!("http://{}", world.address)).unwrap();
        let channel = endpoint.initial_stream_window_size(65_535).connect().await.unwrap();
        let mut client = SyncServiceClient::with_interceptor(channel, world.plane.clone());
        let hear = within(client.sync(ReceiverStream::new(said))).await.unwrap().into_inner();
        Self { _say: say, _hear: hear }
    }
}

#[tokio::test]
async fn a18_of_many_that_come_back_at_once_some_are_told_to_come_later() {
    let world = under(Limits { stream_starts_per_second: 2, ..Limits::default() }).await;
    let mut begun = Vec::new();
    let (mut turned_away, mut later) = (0, 0);
    // As fast as they come, until some were turned away and one that came later was not.
    while later == 0 {
        let (say, said) = mpsc::channel::<SyncRequest>(1);
        match within(world.sync().sync(ReceiverStream::new(said))).await {
            Ok(answers) => {
                begun.push((say, answers));
                later += usize::from(turned_away > 0);
            }
            Err(refused) => {
                assert_eq!(refusal(&refused), (Code::ResourceExhausted, "OVERLOADED".to_owned()));
                assert!(refused.message().contains("`stream_starts_per_second`"), "{}", refused.message());
                assert!(crate::world::details(&refused).retry_info().is_some());
                turned_away += 1;
            }
        }
    }
    assert!(begun.len() > 2, "so many at once");
}
