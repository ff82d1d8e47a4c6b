//! What a template prints: Jinjava 2.x with nested interpretation off (D31), on an engine of our own.
//!
//! Hides the language. [`Template::compile`] finds every mistake an author can make before anything is sent (D29, T36);
//! [`Template::render`] prints, within limits that no template can get around ([`limits`], I8), for one of four kinds of
//! field ([`Mode`]). Data is never read as template text (T35). No message holds a data value.
//!
//! | Module | Job |
//! |---|---|
//! | `source`, `scanner` | a template and its snippets into one text, and that into text, outputs and tags |
//! | `tokens` | the inside of an output or tag into tokens |
//! | `parser`, `tags`, `expressions`, `names`, `growing`, `ast` | tags and expressions into a flat tree |
//! | `evaluator`, `nodes`, `macros`, `scopes`, `missing`, `page` | the tree into text |
//! | `values`, `containers`, `entries`, `traced` | values, lists and maps that change in place, and where a text comes from |
//! | `operators`, `filters`, `value_tests`, `functions` | what can be done with values |
//! | `decimal`, `dates`, `date_patterns`, `locales` | numbers without noise, moments and zones, and how dates are written |
//! | `methods`, `text_methods`, `utf16` | `x.method()`: Java's names, Java's positions in a text |
//! | `json_text`, `document` | JSON text into values: a context's only as far as it is looked into |
//! | `json_sites`, `url_sites` | how a value enters a JSON body or a URL without breaking it |
//! | [`limits`], `error` | what it may cost, and what is said when it is wrong |

mod ast;
mod containers;
mod date_patterns;
mod dates;
mod decimal;
mod document;
mod entries;
mod error;
mod evaluator;
mod expressions;
mod filters;
mod functions;
mod growing;
mod json_sites;
mod json_text;
pub mod limits;
mod locales;
mod macros;
mod methods;
mod missing;
mod names;
mod nodes;
mod operators;
mod page;
mod parser;
mod scanner;
mod scopes;
mod source;
mod tags;
#[cfg(test)]
mod tests;
mod text_methods;
mod tokens;
mod traced;
mod url_sites;
mod utf16;
mod value_tests;
mod values;

use std::sync::Arc;

pub use error::{ErrorCode, RenderError, RenderErrorKind, Skip, TemplateError, Unrendered};
pub use minijinja::Value;
pub use source::{Snippets, snippets_named};
pub(crate) use values::value_from_known_json_text;
pub use values::{headers_value, map_value, value_from_json, value_from_json_text};

use ast::{Ast, ExprKind, Node, Span, Tag};
use error::{Fault, Place, Problems};
use evaluator::Evaluator;
use limits::Meter;
use page::{Page, Written};
use source::Source;
use tokens::Token;

/// What the text is for. The field decides, not the author.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Text: values stand in it as they print.
    Text,
    /// Jinjava's bytes, as they are (`template_mode: EXACT`): also where it prints what it could not read, an insert or a
    /// tag that is never closed, and passes over an end without its beginning. Everywhere else they are refused.
    Exact,
    /// A JSON body: values are written so that data cannot break or change the document, and the result must parse (D07).
    Json,
    /// A URL: scheme, host and port are the author's own text (R073), inserts are percent-encoded. Whether the host may
    /// be called is judged by [`address`](crate::address), before and after rendering.
    Url,
    /// A header value: no control characters but the tab (O04), spaces and tabs around it are cut off (O05).
    Header,
}

/// What a missing path prints (D32). A value that is present and null is not missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnMissing {
    /// Nothing; `null` where a JSON value must stand.
    #[default]
    Empty,
    /// `null`, everywhere.
    Null,
    /// The render fails with [`RenderErrorKind::Missing`]. Asking is no use: `is defined`, `default`, conditions, `not`,
    /// `and` and all but the last operand of `or` may name what is missing.
    Fail,
}

/// A compiled template: made once, on save and when a snapshot is loaded; rendered from many threads.
pub struct Template {
    source: Source,
    mode: Mode,
    /// Absent where all of the source is printed as it is: most templates of headers are such.
    ast: Option<Box<Ast>>,
}

/// A name that a template takes from the context (or would, where a `set` in a branch may not have run), at its first
/// use. With it, business workflows refuse `customer` (R080).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootUse {
    /// The name.
    pub name: String,
    /// Line in the source, from 1.
    pub line: u32,
    /// Column in that line in characters, from 1.
    pub column: u32,
    /// The line, and a second line with a caret below the name.
    pub excerpt: String,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text, fit for the template's [`Mode`].
    pub text: String,
    /// Paths that were used and missing: names as the template has them, each once, at most
    /// [`MISSING_PATHS`](limits::MISSING_PATHS) (D32).
    pub missing: Vec<String>,
    /// What it cost, of [`STEPS`](limits::STEPS).
    pub steps: usize,
}

/// The names a template can use. Cheap to clone: clones share what they hold.
#[derive(Clone, Debug, Default)]
pub struct Context {
    names: Arc<Vec<(Box<str>, Value)>>,
    now: Option<i64>,
    steps: Option<usize>,
}

impl Context {
    /// A context without names.
    pub fn new() -> Context {
        Context::default()
    }

    /// Gives `name` a value, in place of the one it had. Values come from [`value_from_json_text`], [`value_from_json`],
    /// [`headers_value`] or `Value::from`; what a caller builds itself must be nested no deeper than [`VALUE_DEPTH`](limits::VALUE_DEPTH).
    pub fn set(&mut self, name: &str, value: Value) {
        let names = Arc::make_mut(&mut self.names);
        match names.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, place)) => *place = value,
            None => names.push((name.into(), value)),
        }
    }

    /// Says what time it is, in milliseconds since 1970, for the filters and functions that ask. Without it they fail: a
    /// template itself has no clock, so that the same context always prints the same.
    pub fn set_now(&mut self, milliseconds: i64) {
        self.now = Some(milliseconds);
    }

    /// Ends renders after this many steps, if that is less than [`STEPS`](limits::STEPS): for a caller that has no time
    /// for more and renders again elsewhere what has ended so. The templates of one request share them
    /// ([`request::render`](crate::request::render)).
    pub fn limit_steps(&mut self, steps: usize) {
        self.steps = Some(steps);
    }

    /// Takes what a render has cost from the steps that are left, where they are limited.
    pub(crate) fn use_steps(&mut self, steps: usize) {
        self.steps = self.steps.map(|left| left.saturating_sub(steps));
    }

    /// Steps that a render with it may do.
    fn steps_most(&self) -> usize {
        self.steps.unwrap_or(limits::STEPS).min(limits::STEPS)
    }

    fn get(&self, name: &str) -> Value {
        let found = self.names.iter().find(|(known, _)| **known == *name);
        found.map_or(Value::UNDEFINED, |(_, value)| value.clone())
    }
}

impl std::fmt::Debug for Template {
    /// The source says all; the tree would be pages.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Template").field("mode", &self.mode).field("source", &self.source).finish_non_exhaustive()
    }
}

impl Template {
    /// Reads a template that uses no snippets.
    ///
    /// # Errors
    /// As [`compile_with`](Self::compile_with).
    pub fn compile(source: &str, mode: Mode) -> Result<Template, Vec<TemplateError>> {
        Template::compile_with(source, mode, &Snippets::new())
    }

    /// Reads a template and the snippets it uses. A later change of a snippet needs a new compile; nothing is looked up
    /// when it is rendered.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the source (at most [`ERRORS`](limits::ERRORS)).
    pub fn compile_with(source: &str, mode: Mode, snippets: &Snippets) -> Result<Template, Vec<TemplateError>> {
        let mut problems = Problems::default();
        if source.len() > limits::SOURCE_BYTES {
            let message = format!("the template is longer than {} bytes", limits::SOURCE_BYTES);
            problems.add(ErrorCode::Limit, ast::Span::new(limits::SOURCE_BYTES, source.len()), message);
            return Err(problems.into_errors(&Source::of(source)));
        }
        let assembled = source::assemble(source, mode, snippets, &mut problems);
        let mut ast = parser::parse(&assembled, mode, &mut problems);
        let source = assembled.source;
        // Placement is judged on a tree that is whole; on what is left of a broken one it would only mislead.
        if problems.is_empty() {
            match mode {
                Mode::Json => json_sites::label(&mut ast, &source, &mut problems),
                Mode::Url => url_sites::check(&ast, &source, &mut problems),
                Mode::Text | Mode::Exact | Mode::Header => {}
            }
        }
        if !problems.is_empty() {
            return Err(problems.into_errors(&source));
        }
        let all = |length| Node::written(0, length).end as usize == source.text.len();
        let literal = matches!(ast.block(ast.root), [Node::Text { start: 0, length }] if all(*length));
        Ok(Template { source, mode, ast: (!literal).then(|| Box::new(ast)) })
    }

    /// Prints the template with what `context` holds.
    ///
    /// # Errors
    /// [`Unrendered::Skipped`] where the template says that nothing is to be sent (D19), else the first thing that went
    /// wrong; nothing may be sent then either.
    pub fn render(&self, context: &Context, on_missing: OnMissing) -> Result<Rendered, Unrendered> {
        let (result, missing, meter) = match &self.ast {
            Some(ast) => {
                let mut run = Evaluator::new(ast, &self.source, self.mode, context, on_missing);
                let result = run.block(ast.root);
                let Evaluator { page: Page { out, written, .. }, missing, meter, .. } = run;
                (result.and_then(|_| self.finished(out, &written)), missing, meter)
            }
            None => {
                let mut meter = Meter::new(context.steps_most());
                let result = meter.steps(1).and_then(|()| self.finished(self.source.text.to_string(), &[]));
                (result, Vec::new(), meter)
            }
        };
        match result {
            Ok(text) => Ok(Rendered { text, missing, steps: meter.done() }),
            Err(fault) => Err(fault.into_unrendered(&self.source)),
        }
    }

    /// Steps that a render does at most, apart from work on long values; [`STEPS`](limits::STEPS) where loops or macros
    /// leave that open. A step takes a few microseconds at most, one of a regular expression about fifteen, so that a caller
    /// can tell what may take long.
    pub fn steps_most(&self) -> usize {
        let Some(ast) = &self.ast else { return 1 };
        if ast.tags().iter().any(|tag| matches!(tag, Tag::For { .. } | Tag::Macro(_))) {
            return limits::STEPS;
        }
        let names =
            |expr: &ast::Expr| if let ExprKind::Path { names, .. } = expr.kind { usize::from(names) } else { 0 };
        ast.nodes.len() + ast.exprs.len() + ast.links_all().len() + ast.exprs.iter().map(names).sum::<usize>()
    }

    /// What the field asks of the whole text.
    fn finished(&self, text: String, written: &[Written]) -> Result<String, Box<Fault>> {
        match self.mode {
            Mode::Text | Mode::Exact => Ok(text),
            Mode::Json => json_sites::verify(&text, written).map(|()| text),
            Mode::Url => url_sites::verify(&text, written).map(|()| text),
            Mode::Header => header(&text, written),
        }
    }

    /// Whether the template is text only: no inserts and no tags.
    pub fn is_static(&self) -> bool {
        self.ast.as_ref().is_none_or(|ast| ast.block(ast.root).iter().all(|node| matches!(node, Node::Text { .. })))
    }

    /// The fields of the form that `{% context id %}`, `context.id` and `context["id"]` name, each once. An id that the schema does not have is refused by
    /// whoever knows the schema (D25).
    pub fn context_fields(&self) -> Vec<RootUse> {
        let fields = self.ast.iter().flat_map(|ast| ast.fields());
        fields.map(|at| self.told(self.field_at(*at), *at)).collect()
    }

    /// The field that is named there, as it is or in quotes.
    fn field_at(&self, at: Span) -> String {
        let tokens = tokens::tokenize(&self.source.text, at, &mut Problems::default()).unwrap_or_default();
        match tokens.into_iter().next() {
            Some((Token::Text(text), _)) => text.into_owned(),
            _ => at.text(&self.source.text).to_owned(),
        }
    }

    /// The names taken from the context, in the order of their first use.
    pub fn roots(&self) -> Vec<RootUse> {
        let used = |ast: &Ast, (name, at): &ast::Use| self.told(ast.name(*name, &self.source.text).to_owned(), *at);
        self.ast.iter().flat_map(|ast| ast.roots.iter().map(|root| used(ast, root))).collect()
    }

    /// Told to authors and to nobody else, so it is made when somebody asks.
    fn told(&self, name: String, at: Span) -> RootUse {
        let Place { line, column, excerpt, .. } = Place::of(&self.source, at);
        RootUse { name, line, column, excerpt }
    }
}

/// A header value, trimmed. Control characters are refused and never dropped: dropping them would change what is sent.
fn header(text: &str, written: &[Written]) -> Result<String, Box<Fault>> {
    let trimmed = text.trim_matches([' ', '\t']);
    let offset = text.len() - text.trim_start_matches([' ', '\t']).len();
    let Some(at) = trimmed.find(|c: char| c.is_control() && c != '\t') else { return Ok(trimmed.to_owned()) };
    let fault =
        Fault::new(RenderErrorKind::BadHeader, "a header value cannot hold line breaks or other control characters");
    let culprit = written.iter().find(|written| (written.start..written.end).contains(&(offset + at)));
    Err(match culprit {
        Some(written) => fault.or_inside(written.at),
        None => fault,
    })
}
