//! The shape of a compiled template. Expressions and blocks live in two flat arenas and refer to each other by number, so
//! that dropping a template recurses nowhere and parser frames stay small; chains are lists, not towers.

use std::sync::Arc;

use minijinja::Value;

use super::filters::Filter;
use super::methods::Method;
use super::value_tests::Test;

/// A range of bytes in the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    /// Source is at most [`SOURCE_BYTES`](super::limits::SOURCE_BYTES), so that offsets always fit.
    pub(super) fn new(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }

    pub(super) fn to(self, other: Span) -> Span {
        Span { start: self.start, end: other.end.max(self.end) }
    }

    pub(super) fn text(self, source: &str) -> &str {
        source.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExprId(pub(super) u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockId(pub(super) u32);

#[derive(Debug, Default)]
pub(super) struct Ast {
    pub(super) exprs: Vec<Expr>,
    pub(super) blocks: Vec<Vec<Node>>,
    /// Some method or tag changes lists or maps in place.
    pub(super) changes: bool,
    /// What its regular expressions have compiled to, in KiB.
    pub(super) patterns: usize,
}

impl Ast {
    pub(super) fn expr(&self, id: ExprId) -> &Expr {
        &self.exprs[id.0 as usize]
    }

    pub(super) fn block(&self, id: BlockId) -> &[Node] {
        &self.blocks[id.0 as usize]
    }
}

/// Where in the field's own grammar an output stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Site {
    /// Nothing is known or needed.
    Plain,
    /// Inside a JSON string.
    JsonString,
    /// Where a JSON value may stand.
    JsonValue,
}

#[derive(Debug)]
pub(super) enum Node {
    /// Author's text, copied as it is.
    Text(Span),
    /// `{{ … }}`; the span covers the delimiters.
    Output {
        expr: ExprId,
        site: Site,
        at: Span,
    },
    If {
        arms: Vec<(ExprId, BlockId)>,
        otherwise: Option<BlockId>,
        at: Span,
    },
    For {
        names: Vec<Arc<str>>,
        list: ExprId,
        body: BlockId,
        at: Span,
    },
    Set {
        names: Vec<Arc<str>>,
        values: Vec<ExprId>,
    },
    /// `{% do … %}`: evaluated for what it changes.
    Do(ExprId),
}

#[derive(Debug)]
pub(super) struct Expr {
    pub(super) kind: ExprKind,
    pub(super) at: Span,
}

#[derive(Debug)]
pub(super) enum ExprKind {
    Const(Value),
    Var(Arc<str>),
    List(Vec<ExprId>),
    Dict(Vec<(Arc<str>, ExprId)>),
    Negate(ExprId),
    Not(ExprId),
    /// Operators of one precedence, applied from left to right.
    Chain {
        first: ExprId,
        rest: Vec<(Binary, ExprId)>,
    },
    /// `a and b and c`, or `a or b or c`.
    Logic {
        any: bool,
        operands: Vec<ExprId>,
    },
    Choice {
        condition: ExprId,
        then: ExprId,
        otherwise: Option<ExprId>,
    },
    /// A base and what is hung on it: `.name`, `[key]`, `|filter`, `is test`, `.method()`.
    Postfix {
        base: ExprId,
        links: Vec<Link>,
    },
}

#[derive(Debug)]
pub(super) enum Link {
    Attr(Arc<str>),
    Item(ExprId),
    Filter { filter: Filter, args: Vec<Option<ExprId>>, at: Span },
    Test { test: Test, negated: bool, argument: Option<ExprId>, at: Span },
    Method { method: Method, args: Vec<ExprId>, at: Span },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Subtract,
    Concat,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
    Power,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}
