//! The same methods as JSON over HTTP, by the paths that the contract gives them (`GET /v1/workspaces/acme/connections`, AIP-127) and
//! as the Connect protocol has it (`POST /package.Service/Method`). Hides the translation: a request becomes the gRPC call that it
//! means and goes the same way through the [`crate::door`], and the answer becomes JSON again. No method is written twice, and none is
//! left out but the streams of data planes; of another stream a request is the first message and the only one.
//!
//! JSON is the canonical form of the contract's messages. A method that answers with many messages answers with one per line
//! (`application/x-ndjson`); a stream that fails ends with a line `{"error": …}`. An error has the HTTP status of its code, and is a
//! `google.rpc.Status` or, for a Connect call, `{"code", "message", "details"}`.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method as Verb, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use prost_types::Any;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::pb;
use tower::{Layer, Service};
use tracing::Instrument as _;

use crate::MESSAGE_BYTES_MAX;
use crate::contract::{Contract, Method};
use crate::door::{FRAME_BYTES, REQUEST_ID, Unreadable};
use crate::error::Failure;
use crate::paths::{Found, Paths};
use crate::shared::Shared;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// Lines that wait for a caller that reads slowly.
const AHEAD: usize = 4;

/// Puts the JSON door before the other one.
#[derive(Clone)]
pub(crate) struct JsonDoor(pub(crate) Arc<Shared>);

impl<S> Layer<S> for JsonDoor {
    type Service = Translated<S>;

    fn layer(&self, inner: S) -> Translated<S> {
        Translated { shared: self.0.clone(), inner }
    }
}

/// A service behind the JSON door.
#[derive(Clone)]
pub(crate) struct Translated<S> {
    shared: Arc<Shared>,
    inner: S,
}

impl<S> Service<Request<Body>> for Translated<S>
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
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let style = match request.uri().path().starts_with(PATHS) {
            true => Style::Rest,
            false if is_json(request.headers()) && request.method() == Verb::POST => Style::Connect,
            false => return Box::pin(inner.call(request)),
        };
        let shared = self.shared.clone();
        Box::pin(async move {
            let meant = match style {
                Style::Rest => by_path(&shared.contract.paths, request).await,
                Style::Connect => by_name(&shared.contract, request).await,
            };
            let call = match meant {
                Ok(call) => call,
                Err(refusal) => return Ok(*refusal),
            };
            let method = shared.contract.method(call.uri().path());
            let answer = inner.call(call).await?;
            Ok(to_json(&shared, method, style, answer).await)
        })
    }
}

/// What the paths of the contract begin with.
const PATHS: &str = "/v1/";

/// How a caller writes requests and reads errors.
#[derive(Clone, Copy)]
enum Style {
    /// Paths, and `google.rpc.Status`.
    Rest,
    /// `POST /package.Service/Method`, and errors as the Connect protocol has them.
    Connect,
}

/// The call that a path means, or the answer to one that leads nowhere.
async fn by_path(paths: &Paths, request: Request<Body>) -> Result<Request<Body>, Box<Response<Body>>> {
    let (mut parts, body) = request.into_parts();
    let (route, said) = match paths.find(&parts.method, parts.uri.path()) {
        Found::Route(route, said) => (route, said),
        Found::Otherwise(allow) => {
            let message = format!("this path is called with {allow}");
            let status = Failure::CallInvalid { code: Code::Unimplemented, message }.into_status();
            let mut response = refused(&status, None, Style::Rest);
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            if let Ok(allow) = HeaderValue::from_str(&allow) {
                response.headers_mut().insert(ALLOW, allow);
            }
            return Err(Box::new(response));
        }
        Found::Nowhere => {
            let message = "there is no such path".to_owned();
            let status = Failure::CallInvalid { code: Code::NotFound, message }.into_status();
            return Err(Box::new(refused(&status, None, Style::Rest)));
        }
    };
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let message = match collected(body).await {
        Ok(body) if !body.is_empty() && !is_json(&parts.headers) => {
            Err("a body is JSON: `content-type: application/json`".to_owned())
        }
        Ok(body) => route.request(&said, &query, &body),
        Err(why) => Err(why),
    };
    parts.method = Verb::POST;
    parts.uri = route.method.parse().unwrap_or_default();
    Ok(to_grpc(parts, message))
}

/// The call of a method by its name.
async fn by_name(contract: &Contract, request: Request<Body>) -> Result<Request<Body>, Box<Response<Body>>> {
    let (parts, body) = request.into_parts();
    let method = contract.method(parts.uri.path());
    if method.is_some_and(|method| method.takes_stream && !method.names_resource()) {
        let status = Status::unimplemented("this stream is for data planes and cannot be called with JSON");
        return Err(Box::new(refused(&status, None, Style::Connect)));
    }
    let message = match collected(body).await {
        Ok(body) => method.map_or(Ok(Bytes::new()), |method| method.read_json(&body)),
        Err(why) => Err(why),
    };
    Ok(to_grpc(parts, message))
}

async fn collected(body: Body) -> Result<Bytes, String> {
    let whole = Limited::new(body, MESSAGE_BYTES_MAX).collect().await;
    whole
        .map(http_body_util::Collected::to_bytes)
        .map_err(|_| format!("the body is cut, or longer than {MESSAGE_BYTES_MAX} bytes"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let of = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| text.split(';').next().map(str::trim) == Some("application/json"))
    };
    headers.get(CONTENT_TYPE).is_some_and(of)
}

/// A gRPC call with this message. What could not be read goes in without one and is refused inside, after the caller's key and
/// permission were looked at.
fn to_grpc(mut parts: Parts, message: Result<Bytes, String>) -> Request<Body> {
    let mut framed = BytesMut::new();
    match message {
        Ok(message) => {
            framed.put_u8(0);
            framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
            framed.put(message);
        }
        Err(why) => drop(parts.extensions.insert(Unreadable(why))),
    }
    // gRPC knows no other version, whichever the caller spoke.
    parts.version = Version::HTTP_2;
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, GRPC);
    parts.headers.insert(TE, HeaderValue::from_static("trailers"));
    Request::from_parts(parts, Body::new(Full::new(framed.freeze())))
}

/// The answer of a call as JSON.
async fn to_json(
    shared: &Arc<Shared>,
    method: Option<&Method>,
    style: Style,
    answer: Response<Body>,
) -> Response<Body> {
    let (parts, body) = answer.into_parts();
    let id = parts.headers.get(REQUEST_ID).cloned();
    if let Some(status) = Status::from_header_map(&parts.headers).filter(|status| status.code() != Code::Ok) {
        return refused(&status, id, style);
    }
    let Some(method) = method else { return refused(&Status::unimplemented("there is no such method"), id, style) };
    if method.answers_stream {
        let (out, lines) = mpsc::channel(AHEAD);
        let (shared, path) = (shared.clone(), method.path.clone());
        tokio::spawn(stream(shared, path, style, body, out).in_current_span());
        return answered(StatusCode::OK, LINES, id, Body::new(StreamBody::new(ReceiverStream::new(lines))));
    }
    let collected = match body.collect().await {
        Ok(collected) => collected,
        Err(status) => return refused(&status, id, style),
    };
    let ended = collected.trailers().and_then(Status::from_header_map).filter(|status| status.code() != Code::Ok);
    if let Some(status) = ended {
        return refused(&status, id, style);
    }
    let bytes = collected.to_bytes();
    match bytes.get(FRAME_BYTES..).and_then(|message| method.show_json(message)) {
        Some(text) => answered(StatusCode::OK, JSON, id, Body::new(Full::new(Bytes::from(text)))),
        None => refused(&Failure::Internal("an answer cannot be shown as JSON".to_owned()).into_status(), id, style),
    }
}

/// Sends message after message as a line of JSON.
async fn stream(
    shared: Arc<Shared>,
    path: String,
    style: Style,
    mut body: Body,
    out: mpsc::Sender<Result<Frame<Bytes>, Infallible>>,
) {
    let mut bytes = BytesMut::new();
    let failed = loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = out.closed() => return,
        };
        let Some(frame) = frame else { return };
        let frame = match frame {
            Ok(frame) => frame,
            Err(status) => break status,
        };
        if let Some(trailers) = frame.trailers_ref() {
            match Status::from_header_map(trailers).filter(|status| status.code() != Code::Ok) {
                Some(status) => break status,
                None => return,
            }
        }
        bytes.extend_from_slice(&frame.into_data().unwrap_or_default());
        while let Some(message) = next_message(&mut bytes) {
            let text = shared.contract.method(&path).and_then(|method| method.show_json(&message)).unwrap_or_default();
            if out.send(Ok(Frame::data(Bytes::from(format!("{text}\n"))))).await.is_err() {
                return;
            }
        }
    };
    // Who reads nothing any more cannot be told.
    let _ = out.send(Ok(Frame::data(Bytes::from(format!("{}\n", json!({"error": shown(&failed, style)})))))).await;
}

/// Takes a whole message off what was received.
fn next_message(bytes: &mut BytesMut) -> Option<Bytes> {
    let length: [u8; 4] = bytes.get(1..FRAME_BYTES)?.try_into().ok()?;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    (bytes.len() >= FRAME_BYTES + length).then(|| bytes.split_to(FRAME_BYTES + length).split_off(FRAME_BYTES).freeze())
}

fn answered(status: StatusCode, kind: HeaderValue, id: Option<HeaderValue>, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    if let Some(id) = id {
        response.headers_mut().insert(HeaderName::from_static(REQUEST_ID), id);
    }
    response
}

fn refused(status: &Status, id: Option<HeaderValue>, style: Style) -> Response<Body> {
    answered(http_status(status.code()), JSON, id, Body::new(Full::new(Bytes::from(shown(status, style).to_string()))))
}

/// An error as JSON. In the Connect form each detail comes encoded, for programs, and readable, for people.
fn shown(status: &Status, style: Style) -> Value {
    let details = pb::Status::decode(status.details()).map(|status| status.details).unwrap_or_default();
    let kind = |detail: &Any| detail.type_url.rsplit('/').next().unwrap_or_default().to_owned();
    match style {
        Style::Rest => {
            let described = |detail: &Any| {
                let mut fields = readable(&kind(detail), &detail.value)?;
                fields.as_object_mut()?.shift_insert(0, "@type".to_owned(), detail.type_url.as_str().into());
                Some(fields)
            };
            let details: Vec<Value> = details.iter().filter_map(described).collect();
            json!({"code": i32::from(status.code()), "message": status.message(), "details": details})
        }
        Style::Connect => {
            let described = |detail: &Any| {
                let (kind, value) = (kind(detail), STANDARD_NO_PAD.encode(&detail.value));
                json!({"type": kind, "value": value, "debug": readable(&kind, &detail.value)})
            };
            let details: Vec<Value> = details.iter().map(described).collect();
            json!({"code": code_name(status.code()), "message": status.message(), "details": details})
        }
    }
}

/// A detail of an error in the canonical JSON form.
fn readable(kind: &str, value: &[u8]) -> Option<Value> {
    static DETAILS: LazyLock<Option<DescriptorPool>> =
        LazyLock::new(|| DescriptorPool::decode(pb::FILE_DESCRIPTOR_SET).ok());
    let kind = DETAILS.as_ref()?.get_message_by_name(kind)?;
    serde_json::to_value(DynamicMessage::decode(kind, value).ok()?).ok()
}

/// The table of the gRPC codes, which Connect and `google.rpc` share.
fn http_status(code: Code) -> StatusCode {
    let number = match code {
        Code::Ok => 200,
        Code::Cancelled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
    };
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "canceled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}
