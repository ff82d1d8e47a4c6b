//! Filters for HTML and XML, which messages and feeds carry inside other documents. Hides entities and tags.

use std::collections::HashMap;
use std::sync::LazyLock;

use minijinja::Value;
use minijinja::value::ValueKind;

use super::super::error::Fault;
use super::super::values::{self, Number, as_bool, is_null, number};
use super::{Builder, Call, Done, Spec, text_of};

pub(super) const FILTERS: &[Spec] = &[
    Spec::new("escape", &[], 0, escape).also(&["e", "forceescape"]),
    Spec::new("escape_jinjava", &["all_braces"], 0, escape_jinjava),
    Spec::new("pprint", &[], 0, pprint),
    Spec::new("striptags", &[], 0, striptags),
    Spec::new("truncatehtml", &["length", "end", "breakwords"], 0, truncatehtml),
    Spec::new("unescape_html", &[], 0, unescape_html),
    Spec::new("urlize", &["trim_url_limit", "nofollow", "target"], 0, urlize),
    Spec::new("xmlattr", &["autospace"], 0, xmlattr),
];

fn escape(call: &mut Call<'_>) -> Done {
    let text = call.input_text()?;
    let escaped = escaped(call, &text, true)?;
    Ok(call.made(escaped, &[]))
}

fn escaped(call: &mut Call<'_>, text: &str, quotes: bool) -> Result<String, Box<Fault>> {
    let mut escaped = Builder::new(call.meter);
    for c in text.chars() {
        match c {
            '&' => escaped.push("&amp;")?,
            '<' => escaped.push("&lt;")?,
            '>' => escaped.push("&gt;")?,
            '"' if quotes => escaped.push("&quot;")?,
            '\'' if quotes => escaped.push("&#39;")?,
            _ => escaped.push_char(c)?,
        }
    }
    Ok(escaped.text)
}

/// The braces of a text as entities, or only those of templates' delimiters.
fn escape_jinjava(call: &mut Call<'_>) -> Done {
    let text = call.input_text()?;
    let all_braces = call.flag(0, true);
    let mut escaped = Builder::new(call.meter);
    let mut rest = &*text;
    while let Some(c) = rest.chars().next() {
        let known = [
            ("{{", "&lbrace;&lbrace;"),
            ("}}", "&rbrace;&rbrace;"),
            ("{%", "&lbrace;%"),
            ("%}", "%&rbrace;"),
            ("{#", "&lbrace;#"),
            ("#}", "#&rbrace;"),
        ];
        match known.iter().find(|(delimiter, _)| rest.starts_with(delimiter)) {
            Some((delimiter, entities)) => {
                escaped.push(entities)?;
                rest = &rest[delimiter.len()..];
            }
            None => {
                match c {
                    '{' if all_braces => escaped.push("&lbrace;")?,
                    '}' if all_braces => escaped.push("&rbrace;")?,
                    _ => escaped.push_char(c)?,
                }
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    let escaped = escaped.text;
    Ok(call.made(escaped, &[]))
}

/// Names of the characters from U+00A0 on, in their order.
const LATIN: &str = "nbsp iexcl cent pound curren yen brvbar sect uml copy ordf laquo not shy reg macr deg plusmn sup2 \
    sup3 acute micro para middot cedil sup1 ordm raquo frac14 frac12 frac34 iquest Agrave Aacute Acirc Atilde Auml \
    Aring AElig Ccedil Egrave Eacute Ecirc Euml Igrave Iacute Icirc Iuml ETH Ntilde Ograve Oacute Ocirc Otilde Ouml \
    times Oslash Ugrave Uacute Ucirc Uuml Yacute THORN szlig agrave aacute acirc atilde auml aring aelig ccedil egrave \
    eacute ecirc euml igrave iacute icirc iuml eth ntilde ograve oacute ocirc otilde ouml divide oslash ugrave uacute \
    ucirc uuml yacute thorn yuml";

static ENTITIES: LazyLock<HashMap<&str, char>> = LazyLock::new(|| {
    let latin = LATIN.split_whitespace().zip('\u{a0}'..);
    let others = [
        ("amp", '&'),
        ("lt", '<'),
        ("gt", '>'),
        ("quot", '"'),
        ("apos", '\''),
        ("euro", '€'),
        ("hellip", '…'),
        ("mdash", '—'),
        ("ndash", '–'),
    ];
    latin.chain(others).collect()
});

/// The character an entity stands for, without its `&` and `;`.
fn entity(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(digits) => u32::from_str_radix(digits, 16).ok()?,
            None => number.parse().ok()?,
        };
        return char::from_u32(code);
    }
    ENTITIES.get(name).copied()
}

fn unescaped(call: &mut Call<'_>, text: &str) -> Result<String, Box<Fault>> {
    call.meter.string(text.len())?;
    call.meter.steps(text.bytes().filter(|byte| *byte == b'&').count() / 16)?;
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        // Names are short: what is longer is no entity.
        let end = rest.bytes().take(12).position(|byte| byte == b';');
        match end.and_then(|end| Some((entity(&rest[1..end])?, end))) {
            Some((c, end)) => {
                plain.push(c);
                rest = &rest[end + 1..];
            }
            None => {
                plain.push('&');
                rest = &rest[1..];
            }
        }
    }
    plain.push_str(rest);
    Ok(plain)
}

fn unescape_html(call: &mut Call<'_>) -> Done {
    let text = call.input_text()?;
    let text = unescaped(call, &text)?;
    Ok(call.made(text, &[]))
}

/// Tags that stand within a line of text: without them words do not fall apart.
const INLINE: &[&str] = &[
    "a", "abbr", "b", "bdi", "bdo", "cite", "code", "dfn", "em", "font", "i", "ins", "del", "kbd", "mark", "q", "s",
    "samp", "small", "span", "strong", "sub", "sup", "time", "tt", "u", "var",
];

/// The text of an HTML document on one line.
fn striptags(call: &mut Call<'_>) -> Done {
    let text = call.input_text()?;
    call.meter.spend(text.len())?;
    let text = unescaped(call, &text)?;
    let mut stripped = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some(at) = rest.find('<') {
        stripped.push_str(&rest[..at]);
        rest = &rest[at..];
        let opens = rest[1..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '!');
        // Looked for only where it can be: what opens and never closes ends the text.
        let close = if opens { rest.find('>') } else { None };
        match close {
            Some(end) => {
                let name = rest[1..end].trim_start_matches('/');
                let length = name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len());
                if !INLINE.iter().any(|inline| name[..length].eq_ignore_ascii_case(inline)) {
                    stripped.push(' ');
                }
                rest = &rest[end + 1..];
            }
            // Nothing closes any more.
            None if opens => break,
            None => {
                stripped.push('<');
                rest = &rest[1..];
            }
        }
    }
    stripped.push_str(rest);
    let line = stripped.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = escaped(call, &line, false)?;
    Ok(call.made(line, &[]))
}

/// Elements without content.
const VOID: &[&str] = &["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"];

/// The first `length` characters of an HTML document's text with their tags; what is open then is closed.
fn truncatehtml(call: &mut Call<'_>) -> Done {
    let text = call.input_text()?;
    let mut left = usize::try_from(call.int(0, 255)).unwrap_or(0);
    let end = call.text(1)?.unwrap_or_else(|| "...".into());
    let break_words = call.flag(2, false);
    let mut cut = Builder::new(call.meter);
    let mut open: Vec<&str> = Vec::new();
    let mut rest = &*text;
    while !rest.is_empty() {
        let tag = if rest.starts_with('<') { rest.find('>') } else { None };
        if let Some(close) = tag {
            let (tag, after) = rest.split_at(close + 1);
            cut.push(tag)?;
            follow(tag, &mut open);
            rest = after;
            continue;
        }
        let length = rest.find('<').filter(|at| *at > 0).unwrap_or(rest.len());
        let (part, after) = rest.split_at(length);
        let part = on_one_line(part);
        let kept = first_characters(&part, left);
        if kept.len() < part.len() {
            let whole = if break_words { kept } else { kept.rsplit_once(' ').map_or("", |(before, _)| before) };
            cut.push(whole.trim_end())?;
            cut.push(&end)?;
            break;
        }
        left -= characters(&part).count();
        cut.push(&part)?;
        rest = after;
    }
    for name in open.into_iter().rev() {
        cut.push("</")?;
        cut.push(name)?;
        cut.push(">")?;
    }
    let cut = cut.text;
    Ok(call.made(cut, &[1]))
}

/// Notes what a tag opens or closes.
fn follow<'t>(tag: &'t str, open: &mut Vec<&'t str>) {
    let inner = tag[1..tag.len() - 1].trim();
    let name = inner.trim_start_matches('/').split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    if inner.starts_with('/') {
        if open.last().is_some_and(|last| last.eq_ignore_ascii_case(name)) {
            open.pop();
        }
    } else if !name.is_empty() && !inner.ends_with('/') && !VOID.iter().any(|void| name.eq_ignore_ascii_case(void)) {
        open.push(name);
    }
}

/// White space as browsers show it; between elements a line break stays one.
fn on_one_line(text: &str) -> String {
    if text.trim().is_empty() {
        return if text.contains('\n') { "\n" } else { " " }.into();
    }
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            _ if !c.is_whitespace() => line.push(c),
            _ if line.ends_with(' ') => {}
            _ => line.push(' '),
        }
    }
    line
}

/// Where the characters of a text end; an entity is one.
fn characters(text: &str) -> impl Iterator<Item = usize> {
    let mut inside = 0;
    text.char_indices().filter_map(move |(at, c)| {
        if at < inside {
            return None;
        }
        let end = text.as_bytes()[at..].iter().take(12).position(|byte| *byte == b';').filter(|_| c == '&');
        inside = end.map_or(at + c.len_utf8(), |end| at + end + 1);
        Some(inside)
    })
}

fn first_characters(text: &str, most: usize) -> &str {
    match most {
        0 => "",
        _ => characters(text).nth(most - 1).and_then(|end| text.get(..end)).unwrap_or(text),
    }
}

/// Links around the URLs of a text.
fn urlize(call: &mut Call<'_>) -> Done {
    let text = call.input_text()?;
    let limit = usize::try_from(call.int(0, i64::MAX)).unwrap_or(usize::MAX);
    let mut attributes = String::new();
    if call.flag(1, false) {
        attributes.push_str(" rel=\"nofollow\"");
    }
    if let Some(target) = call.text(2)?.filter(|target| !target.trim().is_empty()) {
        let target = escaped(call, &target, true)?;
        attributes.push_str(&format!(" target=\"{target}\""));
    }
    let mut linked = Builder::new(call.meter);
    let mut rest = &*text;
    while let Some((start, end)) = url_in(rest) {
        let url = &rest[start..end];
        linked.push(&rest[..start])?;
        linked.push("<a href=\"")?;
        linked.push(url)?;
        linked.push("\"")?;
        linked.push(&attributes)?;
        linked.push(">")?;
        // URLs are ASCII here.
        match url.get(..limit.saturating_sub(3)).filter(|_| url.len() > limit) {
            Some(short) => {
                linked.push(short)?;
                linked.push("...")?;
            }
            None => linked.push(url)?,
        }
        linked.push("</a>")?;
        rest = &rest[end..];
    }
    linked.push(rest)?;
    let linked = linked.text;
    Ok(call.made(linked, &[2]))
}

/// Where the first URL starts and ends; signs that end sentences are no part of it.
fn url_in(text: &str) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let starts = |at: usize, prefix: &[u8]| {
        bytes.get(at..at + prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
    };
    let mut from = 0;
    while let Some(found) = text[from..].find(['h', 'H']) {
        let start = from + found;
        from = start + 1;
        let scheme = [&b"http://"[..], &b"https://"[..]].into_iter().find(|scheme| starts(start, scheme));
        let Some(scheme) = scheme else { continue };
        let inside = |byte: &u8| byte.is_ascii_alphanumeric() || b"-+&@#/%?=~_|!:,.;".contains(byte);
        let body = start + scheme.len();
        let length = bytes[body..].iter().take_while(|byte| inside(byte)).count();
        let end = text[body..body + length].trim_end_matches(['?', '!', ':', ',', '.', ';']).len();
        if end > 0 {
            return Some((start, body + end));
        }
    }
    None
}

/// The entries of a map as attributes of a tag.
fn xmlattr(call: &mut Call<'_>) -> Done {
    let Some(entries) = values::entries(&call.input.value) else { return call.same() };
    call.meter.visiting(entries.len())?;
    let mut attributes = String::new();
    if call.flag(0, true) {
        attributes.push(' ');
    }
    for (position, (key, value)) in entries.iter().enumerate() {
        if key.is_empty() || key.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '>' | '=')) {
            return Err(call.fault("got a key that is no name of an attribute"));
        }
        let value = text_of(value, call.meter)?;
        let value = escaped(call, &value, true)?;
        let mut builder = Builder { text: attributes, meter: &mut *call.meter };
        for part in [if position > 0 { "\n" } else { "" }, &**key, "=\"", &*value, "\""] {
            builder.push(part)?;
        }
        attributes = builder.text;
    }
    Ok(call.made(attributes, &[]))
}

/// What kind of value this is, and the value, for people.
fn pprint(call: &mut Call<'_>) -> Done {
    let value = call.input.value.clone();
    if is_null(&value) {
        return Ok(call.made("null", &[]));
    }
    let kind = match (value.kind(), number(&value)) {
        (_, Some(Number::Int(_))) => "Long",
        (_, Some(Number::Float(_))) => "Double",
        (ValueKind::String, _) => "String",
        (ValueKind::Seq | ValueKind::Iterable, _) => "List",
        (ValueKind::Map, _) => "Map",
        _ if as_bool(&value).is_some() => "Boolean",
        _ => "Object",
    };
    let text: Value = Value::from(format!("({kind}: {})", call.input_text()?));
    let text = escaped(call, text.as_str().unwrap_or_default(), true)?;
    Ok(call.made(text, &[]))
}
