//! Health, readiness and numbers, on a port of their own (S52): never where the contract is served, and without a key, so that it is for
//! the operator's network alone.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tower::{Layer, Service};

use crate::error::Error;
use crate::shared::Shared;

/// How long one question may take to be answered.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Questions on one connection at once.
const AT_ONCE_MAX: usize = 16;

/// What tells how a control plane is. It outlives the gRPC server that is stopping, so that its end can be watched.
#[derive(Clone)]
pub struct Health {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}

impl Health {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Serves `/healthz`, `/readyz` and `/metrics` over HTTP until `end`; not ready any more from when the control plane is stopping.
    ///
    /// # Errors
    /// The server ended by itself.
    pub async fn serve(self, listener: TcpListener, end: CancellationToken) -> Result<(), Error> {
        // The gRPC library's server answers plain HTTP as well: the control plane needs no second one.
        Server::builder()
            .accept_http1(true)
            .timeout(ANSWER_TIME)
            .concurrency_limit_per_connection(AT_ONCE_MAX)
            .layer(self)
            .add_routes(Routes::default())
            .serve_with_incoming_shutdown(TcpIncoming::from(listener), end.cancelled_owned())
            .await
            .map_err(Error::from)
    }

    async fn answer(&self, method: &Method, path: &str) -> Response<Body> {
        if method != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "send GET\n");
        }
        match path {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match self.unready().await {
                None => text(StatusCode::OK, "ready\n"),
                Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
            },
            "/metrics" => {
                let mut response = text(StatusCode::OK, self.shared.metrics.render(&self.shared).await);
                let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
            _ => text(StatusCode::NOT_FOUND, "try /healthz, /readyz or /metrics\n"),
        }
    }

    /// Why nobody should call, if so.
    async fn unready(&self) -> Option<&'static str> {
        if self.shared.stop.is_cancelled() {
            return Some("stopping\n");
        }
        self.shared.captures_open().await.err().map(|_unavailable| "the configuration store is unavailable\n")
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

impl<S> Layer<S> for Health {
    type Service = Self;

    fn layer(&self, _nothing_behind: S) -> Self {
        self.clone()
    }
}

impl Service<Request<Body>> for Health {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let health = self.clone();
        Box::pin(async move { Ok(health.answer(request.method(), request.uri().path()).await) })
    }
}
