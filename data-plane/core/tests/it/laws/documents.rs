//! Documents: what is read is what was sent, and flattening loses nothing.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Number, Value};
use sluice_core::envelope::{Envelope, Headers};
use sluice_core::flatten::{self, Leaf, Limits, parse_body};
use sluice_core::path::{Found, Path, Root, Segment};

use super::holds;

/// Keys that could be taken for something else, beside ordinary ones.
const KEYS: [&str; 20] = [
    "a",
    "b",
    "0",
    "7",
    "",
    "a.b",
    "a[0]",
    "[0]",
    "[*]",
    "*",
    "\"",
    "\\",
    "a\"]",
    "]",
    ".",
    "\u{0}",
    "\n",
    "ł",
    "og:title",
    "$serde_json::private::Number",
];

/// Texts of numbers that a less careful reader would change.
const NUMBERS: [&str; 12] = [
    "0",
    "-0",
    "1",
    "1.0",
    "1e0",
    "1e400",
    "-1E-7",
    "18446744073709551616",
    "18446744073709551617",
    "0.1",
    "1.10",
    "123456789012345678901234567890.5",
];

pub(super) fn key() -> impl Strategy<Value = String> {
    prop_oneof![3 => prop::sample::select(&KEYS[..]).prop_map(str::to_owned), 1 => text()]
}

pub(super) fn text() -> impl Strategy<Value = String> {
    vec(prop_oneof![3 => prop::char::range(' ', '~'), 1 => any::<char>()], 0..6)
        .prop_map(|chars| chars.into_iter().collect())
}

pub(super) fn number() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        prop::sample::select(&NUMBERS[..]).prop_map(str::to_owned),
        any::<i64>().prop_map(|number| number.to_string()),
        (any::<i32>(), 0..1000_u32, -400..400_i32).prop_map(|(whole, part, places)| format!("{whole}.{part}e{places}")),
    ];
    text.prop_map(|text| Value::Number(Number::from_string_unchecked(text)))
}

pub(super) fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), number(), text().prop_map(Value::from)]
}

/// Any document of a few values, nested a few times.
pub(super) fn document() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((key(), inner), 0..4).prop_map(|entries| Value::Object(Map::from_iter(entries))),
        ]
    })
}

pub(super) fn envelope() -> impl Strategy<Value = Envelope> {
    let name = prop_oneof![Just("X-Id".to_owned()), Just("x-id".to_owned()), "[!#$a-zA-Z0-9.^-]{1,5}"];
    let headers = vec((name, text()), 0..3).prop_map(|fields| fields.into_iter().collect::<Headers>());
    (document(), headers, text(), any::<i64>(), any::<u64>()).prop_map(
        |(body, headers, id, time, business_profile_id)| Envelope {
            body: body.into(),
            business_profile_id,
            endpoint_id: id.clone(),
            event_id: id,
            headers,
            method: "POST".into(),
            time,
        },
    )
}

/// What [`flatten::flatten`] lists, put together again. It knows nothing of the document: only paths and leaves.
fn unflatten(list: &[(String, Leaf<'_>)]) -> Envelope {
    let mut envelope = Envelope {
        body: Value::Null.into(),
        business_profile_id: 0,
        endpoint_id: String::new(),
        event_id: String::new(),
        headers: Headers::new(),
        method: String::new(),
        time: 0,
    };
    let mut body = Value::Null;
    for (text, leaf) in list {
        let path: Path = text.parse().unwrap();
        match (path.root(), leaf) {
            (Root::Body, leaf) => *place(&mut body, path.segments()) = value(leaf),
            (Root::Headers, Leaf::Text(text)) => envelope.headers.push(path.header().unwrap(), text),
            (Root::Method, Leaf::Text(text)) => envelope.method = (*text).to_owned(),
            (Root::EventId, Leaf::Text(text)) => envelope.event_id = (*text).to_owned(),
            (Root::EndpointId, Leaf::Text(text)) => envelope.endpoint_id = (*text).to_owned(),
            (Root::Time, Leaf::Number(text)) => envelope.time = text.parse().unwrap(),
            (Root::BusinessProfileId, Leaf::Number(text)) => envelope.business_profile_id = text.parse().unwrap(),
            other => panic!("{other:?}"),
        }
    }
    envelope.body = body.into();
    envelope
}

/// The place a path leads to, made on the way. Lists come in order.
fn place<'v>(value: &'v mut Value, segments: &[Segment]) -> &'v mut Value {
    let Some((segment, rest)) = segments.split_first() else { return value };
    match segment {
        Segment::Key(key) => {
            if !value.is_object() {
                *value = Value::Object(Map::new());
            }
            place(value.as_object_mut().unwrap().entry(key.clone()).or_insert(Value::Null), rest)
        }
        Segment::Index(index) => {
            if !value.is_array() {
                *value = Value::Array(Vec::new());
            }
            let array = value.as_array_mut().unwrap();
            if array.len() == *index as usize {
                array.push(Value::Null);
            }
            place(&mut array[*index as usize], rest)
        }
        Segment::Any => panic!("flattening names places"),
    }
}

fn value(leaf: &Leaf<'_>) -> Value {
    match leaf {
        Leaf::Null => Value::Null,
        Leaf::Boolean(truth) => Value::from(*truth),
        Leaf::Number(text) => Value::Number(Number::from_string_unchecked(text.clone().into_owned())),
        Leaf::Text(text) => Value::from(*text),
        Leaf::EmptyObject => Value::Object(Map::new()),
        Leaf::EmptyArray => Value::Array(Vec::new()),
    }
}

/// P13: what can be put together again from its list shares the list with no other.
#[test]
fn flattening_is_injective() {
    holds(envelope(), |envelope| {
        let again = unflatten(&flatten::flatten(&envelope));
        prop_assert_eq!(again.to_json(), envelope.to_json());
        Ok(())
    });
}

/// The same path text everywhere (D15): each listed path leads to its own value and to nothing else.
#[test]
fn every_listed_path_leads_back() {
    holds(envelope(), |envelope| {
        for (text, leaf) in flatten::flatten(&envelope) {
            let path: Path = text.parse().unwrap();
            prop_assert_eq!(path.to_string(), text);
            match path.resolve(&envelope).as_slice() {
                [Found::Json(found)] => prop_assert_eq!(found.to_string(), leaf.to_string()),
                [Found::Text(found)] => prop_assert_eq!(&Leaf::Text(found), &leaf),
                other => prop_assert!(false, "{other:?}"),
            }
        }
        Ok(())
    });
}

/// Reading gives back the document to the byte, from its own text and from storage.
#[test]
fn reading_changes_nothing() {
    holds(envelope(), |envelope| {
        let text = envelope.body.value().to_string();
        let read = parse_body(text.as_bytes(), &Limits::default()).unwrap();
        prop_assert_eq!(read.to_string(), text.clone());
        prop_assert_eq!(flatten::check(&read, &Limits::default()), Ok(()));
        let stored = Envelope::from_json(&envelope.to_json()).unwrap();
        prop_assert_eq!(stored.to_json(), envelope.to_json());
        Ok(())
    });
}

/// The reader under a limit and the check of a value under the same limit agree on every document.
#[test]
fn reader_and_check_hold_the_same_limits() {
    let limits = (0..5_u8, 0..12_usize, 4..40_usize);
    holds((document(), limits), |(document, (depth, leaves, path_bytes))| {
        let limits = Limits { depth, leaves, path_bytes };
        let read = parse_body(document.to_string().as_bytes(), &limits);
        prop_assert_eq!(read.is_ok(), flatten::check(&document, &limits).is_ok());
        Ok(())
    });
}

/// Whatever the bytes are, the answer is a document or a reason.
#[test]
fn reading_never_panics() {
    let bytes = prop_oneof![
        vec(any::<u8>(), 0..40),
        vec(prop::sample::select(&b"{}[]\",:\\u019aeE+-. tfn\xff\xc3"[..]), 0..40),
        (document(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(document, at, byte)| {
            let mut bytes = document.to_string().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        }),
    ];
    holds(bytes, |bytes| {
        if let Ok(document) = parse_body(&bytes, &Limits::default()) {
            prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok(), "more than JSON is taken");
            let again = parse_body(document.to_string().as_bytes(), &Limits::default());
            prop_assert_eq!(again.map(|again| again.to_string()), Ok(document.to_string()));
        }
        Ok(())
    });
}
