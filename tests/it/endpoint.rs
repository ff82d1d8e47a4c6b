//! What changes of an endpoint at once: its id, and whether it is paused.

use sluice_client::admin;
use sluice_tests::resources::{custom_webhook, dedup, open, post, workflow};
use sluice_tests::{Request, World};
use tonic::{Code, Status};

async fn regenerate(world: &World, name: &str, etag: &str) -> Result<admin::IncomingIntegration, Status> {
    let request =
        admin::RegenerateEndpointRequest { name: name.to_owned(), etag: etag.to_owned(), ..Default::default() };
    Ok(world.client.incoming_integrations().regenerate_endpoint(request).await?.into_inner())
}

async fn pause(world: &World, name: &str, validate_only: bool) -> admin::IncomingIntegration {
    let request = admin::PauseIncomingIntegrationRequest { name: name.to_owned(), validate_only, ..Default::default() };
    world.client.incoming_integrations().pause_incoming_integration(request).await.unwrap().into_inner()
}

async fn resume(world: &World, name: &str) -> admin::IncomingIntegration {
    let request = admin::ResumeIncomingIntegrationRequest { name: name.to_owned(), ..Default::default() };
    world.client.incoming_integrations().resume_incoming_integration(request).await.unwrap().into_inner()
}

async fn status(world: &World, path: &str) -> u16 {
    world.send(&Request::post(path, r#"{"id":1}"#)).await.status
}

#[tokio::test]
async fn another_endpoint_id_closes_the_old_one_for_good() {
    let world = World::start().await;
    let first =
        world.acme.incoming("orders", admin::IncomingIntegration { deduplication: dedup(["body.id"]), ..open() }).await;
    let request = post("https://api.example.com/orders", "{}");
    world.acme.workflow("flow", workflow(&first, [custom_webhook("Send", request)])).await;
    // A draft that is not published stays as it is.
    let draft = admin::IncomingIntegration { display_name: "Later".to_owned(), etag: String::new(), ..first.clone() };
    let draft = world.acme.update_incoming(draft).await;
    world.served().await;
    assert_eq!(status(&world, &first.endpoint_path).await, 200);

    assert_eq!(regenerate(&world, &first.name, "stale").await.unwrap_err().code(), Code::Aborted);
    let second = regenerate(&world, &first.name, &draft.etag).await.unwrap();
    assert_ne!(second.endpoint_id, first.endpoint_id);
    assert_eq!(second.endpoint_path, second.endpoint_path.replace(&first.endpoint_id, &second.endpoint_id));
    assert!(second.has_unpublished_changes);
    assert_eq!(second.published_version, first.published_version, "nothing was published");
    world.served().await;
    let old = world.send(&Request::post(&first.endpoint_path, "{}")).await;
    assert_eq!((old.status, old.code().as_str()), (404, "ENDPOINT_UNKNOWN"));
    assert_eq!(status(&world, &second.endpoint_path).await, 200, "deduplication starts anew");
    assert_eq!(status(&world, &second.endpoint_path).await, 204);
    world.destination.wait_for(2).await.unwrap();

    // A version that comes back does not bring its endpoint.
    let request = admin::RollbackVersionRequest {
        name: format!("{}/versions/1", first.name),
        publish: true,
        ..Default::default()
    };
    world.client.versions().rollback_version(request).await.unwrap();
    world.served().await;
    assert_eq!(status(&world, &first.endpoint_path).await, 404);
    assert_eq!(status(&world, &second.endpoint_path).await, 204);
}

#[tokio::test]
async fn a_paused_endpoint_asks_senders_to_come_again() {
    let world = World::start().await;
    let incoming = world.acme.incoming("orders", open()).await;
    world.served().await;
    assert!(pause(&world, &incoming.name, true).await.paused);
    let revision = world.acme.get().await.revision;
    let paused = pause(&world, &incoming.name, false).await;
    assert!(paused.paused && !paused.has_unpublished_changes);
    world.served().await;
    let answer = world.send(&Request::post(&incoming.endpoint_path, "{}")).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "ENDPOINT_PAUSED"));
    assert_eq!(answer.header("retry-after"), Some("60"));
    assert_eq!(pause(&world, &incoming.name, false).await.etag, paused.etag, "what is so already stays as it is");
    assert_eq!(world.acme.get().await.revision, revision + 1);

    // Publishing does not resume, and neither does an update that says so.
    let changed = admin::IncomingIntegration {
        display_name: "Later".to_owned(),
        paused: false,
        etag: String::new(),
        ..paused.clone()
    };
    assert!(world.acme.update_incoming(changed).await.paused);
    assert!(world.acme.publish_incoming(&incoming.name).await.unwrap().paused);
    world.served().await;
    assert_eq!(status(&world, &incoming.endpoint_path).await, 503);
    assert!(!resume(&world, &incoming.name).await.paused);
    world.served().await;
    assert_eq!(status(&world, &incoming.endpoint_path).await, 200);
}
