//! Any body: it is refused, or it is JSON within the limits whose every listed path leads back to its value.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sluice_core::dedup::{DEFAULT_WINDOW, Parameter, Rule, key};
use sluice_core::envelope::{Body, Envelope, Headers};
use sluice_core::flatten::{DEFAULT_LEAVES, Leaf, Limits, check, flatten, parse_body};
use sluice_core::path::{Found, Path, Root};

fuzz_target!(|data: &[u8]| {
    let parsed = parse_body(data, &Limits::default());
    let body = Body::read(&Bytes::copy_from_slice(data), &Limits::default());
    assert_eq!(parsed.as_ref().err(), body.as_ref().err(), "the check and the reader disagree");
    let (Ok(parsed), Ok(body)) = (parsed, body) else { return };
    assert!(serde_json::from_slice::<&serde_json::value::RawValue>(data).is_ok(), "more than JSON is taken");
    assert_eq!(body.value().to_string(), parsed.to_string());
    check(&parsed, &Limits::default()).expect("the reader holds the same limits");
    let envelope = Envelope {
        body,
        business_profile_id: 7,
        endpoint_id: "ep".into(),
        event_id: "ev".into(),
        headers: Headers::from_iter([("X-Id", "1")]),
        method: "POST".into(),
        time: 0,
    };
    let list = flatten(&envelope);
    assert!(list.len() <= DEFAULT_LEAVES + 7);
    for (index, (text, leaf)) in list.iter().enumerate() {
        let path: Path = text.parse().expect("a listed path is a path");
        assert_eq!(path.to_string(), *text);
        match path.resolve(&envelope).as_slice() {
            [Found::Json(found)] => assert_eq!(found.to_string(), leaf.to_string()),
            [Found::Text(found)] => assert_eq!(*leaf, Leaf::Text(found)),
            other => panic!("{} values", other.len()),
        }
        if index == 0 && path.root() == Root::Body {
            let rule = Rule::new(vec![Parameter::parse(text).expect("a parameter")], DEFAULT_WINDOW, true);
            key(&rule.expect("a rule"), "7", "ep", &envelope).expect("the value is there");
        }
    }
    let stored = envelope.to_json();
    let again = Envelope::from_json(&stored).expect("what was written is read");
    assert_eq!((again.to_json(), again.body.value().to_string()), (stored, parsed.to_string()));
});
