//! Signatures over a finished request: Standard Webhooks 1.0, and HMAC by a recipe.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

use super::{AuthFailure, failed};
use crate::address::CheckedUrl;
use crate::model::{HmacAlgorithm, HmacRecipe, SignatureEncoding, SignedPart, SigningKey, TimestampUnit};
use crate::seal::Secret;
use crate::template::{Context, OnMissing, Value};

/// What carries the message's id, its time, and the signatures.
pub(super) const STANDARD_WEBHOOKS_HEADERS: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

/// A request as it will be sent, with everything on it but signatures (F52).
#[derive(Clone, Copy)]
pub struct Finished<'a> {
    /// An upper-case HTTP method.
    pub method: &'a str,
    /// With the connection's URL parameters.
    pub url: &'a CheckedUrl,
    /// With the connection's headers.
    pub headers: &'a [(String, String)],
    /// The exact bytes; none when there is no body.
    pub body: &'a [u8],
    /// The delivery's id: the same over all attempts.
    pub message_id: &'a str,
    /// When the attempt is made, in milliseconds since 1970.
    pub timestamp: i64,
}

/// `v1,` and base64 for each key (Standard Webhooks 1.0, symmetric signatures).
pub(super) fn standard_webhooks(
    keys: &[SigningKey],
    request: &Finished<'_>,
) -> Result<Vec<(String, Secret)>, AuthFailure> {
    let timestamp = seconds(request.timestamp).to_string();
    let signed = [request.message_id.as_bytes(), b".", timestamp.as_bytes(), b".", request.body];
    let sign = |key: &SigningKey| Ok(format!("v1,{}", STANDARD.encode(mac::<Hmac<Sha256>>(key, &signed)?)));
    let signatures = keys.iter().map(sign).collect::<Result<Vec<_>, _>>()?;
    if signatures.is_empty() {
        return Err(AuthFailure::NoKey);
    }
    let values = [request.message_id.to_owned(), timestamp, signatures.join(" ")];
    Ok(STANDARD_WEBHOOKS_HEADERS.map(str::to_owned).into_iter().zip(values.map(Secret::new)).collect())
}

pub(super) fn hmac_signature(
    recipe: &HmacRecipe,
    request: &Finished<'_>,
) -> Result<Vec<(String, Secret)>, AuthFailure> {
    let timestamp = match recipe.timestamp_unit {
        TimestampUnit::Seconds => seconds(request.timestamp),
        TimestampUnit::Milliseconds => request.timestamp,
    };
    let timestamp = timestamp.to_string();
    let own = [(&recipe.timestamp_header, timestamp.as_str()), (&recipe.id_header, request.message_id)];
    let own: Vec<(&str, &str)> = own.iter().filter_map(|(name, value)| Some((name.as_deref()?, *value))).collect();
    let parts = recipe.signed.iter().map(|part| part_bytes(part, request, &timestamp, &own));
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    let signed: Vec<&[u8]> = parts.iter().map(|part| part.as_ref()).collect();
    let signatures = recipe.keys.iter().map(|key| {
        let bytes = match recipe.algorithm {
            HmacAlgorithm::Sha1 => mac::<Hmac<Sha1>>(key, &signed)?,
            HmacAlgorithm::Sha256 => mac::<Hmac<Sha256>>(key, &signed)?,
            HmacAlgorithm::Sha512 => mac::<Hmac<Sha512>>(key, &signed)?,
        };
        let written = match recipe.encoding {
            SignatureEncoding::Hex => hex::encode(bytes),
            SignatureEncoding::Base64 => STANDARD.encode(bytes),
        };
        Ok(format!("{}{written}", recipe.signature_prefix))
    });
    let signatures = signatures.collect::<Result<Vec<_>, _>>()?;
    if signatures.is_empty() {
        return Err(AuthFailure::NoKey);
    }
    let mut context = Context::new();
    context.set("signatures", Value::from(signatures.join(&recipe.separator)));
    context.set("timestamp", Value::from(timestamp.as_str()));
    context.set("messageId", Value::from(request.message_id));
    let value = recipe.header_value.render(&context, OnMissing::Fail);
    let value = value.map_err(|unrendered| failed("header_value", unrendered))?.text;
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), Secret::new(value)));
    Ok(own.chain([(recipe.header_name.clone(), Secret::new(value))]).collect())
}

/// What stands for a part. `own` are the headers that the signature itself brings: they are sent in place of others.
fn part_bytes<'a>(
    part: &'a SignedPart,
    request: &Finished<'a>,
    timestamp: &'a str,
    own: &[(&'a str, &'a str)],
) -> Result<std::borrow::Cow<'a, [u8]>, AuthFailure> {
    let url = request.url;
    Ok(match part {
        SignedPart::Literal(text) => text.as_bytes().into(),
        SignedPart::Timestamp => timestamp.as_bytes().into(),
        SignedPart::MessageId => request.message_id.as_bytes().into(),
        SignedPart::Method => request.method.as_bytes().into(),
        SignedPart::Url => url.as_url().as_str().as_bytes().into(),
        SignedPart::Host => url.host().as_bytes().into(),
        SignedPart::Path => url.as_url().path().as_bytes().into(),
        SignedPart::Query => url.as_url().query().unwrap_or_default().as_bytes().into(),
        SignedPart::Target => url.path_and_query().as_bytes().into(),
        SignedPart::Header(name) => header_value(name, request, own)?.into_bytes().into(),
        SignedPart::Body => request.body.into(),
    })
}

/// Several of one name count as one list (RFC 9110, 5.3); spaces around a value are not sent.
fn header_value(name: &str, request: &Finished<'_>, own: &[(&str, &str)]) -> Result<String, AuthFailure> {
    if let Some((_, value)) = own.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)) {
        return Ok((*value).to_owned());
    }
    let named = request.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
    let values: Vec<&str> = named.map(|(_, value)| value.trim_matches([' ', '\t'])).collect();
    if values.is_empty() { Err(AuthFailure::HeaderMissing(name.to_owned())) } else { Ok(values.join(", ")) }
}

fn mac<M: Mac + KeyInit>(key: &SigningKey, parts: &[&[u8]]) -> Result<Vec<u8>, AuthFailure> {
    if key.expose().is_empty() {
        // Anyone can sign with it.
        return Err(AuthFailure::NoKey);
    }
    let mut mac = <M as KeyInit>::new_from_slice(key.expose()).map_err(|_| AuthFailure::NoKey)?;
    for part in parts {
        mac.update(part);
    }
    Ok(mac.finalize().into_bytes().to_vec())
}

fn seconds(milliseconds: i64) -> i64 {
    milliseconds.div_euclid(1000)
}
