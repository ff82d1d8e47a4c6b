//! Exact comparison of decimal numbers by their text (D16, D17): no floating point, and an exponent is only ever a
//! number of places, so `1e999999999` costs nothing.

use std::cmp::Ordering;

/// Exponents further from zero than this are not compared: no two texts within it can be confused, and adding the
/// places of a whole body to it cannot overflow.
const MAX_EXPONENT: i64 = 1_000_000_000_000_000;

/// A number as JSON writes it, kept as that text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decimal(String);

impl Decimal {
    /// `None` when `text` is not a JSON number, or its exponent is beyond ±10^15.
    pub fn parse(text: &str) -> Option<Self> {
        Parts::of(text).map(|_| Self(text.to_owned()))
    }

    /// The text it was made from.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its decimal places, without zeros at the end: 2 of `12.50e-1`, 0 of `1e2`.
    pub fn places(&self) -> i64 {
        let Some(Parts { magnitude, digits: (whole, fraction), .. }) = Parts::of(&self.0) else { return 0 };
        let last = |digits: &[u8]| digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
        let digits = match last(fraction) {
            0 => last(whole),
            fraction => whole.len() + fraction,
        };
        i64::try_from(digits).map_or(i64::MAX, |digits| (digits - magnitude).max(0))
    }

    /// How the number written `text` compares to this one; `None` when `text` cannot be compared (see
    /// [`Decimal::parse`]).
    pub fn compare(&self, text: &str) -> Option<Ordering> {
        Some(Parts::of(text)?.cmp(&Parts::of(&self.0)?))
    }
}

/// `± 0.d1 d2 d3 … × 10^magnitude` with d1 ≠ 0; zero has no digits and no sign.
struct Parts<'t> {
    negative: bool,
    magnitude: i64,
    /// The digits before and after the point, without leading zeros; zeros at the end are ignored in comparing.
    digits: (&'t [u8], &'t [u8]),
}

impl<'t> Parts<'t> {
    fn of(text: &'t str) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match rest.find(['e', 'E']) {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
            Some(_) => return None,
            None => (mantissa, ""),
        };
        let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let leading_zero = whole.len() > 1 && whole.starts_with('0');
        if whole.is_empty() || leading_zero || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let exponent = exponent.map_or(Some(Exponent::Within(0)), Exponent::parse)?;
        let whole = whole.trim_start_matches('0');
        let significant = if whole.is_empty() { fraction.trim_start_matches('0') } else { fraction };
        if whole.is_empty() && significant.is_empty() {
            return Some(Self { negative: false, magnitude: 0, digits: (&[], &[]) });
        }
        let Exponent::Within(exponent) = exponent else { return None };
        let leading = if whole.is_empty() { fraction.len() - significant.len() } else { 0 };
        let places = i64::try_from(whole.len()).ok()? - i64::try_from(leading).ok()?;
        Some(Self { negative, magnitude: exponent + places, digits: (whole.as_bytes(), significant.as_bytes()) })
    }

    fn is_zero(&self) -> bool {
        self.digits.0.is_empty() && self.digits.1.is_empty()
    }

    fn cmp(&self, other: &Self) -> Ordering {
        match (self.is_zero(), other.is_zero()) {
            (true, true) => return Ordering::Equal,
            (true, false) => return if other.negative { Ordering::Greater } else { Ordering::Less },
            (false, true) => return if self.negative { Ordering::Less } else { Ordering::Greater },
            (false, false) => {}
        }
        if self.negative != other.negative {
            return if self.negative { Ordering::Less } else { Ordering::Greater };
        }
        let size = self.magnitude.cmp(&other.magnitude).then_with(|| self.cmp_digits(other));
        if self.negative { size.reverse() } else { size }
    }

    fn cmp_digits(&self, other: &Self) -> Ordering {
        let mut ours = self.digits.0.iter().chain(self.digits.1);
        let mut theirs = other.digits.0.iter().chain(other.digits.1);
        loop {
            // A number that has run out of digits goes on in zeros.
            match (ours.next(), theirs.next()) {
                (None, None) => return Ordering::Equal,
                (a, b) => match a.unwrap_or(&b'0').cmp(b.unwrap_or(&b'0')) {
                    Ordering::Equal => {}
                    unequal => return unequal,
                },
            }
        }
    }
}

enum Exponent {
    Within(i64),
    Beyond,
}

impl Exponent {
    fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let digits = digits.trim_start_matches('0');
        Some(match if digits.is_empty() { Ok(0) } else { digits.parse::<i64>() } {
            Ok(places) if places <= MAX_EXPONENT => Self::Within(if negative { -places } else { places }),
            _ => Self::Beyond,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_decimal_places() {
        for (text, places) in [
            ("0", 0),
            ("0.000", 0),
            ("12", 0),
            ("1200", 0),
            ("12.50", 1),
            ("12.50e-1", 2),
            ("1e2", 0),
            ("100e-4", 2),
            ("0.001", 3),
            ("-0.0010e1", 2),
        ] {
            assert_eq!(Decimal::parse(text).unwrap().places(), places, "{text}");
        }
    }

    #[test]
    fn orders_numbers_exactly() {
        let ascending = [
            "-1e1000",
            "-18446744073709551617",
            "-18446744073709551616",
            "-2",
            "-1.5",
            "-0.001",
            "-1e-999999999",
            "0",
            "1e-999999999",
            "0.1",
            "0.10000000000000000000000000000000001",
            "0.2",
            "1",
            "9.99",
            "10",
            "9007199254740993",
            "9007199254740993.5",
            "1e400",
            "1e999999999999999",
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(Decimal::parse(b).unwrap().compare(a), Some(i.cmp(&j)), "{a} {b}");
            }
        }
    }

    #[test]
    fn one_number_has_many_texts() {
        for group in [
            &["0", "-0", "0.00", "0e999999999999999999999999", "-0.0e-5"][..],
            &["100", "1e2", "1E+2", "100.00", "0.1e3", "10000e-2", "0.001e5", "1e0002"],
            &["-0.05", "-5e-2", "-0.050"],
        ] {
            for a in group {
                for b in group {
                    assert_eq!(Decimal::parse(a).unwrap().compare(b), Some(Ordering::Equal), "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_number_is_not_compared() {
        for text in ["", "-", "+1", "01", "1.", ".5", "1e", "1e+", "1e1.5", "NaN", "0x1", "1 ", "١", "--1", "1e--1"] {
            assert!(Decimal::parse(text).is_none(), "{text}");
        }
        assert!(Decimal::parse("1e1000000000000001").is_none());
        assert!(Decimal::parse("1").unwrap().compare("1e99999999999999999999999999").is_none());
    }
}
