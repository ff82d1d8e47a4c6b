//! Faults around a data plane that must not be seen in what it serves (rows 8, 14 and 26 of the failure matrix), and that every row has
//! its tests: `tests/golden/sync/matrix.jsonl`.

use serde_json::{Value, json};
use sluice_client::admin;
use sluice_data_plane::clock::Clock;
use sluice_tests::{Numbers, World, resources};

use crate::attack_table::{assert_there, rows};

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
    for row in &rows {
        let tests = row["tests"].as_array().unwrap();
        let reason = row.get("untested").and_then(Value::as_str).unwrap_or_default();
        assert!(!tests.is_empty() || !reason.is_empty(), "{row}");
        assert_there(row);
    }
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
