//! Join tokens.

use sluice_proto::admin::v1::join_token_service_server::JoinTokenService;
use sluice_proto::admin::v1::{
    CreateJoinTokenRequest, DeleteJoinTokenRequest, DeleteJoinTokenResponse, GetJoinTokenRequest, JoinToken,
    ListJoinTokensRequest, ListJoinTokensResponse,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::call::Call;
use crate::enrolment::{create, delete, get, list};

#[async_trait]
impl JoinTokenService for Services {
    async fn create_join_token(&self, request: Request<CreateJoinTokenRequest>) -> Answer<JoinToken> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(create(&self.0, call, asked).await)
    }

    async fn get_join_token(&self, request: Request<GetJoinTokenRequest>) -> Answer<JoinToken> {
        pack(get(&self.0, &request.get_ref().name).await)
    }

    async fn list_join_tokens(&self, request: Request<ListJoinTokensRequest>) -> Answer<ListJoinTokensResponse> {
        pack(list(&self.0, request.get_ref()).await)
    }

    async fn delete_join_token(&self, request: Request<DeleteJoinTokenRequest>) -> Answer<DeleteJoinTokenResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(delete(&self.0, call, &asked).await)
    }
}
