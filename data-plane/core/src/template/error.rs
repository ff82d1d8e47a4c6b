//! What is wrong, and where. Hides how a place in the source becomes a line, a column and a marked excerpt, and how the
//! nearest known name is found. No message ever holds a data value (I7): only names and text of the template itself.

use super::ast::Span;
use super::source::{Part, Source};

/// Why a template was refused (D29). Closed: every value is part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The text is not of the language.
    Syntax,
    /// A tag nobody knows.
    UnknownTag,
    /// A filter nobody knows (T36).
    UnknownFilter,
    /// A test (`is …`) nobody knows.
    UnknownTest,
    /// A function or method nobody knows.
    UnknownFunction,
    /// A tag of the dialect that has no data source here, or that is off by design (D03).
    UnsupportedTag,
    /// A snippet that was not given (D26).
    UnknownSnippet,
    /// A JSON body whose placeholder cannot be placed inside or outside of a string (D07).
    JsonSite,
    /// An insert inside scheme, host or port of a URL (R073).
    TemplatedAuthority,
    /// Too long or too complex (I8).
    Limit,
}

impl ErrorCode {
    /// The code as refusals carry it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Syntax => "SYNTAX",
            Self::UnknownTag => "UNKNOWN_TAG",
            Self::UnknownFilter => "UNKNOWN_FILTER",
            Self::UnknownTest => "UNKNOWN_TEST",
            Self::UnknownFunction => "UNKNOWN_FUNCTION",
            Self::UnsupportedTag => "UNSUPPORTED_TAG",
            Self::UnknownSnippet => "UNKNOWN_SNIPPET",
            Self::JsonSite => "JSON_SITE",
            Self::TemplatedAuthority => "TEMPLATED_AUTHORITY",
            Self::Limit => "LIMIT",
        }
    }
}

/// One reason why a template was refused on save.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// Which rule was broken.
    pub code: ErrorCode,
    /// For the author.
    pub message: String,
    /// Line in the source, from 1.
    pub line: u32,
    /// Column in that line in characters, from 1.
    pub column: u32,
    /// The line, and a second line with a caret below the place.
    pub excerpt: String,
}

impl RenderErrorKind {
    /// The code as refusals carry it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Eval => "RENDER_ERROR",
            Self::InvalidJson => "RENDER_INVALID_JSON",
            Self::BadHeader => "RENDER_BAD_HEADER",
            Self::BadUrl => "RENDER_BAD_URL",
            Self::Missing => "RENDER_MISSING",
            Self::Limit => "RENDER_LIMIT",
        }
    }
}

/// Why a render ended without a result. Closed: every value is part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RenderErrorKind {
    /// An operation did not accept its operands.
    Eval,
    /// The body did not come out as JSON (D07).
    InvalidJson,
    /// A header value holds a control character (O04).
    BadHeader,
    /// A URL holds a character it cannot hold, or a path that climbs (S50, S55).
    BadUrl,
    /// A path was missing and [`OnMissing::Fail`](super::OnMissing::Fail) was asked for (D32).
    Missing,
    /// A limit of [`limits`](super::limits) was reached (I8).
    Limit,
}

/// Why a render ended without a result. Holds no data values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderError {
    /// What went wrong.
    pub kind: RenderErrorKind,
    /// For the author.
    pub message: String,
    /// Line in the source, from 1.
    pub line: u32,
    /// Column in that line in characters, from 1.
    pub column: u32,
    /// The line, and a second line with a caret below the place.
    pub excerpt: String,
}

/// The template has said that nothing is to be sent (D19): `{% kill %}`, or `{% customer x %}` with x missing (F81, F88).
/// That is an outcome of its own, no failure, and not retried. Holds no data values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// Which tag has said it, and why.
    pub reason: String,
    /// Line in the source, from 1.
    pub line: u32,
    /// Column in that line in characters, from 1.
    pub column: u32,
    /// The line, and a second line with a caret below the tag.
    pub excerpt: String,
}

/// Why there is no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unrendered {
    /// Nothing is to be sent, and nothing is wrong.
    Skipped(Skip),
    /// Something is wrong; nothing may be sent.
    Failed(RenderError),
}

impl Unrendered {
    /// For where a template cannot say that nothing is to be sent: that is a failure there.
    pub fn into_error(self) -> RenderError {
        match self {
            Unrendered::Failed(error) => error,
            Unrendered::Skipped(Skip { reason, line, column, excerpt }) => {
                RenderError { kind: RenderErrorKind::Eval, message: reason, line, column, excerpt }
            }
        }
    }
}

impl std::fmt::Display for Unrendered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unrendered::Skipped(skip) => {
                write!(f, "{} at {}:{}\n{}", skip.reason, skip.line, skip.column, skip.excerpt)
            }
            Unrendered::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Unrendered {}

impl std::fmt::Display for TemplateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}:{}\n{}", self.message, self.line, self.column, self.excerpt)
    }
}

impl std::error::Error for TemplateError {}

impl std::fmt::Display for RenderError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}:{}\n{}", self.message, self.line, self.column, self.excerpt)
    }
}

impl std::error::Error for RenderError {}

/// Why a render ended before its time, before its place is known in lines. Boxed wherever it travels, so that the
/// evaluator's frames stay small.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: RenderErrorKind,
    pub(super) message: String,
    pub(super) at: Option<Span>,
    /// The place is the expression of the placeholder that is wrong.
    inside: bool,
    /// Nothing is wrong: the template has said that nothing is to be sent (D19).
    skips: bool,
}

impl Fault {
    pub(super) fn new(kind: RenderErrorKind, message: impl Into<String>) -> Box<Fault> {
        Box::new(Fault { kind, message: message.into(), at: None, inside: false, skips: false })
    }

    pub(super) fn eval(message: impl Into<String>) -> Box<Fault> {
        Fault::new(RenderErrorKind::Eval, message)
    }

    pub(super) fn skip(at: Span, message: impl Into<String>) -> Box<Fault> {
        Box::new(Fault {
            kind: RenderErrorKind::Eval,
            message: message.into(),
            at: Some(at),
            inside: false,
            skips: true,
        })
    }

    /// The fault with a place, unless something further in has already given one.
    pub(super) fn or_at(mut self: Box<Fault>, at: Span) -> Box<Fault> {
        self.at.get_or_insert(at);
        self
    }

    /// The fault with the placeholder whose expression is there as its place.
    pub(super) fn or_inside(mut self: Box<Fault>, at: Span) -> Box<Fault> {
        self.inside |= self.at.is_none();
        self.or_at(at)
    }

    pub(super) fn into_unrendered(self, source: &Source) -> Unrendered {
        let at = self.at.unwrap_or_default();
        let place = Place::of(source, if self.inside { source.opening(at) } else { at });
        let Place { line, column, excerpt, .. } = place;
        let message = shown(place.snippet.as_deref(), self.message);
        if self.skips {
            return Unrendered::Skipped(Skip { reason: message, line, column, excerpt });
        }
        Unrendered::Failed(RenderError { kind: self.kind, message, line, column, excerpt })
    }
}

/// The message as it is told: with the snippet it is about, on one line. Names in it are somebody's choice, and go to
/// terminals and logs (T27).
fn shown(snippet: Option<&str>, message: String) -> String {
    let message = snippet.map_or(message.clone(), |id| format!("in the snippet '{id}': {message}"));
    message.chars().map(plain).collect()
}

fn plain(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

/// A place in the source as people read it.
pub(super) struct Place {
    /// The snippet it is in.
    pub(super) snippet: Option<std::sync::Arc<str>>,
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) excerpt: String,
}

/// How much of a long line an excerpt shows on each side of the place, in characters.
const EXCERPT_REACH: usize = 60;

impl Place {
    pub(super) fn of(source: &Source, at: Span) -> Place {
        let Part { start, end, snippet } = source.part(at.start as usize);
        let (at, source) = (at.start as usize - start, &source.text[start..end]);
        let start = source.floor_char_boundary(at.min(source.len()));
        let line_start = source[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = source[start..].find('\n').map_or(source.len(), |newline| start + newline);
        let before = &source[line_start..start];
        let shown = before.char_indices().rev().nth(EXCERPT_REACH - 1).map_or(0, |(at, _)| at);
        let mut excerpt = String::from(if shown > 0 { "…" } else { "" });
        // Tabs and other controls become spaces: the caret must stand below its place.
        excerpt.extend(before[shown..].chars().map(plain));
        let caret = excerpt.chars().count();
        excerpt.extend(source[start..line_end].chars().take(EXCERPT_REACH).map(plain));
        excerpt.push('\n');
        excerpt.extend(std::iter::repeat_n(' ', caret));
        excerpt.push('^');
        let line = source[..line_start].matches('\n').count() + 1;
        Place { snippet, line: line as u32, column: before.chars().count() as u32 + 1, excerpt }
    }
}

/// Everything wrong with one source, as it is found.
#[derive(Default)]
pub(super) struct Problems {
    found: Vec<(ErrorCode, Span, String)>,
}

impl Problems {
    pub(super) fn add(&mut self, code: ErrorCode, at: Span, message: impl Into<String>) {
        if self.found.len() < super::limits::ERRORS {
            self.found.push((code, at, message.into()));
        }
    }

    /// Adds an unknown name with the nearest known one as a hint.
    pub(super) fn unknown(&mut self, code: ErrorCode, at: Span, kind: &str, name: &str, known: &[&str]) {
        if self.found.len() == super::limits::ERRORS {
            return;
        }
        let hint = nearest(name, known).map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
        self.add(code, at, format!("unknown {kind} '{name}'{hint}"));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All problems in the order of the source; those in snippets come last.
    pub(super) fn into_errors(mut self, source: &Source) -> Vec<TemplateError> {
        self.found.sort_by_key(|(_, at, _)| at.start);
        let error = |(code, at, message): (ErrorCode, Span, String)| {
            let Place { snippet, line, column, excerpt } = Place::of(source, at);
            let message = shown(snippet.as_deref(), message);
            TemplateError { code, message, line, column, excerpt }
        };
        self.found.into_iter().map(error).collect()
    }
}

/// The known name closest to `name`, if one is close enough to be what was meant.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let name: Vec<char> = name.chars().take(40).flat_map(char::to_lowercase).collect();
    let allowed = (name.len() / 3).clamp(1, 3);
    known
        .iter()
        .map(|candidate| (distance(&name, &candidate.to_lowercase().chars().collect::<Vec<_>>()), *candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace) between two names.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
