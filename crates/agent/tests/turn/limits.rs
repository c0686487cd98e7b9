//! Each limit of a run, reached (INV-7).

use iris_agent::{Effect, Input, TurnEnd, TurnLimits, Verdict};
use iris_protocol::{ApiError, ErrorCode, FinishReason, RunStatus, Usage};

use crate::script::{
    Scene, answers, asks, call_id, call_part, calls, end, end_failed, finishes, record_result,
    refuses, run, says, says_in, show, step_end, text_part,
};

#[test]
fn run_ends_after_steps_max_model_calls() {
    let mut scene = Scene::started_with(TurnLimits { steps_max: 2, ..TurnLimits::default() });
    scene.step(calls("read", Verdict::Run));
    scene.step(finishes(FinishReason::ToolCalls));
    assert_eq!(scene.step(answers(2, "text")), [record_result(2, "text"), Effect::CallModel]);

    scene.step(calls("read", Verdict::Run));
    scene.step(finishes(FinishReason::ToolCalls));
    // The last tools still ran and their results are recorded (INV-3).
    let end = Effect::End(end(RunStatus::Completed, FinishReason::Steps));
    assert_eq!(scene.step(answers(5, "text")), [record_result(5, "text"), end]);
}

#[test]
fn run_ends_after_steps_max_model_calls_when_the_last_call_is_denied() {
    let mut scene = Scene::started_with(TurnLimits { steps_max: 1, ..TurnLimits::default() });
    scene.step(calls("write", asks()));
    scene.step(finishes(FinishReason::ToolCalls));

    let end = Effect::End(end(RunStatus::Completed, FinishReason::Steps));
    assert_eq!(scene.step(Input::CallSettled(call_id(2))), [end]);
}

#[test]
fn a_run_that_makes_the_same_calls_with_the_same_results_fails() {
    let mut scene = Scene::started();
    for n in 0..3 {
        scene.step(calls("read", Verdict::Run));
        scene.step(finishes(FinishReason::ToolCalls));
        let effects = scene.step(answers(3 * n + 2, "text"));
        let [Effect::RecordResult { .. }, after] = &effects[..] else { panic!("{effects:?}") };
        if n < 2 {
            assert_eq!(*after, Effect::CallModel);
            continue;
        }
        let Effect::End(end) = after else { panic!("{after:?}") };
        let error = end.error.as_ref().unwrap();
        assert_eq!((&error.details["reason"], error.retryable), (&"loop".into(), false));
    }
    assert!(scene.is_ended());
}

#[test]
fn a_run_whose_budget_is_used_up_asks_no_model_any_more() {
    let mut scene = Scene::started();
    scene.step(calls("read", Verdict::Run));
    scene.step(finishes(FinishReason::ToolCalls));
    assert_eq!(scene.step(answers(2, "text")), [record_result(2, "text"), Effect::CallModel]);
    let error = ApiError::new(ErrorCode::BudgetExceeded, "used up");
    let ended =
        TurnEnd { error: Some(error.clone()), ..end(RunStatus::Failed, FinishReason::Budget) };
    let effects = scene.step(Input::BudgetExceeded(error.clone()));
    assert_eq!(effects, [Effect::AbortModel, Effect::End(ended)]);
    assert_eq!(scene.step(Input::BudgetExceeded(error)), []);
}

#[test]
fn a_model_that_goes_on_and_on_without_calling_a_tool_is_in_a_loop() {
    let mut scene = Scene::started_with(TurnLimits { idle_steps_max: 3, ..TurnLimits::default() });
    let pauses = |scene: &mut Scene| {
        scene.step(says("and another thing"));
        scene.step(Input::ModelPaused).pop().unwrap()
    };
    assert_eq!(pauses(&mut scene), Effect::CallModel);
    assert_eq!(pauses(&mut scene), Effect::CallModel);
    // A call in between is work.
    scene.step(calls("read", Verdict::Run));
    let effects = scene.step(finishes(FinishReason::ToolCalls));
    let Some(Effect::RunTool { call_id, .. }) = effects.last().cloned() else {
        panic!("{effects:?}")
    };
    let outcome = iris_agent::ToolOutcome::Failed { error: "no".into() };
    scene.step(Input::ToolEnded { call_id, outcome });
    assert_eq!(pauses(&mut scene), Effect::CallModel);
    assert_eq!(pauses(&mut scene), Effect::CallModel);
    let Effect::End(end) = pauses(&mut scene) else { panic!("it goes on") };
    let error = end.error.unwrap();
    assert_eq!((&error.details["reason"], error.retryable), (&"loop".into(), false));
    assert_eq!(end.finish_reason, FinishReason::Error);
}

#[test]
fn calls_after_calls_per_step_max_are_refused() {
    let limits = TurnLimits { calls_per_step_max: 2, ..TurnLimits::default() };
    let mut scene = Scene::started_with(limits);
    // A call that is refused for another reason counts too.
    scene.step(calls("fly", refuses("unknown tool `fly`")));
    scene.step(calls("read", Verdict::Run));
    scene.step(calls("read", Verdict::Run));

    let too_many = refuses("at most 2 tools may be called at once; call it again");
    let parts = vec![
        call_part(1, "fly", refuses("unknown tool `fly`")),
        call_part(3, "read", Verdict::Run),
        call_part(5, "read", too_many),
    ];
    let step = step_end(7, 0, FinishReason::ToolCalls);
    let effects = scene.step(finishes(FinishReason::ToolCalls));
    assert_eq!(effects, [Effect::RecordStep { parts, step }, run(4, "read")]);
}

#[test]
fn model_that_says_more_than_step_text_bytes_max_fails_the_run() {
    let limits = TurnLimits { step_text_bytes_max: 5, ..TurnLimits::default() };
    let mut scene = Scene::started_with(limits);
    // All texts of a step count together, in bytes; the limit itself is allowed.
    assert_eq!(scene.step(says("aé")), [show(1, 0, "aé")]);
    assert_eq!(scene.step(says_in(1, "bc")), [show(2, 0, "bc")]);

    let error =
        ApiError::new(ErrorCode::ProviderError, "the model said more than 5 bytes in one step")
            .reason("output_limit");
    let parts = vec![text_part(1, "aé"), text_part(2, "bc")];
    let end = Effect::End(TurnEnd { parts, ..end_failed(error) });
    assert_eq!(scene.step(says("d")), [Effect::AbortModel, end]);
}

#[test]
fn step_text_bytes_max_counts_each_step_anew() {
    let limits = TurnLimits { step_text_bytes_max: 3, ..TurnLimits::default() };
    let mut scene = Scene::started_with(limits);
    scene.step(says("abc"));
    scene.step(calls("read", refuses("no")));
    scene.step(finishes(FinishReason::ToolCalls));

    assert_eq!(scene.step(says("def")), [show(5, 0, "def")]);
}

#[test]
fn run_fails_after_unusable_steps_max_model_calls_without_a_usable_call() {
    let limits = TurnLimits { unusable_steps_max: 2, ..TurnLimits::default() };
    let mut scene = Scene::started_with(limits);
    scene.step(calls("read", refuses("bad arguments")));
    let effects = scene.step(finishes(FinishReason::ToolCalls));
    assert_eq!(effects.last(), Some(&Effect::CallModel));

    scene.step(calls("read", refuses("bad arguments")));
    let parts = vec![call_part(4, "read", refuses("bad arguments"))];
    let step = step_end(6, 1, FinishReason::ToolCalls);
    let message = "the model made only unusable tool calls 2 times in a row";
    let error = ApiError::new(ErrorCode::ProviderError, message).reason("tool_args_invalid");
    assert_eq!(
        scene.step(finishes(FinishReason::ToolCalls)),
        [Effect::RecordStep { parts, step }, Effect::End(end_failed(error))]
    );
}

#[test]
fn one_usable_call_starts_the_count_of_unusable_steps_anew() {
    let limits = TurnLimits { unusable_steps_max: 2, ..TurnLimits::default() };
    let mut scene = Scene::started_with(limits);
    scene.step(calls("read", refuses("bad arguments")));
    scene.step(finishes(FinishReason::ToolCalls));

    scene.step(calls("read", refuses("bad arguments")));
    scene.step(calls("read", Verdict::Run));
    scene.step(finishes(FinishReason::ToolCalls));
    let effects = scene.step(answers(7, "text"));
    assert_eq!(effects, [record_result(7, "text"), Effect::CallModel]);

    scene.step(calls("read", refuses("bad arguments")));
    let effects = scene.step(finishes(FinishReason::ToolCalls));
    assert_eq!(effects.last(), Some(&Effect::CallModel));
}

#[test]
fn what_a_call_used_that_was_cut_off_is_handed_on() {
    let mut scene = Scene::started();
    let usage = Usage { input_tokens: 7, ..Usage::default() };
    scene.step(Input::UsageArrived(usage));
    let end = TurnEnd { usage, ..end(RunStatus::Cancelled, FinishReason::Cancelled) };
    assert_eq!(scene.step(Input::CancelRequested), [Effect::AbortModel, Effect::End(end)]);
}
