//! The line to the control plane, shared by configuration ([`crate::sync`]) and reports ([`crate::report`]): how to reach it,
//! how to show who calls, and how long to wait before trying again.

use std::time::Duration;

use sluice_core::seal::Secret;
use sluice_proto::sync::v1::sync_service_client::SyncServiceClient;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// The first wait after a broken line.
const WAIT_FIRST: Duration = Duration::from_millis(100);
/// The longest.
const WAIT_LONGEST: Duration = Duration::from_secs(30);
/// Largest message taken: a snapshot chunk is 1 MiB, a delta may hold what one publish changed.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A client that shows the data-plane key.
pub type Client = SyncServiceClient<InterceptedService<Channel, ShowKey>>;

/// Puts the key on every call.
#[derive(Clone)]
pub struct ShowKey(AsciiMetadataValue);

impl tonic::service::Interceptor for ShowKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Where the control plane is, and who calls.
#[derive(Clone, Debug)]
pub struct Link {
    endpoint: Endpoint,
    key: AsciiMetadataValue,
}

/// The control plane's address or the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Not a URL.
    #[error("control_plane_url `{0}` is not a URL such as http://127.0.0.1:7070")]
    Url(String),
    /// Not printable.
    #[error("the data-plane key holds characters that a key cannot have")]
    Key,
}

impl Link {
    /// A line to `url` that shows `key`. Nothing is dialled yet.
    pub fn new(url: &str, key: &Secret) -> Result<Self, LinkError> {
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|_invalid| LinkError::Url(url.to_owned()))?
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true);
        let bearer = Secret::new(format!("Bearer {}", key.expose().trim()));
        let mut key = AsciiMetadataValue::try_from(bearer.expose()).map_err(|_invalid| LinkError::Key)?;
        key.set_sensitive(true);
        Ok(Self { endpoint, key })
    }

    /// Dials.
    pub async fn connect(&self) -> Result<Client, tonic::transport::Error> {
        let channel = self.endpoint.connect().await?;
        let client = SyncServiceClient::with_interceptor(channel, ShowKey(self.key.clone()));
        Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX))
    }
}

/// How long to wait before the next try: doubles up to a limit, with full jitter, so that many planes do not return at once.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// After a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// After a failure.
    pub fn failed(&mut self) -> Duration {
        let longest = WAIT_FIRST.saturating_mul(1 << self.failures.min(16)).min(WAIT_LONGEST);
        self.failures = self.failures.saturating_add(1);
        longest.mul_f64(dice()).max(WAIT_FIRST / 4)
    }
}

/// Uniform in `0.0..1.0`. Without randomness (which does not happen) the middle is as good as any.
pub fn dice() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / (f64::from(u32::MAX) + 1.0))
}
