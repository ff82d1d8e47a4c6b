//! A URL as curl reads it, into one the gateway can call. Hides globbing, user info, fragments, the query that options
//! add, and the places where readers of URLs disagree, which are refused.

use std::ops::Range;

use percent_encoding::percent_decode_str;

use super::credentials::{MASK, is_placeholder, is_secret};
use super::markup;
use super::refusal::Reason;
use crate::address::{UrlError, UrlPolicy, check_url};
use crate::seal::Secret;

/// How options change the reading.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading<'a> {
    /// `--globoff`.
    pub(super) literal_braces: bool,
    /// `--path-as-is`.
    pub(super) path_as_is: bool,
    /// `--proto-default`.
    pub(super) default_scheme: Option<&'a str>,
    /// Of `-G` or `--url-query`, without `?`.
    pub(super) query: Option<&'a str>,
}

/// A URL, and what was taken out of it.
#[derive(Debug)]
pub(super) struct Target {
    /// The URL's text, with its inserts.
    pub(super) url: String,
    /// `login:password`, decoded.
    pub(super) user_info: Option<Secret>,
    /// A fragment, never sent, was left out.
    pub(super) had_fragment: bool,
}

/// Reads the text of a URL.
pub(super) fn read(text: &str, reading: Reading<'_>) -> Result<Target, Reason> {
    let unescaped = if reading.literal_braces { text.to_owned() } else { without_globs(text)? };
    refuse_characters(&unescaped)?;
    let (text, had_fragment) = without_fragment(&unescaped);
    let rest = after_scheme(text, reading.default_scheme)?;
    let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if markup::is_in(authority) || markup::literal_start(rest).len() < authority.len() {
        return Err(Reason::UrlHost);
    }
    let (user_info, host) = match authority.split_once('@') {
        Some((user_info, host)) => (Some(decode(user_info)?), host),
        None => (None, authority),
    };
    if host.contains(['@', '%']) {
        return Err(Reason::UrlInvalid);
    }
    let mut url = format!("https://{host}{tail}");
    if let Some(query) = reading.query {
        append(&mut url, query)?;
    }
    check_dots(&url, reading.path_as_is)?;
    check_address(&url)?;
    Ok(Target { url, user_info, had_fragment })
}

/// What curl would read as several URLs is refused; a backslash before a brace or bracket makes it plain, and `[]` is.
fn without_globs(text: &str) -> Result<String, Reason> {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.push(chars.next_if(|next| "{}[]".contains(*next)).unwrap_or(c)),
            '[' if chars.next_if_eq(&']').is_some() => plain.push_str("[]"),
            '{' | '}' | '[' | ']' => return Err(Reason::UrlGlob),
            _ => plain.push(c),
        }
    }
    Ok(plain)
}

/// Blanks, control characters and backslashes: readers refuse, drop or rewrite them.
fn refuse_characters(text: &str) -> Result<(), Reason> {
    match markup::find_plain(text, |c| c.is_whitespace() || c.is_control() || c == '\\') {
        Some(_) => Err(Reason::UrlInvalid),
        None => Ok(()),
    }
}

fn without_fragment(text: &str) -> (&str, bool) {
    match markup::split_plain(text, '#') {
        Some((before, _)) => (before, true),
        None => (text, false),
    }
}

/// What stands behind `https://`; curl takes one to three slashes.
fn after_scheme<'t>(text: &'t str, default: Option<&str>) -> Result<&'t str, Reason> {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    match text.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) && rest.starts_with('/') => {
            if !scheme.eq_ignore_ascii_case("https") {
                return Err(Reason::UrlScheme);
            }
            let behind = rest.trim_start_matches('/');
            if rest.len() - behind.len() > 3 { Err(Reason::UrlInvalid) } else { Ok(behind) }
        }
        _ if text.is_empty() || text.starts_with(['/', '?', '#']) => Err(Reason::UrlInvalid),
        // Without a scheme curl would call http://.
        _ if default.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) => Ok(text),
        _ => Err(Reason::UrlScheme),
    }
}

fn decode(user_info: &str) -> Result<Secret, Reason> {
    let (login, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let decoded = |text| percent_decode_str(text).decode_utf8().map_err(|_| Reason::NotUtf8);
    Ok(Secret::new(format!("{}:{}", decoded(login)?, decoded(password)?)))
}

/// Appends to the query as curl does: `&` is not doubled, `#` ends it.
fn append(url: &mut String, query: &str) -> Result<(), Reason> {
    refuse_characters(query)?;
    let (query, _) = without_fragment(query);
    match markup::split_plain(url, '?') {
        // What was and stays empty is no query.
        Some((_, "")) if query.is_empty() => url.truncate(url.len() - 1),
        Some((_, "")) => {}
        Some((_, present)) if present.ends_with('&') => {}
        Some(_) => url.push('&'),
        None if query.is_empty() => {}
        None => url.push('?'),
    }
    url.push_str(query);
    Ok(())
}

/// `.` and `..` are resolved before sending, `%2e` for some readers only.
fn check_dots(url: &str, as_is: bool) -> Result<(), Reason> {
    let path = markup::split_plain(url, '?').map_or(url, |(path, _)| path);
    let dots = |segment: &&str| is_dots(segment) && (as_is || segment.contains('%'));
    if markup::parts(path, '/').iter().any(dots) { Err(Reason::PathAsIs) } else { Ok(()) }
}

fn is_dots(segment: &str) -> bool {
    segment.len() <= 6 && matches!(&*segment.to_ascii_lowercase().replace("%2e", "."), "." | "..")
}

/// The rules no setting lifts (S42). Ports and our own names are the operator's, and judged when it is saved.
fn check_address(url: &str) -> Result<(), Reason> {
    // A placeholder stands for a secret that may be shorter: what is too long with the secret is refused when it is saved.
    let short = with_values(url, |_, value| is_placeholder(value).then(|| "1".to_owned()));
    match check_url(markup::literal_start(&short), &UrlPolicy::default()) {
        Ok(_) | Err(UrlError::Port) => Ok(()),
        Err(UrlError::TooLong) => Err(Reason::UrlTooLong),
        Err(UrlError::Scheme) => Err(Reason::UrlScheme),
        Err(UrlError::IpLiteral | UrlError::DeniedName | UrlError::Own | UrlError::Moved) => Err(Reason::UrlHost),
        Err(UrlError::BadCharacter | UrlError::Invalid | UrlError::UserInfo) => Err(Reason::UrlInvalid),
    }
}

/// The one text for all texts that are sent alike: what differs only in it is no change.
pub(super) fn canonical(text: &str) -> String {
    if !markup::is_in(text)
        && let Ok(url) = url::Url::parse(text)
    {
        let mut url = url;
        url.set_fragment(None);
        return url.into();
    }
    let (text, _) = without_fragment(text);
    let authority_end =
        "https://".len() + text.get("https://".len()..).unwrap_or_default().find(['/', '?']).unwrap_or(text.len());
    let (start, tail) = text.split_at_checked(authority_end).unwrap_or((text, "/"));
    let start = start.to_ascii_lowercase();
    let start = start.strip_suffix(":443").unwrap_or(&start);
    let slash = if tail.starts_with('/') { "" } else { "/" };
    format!("{}{slash}{}", start.strip_suffix('.').unwrap_or(start), with_plain_dots(tail))
}

/// `%2e%2e` segments as `..`, which every reader resolves alike.
pub(super) fn with_plain_dots(text: &str) -> String {
    let (path, query) = match markup::find_plain(text, |c| c == '?' || c == '#') {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let segments = markup::parts(path, '/').into_iter();
    let plain: Vec<String> = segments
        .map(|segment| if is_dots(segment) { segment.to_ascii_lowercase().replace("%2e", ".") } else { segment.into() })
        .collect();
    plain.join("/") + query
}

/// Names and values of the query, as they are written.
pub(super) fn parameters(url: &str) -> Vec<(&str, Option<&str>)> {
    let query = url.get(query(url)).unwrap_or_default();
    let parts = markup::parts(query, '&').into_iter().filter(|part| !part.is_empty());
    parts.map(|part| markup::split_plain(part, '=').map_or((part, None), |(name, value)| (name, Some(value)))).collect()
}

/// Where the query stands; empty at the end when there is none.
fn query(url: &str) -> Range<usize> {
    let end = markup::find_plain(url, |c| c == '#').unwrap_or(url.len());
    let before = url.get(..end).unwrap_or(url);
    let start = markup::find_plain(before, |c| c == '?').map_or(end, |at| at + 1);
    start..end
}

/// What stands before the query.
pub(super) fn before_query(url: &str) -> &str {
    url.get(..query(url).start).unwrap_or(url)
}

/// The names of the query's parameters that have a value, and where it stands.
pub(super) fn values(url: &str) -> Vec<(&str, Range<usize>)> {
    let query = query(url);
    let mut start = query.start;
    let mut values = Vec::new();
    for part in markup::parts(url.get(query).unwrap_or_default(), '&') {
        if let Some((name, _)) = markup::split_plain(part, '=') {
            values.push((name, start + name.len() + 1..start + part.len()));
        }
        start += part.len() + 1;
    }
    values
}

/// The URL with the values of its parameters replaced where `replace` has another for a name and a value.
pub(super) fn with_values(url: &str, mut replace: impl FnMut(&str, &str) -> Option<String>) -> String {
    let mut out = String::with_capacity(url.len());
    let mut done = 0;
    for (name, place) in values(url) {
        if let Some(value) = replace(name, url.get(place.clone()).unwrap_or_default()) {
            out.push_str(url.get(done..place.start).unwrap_or_default());
            out.push_str(&value);
            done = place.end;
        }
    }
    out.push_str(url.get(done..).unwrap_or_default());
    out
}

/// The URL as it may be shown.
pub(super) fn masked(url: &str) -> String {
    with_values(url, |name, value| is_secret(name, value).then(|| MASK.to_owned()))
}
