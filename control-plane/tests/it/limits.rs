//! Limits and names of what authors save, at their edges through the API: case by case in `tests/golden/limits`.

use std::path::Path;

use prost_reflect::DynamicMessage;
use serde_json::{Value, json};
use sluice_proto::admin::v1 as admin;

use crate::any_call::{AnyMethod, methods};
use crate::world::{ACME, World, details};

/// Writes out what stands for much, and puts `here` in its place.
fn written(json: &Value, here: &Value) -> Value {
    match json {
        Value::String(text) if text == "<here>" => written(here, &Value::Null),
        Value::String(text) => much(text).into(),
        Value::Array(items) => items.iter().flat_map(|item| repeated(item, here)).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), written(value, here))).collect(),
        other => other.clone(),
    }
}

/// A text with `<a*3>` in it written out.
fn much(text: &str) -> String {
    let parts = || {
        let (before, rest) = text.split_once('<')?;
        let (part, rest) = rest.split_once('*')?;
        let (times, after) = rest.split_once('>')?;
        Some(format!("{before}{}{after}", part.repeat(times.parse().ok()?)))
    };
    parts().unwrap_or_else(|| text.to_owned())
}

fn repeated(item: &Value, here: &Value) -> Vec<Value> {
    let Some(times) = item["repeat"].as_u64() else { return vec![written(item, here)] };
    let text = item["item"].to_string();
    (0..times).map(|number| serde_json::from_str(&text.replace('#', &number.to_string())).unwrap()).collect()
}

/// Every line of every file, with its place.
fn cases() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/limits");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "jsonl")) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        for (line, text) in std::fs::read_to_string(file).unwrap().lines().enumerate() {
            let case = serde_json::from_str(text).unwrap_or_else(|error| panic!("{name} {}: {error}", line + 1));
            cases.push((format!("{name} {}", line + 1), case));
        }
    }
    cases
}

/// A key that may send webhooks.
async fn sender(world: &World) -> String {
    let roles = vec!["workspaces/acme/roles/webhook-sender".to_owned()];
    let api_key = admin::AccessKey { display_name: "sender".to_owned(), roles, ..Default::default() };
    let request = admin::CreateApiKeyRequest { parent: ACME.to_owned(), api_key: Some(api_key), ..Default::default() };
    world.api_keys().create_api_key(request).await.unwrap().into_inner().name
}

/// What `case` has of one side, in the document.
fn document(case: &Value, side: &str, sender: &str) -> Value {
    let text = written(&case["document"], &case[side]).to_string();
    serde_json::from_str(&text.replace("workspaces/acme/apiKeys/KEY", sender)).unwrap()
}

#[tokio::test]
async fn every_limit_has_its_edge_and_says_where_it_is() {
    let world = World::new().await;
    let key = std::fs::read_to_string(world.folder.path().join("admin.key")).unwrap();
    let sender = sender(&world).await;
    let all = methods();
    let cases = cases();
    assert!(cases.len() > 40, "{}", cases.len());
    let mut failures = Vec::new();
    for (number, (place, case)) in cases.iter().enumerate() {
        let resource = case["resource"].as_str().unwrap();
        let method = all.iter().find(|method| method.path().ends_with(&format!("/Create{resource}"))).unwrap();
        let field = method
            .input()
            .fields()
            .find(|field| field.kind().as_message().is_some_and(|message| message.name() == resource));
        let field = field.unwrap().name().to_owned();
        let request = |side: &str| {
            json!({"parent": ACME, format!("{field}_id"): format!("{side}-{number}"),
                &field: document(case, side, &sender)})
        };
        let named = format!("{place}: {} {}", case["row"], case["case"]);
        if let Err(refused) = created(&world, method, key.trim(), &request("within")).await {
            failures.push(format!("{named}: within the limit: {refused:?}"));
        }
        let Err(found) = created(&world, method, key.trim(), &request("beyond")).await else {
            failures.push(format!("{named}: beyond the limit it is accepted"));
            continue;
        };
        let says: Vec<&str> = case["says"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
        let told: Vec<&str> = found.iter().map(|(told, _)| told.as_str()).collect();
        let first = found.first().map_or("", |(_, message)| message.as_str());
        if told != says || !first.contains(case["told"].as_str().unwrap()) {
            failures.push(format!("{named}: {found:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Creates it, or says what is wrong: `field: REASON`, and in words.
async fn created(world: &World, method: &AnyMethod, key: &str, request: &Value) -> Result<(), Vec<(String, String)>> {
    let message = DynamicMessage::deserialize(method.input(), request.clone()).unwrap();
    let bytes = prost::Message::encode_to_vec(&message).into();
    let Err(refused) = method.call_with(world.channel(), Some(key), bytes).await else { return Ok(()) };
    let found = details(&refused);
    let found = found.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
    assert!(!found.is_empty(), "{refused:?}");
    assert!(refused.message().contains(&found[0].field), "the message names the field: {}", refused.message());
    Err(found.iter().map(|one| (format!("{}: {}", one.field, one.reason), one.description.clone())).collect())
}
