//! Where configuration is kept: drafts, versions, what is published, and the streams that bring it to data planes.
//!
//! | Module | Answers |
//! |---|---|
//! | [`Settings`] | what the caller decides |
//! | `sockets` | the connections of callers, encrypted or not |
//! | `door` | may this call come in: key, permission, workspace, limits |
//! | `json_door`, `paths` | the same methods as JSON over HTTP, and which path means which |
//! | `access` | who calls, and who gives whom which permissions |
//! | `audit` | who changed what, and who was refused |
//! | `contract` | what a request is about, whichever method it calls |
//! | `services` | what each method does, unpacked |
//! | `lifecycle` | how a document is created, changed and deleted, the same for all kinds |
//! | `listing`, `scan`, `list_filter` | what a list shows and in which order: of what is kept, and of what was recorded over time |
//! | `publish` | how a draft, or several at once, become what every data plane serves |
//! | `versions` | what was published: read, compared, brought back |
//! | `usages` | who uses what |
//! | `serving` | who serves a revision |
//! | `fields`, `yaml` | messages as trees of fields: compared, shown as JSON, written and read as YAML |
//! | `declared` | a workspace's drafts as one document |
//! | `enrolment` | who the data planes are, and what each may see |
//! | `replicas`, `lead` | several control planes on one database: what each knows of the others, and what one does for all |
//! | `rounds`, `wakes` | who waits for what |
//! | `snapshots` | where every workspace stands, for data planes |
//! | `session` | what one data plane needs next |
//! | `endpoint` | what changes of an endpoint without publishing |
//! | `login_keys` | which API keys may log in at data planes, and what signs their tokens |
//! | `curl` | what a cURL command changes of a draft, and which command says one |
//! | `captures` | what a sender really sends, while an integration is built |
//! | `trial` | what a request would be, and what is answered to it, before anything is published |
//! | `intake` | what callers submit to start workflows |
//! | `commands` | what a data plane does for an operator |
//! | `replay` | which deliveries are delivered again, and when |
//! | `reports` | what data planes tell |
//! | `delivery_filter`, `watching` | which deliveries a caller means, and how he follows them |
//! | `secrets` | how secrets rest |
//! | `master_keys` | how the key of all keys is changed |
//! | `rotation` | how a secret is changed without a gap |
//! | `snippets` | which texts templates insert |
//! | `forms` | which forms integrations are published with |
//! | `inference` | which forms samples suggest |
//! | `store` | where all of it is kept |
//! | [`Health`], `metrics` | how it is, for whoever operates it |
//! | `crash` | the moments at which tests end the process |
//! | `error` | what can go wrong and how callers hear of it |

mod access;
mod audit;
mod call;
mod captures;
mod clock;
mod commands;
mod contract;
mod crash;
mod curl;
mod data_keys;
mod data_planes;
mod declared;
mod delivery_filter;
mod door;
mod drain;
mod endpoint;
mod enrolment;
mod error;
mod fields;
mod forms;
mod health;
mod inference;
mod intake;
mod json_door;
mod lead;
mod levels;
mod lifecycle;
mod list_filter;
mod listing;
mod login_keys;
mod master_keys;
mod members;
mod metrics;
mod names;
mod operations;
mod paging;
mod paths;
mod publish;
mod replay;
mod replicas;
mod reports;
mod resource;
mod rotation;
mod rounds;
mod scan;
mod secrets;
mod services;
mod serving;
mod session;
mod settings;
mod shared;
mod snapshots;
mod snippets;
mod sockets;
mod store;
mod stored;
mod together;
mod trial;
mod usages;
mod versions;
mod wakes;
mod watching;
mod yaml;

use std::sync::Arc;
use std::time::Duration;

use sluice_proto::admin::v1::api_key_service_server::ApiKeyServiceServer;
use sluice_proto::admin::v1::audit_service_server::AuditServiceServer;
use sluice_proto::admin::v1::capture_service_server::CaptureServiceServer;
use sluice_proto::admin::v1::configuration_service_server::ConfigurationServiceServer;
use sluice_proto::admin::v1::connection_service_server::ConnectionServiceServer;
use sluice_proto::admin::v1::data_plane_service_server::DataPlaneServiceServer;
use sluice_proto::admin::v1::delivery_service_server::DeliveryServiceServer;
use sluice_proto::admin::v1::event_definition_service_server::EventDefinitionServiceServer;
use sluice_proto::admin::v1::event_service_server::EventServiceServer;
use sluice_proto::admin::v1::incoming_integration_service_server::IncomingIntegrationServiceServer;
use sluice_proto::admin::v1::incoming_request_service_server::IncomingRequestServiceServer;
use sluice_proto::admin::v1::join_token_service_server::JoinTokenServiceServer;
use sluice_proto::admin::v1::master_key_service_server::MasterKeyServiceServer;
use sluice_proto::admin::v1::operation_service_server::OperationServiceServer;
use sluice_proto::admin::v1::outgoing_integration_service_server::OutgoingIntegrationServiceServer;
use sluice_proto::admin::v1::role_service_server::RoleServiceServer;
use sluice_proto::admin::v1::schema_template_service_server::SchemaTemplateServiceServer;
use sluice_proto::admin::v1::secret_service_server::SecretServiceServer;
use sluice_proto::admin::v1::service_account_service_server::ServiceAccountServiceServer;
use sluice_proto::admin::v1::snippet_service_server::SnippetServiceServer;
use sluice_proto::admin::v1::test_profile_service_server::TestProfileServiceServer;
use sluice_proto::admin::v1::test_service_server::TestServiceServer;
use sluice_proto::admin::v1::token_key_service_server::TokenKeyServiceServer;
use sluice_proto::admin::v1::version_service_server::VersionServiceServer;
use sluice_proto::admin::v1::workflow_service_server::WorkflowServiceServer;
use sluice_proto::admin::v1::workspace_service_server::WorkspaceServiceServer;
use sluice_proto::sync::v1::enrollment_service_server::EnrollmentServiceServer;
use sluice_proto::sync::v1::sync_service_server::SyncServiceServer;
use sluice_tls::Tls;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_web::GrpcWebLayer;
use uuid::Uuid;

pub use clock::{Clock, UnixMillis};
#[cfg(feature = "fault-injection")]
pub use crash::Crash;
pub use crash::Moment;
pub use error::Error;
pub use health::Health;
pub use settings::{Certificate, Database, Limits, Settings};
pub use store::{Migrated, StoreError, migrate};

use door::Door;
use error::chain;
use json_door::JsonDoor;
use lead::Lead;
use metrics::{Metrics, StoreUse};
use replicas::Replicas;
use secrets::Secrets;
use services::Services;
use shared::Shared;
use snapshots::Snapshots;
use store::Store;

/// Largest message that is taken, in bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Streams and calls on one connection at once.
const CALLS_PER_CONNECTION_MAX: u32 = 256;
/// Largest header block, in bytes.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// How many deleted documents one sweep step takes away, so that writers do not wait long.
const PURGED_AT_ONCE: i64 = 100;
/// How often what is too old is deleted.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// A control plane that is ready to serve: its store is open, its keys fit and its API keys are in their files.
pub struct ControlPlane {
    shared: Arc<Shared>,
    tls: Option<Tls>,
}

impl ControlPlane {
    /// Opens everything, beside other control planes where the database is PostgreSQL's. Nothing listens yet.
    ///
    /// # Errors
    /// Whatever the operator has to mend first: see [`Error`].
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        let store = Store::open(&settings.database).await?;
        let mut write = store.write().await?;
        write.epoch(&Uuid::new_v4().to_string()).await?;
        write.commit().await?;
        let secrets = Arc::new(Secrets::open(&settings.master_key_file, &store).await?);
        access::reconcile_keys(&settings, &store).await?;
        let stop = CancellationToken::new();
        let authority = match settings.tls {
            Some(_) => Some(Arc::new(enrolment::open_authority(&settings, &store, &secrets).await?)),
            None => None,
        };
        let tls = sockets::encryption(&settings, authority.as_ref(), &stop).await?;
        let metrics = Arc::new(Metrics::default());
        let snapshots = Snapshots::start(store.clone(), metrics.clone(), stop.clone()).await?;
        let mut shared = Shared::new(settings, store, secrets, snapshots, metrics, stop);
        shared.authority = authority;
        if let Database::Postgres(url) = shared.settings.database.clone() {
            shared.lead = Lead::claim(url.clone(), shared.stop.clone());
            Replicas::join(&mut shared, url).await?;
        }
        let Shared { settings, store, secrets, metrics, lead, stop, .. } = &shared;
        let sweeping = Sweep {
            settings: settings.clone(),
            store: store.clone(),
            secrets: secrets.clone(),
            metrics: metrics.clone(),
            lead: lead.clone(),
        };
        tokio::spawn(sweeping.run(stop.clone()));
        let (settings, store) = (settings.clone(), store.clone());
        tokio::spawn(master_keys::keep(settings, store, secrets.clone(), lead.clone(), stop.clone()));
        Ok(Self { shared: Arc::new(shared), tls })
    }

    /// What tells how it is; served on a listener of its own, and still there while the control plane stops.
    pub fn health(&self) -> Health {
        Health::new(self.shared.clone())
    }

    /// Serves gRPC on `listener` until `shutdown`, then ends streams, lets calls finish and closes the store.
    ///
    /// # Errors
    /// Plaintext would leave this machine, or the server ended by itself.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), Error> {
        let shared = self.shared.clone();
        let stop = shared.stop.clone();
        shared.settings.check_listener(&listener)?;
        let incoming = sockets::incoming(listener, self.tls.clone());
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_service_status("", ServingStatus::Serving).await;
        let routes = self.routes().add_service(health_service);
        tokio::spawn(operations::run(shared.clone()));
        let (draining, limits) = (stop.clone(), shared.settings.limits);
        let server = Server::builder()
            .accept_http1(true)
            .layer(JsonDoor(shared.clone()))
            .layer(GrpcWebLayer::new())
            .layer(Door::new(shared.clone()))
            .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .http2_keepalive_interval(Some(limits.ping_every))
            .http2_keepalive_timeout(Some(limits.ping_answer))
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, async move {
                shutdown.cancelled().await;
                health.set_service_status("", ServingStatus::NotServing).await;
                draining.cancel();
            });
        let drain_time = limits.drain_time;
        let drained = async {
            stop.cancelled().await;
            tokio::time::sleep(drain_time).await;
        };
        let served = tokio::select! {
            served = server => served.map_err(Error::from),
            () = drained => {
                tracing::warn!("connections that did not end in time were closed");
                Ok(())
            }
        };
        stop.cancel();
        shared.replicas.left().await;
        shared.store.close().await;
        served
    }

    fn routes(self) -> Routes {
        let services = Services(self.shared.clone());
        macro_rules! limited {
            ($($server:ident),*) => {
                Routes::builder().routes()$(.add_service(
                    $server::new(services.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
                ))*
            };
        }
        let routes = limited!(
            WorkspaceServiceServer,
            ConnectionServiceServer,
            IncomingIntegrationServiceServer,
            CaptureServiceServer,
            TokenKeyServiceServer,
            OutgoingIntegrationServiceServer,
            WorkflowServiceServer,
            EventServiceServer,
            DeliveryServiceServer,
            SecretServiceServer,
            SnippetServiceServer,
            SchemaTemplateServiceServer,
            EventDefinitionServiceServer,
            TestProfileServiceServer,
            TestServiceServer,
            VersionServiceServer,
            ConfigurationServiceServer,
            MasterKeyServiceServer,
            ApiKeyServiceServer,
            RoleServiceServer,
            ServiceAccountServiceServer,
            AuditServiceServer,
            IncomingRequestServiceServer,
            OperationServiceServer,
            DataPlaneServiceServer,
            SyncServiceServer,
            EnrollmentServiceServer,
            JoinTokenServiceServer
        );
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(sluice_proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        const OURS: &str = "our own descriptors are whole";
        routes.add_service(reflection().build_v1().expect(OURS)).add_service(reflection().build_v1alpha().expect(OURS))
    }
}

/// Starts a control plane and serves on `listener` until `shutdown`: [`ControlPlane::start`] and [`ControlPlane::serve`].
///
/// # Errors
/// Whatever the operator has to mend first, or the server ended by itself: see [`Error`].
pub async fn run(settings: Settings, listener: TcpListener, shutdown: CancellationToken) -> Result<(), Error> {
    ControlPlane::start(settings).await?.serve(listener, shutdown).await
}

/// Deletes outcomes, audit entries and versions that are kept long enough, requests that need not be remembered any more, and what was
/// deleted long ago.
struct Sweep {
    settings: Settings,
    store: Store,
    secrets: Arc<Secrets>,
    metrics: Arc<Metrics>,
    lead: Lead,
}

impl Sweep {
    async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.lead.ours() => {}
            }
            if let Err(error) = self.once().await {
                self.metrics.store_failed(StoreUse::Sweep);
                tracing::error!(error = %chain(&error), "cannot delete what is too old; trying again later");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SWEEP_EVERY) => {}
            }
        }
    }

    async fn once(&self) -> Result<(), StoreError> {
        let (settings, store) = (&self.settings, &self.store);
        let now = settings.clock.now();
        let before = |kept: Duration| now.saturating_sub(i64::try_from(kept.as_millis()).unwrap_or(i64::MAX));
        audit::prune(store, &self.secrets, before(settings.audit_retention)).await?;
        loop {
            let mut write = store.write().await?;
            let mut more = write.sweep(before(settings.retention), now - call::REMEMBERED_MILLIS).await?;
            more |= write.versions_sweep(settings.versions_kept.get().into(), PURGED_AT_ONCE).await?;
            let deleted_before = now.saturating_sub(stored::KEPT_MILLIS);
            more |= write.documents_purge(deleted_before, PURGED_AT_ONCE).await?;
            more |= write.workspace_purge(deleted_before).await?;
            write.join_tokens_sweep(now.saturating_sub(enrolment::TOKENS_KEPT_MILLIS)).await?;
            write.captures_sweep(now.saturating_sub(captures::KEPT_MILLIS)).await?;
            write.commit().await?;
            if !more {
                return Ok(());
            }
        }
    }
}
