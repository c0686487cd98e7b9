//! Sessions and the messages that they take.

use iris_protocol::limits::QUEUED_MESSAGES_MAX;
use iris_protocol::*;
use iris_store::project::*;

use crate::fixture::*;

fn set_status(status: SessionStatus) -> SetSessionStatus {
    SetSessionStatus { id: session_id(), status, by: bob(), at: NOW + 9 }
}

#[tokio::test]
async fn a_new_session_is_told_in_both_rooms() {
    let fixture = Fixture::new();
    let created = fixture.write(create_session(1)).await.unwrap();
    assert_eq!(fixture.session().await, created);
    assert_eq!(created.state, SessionState::Idle);
    let events = fixture.take_stored();
    assert_eq!(
        events.iter().map(told).collect::<Vec<_>>(),
        ["S session.created", "P session.created"]
    );
    let told: Event = serde_json::from_str(&format!(
        r#"{{"type":"{}","payload":{}}}"#,
        events[0].name, events[0].payload
    ))
    .unwrap();
    assert_eq!(told, Event::SessionCreated { session: created });
    assert_eq!((events[0].seq, events[0].prev, events[1].seq, events[1].prev), (1, 0, 2, 0));
    assert_eq!(events[0].by, Some(ann()));
}

#[tokio::test]
async fn an_update_changes_what_it_names() {
    let fixture = Fixture::with_session().await;
    let update = UpdateSession {
        id: session_id(),
        title: Some("better".into()),
        agent: None,
        model: Some(model()),
        mode: Some(SessionMode::Plan),
        by: bob(),
        at: NOW + 1,
    };
    let updated = fixture.write(update.clone()).await.unwrap();
    assert_eq!((updated.title.as_str(), updated.agent.as_str()), ("better", "default"));
    assert_eq!((updated.model, updated.updated_at), (Some(model()), NOW + 1));
    assert_eq!(updated.mode, SessionMode::Plan);
    assert_eq!(fixture.session().await.mode, SessionMode::Plan);
    assert_eq!(fixture.take_events(), ["S session.updated", "P session.updated"]);

    fixture.write(set_status(SessionStatus::Archived)).await.unwrap();
    let refusal = fixture.refusal(update.clone()).await;
    assert_eq!(refusal, (ErrorCode::Conflict, "session_archived".into()));
    fixture.write(set_status(SessionStatus::Deleted)).await.unwrap();
    let refusal = fixture.refusal(update.clone()).await;
    assert_eq!(refusal, (ErrorCode::Conflict, "session_deleted".into()));
    let unknown = UpdateSession { id: SessionId::from_bits(9), ..update };
    assert_eq!(fixture.refusal(unknown).await.0, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_session_is_archived_deleted_and_brought_back() {
    let fixture = Fixture::with_session().await;
    let archived = fixture.write(set_status(SessionStatus::Archived)).await.unwrap();
    assert_eq!(archived.archived_at, Some(NOW + 9));
    assert_eq!(fixture.take_events(), ["S session.archived", "P session.archived"]);
    fixture.write(set_status(SessionStatus::Archived)).await.unwrap();
    assert!(fixture.take_events().is_empty());
    fixture.write(set_status(SessionStatus::Deleted)).await.unwrap();
    assert_eq!(fixture.take_events(), ["S session.deleted", "P session.deleted"]);
    let back = fixture.write(set_status(SessionStatus::Active)).await.unwrap();
    assert_eq!((back.status, back.archived_at), (SessionStatus::Active, None));
    assert_eq!(fixture.take_events(), ["S session.updated", "P session.updated"]);
}

#[tokio::test]
async fn a_busy_session_is_not_put_away() {
    let fixture = Fixture::with_session().await;
    fixture.write(accept(1)).await.unwrap();
    let busy = (ErrorCode::Conflict, "session_busy".to_owned());
    for status in [SessionStatus::Archived, SessionStatus::Deleted] {
        assert_eq!(fixture.refusal(set_status(status)).await, busy);
    }
    let purge = PurgeSession { id: session_id(), by: ann(), at: NOW };
    assert_eq!(fixture.refusal(purge).await, busy);
}

#[tokio::test]
async fn a_purged_session_leaves_nothing_but_a_line_in_the_projects_room() {
    let fixture = Fixture::with_run().await;
    fixture.write(step(1, 0, vec![call(1, ToolState::Waiting)])).await.unwrap();
    fixture.write(finish(1, RunStatus::Completed, FinishReason::Stop)).await.unwrap();
    fixture.take_events();
    let head = fixture.reader().head().await.unwrap();
    fixture.write(PurgeSession { id: session_id(), by: ann(), at: NOW }).await.unwrap();
    assert_eq!(fixture.take_events(), ["P session.deleted"]);

    let reader = fixture.reader();
    assert_eq!(reader.session(session_id()).await.unwrap(), None);
    assert_eq!(reader.run(run_id(1)).await.unwrap(), None);
    assert_eq!(reader.message(session_id(), answer_id(1)).await.unwrap(), None);
    let room = Room::Session(session_id());
    assert!(fixture.log(room.clone()).await.is_empty());
    assert_eq!(reader.room_head(room).await.unwrap(), 0);
    assert_eq!(reader.head().await.unwrap(), head + 1);
}

#[tokio::test]
async fn a_message_and_its_run_are_taken_together() {
    let fixture = Fixture::with_session().await;
    let accepted = fixture.write(accept(1)).await.unwrap();
    assert!(!accepted.queued);
    assert_eq!(accepted.run, fixture.run(1).await);
    assert_eq!(accepted.run.status, RunStatus::Queued);
    let stored = fixture.reader().message(session_id(), message_id(1)).await.unwrap();
    assert_eq!(stored, Some(accepted.message));
    assert_eq!(
        fixture.take_events(),
        ["S message.created", "S session.status", "P session.status"]
    );
    let session = fixture.session().await;
    assert_eq!((session.state, session.message_count), (SessionState::Queued, 1));

    let second = fixture.write(accept(2)).await.unwrap();
    assert!(second.queued);
    assert_eq!(fixture.take_events(), ["S message.created"]);
}

#[tokio::test]
async fn a_message_is_refused_where_it_cannot_be_answered() {
    let fixture = Fixture::with_session().await;
    let elsewhere = AcceptMessage { session_id: SessionId::from_bits(9), ..accept(1) };
    assert_eq!(fixture.refusal(elsewhere).await.0, ErrorCode::NotFound);
    fixture.write(accept(1)).await.unwrap();
    let impatient = AcceptMessage { when_busy: iris_protocol::WhenBusy::Reject, ..accept(2) };
    assert_eq!(fixture.refusal(impatient).await, (ErrorCode::Conflict, "session_busy".into()));
}

#[tokio::test]
async fn the_queue_of_a_session_has_a_limit() {
    let fixture = Fixture::with_session().await;
    let max = QUEUED_MESSAGES_MAX as u128;
    for n in 1..=max {
        fixture.write(accept(n)).await.unwrap();
    }
    let refusal = fixture.refusal(accept(max + 1)).await;
    assert_eq!(refusal, (ErrorCode::Conflict, "queue_full".into()));
    fixture.write(start(1)).await.unwrap();
    fixture.write(accept(max + 1)).await.unwrap();
    assert_eq!(fixture.session().await.message_count, QUEUED_MESSAGES_MAX as u64 + 2);
}
