//! Test profiles.

use sluice_proto::admin::v1::test_profile_service_server::TestProfileService;
use sluice_proto::admin::v1::{
    CreateTestProfileRequest, DeleteTestProfileRequest, DeleteTestProfileResponse, GetTestProfileRequest,
    ListTestProfilesRequest, ListTestProfilesResponse, TestProfile, UndeleteTestProfileRequest,
    UpdateTestProfileRequest,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::call::Call;
use crate::lifecycle::{create, delete, get, list, undelete, update};
use crate::listing::query;

#[async_trait]
impl TestProfileService for Services {
    async fn create_test_profile(&self, request: Request<CreateTestProfileRequest>) -> Answer<TestProfile> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(create(&self.0, call, &asked.parent, &asked.test_profile_id, asked.test_profile).await)
    }

    async fn get_test_profile(&self, request: Request<GetTestProfileRequest>) -> Answer<TestProfile> {
        pack(get(&self.0, &request.get_ref().name).await)
    }

    async fn list_test_profiles(&self, request: Request<ListTestProfilesRequest>) -> Answer<ListTestProfilesResponse> {
        let asked = request.get_ref();
        let listed = list(&self.0, &asked.parent, query!(asked)).await;
        pack(listed.map(|(test_profiles, next_page_token)| ListTestProfilesResponse { test_profiles, next_page_token }))
    }

    async fn update_test_profile(&self, request: Request<UpdateTestProfileRequest>) -> Answer<TestProfile> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(update(&self.0, call, asked.test_profile, asked.update_mask).await)
    }

    async fn delete_test_profile(
        &self,
        request: Request<DeleteTestProfileRequest>,
    ) -> Answer<DeleteTestProfileResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(delete::<TestProfile, _>(&self.0, call, &asked.name, &asked.etag).await)
    }

    async fn undelete_test_profile(&self, request: Request<UndeleteTestProfileRequest>) -> Answer<TestProfile> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(undelete(&self.0, call, &asked.name, &asked.etag).await)
    }
}
