//! Each limit where it is said to be: just inside passes, just outside ends with its name. Numbers are written out and
//! never taken from the constants, so that a limit that moves is noticed.

use serde_json::Value as Json;

use super::super::*;
use super::{context, errors, golden, repeat};

#[test]
fn every_limit_has_its_edge() {
    let failures: Vec<_> = golden("limits.jsonl").iter().filter_map(|row| check(row).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn check(row: &Json) -> Result<(), String> {
    let limit = &row["limit"];
    let within = outcome(row, "within").map_err(|message| format!("{limit}: within: {message}"))?;
    match (row["prints"].as_str(), outcome(row, "beyond")) {
        (None, Err(message)) if message.contains(row["says"].as_str().unwrap()) => Ok(()),
        (Some(cut), Ok(printed)) if within == cut && printed == cut => Ok(()),
        (_, Ok(printed)) => Err(format!("{limit}: beyond: printed {} bytes: {printed:.40}", printed.len())),
        (_, Err(message)) => Err(format!("{limit}: beyond: {message}")),
    }
}

/// What is printed, or the message of the limit that was hit.
fn outcome(row: &Json, side: &str) -> Result<String, String> {
    let mode = match row["mode"].as_str() {
        None => Mode::Text,
        Some("json") => Mode::Json,
        Some("url") => Mode::Url,
        Some(other) => panic!("no mode {other}"),
    };
    let mut snippets = Snippets::new();
    for (id, text) in row["snippets"].as_object().into_iter().flatten() {
        snippets.set(id, &parts(text));
    }
    let template = Template::compile_with(&parts(&row[side]), mode, &snippets).map_err(|errors| {
        assert_eq!(errors[0].code, ErrorCode::Limit, "{row:.300}: {}", errors[0]);
        errors[0].message.clone()
    })?;
    match template.render(&context(&row["context"]), OnMissing::Empty).map_err(Unrendered::into_error) {
        Ok(rendered) => Ok(rendered.text),
        Err(error) => {
            assert_eq!(error.kind, RenderErrorKind::Limit, "{row:.300}: {error}");
            Err(error.message)
        }
    }
}

/// A text, or a list of texts and `[text, times]`; `@n` counts the times.
fn parts(json: &Json) -> String {
    let part = |part: &Json| match part {
        Json::Array(pair) => {
            let text = pair[0].as_str().unwrap();
            (0..pair[1].as_u64().unwrap()).map(|n| text.replace("@n", &n.to_string())).collect()
        }
        part => part.as_str().unwrap().to_owned(),
    };
    match json {
        Json::Array(parts) => parts.iter().map(part).collect(),
        json => part(json),
    }
}

/// Beyond these nothing ends; what is over is left out.
#[test]
fn what_is_only_told_has_a_limit_too() {
    assert_eq!(errors(&repeat("{{ a|b }}", 101)).len(), 100);
    let missing = |source: &str| {
        let template = Template::compile(source, Mode::Text).unwrap();
        template.render(&Context::new(), OnMissing::Empty).unwrap().missing
    };
    let paths: String = (0..101).map(|name| format!("{{{{ a{name} }}}}{{{{ a{name} }}}}")).collect();
    assert_eq!(missing(&paths).len(), 100);
    let long = "b".repeat(509);
    assert_eq!(missing(&format!("{{{{ aa.{long} }}}}")), [format!("aa.{long}")]);
    assert_eq!(missing(&format!("{{{{ aaa.{long} }}}}")), [format!("aaa.{}…", &long[1..])]);
}

/// What is long costs steps for its length, before it is gone through: a caller that has no time for more gets an end.
#[test]
fn long_values_cost_steps() {
    let names = serde_json::json!({"big": (0..9_000).collect::<Vec<_>>()});
    let lists = format!("{{% set x = [1] %}}{}", "{% set x = [x, x] %}".repeat(15));
    for source in
        [format!("{lists}{{{{ x }}}}"), format!("{lists}{{{{ x|string|length }}}}"), "{{ -1 in big }}".to_owned()]
    {
        let template = Template::compile(&source, Mode::Text).unwrap();
        let mut context = context(&names);
        assert!(template.render(&context, OnMissing::Empty).is_ok(), "{source}");
        context.limit_steps(500);
        let error = template.render(&context, OnMissing::Empty).map_err(Unrendered::into_error).unwrap_err();
        assert_eq!(error.kind, RenderErrorKind::Limit, "{source}");
        assert!(error.message.contains("500 steps"), "{error}");
    }
}

/// Names directly behind a variable are kept in another way than those that stand apart, or are too many.
#[test]
fn a_path_means_the_same_however_it_is_written() {
    let names = serde_json::json!({"a": {"b": {"ç": "x"}}});
    let rendered = |source: &str| {
        let template = Template::compile(source, Mode::Text).unwrap();
        template.render(&context(&names), OnMissing::Empty).unwrap()
    };
    let direct = rendered("{{ a.b.ç }}{{ a.b.ç.d.e }}{{ a.b.ç|lower }}");
    assert_eq!((&*direct.text, &*direct.missing), ("xx", &["a.b.ç.d.e".to_owned()][..]));
    for apart in ["a . b. ç", "a .b.ç", "a.b\n.ç", "(a).b.ç", "(a.b).ç"] {
        assert_eq!(
            rendered(&format!("{{{{ {apart} }}}}{{{{ {apart}.d.e }}}}{{{{ {apart}|lower }}}}")),
            direct,
            "{apart}"
        );
    }
    let long = |dot: &str| rendered(&format!("{{{{ a{} }}}}", repeat(&format!("{dot}b"), 400)));
    assert_eq!(long("."), long(" ."));
    assert!(long(".").missing[0].starts_with("a.b.b.b") && long(".").steps > 400);
}

/// Where a placeholder begins is not kept but found when something is wrong with what it prints.
#[test]
fn what_a_placeholder_prints_is_wrong_where_it_begins() {
    let names = serde_json::json!({"line": "a\nb"});
    for (before, placeholder) in [
        ("{{ 'x' }}", "{{ line }}"),
        ("{% if 1 %}x{% endif %}", "{{ ((line)) }}"),
        ("}", "{% print line %}"),
        ("x", "{{- +line -}}"),
        ("x", "{{{k: line}.k}}"),
        ("x", "{{ line if 1 else '{{' }}"),
        ("x", "{% cycle line %}"),
        ("x", "{{ ['{{', line]|join('') }}"),
    ] {
        let template = Template::compile(&format!("{before}{placeholder}"), Mode::Header).unwrap();
        let error = template.render(&context(&names), OnMissing::Empty).unwrap_err().into_error();
        assert_eq!(
            (error.kind, error.column as usize),
            (RenderErrorKind::BadHeader, before.len() + 1),
            "{placeholder}"
        );
    }
}

/// However few digits it has: what is printed is the shortest text that is read as the same number.
#[test]
fn a_fraction_prints_its_shortest_text() {
    let mut seed = 1_u64;
    for _ in 0..20_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let thousandths = (seed >> 33) % 10_u64.pow((seed >> 20) as u32 % 10 + 1);
        let exact = thousandths.max(1) as f64 / 1000.0;
        for float in [exact, exact.next_up(), exact.next_down(), -exact, exact * 1.1, exact / 7.0] {
            if (1e-3..1e7).contains(&float.abs()) {
                assert_eq!(values::java_double(float), format!("{float:?}"));
            }
        }
    }
}

/// Few keys are found otherwise than many.
#[test]
fn a_key_is_found_among_few_and_among_many() {
    for count in [1, 11, 12, 13, 14, 40] {
        let mut entries = entries::Entries::new();
        let mut known: Vec<(String, i64)> = Vec::new();
        let steps = (0..count).chain([0, 5, count]).map(|at| (at, true));
        let removed = [count / 2, 0, 3, 100].map(|at| (at, false));
        for (step, (at, inserts)) in steps.clone().chain(removed).chain(steps).enumerate() {
            let (key, value) = (format!("a key of some length {at}"), step as i64);
            let place = known.iter().position(|(known, _)| *known == key);
            let before = match (place, inserts) {
                (Some(place), true) => Some(std::mem::replace(&mut known[place].1, value)),
                (Some(place), false) => Some(known.remove(place).1),
                (None, true) => {
                    known.push((key.clone(), value));
                    None
                }
                (None, false) => None,
            };
            let theirs =
                if inserts { entries.insert(key.as_str().into(), Value::from(value)) } else { entries.remove(&key) };
            assert_eq!(theirs, before.map(Value::from), "{key} of {count}");
            let held = entries.iter().map(|(key, value)| (key.to_string(), i64::try_from(value.clone()).unwrap()));
            assert_eq!(held.collect::<Vec<_>>(), known);
            assert!(known.iter().all(|(key, value)| entries.get(key) == Some(&Value::from(*value))));
            assert_eq!((entries.get("another"), entries.len()), (None, known.len()));
        }
        entries.clear();
        assert_eq!((entries.get("a key of some length 1"), entries.len()), (None, 0));
    }
}
