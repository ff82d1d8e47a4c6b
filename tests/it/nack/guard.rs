//! What is refused before it is compiled: what goes back, what is of another history, what takes most away, and what kills.

use sluice_client::admin;
use sluice_data_plane::applying::Applying;
use sluice_data_plane::runtime::Position;
use sluice_proto::sync::v1::resource::Document;
use sluice_proto::sync::v1::{Cursor, Nack, Resource, WorkspaceBody};
use sluice_tests::Numbers;

use super::scripted::{ACME, GOOD, Line, Stage, WORKFLOW, connection, cursor, incoming, workflow};
use super::{reasons, still_serves_the_first};

fn snippet(index: usize, text: &str) -> Resource {
    let name = format!("{ACME}/snippets/s{index}");
    let (display_name, text) = (format!("Snippet {index}"), text.to_owned());
    let document = admin::Snippet { name: name.clone(), display_name, text, ..Default::default() };
    Resource { name, version: 1, document: Some(Document::Snippet(document)), secrets: Vec::new() }
}

/// The workspace that works, with so many snippets.
fn with_snippets(stage: &Stage, count: usize) -> WorkspaceBody {
    let mut all = vec![incoming(), connection("s3cret"), workflow(GOOD)];
    all.extend((0..count).map(|index| snippet(index, "text")));
    stage.body(all)
}

/// A stream on which revision 1 with so many snippets is served.
async fn serving(stage: &mut Stage, count: usize) -> Line {
    let mut line = stage.stream().await;
    let body = with_snippets(stage, count);
    line.welcome().await;
    line.snapshot(&cursor(1, &body), &body, 1 << 20).await;
    line.synced().await;
    assert_eq!(line.ack().await.serving.unwrap().revision, 1);
    line
}

async fn refused(stage: &Stage, label: &str) -> f64 {
    let numbers = Numbers::of(stage.data_plane.health).await;
    numbers.get(&format!("sluice_config_revisions_refused_total{{reason=\"{label}\"}}"))
}

fn only(nack: &Nack, reason: &str) {
    assert_eq!(reasons(nack), [(ACME, "", reason)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_12_what_takes_most_away_is_not_taken_unless_it_is_allowed() {
    let mut stage = Stage::start().await;
    let mut line = serving(&mut stage, 150).await;
    let less = with_snippets(&stage, 49);
    line.snapshot(&cursor(2, &less), &less, 1 << 20).await;
    let nack = line.nack().await;
    only(&nack, "MASS_DELETE_GUARD");
    assert!(nack.problems[0].message.contains("101 of the 153"), "{nack:?}");
    still_serves_the_first(&stage, &nack, 1).await;

    let deletes = (49..150).map(|index| snippet(index, "").name).collect();
    let change = WorkspaceBody { deletes, ..stage.body([]) };
    line.delta(&cursor(3, &less), 1, &change).await;
    let nack = line.nack().await;
    only(&nack, "MASS_DELETE_GUARD");
    still_serves_the_first(&stage, &nack, 2).await;

    let nothing = stage.body([]);
    line.snapshot(&cursor(4, &nothing), &nothing, 1 << 20).await;
    let nack = line.nack().await;
    only(&nack, "MASS_DELETE_GUARD");
    still_serves_the_first(&stage, &nack, 3).await;
    assert_eq!(refused(&stage, "mass_delete").await, 3.0);

    // One less is a change like others, and what is allowed is taken.
    let more = with_snippets(&stage, 50);
    line.snapshot(&cursor(5, &more), &more, 1 << 20).await;
    assert_eq!(line.ack().await.serving.unwrap().revision, 5);
    line.allowed(&cursor(6, &nothing), &nothing).await;
    assert_eq!(line.ack().await.serving.unwrap().revision, 6);
    assert_eq!(stage.trigger().await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_5_another_content_under_the_same_number_is_not_taken() {
    let mut stage = Stage::start().await;
    let mut line = stage.serving().await;
    let other = stage.body([incoming(), connection("s3cret"), workflow(r#"{"forged": 1}"#)]);
    line.snapshot(&cursor(1, &other), &other, 1 << 20).await;
    let nack = line.nack().await;
    only(&nack, "REVISION_FORKED");
    still_serves_the_first(&stage, &nack, 1).await;
    assert_eq!(refused(&stage, "forked").await, 1.0);
    // The same once more is no other.
    let same = stage.body([incoming(), connection("s3cret"), workflow(GOOD)]);
    line.snapshot(&cursor(1, &same), &same, 1 << 20).await;
    assert_eq!(line.ack().await.serving.unwrap().revision, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_4_a_new_epoch_may_go_back() {
    let mut stage = Stage::start().await;
    let mut line = stage.serving().await;
    let template = r#"{"order": {{ request.body.id }}}"#;
    let newer = stage.body([incoming(), connection("s3cret"), workflow(template)]);
    line.delta(&cursor(7, &newer), 1, &stage.body([workflow(template)])).await;
    assert_eq!(line.ack().await.serving.unwrap().revision, 7);
    let older = stage.body([incoming(), connection("s3cret"), workflow(GOOD)]);
    line.snapshot(&cursor(2, &older), &older, 1 << 20).await;
    only(&line.nack().await, "REVISION_BACKWARDS");
    assert_eq!((stage.revision(), refused(&stage, "backwards").await), (Some(7), 1.0));

    drop(line);
    let mut line = stage.stream().await;
    line.welcome_of("a new epoch").await;
    line.snapshot(&cursor(2, &older), &older, 1 << 20).await;
    assert_eq!(line.ack().await.serving.unwrap().revision, 2);
    assert_eq!(stage.revision(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn row_10_a_revision_that_killed_twice_is_refused_by_the_resource_that_did_it() {
    let mut stage = Stage::start().await;
    let mut line = stage.serving().await;
    let template = r#"{"order": {{ request.body.id }}}"#;
    let deadly = stage.body([incoming(), connection("s3cret"), workflow(template)]);
    let at = cursor(2, &deadly);
    // What two lives of this process leave behind that died of it.
    let applying = Applying::open(&stage.folder.path().join("last-good/applying")).unwrap();
    for _ in 0..2 {
        let attempt = applying.begin(&position(&at)).unwrap();
        attempt.works_on(WORKFLOW);
        std::mem::forget(attempt);
    }
    line.snapshot(&at, &deadly, 1 << 20).await;
    let nack = line.nack().await;
    assert_eq!(reasons(&nack), [(WORKFLOW, "", "CRASHED_APPLYING")]);
    still_serves_the_first(&stage, &nack, 1).await;
    assert_eq!(refused(&stage, "crashed").await, 1.0);
    // A newer one is tried.
    line.delta(&Cursor { revision: 3, ..at }, 1, &stage.body([workflow(template)])).await;
    assert_eq!(line.ack().await.serving.unwrap().revision, 3);
}

pub(super) fn position(at: &Cursor) -> Position {
    Position {
        workspace: at.workspace.clone(),
        store_epoch: super::scripted::EPOCH.to_owned(),
        revision: at.revision,
        digest: at.digest.to_vec(),
    }
}

/// Needs a compilation that hangs.
#[cfg(feature = "fault-injection")]
mod hanging {
    use std::time::Duration;

    use sluice_data_plane::inbox::{Fault, InboxSettings};

    use super::super::quarantine::two_flows;
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn row_10_what_takes_too_long_to_compile_is_refused_and_holds_up_nothing_after_it() {
        let mut stage = Stage::with(|settings| {
            settings.compile_max = Duration::from_millis(300);
            let InboxSettings::Embedded(inbox) = &mut settings.inbox else { panic!("not in a file") };
            inbox.fault = Some(Fault::HangAt("/workflows/other"));
        })
        .await;
        let mut line = stage.serving().await;
        let hangs = two_flows(&stage, GOOD);
        for (deliveries, revision) in [(1, 2), (2, 3)] {
            line.snapshot(&cursor(revision, &hangs), &hangs, 1 << 20).await;
            let nack = line.nack().await;
            assert_eq!(reasons(&nack), [("workspaces/acme/workflows/other", "", "COMPILE_TIMEOUT")]);
            still_serves_the_first(&stage, &nack, deliveries).await;
        }
        assert_eq!(refused(&stage, "timeout").await, 2.0);
        let template = r#"{"order": {{ request.body.id }}}"#;
        let good = stage.body([incoming(), connection("s3cret"), workflow(template)]);
        line.delta(&cursor(4, &good), 1, &stage.body([workflow(template)])).await;
        assert_eq!(line.ack().await.serving.unwrap().revision, 4);
        assert_eq!(stage.trigger().await.status, 200);
        // What hangs holds up no end either.
        drop(line);
        stage.restarted(|_| {}).await;
    }
}
