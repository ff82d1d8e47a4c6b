//! Pieces into a tree. Hides how tags nest. Goes on after an error, so that all of them are reported at once (D29). What
//! each tag says is read in [`tags`](super::tags), expressions in [`expressions`](super::expressions).

use std::collections::HashMap;

use super::Mode;
use super::ast::{Ast, BlockId, Capture, ExprId, ExprKind, MacroId, NameId, Node, Site, Span, Tag, Target};
use super::error::{ErrorCode, Problems};
use super::expressions::{Expressions, Stop};
use super::growing::Growing;
use super::limits;
use super::names::Names;
use super::scanner::Piece;
use super::source::Assembled;

/// Reads the whole template.
pub(super) fn parse(assembled: &Assembled, mode: Mode, problems: &mut Problems) -> Ast {
    let mut parser = Parser {
        source: &assembled.source.text,
        pieces: &assembled.pieces,
        uses: &assembled.uses,
        ast: Growing::default(),
        problems,
        names: Names::new(),
        open: Vec::new(),
        around: 0,
        nodes: Vec::new(),
        refused: Vec::new(),
        mode,
    };
    parser.part(0);
    parser.names.check(parser.problems);
    let nodes = std::mem::take(&mut parser.nodes);
    let root = parser.block(nodes);
    let (names, roots, fields) = parser.names.into_parts();
    parser.ast.finish(root, names, roots, fields)
}

/// A block tag that waits for its end.
pub(super) struct Open {
    pub(super) kind: OpenKind,
    pub(super) at: Span,
    /// The nodes of the block around it.
    around: Vec<Node>,
}

pub(super) enum OpenKind {
    If {
        arms: Vec<(ExprId, BlockId)>,
        condition: Option<ExprId>,
        unless: bool,
    },
    For {
        names: Vec<NameId>,
        list: ExprId,
    },
    Set {
        target: Target,
        value: ExprId,
    },
    Do,
    IfChanged {
        expr: ExprId,
    },
    AutoEscape {
        on: bool,
    },
    Macro {
        id: Option<MacroId>,
    },
    Call {
        callee: ExprId,
    },
    With {
        text: BlockId,
    },
    /// A tag that could not be read; its end belongs to it all the same.
    Broken(&'static str),
}

impl OpenKind {
    pub(super) fn tag(&self) -> &'static str {
        match self {
            OpenKind::If { unless: false, .. } => "if",
            OpenKind::If { unless: true, .. } => "unless",
            OpenKind::For { .. } => "for",
            OpenKind::Set { .. } => "set",
            OpenKind::Do => "do",
            OpenKind::IfChanged { .. } => "ifchanged",
            OpenKind::AutoEscape { .. } => "autoescape",
            OpenKind::Macro { .. } => "macro",
            OpenKind::Call { .. } => "call",
            OpenKind::With { .. } => "snippetvar",
            OpenKind::Broken(tag) => tag,
        }
    }

    /// Whether what the body prints is caught before it gets into the output.
    pub(super) fn catches(&self) -> bool {
        matches!(self, OpenKind::Set { .. } | OpenKind::Do | OpenKind::Macro { .. } | OpenKind::Call { .. })
    }
}

pub(super) struct Parser<'p> {
    pub(super) source: &'p str,
    pieces: &'p [Vec<Piece>],
    uses: &'p HashMap<u32, usize>,
    pub(super) ast: Growing,
    pub(super) problems: &'p mut Problems,
    pub(super) names: Names,
    pub(super) open: Vec<Open>,
    /// How many are open around the snippet that is being read.
    around: usize,
    /// The nodes of the block being read.
    pub(super) nodes: Vec<Node>,
    /// Tags refused by name; their ends are not reported again.
    pub(super) refused: Vec<String>,
    mode: Mode,
}

impl Parser<'_> {
    /// Reads one part of the source to its end. Its tags are closed within it.
    fn part(&mut self, part: usize) {
        let around = std::mem::take(&mut self.open);
        self.around += around.len();
        let pieces = self.pieces;
        for piece in pieces.get(part).into_iter().flatten() {
            match *piece {
                Piece::Text(span) => self.nodes.push(Node::text(span)),
                Piece::Output { inner, .. } => self.output(inner),
                Piece::Tag { inner, at } => {
                    // A tag that cannot be read is already reported; what follows still is looked at.
                    let _: Result<(), Stop> = self.tag(inner, at);
                }
            }
        }
        while let Some(open) = self.open.pop() {
            let tag = open.kind.tag();
            let message = format!("this '{tag}' is never closed: '{{% end{tag} %}}' is missing");
            self.problems.add(ErrorCode::Syntax, open.at, message);
            self.names.leave();
        }
        self.around -= around.len();
        self.open = around;
    }

    /// What stands for the snippet tag at `at`; `None` if that has been reported already.
    fn snippet(&mut self, at: Span) -> Option<Vec<Node>> {
        let part = *self.uses.get(&at.start)?;
        let around = std::mem::take(&mut self.nodes);
        self.part(part);
        Some(std::mem::replace(&mut self.nodes, around))
    }

    /// `{% snippet id %}`: as if its text stood here.
    pub(super) fn insert_snippet(&mut self, at: Span) {
        let nodes = self.snippet(at).unwrap_or_default();
        self.nodes.extend(nodes);
    }

    /// The snippet's text as a block of its own.
    pub(super) fn snippet_block(&mut self, at: Span) -> BlockId {
        let nodes = self.snippet(at).unwrap_or_default();
        self.block(nodes)
    }

    pub(super) fn expressions(&mut self, span: Span) -> Result<Expressions<'_>, Stop> {
        Expressions::new(self.source, span, &mut self.ast, self.problems, &mut self.names)
    }

    pub(super) fn block(&mut self, nodes: Vec<Node>) -> BlockId {
        self.ast.block_of(&nodes)
    }

    fn output(&mut self, inner: Span) {
        // `{{ }}` prints nothing.
        if inner.text(self.source).trim().is_empty() {
            return;
        }
        if let Ok(expr) = self.expressions(inner).and_then(Expressions::only) {
            self.nodes.push(Node::Output { expr, site: Site::Plain });
        }
    }

    pub(super) fn push(&mut self, tag: Tag) {
        let node = self.ast.tag_of(tag);
        self.nodes.push(node);
    }

    /// One expression. A template with problems is never rendered, so that anything may stand where none could be read.
    pub(super) fn condition(&mut self, rest: Span) -> ExprId {
        match self.expressions(rest).and_then(Expressions::only) {
            Ok(condition) => condition,
            Err(Stop) => self.ast.push(ExprKind::Captured, rest),
        }
    }

    /// Starts a block. A tag whose expression could not be read opens its block all the same, so that its end is not
    /// reported as well.
    pub(super) fn enter(&mut self, kind: OpenKind, at: Span) {
        if self.around + self.open.len() == limits::TAG_DEPTH {
            let message = format!("tags are nested deeper than {}", limits::TAG_DEPTH);
            self.problems.add(ErrorCode::Limit, at, message);
        }
        self.open.push(Open { kind, at, around: std::mem::take(&mut self.nodes) });
        self.names.enter();
    }

    /// Closes the arm being read and leaves the `if` without a condition, as an `else` has none.
    pub(super) fn end_arm(&mut self, tag: &str, at: Span) -> Result<(), Stop> {
        let Some(Open { kind: OpenKind::If { condition, .. }, .. }) = self.open.last_mut() else {
            self.problems.add(ErrorCode::Syntax, at, format!("'{tag}' without 'if'"));
            return Err(Stop);
        };
        let Some(condition) = condition.take() else {
            self.problems.add(ErrorCode::Syntax, at, format!("'{tag}' after 'else'"));
            return Err(Stop);
        };
        let nodes = std::mem::take(&mut self.nodes);
        let body = self.block(nodes);
        if let Some(Open { kind: OpenKind::If { arms, .. }, .. }) = self.open.last_mut() {
            arms.push((condition, body));
        }
        self.names.next_arm();
        Ok(())
    }

    /// `{% end… %}`.
    pub(super) fn end(&mut self, tag: &str, rest: Span, at: Span) -> Result<(), Stop> {
        self.nothing_more(&format!("end{tag}"), rest);
        let open = match self.open.pop() {
            Some(open) if open.kind.tag() == tag => open,
            Some(open) => {
                let inner = open.kind.tag();
                let message = format!("'end{tag}' inside an open '{inner}': '{{% end{inner} %}}' is missing");
                self.problems.add(ErrorCode::Syntax, at, message);
                self.open.push(open);
                return Err(Stop);
            }
            // An end of nothing is nothing.
            None if self.mode == Mode::Exact => return Ok(()),
            None => {
                self.problems.add(ErrorCode::Syntax, at, format!("'end{tag}' without '{tag}'"));
                return Err(Stop);
            }
        };
        self.names.leave();
        let body = std::mem::replace(&mut self.nodes, open.around);
        let body = self.block(body);
        let at = open.at;
        let tag = match open.kind {
            OpenKind::If { mut arms, condition, .. } => {
                let otherwise = if condition.is_none() { Some(body) } else { None };
                arms.extend(condition.map(|condition| (condition, body)));
                Tag::If { arms: arms.into(), otherwise, at }
            }
            OpenKind::For { names, list } => Tag::For { names: names.into(), list, body, at },
            OpenKind::Set { target, value } => {
                self.bind(&target);
                Tag::SetBlock(Box::new(Capture { target, value, body, at }))
            }
            OpenKind::Do => Tag::DoBlock(body),
            OpenKind::IfChanged { expr } => Tag::IfChanged { expr, body, at },
            OpenKind::AutoEscape { on } => Tag::AutoEscape { on, body },
            OpenKind::Macro { id: Some(id) } => {
                self.end_macro(id, body);
                Tag::Macro(id)
            }
            OpenKind::Call { callee } => Tag::Call { callee, body, site: Site::Plain, at },
            OpenKind::With { text } => {
                let name = self.names.own(super::tags::SNIPPET_RESULT);
                Tag::With { name, text, body, at }
            }
            OpenKind::Macro { id: None } | OpenKind::Broken(_) => return Ok(()),
        };
        self.push(tag);
        Ok(())
    }

    fn end_macro(&mut self, id: MacroId, body: BlockId) {
        if let Some(written) = self.ast.macros.get_mut(id.0 as usize) {
            written.body = body;
        }
    }

    pub(super) fn bind(&mut self, target: &Target) {
        if let Target::Name(name) = target {
            self.names.bind(*name);
        }
    }

    pub(super) fn nothing_more(&mut self, tag: &str, rest: Span) {
        let text = rest.text(self.source);
        if !text.trim().is_empty() {
            let start = rest.start as usize + text.len() - text.trim_start().len();
            let at = Span::new(start, rest.end as usize);
            self.problems.add(ErrorCode::Syntax, at, format!("'{tag}' takes nothing"));
        }
    }
}
