//! Generated runs: hostile ones, where anything happens at any time, and legal ones, which answer
//! what is pending and so get deep enough to reach every limit. [`Driver`] checks the invariants.

use std::collections::BTreeSet;

use iris_agent::{Input, RetryLimits, Summary, ToolOutcome, TurnLimits, Verdict};
use iris_protocol::{ApiError, ErrorCode, FinishReason, StreamKind, ToolCallId, Usage};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::json;

use crate::driver::{Driver, Pending};
use crate::script::{
    approved, asks, asks_people, call_id, completed, denies, disk_full, hopeless, refuses,
};

proptest! {
    #[test]
    fn invariants_hold_whatever_happens(
        is_started in any::<bool>(),
        operations in vec((hostile_input(), prop::bool::weighted(0.02)), 0..80),
        crashes in vec(any::<Index>(), 0..3),
    ) {
        let limits = TurnLimits {
            steps_max: 4,
            calls_per_step_max: 2,
            step_text_bytes_max: 24,
            unusable_steps_max: 2,
            same_steps_max: 100,
            same_calls_max: 100,
            idle_steps_max: 3,
            retry: RetryLimits { attempts_max: 2, ..RetryLimits::default() },
        };
        let mut driver = Driver::new(limits);
        if is_started {
            driver.feed(Input::Started, false);
        }
        let crashes: Vec<_> = crashes.iter().map(|crash| crash.index(80)).collect();
        for (position, (input, record_fails)) in operations.into_iter().enumerate() {
            if crashes.contains(&position) {
                driver.crash();
            }
            driver.feed(input, record_fails);
        }
        driver.feed(Input::CancelRequested, false);
        prop_assert!(driver.end().is_some());
    }

    #[test]
    fn invariants_hold_when_everything_pending_is_answered(plan in plan()) {
        prop_assert!(play(plan).end().is_some());
    }
}

/// Without this the property above could pass by never getting anywhere.
#[test]
fn legal_runs_reach_every_ending() {
    let mut runner = TestRunner::deterministic();
    let mut endings = BTreeSet::new();
    for _ in 0..512 {
        let plan = plan().new_tree(&mut runner).unwrap().current();
        let driver = play(plan);
        let end = driver.end().unwrap();
        let reason = end.error.as_ref().map(|error| match error.details.get("reason") {
            Some(reason) => reason.to_string(),
            None => error.code.to_string(),
        });
        endings.insert(format!("{:?} {}", end.finish_reason, reason.unwrap_or_default()));
    }
    let expected = [
        "Budget \"budget_used_up\"",
        "Cancelled ",
        "ContentFilter ",
        "Error \"compaction_no_gain\"",
        "Error \"context_overflow\"",
        "Error \"output_limit\"",
        "Error \"tool_args_invalid\"",
        "Error PROVIDER_ERROR",
        "Error STORAGE_FULL",
        "Length ",
        "Steps ",
        "Stop ",
        "ToolCalls ",
    ];
    assert!(endings.iter().eq(&expected), "{endings:?}");
}

fn hostile_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        1 => Just(Input::Started),
        12 => text(),
        12 => call(),
        4 => usage(),
        8 => any_finish_reason().prop_map(Input::ModelFinished),
        8 => any_call_id().prop_map(approved),
        4 => any_call_id().prop_map(Input::CallSettled),
        12 => (any_call_id(), outcome())
            .prop_map(|(call_id, outcome)| Input::ToolEnded { call_id, outcome }),
        1 => Just(fails_for_good()),
        2 => any::<bool>().prop_map(fails_for_now),
        2 => Just(Input::RetryDue),
        1 => Just(budget_used_up()),
        2 => any::<bool>().prop_map(too_long),
        3 => any::<bool>().prop_map(summarized),
        1 => Just(Input::CancelRequested),
        1 => Just(Input::RecordFailed(disk_full())),
    ]
}

/// A whole run in advance: what the model says and how others answer.
#[derive(Debug, Clone)]
struct Plan {
    limits: TurnLimits,
    /// One for each model call; after them the model says nothing and stops.
    steps: Vec<StepPlan>,
    /// Which of the pending calls is next, and whether it is answered well; used round and round.
    answers: Vec<(Index, bool)>,
    /// Happens in place of the input with this number.
    accident: Option<(usize, Accident)>,
    /// The server stops before the inputs with these numbers.
    crashes: Vec<usize>,
}

#[derive(Debug, Clone)]
struct StepPlan {
    /// What is between the question and a summary, when there is one.
    summary: Vec<Input>,
    stream: Vec<Input>,
    finish_reason: FinishReason,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Accident {
    Cancel,
    ModelFails,
    /// The model must not be asked any more.
    BudgetIsUsedUp,
    /// It is asked again.
    ModelFailsForNow,
    /// The first record from then on.
    RecordFails,
}

/// Feeds a plan's inputs and counts them for its accident and its crashes.
struct Player {
    driver: Driver,
    accident: Option<(usize, Accident)>,
    crashes: Vec<usize>,
    inputs: usize,
}

fn play(plan: Plan) -> Driver {
    let Plan { limits, accident, crashes, .. } = plan;
    let mut player = Player { driver: Driver::new(limits), accident, crashes, inputs: 0 };
    let mut answers = plan.answers.into_iter().cycle();
    let silence =
        StepPlan { summary: Vec::new(), stream: Vec::new(), finish_reason: FinishReason::Stop };
    player.feed(Input::Started);
    for step in plan.steps.into_iter().chain([silence]) {
        if !player.driver.model_is_asked() {
            break;
        }
        step.summary.into_iter().for_each(|input| player.feed(input));
        step.stream.into_iter().for_each(|input| player.feed(input));
        player.feed(Input::ModelFinished(step.finish_reason));
        player.answer_calls(&mut answers);
    }
    player.driver
}

impl Player {
    fn feed(&mut self, input: Input) {
        let accident = self.accident.filter(|(position, _)| *position <= self.inputs);
        let accident = accident.map(|(_, accident)| accident);
        if self.crashes.contains(&self.inputs) {
            self.driver.crash();
        }
        self.inputs += 1;
        match accident {
            Some(Accident::Cancel) => self.driver.feed(Input::CancelRequested, false),
            Some(Accident::ModelFails) if self.driver.model_is_asked() => {
                self.driver.feed(fails_for_good(), false);
            }
            Some(Accident::BudgetIsUsedUp) if self.driver.model_is_asked() => {
                self.driver.feed(budget_used_up(), false);
            }
            Some(Accident::ModelFailsForNow) if self.driver.model_is_asked() => {
                self.accident = None;
                self.driver.feed(fails_for_now(false), false);
                self.driver.feed(Input::RetryDue, false);
                self.driver.feed(input, false);
            }
            Some(Accident::RecordFails) => self.driver.feed(input, true),
            Some(Accident::ModelFails | Accident::BudgetIsUsedUp | Accident::ModelFailsForNow)
            | None => {
                self.driver.feed(input, false);
            }
        }
    }

    fn answer_calls(&mut self, answers: &mut impl Iterator<Item = (Index, bool)>) {
        loop {
            let pending = self.driver.pending();
            if pending.is_empty() || self.driver.end().is_some() {
                return;
            }
            let Some((index, is_good)) = answers.next() else { return };
            let Pending { id, is_waiting } = index.get(&pending);
            let (call_id, output) = (id.clone(), completed("text"));
            self.feed(match (is_waiting, is_good) {
                (true, true) => approved(call_id),
                (true, false) => Input::CallSettled(call_id),
                (false, true) => Input::ToolEnded { call_id, outcome: output },
                (false, false) => Input::ToolEnded { call_id, outcome: failed() },
            });
        }
    }
}

fn plan() -> impl Strategy<Value = Plan> {
    let limits = (1..8_u32, 1..4_usize, 6..16_usize, 1..4_u32).prop_map(
        |(steps_max, calls_per_step_max, step_text_bytes_max, unusable_steps_max)| TurnLimits {
            steps_max,
            calls_per_step_max,
            step_text_bytes_max,
            unusable_steps_max,
            same_steps_max: 100,
            same_calls_max: 100,
            idle_steps_max: 3,
            retry: RetryLimits { attempts_max: 2, ..RetryLimits::default() },
        },
    );
    let accident = select(vec![
        Accident::Cancel,
        Accident::ModelFails,
        Accident::BudgetIsUsedUp,
        Accident::ModelFailsForNow,
        Accident::RecordFails,
    ]);
    let accident = prop::option::weighted(0.3, (0..40_usize, accident));
    let answers = vec((any::<Index>(), prop::bool::weighted(0.8)), 1..8);
    let crashes = vec(1..40_usize, 0..3);
    (limits, vec(step_plan(), 0..8), answers, accident, crashes).prop_map(
        |(limits, steps, answers, accident, crashes)| Plan {
            limits,
            steps,
            answers,
            accident,
            crashes,
        },
    )
}

fn step_plan() -> impl Strategy<Value = StepPlan> {
    let works = (vec(prop_oneof![4 => text(), 3 => call(), 1 => usage()], 0..6), call())
        .prop_map(|(stream, call)| stream.into_iter().chain([call]).collect());
    let talks = vec(prop_oneof![4 => text(), 1 => usage()], 0..4);
    let fumbles = vec(refused_call(), 1..3);
    let stream = prop_oneof![8 => works, 1 => talks, 4 => fumbles];
    let summary = (
        vec(prop_oneof![4 => any::<bool>().prop_map(too_long), 1 => usage()], 1..8),
        any::<bool>(),
    )
        .prop_map(|(inputs, is_good)| inputs.into_iter().chain([summarized(is_good)]).collect());
    let summary = prop_oneof![6 => Just(Vec::new()), 1 => summary];
    (summary, stream, finish_reason()).prop_map(|(summary, stream, finish_reason)| StepPlan {
        summary,
        stream,
        finish_reason,
    })
}

fn budget_used_up() -> Input {
    let error = ApiError::new(ErrorCode::BudgetExceeded, "used up").reason("budget_used_up");
    Input::BudgetExceeded(error)
}

fn text() -> impl Strategy<Value = Input> {
    let kind = select(vec![StreamKind::Text, StreamKind::Reasoning]);
    let text = select(vec!["", "a", "bc", "é", "d\n", "🌱"]);
    (kind, 0..3_u32, text).prop_map(|(kind, index, text)| Input::TextArrived {
        kind,
        index,
        text: text.to_owned(),
    })
}

fn call() -> impl Strategy<Value = Input> {
    let verdict = select(vec![
        Verdict::Run,
        Verdict::Run,
        asks(),
        asks_people(),
        denies("a rule says no"),
        refuses("bad arguments"),
    ]);
    call_with(verdict)
}

fn refused_call() -> impl Strategy<Value = Input> {
    call_with(Just(refuses("bad arguments")))
}

fn call_with(verdict: impl Strategy<Value = Verdict>) -> impl Strategy<Value = Input> {
    let tool_name = select(vec!["read", "write"]);
    (tool_name, any::<u8>(), verdict).prop_map(|(tool_name, number, verdict)| Input::CallArrived {
        part_id: None,
        tool_name: tool_name.to_owned(),
        input: json!({ "number": number }),
        verdict,
        opaque: None,
    })
}

fn usage() -> impl Strategy<Value = Input> {
    (0..100_u64, 0..100_u64).prop_map(|(input_tokens, output_tokens)| {
        Input::UsageArrived(Usage { input_tokens, output_tokens, ..Usage::default() })
    })
}

fn outcome() -> impl Strategy<Value = ToolOutcome> {
    select(vec![completed("text"), failed()])
}

fn finish_reason() -> impl Strategy<Value = FinishReason> {
    prop_oneof![
        6 => Just(FinishReason::ToolCalls),
        2 => Just(FinishReason::Stop),
        2 => Just(FinishReason::Length),
        1 => Just(FinishReason::ContentFilter),
    ]
}

fn any_finish_reason() -> impl Strategy<Value = FinishReason> {
    let never_said = select(vec![
        FinishReason::Cancelled,
        FinishReason::Error,
        FinishReason::Budget,
        FinishReason::Steps,
    ]);
    prop_oneof![20 => finish_reason(), 1 => never_said]
}

/// The ids are counted, so that small numbers name parts, steps and, often enough, calls.
fn any_call_id() -> impl Strategy<Value = ToolCallId> {
    (1..24_u128).prop_map(call_id)
}

fn failed() -> ToolOutcome {
    ToolOutcome::Failed { error: "no such file".to_owned() }
}

fn too_long(is_told: bool) -> Input {
    let error = ApiError::new(ErrorCode::ProviderError, "it is too long");
    Input::ContextFull { error: is_told.then(|| error.reason("context_overflow")) }
}

fn summarized(is_good: bool) -> Input {
    Input::Summarized(Summary {
        text: "what was said".to_owned(),
        replaced: 2,
        kept_steps: 0,
        tokens_before: 100,
        tokens_after: if is_good { 10 } else { 100 },
    })
}

fn fails_for_good() -> Input {
    Input::ModelFailed { error: hopeless(), has_fallback: true }
}

fn fails_for_now(has_fallback: bool) -> Input {
    let error = ApiError::new(ErrorCode::ProviderError, "the stream was cut");
    Input::ModelFailed { error, has_fallback }
}
