//! Whether a run gets anywhere: a model that makes the same calls and reads the same results again and
//! again is in a loop, and would be until its steps are used up.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use iris_protocol::{ToolPart, ToolState};
use serde_json::Value;

/// Steps that are remembered: so many show every loop that is looked for, but for longer rows of the same.
const KEPT_MIN: usize = 4;

/// What the calls of the last steps were and what came of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Progress {
    /// The newest last. None for a step that cannot be compared.
    steps: VecDeque<Option<Step>>,
    /// The step whose results are coming in.
    open: Open,
}

/// Digests: equal where everything was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    /// Of all calls, in any order.
    asked: u64,
    /// The same with their results.
    calls: u64,
    /// Of the errors, where all calls failed.
    errors: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Open {
    count: usize,
    failed: usize,
    asked: u64,
    calls: u64,
    errors: u64,
    is_incomparable: bool,
}

/// How a run goes round in circles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loop {
    /// The same calls with the same results, step after step.
    Same,
    /// The same calls, step after step, whatever comes of them.
    SameCalls,
    /// Two steps in turns, each time with the same results.
    Alternating,
    /// Calls that all fail for the same reason, step after step.
    SameError,
    /// Steps that go on and call nothing; whoever counts the steps finds it.
    Monologue,
}

impl Loop {
    /// For people and for whoever goes on with the conversation.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Same => "the model makes the same calls again and again, with the same results",
            Self::SameCalls => {
                "the model makes the same calls again and again, whatever comes of them"
            }
            Self::Alternating => {
                "the model makes the same two steps in turns, with the same results"
            }
            Self::SameError => {
                "the model makes calls that fail for the same reason again and again"
            }
            Self::Monologue => {
                "the model goes on again and again without calling a tool or coming to an end"
            }
        }
    }
}

impl Progress {
    /// A call of the open step is recorded, maybe with its result.
    pub(crate) fn note_recorded(&mut self, call: &ToolPart) {
        let said = |text: &Option<String>| text.clone().unwrap_or_default();
        match call.state {
            ToolState::Pending | ToolState::Waiting | ToolState::Running => {}
            ToolState::Completed => {
                self.note(&call.tool_name, &call.input, Ok(&said(&call.output)));
            }
            ToolState::Error | ToolState::Denied => {
                self.note(&call.tool_name, &call.input, Err(&said(&call.error)));
            }
            ToolState::Cancelled | ToolState::UnknownOutcome => self.note_incomparable(),
        }
    }

    /// A call of the open step has its result.
    pub(crate) fn note(&mut self, tool_name: &str, input: &Value, result: Result<&str, &str>) {
        let open = &mut self.open;
        open.count += 1;
        let input = input.to_string();
        // Sums do not depend on the order in which results come.
        open.asked = open.asked.wrapping_add(digest(&(tool_name, &input)));
        open.calls = open.calls.wrapping_add(digest(&(tool_name, &input, result)));
        if let Err(error) = result {
            open.failed += 1;
            open.errors = open.errors.wrapping_add(digest(&(tool_name, error)));
        }
    }

    /// A call of the open step has a result that is never the same, such as what people answered.
    pub(crate) fn note_incomparable(&mut self) {
        self.open.count += 1;
        self.open.is_incomparable = true;
    }

    /// The open step is of no interest.
    pub(crate) fn drop_step(&mut self) {
        self.open = Open::default();
    }

    /// All calls of the open step have their results. Says whether the run is in a loop, which `same_max`
    /// steps in a row show, or `calls_max` that only ask the same.
    pub(crate) fn end_step(&mut self, same_max: usize, calls_max: usize) -> Option<Loop> {
        let open = std::mem::take(&mut self.open);
        if open.count == 0 {
            return None;
        }
        let errors = (open.failed == open.count).then_some(open.errors);
        let step = Step { asked: open.asked, calls: open.calls, errors };
        self.steps.push_back((!open.is_incomparable).then_some(step));
        if self.steps.len() > same_max.max(calls_max).max(KEPT_MIN) {
            self.steps.pop_front();
        }
        self.found(same_max, calls_max)
    }

    fn found(&self, same_max: usize, calls_max: usize) -> Option<Loop> {
        let newest_first: Vec<Option<Step>> = self.steps.iter().rev().copied().collect();
        let newest = (*newest_first.first()?)?;
        let is_row = |length: usize, is_same: &dyn Fn(Step) -> bool| {
            let row = newest_first.get(..length.max(2));
            row.is_some_and(|row| row.iter().all(|step| step.is_some_and(is_same)))
        };
        if is_row(same_max, &|step| step.calls == newest.calls) {
            return Some(Loop::Same);
        }
        if newest.errors.is_some() && is_row(same_max, &|step| step.errors == newest.errors) {
            return Some(Loop::SameError);
        }
        if is_row(calls_max, &|step| step.asked == newest.asked) {
            return Some(Loop::SameCalls);
        }
        match newest_first[..] {
            [Some(b), Some(a), Some(d), Some(c), ..]
                if a == c && b == d && a != b && same_max <= KEPT_MIN =>
            {
                Some(Loop::Alternating)
            }
            _ => None,
        }
    }
}

fn digest(of: &impl Hash) -> u64 {
    // Its keys are always the same ones.
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Plays steps of one call each, which answers what stands behind the `=`, or fails with what stands
    /// behind the `!`.
    fn play(steps: &str) -> Option<Loop> {
        let mut progress = Progress::default();
        let mut found = None;
        for step in steps.split(' ') {
            assert_eq!(found, None, "{step} came after the end of {steps}");
            if let Some((input, output)) = step.split_once('=') {
                progress.note("read", &json!(input), Ok(output));
            } else if let Some((input, error)) = step.split_once('!') {
                progress.note("read", &json!(input), Err(error));
            } else {
                progress.note_incomparable();
            }
            found = progress.end_step(3, 8);
        }
        found
    }

    #[test]
    fn the_same_calls_with_the_same_results_are_a_loop() {
        assert_eq!(play("a=1 a=1 a=1"), Some(Loop::Same));
        assert_eq!(play("b=1 a!1 a!1 a!1"), Some(Loop::Same));
        assert_eq!(play("a=1 a=1 b=1 a=1 a=1"), None);
        // Somebody waits for something that changes.
        assert_eq!(play("a=1 a=2 a=3 a=4 a=5"), None);
    }

    #[test]
    fn the_same_calls_are_a_loop_in_the_end_whatever_comes_of_them() {
        assert_eq!(play("a=1 a=2 a=3 a=4 a=5 a!6 a=7 a=8"), Some(Loop::SameCalls));
        assert_eq!(play("a=1 a=2 a=3 a=4 a=5 a=6 a=7 b=8 a=9"), None);
        assert_eq!(play("a=1 a=2 a=3 a=4 ? a=5 a=6 a=7 a=8"), None);
    }

    #[test]
    fn two_steps_in_turns_are_a_loop() {
        assert_eq!(play("c=3 a=1 b=2 a=1 b=2"), Some(Loop::Alternating));
        assert_eq!(play("a=1 b=2 a=1 b=3"), None);
        assert_eq!(play("a=1 b=2 c=1 b=2"), None);
    }

    #[test]
    fn the_same_error_again_and_again_is_a_loop() {
        assert_eq!(play("a!no b!no c!no"), Some(Loop::SameError));
        assert_eq!(play("a!no b!other c!no"), None);
        assert_eq!(play("a!no b=no c!no d!no"), None);
    }

    #[test]
    fn what_people_answer_is_never_the_same() {
        assert_eq!(play("? ? ? ? ?"), None);
        assert_eq!(play("a=1 a=1 ? a=1 a=1"), None);
    }

    #[test]
    fn the_order_of_results_does_not_matter_and_dropped_steps_do_not_count() {
        let mut progress = Progress::default();
        for turn in 0..3 {
            assert_eq!(progress.end_step(3, 8), None);
            let calls = [("a", Ok("1")), ("b", Err("2"))];
            for at in [turn % 2, (turn + 1) % 2] {
                progress.note(calls[at].0, &json!({}), calls[at].1);
            }
            let found = progress.end_step(3, 8);
            assert_eq!(found, (turn == 2).then_some(Loop::Same));
            progress.note("c", &json!({}), Err("no"));
            progress.drop_step();
        }
    }
}
