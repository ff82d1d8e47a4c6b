//! Schema templates: drafts and published versions.

use sluice_proto::admin::v1::schema_template_service_server::SchemaTemplateService;
use sluice_proto::admin::v1::{
    CreateSchemaTemplateRequest, DeleteSchemaTemplateRequest, DeleteSchemaTemplateResponse, GetSchemaTemplateRequest,
    InferSchemaTemplateRequest, InferSchemaTemplateResponse, ListSchemaTemplatesRequest, ListSchemaTemplatesResponse,
    PublishSchemaTemplateRequest, SchemaTemplate, UndeleteSchemaTemplateRequest, UnpublishSchemaTemplateRequest,
    UpdateSchemaTemplateRequest,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::call::Call;
use crate::inference::infer;
use crate::lifecycle::{create, delete, get, list, undelete, update};
use crate::listing::query;
use crate::publish::{publish, unpublish};

#[async_trait]
impl SchemaTemplateService for Services {
    async fn create_schema_template(&self, request: Request<CreateSchemaTemplateRequest>) -> Answer<SchemaTemplate> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(create(&self.0, call, &asked.parent, &asked.schema_template_id, asked.schema_template).await)
    }

    async fn get_schema_template(&self, request: Request<GetSchemaTemplateRequest>) -> Answer<SchemaTemplate> {
        pack(get(&self.0, &request.get_ref().name).await)
    }

    async fn list_schema_templates(
        &self,
        request: Request<ListSchemaTemplatesRequest>,
    ) -> Answer<ListSchemaTemplatesResponse> {
        let asked = request.get_ref();
        let listed = list(&self.0, &asked.parent, query!(asked)).await;
        pack(listed.map(|(schema_templates, next_page_token)| ListSchemaTemplatesResponse {
            schema_templates,
            next_page_token,
        }))
    }

    async fn update_schema_template(&self, request: Request<UpdateSchemaTemplateRequest>) -> Answer<SchemaTemplate> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(update(&self.0, call, asked.schema_template, asked.update_mask).await)
    }

    async fn delete_schema_template(
        &self,
        request: Request<DeleteSchemaTemplateRequest>,
    ) -> Answer<DeleteSchemaTemplateResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(delete::<SchemaTemplate, _>(&self.0, call, &asked.name, &asked.etag).await)
    }

    async fn undelete_schema_template(
        &self,
        request: Request<UndeleteSchemaTemplateRequest>,
    ) -> Answer<SchemaTemplate> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(undelete(&self.0, call, &asked.name, &asked.etag).await)
    }

    async fn publish_schema_template(&self, request: Request<PublishSchemaTemplateRequest>) -> Answer<SchemaTemplate> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(publish(&self.0, call, &asked.name, &asked.etag).await)
    }

    async fn unpublish_schema_template(
        &self,
        request: Request<UnpublishSchemaTemplateRequest>,
    ) -> Answer<SchemaTemplate> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(unpublish(&self.0, call, &asked.name, &asked.etag).await)
    }

    async fn infer_schema_template(
        &self,
        request: Request<InferSchemaTemplateRequest>,
    ) -> Answer<InferSchemaTemplateResponse> {
        pack(infer(&self.0, request.into_inner()).await)
    }
}
