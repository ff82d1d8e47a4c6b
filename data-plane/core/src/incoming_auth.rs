//! May this sender trigger: webhooks from Meta (R154, S08, S09, F37).
//!
//! Hides the signature's format and the constant-time comparisons. Both functions answer a stranger with nothing
//! but yes or no; what exactly was wrong is for the log.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use url::form_urlencoded;

/// The header that carries Meta's signature.
pub const SIGNATURE_HEADER: &str = "X-Hub-Signature-256";
/// The longest challenge that is echoed.
pub const MAX_CHALLENGE_BYTES: usize = 128;

/// Why a signature is refused. The trigger answers every one of them with the same 401; this is for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthFailure {
    /// The header was not sent.
    #[error("no {SIGNATURE_HEADER} header")]
    Missing,
    /// The header was sent more than once.
    #[error("{SIGNATURE_HEADER} was sent more than once")]
    Several,
    /// Not `sha256=` and 64 hex digits.
    #[error("{SIGNATURE_HEADER} is not `sha256=` and 64 hex digits")]
    Malformed,
    /// No active secret signs this body so.
    #[error("{SIGNATURE_HEADER} does not match the body")]
    Mismatch,
}

/// Checks Meta's signature over the bytes as they were received, before anything reads them (S09).
///
/// `secrets` are the app secrets in force, several during a rotation (S16); the index of the one that matched is
/// returned, for a metric by key. An empty secret never matches: anyone can sign with it. Hex digits in upper case
/// are accepted. The comparison takes the same time wherever the first difference is.
pub fn verify_meta(secrets: &[&[u8]], header_values: &[&[u8]], raw_body: &[u8]) -> Result<usize, AuthFailure> {
    let value = match header_values {
        [] => return Err(AuthFailure::Missing),
        [value] => value,
        _ => return Err(AuthFailure::Several),
    };
    let digits = value.strip_prefix(b"sha256=").ok_or(AuthFailure::Malformed)?;
    let mut signature = [0; 32];
    hex::decode_to_slice(digits, &mut signature).map_err(|_| AuthFailure::Malformed)?;
    let signs = |secret: &&[u8]| !secret.is_empty() && hmac_of(secret, raw_body).verify_slice(&signature).is_ok();
    secrets.iter().position(signs).ok_or(AuthFailure::Mismatch)
}

fn hmac_of(key: &[u8], data: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length").chain_update(data)
}

/// Why a handshake is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeFailure {
    /// Wrong mode or token, or a parameter sent twice: 403.
    #[error("the handshake is not ours: wrong mode, wrong or missing verify token, or a parameter sent twice")]
    Forbidden,
    /// The right token with a challenge that is not safe to echo: 400.
    #[error("hub.challenge must be 1 to {MAX_CHALLENGE_BYTES} letters, digits, _ or -")]
    BadChallenge,
}

/// Answers Meta's subscription check (S08): the challenge to send back as `text/plain` with status 200.
///
/// `query` is the raw query string, without `?`; `verify_tokens` are those in force, several during a rotation (S16). An empty one
/// accepts nobody.
pub fn meta_handshake(query: &str, verify_tokens: &[&[u8]]) -> Result<String, HandshakeFailure> {
    let mode = parameter(query, "hub.mode")?;
    let token = parameter(query, "hub.verify_token")?;
    let challenge = parameter(query, "hub.challenge")?;
    let is_ours =
        |token: String| verify_tokens.iter().any(|expected| !expected.is_empty() && same(token.as_bytes(), expected));
    if !token.is_some_and(is_ours) || mode.as_deref() != Some("subscribe") {
        return Err(HandshakeFailure::Forbidden);
    }
    let is_safe = |text: &String| {
        (1..=MAX_CHALLENGE_BYTES).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    };
    challenge.filter(is_safe).ok_or(HandshakeFailure::BadChallenge)
}

/// The value of a parameter that may be there once.
fn parameter(query: &str, name: &str) -> Result<Option<String>, HandshakeFailure> {
    let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name);
    let value = values.next().map(|(_, value)| value.into_owned());
    if values.next().is_some() { Err(HandshakeFailure::Forbidden) } else { Ok(value) }
}

/// Compares two secrets in a time that does not depend on where they differ, nor on their lengths beyond hashing:
/// equal texts have equal MACs, and MACs compare in constant time.
fn same(given: &[u8], expected: &[u8]) -> bool {
    const LABEL: &[u8] = b"sluice.compare.1";
    let expected = hmac_of(LABEL, expected).finalize().into_bytes();
    hmac_of(LABEL, given).verify_slice(&expected).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn cases(name: &str) -> Vec<Value> {
        let file = format!("{}/../../tests/golden/meta/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(file).unwrap();
        text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn bytes(list: &Value) -> Vec<&[u8]> {
        list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().as_bytes()).collect()
    }

    #[test]
    fn golden_signatures() {
        for case in cases("signatures") {
            let outcome = verify_meta(
                &bytes(&case["secrets"]),
                &bytes(&case["headers"]),
                case["body"].as_str().unwrap().as_bytes(),
            );
            let outcome = match outcome {
                Ok(index) => format!("secret {index}"),
                Err(failure) => format!("{failure:?}"),
            };
            assert_eq!(outcome, case["expect"].as_str().unwrap(), "{case}");
        }
    }

    #[test]
    fn every_changed_bit_is_refused() {
        let body = br#"{"m":"x"}"#;
        let mac: [u8; 32] = hmac_of(b"s", body).finalize().into_bytes().into();
        for at in 0..256 {
            let mut changed = mac;
            changed[at / 8] ^= 1 << (at % 8);
            let header = format!("sha256={}", hex::encode(changed));
            assert_eq!(verify_meta(&[b"s"], &[header.as_bytes()], body), Err(AuthFailure::Mismatch));
        }
        let right = format!("sha256={}", hex::encode(mac));
        assert_eq!(verify_meta(&[b"s"], &[right.as_bytes()], body), Ok(0));
    }

    #[test]
    fn golden_handshakes() {
        for case in cases("handshakes") {
            let query = case["query"].as_str().unwrap().replace("{10KB}", &"x".repeat(10_240));
            let outcome = match meta_handshake(&query, &[b"another", case["token"].as_str().unwrap().as_bytes()]) {
                Ok(challenge) => format!("200 {challenge}"),
                Err(HandshakeFailure::Forbidden) => "403".into(),
                Err(HandshakeFailure::BadChallenge) => "400".into(),
            };
            assert_eq!(outcome, case["expect"].as_str().unwrap(), "{case}");
        }
    }
}
