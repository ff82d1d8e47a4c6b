//! How a connection authenticates and signs requests (R020 to R060, D21). Pure: answers, time and ids come in.
//!
//! Hides every kind of credential behind four questions:
//!
//! | Function | Answers |
//! |---|---|
//! | [`auth_request`] | which request gets a token, if the kind needs one |
//! | [`read_answer`] | what its answer is good for, and for how long |
//! | [`credential`] | what is put on a request |
//! | [`sign`] | what is added to a request that is otherwise finished |
//!
//! The order for one attempt: a token if [`auth_request`] gives a request (fetched once, kept for [`Token::lifetime`]);
//! [`credential`] put on the request; [`sign`] by the same connection (only Eagle Eye's hash comes from here) and then by
//! the request's `signature`. Nothing is sent when one of them fails (D21, S22).
//!
//! A new kind of connection touches: its message in `connection.proto`; [`Scheme`](crate::model::Scheme); its rules in
//! `wire/connection.rs` (or `wire/signing.rs`) and its secrets in `wire/secrets.rs`; the four functions here; the lists of
//! fields in `control-plane/src/resource.rs`; and cases in `tests/golden/credentials` and `tests/it/connections.rs`. The
//! compiler leads through all of them but the lists of fields, which a test compares with the contract.

mod custom;
mod masked;
mod oauth2;
mod sha256;
mod signing;
mod synerise;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use crate::address::MAX_URL_BYTES;
use crate::address::UrlPolicy;
use crate::flatten::{Limits, parse_body};
use crate::model::{Placement, Scheme};
use crate::redact::MASK;
use crate::request::HEADER_BYTES_MAX;
use crate::seal::Secret;
use crate::template::{Context, OnMissing, Unrendered, Value};

pub(crate) use self::custom::ANSWER_VARIABLES;
pub use self::masked::{MaskedAnswer, mask_answer, mask_placed};
pub use self::signing::Finished;
pub(crate) use self::synerise::LOGIN_URL_DEFAULT;

/// Longest answer of a token endpoint that is read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long a token is used at least and at most, whatever its answer says (R12).
pub const LIFETIME_LIMITS: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(24 * 3600));
/// How long a token is used whose answer does not say.
pub const LIFETIME_DEFAULT: Duration = Duration::from_secs(5 * 60);
/// What is kept back of a token's lifetime at most, for requests that are on their way when it ends: a tenth, or this.
pub const MARGIN_MAX: Duration = Duration::from_secs(60);

/// What a connection adds to each request sent with it (R039). Values are secrets and stay out of `Debug`.
#[derive(Clone, Debug, Default)]
pub struct Credential {
    /// Headers; each replaces one of the same name (S28).
    pub headers: Vec<(String, Secret)>,
    /// URL parameters to append (R037), as plain text: they are encoded where they are put.
    pub url_parameters: Vec<(String, Secret)>,
}

/// A request that gets a token. Where it goes has been checked (D20).
#[derive(Clone, Debug)]
pub struct AuthRequest {
    /// An upper-case HTTP method.
    pub method: &'static str,
    /// The URL, percent-encoded; a custom connection may have its secret in it.
    pub url: Secret,
    /// Names and values.
    pub headers: Vec<(String, Secret)>,
    /// Absent: no body is sent.
    pub body: Option<Secret>,
}

/// What a token endpoint answered.
#[derive(Clone, Copy)]
pub struct Answer<'a> {
    /// The status.
    pub status: u16,
    /// Names and values.
    pub headers: &'a [(String, String)],
    /// As sent.
    pub body: &'a [u8],
    /// More body followed that was not read.
    pub truncated: bool,
}

/// What an answer is good for. Lifetimes count from when the answer arrived, by a clock that cannot jump (R19).
#[derive(Clone, Debug)]
pub struct Token {
    credential: Credential,
    /// How long it may be put on requests; what is kept back is taken off already.
    pub lifetime: Duration,
    /// When a fresh one is due, ahead of its end. A custom connection's is not fetched ahead: its TTL is how often its author
    /// wants the request to be made (R042).
    pub refresh_after: Duration,
}

impl Token {
    /// One that is good for `whole`, held within [`LIFETIME_LIMITS`], less the margin.
    fn lasting(credential: Credential, whole: Duration) -> Self {
        let whole = whole.clamp(LIFETIME_LIMITS.0, LIFETIME_LIMITS.1);
        Self { credential, lifetime: whole - (whole / 10).min(MARGIN_MAX), refresh_after: whole / 5 * 4 }
    }
}

/// Why there are no credentials; the main request is not sent (S22). No message holds anything of an answer or a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthFailure {
    /// The authorization request could not be made.
    #[error("the authorization request could not be made: {0}")]
    Request(String),
    /// Not 200 to 299. Redirects are not followed (S25).
    #[error("the authorization request was answered with status {0}; a token comes with 200 to 299")]
    Status(u16),
    /// Over [`ANSWER_BYTES_MAX`].
    #[error("the answer to the authorization request is longer than {ANSWER_BYTES_MAX} bytes")]
    AnswerTooLong,
    /// An HTML page, say.
    #[error("the answer to the authorization request is not a JSON object within the limits of a request body")]
    NotJson,
    /// No such field, or it is not a text, or an empty one.
    #[error("the answer to the authorization request has no token in its field `{0}`")]
    TokenMissing(String),
    /// Over what a header can carry.
    #[error("the token does not fit into a header or URL parameter of {HEADER_BYTES_MAX} bytes")]
    TokenTooLong,
    /// Over what a header or a URL can carry: its name, and the limit in bytes.
    #[error("`{0}` with the credentials is longer than {1} bytes: nothing can be sent with it")]
    TooLong(String, usize),
    /// A line break, a space, a character beyond ASCII.
    #[error("the token holds characters that cannot be sent in a header")]
    TokenCharacters,
    /// Another type than the header is for (RFC 6749, 7.1).
    #[error("the token is of another type than `Bearer` and the connection's header scheme")]
    TokenType,
    /// The lifetime is no positive number.
    #[error("the answer's field `{0}` is not a lifetime: a number above 0 is expected")]
    Lifetime(String),
    /// It had ended when it arrived.
    #[error("the token had expired when it arrived; are the clocks right?")]
    Expired,
    /// Three parts, the second the base64 of a JSON object with a number `exp`.
    #[error("the token is not a JWT with an `exp`")]
    Jwt,
    /// A template of the connection failed: its field and what is wrong.
    #[error("{0}")]
    Template(String),
    /// What a template put in place is empty, or has no token behind its first word.
    #[error("{0}: nothing of the answer is left to send")]
    Empty(String),
    /// A token is needed first.
    #[error("there is no token")]
    NoToken,
    /// Asked to authenticate with a connection that signs.
    #[error("the connection signs requests and does not authenticate them")]
    NotForAuthentication,
    /// Asked to sign with a connection that authenticates.
    #[error("the connection authenticates requests and does not sign them")]
    NotForSigning,
    /// A secret is not there.
    #[error("the connection has no secret to sign with")]
    NoKey,
    /// The request lacks a header that is to be signed.
    #[error("the header `{0}`, which is to be signed, is not part of the request")]
    HeaderMissing(String),
}

impl AuthFailure {
    /// The reason code, part of the contract.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Request(_) => "auth.request",
            Self::Status(_) => "auth.status",
            Self::AnswerTooLong => "auth.answer_too_long",
            Self::NotJson => "auth.not_json",
            Self::TokenMissing(_) => "auth.token_missing",
            Self::TokenTooLong => "auth.token_too_long",
            Self::TooLong(..) => "auth.too_long",
            Self::TokenCharacters => "auth.token_characters",
            Self::TokenType => "auth.token_type",
            Self::Lifetime(_) => "auth.lifetime",
            Self::Expired => "auth.expired",
            Self::Jwt => "auth.jwt",
            Self::Template(_) => "auth.template",
            Self::Empty(_) => "auth.empty",
            Self::NoToken => "auth.no_token",
            Self::NotForAuthentication => "auth.not_for_authentication",
            Self::NotForSigning => "auth.not_for_signing",
            Self::NoKey => "auth.no_key",
            Self::HeaderMissing(_) => "auth.header_missing",
        }
    }
}

/// The request that gets a token; `None` for kinds that need none. `now`, in milliseconds since 1970, is what templates see.
///
/// # Errors
/// A template of the request failed, or its rendered URL may not be called.
pub fn auth_request(scheme: &Scheme, urls: &UrlPolicy, now: i64) -> Result<Option<AuthRequest>, AuthFailure> {
    match scheme {
        Scheme::OAuth2ClientCredentials(oauth2) => Ok(Some(oauth2::auth_request(oauth2))),
        Scheme::SyneriseApiKey { api_key, login_url } => Ok(Some(synerise::auth_request(api_key, login_url))),
        Scheme::Custom(custom) => custom::auth_request(custom, urls, now).map(Some),
        Scheme::None
        | Scheme::LoginPassword { .. }
        | Scheme::ApiKey { .. }
        | Scheme::Sha256 { .. }
        | Scheme::StandardWebhooks { .. }
        | Scheme::HmacSignature(_) => Ok(None),
    }
}

/// What the answer to the scheme's [`auth_request`] is good for. `now`, in milliseconds since 1970, is what an absolute end
/// is compared with.
///
/// # Errors
/// Whatever keeps it from being put on a request (R12); and [`AuthFailure::NoToken`] for kinds that ask for none.
pub fn read_answer(scheme: &Scheme, answer: Answer<'_>, now: i64) -> Result<Token, AuthFailure> {
    if !(200..300).contains(&answer.status) {
        return Err(AuthFailure::Status(answer.status));
    }
    if answer.truncated || answer.body.len() > ANSWER_BYTES_MAX {
        return Err(AuthFailure::AnswerTooLong);
    }
    match scheme {
        Scheme::OAuth2ClientCredentials(oauth2) => oauth2::read_answer(oauth2, answer.body, now),
        Scheme::SyneriseApiKey { .. } => synerise::read_answer(answer.body, now),
        Scheme::Custom(custom) => custom::read_answer(custom, answer, now),
        Scheme::None
        | Scheme::LoginPassword { .. }
        | Scheme::ApiKey { .. }
        | Scheme::Sha256 { .. }
        | Scheme::StandardWebhooks { .. }
        | Scheme::HmacSignature(_) => Err(AuthFailure::NoToken),
    }
}

/// What one placement of a connection gives.
#[derive(Clone, Debug)]
pub struct Placed {
    /// [`HEADERS`] or [`URL_PARAMETERS`].
    pub list: &'static str,
    /// Its field, for example `headers[0].value`.
    pub field: String,
    /// The header or URL parameter.
    pub name: String,
    /// The value, or why there is none.
    pub value: Result<Secret, AuthFailure>,
}

/// The list of placements in headers.
pub const HEADERS: &str = "headers";
/// The list of placements in URL parameters.
pub const URL_PARAMETERS: &str = "url_parameters";

/// What each placement of a connection gives for the answer to its [`auth_request`], or for none where it asks for none: for an
/// author to look at (R048).
pub fn placements(scheme: &Scheme, answer: Option<Answer<'_>>, now: i64) -> Vec<Placed> {
    let all = |credential: Result<Credential, AuthFailure>| match credential {
        Ok(Credential { headers, url_parameters }) => {
            let placed = |list: &'static str| {
                move |(index, (name, value)): (usize, (String, Secret))| Placed {
                    list,
                    field: format!("{list}[{index}].value"),
                    name,
                    value: Ok(value),
                }
            };
            let headers = headers.into_iter().enumerate().map(placed(HEADERS));
            headers.chain(url_parameters.into_iter().enumerate().map(placed(URL_PARAMETERS))).collect()
        }
        Err(failure) => {
            let failed = |name: &str| Placed {
                list: HEADERS,
                field: String::new(),
                name: name.to_owned(),
                value: Err(failure.clone()),
            };
            header_names(scheme).into_iter().map(failed).collect()
        }
    };
    match (scheme, answer) {
        (Scheme::Custom(custom), Some(answer)) => custom::placements(custom, answer, now),
        (_, Some(answer)) => all(read_answer(scheme, answer, now).map(|token| token.credential)),
        (_, None) => all(credential(scheme, None)),
    }
}

/// What a connection puts on a request; `token` is what [`read_answer`] made for this version of the connection.
///
/// # Errors
/// The kind needs a token and there is none, or signs, or a template of it fails, or it makes more than can be sent.
pub fn credential(scheme: &Scheme, token: Option<&Token>) -> Result<Credential, AuthFailure> {
    let credential = unchecked(scheme, token)?;
    let longer = |(name, value): &&(String, Secret), limit: usize| name.len() + value.expose().len() > limit;
    let headers = credential.headers.iter().map(|one| (one, HEADER_BYTES_MAX));
    let parameters = credential.url_parameters.iter().map(|one| (one, MAX_URL_BYTES));
    match headers.chain(parameters).find(|(one, limit)| longer(one, *limit)) {
        Some(((name, _), limit)) => Err(AuthFailure::TooLong(name.clone(), limit)),
        None => Ok(credential),
    }
}

fn unchecked(scheme: &Scheme, token: Option<&Token>) -> Result<Credential, AuthFailure> {
    match scheme {
        Scheme::None | Scheme::Sha256 { .. } => Ok(Credential::default()),
        Scheme::LoginPassword { login, password } => {
            let header = ("Authorization".to_owned(), basic(login, password));
            Ok(Credential { headers: vec![header], url_parameters: Vec::new() })
        }
        Scheme::ApiKey { secret, placements } => {
            let mut context = Context::new();
            context.set("secret", Value::from(secret.expose()));
            let url_parameters = place("url_parameters", &placements.url_parameters, &context, OnMissing::Empty)?;
            Ok(Credential {
                headers: place("headers", &placements.headers, &context, OnMissing::Empty)?,
                url_parameters,
            })
        }
        Scheme::OAuth2ClientCredentials(_) | Scheme::SyneriseApiKey { .. } | Scheme::Custom(_) => {
            token.map(|token| token.credential.clone()).ok_or(AuthFailure::NoToken)
        }
        Scheme::StandardWebhooks { .. } | Scheme::HmacSignature(_) => Err(AuthFailure::NotForAuthentication),
    }
}

/// The headers that a connection puts on a request, whatever their values.
pub fn header_names(scheme: &Scheme) -> Vec<&str> {
    match scheme {
        Scheme::None => Vec::new(),
        Scheme::LoginPassword { .. } | Scheme::SyneriseApiKey { .. } => vec!["Authorization"],
        Scheme::ApiKey { placements, .. } => placed(&placements.headers),
        Scheme::OAuth2ClientCredentials(oauth2) => vec![&oauth2.header_name],
        Scheme::Custom(custom) => placed(&custom.placements.headers),
        Scheme::Sha256 { .. } => sha256::HEADERS.to_vec(),
        Scheme::StandardWebhooks { .. } => signing::STANDARD_WEBHOOKS_HEADERS.to_vec(),
        Scheme::HmacSignature(recipe) => {
            let own = [&recipe.timestamp_header, &recipe.id_header];
            own.into_iter().flatten().chain([&recipe.header_name]).map(String::as_str).collect()
        }
    }
}

/// What [`credential`] and [`sign`] put on a request, masks in place of the values.
pub fn masked(scheme: &Scheme) -> Credential {
    let mask = |name: &str| (name.to_owned(), Secret::new(MASK));
    let url_parameters = match scheme {
        Scheme::ApiKey { placements, .. } => placed(&placements.url_parameters),
        Scheme::Custom(custom) => placed(&custom.placements.url_parameters),
        Scheme::None
        | Scheme::LoginPassword { .. }
        | Scheme::OAuth2ClientCredentials(_)
        | Scheme::SyneriseApiKey { .. }
        | Scheme::Sha256 { .. }
        | Scheme::StandardWebhooks { .. }
        | Scheme::HmacSignature(_) => Vec::new(),
    };
    Credential {
        headers: header_names(scheme).into_iter().map(mask).collect(),
        url_parameters: url_parameters.into_iter().map(mask).collect(),
    }
}

fn placed(placements: &[Placement]) -> Vec<&str> {
    placements.iter().map(|placement| placement.name.as_str()).collect()
}

/// What is added to a request that is finished but for this; nothing for kinds that look at no request.
///
/// # Errors
/// A secret or a header that is to be signed is not there, or a template fails.
pub fn sign(scheme: &Scheme, request: &Finished<'_>) -> Result<Credential, AuthFailure> {
    let headers = match scheme {
        Scheme::Sha256 { client_id, client_secret } => sha256::headers(client_id, client_secret, request),
        Scheme::StandardWebhooks { keys } => signing::standard_webhooks(keys, request)?,
        Scheme::HmacSignature(recipe) => signing::hmac_signature(recipe, request)?,
        Scheme::None
        | Scheme::LoginPassword { .. }
        | Scheme::ApiKey { .. }
        | Scheme::OAuth2ClientCredentials(_)
        | Scheme::SyneriseApiKey { .. }
        | Scheme::Custom(_) => Vec::new(),
    };
    Ok(Credential { headers, url_parameters: Vec::new() })
}

/// The value of a header that authorises by login and password (R023), in UTF-8. A login holds no `:` (RFC 7617), which is
/// seen to where it is saved.
pub fn basic(login: &str, password: &Secret) -> Secret {
    let pair = Secret::new(format!("{login}:{}", password.expose()));
    Secret::new(format!("Basic {}", STANDARD.encode(pair.expose())))
}

/// Renders a connection's templates.
fn place(
    list: &str,
    placements: &[Placement],
    context: &Context,
    on_missing: OnMissing,
) -> Result<Vec<(String, Secret)>, AuthFailure> {
    let print = |(index, placement): (usize, &Placement)| {
        let value = render_placement(&format!("{list}[{index}].value"), placement, context, on_missing)?;
        Ok((placement.name.clone(), value))
    };
    placements.iter().enumerate().map(print).collect()
}

fn render_placement(
    field: &str,
    placement: &Placement,
    context: &Context,
    on_missing: OnMissing,
) -> Result<Secret, AuthFailure> {
    let rendered = placement.value.render(context, on_missing).map_err(|unrendered| failed(field, unrendered))?;
    Ok(Secret::new(rendered.text))
}

/// A template of a connection gave nothing to send.
fn failed(field: &str, unrendered: Unrendered) -> AuthFailure {
    let error = unrendered.into_error();
    AuthFailure::Template(format!("{field}: {} (line {}, column {})", error.message, error.line, error.column))
}

/// The JSON object that a token endpoint answered.
fn json_object(body: &[u8]) -> Result<Json, AuthFailure> {
    let parsed = parse_body(body, &Limits::default()).map_err(|_| AuthFailure::NotJson)?;
    if parsed.is_object() { Ok(parsed) } else { Err(AuthFailure::NotJson) }
}

/// A field of an answer: of this whole name, or where its dots lead.
fn field<'j>(object: &'j Json, name: &str) -> Option<&'j Json> {
    let by_path = || name.split('.').try_fold(object, |place, key| place.get(key));
    object.get(name).or_else(by_path)
}

/// A text that can be sent as a token: visible ASCII (RFC 6750, 2.1 allows less still), short enough for a header.
fn token_text(object: &Json, name: &str) -> Result<Secret, AuthFailure> {
    let text = field(object, name).and_then(Json::as_str).filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| AuthFailure::TokenMissing(name.to_owned()))?;
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(AuthFailure::TokenCharacters);
    }
    Ok(Secret::new(text))
}

/// One header with a token.
fn header(name: &str, value: Secret) -> Result<Credential, AuthFailure> {
    if name.len() + value.expose().len() > HEADER_BYTES_MAX {
        return Err(AuthFailure::TokenTooLong);
    }
    Ok(Credential { headers: vec![(name.to_owned(), value)], url_parameters: Vec::new() })
}

/// From `now`, in milliseconds since 1970, to `end`, in seconds.
fn until(end: f64, now: i64) -> Result<Duration, AuthFailure> {
    // As a float a moment is exact to the millisecond for longer than there will be tokens.
    let left = end - now as f64 / 1000.0;
    if left > 0.0 { Ok(seconds(left)) } else { Err(AuthFailure::Expired) }
}

/// A number of seconds above 0; what is too long to count is long enough.
fn seconds(number: f64) -> Duration {
    Duration::try_from_secs_f64(number).unwrap_or(LIFETIME_LIMITS.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_is_base64_of_login_and_password() {
        // RFC 7617, section 2; a password may hold what it likes (O13).
        assert_eq!(basic("Aladdin", &Secret::new("open sesame")).expose(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(basic("test", &Secret::new("123\u{a3}:")).expose(), "Basic dGVzdDoxMjPCozo=");
        assert_eq!(basic("a", &Secret::default()).expose(), "Basic YTo=");
    }

    #[test]
    fn a_token_is_used_less_long_than_it_lives_and_never_for_days() {
        let of = |whole| {
            let token = Token::lasting(Credential::default(), Duration::from_secs(whole));
            (token.lifetime.as_secs(), token.refresh_after.as_secs())
        };
        assert_eq!(of(1), (27, 24));
        assert_eq!(of(300), (270, 240));
        assert_eq!(of(3600), (3540, 2880));
        assert_eq!(of(1_000_000), (86_340, 69_120));
    }
}
