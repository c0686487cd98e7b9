//! Whole runs, written out: what goes in and what comes out.
#![expect(clippy::panic, reason = "what should not happen ends the test")]

use iris_agent::{
    Effect, Input, Retry, RetryLimits, StepPart, ToolOutcome, Turn, TurnEnd, TurnLimits, Verdict,
};
use iris_protocol::{ApiError, ErrorCode, FinishReason, RunStatus, StreamKind, Usage};
use serde_json::json;

use crate::script::{
    CountingIds, Scene, answers, approved, asks, asks_people, call_id, call_part, calls, denies,
    disk_full, end, end_failed, finishes, hopeless, part_id, record_result, refuses, run, says,
    says_in, show, step_end, text_part,
};

#[test]
fn model_that_only_talks_ends_the_run_with_its_text() {
    let mut scene = Scene::started();

    assert_eq!(scene.step(says("Hé")), [show(1, 0, "Hé")]);
    assert_eq!(scene.step(says("llo")), [show(1, 3, "llo")]);
    let usage = Usage { input_tokens: 10, output_tokens: 2, ..Usage::default() };
    assert_eq!(scene.step(Input::UsageArrived(usage)), []);

    let mut step = step_end(2, 0, FinishReason::Stop);
    step.usage = usage;
    let end = TurnEnd {
        parts: vec![text_part(1, "Héllo")],
        step: Some(step),
        ..end(RunStatus::Completed, FinishReason::Stop)
    };
    assert_eq!(scene.step(finishes(FinishReason::Stop)), [Effect::End(end)]);
    assert!(scene.is_ended());
}

#[test]
fn two_calls_one_approved_and_one_denied_lead_to_the_next_model_call() {
    let mut scene = Scene::started();
    scene.step(says("I write."));
    assert_eq!(scene.step(calls("write", asks())), []);
    assert_eq!(scene.step(calls("edit", asks())), []);

    // The intents are durable before anything happens; both calls wait for a person.
    let step = step_end(6, 0, FinishReason::ToolCalls);
    let parts =
        vec![text_part(1, "I write."), call_part(2, "write", asks()), call_part(4, "edit", asks())];
    let effects = scene.step(finishes(FinishReason::ToolCalls));
    assert_eq!(effects, [Effect::RecordStep { parts, step }]);

    assert_eq!(scene.step(approved(call_id(3))), [run(3, "write")]);
    assert_eq!(scene.step(Input::CallSettled(call_id(5))), []);
    // The last result opens the way to the model, which then ends the run.
    let effects = scene.step(answers(3, "written"));
    assert_eq!(effects, [record_result(3, "written"), Effect::CallModel]);

    assert_eq!(scene.step(says("Done.")), [show(7, 0, "Done.")]);
    let end = TurnEnd {
        parts: vec![text_part(7, "Done.")],
        step: Some(step_end(8, 1, FinishReason::Stop)),
        ..end(RunStatus::Completed, FinishReason::Stop)
    };
    assert_eq!(scene.step(finishes(FinishReason::Stop)), [Effect::End(end)]);
}

#[test]
fn calls_that_need_no_approval_run_at_once_and_side_by_side() {
    let mut scene = Scene::started();
    scene.step(calls("read", Verdict::Run));
    scene.step(calls("list", Verdict::Run));

    let parts = vec![call_part(1, "read", Verdict::Run), call_part(3, "list", Verdict::Run)];
    let step = step_end(5, 0, FinishReason::ToolCalls);
    assert_eq!(
        scene.step(finishes(FinishReason::ToolCalls)),
        [Effect::RecordStep { parts, step }, run(2, "read"), run(4, "list")]
    );

    // They may end in any order, well or badly.
    let outcome = ToolOutcome::Failed { error: "no such directory".to_owned() };
    assert_eq!(
        scene.step(Input::ToolEnded { call_id: call_id(4), outcome: outcome.clone() }),
        [Effect::RecordResult { call_id: call_id(4), outcome }]
    );
    assert_eq!(scene.step(answers(2, "text")), [record_result(2, "text"), Effect::CallModel]);
}

#[test]
fn refused_call_is_recorded_with_its_error_and_the_model_is_asked_again() {
    let mut scene = Scene::started();
    scene.step(calls("fly", refuses("unknown tool `fly`")));

    let parts = vec![call_part(1, "fly", refuses("unknown tool `fly`"))];
    let step = step_end(3, 0, FinishReason::ToolCalls);
    assert_eq!(
        scene.step(finishes(FinishReason::ToolCalls)),
        [Effect::RecordStep { parts, step }, Effect::CallModel]
    );
}

#[test]
fn whole_calls_run_even_when_the_model_was_cut_short_or_said_stop() {
    for reason in [FinishReason::Length, FinishReason::Stop] {
        let mut scene = Scene::started();
        scene.step(calls("read", Verdict::Run));

        let parts = vec![call_part(1, "read", Verdict::Run)];
        let step = step_end(3, 0, reason);
        let effects = scene.step(finishes(reason));
        assert_eq!(effects, [Effect::RecordStep { parts, step }, run(2, "read")]);
    }
}

#[test]
fn calls_of_a_filtered_answer_are_dropped() {
    let mut scene = Scene::started();
    scene.step(says("I will"));
    scene.step(calls("read", Verdict::Run));

    let end = TurnEnd {
        parts: vec![text_part(1, "I will")],
        step: Some(step_end(4, 0, FinishReason::ContentFilter)),
        ..end(RunStatus::Completed, FinishReason::ContentFilter)
    };
    assert_eq!(scene.step(finishes(FinishReason::ContentFilter)), [Effect::End(end)]);
}

#[test]
fn pieces_are_sorted_into_parts_by_kind_and_index() {
    let mut scene = Scene::started();
    let thinks = |text: &str| Input::TextArrived {
        kind: StreamKind::Reasoning,
        index: 0,
        text: text.to_owned(),
    };
    let show_thought = |offset, text: &str| Effect::Show {
        part_id: part_id(1),
        kind: StreamKind::Reasoning,
        offset,
        text: text.to_owned(),
    };

    assert_eq!(scene.step(thinks("Hm")), [show_thought(0, "Hm")]);
    assert_eq!(scene.step(says("a")), [show(2, 0, "a")]);
    assert_eq!(scene.step(says_in(1, "b")), [show(3, 0, "b")]);
    assert_eq!(scene.step(thinks("!")), [show_thought(2, "!")]);
    assert_eq!(scene.step(says("A")), [show(2, 1, "A")]);
    assert_eq!(scene.step(says("")), []);
}

#[test]
fn usage_is_that_of_one_model_call_and_the_last_report_counts() {
    let mut scene = Scene::started();
    let usage = |tokens| Usage { output_tokens: tokens, ..Usage::default() };
    scene.step(Input::UsageArrived(usage(1)));
    scene.step(Input::UsageArrived(usage(7)));
    scene.step(calls("read", refuses("no")));
    let effects = scene.step(finishes(FinishReason::ToolCalls));
    assert!(
        matches!(effects.first(), Some(Effect::RecordStep { step, .. }) if step.usage == usage(7))
    );

    // The next call said nothing of its usage.
    let end = TurnEnd {
        step: Some(step_end(4, 1, FinishReason::Stop)),
        ..end(RunStatus::Completed, FinishReason::Stop)
    };
    assert_eq!(scene.step(finishes(FinishReason::Stop)), [Effect::End(end)]);
}

#[test]
fn failed_model_call_keeps_what_it_said_and_fails_the_run() {
    let mut scene = Scene::started();
    scene.step(says("Half"));
    scene.step(calls("read", Verdict::Run));

    let error = hopeless();
    let end = TurnEnd { parts: vec![text_part(1, "Half")], ..end_failed(error.clone()) };
    let failed = Input::ModelFailed { error, has_fallback: true };
    assert_eq!(scene.step(failed), [Effect::AbortModel, Effect::End(end)]);
}

fn overloaded() -> ApiError {
    ApiError::new(ErrorCode::ProviderError, "too busy").reason("overloaded")
}

fn fails_for_now(has_fallback: bool) -> Input {
    Input::ModelFailed { error: overloaded(), has_fallback }
}

/// The retry among the effects of a failure.
fn retry_of(effects: &[Effect]) -> Retry {
    match effects {
        [Effect::AbortModel, Effect::RecordRetry(retry), Effect::AskAgainAfter(delay)] => {
            assert_eq!(retry.delay, *delay);
            retry.clone()
        }
        other => panic!("no retry: {other:?}"),
    }
}

#[test]
fn a_model_that_may_answer_later_is_asked_again_and_what_it_said_is_forgotten() {
    let mut scene = Scene::started();
    scene.step(says("Half"));
    scene.step(calls("read", Verdict::Run));
    let usage = Usage { input_tokens: 7, ..Usage::default() };
    scene.step(Input::UsageArrived(usage));
    let retry = retry_of(&scene.step(fails_for_now(true)));
    assert_eq!((retry.attempt, retry.falls_back, retry.usage), (2, false, usage));
    assert_eq!(retry.error, overloaded());
    assert_eq!(scene.step(says("late")), []);
    assert_eq!(scene.step(Input::RetryDue), [Effect::RecordRetryOver, Effect::CallModel]);
    assert_eq!(scene.step(Input::RetryDue), []);
    scene.step(says("Whole"));
    let effects = scene.step(finishes(FinishReason::Stop));
    let Some(Effect::End(end)) = effects.last() else { panic!("{effects:?}") };
    assert!(matches!(&end.parts[..], [StepPart::Text { text, .. }] if text == "Whole"));
    assert_eq!(end.step.as_ref().map(|step| step.usage), Some(Usage::default()));
}

#[test]
fn attempts_at_a_step_are_counted_and_those_at_the_next_step_anew() {
    let retry = RetryLimits { attempts_max: 2, ..RetryLimits::default() };
    let mut scene = Scene::started_with(TurnLimits { retry, ..TurnLimits::default() });
    for _ in 0..2 {
        assert_eq!(retry_of(&scene.step(fails_for_now(false))).attempt, 2);
        scene.step(Input::RetryDue);
        scene.step(calls("read", refuses("no")));
        scene.step(finishes(FinishReason::ToolCalls));
    }
    retry_of(&scene.step(fails_for_now(false)));
    scene.step(Input::RetryDue);
    let end = scene.step(fails_for_now(false));
    assert_eq!(end, [Effect::AbortModel, Effect::End(end_failed(overloaded()))]);
}

#[test]
fn another_model_is_asked_once_this_one_was_asked_often_enough() {
    let retry = RetryLimits { attempts_max: 2, ..RetryLimits::default() };
    let mut scene = Scene::started_with(TurnLimits { retry, ..TurnLimits::default() });
    assert!(!retry_of(&scene.step(fails_for_now(true))).falls_back);
    scene.step(Input::RetryDue);
    let fallback = retry_of(&scene.step(fails_for_now(true)));
    assert_eq!((fallback.attempt, fallback.falls_back), (1, true));
    assert!(fallback.delay.is_zero());
    scene.step(Input::RetryDue);
    assert_eq!(retry_of(&scene.step(fails_for_now(false))).attempt, 2);
    scene.step(Input::RetryDue);
    scene.step(fails_for_now(false));
    assert!(scene.is_ended());
}

#[test]
fn nobody_waits_longer_than_the_limit_for_what_the_provider_wants() {
    let mut scene = Scene::started();
    let mut error = overloaded();
    error.retry_after_ms = Some(121_000);
    let failed = Input::ModelFailed { error: error.clone(), has_fallback: false };
    assert_eq!(scene.step(failed), [Effect::AbortModel, Effect::End(end_failed(error))]);
}

#[test]
fn a_cancel_ends_the_wait_for_the_next_attempt() {
    let mut scene = Scene::started();
    scene.step(fails_for_now(false));
    let end = end(RunStatus::Cancelled, FinishReason::Cancelled);
    assert_eq!(scene.step(Input::CancelRequested), [Effect::End(end)]);
    assert_eq!(scene.step(Input::RetryDue), []);
}

#[test]
fn cancelled_turn_keeps_its_text_and_emits_nothing_after() {
    let mut scene = Scene::started();
    scene.step(says("Half"));
    scene.step(calls("read", Verdict::Run));

    let end = TurnEnd {
        parts: vec![text_part(1, "Half")],
        ..end(RunStatus::Cancelled, FinishReason::Cancelled)
    };
    let effects = scene.step(Input::CancelRequested);
    assert_eq!(effects, [Effect::AbortModel, Effect::End(end)]);

    assert_eq!(scene.step(says("more")), []);
    assert_eq!(scene.step(finishes(FinishReason::ToolCalls)), []);
    assert_eq!(scene.step(Input::CancelRequested), []);
}

#[test]
fn cancel_stops_running_tools_and_leaves_waiting_ones_unstarted() {
    let mut scene = Scene::started();
    scene.step(calls("read", Verdict::Run));
    scene.step(calls("write", asks()));
    scene.step(finishes(FinishReason::ToolCalls));

    let end = Effect::End(end(RunStatus::Cancelled, FinishReason::Cancelled));
    let effects = scene.step(Input::CancelRequested);
    assert_eq!(effects, [Effect::AbortTool(call_id(2)), end]);

    assert_eq!(scene.step(approved(call_id(4))), []);
    assert_eq!(scene.step(answers(2, "late")), []);
}

#[test]
fn run_that_never_started_can_be_cancelled() {
    let mut turn = Turn::new(TurnLimits::default());
    let ids = CountingIds::default();

    let end = Effect::End(end(RunStatus::Cancelled, FinishReason::Cancelled));
    assert_eq!(turn.step(Input::CancelRequested, &ids), [end]);
    assert_eq!(turn.step(Input::Started, &ids), []);
}

#[test]
fn an_answered_question_goes_on_without_a_tool() {
    let mut scene = Scene::started();
    scene.step(calls("question", asks_people()));
    let parts = vec![call_part(1, "question", asks_people())];
    let step = step_end(3, 0, FinishReason::ToolCalls);
    let effects = scene.step(finishes(FinishReason::ToolCalls));
    assert_eq!(effects, [Effect::RecordStep { parts, step }]);
    assert_eq!(scene.step(Input::CallSettled(call_id(2))), [Effect::CallModel]);
}

#[test]
fn second_answer_to_a_call_has_no_effect() {
    let mut scene = Scene::started();
    scene.step(calls("read", Verdict::Run));
    scene.step(calls("write", asks()));
    scene.step(finishes(FinishReason::ToolCalls));

    assert_eq!(scene.step(approved(call_id(2))), []);
    assert_eq!(scene.step(Input::CallSettled(call_id(2))), []);
    assert_eq!(scene.step(answers(4, "not started")), []);
    assert_eq!(scene.step(answers(2, "once")), [record_result(2, "once")]);
    assert_eq!(scene.step(answers(2, "twice")), []);
    assert_eq!(scene.step(approved(call_id(4))), [run(4, "write")]);
    assert_eq!(scene.step(approved(call_id(4))), []);
    assert_eq!(scene.step(Input::CallSettled(call_id(4))), []);
    assert_eq!(scene.step(approved(call_id(99))), []);
}

#[test]
fn step_that_cannot_be_recorded_fails_the_run_and_stops_its_tools() {
    let mut scene = Scene::started();
    scene.step(calls("read", Verdict::Run));
    scene.step(finishes(FinishReason::ToolCalls));

    let end = Effect::End(end_failed(disk_full()));
    let effects = scene.step(Input::RecordFailed(disk_full()));
    assert_eq!(effects, [Effect::AbortTool(call_id(2)), end]);
}

#[test]
fn result_that_cannot_be_recorded_before_the_end_fails_the_run() {
    let mut scene = Scene::started_with(TurnLimits { steps_max: 1, ..TurnLimits::default() });
    scene.step(calls("read", Verdict::Run));
    scene.step(finishes(FinishReason::ToolCalls));
    let end = Effect::End(end(RunStatus::Completed, FinishReason::Steps));
    assert_eq!(scene.step(answers(2, "text")), [record_result(2, "text"), end]);

    // The record failed, so that nothing after it was performed, the end neither.
    let effects = scene.step(Input::RecordFailed(disk_full()));
    assert_eq!(effects, [Effect::End(end_failed(disk_full()))]);
    assert_eq!(scene.step(Input::RecordFailed(disk_full())), []);
}

#[test]
fn step_that_cannot_be_recorded_before_the_end_fails_the_run() {
    let mut scene = Scene::started_with(TurnLimits { steps_max: 1, ..TurnLimits::default() });
    scene.step(calls("read", refuses("no")));
    scene.step(finishes(FinishReason::ToolCalls));

    let effects = scene.step(Input::RecordFailed(disk_full()));
    assert_eq!(effects, [Effect::End(end_failed(disk_full()))]);
}

#[test]
fn outcome_of_a_tool_is_recorded_as_it_came() {
    let mut scene = Scene::started();
    scene.step(calls("write", Verdict::Run));
    scene.step(finishes(FinishReason::ToolCalls));

    let outcome = ToolOutcome::Completed {
        output: "written".to_owned(),
        metadata: Some(json!({ "lines": 1 })),
        attachment: None,
    };
    assert_eq!(
        scene.step(Input::ToolEnded { call_id: call_id(2), outcome: outcome.clone() }),
        [Effect::RecordResult { call_id: call_id(2), outcome }, Effect::CallModel]
    );
}

#[test]
fn arguments_that_a_person_edited_are_those_that_run() {
    let mut scene = Scene::started();
    scene.step(calls("write", asks()));
    scene.step(finishes(FinishReason::ToolCalls));
    let edited = json!({ "path": "other.md" });
    let approved = Input::CallApproved { call_id: call_id(2), edited: Some(edited.clone()) };
    let tool_name = "write".to_owned();
    let run = Effect::RunTool { call_id: call_id(2), tool_name, input: edited };
    assert_eq!(scene.step(approved), [run]);
}

#[test]
fn a_call_that_a_rule_denies_has_its_result_and_counts_as_usable() {
    let limits = TurnLimits { unusable_steps_max: 1, ..TurnLimits::default() };
    let mut scene = Scene::started_with(limits);
    scene.step(calls("write", denies("no")));
    let effects = scene.step(finishes(FinishReason::ToolCalls));
    let parts = vec![call_part(1, "write", denies("no"))];
    let step = step_end(3, 0, FinishReason::ToolCalls);
    assert_eq!(effects, [Effect::RecordStep { parts, step }, Effect::CallModel]);
}

/// A failure of a provider that is left alone.
fn not_asked() -> Input {
    let error = overloaded().detail("notAsked", true);
    let error = ApiError { retry_after_ms: Some(100_000), ..error };
    Input::ModelFailed { error, has_fallback: false }
}

#[test]
fn a_model_that_was_not_asked_did_not_fail_but_is_not_waited_for_for_ever() {
    let retry = RetryLimits { attempts_max: 2, ..RetryLimits::default() };
    let mut scene = Scene::started_with(TurnLimits { retry, ..TurnLimits::default() });
    for _ in 0..2 {
        assert_eq!(retry_of(&scene.step(not_asked())).attempt, 1);
        scene.step(Input::RetryDue);
    }
    // It counts once it is asked.
    assert_eq!(retry_of(&scene.step(fails_for_now(false))).attempt, 2);
    scene.step(Input::RetryDue);
    // More than three hundred seconds in all.
    scene.step(not_asked());
    assert!(scene.is_ended());
}

#[test]
fn another_model_is_asked_in_place_of_one_that_is_left_alone() {
    let retry = RetryLimits { attempts_max: 1, ..RetryLimits::default() };
    let mut scene = Scene::started_with(TurnLimits { retry, ..TurnLimits::default() });
    let Input::ModelFailed { error, .. } = not_asked() else { unreachable!() };
    let failed = Input::ModelFailed { error, has_fallback: true };
    assert!(retry_of(&scene.step(failed)).falls_back);
}

#[test]
fn an_answer_of_no_use_is_asked_for_once_more() {
    let mut scene = Scene::started();
    let error = overloaded().reason("bad_answer");
    let failed = || Input::ModelFailed { error: error.clone(), has_fallback: false };
    assert_eq!(retry_of(&scene.step(failed())).attempt, 2);
    scene.step(Input::RetryDue);
    assert_eq!(scene.step(failed()), [Effect::AbortModel, Effect::End(end_failed(error.clone()))]);
}
