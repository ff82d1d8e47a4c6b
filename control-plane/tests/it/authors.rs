//! Several authors at once: nobody's change is lost, and what is published is always something that somebody saved.

use std::collections::BTreeSet;

use sluice_proto::admin::v1 as admin;
use sluice_proto::admin::v1::outgoing_integration_service_client::OutgoingIntegrationServiceClient;
use sluice_proto::admin::v1::versioned_document::Kind;
use tonic::{Code, Status};

use crate::world::{Keyed, World, within};

const AUTHORS: usize = 6;
const CHANGES: usize = 5;

type Client = OutgoingIntegrationServiceClient<Keyed>;

async fn read(client: &mut Client, name: &str) -> admin::OutgoingIntegration {
    let request = admin::GetOutgoingIntegrationRequest { name: name.to_owned() };
    client.get_outgoing_integration(request).await.unwrap().into_inner()
}

/// Adds a header to what was read.
async fn add(client: &mut Client, mut document: admin::OutgoingIntegration, header: &str) -> Result<(), Status> {
    let added = admin::RequestHeader { name: header.to_owned(), value: "x".to_owned() };
    document.request.as_mut().unwrap().headers.push(added);
    let request =
        admin::UpdateOutgoingIntegrationRequest { outgoing_integration: Some(document), ..Default::default() };
    client.update_outgoing_integration(request).await.map(drop)
}

fn headers(document: &admin::OutgoingIntegration) -> Vec<String> {
    document.request.as_ref().unwrap().headers.iter().map(|header| header.name.clone()).collect()
}

/// Reads, changes and saves; when somebody was faster, again.
async fn author(mut client: Client, name: String, author: usize) -> usize {
    let mut conflicts = 0;
    for change in 0..CHANGES {
        let header = format!("x-{author}-{change}");
        loop {
            let document = read(&mut client, &name).await;
            match add(&mut client, document, &header).await {
                Ok(()) => break,
                Err(refused) => assert_eq!(refused.code(), Code::Aborted, "{refused:?}"),
            }
            conflicts += 1;
        }
    }
    conflicts
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_loses_a_change_and_every_version_was_saved_by_somebody() {
    let world = World::new().await;
    let name = world.outgoing_integration("send", "").await.name;
    let authors: Vec<_> =
        (0..AUTHORS).map(|number| tokio::spawn(author(world.outgoing(), name.clone(), number))).collect();
    let mut published = 0;
    while authors.iter().any(|author| !author.is_finished()) {
        published = world.publish_outgoing(&name).await.unwrap().published_version;
    }
    let mut conflicts = 0;
    for author in authors {
        conflicts += within(author).await.unwrap();
    }
    assert!(conflicts > 0, "nobody was in another's way: this showed nothing");
    let last = world.publish_outgoing(&name).await.unwrap();
    assert_eq!(headers(&last).iter().collect::<BTreeSet<_>>().len(), AUTHORS * CHANGES);

    // Headers are only added, one with each save: every version is the beginning of the last.
    let all = headers(&last);
    for number in 1..=published {
        let request = admin::GetVersionRequest { name: format!("{name}/versions/{number}") };
        let version = world.versions().get_version(request).await.unwrap().into_inner();
        let Some(Kind::OutgoingIntegration(document)) = version.document.unwrap().kind else { panic!("another kind") };
        let found = headers(&document);
        assert_eq!(found, all[..found.len()], "version {number} is half of a save");
    }
}

#[tokio::test]
async fn a_change_of_what_somebody_else_has_changed_is_refused_by_every_verb() {
    let world = World::new().await;
    let made = world.outgoing_integration("send", "").await;
    let (name, etag) = (made.name.clone(), made.etag.clone());
    let mut client = world.outgoing();
    let document = read(&mut client, &name).await;
    add(&mut client, document, "x-new").await.unwrap();
    let codes = [
        add(&mut client, made, "x-late").await.unwrap_err().code(),
        {
            let request = admin::PublishOutgoingIntegrationRequest {
                name: name.clone(),
                etag: etag.clone(),
                ..Default::default()
            };
            client.publish_outgoing_integration(request).await.unwrap_err().code()
        },
        {
            world.publish_outgoing(&name).await.unwrap();
            let request = admin::UnpublishOutgoingIntegrationRequest {
                name: name.clone(),
                etag: etag.clone(),
                ..Default::default()
            };
            client.unpublish_outgoing_integration(request).await.unwrap_err().code()
        },
        {
            let version = format!("{name}/versions/1");
            let request = admin::RollbackVersionRequest { name: version, etag: etag.clone(), ..Default::default() };
            world.versions().rollback_version(request).await.unwrap_err().code()
        },
        {
            let request = admin::DeleteOutgoingIntegrationRequest { name, etag, ..Default::default() };
            client.delete_outgoing_integration(request).await.unwrap_err().code()
        },
    ];
    assert_eq!(codes, [Code::Aborted; 5]);
}
