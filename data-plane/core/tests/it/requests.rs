//! What leaves: URLs, headers, bodies and event parameters, with authors and data that try to break them
//! (S51–S56, O01–O15).

use serde_json::Value;
use sluice_core::address::UrlPolicy;
use sluice_core::model::OutgoingRequest;
use sluice_core::request::{RenderFailure, RenderedRequest, Unmade, render};
use sluice_core::validate::Violation;
use sluice_core::wire;
use sluice_proto::admin::v1 as admin;

use crate::golden::{cases, context, envelope, text};

/// Name and value of each entry of a list.
fn pairs(list: &Value) -> Vec<(String, String)> {
    list.as_array().into_iter().flatten().map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}

fn or_default(json: &Value, default: &str) -> String {
    if json.is_null() { default.to_owned() } else { text(json) }
}

fn saved(case: &Value) -> Result<OutgoingRequest, Vec<Violation>> {
    let mut headers = pairs(&case["headers"]);
    headers.extend((0..case["headers_times"].as_u64().unwrap_or(0)).map(|n| (format!("X-{n}"), "v".to_owned())));
    let header = |(name, value)| admin::RequestHeader { name, value };
    let parameter = |(name, value)| admin::EventParameter { name, value };
    let method = case["method"].as_str().map_or(admin::HttpMethod::Post, |_| admin::HttpMethod::Unspecified);
    let mode = if case["exact"] == true { admin::TemplateMode::Exact } else { admin::TemplateMode::Unspecified };
    let request = admin::OutgoingRequest {
        webhook_name: "Hook".into(),
        event_name: or_default(&case["event_name"], ""),
        method: method.into(),
        url: or_default(&case["url"], "https://good.example/"),
        headers: headers.into_iter().map(header).collect(),
        body: (!case["body"].is_null()).then(|| text(&case["body"])),
        event_parameters: pairs(&case["event_parameters"]).into_iter().map(parameter).collect(),
        template_mode: mode.into(),
        ..Default::default()
    };
    let integration =
        admin::OutgoingIntegration { display_name: "x".into(), request: Some(request), ..Default::default() };
    wire::outgoing(&integration, &UrlPolicy::default()).map(|outgoing| outgoing.request)
}

fn data(case: &Value) -> Value {
    if case["value_parts"].is_null() { case["value"].clone() } else { Value::from(text(&case["value_parts"])) }
}

fn rendered(case: &Value, request: &OutgoingRequest) -> Result<RenderedRequest, RenderFailure> {
    let body = Value::Object([("v".to_owned(), data(case))].into_iter().collect());
    render(&request.template, &context(&envelope(body, &Value::Null)), &UrlPolicy::default()).map_err(|unmade| {
        match unmade {
            Unmade::Failed(failure) => failure,
            Unmade::Skipped(reason) => panic!("skipped: {reason}"),
        }
    })
}

fn reasons(violations: &[Violation]) -> Vec<Value> {
    violations.iter().map(|found| Value::from(format!("{}: {}", found.field, found.reason))).collect()
}

#[test]
fn requests_leave_as_their_author_meant_them() {
    for case in cases("request/requests.jsonl") {
        let what = format!("{} {}", case["row"], case["case"]);
        let request = match (saved(&case), case["refused"].as_array()) {
            (Ok(request), None) => request,
            (Err(violations), Some(expected)) => {
                assert_eq!(reasons(&violations), *expected, "{what}: {violations:?}");
                continue;
            }
            (Ok(_), Some(_)) => panic!("{what}: it is taken"),
            (Err(violations), None) => panic!("{what}: {violations:?}"),
        };
        match (rendered(&case, &request), case["fails"].as_str()) {
            (Ok(sent), None) => check_sent(&what, &case["sent"], &sent),
            (Err(failure), Some(reason)) => {
                assert_eq!(failure.reason.description(), reason, "{what}: {}", failure.message);
                let says = case["says"].as_str().unwrap_or_default();
                assert!(failure.message.contains(says), "{what}: {}", failure.message);
                let data = data(&case);
                let told =
                    data.as_str().filter(|data| data.len() > 3).is_some_and(|data| failure.message.contains(data));
                assert!(!told, "{what} repeats data: {}", failure.message);
            }
            (outcome, expected) => panic!("{what}: {outcome:.300?}, expected {expected:?}"),
        }
    }
}

/// Who has no time for more than some steps has none for so many in each of fifty headers.
#[test]
fn the_templates_of_a_request_share_limited_steps() {
    let loops = "{% for i in range(10) %}{{ i }}{% endfor %}";
    let header = |n: u64| serde_json::json!([format!("X-{n}"), loops]);
    let with = |headers: u64| saved(&serde_json::json!({"headers": (0..headers).map(header).collect::<Vec<_>>()}));
    let (one, fifty) = (with(1).unwrap(), with(50).unwrap());
    let mut context = context(&envelope(Value::Null, &Value::Null));
    assert!(render(&fifty.template, &context, &UrlPolicy::default()).is_ok());
    context.limit_steps(100);
    assert!(render(&one.template, &context, &UrlPolicy::default()).is_ok());
    let Err(Unmade::Failed(failure)) = render(&fifty.template, &context, &UrlPolicy::default()) else {
        panic!("it is made")
    };
    assert!(failure.message.contains("steps"), "{}", failure.message);
}

fn check_sent(what: &str, expected: &Value, sent: &RenderedRequest) {
    assert!(expected.is_object(), "{what}: nothing is expected");
    if let Some(url) = expected["url"].as_str() {
        assert_eq!(sent.url, url, "{what}");
    }
    if expected["headers"].is_array() {
        assert_eq!(sent.headers, pairs(&expected["headers"]), "{what}");
    }
    if let Some(body) = expected["body"].as_str() {
        assert_eq!(sent.body.as_deref(), Some(body), "{what}");
    }
}
