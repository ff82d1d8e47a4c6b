//! Who this data plane is to its control plane (A12 to A14): it joins once with a token, keeps its key and certificate in one file of
//! mode 0600, and has a next certificate made after half of each one's time. When it cannot, it goes on serving what it has and says
//! so, the louder the less time is left.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use sluice_core::join_token::JoinToken;
use sluice_proto::sync::v1::enrollment_service_client::EnrollmentServiceClient;
use sluice_proto::sync::v1::{EnrollDataPlaneRequest, EnrollDataPlaneResponse, RenewDataPlaneRequest};
use sluice_tls::identity::{Bundle, Identity, NodeKey};
use sluice_tls::{Connector, is_distrust};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::link::{Address, Backoff};
use crate::plane::Plane;

/// The part of a certificate's time, in percent, below which a certificate that is not renewed is an alarm.
const ALARM_PERCENT: i64 = 30;

/// Why this data plane has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It never joined, and has no token to join with.
    #[error(
        "this data plane has not joined its control plane yet: make a join token (CreateJoinToken) and give it in a file \
         (--join-token-file)"
    )]
    NoToken,
    /// The file does not hold a token.
    #[error("{0} does not hold a join token, or one that is cut or mistyped: make another one")]
    TokenInvalid(PathBuf),
    /// The control plane is not the one that made the token. The token was not shown to it.
    #[error("the control plane that answers is not the one that the join token was made by; it was not told the token")]
    OtherControlPlane,
    /// The control plane refused.
    #[error("the control plane refused: {0}")]
    Refused(String),
    /// The file with the identity cannot be used.
    #[error("the identity in {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Keys or certificates cannot be made or used.
    #[error(transparent)]
    Tls(#[from] sluice_tls::Error),
    /// The stop signal came first.
    #[error("stopped before the control plane answered")]
    Stopped,
}

impl From<sluice_tls::authority::Unmade> for IdentityError {
    fn from(error: sluice_tls::authority::Unmade) -> Self {
        Self::Tls(error.into())
    }
}

/// A certificate with its key, and who has signed it.
#[derive(Clone)]
struct Held {
    key: Zeroizing<String>,
    certificate: Vec<u8>,
    authority: Vec<u8>,
    identity: Identity,
}

impl Held {
    fn connector(&self, clock: &Clock) -> Result<Connector, sluice_tls::Error> {
        Connector::identified(&self.authority, &self.certificate, &self.key, crate::time(clock))
    }
}

/// What is held, and how it is renewed. Cheap to clone.
#[derive(Clone)]
pub struct Keeper(Arc<Parts>);

struct Parts {
    address: Address,
    file: PathBuf,
    clock: Clock,
    held: ArcSwap<Held>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("identity", &self.0.held.load().identity).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Reads the identity that is kept in `folder`, or joins with the token and keeps what comes of it. Waits for a control plane that
    /// is away, until `stop`.
    ///
    /// # Errors
    /// There is none, and there will be none without an operator.
    pub async fn open(
        address: Address,
        folder: &Path,
        id: &str,
        token_file: Option<&Path>,
        clock: &Clock,
        stop: &CancellationToken,
    ) -> Result<Self, IdentityError> {
        let file = folder.join("identity.pem");
        let kept = read(&file)?;
        let held = match kept.as_ref().and_then(held) {
            Some(held) if held.identity.id == id => held,
            Some(held) => {
                let message = format!("it is of the data plane `{}`, and this one is `{id}`", held.identity.id);
                let source = io::Error::new(io::ErrorKind::InvalidData, message);
                return Err(IdentityError::File { path: file, source });
            }
            None => {
                let joining = Joining::new(kept, token_file, &file)?;
                joining.join(&address, id, clock, stop).await?
            }
        };
        tracing::info!(data_plane = id, until_ms = held.identity.end, "this data plane has an identity");
        Ok(Self(Arc::new(Parts { address, file, clock: clock.clone(), held: ArcSwap::from_pointee(held) })))
    }

    /// What the line to the control plane is dialled with now.
    ///
    /// # Errors
    /// What is held cannot be used.
    pub fn connector(&self) -> Result<Connector, sluice_tls::Error> {
        self.0.held.load().connector(&self.0.clock)
    }

    /// How much of the certificate's time is left, in percent; none when it is over.
    fn left_percent(&self) -> i64 {
        let held = self.0.held.load();
        let whole = (held.identity.end - held.identity.begin).max(1);
        (held.identity.end - self.0.clock.now()).max(0).saturating_mul(100) / whole
    }

    /// Has the next certificate made in time, until `shutdown`.
    pub async fn keep(self, plane: Plane, shutdown: CancellationToken) {
        let (metrics, every) = (&plane.metrics, plane.settings.certificate_checked_every);
        let mut backoff = Backoff::default();
        loop {
            let left = self.left_percent();
            metrics.certificate(self.0.held.load().identity.end / 1000, left < ALARM_PERCENT);
            let wait = if left > 50 {
                every
            } else {
                match self.renew().await {
                    Ok(()) => {
                        backoff.reset();
                        metrics.renewal(true);
                        every
                    }
                    Err(reason) => {
                        metrics.renewal(false);
                        if left < ALARM_PERCENT {
                            tracing::error!(
                                reason,
                                left_percent = left,
                                "the certificate cannot be renewed and soon ends"
                            );
                        } else {
                            tracing::warn!(reason, left_percent = left, "the certificate cannot be renewed yet");
                        }
                        backoff.failed().max(every)
                    }
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Has one certificate made, with a key of its own.
    async fn renew(&self) -> Result<(), String> {
        let key = NodeKey::generate().map_err(|error| error.to_string())?;
        let request =
            RenewDataPlaneRequest { certificate_request: key.request().map_err(|error| error.to_string())?.into() };
        let connector = self.connector().map_err(|error| error.to_string())?;
        let channel = self.0.address.dial(Some(&connector)).await.map_err(|error| error.to_string())?;
        let answer = EnrollmentServiceClient::new(channel).renew_data_plane(request).await;
        let answer = answer.map_err(|status| status.message().to_owned())?.into_inner();
        let authority = self.0.held.load().authority.clone();
        let next = Bundle { key: key.pem(), certificates: Some((answer.certificate.to_vec(), authority)) };
        let held = held(&next).ok_or("the control plane has sent something else than a certificate of a data plane")?;
        held.connector(&self.0.clock).map_err(|error| error.to_string())?;
        write(&self.0.file, &next).map_err(|error| error.to_string())?;
        tracing::info!(until_ms = held.identity.end, "the certificate was renewed");
        self.0.held.store(Arc::new(held));
        Ok(())
    }
}

/// What is needed to join.
struct Joining<'a> {
    token: JoinToken,
    key: NodeKey,
    file: &'a Path,
}

impl<'a> Joining<'a> {
    /// Reads the token. The key is kept before it is used, so that who is cut off while joining can ask again with the same one.
    fn new(kept: Option<Bundle>, token_file: Option<&Path>, file: &'a Path) -> Result<Self, IdentityError> {
        let token_file = token_file.ok_or(IdentityError::NoToken)?;
        let failed = |path: &Path, source| IdentityError::File { path: path.to_owned(), source };
        let text = std::fs::read_to_string(token_file).map(Zeroizing::new);
        let text = text.map_err(|source| failed(token_file, source))?;
        let token = JoinToken::parse(&text).ok_or_else(|| IdentityError::TokenInvalid(token_file.to_owned()))?;
        let key = match kept {
            Some(kept) => NodeKey::from_pem(&kept.key)?,
            None => {
                let key = NodeKey::generate()?;
                let kept = Bundle { key: key.pem(), certificates: None };
                write(file, &kept).map_err(|source| failed(file, source))?;
                key
            }
        };
        Ok(Self { token, key, file })
    }

    /// Asks until there is an answer.
    async fn join(
        self,
        address: &Address,
        id: &str,
        clock: &Clock,
        stop: &CancellationToken,
    ) -> Result<Held, IdentityError> {
        let connector = Connector::pinned(self.token.pin, crate::time(clock))?;
        let request = EnrollDataPlaneRequest {
            join_token: self.token.text().to_string(),
            data_plane_id: id.to_owned(),
            certificate_request: self.key.request()?.into(),
        };
        let mut backoff = Backoff::default();
        let answer = loop {
            let reason = match ask(address, &connector, request.clone()).await {
                Ok(answer) => break answer,
                Err(Asked::Final(error)) => return Err(error),
                Err(Asked::Later(reason)) => reason,
            };
            let wait = backoff.failed();
            tracing::warn!(reason, wait_ms = wait.as_millis(), "cannot join yet");
            tokio::select! {
                () = stop.cancelled() => return Err(IdentityError::Stopped),
                () = tokio::time::sleep(wait) => {}
            }
        };
        let certificates = Some((answer.certificate.to_vec(), answer.authority.to_vec()));
        let kept = Bundle { key: self.key.pem(), certificates };
        let held = held(&kept).filter(|held| held.identity.id == id);
        let held =
            held.ok_or_else(|| IdentityError::Refused("its answer is no certificate for this data plane".to_owned()))?;
        write(self.file, &kept).map_err(|source| IdentityError::File { path: self.file.to_owned(), source })?;
        tracing::info!(data_plane = id, "joined the control plane");
        Ok(held)
    }
}

/// Why a question has no answer.
enum Asked {
    /// Asking again would end the same way.
    Final(IdentityError),
    Later(String),
}

async fn ask(
    address: &Address,
    connector: &Connector,
    request: EnrollDataPlaneRequest,
) -> Result<EnrollDataPlaneResponse, Asked> {
    let channel = address.dial(Some(connector)).await.map_err(|error| match is_distrust(&error) {
        true => Asked::Final(IdentityError::OtherControlPlane),
        false => Asked::Later(error.to_string()),
    })?;
    match EnrollmentServiceClient::new(channel).enroll_data_plane(request).await {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) => {
            let message = status.message().to_owned();
            let is_final = matches!(
                status.code(),
                Code::Unauthenticated
                    | Code::InvalidArgument
                    | Code::AlreadyExists
                    | Code::PermissionDenied
                    | Code::FailedPrecondition
                    | Code::Unimplemented
            );
            Err(if is_final { Asked::Final(IdentityError::Refused(message)) } else { Asked::Later(message) })
        }
    }
}

/// What is kept, if it is a whole identity.
fn held(kept: &Bundle) -> Option<Held> {
    let (certificate, authority) = kept.certificates.clone()?;
    let identity = Identity::of(&certificate.clone().into())?;
    Some(Held { key: kept.key.clone(), certificate, authority, identity })
}

fn read(file: &Path) -> Result<Option<Bundle>, IdentityError> {
    let failed = |source| IdentityError::File { path: file.to_owned(), source };
    match std::fs::read_to_string(file).map(Zeroizing::new) {
        Ok(text) => {
            let broken = || io::Error::new(io::ErrorKind::InvalidData, "it is not whole: delete it and join again");
            Bundle::parse(&text).map(Some).ok_or_else(|| failed(broken()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Writes the file beside itself and moves it there when it is whole, so that there is never half of one.
fn write(file: &Path, kept: &Bundle) -> io::Result<()> {
    let beside = file.with_extension("new");
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = std::fs::OpenOptions::new();
    let mut opened = options.write(true).create_new(true).mode(0o600).open(&beside)?;
    opened.write_all(kept.text().as_bytes())?;
    opened.sync_all()?;
    std::fs::rename(&beside, file)
}
