//! Drafts, versions, and what may be taken away.

use sluice_proto::admin::v1 as admin;
use sluice_proto::admin::v1::incoming_integration::Authorization;
use tonic::{Code, Status};

use crate::world::{World, details, has, outgoing, refusal, violations};

async fn update_outgoing(world: &World, name: &str, body: &str) -> Result<admin::OutgoingIntegration, Status> {
    let mut document = outgoing("");
    document.name = name.to_owned();
    if let Some(request) = &mut document.request {
        request.body = Some(body.to_owned());
    }
    let request =
        admin::UpdateOutgoingIntegrationRequest { outgoing_integration: Some(document), ..Default::default() };
    world.outgoing().update_outgoing_integration(request).await.map(tonic::Response::into_inner)
}

async fn unpublish_outgoing(world: &World, name: &str) -> Result<admin::OutgoingIntegration, Status> {
    let request = admin::UnpublishOutgoingIntegrationRequest { name: name.to_owned(), ..Default::default() };
    world.outgoing().unpublish_outgoing_integration(request).await.map(tonic::Response::into_inner)
}

async fn delete_outgoing(world: &World, name: &str) -> Result<(), Status> {
    let request = admin::DeleteOutgoingIntegrationRequest { name: name.to_owned(), ..Default::default() };
    world.outgoing().delete_outgoing_integration(request).await.map(drop)
}

#[tokio::test]
async fn a_draft_becomes_numbered_versions() {
    let world = World::new().await;
    let draft = world.outgoing_integration("send", "").await;
    assert!(draft.published_version == 0 && draft.has_unpublished_changes);
    assert_eq!(world.revision("acme").await, 0, "a draft is not for data planes");

    let first = world.publish_outgoing(&draft.name).await.unwrap();
    assert!(first.published_version == 1 && !first.has_unpublished_changes && first.etag != draft.etag);
    let again = world.publish_outgoing(&draft.name).await.unwrap();
    assert_eq!(again, first, "what is in force already stays as it is");
    assert_eq!(world.revision("acme").await, 1);

    let changed = update_outgoing(&world, &draft.name, "{}").await.unwrap();
    assert!(changed.published_version == 1 && changed.has_unpublished_changes);
    assert_eq!(world.revision("acme").await, 1);
    let restored = update_outgoing(&world, &draft.name, "{\"id\": {{ request.body.id }}}").await.unwrap();
    assert!(!restored.has_unpublished_changes, "the draft is what is in force again");
    update_outgoing(&world, &draft.name, "{}").await.unwrap();
    let second = world.publish_outgoing(&draft.name).await.unwrap();
    assert_eq!((second.published_version, world.revision("acme").await), (2, 2));

    let taken = unpublish_outgoing(&world, &draft.name).await.unwrap();
    assert!(taken.published_version == 0 && taken.has_unpublished_changes);
    let refused = unpublish_outgoing(&world, &draft.name).await.unwrap_err();
    assert_eq!(refusal(&refused), (Code::FailedPrecondition, "NOT_PUBLISHED".to_owned()));
    let third = world.publish_outgoing(&draft.name).await.unwrap();
    assert_eq!((third.published_version, world.revision("acme").await), (3, 4), "numbers are not used twice");
}

#[tokio::test]
async fn only_trying_to_publish_publishes_nothing() {
    let world = World::new().await;
    let draft = world.outgoing_integration("send", "").await;
    let request = admin::PublishOutgoingIntegrationRequest {
        name: draft.name.clone(),
        validate_only: true,
        ..Default::default()
    };
    let tried = world.outgoing().publish_outgoing_integration(request).await.unwrap().into_inner();
    assert_eq!(tried.published_version, 1);
    let request = admin::GetOutgoingIntegrationRequest { name: draft.name.clone() };
    assert_eq!(world.outgoing().get_outgoing_integration(request).await.unwrap().into_inner(), draft);
    assert_eq!(world.revision("acme").await, 0);
    let request =
        admin::PublishOutgoingIntegrationRequest { name: draft.name, etag: "other".to_owned(), ..Default::default() };
    assert_eq!(world.outgoing().publish_outgoing_integration(request).await.unwrap_err().code(), Code::Aborted);
}

#[tokio::test]
async fn a_workflow_needs_what_it_uses_to_be_published() {
    let world = World::new().await;
    let incoming = world.incoming_integration("orders").await.name;
    let outgoing = world.outgoing_integration("send", "").await.name;
    let workflow = world.workflow("flow", &incoming, &outgoing).await;
    assert!(!workflow.steps[0].step_id.is_empty());
    let refused = world.publish_workflow(&workflow.name).await.unwrap_err();
    let found = violations(&refused);
    assert!(has(&found, "triggers[0].incoming_integration", "NOT_PUBLISHED"), "{found:?}");
    assert!(has(&found, "steps[0].outgoing_integration", "NOT_PUBLISHED"), "{found:?}");
    let described = details(&refused).bad_request().unwrap().field_violations[0].description.clone();
    assert!(described.contains(&incoming), "{described}");

    world.publish_incoming(&incoming).await.unwrap();
    world.publish_outgoing(&outgoing).await.unwrap();
    let published = world.publish_workflow(&workflow.name).await.unwrap();
    assert_eq!((published.published_version, world.revision("acme").await), (1, 3));
}

#[tokio::test]
async fn what_is_in_use_stays() {
    let world = World::new().await;
    let connection = world.connection("crm", "s3cret").await.name;
    let incoming = world.incoming_integration("orders").await.name;
    let outgoing = world.outgoing_integration("send", &connection).await.name;
    let workflow = world.workflow("flow", &incoming, &outgoing).await.name;

    let in_use = |status: &Status, user: &str| {
        assert_eq!(refusal(status), (Code::FailedPrecondition, "RESOURCE_IN_USE".to_owned()));
        assert!(status.message().contains(user), "{}", status.message());
        let details = details(status);
        assert!(details.precondition_failure().unwrap().violations.iter().any(|one| one.subject == user));
    };
    let request = admin::DeleteConnectionRequest { name: connection.clone(), ..Default::default() };
    in_use(&world.connections().delete_connection(request).await.unwrap_err(), &outgoing);
    in_use(&delete_outgoing(&world, &outgoing).await.unwrap_err(), &workflow);

    world.publish_incoming(&incoming).await.unwrap();
    world.publish_outgoing(&outgoing).await.unwrap();
    // A draft alone does not keep what it uses in force.
    unpublish_outgoing(&world, &outgoing).await.unwrap();
    world.publish_outgoing(&outgoing).await.unwrap();
    world.publish_workflow(&workflow).await.unwrap();
    in_use(&unpublish_outgoing(&world, &outgoing).await.unwrap_err(), &workflow);
    let request = admin::UnpublishIncomingIntegrationRequest { name: incoming.clone(), ..Default::default() };
    in_use(&world.incoming().unpublish_incoming_integration(request.clone()).await.unwrap_err(), &workflow);

    let delete = admin::DeleteWorkflowRequest { name: workflow.clone(), ..Default::default() };
    let refused = world.workflows().delete_workflow(delete.clone()).await.unwrap_err();
    assert_eq!(refusal(&refused).1, "RESOURCE_IN_USE");
    assert!(refused.message().contains("unpublish it first"));
    let request = admin::UnpublishWorkflowRequest { name: workflow.clone(), ..Default::default() };
    world.workflows().unpublish_workflow(request).await.unwrap();
    world.workflows().delete_workflow(delete).await.unwrap();
    world.incoming().unpublish_incoming_integration(request_of(&incoming)).await.unwrap();
    unpublish_outgoing(&world, &outgoing).await.unwrap();
    delete_outgoing(&world, &outgoing).await.unwrap();
    let request = admin::DeleteIncomingIntegrationRequest { name: incoming, ..Default::default() };
    world.incoming().delete_incoming_integration(request).await.unwrap();
    let request = admin::DeleteConnectionRequest { name: connection, ..Default::default() };
    world.connections().delete_connection(request).await.unwrap();
}

fn request_of(name: &str) -> admin::UnpublishIncomingIntegrationRequest {
    admin::UnpublishIncomingIntegrationRequest { name: name.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn an_endpoint_keeps_its_address() {
    let world = World::new().await;
    let made = world.incoming_integration("orders").await;
    assert_eq!(made.endpoint_path, format!("/automation-endpoint/endpoints/authorized/{}/trigger", made.endpoint_id));
    let meta = admin::MetaAuthorization {
        app_secret: "app".to_owned(),
        verify_token: "verify".to_owned(),
        ..Default::default()
    };
    let changed = admin::IncomingIntegration {
        endpoint_id: "00000000-0000-4000-8000-000000000000".to_owned(),
        authorization: Some(Authorization::Meta(meta)),
        ..made.clone()
    };
    let request = admin::UpdateIncomingIntegrationRequest { incoming_integration: Some(changed), ..Default::default() };
    let changed = world.incoming().update_incoming_integration(request).await.unwrap().into_inner();
    assert_eq!((changed.endpoint_id, changed.endpoint_path), (made.endpoint_id, made.endpoint_path));
    let Some(Authorization::Meta(meta)) = changed.authorization else { panic!("not stored") };
    assert!(meta.app_secret_set && meta.verify_token_set);
    assert!(meta.app_secret.is_empty() && meta.verify_token.is_empty());
}

#[tokio::test]
async fn no_customer_where_a_request_starts_the_workflow() {
    let world = World::new().await;
    let incoming = world.incoming_integration("orders").await.name;
    let outgoing = world.outgoing_integration("send", "").await.name;
    let workflow = world.workflow("flow", &incoming, &outgoing).await.name;
    world.publish_incoming(&incoming).await.unwrap();
    update_outgoing(&world, &outgoing, "{\"a\": {{ customer.email }}}").await.unwrap();
    world.publish_outgoing(&outgoing).await.unwrap();
    let found = violations(&world.publish_workflow(&workflow).await.unwrap_err());
    assert!(has(&found, "steps[0].outgoing_integration", "CUSTOMER_NOT_AVAILABLE"), "{found:?}");

    update_outgoing(&world, &outgoing, "{}").await.unwrap();
    world.publish_outgoing(&outgoing).await.unwrap();
    world.publish_workflow(&workflow).await.unwrap();
    // The other way round: what a published workflow uses may not change under it.
    update_outgoing(&world, &outgoing, "{\"a\": {{ customer.email }}}").await.unwrap();
    let refused = world.publish_outgoing(&outgoing).await.unwrap_err();
    assert!(has(&violations(&refused), "request", "CUSTOMER_NOT_AVAILABLE"));
    assert!(refused.message().contains(&workflow), "{}", refused.message());
}

/// D02, F06: one trigger that cannot give a customer is enough, and is named.
#[tokio::test]
async fn a_customer_where_every_trigger_can_give_one() {
    let world = World::new().await;
    let incoming = world.incoming_integration("orders").await.name;
    world.publish_incoming(&incoming).await.unwrap();
    let outgoing = world.outgoing_integration("send", "").await.name;
    update_outgoing(&world, &outgoing, "{\"a\": {{ customer.email }}}").await.unwrap();
    world.publish_outgoing(&outgoing).await.unwrap();
    let action = || "form.submit".to_owned();
    let none = admin::Trigger::default;
    let event = admin::Trigger { event: Some(admin::EventTrigger { action: action() }), ..none() };
    let audience = admin::Trigger { audience: Some(admin::AudienceTrigger {}), ..none() };
    let response_event = Some(admin::ResponseEventTrigger { action: action() });
    let told = admin::Trigger { response_event, ..none() };
    let request = admin::Trigger { incoming_integration: incoming.clone(), ..none() };
    for (number, third, why) in [
        (1, told, "`triggers[2]` gives no customer: response events have none"),
        (2, request, "`triggers[2]` gives no customer: requests of an incoming integration have none"),
        (3, event.clone(), ""),
    ] {
        let triggers = vec![event.clone(), audience.clone(), third];
        let request = admin::CreateWorkflowRequest {
            parent: crate::world::ACME.to_owned(),
            workflow_id: format!("flow-{number}"),
            workflow: Some(admin::Workflow { triggers, ..crate::world::workflow(&incoming, &outgoing) }),
            ..Default::default()
        };
        let workflow = world.workflows().create_workflow(request).await.unwrap().into_inner().name;
        match world.publish_workflow(&workflow).await {
            Ok(published) => assert_eq!((published.published_version, why), (1, "")),
            Err(status) => {
                let found = violations(&status);
                assert!(has(&found, "steps[0].outgoing_integration", "CUSTOMER_NOT_AVAILABLE"), "{found:?}");
                assert!(!why.is_empty() && format!("{:?}", details(&status)).contains(why), "{status:?}");
            }
        }
    }
}
