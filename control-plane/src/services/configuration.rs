//! What concerns several resources of a workspace together.

use sluice_proto::admin::v1::configuration_service_server::ConfigurationService;
use sluice_proto::admin::v1::{
    ApplyConfigurationRequest, ApplyConfigurationResponse, ExportConfigurationRequest, ExportConfigurationResponse,
    FindUsagesRequest, FindUsagesResponse, PublishDraftsRequest, PublishDraftsResponse, WaitServedRequest,
    WaitServedResponse,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::call::Call;
use crate::publish::publish_together;
use crate::{declared, serving, usages};

#[async_trait]
impl ConfigurationService for Services {
    async fn find_usages(&self, request: Request<FindUsagesRequest>) -> Answer<FindUsagesResponse> {
        pack(usages::find(&self.0, request.get_ref()).await)
    }

    async fn publish_drafts(&self, request: Request<PublishDraftsRequest>) -> Answer<PublishDraftsResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(publish_together(&self.0, call, asked).await)
    }

    async fn wait_served(&self, request: Request<WaitServedRequest>) -> Answer<WaitServedResponse> {
        pack(serving::wait(&self.0, request.get_ref()).await)
    }

    async fn export_configuration(
        &self,
        request: Request<ExportConfigurationRequest>,
    ) -> Answer<ExportConfigurationResponse> {
        pack(declared::export(&self.0, request.get_ref()).await)
    }

    async fn apply_configuration(
        &self,
        request: Request<ApplyConfigurationRequest>,
    ) -> Answer<ApplyConfigurationResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(declared::apply(&self.0, call, asked).await)
    }
}
