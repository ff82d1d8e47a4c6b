//! The engine as a whole: golden data, hostile data in every kind of field, and templates made to break the process.

use std::time::Duration;

use serde_json::Value as Json;

use super::*;

mod attacks;
mod changes;
mod differential;
mod edges;
mod filters;
mod tags;
mod weight;

fn golden(file: &str) -> Vec<Json> {
    let path = format!("{}/../../tests/golden/template/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{file}: {error}: {line}")))
        .collect()
}

fn context(names: &Json) -> Context {
    let mut context = Context::new();
    for (name, value) in names.as_object().into_iter().flatten() {
        context.set(name, date(value).unwrap_or_else(|| value_from_json(value)));
    }
    context
}

/// `{"$date": milliseconds, "$tz": zone}` is a date, which JSON has none of.
fn date(value: &Json) -> Option<Value> {
    let zone = dates::Zone::named(value["$tz"].as_str()?)?;
    Some(dates::Date::from_milliseconds(value["$date"].as_i64()?)?.seen_from(zone).value())
}

/// As the data plane builds it: headers are looked up without regard to case.
fn context_with_headers(names: &Json) -> Context {
    let pairs = |headers: &Json| -> Vec<(String, String)> {
        let entries = headers.as_object().into_iter().flatten();
        entries.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
    };
    let headers = |headers: &Json| headers_value(pairs(headers).iter().map(|(name, value)| (&**name, &**value)));
    let mut context = context(names);
    if let Some(request) = names["request"].as_object() {
        let entries = request.iter().map(|(name, value)| {
            (name.as_str(), if name == "headers" { headers(value) } else { value_from_json(value) })
        });
        context.set("request", map_value(entries));
    }
    if names["authResponseHeaders"].is_object() {
        context.set("authResponseHeaders", headers(&names["authResponseHeaders"]));
    }
    context
}

fn text(source: &str, names: &Json) -> String {
    let template = Template::compile(source, Mode::Text).unwrap();
    template.render(&context(names), OnMissing::Empty).unwrap().text
}

fn errors(source: &str) -> Vec<TemplateError> {
    Template::compile(source, Mode::Text).expect_err(source)
}

#[test]
fn every_kind_of_field() {
    let mut failures = Vec::new();
    for row in golden("modes.jsonl") {
        if let Err(reason) = check_row(&row) {
            failures.push(format!("{}: {}: {reason}", row["name"], row["template"]));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn check_row(row: &Json) -> Result<(), String> {
    let mode = match row["mode"].as_str() {
        Some("text") => Mode::Text,
        Some("exact") => Mode::Exact,
        Some("json") => Mode::Json,
        Some("url") => Mode::Url,
        Some("header") => Mode::Header,
        other => return Err(format!("no mode {other:?}")),
    };
    let on_missing = match row["on_missing"].as_str() {
        None | Some("empty") => OnMissing::Empty,
        Some("null") => OnMissing::Null,
        Some("fail") => OnMissing::Fail,
        other => return Err(format!("no on_missing {other:?}")),
    };
    let outcome = match Template::compile(row["template"].as_str().unwrap(), mode) {
        Err(errors) => Err((format!("{:?}", errors[0].code), errors[0].line, errors[0].column, errors[0].to_string())),
        Ok(template) => {
            template.render(&context_with_headers(&row["context"]), on_missing).map_err(|unrendered| match unrendered {
                Unrendered::Failed(error) => (format!("{:?}", error.kind), error.line, error.column, error.to_string()),
                Unrendered::Skipped(skip) => ("Skipped".to_owned(), skip.line, skip.column, skip.reason),
            })
        }
    };
    match outcome {
        Ok(rendered) => {
            if row["expected"] != *rendered.text {
                return Err(format!("printed {}, not {}", rendered.text, row["expected"]));
            }
            let missing = Json::from(rendered.missing);
            if row.get("missing").is_some_and(|expected| *expected != missing) {
                return Err(format!("missing {missing}, not {}", row["missing"]));
            }
            Ok(())
        }
        Err((name, line, column, text)) => {
            let at = serde_json::json!([line, column]);
            if row["error"] != *name || row.get("at").is_some_and(|expected| *expected != at) {
                return Err(format!("{name} at {at}, not {} at {}: {text}", row["error"], row["at"]));
            }
            Ok(())
        }
    }
}

#[test]
fn all_unknown_names_are_reported_at_once() {
    let found = errors("{{ a|uppr }}\n{% iff x %}\n{{ rang(3) }} {{ a is definde }} {{ a.itms() }}\n{% voucher 1 %}");
    let codes: Vec<_> = found.iter().map(|error| (error.code, error.line)).collect();
    assert_eq!(
        codes,
        [
            (ErrorCode::UnknownFilter, 1),
            (ErrorCode::UnknownTag, 2),
            (ErrorCode::UnknownFunction, 3),
            (ErrorCode::UnknownTest, 3),
            (ErrorCode::UnknownFunction, 3),
            (ErrorCode::UnsupportedTag, 4),
        ]
    );
    assert_eq!(found[0].message, "unknown filter 'uppr'; did you mean 'upper'?");
    assert_eq!(found[0].excerpt, "{{ a|uppr }}\n     ^");
    assert_eq!(found[1].message, "unknown tag 'iff'; did you mean 'if'?");
    assert!(found[5].message.contains("'voucher'") && found[5].message.contains("no provider is configured"));
}

#[test]
fn what_is_left_open_is_refused() {
    for source in [
        "{#",
        "a {{ 1",
        "a {% if",
        "{{ \"x }}",
        "{% if a %}",
        "{% for a in b %}",
        "{% raw %}",
        "x {% endif %}",
        "{% else %}",
        "{% if a %}{% else %}{% elif b %}{% endif %}",
        "{% for a in b %}{% endif %}",
        "{% if %}{% endif %}",
        "{% set %}",
        "{% set a, b = 1 %}",
        "{{ a|default }}",
        "{{ a|lower(1) }}",
        "{{ a|join(x=1) }}",
        "{{ '\\q' }}",
        "{{ 9223372036854775808 }}",
        "{{ (1 }}",
        "{% if a %}{% endif x %}",
    ] {
        let found = errors(source);
        assert!(found.len() == 1 || source.starts_with("{% for"), "{source}: {found:?}");
        assert_eq!(found[0].code, ErrorCode::Syntax, "{source}");
    }
}

#[test]
fn free_names_are_known_with_their_place() {
    let template = Template::compile(
        "{% set x = customer.email %}{{ x }}\n{% for p in request.body %}{{ p }}{{ loop.index }}{% set q = 1 %}{{ q }}{% endfor %}\
         {% if x %}{% set event = 1 %}{% endif %}{{ event }}{{ p }}{# {{ comment }} #}{% raw %}{{ raw }}{% endraw %}{{ 'text' }}",
        Mode::Text,
    )
    .unwrap();
    let roots = template.roots();
    let names: Vec<_> = roots.iter().map(|root| (&*root.name, root.line)).collect();
    assert_eq!(names, [("customer", 1), ("request", 2), ("event", 2), ("p", 2)]);
    assert_eq!(template.roots()[0].column, 12);
    assert!(!template.is_static());
    assert!(Template::compile("a{# b #}{% raw %}{{ c }}{% endraw %}", Mode::Text).unwrap().is_static());
}

#[test]
fn headers_of_any_case() {
    let mut context = Context::new();
    context.set("h", headers_value([("X-Request-ID", "1"), ("x-request-id", "2"), ("Accept", "*")].into_iter()));
    let template = Template::compile(
        "{{ h['x-REQUEST-id'] }} {{ h.accept }} {{ 'ACCEPT' in h }} {{ h|tojson }} {% for k, v in h.items() %}{{ k }}{% endfor %}",
        Mode::Text,
    );
    let rendered = template.unwrap().render(&context, OnMissing::Empty).unwrap();
    assert_eq!(rendered.text, "2 * true {\"X-Request-ID\":\"2\",\"Accept\":\"*\"} X-Request-IDAccept");
}

#[test]
fn json_text_is_read_as_serde_json_reads_it() {
    let good = [
        "null",
        " true ",
        "[]",
        "{}",
        "[ ]",
        "{ }",
        "[[],{}]",
        r#"{"a" : {"b":[1,"x",null, false]} , "c":"d"}"#,
        r#""a\"b\\""#,
        r#"["a\u0041\ud83d\ude00",":",",","]"]"#,
        "[\n1 ,\t2\r]",
        r#"{"":{"":""}}"#,
        r#"{"a":1,"b":2,"a":3}"#,
        "[-0.5,1.250]",
        "\"ł\"",
    ];
    for text in good {
        let json: Json = serde_json::from_str(text).unwrap();
        let read = value_from_json_text(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(
            values::to_json(&read, 1_000).unwrap(),
            values::to_json(&value_from_json(&json), 1_000).unwrap(),
            "{text}"
        );
    }
    for text in [
        "",
        " ",
        "[",
        "]",
        "{\"a\"}",
        "[1,]",
        "1 2",
        "nul",
        "{a:1}",
        "\"",
        r#""\ud800""#,
        r#"[{"a":"x\\\n\ud83d\ud83d"}]"#,
        r#"{"a":[],"\uDC00":1}"#,
        "[\"\\",
        "01",
        "'a'",
    ] {
        assert!(value_from_json_text(text).is_none(), "{text}");
    }
    let nested = |depth: usize| format!("{}{}", repeat("[", depth), repeat("]", depth));
    assert!(value_from_json_text(&nested(limits::VALUE_DEPTH as usize)).is_some());
    assert!(value_from_json_text(&nested(limits::VALUE_DEPTH as usize + 1)).is_none());
}

#[test]
fn values_that_others_made_print_too() {
    let mut context = Context::new();
    context.set("l", Value::from(vec![1, 2]));
    context.set("m", Value::from_pairs([("a", 1)]));
    context.set("big", Value::from(i128::MAX));
    let template =
        Template::compile("{{ l }}{{ m }}{{ l|tojson }}{{ m|tojson }}{{ l[1] }}{{ m.a }}{{ big }}", Mode::Text)
            .unwrap();
    let rendered = template.render(&context, OnMissing::Empty).unwrap();
    assert_eq!(rendered.text, format!("[1, 2]{{a=1}}[1,2]{{\"a\":1}}21{}", i128::MAX));
}

#[test]
fn errors_hold_no_data() {
    let names = serde_json::json!({"s": "S3CRET", "m": {"S3CRET": 1}, "n": 5});
    for source in [
        "{{ s * 2 }}",
        "{{ s|fromjson }}",
        "{{ s > 1 }}",
        "{{ n == true }}",
        "{{ -s }}",
        "{{ s.items() }}",
        "{{ m[s].x }}",
        "{{ s // 2 }}",
        "{{ s|attr(nul) }}",
    ] {
        let error = Template::compile(source, Mode::Text)
            .unwrap()
            .render(&context(&names), OnMissing::Fail)
            .expect_err(source)
            .into_error();
        assert!(!error.to_string().contains("S3CRET"), "{error}");
    }
    let template = Template::compile("{\"a\": {{ s|safe }}}", Mode::Json).unwrap();
    let error = template.render(&context(&names), OnMissing::Empty).unwrap_err().into_error();
    assert_eq!((error.kind, error.column), (RenderErrorKind::InvalidJson, 7));
    assert!(!error.to_string().contains("S3CRET"), "{error}");
}

// ---- JSON bodies against hostile data (D07) ----

const HOSTILE: &[&str] = &[
    "",
    " ",
    "\"",
    "\\",
    "\\\\",
    "\\\"",
    "\n",
    "\r\n",
    "\t",
    "\0",
    "\u{1}",
    "\u{7f}",
    "\u{2028}",
    "\u{feff}",
    "😀",
    "ł",
    "/",
    "</script>",
    "x\",\"admin\":true,\"y\":\"",
    "\",\"a\":\"",
    "\"}",
    "\"]",
    "}",
    "]",
    "{",
    "[",
    ",",
    ":",
    "},{",
    "],[",
    "true",
    "false",
    "null",
    "nul",
    "NaN",
    "Infinity",
    "-",
    "-0",
    "1",
    "01",
    "1.",
    ".5",
    "1e5",
    "1E+400",
    "+1",
    "0x10",
    " 1",
    "1 ",
    "1,2",
    "1]",
    "\"1\"",
    "[1]",
    "{\"a\":1}",
    "'",
    "{{ x }}",
    "{% if %}",
    "\\u0022",
    "\\u00",
    "\\ud800",
    "u0022",
    "\"\"",
    "//",
    "/*",
    "#",
];

/// Sites and how often the data may show: every one of them must keep the shape of the document.
const SITES: &[&str] = &[
    r#"{"a":"{{ x }}","z":1}"#,
    r#"{"a":{{ x }},"z":1}"#,
    r#"{"a":"p{{ x }}q{{ x }}","z":1}"#,
    r#"{"a":"{{ x|tojson }}","z":1}"#,
    r#"{"a":{{ x|tojson }},"z":1}"#,
    r#"{"a":"{{ x|escapejson }}","z":1}"#,
    r#"{"a":{{ x|escapejson }},"z":1}"#,
    r#"{"a":"{{ x|lower|trim }}","z":1}"#,
    r#"{"a":{{ x|upper }},"z":1}"#,
    r#"{"a":{{ x|default("0") }},"z":1}"#,
    r#"{"a":"{{ "p\"" ~ x }}","z":1}"#,
    r#"{"a":{{ "p" ~ x ~ "q" }},"z":1}"#,
    r#"{"a":{{ x + x }},"z":1}"#,
    r#"{"a":{{ [x, "y"] }},"z":1}"#,
    r#"{"a":{{ {k: x} }},"z":1}"#,
    r#"{"a":"{{ {k: x} }}","z":1}"#,
    r#"{"a":{{ [x, x]|join(",") }},"z":1}"#,
    r#"{"a":{{ ["1", "2"]|join(x) }},"z":1}"#,
    r#"{"a":"{{ x|escapejson|upper }}","z":1}"#,
    r#"{"a":{{ x|tojson|lower }},"z":1}"#,
    r#"{"a":{{ x|urlencode }},"z":1}"#,
    r#"{"a":{{ x or "0" }},"z":1}"#,
    r#"{"a":{{ x if true }},"z":1}"#,
    r#"{"a":[{% for y in [x, x] %}{{ y }}{{ "," if not loop.last }}{% endfor %}],"z":1}"#,
    r#"{"a":{% set y = x %}{{ y }},"z":1}"#,
    r#"{"a":{{ m.k }},"b":{{ m }},"z":1}"#,
    r#"{"a":"{{ m }}","z":1}"#,
    r#"{"a":{% for k, v in m.items() %}{"{{ k }}":{{ v }}}{% endfor %},"z":1}"#,
    r#"{"a":{{ (x|escapejson) ~ (x|tojson) }},"z":1}"#,
    r#"{"a":"{{ (x|escapejson) ~ "!" }}","z":1}"#,
];

#[test]
fn hostile_data_never_changes_the_shape_of_a_body() {
    for source in SITES {
        let template = Template::compile(source, Mode::Json).unwrap_or_else(|errors| panic!("{source}: {}", errors[0]));
        for hostile in HOSTILE {
            let names = serde_json::json!({"x": hostile, "m": {"k": hostile}});
            let rendered = template.render(&context(&names), OnMissing::Empty);
            let text = rendered.unwrap_or_else(|error| panic!("{source} with {hostile:?}: {error}")).text;
            let json: Json =
                serde_json::from_str(&text).unwrap_or_else(|_| panic!("{source} with {hostile:?}: {text}"));
            let keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
            assert!(keys == ["a", "z"] || keys == ["a", "b", "z"], "{source} with {hostile:?}: {text}");
            assert_eq!(json["z"], 1, "{source} with {hostile:?}: {text}");
        }
    }
    // The value itself arrives whole.
    let template = Template::compile(r#"{"a":"{{ x }}"}"#, Mode::Json).unwrap();
    for hostile in HOSTILE {
        let rendered = template.render(&context(&serde_json::json!({"x": hostile})), OnMissing::Empty).unwrap();
        assert_eq!(serde_json::from_str::<Json>(&rendered.text).unwrap()["a"], **hostile);
    }
}

#[test]
fn hostile_data_never_moves_a_url() {
    let template =
        Template::compile("https://good.example/a/{{ x }}/b?q={{ x }}&r={{ x|urlencode }}", Mode::Url).unwrap();
    for hostile in HOSTILE.iter().copied().chain(["..", ".", "%2e", "../..", "@evil.com", "?", "#", "&", "\\"]) {
        match template.render(&context(&serde_json::json!({"x": hostile})), OnMissing::Empty) {
            Ok(rendered) => {
                let url = url::Url::parse(&rendered.text).unwrap();
                assert_eq!(url.host_str(), Some("good.example"), "{hostile:?}");
                assert_eq!(url.path_segments().unwrap().count(), 3, "{hostile:?}: {url}");
                assert!(url.path().starts_with("/a/") && url.path().ends_with("/b"), "{hostile:?}: {url}");
                assert_eq!(url.query_pairs().count(), 2, "{hostile:?}: {url}");
                assert_eq!(url.query_pairs().next().unwrap().1, hostile);
                assert_eq!(url.fragment(), None);
            }
            Err(error) => {
                assert_eq!(error.into_error().kind, RenderErrorKind::BadUrl);
                assert!(hostile == "." || hostile == "..", "{hostile:?}");
            }
        }
    }
}

// ---- templates made to abort the process (I8) ----

/// Runs on a stack far smaller than any thread we render on; a debug build needs the most of it.
fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(256 * 1024).spawn(work).unwrap().join().unwrap();
}

fn repeat(part: &str, times: usize) -> String {
    part.repeat(times)
}

#[test]
fn long_chains_are_refused_and_overflow_nothing() {
    on_a_small_stack(|| {
        for (start, link, end) in [
            ("{{ a", "~a", " }}"),
            ("{{ 1", "+1", " }}"),
            ("{{ 1", "**1", " }}"),
            ("{{ a", " and a", " }}"),
            ("{{ a", ".b", " }}"),
            ("{{ a", "|lower", " }}"),
            ("{{ a", "[0]", " }}"),
            ("{{ a", " is defined", " }}"),
            ("{{ a", "()", " }}"),
            ("{{ ", "not ", "a }}"),
            ("{{ ", "-", "1 }}"),
            ("{{ ", "!", "a }}"),
            ("{{ ", "1 if 1 else ", "1 }}"),
            ("{{ ", "1?1:", "1 }}"),
            ("{{ ", "(", "a }}"),
            ("{{ ", "[", "a }}"),
            ("{{ ", "{a:", "1 }}"),
            ("{{ a", "|default(a", " }}"),
            ("{{ a", "[a", " }}"),
            ("{% if a %}", "{% elif a %}", "{% endif %}"),
            ("", "{% if a %}", ""),
            ("", "{% for a in b %}", ""),
        ] {
            let times = (60_000 - start.len() - end.len()) / link.len();
            let found = Template::compile(&format!("{start}{}{end}", repeat(link, times)), Mode::Json).expect_err(link);
            assert!(found.iter().any(|error| matches!(error.code, ErrorCode::Limit | ErrorCode::Syntax)), "{link}");
            // As many as the limit on tokens lets through to the parser: what is flat is accepted, what nests is refused.
            let few = limits::EXPRESSION_TOKENS / 6;
            let source = format!("{start}{}{end}", repeat(link, few));
            if let Ok(template) = Template::compile(&source, Mode::Json) {
                let _ = template.render(&Context::new(), OnMissing::Empty);
            }
        }
        let found = Template::compile(&repeat("a", limits::SOURCE_BYTES + 1), Mode::Text).unwrap_err();
        assert_eq!(found[0].code, ErrorCode::Limit);
    });
}

#[test]
fn what_the_limits_allow_fits_a_small_stack() {
    on_a_small_stack(|| {
        let depth = limits::EXPRESSION_DEPTH - 2;
        let deepest = [
            format!("{}1{}", repeat("[", depth), repeat("]", depth)),
            format!("{}1{}", repeat("(", depth), repeat(")", depth)),
            format!("{}1{}", repeat("{a:", depth), repeat("}", depth)),
            format!("{}1{}", repeat("a[", depth), repeat("]", depth)),
            format!("{}1{}", repeat("a|default(", depth), repeat(")", depth)),
            format!("{}1", repeat("not ", depth)),
            format!("{}1", repeat("1 if 0 else ", depth)),
            format!("{}1{}", repeat("(0 or 1 and 1 == 1 < 1 + 1 * (", 8), repeat("))", 8)),
        ];
        for expr in deepest {
            let (open, close) = (repeat("{% if 1 %}", 49), repeat("{% endif %}", 49));
            let (each, end) = (repeat("{% for i in [1] %}", 51), repeat("{% endfor %}", 51));
            let source = format!("{open}{each}{{{{ {expr} }}}}{end}{close}");
            let template =
                Template::compile(&source, Mode::Json).unwrap_or_else(|errors| panic!("{expr}: {}", errors[0]));
            let _ = template.render(&Context::new(), OnMissing::Empty);
        }
        let arms = format!("{{% if 0 %}}{}{{% endif %}}", repeat("{% elif 0 %}", limits::ELIF_ARMS));
        Template::compile(&arms, Mode::Json).unwrap();
        for chain in [
            format!("1{}", repeat("+1", 700)),
            format!("a{}", repeat("|lower", 700)),
            format!("a{}", repeat(".b", 700)),
        ] {
            let template = Template::compile(&format!("{{{{ {chain} }}}}"), Mode::Text).unwrap();
            template.render(&Context::new(), OnMissing::Empty).unwrap();
        }
    });
}

#[test]
fn deep_values_fit_a_small_stack() {
    on_a_small_stack(|| {
        let json = |depth: usize| format!("{}{}", repeat("[", depth), repeat("]", depth));
        let names = serde_json::json!({"deep": json(limits::FROMJSON_DEPTH), "deeper": json(limits::FROMJSON_DEPTH + 1), "wild": repeat("[", 500_000)});
        let run =
            |source: &str| Template::compile(source, Mode::Text).unwrap().render(&context(&names), OnMissing::Empty);
        assert_eq!(run("{{ deep|fromjson|tojson }}").unwrap().text, json(limits::FROMJSON_DEPTH));
        assert!(run("{{ (deep|fromjson) == (deep|fromjson) }}").is_ok());
        assert_eq!(run("{{ deeper|fromjson }}").unwrap_err().into_error().kind, RenderErrorKind::Limit);
        assert!(run("{{ wild|fromjson }}").is_err());
        let mut deepest = Context::new();
        deepest.set("d", value_from_json_text(&json(limits::VALUE_DEPTH as usize)).unwrap());
        let mut nested = serde_json::json!([]);
        for _ in 1..limits::VALUE_DEPTH {
            nested = serde_json::json!([nested]);
        }
        deepest.set("j", value_from_json(&nested));
        deepest.set("k", value_from_json(&serde_json::json!([nested])));
        let print = |source: &str| Template::compile(source, Mode::Text).unwrap().render(&deepest, OnMissing::Empty);
        assert_eq!(print("{{ j }}").unwrap().text, json(limits::VALUE_DEPTH as usize));
        assert_eq!(print("{{ k }}").unwrap_err().into_error().kind, RenderErrorKind::Limit);
        let source = "{{ d|tojson }}{{ d == d }}{% set e = d[0] %}{% set e = [d] %}";
        let error =
            Template::compile(source, Mode::Text).unwrap().render(&deepest, OnMissing::Empty).unwrap_err().into_error();
        assert_eq!(error.kind, RenderErrorKind::Limit);
        // A loop that wraps a list in a list for ever.
        let hundred = "{% for i in [1,1,1,1,1,1,1,1,1,1] %}{% for j in [1,1,1,1,1,1,1,1,1,1] %}";
        let wrap =
            format!("{{% for z in [1,1] %}}{hundred}{{% set x = [x] %}}{{% endfor %}}{{% endfor %}}{{% endfor %}}");
        assert!(run(&wrap).is_ok(), "ten at a time stay below the limit, because every loop starts afresh");
        let long = format!("[{}]", vec!["1"; 200].join(","));
        let wrap = format!("{{% for i in {long} %}}{{% set x = [x] %}}{{% endfor %}}");
        assert_eq!(run(&wrap).unwrap_err().into_error().kind, RenderErrorKind::Limit);
    });
}

#[test]
fn nothing_runs_or_grows_without_end() {
    let many = vec![1; 2_000];
    let names = serde_json::json!({"l": many, "s": repeat("x", 500_000), "big": (0..9_000).collect::<Vec<_>>()});
    let started = std::time::Instant::now();
    for source in [
        "{% for a in l %}{% for b in l %}{% for c in l %}{% endfor %}{% endfor %}{% endfor %}",
        "{% set x = 'aa' %}{% for i in l %}{% set x = x ~ x %}{% endfor %}",
        "{% set x = 'aa' %}{% for i in l %}{% set x = x + x %}{% endfor %}",
        "{% set x = [1] %}{% for i in l %}{% set x = x + x %}{% endfor %}",
        "{% set x = {} %}{% for i in l %}{% set x = {a: x, b: x} %}{% endfor %}",
        "{% set x = [1] %}{% for i in [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25] %}{% set x = [x, x] %}{% if loop.last %}{{ x }}{% endif %}{% endfor %}",
        "{% for i in l %}{{ s }}{% endfor %}",
        "{{ l|join(s) }}",
        "{% for i in l %}{% set y = l|join(i) %}{% set z = big|tojson %}{% endfor %}",
        "{% for i in l %}{% for j in l %}{% if s == s ~ 'x' %}{% endif %}{% endfor %}{% endfor %}",
        "{% for i in l %}{% for j in l %}{% if big == big %}{% endif %}{% endfor %}{% endfor %}",
        "{% for i in l %}{% for j in l %}{% if 'y' in s %}{% endif %}{{ s|length }}{% endfor %}{% endfor %}",
        "{% for i in l %}{% for j in l %}{% if -1 in big %}{% endif %}{% endfor %}{% endfor %}",
        "{% for i in l %}{% set y = s|upper %}{% set y = s|trim %}{% set y = s|escapejson %}{% set y = s|urlencode %}{% endfor %}",
    ] {
        let error = Template::compile(source, Mode::Text)
            .unwrap()
            .render(&context(&names), OnMissing::Empty)
            .expect_err(source)
            .into_error();
        assert_eq!(error.kind, RenderErrorKind::Limit, "{source}: {error}");
    }
    let keep: String = (0..20).map(|i| format!("{{% set x{i} = big + [1] %}}")).collect();
    let error = Template::compile(&keep, Mode::Text)
        .unwrap()
        .render(&context(&names), OnMissing::Empty)
        .unwrap_err()
        .into_error();
    assert!(error.message.contains("bytes built in all"), "{error}");
    let long = Template::compile("{{ s ~ s ~ s }}", Mode::Text).unwrap();
    assert!(
        long.render(&context(&names), OnMissing::Empty)
            .unwrap_err()
            .into_error()
            .message
            .contains("bytes in one string")
    );
    // Generous for a debug build on a busy machine: without limits each of them would take hours.
    assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
}

#[test]
fn reading_is_quick_whatever_is_read() {
    let fill = |part: &str| repeat(part, limits::SOURCE_BYTES / part.len());
    let names = |part: fn(usize) -> String| {
        (0..)
            .map(part)
            .scan(0, |all, part| {
                *all += part.len();
                (*all <= limits::SOURCE_BYTES).then_some(part)
            })
            .collect::<String>()
    };
    for source in [
        fill("{%a%}"),
        fill("{%enda%}"),
        fill("{{a|b}}"),
        fill("{{a b}}"),
        fill("{{a}}"),
        fill("{#"),
        fill("{##}"),
        fill("{{"),
        fill("{%raw%}"),
        fill("{%raw%}{%endraw%}"),
        fill("{%- a -%} "),
        fill("\""),
        fill("\\"),
        fill("\n{{a|b}}"),
        fill("{%endif%}"),
        fill("{%if a%}"),
        names(|n| format!("{{{{a{n}}}}}")),
        names(|n| format!("{{%set a{n}=1%}}")),
        names(|n| format!("{{%set a{n}=b{n}%}}")),
        names(|n| format!("{{%x{n}%}}")),
        names(|n| format!("{{%x{n}%}}{{%endx{n}%}}")),
        format!("{{{{ '{} }}}}", fill("x")),
    ] {
        for mode in [Mode::Text, Mode::Json, Mode::Url] {
            let each = std::time::Instant::now();
            if let Ok(template) = Template::compile(&source, mode) {
                let _ = template.render(&Context::new(), OnMissing::Empty);
            }
            assert!(each.elapsed().as_secs() < 5, "{}: {:?}", &source[..20], each.elapsed());
        }
    }
}

/// Pieces to make nonsense of: enough of it is almost a template.
const PIECES: &[&str] = &[
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "{%-",
    "-%}",
    " ",
    "\n",
    "\"",
    "'",
    "\\",
    "\\u00e9",
    "a",
    "b.c",
    "x",
    "ł",
    "😀",
    "1",
    "-",
    "1.5e3",
    "0",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    ":",
    ",",
    ".",
    "|",
    "~",
    "+",
    "*",
    "**",
    "//",
    "/",
    "%",
    "==",
    "<",
    "?",
    "!",
    "=",
    " is ",
    " not ",
    " in ",
    " if ",
    " else ",
    " and ",
    " or ",
    "defined",
    "lower",
    "default(",
    "join",
    "tojson",
    "fromjson",
    "escapejson",
    "urlencode",
    "attr('k')",
    "items()",
    "{% if a %}",
    "{% else %}",
    "{% elif x %}",
    "{% endif %}",
    "{% for i in l %}",
    "{% for k, v in m.items() %}",
    "{% endfor %}",
    "{% set s = ",
    "{% raw %}",
    "{% endraw %}",
    "{{ a }}",
    "{{ l|join(x) }}",
    "{{ m.k ~ ",
    "loop.index",
    "https://h.example/",
    "?q=",
    "\"a\":",
];

#[test]
fn nonsense_is_refused_or_rendered_and_never_panics() {
    let (rendered, _) = nonsense(20_000);
    assert!(rendered > 1_000, "only {rendered} were templates");
}

/// How long this thread has worked, as Linux counts it; what other processes do meanwhile is no part of it. Elsewhere
/// nothing is counted.
fn worked() -> Duration {
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(counted.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default())
}

/// So many templates made of [`PIECES`], in every kind of field (T30). How many of them were templates, and which took
/// longest.
fn nonsense(times: usize) -> (usize, (Duration, String)) {
    let names = serde_json::json!({"a": "\"\\\n", "x": 7, "l": [1, "two", null, [3], {"k": 4}], "m": {"k": "v", "n": null}, "b": {"c": 1.10}});
    let context = context(&names);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let (mut rendered, mut slowest) = (0, (Duration::ZERO, String::new()));
    for _ in 0..times {
        let source: String = (0..1 + random(14)).map(|_| PIECES[random(PIECES.len())]).collect();
        for mode in [Mode::Text, Mode::Json, Mode::Url, Mode::Header] {
            let on_missing = [OnMissing::Empty, OnMissing::Null, OnMissing::Fail][random(3)];
            let started = worked();
            match Template::compile(&source, mode) {
                Err(errors) => assert!(errors.iter().all(|error| error.line > 0 && error.column > 0), "{source}"),
                Ok(template) => {
                    if let Ok(Rendered { text, .. }) = template.render(&context, on_missing) {
                        rendered += 1;
                        assert!(mode != Mode::Json || serde_json::from_str::<Json>(&text).is_ok(), "{source}: {text}");
                        assert!(mode != Mode::Header || !text.contains(['\r', '\n', '\0']), "{source}: {text}");
                    }
                }
            }
            let took = worked() - started;
            if took > slowest.0 {
                slowest = (took, source.clone());
            }
        }
    }
    (rendered, slowest)
}

#[test]
fn one_template_serves_many_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Template>();
    shared::<Context>();
    assert_eq!(text("{{ a }}{{ b.c }}", &serde_json::json!({"a": 1, "b": {"c": "x"}})), "1x");
}
