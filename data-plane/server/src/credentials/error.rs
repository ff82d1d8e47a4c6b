//! Why a token could not be fetched: what is shown of it, counted and logged. It never holds what was sent or answered.

use sluice_core::credentials::AuthFailure;
use sluice_egress::SendError;
use sluice_proto::admin::v1::TokenError;

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum FetchError {
    /// The token request could not be made.
    #[error("{0}")]
    Request(AuthFailure),
    /// There was no whole answer.
    #[error("{}", .0)]
    Send(SendError),
    /// The answer brought no token.
    #[error("{0}")]
    Answer(AuthFailure),
    /// A fault of this program.
    #[error("the token could not be fetched; the log has the details")]
    Internal,
}

impl FetchError {
    /// As it is shown.
    pub(crate) fn shown(&self) -> TokenError {
        match self {
            Self::Request(_) => TokenError::Request,
            Self::Send(error) => sent(error),
            Self::Answer(AuthFailure::Status(300..=399)) => TokenError::Redirected,
            Self::Answer(AuthFailure::Status(400..=499)) => TokenError::Refused,
            Self::Answer(AuthFailure::Status(_)) => TokenError::Server,
            Self::Answer(_) => TokenError::NoToken,
            Self::Internal => TokenError::Internal,
        }
    }

    /// The status that was the reason; 0 when none was.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Answer(AuthFailure::Status(status)) => *status,
            Self::Request(_) | Self::Send(_) | Self::Answer(_) | Self::Internal => 0,
        }
    }

    /// Its label in the numbers.
    pub(crate) fn label(&self) -> &'static str {
        match self.shown() {
            TokenError::Unspecified => "unspecified",
            TokenError::Request => "request",
            TokenError::EgressDenied => "egress_denied",
            TokenError::Dns => "dns",
            TokenError::Connect => "connect",
            TokenError::Tls => "tls",
            TokenError::Timeout => "timeout",
            TokenError::ConnectionClosed => "connection_closed",
            TokenError::AnswerMalformed => "answer_malformed",
            TokenError::Redirected => "redirected",
            TokenError::Refused => "refused",
            TokenError::Server => "server",
            TokenError::NoToken => "no_token",
            TokenError::Internal => "internal",
        }
    }
}

fn sent(error: &SendError) -> TokenError {
    match error {
        SendError::UrlDenied(_) | SendError::LoopDetected | SendError::AddressDenied | SendError::ProxyDenied => {
            TokenError::EgressDenied
        }
        SendError::BadRequest(_) => TokenError::Request,
        SendError::Dns | SendError::DnsTimeout => TokenError::Dns,
        SendError::Connect => TokenError::Connect,
        SendError::TlsHandshake | SendError::CertificateInvalid => TokenError::Tls,
        SendError::Timeout { .. } => TokenError::Timeout,
        SendError::ConnectionClosed { .. } => TokenError::ConnectionClosed,
        SendError::ResponseInvalid => TokenError::AnswerMalformed,
    }
}
