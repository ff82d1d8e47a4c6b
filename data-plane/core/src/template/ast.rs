//! The shape of a compiled template. Expressions and blocks live in two flat arenas and refer to each other by number, so
//! that dropping a template recurses nowhere and parser frames stay small; chains are lists, not towers.

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
    pub(super) blocks: Vec<Vec<Node>>,
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
    pub(super) parameters: Vec<Parameter>,
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
    If {
        arms: Vec<(ExprId, BlockId)>,
        otherwise: Option<BlockId>,
        at: Span,
    },
    For {
        names: Vec<NameId>,
        list: ExprId,
        body: BlockId,
        at: Span,
    },
    Break(Span),
    Continue(Span),
    Set {
        targets: Vec<Target>,
        values: Vec<ExprId>,
    },
    /// `{% set x|filter %}…{% endset %}`; `value` starts from [`ExprKind::Captured`].
    SetBlock {
        target: Target,
        value: ExprId,
        body: BlockId,
        at: Span,
    },
    /// `{% do … %}`: evaluated for what it changes.
    Do(ExprId),
    /// `{% do %}…{% enddo %}`: run for what it changes.
    DoBlock(BlockId),
    /// `{% cycle a, b %}`; with `as name` it prints nothing and keeps its values.
    Cycle {
        values: Vec<ExprId>,
        name: Option<NameId>,
        site: Site,
        at: Span,
    },
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
pub(super) enum ExprKind {
    Const(Value),
    Var(NameId),
    List(Vec<ExprId>),
    Dict(Vec<(Arc<str>, ExprId)>),
    Negate(ExprId),
    Not(ExprId),
    Empty(ExprId),
    /// `range(…)` and its like.
    Function {
        function: Function,
        args: Vec<Argument>,
    },
    /// A macro, or `caller()`.
    Call {
        name: NameId,
        args: Vec<Argument>,
    },
    /// The text that a set block has captured.
    Captured,
    /// `{% context id %}` and `{% customer id %}`: the text of a field. Without a required one nothing is sent (F81).
    Field {
        base: NameId,
        field: Arc<str>,
        required: bool,
    },
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

/// What stands between the parentheses of a call.
#[derive(Debug)]
pub(super) struct Argument {
    pub(super) name: Option<Arc<str>>,
    pub(super) value: ExprId,
}

#[derive(Debug)]
pub(super) enum Link {
    Attr(Arc<str>),
    Item(ExprId),
    /// `[a:b]`.
    Slice(Option<ExprId>, Option<ExprId>),
    Filter {
        filter: Filter,
        args: Vec<Option<ExprId>>,
        at: Span,
    },
    Test {
        test: Test,
        negated: bool,
        argument: Option<ExprId>,
        at: Span,
    },
    Method {
        method: Method,
        args: Vec<ExprId>,
        at: Span,
    },
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
