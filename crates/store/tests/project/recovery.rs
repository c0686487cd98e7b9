//! What a stop of the server leaves, and what the next start makes of it.

use iris_protocol::*;
use iris_store::StoreError;
use iris_store::project::*;
use rusqlite::Connection;

use crate::fixture::*;

#[tokio::test]
async fn what_was_acknowledged_survives_a_crash() {
    let fixture = Fixture::with_run().await;
    fixture.write(step(1, 0, vec![text(1, "kept")])).await.unwrap();
    let room = Room::Session(session_id());
    let (answer, log) = (fixture.answer(1).await, fixture.log(room.clone()).await);
    let copy = fixture.crash();
    assert_eq!(copy.answer(1).await, answer);
    assert_eq!(copy.log(room).await, log);
    assert_eq!(copy.reader().head().await.unwrap(), fixture.reader().head().await.unwrap());
}

#[tokio::test]
async fn what_was_written_is_there_after_a_reopen() {
    let mut fixture = Fixture::with_run().await;
    let session = fixture.session().await;
    fixture.close();
    let log = std::fs::metadata(fixture.path().with_extension("db-wal"));
    assert!(log.is_ok_and(|log| log.len() == 0), "the write-ahead log was not emptied");
    fixture.open();
    assert_eq!(fixture.session().await, session);
    assert_eq!(fixture.database().epoch(), "epoch");
    assert_eq!(fixture.database().head().unwrap(), fixture.reader().head().await.unwrap());
}

#[tokio::test]
async fn a_run_that_worked_is_interrupted_and_the_queue_stays() {
    let fixture = Fixture::with_run().await;
    fixture.write(step(1, 0, vec![call(1, ToolState::Running)])).await.unwrap();
    fixture.write(accept(2)).await.unwrap();
    let copy = fixture.crash();
    let recovered = copy.write(recover(false)).await.unwrap();
    let unfinished = vec![session_id()];
    assert_eq!(recovered, Recovered { unfinished, interrupted: 1, ..Recovered::default() });
    assert_eq!(
        copy.take_events(),
        [
            "S message.tool.error",
            "S message.error",
            "S run.completed",
            "S session.status",
            "P session.status"
        ]
    );
    assert_eq!(copy.calls(1).await[0].state, ToolState::UnknownOutcome);
    assert_eq!(copy.answer(1).await.state, MessageState::Interrupted);
    assert_eq!(copy.run(1).await.status, RunStatus::Interrupted);
    assert_eq!(copy.session().await.state, SessionState::Queued);
    copy.write(start(2)).await.unwrap();
}

#[tokio::test]
async fn a_session_without_a_queue_is_interrupted() {
    let fixture = Fixture::with_run().await;
    let copy = fixture.crash();
    let recovered = copy.write(recover(false)).await.unwrap();
    assert_eq!(recovered, Recovered { interrupted: 1, ..Recovered::default() });
    assert_eq!(copy.session().await.state, SessionState::Interrupted);
    copy.take_events();
    let again = copy.write(recover(false)).await.unwrap();
    assert_eq!(again, Recovered::default());
    assert!(copy.take_events().is_empty());
}

#[tokio::test]
async fn a_run_that_waits_goes_on_waiting_and_nobody_knows_what_its_tools_did() {
    let fixture = Fixture::with_run().await;
    let calls = vec![
        call(1, ToolState::Running),
        call(2, ToolState::Waiting),
        call(3, ToolState::Waiting),
        call(4, ToolState::Running),
    ];
    fixture.write(step(1, 0, calls)).await.unwrap();
    fixture.write(result(1, 4, completed("done"))).await.unwrap();
    fixture.write(resolve(2, Decision::yes())).await.unwrap();
    fixture.write(accept(2)).await.unwrap();
    let copy = fixture.crash();
    let recovered = copy.write(recover(true)).await.unwrap();
    let unfinished = vec![session_id()];
    assert_eq!(recovered, Recovered { unfinished, waiting: 1, ..Recovered::default() });
    assert_eq!(copy.take_events(), ["S message.tool.error", "S message.tool.error"]);

    let open = copy.reader().open_run(session_id()).await.unwrap().unwrap();
    assert_eq!((&open.run.id, open.run.status), (&run_id(1), RunStatus::Waiting));
    assert_eq!(open.answer.map(|answer| answer.id), Some(answer_id(1)));
    let asked: Vec<_> = open.approvals.iter().map(|it| (&it.tool_call_id, it.expires_at)).collect();
    assert_eq!(asked, [(&call_id(3), NOW + 1000)]);
    let states: Vec<_> = copy.calls(1).await.into_iter().map(|call| call.state).collect();
    let (unknown, waiting) = (ToolState::UnknownOutcome, ToolState::Waiting);
    assert_eq!(states, [unknown, unknown, waiting, ToolState::Completed]);
    assert_eq!(copy.session().await.state, SessionState::Waiting);

    // It is decided as before, and another recovery finds nothing to change.
    assert_eq!(copy.write(recover(false)).await.unwrap(), recovered);
    assert!(copy.take_events().is_empty());
    copy.write(resolve(3, Decision::yes())).await.unwrap();
    copy.write(result(1, 3, completed("written"))).await.unwrap();
    assert_eq!(copy.run(1).await.status, RunStatus::Running);
}

#[tokio::test]
async fn a_run_whose_last_approval_is_decided_is_interrupted() {
    let fixture = Fixture::with_run().await;
    fixture.write(step(1, 0, vec![call(1, ToolState::Waiting)])).await.unwrap();
    fixture.write(resolve(1, Decision::yes())).await.unwrap();
    let copy = fixture.crash();
    assert_eq!(copy.write(recover(false)).await.unwrap().interrupted, 1);
    assert_eq!(copy.calls(1).await[0].state, ToolState::UnknownOutcome);
}

#[tokio::test]
async fn a_session_that_restarts_fails_what_worked_and_keeps_what_waits() {
    let fixture = Fixture::with_run().await;
    let calls = vec![call(1, ToolState::Running), call(2, ToolState::Waiting)];
    fixture.write(step(1, 0, calls)).await.unwrap();
    let fail = |run_id, keep_waiting| FailRuns {
        session_id: session_id(),
        run_id,
        keep_waiting,
        error: ApiError::from(ErrorCode::Internal),
        at: NOW + 7,
    };
    assert!(fixture.write(fail(None, true)).await.unwrap().is_empty());
    assert_eq!(fixture.run(1).await.status, RunStatus::Waiting);
    assert_eq!(fixture.calls(1).await[0].state, ToolState::UnknownOutcome);
    let copy = fixture.crash();
    for (fixture, fail) in [(&fixture, fail(Some(run_id(1)), true)), (&copy, fail(None, false))] {
        assert_eq!(fixture.write(fail).await.unwrap(), [answer_id(1)]);
        assert_eq!(fixture.run(1).await.status, RunStatus::Failed);
        assert_eq!(fixture.calls(1).await[1].state, ToolState::Cancelled);
    }
}

#[tokio::test]
async fn a_run_that_was_cancelled_is_cancelled_by_the_next_start_whatever_it_did() {
    let working = vec![call(1, ToolState::Running)];
    let waiting = vec![call(1, ToolState::Running), call(2, ToolState::Waiting)];
    for calls in [working, waiting] {
        let fixture = Fixture::with_run().await;
        fixture.write(step(1, 0, calls)).await.unwrap();
        fixture.write(accept(2)).await.unwrap();
        assert_eq!(fixture.write(cancel()).await.unwrap(), Some(chosen(1, false)));
        assert_eq!(fixture.write(cancel()).await.unwrap(), Some(chosen(1, true)));
        let copy = fixture.crash();
        let recovered = copy.write(recover(true)).await.unwrap();
        let unfinished = vec![session_id()];
        assert_eq!(recovered, Recovered { unfinished, cancelled: 1, ..Recovered::default() });
        let (run, answer) = (copy.run(1).await, copy.answer(1).await);
        assert_eq!((run.status, run.error), (RunStatus::Cancelled, None));
        assert_eq!(answer.state, MessageState::Complete);
        assert_eq!(answer.finish_reason, Some(FinishReason::Cancelled));
        let states: Vec<_> = copy.calls(1).await.into_iter().map(|call| call.state).collect();
        assert!(states.iter().all(|state| *state == ToolState::Cancelled), "{states:?}");
        let snapshot = copy.reader().snapshot(session_id(), 10, None).await.unwrap().unwrap();
        assert!(snapshot.approvals.is_empty());
        assert_eq!(copy.session().await.state, SessionState::Queued);
        copy.write(start(2)).await.unwrap();
    }
}

#[tokio::test]
async fn a_queued_run_that_was_cancelled_does_not_start() {
    let fixture = Fixture::with_session().await;
    fixture.write(accept(1)).await.unwrap();
    fixture.write(accept(2)).await.unwrap();
    assert_eq!(fixture.write(cancel()).await.unwrap(), Some(chosen(1, false)));
    let copy = fixture.crash();
    assert_eq!(copy.write(recover(true)).await.unwrap().cancelled, 1);
    assert_eq!(fixture.write(start(1)).await.unwrap().run.status, RunStatus::Cancelled);
    for fixture in [&fixture, &copy] {
        assert_eq!(fixture.run(1).await.status, RunStatus::Cancelled);
        assert_eq!(fixture.session().await.state, SessionState::Queued);
        // The answer would be the third message.
        let messages = fixture.reader().messages(session_id(), 10, None).await.unwrap().messages;
        assert_eq!(messages.len(), 2);
        assert_eq!(fixture.write(cancel()).await.unwrap(), Some(chosen(2, false)));
    }
}

#[tokio::test]
async fn a_session_that_restarts_cancels_what_was_cancelled() {
    // What goes wrong with the run itself is told all the same.
    for (named, status) in [(None, RunStatus::Cancelled), (Some(run_id(1)), RunStatus::Failed)] {
        let fixture = Fixture::with_run().await;
        fixture.write(step(1, 0, vec![call(1, ToolState::Waiting)])).await.unwrap();
        fixture.write(cancel()).await.unwrap();
        let fail = FailRuns {
            session_id: session_id(),
            run_id: named,
            keep_waiting: true,
            error: ApiError::from(ErrorCode::Internal),
            at: NOW + 7,
        };
        assert_eq!(fixture.write(fail).await.unwrap(), [answer_id(1)]);
        assert_eq!(fixture.run(1).await.status, status);
        assert_eq!(fixture.write(cancel()).await.unwrap(), None);
    }
}

/// Damages the blobs in which calls are.
fn damage_calls(fixture: &Fixture) {
    let conn = Connection::open(fixture.path()).unwrap();
    let sql = "UPDATE blobs SET content = zeroblob(octet_length(content))
               WHERE hash IN (SELECT blob FROM message_parts WHERE tool_call_id IS NOT NULL)";
    assert_eq!(conn.execute(sql, []).unwrap(), 1);
}

fn long_call(n: u128, state: ToolState) -> NewPart {
    let NewPart::Tool(part) = call(n, state) else { unreachable!() };
    let input = serde_json::json!({ "path": "a", "content": "x".repeat(10_000) });
    NewPart::Tool(ToolPart { input, ..part })
}

#[tokio::test]
async fn a_call_whose_blob_is_damaged_is_ended_and_holds_up_no_recovery() {
    let fixture = Fixture::with_run().await;
    let calls = vec![long_call(1, ToolState::Running), call(2, ToolState::Running)];
    fixture.write(step(1, 0, calls)).await.unwrap();
    let copy = fixture.crash();
    damage_calls(&copy);
    assert_eq!(copy.write(recover(false)).await.unwrap().interrupted, 1);
    let calls = copy.calls(1).await;
    let expected = |call: &ToolPart| (call.id.clone(), call.tool_call_id.clone(), call.state);
    let NewPart::Tool(first) = call(1, ToolState::UnknownOutcome) else { unreachable!() };
    assert_eq!(expected(&calls[0]), expected(&first));
    assert_eq!((calls[0].tool_name.as_str(), &calls[0].input), ("unknown", &serde_json::json!({})));
    let errors: Vec<_> = calls.iter().map(|call| call.error.clone().unwrap()).collect();
    assert!(errors[0].contains("may or may not") && errors[0].contains("damaged"), "{errors:?}");
    assert!(errors[1].contains("may or may not") && !errors[1].contains("damaged"), "{errors:?}");
}

#[tokio::test]
async fn a_waiting_call_whose_blob_is_damaged_fails_its_run_alone() {
    let fixture = Fixture::with_run().await;
    fixture.write(step(1, 0, vec![long_call(1, ToolState::Waiting)])).await.unwrap();
    let copy = fixture.crash();
    damage_calls(&copy);
    assert_eq!(copy.write(recover(false)).await.unwrap().waiting, 1);
    let open = copy.reader().open_run(session_id()).await;
    assert!(matches!(open, Err(StoreError::BlobCorrupt { .. })), "{open:?}");
    let fail = FailRuns {
        session_id: session_id(),
        run_id: None,
        keep_waiting: false,
        error: ApiError::from(ErrorCode::ProjectCorrupt),
        at: NOW + 7,
    };
    assert_eq!(copy.write(fail).await.unwrap(), [answer_id(1)]);
    assert_eq!(copy.run(1).await.status, RunStatus::Failed);
    assert_eq!(copy.calls(1).await[0].state, ToolState::Cancelled);
}
