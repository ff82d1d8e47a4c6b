//! Outgoing integrations: drafts and published versions.

use sluice_proto::admin::v1::outgoing_integration_service_server::OutgoingIntegrationService;
use sluice_proto::admin::v1::{
    CreateOutgoingIntegrationRequest, DeleteOutgoingIntegrationRequest, DeleteOutgoingIntegrationResponse,
    ExportCurlRequest, ExportCurlResponse, GetOutgoingIntegrationRequest, ImportCurlRequest, ImportCurlResponse,
    ListOutgoingIntegrationsRequest, ListOutgoingIntegrationsResponse, OutgoingIntegration, ParseCurlRequest,
    ParseCurlResponse, PublishOutgoingIntegrationRequest, UndeleteOutgoingIntegrationRequest,
    UnpublishOutgoingIntegrationRequest, UpdateOutgoingIntegrationRequest,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::call::Call;
use crate::curl;
use crate::lifecycle::{create, delete, get, list, undelete, update};
use crate::listing::query;
use crate::publish::{publish, unpublish};

#[async_trait]
impl OutgoingIntegrationService for Services {
    async fn create_outgoing_integration(
        &self,
        request: Request<CreateOutgoingIntegrationRequest>,
    ) -> Answer<OutgoingIntegration> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(create(&self.0, call, &asked.parent, &asked.outgoing_integration_id, asked.outgoing_integration).await)
    }

    async fn get_outgoing_integration(
        &self,
        request: Request<GetOutgoingIntegrationRequest>,
    ) -> Answer<OutgoingIntegration> {
        pack(get(&self.0, &request.get_ref().name).await)
    }

    async fn list_outgoing_integrations(
        &self,
        request: Request<ListOutgoingIntegrationsRequest>,
    ) -> Answer<ListOutgoingIntegrationsResponse> {
        let asked = request.get_ref();
        let listed = list(&self.0, &asked.parent, query!(asked)).await;
        pack(listed.map(|(outgoing_integrations, next_page_token)| ListOutgoingIntegrationsResponse {
            outgoing_integrations,
            next_page_token,
        }))
    }

    async fn update_outgoing_integration(
        &self,
        request: Request<UpdateOutgoingIntegrationRequest>,
    ) -> Answer<OutgoingIntegration> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(update(&self.0, call, asked.outgoing_integration, asked.update_mask).await)
    }

    async fn delete_outgoing_integration(
        &self,
        request: Request<DeleteOutgoingIntegrationRequest>,
    ) -> Answer<DeleteOutgoingIntegrationResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(delete::<OutgoingIntegration, _>(&self.0, call, &asked.name, &asked.etag).await)
    }

    async fn undelete_outgoing_integration(
        &self,
        request: Request<UndeleteOutgoingIntegrationRequest>,
    ) -> Answer<OutgoingIntegration> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(undelete(&self.0, call, &asked.name, &asked.etag).await)
    }

    async fn publish_outgoing_integration(
        &self,
        request: Request<PublishOutgoingIntegrationRequest>,
    ) -> Answer<OutgoingIntegration> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(publish(&self.0, call, &asked.name, &asked.etag).await)
    }

    async fn unpublish_outgoing_integration(
        &self,
        request: Request<UnpublishOutgoingIntegrationRequest>,
    ) -> Answer<OutgoingIntegration> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(unpublish(&self.0, call, &asked.name, &asked.etag).await)
    }

    async fn parse_curl(&self, request: Request<ParseCurlRequest>) -> Answer<ParseCurlResponse> {
        pack(curl::parse(&self.0, request.get_ref()).await)
    }

    async fn import_curl(&self, request: Request<ImportCurlRequest>) -> Answer<ImportCurlResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(curl::import(&self.0, call, &asked).await)
    }

    async fn export_curl(&self, request: Request<ExportCurlRequest>) -> Answer<ExportCurlResponse> {
        pack(curl::export(&self.0, &request.get_ref().name).await)
    }
}
