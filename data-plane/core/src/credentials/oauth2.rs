//! OAuth 2.0 client credentials (RFC 6749, 4.4; R031 to R033).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::{
    AuthFailure, AuthRequest, LIFETIME_DEFAULT, Token, field, header, json_object, seconds, token_text, until,
};
use crate::model::{ClientAuthentication, LifetimeUnit, OAuth2ClientCredentials};
use crate::seal::Secret;

pub(super) fn auth_request(oauth2: &OAuth2ClientCredentials) -> AuthRequest {
    let (id, secret) = (&oauth2.client_id, oauth2.client_secret.expose());
    let mut headers = vec![
        ("Accept".to_owned(), Secret::new("application/json")),
        ("Content-Type".to_owned(), Secret::new("application/x-www-form-urlencoded")),
    ];
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    match oauth2.client_authentication {
        ClientAuthentication::PostBody => {
            form.append_pair("client_id", id).append_pair("client_secret", secret);
        }
        ClientAuthentication::BasicHeader => headers.push(("Authorization".to_owned(), basic(id, secret))),
    }
    // Absent, it is not sent; present, it is sent unchanged (R033).
    form.extend_pairs(oauth2.scope.iter().map(|scope| ("scope", scope)));
    form.extend_pairs(&oauth2.token_parameters);
    let url = Secret::new(oauth2.token_url.as_url().as_str());
    AuthRequest { method: "POST", url, headers, body: Some(Secret::new(form.finish())) }
}

/// Both are form-encoded first, so that an id may hold a `:` (RFC 6749, 2.3.1).
fn basic(id: &str, secret: &str) -> Secret {
    let mut pair: String = byte_serialize(id.as_bytes()).collect();
    pair.push(':');
    pair.extend(byte_serialize(secret.as_bytes()));
    let pair = Secret::new(pair);
    Secret::new(format!("Basic {}", STANDARD.encode(pair.expose())))
}

pub(super) fn read_answer(oauth2: &OAuth2ClientCredentials, body: &[u8], now: i64) -> Result<Token, AuthFailure> {
    let object = json_object(body)?;
    let token = token_text(&object, &oauth2.token_field)?;
    check_type(oauth2, field(&object, &oauth2.type_field))?;
    let lifetime = lifetime(oauth2, field(&object, &oauth2.lifetime_field), now)?;
    let value = match oauth2.header_scheme.as_str() {
        "" => token,
        scheme => Secret::new(format!("{scheme} {}", token.expose())),
    };
    Ok(Token::lasting(header(&oauth2.header_name, value)?, lifetime))
}

/// Many answers have no type; one of another type must not be sent as what it is not (RFC 6749, 7.1).
fn check_type(oauth2: &OAuth2ClientCredentials, given: Option<&Json>) -> Result<(), AuthFailure> {
    match given {
        None | Some(Json::Null) => Ok(()),
        Some(Json::String(text))
            if text.eq_ignore_ascii_case("bearer") || text.eq_ignore_ascii_case(&oauth2.header_scheme) =>
        {
            Ok(())
        }
        Some(_) => Err(AuthFailure::TokenType),
    }
}

fn lifetime(oauth2: &OAuth2ClientCredentials, given: Option<&Json>, now: i64) -> Result<Duration, AuthFailure> {
    let refused = || AuthFailure::Lifetime(oauth2.lifetime_field.clone());
    let text = match given {
        None | Some(Json::Null) => return Ok(LIFETIME_DEFAULT),
        Some(Json::Number(number)) => number.as_str(),
        Some(Json::String(text)) => text.as_str(),
        Some(Json::Bool(_) | Json::Array(_) | Json::Object(_)) => return Err(refused()),
    };
    let number: f64 = text.parse().map_err(|_| refused())?;
    if !(number.is_finite() && number > 0.0) {
        return Err(refused());
    }
    match oauth2.lifetime_unit {
        LifetimeUnit::Seconds => Ok(seconds(number)),
        LifetimeUnit::Milliseconds => Ok(seconds(number / 1000.0)),
        LifetimeUnit::Minutes => Ok(seconds(number * 60.0)),
        LifetimeUnit::Hours => Ok(seconds(number * 3600.0)),
        LifetimeUnit::UnixSeconds => until(number, now),
    }
}
