//! How data planes get their certificates.

use sluice_proto::sync::v1::enrollment_service_server::EnrollmentService;
use sluice_proto::sync::v1::{
    EnrollDataPlaneRequest, EnrollDataPlaneResponse, RenewDataPlaneRequest, RenewDataPlaneResponse,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack, rights};
use crate::door::Newcomer;
use crate::enrolment::{enroll, renew};
use crate::error::Failure;

#[async_trait]
impl EnrollmentService for Services {
    async fn enroll_data_plane(&self, request: Request<EnrollDataPlaneRequest>) -> Answer<EnrollDataPlaneResponse> {
        let newcomer = request.extensions().get::<Newcomer>().cloned();
        let Some(Newcomer { attempt, settled }) = newcomer else {
            return Err(Failure::Internal("a request came past the door".to_owned()).into());
        };
        pack(enroll(&self.0, &attempt, &settled, request.get_ref()).await)
    }

    async fn renew_data_plane(&self, request: Request<RenewDataPlaneRequest>) -> Answer<RenewDataPlaneResponse> {
        let rights = rights(&request)?;
        pack(renew(&self.0, &rights, request.get_ref()).await)
    }
}
