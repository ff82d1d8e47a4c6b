//! Limits of what is saved (I8), case by case in `tests/golden/configuration`.

use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage as _};
use serde_json::Value;
use sluice_core::address::UrlPolicy;
use sluice_core::validate::{self, Violation};
use sluice_core::wire;

use crate::golden::cases;

/// Writes out what stands for much, and puts `here` in its place.
fn written(json: &Value, here: &Value) -> Value {
    match json {
        Value::String(text) if text == "<here>" => written(here, &Value::Null),
        Value::String(text) => match text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')?.split_once('*')) {
            Some((part, times)) => part.repeat(times.parse().unwrap()).into(),
            None => text.clone().into(),
        },
        Value::Array(items) => items.iter().flat_map(|item| repeated(item, here)).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), written(value, here))).collect(),
        other => other.clone(),
    }
}

fn repeated(item: &Value, here: &Value) -> Vec<Value> {
    let Some(times) = item["repeat"].as_u64() else { return vec![written(item, here)] };
    let text = item["item"].to_string();
    (0..times).map(|number| serde_json::from_str(&text.replace('#', &number.to_string())).unwrap()).collect()
}

/// What is wrong with a document.
fn violations(kind: &str, json: &Value) -> Vec<Violation> {
    let pool = DescriptorPool::decode(sluice_proto::DESCRIPTORS).unwrap();
    let message = pool.get_message_by_name(&format!("sluice.admin.v1.{kind}")).unwrap();
    let text = json.to_string();
    let mut text = serde_json::Deserializer::from_str(&text);
    let message = DynamicMessage::deserialize(message, &mut text).unwrap();
    let urls = UrlPolicy::default();
    match message.descriptor().name() {
        "Workspace" => validate::workspace(&message.transcode_to().unwrap()),
        "Connection" => {
            let mut connection = message.transcode_to().unwrap();
            wire::normalise(&mut connection);
            validate::connection(&connection, &urls)
        }
        "IncomingIntegration" => validate::incoming_integration(&message.transcode_to().unwrap()),
        "OutgoingIntegration" => {
            validate::outgoing_integration(&message.transcode_to().unwrap(), &urls, &Default::default())
        }
        "Workflow" => validate::workflow(&message.transcode_to().unwrap(), &urls, &Default::default()),
        other => panic!("no kind {other}"),
    }
}

#[test]
fn every_limit_has_its_edge() {
    let mut failures = Vec::new();
    for case in cases("configuration/limits.jsonl") {
        let told = |side: &str| -> Vec<String> {
            let found = violations(case["kind"].as_str().unwrap(), &written(&case["document"], &case[side]));
            found.iter().map(|found| format!("{}: {}", found.field, found.reason)).collect()
        };
        let says: Vec<&str> = case["says"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
        let (within, beyond) = (told("within"), told("beyond"));
        if !within.is_empty() || beyond != says {
            failures.push(format!("{} {}: within {within:?}, beyond {beyond:?}", case["limit"], case["document"]));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
