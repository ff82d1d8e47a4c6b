//! Cases from `tests/golden`, and what they are made into.

use serde_json::Value;
use sluice_core::envelope::{Envelope, Headers};
use sluice_core::flatten::{Limits, parse_body};
use sluice_core::model::{Action, Step, Workflow};
use sluice_core::request;
use sluice_core::template::Context;

/// Every line of a golden file; numbers keep their text.
pub(crate) fn cases(file: &str) -> Vec<Value> {
    let path = format!("{}/../../tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let lines = text.lines().filter(|line| !line.is_empty());
    let cases: Vec<Value> = lines.map(|line| parse_body(line.as_bytes(), &Limits::STORED).unwrap()).collect();
    assert!(!cases.is_empty(), "{path} is empty");
    cases
}

/// A text, or a list of parts: a text, or `[text, times]`.
pub(crate) fn text(json: &Value) -> String {
    let part = |part: &Value| match part {
        Value::Array(pair) => pair[0].as_str().unwrap().repeat(pair[1].as_u64().unwrap() as usize),
        part => part.as_str().unwrap().to_owned(),
    };
    match json {
        Value::Array(parts) => parts.iter().map(part).collect(),
        json => json.as_str().unwrap().to_owned(),
    }
}

/// A trigger with this body and these headers (a list of name and value).
pub(crate) fn envelope(body: Value, headers: &Value) -> Envelope {
    let headers = headers.as_array().into_iter().flatten();
    Envelope {
        body: body.into(),
        business_profile_id: 7,
        endpoint_id: "ep".into(),
        event_id: "ev".into(),
        headers: headers.map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap())).collect::<Headers>(),
        method: "POST".into(),
        time: 1_718_010_931_000,
    }
}

/// What the templates of a delivery see of it.
pub(crate) fn context(envelope: &Envelope) -> Context {
    let step =
        Step { id: "s1".into(), name: "Send".into(), action: Action::Outgoing("x".into()), form_values: Vec::new() };
    let workflow = Workflow {
        name: "workspaces/acme/workflows/flow".into(),
        uid: "u1".into(),
        display_name: "Flow".into(),
        version: 1,
        triggers: vec![],
        steps: vec![],
    };
    request::context(envelope, &workflow, &step, "e1")
}
