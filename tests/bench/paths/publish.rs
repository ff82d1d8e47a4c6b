//! How fast a publish is in force, and publishes beside traffic.

use std::io::Write as _;
use std::time::{Duration, Instant};

use sluice_client::admin;
use sluice_control_plane::Database;
use sluice_tests::postgres::Postgres;
use sluice_tests::{Workspace, World, resources};

use crate::measure::percentile;
use crate::table::Table;
use crate::table::Target::AtMost;

const PUBLISHES: usize = 200;
/// Between looks at what is served.
const LOOK: Duration = Duration::from_micros(50);

fn draft(name: &str, number: usize) -> admin::OutgoingIntegration {
    let request = resources::post("https://api.example.com/in", &format!(r#"{{"number": {number}}}"#));
    let display_name = "Published".to_owned();
    admin::OutgoingIntegration { name: name.to_owned(), display_name, request: Some(request), ..Default::default() }
}

/// What nobody can be faster than: 8 KB appended to a file and flushed, alone.
fn flushes(table: &mut Table) {
    let mut file = tempfile::tempfile().expect("a file");
    let mut flush = |_| {
        let begun = Instant::now();
        file.write_all(&[1; 8192]).and_then(|()| file.sync_data()).expect("a disk");
        begun.elapsed()
    };
    let mut took: Vec<Duration> = (0..PUBLISHES).map(&mut flush).collect();
    table.figure("one flush of 8 KB, alone: p50", percentile(&mut took, 50), "ms", None);
    table.figure("  p99", percentile(&mut took, 99), "ms", None);
}

/// On both stores; planes in this process, so that the moment is seen when it is there.
pub(crate) async fn served(table: &mut Table) {
    flushes(table);
    for (store, p50, p99) in [("SQLite", 5.0, 20.0), ("PostgreSQL", 12.0, 50.0)] {
        let world = World::with(|options| {
            options.control_plane.database = match store {
                "SQLite" => options.control_plane.database.clone(),
                _ => Database::Postgres(Postgres::database_of(&options.data_plane.data_dir).into()),
            };
        })
        .await;
        let name = world.acme.outgoing("published", resources::post("https://api.example.com/in", "{}")).await.name;
        world.served().await;
        let mut took = Vec::new();
        for number in 1..=PUBLISHES {
            world.acme.update_outgoing(draft(&name, number)).await;
            let plane = world.plane().clone();
            let served = move || plane.served.load().workspace("workspaces/acme").map_or(0, |served| served.revision);
            let before = served();
            // In a thread that mostly sleeps: one that looks all the time takes a core from what it looks at.
            let seen = tokio::task::spawn_blocking(move || {
                while served() == before {
                    std::thread::park_timeout(LOOK);
                }
                Instant::now()
            });
            let begun = Instant::now();
            world.acme.publish_outgoing(&name).await.expect("published");
            took.push(seen.await.expect("it is served") - begun);
        }
        table.figure(&format!("publish to served, {store}: p50"), percentile(&mut took, 50), "ms", Some(AtMost(p50)));
        table.figure("  p99", percentile(&mut took, 99), "ms", Some(AtMost(p99)));
    }
}

/// So many a second, each a change and its publish, by four callers; how many there were.
pub(crate) async fn steadily(acme: &Workspace, per_second: u32, time: Duration) -> u32 {
    const CALLERS: u32 = 4;
    let mut all = tokio::task::JoinSet::new();
    let begun = Instant::now();
    for caller in 0..CALLERS {
        let acme = acme.clone();
        all.spawn(async move {
            let id = format!("published-{caller}-{}", begun.elapsed().as_nanos());
            let name = acme.outgoing(&id, resources::post("https://api.example.com/in", "{}")).await.name;
            let mut pace = tokio::time::interval(Duration::from_secs(1) * CALLERS / per_second);
            let mut count = 0;
            while begun.elapsed() < time {
                pace.tick().await;
                acme.update_outgoing(draft(&name, count as usize)).await;
                acme.publish_outgoing(&name).await.expect("published");
                count += 1;
            }
            count
        });
    }
    all.join_all().await.into_iter().sum()
}
