//! The line to the control plane, shared by configuration ([`crate::sync`]) and reports ([`crate::report`]): how to reach it,
//! how to show who calls, and how long to wait before trying again.

use std::io;
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use sluice_core::seal::Secret;
use sluice_proto::sync::v1::sync_service_client::SyncServiceClient;
use sluice_tls::Connector;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tower::Service;

use crate::identity::Keeper;
use crate::settings::Pings;

/// The first wait after a broken line is up to this.
const WAIT_FIRST: Duration = Duration::from_millis(100);
/// The shortest of all.
const WAIT_SHORTEST: Duration = Duration::from_millis(25);
/// The longest.
const WAIT_LONGEST: Duration = Duration::from_secs(30);
/// For the control plane to answer when it is dialled, TLS included.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Largest message taken: a snapshot chunk is 1 MiB, a delta may hold what one publish changed.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// So much may be on its way before it is taken: a part of a snapshot comes while the one before is compiled, however far away the control
/// plane is.
const WINDOW_BYTES: u32 = 1024 * 1024;

/// A client that shows who calls.
pub type Client = SyncServiceClient<InterceptedService<Channel, ShowKey>>;

/// Puts the key on every call; who has shown a certificate needs none.
#[derive(Clone)]
pub struct ShowKey(Option<AsciiMetadataValue>);

impl tonic::service::Interceptor for ShowKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("authorization", key.clone());
        }
        Ok(request)
    }
}

/// Where the control plane is.
#[derive(Clone, Debug)]
pub struct Address {
    endpoint: Endpoint,
    encrypted: bool,
}

/// Where the control plane is, and who calls.
#[derive(Clone, Debug)]
pub struct Link {
    address: Address,
    caller: Caller,
}

#[derive(Clone, Debug)]
enum Caller {
    Key(AsciiMetadataValue),
    Certificate(Keeper),
}

/// The control plane's address or the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Not a URL.
    #[error("control_plane_url `{0}` is not a URL such as http://127.0.0.1:7070 or https://control.example:7070")]
    Url(String),
    /// A key for a line that is encrypted.
    #[error(
        "control_plane_url `{0}` is encrypted, and data planes come there with a certificate: join with a join token \
         (--join-token-file) instead of a key"
    )]
    Encrypted(String),
    /// A certificate for a line that is not encrypted.
    #[error(
        "control_plane_url `{0}` is not encrypted, so no certificate can be shown: write https://, or give a key (--key-file)"
    )]
    Plaintext(String),
    /// Not printable.
    #[error("the data-plane key holds characters that a key cannot have")]
    Key,
}

/// The control plane cannot be dialled.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It does not answer, or not as it should.
    #[error(transparent)]
    Transport(#[from] tonic::transport::Error),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] sluice_tls::Error),
}

impl Address {
    /// The address that `url` says. Nothing is dialled yet.
    ///
    /// # Errors
    /// It says none.
    pub fn parse(url: &str, pings: Pings) -> Result<Self, LinkError> {
        // What encrypts is under the endpoint, which knows nothing of it.
        let (bare, encrypted) = match url.strip_prefix("https://") {
            Some(rest) => (format!("http://{}", with_port(rest)), true),
            None => (url.to_owned(), false),
        };
        let endpoint = Endpoint::from_shared(bare)
            .map_err(|_invalid| LinkError::Url(url.to_owned()))?
            .connect_timeout(CONNECT_TIME)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(2 * WINDOW_BYTES)
            .http2_keep_alive_interval(pings.every)
            .keep_alive_timeout(pings.answer)
            .keep_alive_while_idle(true);
        Ok(Self { endpoint, encrypted })
    }

    /// Whether it is reached with TLS.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Dials, with TLS when there is a connector.
    pub(crate) async fn dial(&self, connector: Option<&Connector>) -> Result<Channel, tonic::transport::Error> {
        match connector {
            None => self.endpoint.connect().await,
            Some(connector) => self.endpoint.connect_with_connector(dialling(connector.clone())).await,
        }
    }
}

impl Link {
    /// A line that shows `key` on every call. Nothing is dialled yet.
    ///
    /// # Errors
    /// It is none.
    pub fn with_key(address: Address, key: &Secret) -> Result<Self, LinkError> {
        let bearer = Secret::new(format!("Bearer {}", key.expose().trim()));
        let mut key = AsciiMetadataValue::try_from(bearer.expose()).map_err(|_invalid| LinkError::Key)?;
        key.set_sensitive(true);
        Ok(Self { address, caller: Caller::Key(key) })
    }

    /// A line that shows the certificate that is held when it is dialled.
    pub fn with_certificate(address: Address, keeper: Keeper) -> Self {
        Self { address, caller: Caller::Certificate(keeper) }
    }

    /// Who renews the certificate, when there is one.
    pub fn keeper(&self) -> Option<&Keeper> {
        match &self.caller {
            Caller::Key(_) => None,
            Caller::Certificate(keeper) => Some(keeper),
        }
    }

    /// Dials.
    pub async fn connect(&self) -> Result<Client, ConnectError> {
        let (channel, key) = match &self.caller {
            Caller::Key(key) => (self.address.dial(None).await?, Some(key.clone())),
            Caller::Certificate(keeper) => (self.address.dial(Some(&keeper.connector()?)).await?, None),
        };
        let client = SyncServiceClient::with_interceptor(channel, ShowKey(key));
        Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX))
    }
}

/// The port of `https` where none is named.
fn with_port(rest: &str) -> String {
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
    let named = authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    if named { format!("{authority}/{path}") } else { format!("{authority}:443/{path}") }
}

/// Dials and encrypts.
fn dialling(
    connector: Connector,
) -> impl Service<Uri, Response = impl Read + Write + Send + Unpin + 'static, Error = io::Error, Future: Send> + Send + 'static
{
    tower::service_fn(move |uri: Uri| {
        let connector = connector.clone();
        async move {
            let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(443));
            let dialled = tokio::time::timeout(CONNECT_TIME, connector.connect(host, port)).await;
            Ok(TokioIo::new(dialled.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??))
        }
    })
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
        let wait = wait(self.failures, dice());
        self.failures = self.failures.saturating_add(1);
        wait
    }
}

/// The wait after so many failures before, for a roll of the dice in `0.0..1.0`.
fn wait(failures: u32, dice: f64) -> Duration {
    let longest = WAIT_FIRST.saturating_mul(1 << failures.min(16)).min(WAIT_LONGEST);
    longest.mul_f64(dice).max(WAIT_SHORTEST)
}

/// Uniform in `0.0..1.0`. Without randomness (which does not happen) the middle is as good as any.
pub fn dice() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / (f64::from(u32::MAX) + 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a18_a_thousand_that_are_turned_away_together_come_back_apart() {
        const PLANES: u32 = 1000;
        for failures in 0..12 {
            let longest = wait(failures, 1.0);
            assert_eq!(longest, (WAIT_FIRST * (1 << failures)).min(WAIT_LONGEST));
            // Rolls as even as those of the dice: in no tenth of the time do more than a tenth and the shortest come.
            let mut tenths = [0; 11];
            for plane in 0..PLANES {
                let at = wait(failures, f64::from(plane) / f64::from(PLANES));
                assert!((WAIT_SHORTEST..=longest).contains(&at));
                let tenth = at.as_micros() * 10 / longest.as_micros();
                tenths[usize::try_from(tenth).unwrap()] += 1;
            }
            let most = if failures == 0 { 300 } else { 200 };
            assert!(tenths.iter().all(|count| *count <= most), "after {failures}: {tenths:?}");
        }
    }

    #[test]
    fn waits_grow_until_something_was_heard() {
        let mut backoff = Backoff::default();
        for _ in 0..40 {
            assert!((WAIT_SHORTEST..=WAIT_LONGEST).contains(&backoff.failed()));
        }
        assert_eq!(backoff.failures, 40);
        backoff.reset();
        assert!(backoff.failed() <= WAIT_FIRST);
    }

    #[test]
    fn dice_are_even() {
        let rolls: Vec<f64> = (0..2000).map(|_| dice()).collect();
        assert!(rolls.iter().all(|roll| (0.0..1.0).contains(roll)));
        let low = rolls.iter().filter(|roll| **roll < 0.5).count();
        assert!((800..1200).contains(&low), "{low} of 2000 in the lower half");
    }
}
