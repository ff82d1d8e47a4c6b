//! Connections: in force with every change.

use prost::Message as _;
use sluice_proto::admin::v1::connection_service_server::ConnectionService;
use sluice_proto::admin::v1::{
    Connection, CreateConnectionRequest, DeleteConnectionRequest, DeleteConnectionResponse, GetConnectionRequest,
    ListConnectionsRequest, ListConnectionsResponse, ListTokenStatesRequest, ListTokenStatesResponse,
    UndeleteConnectionRequest, UpdateConnectionRequest,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::call::Call;
use crate::error::Failure;
use crate::fields::tree;
use crate::lifecycle::{READ_AT_ONCE, create, delete, get, list, undelete, update};
use crate::listing::{Listing, Query, query};
use crate::names;
use crate::shared::Shared;
use crate::stored::Stored;

/// What ListTokenStates lists.
const TOKEN_STATE: &str = "sluice.admin.v1.TokenState";

#[async_trait]
impl ConnectionService for Services {
    async fn create_connection(&self, request: Request<CreateConnectionRequest>) -> Answer<Connection> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(create(&self.0, call, &asked.parent, &asked.connection_id, asked.connection).await)
    }

    async fn get_connection(&self, request: Request<GetConnectionRequest>) -> Answer<Connection> {
        pack(get(&self.0, &request.get_ref().name).await)
    }

    async fn list_connections(&self, request: Request<ListConnectionsRequest>) -> Answer<ListConnectionsResponse> {
        let asked = request.get_ref();
        let listed = list(&self.0, &asked.parent, query!(asked)).await;
        pack(listed.map(|(connections, next_page_token)| ListConnectionsResponse { connections, next_page_token }))
    }

    async fn update_connection(&self, request: Request<UpdateConnectionRequest>) -> Answer<Connection> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(update(&self.0, call, asked.connection, asked.update_mask).await)
    }

    async fn delete_connection(&self, request: Request<DeleteConnectionRequest>) -> Answer<DeleteConnectionResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(delete::<Connection, _>(&self.0, call, &asked.name, &asked.etag).await)
    }

    async fn undelete_connection(&self, request: Request<UndeleteConnectionRequest>) -> Answer<Connection> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(undelete(&self.0, call, &asked.name, &asked.etag).await)
    }
    async fn list_token_states(&self, request: Request<ListTokenStatesRequest>) -> Answer<ListTokenStatesResponse> {
        pack(token_states(&self.0, request.get_ref()).await)
    }
}

/// What data planes say of a connection's token, as long as the connection is there.
async fn token_states(shared: &Shared, asked: &ListTokenStatesRequest) -> Result<ListTokenStatesResponse, Failure> {
    let name = names::parse(&asked.parent, "connections", "parent")?;
    let uid = Stored::<Connection>::load(&mut shared.store.read().await?, &name, "").await?.row.uid;
    let order_by = if asked.order_by.trim().is_empty() { "data_plane" } else { &asked.order_by };
    let query = Query {
        page_size: asked.page_size,
        page_token: &asked.page_token,
        filter: &asked.filter,
        order_by,
        show_deleted: false,
    };
    let mut listing = Listing::new(&shared.secrets, TOKEN_STATE, &["tokenStates", &uid], query)?;
    let mut after = String::new();
    loop {
        let states = shared.data_planes.token_states(&name.full, &after, READ_AT_ONCE);
        let Some(last) = states.last().map(|state| state.data_plane.clone()) else { break };
        for state in states {
            listing.offer(&state.data_plane.clone(), &tree(TOKEN_STATE, &state)?, state.encoded_len(), state);
        }
        last.strip_prefix("dataPlanes/").unwrap_or_default().clone_into(&mut after);
    }
    let (token_states, next_page_token) = listing.finish();
    Ok(ListTokenStatesResponse { token_states, next_page_token })
}
