//! Filters: every filter that was taken answers every request, and means what logic says (D17).

use std::cmp::Ordering;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;
use sluice_core::envelope::Envelope;
use sluice_core::filter::{Bound, Clause, Decimal, Filter, Moment, Operand, Operator, Pattern};
use sluice_core::path::Path;

use super::documents::{envelope, number, text};
use super::holds;

const PATHS: [&str; 12] = [
    "body",
    "body.a",
    "body.b",
    "body[0]",
    "body[*]",
    "body.a[*]",
    "body[*].a",
    "body[\"\"]",
    "headers.X-Id",
    "method",
    "time",
    "businessProfileId",
];
const MOMENTS: [&str; 6] =
    ["2024-06-10", "2024-06-10T09:15:30Z", "2024-06-10T11:15:30+02:00", "2024-02-30", "9999-12-31", "10 June"];
const PATTERNS: [&str; 5] = ["a", "^$", "^(a+)+$", r"\d", "[[:alpha:]]"];

fn decimal() -> impl Strategy<Value = Decimal> {
    number().prop_filter_map("a number that can be compared", |number| Decimal::parse(&number.to_string()))
}

fn operand() -> impl Strategy<Value = Operand> {
    let moments = prop::sample::select(&MOMENTS[..]).prop_map(|text| Operand::Text(text.to_owned()));
    let words = prop_oneof![text(), Just("POST".to_owned()), Just(String::new())].prop_map(Operand::Text);
    prop_oneof![words, moments, decimal().prop_map(Operand::Number), any::<bool>().prop_map(Operand::Boolean)]
}

fn bound() -> impl Strategy<Value = Bound> {
    let moment = prop::sample::select(&MOMENTS[..]).prop_filter_map("a date", Moment::parse);
    prop_oneof![decimal().prop_map(Bound::Number), moment.prop_map(Bound::Moment)]
}

fn operator() -> impl Strategy<Value = Operator> {
    let compare = prop_oneof![
        operand().prop_map(Operator::Equals),
        operand().prop_map(Operator::NotEquals),
        operand().prop_map(Operator::Contains),
        operand().prop_map(Operator::DoesNotContain),
        vec(operand(), 0..3).prop_map(Operator::In),
        vec(operand(), 0..3).prop_map(Operator::NotIn),
    ];
    let order = prop_oneof![
        bound().prop_map(Operator::Greater),
        bound().prop_map(Operator::GreaterOrEqual),
        bound().prop_map(Operator::Less),
        bound().prop_map(Operator::LessOrEqual),
        (bound(), bound()).prop_map(|(low, high)| Operator::Between(low, high)),
    ];
    let pattern =
        prop::sample::select(&PATTERNS[..]).prop_map(|pattern| Operator::Matches(Pattern::new(pattern).unwrap()));
    let texts = prop_oneof![text().prop_map(Operator::StartsWith), text().prop_map(Operator::EndsWith), pattern];
    let kinds = [Operator::IsTrue, Operator::IsFalse, Operator::Exists, Operator::DoesNotExist, Operator::IsNull];
    prop_oneof![compare, order, texts, prop::sample::select(kinds.to_vec())]
}

fn path() -> impl Strategy<Value = Path> {
    prop::sample::select(&PATHS[..]).prop_map(|text| text.parse().unwrap())
}

fn clause() -> impl Strategy<Value = Clause> {
    let condition = (path(), operator()).prop_map(|(path, operator)| Clause::Condition { path, operator });
    condition.prop_recursive(3, 6, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Clause::All),
            vec(inner.clone(), 0..3).prop_map(Clause::Any),
            inner.prop_map(|inner| Clause::Not(Box::new(inner))),
        ]
    })
}

/// What the groups of a filter mean, over the answers of its conditions.
fn meaning(clause: &Clause, envelope: &Envelope) -> bool {
    match clause {
        Clause::All(members) => members.iter().all(|member| meaning(member, envelope)),
        Clause::Any(members) => members.iter().any(|member| meaning(member, envelope)),
        Clause::Not(inner) => !meaning(inner, envelope),
        condition => Filter::new(condition.clone()).unwrap().matches(envelope),
    }
}

#[test]
fn filters_are_total_and_mean_what_logic_says() {
    let taken = std::cell::Cell::new(0);
    holds((clause(), envelope()), |(clause, envelope)| {
        // A refusal is an answer too; what is taken never fails.
        if let Ok(filter) = Filter::new(clause.clone()) {
            taken.set(taken.get() + 1);
            prop_assert_eq!(filter.matches(&envelope), meaning(&clause, &envelope));
        }
        Ok(())
    });
    assert!(taken.get() > 4_000, "hardly any filter is taken: {}", taken.get());
}

/// A type mismatch is false for an operator and for its opposite alike (D17), and no value is on both sides.
#[test]
fn an_operator_and_its_opposite_are_never_both_true() {
    let holds_for = |operator: Operator, envelope: &Envelope| {
        let path = "body".parse().unwrap();
        Filter::new(Clause::Condition { path, operator }).unwrap().matches(envelope)
    };
    holds((operand(), envelope()), |(operand, envelope)| {
        let list = || vec![operand.clone(), operand.clone()];
        let equals = holds_for(Operator::Equals(operand.clone()), &envelope);
        let differs = holds_for(Operator::NotEquals(operand.clone()), &envelope);
        let contains = holds_for(Operator::Contains(operand.clone()), &envelope);
        let lacks = holds_for(Operator::DoesNotContain(operand.clone()), &envelope);
        prop_assert!(!(equals && differs || contains && lacks));
        let same_type = match (&operand, envelope.body.value()) {
            (Operand::Text(_), body) => body.is_string(),
            (Operand::Boolean(_), body) => body.is_boolean(),
            // A number with an exponent beyond all measure is compared with none.
            (Operand::Number(_), Value::Number(number)) => Decimal::parse(&number.to_string()).is_some(),
            (Operand::Number(_), _) => false,
        };
        prop_assert_eq!(equals || differs, same_type);
        prop_assert_eq!(holds_for(Operator::In(list()), &envelope), equals);
        prop_assert_eq!(holds_for(Operator::NotIn(list()), &envelope), differs);
        Ok(())
    });
}

/// Any two numbers are in exactly one order, seen from both sides, and `between` agrees with its bounds.
#[test]
fn numbers_are_in_one_order() {
    holds((decimal(), decimal(), decimal()), |(low, value, high)| {
        let order = low.compare(value.as_str()).unwrap();
        prop_assert_eq!(value.compare(low.as_str()).unwrap(), order.reverse());
        prop_assert_eq!(low.compare(low.as_str()), Some(Ordering::Equal));
        // `compare` tells how the argument stands to the number.
        let (to_low, to_high) = (low.compare(value.as_str()).unwrap(), high.compare(value.as_str()).unwrap());
        if to_low.is_ge() && to_high.is_le() {
            prop_assert!(low.compare(high.as_str()).unwrap().is_ge(), "order is not transitive");
        }
        Ok(())
    });
}
