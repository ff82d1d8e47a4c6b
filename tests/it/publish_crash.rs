//! `kill -9` inside a publish of several drafts, and inside the application of a document: all of it is there afterwards, or none, and
//! what was answered stays. First at moments that move to and fro, then, in builds with the feature `fault-injection`, at each moment
//! of a publish and of a refusal that decides.

use std::process::Stdio;
use std::time::Duration;

use sluice_client::{Client, admin};
use sluice_tests::subject::{Setup, Subject};
use sluice_tests::{Workspace, resources};

/// The binary that is killed.
const PROGRAM: &str = env!("CARGO_BIN_EXE_subject");
/// How often it is killed.
const KILLS: u32 = 12;
/// Drafts in one publish.
const DRAFTS: usize = 3;

async fn live(setup: &Setup) -> (Subject, Client) {
    let subject = Subject::start(PROGRAM, setup, Stdio::inherit()).await.unwrap();
    let key = std::fs::read_to_string(setup.folder.join("admin.key")).unwrap();
    (subject, Client::connect(&format!("http://{}", setup.grpc), &key).await.unwrap())
}

/// Saves another draft of each.
async fn save(client: &Client, names: &[String], number: u32) {
    for name in names {
        let request = resources::post(&format!("https://api.example.com/{number}"), "{}");
        let document = admin::OutgoingIntegration {
            name: name.clone(),
            display_name: "Send".to_owned(),
            request: Some(request),
            ..Default::default()
        };
        let request =
            admin::UpdateOutgoingIntegrationRequest { outgoing_integration: Some(document), ..Default::default() };
        client.outgoing_integrations().update_outgoing_integration(request).await.unwrap();
    }
}

fn publishing(names: &[String]) -> admin::PublishDraftsRequest {
    let draft = |name: &String| admin::DraftToPublish { name: name.clone(), etag: String::new() };
    admin::PublishDraftsRequest {
        parent: "workspaces/acme".to_owned(),
        drafts: names.iter().map(draft).collect(),
        ..Default::default()
    }
}

/// The version of each that is in force, and the workspace's revision.
async fn standing(client: &Client, names: &[String]) -> (Vec<i64>, i64) {
    let mut versions = Vec::new();
    for name in names {
        let request = admin::GetOutgoingIntegrationRequest { name: name.clone() };
        let document = client.outgoing_integrations().get_outgoing_integration(request).await.unwrap().into_inner();
        versions.push(document.published_version);
    }
    let request = admin::GetWorkspaceRequest { name: "workspaces/acme".to_owned() };
    (versions, client.workspaces().get_workspace(request).await.unwrap().into_inner().revision)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_inside_a_publish_leaves_all_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::on(&folder.path().join("data"));
    let (mut subject, mut client) = live(&setup).await;
    let workspace = Workspace::create(&client, "acme").await;
    let mut names = Vec::new();
    for index in 0..DRAFTS {
        let request = resources::post("https://api.example.com/0", "{}");
        names.push(workspace.outgoing(&format!("send-{index}"), request).await.name);
    }
    let (mut before, _) = standing(&client, &names).await;
    let (mut whole, mut nothing, mut micros) = (0, 0, 3000);
    for kill in 1..=KILLS {
        save(&client, &names, kill).await;
        let (request, mut publisher) = (publishing(&names), client.configuration());
        let publish =
            tokio::spawn(async move { publisher.publish_drafts(request).await.map(tonic::Response::into_inner) });
        // Nothing is waited for here: this is the moment. It moves to and fro around the one that decides.
        tokio::time::sleep(Duration::from_micros(micros)).await;
        subject.kill().await.unwrap();
        let answered = publish.await.unwrap();
        (subject, client) = live(&setup).await;
        let (after, revision) = standing(&client, &names).await;
        let next: Vec<i64> = before.iter().map(|version| version + 1).collect();
        assert!(after == before || after == next, "half a publish: {before:?} became {after:?}");
        assert!(answered.is_err() || after == next, "an answered publish was lost");
        if let Ok(answered) = answered {
            assert_eq!(answered.revision, revision);
        }
        if after == next {
            (whole, micros) = (whole + 1, micros * 3 / 4);
        } else {
            (nothing, micros) = (nothing + 1, micros * 5 / 4 + 100);
        }
        // What is left of it can be published as if nothing had been.
        client.configuration().publish_drafts(publishing(&names)).await.unwrap();
        (before, _) = standing(&client, &names).await;
        assert_eq!(before, next);
    }
    assert!(
        whole > 0 && nothing > 0,
        "{whole} publishes were whole, {nothing} left nothing: the moments are not spread"
    );
    subject.stop().await.unwrap();
}

/// A document of this many snippets whose text is `text`.
fn document(text: &str) -> String {
    let snippet =
        |at: usize| format!("  - name: workspaces/acme/snippets/s-{at}\n    display_name: S\n    text: {text}\n");
    format!("snippets:\n{}", (0..20).map(snippet).collect::<String>())
}

/// The texts of all snippets.
async fn texts(client: &Client) -> Vec<String> {
    let request = admin::ExportConfigurationRequest { parent: "workspaces/acme".to_owned(), ..Default::default() };
    let exported = client.configuration().export_configuration(request).await.unwrap().into_inner();
    exported.configuration.unwrap().snippets.into_iter().map(|snippet| snippet.text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_a_document_is_applied_leaves_all_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::on(&folder.path().join("data"));
    let (mut subject, mut client) = live(&setup).await;
    Workspace::create(&client, "acme").await;
    let applying = |text: &str| admin::ApplyConfigurationRequest {
        parent: "workspaces/acme".to_owned(),
        source: Some(admin::apply_configuration_request::Source::Document(document(text))),
        ..Default::default()
    };
    client.configuration().apply_configuration(applying("text-0")).await.unwrap();
    let (mut whole, mut nothing, mut micros) = (0, 0, 20_000);
    for kill in 1..=KILLS {
        let before = texts(&client).await;
        let next = vec![format!("text-{kill}"); before.len()];
        let (request, mut author) = (applying(&next[0]), client.configuration());
        let apply = tokio::spawn(async move { author.apply_configuration(request).await });
        // Nothing is waited for here: this is the moment. It moves to and fro around the one that decides.
        tokio::time::sleep(Duration::from_micros(micros)).await;
        subject.kill().await.unwrap();
        let answered = apply.await.unwrap();
        (subject, client) = live(&setup).await;
        let after = texts(&client).await;
        assert!(after == before || after == next, "half a document: {before:?} became {after:?}");
        assert!(answered.is_err() || after == next, "an answered document was lost");
        if after == next {
            (whole, micros) = (whole + 1, micros * 3 / 4);
        } else {
            (nothing, micros) = (nothing + 1, micros * 5 / 4 + 100);
        }
    }
    assert!(
        whole > 0 && nothing > 0,
        "{whole} documents were whole, {nothing} left nothing: the moments are not spread"
    );
    subject.stop().await.unwrap();
}

#[cfg(feature = "fault-injection")]
mod moments {
    use sluice_client::admin::{AuditEntry, AuditOutcome};
    use sluice_tests::eventually;
    use sluice_tests::subject::Crash;
    use sluice_tests::subject::Moment::{self, ChangeCommitted, ChangeWritten, RefusalWritten};
    use tempfile::TempDir;

    use super::*;

    const REQUEST_ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

    fn at(setup: &Setup, at: Moment, method: &str) -> Setup {
        Setup { crash: Some(Crash { at, method: method.to_owned() }), ..setup.clone() }
    }

    /// The log of the workspace, whole.
    async fn log(client: &Client) -> Vec<AuditEntry> {
        let parent = || "workspaces/acme".to_owned();
        let verify = admin::VerifyAuditEntriesRequest { parent: parent(), ..Default::default() };
        let verified = client.audit().verify_audit_entries(verify).await.unwrap().into_inner();
        assert_eq!(verified.broken, "", "{verified:?}");
        let request = admin::ListAuditEntriesRequest { parent: parent(), page_size: 1000, ..Default::default() };
        client.audit().list_audit_entries(request).await.unwrap().into_inner().audit_entries
    }

    fn publishes(log: &[AuditEntry]) -> usize {
        log.iter().filter(|entry| entry.method.ends_with("/PublishDrafts")).count()
    }

    /// Acme with some drafts, at rest.
    async fn drafts() -> (TempDir, Setup, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup::on(&folder.path().join("data"));
        let (subject, client) = live(&setup).await;
        let workspace = Workspace::create(&client, "acme").await;
        let mut names = Vec::new();
        for index in 0..DRAFTS {
            let request = resources::post("https://api.example.com/0", "{}");
            names.push(workspace.outgoing(&format!("send-{index}"), request).await.name);
        }
        save(&client, &names, 1).await;
        subject.stop().await.unwrap();
        (folder, setup, names)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_publish_is_all_or_nothing_with_its_entry_and_its_answer() {
        for (moment, is_done) in [(ChangeWritten, false), (ChangeCommitted, true)] {
            let (_folder, setup, names) = drafts().await;
            let (subject, client) = live(&at(&setup, moment, "/PublishDrafts")).await;
            let (before, revision) = standing(&client, &names).await;
            let entries = log(&client).await.len();
            let request = admin::PublishDraftsRequest { request_id: REQUEST_ID.to_owned(), ..publishing(&names) };
            client.configuration().publish_drafts(request.clone()).await.unwrap_err();
            assert!(!subject.ended().await.unwrap().success());

            let (subject, client) = live(&setup).await;
            let next: Vec<i64> = before.iter().map(|version| version + 1).collect();
            let (after, moved) = standing(&client, &names).await;
            let expected = if is_done { (next.clone(), revision + 1) } else { (before, revision) };
            assert_eq!((after, moved), expected, "{moment:?}");
            let written = log(&client).await;
            assert_eq!((publishes(&written), written.len()), (usize::from(is_done), entries + usize::from(is_done)));
            // Whoever got no answer asks again, and it is done once.
            let answer = client.configuration().publish_drafts(request).await.unwrap().into_inner();
            assert_eq!(answer.revision, revision + 1, "{moment:?}");
            assert_eq!(standing(&client, &names).await, (next, revision + 1));
            assert_eq!(publishes(&log(&client).await), 1);
            // The data plane serves what is in force.
            let request = admin::WaitServedRequest { parent: "workspaces/acme".to_owned(), ..Default::default() };
            eventually("the revision to be served", || async {
                let served = client.configuration().wait_served(request.clone()).await.unwrap().into_inner();
                (served.served && served.revision == revision + 1).then_some(())
            })
            .await;
            subject.stop().await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_refusal_that_is_not_written_down_leaves_the_log_whole() {
        let (_folder, setup, names) = drafts().await;
        let (subject, client) = live(&at(&setup, RefusalWritten, "/PublishDrafts")).await;
        let entries = log(&client).await.len();
        let mut request = publishing(&names);
        request.drafts[0].etag = "of-somebody-else".to_owned();
        client.configuration().publish_drafts(request.clone()).await.unwrap_err();
        assert!(!subject.ended().await.unwrap().success());
        let (subject, client) = live(&setup).await;
        assert_eq!(log(&client).await.len(), entries);
        client.configuration().publish_drafts(request).await.unwrap_err();
        let written = log(&client).await;
        assert_eq!(written.iter().filter(|entry| entry.outcome() == AuditOutcome::Refused).count(), 1);
        subject.stop().await.unwrap();
    }
}
