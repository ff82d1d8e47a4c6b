//! Lists and maps that change in place: seen through every name, never beyond one render, never too deep.

use super::super::*;
use super::{context, on_a_small_stack, text};

#[test]
fn a_change_is_seen_through_every_name() {
    let names = serde_json::json!({"m": {"l": [1], "n": {"k": []}}, "l": [[0]]});
    for (source, expected) in [
        ("{% set a = m.l %}{% do a.append(2) %}{{ m.l }}{{ a }}", "[1, 2][1, 2]"),
        ("{% do m.n.k.append('x') %}{{ m.n }}{{ m }}", "{k=[x]}{l=[1], n={k=[x]}}"),
        ("{% for i in l %}{% do i.append(1) %}{% endfor %}{{ l }}", "[[0, 1]]"),
        ("{% for i in l %}{% do l.append(i) %}{% endfor %}{{ l }}", "[[0], [0]]"),
        ("{% set a = {b: []} %}{% set c = [a.b] %}{% do c[0].append(1) %}{{ a }}{{ c }}", "{b=[1]}[[1]]"),
        ("{% for e in m.items() %}{% do e.value.clear() %}{% endfor %}{{ m }}", "{l=[], n={}}"),
        ("{% set c = m.l.copy() %}{% do c.append(2) %}{{ m.l }}{{ c }}", "[1][1, 2]"),
        ("{% set j = '{\"a\":[1]}'|fromjson %}{% do j.a.append(2) %}{{ j }}", "{a=[1, 2]}"),
        ("{% do m.put('z', m.remove('l')) %}{{ m }}", "{n={k=[]}, z=[1]}"),
    ] {
        assert_eq!(text(source, &names), expected, "{source}");
    }
}

#[test]
fn a_change_ends_with_its_render() {
    let names = context(&serde_json::json!({"l": [1], "m": {"k": {"v": 1}}}));
    let source = "{% do l.append(2) %}{% do m.k.put('v', 2) %}{% do m.clear() %}{% set l = 0 %}{{ l }}{{ m }}";
    let changing = Template::compile(source, Mode::Text).unwrap();
    let looking = Template::compile("{{ l }}{{ m }}", Mode::Text).unwrap();
    for _ in 0..2 {
        assert_eq!(changing.render(&names, OnMissing::Empty).unwrap().text, "0{}");
        assert_eq!(looking.render(&names, OnMissing::Empty).unwrap().text, "[1]{k={v=1}}");
    }
}

#[test]
fn nothing_holds_itself_or_gets_too_deep() {
    on_a_small_stack(|| {
        let names = serde_json::json!({"m": {"k": {"l": []}}, "l": vec![1; 300]});
        let fails = |source: &str, kind: RenderErrorKind| {
            let template = Template::compile(source, Mode::Text).unwrap();
            let error = template.render(&context(&names), OnMissing::Empty).expect_err(source).into_error();
            assert_eq!(error.kind, kind, "{source}: {error}");
        };
        for source in [
            "{% set a = [] %}{% do a.append(a) %}",
            "{% set a = {} %}{% do a.put('a', [a]) %}",
            "{% set a = [] %}{% set b = [a] %}{% do a.append({b: b}) %}",
            "{% do m.k.l.append(m) %}",
            "{% for e in m.items() %}{% do e.value.l.append(e) %}{% endfor %}",
            "{% set a = [[]] %}{% do a[0].extend([1, a]) %}",
            "{% do m.update(m.k) %}{% do m.l.append(m) %}",
        ] {
            fails(source, RenderErrorKind::Eval);
        }
        for source in [
            // A chain that grows at its far end, and one that grows at its near end.
            "{% set a = [] %}{% set b = {tail: a} %}{% for i in l %}{% set n = [] %}{% do b.tail.append(n) %}{% do b.put('tail', n) %}{% endfor %}",
            "{% set b = {tail: []} %}{% for i in l %}{% do b.put('tail', [b.tail]) %}{% endfor %}",
            "{% set b = {tail: []} %}{% for i in l %}{% do b.put('tail', b.tail.copy() + [b.tail, b.tail]) %}{% endfor %}",
        ] {
            fails(source, RenderErrorKind::Limit);
        }
        // Deep, but not too deep, and wide below: the lists that move down are counted.
        let wide = "{% set w = [] %}{% for i in l %}{% do w.append([i]) %}{% endfor %}{% for i in l %}{% set w = [w] %}{% endfor %}";
        let rendered = Template::compile(wide, Mode::Text).unwrap().render(&context(&names), OnMissing::Empty);
        assert!(rendered.is_ok() || rendered.unwrap_err().into_error().kind == RenderErrorKind::Limit);
    });
}

#[test]
fn what_grows_in_place_is_charged() {
    let names = serde_json::json!({"l": vec![1; 1_000]});
    for source in [
        "{% set a = [] %}{% for i in l %}{% for j in l %}{% do a.append(1) %}{% endfor %}{% endfor %}",
        "{% set a = [1] %}{% for i in l %}{% do a.extend(a) %}{% endfor %}",
        "{% set a = [1] %}{% for i in l %}{% do a.addAll(l) %}{% do a.clear() %}{% do a.addAll(l) %}{% endfor %}",
        "{% set a = {} %}{% for i in l %}{% set s = s ~ 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' %}{% do a.put(s, 1) %}{% endfor %}",
        "{% set s = 'xxxxxxxxxxxxxxxx' %}{% for i in l %}{% set s = s.repeat(4) %}{% endfor %}",
        "{% set s = 'xxxxxxxxxxxxxxxx' %}{% for i in l %}{% set s = s.replace('x', s) %}{% endfor %}",
        "{% set s = 'xxxxxxxxxxxxxxxx' %}{% for i in l %}{% set s = s.concat(s) %}{% endfor %}",
        "{% for i in l %}{% for j in l %}{% set a = l.copy() %}{% endfor %}{% endfor %}",
        "{% for i in l %}{% for j in l %}{% set a = l.index(7) %}{% endfor %}{% endfor %}",
    ] {
        let template = Template::compile(source, Mode::Text).unwrap();
        let error = template.render(&context(&names), OnMissing::Empty).expect_err(source).into_error();
        assert_eq!(error.kind, RenderErrorKind::Limit, "{source}: {error}");
    }
}

/// What the author wrote is written as it is; a list that was given data is the author's no more (D07).
#[test]
fn data_put_into_the_authors_lists_counts_as_data() {
    let names = serde_json::json!({"x": "\",\"admin\":\"1"});
    for source in [
        r#"{% set l = ['a'] %}{% do l.append(x) %}{"a":{{ l|join(',') }},"z":1}"#,
        r#"{% set l = ['a'] %}{% do l.append(x) %}{"a":{{ l[1] }},"z":1}"#,
        r#"{% set l = ['a'] %}{% do l.append(x) %}{"a":{% for i in l %}{% if loop.last %}{{ i }}{% endif %}{% endfor %},"z":1}"#,
        r#"{% set m = {k: 'a'} %}{% do m.update({k: x}) %}{"a":{{ m.k }},"z":1}"#,
        r#"{% set m = {k: {l: 'a'}} %}{% do m.k.put('l', x) %}{"a":{{ m.k.l }},"z":1}"#,
        r#"{% set m = {k: ['a']} %}{% do m.k.set(0, x) %}{% set n = [m] %}{"a":{{ n[0].k[0] }},"z":1}"#,
        r#"{% set l = ['a'] %}{% set o = [l] %}{% do l.set(0, x) %}{"a":{{ o[0]|join }},"z":1}"#,
        r#"{% set l = ['a'] %}{"a":{{ [l, l.set(0, x)][0]|join }},"z":1}"#,
        r#"{% set l = ['a'] %}{"a":{{ l|join(l.set(0, x)) }},"z":1}"#,
        r#"{% set l = ['a'] %}{% set a, b = l, l.set(0, x) %}{"a":{{ a|join }},"z":1}"#,
        r#"{% set l = ['a'] %}{"a":{{ (l or l.set(0, x)) ~ l.set(0, x) ~ l }},"z":1}"#,
        r#"{% set l = ['a'] %}{% set _n = l.insert(0, x) %}{"a":{{ l.pop(0) }},"z":1}"#,
        r#"{% set l = [] %}{% do l.append(x) %}{"a":{{ l.copy()|join }},"z":1}"#,
        r#"{% set l = [] %}{% do l.append(x) %}{"a":{{ (['a'] + l)|join }},"z":1}"#,
    ] {
        let template = Template::compile(source, Mode::Json).unwrap_or_else(|errors| panic!("{source}: {}", errors[0]));
        let rendered = template.render(&context(&names), OnMissing::Empty);
        let text = rendered.unwrap_or_else(|error| panic!("{source}: {error}")).text;
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["a", "z"], "{source}: {text}");
    }
    // What nobody has given data to still is the author's.
    let source = r#"{% set l = [] %}{% do l.append('"k":1') %}{% do l.append('"j":2') %}{% do l.append(n) %}{ {{ l|join(',') }} }"#;
    let template = Template::compile(source, Mode::Json).unwrap();
    let error = template.render(&context(&serde_json::json!({"n": 5})), OnMissing::Empty).unwrap_err().into_error();
    assert_eq!(error.kind, RenderErrorKind::InvalidJson, "a number is harmless, so that the author's text is as it is");
}
