//! API keys.

use sluice_proto::admin::v1::api_key_service_server::ApiKeyService;
use sluice_proto::admin::v1::{
    AccessKey, CreateApiKeyRequest, DeleteApiKeyRequest, DeleteApiKeyResponse, GetApiKeyRequest, ListApiKeysRequest,
    ListApiKeysResponse, UpdateApiKeyRequest,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::access::{create_key, delete, get, list_keys, update};
use crate::call::Call;

#[async_trait]
impl ApiKeyService for Services {
    async fn create_api_key(&self, request: Request<CreateApiKeyRequest>) -> Answer<AccessKey> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(create_key(&self.0, call, &asked.parent, asked.api_key).await)
    }

    async fn get_api_key(&self, request: Request<GetApiKeyRequest>) -> Answer<AccessKey> {
        pack(get(&self.0, &request.get_ref().name).await)
    }

    async fn list_api_keys(&self, request: Request<ListApiKeysRequest>) -> Answer<ListApiKeysResponse> {
        let asked = request.into_inner();
        let filter = asked.filter.unwrap_or_default();
        let listed = list_keys(&self.0, &asked.parent, asked.page_size, &asked.page_token, filter).await;
        pack(listed.map(|(api_keys, next_page_token)| ListApiKeysResponse { api_keys, next_page_token }))
    }

    async fn update_api_key(&self, request: Request<UpdateApiKeyRequest>) -> Answer<AccessKey> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(update(&self.0, call, asked.api_key, asked.update_mask).await)
    }

    async fn delete_api_key(&self, request: Request<DeleteApiKeyRequest>) -> Answer<DeleteApiKeyResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(delete::<AccessKey, _>(&self.0, call, &asked.name, &asked.etag).await)
    }
}
