//! One line for each thing that was done or found, for people or for programs.

use std::io::{self, Write};
use std::rc::Rc;

use iris_backup::{Progress, watched};
use serde_json::Value;

use super::MaintenanceError;
use super::bar::Bar;
use crate::remote::text::{json_line, visible};

/// How a command answers.
#[derive(Clone, Copy, Default, clap::Args)]
pub struct Manner {
    /// Print one line of JSON for each thing
    #[arg(long, global = true)]
    pub json: bool,
    /// Do not show how far it is
    #[arg(long, global = true)]
    pub quiet: bool,
}

/// Where answers go.
pub(super) struct Output {
    json: bool,
    all: usize,
    failed: usize,
    bar: Rc<Bar>,
}

impl Output {
    pub(super) fn new(manner: Manner) -> Self {
        let bar = if manner.json || manner.quiet { Bar::hidden() } else { Bar::new() };
        Self { json: manner.json, all: 0, failed: 0, bar: Rc::new(bar) }
    }

    /// Does something that takes a while, and shows how far it is.
    pub(super) fn watch<T>(&self, work: impl FnOnce() -> T) -> T {
        let done = watched(Rc::<Bar>::clone(&self.bar), work);
        self.bar.clear();
        done
    }

    /// A project of several is next.
    pub(super) fn project(&self, done: usize, all: usize) {
        self.bar.project(done, all);
    }

    /// Shows how many of several things are done.
    pub(super) fn at(&self, done: usize, all: usize, what: &str) {
        self.bar.at(done, all, what);
    }

    /// Something that went well.
    pub(super) fn done(&mut self, text: &str, value: &Value) -> Result<(), MaintenanceError> {
        self.all += 1;
        self.line(text, value)
    }

    /// Something that did not; the command goes on and fails at its end.
    pub(super) fn failed(&mut self, text: &str, value: &Value) -> Result<(), MaintenanceError> {
        self.all += 1;
        self.failed += 1;
        self.line(text, value)
    }

    /// Something to know, that neither went well nor failed.
    pub(super) fn line(&self, text: &str, value: &Value) -> Result<(), MaintenanceError> {
        let line = if self.json {
            json_line(value).map_err(|error| MaintenanceError::Output(error.into()))?
        } else {
            visible(text)
        };
        self.bar.clear();
        match writeln!(io::stdout(), "{line}") {
            // Who read the output has gone; the work is done all the same.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(MaintenanceError::Output),
        }
    }

    /// Whether all went well.
    pub(super) fn end(self) -> Result<(), MaintenanceError> {
        self.bar.clear();
        if self.failed > 0 {
            return Err(MaintenanceError::Some { failed: self.failed, all: self.all });
        }
        Ok(())
    }
}

/// A number of bytes for people.
pub(super) fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut tenths, mut unit) = (bytes.saturating_mul(10) / 1024, 0);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS.get(unit).unwrap_or(&"TiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_in_their_largest_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (5 << 30, "5.0 GiB"),
            (3 << 50, "3072.0 TiB"),
        ] {
            assert_eq!(bytes_text(bytes), text);
        }
    }
}
