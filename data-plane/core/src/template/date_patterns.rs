//! Patterns that dates are written and read with. Hides Java's letters (`yyyy-MM-dd`) and Python's codes (`%Y-%m-%d`).
//! Any language of `locales` is written; English is read.

use jiff::civil::{Date as Day, DateTime, Time};
use jiff::tz::Offset;

use super::dates::{Date, Zone};
use super::locales::{ENGLISH, Locale};

/// A pattern that has been read.
#[derive(Debug)]
pub(super) struct Pattern {
    items: Vec<Item>,
}

#[derive(Debug)]
enum Item {
    Literal(char),
    Field {
        letter: char,
        count: usize,
    },
    /// What may be missing from a text starts here, and ends at that item.
    Open {
        end: usize,
    },
    Close,
}

const QUARTERS: [&str; 4] = ["1st quarter", "2nd quarter", "3rd quarter", "4th quarter"];

/// The letters of a pattern and how often each may stand in a row.
const LETTERS: &[(&str, usize)] = &[
    ("GMLEecQq", 5),
    ("yuY", 15),
    ("dHhkKmsw", 2),
    ("D", 3),
    ("aW", 1),
    ("S", 9),
    ("nNA", 19),
    ("z", 4),
    ("XxZ", 5),
    ("V", 2),
    ("O", 4),
];

/// Which parts of a date a style writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parts {
    Date,
    Time,
    Both,
}

/// A pattern of Java's letters for one of Python's codes.
fn code(code: char) -> Option<&'static str> {
    Some(match code {
        'a' => "EEE",
        'A' => "EEEE",
        'b' => "MMM",
        'B' => "MMMM",
        'd' => "dd",
        'e' => "d",
        'f' => "SSSSSS",
        'H' => "HH",
        'h' | 'I' => "hh",
        'j' => "DDD",
        'k' => "H",
        'l' => "h",
        'm' => "MM",
        'M' => "mm",
        'p' => "a",
        'S' => "ss",
        'U' | 'W' => "ww",
        'w' => "e",
        'y' => "yy",
        'Y' => "yyyy",
        'z' => "Z",
        'Z' => "z",
        _ => return None,
    })
}

impl Pattern {
    /// Python's codes where there is a `%`, Java's letters otherwise, or the name of a style. `None` for what is neither.
    pub(super) fn read(text: &str, locale: &Locale) -> Option<Pattern> {
        if let Some(style) = Pattern::style(text, Parts::Both, locale) {
            return Some(style);
        }
        if !text.contains('%') {
            return Pattern::java(text);
        }
        let mut items = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            if c != '%' || chars.peek().is_none() {
                items.push(Item::Literal(c));
                continue;
            }
            // `%-d`: without leading zeros; `%OB`: the month's own name.
            let strip = usize::from(chars.next_if_eq(&'-').is_some());
            let named = chars.next_if_eq(&'O').is_some();
            match chars.next()? {
                '%' if !named => items.push(Item::Literal('%')),
                'c' if !named => items.extend(Pattern::style("medium", Parts::Both, locale)?.items),
                'x' if !named => items.extend(Pattern::style("short", Parts::Date, locale)?.items),
                'X' if !named => items.extend(Pattern::style("medium", Parts::Time, locale)?.items),
                'B' if named => items.extend(Pattern::java("LLLL")?.items),
                _ if named => return None,
                c => items.extend(Pattern::java(code(c)?.get(strip..)?)?.items),
            }
        }
        Some(Pattern { items })
    }

    /// `short`, `medium`, `long` or `full`.
    pub(super) fn style(name: &str, parts: Parts, locale: &Locale) -> Option<Pattern> {
        let style = locale.style(name)?;
        match parts {
            Parts::Date => Pattern::java(style.date),
            Parts::Time => Pattern::java(style.time),
            Parts::Both => Pattern::java(&format!("{}{}{}", style.date, style.between, style.time)),
        }
    }

    /// Java's `DateTimeFormatter.ofPattern`.
    pub(super) fn java(text: &str) -> Option<Pattern> {
        let mut items = Vec::new();
        let mut open = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\'' => quoted(&mut chars, &mut items)?,
                'a'..='z' | 'A'..='Z' => {
                    let mut count = 1;
                    while chars.next_if_eq(&c).is_some() {
                        count += 1;
                    }
                    let (_, most) = LETTERS.iter().find(|(letters, _)| letters.contains(c))?;
                    if count > *most || c == 'V' && count != 2 || c == 'O' && count != 1 && count != 4 {
                        return None;
                    }
                    items.push(Item::Field { letter: c, count });
                }
                '[' => {
                    open.push(items.len());
                    items.push(Item::Open { end: usize::MAX });
                }
                ']' => {
                    let start = open.pop()?;
                    items[start] = Item::Open { end: items.len() };
                    items.push(Item::Close);
                }
                '{' | '}' | '#' => return None,
                _ => items.push(Item::Literal(c)),
            }
        }
        Some(Pattern { items })
    }

    /// How many bytes the pattern writes at most.
    pub(super) fn most(&self) -> usize {
        self.items.len() * 40
    }

    pub(super) fn write(&self, date: &Date, locale: &Locale) -> String {
        let local = date.local();
        let mut out = String::new();
        for item in &self.items {
            match item {
                Item::Literal(c) => out.push(*c),
                Item::Field { letter, count } => field(*letter, *count, &local, date, locale, &mut out),
                Item::Open { .. } | Item::Close => {}
            }
        }
        out
    }

    /// The moment that a text names. Without a time it is midnight; without a zone there is none.
    pub(super) fn parse(&self, text: &str) -> Option<(DateTime, Option<Zone>)> {
        let mut found = Found::default();
        let mut rest = text;
        // Where to go on if what may be missing is.
        let mut open: Vec<(usize, &str, Found)> = Vec::new();
        let mut at = 0;
        while let Some(item) = self.items.get(at) {
            at += 1;
            let read = match item {
                Item::Literal(c) => rest.strip_prefix(*c),
                Item::Field { letter, count } => found.read(*letter, *count, self.joins_number(at), rest),
                Item::Open { end } => {
                    open.push((*end, rest, found.clone()));
                    Some(rest)
                }
                Item::Close => {
                    open.pop();
                    Some(rest)
                }
            };
            match read {
                Some(after) => rest = after,
                None => {
                    let (end, before, was) = open.pop()?;
                    (rest, found) = (before, was);
                    at = end.saturating_add(1);
                }
            }
        }
        if rest.is_empty() { Some((found.date_time()?, found.zone)) } else { None }
    }

    /// Whether the next thing to read is a number.
    fn joins_number(&self, at: usize) -> bool {
        let rest = self.items.get(at..).unwrap_or_default();
        let next = rest.iter().find(|item| !matches!(item, Item::Open { .. } | Item::Close));
        matches!(next, Some(Item::Field { letter, count }) if is_numeric(*letter, *count))
    }
}

/// A text in quotes; two quotes are one.
fn quoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, items: &mut Vec<Item>) -> Option<()> {
    if chars.next_if_eq(&'\'').is_some() {
        items.push(Item::Literal('\''));
        return Some(());
    }
    loop {
        match chars.next()? {
            '\'' if chars.next_if_eq(&'\'').is_none() => return Some(()),
            c => items.push(Item::Literal(c)),
        }
    }
}

fn is_numeric(letter: char, count: usize) -> bool {
    match letter {
        'M' | 'L' | 'e' | 'c' | 'Q' | 'q' => count < 3,
        'y' | 'u' | 'Y' | 'd' | 'D' | 'H' | 'h' | 'k' | 'K' | 'm' | 's' | 'S' | 'n' | 'N' | 'A' | 'w' | 'W' => true,
        _ => false,
    }
}

// ---- writing ----

fn field(letter: char, count: usize, local: &DateTime, date: &Date, locale: &Locale, out: &mut String) {
    match letter {
        'G' => out.push_str(match count {
            4 => "Anno Domini",
            5 => "A",
            _ => "AD",
        }),
        'y' | 'u' => year(local.year(), count, out),
        'Y' => year(week_of_year(local.date()).0, count, out),
        'M' => named(&locale.months, &locale.short_months, i64::from(local.month()), count, out),
        'L' => named(&locale.months_alone, &locale.short_months, i64::from(local.month()), count, out),
        'E' => named(&locale.days, &locale.short_days, day_of_week(local.date()), count.max(3), out),
        'e' | 'c' => named(&locale.days, &locale.short_days, day_of_week(local.date()), count, out),
        'Q' | 'q' => quarter(i64::from((local.month() - 1) / 3) + 1, count, out),
        'a' => out.push_str(locale.halves[usize::from(local.hour() >= 12)]),
        'S' => out.push_str(&format!("{:09}", local.subsec_nanosecond())[..count.min(9)]),
        'z' => out.push_str(&date.zone_name()),
        'V' => out.push_str(&date.zone_id()),
        'O' => {
            out.push_str("GMT");
            if count == 4 || date.offset() != Offset::UTC {
                write_offset(date.offset(), if count == 4 { 3 } else { 0 }, out);
            }
        }
        'X' if date.offset() == Offset::UTC => out.push('Z'),
        'X' | 'x' => write_offset(date.offset(), count, out),
        'Z' => match count {
            5 if date.offset() == Offset::UTC => out.push('Z'),
            5 => write_offset(date.offset(), 3, out),
            4 => {
                out.push_str("GMT");
                if date.offset() != Offset::UTC {
                    write_offset(date.offset(), 3, out);
                }
            }
            _ => write_offset(date.offset(), 2, out),
        },
        _ => padded(number(letter, local), count, out),
    }
}

fn number(letter: char, local: &DateTime) -> i64 {
    let (hour, minute, second) = (i64::from(local.hour()), i64::from(local.minute()), i64::from(local.second()));
    let nanos = i64::from(local.subsec_nanosecond());
    let seconds = (hour * 60 + minute) * 60 + second;
    match letter {
        'd' => i64::from(local.day()),
        'D' => i64::from(local.day_of_year()),
        'H' => hour,
        'h' => (hour + 11) % 12 + 1,
        'k' => (hour + 23) % 24 + 1,
        'K' => hour % 12,
        'm' => minute,
        's' => second,
        'n' => nanos,
        'A' => seconds * 1_000 + nanos / 1_000_000,
        'N' => seconds * 1_000_000_000 + nanos,
        'w' => week_of_year(local.date()).1,
        // The week of the month, from Sunday on.
        _ => (i64::from(local.day()) + day_of_week(local.date().first_of_month()) - 2) / 7 + 1,
    }
}

fn padded(number: i64, count: usize, out: &mut String) {
    out.push_str(&format!("{number:0count$}"));
}

fn year(year: i16, count: usize, out: &mut String) {
    // Before the year 1 comes the year 1 of the era before, which nobody sends.
    let year = i64::from(year);
    if count == 2 { padded(year.rem_euclid(100), 2, out) } else { padded(year, count, out) }
}

/// A number, or a name: short, whole, or its first letter.
fn named(names: &[&str], short: &[&str], number: i64, count: usize, out: &mut String) {
    match count {
        1 | 2 => padded(number, count, out),
        3 => out.push_str(name_at(short, number)),
        4 => out.push_str(name_at(names, number)),
        _ => out.extend(name_at(names, number).chars().next().into_iter().flat_map(char::to_uppercase)),
    }
}

fn name_at<'n>(names: &[&'n str], number: i64) -> &'n str {
    usize::try_from(number - 1).ok().and_then(|index| names.get(index).copied()).unwrap_or_default()
}

fn quarter(quarter: i64, count: usize, out: &mut String) {
    match count {
        3 => out.push_str(&format!("Q{quarter}")),
        _ => named(&QUARTERS, &[], quarter, count, out),
    }
}

/// From 1 for Sunday, as the English count.
fn day_of_week(day: Day) -> i64 {
    i64::from(day.weekday().to_sunday_one_offset())
}

/// The year and the week in it: weeks start on Sunday, and the first is the one with the first of January.
fn week_of_year(day: Day) -> (i16, i64) {
    let before_first = day_of_week(day.first_of_year()) - 1;
    let week = (i64::from(day.day_of_year()) - 1 + before_first) / 7 + 1;
    let last = i64::from(day.days_in_year());
    let to_saturday = 7 - day_of_week(day);
    if i64::from(day.day_of_year()) + to_saturday > last {
        (day.year().saturating_add(1), 1)
    } else {
        (day.year(), week)
    }
}

/// `+hh[mm]`, `+hhmm` or `+hh:mm`, by how many letters ask for it; 0 is `+h[:mm]`.
fn write_offset(offset: Offset, count: usize, out: &mut String) {
    let seconds = offset.seconds();
    let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.unsigned_abs() / 60);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    out.push(sign);
    out.push_str(&match count {
        0 if minutes == 0 => format!("{hours}"),
        0 => format!("{hours}:{minutes:02}"),
        1 if minutes == 0 => format!("{hours:02}"),
        1 | 2 | 4 => format!("{hours:02}{minutes:02}"),
        _ => format!("{hours:02}:{minutes:02}"),
    });
}

// ---- reading ----

/// What a text has said so far.
#[derive(Clone, Default)]
struct Found {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    weekday: Option<i64>,
    hour: Option<i64>,
    /// An hour of half a day.
    half_hour: Option<i64>,
    afternoon: Option<bool>,
    minute: Option<i64>,
    second: Option<i64>,
    nanosecond: Option<i64>,
    zone: Option<Zone>,
}

impl Found {
    /// Reads one field, and gives what is left.
    fn read<'t>(&mut self, letter: char, count: usize, joined: bool, text: &'t str) -> Option<&'t str> {
        match letter {
            'M' | 'L' if count == 3 => return name(&ENGLISH.short_months, text, &mut self.month),
            'M' | 'L' if count > 3 => return name(&ENGLISH.months, text, &mut self.month),
            'E' if count <= 3 => return name(&ENGLISH.short_days, text, &mut self.weekday),
            'E' => return name(&ENGLISH.days, text, &mut self.weekday),
            'a' => {
                let head = text.get(..2)?;
                self.afternoon = Some(if head.eq_ignore_ascii_case("PM") {
                    true
                } else {
                    head.eq_ignore_ascii_case("AM").then_some(false)?
                });
                return text.get(2..);
            }
            'G' => return text.strip_prefix("AD"),
            'X' | 'x' | 'Z' | 'z' | 'V' | 'O' => return self.zone(letter, text),
            _ => {}
        }
        let (number, rest) = digits(letter, count, joined, text)?;
        match letter {
            'y' | 'u' => self.year = Some(if count == 2 { 2000 + number } else { number }),
            'M' | 'L' => self.month = Some(number),
            'd' => self.day = Some(number),
            'D' => self.day_of_year = Some(number),
            'H' => self.hour = Some(number),
            'k' => self.hour = Some(number % 24),
            'h' | 'K' => self.half_hour = Some(number % 12),
            'm' => self.minute = Some(number),
            's' => self.second = Some(number),
            'S' => self.nanosecond = Some(number * 10i64.pow(9u32.saturating_sub(count as u32))),
            'n' => self.nanosecond = Some(number),
            'e' | 'c' => self.weekday = Some(number),
            _ => return None,
        }
        Some(rest)
    }

    fn zone<'t>(&mut self, letter: char, text: &'t str) -> Option<&'t str> {
        let length = if matches!(letter, 'z' | 'V' | 'O') {
            let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | ':' | '/' | '_');
            text.find(|c| !part(c)).unwrap_or(text.len())
        } else if text.starts_with('Z') {
            1
        } else {
            1 + text.bytes().skip(1).take_while(|byte| byte.is_ascii_digit() || *byte == b':').count()
        };
        self.zone = Some(Zone::named(text.get(..length)?)?);
        text.get(length..)
    }

    fn date_time(&self) -> Option<DateTime> {
        let year = i16::try_from(self.year?).ok()?;
        let day = match self.day_of_year {
            Some(day) => Day::new(year, 1, 1).ok()?.with().day_of_year(i16::try_from(day).ok()?).build().ok()?,
            None => Day::new(year, i8::try_from(self.month?).ok()?, i8::try_from(self.day?).ok()?).ok()?,
        };
        // A day of the week that is another one is a mistake, and not a detail.
        if self.weekday.is_some_and(|weekday| weekday != day_of_week(day)) {
            return None;
        }
        let half = self.half_hour.map(|hour| hour + if self.afternoon == Some(true) { 12 } else { 0 });
        let part = |number: Option<i64>| i8::try_from(number.unwrap_or(0)).ok();
        let nanosecond = i32::try_from(self.nanosecond.unwrap_or(0)).ok()?;
        let time = Time::new(part(self.hour.or(half))?, part(self.minute)?, part(self.second)?, nanosecond).ok()?;
        Some(day.to_datetime(time))
    }
}

/// The number at the start of a text. One letter takes as many digits as there are, more take just as many; a year of
/// four takes more where no other number follows.
fn digits(letter: char, count: usize, joined: bool, text: &str) -> Option<(i64, &str)> {
    let there = text.bytes().take_while(u8::is_ascii_digit).count();
    let exact = count > 1 && !(matches!(letter, 'y' | 'u') && count > 2) || letter == 'S' || joined && count > 1;
    let length = if exact { count } else { there.min(if matches!(letter, 'y' | 'u') { 9 } else { 2.max(count) }) };
    if there < length || length < count || length == 0 {
        return None;
    }
    let (number, rest) = text.split_at(length);
    Some((number.parse().ok()?, rest))
}

fn name<'t>(names: &[&str], text: &'t str, found: &mut Option<i64>) -> Option<&'t str> {
    for (index, name) in names.iter().enumerate() {
        if let Some(rest) = text.strip_prefix(name) {
            *found = Some(index as i64 + 1);
            return Some(rest);
        }
    }
    None
}
