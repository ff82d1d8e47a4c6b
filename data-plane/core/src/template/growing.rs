//! A tree while it is read. Hides which arena each part goes to, and that a finished tree has no room to grow.

use minijinja::Value;

use super::ast::{
    Ast, BlockId, Compound, Expr, ExprId, ExprKind, Link, Macro, More, Name, Node, Span, Tag, TagId, Use,
};

/// A tree that still grows. It has whatever its parts refer to by number.
#[derive(Debug, Default)]
pub(super) struct Growing {
    pub(super) exprs: Vec<Expr>,
    compounds: Vec<Compound>,
    links: Vec<Link>,
    operands: Vec<Option<ExprId>>,
    starts: Vec<u16>,
    constants: Vec<Value>,
    nodes: Vec<Node>,
    blocks: Vec<(u32, u32)>,
    tags: Vec<Tag>,
    pub(super) macros: Vec<Macro>,
    /// Some method or tag changes lists or maps in place.
    pub(super) changes: bool,
    /// What its regular expressions have compiled to, in KiB.
    pub(super) patterns: usize,
}

impl Growing {
    pub(super) fn expr(&self, id: ExprId) -> Expr {
        self.exprs[id.index()]
    }

    /// The constant that an expression is.
    pub(super) fn constant(&self, id: ExprId) -> Option<&Value> {
        match self.expr(id).kind {
            ExprKind::Const(index) => self.constants.get(index as usize),
            _ => None,
        }
    }

    /// Puts another value in the place of a constant.
    pub(super) fn replace(&mut self, id: ExprId, value: Value) {
        if let ExprKind::Const(index) = self.expr(id).kind {
            self.constants[index as usize] = value;
        }
    }

    pub(super) fn push(&mut self, kind: ExprKind, at: Span) -> ExprId {
        self.exprs.push(Expr { kind, at });
        ExprId::new(self.exprs.len() - 1)
    }

    pub(super) fn constant_of(&mut self, value: Value) -> ExprKind {
        self.constants.push(value);
        ExprKind::Const(self.constants.len() as u32 - 1)
    }

    pub(super) fn compound_of(&mut self, compound: Compound) -> ExprKind {
        self.compounds.push(compound);
        ExprKind::Compound(self.compounds.len() as u32 - 1)
    }

    /// The compound that an expression is.
    pub(super) fn compound(&mut self, id: ExprId) -> Option<&mut Compound> {
        match self.expr(id).kind {
            ExprKind::Compound(index) => self.compounds.get_mut(index as usize),
            _ => None,
        }
    }

    /// The next name behind a variable and those that are there already. `false` where it must be a link: it is not written
    /// directly behind them, or they are too many.
    pub(super) fn extend_path(&mut self, id: ExprId, name: Span) -> bool {
        let expr = &mut self.exprs[id.index()];
        let ExprKind::Path { names, first, .. } = &mut expr.kind else { return false };
        let Ok(start) = u16::try_from(name.start - expr.at.start) else { return false };
        if name.start != expr.at.end + 1 || *names == u8::MAX {
            return false;
        }
        if *names == 0 {
            *first = self.starts.len() as u32;
        }
        *names += 1;
        self.starts.push(start);
        expr.at.end = name.end;
        true
    }

    /// Their number fits: tokens are limited.
    pub(super) fn operands_of(&mut self, operands: impl IntoIterator<Item = Option<ExprId>>) -> (u32, u16) {
        let first = self.operands.len();
        self.operands.extend(operands);
        (first as u32, (self.operands.len() - first) as u16)
    }

    pub(super) fn links_of(&mut self, links: &[Link]) -> (u32, u16) {
        let first = self.links.len();
        self.links.extend_from_slice(links);
        (first as u32, links.len() as u16)
    }

    pub(super) fn block_of(&mut self, nodes: &[Node]) -> BlockId {
        let first = self.nodes.len();
        self.nodes.extend_from_slice(nodes);
        self.blocks.push((first as u32, self.nodes.len() as u32));
        BlockId(self.blocks.len() as u32 - 1)
    }

    pub(super) fn tag_of(&mut self, tag: Tag) -> Node {
        self.tags.push(tag);
        Node::Tag(TagId(self.tags.len() as u32 - 1))
    }

    /// The whole tree, without room to grow.
    pub(super) fn finish(mut self, root: BlockId, names: Vec<Name>, roots: Vec<Use>, fields: Vec<Span>) -> Ast {
        for compound in &mut self.compounds {
            match compound {
                Compound::Chain { rest, .. } => rest.shrink_to_fit(),
                Compound::Logic { operands, .. } => operands.shrink_to_fit(),
                _ => {}
            }
        }
        let more = More {
            compounds: exact(self.compounds),
            links: exact(self.links),
            operands: exact(self.operands),
            constants: exact(self.constants),
            tags: exact(self.tags),
            macros: exact(self.macros),
            fields: exact(fields),
        };
        Ast {
            root,
            exprs: exact(self.exprs),
            starts: exact(self.starts),
            nodes: exact(self.nodes),
            blocks: exact(self.blocks),
            names: exact(names),
            roots: exact(roots),
            more: more.kept(),
            changes: self.changes,
        }
    }
}

/// In a piece of memory of its own size: one that is only shrunk may keep up to twice of it.
fn exact<T>(mut grown: Vec<T>) -> Box<[T]> {
    let mut items = Vec::with_capacity(grown.len());
    items.append(&mut grown);
    items.into()
}
