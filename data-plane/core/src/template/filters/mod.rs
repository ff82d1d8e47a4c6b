//! The filters. Hides their names, their parameters and what each does with null, with numbers and with text that is
//! already encoded. Each is one row of a table beside the functions of its kind: name, parameters, function. Names are
//! looked up when a template is compiled; only what `map`, `select` and their like are given is looked up later, because
//! Jinjava takes it from any expression.

mod choose;
mod encode;
mod format;
mod lists;
mod markup;
mod numbers;
mod text;
mod time;

use std::sync::Arc;

use minijinja::Value;

use super::Mode;
use super::decimal::Decimal;
use super::error::Fault;
use super::limits::{Meter, STRING_BYTES, over};
use super::operators::kind;
use super::traced::{Origin, Traced};
use super::values::{self, Number, display, is_null, number};

pub(super) use text::Pattern;

/// What a filter gives.
type Done = Result<Traced, Box<Fault>>;

/// One filter: how it is called and what it does.
struct Spec {
    name: &'static str,
    aliases: &'static [&'static str],
    /// Parameters in their order; each can also be given by name.
    parameters: &'static [&'static str],
    /// How many of the first parameters can only be given by name.
    by_name: usize,
    /// How many of the first parameters cannot be left out.
    required: usize,
    /// More arguments may follow.
    more: bool,
    asks: bool,
    lookup: bool,
    test_at: Option<usize>,
    pattern_at: Option<usize>,
    run: fn(&mut Call<'_>) -> Done,
}

impl Spec {
    const fn new(
        name: &'static str,
        parameters: &'static [&'static str],
        required: usize,
        run: fn(&mut Call<'_>) -> Done,
    ) -> Spec {
        Spec {
            name,
            aliases: &[],
            parameters,
            by_name: 0,
            required,
            more: false,
            asks: false,
            lookup: false,
            test_at: None,
            pattern_at: None,
            run,
        }
    }

    const fn also(self, aliases: &'static [&'static str]) -> Spec {
        Spec { aliases, ..self }
    }

    /// The first parameter can only be given by name.
    const fn first_by_name(self) -> Spec {
        Spec { by_name: 1, ..self }
    }

    const fn more(self) -> Spec {
        Spec { more: true, ..self }
    }

    /// A missing input is what this filter is for, so that it is no missing path (D32).
    const fn asks(self) -> Spec {
        Spec { asks: true, ..self }
    }

    /// A lookup like `.name`: what it does not find is a missing path.
    const fn lookup(self) -> Spec {
        Spec { lookup: true, ..self }
    }

    /// The argument there names a test.
    const fn test_at(self, position: usize) -> Spec {
        Spec { test_at: Some(position), ..self }
    }

    /// The argument there is a regular expression.
    const fn pattern_at(self, position: usize) -> Spec {
        Spec { pattern_at: Some(position), ..self }
    }
}

const TABLES: [&[Spec]; 8] = [
    choose::FILTERS,
    encode::FILTERS,
    format::FILTERS,
    lists::FILTERS,
    markup::FILTERS,
    numbers::FILTERS,
    text::FILTERS,
    time::FILTERS,
];

/// Filters of the dialect that are off by design, and why.
const OFF: &[(&str, &str)] = &[
    ("allow_snake_case", "names are taken as they are written"),
    ("closehtml", "pages are not written here"),
    ("fromyaml", "data comes as JSON"),
    ("ipaddr", "addresses are judged where calls are made"),
    ("ipv4", "addresses are judged where calls are made"),
    ("ipv6", "addresses are judged where calls are made"),
    ("random", "the same data must print the same text again"),
    ("render", "data is never read as a template"),
    ("shuffle", "the same data must print the same text again"),
    ("toyaml", "data goes out as JSON"),
];

/// A filter that can be called.
#[derive(Clone, Copy)]
pub(super) struct Filter(&'static Spec);

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name)
    }
}

impl Filter {
    pub(super) fn named(name: &str) -> Option<Filter> {
        let known = |spec: &&Spec| spec.name == name || spec.aliases.contains(&name);
        TABLES.iter().flat_map(|table| table.iter()).find(known).map(Filter)
    }

    pub(super) fn names() -> Vec<&'static str> {
        let specs = TABLES.iter().flat_map(|table| table.iter());
        specs.flat_map(|spec| std::iter::once(spec.name).chain(spec.aliases.iter().copied())).collect()
    }

    /// Why a filter of the dialect is not there.
    pub(super) fn off(name: &str) -> Option<&'static str> {
        OFF.iter().find(|(off, _)| *off == name).map(|(_, why)| *why)
    }

    /// What this filter becomes where it is the last of an output inside of a JSON string.
    pub(super) fn inside_string(self) -> Filter {
        if self.0.name == "join" { Filter(&lists::JOIN_INSIDE_STRING) } else { self }
    }

    /// What this filter becomes where it is the last of an output that stands alone in a JSON list.
    pub(super) fn in_list(self) -> Filter {
        if self.0.name == "join" { Filter(&lists::JOIN_IN_LIST) } else { self }
    }

    pub(super) fn parameters(self) -> &'static [&'static str] {
        self.0.parameters
    }

    pub(super) fn required(self) -> usize {
        self.0.required
    }

    /// How many of the first parameters can only be given by name.
    pub(super) fn only_by_name(self) -> usize {
        self.0.by_name
    }

    /// Whether more arguments may follow the named parameters.
    pub(super) fn takes_more(self) -> bool {
        self.0.more
    }

    pub(super) fn asks_for_missing(self) -> bool {
        self.0.asks
    }

    pub(super) fn is_lookup(self) -> bool {
        self.0.lookup
    }

    /// Which argument names a test, if one does.
    pub(super) fn test_at(self) -> Option<usize> {
        self.0.test_at
    }

    /// Which argument is a regular expression, if one is.
    pub(super) fn pattern_at(self) -> Option<usize> {
        self.0.pattern_at
    }
}

/// What a filter knows besides its input and arguments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around {
    pub(super) mode: Mode,
    /// Milliseconds since 1970, if the caller has said what time it is.
    pub(super) now: Option<i64>,
}

/// Applies `filter`. `args` has one place for each of its parameters, and more behind them where it takes more.
pub(super) fn apply(
    filter: Filter,
    input: Traced,
    args: &[Option<Traced>],
    around: Around,
    meter: &mut Meter,
) -> Result<Traced, Box<Fault>> {
    (filter.0.run)(&mut Call { name: filter.0.name, input, args, around, meter, nested: 0 })
}

/// One call of a filter.
struct Call<'c> {
    name: &'static str,
    input: Traced,
    args: &'c [Option<Traced>],
    around: Around,
    meter: &'c mut Meter,
    /// How many filters that call filters are around this one.
    nested: usize,
}

impl Call<'_> {
    fn given(&self, position: usize) -> Option<&Traced> {
        self.args.get(position).and_then(Option::as_ref)
    }

    /// An argument that is there and not null.
    fn value(&self, position: usize) -> Option<&Value> {
        self.given(position).map(|arg| &arg.value).filter(|value| !is_null(value))
    }

    /// The text of an argument that is there and not null.
    fn text(&mut self, position: usize) -> Result<Option<Arc<str>>, Box<Fault>> {
        match self.value(position).cloned() {
            Some(value) => text_of(&value, self.meter).map(Some),
            None => Ok(None),
        }
    }

    /// The text of an argument that must be there.
    fn needed_text(&mut self, position: usize, what: &str) -> Result<Arc<str>, Box<Fault>> {
        match self.text(position)? {
            Some(text) => Ok(text),
            None => Err(self.fault(&format!("needs {what}, and got nothing"))),
        }
    }

    /// A whole number, or `otherwise` where there is none (Jinjava reads its arguments like that).
    fn int(&self, position: usize, otherwise: i64) -> i64 {
        let read = |value: &Value| match value.as_str() {
            Some(text) => text.trim().parse().ok(),
            None => match number(value)? {
                Number::Int(int) => i64::try_from(int).ok(),
                Number::Float(float) => (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64),
            },
        };
        self.value(position).and_then(read).unwrap_or(otherwise)
    }

    /// A yes or no: `true`, and the texts that Java's `BooleanUtils` takes for it.
    fn flag(&self, position: usize, otherwise: bool) -> bool {
        self.value(position).map_or(otherwise, means_yes)
    }

    /// The input's text; nothing for null.
    fn input_text(&mut self) -> Result<Arc<str>, Box<Fault>> {
        text_of(&self.input.value, self.meter)
    }

    /// The input's text; `null` for null, as some filters have it in Jinjava.
    fn input_text_or_null(&mut self) -> Result<Arc<str>, Box<Fault>> {
        if is_null(&self.input.value) { Ok("null".into()) } else { self.input_text() }
    }

    /// The input, if it is a text.
    fn input_string(&mut self) -> Result<Option<Arc<str>>, Box<Fault>> {
        match self.input.value.as_str() {
            Some(_) => self.input_text().map(Some),
            None => Ok(None),
        }
    }

    /// What a loop over the input goes through, charged.
    fn input_items(&mut self) -> Result<Vec<Value>, Box<Fault>> {
        items_of(&self.input.value, self.meter)
    }

    /// The input as it came.
    fn same(&self) -> Done {
        Ok(self.input.clone())
    }

    /// A result whose text comes from the input and the arguments at `parts`, changed.
    fn made(&self, value: impl Into<Value>, parts: &[usize]) -> Traced {
        let origin = parts
            .iter()
            .filter_map(|part| self.given(*part))
            .fold(self.input.origin.reshaped(), |all, part| all.with(part.origin.reshaped()));
        Traced { value: value.into(), origin }
    }

    /// A built text, charged.
    fn made_text(&mut self, text: String, parts: &[usize]) -> Done {
        self.meter.string(text.len())?;
        Ok(self.made(text, parts))
    }

    /// A built list, charged.
    fn made_list(&mut self, items: Vec<Value>, parts: &[usize]) -> Done {
        let list = super::operators::build_list(items, self.meter)?;
        Ok(marked(self.made(list, parts)))
    }

    /// A fault that names the filter.
    fn fault(&self, what: &str) -> Box<Fault> {
        Fault::eval(format!("'{}' {what}", self.name))
    }

    fn needs(&self, what: &str, value: &Value) -> Box<Fault> {
        self.fault(&format!("needs {what}, not {}", kind(value)))
    }

    /// A number, or a text that is one.
    fn decimal(&self, value: &Value) -> Result<Decimal, Box<Fault>> {
        Decimal::of(value).ok_or_else(|| self.needs("a number", value))
    }
}

/// Notes of a new list that the author wrote all of it, if so.
fn marked(traced: Traced) -> Traced {
    if traced.origin == Origin::Author {
        super::containers::mark_author(&traced.value);
    }
    traced
}

/// A value's text as an operand of text operations, charged.
pub(super) fn text_of(value: &Value, meter: &mut Meter) -> Result<Arc<str>, Box<Fault>> {
    if let Some(text) = value.to_str() {
        meter.reading(text.len())?;
        return Ok(text);
    }
    let text = display(value, meter.printable(STRING_BYTES));
    let text = text.map_err(|_| meter.unprintable("bytes in one string", STRING_BYTES))?;
    meter.printed(text.len())?;
    meter.string(text.len())?;
    Ok(text.into())
}

/// What a loop goes through: items of a list, values of a map, nothing for null, anything else once (Jinjava).
fn items_of(value: &Value, meter: &mut Meter) -> Result<Vec<Value>, Box<Fault>> {
    let items = if let Some(items) = values::items(value) {
        items.into_owned()
    } else if let Some(entries) = values::entries(value) {
        entries.into_iter().map(|(_, value)| value).collect()
    } else if is_null(value) {
        Vec::new()
    } else {
        vec![value.clone()]
    };
    meter.visiting(items.len())?;
    meter.spend(items.len() * 8)?;
    Ok(items)
}

/// `value.a.b`, for attributes that are given as one text.
fn resolve(value: &Value, path: &str, meter: &mut Meter) -> Result<Value, Box<Fault>> {
    meter.reading(path.len())?;
    let direct = values::attr(value, path);
    if !direct.is_undefined() || !path.contains('.') {
        return Ok(direct);
    }
    let found =
        path.split('.').filter(|name| !name.is_empty()).fold(value.clone(), |value, name| match name.parse::<i64>() {
            Ok(index) => values::item(&value, &Value::from(index)),
            Err(_) => values::attr(&value, name),
        });
    Ok(found)
}

fn means_yes(value: &Value) -> bool {
    match value.as_str() {
        Some(text) => ["true", "yes", "on", "y", "t", "1"].iter().any(|yes| text.eq_ignore_ascii_case(yes)),
        None => values::as_bool(value).unwrap_or_else(|| matches!(number(value), Some(Number::Int(1)))),
    }
}

/// Counts and answers: no data shows in them.
fn author(value: impl Into<Value>) -> Traced {
    Traced { value: value.into(), origin: Origin::Author }
}

/// A text of at most [`STRING_BYTES`] in the making: charged before it grows.
struct Builder<'m> {
    text: String,
    meter: &'m mut Meter,
}

impl<'m> Builder<'m> {
    fn new(meter: &'m mut Meter) -> Builder<'m> {
        Builder { text: String::new(), meter }
    }

    fn push(&mut self, text: &str) -> Result<(), Box<Fault>> {
        self.room(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    fn push_char(&mut self, c: char) -> Result<(), Box<Fault>> {
        self.push(c.encode_utf8(&mut [0; 4]))
    }

    fn fill(&mut self, c: char, times: usize) -> Result<(), Box<Fault>> {
        self.room(times.saturating_mul(c.len_utf8()))?;
        self.text.extend(std::iter::repeat_n(c, times));
        Ok(())
    }

    /// Charges `bytes` more.
    fn room(&mut self, bytes: usize) -> Result<(), Box<Fault>> {
        if bytes > STRING_BYTES - self.text.len().min(STRING_BYTES) {
            return Err(over("bytes in one string", STRING_BYTES));
        }
        self.meter.spend(bytes)
    }
}
