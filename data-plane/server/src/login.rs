//! Where senders get their tokens: `POST /uauth/v2/auth/login/profile` with `{"apiKey": "…"}` answers `{"token": "…"}` (D14, R151).
//!
//! Served by the data plane, which is all that senders reach. It needs nothing of the control plane: hashes of the keys and the key
//! pair that signs are part of the workspace's revision.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::Full;
use serde::Deserialize;
use sluice_core::api_key::ApiKey;
use uuid::Uuid;

use crate::intake::{check_content_type, check_declared, check_head, read_body};
use crate::plane::Plane;
use crate::rejection::{Rejection, SenderRejection};
use crate::trigger::{Answer, Received};

/// The path of the login (R151).
pub const PATH: &str = "/uauth/v2/auth/login/profile";
/// Largest body, in bytes: many times what a key needs.
pub const BODY_BYTES_MAX: usize = 4 * 1024;

/// Keys that are not accepted, from one address in a minute: beyond them 429. A good key is never refused for them.
pub const FAILURES_PER_MINUTE: u32 = 20;

/// Where a request comes from: its connection, or whom a proxy before this door names.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// What is sent.
#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "apiKey")]
    api_key: String,
}

/// Answers one login.
pub async fn receive<B>(plane: &Plane, request: Request<B>) -> Result<Answer, Rejection>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let (head, body) = request.into_parts();
    check_head(plane, &head)?;
    if head.method != Method::POST {
        return Err(Rejection::MethodNotAllowed { allow: "POST" });
    }
    check_declared(&head, BODY_BYTES_MAX)?;
    let raw = read_body(plane, &head, body, BODY_BYTES_MAX).await?;
    check_content_type(&head.headers)?;
    let asked: Asked = serde_json::from_slice(&raw).map_err(|_| Rejection::Sender(SenderRejection::LoginUnreadable))?;
    let peer = head.extensions.get::<Peer>().map(|peer| peer.0);
    let token = token(plane, &asked.api_key, peer).map_err(|refused| counted(plane, refused, peer))?;
    let mut response = Response::new(Full::new(Bytes::from(serde_json::json!({ "token": token }).to_string())));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(Answer { received: Received::LoggedIn, response })
}

/// Counts a key that was not accepted. Beyond the limit its source is no longer told why.
fn counted(plane: &Plane, refused: Rejection, peer: Option<IpAddr>) -> Rejection {
    if !matches!(refused, Rejection::Sender(SenderRejection::ApiKey | SenderRejection::Network)) {
        return refused;
    }
    let within = plane.failed_logins.count(peer, FAILURES_PER_MINUTE, plane.clock.now());
    if within { refused } else { Rejection::Sender(SenderRejection::TooManyFailures) }
}

/// A token for this key, if it is known, in force and used from where it may be.
fn token(plane: &Plane, text: &str, peer: Option<IpAddr>) -> Result<String, Rejection> {
    let unknown = || Rejection::Sender(SenderRejection::ApiKey);
    let shown = ApiKey::parse(text).map_err(|_no_key| unknown())?;
    let (runtime, now) = (plane.served.load(), plane.clock.now());
    let Some((workspace, key)) = runtime.login_key(&shown.id) else {
        return Err(if runtime.denies_keys() { unknown() } else { Rejection::NotReady });
    };
    if !shown.is(&key.secret_hash) || key.is_expired(now) {
        return Err(unknown());
    }
    if !peer.is_some_and(|peer| key.allows(peer)) {
        return Err(Rejection::Sender(SenderRejection::Network));
    }
    let token = workspace.login.token(&workspace.name, key, now, &Uuid::new_v4().to_string());
    // A key comes into a revision together with what signs its tokens.
    let token = token.ok_or(Rejection::NotReady)?;
    plane.key_uses.note(&key.id, now);
    Ok(token)
}
