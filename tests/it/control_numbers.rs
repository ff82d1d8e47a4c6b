//! What the control plane tells of itself on its own port (S52): health, readiness and numbers, in which nobody is named.

use serde_json::json;
use sluice_client::{Client, admin};
use sluice_control_plane::Database;
use sluice_tests::{Numbers, RawHttp, Request, World, eventually, resources};
use sqlx::PgPool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

const CREATE: &str = "sluice.admin.v1.WorkspaceService/CreateWorkspace";

async fn numbers(world: &World) -> Numbers {
    Numbers::of(world.control_health()).await
}

async fn until(world: &World, series: &str, value: f64) {
    eventually(&format!("{series} to be {value}"), || async {
        (numbers(world).await.get(series) == value).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_plane_tells_how_it_is_on_a_port_of_its_own() {
    let mut world = World::start().await;
    let health = world.control_health();
    let ask = async |path: &str| RawHttp::connect(health).await.exchange(&Request::new("GET", path)).await;
    for (path, status, text) in [("/healthz", 200, "ok\n"), ("/readyz", 200, "ready\n")] {
        let answer = ask(path).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, text));
    }
    assert_eq!(ask("/sluice.admin.v1.WorkspaceService/ListWorkspaces").await.status, 404);
    let post = RawHttp::connect(world.control_health()).await.exchange(&Request::post("/metrics", "")).await;
    assert_eq!(post.status, 405);
    // Where the contract is served there are no numbers, with or without a key.
    let admin = world.client.clone();
    let grpc = RawHttp::connect(world.grpc()).await.exchange(&Request::new("GET", "/metrics")).await;
    assert!(grpc.status >= 400 && !grpc.text().contains("sluice_control"), "{}", grpc.status);
    drop(admin);
    world.stop_control_plane().await;
    assert!(RawHttp::try_connect(world.control_health()).await.is_err(), "it ends with the control plane");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_counted_and_nobody_is_named() {
    let mut world = World::start().await;
    let call = |code: &str| format!("sluice_control_calls_total{{method=\"{CREATE}\",code=\"{code}\"}}");
    // The workspace of every test.
    until(&world, &call("OK"), 1.0).await;
    let again = admin::CreateWorkspaceRequest {
        workspace_id: "acme".to_owned(),
        workspace: Some(admin::Workspace { display_name: "Acme".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    world.client.workspaces().create_workspace(again.clone()).await.unwrap_err();
    let url = format!("http://{}", world.grpc());
    let stranger = Client::connect(&url, "slc_nobody").await.unwrap();
    stranger.workspaces().create_workspace(again.clone()).await.unwrap_err();
    // A call is counted when it is over, which its caller may know before.
    until(&world, &format!("sluice_control_call_seconds_count{{method=\"{CREATE}\"}}"), 3.0).await;
    let found = numbers(&world).await;
    assert_eq!((found.get(&call("ALREADY_EXISTS")), found.get(&call("UNAUTHENTICATED"))), (1.0, 1.0));
    assert_eq!(found.get("sluice_control_failed_keys_total{reason=\"malformed\"}"), 1.0);
    assert_eq!(found.get("sluice_control_audit_entries_total{outcome=\"done\"}"), 1.0);
    assert_eq!(found.get("sluice_control_audit_entries_total{outcome=\"refused\"}"), 2.0);

    // A publish, until the data plane serves it.
    until(&world, "sluice_control_data_planes", 1.0).await;
    world.served().await;
    let before = numbers(&world).await.get("sluice_control_revision_acknowledged_seconds_count");
    let incoming = world.acme.flow("orders", resources::post("https://api.example.com/orders", "{}")).await;
    world.served().await;
    assert_eq!(world.trigger(&incoming, &json!({})).await.status, 200);
    let found = eventually("the revision to be acknowledged", || async {
        let found = numbers(&world).await;
        (found.get("sluice_control_revision_acknowledged_seconds_count") > before).then_some(found)
    })
    .await;
    assert!(found.text().contains("sluice_control_revision_acknowledged_seconds_bucket{le=\"0.001\"}"));
    assert!(found.get("sluice_control_revisions_total") >= 2.0);

    // A store that does not take what is to be kept.
    refuse_workspaces(&world, true).await;
    let beta = admin::CreateWorkspaceRequest { workspace_id: "beta".to_owned(), ..again };
    world.client.workspaces().create_workspace(beta).await.unwrap_err();
    until(&world, "sluice_control_store_errors_total{use=\"call\"}", 1.0).await;
    refuse_workspaces(&world, false).await;

    // A method that a caller makes up is no label, nor is any name.
    let made_up =
        Request::post("/sluice.admin.v1.Nothing/CanaryMethod", "{}").header("content-type", "application/grpc");
    RawHttp::connect(world.grpc()).await.exchange(&made_up).await;
    world.stop_data_plane().await;
    until(&world, "sluice_control_data_planes", 0.0).await;
    let text = numbers(&world).await.text().to_owned();
    for name in ["acme", "Acme", "orders", "127.0.0.1", "slc_", "Canary", "test\""] {
        assert!(!text.contains(name), "{name} is in the numbers");
    }
}

/// Makes the store take no workspace, or take them again.
async fn refuse_workspaces(world: &World, refuse: bool) {
    match &world.settings.control_plane.database {
        Database::Sqlite(path) => {
            let database = SqlitePool::connect_with(SqliteConnectOptions::new().filename(path)).await.unwrap();
            let sql = match refuse {
                true => "CREATE TRIGGER full BEFORE INSERT ON workspace BEGIN SELECT RAISE(ABORT, 'full'); END",
                false => "DROP TRIGGER full",
            };
            sqlx::raw_sql(sql).execute(&database).await.unwrap();
        }
        Database::Postgres(url) => {
            let database = PgPool::connect(url.expose()).await.unwrap();
            let sql = match refuse {
                true => "ALTER TABLE workspace ADD CONSTRAINT is_full CHECK (id <> 'beta')",
                false => "ALTER TABLE workspace DROP CONSTRAINT is_full",
            };
            sqlx::raw_sql(sql).execute(&database).await.unwrap();
        }
    }
}
