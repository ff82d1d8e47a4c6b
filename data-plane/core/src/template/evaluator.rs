//! Values of expressions. Hides where a name is found and what is missing. Recursion is bounded by the limits on tags,
//! expressions and macros, and frames are kept small: one kind of expression is one function. What tags do is in
//! [`nodes`](super::nodes), macros are in [`macros`](super::macros).

use std::borrow::Cow;
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::ValueKind;

use super::ast::{Argument, Ast, Binary, Compound, ExprId, ExprKind, Link, NameId, Path, Site, Span};
use super::containers;
use super::entries::{Entries, Key};
use super::error::Fault;
use super::filters::{self, Around, Filter, text_of};
use super::functions::{self, Function};
use super::limits::{self, Meter};
use super::macros::Callers;
use super::methods::{self, Method};
use super::operators::{self, build_list, build_map};
use super::page::Page;
use super::scopes::Scopes;
use super::source::Source;
use super::traced::{Origin, Traced};
use super::value_tests::Test;
use super::values::{self, is_null, is_true};
use super::{Context, Mode, OnMissing, utf16};

pub(super) type Run<T> = Result<T, Box<Fault>>;

/// One render.
pub(super) struct Evaluator<'t> {
    pub(super) ast: &'t Ast,
    pub(super) source: &'t Source,
    context: &'t Context,
    pub(super) meter: Meter,
    pub(super) scopes: Scopes,
    /// What has been taken from the context, by name. A template that changes lists or maps takes copies of its own.
    taken: Vec<Option<Value>>,
    /// Blocks and expressions that wait for one inside.
    depth: usize,
    pub(super) callers: Callers,
    /// The text that a set block has just caught.
    pub(super) caught: Option<Traced>,
    /// What an `ifchanged` saw last, by its place.
    pub(super) seen: Vec<(Span, Value)>,
    pub(super) page: Page,
    pub(super) missing: Vec<String>,
}

impl<'t> Evaluator<'t> {
    pub(super) fn new(
        ast: &'t Ast,
        source: &'t Source,
        mode: Mode,
        context: &'t Context,
        on_missing: OnMissing,
    ) -> Self {
        Evaluator {
            ast,
            source,
            context,
            meter: Meter::new(context.steps_most()),
            scopes: Scopes::new(),
            taken: vec![None; ast.names.len()],
            depth: 0,
            callers: Callers::default(),
            caught: None,
            seen: Vec::new(),
            page: Page::new(mode, on_missing, source.text.len()),
            missing: Vec::new(),
        }
    }

    /// So many levels further in. Ends with [`leave`](Self::leave), unless the render ends.
    pub(super) fn enter(&mut self, levels: usize) -> Run<()> {
        self.depth += levels;
        if self.depth > limits::RUN_DEPTH { Err(limits::over("levels", limits::RUN_DEPTH)) } else { Ok(()) }
    }

    pub(super) fn leave(&mut self, levels: usize) {
        self.depth -= levels;
    }

    pub(super) fn eval(&mut self, id: ExprId) -> Run<Traced> {
        self.value_of(id, false)
    }

    /// Evaluates what the template asks about rather than prints: a missing path is an answer here, and not missed.
    pub(super) fn asked(&mut self, id: ExprId) -> Run<Traced> {
        self.value_of(id, true)
    }

    fn value_of(&mut self, id: ExprId, asked: bool) -> Run<Traced> {
        self.meter.steps(1)?;
        let expr = self.ast.expr(id);
        if let ExprKind::Const(value) = expr.kind {
            return Ok(Traced::author(self.ast.constant(value).clone()));
        }
        self.enter(1)?;
        let result = match expr.kind {
            ExprKind::Const(_) | ExprKind::Path { .. } => self.postfix(id, &[], asked),
            ExprKind::Negate(operand) => self.negate(operand),
            ExprKind::Not(operand) => self.not(operand),
            ExprKind::Empty(operand) => self.empty(operand),
            ExprKind::Captured => Ok(self.caught.take().unwrap_or(Traced::author(Value::UNDEFINED))),
            ExprKind::Compound(compound) => match self.ast.compound(compound) {
                Compound::Postfix { base, first, count } => self.postfix(*base, self.ast.links(*first, *count), asked),
                Compound::List { first, count } => self.list(self.ast.operands(*first, *count)),
                Compound::Dict(entries) => self.dict(entries),
                Compound::Chain { first, rest } => self.chain(*first, rest),
                Compound::Logic { any, operands } => self.logic(*any, operands),
                Compound::Choice { condition, then, otherwise } => self.choice(*condition, *then, *otherwise),
                Compound::Function(call) => self.function(call.0, &call.1),
                Compound::Call(call) => self.call(call.0, &call.1, None),
                Compound::Field { base, field, required } => self.field(*base, *field, *required, expr.at),
            },
        };
        self.leave(1);
        match result {
            Err(fault) => Err(fault.or_at(expr.at)),
            result => result,
        }
    }

    #[inline(never)]
    fn list(&mut self, items: &[Option<ExprId>]) -> Run<Traced> {
        // Loops of our own, here and below: what collects through closures takes several times the stack.
        let mut parts = Vec::with_capacity(items.len());
        for item in items.iter().flatten() {
            parts.push(self.eval(*item)?);
        }
        self.list_of(parts)
    }

    #[inline(never)]
    fn list_of(&mut self, items: Vec<Traced>) -> Run<Traced> {
        let origin = self.origin_of(&items);
        let list = build_list(items.into_iter().map(|item| item.value).collect(), &mut self.meter)?;
        Ok(written(list, origin))
    }

    #[inline(never)]
    fn dict(&mut self, entries: &[(Arc<str>, ExprId)]) -> Run<Traced> {
        let mut values = Vec::with_capacity(entries.len());
        for (_, value) in entries {
            values.push(self.eval(*value)?);
        }
        self.dict_of(entries, values)
    }

    #[inline(never)]
    fn dict_of(&mut self, entries: &[(Arc<str>, ExprId)], values: Vec<Traced>) -> Run<Traced> {
        let origin = self.origin_of(&values);
        let keys = entries.iter().map(|(key, _)| Key::from(key.clone()));
        let map: Entries = keys.zip(values.into_iter().map(|value| value.value)).collect();
        Ok(written(build_map(map, &mut self.meter)?, origin))
    }

    /// Looked at when all parts are there: a later one may have changed an earlier one.
    fn origin_of(&self, parts: &[Traced]) -> Origin {
        operators::origin_of(parts.iter().map(|part| self.settled_origin(part)))
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

    /// Null, and texts, lists and maps that hold nothing.
    #[inline(never)]
    fn empty(&mut self, operand: ExprId) -> Run<Traced> {
        let value = self.asked(operand)?.value;
        let nothing = is_null(&value) || value.as_str() == Some("") || value.len() == Some(0);
        Ok(Traced::author(Value::from(nothing)))
    }

    #[inline(never)]
    fn chain(&mut self, first: ExprId, rest: &[(Binary, ExprId)]) -> Run<Traced> {
        let mut left = self.eval(first)?;
        for (op, right) in rest {
            let right = self.eval(*right)?;
            left.origin = self.settled_origin(&left);
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

    #[inline(never)]
    fn function(&mut self, function: Function, args: &[Argument]) -> Run<Traced> {
        let mut given = Vec::with_capacity(args.len());
        for arg in args {
            given.push((arg.name.clone(), self.eval(arg.value)?));
        }
        let origin = operators::origin_of(given.iter().map(|(_, arg)| self.settled_origin(arg)));
        let harmless = function != Function::Namespace;
        let value = functions::call(function, &given, &mut self.meter)?;
        Ok(written(value, if harmless { Origin::Author } else { origin }))
    }

    /// The text of a field of the form, or an attribute of the customer, without which nothing is sent (F81). A list is left to its
    /// place: in a JSON value it is JSON (D07), anywhere else the text of that.
    #[inline(never)]
    fn field(&mut self, base: NameId, field: Span, required: bool, at: Span) -> Run<Traced> {
        let field = field.text(&self.source.text);
        let whole = self.variable(base)?;
        let value = values::attr(&whole.value, field);
        if value.kind() == ValueKind::Seq {
            return Ok(Traced::data(value));
        }
        if !is_null(&value) {
            return Ok(Traced::data(Value::from(text_of(&value, &mut self.meter)?)));
        }
        let path = format!("{}.{field}", self.name(base));
        if required {
            return Err(Fault::skip(at, format!("'{path}' is missing, and the template requires it")));
        }
        if value.is_undefined() {
            self.missed(path, at)?;
        }
        Ok(Traced::data(Value::UNDEFINED))
    }

    /// A base and its links. A run of lookups that ends nowhere is a missing path, unless what follows asks for that.
    #[inline(never)]
    fn postfix(&mut self, base: ExprId, links: &[Link], asked: bool) -> Run<Traced> {
        let path = self.ast.expr(base).path();
        let mut value = match path {
            Some(path) => self.named(path)?,
            None => self.eval(base)?,
        };
        let mut lookup = path.is_some();
        for (done, link) in links.iter().enumerate() {
            self.meter.steps(1)?;
            if lookup && value.value.is_undefined() && !is_lookup(link) && !asks(link) {
                self.miss(base, &links[..done])?;
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

    /// `name.a.b`: a variable and the names behind it.
    #[inline(never)]
    fn named(&mut self, path: Path) -> Run<Traced> {
        self.meter.steps(usize::from(path.names))?;
        if let Some(own) = self.scopes.get(path.name) {
            let (value, origin) = (self.behind(&own.value, path).into_owned(), self.settled_origin(own));
            return Ok(if path.names == 0 { Traced { value, origin } } else { Traced::found(value, origin) });
        }
        if let Some(Some(value)) = self.taken.get(path.name.0 as usize) {
            return Ok(Traced::data(self.behind(value, path).into_owned()));
        }
        let mut value = self.context.get(self.name(path.name));
        if self.ast.changes {
            value = containers::own_copy(&value, &mut self.meter)?;
        }
        let found = self.behind(&value, path).into_owned();
        if let Some(place) = self.taken.get_mut(path.name.0 as usize) {
            *place = Some(value);
        }
        Ok(Traced::data(found))
    }

    /// What the names behind a variable lead to.
    fn behind<'v>(&self, value: &'v Value, path: Path) -> Cow<'v, Value> {
        values::attrs(value, self.ast.behind(path, &self.source.text))
    }

    /// A name as it is written.
    pub(super) fn name(&self, id: NameId) -> &'t str {
        self.ast.name(id, &self.source.text)
    }

    /// Prints what is a name, or names behind it, where it lies: most of all outputs. `false` where there is more to do.
    pub(super) fn print_named(&mut self, expr: ExprId, site: Site) -> Run<bool> {
        let expr = self.ast.expr(expr);
        let (Some(path), at) = (expr.path(), expr.at) else { return Ok(false) };
        let (whole, origin) = match self.scopes.get(path.name) {
            _ if self.ast.changes => return Ok(false),
            Some(own) => (&own.value, own.origin),
            None => match self.taken.get(path.name.0 as usize) {
                Some(Some(value)) => (value, Origin::Data),
                _ => return Ok(false),
            },
        };
        let value = self.behind(whole, path);
        if matches!(value.kind(), ValueKind::Undefined | ValueKind::Invalid) {
            return Ok(false);
        }
        self.meter.steps(1 + usize::from(path.names)).map_err(|fault| fault.or_inside(at))?;
        self.page.print(&value, origin, site, at, &mut self.meter)?;
        Ok(true)
    }

    pub(super) fn variable(&mut self, name: NameId) -> Run<Traced> {
        self.named(Path::of(name))
    }

    /// A list or map may have been given data since it was written down: then it is the author's no more.
    pub(super) fn settled_origin(&self, traced: &Traced) -> Origin {
        let doubtful = self.ast.changes && traced.origin != Origin::Data && traced.value.as_object().is_some();
        if doubtful && !containers::is_only_author(&traced.value) { Origin::Data } else { traced.origin }
    }

    fn link(&mut self, link: &Link, value: Traced) -> Run<Traced> {
        match link {
            Link::Attr(name) => Ok(self.attr(*name, value)),
            Link::Item(key) => self.item(value, *key),
            Link::Slice(from, to) => self.slice(value, *from, *to),
            Link::Filter { filter, first, count, at } => self.filtered(*filter, (*first, *count), *at, value),
            Link::Test { test, negated, argument, at } => self.tested((*test, *negated), *argument, *at, value),
            Link::Method { method, first, count, at } => self.called(*method, (*first, *count), *at, value),
        }
    }

    #[inline(never)]
    fn attr(&self, name: Span, value: Traced) -> Traced {
        Traced::found(values::attr(&value.value, name.text(&self.source.text)), value.origin)
    }

    #[inline(never)]
    fn filtered(&mut self, filter: Filter, (first, count): (u32, u16), at: Span, value: Traced) -> Run<Traced> {
        self.filter(filter, value, self.ast.operands(first, count)).map_err(|fault| fault.or_at(at))
    }

    #[inline(never)]
    fn tested(
        &mut self,
        (test, negated): (Test, bool),
        argument: Option<ExprId>,
        at: Span,
        value: Traced,
    ) -> Run<Traced> {
        let holds = self.test(test, &value, argument).map_err(|fault| fault.or_at(at))?;
        Ok(Traced::author(Value::from(holds != negated)))
    }

    #[inline(never)]
    fn called(&mut self, method: Method, (first, count): (u32, u16), at: Span, value: Traced) -> Run<Traced> {
        self.method(method, value, self.ast.operands(first, count)).map_err(|fault| fault.or_at(at))
    }

    #[inline(never)]
    fn item(&mut self, mut value: Traced, key: ExprId) -> Run<Traced> {
        let key = self.eval(key)?;
        value.origin = self.settled_origin(&value);
        if key.value.as_str().is_none() && value.value.kind() == ValueKind::Map {
            // A number or a list as a key is turned into text.
            let key = filters::text_of(&key.value, &mut self.meter)?;
            return Ok(Traced::found(values::attr(&value.value, &key), value.origin));
        }
        Ok(Traced::found(values::item(&value.value, &key.value), value.origin))
    }

    /// A part of a text or a list; positions from the end are negative, and what lies outside is left out.
    #[inline(never)]
    fn slice(&mut self, mut value: Traced, from: Option<ExprId>, to: Option<ExprId>) -> Run<Traced> {
        let mut bound = |bound: Option<ExprId>| -> Run<Option<i64>> {
            let Some(bound) = bound else { return Ok(None) };
            let bound = self.eval(bound)?.value;
            match values::coerced_number(&bound).filter(|_| !is_null(&bound)) {
                Some(number) => Ok(Some(number.as_f64() as i64)),
                None if is_null(&bound) => Ok(None),
                None => Err(Fault::eval(format!("a position is a whole number, not {}", operators::kind(&bound)))),
            }
        };
        let (from, to) = (bound(from)?.unwrap_or(0), bound(to)?);
        value.origin = self.settled_origin(&value);
        let within = |length: usize| {
            let place = |at: i64| (if at < 0 { at + length as i64 } else { at }).clamp(0, length as i64) as usize;
            let (from, to) = (place(from), to.map_or(length, place));
            from..to.max(from)
        };
        if let Some(text) = value.value.as_str() {
            self.meter.reading(text.len())?;
            let range = within(utf16::length(text));
            let part = utf16::part(text, range.start, range.end);
            self.meter.string(part.len())?;
            return Ok(Traced { value: Value::from(part), origin: value.origin.reshaped() });
        }
        let Some(items) = values::items(&value.value) else {
            return Ok(Traced::data(Value::from(())));
        };
        let part = items.get(within(items.len())).unwrap_or_default().to_vec();
        let origin = value.origin;
        Ok(written(build_list(part, &mut self.meter)?, origin))
    }

    #[inline(never)]
    fn filter(&mut self, filter: Filter, mut value: Traced, args: &[Option<ExprId>]) -> Run<Traced> {
        let mut given = Vec::with_capacity(args.len());
        for arg in args {
            given.push(match arg {
                Some(arg) => Some(self.eval(*arg)?),
                None => None,
            });
        }
        // Looked at when all are there: a later one may have changed an earlier one.
        value.origin = self.settled_origin(&value);
        for arg in given.iter_mut().flatten() {
            arg.origin = self.settled_origin(arg);
        }
        let around = Around { mode: self.page.mode, now: self.context.now };
        filters::apply(filter, value, &given, around, &mut self.meter)
    }

    #[inline(never)]
    fn test(&mut self, test: Test, value: &Traced, argument: Option<ExprId>) -> Run<bool> {
        let argument = argument.map(|argument| self.eval(argument)).transpose()?;
        test.holds(&value.value, argument.as_ref().map(|argument| &argument.value), &mut self.meter)
    }

    #[inline(never)]
    fn method(&mut self, method: Method, mut target: Traced, args: &[Option<ExprId>]) -> Run<Traced> {
        let args = args.iter().flatten().map(|arg| self.eval(*arg)).collect::<Run<Vec<_>>>()?;
        target.origin = self.settled_origin(&target);
        methods::call(method, &target, &args, &mut self.meter)
    }
}

/// A list or map as the template has it.
pub(super) fn written(value: Value, origin: Origin) -> Traced {
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
