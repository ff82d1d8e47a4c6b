//! A gRPC client for the control plane: connects, shows the API key on every call, and hands out the generated clients.

use std::fmt;

use sluice_proto::admin::v1::api_key_service_client::ApiKeyServiceClient;
use sluice_proto::admin::v1::audit_service_client::AuditServiceClient;
use sluice_proto::admin::v1::capture_service_client::CaptureServiceClient;
use sluice_proto::admin::v1::configuration_service_client::ConfigurationServiceClient;
use sluice_proto::admin::v1::connection_service_client::ConnectionServiceClient;
use sluice_proto::admin::v1::data_plane_service_client::DataPlaneServiceClient;
use sluice_proto::admin::v1::delivery_service_client::DeliveryServiceClient;
use sluice_proto::admin::v1::event_definition_service_client::EventDefinitionServiceClient;
use sluice_proto::admin::v1::event_service_client::EventServiceClient;
use sluice_proto::admin::v1::incoming_integration_service_client::IncomingIntegrationServiceClient;
use sluice_proto::admin::v1::incoming_request_service_client::IncomingRequestServiceClient;
use sluice_proto::admin::v1::join_token_service_client::JoinTokenServiceClient;
use sluice_proto::admin::v1::master_key_service_client::MasterKeyServiceClient;
use sluice_proto::admin::v1::operation_service_client::OperationServiceClient;
use sluice_proto::admin::v1::outgoing_integration_service_client::OutgoingIntegrationServiceClient;
use sluice_proto::admin::v1::role_service_client::RoleServiceClient;
use sluice_proto::admin::v1::schema_template_service_client::SchemaTemplateServiceClient;
use sluice_proto::admin::v1::secret_service_client::SecretServiceClient;
use sluice_proto::admin::v1::service_account_service_client::ServiceAccountServiceClient;
use sluice_proto::admin::v1::snippet_service_client::SnippetServiceClient;
use sluice_proto::admin::v1::test_profile_service_client::TestProfileServiceClient;
use sluice_proto::admin::v1::test_service_client::TestServiceClient;
use sluice_proto::admin::v1::token_key_service_client::TokenKeyServiceClient;
use sluice_proto::admin::v1::version_service_client::VersionServiceClient;
use sluice_proto::admin::v1::workflow_service_client::WorkflowServiceClient;
use sluice_proto::admin::v1::workspace_service_client::WorkspaceServiceClient;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

pub use sluice_proto::admin::v1 as admin;

/// A channel that shows the API key.
pub type Authorized = InterceptedService<Channel, ApiKey>;

/// Puts `authorization: Bearer <key>` on every call.
#[derive(Clone)]
pub struct ApiKey(AsciiMetadataValue);

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey([redacted])")
    }
}

impl tonic::service::Interceptor for ApiKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Why there is no client.
#[derive(Debug)]
pub enum ConnectError {
    /// The key holds characters that a key cannot have.
    Key,
    /// The URL is not one, or nobody answers there.
    Transport(tonic::transport::Error),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => f.write_str("the API key holds characters that a key cannot have"),
            Self::Transport(_) => f.write_str("the control plane cannot be reached"),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Key => None,
            Self::Transport(error) => Some(error),
        }
    }
}

/// A connection to a control plane. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    key: ApiKey,
}

impl Client {
    /// Connects to `url`, for example `http://127.0.0.1:7070`, or `https://control.example` with a certificate that the public
    /// certificate authorities vouch for.
    pub async fn connect(url: &str, key: &str) -> Result<Self, ConnectError> {
        Self::with(url, key, ClientTlsConfig::new().with_webpki_roots()).await
    }

    /// Connects to an `https` URL whose certificate one of the certificate authorities in `ca_pem` vouches for, and nobody else.
    /// The URL's host is the name that the certificate must be for.
    pub async fn connect_trusting(url: &str, key: &str, ca_pem: &str) -> Result<Self, ConnectError> {
        Self::with(url, key, ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca_pem))).await
    }

    async fn with(url: &str, key: &str, tls: ClientTlsConfig) -> Result<Self, ConnectError> {
        let mut key =
            AsciiMetadataValue::try_from(format!("Bearer {}", key.trim())).map_err(|_invalid| ConnectError::Key)?;
        key.set_sensitive(true);
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(ConnectError::Transport)?.tcp_nodelay(true);
        let encrypted = url.starts_with("https://");
        let endpoint = if encrypted { endpoint.tls_config(tls).map_err(ConnectError::Transport)? } else { endpoint };
        let channel = endpoint.connect().await.map_err(ConnectError::Transport)?;
        Ok(Self { channel, key: ApiKey(key) })
    }

    fn authorized(&self) -> Authorized {
        InterceptedService::new(self.channel.clone(), self.key.clone())
    }

    /// Workspaces.
    pub fn workspaces(&self) -> WorkspaceServiceClient<Authorized> {
        WorkspaceServiceClient::new(self.authorized())
    }

    /// Connections.
    pub fn connections(&self) -> ConnectionServiceClient<Authorized> {
        ConnectionServiceClient::new(self.authorized())
    }

    /// Incoming integrations.
    pub fn incoming_integrations(&self) -> IncomingIntegrationServiceClient<Authorized> {
        IncomingIntegrationServiceClient::new(self.authorized())
    }

    /// The keys of workspaces' tokens.
    pub fn token_keys(&self) -> TokenKeyServiceClient<Authorized> {
        TokenKeyServiceClient::new(self.authorized())
    }

    /// Captured requests.
    pub fn captures(&self) -> CaptureServiceClient<Authorized> {
        CaptureServiceClient::new(self.authorized())
    }

    /// Outgoing integrations.
    pub fn outgoing_integrations(&self) -> OutgoingIntegrationServiceClient<Authorized> {
        OutgoingIntegrationServiceClient::new(self.authorized())
    }

    /// Workflows.
    pub fn workflows(&self) -> WorkflowServiceClient<Authorized> {
        WorkflowServiceClient::new(self.authorized())
    }

    /// Schema templates.
    pub fn schema_templates(&self) -> SchemaTemplateServiceClient<Authorized> {
        SchemaTemplateServiceClient::new(self.authorized())
    }

    /// Snippets.
    pub fn snippets(&self) -> SnippetServiceClient<Authorized> {
        SnippetServiceClient::new(self.authorized())
    }

    /// Event definitions.
    pub fn event_definitions(&self) -> EventDefinitionServiceClient<Authorized> {
        EventDefinitionServiceClient::new(self.authorized())
    }

    /// Test profiles.
    pub fn test_profiles(&self) -> TestProfileServiceClient<Authorized> {
        TestProfileServiceClient::new(self.authorized())
    }

    /// Requests that are tried out.
    pub fn tests(&self) -> TestServiceClient<Authorized> {
        TestServiceClient::new(self.authorized())
    }

    /// Published versions.
    pub fn versions(&self) -> VersionServiceClient<Authorized> {
        VersionServiceClient::new(self.authorized())
    }

    /// What concerns several resources of a workspace together.
    pub fn configuration(&self) -> ConfigurationServiceClient<Authorized> {
        ConfigurationServiceClient::new(self.authorized())
    }

    /// The audit log.
    pub fn audit(&self) -> AuditServiceClient<Authorized> {
        AuditServiceClient::new(self.authorized())
    }

    /// API keys.
    pub fn api_keys(&self) -> ApiKeyServiceClient<Authorized> {
        ApiKeyServiceClient::new(self.authorized())
    }

    /// Roles.
    pub fn roles(&self) -> RoleServiceClient<Authorized> {
        RoleServiceClient::new(self.authorized())
    }

    /// Service accounts.
    pub fn service_accounts(&self) -> ServiceAccountServiceClient<Authorized> {
        ServiceAccountServiceClient::new(self.authorized())
    }

    /// Secrets and their rotation.
    pub fn secrets(&self) -> SecretServiceClient<Authorized> {
        SecretServiceClient::new(self.authorized())
    }

    /// Master keys.
    pub fn master_keys(&self) -> MasterKeyServiceClient<Authorized> {
        MasterKeyServiceClient::new(self.authorized())
    }

    /// Response events.
    pub fn events(&self) -> EventServiceClient<Authorized> {
        EventServiceClient::new(self.authorized())
    }

    /// Deliveries.
    pub fn deliveries(&self) -> DeliveryServiceClient<Authorized> {
        DeliveryServiceClient::new(self.authorized())
    }

    /// Accepted triggers.
    pub fn incoming_requests(&self) -> IncomingRequestServiceClient<Authorized> {
        IncomingRequestServiceClient::new(self.authorized())
    }

    /// Join tokens.
    pub fn join_tokens(&self) -> JoinTokenServiceClient<Authorized> {
        JoinTokenServiceClient::new(self.authorized())
    }

    /// Operations.
    pub fn operations(&self) -> OperationServiceClient<Authorized> {
        OperationServiceClient::new(self.authorized())
    }

    /// Data planes.
    pub fn data_planes(&self) -> DataPlaneServiceClient<Authorized> {
        DataPlaneServiceClient::new(self.authorized())
    }
}
