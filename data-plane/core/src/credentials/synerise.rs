//! Synerise: logging in with a workspace's API key for a JWT (R028, F32 to F34).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value as Json;

use super::{AuthFailure, AuthRequest, Token, header, json_object, token_text, until};
use crate::address::CheckedUrl;
use crate::seal::Secret;

/// Where to log in unless another region's URL is set (F34).
pub(crate) const LOGIN_URL_DEFAULT: &str = "https://api.synerise.com/uauth/v2/auth/login/profile";

pub(super) fn auth_request(api_key: &Secret, login_url: &CheckedUrl) -> AuthRequest {
    let fixed = [("Accept", "application/json"), ("Content-Type", "application/json"), ("api-version", "4.4")];
    AuthRequest {
        method: "POST",
        url: Secret::new(login_url.as_url().as_str()),
        headers: fixed.map(|(name, value)| (name.to_owned(), Secret::new(value))).to_vec(),
        body: Some(Secret::new(serde_json::json!({ "apiKey": api_key.expose() }).to_string())),
    }
}

/// How long a JWT is good for is never assumed, only read from it (F32).
pub(super) fn read_answer(body: &[u8], now: i64) -> Result<Token, AuthFailure> {
    let jwt = token_text(&json_object(body)?, "token")?;
    let lifetime = until(expiry(jwt.expose()).ok_or(AuthFailure::Jwt)?, now)?;
    let value = Secret::new(format!("Bearer {}", jwt.expose()));
    Ok(Token::lasting(header("Authorization", value)?, lifetime))
}

/// The `exp` of a JWT (RFC 7519, 4.1.4). Its signature is for whom it is sent to.
fn expiry(jwt: &str) -> Option<f64> {
    let [_, payload, _] = jwt.split('.').collect::<Vec<_>>().try_into().ok()?;
    let payload = Secret::new(String::from_utf8(URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?);
    match json_object(payload.expose().as_bytes()).ok()?.get("exp")? {
        Json::Number(number) => number.as_str().parse().ok().filter(|exp: &f64| exp.is_finite()),
        Json::Null | Json::Bool(_) | Json::String(_) | Json::Array(_) | Json::Object(_) => None,
    }
}
