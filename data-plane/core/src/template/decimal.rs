//! Decimal numbers without binary noise, for the filters that calculate (D16). Hides digits and scale: what Java's
//! `BigDecimal` does, within the 38 digits of 128 bits.

use std::fmt::Write as _;

use minijinja::Value;

use super::values::{self, Number};

/// `mantissa / 10^scale`. The scale is kept as it was written: `2.50` is not `2.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    mantissa: i128,
    scale: u32,
}

/// Which way what does not fit goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounding {
    /// To the next, and up from the middle.
    HalfUp,
    /// To the next, and to the even one from the middle.
    HalfEven,
    Ceiling,
    Floor,
}

/// Most digits after the point.
pub(super) const SCALE_MAX: u32 = 38;

impl Decimal {
    pub(super) const ZERO: Decimal = Decimal { mantissa: 0, scale: 0 };

    /// `-12`, `1.50`, `2e-3`. `None` for what is no number, and for one of more digits than fit.
    pub(super) fn parse(text: &str) -> Option<Decimal> {
        // Nobody calculates with longer ones.
        if text.len() > 450 {
            return None;
        }
        let (digits, exponent) = match text.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (negative, digits) = match digits.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, digits.strip_prefix('+').unwrap_or(digits)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.len() + fraction.len() == 0 {
            return None;
        }
        let mut mantissa = 0i128;
        for byte in whole.bytes().chain(fraction.bytes()) {
            let digit = char::from(byte).to_digit(10)?;
            mantissa = mantissa.checked_mul(10)?.checked_add(i128::from(digit))?;
        }
        let mantissa = if negative { -mantissa } else { mantissa };
        match i64::from(exponent) - fraction.len() as i64 {
            scale @ ..=0 if -scale <= i64::from(SCALE_MAX) => Some(Decimal { mantissa, scale: (-scale) as u32 }),
            shift @ 1..=38 => Some(Decimal { mantissa: mantissa.checked_mul(power_of_ten(shift as u32)?)?, scale: 0 }),
            _ if mantissa == 0 => Some(Decimal::ZERO),
            _ => None,
        }
    }

    /// A number, or a text that is one.
    pub(super) fn of(value: &Value) -> Option<Decimal> {
        match value.as_str() {
            Some(text) => Decimal::parse(text),
            None if values::number(value).is_some() => Decimal::parse(&values::display(value, 500).ok()?),
            None => None,
        }
    }

    pub(super) fn scale(self) -> u32 {
        self.scale
    }

    pub(super) fn abs(self) -> Decimal {
        Decimal { mantissa: self.mantissa.saturating_abs(), ..self }
    }

    /// With `scale` digits after the point; below 0, whole tens, hundreds and so on.
    pub(super) fn rounded(self, scale: i32, rounding: Rounding) -> Option<Decimal> {
        let drop = i64::from(self.scale) - i64::from(scale);
        if drop <= 0 {
            let factor = power_of_ten(u32::try_from(-drop).ok()?)?;
            return Some(Decimal { mantissa: self.mantissa.checked_mul(factor)?, scale: u32::try_from(scale).ok()? });
        }
        let kept = match power_of_ten(u32::try_from(drop).ok()?) {
            Some(unit) => quotient(self.mantissa, unit, rounding),
            // The unit is larger than any number.
            None => match rounding {
                Rounding::Ceiling => i128::from(self.mantissa > 0),
                Rounding::Floor => -i128::from(self.mantissa < 0),
                Rounding::HalfUp | Rounding::HalfEven => 0,
            },
        };
        match u32::try_from(scale) {
            Ok(scale) => Some(Decimal { mantissa: kept, scale }),
            Err(_) if kept == 0 => Some(Decimal::ZERO),
            Err(_) => Some(Decimal { mantissa: kept.checked_mul(power_of_ten(scale.unsigned_abs())?)?, scale: 0 }),
        }
    }

    pub(super) fn plus(self, other: Decimal) -> Option<Decimal> {
        let scale = self.scale.max(other.scale);
        let (a, b) = (self.widened(scale)?, other.widened(scale)?);
        Some(Decimal { mantissa: a.checked_add(b)?, scale })
    }

    pub(super) fn times(self, other: Decimal) -> Option<Decimal> {
        let scale = self.scale + other.scale;
        let mantissa = self.mantissa.checked_mul(other.mantissa)?;
        (scale <= SCALE_MAX).then_some(Decimal { mantissa, scale })
    }

    /// With as many digits after the point as `self` has (Java's `divide` with a rounding mode): 10 by 4 is 3.
    pub(super) fn over(self, other: Decimal) -> Option<Decimal> {
        let dividend = self.mantissa.checked_mul(power_of_ten(other.scale)?)?;
        let (dividend, divisor) =
            if other.mantissa < 0 { (-dividend, -other.mantissa) } else { (dividend, other.mantissa) };
        (divisor != 0).then(|| Decimal { mantissa: quotient(dividend, divisor, Rounding::HalfUp), scale: self.scale })
    }

    fn widened(self, scale: u32) -> Option<i128> {
        self.mantissa.checked_mul(power_of_ten(scale - self.scale)?)
    }

    pub(super) fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    /// The digits, never in scientific notation.
    pub(super) fn text(self) -> String {
        let mut text = String::new();
        if self.mantissa < 0 {
            text.push('-');
        }
        let digits = self.mantissa.unsigned_abs().to_string();
        let scale = self.scale as usize;
        if scale == 0 {
            text.push_str(&digits);
            return text;
        }
        let padded = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = padded.split_at(padded.len() - scale);
        let _ = write!(text, "{whole}.{fraction}");
        text
    }

    /// The number with its digits as they are (D16).
    pub(super) fn value(self) -> Value {
        values::number_from_text(&self.text())
    }
}

/// Two values calculated with exactly where they fit, and as floats where they do not. `None` when one is no number.
pub(super) fn calculate(
    a: &Value,
    b: &Value,
    exact: fn(Decimal, Decimal) -> Option<Decimal>,
    float: fn(f64, f64) -> f64,
) -> Option<Value> {
    if let (Some(x), Some(y)) = (Decimal::of(a), Decimal::of(b))
        && let Some(result) = exact(x, y)
    {
        return Some(result.value());
    }
    let float = float(as_float(a)?, as_float(b)?);
    float.is_finite().then(|| Value::from(float))
}

fn as_float(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some(text) => Number::parse(text).map(Number::as_f64),
        None => values::number(value).map(Number::as_f64),
    }
}

fn power_of_ten(exponent: u32) -> Option<i128> {
    10i128.checked_pow(exponent)
}

/// `a / b`, `b` above 0.
fn quotient(a: i128, b: i128, rounding: Rounding) -> i128 {
    let (floor, rest) = (a.div_euclid(b), a.rem_euclid(b));
    // Twice the rest may not fit.
    let middle = rest.cmp(&(b - rest));
    let up = match rounding {
        Rounding::Floor => false,
        Rounding::Ceiling => rest > 0,
        // Away from zero.
        Rounding::HalfUp => middle.is_gt() || middle.is_eq() && a > 0,
        Rounding::HalfEven => middle.is_gt() || middle.is_eq() && floor % 2 != 0,
    };
    floor + i128::from(up)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn digits_are_kept() {
        for text in ["0", "1", "-1", "2.50", "-0.05", "0.0000001", "99999999999999999999999999999999999999"] {
            assert_eq!(decimal(text).text(), text);
        }
        assert_eq!(decimal("1e3").text(), "1000");
        assert_eq!(decimal("1.5E-2").text(), "0.015");
        for text in ["", "-", ".", "e1", "1e", "abc", "1,5", "1e99999999999", "1e-99", "Infinity", "NaN", "١"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn rounds_as_java_does() {
        use Rounding::*;
        for (text, scale, rounding, expected) in [
            ("42.55", 0, HalfUp, "43"),
            ("42.55", 1, Floor, "42.5"),
            ("42.55", 1, Ceiling, "42.6"),
            ("2.5", 0, HalfUp, "3"),
            ("-2.5", 0, HalfUp, "-3"),
            ("2.5", 0, HalfEven, "2"),
            ("3.5", 0, HalfEven, "4"),
            ("-2.51", 0, HalfEven, "-3"),
            ("-2.1", 0, Floor, "-3"),
            ("-2.9", 0, Ceiling, "-2"),
            ("3", 2, HalfUp, "3.00"),
            ("1234", -2, HalfUp, "1200"),
            ("5", -40, HalfUp, "0"),
        ] {
            assert_eq!(decimal(text).rounded(scale, rounding).map(Decimal::text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(decimal("99999999999999999999").rounded(30, HalfUp), None);
        assert_eq!(decimal("1").rounded(-45, Ceiling), None);
    }

    #[test]
    fn calculates_as_java_does() {
        assert_eq!(decimal("0.1").plus(decimal("0.20")).map(Decimal::text).as_deref(), Some("0.30"));
        assert_eq!(decimal("10").times(decimal("0.25")).map(Decimal::text).as_deref(), Some("2.50"));
        assert_eq!(decimal("10").over(decimal("4")).map(Decimal::text).as_deref(), Some("3"));
        assert_eq!(decimal("10.0").over(decimal("-4")).map(Decimal::text).as_deref(), Some("-2.5"));
        assert_eq!(decimal("1").over(decimal("0.0")), None);
    }
}
