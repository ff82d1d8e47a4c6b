//! Both planes in one process on one data folder, speaking to each other over a real socket as they do on many machines.

use std::net::SocketAddr;

use sluice_control_plane::ControlPlane;
use sluice_core::address::UrlPolicy;
use sluice_data_plane::{DataPlane, Listeners};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::folder::{Folder, FolderError};

/// What to start. Port 0 takes any free port.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything is kept.
    pub folder: Folder,
    /// The control plane's gRPC.
    pub grpc: SocketAddr,
    /// The control plane's health and numbers.
    pub control_health: SocketAddr,
    /// The data plane's triggers.
    pub ingress: SocketAddr,
    /// The data plane's health and numbers.
    pub health: SocketAddr,
    /// The way out, with the operator's settings of D20.
    pub egress: sluice_egress::Settings,
}

/// Why the planes do not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A port cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What happened.
        source: std::io::Error,
    },
    /// The control plane.
    #[error("control plane: {0}")]
    ControlPlane(#[from] sluice_control_plane::Error),
    /// The data plane.
    #[error("data plane: {0}")]
    DataPlane(#[from] sluice_data_plane::Error),
    /// A key file that was just made cannot be read.
    #[error("the admin key file cannot be read: {0}")]
    AdminKey(std::io::Error),
    /// A plane panicked.
    #[error("a plane ended unexpectedly; the log has the details")]
    Panicked,
}

/// A control plane that runs.
#[derive(Debug)]
pub struct RunningControlPlane {
    /// Its gRPC address.
    pub grpc: SocketAddr,
    /// Health and numbers.
    pub health: SocketAddr,
    /// The admin API key.
    pub admin_key: String,
    encrypted: bool,
    stop: CancellationToken,
    ended: JoinHandle<Result<(), sluice_control_plane::Error>>,
}

impl RunningControlPlane {
    /// Its URL.
    pub fn url(&self) -> String {
        let scheme = if self.encrypted { "https" } else { "http" };
        format!("{scheme}://{}", self.grpc)
    }

    /// Stops it and waits for its end.
    pub async fn stop(self) -> Result<(), Error> {
        self.run_until(std::future::ready(())).await
    }

    /// Waits until `stop` resolves or it ends by itself.
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let ended = tokio::select! {
            () = stop => {
                self.stop.cancel();
                self.ended.await
            }
            ended = &mut self.ended => ended,
        };
        Ok(ended.map_err(|_panicked| Error::Panicked)??)
    }
}

/// A data plane that runs.
#[derive(Debug)]
pub struct RunningDataPlane {
    /// Where triggers come in.
    pub ingress: SocketAddr,
    /// Health and numbers.
    pub health: SocketAddr,
    /// The running plane.
    pub plane: DataPlane,
    stop: CancellationToken,
}

impl RunningDataPlane {
    /// Stops it, lets it drain, and waits for its end.
    pub async fn stop(self) -> Result<(), Error> {
        self.run_until(std::future::ready(())).await
    }

    /// Waits until `stop` resolves or it ends by itself.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let mut ended = Box::pin(self.plane.wait());
        let result = tokio::select! {
            () = stop => {
                self.stop.cancel();
                ended.await
            }
            result = &mut ended => result,
        };
        Ok(result?)
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    let address = listener.local_addr().map_err(|source| Error::Listen { address, source })?;
    Ok((listener, address))
}

/// Starts a control plane on a folder; makes the master key if there is none.
pub async fn start_control_plane(
    folder: &Folder,
    grpc: SocketAddr,
    health: SocketAddr,
    urls: UrlPolicy,
) -> Result<RunningControlPlane, Error> {
    folder.ensure_master_key()?;
    run_control_plane(folder.control_plane(urls), grpc, health).await
}

/// Starts a control plane.
pub async fn run_control_plane(
    settings: sluice_control_plane::Settings,
    grpc: SocketAddr,
    health: SocketAddr,
) -> Result<RunningControlPlane, Error> {
    let (listener, grpc) = listen(grpc).await?;
    let (health_listener, health) = listen(health).await?;
    settings.check_listener(&listener)?;
    let (admin_key_file, encrypted) = (settings.admin_key_file.clone(), settings.tls.is_some());
    let control_plane = ControlPlane::start(settings).await?;
    let admin_key = std::fs::read_to_string(admin_key_file).map_err(Error::AdminKey)?.trim().to_owned();
    let stop = CancellationToken::new();
    let (serving, telling, end) = (stop.clone(), control_plane.health(), CancellationToken::new());
    let ended = tokio::spawn(async move {
        let telling = tokio::spawn(telling.serve(health_listener, end.clone()));
        let served = control_plane.serve(listener, serving).await;
        end.cancel();
        // Who still asks when all is over gets no answer. What it ended with is of no use to anybody.
        telling.abort();
        let _ended = telling.await;
        served
    });
    Ok(RunningControlPlane { grpc, health, admin_key, encrypted, stop, ended })
}

/// Starts a data plane.
pub async fn run_data_plane(
    settings: sluice_data_plane::Settings,
    ingress: SocketAddr,
    health: SocketAddr,
) -> Result<RunningDataPlane, Error> {
    let (ingress_listener, ingress) = listen(ingress).await?;
    let (admin_listener, health) = listen(health).await?;
    let stop = CancellationToken::new();
    let listeners = Listeners { ingress: ingress_listener, admin: admin_listener };
    let plane = sluice_data_plane::start(settings, listeners, stop.clone()).await?;
    Ok(RunningDataPlane { ingress, health, plane, stop })
}

/// Both planes.
#[derive(Debug)]
pub struct Dev {
    /// The control plane.
    pub control_plane: RunningControlPlane,
    /// The data plane.
    pub data_plane: RunningDataPlane,
}

/// Starts both planes.
pub async fn start(options: Options) -> Result<Dev, Error> {
    let Options { folder, grpc, control_health, ingress, health, egress } = options;
    let urls = UrlPolicy { ports: egress.ports.clone(), own_names: egress.own_names.clone() };
    let control_plane = start_control_plane(&folder, grpc, control_health, urls).await?;
    let settings = folder.data_plane("dev", control_plane.url(), egress);
    match run_data_plane(settings, ingress, health).await {
        Ok(data_plane) => Ok(Dev { control_plane, data_plane }),
        Err(error) => {
            control_plane.stop().await?;
            Err(error)
        }
    }
}

impl Dev {
    /// Stops both.
    pub async fn stop(self) -> Result<(), Error> {
        self.run_until(std::future::ready(())).await
    }

    /// Waits until `stop` resolves or the data plane ends by itself, then stops both: the data plane first, so that the control
    /// plane still takes its last reports.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let ended = self.data_plane.run_until(stop).await;
        self.control_plane.stop().await?;
        ended
    }
}
