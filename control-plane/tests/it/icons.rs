//! Icons of integrations (R014, D28): told by their content, shown to authors and to nobody else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sluice_proto::admin::v1 as admin;
use sluice_proto::admin::v1::versioned_document::Kind;
use sluice_proto::sync::v1::resource::Document;
use tonic::Status;

use crate::sync::DataPlane;
use crate::world::{ACME, World, has, incoming, outgoing, violations};

/// A picture of one pixel.
fn png() -> Bytes {
    let text = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==";
    STANDARD.decode(text).unwrap().into()
}

async fn send_integration(world: &World, icon: Bytes) -> Result<admin::OutgoingIntegration, Status> {
    let request = admin::CreateOutgoingIntegrationRequest {
        parent: ACME.to_owned(),
        outgoing_integration_id: "send".to_owned(),
        outgoing_integration: Some(admin::OutgoingIntegration { icon, ..outgoing("") }),
        ..Default::default()
    };
    Ok(world.outgoing().create_outgoing_integration(request).await?.into_inner())
}

async fn with_icon(world: &World, name: &str, icon: Bytes) -> Result<admin::OutgoingIntegration, Status> {
    let document = admin::OutgoingIntegration { name: name.to_owned(), icon, ..Default::default() };
    let request = admin::UpdateOutgoingIntegrationRequest {
        outgoing_integration: Some(document),
        update_mask: Some(prost_types::FieldMask { paths: vec!["icon".to_owned()] }),
        ..Default::default()
    };
    Ok(world.outgoing().update_outgoing_integration(request).await?.into_inner())
}

#[tokio::test]
async fn an_icon_is_shown_with_its_integration_and_is_no_part_of_what_is_published() {
    let world = World::new().await;
    let made = send_integration(&world, png()).await.unwrap();
    assert_eq!((&made.icon, made.icon_type.as_str()), (&png(), "image/png"));
    world.publish_outgoing(&made.name).await.unwrap();
    let request = admin::CreateIncomingIntegrationRequest {
        parent: ACME.to_owned(),
        incoming_integration_id: "orders".to_owned(),
        incoming_integration: Some(admin::IncomingIntegration { icon: png(), ..incoming() }),
        ..Default::default()
    };
    let orders = world.incoming().create_incoming_integration(request).await.unwrap().into_inner();
    assert_eq!((&orders.icon, orders.icon_type.as_str()), (&png(), "image/png"));
    world.publish_incoming(&orders.name).await.unwrap();

    let request = admin::ListOutgoingIntegrationsRequest { parent: ACME.to_owned(), ..Default::default() };
    let listed = world.outgoing().list_outgoing_integrations(request).await.unwrap().into_inner();
    let listed = &listed.outgoing_integrations[0];
    assert!(listed.icon.is_empty() && listed.icon_type == "image/png", "lists stay light");
    let get = admin::GetVersionRequest { name: format!("{}/versions/1", made.name) };
    let version = world.versions().get_version(get).await.unwrap().into_inner();
    let Some(Kind::OutgoingIntegration(version)) = version.document.unwrap().kind else { panic!("another kind") };
    assert!(version.icon.is_empty() && version.icon_type.is_empty());
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    let resources = plane.until(ACME, 2).await;
    let Some(Document::OutgoingIntegration(sent)) = &resources[&made.name].document else { panic!("not sent") };
    assert!(sent.icon.is_empty() && sent.icon_type.is_empty());
    let Some(Document::IncomingIntegration(sent)) = &resources[&orders.name].document else { panic!("not sent") };
    assert!(sent.icon.is_empty() && sent.icon_type.is_empty());

    // It counts when it is saved: nothing is left to publish.
    let bare = with_icon(&world, &made.name, Bytes::new()).await.unwrap();
    assert_eq!((bare.icon_type.as_str(), bare.has_unpublished_changes), ("", false));
    let again = with_icon(&world, &made.name, png()).await.unwrap();
    assert_eq!((again.icon_type.as_str(), again.has_unpublished_changes), ("image/png", false));
    let rollback = admin::RollbackVersionRequest { name: format!("{}/versions/1", made.name), ..Default::default() };
    let back = world.versions().rollback_version(rollback).await.unwrap().into_inner();
    let Some(Kind::OutgoingIntegration(back)) = back.document.unwrap().kind else { panic!("another kind") };
    assert_eq!(back.icon, png(), "it stays");
    let diff = admin::DiffVersionsRequest { name: made.name.clone(), from_version: 1, to_version: 0 };
    assert_eq!(world.versions().diff_versions(diff).await.unwrap().into_inner().changes, []);
    let export = admin::ExportConfigurationRequest { parent: ACME.to_owned(), ..Default::default() };
    let exported = world.configuration().export_configuration(export).await.unwrap().into_inner();
    assert_eq!(exported.configuration.unwrap().outgoing_integrations[0].icon, png());
}

#[tokio::test]
async fn what_is_no_small_picture_is_no_icon() {
    let world = World::new().await;
    for icon in [&b"GIF89a\x01\0\x01\0"[..], b"<svg xmlns='http://www.w3.org/2000/svg'/>", &png()[..40]] {
        let refused = send_integration(&world, Bytes::copy_from_slice(icon)).await.unwrap_err();
        assert!(has(&violations(&refused), "icon", "ICON_INVALID"), "{refused:?}");
        assert!(refused.message().contains("PNG, JPEG or WebP"), "{}", refused.message());
    }
    let large = send_integration(&world, vec![0; 64 * 1024 + 1].into()).await.unwrap_err();
    assert!(large.message().contains("has 65537 bytes; the limit is 65536"), "{}", large.message());
}
