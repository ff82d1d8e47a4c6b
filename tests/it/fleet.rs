//! Several data planes keep limits together (D10).

use std::net::SocketAddr;
use std::time::Instant;

use sluice::dev;
use sluice_client::admin;
use sluice_data_plane::inbox::{EmbeddedSettings, InboxSettings};
use sluice_tests::{RawHttp, Request, World, eventually, resources::open};

/// How many of `most` requests are taken before one is too many.
async fn taken(ingress: SocketAddr, path: &str, most: u32) -> u32 {
    let mut door = RawHttp::connect(ingress).await;
    for sent in 0..most {
        match door.exchange(&Request::post(path, "{}")).await.status {
            200 => {}
            status => {
                assert_eq!(status, 429);
                return sent;
            }
        }
    }
    most
}

#[tokio::test]
async fn n08_two_planes_take_together_what_the_limit_says() {
    let mut world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let mut settings = world.settings.data_plane.clone();
    settings.data_plane_id = "second".to_owned();
    settings.data_dir = folder.path().to_owned();
    settings.inbox = InboxSettings::Embedded(EmbeddedSettings::new(folder.path().join("inbox.db")));
    let second = dev::run_data_plane(settings.clone(), any, any).await.unwrap();
    eventually("both to know of each other", async || {
        let planes = [world.plane(), second.plane.plane()];
        planes.iter().all(|plane| plane.fleet.planes() == 2).then_some(())
    })
    .await;

    let rate_limit = Some(admin::RateLimit { requests_per_second: 1, burst: 80 });
    let limited = admin::IncomingIntegration { rate_limit, ..open() };
    let path = world.acme.incoming("limited", limited).await.endpoint_path;
    world.served().await;
    let began = Instant::now();
    let first = taken(world.ingress(), &path, 80).await;
    let other = taken(second.ingress, &path, 80).await;
    // What the time brought, rounded up on each.
    let more = u32::try_from(began.elapsed().as_secs()).unwrap() + 2;
    assert!(first >= 40 && other >= 40 && first + other <= 80 + more, "{first} and {other} within {more} s");

    // Nobody tells it any more, and it knows all the same.
    second.stop().await.unwrap();
    world.stop_control_plane().await;
    let second = dev::run_data_plane(settings, any, any).await.unwrap();
    assert_eq!(second.plane.plane().fleet.planes(), 2);
    second.stop().await.unwrap();
    world.stop().await;
}
