//! Tests: requests that are tried out before anything is published.

use sluice_proto::admin::v1::test_service_server::TestService;
use sluice_proto::admin::v1::{
    PreviewRequestRequest, PreviewRequestResponse, SendTestRequestRequest, SendTestRequestResponse,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::call::Call;
use crate::trial;

#[async_trait]
impl TestService for Services {
    async fn preview_request(&self, request: Request<PreviewRequestRequest>) -> Answer<PreviewRequestResponse> {
        pack(trial::preview(&self.0, request.into_inner()).await)
    }

    async fn send_test_request(&self, request: Request<SendTestRequestRequest>) -> Answer<SendTestRequestResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(trial::send(&self.0, call, asked).await)
    }
}
