//! Pieces into a tree. Hides tags, their nesting, and which names are free. Goes on after an error, so that all of them
//! are reported at once (D29); expressions are read in [`expressions`](super::expressions).

use std::sync::Arc;

use super::RootUse;
use super::ast::{Ast, BlockId, ExprId, Node, Site, Span};
use super::error::{ErrorCode, Place, Problems};
use super::expressions::{Expressions, Stop};
use super::limits;
use super::scanner::Piece;

/// The tags that are built.
const TAGS: &[&str] = &["do", "if", "elif", "else", "endif", "for", "endfor", "set", "raw", "endraw"];

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
    "snippet",
    "snippetvar",
    "socialproof",
    "voucher",
    "vouchervar",
];

/// Tags that pull in other templates: off by design, a template stands alone.
const FILE_TAGS: &[&str] = &["block", "extends", "from", "import", "include"];

/// What a parse gives besides problems.
pub(super) struct Parsed {
    pub(super) ast: Ast,
    pub(super) root: BlockId,
    pub(super) roots: Vec<RootUse>,
}

pub(super) fn parse<'s>(source: &'s str, pieces: &[Piece], problems: &mut Problems<'s>) -> Parsed {
    let mut parser = Parser {
        source,
        ast: Ast::default(),
        problems,
        names: Names { source, bound: vec![Vec::new()], roots: Vec::new() },
        open: Vec::new(),
        nodes: Vec::new(),
        refused: Vec::new(),
    };
    for piece in pieces {
        match *piece {
            Piece::Text(span) => parser.nodes.push(Node::Text(span)),
            Piece::Output { inner, at } => parser.output(inner, at),
            Piece::Tag { inner, at } => {
                // A tag that cannot be read is already reported; what follows still is looked at.
                let _: Result<(), Stop> = parser.tag(inner, at);
            }
        }
    }
    while let Some(open) = parser.open.pop() {
        let (name, end) = open.names();
        parser.problems.add(ErrorCode::Syntax, open.at, format!("this '{name}' is never closed: '{end}' is missing"));
    }
    if parser.names.roots.len() > limits::ROOTS {
        let message = format!("more than {} names from the context", limits::ROOTS);
        parser.problems.add(ErrorCode::Limit, Span::default(), message);
    }
    let nodes = std::mem::take(&mut parser.nodes);
    let root = parser.block(nodes);
    Parsed { ast: parser.ast, root, roots: parser.names.roots }
}

/// Which names a template sets itself, and which it therefore takes from the context.
pub(super) struct Names<'s> {
    source: &'s str,
    /// One list for each block that is open. A name set in a block counts as set in that block only: the block may not
    /// run, and then the name is the context's.
    bound: Vec<Vec<Arc<str>>>,
    roots: Vec<RootUse>,
}

impl Names<'_> {
    pub(super) fn used(&mut self, name: &str, at: Span) {
        let known = self.bound.iter().flatten().any(|bound| **bound == *name);
        // One more than allowed is enough to know that there are too many.
        if !known && self.roots.len() <= limits::ROOTS && !self.roots.iter().any(|root| root.name == name) {
            let Place { line, column, excerpt } = Place::of(self.source, at);
            self.roots.push(RootUse { name: name.into(), line, column, excerpt });
        }
    }

    fn bind(&mut self, names: &[Arc<str>]) {
        if let Some(block) = self.bound.last_mut() {
            block.extend_from_slice(names);
        }
    }
}

/// A block tag that waits for its end.
struct Open {
    kind: OpenKind,
    at: Span,
    /// The nodes of the block around it.
    around: Vec<Node>,
}

enum OpenKind {
    If { arms: Vec<(ExprId, BlockId)>, condition: Option<ExprId> },
    For { names: Vec<Arc<str>>, list: ExprId },
}

impl Open {
    fn names(&self) -> (&'static str, &'static str) {
        match self.kind {
            OpenKind::If { .. } => ("if", "{% endif %}"),
            OpenKind::For { .. } => ("for", "{% endfor %}"),
        }
    }
}

struct Parser<'p, 's> {
    source: &'s str,
    ast: Ast,
    problems: &'p mut Problems<'s>,
    names: Names<'s>,
    open: Vec<Open>,
    /// The nodes of the block being read.
    nodes: Vec<Node>,
    /// Tags refused by name; their ends are not reported again.
    refused: Vec<String>,
}

impl<'s> Parser<'_, 's> {
    fn expressions(&mut self, span: Span) -> Result<Expressions<'_, 's>, Stop> {
        Expressions::new(self.source, span, &mut self.ast, self.problems, &mut self.names)
    }

    fn block(&mut self, nodes: Vec<Node>) -> BlockId {
        self.ast.blocks.push(nodes);
        BlockId(self.ast.blocks.len() as u32 - 1)
    }

    fn output(&mut self, inner: Span, at: Span) {
        // `{{ }}` prints nothing.
        if inner.text(self.source).trim().is_empty() {
            return;
        }
        if let Ok(expr) = self.expressions(inner).and_then(Expressions::only) {
            self.nodes.push(Node::Output { expr, site: Site::Plain, at });
        }
    }

    fn tag(&mut self, inner: Span, at: Span) -> Result<(), Stop> {
        let text = inner.text(self.source);
        let start = text.len() - text.trim_start().len();
        let length = text[start..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len() - start);
        let name = text[start..start + length].to_lowercase();
        let name_at = Span::new(inner.start as usize + start, inner.start as usize + start + length);
        let rest = Span { start: name_at.end, end: inner.end };
        match name.as_str() {
            "if" => self.open_if(rest, at),
            "elif" => self.elif(rest, name_at),
            "else" => self.else_(rest, name_at),
            "for" => self.open_for(rest, at),
            "set" => self.set(rest),
            "do" => {
                let expr = self.expressions(rest)?.only()?;
                self.nodes.push(Node::Do(expr));
                Ok(())
            }
            "endif" => self.end_if(rest, name_at),
            "endfor" => self.end_for(rest, name_at),
            _ => {
                self.refuse(&name, name_at);
                Ok(())
            }
        }
    }

    fn refuse(&mut self, name: &str, at: Span) {
        if name.strip_prefix("end").is_some_and(|opened| self.refused.iter().any(|refused| refused == opened)) {
            return;
        }
        self.refused.push(name.to_owned());
        if name.is_empty() {
            self.problems.add(ErrorCode::Syntax, at, "the name of a tag is missing");
        } else if DATA_TAGS.contains(&name) {
            let message = format!("the tag '{name}' needs a data provider, and no provider is configured");
            self.problems.add(ErrorCode::UnsupportedTag, at, message);
        } else if FILE_TAGS.contains(&name) {
            let message = format!("the tag '{name}' is off: a template stands alone and cannot use others");
            self.problems.add(ErrorCode::UnsupportedTag, at, message);
        } else if name == "endraw" {
            self.problems.add(ErrorCode::Syntax, at, "'endraw' without 'raw'");
        } else {
            self.problems.unknown(ErrorCode::UnknownTag, at, "tag", name, TAGS);
        }
    }

    /// Starts a block. A tag whose expression could not be read opens its block all the same, so that its end is not
    /// reported as well.
    fn enter(&mut self, kind: OpenKind, at: Span) {
        if self.open.len() == limits::TAG_DEPTH {
            let message = format!("tags are nested deeper than {}", limits::TAG_DEPTH);
            self.problems.add(ErrorCode::Limit, at, message);
        }
        self.open.push(Open { kind, at, around: std::mem::take(&mut self.nodes) });
        self.names.bound.push(Vec::new());
    }

    fn condition(&mut self, rest: Span) -> ExprId {
        match self.expressions(rest).and_then(Expressions::only) {
            Ok(condition) => condition,
            Err(Stop) => self.placeholder(rest),
        }
    }

    /// Stands where an expression could not be read. A template with problems is never rendered.
    fn placeholder(&mut self, at: Span) -> ExprId {
        use super::ast::{Expr, ExprKind};
        self.ast.exprs.push(Expr { kind: ExprKind::List(Vec::new()), at });
        ExprId(self.ast.exprs.len() as u32 - 1)
    }

    fn open_if(&mut self, rest: Span, at: Span) -> Result<(), Stop> {
        let condition = self.condition(rest);
        self.enter(OpenKind::If { arms: Vec::new(), condition: Some(condition) }, at);
        Ok(())
    }

    fn elif(&mut self, rest: Span, at: Span) -> Result<(), Stop> {
        // The arm before ends here: what it has set is not known to be set in this condition.
        self.end_arm("elif", at)?;
        let next = self.condition(rest);
        let Some(Open { kind: OpenKind::If { arms, condition }, .. }) = self.open.last_mut() else { return Err(Stop) };
        *condition = Some(next);
        if arms.len() == limits::ELIF_ARMS + 1 {
            let message = format!("more than {} 'elif' in one 'if'", limits::ELIF_ARMS);
            self.problems.add(ErrorCode::Limit, at, message);
        }
        Ok(())
    }

    fn else_(&mut self, rest: Span, at: Span) -> Result<(), Stop> {
        self.nothing_more("else", rest);
        self.end_arm("else", at)
    }

    /// Closes the arm being read and leaves the `if` without a condition, as an `else` has none.
    fn end_arm(&mut self, tag: &str, at: Span) -> Result<(), Stop> {
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
        if let Some(bound) = self.names.bound.last_mut() {
            bound.clear();
        }
        Ok(())
    }

    fn end_if(&mut self, rest: Span, at: Span) -> Result<(), Stop> {
        self.nothing_more("endif", rest);
        let open = self.leave("endif", at, |kind| matches!(kind, OpenKind::If { .. }))?;
        let body = std::mem::replace(&mut self.nodes, open.around);
        let body = self.block(body);
        if let OpenKind::If { mut arms, condition } = open.kind {
            let mut otherwise = None;
            match condition {
                Some(condition) => arms.push((condition, body)),
                None => otherwise = Some(body),
            }
            self.nodes.push(Node::If { arms, otherwise, at: open.at });
        }
        Ok(())
    }

    fn open_for(&mut self, rest: Span, at: Span) -> Result<(), Stop> {
        let header = self.expressions(rest).and_then(Expressions::loop_header);
        let (names, list) = match header {
            Ok(header) => header,
            Err(Stop) => (Vec::new(), self.placeholder(rest)),
        };
        self.enter(OpenKind::For { names: names.clone(), list }, at);
        self.names.bind(&names);
        self.names.bind(&["loop".into()]);
        Ok(())
    }

    fn end_for(&mut self, rest: Span, at: Span) -> Result<(), Stop> {
        self.nothing_more("endfor", rest);
        let open = self.leave("endfor", at, |kind| matches!(kind, OpenKind::For { .. }))?;
        let body = std::mem::replace(&mut self.nodes, open.around);
        let body = self.block(body);
        if let OpenKind::For { names, list } = open.kind {
            self.nodes.push(Node::For { names, list, body, at: open.at });
        }
        Ok(())
    }

    fn leave(&mut self, tag: &str, at: Span, fits: impl Fn(&OpenKind) -> bool) -> Result<Open, Stop> {
        match self.open.pop() {
            Some(open) if fits(&open.kind) => {
                self.names.bound.pop();
                Ok(open)
            }
            Some(open) => {
                let (name, end) = open.names();
                self.problems.add(
                    ErrorCode::Syntax,
                    at,
                    format!("'{tag}' inside an open '{name}': '{end}' is missing"),
                );
                self.open.push(open);
                Err(Stop)
            }
            None => {
                self.problems.add(ErrorCode::Syntax, at, format!("'{tag}' without '{}'", &tag[3..]));
                Err(Stop)
            }
        }
    }

    fn set(&mut self, rest: Span) -> Result<(), Stop> {
        let (names, values) = self.expressions(rest)?.assignment()?;
        self.names.bind(&names);
        self.nodes.push(Node::Set { names, values });
        Ok(())
    }

    fn nothing_more(&mut self, tag: &str, rest: Span) {
        let text = rest.text(self.source);
        if !text.trim().is_empty() {
            let start = rest.start as usize + text.len() - text.trim_start().len();
            let at = Span::new(start, rest.end as usize);
            self.problems.add(ErrorCode::Syntax, at, format!("'{tag}' takes nothing"));
        }
    }
}
