//! Connections: what is stored about each kind of credential. What is done with it: [`crate::credentials`].

use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

use super::RequestTemplate;
use crate::address::CheckedUrl;
use crate::seal::Secret;
use crate::template::Template;

/// Stored credentials (R020).
#[derive(Debug)]
pub struct Connection {
    /// `workspaces/{workspace}/connections/{id}`.
    pub name: String,
    /// Grows by one with every change.
    pub version: i64,
    /// Where requests with it may go.
    pub allowed_hosts: AllowedHosts,
    /// How they are put on a request.
    pub scheme: Scheme,
}

/// Hosts a connection is bound to; none listed: any host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts(pub Vec<HostPattern>);

impl AllowedHosts {
    /// Whether requests may go to `host`, which is canonical ([`CheckedUrl::host`]).
    pub fn allow(&self, host: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.matches(host))
    }
}

/// A host, or all hosts below one; lower case, punycode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// This host.
    Exact(String),
    /// Every host below this one, not itself.
    Below(String),
}

impl HostPattern {
    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => host == exact,
            Self::Below(suffix) => {
                host.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
        }
    }
}

/// What a connection is good for: a request names one of each at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// `connection` of a request.
    Authenticates,
    /// `signature` of a request.
    Signs,
}

/// How requests are authenticated or signed. Matched without a wildcard everywhere; the module header of
/// [`crate::credentials`] lists what a new kind touches.
#[derive(Debug)]
pub enum Scheme {
    /// Nothing is added (R022).
    None,
    /// HTTP basic authentication (R023).
    LoginPassword {
        /// Without `:`.
        login: String,
        /// May be empty.
        password: Secret,
    },
    /// A secret placed by templates (R034).
    ApiKey {
        /// What `{{secret}}` prints.
        secret: Secret,
        /// Where it goes.
        placements: Placements,
    },
    /// An access token of the client-credentials grant (R031).
    OAuth2ClientCredentials(Box<OAuth2ClientCredentials>),
    /// A JWT got by logging in (R028).
    SyneriseApiKey {
        /// Logs in.
        api_key: Secret,
        /// Where.
        login_url: CheckedUrl,
    },
    /// The answer of a request of the author's own, placed by templates (R041).
    Custom(Box<CustomConnection>),
    /// Eagle Eye's hash (R056).
    Sha256 {
        /// Sent.
        client_id: String,
        /// Hashed.
        client_secret: Secret,
    },
    /// Standard Webhooks 1.0.
    StandardWebhooks {
        /// All of them sign.
        keys: Vec<SigningKey>,
    },
    /// HMAC by a recipe.
    HmacSignature(Box<HmacRecipe>),
}

impl Scheme {
    /// What it is good for.
    pub fn purpose(&self) -> Purpose {
        match self {
            Self::None
            | Self::LoginPassword { .. }
            | Self::ApiKey { .. }
            | Self::OAuth2ClientCredentials(_)
            | Self::SyneriseApiKey { .. }
            | Self::Custom(_)
            | Self::Sha256 { .. } => Purpose::Authenticates,
            Self::StandardWebhooks { .. } | Self::HmacSignature(_) => Purpose::Signs,
        }
    }

    /// Whether a token is fetched for it.
    pub fn fetches_token(&self) -> bool {
        match self {
            Self::OAuth2ClientCredentials(_) | Self::SyneriseApiKey { .. } | Self::Custom(_) => true,
            Self::None
            | Self::LoginPassword { .. }
            | Self::ApiKey { .. }
            | Self::Sha256 { .. }
            | Self::StandardWebhooks { .. }
            | Self::HmacSignature(_) => false,
        }
    }

    /// Whether what it adds depends on the rest of the request.
    pub fn signs(&self) -> bool {
        match self {
            Self::Sha256 { .. } | Self::StandardWebhooks { .. } | Self::HmacSignature(_) => true,
            Self::None
            | Self::LoginPassword { .. }
            | Self::ApiKey { .. }
            | Self::OAuth2ClientCredentials(_)
            | Self::SyneriseApiKey { .. }
            | Self::Custom(_) => false,
        }
    }

    /// Steps that its templates take at most, each time a request is sent with it. A custom connection's are rendered when
    /// its answer arrives.
    pub fn steps_most(&self) -> usize {
        match self {
            Self::None
            | Self::LoginPassword { .. }
            | Self::OAuth2ClientCredentials(_)
            | Self::SyneriseApiKey { .. }
            | Self::Custom(_)
            | Self::Sha256 { .. }
            | Self::StandardWebhooks { .. } => 0,
            Self::ApiKey { placements, .. } => placements.steps_most(),
            Self::HmacSignature(recipe) => recipe.header_value.steps_most(),
        }
    }
}

/// Where a credential goes.
#[derive(Debug)]
pub struct Placements {
    /// Headers to set.
    pub headers: Vec<Placement>,
    /// URL parameters to append.
    pub url_parameters: Vec<Placement>,
}

impl Placements {
    /// Steps that their templates take at most.
    pub fn steps_most(&self) -> usize {
        self.headers.iter().chain(&self.url_parameters).map(|placement| placement.value.steps_most()).sum()
    }
}

/// One place for a credential.
#[derive(Debug)]
pub struct Placement {
    /// The header's or parameter's name.
    pub name: String,
    /// What is put there.
    pub value: Template,
}

/// How an access token is got and used (D21).
#[derive(Debug)]
pub struct OAuth2ClientCredentials {
    /// The token endpoint.
    pub token_url: CheckedUrl,
    /// The client.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
    /// Sent unchanged (R033).
    pub scope: Option<String>,
    /// How the client authenticates.
    pub client_authentication: ClientAuthentication,
    /// Further form parameters.
    pub token_parameters: Vec<(String, String)>,
    /// The answer's field with the token.
    pub token_field: String,
    /// The answer's field with its type.
    pub type_field: String,
    /// The answer's field with its lifetime.
    pub lifetime_field: String,
    /// What the lifetime counts.
    pub lifetime_unit: LifetimeUnit,
    /// The header that carries the token.
    pub header_name: String,
    /// The word before the token; empty: none.
    pub header_scheme: String,
}

/// How a client authenticates (RFC 6749, 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// In the form.
    PostBody,
    /// In the `Authorization` header.
    BasicHeader,
}

/// What a token's lifetime counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifetimeUnit {
    /// From now.
    Seconds,
    /// From now.
    Milliseconds,
    /// From now.
    Minutes,
    /// From now.
    Hours,
    /// Since 1970.
    UnixSeconds,
}

/// A request of the author's own and what is done with its answer (R041).
#[derive(Debug)]
pub struct CustomConnection {
    /// What `{{secret}}` prints.
    pub secret: Secret,
    /// Gets the answer.
    pub auth_request: RequestTemplate,
    /// Where the answer goes.
    pub placements: Placements,
    /// How long an answer is used (R043).
    pub ttl: Duration,
}

/// The bytes of a key that signs. Not shown, and cleared when dropped.
#[derive(Clone)]
pub struct SigningKey(Zeroizing<Vec<u8>>);

impl SigningKey {
    /// Takes the bytes over.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What is signed with HMAC, how it is written, and where.
#[derive(Debug)]
pub struct HmacRecipe {
    /// All of them sign.
    pub keys: Vec<SigningKey>,
    /// The hash.
    pub algorithm: HmacAlgorithm,
    /// What is signed, one after the other.
    pub signed: Vec<SignedPart>,
    /// How a signature is written.
    pub encoding: SignatureEncoding,
    /// The header that carries the signatures.
    pub header_name: String,
    /// Before each signature.
    pub signature_prefix: String,
    /// Between signatures.
    pub separator: String,
    /// May use `signatures`, `timestamp` and `messageId`.
    pub header_value: Template,
    /// What the timestamp counts.
    pub timestamp_unit: TimestampUnit,
    /// Carries the timestamp too.
    pub timestamp_header: Option<String>,
    /// Carries the message id too.
    pub id_header: Option<String>,
}

/// The hash of an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HmacAlgorithm {
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// A part of what is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignedPart {
    /// This text.
    Literal(String),
    /// When the attempt is made.
    Timestamp,
    /// The same over all attempts.
    MessageId,
    /// In upper case.
    Method,
    /// The whole URL.
    Url,
    /// Without port.
    Host,
    /// The URL's path.
    Path,
    /// Without `?`.
    Query,
    /// As in the request line.
    Target,
    /// The header's value.
    Header(String),
    /// The bytes sent.
    Body,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureEncoding {
    /// Lower case.
    Hex,
    /// With padding.
    Base64,
}

/// What a timestamp counts since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampUnit {
    /// Whole seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_stands_for_the_names_below_it() {
        let hosts = AllowedHosts(vec![
            HostPattern::Exact("api.example.com".to_owned()),
            HostPattern::Below("shops.example".to_owned()),
        ]);
        for allowed in ["api.example.com", "a.shops.example", "b.a.shops.example"] {
            assert!(hosts.allow(allowed), "{allowed}");
        }
        for refused in [
            "example.com",
            "x.api.example.com",
            "shops.example",
            "evilshops.example",
            ".shops.example",
            "a.shops.example.evil",
        ] {
            assert!(!hosts.allow(refused), "{refused}");
        }
        assert!(AllowedHosts::default().allow("anything.example"));
    }

    #[test]
    fn keys_do_not_print() {
        let key = SigningKey::new(Zeroizing::new(b"CANARY".to_vec()));
        assert_eq!(format!("{key:?}"), "[redacted]");
    }
}
