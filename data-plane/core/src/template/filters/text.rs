//! Filters on texts. Hides Java's counting (texts are measured in UTF-16 units) and where a text may be cut.

use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{Object, ObjectRepr};
use regex::{Captures, Regex, RegexBuilder};

use super::super::error::{ErrorCode, Fault, RenderErrorKind};
use super::super::limits::{ITEMS, Meter, PATTERN_KIB, PATTERN_SOURCE_BYTES, STRING_BYTES, over};
use super::super::traced::{Origin, Traced};
use super::super::values::{self, is_null};
use super::{Builder, Call, Done, Spec, text_of};

pub(super) const FILTERS: &[Spec] = &[
    Spec::new("capitalize", &[], 0, capitalize),
    Spec::new("center", &["width"], 0, center),
    Spec::new("cut", &["to_remove"], 1, cut),
    Spec::new("default", &["default_value", "truthy"], 1, default).also(&["d"]).asks(),
    Spec::new("indent", &["width", "indentfirst"], 0, indent),
    Spec::new("lower", &[], 0, lower),
    Spec::new("regex_replace", &["regex", "new"], 2, regex_replace).pattern_at(0),
    Spec::new("replace", &["old", "new", "count"], 2, replace),
    Spec::new("safe", &[], 0, safe),
    Spec::new("split", &["separator", "limit"], 0, split),
    Spec::new("string", &[], 0, string),
    Spec::new("title", &[], 0, title),
    Spec::new("trim", &[], 0, trim),
    Spec::new("truncate", &["length", "killwords", "end"], 0, truncate),
    Spec::new("upper", &[], 0, upper),
    Spec::new("wordcount", &[], 0, wordcount),
    Spec::new("wordwrap", &["width", "break_long_words"], 0, wordwrap),
];

fn safe(call: &mut Call<'_>) -> Done {
    Ok(Traced { origin: Origin::Safe, ..call.input.clone() })
}

/// Null counts as missing; with `true` also what is empty, 0 or false. The default becomes text, as it does in Jinjava,
/// unless it is a list or a map.
fn default(call: &mut Call<'_>) -> Done {
    let input = &call.input.value;
    let present = if call.flag(1, false) { values::is_true(input) } else { !is_null(input) };
    let Some(fallback) = call.given(0).filter(|_| !present).cloned() else { return call.same() };
    if is_null(&fallback.value) || fallback.value.as_object().is_some() {
        return Ok(fallback);
    }
    Ok(Traced { value: Value::from(text_of(&fallback.value, call.meter)?), origin: fallback.origin })
}

fn string(call: &mut Call<'_>) -> Done {
    if call.input.value.as_str().is_some() {
        return call.same();
    }
    let text = call.input_text_or_null()?;
    Ok(call.made(text, &[]))
}

/// What is not text is left alone.
fn change(call: &mut Call<'_>, change: impl Fn(&str) -> String) -> Done {
    let Some(text) = call.input.value.as_str() else { return call.same() };
    call.meter.reading(text.len())?;
    // Some letters grow (`ß` to `SS`), at most threefold.
    call.meter.spend(text.len() * 3)?;
    let changed = change(text);
    call.made_text(changed, &[])
}

fn lower(call: &mut Call<'_>) -> Done {
    change(call, str::to_lowercase)
}

fn upper(call: &mut Call<'_>) -> Done {
    change(call, str::to_uppercase)
}

fn capitalize(call: &mut Call<'_>) -> Done {
    change(call, |text| {
        let mut chars = text.chars();
        let first = chars.next().into_iter().flat_map(char::to_uppercase);
        first.chain(chars.as_str().to_lowercase().chars()).collect()
    })
}

/// The first letter of each word large, the others small; signs before it stay.
fn title(call: &mut Call<'_>) -> Done {
    change(call, |text| {
        let mut titled = String::with_capacity(text.len());
        let mut started = false;
        for c in text.chars() {
            match c {
                _ if c.is_whitespace() => {
                    started = false;
                    titled.push(c);
                }
                _ if started => titled.extend(c.to_lowercase()),
                _ => {
                    started = c.is_alphabetic();
                    titled.extend(c.to_uppercase());
                }
            }
        }
        titled
    })
}

/// Java's `trim`: everything up to the space.
fn trim(call: &mut Call<'_>) -> Done {
    let text = call.input_text_or_null()?;
    call.made_text(text.trim_matches(|c| c <= ' ').to_owned(), &[])
}

fn units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// The first `length` units, and no half character.
fn first_units(text: &str, length: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += c.len_utf16();
        used > length
    });
    &text[..end.map_or(text.len(), |(at, _)| at)]
}

/// Cuts after `length` units, or after the last white space before it.
fn truncate(call: &mut Call<'_>) -> Done {
    let Some(text) = call.input_string()? else { return call.same() };
    let length = call.int(0, 255);
    if i64::try_from(units(&text)).is_ok_and(|units| units <= length) {
        return call.same();
    }
    let end = call.text(2)?.unwrap_or_else(|| "...".into());
    let mut kept = first_units(&text, usize::try_from(length).unwrap_or(0));
    if !call.flag(1, false) {
        let space = kept.char_indices().rfind(|(_, c)| c.is_whitespace());
        let whole = space.map_or(1, |(at, c)| at + c.len_utf8());
        // Without any space one character stays (Jinjava).
        kept = if space.is_some() { &text[..whole] } else { first_units(&text, usize::from(length >= 0)) };
    }
    let mut cut = Builder::new(call.meter);
    cut.push(kept)?;
    cut.push(&end)?;
    let cut = cut.text;
    Ok(call.made(cut, &[2]))
}

fn center(call: &mut Call<'_>) -> Done {
    let text = call.input_text()?;
    let width = usize::try_from(call.int(0, 80)).unwrap_or(0);
    let room = width.saturating_sub(units(&text));
    if room == 0 {
        return Ok(call.made(text, &[]));
    }
    let mut centered = Builder::new(call.meter);
    centered.fill(' ', room / 2)?;
    centered.push(&text)?;
    centered.fill(' ', room - room / 2)?;
    let centered = centered.text;
    Ok(call.made(centered, &[]))
}

fn cut(call: &mut Call<'_>) -> Done {
    let text = call.input_text()?;
    let old = call.text(0)?.unwrap_or_default();
    let replaced = replaced(call, &text, &old, "", usize::MAX)?;
    Ok(call.made(replaced, &[]))
}

fn replace(call: &mut Call<'_>) -> Done {
    if is_null(&call.input.value) {
        return call.same();
    }
    let text = call.input_text()?;
    let (Some(old), Some(new)) = (call.text(0)?, call.text(1)?) else { return Ok(call.made(text, &[])) };
    let count = call.int(2, -1);
    let replaced = replaced(call, &text, &old, &new, usize::try_from(count).unwrap_or(usize::MAX))?;
    Ok(call.made(replaced, &[1]))
}

fn replaced(call: &mut Call<'_>, text: &str, old: &str, new: &str, count: usize) -> Result<String, Box<Fault>> {
    let mut replaced = Builder::new(call.meter);
    replaced.text.reserve(text.len());
    let mut rest = text;
    for (at, _) in text.match_indices(old).take(if old.is_empty() { 0 } else { count }) {
        let start = text.len() - rest.len();
        replaced.push(&text[start..at])?;
        replaced.push(new)?;
        rest = &text[at + old.len()..];
    }
    replaced.push(rest)?;
    Ok(replaced.text)
}

fn indent(call: &mut Call<'_>) -> Done {
    let text = call.input_text()?;
    let (width, first) = (usize::try_from(call.int(0, 4)).unwrap_or(0), call.flag(1, false));
    let mut indented = Builder::new(call.meter);
    for (number, line) in text.split('\n').enumerate() {
        if number > 0 {
            indented.push("\n")?;
        }
        if number > 0 || first {
            indented.fill(' ', width)?;
        }
        indented.push(line)?;
    }
    let indented = indented.text;
    Ok(call.made(indented, &[]))
}

fn wordcount(call: &mut Call<'_>) -> Done {
    let text = call.input_text()?;
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count();
    Ok(super::author(words as i64))
}

/// Lines of at most `width` characters, broken at spaces where there are any.
fn wordwrap(call: &mut Call<'_>) -> Done {
    let text = call.input_text()?;
    let width = usize::try_from(call.int(0, 79)).unwrap_or(1).max(1);
    let break_words = call.flag(1, true);
    call.meter.string(text.len())?;
    call.meter.spend(text.len() * 4)?;
    let chars: Vec<char> = text.chars().collect();
    let mut wrapped = Builder::new(call.meter);
    let mut at = 0;
    while chars.len() - at > width {
        if chars[at] == ' ' {
            at += 1;
            continue;
        }
        let space = chars[at..=at + width].iter().rposition(|c| *c == ' ').map(|found| at + found);
        let (end, next) = match space {
            Some(space) => (space, space + 1),
            None if break_words => (at + width, at + width),
            None => match chars[at + width..].iter().position(|c| *c == ' ') {
                Some(found) => (at + width + found, at + width + found + 1),
                None => break,
            },
        };
        wrapped.push(&chars[at..end].iter().collect::<String>())?;
        wrapped.push("\n")?;
        at = next;
    }
    wrapped.push(&chars[at..].iter().collect::<String>())?;
    let wrapped = wrapped.text;
    Ok(call.made(wrapped, &[]))
}

/// Parts without the white space around them; empty ones are left out. The last of `limit` parts holds the rest.
fn split(call: &mut Call<'_>) -> Done {
    let text = call.input_text()?;
    let separator = call.text(0)?;
    let limit = usize::try_from(call.int(1, 0)).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let mut parts: Vec<Value> = Vec::new();
    let mut rest = Some(&*text);
    while let Some(text) = rest.take() {
        let found = match &separator {
            Some(separator) if separator.is_empty() => return Err(call.fault("needs a separator that is not empty")),
            Some(separator) => text.find(&**separator).map(|at| (at, at + separator.len())),
            None => {
                text.find(char::is_whitespace).and_then(|at| Some((at, at + text[at..].chars().next()?.len_utf8())))
            }
        };
        // What is left out does not count towards the limit.
        let (part, after) = match found.filter(|_| parts.len() + 1 < limit) {
            Some((end, next)) => (&text[..end], Some(&text[next..])),
            None => (text, None),
        };
        let part = part.trim();
        if !part.is_empty() {
            call.meter.spend(part.len() + 64)?;
            parts.push(Value::from(part));
        }
        rest = after;
    }
    call.made_list(parts, &[])
}

/// A regular expression, compiled. Stands in a template where one is written down, so that rendering compiles none.
#[derive(Debug)]
pub(in super::super) struct Pattern {
    regex: Regex,
    /// Its size in KiB, rounded up; also the steps for looking at 1 KiB of text, because matching takes time for text
    /// times expression.
    kib: usize,
}

impl Object for Pattern {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// Steps of compiling an expression that is not written down in the template.
const COMPILING: usize = 5_000;

impl Pattern {
    /// `room` is how many KiB it may compile to.
    ///
    /// # Errors
    /// What is wrong with it, for the author.
    pub(in super::super) fn new(text: &str, room: usize) -> Result<Pattern, (ErrorCode, String)> {
        // What it becomes while it is read is not limited by what it becomes in the end.
        if text.len() > PATTERN_SOURCE_BYTES {
            let message = format!("this regular expression is longer than {PATTERN_SOURCE_BYTES} bytes");
            return Err((ErrorCode::Limit, message));
        }
        for kib in [8, 32, 128, 512, 1024].into_iter().filter(|kib| *kib <= room) {
            // The cache is kept with the template. Without it matching is slower and still linear.
            match RegexBuilder::new(text).size_limit(kib * 1024).dfa_size_limit(64 * 1024).build() {
                Ok(regex) => return Ok(Pattern { regex, kib }),
                Err(regex::Error::CompiledTooBig(_)) => {}
                Err(_) => {
                    let message = "this is no regular expression (look-around and back-references are not supported)";
                    return Err((ErrorCode::Syntax, message.into()));
                }
            }
        }
        let message = format!("the regular expressions go over the limit of {PATTERN_KIB} KiB compiled");
        Err((ErrorCode::Limit, message))
    }

    pub(in super::super) fn kib(&self) -> usize {
        self.kib
    }

    /// A pattern that is compiled already, or the text of one, which costs more.
    pub(in super::super) fn of(value: &Value, meter: &mut Meter) -> Result<Arc<Pattern>, Box<Fault>> {
        if let Some(pattern) = value.downcast_object::<Pattern>() {
            return Ok(pattern);
        }
        let source = text_of(value, meter)?;
        meter.steps(COMPILING)?;
        let pattern = Pattern::new(&source, PATTERN_KIB);
        pattern.map(Arc::new).map_err(|(code, message)| match code {
            ErrorCode::Limit => Fault::new(RenderErrorKind::Limit, message),
            _ => Fault::eval("a regular expression is needed, and this text is none"),
        })
    }

    /// Looking at all of `text`.
    fn charge(&self, text: &str, meter: &mut Meter) -> Result<(), Box<Fault>> {
        meter.steps((text.len() * self.kib).div_ceil(1024))
    }

    /// Whether it is found in `text`.
    pub(in super::super) fn is_in(&self, text: &str, meter: &mut Meter) -> Result<bool, Box<Fault>> {
        self.charge(text, meter)?;
        Ok(self.regex.is_match(text))
    }

    /// The expression that fits only a text as a whole.
    pub(in super::super) fn whole(text: &str) -> String {
        format!("\\A(?:{text})\\z")
    }

    /// The parts of `text` between at most `times` matches.
    pub(in super::super) fn split<'t>(
        &self,
        text: &'t str,
        times: usize,
        meter: &mut Meter,
    ) -> Result<Vec<&'t str>, Box<Fault>> {
        self.charge(text, meter)?;
        let mut parts = Vec::new();
        let mut start = 0;
        // Nothing is split off where nothing matches before the first character (Java).
        for found in self.regex.find_iter(text).filter(|found| found.end() > 0).take(times) {
            if found.is_empty() && found.end() == text.len() {
                break;
            }
            if parts.len() == ITEMS {
                return Err(over("entries in one list or map", ITEMS));
            }
            parts.push(text.get(start..found.start()).unwrap_or_default());
            start = found.end();
        }
        parts.push(text.get(start..).unwrap_or_default());
        Ok(parts)
    }

    /// The text with its first `times` matches replaced. `$1` and `${name}` stand for groups, a backslash for what
    /// follows it.
    pub(in super::super) fn replace(
        &self,
        text: &str,
        new: &str,
        times: usize,
        meter: &mut Meter,
    ) -> Result<String, Box<Fault>> {
        let new = Replacement::read(new, &self.regex)
            .ok_or_else(|| Fault::eval("the replacement names a group that the regular expression does not have"))?;
        self.charge(text, meter)?;
        let mut replaced = Builder::new(meter);
        let mut copied = 0;
        for found in self.regex.captures_iter(text).take(times) {
            let Some(whole) = found.get(0) else { continue };
            replaced.push(text.get(copied..whole.start()).unwrap_or_default())?;
            new.write(&found, &mut replaced)?;
            copied = whole.end();
        }
        replaced.push(text.get(copied..).unwrap_or_default())?;
        Ok(replaced.text)
    }
}

/// Linear in the text, whatever the expression.
fn regex_replace(call: &mut Call<'_>) -> Done {
    if is_null(&call.input.value) {
        return call.same();
    }
    let text = call.input_text()?;
    let pattern = match call.given(0).map(|arg| arg.value.clone()).filter(|value| !is_null(value)) {
        Some(value) => Pattern::of(&value, call.meter)?,
        None => return Err(call.fault("needs a regular expression, and got nothing")),
    };
    let new = call.needed_text(1, "a replacement")?;
    let replaced = pattern.replace(&text, &new, usize::MAX, call.meter)?;
    Ok(call.made(replaced, &[1]))
}

/// A replacement with its groups found.
struct Replacement {
    parts: Vec<Part>,
}

enum Part {
    Text(String),
    Group(usize),
}

impl Replacement {
    fn read(text: &str, regex: &Regex) -> Option<Replacement> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            match c {
                '\\' => plain.push(rest.next()?),
                '$' => {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                    parts.push(Part::Group(Self::group(&mut rest, regex)?));
                }
                _ => plain.push(c),
            }
        }
        parts.push(Part::Text(plain));
        Some(Replacement { parts })
    }

    /// The group named after a `$`: as many digits as make a group there is, or a name in braces.
    fn group(rest: &mut std::str::Chars<'_>, regex: &Regex) -> Option<usize> {
        if let Some(inner) = rest.as_str().strip_prefix('{') {
            let (name, after) = inner.split_once('}')?;
            *rest = after.chars();
            return regex.capture_names().position(|known| known == Some(name));
        }
        let mut group = rest.next()?.to_digit(10)? as usize;
        while let Some(digit) = rest.clone().next().and_then(|c| c.to_digit(10)) {
            let longer = group * 10 + digit as usize;
            if longer >= regex.captures_len() {
                break;
            }
            group = longer;
            rest.next();
        }
        (group < regex.captures_len()).then_some(group)
    }

    fn write(&self, found: &Captures<'_>, out: &mut Builder<'_>) -> Result<(), Box<Fault>> {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push(text)?,
                Part::Group(group) => out.push(found.get(*group).map_or("", |group| group.as_str()))?,
            }
        }
        if out.text.len() > STRING_BYTES { Err(over("bytes in one string", STRING_BYTES)) } else { Ok(()) }
    }
}
