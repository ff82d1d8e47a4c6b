//! What Jinjava printed for the same template and context. Rows that differ here have their reason in a golden file; a
//! reason that is no longer needed is an error, like a row that differs without one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::super::*;
use super::{context, golden};

/// What one row prints here: `None` when it is refused or fails.
fn printed(row: &Json) -> Result<String, String> {
    let source = row["template"].as_str().unwrap();
    let template = Template::compile(source, Mode::Exact).map_err(|errors| errors[0].to_string())?;
    let rendered = template.render(&context(&row["context"]), OnMissing::Empty).map_err(|error| error.to_string())?;
    Ok(rendered.text)
}

/// Compares every row in scope with what is expected. Gives how many pass, and how many there are.
fn compare(rows: &[Json], departures: &str) -> (usize, usize) {
    let mut reasons = BTreeMap::new();
    for row in golden(departures) {
        let (name, reason) = (row["name"].as_str().unwrap(), row["reason"].as_str().unwrap());
        assert!(!reason.is_empty(), "{name} has no reason");
        assert!(reasons.insert(name.to_owned(), reason.to_owned()).is_none(), "{name} is listed twice");
    }
    let mut names = BTreeSet::new();
    let mut rates: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let (mut failures, mut needless) = (Vec::new(), Vec::new());
    for row in rows.iter().filter(|row| row["status"] != "out_of_scope") {
        let (name, category) = (row["name"].as_str().unwrap(), row["category"].as_str().unwrap());
        assert!(names.insert(name.to_owned()), "{name} comes twice");
        let outcome = printed(row);
        let passes = match &outcome {
            Ok(text) => row["error"] == false && row["expected"] == **text,
            Err(_) => row["error"] == true,
        };
        let rate = rates.entry(category).or_default();
        rate.0 += usize::from(passes);
        rate.1 += 1;
        match (passes, reasons.contains_key(name)) {
            (true, true) => needless.push(name),
            (false, false) => {
                failures.push(format!("{category}: {name}: {}: {outcome:?}, not {}", row["template"], row["expected"]));
            }
            _ => {}
        }
    }
    for (category, (passed, all)) in &rates {
        println!("{category}: {passed} of {all}");
    }
    let (passed, all) = rates.values().fold((0, 0), |sum, rate| (sum.0 + rate.0, sum.1 + rate.1));
    println!("all: {passed} of {all}, {:.1} %; these differ:", passed as f64 * 100.0 / all as f64);
    for (name, reason) in &reasons {
        println!("  {name}: {reason}");
    }
    let gone: Vec<_> = reasons.keys().filter(|name| !names.contains(*name)).collect();
    assert!(gone.is_empty(), "{departures} lists rows that do not exist: {gone:#?}");
    assert!(needless.is_empty(), "{departures} lists rows that print what is expected: {needless:#?}");
    assert!(
        failures.is_empty(),
        "{} rows differ and {departures} does not say why:\n{}",
        failures.len(),
        failures.join("\n")
    );
    (passed, all)
}

#[test]
fn prints_what_jinjava_prints() {
    compare(&golden("vectors.jsonl"), "departures.jsonl");
}

/// Cases of Jinjava's own test suite, read where they lie; without them there is nothing to compare.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test may be told where its data lies")]
fn passes_the_suite_of_jinjava() {
    let folder = std::env::var("SLUICE_VECTORS")
        .unwrap_or_else(|_| format!("{}/../../../shared/vectors", env!("CARGO_MANIFEST_DIR")));
    let Ok(text) = std::fs::read_to_string(format!("{folder}/jinjava-suite.jsonl")) else {
        println!("no jinjava-suite.jsonl in {folder}: not run");
        return;
    };
    let rows: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (passed, all) = compare(&rows, "jinjava-departures.jsonl");
    assert!(passed * 100 >= all * 97, "{passed} of {all}");
}
