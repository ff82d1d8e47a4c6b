//! Tokens into expressions. Hides precedence and the limits on size and depth. Precedence is Jinjava's: `or`, `and`,
//! equality, order and `in`, `+ - ~`, `* / // % **`, prefixes, and closest of all what follows a value: `.a`, `[b]`,
//! `|filter`, `is test`.
//!
//! Chains of one precedence become one flat node, so that nothing ever recurses along them; what does nest is counted
//! ([`EXPRESSION_DEPTH`](limits::EXPRESSION_DEPTH)), both while reading and in the tree.

mod calls;
mod operands;

use minijinja::Value;

use super::ast::{Binary, Compound, ExprId, ExprKind, Link, NameId, Parameter, Span, Target};
use super::error::{ErrorCode, Problems};
use super::growing::Growing;
use super::limits;
use super::names::Names;
use super::tokens::{Token, tokenize};

/// Reading has stopped; the reason is already among the problems.
#[derive(Debug)]
pub(super) struct Stop;

/// What a `set` is given.
pub(super) enum Assigned {
    Values(Vec<ExprId>),
    /// The value made of the block that follows.
    Block(ExprId),
}

pub(super) struct Expressions<'e> {
    span: Span,
    source: &'e str,
    tokens: Vec<(Token<'e>, Span)>,
    at: usize,
    /// How many brackets and branches are open.
    nesting: usize,
    /// Depth of each node made here; the first belongs to node `first`.
    depths: Vec<usize>,
    first: usize,
    ast: &'e mut Growing,
    problems: &'e mut Problems,
    names: &'e mut Names,
}

/// An operator before a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefix {
    Negate,
    Not,
    Empty,
}

impl Prefix {
    fn of(self, operand: ExprId) -> ExprKind {
        match self {
            Prefix::Negate => ExprKind::Negate(operand),
            Prefix::Not => ExprKind::Not(operand),
            Prefix::Empty => ExprKind::Empty(operand),
        }
    }
}

/// What may be hung on a value.
#[derive(Clone, Copy)]
enum Hung {
    All,
    NoTests,
    Lookups,
}

/// An operator between two values.
#[derive(Clone, Copy)]
enum Infix {
    Or,
    And,
    Binary(Binary),
}

impl Infix {
    fn of(token: &Token<'_>) -> Option<Infix> {
        use Binary::*;
        let name = match token {
            Token::Symbol(name) | Token::Word(name) => *name,
            _ => return None,
        };
        Some(match name {
            "||" | "or" => Infix::Or,
            "&&" | "and" => Infix::And,
            "==" | "eq" => Infix::Binary(Equal),
            "!=" | "ne" => Infix::Binary(NotEqual),
            "<" | "lt" => Infix::Binary(Less),
            "<=" | "le" => Infix::Binary(LessOrEqual),
            ">" | "gt" => Infix::Binary(Greater),
            ">=" | "ge" => Infix::Binary(GreaterOrEqual),
            "in" => Infix::Binary(In),
            "+" => Infix::Binary(Add),
            "-" => Infix::Binary(Subtract),
            "~" => Infix::Binary(Concat),
            "*" => Infix::Binary(Multiply),
            "/" | "div" => Infix::Binary(Divide),
            "//" => Infix::Binary(FloorDivide),
            "%" | "mod" => Infix::Binary(Modulo),
            "**" => Infix::Binary(Power),
            _ => return None,
        })
    }

    /// Higher binds closer.
    fn strength(self) -> u8 {
        use Binary::*;
        match self {
            Infix::Or => 0,
            Infix::And => 1,
            Infix::Binary(Equal | NotEqual) => 2,
            Infix::Binary(Less | LessOrEqual | Greater | GreaterOrEqual | In | NotIn) => 3,
            Infix::Binary(Add | Subtract | Concat) => 4,
            Infix::Binary(Multiply | Divide | FloorDivide | Modulo | Power) => 5,
        }
    }
}

impl<'e> Expressions<'e> {
    pub(super) fn new(
        source: &'e str,
        span: Span,
        ast: &'e mut Growing,
        problems: &'e mut Problems,
        names: &'e mut Names,
    ) -> Result<Self, Stop> {
        let tokens = tokenize(source, span, problems).ok_or(Stop)?;
        let first = ast.exprs.len();
        Ok(Expressions { span, source, tokens, at: 0, nesting: 0, depths: Vec::new(), first, ast, problems, names })
    }

    /// One expression and nothing after it.
    pub(super) fn only(mut self) -> Result<ExprId, Stop> {
        let expr = self.expression()?;
        self.end()?;
        Ok(expr)
    }

    /// `a, b in list`, and nothing after it.
    pub(super) fn loop_header(mut self) -> Result<(Vec<NameId>, ExprId), Stop> {
        let mut names = Vec::new();
        loop {
            let (name, at) = self.name("a name")?;
            names.push(self.names.id(name, at));
            if !self.take(",") {
                break;
            }
        }
        if !self.take_word("in") {
            return self.fail("'in' is expected here: {% for name in list %}");
        }
        let list = self.expression()?;
        self.end()?;
        Ok((names, list))
    }

    /// `a, b = 1, 2`, or `a|filter` for a block.
    pub(super) fn assignment(mut self) -> Result<(Vec<Target>, Assigned), Stop> {
        let targets = self.targets()?;
        if !self.is("=") {
            let at = self.here();
            let base = self.node(ExprKind::Captured, at, 0)?;
            let value = self.postfixed(base, Hung::All)?;
            self.end()?;
            return Ok((targets, Assigned::Block(value)));
        }
        self.expect("=")?;
        let values = self.values()?;
        self.end()?;
        if targets.len() != values.len() {
            let message = format!("{} names and {} values", targets.len(), values.len());
            self.problems.add(ErrorCode::Syntax, self.span, message);
            return Err(Stop);
        }
        Ok((targets, Assigned::Values(values)))
    }

    fn targets(&mut self) -> Result<Vec<Target>, Stop> {
        let mut targets = Vec::new();
        loop {
            let (name, at) = self.name("a name")?;
            let id = self.names.id(name, at);
            if self.take(".") {
                let (field, _) = self.name("a name")?;
                self.names.used(id, at);
                targets.push(Target::Field(id, field.into()));
            } else {
                targets.push(Target::Name(id));
            }
            if !self.take(",") {
                return Ok(targets);
            }
        }
    }

    fn values(&mut self) -> Result<Vec<ExprId>, Stop> {
        let mut values = vec![self.expression()?];
        while self.take(",") {
            values.push(self.expression()?);
        }
        Ok(values)
    }

    /// `a, b`, or `a, b as name`.
    pub(super) fn cycle(mut self) -> Result<(Vec<ExprId>, Option<NameId>), Stop> {
        let values = self.values()?;
        let mut name = None;
        if self.take_word("as") {
            let (word, at) = self.name("a name")?;
            name = Some(self.names.id(word, at));
        }
        self.end()?;
        Ok((values, name))
    }

    /// `name(a, b=1)`.
    pub(super) fn macro_header(mut self) -> Result<(NameId, Vec<Parameter>), Stop> {
        let (name, at) = self.name("the name of a macro")?;
        let name = self.names.id(name, at);
        self.expect("(")?;
        let mut parameters = Vec::new();
        while !self.take(")") {
            let (parameter, at) = self.name("the name of a parameter")?;
            let otherwise = if self.take("=") { Some(self.expression()?) } else { None };
            parameters.push((self.names.id(parameter, at), otherwise));
            if !self.take(",") && !self.is(")") {
                return self.fail("',' or ')' is expected here");
            }
        }
        self.end()?;
        Ok((name, parameters))
    }

    // ---- tokens ----

    fn peek(&self) -> Option<&Token<'e>> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    /// The place of the next token, or the end of the text.
    fn here(&self) -> Span {
        self.tokens.get(self.at).map_or(Span { start: self.span.end, end: self.span.end }, |(_, span)| *span)
    }

    fn before(&self) -> Span {
        self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).map_or(self.span, |(_, span)| *span)
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.peek(), Some(Token::Symbol(found)) if *found == symbol)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(found)) if *found == word)
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = self.is(symbol);
        self.at += usize::from(found);
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Stop> {
        if self.take(symbol) { Ok(()) } else { self.fail(&format!("'{symbol}' is expected here")) }
    }

    fn end(&mut self) -> Result<(), Stop> {
        if self.at == self.tokens.len() { Ok(()) } else { self.fail("nothing more is expected here") }
    }

    #[inline(never)]
    fn fail<T>(&mut self, message: &str) -> Result<T, Stop> {
        let at = self.here();
        self.problems.add(ErrorCode::Syntax, at, message);
        Err(Stop)
    }

    // ---- nodes ----

    fn depth(&self, id: ExprId) -> usize {
        self.depths[id.index() - self.first]
    }

    #[inline(never)]
    fn node(&mut self, kind: ExprKind, at: Span, parts: usize) -> Result<ExprId, Stop> {
        let id = self.ast.push(kind, at);
        self.depths.push(0);
        self.deepen(id, parts)?;
        Ok(id)
    }

    /// Notes that `id` has a part of depth `parts`.
    fn deepen(&mut self, id: ExprId, parts: usize) -> Result<(), Stop> {
        if parts >= limits::EXPRESSION_DEPTH {
            return self.too_deep();
        }
        let depth = &mut self.depths[id.index() - self.first];
        *depth = (*depth).max(parts + 1);
        Ok(())
    }

    #[inline(never)]
    fn too_deep<T>(&mut self) -> Result<T, Stop> {
        let (at, message) = (self.before(), format!("nested deeper than {}", limits::EXPRESSION_DEPTH));
        self.problems.add(ErrorCode::Limit, at, message);
        Err(Stop)
    }

    // ---- grammar ----

    /// `a`, `a if c else b`, `c ? a : b`.
    fn expression(&mut self) -> Result<ExprId, Stop> {
        self.nesting += 1;
        if self.nesting > limits::EXPRESSION_DEPTH {
            return self.too_deep();
        }
        let first = self.operators()?;
        let expr = if self.is("?") || self.is_word("if") { self.choice(first)? } else { first };
        self.nesting -= 1;
        Ok(expr)
    }

    #[inline(never)]
    fn choice(&mut self, first: ExprId) -> Result<ExprId, Stop> {
        let (condition, then, otherwise);
        if self.take("?") {
            condition = first;
            then = self.expression()?;
            self.expect(":")?;
            otherwise = Some(self.expression()?);
        } else {
            self.at += 1;
            then = first;
            condition = self.expression()?;
            otherwise = if self.take_word("else") { Some(self.expression()?) } else { None };
        }
        let parts = [Some(condition), Some(then), otherwise].into_iter().flatten().map(|id| self.depth(id)).max();
        let at = self.ast.expr(first).at.to(self.before());
        let kind = self.ast.compound_of(Compound::Choice { condition, then, otherwise });
        self.node(kind, at, parts.unwrap_or(0))
    }

    /// Operators by precedence, with a stack of our own instead of one function for each level.
    fn operators(&mut self) -> Result<ExprId, Stop> {
        let mut values = vec![self.prefixed()?];
        let mut waiting: Vec<Infix> = Vec::new();
        while let Some(infix) = self.infix() {
            while waiting.last().is_some_and(|top| top.strength() >= infix.strength()) {
                self.reduce(&mut values, &mut waiting)?;
            }
            waiting.push(infix);
            values.push(self.prefixed()?);
        }
        while !waiting.is_empty() {
            self.reduce(&mut values, &mut waiting)?;
        }
        values.pop().ok_or(Stop)
    }

    fn infix(&mut self) -> Option<Infix> {
        if self.is_word("not") && matches!(self.tokens.get(self.at + 1), Some((Token::Word("in"), _))) {
            self.at += 2;
            return Some(Infix::Binary(Binary::NotIn));
        }
        let infix = self.peek().and_then(Infix::of)?;
        self.at += 1;
        Some(infix)
    }

    /// Applies the last waiting operator. A left side that already is a chain of the same kind grows by one link.
    fn reduce(&mut self, values: &mut Vec<ExprId>, waiting: &mut Vec<Infix>) -> Result<(), Stop> {
        let (Some(infix), Some(right), Some(left)) = (waiting.pop(), values.pop(), values.pop()) else {
            return Err(Stop);
        };
        let depth = self.depth(right);
        let at = self.ast.expr(left).at.to(self.ast.expr(right).at);
        match (self.ast.compound(left), infix) {
            (Some(Compound::Chain { rest, .. }), Infix::Binary(op))
                if rest.first().is_some_and(|(link, _)| Infix::Binary(*link).strength() == infix.strength()) =>
            {
                rest.push((op, right));
            }
            (Some(Compound::Logic { any, operands }), Infix::Or | Infix::And) if *any == matches!(infix, Infix::Or) => {
                operands.push(right);
            }
            _ => {
                let parts = depth.max(self.depth(left));
                let compound = match infix {
                    Infix::Binary(op) => Compound::Chain { first: left, rest: Box::new(vec![(op, right)]) },
                    logic => Compound::Logic { any: matches!(logic, Infix::Or), operands: Box::new(vec![left, right]) },
                };
                let kind = self.ast.compound_of(compound);
                let id = self.node(kind, at, parts)?;
                values.push(id);
                return Ok(());
            }
        }
        self.ast.exprs[left.index()].at = at;
        values.push(left);
        self.deepen(left, depth)
    }

    /// `empty a`, and no variable of that name.
    fn is_empty_operator(&self) -> bool {
        self.is_word("empty")
            && match self.tokens.get(self.at + 1).map(|(token, _)| token) {
                Some(Token::Symbol(symbol)) => matches!(*symbol, "[" | "{" | "(" | "!"),
                Some(word @ Token::Word(name)) => Infix::of(word).is_none() && !["if", "else", "is"].contains(name),
                Some(_) => true,
                None => false,
            }
    }

    /// `-a`, `not a`, `!a`, `empty a`; `+a` is `a`. A test asks about the number with its sign: `-1 is integer`.
    fn prefixed(&mut self) -> Result<ExprId, Stop> {
        let mut prefixes = Vec::new();
        loop {
            let at = self.here();
            if self.take("-") {
                prefixes.push((Prefix::Negate, at));
            } else if self.take("!") || self.take_word("not") {
                prefixes.push((Prefix::Not, at));
            } else if self.is_empty_operator() {
                self.at += 1;
                prefixes.push((Prefix::Empty, at));
            } else if !self.take("+") {
                break;
            }
        }
        let is_negate = |prefix: Option<&(Prefix, Span)>| prefix.is_some_and(|(prefix, _)| *prefix == Prefix::Negate);
        let hung = if is_negate(prefixes.last()) { Hung::NoTests } else { Hung::All };
        let value = self.primary()?;
        let mut expr = self.postfixed(value, hung)?;
        while let Some((prefix, at)) = prefixes.pop() {
            let (at, parts) = (at.to(self.ast.expr(expr).at), self.depth(expr));
            expr = self.node(prefix.of(expr), at, parts)?;
            if prefix == Prefix::Negate && !is_negate(prefixes.last()) {
                expr = self.postfixed(expr, Hung::All)?;
            }
        }
        Ok(expr)
    }

    /// A value and what is hung on it.
    fn postfixed(&mut self, base: ExprId, hung: Hung) -> Result<ExprId, Stop> {
        self.names_behind(base)?;
        let mut links = Vec::new();
        let mut parts = self.depth(base);
        while match hung {
            Hung::All => true,
            Hung::NoTests => !self.is_word("is"),
            Hung::Lookups => self.is(".") || self.is("["),
        } {
            match self.link(&mut parts)? {
                Some(link) => {
                    if links.is_empty() {
                        self.field_of_form(base, &link);
                    }
                    links.push(link);
                }
                None => break,
            }
        }
        if links.is_empty() {
            return Ok(base);
        }
        let at = self.ast.expr(base).at.to(self.before());
        let (first, count) = self.ast.links_of(&links);
        let kind = self.ast.compound_of(Compound::Postfix { base, first, count });
        self.node(kind, at, parts)
    }

    /// Names that are written directly behind a variable become one with it.
    fn names_behind(&mut self, base: ExprId) -> Result<(), Stop> {
        while let [(Token::Symbol("."), _), (Token::Word(_), name), after @ ..] =
            self.tokens.get(self.at..).unwrap_or_default()
            && !matches!(after, [(Token::Symbol("("), _), ..])
        {
            let (name, path) = (*name, self.ast.expr(base).path());
            if !self.ast.extend_path(base, name) {
                break;
            }
            self.at += 2;
            if let Some(path) = path.filter(|path| path.names == 0) {
                self.names.field_of(path.name, name.text(self.source), name);
                self.deepen(base, 1)?;
            }
        }
        Ok(())
    }

    /// `context.id` and `context["id"]` name a field as `{% context id %}` does.
    fn field_of_form(&mut self, base: ExprId, link: &Link) {
        let Some(path) = self.ast.expr(base).path().filter(|path| path.names == 0) else { return };
        match link {
            Link::Attr(field) => self.names.field_of(path.name, field.text(self.source), *field),
            Link::Item(key) => {
                if let Some(text) = self.ast.constant(*key).and_then(Value::as_str) {
                    self.names.field_of(path.name, text, self.ast.expr(*key).at);
                }
            }
            Link::Slice(..) | Link::Filter { .. } | Link::Test { .. } | Link::Method { .. } => {}
        }
    }

    fn link(&mut self, parts: &mut usize) -> Result<Option<Link>, Stop> {
        if self.take(".") {
            return self.attr(parts).map(Some);
        }
        if self.take("[") {
            return self.item(parts).map(Some);
        }
        if self.take("|") {
            return self.filter(parts).map(Some);
        }
        if self.take_word("is") {
            return self.test(parts).map(Some);
        }
        Ok(None)
    }

    /// `[key]`, `[from:to]`.
    #[inline(never)]
    fn item(&mut self, parts: &mut usize) -> Result<Link, Stop> {
        let mut bound = |this: &mut Self, closes: &str| -> Result<Option<ExprId>, Stop> {
            if this.is(closes) {
                return Ok(None);
            }
            let bound = this.expression()?;
            *parts = (*parts).max(this.depth(bound));
            Ok(Some(bound))
        };
        let from = bound(self, ":")?;
        let link = match from {
            Some(key) if !self.is(":") => Link::Item(key),
            _ => {
                self.expect(":")?;
                Link::Slice(from, bound(self, "]")?)
            }
        };
        self.expect("]")?;
        Ok(link)
    }

    /// A word where a name must stand.
    fn name(&mut self, what: &str) -> Result<(&'e str, Span), Stop> {
        let at = self.here();
        match self.peek() {
            Some(Token::Word(name)) => {
                let name = *name;
                self.at += 1;
                Ok((name, at))
            }
            _ => self.fail(&format!("{what} is expected here")),
        }
    }
}
