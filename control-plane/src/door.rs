//! Where every call comes in: an id for its log lines and its answer, the caller's key, the permission the method names in
//! the contract, the workspace the key is for, a place among the calls that are answered at once, a deadline, and an entry in the audit
//! log for who is turned away. What is behind it can rely on all of it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt as _};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, BodyStream, Full, LengthLimitError, Limited, StreamBody};
use ipnet::IpNet;
use sluice_proto::admin::v1::{AuditOutcome, ErrorReason};
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tower::{Layer, Service};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::MESSAGE_BYTES_MAX;
use crate::access::{Access, authenticate};
use crate::audit::{self, Attempt};
use crate::clock::UnixMillis;
use crate::contract::{Method, SYNC};
use crate::crash::Moment;
use crate::enrolment;
use crate::error::{CertificateProblem, Failure, chain};
use crate::metrics::StoreUse;
use crate::names::workspace_name;
use crate::shared::Shared;
use crate::sockets::{Peer, Shown};
use crate::store::StoreError;

/// The header and metadata entry that carries the id of a call.
pub(crate) const REQUEST_ID: &str = "x-request-id";
/// How a data plane joins, and how it gets its next certificate.
const ENROLL: &str = "/sluice.sync.v1.EnrollmentService/EnrollDataPlane";
const RENEW: &str = "/sluice.sync.v1.EnrollmentService/RenewDataPlane";
const DETAILS: &str = "grpc-status-details-bin";
/// What comes before a message: whether it is compressed, and its length.
pub(crate) const FRAME_BYTES: usize = 5;
/// How often is written down that a key is used, in milliseconds.
const USE_NOTED_EVERY: i64 = 60_000;
/// Keys, each from a network, whose last use is remembered.
const USES_MAX: usize = 10_000;

/// Puts the door before a service.
#[derive(Clone)]
pub(crate) struct Door {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    watch: Arc<Watch>,
}

/// What the door remembers of callers.
#[derive(Default)]
struct Watch {
    /// When each key was used last from each network, as far as that was written down; at most [`USES_MAX`].
    used: Mutex<HashMap<(String, Option<IpNet>), UnixMillis>>,
}

impl Door {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let places = Arc::new(Semaphore::new(shared.settings.limits.calls));
        Self { shared, places, watch: Arc::default() }
    }

    /// Lets a call in or refuses it. The caller becomes an extension of the request.
    async fn admit(&self, request: &mut Request<Body>, visit: &mut Visit) -> Result<(), Failure> {
        let path = visit.attempt.method.clone();
        // Load balancers ask for health without a key; it tells nothing but whether the server runs.
        if path.starts_with("/grpc.health.v1.Health/") {
            return Ok(());
        }
        // Who joins has neither a key nor a certificate yet; its join token is looked at by the method.
        if path == ENROLL {
            visit.changes = true;
            request
                .extensions_mut()
                .insert(Newcomer { attempt: visit.attempt.clone(), settled: visit.settled.clone() });
            return Ok(());
        }
        let access = match request.extensions().get::<Peer>().and_then(Peer::certificate) {
            Some(shown) => self.identify(shown, &path).await?,
            None => self.recognise(request.headers(), &visit.attempt).await?,
        };
        tracing::Span::current().record("key", &access.key_id).record("principal", &access.principal);
        visit.access = Some(access.clone());
        // Reflection shows the contract, which is public; any key will do.
        if !path.starts_with("/grpc.reflection.v1.ServerReflection/")
            && !path.starts_with("/grpc.reflection.v1alpha.ServerReflection/")
        {
            let method = self.shared.contract.method(&path);
            let method = method.ok_or_else(|| unreadable(Code::Unimplemented, "there is no such method"))?;
            visit.changes = method.changes;
            if !access.may(method.permission) {
                return Err(Failure::PermissionMissing(method.permission.to_owned()));
            }
            // A key that all data planes share is for the one machine: where they have certificates, it opens nothing.
            let is_sync = method.permission.starts_with(SYNC);
            if is_sync && self.shared.settings.tls.is_some() && access.rights.identity().is_none() {
                return Err(Failure::CertificateInvalid(CertificateProblem::Missing));
            }
            self.confine(&access, method, request, visit).await?;
        }
        let (attempt, settled) = (visit.attempt.clone(), visit.settled.clone());
        request.extensions_mut().insert(Caller { access, attempt, settled });
        Ok(())
    }

    /// Finds the caller by the certificate of its connection, whatever else it shows (A11).
    async fn identify(&self, shown: &Shown, path: &str) -> Result<Access, Failure> {
        match shown {
            Shown::DataPlane(identity) => {
                enrolment::authenticate(&self.shared, identity, path == RENEW).await.map(Access::of_data_plane)
            }
            Shown::Foreign => Err(Failure::CertificateInvalid(CertificateProblem::Foreign)),
        }
    }

    /// Finds the caller by its key. Wrong ones are counted by where they come from.
    async fn recognise(&self, headers: &HeaderMap, attempt: &Attempt) -> Result<Access, Failure> {
        let source = attempt.source;
        let now = self.shared.settings.clock.now();
        match authenticate(&self.shared.store, headers, source, now).await {
            Ok(access) => {
                self.note_use(&access, attempt, now);
                Ok(access)
            }
            Err(Failure::KeyInvalid(problem)) => {
                self.shared.metrics.failed_key(problem);
                let per_minute = self.shared.settings.limits.failed_keys_per_minute;
                let within = self.shared.failed_keys.count(source, per_minute, now);
                Err(if within { Failure::KeyInvalid(problem) } else { Failure::Overloaded("failed_keys_per_minute") })
            }
            Err(failure) => Err(failure),
        }
    }

    /// Has written down that a key is used, at most once a minute from each network and without making the call wait.
    fn note_use(&self, access: &Access, attempt: &Attempt, now: UnixMillis) {
        let network = attempt.source.map(network);
        let mut used = self.watch.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= USES_MAX {
            // What is forgotten is read from the store again.
            used.clear();
        }
        let known = used.insert((access.key_id.clone(), network), now);
        if let Some(last) = known.filter(|last| now - last < USE_NOTED_EVERY) {
            used.insert((access.key_id.clone(), network), last);
            return;
        }
        drop(used);
        // Since the start nothing is known of a use; the store may know of one a moment ago.
        let is_recent = now - access.last_use_time < USE_NOTED_EVERY;
        let note = Use { shared: self.shared.clone(), access: access.clone(), attempt: attempt.clone(), is_recent };
        tokio::spawn(
            async move {
                if let Err(error) = note.write_down(network, now).await {
                    tracing::warn!(error = %chain(&error), "cannot write down that an API key was used");
                }
            }
            .in_current_span(),
        );
    }

    /// Keeps the key of a workspace within it (I10): what is elsewhere is not there for it (A02).
    async fn confine(
        &self,
        access: &Access,
        method: &Method,
        request: &mut Request<Body>,
        visit: &mut Visit,
    ) -> Result<(), Failure> {
        let missing = || Failure::PermissionMissing(method.permission.to_owned());
        if method.takes_stream && !method.names_resource() {
            return if access.workspace.is_none() { Ok(()) } else { Err(missing()) };
        }
        if let Some(Unreadable(why)) = request.extensions().get() {
            return Err(unreadable(Code::InvalidArgument, why));
        }
        let body = std::mem::take(request.body_mut());
        let (body, message) = if method.takes_stream { read_first(body).await? } else { read(body).await? };
        let asked =
            method.read(message).ok_or_else(|| unreadable(Code::InvalidArgument, "the message cannot be read"))?;
        *request.body_mut() = body;
        // Who only tries changes nothing.
        visit.changes &= !asked.validate_only;
        visit.attempt.resource.clone_from(&asked.resource);
        visit.attempt.fields = asked.fields;
        visit.attempt.request_id = asked.request_id;
        let Some(workspace) = &access.workspace else { return Ok(()) };
        // What is about the whole server is for keys of the server.
        let resource = asked.resource.ok_or_else(missing)?;
        let own = workspace_name(workspace);
        let within = resource.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if within { Ok(()) } else { Err(Failure::NotFound(resource)) }
    }

    async fn answer<S>(&self, mut inner: S, mut request: Request<Body>, id: &str) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let Ok(_place) = self.places.try_acquire() else { return refuse(Failure::Overloaded("calls")) };
        let limit = self.shared.settings.limits.call_time;
        let mut visit = Visit::new(&request, id);
        let settled = visit.settled.clone();
        let answered = async {
            match self.admit(&mut request, &mut visit).await {
                Ok(()) => inner.call(request).await.unwrap_or_else(|never| match never {}),
                Err(failure) => {
                    visit.turned_away = failure.is_about_access();
                    refuse(failure)
                }
            }
        };
        let response = explain(in_time(answered, limit, &settled).await);
        let refused = Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok);
        match self.write_down(&visit, refused).await {
            Ok(()) => response,
            Err(failure) => refuse(failure),
        }
    }

    /// Writes into the audit log who was turned away, which change was refused, and a change that did not write itself down (A09).
    async fn write_down(&self, visit: &Visit, status: Option<Status>) -> Result<(), Failure> {
        let outcome = match status {
            // What is written down as done and failed after it, as a test may, is not refused.
            Some(_) if visit.settled.is_written() => return Ok(()),
            Some(_) if visit.turned_away || visit.changes => AuditOutcome::Refused,
            None if visit.changes && !visit.settled.is_settled() => AuditOutcome::Done,
            Some(_) | None => return Ok(()),
        };
        let reason =
            status.and_then(|status| ErrorReason::from_str_name(&status.get_error_details().error_info()?.reason));
        let mut entry = visit.attempt.entry(visit.access.as_ref(), outcome);
        entry.reason = reason.unwrap_or_default().into();
        let mut tx = self.shared.store.write().await?;
        let log = visit.attempt.log(&mut tx, visit.access.as_ref()).await?;
        audit::append(&mut tx, &self.shared.secrets, &log, entry, self.shared.settings.clock.now()).await?;
        self.shared.settings.reached(Moment::RefusalWritten, &visit.attempt.method);
        tx.commit().await?;
        self.shared.metrics.audit_entry(outcome);
        Ok(())
    }

    /// Counts a call that was answered.
    fn count(&self, path: &str, response: &Response<Body>, began: Instant) {
        let method = self.shared.contract.method(path).map(|method| method.name);
        let status = Status::from_header_map(response.headers());
        let code = status.as_ref().map_or(Code::Ok, Status::code);
        self.shared.metrics.call(method, code, began.elapsed());
        let reason = |status: &Status| status.get_error_details().error_info().map(|info| info.reason.clone());
        let unavailable = status.filter(|status| status.code() == Code::Unavailable).and_then(|status| reason(&status));
        if unavailable.is_some_and(|reason| reason == ErrorReason::StoreUnavailable.as_str_name()) {
            self.shared.metrics.store_failed(StoreUse::Call);
        }
    }
}

/// The use of a key, to be written down.
struct Use {
    shared: Arc<Shared>,
    access: Access,
    attempt: Attempt,
    /// When it was used last is known well enough.
    is_recent: bool,
}

impl Use {
    /// Writes down when the key was used and, in the audit log, that it is used from a network of which nothing was known (A09).
    async fn write_down(self, network: Option<IpNet>, now: UnixMillis) -> Result<(), StoreError> {
        let Self { shared, access, attempt, is_recent } = self;
        let mut tx = shared.store.write().await?;
        if !is_recent {
            tx.api_key_used(&access.key_id, now).await?;
        }
        let network = network.map(|network| network.to_string());
        let is_new = match &network {
            Some(network) => tx.api_key_network(&access.key_id, network, now).await?,
            None => false,
        };
        if is_new {
            let attempt = Attempt { resource: Some(access.key_name()), ..attempt };
            let entry = attempt.entry(Some(&access), AuditOutcome::NewNetwork);
            let log = attempt.log(&mut tx, Some(&access)).await?;
            audit::append(&mut tx, &shared.secrets, &log, entry, now).await?;
        }
        tx.commit().await?;
        if is_new {
            shared.metrics.audit_entry(AuditOutcome::NewNetwork);
        }
        Ok(())
    }
}

/// Who has an address has, for all that is known, those beside it.
fn network(source: IpAddr) -> IpNet {
    let source = source.to_canonical();
    let bits = if source.is_ipv4() { 24 } else { 48 };
    IpNet::new(source, bits).map_or_else(|_impossible| source.into(), |network| network.trunc())
}

/// A data plane that asks to join; an extension of its request.
#[derive(Clone, Debug)]
pub(crate) struct Newcomer {
    pub(crate) attempt: Attempt,
    pub(crate) settled: Settled,
}

/// Why a request could not be translated into a call; an extension of the call without a message that stands for it.
#[derive(Clone, Debug)]
pub(crate) struct Unreadable(pub(crate) String);

/// What the door knows of a call.
struct Visit {
    attempt: Attempt,
    /// The caller, once it is known.
    access: Option<Access>,
    /// The call is to change something.
    changes: bool,
    /// It was refused for who calls.
    turned_away: bool,
    settled: Settled,
}

impl Visit {
    fn new(request: &Request<Body>, id: &str) -> Self {
        let source = request.extensions().get::<Peer>().map(Peer::ip);
        let attempt =
            Attempt { call_id: id.to_owned(), method: request.uri().path().to_owned(), source, ..Attempt::default() };
        Self { attempt, access: None, changes: false, turned_away: false, settled: Settled::default() }
    }
}

/// How far the change of a call has come, for the audit log and the deadline.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settled(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    begun: AtomicBool,
    settled: AtomicBool,
}

impl Settled {
    /// The change is being made durable: it can no longer be given up.
    pub(crate) fn begin(&self) {
        self.0.begun.store(true, Ordering::Release);
    }

    /// The audit log has, or needs, no further entry: the change has written one, or the call changed nothing.
    pub(crate) fn settle(&self) {
        self.0.settled.store(true, Ordering::Release);
    }

    fn is_begun(&self) -> bool {
        self.0.begun.load(Ordering::Acquire)
    }

    /// The change was made durable, with its entry.
    fn is_written(&self) -> bool {
        self.is_begun() && self.is_settled()
    }

    fn is_settled(&self) -> bool {
        self.0.settled.load(Ordering::Acquire)
    }
}

/// The answer to a call. One that takes too long is dropped, and its transaction with it; but a change that is being made durable may
/// be done however its caller is answered, so its end is waited for (A20).
async fn in_time(answered: impl Future<Output = Response<Body>>, limit: Duration, settled: &Settled) -> Response<Body> {
    let mut answered = pin!(answered);
    match tokio::time::timeout(limit, &mut answered).await {
        Ok(response) => response,
        Err(_) if settled.is_begun() => answered.await,
        Err(_) => refuse(Failure::TookTooLong(limit)),
    }
}

/// Reads the first message of a stream, which says what it is about. The body is as it was.
async fn read_first(mut body: Body) -> Result<(Body, Bytes), Failure> {
    let mut bytes = BytesMut::new();
    let length = loop {
        if bytes.len() > FRAME_BYTES + MESSAGE_BYTES_MAX {
            return Err(too_large());
        }
        match message(&bytes) {
            Ok(message) => break message.len(),
            Err(Partial::Compressed) => return Err(compressed()),
            Err(Partial::Cut | Partial::Missing) => {}
        }
        match body.frame().await {
            Some(Ok(frame)) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Some(Err(_gone)) => return Err(unreadable(Code::Cancelled, "the call ended before its message")),
            None => return Err(unreadable(Code::InvalidArgument, "the call has no message")),
        }
    };
    let bytes = bytes.freeze();
    let message = bytes.slice(FRAME_BYTES..FRAME_BYTES + length);
    let first = stream::iter([Ok::<_, Status>(Frame::data(bytes))]);
    Ok((Body::new(StreamBody::new(first.chain(BodyStream::new(body)))), message))
}

/// Why there is no message yet.
enum Partial {
    Missing,
    Compressed,
    Cut,
}

/// The first message in these bytes.
fn message(bytes: &[u8]) -> Result<&[u8], Partial> {
    let (frame, rest) = bytes.split_at_checked(FRAME_BYTES).ok_or(Partial::Missing)?;
    let [compressed, length @ ..] = frame else { return Err(Partial::Missing) };
    if *compressed != 0 {
        return Err(Partial::Compressed);
    }
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    rest.get(..length).ok_or(Partial::Cut)
}

fn compressed() -> Failure {
    unreadable(Code::Unimplemented, "compressed messages are not taken")
}

fn too_large() -> Failure {
    let message = format!("the message is larger than {MESSAGE_BYTES_MAX} bytes");
    Failure::CallInvalid { code: Code::OutOfRange, message }
}

/// Reads the one message of a call. The body is as it was.
async fn read(body: Body) -> Result<(Body, Bytes), Failure> {
    let collected = Limited::new(body, FRAME_BYTES + MESSAGE_BYTES_MAX).collect().await;
    let bytes = match collected {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(too_large()),
        Err(_gone) => return Err(unreadable(Code::Cancelled, "the call ended before its message")),
    };
    let message = message(&bytes).map(|message| bytes.slice_ref(message)).map_err(|partial| match partial {
        Partial::Missing => unreadable(Code::InvalidArgument, "the call has no message"),
        Partial::Compressed => compressed(),
        Partial::Cut => unreadable(Code::InvalidArgument, "the message is cut"),
    })?;
    Ok((Body::new(Full::new(bytes)), message))
}

fn unreadable(code: Code, message: &str) -> Failure {
    Failure::CallInvalid { code, message: message.to_owned() }
}

/// Who calls which method; an extension of every request behind the door but health checks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) access: Access,
    /// What is called, and about what.
    pub(crate) attempt: Attempt,
    pub(crate) settled: Settled,
}

fn refuse(failure: Failure) -> Response<Body> {
    failure.into_status().into_http()
}

/// Gives a reason to errors that the gRPC library made by itself: messages that are too large or cannot be decoded.
fn explain(response: Response<Body>) -> Response<Body> {
    if response.headers().contains_key(DETAILS) {
        return response;
    }
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok => {
            let code = if status.code() == Code::Internal { Code::InvalidArgument } else { status.code() };
            refuse(Failure::CallInvalid { code, message: status.message().to_owned() })
        }
        _ => response,
    }
}

impl<S> Layer<S> for Door {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { door: self.clone(), inner }
    }
}

/// A service behind the door.
#[derive(Clone)]
pub(crate) struct Guarded<S> {
    door: Door,
    inner: S,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that was polled ready is called; its clone waits for the next call.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let door = self.door.clone();
        let id = Uuid::new_v4().to_string();
        let (key, principal) = (tracing::field::Empty, tracing::field::Empty);
        let span = tracing::info_span!("call", id, method = request.uri().path(), key, principal);
        Box::pin(async move {
            let (began, path) = (Instant::now(), request.uri().path().to_owned());
            let mut response = door.answer(inner, request, &id).instrument(span).await;
            door.count(&path, &response, began);
            if let Ok(id) = HeaderValue::from_str(&id) {
                response.headers_mut().insert(REQUEST_ID, id);
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a20_what_is_being_made_durable_is_waited_for_and_anything_else_is_given_up() {
        let limit = Duration::from_secs(30);
        let work = async |settled: &Settled, begins: bool| {
            if begins {
                settled.begin();
            }
            tokio::time::sleep(limit * 2).await;
            Response::new(Body::empty())
        };
        for (begins, refused) in [(false, Some(Code::DeadlineExceeded)), (true, None)] {
            let settled = Settled::default();
            let answer = in_time(work(&settled, begins), limit, &settled).await;
            assert_eq!(Status::from_header_map(answer.headers()).map(|status| status.code()), refused);
        }
    }
}
