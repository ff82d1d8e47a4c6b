//! What is hung on a value by name: methods, filters and tests. Hides how arguments find their parameters. What a name
//! does not take is refused, never ignored (I9).

use minijinja::Value;

use super::super::ast::{Argument, ExprId, Link, Span};
use super::super::error::ErrorCode;
use super::super::filters::{Filter, Pattern};
use super::super::limits::PATTERN_KIB;
use super::super::methods::Method;
use super::super::tokens::Token;
use super::super::value_tests::Test;
use super::{Expressions, Hung, Infix, Stop};

impl Expressions<'_> {
    /// `(a, name=b)`.
    pub(super) fn arguments(&mut self, parts: &mut usize) -> Result<Vec<Argument>, Stop> {
        let mut arguments = Vec::new();
        self.expect("(")?;
        while !self.take(")") {
            let named = matches!(self.tokens.get(self.at + 1), Some((Token::Symbol("="), _)));
            let name = if named { Some(self.name("a name")?.0.into()) } else { None };
            self.at += usize::from(named);
            let value = self.expression()?;
            *parts = (*parts).max(self.depth(value));
            arguments.push(Argument { name, value });
            if !self.take(",") && !self.is(")") {
                return self.fail("',' or ')' is expected here");
            }
        }
        Ok(arguments)
    }

    #[inline(never)]
    pub(super) fn attr(&mut self, parts: &mut usize) -> Result<Link, Stop> {
        let (name, at) = self.name("a name")?;
        if !self.is("(") {
            return Ok(Link::Attr(at));
        }
        let given = self.arguments(parts)?;
        let Some(method) = Method::named(name) else {
            self.problems.unknown(ErrorCode::UnknownFunction, at, "method", name, &Method::names());
            return Ok(Link::Attr(at));
        };
        if let Some(takes) = method.takes_other_than(given.len()) {
            self.problems.add(ErrorCode::Syntax, at, format!("'{name}' takes {takes}"));
        }
        if let Some(named) = given.iter().find(|argument| argument.name.is_some()) {
            let at = self.ast.expr(named.value).at;
            self.problems.add(ErrorCode::Syntax, at, "methods take no arguments by name");
        }
        self.ast.changes |= method.changes();
        if let Some(argument) = given.first().filter(|_| method.takes_pattern()) {
            self.pattern(argument.value, method.matches_whole());
        }
        let (first, count) = self.ast.operands_of(given.into_iter().map(|argument| Some(argument.value)));
        Ok(Link::Method { method, first, count, at })
    }

    #[inline(never)]
    pub(super) fn filter(&mut self, parts: &mut usize) -> Result<Link, Stop> {
        let (name, at) = self.name("the name of a filter")?;
        let given = if self.is("(") { self.arguments(parts)? } else { Vec::new() };
        let Some(filter) = Filter::named(name) else {
            match Filter::off(name) {
                Some(why) => {
                    self.problems.add(ErrorCode::UnknownFilter, at, format!("the filter '{name}' is off: {why}"));
                }
                None => self.problems.unknown(ErrorCode::UnknownFilter, at, "filter", name, &Filter::names()),
            }
            return Ok(Link::Attr(at));
        };
        Ok(self.filter_link(filter, name, at, given))
    }

    pub(super) fn filter_link(&mut self, filter: Filter, name: &str, at: Span, given: Vec<Argument>) -> Link {
        let args = self.placed(filter, name, at, given);
        self.literals(filter, &args);
        let (first, count) = self.ast.operands_of(args);
        Link::Filter { filter, first, count, at }
    }

    /// Arguments in the order of the filter's parameters, and what it takes besides them.
    fn placed(&mut self, filter: Filter, name: &str, at: Span, given: Vec<Argument>) -> Vec<Option<ExprId>> {
        let parameters = filter.parameters();
        let mut args = vec![None; parameters.len()];
        let mut next = filter.only_by_name();
        for argument in given {
            let place = match &argument.name {
                Some(word) => parameters.iter().position(|parameter| **parameter == **word),
                None => {
                    next += 1;
                    Some(next - 1)
                }
            };
            match place {
                Some(place) if place < args.len() && args[place].is_none() => args[place] = Some(argument.value),
                Some(place) if place == args.len() && filter.takes_more() => args.push(Some(argument.value)),
                _ => {
                    let message = match parameters {
                        [] => format!("'{name}' takes nothing"),
                        _ => format!("'{name}' takes: {}", parameters.join(", ")),
                    };
                    self.problems.add(ErrorCode::Syntax, self.ast.expr(argument.value).at, message);
                }
            }
        }
        if args.iter().take(filter.required()).any(Option::is_none) {
            let needed = parameters.iter().take(filter.required()).copied().collect::<Vec<_>>().join(", ");
            self.problems.add(ErrorCode::Syntax, at, format!("'{name}' needs: {needed}"));
        }
        args
    }

    /// Checks what is written down where a test or a regular expression must stand, and compiles the latter.
    fn literals(&mut self, filter: Filter, args: &[Option<ExprId>]) {
        let written = |position: Option<usize>| {
            let id = position.and_then(|position| args.get(position).copied().flatten())?;
            self.ast.constant(id)?.to_str().map(|text| (id, text))
        };
        let (test, pattern) = (written(filter.test_at()), written(filter.pattern_at()));
        if let Some((id, name)) = test
            && Test::named(&name).is_none()
        {
            let at = self.ast.expr(id).at;
            self.problems.unknown(ErrorCode::UnknownTest, at, "test", &name, &Test::names());
        }
        if let Some((id, _)) = pattern {
            self.pattern(id, false);
        }
    }

    /// Compiles a regular expression that is written down.
    fn pattern(&mut self, id: ExprId, whole: bool) {
        let Some(text) = self.ast.constant(id).and_then(Value::as_str) else { return };
        let text = if whole { Pattern::whole(text) } else { text.to_owned() };
        match Pattern::new(&text, PATTERN_KIB - self.ast.patterns) {
            Ok(pattern) => {
                self.ast.patterns += pattern.kib();
                self.ast.replace(id, Value::from_object(pattern));
            }
            Err((code, message)) => self.problems.add(code, self.ast.expr(id).at, message),
        }
    }

    /// `even`, `not containing 2`, `within (a, b)`: an argument stands with or without parentheses.
    #[inline(never)]
    pub(super) fn test(&mut self, parts: &mut usize) -> Result<Link, Stop> {
        let negated = self.take_word("not");
        let (name, at) = match self.tokens.get(self.at) {
            // Jinjava also has tests written as signs (`x is >= 3`).
            Some((Token::Symbol(sign), at)) if matches!(*sign, "==" | "!=" | "<" | "<=" | ">" | ">=") => {
                let found = (*sign, *at);
                self.at += 1;
                found
            }
            _ => self.name("the name of a test")?,
        };
        let test = Test::named(name);
        let takes = test.is_none_or(Test::takes_argument);
        let argument = if takes && self.starts_argument(test.is_some()) { Some(self.argument()?) } else { None };
        let Some(test) = test else {
            self.problems.unknown(ErrorCode::UnknownTest, at, "test", name, &Test::names());
            return Ok(Link::Attr(at));
        };
        if argument.is_none() && test.needs_argument() {
            self.problems.add(ErrorCode::Syntax, at, format!("'{name}' needs something to compare with"));
        }
        *parts = (*parts).max(argument.map_or(0, |argument| self.depth(argument)));
        Ok(Link::Test { test, negated, argument, at })
    }

    /// Whether the next token can be an argument of a test. Of an unknown test, a sign is more likely an operator.
    fn starts_argument(&self, known: bool) -> bool {
        match self.peek() {
            Some(Token::Symbol("-")) => known,
            Some(Token::Symbol(symbol)) => matches!(*symbol, "[" | "{" | "("),
            Some(token @ Token::Word(word)) => Infix::of(token).is_none() && !["if", "else", "is"].contains(word),
            Some(_) => true,
            None => false,
        }
    }

    /// A value and what is looked up in it; filters and tests that follow are about the answer.
    fn argument(&mut self) -> Result<ExprId, Stop> {
        if self.is("-") {
            return self.prefixed();
        }
        let base = self.primary()?;
        self.postfixed(base, Hung::Lookups)
    }
}
