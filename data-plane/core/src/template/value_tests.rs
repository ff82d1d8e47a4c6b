//! The tests of `x is …`. Hides their names, which of them take an argument, and how each reads what it is given.

use minijinja::Value;
use minijinja::value::ValueKind;

use super::ast::Binary;
use super::decimal::Decimal;
use super::error::Fault;
use super::filters::text_of;
use super::limits::Meter;
use super::operators::{self, kind};
use super::traced::Traced;
use super::values::{self, Number, as_bool, is_null, number};

/// Whether a test takes an argument: `x is even`, `x is containing y`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Argument {
    None,
    /// Without it the test does not hold.
    Optional,
    Required,
}
use Argument::{None as Nothing, Optional, Required};

type Holds = fn(&Value, &Value, &mut Meter) -> Result<bool, Box<Fault>>;

struct Spec {
    names: &'static [&'static str],
    argument: Argument,
    /// A missing value is what this test asks about (D32).
    asks: bool,
    holds: Holds,
}

const fn test(names: &'static [&'static str], argument: Argument, holds: Holds) -> Spec {
    Spec { names, argument, asks: false, holds }
}

const fn asking(names: &'static [&'static str], holds: Holds) -> Spec {
    Spec { names, argument: Nothing, asks: true, holds }
}

static TRUTHY: Spec = asking(&["truthy"], |value, _, _| Ok(values::is_true(value)));

static TESTS: &[Spec] = &[
    asking(&["defined"], |value, _, _| Ok(!is_null(value))),
    asking(&["undefined"], |value, _, _| Ok(is_null(value))),
    asking(&["none"], |value, _, _| Ok(is_null(value))),
    test(&["boolean"], Nothing, |value, _, _| Ok(as_bool(value).is_some())),
    test(&["true"], Nothing, |value, _, _| Ok(as_bool(value) == Some(true))),
    test(&["false"], Nothing, |value, _, _| Ok(as_bool(value) == Some(false))),
    test(&["number"], Nothing, |value, _, _| Ok(number(value).is_some())),
    test(&["integer"], Nothing, |value, _, _| Ok(matches!(number(value), Some(Number::Int(_))))),
    test(&["float"], Nothing, |value, _, _| Ok(matches!(number(value), Some(Number::Float(_))))),
    test(&["even"], Nothing, |value, _, _| Ok(whole(value).is_some_and(|whole| whole % 2 == 0))),
    test(&["odd"], Nothing, |value, _, _| Ok(whole(value).is_some_and(|whole| whole % 2 != 0))),
    test(&["string"], Nothing, |value, _, _| Ok(value.as_str().is_some())),
    test(&["lower"], Nothing, |value, _, meter| all_letters(value, char::is_lowercase, meter)),
    test(&["upper"], Nothing, |value, _, meter| all_letters(value, char::is_uppercase, meter)),
    test(&["iterable", "sequence"], Nothing, |value, _, _| Ok(is_list(value))),
    test(&["mapping"], Nothing, |value, _, _| Ok(value.kind() == ValueKind::Map)),
    test(&["divisibleby"], Required, divisible_by),
    test(&["equalto", "eq", "=="], Required, equal_to),
    test(&["ne", "!="], Required, |value, other, meter| equal_to(value, other, meter).map(|equal| !equal)),
    test(&["lt", "lessthan", "<"], Required, |value, other, meter| compare(Binary::Less, value, other, meter)),
    test(&["le", "<="], Required, |value, other, meter| compare(Binary::LessOrEqual, value, other, meter)),
    test(&["gt", "greaterthan", ">"], Required, |value, other, meter| compare(Binary::Greater, value, other, meter)),
    test(&["ge", ">="], Required, |value, other, meter| compare(Binary::GreaterOrEqual, value, other, meter)),
    test(&["sameas"], Required, same_as),
    test(&["in"], Required, is_in),
    test(&["within"], Optional, |value, list, meter| Ok(!is_null(value) && member(list, value, meter)?)),
    test(&["containing"], Optional, |list, item, meter| Ok(!is_null(item) && member(list, item, meter)?)),
    test(&["containingall"], Optional, containing_all),
    test(&["string_containing"], Optional, |value, part, meter| {
        texts(value, part, meter, |text, part| text.contains(part))
    }),
    test(&["string_startingwith"], Optional, |value, start, meter| {
        texts(value, start, meter, |text, start| text.starts_with(start))
    }),
];

/// A test that can be asked.
#[derive(Clone, Copy)]
pub(super) struct Test(&'static Spec);

impl std::fmt::Debug for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.names.first().copied().unwrap_or_default())
    }
}

impl Test {
    /// What `select` and its like ask when they are given no test.
    pub(super) const TRUTHY: Test = Test(&TRUTHY);

    pub(super) fn named(name: &str) -> Option<Test> {
        let mut known = TESTS.iter().chain([&TRUTHY]);
        known.find(|spec| spec.names.contains(&name)).map(Test)
    }

    pub(super) fn names() -> Vec<&'static str> {
        TESTS.iter().chain([&TRUTHY]).flat_map(|spec| spec.names.iter().copied()).collect()
    }

    pub(super) fn takes_argument(self) -> bool {
        self.0.argument != Nothing
    }

    pub(super) fn needs_argument(self) -> bool {
        self.0.argument == Required
    }

    /// Whether a missing value is what is asked about (D32).
    pub(super) fn asks_for_missing(self) -> bool {
        self.0.asks
    }

    pub(super) fn holds(self, value: &Value, argument: Option<&Value>, meter: &mut Meter) -> Result<bool, Box<Fault>> {
        (self.0.holds)(value, argument.unwrap_or(&Value::UNDEFINED), meter)
    }
}

/// A number without its fraction.
fn whole(value: &Value) -> Option<i128> {
    number(value).map(|number| match number {
        Number::Int(int) => int,
        Number::Float(float) => float as i128,
    })
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

/// Every character a letter of that kind, and at least one of them.
fn all_letters(value: &Value, fits: fn(char) -> bool, meter: &mut Meter) -> Result<bool, Box<Fault>> {
    let text = value.as_str().unwrap_or_default();
    meter.reading(text.len())?;
    Ok(!text.is_empty() && text.chars().all(fits))
}

/// Only whole numbers divide (Jinjava); what is no number is divisible by nothing.
fn divisible_by(value: &Value, divisor: &Value, _: &mut Meter) -> Result<bool, Box<Fault>> {
    if is_null(divisor) || number(value).is_none() {
        return Ok(false);
    }
    let divisor = Decimal::of(divisor).ok_or_else(|| {
        Fault::eval(format!("'divisibleby' needs a whole number to divide by, not {}", kind(divisor)))
    })?;
    let whole = |decimal: Decimal| decimal.text().trim_end_matches('0').trim_end_matches('.').parse::<i128>();
    let as_int = |decimal: Decimal| if decimal.scale() == 0 { decimal.text().parse() } else { whole(decimal) };
    let divisor = as_int(divisor).map_err(|_| Fault::eval("'divisibleby' needs a whole number to divide by"))?;
    if divisor == 0 {
        return Err(Fault::eval("division by zero"));
    }
    let value = Decimal::of(value).and_then(|value| as_int(value).ok());
    Ok(value.is_some_and(|value| value.checked_rem(divisor) == Some(0)))
}

/// As `==`; a text also equals the list or map that prints like it (Jinjava).
fn equal_to(value: &Value, other: &Value, meter: &mut Meter) -> Result<bool, Box<Fault>> {
    let composite = |value: &Value| matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map);
    if value.as_str().is_some() && composite(other) || composite(value) && other.as_str().is_some() {
        return Ok(text_of(value, meter)? == text_of(other, meter)?);
    }
    operators::equal(value, other, meter)
}

fn compare(op: Binary, value: &Value, other: &Value, meter: &mut Meter) -> Result<bool, Box<Fault>> {
    let compared = operators::binary(op, Traced::data(value.clone()), Traced::data(other.clone()), meter)?;
    Ok(as_bool(&compared.value) == Some(true))
}

/// Equal without any coercion.
fn same_as(value: &Value, other: &Value, meter: &mut Meter) -> Result<bool, Box<Fault>> {
    Ok(kind(value) == kind(other) && operators::equal(value, other, meter)?)
}

fn is_in(value: &Value, list: &Value, meter: &mut Meter) -> Result<bool, Box<Fault>> {
    if is_null(list) {
        return Err(Fault::eval("'in' needs a list, not null"));
    }
    member(list, value, meter)
}

/// `item in list`, with its coercions.
fn member(list: &Value, item: &Value, meter: &mut Meter) -> Result<bool, Box<Fault>> {
    compare(Binary::In, item, list, meter)
}

fn containing_all(list: &Value, items: &Value, meter: &mut Meter) -> Result<bool, Box<Fault>> {
    if is_null(list) || is_null(items) {
        return Ok(false);
    }
    let Some(items) = values::items(items) else { return member(list, items, meter) };
    for item in items.iter() {
        if !member(list, item, meter)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn texts(value: &Value, part: &Value, meter: &mut Meter, holds: fn(&str, &str) -> bool) -> Result<bool, Box<Fault>> {
    if is_null(value) || is_null(part) {
        return Ok(false);
    }
    Ok(holds(&text_of(value, meter)?, &text_of(part, meter)?))
}
