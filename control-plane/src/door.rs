//! Where every call comes in: an id for its log lines and its answer, the caller's key, the permission the method names in
//! the contract, a place among the calls that are answered at once, and a deadline. What is behind it can rely on all of it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response};
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::access::{Access, authenticate};
use crate::error::Failure;
use crate::settings::Limits;
use crate::store::Store;

/// The header and metadata entry that carries the id of a call.
const REQUEST_ID: &str = "x-request-id";
const DETAILS: &str = "grpc-status-details-bin";

/// Puts the door before a service.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    store: Store,
    limits: Limits,
    places: Arc<Semaphore>,
}

impl Door {
    pub(crate) fn new(store: Store, limits: Limits) -> Self {
        Self { store, limits, places: Arc::new(Semaphore::new(limits.calls)) }
    }

    /// Lets a call in or refuses it. The caller becomes an extension of the request.
    async fn admit<B>(&self, request: &mut Request<B>) -> Result<(), Failure> {
        let path = request.uri().path().to_owned();
        // Load balancers ask for health without a key; it tells nothing but whether the server runs.
        if path.starts_with("/grpc.health.v1.Health/") {
            return Ok(());
        }
        let access = authenticate(&self.store, request.headers()).await?;
        tracing::Span::current().record("key", &access.key_id);
        // Reflection shows the contract, which is public; any key will do.
        if !path.starts_with("/grpc.reflection.v1.ServerReflection/")
            && !path.starts_with("/grpc.reflection.v1alpha.ServerReflection/")
        {
            let permission = sluice_proto::permission(&path).unwrap_or_default();
            if permission.is_empty() || !access.may(permission) {
                return Err(Failure::PermissionMissing(permission.to_owned()));
            }
        }
        request.extensions_mut().insert(Caller { access, method: path });
        Ok(())
    }

    async fn answer<S>(&self, mut inner: S, mut request: Request<Body>) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let Ok(_place) = self.places.try_acquire() else { return refuse(Failure::Overloaded("calls")) };
        let limit = self.limits.call_time;
        let answered = tokio::time::timeout(limit, async {
            match self.admit(&mut request).await {
                Ok(()) => inner.call(request).await.unwrap_or_else(|never| match never {}),
                Err(failure) => refuse(failure),
            }
        });
        // A call that is given up is dropped, and its transaction with it.
        explain(answered.await.unwrap_or_else(|_| refuse(Failure::TookTooLong(limit))))
    }
}

/// Who calls which method; an extension of every request behind the door but health checks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) access: Access,
    /// The gRPC path.
    pub(crate) method: String,
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
#[derive(Clone, Debug)]
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
        let span = tracing::info_span!("call", id, method = request.uri().path(), key = tracing::field::Empty);
        Box::pin(async move {
            let mut response = door.answer(inner, request).instrument(span).await;
            if let Ok(id) = HeaderValue::from_str(&id) {
                response.headers_mut().insert(REQUEST_ID, id);
            }
            Ok(response)
        })
    }
}
