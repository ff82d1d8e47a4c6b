//! What an import would change, before it does (R087, R089, S44). Hides which texts are equal, and where the secrets come
//! from that a command only names.

use std::collections::BTreeMap;
use std::fmt;

use super::credentials::{MASK, is_placeholder, is_secret};
use super::{Header, Import, Request, url};

/// One changed field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its path from the request: `method`, `url`, `url.parameters["a"]`, `headers["X-A"]`, `connection`, `body`. The
    /// second of one name is `headers["X-A"][1]`.
    pub path: String,
    /// Absent: there was none.
    pub old: Option<String>,
    /// Absent: it is removed.
    pub new: Option<String>,
    /// A secret is shown as [`MASK`], in `old` and `new`.
    pub masked: bool,
}

/// All changed fields: method, URL, headers by name, connection, body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes(Vec<Change>);

impl Changes {
    /// One row per changed field.
    pub fn rows(&self) -> &[Change] {
        &self.0
    }

    /// Nothing would change.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, path: impl Into<String>, old: Option<&str>, new: Option<&str>, masked: bool) {
        let shown = |text: Option<&str>| text.map(|text| if masked { MASK } else { text }.to_owned());
        self.0.push(Change { path: path.into(), old: shown(old), new: shown(new), masked });
    }
}

/// A line per row, or `No changes` (R089).
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("No changes");
        }
        for (index, change) in self.0.iter().enumerate() {
            let shown = |text: &Option<String>| text.as_ref().map_or("(none)".to_owned(), |text| format!("{text:?}"));
            let line_break = if index > 0 { "\n" } else { "" };
            write!(f, "{line_break}{}: {} -> {}", change.path, shown(&change.old), shown(&change.new))?;
        }
        Ok(())
    }
}

impl Import {
    /// What importing into `current` would change. `connection` is the present connection's name.
    pub fn changes(&self, current: &Request, connection: Option<&str>) -> Changes {
        let next = self.applied_to(current);
        let mut changes = Changes::default();
        if next.method != current.method {
            changes.add("method", filled(&current.method), Some(&next.method), false);
        }
        if next.url != current.url {
            changed_url(&mut changes, &current.url, &next.url);
        }
        changed_headers(&mut changes, &current.headers, &next.headers);
        if let Some(suggestion) = &self.connection {
            changes.add("connection", connection, Some(&format!("new {suggestion}")), false);
        }
        if next.body != current.body {
            changes.add("body", current.body.as_deref(), next.body.as_deref(), false);
        }
        changes
    }

    /// The request as it will be: method, URL, headers and body are replaced, whatever is sent alike keeps its text, and
    /// placeholders get back the secrets they stand for. Where `current` has none ([`Import::missing_secrets`]), the header
    /// is left out and the parameter is empty.
    pub fn applied_to(&self, current: &Request) -> Request {
        let imported = &self.request;
        let url = url::with_values(&imported.url, restored_parameters(&current.url));
        let mut headers: Vec<Header> = imported.headers.clone();
        restore_headers(&mut headers, &current.headers);
        let is_type = |header: &Header| header.is("content-type");
        let declares_json = |header: &Header| is_type(header) && header.value == "application/json";
        // A body without declared type is sent as JSON (X20), which a command has to say.
        if current.body.is_some() && imported.body.is_some() && !current.headers.iter().any(is_type) {
            let types = headers.iter().filter(|header| is_type(header)).count();
            headers.retain(|header| types > 1 || !declares_json(header));
        }
        let body = if text(&imported.body) == text(&current.body) { &current.body } else { &imported.body };
        Request {
            method: imported.method.clone(),
            url: if url::canonical(&url) == url::canonical(&current.url) { current.url.clone() } else { url },
            headers: with_known_spelling(headers, &current.headers),
            body: body.clone(),
        }
    }

    /// The headers and URL parameters that the command only names and `current` does not have: to be entered again.
    pub fn missing_secrets(&self, current: &Request) -> Vec<String> {
        let mut missing = Vec::new();
        let mut headers = self.request.headers.clone();
        let before = headers.clone();
        restore_headers(&mut headers, &current.headers);
        missing.extend(before.iter().filter(|header| is_to_be_restored(header)).filter_map(|header| {
            let is_kept = headers.iter().any(|kept| kept.is(&header.name));
            (!is_kept).then(|| header_path(&header.name, 0))
        }));
        let mut restored = restored_parameters(&current.url);
        for (name, value) in url::parameters(&self.request.url) {
            if restored(name, value.unwrap_or_default()).is_some_and(|value| value.is_empty()) {
                missing.push(parameter_path(name, 0));
            }
        }
        missing
    }
}

fn filled(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn text(body: &Option<String>) -> &str {
    body.as_deref().unwrap_or_default()
}

fn is_to_be_restored(header: &Header) -> bool {
    header.is_secret() && is_placeholder(&header.value)
}

/// Puts the secrets back that placeholders stand for: the n-th header of a name stands for the n-th of `current`.
fn restore_headers(headers: &mut Vec<Header>, current: &[Header]) {
    let mut known = by_name(current);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    headers.retain_mut(|header| {
        let key = key(&header.name);
        let number = seen.entry(key.clone()).or_default();
        let at = *number;
        *number += 1;
        if !is_to_be_restored(header) {
            return true;
        }
        let value = known.get_mut(&key).and_then(|values| values.get(at));
        value.map(|value| header.value = (*value).to_owned()).is_some()
    });
}

/// For each placeholder the value of the same parameter in `current`, or nothing.
fn restored_parameters(current: &str) -> impl FnMut(&str, &str) -> Option<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    move |name, value| {
        let number = seen.entry(name.to_owned()).or_default();
        let at = *number;
        *number += 1;
        if !is_secret(name, value) || !is_placeholder(value) {
            return None;
        }
        let mut same = url::values(current).into_iter().filter(|(known, _)| *known == name);
        Some(same.nth(at).and_then(|(_, place)| current.get(place)).unwrap_or_default().to_owned())
    }
}

fn key(name: &str) -> String {
    name.trim_matches([' ', '\t']).to_ascii_lowercase()
}

/// Values by lower-case name, in order.
fn by_name(headers: &[Header]) -> BTreeMap<String, Vec<&str>> {
    let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for header in headers {
        groups.entry(key(&header.name)).or_default().push(header.value.trim_matches([' ', '\t']));
    }
    groups
}

/// The present headers where they say the same, else the new ones, with names and values spelled as they were.
fn with_known_spelling(headers: Vec<Header>, current: &[Header]) -> Vec<Header> {
    let known = by_name(current);
    if by_name(&headers) == known {
        return current.to_vec();
    }
    let mut spelled: BTreeMap<(String, &str), &Header> = BTreeMap::new();
    for header in current {
        spelled.entry((key(&header.name), header.value.trim_matches([' ', '\t']))).or_insert(header);
    }
    headers
        .into_iter()
        .map(|header| {
            let known = spelled.get(&(key(&header.name), header.value.as_str())).copied();
            known.cloned().unwrap_or(header)
        })
        .collect()
}

fn header_path(name: &str, index: usize) -> String {
    path("headers", name.trim_matches([' ', '\t']), index)
}

fn parameter_path(name: &str, index: usize) -> String {
    path("url.parameters", name, index)
}

fn path(list: &str, name: &str, index: usize) -> String {
    let index = if index == 0 { String::new() } else { format!("[{index}]") };
    format!("{list}[{name:?}]{index}")
}

/// A row for each header that differs; those of one name are compared in order.
fn changed_headers(changes: &mut Changes, current: &[Header], next: &[Header]) {
    let (old, new) = (by_name(current), by_name(next));
    let mut spelling: BTreeMap<String, &str> = BTreeMap::new();
    for header in current.iter().chain(next) {
        spelling.entry(key(&header.name)).or_insert(&header.name);
    }
    for (key, name) in spelling {
        let (old, new) = (old.get(&key).map_or(&[][..], |v| v), new.get(&key).map_or(&[][..], |v| v));
        for index in 0..old.len().max(new.len()) {
            let (old, new) = (old.get(index).copied(), new.get(index).copied());
            if old != new {
                let masked = [old, new].into_iter().flatten().any(|value| is_secret(name, value));
                changes.add(header_path(name, index), old, new, masked);
            }
        }
    }
}

/// Rows for the parameters when only they differ, else one row for the URL.
fn changed_url(changes: &mut Changes, current: &str, next: &str) {
    if url::before_query(current) == url::before_query(next)
        && let Some(rows) = changed_parameters(current, next)
    {
        changes.0.extend(rows.0);
        return;
    }
    let (old, new) = (url::masked(current), url::masked(next));
    let is_masked = old != current || new != next;
    changes.0.push(Change {
        path: "url".to_owned(),
        old: filled(&old).map(str::to_owned),
        new: Some(new),
        masked: is_masked,
    });
}

/// None when values alone do not tell the difference.
fn changed_parameters(current: &str, next: &str) -> Option<Changes> {
    let groups = |url| {
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in url::parameters(url) {
            groups.entry(name.to_owned()).or_default().push(value.unwrap_or_default().to_owned());
        }
        groups
    };
    let (old, new) = (groups(current), groups(next));
    let mut changes = Changes::default();
    for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
        let (old, new) = (old.get(name).map_or(&[][..], |v| v), new.get(name).map_or(&[][..], |v| v));
        for index in 0..old.len().max(new.len()) {
            let (old, new) = (old.get(index).map(String::as_str), new.get(index).map(String::as_str));
            if old != new {
                let masked = [old, new].into_iter().flatten().any(|value| is_secret(name, value));
                changes.add(parameter_path(name, index), old, new, masked);
            }
        }
    }
    changes.0.sort_by(|a, b| a.path.cmp(&b.path));
    (!changes.is_empty()).then_some(changes)
}
