//! The form that a sample suggests: one field for each value, named and typed after it (D25). No value of the sample is in it.

use std::collections::HashSet;

use sluice_proto::admin::v1 as admin;
use sluice_proto::admin::v1::ParameterKind;
use sluice_proto::admin::v1::schema_field::Type;

use super::schema::{FIELDS_MAX, ID_CHARS_MAX};
use crate::envelope::{Body, Envelope};
use crate::flatten::{Leaf, flatten};
use crate::form::read_moment;
use crate::path::{Path, Root, Segment};
use crate::sample::kind;
use crate::validate::NAME_CHARS_MAX;

/// From this length on, a text is taken for one of several lines.
const LONG_TEXT_CHARS: usize = 200;

/// What is suggested.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proposal {
    /// At most [`FIELDS_MAX`], in order of appearance.
    pub fields: Vec<admin::SchemaField>,
    /// Values for which there was no room.
    pub left_out: usize,
}

/// What the body of a confirmed sample suggests. It holds kinds and no values, so that its dates are texts.
pub fn of_sample(sample: &admin::Sample) -> Proposal {
    let parameters = sample.parameters.iter();
    propose(parameters.map(|parameter| (parameter.path.as_str(), type_of_kind(parameter.kind()))))
}

/// What a JSON document suggests.
pub fn of_json(body: Body) -> Proposal {
    let envelope = Envelope {
        body,
        business_profile_id: 0,
        endpoint_id: String::new(),
        event_id: String::new(),
        headers: crate::envelope::Headers::new(),
        method: String::new(),
        time: 0,
    };
    let leaves = flatten(&envelope);
    propose(leaves.iter().map(|(path, leaf)| (path.as_str(), type_of_leaf(leaf))))
}

fn type_of_kind(kind: ParameterKind) -> Option<Type> {
    match kind {
        ParameterKind::Text | ParameterKind::Null => Some(Type::Text),
        ParameterKind::Number => Some(Type::Number),
        ParameterKind::Boolean => Some(Type::Boolean),
        ParameterKind::Unspecified | ParameterKind::EmptyObject | ParameterKind::EmptyArray => None,
    }
}

fn type_of_leaf(leaf: &Leaf<'_>) -> Option<Type> {
    match leaf {
        Leaf::Text(text) if read_moment(text, false).is_some() => Some(Type::Date),
        Leaf::Text(text) if read_moment(text, true).is_some() => Some(Type::Datetime),
        Leaf::Text(text) if text.contains(['\n', '\r']) || text.chars().count() > LONG_TEXT_CHARS => {
            Some(Type::TextArea)
        }
        Leaf::Text(_) | Leaf::Null | Leaf::Boolean(_) | Leaf::Number(_) | Leaf::EmptyObject | Leaf::EmptyArray => {
            type_of_kind(kind(leaf))
        }
    }
}

fn propose<'p>(values: impl Iterator<Item = (&'p str, Option<Type>)>) -> Proposal {
    let mut proposal = Proposal::default();
    let mut ids = HashSet::new();
    for (text, kind) in values {
        let path = text.parse::<Path>().ok().filter(|path| path.root() == Root::Body && is_first(path));
        let (Some(path), Some(kind)) = (path, kind) else { continue };
        if proposal.fields.len() == FIELDS_MAX {
            proposal.left_out += 1;
            continue;
        }
        let label = text.strip_prefix("body").unwrap_or(text).trim_start_matches('.');
        let label: String = label.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
        let id = unique(&id_of(&path), &mut ids);
        proposal.fields.push(admin::SchemaField {
            label: if label.is_empty() { id.clone() } else { label },
            id,
            r#type: kind.into(),
            ..Default::default()
        });
    }
    proposal
}

/// The first element of a list stands for all.
fn is_first(path: &Path) -> bool {
    path.segments().iter().all(|segment| matches!(segment, Segment::Key(_) | Segment::Index(0)))
}

/// The keys of a path, in letters, digits and `_` (F70).
fn id_of(path: &Path) -> String {
    let keys: Vec<&str> = path
        .segments()
        .iter()
        .filter_map(|segment| match segment {
            Segment::Key(key) => Some(key.as_str()),
            Segment::Index(_) | Segment::Any => None,
        })
        .collect();
    let id: String = keys.join("_").chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let id: String = id.chars().take(ID_CHARS_MAX).collect();
    if id.is_empty() { "value".to_owned() } else { id }
}

/// The id, with a number behind it when it is taken.
fn unique(id: &str, taken: &mut HashSet<String>) -> String {
    let numbered = |number: usize| {
        let number = format!("_{number}");
        let kept: String = id.chars().take(ID_CHARS_MAX - number.len()).collect();
        format!("{kept}{number}")
    };
    let mut chosen = id.to_owned();
    let mut number = 2;
    while !taken.insert(chosen.clone()) {
        chosen = numbered(number);
        number += 1;
    }
    chosen
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::flatten::Limits;

    fn of(json: &Value) -> Vec<(String, Type)> {
        let body = Body::read(&json.to_string().into(), &Limits::default()).unwrap();
        of_json(body).fields.iter().map(|field| (field.id.clone(), field.r#type())).collect()
    }

    #[test]
    fn fields_are_named_and_typed_after_the_values() {
        let json = serde_json::json!({
            "complaint": {
                "id": "cmp-1", "dateReceived": "2024-06-10T09:15:30Z", "day": "2024-06-10", "note": "a\nb",
                "long": "x".repeat(201), "short": "x".repeat(200), "nothing": null, "empty": {}, "none": [],
            },
            "amount": 12.5, "express": true, "og:title": "T", "og_title": "U",
            "products": [{"name": "Tea"}, {"name": "Mug"}],
        });
        let expected = [
            ("complaint_id", Type::Text),
            ("complaint_dateReceived", Type::Datetime),
            ("complaint_day", Type::Date),
            ("complaint_note", Type::TextArea),
            ("complaint_long", Type::TextArea),
            ("complaint_short", Type::Text),
            ("complaint_nothing", Type::Text),
            ("amount", Type::Number),
            ("express", Type::Boolean),
            ("og_title", Type::Text),
            ("og_title_2", Type::Text),
            ("products_name", Type::Text),
        ];
        assert_eq!(of(&json), expected.map(|(id, kind)| (id.to_owned(), kind)));
        assert_eq!(of(&serde_json::json!(5)), [("value".to_owned(), Type::Number)]);
    }

    #[test]
    fn what_is_proposed_is_a_form() {
        let many: serde_json::Map<String, Value> =
            (0..130).map(|number| (format!("{}{number}", "ä key ".repeat(20)), Value::from(number))).collect();
        let body = Body::read(&Value::from(many).to_string().into(), &Limits::default()).unwrap();
        let proposal = of_json(body);
        assert_eq!((proposal.fields.len(), proposal.left_out), (FIELDS_MAX, 30));
        let template =
            admin::SchemaTemplate { display_name: "Form".to_owned(), fields: proposal.fields, ..Default::default() };
        assert!(super::super::schema_template(&template).is_ok());
    }
}
