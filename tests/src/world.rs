//! Both planes and a scripted destination, started by the functions the binary starts them with.
//!
//! Hides ports, folders, certificates and keys. Each plane can be stopped and started again on the same folder and port;
//! what is changed in [`World::settings`] counts from the next start on.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use serde_json::Value;
use sluice::destination::{self, Destination};
use sluice::dev::{self, RunningControlPlane, RunningDataPlane};
use sluice::folder::Folder;
use sluice_client::{Client, admin};
use sluice_control_plane::Database;
use sluice_core::address::UrlPolicy;
use sluice_data_plane::Admission;
use sluice_data_plane::inbox::InboxSettings;
use tempfile::TempDir;

use crate::RedisServer;
use crate::patience::eventually;
use crate::postgres::Postgres;
use crate::raw_http::{Answer, RawHttp, Request};
use crate::workspace::Workspace;

/// The names under which the scripted destination is reached.
pub const NAMES: [&str; 5] =
    ["api.example.com", "hooks.slack.com", "api.synerise.com", "desk.example", "graph.example.com"];

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What a world starts with. Everything has a default that suits most tests.
pub struct Options {
    /// The destination.
    pub destination: destination::Options,
    /// The control plane.
    pub control_plane: sluice_control_plane::Settings,
    /// Whom the administrator trusts, in PEM form; `None`: the control plane's own authority.
    pub trusts: Option<String>,
    /// The data plane. With TLS it joins with a token for all workspaces. Its control plane, static answers, extra networks and extra CA are put in by the world.
    pub data_plane: sluice_data_plane::Settings,
}

/// The building under test.
pub struct World {
    /// The administrator's client.
    pub client: Client,
    /// The administrator's key.
    pub admin_key: String,
    /// The workspace `workspaces/acme`.
    pub acme: Workspace,
    /// Who is called.
    pub destination: Destination,
    /// Where both planes keep everything.
    pub folder: Folder,
    /// What planes are started with next time.
    pub settings: Settings,
    control_plane: Option<RunningControlPlane>,
    data_plane: Option<RunningDataPlane>,
    grpc: SocketAddr,
    control_health: SocketAddr,
    ingress: SocketAddr,
    health: SocketAddr,
    _redis: Option<RedisServer>,
    _folder: TempDir,
}

/// The settings of both planes.
pub struct Settings {
    /// Of the control plane.
    pub control_plane: sluice_control_plane::Settings,
    /// Of the data plane.
    pub data_plane: sluice_data_plane::Settings,
}

impl World {
    /// Starts everything with the defaults.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts everything after `change` has changed the defaults.
    pub async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::open(&parent.path().join("data")).unwrap();
        folder.ensure_master_key().unwrap();
        let egress = sluice_egress::Settings::default();
        let urls = UrlPolicy { ports: egress.ports.clone(), own_names: egress.own_names.clone() };
        let mut control_plane = folder.control_plane(urls);
        if let Some(url) = Postgres::wanted_for(folder.path()) {
            control_plane.database = Database::Postgres(url.into());
        }
        let mut options = Options {
            destination: destination::Options::named(NAMES),
            control_plane,
            trusts: None,
            data_plane: folder.data_plane("test", String::new(), egress),
        };
        let redis = RedisServer::if_asked().await;
        if let Some(redis) = &redis {
            options.data_plane.inbox = InboxSettings::Redis(redis.inbox("test"));
        }
        change(&mut options);
        let Options { destination, control_plane, trusts, mut data_plane } = options;
        let destination = Destination::start(destination).await.unwrap();
        data_plane.egress.static_addresses.extend(destination.static_addresses());
        data_plane.egress.extra_networks.push("127.0.0.0/8".parse().unwrap());
        data_plane.egress.extra_ca_pem.push(destination.ca_pem().into_bytes());

        let running = dev::run_control_plane(control_plane.clone(), ANY_PORT, ANY_PORT).await.unwrap();
        data_plane.control_plane_url = running.url();
        let (grpc, control_health, admin_key) = (running.grpc, running.health, running.admin_key.clone());
        let client = match (&control_plane.tls, trusts) {
            (None, _) => Client::connect(&running.url(), &admin_key).await.unwrap(),
            (Some(_), trusts) => {
                let own = std::fs::read_to_string(&control_plane.authority_file).unwrap();
                Client::connect_trusting(&running.url(), &admin_key, &trusts.unwrap_or(own)).await.unwrap()
            }
        };
        let acme = Workspace::create(&client, "acme").await;
        if control_plane.tls.is_some() {
            data_plane.admission = joining(&client, folder.path(), &["workspaces/-"]).await;
        }
        let plane = dev::run_data_plane(data_plane.clone(), ANY_PORT, ANY_PORT).await.unwrap();
        let (ingress, health) = (plane.ingress, plane.health);
        Self {
            client,
            admin_key,
            acme,
            destination,
            folder,
            settings: Settings { control_plane, data_plane },
            control_plane: Some(running),
            data_plane: Some(plane),
            grpc,
            control_health,
            ingress,
            health,
            _redis: redis,
            _folder: parent,
        }
    }

    /// Another workspace.
    pub async fn workspace(&self, id: &str) -> Workspace {
        Workspace::create(&self.client, id).await
    }

    /// Where the control plane answers, for example `http://127.0.0.1:4711`.
    pub fn grpc_url(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// The same as an address.
    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// Where health and numbers of the control plane are.
    pub fn control_health(&self) -> SocketAddr {
        self.control_health
    }

    /// Where triggers come in.
    pub fn ingress(&self) -> SocketAddr {
        self.ingress
    }

    /// Where health and numbers are.
    pub fn health(&self) -> SocketAddr {
        self.health
    }

    /// The running data plane's parts.
    ///
    /// # Panics
    /// While it is stopped.
    pub fn plane(&self) -> &sluice_data_plane::plane::Plane {
        self.data_plane.as_ref().expect("the data plane runs").plane.plane()
    }

    /// Waits until the data plane serves the revision every workspace has now.
    pub async fn served(&self) {
        let request = admin::ListWorkspacesRequest { page_size: 1000, ..Default::default() };
        let workspaces = self.client.workspaces().list_workspaces(request).await.unwrap().into_inner().workspaces;
        eventually("the data plane to serve the current revisions", || async {
            let runtime = self.plane().served.load();
            let serves = |workspace: &admin::Workspace| {
                let served = runtime.workspace(&workspace.name).map_or(0, |served| served.revision);
                served >= workspace.revision
            };
            (runtime.is_complete() && workspaces.iter().all(serves)).then_some(())
        })
        .await;
    }

    /// A new connection to the triggers' door.
    pub async fn connect(&self) -> RawHttp {
        RawHttp::connect(self.ingress).await
    }

    /// Sends a request over a connection of its own and returns the answer.
    pub async fn send(&self, request: &Request) -> Answer {
        self.connect().await.exchange(request).await
    }

    /// Triggers an endpoint with a JSON body.
    pub async fn trigger(&self, incoming: &admin::IncomingIntegration, body: &Value) -> Answer {
        self.send(&Request::post(&incoming.endpoint_path, body.to_string())).await
    }

    /// Asks the health port, for example for `/readyz`.
    pub async fn health_answer(&self, path: &str) -> Answer {
        RawHttp::connect(self.health).await.exchange(&Request::new("GET", path)).await
    }

    /// Stops the control plane and waits for its end.
    pub async fn stop_control_plane(&mut self) {
        let running = self.control_plane.take().expect("the control plane runs");
        running.stop().await.unwrap();
    }

    /// Starts the control plane again, at the same address.
    pub async fn start_control_plane(&mut self) {
        assert!(self.control_plane.is_none(), "the control plane runs already");
        let settings = self.settings.control_plane.clone();
        self.control_plane = Some(dev::run_control_plane(settings, self.grpc, self.control_health).await.unwrap());
    }

    /// Stops the data plane, lets it drain and waits for its end.
    pub async fn stop_data_plane(&mut self) {
        let running = self.data_plane.take().expect("the data plane runs");
        running.stop().await.unwrap();
    }

    /// Starts the data plane again, at the same addresses.
    pub async fn start_data_plane(&mut self) {
        assert!(self.data_plane.is_none(), "the data plane runs already");
        let settings = self.settings.data_plane.clone();
        self.data_plane = Some(dev::run_data_plane(settings, self.ingress, self.health).await.unwrap());
    }

    /// Stops the data plane and starts it again.
    pub async fn restart_data_plane(&mut self) {
        self.stop_data_plane().await;
        self.start_data_plane().await;
    }

    /// Stops everything that runs, and waits for its end. A test need not call it.
    pub async fn stop(self) {
        if let Some(data_plane) = self.data_plane {
            data_plane.stop().await.unwrap();
        }
        if let Some(control_plane) = self.control_plane {
            control_plane.stop().await.unwrap();
        }
        self.destination.shutdown().await;
    }
}

/// A join token for these workspaces, in a file of `folder`, to be used once.
pub async fn joining(client: &Client, folder: &Path, workspaces: &[&str]) -> Admission {
    let workspaces = workspaces.iter().map(ToString::to_string).collect();
    let join_token = Some(admin::JoinToken { workspaces, ..Default::default() });
    let request = admin::CreateJoinTokenRequest { join_token, ..Default::default() };
    let token = client.join_tokens().create_join_token(request).await.unwrap().into_inner();
    let file = folder.join(format!("{}.join", token.uid));
    std::fs::write(&file, token.token).unwrap();
    Admission::Certificate { join_token_file: Some(file) }
}
