//! A cancel in every state of a run: what is open is stopped, nothing begins after it, and it is the end.

use iris_agent::{Effect, Input, TurnLimits, Verdict};
use iris_protocol::{ApiError, ErrorCode, FinishReason, RunStatus, ToolCallId};

use crate::script::{Scene, answers, approved, asks, asks_people, call_id, calls, finishes, says};

/// What is open when the cancel comes.
#[derive(Debug, PartialEq)]
struct Open {
    model: bool,
    /// Calls that run, in order.
    tools: Vec<ToolCallId>,
}

fn open(model: bool, tools: &[u128]) -> Open {
    Open { model, tools: tools.iter().map(|bits| call_id(*bits)).collect() }
}

/// A step with a call that runs, one that waits for a yes, one that asks, and one more that runs. Their own
/// ids are 2, 4, 6 and 8.
fn four_calls() -> Vec<Input> {
    vec![
        calls("read", Verdict::Run),
        calls("write", asks()),
        calls("question", asks_people()),
        calls("read", Verdict::Run),
        finishes(FinishReason::ToolCalls),
    ]
}

fn fails_for_now() -> Input {
    let error = ApiError::new(ErrorCode::ProviderError, "the stream was cut");
    Input::ModelFailed { error, has_fallback: false }
}

/// Every state that a run passes through, by what led there.
fn states() -> Vec<(&'static str, Vec<Input>, Open)> {
    let after = |more: Vec<Input>| four_calls().into_iter().chain(more).collect::<Vec<_>>();
    vec![
        ("the model is asked", vec![], open(true, &[])),
        ("the model speaks", vec![says("one")], open(true, &[])),
        ("the model called", vec![calls("read", Verdict::Run)], open(true, &[])),
        ("between two attempts", vec![says("one"), fails_for_now()], open(false, &[])),
        ("asked again", vec![fails_for_now(), Input::RetryDue], open(true, &[])),
        ("all calls are open", four_calls(), open(false, &[2, 8])),
        ("one has ended", after(vec![answers(2, "text")]), open(false, &[8])),
        ("one was approved", after(vec![approved(call_id(4))]), open(false, &[2, 4, 8])),
        ("one was refused", after(vec![Input::CallSettled(call_id(4))]), open(false, &[2, 8])),
        (
            "only people are waited for",
            after(vec![answers(2, "text"), answers(8, "text")]),
            open(false, &[]),
        ),
        (
            "the next step",
            after(vec![
                answers(2, "text"),
                Input::CallSettled(call_id(4)),
                Input::CallSettled(call_id(6)),
                answers(8, "text"),
                says("two"),
            ]),
            open(true, &[]),
        ),
    ]
}

#[test]
fn a_cancel_in_every_state_stops_what_is_open_and_ends_the_run() {
    for (state, inputs, expected) in states() {
        let mut scene = Scene::started_with(TurnLimits::default());
        for input in inputs {
            scene.step(input);
        }
        let effects = scene.step(Input::CancelRequested);
        let Some((Effect::End(end), stops)) = effects.split_last() else {
            panic!("{state}: {effects:?}")
        };
        assert_eq!(
            (end.status, end.finish_reason, end.error.is_none()),
            (RunStatus::Cancelled, FinishReason::Cancelled, true),
            "{state}"
        );
        let model = stops.contains(&Effect::AbortModel);
        let tools: Vec<_> = stops
            .iter()
            .filter_map(
                |stop| if let Effect::AbortTool(id) = stop { Some(id.clone()) } else { None },
            )
            .collect();
        // Nothing but that is done.
        assert_eq!(stops.len(), tools.len() + usize::from(model), "{state}: {stops:?}");
        assert_eq!(Open { model, tools }, expected, "{state}");
        assert!(scene.is_ended(), "{state}");
        // Whatever comes late changes nothing.
        let late = [
            answers(2, "late"),
            approved(call_id(4)),
            Input::CallSettled(call_id(6)),
            says("late"),
            finishes(FinishReason::Stop),
            Input::RetryDue,
            Input::CancelRequested,
        ];
        for input in late {
            assert_eq!(scene.step(input), [], "{state}");
        }
    }
}
