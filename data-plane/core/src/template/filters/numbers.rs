//! Filters on numbers. Hides which texts count as numbers, and keeps digits: sums, products and rounding are decimal
//! (D16).

use minijinja::Value;

use super::super::decimal::{self, Decimal, Rounding, SCALE_MAX};
use super::super::values::{Number, as_bool, is_null, number};
use super::{Call, Done, Spec, author, means_yes, resolve};

pub(super) const FILTERS: &[Spec] = &[
    Spec::new("abs", &[], 0, abs),
    Spec::new("add", &["addend"], 1, add),
    Spec::new("bool", &[], 0, bool),
    Spec::new("divide", &["divisor"], 1, divide),
    Spec::new("divisible", &["divisor"], 1, divisible),
    Spec::new("filesizeformat", &["binary"], 0, filesizeformat),
    Spec::new("float", &["default"], 0, float),
    Spec::new("format_number", &["locale", "max_decimal_precision"], 0, format_number),
    Spec::new("int", &["default"], 0, int),
    Spec::new("log", &["base"], 0, log),
    Spec::new("multiply", &["multiplier"], 1, multiply),
    Spec::new("root", &["nth_root"], 0, root),
    Spec::new("round", &["precision", "method"], 0, round),
    Spec::new("sum", &["attribute", "start"], 0, sum).first_by_name(),
];

fn abs(call: &mut Call<'_>) -> Done {
    let value = &call.input.value;
    let absolute = match number(value) {
        Some(Number::Int(int)) => Number::Int(int.saturating_abs()).into_value(),
        Some(Number::Float(float)) if Decimal::of(value).is_none() => Value::from(float.abs()),
        None if value.as_str().is_none() => return call.same(),
        _ => call.decimal(value)?.abs().value(),
    };
    Ok(call.made(absolute, &[]))
}

fn add(call: &mut Call<'_>) -> Done {
    calculated(call, Decimal::plus, |a, b| a + b)
}

fn multiply(call: &mut Call<'_>) -> Done {
    if call.value(0).is_none() {
        return call.same();
    }
    calculated(call, Decimal::times, |a, b| a * b)
}

/// With as many digits as the dividend has: `10|divide(4)` is 3 (Jinjava).
fn divide(call: &mut Call<'_>) -> Done {
    let Some(divisor) = call.value(0) else { return call.same() };
    if Decimal::of(divisor).is_some_and(Decimal::is_zero) {
        return Err(call.fault("cannot divide by zero"));
    }
    calculated(call, Decimal::over, |a, b| a / b)
}

fn calculated(call: &mut Call<'_>, exact: fn(Decimal, Decimal) -> Option<Decimal>, float: fn(f64, f64) -> f64) -> Done {
    let null = Value::from(());
    let (input, arg) = (&call.input.value, call.value(0).unwrap_or(&null));
    match decimal::calculate(input, arg, exact, float) {
        Some(result) => Ok(call.made(result, &[0])),
        None => Err(call.needs("numbers", if Decimal::of(input).is_some() { arg } else { input })),
    }
}

/// What is no number counts as nothing.
fn sum(call: &mut Call<'_>) -> Done {
    let attribute = call.text(0)?;
    let mut sum = call.value(1).and_then(Decimal::of).unwrap_or(Decimal::ZERO).value();
    for item in call.input_items()? {
        let found = attribute.as_ref().map(|attribute| resolve(&item, attribute, call.meter)).transpose()?;
        let addend = found.as_ref().unwrap_or(&item);
        if let Some(more) = decimal::calculate(&sum, addend, Decimal::plus, |a, b| a + b) {
            sum = more;
        }
    }
    Ok(call.made(sum, &[1]))
}

fn divisible(call: &mut Call<'_>) -> Done {
    let divisor = call.int(0, 0);
    if divisor == 0 {
        return Err(call.fault("needs a whole number other than 0"));
    }
    let whole = match number(&call.input.value) {
        Some(Number::Int(int)) => Some(int),
        Some(Number::Float(float)) => Some(float as i128),
        None => None,
    };
    Ok(author(whole.is_some_and(|whole| whole % i128::from(divisor) == 0)))
}

/// A text as a number: `1,234.5` too, but only with its commas where thousands end.
fn numeric(text: &str) -> Option<Decimal> {
    let Some((head, tail)) = text.split_once(',') else { return Decimal::parse(text) };
    let (groups, fraction) = tail.split_once('.').unwrap_or((tail, ""));
    let thousands = groups.split(',').all(|group| group.len() == 3 && group.bytes().all(|byte| byte.is_ascii_digit()));
    let head_digits = head.trim_start_matches(['-', '+']).len();
    if !thousands || !(1..=3).contains(&head_digits) {
        return None;
    }
    let point = if fraction.is_empty() { "" } else { "." };
    Decimal::parse(&format!("{head}{}{point}{fraction}", groups.replace(',', "")))
}

/// Whole numbers: the fraction is cut off. What is no number gives the default, 0 if there is none.
fn int(call: &mut Call<'_>) -> Done {
    let value = &call.input.value;
    let whole = match number(value) {
        Some(Number::Int(int)) => Some(int),
        Some(Number::Float(float)) if float.is_finite() => Some(float.trunc() as i128),
        Some(Number::Float(_)) => None,
        None => value.as_str().filter(|text| text.len() < 400).and_then(numeric).and_then(truncated),
    };
    match whole {
        Some(whole) => Ok(call.made(Number::Int(whole).into_value(), &[])),
        None => Ok(call.made(call.int(0, 0), &[0])),
    }
}

fn truncated(decimal: Decimal) -> Option<i128> {
    let text = decimal.text();
    text.split('.').next()?.parse().ok()
}

fn float(call: &mut Call<'_>) -> Done {
    let value = &call.input.value;
    let read = |value: &Value| match number(value) {
        Some(number) => Some(number.as_f64()),
        None => {
            value.as_str().filter(|text| text.len() < 400).and_then(numeric).and_then(|text| text.text().parse().ok())
        }
    };
    let float = read(value).or_else(|| call.value(0).and_then(read)).unwrap_or(0.0);
    Ok(call.made(float, &[0]))
}

fn bool(call: &mut Call<'_>) -> Done {
    let value = &call.input.value;
    let truth = match number(value) {
        // Only 1 is true (Jinjava).
        Some(number) => number.as_f64() == 1.0,
        None => as_bool(value).unwrap_or_else(|| means_yes(value)),
    };
    Ok(call.made(truth, &[]))
}

/// Keeps as many digits as are asked for: `20|round(1)` is `20.0`. From the middle up, unless told otherwise.
fn round(call: &mut Call<'_>) -> Done {
    let value = call.input.value.clone();
    if is_null(&value) {
        return call.same();
    }
    let method = call.text(1)?;
    let rounding = match method.as_deref() {
        Some("ceil") => Rounding::Ceiling,
        Some("floor") => Rounding::Floor,
        _ => Rounding::HalfUp,
    };
    let precision = call.int(0, 0);
    let scale = i32::try_from(precision).ok().filter(|scale| *scale <= SCALE_MAX as i32);
    let Some(scale) = scale else { return Err(call.fault(&format!("rounds to at most {SCALE_MAX} digits"))) };
    let decimal = match number(&value) {
        // Too long for a decimal: no fraction is left of it, or nothing but a fraction.
        Some(number) if Decimal::of(&value).is_none() && number.as_f64().abs() > 1.0 => return call.same(),
        _ => Decimal::of(&value).unwrap_or(Decimal::ZERO),
    };
    match decimal.rounded(scale, rounding) {
        Some(rounded) => Ok(call.made(rounded.value(), &[])),
        None => Err(call.fault("got a number with too many digits to round it like that")),
    }
}

/// The natural logarithm, or that of a base.
fn log(call: &mut Call<'_>) -> Done {
    let Some(number) = positive(call)? else { return call.same() };
    let Some(base) = call.value(0) else { return Ok(call.made(number.ln(), &[])) };
    let base = float_of(base).filter(|base| *base > 0.0).ok_or_else(|| call.fault("needs a base above 0"))?;
    let exact = (number.ln() / base.ln()).round();
    let whole = (base.powf(exact) - number).abs() <= f64::EPSILON * number;
    Ok(call.made(if whole { exact } else { number.ln() / base.ln() }, &[0]))
}

/// The square root, or another.
fn root(call: &mut Call<'_>) -> Done {
    let Some(number) = positive(call)? else { return call.same() };
    let nth = match call.value(0) {
        Some(nth) => float_of(nth).filter(|nth| *nth > 0.0).ok_or_else(|| call.fault("needs a root above 0"))?,
        None => 2.0,
    };
    let root = if nth == 2.0 { number.sqrt() } else { number.powf(nth.recip()) };
    let exact = root.round();
    let whole = (exact.powf(nth) - number).abs() <= f64::EPSILON * number;
    Ok(call.made(if whole { exact } else { root }, &[0]))
}

fn float_of(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some(text) => Number::parse(text).map(Number::as_f64),
        None => number(value).map(Number::as_f64),
    }
}

/// The input as a number above 0. `None` for what is neither number nor text, which is left alone.
fn positive(call: &Call<'_>) -> Result<Option<f64>, Box<super::super::error::Fault>> {
    let value = &call.input.value;
    if number(value).is_none() && value.as_str().is_none() {
        return Ok(None);
    }
    match float_of(value).filter(|number| *number > 0.0) {
        Some(number) => Ok(Some(number)),
        None => Err(call.fault("needs a number above 0")),
    }
}

/// `3.4 MiB`: 1000 to the next unit, or 1024.
fn filesizeformat(call: &mut Call<'_>) -> Done {
    const DECIMAL: [&str; 8] = ["KB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
    const BINARY: [&str; 8] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];
    let bytes = float_of(&call.input.value).unwrap_or(0.0);
    let (base, units) = if call.flag(0, false) { (1024.0, BINARY) } else { (1000.0, DECIMAL) };
    let text = if bytes == 1.0 {
        "1 Byte".to_owned()
    } else if bytes < base {
        format!("{} Bytes", bytes as i64)
    } else {
        let mut size = bytes / base;
        let mut unit = 0;
        while size >= base && unit + 1 < units.len() {
            size /= base;
            unit += 1;
        }
        format!("{size:.1} {}", units.get(unit).copied().unwrap_or_default())
    };
    call.made_text(text, &[])
}

/// Signs between thousands and before the fraction, by language; Java's.
const SEPARATORS: &[(&str, &str, &str)] = &[
    ("en", ",", "."),
    ("ja", ",", "."),
    ("ko", ",", "."),
    ("th", ",", "."),
    ("zh", ",", "."),
    ("da", ".", ","),
    ("de", ".", ","),
    ("el", ".", ","),
    ("es", ".", ","),
    ("hr", ".", ","),
    ("id", ".", ","),
    ("it", ".", ","),
    ("nl", ".", ","),
    ("pt", ".", ","),
    ("ro", ".", ","),
    ("sl", ".", ","),
    ("tr", ".", ","),
    ("vi", ".", ","),
    ("fr", "\u{202f}", ","),
    ("bg", "\u{a0}", ","),
    ("cs", "\u{a0}", ","),
    ("et", "\u{a0}", ","),
    ("fi", "\u{a0}", ","),
    ("hu", "\u{a0}", ","),
    ("lt", "\u{a0}", ","),
    ("lv", "\u{a0}", ","),
    ("nb", "\u{a0}", ","),
    ("no", "\u{a0}", ","),
    ("pl", "\u{a0}", ","),
    ("ru", "\u{a0}", ","),
    ("sk", "\u{a0}", ","),
    ("sv", "\u{a0}", ","),
    ("uk", "\u{a0}", ","),
];

/// Digits in groups, as a language has them. What is no number is left alone.
fn format_number(call: &mut Call<'_>) -> Done {
    let locale = call.text(0)?.filter(|locale| !locale.is_empty()).unwrap_or_else(|| "en".into());
    let language = locale.split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase();
    let Some((_, group, point)) = SEPARATORS.iter().find(|(known, ..)| *known == language) else {
        return Err(call.fault("does not know this locale"));
    };
    let value = call.input.value.clone();
    let number = match value.as_str() {
        Some(text) => numeric(text),
        None => Decimal::of(&value),
    };
    let Some(number) = number else { return call.same() };
    let most = u32::try_from(call.int(1, i64::from(SCALE_MAX))).unwrap_or(0).min(number.scale());
    let Some(rounded) = number.rounded(most as i32, Rounding::HalfEven) else { return call.same() };
    call.made_text(grouped(&rounded.text(), group, point, true), &[])
}

/// A number with `group` between thousands and `point` before the fraction, whose last zeros can go.
pub(super) fn grouped(digits: &str, group: &str, point: &str, short: bool) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let (whole, mut fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut text = String::from(sign);
    for (position, digit) in whole.chars().enumerate() {
        if position > 0 && (whole.len() - position).is_multiple_of(3) {
            text.push_str(group);
        }
        text.push(digit);
    }
    if short {
        fraction = fraction.trim_end_matches('0');
    }
    if !fraction.is_empty() {
        text.push_str(point);
        text.push_str(fraction);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_stand_where_thousands_end() {
        for (text, expected) in [
            ("1,234", Some("1234")),
            ("123,123.45", Some("123123.45")),
            ("-1,234,567", Some("-1234567")),
            ("12,5", None),
            ("1234,567", None),
            (",123", None),
            ("1,23a", None),
            ("123.123,45", None),
        ] {
            assert_eq!(numeric(text).map(Decimal::text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn groups_of_three() {
        assert_eq!(grouped("-1234567.50", ",", ".", true), "-1,234,567.5");
        assert_eq!(grouped("123.00", ".", ",", true), "123");
        assert_eq!(grouped("1000.00", ",", ".", false), "1,000.00");
    }
}
