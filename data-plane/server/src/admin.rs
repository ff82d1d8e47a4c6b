//! Health, readiness and numbers, on a port of their own (S52): never under the path of an endpoint.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::plane::Plane;

/// After a connection that could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Serves `/healthz`, `/readyz` and `/metrics` until `end`; not ready any more from `shutdown` on.
pub async fn serve(plane: Plane, listener: TcpListener, shutdown: CancellationToken, end: CancellationToken) {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(plane.settings.ingress.head_deadline);
    loop {
        let accepted = tokio::select! {
            () = end.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _peer)) => stream,
            Err(error) => {
                // Out of file descriptors, for example: asked again at once, it would say so again at once.
                tracing::warn!(%error, "a connection to the health port could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let (plane, shutdown, end) = (plane.clone(), shutdown.clone(), end.clone());
        let service = service_fn(move |request| {
            let (plane, shutdown) = (plane.clone(), shutdown.clone());
            async move { Ok::<_, Infallible>(answer(&plane, &request, &shutdown).await) }
        });
        let connection = http.serve_connection(TokioIo::new(stream), service).into_owned();
        tokio::spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(error = &*error, "an admin connection ended early");
                    }
                }
            }
        });
    }
}

async fn answer(plane: &Plane, request: &Request<Incoming>, shutdown: &CancellationToken) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "send GET\n");
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => match unready(plane, shutdown).await {
            None => text(StatusCode::OK, "ready\n"),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
        },
        "/metrics" => {
            let mut response = text(StatusCode::OK, plane.metrics.render(plane).await);
            let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        _ => text(StatusCode::NOT_FOUND, "try /healthz, /readyz or /metrics\n"),
    }
}

/// Why no traffic should come, if so.
async fn unready(plane: &Plane, shutdown: &CancellationToken) -> Option<&'static str> {
    if shutdown.is_cancelled() {
        Some("stopping\n")
    } else if plane.drain.is_on() {
        Some("draining\n")
    } else if !plane.served.load().is_complete() {
        Some("no configuration has been loaded yet\n")
    } else if plane.inbox.stats().await.is_err() {
        Some("the inbox is unavailable\n")
    } else {
        None
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
