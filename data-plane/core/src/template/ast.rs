//! The shape of a compiled template. Its parts live in flat arenas and refer to each other by number, so that dropping a template
//! recurses nowhere and parser frames stay small; chains are lists, not towers.
//!
//! Templates stay in memory as long as they are served, so the shape is kept small: what is frequent is small and lies in one
//! piece, what is rare lies beside it, arenas have no room to grow, and names are not kept again but lie in the source.

use std::num::NonZeroU32;
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

/// Never zero inside, so that an expression that may be left out costs no more than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExprId(NonZeroU32);

impl ExprId {
    pub(super) fn new(index: usize) -> ExprId {
        ExprId(NonZeroU32::MIN.saturating_add(index as u32))
    }

    pub(super) fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockId(pub(super) u32);

/// A name a template uses: of a variable or of a macro. There are at most [`NAMES_WRITTEN`](super::limits::NAMES_WRITTEN).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct NameId(pub(super) u16);

/// `loop`, in every template.
pub(super) const LOOP: NameId = NameId(0);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MacroId(pub(super) u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TagId(pub(super) u32);

/// How a name is known: one of the language's own, or by a place in the source where it is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name {
    Own(&'static str),
    Written(Span),
}

/// A name taken from the context, and where it is used first.
pub(super) type Use = (NameId, Span);

#[derive(Debug)]
pub(super) struct Ast {
    pub(super) root: BlockId,
    pub(super) exprs: Box<[Expr]>,
    /// Where names behind a variable begin, counted from where it does itself.
    pub(super) starts: Box<[u16]>,
    pub(super) nodes: Box<[Node]>,
    /// From which node to which.
    pub(super) blocks: Box<[(u32, u32)]>,
    /// By [`NameId`].
    pub(super) names: Box<[Name]>,
    pub(super) roots: Box<[Use]>,
    /// Nothing for a template that only prints what it is given.
    pub(super) more: Option<Box<More>>,
    /// Some method or tag changes lists or maps in place.
    pub(super) changes: bool,
}

/// What most templates have nothing of.
#[derive(Debug)]
pub(super) struct More {
    pub(super) compounds: Box<[Compound]>,
    pub(super) links: Box<[Link]>,
    pub(super) operands: Box<[Option<ExprId>]>,
    pub(super) constants: Box<[Value]>,
    pub(super) tags: Box<[Tag]>,
    pub(super) macros: Box<[Macro]>,
    /// The fields of the form it names: a name, or a text in quotes.
    pub(super) fields: Box<[Span]>,
}

impl More {
    fn is_empty(&self) -> bool {
        let Self { compounds, links, operands, constants, tags, macros, fields } = self;
        let code = compounds.is_empty() && links.is_empty() && operands.is_empty() && constants.is_empty();
        code && tags.is_empty() && macros.is_empty() && fields.is_empty()
    }

    /// Unless there is nothing.
    pub(super) fn kept(self) -> Option<Box<Self>> {
        (!self.is_empty()).then(|| Box::new(self))
    }
}

impl Ast {
    fn more<T>(&self, of: impl FnOnce(&More) -> &[T]) -> &[T] {
        self.more.as_deref().map_or(&[], of)
    }

    pub(super) fn links_all(&self) -> &[Link] {
        self.more(|more| &more.links)
    }

    pub(super) fn link_mut(&mut self, index: usize) -> Option<&mut Link> {
        self.more.as_deref_mut()?.links.get_mut(index)
    }

    pub(super) fn tag_mut(&mut self, id: TagId) -> Option<&mut Tag> {
        self.more.as_deref_mut()?.tags.get_mut(id.0 as usize)
    }

    pub(super) fn tags(&self) -> &[Tag] {
        self.more(|more| &more.tags)
    }

    pub(super) fn fields(&self) -> &[Span] {
        self.more(|more| &more.fields)
    }

    pub(super) fn expr(&self, id: ExprId) -> Expr {
        self.exprs[id.index()]
    }

    pub(super) fn constant(&self, index: u32) -> &Value {
        &self.more(|more| &more.constants)[index as usize]
    }

    pub(super) fn compound(&self, index: u32) -> &Compound {
        &self.more(|more| &more.compounds)[index as usize]
    }

    pub(super) fn links(&self, first: u32, count: u16) -> &[Link] {
        &self.links_all()[first as usize..first as usize + count as usize]
    }

    pub(super) fn operands(&self, first: u32, count: u16) -> &[Option<ExprId>] {
        &self.more(|more| &more.operands)[first as usize..first as usize + count as usize]
    }

    /// The names behind a variable.
    pub(super) fn behind<'t>(&'t self, path: Path, source: &'t str) -> impl Iterator<Item = &'t str> {
        let Path { at, names, first, .. } = path;
        let starts = &self.starts[first as usize..first as usize + usize::from(names)];
        starts.iter().enumerate().map(move |(position, start)| {
            // Between two names is a dot.
            let end = starts.get(position + 1).map_or(at.end, |next| at.start + u32::from(*next) - 1);
            Span { start: at.start + u32::from(*start), end }.text(source)
        })
    }

    pub(super) fn name<'t>(&self, id: NameId, source: &'t str) -> &'t str {
        match self.names[id.0 as usize] {
            Name::Own(name) => name,
            Name::Written(at) => at.text(source),
        }
    }

    pub(super) fn block(&self, id: BlockId) -> &[Node] {
        let (start, end) = self.blocks[id.0 as usize];
        &self.nodes[start as usize..end as usize]
    }

    pub(super) fn tag(&self, id: TagId) -> &Tag {
        &self.tags()[id.0 as usize]
    }

    pub(super) fn macro_(&self, id: MacroId) -> &Macro {
        &self.more(|more| &more.macros)[id.0 as usize]
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

#[derive(Clone, Copy, Debug)]
pub(super) enum Node {
    /// Author's text, copied as it is. Its length has three bytes, so that a node has eight.
    Text { start: u32, length: [u8; 3] },
    /// `{{ … }}` and `{% print … %}`.
    Output { expr: ExprId, site: Site },
    /// Any other tag.
    Tag(TagId),
}

impl Node {
    /// Even with its snippets the source is far shorter than three bytes can say.
    pub(super) fn text(at: Span) -> Node {
        let [a, b, c, _] = (at.end - at.start).to_le_bytes();
        Node::Text { start: at.start, length: [a, b, c] }
    }

    /// The place of a text.
    pub(super) fn written(start: u32, [a, b, c]: [u8; 3]) -> Span {
        Span { start, end: start + u32::from_le_bytes([a, b, c, 0]) }
    }
}

#[derive(Debug)]
pub(super) enum Tag {
    /// `{% if %}` to `{% endif %}`.
    If {
        arms: Box<[(ExprId, BlockId)]>,
        otherwise: Option<BlockId>,
        at: Span,
    },
    /// `{% for a, b in list %}`.
    For {
        names: Box<[NameId]>,
        list: ExprId,
        body: BlockId,
        at: Span,
    },
    Break(Span),
    Continue(Span),
    /// `{% set a, b = 1, 2 %}`.
    Set {
        targets: Box<[Target]>,
        values: Box<[ExprId]>,
    },
    SetBlock(Box<Capture>),
    /// `{% do … %}`: evaluated for what it changes.
    Do(ExprId),
    /// `{% do %}…{% enddo %}`: run for what it changes.
    DoBlock(BlockId),
    /// `{% cycle a, b as name %}`; with a name it prints nothing and keeps its values.
    Cycle {
        values: Box<[ExprId]>,
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

/// `{% set x|filter %}…{% endset %}`; `value` starts from [`ExprKind::Captured`].
#[derive(Debug)]
pub(super) struct Capture {
    pub(super) target: Target,
    pub(super) value: ExprId,
    pub(super) body: BlockId,
    pub(super) at: Span,
}

/// What a `set` sets.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Name(NameId),
    /// `ns.field` of a namespace.
    Field(NameId, Arc<str>),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Expr {
    pub(super) kind: ExprKind,
    pub(super) at: Span,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ExprKind {
    Const(u32),
    /// A variable, and how many names are written directly behind it: `a.b.c`.
    Path {
        name: NameId,
        names: u8,
        first: u32,
    },
    Negate(ExprId),
    Not(ExprId),
    Empty(ExprId),
    /// The text that a set block has captured.
    Captured,
    Compound(u32),
}

/// A variable and the names behind it.
#[derive(Clone, Copy)]
pub(super) struct Path {
    pub(super) name: NameId,
    pub(super) names: u8,
    first: u32,
    at: Span,
}

impl Path {
    /// A variable alone.
    pub(super) fn of(name: NameId) -> Path {
        Path { name, names: 0, first: 0, at: Span::default() }
    }
}

impl Expr {
    pub(super) fn path(self) -> Option<Path> {
        let ExprKind::Path { name, names, first } = self.kind else { return None };
        Some(Path { name, names, first, at: self.at })
    }
}

/// What has more parts than an expression has room for.
#[derive(Debug)]
#[expect(
    clippy::box_collection,
    reason = "chains grow while they are read, and are rare: the others are not to be larger for them"
)]
pub(super) enum Compound {
    List {
        first: u32,
        count: u16,
    },
    Dict(Box<Vec<(Arc<str>, ExprId)>>),
    /// `range(…)` and its like.
    Function(Box<(Function, Box<[Argument]>)>),
    /// A macro, or `caller()`.
    Call(Box<(NameId, Box<[Argument]>)>),
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
    /// A base and the links hung on it: `.name`, `[key]`, `|filter`, `is test`, `.method()`.
    Postfix {
        base: ExprId,
        first: u32,
        count: u16,
    },
}

/// What stands between the parentheses of a call.
#[derive(Debug)]
pub(super) struct Argument {
    pub(super) name: Option<Arc<str>>,
    pub(super) value: ExprId,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Link {
    /// The place of the name in the source.
    Attr(Span),
    Item(ExprId),
    /// `[a:b]`.
    Slice(Option<ExprId>, Option<ExprId>),
    /// `|filter(a, b)`: its operands are in the order of its parameters.
    Filter {
        filter: Filter,
        first: u32,
        count: u16,
        at: Span,
    },
    /// `is not test a`.
    Test {
        test: Test,
        negated: bool,
        argument: Option<ExprId>,
        at: Span,
    },
    /// `.method(a, b)`.
    Method {
        method: Method,
        first: u32,
        count: u16,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What most templates are made of: texts, outputs, names behind names, and filters.
    #[test]
    fn what_is_frequent_is_small() {
        assert_eq!((size_of::<Node>(), size_of::<Expr>(), size_of::<Compound>()), (8, 16, 16));
        assert_eq!((size_of::<Link>(), size_of::<Option<ExprId>>(), size_of::<Tag>()), (24, 4, 40));
    }
}
