//! Inserts in a text: `{{ … }}`, `{% … %}`, `{# … #}`. curl knows nothing of them; they are carried through whatever it
//! would do to the text around them. Hides where an insert ends.

/// A piece of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    /// What curl sees.
    Plain(&'t str),
    /// An insert, with its delimiters.
    Insert(&'t str),
}

/// The pieces in order; an insert that is never closed is plain text.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    // One that never ends makes the later ones of its kind plain text too: looking again would take quadratic time.
    let mut open = [false; 3];
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut from = 0;
        while let Some((start, kind)) = next_open(rest, from) {
            let length = if open.get(kind) == Some(&true) { None } else { insert_length(&rest[start..]) };
            match length {
                Some(length) if start == 0 => {
                    let (insert, behind) = rest.split_at(length);
                    rest = behind;
                    return Some(Piece::Insert(insert));
                }
                Some(_) => {
                    let (plain, behind) = rest.split_at(start);
                    rest = behind;
                    return Some(Piece::Plain(plain));
                }
                None => {
                    open.get_mut(kind).into_iter().for_each(|open| *open = true);
                    from = start + 1;
                }
            }
        }
        Some(Piece::Plain(std::mem::take(&mut rest)))
    })
}

const KINDS: [&str; 3] = ["{{", "{%", "{#"];

fn next_open(text: &str, from: usize) -> Option<(usize, usize)> {
    text.get(from..)?.match_indices('{').find_map(|(at, _)| {
        let behind = text.get(from + at..)?;
        KINDS.iter().position(|open| behind.starts_with(open)).map(|kind| (from + at, kind))
    })
}

/// How long the insert is that `text` begins with. Quotes hide its end, as in the template language.
fn insert_length(text: &str) -> Option<usize> {
    if text.starts_with("{#") {
        return text.find("#}").map(|at| at + 2);
    }
    let close = if text.starts_with("{{") { *b"}}" } else { *b"%}" };
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut at = 2;
    while let Some(byte) = bytes.get(at) {
        match (quote, byte) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if open == byte => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, byte) if *byte == close[0] && bytes.get(at + 1) == Some(&close[1]) => return Some(at + 2),
            (None, _) => {}
        }
        at += 1;
    }
    None
}

/// Whether there is an insert.
pub(super) fn is_in(text: &str) -> bool {
    pieces(text).any(|piece| matches!(piece, Piece::Insert(_)))
}

/// What stands before the first insert.
pub(super) fn literal_start(text: &str) -> &str {
    match pieces(text).next() {
        Some(Piece::Plain(plain)) => plain,
        Some(Piece::Insert(_)) | None => "",
    }
}

/// Where the first character outside inserts stands that `wanted` accepts.
pub(super) fn find_plain(text: &str, wanted: impl Fn(char) -> bool) -> Option<usize> {
    let mut start = 0;
    for piece in pieces(text) {
        match piece {
            Piece::Plain(plain) => match plain.find(&wanted) {
                Some(at) => return Some(start + at),
                None => start += plain.len(),
            },
            Piece::Insert(insert) => start += insert.len(),
        }
    }
    None
}

/// Splits at a character outside inserts, which is left out.
pub(super) fn split_plain(text: &str, separator: char) -> Option<(&str, &str)> {
    let at = find_plain(text, |c| c == separator)?;
    Some((text.get(..at)?, text.get(at + separator.len_utf8()..)?))
}

/// The parts between a character outside inserts.
pub(super) fn parts(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut at) = (0, 0);
    for piece in pieces(text) {
        match piece {
            Piece::Plain(plain) => {
                for (offset, _) in plain.match_indices(separator) {
                    parts.push(text.get(start..at + offset).unwrap_or_default());
                    start = at + offset + separator.len_utf8();
                }
                at += plain.len();
            }
            Piece::Insert(insert) => at += insert.len(),
        }
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inserts_end_where_the_template_language_ends_them() {
        let of = |text| pieces(text).collect::<Vec<_>>();
        use Piece::{Insert, Plain};
        assert_eq!(of("a{{ '}}' }}b"), [Plain("a"), Insert("{{ '}}' }}"), Plain("b")]);
        assert_eq!(of("{% if a %}{# ' #}x"), [Insert("{% if a %}"), Insert("{# ' #}"), Plain("x")]);
        assert_eq!(of("{{ a {% b %}"), [Plain("{{ a "), Insert("{% b %}")]);
        assert_eq!(of("{a}{"), [Plain("{a}{")]);
        assert_eq!(of(""), []);
    }

    #[test]
    fn plain_characters_are_found_outside_inserts() {
        assert_eq!(split_plain("{{ a ? 1 : 2 }}: v", ':'), Some(("{{ a ? 1 : 2 }}", " v")));
        assert_eq!(parts("a={{ '&' }}&b", '&'), ["a={{ '&' }}", "b"]);
        assert_eq!(parts("", '&'), [""]);
        assert_eq!(literal_start("https://a.example/{{ x }}"), "https://a.example/");
    }
}
