//! Draining one of two data planes: it is not ready at once, refuses triggers after the grace time, ends its work, and says when it is
//! done; it is given nothing new meanwhile. And one that stops, which turns away and refuses nothing.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use sluice_client::{Client, admin};
use sluice_tests::subject::{Setup, Subject};
use sluice_tests::{RawHttp, Request, Workspace, World, eventually, resources, violations};

async fn drain(world: &World, seconds: i64) -> admin::DrainDataPlaneResponse {
    let grace = Some(prost_types::Duration { seconds, nanos: 0 });
    let request = admin::DrainDataPlaneRequest { name: "dataPlanes/test".to_owned(), grace, ..Default::default() };
    world.client.data_planes().drain_data_plane(request).await.unwrap().into_inner()
}

async fn shown(world: &World) -> admin::DataPlane {
    let request = admin::ListDataPlanesRequest { filter: "draining = true".to_owned(), ..Default::default() };
    let listed = world.client.data_planes().list_data_planes(request).await.unwrap().into_inner().data_planes;
    listed.into_iter().next().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_plane_is_drained_and_resumed() {
    let mut world = World::start().await;
    let request = resources::post("https://api.example.com/orders", r#"{"id": {{ request.body.id }}}"#);
    let incoming = world.acme.flow("orders", request).await;
    world.served().await;
    for id in 0..20 {
        assert_eq!(world.trigger(&incoming, &json!({ "id": id })).await.status, 200);
    }
    let asked =
        admin::DrainDataPlaneRequest { name: "dataPlanes/test".to_owned(), validate_only: true, ..Default::default() };
    world.client.data_planes().drain_data_plane(asked).await.unwrap();
    assert_eq!(world.health_answer("/readyz").await.status, 200, "only tried");

    // Within the grace time it is not ready, and still takes what comes; its connections do not stay.
    assert!(!drain(&world, 3600).await.drained);
    assert_eq!(world.health_answer("/readyz").await.status, 503);
    let answer = world.trigger(&incoming, &json!({ "id": 20 })).await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(shown(&world).await.name, "dataPlanes/test");

    drain(&world, 0).await;
    let answer = world.trigger(&incoming, &json!({ "id": 21 })).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    eventually("all work to be done", || async { drain(&world, 0).await.drained.then_some(()) }).await;
    assert_eq!(world.destination.wait_for(21).await.unwrap().len(), 21);
    assert_eq!(world.acme.events(21).await.len(), 21, "and all of it is told");

    // The control plane learns of it again after a restart.
    world.stop_control_plane().await;
    world.start_control_plane().await;
    eventually("the data plane to come back", || async { shown(&world).await.draining.then_some(()) }).await;
    let request = admin::ResumeDataPlaneRequest { name: "dataPlanes/test".to_owned(), ..Default::default() };
    world.client.data_planes().resume_data_plane(request).await.unwrap();
    assert_eq!(world.health_answer("/readyz").await.status, 200);
    assert_eq!(world.trigger(&incoming, &json!({ "id": 22 })).await.status, 200);
    assert!(!shown(&world).await.draining);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_drained_says_why() {
    let world = World::start().await;
    world.served().await;
    let ask = async |name: &str, seconds: i64| {
        let grace = Some(prost_types::Duration { seconds, nanos: 0 });
        let request = admin::DrainDataPlaneRequest { name: name.to_owned(), grace, ..Default::default() };
        world.client.data_planes().drain_data_plane(request).await.unwrap_err()
    };
    for (name, seconds, field, reason) in
        [("test", 0, "name", "NAME_INVALID"), ("dataPlanes/test", 3601, "grace", "OUT_OF_RANGE")]
    {
        let found = violations(&ask(name, seconds).await);
        assert_eq!((found[0].0.as_str(), found[0].1.as_str()), (field, reason));
    }
    assert_eq!(sluice_tests::reason(&ask("dataPlanes/nobody", 0).await), "NO_DATA_PLANE");
}

/// A sender that keeps its connection open is told to go before the connection is gone, and one that comes is not turned away.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_plane_that_stops_says_so_before_it_closes_its_door() {
    let folder = tempfile::tempdir().unwrap();
    let mut setup = Setup::on(&folder.path().join("data"));
    setup.lame_duck = Duration::from_secs(300);
    let subject = Subject::start(env!("CARGO_BIN_EXE_subject"), &setup, Stdio::inherit()).await.unwrap();
    let key = std::fs::read_to_string(setup.folder.join("admin.key")).unwrap();
    let client = Client::connect(&format!("http://{}", setup.grpc), &key).await.unwrap();
    let acme = Workspace::create(&client, "acme").await;
    let incoming = acme.flow("orders", resources::post("https://api.example.com/orders", "{}")).await;
    let request = Request::post(&incoming.endpoint_path, "{}");
    let mut kept = RawHttp::connect(setup.ingress).await;
    eventually("the endpoint to be served", || async {
        let answer = RawHttp::connect(setup.ingress).await.exchange(&request).await;
        (answer.status == 200).then_some(())
    })
    .await;
    let answer = kept.exchange(&request).await;
    assert_eq!((answer.status, answer.header("connection")), (200, None));

    subject.signal("-TERM");
    eventually("it to be not ready", || async {
        let asked = RawHttp::connect(setup.health).await.exchange(&Request::new("GET", "/readyz")).await;
        (asked.status == 503 && asked.text() == "stopping\n").then_some(())
    })
    .await;
    for connection in [&mut kept, &mut RawHttp::connect(setup.ingress).await] {
        let answer = connection.exchange(&request).await;
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        assert!(connection.closed().await.is_empty());
    }
    subject.kill().await.unwrap();
}
