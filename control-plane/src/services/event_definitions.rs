//! Event definitions.

use sluice_proto::admin::v1::event_definition_service_server::EventDefinitionService;
use sluice_proto::admin::v1::{
    CreateEventDefinitionRequest, DeleteEventDefinitionRequest, DeleteEventDefinitionResponse, EventDefinition,
    GetEventDefinitionRequest, ListEventDefinitionsRequest, ListEventDefinitionsResponse,
    UndeleteEventDefinitionRequest, UpdateEventDefinitionRequest,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::call::Call;
use crate::lifecycle::{create, delete, get, list, undelete, update};
use crate::listing::query;

#[async_trait]
impl EventDefinitionService for Services {
    async fn create_event_definition(&self, request: Request<CreateEventDefinitionRequest>) -> Answer<EventDefinition> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(create(&self.0, call, &asked.parent, &asked.event_definition_id, asked.event_definition).await)
    }

    async fn get_event_definition(&self, request: Request<GetEventDefinitionRequest>) -> Answer<EventDefinition> {
        pack(get(&self.0, &request.get_ref().name).await)
    }

    async fn list_event_definitions(
        &self,
        request: Request<ListEventDefinitionsRequest>,
    ) -> Answer<ListEventDefinitionsResponse> {
        let asked = request.get_ref();
        let listed = list(&self.0, &asked.parent, query!(asked)).await;
        pack(listed.map(|(event_definitions, next_page_token)| ListEventDefinitionsResponse {
            event_definitions,
            next_page_token,
        }))
    }

    async fn update_event_definition(&self, request: Request<UpdateEventDefinitionRequest>) -> Answer<EventDefinition> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(update(&self.0, call, asked.event_definition, asked.update_mask).await)
    }

    async fn delete_event_definition(
        &self,
        request: Request<DeleteEventDefinitionRequest>,
    ) -> Answer<DeleteEventDefinitionResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(delete::<EventDefinition, _>(&self.0, call, &asked.name, &asked.etag).await)
    }

    async fn undelete_event_definition(
        &self,
        request: Request<UndeleteEventDefinitionRequest>,
    ) -> Answer<EventDefinition> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(undelete(&self.0, call, &asked.name, &asked.etag).await)
    }
}
