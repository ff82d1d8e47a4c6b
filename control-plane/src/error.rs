//! What can go wrong: why the control plane does not run ([`Error`]), and why it refuses a call ([`Failure`]), with the one
//! table from failures to gRPC. Each failure has two messages: one for the caller, and one for the log where there is more to
//! say. Neither ever holds a secret.

mod stranger;

use std::path::PathBuf;
use std::time::Duration;

use sluice_core::seal::Slot;
use sluice_core::validate::Violation;
use sluice_proto::admin::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, StatusExt as _};

pub(crate) use stranger::{CertificateProblem, KeyProblem, TokenProblem};

use crate::levels::LeftBehind;
use crate::store::StoreError;

/// The domain of every `google.rpc.ErrorInfo` of this server.
const DOMAIN: &str = "sluice.dev";

/// Most violations one answer carries; the details travel in HTTP/2 headers, which are limited.
const VIOLATIONS_MAX: usize = 100;
/// Longest description of a violation, in bytes, for the same reason.
const DESCRIPTION_BYTES_MAX: usize = 512;
/// Most bytes of field paths and descriptions one answer carries, for the same reason.
const DETAIL_BYTES_MAX: usize = 4096;

/// When to try again what is over in a moment.
const SOON: Duration = Duration::from_secs(1);
/// When to try again while a queue is full; as endpoints say it.
const INBOX_FULL_WAIT: Duration = Duration::from_secs(10);

/// What the caller reads of a test that is not made again.
const TEST_MADE: &str =
    "a test was made with this request_id; nothing is kept of its answer: test again with another one";
/// What the caller reads of a defect.
const DEFECT: &str = "a defect of the server; its log has the details under the request's id";

/// Why the control plane does not start or stopped running. The operator can mend all of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no master key, so no secret can be kept (K04).
    #[error(
        "there is no master key file at {path}: make one with `(umask 077; sluice master-key > {path})`, or start `sluice dev`, which makes its own. Without it secrets cannot be kept, so nothing \
         was started"
    )]
    MasterKeyMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The master key file does not hold a key ring.
    #[error("the master key file {path} cannot be used: {problem}")]
    MasterKeyInvalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never its content.
        problem: String,
    },
    /// No master key of the ring opens a key of the store.
    #[error(
        "no master key in the ring opens the data key of {object}: {data_keys} of them are wrapped by master key `{key_id}`, \
         so put that key back into the ring"
    )]
    MasterKeyWrong {
        /// Whose key cannot be opened.
        object: String,
        /// The master key it needs.
        key_id: String,
        /// How many data keys need it.
        data_keys: i64,
    },
    /// An API key file does not hold an API key.
    #[error("{path} does not hold an API key: restore it, or delete it, and a new key is made at the next start")]
    KeyFileInvalid {
        /// The file.
        path: PathBuf,
    },
    /// A control plane has the file open that is to be moved.
    #[error("{path} is in use: stop the control plane that works on it, and move it then")]
    SourceInUse {
        /// The file.
        path: PathBuf,
    },
    /// There is something where an installation is to be moved to.
    #[error(
        "the PostgreSQL database is not empty: make a new one (CREATE DATABASE), on which no control plane was started yet"
    )]
    TargetNotEmpty,
    /// What came is not what was sent.
    #[error(
        "what PostgreSQL keeps of table `{table}` is not what is in the file, so nothing was kept: is its encoding UTF8?"
    )]
    CopyDiffers {
        /// The table.
        table: String,
    },
    /// A file cannot be read or written.
    #[error("cannot use {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The configuration store cannot be used.
    #[error("cannot use the configuration store")]
    Store(#[from] StoreError),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Randomness(getrandom::Error),
    /// The certificate of the listener cannot be used.
    #[error(transparent)]
    Tls(#[from] sluice_tls::Error),
    /// API keys and secrets would leave this machine in plaintext.
    #[error(
        "{address} is reached from other machines, and without TLS API keys and secrets can be read on the way: give a certificate \
         (--tls, or --tls-certificate and --tls-key), listen on 127.0.0.1, or allow it (--allow-plaintext)"
    )]
    Plaintext {
        /// Where it would listen.
        address: std::net::SocketAddr,
    },
    /// The certificate authority cannot be used.
    #[error(transparent)]
    Authority(sluice_tls::authority::Unmade),
    /// The listener cannot be used.
    #[error("the listener cannot be used: {0}")]
    Listener(std::io::Error),
    /// The server ended.
    #[error("the gRPC server ended: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Why a call is refused.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No API key, or none that is in force.
    KeyInvalid(KeyProblem),
    /// No certificate of a data plane, or none that counts.
    CertificateInvalid(CertificateProblem),
    /// No join token, or none that counts.
    JoinTokenInvalid(TokenProblem),
    /// This needs TLS, which the server does not speak.
    TlsOff,
    /// The key lacks this permission.
    PermissionMissing(String),
    /// All rules that are broken.
    Fields(Vec<Violation>),
    /// All rules that keep the stored draft of `name` from being in force.
    Draft { name: String, violations: Vec<Violation> },
    /// This resource is not there.
    NotFound(String),
    /// This version was one, and is no longer kept.
    VersionNotKept(String),
    /// This resource is there already.
    Exists(String),
    /// This resource has another etag.
    EtagMismatch(String),
    /// `name` is used by `users`.
    InUse { name: String, users: Vec<String> },
    /// This resource is published, so it cannot be deleted.
    Published(String),
    /// This resource is not published.
    NotPublished(String),
    /// This resource is deleted.
    Deleted(String),
    /// The workspace `name` holds `documents`, and maybe more.
    WorkspaceNotEmpty { name: String, documents: Vec<String> },
    /// There is no secret in this slot of the field.
    SecretSlotEmpty { field: String, slot: Slot },
    /// There is another secret in this slot of the field.
    SecretSlotTaken { field: String, slot: Slot },
    /// The draft has other secrets for this field than the version in force.
    SecretUnpublished(String),
    /// The page token was not made by this server for this list.
    PageToken,
    /// The request id belongs to another request.
    RequestIdReused,
    /// The store failed.
    Store(StoreError),
    /// The server stops.
    Stopping,
    /// Another stream of the same data plane took over.
    Replaced,
    /// The data plane is to connect again; the text says why.
    Renewed(&'static str),
    /// The deadline of the server passed.
    TookTooLong(Duration),
    /// A limit on what is done at once is reached; it has this name.
    Overloaded(&'static str),
    /// A limit on what is done in a second is reached; it has this name, and there is room again after this time.
    TooFast(&'static str, Duration),
    /// The queue of this data plane is full.
    InboxFull(String),
    /// This data plane did not say whether it has taken the event with this id.
    EventUnknown { data_plane: String, event_id: String },
    /// A watcher took nothing for so long.
    WatcherTooSlow(Duration),
    /// A data plane took nothing of its configuration for so long.
    DataPlaneTooSlow(Duration),
    /// No data plane can do it; the text says which is needed.
    NoDataPlane(String),
    /// This data plane did not answer.
    DataPlaneAway(String),
    /// This data plane does not know the command.
    DataPlaneTooOld(String),
    /// This delivery has ended.
    DeliveryEnded(String),
    /// This delivery is being sent.
    DeliveryInWork(String),
    /// This delivery is no longer kept where it was.
    DeliveryNotKept(String),
    /// This is not the last capture of the incoming integration, or no request has come.
    NotCaptured(String),
    /// A test was made under this request id.
    TestMade,
    /// Connected data planes are too old for what would be in force.
    ConfigLevel(LeftBehind),
    /// The call could not be read.
    CallInvalid { code: Code, message: String },
    /// A defect; the text is for the log.
    Internal(String),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        failure.into_status()
    }
}

impl Failure {
    /// One broken rule of one field.
    pub(crate) fn field(field: &str, reason: &'static str, message: impl Into<String>) -> Self {
        Self::Fields(vec![violation(field, reason, message)])
    }

    /// The call was refused for who calls.
    pub(crate) fn is_about_access(&self) -> bool {
        matches!(
            self,
            Self::KeyInvalid(_) | Self::CertificateInvalid(_) | Self::PermissionMissing(_) | Self::NotFound(_)
        )
    }

    /// The status for the caller. Logs the failure, once, in the span of the call.
    pub(crate) fn into_status(self) -> Status {
        let (code, reason) = self.verdict();
        match &self {
            Self::Store(error) => tracing::error!(error = %chain(error), "the store failed"),
            Self::Internal(detail) => tracing::error!(detail, "a defect"),
            Self::KeyInvalid(_)
            | Self::CertificateInvalid(_)
            | Self::JoinTokenInvalid(_)
            | Self::TlsOff
            | Self::PermissionMissing(_)
            | Self::Fields(_)
            | Self::Draft { .. }
            | Self::NotFound(_)
            | Self::VersionNotKept(_)
            | Self::Exists(_)
            | Self::EtagMismatch(_)
            | Self::InUse { .. }
            | Self::Published(_)
            | Self::NotPublished(_)
            | Self::Deleted(_)
            | Self::WorkspaceNotEmpty { .. }
            | Self::SecretSlotEmpty { .. }
            | Self::SecretSlotTaken { .. }
            | Self::SecretUnpublished(_)
            | Self::PageToken
            | Self::RequestIdReused
            | Self::Stopping
            | Self::Replaced
            | Self::Renewed(_)
            | Self::TookTooLong(_)
            | Self::Overloaded(_)
            | Self::TooFast(..)
            | Self::InboxFull(_)
            | Self::EventUnknown { .. }
            | Self::WatcherTooSlow(_)
            | Self::DataPlaneTooSlow(_)
            | Self::NoDataPlane(_)
            | Self::DataPlaneAway(_)
            | Self::DataPlaneTooOld(_)
            | Self::DeliveryEnded(_)
            | Self::DeliveryInWork(_)
            | Self::DeliveryNotKept(_)
            | Self::NotCaptured(_)
            | Self::TestMade
            | Self::ConfigLevel(_)
            | Self::CallInvalid { .. } => tracing::info!(reason = reason.as_str_name(), "refused"),
        }
        let mut details = ErrorDetails::new();
        details.set_error_info(reason.as_str_name(), DOMAIN, std::collections::HashMap::new());
        self.describe(&mut details);
        Status::with_error_details(code, self.message(), details)
    }

    /// The one table: which code, which reason.
    fn verdict(&self) -> (Code, ErrorReason) {
        match self {
            Self::KeyInvalid(_) => (Code::Unauthenticated, ErrorReason::ApiKeyInvalid),
            Self::CertificateInvalid(CertificateProblem::OtherId | CertificateProblem::OtherWorkspace) => {
                (Code::PermissionDenied, ErrorReason::CertificateInvalid)
            }
            Self::CertificateInvalid(_) => (Code::Unauthenticated, ErrorReason::CertificateInvalid),
            Self::JoinTokenInvalid(_) => (Code::Unauthenticated, ErrorReason::JoinTokenInvalid),
            Self::TlsOff => (Code::FailedPrecondition, ErrorReason::TlsOff),
            Self::PermissionMissing(_) => (Code::PermissionDenied, ErrorReason::PermissionMissing),
            Self::Fields(_) | Self::Draft { .. } => (Code::InvalidArgument, ErrorReason::FieldsInvalid),
            Self::NotFound(_) | Self::VersionNotKept(_) => (Code::NotFound, ErrorReason::ResourceNotFound),
            Self::Exists(_) => (Code::AlreadyExists, ErrorReason::ResourceExists),
            Self::EtagMismatch(_) => (Code::Aborted, ErrorReason::EtagMismatch),
            Self::InUse { .. } | Self::Published(_) => (Code::FailedPrecondition, ErrorReason::ResourceInUse),
            Self::NotPublished(_) => (Code::FailedPrecondition, ErrorReason::NotPublished),
            Self::Deleted(_) => (Code::FailedPrecondition, ErrorReason::ResourceDeleted),
            Self::WorkspaceNotEmpty { .. } => (Code::FailedPrecondition, ErrorReason::WorkspaceNotEmpty),
            Self::SecretSlotEmpty { .. } => (Code::FailedPrecondition, ErrorReason::SecretSlotEmpty),
            Self::SecretSlotTaken { .. } => (Code::FailedPrecondition, ErrorReason::SecretSlotTaken),
            Self::SecretUnpublished(_) => (Code::FailedPrecondition, ErrorReason::SecretUnpublished),
            Self::PageToken => (Code::InvalidArgument, ErrorReason::PageTokenInvalid),
            Self::RequestIdReused => (Code::InvalidArgument, ErrorReason::RequestIdReused),
            Self::Store(StoreError::Unavailable(_)) => (Code::Unavailable, ErrorReason::StoreUnavailable),
            Self::Store(StoreError::Corrupt(_) | StoreError::Newer { .. }) => {
                (Code::Internal, ErrorReason::InternalError)
            }
            Self::Store(StoreError::Regressed { .. }) => (Code::FailedPrecondition, ErrorReason::StoreRegressed),
            Self::Stopping => (Code::Unavailable, ErrorReason::ServerStopping),
            Self::Replaced => (Code::Aborted, ErrorReason::StreamReplaced),
            Self::Renewed(_) => (Code::Unavailable, ErrorReason::StreamRenewed),
            Self::TookTooLong(_) => (Code::DeadlineExceeded, ErrorReason::TookTooLong),
            Self::Overloaded(_) | Self::TooFast(..) => (Code::ResourceExhausted, ErrorReason::Overloaded),
            Self::InboxFull(_) => (Code::ResourceExhausted, ErrorReason::InboxFull),
            Self::EventUnknown { .. } => (Code::Unavailable, ErrorReason::DataPlaneUnavailable),
            Self::WatcherTooSlow(_) | Self::DataPlaneTooSlow(_) => {
                (Code::ResourceExhausted, ErrorReason::WatcherTooSlow)
            }
            Self::NoDataPlane(_) => (Code::FailedPrecondition, ErrorReason::NoDataPlane),
            Self::DataPlaneAway(_) => (Code::Unavailable, ErrorReason::DataPlaneUnavailable),
            Self::DataPlaneTooOld(_) => (Code::FailedPrecondition, ErrorReason::DataPlaneTooOld),
            Self::DeliveryEnded(_) => (Code::FailedPrecondition, ErrorReason::DeliveryEnded),
            Self::DeliveryInWork(_) => (Code::FailedPrecondition, ErrorReason::DeliveryInWork),
            Self::DeliveryNotKept(_) => (Code::FailedPrecondition, ErrorReason::DeliveryNotKept),
            Self::NotCaptured(_) => (Code::FailedPrecondition, ErrorReason::NotCaptured),
            Self::TestMade => (Code::AlreadyExists, ErrorReason::TestMade),
            Self::ConfigLevel(_) => (Code::FailedPrecondition, ErrorReason::ConfigLevelUnsupported),
            Self::CallInvalid { code, .. } => (*code, ErrorReason::CallInvalid),
            Self::Internal(_) => (Code::Internal, ErrorReason::InternalError),
        }
    }

    /// What the caller reads.
    fn message(&self) -> String {
        match self {
            Self::KeyInvalid(problem) => problem.message().to_owned(),
            Self::CertificateInvalid(problem) => problem.message().to_owned(),
            Self::JoinTokenInvalid(problem) => problem.message().to_owned(),
            Self::TlsOff => "data planes join over TLS: start the control plane with --tls or a certificate".to_owned(),
            Self::PermissionMissing(permission) => format!("the API key lacks the permission `{permission}`"),
            Self::Fields(violations) => summary(violations),
            Self::Draft { name, violations } => format!("`{name}` cannot be put in force: {}", summary(violations)),
            Self::NotFound(name) => format!("`{}` does not exist", short(name)),
            Self::VersionNotKept(name) => format!("`{name}` is no longer kept: the newest versions of it are"),
            Self::Exists(name) => format!("`{name}` exists already"),
            Self::EtagMismatch(name) => format!("`{name}` was changed in between: read it again"),
            Self::InUse { name, users } => format!("`{name}` is used by {}", users.join(", ")),
            Self::Published(name) => format!("`{name}` is published: unpublish it first"),
            Self::NotPublished(name) if kind_of(name) == "workspaces" => {
                format!("nothing of `{name}` is published yet")
            }
            Self::NotPublished(name) => format!("`{name}` is not published"),
            Self::Deleted(name) => format!("`{name}` is deleted: undelete it first, or wait until it is purged"),
            Self::WorkspaceNotEmpty { name, documents } => format!("`{name}` still holds {}", documents.join(", ")),
            Self::SecretSlotEmpty { field, slot } => format!("`{field}` has no {} secret", slot.code()),
            Self::SecretSlotTaken { field, slot } => {
                format!("`{field}` has a {} secret already: retire it first", slot.code())
            }
            Self::SecretUnpublished(field) => {
                format!("the draft has other secrets for `{field}` than the version in force: publish it first")
            }
            Self::PageToken => "the page token is not one of this list".to_owned(),
            Self::RequestIdReused => "the request_id was used before with another request".to_owned(),
            Self::Store(StoreError::Unavailable(_)) => {
                "the configuration store did not answer; nothing was changed; try again".to_owned()
            }
            Self::Stopping => "the server is stopping: call again".to_owned(),
            Self::Store(set_back @ StoreError::Regressed { .. }) => set_back.to_string(),
            Self::Replaced => "another stream of this data plane took over".to_owned(),
            Self::Renewed(why) => format!("{why}: connect again"),
            Self::TookTooLong(limit) => format!("the call took longer than {} s; nothing was changed", limit.as_secs()),
            Self::Overloaded(limit) => format!("the limit `{limit}` is reached: try again later"),
            Self::TooFast(limit, wait) => {
                format!("the limit `{limit}` is reached: try again in {} ms", wait.as_millis().max(1))
            }
            Self::InboxFull(id) => {
                format!("the queue of data plane `{id}` is full; nothing was taken: try again later")
            }
            Self::EventUnknown { data_plane, event_id } => event_unknown(data_plane, event_id),
            Self::WatcherTooSlow(patience) => watcher_too_slow(*patience),
            Self::DataPlaneTooSlow(patience) => {
                format!("nothing was taken for {} s: connect again, what was missed comes then", patience.as_secs())
            }
            Self::NoDataPlane(why) => why.clone(),
            Self::DataPlaneAway(id) => {
                format!("data plane `{id}` did not answer; whether it was done is not known: call again")
            }
            Self::DataPlaneTooOld(id) => format!("data plane `{id}` is too old for this command: update it"),
            Self::DeliveryEnded(name) => format!("`{name}` has ended: replay it instead"),
            Self::DeliveryInWork(name) => format!("`{name}` is being sent right now: call again when it was"),
            Self::DeliveryNotKept(name) => {
                format!("`{name}` is no longer kept by its data plane, or has just ended: read it again")
            }
            Self::NotCaptured(name) => {
                format!("`{name}` has not captured this request: start a capture, or read the last one again")
            }
            Self::TestMade => TEST_MADE.to_owned(),
            Self::ConfigLevel(left_behind) => left_behind.to_string(),
            Self::CallInvalid { message, .. } => short(message),
            Self::Store(StoreError::Corrupt(_) | StoreError::Newer { .. }) | Self::Internal(_) => DEFECT.to_owned(),
        }
    }

    /// What keeps `name` as it is: each of these does this to it.
    fn held(&self, details: &mut ErrorDetails, kind: &str, name: &str, by: &[String], does: &str) {
        let violation = |one: &String| PreconditionViolation::new(kind, one, format!("{does} {name}"));
        details.set_resource_info(kind_of(name), name, "", self.message());
        details.set_precondition_failure(by.iter().map(violation).collect::<Vec<_>>());
    }

    /// The details a program reads.
    fn describe(&self, details: &mut ErrorDetails) {
        let precondition = |kind: &str, subject: &str, description: String| {
            vec![PreconditionViolation::new(kind, subject, description)]
        };
        match self {
            Self::Fields(violations) => {
                details.set_bad_request(fields(violations));
            }
            Self::Draft { name, violations } => {
                // The caller sent a name only: it must read which draft the fields are of. The text is the status's.
                details.set_resource_info(kind_of(name), name, "", "");
                details.set_bad_request(fields(violations));
            }
            Self::NotFound(name) | Self::VersionNotKept(name) | Self::Exists(name) | Self::EtagMismatch(name) => {
                details.set_resource_info(kind_of(name), short(name), "", self.message());
            }
            Self::InUse { name, users } => self.held(details, "IN_USE", name, users, "uses"),
            Self::WorkspaceNotEmpty { name, documents } => {
                self.held(details, "NOT_EMPTY", name, documents, "belongs to");
            }
            Self::Published(name) => {
                details.set_precondition_failure(precondition("PUBLISHED", name, self.message()));
            }
            Self::NotPublished(subject)
            | Self::Deleted(subject)
            | Self::SecretSlotEmpty { field: subject, .. }
            | Self::SecretSlotTaken { field: subject, .. }
            | Self::SecretUnpublished(subject)
            | Self::DeliveryEnded(subject)
            | Self::DeliveryInWork(subject)
            | Self::DeliveryNotKept(subject)
            | Self::NotCaptured(subject) => {
                let kind = self.verdict().1.as_str_name();
                details.set_precondition_failure(precondition(kind, subject, self.message()));
            }
            Self::ConfigLevel(left_behind) => {
                details.set_precondition_failure(left_behind.violations());
            }
            Self::PageToken | Self::RequestIdReused => {
                let field = if matches!(self, Self::PageToken) { "page_token" } else { "request_id" };
                let field = FieldViolation { field: field.to_owned(), description: self.message(), ..none() };
                details.set_bad_request(vec![field]);
            }
            Self::TooFast(_, wait) => {
                details.set_retry_info(Some(*wait));
            }
            Self::InboxFull(_) => {
                details.set_retry_info(Some(INBOX_FULL_WAIT));
            }
            Self::Overloaded(_) | Self::Stopping | Self::DataPlaneAway(_) | Self::EventUnknown { .. } => {
                details.set_retry_info(Some(SOON));
            }
            Self::KeyInvalid(_)
            | Self::CertificateInvalid(_)
            | Self::JoinTokenInvalid(_)
            | Self::TlsOff
            | Self::PermissionMissing(_)
            | Self::Store(_)
            | Self::Replaced
            | Self::Renewed(_)
            | Self::TookTooLong(_)
            | Self::WatcherTooSlow(_)
            | Self::DataPlaneTooSlow(_)
            | Self::NoDataPlane(_)
            | Self::DataPlaneTooOld(_)
            | Self::TestMade
            | Self::CallInvalid { .. }
            | Self::Internal(_) => {}
        }
    }
}

fn watcher_too_slow(patience: Duration) -> String {
    let after = "watch again from the last resume token, or send again what has no answer";
    format!("nothing was taken for {} s: {after}", patience.as_secs())
}

fn event_unknown(data_plane: &str, event_id: &str) -> String {
    format!(
        "data plane `{data_plane}` did not answer; whether it has taken the event is not known: submit it again with \
         event_id `{event_id}`, and it counts once"
    )
}

/// One broken rule of one field.
pub(crate) fn violation(field: &str, reason: &'static str, message: impl Into<String>) -> Violation {
    Violation { field: field.to_owned(), reason, message: message.into(), line: 0, column: 0 }
}

/// An error with everything behind it, on one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

fn none() -> FieldViolation {
    FieldViolation::new("", "")
}

/// The first of these in full, and how many more there are.
fn summary(violations: &[Violation]) -> String {
    match violations {
        [one] => short(&one.to_string()),
        [first, rest @ ..] => format!("{} (and {} more broken rules)", short(&first.to_string()), rest.len()),
        [] => "a field breaks a rule".to_owned(),
    }
}

/// As many violations as an answer can carry; the last says how many there is no room for.
fn fields(violations: &[Violation]) -> Vec<FieldViolation> {
    let mut room = DETAIL_BYTES_MAX;
    let mut fields = Vec::new();
    for one in violations.iter().take(VIOLATIONS_MAX) {
        let field = FieldViolation {
            field: short(&one.field),
            description: short(&one.message),
            reason: one.reason.to_owned(),
            ..none()
        };
        let size = field.field.len() + field.description.len() + field.reason.len();
        let Some(left) = room.checked_sub(size) else { break };
        room = left;
        fields.push(field);
    }
    let left_out = violations.len() - fields.len();
    if left_out > 0 {
        let description = format!("{left_out} more broken rules do not fit into this answer");
        fields.push(FieldViolation { description, reason: "MORE".to_owned(), ..none() });
    }
    fields
}

/// The kind of resource a name tells of: `workspaces/w/connections/c` is of `connections`.
fn kind_of(name: &str) -> &str {
    name.split('/').step_by(2).filter(|part| part.len() <= 32).last().unwrap_or_default()
}

/// Texts that may come from callers are cut in messages and details.
fn short(text: &str) -> String {
    if text.len() <= DESCRIPTION_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=DESCRIPTION_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_violations_are_told_and_what_does_not_fit_is_counted() {
        let few: Vec<_> = (0..20).map(|index| violation(&format!("f[{index}]"), "REQUIRED", "is required")).collect();
        let status = Failure::Fields(few).into_status();
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations.len(), 20);
        assert_eq!(details.error_info().unwrap().reason, "FIELDS_INVALID");
        assert_eq!(details.error_info().unwrap().domain, "sluice.dev");

        let many: Vec<_> = (0..500).map(|index| violation(&format!("f[{index}]"), "LONG", "ä".repeat(600))).collect();
        let status = Failure::Fields(many).into_status();
        let told = status.get_error_details().bad_request().unwrap().field_violations.clone();
        let last = told.last().unwrap();
        assert_eq!(last.reason, "MORE");
        assert!(last.description.starts_with(&format!("{} more", 501 - told.len())));
        assert!(status.details().len() < 8192, "{}", status.details().len());
    }

    #[test]
    fn the_kind_of_a_name() {
        assert_eq!(kind_of("workspaces/w"), "workspaces");
        assert_eq!(kind_of("workspaces/w/connections/c"), "connections");
        assert_eq!(kind_of(""), "");
    }

    #[test]
    fn every_reason_of_the_contract_but_the_unused_one_has_a_failure() {
        let failures = [
            Failure::KeyInvalid(KeyProblem::Missing),
            Failure::PermissionMissing(String::new()),
            Failure::Fields(Vec::new()),
            Failure::NotFound(String::new()),
            Failure::Exists(String::new()),
            Failure::EtagMismatch(String::new()),
            Failure::Published(String::new()),
            Failure::NotPublished(String::new()),
            Failure::Deleted(String::new()),
            Failure::WorkspaceNotEmpty { name: String::new(), documents: Vec::new() },
            Failure::SecretSlotEmpty { field: String::new(), slot: Slot::Staged },
            Failure::SecretSlotTaken { field: String::new(), slot: Slot::Staged },
            Failure::SecretUnpublished(String::new()),
            Failure::PageToken,
            Failure::RequestIdReused,
            Failure::Store(StoreError::Unavailable(sqlx::Error::PoolTimedOut)),
            Failure::Internal(String::new()),
            Failure::Stopping,
            Failure::Replaced,
            Failure::TookTooLong(Duration::ZERO),
            Failure::Overloaded(""),
            Failure::CallInvalid { code: Code::OutOfRange, message: String::new() },
            Failure::WatcherTooSlow(Duration::ZERO),
            Failure::NoDataPlane(String::new()),
            Failure::DataPlaneAway(String::new()),
            Failure::DataPlaneTooOld(String::new()),
            Failure::DeliveryEnded(String::new()),
            Failure::DeliveryInWork(String::new()),
            Failure::DeliveryNotKept(String::new()),
        ];
        let mut told: Vec<i32> = failures.iter().map(|failure| failure.verdict().1 as i32).collect();
        told.sort_unstable();
        assert_eq!(told, (1..=29).collect::<Vec<_>>());
        assert!(ErrorReason::try_from(30).is_err(), "a new reason needs a failure");
    }
}
