//! Filters.

use serde_json::Value;
use sluice_proto::admin::v1 as admin;

use crate::filter::{Bound, Clause, Decimal, Filter, MAX_DEPTH, MAX_LIST, Moment, Operand, Operator, Pattern};
use crate::flatten::{Limits, parse_body};
use crate::path::{Path, Root};
use crate::validate::Check;

/// Whose values a filter looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// A request's: `body`, `headers` and so on.
    Request,
    /// A response event's: `event`.
    ResponseEvent,
    /// Those of what a caller submits: `event` and `customer`.
    Submitted,
}

impl Of {
    fn has(self, root: Root) -> bool {
        match root {
            Root::Event => self != Self::Request,
            Root::Customer => self == Self::Submitted,
            Root::Body
            | Root::Headers
            | Root::Method
            | Root::Time
            | Root::EventId
            | Root::EndpointId
            | Root::BusinessProfileId => self == Self::Request,
        }
    }
}

/// Parses a filter.
pub(super) fn filter(check: &mut Check, wire: &admin::Filter, of: Of) -> Option<Filter> {
    let clause = clause(check, wire, of, 1)?;
    match Filter::new(clause) {
        Ok(filter) => Some(filter),
        Err(error) => {
            check.fail("", "FILTER_INVALID", error.to_string());
            None
        }
    }
}

fn clause(check: &mut Check, wire: &admin::Filter, of: Of, depth: usize) -> Option<Clause> {
    use admin::filter::Kind;
    if depth > MAX_DEPTH {
        check.fail("", "TOO_DEEP", format!("groups nest deeper than {MAX_DEPTH}"));
        return None;
    }
    match &wire.kind {
        Some(Kind::All(members)) => check.within("all", |check| group(check, members, of, depth)).map(Clause::All),
        Some(Kind::Any(members)) => check.within("any", |check| group(check, members, of, depth)).map(Clause::Any),
        Some(Kind::Not(inner)) => {
            check.within("not", |check| clause(check, inner, of, depth + 1)).map(|inner| Clause::Not(Box::new(inner)))
        }
        Some(Kind::Condition(wire)) => check.within("condition", |check| condition(check, wire, of)),
        None => {
            check.fail("kind", "REQUIRED", "one of all, any, not, condition is required");
            None
        }
    }
}

fn group(check: &mut Check, wire: &admin::FilterGroup, of: Of, depth: usize) -> Option<Vec<Clause>> {
    let mut members = Vec::with_capacity(wire.filters.len());
    for (index, member) in wire.filters.iter().enumerate() {
        members.extend(check.within(format!("filters[{index}]"), |check| clause(check, member, of, depth + 1)));
    }
    (members.len() == wire.filters.len()).then_some(members)
}

fn condition(check: &mut Check, wire: &admin::Condition, of: Of) -> Option<Clause> {
    let path = match wire.path.parse::<Path>() {
        Ok(path) if of.has(path.root()) => Some(path),
        Ok(_) => {
            check.fail(
                "path",
                "PATH_INVALID",
                match of {
                    Of::Request => {
                        "a request has no event and no customer: start with body, headers, method, time, eventId, endpointId or \
                                businessProfileId"
                    }
                    Of::ResponseEvent => {
                        "a response event has no request and no customer: start with event, as in event.params.status"
                    }
                    Of::Submitted => "an event has no request: start with event or customer, as in customer.email",
                },
            );
            None
        }
        Err(error) => {
            check.fail("path", "PATH_INVALID", error.to_string());
            None
        }
    };
    let operator = operator(check, wire.operator(), &wire.operands);
    Some(Clause::Condition { path: path?, operator: operator? })
}

fn operator(check: &mut Check, operator: admin::Operator, operands: &[String]) -> Option<Operator> {
    use admin::Operator as Wire;
    let expected = match operator {
        Wire::Unspecified => {
            check.fail("operator", "REQUIRED", "is required");
            return None;
        }
        Wire::IsTrue | Wire::IsFalse | Wire::Exists | Wire::NotExists | Wire::IsNull => 0..=0,
        Wire::Between => 2..=2,
        Wire::In | Wire::NotIn => 1..=MAX_LIST,
        Wire::Equals
        | Wire::NotEquals
        | Wire::Contains
        | Wire::NotContains
        | Wire::StartsWith
        | Wire::EndsWith
        | Wire::Matches
        | Wire::Greater
        | Wire::GreaterOrEqual
        | Wire::Less
        | Wire::LessOrEqual => 1..=1,
    };
    if !expected.contains(&operands.len()) {
        let (min, max) = (expected.start(), expected.end());
        let wanted = if min == max { format!("exactly {min}") } else { format!("{min} to {max}") };
        let message = format!("{} takes {wanted}; there are {}", operator.as_str_name(), operands.len());
        check.fail("operands", "COUNT", message);
        return None;
    }
    let mut read = Operands { check, operands };
    Some(match operator {
        Wire::Unspecified => return None,
        Wire::Equals => Operator::Equals(read.operand(0)?),
        Wire::NotEquals => Operator::NotEquals(read.operand(0)?),
        Wire::Contains => Operator::Contains(read.operand(0)?),
        Wire::NotContains => Operator::DoesNotContain(read.operand(0)?),
        Wire::StartsWith => Operator::StartsWith(read.text(0)?),
        Wire::EndsWith => Operator::EndsWith(read.text(0)?),
        Wire::Matches => Operator::Matches(read.pattern(0)?),
        Wire::In => Operator::In(read.all()?),
        Wire::NotIn => Operator::NotIn(read.all()?),
        Wire::Greater => Operator::Greater(read.bound(0)?),
        Wire::GreaterOrEqual => Operator::GreaterOrEqual(read.bound(0)?),
        Wire::Less => Operator::Less(read.bound(0)?),
        Wire::LessOrEqual => Operator::LessOrEqual(read.bound(0)?),
        Wire::Between => Operator::Between(read.bound(0)?, read.bound(1)?),
        Wire::IsTrue => Operator::IsTrue,
        Wire::IsFalse => Operator::IsFalse,
        Wire::Exists => Operator::Exists,
        Wire::NotExists => Operator::DoesNotExist,
        Wire::IsNull => Operator::IsNull,
    })
}

/// Reads operands as JSON texts.
struct Operands<'a> {
    check: &'a mut Check,
    operands: &'a [String],
}

impl Operands<'_> {
    fn fail<T>(&mut self, index: usize, reason: &'static str, message: impl Into<String>) -> Option<T> {
        self.check.fail(&format!("operands[{index}]"), reason, message);
        None
    }

    /// With the reader of bodies, so that an operand keeps its text as the value it is compared with does.
    fn json(&mut self, index: usize) -> Option<Value> {
        match parse_body(self.operands[index].as_bytes(), &Limits::default()) {
            Ok(value) => Some(value),
            Err(_) => {
                self.fail(index, "NOT_JSON", "must be a JSON text: a string in double quotes, a number, true or false")
            }
        }
    }

    fn operand(&mut self, index: usize) -> Option<Operand> {
        match self.json(index)? {
            Value::String(text) => Some(Operand::Text(text)),
            Value::Bool(value) => Some(Operand::Boolean(value)),
            Value::Number(number) => match Decimal::parse(number.as_str()) {
                Some(number) => Some(Operand::Number(number)),
                None => self.fail(index, "TYPE", "is not a number that can be compared"),
            },
            Value::Null | Value::Array(_) | Value::Object(_) => {
                self.fail(index, "TYPE", "must be a string, a number, true or false")
            }
        }
    }

    fn all(&mut self) -> Option<Vec<Operand>> {
        let read: Vec<_> = (0..self.operands.len()).map(|index| self.operand(index)).collect();
        read.into_iter().collect()
    }

    fn text(&mut self, index: usize) -> Option<String> {
        match self.json(index)? {
            Value::String(text) => Some(text),
            _ => self.fail(index, "TYPE", "must be a string in double quotes"),
        }
    }

    fn pattern(&mut self, index: usize) -> Option<Pattern> {
        let text = self.text(index)?;
        match Pattern::new(&text) {
            Ok(pattern) => Some(pattern),
            Err(error) => self.fail(index, "PATTERN_INVALID", error.to_string()),
        }
    }

    fn bound(&mut self, index: usize) -> Option<Bound> {
        let bound = match self.json(index)? {
            Value::Number(number) => Decimal::parse(number.as_str()).map(Bound::Number),
            Value::String(text) => Moment::parse(&text).map(Bound::Moment),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        match bound {
            Some(bound) => Some(bound),
            None => self.fail(index, "TYPE", "must be a number or an ISO 8601 date in double quotes"),
        }
    }
}
