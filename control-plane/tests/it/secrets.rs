//! Secrets go in and never come out.

use prost::Message;
use sluice_proto::admin::v1 as admin;
use sluice_proto::admin::v1::connection::Scheme;
use sluice_proto::admin::v1::incoming_integration::Authorization;

use crate::outsider::stored;
use crate::sync::{DataPlane, resources};
use crate::world::{ACME, World, api_key, incoming};

const CANARY: &str = "CANARY-9f3c1b";

fn clean(message: &(impl Message + std::fmt::Debug)) {
    let bytes = message.encode_to_vec();
    assert!(!bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()), "{message:?}");
}

fn login(password: &str) -> admin::Connection {
    let login = admin::LoginPassword { login: "me".to_owned(), password: password.to_owned(), ..Default::default() };
    admin::Connection {
        display_name: "Shop".to_owned(),
        scheme: Some(Scheme::LoginPassword(login)),
        ..Default::default()
    }
}

fn meta() -> admin::IncomingIntegration {
    let meta = admin::MetaAuthorization {
        app_secret: format!("{CANARY}-app"),
        verify_token: format!("{CANARY}-verify"),
        ..Default::default()
    };
    admin::IncomingIntegration { authorization: Some(Authorization::Meta(meta)), ..incoming() }
}

/// Fills every secret field, uses every call that could show one, and searches all that came back and all that was kept.
#[tokio::test]
async fn no_answer_no_file_and_no_stream_holds_a_secret() {
    let world = World::new().await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    for (index, connection) in
        [api_key(&format!("{CANARY}-key")), login(&format!("{CANARY}-password"))].into_iter().enumerate()
    {
        let request = admin::CreateConnectionRequest {
            parent: ACME.to_owned(),
            connection_id: format!("con-{index}"),
            connection: Some(connection.clone()),
            request_id: format!("5b0cdd4e-7a5a-4a0e-9d49-62a2c9b6a0f{index}"),
            ..Default::default()
        };
        let made = world.connections().create_connection(request.clone()).await.unwrap().into_inner();
        clean(&made);
        clean(&world.connections().create_connection(request.clone()).await.unwrap().into_inner());
        let other = admin::CreateConnectionRequest { connection_id: "other".to_owned(), ..request.clone() };
        no_canary(&world.connections().create_connection(other).await.unwrap_err());
        let broken = admin::Connection { display_name: String::new(), ..connection.clone() };
        let broken = admin::CreateConnectionRequest { connection: Some(broken), request_id: String::new(), ..request };
        no_canary(&world.connections().create_connection(broken).await.unwrap_err());
        let tried = admin::UpdateConnectionRequest {
            connection: Some(admin::Connection { name: made.name.clone(), ..connection }),
            validate_only: true,
            ..Default::default()
        };
        clean(&world.connections().update_connection(tried).await.unwrap().into_inner());
        let request = admin::GetConnectionRequest { name: made.name };
        clean(&world.connections().get_connection(request).await.unwrap().into_inner());
    }
    let request = admin::CreateIncomingIntegrationRequest {
        parent: ACME.to_owned(),
        incoming_integration_id: "meta".to_owned(),
        incoming_integration: Some(meta()),
        ..Default::default()
    };
    let made = world.incoming().create_incoming_integration(request).await.unwrap().into_inner();
    clean(&made);
    clean(&world.publish_incoming(&made.name).await.unwrap());
    let request = admin::ListConnectionsRequest { parent: ACME.to_owned(), ..Default::default() };
    clean(&world.connections().list_connections(request).await.unwrap().into_inner());

    let held = plane.until(ACME, world.revision("acme").await).await;
    assert_eq!(held.values().map(|resource| resource.secrets.len()).sum::<usize>(), 4, "sealed secrets travel");
    for resource in held.values() {
        clean(resource);
    }
    drop(plane);

    let clean_store = async |folder: &std::path::Path| {
        let bytes = stored(folder).await;
        assert!(bytes.len() > 1000 && !bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()));
    };
    clean_store(world.folder.path()).await;
    let (folder, _) = world.end().await;
    clean_store(folder.path()).await;
}

fn no_canary(status: &tonic::Status) {
    assert!(!format!("{status:?}").contains(CANARY), "{status:?}");
    assert!(!status.details().windows(CANARY.len()).any(|window| window == CANARY.as_bytes()));
}

#[tokio::test]
async fn an_update_without_the_secret_keeps_it_and_another_scheme_drops_it() {
    let world = World::new().await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    let made = world.connection("crm", "s3cret").await;
    let update = |connection: admin::Connection| {
        let connection = Some(admin::Connection { name: made.name.clone(), ..connection });
        let mut client = world.connections();
        async move {
            let request = admin::UpdateConnectionRequest { connection, ..Default::default() };
            client.update_connection(request).await.map(tonic::Response::into_inner)
        }
    };
    let first = plane.until(ACME, 1).await[&made.name].secrets.clone();
    assert_eq!((first[0].field.as_str(), first[0].version), ("api_key.secret", 1));

    let renamed = admin::Connection { display_name: "New".to_owned(), ..api_key("") };
    let Some(Scheme::ApiKey(key)) = update(renamed).await.unwrap().scheme else { panic!("another scheme") };
    assert!(key.secret_set);
    assert_eq!(plane.until(ACME, 2).await[&made.name].secrets, first, "the same seal");

    update(api_key("another")).await.unwrap();
    let second = plane.until(ACME, 3).await[&made.name].secrets.clone();
    assert!(second[0].version == 3 && second[0].ciphertext != first[0].ciphertext);

    update(login("pass")).await.unwrap();
    let third = plane.until(ACME, 4).await[&made.name].secrets.clone();
    assert_eq!((third.len(), third[0].field.as_str()), (1, "login_password.password"));
    let refused = update(api_key("")).await.unwrap_err();
    assert!(crate::world::has(&crate::world::violations(&refused), "api_key.secret", "REQUIRED"), "it is gone");
    // Claiming that one is stored does not help.
    let mut claimed = api_key("");
    if let Some(Scheme::ApiKey(key)) = &mut claimed.scheme {
        key.secret_set = true;
    }
    assert!(update(claimed).await.is_err());
    assert_eq!(resources(&plane, ACME).len(), 1);
}

/// What a data plane gets opens with the ring it shares, under the name of the workspace, and nowhere else.
#[tokio::test]
async fn a_data_plane_with_the_ring_opens_them() {
    use sluice_core::seal::{self, Aad, MasterKeys, Sealed, WrappedKey};
    let world = World::new().await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    let name = world.connection("crm", "s3cret").await.name;
    let resource = plane.until(ACME, 1).await[&name].clone();
    let wrapped = plane.data_key(ACME);
    let ring = MasterKeys::parse(&std::fs::read_to_string(world.folder.path().join("master.key")).unwrap()).unwrap();
    let wrapped = WrappedKey { key_id: wrapped.key_id, bytes: wrapped.ciphertext.to_vec() };
    let key = ring.unwrap(&wrapped, ACME).unwrap();
    let sealed = &resource.secrets[0];
    let aad = Aad { workspace: ACME, object: &name, field: &sealed.field, version: sealed.version.unsigned_abs() };
    let open = |aad| seal::open_text(&key, aad, &Sealed::from_bytes(sealed.ciphertext.to_vec()));
    assert_eq!(open(aad).unwrap().expose(), "s3cret");
    assert!(open(Aad { object: "workspaces/acme/connections/other", ..aad }).is_err());
    assert!(open(Aad { version: 2, ..aad }).is_err());
    assert!(ring.unwrap(&wrapped, "workspaces/other").is_err());
}
