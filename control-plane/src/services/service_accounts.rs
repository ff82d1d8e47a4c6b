//! Service accounts.

use sluice_proto::admin::v1::service_account_service_server::ServiceAccountService;
use sluice_proto::admin::v1::{
    CreateServiceAccountRequest, DeleteServiceAccountRequest, DeleteServiceAccountResponse, GetServiceAccountRequest,
    ListServiceAccountsRequest, ListServiceAccountsResponse, ServiceAccount, UpdateServiceAccountRequest,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::access::{create, delete, get, list, update};
use crate::call::Call;

#[async_trait]
impl ServiceAccountService for Services {
    async fn create_service_account(&self, request: Request<CreateServiceAccountRequest>) -> Answer<ServiceAccount> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(create(&self.0, call, &asked.parent, asked.service_account_id, asked.service_account).await)
    }

    async fn get_service_account(&self, request: Request<GetServiceAccountRequest>) -> Answer<ServiceAccount> {
        pack(get(&self.0, &request.get_ref().name).await)
    }

    async fn list_service_accounts(
        &self,
        request: Request<ListServiceAccountsRequest>,
    ) -> Answer<ListServiceAccountsResponse> {
        let asked = request.get_ref();
        let listed = list(&self.0, &asked.parent, asked.page_size, &asked.page_token).await;
        let pages =
            |(service_accounts, next_page_token)| ListServiceAccountsResponse { service_accounts, next_page_token };
        pack(listed.map(pages))
    }

    async fn update_service_account(&self, request: Request<UpdateServiceAccountRequest>) -> Answer<ServiceAccount> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(update(&self.0, call, asked.service_account, asked.update_mask).await)
    }

    async fn delete_service_account(
        &self,
        request: Request<DeleteServiceAccountRequest>,
    ) -> Answer<DeleteServiceAccountResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(delete::<ServiceAccount, _>(&self.0, call, &asked.name, &asked.etag).await)
    }
}
