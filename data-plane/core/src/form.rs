//! The form of a schema template: which values its fields take (D25, F70, S40) and as what templates get them. Hides how a text
//! becomes a typed value.

use std::fmt;

use crate::filter::{Decimal, Moment, Pattern};
use crate::request::{RenderFailure, Unmade, unmade};
use crate::response_event::FailureReason;
use crate::template::{Context, OnMissing, Template, Value, map_value, value_from_json_text};

/// Longest value of a field, in characters.
pub const VALUE_CHARS_MAX: usize = 16 * 1024;
/// Options that a message names.
const OPTIONS_NAMED: usize = 10;

/// A form: its fields in their order.
#[derive(Debug, Default)]
pub struct Form {
    /// Their ids differ.
    pub fields: Vec<Field>,
}

impl Form {
    /// The field with this id.
    pub fn field(&self, id: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.id == id)
    }

    /// Renders what was filled in, each value once (R008, T16), checks it (S40), and gives it to templates as `context`. The paths
    /// that were asked for and not found.
    ///
    /// # Errors
    /// A value breaks a rule of its field, or a template says that nothing is to be sent.
    pub fn fill(
        &self,
        values: &[(String, Template)],
        on_missing: OnMissing,
        context: &mut Context,
    ) -> Result<Vec<String>, Unmade> {
        // What is missing is no value: `null` would be the text.
        let on_missing = if on_missing == OnMissing::Fail { OnMissing::Fail } else { OnMissing::Empty };
        let mut missing = Vec::new();
        let mut filled = Vec::with_capacity(self.fields.len());
        for field in &self.fields {
            let place = format!("form_values[{}]", field.id);
            let given = match values.iter().find(|(id, _)| *id == field.id) {
                None => String::new(),
                Some((_, template)) => {
                    let rendered = template.render(context, on_missing).map_err(|error| unmade(&place, error))?;
                    context.use_steps(rendered.steps);
                    missing.extend(rendered.missing);
                    rendered.text
                }
            };
            let value = field.value(&given).map_err(|refused| {
                RenderFailure::new(FailureReason::FormValueInvalid, &place, format!("{place}: {refused}"))
            })?;
            filled.push((field.id.as_str(), value));
        }
        context.set("context", map_value(filled));
        Ok(missing)
    }
}

/// A field of a form.
#[derive(Debug)]
pub struct Field {
    /// Names it in templates.
    pub id: String,
    /// What it takes.
    pub kind: Kind,
    /// A value must be there.
    pub required: bool,
    /// The value where none is given; empty: none.
    pub default_value: String,
    /// The author's words for whoever breaks a rule; may be empty.
    pub error_message: String,
}

/// What a field takes, and its rules.
#[derive(Debug)]
pub enum Kind {
    /// A text.
    Text {
        /// Without line breaks.
        one_line: bool,
        /// Fewest characters.
        min_length: usize,
        /// Most characters.
        max_length: usize,
        /// Matches the whole text.
        pattern: Option<Pattern>,
    },
    /// A decimal number.
    Number {
        /// Most decimal places.
        places: Option<i64>,
        /// The least.
        min: Option<Decimal>,
        /// The greatest.
        max: Option<Decimal>,
    },
    /// `true` or `false`.
    Boolean,
    /// A date, or a date and time.
    Moment {
        /// Which of the two.
        with_time: bool,
        /// The first, as it was written.
        min: Option<(Moment, String)>,
        /// The last, as it was written.
        max: Option<(Moment, String)>,
    },
    /// One of these.
    Select(Vec<String>),
    /// A list of these.
    MultiSelect(Vec<String>),
}

/// Which rule a value breaks. It never holds the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// There is no value, and one is required.
    pub is_missing: bool,
    /// The rule, behind the author's own words.
    message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Field {
    /// What templates get for the text `given`: a text, a number with all its digits, a boolean, a date as its text, a list of
    /// texts; null when there is no value.
    ///
    /// # Errors
    /// It breaks a rule.
    pub fn value(&self, given: &str) -> Result<Value, Refused> {
        let missing = || Refused { is_missing: true, message: self.told("a value is required") };
        let given = self.kind.bare(given);
        let text = if given.is_empty() { self.kind.bare(&self.default_value) } else { given };
        if text.is_empty() {
            return if self.required { Err(missing()) } else { Ok(Value::from(())) };
        }
        let read = self.kind.value(text).map_err(|rule| Refused { is_missing: false, message: self.told(&rule) })?;
        // Nothing chosen is no value.
        if self.required && read.len() == Some(0) { Err(missing()) } else { Ok(read) }
    }

    fn told(&self, rule: &str) -> String {
        if self.error_message.is_empty() { rule.to_owned() } else { format!("{} ({rule})", self.error_message) }
    }
}

impl Kind {
    /// The text without what does not count.
    fn bare<'t>(&self, text: &'t str) -> &'t str {
        match self {
            Self::Text { .. } | Self::Select(_) => text,
            Self::Number { .. } | Self::Boolean | Self::Moment { .. } | Self::MultiSelect(_) => text.trim(),
        }
    }

    /// The value of a bare text that is not empty, or the rule it breaks.
    fn value(&self, text: &str) -> Result<Value, String> {
        let chars = text.chars().count();
        if chars > VALUE_CHARS_MAX {
            return Err(format!("has {chars} characters; the limit is {VALUE_CHARS_MAX}"));
        }
        match self {
            Self::Text { one_line, min_length, max_length, pattern } => {
                if *one_line && text.contains(['\n', '\r']) {
                    return Err("must be one line".to_owned());
                }
                if chars < *min_length {
                    return Err(format!("has {chars} characters; the least is {min_length}"));
                }
                if chars > *max_length {
                    return Err(format!("has {chars} characters; the limit is {max_length}"));
                }
                match pattern {
                    Some(pattern) if !pattern.is_match(text) => Err("must match the field's pattern".to_owned()),
                    Some(_) | None => Ok(Value::from(text)),
                }
            }
            Self::Number { places, min, max } => number(text, *places, min.as_ref(), max.as_ref()),
            Self::Boolean => match text {
                "true" => Ok(Value::from(true)),
                "false" => Ok(Value::from(false)),
                _ => Err("must be `true` or `false`".to_owned()),
            },
            Self::Moment { with_time, min, max } => moment(text, *with_time, min.as_ref(), max.as_ref()),
            Self::Select(options) if options.iter().any(|option| option == text) => Ok(Value::from(text)),
            Self::Select(options) => Err(format!("must be {}", one_of(options))),
            Self::MultiSelect(options) => selection(text, options),
        }
    }
}

fn number(text: &str, places: Option<i64>, min: Option<&Decimal>, max: Option<&Decimal>) -> Result<Value, String> {
    let not_a_number = || "must be a number, such as 12.50".to_owned();
    let number = Decimal::parse(text).ok_or_else(not_a_number)?;
    if let Some(limit) = places.filter(|limit| number.places() > *limit) {
        return Err(format!("has {} decimal places; the limit is {limit}", number.places()));
    }
    if let Some(min) = min.filter(|min| min.compare(text).is_none_or(std::cmp::Ordering::is_lt)) {
        return Err(format!("must not be less than {}", min.as_str()));
    }
    if let Some(max) = max.filter(|max| max.compare(text).is_none_or(std::cmp::Ordering::is_gt)) {
        return Err(format!("must not be greater than {}", max.as_str()));
    }
    value_from_json_text(text).ok_or_else(not_a_number)
}

/// The moment that `text` says, if it is written as a date, or as a date and time with its distance from UTC.
pub fn read_moment(text: &str, with_time: bool) -> Option<Moment> {
    let date = text.get(..10)?;
    let is_date = date.char_indices().all(|(at, c)| if at == 4 || at == 7 { c == '-' } else { c.is_ascii_digit() });
    let time = text.get(10..)?;
    let is_whole = match with_time {
        false => time.is_empty(),
        true => {
            let clock = time.get(1..).unwrap_or_default();
            time.starts_with('T') && (clock.ends_with('Z') || clock.contains(['+', '-']))
        }
    };
    (is_date && is_whole).then(|| Moment::parse(text)).flatten()
}

fn moment(
    text: &str,
    with_time: bool,
    min: Option<&(Moment, String)>,
    max: Option<&(Moment, String)>,
) -> Result<Value, String> {
    let Some(moment) = read_moment(text, with_time) else {
        let example =
            if with_time { "a date and time, such as 2026-11-22T09:30:00Z" } else { "a date, such as 2026-11-22" };
        return Err(format!("must be {example}"));
    };
    if let Some((_, min)) = min.filter(|(min, _)| moment < *min) {
        return Err(format!("must not be before {min}"));
    }
    if let Some((_, max)) = max.filter(|(max, _)| moment > *max) {
        return Err(format!("must not be after {max}"));
    }
    Ok(Value::from(text))
}

fn selection(text: &str, options: &[String]) -> Result<Value, String> {
    let refused = || format!("must be a JSON list with each value at most once, each {}", one_of(options));
    let chosen: Vec<String> = serde_json::from_str(text).map_err(|_| refused())?;
    let good = |(at, one): (usize, &String)| options.contains(one) && !chosen.iter().take(at).any(|other| other == one);
    if !chosen.iter().enumerate().all(good) {
        return Err(refused());
    }
    value_from_json_text(text).ok_or_else(refused)
}

fn one_of(options: &[String]) -> String {
    let named: Vec<String> = options.iter().take(OPTIONS_NAMED).map(|option| format!("`{option}`")).collect();
    let more = options.len().saturating_sub(OPTIONS_NAMED);
    let rest = if more > 0 { format!(" or one of {more} more") } else { String::new() };
    format!("one of {}{rest}", named.join(", "))
}
