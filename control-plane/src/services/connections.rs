//! Connections: in force with every change.

use sluice_proto::admin::v1::connection_service_server::ConnectionService;
use sluice_proto::admin::v1::{
    Connection, CreateConnectionRequest, DeleteConnectionRequest, DeleteConnectionResponse, GetConnectionRequest,
    ListConnectionsRequest, ListConnectionsResponse, UpdateConnectionRequest,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::call::Call;
use crate::lifecycle::{create, delete, get, list, update};

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
        let listed = list(&self.0, &asked.parent, asked.page_size, &asked.page_token).await;
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
}
