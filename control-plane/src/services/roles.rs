//! Roles.

use sluice_proto::admin::v1::role_service_server::RoleService;
use sluice_proto::admin::v1::{
    CreateRoleRequest, DeleteRoleRequest, DeleteRoleResponse, GetRoleRequest, ListRolesRequest, ListRolesResponse,
    Role, UpdateRoleRequest,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::access::{create, delete, get_role, list_roles, update};
use crate::call::Call;

#[async_trait]
impl RoleService for Services {
    async fn create_role(&self, request: Request<CreateRoleRequest>) -> Answer<Role> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(create(&self.0, call, &asked.parent, asked.role_id, asked.role).await)
    }

    async fn get_role(&self, request: Request<GetRoleRequest>) -> Answer<Role> {
        pack(get_role(&self.0, &request.get_ref().name).await)
    }

    async fn list_roles(&self, request: Request<ListRolesRequest>) -> Answer<ListRolesResponse> {
        let asked = request.get_ref();
        let listed = list_roles(&self.0, &asked.parent, asked.page_size, &asked.page_token).await;
        pack(listed.map(|(roles, next_page_token)| ListRolesResponse { roles, next_page_token }))
    }

    async fn update_role(&self, request: Request<UpdateRoleRequest>) -> Answer<Role> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(update(&self.0, call, asked.role, asked.update_mask).await)
    }

    async fn delete_role(&self, request: Request<DeleteRoleRequest>) -> Answer<DeleteRoleResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(delete::<Role, _>(&self.0, call, &asked.name, &asked.etag).await)
    }
}
