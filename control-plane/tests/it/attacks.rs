//! What an attacker sends who has a key, or nearly one: to every method of the contract (A03, A04, A06, A20, A21).

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use sluice_proto::admin::v1 as admin;
use sluice_proto::admin::v1::workspace_service_client::WorkspaceServiceClient;
use tonic::metadata::{BinaryMetadataValue, MetadataValue};
use tonic::{Code, Request};

use crate::any_call::{AnyMethod, methods, put, put_choosing};
use crate::matrix::{REQUESTS, furnish, lines};
use crate::world::{ACME, World, refusal};

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
    methods().into_iter().filter(|method| !method.takes_stream())
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

#[tokio::test]
async fn a20_no_deadline_of_a_caller_is_longer_than_the_servers() {
    let world = World::new().await;
    let mut request = Request::new(admin::ListWorkspacesRequest::default());
    let bearer = MetadataValue::try_from(format!("Bearer {}", key(&world))).unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request.metadata_mut().insert("grpc-timeout", MetadataValue::from_static("99999999H"));
    WorkspaceServiceClient::new(world.channel()).list_workspaces(request).await.unwrap();
    let limits = sluice_control_plane::Limits::default();
    assert_eq!(limits.call_time, Duration::from_secs(30));
}
