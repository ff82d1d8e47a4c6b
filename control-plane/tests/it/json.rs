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

async fn post(world: &World, path: &str, key: Option<&str>, kind: &str, body: &[u8]) -> Answer {
    send(world, "POST", &format!("/{path}"), key, Some(kind), body).await
}

/// A call by its path; a body is JSON.
async fn rest(world: &World, verb: &str, path: &str, key: Option<&str>, body: &str) -> Answer {
    send(world, verb, path, key, Some("application/json").filter(|_| !body.is_empty()), body.as_bytes()).await
}

#[allow(clippy::disallowed_methods)] // a test calls as anybody would
async fn send(world: &World, verb: &str, path: &str, key: Option<&str>, kind: Option<&str>, body: &[u8]) -> Answer {
    let mut socket = TcpStream::connect(world.address).await.unwrap();
    let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
    let kind = kind.map(|kind| format!("content-type: {kind}\r\n")).unwrap_or_default();
    let head = format!(
        "{verb} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{key}{kind}content-length: {}\r\n\r\n",
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
    assert_eq!((unknown.status, &unknown.json()["code"]), (501, &json!("unimplemented")));
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
async fn resources_have_paths() {
    let world = World::new().await;
    let key = key(&world);
    let key = Some(key.as_str());
    let crm = "/v1/workspaces/acme/connections/crm";
    let connection = r#"{"displayName": "CRM", "apiKey": {"secret": "s3cret", "headers": [{"name": "x-api-key", "value": "{{secret}}"}]}}"#;
    let create = "/v1/workspaces/acme/connections?connection_id=crm";
    let tried = rest(&world, "POST", &format!("{create}&validate_only=true"), key, connection).await;
    assert_eq!(tried.status, 200, "{}", tried.json());
    assert_eq!(rest(&world, "GET", crm, key, "").await.status, 404, "it was only tried");
    let made = rest(&world, "POST", create, key, connection).await;
    assert_eq!((made.status, &made.json()["name"]), (200, &json!("workspaces/acme/connections/crm")));
    assert!(made.head.contains("x-request-id: "), "{}", made.head);
    assert_eq!(rest(&world, "GET", crm, key, "").await.json(), made.json());
    let body = r#"{"displayName": "Changed"}"#;
    let changed = rest(&world, "PATCH", &format!("{crm}?updateMask=display_name"), key, body).await.json();
    assert_eq!((&changed["displayName"], &changed["apiKey"]["secretSet"]), (&json!("Changed"), &json!(true)));
    let list = "/v1/workspaces/acme/connections?page_size=1&filter=display_name%20%3D%20%22Changed%22";
    let listed = rest(&world, "GET", list, key, "").await.json();
    assert_eq!(listed["connections"], json!([changed]), "{listed}");
    assert_eq!(rest(&world, "DELETE", &format!("{crm}?etag=stale"), key, "").await.status, 409);
    assert_eq!(rest(&world, "DELETE", crm, key, "").await.status, 200);
    let back = rest(&world, "POST", &format!("{crm}:undelete"), key, "{}").await.json();
    assert_eq!(back["displayName"], "Changed");
    // The log names the method, whichever way it was called.
    let log = rest(&world, "GET", "/v1/workspaces/acme/auditEntries?page_size=1", key, "").await.json();
    assert_eq!(log["auditEntries"][0]["method"], "sluice.admin.v1.ConnectionService/UndeleteConnection");
    // What belongs to no workspace has paths too.
    for path in ["/v1/workspaces", "/v1/roles", "/v1/apiKeys", "/v1/auditEntries", "/v1/dataPlanes", "/v1/masterKeys"] {
        assert_eq!(rest(&world, "GET", path, key, "").await.status, 200, "{path}");
    }
}

/// An error is a `google.rpc.Status`; permission comes before everything but the path itself.
#[tokio::test]
async fn paths_refuse_as_grpc_does() {
    let world = World::new().await;
    let key = key(&world);
    let key = Some(key.as_str());
    let list = "/v1/workspaces/acme/connections";
    for (verb, path, key, body, status, code, reason) in [
        ("GET", "/v1/nothing", key, "", 404, Code::NotFound, "CALL_INVALID"),
        ("GET", "/v1/workspaces/acme/connections/crm:drop", None, "", 404, Code::NotFound, "CALL_INVALID"),
        ("PUT", list, key, "{}", 405, Code::Unimplemented, "CALL_INVALID"),
        ("GET", list, None, "", 401, Code::Unauthenticated, "API_KEY_INVALID"),
        ("GET", "/v1/workspaces/acme/connections?wrong=1", None, "", 401, Code::Unauthenticated, "API_KEY_INVALID"),
        ("GET", "/v1/workspaces/acme/connections?wrong=1", key, "", 400, Code::InvalidArgument, "CALL_INVALID"),
        ("GET", list, key, "{}", 400, Code::InvalidArgument, "CALL_INVALID"),
        ("POST", list, key, r#"{"secret": "CANARY"}"#, 400, Code::InvalidArgument, "CALL_INVALID"),
        ("POST", list, key, "{}", 400, Code::InvalidArgument, "FIELDS_INVALID"),
        ("GET", "/v1/workspaces/acme/connections/none", key, "", 404, Code::NotFound, "RESOURCE_NOT_FOUND"),
    ] {
        let answer = rest(&world, verb, path, key, body).await;
        let error = answer.json();
        assert_eq!((answer.status, &error["code"]), (status, &json!(i32::from(code))), "{verb} {path}: {error}");
        let info = &error["details"][0];
        assert_eq!(info["@type"], "type.googleapis.com/google.rpc.ErrorInfo", "{error}");
        assert_eq!((&info["reason"], &info["domain"]), (&json!(reason), &json!("sluice.dev")), "{error}");
        assert!(!error.to_string().contains("CANARY"), "{error}");
    }
    let wrong = rest(&world, "GET", "/v1/workspaces?wrong=1", key, "").await.json();
    assert_eq!(wrong["message"], "there is no query parameter `wrong` here");
    assert!(rest(&world, "PUT", list, key, "{}").await.head.contains("allow: get, post"));
    let broken = rest(&world, "POST", list, key, "{}").await.json();
    assert_eq!(broken["details"][1]["@type"], "type.googleapis.com/google.rpc.BadRequest", "{broken}");
    assert_eq!(broken["details"][1]["fieldViolations"][0]["field"], "display_name", "{broken}");
    let form = send(&world, "POST", list, key, Some("application/x-www-form-urlencoded"), b"{}").await;
    assert_eq!(
        (form.status, form.json()["message"].as_str()),
        (400, Some("a body is JSON: `content-type: application/json`"))
    );
    let large = format!(r#"{{"displayName": "{}"}}"#, "x".repeat(4 << 20));
    assert_eq!(rest(&world, "POST", list, key, &large).await.status, 400);
}

/// Every path of the contract answers as its method does.
#[tokio::test]
async fn every_path_answers_as_its_method() {
    let world = World::new().await;
    let key = key(&world);
    // What only data planes call has no path.
    let methods = methods().into_iter().filter(|method| !method.path().starts_with("sluice.sync."));
    for method in methods.filter(AnyMethod::is_unary) {
        let bindings = method.bindings();
        assert!(!bindings.is_empty(), "{} has no path", method.path());
        for binding in bindings {
            let written = binding.path.replace('*', "x");
            let (path, said) = match (written.find('{'), written.find('}')) {
                (Some(start), Some(end)) => {
                    let (field, value) = written[start + 1..end].split_once('=').unwrap();
                    (format!("{}{value}{}", &written[..start], &written[end + 1..]), Some((field, value)))
                }
                _ => (written.clone(), None),
            };
            let mut request = method.smallest(said.map_or("", |(_, value)| value));
            let (mut path, mut body) = (path, String::new());
            match binding.body.as_str() {
                "*" => body = request.to_string(),
                field => {
                    if !field.is_empty() {
                        request[field] = if request[field].is_null() { json!({}) } else { request[field].take() };
                        body = request[field].to_string();
                    }
                    let query = ["validate_only=true", "timeout=0s"];
                    let named = query.iter().filter(|one| !request[one.split('=').next().unwrap()].is_null());
                    path = format!("{path}?{}", named.copied().collect::<Vec<_>>().join("&"));
                }
            }
            let by_grpc = method.call(world.channel(), Some(&key), &request).await;
            let by_path = rest(&world, &binding.verb.to_uppercase(), &path, Some(&key), &body).await;
            match by_grpc {
                Ok(_) => assert_eq!(by_path.status, 200, "{path}: {}", by_path.json()),
                Err(status) => {
                    let error = by_path.json();
                    let expected = (&json!(status.message()), &json!(i32::from(status.code())));
                    assert_eq!((&error["message"], &error["code"]), expected, "{} {path}", method.path());
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_watched_by_its_path_comes_line_by_line() {
    let world = World::new().await;
    let key = key(&world);
    let key = Some(key.as_str());
    let body = json!({"filter": {"workflow": "workspaces/acme/workflows/none"}}).to_string();
    let started = rest(&world, "POST", "/v1/workspaces/acme/deliveries:replay", key, &body).await.json();
    let name = started["operation"].as_str().unwrap();
    let lines = rest(&world, "GET", &format!("/v1/{name}:watch"), key, "").await.lines();
    assert_eq!(lines.last().unwrap()["state"], "SUCCEEDED", "{lines:?}");
    let missing = rest(&world, "GET", "/v1/workspaces/acme/operations/none:watch", key, "").await;
    assert_eq!((missing.status, &missing.json()["code"]), (404, &json!(5)));
}

/// R126: one message is the stream, and its answers are lines.
#[tokio::test]
async fn members_of_an_audience_come_in_one_message() {
    let world = World::new().await;
    let key = key(&world);
    let outgoing = world.outgoing_integration("send", "").await.name;
    world.publish_outgoing(&outgoing).await.unwrap();
    let audience = Some(admin::AudienceTrigger {});
    let workflow = admin::Workflow {
        triggers: vec![admin::Trigger { audience, ..Default::default() }],
        ..crate::world::workflow("", &outgoing)
    };
    let parent = ACME.to_owned();
    let workflow_id = "segment".to_owned();
    let request = admin::CreateWorkflowRequest { parent, workflow_id, workflow: Some(workflow), ..Default::default() };
    let name = world.workflows().create_workflow(request).await.unwrap().into_inner().name;
    let path = format!("/v1/{name}:submitBatch");
    let items = json!([{"id": "m-1", "customer": r#"{"name": "Ewa"}"#}, {"id": "m-2", "customer": "CANARY"}]);
    let tried = json!({"validateOnly": true, "items": items}).to_string();
    let refused = rest(&world, "POST", &path, Some(&key), &tried).await;
    assert_eq!((refused.status, &refused.json()["details"][0]["reason"]), (400, &json!("NOT_PUBLISHED")));
    world.publish_workflow(&name).await.unwrap();
    let by_name = json!({"name": name, "validateOnly": true, "items": items}).to_string();
    for answer in [
        rest(&world, "POST", &path, Some(&key), &tried).await,
        ask(&world, "EventService/SubmitBatch", Some(&key), &by_name).await,
    ] {
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        let results = answer.lines().remove(0)["results"].clone();
        assert_eq!((&results[0]["id"], &results[0]["state"]), (&json!("m-1"), &json!("VALID")), "{results}");
        let told = (&results[1]["state"], &results[1]["field"], &results[1]["reason"]);
        assert_eq!(told, (&json!("REFUSED"), &json!("customer"), &json!("SYNTAX")), "{results}");
        assert!(!results.to_string().contains("CANARY"), "{results}");
    }
    // Nothing is kept while nobody serves the workflow, and the stream says so in its last line.
    let meant = json!({"items": items}).to_string();
    let lines = rest(&world, "POST", &path, Some(&key), &meant).await.lines();
    let last = &lines.last().unwrap()["error"]["details"][0]["reason"];
    assert_eq!(last, &json!("NO_DATA_PLANE"), "{lines:?}");
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
