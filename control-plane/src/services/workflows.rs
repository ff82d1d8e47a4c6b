//! Workflows: drafts and published versions.

use sluice_proto::admin::v1::workflow_service_server::WorkflowService;
use sluice_proto::admin::v1::{
    CreateWorkflowRequest, DeleteWorkflowRequest, DeleteWorkflowResponse, GetWorkflowRequest, ListWorkflowsRequest,
    ListWorkflowsResponse, PublishWorkflowRequest, UndeleteWorkflowRequest, UnpublishWorkflowRequest,
    UpdateWorkflowRequest, Workflow,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::call::Call;
use crate::lifecycle::{create, delete, get, list, undelete, update};
use crate::listing::query;
use crate::publish::{publish, unpublish};

#[async_trait]
impl WorkflowService for Services {
    async fn create_workflow(&self, request: Request<CreateWorkflowRequest>) -> Answer<Workflow> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(create(&self.0, call, &asked.parent, &asked.workflow_id, asked.workflow).await)
    }

    async fn get_workflow(&self, request: Request<GetWorkflowRequest>) -> Answer<Workflow> {
        pack(get(&self.0, &request.get_ref().name).await)
    }

    async fn list_workflows(&self, request: Request<ListWorkflowsRequest>) -> Answer<ListWorkflowsResponse> {
        let asked = request.get_ref();
        let listed = list(&self.0, &asked.parent, query!(asked)).await;
        pack(listed.map(|(workflows, next_page_token)| ListWorkflowsResponse { workflows, next_page_token }))
    }

    async fn update_workflow(&self, request: Request<UpdateWorkflowRequest>) -> Answer<Workflow> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(update(&self.0, call, asked.workflow, asked.update_mask).await)
    }

    async fn delete_workflow(&self, request: Request<DeleteWorkflowRequest>) -> Answer<DeleteWorkflowResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(delete::<Workflow, _>(&self.0, call, &asked.name, &asked.etag).await)
    }

    async fn undelete_workflow(&self, request: Request<UndeleteWorkflowRequest>) -> Answer<Workflow> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(undelete(&self.0, call, &asked.name, &asked.etag).await)
    }

    async fn publish_workflow(&self, request: Request<PublishWorkflowRequest>) -> Answer<Workflow> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(publish(&self.0, call, &asked.name, &asked.etag).await)
    }

    async fn unpublish_workflow(&self, request: Request<UnpublishWorkflowRequest>) -> Answer<Workflow> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(unpublish(&self.0, call, &asked.name, &asked.etag).await)
    }
}
