//! A body of 1 KB, JSON-safe, beside the stock engine, which is not; and what a compiled template weighs.

use std::hint::black_box;
use std::time::Instant;

use sluice_core::template::{Mode, Template};

use crate::engines::{BODY, Case, order};
use crate::process::Watched;
use crate::table::Target::{AtLeast, AtMost};
use crate::table::{Measured, Round, Table};

const ROUNDS: usize = 9;
const TIMES: usize = 10_000;
const TEMPLATES: usize = 20_000;

pub(crate) fn run(table: &mut Table) {
    let case = Case::new(BODY, &order());
    let (mut stock, mut text, mut json) = (Measured::default(), Measured::default(), Measured::default());
    for round in 0..=ROUNDS {
        let theirs = repeated(|| case.stock());
        let (as_text, as_json) = (repeated(|| case.ours(&case.text)), repeated(|| case.ours(&case.json)));
        // The first round warms up.
        if round > 0 {
            stock.add(theirs);
            text.add(as_text);
            json.add(as_json);
        }
    }
    table.rate("render 1 KB, stock minijinja", &mut stock);
    table.against("render 1 KB, as text", &mut text, &stock, None);
    table.against("render 1 KB, JSON-safe", &mut json, &stock, Some(AtLeast(1.0)));
    let before = Watched::this().resident();
    let compiled: Vec<Template> =
        (0..TEMPLATES).map(|_| Template::compile(BODY, Mode::Json).expect("it is of the dialect")).collect();
    let each = (Watched::this().resident() - before) * 1024.0 * 1024.0 / TEMPLATES as f64;
    black_box(compiled);
    table.figure("compiled template / its source", each / BODY.len() as f64, "x", Some(AtMost(3.0)));
}

fn repeated(render: impl Fn() -> String) -> Round {
    let (begun, cpu) = (Instant::now(), Watched::this().cpu());
    for _ in 0..TIMES {
        black_box(render());
    }
    let (time, cpu) = (begun.elapsed(), Watched::this().cpu() - cpu);
    Round { count: TIMES, time, latencies: Vec::new(), cpu, resident: 0.0 }
}
