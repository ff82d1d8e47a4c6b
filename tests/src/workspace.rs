//! A tenant: what it creates, publishes and reads, each in one call. Whatever is refused fails the test; a test that
//! wants a refusal uses [`Workspace::client`].

use serde_json::Value;
use sluice_client::{Client, admin};
use tonic::Status;

use crate::patience::eventually;
use crate::resources;

/// A response event (P8).
#[derive(Clone, Debug)]
pub struct Event {
    /// Its action.
    pub action: String,
    /// The delivery it tells of.
    pub delivery: String,
    /// Its parameters.
    pub params: Value,
}

/// A workspace and an administrator's way to it.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// `workspaces/{workspace}`.
    pub name: String,
    /// The administrator's client.
    pub client: Client,
}

macro_rules! kind {
    ($noun:literal, $create:ident, $update:ident, $publish:ident, $unpublish:ident, $clients:ident, $Document:ident,
     $Create:ident { $id:ident, $field:ident } $create_call:ident, $Update:ident $update_call:ident,
     $Publish:ident $publish_call:ident, $Unpublish:ident $unpublish_call:ident) => {
        #[doc = concat!("Stores ", $noun, " as a draft.")]
        pub async fn $create(&self, id: &str, document: admin::$Document) -> admin::$Document {
            let request = admin::$Create {
                parent: self.name.clone(),
                $id: id.to_owned(),
                $field: Some(document),
                ..Default::default()
            };
            self.client.$clients().$create_call(request).await.unwrap().into_inner()
        }

        #[doc = concat!("Replaces the draft of ", $noun, "; its name says which.")]
        pub async fn $update(&self, document: admin::$Document) -> admin::$Document {
            let request = admin::$Update { $field: Some(document), ..Default::default() };
            self.client.$clients().$update_call(request).await.unwrap().into_inner()
        }

        #[doc = concat!("Publishes ", $noun, ".")]
        pub async fn $publish(&self, name: &str) -> Result<admin::$Document, Status> {
            let request = admin::$Publish { name: name.to_owned(), ..Default::default() };
            Ok(self.client.$clients().$publish_call(request).await?.into_inner())
        }

        #[doc = concat!("Takes ", $noun, " out of force.")]
        pub async fn $unpublish(&self, name: &str) -> Result<admin::$Document, Status> {
            let request = admin::$Unpublish { name: name.to_owned(), ..Default::default() };
            Ok(self.client.$clients().$unpublish_call(request).await?.into_inner())
        }
    };
}

impl Workspace {
    /// Creates a workspace.
    pub async fn create(client: &Client, id: &str) -> Self {
        let workspace = admin::Workspace { display_name: id.to_owned(), ..Default::default() };
        let request = admin::CreateWorkspaceRequest {
            workspace_id: id.to_owned(),
            workspace: Some(workspace),
            ..Default::default()
        };
        let workspace = client.workspaces().create_workspace(request).await.unwrap().into_inner();
        Self { name: workspace.name, client: client.clone() }
    }

    /// The workspace as it is stored.
    pub async fn get(&self) -> admin::Workspace {
        let request = admin::GetWorkspaceRequest { name: self.name.clone() };
        self.client.workspaces().get_workspace(request).await.unwrap().into_inner()
    }

    /// Creates a connection.
    pub async fn connection(&self, id: &str, scheme: admin::connection::Scheme) -> admin::Connection {
        let connection = admin::Connection { display_name: id.to_owned(), scheme: Some(scheme), ..Default::default() };
        let request = admin::CreateConnectionRequest {
            parent: self.name.clone(),
            connection_id: id.to_owned(),
            connection: Some(connection),
            ..Default::default()
        };
        self.client.connections().create_connection(request).await.unwrap().into_inner()
    }

    kind!(
        "an incoming integration", draft_incoming, update_incoming, publish_incoming, unpublish_incoming,
        incoming_integrations, IncomingIntegration,
        CreateIncomingIntegrationRequest { incoming_integration_id, incoming_integration } create_incoming_integration,
        UpdateIncomingIntegrationRequest update_incoming_integration,
        PublishIncomingIntegrationRequest publish_incoming_integration,
        UnpublishIncomingIntegrationRequest unpublish_incoming_integration
    );

    kind!(
        "an outgoing integration", draft_outgoing, update_outgoing, publish_outgoing, unpublish_outgoing,
        outgoing_integrations, OutgoingIntegration,
        CreateOutgoingIntegrationRequest { outgoing_integration_id, outgoing_integration } create_outgoing_integration,
        UpdateOutgoingIntegrationRequest update_outgoing_integration,
        PublishOutgoingIntegrationRequest publish_outgoing_integration,
        UnpublishOutgoingIntegrationRequest unpublish_outgoing_integration
    );

    kind!(
        "a workflow", draft_workflow, update_workflow, publish_workflow, unpublish_workflow,
        workflows, Workflow,
        CreateWorkflowRequest { workflow_id, workflow } create_workflow,
        UpdateWorkflowRequest update_workflow,
        PublishWorkflowRequest publish_workflow,
        UnpublishWorkflowRequest unpublish_workflow
    );

    kind!(
        "a schema template", draft_schema, update_schema, publish_schema, unpublish_schema,
        schema_templates, SchemaTemplate,
        CreateSchemaTemplateRequest { schema_template_id, schema_template } create_schema_template,
        UpdateSchemaTemplateRequest update_schema_template,
        PublishSchemaTemplateRequest publish_schema_template,
        UnpublishSchemaTemplateRequest unpublish_schema_template
    );

    /// Creates and publishes a schema template.
    pub async fn schema(&self, id: &str, fields: impl Into<Vec<admin::SchemaField>>) -> admin::SchemaTemplate {
        let template =
            admin::SchemaTemplate { display_name: id.to_owned(), fields: fields.into(), ..Default::default() };
        let draft = self.draft_schema(id, template).await;
        self.publish_schema(&draft.name).await.unwrap()
    }

    /// Creates and publishes an incoming integration.
    pub async fn incoming(&self, id: &str, incoming: admin::IncomingIntegration) -> admin::IncomingIntegration {
        let draft = self.draft_incoming(id, incoming).await;
        self.publish_incoming(&draft.name).await.unwrap()
    }

    /// Creates and publishes an outgoing integration.
    pub async fn outgoing(&self, id: &str, request: admin::OutgoingRequest) -> admin::OutgoingIntegration {
        let outgoing =
            admin::OutgoingIntegration { display_name: id.to_owned(), request: Some(request), ..Default::default() };
        let draft = self.draft_outgoing(id, outgoing).await;
        self.publish_outgoing(&draft.name).await.unwrap()
    }

    /// Creates and publishes a workflow.
    pub async fn workflow(&self, id: &str, workflow: admin::Workflow) -> admin::Workflow {
        let draft = self.draft_workflow(id, workflow).await;
        self.publish_workflow(&draft.name).await.unwrap()
    }

    /// Publishes the shortest way from a trigger to a destination: an endpoint for anyone, and a workflow that sends this
    /// request. Both have the id `id`.
    pub async fn flow(&self, id: &str, request: admin::OutgoingRequest) -> admin::IncomingIntegration {
        let incoming = self.incoming(id, resources::open()).await;
        self.workflow(id, resources::workflow(&incoming, [resources::custom_webhook("Send", request)])).await;
        incoming
    }

    /// Waits until a data plane serves the newest revision and the control plane knows it.
    pub async fn ready(&self) {
        eventually("a data plane to serve the workspace", || async {
            let request = admin::WaitServedRequest { parent: self.name.clone(), ..Default::default() };
            let answer = self.client.configuration().wait_served(request).await.unwrap().into_inner();
            answer.served.then_some(())
        })
        .await;
    }

    /// Waits for at least `count` response events, and returns all, oldest first.
    pub async fn events(&self, count: usize) -> Vec<Event> {
        let what = format!("{count} response events");
        eventually(&what, || async {
            let request = admin::ListEventsRequest { parent: self.name.clone(), page_size: 1000, ..Default::default() };
            let mut events = self.client.events().list_events(request).await.unwrap().into_inner().events;
            events.reverse();
            (events.len() >= count).then_some(events)
        })
        .await
        .into_iter()
        .map(|event| Event {
            params: serde_json::from_str(&event.params).unwrap(),
            action: event.action,
            delivery: event.delivery,
        })
        .collect()
    }

    /// Waits for at least `count` ended deliveries, and returns all, oldest first.
    pub async fn deliveries(&self, count: usize) -> Vec<admin::Delivery> {
        use admin::DeliveryState::{Cancelled, Dead, Delivered, Skipped};
        self.deliveries_in(count, &[Delivered, Dead, Skipped, Cancelled]).await
    }

    /// Waits for at least `count` deliveries in one of these states, and returns all, oldest first.
    pub async fn deliveries_in(&self, count: usize, states: &[admin::DeliveryState]) -> Vec<admin::Delivery> {
        let what = format!("{count} deliveries in {states:?}");
        eventually(&what, || async {
            let states = states.iter().map(|state| i32::from(*state)).collect();
            let request = admin::ListDeliveriesRequest {
                parent: self.name.clone(),
                page_size: 1000,
                filter: Some(admin::DeliveryFilter { states, ..Default::default() }),
                ..Default::default()
            };
            let listed = self.client.deliveries().list_deliveries(request).await.unwrap().into_inner();
            let mut deliveries = listed.deliveries;
            deliveries.reverse();
            (deliveries.len() >= count).then_some(deliveries)
        })
        .await
    }
}
