//! Dates: a moment and the zone it is seen from. Hides time zones (they come with the program: nothing is read from the
//! machine), calendar arithmetic, and what a date looks like where none is asked for.

use std::sync::{Arc, LazyLock};

use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Span, Timestamp, Unit as JiffUnit};
use minijinja::Value;
use minijinja::value::{DynObject, Object, ObjectRepr};

use super::date_patterns::Pattern;
use super::locales::ENGLISH;

/// A moment, seen from a zone.
#[derive(Clone, Debug)]
pub(super) struct Date {
    at: Timestamp,
    zone: Zone,
}

/// A place's clock, or a fixed distance from UTC.
#[derive(Clone, Debug)]
pub(super) enum Zone {
    Offset(Offset),
    Named(TimeZone),
}

/// The zones of the program itself. Which of them the machine knows must not matter.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

impl Zone {
    pub(super) const UTC: Zone = Zone::Offset(Offset::UTC);

    /// `Europe/Warsaw`, `UTC`, `UTC+8`, `+02:00`, `Z`.
    pub(super) fn named(name: &str) -> Option<Zone> {
        if name == "Z" {
            return Some(Zone::UTC);
        }
        for prefix in ["UTC", "GMT", "UT", ""] {
            if let Some(rest) = name.strip_prefix(prefix)
                && rest.starts_with(['+', '-'])
            {
                return offset(rest).map(Zone::Offset);
            }
        }
        if name.len() > 64 {
            return None;
        }
        ZONES.get(name).ok().map(Zone::Named)
    }

    fn time_zone(&self) -> TimeZone {
        match self {
            Zone::Offset(offset) => TimeZone::fixed(*offset),
            Zone::Named(zone) => zone.clone(),
        }
    }
}

/// `+h`, `+hh`, `+hhmm`, `+hh:mm`.
fn offset(text: &str) -> Option<Offset> {
    let (negative, digits) = (text.starts_with('-'), text.get(1..)?);
    let (hours, minutes) = match digits.split_once(':') {
        Some((hours, minutes)) if hours.len() == 2 && minutes.len() == 2 => (hours, minutes),
        Some(_) => return None,
        None if digits.len() == 4 => digits.split_at_checked(2)?,
        None => (digits, "0"),
    };
    let all_digits = |text: &str| !text.is_empty() && text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(hours) || !all_digits(minutes) {
        return None;
    }
    let (hours, minutes) = (hours.parse::<i32>().ok()?, minutes.parse::<i32>().ok()?);
    if hours > 18 || minutes > 59 {
        return None;
    }
    let seconds = (hours * 60 + minutes) * 60;
    Offset::from_seconds(if negative { -seconds } else { seconds }).ok()
}

impl Date {
    /// Seen from UTC.
    pub(super) fn from_milliseconds(milliseconds: i64) -> Option<Date> {
        Timestamp::from_millisecond(milliseconds).ok().map(|at| Date { at, zone: Zone::UTC })
    }

    /// What a clock in that zone shows; in UTC, if no zone is known.
    pub(super) fn local_time(time: DateTime, zone: Option<Zone>) -> Option<Date> {
        let zone = zone.unwrap_or(Zone::UTC);
        let zoned = time.to_zoned(zone.time_zone()).ok()?;
        Some(Date { at: zoned.timestamp(), zone })
    }

    /// `2024-06-10T09:15:30Z`, with or without a time, a fraction and a zone.
    pub(super) fn from_iso8601(text: &str) -> Option<Date> {
        let pieces = Pieces::parse(text).ok()?;
        let zone = match pieces.to_numeric_offset() {
            Some(offset) => Some(Zone::Offset(offset)),
            None => pieces.to_time_zone_with(&ZONES).ok()?.map(Zone::Named),
        };
        Date::local_time(pieces.date().to_datetime(pieces.time().unwrap_or_default()), zone)
    }

    pub(super) fn seen_from(self, zone: Zone) -> Date {
        Date { zone, ..self }
    }

    pub(super) fn milliseconds(&self) -> i64 {
        self.at.as_millisecond()
    }

    pub(super) fn local(&self) -> DateTime {
        self.at.to_zoned(self.zone.time_zone()).datetime()
    }

    pub(super) fn offset(&self) -> Offset {
        match &self.zone {
            Zone::Offset(offset) => *offset,
            Zone::Named(zone) => zone.to_offset(self.at),
        }
    }

    /// `CET`, or the offset where there is no name.
    pub(super) fn zone_name(&self) -> String {
        match &self.zone {
            Zone::Offset(offset) => offset_id(*offset),
            Zone::Named(zone) => zone.to_offset_info(self.at).abbreviation().to_owned(),
        }
    }

    pub(super) fn zone_id(&self) -> String {
        match &self.zone {
            Zone::Offset(offset) => offset_id(*offset),
            Zone::Named(zone) => zone.iana_name().unwrap_or("UTC").to_owned(),
        }
    }

    /// As it prints where no pattern is given.
    pub(super) fn text(&self) -> String {
        Pattern::java("yyyy-MM-dd HH:mm:ss").map(|pattern| pattern.write(self, &ENGLISH)).unwrap_or_default()
    }

    /// `amount` units later. Days and longer ones move the calendar, shorter ones the clock. `None` beyond year 9999.
    pub(super) fn plus(&self, amount: i64, unit: Unit) -> Option<Date> {
        let at = match unit.length() {
            Length::Nanoseconds(length) => {
                let nanoseconds = i128::from(amount).checked_mul(length)?;
                let (seconds, rest) = (nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000));
                let duration = SignedDuration::new(i64::try_from(seconds).ok()?, i32::try_from(rest).ok()?);
                self.at.checked_add(duration).ok()?
            }
            Length::Days(days) => self.moved(Span::new().try_days(amount.checked_mul(days)?).ok()?)?,
            Length::Months(months) => self.moved(Span::new().try_months(amount.checked_mul(months)?).ok()?)?,
        };
        Some(Date { at, zone: self.zone.clone() })
    }

    fn moved(&self, span: Span) -> Option<Timestamp> {
        Some(self.at.to_zoned(self.zone.time_zone()).checked_add(span).ok()?.timestamp())
    }

    /// Whole units from this date to another.
    pub(super) fn until(&self, other: &Date, unit: Unit) -> Option<i64> {
        let there = other.clone().seen_from(self.zone.clone());
        match unit.length() {
            Length::Nanoseconds(length) => {
                let nanoseconds = there.at.as_nanosecond() - self.at.as_nanosecond();
                i64::try_from(nanoseconds / length).ok()
            }
            Length::Days(days) => {
                let span = self.local().until((JiffUnit::Day, there.local())).ok()?;
                Some(i64::from(span.get_days()) / days)
            }
            Length::Months(months) => {
                let span = self.local().until((JiffUnit::Month, there.local())).ok()?;
                Some(i64::from(span.get_months()) / months)
            }
        }
    }

    pub(super) fn value(self) -> Value {
        Value::from_object(self)
    }
}

fn offset_id(offset: Offset) -> String {
    if offset == Offset::UTC {
        return "Z".into();
    }
    let seconds = offset.seconds();
    let minutes = seconds.unsigned_abs() / 60;
    format!("{}{:02}:{:02}", if seconds < 0 { '-' } else { '+' }, minutes / 60, minutes % 60)
}

impl Object for Date {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let local = self.local();
        let number = match key.as_str()? {
            "year" => i64::from(local.year()),
            "month" => i64::from(local.month()),
            "day" => i64::from(local.day()),
            "hour" => i64::from(local.hour()),
            "minute" => i64::from(local.minute()),
            "second" => i64::from(local.second()),
            // Milliseconds, in fact (Jinjava).
            "microsecond" => i64::from(local.millisecond()),
            _ => return None,
        };
        Some(Value::from(number))
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<std::cmp::Ordering> {
        Some(self.at.cmp(&other.downcast_ref::<Self>()?.at))
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}

/// The date that a value is.
pub(super) fn date(value: &Value) -> Option<&Date> {
    value.downcast_object_ref::<Date>()
}

/// The moment of a value that is a date, for comparing.
pub(super) fn moment(value: &Value) -> Option<Timestamp> {
    date(value).map(|date| date.at)
}

/// How much a date is moved by, or how far two are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit(Length);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Nanoseconds(i128),
    Days(i64),
    Months(i64),
}

impl Unit {
    /// `days`, `hours` and so on, as Java names them.
    pub(super) fn named(name: &str) -> Option<Unit> {
        const SECOND: i128 = 1_000_000_000;
        Some(Unit(match name.to_ascii_lowercase().as_str() {
            "nanos" => Length::Nanoseconds(1),
            "micros" => Length::Nanoseconds(1_000),
            "millis" => Length::Nanoseconds(1_000_000),
            "seconds" => Length::Nanoseconds(SECOND),
            "minutes" => Length::Nanoseconds(60 * SECOND),
            "hours" => Length::Nanoseconds(3_600 * SECOND),
            "halfdays" => Length::Nanoseconds(12 * 3_600 * SECOND),
            "days" => Length::Days(1),
            "weeks" => Length::Days(7),
            "months" => Length::Months(1),
            "years" => Length::Months(12),
            "decades" => Length::Months(120),
            "centuries" => Length::Months(1_200),
            "millennia" => Length::Months(12_000),
            _ => return None,
        }))
    }

    fn length(self) -> Length {
        self.0
    }
}
