//! Snippets: part of the templates that name them, published and taken away like everything that is used (D26).

use sluice_proto::admin::v1 as admin;
use sluice_proto::sync::v1::resource::Document;
use tonic::{Code, Status};

use crate::sync::DataPlane;
use crate::world::{ACME, World, has, refusal, violations};

impl World {
    async fn snippet(&self, id: &str, text: &str) -> Result<String, Status> {
        let snippet = admin::Snippet { display_name: id.to_owned(), text: text.to_owned(), ..Default::default() };
        let request = admin::CreateSnippetRequest {
            parent: ACME.to_owned(),
            snippet_id: id.to_owned(),
            snippet: Some(snippet),
            ..Default::default()
        };
        Ok(self.snippets().create_snippet(request).await?.into_inner().name)
    }

    async fn rewrite(&self, name: &str, text: &str) -> Result<(), Status> {
        let snippet = admin::Snippet {
            name: name.to_owned(),
            display_name: "S".to_owned(),
            text: text.to_owned(),
            ..Default::default()
        };
        let request = admin::UpdateSnippetRequest { snippet: Some(snippet), ..Default::default() };
        self.snippets().update_snippet(request).await.map(drop)
    }

    async fn publish_snippet(&self, name: &str) -> Result<admin::Snippet, Status> {
        let request = admin::PublishSnippetRequest { name: name.to_owned(), ..Default::default() };
        Ok(self.snippets().publish_snippet(request).await?.into_inner())
    }

    /// An outgoing integration with this body.
    async fn sending(&self, id: &str, body: &str) -> Result<String, Status> {
        let mut document = crate::world::outgoing("");
        document.request.as_mut().unwrap().body = Some(body.to_owned());
        let request = admin::CreateOutgoingIntegrationRequest {
            parent: ACME.to_owned(),
            outgoing_integration_id: id.to_owned(),
            outgoing_integration: Some(document),
            ..Default::default()
        };
        Ok(self.outgoing().create_outgoing_integration(request).await?.into_inner().name)
    }
}

#[tokio::test]
async fn a_snippet_is_published_before_its_users_and_stays_while_they_do() {
    let world = World::new().await;
    let refused = world.sending("send", "{\"a\": \"{% snippet sign %}\"}").await.unwrap_err();
    assert!(has(&violations(&refused), "request.body", "UNKNOWN_SNIPPET"), "{refused:?}");
    let inner = world.snippet("inner", "{{ request.body.id }}").await.unwrap();
    let snippet = world.snippet("sign", "by {% snippet inner %}").await.unwrap();
    let outgoing = world.sending("send", "{\"a\": \"{% snippet sign %}\"}").await.unwrap();
    let found = violations(&world.publish_outgoing(&outgoing).await.unwrap_err());
    assert!(has(&found, "request.body", "UNKNOWN_SNIPPET"), "it is not published: {found:?}");
    assert!(has(&violations(&world.publish_snippet(&snippet).await.unwrap_err()), "text", "UNKNOWN_SNIPPET"));

    let draft = |name: &String| admin::DraftToPublish { name: name.clone(), etag: String::new() };
    let request = admin::PublishDraftsRequest {
        parent: ACME.to_owned(),
        drafts: [&outgoing, &snippet, &inner].map(draft).to_vec(),
        ..Default::default()
    };
    world.configuration().publish_drafts(request).await.unwrap();
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    let resources = plane.until(ACME, 1).await;
    let Some(Document::Snippet(sent)) = &resources[&snippet].document else { panic!("not sent") };
    assert_eq!(sent.text, "by {% snippet inner %}");

    let in_use = |refused: Status, user: &str| {
        assert_eq!(refusal(&refused), (Code::FailedPrecondition, "RESOURCE_IN_USE".to_owned()));
        assert!(refused.message().contains(user), "{}", refused.message());
    };
    let unpublish = admin::UnpublishSnippetRequest { name: inner.clone(), ..Default::default() };
    in_use(world.snippets().unpublish_snippet(unpublish).await.unwrap_err(), &snippet);
    let delete = admin::DeleteSnippetRequest { name: snippet.clone(), ..Default::default() };
    in_use(world.snippets().delete_snippet(delete).await.unwrap_err(), &outgoing);
}

#[tokio::test]
async fn a_change_that_would_break_a_user_is_not_published() {
    let world = World::new().await;
    let inner = world.snippet("inner", "x").await.unwrap();
    let snippet = world.snippet("sign", "{% snippet inner %}").await.unwrap();
    let outgoing = world.sending("send", "{\"a\": \"{% snippet sign %}\"}").await.unwrap();
    for name in [&inner, &snippet] {
        world.publish_snippet(name).await.unwrap();
    }
    world.publish_outgoing(&outgoing).await.unwrap();
    let incoming = world.incoming_integration("orders").await.name;
    let workflow = world.workflow("flow", &incoming, &outgoing).await.name;
    world.publish_incoming(&incoming).await.unwrap();
    world.publish_workflow(&workflow).await.unwrap();
    let before = world.revision("acme").await;

    // It ends the text of its user, and the document would be broken.
    world.rewrite(&inner, "\", {").await.unwrap();
    let refused = world.publish_snippet(&inner).await.unwrap_err();
    let found = violations(&refused);
    assert!(found.iter().all(|(field, _)| field == "text") && !found.is_empty(), "{found:?}");
    assert!(refused.message().contains(&outgoing), "two steps away: {}", refused.message());
    // A loop, and a customer where a request starts the workflow (R080).
    world.rewrite(&inner, "{% snippet sign %}").await.unwrap();
    let refused = world.publish_snippet(&inner).await.unwrap_err();
    assert!(refused.message().contains("uses itself"), "{}", refused.message());
    world.rewrite(&inner, "{{ customer.email }}").await.unwrap();
    let refused = world.publish_snippet(&inner).await.unwrap_err();
    let found = violations(&refused);
    assert!(has(&found, "text", "CUSTOMER_NOT_AVAILABLE") && refused.message().contains(&workflow), "{refused:?}");
    assert_eq!(world.revision("acme").await, before);
    world.rewrite(&inner, "{{ request.body.id }}").await.unwrap();
    assert_eq!(world.publish_snippet(&inner).await.unwrap().published_version, 2);
}
