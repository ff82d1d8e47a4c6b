//! The same methods without gRPC: JSON over HTTP/1.1 as `curl` speaks it, and gRPC-Web as browsers do.

use serde_json::{Value, json};
use sluice_proto::admin::v1 as admin;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

use crate::any_call::{AnyMethod, methods};
use crate::world::{ACME, World, within};

/// What came back.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        assert!(self.head.contains("content-type: application/json"), "{}", self.head);
        serde_json::from_slice(&self.body).unwrap()
    }

    fn lines(&self) -> Vec<Value> {
        assert!(self.head.contains("content-type: application/x-ndjson"), "{}", self.head);
        let text = String::from_utf8(self.body.clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn key(world: &World) -> String {
    std::fs::read_to_string(world.folder.path().join("admin.key")).unwrap().trim().to_owned()
}

#[allow(clippy::disallowed_methods)] // a test calls as anybody would
async fn post(world: &World, path: &str, key: Option<&str>, kind: &str, body: &[u8]) -> Answer {
    let mut socket = TcpStream::connect(world.address).await.unwrap();
    let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
    let head = format!(
        "POST /{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{key}content-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    within(socket.read_to_end(&mut answer)).await.unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut rest = &answer[end + 4..];
    let mut body = Vec::new();
    if head.contains("transfer-encoding: chunked") {
        loop {
            let line = rest.windows(2).position(|window| window == b"\r\n").unwrap();
            let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
            if length == 0 {
                break;
            }
            body.extend_from_slice(&rest[line + 2..line + 2 + length]);
            rest = &rest[line + 2 + length + 2..];
        }
    } else {
        body.extend_from_slice(rest);
    }
    Answer { status, head, body }
}

async fn ask(world: &World, method: &str, key: Option<&str>, request: &str) -> Answer {
    post(world, &format!("sluice.admin.v1.{method}"), key, "application/json; charset=utf-8", request.as_bytes()).await
}

#[tokio::test]
async fn resources_are_made_read_and_listed_with_json() {
    let world = World::new().await;
    let key = key(&world);
    let request = json!({
        "parent": ACME,
        "connectionId": "crm",
        "connection": {"displayName": "CRM", "apiKey": {"secret": "s3cret", "headers": [{"name": "x-api-key", "value": "{{secret}}"}]}},
    });
    let made = ask(&world, "ConnectionService/CreateConnection", Some(&key), &request.to_string()).await;
    assert_eq!(made.status, 200, "{}", String::from_utf8_lossy(&made.body));
    assert!(made.head.contains("x-request-id: "), "{}", made.head);
    assert_eq!(made.json()["name"], "workspaces/acme/connections/crm");
    assert!(!String::from_utf8_lossy(&made.body).contains("s3cret"));
    let request = json!({"name": "workspaces/acme/connections/crm"}).to_string();
    let got = ask(&world, "ConnectionService/GetConnection", Some(&key), &request).await.json();
    assert_eq!((&got["displayName"], &got["apiKey"]["secretSet"]), (&json!("CRM"), &json!(true)));
    assert_eq!(got, made.json());
    let listed = ask(&world, "WorkspaceService/ListWorkspaces", Some(&key), "").await.json();
    assert_eq!(listed["workspaces"][0]["name"], ACME);
    // It was the same call as any other: the audit log has it.
    let request = json!({"parent": ACME}).to_string();
    let log = ask(&world, "AuditService/ListAuditEntries", Some(&key), &request).await.json();
    let entry = &log["auditEntries"][0];
    assert_eq!(entry["method"], "sluice.admin.v1.ConnectionService/CreateConnection");
    assert_eq!(entry["sourceAddress"], "127.0.0.1");
}

#[tokio::test]
async fn errors_say_what_grpc_says() {
    let world = World::new().await;
    let key = key(&world);
    let roles = vec!["workspaces/acme/roles/viewer".to_owned()];
    let viewer = admin::AccessKey { display_name: "x".to_owned(), roles, ..Default::default() };
    let create = admin::CreateApiKeyRequest { parent: ACME.to_owned(), api_key: Some(viewer), ..Default::default() };
    let viewer = world.api_keys().create_api_key(create).await.unwrap().into_inner().key;
    let create = "ConnectionService/CreateConnection";
    let broken = r#"{"parent": "workspaces/acme", "connection": {"displayName": 5"#;
    let cases = [
        (None, "{}", 401, "unauthenticated", "API_KEY_INVALID"),
        (Some("x"), "{}", 401, "unauthenticated", "API_KEY_INVALID"),
        // Permission comes before everything, the form of the request included.
        (Some(viewer.as_str()), broken, 403, "permission_denied", "PERMISSION_MISSING"),
        (Some(key.as_str()), broken, 400, "invalid_argument", "CALL_INVALID"),
        (
            Some(key.as_str()),
            r#"{"parent": "workspaces/acme", "secret": "CANARY"}"#,
            400,
            "invalid_argument",
            "CALL_INVALID",
        ),
        (Some(key.as_str()), r#"{"parent": "CANARY"} {}"#, 400, "invalid_argument", "CALL_INVALID"),
        (
            Some(key.as_str()),
            r#"{"parent": "workspaces/nobody", "connection": {}}"#,
            404,
            "not_found",
            "RESOURCE_NOT_FOUND",
        ),
        (
            Some(key.as_str()),
            r#"{"parent": "workspaces/acme", "connection": {}}"#,
            400,
            "invalid_argument",
            "FIELDS_INVALID",
        ),
    ];
    for (key, request, status, code, reason) in cases {
        let answer = ask(&world, create, key, request).await;
        let error = answer.json();
        assert_eq!((answer.status, &error["code"]), (status, &json!(code)), "{request}: {error}");
        assert_eq!(error["details"][0]["debug"]["reason"], reason, "{request}: {error}");
        assert!(!error.to_string().contains("CANARY"), "{error}");
    }
    let error = ask(&world, create, Some(&key), r#"{"parent": "workspaces/acme", "connection": {}}"#).await.json();
    assert_eq!(error["details"][1]["debug"]["fieldViolations"][0]["field"], "display_name", "{error}");
    let unknown = ask(&world, "ConnectionService/DropEverything", Some(&key), "{}").await;
    assert_eq!((unknown.status, &unknown.json()["code"]), (403, &json!("permission_denied")));
    let stream = post(&world, "sluice.sync.v1.SyncService/Sync", Some(&key), "application/json", b"{}").await;
    assert_eq!((stream.status, &stream.json()["code"]), (501, &json!("unimplemented")));
    let large = format!(r#"{{"name": "{}"}}"#, "x".repeat(4 << 20));
    let large = ask(&world, "ConnectionService/GetConnection", Some(&key), &large).await;
    assert_eq!(large.status, 400);
}

/// There is no second way to do anything: every method answers JSON with the code that it answers gRPC with.
#[tokio::test]
async fn every_method_answers_json_as_it_answers_grpc() {
    let world = World::new().await;
    let key = key(&world);
    for method in methods().into_iter().filter(AnyMethod::is_unary) {
        let request =
            method.smallest(if method.path().contains("WorkspaceService") { ACME } else { "workspaces/acme/x/y" });
        let by_grpc = method.call(world.channel(), Some(&key), &request).await;
        let by_json =
            post(&world, &method.path(), Some(&key), "application/json", request.to_string().as_bytes()).await;
        match by_grpc {
            Ok(_) => assert_eq!(by_json.status, 200, "{}", method.path()),
            Err(status) => {
                let error = by_json.json();
                assert_eq!(error["message"], status.message(), "{}", method.path());
                assert_ne!(by_json.status, 200, "{}", method.path());
                assert_ne!(status.code(), Code::Internal, "{}", method.path());
            }
        }
    }
}

#[tokio::test]
async fn what_is_watched_comes_line_by_line() {
    let world = World::new().await;
    let key = key(&world);
    let request = json!({"parent": ACME, "filter": {"workflow": "workspaces/acme/workflows/none"}}).to_string();
    let started = ask(&world, "DeliveryService/ReplayDeliveries", Some(&key), &request).await.json();
    let request = json!({"name": started["operation"]}).to_string();
    let lines = ask(&world, "OperationService/WatchOperation", Some(&key), &request).await.lines();
    let last = lines.last().unwrap();
    assert_eq!((&last["name"], &last["state"]), (&started["operation"], &json!("SUCCEEDED")), "{lines:?}");
    let missing = json!({"name": "workspaces/acme/operations/none"}).to_string();
    assert_eq!(ask(&world, "OperationService/WatchOperation", Some(&key), &missing).await.status, 404);
}

#[tokio::test]
async fn browsers_speak_grpc_web() {
    let world = World::new().await;
    let key = key(&world);
    let list = "sluice.admin.v1.WorkspaceService/ListWorkspaces";
    let answer = post(&world, list, Some(&key), "application/grpc-web+proto", &[0; 5]).await;
    assert_eq!(answer.status, 200);
    let body = String::from_utf8_lossy(&answer.body);
    assert!(body.contains(ACME) && body.contains("grpc-status:0"), "{body:?}");
    let refused = post(&world, list, None, "application/grpc-web+proto", &[0; 5]).await;
    assert!(refused.head.contains("grpc-status: 16"), "{}", refused.head);
    // A page of another origin gets no leave (A19).
    assert!(!answer.head.contains("access-control-allow-origin"), "{}", answer.head);
}
