//! How far long work is, on standard error where that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use iris_backup::{Progress, Stage};

const BYTES: &str = "{prefix}{msg} [{bar:30}] {bytes} of {total_bytes}, {eta} left";
const COUNT: &str = "{prefix}{msg} [{bar:30}] {pos} of {len}";

/// One line that comes and goes.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new(0);
        bar.set_style(style(BYTES));
        Self(bar)
    }

    pub(super) fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// Takes the line away, until there is something else to show.
    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }

    /// So many of several things are done.
    pub(super) fn at(&self, done: usize, all: usize, what: &str) {
        self.0.reset();
        self.0.set_style(style(COUNT));
        self.0.set_length(all as u64);
        self.0.set_message(what.to_owned());
        self.0.set_position(done as u64);
        self.0.tick();
    }
}

impl Progress for Bar {
    fn project(&self, done: usize, all: usize) {
        self.0.set_prefix(format!("project {} of {all}: ", done + 1));
    }

    fn begin(&self, stage: Stage, bytes: u64) {
        self.0.reset();
        self.0.set_style(style(BYTES));
        self.0.set_length(bytes);
        self.0.set_message(match stage {
            Stage::Writing => "writing",
            Stage::Reading => "reading",
        });
        self.0.tick();
    }

    fn passed(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

/// A template that cannot be read would be a mistake here: the plain bar is shown then.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_can_be_read() {
        for template in [BYTES, COUNT] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
