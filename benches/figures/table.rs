//! Samples become figures, figures become a table.

use std::fs;
use std::io::{self, Write};
use std::thread::available_parallelism;
use std::time::Duration;

/// Something that was measured several times.
pub(crate) struct Figure {
    /// What it is.
    pub(crate) name: &'static str,
    /// The median has to stay below it; nothing is asked of a figure without one.
    pub(crate) target: Option<f64>,
    /// Behind each number.
    pub(crate) unit: &'static str,
    /// Not empty.
    pub(crate) samples: Vec<f64>,
    /// What else was measured, in words.
    pub(crate) comparison: String,
}

impl Figure {
    /// Whether the target, if there is one, is met.
    pub(crate) fn is_met(&self) -> bool {
        self.target.is_none_or(|target| median(&self.samples) < target)
    }

    fn verdict(&self) -> &'static str {
        match (self.target, self.is_met()) {
            (None, _) => "",
            (Some(_), true) => "met",
            (Some(_), false) => "MISSED",
        }
    }
}

/// The middle one of some samples; not a number when there are none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    match (sorted.get(low), sorted.get(high)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        (None, _) | (_, None) => f64::NAN,
    }
}

/// Digits after the point that tell small values apart.
fn decimals(value: f64) -> usize {
    if value.abs() < 10.0 { 2 } else { 1 }
}

/// Milliseconds with their fraction.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Says how busy the machine is: on one that is not idle, waiting for a processor is in each figure.
pub(crate) fn print_machine() -> io::Result<()> {
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split_whitespace().next().unwrap_or_default();
    let processors = available_parallelism()?;
    writeln!(io::stdout(), "\n{processors} processors, load average {load} before the first figure")
}

/// Prints one line a figure.
pub(crate) fn print(figures: &[Figure]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "\n{:<46}{:>10}{:>10}{:>10}{:>10}  {:<7} compared with, in this run",
        "figure", "target", "median", "min", "max", ""
    )?;
    for figure in figures {
        let with_unit = |value: f64| format!("{value:.*} {}", decimals(value), figure.unit);
        let target = figure.target.map(|target| format!("< {target} {}", figure.unit));
        let min = figure.samples.iter().copied().fold(f64::INFINITY, f64::min);
        let max = figure.samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        writeln!(
            out,
            "{:<46}{:>10}{:>10}{:>10}{:>10}  {:<7} {}",
            figure.name,
            target.unwrap_or_default(),
            with_unit(median(&figure.samples)),
            with_unit(min),
            with_unit(max),
            figure.verdict(),
            figure.comparison,
        )?;
    }
    Ok(())
}
