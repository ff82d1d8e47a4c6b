//! Custom connections: an authorization request of the author's own (R041 to R055).

use super::{Answer, AuthFailure, AuthRequest, Credential, HEADERS, Placed, Token, URL_PARAMETERS, render_placement};
use crate::address::UrlPolicy;
use crate::model::{CustomConnection, Placement, Placements};
use crate::request::{HEADER_BYTES_MAX, Unmade, render};
use crate::seal::Secret;
use crate::template::{Context, OnMissing, Value, headers_value};

/// What templates of a placement see besides `secret`.
pub(crate) const ANSWER_VARIABLES: [&str; 3] = ["authResponseBody", "authResponseStatusCode", "authResponseHeaders"];
/// Words before a credential (RFC 9110, 11.1). Alone they are none.
const BARE_SCHEMES: [&str; 3] = ["bearer", "basic", "token"];

fn context(custom: &CustomConnection, now: i64) -> Context {
    let mut context = Context::new();
    context.set("secret", Value::from(custom.secret.expose()));
    context.set_now(now);
    context
}

pub(super) fn auth_request(custom: &CustomConnection, urls: &UrlPolicy, now: i64) -> Result<AuthRequest, AuthFailure> {
    let rendered = render(&custom.auth_request, &context(custom, now), urls).map_err(|unmade| {
        AuthFailure::Request(match unmade {
            Unmade::Skipped(message) => message,
            Unmade::Failed(failure) => failure.message,
        })
    })?;
    Ok(AuthRequest {
        method: custom.auth_request.method,
        url: Secret::new(rendered.url),
        headers: rendered.headers.into_iter().map(|(name, value)| (name, Secret::new(value))).collect(),
        body: rendered.body.map(Secret::new),
    })
}

/// The placements are rendered here, once, and not for each request: an answer that has no token in it is never kept.
pub(super) fn read_answer(custom: &CustomConnection, answer: Answer<'_>, now: i64) -> Result<Token, AuthFailure> {
    let mut credential = Credential::default();
    for Placed { list, name, value, .. } in placements(custom, answer, now) {
        let values = if list == HEADERS { &mut credential.headers } else { &mut credential.url_parameters };
        values.push((name, value?));
    }
    Ok(Token { credential, lifetime: custom.ttl, refresh_after: custom.ttl })
}

/// What each placement gives for an answer.
pub(super) fn placements(custom: &CustomConnection, answer: Answer<'_>, now: i64) -> Vec<Placed> {
    let [body, status, headers] = ANSWER_VARIABLES;
    let mut context = context(custom, now);
    context.set(body, Value::from(&*String::from_utf8_lossy(answer.body)));
    context.set(status, Value::from(answer.status));
    context.set(headers, headers_value(answer.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))));
    let placed = |list: &'static str, (index, placement): (usize, &Placement)| {
        let field = format!("{list}[{index}].value");
        let value = render_placement(&field, placement, &context, OnMissing::Fail);
        let value = value.and_then(|value| check(&field, &placement.name, value.expose()).map(|()| value));
        Placed { list, field, name: placement.name.clone(), value }
    };
    let Placements { headers, url_parameters } = &custom.placements;
    let headers = headers.iter().enumerate().map(|placement| placed(HEADERS, placement));
    let url_parameters = url_parameters.iter().enumerate().map(|placement| placed(URL_PARAMETERS, placement));
    headers.chain(url_parameters).collect()
}

fn check(field: &str, name: &str, value: &str) -> Result<(), AuthFailure> {
    let value = value.trim();
    if value.is_empty() || BARE_SCHEMES.iter().any(|scheme| value.eq_ignore_ascii_case(scheme)) {
        return Err(AuthFailure::Empty(field.to_owned()));
    }
    if name.len() + value.len() > HEADER_BYTES_MAX { Err(AuthFailure::TokenTooLong) } else { Ok(()) }
}
