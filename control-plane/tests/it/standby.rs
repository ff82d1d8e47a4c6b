//! Several control planes on one PostgreSQL database: one works, the others stand by.

use std::path::Path;

use sluice_control_plane::{Clock, ControlPlane, Database, Error, Settings};
use sluice_proto::admin::v1::GetWorkspaceRequest;
use sluice_proto::admin::v1::workspace_service_client::WorkspaceServiceClient;
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::postgres::Postgres;
use crate::world::{RING, START, World, key_in, settings, within};

fn on_postgres(folder: &Path, clock: &Clock) -> Settings {
    let url = Postgres::database_of(folder);
    Settings { database: Database::Postgres(url.into()), ..settings(folder, clock) }
}

/// One that is started, perhaps to stand by.
struct Control {
    stop: CancellationToken,
    address: std::net::SocketAddr,
    running: JoinHandle<Result<(), Error>>,
}

impl Control {
    async fn start(settings: Settings) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let running = tokio::spawn(sluice_control_plane::run(settings, listener, stop.clone()));
        Self { stop, address, running }
    }

    /// Resolves when it works: it answers, with what the others wrote.
    async fn works(&self, folder: &Path) {
        let channel = Channel::from_shared(format!("http://{}", self.address)).unwrap().connect_lazy();
        let mut client = WorkspaceServiceClient::with_interceptor(channel, key_in(&folder.join("admin.key")));
        let request = GetWorkspaceRequest { name: "workspaces/acme".to_owned() };
        within(client.get_workspace(request)).await.unwrap();
    }
}

/// Waits until one stands by.
async fn one_waits(pool: &PgPool) {
    let waiting = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    within(async { while sqlx::query_scalar::<_, i64>(waiting).fetch_one(pool).await.unwrap() == 0 {} }).await;
}

#[tokio::test]
async fn one_works_and_the_next_takes_over_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("master.key"), RING).unwrap();
    let (path, clock) = (folder.path().to_owned(), Clock::manual(START));
    let pool = PgPool::connect(&Postgres::database_of(&path)).await.unwrap();
    let first = World::start_with(folder, on_postgres(&path, &clock)).await;
    first.workspace("acme").await;

    let second = Control::start(on_postgres(&path, &clock)).await;
    one_waits(&pool).await;
    first.revision("acme").await;
    let _folder = first.end().await;
    second.works(&path).await;

    // The server was away for a moment, and another was faster to come back.
    let third = Control::start(on_postgres(&path, &clock)).await;
    one_waits(&pool).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid) \
               WHERE locktype = 'advisory' AND granted AND application_name = 'sluice-claim' \
               AND datname = current_database()";
    sqlx::query(cut).execute(&pool).await.unwrap();
    third.works(&path).await;
    let ended = within(second.running).await.unwrap();
    assert!(matches!(ended, Err(Error::Superseded)), "{ended:?}");
    third.works(&path).await;
    third.stop.cancel();
    within(third.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_told_without_its_password() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("master.key"), RING).unwrap();
    let settings = settings(folder.path(), &Clock::manual(START));
    for url in [
        "postgres://sluice:hunter22@127.0.0.1:1/sluice",
        "postgres://sluice:hunter22@127.0.0.1:99999/x",
        "nonsense hunter22",
    ] {
        let settings = Settings { database: Database::Postgres(url.to_owned().into()), ..settings.clone() };
        assert!(!format!("{settings:?}").contains("hunter22"));
        let error = ControlPlane::start(settings).await.err().unwrap();
        assert!(matches!(error, Error::Store(_)) && !format!("{error} {error:?}").contains("hunter22"), "{error:?}");
    }
}
