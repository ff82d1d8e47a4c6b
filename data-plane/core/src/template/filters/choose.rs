//! Filters that apply another filter, a test or a lookup to each item of a list. Hides how the one that is named is
//! found and called.

use std::sync::Arc;

use minijinja::Value;

use super::super::error::Fault;
use super::super::limits::Meter;
use super::super::operators;
use super::super::traced::{Origin, Traced};
use super::super::value_tests::Test;
use super::super::values;
use super::{Call, Done, Filter, Spec, marked, resolve};

pub(super) const FILTERS: &[Spec] = &[
    Spec::new("attr", &["name"], 1, attr).lookup(),
    Spec::new("map", &["attribute", "filter"], 0, map).first_by_name().more(),
    Spec::new("select", &["exp_test"], 1, select).more().test_at(0),
    Spec::new("reject", &["exp_test"], 1, reject).more().test_at(0),
    Spec::new("selectattr", &["attr", "exp_test"], 1, selectattr).more().test_at(1),
    Spec::new("rejectattr", &["attr", "exp_test"], 1, rejectattr).more().test_at(1),
];

/// How many filters may call each other: `map('map', 'map', …)` must not recurse along its arguments.
const NESTED: usize = 4;

fn attr(call: &mut Call<'_>) -> Done {
    let Some(name) = call.value(0) else { return Err(call.fault("needs the name of an attribute, and got nothing")) };
    Ok(Traced::found(values::item(&call.input.value, name), call.input.origin))
}

/// An attribute of each item, or a filter on it. What is given without a name is an attribute where there is no such
/// filter (Jinjava).
fn map(call: &mut Call<'_>) -> Done {
    let (attribute, named) = (call.given(0).is_some(), call.given(1).is_some());
    let name = call.needed_text(usize::from(!attribute && named), "the name of an attribute or filter")?;
    let items = call.input_items()?;
    let Some(filter) = Filter::named(&name).filter(|_| !attribute) else {
        let found = items.iter().map(|item| resolve(item, &name, call.meter)).collect::<Result<_, _>>()?;
        let list = operators::build_list(found, call.meter)?;
        return Ok(marked(Traced { value: list, origin: call.input.origin }));
    };
    let args = arguments(call, filter, &name)?;
    let mut results = Vec::with_capacity(items.len());
    let mut origin: Option<Origin> = None;
    for item in items {
        call.meter.steps(1)?;
        let input = Traced { value: item, origin: call.input.origin };
        let (around, nested) = (call.around, call.nested + 1);
        let mut inner = Call { name: filter.0.name, input, args: &args, around, meter: &mut *call.meter, nested };
        let result = (filter.0.run)(&mut inner)?;
        origin = Some(origin.map_or(result.origin, |origin| origin.with(result.origin)));
        results.push(result.value);
    }
    let list = operators::build_list(results, call.meter)?;
    Ok(marked(Traced { value: list, origin: origin.unwrap_or(call.input.origin) }))
}

/// What follows the name, in the order of the named filter's parameters.
fn arguments(call: &Call<'_>, filter: Filter, name: &Arc<str>) -> Result<Vec<Option<Traced>>, Box<Fault>> {
    let mut args = vec![None; filter.only_by_name()];
    args.extend_from_slice(call.args.get(2..).unwrap_or_default());
    if call.nested == NESTED {
        return Err(call.fault("is nested too deeply"));
    }
    let most = filter.parameters().len();
    if args.len() > most && !filter.takes_more() {
        return Err(call.fault(&format!("gives '{name}' more than it takes")));
    }
    if args.iter().take(filter.required()).flatten().count() < filter.required() {
        return Err(call.fault(&format!("gives '{name}' less than it needs")));
    }
    args.resize(args.len().max(most), None);
    Ok(args)
}

fn select(call: &mut Call<'_>) -> Done {
    let chooser = Chooser::new(call, None, 0)?;
    choose(call, &chooser, true)
}

fn reject(call: &mut Call<'_>) -> Done {
    let chooser = Chooser::new(call, None, 0)?;
    choose(call, &chooser, false)
}

fn selectattr(call: &mut Call<'_>) -> Done {
    let path = call.needed_text(0, "the name of an attribute")?;
    let chooser = Chooser::new(call, Some(path), 1)?;
    choose(call, &chooser, true)
}

fn rejectattr(call: &mut Call<'_>) -> Done {
    let path = call.needed_text(0, "the name of an attribute")?;
    let chooser = Chooser::new(call, Some(path), 1)?;
    choose(call, &chooser, false)
}

/// What is asked of each item.
struct Chooser {
    path: Option<Arc<str>>,
    test: Test,
    argument: Option<Value>,
}

impl Chooser {
    fn new(call: &mut Call<'_>, path: Option<Arc<str>>, position: usize) -> Result<Chooser, Box<Fault>> {
        let test = match call.given(position).cloned() {
            None => Test::TRUTHY,
            Some(_) => {
                let name = call.needed_text(position, "the name of a test")?;
                Test::named(&name).ok_or_else(|| call.fault("got a name that is no test"))?
            }
        };
        let argument = call.given(position + 1).map(|arg| arg.value.clone());
        if argument.is_none() && test.needs_argument() {
            return Err(call.fault("gives its test less than it needs"));
        }
        Ok(Chooser { path, test, argument })
    }

    fn holds(&self, item: &Value, meter: &mut Meter) -> Result<bool, Box<Fault>> {
        let looked_up = self.path.as_ref().map(|path| resolve(item, path, meter)).transpose()?;
        self.test.holds(looked_up.as_ref().unwrap_or(item), self.argument.as_ref(), meter)
    }
}

fn choose(call: &mut Call<'_>, chooser: &Chooser, wanted: bool) -> Done {
    let mut chosen = Vec::new();
    for item in call.input_items()? {
        call.meter.steps(1)?;
        if chooser.holds(&item, call.meter)? == wanted {
            chosen.push(item);
        }
    }
    let list = operators::build_list(chosen, call.meter)?;
    Ok(marked(Traced { value: list, origin: call.input.origin }))
}
