//! What a data plane says on its beats that it serves, against what it has acknowledged: two beats in a row that differ lead to a
//! comparison, and only what differs is sent again (anti-entropy).

use prost_types::Timestamp;
use sluice_core::snapshot;
use sluice_proto::admin::v1 as admin;
use sluice_proto::sync::v1::sync_request::Kind as Say;
use sluice_proto::sync::v1::sync_response::Kind as Hear;
use sluice_proto::sync::v1::{Beat, BeatHeard, Cursor, Holding};

use crate::sync::{DataPlane, resources};
use crate::world::{ACME, START, World};

/// Says what is held now, and hears the answer.
async fn beat(plane: &mut DataPlane) -> BeatHeard {
    let cursors = plane.cursors();
    beat_of(plane, &cursors).await
}

async fn beat_of(plane: &mut DataPlane, cursors: &[Cursor]) -> BeatHeard {
    let time = Some(Timestamp { seconds: START / 1000, nanos: 0 });
    plane.say(Say::Beat(Beat { digest: snapshot::holding(cursors.iter()).to_vec().into(), time })).await;
    let heard = plane.hear().await;
    let Hear::BeatHeard(answer) = heard else { panic!("not the answer to a beat: {heard:?}") };
    assert_eq!(answer.time.unwrap().seconds, START / 1000);
    answer
}

/// A data plane that is up to date, with two workspaces.
async fn current(world: &World) -> DataPlane {
    world.connection("crm", "s3cret").await;
    world.workspace("other").await;
    let connection = admin::CreateConnectionRequest {
        parent: "workspaces/other".to_owned(),
        connection_id: "erp".to_owned(),
        connection: Some(crate::world::api_key("s3cret")),
        ..Default::default()
    };
    world.connections().create_connection(connection).await.unwrap();
    let mut plane = DataPlane::connect(world, "dp-1", "", &[]).await;
    assert_eq!(plane.sync().await.len(), 2);
    plane
}

#[tokio::test]
async fn beats_that_say_what_was_acknowledged_move_nothing() {
    let world = World::new().await;
    let mut plane = current(&world).await;
    for _ in 0..5 {
        assert!(!beat(&mut plane).await.wants_holding);
    }
    // Not of what was published a moment ago: only what was acknowledged counts.
    world.connection("erp", "s3cret").await;
    let change = plane.hear().await;
    for _ in 0..3 {
        assert!(!beat(&mut plane).await.wants_holding);
    }
    plane.take(&change);
    plane.ack(ACME).await;
    assert!(!beat(&mut plane).await.wants_holding);
}

#[tokio::test]
async fn what_drifted_is_found_by_two_beats_and_it_alone_is_sent_again() {
    let world = World::new().await;
    let mut plane = current(&world).await;
    let old = plane.held[ACME].clone();
    world.connection("erp", "s3cret").await;
    plane.until(ACME, 2).await;
    assert!(!beat(&mut plane).await.wants_holding);

    // It serves what it has served before, and has acknowledged the newer one.
    plane.held.insert(ACME.to_owned(), old);
    assert!(!beat(&mut plane).await.wants_holding, "one that differs may have met a message on its way");
    assert!(beat(&mut plane).await.wants_holding);
    let cursors = plane.cursors();
    plane.say(Say::Holding(Holding { store_epoch: plane.epoch.clone(), cursors })).await;
    let heard = plane.hear().await;
    let Hear::Delta(delta) = &heard else { panic!("not what was missed: {heard:?}") };
    assert_eq!((delta.base_revision, delta.cursor.as_ref().unwrap().revision), (1, 2));
    plane.take(&heard);
    plane.ack(ACME).await;
    assert_eq!(resources(&plane, ACME).len(), 2);
    // The next thing that is heard is an answer: nothing else was sent.
    for _ in 0..4 {
        assert!(!beat(&mut plane).await.wants_holding);
    }

    // What is gone altogether comes whole.
    plane.held.remove("workspaces/other");
    assert!(!beat(&mut plane).await.wants_holding);
    assert!(beat(&mut plane).await.wants_holding);
    let cursors = plane.cursors();
    plane.say(Say::Holding(Holding { store_epoch: plane.epoch.clone(), cursors })).await;
    plane.until("workspaces/other", 1).await;
    assert!(!beat(&mut plane).await.wants_holding);
}

#[tokio::test]
async fn one_beat_that_differs_between_others_leads_to_nothing() {
    let world = World::new().await;
    let mut plane = current(&world).await;
    for _ in 0..3 {
        assert!(!beat_of(&mut plane, &[]).await.wants_holding);
        assert!(!beat(&mut plane).await.wants_holding);
    }
    // What this store has never had is neither sent nor dropped, and part of what is said.
    let (epoch, mut cursors) = (plane.epoch.clone(), plane.cursors());
    cursors.push(Cursor { workspace: "workspaces/unheard-of".to_owned(), revision: 7, digest: vec![7; 32].into() });
    drop(plane);
    let mut plane = DataPlane::connect(&world, "dp-1", &epoch, &cursors).await;
    assert!(plane.sync().await.is_empty());
    for _ in 0..4 {
        assert!(!beat_of(&mut plane, &cursors).await.wants_holding);
    }
}

#[tokio::test]
async fn row_14_a_clock_that_is_wrong_is_shown() {
    let world = World::new().await;
    let mut plane = current(&world).await;
    let shown = async || {
        let request = admin::ListDataPlanesRequest::default();
        let planes = world.data_planes().list_data_planes(request).await.unwrap().into_inner().data_planes;
        planes[0].clock_skew.map(|skew| (skew.seconds, skew.nanos))
    };
    assert_eq!(shown().await, None, "it has not said");
    let digest: Vec<u8> = snapshot::holding(plane.cursors().iter()).to_vec();
    // A change of less than a second is not news: it is how long messages take.
    let told = [(600_250, (600, 250)), (600_900, (600, 250)), (-600_250, (-600, -250)), (0, (0, 0))];
    for (skew, expected) in told {
        let at = START + skew;
        let time =
            Timestamp { seconds: at.div_euclid(1000), nanos: i32::try_from(at.rem_euclid(1000)).unwrap() * 1_000_000 };
        plane.say(Say::Beat(Beat { digest: digest.clone().into(), time: Some(time) })).await;
        assert!(matches!(plane.hear().await, Hear::BeatHeard(_)));
        let (seconds, nanos) = (expected.0, expected.1 * 1_000_000);
        assert_eq!(shown().await, Some((seconds, nanos)));
    }
}
