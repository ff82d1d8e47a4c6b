//! Connections: in force with every change.

use prost::Message as _;
use sluice_proto::admin::v1::connection_service_server::ConnectionService;
use sluice_proto::admin::v1::{
    Connection, CreateConnectionRequest, DeleteConnectionRequest, DeleteConnectionResponse, GetConnectionRequest,
    ListConnectionsRequest, ListConnectionsResponse, ListTokenStatesRequest, ListTokenStatesResponse, TokenState,
    UndeleteConnectionRequest, UpdateConnectionRequest,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::call::Call;
use crate::error::Failure;
use crate::lifecycle::{create, delete, get, list, undelete, update};
use crate::listing::query;
use crate::names;
use crate::paging::List;
use crate::shared::Shared;
use crate::stored::Stored;

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
    let list = List::new(&shared.secrets, &["tokenStates", &uid]);
    let page = list.page(asked.page_size, &asked.page_token)?;
    let after = page.after.as_deref().unwrap_or_default();
    let mut token_states = shared.data_planes.token_states(&name.full, after, page.limit());
    let next_page_token = list.cut(&page, &mut token_states, TokenState::encoded_len, |state| {
        state.data_plane.strip_prefix("dataPlanes/").unwrap_or_default().to_owned()
    });
    Ok(ListTokenStatesResponse { token_states, next_page_token })
}
