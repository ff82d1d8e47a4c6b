//! A running control plane and what tests need to talk to it.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use sluice_control_plane::{Clock, ControlPlane, Database, Error, Settings};
use sluice_core::address::UrlPolicy;
use sluice_proto::admin::v1 as admin;
use sluice_proto::admin::v1::api_key_service_client::ApiKeyServiceClient;
use sluice_proto::admin::v1::capture_service_client::CaptureServiceClient;
use sluice_proto::admin::v1::configuration_service_client::ConfigurationServiceClient;
use sluice_proto::admin::v1::connection::Scheme;
use sluice_proto::admin::v1::connection_service_client::ConnectionServiceClient;
use sluice_proto::admin::v1::data_plane_service_client::DataPlaneServiceClient;
use sluice_proto::admin::v1::delivery_service_client::DeliveryServiceClient;
use sluice_proto::admin::v1::event_definition_service_client::EventDefinitionServiceClient;
use sluice_proto::admin::v1::event_service_client::EventServiceClient;
use sluice_proto::admin::v1::incoming_integration::Authorization;
use sluice_proto::admin::v1::incoming_integration_service_client::IncomingIntegrationServiceClient;
use sluice_proto::admin::v1::incoming_request_service_client::IncomingRequestServiceClient;
use sluice_proto::admin::v1::master_key_service_client::MasterKeyServiceClient;
use sluice_proto::admin::v1::operation_service_client::OperationServiceClient;
use sluice_proto::admin::v1::outgoing_integration_service_client::OutgoingIntegrationServiceClient;
use sluice_proto::admin::v1::role_service_client::RoleServiceClient;
use sluice_proto::admin::v1::schema_template_service_client::SchemaTemplateServiceClient;
use sluice_proto::admin::v1::secret_service_client::SecretServiceClient;
use sluice_proto::admin::v1::service_account_service_client::ServiceAccountServiceClient;
use sluice_proto::admin::v1::snippet_service_client::SnippetServiceClient;
use sluice_proto::admin::v1::step::Action;
use sluice_proto::admin::v1::test_profile_service_client::TestProfileServiceClient;
use sluice_proto::admin::v1::test_service_client::TestServiceClient;
use sluice_proto::admin::v1::version_service_client::VersionServiceClient;
use sluice_proto::admin::v1::workflow_service_client::WorkflowServiceClient;
use sluice_proto::admin::v1::workspace_service_client::WorkspaceServiceClient;
use sluice_proto::sync::v1::sync_service_client::SyncServiceClient;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::postgres::Postgres;

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const START: i64 = 1_800_000_000_000;
/// A ring of one master key.
pub(crate) const RING: &str = "first:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n";

/// Sends a key with every call.
#[derive(Clone)]
pub(crate) struct Key(String);

impl Interceptor for Key {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = MetadataValue::try_from(format!("Bearer {}", self.0)).unwrap();
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

pub(crate) type Keyed = InterceptedService<Channel, Key>;

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) clock: Clock,
    pub(crate) address: std::net::SocketAddr,
    stop: CancellationToken,
    running: JoinHandle<Result<(), Error>>,
    pub(crate) admin: Key,
    pub(crate) plane: Key,
    channel: Channel,
}

pub(crate) fn settings(folder: &Path, clock: &Clock) -> Settings {
    // The ring of master keys is looked at often, so that no test waits for it.
    let ring_read_every = Duration::from_millis(5);
    let mut settings =
        Settings { clock: clock.clone(), ring_read_every, ..Settings::in_folder(folder, UrlPolicy::default()) };
    if let Some(url) = Postgres::wanted_for(folder) {
        settings.database = Database::Postgres(url.into());
    }
    settings
}

/// The key that this text is.
pub(crate) fn key_of(text: &str) -> Key {
    Key(text.to_owned())
}

pub(crate) fn key_in(path: &Path) -> Key {
    Key(std::fs::read_to_string(path).unwrap().trim().to_owned())
}

/// Somebody with a key of his own.
#[derive(Clone)]
pub(crate) struct Caller {
    channel: Channel,
    key: Key,
}

impl Caller {
    pub(crate) fn key_text(&self) -> &str {
        &self.key.0
    }
}

macro_rules! clients {
    ($($name:ident: $client:ident),* $(,)?) => {
        impl World {
            $(pub(crate) fn $name(&self) -> $client<Keyed> {
                $client::with_interceptor(self.channel.clone(), self.admin.clone())
            })*
        }

        #[allow(dead_code)] // not every service is called by everybody
        impl Caller {
            $(pub(crate) fn $name(&self) -> $client<Keyed> {
                $client::with_interceptor(self.channel.clone(), self.key.clone())
            })*
        }
    };
}

clients!(
    workspaces: WorkspaceServiceClient,
    captures: CaptureServiceClient,
    connections: ConnectionServiceClient,
    incoming: IncomingIntegrationServiceClient,
    outgoing: OutgoingIntegrationServiceClient,
    workflows: WorkflowServiceClient,
    events: EventServiceClient,
    deliveries: DeliveryServiceClient,
    incoming_requests: IncomingRequestServiceClient,
    data_planes: DataPlaneServiceClient,
    operations: OperationServiceClient,
    secrets: SecretServiceClient,
    versions: VersionServiceClient,
    snippets: SnippetServiceClient,
    schema_templates: SchemaTemplateServiceClient,
    event_definitions: EventDefinitionServiceClient,
    test_profiles: TestProfileServiceClient,
    tests: TestServiceClient,
    configuration: ConfigurationServiceClient,
    master_keys: MasterKeyServiceClient,
    api_keys: ApiKeyServiceClient,
    roles: RoleServiceClient,
    service_accounts: ServiceAccountServiceClient,
);

impl World {
    /// A new control plane with the workspace `workspaces/acme`.
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("master.key"), RING).unwrap();
        let world = Self::start(folder, Clock::manual(START)).await;
        world.workspace("acme").await;
        world
    }

    pub(crate) async fn start(folder: TempDir, clock: Clock) -> Self {
        let settings = settings(folder.path(), &clock);
        Self::start_with(folder, settings).await
    }

    pub(crate) async fn start_with(folder: TempDir, settings: Settings) -> Self {
        let clock = settings.clock.clone();
        let (admin_file, plane_file) = (settings.admin_key_file.clone(), settings.data_plane_key_file.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let ready = ControlPlane::start(settings).await.unwrap();
        let running = tokio::spawn(ready.serve(listener, stop.clone()));
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let (admin, plane) = (key_in(&admin_file), key_in(&plane_file));
        Self { folder, clock, address, stop, running, admin, plane, channel }
    }

    /// Ends the server and returns its folder.
    pub(crate) async fn end(self) -> (TempDir, Clock) {
        self.stop.cancel();
        drop(self.channel);
        within(self.running).await.unwrap().unwrap();
        (self.folder, self.clock)
    }

    pub(crate) async fn restart(self) -> Self {
        let (folder, clock) = self.end().await;
        Self::start(folder, clock).await
    }

    /// The administrator's way in, for calls without a generated client.
    pub(crate) fn keyed(&self) -> Keyed {
        InterceptedService::new(self.channel.clone(), self.admin.clone())
    }

    /// Somebody with this key.
    pub(crate) fn caller(&self, key: &str) -> Caller {
        Caller { channel: self.channel.clone(), key: key_of(key) }
    }

    /// 30 days later, when the deleted workspace is gone for good.
    pub(crate) async fn purged(self, workspace: &str) -> Self {
        self.clock.advance(30 * 24 * 3600 * 1000);
        let world = self.restart().await;
        let request = admin::GetWorkspaceRequest { name: workspace.to_owned() };
        within(async {
            while world.workspaces().get_workspace(request.clone()).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        world
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn sync(&self) -> SyncServiceClient<Keyed> {
        SyncServiceClient::with_interceptor(self.channel.clone(), self.plane.clone())
    }

    pub(crate) async fn workspace(&self, id: &str) -> admin::Workspace {
        let workspace = admin::Workspace { display_name: id.to_owned(), ..Default::default() };
        let request = admin::CreateWorkspaceRequest {
            workspace_id: id.to_owned(),
            workspace: Some(workspace),
            ..Default::default()
        };
        self.workspaces().create_workspace(request).await.unwrap().into_inner()
    }

    pub(crate) async fn revision(&self, workspace: &str) -> i64 {
        let request = admin::GetWorkspaceRequest { name: format!("workspaces/{workspace}") };
        self.workspaces().get_workspace(request).await.unwrap().into_inner().revision
    }

    /// Each master key: its name, `primary` or `removable`, and what it wraps.
    pub(crate) async fn master_keys_listed(&self) -> Vec<String> {
        let request = admin::ListMasterKeysRequest::default();
        let listed = self.master_keys().list_master_keys(request).await.unwrap().into_inner().master_keys;
        let line = |key: admin::MasterKey| {
            let role = if key.primary { " primary" } else { "" };
            let removable = if key.removable { " removable" } else { "" };
            format!("{}{role}{removable} {}", key.name, key.data_keys)
        };
        listed.into_iter().map(line).collect()
    }

    pub(crate) async fn until_master_keys(&self, expected: &[&str]) {
        within(async {
            while self.master_keys_listed().await != expected {
                tokio::task::yield_now().await;
            }
        })
        .await
    }

    pub(crate) async fn connection(&self, id: &str, secret: &str) -> admin::Connection {
        let request = admin::CreateConnectionRequest {
            parent: ACME.to_owned(),
            connection_id: id.to_owned(),
            connection: Some(api_key(secret)),
            ..Default::default()
        };
        self.connections().create_connection(request).await.unwrap().into_inner()
    }

    pub(crate) async fn incoming_integration(&self, id: &str) -> admin::IncomingIntegration {
        let request = admin::CreateIncomingIntegrationRequest {
            parent: ACME.to_owned(),
            incoming_integration_id: id.to_owned(),
            incoming_integration: Some(incoming()),
            ..Default::default()
        };
        self.incoming().create_incoming_integration(request).await.unwrap().into_inner()
    }

    pub(crate) async fn outgoing_integration(&self, id: &str, connection: &str) -> admin::OutgoingIntegration {
        let request = admin::CreateOutgoingIntegrationRequest {
            parent: ACME.to_owned(),
            outgoing_integration_id: id.to_owned(),
            outgoing_integration: Some(outgoing(connection)),
            ..Default::default()
        };
        self.outgoing().create_outgoing_integration(request).await.unwrap().into_inner()
    }

    pub(crate) async fn workflow(&self, id: &str, incoming: &str, outgoing: &str) -> admin::Workflow {
        let request = admin::CreateWorkflowRequest {
            parent: ACME.to_owned(),
            workflow_id: id.to_owned(),
            workflow: Some(workflow(incoming, outgoing)),
            ..Default::default()
        };
        self.workflows().create_workflow(request).await.unwrap().into_inner()
    }

    pub(crate) async fn publish_incoming(&self, name: &str) -> Result<admin::IncomingIntegration, Status> {
        let request = admin::PublishIncomingIntegrationRequest { name: name.to_owned(), ..Default::default() };
        self.incoming().publish_incoming_integration(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn publish_outgoing(&self, name: &str) -> Result<admin::OutgoingIntegration, Status> {
        let request = admin::PublishOutgoingIntegrationRequest { name: name.to_owned(), ..Default::default() };
        self.outgoing().publish_outgoing_integration(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn publish_workflow(&self, name: &str) -> Result<admin::Workflow, Status> {
        let request = admin::PublishWorkflowRequest { name: name.to_owned(), ..Default::default() };
        self.workflows().publish_workflow(request).await.map(tonic::Response::into_inner)
    }
}

pub(crate) const ACME: &str = "workspaces/acme";

pub(crate) fn api_key(secret: &str) -> admin::Connection {
    let placement = admin::CredentialPlacement { name: "x-api-key".to_owned(), value: "{{secret}}".to_owned() };
    let key = admin::ApiKey { secret: secret.to_owned(), headers: vec![placement], ..Default::default() };
    admin::Connection { display_name: "CRM".to_owned(), scheme: Some(Scheme::ApiKey(key)), ..Default::default() }
}

pub(crate) fn incoming() -> admin::IncomingIntegration {
    let authorization = Some(Authorization::None(admin::NoAuthorization {}));
    admin::IncomingIntegration { display_name: "Orders".to_owned(), authorization, ..Default::default() }
}

pub(crate) fn outgoing(connection: &str) -> admin::OutgoingIntegration {
    let request = admin::OutgoingRequest {
        webhook_name: "Send".to_owned(),
        method: admin::HttpMethod::Post.into(),
        url: "https://crm.example.com/orders".to_owned(),
        body: Some("{\"id\": {{ request.body.id }}}".to_owned()),
        connection: connection.to_owned(),
        ..Default::default()
    };
    admin::OutgoingIntegration { display_name: "Send".to_owned(), request: Some(request), ..Default::default() }
}

pub(crate) fn workflow(incoming: &str, outgoing: &str) -> admin::Workflow {
    let action = Some(Action::OutgoingIntegration(outgoing.to_owned()));
    let step = admin::Step { step_name: "first".to_owned(), action, ..Default::default() };
    let trigger = admin::Trigger { incoming_integration: incoming.to_owned(), ..Default::default() };
    admin::Workflow {
        display_name: "Orders to CRM".to_owned(),
        triggers: vec![trigger],
        steps: vec![step],
        ..Default::default()
    }
}

/// The code and the reason of a refusal.
pub(crate) fn refusal(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "sluice.dev");
    (status.code(), info.reason.clone())
}

pub(crate) fn details(status: &Status) -> ErrorDetails {
    status.get_error_details()
}

/// The fields a refusal names, with their reasons.
pub(crate) fn violations(status: &Status) -> Vec<(String, String)> {
    assert_eq!(refusal(status), (Code::InvalidArgument, "FIELDS_INVALID".to_owned()), "{status:?}");
    let details = status.get_error_details();
    let bad = details.bad_request().unwrap();
    bad.field_violations.iter().map(|one| (one.field.clone(), one.reason.clone())).collect()
}

pub(crate) fn has(violations: &[(String, String)], field: &str, reason: &str) -> bool {
    violations.iter().any(|(f, r)| f == field && r == reason)
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it took too long")
}
