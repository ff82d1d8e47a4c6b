//! Filters, tests and dates beyond what Jinjava's own cases ask: limits, origins, missing paths, and what is refused
//! when a template is compiled.

use super::super::*;
use super::{HOSTILE, context, errors, repeat, text};

fn render(source: &str, names: &Json) -> Result<String, RenderError> {
    let template = Template::compile(source, Mode::Text).unwrap_or_else(|errors| panic!("{source}: {}", errors[0]));
    template.render(&context(names), OnMissing::Empty).map(|rendered| rendered.text).map_err(Unrendered::into_error)
}

use serde_json::Value as Json;

#[test]
fn names_are_known_once_and_arguments_have_a_place() {
    let mut names = filters::Filter::names();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "a filter has two functions");
    for name in names {
        let filter = filters::Filter::named(name).unwrap();
        assert!(filter.required() <= filter.parameters().len() && filters::Filter::off(name).is_none(), "{name}");
        assert!(filter.test_at().is_none_or(|at| at < filter.parameters().len()), "{name}");
    }
    let mut names = value_tests::Test::names();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "a test has two functions");
}

/// F87: what the public inventory of the dialect lists is there, or off with its reason.
#[test]
fn the_inventory_is_complete() {
    let all = "abs add attr base64Encode base64Decode batch between_times bool capitalize center count cut datetimeformat \
        default dictsort difference divide divisible escape escape_jinjava escapejs escapejson filesizeformat first float \
        forceescape format fromjson groupby hash indent int intersect iso8601_to_time join last length list lower map md5 \
        multiply pprint random reject rejectattr replace reverse round safe select selectattr shuffle slice sort split \
        strtotime string striptags sum timestamp_to_time title tojson trim truncate truncatehtml union unique \
        unixtimestamp upper urlencode urlize wordcount wordwrap xmlattr";
    let off: Vec<_> = all.split_whitespace().filter(|name| filters::Filter::named(name).is_none()).collect();
    assert_eq!(off, ["random", "shuffle"]);
    assert!(off.iter().all(|name| filters::Filter::off(name).is_some()));
    let tests = "containing containingall defined undefined divisibleby equalto even odd iterable sequence mapping number \
        string lower upper sameas string_containing string_startingwith truthy within";
    for name in tests.split_whitespace() {
        assert!(value_tests::Test::named(name).is_some(), "{name}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_when_compiled() {
    for (source, message) in [
        ("{{ a|random }}", "the filter 'random' is off: the same data must print the same text again"),
        ("{{ a|render }}", "the filter 'render' is off: data is never read as a template"),
        ("{{ a|base64encode }}", "unknown filter 'base64encode'; did you mean 'base64Encode'?"),
        ("{{ a|truncate(1, true, '', 4) }}", "'truncate' takes: length, killwords, end"),
        ("{{ a|truncate(size=1) }}", "'truncate' takes: length, killwords, end"),
        ("{{ a|replace('b') }}", "'replace' needs: old, new"),
        ("{{ a|select('evn') }}", "unknown test 'evn'; did you mean 'even'?"),
        ("{{ a|selectattr('b', 'equalsto', 1) }}", "unknown test 'equalsto'; did you mean 'equalto'?"),
        ("{{ a is evn }}", "unknown test 'evn'; did you mean 'even'?"),
        ("{{ a is divisibleby }}", "'divisibleby' needs something to compare with"),
        (
            "{{ a|regex_replace('(', '') }}",
            "this is no regular expression (look-around and back-references are not supported)",
        ),
        (
            "{{ a|regex_replace('(?=a)', '') }}",
            "this is no regular expression (look-around and back-references are not supported)",
        ),
        (
            "{{ a|regex_replace('(a{500}){500}', '') }}",
            "the regular expressions go over the limit of 1024 KiB compiled",
        ),
    ] {
        assert_eq!(errors(source)[0].message, message, "{source}");
    }
    let long = format!("{{{{ a|regex_replace('{}', '') }}}}", repeat("a", limits::PATTERN_SOURCE_BYTES + 1));
    assert_eq!(errors(&long)[0].code, ErrorCode::Limit);
    // Each is small; together they are not.
    let many = repeat("{{ a|regex_replace('[0-9]+', '') }}", 200);
    assert!(errors(&many).iter().all(|error| error.code == ErrorCode::Limit));
}

#[test]
fn tests_take_an_argument_with_and_without_parentheses() {
    let names = serde_json::json!({"l": [1, 2], "m": {"k": [2, 3], "n": -1}, "s": "abc", "nul": null});
    for (source, expected) in [
        ("{{ l is containing 2 }}{{ l is containing(2) }}{{ l is not containing 2 }}", "truetruefalse"),
        ("{{ 2 is within m.k }}{{ 2 is in m['k'] }}{{ 2 is within (1, 2) }}{{ 2 is not in [1] }}", "truetruetruetrue"),
        ("{{ m.n is lt -0 }}{{ m.n is == -1 }}{{ -1 is integer }}{{ not -1 is float }}", "truetruetruetrue"),
        ("{{ l|length is even }}{{ s is string and s is lower }}{{ s is upper or 1 is odd }}", "truetruetrue"),
        ("{{ 'y' if l is containingall [1, 2] else 'n' }}{{ l is iterable ? 'y' : 'n' }}", "yy"),
        ("{{ nul is defined }}{{ nul is none }}{{ nope.x is undefined }}{{ l is mapping }}", "falsetruetruefalse"),
        ("{{ (1 is number) ~ (m is mapping) ~ (1 is sameas 1) ~ (1 is sameas '1') }}", "truetruetruefalse"),
        (
            "{{ s is string_startingwith 'a' }}{{ s is string_containing m.x }}{{ [l is truthy, 1] }}",
            "truefalse[true, 1]",
        ),
    ] {
        assert_eq!(text(source, &names), expected, "{source}");
    }
}

#[test]
fn only_asking_may_name_what_is_missing() {
    let missing = |source: &str| {
        let template = Template::compile(source, Mode::Text).unwrap();
        template.render(&Context::new(), OnMissing::Empty).unwrap().missing
    };
    assert!(missing("{{ a.b is defined }}{{ a.b is none }}{{ a.b is truthy }}{{ a.b|d('x') }}").is_empty());
    assert_eq!(missing("{{ a.b is even }}{{ c|first }}{{ d|attr('e')|upper }}"), ["a.b", "c", "d.e"]);
}

#[test]
fn texts_and_numbers() {
    let names =
        serde_json::json!({"w": "ala ma kota", "n": 1234.5, "big": 12345678901234567890u64, "l": [3, 1.5, "2"]});
    for (source, expected) in [
        ("{{ w|wordwrap(5) }}", "ala\nma\nkota"),
        ("{{ 'abcdefgh ij'|wordwrap(3) }}", "abc\ndef\ngh\nij"),
        ("{{ 'abcdefgh ij'|wordwrap(3, false) }}", "abcdefgh\nij"),
        ("{{ w|wordwrap(0) }}", "a\nl\na\nm\na\nk\no\nt\na"),
        ("{{ 'a.b.c'|regex_replace('([a-z])\\\\.', '$1-') }}", "a-b-c"),
        ("{{ 'ab'|regex_replace('(?P<x>a)', '${x}${x}\\\\$') }}", "aa$b"),
        ("{{ 'ab'|regex_replace(w, '') }}{{ 'aé'|regex_replace('', '|') }}", "ab|a|é|"),
        ("{{ '%5d|%-5d|%05d|%+d|%(d|%x'|format(42, 42, 42, 42, -42, 255) }}", "   42|42   |00042|+42|(42)|ff"),
        (
            "{{ '%.2f|%8.3f|%,.1f|%e|%s|%%|%2$s'|format(2.675, 1.5, n, 12345.678, null) }}",
            "2.68|   1.500|1,234.5|1.234568e+04|null|%|1.5",
        ),
        ("{{ '%b %c %S %.2s'|format(true, 65, 'x', 'abc') }}", "true A X ab"),
        (
            "{{ big|add(1) }} {{ big|multiply(10) }} {{ 0.1|add(0.2) }} {{ l|sum }}",
            "12345678901234567891 123456789012345678900 0.3 6.5",
        ),
        ("{{ 1|divide(3) }} {{ 1.00|divide(3) }} {{ '10.00'|divide(3) }}", "0 0.3 3.33"),
        ("{{ 25|log(5) }} {{ 16|root }} {{ 27|root(3) }} {{ (-7)|abs }} {{ '-1.50'|abs }}", "2.0 4.0 3.0 7 1.50"),
        ("{{ 2.345|round(2) }} {{ 2|round(2) }} {{ 1234|round(-2) }} {{ 1e300|round }}", "2.35 2.00 1200 1.0E300"),
        (
            "{{ 1048576|filesizeformat(true) }} {{ 1|filesizeformat }} {{ 999|filesizeformat }}",
            "1.0 MiB 1 Byte 999 Bytes",
        ),
        (
            "{{ 1234567.891|format_number('pl') }} {{ '1,234.5'|format_number('de') }}",
            "1\u{a0}234\u{a0}567,891 1.234,5",
        ),
        ("{{ '12,5'|float }} {{ '1,234'|int }} {{ ''|int(3) }} {{ true|int }}", "0.0 1234 3 0"),
        ("{{ '😀b'|truncate(2, true, '') }}{{ '😀b'|truncate(1, true, '') }}{{ '😀'|length }}", "😀2"),
        ("{{ 'a,b,,c'|split(',') }}{{ 'a,b,c'|split(',', 2) }}{{ nope|split }}", "[a, b, c][a, b,c][]"),
        ("{{ 'ß'|upper }}{{ 'ÀB'|lower }}{{ 'éa'|capitalize }}", "SSàbÉa"),
        ("{{ 'x'|center(4) }}|{{ 'a\nb'|indent(2) }}|{{ 'a\nb'|indent(2, true) }}", " x  |a\n  b|  a\n  b"),
    ] {
        assert_eq!(text(source, &names), expected, "{source}");
    }
}

#[test]
fn lists_maps_and_markup() {
    let names = serde_json::json!({"l": [{"k": "b", "n": {"v": 2}}, {"k": "a", "n": {"v": 1}}], "m": {"b": 1, "A": 2}, "h": "<a href='x'>&b</a>"});
    for (source, expected) in [
        ("{{ l|sort(attribute='n.v')|map(attribute='k')|join }}{{ l|map('attr', 'k')|join }}", "abba"),
        ("{{ l|selectattr('n.v', 'gt', 1)|map('k') }}{{ l|rejectattr('n')|list }}", "[b][]"),
        (
            "{{ m|dictsort }}{{ m|dictsort(true) }}{{ m|list }}{{ m|first }}{{ m|length }}",
            "[A=2, b=1][A=2, b=1][1, 2]12",
        ),
        ("{{ [1, '1', 1.0, 1]|unique }}{{ [[1], [1]]|unique }}{{ l|unique('k')|length }}", "[1, 1, 1.0][[1]]2"),
        ("{{ [1, 2]|union(2) }}{{ [1]|difference(null) }}{{ null|union([1]) }}", "[1, 2][1][1]"),
        (
            "{{ [1, 2, 3]|batch(2) }}{{ [1, 2, 3]|batch(2, 'x') }}{{ [1, 2, 3]|slice(2, 0) }}",
            "[[1, 2], [3, null]][[1, 2], [3, x]][[1, 2], [3, 0]]",
        ),
        ("{{ [1]|batch(0) }}{{ {a: 1}|reverse }}{{ [[1, 2], [3]]|map('length') }}", "[][1][2, 1]"),
        ("{{ [1, 2, 3]|map('add', 1)|map('multiply', 2)|list }}{{ ['a']|map('default', 'x') }}", "[4, 6, 8][a]"),
        ("{% for g in l|groupby('n.v') %}{{ g.grouper }}={{ g.list|map('k') }};{% endfor %}", "2=[b];1=[a];"),
        (
            "{{ h|escape }}|{{ h|striptags }}|{{ '&lt;&auml;&#65;&x;'|unescape_html }}",
            "&lt;a href=&#39;x&#39;&gt;&amp;b&lt;/a&gt;|&amp;b|<äA&x;",
        ),
        (
            "{{ '<p>ab <b>cd &amp; e</b></p>'|truncatehtml(6) }}{{ '<br>ab'|truncatehtml(1, '', true) }}",
            "<p>ab <b>cd...</b></p><br>a",
        ),
        ("{{ {class: 'a\"b', id: null}|xmlattr }}|{{ {a: 1}|xmlattr(false) }}", " class=\"a&quot;b\"\nid=\"\"|a=\"1\""),
        (
            "{{ 'see http://a.example/b.'|urlize(10, true, '_top') }}",
            "see <a href=\"http://a.example/b\" rel=\"nofollow\" target=\"_top\">http://...</a>.",
        ),
        (
            "{{ 'x{{ y }}{%{'|escape_jinjava('false') }}{{ '{{{'|escape_jinjava }}|{{ 'a'|pprint }}|{{ [1]|pprint }}",
            "x&lbrace;&lbrace; y &rbrace;&rbrace;&lbrace;%{&lbrace;&lbrace;&lbrace;|(String: a)|(List: [1])",
        ),
        ("{{ 'abc'|hash('sha-1') }}", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        ("{{ 'ą'|b64encode }} {{ 'xIU'|b64decode }} {{ 'ab'|b64encode('utf-16') }}", "xIU= ą /v8AYQBi"),
        ("{{ 'a=1&b c'|urlencode }} {{ 'a%3D1%26b+c'|urldecode }}", "a%3D1%26b+c a=1&b c"),
    ] {
        assert_eq!(text(source, &names), expected, "{source}");
    }
}

#[test]
fn dates_print_the_same_everywhere() {
    // Summer time in Warsaw ended at 2024-10-27T01:00Z; 2024-12-29 lies in the first week of 2025.
    let names = serde_json::json!({"t": 1729990800000i64, "d": {"$date": 1735480800123i64, "$tz": "Europe/Warsaw"}});
    for (source, expected) in [
        (
            "{{ d|datetimeformat('%A, %-d %B, %OB, %x', null, 'pl') }}|{{ d|format_datetime('full', null, 'sv_SE') }}",
            "niedziela, 29 grudnia, grudzień, 29.12.2024|söndag 29 december 2024 kl. 15:00:00 CET",
        ),
        ("{{ t|datetimeformat('%Y-%m-%d %H:%M %Z %z', 'Europe/Warsaw') }}", "2024-10-27 02:00 CET +0100"),
        (
            "{{ t|minus_time(1, 'seconds')|datetimeformat('HH:mm:ss z XXX VV', 'Europe/Warsaw') }}",
            "02:59:59 CEST +02:00 Europe/Warsaw",
        ),
        (
            "{{ d|datetimeformat('%a %A %b %B %d %-d %e %f %j %U %w %y %p %I %k %l %%') }}",
            "Sun Sunday Dec December 29 29 29 123000 364 01 1 24 PM 03 15 3 %",
        ),
        (
            "{{ d|datetimeformat(\"yyyy-MM-dd'T'HH:mm:ss.SSSXX 'o''clock' E, QQQ YYYY\") }}",
            "2024-12-29T15:00:00.123+0100 o'clock Sun, Q4 2025",
        ),
        ("{{ d|format_datetime('full') }}", "Sunday, December 29, 2024 at 3:00:00 PM CET"),
        (
            "{{ d }} {{ d.year }}-{{ d.month }}-{{ d.day }} {{ d|tojson }}",
            "2024-12-29 15:00:00 2024-12-29 \"2024-12-29 15:00:00\"",
        ),
        ("{{ '2024-02-29T12:00:00+0100'|iso8601_to_time|unixtimestamp }}", "1709204400000"),
        ("{{ '2024-02-29'|iso8601_to_time|plus_time(1, 'years')|datetimeformat('%x %X') }}", "2/28/25 12:00:00 AM"),
        ("{{ '29.02.2024 5 PM'|strtotime('dd.MM.yyyy h a')|datetimeformat('%H:%M') }}", "17:00"),
        (
            "{{ '20240229101112'|strtotime('yyyyMMddHHmmss') }} {{ '2024-060'|strtodate('yyyy-DDD') }}",
            "2024-02-29 10:11:12 2024-02-29 00:00:00",
        ),
        (
            "{{ 'Thu, 29 Feb 2024 10:00 Europe/Warsaw'|strtotime('EEE, d MMM yyyy HH:mm VV')|unixtimestamp }}",
            "1709197200000",
        ),
        (
            "{% for t in ['2024-02-29T10:11:12.5Z', '2024-02-29T10:11:12+01:00', '2024-02-29'] %}{{ t|strtotime(\"yyyy-MM-dd['T'HH:mm:ss[.S]XXX]\") }} {% endfor %}",
            "2024-02-29 10:11:12 2024-02-29 10:11:12 2024-02-29 00:00:00 ",
        ),
        ("{{ '2024-01-31'|strtodate('%Y-%m-%d')|plus_time(1, 'months') }}", "2024-02-29 00:00:00"),
        (
            "{% set a = '2024-01-31'|iso8601_to_time %}{{ a|between_times(d, 'months') }} {{ a|between_times(d, 'weeks') }} {{ d|between_times(a, 'hours') }}",
            "10 47 -8006",
        ),
        (
            "{% set a = 0|timestamp_to_time %}{{ a < d }}{{ a == (0|timestamp_to_time) }}{{ [d, a]|sort|first }}",
            "truetrue1970-01-01 00:00:00",
        ),
        ("{{ '0'|timestamp_to_time|datetimeformat('%H', '+05:30') }}{{ 0|datetimeformat('%H', 'UTC-3') }}", "0521"),
    ] {
        assert_eq!(text(source, &names), expected, "{source}");
    }
    for source in [
        "{{ t|datetimeformat('%Q') }}",
        "{{ t|datetimeformat('yyyy', 'Mars/Olympus') }}",
        "{{ t|datetimeformat('yyyy', 'UTC', 'de-CH') }}",
        "{{ 'x'|datetimeformat }}",
        "{{ 99999999999999999|datetimeformat }}",
        "{{ 'x'|timestamp_to_time }}",
        "{{ '2024-13-01'|iso8601_to_time }}",
        "{{ 'Fri, 29 Feb 2024'|strtotime('EEE, dd MMM yyyy') }}",
        "{{ '2024'|strtotime('yyyy-MM') }}",
        "{{ t|plus_time(1, 'fortnights') }}",
        "{{ d < 1 }}",
    ] {
        assert_eq!(render(source, &names).expect_err(source).kind, RenderErrorKind::Eval, "{source}");
    }
}

/// What a pattern has written it also reads, to the part of a second it has.
#[test]
fn patterns_read_what_they_write() {
    let zones = ["UTC", "Europe/Warsaw", "America/St_Johns", "Asia/Kathmandu", "+09:45", "Z"];
    let patterns = [
        "yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
        "%Y-%m-%d %H:%M:%S.%f %z",
        "yyyyMMddHHmmssSSSxx",
        "EEEE, d MMMM y h:mm:ss.SSS a VV XXXXX",
        "EEE d.M.yyyy k:m:s.SSS[ 'Q'x]ZZZZZ",
        "uuuu-DDD[ ]HH:mm:ss.SSSSSSSSSZ",
    ];
    let mut moment = 0i64;
    for step in 0..3_000i64 {
        moment = (moment + step * 7_919_000_003) % 4_000_000_000_000;
        let zone = dates::Zone::named(zones[step as usize % zones.len()]).unwrap();
        let date = dates::Date::from_milliseconds(moment).unwrap().seen_from(zone);
        for pattern in patterns {
            let read = date_patterns::Pattern::read(pattern, &locales::ENGLISH).unwrap();
            let written = read.write(&date, &locales::ENGLISH);
            let again = read.parse(&written).and_then(|(time, zone)| dates::Date::local_time(time, zone));
            assert_eq!(again.map(|date| date.milliseconds()), Some(moment), "{pattern}: {written}");
        }
    }
    for wrong in ["yyyy]", "yyyyyyyyyyyyyyyy", "b", "yyyy'", "%", "%-", "%O", "%OY", "{", "VVV", "ddd"] {
        let refused = date_patterns::Pattern::read(wrong, &locales::ENGLISH).is_none() || wrong == "%";
        assert!(refused, "{wrong}");
    }
}

#[test]
fn the_present_is_what_the_caller_says() {
    let template = Template::compile("{{ nope|unixtimestamp }} {{ nope|datetimeformat('%Y') }}", Mode::Text).unwrap();
    let mut context = Context::new();
    let error = template.render(&context, OnMissing::Empty).unwrap_err().into_error();
    assert!(error.message.contains("the present time is not known here"), "{error}");
    context.set_now(1_000);
    assert_eq!(template.render(&context.clone(), OnMissing::Empty).unwrap().text, "1000 1970");
}

/// Each costs something once; in a loop over 4,000,000 passes it has to end.
const AGAIN_AND_AGAIN: [&str; 22] = [
    "{% set y = s|md5 %}",
    "{% set y = big|sort %}",
    "{% set y = long|sort %}",
    "{% set y = [s, s]|sort %}",
    "{% set y = big|unique|sum %}",
    "{% set y = [s, s, s]|sum %}",
    "{% set y = big|map('add', 1) %}",
    "{% set y = big|select('even') %}",
    "{% set y = big|map(attribute=s) %}",
    "{% set y = big|map('map', 'map', 'upper') %}",
    "{% set y = big|groupby('k') %}",
    "{% set y = big|slice(1) %}",
    "{% set y = less|striptags %}",
    "{% set y = amp|unescape_html %}",
    "{% set y = s|wordwrap(1) %}",
    "{% set y = s|wordcount %}",
    "{% set y = s|truncate(3) %}",
    "{% set y = 'a'|regex_replace(s|length ~ '\\\\w{5}', '') %}",
    "{% set y = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'|regex_replace('(a*)*b', '') %}",
    "{% set y = i|datetimeformat('%A %B %c %x %X') %}",
    "{% set y = s is string_containing 'y' %}",
    "{% set y = big is containingall [-1] %}",
];

/// T02, T06–T12, T24, T26 of the attack table on templates: a clean error, quickly, and nothing built before it.
#[test]
fn no_filter_grows_or_runs_without_end() {
    let names = serde_json::json!({
        "l": vec![1; 2_000], "s": repeat("x", 500_000), "n": repeat("\n", 500_000), "less": repeat("< ", 250_000),
        "amp": repeat("&yuml;", 100_000), "big": (0..9_000).collect::<Vec<_>>(), "long": vec![repeat("ab", 20_000); 20],
    });
    let each = |body: &str| format!("{{% for i in l %}}{{% for j in l %}}{body}{{% endfor %}}{{% endfor %}}");
    let mut sources: Vec<String> = [
        "{{ 'a'|center(100000000) }}",
        "{{ s|replace('x', s) }}",
        "{{ big|join(s) }}",
        "{{ '%900000000d'|format(1) }}",
        "{{ '%.900000000f'|format(1.5) }}",
        "{{ '%10001s'|format(1) }}",
        "{{ n|indent(1000000) }}",
        "{{ [1]|batch(100000000, 0) }}",
        "{{ s|list }}",
        "{{ s|regex_replace('', s) }}",
        "{{ s|regex_replace('(?s)(.*)', '$1$1$1') }}",
        "{{ n|urlize|escape|urlencode|escapejs|escapejson }}",
        "{{ [s, s, s, s]|join|b64encode }}",
        "{{ '1970'|strtotime(s) }}",
    ]
    .map(str::to_owned)
    .into();
    sources.extend(AGAIN_AND_AGAIN.map(each));
    for source in &sources {
        let started = std::time::Instant::now();
        let error = render(source, &names).expect_err(source);
        assert_eq!(error.kind, RenderErrorKind::Limit, "{source}: {error}");
        println!("{:?} {source}", started.elapsed());
        // Generous for a debug build on a busy machine.
        assert!(started.elapsed().as_secs() < 10, "{source}: {:?}", started.elapsed());
    }
}

/// What cannot be done ends the render and is no limit.
#[test]
fn what_a_filter_cannot_do_is_an_error() {
    let names = serde_json::json!({});
    for source in [
        "{{ []|slice(200000000) }}{{ 'a'|map('map', 'map', 'map', 'map', 'map', 'upper') }}",
        "{{ 1|divide(0) }}",
        "{{ 1|divisible(0) }}",
        "{{ 1 is divisibleby 0 }}",
        "{{ 0|log }}",
        "{{ (-1)|root }}",
        "{{ 'x'|add(1) }}",
        "{{ 1|round(39) }}",
        "{{ '%d'|format('x') }}",
        "{{ '%'|format }}",
        "{{ '%q'|format(1) }}",
        "{{ 'x'|b64decode('utf-7') }}",
        "{{ 'x'|hash('crc') }}",
        "{{ '%zz'|urldecode }}",
        "{{ [1, 'a']|sort }}",
        "{{ [null]|sort }}",
        "{{ 'a'|split('') }}",
        "{{ [1]|slice(0) }}",
        "{{ {'a b': 1}|xmlattr }}",
        "{{ 1|format_number('xx') }}",
    ] {
        assert_eq!(render(source, &names).expect_err(source).kind, RenderErrorKind::Eval, "{source}");
    }
}

/// The data of an error stays out of its message, whatever filter finds it.
#[test]
fn no_filter_tells_what_it_was_given() {
    let names = serde_json::json!({"s": "S3CRET", "l": ["S3CRET", 1]});
    for name in filters::Filter::names() {
        for call in [format!("s|{name}"), format!("s|{name}(s)"), format!("l|{name}(s, s)"), format!("1|{name}(s)")] {
            let Ok(template) = Template::compile(&format!("{{{{ {call} }}}}"), Mode::Text) else { continue };
            if let Err(error) = template.render(&context(&names), OnMissing::Empty) {
                assert!(!error.to_string().contains("S3CRET"), "{call}: {error}");
            }
        }
    }
}

/// Data through every filter, into both kinds of place in a body (D07).
#[test]
fn hostile_data_through_every_filter_breaks_no_body() {
    let calls: Vec<String> = filters::Filter::names()
        .into_iter()
        .filter(|name| *name != "safe")
        .flat_map(|name| ["", "(x)", "('1')", "(x, x)", "('a', 'b')", "('%s', x)"].map(|args| format!("{name}{args}")))
        .collect();
    let mut rendered = 0;
    for call in &calls {
        for input in ["x", "[x, x]", "m", "('%s' ~ x)", "('[\"a\"]' ~ x)"] {
            let source = format!(r#"{{"a":"{{{{ {input}|{call} }}}}","b":{{{{ {input}|{call} }}}},"z":1}}"#);
            let Ok(template) = Template::compile(&source, Mode::Json) else { continue };
            for hostile in HOSTILE {
                let names = serde_json::json!({"x": hostile, "m": {"k": hostile}});
                match template.render(&context(&names), OnMissing::Empty).map_err(Unrendered::into_error) {
                    Ok(body) => {
                        rendered += 1;
                        let json: Json = serde_json::from_str(&body.text).unwrap();
                        let keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
                        assert!(keys == ["a", "b", "z"] && json["z"] == 1, "{source} with {hostile:?}: {}", body.text);
                    }
                    Err(error) => assert!(
                        error.kind == RenderErrorKind::Eval || error.kind == RenderErrorKind::Limit,
                        "{source} with {hostile:?}: {error}"
                    ),
                }
            }
        }
    }
    assert!(rendered > 20_000, "only {rendered}");
}

/// T10 in a body that data cannot break: the author's text between items closes one string and opens the next.
#[test]
fn items_joined_inside_of_a_string_are_encoded_one_by_one() {
    for source in [
        r#"{"a":["{{ l|join('","') }}"],"z":1}"#,
        r#"{"a":["{{ l|join('", "') }}"],"z":1}"#,
        r#"{"a":["{{ l|join('","') if l else '' }}"],"z":1}"#,
        r#"{"a":["{{ m|join('","', attribute='k') }}"],"z":1}"#,
        r#"{"a":["{{ l|map('trim')|join('","') }}"],"z":1}"#,
    ] {
        let template = Template::compile(source, Mode::Json).unwrap();
        for hostile in HOSTILE {
            let names = serde_json::json!({"l": [hostile, "b"], "m": [{"k": hostile}, {"k": "b"}]});
            let body = template.render(&context(&names), OnMissing::Empty).unwrap().text;
            let json: Json = serde_json::from_str(&body).unwrap();
            let expected = if source.contains("trim") { hostile.trim_matches(|c| c <= ' ') } else { hostile };
            assert_eq!(json, serde_json::json!({"a": [expected, "b"], "z": 1}), "{source}: {body}");
        }
    }
    // What comes from data between the items is data.
    let template =
        Template::compile(r#"{"a":"{{ ['x', 'y']|join(s) }}","b":{{ ['x', 'y']|join(s) }}}"#, Mode::Json).unwrap();
    for hostile in HOSTILE {
        let names = serde_json::json!({"s": hostile});
        let body = template.render(&context(&names), OnMissing::Empty).unwrap().text;
        assert_eq!(serde_json::from_str::<Json>(&body).unwrap()["a"], format!("x{hostile}y"), "{body}");
    }
}
