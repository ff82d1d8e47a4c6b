//! Data that tries to break a JSON body, through templates that people write (D07, O01–O03, T22): the body stays JSON, its
//! structure stays the author's, and the data arrives as it was.

use serde_json::{Map, Value, json};
use sluice_core::flatten::{Limits, parse_body};
use sluice_core::template::{Context, Mode, OnMissing, RenderErrorKind, Template, Unrendered, value_from_json};

use crate::golden::cases;

/// The order of the vectors from which most templates come; its texts are where hostile ones go.
fn order() -> Value {
    json!({
        "customer_email": "jane@example.com", "order_number": "111", "name": "O'Neil", "multi": "a b", "uni": "x", "qty": 3,
        "price": 19.99, "total": 10.5, "vip": true, "none": null, "address": {"city": "Krakow", "zip": "30-001",
        "geo": {"lat": 50.06, "lon": 19.94}}, "items": [1, 2, 3], "products": [
            {"id": "abc", "name": "Earwax", "price": 10, "tags": ["a", "b"]}, {"id": "def", "name": "Soap", "price": 2.5, "tags": []}],
    })
}

/// The body in which `value` is everywhere a text was, and `key` a key.
fn body_of(value: &Value, key: &str) -> Value {
    // Not with `json!`, which writes numbers anew.
    let plain = || Value::from("plain");
    let map =
        |entries: Vec<(&str, Value)>| Value::Object(entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());
    let mut body = with_texts(&order(), value);
    body["v"] = value.clone();
    body["list"] = vec![value.clone(), plain(), value.clone()].into();
    body["map"] = map(vec![("k", value.clone()), ("l", plain())]);
    body["keyed"] = map(vec![(key, Value::from(1))]);
    body
}

fn with_texts(json: &Value, value: &Value) -> Value {
    match json {
        Value::String(_) => value.clone(),
        Value::Array(list) => list.iter().map(|inner| with_texts(inner, value)).collect(),
        Value::Object(map) => map.iter().map(|(key, inner)| (key.clone(), with_texts(inner, value))).collect(),
        other => other.clone(),
    }
}

/// Harmless data of the same shape, true where the data is true: words for texts, small numbers for numbers.
fn clean(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::from(clean_text(text)),
        Value::Number(number) => json!(i32::from(number.as_str().bytes().any(|digit| (b'1'..=b'9').contains(&digit)))),
        Value::Array(list) => list.iter().map(clean).collect(),
        Value::Object(map) => {
            map.iter().map(|(key, inner)| (clean_key(key), clean(inner))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

fn clean_text(text: &str) -> String {
    // The text `false` is false, as the empty one is.
    if matches!(text, "" | "false") { text.to_owned() } else { "word".repeat(text.chars().count().min(3)) }
}

/// One plain name for each key.
fn clean_key(key: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !key.is_empty() && key.chars().all(is_plain) {
        return key.to_owned();
    }
    let codes = key.chars().map(|c| if is_plain(c) { c.to_string() } else { format!("_{:x}_", u32::from(c)) });
    format!("key_{}", codes.collect::<String>())
}

/// Whether two documents have the same keys and lists; what stands at the ends does not count.
fn same_structure(hostile: &Value, clean: &Value) -> bool {
    match (hostile, clean) {
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|((key, value), (clean_name, clean))| {
                    (clean_key(key) == clean_key(clean_name) || is_made_of_data(clean_name))
                        && same_structure(value, clean)
                })
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(value, clean)| same_structure(value, clean))
        }
        (Value::Object(_) | Value::Array(_), _) | (_, Value::Object(_) | Value::Array(_)) => false,
        _ => true,
    }
}

/// The author wrote this key with an insert in it.
fn is_made_of_data(key: &str) -> bool {
    key.ends_with(" key")
}

fn context(body: &Value) -> Context {
    let mut context = Context::new();
    let mut request = json!({ "time": 1_718_010_931_000_i64, "headers": {} });
    request["body"] = body.clone();
    context.set("request", value_from_json(&request));
    context
}

fn read(text: &str) -> Option<Value> {
    parse_body(text.as_bytes(), &Limits::STORED).ok()
}

/// What one kind of field did with all values in all templates.
#[derive(Debug, Default)]
struct Tally {
    renders: usize,
    refused: Vec<String>,
    invalid: Vec<String>,
    changed: Vec<String>,
}

fn tally(mode: Mode) -> Tally {
    let values = cases("hostile/values.jsonl");
    let mut tally = Tally::default();
    for case in cases("hostile/templates.jsonl") {
        let (name, source) = (case["name"].as_str().unwrap(), case["template"].as_str().unwrap());
        let template = match Template::compile(source, mode) {
            Ok(template) => template,
            Err(errors) => {
                tally.refused.push(format!("{name}: {}", errors[0]));
                continue;
            }
        };
        for value in &values {
            let what = format!("{name}, {}", value["name"].as_str().unwrap());
            let value = &value["value"];
            let key = value.as_str().unwrap_or("k");
            let rendered =
                template.render(&context(&body_of(value, key)), OnMissing::Empty).map_err(Unrendered::into_error);
            tally.renders += 1;
            let text = match rendered {
                Ok(rendered) => rendered.text,
                Err(error) if error.kind == RenderErrorKind::InvalidJson => {
                    tally.invalid.push(format!("{what}: {error}"));
                    continue;
                }
                Err(error) => panic!("{what}: {error}"),
            };
            let Some(json) = read(&text) else {
                tally.invalid.push(format!("{what}: {text:.200}"));
                continue;
            };
            let of_clean = template.render(&context(&body_of(&clean(value), &clean_key(key))), OnMissing::Empty).ok();
            let of_clean = of_clean.and_then(|rendered| read(&rendered.text));
            if of_clean.is_none_or(|clean| !same_structure(&json, &clean)) {
                tally.changed.push(format!("{what}: {text:.300}"));
            } else if mode == Mode::Json {
                arrives(&what, &case, value, &json);
            }
        }
    }
    tally
}

/// The value is where the author put it, as it was.
fn arrives(what: &str, case: &Value, value: &Value, json: &Value) {
    let at = |kind: &str| {
        let pointers = case[kind].as_array().into_iter().flatten();
        pointers.map(|pointer| json.pointer(pointer.as_str().unwrap()).unwrap_or_else(|| panic!("{what}: {pointer}")))
    };
    for found in at("json") {
        assert_eq!(found.to_string(), value.to_string(), "{what}");
    }
    if let Value::String(text) = value {
        for found in at("text") {
            assert_eq!(found.as_str(), Some(text.as_str()), "{what}");
        }
        let is_scalar = |json: &Value| !json.is_string() && !json.is_object() && !json.is_array();
        let expected = read(text).filter(is_scalar).filter(|_| text.trim() == text).unwrap_or(value.clone());
        for found in at("value") {
            assert_eq!(*found, expected, "{what}");
        }
    } else {
        for found in at("value") {
            assert_eq!(found.to_string(), value.to_string(), "{what}");
        }
    }
}

fn first(found: &[String]) -> &[String] {
    &found[..found.len().min(10)]
}

#[test]
fn no_value_breaks_a_json_body() {
    let tally = tally(Mode::Json);
    println!("{} renders, {} invalid, {} changed", tally.renders, tally.invalid.len(), tally.changed.len());
    assert!(tally.refused.is_empty(), "{:#?}", tally.refused);
    assert!(tally.renders >= 1_000, "{}", tally.renders);
    assert!(tally.invalid.is_empty(), "{} invalid: {:#?}", tally.invalid.len(), first(&tally.invalid));
    assert!(tally.changed.is_empty(), "{} changed: {:#?}", tally.changed.len(), first(&tally.changed));
}

/// The same values without the safety: the test above would notice.
#[test]
fn without_the_safety_they_do() {
    let tally = tally(Mode::Text);
    println!("{} renders, {} invalid, {} changed", tally.renders, tally.invalid.len(), tally.changed.len());
    assert!(tally.invalid.len() > 500 && tally.changed.len() > 50, "{} {}", tally.invalid.len(), tally.changed.len());
}
