//! The values expressions are made of: constants, names, calls, lists and maps written out.

use std::sync::Arc;

use minijinja::Value;

use super::super::ast::{Argument, Compound, ExprId, ExprKind, Span};
use super::super::error::ErrorCode;
use super::super::filters::Filter;
use super::super::functions::{self, Function};
use super::super::tokens::Token;
use super::{Expressions, Infix, Stop};

impl Expressions<'_> {
    pub(super) fn primary(&mut self) -> Result<ExprId, Stop> {
        let at = self.here();
        let Some(token) = self.peek().cloned() else { return self.fail("a value is expected here") };
        self.at += 1;
        match token {
            Token::Int(int) => self.constant(Value::from(int), at),
            Token::Float(float) => self.constant(Value::from(float), at),
            Token::Text(text) => self.constant(Value::from(&*text), at),
            Token::Word(word) => self.word(word, at),
            Token::Symbol("(") => self.parentheses(at),
            Token::Symbol("[") => self.list(at),
            Token::Symbol("{") => self.dict(at),
            Token::Symbol(_) => {
                self.at -= 1;
                self.fail("a value is expected here")
            }
        }
    }

    #[inline(never)]
    fn constant(&mut self, value: Value, at: Span) -> Result<ExprId, Stop> {
        let kind = self.ast.constant_of(value);
        self.node(kind, at, 0)
    }

    #[inline(never)]
    fn word(&mut self, word: &str, at: Span) -> Result<ExprId, Stop> {
        let constant = match word {
            "true" | "True" => Some(Value::from(true)),
            "false" | "False" => Some(Value::from(false)),
            "null" | "none" | "None" => Some(Value::from(())),
            _ => None,
        };
        if let Some(constant) = constant {
            return self.constant(constant, at);
        }
        if Infix::of(&Token::Word(word)).is_some() || ["if", "else", "is"].contains(&word) {
            self.at -= 1;
            return self.fail("a value is expected here");
        }
        if self.is("(") {
            return self.call(word, at);
        }
        let name = self.names.id(word, at);
        self.names.used(name, at);
        self.node(ExprKind::Path { name, names: 0, first: 0 }, at, 0)
    }

    /// `name(…)`: a function, a filter that is one too, or a macro.
    #[inline(never)]
    fn call(&mut self, word: &str, at: Span) -> Result<ExprId, Stop> {
        let mut parts = 0;
        let mut args = self.arguments(&mut parts)?;
        let whole = at.to(self.before());
        if let Some(function) = Function::named(word) {
            self.check_arguments(function, word, &args, at);
            let kind = self.ast.compound_of(Compound::Function(Box::new((function, args.into()))));
            return self.node(kind, whole, parts);
        }
        if let Some(filter) = Filter::named(word).filter(|_| functions::FILTERS.contains(&word)) {
            let input = if args.first().is_some_and(|first| first.name.is_none()) {
                args.remove(0).value
            } else {
                self.constant(Value::from(()), at)?
            };
            return self.filter_called(filter, word, at, input, args, parts);
        }
        let name = self.names.id(word, at);
        self.names.calls(name, at);
        let kind = self.ast.compound_of(Compound::Call(Box::new((name, args.into()))));
        self.node(kind, whole, parts)
    }

    /// `name(input, …)` is `input|name(…)`.
    #[inline(never)]
    fn filter_called(
        &mut self,
        filter: Filter,
        word: &str,
        at: Span,
        input: ExprId,
        args: Vec<Argument>,
        parts: usize,
    ) -> Result<ExprId, Stop> {
        let whole = at.to(self.before());
        let link = self.filter_link(filter, word, at, args);
        let (first, count) = self.ast.links_of(&[link]);
        let kind = self.ast.compound_of(Compound::Postfix { base: input, first, count });
        self.node(kind, whole, parts)
    }

    /// What a function does not take is refused, never ignored (I9).
    fn check_arguments(&mut self, function: Function, word: &str, args: &[Argument], at: Span) {
        let (least, most, named) = function.takes();
        if args.len() < least || args.len() > most {
            let most = if most == usize::MAX { "more".to_owned() } else { most.to_string() };
            self.problems.add(ErrorCode::Syntax, at, format!("'{word}' takes {least} to {most} arguments"));
        }
        if let Some(argument) = args.iter().find(|argument| argument.name.is_some() && !named) {
            let at = self.ast.expr(argument.value).at;
            self.problems.add(ErrorCode::Syntax, at, format!("'{word}' takes no arguments by name"));
        }
    }

    /// `(a)` is `a`; `(a, b)` is a list, as tuples are.
    #[inline(never)]
    fn parentheses(&mut self, at: Span) -> Result<ExprId, Stop> {
        if self.is(")") {
            return self.fail("a value is expected here");
        }
        let first = self.expression()?;
        if self.take(")") {
            return Ok(first);
        }
        self.expect(",")?;
        self.items(at, vec![first], ")")
    }

    #[inline(never)]
    fn list(&mut self, at: Span) -> Result<ExprId, Stop> {
        self.items(at, Vec::new(), "]")
    }

    fn items(&mut self, at: Span, mut items: Vec<ExprId>, close: &'static str) -> Result<ExprId, Stop> {
        while !self.take(close) {
            items.push(self.expression()?);
            if !self.take(",") && !self.is(close) {
                return self.fail(&format!("',' or '{close}' is expected here"));
            }
        }
        let parts = items.iter().map(|id| self.depth(*id)).max().unwrap_or(0);
        let (first, count) = self.ast.operands_of(items.into_iter().map(Some));
        let kind = self.ast.compound_of(Compound::List { first, count });
        self.node(kind, at.to(self.before()), parts)
    }

    /// Keys are texts, quoted or not: `{price: 12}` is `{"price": 12}`.
    #[inline(never)]
    fn dict(&mut self, at: Span) -> Result<ExprId, Stop> {
        let mut entries = Vec::new();
        let mut parts = 0;
        while !self.take("}") {
            let key: Arc<str> = match self.peek() {
                Some(Token::Text(key)) => (**key).into(),
                Some(Token::Word(key)) => (*key).into(),
                Some(Token::Int(_) | Token::Float(_)) => self.here().text(self.source).into(),
                _ => return self.fail("a key is expected here: a name, a text or a number"),
            };
            self.at += 1;
            self.expect(":")?;
            let value = self.expression()?;
            parts = parts.max(self.depth(value));
            entries.push((key, value));
            if !self.take(",") && !self.is("}") {
                return self.fail("',' or '}' is expected here");
            }
        }
        entries.shrink_to_fit();
        let kind = self.ast.compound_of(Compound::Dict(Box::new(entries)));
        self.node(kind, at.to(self.before()), parts)
    }
}
