//! The attack table on bodies, flattening and deduplication (P01–P27), row by row.

use std::collections::BTreeSet;

use serde_json::Value;
use sluice_core::dedup::{self, DEFAULT_WINDOW, Parameter, Rule};
use sluice_core::flatten::{self, BodyError, DEFAULT_LEAVES, DEFAULT_PATH_BYTES, Limit, Limits, Place, parse_body};
use sluice_core::template::{Mode, OnMissing, Template};

use crate::golden::{cases, context, envelope, text};

/// What other senders at the same time, the clock and captures do is asked of a running server, in `sluice-tests`.
const OF_A_RUNNING_SERVER: [usize; 4] = [23, 24, 26, 27];

/// Half of what a runtime's worker has, so that stack is no excuse (P03).
const STACK_BYTES: usize = 1 << 20;

#[test]
fn every_row_of_the_table_holds() {
    let rows = || {
        let mut seen = BTreeSet::new();
        for case in cases("data/attacks.jsonl") {
            seen.insert(case["row"].as_str().unwrap().to_owned());
            check(&case);
        }
        seen
    };
    let seen = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(rows).unwrap().join().unwrap();
    let table = (1..=27).filter(|row| !OF_A_RUNNING_SERVER.contains(row)).map(|row| format!("P{row:02}"));
    assert_eq!(seen, table.collect());
}

fn check(case: &Value) {
    if case["keys"].is_string() {
        return check_keys(case);
    }
    let bytes = match case["hex"].as_str() {
        Some(digits) => unhex(digits),
        None => text(&case["body"]).into_bytes(),
    };
    let outcome = parse_body(&bytes, &Limits::default());
    if let Some(code) = case["refused"].as_str() {
        return check_refused(case, &bytes, outcome.expect_err(code), code);
    }
    let body = outcome.unwrap_or_else(|error| panic!("{case}: {error}"));
    flatten::check(&body, &Limits::default()).unwrap();
    if let Some(exact) = case["is"].as_str() {
        assert_eq!(body.to_string(), exact, "{case}");
    }
    let envelope = envelope(body, &case["headers"]);
    if let Some(expected) = case["list"].as_array() {
        let list = flatten::flatten(&envelope);
        let own = list.iter().take(expected.len()).map(|(path, leaf)| Value::from(format!("{path} = {leaf}")));
        assert_eq!(own.collect::<Vec<_>>(), *expected, "{case}");
        assert_eq!(list[expected.len()].0.split(['.', '[']).next().filter(|root| *root == "body"), None, "{case}");
    }
    if let Some(source) = case["template"].as_str() {
        let mode = if case["mode"] == "json" { Mode::Json } else { Mode::Text };
        let template = Template::compile(source, mode).unwrap();
        let printed = template.render(&context(&envelope), OnMissing::Empty).unwrap().text;
        assert!(printed == text(&case["prints"]), "{}: {printed:.300}", case["case"]);
    }
}

fn check_refused(case: &Value, bytes: &[u8], error: BodyError, code: &str) {
    assert_eq!(error.code(), code, "{}", case["case"]);
    if let BodyError::Limit(exceeded) = &error {
        if case["at"].is_array() {
            let [line, column] = [0, 1].map(|index| case["at"][index].as_u64().unwrap() as usize);
            // Not before, so that it is the limit that was hit, and not after: what follows costs nothing.
            assert_eq!(exceeded.place, Place::Text { line, column }, "{}", case["case"]);
        }
        let open = Limits::default();
        let open = match exceeded.limit {
            Limit::Depth => Limits { depth: u8::MAX, ..open },
            Limit::Leaves => Limits { leaves: usize::MAX, ..open },
            Limit::PathBytes => Limits { path_bytes: usize::MAX, ..open },
        };
        let unguarded = parse_body(bytes, &open).map_or_else(|error| error.code(), |_| "accepted");
        assert_eq!(unguarded, case["unguarded"].as_str().expect("what comes through without the limit"), "{case:.200}");
    }
    assert!(error.to_string().len() < 200, "the message repeats the body: {error}");
}

fn check_keys(case: &Value) {
    let parameters = case["parameters"].as_array().unwrap().iter();
    let parameters = parameters.map(|text| Parameter::parse(text.as_str().unwrap()).unwrap()).collect();
    let rule = Rule::new(parameters, DEFAULT_WINDOW, true).unwrap();
    let key = |request: &Value| {
        let body = parse_body(request["body"].as_str().unwrap_or("{}").as_bytes(), &Limits::default()).unwrap();
        let (workspace, endpoint) = (request["workspace"].as_str(), request["endpoint"].as_str());
        let envelope = envelope(body, &request["headers"]);
        dedup::key(&rule, workspace.unwrap_or("7"), endpoint.unwrap_or("ep"), &envelope)
    };
    let keys: Vec<_> = case["requests"].as_array().unwrap().iter().map(key).collect();
    match case["keys"].as_str().unwrap() {
        "same" => assert!(keys[0].is_ok() && keys.iter().all(|key| *key == keys[0]), "{case}"),
        "different" => {
            for (index, key) in keys.iter().enumerate() {
                assert!(key.is_ok() && !keys[..index].contains(key), "{case}: request {index}");
            }
        }
        reason => assert!(keys.iter().all(|key| key.unwrap_err().code() == reason), "{case}"),
    }
}

fn unhex(digits: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// The largest list that a body can make under the default limits: what a trigger costs has a ceiling (P16, I8).
#[test]
fn the_costliest_list_is_a_megabyte() {
    let key = "k".repeat(490);
    let body = format!("{{\"{key}\":[{}0]}}", "0,".repeat(DEFAULT_LEAVES - 1));
    let body = parse_body(body.as_bytes(), &Limits::default()).unwrap();
    let envelope = envelope(body, &Value::Null);
    let bytes: usize = flatten::flatten(&envelope).iter().map(|(path, _)| path.len()).sum();
    assert!((900_000..=DEFAULT_LEAVES * DEFAULT_PATH_BYTES).contains(&bytes), "{bytes}");
}
