//! What a stop of the server leaves, and what the next start makes of it.

use iris_protocol::*;
use iris_store::project::*;

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
async fn a_run_that_was_alive_is_interrupted_and_the_queue_stays() {
    let fixture = Fixture::with_run().await;
    let calls = vec![call(1, ToolState::Running), call(2, ToolState::Waiting)];
    fixture.write(step(1, 0, calls)).await.unwrap();
    fixture.write(accept(2)).await.unwrap();
    let copy = fixture.crash();
    let recovered = copy.write(RecoverRuns { at: NOW + 7 }).await.unwrap();
    let sessions_with_queue = vec![session_id()];
    assert_eq!(recovered, Recovered { sessions_with_queue, interrupted: 1 });
    assert_eq!(
        copy.take_events(),
        [
            "S message.tool.error",
            "S message.tool.error",
            "S tool.approval.resolved",
            "P tool.approval.resolved",
            "S message.error",
            "S run.completed",
            "S session.status",
            "P session.status"
        ]
    );
    let calls = copy.calls(1).await;
    assert_eq!(calls[0].state, ToolState::UnknownOutcome);
    assert_eq!(calls[1].state, ToolState::Cancelled);
    assert_eq!(copy.answer(1).await.state, MessageState::Interrupted);
    assert_eq!(copy.run(1).await.status, RunStatus::Interrupted);
    assert_eq!(copy.session().await.state, SessionState::Queued);
    copy.write(start(2)).await.unwrap();
}

#[tokio::test]
async fn a_session_without_a_queue_is_interrupted() {
    let fixture = Fixture::with_run().await;
    let copy = fixture.crash();
    let recovered = copy.write(RecoverRuns { at: NOW + 7 }).await.unwrap();
    assert_eq!(recovered, Recovered { sessions_with_queue: Vec::new(), interrupted: 1 });
    assert_eq!(copy.session().await.state, SessionState::Interrupted);
    copy.take_events();
    let again = copy.write(RecoverRuns { at: NOW + 8 }).await.unwrap();
    assert_eq!(again.interrupted, 0);
    assert!(copy.take_events().is_empty());
}
