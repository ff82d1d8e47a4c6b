//! **Spine 1**: what happens to one incoming request, from the bytes to 200 or 204.
//!
//! [`receive`] is the whole story, one step a line. The leaves decide; only the body, the inbox and the metrics are touched here.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::Full;
use prost::Message as _;
use sluice_core::dedup::{self, HASH_HEADER};
use sluice_core::envelope::{Body, Envelope, Headers};
use sluice_core::incoming_auth::{SIGNATURE_HEADER, meta_handshake, verify_meta};
use sluice_core::model::{Authorization, SenderSecret, TokenSource, Workflow};
use sluice_core::{jwt, lineage};
use sluice_proto::sync::v1::{Job, Trace};
use uuid::Uuid;

use crate::crash::Moment;
use crate::inbox::{Accept, Accepted, Claim, Lane, NewJob};
use crate::intake::{check_content_type, check_declared, check_head, read_body};
use crate::plane::Plane;
use crate::rejection::{Rejection, SenderRejection};
use crate::runtime::{Endpoint, Wanting};
use crate::senders::NotAdmitted;

/// What stands before and after the endpoint's id (R142).
const PATH_BEFORE: &str = "/automation-endpoint/endpoints/authorized/";
const PATH_AFTER: &str = "/trigger";

/// How a request that was not refused ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Kept, and at least one workflow wants it.
    Accepted,
    /// Kept as seen; no workflow wants it.
    FilteredOut,
    /// Seen before within the window.
    Duplicate,
    /// Meta verified the endpoint.
    Handshake,
    /// An API key got a token.
    LoggedIn,
    /// Taken as the sample of a draft; nothing else is done with it.
    Captured,
}

impl Received {
    /// As metrics name it.
    pub fn code(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::FilteredOut => "filtered_out",
            Self::Duplicate => "duplicate",
            Self::Handshake => "handshake",
            Self::LoggedIn => "logged_in",
            Self::Captured => "captured",
        }
    }
}

/// Receives one request.
pub async fn receive<B>(plane: &Plane, request: Request<B>, request_id: &str) -> Result<Answer, Rejection>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let (head, body) = request.into_parts();
    check_head(plane, &head)?;
    let endpoint = route(plane, &head)?;
    let authorization = &endpoint.incoming.authorization;
    if let Some(handshake) = handshake(authorization, &head)? {
        return Ok(handshake);
    }
    authorize_by_token(plane, &endpoint, &head.headers)?;
    check_paused(&endpoint)?;
    check_rate(plane, &endpoint).await?;
    check_declared(&head, plane.settings.ingress.body_bytes_max)?;
    let raw = read_body(plane, &head, body, plane.settings.ingress.body_bytes_max).await?;
    authorize(plane, authorization, &head.headers, &raw)?;
    check_content_type(&head.headers)?;
    let body = Body::read(&raw, &plane.settings.ingress.body_limits).map_err(Rejection::BodyInvalid)?;
    check_dedup_header(&endpoint, &head.headers)?;
    let trigger_id = Uuid::now_v7();
    let envelope = envelope(plane, &endpoint, &head, body, trigger_id, request_id);
    let captured = plane.captures.offer(&envelope, envelope.time);
    if endpoint.of.is_draft {
        // Another request was first: the draft is as closed as any other.
        return if captured { Ok(Answer::ok(Received::Captured)) } else { Err(Rejection::EndpointUnknown) };
    }
    let claim = claim(plane, &endpoint, &envelope);
    let jobs = jobs(&endpoint, &envelope);
    let wanted = !jobs.is_empty();
    // Each may be 1 MiB, and the inbox takes its time.
    drop((envelope, raw));
    plane.settings.inbox.reached(Moment::Received);
    let accepted = plane.inbox.accept(Accept { request: trigger_id, claim, jobs }).await;
    plane.settings.inbox.reached(Moment::Kept);
    match accepted {
        Ok(Accepted::Accepted) if wanted => Ok(Answer::ok(Received::Accepted)),
        Ok(Accepted::Accepted) => Ok(Answer::ok(Received::FilteredOut)),
        Ok(Accepted::Duplicate) => Ok(Answer::no_content(Received::Duplicate)),
        Ok(Accepted::Full) => Err(Rejection::QueueFull),
        Err(_unavailable) => Err(Rejection::StoreUnavailable),
    }
}

/// The answer to a request that was not refused.
#[derive(Debug)]
pub struct Answer {
    /// How it ended.
    pub received: Received,
    /// What is sent.
    pub response: Response<Full<Bytes>>,
}

impl Answer {
    /// 200 with body `OK` (R162, R163).
    fn ok(received: Received) -> Self {
        Self::text(received, Bytes::from_static(b"OK"))
    }

    /// 204 without a body (R161, X08).
    fn no_content(received: Received) -> Self {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        Self { received, response }
    }

    fn text(received: Received, body: Bytes) -> Self {
        let mut response = Response::new(Full::new(body));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Self { received, response }
    }
}

/// The endpoint at exactly this path, published or a draft that is captured, if it takes this method.
fn route(plane: &Plane, head: &Parts) -> Result<Endpoint, Rejection> {
    let runtime = plane.served.load();
    let id = head.uri.path().strip_prefix(PATH_BEFORE).and_then(|rest| rest.strip_suffix(PATH_AFTER));
    let published = id.and_then(|id| runtime.endpoint(id));
    let endpoint = published.or_else(|| plane.captures.draft(id?, &runtime, plane.clock.now()));
    let unknown = || match id {
        Some(id) if runtime.holds_up(id) => Rejection::Quarantined,
        _ if runtime.denies_endpoints() => Rejection::EndpointUnknown,
        _ => Rejection::NotReady,
    };
    let endpoint = endpoint.ok_or_else(unknown)?;
    match (&head.method, &endpoint.incoming.authorization) {
        (&Method::POST, _) | (&Method::GET, Authorization::Meta { .. }) => Ok(endpoint),
        (_, Authorization::Meta { .. }) => Err(Rejection::MethodNotAllowed { allow: "GET, POST" }),
        (_, Authorization::None | Authorization::Jwt(_)) => Err(Rejection::MethodNotAllowed { allow: "POST" }),
    }
}

/// Meta asks with GET whether the endpoint is ours (S08).
fn handshake(authorization: &Authorization, head: &Parts) -> Result<Option<Answer>, Rejection> {
    let Authorization::Meta { verify_tokens, .. } = authorization else { return Ok(None) };
    if head.method != Method::GET {
        return Ok(None);
    }
    let query = head.uri.query().unwrap_or_default();
    let challenge = meta_handshake(query, &bytes(verify_tokens))
        .map_err(|failure| Rejection::Sender(SenderRejection::Handshake(failure)))?;
    Ok(Some(Answer::text(Received::Handshake, Bytes::from(challenge))))
}

/// Checks the sender by the head alone, before anything of the body is read (R150).
fn authorize_by_token(plane: &Plane, endpoint: &Endpoint, headers: &HeaderMap) -> Result<(), Rejection> {
    let Authorization::Jwt(source) = &endpoint.incoming.authorization else { return Ok(()) };
    let values: Vec<&[u8]> = headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes).collect();
    let token = jwt::bearer(&values).ok_or(Rejection::Sender(SenderRejection::Token))?;
    let now = plane.clock.now();
    let admitted = match source {
        TokenSource::Issuer(verifier) => {
            endpoint.incoming.remembered().verify(verifier, token, now).map(drop).map_err(NotAdmitted::from)
        }
        TokenSource::ApiKey(name) => endpoint.of.login.admit(name, token, now),
    };
    admitted.map_err(|why| {
        tracing::debug!(endpoint = &*endpoint.incoming.name, why = why.code(), "a token was refused");
        Rejection::Sender(match why {
            NotAdmitted::Refused(_) | NotAdmitted::NoKeys | NotAdmitted::KeyGone => SenderRejection::Token,
            NotAdmitted::OtherKey | NotAdmitted::NotPermitted => SenderRejection::Forbidden,
        })
    })
}

fn check_paused(endpoint: &Endpoint) -> Result<(), Rejection> {
    if endpoint.incoming.paused && !endpoint.of.is_draft { Err(Rejection::Paused) } else { Ok(()) }
}

async fn check_rate(plane: &Plane, endpoint: &Endpoint) -> Result<(), Rejection> {
    endpoint.incoming.check_rate(&plane.fleet).await.map_err(|retry_after| Rejection::RateLimited { retry_after })
}

/// Checks the sender over the raw bytes, before anything reads them (R154).
fn authorize(plane: &Plane, authorization: &Authorization, headers: &HeaderMap, raw: &[u8]) -> Result<(), Rejection> {
    match authorization {
        // A token was looked at before the body was read.
        Authorization::None | Authorization::Jwt(_) => Ok(()),
        Authorization::Meta { app_secrets, .. } => {
            let signatures: Vec<&[u8]> = headers.get_all(SIGNATURE_HEADER).iter().map(HeaderValue::as_bytes).collect();
            let signed_with = verify_meta(&bytes(app_secrets), &signatures, raw);
            let signed_with = signed_with.map_err(|_which| Rejection::Sender(SenderRejection::Signature))?;
            // Whoever rotates sees when the previous secret is used no more (M17).
            plane.metrics.signature(app_secrets.get(signed_with).map_or("", |secret| secret.slot.code()));
            Ok(())
        }
    }
}

fn bytes(secrets: &[SenderSecret]) -> Vec<&[u8]> {
    secrets.iter().map(|known| known.secret.expose().as_bytes()).collect()
}

fn check_dedup_header(endpoint: &Endpoint, headers: &HeaderMap) -> Result<(), Rejection> {
    let values: Vec<&[u8]> = headers.get_all(HASH_HEADER).iter().map(HeaderValue::as_bytes).collect();
    endpoint.incoming.dedup.check_hash_header(&values).map_err(Rejection::DedupHeader)
}

/// What templates, filters and dedup rules see (R177, R178, D13).
fn envelope(
    plane: &Plane,
    endpoint: &Endpoint,
    head: &Parts,
    body: Body,
    trigger_id: Uuid,
    request_id: &str,
) -> Envelope {
    let mut headers = Headers::new();
    for (name, value) in &head.headers {
        headers.push_received(name.as_str(), value.as_bytes());
    }
    if headers.get("X-Request-ID").is_none() {
        headers.push("X-Request-ID", request_id);
    }
    if headers.get("X-Forwarded-Host").is_none() {
        let host = head.uri.host().or_else(|| headers.get("Host")).unwrap_or_default().to_owned();
        headers.push("X-Forwarded-Host", &host);
    }
    Envelope {
        body,
        business_profile_id: endpoint.of.business_profile_id,
        endpoint_id: endpoint.incoming.endpoint_id.to_string(),
        event_id: trigger_id.to_string(),
        headers,
        method: head.method.to_string(),
        time: plane.clock.now(),
    }
}

fn claim(plane: &Plane, endpoint: &Endpoint, envelope: &Envelope) -> Option<Claim> {
    let rule = &endpoint.incoming.dedup;
    match dedup::key(rule, &endpoint.of.workspace, &endpoint.incoming.endpoint_id, envelope) {
        Ok(key) => Some(Claim { key: key.0, window: rule.window() }),
        Err(reason) => {
            plane.metrics.not_deduplicated(reason);
            None
        }
    }
}

/// One job for each step of each workflow that wants the request.
fn jobs(endpoint: &Endpoint, envelope: &Envelope) -> Vec<NewJob> {
    let wants = |workflow: &Workflow| {
        let mut triggers = workflow.triggers.iter().filter(|trigger| trigger.is_incoming(&endpoint.incoming.name));
        triggers.any(|trigger| trigger.filter.as_ref().is_none_or(|filter| filter.matches(envelope)))
    };
    let mut wanted = endpoint.workflows().iter().filter(|wanting| wants(&wanting.workflow)).peekable();
    if wanted.peek().is_none() {
        return Vec::new();
    }
    let encoded = Bytes::from(envelope.to_json());
    let hops = lineage::hops(&envelope.headers);
    let trace = lineage::Trace::received(&envelope.headers);
    let trace = trace.map(|trace| Trace { id: trace.id, flags: trace.flags.into(), state: trace.state });
    let mut jobs = Vec::new();
    for Wanting { workflow, flows } in wanted {
        for (step, flow) in workflow.steps.iter().zip(flows) {
            let job = Job {
                workspace: endpoint.of.workspace.clone(),
                workflow: workflow.name.clone(),
                step_id: step.id.clone(),
                trigger_id: envelope.event_id.clone(),
                revision: endpoint.of.revision,
                envelope: encoded.clone(),
                hops,
                trace: trace.clone(),
                incoming_integration: endpoint.incoming.name.to_string(),
                body_bytes: i64::try_from(envelope.body.text().len()).unwrap_or(i64::MAX),
                replay_of: String::new(),
                operation: String::new(),
                event: Bytes::new(),
                submitted: None,
            };
            jobs.push(NewJob {
                id: Uuid::now_v7(),
                lane: Lane::Realtime,
                flow: flow.clone(),
                payload: job.encode_to_vec().into(),
            });
        }
    }
    jobs
}

/// A sender's request id, if it can be used as ours: 1 to 128 visible ASCII characters.
pub fn sent_request_id(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get("x-request-id")?.to_str().ok()?;
    let usable = (1..=128).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic());
    usable.then_some(value)
}
