//! JSON Web Tokens of senders: which are accepted (R150, D14), by the rules of RFC 8725.
//!
//! Hides the form of tokens, the strict reading of their headers and claims, and the algorithms. A key is bound to one algorithm
//! when it is read; a token never chooses. Time comes in. A refusal says why for the log and for nobody else: every refused
//! sender gets the same answer.

mod issue;
mod keys;
mod members;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

pub use issue::{Grant, ISSUER, LIFETIME, TokenKey, TokenKeyInvalid};
pub use keys::{Algorithm, KEYS_BYTES_MAX, KEYS_MAX, KeyError, PEM_KEYS_MAX, VerifyingKey};
use members::Members;

/// The longest token that is looked at, in bytes (J31).
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// How far the clocks of issuer and data plane may differ.
pub const LEEWAY: Duration = Duration::from_secs(30);
/// How long a token may live unless a setting says otherwise (J23).
pub const LIFETIME_DEFAULT: Duration = Duration::from_secs(24 * 3600);
/// The longest `kid`, in bytes.
const KID_BYTES_MAX: usize = 128;
/// Header parameters that let a token say how it is to be checked (J14, J15, J18).
const HEADERS_REFUSED: [&str; 8] = ["crit", "b64", "zip", "jwk", "jku", "x5u", "x5c", "enc"];

/// Whose tokens are accepted.
#[derive(Debug)]
pub struct Verifier {
    /// The keys that may have signed.
    pub keys: Vec<VerifyingKey>,
    /// `iss` must be this.
    pub issuer: String,
    /// `aud` must be this, or a list that holds it.
    pub audience: String,
    /// `typ` must be this, whatever its case. `None`: `JWT`, or not there.
    pub token_type: Option<String>,
    /// From `iat` (or now, without one) to `exp`.
    pub lifetime_max: Duration,
}

/// What an accepted token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// `sub`.
    pub subject: Option<String>,
    /// `permissions`; empty when there are none.
    pub permissions: Vec<String>,
    /// From when on it is no longer accepted, in milliseconds since 1970.
    pub until: i64,
}

/// Why a token is refused. For the log and the metrics only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Longer than [`TOKEN_BYTES_MAX`].
    TooLong,
    /// Not three parts of unpadded base64url with a JSON object in the first two, each name once.
    Malformed,
    /// The header has a parameter by which a token would say how it is checked.
    HeaderParameter,
    /// `alg` is missing, or not the one of the key.
    Algorithm,
    /// `typ` is another.
    TokenType,
    /// `kid` breaks its form, or no key has it.
    KeyUnknown,
    /// The key has been replaced, and its time is over.
    KeyRetired,
    /// The signature is wrong.
    Signature,
    /// `exp` is missing, no number, or past.
    Expired,
    /// `nbf` is no number, or to come.
    NotYet,
    /// `iat` is no number, or to come.
    IssuedLater,
    /// It lives longer than it may.
    Lifetime,
    /// `iss` is missing or another.
    Issuer,
    /// `aud` is missing, of another form, or names others only.
    Audience,
    /// `sub` or `permissions` has another form.
    Claims,
}

impl Refused {
    /// As the log and the metrics name it.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::HeaderParameter => "header_parameter",
            Self::Algorithm => "algorithm",
            Self::TokenType => "token_type",
            Self::KeyUnknown => "key_unknown",
            Self::KeyRetired => "key_retired",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::IssuedLater => "issued_later",
            Self::Lifetime => "lifetime",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claims => "claims",
        }
    }
}

/// The token of the `Authorization` headers of a request, as they came: exactly one, `Bearer`, one space, the token (J33).
pub fn bearer<'h>(values: &[&'h [u8]]) -> Option<&'h str> {
    let [value] = values else { return None };
    let (scheme, token) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.bytes().all(plain)).then_some(token)
}

impl Verifier {
    /// Checks a token at `now`, in milliseconds since 1970.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify(&self, token: &str, now: i64) -> Result<Verified, Refused> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refused::TooLong);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refused::Malformed);
        };
        let signed = &token[..header.len() + 1 + claims.len()];
        let header = object(header)?;
        let signature = decode(signature)?;
        let key = self.key_of(&header, signed.as_bytes(), &signature, now)?;
        self.check_claims(&object(claims)?, key, now)
    }

    /// The key that has signed.
    fn key_of(&self, header: &Members, signed: &[u8], signature: &[u8], now: i64) -> Result<&VerifyingKey, Refused> {
        if HEADERS_REFUSED.iter().any(|name| header.get(name).is_some()) {
            return Err(Refused::HeaderParameter);
        }
        let Some(Value::String(algorithm)) = header.get("alg") else { return Err(Refused::Algorithm) };
        match (header.get("typ"), &self.token_type) {
            (None, None) => {}
            (Some(Value::String(sent)), Some(wanted)) if sent.eq_ignore_ascii_case(wanted) => {}
            (Some(Value::String(sent)), None) if sent.eq_ignore_ascii_case("JWT") => {}
            _ => return Err(Refused::TokenType),
        }
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) if is_kid(kid) => Some(kid.as_str()),
            Some(_) => return Err(Refused::KeyUnknown),
        };
        let alone = self.keys.len() == 1;
        let meant = |key: &&VerifyingKey| match (kid, key.id()) {
            (Some(kid), Some(id)) => kid == id,
            // A key without a name is tried; a token without one names the only key there is.
            (_, None) => true,
            (None, Some(_)) => alone,
        };
        let mut why = Refused::KeyUnknown;
        for key in self.keys.iter().filter(meant) {
            why = if key.algorithm().name() != algorithm {
                Refused::Algorithm
            } else if key.until().is_some_and(|until| now >= until) {
                Refused::KeyRetired
            } else if key.has_signed(signed, signature) {
                return Ok(key);
            } else {
                Refused::Signature
            };
        }
        Err(why)
    }

    fn check_claims(&self, claims: &Members, key: &VerifyingKey, now: i64) -> Result<Verified, Refused> {
        let now_seconds = now as f64 / 1000.0;
        let leeway = LEEWAY.as_secs_f64();
        let expires = seconds(claims, "exp").ok().flatten().ok_or(Refused::Expired)?;
        if now_seconds >= expires + leeway {
            return Err(Refused::Expired);
        }
        if seconds(claims, "nbf").map_err(|()| Refused::NotYet)?.is_some_and(|begins| begins > now_seconds + leeway) {
            return Err(Refused::NotYet);
        }
        let issued = seconds(claims, "iat").map_err(|()| Refused::IssuedLater)?;
        if issued.is_some_and(|issued| issued > now_seconds + leeway) {
            return Err(Refused::IssuedLater);
        }
        if expires - issued.unwrap_or(now_seconds) > self.lifetime_max.as_secs_f64() {
            return Err(Refused::Lifetime);
        }
        if !matches!(claims.get("iss"), Some(Value::String(issuer)) if *issuer == self.issuer) {
            return Err(Refused::Issuer);
        }
        let audiences = match claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(_)) => texts(claims, "aud").ok_or(Refused::Audience)?,
            _ => return Err(Refused::Audience),
        };
        if !audiences.contains(&&self.audience) {
            return Err(Refused::Audience);
        }
        let subject = match claims.get("sub") {
            None => None,
            Some(Value::String(subject)) => Some(subject.clone()),
            Some(_) => return Err(Refused::Claims),
        };
        let permissions = texts(claims, "permissions").ok_or(Refused::Claims)?.into_iter().cloned().collect();
        // Bounded by the lifetime, which was checked.
        let until = ((expires + leeway) * 1000.0) as i64;
        Ok(Verified { subject, permissions, until: key.until().map_or(until, |retired| retired.min(until)) })
    }
}

fn is_kid(kid: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._=-".contains(&byte);
    (1..=KID_BYTES_MAX).contains(&kid.len()) && kid.bytes().all(plain)
}

/// Unpadded base64url with one form for each value (J12).
fn decode(part: &str) -> Result<Vec<u8>, Refused> {
    if part.is_empty() {
        return Err(Refused::Malformed);
    }
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Refused::Malformed)
}

fn object(part: &str) -> Result<Members, Refused> {
    serde_json::from_slice(&decode(part)?).map_err(|_| Refused::Malformed)
}

/// A NumericDate: seconds since 1970, never before, may have a fraction (J20, J21).
fn seconds(claims: &Members, name: &str) -> Result<Option<f64>, ()> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => {
            let value = number.as_f64().filter(|value| value.is_finite() && *value >= 0.0);
            value.map(Some).ok_or(())
        }
        Some(_) => Err(()),
    }
}

/// The texts of a list; none without it. `None`: it is no list of texts.
fn texts<'c>(claims: &'c Members, name: &str) -> Option<Vec<&'c String>> {
    let Some(list) = claims.get(name) else { return Some(Vec::new()) };
    let text = |value: &'c Value| match value {
        Value::String(text) => Some(text),
        _ => None,
    };
    list.as_array()?.iter().map(text).collect()
}

#[cfg(test)]
mod tests;
