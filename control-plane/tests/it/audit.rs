//! The audit log: no change and no refusal without an entry, and no entry that is changed unseen (A09, A10).

use std::path::Path;
use std::time::Duration;

use prost::Message as _;
use serde_json::{Value, json};
use sluice_control_plane::{Clock, Settings};
use sluice_core::address::UrlPolicy;
use sluice_proto::admin::v1::audit_service_client::AuditServiceClient;
use sluice_proto::admin::v1::workspace_service_client::WorkspaceServiceClient;
use sluice_proto::admin::v1::{self as admin, AuditEntry, AuditFilter, AuditOutcome, ErrorReason};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::any_call::{AnyMethod, methods};
use crate::outsider::{Outsider, stored};
use crate::world::{ACME, World, refusal, settings, within};

/// Every change that can be made, in an order in which each is possible, with the entry that it writes.
const CHANGES: &str = "../tests/golden/access/changes.jsonl";

fn changes() -> Vec<Value> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(CHANGES)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn method(name: &str) -> AnyMethod {
    let path = format!("sluice.admin.v1.{name}");
    methods().into_iter().find(|method| method.path() == path).unwrap_or_else(|| panic!("no {path}"))
}

fn admin_key(world: &World) -> String {
    std::fs::read_to_string(world.folder.path().join("admin.key")).unwrap().trim().to_owned()
}

impl World {
    fn audit(&self) -> AuditServiceClient<crate::world::Keyed> {
        AuditServiceClient::with_interceptor(self.channel(), self.admin.clone())
    }

    /// The entries of a log, oldest first.
    async fn log(&self, parent: &str, filter: AuditFilter) -> Vec<AuditEntry> {
        let mut entries = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = admin::ListAuditEntriesRequest {
                parent: parent.to_owned(),
                page_size: 7,
                page_token,
                filter: Some(filter.clone()),
                ..Default::default()
            };
            let page = self.audit().list_audit_entries(request).await.unwrap().into_inner();
            entries.extend(page.audit_entries);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        entries.reverse();
        entries
    }

    async fn verify(&self, parent: &str) -> admin::VerifyAuditEntriesResponse {
        let request = admin::VerifyAuditEntriesRequest { parent: parent.to_owned(), ..Default::default() };
        self.audit().verify_audit_entries(request).await.unwrap().into_inner()
    }
}

/// A row of the table with the name of what an earlier row made.
fn filled(row: &Value, made: &str) -> Value {
    serde_json::from_str(&row.to_string().replace("{made}", made)).unwrap()
}

fn name_in(answer: &[u8]) -> String {
    admin::AccessKey::decode(answer).map(|made| made.name).unwrap_or_default()
}

#[tokio::test]
async fn a09_every_change_writes_exactly_one_entry_and_no_value() {
    let world = World::new().await;
    let key = admin_key(&world);
    let mut made = String::new();
    let mut seen = std::collections::BTreeSet::new();
    for row in changes() {
        let name = row["method"].as_str().unwrap();
        seen.insert(name.to_owned());
        let method = method(name);
        if row["resource"] == json!("{made}") && name.contains("/Create") {
            made.clear();
        }
        let request = filled(&row, &made)["request"].clone();
        let row_log = row["log"].as_str().unwrap();
        let before = world.log(row_log, AuditFilter::default()).await.len();
        let answer = method.call(world.channel(), Some(&key), &request).await;
        let row = match &answer {
            Ok(bytes) if made.is_empty() && row["resource"] == json!("{made}") => {
                made = name_in(bytes);
                filled(&row, &made)
            }
            _ => filled(&row, &made),
        };
        let entries = world.log(row_log, AuditFilter::default()).await;
        assert_eq!(entries.len(), before + 1, "{row}: {answer:?}");
        let entry = entries.last().unwrap();
        let (outcome, reason) = match row.get("refused") {
            None => (AuditOutcome::Done, ErrorReason::Unspecified),
            Some(reason) => (AuditOutcome::Refused, ErrorReason::from_str_name(reason.as_str().unwrap()).unwrap()),
        };
        assert_eq!((entry.outcome(), entry.reason()), (outcome, reason), "{row}: {answer:?}");
        assert_eq!(answer.is_ok(), outcome == AuditOutcome::Done, "{row}: {answer:?}");
        assert_eq!(entry.method, method.path());
        assert_eq!(json!(entry.resource), row["resource"], "{row}");
        assert_eq!(json!(entry.fields), row["fields"], "{row}");
        assert!(entry.principal.starts_with("apiKeys/") && entry.api_key == entry.principal);
        assert_eq!((entry.source_address.as_str(), entry.call_id.len()), ("127.0.0.1", 36));
        assert!(!format!("{entry:?}").contains("CANARY"), "{entry:?}");
    }
    // What data planes call is no change that an administrator makes; joining is written down, too (tests/it/enrolment.rs). Submitted
    // events are no changes: they are shown among the incoming requests.
    let reads = [
        "Submit", "Enroll", "Renew", "Get", "List", "Watch", "Diff", "Find", "Wait", "Verify", "Parse", "Preview",
        "Evaluate", "Export", "Infer", "Sync", "Report",
    ];
    for method in methods() {
        let path = method.path();
        let changes = !reads.iter().any(|verb| path.rsplit('/').next().unwrap().starts_with(verb));
        let name = path.strip_prefix("sluice.admin.v1.").unwrap_or_default();
        assert!(!changes || seen.contains(name), "{path} needs a row in {CHANGES}");
    }
    for log in ["", ACME, "workspaces/beta"] {
        assert_eq!(world.verify(log).await.broken, "", "{log}");
    }
    let database = stored(world.folder.path()).await;
    assert!(!database.windows(13).any(|window| window == b"CANARY-secret"), "no secret is written down");
}

#[tokio::test]
async fn a10_without_its_entry_no_change_is_made() {
    let world = World::new().await;
    let key = admin_key(&world);
    let database = Outsider::of(&world).await;
    let mut made = String::new();
    for row in changes() {
        let method = method(row["method"].as_str().unwrap());
        let request = filled(&row, &made)["request"].clone();
        database.refuse_entries().await;
        let failed = method.call(world.channel(), Some(&key), &request).await.unwrap_err();
        assert_eq!(refusal(&failed), (Code::Unavailable, "STORE_UNAVAILABLE".to_owned()), "{row}");
        database.drop_trigger("\"full\"", "audit_entry").await;
        // It was not done: it can be done now.
        let answer = method.call(world.channel(), Some(&key), &request).await;
        assert_eq!(answer.is_ok(), row.get("refused").is_none(), "{row}: {answer:?}");
        if let (Ok(bytes), true) = (&answer, row["resource"] == json!("{made}") && made.is_empty()) {
            made = name_in(bytes);
        }
    }
}

#[tokio::test]
async fn what_changes_nothing_writes_nothing_and_the_same_request_writes_once() {
    let world = World::new().await;
    let request = |validate_only| admin::CreateRoleRequest {
        parent: ACME.to_owned(),
        role_id: "ours".to_owned(),
        role: Some(admin::Role { display_name: "Ours".to_owned(), ..Default::default() }),
        request_id: "67e55044-10b1-426f-9247-bb680e5fe0c8".to_owned(),
        validate_only,
    };
    world.roles().create_role(request(true)).await.unwrap();
    assert_eq!(world.log(ACME, AuditFilter::default()).await, []);
    world.roles().create_role(request(false)).await.unwrap();
    world.roles().create_role(request(false)).await.unwrap();
    let log = world.log(ACME, AuditFilter::default()).await;
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].request_id, request(false).request_id);
    // Reading is no change.
    world.revision("acme").await;
    assert_eq!(world.log(ACME, AuditFilter::default()).await.len(), 1);
}

async fn get(world: &World, key: &str, name: &str) -> Result<(), Status> {
    let request = admin::GetWorkspaceRequest { name: name.to_owned() };
    world.caller(key).workspaces().get_workspace(request).await.map(drop)
}

#[tokio::test]
async fn a09_every_refusal_is_written_where_it_belongs() {
    let world = World::new().await;
    world.workspace("rival").await;
    let api_key = admin::AccessKey {
        display_name: "CI".to_owned(),
        roles: vec!["workspaces/acme/roles/viewer".to_owned()],
        ..Default::default()
    };
    let request = admin::CreateApiKeyRequest { parent: ACME.to_owned(), api_key: Some(api_key), ..Default::default() };
    let made = world.api_keys().create_api_key(request).await.unwrap().into_inner();
    get(&world, &made.key, "workspaces/rival").await.unwrap_err();
    get(&world, "slc_00000000_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", ACME).await.unwrap_err();
    let role = admin::CreateRoleRequest { parent: ACME.to_owned(), ..Default::default() };
    world.caller(&made.key).roles().create_role(role.clone()).await.unwrap_err();
    world.roles().create_role(role).await.unwrap_err();
    let refused = |entries: Vec<AuditEntry>| -> Vec<_> {
        let line = |entry: AuditEntry| {
            let method = entry.method.rsplit('/').next().unwrap().to_owned();
            (method, entry.resource.clone(), entry.reason().as_str_name(), entry.principal)
        };
        entries.into_iter().filter(|entry| entry.outcome() == AuditOutcome::Refused).map(line).collect()
    };
    let line = |method: &str, resource: &str, reason: &'static str, principal: &str| {
        (method.to_owned(), resource.to_owned(), reason, principal.to_owned())
    };
    let log = refused(world.log(ACME, AuditFilter::default()).await);
    assert_eq!(
        log[..2],
        [
            line("GetWorkspace", "workspaces/rival", "RESOURCE_NOT_FOUND", &made.name),
            // Who may not call learns, and tells, nothing of what he asked for.
            line("CreateRole", "", "PERMISSION_MISSING", &made.name),
        ]
    );
    assert_eq!((log.len(), log[2].2), (3, "FIELDS_INVALID"));
    assert_eq!(refused(world.log("", AuditFilter::default()).await), [line("GetWorkspace", "", "API_KEY_INVALID", "")]);
    assert_eq!(refused(world.log("workspaces/rival", AuditFilter::default()).await), []);
    // Too many wrong keys are not all written down.
    for _ in 0..40 {
        get(&world, "x", ACME).await.unwrap_err();
    }
    assert_eq!(refused(world.log("", AuditFilter::default()).await).len(), 20);
}

#[tokio::test]
async fn a_log_is_read_by_pages_and_by_filter() {
    let world = World::new().await;
    for id in ["one", "two", "three"] {
        world.role_named(id).await;
    }
    world.clock.advance(5_000);
    world.connection("crm", "s3cret").await;
    let all = world.log(ACME, AuditFilter::default()).await;
    assert_eq!(all.iter().map(|entry| entry.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(all[3].name, "workspaces/acme/auditEntries/4");
    let numbers = async |filter: AuditFilter| -> Vec<i64> {
        world.log(ACME, filter).await.into_iter().map(|entry| entry.number).collect()
    };
    let method = "sluice.admin.v1.RoleService/CreateRole".to_owned();
    assert_eq!(numbers(AuditFilter { method, ..Default::default() }).await, [1, 2, 3]);
    let resource = "workspaces/acme/roles/two".to_owned();
    assert_eq!(numbers(AuditFilter { resource, ..Default::default() }).await, [2]);
    assert_eq!(numbers(AuditFilter { resource: ACME.to_owned(), ..Default::default() }).await, [1, 2, 3, 4]);
    assert_eq!(numbers(AuditFilter { resource: "workspaces/acm".to_owned(), ..Default::default() }).await, [0_i64; 0]);
    assert_eq!(numbers(AuditFilter { outcome: AuditOutcome::Refused.into(), ..Default::default() }).await, [0_i64; 0]);
    assert_eq!(numbers(AuditFilter { principal: all[0].principal.clone(), ..Default::default() }).await.len(), 4);
    let from = all[3].time;
    assert_eq!(numbers(AuditFilter { from, ..Default::default() }).await, [4]);
    assert_eq!(numbers(AuditFilter { before: from, ..Default::default() }).await, [1, 2, 3]);
}

impl World {
    async fn role_named(&self, id: &str) {
        let request = admin::CreateRoleRequest {
            parent: ACME.to_owned(),
            role_id: id.to_owned(),
            role: Some(admin::Role { display_name: id.to_owned(), ..Default::default() }),
            ..Default::default()
        };
        self.roles().create_role(request).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_done_to_a_log_is_found() {
    let world = World::new().await;
    for id in ["one", "two", "three", "four"] {
        world.role_named(id).await;
    }
    let whole = world.verify(ACME).await;
    assert_eq!((whole.last_number, whole.broken.as_str()), (4, ""));
    let database = Outsider::of(&world).await;
    for refused in ["UPDATE audit_entry SET principal = 'x'", "DELETE FROM audit_entry WHERE number = 4"] {
        let error = database.run(refused).await.unwrap_err();
        assert!(error.to_string().contains("audit entries are never"), "{error}");
    }
    for trigger in ["audit_entry_is_not_changed", "audit_entry_is_not_deleted"] {
        database.drop_trigger(trigger, "audit_entry").await;
    }
    database.run("CREATE TABLE kept AS SELECT * FROM audit_entry").await.unwrap();
    let cases = [
        (
            "UPDATE audit_entry SET body = (SELECT body FROM kept WHERE place <> '' AND number = 1) WHERE place <> '' AND number = 2",
            2,
        ),
        ("UPDATE audit_entry SET principal = 'apiKeys/somebody' WHERE place <> '' AND number = 3", 3),
        ("UPDATE audit_entry SET time = time + 1 WHERE place <> '' AND number = 3", 3),
        ("UPDATE audit_entry SET outcome = 2 WHERE place <> '' AND number = 4", 4),
        ("UPDATE audit_entry SET hash = zeroblob(32) WHERE place <> '' AND number = 4", 4),
        ("DELETE FROM audit_entry WHERE place <> '' AND number = 1", 1),
        (
            "DELETE FROM audit_entry WHERE place <> '' AND number = 2; UPDATE audit_entry SET number = number - 1 WHERE place <> '' AND number > 2",
            2,
        ),
        ("UPDATE audit_entry SET place = 'other' WHERE place <> '' AND number = 3", 3),
        // Taken from the end: whoever knows how far it went misses it.
        ("DELETE FROM audit_entry WHERE place <> '' AND number = 4", 4),
    ];
    let known = admin::VerifyAuditEntriesRequest {
        parent: ACME.to_owned(),
        known_number: whole.last_number,
        known_hash: whole.last_hash.clone(),
    };
    for (tampering, number) in cases {
        database.run(tampering).await.unwrap();
        let found = world.audit().verify_audit_entries(known.clone()).await.unwrap().into_inner();
        assert_eq!(found.broken, format!("workspaces/acme/auditEntries/{number}"), "{tampering}: {found:?}");
        assert_eq!(found.last_number, number - 1, "{tampering}");
        let restore = "DELETE FROM audit_entry; INSERT INTO audit_entry SELECT * FROM kept";
        database.run(restore).await.unwrap();
        assert_eq!(world.verify(ACME).await, whole);
    }
    // Two true histories do not make a third: one goes back to an older state, lives on, and gets an entry of before.
    database.run("DELETE FROM audit_entry WHERE place <> '' AND number > 2").await.unwrap();
    for id in ["five", "six"] {
        world.role_named(id).await;
    }
    assert_eq!(world.verify(ACME).await.broken, "");
    let spliced = "DELETE FROM audit_entry WHERE place <> '' AND number = 3; \
                   INSERT INTO audit_entry SELECT * FROM kept WHERE place <> '' AND number = 3";
    database.run(spliced).await.unwrap();
    assert_eq!(world.verify(ACME).await.broken, "workspaces/acme/auditEntries/4");
}

/// A server that keeps entries for so many days.
async fn keeping(folder: tempfile::TempDir, clock: &Clock, days: u64) -> World {
    let settings = settings(folder.path(), clock);
    let audit_retention = Duration::from_secs(days * 24 * 3600);
    World::start_with(folder, Settings { audit_retention, ..settings }).await
}

const DAY: i64 = 24 * 3600 * 1000;

#[tokio::test]
async fn old_entries_are_let_go_from_the_beginning_and_the_rest_is_still_verified() {
    assert_eq!(Settings::in_folder("x", UrlPolicy::default()).audit_retention, Duration::from_secs(400 * 24 * 3600));
    let world = World::new().await;
    for id in ["one", "two", "three"] {
        world.role_named(id).await;
    }
    let known = world.verify(ACME).await;
    assert_eq!((known.first_number, known.last_number), (1, 3));
    world.clock.advance(100 * DAY);
    for id in ["four", "five"] {
        world.role_named(id).await;
    }
    // The day before the first are too old nothing goes, the day after exactly they do.
    world.clock.advance(299 * DAY);
    let (folder, clock) = world.end().await;
    let world = keeping(folder, &clock, 400).await;
    world.role_named("six").await;
    assert_eq!(world.verify(ACME).await.first_number, 1);
    clock.advance(2 * DAY);
    let (folder, clock) = world.end().await;
    let world = keeping(folder, &clock, 400).await;
    let kept = world.until_first(4).await;
    assert_eq!((kept.last_number, kept.broken.as_str()), (6, ""));
    let numbers: Vec<_> = world.log(ACME, AuditFilter::default()).await.iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, [4, 5, 6]);
    // Who knows the last that was let go compares it with where the log begins; one before that is not compared.
    let knowing = |known_number, known_hash: &[u8]| admin::VerifyAuditEntriesRequest {
        parent: ACME.to_owned(),
        known_number,
        known_hash: known_hash.to_vec().into(),
    };
    for (number, hash, broken) in [(3, known.last_hash.as_ref(), ""), (3, b"other", "4"), (2, b"other", "")] {
        let found = world.audit().verify_audit_entries(knowing(number, hash)).await.unwrap().into_inner();
        assert_eq!(found.broken.rsplit('/').next().unwrap(), broken, "{number}");
    }

    // However long nothing happens, the newest entry stays, and the next follows it.
    clock.advance(1000 * DAY);
    let (folder, clock) = world.end().await;
    let world = keeping(folder, &clock, 400).await;
    world.until_first(6).await;
    world.role_named("seven").await;
    let kept = world.verify(ACME).await;
    assert_eq!((kept.first_number, kept.last_number, kept.broken.as_str()), (6, 7, ""));
}

#[tokio::test]
async fn nobody_but_the_server_lets_entries_go() {
    let world = World::new().await;
    for id in ["one", "two", "three", "four"] {
        world.role_named(id).await;
    }
    world.clock.advance(401 * DAY);
    world.role_named("five").await;
    let (folder, clock) = world.end().await;
    let world = keeping(folder, &clock, 400).await;
    world.until_first(5).await;
    world.role_named("six").await;
    let database = Outsider::of(&world).await;
    for refused in [
        "DELETE FROM audit_entry WHERE place <> '' AND number = 5",
        "DELETE FROM audit_anchor",
        "UPDATE audit_anchor SET number = number - 1",
    ] {
        database.run(refused).await.unwrap_err();
    }
    // Whoever moves where the log begins cannot seal it, whatever he takes from the entries.
    let forged = "UPDATE audit_anchor SET number = 5, hash = (SELECT hash FROM audit_entry WHERE place = audit_anchor.place AND number = 5) \
                  WHERE place <> ''; DELETE FROM audit_entry WHERE place <> '' AND number = 5";
    database.run(forged).await.unwrap();
    let found = world.verify(ACME).await;
    assert_eq!(found.broken, "workspaces/acme/auditEntries/6");
    // Nor does it help to take the beginning away.
    database.drop_trigger("audit_anchor_is_not_deleted", "audit_anchor").await;
    database.run("DELETE FROM audit_anchor").await.unwrap();
    let found = world.verify(ACME).await;
    assert_eq!((found.broken.as_str(), found.problem.as_str()), ("workspaces/acme/auditEntries/1", "is missing"));
}

impl World {
    /// Waits until the log begins with this entry.
    async fn until_first(&self, number: i64) -> admin::VerifyAuditEntriesResponse {
        within(async {
            loop {
                let found = self.verify(ACME).await;
                if found.first_number == number {
                    return found;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

#[tokio::test]
async fn a09_the_first_use_of_a_key_from_another_network_is_written_down() {
    let world = World::new().await;
    let asked = async |from: &str| {
        let endpoint = Channel::from_shared(format!("http://{}", world.address)).unwrap();
        let channel = endpoint.local_address(Some(from.parse().unwrap())).connect().await.unwrap();
        let mut client = WorkspaceServiceClient::with_interceptor(channel, world.admin.clone());
        client.list_workspaces(admin::ListWorkspacesRequest::default()).await.unwrap();
    };
    let seen = async || -> Vec<_> {
        let log = world.log("", AuditFilter { outcome: AuditOutcome::NewNetwork.into(), ..Default::default() }).await;
        log.into_iter().map(|entry| (entry.source_address, entry.resource == entry.api_key)).collect()
    };
    // From where it was used first nothing is written; nor from beside it.
    asked("127.0.0.9").await;
    asked("127.0.1.7").await;
    let expected = [("127.0.1.7".to_owned(), true)];
    within(async {
        while seen().await != expected {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Once is enough, also after a restart and a minute.
    asked("127.0.1.8").await;
    world.clock.advance(61_000);
    asked("127.0.1.7").await;
    let world = world.restart().await;
    let used = || async {
        let name = world.log("", AuditFilter::default()).await[0].api_key.clone();
        let request = admin::GetApiKeyRequest { name };
        world.api_keys().get_api_key(request).await.unwrap().into_inner().last_use_time.unwrap().seconds
    };
    let endpoint = Channel::from_shared(format!("http://{}", world.address)).unwrap();
    let channel = endpoint.local_address(Some("127.0.1.9".parse().unwrap())).connect().await.unwrap();
    world.clock.advance(61_000);
    let mut client = WorkspaceServiceClient::with_interceptor(channel, world.admin.clone());
    client.list_workspaces(admin::ListWorkspacesRequest::default()).await.unwrap();
    within(async {
        while used().await * 1000 < crate::world::START + 122_000 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let log = world.log("", AuditFilter { outcome: AuditOutcome::NewNetwork.into(), ..Default::default() }).await;
    assert_eq!(log.len(), 1, "{log:?}");
    assert_eq!(world.verify("").await.broken, "");
}
