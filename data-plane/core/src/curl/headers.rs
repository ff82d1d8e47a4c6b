//! Values of `-H` as curl reads them: some set a header, some remove one of curl's own, some do nothing.

use super::markup;
use super::refusal::Reason;
use crate::request::is_token;

/// One value of `-H`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'t> {
    /// `Name: value`, and `Name;` for an empty value; name and value trimmed.
    Sets { name: &'t str, value: &'t str },
    /// `Name:` takes curl's own header of that name away.
    Removes { name: &'t str },
    /// Without colon: curl ignores it.
    Nothing,
}

const BLANKS: [char; 2] = [' ', '\t'];

/// Reads one value of `-H`.
pub(super) fn read(line: &str) -> Result<Line<'_>, Reason> {
    if line.starts_with('@') {
        return Err(Reason::ReadsFile);
    }
    if has_control(line) {
        return Err(Reason::HeaderControl);
    }
    let Some((name, value)) = markup::split_plain(line, ':') else {
        return match line.strip_suffix(';') {
            Some(name) if !name.is_empty() && markup::find_plain(name, |c| c == ';').is_none() => {
                Ok(Line::Sets { name: checked_name(name)?, value: "" })
            }
            _ => Ok(Line::Nothing),
        };
    };
    let name = checked_name(name)?;
    match value.trim_matches(BLANKS) {
        "" => Ok(Line::Removes { name }),
        value => Ok(Line::Sets { name, value }),
    }
}

/// Line breaks would go out raw and begin another header.
pub(super) fn has_control(text: &str) -> bool {
    markup::find_plain(text, |c| c.is_control() && c != '\t').is_some()
}

/// Blanks between name and colon are left out; before the name they would continue the line before.
fn checked_name(name: &str) -> Result<&str, Reason> {
    let trimmed = name.trim_end_matches(BLANKS);
    if is_name(trimmed) { Ok(trimmed) } else { Err(Reason::HeaderControl) }
}

/// Whether `name` is a token, or can become one when its inserts are filled in.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |text: &str| is_token(text);
    if markup::is_in(name) {
        markup::pieces(name).all(|piece| match piece {
            markup::Piece::Plain(text) => plain(text),
            markup::Piece::Insert(_) => true,
        })
    } else {
        plain(name)
    }
}

/// The name that keeps curl from adding its own header: any line that begins with it does.
pub(super) fn takes_the_place_of(line: &str) -> &str {
    line.split([':', ';']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let sets = |name, value| Ok(Line::Sets { name, value });
        assert_eq!(read("A: b: c "), sets("A", "b: c"));
        assert_eq!(read("A;"), sets("A", ""));
        assert_eq!(read("A:  "), Ok(Line::Removes { name: "A" }));
        for nothing in ["", "A", "A;b", "A; ", ";", "A;;", "-X"] {
            assert_eq!(read(nothing), Ok(Line::Nothing), "{nothing:?}");
        }
        assert_eq!(read("{{ a ? ';' : 'b' }}: {{ c\n}}"), sets("{{ a ? ';' : 'b' }}", "{{ c\n}}"));
        for bad in ["A: b\r\nC: d", ": x", " A: 1", "X A: 1", "A: \0", "ä: 1", "@{{ x }}: 1"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
