//! Why a caller is not known: by its key, its certificate or its join token.

/// Why a caller is not known by its key. What a key's owner alone may learn is told only to who showed the whole key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyProblem {
    /// There is not exactly one.
    Missing,
    /// It does not look like one.
    Malformed,
    /// Its checksum is of another.
    Mistyped,
    /// There is no such key.
    Unknown,
    /// It was revoked.
    Revoked,
    /// Its time is over.
    Expired,
    /// It may not be used from there.
    Network,
}

impl KeyProblem {
    /// Its name in numbers.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Mistyped => "mistyped",
            Self::Unknown => "unknown",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Network => "network",
        }
    }

    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Missing => "send exactly one header `authorization: Bearer <API key>`",
            Self::Malformed => "what was sent in `authorization: Bearer <API key>` does not look like an API key",
            Self::Mistyped => "the API key is mistyped or cut: its checksum does not fit",
            Self::Unknown => "the API key is not known",
            Self::Revoked => "the API key was revoked",
            Self::Expired => "the API key has expired",
            Self::Network => "the API key may not be used from this address",
        }
    }
}

/// Why a data plane is not known by its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CertificateProblem {
    /// There is none.
    Missing,
    /// It is of something else than a data plane.
    Foreign,
    /// Its time is over.
    Expired,
    /// The data plane was deleted, or has joined again since.
    Revoked,
    /// It names another data plane than the message.
    OtherId,
    /// Its data plane does not see this workspace.
    OtherWorkspace,
}

impl CertificateProblem {
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Missing => "data planes come here with a certificate: join with a join token",
            Self::Foreign => "the certificate is not one of a data plane",
            Self::Expired => "the certificate has expired: renew it within 7 days after its end, or join again",
            Self::Revoked => "the data plane was deleted, or has joined again: join with a new join token",
            Self::OtherId => "the certificate names another data plane",
            Self::OtherWorkspace => "the data plane has no part in this workspace",
        }
    }
}

/// Why a join token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenProblem {
    /// It is none, cut or mistyped.
    Malformed,
    /// There is no such token.
    Unknown,
    /// Its time is over.
    Expired,
    /// Another data plane has joined with it.
    Used,
}

impl TokenProblem {
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Malformed => "the join token is cut or mistyped: its checksum does not fit",
            Self::Unknown => "the join token is not known",
            Self::Expired => "the join token has expired: make another one",
            Self::Used => "the join token was used already: make another one",
        }
    }
}
