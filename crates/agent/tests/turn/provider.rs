//! What providers want back with what they say, tools that they run themselves, and their pauses.

use iris_agent::{
    Effect, Input, OPAQUE_BYTES_MAX, Opaque, ProviderTool, StepPart, TurnLimits, Verdict,
};
use iris_protocol::{FinishReason, PartId, RunStatus, StreamKind, ToolPart, ToolState};

use crate::script::{Scene, arguments, call_id, call_part, calls, end, finishes, run, says, show};
use crate::script::{step_end, text_part};

fn opaque(json: &str) -> Opaque {
    Opaque { kind: "k".into(), json: json.into() }
}

fn wants_back(kind: StreamKind, index: u32, json: &str) -> Input {
    Input::OpaqueArrived { kind, index, opaque: opaque(json) }
}

fn searched(is_error: bool) -> Input {
    Input::ProviderToolArrived(ProviderTool {
        tool_name: "web_search".into(),
        input: arguments(),
        output: "found".into(),
        is_error,
        opaque: Some(opaque("[1]")),
    })
}

/// The part of [`searched`].
fn search_part(part: u128, is_error: bool) -> StepPart {
    let StepPart::Call { part, .. } = call_part(part, "web_search", Verdict::Run) else {
        unreachable!()
    };
    let found = Some("found".to_owned());
    let (state, output, error) = if is_error {
        (ToolState::Error, None, found)
    } else {
        (ToolState::Completed, found, None)
    };
    let part = ToolPart { state, output, error, provider_executed: true, ..part };
    StepPart::Call { part, wait: None, opaque: Some(opaque("[1]")) }
}

#[test]
fn what_the_provider_wants_back_is_recorded_with_its_part() {
    let mut scene = Scene::started();
    assert_eq!(scene.step(wants_back(StreamKind::Reasoning, 0, "{}")), []);
    assert_eq!(
        scene.step(Input::TextArrived { kind: StreamKind::Text, index: 1, text: "hi".into() }),
        [show(2, 0, "hi")]
    );
    assert_eq!(scene.step(wants_back(StreamKind::Text, 1, "\"old\"")), []);
    assert_eq!(scene.step(wants_back(StreamKind::Text, 1, "\"new\"")), []);
    scene.step(Input::CallArrived {
        part_id: None,
        tool_name: "read".into(),
        input: arguments(),
        verdict: Verdict::Run,
        opaque: Some(opaque("3")),
    });

    let StepPart::Call { part, wait, .. } = call_part(3, "read", Verdict::Run) else {
        unreachable!()
    };
    let parts = vec![
        StepPart::Text {
            id: PartId::from_bits(1),
            kind: StreamKind::Reasoning,
            text: String::new(),
            opaque: Some(opaque("{}")),
        },
        StepPart::Text {
            id: PartId::from_bits(2),
            kind: StreamKind::Text,
            text: "hi".into(),
            opaque: Some(opaque("\"new\"")),
        },
        StepPart::Call { part, wait, opaque: Some(opaque("3")) },
    ];
    let step = step_end(5, 0, FinishReason::ToolCalls);
    let effects = scene.step(finishes(FinishReason::ToolCalls));
    assert_eq!(effects, [Effect::RecordStep { parts, step }, run(4, "read")]);
}

#[test]
fn tool_that_the_provider_ran_never_runs_here_and_ends_no_step() {
    for is_error in [false, true] {
        let mut scene = Scene::started();
        assert_eq!(scene.step(searched(is_error)), []);
        scene.step(says("It is so."));

        let parts = vec![search_part(1, is_error), text_part(3, "It is so.")];
        let step = Some(step_end(4, 0, FinishReason::Stop));
        let end = end(RunStatus::Completed, FinishReason::Stop);
        let end = iris_agent::TurnEnd { parts, step, ..end };
        assert_eq!(scene.step(finishes(FinishReason::Stop)), [Effect::End(end)]);
    }
}

#[test]
fn tools_of_the_provider_do_not_count_as_calls() {
    let limits = TurnLimits { calls_per_step_max: 1, ..TurnLimits::default() };
    let mut scene = Scene::started_with(limits);
    scene.step(searched(false));
    scene.step(calls("read", Verdict::Run));

    let parts = vec![search_part(1, false), call_part(3, "read", Verdict::Run)];
    let step = step_end(5, 0, FinishReason::ToolCalls);
    let effects = scene.step(finishes(FinishReason::ToolCalls));
    assert_eq!(effects, [Effect::RecordStep { parts, step }, run(4, "read")]);
}

#[test]
fn what_the_provider_did_is_kept_when_the_run_is_cancelled() {
    let mut scene = Scene::started();
    scene.step(searched(false));
    scene.step(calls("read", Verdict::Run));

    let end = end(RunStatus::Cancelled, FinishReason::Cancelled);
    let end = iris_agent::TurnEnd { parts: vec![search_part(1, false)], ..end };
    let effects = scene.step(Input::CancelRequested);
    assert_eq!(effects, [Effect::AbortModel, Effect::End(end)]);
}

#[test]
fn provider_that_paused_is_asked_again_within_the_limits_of_the_run() {
    let limits = TurnLimits { steps_max: 3, unusable_steps_max: 1, ..TurnLimits::default() };
    let mut scene = Scene::started_with(limits);
    for index in 0..3_u32 {
        scene.step(searched(false));
        let id = 1 + 3 * u128::from(index);
        let parts = vec![search_part(id, false)];
        let step = step_end(id + 2, index, FinishReason::Stop);
        let next = if index == 2 {
            Effect::End(end(RunStatus::Completed, FinishReason::Steps))
        } else {
            Effect::CallModel
        };
        let effects = scene.step(Input::ModelPaused);
        assert_eq!(effects, [Effect::RecordStep { parts, step }, next]);
    }
}

#[test]
fn what_the_provider_wants_back_counts_as_what_the_model_says() {
    let limits = TurnLimits { step_text_bytes_max: 8, ..TurnLimits::default() };
    let fails = |scene: &mut Scene, input| {
        let effects = scene.step(input);
        let Some(Effect::End(end)) = effects.last() else { panic!("goes on: {effects:?}") };
        assert_eq!(end.error.as_ref().unwrap().details["reason"], "output_limit");
    };
    let mut scene = Scene::started_with(limits);
    scene.step(wants_back(StreamKind::Text, 0, "12345"));
    fails(&mut scene, says("1234"));
    let mut scene = Scene::started_with(limits);
    scene.step(says("12345"));
    fails(&mut scene, wants_back(StreamKind::Text, 0, "1234"));
    let mut scene = Scene::started_with(limits);
    scene.step(searched(false));
    fails(&mut scene, searched(false));

    let mut scene = Scene::started();
    let long = "1".repeat(OPAQUE_BYTES_MAX + 1);
    fails(&mut scene, wants_back(StreamKind::Text, 0, &long));
    assert_eq!(scene.step(Input::CallSettled(call_id(1))), []);
}
