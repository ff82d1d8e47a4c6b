//! Schema templates: forms, and what may be filled into them.

use std::cmp::Ordering;
use std::collections::HashSet;

use sluice_proto::admin::v1 as admin;
use sluice_proto::admin::v1::schema_field::Type;

use super::Parsed;
use crate::filter::{Decimal, MAX_PATTERNS, Moment, Pattern};
use crate::form::{Field, Form, Kind, VALUE_CHARS_MAX, read_moment};
use crate::validate::{Check, NAME_CHARS_MAX};

/// Most fields of a form.
pub const FIELDS_MAX: usize = 100;
/// Longest id of a field, in characters (F70).
pub(super) const ID_CHARS_MAX: usize = 64;
/// What an id of a field must be.
pub(super) const FIELD_ID: &str =
    "the id of a field must be 1 to 64 letters, digits and `_`: templates name it so (F70)";
/// Most options of a field.
const OPTIONS_MAX: usize = 200;
/// Longest value of an option, in characters.
const OPTION_CHARS_MAX: usize = 256;
/// Longest description of a field, in characters.
const DESCRIPTION_CHARS_MAX: usize = 1024;
/// Longest placeholder, tooltip and error message, in characters.
const HINT_CHARS_MAX: usize = 256;
/// Most decimal places that can be set.
const DECIMAL_PLACES_MAX: i64 = 18;
/// Longest number that can be set as a limit, in bytes.
const NUMBER_BYTES_MAX: usize = 64;

/// Parses a schema template.
pub fn schema_template(proto: &admin::SchemaTemplate) -> Parsed<Form> {
    let mut check = Check::default();
    check.name("display_name", &proto.display_name, NAME_CHARS_MAX);
    let form = form(&mut check, "fields", &proto.fields);
    check.finish(form)
}

/// Parses the fields of a form.
pub(super) fn form(check: &mut Check, list: &str, wire: &[admin::SchemaField]) -> Option<Form> {
    if wire.is_empty() {
        check.fail(list, "REQUIRED", "at least one is required");
    }
    check.count(list, wire.len(), FIELDS_MAX);
    let patterns = wire.iter().flat_map(|field| &field.validation).filter(|rules| !rules.pattern.is_empty()).count();
    if patterns > MAX_PATTERNS {
        check.fail(list, "TOO_MANY", format!("has {patterns} patterns; the limit is {MAX_PATTERNS}"));
        return None;
    }
    let mut ids = HashSet::new();
    let mut fields = Vec::new();
    for (index, wire) in wire.iter().enumerate().take(FIELDS_MAX) {
        fields.extend(check.within(format!("{list}[{index}]"), |check| {
            if !ids.insert(&wire.id) {
                check.fail("id", "DUPLICATE", format!("`{}` is there twice", wire.id));
            }
            field(check, wire)
        }));
    }
    (fields.len() == wire.len()).then_some(Form { fields })
}

fn field(check: &mut Check, wire: &admin::SchemaField) -> Option<Field> {
    if wire.id.is_empty() {
        check.fail("id", "REQUIRED", "is required");
    } else if !is_field_id(&wire.id) {
        check.fail("id", "ID_INVALID", FIELD_ID);
    }
    check.name("label", &wire.label, NAME_CHARS_MAX);
    at_most(check, "description", &wire.description, DESCRIPTION_CHARS_MAX);
    at_most(check, "placeholder", &wire.placeholder, HINT_CHARS_MAX);
    at_most(check, "tooltip", &wire.tooltip, HINT_CHARS_MAX);
    let rules = wire.validation.clone().unwrap_or_default();
    at_most(check, "validation.error_message", &rules.error_message, HINT_CHARS_MAX);
    refuse_strange(check, wire, &rules);
    let kind = kind(check, wire, &rules)?;
    let field = Field {
        id: wire.id.clone(),
        kind,
        required: rules.required,
        default_value: wire.default_value.clone(),
        error_message: rules.error_message,
    };
    // A default that breaks the rules would break every delivery that relies on it.
    if !field.default_value.is_empty()
        && let Err(refused) = field.value(&field.default_value)
    {
        check.fail("default_value", "FORM_VALUE_INVALID", refused.to_string());
    }
    Some(field)
}

/// Whether a field may have this id (F70).
pub(super) fn is_field_id(id: &str) -> bool {
    (1..=ID_CHARS_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn at_most(check: &mut Check, field: &str, text: &str, max: usize) {
    let chars = text.chars().count();
    if chars > max {
        check.fail(field, "TOO_LONG", format!("has {chars} characters; the limit is {max}"));
    }
}

/// A rule that the type of the field has no use for is refused, not ignored (I9).
fn refuse_strange(check: &mut Check, wire: &admin::SchemaField, rules: &admin::SchemaValidation) {
    let of_text = matches!(wire.r#type(), Type::Text | Type::TextArea);
    let of_range = matches!(wire.r#type(), Type::Number | Type::Date | Type::Datetime);
    let of_options = matches!(wire.r#type(), Type::Select | Type::MultiSelect);
    let rows = [
        ("validation.min_length", rules.min_length != 0, of_text, "TEXT and TEXT_AREA"),
        ("validation.max_length", rules.max_length != 0, of_text, "TEXT and TEXT_AREA"),
        ("validation.pattern", !rules.pattern.is_empty(), of_text, "TEXT and TEXT_AREA"),
        ("validation.min_value", !rules.min_value.is_empty(), of_range, "NUMBER, DATE and DATETIME"),
        ("validation.max_value", !rules.max_value.is_empty(), of_range, "NUMBER, DATE and DATETIME"),
        ("decimal_places", wire.decimal_places.is_some(), wire.r#type() == Type::Number, "NUMBER"),
        ("options", !wire.options.is_empty(), of_options, "SELECT and MULTI_SELECT"),
    ];
    if wire.r#type() == Type::Unspecified {
        return;
    }
    for (field, is_set, fits, types) in rows {
        if is_set && !fits {
            check.fail(field, "NOT_OF_TYPE", format!("is only for fields of type {types}"));
        }
    }
}

fn kind(check: &mut Check, wire: &admin::SchemaField, rules: &admin::SchemaValidation) -> Option<Kind> {
    match wire.r#type() {
        Type::Unspecified => {
            let all = "TEXT, TEXT_AREA, NUMBER, BOOLEAN, DATE, DATETIME, SELECT, MULTI_SELECT";
            check.fail("type", "REQUIRED", format!("one of {all} is required"));
            None
        }
        kind @ (Type::Text | Type::TextArea) => check.within("validation", |check| text(check, kind, rules)),
        Type::Number => {
            if let Some(places) = wire.decimal_places {
                check.range("decimal_places", places.into(), 0, DECIMAL_PLACES_MAX, "");
            }
            let read = |text: &str| (text.len() <= NUMBER_BYTES_MAX).then(|| Decimal::parse(text)).flatten();
            let [min, max] = range(check, rules, "a number, such as 12.50", read)?;
            let is_empty = |min: &Decimal, max: &Decimal| max.compare(min.as_str()).is_some_and(Ordering::is_gt);
            refuse_empty(check, min.as_ref().zip(max.as_ref()).is_some_and(|(min, max)| is_empty(min, max)));
            Some(Kind::Number { places: wire.decimal_places.map(Into::into), min, max })
        }
        Type::Boolean => Some(Kind::Boolean),
        kind @ (Type::Date | Type::Datetime) => moment(check, kind == Type::Datetime, rules),
        Type::Select => options(check, &wire.options).map(Kind::Select),
        Type::MultiSelect => options(check, &wire.options).map(Kind::MultiSelect),
    }
}

fn text(check: &mut Check, kind: Type, rules: &admin::SchemaValidation) -> Option<Kind> {
    let limit = i64::try_from(VALUE_CHARS_MAX).unwrap_or(i64::MAX);
    let max = if rules.max_length == 0 { limit } else { i64::from(rules.max_length) };
    check.range("min_length", rules.min_length.into(), 0, limit, " characters");
    check.range("max_length", max, 1, limit, " characters");
    if i64::from(rules.min_length) > max {
        check.fail("max_length", "OUT_OF_RANGE", "must not be less than min_length");
    }
    let pattern = match rules.pattern.as_str() {
        "" => None,
        pattern => match Pattern::whole(pattern) {
            Ok(pattern) => Some(pattern),
            Err(problem) => {
                check.fail("pattern", "PATTERN_INVALID", problem.to_string());
                return None;
            }
        },
    };
    Some(Kind::Text {
        one_line: kind == Type::Text,
        min_length: usize::try_from(rules.min_length).unwrap_or_default(),
        max_length: usize::try_from(max).unwrap_or_default(),
        pattern,
    })
}

fn moment(check: &mut Check, with_time: bool, rules: &admin::SchemaValidation) -> Option<Kind> {
    let example =
        if with_time { "a date and time, such as 2026-11-22T09:30:00Z" } else { "a date, such as 2026-11-22" };
    let read = |text: &str| read_moment(text, with_time).map(|moment| (moment, text.to_owned()));
    let [min, max]: [Option<(Moment, String)>; 2] = range(check, rules, example, read)?;
    refuse_empty(check, min.as_ref().zip(max.as_ref()).is_some_and(|((min, _), (max, _))| min > max));
    Some(Kind::Moment { with_time, min, max })
}

/// The ends of a range, read.
fn range<T>(
    check: &mut Check,
    rules: &admin::SchemaValidation,
    example: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Option<[Option<T>; 2]> {
    let mut end = |field: &str, text: &str| match text {
        "" => Some(None),
        text => {
            let end = read(text);
            if end.is_none() {
                check.fail(field, "FORM_VALUE_INVALID", format!("must be {example}"));
            }
            end.map(Some)
        }
    };
    let (min, max) = (end("validation.min_value", &rules.min_value), end("validation.max_value", &rules.max_value));
    Some([min?, max?])
}

fn refuse_empty(check: &mut Check, is_empty: bool) {
    if is_empty {
        check.fail("validation.max_value", "OUT_OF_RANGE", "must not be less than min_value");
    }
}

fn options(check: &mut Check, wire: &[admin::SchemaOption]) -> Option<Vec<String>> {
    if wire.is_empty() {
        check.fail("options", "REQUIRED", "at least one is required: what can be chosen");
        return None;
    }
    check.count("options", wire.len(), OPTIONS_MAX);
    let mut values = HashSet::new();
    for (index, option) in wire.iter().enumerate().take(OPTIONS_MAX) {
        check.within(format!("options[{index}]"), |check| {
            check.name("value", &option.value, OPTION_CHARS_MAX);
            at_most(check, "label", &option.label, NAME_CHARS_MAX);
            if !values.insert(&option.value) {
                check.fail("value", "DUPLICATE", format!("`{}` is there twice", option.value));
            }
        });
    }
    Some(wire.iter().map(|option| option.value.clone()).collect())
}
