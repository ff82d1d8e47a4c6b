//! Credentials: what is saved, asked for, read, sent and signed (R020 to R060, R12, R16, R17, O07 to O19), case by case in
//! `tests/golden/credentials`.

use std::time::Duration;

use prost_reflect::{DescriptorPool, DynamicMessage};
use regex::{Captures, Regex};
use serde_json::Value;
use sluice_core::address::{UrlPolicy, check_url};
use sluice_core::credentials::{
    Answer, AuthFailure, Credential, Finished, auth_request, credential, read_answer, sign,
};
use sluice_core::model::{Connection, Purpose};
use sluice_core::seal::Secret;
use sluice_core::validate::Violation;
use sluice_core::wire;
use sluice_proto::admin::v1 as admin;

use crate::golden::{cases, text};

/// 2024-06-10T09:15:31Z.
const NOW: i64 = 1_718_010_931_000;

fn what(case: &Value) -> String {
    format!("{} {}", case["row"], case["case"])
}

/// A connection in the contract's JSON form.
fn from_json(json: &Value) -> admin::Connection {
    let pool = DescriptorPool::decode(sluice_proto::DESCRIPTORS).unwrap();
    let message = pool.get_message_by_name("sluice.admin.v1.Connection").unwrap();
    let run = |found: &Captures<'_>| "a".repeat(found[1].parse().unwrap());
    let json = Regex::new(r"<a\*(\d+)>").unwrap().replace_all(&json.to_string(), run).into_owned();
    let mut json = serde_json::Deserializer::from_str(&json);
    let mut wire: admin::Connection = DynamicMessage::deserialize(message, &mut json).unwrap().transcode_to().unwrap();
    wire.display_name = "x".to_owned();
    wire
}

fn saved(case: &Value) -> Result<Connection, Vec<Violation>> {
    let mut wire = from_json(&case["connection"]);
    wire::normalise(&mut wire);
    wire::connection(&wire, &UrlPolicy::default())
}

fn connection(case: &Value) -> Connection {
    saved(case).unwrap_or_else(|violations| panic!("{}: {violations:?}", what(case)))
}

fn pairs(list: &Value) -> Vec<(String, String)> {
    list.as_array().into_iter().flatten().map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}

fn plain(list: &[(String, Secret)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect()
}

fn check_failure(case: &Value, failure: &AuthFailure) {
    assert_eq!(Some(failure.code()), case["fails"].as_str(), "{}: {failure}", what(case));
    assert!(!failure.to_string().contains("s3cr3t"), "{}: {failure}", what(case));
}

fn check_credential(case: &Value, credential: &Credential) {
    assert!(case["fails"].is_null(), "{}: {credential:?}", what(case));
    assert_eq!(plain(&credential.headers), pairs(&case["headers"]), "{}", what(case));
    assert_eq!(plain(&credential.url_parameters), pairs(&case["url_parameters"]), "{}", what(case));
    let shown = format!("{credential:?}");
    let values = credential.headers.iter().chain(&credential.url_parameters).map(|(_, value)| value.expose());
    assert!(values.filter(|value| value.len() > 3).all(|value| !shown.contains(value)), "{}", what(case));
}

#[test]
fn connections_are_saved_by_their_rules() {
    for case in cases("credentials/connections.jsonl") {
        let what = what(&case);
        match saved(&case) {
            Err(violations) => {
                let found: Vec<String> =
                    violations.iter().map(|found| format!("{}: {}", found.field, found.reason)).collect();
                let expected: Vec<&str> =
                    case["refused"].as_array().into_iter().flatten().flat_map(Value::as_str).collect();
                assert_eq!(found, expected, "{what}: {violations:?}");
                assert!(!format!("{violations:?}").contains("s3cr3t"), "{what}: {violations:?}");
            }
            Ok(connection) => {
                assert!(case["refused"].is_null(), "{what}: it is taken");
                assert!(!format!("{connection:?}").contains("s3cr3t"), "{what}: {connection:?}");
                match credential(&connection.scheme, None) {
                    Ok(credential) => check_credential(&case, &credential),
                    Err(AuthFailure::NoToken) => assert_eq!(case["no_token"], true, "{what}"),
                    Err(failure) => {
                        check_failure(&case, &failure);
                        let too_long = matches!(failure, AuthFailure::TooLong(..));
                        assert_eq!(connection.scheme.purpose() == Purpose::Signs, !too_long, "{what}: {failure:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_token_is_asked_for_as_the_connection_says() {
    for case in cases("credentials/auth_requests.jsonl") {
        let what = what(&case);
        match auth_request(&connection(&case).scheme, &UrlPolicy::default(), NOW) {
            Err(failure) => check_failure(&case, &failure),
            Ok(None) => assert!(case["sent"].is_null() && case["fails"].is_null(), "{what}"),
            Ok(Some(request)) => {
                let sent = &case["sent"];
                assert_eq!(Some(request.method), sent["method"].as_str(), "{what}");
                assert_eq!(Some(request.url.expose()), sent["url"].as_str(), "{what}");
                assert_eq!(plain(&request.headers), pairs(&sent["headers"]), "{what}");
                assert_eq!(request.body.as_ref().map(Secret::expose), sent["body"].as_str(), "{what}");
                let shown = format!("{request:?}");
                assert!(!shown.contains("gX1fBat3bV") && !shown.contains("k-1"), "{what}: {shown}");
            }
        }
    }
}

#[test]
fn an_answer_is_good_for_what_it_says_or_for_nothing() {
    for case in cases("credentials/answers.jsonl") {
        let answer = &case["answer"];
        let body = answer["body_hex"]
            .as_str()
            .map_or_else(|| text(&answer["body"]).into_bytes(), |digits| hex::decode(digits).unwrap());
        let headers = pairs(&answer["headers"]);
        let status = answer["status"].as_u64().unwrap_or(200).try_into().unwrap();
        let read = Answer { status, headers: &headers, body: &body, truncated: answer["truncated"] == true };
        let scheme = connection(&case).scheme;
        match read_answer(&scheme, read, NOW) {
            Err(failure) => check_failure(&case, &failure),
            Ok(token) => {
                check_credential(&case, &credential(&scheme, Some(&token)).unwrap());
                for (name, lasts) in [("lifetime", token.lifetime), ("refresh_after", token.refresh_after)] {
                    let expected = case[name].as_f64().map(Duration::from_secs_f64);
                    assert!(expected.is_none_or(|expected| expected == lasts), "{} {name}: {lasts:?}", what(&case));
                }
            }
        }
    }
}

#[test]
fn a_signature_covers_exactly_what_is_sent() {
    for case in cases("credentials/signatures.jsonl") {
        let request = &case["request"];
        let url = check_url(request["url"].as_str().unwrap_or("https://api.example/"), &UrlPolicy::default()).unwrap();
        let (headers, body) = (pairs(&request["headers"]), request["body"].as_str().unwrap_or_default());
        let finished = Finished {
            method: request["method"].as_str().unwrap_or("POST"),
            url: &url,
            headers: &headers,
            body: body.as_bytes(),
            message_id: request["message_id"].as_str().unwrap_or("m-1"),
            timestamp: request["timestamp"].as_i64().unwrap_or(NOW),
        };
        match sign(&connection(&case).scheme, &finished) {
            Ok(signature) => check_credential(&case, &signature),
            Err(failure) => check_failure(&case, &failure),
        }
    }
}

#[test]
fn a_secret_that_was_not_sent_again_is_no_broken_rule_and_signs_nothing() {
    let stored = admin::SigningSecret { id: "a".to_owned(), key_set: true, ..Default::default() };
    let scheme = admin::StandardWebhooks { secrets: vec![stored] };
    let wire = admin::Connection {
        display_name: "x".to_owned(),
        scheme: Some(admin::connection::Scheme::StandardWebhooks(scheme)),
        ..Default::default()
    };
    let connection = wire::connection(&wire, &UrlPolicy::default()).unwrap();
    let url = check_url("https://api.example/", &UrlPolicy::default()).unwrap();
    let finished = Finished { method: "POST", url: &url, headers: &[], body: b"", message_id: "m", timestamp: NOW };
    assert_eq!(sign(&connection.scheme, &finished).unwrap_err(), AuthFailure::NoKey);
}
