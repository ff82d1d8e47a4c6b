//! JSON bodies that data cannot break (D07). Hides how a placeholder's place in the document is found from the
//! template's own text, how a value is written there, and how a document that is no JSON is traced to its placeholder.

use minijinja::Value;
use serde::de::IgnoredAny;

use super::ast::{Ast, BlockId, Compound, ExprId, ExprKind, Link, Node, Site, Span, Tag, TagId};
use super::dates;
use super::error::{ErrorCode, Fault, Problems, RenderErrorKind};
use super::filters::Filter;
use super::page::Written;
use super::source::Source;
use super::traced::Origin;
use super::values::{self, TooLong, as_bool, is_null, number};

/// What a JSON reader knows after some text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Outside,
    InString,
    /// Inside of a string, after a backslash.
    Escape,
}

impl State {
    fn after(self, text: &str) -> State {
        text.bytes().fold(self, |state, byte| match (state, byte) {
            (State::Outside, b'"') => State::InString,
            (State::InString, b'"') => State::Outside,
            (State::InString, b'\\') => State::Escape,
            (State::Escape, _) => State::InString,
            (state, _) => state,
        })
    }
}

/// Labels every output of a JSON template, or reports where that cannot be done.
pub(super) fn label(ast: &mut Ast, source: &Source, problems: &mut Problems) {
    let root = ast.root;
    let mut labels = Labels { ast, source, problems, loops: Vec::new() };
    let end = labels.block(root, State::Outside);
    if end != State::Outside {
        let end = source.own().end;
        let message = "the body ends inside of a JSON string: a '\"' is missing";
        labels.problems.add(ErrorCode::JsonSite, Span::new(end, end), message);
    }
}

struct Labels<'l> {
    ast: &'l mut Ast,
    source: &'l Source,
    problems: &'l mut Problems,
    /// What holds at the start of each loop that is open.
    loops: Vec<State>,
}

impl Labels<'_> {
    /// Recurses once for each level of tags, which are limited. What prints into a text of its own stays unlabelled: the
    /// text is written as a whole where it is used.
    fn block(&mut self, id: BlockId, mut state: State) -> State {
        let (first, end) = self.ast.blocks[id.0 as usize];
        for at in first as usize..end as usize {
            match self.ast.nodes[at] {
                Node::Text { start, length } => {
                    state = state.after(Node::written(start, length).text(&self.source.text));
                }
                Node::Output { expr, .. } => {
                    let site = self.site(state, self.ast.expr(expr).at);
                    self.ast.nodes[at] = Node::Output { expr, site };
                    self.output(expr, site, at, id);
                }
                Node::Tag(tag) => state = self.tag(tag, state),
            }
        }
        state
    }

    #[inline(never)]
    fn output(&mut self, expr: ExprId, site: Site, at: usize, block: BlockId) {
        if site == Site::JsonString {
            self.joined(expr, Filter::inside_string);
        } else if self.is_alone_in_list(at, block) {
            self.joined(expr, Filter::in_list);
        }
    }

    /// `[{{ ids|join(",") }}]`: between `[` and `]`, where several values may stand.
    fn is_alone_in_list(&self, at: usize, block: BlockId) -> bool {
        let (first, end) = self.ast.blocks[block.0 as usize];
        let text = |at: Option<usize>| {
            let at = at.filter(|at| (first as usize..end as usize).contains(at))?;
            let Node::Text { start, length } = self.ast.nodes[at] else { return None };
            Some(Node::written(start, length).text(&self.source.text))
        };
        let before = text(at.checked_sub(1)).is_some_and(|text| text.trim_end().ends_with('['));
        before && text(at.checked_add(1)).is_some_and(|text| text.trim_start().starts_with(']'))
    }

    /// `["{{ ids|join('","') }}"]`: what is joined inside of a string is encoded item by item, so that what the author
    /// puts between the items may close one string and open the next (T10). `becomes` says what the join is there.
    fn joined(&mut self, expr: ExprId, becomes: fn(Filter) -> Filter) {
        let ExprKind::Compound(compound) = self.ast.expr(expr).kind else { return };
        match *self.ast.compound(compound) {
            Compound::Postfix { first, count, .. } => {
                let last = first as usize + usize::from(count) - 1;
                if let Some(Link::Filter { filter, .. }) = self.ast.link_mut(last) {
                    *filter = becomes(*filter);
                }
            }
            Compound::Choice { then, otherwise, .. } => {
                self.joined(then, becomes);
                if let Some(otherwise) = otherwise {
                    self.joined(otherwise, becomes);
                }
            }
            _ => {}
        }
    }

    fn tag(&mut self, id: TagId, state: State) -> State {
        match self.ast.tag(id) {
            Tag::Cycle { name: None, at, .. } | Tag::Call { at, .. } => {
                let here = self.site(state, *at);
                if let Some(Tag::Cycle { site, .. } | Tag::Call { site, .. }) = self.ast.tag_mut(id) {
                    *site = here;
                }
            }
            Tag::If { .. } => return self.branches(id, state),
            Tag::For { body, at, .. } => {
                let (body, at) = (*body, *at);
                self.loops.push(state);
                self.body("for", body, at, state);
                self.loops.pop();
            }
            Tag::IfChanged { body, at, .. } => self.body("ifchanged", *body, *at, state),
            Tag::AutoEscape { body, .. } | Tag::With { body, .. } => return self.block(*body, state),
            Tag::Break(at) | Tag::Continue(at) => self.leaves_loop(*at, state),
            Tag::Set { .. }
            | Tag::SetBlock(_)
            | Tag::Do(_)
            | Tag::DoBlock(_)
            | Tag::Cycle { .. }
            | Tag::Macro(_)
            | Tag::Kill(_) => {}
        }
        state
    }

    fn leaves_loop(&mut self, at: Span, state: State) {
        if self.loops.last().is_some_and(|start| *start != state) {
            let message = "the loop must be left as its body starts: inside or outside of a JSON string";
            self.problems.add(ErrorCode::JsonSite, at, message);
        }
    }

    fn site(&mut self, state: State, at: Span) -> Site {
        match state {
            State::Outside => Site::JsonValue,
            State::InString => Site::JsonString,
            State::Escape => {
                let message = "a placeholder directly after a backslash: what it prints would be read as an escape";
                self.problems.add(ErrorCode::JsonSite, self.source.opening(at), message);
                Site::JsonString
            }
        }
    }

    #[inline(never)]
    fn branches(&mut self, id: TagId, start: State) -> State {
        let Tag::If { arms, otherwise, at } = self.ast.tag(id) else { return start };
        let bodies: Vec<BlockId> = arms.iter().map(|(_, body)| *body).chain(*otherwise).collect();
        // Without an `else` there is one branch more, which prints nothing.
        let (one_more, at) = (otherwise.is_none(), *at);
        let mut end = None;
        let mut same = true;
        for body in bodies {
            let state = self.block(body, start);
            same &= *end.get_or_insert(state) == state;
        }
        let end = end.unwrap_or(start);
        if !same || one_more && end != start {
            let message = "the branches of this 'if' open or close a JSON string differently";
            self.problems.add(ErrorCode::JsonSite, at, message);
        }
        end
    }

    #[inline(never)]
    fn body(&mut self, tag: &str, body: BlockId, at: Span, start: State) {
        if self.block(body, start) != start {
            let message = format!("the body of this '{tag}' must end as it starts: inside or outside of a JSON string");
            self.problems.add(ErrorCode::JsonSite, at, message);
        }
    }
}

/// Writes one output, at most `cap` bytes of it.
pub(super) fn encode(
    site: Site,
    value: &Value,
    origin: Origin,
    cap: usize,
    out: &mut String,
) -> Result<(), Box<Fault>> {
    let start = out.len();
    let done =
        if site == Site::JsonString { in_string(value, origin, cap, out) } else { in_value(value, origin, cap, out) };
    let as_is = done.map_err(|TooLong| super::limits::over("bytes of output", super::limits::OUTPUT_BYTES))?;
    let border = if site == Site::JsonString { State::InString } else { State::Outside };
    // Text that is written as it is must not move the border between inside and outside, on which the labels of
    // everything after it rest.
    if as_is && border.after(out.get(start..).unwrap_or_default()) != border {
        let message = "the output of this placeholder opens or closes a JSON string";
        return Err(Fault::new(RenderErrorKind::InvalidJson, message));
    }
    Ok(())
}

/// Says whether anything was written as it is, without being escaped here.
fn in_string(value: &Value, origin: Origin, cap: usize, out: &mut String) -> Result<bool, TooLong> {
    if is_null(value) {
        return Ok(false);
    }
    let scalar =
        value.as_str().is_some() || as_bool(value).is_some() || number(value).is_some() || dates::date(value).is_some();
    let made;
    let text = match value.as_str() {
        Some(text) if text.len() > cap => return Err(TooLong),
        Some(text) => text,
        None => {
            made = if scalar { values::display(value, cap)? } else { values::to_json(value, cap)? };
            &made
        }
    };
    let origin = if scalar || origin == Origin::Safe { origin } else { Origin::Data };
    let as_is = is_content(text, origin);
    if as_is {
        out.push_str(text);
    } else {
        values::write_json_content(text, out);
    }
    Ok(as_is)
}

/// Whether a text may be written inside of a string as it is.
fn is_content(text: &str, origin: Origin) -> bool {
    match origin {
        Origin::Safe => true,
        Origin::Author | Origin::JsonContent => is_string_content(text),
        Origin::Data | Origin::Json | Origin::UrlEncoded => false,
    }
}

/// The text as it must be written inside of a string, unless that is as it is.
pub(super) fn content(text: &str, origin: Origin) -> Option<String> {
    if is_content(text, origin) {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    values::write_json_content(text, &mut out);
    Some(out)
}

/// What stands between two items inside of a string: the author's may close one string and open the next.
pub(super) fn separator(text: &str, origin: Origin) -> Option<String> {
    let between = origin == Origin::Author && is_json_tokens(&format!("\"{text}\""));
    if between { None } else { content(text, origin) }
}

fn in_value(value: &Value, origin: Origin, cap: usize, out: &mut String) -> Result<bool, TooLong> {
    let Some(text) = value.as_str() else {
        if !(value.is_undefined() && origin == Origin::Author) {
            values::print_json(value, cap, out)?;
        }
        return Ok(false);
    };
    if text.len() > cap {
        return Err(TooLong);
    }
    match origin {
        Origin::Safe | Origin::Json => out.push_str(text),
        Origin::Author if is_json_tokens(text) => out.push_str(text),
        Origin::JsonContent if is_string_content(text) => {
            out.push('"');
            out.push_str(text);
            out.push('"');
        }
        Origin::Data | Origin::UrlEncoded if is_scalar(text) => out.push_str(text),
        _ => {
            values::write_json_string(text, out);
            return Ok(false);
        }
    }
    Ok(true)
}

/// The text between the quotes of a valid JSON string.
fn is_string_content(text: &str) -> bool {
    let plain = !text.bytes().any(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
    plain || serde_json::from_str::<IgnoredAny>(&format!("\"{text}\"")).is_ok()
}

/// Pieces of JSON, whole each of them: `,`, `"x"`, `{"a":`. The author writes structure with them; any other text of the
/// author's (`n/a`) can only be meant as a value, and is quoted like data.
fn is_json_tokens(text: &str) -> bool {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r', ',', ':', '[', ']', '{', '}']);
        let length = match rest.strip_prefix('"') {
            Some(inner) => 1 + quoted_length(inner),
            None => rest.find([' ', '\t', '\n', '\r', ',', ':', '[', ']', '{', '}', '"']).unwrap_or(rest.len()),
        };
        let Some((token, after)) = rest.split_at_checked(length) else { return false };
        match token {
            "" => return rest.is_empty(),
            _ if token.starts_with('"') && token.len() > 1 && is_string_content(&token[1..token.len() - 1]) => {}
            _ if is_scalar(token) => {}
            _ => return false,
        }
        rest = after;
    }
}

/// How far it is to the end of a string, with its closing quote.
fn quoted_length(inner: &str) -> usize {
    let mut skip = false;
    let close = inner.bytes().position(|byte| {
        let closes = byte == b'"' && !skip;
        skip = byte == b'\\' && !skip;
        closes
    });
    close.map_or(inner.len(), |close| close + 1)
}

/// `true`, `false`, `null` or a JSON number, and nothing around it.
fn is_scalar(text: &str) -> bool {
    match text.bytes().next() {
        Some(b't' | b'f' | b'n') => matches!(text, "true" | "false" | "null"),
        Some(b'-' | b'0'..=b'9') => {
            !text.ends_with(|c: char| !c.is_ascii_digit()) && serde_json::from_str::<IgnoredAny>(text).is_ok()
        }
        _ => false,
    }
}

/// A document that is not JSON is not sent. Reads without building a tree and without recursion.
pub(super) fn verify(text: &str, written: &[Written]) -> Result<(), Box<Fault>> {
    let Err(error) = serde_json::from_str::<IgnoredAny>(text) else { return Ok(()) };
    let line: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let offset = line + error.column().saturating_sub(1);
    // Where the text after a placeholder cannot stand, the placeholder is what is wrong.
    let culprit = written
        .iter()
        .rfind(|written| written.start <= offset && written.start < written.end)
        .or_else(|| written.iter().rfind(|written| written.start <= offset));
    let message = match culprit {
        Some(_) => "the body is not JSON: this placeholder, or the text after it, breaks it",
        None => "the body is not JSON",
    };
    let fault = Fault::new(RenderErrorKind::InvalidJson, message);
    Err(match culprit {
        Some(written) => fault.or_inside(written.at),
        None => fault,
    })
}
