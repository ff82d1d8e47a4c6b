//! Messages as trees of named fields, from the contract's own descriptors: one way for all kinds to be compared and shown as
//! JSON. A new field of a message is part of it without being named here.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _, Value,
};
use sluice_proto::admin::v1::FieldChange;

use crate::error::Failure;

/// What a secret is shown as, should one ever be in a message that is compared.
pub(crate) const REDACTED: &str = "\"[redacted]\"";

/// The contract.
pub(crate) static CONTRACT: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(sluice_proto::DESCRIPTORS).expect("our own descriptors are whole"));

/// What the contract says of a message; `name` is its full name, for example `sluice.admin.v1.Workflow`.
pub(crate) fn kind(name: &str) -> Result<MessageDescriptor, Failure> {
    let found = CONTRACT.get_message_by_name(name);
    found.ok_or_else(|| Failure::Internal(format!("{name} is not part of the contract")))
}

/// The message as a tree; `name` is its full name.
pub(crate) fn tree<M: Message>(name: &str, message: &M) -> Result<DynamicMessage, Failure> {
    DynamicMessage::decode(kind(name)?, message.encode_to_vec().as_slice())
        .map_err(|error| Failure::Internal(format!("a {name} cannot be read as one: {error}")))
}

/// Sets the text at a path like `steps[0].outgoing_integration`, if there is one.
pub(crate) fn set_text(message: &mut DynamicMessage, path: &str, text: String) {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let (name, at) = match first.strip_suffix(']').and_then(|first| first.split_once('[')) {
        Some((name, at)) => (name, at.parse::<usize>().ok()),
        None => (first, None),
    };
    let value = message.get_field_by_name_mut(name);
    let value = match at {
        Some(at) => value.and_then(|value| value.as_list_mut()).and_then(|list| list.get_mut(at)),
        None => value,
    };
    match (value, rest) {
        (Some(Value::Message(inner)), Some(rest)) => set_text(inner, rest, text),
        (Some(Value::String(there)), None) => *there = text,
        _ => {}
    }
}

/// Every field that differs, in the order of the contract.
pub(crate) fn differences(old: &DynamicMessage, new: &DynamicMessage) -> Vec<FieldChange> {
    let mut found = Vec::new();
    compare_messages("", old, new, &mut found);
    found
}

fn compare_messages(path: &str, old: &DynamicMessage, new: &DynamicMessage, found: &mut Vec<FieldChange>) {
    for field in old.descriptor().fields() {
        let path = if path.is_empty() { field.name().to_owned() } else { format!("{path}.{}", field.name()) };
        let of = |message: &DynamicMessage| message.has_field(&field).then(|| message.get_field(&field).into_owned());
        let (before, after) = (of(old), of(new));
        match (&before, &after) {
            (Some(Value::List(before)), Some(Value::List(after))) => {
                for at in 0..before.len().max(after.len()) {
                    compare(&format!("{path}[{at}]"), &field, before.get(at), after.get(at), found);
                }
            }
            (Some(Value::Map(before)), Some(Value::Map(after))) => {
                let mut keys: Vec<&MapKey> = before.keys().chain(after.keys()).collect();
                keys.sort();
                keys.dedup();
                for key in keys {
                    let place = format!("{path}[{}]", of_key(key));
                    compare(&place, &field, before.get(key), after.get(key), found);
                }
            }
            _ => compare(&path, &field, before.as_ref(), after.as_ref(), found),
        }
    }
}

fn compare(
    path: &str,
    field: &FieldDescriptor,
    old: Option<&Value>,
    new: Option<&Value>,
    found: &mut Vec<FieldChange>,
) {
    match (old, new) {
        (Some(Value::Message(old)), Some(Value::Message(new))) if !is_plain(old) => {
            compare_messages(path, old, new, found);
        }
        (old, new) if old == new => {}
        (old, new) => {
            let secret = sluice_proto::SENSITIVE.contains(&field.full_name());
            let shown = |value: &Value| if secret { REDACTED.to_owned() } else { json(field, value).to_string() };
            let change = FieldChange { path: path.to_owned(), old_value: old.map(shown), new_value: new.map(shown) };
            found.push(change);
        }
    }
}

/// A message of the standard library reads as one value: a time, a duration.
fn is_plain(message: &DynamicMessage) -> bool {
    message.descriptor().package_name() == "google.protobuf"
}

fn of_key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => serde_json::Value::from(key.as_str()).to_string(),
    }
}

/// A value of a field as the JSON form of the contract writes it, secrets within it masked.
pub(crate) fn json(field: &FieldDescriptor, value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(value) => (*value).into(),
        Value::I32(value) => (*value).into(),
        Value::U32(value) => (*value).into(),
        // As text: JSON readers keep only 53 bits of a number.
        Value::I64(value) => value.to_string().into(),
        Value::U64(value) => value.to_string().into(),
        Value::F32(value) => f64::from(*value).into(),
        Value::F64(value) => (*value).into(),
        Value::String(value) => value.as_str().into(),
        Value::Bytes(value) => STANDARD.encode(value).into(),
        Value::EnumNumber(number) => match field.kind() {
            Kind::Enum(kind) => kind.get_value(*number).map_or((*number).into(), |value| value.name().into()),
            _ => (*number).into(),
        },
        Value::Message(message) if is_plain(message) => {
            serde_json::to_value(message).unwrap_or(serde_json::Value::Null)
        }
        Value::Message(message) => object(message),
        Value::List(values) => values.iter().map(|value| json(field, value)).collect(),
        Value::Map(values) => {
            let of_entry = field.kind().as_message().and_then(|entry| entry.get_field_by_name("value"));
            let value_of = |value| of_entry.as_ref().map_or(serde_json::Value::Null, |field| json(field, value));
            let text = |key: &MapKey| of_key(key).trim_matches('"').to_owned();
            // In the same order each time.
            let sorted: BTreeMap<String, _> = values.iter().map(|(key, value)| (text(key), value_of(value))).collect();
            sorted.into_iter().collect()
        }
    }
}

/// A message in the canonical JSON form, maps in the order of their keys: the same message gives the same text each time.
pub(crate) fn canonical_json(message: &DynamicMessage) -> Result<serde_json::Value, serde_json::Error> {
    let mut shown = serde_json::to_value(message)?;
    sort_maps(message, &mut shown);
    Ok(shown)
}

fn sort_maps(message: &DynamicMessage, shown: &mut serde_json::Value) {
    for (field, value) in message.fields() {
        let Some(shown) = shown.get_mut(field.json_name()) else { continue };
        match value {
            Value::Message(within) => sort_maps(within, shown),
            Value::List(values) => {
                let places = shown.as_array_mut().into_iter().flatten();
                let within = values.iter().zip(places);
                within.for_each(|(value, place)| value.as_message().into_iter().for_each(|one| sort_maps(one, place)));
            }
            Value::Map(_) => shown.as_object_mut().into_iter().for_each(serde_json::Map::sort_keys),
            _ => {}
        }
    }
}

/// A message as a JSON object of what is set in it, secrets masked.
fn object(message: &DynamicMessage) -> serde_json::Value {
    let mut fields = serde_json::Map::new();
    for (field, value) in message.fields() {
        let secret = sluice_proto::SENSITIVE.contains(&field.full_name());
        let shown = if secret { "[redacted]".into() } else { json(&field, value) };
        fields.insert(field.name().to_owned(), shown);
    }
    fields.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_proto::admin::v1 as admin;
    use sluice_proto::admin::v1::connection::Scheme;
    use sluice_proto::admin::v1::step::Action;

    fn changes<M: Message>(kind: &str, old: &M, new: &M) -> Vec<(String, Option<String>, Option<String>)> {
        let found = differences(&tree(kind, old).unwrap(), &tree(kind, new).unwrap());
        found.into_iter().map(|change| (change.path, change.old_value, change.new_value)).collect()
    }

    #[test]
    fn fields_are_compared_one_by_one() {
        let step = |url: &str| admin::Step {
            step_name: "first".to_owned(),
            action: Some(Action::CustomWebhook(admin::OutgoingRequest {
                url: url.to_owned(),
                method: admin::HttpMethod::Post.into(),
                body: Some(String::new()),
                ..Default::default()
            })),
            ..Default::default()
        };
        let old = admin::Workflow { display_name: "A".to_owned(), steps: vec![step("a")], ..Default::default() };
        assert_eq!(changes("sluice.admin.v1.Workflow", &old, &old), []);
        let mut new = admin::Workflow { steps: vec![step("b"), step("c")], ..old.clone() };
        new.display_name.clear();
        let found = changes("sluice.admin.v1.Workflow", &old, &new);
        let added = r#"{"step_name":"first","custom_webhook":{"method":"POST","url":"c","body":""}}"#;
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(found[0], ("display_name".to_owned(), text("\"A\""), None));
        assert_eq!(found[1], ("steps[0].custom_webhook.url".to_owned(), text("\"a\""), text("\"b\"")));
        let (path, before, after) = &found[2];
        let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!((path.as_str(), before), ("steps[1]", &None));
        assert_eq!(parsed(after.as_deref().unwrap()), parsed(added));
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn a_text_is_set_where_it_stands() {
        let outgoing = |name: &str| Some(Action::OutgoingIntegration(name.to_owned()));
        let step = |name: &str| admin::Step { action: outgoing(name), ..Default::default() };
        let workflow = |second: &str| admin::Workflow { steps: vec![step("a"), step(second)], ..Default::default() };
        let mut changed = tree("sluice.admin.v1.Workflow", &workflow("b")).unwrap();
        set_text(&mut changed, "steps[1].outgoing_integration", "c".to_owned());
        set_text(&mut changed, "steps[2].outgoing_integration", "d".to_owned());
        assert_eq!(changed.transcode_to::<admin::Workflow>().unwrap(), workflow("c"));
    }

    #[test]
    fn secrets_are_masked_wherever_they_stand() {
        let key = |secret: &str| admin::Connection {
            scheme: Some(Scheme::ApiKey(admin::ApiKey { secret: secret.to_owned(), ..Default::default() })),
            ..Default::default()
        };
        for (old, new) in [(key("CANARY-1"), key("CANARY-2")), (admin::Connection::default(), key("CANARY-1"))] {
            let found = changes("sluice.admin.v1.Connection", &old, &new);
            assert_eq!(found.len(), 1);
            assert!(!format!("{found:?}").contains("CANARY") && format!("{found:?}").contains("[redacted]"));
        }
    }
}
