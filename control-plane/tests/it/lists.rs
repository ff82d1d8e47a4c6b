//! Lists: which documents they show, and in which order, page by page.

use sluice_proto::admin::v1 as admin;
use tonic::Status;

use crate::world::{ACME, World, has, refusal, violations};

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
