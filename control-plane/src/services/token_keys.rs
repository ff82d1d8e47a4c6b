//! The keys of workspaces' tokens.

use sluice_proto::admin::v1::token_key_service_server::TokenKeyService;
use sluice_proto::admin::v1::{GetTokenKeysRequest, RotateTokenKeyRequest, TokenKeySet};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::call::Call;
use crate::login_keys;

#[async_trait]
impl TokenKeyService for Services {
    async fn get_token_keys(&self, request: Request<GetTokenKeysRequest>) -> Answer<TokenKeySet> {
        pack(login_keys::get(&self.0, &request.get_ref().name).await)
    }

    async fn rotate_token_key(&self, request: Request<RotateTokenKeyRequest>) -> Answer<TokenKeySet> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(login_keys::rotate(&self.0, call, asked).await)
    }
}
