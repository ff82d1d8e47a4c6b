//! The methods of texts: the public ones of Java's `String` that make sense here. Positions are Java's (`utf16`).

use std::cmp::Ordering;

use minijinja::Value;

use super::error::Fault;
use super::filters::Pattern;
use super::limits::{STRING_BYTES, over};
use super::methods::{Call, fact};
use super::operators::build_list;
use super::traced::Traced;
use super::utf16;

type Done = Result<Traced, Box<Fault>>;

impl Call<'_> {
    /// A text made of the target's and the arguments' texts.
    fn made(&mut self, text: impl Into<String>) -> Done {
        let text = text.into();
        self.meter.string(text.len())?;
        let origin = self.args.iter().fold(self.target.origin.reshaped(), |all, arg| all.with(arg.origin.reshaped()));
        Ok(Traced { value: Value::from(text), origin })
    }
}

pub(super) fn is_empty(_: &mut Call<'_>, text: &str) -> Done {
    fact(text.is_empty())
}

pub(super) fn is_blank(_: &mut Call<'_>, text: &str) -> Done {
    fact(text.trim().is_empty())
}

pub(super) fn length(_: &mut Call<'_>, text: &str) -> Done {
    fact(utf16::length(text) as i64)
}

pub(super) fn contains(call: &mut Call<'_>, text: &str) -> Done {
    let part = call.text(0)?;
    fact(text.contains(&*part))
}

pub(super) fn starts_with(call: &mut Call<'_>, text: &str) -> Done {
    let part = call.text(0)?;
    if call.args.len() == 1 {
        return fact(text.starts_with(&*part));
    }
    let from = usize::try_from(call.int(1)?).ok().filter(|from| *from <= utf16::length(text));
    fact(from.is_some_and(|from| utf16::part(text, from, usize::MAX).starts_with(&*part)))
}

pub(super) fn ends_with(call: &mut Call<'_>, text: &str) -> Done {
    let part = call.text(0)?;
    fact(text.ends_with(&*part))
}

pub(super) fn equals_ignore_case(call: &mut Call<'_>, text: &str) -> Done {
    let other = call.text(0)?;
    fact(text.chars().flat_map(char::to_lowercase).eq(other.chars().flat_map(char::to_lowercase)))
}

/// As Java: the difference of the first units that differ, or of the lengths.
pub(super) fn compare_to(call: &mut Call<'_>, text: &str) -> Done {
    let other = call.text(0)?;
    let units = text.encode_utf16().zip(other.encode_utf16()).find(|(a, b)| a != b);
    fact(match units {
        Some((a, b)) => i64::from(a) - i64::from(b),
        None => match text.len().cmp(&other.len()) {
            Ordering::Equal => 0,
            _ => utf16::length(text) as i64 - utf16::length(&other) as i64,
        },
    })
}

pub(super) fn index_of(call: &mut Call<'_>, text: &str) -> Done {
    let part = call.text(0)?;
    let from = if call.args.len() > 1 { usize::try_from(call.int(1)?).unwrap_or(0) } else { 0 };
    let rest = utf16::part(text, from, usize::MAX);
    let skipped = text.len() - rest.len();
    fact(rest.find(&*part).map_or(-1, |at| utf16::position(text, skipped + at) as i64))
}

pub(super) fn last_index_of(call: &mut Call<'_>, text: &str) -> Done {
    let part = call.text(0)?;
    fact(text.rfind(&*part).map_or(-1, |at| utf16::position(text, at) as i64))
}

pub(super) fn char_at(call: &mut Call<'_>, text: &str) -> Done {
    let at = usize::try_from(call.int(0)?).ok().filter(|at| *at < utf16::length(text));
    match at.and_then(|at| utf16::part(text, at, usize::MAX).chars().next()) {
        Some(c) => call.made(c),
        None => Err(Fault::eval("'charAt' needs a position inside the text")),
    }
}

pub(super) fn substring(call: &mut Call<'_>, text: &str) -> Done {
    let length = utf16::length(text);
    let start = usize::try_from(call.int(0)?).ok();
    let end = if call.args.len() > 1 { usize::try_from(call.int(1)?).ok() } else { Some(length) };
    match (start, end) {
        (Some(start), Some(end)) if start <= end && end <= length => call.made(utf16::part(text, start, end)),
        _ => Err(Fault::eval("'substring' needs a start and an end inside the text")),
    }
}

pub(super) fn concat(call: &mut Call<'_>, text: &str) -> Done {
    let other = call.text(0)?;
    call.meter.string(text.len() + other.len())?;
    call.made(format!("{text}{other}"))
}

pub(super) fn repeat(call: &mut Call<'_>, text: &str) -> Done {
    let times = call.int(0)?;
    let Ok(times) = usize::try_from(times) else { return Err(Fault::eval("'repeat' needs 0 or more")) };
    match text.len().checked_mul(times).filter(|length| *length <= STRING_BYTES) {
        Some(length) => {
            call.meter.reading(length)?;
            call.made(text.repeat(times))
        }
        None => Err(over("bytes in one string", STRING_BYTES)),
    }
}

/// Every occurrence, as plain text.
pub(super) fn replace(call: &mut Call<'_>, text: &str) -> Done {
    let (from, to) = (call.text(0)?, call.text(1)?);
    let times = text.matches(&*from).count();
    let length = (text.len() - times * from.len()).saturating_add(times.saturating_mul(to.len()));
    if length > STRING_BYTES {
        return Err(over("bytes in one string", STRING_BYTES));
    }
    call.meter.reading(length)?;
    call.made(text.replace(&*from, &to))
}

pub(super) fn matches(call: &mut Call<'_>, text: &str) -> Done {
    let expression = call.value(0);
    let expression = expression.as_str().map_or(expression.clone(), |text| Value::from(Pattern::whole(text)));
    let pattern = Pattern::of(&expression, call.meter)?;
    fact(pattern.is_in(text, call.meter)?)
}

pub(super) fn replace_all(call: &mut Call<'_>, text: &str) -> Done {
    replaced(call, text, usize::MAX)
}

pub(super) fn replace_first(call: &mut Call<'_>, text: &str) -> Done {
    replaced(call, text, 1)
}

fn replaced(call: &mut Call<'_>, text: &str, times: usize) -> Done {
    let pattern = Pattern::of(&call.value(0), call.meter)?;
    let new = call.text(1)?;
    let replaced = pattern.replace(text, &new, times, call.meter)?;
    call.made(replaced)
}

/// `split(expression)` drops empty parts at the end; with a limit there are at most so many parts (Java).
pub(super) fn split(call: &mut Call<'_>, text: &str) -> Done {
    let pattern = Pattern::of(&call.value(0), call.meter)?;
    let limit = if call.args.len() > 1 { call.int(1)? } else { 0 };
    let times = if limit > 0 { limit as usize - 1 } else { usize::MAX };
    let mut parts = pattern.split(text, times, call.meter)?;
    if limit == 0 && parts.len() > 1 {
        let filled = parts.iter().rposition(|part| !part.is_empty()).map_or(0, |last| last + 1);
        parts.truncate(filled);
    }
    call.meter.spend(text.len())?;
    let parts = build_list(parts.into_iter().map(Value::from).collect(), call.meter)?;
    Ok(Traced { value: parts, origin: call.target.origin.reshaped() })
}

pub(super) fn to_lower_case(call: &mut Call<'_>, text: &str) -> Done {
    call.made(text.to_lowercase())
}

pub(super) fn to_upper_case(call: &mut Call<'_>, text: &str) -> Done {
    call.made(text.to_uppercase())
}

/// Java's `trim`: everything up to the space.
pub(super) fn trim(call: &mut Call<'_>, text: &str) -> Done {
    call.made(text.trim_matches(|c| c <= ' '))
}

pub(super) fn strip(call: &mut Call<'_>, text: &str) -> Done {
    call.made(text.trim())
}

pub(super) fn strip_leading(call: &mut Call<'_>, text: &str) -> Done {
    call.made(text.trim_start())
}

pub(super) fn strip_trailing(call: &mut Call<'_>, text: &str) -> Done {
    call.made(text.trim_end())
}
