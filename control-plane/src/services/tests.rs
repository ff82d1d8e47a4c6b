//! Tests: requests that are tried out before anything is published.

use sluice_proto::admin::v1::test_service_server::TestService;
use sluice_proto::admin::v1::{
    EvaluateWorkflowsRequest, EvaluateWorkflowsResponse, EventDefinition, PreviewRequestRequest,
    PreviewRequestResponse, RetrieveAuthResponseRequest, RetrieveAuthResponseResponse, SendTestRequestRequest,
    SendTestRequestResponse, TestConnectionRequest, TestConnectionResponse, UpdateResponseEventRequest,
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

    async fn update_response_event(&self, request: Request<UpdateResponseEventRequest>) -> Answer<EventDefinition> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(trial::update(&self.0, call, asked).await)
    }

    async fn retrieve_auth_response(
        &self,
        request: Request<RetrieveAuthResponseRequest>,
    ) -> Answer<RetrieveAuthResponseResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(trial::retrieve(&self.0, call, asked).await)
    }

    async fn test_connection(&self, request: Request<TestConnectionRequest>) -> Answer<TestConnectionResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(trial::test(&self.0, call, asked).await)
    }

    async fn evaluate_workflows(
        &self,
        request: Request<EvaluateWorkflowsRequest>,
    ) -> Answer<EvaluateWorkflowsResponse> {
        pack(trial::evaluate(&self.0, request.into_inner()).await)
    }
}
