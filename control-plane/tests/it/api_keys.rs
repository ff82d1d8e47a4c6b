//! API keys, roles and service accounts: who gives whom what, and where it ends.

use prost_types::{FieldMask, Timestamp};
use sluice_proto::admin::v1::{self as admin, AccessKey, AccessKeyFilter};
use tonic::{Code, Status};

use crate::world::{ACME, Caller, START, World, has, refusal, violations, within};

const REQUEST_ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

fn at(millis: i64) -> Timestamp {
    Timestamp { seconds: millis / 1000, nanos: 0 }
}

/// A key of the workspace with these roles.
fn wanted(parent: &str, roles: &[&str]) -> AccessKey {
    let place = if parent.is_empty() { String::new() } else { format!("{parent}/") };
    let roles = roles.iter().map(|role| format!("{place}roles/{role}")).collect();
    AccessKey { display_name: "CI".to_owned(), roles, ..AccessKey::default() }
}

async fn make_as(caller: &Caller, parent: &str, api_key: AccessKey) -> Result<AccessKey, Status> {
    let request =
        admin::CreateApiKeyRequest { parent: parent.to_owned(), api_key: Some(api_key), ..Default::default() };
    Ok(caller.api_keys().create_api_key(request).await?.into_inner())
}

impl World {
    fn admin(&self) -> Caller {
        let key = std::fs::read_to_string(self.folder.path().join("admin.key")).unwrap();
        self.caller(key.trim())
    }

    async fn make(&self, parent: &str, api_key: AccessKey) -> AccessKey {
        make_as(&self.admin(), parent, api_key).await.unwrap()
    }

    async fn with_roles(&self, parent: &str, roles: &[&str]) -> Caller {
        self.caller(&self.make(parent, wanted(parent, roles)).await.key)
    }

    async fn get_key(&self, name: &str) -> AccessKey {
        let request = admin::GetApiKeyRequest { name: name.to_owned() };
        self.api_keys().get_api_key(request).await.unwrap().into_inner()
    }

    async fn update_key(&self, api_key: AccessKey, paths: &[&str]) -> Result<AccessKey, Status> {
        let update_mask = Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() });
        let request = admin::UpdateApiKeyRequest { api_key: Some(api_key), update_mask, ..Default::default() };
        Ok(self.api_keys().update_api_key(request).await?.into_inner())
    }

    async fn role(&self, id: &str, permissions: &[&str]) -> Result<admin::Role, Status> {
        let permissions = permissions.iter().map(|one| (*one).to_owned()).collect();
        let role = admin::Role { display_name: id.to_owned(), permissions, ..Default::default() };
        let request = admin::CreateRoleRequest {
            parent: ACME.to_owned(),
            role_id: id.to_owned(),
            role: Some(role),
            ..Default::default()
        };
        Ok(self.roles().create_role(request).await?.into_inner())
    }
}

async fn get_acme(caller: &Caller) -> Result<(), Status> {
    let request = admin::GetWorkspaceRequest { name: ACME.to_owned() };
    caller.workspaces().get_workspace(request).await.map(drop)
}

async fn list_connections(caller: &Caller, parent: &str) -> Result<(), Status> {
    let request = admin::ListConnectionsRequest { parent: parent.to_owned(), ..Default::default() };
    caller.connections().list_connections(request).await.map(drop)
}

fn denied() -> (Code, String) {
    (Code::PermissionDenied, "PERMISSION_MISSING".to_owned())
}

fn unknown() -> (Code, String) {
    (Code::Unauthenticated, "API_KEY_INVALID".to_owned())
}

#[tokio::test]
async fn a_key_is_shown_once_and_only_its_hash_is_kept() {
    let world = World::new().await;
    let request = admin::CreateApiKeyRequest {
        parent: ACME.to_owned(),
        api_key: Some(wanted(ACME, &["viewer"])),
        request_id: REQUEST_ID.to_owned(),
        ..Default::default()
    };
    let made = world.api_keys().create_api_key(request.clone()).await.unwrap().into_inner();
    let id = made.name.strip_prefix("workspaces/acme/apiKeys/").unwrap();
    assert_eq!((made.key_prefix.clone(), made.key.len()), (format!("slc_{id}"), 65));
    assert!(made.key.starts_with(&made.key_prefix) && !made.uid.is_empty() && !made.etag.is_empty());
    assert!(made.permissions.contains(&"workflows.get".to_owned()) && !made.from_file);
    get_acme(&world.caller(&made.key)).await.unwrap();
    let hidden = AccessKey { key: String::new(), ..made.clone() };
    let again = world.api_keys().create_api_key(request).await.unwrap().into_inner();
    assert_eq!(again, hidden, "the same request is answered without the key");
    let mut got = world.get_key(&made.name).await;
    got.last_use_time = None;
    assert_eq!(got, hidden);
    let secret = &made.key[13..56];
    let world = world.restart().await;
    get_acme(&world.caller(&made.key)).await.unwrap();
    for file in std::fs::read_dir(world.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
    }
}

#[tokio::test]
async fn a_key_ends_when_it_expires_is_revoked_or_is_used_from_elsewhere() {
    let world = World::new().await;
    let refused = async |caller: &Caller, why: &str| {
        let status = get_acme(caller).await.unwrap_err();
        assert_eq!(refusal(&status), unknown());
        assert!(status.message().contains(why), "{}", status.message());
    };
    let key = AccessKey { expire_time: Some(at(START + 60_000)), ..wanted(ACME, &["viewer"]) };
    let made = world.make(ACME, key).await;
    let caller = world.caller(&made.key);
    world.clock.advance(59_999);
    get_acme(&caller).await.unwrap();
    world.clock.advance(1);
    refused(&caller, "expired").await;
    // What has expired can be made to last, which is in force at once.
    let longer = AccessKey { expire_time: None, ..made.clone() };
    world.update_key(longer, &["expire_time"]).await.unwrap();
    get_acme(&caller).await.unwrap();
    let elsewhere = AccessKey { allowed_networks: vec!["192.0.2.0/24".to_owned()], ..made.clone() };
    world.update_key(AccessKey { etag: String::new(), ..elsewhere }, &["allowed_networks"]).await.unwrap();
    refused(&caller, "address").await;
    let here = AccessKey { allowed_networks: vec!["192.0.2.0/24".to_owned(), "127.0.0.1".to_owned()], ..made.clone() };
    world.update_key(AccessKey { etag: String::new(), ..here }, &["allowed_networks"]).await.unwrap();
    get_acme(&caller).await.unwrap();
    let delete = admin::DeleteApiKeyRequest { name: made.name.clone(), ..Default::default() };
    world.api_keys().delete_api_key(delete.clone()).await.unwrap();
    refused(&caller, "revoked").await;
    let gone = world.api_keys().delete_api_key(delete).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    let mut typed = made.key.into_bytes();
    typed[20] = if typed[20] == b'x' { b'y' } else { b'x' };
    refused(&world.caller(&String::from_utf8(typed).unwrap()), "mistyped").await;
}

#[tokio::test]
async fn the_last_use_is_written_once_a_minute() {
    let world = World::new().await;
    let made = world.make(ACME, wanted(ACME, &["viewer"])).await;
    let caller = world.caller(&made.key);
    let until = async |expected: i64| {
        within(async {
            while world.get_key(&made.name).await.last_use_time != Some(at(expected)) {
                tokio::task::yield_now().await;
            }
        })
        .await
    };
    assert_eq!(made.last_use_time, None);
    get_acme(&caller).await.unwrap();
    until(START).await;
    world.clock.advance(59_999);
    get_acme(&caller).await.unwrap();
    world.clock.advance(1);
    get_acme(&caller).await.unwrap();
    until(START + 60_000).await;
}

#[tokio::test]
async fn a_key_of_a_workspace_sees_nothing_else() {
    let world = World::new().await;
    world.workspace("other").await;
    let caller = world.with_roles(ACME, &["admin"]).await;
    list_connections(&caller, ACME).await.unwrap();
    for parent in ["workspaces/other", "workspaces/nobody", "workspaces/acme2", "x", ""] {
        let refused = list_connections(&caller, parent).await.unwrap_err();
        assert_eq!(refusal(&refused), (Code::NotFound, "RESOURCE_NOT_FOUND".to_owned()), "{parent}");
    }
    let listed = caller.workspaces().list_workspaces(admin::ListWorkspacesRequest::default()).await.unwrap_err();
    assert_eq!(refusal(&listed), denied());
    // Keys of the server and of other workspaces cannot be made, either.
    for parent in ["", "workspaces/other"] {
        let refused = make_as(&caller, parent, wanted(parent, &["viewer"])).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{parent:?}");
    }
    let server = world.with_roles("", &["viewer"]).await;
    for workspace in ["acme", "other"] {
        let request = admin::GetWorkspaceRequest { name: format!("workspaces/{workspace}") };
        server.workspaces().get_workspace(request).await.unwrap();
    }
    assert_eq!(refusal(&list_connections(&server, ACME).await.unwrap_err()), denied());
}

#[tokio::test]
async fn nobody_gives_what_he_does_not_hold() {
    let world = World::new().await;
    let keys = ["apiKeys.create", "apiKeys.update", "roles.create", "roles.update", "serviceAccounts.create"];
    world.role("keeper", &keys).await.unwrap();
    world.role("strong", &["workflows.delete"]).await.unwrap();
    let keeper = world.with_roles(ACME, &["keeper", "viewer"]).await;
    make_as(&keeper, ACME, wanted(ACME, &["viewer"])).await.unwrap();
    // Whoever makes keys may make those of senders (D14).
    let sender = make_as(&keeper, ACME, wanted(ACME, &["webhook-sender"])).await.unwrap();
    assert_eq!(sender.permissions, ["INCOMING_WEBHOOK_EXECUTE"]);
    for role in ["admin", "editor", "strong", "connection-reader"] {
        let refused = make_as(&keeper, ACME, wanted(ACME, &["viewer", role])).await.unwrap_err();
        assert_eq!(refusal(&refused), denied(), "{role}");
    }
    let role = |permission: &str| admin::Role {
        display_name: "x".to_owned(),
        permissions: vec![permission.to_owned()],
        ..Default::default()
    };
    let create = |permission| admin::CreateRoleRequest {
        parent: ACME.to_owned(),
        role: Some(role(permission)),
        ..Default::default()
    };
    keeper.roles().create_role(create("workflows.get")).await.unwrap();
    let refused = keeper.roles().create_role(create("workflows.delete")).await.unwrap_err();
    assert_eq!(refusal(&refused), denied());
    // A stronger role can be made neither weaker nor stronger, and a stronger key cannot be made to last.
    let name = "workspaces/acme/roles/strong".to_owned();
    let update =
        admin::UpdateRoleRequest { role: Some(admin::Role { name, ..role("workflows.get") }), ..Default::default() };
    assert_eq!(refusal(&keeper.roles().update_role(update).await.unwrap_err()), denied());
    let strong = world.make(ACME, wanted(ACME, &["strong"])).await;
    let update = admin::UpdateApiKeyRequest {
        api_key: Some(AccessKey { expire_time: Some(at(START + 1000)), ..strong }),
        ..Default::default()
    };
    assert_eq!(refusal(&keeper.api_keys().update_api_key(update).await.unwrap_err()), denied());
    let account = admin::ServiceAccount {
        display_name: "x".to_owned(),
        roles: vec!["workspaces/acme/roles/admin".to_owned()],
        ..Default::default()
    };
    let create = admin::CreateServiceAccountRequest {
        parent: ACME.to_owned(),
        service_account: Some(account),
        ..Default::default()
    };
    assert_eq!(refusal(&keeper.service_accounts().create_service_account(create).await.unwrap_err()), denied());
    // Not even an administrator makes keys for data planes.
    let refused = make_as(&world.admin(), "", wanted("", &["data-plane"])).await.unwrap_err();
    assert_eq!(refusal(&refused), denied());
}

#[tokio::test]
async fn a_change_of_a_role_is_in_force_with_the_next_call() {
    let world = World::new().await;
    let role = world.role("ours", &["connections.get"]).await.unwrap();
    let caller = world.with_roles(ACME, &["ours"]).await;
    assert_eq!(refusal(&list_connections(&caller, ACME).await.unwrap_err()), denied());
    let update = |permissions: &[&str], etag: &str| admin::UpdateRoleRequest {
        role: Some(admin::Role {
            permissions: permissions.iter().map(|one| (*one).to_owned()).collect(),
            etag: etag.to_owned(),
            ..role.clone()
        }),
        ..Default::default()
    };
    let changed = world.roles().update_role(update(&["connections.list"], &role.etag)).await.unwrap().into_inner();
    list_connections(&caller, ACME).await.unwrap();
    let stale = world.roles().update_role(update(&[], &role.etag)).await.unwrap_err();
    assert_eq!(refusal(&stale), (Code::Aborted, "ETAG_MISMATCH".to_owned()));
    let delete = admin::DeleteRoleRequest { name: role.name.clone(), ..Default::default() };
    let used = world.roles().delete_role(delete.clone()).await.unwrap_err();
    assert_eq!(refusal(&used), (Code::FailedPrecondition, "RESOURCE_IN_USE".to_owned()));
    assert!(used.message().contains("workspaces/acme/apiKeys/"), "{}", used.message());
    world.roles().update_role(update(&[], &changed.etag)).await.unwrap();
    assert_eq!(refusal(&list_connections(&caller, ACME).await.unwrap_err()), denied());

    let request = admin::ListRolesRequest { parent: ACME.to_owned(), ..Default::default() };
    let listed = world.roles().list_roles(request).await.unwrap().into_inner().roles;
    let ids: Vec<_> = listed.iter().map(|role| role.name.strip_prefix("workspaces/acme/roles/").unwrap()).collect();
    assert!(ids.is_sorted() && ids.contains(&"ours") && ids.contains(&"viewer") && !ids.contains(&"data-plane"));
    let server = world.roles().list_roles(admin::ListRolesRequest::default()).await.unwrap().into_inner().roles;
    assert!(server.iter().all(|role| role.built_in) && server.iter().any(|role| role.name == "roles/data-plane"));
    for built_in in listed.iter().filter(|role| role.built_in) {
        let request = admin::GetRoleRequest { name: built_in.name.clone() };
        assert_eq!(&world.roles().get_role(request).await.unwrap().into_inner(), built_in);
        let request = admin::DeleteRoleRequest { name: built_in.name.clone(), ..Default::default() };
        let refused = world.roles().delete_role(request).await.unwrap_err();
        assert!(has(&violations(&refused), "name", "BUILT_IN"));
    }
    assert_eq!(world.role("viewer", &[]).await.unwrap_err().code(), Code::AlreadyExists);
    assert!(has(
        &violations(&world.role("bad", &["connections.fly"]).await.unwrap_err()),
        "permissions[0]",
        "PERMISSION_UNKNOWN"
    ));
}

#[tokio::test]
async fn the_keys_of_a_service_account_have_its_roles() {
    let world = World::new().await;
    let account = admin::ServiceAccount {
        display_name: "Deployer".to_owned(),
        roles: vec!["workspaces/acme/roles/viewer".to_owned()],
        ..Default::default()
    };
    let create = admin::CreateServiceAccountRequest {
        parent: ACME.to_owned(),
        service_account_id: "deployer".to_owned(),
        service_account: Some(account.clone()),
        ..Default::default()
    };
    let account = world.service_accounts().create_service_account(create).await.unwrap().into_inner();
    assert_eq!(account.name, "workspaces/acme/serviceAccounts/deployer");
    let of_account = AccessKey { service_account: account.name.clone(), ..wanted(ACME, &[]) };
    let made = world.make(ACME, of_account.clone()).await;
    let caller = world.caller(&made.key);
    get_acme(&caller).await.unwrap();
    let roles = vec!["workspaces/acme/roles/connection-reader".to_owned()];
    let update = admin::UpdateServiceAccountRequest {
        service_account: Some(admin::ServiceAccount { roles, ..account.clone() }),
        ..Default::default()
    };
    world.service_accounts().update_service_account(update).await.unwrap();
    list_connections(&caller, ACME).await.unwrap();
    assert_eq!(refusal(&get_acme(&caller).await.unwrap_err()), denied());

    let delete = admin::DeleteServiceAccountRequest { name: account.name.clone(), ..Default::default() };
    let used = world.service_accounts().delete_service_account(delete.clone()).await.unwrap_err();
    assert!(used.message().contains(&made.name), "{}", used.message());
    let both = AccessKey { service_account: account.name.clone(), ..wanted(ACME, &["viewer"]) };
    assert!(has(&violations(&make_as(&world.admin(), ACME, both).await.unwrap_err()), "roles", "NOT_ALLOWED"));
    let moved = AccessKey { service_account: format!("{}2", account.name), ..made.clone() };
    assert!(has(
        &violations(&world.update_key(moved, &["display_name"]).await.unwrap_err()),
        "service_account",
        "IMMUTABLE"
    ));
    world.workspace("other").await;
    let foreign = make_as(&world.admin(), "workspaces/other", of_account).await.unwrap_err();
    assert!(has(&violations(&foreign), "service_account", "RESOURCE_NOT_FOUND"));
    let delete_key = admin::DeleteApiKeyRequest { name: made.name, ..Default::default() };
    world.api_keys().delete_api_key(delete_key).await.unwrap();
    world.service_accounts().delete_service_account(delete).await.unwrap();
    let request = admin::ListServiceAccountsRequest { parent: ACME.to_owned(), ..Default::default() };
    let listed = world.service_accounts().list_service_accounts(request).await.unwrap().into_inner();
    assert!(listed.service_accounts.is_empty());
}

#[tokio::test]
async fn every_broken_rule_of_a_key_is_told_at_once() {
    let world = World::new().await;
    let bad = AccessKey {
        display_name: "x".repeat(129),
        roles: vec![
            "workspaces/acme/roles/viewer".to_owned(),
            "workspaces/acme/roles/viewer".to_owned(),
            "workspaces/other/roles/viewer".to_owned(),
            "roles/viewer".to_owned(),
            "workspaces/acme/roles/data-plane".to_owned(),
            "viewer".to_owned(),
        ],
        expire_time: Some(at(START)),
        allowed_networks: vec!["10.0.0.0/8".to_owned(), "10.0.0.0/33".to_owned(), "somewhere".to_owned()],
        ..AccessKey::default()
    };
    let request = admin::CreateApiKeyRequest {
        parent: ACME.to_owned(),
        api_key: Some(bad),
        request_id: "x".to_owned(),
        ..Default::default()
    };
    let found = violations(&world.api_keys().create_api_key(request).await.unwrap_err());
    for (field, reason) in [
        ("request_id", "UUID_INVALID"),
        ("display_name", "TOO_LONG"),
        ("roles[1]", "REPEATED"),
        ("roles[2]", "RESOURCE_NOT_FOUND"),
        ("roles[3]", "RESOURCE_NOT_FOUND"),
        ("roles[4]", "RESOURCE_NOT_FOUND"),
        ("roles[5]", "RESOURCE_NOT_FOUND"),
        ("expire_time", "NOT_IN_FUTURE"),
        ("allowed_networks[1]", "NETWORK_INVALID"),
        ("allowed_networks[2]", "NETWORK_INVALID"),
    ] {
        assert!(has(&found, field, reason), "{field}: {found:?}");
    }
    assert_eq!(found.len(), 10, "{found:?}");
    let many = AccessKey {
        display_name: "x".repeat(128),
        roles: (0..21).map(|index| format!("workspaces/acme/roles/r{index}")).collect(),
        allowed_networks: (0..51).map(|index| format!("10.0.0.{index}")).collect(),
        ..AccessKey::default()
    };
    let found = violations(&make_as(&world.admin(), ACME, many).await.unwrap_err());
    assert!(has(&found, "roles", "TOO_MANY") && has(&found, "allowed_networks", "TOO_MANY"), "{found:?}");
    let missing = admin::CreateApiKeyRequest { parent: ACME.to_owned(), ..Default::default() };
    let found = violations(&world.api_keys().create_api_key(missing).await.unwrap_err());
    assert_eq!(found, [("api_key".to_owned(), "REQUIRED".to_owned())]);
    let made = world.make(ACME, wanted(ACME, &["viewer"])).await;
    let found = violations(&world.update_key(made, &["uid", "roles"]).await.unwrap_err());
    assert_eq!(found, [("update_mask".to_owned(), "PATH_INVALID".to_owned())]);
}

#[tokio::test]
async fn what_is_only_validated_leaves_nothing() {
    let world = World::new().await;
    let request = admin::CreateApiKeyRequest {
        parent: ACME.to_owned(),
        api_key: Some(wanted(ACME, &["viewer"])),
        validate_only: true,
        ..Default::default()
    };
    let tried = world.api_keys().create_api_key(request).await.unwrap().into_inner();
    assert_eq!((tried.name.as_str(), tried.key.as_str(), tried.etag.as_str()), ("", "", ""));
    assert!(tried.permissions.contains(&"workflows.list".to_owned()));
    let list = || admin::ListApiKeysRequest { parent: ACME.to_owned(), ..Default::default() };
    assert!(world.api_keys().list_api_keys(list()).await.unwrap().into_inner().api_keys.is_empty());
    let made = world.make(ACME, wanted(ACME, &["viewer"])).await;
    let changed = AccessKey { display_name: "else".to_owned(), ..made.clone() };
    let request = admin::UpdateApiKeyRequest { api_key: Some(changed), validate_only: true, ..Default::default() };
    let tried = world.api_keys().update_api_key(request).await.unwrap().into_inner();
    assert_eq!((tried.display_name.as_str(), tried.etag.as_str()), ("else", ""));
    let request = admin::DeleteApiKeyRequest { name: made.name.clone(), validate_only: true, ..Default::default() };
    world.api_keys().delete_api_key(request).await.unwrap();
    assert_eq!(world.get_key(&made.name).await.display_name, "CI");
    get_acme(&world.caller(&made.key)).await.unwrap();
}

#[tokio::test]
async fn keys_are_listed_by_pages_and_by_filter() {
    let world = World::new().await;
    let soon = AccessKey { expire_time: Some(at(START + 5_000)), ..wanted(ACME, &["viewer"]) };
    let mut made = vec![world.make(ACME, soon).await.name];
    for role in ["viewer", "webhook-sender", "editor"] {
        made.push(world.make(ACME, wanted(ACME, &[role])).await.name);
    }
    let [soon, viewer, sender, editor] = made.clone().try_into().unwrap();
    made.sort();
    let mut pages = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = admin::ListApiKeysRequest { parent: ACME.to_owned(), page_size: 3, page_token, filter: None };
        let page = world.api_keys().list_api_keys(request).await.unwrap().into_inner();
        pages.push(page.api_keys.iter().map(|key| key.name.clone()).collect::<Vec<_>>());
        assert!(page.api_keys.iter().all(|key| key.key.is_empty()));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((pages.len(), pages.concat()), (2, made));
    let role = |id: &str| AccessKeyFilter { role: format!("workspaces/acme/roles/{id}"), ..Default::default() };
    let permission = |name: &str| AccessKeyFilter { permission: name.to_owned(), ..Default::default() };
    let cases = [
        (role("viewer"), vec![&soon, &viewer]),
        (permission("INCOMING_WEBHOOK_EXECUTE"), vec![&sender]),
        (permission("workflows.create"), vec![&editor]),
        (AccessKeyFilter { expires_before: Some(at(START + 6_000)), ..Default::default() }, vec![&soon]),
        (AccessKeyFilter { expires_before: Some(at(START + 5_000)), ..Default::default() }, vec![]),
        (AccessKeyFilter { unused_since: Some(at(START)), ..role("editor") }, vec![&editor]),
        (
            AccessKeyFilter { service_account: "workspaces/acme/serviceAccounts/x".to_owned(), ..Default::default() },
            vec![],
        ),
    ];
    for (filter, mut expected) in cases {
        let request =
            admin::ListApiKeysRequest { parent: ACME.to_owned(), filter: Some(filter.clone()), ..Default::default() };
        let listed = world.api_keys().list_api_keys(request).await.unwrap().into_inner().api_keys;
        expected.sort();
        assert_eq!(listed.iter().map(|key| &key.name).collect::<Vec<_>>(), expected, "{filter:?}");
    }
}

#[tokio::test]
async fn data_planes_hear_of_the_keys_that_senders_use_and_of_no_others() {
    let world = World::new().await;
    let first = world.revision("acme").await;
    world.make(ACME, wanted(ACME, &["viewer"])).await;
    assert_eq!(world.revision("acme").await, first);
    let sender = world.make(ACME, wanted(ACME, &["webhook-sender"])).await;
    assert_eq!(world.revision("acme").await, first + 1);
    let renamed = AccessKey { display_name: "else".to_owned(), ..sender.clone() };
    world.update_key(renamed, &["display_name"]).await.unwrap();
    assert_eq!(world.revision("acme").await, first + 1);
    let until = AccessKey { expire_time: Some(at(START + 5_000)), etag: String::new(), ..sender.clone() };
    world.update_key(until, &["expire_time"]).await.unwrap();
    assert_eq!(world.revision("acme").await, first + 2);
    let delete = admin::DeleteApiKeyRequest { name: sender.name, ..Default::default() };
    world.api_keys().delete_api_key(delete).await.unwrap();
    assert_eq!(world.revision("acme").await, first + 3);
}

#[tokio::test]
async fn the_keys_in_files_are_shown_and_left_alone() {
    let world = World::new().await;
    let listed = world.api_keys().list_api_keys(admin::ListApiKeysRequest::default()).await.unwrap().into_inner();
    let shown: std::collections::BTreeMap<_, _> =
        listed.api_keys.iter().map(|key| (key.display_name.as_str(), (key.roles.concat(), key.from_file))).collect();
    assert_eq!(shown["admin.key"], ("roles/admin".to_owned(), true));
    assert_eq!(shown["data-plane.key"], ("roles/data-plane".to_owned(), true));
    assert_eq!(shown.len(), 2);
    for key in listed.api_keys {
        let request = admin::DeleteApiKeyRequest { name: key.name.clone(), ..Default::default() };
        let refused = world.api_keys().delete_api_key(request).await.unwrap_err();
        assert!(has(&violations(&refused), "name", "KEPT_IN_FILE"));
        let refused = world.update_key(AccessKey { display_name: "x".to_owned(), ..key }, &[]).await.unwrap_err();
        assert!(has(&violations(&refused), "name", "KEPT_IN_FILE"));
    }
}

#[tokio::test]
async fn too_many_wrong_keys_get_another_answer_and_good_ones_go_on() {
    let world = World::new().await;
    let wrong = world.caller("slc_00000000_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    for _ in 0..20 {
        assert_eq!(refusal(&get_acme(&wrong).await.unwrap_err()), unknown());
    }
    let refused = get_acme(&wrong).await.unwrap_err();
    assert_eq!(refusal(&refused), (Code::ResourceExhausted, "OVERLOADED".to_owned()));
    assert!(refused.message().contains("`failed_keys_per_minute`"), "{}", refused.message());
    get_acme(&world.admin()).await.unwrap();
    world.clock.advance(3_000);
    assert_eq!(refusal(&get_acme(&wrong).await.unwrap_err()), unknown());
    assert_eq!(get_acme(&wrong).await.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn the_keys_of_a_purged_workspace_are_gone() {
    let world = World::new().await;
    world.workspace("gone").await;
    let parent = "workspaces/gone";
    let caller = world.with_roles(parent, &["admin"]).await;
    let delete = admin::DeleteWorkspaceRequest { name: parent.to_owned(), ..Default::default() };
    world.workspaces().delete_workspace(delete).await.unwrap();
    // It can come back, and so can what its keys may do; until then they change nothing.
    let refused = make_as(&caller, parent, wanted(parent, &["viewer"])).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    world.clock.advance(30 * 24 * 3600 * 1000);
    let world = world.restart().await;
    let key = caller.key_text().to_owned();
    within(async {
        while list_connections(&world.caller(&key), parent).await.unwrap_err().code() != Code::Unauthenticated {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
