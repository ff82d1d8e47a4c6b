//! Two control planes on one PostgreSQL database, data planes that reach them through a plain TCP balancer, and parts that die.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use sluice::destination::{self, Destination};
use sluice::dev::{self, RunningControlPlane, RunningDataPlane};
use sluice::folder::Folder;
use sluice_client::{Client, admin};
use sluice_control_plane::Database;
use sluice_core::address::UrlPolicy;
use sluice_data_plane::Admission;
use sluice_tests::balancer::Server;
use sluice_tests::postgres::Postgres;
use sluice_tests::subject::{Setup, Subject};
use sluice_tests::{Balancer, Numbers, RawHttp, Request, Workspace, eventually, resources};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// The binary that is killed.
const PROGRAM: &str = env!("CARGO_BIN_EXE_subject");
/// Between two requests of a sender: the machine is to have time for the others, too.
const PAUSE: Duration = Duration::from_millis(20);
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Before control planes: each connection goes to one that takes it.
async fn balancer(control_planes: impl IntoIterator<Item = SocketAddr>) -> Balancer {
    let server = |address| Server { address, health: None };
    Balancer::start(control_planes.into_iter().map(server).collect()).await
}

/// What all of them share, and the data planes of this process.
struct Fleet {
    folder: Folder,
    parent: TempDir,
    database: String,
    destination: Destination,
    planes: Vec<RunningDataPlane>,
}

impl Fleet {
    async fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::open(&parent.path().join("control")).unwrap();
        folder.ensure_master_key().unwrap();
        let database = Postgres::database_of(folder.path());
        let destination = Destination::start(destination::Options::named(["api.example.com"])).await.unwrap();
        Self { folder, parent, database, destination, planes: Vec::new() }
    }

    /// Starts a control plane; the first time at any port.
    async fn control_plane(&self, grpc: SocketAddr) -> RunningControlPlane {
        let settings = sluice_control_plane::Settings {
            database: Database::Postgres(self.database.clone().into()),
            ..self.folder.control_plane(UrlPolicy::default())
        };
        dev::run_control_plane(settings, grpc, ANY_PORT).await.unwrap()
    }

    /// Starts a data plane that reaches its control planes at this address.
    async fn data_plane(&mut self, id: &str, control_planes: SocketAddr) {
        let folder = Folder::open(&self.parent.path().join(id)).unwrap();
        let egress = sluice_egress::Settings {
            extra_networks: vec!["127.0.0.0/8".parse().unwrap()],
            static_addresses: self.destination.static_addresses(),
            extra_ca_pem: vec![self.destination.ca_pem().into_bytes()],
            ..sluice_egress::Settings::default()
        };
        let mut settings = folder.data_plane(id, format!("http://{control_planes}"), egress);
        settings.admission = Admission::Key(self.folder.data_plane_key_file());
        settings.master_key_file = self.folder.master_key_file();
        self.planes.push(dev::run_data_plane(settings, ANY_PORT, ANY_PORT).await.unwrap());
    }

    /// Waits until everything that was taken has ended and was told.
    async fn told(&self) {
        for plane in &self.planes {
            eventually("the inbox to be empty", || async { Numbers::of(plane.health).await.is_idle().then_some(()) })
                .await;
        }
    }

    async fn end(self, control_planes: Vec<RunningControlPlane>) {
        for plane in self.planes {
            plane.stop().await.unwrap();
        }
        for control_plane in control_planes {
            control_plane.stop().await.unwrap();
        }
        self.destination.shutdown().await;
    }
}

/// An endpoint without limits that matter here, and a workflow that sends on what comes.
async fn flow(workspace: &Workspace) -> String {
    let rate_limit = Some(admin::RateLimit { requests_per_second: 10_000, burst: 20_000 });
    let incoming = workspace.incoming("load", admin::IncomingIntegration { rate_limit, ..resources::open() }).await;
    let request = resources::post("https://api.example.com/in", r#"{"id": {{ request.body.id }}}"#);
    workspace.workflow("load", resources::workflow(&incoming, [resources::custom_webhook("Send", request)])).await;
    incoming.endpoint_path
}

/// Waits until all data planes that this control plane knows of, and no others, serve what is published.
async fn served_by(client: &Client, expected: &[&str]) {
    eventually("the configuration to be served", || async {
        let request = admin::WaitServedRequest { parent: "workspaces/acme".to_owned(), ..Default::default() };
        let told = client.configuration().wait_served(request).await.ok()?.into_inner();
        (told.served && told.serving == expected).then_some(())
    })
    .await;
}

/// Triggers one request after the other until it is told to stop; how many. Each must be taken.
struct Load {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<usize>,
}

impl Load {
    fn start(ingress: SocketAddr, path: &str) -> Self {
        let (stop, path) = (Arc::new(AtomicBool::new(false)), path.to_owned());
        let stopped = stop.clone();
        let sender = tokio::spawn(async move {
            let mut connection = RawHttp::connect(ingress).await;
            let mut sent = 0;
            while !stopped.load(Ordering::SeqCst) {
                let request = Request::post(&path, json!({ "id": sent }).to_string());
                assert_eq!(connection.exchange(&request).await.status, 200);
                sent += 1;
                tokio::time::sleep(PAUSE).await;
            }
            sent
        });
        Self { stop, sender }
    }

    async fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.sender.await.unwrap()
    }
}

/// All deliveries that were recorded, by name: each once.
async fn recorded(client: &Client) -> Vec<admin::Delivery> {
    let mut all: Vec<admin::Delivery> = Vec::new();
    let mut page_token = String::new();
    loop {
        let parent = "workspaces/acme".to_owned();
        let request = admin::ListDeliveriesRequest { parent, page_size: 1000, page_token, ..Default::default() };
        let page = client.deliveries().list_deliveries(request).await.unwrap().into_inner();
        all.extend(page.deliveries);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

async fn check(fleet: &Fleet, client: &Client, sent: usize) {
    fleet.told().await;
    let recorded = recorded(client).await;
    assert_eq!(recorded.len(), sent, "what was answered 200 is recorded, once");
    assert!(recorded.iter().all(|delivery| delivery.state() == admin::DeliveryState::Delivered));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_one_is_killed_its_data_planes_go_to_the_other_and_nothing_is_lost() {
    let mut fleet = Fleet::new().await;
    let setup = Setup { database: Some(fleet.database.clone()), ..Setup::on(fleet.folder.path()) };
    let first = Subject::start(PROGRAM, &setup, Stdio::inherit()).await.unwrap();
    let second = fleet.control_plane(ANY_PORT).await;
    let front = balancer([setup.grpc, second.grpc]).await;
    fleet.data_plane("berlin", front.address).await;
    let client = Client::connect(&second.url(), &second.admin_key).await.unwrap();
    let acme = Workspace::create(&client, "acme").await;
    let path = flow(&acme).await;
    served_by(&client, &["dataPlanes/berlin", "dataPlanes/subject"]).await;

    let load = Load::start(fleet.planes[0].ingress, &path);
    fleet.destination.wait_for(20).await.unwrap();
    first.kill().await.unwrap();
    let so_far = fleet.destination.requests().len();
    acme.incoming("more", resources::open()).await;
    fleet.destination.wait_for(so_far + 20).await.unwrap();
    // The one that was killed is missed after a while, and with it the data plane that died with it.
    served_by(&client, &["dataPlanes/berlin"]).await;
    let sent = load.end().await;
    check(&fleet, &client, sent).await;
    fleet.end(vec![second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_both_is_not_noticed_by_senders() {
    let mut fleet = Fleet::new().await;
    let mut running = vec![fleet.control_plane(ANY_PORT).await, fleet.control_plane(ANY_PORT).await];
    let addresses: Vec<SocketAddr> = running.iter().map(|one| one.grpc).collect();
    let front = balancer(addresses.clone()).await;
    let names = ["dataPlanes/dp-1", "dataPlanes/dp-2", "dataPlanes/dp-3"];
    for id in ["dp-1", "dp-2", "dp-3"] {
        fleet.data_plane(id, front.address).await;
    }
    let client = Client::connect(&format!("http://{}", front.address), &running[0].admin_key).await.unwrap();
    let acme = Workspace::create(&client, "acme").await;
    let path = flow(&acme).await;
    served_by(&client, &names).await;
    let loads: Vec<Load> = fleet.planes.iter().map(|plane| Load::start(plane.ingress, &path)).collect();
    for address in addresses {
        running.remove(0).stop().await.unwrap();
        let so_far = fleet.destination.requests().len();
        fleet.destination.wait_for(so_far + 20).await.unwrap();
        running.push(fleet.control_plane(address).await);
        served_by(&client, &names).await;
    }
    let mut sent = 0;
    for load in loads {
        sent += load.end().await;
    }
    check(&fleet, &client, sent).await;
    fleet.end(running).await;
}
