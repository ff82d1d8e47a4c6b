//! Connections.

use sluice_proto::admin::v1 as admin;

use super::{Parsed, template};
use crate::model::{Connection, Placement, Scheme};
use crate::request::check_header_name;
use crate::seal::Secret;
use crate::template::Mode;
use crate::validate::{Check, NAME_CHARS_MAX, PLACEMENTS_MAX, SECRET_CHARS_MAX, SHORT_TEMPLATE_BYTES_MAX};

/// Longest login, in characters.
const LOGIN_CHARS_MAX: usize = 1024;

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
pub fn connection(proto: &admin::Connection) -> Parsed<Connection> {
    use admin::connection::Scheme as Wire;
    let mut check = Check::default();
    check.name("display_name", &proto.display_name, NAME_CHARS_MAX);
    let scheme = match &proto.scheme {
        Some(Wire::None(_)) => Some(Scheme::None),
        Some(Wire::LoginPassword(wire)) => check.within("login_password", |check| login_password(check, wire)),
        Some(Wire::ApiKey(wire)) => check.within("api_key", |check| api_key(check, wire)),
        Some(Wire::Token(_)) => {
            check.fail("token", "NOT_NORMALISED", "is stored as api_key");
            None
        }
        None => {
            check.fail("scheme", "REQUIRED", "one of none, login_password, api_key, token is required");
            None
        }
    };
    check.finish(scheme.map(|scheme| Connection { name: proto.name.clone(), version: proto.version, scheme }))
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
    if wire.headers.is_empty() && wire.url_parameters.is_empty() {
        check.fail("headers", "REQUIRED", "at least one header or URL parameter is required (R038)");
    }
    check.count("headers", wire.headers.len(), PLACEMENTS_MAX);
    check.count("url_parameters", wire.url_parameters.len(), PLACEMENTS_MAX);
    let headers = placements(check, "headers", &wire.headers, Mode::Header, |check, name| {
        if let Err(problem) = check_header_name(name) {
            check.fail("name", "HEADER_NAME", problem.to_string());
        }
    });
    let url_parameters = placements(check, "url_parameters", &wire.url_parameters, Mode::Text, |check, name| {
        check.name("name", name, NAME_CHARS_MAX);
    });
    Some(Scheme::ApiKey {
        secret: Secret::new(wire.secret.clone()),
        headers: headers?,
        url_parameters: url_parameters?,
    })
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

fn placements(
    check: &mut Check,
    list: &str,
    wire: &[admin::CredentialPlacement],
    mode: Mode,
    check_name: impl Fn(&mut Check, &str),
) -> Option<Vec<Placement>> {
    let mut parsed = Vec::with_capacity(wire.len());
    for (index, placement) in wire.iter().enumerate() {
        let value = check.within(format!("{list}[{index}]"), |check| {
            check_name(check, &placement.name);
            if wire[..index].iter().any(|other| other.name.eq_ignore_ascii_case(&placement.name)) {
                check.fail("name", "DUPLICATE", format!("`{}` is there twice", placement.name));
            }
            let value = template(check, "value", &placement.value, mode, SHORT_TEMPLATE_BYTES_MAX)?;
            for root in value.roots().iter().filter(|root| root.name != "secret") {
                let message = format!(
                    "only `secret` can be used here, not `{}` (line {}, column {})\n{}",
                    root.name, root.line, root.column, root.excerpt
                );
                check.fail("value", "UNKNOWN_VARIABLE", message);
            }
            Some(value)
        });
        parsed.extend(value.map(|value| Placement { name: placement.name.clone(), value }));
    }
    (parsed.len() == wire.len()).then_some(parsed)
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
        let found = connection(&wire).unwrap_err();
        assert_eq!((found[0].field.as_str(), found[0].reason), ("api_key.secret", "CONTROL_CHARACTER"));
        assert!(!format!("{found:?}").contains("s3cr3t"));
    }
}
