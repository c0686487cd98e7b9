//! Checkpoints of streaming text: what is left of it, and that nothing is left over.

use iris_protocol::*;
use iris_store::project::*;

use crate::fixture::*;

#[tokio::test]
async fn text_is_kept_up_to_its_last_checkpoint_and_marked() {
    let fixture = Fixture::with_run().await;
    fixture.write(checkpoint(1, vec![chunk(1, 0, "Hé")])).await.unwrap();
    let thought = TextChunk { kind: StreamKind::Reasoning, ..chunk(2, 0, "hm") };
    fixture.write(checkpoint(1, vec![chunk(1, 3, "llo"), thought])).await.unwrap();
    assert!(fixture.take_events().is_empty());
    assert_eq!(fixture.answer(1).await.parts, []);

    let copy = fixture.crash();
    copy.write(recover(false)).await.unwrap();
    let parts = [
        Part::Text { id: chunk(1, 0, "").part_id, text: "Héllo".into(), interrupted: true },
        Part::Reasoning { id: chunk(2, 0, "").part_id, text: "hm".into(), interrupted: true },
    ];
    assert_eq!(copy.answer(1).await.parts, parts);
    let stored = copy.take_stored();
    assert_eq!(
        stored.iter().map(told).collect::<Vec<_>>(),
        [
            "S message.text.complete",
            "S message.reasoning.complete",
            "S message.error",
            "S run.completed",
            "S session.status",
            "P session.status"
        ]
    );
    let payload: serde_json::Value = serde_json::from_str(&stored[0].payload).unwrap();
    assert_eq!((&payload["interrupted"], &payload["length"]), (&true.into(), &6.into()));
    assert_eq!(copy.chunks(), 0);
}

#[tokio::test]
async fn a_failed_run_keeps_its_text_too() {
    let fixture = Fixture::with_run().await;
    fixture.write(checkpoint(1, vec![chunk(1, 0, "So")])).await.unwrap();
    let copy = fixture.crash();
    let error = ApiError::from(ErrorCode::Internal);
    let fail = FailRuns {
        session_id: session_id(),
        run_id: None,
        keep_waiting: true,
        error: error.clone(),
        at: NOW + 7,
    };
    fixture.write(fail).await.unwrap();
    // As after a step that could not be recorded.
    let end = finish(1, RunStatus::Failed, FinishReason::Error);
    copy.write(FinishRun { error: Some(error), ..end }).await.unwrap();
    for fixture in [fixture, copy] {
        assert_eq!(fixture.texts(1).await, [("So".to_owned(), true)]);
        assert_eq!(fixture.answer(1).await.state, MessageState::Error);
        assert_eq!(fixture.chunks(), 0);
    }
}

#[tokio::test]
async fn a_part_that_is_recorded_takes_the_place_of_its_checkpoints() {
    let fixture = Fixture::with_run().await;
    let chunks = vec![chunk(1, 0, "one"), chunk(2, 0, "tw")];
    fixture.write(checkpoint(1, chunks)).await.unwrap();
    let parts = vec![text(1, "one."), text(2, "two"), call(9, ToolState::Running)];
    fixture.write(step(1, 0, parts)).await.unwrap();
    assert_eq!(fixture.chunks(), 0);
    // One that comes too late leaves nothing.
    fixture.write(checkpoint(1, vec![chunk(2, 2, "o")])).await.unwrap();
    assert_eq!(fixture.chunks(), 0);

    fixture.write(checkpoint(1, vec![chunk(3, 0, "thr")])).await.unwrap();
    let end = finish(1, RunStatus::Cancelled, FinishReason::Cancelled);
    fixture.write(FinishRun { parts: vec![text(3, "three")], ..end }).await.unwrap();
    assert_eq!(fixture.chunks(), 0);
    let whole = ["one.", "two", "three"].map(|text| (text.to_owned(), false));
    assert_eq!(fixture.texts(1).await, whole);
}

#[tokio::test]
async fn a_checkpoint_after_the_end_of_the_run_or_of_nothing_leaves_nothing() {
    let fixture = Fixture::with_run().await;
    fixture.write(checkpoint(2, vec![chunk(1, 0, "no such run")])).await.unwrap();
    let foreign =
        CheckpointText { message_id: message_id(1), ..checkpoint(1, vec![chunk(1, 0, "")]) };
    fixture.write(foreign).await.unwrap();
    fixture.write(finish(1, RunStatus::Completed, FinishReason::Stop)).await.unwrap();
    fixture.write(checkpoint(1, vec![chunk(1, 0, "late")])).await.unwrap();
    assert_eq!(fixture.chunks(), 0);
}

#[tokio::test]
async fn a_checkpoint_that_is_tried_again_replaces_itself_and_a_gap_ends_the_part() {
    let fixture = Fixture::with_run().await;
    fixture.write(checkpoint(1, vec![chunk(1, 0, "ab")])).await.unwrap();
    fixture.write(checkpoint(1, vec![chunk(1, 2, "c")])).await.unwrap();
    fixture.write(checkpoint(1, vec![chunk(1, 2, "cd")])).await.unwrap();
    fixture.write(checkpoint(1, vec![chunk(1, 9, "lost"), chunk(2, 5, "lost")])).await.unwrap();
    fixture.write(recover(false)).await.unwrap();
    assert_eq!(fixture.texts(1).await, [("abcd".to_owned(), true)]);
}

#[tokio::test]
async fn a_session_that_is_deleted_takes_its_streaming_text_with_it() {
    let fixture = Fixture::with_run().await;
    fixture.write(checkpoint(1, vec![chunk(1, 0, "a")])).await.unwrap();
    let conn = rusqlite::Connection::open(fixture.path()).unwrap();
    conn.execute_batch("PRAGMA foreign_keys = ON; DELETE FROM sessions").unwrap();
    assert_eq!(fixture.chunks(), 0);
}

fn retry(model: Option<ModelRef>) -> RecordRetry {
    RecordRetry {
        session_id: session_id(),
        run_id: run_id(1),
        message_id: answer_id(1),
        attempt: 2,
        error: ApiError::new(ErrorCode::ProviderError, "too busy").reason("overloaded"),
        delay_ms: 750,
        used: Rest {
            usage: Usage { input_tokens: 7, ..Usage::default() },
            spent: Spent::default(),
        },
        model,
        at: NOW + 5,
    }
}

#[tokio::test]
async fn what_a_model_said_before_it_is_asked_again_is_forgotten_and_counts() {
    let fixture = Fixture::with_run().await;
    fixture.write(checkpoint(1, vec![chunk(1, 0, "So")])).await.unwrap();
    fixture.take_events();
    let other = ModelRef { provider_id: "other".into(), model_id: "model".into() };
    fixture.write(retry(Some(other.clone()))).await.unwrap();
    let stored = fixture.take_stored();
    let events: Vec<_> = stored.iter().map(told).collect();
    assert_eq!(events, ["S message.updated", "S session.status", "P session.status"]);
    let payload: serde_json::Value = serde_json::from_str(&stored[1].payload).unwrap();
    let expected = serde_json::json!({
        "sessionId": session_id(), "state": "retrying", "attempt": 2, "class": "overloaded",
        "delayMs": 750, "message": "too busy",
    });
    assert_eq!(payload, expected);
    let answer = fixture.answer(1).await;
    assert_eq!((answer.model, answer.usage.unwrap().input_tokens), (Some(other), 7));
    assert_eq!(fixture.run(1).await.usage.input_tokens, 7);

    // A server that dies now has nothing of it either.
    let copy = fixture.crash();
    copy.write(recover(false)).await.unwrap();
    assert_eq!((copy.chunks(), copy.answer(1).await.parts), (0, vec![]));
    assert_eq!(copy.run(1).await.status, RunStatus::Interrupted);

    let (session_id, run_id, message_id) = (session_id(), run_id(1), answer_id(1));
    let over = EndRetry { session_id, run_id, message_id, at: NOW + 6 };
    fixture.write(over.clone()).await.unwrap();
    assert_eq!(fixture.take_events(), ["S session.status", "P session.status"]);
    fixture.write(finish(1, RunStatus::Completed, FinishReason::Stop)).await.unwrap();
    assert_eq!(fixture.refusal(over).await, (ErrorCode::Conflict, "run_ended".into()));
    assert_eq!(fixture.refusal(retry(None)).await, (ErrorCode::Conflict, "run_ended".into()));
}
