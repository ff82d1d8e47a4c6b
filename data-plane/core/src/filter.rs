//! Does this workflow want this trigger (D17, R148, S12)?
//!
//! Hides comparison: numbers exactly by their text, dates as moments, patterns in linear time. A filter is checked
//! when it is made ([`Filter::new`], [`Pattern::new`], [`Moment::parse`], …); matching then cannot fail, only say
//! no. A value of another type than the operator's operand never matches, negated operators included: they need a
//! value of their type that differs. [`Clause::Not`] is the plain opposite.

mod decimal;
mod explain;

use std::cmp::Ordering;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

pub use self::decimal::Decimal;
pub use self::explain::Explained;
use crate::cause::Cause;
use crate::path::{Found, Path};

/// How deep groups may be nested; a filter that is one condition is 1 deep.
pub const MAX_DEPTH: usize = 16;
/// How many conditions a filter may have.
pub const MAX_CONDITIONS: usize = 200;
/// How many values `in` and `not in` may list.
pub const MAX_LIST: usize = 100;
/// How long a text operand may be, in bytes.
pub const MAX_TEXT_BYTES: usize = 4_096;
/// How long a pattern may be, in bytes.
pub const MAX_PATTERN_BYTES: usize = 1_024;
/// How much memory one compiled pattern may take, in bytes; its cache while matching has the same limit.
pub const MAX_COMPILED_BYTES: usize = 2 * 1024 * 1024;
/// How many patterns a filter may have; with [`MAX_COMPILED_BYTES`] this bounds what a filter can weigh.
pub const MAX_PATTERNS: usize = 20;

/// A checked filter.
#[derive(Clone, Debug)]
pub struct Filter(Clause);

/// A node of a filter.
#[derive(Clone, Debug)]
pub enum Clause {
    /// Every one must hold.
    All(Vec<Clause>),
    /// At least one must hold.
    Any(Vec<Clause>),
    /// It must not hold.
    Not(Box<Clause>),
    /// A test of the values at a path; with `[*]` it holds when it holds for any of them.
    Condition {
        /// Where the values are.
        path: Path,
        /// What is asked of them.
        operator: Operator,
    },
}

/// What a condition asks. Texts are compared byte by byte, with regard to case.
#[derive(Clone, Debug)]
pub enum Operator {
    /// The same type and value; numbers by value (`1` equals `1.0`).
    Equals(Operand),
    /// Present, of the operand's type, and different.
    NotEquals(Operand),
    /// A text that contains the operand's text, or an array with an element that equals the operand.
    Contains(Operand),
    /// A text or an array (as for `Contains`) that does not contain it.
    DoesNotContain(Operand),
    /// A text with this beginning.
    StartsWith(String),
    /// A text with this end.
    EndsWith(String),
    /// A text in which the pattern is found (anywhere, unless it has `^` or `$`).
    Matches(Pattern),
    /// Equals one of these.
    In(Vec<Operand>),
    /// Present, of the type of at least one of these, and equal to none.
    NotIn(Vec<Operand>),
    /// Greater than the bound.
    Greater(Bound),
    /// Greater than or equal to the bound.
    GreaterOrEqual(Bound),
    /// Less than the bound.
    Less(Bound),
    /// Less than or equal to the bound.
    LessOrEqual(Bound),
    /// From the first to the second bound, both included.
    Between(Bound, Bound),
    /// The JSON value `true`.
    IsTrue,
    /// The JSON value `false`.
    IsFalse,
    /// The path leads somewhere, be it to null.
    Exists,
    /// The path leads nowhere.
    DoesNotExist,
    /// The JSON value `null`; absent is not null.
    IsNull,
}

/// A value to compare with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// Equals texts.
    Text(String),
    /// Equals numbers.
    Number(Decimal),
    /// Equals booleans.
    Boolean(bool),
}

/// An end of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Compares with numbers.
    Number(Decimal),
    /// Compares with texts that are ISO dates.
    Moment(Moment),
}

/// A point in time, from an ISO 8601 text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(jiff::Timestamp);

impl Moment {
    /// A date (`2024-06-10`, its first moment), or a date and time with `Z`, an offset, or neither (then UTC).
    /// `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        // Longer texts are no dates; the parser need not see a megabyte.
        if text.len() > 64 {
            return None;
        }
        let zoned = text.parse::<jiff::Timestamp>();
        let moment = zoned.or_else(|_| {
            text.parse::<jiff::civil::DateTime>()?.to_zoned(jiff::tz::TimeZone::UTC).map(|zoned| zoned.timestamp())
        });
        moment.ok().map(Self)
    }
}

/// A compiled regular expression; it matches in time linear in the text (no back references, no look-around).
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles `pattern` under [`MAX_PATTERN_BYTES`] and [`MAX_COMPILED_BYTES`].
    pub fn new(pattern: &str) -> Result<Self, FilterError> {
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(FilterError::PatternTooLong { bytes: pattern.len() });
        }
        Self::compile(pattern)
    }

    /// Compiles `pattern` to match whole texts only.
    pub fn whole(pattern: &str) -> Result<Self, FilterError> {
        // By itself first: it may not close the group that it is put in.
        Self::new(pattern)?;
        Self::compile(&format!("^(?:{pattern})$"))
    }

    fn compile(pattern: &str) -> Result<Self, FilterError> {
        let compiled = RegexBuilder::new(pattern)
            .size_limit(MAX_COMPILED_BYTES)
            .dfa_size_limit(MAX_COMPILED_BYTES)
            .nest_limit(50)
            .build();
        match compiled {
            Ok(regex) => Ok(Self(regex)),
            Err(regex::Error::CompiledTooBig(_)) => Err(FilterError::PatternTooComplex),
            Err(error) => Err(FilterError::Pattern { problem: error.to_string() }),
        }
    }

    /// Whether it is found in `text`.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

/// Why a filter is refused on save.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Groups in groups beyond [`MAX_DEPTH`].
    #[error("filter groups are nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// More than [`MAX_CONDITIONS`].
    #[error("a filter may have at most {MAX_CONDITIONS} conditions")]
    TooManyConditions,
    /// More than [`MAX_PATTERNS`].
    #[error("a filter may have at most {MAX_PATTERNS} `matches` conditions")]
    TooManyPatterns,
    /// A group with nothing in it: neither answer would be a safe guess.
    #[error("a filter group is empty; remove it, or leave out the filter to accept every trigger")]
    EmptyGroup,
    /// `in` or `not in` without values.
    #[error("{path}: the list of values is empty")]
    EmptyList {
        /// The condition's path.
        path: String,
    },
    /// Too many values.
    #[error("{path}: a list may have at most {MAX_LIST} values")]
    ListTooLong {
        /// The condition's path.
        path: String,
    },
    /// Too long a text.
    #[error("{path}: a text to compare with may have at most {MAX_TEXT_BYTES} bytes")]
    TextTooLong {
        /// The condition's path.
        path: String,
    },
    /// `between` that nothing can match.
    #[error("{path}: `between` needs two numbers or two dates, the smaller one first")]
    Range {
        /// The condition's path.
        path: String,
    },
    /// Too long a pattern.
    #[error("the pattern is {bytes} bytes long; the limit is {MAX_PATTERN_BYTES}")]
    PatternTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A pattern that compiles to too much.
    #[error("the pattern is too complex; use smaller repetitions")]
    PatternTooComplex,
    /// A pattern with a mistake.
    #[error("the pattern is not valid: {problem}")]
    Pattern {
        /// What is wrong, with a marked excerpt.
        problem: String,
    },
}

impl Filter {
    /// Checks the limits and that every condition can be met.
    pub fn new(clause: Clause) -> Result<Self, FilterError> {
        check(&clause, 1, &mut Counts::default())?;
        Ok(Self(clause))
    }

    /// Whether the request or event passes.
    pub fn matches<'e>(&self, cause: impl Into<Cause<'e>>) -> bool {
        self.0.matches(cause.into())
    }

    /// What the filter consists of.
    pub fn clause(&self) -> &Clause {
        &self.0
    }
}

#[derive(Default)]
struct Counts {
    conditions: usize,
    patterns: usize,
}

fn check(clause: &Clause, depth: usize, counts: &mut Counts) -> Result<(), FilterError> {
    if depth > MAX_DEPTH {
        return Err(FilterError::TooDeep);
    }
    match clause {
        Clause::All(clauses) | Clause::Any(clauses) if clauses.is_empty() => Err(FilterError::EmptyGroup),
        Clause::All(clauses) | Clause::Any(clauses) => {
            clauses.iter().try_for_each(|inner| check(inner, depth + 1, counts))
        }
        Clause::Not(inner) => check(inner, depth + 1, counts),
        Clause::Condition { path, operator } => {
            counts.conditions += 1;
            if counts.conditions > MAX_CONDITIONS {
                return Err(FilterError::TooManyConditions);
            }
            counts.patterns += usize::from(matches!(operator, Operator::Matches(_)));
            if counts.patterns > MAX_PATTERNS {
                return Err(FilterError::TooManyPatterns);
            }
            check_operator(operator, path)
        }
    }
}

fn check_operator(operator: &Operator, path: &Path) -> Result<(), FilterError> {
    let path = || path.to_string();
    let check_text = |text: &str| match text.len() {
        0..=MAX_TEXT_BYTES => Ok(()),
        _ => Err(FilterError::TextTooLong { path: path() }),
    };
    let check_operand = |operand: &Operand| match operand {
        Operand::Text(text) => check_text(text),
        Operand::Number(number) => check_text(number.as_str()),
        Operand::Boolean(_) => Ok(()),
    };
    match operator {
        Operator::Equals(operand)
        | Operator::NotEquals(operand)
        | Operator::Contains(operand)
        | Operator::DoesNotContain(operand) => check_operand(operand),
        Operator::StartsWith(text) | Operator::EndsWith(text) => check_text(text),
        Operator::In(list) | Operator::NotIn(list) => match list.len() {
            0 => Err(FilterError::EmptyList { path: path() }),
            1..=MAX_LIST => list.iter().try_for_each(check_operand),
            _ => Err(FilterError::ListTooLong { path: path() }),
        },
        Operator::Greater(bound)
        | Operator::GreaterOrEqual(bound)
        | Operator::Less(bound)
        | Operator::LessOrEqual(bound) => check_bound(bound, path),
        Operator::Between(low, high) => {
            check_bound(low, path)?;
            check_bound(high, path)?;
            let order = match (low, high) {
                (Bound::Number(low), Bound::Number(high)) => high.compare(low.as_str()),
                (Bound::Moment(low), Bound::Moment(high)) => Some(low.cmp(high)),
                _ => None,
            };
            if order.is_some_and(Ordering::is_le) { Ok(()) } else { Err(FilterError::Range { path: path() }) }
        }
        Operator::Matches(_)
        | Operator::IsTrue
        | Operator::IsFalse
        | Operator::Exists
        | Operator::DoesNotExist
        | Operator::IsNull => Ok(()),
    }
}

fn check_bound(bound: &Bound, path: impl Fn() -> String) -> Result<(), FilterError> {
    match bound {
        Bound::Number(number) if number.as_str().len() > MAX_TEXT_BYTES => {
            Err(FilterError::TextTooLong { path: path() })
        }
        Bound::Number(_) | Bound::Moment(_) => Ok(()),
    }
}

impl Clause {
    fn matches(&self, cause: Cause<'_>) -> bool {
        match self {
            Self::All(clauses) => clauses.iter().all(|clause| clause.matches(cause)),
            Self::Any(clauses) => clauses.iter().any(|clause| clause.matches(cause)),
            Self::Not(clause) => !clause.matches(cause),
            Self::Condition { path, operator } => operator.holds_for(&path.resolve(cause)),
        }
    }
}

/// A found value as the operators see it.
#[derive(Clone, Copy)]
enum Scalar<'v> {
    Null,
    Boolean(bool),
    Number(&'v str),
    Text(&'v str),
    Array(&'v [Value]),
    Object,
}

impl<'v> Scalar<'v> {
    fn of(found: &'v Found<'_>) -> Self {
        match found {
            Found::Text(text) => Self::Text(text),
            Found::Json(value) => Self::of_json(value),
        }
    }

    fn of_json(value: &'v Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(truth) => Self::Boolean(*truth),
            Value::Number(number) => Self::Number(number.as_str()),
            Value::String(text) => Self::Text(text),
            Value::Array(array) => Self::Array(array),
            Value::Object(_) => Self::Object,
        }
    }

    fn text(self) -> Option<&'v str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

impl Operator {
    fn holds(&self, value: Scalar<'_>) -> bool {
        let order = |bound: &Bound| bound.compare(value);
        match self {
            Self::Equals(operand) => operand.equals(value) == Some(true),
            Self::NotEquals(operand) => operand.equals(value) == Some(false),
            Self::Contains(operand) => operand.is_in(value) == Some(true),
            Self::DoesNotContain(operand) => operand.is_in(value) == Some(false),
            Self::StartsWith(start) => value.text().is_some_and(|text| text.starts_with(start.as_str())),
            Self::EndsWith(end) => value.text().is_some_and(|text| text.ends_with(end.as_str())),
            Self::Matches(pattern) => value.text().is_some_and(|text| pattern.0.is_match(text)),
            Self::In(list) => list.iter().any(|operand| operand.equals(value) == Some(true)),
            Self::NotIn(list) => {
                let answers = || list.iter().filter_map(|operand| operand.equals(value));
                answers().next().is_some() && answers().all(|equal| !equal)
            }
            Self::Greater(bound) => order(bound).is_some_and(Ordering::is_gt),
            Self::GreaterOrEqual(bound) => order(bound).is_some_and(Ordering::is_ge),
            Self::Less(bound) => order(bound).is_some_and(Ordering::is_lt),
            Self::LessOrEqual(bound) => order(bound).is_some_and(Ordering::is_le),
            Self::Between(low, high) => {
                order(low).is_some_and(Ordering::is_ge) && order(high).is_some_and(Ordering::is_le)
            }
            Self::IsTrue => matches!(value, Scalar::Boolean(true)),
            Self::IsFalse => matches!(value, Scalar::Boolean(false)),
            Self::Exists => true,
            // Answered before there is a value.
            Self::DoesNotExist => false,
            Self::IsNull => matches!(value, Scalar::Null),
        }
    }
}

impl Operand {
    /// `None` when the types differ.
    fn equals(&self, value: Scalar<'_>) -> Option<bool> {
        match (self, value) {
            (Self::Text(ours), Scalar::Text(theirs)) => Some(ours == theirs),
            (Self::Number(ours), Scalar::Number(theirs)) => ours.compare(theirs).map(Ordering::is_eq),
            (Self::Boolean(ours), Scalar::Boolean(theirs)) => Some(*ours == theirs),
            _ => None,
        }
    }

    /// `None` when nothing can be contained in the value.
    fn is_in(&self, value: Scalar<'_>) -> Option<bool> {
        match (self, value) {
            (Self::Text(ours), Scalar::Text(theirs)) => Some(theirs.contains(ours.as_str())),
            (_, Scalar::Array(array)) => {
                Some(array.iter().any(|element| self.equals(Scalar::of_json(element)) == Some(true)))
            }
            _ => None,
        }
    }
}

impl Bound {
    /// How the value compares to the bound; `None` when the types differ.
    fn compare(&self, value: Scalar<'_>) -> Option<Ordering> {
        match (self, value) {
            (Self::Number(bound), Scalar::Number(number)) => bound.compare(number),
            (Self::Moment(bound), Scalar::Text(text)) => Moment::parse(text).map(|moment| moment.cmp(bound)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Envelope;
    use crate::envelope::Headers;
    use crate::flatten::{Limits, parse_body};

    fn operand(json: &Value) -> Operand {
        match json {
            Value::String(text) => Operand::Text(text.clone()),
            Value::Number(number) => Operand::Number(Decimal::parse(number.as_str()).unwrap()),
            Value::Bool(truth) => Operand::Boolean(*truth),
            other => panic!("{other} is no operand"),
        }
    }

    fn bound(json: &Value) -> Bound {
        match operand(json) {
            Operand::Number(number) => Bound::Number(number),
            Operand::Text(text) => Bound::Moment(Moment::parse(&text).unwrap()),
            Operand::Boolean(_) => panic!("no bound"),
        }
    }

    fn clause(json: &Value) -> Result<Clause, FilterError> {
        let group = |json: &Value| json.as_array().unwrap().iter().map(clause).collect::<Result<Vec<_>, _>>();
        let (name, value) = json.as_object().unwrap().iter().next_back().unwrap();
        let list = || value.as_array().unwrap().iter().map(operand).collect();
        let text = || value.as_str().unwrap().to_owned();
        let operator = match name.as_str() {
            "all" => return Ok(Clause::All(group(value)?)),
            "any" => return Ok(Clause::Any(group(value)?)),
            "not" => return Ok(Clause::Not(Box::new(clause(value)?))),
            "equals" => Operator::Equals(operand(value)),
            "not_equals" => Operator::NotEquals(operand(value)),
            "contains" => Operator::Contains(operand(value)),
            "does_not_contain" => Operator::DoesNotContain(operand(value)),
            "starts_with" => Operator::StartsWith(text()),
            "ends_with" => Operator::EndsWith(text()),
            "matches" => Operator::Matches(Pattern::new(&text())?),
            "in" => Operator::In(list()),
            "not_in" => Operator::NotIn(list()),
            "greater" => Operator::Greater(bound(value)),
            "greater_or_equal" => Operator::GreaterOrEqual(bound(value)),
            "less" => Operator::Less(bound(value)),
            "less_or_equal" => Operator::LessOrEqual(bound(value)),
            "between" => Operator::Between(bound(&value[0]), bound(&value[1])),
            "is_true" => Operator::IsTrue,
            "is_false" => Operator::IsFalse,
            "exists" => Operator::Exists,
            "does_not_exist" => Operator::DoesNotExist,
            "is_null" => Operator::IsNull,
            other => panic!("unknown operator {other}"),
        };
        Ok(Clause::Condition { path: json["path"].as_str().unwrap().parse().unwrap(), operator })
    }

    /// Each line: `body` (JSON text), `headers`, and filters that it `passes` and `fails`, or one that is `refused`.
    #[test]
    fn golden() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/filter/filters.jsonl");
        for line in std::fs::read_to_string(file).unwrap().lines().filter(|line| !line.is_empty()) {
            // The exact reader, so that operands keep their text too.
            let case = parse_body(line.as_bytes(), &Limits::STORED).unwrap();
            if let Some(message) = case["message"].as_str() {
                let refused = clause(&case["refused"]).and_then(Filter::new).unwrap_err();
                assert!(refused.to_string().contains(message), "{line}: {refused}");
                continue;
            }
            let headers = case["headers"].as_object().into_iter().flatten();
            let envelope = Envelope {
                body: parse_body(case["body"].as_str().unwrap().as_bytes(), &Limits::default()).unwrap().into(),
                business_profile_id: 7,
                endpoint_id: "ep".into(),
                event_id: "ev".into(),
                headers: Headers::from_iter(headers.map(|(name, value)| (name.as_str(), value.as_str().unwrap()))),
                method: "POST".into(),
                time: 1_718_010_931_000,
            };
            for (side, expected) in [("passes", true), ("fails", false)] {
                for json in case[side].as_array().into_iter().flatten() {
                    let filter = Filter::new(clause(json).unwrap()).unwrap();
                    assert_eq!(filter.matches(&envelope), expected, "{}: {json}", case["case"]);
                }
            }
        }
    }

    /// In literal numbers, so that a limit that moves is noticed.
    #[test]
    fn limits_are_where_they_are_said_to_be() {
        let condition = || Clause::Condition {
            path: "body.a".parse().unwrap(),
            operator: Operator::Equals(Operand::Boolean(true)),
        };
        let nested = |depth| (1..depth).fold(condition(), |inner, _| Clause::Not(Box::new(inner)));
        assert!(Filter::new(nested(16)).is_ok());
        assert_eq!(Filter::new(nested(17)).unwrap_err(), FilterError::TooDeep);
        let grouped = |depth| (1..depth).fold(condition(), |inner, _| Clause::Any(vec![inner]));
        assert!(Filter::new(grouped(16)).is_ok());
        assert_eq!(Filter::new(grouped(17)).unwrap_err(), FilterError::TooDeep);
        let wide = |count| Clause::Any((0..count).map(|_| condition()).collect());
        assert!(Filter::new(wide(200)).is_ok());
        assert_eq!(Filter::new(wide(201)).unwrap_err(), FilterError::TooManyConditions);
        let spread = Clause::All(vec![wide(100), Clause::Not(Box::new(wide(101)))]);
        assert_eq!(Filter::new(spread).unwrap_err(), FilterError::TooManyConditions);
        let with = |operator| Filter::new(Clause::Condition { path: "body.a".parse().unwrap(), operator });
        let too_long = |operator| matches!(with(operator), Err(FilterError::TextTooLong { .. }));
        for list in [Operator::In as fn(Vec<Operand>) -> Operator, Operator::NotIn] {
            assert!(with(list(vec![Operand::Boolean(true); 100])).is_ok());
            let refused = with(list(vec![Operand::Boolean(true); 101]));
            assert!(matches!(refused, Err(FilterError::ListTooLong { .. })));
            assert!(too_long(list(vec![Operand::Text("a".repeat(4_097))])));
        }
        for text in [Operator::StartsWith as fn(String) -> Operator, Operator::EndsWith] {
            assert!(with(text("a".repeat(4_096))).is_ok());
            assert!(too_long(text("a".repeat(4_097))));
        }
        let number = |digits: usize| Decimal::parse(&"1".repeat(digits)).unwrap();
        for operand in [
            Operator::Equals as fn(Operand) -> Operator,
            Operator::NotEquals,
            Operator::Contains,
            Operator::DoesNotContain,
        ] {
            assert!(with(operand(Operand::Text("a".repeat(4_096)))).is_ok());
            assert!(too_long(operand(Operand::Text("a".repeat(4_097)))));
            assert!(with(operand(Operand::Number(number(4_096)))).is_ok());
            assert!(too_long(operand(Operand::Number(number(4_097)))));
        }
        for bound in [
            Operator::Greater as fn(Bound) -> Operator,
            Operator::GreaterOrEqual,
            Operator::Less,
            Operator::LessOrEqual,
            |high| Operator::Between(Bound::Number(Decimal::parse("0").unwrap()), high),
        ] {
            assert!(with(bound(Bound::Number(number(4_096)))).is_ok());
            assert!(too_long(bound(Bound::Number(number(4_097)))));
        }
    }

    #[test]
    fn limits_of_patterns_are_where_they_are_said_to_be() {
        assert!(Pattern::new(&"a".repeat(1_024)).is_ok());
        assert_eq!(Pattern::new(&"a".repeat(1_025)).unwrap_err(), FilterError::PatternTooLong { bytes: 1_025 });
        // What one letter takes is the library's to say: about 48 KiB, so that 43 of them reach the limit.
        assert!(Pattern::new(r"\w{40}").is_ok());
        assert_eq!(Pattern::new(r"\w{80}").unwrap_err(), FilterError::PatternTooComplex);
        let nested = |depth| Pattern::new(&format!("{}a{}", "(".repeat(depth), ")".repeat(depth)));
        assert!(nested(50).is_ok());
        assert!(matches!(nested(51), Err(FilterError::Pattern { .. })));
        let patterns = |count| {
            let clause = |_| Clause::Condition {
                path: "body.a".parse().unwrap(),
                operator: Operator::Matches(Pattern::new("a").unwrap()),
            };
            Filter::new(Clause::All((0..count).map(clause).collect()))
        };
        assert!(patterns(20).is_ok());
        assert_eq!(patterns(21).unwrap_err(), FilterError::TooManyPatterns);
        Pattern::new(r"^[\w.+-]+@[\w-]+\.[\w.]{2,24}$").unwrap();
    }

    #[test]
    fn a_hostile_text_costs_linear_time() {
        let pattern = Pattern::new("^(a+)+$").unwrap();
        assert!(!pattern.0.is_match(&("a".repeat(1 << 20) + "b")));
    }
}
