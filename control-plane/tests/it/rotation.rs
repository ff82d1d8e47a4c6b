//! A secret is changed without a moment in which the wrong one is in force (S16, K08, K13).

use std::fmt::Debug;

use sluice_core::seal::{self, Aad, MasterKeys, Sealed, WrappedKey};
use sluice_proto::admin::v1 as admin;
use sluice_proto::admin::v1::connection::Scheme;
use sluice_proto::admin::v1::incoming_integration::Authorization;
use sluice_proto::sync::v1::Resource;
use tonic::{Code, Status};

use crate::sync::DataPlane;
use crate::world::{ACME, RING, World, api_key, incoming, refusal, violations};

/// The slots of one field as `active / staged / previous`, each by the change that brought it.
fn slots(secrets: &admin::Secrets, field: &str) -> String {
    let state = secrets.secrets.iter().find(|state| state.field == field).unwrap();
    let change = |slot: &Option<admin::SecretInSlot>| {
        slot.as_ref().map_or("-".to_owned(), |slot| {
            assert!(slot.since_time.is_some());
            slot.change.to_string()
        })
    };
    format!("{} / {} / {}", change(&state.active), change(&state.staged), change(&state.previous))
}

/// One rotation of one field.
struct Rotating<'a> {
    world: &'a World,
    name: &'a str,
    field: &'a str,
}

impl Rotating<'_> {
    async fn get(&self) -> admin::Secrets {
        let request = admin::GetSecretsRequest { name: self.name.to_owned() };
        self.world.secrets().get_secrets(request).await.unwrap().into_inner()
    }

    async fn stage(&self, value: &str) -> Result<admin::Secrets, Status> {
        let (name, field) = (self.name.to_owned(), self.field.to_owned());
        let request = admin::StageSecretRequest { name, field, value: value.to_owned(), ..Default::default() };
        self.world.secrets().stage_secret(request).await.map(tonic::Response::into_inner)
    }

    async fn activate(&self) -> Result<admin::Secrets, Status> {
        let (name, field) = (self.name.to_owned(), self.field.to_owned());
        let request = admin::ActivateSecretRequest { name, field, ..Default::default() };
        self.world.secrets().activate_secret(request).await.map(tonic::Response::into_inner)
    }

    async fn revert(&self) -> Result<admin::Secrets, Status> {
        let (name, field) = (self.name.to_owned(), self.field.to_owned());
        let request = admin::RevertSecretRequest { name, field, ..Default::default() };
        self.world.secrets().revert_secret(request).await.map(tonic::Response::into_inner)
    }

    async fn retire(&self, slot: admin::SecretSlot) -> Result<admin::Secrets, Status> {
        let (name, field) = (self.name.to_owned(), self.field.to_owned());
        let request = admin::RetireSecretRequest { name, field, slot: slot.into(), ..Default::default() };
        self.world.secrets().retire_secret(request).await.map(tonic::Response::into_inner)
    }
}

/// The secrets of a resource as a data plane opens them: field, slot and text.
fn opened(plane: &DataPlane, resource: &Resource) -> Vec<(String, admin::SecretSlot, String)> {
    let wrapped = plane.data_key(ACME);
    let wrapped = WrappedKey { key_id: wrapped.key_id, bytes: wrapped.ciphertext.to_vec() };
    let key = MasterKeys::parse(RING).unwrap().unwrap(&wrapped, ACME).unwrap();
    let open = |sealed: &sluice_proto::sync::v1::SealedSecret| {
        let version = sealed.version.unsigned_abs();
        let aad = Aad { workspace: ACME, object: &resource.name, field: &sealed.field, version };
        let secret = seal::open_text(&key, aad, &Sealed::from_bytes(sealed.ciphertext.to_vec())).unwrap();
        (sealed.field.clone(), sealed.slot(), secret.expose().to_owned())
    };
    resource.secrets.iter().map(open).collect()
}

fn reason<T: Debug>(result: Result<T, Status>) -> String {
    let (code, reason) = refusal(&result.unwrap_err());
    assert_eq!(code, Code::FailedPrecondition);
    reason
}

fn meta(app_secret: &str) -> admin::IncomingIntegration {
    let meta = admin::MetaAuthorization {
        app_secret: app_secret.to_owned(),
        verify_token: "verify-token".to_owned(),
        ..Default::default()
    };
    admin::IncomingIntegration { authorization: Some(Authorization::Meta(meta)), ..incoming() }
}

#[tokio::test]
async fn a_connection_secret_is_staged_activated_taken_back_and_retired() {
    use admin::SecretSlot::{Active, Previous, Staged};
    let world = World::new().await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    let name = world.connection("crm", "secret-one").await.name;
    let rotating = Rotating { world: &world, name: &name, field: "api_key.secret" };
    assert_eq!(slots(&rotating.get().await, rotating.field), "1 / - / -");
    assert_eq!(reason(rotating.activate().await), "SECRET_SLOT_EMPTY");
    assert_eq!(reason(rotating.revert().await), "SECRET_SLOT_EMPTY");

    let staged = rotating.stage("secret-wrong").await.unwrap();
    assert_eq!(slots(&staged, rotating.field), "1 / 2 / -");
    let staged = rotating.stage("secret-two").await.unwrap();
    assert_eq!(slots(&staged, rotating.field), "1 / 3 / -", "staged anew");
    let active = rotating.activate().await.unwrap();
    assert_eq!(slots(&active, rotating.field), "3 / - / 1");
    rotating.stage("secret-three").await.unwrap();
    assert_eq!(reason(rotating.activate().await), "SECRET_SLOT_TAKEN", "one previous secret is kept, not two");
    assert_eq!(reason(rotating.revert().await), "SECRET_SLOT_TAKEN");
    rotating.retire(Staged).await.unwrap();
    assert_eq!(reason(rotating.retire(Staged).await), "SECRET_SLOT_EMPTY");
    let reverted = rotating.revert().await.unwrap();
    assert_eq!(slots(&reverted, rotating.field), "1 / 3 / -");
    rotating.activate().await.unwrap();
    let done = rotating.retire(Previous).await.unwrap();
    assert_eq!(slots(&done, rotating.field), "3 / - / -");
    assert!(!done.secrets[0].overlaps && !done.secrets[0].unpublished);

    let request = admin::GetConnectionRequest { name: name.clone() };
    let shown = world.connections().get_connection(request).await.unwrap().into_inner();
    assert_eq!(shown.etag, done.etag);
    assert_eq!(shown.version, 9, "each step is a change in force: tokens fetched before are dropped");
    let held = plane.until(ACME, world.revision("acme").await).await;
    assert_eq!(opened(&plane, &held[&name]), [("api_key.secret".to_owned(), Active, "secret-two".to_owned())]);
    let refused = rotating.retire(Active).await.unwrap_err();
    assert_eq!(violations(&refused), [("api_key.secret".to_owned(), "REQUIRED".to_owned())]);
}

#[tokio::test]
async fn secrets_of_a_published_endpoint_overlap_without_publishing() {
    use admin::SecretSlot::{Active, Previous};
    let world = World::new().await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    let request = admin::CreateIncomingIntegrationRequest {
        parent: ACME.to_owned(),
        incoming_integration_id: "meta".to_owned(),
        incoming_integration: Some(meta("app-one")),
        ..Default::default()
    };
    let made = world.incoming().create_incoming_integration(request).await.unwrap().into_inner();
    let name = made.name.clone();
    world.publish_incoming(&name).await.unwrap();
    // The draft has other fields than what is in force; rotating leaves both as they are.
    let request = admin::UpdateIncomingIntegrationRequest {
        incoming_integration: Some(admin::IncomingIntegration {
            display_name: "Changed".to_owned(),
            etag: String::new(),
            ..made
        }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["display_name".to_owned()] }),
        ..Default::default()
    };
    world.incoming().update_incoming_integration(request).await.unwrap();
    let rotating = Rotating { world: &world, name: &name, field: "meta.app_secret" };
    rotating.stage("app-two").await.unwrap();
    let active = rotating.activate().await.unwrap();
    assert!(active.secrets[0].overlaps && active.secrets[1].overlaps);
    let held = plane.until(ACME, world.revision("acme").await).await;
    let expected = [
        ("meta.app_secret".to_owned(), Active, "app-two".to_owned()),
        ("meta.app_secret".to_owned(), Previous, "app-one".to_owned()),
        ("meta.verify_token".to_owned(), Active, "verify-token".to_owned()),
    ];
    assert_eq!(opened(&plane, &held[&name]), expected);
    assert_eq!(held[&name].version, 1, "nothing was published");
    let request = admin::GetIncomingIntegrationRequest { name: name.clone() };
    let shown = world.incoming().get_incoming_integration(request.clone()).await.unwrap().into_inner();
    assert!(shown.display_name == "Changed" && shown.has_unpublished_changes && shown.published_version == 1);

    // Taken back, the draft is what is in force, rotated or not.
    let request_back = admin::UpdateIncomingIntegrationRequest {
        incoming_integration: Some(admin::IncomingIntegration { display_name: "Orders".to_owned(), ..shown }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["display_name".to_owned()] }),
        ..Default::default()
    };
    let shown = world.incoming().update_incoming_integration(request_back).await.unwrap().into_inner();
    assert!(!shown.has_unpublished_changes);

    // K13: what is published later has the secrets of then; the retired one does not come back.
    rotating.retire(Previous).await.unwrap();
    let request = admin::UnpublishIncomingIntegrationRequest { name: name.clone(), ..Default::default() };
    world.incoming().unpublish_incoming_integration(request).await.unwrap();
    world.publish_incoming(&name).await.unwrap();
    let held = plane.until(ACME, world.revision("acme").await).await;
    assert_eq!(held[&name].secrets.len(), 2);
    assert_eq!(opened(&plane, &held[&name])[0].2, "app-two");
}

#[tokio::test]
async fn a_secret_changed_in_the_draft_is_published_first() {
    let world = World::new().await;
    let request = admin::CreateIncomingIntegrationRequest {
        parent: ACME.to_owned(),
        incoming_integration_id: "meta".to_owned(),
        incoming_integration: Some(meta("app-one")),
        ..Default::default()
    };
    let made = world.incoming().create_incoming_integration(request).await.unwrap().into_inner();
    let rotating = Rotating { world: &world, name: &made.name, field: "meta.app_secret" };
    // A draft that is not in force rotates by itself.
    let revision = world.revision("acme").await;
    rotating.stage("app-two").await.unwrap();
    assert_eq!(world.revision("acme").await, revision);
    world.publish_incoming(&made.name).await.unwrap();
    let changed = admin::IncomingIntegration { name: made.name.clone(), ..meta("app-three") };
    let request = admin::UpdateIncomingIntegrationRequest { incoming_integration: Some(changed), ..Default::default() };
    world.incoming().update_incoming_integration(request).await.unwrap();
    let shown = rotating.get().await;
    assert_eq!(slots(&shown, rotating.field), "4 / - / -", "a new secret in an update is the only one");
    assert!(shown.secrets[0].unpublished);
    assert_eq!(reason(rotating.stage("app-four").await), "SECRET_UNPUBLISHED");
    world.publish_incoming(&made.name).await.unwrap();
    rotating.stage("app-four").await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_rotated_is_refused_clearly() {
    const ID: &str = "5b0cdd4e-7a5a-4a0e-9d49-62a2c9b6a0f1";
    let world = World::new().await;
    let name = world.connection("crm", "secret-one").await.name;
    let rotating = |field| Rotating { world: &world, name: &name, field };
    let refused = rotating("api_key.sectet").stage("x").await.unwrap_err();
    assert_eq!(violations(&refused), [("field".to_owned(), "FIELD_UNKNOWN".to_owned())]);
    assert!(refused.message().contains("api_key.secret"), "{refused:?}");
    for (value, reason) in [("", "REQUIRED"), ("CANARY\n", "CONTROL_CHARACTER"), (&"CANARY".repeat(1000), "TOO_LONG")] {
        let refused = rotating("api_key.secret").stage(value).await.unwrap_err();
        assert_eq!(violations(&refused), [("value".to_owned(), reason.to_owned())]);
        assert!(!format!("{refused:?}").contains("CANARY"));
    }
    let refused = rotating("api_key.secret").retire(admin::SecretSlot::Unspecified).await.unwrap_err();
    assert_eq!(violations(&refused), [("slot".to_owned(), "REQUIRED".to_owned())]);
    let plain = world.incoming_integration("orders").await.name;
    let nothing = Rotating { world: &world, name: &plain, field: "meta.app_secret" };
    assert_eq!(violations(&nothing.stage("x").await.unwrap_err()), [("field".to_owned(), "FIELD_UNKNOWN".to_owned())]);
    assert!(nothing.get().await.secrets.is_empty());
    for other in ["workspaces/acme/workflows/flow", "workspaces/acme", "crm"] {
        let other = Rotating { world: &world, name: other, field: "x" };
        assert_eq!(violations(&other.stage("x").await.unwrap_err()), [("name".to_owned(), "NAME_INVALID".to_owned())]);
    }
    let gone = Rotating { world: &world, name: "workspaces/acme/connections/gone", field: "api_key.secret" };
    assert_eq!(refusal(&gone.stage("x").await.unwrap_err()).0, Code::NotFound);

    let stage = admin::StageSecretRequest {
        name: name.clone(),
        field: "api_key.secret".to_owned(),
        value: "secret-two".to_owned(),
        ..Default::default()
    };
    let late = admin::StageSecretRequest { etag: "stale".to_owned(), ..stage.clone() };
    assert_eq!(refusal(&world.secrets().stage_secret(late).await.unwrap_err()).1, "ETAG_MISMATCH");
    let revision = world.revision("acme").await;
    let tried = admin::StageSecretRequest { validate_only: true, ..stage.clone() };
    let tried = world.secrets().stage_secret(tried).await.unwrap().into_inner();
    assert!(tried.etag.is_empty() && tried.secrets[0].staged.is_some());
    assert_eq!(world.revision("acme").await, revision);
    let named = admin::StageSecretRequest { request_id: ID.to_owned(), ..stage };
    let first = world.secrets().stage_secret(named.clone()).await.unwrap().into_inner();
    assert_eq!(world.secrets().stage_secret(named.clone()).await.unwrap().into_inner(), first);
    let other = admin::StageSecretRequest { value: "another".to_owned(), ..named };
    assert_eq!(refusal(&world.secrets().stage_secret(other).await.unwrap_err()).1, "REQUEST_ID_REUSED");
}

/// K08: what may be empty is cleared by saying so, never by leaving it out.
#[tokio::test]
async fn clearing_is_explicit() {
    let world = World::new().await;
    let login =
        admin::LoginPassword { login: "me".to_owned(), password: "secret-one".to_owned(), ..Default::default() };
    let connection = |login| admin::Connection { scheme: Some(Scheme::LoginPassword(login)), ..api_key("") };
    let request = admin::CreateConnectionRequest {
        parent: ACME.to_owned(),
        connection: Some(connection(login.clone())),
        ..Default::default()
    };
    let made = world.connections().create_connection(request).await.unwrap().into_inner();
    let is_set = |connection: admin::Connection| match connection.scheme {
        Some(Scheme::LoginPassword(login)) => login.password_set,
        other => panic!("{other:?}"),
    };
    let emptied = admin::Connection {
        name: made.name.clone(),
        ..connection(admin::LoginPassword { password: String::new(), ..login })
    };
    let request = admin::UpdateConnectionRequest { connection: Some(emptied), ..Default::default() };
    assert!(is_set(world.connections().update_connection(request).await.unwrap().into_inner()), "left out: kept");
    let rotating = Rotating { world: &world, name: &made.name, field: "login_password.password" };
    let cleared = rotating.retire(admin::SecretSlot::Active).await.unwrap();
    assert_eq!(slots(&cleared, rotating.field), "- / - / -");
    let request = admin::GetConnectionRequest { name: made.name.clone() };
    assert!(!is_set(world.connections().get_connection(request).await.unwrap().into_inner()));
}
