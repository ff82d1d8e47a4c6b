//! A store that was set back, and revisions that take most away: what data planes are told, what is refused, and the way forward.

use sluice_proto::admin::v1 as admin;
use sluice_proto::sync::v1::sync_request::Kind as Say;
use sluice_proto::sync::v1::sync_response::Kind as Hear;
use sluice_proto::sync::v1::{Cursor, Nack};
use tonic::Code;

use crate::sync::DataPlane;
use crate::world::{ACME, World, details, refusal, violations};

async fn wait_served(world: &World, revision: i64) -> admin::WaitServedResponse {
    let request = admin::WaitServedRequest {
        parent: ACME.to_owned(),
        revision,
        timeout: Some(prost_types::Duration { seconds: 20, nanos: 0 }),
    };
    world.configuration().wait_served(request).await.unwrap().into_inner()
}

async fn confirm(world: &World, revision: i64) -> Result<i64, tonic::Status> {
    let request = admin::ConfirmDeletionsRequest { name: ACME.to_owned(), revision, ..Default::default() };
    Ok(world.workspaces().confirm_deletions(request).await?.into_inner().revision)
}

async fn start_epoch(world: &World, validate_only: bool) -> Vec<String> {
    let request = admin::StartStoreEpochRequest { validate_only, ..Default::default() };
    world.data_planes().start_store_epoch(request).await.unwrap().into_inner().regressed_workspaces
}

async fn delete(world: &World, id: &str) {
    let request = admin::DeleteConnectionRequest { name: format!("{ACME}/connections/{id}"), ..Default::default() };
    world.connections().delete_connection(request).await.unwrap();
}

/// Publishes something new.
async fn publish(world: &World, id: &str) -> Result<admin::OutgoingIntegration, tonic::Status> {
    let name = world.outgoing_integration(id, "").await.name;
    world.publish_outgoing(&name).await
}

async fn refuse(plane: &DataPlane, revision: i64, serving: &Cursor, reason: &str) {
    let problem = admin::Problem { resource: ACME.to_owned(), reason: reason.to_owned(), ..Default::default() };
    let (serving, problems) = (Some(serving.clone()), vec![problem]);
    let nack = Nack { workspace: ACME.to_owned(), revision, serving, problems, needs_snapshot: false };
    plane.say(Say::Nack(nack)).await;
}

fn at(revision: i64, digest: u8) -> Cursor {
    Cursor { workspace: ACME.to_owned(), revision, digest: vec![digest; 32].into() }
}

#[tokio::test]
async fn what_takes_most_away_waits_until_it_is_confirmed() {
    let world = World::new().await;
    world.connection("one", "s3cret").await;
    let held = at(1, 9);
    let mut plane = DataPlane::connect(&world, "dp-1", "another", std::slice::from_ref(&held)).await;
    let Hear::Snapshot(part) = plane.hear().await else { panic!("no snapshot") };
    assert!(!part.allow_mass_delete);
    refuse(&plane, 1, &held, "MASS_DELETE_GUARD").await;
    let answer = wait_served(&world, 1).await;
    assert!(!answer.served);
    let refused = answer.not_serving[0].refusal.clone().unwrap();
    assert_eq!((refused.revision, refused.problems[0].reason.as_str()), (1, "MASS_DELETE_GUARD"));

    for wrong in [-1, 2] {
        let broken = violations(&confirm(&world, wrong).await.unwrap_err());
        assert_eq!(broken, [("revision".to_owned(), "OUT_OF_RANGE".to_owned())]);
    }
    assert_eq!(confirm(&world, 0).await.unwrap(), 1);
    let mut heard = plane.hear().await;
    if matches!(heard, Hear::Synced(_)) {
        heard = plane.hear().await;
    }
    let Hear::Snapshot(part) = &heard else { panic!("not sent again: {heard:?}") };
    assert!(part.allow_mass_delete);
    plane.take(&heard);
    plane.ack(ACME).await;
    assert!(wait_served(&world, 1).await.served);

    // What comes later is not confirmed with it.
    delete(&world, "one").await;
    let Hear::Delta(next) = plane.hear().await else { panic!("no delta") };
    assert!(!next.allow_mass_delete);
}

#[tokio::test]
async fn several_small_changes_that_were_missed_need_no_confirmation() {
    let world = World::new().await;
    for id in ["one", "two", "three"] {
        world.connection(id, "s3cret").await;
    }
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    plane.sync().await;
    let (held, epoch, cursors) = (plane.held.clone(), plane.epoch.clone(), plane.cursors());
    drop(plane);
    for id in ["one", "two", "three"] {
        delete(&world, id).await;
    }
    let mut plane = DataPlane { held, ..DataPlane::connect(&world, "dp-1", &epoch, &cursors).await };
    let heard = plane.sync().await;
    let [Hear::Delta(delta)] = heard.as_slice() else { panic!("{heard:?}") };
    assert!(delta.allow_mass_delete, "each of them was somebody's decision");
}

#[tokio::test]
async fn a_store_that_was_set_back_publishes_nothing_until_it_is_declared_right() {
    for (held, seen) in [(at(9, 9), "9"), (at(1, 9), "2")] {
        let world = World::new().await;
        world.connection("one", "s3cret").await;
        let first = DataPlane::connect(&world, "dp-0", "", &[]).await;
        let epoch = first.epoch.clone();
        let mut plane = DataPlane::connect(&world, "dp-1", &epoch, std::slice::from_ref(&held)).await;
        assert!(matches!(plane.hear().await, Hear::Snapshot(_)));
        refuse(&plane, 1, &held, "REVISION_BACKWARDS").await;
        drop(first);
        let answer = wait_served(&world, 1).await;
        let refused = answer.not_serving.iter().find(|one| one.data_plane == "dataPlanes/dp-1");
        assert!(!answer.served && refused.is_some(), "what it serves is of another history: {answer:?}");

        let refused = publish(&world, "send").await.unwrap_err();
        assert_eq!(refusal(&refused), (Code::FailedPrecondition, "STORE_REGRESSED".to_owned()));
        assert!(refused.message().contains(&format!("up to {seen}")), "{}", refused.message());
        assert_eq!(world.revision("acme").await, 1);
        // It is not forgotten.
        drop(plane);
        let world = world.restart().await;
        assert!(world.publish_outgoing(&format!("{ACME}/outgoingIntegrations/send")).await.is_err());

        let mut plane = DataPlane::connect(&world, "dp-1", &epoch, std::slice::from_ref(&held)).await;
        assert_eq!(start_epoch(&world, true).await, [ACME]);
        assert!(matches!(plane.hear().await, Hear::Snapshot(_)), "only tried");
        assert_eq!(start_epoch(&world, false).await, [ACME]);
        let ended = plane.end().await.unwrap();
        assert_eq!(refusal(&ended), (Code::Unavailable, "STREAM_RENEWED".to_owned()));
        assert!(details(&ended).error_info().is_some());
        world.publish_outgoing(&format!("{ACME}/outgoingIntegrations/send")).await.unwrap();
        let mut plane = DataPlane::connect(&world, "dp-1", &epoch, std::slice::from_ref(&held)).await;
        assert_ne!(plane.epoch, epoch);
        let heard = plane.sync().await;
        assert!(matches!(heard.as_slice(), [Hear::Snapshot(_)]), "the store is right: {heard:?}");
        assert_eq!(plane.held[ACME].revision, 2);
        assert_eq!(start_epoch(&world, false).await, [""; 0]);
    }
}

#[tokio::test]
async fn who_holds_what_the_store_has_made_sets_nothing_back() {
    let world = World::new().await;
    world.connection("one", "s3cret").await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    plane.sync().await;
    world.connection("two", "s3cret").await;
    plane.until(ACME, 2).await;
    let plane = plane.reconnect(&world).await;
    // Revisions of another store are only numbers.
    let _other = DataPlane::connect(&world, "dp-2", "another", &[at(40, 4)]).await;
    publish(&world, "send").await.unwrap();
    drop(plane);
}
