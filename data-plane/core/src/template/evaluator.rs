//! Runs a tree. Hides scopes, loops and what is missing. Recursion is bounded by the limits on tags and expressions, and
//! frames are kept small: one node kind is one function.

use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{Object, ObjectRepr, ValueKind};

use super::ast::{Ast, BlockId, ExprId, ExprKind, Link, Node, Site, Span};
use super::containers::{self, Entries, Entry};
use super::error::{Fault, RenderErrorKind};
use super::filters::{self, Around, Filter};
use super::limits::{self, Meter};
use super::methods::{self, Method};
use super::operators::{self, build_list, build_map};
use super::traced::{Origin, Traced};
use super::value_tests::Test;
use super::values::{self, is_null, is_true};
use super::{Context, Mode, OnMissing, json_sites, url_sites};

type Run<T> = Result<T, Box<Fault>>;

/// Which bytes of the output one placeholder has written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) at: Span,
}

pub(super) struct Evaluator<'t> {
    ast: &'t Ast,
    source: &'t str,
    mode: Mode,
    context: &'t Context,
    on_missing: OnMissing,
    meter: Meter,
    /// The template's own names; one scope more for each loop. `if` opens none, so that a `set` inside leaks out, and a
    /// loop keeps its scope from pass to pass (Jinjava).
    scopes: Vec<Vec<(Arc<str>, Traced)>>,
    /// What a template that changes lists or maps has taken from the context: copies of its own.
    taken: Vec<(Arc<str>, Value)>,
    pub(super) out: String,
    pub(super) written: Vec<Written>,
    pub(super) missing: Vec<String>,
}

/// `loop` inside of a `for`.
#[derive(Debug)]
struct Loop {
    index: usize,
    length: usize,
}

impl Object for Loop {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let count = |number: usize| Some(Value::from(number as i64));
        match key.as_str()? {
            "index" | "counter" => count(self.index + 1),
            "index0" => count(self.index),
            "revindex" => count(self.length - self.index),
            "revindex0" => count(self.length - self.index - 1),
            "length" => count(self.length),
            "first" => Some(Value::from(self.index == 0)),
            "last" => Some(Value::from(self.index + 1 == self.length)),
            _ => None,
        }
    }
}

impl<'t> Evaluator<'t> {
    pub(super) fn new(ast: &'t Ast, source: &'t str, mode: Mode, context: &'t Context, on_missing: OnMissing) -> Self {
        Evaluator {
            ast,
            source,
            mode,
            context,
            on_missing,
            meter: Meter::new(),
            scopes: vec![Vec::new()],
            taken: Vec::new(),
            out: String::new(),
            written: Vec::new(),
            missing: Vec::new(),
        }
    }

    // ---- nodes ----

    pub(super) fn block(&mut self, id: BlockId) -> Run<()> {
        let ast = self.ast;
        for node in ast.block(id) {
            self.meter.steps(1)?;
            match node {
                Node::Text(span) => self.text(*span)?,
                Node::Output { expr, site, at } => self.output(*expr, *site, *at)?,
                Node::If { arms, otherwise, .. } => {
                    if let Some(body) = self.arm(arms, *otherwise)? {
                        self.block(body)?;
                    }
                }
                Node::For { names, list, body, at } => self.for_each(names, *list, *body, *at)?,
                Node::Set { names, values } => self.set(names, values)?,
                Node::Do(expr) => self.eval(*expr).map(drop)?,
            }
        }
        Ok(())
    }

    #[inline(never)]
    fn text(&mut self, span: Span) -> Run<()> {
        let text = span.text(self.source);
        if self.out.len() + text.len() > limits::OUTPUT_BYTES {
            return Err(limits::over("bytes of output", limits::OUTPUT_BYTES).or_at(span));
        }
        self.out.push_str(text);
        Ok(())
    }

    #[inline(never)]
    fn output(&mut self, expr: ExprId, site: Site, at: Span) -> Run<()> {
        let mut traced = self.eval(expr)?;
        if self.on_missing == OnMissing::Null && traced.value.is_undefined() && traced.origin != Origin::Author {
            traced = Traced::author(Value::from("null"));
        }
        let cap = limits::OUTPUT_BYTES - self.out.len();
        let too_long = |_| limits::over("bytes of output", limits::OUTPUT_BYTES);
        let text = match self.mode {
            Mode::Text | Mode::Header => values::display(&traced.value, cap).map_err(too_long),
            Mode::Json => json_sites::encode(site, &traced, cap),
            Mode::Url => url_sites::encode(&traced, cap).map_err(too_long),
        };
        let text = text.map_err(|fault| fault.or_at(at))?;
        if text.len() > cap {
            return Err(limits::over("bytes of output", limits::OUTPUT_BYTES).or_at(at));
        }
        let start = self.out.len();
        self.out.push_str(&text);
        self.written.push(Written { start, end: self.out.len(), at });
        Ok(())
    }

    /// The body of the first arm that holds.
    #[inline(never)]
    fn arm(&mut self, arms: &[(ExprId, BlockId)], otherwise: Option<BlockId>) -> Run<Option<BlockId>> {
        for (condition, body) in arms {
            if is_true(&self.asked(*condition)?.value) {
                return Ok(Some(*body));
            }
        }
        Ok(otherwise)
    }

    #[inline(never)]
    fn set(&mut self, names: &[Arc<str>], values: &[ExprId]) -> Run<()> {
        let values = values.iter().map(|value| self.eval(*value)).collect::<Run<Vec<_>>>()?;
        for (name, value) in names.iter().zip(values) {
            self.bind(name, value)?;
        }
        Ok(())
    }

    fn bind(&mut self, name: &Arc<str>, value: Traced) -> Run<()> {
        let all: usize = self.scopes.iter().map(Vec::len).sum();
        let Some(scope) = self.scopes.last_mut() else { return Ok(()) };
        match scope.iter_mut().find(|(known, _)| known == name) {
            Some((_, place)) => *place = value,
            None if all == limits::NAMES => return Err(limits::over("names", limits::NAMES)),
            None => scope.push((name.clone(), value)),
        }
        Ok(())
    }

    #[inline(never)]
    fn for_each(&mut self, names: &[Arc<str>], list: ExprId, body: BlockId, at: Span) -> Run<()> {
        let list = self.eval(list)?;
        let items = self.passes(&list).map_err(|fault| fault.or_at(at))?;
        let loop_name: Arc<str> = "loop".into();
        self.scopes.push(Vec::new());
        for (index, item) in items.iter().enumerate() {
            self.meter.steps(1).map_err(|fault| fault.or_at(at))?;
            self.unpack(names, item, list.origin).map_err(|fault| fault.or_at(at))?;
            let length = items.len();
            self.bind(&loop_name, Traced::author(Value::from_object(Loop { index, length })))?;
            self.block(body)?;
        }
        self.scopes.pop();
        Ok(())
    }

    /// What a loop goes through: items of a list, values of a map, nothing for null, anything else once.
    fn passes(&mut self, list: &Traced) -> Run<Vec<Value>> {
        let value = &list.value;
        let items = match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => values::items(value).map(|items| items.into_owned()),
            ValueKind::Map => values::entries(value).map(|entries| entries.into_iter().map(|(_, item)| item).collect()),
            _ if is_null(value) => None,
            _ => Some(vec![value.clone()]),
        };
        let items = items.unwrap_or_default();
        self.meter.visiting(items.len())?;
        Ok(items)
    }

    /// One name takes the item; more names take its parts: key and value, items of a list, or a map's entries by name.
    #[inline(never)]
    fn unpack(&mut self, names: &[Arc<str>], item: &Value, origin: Origin) -> Run<()> {
        if let [name] = names {
            return self.bind(name, Traced { value: item.clone(), origin });
        }
        if values::items(item).is_some_and(|parts| parts.len() < names.len()) {
            return Err(Fault::eval(format!("an item of this list has less than {} parts", names.len())));
        }
        for (position, name) in names.iter().enumerate() {
            let part = match item.downcast_object_ref::<Entry>() {
                Some(entry) if position == 0 => Value::from(entry.key.clone()),
                Some(entry) if position == 1 => entry.value.clone(),
                Some(_) => Value::UNDEFINED,
                None if item.kind() == ValueKind::Map => values::attr(item, name),
                None => values::item(item, &Value::from(position as i64)),
            };
            self.bind(name, Traced::found(part, origin))?;
        }
        Ok(())
    }

    // ---- expressions ----

    pub(super) fn eval(&mut self, id: ExprId) -> Run<Traced> {
        self.value_of(id, false)
    }

    /// Evaluates what the template asks about rather than prints: a missing path is an answer here, and not missed.
    fn asked(&mut self, id: ExprId) -> Run<Traced> {
        self.value_of(id, true)
    }

    fn value_of(&mut self, id: ExprId, asked: bool) -> Run<Traced> {
        self.meter.steps(1)?;
        let ast = self.ast;
        let expr = ast.expr(id);
        let result = match &expr.kind {
            ExprKind::Const(value) => return Ok(Traced::author(value.clone())),
            ExprKind::Var(_) => self.postfix(id, &[], asked),
            ExprKind::Postfix { base, links } => self.postfix(*base, links, asked),
            ExprKind::List(items) => self.list(items),
            ExprKind::Dict(entries) => self.dict(entries),
            ExprKind::Negate(operand) => self.negate(*operand),
            ExprKind::Not(operand) => self.not(*operand),
            ExprKind::Chain { first, rest } => self.chain(*first, rest),
            ExprKind::Logic { any, operands } => self.logic(*any, operands),
            ExprKind::Choice { condition, then, otherwise } => self.choice(*condition, *then, *otherwise),
        };
        match result {
            Err(fault) => Err(fault.or_at(expr.at)),
            result => result,
        }
    }

    #[inline(never)]
    fn list(&mut self, items: &[ExprId]) -> Run<Traced> {
        let items = items.iter().map(|item| self.eval(*item)).collect::<Run<Vec<_>>>()?;
        let origin = self.origin_of(&items);
        let list = build_list(items.into_iter().map(|item| item.value).collect(), &mut self.meter)?;
        Ok(written(list, origin))
    }

    #[inline(never)]
    fn dict(&mut self, entries: &[(Arc<str>, ExprId)]) -> Run<Traced> {
        let values = entries.iter().map(|(_, value)| self.eval(*value)).collect::<Run<Vec<_>>>()?;
        let origin = self.origin_of(&values);
        let keys = entries.iter().map(|(key, _)| key.clone());
        let map: Entries = keys.zip(values.into_iter().map(|value| value.value)).collect();
        Ok(written(build_map(map, &mut self.meter)?, origin))
    }

    /// Looked at when all parts are there: a later one may have changed an earlier one.
    fn origin_of(&self, parts: &[Traced]) -> Origin {
        operators::origin_of(parts.iter().map(|part| self.settled(part.clone()).origin))
    }

    #[inline(never)]
    fn negate(&mut self, operand: ExprId) -> Run<Traced> {
        operators::negate(&self.eval(operand)?)
    }

    #[inline(never)]
    fn not(&mut self, operand: ExprId) -> Run<Traced> {
        let operand = self.asked(operand)?;
        Ok(Traced::author(Value::from(!is_true(&operand.value))))
    }

    #[inline(never)]
    fn chain(&mut self, first: ExprId, rest: &[(super::ast::Binary, ExprId)]) -> Run<Traced> {
        let mut left = self.eval(first)?;
        for (op, right) in rest {
            let right = self.eval(*right)?;
            left = operators::binary(*op, left, right, &mut self.meter)?;
        }
        Ok(left)
    }

    /// `or` gives the first operand that is true, or the last; `and` gives a boolean (Jinjava).
    #[inline(never)]
    fn logic(&mut self, any: bool, operands: &[ExprId]) -> Run<Traced> {
        let mut last = Traced::author(Value::from(true));
        for (position, operand) in operands.iter().enumerate() {
            // The last operand of an `or` is what is printed when all others are false.
            let asked = !any || position + 1 < operands.len();
            last = self.value_of(*operand, asked)?;
            if is_true(&last.value) == any {
                break;
            }
        }
        if any { Ok(last) } else { Ok(Traced::author(Value::from(is_true(&last.value)))) }
    }

    #[inline(never)]
    fn choice(&mut self, condition: ExprId, then: ExprId, otherwise: Option<ExprId>) -> Run<Traced> {
        if is_true(&self.asked(condition)?.value) {
            return self.eval(then);
        }
        match otherwise {
            Some(otherwise) => self.eval(otherwise),
            None => Ok(Traced::author(Value::UNDEFINED)),
        }
    }

    /// A base and its links. A run of lookups that ends nowhere is a missing path, unless what follows asks for that.
    #[inline(never)]
    fn postfix(&mut self, base: ExprId, links: &[Link], asked: bool) -> Run<Traced> {
        let ast = self.ast;
        let (mut value, mut lookup) = match &ast.expr(base).kind {
            ExprKind::Var(name) => (self.variable(name)?, true),
            _ => (self.eval(base)?, false),
        };
        for (position, link) in links.iter().enumerate() {
            self.meter.steps(1)?;
            if lookup && value.value.is_undefined() && !is_lookup(link) && !asks(link) {
                self.miss(base, &links[..position])?;
            }
            lookup = is_lookup(link);
            value = self.link(link, value)?;
        }
        if lookup && value.value.is_undefined() && !asked {
            self.miss(base, links)?;
        }
        if value.value.kind() == ValueKind::Invalid {
            return Err(limits::over("levels of lists and maps", limits::VALUE_DEPTH as usize));
        }
        Ok(value)
    }

    fn variable(&mut self, name: &Arc<str>) -> Run<Traced> {
        let own = self.scopes.iter().rev().find_map(|scope| scope.iter().find(|(known, _)| known == name));
        match own {
            Some((_, value)) => Ok(self.settled(value.clone())),
            None if self.ast.changes => self.take(name).map(Traced::data),
            None => Ok(Traced::data(self.context.get(name))),
        }
    }

    /// A name of the context, in a copy that this render may change. Every use of the name gets the same copy.
    fn take(&mut self, name: &Arc<str>) -> Run<Value> {
        if let Some((_, value)) = self.taken.iter().find(|(known, _)| known == name) {
            return Ok(value.clone());
        }
        let value = containers::own_copy(&self.context.get(name), &mut self.meter)?;
        self.taken.push((name.clone(), value.clone()));
        Ok(value)
    }

    /// A list or map may have been given data since it was written down: then it is the author's no more.
    fn settled(&self, traced: Traced) -> Traced {
        let doubtful = self.ast.changes && traced.origin != Origin::Data && traced.value.as_object().is_some();
        if doubtful && !containers::is_only_author(&traced.value) { Traced::data(traced.value) } else { traced }
    }

    fn link(&mut self, link: &Link, value: Traced) -> Run<Traced> {
        match link {
            Link::Attr(name) => Ok(Traced::found(values::attr(&value.value, name), value.origin)),
            Link::Item(key) => self.item(value, *key),
            Link::Filter { filter, args, at } => self.filter(*filter, value, args).map_err(|fault| fault.or_at(*at)),
            Link::Test { test, negated, argument, at } => {
                let holds = self.test(*test, &value, *argument).map_err(|fault| fault.or_at(*at))?;
                Ok(Traced::author(Value::from(holds != *negated)))
            }
            Link::Method { method, args, at } => self.method(*method, value, args).map_err(|fault| fault.or_at(*at)),
        }
    }

    #[inline(never)]
    fn item(&mut self, value: Traced, key: ExprId) -> Run<Traced> {
        let key = self.eval(key)?;
        if key.value.as_str().is_none() && value.value.kind() == ValueKind::Map {
            // A number or a list as a key is turned into text.
            let key = filters::text_of(&key.value, &mut self.meter)?;
            return Ok(Traced::found(values::attr(&value.value, &key), value.origin));
        }
        Ok(Traced::found(values::item(&value.value, &key.value), value.origin))
    }

    #[inline(never)]
    fn filter(&mut self, filter: Filter, value: Traced, args: &[Option<ExprId>]) -> Run<Traced> {
        let mut given = Vec::with_capacity(args.len());
        for arg in args {
            given.push(match arg {
                Some(arg) => Some(self.eval(*arg)?),
                None => None,
            });
        }
        // Looked at when all are there: a later one may have changed an earlier one.
        let value = self.settled(value);
        given = given.into_iter().map(|arg| arg.map(|arg| self.settled(arg))).collect();
        let around = Around { mode: self.mode, now: self.context.now };
        filters::apply(filter, value, &given, around, &mut self.meter)
    }

    #[inline(never)]
    fn test(&mut self, test: Test, value: &Traced, argument: Option<ExprId>) -> Run<bool> {
        let argument = argument.map(|argument| self.eval(argument)).transpose()?;
        test.holds(&value.value, argument.as_ref().map(|argument| &argument.value), &mut self.meter)
    }

    #[inline(never)]
    fn method(&mut self, method: Method, target: Traced, args: &[ExprId]) -> Run<Traced> {
        let args = args.iter().map(|arg| self.eval(*arg)).collect::<Run<Vec<_>>>()?;
        methods::call(method, &self.settled(target), &args, &mut self.meter)
    }

    // ---- missing paths (D32) ----

    #[inline(never)]
    fn miss(&mut self, base: ExprId, links: &[Link]) -> Run<()> {
        let path = self.path(base, links);
        if self.on_missing == OnMissing::Fail {
            let message = format!("'{path}' is missing");
            return Err(Fault::new(RenderErrorKind::Missing, message).or_at(self.ast.expr(base).at));
        }
        if self.missing.len() < limits::MISSING_PATHS && !self.missing.contains(&path) {
            self.missing.push(path);
        }
        Ok(())
    }

    /// The path as the template has it: names only, never values.
    fn path(&self, base: ExprId, links: &[Link]) -> String {
        let mut path = self.ast.expr(base).at.text(self.source).to_owned();
        for link in links {
            if path.len() > limits::PATH_BYTES {
                break;
            }
            match link {
                Link::Attr(name) => {
                    path.push('.');
                    path.push_str(name);
                }
                Link::Item(key) => self.push_key(*key, &mut path),
                Link::Filter { filter, args, .. } if filter.is_lookup() => {
                    args.iter().flatten().for_each(|key| self.push_key(*key, &mut path));
                }
                Link::Filter { at, .. } => {
                    path.push('|');
                    path.push_str(at.text(self.source));
                }
                Link::Test { .. } | Link::Method { .. } => path.push_str("()"),
            }
        }
        if path.len() > limits::PATH_BYTES {
            path.truncate(path.floor_char_boundary(limits::PATH_BYTES));
            path.push('…');
        }
        path
    }

    fn push_key(&self, key: ExprId, path: &mut String) {
        let expr = self.ast.expr(key);
        let name = match &expr.kind {
            ExprKind::Const(value) => value.as_str(),
            _ => None,
        };
        match name.filter(|name| !name.is_empty() && name.chars().all(|c| c == '_' || c.is_alphanumeric())) {
            Some(name) => {
                path.push('.');
                path.push_str(name);
            }
            None => {
                path.push('[');
                path.push_str(expr.at.text(self.source));
                path.push(']');
            }
        }
    }
}

/// A list or map as the template has it.
fn written(value: Value, origin: Origin) -> Traced {
    if origin == Origin::Author {
        containers::mark_author(&value);
    }
    Traced { value, origin }
}

fn is_lookup(link: &Link) -> bool {
    match link {
        Link::Attr(_) | Link::Item(_) => true,
        Link::Filter { filter, .. } => filter.is_lookup(),
        _ => false,
    }
}

/// Whether a missing path is what this link asks about.
fn asks(link: &Link) -> bool {
    match link {
        Link::Test { test, .. } => test.asks_for_missing(),
        Link::Filter { filter, .. } => filter.asks_for_missing(),
        _ => false,
    }
}
