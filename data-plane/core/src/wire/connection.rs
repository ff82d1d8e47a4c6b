//! Connections.

use std::time::Duration;

use sluice_proto::admin::v1 as admin;

use super::outgoing::request_template;
use super::{Parsed, duration, signing, template};
use crate::address::{CheckedUrl, UrlPolicy, check_url};
use crate::credentials::{ANSWER_VARIABLES, LOGIN_URL_DEFAULT};
use crate::model::{
    AllowedHosts, ClientAuthentication, Connection, CustomConnection, HostPattern, LifetimeUnit,
    OAuth2ClientCredentials, Placement, Placements, Scheme,
};
use crate::request::check_header_name;
use crate::seal::Secret;
use crate::template::{Mode, Template};
use crate::validate::{Check, NAME_CHARS_MAX, PLACEMENTS_MAX, SECRET_CHARS_MAX, SHORT_TEMPLATE_BYTES_MAX};

/// Most entries of `allowed_hosts`.
const ALLOWED_HOSTS_MAX: usize = 50;
/// Longest login, client id and scope, in characters.
const LOGIN_CHARS_MAX: usize = 1024;
/// Most further parameters of a token request.
const TOKEN_PARAMETERS_MAX: usize = 10;
/// Parameters of a token request that have fields of their own.
const TOKEN_PARAMETERS_OWN: [&str; 4] = ["grant_type", "client_id", "client_secret", "scope"];
/// Longest path to a field of a token endpoint's answer, in characters.
const FIELD_CHARS_MAX: usize = 256;
/// Longest word before a token, in characters.
const HEADER_SCHEME_CHARS_MAX: usize = 64;
/// How long a custom connection's answer is used (R043, S23).
const TTL_DEFAULT: Duration = Duration::from_secs(60);
const TTL_LIMITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));

/// Turns the older scheme `token` into the API key it stands for (R021, X01).
pub fn normalise(connection: &mut admin::Connection) {
    use admin::connection::Scheme as Wire;
    if let Some(Wire::Token(token)) = &mut connection.scheme {
        let placement =
            admin::CredentialPlacement { name: "Authorization".to_owned(), value: "Bearer {{secret}}".to_owned() };
        connection.scheme = Some(Wire::ApiKey(admin::ApiKey {
            secret: std::mem::take(&mut token.token),
            secret_set: false,
            headers: vec![placement],
            url_parameters: Vec::new(),
        }));
    }
}

/// Parses a connection; `token` must have been normalised.
pub fn connection(proto: &admin::Connection, urls: &UrlPolicy) -> Parsed<Connection> {
    let mut check = Check::default();
    check.name("display_name", &proto.display_name, NAME_CHARS_MAX);
    let allowed_hosts = allowed_hosts(&mut check, &proto.allowed_hosts);
    let scheme = scheme(&mut check, proto.scheme.as_ref(), urls);
    check.finish(scheme.map(|scheme| Connection {
        name: proto.name.clone(),
        version: proto.version,
        allowed_hosts,
        scheme,
    }))
}

fn scheme(check: &mut Check, wire: Option<&admin::connection::Scheme>, urls: &UrlPolicy) -> Option<Scheme> {
    use admin::connection::Scheme as Wire;
    match wire {
        Some(Wire::None(_)) => Some(Scheme::None),
        Some(Wire::LoginPassword(wire)) => check.within("login_password", |check| login_password(check, wire)),
        Some(Wire::ApiKey(wire)) => check.within("api_key", |check| api_key(check, wire)),
        Some(Wire::Token(_)) => {
            check.fail("token", "NOT_NORMALISED", "is stored as api_key");
            None
        }
        Some(Wire::Oauth2ClientCredentials(wire)) => {
            check.within("oauth2_client_credentials", |check| oauth2_client_credentials(check, wire, urls))
        }
        Some(Wire::SyneriseApiKey(wire)) => {
            check.within("synerise_api_key", |check| synerise_api_key(check, wire, urls))
        }
        Some(Wire::Custom(wire)) => check.within("custom", |check| custom(check, wire, urls)),
        Some(Wire::Sha256(wire)) => check.within("sha256", |check| sha256(check, wire)),
        Some(Wire::StandardWebhooks(wire)) => {
            check.within("standard_webhooks", |check| signing::standard_webhooks(check, wire))
        }
        Some(Wire::HmacSignature(wire)) => check.within("hmac_signature", |check| signing::hmac_signature(check, wire)),
        None => {
            check.fail("scheme", "REQUIRED", "is required: what requests are authenticated or signed with");
            None
        }
    }
}

fn allowed_hosts(check: &mut Check, wire: &[String]) -> AllowedHosts {
    check.count("allowed_hosts", wire.len(), ALLOWED_HOSTS_MAX);
    let mut hosts = Vec::with_capacity(wire.len());
    for (index, text) in wire.iter().enumerate() {
        let suffix = text.strip_prefix("*.");
        let host = suffix.unwrap_or(text);
        // One more label, so that a suffix may be a public one.
        let probe = if suffix.is_some() { format!("a.{host}") } else { host.to_owned() };
        let canonical = match check_url(&format!("https://{probe}/"), &UrlPolicy::default()) {
            Ok(url) if !probe.contains([':', '/', '?', '#']) => url.host().to_owned(),
            _ => {
                let message = "must be a public host name such as `api.example.com`, or `*.` and a suffix";
                check.fail(&format!("allowed_hosts[{index}]"), "HOST_INVALID", message);
                continue;
            }
        };
        if canonical != probe {
            let canonical = if suffix.is_some() { format!("*{}", &canonical[1..]) } else { canonical };
            let message = format!("must be written `{canonical}`: lower case, punycode, no dot at the end");
            check.fail(&format!("allowed_hosts[{index}]"), "HOST_INVALID", message);
        }
        hosts.push(match suffix {
            Some(suffix) => HostPattern::Below(suffix.to_owned()),
            None => HostPattern::Exact(host.to_owned()),
        });
    }
    AllowedHosts(hosts)
}

fn login_password(check: &mut Check, wire: &admin::LoginPassword) -> Option<Scheme> {
    check.name("login", &wire.login, LOGIN_CHARS_MAX);
    if wire.login.contains(':') {
        check.fail("login", "COLON", "must not hold `:`, which separates it from the password (RFC 7617)");
    }
    if wire.password.chars().count() > SECRET_CHARS_MAX {
        check.fail("password", "TOO_LONG", format!("is longer than {SECRET_CHARS_MAX} characters"));
    }
    if wire.password.chars().any(char::is_control) {
        check.fail("password", "CONTROL_CHARACTER", "must not hold control characters");
    }
    Some(Scheme::LoginPassword { login: wire.login.clone(), password: Secret::new(wire.password.clone()) })
}

fn api_key(check: &mut Check, wire: &admin::ApiKey) -> Option<Scheme> {
    secret(check, "secret", &wire.secret, wire.secret_set, SECRET_CHARS_MAX);
    let pair = |placement: &'_ admin::CredentialPlacement| (placement.name.clone(), placement.value.clone());
    let headers: Vec<_> = wire.headers.iter().map(pair).collect();
    let url_parameters: Vec<_> = wire.url_parameters.iter().map(pair).collect();
    let placements = placements(check, &headers, &url_parameters, &["secret"])?;
    Some(Scheme::ApiKey { secret: Secret::new(wire.secret.clone()), placements })
}

fn oauth2_client_credentials(
    check: &mut Check,
    wire: &admin::OAuth2ClientCredentials,
    urls: &UrlPolicy,
) -> Option<Scheme> {
    use admin::ClientAuthentication as Authentication;
    use admin::LifetimeUnit as Unit;
    let token_url = static_url(check, "token_url", &wire.token_url, urls);
    check.name("client_id", &wire.client_id, LOGIN_CHARS_MAX);
    secret(check, "client_secret", &wire.client_secret, wire.client_secret_set, SECRET_CHARS_MAX);
    if !wire.scope.is_empty() {
        check.name("scope", &wire.scope, LOGIN_CHARS_MAX);
    }
    let header_name = or_default(&wire.header_name, "Authorization");
    header_name_of(check, "header_name", &header_name);
    let header_scheme = wire.header_scheme.clone().unwrap_or_else(|| "Bearer".to_owned());
    if header_scheme.chars().count() > HEADER_SCHEME_CHARS_MAX || !header_scheme.bytes().all(|b| b.is_ascii_graphic()) {
        let message = format!("must be one word of at most {HEADER_SCHEME_CHARS_MAX} visible ASCII characters");
        check.fail("header_scheme", "HEADER_SCHEME", message);
    }
    let mut field = |name: &str, text: &str, default: &str| {
        let text = or_default(text, default);
        check.name(name, &text, FIELD_CHARS_MAX);
        text
    };
    let token_field = field("token_field", &wire.token_field, "access_token");
    let type_field = field("type_field", &wire.type_field, "token_type");
    let lifetime_field = field("lifetime_field", &wire.lifetime_field, "expires_in");
    let token_parameters = token_parameters(check, &wire.token_parameters);
    Some(Scheme::OAuth2ClientCredentials(Box::new(OAuth2ClientCredentials {
        token_url: token_url?,
        client_id: wire.client_id.clone(),
        client_secret: Secret::new(wire.client_secret.clone()),
        scope: (!wire.scope.is_empty()).then(|| wire.scope.clone()),
        client_authentication: match wire.client_authentication() {
            Authentication::Unspecified | Authentication::PostBody => ClientAuthentication::PostBody,
            Authentication::BasicHeader => ClientAuthentication::BasicHeader,
        },
        token_parameters,
        token_field,
        type_field,
        lifetime_field,
        lifetime_unit: match wire.lifetime_unit() {
            Unit::Unspecified | Unit::Seconds => LifetimeUnit::Seconds,
            Unit::Milliseconds => LifetimeUnit::Milliseconds,
            Unit::Minutes => LifetimeUnit::Minutes,
            Unit::Hours => LifetimeUnit::Hours,
            Unit::UnixSeconds => LifetimeUnit::UnixSeconds,
        },
        header_name,
        header_scheme,
    })))
}

fn token_parameters(check: &mut Check, wire: &[admin::TokenParameter]) -> Vec<(String, String)> {
    check.count("token_parameters", wire.len(), TOKEN_PARAMETERS_MAX);
    for (index, parameter) in wire.iter().enumerate() {
        check.within(format!("token_parameters[{index}]"), |check| {
            check.name("name", &parameter.name, NAME_CHARS_MAX);
            if TOKEN_PARAMETERS_OWN.contains(&parameter.name.as_str()) {
                check.fail("name", "RESERVED", format!("`{}` is set by the connection's fields", parameter.name));
            }
            if wire[..index].iter().any(|other| other.name == parameter.name) {
                check.fail("name", "DUPLICATE", format!("`{}` is there twice", parameter.name));
            }
            if !parameter.value.is_empty() {
                check.name("value", &parameter.value, SECRET_CHARS_MAX);
            }
        });
    }
    wire.iter().map(|parameter| (parameter.name.clone(), parameter.value.clone())).collect()
}

fn synerise_api_key(check: &mut Check, wire: &admin::SyneriseApiKey, urls: &UrlPolicy) -> Option<Scheme> {
    secret(check, "api_key", &wire.api_key, wire.api_key_set, SECRET_CHARS_MAX);
    let login_url = static_url(check, "login_url", &or_default(&wire.login_url, LOGIN_URL_DEFAULT), urls)?;
    Some(Scheme::SyneriseApiKey { api_key: Secret::new(wire.api_key.clone()), login_url })
}

fn custom(check: &mut Check, wire: &admin::CustomConnection, urls: &UrlPolicy) -> Option<Scheme> {
    secret(check, "secret", &wire.secret, wire.secret_set, SECRET_CHARS_MAX);
    let auth_request = match &wire.auth_request {
        Some(wire) => check.within("auth_request", |check| auth_request(check, wire, urls)),
        None => {
            check.fail("auth_request", "REQUIRED", "is required");
            None
        }
    };
    let pair = |placement: &'_ admin::CustomPlacement| (placement.name.clone(), placement.value.clone());
    let headers: Vec<_> = wire.headers.iter().map(pair).collect();
    let url_parameters: Vec<_> = wire.url_parameters.iter().map(pair).collect();
    let variables = [&["secret"], &ANSWER_VARIABLES[..]].concat();
    let placements = placements(check, &headers, &url_parameters, &variables);
    let ttl = duration(check, "ttl", wire.ttl.as_ref(), TTL_DEFAULT, TTL_LIMITS);
    Some(Scheme::Custom(Box::new(CustomConnection {
        secret: Secret::new(wire.secret.clone()),
        auth_request: auth_request?,
        placements: placements?,
        ttl,
    })))
}

fn auth_request(
    check: &mut Check,
    wire: &admin::CustomAuthRequest,
    urls: &UrlPolicy,
) -> Option<crate::model::RequestTemplate> {
    let method = match wire.method() {
        admin::HttpMethod::Unspecified => admin::HttpMethod::Post,
        method => method,
    };
    let request = admin::OutgoingRequest {
        method: method.into(),
        url: wire.url.clone(),
        headers: wire.headers.clone(),
        body: wire.body.clone(),
        // A secret that is missing is no reason to ask without it.
        on_missing: admin::OnMissing::Fail.into(),
        ..Default::default()
    };
    let parsed = request_template(check, &request, urls)?;
    for (field, template) in parsed.templates() {
        only(check, &field, template, &["secret"]);
    }
    Some(parsed)
}

fn sha256(check: &mut Check, wire: &admin::Sha256Authentication) -> Option<Scheme> {
    check.name("client_id", &wire.client_id, LOGIN_CHARS_MAX);
    if !wire.client_id.bytes().all(|byte| byte.is_ascii_graphic()) {
        check.fail("client_id", "CHARACTER", "must hold visible ASCII characters only: it is sent in a header");
    }
    secret(check, "client_secret", &wire.client_secret, wire.client_secret_set, SECRET_CHARS_MAX);
    let client_secret = Secret::new(wire.client_secret.clone());
    Some(Scheme::Sha256 { client_id: wire.client_id.clone(), client_secret })
}

fn or_default(text: &str, default: &str) -> String {
    if text.is_empty() { default.to_owned() } else { text.to_owned() }
}

/// A URL without inserts, under the same rules as every URL that is called (D20).
fn static_url(check: &mut Check, field: &str, text: &str, urls: &UrlPolicy) -> Option<CheckedUrl> {
    if text.is_empty() {
        check.fail(field, "REQUIRED", "is required");
        return None;
    }
    match check_url(text, urls) {
        Ok(url) => Some(url),
        Err(error) => {
            check.fail(field, error.code(), error.to_string());
            None
        }
    }
}

/// Requires a name that an author may give a header.
pub(super) fn header_name_of(check: &mut Check, field: &str, name: &str) {
    if let Err(problem) = check_header_name(name) {
        check.fail(field, "HEADER_NAME", problem.to_string());
    }
}

/// Requires a secret: a new one, or one that is stored already.
pub(super) fn secret(check: &mut Check, field: &str, value: &str, is_set: bool, chars_max: usize) {
    if value.is_empty() && !is_set {
        check.fail(field, "REQUIRED", "is required");
    } else if value.chars().count() > chars_max {
        check.fail(field, "TOO_LONG", format!("is longer than {chars_max} characters"));
    }
    // A line break, often pasted along, could never be sent in a header.
    if value.chars().any(char::is_control) {
        check.fail(field, "CONTROL_CHARACTER", "must not hold control characters such as a line break");
    }
}

/// Headers and URL parameters of a connection, at least one in all (R038).
fn placements(
    check: &mut Check,
    headers: &[(String, String)],
    url_parameters: &[(String, String)],
    variables: &[&str],
) -> Option<Placements> {
    if headers.is_empty() && url_parameters.is_empty() {
        check.fail("headers", "REQUIRED", "at least one header or URL parameter is required (R038)");
    }
    let headers = placement_list(check, "headers", headers, Mode::Header, variables);
    let url_parameters = placement_list(check, "url_parameters", url_parameters, Mode::Text, variables);
    Some(Placements { headers: headers?, url_parameters: url_parameters? })
}

fn placement_list(
    check: &mut Check,
    list: &str,
    wire: &[(String, String)],
    mode: Mode,
    variables: &[&str],
) -> Option<Vec<Placement>> {
    check.count(list, wire.len(), PLACEMENTS_MAX);
    let mut parsed = Vec::with_capacity(wire.len());
    for (index, (name, value)) in wire.iter().enumerate() {
        let value = check.within(format!("{list}[{index}]"), |check| {
            if mode == Mode::Header {
                header_name_of(check, "name", name);
            } else {
                check.name("name", name, NAME_CHARS_MAX);
            }
            if wire[..index].iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
                check.fail("name", "DUPLICATE", format!("`{name}` is there twice"));
            }
            let value = template(check, "value", value, mode, SHORT_TEMPLATE_BYTES_MAX)?;
            only(check, "value", &value, variables);
            Some(value)
        });
        parsed.extend(value.map(|value| Placement { name: name.clone(), value }));
    }
    (parsed.len() == wire.len()).then_some(parsed)
}

/// Requires that a template uses nothing but `variables`.
pub(super) fn only(check: &mut Check, field: &str, template: &Template, variables: &[&str]) {
    for root in template.roots().iter().filter(|root| !variables.contains(&root.name.as_str())) {
        let message = format!(
            "only `{}` can be used here, not `{}` (line {}, column {})\n{}",
            variables.join("`, `"),
            root.name,
            root.line,
            root.column,
            root.excerpt
        );
        check.fail(field, "UNKNOWN_VARIABLE", message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_with_a_line_break_is_refused_without_being_told() {
        let mut wire = admin::Connection {
            display_name: "x".to_owned(),
            scheme: Some(admin::connection::Scheme::Token(admin::Token { token: "s3cr3t\n".to_owned() })),
            ..Default::default()
        };
        normalise(&mut wire);
        let found = connection(&wire, &UrlPolicy::default()).unwrap_err();
        assert_eq!((found[0].field.as_str(), found[0].reason), ("api_key.secret", "CONTROL_CHARACTER"));
        assert!(!format!("{found:?}").contains("s3cr3t"));
    }
}
