//! A control plane that comes, says nonsense and goes, again and again (F27): the data plane serves what it has.

use sluice_proto::sync::v1::{SnapshotChunk, sync_response};
use sluice_tests::long;

use super::scripted::{GOOD, Stage, connection, cursor, incoming, workflow};

#[tokio::test(flavor = "multi_thread")]
async fn f27_a_control_plane_that_flaps_and_says_nonsense_changes_nothing() {
    let mut stage = Stage::start().await;
    drop(stage.serving().await);
    let body = stage.body([incoming(), connection("s3cret"), workflow(GOOD)]);
    let broken = stage.body([incoming(), connection("s3cret"), workflow("{{ nothing | }}")]);
    for round in 0..long::either(5, 300) {
        let mut line = stage.stream().await;
        line.welcome().await;
        match round % 5 {
            // Gone before it has said anything.
            0 => {}
            // Bytes that are nothing.
            1 => {
                let garbage = SnapshotChunk {
                    cursor: Some(cursor(9, &body)),
                    count: 1,
                    body: vec![0xff; 4_096].into(),
                    ..SnapshotChunk::default()
                };
                line.say(sync_response::Kind::Snapshot(garbage)).await;
                line.nack().await;
            }
            // Half of something newer.
            2 => {
                let chunks = super::scripted::chunks(&cursor(9, &body), &body, 64);
                line.say(sync_response::Kind::Snapshot(chunks[0].clone())).await;
            }
            // A change of something that is not there.
            3 => {
                line.delta(&cursor(9, &body), 8, &body).await;
                line.nack().await;
            }
            // Something newer that cannot be served.
            _ => {
                line.snapshot(&cursor(9, &broken), &broken, 1 << 20).await;
                line.nack().await;
            }
        }
        assert_eq!(stage.trigger().await.status, 200, "round {round}");
        drop(line);
        assert_eq!((stage.trigger().await.status, stage.revision()), (200, Some(1)), "round {round}");
    }
    // When it comes to its senses it is believed.
    let mut line = stage.stream().await;
    line.welcome().await;
    line.snapshot(&cursor(10, &body), &body, 1 << 20).await;
    line.synced().await;
    assert_eq!(line.ack().await.serving.unwrap().revision, 10);
    stage.destination.wait_for(1).await.unwrap();
}
