//! Runs from their start to their end.

use iris_protocol::*;
use iris_store::project::*;
use serde_json::json;

use crate::fixture::*;

const CONFLICT: ErrorCode = ErrorCode::Conflict;

#[tokio::test]
async fn a_run_starts_with_an_empty_answer() {
    let fixture = Fixture::with_session().await;
    fixture.write(accept(1)).await.unwrap();
    fixture.take_events();
    let started = fixture.write(start(1)).await.unwrap();
    assert_eq!(started.run, fixture.run(1).await);
    assert_eq!(started.session, fixture.session().await);
    assert_eq!((started.run.status, started.run.started_at), (RunStatus::Running, Some(NOW + 1)));
    assert_eq!(started.session.state, SessionState::Running);
    let answer = fixture.answer(1).await;
    assert_eq!((answer.state, answer.parts.len()), (MessageState::Streaming, 0));
    assert_eq!(
        fixture.take_events(),
        ["S run.started", "S message.created", "S session.status", "P session.status"]
    );
}

#[tokio::test]
async fn runs_start_once_and_in_order() {
    let fixture = Fixture::with_run().await;
    fixture.write(accept(2)).await.unwrap();
    assert_eq!(fixture.refusal(start(1)).await, (CONFLICT, "run_not_queued".into()));
    assert_eq!(fixture.refusal(start(2)).await, (CONFLICT, "session_busy".into()));
    assert_eq!(fixture.refusal(start(3)).await.0, ErrorCode::NotFound);
    let first = fixture.reader().open_run(session_id()).await.unwrap().unwrap();
    assert_eq!((first.run.id, first.run.status), (run_id(1), RunStatus::Running));
    let end = finish(1, RunStatus::Completed, FinishReason::Stop);
    let finished = fixture.write(end).await.unwrap();
    assert_eq!(finished.next, Some(run_id(2)));
    let next = fixture.reader().open_run(session_id()).await.unwrap().unwrap();
    assert_eq!((Some(next.run.id), next.answer), (finished.next, None));
    assert_eq!(fixture.session().await.state, SessionState::Queued);
    fixture.write(start(2)).await.unwrap();
}

#[tokio::test]
async fn a_step_is_recorded_part_by_part() {
    let fixture = Fixture::with_run().await;
    let reasoning = NewPart::Reasoning { id: PartId::from_bits(99), text: "hmm".into() };
    let parts =
        vec![reasoning, text(1, "Grüße"), call(1, ToolState::Running), call(2, ToolState::Error)];
    fixture.write(step(1, 0, parts)).await.unwrap();
    let events = fixture.take_stored();
    assert_eq!(
        events.iter().map(told).collect::<Vec<_>>(),
        [
            "S message.reasoning.complete",
            "S message.text.complete",
            "S message.tool.call",
            "S message.tool.call",
            "S message.tool.error",
            "S message.step.finished"
        ]
    );
    assert!(events[1].payload.contains(r#""length":7"#), "{}", events[1].payload);
    let answer = fixture.answer(1).await;
    let kinds = answer.parts.iter().map(|part| match part {
        Part::Text { .. } => "text",
        Part::Reasoning { .. } => "reasoning",
        Part::Tool(_) => "tool",
        Part::Subtask(_) => "subtask",
        Part::Compaction(_) | Part::AnswerFormat(_) | Part::Attachment(_) => "compaction",
        Part::Step { .. } => "step",
    });
    assert_eq!(kinds.collect::<Vec<_>>(), ["reasoning", "text", "tool", "tool", "step"]);
    let calls = fixture.calls(1).await;
    assert_eq!((calls[0].started_at, calls[0].ended_at), (Some(NOW + 2), None));
    assert_eq!((calls[1].started_at, calls[1].ended_at), (None, Some(NOW + 2)));
}

#[tokio::test]
async fn usage_adds_up_in_answer_run_and_session() {
    let fixture = Fixture::with_run().await;
    fixture.write(step(1, 0, vec![text(1, "a")])).await.unwrap();
    fixture.write(step(1, 1, vec![text(2, "b")])).await.unwrap();
    let mut sum = usage(5);
    sum.add(&usage(5));
    let run = fixture.run(1).await;
    assert_eq!((run.steps, run.usage), (2, sum));
    assert_eq!(fixture.answer(1).await.usage, Some(sum));
    assert_eq!(fixture.session().await.usage, sum);
}

#[tokio::test]
async fn a_result_comes_once() {
    let fixture = Fixture::with_run().await;
    let calls = vec![call(1, ToolState::Running), call(2, ToolState::Running)];
    fixture.write(step(1, 0, calls)).await.unwrap();
    fixture.take_events();
    let outcome = Outcome::Completed {
        output: "done".into(),
        metadata: Some(json!({ "lines": 1 })),
        attachment: None,
    };
    fixture.write(result(1, 1, outcome.clone())).await.unwrap();
    assert_eq!(fixture.take_events(), ["S message.tool.result"]);

    assert_eq!(fixture.refusal(result(1, 1, outcome)).await, (CONFLICT, "already_final".into()));
    assert!(fixture.take_events().is_empty());
    let failed = Outcome::Failed { error: "no".into() };
    fixture.write(result(1, 2, failed.clone())).await.unwrap();
    assert_eq!(fixture.take_events(), ["S message.tool.error"]);
    let calls = fixture.calls(1).await;
    assert_eq!((calls[0].state, calls[1].state), (ToolState::Completed, ToolState::Error));
    assert_eq!(calls[0].output.as_deref(), Some("done"));
    assert_eq!(fixture.refusal(result(1, 3, failed)).await.0, ErrorCode::NotFound);
}

#[tokio::test]
async fn the_last_step_and_the_end_are_one_transaction() {
    let fixture = Fixture::with_run().await;
    let end = FinishRun {
        parts: vec![text(1, "done")],
        step: Some(end_of_step(1, 0, FinishReason::Stop)),
        ..finish(1, RunStatus::Completed, FinishReason::Stop)
    };
    let finished = fixture.write(end.clone()).await.unwrap();
    assert_eq!(finished, FinishedRun { next: None });
    assert_eq!(
        fixture.take_events(),
        [
            "S message.text.complete",
            "S message.step.finished",
            "S message.complete",
            "S run.completed",
            "S session.status",
            "P session.status"
        ]
    );
    let answer = fixture.answer(1).await;
    assert_eq!(
        (answer.state, answer.finish_reason),
        (MessageState::Complete, Some(FinishReason::Stop))
    );
    let run = fixture.run(1).await;
    assert_eq!((run.status, run.ended_at, run.steps), (RunStatus::Completed, Some(NOW + 4), 1));
    assert_eq!(fixture.session().await.state, SessionState::Idle);
    assert_eq!(fixture.refusal(end).await, (CONFLICT, "run_ended".into()));
    let late = step(1, 1, vec![text(9, "late")]);
    assert_eq!(fixture.refusal(late).await, (CONFLICT, "run_ended".into()));
}

#[tokio::test]
async fn a_cancelled_run_gives_every_open_call_its_result() {
    let fixture = Fixture::with_run().await;
    let calls = vec![call(1, ToolState::Running), call(2, ToolState::Waiting)];
    fixture.write(step(1, 0, calls)).await.unwrap();
    fixture.take_events();
    fixture.write(finish(1, RunStatus::Cancelled, FinishReason::Cancelled)).await.unwrap();
    assert_eq!(
        fixture.take_events(),
        [
            "S message.tool.error",
            "S message.tool.error",
            "S tool.approval.resolved",
            "P tool.approval.resolved",
            "S message.complete",
            "S run.completed",
            "S session.status",
            "P session.status"
        ]
    );
    let late = fixture.refusal(result(1, 1, completed("late"))).await;
    assert_eq!(late, (CONFLICT, "already_final".into()));
}

#[tokio::test]
async fn a_call_that_ran_when_its_run_ended_may_have_had_its_effect() {
    for (status, reason, running, not_started) in [
        (
            RunStatus::Cancelled,
            FinishReason::Cancelled,
            "the run was cancelled while this call was running; it may or may not have had its \
             effect",
            "the run was cancelled",
        ),
        (
            RunStatus::Failed,
            FinishReason::Error,
            "the run failed while this call was running; it may or may not have had its effect",
            "the run failed before the call ended",
        ),
    ] {
        let fixture = Fixture::with_run().await;
        let calls =
            [ToolState::Running, ToolState::Waiting, ToolState::Pending].into_iter().zip(1..);
        let calls = calls.map(|(state, n)| call(n, state)).collect();
        fixture.write(step(1, 0, calls)).await.unwrap();
        fixture.write(finish(1, status, reason)).await.unwrap();
        let calls = fixture.calls(1).await;
        assert!(calls.iter().all(|call| call.state == ToolState::Cancelled), "{calls:?}");
        let errors: Vec<_> = calls.iter().filter_map(|call| call.error.as_deref()).collect();
        assert_eq!(errors, [running, not_started, not_started]);
    }
}

#[tokio::test]
async fn a_failed_run_keeps_its_error() {
    let fixture = Fixture::with_run().await;
    let error = ApiError::new(ErrorCode::ProviderError, "the provider failed");
    let end = FinishRun {
        error: Some(error.clone()),
        ..finish(1, RunStatus::Failed, FinishReason::Error)
    };
    fixture.write(end).await.unwrap();
    assert!(fixture.take_events().contains(&"S message.error".to_owned()));
    let answer = fixture.answer(1).await;
    assert_eq!((answer.state, answer.error), (MessageState::Error, Some(error.clone())));
    assert_eq!(fixture.run(1).await.error, Some(error));
}

#[tokio::test]
async fn a_run_that_never_started_can_end() {
    let fixture = Fixture::with_session().await;
    fixture.write(accept(1)).await.unwrap();
    fixture.write(accept(2)).await.unwrap();
    fixture.take_events();
    let fail = FailQueuedRun {
        session_id: session_id(),
        run_id: run_id(1),
        status: RunStatus::Failed,
        error: Some(ErrorCode::ModelUnavailable.into()),
        at: NOW + 6,
    };
    let failed = fixture.write(fail.clone()).await.unwrap();
    assert_eq!(failed.next, Some(run_id(2)));
    assert_eq!(fixture.take_events(), ["S run.completed"]);
    assert_eq!(fixture.session().await.state, SessionState::Queued);
    assert_eq!(fixture.refusal(fail.clone()).await, (CONFLICT, "run_not_queued".into()));
    let working = FailQueuedRun { status: RunStatus::Running, run_id: run_id(2), ..fail };
    assert_eq!(fixture.refusal(working).await.0, ErrorCode::Internal);
}

#[tokio::test]
async fn a_run_that_fails_after_its_cancel_was_acknowledged_is_cancelled() {
    let fixture = Fixture::with_run().await;
    fixture.write(step(1, 0, vec![call(1, ToolState::Running)])).await.unwrap();
    fixture.write(accept(2)).await.unwrap();
    fixture.write(cancel()).await.unwrap();
    let error = Some(ApiError::from(ErrorCode::ProviderError));
    let end = FinishRun { error, ..finish(1, RunStatus::Failed, FinishReason::Error) };
    fixture.write(end).await.unwrap();
    let (run, answer) = (fixture.run(1).await, fixture.answer(1).await);
    assert_eq!((run.status, run.error), (RunStatus::Cancelled, None));
    let ended = (answer.state, answer.finish_reason, answer.error);
    assert_eq!(ended, (MessageState::Complete, Some(FinishReason::Cancelled), None));
    let told = fixture.calls(1).await.remove(0).error.unwrap();
    assert!(told.starts_with("the run was cancelled"), "{told}");

    // Before it started.
    fixture.write(cancel()).await.unwrap();
    let fail = FailQueuedRun {
        session_id: session_id(),
        run_id: run_id(2),
        status: RunStatus::Failed,
        error: Some(ErrorCode::ModelUnavailable.into()),
        at: NOW + 6,
    };
    fixture.write(fail).await.unwrap();
    let run = fixture.run(2).await;
    assert_eq!((run.status, run.error), (RunStatus::Cancelled, None));
}

#[tokio::test]
async fn a_run_that_completes_after_its_cancel_was_acknowledged_is_completed() {
    let fixture = Fixture::with_run().await;
    fixture.write(cancel()).await.unwrap();
    fixture.write(finish(1, RunStatus::Completed, FinishReason::Stop)).await.unwrap();
    assert_eq!(fixture.run(1).await.status, RunStatus::Completed);
}
