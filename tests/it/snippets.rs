//! A published snippet reaches what is sent, and so does its next version, without its users being published again (D26).

use serde_json::json;
use sluice_client::admin;
use sluice_tests::World;
use sluice_tests::resources::post;

async fn save(world: &World, text: &str) -> admin::Snippet {
    let snippet = admin::Snippet {
        name: format!("{}/snippets/sign", world.acme.name),
        display_name: "Signature".to_owned(),
        text: text.to_owned(),
        ..Default::default()
    };
    let request = admin::UpdateSnippetRequest { snippet: Some(snippet), ..Default::default() };
    world.client.snippets().update_snippet(request).await.unwrap().into_inner()
}

async fn publish(world: &World, name: &str) {
    let request = admin::PublishSnippetRequest { name: name.to_owned(), ..Default::default() };
    world.client.snippets().publish_snippet(request).await.unwrap();
    let request = admin::WaitServedRequest { parent: world.acme.name.clone(), ..Default::default() };
    let served = world.client.configuration().wait_served(request).await.unwrap().into_inner();
    assert!(served.served, "{served:?}");
}

#[tokio::test]
async fn a_new_version_of_a_snippet_is_in_what_is_sent() {
    let world = World::start().await;
    let request = admin::CreateSnippetRequest {
        parent: world.acme.name.clone(),
        snippet_id: "sign".to_owned(),
        snippet: Some(admin::Snippet {
            display_name: "Signature".to_owned(),
            text: "by {{ request.body.name }}".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let made = world.client.snippets().create_snippet(request).await.unwrap().into_inner();
    publish(&world, &made.name).await;
    let request = post("https://api.example.com/in", r#"{"text": "{% snippet sign %}"}"#);
    let incoming = world.acme.flow("orders", request).await;
    world.served().await;
    world.trigger(&incoming, &json!({"name": "Jo \"J\""})).await;
    world.destination.wait_for(1).await.unwrap();

    save(&world, "from {{ request.body.name }}").await;
    publish(&world, &made.name).await;
    world.trigger(&incoming, &json!({"name": "Jo"})).await;
    let seen = world.destination.wait_for(2).await.unwrap();
    let texts: Vec<_> = seen.iter().map(|request| request.json().unwrap()["text"].clone()).collect();
    assert_eq!(texts, [json!("by Jo \"J\""), json!("from Jo")]);
    world.stop().await;
}
