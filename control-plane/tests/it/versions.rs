//! Published versions: read, compared, brought back; several drafts published at once; who uses and who serves what.

use std::num::NonZeroU32;

use sluice_control_plane::{Clock, Settings};
use sluice_core::address::UrlPolicy;
use sluice_proto::admin::v1 as admin;
use sluice_proto::admin::v1::UsageDirection::{UsedBy, Uses};
use sluice_proto::admin::v1::incoming_integration::Authorization;
use sluice_proto::admin::v1::versioned_document::Kind;
use sluice_proto::sync::v1::sync_request::Kind as Say;
use sluice_proto::sync::v1::{Ack, Nack};
use tempfile::TempDir;
use tonic::{Code, Status};

use crate::sync::DataPlane;
use crate::world::{ACME, World, has, outgoing, refusal, settings, violations, within};

/// Saves another URL in the draft.
async fn save(world: &World, name: &str, url: &str) -> admin::OutgoingIntegration {
    let mut document = admin::OutgoingIntegration { name: name.to_owned(), ..outgoing("") };
    url.clone_into(&mut document.request.as_mut().unwrap().url);
    let request =
        admin::UpdateOutgoingIntegrationRequest { outgoing_integration: Some(document), ..Default::default() };
    world.outgoing().update_outgoing_integration(request).await.unwrap().into_inner()
}

async fn diff(world: &World, name: &str, from: i64, to: i64) -> Vec<admin::FieldChange> {
    let request = admin::DiffVersionsRequest { name: name.to_owned(), from_version: from, to_version: to };
    world.versions().diff_versions(request).await.unwrap().into_inner().changes
}

fn rolling_back(name: &str, number: i64) -> admin::RollbackVersionRequest {
    admin::RollbackVersionRequest { name: format!("{name}/versions/{number}"), ..Default::default() }
}

async fn rollback(world: &World, request: admin::RollbackVersionRequest) -> Result<Kind, Status> {
    let answer = world.versions().rollback_version(request).await?.into_inner();
    Ok(answer.document.unwrap().kind.unwrap())
}

/// An outgoing integration with the versions `a`, `b` and the draft `c`, by URL.
async fn with_history(world: &World) -> String {
    let name = world.outgoing_integration("send", "").await.name;
    for path in ["a", "b"] {
        save(world, &name, &format!("https://crm.example.com/{path}")).await;
        world.publish_outgoing(&name).await.unwrap();
    }
    save(world, &name, "https://crm.example.com/c").await;
    name
}

fn url(document: &Kind) -> &str {
    let Kind::OutgoingIntegration(document) = document else { panic!("another kind") };
    &document.request.as_ref().unwrap().url
}

#[tokio::test]
async fn versions_are_listed_read_and_compared() {
    let world = World::new().await;
    let name = with_history(&world).await;
    let mut numbers = Vec::new();
    let mut page_token = String::new();
    loop {
        let request =
            admin::ListVersionsRequest { parent: name.clone(), page_size: 1, page_token, ..Default::default() };
        let page = world.versions().list_versions(request).await.unwrap().into_inner();
        numbers.extend(page.versions.into_iter().map(|one| (one.number, one.in_force, one.document.is_some())));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(numbers, [(2, true, false), (1, false, false)]);

    let request = admin::GetVersionRequest { name: format!("{name}/versions/1") };
    let first = world.versions().get_version(request).await.unwrap().into_inner();
    assert_eq!(url(&first.document.unwrap().kind.unwrap()), "https://crm.example.com/a");
    for missing in [format!("{name}/versions/3"), "workspaces/acme/outgoingIntegrations/nope/versions/1".to_owned()] {
        let refused = world.versions().get_version(admin::GetVersionRequest { name: missing }).await.unwrap_err();
        assert_eq!(refusal(&refused), (Code::NotFound, "RESOURCE_NOT_FOUND".to_owned()));
    }
    for bad in ["workspaces/acme/connections/crm/versions/1", "workspaces/acme/outgoingIntegrations/send"] {
        let request = admin::GetVersionRequest { name: bad.to_owned() };
        let refused = world.versions().get_version(request).await.unwrap_err();
        assert!(has(&violations(&refused), "name", "NAME_INVALID"), "{bad}");
    }

    let found = diff(&world, &name, 1, 2).await;
    let shown: Vec<_> = found.iter().map(|change| (change.path.as_str(), change.new_value.as_deref())).collect();
    assert_eq!(shown, [("request.url", Some("\"https://crm.example.com/b\""))]);
    assert_eq!(found[0].old_value.as_deref(), Some("\"https://crm.example.com/a\""));
    assert_eq!(diff(&world, &name, 2, 0).await[0].new_value.as_deref(), Some("\"https://crm.example.com/c\""));
    assert_eq!(diff(&world, &name, 2, 2).await, []);
}

#[tokio::test]
async fn a_version_comes_back_as_the_draft_or_in_force() {
    let world = World::new().await;
    let name = with_history(&world).await;
    let before = world.revision("acme").await;
    let tried = admin::RollbackVersionRequest { validate_only: true, publish: true, ..rolling_back(&name, 1) };
    assert_eq!(url(&rollback(&world, tried).await.unwrap()), "https://crm.example.com/a");
    assert_eq!(diff(&world, &name, 2, 0).await.len(), 1, "only tried");

    let stale = admin::RollbackVersionRequest { etag: "other".to_owned(), ..rolling_back(&name, 1) };
    assert_eq!(rollback(&world, stale).await.unwrap_err().code(), Code::Aborted);
    rollback(&world, rolling_back(&name, 1)).await.unwrap();
    assert_eq!(diff(&world, &name, 1, 0).await, []);
    assert_eq!(world.revision("acme").await, before, "the draft alone");

    let request_id = "67e55044-10b1-426f-9247-bb680e5fe0c8".to_owned();
    let request = admin::RollbackVersionRequest { publish: true, request_id, ..rolling_back(&name, 1) };
    let published = rollback(&world, request.clone()).await.unwrap();
    let Kind::OutgoingIntegration(document) = &published else { panic!("another kind") };
    assert_eq!((document.published_version, world.revision("acme").await), (3, before + 1));
    assert_eq!(rollback(&world, request).await.unwrap(), published, "the same request, the same answer");
    assert_eq!(world.revision("acme").await, before + 1);
    assert_eq!(diff(&world, &name, 1, 3).await, []);
}

#[tokio::test]
async fn a_version_comes_back_without_secrets_of_then() {
    let world = World::new().await;
    let name = world.incoming_integration("orders").await.name;
    let meta = admin::MetaAuthorization {
        app_secret: "CANARY-app".to_owned(),
        verify_token: "CANARY-verify".to_owned(),
        ..Default::default()
    };
    let update = |authorization| {
        let document = admin::IncomingIntegration {
            name: name.clone(),
            authorization: Some(authorization),
            ..crate::world::incoming()
        };
        admin::UpdateIncomingIntegrationRequest { incoming_integration: Some(document), ..Default::default() }
    };
    world.incoming().update_incoming_integration(update(Authorization::Meta(meta))).await.unwrap();
    world.publish_incoming(&name).await.unwrap();
    let none = Authorization::None(admin::NoAuthorization {});
    world.incoming().update_incoming_integration(update(none)).await.unwrap();
    world.publish_incoming(&name).await.unwrap();
    let changes = diff(&world, &name, 1, 2).await;
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(!format!("{changes:?}").contains("CANARY"));
    // The secrets went with the choice they belonged to: the version needs new ones.
    let refused = rollback(&world, rolling_back(&name, 1)).await.unwrap_err();
    assert!(has(&violations(&refused), "meta.app_secret", "REQUIRED"), "{refused:?}");
}

fn publishing(names: &[&str]) -> admin::PublishDraftsRequest {
    let draft = |name: &&str| admin::DraftToPublish { name: (*name).to_owned(), etag: String::new() };
    admin::PublishDraftsRequest {
        parent: ACME.to_owned(),
        drafts: names.iter().map(draft).collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn several_drafts_are_published_in_one_revision_or_not_at_all() {
    let world = World::new().await;
    let incoming = world.incoming_integration("orders").await.name;
    let outgoing = world.outgoing_integration("send", "").await.name;
    let workflow = world.workflow("flow", &incoming, &outgoing).await.name;
    let other = world.workflow("other", &incoming, &outgoing).await.name;
    let mut publish = world.configuration();

    let refused = publish.publish_drafts(publishing(&[&workflow, &other, &outgoing])).await.unwrap_err();
    let found = violations(&refused);
    for draft in 0..2 {
        let field = format!("drafts[{draft}].triggers[0].incoming_integration");
        assert!(has(&found, &field, "NOT_PUBLISHED"), "{found:?}");
    }
    assert!(refused.message().contains(&workflow), "{}", refused.message());
    assert_eq!(world.revision("acme").await, 0, "all or nothing");

    let mut request = publishing(&[&workflow, &outgoing, &incoming]);
    request.drafts[1].etag = "other".to_owned();
    assert_eq!(publish.publish_drafts(request.clone()).await.unwrap_err().code(), Code::Aborted);
    request.drafts[1].etag.clear();
    request.validate_only = true;
    publish.publish_drafts(request.clone()).await.unwrap();
    assert_eq!(world.revision("acme").await, 0, "only tried");
    request.validate_only = false;
    let published = publish.publish_drafts(request).await.unwrap().into_inner();
    assert_eq!((published.revision, world.revision("acme").await), (1, 1), "one revision for all");
    let versions: Vec<_> = published.published.iter().map(|one| (one.name.as_str(), one.version)).collect();
    assert_eq!(versions, [(workflow.as_str(), 1), (outgoing.as_str(), 1), (incoming.as_str(), 1)]);

    let again = publish.publish_drafts(publishing(&[&outgoing])).await.unwrap().into_inner();
    assert_eq!(again.revision, 1, "what is in force stays as it is");
    let many = vec![outgoing.as_str(); 201];
    for (names, field, reason) in [
        (&[][..], "drafts", "OUT_OF_RANGE"),
        (&many, "drafts", "OUT_OF_RANGE"),
        (&[outgoing.as_str(), outgoing.as_str()], "drafts[1].name", "REPEATED"),
        (&["workspaces/other/workflows/flow"], "drafts[0].name", "NAME_INVALID"),
        (&["workspaces/acme/connections/crm"], "drafts[0].name", "NAME_INVALID"),
    ] {
        let refused = publish.publish_drafts(publishing(names)).await.unwrap_err();
        assert!(has(&violations(&refused), field, reason), "{refused:?}");
    }
}

#[tokio::test]
async fn usages_are_found_both_ways() {
    let world = World::new().await;
    let connection = world.connection("crm", "s3cret").await.name;
    let incoming = world.incoming_integration("orders").await.name;
    let outgoing = world.outgoing_integration("send", &connection).await.name;
    let workflow = world.workflow("flow", &incoming, &outgoing).await.name;
    world.publish_outgoing(&outgoing).await.unwrap();
    let find = async |name: &str, direction: admin::UsageDirection| {
        let request =
            admin::FindUsagesRequest { name: name.to_owned(), direction: direction.into(), ..Default::default() };
        let found = world.configuration().find_usages(request).await.unwrap().into_inner().usages;
        found.into_iter().map(|one| (one.name, one.in_draft, one.in_force)).collect::<Vec<_>>()
    };
    assert_eq!(find(&connection, UsedBy).await, [(outgoing.clone(), true, true)]);
    assert_eq!(find(&outgoing, UsedBy).await, [(workflow.clone(), true, false)]);
    assert_eq!(find(&workflow, Uses).await, [(incoming, true, false), (outgoing.clone(), true, false)]);
    assert_eq!(find(&workflow, UsedBy).await, []);
    // The draft needs it no more, the version in force does.
    save(&world, &outgoing, "https://crm.example.com/orders").await;
    assert_eq!(find(&connection, UsedBy).await, [(outgoing, false, true)]);
}

#[tokio::test]
async fn who_serves_a_revision_is_waited_for() {
    let world = World::new().await;
    let wait = |revision: i64, seconds: i64| {
        let request = admin::WaitServedRequest {
            parent: ACME.to_owned(),
            revision,
            timeout: Some(prost_types::Duration { seconds, nanos: 0 }),
        };
        let mut client = world.configuration();
        async move { within(client.wait_served(request)).await.map(tonic::Response::into_inner) }
    };
    let outgoing = world.outgoing_integration("send", "").await.name;
    world.publish_outgoing(&outgoing).await.unwrap();
    let nobody = wait(0, 0).await.unwrap();
    assert!(!nobody.served && nobody.revision == 1 && nobody.not_serving.is_empty());
    for (revision, seconds, field) in [(2, 0, "revision"), (-1, 0, "revision"), (0, 26, "timeout"), (0, -1, "timeout")]
    {
        let refused = wait(revision, seconds).await.unwrap_err();
        assert!(has(&violations(&refused), field, "OUT_OF_RANGE"), "{refused:?}");
    }

    let mut good = DataPlane::connect(&world, "good", "", &[]).await;
    let mut bad = DataPlane::connect(&world, "bad", "", &[]).await;
    for plane in [&mut good, &mut bad] {
        let mut taken = None;
        while taken.is_none() {
            let heard = plane.hear().await;
            taken = plane.take(&heard);
        }
    }
    let lagging = wait(0, 0).await.unwrap();
    let names: Vec<_> = lagging.not_serving.iter().map(|one| (one.data_plane.as_str(), one.revision)).collect();
    assert_eq!(names, [("dataPlanes/bad", 0), ("dataPlanes/good", 0)]);
    assert!(lagging.not_serving.iter().all(|one| one.refusal.is_none()), "nobody has answered");

    // Both are heard while somebody waits: no timeout ends it.
    let waiting = tokio::spawn(wait(1, 25));
    good.say(Say::Ack(Ack { serving: Some(good.cursor(ACME)), apply_micros: 7, ..Ack::default() })).await;
    let reason = admin::Problem { reason: "URL_INVALID".to_owned(), ..Default::default() };
    let nack = Nack { workspace: ACME.to_owned(), revision: 1, problems: vec![reason], ..Default::default() };
    bad.say(Say::Nack(nack)).await;
    let mixed = waiting.await.unwrap().unwrap();
    assert!(!mixed.served && mixed.serving == ["dataPlanes/good"]);
    let refusal = mixed.not_serving[0].refusal.clone().unwrap();
    assert_eq!((refusal.revision, refusal.problems[0].reason.as_str()), (1, "URL_INVALID"));

    drop(bad);
    // Once it is seen to be gone, nobody is left who does not serve it.
    let mut all = mixed;
    while !all.served {
        all = wait(1, 0).await.unwrap();
    }
    assert!(all.serving == ["dataPlanes/good"] && all.not_serving.is_empty(), "{all:?}");
}

#[tokio::test]
async fn of_each_resource_so_many_versions_are_kept_and_the_one_in_force() {
    assert_eq!(Settings::in_folder("x", UrlPolicy::default()).versions_kept.get(), 1000);
    let keeping = async |folder: TempDir, clock: &Clock, kept: u32| {
        let settings = settings(folder.path(), clock);
        World::start_with(folder, Settings { versions_kept: NonZeroU32::new(kept).unwrap(), ..settings }).await
    };
    let (folder, clock) = World::new().await.end().await;
    let world = keeping(folder, &clock, 3).await;
    let snippet = admin::Snippet { display_name: "Footer".to_owned(), text: "0".to_owned(), ..Default::default() };
    let request =
        admin::CreateSnippetRequest { parent: ACME.to_owned(), snippet: Some(snippet.clone()), ..Default::default() };
    let name = world.snippets().create_snippet(request).await.unwrap().into_inner().name;
    let publish = async |world: &World, text: &str| {
        let changed = admin::Snippet { name: name.clone(), text: text.to_owned(), ..snippet.clone() };
        let request = admin::UpdateSnippetRequest { snippet: Some(changed), ..Default::default() };
        world.snippets().update_snippet(request).await.unwrap();
        let request = admin::PublishSnippetRequest { name: name.clone(), ..Default::default() };
        world.snippets().publish_snippet(request).await.unwrap();
    };
    let numbers = async |world: &World| -> Vec<i64> {
        let request = admin::ListVersionsRequest { parent: name.clone(), ..Default::default() };
        let listed = world.versions().list_versions(request).await.unwrap().into_inner().versions;
        listed.into_iter().map(|version| version.number).collect()
    };
    let get = async |world: &World, number: i64| {
        let request = admin::GetVersionRequest { name: format!("{name}/versions/{number}") };
        world.versions().get_version(request).await
    };
    for text in ["1", "2", "3"] {
        publish(&world, text).await;
    }
    assert_eq!(numbers(&world).await, [3, 2, 1], "as many as are kept");
    publish(&world, "4").await;
    assert_eq!(numbers(&world).await, [4, 3, 2]);
    // A delivery may still name it; what it leads to says why it is not there.
    let gone = get(&world, 1).await.unwrap_err();
    assert_eq!(refusal(&gone), (Code::NotFound, "RESOURCE_NOT_FOUND".to_owned()));
    assert!(gone.message().contains("no longer kept"), "{}", gone.message());
    let never = get(&world, 5).await.unwrap_err();
    assert!(never.message().contains("does not exist"), "{}", never.message());
    let request = admin::RollbackVersionRequest { name: format!("{name}/versions/1"), ..Default::default() };
    assert_eq!(world.versions().rollback_version(request).await.unwrap_err().code(), Code::NotFound);

    // With a smaller number the others go at the next start, and the one in force stays.
    let (folder, clock) = world.end().await;
    let world = keeping(folder, &clock, 1).await;
    within(async {
        while numbers(&world).await != [4] {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(get(&world, 4).await.unwrap().into_inner().in_force);
}
