//! What each tag says between its delimiters. Hides which tags there are, and which are refused by name.

use super::ast::{Compound, ExprKind, LOOP, Macro, MacroId, Node, Site, Span, Tag, Target};
use super::error::{ErrorCode, Problems};
use super::expressions::{Expressions, Stop};
use super::limits;
use super::names::FORM;
use super::parser::{Open, OpenKind, Parser};

/// The name under which the body of a `snippetvar` finds the snippet's text.
pub(super) const SNIPPET_RESULT: &str = "snippet_result";

/// Tags that are closed by `end` and their name, among others.
const BLOCKS: &[&str] = &["autoescape", "call", "do", "for", "if", "ifchanged", "macro", "set", "snippetvar", "unless"];

/// All names, for hints.
const TAGS: &[&str] = &[
    "autoescape",
    "break",
    "call",
    "context",
    "continue",
    "customer",
    "cycle",
    "do",
    "elif",
    "else",
    "endautoescape",
    "endcall",
    "enddo",
    "endfor",
    "endif",
    "endifchanged",
    "endmacro",
    "endraw",
    "endset",
    "endsnippetvar",
    "endunless",
    "for",
    "if",
    "ifchanged",
    "kill",
    "macro",
    "print",
    "raw",
    "set",
    "snippet",
    "snippetvar",
    "unless",
];

/// Tags of the dialect that read from a service which does not exist here (D03).
const DATA_TAGS: &[&str] = &[
    "aggregate",
    "barcode",
    "barcodeurl",
    "catalog",
    "catalogitemv2",
    "catalogvar",
    "document",
    "expression",
    "expressionvar",
    "metrics",
    "metricsvar",
    "preparelink",
    "recommendations",
    "recommendations3",
    "recommendations_json3",
    "screenviewcollection",
    "socialproof",
    "voucher",
    "vouchervar",
];

/// Tags that pull in other templates by path: off by design. Snippets are given with the template.
const FILE_TAGS: &[&str] = &["block", "extends", "from", "import", "include"];

impl Parser<'_> {
    pub(super) fn tag(&mut self, inner: Span, at: Span) -> Result<(), Stop> {
        let text = inner.text(self.source);
        let start = text.len() - text.trim_start().len();
        let length = text[start..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len() - start);
        let name = text[start..start + length].to_lowercase();
        let name_at = Span::new(inner.start as usize + start, inner.start as usize + start + length);
        let rest = Span { start: name_at.end, end: inner.end };
        match name.as_str() {
            "if" | "unless" => self.open_if(&name, rest, at),
            "elif" => self.elif(rest, name_at),
            "else" => {
                self.nothing_more("else", rest);
                self.end_arm("else", name_at)
            }
            "for" => self.open_for(rest, at),
            "break" | "continue" => self.leave_loop(&name, rest, name_at),
            "set" => self.set(rest, at),
            "do" => self.do_(rest, at),
            "print" => self.print(rest),
            "cycle" => self.cycle(rest, at),
            "ifchanged" => {
                let expr = self.condition(rest);
                self.enter(OpenKind::IfChanged { expr }, at);
                Ok(())
            }
            "autoescape" => {
                let on = !rest.text(self.source).trim().eq_ignore_ascii_case("false");
                self.enter(OpenKind::AutoEscape { on }, at);
                Ok(())
            }
            "macro" => self.open_macro(rest, at),
            "call" => self.open_call(rest, at),
            "kill" => {
                self.nothing_more("kill", rest);
                self.push(Tag::Kill(at));
                Ok(())
            }
            "context" | "customer" => self.field(&name, rest, at, name_at),
            "snippet" | "snippetvar" => self.snippet_tag(&name, rest, at, name_at),
            _ => match name.strip_prefix("end").and_then(|tag| BLOCKS.iter().find(|block| **block == tag)) {
                Some(tag) => self.end(tag, rest, name_at),
                None => {
                    self.refuse(&name, name_at);
                    Ok(())
                }
            },
        }
    }

    fn refuse(&mut self, name: &str, at: Span) {
        if name.strip_prefix("end").is_some_and(|opened| self.refused.iter().any(|refused| refused == opened)) {
            return;
        }
        self.refused.push(name.to_owned());
        refuse(self.problems, name, at);
    }

    fn open_if(&mut self, tag: &str, rest: Span, at: Span) -> Result<(), Stop> {
        let unless = tag == "unless";
        let mut condition = self.condition(rest);
        if unless {
            condition = self.ast.push(ExprKind::Not(condition), rest);
        }
        self.enter(OpenKind::If { arms: Vec::new(), condition: Some(condition), unless }, at);
        Ok(())
    }

    fn elif(&mut self, rest: Span, at: Span) -> Result<(), Stop> {
        // The arm before ends here: what it has set is not known to be set in this condition.
        self.end_arm("elif", at)?;
        let next = self.condition(rest);
        let Some(Open { kind: OpenKind::If { arms, condition, .. }, .. }) = self.open.last_mut() else {
            return Err(Stop);
        };
        *condition = Some(next);
        if arms.len() == limits::ELIF_ARMS + 1 {
            let message = format!("more than {} 'elif' in one 'if'", limits::ELIF_ARMS);
            self.problems.add(ErrorCode::Limit, at, message);
        }
        Ok(())
    }

    fn open_for(&mut self, rest: Span, at: Span) -> Result<(), Stop> {
        let Ok((names, list)) = self.expressions(rest).and_then(Expressions::loop_header) else {
            self.enter(OpenKind::Broken("for"), at);
            return Err(Stop);
        };
        self.enter(OpenKind::For { names: names.clone(), list }, at);
        for name in names {
            self.names.bind(name);
        }
        self.names.bind(LOOP);
        Ok(())
    }

    /// `break` and `continue` belong to a loop around them that is not outside of a macro or a set block.
    fn leave_loop(&mut self, tag: &str, rest: Span, at: Span) -> Result<(), Stop> {
        self.nothing_more(tag, rest);
        let inner =
            self.open.iter().rev().find(|open| {
                open.kind.catches() || matches!(open.kind, OpenKind::For { .. } | OpenKind::Broken("for"))
            });
        if inner.is_none_or(|open| open.kind.catches()) {
            self.problems.add(ErrorCode::Syntax, at, format!("'{tag}' outside of a 'for'"));
            return Err(Stop);
        }
        self.push(if tag == "break" { Tag::Break(at) } else { Tag::Continue(at) });
        Ok(())
    }

    /// `{% set a, b = 1, 2 %}`, or `{% set a|filter %}…{% endset %}`.
    fn set(&mut self, rest: Span, at: Span) -> Result<(), Stop> {
        let (targets, values) = match self.expressions(rest).and_then(Expressions::assignment) {
            Ok(assignment) => assignment,
            Err(Stop) => {
                // Without a `=` it would have been a block, whose end follows.
                if !rest.text(self.source).contains('=') && !rest.text(self.source).trim().is_empty() {
                    self.enter(OpenKind::Broken("set"), at);
                }
                return Err(Stop);
            }
        };
        if targets.iter().any(|target| matches!(target, Target::Field(..))) {
            self.ast.changes = true;
        }
        match (values, targets.as_slice()) {
            (super::expressions::Assigned::Values(values), _) => {
                targets.iter().for_each(|target| self.bind(target));
                let (targets, values) = (targets.into(), values.into());
                self.push(Tag::Set { targets, values });
            }
            (super::expressions::Assigned::Block(value), [target]) => {
                self.enter(OpenKind::Set { target: target.clone(), value }, at);
            }
            (super::expressions::Assigned::Block(_), _) => {
                self.problems.add(ErrorCode::Syntax, rest, "a block is the value of one name");
                self.enter(OpenKind::Broken("set"), at);
            }
        }
        Ok(())
    }

    fn do_(&mut self, rest: Span, at: Span) -> Result<(), Stop> {
        if rest.text(self.source).trim().is_empty() {
            self.enter(OpenKind::Do, at);
            return Ok(());
        }
        let expr = self.expressions(rest)?.only()?;
        self.push(Tag::Do(expr));
        Ok(())
    }

    fn print(&mut self, rest: Span) -> Result<(), Stop> {
        let expr = self.expressions(rest)?.only()?;
        self.nodes.push(Node::Output { expr, site: Site::Plain });
        Ok(())
    }

    fn cycle(&mut self, rest: Span, at: Span) -> Result<(), Stop> {
        let (values, name) = self.expressions(rest)?.cycle()?;
        if let Some(name) = name {
            self.names.bind(name);
        }
        self.push(Tag::Cycle { values: values.into(), name, site: Site::Plain, at });
        Ok(())
    }

    fn open_macro(&mut self, rest: Span, at: Span) -> Result<(), Stop> {
        let Ok((name, parameters)) = self.expressions(rest).and_then(Expressions::macro_header) else {
            self.enter(OpenKind::Macro { id: None }, at);
            return Err(Stop);
        };
        self.names.defines(name);
        let id = MacroId(self.ast.macros.len() as u32);
        let bound: Vec<_> = parameters.iter().map(|(parameter, _)| *parameter).collect();
        let body = self.block(Vec::new());
        let rest = (self.names.own("varargs"), self.names.own("kwargs"));
        self.ast.macros.push(Macro { name, parameters: parameters.into(), body, rest });
        self.enter(OpenKind::Macro { id: Some(id) }, at);
        bound.into_iter().chain([rest.0, rest.1]).for_each(|name| self.names.bind(name));
        Ok(())
    }

    fn open_call(&mut self, rest: Span, at: Span) -> Result<(), Stop> {
        let callee = self.condition(rest);
        if !matches!(self.ast.compound(callee), Some(Compound::Call(_))) {
            self.problems.add(ErrorCode::Syntax, rest, "'call' needs the call of a macro: {% call name(…) %}");
        }
        self.enter(OpenKind::Call { callee }, at);
        Ok(())
    }

    /// `{% context id %}` and `{% customer id %}`: letters, digits and `_` (F70, F81).
    fn field(&mut self, tag: &str, rest: Span, at: Span, tag_at: Span) -> Result<(), Stop> {
        let text = rest.text(self.source);
        let id = text.trim();
        let start = rest.start as usize + text.len() - text.trim_start().len();
        let id_at = Span::new(start, start + id.len());
        if id.is_empty() || !id.chars().all(|c| c == '_' || c.is_alphanumeric()) {
            let at = if id.is_empty() { tag_at } else { id_at };
            self.problems.add(ErrorCode::Syntax, at, format!("'{tag}' needs an id of letters, digits and '_'"));
            return Err(Stop);
        }
        let required = tag == "customer";
        let base = self.names.own(if required { "customer" } else { FORM });
        if !required {
            self.names.field(id, id_at);
        }
        self.names.used(base, tag_at);
        let kind = self.ast.compound_of(Compound::Field { base, field: id_at, required });
        let expr = self.ast.push(kind, at);
        self.nodes.push(Node::Output { expr, site: Site::Plain });
        Ok(())
    }

    fn snippet_tag(&mut self, tag: &str, rest: Span, at: Span, tag_at: Span) -> Result<(), Stop> {
        if rest.text(self.source).trim().is_empty() {
            self.problems.add(ErrorCode::Syntax, tag_at, format!("'{tag}' needs the id of a snippet"));
        }
        if tag == "snippet" {
            self.insert_snippet(at);
            return Ok(());
        }
        let text = self.snippet_block(at);
        self.enter(OpenKind::With { text }, at);
        let name = self.names.own(SNIPPET_RESULT);
        self.names.bind(name);
        Ok(())
    }
}

/// Says why a tag is not there.
fn refuse(problems: &mut Problems, name: &str, at: Span) {
    if name.is_empty() {
        problems.add(ErrorCode::Syntax, at, "the name of a tag is missing");
    } else if DATA_TAGS.contains(&name) {
        let message = format!("the tag '{name}' needs a data provider, and no provider is configured");
        problems.add(ErrorCode::UnsupportedTag, at, message);
    } else if FILE_TAGS.contains(&name) {
        let message = format!("the tag '{name}' is off: a template uses no other files");
        problems.add(ErrorCode::UnsupportedTag, at, message);
    } else if name == "endraw" {
        problems.add(ErrorCode::Syntax, at, "'endraw' without 'raw'");
    } else {
        problems.unknown(ErrorCode::UnknownTag, at, "tag", name, TAGS);
    }
}
