//! What a data plane leaves out of a revision is seen by administrators and by who waits for the revision, until one is served whole.

use sluice_proto::admin::v1 as admin;
use sluice_proto::sync::v1::sync_request::Kind as Say;
use sluice_proto::sync::v1::{Ack, Hello};

use crate::sync::DataPlane;
use crate::world::{ACME, World, within};

async fn wait(world: &World, revision: i64) -> admin::WaitServedResponse {
    let request = admin::WaitServedRequest { parent: ACME.to_owned(), revision, timeout: None };
    within(world.configuration().wait_served(request)).await.unwrap().into_inner()
}

async fn shown(world: &World) -> admin::ServedWorkspace {
    let request = admin::ListDataPlanesRequest::default();
    let planes = world.data_planes().list_data_planes(request).await.unwrap().into_inner().data_planes;
    planes[0].workspaces[0].clone()
}

#[tokio::test]
async fn what_is_left_out_is_told_until_it_is_served() {
    let world = World::new().await;
    world.connection("crm", "s3cret").await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    let heard = plane.hear().await;
    plane.take(&heard);
    let fault = admin::Problem {
        resource: format!("{ACME}/connections/crm"),
        field: "api_key.secret".to_owned(),
        line: 3,
        reason: "SECRET_UNREADABLE".to_owned(),
        ..Default::default()
    };
    let ack = Ack { serving: Some(plane.cursor(ACME)), apply_micros: 7, quarantined: vec![fault.clone()] };
    plane.say(Say::Ack(ack.clone())).await;
    // It has answered: nobody waits for the end of the call's time.
    let answer = wait(&world, 1).await;
    assert!(!answer.served && answer.serving.is_empty());
    let [one] = answer.not_serving.as_slice() else { panic!("{answer:?}") };
    assert_eq!((one.revision, &one.refusal, &one.quarantined), (1, &None, &vec![fault.clone()]));
    let acme = shown(&world).await;
    assert_eq!((acme.revision, acme.quarantined), (1, vec![fault.clone()]));
    // Events that callers submit are not given to it: it cannot say who wants them.
    let event =
        admin::SubmitEventRequest { parent: ACME.to_owned(), action: "form.sent".to_owned(), ..Default::default() };
    let refused = within(world.events().submit_event(event)).await.unwrap_err();
    assert_eq!(crate::world::refusal(&refused).1, "NO_DATA_PLANE");

    // It comes again and says it again.
    let hello = Hello {
        data_plane_id: "dp-1".to_owned(),
        store_epoch: plane.epoch.clone(),
        cursors: plane.cursors(),
        incomplete: vec![ack],
        takes_commands: true,
        ..Hello::default()
    };
    let mut plane = DataPlane { held: plane.held.clone(), ..DataPlane::greet(&world, hello).await };
    assert_eq!(wait(&world, 1).await.not_serving[0].quarantined, [fault]);

    world.connection("crm2", "s3cret").await;
    plane.until(ACME, 2).await;
    let answer = wait(&world, 2).await;
    assert!(answer.served && answer.not_serving.is_empty(), "{answer:?}");
    assert!(shown(&world).await.quarantined.is_empty());
}
