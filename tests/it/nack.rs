//! A bad configuration never replaces a good one (I4): it is refused by name, and the one before keeps serving.
//!
//! The real control plane publishes nothing that is bad, so most of this is told by a scripted one ([`scripted`]).

mod flapping;
mod guard;
mod quarantine;
mod scripted;

use std::time::Duration;

use prost::Message as _;
use scripted::{
    ACME, CONNECTION, GOOD, Stage, WORKFLOW, body, chunks, chunks_of, connection, cursor, incoming, workflow,
};
use sha2::{Digest as _, Sha256};
use sluice_client::admin;
use sluice_core::seal::MasterKeys;
use sluice_core::snapshot::{content_hash, digest};
use sluice_proto::sync::v1::resource::Document;
use sluice_proto::sync::v1::{Cursor, Nack, Resource, WorkspaceBody, WorkspaceDrop, sync_response};
use sluice_tests::{Numbers, World, eventually, resources};

/// The number of `upserts` in a `WorkspaceBody`.
const UPSERTS: u32 = 3;

fn content_hashes(body: &WorkspaceBody) -> Vec<(String, [u8; 32])> {
    body.upserts.iter().map(|one| (one.name.clone(), content_hash(one))).collect()
}

/// Both the revision before and its requests are as they were.
async fn still_serves_the_first(stage: &Stage, nack: &Nack, deliveries: usize) {
    assert_eq!(nack.serving.as_ref().map(|serving| serving.revision), Some(1));
    assert_eq!(stage.revision(), Some(1));
    assert_eq!(stage.trigger().await.status, 200);
    let seen = stage.destination.wait_for(deliveries).await.unwrap();
    let last = seen.last().unwrap();
    assert_eq!((&last.body[..], last.header("x-api-key")), (&br#"{"id": 1}"#[..], Some("s3cret")));
}

/// The reasons of a refusal, each with its resource and field.
fn reasons(nack: &Nack) -> Vec<(&str, &str, &str)> {
    told(&nack.problems)
}

/// Problems, each with its resource and field.
fn told(problems: &[admin::Problem]) -> Vec<(&str, &str, &str)> {
    let mut reasons: Vec<_> = problems
        .iter()
        .map(|problem| (problem.resource.as_str(), problem.field.as_str(), problem.reason.as_str()))
        .collect();
    reasons.sort_unstable();
    reasons
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_template_is_refused_with_its_place_and_the_old_one_keeps_serving() {
    let mut stage = Stage::start().await;
    let mut line = stage.serving().await;
    let broken = "{\n  \"id\": {{ request.body.id | uppr }}\n}";
    let whole = stage.body([incoming(), connection("s3cret"), workflow(broken)]);
    let change = stage.body([workflow(broken)]);
    line.delta(&cursor(2, &whole), 1, &change).await;

    let nack = line.nack().await;
    assert_eq!((nack.workspace.as_str(), nack.revision, nack.needs_snapshot), (ACME, 2, false));
    let [problem] = nack.problems.as_slice() else { panic!("one problem: {nack:?}") };
    assert_eq!(problem.resource, WORKFLOW);
    assert_eq!(problem.field, "steps[0].custom_webhook.body");
    assert_eq!((problem.line, problem.column), (2, 30));
    assert_eq!(problem.reason, "UNKNOWN_FILTER");
    let excerpt = format!("  \"id\": {{{{ request.body.id | uppr }}}}\n{}^", " ".repeat(29));
    assert!(problem.message.contains(&excerpt), "a marked excerpt: {}", problem.message);
    still_serves_the_first(&stage, &nack, 1).await;
    let numbers = Numbers::of(stage.data_plane.health).await;
    assert_eq!(numbers.get("sluice_config_revisions_refused_total{reason=\"invalid\"}"), 1.0);

    // A good one after the bad one is taken, and shows that the refused one left nothing behind.
    let template = r#"{"order": {{ request.body.id }}}"#;
    let whole = stage.body([incoming(), connection("s3cret"), workflow(template)]);
    line.delta(&cursor(3, &whole), 1, &stage.body([workflow(template)])).await;
    assert_eq!(line.ack().await.serving.unwrap().revision, 3);
    assert_eq!(stage.trigger().await.status, 200);
    let seen = stage.destination.wait_for(2).await.unwrap();
    assert_eq!(&seen[1].body[..], br#"{"order": 1}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_wrong_is_named_at_once() {
    let mut stage = Stage::start().await;
    let mut line = stage.serving().await;
    let mut sealed_elsewhere = connection("s3cret");
    sealed_elsewhere.secrets[0].version = 2;
    let mut dangling = workflow("{% nonsense %}");
    dangling.name = "workspaces/acme/workflows/second".to_owned();
    let whole = stage.body([sealed_elsewhere, dangling, workflow(GOOD)]);
    line.snapshot(&cursor(2, &whole), &whole, 1 << 20).await;
    let nack = line.nack().await;
    let expected = [
        (CONNECTION, "api_key.secret", "SECRET_UNREADABLE"),
        (WORKFLOW, "steps[0].custom_webhook.connection", "REFERENCE_MISSING"),
        (WORKFLOW, "triggers[0].incoming_integration", "REFERENCE_MISSING"),
        ("workspaces/acme/workflows/second", "steps[0].custom_webhook.body", "UNKNOWN_TAG"),
    ];
    assert_eq!(reasons(&nack), expected);
    still_serves_the_first(&stage, &nack, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_what_it_says_it_is_is_refused() {
    let mut stage = Stage::start().await;
    let mut line = stage.serving().await;
    let other_keys = MasterKeys::parse("first:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=").unwrap();
    let unknown_keys = MasterKeys::parse("second:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=").unwrap();
    let all = || [incoming(), connection("s3cret"), workflow(GOOD)];
    let good = stage.body(all());
    let other_digest = Cursor { digest: vec![0; 32].into(), ..cursor(2, &good) };
    let mut secret_gone = connection("s3cret");
    secret_gone.secrets.clear();
    let secret_gone = stage.body([incoming(), secret_gone, workflow(GOOD)]);
    let mut kind_unknown = incoming();
    kind_unknown.document = None;
    let kind_unknown = stage.body([kind_unknown, connection("s3cret"), workflow(GOOD)]);
    let keyless = WorkspaceBody { data_key: None, ..good.clone() };
    let cases: Vec<(&str, Cursor, WorkspaceBody)> = vec![
        ("DIGEST_MISMATCH", other_digest, good.clone()),
        ("DATA_KEY_UNREADABLE", cursor(2, &good), body(&other_keys, all())),
        ("DATA_KEY_UNREADABLE", cursor(2, &good), body(&unknown_keys, all())),
        ("DATA_KEY_UNREADABLE", cursor(2, &good), keyless),
        ("SECRET_UNREADABLE", cursor(2, &secret_gone), secret_gone),
        ("KIND_UNKNOWN", cursor(2, &kind_unknown), kind_unknown),
        ("REVISION_BACKWARDS", cursor(0, &good), good),
    ];
    for (deliveries, (reason, cursor, body)) in (1..).zip(cases) {
        line.snapshot(&cursor, &body, 1 << 20).await;
        let nack = line.nack().await;
        assert!(!nack.needs_snapshot);
        assert!(nack.problems.iter().any(|problem| problem.reason == reason), "{reason}: {nack:?}");
        assert!(!format!("{nack:?}").contains("s3cret"), "{reason}: a refusal holds no secret");
        still_serves_the_first(&stage, &nack, deliveries).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_configuration_are_refused() {
    let mut stage = Stage::start().await;
    let mut line = stage.serving().await;
    let at = |revision| Cursor { workspace: ACME.to_owned(), revision, digest: vec![1; 32].into() };
    let delta = sluice_proto::sync::v1::Delta {
        cursor: Some(at(2)),
        base_revision: 1,
        body: b"\xff\xff\xff nonsense"[..].into(),
        ..Default::default()
    };
    line.say(sync_response::Kind::Delta(delta)).await;
    let nack = line.nack().await;
    assert_eq!(reasons(&nack), [(ACME, "", "UNDECODABLE")]);
    still_serves_the_first(&stage, &nack, 1).await;
    let mut chunk = chunks(&at(2), &stage.body([]), 1 << 20).remove(0);
    chunk.body = b"\xff\xff\xff nonsense"[..].into();
    line.say(sync_response::Kind::Snapshot(chunk)).await;
    let nack = line.nack().await;
    assert_eq!(reasons(&nack), [(ACME, "", "UNDECODABLE")]);
    still_serves_the_first(&stage, &nack, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_that_does_not_fit_asks_for_a_snapshot() {
    let mut stage = Stage::start().await;
    let mut line = stage.serving().await;
    let template = r#"{"order": {{ request.body.id }}}"#;
    let whole = stage.body([incoming(), connection("s3cret"), workflow(template)]);
    line.delta(&cursor(7, &whole), 5, &stage.body([workflow(template)])).await;
    let nack = line.nack().await;
    assert!(nack.needs_snapshot && nack.problems.is_empty(), "{nack:?}");
    still_serves_the_first(&stage, &nack, 1).await;
    line.snapshot(&cursor(7, &whole), &whole, 1 << 20).await;
    assert_eq!(line.ack().await.serving.unwrap().revision, 7);
}

/// What a delta changes lies on the disk alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_delta_to_what_the_disk_has_lost_asks_for_a_snapshot() {
    let mut stage = Stage::start().await;
    let mut line = stage.serving().await;
    let file = stage.folder.path().join("last-good/workspaces.acme.pb");
    let template = |number: i64| format!(r#"{{"order{number}": {{{{ request.body.id }}}}}}"#);
    let whole = |number| stage.body([incoming(), connection("s3cret"), workflow(&template(number))]);
    let change = |number| stage.body([workflow(&template(number))]);
    line.delta(&cursor(2, &whole(2)), 1, &change(2)).await;
    assert_eq!(line.ack().await.serving.unwrap().revision, 2, "a delta to what is there");
    let of_two = std::fs::read(&file).unwrap();
    line.delta(&cursor(3, &whole(3)), 2, &change(3)).await;
    assert_eq!(line.ack().await.serving.unwrap().revision, 3, "and to that");

    // Gone, nonsense, and a good file of another revision; that of the revision before is no base either.
    let spoilt: [(i64, Option<&[u8]>); 3] = [(4, None), (5, Some(b"nonsense")), (6, Some(&of_two))];
    for (revision, contents) in spoilt {
        match contents {
            Some(contents) => std::fs::write(&file, contents).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        line.delta(&cursor(revision, &whole(revision)), revision - 1, &change(revision)).await;
        let nack = line.nack().await;
        assert!(nack.needs_snapshot && nack.problems.is_empty(), "{nack:?}");
        assert_eq!((nack.serving.unwrap().revision, stage.revision()), (revision - 1, Some(revision - 1)));
        assert_eq!(stage.trigger().await.status, 200, "what is served stays");
        line.snapshot(&cursor(revision, &whole(revision)), &whole(revision), 1 << 20).await;
        assert_eq!(line.ack().await.serving.unwrap().revision, revision);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_snapshot_are_taken_in_order_and_in_no_other() {
    let mut stage = Stage::start().await;
    let mut line = stage.serving().await;
    let whole = stage.body([incoming(), connection("s3cret"), workflow(GOOD)]);
    line.snapshot(&cursor(2, &whole), &whole, 16).await;
    assert_eq!(line.ack().await.serving.unwrap().revision, 2);

    let disorders: [fn(usize) -> Vec<usize>; 3] =
        [|count| (0..count).rev().collect(), |count| (1..count).collect(), |count| (0..count).step_by(2).collect()];
    for disorder in disorders {
        let parts = chunks(&cursor(3, &whole), &whole, 64);
        assert!(parts.len() > 3);
        for part in disorder(parts.len()) {
            // It may have hung up already: the first part out of order is enough.
            if !line.said(sync_response::Kind::Snapshot(parts[part].clone())).await {
                break;
            }
        }
        line.ended().await;
        // It calls again, and says that it serves what it served.
        line = stage.stream().await;
        assert_eq!(line.hello.cursors.iter().map(|cursor| cursor.revision).collect::<Vec<_>>(), [2]);
        assert_eq!((stage.revision(), stage.trigger().await.status), (Some(2), 200));
        line.welcome().await;
        line.synced().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a16_half_a_snapshot_leaves_nothing_behind() {
    let mut stage = Stage::start().await;
    let mut line = stage.serving().await;
    let template = r#"{"order": {{ request.body.id }}}"#;
    let whole = stage.body([incoming(), connection("s3cret"), workflow(template)]);
    for revision in 2..5 {
        let parts = chunks(&cursor(revision, &whole), &whole, 64);
        for part in &parts[..parts.len() / 2] {
            line.say(sync_response::Kind::Snapshot(part.clone())).await;
        }
        // The stream is reset in the middle.
        drop(line);
        line = stage.stream().await;
        assert_eq!(line.hello.cursors.iter().map(|cursor| cursor.revision).collect::<Vec<_>>(), [1]);
        assert_eq!((stage.revision(), stage.trigger().await.status), (Some(1), 200));
        line.welcome().await;
    }
    line.snapshot(&cursor(5, &whole), &whole, 64).await;
    assert_eq!(line.ack().await.serving.unwrap().revision, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a16_what_is_announced_to_be_too_large_is_refused_at_its_first_part() {
    let mut stage = Stage::start().await;
    let mut line = stage.serving().await;
    let whole = stage.body([incoming(), connection("s3cret"), workflow(GOOD)]);
    let at = cursor(2, &whole);
    // 500 parts of 1 MiB, the largest that are sent.
    let part = |index| sluice_proto::sync::v1::SnapshotChunk {
        cursor: Some(at.clone()),
        index,
        count: 500,
        body: vec![0; 1 << 20].into(),
        ..Default::default()
    };
    line.say(sync_response::Kind::Snapshot(part(0))).await;
    let nack = line.nack().await;
    assert_eq!(reasons(&nack), [(ACME, "", "TOO_LARGE")]);
    still_serves_the_first(&stage, &nack, 1).await;
    // The rest of it passes by, is not refused again, and what comes after it is taken.
    for index in 1..4 {
        line.say(sync_response::Kind::Snapshot(part(index))).await;
    }
    line.snapshot(&cursor(3, &whole), &whole, 1 << 20).await;
    assert_eq!(line.ack().await.serving.unwrap().revision, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a16_a_field_of_a_later_release_is_refused_rather_than_half_understood() {
    let mut stage = Stage::start().await;
    let mut line = stage.serving().await;
    let whole = stage.body([incoming(), connection("s3cret"), workflow(GOOD)]);
    let document = admin::IncomingIntegration {
        name: "workspaces/acme/incomingIntegrations/later".to_owned(),
        endpoint_id: "later".to_owned(),
        published_version: 1,
        ..resources::open()
    };
    let known = Resource {
        name: document.name.clone(),
        version: 1,
        document: Some(Document::IncomingIntegration(document)),
        secrets: Vec::new(),
    };
    // Field 500 is one that this release does not know.
    let unknown_field = [0xa2, 0x1f, 0x03, b'n', b'e', b'w'];
    for (revision, more) in [(2, &[][..]), (3, &unknown_field[..])] {
        let later = [known.encode_to_vec().as_slice(), more].concat();
        let mut hashes = content_hashes(&whole);
        hashes.push((known.name.clone(), Sha256::digest(&later).into()));
        let digest = digest(hashes.iter().map(|(name, hash)| (name.as_str(), hash)));
        let mut encoded = whole.encode_to_vec();
        prost::encoding::bytes::encode(UPSERTS, &later, &mut encoded);
        let at = Cursor { digest: digest.to_vec().into(), ..cursor(revision, &whole) };
        for part in chunks_of(&at, &encoded, 1 << 20) {
            line.say(sync_response::Kind::Snapshot(part)).await;
        }
        if more.is_empty() {
            assert_eq!(line.ack().await.serving.unwrap().revision, 2);
        }
    }
    let nack = line.nack().await;
    assert_eq!((nack.revision, reasons(&nack)), (3, vec![(ACME, "", "DIGEST_MISMATCH")]));
    assert_eq!((stage.revision(), stage.trigger().await.status), (Some(2), 200));
    // A message of a later release ends the stream; what is served stays.
    line.unknown().await;
    line.ended().await;
    let line = stage.stream().await;
    assert_eq!((stage.revision(), line.hello.cursors[0].revision), (Some(2), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_goes_by_its_tombstone_and_by_nothing_else() {
    let mut stage = Stage::start().await;
    let line = stage.serving().await;
    let file = stage.folder.path().join("last-good/workspaces.acme.pb");
    assert!(file.exists());
    // A stream that ends and a sync that names nothing change nothing.
    drop(line);
    let line = stage.stream().await;
    line.welcome().await;
    line.synced().await;
    assert_eq!(stage.trigger().await.status, 200);
    assert!(file.exists());

    line.say(sync_response::Kind::Drop(WorkspaceDrop { workspace: ACME.to_owned() })).await;
    eventually("the workspace to go", || async { stage.revision().is_none().then_some(()) }).await;
    assert_eq!(stage.trigger().await.status, 404);
    eventually("its file to go", || async { (!file.exists()).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_see_what_a_data_plane_refused_and_why() {
    let other_key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(other_key.path(), "other:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=").unwrap();
    let world = World::with(|options| {
        options.data_plane.master_key_file = other_key.path().to_owned();
        options.data_plane.keys_read_every = Duration::from_millis(50);
    })
    .await;
    let incoming = world.acme.incoming("orders", sluice_tests::resources::open()).await;
    let served = async || {
        let request = admin::ListDataPlanesRequest::default();
        let planes = world.client.data_planes().list_data_planes(request).await.unwrap().into_inner().data_planes;
        let served = planes.into_iter().find(|plane| plane.name == "dataPlanes/test")?.workspaces;
        served.into_iter().find(|served| served.workspace == "workspaces/acme")
    };
    let refusal = eventually("the refusal", || async {
        let acme = served().await?;
        assert_eq!(acme.revision, 0, "nothing of it is served");
        acme.refusal
    })
    .await;
    assert_eq!(refusal.revision, world.acme.get().await.revision);
    assert!(refusal.time.is_some());
    let reasons: Vec<&str> = refusal.problems.iter().map(|problem| problem.reason.as_str()).collect();
    assert_eq!(reasons, ["DATA_KEY_UNREADABLE"]);
    assert_eq!(refusal.problems[0].resource, "workspaces/acme");

    // The key comes into its ring: nobody publishes, nobody restarts it.
    let known = std::fs::read_to_string(world.folder.master_key_file()).unwrap();
    std::fs::write(other_key.path(), known).unwrap();
    let acme =
        eventually("what was refused to be served", || async { served().await.filter(|acme| acme.revision > 0) }).await;
    assert_eq!((acme.revision, acme.refusal), (refusal.revision, None));
    assert_eq!(world.trigger(&incoming, &serde_json::json!({})).await.status, 200);
}
