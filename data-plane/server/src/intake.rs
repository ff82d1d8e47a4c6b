//! How any request of the ingress is read: its head under limits, its body under a cap and a deadline, as JSON. What it means is
//! [`crate::trigger`]'s and [`crate::login`]'s business.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header, request::Parts};
use http_body_util::BodyExt as _;

use crate::plane::Plane;
use crate::rejection::Rejection;

/// What can be said without knowing what is asked for.
pub fn check_head(plane: &Plane, head: &Parts) -> Result<(), Rejection> {
    let limits = &plane.settings.ingress;
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > limits.uri_bytes_max {
        return Err(Rejection::UriTooLong { limit: limits.uri_bytes_max });
    }
    let bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if head.headers.len() > limits.headers_max || bytes > limits.header_bytes_max {
        return Err(Rejection::HeadersTooLarge { headers_max: limits.headers_max, bytes_max: limits.header_bytes_max });
    }
    let hosts = head.headers.get_all(header::HOST).iter().count();
    if head.version < http::Version::HTTP_2 && hosts != 1 {
        return Err(Rejection::HostInvalid);
    }
    let codings: Vec<&HeaderValue> = head.headers.get_all(header::TRANSFER_ENCODING).iter().collect();
    match codings.as_slice() {
        [] => Ok(()),
        [one] if one.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Rejection::TransferCodingUnknown),
    }
}

/// What the head says of the body.
pub fn check_declared(head: &Parts, limit: usize) -> Result<(), Rejection> {
    let declared = head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|declared| declared > limit as u64) {
        return Err(Rejection::BodyTooLarge { limit });
    }
    let mut encodings = head.headers.get_all(header::CONTENT_ENCODING).iter();
    if encodings.any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Rejection::ContentEncodingUnsupported);
    }
    Ok(())
}

/// The room that a body has before any of it has come.
const FIRST_BYTES: usize = 16 * 1024;

/// The whole body, under the cap and before the deadline, however it trickles in.
pub async fn read_body<B>(plane: &Plane, head: &Parts, mut body: B, limit: usize) -> Result<Bytes, Rejection>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let deadline = plane.settings.ingress.body_deadline;
    let hint = head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let read = async {
        let hint = hint.unwrap_or(0).min(limit);
        let mut collected = BytesMut::with_capacity(hint.min(FIRST_BYTES));
        while let Some(frame) = body.frame().await {
            // Trailers are ignored: they must not become headers a rule looks at.
            let Ok(data) = frame.map_err(|_broken| Rejection::BodyIncomplete)?.into_data() else { continue };
            if collected.len() + data.len() > limit {
                return Err(Rejection::BodyTooLarge { limit });
            }
            // Growing by itself it would be copied again and again, and have twice the room it needs.
            if collected.len() + data.len() > collected.capacity() {
                collected.reserve(data.len().max(hint.saturating_sub(collected.len())));
            }
            collected.extend_from_slice(&data);
        }
        Ok(collected.freeze())
    };
    tokio::time::timeout(deadline, read).await.unwrap_or(Err(Rejection::BodyTimeout { limit: deadline }))
}

/// Exactly one `Content-Type`, `application/json`, in UTF-8 if it names a charset (R145).
pub fn check_content_type(headers: &HeaderMap) -> Result<(), Rejection> {
    let types: Vec<&HeaderValue> = headers.get_all(header::CONTENT_TYPE).iter().collect();
    let [one] = types.as_slice() else { return Err(Rejection::ContentTypeUnsupported) };
    let text = one.to_str().map_err(|_| Rejection::ContentTypeUnsupported)?;
    let mut parts = text.split(';').map(str::trim);
    let json = parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/json"));
    let utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            let value = value.trim().trim_matches('"');
            value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8")
        }
        _ => true,
    });
    if json && utf8 { Ok(()) } else { Err(Rejection::ContentTypeUnsupported) }
}
