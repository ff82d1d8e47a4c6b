//! Deduplication: two requests share a key exactly when everything that was chosen is the same (D04, P18–P22).

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value};
use sluice_core::dedup::{self, DEFAULT_WINDOW, Parameter, Rule};
use sluice_core::envelope::{Envelope, Headers};
use sluice_core::path::Found;

use super::documents::{scalar, text};
use super::holds;

/// A chosen value as the requirement sees it: four kinds of nothing, numbers by their text, objects without an order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Chosen {
    Absent,
    Null,
    Boolean(bool),
    Number(String),
    Text(String),
    List(Vec<Chosen>),
    Map(BTreeMap<String, Chosen>),
}

impl Chosen {
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(truth) => Self::Boolean(*truth),
            Value::Number(number) => Self::Number(number.to_string()),
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(list) => Self::List(list.iter().map(Self::of).collect()),
            Value::Object(map) => Self::Map(map.iter().map(|(key, value)| (key.clone(), Self::of(value))).collect()),
        }
    }
}

/// Few and small values, so that equal ones meet often.
fn value() -> impl Strategy<Value = Value> {
    let small = prop::sample::select(
        &[r#""""#, r#""a""#, r#""ab""#, r#""null""#, "null", "0", "1", "1.0", r#""1""#, "true"][..],
    );
    let small = small.prop_map(|text| serde_json::from_str::<Value>(text).unwrap());
    let leaf = prop_oneof![6 => small, 1 => scalar()];
    leaf.prop_recursive(2, 6, 2, |inner| {
        let key = prop::sample::select(&["a", "b", ""][..]).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..3).prop_map(|entries| Value::Object(Map::from_iter(entries))),
        ]
    })
}

fn request() -> impl Strategy<Value = Envelope> {
    let header = (
        prop::sample::select(&["X-Id", "x-ID", "Y"][..]),
        prop_oneof![Just("a".to_owned()), Just(String::new()), text()],
    );
    let fields = (prop::option::of(value()), prop::option::of(value()), prop::collection::vec(header, 0..3));
    fields.prop_map(|(a, b, headers)| {
        let body = [("a", a), ("b", b)].into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        Envelope {
            body: Value::Object(body.collect()).into(),
            business_profile_id: 7,
            endpoint_id: "ep".into(),
            event_id: "ev".into(),
            headers: headers.into_iter().collect::<Headers>(),
            method: "POST".into(),
            time: 0,
        }
    })
}

/// Another value that a careless key takes for this one.
fn look_alike(value: &Value) -> Option<Value> {
    match value {
        Value::Null => Some("null".into()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string().into()),
        Value::String(text) if text == "null" || text.is_empty() => None,
        Value::String(text) => Some(serde_json::from_str(text).unwrap_or_else(|_| vec![text.as_str()].into())),
        Value::Array(list) => Some(list.iter().filter_map(Value::as_str).collect::<String>().into()),
        Value::Object(map) => Some(map.iter().flat_map(|(key, value)| [key.as_str().into(), value.clone()]).collect()),
    }
}

/// How a part of the second request comes from the first.
#[derive(Clone, Copy, Debug)]
enum Part {
    Same,
    LooksAlike,
    Another,
}

/// Two requests that have each of their parts in common more often than not, or nearly.
fn two_requests() -> impl Strategy<Value = (Envelope, Envelope)> {
    let part = || prop_oneof![3 => Just(Part::Same), 2 => Just(Part::LooksAlike), 1 => Just(Part::Another)];
    (request(), request(), part(), part(), any::<bool>()).prop_map(|(first, mut second, a, b, same_headers)| {
        let mut body = second.body.value().as_object().unwrap().clone();
        for (key, part) in [("a", a), ("b", b)] {
            let value = first.body.value().get(key);
            let value = match part {
                Part::Same => value.cloned(),
                // Nothing looks like nothing.
                Part::LooksAlike => value.map_or(Some(Value::Null), look_alike),
                Part::Another => continue,
            };
            match value {
                Some(value) => body.insert(key.to_owned(), value),
                None => body.remove(key),
            };
        }
        second.body = Value::Object(body).into();
        if same_headers {
            second.headers = first.headers.clone();
        }
        (first, second)
    })
}

const CHOICES: [&[&str]; 7] = [
    &["body.a"],
    &["body.a", "body.b"],
    &["body.b", "body.a"],
    &["body"],
    &["body.a[0]", "body.a.a", "headers.X-Id"],
    &["headers.x-id"],
    &["headers.X-Id", "headers.Y", "body.b"],
];

/// Where a request came to, and what of it was chosen there.
fn identity(place: (&str, &str), choice: &[&str], envelope: &Envelope) -> (String, String, Vec<(String, Chosen)>) {
    let chosen = |text: &str| {
        let path: sluice_core::path::Path = text.parse().unwrap();
        let found = match path.resolve(envelope).first() {
            None => Chosen::Absent,
            Some(Found::Json(value)) => Chosen::of(value),
            Some(Found::Text(text)) => Chosen::Text((*text).to_owned()),
        };
        let name = if path.header().is_some() { text.to_ascii_lowercase() } else { text.to_owned() };
        (name, found)
    };
    (place.0.to_owned(), place.1.to_owned(), choice.iter().map(|text| chosen(text)).collect())
}

fn key(place: (&str, &str), choice: &[&str], envelope: &Envelope) -> Option<dedup::DedupKey> {
    let parameters = choice.iter().map(|text| Parameter::parse(text).unwrap()).collect();
    let rule = Rule::new(parameters, DEFAULT_WINDOW, true).unwrap();
    dedup::key(&rule, place.0, place.1, envelope).ok()
}

#[test]
fn a_key_is_shared_exactly_by_equal_choices() {
    let place = || prop::sample::select(&[("7", "ep"), ("7", "ep"), ("7e", "p"), ("8", "ep")][..]);
    let choice = || prop::sample::select(&CHOICES[..]);
    // One choice for both requests more often than not.
    let choices = prop_oneof![4 => choice().prop_map(|one| (one, one)), 1 => (choice(), choice())];
    let equal = std::cell::Cell::new(0);
    holds((place(), place(), choices, two_requests()), |(one, other, choices, (first, second))| {
        let identities = (identity(one, choices.0, &first), identity(other, choices.1, &second));
        let keys = (key(one, choices.0, &first), key(other, choices.1, &second));
        let all_absent = |identity: &(String, String, Vec<(String, Chosen)>)| {
            identity.2.iter().all(|(_, chosen)| *chosen == Chosen::Absent)
        };
        prop_assert_eq!(keys.0.is_none(), all_absent(&identities.0), "no key: nothing chosen is there");
        if let (Some(first), Some(second)) = keys {
            prop_assert_eq!(first == second, identities.0 == identities.1, "{:?}", identities);
            equal.set(equal.get() + i32::from(first == second));
        }
        Ok(())
    });
    assert!(equal.get() > 500, "equal ones hardly meet: {}", equal.get());
}

/// Which of a rule's parameters is meant is never in doubt: their order, names and number are part of the key.
#[test]
fn a_key_holds_for_one_choice_only() {
    holds(request(), |request| {
        let keys: Vec<_> = CHOICES.iter().filter_map(|choice| key(("7", "ep"), choice, &request)).collect();
        for (index, key) in keys.iter().enumerate() {
            prop_assert!(!keys[..index].contains(key));
        }
        Ok(())
    });
}
