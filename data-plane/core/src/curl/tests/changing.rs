//! Change lists and exports, as people read them.

use serde_json::Value as Json;

use super::golden;
use crate::curl::{ExportError, Header, Request, export, import};

fn request(case: &Json) -> Request {
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let headers = case["headers"].as_array().into_iter().flatten();
    Request {
        method: text(&case["method"]),
        url: text(&case["url"]),
        headers: headers.map(|header| Header { name: text(&header[0]), value: text(&header[1]) }).collect(),
        body: case["body"].as_str().map(str::to_owned),
    }
}

/// Each line: `current`, its `connection`, `command`, and what is `shown`; with `after`, what the request is then, and
/// with `missing`, the secrets to be entered.
#[test]
fn golden_changes() {
    for case in golden("changes") {
        let current = request(&case["current"]);
        let import = import(case["command"].as_str().unwrap()).unwrap_or_else(|refusal| panic!("{case}: {refusal}"));
        let changes = import.changes(&current, case["connection"].as_str());
        assert_eq!(changes.to_string(), case["shown"].as_str().unwrap(), "{case}");
        assert_eq!(changes.is_empty(), case["shown"] == "No changes");
        let after = import.applied_to(&current);
        if changes.rows().iter().all(|change| change.path == "connection") {
            assert_eq!(after, current, "{case}");
        }
        if !case["after"].is_null() {
            assert_eq!(after, request(&case["after"]), "{case}");
        }
        assert_eq!(Json::from(import.missing_secrets(&current)), *case.get("missing").unwrap_or(&Json::Array(vec![])));
    }
}

/// Each line: `request`, and its `command` or `error`.
#[test]
fn golden_exports() {
    for case in golden("exports") {
        match export(&request(&case["request"])) {
            Ok(command) => assert_eq!(Some(&*command), case["command"].as_str(), "{case}"),
            Err(error) => assert_eq!(Some(&*error.to_string()), case["error"].as_str(), "{case}"),
        }
    }
}

/// In literal numbers, so that a limit that moves is noticed.
#[test]
fn an_export_is_no_longer_than_an_import() {
    let request = |bytes: usize| Request {
        method: "POST".to_owned(),
        url: "https://a.example/".to_owned(),
        headers: vec![Header { name: "Content-Type".to_owned(), value: "text/plain".to_owned() }],
        body: Some("x".repeat(bytes)),
    };
    let around = export(&request(1)).unwrap().len() - 1;
    assert_eq!(export(&request(262_144 - around)).unwrap().len(), 262_144);
    assert!(import(&export(&request(262_144 - around)).unwrap()).is_ok());
    assert_eq!(export(&request(262_145 - around)), Err(ExportError::TooLarge));
}

#[test]
fn what_a_command_cannot_say_stays_in_the_draft() {
    use sluice_proto::admin::v1 as admin;
    let mut draft = admin::OutgoingRequest {
        webhook_name: "orders".to_owned(),
        event_name: "order.sent".to_owned(),
        connection: "workspaces/w/connections/c".to_owned(),
        event_parameters: vec![admin::EventParameter { name: "a".to_owned(), value: "b".to_owned() }],
        url: "https://old.example/".to_owned(),
        body: Some("x".to_owned()),
        ..admin::OutgoingRequest::default()
    };
    let before = draft.clone();
    let import = import("curl -X PUT https://new.example/ -H 'A: b'").unwrap();
    import.applied_to(&Request::from(&draft)).put_into(&mut draft);
    assert_eq!(
        (draft.url.as_str(), draft.method(), &draft.body),
        ("https://new.example/", admin::HttpMethod::Put, &None)
    );
    assert_eq!(Request::from(&draft), import.request);
    let rest = |draft: admin::OutgoingRequest| admin::OutgoingRequest {
        url: String::new(),
        method: 0,
        headers: vec![],
        body: None,
        ..draft
    };
    assert_eq!(rest(draft), rest(before));
}
