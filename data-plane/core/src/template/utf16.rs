//! Positions in a text as Java counts them: in UTF-16 units. Hides how they become places between characters; a position
//! inside a character counts as the one before it, so that no half characters exist.

/// How long a text is.
pub(super) fn length(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.encode_utf16().count() }
}

/// The part from `start` up to `end`, as far as the text goes.
pub(super) fn part(text: &str, start: usize, end: usize) -> &str {
    let start = byte(text, start);
    let end = byte(text, end).max(start);
    text.get(start..end).unwrap_or_default()
}

/// The position of a byte.
pub(super) fn position(text: &str, byte: usize) -> usize {
    text.get(..byte).map_or(0, length)
}

/// The byte at a position, or the end.
fn byte(text: &str, position: usize) -> usize {
    if text.is_ascii() {
        return position.min(text.len());
    }
    let mut units = 0;
    for (at, c) in text.char_indices() {
        units += c.len_utf16();
        if units > position {
            return at;
        }
    }
    text.len()
}
