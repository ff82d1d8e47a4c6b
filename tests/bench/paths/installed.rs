//! What very much configuration costs a control plane, and a data plane that comes to it for the first time.

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use sluice::folder::Folder;
use sluice_client::admin::apply_configuration_request::Source;
use sluice_client::{Client, admin};
use sluice_tests::subject::{Joined, Setup, Subject};
use sluice_tests::{Workspace, resources};

use crate::process::Watched;
use crate::table::Table;

const WORKSPACES: usize = 10;
const EACH: usize = 1000;
/// Drafts in one publish: as many as may be.
const TOGETHER: usize = 200;

pub(crate) async fn run(table: &mut Table) {
    let parent = tempfile::tempdir().expect("a folder");
    let control = Setup { control_plane_alone: true, ..Setup::on(&parent.path().join("control")) };
    let process = start(&control).await;
    let watched = Watched::new(process.id());
    let key = std::fs::read_to_string(Folder::open(&control.folder).expect("a folder").admin_key_file());
    let client = Client::connect(&format!("http://{}", control.grpc), key.expect("a key").trim()).await;
    let client = client.expect("a client");
    // What the first one of anything takes is not of each.
    let mut workspaces = vec![publish(&client, "first").await];

    let (before, begun) = (watched.resident(), Instant::now());
    for number in 0..WORKSPACES {
        workspaces.push(publish(&client, &format!("many-{number}")).await);
    }
    let count = (WORKSPACES * EACH) as f64;
    let each = |resident: f64| (resident - before) * 1024.0 * 1024.0 / count;
    let took = begun.elapsed();
    table.figure("10000 incoming integrations: saved and published", took.as_secs_f64(), "s", None);
    table.figure("  memory of each on a control plane", each(watched.resident()), "B", None);

    let begun = Instant::now();
    let plane = data_plane(parent.path(), &control).await;
    for workspace in &workspaces {
        workspace.ready().await;
    }
    table.figure("  from the start of a data plane until it serves", begun.elapsed().as_secs_f64(), "s", None);
    table.figure("  memory of each on the control plane then", each(watched.resident()), "B", None);
    plane.stop().await.expect("a proper stop");
    process.stop().await.expect("a proper stop");
}

async fn start(setup: &Setup) -> Subject {
    Subject::start(env!("CARGO_BIN_EXE_subject"), setup, Stdio::inherit()).await.expect("a process")
}

async fn data_plane(parent: &Path, control: &Setup) -> Subject {
    let url = format!("http://{}", control.grpc);
    let joins = Some(Joined { url, folder: control.folder.clone() });
    start(&Setup { joins, ..Setup::on(&parent.join("data")) }).await
}

/// A workspace of its own with so many endpoints in force.
async fn publish(client: &Client, id: &str) -> Workspace {
    let workspace = Workspace::create(client, id).await;
    let incoming_integrations: Vec<_> = (0..EACH)
        .map(|number| admin::IncomingIntegration {
            name: format!("{}/incomingIntegrations/orders-{number}", workspace.name),
            display_name: format!("Orders {number}"),
            deduplication: resources::dedup(["body.orderId"]),
            ..resources::open()
        })
        .collect();
    let names: Vec<String> = incoming_integrations.iter().map(|one| one.name.clone()).collect();
    let configuration = admin::WorkspaceConfiguration { incoming_integrations, ..Default::default() };
    let request = admin::ApplyConfigurationRequest {
        parent: workspace.name.clone(),
        source: Some(Source::Configuration(configuration)),
        ..Default::default()
    };
    client.configuration().apply_configuration(request).await.expect("applied");
    for part in names.chunks(TOGETHER) {
        let draft = |name: &String| admin::DraftToPublish { name: name.clone(), ..Default::default() };
        let drafts = part.iter().map(draft).collect();
        let request = admin::PublishDraftsRequest { parent: workspace.name.clone(), drafts, ..Default::default() };
        client.configuration().publish_drafts(request).await.expect("published");
    }
    workspace
}
