//! The audit log.

use sluice_proto::admin::v1::audit_service_server::AuditService;
use sluice_proto::admin::v1::{
    ListAuditEntriesRequest, ListAuditEntriesResponse, VerifyAuditEntriesRequest, VerifyAuditEntriesResponse,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::audit;

#[async_trait]
impl AuditService for Services {
    async fn list_audit_entries(&self, request: Request<ListAuditEntriesRequest>) -> Answer<ListAuditEntriesResponse> {
        pack(audit::list(&self.0, request.into_inner()).await)
    }

    async fn verify_audit_entries(
        &self,
        request: Request<VerifyAuditEntriesRequest>,
    ) -> Answer<VerifyAuditEntriesResponse> {
        pack(audit::verify(&self.0, request.into_inner()).await)
    }
}
