//! Lists, snapshots, histories and replays.

use iris_protocol::*;
use iris_store::StoreError;
use iris_store::project::*;

use crate::fixture::*;

fn ids(messages: &[Message]) -> Vec<MessageId> {
    messages.iter().map(|message| message.id.clone()).collect()
}

/// Run 1 has ended, run 2 works, runs 3 and 4 wait.
async fn conversation() -> Fixture {
    let fixture = Fixture::with_run().await;
    for n in 2..=4 {
        fixture.write(accept(n)).await.unwrap();
    }
    let end = FinishRun {
        parts: vec![text(1, "one")],
        ..finish(1, RunStatus::Completed, FinishReason::Stop)
    };
    fixture.write(end).await.unwrap();
    fixture.write(start(2)).await.unwrap();
    fixture
}

#[tokio::test]
async fn messages_come_in_the_order_of_the_conversation() {
    let fixture = conversation().await;
    let all =
        [message_id(1), answer_id(1), message_id(2), answer_id(2), message_id(3), message_id(4)];
    let reader = fixture.reader();
    let page = reader.messages(session_id(), 4, None).await.unwrap();
    assert_eq!(ids(&page.messages), all[2..]);
    assert!(page.has_more);
    let page = reader.messages(session_id(), 4, page.next_cursor).await.unwrap();
    assert_eq!(ids(&page.messages), all[..2]);
    assert_eq!((page.has_more, page.next_cursor), (false, None));
    assert_eq!(page.messages[1], fixture.answer(1).await);

    let nonsense = reader.messages(session_id(), 4, Some("x".into())).await;
    assert!(matches!(nonsense, Err(StoreError::InvalidCursor { .. })), "{nonsense:?}");
    let unknown = reader.messages(SessionId::from_bits(9), 4, None).await;
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })), "{unknown:?}");
}

#[tokio::test]
async fn a_history_ends_with_the_runs_own_answer_as_far_as_it_is_recorded() {
    let fixture = conversation().await;
    fixture.write(step(2, 0, vec![text(2, "two")])).await.unwrap();
    let reader = fixture.reader();
    let history = reader.history(session_id(), run_id(2)).await.unwrap();
    assert_eq!(ids(&history), [message_id(1), answer_id(1), message_id(2), answer_id(2)]);
    assert_eq!((history[1].parts.len(), &history[3]), (1, &fixture.answer(2).await));
    let queued = reader.history(session_id(), run_id(3)).await.unwrap();
    assert_eq!(ids(&queued)[4..], [message_id(3)]);
    let unknown = reader.history(session_id(), run_id(9)).await;
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })), "{unknown:?}");
}

#[tokio::test]
async fn a_history_goes_back_a_bounded_number_of_messages() {
    let fixture = Fixture::with_session().await;
    let last = u128::from(HISTORY_MESSAGES_MAX) + 1;
    for n in 1..=last {
        fixture.write(accept(n)).await.unwrap();
        fixture
            .write(FailQueuedRun {
                session_id: session_id(),
                run_id: run_id(n),
                status: RunStatus::Cancelled,
                error: None,
                at: NOW,
            })
            .await
            .unwrap();
    }
    let history = fixture.reader().history(session_id(), run_id(last)).await.unwrap();
    assert_eq!(history.len(), HISTORY_MESSAGES_MAX as usize);
    assert_eq!(history[0].id, message_id(2));
}

#[tokio::test]
async fn a_snapshot_says_where_a_session_stands() {
    let fixture = conversation().await;
    let reader = fixture.reader();
    let snapshot = reader.snapshot(session_id(), 2, None).await.unwrap().unwrap();
    assert_eq!(snapshot.session, fixture.session().await);
    assert_eq!(ids(&snapshot.messages), [message_id(3), message_id(4)]);
    assert!(snapshot.next_cursor.is_some());
    let queue: Vec<_> = snapshot.queue.iter().map(|queued| queued.run_id.clone()).collect();
    assert_eq!(queue, [run_id(3), run_id(4)]);
    let runs: Vec<_> = snapshot.runs.iter().map(|run| run.id.clone()).collect();
    assert_eq!(runs, [run_id(1), run_id(2), run_id(3), run_id(4)]);
    let seq = reader.head().await.unwrap();
    assert_eq!(snapshot.as_of, Position { epoch: "epoch".into(), seq });
    assert_eq!(reader.snapshot(SessionId::from_bits(9), 2, None).await.unwrap(), None);
}

#[tokio::test]
async fn sessions_are_listed_newest_first_without_deleted_ones() {
    let fixture = Fixture::new();
    for n in 1..=5 {
        fixture.write(create_session(n)).await.unwrap();
    }
    for (n, status) in [(2, SessionStatus::Archived), (4, SessionStatus::Deleted)] {
        let id = SessionId::from_bits(n);
        fixture.write(SetSessionStatus { id, status, by: ann(), at: NOW }).await.unwrap();
    }
    let reader = fixture.reader();
    let titles = |page: &SessionPage| {
        page.sessions.iter().map(|session| session.title.clone()).collect::<Vec<_>>()
    };
    let page = reader.sessions(2, None, false, None).await.unwrap();
    assert_eq!(titles(&page), ["session 5", "session 3"]);
    let page = reader.sessions(2, page.next_cursor, false, None).await.unwrap();
    assert_eq!((titles(&page), page.has_more), (vec!["session 1".to_owned()], false));
    let page = reader.sessions(50, None, true, None).await.unwrap();
    assert_eq!(titles(&page), ["session 5", "session 3", "session 2", "session 1"]);
    let nonsense = reader.sessions(2, Some("x".into()), false, None).await;
    assert!(matches!(nonsense, Err(StoreError::InvalidCursor { .. })), "{nonsense:?}");
}

#[tokio::test]
async fn a_replay_is_whole_or_too_much() {
    let fixture = conversation().await;
    let room = Room::Session(session_id());
    let log = fixture.log(room.clone()).await;
    let reader = fixture.reader();
    let (second, last) = (log[1].seq, log[log.len() - 1].seq);
    let rest = reader.events(room.clone(), second, last, 1000, 1 << 20).await.unwrap();
    assert_eq!(rest, Replay::Events(log[2..].to_vec()));
    let first = reader.events(room.clone(), 0, second, 2, 1 << 20).await.unwrap();
    assert_eq!(first, Replay::Events(log[..2].to_vec()));
    let by_number = reader.events(room.clone(), 0, last, log.len() - 1, 1 << 20).await;
    assert_eq!(by_number.unwrap(), Replay::TooMuch);
    let bytes: usize = log.iter().map(|event| event.payload.len()).sum();
    let by_bytes = reader.events(room.clone(), 0, last, 1000, bytes - 1).await;
    assert_eq!(by_bytes.unwrap(), Replay::TooMuch);
    let exact = reader.events(room.clone(), 0, last, log.len(), bytes).await.unwrap();
    assert_eq!(exact, Replay::Events(log));
    let future = reader.events(room.clone(), u64::MAX, u64::MAX, 10, 10).await.unwrap();
    assert_eq!(future, Replay::Events(Vec::new()));
    assert_eq!(reader.room_head(room).await.unwrap(), last);
}

#[tokio::test]
async fn a_page_is_never_longer_than_the_wire_allows() {
    let fixture = Fixture::new();
    let max = limits::PAGE_MAX;
    for n in 0..=u128::from(max) {
        fixture.write(create_session(n + 1)).await.unwrap();
    }
    let page = fixture.reader().sessions(u32::MAX, None, false, None).await.unwrap();
    assert_eq!((page.sessions.len(), page.has_more), (max as usize, true));
    let page = fixture.reader().sessions(0, None, false, None).await.unwrap();
    assert_eq!(page.sessions.len(), 1);
}

/// Run `n`, whose message and answer have parts of `bytes` in all.
async fn run_of(fixture: &Fixture, n: u128, bytes: usize) {
    let question = fixture.write(accept(n)).await.unwrap().message.parts;
    fixture.write(start(n)).await.unwrap();
    let empty = [Part::Text { id: PartId::from_bits(n), text: String::new(), interrupted: false }];
    let parts = [question, empty.to_vec()].concat();
    let taken: usize = parts.iter().map(|part| serde_json::to_string(part).unwrap().len()).sum();
    let parts = vec![text(n, &"x".repeat(bytes - taken))];
    let end = FinishRun { parts, ..finish(n, RunStatus::Completed, FinishReason::Stop) };
    fixture.write(end).await.unwrap();
}

#[tokio::test]
async fn a_page_of_messages_is_bounded_in_bytes_too_and_never_empty() {
    let fixture = Fixture::with_session().await;
    run_of(&fixture, 1, 2 * PAGE_BYTES_MAX).await;
    run_of(&fixture, 2, 1000).await;
    run_of(&fixture, 3, PAGE_BYTES_MAX).await;
    let reader = fixture.reader();

    let snapshot = reader.snapshot(session_id(), 50, None).await.unwrap().unwrap();
    assert_eq!(ids(&snapshot.messages), [message_id(3), answer_id(3)]);
    let mut pages = Vec::new();
    let mut cursor = None;
    loop {
        let page = reader.messages(session_id(), 50, cursor).await.unwrap();
        assert_eq!(page.has_more, page.next_cursor.is_some());
        pages.push(ids(&page.messages));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let expected = [
        vec![message_id(3), answer_id(3)],
        vec![message_id(2), answer_id(2)],
        vec![answer_id(1)],
        vec![message_id(1)],
    ];
    assert_eq!(pages, expected);
    assert_eq!(snapshot.next_cursor.as_deref(), Some("3.0"));
}
