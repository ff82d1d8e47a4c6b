//! The functions of `name(…)` that are no filter called by another name: `range`, `namespace`, `type`.

use std::sync::Arc;

use minijinja::Value;
use minijinja::value::ValueKind;

use super::containers::{self, MapKind};
use super::entries::Entries;
use super::error::Fault;
use super::limits::{BYTES_PER_ITEM, Meter, RANGE_ITEMS};
use super::operators::{build_list, built, kind};
use super::traced::Traced;
use super::values::{self, Number, is_null, number};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Namespace,
    Range,
    Type,
}

/// Filters that are functions too: the first argument is the input.
pub(super) const FILTERS: &[&str] = &[
    "datetimeformat",
    "format_date",
    "format_datetime",
    "format_time",
    "strtodate",
    "strtotime",
    "truncate",
    "unixtimestamp",
];

impl Function {
    pub(super) const NAMES: &[&str] = &["namespace", "range", "type"];

    pub(super) fn named(name: &str) -> Option<Function> {
        match name {
            "namespace" => Some(Function::Namespace),
            "range" => Some(Function::Range),
            "type" => Some(Function::Type),
            _ => None,
        }
    }

    /// How many arguments it takes, and whether they may have names of their own.
    pub(super) fn takes(self) -> (usize, usize, bool) {
        match self {
            Function::Namespace => (0, usize::MAX, true),
            Function::Range => (1, 3, false),
            Function::Type => (1, 1, false),
        }
    }
}

/// Arguments that are there, with the names some of them were given.
pub(super) type Given = Vec<(Option<Arc<str>>, Traced)>;

pub(super) fn call(function: Function, args: &Given, meter: &mut Meter) -> Result<Value, Box<Fault>> {
    match function {
        Function::Namespace => namespace(args, meter),
        Function::Range => range(args, meter),
        Function::Type => Ok(Value::from(type_of(args.first().map_or(&Value::UNDEFINED, |(_, arg)| &arg.value)))),
    }
}

/// A map that `{% set ns.x = 1 %}` changes. Maps given to it are copied, names given to it come on top.
fn namespace(args: &Given, meter: &mut Meter) -> Result<Value, Box<Fault>> {
    let mut all = Entries::new();
    for (name, arg) in args {
        match name {
            Some(name) => {
                all.insert(name.clone().into(), arg.value.clone());
            }
            None if is_null(&arg.value) => {}
            None => match values::entries(&arg.value) {
                Some(entries) => all.extend(entries),
                None => return Err(Fault::eval(format!("'namespace' needs maps, not {}", kind(&arg.value)))),
            },
        }
    }
    meter.items(all.len())?;
    built(containers::own_map(all, MapKind::Namespace), meter)
}

/// `range(end)`, `range(start, end)`, `range(start, end, step)`: the end is not in it.
fn range(args: &Given, meter: &mut Meter) -> Result<Value, Box<Fault>> {
    let int = |position: usize| -> Result<Option<i64>, Box<Fault>> {
        let Some((_, arg)) = args.get(position) else { return Ok(None) };
        match values::coerced_number(&arg.value).filter(|_| !is_null(&arg.value)) {
            Some(Number::Int(int)) => Ok(i64::try_from(int).ok()),
            Some(Number::Float(float)) => Ok(Some(float as i64)),
            None => Err(Fault::eval(format!("'range' needs whole numbers, not {}", kind(&arg.value)))),
        }
    };
    let (first, second, step) = (int(0)?.unwrap_or(0), int(1)?, int(2)?.unwrap_or(1));
    let (start, end) = second.map_or((0, first), |second| (first, second));
    let mut items = Vec::new();
    let mut next = Some(start);
    while let Some(number) = next {
        let inside = if step > 0 { number < end } else { number > end };
        if !inside || step == 0 || items.len() == RANGE_ITEMS {
            break;
        }
        items.push(Value::from(number));
        next = number.checked_add(step);
    }
    meter.spend(items.len() * BYTES_PER_ITEM)?;
    build_list(items, meter)
}

/// Jinjava's names of kinds.
fn type_of(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => "null",
        ValueKind::Bool => "bool",
        ValueKind::String => "str",
        ValueKind::Seq | ValueKind::Iterable => "list",
        ValueKind::Map => "dict",
        _ => match number(value) {
            Some(Number::Int(_)) => "long",
            Some(Number::Float(_)) => "double",
            None => "object",
        },
    }
}
