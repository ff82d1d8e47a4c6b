//! Every way a trigger can be refused, and the one table of HTTP answers for them (D12).

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use sluice_core::dedup::DedupHeaderInvalid;
use sluice_core::flatten::BodyError;
use sluice_core::incoming_auth::HandshakeFailure;

/// What is wrong with who sends.
#[derive(Debug)]
pub enum SenderRejection {
    /// The signature is missing or wrong. Never says which.
    Signature,
    /// There is no token, or not one that is accepted. Never says why.
    Token,
    /// The token is good, and is of another API key or lacks the permission (R153).
    Forbidden,
    /// The Meta handshake was refused or malformed.
    Handshake(HandshakeFailure),
    /// A login that is not `{"apiKey": "…"}`.
    LoginUnreadable,
    /// The API key is not known, or no longer in force. Never says which.
    ApiKey,
    /// The API key is good, and not for where it is used from.
    Network,
    /// Too many keys that were not accepted came from this address.
    TooManyFailures,
}

/// A refused request.
#[derive(Debug)]
pub enum Rejection {
    /// Not all configuration has been seen yet, or some could not be used, so an unknown endpoint may well exist.
    NotReady,
    /// The endpoint, or what its requests start, cannot be served by this data plane.
    Quarantined,
    /// This data plane is being drained.
    Draining,
    /// No published integration has this endpoint.
    EndpointUnknown,
    /// The endpoint is paused.
    Paused,
    /// The endpoint does not take this method.
    MethodNotAllowed {
        /// What it takes.
        allow: &'static str,
    },
    /// The path and query are too long.
    UriTooLong {
        /// Bytes.
        limit: usize,
    },
    /// Too many headers, or too large together.
    HeadersTooLarge {
        /// How many.
        headers_max: usize,
        /// Bytes.
        bytes_max: usize,
    },
    /// What came is not an HTTP request.
    RequestUnreadable,
    /// Not exactly one `Host` header.
    HostInvalid,
    /// A transfer coding other than `chunked`.
    TransferCodingUnknown,
    /// More requests than the endpoint takes.
    RateLimited {
        /// When the next one may come.
        retry_after: Duration,
    },
    /// The body is too large.
    BodyTooLarge {
        /// Bytes.
        limit: usize,
    },
    /// The body did not arrive in time.
    BodyTimeout {
        /// The deadline.
        limit: Duration,
    },
    /// The connection broke before the body was whole.
    BodyIncomplete,
    /// Who sends it may not.
    Sender(SenderRejection),
    /// `Content-Type` is not `application/json`.
    ContentTypeUnsupported,
    /// `Content-Encoding` is there.
    ContentEncodingUnsupported,
    /// The body is not JSON, or breaks a limit.
    BodyInvalid(BodyError),
    /// `X-Deduplication-Hash` breaks its rules.
    DedupHeader(DedupHeaderInvalid),
    /// The queue is full.
    QueueFull,
    /// The inbox cannot keep anything now.
    StoreUnavailable,
    /// Too many requests are in work.
    Overloaded,
    /// The answer took too long; the request may have been kept.
    AnswerTimeout,
}

struct Answer {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after: Option<Duration>,
    /// What is left of the request is not worth reading.
    close: bool,
}

impl Answer {
    fn plain(status: StatusCode, code: &'static str, message: &str) -> Self {
        Self { status, code, message: message.to_owned(), retry_after: None, close: false }
    }

    /// 503, to be sent again after so many seconds.
    fn later(code: &'static str, message: &str, seconds: u64) -> Self {
        let retry_after = Some(Duration::from_secs(seconds));
        Self { retry_after, ..Self::plain(StatusCode::SERVICE_UNAVAILABLE, code, message) }
    }
}

impl SenderRejection {
    fn row(&self) -> Answer {
        const UNKNOWN: &str = "the request could not be authenticated";
        match self {
            Self::Signature | Self::Token => Answer::plain(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", UNKNOWN),
            Self::Forbidden => Answer::plain(
                StatusCode::FORBIDDEN,
                "FORBIDDEN",
                "the token is of another API key, or lacks the permission INCOMING_WEBHOOK_EXECUTE",
            ),
            Self::Handshake(HandshakeFailure::Forbidden) => {
                Answer::plain(StatusCode::FORBIDDEN, "HANDSHAKE_REFUSED", "the verification was refused")
            }
            Self::Handshake(HandshakeFailure::BadChallenge) => Answer::plain(
                StatusCode::BAD_REQUEST,
                "CHALLENGE_INVALID",
                "hub.challenge must be 1 to 128 letters, digits, `_` and `-`",
            ),
            Self::LoginUnreadable => {
                Answer::plain(StatusCode::BAD_REQUEST, "LOGIN_INVALID", "send {\"apiKey\": \"<API key>\"}")
            }
            Self::ApiKey => Answer::plain(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "the API key was not accepted"),
            Self::Network => Answer::plain(
                StatusCode::FORBIDDEN,
                "NETWORK_NOT_ALLOWED",
                "the API key may not be used from this address",
            ),
            Self::TooManyFailures => Answer {
                retry_after: Some(Duration::from_secs(60)),
                ..Answer::plain(
                    StatusCode::TOO_MANY_REQUESTS,
                    "TOO_MANY_FAILURES",
                    "too many logins from this address were refused; try again in a minute",
                )
            },
        }
    }

    /// What a sender has to show.
    fn scheme(&self) -> Option<&'static str> {
        match self {
            Self::Signature => Some("X-Hub-Signature-256"),
            Self::Token => Some("Bearer"),
            Self::ApiKey => Some("ApiKey"),
            Self::Forbidden | Self::Handshake(_) | Self::LoginUnreadable | Self::Network | Self::TooManyFailures => {
                None
            }
        }
    }
}

impl Rejection {
    /// The reason as metrics name it.
    pub fn code(&self) -> &'static str {
        self.answer().code
    }

    fn answer(&self) -> Answer {
        let plain = Answer::plain;
        let last = |status, code, message: &str| Answer { close: true, ..plain(status, code, message) };
        let later = Answer::later;
        match self {
            Self::NotReady => later("NOT_READY", "not all configuration has been loaded yet; send it again", 1),
            Self::Quarantined => {
                later("CONFIGURATION_QUARANTINED", "it cannot be served here; send it again later", 30)
            }
            Self::Draining => later("DRAINING", "this data plane is being drained; send it again", 1),
            Self::EndpointUnknown => plain(StatusCode::NOT_FOUND, "ENDPOINT_UNKNOWN", "no such endpoint"),
            Self::Paused => later("ENDPOINT_PAUSED", "the endpoint is paused; send it again later", 60),
            Self::MethodNotAllowed { allow } => {
                plain(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", &format!("send {allow}"))
            }
            Self::UriTooLong { limit } => {
                let message = format!("the path and query are longer than {limit} bytes");
                plain(StatusCode::URI_TOO_LONG, "URI_TOO_LONG", &message)
            }
            Self::HeadersTooLarge { headers_max, bytes_max } => {
                let message = format!("more than {headers_max} headers, or more than {bytes_max} bytes of them");
                plain(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "HEADERS_TOO_LARGE", &message)
            }
            Self::RequestUnreadable => {
                plain(StatusCode::BAD_REQUEST, "REQUEST_UNREADABLE", "this is not an HTTP/1.1 request")
            }
            Self::HostInvalid => plain(StatusCode::BAD_REQUEST, "HOST_INVALID", "exactly one Host header is required"),
            Self::TransferCodingUnknown => {
                last(StatusCode::BAD_REQUEST, "TRANSFER_CODING_UNKNOWN", "only chunked is accepted")
            }
            Self::RateLimited { retry_after } => Answer {
                retry_after: Some(*retry_after),
                ..plain(
                    StatusCode::TOO_MANY_REQUESTS,
                    "RATE_LIMITED",
                    "more requests than this endpoint takes; send it again later",
                )
            },
            Self::BodyTooLarge { limit } => {
                let message = format!("the body is larger than {limit} bytes");
                last(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", &message)
            }
            Self::BodyTimeout { limit } => {
                let message = format!("the body did not arrive within {} s", limit.as_secs());
                last(StatusCode::REQUEST_TIMEOUT, "BODY_TIMEOUT", &message)
            }
            Self::BodyIncomplete => last(StatusCode::BAD_REQUEST, "BODY_INCOMPLETE", "the body broke off"),
            Self::Sender(refused) => refused.row(),
            Self::ContentTypeUnsupported => plain(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "CONTENT_TYPE_UNSUPPORTED",
                "Content-Type must be application/json (R145)",
            ),
            Self::ContentEncodingUnsupported => plain(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "CONTENT_ENCODING_UNSUPPORTED",
                "send the body without Content-Encoding",
            ),
            Self::BodyInvalid(error) => plain(StatusCode::BAD_REQUEST, error.code(), &error.to_string()),
            Self::DedupHeader(error) => {
                plain(StatusCode::BAD_REQUEST, "DEDUPLICATION_HASH_INVALID", &error.to_string())
            }
            Self::QueueFull => later("QUEUE_FULL", "the queue is full; send it again later", 10),
            Self::StoreUnavailable => later("STORE_UNAVAILABLE", "the request could not be kept; send it again", 2),
            Self::Overloaded => later("OVERLOADED", "too many requests at once; send it again", 1),
            Self::AnswerTimeout => {
                later("ANSWER_TIMEOUT", "no answer in time; send it again with the same deduplication values", 2)
            }
        }
    }

    /// The HTTP answer.
    pub fn into_response(self, request_id: &str) -> Response<Full<Bytes>> {
        let answer = self.answer();
        let body = serde_json::json!({
            "error": { "code": answer.code, "message": answer.message, "request_id": request_id }
        });
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = answer.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Self::MethodNotAllowed { allow } = self {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Self::Sender(refused) = &self
            && let Some(scheme) = refused.scheme()
        {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
        }
        if let Some(retry_after) = answer.retry_after {
            let seconds = retry_after.as_millis().div_ceil(1000).max(1);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
        }
        if answer.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
