//! Summaries in place of what came before, by example.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "they end the test"
)]

use iris_agent::{Effect, Input, SQUEEZES_MAX, StepPart, Summary, Turn, TurnLimits};
use iris_protocol::{ApiError, CompactionPart, ErrorCode, FinishReason, RunStatus, Usage};

use crate::script::{CountingIds, Scene, disk_full, part_id, says};

fn too_long() -> Input {
    let error = ApiError::new(ErrorCode::ProviderError, "too long").reason("context_overflow");
    Input::ContextFull { error: Some(error) }
}

fn summary(tokens_after: u64) -> Input {
    Input::Summarized(Summary {
        text: "so far".to_owned(),
        replaced: 3,
        kept_steps: 1,
        tokens_before: 100,
        tokens_after,
    })
}

fn used(input_tokens: u64) -> Usage {
    Usage { input_tokens, ..Usage::default() }
}

fn error_of(effects: &[Effect]) -> String {
    let Some(Effect::End(end)) = effects.last() else { panic!("{effects:?}") };
    assert_eq!(end.status, RunStatus::Failed);
    end.error.as_ref().unwrap().details["reason"].as_str().unwrap().to_owned()
}

#[test]
fn summary_is_recorded_as_a_step_before_the_model_is_asked_again() {
    let mut scene = Scene::started();
    scene.step(says("half an answ"));
    scene.step(Input::UsageArrived(used(5)));
    let asked = [Effect::AbortModel, Effect::Compact { squeezed: 0 }];
    assert_eq!(scene.step(too_long()), asked);
    assert_eq!(scene.step(says("not an answer")), []);
    scene.step(Input::UsageArrived(used(7)));
    let effects = scene.step(summary(10));
    let [Effect::RecordStep { parts, step }, Effect::CallModel] = &effects[..] else {
        panic!("{effects:?}")
    };
    let part = CompactionPart {
        id: part_id(2),
        summary: "so far".to_owned(),
        replaced: 3,
        kept_steps: 1,
        tokens_before: 100,
        tokens_after: 10,
    };
    assert_eq!(*parts, [StepPart::Compaction(part)]);
    assert_eq!((step.index, step.usage, step.finish_reason), (0, used(12), FinishReason::Stop));
    // Once before a step.
    assert_eq!(error_of(&scene.step(too_long())), "context_overflow");
}

#[test]
fn summary_may_be_made_again_before_the_next_step() {
    let mut scene = Scene::started();
    scene.step(too_long());
    scene.step(summary(10));
    scene.step(Input::ModelPaused);
    let asked = [Effect::AbortModel, Effect::Compact { squeezed: 0 }];
    assert_eq!(scene.step(Input::ContextFull { error: None }), asked);
}

#[test]
fn summary_of_too_much_is_asked_for_again_with_less_a_few_times() {
    let mut scene = Scene::started();
    scene.step(too_long());
    for squeezed in 1..=SQUEEZES_MAX {
        assert_eq!(scene.step(too_long()), [Effect::AbortModel, Effect::Compact { squeezed }]);
    }
    assert_eq!(error_of(&scene.step(too_long())), "context_overflow");
}

#[test]
fn summary_that_does_not_shrink_ends_the_run() {
    for tokens_after in [100, 101] {
        let mut scene = Scene::started();
        scene.step(too_long());
        assert_eq!(error_of(&scene.step(summary(tokens_after))), "compaction_no_gain");
    }
}

#[test]
fn summary_that_fails_for_now_is_asked_for_again() {
    let mut scene = Scene::started();
    scene.step(too_long());
    let error = ApiError::new(ErrorCode::ProviderError, "the stream was cut");
    let effects = scene.step(Input::ModelFailed { error, has_fallback: false });
    assert!(matches!(effects[..], [Effect::AbortModel, Effect::RecordRetry(_), _]), "{effects:?}");
    let again = [Effect::RecordRetryOver, Effect::Compact { squeezed: 0 }];
    assert_eq!(scene.step(Input::RetryDue), again);
}

#[test]
fn summary_ends_with_a_cancel_and_counts_within_the_limit_of_steps() {
    let mut scene = Scene::started();
    scene.step(too_long());
    let effects = scene.step(Input::CancelRequested);
    assert!(matches!(effects[..], [Effect::AbortModel, Effect::End(_)]), "{effects:?}");

    let mut scene = Scene::started_with(TurnLimits { steps_max: 1, ..TurnLimits::default() });
    scene.step(too_long());
    let effects = scene.step(summary(10));
    let [Effect::RecordStep { .. }, Effect::End(end)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((end.status, end.finish_reason), (RunStatus::Completed, FinishReason::Steps));
    assert_eq!(
        error_of_code(&scene.step(Input::RecordFailed(disk_full()))),
        ErrorCode::StorageFull
    );
}

fn error_of_code(effects: &[Effect]) -> ErrorCode {
    let Some(Effect::End(end)) = effects.last() else { panic!("{effects:?}") };
    end.error.as_ref().unwrap().code
}

#[test]
fn run_for_a_summary_alone_ends_with_it() {
    let (mut turn, ids) =
        (Turn::new(TurnLimits::default()).compacting_only(), CountingIds::default());
    assert_eq!(turn.step(Input::Started, &ids), [Effect::Compact { squeezed: 0 }]);
    let effects = turn.step(summary(10), &ids);
    let [Effect::End(end)] = &effects[..] else { panic!("{effects:?}") };
    assert!(matches!(end.parts[..], [StepPart::Compaction(_)]), "{end:?}");
    assert_eq!((end.status, end.step.is_some()), (RunStatus::Completed, true));
}
