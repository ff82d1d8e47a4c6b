//! What may be shown of the answer to an authorization request (R048, I7): its shape, so that an author can say where the token is, and
//! nothing in it that could be one.
//!
//! Whatever an answer with 200 to 299 holds may be the token, wherever the author will look for it. So of JSON the names, numbers,
//! booleans and nulls are shown and every text is masked, but for those under names that say what else they are; another body is masked
//! whole. Any other answer brings no token: of it only the connection's own secrets are masked, by the caller's [`Redactor`].

use serde_json::Value;

use super::{Answer, AuthFailure, Placed};
use crate::flatten::{Limits, parse_body};
use crate::redact::{MASK, Redactor, is_secret_name};

/// Members whose texts are no token (RFC 6749, 5.1 and 5.2).
const PLAIN_MEMBERS: [&str; 7] =
    ["token_type", "scope", "expires_at", "error", "error_description", "error_uri", "message"];
/// Words before a credential (RFC 9110, 11.1).
const SCHEMES: [&str; 5] = ["apikey", "basic", "bearer", "jwt", "token"];
/// Headers that are no token.
const PLAIN_HEADERS: [&str; 10] = [
    "cache-control",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "expires",
    "retry-after",
    "server",
    "vary",
    "www-authenticate",
];

/// An answer as it may be shown.
#[derive(Clone, Debug)]
pub struct MaskedAnswer {
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Masks an answer. `redactor` knows the secrets of the connection, and the token where one was found.
pub fn mask_answer(answer: Answer<'_>, redactor: &Redactor) -> MaskedAnswer {
    let brings_token = (200..300).contains(&answer.status);
    let header = |(name, value): &(String, String)| {
        let plain = PLAIN_HEADERS.iter().any(|plain| plain.eq_ignore_ascii_case(name));
        let value = if plain { redactor.text(value).unwrap_or_else(|| value.clone()) } else { MASK.to_owned() };
        (name.clone(), value)
    };
    let body = redactor.bytes(answer.body, answer.truncated).unwrap_or_else(|| answer.body.to_vec());
    let body = match (brings_token, parse_body(answer.body, &Limits::default())) {
        (false, _) => body,
        (true, _) if answer.body.is_empty() => Vec::new(),
        (true, Ok(mut json)) => {
            mask_texts(&mut json, false);
            json.to_string().into_bytes()
        }
        (true, Err(_)) => MASK.as_bytes().to_vec(),
    };
    MaskedAnswer { headers: answer.headers.iter().map(header).collect(), body }
}

/// What a placement gives, masked but for the scheme before a credential.
///
/// # Errors
/// Why it gives nothing.
pub fn mask_placed(placed: &Placed) -> Result<String, AuthFailure> {
    let value = placed.value.as_ref().map_err(Clone::clone)?;
    let scheme = value.expose().split_once(' ').map(|(scheme, _)| scheme);
    let scheme = scheme.filter(|scheme| SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(scheme)));
    Ok(scheme.map_or_else(|| MASK.to_owned(), |scheme| format!("{scheme} {MASK}")))
}

fn mask_texts(json: &mut Value, secret: bool) {
    match json {
        Value::String(text) => MASK.clone_into(text),
        Value::Number(_) if secret => *json = MASK.into(),
        Value::Number(_) | Value::Null | Value::Bool(_) => {}
        Value::Array(items) => items.iter_mut().for_each(|item| mask_texts(item, secret)),
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                let plain = PLAIN_MEMBERS.contains(&name.as_str()) && member.is_string();
                if !plain {
                    mask_texts(member, secret || is_secret_name(name));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(status: u16, body: &str) -> (String, Vec<(String, String)>) {
        let headers =
            ["content-type", "x-auth", "set-cookie"].map(|name| (name.to_owned(), format!("{name} CANARY-1")));
        let answer = Answer { status, headers: &headers, body: body.as_bytes(), truncated: false };
        let masked = mask_answer(answer, &Redactor::new(["CANARY-1"]));
        (String::from_utf8(masked.body).unwrap(), masked.headers)
    }

    #[test]
    fn the_shape_is_shown_and_no_text_that_could_be_a_token_r048_i7() {
        let (body, headers) = shown(
            200,
            r#"{"token_type":"Bearer","data":{"jwt":"eyJ.x.y","id":7,"list":["a",null,true]},"secret":12345,"expires_in":60}"#,
        );
        assert_eq!(
            body,
            r#"{"token_type":"Bearer","data":{"jwt":"******","id":7,"list":["******",null,true]},"secret":"******","expires_in":60}"#
        );
        let values: Vec<&str> = headers.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["content-type ******", "******", "******"]);
        assert_eq!(shown(200, "just-the-token").0, "******");
        assert_eq!(shown(204, "").0, "");
        // An answer without a token says what is wrong.
        assert_eq!(shown(401, r#"{"why":"CANARY-1 is wrong"}"#).0, r#"{"why":"****** is wrong"}"#);
    }
}
