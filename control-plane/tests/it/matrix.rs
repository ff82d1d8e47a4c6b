//! Who may call what (A01), and that nobody reaches into another's workspace (A02): for every method of the contract.

use std::path::Path;

use serde_json::{Value, json};
use sluice_control_plane::{Clock, Limits, Settings};
use sluice_proto::admin::v1::{self as admin, AccessKey};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::any_call::{AnyMethod, methods, put, put_choosing};
use crate::world::{ACME, RING, START, World, incoming, outgoing, settings, workflow};

/// What a key of each role may call. A method without a line here fails, and so does a line that is not true.
const GOLDEN: &str = "../tests/golden/access/matrix.jsonl";
/// Requests that are valid in `workspaces/acme`, for methods whose request says more than which resource it is about.
pub(crate) const REQUESTS: &str = "../tests/golden/access/requests.jsonl";

const SERVER: &str = "";
const RIVAL: &str = "workspaces/rival";
/// The id of everything in the other workspace, and of nothing at all. They are equally long.
const THERE: &str = "canary9";
const NOWHERE: &str = "absent9";
/// What everything in the other workspace is called.
const CANARY: &str = "CANARY-DISPLAY";

pub(crate) fn lines(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A world in which wrong keys are not counted.
async fn patient() -> World {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("master.key"), RING).unwrap();
    let settings = settings(folder.path(), &Clock::manual(START));
    let limits = Limits { failed_keys_per_minute: 1_000_000, ..Limits::default() };
    let world = World::start_with(folder, Settings { limits, ..settings }).await;
    world.workspace("acme").await;
    world
}

async fn key(world: &World, parent: &str, role: &str, more: AccessKey) -> AccessKey {
    let place = if parent == SERVER { String::new() } else { format!("{parent}/") };
    let display_name = if parent == RIVAL { CANARY } else { "Ours" }.to_owned();
    let api_key = AccessKey { display_name, roles: vec![format!("{place}roles/{role}")], ..more };
    let request =
        admin::CreateApiKeyRequest { parent: parent.to_owned(), api_key: Some(api_key), ..Default::default() };
    world.api_keys().create_api_key(request).await.unwrap().into_inner()
}

/// The ids of the built-in roles that a key of this place can have.
async fn roles(world: &World, parent: &str) -> Vec<String> {
    let request = admin::ListRolesRequest { parent: parent.to_owned(), page_size: 1000, ..Default::default() };
    let listed = world.roles().list_roles(request).await.unwrap().into_inner().roles;
    let built_in = listed.into_iter().filter(|role| role.built_in);
    built_in.map(|role| role.name.rsplit('/').next().unwrap().to_owned()).collect()
}

fn about(method: &AnyMethod) -> Value {
    method.smallest(if method.path().contains("WorkspaceService") { ACME } else { "workspaces/acme/x/y" })
}

/// The roles whose keys are let in.
async fn allowed(world: &World, method: &AnyMethod, keys: &[(String, String)]) -> Vec<String> {
    let mut allowed = Vec::new();
    for (role, key) in keys {
        let answer = method.call(world.channel(), Some(key), &about(method)).await;
        if !answer.is_err_and(|status| status.code() == Code::PermissionDenied) {
            allowed.push(role.clone());
        }
    }
    allowed
}

#[tokio::test]
async fn a01_every_method_lets_in_the_roles_that_the_matrix_names() {
    let world = patient().await;
    let mut keys = Vec::new();
    for parent in [ACME, SERVER] {
        let mut of_place = Vec::new();
        for role in roles(&world, parent).await {
            let key = match role.as_str() {
                "data-plane" => std::fs::read_to_string(world.folder.path().join("data-plane.key")).unwrap(),
                role => key(&world, parent, role, AccessKey::default()).await.key,
            };
            of_place.push((role, key.trim().to_owned()));
        }
        keys.push(of_place);
    }
    let mut found = Vec::new();
    for method in methods() {
        let resource = method.resource().map(|path| path.join(".")).unwrap_or_default();
        found.push(json!({
            "method": method.path(),
            "permission": method.permission(),
            "resource": resource,
            "workspace": allowed(&world, &method, &keys[0]).await,
            "server": allowed(&world, &method, &keys[1]).await,
        }));
    }
    let written = Path::new(env!("CARGO_TARGET_TMPDIR")).join("matrix.jsonl");
    std::fs::write(&written, found.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    let golden = lines(GOLDEN);
    let wrong: Vec<_> = found.iter().filter(|row| !golden.contains(row)).collect();
    assert!(wrong.is_empty(), "not in {GOLDEN} (what was found is in {}): {wrong:#?}", written.display());
    let gone: Vec<_> = golden.iter().filter(|row| !found.contains(row)).collect();
    assert!(gone.is_empty(), "in {GOLDEN} and not true: {gone:#?}");
}

#[tokio::test]
async fn a01_no_method_lets_in_a_key_that_is_not_in_force() {
    let world = patient().await;
    let with = |expire: i64, network: &str| AccessKey {
        expire_time: Some(prost_types::Timestamp { seconds: expire, nanos: 0 }),
        allowed_networks: vec![network.to_owned()],
        ..AccessKey::default()
    };
    let now = START / 1000;
    let expired = key(&world, SERVER, "admin", with(now + 1, "0.0.0.0/0")).await.key;
    let elsewhere = key(&world, SERVER, "admin", with(now + 3600, "192.0.2.0/24")).await.key;
    let revoked = key(&world, SERVER, "admin", AccessKey::default()).await;
    let delete = admin::DeleteApiKeyRequest { name: revoked.name, ..Default::default() };
    world.api_keys().delete_api_key(delete).await.unwrap();
    world.clock.advance(1000);
    let unknown = "slc_00000000_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let keys = [None, Some("x"), Some(unknown), Some(&expired), Some(&elsewhere), Some(&revoked.key)];
    for method in methods() {
        for (index, key) in keys.iter().enumerate() {
            let refused = method.call(world.channel(), *key, &about(&method)).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated, "{} with key {index}: {refused:?}", method.path());
        }
    }
}

/// The same things in both workspaces: one that is called, one that must not be seen.
pub(crate) async fn furnish(world: &World, parent: &str, id: &str, display_name: &str) {
    let display_name = display_name.to_owned();
    let named = |collection: &str| format!("{parent}/{collection}/{id}");
    let connection = crate::world::api_key("s3cret");
    let request = admin::CreateConnectionRequest {
        parent: parent.to_owned(),
        connection_id: id.to_owned(),
        connection: Some(admin::Connection { display_name: display_name.clone(), ..connection }),
        ..Default::default()
    };
    world.connections().create_connection(request).await.unwrap();
    let request = admin::CreateIncomingIntegrationRequest {
        parent: parent.to_owned(),
        incoming_integration_id: id.to_owned(),
        incoming_integration: Some(admin::IncomingIntegration { display_name: display_name.clone(), ..incoming() }),
        ..Default::default()
    };
    world.incoming().create_incoming_integration(request).await.unwrap();
    let document = outgoing(&named("connections"));
    let request = admin::CreateOutgoingIntegrationRequest {
        parent: parent.to_owned(),
        outgoing_integration_id: id.to_owned(),
        outgoing_integration: Some(admin::OutgoingIntegration { display_name: display_name.clone(), ..document }),
        ..Default::default()
    };
    world.outgoing().create_outgoing_integration(request).await.unwrap();
    let document = workflow(&named("incomingIntegrations"), &named("outgoingIntegrations"));
    let request = admin::CreateWorkflowRequest {
        parent: parent.to_owned(),
        workflow_id: id.to_owned(),
        workflow: Some(admin::Workflow { display_name: display_name.clone(), ..document }),
        ..Default::default()
    };
    world.workflows().create_workflow(request).await.unwrap();
    world.publish_incoming(&named("incomingIntegrations")).await.unwrap();
    world.publish_outgoing(&named("outgoingIntegrations")).await.unwrap();
    world.publish_workflow(&named("workflows")).await.unwrap();
    furnish_desk(world, parent, id, &display_name).await;
    let role = admin::Role { display_name: display_name.clone(), ..Default::default() };
    let request = admin::CreateRoleRequest {
        parent: parent.to_owned(),
        role_id: id.to_owned(),
        role: Some(role),
        ..Default::default()
    };
    world.roles().create_role(request).await.unwrap();
    let account = admin::ServiceAccount { display_name, ..Default::default() };
    let request = admin::CreateServiceAccountRequest {
        parent: parent.to_owned(),
        service_account_id: id.to_owned(),
        service_account: Some(account),
        ..Default::default()
    };
    world.service_accounts().create_service_account(request).await.unwrap();
}

/// What only authors see of a workspace.
async fn furnish_desk(world: &World, parent: &str, id: &str, display_name: &str) {
    let (parent, display_name) = (parent.to_owned(), display_name.to_owned());
    let snippet =
        admin::Snippet { display_name: display_name.clone(), text: display_name.clone(), ..Default::default() };
    let request = admin::CreateSnippetRequest {
        parent: parent.clone(),
        snippet_id: id.to_owned(),
        snippet: Some(snippet),
        ..Default::default()
    };
    world.snippets().create_snippet(request).await.unwrap();
    let field = admin::SchemaField {
        id: "note".to_owned(),
        r#type: admin::schema_field::Type::Text.into(),
        label: display_name.clone(),
        ..Default::default()
    };
    let schema_template =
        admin::SchemaTemplate { display_name: display_name.clone(), fields: vec![field], ..Default::default() };
    let request = admin::CreateSchemaTemplateRequest {
        parent: parent.clone(),
        schema_template_id: id.to_owned(),
        schema_template: Some(schema_template),
        ..Default::default()
    };
    world.schema_templates().create_schema_template(request).await.unwrap();
    let definition = admin::EventDefinition {
        display_name: display_name.clone(),
        action: display_name.clone(),
        ..Default::default()
    };
    let request = admin::CreateEventDefinitionRequest {
        parent: parent.clone(),
        event_definition_id: id.to_owned(),
        event_definition: Some(definition),
        ..Default::default()
    };
    world.event_definitions().create_event_definition(request).await.unwrap();
    let profile = admin::TestProfile { display_name, ..Default::default() };
    let request = admin::CreateTestProfileRequest {
        parent,
        test_profile_id: id.to_owned(),
        test_profile: Some(profile),
        ..Default::default()
    };
    world.test_profiles().create_test_profile(request).await.unwrap();
}

/// Everything of a workspace, as an administrator sees it.
async fn everything(world: &World, parent: &str) -> Vec<String> {
    let admin_key = std::fs::read_to_string(world.folder.path().join("admin.key")).unwrap();
    let mut seen = vec![world.revision(parent.rsplit('/').next().unwrap()).await.to_string()];
    for method in methods().into_iter().filter(AnyMethod::is_unary) {
        let is_list = method.path().contains("/List") && method.resource().is_some();
        if is_list && !method.path().contains("AuditEntries") {
            let answer = method.call(world.channel(), Some(admin_key.trim()), &method.smallest(parent)).await;
            seen.push(format!("{} {:?}", method.path(), answer.map_err(|status| status.code())));
        }
    }
    seen
}

/// Of which a workspace has one of each.
const COLLECTIONS: [&str; 8] = [
    "connections",
    "incomingIntegrations",
    "outgoingIntegrations",
    "workflows",
    "snippets",
    "schemaTemplates",
    "roles",
    "serviceAccounts",
];

/// What can be told of an answer, without the id that was asked for.
fn told(answer: Result<bytes::Bytes, Status>, id: &str) -> (Code, String) {
    match answer {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert!(!text.contains(CANARY), "{text}");
            (Code::Ok, String::new())
        }
        Err(status) => {
            let details = status.get_error_details();
            let text = format!("{} {details:?}", status.message());
            assert!(!text.contains(CANARY), "{text}");
            (status.code(), text.replace(id, "ID"))
        }
    }
}

#[tokio::test]
async fn a02_another_workspace_is_not_there_for_any_method_wherever_it_is_named() {
    let world = patient().await;
    world.workspace("rival").await;
    furnish(&world, ACME, "ours", "Ours").await;
    furnish(&world, RIVAL, THERE, CANARY).await;
    let ours = key(&world, ACME, "admin", AccessKey::default()).await;
    let theirs = key(&world, RIVAL, "admin", AccessKey::default()).await;
    let their_id = theirs.name.rsplit('/').next().unwrap();
    let before = everything(&world, RIVAL).await;
    let requests: Vec<Value> = lines(REQUESTS)
        .iter()
        .map(|row| serde_json::from_str(&row.to_string().replace("{key}", &ours.name)).unwrap())
        .collect();
    let mut names: Vec<(String, String, String)> = COLLECTIONS
        .iter()
        .map(|collection| {
            let name = |id: &str| format!("{RIVAL}/{collection}/{id}");
            (name(THERE), name(NOWHERE), THERE.to_owned())
        })
        .collect();
    let key_name = |id: &str| format!("{RIVAL}/apiKeys/{id}");
    names.push((key_name(their_id), key_name("00000000"), their_id.to_owned()));
    names.push((
        format!("{RIVAL}/workflows/{THERE}/versions/1"),
        format!("{RIVAL}/workflows/{NOWHERE}/versions/1"),
        THERE.to_owned(),
    ));
    names.push((RIVAL.to_owned(), "workspaces/nival".to_owned(), "rival".to_owned()));

    let mut asked = 0;
    for method in methods().into_iter().filter(|method| !method.takes_stream()) {
        let base = requests.iter().find(|row| row["method"] == json!(method.path()));
        // A key of a workspace can call nothing of the whole server, whatever it says.
        let has_body = method.resource().is_some() && method.texts().iter().any(|path| path.len() > 2);
        assert!(base.is_some() || !has_body, "{} needs a request in {REQUESTS}", method.path());
        let base = base.map_or_else(|| about(&method), |row| row["request"].clone());
        if let Some(row) = requests.iter().find(|row| row["method"] == json!(method.path())) {
            let answer = method.call(world.channel(), Some(&ours.key), &base).await;
            assert!(answer.is_ok(), "{REQUESTS}: {row}: {answer:?}");
        }
        for (name, twin, id) in &names {
            if let Some(path) = method.resource() {
                let mut request = base.clone();
                put(&mut request, &path, json!(name));
                let status = method.call(world.channel(), Some(&ours.key), &request).await.unwrap_err();
                assert_eq!(status.code(), Code::NotFound, "{} of {name}: {status:?}", method.path());
            }
            for path in method.texts() {
                let (mut there, mut nowhere) = (base.clone(), base.clone());
                put_choosing(&method.input(), &mut there, &path, json!(name));
                put_choosing(&method.input(), &mut nowhere, &path, json!(twin));
                let there = told(method.call(world.channel(), Some(&ours.key), &there).await, id);
                let twin_id = twin
                    .strip_prefix("workspaces/nival")
                    .map_or_else(|| if *id == *their_id { "00000000" } else { NOWHERE }, |_| "nival");
                let nowhere = told(method.call(world.channel(), Some(&ours.key), &nowhere).await, twin_id);
                assert_eq!(there, nowhere, "{} with {name} in {}", method.path(), path.join("."));
                asked += 1;
            }
        }
    }
    assert!(asked > 1000, "{asked}");
    assert_eq!(everything(&world, RIVAL).await, before, "nothing of theirs has changed");
    for seen in everything(&world, ACME).await {
        assert!(!seen.contains(CANARY) && !seen.contains(RIVAL), "{seen}");
    }
}
