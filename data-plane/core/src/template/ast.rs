//! The shape of a compiled template. Expressions and blocks live in two flat arenas and refer to each other by number, so
//! that dropping a template recurses nowhere and parser frames stay small; chains are lists, not towers.
//!
//! Templates stay in memory as long as they are served, so the shape is kept small: what is rare is boxed, lists have no room to
//! grow, and names behind a dot are not kept again but lie in the source.

use std::sync::Arc;

use minijinja::Value;

use super::filters::Filter;
use super::functions::Function;
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

/// A name a template uses: of a variable or of a macro.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NameId(pub(super) u32);

/// `loop`, in every template.
pub(super) const LOOP: NameId = NameId(0);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MacroId(pub(super) u32);

#[derive(Debug, Default)]
pub(super) struct Ast {
    pub(super) exprs: Vec<Expr>,
    pub(super) blocks: Vec<Box<[Node]>>,
    pub(super) macros: Vec<Macro>,
    /// By [`NameId`].
    pub(super) names: Vec<Arc<str>>,
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

    pub(super) fn name(&self, id: NameId) -> &Arc<str> {
        &self.names[id.0 as usize]
    }

    pub(super) fn macro_(&self, id: MacroId) -> &Macro {
        &self.macros[id.0 as usize]
    }
}

/// What a macro takes: a name, and what stands for it when it is not given.
pub(super) type Parameter = (NameId, Option<ExprId>);

/// `{% macro name(a, b=1) %}`.
#[derive(Debug)]
pub(super) struct Macro {
    pub(super) name: NameId,
    pub(super) parameters: Box<[Parameter]>,
    pub(super) body: BlockId,
    /// What takes arguments beyond the parameters: `varargs`, and `kwargs` for named ones.
    pub(super) rest: (NameId, NameId),
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
    /// `{{ … }}` and `{% print … %}`; the span covers the delimiters.
    Output {
        expr: ExprId,
        site: Site,
        at: Span,
    },
    If(Box<Branches>),
    For(Box<Loop>),
    Break(Span),
    Continue(Span),
    Set(Box<Assignments>),
    SetBlock(Box<Capture>),
    /// `{% do … %}`: evaluated for what it changes.
    Do(ExprId),
    /// `{% do %}…{% enddo %}`: run for what it changes.
    DoBlock(BlockId),
    /// `{% cycle a, b %}`; with `as name` it prints nothing and keeps its values.
    Cycle(Box<Cycle>),
    /// `{% ifchanged x %}`: its body when x is not what it was the last time here.
    IfChanged {
        expr: ExprId,
        body: BlockId,
        at: Span,
    },
    AutoEscape {
        on: bool,
        body: BlockId,
    },
    Macro(MacroId),
    /// `{% call macro(…) %}…{% endcall %}`: the body is what `caller()` prints.
    Call {
        callee: ExprId,
        body: BlockId,
        site: Site,
        at: Span,
    },
    /// `{% snippetvar id=… %}…{% endsnippetvar %}`: a body that has the snippet's text under a name.
    With {
        name: NameId,
        text: BlockId,
        body: BlockId,
        at: Span,
    },
    /// Nothing is to be sent (F88).
    Kill(Span),
}

/// `{% if %}` to `{% endif %}`.
#[derive(Debug)]
pub(super) struct Branches {
    pub(super) arms: Box<[(ExprId, BlockId)]>,
    pub(super) otherwise: Option<BlockId>,
    pub(super) at: Span,
}

/// `{% for a, b in list %}`.
#[derive(Debug)]
pub(super) struct Loop {
    pub(super) names: Box<[NameId]>,
    pub(super) list: ExprId,
    pub(super) body: BlockId,
    pub(super) at: Span,
}

/// `{% set a, b = 1, 2 %}`.
#[derive(Debug)]
pub(super) struct Assignments {
    pub(super) targets: Box<[Target]>,
    pub(super) values: Box<[ExprId]>,
}

/// `{% set x|filter %}…{% endset %}`; `value` starts from [`ExprKind::Captured`].
#[derive(Debug)]
pub(super) struct Capture {
    pub(super) target: Target,
    pub(super) value: ExprId,
    pub(super) body: BlockId,
    pub(super) at: Span,
}

/// `{% cycle a, b as name %}`.
#[derive(Debug)]
pub(super) struct Cycle {
    pub(super) values: Box<[ExprId]>,
    pub(super) name: Option<NameId>,
    pub(super) site: Site,
    pub(super) at: Span,
}

/// What a `set` sets.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Name(NameId),
    /// `ns.field` of a namespace.
    Field(NameId, Arc<str>),
}

#[derive(Debug)]
pub(super) struct Expr {
    pub(super) kind: ExprKind,
    pub(super) at: Span,
}

#[derive(Debug)]
#[expect(
    clippy::box_collection,
    reason = "chains grow while they are read, and are rare: the others are not to be larger for them"
)]
pub(super) enum ExprKind {
    Const(Box<Value>),
    Var(NameId),
    List(Box<[ExprId]>),
    Dict(Box<[(Arc<str>, ExprId)]>),
    Negate(ExprId),
    Not(ExprId),
    Empty(ExprId),
    /// `range(…)` and its like.
    Function {
        function: Function,
        args: Box<[Argument]>,
    },
    /// A macro, or `caller()`.
    Call {
        name: NameId,
        args: Box<[Argument]>,
    },
    /// The text that a set block has captured.
    Captured,
    /// `{% context id %}` and `{% customer id %}`: the text of a field. Without a required one nothing is sent (F81).
    Field {
        base: NameId,
        field: Span,
        required: bool,
    },
    /// Operators of one precedence, applied from left to right.
    Chain {
        first: ExprId,
        rest: Box<Vec<(Binary, ExprId)>>,
    },
    /// `a and b and c`, or `a or b or c`.
    Logic {
        any: bool,
        operands: Box<Vec<ExprId>>,
    },
    Choice {
        condition: ExprId,
        then: ExprId,
        otherwise: Option<ExprId>,
    },
    /// A base and what is hung on it: `.name`, `[key]`, `|filter`, `is test`, `.method()`.
    Postfix {
        base: ExprId,
        links: Box<[Link]>,
    },
}

/// What stands between the parentheses of a call.
#[derive(Debug)]
pub(super) struct Argument {
    pub(super) name: Option<Arc<str>>,
    pub(super) value: ExprId,
}

#[derive(Debug)]
pub(super) enum Link {
    /// The place of the name in the source.
    Attr(Span),
    Item(ExprId),
    /// `[a:b]`.
    Slice(Box<(Option<ExprId>, Option<ExprId>)>),
    Filter(Box<Filtered>),
    Test(Box<Tested>),
    Method(Box<Called>),
}

/// `|filter(a, b)`.
#[derive(Debug)]
pub(super) struct Filtered {
    pub(super) filter: Filter,
    pub(super) args: Box<[Option<ExprId>]>,
    pub(super) at: Span,
}

/// `is not test a`.
#[derive(Debug)]
pub(super) struct Tested {
    pub(super) test: Test,
    pub(super) negated: bool,
    pub(super) argument: Option<ExprId>,
    pub(super) at: Span,
}

/// `.method(a, b)`.
#[derive(Debug)]
pub(super) struct Called {
    pub(super) method: Method,
    pub(super) args: Box<[ExprId]>,
    pub(super) at: Span,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What most templates are made of: texts, outputs, and names behind names.
    #[test]
    fn what_is_frequent_is_small() {
        assert_eq!((size_of::<Node>(), size_of::<Expr>(), size_of::<Link>()), (24, 32, 16));
    }
}
