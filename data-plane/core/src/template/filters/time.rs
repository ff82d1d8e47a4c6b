//! Filters on dates. Hides what counts as a date (milliseconds since 1970, or a date made by one of these filters) and
//! which locale writes it.

use minijinja::Value;

use super::super::date_patterns::{Parts, Pattern};
use super::super::dates::{self, Date, Unit, Zone};
use super::super::error::Fault;
use super::super::locales::{ENGLISH, Locale};
use super::super::traced::Traced;
use super::super::values::{Number, is_null, number};
use super::{Call, Done, Spec};

pub(super) const FILTERS: &[Spec] = &[
    Spec::new("between_times", &["end", "unit"], 2, between_times),
    Spec::new("datetimeformat", &["format", "timezone", "locale"], 0, datetimeformat).also(&["date"]),
    Spec::new("format_date", &["format", "timezone", "locale"], 0, format_date),
    Spec::new("format_datetime", &["format", "timezone", "locale"], 0, format_datetime),
    Spec::new("format_time", &["format", "timezone", "locale"], 0, format_time),
    Spec::new("iso8601_to_time", &[], 0, iso8601_to_time),
    Spec::new("minus_time", &["diff", "unit"], 2, minus_time),
    Spec::new("plus_time", &["diff", "unit"], 2, plus_time),
    Spec::new("strtodate", &["format"], 1, strtotime),
    Spec::new("strtotime", &["format"], 1, strtotime).also(&["string_to_time"]),
    Spec::new("timestamp_to_time", &[], 0, timestamp_to_time),
    Spec::new("unixtimestamp", &[], 0, unixtimestamp),
];

/// The date that a value is or counts as. Nothing is the present, if the caller has said when that is.
fn date_of(call: &Call<'_>, value: &Value) -> Result<Date, Box<Fault>> {
    if let Some(date) = dates::date(value) {
        return Ok(date.clone());
    }
    let milliseconds = match number(value) {
        Some(Number::Int(int)) => i64::try_from(int).ok(),
        Some(Number::Float(float)) => Some(float as i64),
        None if is_null(value) => match call.around.now {
            Some(now) => Some(now),
            None => return Err(call.fault("got no date, and the present time is not known here")),
        },
        None => return Err(call.needs("a date or milliseconds since 1970", value)),
    };
    milliseconds.and_then(Date::from_milliseconds).ok_or_else(|| call.fault("got a time beyond the year 9999"))
}

fn zone(call: &mut Call<'_>, position: usize) -> Result<Option<Zone>, Box<Fault>> {
    match call.text(position)? {
        Some(name) => Zone::named(&name).map(Some).ok_or_else(|| call.fault("does not know this time zone")),
        None => Ok(None),
    }
}

/// Writes the input by the pattern that `read` makes of the format for a language.
fn written(call: &mut Call<'_>, otherwise: &str, read: impl Fn(&str, &Locale) -> Option<Pattern>) -> Done {
    let format = call.text(0)?.unwrap_or_else(|| otherwise.into());
    let zone = zone(call, 1)?;
    let locale = match call.text(2)? {
        Some(tag) => Locale::tagged(&tag).ok_or_else(|| call.fault("knows the locales en, de, pl and sv"))?,
        None => &ENGLISH,
    };
    // What a pattern becomes takes more room than its text.
    call.meter.string(format.len() * 8)?;
    let pattern = read(&format, locale).ok_or_else(|| call.fault("got a date format that cannot be read"))?;
    let mut date = date_of(call, &call.input.value)?;
    if let Some(zone) = zone {
        date = date.seen_from(zone);
    }
    call.meter.spend(pattern.most())?;
    call.made_text(pattern.write(&date, locale), &[0])
}

fn datetimeformat(call: &mut Call<'_>) -> Done {
    written(call, "%H:%M / %d-%m-%Y", Pattern::read)
}

fn format_date(call: &mut Call<'_>) -> Done {
    styled(call, Parts::Date)
}

fn format_time(call: &mut Call<'_>) -> Done {
    styled(call, Parts::Time)
}

fn format_datetime(call: &mut Call<'_>) -> Done {
    styled(call, Parts::Both)
}

/// A style by name, or a pattern of Java's letters.
fn styled(call: &mut Call<'_>, parts: Parts) -> Done {
    written(call, "medium", |format, locale| Pattern::style(format, parts, locale).or_else(|| Pattern::java(format)))
}

fn unixtimestamp(call: &mut Call<'_>) -> Done {
    let date = date_of(call, &call.input.value)?;
    Ok(call.made(date.milliseconds(), &[]))
}

fn timestamp_to_time(call: &mut Call<'_>) -> Done {
    let value = call.input.value.clone();
    if is_null(&value) {
        return call.same();
    }
    let read = value.as_str().map(|text| text.trim().parse::<i64>().map(Value::from));
    let date = match read {
        Some(Ok(milliseconds)) => date_of(call, &milliseconds)?,
        Some(Err(_)) => return Err(call.fault("needs milliseconds since 1970")),
        None => date_of(call, &value)?,
    };
    Ok(made(call, date))
}

fn iso8601_to_time(call: &mut Call<'_>) -> Done {
    if is_null(&call.input.value) {
        return call.same();
    }
    let Some(text) = call.input_string()? else { return Err(call.needs("a text", &call.input.value)) };
    match Date::from_iso8601(text.trim()) {
        Some(date) => Ok(made(call, date)),
        None => Err(call.fault("got a text that is no date like 2024-06-10T09:15:30Z")),
    }
}

/// A text read by a pattern. Without a zone in it, it is UTC.
fn strtotime(call: &mut Call<'_>) -> Done {
    if is_null(&call.input.value) {
        return call.same();
    }
    let Some(text) = call.input_string()? else { return Err(call.needs("a text", &call.input.value)) };
    let format = call.needed_text(0, "a date format")?;
    call.meter.string(format.len() * 8)?;
    let Some(pattern) = Pattern::read(&format, &ENGLISH) else {
        return Err(call.fault("got a date format that cannot be read"));
    };
    match pattern.parse(&text).and_then(|(time, zone)| Date::local_time(time, zone)) {
        Some(date) => Ok(made(call, date)),
        None => Err(call.fault("got a text that does not fit its date format")),
    }
}

fn made(call: &Call<'_>, date: Date) -> Traced {
    call.made(date.value(), &[])
}

fn unit(call: &mut Call<'_>, position: usize) -> Result<Unit, Box<Fault>> {
    let name = call.needed_text(position, "a unit of time")?;
    Unit::named(&name)
        .ok_or_else(|| call.fault("needs a unit of time: seconds, minutes, hours, days, weeks, months, years"))
}

fn plus_time(call: &mut Call<'_>) -> Done {
    moved(call, 1)
}

fn minus_time(call: &mut Call<'_>) -> Done {
    moved(call, -1)
}

/// What would lead out of the calendar stays where it is (Jinjava).
fn moved(call: &mut Call<'_>, direction: i64) -> Done {
    let date = date_of(call, &call.input.value)?;
    let amount = call.int(0, i64::MIN);
    if amount == i64::MIN {
        return Err(call.fault("needs a whole number of units"));
    }
    let unit = unit(call, 1)?;
    let later = date.plus(amount.saturating_mul(direction), unit).unwrap_or(date);
    Ok(made(call, later))
}

fn between_times(call: &mut Call<'_>) -> Done {
    let start = date_of(call, &call.input.value)?;
    let end = call.value(0).cloned().unwrap_or(Value::UNDEFINED);
    let end = date_of(call, &end)?;
    let unit = unit(call, 1)?;
    match start.until(&end, unit) {
        Some(units) => Ok(call.made(units, &[0])),
        None => Err(call.fault("got dates that are too far apart")),
    }
}
