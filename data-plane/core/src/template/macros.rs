//! Macros: written in a template, called like functions, printing into a text. Hides how arguments find their
//! parameters, and whose body `caller()` is.

use std::sync::Arc;

use minijinja::Value;

use super::ast::{Argument, BlockId, Compound, ExprId, ExprKind, NameId, Parameter, Site, Span};
use super::entries::Entries;
use super::error::Fault;
use super::evaluator::{Evaluator, Run};
use super::limits;
use super::operators::{self, build_list, build_map};
use super::scopes::ScopeId;
use super::traced::Traced;

/// How many levels of blocks and expressions a macro's frames are worth.
const LEVELS: usize = 5;

/// The bodies of the `call` tags whose macros run.
#[derive(Default)]
pub(super) struct Callers {
    bodies: Vec<Caller>,
    /// Whose `caller()` it is: the body given to the macro that runs, if it was given one.
    current: Option<usize>,
    /// How many macros wait for one inside.
    depth: usize,
}

/// The body of one `call` tag.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    body: BlockId,
    scope: ScopeId,
    /// What `caller()` is inside of this body.
    outer: Option<usize>,
}

impl Evaluator<'_> {
    /// `{% call macro(…) %}…{% endcall %}`.
    #[inline(never)]
    pub(super) fn call_block(&mut self, callee: ExprId, body: BlockId, site: Site, at: Span) -> Run<()> {
        let expr = self.ast.expr(callee);
        let ExprKind::Compound(compound) = expr.kind else { return Ok(()) };
        let Compound::Call(call) = self.ast.compound(compound) else { return Ok(()) };
        let caller = Caller { body, scope: self.scopes.here(), outer: self.callers.current };
        let printed = self.call(call.0, &call.1, Some(caller)).map_err(|fault| fault.or_at(expr.at))?;
        self.page.put(&printed.value, printed.origin, site, at, &mut self.meter)
    }

    /// Calls a macro, or `caller()`.
    #[inline(never)]
    pub(super) fn call(&mut self, name: NameId, args: &[Argument], caller: Option<Caller>) -> Run<Traced> {
        let Some((id, scope)) = self.scopes.find_macro(name) else {
            if self.name(name) == "caller" {
                return self.call_caller();
            }
            let message = format!("the macro '{}' is not defined here, or not yet", self.name(name));
            return Err(Fault::eval(message));
        };
        self.enter(LEVELS)?;
        let args = args.iter().map(|arg| Ok((arg.name.clone(), self.eval(arg.value)?))).collect::<Run<Vec<_>>>()?;
        let callee = self.ast.macro_(id);
        let current = caller.map(|caller| {
            self.callers.bodies.push(caller);
            self.callers.bodies.len() - 1
        });
        self.scopes.enter_in(scope);
        self.bind(&callee.parameters, callee.rest, args)?;
        let text = self.inside(current, callee.body)?;
        self.scopes.leave();
        if current.is_some() {
            self.callers.bodies.pop();
        }
        self.leave(LEVELS);
        Ok(text)
    }

    /// Runs a body with another `caller()`.
    fn inside(&mut self, current: Option<usize>, body: BlockId) -> Run<Traced> {
        self.callers.depth += 1;
        if self.callers.depth > limits::MACRO_DEPTH {
            return Err(limits::over("macros inside of each other", limits::MACRO_DEPTH));
        }
        let before = std::mem::replace(&mut self.callers.current, current);
        let text = self.catch(body)?;
        self.callers.current = before;
        self.callers.depth -= 1;
        Ok(text)
    }

    fn call_caller(&mut self) -> Run<Traced> {
        let caller = self.callers.current.and_then(|current| self.callers.bodies.get(current)).copied();
        let Some(Caller { body, scope, outer }) = caller else {
            return Err(Fault::eval("'caller' is only there in a macro that a 'call' tag has called"));
        };
        self.enter(LEVELS)?;
        self.scopes.enter_in(scope);
        let text = self.inside(outer, body)?;
        self.scopes.leave();
        self.leave(LEVELS);
        Ok(text)
    }

    /// Gives parameters their arguments: by position, by name, or what stands for them; null otherwise. What is left is
    /// in `varargs` and `kwargs`.
    fn bind(
        &mut self,
        parameters: &[Parameter],
        rest: (NameId, NameId),
        args: Vec<(Option<Arc<str>>, Traced)>,
    ) -> Run<()> {
        let mut given: Vec<Option<Traced>> = vec![None; parameters.len()];
        let (mut more, mut named) = (Vec::new(), Vec::new());
        for (position, (name, value)) in args.into_iter().enumerate() {
            let place = match &name {
                Some(name) => parameters.iter().position(|(parameter, _)| self.name(*parameter) == &**name),
                None => Some(position).filter(|position| *position < parameters.len()),
            };
            match (place.and_then(|place| given.get_mut(place)), name) {
                (Some(place), _) => *place = Some(value),
                (None, Some(name)) => named.push((name, value)),
                (None, None) => more.push(value),
            }
        }
        for ((name, otherwise), value) in parameters.iter().zip(given) {
            let value = match (value, otherwise) {
                (Some(value), _) => value,
                (None, Some(otherwise)) => self.eval(*otherwise)?,
                (None, None) => Traced::data(Value::from(())),
            };
            self.scopes.set(*name, value)?;
        }
        let origin = operators::origin_of(more.iter().map(|value| value.origin));
        let list = build_list(more.into_iter().map(|value| value.value).collect(), &mut self.meter)?;
        self.scopes.set(rest.0, Traced { value: list, origin })?;
        let origin = operators::origin_of(named.iter().map(|(_, value)| value.origin));
        let map: Entries = named.into_iter().map(|(name, value)| (name.into(), value.value)).collect();
        let map = build_map(map, &mut self.meter)?;
        self.scopes.set(rest.1, Traced { value: map, origin })
    }
}
