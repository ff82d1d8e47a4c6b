//! What tags do. Hides loops, and which texts are caught.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::Value;
use minijinja::value::{Object, ObjectRepr, ValueKind};

use super::ast::{self, BlockId, Capture, Compound, ExprId, ExprKind, LOOP, NameId, Node, Site, Span, Tag, Target};
use super::containers::{Entry, Items, Map, MapKind};
use super::error::Fault;
use super::evaluator::{Evaluator, Run, written};
use super::operators::{self, build_list};
use super::page::Page;
use super::traced::{Origin, Traced};
use super::values::{self, is_null, is_true};

/// How a block ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// At its end.
    On,
    Break,
    Continue,
}

/// `loop` inside of a `for`: one for all passes.
#[derive(Debug)]
pub(super) struct Loop {
    index: AtomicUsize,
    length: usize,
}

impl Loop {
    pub(super) fn index(&self) -> usize {
        self.index.load(Ordering::Relaxed)
    }
}

impl Object for Loop {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let count = |number: usize| Some(Value::from(number as i64));
        let index = self.index();
        match key {
            "index" | "counter" => count(index + 1),
            "index0" => count(index),
            "revindex" => count(self.length - index),
            "revindex0" => count(self.length - index - 1),
            "length" => count(self.length),
            // Loops that call themselves do not exist here.
            "depth" => count(1),
            "depth0" => count(0),
            "first" => Some(Value::from(index == 0)),
            "last" => Some(Value::from(index + 1 == self.length)),
            _ => None,
        }
    }
}

impl Evaluator<'_> {
    pub(super) fn block(&mut self, id: BlockId) -> Run<Flow> {
        self.enter(1)?;
        let mut flow = Flow::On;
        for node in self.ast.block(id) {
            self.meter.steps(1)?;
            match node {
                Node::Text { start, length } => {
                    let at = Node::written(*start, *length);
                    self.page.text(at.text(&self.source.text), at)?;
                }
                Node::Output { expr, site } => self.output(*expr, *site)?,
                Node::Tag(tag) => flow = self.tag(self.ast.tag(*tag))?,
            }
            if flow != Flow::On {
                break;
            }
        }
        self.leave(1);
        Ok(flow)
    }

    fn tag(&mut self, tag: &Tag) -> Run<Flow> {
        match tag {
            Tag::If { arms, otherwise, .. } => {
                return match self.arm(arms, *otherwise)? {
                    Some(body) => self.block(body),
                    None => Ok(Flow::On),
                };
            }
            Tag::For { names, list, body, at } => self.for_each(names, *list, *body, *at)?,
            Tag::Break(_) => return Ok(Flow::Break),
            Tag::Continue(_) => return Ok(Flow::Continue),
            Tag::Set { targets, values } => self.set(targets, values)?,
            Tag::SetBlock(set) => self.set_block(set)?,
            Tag::Do(expr) => self.eval(*expr).map(drop)?,
            Tag::DoBlock(body) => self.catch(*body).map(drop)?,
            Tag::Cycle { values, name, site, at } => self.cycle(values, *name, *site, *at)?,
            Tag::IfChanged { expr, body, at } => {
                if self.has_changed(*expr, *at)? {
                    return self.block(*body);
                }
            }
            Tag::AutoEscape { on, body } => return self.auto_escape(*on, *body),
            Tag::Macro(id) => {
                let name = self.ast.macro_(*id).name;
                self.scopes.define(name, *id)?;
            }
            Tag::Call { callee, body, site, at } => self.call_block(*callee, *body, *site, *at)?,
            Tag::With { name, text, body, at } => return self.with(*name, *text, *body, *at),
            Tag::Kill(at) => return Err(Fault::skip(*at, "the template ends here with 'kill'")),
        }
        Ok(Flow::On)
    }

    // ---- output ----

    #[inline(never)]
    fn output(&mut self, expr: ExprId, site: Site) -> Run<()> {
        if self.print_named(expr, site)? {
            return Ok(());
        }
        let Traced { value, origin } = self.eval(expr)?;
        let ast::Expr { kind, at } = self.ast.expr(expr);
        match kind {
            // What a macro prints has been escaped inside.
            ExprKind::Compound(compound) if matches!(self.ast.compound(compound), Compound::Call(_)) => {
                self.page.put(&value, origin, site, at, &mut self.meter)
            }
            _ => self.page.print(&value, origin, site, at, &mut self.meter),
        }
    }

    /// What a block prints, as a text. It is the author's only if every part of it is (D07).
    pub(super) fn catch(&mut self, body: BlockId) -> Run<Traced> {
        let inner = self.page.inner();
        let outer = std::mem::replace(&mut self.page, inner);
        self.block(body)?;
        let Page { out: text, catching, .. } = std::mem::replace(&mut self.page, outer);
        let origin = catching.unwrap_or(Origin::Data);
        self.meter.string(text.len())?;
        Ok(Traced { value: Value::from(text), origin })
    }

    // ---- tags ----

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
    fn set(&mut self, targets: &[Target], values: &[ExprId]) -> Run<()> {
        if let ([target], [value]) = (targets, values) {
            let value = self.eval(*value)?;
            return self.assign(target, value);
        }
        let values = values.iter().map(|value| self.eval(*value)).collect::<Run<Vec<_>>>()?;
        for (target, value) in targets.iter().zip(values) {
            self.assign(target, value)?;
        }
        Ok(())
    }

    /// A field of what is no namespace is not set (Jinjava).
    fn assign(&mut self, target: &Target, value: Traced) -> Run<()> {
        let (name, field) = match target {
            Target::Name(name) => return self.scopes.set(*name, value),
            Target::Field(name, field) => (*name, field),
        };
        let whole = self.variable(name)?.value;
        if let Some(map) = whole.downcast_object_ref::<Map>().filter(|map| map.kind() == MapKind::Namespace) {
            let added = (std::slice::from_ref(&value.value), self.settled_origin(&value) == Origin::Author);
            map.change(added, &mut self.meter, |entries| entries.insert(field.clone().into(), value.value.clone()))?;
        }
        Ok(())
    }

    /// A block sees its own names only, unless it is called `__ignored__` (Jinjava).
    #[inline(never)]
    fn set_block(&mut self, set: &Capture) -> Run<()> {
        let Capture { target, value, body, at } = set;
        let open = matches!(target, Target::Name(name) if self.name(*name) == "__ignored__");
        if !open {
            self.scopes.enter();
        }
        let caught = self.catch(*body).map_err(|fault| fault.or_at(*at))?;
        if !open {
            self.scopes.leave();
        }
        self.caught = Some(caught);
        let value = self.eval(*value)?;
        self.assign(target, value)
    }

    #[inline(never)]
    fn with(&mut self, name: NameId, text: BlockId, body: BlockId, at: Span) -> Run<Flow> {
        self.scopes.enter();
        let text = self.catch(text).map_err(|fault| fault.or_at(at))?;
        self.scopes.set(name, text)?;
        let flow = self.block(body)?;
        self.scopes.leave();
        Ok(flow)
    }

    #[inline(never)]
    fn auto_escape(&mut self, on: bool, body: BlockId) -> Run<Flow> {
        let before = std::mem::replace(&mut self.page.escapes_html, on);
        self.scopes.enter();
        let flow = self.block(body)?;
        self.scopes.leave();
        self.page.escapes_html = before;
        Ok(flow)
    }

    /// The value whose turn it is. One list stands for its items; outside of a loop it is the first one's turn.
    #[inline(never)]
    fn cycle(&mut self, values: &[ExprId], name: Option<NameId>, site: Site, at: Span) -> Run<()> {
        let turn = self.scopes.get(LOOP).and_then(|this| this.value.downcast_object_ref::<Loop>().map(Loop::index));
        let turn = turn.unwrap_or(0);
        if let Some(name) = name {
            let values = values.iter().map(|value| self.eval(*value)).collect::<Run<Vec<_>>>()?;
            let origin = operators::origin_of(values.iter().map(|value| value.origin));
            let list = build_list(values.into_iter().map(|value| value.value).collect(), &mut self.meter)?;
            return self.scopes.set(name, written(list, origin));
        }
        let Some(value) = values.get(turn % values.len().max(1)) else { return Ok(()) };
        let mut value = self.eval(*value)?;
        if values.len() == 1
            && let Some(items) = values::items(&value.value)
        {
            let item = items.get(turn % items.len().max(1)).cloned().unwrap_or_default();
            let origin = value.origin;
            drop(items);
            value = Traced { value: item, origin };
        }
        self.page.print(&value.value, value.origin, site, at, &mut self.meter)
    }

    #[inline(never)]
    fn has_changed(&mut self, expr: ExprId, at: Span) -> Run<bool> {
        let value = self.eval(expr)?.value;
        let Some(place) = self.seen.iter().position(|(known, _)| *known == at) else {
            self.seen.push((at, value));
            return Ok(true);
        };
        let Some((_, seen)) = self.seen.get_mut(place) else { return Ok(true) };
        let same = operators::equal(seen, &value, &mut self.meter)?;
        *seen = value;
        Ok(!same)
    }

    // ---- loops ----

    #[inline(never)]
    fn for_each(&mut self, names: &[NameId], list: ExprId, body: BlockId, at: Span) -> Run<()> {
        let list = self.eval(list)?;
        let items = self.passes(&list).map_err(|fault| fault.or_at(at))?;
        if items.is_empty() {
            return Ok(());
        }
        let this = Arc::new(Loop { index: AtomicUsize::new(0), length: items.len() });
        self.scopes.enter();
        self.scopes.set(LOOP, Traced::author(Value::from_dyn_object(this.clone())))?;
        for (index, item) in items.iter().enumerate() {
            self.meter.steps(1).map_err(|fault| fault.or_at(at))?;
            this.index.store(index, Ordering::Relaxed);
            self.unpack(names, item, list.origin).map_err(|fault| fault.or_at(at))?;
            if self.block(body)? == Flow::Break {
                break;
            }
        }
        self.scopes.leave();
        Ok(())
    }

    /// What a loop goes through: items of a list, values of a map, nothing for null, anything else once.
    fn passes<'v>(&mut self, list: &'v Traced) -> Run<Items<'v>> {
        let value = &list.value;
        let items = match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => values::items(value),
            ValueKind::Map => values::entries(value)
                .map(|entries| entries.into_iter().map(|(_, item)| item).collect::<Vec<_>>().into()),
            _ if is_null(value) => None,
            _ => Some(vec![value.clone()].into()),
        };
        let items = items.unwrap_or_else(|| Vec::new().into());
        self.meter.visiting(items.len())?;
        Ok(items)
    }

    /// One name takes the item; more names take its parts: key and value, items of a list, or a map's entries by name.
    #[inline(never)]
    fn unpack(&mut self, names: &[NameId], item: &Value, origin: Origin) -> Run<()> {
        if let [name] = names {
            return self.scopes.set(*name, Traced { value: item.clone(), origin });
        }
        if values::items(item).is_some_and(|parts| parts.len() < names.len()) {
            return Err(Fault::eval(format!("an item of this list has less than {} parts", names.len())));
        }
        for (position, name) in names.iter().enumerate() {
            let part = match item.downcast_object_ref::<Entry>() {
                Some(entry) if position == 0 => Value::from(entry.key.clone()),
                Some(entry) if position == 1 => entry.value.clone(),
                Some(_) => Value::UNDEFINED,
                None if item.kind() == ValueKind::Map => values::attr(item, self.name(*name)),
                None => values::item(item, &Value::from(position as i64)),
            };
            self.scopes.set(*name, Traced::found(part, origin))?;
        }
        Ok(())
    }
}
