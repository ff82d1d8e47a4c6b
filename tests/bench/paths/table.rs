//! One table of all that was measured, and what of it misses its target.

use std::time::Duration;

use crate::measure::percentile;

/// The middle one.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What one round brought.
pub(crate) struct Round {
    /// How many were done.
    pub(crate) count: usize,
    /// In which time.
    pub(crate) time: Duration,
    /// How long each took, where that is known.
    pub(crate) latencies: Vec<Duration>,
    /// Processor time of the process that is measured, not of the generator.
    pub(crate) cpu: Duration,
    /// Its memory, in MB.
    pub(crate) resident: f64,
}

/// All rounds of one path.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) rates: Vec<f64>,
    cpu: Vec<f64>,
    latencies: Vec<Duration>,
    /// Of each round, in milliseconds.
    p99s: Vec<f64>,
    resident: f64,
}

impl Measured {
    pub(crate) fn add(&mut self, mut round: Round) {
        let count = round.count.max(1) as f64;
        if !round.latencies.is_empty() {
            self.p99s.push(percentile(&mut round.latencies, 99));
        }
        self.rates.push(count / round.time.as_secs_f64());
        self.cpu.push(round.cpu.as_secs_f64() * 1e6 / count);
        self.latencies.extend(round.latencies);
        self.resident = self.resident.max(round.resident);
    }

    /// Per second.
    pub(crate) fn rate(&self) -> f64 {
        median(&self.rates)
    }

    /// Of one request, in microseconds.
    pub(crate) fn cpu(&self) -> f64 {
        median(&self.cpu)
    }

    /// In milliseconds, of the middle round. That of all requests stands in the row.
    pub(crate) fn p99(&self) -> f64 {
        median(&self.p99s)
    }

    /// The ratio of those p99 that were measured right after each other.
    pub(crate) fn p99_against(&self, limit: &Self) -> f64 {
        let ratios: Vec<f64> = self.p99s.iter().zip(&limit.p99s).map(|(p99, limit)| p99 / limit).collect();
        median(&ratios)
    }

    /// The ratio of rates that were measured right after each other, so that a machine whose speed drifts does not matter.
    pub(crate) fn against(&self, limit: &Self) -> f64 {
        let ratios: Vec<f64> = self.rates.iter().zip(&limit.rates).map(|(rate, limit)| rate / limit).collect();
        median(&ratios)
    }
}

/// What must hold of a figure.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(min) => value >= min,
            Self::AtMost(max) => value <= max,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(min) => format!(">= {min}"),
            Self::AtMost(max) => format!("<= {max}"),
        }
    }
}

/// Rows as they are printed.
#[derive(Default)]
pub(crate) struct Table {
    missed: Vec<String>,
    begun: bool,
}

impl Table {
    fn line(&mut self, path: &str, columns: [String; 7]) {
        if !std::mem::replace(&mut self.begun, true) {
            self.line("path", TITLES.map(str::to_owned));
        }
        let [figure, limit, ratio, p50, p99, cpu, resident] = columns;
        println!("{path:<52}{figure:>14}{limit:>12}{ratio:>18}{p50:>9}{p99:>9}{cpu:>9}{resident:>8}");
    }

    /// Something that only shows where the limit is, or what it costs.
    pub(crate) fn rate(&mut self, path: &str, measured: &mut Measured) {
        self.row(path, measured, None, None);
    }

    /// A rate beside its limit.
    pub(crate) fn against(&mut self, path: &str, measured: &mut Measured, limit: &Measured, target: Option<Target>) {
        let ratio = measured.against(limit);
        self.row(path, measured, Some((limit.rate(), ratio)), target);
    }

    fn row(&mut self, path: &str, measured: &mut Measured, limit: Option<(f64, f64)>, target: Option<Target>) {
        let of = |value: f64| if value.is_finite() { format!("{value:.0}") } else { String::new() };
        let ratio = limit.map_or_else(String::new, |(_, ratio)| self.judge(path, ratio, target));
        let (p50, p99) = if measured.latencies.is_empty() {
            (String::new(), String::new())
        } else {
            let mut at = |percent| format!("{:.2}", percentile(&mut measured.latencies, percent));
            (at(50), at(99))
        };
        let cpu = if measured.cpu() > 0.0 { format!("{:.1}", measured.cpu()) } else { String::new() };
        let resident = if measured.resident > 0.0 { format!("{:.0}", measured.resident) } else { String::new() };
        let limit = limit.map_or_else(String::new, |(limit, _)| of(limit));
        self.line(path, [format!("{:.0}/s", measured.rate()), limit, ratio, p50, p99, cpu, resident]);
    }

    /// Any other figure, with its unit.
    pub(crate) fn figure(&mut self, path: &str, value: f64, unit: &str, target: Option<Target>) {
        let judged = match target {
            Some(target) => self.judge(path, value, Some(target)),
            None => String::new(),
        };
        let none = String::new;
        self.line(path, [format!("{value:.2} {unit}"), none(), judged, none(), none(), none(), none()]);
    }

    fn judge(&mut self, path: &str, value: f64, target: Option<Target>) -> String {
        let Some(target) = target else { return format!("{value:.2}") };
        let holds = target.holds(value);
        if !holds {
            self.missed.push(format!("{path}: {value:.2}, {}", target.text()));
        }
        format!("{value:.2} ({}){}", target.text(), if holds { "" } else { " !" })
    }

    /// Whether every target was met; says which were not.
    pub(crate) fn end(self) -> bool {
        if self.missed.is_empty() {
            println!("\nall targets met");
        } else {
            println!("\ntargets missed:\n  {}", self.missed.join("\n  "));
        }
        self.missed.is_empty()
    }
}

const TITLES: [&str; 7] = ["figure", "limit", "ratio (target)", "p50 ms", "p99 ms", "CPU us", "MB"];
