//! The door for triggers and logins: accepts connections, guards them with a visible stack of limits, gives every answer a request id.
//!
//! Hides hyper. What a request means is [`crate::trigger`]'s and [`crate::login`]'s business.

mod forwarded;
mod unread;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, Version, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use sluice_tls::{Accepted, Acceptor};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt as _};
use uuid::Uuid;

use self::unread::Answering;
use crate::login::{self, Peer};
use crate::plane::Plane;
use crate::rejection::Rejection;
use crate::trigger::{self, Answer};

/// The answer's request id (D12).
const REQUEST_ID: &str = "x-request-id";
/// Streams of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 100;
/// What hyper buffers of a head; larger than our own limit, so that ours answers.
const HEAD_BUFFER_BYTES: usize = 128 * 1024;
/// Headers hyper reads; more than our own limit, so that ours answers.
const HEAD_HEADERS_MAX: usize = 256;

/// Serves triggers until `shutdown`, then lets requests in work finish for at most `drain`.
pub async fn serve(plane: Plane, mut acceptor: Acceptor, shutdown: CancellationToken, drain: Duration) {
    let limits = &plane.settings.ingress;
    let connections = Arc::new(Semaphore::new(limits.connections_max));
    let stack = stack(&plane);
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_deadline)
        .max_buf_size(HEAD_BUFFER_BYTES)
        .max_headers(HEAD_HEADERS_MAX);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(30));
    let graceful = GracefulShutdown::new();
    loop {
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            permit = connections.clone().acquire_owned() => permit,
        };
        let Accepted { stream, peer } = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = acceptor.accept() => accepted,
        };
        let settled = plane.clone();
        let service = stack.clone().map_request(move |mut request: Request<Incoming>| {
            let sender = forwarded::sender(peer.ip(), request.headers(), &settled.settings.ingress.proxies);
            request.extensions_mut().insert(Peer(sender));
            request
        });
        let service = TowerToHyperService::new(service);
        let connection =
            http.serve_connection(Answering::new(TokioIo::new(stream), plane.clone()), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = &*error, "a connection ended early");
            }
            drop(permit);
        });
    }
    drop(acceptor);
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still in work when the drain time was over");
    }
}

/// The stack, outermost first.
fn stack(
    plane: &Plane,
) -> impl Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static
+ use<> {
    let limits = &plane.settings.ingress;
    let inner = plane.clone();
    ServiceBuilder::new()
        // Every answer has a request id, and every error becomes an answer.
        .layer_fn({
            let plane = plane.clone();
            move |inner| Answered { plane: plane.clone(), inner }
        })
        // More requests at once than this are refused at once.
        .load_shed()
        .concurrency_limit(limits.in_flight_max)
        // The body has a deadline of its own within this one.
        .timeout(limits.body_deadline + limits.answer_deadline)
        .service_fn(move |(request, request_id): (Request<Incoming>, RequestId)| {
            let plane = inner.clone();
            async move {
                if plane.drain.refuses() {
                    return Ok::<_, BoxError>(Err(Rejection::Draining));
                }
                Ok(match request.uri().path() {
                    login::PATH => login::receive(&plane, request).await,
                    _ => trigger::receive(&plane, request, &request_id).await,
                })
            }
        })
}

/// Travels beside the request.
type RequestId = Arc<str>;

/// Gives each request an id, turns what went wrong into an answer, and counts.
#[derive(Clone, Debug)]
struct Answered<S> {
    plane: Plane,
    inner: S,
}

impl<S> Service<Request<Incoming>> for Answered<S>
where
    S: Service<(Request<Incoming>, RequestId), Response = Result<Answer, Rejection>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Load shedding is always ready; an error would be answered by the call.
        let _ready = self.inner.poll_ready(context);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let plane = self.plane.clone();
        let started = Instant::now();
        // A connection that is kept open would keep its sender here.
        let closes = plane.drain.is_on() && request.version() <= Version::HTTP_11;
        let request_id: RequestId = match trigger::sent_request_id(request.headers()) {
            Some(sent) => sent.into(),
            None => Uuid::now_v7().to_string().into(),
        };
        let answer = self.inner.call((request, request_id.clone()));
        Box::pin(async move {
            let outcome = answer.await.unwrap_or_else(|error| Err(rejection(&error)));
            let mut response = match outcome {
                Ok(answer) => {
                    plane.metrics.trigger(answer.received.code(), started.elapsed());
                    answer.response
                }
                Err(rejection) => {
                    plane.metrics.trigger(rejection.code(), started.elapsed());
                    tracing::debug!(%request_id, code = rejection.code(), "refused");
                    rejection.into_response(&request_id)
                }
            };
            if closes {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            if let Ok(value) = HeaderValue::from_str(&request_id) {
                response.headers_mut().insert(REQUEST_ID, value);
            }
            Ok(response)
        })
    }
}

fn rejection(error: &BoxError) -> Rejection {
    if error.is::<tower::timeout::error::Elapsed>() { Rejection::AnswerTimeout } else { Rejection::Overloaded }
}
