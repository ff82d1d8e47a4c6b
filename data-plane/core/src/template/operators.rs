//! Operators between values, with Jinjava's coercions. Hides which operand decides how the other is read. Nothing here
//! recurses, and everything that builds or compares something long is charged.

use std::cmp::Ordering;

use minijinja::Value;
use minijinja::value::ValueKind;

use super::ast::Binary;
use super::containers::{self, MapKind, TooDeep};
use super::dates;
use super::entries::Entries;
use super::error::Fault;
use super::filters::text_of;
use super::limits::{Meter, VALUE_DEPTH, over};
use super::traced::{Origin, Traced};
use super::values::{self, Number, as_bool, coerced_number, is_null, number};

pub(super) fn binary(op: Binary, left: Traced, right: Traced, meter: &mut Meter) -> Result<Traced, Box<Fault>> {
    let origin = left.origin.with(right.origin);
    let (a, b) = (&left.value, &right.value);
    let value = match op {
        Binary::Add => return add(left, right, meter),
        Binary::Concat => match (a.as_str(), b.as_str()) {
            (Some(a), Some(b)) => concat(a, b, meter)?,
            _ => concat(&text_of(a, meter)?, &text_of(b, meter)?, meter)?,
        },
        Binary::Subtract | Binary::Multiply | Binary::Divide | Binary::FloorDivide | Binary::Modulo | Binary::Power => {
            arithmetic(op, a, b)?
        }
        Binary::Equal => Value::from(equal(a, b, meter)?),
        Binary::NotEqual => Value::from(!equal(a, b, meter)?),
        Binary::In => Value::from(contains(b, a, meter)?),
        Binary::NotIn => Value::from(!contains(b, a, meter)?),
        Binary::Less | Binary::LessOrEqual | Binary::Greater | Binary::GreaterOrEqual => order(op, a, b, meter)?,
    };
    Ok(Traced { value, origin })
}

/// A list from items, charged.
pub(super) fn build_list(items: Vec<Value>, meter: &mut Meter) -> Result<Value, Box<Fault>> {
    meter.items(items.len())?;
    built(containers::own_list(items), meter)
}

/// A map from entries, charged.
pub(super) fn build_map(entries: Entries, meter: &mut Meter) -> Result<Value, Box<Fault>> {
    meter.items(entries.len())?;
    built(containers::own_map(entries, MapKind::Plain), meter)
}

/// Nothing a template builds may be deeper than what can be dropped safely.
pub(super) fn built(result: Result<(Value, usize), TooDeep>, meter: &mut Meter) -> Result<Value, Box<Fault>> {
    let (value, visited) = result.map_err(|TooDeep| over("levels of lists and maps", VALUE_DEPTH as usize))?;
    meter.visiting(visited)?;
    Ok(value)
}

fn concat(a: &str, b: &str, meter: &mut Meter) -> Result<Value, Box<Fault>> {
    meter.string(a.len() + b.len())?;
    let mut text = String::with_capacity(a.len() + b.len());
    text.push_str(a);
    text.push_str(b);
    Ok(Value::from(text))
}

/// Lists grow, maps merge, text wins over numbers (`"1" + 2` is `12`, null is the text `null`).
fn add(left: Traced, right: Traced, meter: &mut Meter) -> Result<Traced, Box<Fault>> {
    let origin = left.origin.with(right.origin);
    let (a, b) = (&left.value, &right.value);
    if is_null(a) && is_null(b) {
        return Ok(Traced { value: Value::from(()), origin });
    }
    if let Some(items) = values::items(a) {
        let added = values::items(b).unwrap_or_else(|| vec![b.clone()].into());
        let value = build_list(items.iter().chain(added.iter()).cloned().collect(), meter)?;
        return Ok(Traced { value, origin });
    }
    if let (Some(entries), Some(added)) = (values::entries(a), values::entries(b)) {
        let value = build_map(entries.into_iter().chain(added).collect(), meter)?;
        return Ok(Traced { value, origin });
    }
    if a.as_str().is_some() || b.as_str().is_some() {
        let text =
            |value: &Value, meter: &mut Meter| if is_null(value) { Ok("null".into()) } else { text_of(value, meter) };
        let (a, b) = (text(a, meter)?, text(b, meter)?);
        return Ok(Traced { value: concat(&a, &b, meter)?, origin });
    }
    Ok(Traced { value: arithmetic(Binary::Add, a, b)?, origin })
}

/// Texts that are numbers count as numbers, null is 0, `/` always gives a fraction.
///
/// `//` and `**` are stricter than the others: Jinjava takes only numbers there.
fn arithmetic(op: Binary, a: &Value, b: &Value) -> Result<Value, Box<Fault>> {
    let strict = matches!(op, Binary::FloorDivide | Binary::Power);
    if strict && (number(a).is_none() || number(b).is_none()) {
        return Err(Fault::eval(format!("'//' and '**' need numbers, not {} and {}", kind(a), kind(b))));
    }
    let (Some(x), Some(y)) = (coerced_number(a), coerced_number(b)) else {
        return Err(Fault::eval(format!("cannot calculate with {} and {}", kind(a), kind(b))));
    };
    if let (Number::Int(x), Number::Int(y)) = (x, y)
        && op != Binary::Divide
    {
        if y == 0 && matches!(op, Binary::FloorDivide | Binary::Modulo) {
            return Err(Fault::eval("division by zero"));
        }
        return Ok(integers(op, x, y).into_value());
    }
    let (x, y) = (x.as_f64(), y.as_f64());
    Ok(Value::from(match op {
        Binary::Add => x + y,
        Binary::Subtract => x - y,
        Binary::Multiply => x * y,
        Binary::FloorDivide => (x / y).floor(),
        Binary::Modulo => x % y,
        Binary::Power => x.powf(y),
        _ => x / y,
    }))
}

/// Numbers of 64 bits wrap as Java's do; longer ones are exact up to 128 bits, and floats beyond (D16).
fn integers(op: Binary, x: i128, y: i128) -> Number {
    if op == Binary::Power {
        // Jinjava cuts the fraction off: `2 ** -1` is 0.
        return Number::Int(i128::from((x as f64).powf(y as f64) as i64));
    }
    let exact = match op {
        Binary::Add => x.checked_add(y),
        Binary::Subtract => x.checked_sub(y),
        Binary::Multiply => x.checked_mul(y),
        Binary::Modulo => x.checked_rem(y),
        _ => x.checked_div(y).map(|quotient| quotient - i128::from(x % y != 0 && (x < 0) != (y < 0))),
    };
    let short = i64::try_from(x).is_ok() && i64::try_from(y).is_ok();
    match (exact, op) {
        (Some(exact), _) if short => Number::Int(i128::from(exact as i64)),
        (Some(exact), _) => Number::Int(exact),
        (None, Binary::Add) => Number::Float(x as f64 + y as f64),
        (None, Binary::Subtract) => Number::Float(x as f64 - y as f64),
        (None, Binary::Multiply) => Number::Float(x as f64 * y as f64),
        (None, _) => Number::Float((x as f64 / y as f64).floor()),
    }
}

pub(super) fn negate(operand: &Traced) -> Result<Traced, Box<Fault>> {
    if is_null(&operand.value) {
        return Ok(operand.clone());
    }
    let value = match coerced_number(&operand.value) {
        Some(Number::Int(int)) => integers(Binary::Subtract, 0, int).into_value(),
        Some(Number::Float(float)) => Value::from(-float),
        None => return Err(Fault::eval(format!("cannot negate {}", kind(&operand.value)))),
    };
    Ok(Traced { value, origin: operand.origin })
}

/// A number decides that both are read as numbers; else texts are compared as texts. Null is in no order.
fn order(op: Binary, a: &Value, b: &Value, meter: &mut Meter) -> Result<Value, Box<Fault>> {
    let or_equal = matches!(op, Binary::LessOrEqual | Binary::GreaterOrEqual);
    if is_null(a) || is_null(b) {
        return Ok(Value::from(or_equal && is_null(a) && is_null(b)));
    }
    let ordering = if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        meter.reading(a.len().min(b.len()))?;
        Some(a.cmp(b))
    } else if let (Some(a), Some(b)) = (dates::moment(a), dates::moment(b)) {
        Some(a.cmp(&b))
    } else if let (true, Some(x), Some(y)) =
        (number(a).is_some() || number(b).is_some(), coerced_number(a), coerced_number(b))
    {
        order_numbers(x, y)
    } else {
        return Err(Fault::eval(format!("cannot compare {} with {}", kind(a), kind(b))));
    };
    Ok(Value::from(match op {
        Binary::Less => ordering == Some(Ordering::Less),
        Binary::LessOrEqual => matches!(ordering, Some(Ordering::Less | Ordering::Equal)),
        Binary::Greater => ordering == Some(Ordering::Greater),
        _ => matches!(ordering, Some(Ordering::Greater | Ordering::Equal)),
    }))
}

fn order_numbers(x: Number, y: Number) -> Option<Ordering> {
    match (x, y) {
        (Number::Int(x), Number::Int(y)) => Some(x.cmp(&y)),
        (x, y) => x.as_f64().partial_cmp(&y.as_f64()),
    }
}

/// `==`. `"1" == 1` holds; a number and a boolean cannot be compared (Jinjava). Lists and maps are compared entry by
/// entry, with a list of pairs still to compare instead of recursion.
pub(super) fn equal(a: &Value, b: &Value, meter: &mut Meter) -> Result<bool, Box<Fault>> {
    let mut pairs = vec![(a.clone(), b.clone())];
    while let Some((a, b)) = pairs.pop() {
        meter.visiting(1)?;
        let same = if let (Some(x), Some(y)) = (values::items(&a), values::items(&b)) {
            let same = x.len() == y.len();
            if same {
                meter.spend(x.len() * 8)?;
                pairs.extend(x.iter().cloned().zip(y.iter().cloned()));
            }
            same
        } else if a.kind() == ValueKind::Map && b.kind() == ValueKind::Map {
            let same = a.len() == b.len();
            for (key, value) in values::entries(&a).filter(|_| same).unwrap_or_default() {
                meter.spend(key.len() + 8)?;
                pairs.push((value, values::attr(&b, &key)));
            }
            same
        } else {
            equal_scalars(&a, &b, meter)?
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn equal_scalars(a: &Value, b: &Value, meter: &mut Meter) -> Result<bool, Box<Fault>> {
    if is_null(a) || is_null(b) {
        return Ok(is_null(a) && is_null(b));
    }
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        if a.len() == b.len() {
            meter.reading(a.len())?;
        }
        return Ok(a == b);
    }
    if let (Some(a), Some(b)) = (dates::moment(a), dates::moment(b)) {
        return Ok(a == b);
    }
    let numbers = (number(a).is_some(), number(b).is_some());
    if numbers.0 || numbers.1 {
        if as_bool(a).is_some() || as_bool(b).is_some() {
            return Err(Fault::eval(format!("cannot compare {} with {}", kind(a), kind(b))));
        }
        let numbers = coerced_number(a).zip(coerced_number(b));
        return Ok(numbers.is_some_and(|(x, y)| order_numbers(x, y) == Some(Ordering::Equal)));
    }
    if as_bool(a).is_some() || as_bool(b).is_some() {
        let truth = |value: &Value| as_bool(value).or_else(|| value.as_str().map(|_| values::is_true(value)));
        return Ok(truth(a).is_some() && truth(a) == truth(b));
    }
    Ok(false)
}

/// `needle in haystack`: a part of a text, an item of a list, a key of a map; null contains nothing.
fn contains(haystack: &Value, needle: &Value, meter: &mut Meter) -> Result<bool, Box<Fault>> {
    if let Some(text) = haystack.as_str() {
        meter.reading(text.len())?;
        return Ok(text.contains(&*text_of(needle, meter)?));
    }
    if let Some(items) = values::items(haystack) {
        meter.visiting(items.len())?;
        for item in items.iter() {
            // What cannot be compared is not the item looked for; running out of a limit still is an error.
            match equal(item, needle, meter) {
                Ok(false) => {}
                Ok(true) => return Ok(true),
                Err(fault) if fault.kind == super::RenderErrorKind::Eval => {}
                Err(fault) => return Err(fault),
            }
        }
        return Ok(false);
    }
    if haystack.kind() == ValueKind::Map && !is_null(needle) {
        let key = text_of(needle, meter)?;
        return Ok(haystack.as_object().is_some_and(|map| map.get_value_by_str(&key).is_some()));
    }
    Ok(false)
}

/// What a value is, for messages: never the value itself.
pub(super) fn kind(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => "null",
        ValueKind::Bool => "a boolean",
        ValueKind::Number => "a number",
        ValueKind::String => "a text",
        ValueKind::Seq | ValueKind::Iterable => "a list",
        ValueKind::Map => "a map",
        _ if number(value).is_some() => "a number",
        _ if dates::date(value).is_some() => "a date",
        _ => "an object",
    }
}

/// The origin of a list or map of parts: the author's only if all parts are.
pub(super) fn origin_of(parts: impl Iterator<Item = Origin>) -> Origin {
    parts.fold(
        Origin::Author,
        |all, part| if all == Origin::Author && part == Origin::Author { all } else { Origin::Data },
    )
}
