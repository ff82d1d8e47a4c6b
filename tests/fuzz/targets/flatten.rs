//! Any body: it is refused, or it is JSON within the limits whose every listed path leads back to its value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_core::dedup::{DEFAULT_WINDOW, Parameter, Rule, key};
use sluice_core::envelope::{Envelope, Headers};
use sluice_core::flatten::{DEFAULT_LEAVES, Leaf, Limits, check, flatten, parse_body};
use sluice_core::path::{Found, Path, Root};

fuzz_target!(|data: &[u8]| {
    let Ok(body) = parse_body(data, &Limits::default()) else { return };
    assert!(serde_json::from_slice::<&serde_json::value::RawValue>(data).is_ok(), "more than JSON is taken");
    check(&body, &Limits::default()).expect("the reader holds the same limits");
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
    assert_eq!(Envelope::from_json(&stored).expect("what was written is read").to_json(), stored);
    assert_eq!(
        Envelope::from_json(&envelope.to_json_with(data)).expect("the body's own text is read").to_json(),
        stored
    );
});
