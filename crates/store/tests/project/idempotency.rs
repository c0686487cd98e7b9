//! Repeats of a command.

use iris_protocol::UserId;
use iris_store::{IdempotencyKey, StoreError, WriteContext};

use crate::fixture::*;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn key(user_id: UserId, key: &str, body_hash: &str, at: i64) -> WriteContext {
    let (key, body_hash) = (key.into(), body_hash.into());
    let operation = "session.create".into();
    WriteContext {
        idempotency: Some(IdempotencyKey { user_id, operation, key, body_hash, at }),
        audit: None,
    }
}

#[tokio::test]
async fn a_repeat_answers_what_the_first_one_answered() {
    let fixture = Fixture::new();
    let first = fixture.commit(create_session(1), key(ann(), "k", "b", NOW)).await.unwrap();
    assert!(!first.replayed);
    assert_eq!(first.seq, Some(2));
    let copy = fixture.crash();
    for again in [&fixture, &copy] {
        again.take_events();
        let repeat = again.commit(create_session(2), key(ann(), "k", "b", NOW + 1)).await.unwrap();
        assert!(repeat.replayed);
        assert_eq!((repeat.output, repeat.seq), (first.output.clone(), first.seq));
        assert!(again.take_events().is_empty());
    }
}

#[tokio::test]
async fn a_key_belongs_to_one_user_and_one_body() {
    let fixture = Fixture::new();
    fixture.commit(create_session(1), key(ann(), "k", "b", NOW)).await.unwrap();
    let other_body = fixture.commit(create_session(2), key(ann(), "k", "c", NOW)).await;
    assert!(matches!(other_body, Err(StoreError::IdempotencyConflict)), "{other_body:?}");
    let other_user = fixture.commit(create_session(3), key(bob(), "k", "c", NOW)).await.unwrap();
    assert!(!other_user.replayed);
    let other_key = fixture.commit(create_session(4), key(ann(), "l", "b", NOW)).await.unwrap();
    assert!(!other_key.replayed);
}

#[tokio::test]
async fn a_refused_command_keeps_no_outcome() {
    let fixture = Fixture::new();
    let context = key(ann(), "k", "b", NOW);
    assert!(fixture.commit(accept(1), context.clone()).await.is_err());
    fixture.write(create_session(1)).await.unwrap();
    let accepted = fixture.commit(accept(1), context).await.unwrap();
    assert!(!accepted.replayed);
}

#[tokio::test]
async fn a_key_is_forgotten_after_a_day() {
    let fixture = Fixture::new();
    fixture.commit(create_session(1), key(ann(), "k", "b", NOW)).await.unwrap();
    let late = key(ann(), "k", "b", NOW + DAY_MS - 1);
    assert!(fixture.commit(create_session(2), late).await.unwrap().replayed);
    let too_late = key(ann(), "k", "b", NOW + DAY_MS);
    assert!(!fixture.commit(create_session(3), too_late).await.unwrap().replayed);
}
