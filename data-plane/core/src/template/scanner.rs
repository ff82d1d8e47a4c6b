//! Source into pieces: text, `{{ … }}`, `{% … %}`. Hides delimiters, comments, `raw` and whitespace trimming.
//!
//! Rules that matter (they are Jinjava's): inside `{{` and `{%` a quote starts a string and a backslash skips one
//! character; comments do not nest; after `{% raw %}` only `{% endraw %}` ends it; only tags trim, and text pieces that a
//! comment separates are one piece for trimming. A `}}` that closes a dict inside an output is allowed.

use super::Mode;
use super::ast::Span;
use super::error::{ErrorCode, Problems};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(Span),
    /// `inner` is what stands between the delimiters and their trim marks.
    Output {
        inner: Span,
        at: Span,
    },
    Tag {
        inner: Span,
        at: Span,
    },
}

/// Splits a text that starts at `offset` of the source. Unclosed delimiters end the scan: they are reported, or
/// ([`Mode::Exact`]) are text with all that follows. An unclosed comment is a comment to the end then.
pub(super) fn scan(text: &str, offset: usize, mode: Mode, problems: &mut Problems) -> Vec<Piece> {
    let mut scanner = Scanner { source: text, at: 0, pieces: Vec::new(), trim_next: false };
    let moved = |span: Span| Span::new(span.start as usize + offset, span.end as usize + offset);
    if let Err((at, message)) = scanner.run() {
        // A 'raw' has been read, only its end is missing.
        let raw = scanner.at != at.start as usize;
        if mode == Mode::Exact && !raw {
            if !at.text(text).starts_with("{#") {
                scanner.text(scanner.at, text.len());
            }
        } else {
            problems.add(ErrorCode::Syntax, moved(at), message);
        }
    }
    let pieces = scanner.pieces.into_iter().map(|piece| match piece {
        Piece::Text(span) => Piece::Text(moved(span)),
        Piece::Output { inner, at } => Piece::Output { inner: moved(inner), at: moved(at) },
        Piece::Tag { inner, at } => Piece::Tag { inner: moved(inner), at: moved(at) },
    });
    pieces.collect()
}

struct Scanner<'s> {
    source: &'s str,
    at: usize,
    pieces: Vec<Piece>,
    /// A tag has asked for the whitespace that follows it to go.
    trim_next: bool,
}

type Unclosed = (Span, &'static str);

impl Scanner<'_> {
    fn run(&mut self) -> Result<(), Unclosed> {
        while let Some(open) = self.next_open() {
            self.text(self.at, open);
            self.at = open;
            match self.source.as_bytes()[open + 1] {
                b'#' => self.comment()?,
                b'{' => self.output()?,
                _ => self.tag()?,
            }
        }
        self.text(self.at, self.source.len());
        Ok(())
    }

    /// Where the next `{{`, `{%` or `{#` stands.
    fn next_open(&self) -> Option<usize> {
        let bytes = self.source.as_bytes();
        (self.at..bytes.len().saturating_sub(1))
            .find(|&i| bytes[i] == b'{' && matches!(bytes[i + 1], b'{' | b'%' | b'#'))
    }

    fn text(&mut self, start: usize, end: usize) {
        let mut text = &self.source[start..end];
        if self.trim_next {
            text = text.trim_start();
        }
        if !text.is_empty() {
            self.trim_next = false;
            self.pieces.push(Piece::Text(Span::new(end - text.len(), end)));
        }
    }

    /// Takes the whitespace before a `{%-` away, also across comments.
    fn trim_before(&mut self) {
        while let Some(Piece::Text(span)) = self.pieces.last_mut() {
            let kept = span.text(self.source).trim_end().len();
            if kept > 0 {
                span.end = span.start + kept as u32;
                return;
            }
            self.pieces.pop();
        }
    }

    fn comment(&mut self) -> Result<(), Unclosed> {
        match self.source[self.at + 2..].find("#}") {
            Some(length) => {
                self.at += 2 + length + 2;
                Ok(())
            }
            None => Err((Span::new(self.at, self.at + 2), "this comment is never closed: '#}' is missing")),
        }
    }

    fn output(&mut self) -> Result<(), Unclosed> {
        let open = self.at;
        let close = self.close(b'}').ok_or((
            Span::new(open, open + 2),
            "this '{{' is never closed: '}}' is missing, or a quote or bracket inside is left open",
        ))?;
        let (mut start, mut end) = (open + 2, close);
        // Trim marks on outputs do nothing (Jinjava 2.x trims around tags only), but `{{- x -}}` must still read as `x`.
        // `{{ -5 }}` and `{{-5}}` are numbers.
        let inner = &self.source[start..end];
        let marked = inner.strip_suffix('-').is_some();
        if marked {
            end -= 1;
        }
        if inner.starts_with('-') && end > start && (marked || inner[1..].starts_with(char::is_whitespace)) {
            start += 1;
        }
        self.trim_next = false;
        self.at = close + 2;
        self.pieces.push(Piece::Output { inner: Span::new(start, end), at: Span::new(open, close + 2) });
        Ok(())
    }

    fn tag(&mut self) -> Result<(), Unclosed> {
        let open = self.at;
        let close = self.close(b'%').ok_or((
            Span::new(open, open + 2),
            "this '{%' is never closed: '%}' is missing, or a quote inside is left open",
        ))?;
        let (mut start, mut end) = (open + 2, close);
        if self.source[start..end].starts_with('-') {
            start += 1;
            self.trim_before();
        }
        self.trim_next = false;
        if self.source[start..end].ends_with('-') {
            end -= 1;
            self.trim_next = true;
        }
        self.at = close + 2;
        if self.source[start..end].trim().eq_ignore_ascii_case("raw") {
            return self.raw(Span::new(open, close + 2));
        }
        self.pieces.push(Piece::Tag { inner: Span::new(start, end), at: Span::new(open, close + 2) });
        Ok(())
    }

    /// Everything up to `{% endraw %}` is text.
    fn raw(&mut self, opening: Span) -> Result<(), Unclosed> {
        let start = self.at;
        let mut from = start;
        while let Some(found) = self.source[from..].find("{%") {
            let open = from + found;
            let rest = &self.source[open + 2..];
            let inner = rest.strip_prefix('-').unwrap_or(rest).trim_start();
            if let Some(tail) = strip_prefix_ignore_case(inner, "endraw") {
                let tail = tail.trim_start();
                let marked = tail.strip_prefix('-');
                if let Some(after) = marked.unwrap_or(tail).strip_prefix("%}") {
                    self.text(start, open);
                    if rest.starts_with('-') {
                        self.trim_before();
                    }
                    self.trim_next = marked.is_some();
                    self.at = self.source.len() - after.len();
                    return Ok(());
                }
            }
            from = open + 2;
        }
        Err((opening, "this 'raw' is never closed: '{% endraw %}' is missing"))
    }

    /// Where the delimiter that starts with `mark` closes what opened at `self.at`.
    fn close(&self, mark: u8) -> Option<usize> {
        let bytes = self.source.as_bytes();
        let mut braces = 0usize;
        let mut quote = None;
        let mut i = self.at + 2;
        while i < bytes.len() {
            match (quote, bytes[i]) {
                (Some(_), b'\\') => i += 1,
                (Some(open), byte) if byte == open => quote = None,
                (Some(_), _) => {}
                (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
                (None, b'{') if mark == b'}' => braces += 1,
                (None, b'}') if mark == b'}' && braces > 0 => braces -= 1,
                (None, byte) if byte == mark && bytes.get(i + 1) == Some(&b'}') => return Some(i),
                (None, _) => {}
            }
            i += 1;
        }
        None
    }
}

fn strip_prefix_ignore_case<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}
