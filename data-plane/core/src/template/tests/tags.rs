//! What tags do beyond what Jinjava's own data shows: fields, snippets, skipping, and JSON bodies through every tag that
//! prints into a text of its own.

use serde_json::Value as Json;

use super::super::*;
use super::{HOSTILE, context, errors, text};

#[test]
fn a_template_can_say_that_nothing_is_to_be_sent() {
    let names = serde_json::json!({"customer": {"email": "a@b.c", "phone": null}, "x": true});
    let outcome = |source: &str| {
        let template = Template::compile(source, Mode::Text).unwrap_or_else(|errors| panic!("{source}: {}", errors[0]));
        template.render(&context(&names), OnMissing::Empty).map(|rendered| rendered.text)
    };
    for (source, line, column) in [
        ("x{% kill %}y", 1, 2),
        ("{% if x %}\n{% kill %}{% endif %}", 2, 1),
        ("{% for i in [1] %}{% set y %}{% kill %}{% endset %}{% endfor %}", 1, 30),
        ("{% macro m() %}{% kill %}{% endmacro %}{{ m() }}", 1, 16),
        ("a {% customer phone %}", 1, 3),
        ("{% customer nope %}", 1, 1),
    ] {
        let Err(Unrendered::Skipped(skip)) = outcome(source) else { panic!("{source} is not skipped") };
        assert_eq!((skip.line, skip.column), (line, column), "{source}: {}", skip.reason);
    }
    assert_eq!(outcome("{% customer email %}{% if not x %}{% kill %}{% customer nope %}{% endif %}").unwrap(), "a@b.c");
    let nobody = Template::compile("{% customer email %}", Mode::Json).unwrap();
    assert!(matches!(nobody.render(&Context::new(), OnMissing::Null), Err(Unrendered::Skipped(_))));
    assert_eq!(nobody.roots()[0].name, "customer");
}

#[test]
fn fields_of_the_form_are_known_before_anything_is_sent() {
    let template = Template::compile(
        "{% context b_1 %}{{ context.c }}\n{% CONTEXT a %}{{ context['d'] }}{% context a %}",
        Mode::Text,
    )
    .unwrap();
    let named = template.context_fields();
    let fields: Vec<_> = named.iter().map(|field| (&*field.name, field.line, field.column)).collect();
    assert_eq!(fields, [("b_1", 1, 12), ("c", 1, 29), ("a", 2, 12), ("d", 2, 27)]);
    let other = Template::compile("{% set context = {'x': 1} %}{{ context.x }}{{ a.context.y }}", Mode::Text).unwrap();
    assert_eq!(other.context_fields(), [], "a name of its own, and one behind another");
    for source in ["{% context %}", "{% context a.b %}", "{% context 'a' %}", "{% customer a-b %}", "{% context a b %}"]
    {
        assert_eq!(errors(source)[0].code, ErrorCode::Syntax, "{source}");
    }
}

#[test]
fn snippets_stand_where_they_are_named() {
    let mut snippets = Snippets::new();
    snippets.set("sig-1", "{% set by = 'us' %}-- {{ name }}");
    snippets.set("json", r#""k":"{{ name }}","v":{{ name }}"#);
    snippets.set("outer", "<{% snippet sig-1 %}>");
    snippets.set("round", "{% snippet 'outer' %}{% snippet there %}");
    snippets.set("there", "{% snippet round %}");
    snippets.set("wrong", "line\n{{ x|nosuch }}");
    snippets.set("open", "{% if x %}");
    let compile = |source: &str, mode| Template::compile_with(source, mode, &snippets);
    let names = context(&serde_json::json!({"name": "a\"b"}));
    let printed = |source: &str, mode| compile(source, mode).unwrap().render(&names, OnMissing::Empty).unwrap().text;
    assert_eq!(printed("{% snippet outer %}{{ by }}", Mode::Text), "<-- a\"b>us");
    assert_eq!(printed("{% snippet \"sig-1\" %}|{% snippet sig-1 %}", Mode::Text), "-- a\"b|-- a\"b");
    assert_eq!(printed("{% snippetvar id=sig-1 %}[{{ snippet_result|length }}]{% endsnippetvar %}", Mode::Text), "[6]");
    // In a JSON body a snippet's inserts are written for where they stand.
    assert_eq!(printed("{ {% snippet json %} }", Mode::Json), r#"{ "k":"a\"b","v":"a\"b" }"#);
    let found =
        compile("{% snippet wrong %}\n{% snippet nope %}{% snippet open %}{{ y|nosuch }}", Mode::Text).unwrap_err();
    let codes: Vec<_> = found.iter().map(|error| error.code).collect();
    assert_eq!(
        codes,
        [ErrorCode::UnknownSnippet, ErrorCode::UnknownFilter, ErrorCode::UnknownFilter, ErrorCode::Syntax]
    );
    assert_eq!((found[0].line, found[0].column), (2, 12));
    assert_eq!((found[2].line, found[2].column), (2, 6));
    assert!(found[2].message.starts_with("in the snippet 'wrong': unknown filter 'nosuch'"), "{}", found[2]);
    let found = compile("{% snippet round %}", Mode::Text).unwrap_err();
    assert!(found[0].message.contains("the snippet 'round' uses itself"), "{}", found[0]);
    let mut deep = Snippets::new();
    for level in 0..20 {
        deep.set(&level.to_string(), &format!("{{% snippet {} %}}", level + 1));
    }
    let found = Template::compile_with("{% snippet 0 %}", Mode::Text, &deep).unwrap_err();
    assert_eq!(found[0].code, ErrorCode::Limit);
    let mut long = Snippets::new();
    long.set("s", &"x".repeat(60_000));
    let found = Template::compile_with(&"{% snippet s %}".repeat(5), Mode::Text, &long).unwrap_err();
    assert_eq!(found[0].code, ErrorCode::Limit);
    // Tags count through snippets: what they may nest fits the stack.
    let mut nested = Snippets::new();
    for level in 0..7 {
        let inner = if level < 6 { format!("{{% snippet {} %}}", level + 1) } else { String::new() };
        nested.set(&level.to_string(), &format!("{}{inner}{}", "{% if x %}".repeat(60), "{% endif %}".repeat(60)));
    }
    let found = Template::compile_with("{% snippet 0 %}", Mode::Json, &nested).unwrap_err();
    assert_eq!(found[0].code, ErrorCode::Limit);
    assert_eq!(Template::compile("{% snippet a %}", Mode::Text).unwrap_err()[0].code, ErrorCode::UnknownSnippet);
}

#[test]
fn names_are_found_where_they_were_set() {
    let names = serde_json::json!({"l": [1, 2], "n": 7});
    for (source, expected) in [
        ("{% for n in l %}{{ n }}{% endfor %}{{ n }}", "127"),
        ("{% for i in l %}{% set n = n + i %}{{ n }}{% endfor %}{{ n }}", "8107"),
        ("{% macro m(a) %}{% set n = a %}{{ n }}{{ l }}{% endmacro %}{{ m(1) }}{{ n }}", "1[1, 2]7"),
        ("{% macro m() %}{{ n }}{% endmacro %}{% for n in l %}{{ m() }}{% endfor %}", "77"),
        ("{% macro m(a) %}{{ a }}{% if a > 0 %}{{ m(a - 1) }}{% endif %}{% endmacro %}{{ m(3) }}", "3210"),
        ("{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, k=3) }}", "[1, 2]{k=3}"),
        ("{% macro m() %}<{{ caller() }}>{% endmacro %}{% set n = 1 %}{% call m() %}{{ n }}{% endcall %}", "<1>"),
        ("{% set s %}{% set n = 1 %}{{ n }}{% endset %}{{ s }}{{ n }}", "17"),
        (
            "{% autoescape %}{{ '<' }}{{ '<'|safe }}{% set n = 1 %}{% autoescape false %}<{{ '<' }}{% endautoescape %}{% endautoescape %}{{ '<' }}{{ n }}",
            "&lt;<<<<7",
        ),
        ("{% for i in [1,1,2,2,1] %}{% ifchanged i %}{{ i }}{% endifchanged %}{% endfor %}", "121"),
        ("{% set c = ['a','b'] %}{% for i in l %}{% cycle c %}{% cycle 'x','y','z' %}{% endfor %}", "axby"),
        (
            "{% set ns = namespace({a: 1}, b=2) %}{% for i in l %}{% set ns.b = ns.b + i %}{% endfor %}{{ ns }}",
            "{a=1, b=5}",
        ),
        (
            "{{ [1,2,3][-2:] }}{{ 'zażółć'[1:-1] }}{{ 'a😀b'[1:3] }}{{ empty [] }}{{ empty 'a' }}{{ empty n }}",
            "[2, 3]ażół😀truefalsefalse",
        ),
        (
            "{{ type(1) }} {{ type(1.5) }} {{ type('') }} {{ type(l) }} {{ type({}) }} {{ type(true) }} {{ type(nope) }}",
            "long double str list dict bool null",
        ),
        ("{{ range(3) }}{{ range(3, 0, -2) }}{{ range(1, 3, 0) }}{{ range(0, 9999)|length }}", "[0, 1, 2][3, 1][]1000"),
        (
            "{{ 'a1b2'.replaceAll('[0-9]', '<$0>') }}{{ 'aab'.replaceFirst('a', '') }}{{ 'ab'.matches('a|ab') }}{{ 'a,b,,'.split(',') }}{{ 'a,b,,'.split(',', 2) }}",
            "a<1>b<2>abtrue[a, b][a, b,,]",
        ),
    ] {
        assert_eq!(text(source, &names), expected, "{source}");
    }
}

#[test]
fn what_belongs_nowhere_is_refused() {
    for source in [
        "{% break %}",
        "{% if 1 %}{% continue %}{% endif %}",
        "{% for i in l %}{% set x %}{% break %}{% endset %}{% endfor %}",
        "{% for i in l %}{% else %}{% endfor %}",
        "{% call 1 %}{% endcall %}",
        "{% macro m %}{% endmacro %}",
        "{% do %}",
        "{% set a, b %}x{% endset %}",
        "{% endmacro %}",
        "{% kill now %}",
        "{% ifchanged %}{% endifchanged %}",
        "{{ range() }}",
        "{{ range(1, 2, 3, 4) }}",
        "{{ type(x=1) }}",
        "{{ 'a'.substring() }}",
        "{{ 'a'.matches('(') }}",
        "{% snippet %}",
        "{% cycle %}",
        "{% print %}",
        "{% unless %}{% endunless %}",
    ] {
        let found = errors(source);
        assert_eq!(found[0].code, ErrorCode::Syntax, "{source}: {}", found[0]);
    }
    let found = errors("{% macro gret() %}{% endmacro %}{{ greet() }}{{ l.apend(1) }}{% includ x %}{% include x %}");
    let messages: Vec<_> = found.iter().map(|error| &*error.message).collect();
    assert_eq!(messages[0], "unknown function 'greet'; did you mean 'gret'?");
    assert_eq!(messages[1], "unknown method 'apend'; did you mean 'append'?");
    assert!(messages[2].starts_with("unknown tag 'includ'"));
    assert!(messages[3].contains("'include' is off"), "{}", messages[3]);
}

/// Data through everything that prints into a text of its own (D07).
const SITES: &[&str] = &[
    r#"{% set y %}{{ x }}{% endset %}{"a":{{ y }},"z":1}"#,
    r#"{% set y %}{{ x }}{% endset %}{"a":"{{ y }}","z":1}"#,
    r#"{% set y %}"{{ x }}"{% endset %}{"a":{{ y }},"z":1}"#,
    r#"{% set y|upper %},{{ x }},{% endset %}{"a":{{ y }},"z":1}"#,
    r#"{% set y %}{{ x|tojson }}{% endset %}{"a":{{ y }},"z":1}"#,
    r#"{% set y %}{{ x|safe }}{% endset %}{"a":{{ y }},"z":1}"#,
    r#"{% set y %}{% for i in [x] %}{{ i }}{% endfor %}{% endset %}{"a":{{ y }},"z":1}"#,
    r#"{% macro m(v) %}{{ v }}{% endmacro %}{"a":{{ m(x) }},"z":1}"#,
    r#"{% macro m(v) %}{"k":{{ v }}}{% endmacro %}{"a":{{ m(x) }},"z":1}"#,
    r#"{% macro m(v) %}{{ v }}{% endmacro %}{"a":"{{ m(x) }}","z":1}"#,
    r#"{% macro m(v='"') %}{{ v }}{{ x }}{% endmacro %}{"a":"{{ m() }}","z":1}"#,
    r#"{% macro m() %}[{{ caller() }}]{% endmacro %}{"a":{% call m() %}{{ x }}{% endcall %},"z":1}"#,
    r#"{% macro m() %}{{ caller() }}{% endmacro %}{"a":"{% call m() %}"{{ x }}{% endcall %}","z":1}"#,
    r#"{"a":{% cycle x, "b" %},"z":1}"#,
    r#"{"a":"{% cycle x %}","z":1}"#,
    r#"{% cycle x, x as c %}{"a":{% cycle c %},"z":1}"#,
    r#"{"a":"{% ifchanged x %}{{ x }}{% endifchanged %}","z":1}"#,
    r#"{"a":"{% autoescape %}{{ x }}{% endautoescape %}","z":1}"#,
    r#"{"a":{% autoescape %}{{ x }}{% endautoescape %},"z":1}"#,
    r#"{"a":{% print x %},"z":1}"#,
    r#"{"a":"{% print x %}","z":1}"#,
    r#"{% set ns = namespace(v='"') %}{% set ns.v = x %}{"a":{{ ns.v }},"z":1}"#,
    r#"{% set ns = namespace(v='1') %}{% for i in [x] %}{% set ns.v = ns.v ~ i %}{% endfor %}{"a":{{ ns.v }},"z":1}"#,
    r#"{% set ns = namespace(m, v=',') %}{"a":{{ ns.k }},"z":1}"#,
    r#"{"a":"{% context f %}","z":1}"#,
    r#"{"a":{% context f %},"z":1}"#,
    r#"{"a":"{% customer f %}","z":1}"#,
    r#"{"a":{% customer f %},"z":1}"#,
    r#"{"a":"{{ x[0:5] }}","z":1}"#,
    r#"{"a":{{ x[0:] }},"z":1}"#,
    r#"{"a":{{ ['"', x][0:2] }},"z":1}"#,
    r#"{"a":{{ x.concat('"') }},"z":1}"#,
    r#"{"a":"{{ '"'.concat(x) }}","z":1}"#,
    r#"{"a":{{ 'a'.replace('a', x) }},"z":1}"#,
    r#"{"a":{{ 'a'.replaceAll('a', x.replace('$', '').replace('\\', '')) }},"z":1}"#,
    r#"{"a":{{ x.split(',')[0] }},"z":1}"#,
    r#"{"a":{{ m.get('no', x) }},"z":1}"#,
    r#"{"a":{% for i in [1, 2] %}{% if loop.first %}{% continue %}{% endif %}{{ x }}{% break %}{% endfor %},"z":1}"#,
    r#"{% do %}"{{ x }}{% enddo %}{"a":{{ x ? x : 1 }},"z":1}"#,
];

#[test]
fn hostile_data_through_every_tag() {
    for source in SITES {
        let template = Template::compile(source, Mode::Json).unwrap_or_else(|errors| panic!("{source}: {}", errors[0]));
        for hostile in HOSTILE {
            let names = serde_json::json!({"x": hostile, "m": {"k": hostile}, "context": {"f": hostile}, "customer": {"f": hostile}});
            let rendered = template.render(&context(&names), OnMissing::Empty);
            let text = rendered.unwrap_or_else(|error| panic!("{source} with {hostile:?}: {error}")).text;
            let json: Json =
                serde_json::from_str(&text).unwrap_or_else(|_| panic!("{source} with {hostile:?}: {text}"));
            let keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
            assert!(keys == ["a", "z"] && json["z"] == 1, "{source} with {hostile:?}: {text}");
        }
    }
}

#[test]
fn a_json_body_is_left_as_it_was_entered() {
    for source in [
        r#"{% for i in l %}"{% break %}"{% endfor %}"#,
        r#"{% for i in l %}{% if i %}"{% continue %}"{% endif %}{% endfor %}"#,
        r#"{% ifchanged x %}"{% endifchanged %}""#,
        r#"{"a":"{% autoescape %}"{% endautoescape %}x""#,
    ] {
        let found = Template::compile(source, Mode::Json).expect_err(source);
        assert_eq!(found[0].code, ErrorCode::JsonSite, "{source}: {}", found[0]);
    }
    // What prints into a text of its own may hold anything.
    for source in [r#"{% set q %}"{% endset %}{}"#, r#"{% macro q() %}"{% endmacro %}{}"#, r#"{% do %}"{% enddo %}{}"#]
    {
        assert!(Template::compile(source, Mode::Json).is_ok(), "{source}");
    }
}
