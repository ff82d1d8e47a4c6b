//! Every URL of the attack table (S01–S52) at every door where a URL is taken in: a request (S53–S56 are in
//! `request/requests.jsonl`), a token endpoint, a login, an authorisation request (S58) and a cURL command (S57).

use serde_json::Value;
use sluice_core::address::{MAX_URL_BYTES, UrlError, UrlPolicy, check_url};
use sluice_core::curl;
use sluice_core::validate::Violation;
use sluice_core::wire;
use sluice_proto::admin::v1 as admin;
use sluice_proto::admin::v1::connection::Scheme;

use crate::golden::cases;

fn policy() -> UrlPolicy {
    UrlPolicy { own_names: vec!["hooks.sluice.example".into()], ..UrlPolicy::default() }
}

/// Rows with their URLs; a run such as `{70000}` stands for that many `a`.
fn rows() -> Vec<(Value, String)> {
    let url = |row: &Value| {
        let runs = [61, 62, 63, 64, 250, 300, 8_171, 8_172, 70_000];
        let text = row["url"].as_str().unwrap().to_owned();
        runs.iter().fold(text, |text, run| text.replace(&format!("{{{run}}}"), &"a".repeat(*run)))
    };
    let rows: Vec<_> = cases("address/urls.jsonl").into_iter().map(|row| (row.clone(), url(&row))).collect();
    for number in (1..=52).filter(|number| *number != 40) {
        let name = format!("S{number:02}");
        assert!(rows.iter().any(|(row, _)| row["row"].as_str().unwrap().starts_with(&name)), "{name} has no case");
    }
    rows
}

/// What is said of the field with the URL.
fn reason<T>(outcome: Result<T, Vec<Violation>>, field: &str) -> Option<String> {
    let violations = outcome.err().unwrap_or_default();
    violations.into_iter().find(|violation| violation.field == field).map(|violation| violation.reason.to_string())
}

fn request(url: &str) -> Option<String> {
    let request = admin::OutgoingRequest { webhook_name: "Hook".into(), url: url.into(), ..Default::default() };
    let outgoing =
        admin::OutgoingIntegration { display_name: "x".into(), request: Some(request), ..Default::default() };
    reason(wire::outgoing(&outgoing, &policy()), "request.url")
}

fn connection(scheme: Scheme, field: &str) -> Option<String> {
    let connection = admin::Connection { display_name: "x".into(), scheme: Some(scheme), ..Default::default() };
    reason(wire::connection(&connection, &policy()), field)
}

fn token_url(url: &str) -> Option<String> {
    let scheme = admin::OAuth2ClientCredentials { token_url: url.into(), ..Default::default() };
    connection(Scheme::Oauth2ClientCredentials(scheme), "oauth2_client_credentials.token_url")
}

fn login_url(url: &str) -> Option<String> {
    let scheme = admin::SyneriseApiKey { login_url: url.into(), ..Default::default() };
    connection(Scheme::SyneriseApiKey(scheme), "synerise_api_key.login_url")
}

fn auth_url(url: &str) -> Option<String> {
    let request = admin::CustomAuthRequest { url: url.into(), ..Default::default() };
    let scheme = admin::CustomConnection { auth_request: Some(request), ..Default::default() };
    connection(Scheme::Custom(scheme), "custom.auth_request.url")
}

#[test]
fn no_door_takes_a_url_that_may_not_be_called_s01_s52_s58() {
    for (row, url) in rows() {
        for (door, is_template, check) in [
            ("request", true, request as fn(&str) -> Option<String>),
            ("token", false, token_url),
            ("login", false, login_url),
            ("authorisation", true, auth_url),
        ] {
            let expected = match row["code"].as_str() {
                // Without one, Synerise's own is meant.
                Some(_) if url.is_empty() => (door != "login").then_some("REQUIRED"),
                // A template is too long before it is a URL.
                Some("url.too_long") if is_template && url.len() > MAX_URL_BYTES => Some("TOO_LONG"),
                code => code,
            };
            assert_eq!(check(&url).as_deref(), expected, "{door}: {row}");
        }
    }
}

#[test]
fn what_a_command_brings_may_be_called_s57() {
    let mut refused = 0;
    for (row, url) in rows() {
        let quoted = format!("'{}'", url.replace('\'', r"'\''"));
        // Without curl's globs, brackets are part of the host: nothing more is taken.
        if let Ok(import) = curl::import(&format!("curl -g {quoted}")) {
            let checked = check_url(&import.request.url, &policy());
            assert!(matches!(checked, Ok(_) | Err(UrlError::Port | UrlError::Own)), "{row}: {}", import.request.url);
        }
        match curl::import(&format!("curl {quoted}")) {
            Ok(import) => {
                // Ports and our own names are judged when it is saved.
                let checked = check_url(&import.request.url, &policy());
                assert!(
                    matches!(checked, Ok(_) | Err(UrlError::Port | UrlError::Own)),
                    "{row}: {}",
                    import.request.url
                );
                let code = row["code"].as_str();
                assert!(
                    code.is_none() || row["imported"].as_str() == Some(&import.request.url) || checked.is_err(),
                    "{row}: {}",
                    import.request.url
                );
            }
            Err(refusal) => {
                let code = refusal.reason.code();
                let like = match row["code"].as_str() {
                    Some("egress.ip_literal" | "egress.denied_name" | "egress.self") => "url_host",
                    Some("url.scheme") => "url_scheme",
                    Some("url.too_long") => "url_too_long",
                    Some(_) | None => "url_invalid",
                };
                assert_eq!(code, row["imported"].as_str().unwrap_or(like), "{row}: {refusal}");
                refused += 1;
            }
        }
    }
    assert!(refused > 100);
}
