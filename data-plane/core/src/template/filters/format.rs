//! `format`: Java's `String.format` for what data holds. Hides its little language; every width is limited before
//! anything is built (T08).

use minijinja::Value;

use super::super::decimal::{Decimal, Rounding};
use super::super::error::Fault;
use super::super::limits::{FORMAT_WIDTH, over};
use super::super::values::{Number, as_bool, is_null, number};
use super::numbers::grouped;
use super::{Builder, Call, Done, Spec, text_of};

pub(super) const FILTERS: &[Spec] = &[Spec::new("format", &[], 0, format).more()];

/// One `%…` of a format.
#[derive(Default)]
struct Directive {
    /// `2$`: which argument, from 1.
    index: Option<usize>,
    flags: String,
    width: Option<usize>,
    precision: Option<usize>,
    conversion: char,
}

/// Why a format cannot be used.
enum Refused {
    Malformed,
    TooWide,
}

impl Directive {
    /// Reads what follows a `%`, and gives what is left.
    fn read(text: &str) -> Result<(Directive, &str), Refused> {
        let mut directive = Directive::default();
        let mut rest = text;
        if let Some((digits, after)) = rest.split_once('$')
            && let Ok(index) = digits.parse::<usize>()
            && !digits.starts_with('0')
        {
            directive.index = Some(index);
            rest = after;
        }
        let flags = rest.len() - rest.trim_start_matches(['-', '#', '+', ' ', '0', ',', '(']).len();
        directive.flags = rest[..flags].to_owned();
        rest = &rest[flags..];
        directive.width = number_before(&mut rest)?;
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            directive.precision = Some(number_before(&mut rest)?.ok_or(Refused::Malformed)?);
        }
        directive.conversion = rest.chars().next().ok_or(Refused::Malformed)?;
        rest = &rest[directive.conversion.len_utf8()..];
        // Filling up needs to know how far.
        if directive.width.is_none() && (directive.has('-') || directive.has('0'))
            || directive.has('-') && directive.has('0')
        {
            return Err(Refused::Malformed);
        }
        Ok((directive, rest))
    }

    fn has(&self, flag: char) -> bool {
        self.flags.contains(flag)
    }
}

/// Digits at the start, at most [`FORMAT_WIDTH`].
fn number_before(rest: &mut &str) -> Result<Option<usize>, Refused> {
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, after) = rest.split_at(length);
    *rest = after;
    if digits.is_empty() {
        return Ok(None);
    }
    digits.parse().ok().filter(|number| *number <= FORMAT_WIDTH).map(Some).ok_or(Refused::TooWide)
}

fn format(call: &mut Call<'_>) -> Done {
    let text = call.input_text()?;
    let mut out = String::new();
    let mut rest = &*text;
    let mut next = 0;
    while let Some(at) = rest.find('%') {
        out = pushed(call, out, &rest[..at])?;
        let (directive, after) = Directive::read(&rest[at + 1..]).map_err(|refused| match refused {
            Refused::Malformed => call.fault("got a format that cannot be read"),
            Refused::TooWide => over("characters of width in a format", FORMAT_WIDTH),
        })?;
        rest = after;
        let written = match directive.conversion {
            '%' => "%".to_owned(),
            'n' => "\n".to_owned(),
            _ => {
                let position = directive.index.map_or(next, |index| index - 1);
                next += usize::from(directive.index.is_none());
                let value = call.given(position).map(|arg| arg.value.clone());
                let value = value.ok_or_else(|| call.fault("got a format that asks for more than is given"))?;
                written(call, &directive, &value)?
            }
        };
        out = pushed(call, out, &filled(&directive, written))?;
    }
    out = pushed(call, out, rest)?;
    let parts: Vec<usize> = (0..call.args.len()).collect();
    Ok(call.made(out, &parts))
}

fn pushed(call: &mut Call<'_>, text: String, more: &str) -> Result<String, Box<Fault>> {
    let mut builder = Builder { text, meter: &mut *call.meter };
    builder.push(more)?;
    Ok(builder.text)
}

fn written(call: &mut Call<'_>, directive: &Directive, value: &Value) -> Result<String, Box<Fault>> {
    let text = match directive.conversion {
        's' | 'S' => {
            let text = if is_null(value) { "null".into() } else { text_of(value, call.meter)? };
            text.chars().take(directive.precision.unwrap_or(usize::MAX)).collect()
        }
        'b' | 'B' => as_bool(value).unwrap_or(!is_null(value)).to_string(),
        'd' | 'x' | 'X' | 'o' | 'c' | 'f' | 'e' | 'E' if is_null(value) => "null".to_owned(),
        'd' | 'x' | 'X' | 'o' | 'c' => match number(value) {
            Some(Number::Int(int)) => whole(directive, int).ok_or_else(|| call.fault("got a number out of range"))?,
            _ => return Err(call.needs("a whole number there", value)),
        },
        'f' | 'e' | 'E' => match number(value) {
            Some(number) => fraction(directive, value, number.as_f64()),
            None => return Err(call.needs("a number there", value)),
        },
        _ => return Err(call.fault("got a format with an unknown conversion")),
    };
    Ok(if directive.conversion.is_ascii_uppercase() { text.to_uppercase() } else { text })
}

fn whole(directive: &Directive, int: i128) -> Option<String> {
    Some(match directive.conversion {
        'd' => signed(directive, &int.to_string()),
        'c' => char::from_u32(u32::try_from(int).ok()?)?.to_string(),
        // Java writes the bits of negative numbers.
        'o' => format!("{:o}", i64::try_from(int).ok()?),
        _ if directive.has('#') => format!("0x{:x}", i64::try_from(int).ok()?),
        _ => format!("{:x}", i64::try_from(int).ok()?),
    })
}

fn fraction(directive: &Directive, value: &Value, float: f64) -> String {
    let precision = directive.precision.unwrap_or(6);
    if !float.is_finite() {
        return if float.is_nan() {
            "NaN".into()
        } else {
            signed(directive, if float > 0.0 { "Infinity" } else { "-Infinity" })
        };
    }
    let digits = match directive.conversion {
        'f' => {
            let exact = Decimal::of(value)
                .and_then(|decimal| decimal.rounded(i32::try_from(precision).ok()?, Rounding::HalfUp));
            exact.map_or_else(|| format!("{float:.precision$}"), Decimal::text)
        }
        // Java has two digits of exponent and always its sign.
        _ => {
            let text = format!("{float:.precision$e}");
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            format!("{mantissa}e{sign}{exponent:0>2}")
        }
    };
    signed(directive, &digits)
}

/// With the sign, the groups and the leading zeros that the flags ask for.
fn signed(directive: &Directive, digits: &str) -> String {
    let (negative, digits) = digits.strip_prefix('-').map_or((false, digits), |digits| (true, digits));
    let digits = if directive.has(',') { grouped(digits, ",", ".", false) } else { digits.to_owned() };
    let (before, after) = match negative {
        true if directive.has('(') => ("(", ")"),
        true => ("-", ""),
        false if directive.has('+') => ("+", ""),
        false if directive.has(' ') => (" ", ""),
        false => ("", ""),
    };
    let zeros = match directive.width {
        Some(width) if directive.has('0') => width.saturating_sub(before.len() + digits.len() + after.len()),
        _ => 0,
    };
    format!("{before}{}{digits}{after}", "0".repeat(zeros))
}

fn filled(directive: &Directive, text: String) -> String {
    let room = directive.width.unwrap_or(0).saturating_sub(text.chars().count());
    if room == 0 {
        return text;
    }
    let spaces = " ".repeat(room);
    if directive.has('-') { text + &spaces } else { spaces + &text }
}
