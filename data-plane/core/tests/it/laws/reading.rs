//! A document of the context is read as far as a template looks into it, and no template can tell.

use proptest::collection::vec;
use proptest::prelude::*;
use sluice_core::flatten::{Limits, parse_body};
use sluice_core::template::{Context, Mode, OnMissing, Template, Value, value_from_json, value_from_json_text};

use super::documents::{key, scalar};
use super::holds;

/// The text of a document as others write it: with white space, escapes and keys that come twice.
fn written() -> impl Strategy<Value = String> {
    let space = || prop::sample::select(&["", "", "", " ", "\n\t", "\r "][..]);
    let quoted = |text: String, escaped: bool| match escaped {
        true => format!("\"{}\"", text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect::<String>()),
        false => serde_json::Value::from(text).to_string(),
    };
    let key = move || (key(), any::<bool>()).prop_map(move |(key, escaped)| quoted(key, escaped));
    let leaf = prop_oneof![
        3 => scalar().prop_map(|scalar| scalar.to_string()),
        1 => key(),
        1 => "[a-z\\\\\"ł]{0,40}".prop_map(|text| serde_json::Value::from(text).to_string()),
    ];
    leaf.prop_recursive(4, 40, 16, move |inner| {
        let item = (space(), inner, space()).prop_map(|(before, inner, after)| format!("{before}{inner}{after}"));
        let entry = (space(), key(), space(), item.clone())
            .prop_map(|(before, key, after, item)| format!("{before}{key}{after}:{item}"));
        prop_oneof![
            (vec(item, 0..5), space()).prop_map(|(items, space)| format!("[{space}{}]", items.join(","))),
            (vec(entry, 0..16), space()).prop_map(|(entries, space)| format!("{{{space}{}}}", entries.join(","))),
        ]
    })
}

/// What looks into a document: at one place, at all of it, as it is and as a copy, and at its outside only.
const LOOKS: [&str; 12] = [
    "{{ d.a }}{{ d['0'] }}{{ d[0] }}{{ d[-1] }}{{ d.b.a }}{{ d[0].a }}{{ d.a[1] }}{{ d['']|tojson }}",
    "{{ d|length }}{{ d is mapping }}{{ d is iterable }}{{ d is string }}{{ d is number }}{{ not d }}",
    "{{ 'a' in d }}{{ 'ł' in d }}{{ d is containing 1 }}",
    "{{ d }}",
    "{{ d|tojson }}",
    "{% for x in d %}{{ x }}{{ loop.last }};{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v|tojson }},{% endfor %}",
    "{{ d.keys() }}{{ d.values()|tojson }}",
    "{{ d == d }}{{ [d, [d]]|tojson }}",
    "{% set c = d.copy() %}{% do c.update({'a': [d]}) %}{{ c|tojson }}{{ d|tojson }}",
    "{% set c = [d] %}{% do c.append(d) %}{{ c }}",
    "{{ d|unique|join(',') }}{{ d|first }}",
];

/// Value by value, as whoever holds one can see it.
fn assert_same(read: &Value, made: &Value) -> Result<(), TestCaseError> {
    prop_assert_eq!((read.kind(), read.len()), (made.kind(), made.len()));
    prop_assert_eq!(read.as_str(), made.as_str());
    if read.len().is_some() && read.as_str().is_none() {
        let keys: Vec<Value> = read.try_iter().unwrap().collect();
        prop_assert_eq!(&keys, &made.try_iter().unwrap().collect::<Vec<_>>());
        let is_list = read.kind() == minijinja::value::ValueKind::Seq;
        for (position, key) in keys.iter().enumerate() {
            let key = if is_list { &Value::from(position) } else { key };
            assert_same(&read.get_item(key).unwrap(), &made.get_item(key).unwrap())?;
        }
    }
    prop_assert_eq!(read.to_string(), made.to_string());
    Ok(())
}

#[test]
fn a_document_is_the_same_however_far_it_was_read() {
    let looks = LOOKS.map(|source| Template::compile(source, Mode::Text).unwrap());
    let order = Just((0..looks.len()).collect::<Vec<_>>()).prop_shuffle();
    let printed = std::cell::Cell::new(0);
    holds((written(), order), |(text, order)| {
        let whole = value_from_json(&parse_body(text.as_bytes(), &Limits::default()).unwrap());
        let context = |document: Value| {
            let mut context = Context::new();
            context.set("d", document);
            context
        };
        let (read, made) = (context(value_from_json_text(&text).unwrap()), context(whole.clone()));
        for look in order {
            let ours = looks[look].render(&read, OnMissing::Empty);
            printed.set(printed.get() + usize::from(ours.is_ok()));
            prop_assert_eq!(ours, looks[look].render(&made, OnMissing::Empty), "{}", LOOKS[look]);
        }
        assert_same(&value_from_json_text(&text).unwrap(), &whole)
    });
    assert!(printed.get() > 80_000, "{}", printed.get());
}

/// D16, whether a number is kept as its text or as what prints the same.
#[test]
fn a_number_prints_as_it_was_written() {
    let whole = || prop_oneof![Just("0".to_owned()), "[1-9][0-9]{0,9}"];
    let part = prop_oneof![2 => Just(String::new()), 1 => Just(".0".to_owned()), 5 => "\\.[0-9]{1,4}", 2 => "\\.0{0,4}[0-9]{1,14}"];
    let power = prop_oneof![8 => Just(String::new()), 1 => "[eE][+-]?[0-9]{1,3}"];
    let number =
        ("-?", whole(), part, power).prop_map(|(sign, whole, part, power)| format!("{sign}{whole}{part}{power}"));
    let template = Template::compile("{{ n }} {{ n|tojson }} {{ l }}", Mode::Text).unwrap();
    holds(number, |number| {
        let mut context = Context::new();
        context.set("n", value_from_json_text(&number).unwrap());
        context.set("l", value_from_json_text(&format!("[{number}]")).unwrap());
        let printed = template.render(&context, OnMissing::Fail).unwrap().text;
        prop_assert_eq!(printed, format!("{number} {number} [{number}]"));
        Ok(())
    });
}

/// How deep a document is counts when it is put into a list of a template's own, wherever in it the deepest place is.
#[test]
fn a_document_is_as_deep_as_its_deepest_place() {
    let nested = |levels: usize, inside: &str| format!("{}{inside}{}", "[".repeat(levels), "]".repeat(levels));
    for (text, levels) in [
        (nested(100, "1"), 100),
        (nested(100, "1.10"), 100),
        (format!("[{},{}]", nested(1, ""), nested(99, "")), 100),
        (format!("[{},[],{{\"a\":{{}}}}]", nested(99, "")), 100),
        (format!("{{\"a\":[{{}}],\"b\":{}}}", nested(98, "{}")), 100),
    ] {
        let fits = |around: usize| {
            let template = Template::compile(&"{% set d = [d] %}".repeat(around), Mode::Text).unwrap();
            let both = [value_from_json_text(&text).unwrap(), value_from_json(&serde_json::from_str(&text).unwrap())];
            both.map(|document| {
                let mut context = Context::new();
                context.set("d", document);
                template.render(&context, OnMissing::Empty).is_ok()
            })
        };
        assert_eq!((fits(128 - levels), fits(129 - levels)), ([true; 2], [false; 2]), "{text}");
    }
}
