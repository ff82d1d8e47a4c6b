//! A workspace gets another data key: all that the one before has sealed is sealed anew, nobody notices, and the old key is gone.

use std::path::Path;
use std::time::Duration;

use sluice_control_plane::{Clock, Settings};
use sluice_core::seal::{self, Aad, MasterKeys, Sealed, WrappedKey};
use sluice_proto::admin::v1 as admin;
use sluice_proto::admin::v1::incoming_integration::Authorization;
use sluice_proto::admin::v1::operation::{State, Work};
use sluice_proto::sync::v1::sync_response::Kind as Hear;
use sluice_proto::sync::v1::{self as sync, AcceptedRequest, Outcome};

use crate::outcomes::Reporter;

use crate::outsider::stored;
use crate::restart::SECOND;
use crate::sync::DataPlane;
use crate::world::{ACME, RING, START, World, incoming, settings, within};

const DELIVERIES: usize = 120;
const BODY: &str = "what was answered";

/// A world that takes its time between the steps of a rotation.
async fn slow_world() -> World {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("master.key"), RING).unwrap();
    let clock = Clock::manual(START);
    let settings = Settings { rewrap_pause: Duration::from_millis(100), ..settings(folder.path(), &clock) };
    let world = World::start_with(folder, settings).await;
    world.workspace("acme").await;
    world
}

fn meta(app_secret: &str) -> admin::IncomingIntegration {
    let meta = admin::MetaAuthorization {
        app_secret: app_secret.to_owned(),
        verify_token: "verify-token".to_owned(),
        ..Default::default()
    };
    admin::IncomingIntegration { authorization: Some(Authorization::Meta(meta)), ..incoming() }
}

/// A draft that differs from what is in force, and a secret that is staged.
async fn with_secrets(world: &World) -> (String, String) {
    let connection = world.connection("crm", "secret-one").await.name;
    let request = admin::StageSecretRequest {
        name: connection.clone(),
        field: "api_key.secret".to_owned(),
        value: "secret-two".to_owned(),
        ..Default::default()
    };
    world.secrets().stage_secret(request).await.unwrap();
    let request = admin::CreateIncomingIntegrationRequest {
        parent: ACME.to_owned(),
        incoming_integration_id: "meta".to_owned(),
        incoming_integration: Some(meta("app-one")),
        ..Default::default()
    };
    let incoming = world.incoming().create_incoming_integration(request).await.unwrap().into_inner().name;
    world.publish_incoming(&incoming).await.unwrap();
    let draft = admin::IncomingIntegration { name: incoming.clone(), ..meta("app-two") };
    let request = admin::UpdateIncomingIntegrationRequest { incoming_integration: Some(draft), ..Default::default() };
    world.incoming().update_incoming_integration(request).await.unwrap();
    (connection, incoming)
}

/// Deliveries with what was sent and answered, and what led to each.
async fn report(world: &World) {
    let outcome = |number: usize| {
        let response = admin::ReceivedResponse { body: BODY.into(), ..Default::default() };
        let attempt = admin::Attempt { number: 1, status: 400, response: Some(response), ..Default::default() };
        let delivery = admin::Delivery {
            name: format!("{ACME}/deliveries/d-{number}"),
            state: admin::DeliveryState::Dead.into(),
            trigger_id: format!("t-{number}"),
            attempts: vec![attempt],
            ..Default::default()
        };
        let request =
            admin::IncomingRequest { name: format!("{ACME}/incomingRequests/t-{number}"), ..Default::default() };
        let accepted = AcceptedRequest { request: Some(request), envelope: "{}".into() };
        let (workspace, delivery, request) = (ACME.to_owned(), Some(delivery), Some(accepted));
        Outcome { workspace, delivery, request, order: 1, ..Default::default() }
    };
    Reporter::connect(world).await.report((0..DELIVERIES).map(outcome).collect()).await;
}

async fn rotate(world: &World, validate_only: bool) -> String {
    let request = admin::RotateDataKeyRequest { name: ACME.to_owned(), validate_only, ..Default::default() };
    world.workspaces().rotate_data_key(request).await.unwrap().into_inner().operation
}

async fn operation(world: &World, name: &str) -> (State, admin::DataKeyRotation) {
    let request = admin::GetOperationRequest { name: name.to_owned() };
    let operation = world.operations().get_operation(request).await.unwrap().into_inner();
    let Some(Work::DataKeyRotation(rotation)) = operation.work else { panic!("no rotation: {operation:?}") };
    (operation.state(), rotation)
}

async fn until(world: &World, name: &str, is: impl Fn(State, &admin::DataKeyRotation) -> bool) {
    within(async {
        loop {
            let (state, rotation) = operation(world, name).await;
            if is(state, &rotation) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Everything that the data plane holds as it opens it with its data key.
fn opened(plane: &DataPlane, ring: &str) -> Vec<(String, String, i32, String)> {
    let wrapped = plane.data_key(ACME);
    let wrapped = WrappedKey { key_id: wrapped.key_id, bytes: wrapped.ciphertext.to_vec() };
    let key = MasterKeys::parse(ring).unwrap().unwrap(&wrapped, ACME).unwrap();
    let all = plane.held[ACME].resources.values();
    let all = all.flat_map(|resource| resource.secrets.iter().map(move |sealed| (resource, sealed)));
    let open = |(resource, sealed): (&sync::Resource, &sync::SealedSecret)| {
        let version = sealed.version.unsigned_abs();
        let aad = Aad { workspace: ACME, object: &resource.name, field: &sealed.field, version };
        let text = seal::open_text(&key, aad, &Sealed::from_bytes(sealed.ciphertext.to_vec())).unwrap();
        (resource.name.clone(), sealed.field.clone(), sealed.slot, text.expose().to_owned())
    };
    all.map(open).collect()
}

/// The draft's and the connection's etag, and what is said of their secrets.
async fn shown(world: &World, connection: &str, incoming: &str) -> (String, bool, Vec<admin::Secrets>) {
    let request = admin::GetIncomingIntegrationRequest { name: incoming.to_owned() };
    let draft = world.incoming().get_incoming_integration(request).await.unwrap().into_inner();
    let mut secrets = Vec::new();
    for name in [connection, incoming] {
        let request = admin::GetSecretsRequest { name: name.to_owned() };
        secrets.push(world.secrets().get_secrets(request).await.unwrap().into_inner());
    }
    (draft.etag, draft.has_unpublished_changes, secrets)
}

async fn all_is_readable(world: &World) {
    for number in [0, DELIVERIES / 2, DELIVERIES - 1] {
        let request = admin::GetDeliveryRequest { name: format!("{ACME}/deliveries/d-{number}") };
        let delivery = world.deliveries().get_delivery(request).await.unwrap().into_inner();
        assert_eq!(delivery.attempts[0].response.as_ref().unwrap().body, BODY);
    }
}

async fn holds(folder: &Path, bytes: &[u8]) -> bool {
    stored(folder).await.windows(bytes.len()).any(|window| window == bytes)
}

/// Whoever may log in at data planes brings the pair that signs tokens.
async fn may_log_in(world: &World) {
    let key = admin::AccessKey {
        display_name: "shop".to_owned(),
        roles: vec![format!("{ACME}/roles/webhook-sender")],
        ..Default::default()
    };
    let request = admin::CreateApiKeyRequest { parent: ACME.to_owned(), api_key: Some(key), ..Default::default() };
    world.api_keys().create_api_key(request).await.unwrap();
}

/// A connection with a secret that was deleted and can come back.
async fn deleted(world: &World) -> String {
    let name = world.connection("gone", "secret-gone").await.name;
    let request = admin::DeleteConnectionRequest { name: name.clone(), ..Default::default() };
    world.connections().delete_connection(request).await.unwrap();
    name
}

#[tokio::test]
async fn all_that_a_data_key_sealed_is_sealed_with_another_and_the_key_is_gone() {
    let world = slow_world().await;
    world.connection("first", "secret-zero").await;
    let mut behind = DataPlane::connect(&world, "dp-2", "", &[]).await;
    behind.sync().await;
    let (connection, incoming) = with_secrets(&world).await;
    may_log_in(&world).await;
    let gone = deleted(&world).await;
    report(&world).await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    plane.sync().await;
    let (held, old_key, told) =
        (opened(&plane, RING), plane.data_key(ACME), shown(&world, &connection, &incoming).await);
    assert!(told.1 && held.len() == 6, "a draft with another secret, and six secrets in force: {held:?}");
    let old_secrets: Vec<_> = plane.held[ACME].resources.values().flat_map(|one| one.secrets.clone()).collect();
    let (epoch, cursors) = (behind.epoch.clone(), behind.cursors());
    drop(behind);
    assert_eq!(rotate(&world, true).await, "");
    let revision = world.revision("acme").await;
    let name = rotate(&world, false).await;
    plane.until(ACME, revision + 1).await;
    assert_ne!(plane.data_key(ACME), old_key);
    assert_eq!(opened(&plane, RING), held);
    for (old, new) in old_secrets.iter().zip(plane.held[ACME].resources.values().flat_map(|one| &one.secrets)) {
        assert_ne!(old.ciphertext, new.ciphertext, "sealed anew");
    }
    assert_eq!(shown(&world, &connection, &incoming).await, told, "nothing has changed for anyone");
    // What was deleted comes back with its secret.
    let request = admin::UndeleteConnectionRequest { name: gone.clone(), ..Default::default() };
    world.connections().undelete_connection(request).await.unwrap();
    // A change made meanwhile opens with the new key; who is behind gets everything, not the changes between.
    world.connection("later", "secret-three").await;
    let mut behind = DataPlane::connect(&world, "dp-2", &epoch, &cursors).await;
    let heard = behind.sync().await;
    assert!(matches!(heard.as_slice(), [Hear::Snapshot(_)]), "{heard:?}");
    assert_eq!(opened(&behind, RING).len(), 8);

    // It goes on after a restart, and no other begins before its end.
    until(&world, &name, |_, rotation| rotation.done > 0).await;
    all_is_readable(&world).await;
    assert_eq!(rotate(&world, false).await, name);
    let cancel = admin::CancelOperationRequest { name: name.clone(), ..Default::default() };
    let operation = world.operations().cancel_operation(cancel).await.unwrap().into_inner();
    assert_eq!(operation.state(), State::Running, "half of it would keep the old key");
    let (ring, _) = (std::fs::read_to_string(world.folder.path().join("master.key")).unwrap(), drop(plane));
    drop(behind);
    let (folder, clock) = world.end().await;
    let path = folder.path().to_owned();
    assert!(holds(&path, &old_key.ciphertext).await, "still needed");
    let settings = Settings { rewrap_pause: Duration::from_millis(100), ..settings(&path, &clock) };
    let world = World::start_with(folder, settings).await;

    // The master key changes in the middle: the old data key is wrapped anew too.
    assert_eq!(world.master_keys_listed().await, ["masterKeys/first primary 3"]);
    std::fs::write(path.join("master.key"), format!("{SECOND}{ring}")).unwrap();
    world.until_master_keys(&["masterKeys/first removable 0", "masterKeys/second primary 3"]).await;
    all_is_readable(&world).await;
    until(&world, &name, |state, _| state == State::Succeeded).await;
    let (_, rotation) = self::operation(&world, &name).await;
    let all = i64::try_from(2 * DELIVERIES).unwrap();
    // The pair's, the first connection's and the deleted one's; active and staged; two in force and two in the draft, where they differ.
    assert_eq!(rotation, admin::DataKeyRotation { secrets: 9, total: all, done: all, unreadable: 0 });
    assert_eq!(world.master_keys_listed().await, ["masterKeys/first removable 0", "masterKeys/second primary 2"]);
    all_is_readable(&world).await;
    let (folder, _) = world.end().await;
    assert!(!holds(folder.path(), &old_key.ciphertext).await, "the old key is gone from the disk");
    for secret in old_secrets {
        assert!(!holds(folder.path(), &secret.ciphertext).await, "{} as it was sealed before", secret.field);
    }
}

#[tokio::test]
async fn a_workspace_that_holds_nothing_gets_another_key_and_one_that_is_not_there_none() {
    let world = World::new().await;
    let name = rotate(&world, false).await;
    until(&world, &name, |state, _| state == State::Succeeded).await;
    let second = rotate(&world, false).await;
    assert_ne!(second, name);
    until(&world, &second, |state, _| state == State::Succeeded).await;
    assert_eq!(world.master_keys_listed().await, ["masterKeys/first primary 2"]);
    let request = admin::RotateDataKeyRequest { name: "workspaces/none".to_owned(), ..Default::default() };
    let refused = world.workspaces().rotate_data_key(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);
}
