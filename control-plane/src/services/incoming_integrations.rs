//! Incoming integrations: drafts and published versions.

use sluice_proto::admin::v1::incoming_integration_service_server::IncomingIntegrationService;
use sluice_proto::admin::v1::{
    CreateIncomingIntegrationRequest, DeleteIncomingIntegrationRequest, DeleteIncomingIntegrationResponse,
    GetIncomingIntegrationRequest, IncomingIntegration, ListIncomingIntegrationsRequest,
    ListIncomingIntegrationsResponse, PauseIncomingIntegrationRequest, PublishIncomingIntegrationRequest,
    RegenerateEndpointRequest, ResumeIncomingIntegrationRequest, UndeleteIncomingIntegrationRequest,
    UnpublishIncomingIntegrationRequest, UpdateIncomingIntegrationRequest,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::call::Call;
use crate::endpoint;
use crate::lifecycle::{create, delete, get, list, undelete, update};
use crate::listing::query;
use crate::publish::{publish, unpublish};

#[async_trait]
impl IncomingIntegrationService for Services {
    async fn create_incoming_integration(
        &self,
        request: Request<CreateIncomingIntegrationRequest>,
    ) -> Answer<IncomingIntegration> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(create(&self.0, call, &asked.parent, &asked.incoming_integration_id, asked.incoming_integration).await)
    }

    async fn get_incoming_integration(
        &self,
        request: Request<GetIncomingIntegrationRequest>,
    ) -> Answer<IncomingIntegration> {
        pack(get(&self.0, &request.get_ref().name).await)
    }

    async fn list_incoming_integrations(
        &self,
        request: Request<ListIncomingIntegrationsRequest>,
    ) -> Answer<ListIncomingIntegrationsResponse> {
        let asked = request.get_ref();
        let listed = list(&self.0, &asked.parent, query!(asked)).await;
        pack(listed.map(|(incoming_integrations, next_page_token)| ListIncomingIntegrationsResponse {
            incoming_integrations,
            next_page_token,
        }))
    }

    async fn update_incoming_integration(
        &self,
        request: Request<UpdateIncomingIntegrationRequest>,
    ) -> Answer<IncomingIntegration> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(update(&self.0, call, asked.incoming_integration, asked.update_mask).await)
    }

    async fn delete_incoming_integration(
        &self,
        request: Request<DeleteIncomingIntegrationRequest>,
    ) -> Answer<DeleteIncomingIntegrationResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(delete::<IncomingIntegration, _>(&self.0, call, &asked.name, &asked.etag).await)
    }

    async fn undelete_incoming_integration(
        &self,
        request: Request<UndeleteIncomingIntegrationRequest>,
    ) -> Answer<IncomingIntegration> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(undelete(&self.0, call, &asked.name, &asked.etag).await)
    }

    async fn publish_incoming_integration(
        &self,
        request: Request<PublishIncomingIntegrationRequest>,
    ) -> Answer<IncomingIntegration> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(publish(&self.0, call, &asked.name, &asked.etag).await)
    }

    async fn unpublish_incoming_integration(
        &self,
        request: Request<UnpublishIncomingIntegrationRequest>,
    ) -> Answer<IncomingIntegration> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(unpublish(&self.0, call, &asked.name, &asked.etag).await)
    }

    async fn regenerate_endpoint(&self, request: Request<RegenerateEndpointRequest>) -> Answer<IncomingIntegration> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(endpoint::change(&self.0, call, &asked.name, &asked.etag, endpoint::Change::Regenerate).await)
    }

    async fn pause_incoming_integration(
        &self,
        request: Request<PauseIncomingIntegrationRequest>,
    ) -> Answer<IncomingIntegration> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(endpoint::change(&self.0, call, &asked.name, &asked.etag, endpoint::Change::Pause).await)
    }

    async fn resume_incoming_integration(
        &self,
        request: Request<ResumeIncomingIntegrationRequest>,
    ) -> Answer<IncomingIntegration> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(endpoint::change(&self.0, call, &asked.name, &asked.etag, endpoint::Change::Resume).await)
    }
}
