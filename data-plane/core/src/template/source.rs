//! The text a template is compiled from: its own, and behind it a copy of each snippet it uses, once for each use (F85,
//! D26). Hides how snippets are found before anything is parsed, so that one text holds all and nothing is parsed later.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Mode;
use super::ast::Span;
use super::error::{ErrorCode, Problems};
use super::limits;
use super::scanner::{self, Piece};

/// The snippets a template may use: texts by id. What `{% snippet id %}` names is read as if it stood in its place.
#[derive(Clone, Debug, Default)]
pub struct Snippets {
    texts: BTreeMap<Box<str>, Arc<str>>,
}

impl Snippets {
    /// No snippets.
    pub fn new() -> Snippets {
        Snippets::default()
    }

    /// Gives the snippet `id` a text, in place of the one it had.
    pub fn set(&mut self, id: &str, text: &str) {
        self.texts.insert(id.into(), text.into());
    }

    /// Whether the snippet `id` has a text.
    pub fn has(&self, id: &str) -> bool {
        self.texts.contains_key(id)
    }
}

/// The ids of the snippets that a text names itself, in order and each once.
pub fn snippets_named(text: &str) -> Vec<String> {
    // The mode does not change which tags there are, and what is wrong with the text is told when it is compiled.
    let pieces = scanner::scan(text, 0, Mode::Text, &mut Problems::default());
    let mut found: Vec<String> = Vec::new();
    for piece in pieces {
        let Piece::Tag { inner, .. } = piece else { continue };
        if let Some((id, _)) = named(text, inner).filter(|(id, _)| !found.iter().any(|known| known == id)) {
            found.push(id.to_owned());
        }
    }
    found
}

/// One text in the whole: the template's own, or one use of a snippet.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) start: usize,
    pub(super) end: usize,
    /// The id, if it is a snippet.
    pub(super) snippet: Option<Arc<str>>,
}

/// All texts in one, and where each snippet begins behind the template's own.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) text: Box<str>,
    snippets: Box<[Part]>,
}

impl Source {
    /// A source without snippets.
    pub(super) fn of(text: &str) -> Source {
        Source { text: text.into(), snippets: Box::default() }
    }

    /// The template's own text.
    pub(super) fn own(&self) -> Part {
        Part { start: 0, end: self.snippets.first().map_or(self.text.len(), |first| first.start), snippet: None }
    }

    /// The part in which an offset lies.
    pub(super) fn part(&self, offset: usize) -> Part {
        self.snippets.iter().rev().find(|part| part.start <= offset).cloned().unwrap_or_else(|| self.own())
    }

    /// Where the placeholder begins whose expression is there. Only what is no part of an expression stands between the two;
    /// and the first of several braces is where a placeholder begins.
    pub(super) fn opening(&self, at: Span) -> Span {
        let text = self.text.as_bytes();
        let opens = |at: &usize| matches!(text.get(*at..), Some([b'{', b'{' | b'%', ..]));
        let found = (0..=at.start as usize).rev().find(opens).unwrap_or(at.start as usize);
        let braces = text[..found].iter().rev().take_while(|byte| **byte == b'{').count();
        let is_output = text.get(found + 1) == Some(&b'{');
        let start = if is_output { found - braces } else { found };
        Span::new(start, start)
    }

    /// What it takes beside itself.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.text.len() + size_of_val(&*self.snippets)
    }
}

/// A source that is ready to be parsed.
pub(super) struct Assembled {
    pub(super) source: Source,
    /// The pieces of each part.
    pub(super) pieces: Vec<Vec<Piece>>,
    /// The part that stands for the snippet tag at an offset.
    pub(super) uses: HashMap<u32, usize>,
}

/// Puts a template and the snippets it uses together, and cuts them into pieces.
pub(super) fn assemble(text: &str, mode: Mode, snippets: &Snippets, problems: &mut Problems) -> Assembled {
    let mut whole = text.to_owned();
    let mut parts = vec![Part { start: 0, end: text.len(), snippet: None }];
    let mut around: Vec<Option<usize>> = vec![None];
    let (mut pieces, mut uses) = (Vec::new(), HashMap::new());
    while let Some(part) = parts.get(pieces.len()) {
        let found = scanner::scan(&whole[part.start..part.end], part.start, mode, problems);
        for piece in &found {
            let Piece::Tag { inner, at } = piece else { continue };
            let Some((id, id_at)) = named(&whole, *inner) else { continue };
            let (id, user) = (id.to_owned(), pieces.len());
            let Some(text) = snippets.texts.get(&*id) else {
                let known: Vec<&str> = snippets.texts.keys().map(|id| &**id).collect();
                problems.unknown(ErrorCode::UnknownSnippet, id_at, "snippet", &id, &known);
                continue;
            };
            let mut chain = std::iter::successors(Some(user), |part| around.get(*part).copied().flatten());
            if chain.clone().any(|part| parts[part].snippet.as_deref() == Some(&*id)) {
                problems.add(ErrorCode::Syntax, id_at, format!("the snippet '{id}' uses itself"));
            } else if chain.nth(limits::SNIPPET_DEPTH).is_some() {
                let message = format!("snippets use each other deeper than {}", limits::SNIPPET_DEPTH);
                problems.add(ErrorCode::Limit, id_at, message);
            } else if whole.len() + text.len() > limits::SOURCE_BYTES_WITH_SNIPPETS {
                let most = limits::SOURCE_BYTES_WITH_SNIPPETS;
                problems.add(
                    ErrorCode::Limit,
                    id_at,
                    format!("with its snippets the template is longer than {most} bytes"),
                );
            } else {
                uses.insert(at.start, parts.len());
                parts.push(Part { start: whole.len(), end: whole.len() + text.len(), snippet: Some(id.into()) });
                around.push(Some(user));
                whole.push_str(text);
            }
        }
        pieces.push(found);
    }
    Assembled { source: Source { text: whole.into(), snippets: parts.split_off(1).into() }, pieces, uses }
}

/// The id in `snippet id` or `snippetvar id=id`, quoted or not.
fn named(source: &str, inner: Span) -> Option<(&str, Span)> {
    let text = inner.text(source);
    let tag = text.trim_start();
    let length = tag.find(char::is_whitespace)?;
    let (name, rest) = tag.split_at(length);
    let mut id = rest.trim();
    if name.eq_ignore_ascii_case("snippetvar") {
        id = id.strip_prefix("id")?.trim_start().strip_prefix('=')?.trim_start();
    } else if !name.eq_ignore_ascii_case("snippet") {
        return None;
    }
    for quote in ['"', '\''] {
        id = id.strip_prefix(quote).and_then(|id| id.strip_suffix(quote)).unwrap_or(id);
    }
    let start = inner.start as usize + (id.as_ptr() as usize - text.as_ptr() as usize);
    (!id.is_empty()).then_some((id, Span::new(start, start + id.len())))
}
