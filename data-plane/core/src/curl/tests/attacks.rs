//! The attack table: what a pasted command may and may not do (C01–C11, C13).

use serde_json::Value as Json;

use super::golden;
use crate::curl::{Import, Reason, Refusal, Request, import};

fn texts(list: &Json) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// `"repeat": [text, times]` stands for `{}` in the command.
fn command(case: &Json) -> String {
    let command = case["command"].as_str().unwrap();
    match &case["repeat"] {
        Json::Array(repeat) => {
            let times = usize::try_from(repeat[1].as_u64().unwrap()).unwrap();
            command.replace("{}", &repeat[0].as_str().unwrap().repeat(times))
        }
        _ => command.to_owned(),
    }
}

fn check_refusal(case: &Json, refusal: &Refusal) {
    assert_eq!(case["refused"], refusal.reason.code(), "{case}: {refusal}");
    for (key, value) in [
        ("option", refusal.option.clone().map(Json::from)),
        ("line", Some(Json::from(refusal.line))),
        ("column", Some(Json::from(refusal.column))),
        ("detail", refusal.detail.clone().map(Json::from)),
        ("excerpt", Some(Json::from(&*refusal.excerpt))),
    ] {
        if !case[key].is_null() {
            assert_eq!(Some(case[key].clone()), value, "{case}: {refusal}");
        }
    }
}

fn check_import(case: &Json, import: &Import) {
    assert!(case["refused"].is_null(), "{case}: {import:?}");
    let Request { method, url, headers, body } = &import.request;
    let headers: Vec<String> = headers.iter().map(|header| format!("{}: {}", header.name, header.value)).collect();
    let ignored: Vec<&str> = import.ignored.iter().map(|ignored| &*ignored.option).collect();
    let notes: Vec<&str> = import.notes.iter().map(|note| note.code()).collect();
    for (key, value) in [
        ("method", Json::from(&**method)),
        ("url", Json::from(&**url)),
        ("headers", Json::from(headers)),
        ("body", body.clone().map_or(Json::Null, Json::from)),
        ("ignored", Json::from(ignored)),
        ("notes", Json::from(notes)),
        ("connection", import.connection.as_ref().map_or(Json::Null, |connection| connection.to_string().into())),
    ] {
        if case.get(key).is_some() {
            assert_eq!(case[key], value, "{key} of {case}");
        }
    }
}

#[test]
fn the_attack_table() {
    for case in golden("attacks") {
        let outcome = import(&command(&case));
        match &outcome {
            Ok(import) => check_import(&case, import),
            Err(refusal) => check_refusal(&case, refusal),
        }
        // What is a secret is in no message, no note, no change list and no debug output.
        if let Some(canary) = case["canary"].as_str() {
            let mut shown = match &outcome {
                Ok(import) => format!("{import:?}{}", import.changes(&Request::default(), None)),
                Err(refusal) => format!("{refusal:?}{refusal}"),
            };
            shown.extend(outcome.iter().flat_map(|import| &import.notes).map(ToString::to_string));
            assert!(!shown.contains(canary), "{case}: {shown}");
        }
        for key in texts(&case["shows"]) {
            let Err(refusal) = &outcome else { panic!("{case}") };
            assert!(refusal.to_string().contains(&key), "{refusal}");
        }
    }
}

/// Every reason can happen, and a case shows how.
#[test]
fn every_reason_has_a_case() {
    let cases: Vec<Json> = ["attacks", "commands", "differs"].into_iter().flat_map(golden).collect();
    for reason in Reason::ALL {
        let shown = cases.iter().any(|case| case["refused"] == reason.code() || case["reason"] == reason.code());
        assert!(shown, "no case for {}", reason.code());
        assert!(!reason.wrong().is_empty() && !reason.remedy().is_empty());
    }
}
