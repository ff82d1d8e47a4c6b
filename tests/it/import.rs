//! Very much is published at once (row 22 of the failure matrix): triggers are answered all the while, and what came is delivered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use sluice_client::admin::{self, apply_configuration_request::Source};
use sluice_tests::{RawHttp, Request, World, long, resources};

const URL: &str = "https://api.example.com/orders";
/// Resources in one document, and drafts in one publish: as many as may be.
const IN_DOCUMENT: usize = 2000;
const TOGETHER: usize = 200;

fn integration(number: usize) -> admin::OutgoingIntegration {
    let template = format!(r#"{{"number": {number}, "id": {{{{ request.body.id }}}}}}"#);
    admin::OutgoingIntegration {
        name: format!("workspaces/acme/outgoingIntegrations/imported-{number}"),
        display_name: format!("Imported {number}"),
        request: Some(resources::post(URL, &template)),
        ..Default::default()
    }
}

/// Puts so many integrations in force.
async fn import(world: &World, count: usize) {
    let all: Vec<admin::OutgoingIntegration> = (0..count).map(integration).collect();
    for part in all.chunks(IN_DOCUMENT) {
        let configuration =
            admin::WorkspaceConfiguration { outgoing_integrations: part.to_vec(), ..Default::default() };
        let request = admin::ApplyConfigurationRequest {
            parent: "workspaces/acme".to_owned(),
            source: Some(Source::Configuration(configuration)),
            ..Default::default()
        };
        world.client.configuration().apply_configuration(request).await.unwrap();
    }
    for part in all.chunks(TOGETHER) {
        let draft =
            |one: &admin::OutgoingIntegration| admin::DraftToPublish { name: one.name.clone(), ..Default::default() };
        let request = admin::PublishDraftsRequest {
            parent: "workspaces/acme".to_owned(),
            drafts: part.iter().map(draft).collect(),
            ..Default::default()
        };
        world.client.configuration().publish_drafts(request).await.unwrap();
    }
    world.served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_22_while_very_much_is_published_every_trigger_is_answered() {
    let world = World::start().await;
    let incoming = world.acme.flow("orders", resources::post(URL, r#"{"id": {{ request.body.id }}}"#)).await;
    world.served().await;
    let over = Arc::new(AtomicBool::new(false));
    let (ingress, path, ended) = (world.ingress(), incoming.endpoint_path, over.clone());
    let triggers = tokio::spawn(async move {
        let mut sent = 0;
        while !ended.load(Ordering::SeqCst) {
            sent += 1;
            let request = Request::post(&path, json!({ "id": sent }).to_string());
            let answer = RawHttp::connect(ingress).await.exchange(&request).await;
            assert_eq!(answer.status, 200, "{sent}: {}", answer.text());
        }
        sent
    });
    let count = long::either(5_000, 100_000);
    import(&world, count).await;
    over.store(true, Ordering::SeqCst);
    let sent = triggers.await.unwrap();
    assert_eq!(world.plane().served.load().workspace("workspaces/acme").unwrap().resources(), count + 2);
    world.destination.wait_for(sent).await.unwrap();
}
