//! The first revision of a workspace that is not whole (rule 6 of sync): what is good of it is served, the rest answers 503, and nothing that
//! was accepted is lost. With something to fall back to all is as ever: it is refused.

use sluice::destination::{Answer, Seen};
use sluice_data_plane::applying::Applying;
use sluice_data_plane::clock::Clock;
use sluice_proto::sync::v1::resource::Document;
use sluice_proto::sync::v1::{Cursor, Resource, WorkspaceBody};
use sluice_tests::{Numbers, RawHttp, Request, eventually};

use super::guard::position;
use super::scripted::{
    ACME, CONNECTION, ENDPOINT, GOOD, INCOMING, Line, Stage, WORKFLOW, connection, cursor, incoming, workflow,
};
use super::{reasons, told};

const BROKEN: &str = "{\n  \"id\": {{ request.body.id | uppr }}\n}";
const OTHER: &str = "workspaces/acme/incomingIntegrations/other";
const OTHER_ENDPOINT: &str = "/automation-endpoint/endpoints/authorized/other/trigger";
const OTHER_WORKFLOW: &str = "workspaces/acme/workflows/other";
const NOWHERE: &str = "/automation-endpoint/endpoints/authorized/nobody/trigger";

fn renamed(mut resource: Resource, name: &str) -> Resource {
    name.clone_into(&mut resource.name);
    match resource.document.as_mut().unwrap() {
        Document::IncomingIntegration(document) => {
            name.clone_into(&mut document.name);
            "other".clone_into(&mut document.endpoint_id);
        }
        Document::Workflow(document) => {
            name.clone_into(&mut document.name);
            OTHER.clone_into(&mut document.triggers[0].incoming_integration);
        }
        other => panic!("{other:?}"),
    }
    resource
}

/// A flow with this template, and another one that is good.
pub(super) fn two_flows(stage: &Stage, template: &str) -> WorkspaceBody {
    stage.body([
        incoming(),
        workflow(template),
        renamed(incoming(), OTHER),
        renamed(workflow(GOOD), OTHER_WORKFLOW),
        connection("s3cret"),
    ])
}

/// A stream on which this was sent as the first revision.
async fn first(stage: &mut Stage, body: &WorkspaceBody) -> Line {
    let line = stage.stream().await;
    line.welcome().await;
    line.snapshot(&cursor(1, body), body, 1 << 20).await;
    line.synced().await;
    line
}

async fn quarantined(stage: &Stage) -> f64 {
    Numbers::of(stage.data_plane.health).await.get("sluice_config_quarantined_resources")
}

/// The flow that is not good answers 503, the other one works, and what is not there is denied.
async fn serves_the_other(stage: &Stage) {
    let answer = stage.trigger().await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("30")));
    assert!(answer.text().contains("CONFIGURATION_QUARANTINED"), "{}", answer.text());
    assert_eq!(stage.trigger_at(OTHER_ENDPOINT).await.status, 200);
    assert_eq!(stage.trigger_at(NOWHERE).await.status, 404);
    let ready = RawHttp::connect(stage.data_plane.health).await.exchange(&Request::new("GET", "/readyz")).await;
    assert_eq!(ready.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_good_of_a_first_revision_is_served_and_the_rest_when_it_is_mended() {
    let mut stage = Stage::start().await;
    let bad = two_flows(&stage, BROKEN);
    let mut line = first(&mut stage, &bad).await;
    let ack = line.ack().await;
    assert_eq!(ack.serving, Some(cursor(1, &bad)));
    let expected = [(INCOMING, "", "QUARANTINED_WITH"), (WORKFLOW, "steps[0].custom_webhook.body", "UNKNOWN_FILTER")];
    assert_eq!(told(&ack.quarantined), expected);
    assert_eq!(ack.quarantined[0].line, 2, "with its place");
    serves_the_other(&stage).await;
    assert_eq!(quarantined(&stage).await, 1.0);

    // It comes up again from what it has kept, and says so on its stream.
    drop(line);
    let mut stage = stage.restarted(|_| {}).await;
    let mut line = stage.stream().await;
    assert_eq!(line.hello.cursors, [cursor(1, &bad)]);
    assert_eq!(told(&line.hello.incomplete[0].quarantined), expected);
    line.welcome().await;
    line.synced().await;
    serves_the_other(&stage).await;

    // What takes nothing away that works is taken, though not all of it is good.
    let more = r#"{"order": {{ request.body.id }}}"#;
    let change = stage.body([renamed(workflow(more), OTHER_WORKFLOW)]);
    let whole = stage.body([
        incoming(),
        workflow(BROKEN),
        renamed(incoming(), OTHER),
        renamed(workflow(more), OTHER_WORKFLOW),
        connection("s3cret"),
    ]);
    line.delta(&cursor(2, &whole), 1, &change).await;
    assert_eq!(told(&line.ack().await.quarantined), expected);
    serves_the_other(&stage).await;

    // What would is refused.
    let worse = stage.body([
        incoming(),
        workflow(BROKEN),
        renamed(incoming(), OTHER),
        renamed(workflow(BROKEN), OTHER_WORKFLOW),
        connection("s3cret"),
    ]);
    line.delta(&cursor(3, &worse), 2, &stage.body([renamed(workflow(BROKEN), OTHER_WORKFLOW)])).await;
    let nack = line.nack().await;
    assert_eq!(nack.serving.as_ref().map(|serving| serving.revision), Some(2));
    assert!(reasons(&nack).iter().any(|(resource, ..)| *resource == OTHER_WORKFLOW), "{nack:?}");
    serves_the_other(&stage).await;

    // And what is mended is served.
    let good = stage.body([
        incoming(),
        workflow(GOOD),
        renamed(incoming(), OTHER),
        renamed(workflow(more), OTHER_WORKFLOW),
        connection("s3cret"),
    ]);
    line.delta(&cursor(4, &good), 2, &stage.body([workflow(GOOD)])).await;
    let ack = line.ack().await;
    assert_eq!((ack.serving.unwrap().revision, ack.quarantined.len()), (4, 0));
    assert_eq!((stage.trigger().await.status, quarantined(&stage).await), (200, 0.0));
    stage.destination.wait_for(4).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_depends_on_the_bad_is_left_out_with_it() {
    let mut stage = Stage::start().await;
    let mut unreadable = connection("s3cret");
    unreadable.secrets[0].version = 2;
    let body = stage.body([incoming(), workflow(GOOD), renamed(incoming(), OTHER), unreadable]);
    let mut line = first(&mut stage, &body).await;
    let expected = [
        (CONNECTION, "api_key.secret", "SECRET_UNREADABLE"),
        (INCOMING, "", "QUARANTINED_WITH"),
        (WORKFLOW, "steps[0].custom_webhook.connection", "QUARANTINED_WITH"),
    ];
    assert_eq!(told(&line.ack().await.quarantined), expected);
    serves_the_other(&stage).await;
    assert_eq!(quarantined(&stage).await, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_cannot_be_read_is_known_by_its_id() {
    let mut stage = Stage::start().await;
    let mut bad = incoming();
    let Some(Document::IncomingIntegration(document)) = &mut bad.document else { panic!() };
    document.authorization = None;
    let body = stage.body([bad, workflow(GOOD), renamed(incoming(), OTHER), connection("s3cret")]);
    let mut line = first(&mut stage, &body).await;
    let ack = line.ack().await;
    let left_out: Vec<&str> = told(&ack.quarantined).into_iter().map(|(resource, ..)| resource).collect();
    assert_eq!(left_out, [INCOMING, WORKFLOW]);
    serves_the_other(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_10_what_kills_at_the_first_start_is_left_out() {
    let mut stage = Stage::start().await;
    let body = two_flows(&stage, GOOD);
    let at = cursor(1, &body);
    // What two lives of this process leave behind that died of it.
    let applying = Applying::open(&stage.folder.path().join("last-good/applying")).unwrap();
    for _ in 0..2 {
        let attempt = applying.begin(&position(&at)).unwrap();
        attempt.works_on(WORKFLOW);
        std::mem::forget(attempt);
    }
    let mut line = first(&mut stage, &body).await;
    let expected = [(INCOMING, "", "QUARANTINED_WITH"), (WORKFLOW, "", "CRASHED_APPLYING")];
    assert_eq!(told(&line.ack().await.quarantined), expected);
    serves_the_other(&stage).await;
    // It is not tried again when it comes up from what it has kept.
    drop(line);
    let mut stage = stage.restarted(|_| {}).await;
    let line = stage.stream().await;
    assert_eq!(told(&line.hello.incomplete[0].quarantined), expected);
    line.welcome().await;
    line.synced().await;
    serves_the_other(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_can_be_served_nothing_is_denied() {
    let mut stage = Stage::start().await;
    let body = WorkspaceBody { data_key: None, ..two_flows(&stage, GOOD) };
    let mut line = first(&mut stage, &body).await;
    let nack = line.nack().await;
    assert_eq!(reasons(&nack), [(ACME, "", "DATA_KEY_UNREADABLE")]);
    for path in [ENDPOINT, NOWHERE] {
        let answer = stage.trigger_at(path).await;
        assert!(answer.status == 503 && answer.text().contains("NOT_READY"), "{path}: {}", answer.text());
    }
    let good = two_flows(&stage, GOOD);
    line.snapshot(&Cursor { revision: 2, ..cursor(2, &good) }, &good, 1 << 20).await;
    assert_eq!(line.ack().await.quarantined, []);
    assert_eq!((stage.trigger().await.status, stage.trigger_at(NOWHERE).await.status), (200, 404));
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_of_what_is_left_out_wait_for_it() {
    let clock = Clock::manual(1_800_000_000_000);
    let mut stage = Stage::with(|settings| settings.clock = clock.clone()).await;
    let line = stage.serving().await;
    stage.destination.script([Answer::status(500)]);
    assert_eq!(stage.trigger().await.status, 200);
    stage.destination.wait_for(1).await.unwrap();
    let delayed = async |stage: &Stage| {
        Numbers::of(stage.data_plane.health).await.get("sluice_inbox_jobs{lane=\"realtime\",state=\"delayed\"}") == 1.0
    };
    eventually("the delivery to wait", async || delayed(&stage).await.then_some(())).await;

    // The data plane loses what it has kept of the configuration, and meets one that is no longer whole.
    drop(line);
    let mut stage = stage.restarted(|folder| std::fs::remove_dir_all(folder.path().join("last-good")).unwrap()).await;
    let bad = two_flows(&stage, BROKEN);
    let mut line = first(&mut stage, &bad).await;
    assert!(!line.ack().await.quarantined.is_empty());
    // Its time comes, and it waits on; what is mended is delivered. Whatever comes in wakes who waits.
    let key = |seen: &Seen| seen.header("idempotency-key").map(str::to_owned);
    let first = key(&stage.destination.requests()[0]);
    let tried = async |milliseconds| {
        clock.advance(milliseconds);
        assert_eq!(stage.trigger_at(OTHER_ENDPOINT).await.status, 200);
        stage.destination.requests().iter().filter(|seen| key(seen) == first).count()
    };
    for _ in 0..5 {
        assert_eq!(tried(60_000).await, 1);
    }
    let good = two_flows(&stage, GOOD);
    line.delta(&cursor(2, &good), 1, &stage.body([workflow(GOOD)])).await;
    assert_eq!(line.ack().await.quarantined, []);
    // In small steps: however often it is looked, it does not become too old.
    eventually("the delivery to be made", async || (tried(1_000).await == 2).then_some(())).await;
    let stats = stage.data_plane.plane.plane().inbox.stats().await.unwrap();
    assert_eq!(stats.realtime.dead, 0);
}
