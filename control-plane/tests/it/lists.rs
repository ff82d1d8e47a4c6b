//! Lists: which documents they show, and in which order, page by page.

use prost::Message as _;
use sluice_proto::admin::v1 as admin;
use sluice_proto::admin::v1::audit_service_client::AuditServiceClient;
use tonic::Status;

use crate::outsider::Outsider;
use crate::sync::DataPlane;
use crate::world::{ACME, START, World, has, refusal, violations};

/// The ids on all pages of `size`.
async fn listed(world: &World, filter: &str, order_by: &str, size: i32) -> Result<Vec<String>, Status> {
    let mut ids = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = admin::ListConnectionsRequest {
            parent: ACME.to_owned(),
            page_size: size,
            page_token,
            filter: filter.to_owned(),
            order_by: order_by.to_owned(),
            ..Default::default()
        };
        let page = world.connections().list_connections(request).await?.into_inner();
        ids.extend(page.connections.into_iter().map(|one| one.name.rsplit('/').next().unwrap().to_owned()));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(ids);
        }
    }
}

/// Connections `con-0` … `con-4` called `E` … `A`, the later ones made later, `con-2` changed last.
async fn world() -> World {
    let world = World::new().await;
    for index in 0..5_u8 {
        let mut connection = crate::world::api_key("s3cret");
        connection.display_name = char::from(b'E' - index).to_string();
        let request = admin::CreateConnectionRequest {
            parent: ACME.to_owned(),
            connection_id: format!("con-{index}"),
            connection: Some(connection),
            ..Default::default()
        };
        world.connections().create_connection(request).await.unwrap();
        world.clock.advance(1000);
    }
    let mut changed = crate::world::api_key("");
    changed.name = "workspaces/acme/connections/con-2".to_owned();
    changed.display_name = "C".to_owned();
    changed.allowed_hosts = vec!["crm.example.com".to_owned()];
    let request = admin::UpdateConnectionRequest { connection: Some(changed), ..Default::default() };
    world.connections().update_connection(request).await.unwrap();
    world
}

#[tokio::test]
async fn lists_are_filtered_and_ordered_page_by_page() {
    let world = world().await;
    for (filter, order_by, expected) in [
        ("", "", "01234"),
        ("", "name desc", "43210"),
        ("", "display_name", "43210"),
        ("", "display_name desc", "01234"),
        ("", "update_time desc", "24310"),
        // Equal ones go by name.
        ("", "version", "01342"),
        ("version > 1", "", "2"),
        ("display_name = A OR display_name = E", "", "04"),
        ("NOT allowed_hosts : crm", "display_name", "4310"),
        ("api_key.secret_set = true", "", "01234"),
        ("name : \"con-3\"", "", "3"),
        ("display_name = Z", "", ""),
    ] {
        for size in [1, 2, 0] {
            let found = listed(&world, filter, order_by, size).await.unwrap();
            let found: String = found.iter().map(|id| id.trim_start_matches("con-")).collect();
            assert_eq!(found, expected, "filter {filter:?}, order {order_by:?}, {size} on a page");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_all_at_once() {
    let world = world().await;
    let found = violations(&listed(&world, "nope = 1", "nope", 1).await.unwrap_err());
    assert!(has(&found, "filter", "FIELD_UNKNOWN") && has(&found, "order_by", "ORDER_INVALID"), "{found:?}");
    // A token belongs to its filter and its order.
    let asking = |order_by: &str, page_token: String| admin::ListConnectionsRequest {
        parent: ACME.to_owned(),
        page_size: 1,
        order_by: order_by.to_owned(),
        page_token,
        ..Default::default()
    };
    let page = world.connections().list_connections(asking("display_name", String::new())).await.unwrap();
    let token = page.into_inner().next_page_token;
    let refused = world.connections().list_connections(asking("display_name desc", token)).await.unwrap_err();
    assert_eq!(refusal(&refused).1, "PAGE_TOKEN_INVALID");
}

#[tokio::test]
async fn workspaces_are_filtered_and_ordered_too() {
    let world = World::new().await;
    for id in ["beta", "gamma"] {
        world.workspace(id).await;
    }
    let request = admin::ListWorkspacesRequest {
        filter: "display_name != beta".to_owned(),
        order_by: "business_profile_id desc".to_owned(),
        ..Default::default()
    };
    let page = world.workspaces().list_workspaces(request).await.unwrap().into_inner();
    let names: Vec<_> = page.workspaces.iter().map(|one| one.display_name.as_str()).collect();
    assert_eq!(names, ["gamma", "acme"]);
}

#[tokio::test]
async fn versions_and_data_planes_are_filtered_and_ordered() {
    let world = World::new().await;
    let name = world.outgoing_integration("send", "").await.name;
    for number in 1..=4 {
        let mut changed = admin::OutgoingIntegration { name: name.clone(), ..crate::world::outgoing("") };
        changed.display_name = format!("number {number}");
        let request =
            admin::UpdateOutgoingIntegrationRequest { outgoing_integration: Some(changed), ..Default::default() };
        world.outgoing().update_outgoing_integration(request).await.unwrap();
        world.publish_outgoing(&name).await.unwrap();
        world.clock.advance(1000);
    }
    let versions = async |filter: &str, order_by: &str| {
        let mut numbers = String::new();
        let mut page_token = String::new();
        loop {
            let request = admin::ListVersionsRequest {
                parent: name.clone(),
                page_size: 1,
                page_token,
                filter: filter.to_owned(),
                order_by: order_by.to_owned(),
            };
            let page = world.versions().list_versions(request).await?.into_inner();
            numbers.extend(page.versions.iter().map(|version| version.number.to_string()));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok::<_, Status>(numbers);
            }
        }
    };
    for (filter, order_by, expected) in [
        ("", "", "4321"),
        ("", "number", "1234"),
        ("number > 1 AND in_force = false", "", "32"),
        ("create_time < \"2027-01-15T08:00:02Z\"", "create_time", "12"),
    ] {
        assert_eq!(versions(filter, order_by).await.unwrap(), expected, "{filter:?} {order_by:?}");
    }
    assert!(has(&violations(&versions("", "document").await.unwrap_err()), "order_by", "ORDER_INVALID"));

    let _one = DataPlane::connect(&world, "dp-1", "", &[]).await;
    let _two = DataPlane::connect(&world, "dp-2", "", &[]).await;
    let planes = async |filter: &str, order_by: &str| {
        let request = admin::ListDataPlanesRequest {
            filter: filter.to_owned(),
            order_by: order_by.to_owned(),
            ..Default::default()
        };
        let planes = world.data_planes().list_data_planes(request).await.unwrap().into_inner().data_planes;
        planes.into_iter().map(|plane| plane.name).collect::<Vec<_>>()
    };
    assert_eq!(planes("", "").await, ["dataPlanes/dp-1", "dataPlanes/dp-2"]);
    assert_eq!(planes("connected = true", "name desc").await, ["dataPlanes/dp-2", "dataPlanes/dp-1"]);
    assert_eq!(planes("name : \"-2\"", "").await, ["dataPlanes/dp-2"]);
}

/// Rows that are looked at for one page.
const LOOKED_AT: i64 = 10_000;

#[tokio::test]
async fn a_page_of_events_looks_at_so_many_and_says_where_to_go_on() {
    let world = World::new().await;
    let database = Outsider::of(&world).await;
    let last = LOOKED_AT + 500;
    let many = format!(
        "INSERT INTO event (sequence, workspace, name, action, body, store_time) \
         WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i <= {last}) \
         SELECT i, 'acme', 'workspaces/acme/events/' || i, 'common', X'', {START} FROM n"
    );
    database.run(&many).await.unwrap();
    let name = "workspaces/acme/events/1";
    let wanted = admin::Event { name: name.to_owned(), action: "rare".to_owned(), ..Default::default() };
    let body: String = wanted.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
    let one = format!(
        "INSERT INTO event (sequence, workspace, name, action, body, store_time) \
         VALUES (1, 'acme', '{name}', 'rare', X'{body}', {START})"
    );
    database.run(&one).await.unwrap();
    let list = async |asked: admin::ListEventsRequest| {
        let asked = admin::ListEventsRequest { parent: ACME.to_owned(), ..asked };
        world.events().list_events(asked).await.unwrap().into_inner()
    };
    let by_filter = |page_token: String| admin::ListEventsRequest {
        filter: "action = rare".to_owned(),
        page_token,
        ..Default::default()
    };
    let first = list(by_filter(String::new())).await;
    assert!(first.events.is_empty() && !first.next_page_token.is_empty(), "what is far away is not looked for at once");
    let second = list(by_filter(first.next_page_token)).await;
    assert_eq!((second.events.as_slice(), second.next_page_token.as_str()), (std::slice::from_ref(&wanted), ""));
    // The oldest first it is found at once, by its action with the index.
    let oldest = list(admin::ListEventsRequest { order_by: "time".to_owned(), ..by_filter(String::new()) }).await;
    assert_eq!(oldest.events, std::slice::from_ref(&wanted));
    let by_action = list(admin::ListEventsRequest { action: "rare".to_owned(), ..Default::default() }).await;
    assert_eq!((by_action.events.as_slice(), by_action.next_page_token.as_str()), (std::slice::from_ref(&wanted), ""));
    // PostgreSQL chooses by what it has counted in a table.
    let Outsider::Sqlite(database) = &database else { return };
    let plan = "EXPLAIN QUERY PLAN SELECT sequence, body FROM event WHERE workspace = 'acme' AND action = 'rare' AND \
                sequence < 9 ORDER BY sequence DESC LIMIT 3";
    let (_, _, _, plan): (i64, i64, i64, String) = sqlx::query_as(plan).fetch_one(database).await.unwrap();
    assert!(plan.contains("event_by_action"), "{plan}");
}

#[tokio::test]
async fn a_page_of_a_log_looks_at_so_many_and_finds_a_time_at_once() {
    let world = World::new().await;
    world.connection("crm", "s3cret").await;
    let database = Outsider::of(&world).await;
    let (last, start) = (LOOKED_AT + 500, START);
    let many = format!(
        "INSERT INTO audit_entry (place, number, time, principal, method, resource, outcome, body, hash) \
         WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i <= {last}) \
         SELECT (SELECT place FROM audit_entry WHERE place <> ''), i, {start} + i, 'nobody', 'x', '', 1, X'', X'' FROM n"
    );
    database.run(&many).await.unwrap();
    let list = async |filter: admin::AuditFilter, order_by: &str, page_token: String| {
        let asked = admin::ListAuditEntriesRequest {
            parent: ACME.to_owned(),
            filter: Some(filter),
            order_by: order_by.to_owned(),
            page_token,
            ..Default::default()
        };
        let mut client = AuditServiceClient::with_interceptor(world.channel(), world.admin.clone());
        client.list_audit_entries(asked).await.unwrap().into_inner()
    };
    let resource = || admin::AuditFilter { resource: format!("{ACME}/connections/crm"), ..Default::default() };
    let first = list(resource(), "", String::new()).await;
    assert!(first.audit_entries.is_empty() && !first.next_page_token.is_empty());
    let second = list(resource(), "", first.next_page_token).await;
    assert_eq!((second.audit_entries.len(), second.next_page_token.as_str()), (1, ""));
    assert_eq!(list(resource(), "time", String::new()).await.audit_entries, second.audit_entries);
    // Whatever lies before or after the time that is asked for is not looked at.
    let before = second.audit_entries[0].time.map(|time| prost_types::Timestamp { nanos: 1_000_000, ..time });
    let early = list(admin::AuditFilter { before, ..Default::default() }, "", String::new()).await;
    assert_eq!((early.audit_entries, early.next_page_token.as_str()), (second.audit_entries, ""));
}
