//! What hyper could not read as a request it answers by itself, with a bare head. Such an answer gets the body and the
//! request id that all others have (D12).
//!
//! Hides where hyper's own answers are caught: on their way to the socket, as it offers no other place.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::rt::{Read, ReadBufCursor, Write};
use uuid::Uuid;

use super::REQUEST_ID;
use crate::plane::Plane;
use crate::rejection::Rejection;

/// A connection on which no bare answer leaves.
pub(super) struct Answering<S> {
    stream: S,
    plane: Plane,
    instead: Option<Instead>,
}

/// What is sent in place of a bare answer.
struct Instead {
    bytes: Vec<u8>,
    sent: usize,
    /// How long the bare answer is.
    of: usize,
}

impl<S> Answering<S> {
    pub(super) fn new(stream: S, plane: Plane) -> Self {
        Self { stream, plane, instead: None }
    }
}

/// Where a bare answer begins at the end of what is to be written, and its status.
fn bare(written: &[u8]) -> Option<(usize, StatusCode)> {
    // Nearly all answers have a body.
    let head = written.strip_suffix(b"\r\n\r\n")?;
    let begin = head.windows(9).rposition(|part| part == b"HTTP/1.1 ")?;
    let head = std::str::from_utf8(&head[begin..]).ok()?;
    let status = StatusCode::from_bytes(head.get(9..12)?.as_bytes()).ok()?;
    let mut fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    let ours = fields.any(|(name, _)| name.eq_ignore_ascii_case(REQUEST_ID));
    (status.is_client_error() && !ours).then_some((begin, status))
}

/// The whole answer to a request that could not be read. The connection ends with it.
fn answer(plane: &Plane, status: StatusCode) -> Vec<u8> {
    let limits = &plane.settings.ingress;
    let rejection = match status {
        StatusCode::URI_TOO_LONG => Rejection::UriTooLong { limit: limits.uri_bytes_max },
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            Rejection::HeadersTooLarge { headers_max: limits.headers_max, bytes_max: limits.header_bytes_max }
        }
        _ => Rejection::RequestUnreadable,
    };
    plane.metrics.trigger(rejection.code(), std::time::Duration::ZERO);
    let request_id = Uuid::now_v7().to_string();
    let (head, body) = rejection.into_response(&request_id).into_parts();
    let body = futures::FutureExt::now_or_never(body.collect()).and_then(Result::ok);
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {}\r\n{REQUEST_ID}: {request_id}\r\n", head.status).into_bytes();
    for (name, value) in head.headers.iter().filter(|(name, _)| **name != http::header::CONNECTION) {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend(format!("connection: close\r\ncontent-length: {}\r\n\r\n", body.len()).bytes());
    bytes.extend(body);
    bytes
}

impl<S: Write + Unpin> Write for Answering<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, written: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream, plane, instead } = self.get_mut();
        let mut stream = Pin::new(stream);
        let pending = match instead {
            Some(pending) => pending,
            None => match bare(written) {
                None => return stream.poll_write(context, written),
                Some((0, status)) => {
                    instead.insert(Instead { bytes: answer(plane, status), sent: 0, of: written.len() })
                }
                // Earlier answers first.
                Some((begin, _)) => return stream.poll_write(context, &written[..begin]),
            },
        };
        while pending.sent < pending.bytes.len() {
            match ready!(stream.as_mut().poll_write(context, &pending.bytes[pending.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => pending.sent += sent,
            }
        }
        let of = pending.of;
        *instead = None;
        Poll::Ready(Ok(of))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

impl<S: Read + Unpin> Read for Answering<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, into)
    }
}
