//! Finding what was said.

use iris_protocol::*;
use iris_store::StoreError;
use iris_store::project::*;

use crate::fixture::*;

async fn say(fixture: &Fixture, n: u128, text: &str) {
    fixture.write(AcceptMessage { text: text.into(), ..accept(n) }).await.unwrap();
}

async fn index(fixture: &Fixture) {
    while fixture.write(IndexParts).await.unwrap().more {}
    assert!(!fixture.reader().has_unindexed().await.unwrap());
}

async fn search(fixture: &Fixture, query: &str) -> SearchPage {
    fixture.reader().search(query.into(), None, 50, None).await.unwrap()
}

/// The messages that a search finds.
async fn found(fixture: &Fixture, query: &str) -> Vec<MessageId> {
    search(fixture, query).await.hits.into_iter().map(|hit| hit.message_id).collect()
}

#[tokio::test]
async fn what_people_and_agents_said_is_found_newest_first() {
    let fixture = Fixture::with_session().await;
    say(&fixture, 1, "Where is the Grüne Café?").await;
    fixture.write(start(1)).await.unwrap();
    let thought = NewPart::Reasoning { id: PartId::from_bits(9), text: "a café is a bar".into() };
    let parts = vec![thought, text(1, "The cafe is closed."), call(1, ToolState::Running)];
    fixture.write(step(1, 0, parts)).await.unwrap();
    fixture.write(result(1, 1, completed("cafe in a tool's output"))).await.unwrap();
    fixture.write(finish(1, RunStatus::Completed, FinishReason::Stop)).await.unwrap();
    assert!(fixture.reader().has_unindexed().await.unwrap());
    assert_eq!(found(&fixture, "cafe").await, []);
    index(&fixture).await;

    let page = search(&fixture, "CAFÉ").await;
    let question = SearchHit {
        session_id: session_id(),
        message_id: message_id(1),
        part_id: accept(1).part_id,
        role: MessageRole::User,
        excerpt: "Where is the Grüne Café?".into(),
        at: NOW,
    };
    let answer = SearchHit {
        message_id: answer_id(1),
        part_id: PartId::from_bits(2_000_001),
        role: MessageRole::Assistant,
        excerpt: "The cafe is closed.".into(),
        at: NOW + 1,
        ..question.clone()
    };
    let expected = SearchPage { hits: vec![answer, question], next_cursor: None, has_more: false };
    assert_eq!(page, expected);
    assert_eq!(found(&fixture, "cafe grune").await, [message_id(1)]);
    assert_eq!(found(&fixture, "tool's output").await, []);
}

#[tokio::test]
async fn operators_have_no_effect() {
    let fixture = Fixture::with_session().await;
    say(&fixture, 1, "cats and dogs").await;
    say(&fixture, 2, "dogs alone").await;
    index(&fixture).await;
    assert_eq!(found(&fixture, "cats OR alone").await, []);
    assert_eq!(found(&fixture, "dogs NOT cats").await, []);
    assert_eq!(found(&fixture, "dog*").await, []);
    assert_eq!(found(&fixture, "session:dogs").await, []);
    assert_eq!(found(&fixture, "\"dogs").await, [message_id(2), message_id(1)]);
    assert_eq!(found(&fixture, "(dogs) ^cats").await, [message_id(1)]);
    for query in ["", " \t", "***", &"x".repeat(300)] {
        let refused = fixture.reader().search(query.into(), None, 50, None).await.unwrap_err();
        assert!(matches!(refused, StoreError::InvalidQuery { .. }));
        let wire = refused.to_api();
        assert_eq!(wire.code, ErrorCode::InvalidRequest);
        assert_eq!(wire.details["reason"], "invalid_query");
    }
}

#[tokio::test]
async fn pages_of_hits_hold_each_hit_once() {
    let fixture = Fixture::with_session().await;
    for n in 1..=23 {
        say(&fixture, n, &format!("number {n}")).await;
    }
    index(&fixture).await;
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page = fixture.reader().search("number".into(), None, 5, cursor).await.unwrap();
        assert!(page.hits.len() <= 5);
        all.extend(page.hits.into_iter().map(|hit| hit.message_id));
        assert_eq!(page.has_more, page.next_cursor.is_some());
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(all, (1..=23).rev().map(message_id).collect::<Vec<_>>());
    for cursor in ["", "0", "-1", "+5", "x", "99999999999999999999"] {
        let cursor = Some(cursor.to_owned());
        let refused = fixture.reader().search("number".into(), None, 5, cursor).await.unwrap_err();
        assert!(matches!(refused, StoreError::InvalidCursor { .. }));
    }
}

#[tokio::test]
async fn a_search_keeps_to_its_session_and_to_sessions_that_are_there() {
    let fixture = Fixture::with_session().await;
    fixture.write(create_session(2)).await.unwrap();
    say(&fixture, 1, "needle").await;
    let second = SessionId::from_bits(2);
    let elsewhere = AcceptMessage { session_id: second.clone(), ..accept(2) };
    fixture.write(AcceptMessage { text: "needle".into(), ..elsewhere }).await.unwrap();
    index(&fixture).await;
    assert_eq!(found(&fixture, "needle").await, [message_id(2), message_id(1)]);
    let reader = fixture.reader();
    let within = reader.search("needle".into(), Some(second.clone()), 50, None).await.unwrap();
    assert_eq!(within.hits.len(), 1);
    assert_eq!(within.hits[0].session_id, second);

    for session in [session_id(), second.clone()] {
        let run_id = run_id(if session == second { 2 } else { 1 });
        let status = RunStatus::Cancelled;
        let fail = FailQueuedRun { session_id: session, run_id, status, error: None, at: NOW };
        fixture.write(fail).await.unwrap();
    }
    let status = |status| SetSessionStatus { id: second.clone(), status, by: ann(), at: NOW };
    fixture.write(status(SessionStatus::Archived)).await.unwrap();
    assert_eq!(found(&fixture, "needle").await.len(), 2);
    fixture.write(status(SessionStatus::Deleted)).await.unwrap();
    assert_eq!(found(&fixture, "needle").await, [message_id(1)]);
    fixture.write(status(SessionStatus::Active)).await.unwrap();
    assert_eq!(found(&fixture, "needle").await.len(), 2);
    fixture.write(PurgeSession { id: second, by: ann(), at: NOW }).await.unwrap();
    assert_eq!(found(&fixture, "needle").await, [message_id(1)]);
    let conn = rusqlite::Connection::open(fixture.path()).unwrap();
    let left: u32 =
        conn.query_row("SELECT count(*) FROM search_parts", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 1);
}

#[tokio::test]
async fn a_long_text_is_found_in_its_blob_and_shown_around_the_word() {
    let fixture = Fixture::with_session().await;
    let long = format!("{} needle in the hay {}", "straw ".repeat(5_000), "straw ".repeat(5_000));
    say(&fixture, 1, &long).await;
    index(&fixture).await;
    let page = search(&fixture, "needle").await;
    assert!(page.hits[0].excerpt.contains("straw needle in the hay straw"));
    assert!(page.hits[0].excerpt.len() < 220);
}

#[tokio::test]
async fn what_waits_for_the_index_survives_a_crash_and_comes_in_bites() {
    let fixture = Fixture::with_session().await;
    for n in 1..=64 {
        say(&fixture, n, "again and again").await;
    }
    let mut crashed = fixture.crash();
    assert!(crashed.reader().has_unindexed().await.unwrap());
    index(&crashed).await;
    assert_eq!(found(&crashed, "again").await.len(), 50);
    crashed.close();
    crashed.open();
    assert!(!crashed.reader().has_unindexed().await.unwrap());
    assert_eq!(fixture.write(IndexParts).await.unwrap(), Bite { rows: 64, more: false });
}
