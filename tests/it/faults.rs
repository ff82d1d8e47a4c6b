//! Faults around a data plane that must not be seen in what it serves (rows 8, 14 and 26 of the failure matrix), and that every row has
//! its tests: `tests/golden/sync/matrix.jsonl`. The same of every fault of the campaign: `tests/golden/faults/list.jsonl`.

use serde_json::json;
use sluice_client::admin;
use sluice_data_plane::clock::Clock;
use sluice_tests::{Numbers, World, resources};

use crate::attack_table::{assert_covered, rows};

const URL: &str = "https://api.example.com/orders";

async fn flow(world: &World) -> admin::IncomingIntegration {
    world.acme.flow("orders", resources::post(URL, r#"{"id": {{ request.body.id }}}"#)).await
}

#[test]
fn every_row_of_the_failure_matrix_has_tests_that_are_there_or_a_reason() {
    let rows = rows("tests/golden/sync/matrix.jsonl");
    let named: Vec<i64> = rows.iter().map(|row| row["row"].as_i64().unwrap()).collect();
    let expected: Vec<i64> = (1..=22).chain([26]).collect();
    assert_eq!(named, expected);
    assert_covered(&rows);
}

/// The faults F01 to F45, the crash points CP1 to CP14 of a plane and ST1 to ST8 of its store. A row names the tests that hold it;
/// `untested` says what of it none holds, and why.
#[test]
fn every_fault_and_every_crash_point_has_tests_that_are_there_or_a_reason() {
    let rows = rows("tests/golden/faults/list.jsonl");
    let named: Vec<&str> = rows.iter().map(|row| row["row"].as_str().unwrap()).collect();
    let faults = (1..=45).map(|n| format!("F{n:02}"));
    let points = (1..=14).map(|n| format!("CP{n}"));
    let expected: Vec<String> = faults.chain(points).chain((1..=8).map(|n| format!("ST{n}"))).collect();
    assert_eq!(named, expected);
    assert_covered(&rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_8_without_a_disk_what_comes_is_served_from_memory() {
    let world = World::start().await;
    let incoming = flow(&world).await;
    world.served().await;
    // Nothing can be written where a file stands in the place of the folder.
    let folder = world.folder.path().join("last-good");
    std::fs::rename(&folder, folder.with_extension("gone")).unwrap();
    std::fs::write(&folder, "").unwrap();
    world.acme.incoming("more", resources::open()).await;
    world.acme.ready().await;
    world.served().await;
    assert_eq!(world.trigger(&incoming, &json!({ "id": 1 })).await.status, 200);
    world.destination.wait_for(1).await.unwrap();
    let numbers = Numbers::of(world.health()).await;
    assert!(numbers.get("sluice_last_good_errors_total") > 0.0, "{}", numbers.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn row_14_a_clock_that_is_wrong_holds_no_revision_up() {
    for skew in [-600_000, 600_000] {
        let now = Clock::system().now();
        let world = World::with(|options| options.data_plane.clock = Clock::manual(now + skew)).await;
        let incoming = flow(&world).await;
        world.acme.ready().await;
        world.served().await;
        assert_eq!(world.trigger(&incoming, &json!({ "id": 1 })).await.status, 200, "{skew}");
        world.acme.incoming("more", resources::open()).await;
        world.acme.ready().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_26_random_ids_are_answered_without_the_control_plane() {
    let mut world = World::start().await;
    let incoming = flow(&world).await;
    world.served().await;
    world.stop_control_plane().await;
    for number in 0..200 {
        let endpoint_path = format!("/automation-endpoint/endpoints/authorized/nobody-{number}/trigger");
        let unknown = admin::IncomingIntegration { endpoint_path, ..Default::default() };
        assert_eq!(world.trigger(&unknown, &json!({})).await.status, 404);
    }
    assert_eq!(world.trigger(&incoming, &json!({ "id": 1 })).await.status, 200);
}

/// Row 10, with a real process that dies of a revision in two of its lives.
#[cfg(feature = "fault-injection")]
mod deadly {
    use std::process::Stdio;

    use sluice_client::{Client, admin};
    use sluice_tests::subject::{Fault, PlaneMoment, Setup, Subject};
    use sluice_tests::{RawHttp, Request, Workspace, eventually, resources};

    const PROGRAM: &str = env!("CARGO_BIN_EXE_subject");

    async fn client(setup: &Setup) -> Client {
        let key = std::fs::read_to_string(setup.folder.join("admin.key")).unwrap();
        Client::connect(&format!("http://{}", setup.grpc), &key).await.unwrap()
    }

    async fn served(client: &Client) -> Option<admin::ServedWorkspace> {
        let request = admin::ListDataPlanesRequest::default();
        let planes = client.data_planes().list_data_planes(request).await.unwrap().into_inner().data_planes;
        planes.into_iter().flat_map(|plane| plane.workspaces).find(|served| served.workspace == "workspaces/acme")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn row_10_a_process_that_dies_twice_of_a_revision_comes_up_without_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut setup = Setup::on(&folder.path().join("data"));
        let subject = Subject::start(PROGRAM, &setup, Stdio::null()).await.unwrap();
        let acme = Workspace::create(&client(&setup).await, "acme").await;
        let incoming = acme.incoming("orders", resources::open()).await;
        acme.ready().await;
        subject.stop().await.unwrap();

        setup.fault = Some(Fault::EndAt(PlaneMoment::Applying));
        let subject = Subject::start(PROGRAM, &setup, Stdio::null()).await.unwrap();
        let acme = Workspace { client: client(&setup).await, ..acme };
        let draft = acme.draft_incoming("deadly", resources::open()).await;
        // Both planes die together; whether the answer still came does not matter.
        let _ = acme.publish_incoming(&draft.name).await;
        assert!(!subject.ended().await.unwrap().success());
        // It dies of the same once more, now while it starts or as soon as it has.
        if let Ok(subject) = Subject::start(PROGRAM, &setup, Stdio::null()).await {
            assert!(!subject.ended().await.unwrap().success());
        }

        setup.fault = None;
        let subject = Subject::start(PROGRAM, &setup, Stdio::null()).await.unwrap();
        let client = client(&setup).await;
        let refused = eventually("the refusal", || async { served(&client).await?.refusal }).await;
        let [problem] = refused.problems.as_slice() else { panic!("{refused:?}") };
        assert_eq!((problem.resource.as_str(), problem.reason.as_str()), (draft.name.as_str(), "CRASHED_APPLYING"));
        let request = Request::post(&incoming.endpoint_path, "{}");
        assert_eq!(
            RawHttp::connect(setup.ingress).await.exchange(&request).await.status,
            200,
            "the one before is served"
        );
        // A newer revision is tried.
        let acme = Workspace { client: client.clone(), ..acme };
        acme.incoming("harmless", resources::open()).await;
        acme.ready().await;
        subject.stop().await.unwrap();
    }
}
