//! URLs whose host data cannot choose and whose path data cannot climb (R073, S53–S56). Hides how inserts are encoded:
//! percent-encoding of everything but unreserved characters is right in a path segment and in a query alike.

use minijinja::Value;

use super::ast::{Ast, Node, Span};
use super::error::{ErrorCode, Fault, Problems, RenderErrorKind};
use super::page::Written;
use super::source::Source;
use super::traced::Origin;
use super::values::{self, TooLong};

/// Refuses a template whose scheme, host or port are not one piece of its own text: whatever stands in between, even a
/// comment, would leave a reader with another host than a parser (R073, D20).
pub(super) fn check(ast: &Ast, source: &Source, problems: &mut Problems) {
    let whole = source.own().end;
    let first = match ast.block(ast.root).first() {
        Some(Node::Text { start: 0, length }) => Node::written(0, *length).text(&source.text),
        _ => "",
    };
    if first.len() < whole && !has_whole_authority(first) {
        let message = "scheme, host and port must be plain text: 'https://', the host and a '/', '?' or '#' are \
                       expected before the first insert, tag or comment";
        problems.add(ErrorCode::TemplatedAuthority, Span::new(first.len(), first.len()), message);
    }
}

fn has_whole_authority(prefix: &str) -> bool {
    let Some((scheme, rest)) = prefix.split_at_checked("https://".len()) else { return false };
    let Some(length) = rest.find(['/', '?', '#']) else { return false };
    let authority = &rest[..length];
    scheme.eq_ignore_ascii_case("https://")
        && !authority.is_empty()
        && !authority.contains(|c: char| c == '\\' || c.is_whitespace() || c.is_control())
}

/// Writes one output. The author's own text and what is encoded already stay as they are.
pub(super) fn encode(value: &Value, origin: Origin, cap: usize, out: &mut String) -> Result<(), TooLong> {
    if matches!(origin, Origin::Author | Origin::Safe | Origin::UrlEncoded) {
        return values::print(value, cap, out);
    }
    let text = values::display(value, cap)?;
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => push_percent(byte, out),
        }
    }
    Ok(())
}

pub(super) fn push_percent(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// Refuses characters that readers of URLs drop or read as something else, and inserts that make a path climb.
pub(super) fn verify(url: &str, written: &[Written]) -> Result<(), Box<Fault>> {
    if let Some(at) = url.bytes().position(|byte| byte <= b' ' || byte == 0x7f || byte == b'\\') {
        let fault = Fault::new(RenderErrorKind::BadUrl, "a URL cannot hold spaces, control characters or backslashes");
        return Err(blame(fault, written.iter().find(|written| written.start <= at && at < written.end)));
    }
    let path_start =
        "https://".len() + url.get("https://".len()..).and_then(|rest| rest.find('/')).unwrap_or(url.len());
    let path_end = url.find(['?', '#']).unwrap_or(url.len());
    let mut start = path_start;
    for segment in url.get(path_start..path_end).unwrap_or_default().split('/') {
        let end = start + segment.len();
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        if plain == "." || plain == ".." {
            // Readers of URLs resolve `%2e%2e` like `..`, so that there is no way to write this one down.
            if let Some(culprit) = written.iter().find(|written| written.start <= end && start <= written.end) {
                let fault = Fault::new(RenderErrorKind::BadUrl, "this insert makes '.' or '..' of a path segment");
                return Err(blame(fault, Some(culprit)));
            }
        }
        start = end + 1;
    }
    Ok(())
}

fn blame(fault: Box<Fault>, culprit: Option<&Written>) -> Box<Fault> {
    match culprit {
        Some(written) => fault.or_inside(written.at),
        None => fault,
    }
}
