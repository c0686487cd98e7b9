//! Following a session through everything that can happen to a connection.

use std::time::Duration;

use iris_client::{Backoff, Client, ClientError, FollowOptions, Follower, Update};
use iris_protocol::{ErrorCode, Event, Ping, Position, SessionState, SnapshotKind, StreamKind};
use serde_json::json;

use crate::fake::{
    Fake, Peer, delta, grant, message, part, project, session, snapshot, soon, status,
    text_complete,
};

fn options() -> FollowOptions {
    let backoff = Backoff { first: Duration::from_millis(1), max: Duration::from_millis(1) };
    FollowOptions { backoff, failures_max: 3, ..FollowOptions::default() }
}

fn since(seq: u64) -> FollowOptions {
    FollowOptions { since: Some(Position { epoch: "e1".to_owned(), seq }), ..options() }
}

fn start(client: Client, options: FollowOptions) -> Follower {
    Follower::start(client, project(), session(), options)
}

/// A follower that is connected and joined after event 5.
async fn joined(fake: &Fake) -> (Follower, Peer) {
    let mut follower = start(fake.logged_in(), since(5));
    let mut peer = fake.connection().await;
    peer.join(5, "replayed", 5).await;
    assert_eq!(next(&mut follower).await, Update::Connected);
    (follower, peer)
}

async fn next(follower: &mut Follower) -> Update {
    soon(follower.next()).await.unwrap()
}

/// The state that the next update, a `session.status`, tells.
async fn next_state(follower: &mut Follower) -> SessionState {
    let Update::Event(frame) = next(follower).await else { panic!("expected an event") };
    let Event::SessionStatus { state, .. } = frame.event else { panic!("expected a status") };
    state
}

fn text(offset: u64, delta: &str) -> Update {
    let (message_id, part_id) = (message(), part());
    let delta = delta.to_owned();
    Update::Text { message_id, part_id, kind: StreamKind::Text, offset, delta }
}

#[tokio::test]
async fn without_a_position_the_first_update_is_the_whole_session() {
    let fake = Fake::start().await;
    let mut follower = start(fake.logged_in(), options());
    let mut peer = fake.connection().await;
    peer.give_snapshot(40).await;
    assert_eq!(next(&mut follower).await, Update::Reset(Box::new(snapshot(40))));
    peer.join(40, "replayed", 40).await;
    assert_eq!(next(&mut follower).await, Update::Connected);
    // The room's own last event may be older than the snapshot of the project.
    peer.durable(44, 31, status(SessionState::Running)).await;
    assert_eq!(next_state(&mut follower).await, SessionState::Running);
}

#[tokio::test]
async fn text_is_joined_and_its_deltas_are_no_events() {
    let fake = Fake::start().await;
    let (mut follower, mut peer) = joined(&fake).await;
    peer.ephemeral(delta(0, "Hel")).await;
    peer.ephemeral(delta(2, "llo")).await;
    peer.ephemeral(delta(0, "Hello")).await;
    peer.durable(6, 5, text_complete("Hello world")).await;
    assert_eq!(next(&mut follower).await, text(0, "Hel"));
    assert_eq!(next(&mut follower).await, text(3, "lo"));
    assert_eq!(next(&mut follower).await, text(5, " world"));
    let Update::Event(frame) = next(&mut follower).await else { panic!("expected an event") };
    assert_eq!(frame.event, text_complete("Hello world"));
}

#[tokio::test]
async fn a_lost_connection_is_resumed_after_the_last_event() {
    let fake = Fake::start().await;
    let (mut follower, mut peer) = joined(&fake).await;
    peer.durable(6, 5, status(SessionState::Running)).await;
    peer.ephemeral(delta(0, "Hel")).await;
    assert_eq!(next_state(&mut follower).await, SessionState::Running);
    assert_eq!(next(&mut follower).await, text(0, "Hel"));
    peer.close(4008, "slow").await;
    assert!(matches!(next(&mut follower).await, Update::Reconnecting { .. }));

    let mut peer = fake.connection().await;
    peer.join(6, "replayed", 8).await;
    // A replay may repeat what was seen, and brings the end of the part that was cut off.
    peer.durable(6, 5, status(SessionState::Running)).await;
    peer.durable(7, 6, text_complete("Hello")).await;
    peer.durable(8, 7, status(SessionState::Idle)).await;
    assert_eq!(next(&mut follower).await, Update::Connected);
    assert_eq!(next(&mut follower).await, text(3, "lo"));
    assert!(matches!(next(&mut follower).await, Update::Event(_)));
    assert_eq!(next_state(&mut follower).await, SessionState::Idle);
}

#[tokio::test]
async fn a_missing_event_is_fetched_by_subscribing_again() {
    let fake = Fake::start().await;
    let (mut follower, mut peer) = joined(&fake).await;
    peer.durable(8, 7, status(SessionState::Idle)).await;
    peer.durable(9, 8, status(SessionState::Queued)).await;
    peer.join(5, "replayed", 9).await;
    peer.durable(7, 5, status(SessionState::Running)).await;
    peer.durable(8, 7, status(SessionState::Idle)).await;
    peer.durable(9, 8, status(SessionState::Queued)).await;
    for state in [SessionState::Running, SessionState::Idle, SessionState::Queued] {
        assert_eq!(next_state(&mut follower).await, state);
    }
}

#[tokio::test]
async fn a_missing_event_that_no_other_follows_is_found_by_a_heartbeat() {
    let fake = Fake::start().await;
    let (mut follower, mut peer) = joined(&fake).await;
    for seq in [5, 6] {
        let rooms =
            serde_json::json!({ format!("session:{}", session()): { "epoch": "e1", "seq": seq } });
        let payload = serde_json::json!({ "rooms": rooms, "at": 0 });
        peer.send(&serde_json::json!({ "type": "heartbeat", "payload": payload })).await;
    }
    peer.join(5, "replayed", 6).await;
    peer.durable(6, 5, status(SessionState::Running)).await;
    assert_eq!(next_state(&mut follower).await, SessionState::Running);
}

#[tokio::test]
async fn missing_text_is_fetched_by_subscribing_again() {
    let fake = Fake::start().await;
    let (mut follower, mut peer) = joined(&fake).await;
    peer.ephemeral(delta(3, "lo")).await;
    peer.join(5, "replayed", 5).await;
    peer.ephemeral(Event::MessagePartSnapshot {
        session_id: session(),
        message_id: message(),
        part_id: part(),
        kind: SnapshotKind::Text,
        tool_name: None,
        r#gen: 1,
        length: 5,
        text: "Hello".to_owned(),
    })
    .await;
    assert_eq!(next(&mut follower).await, text(0, "Hello"));
}

#[tokio::test]
async fn a_position_that_is_too_old_is_replaced_by_a_snapshot() {
    let fake = Fake::start().await;
    let mut follower = start(fake.logged_in(), since(5));
    let mut peer = fake.connection().await;
    peer.join(5, "reset", 0).await;
    peer.give_snapshot(2000).await;
    peer.join(2000, "replayed", 2000).await;
    assert_eq!(next(&mut follower).await, Update::Reset(Box::new(snapshot(2000))));
    assert_eq!(next(&mut follower).await, Update::Connected);
}

#[tokio::test]
async fn endless_resets_end_the_following() {
    let fake = Fake::start().await;
    let mut follower = start(fake.logged_in(), since(0));
    let mut peer = fake.connection().await;
    peer.join(0, "reset", 0).await;
    for _ in 1..5 {
        peer.give_snapshot(1).await;
        peer.join(1, "reset", 0).await;
        assert!(matches!(next(&mut follower).await, Update::Reset(_)));
    }
    assert!(matches!(soon(follower.next()).await, Err(ClientError::Protocol(_))));
}

#[tokio::test]
async fn an_expired_token_is_refreshed_and_the_connection_made_again() {
    let fake = Fake::start().await;
    let (mut follower, peer) = joined(&fake).await;
    peer.close(4401, "").await;
    let request = fake.answer(200, json!({ "data": grant("second") })).await;
    assert!(request.head.starts_with("post /v1/auth/refresh "));
    assert!(matches!(next(&mut follower).await, Update::Reconnecting { .. }));
    let mut peer = fake.connection().await;
    assert_eq!(peer.authorization.as_deref(), Some("Bearer second"));
    peer.join(5, "replayed", 5).await;
    assert_eq!(next(&mut follower).await, Update::Connected);
}

#[tokio::test]
async fn a_token_that_cannot_be_refreshed_ends_the_following() {
    let fake = Fake::start().await;
    let mut follower = start(fake.client().with_token("t"), since(5));
    fake.refuse(ErrorCode::Unauthenticated).await;
    let end = soon(follower.next()).await.unwrap_err();
    assert_eq!(end.code(), ErrorCode::Unauthenticated);
    assert!(matches!(soon(follower.next()).await, Err(ClientError::Closed { code: 1000, .. })));
}

#[tokio::test]
async fn a_token_that_is_about_to_end_is_renewed_on_the_socket() {
    let fake = Fake::start().await;
    let (mut follower, mut peer) = joined(&fake).await;
    peer.send(&json!({ "type": "auth.expiring", "payload": { "expiresAt": 1 } })).await;
    fake.answer(200, json!({ "data": grant("second") })).await;
    let request = peer.expect("auth.refresh").await;
    assert_eq!(request.payload, json!({ "token": "second" }));
    peer.respond(&request, json!({ "expiresAt": 2 })).await;
    peer.durable(6, 5, status(SessionState::Running)).await;
    assert_eq!(next_state(&mut follower).await, SessionState::Running);
}

#[tokio::test]
async fn a_close_code_that_forbids_it_is_not_followed_by_another_attempt() {
    let fake = Fake::start().await;
    let (mut follower, peer) = joined(&fake).await;
    peer.close(4403, "disabled").await;
    let end = soon(follower.next()).await;
    assert!(matches!(end, Err(ClientError::Closed { code: 4403, .. })));
}

#[tokio::test]
async fn attempts_end_at_the_limit() {
    let fake = Fake::start().await;
    let mut follower = start(fake.logged_in(), since(5));
    drop(fake);
    for _ in 0..3 {
        assert!(matches!(next(&mut follower).await, Update::Reconnecting { .. }));
    }
    assert!(matches!(soon(follower.next()).await, Err(ClientError::Transport(_))));
}

#[tokio::test]
async fn a_server_that_asks_for_time_gets_it() {
    let fake = Fake::start().await;
    let (mut follower, peer) = joined(&fake).await;
    peer.close(1012, "retryAfterMs=60").await;
    let Update::Reconnecting { delay, .. } = next(&mut follower).await else {
        panic!("expected a new attempt")
    };
    assert_eq!(delay, Duration::from_millis(60));
}

#[tokio::test]
async fn a_refused_or_lost_room_ends_the_following() {
    let fake = Fake::start().await;
    let mut follower = start(fake.logged_in(), since(5));
    let mut peer = fake.connection().await;
    let request = peer.expect("subscribe").await;
    let refused = json!({ "room": "r", "status": "refused", "from": 0, "to": 0, "epoch": "", "code": "NOT_FOUND" });
    peer.respond(&request, json!({ "rooms": [refused] })).await;
    assert_eq!(soon(follower.next()).await.unwrap_err().code(), ErrorCode::NotFound);

    let (mut follower, mut peer) = joined(&fake).await;
    let room = format!("session:{}", session());
    peer.ephemeral(Event::RoomLeft { room, code: ErrorCode::Forbidden }).await;
    assert!(matches!(next(&mut follower).await, Update::Event(_)));
    assert_eq!(soon(follower.next()).await.unwrap_err().code(), ErrorCode::Forbidden);
}

#[tokio::test]
async fn a_call_waits_for_the_connection() {
    let fake = Fake::start().await;
    let follower = start(fake.logged_in(), since(5));
    let serve = async {
        let mut peer = fake.connection().await;
        peer.join(5, "replayed", 5).await;
        let request = peer.expect("ping").await;
        assert_eq!(request.project_id, Some(project()));
        peer.respond(&request, json!({ "pong": 1 })).await;
        peer
    };
    let (pong, _peer) = tokio::join!(follower.call(Ping {}), serve);
    assert_eq!(pong.unwrap().payload.pong, 1);
}

#[tokio::test]
async fn a_caller_that_reads_late_misses_nothing() {
    // More than the follower and its socket keep together.
    const LAST: u64 = 5 + 5000;
    let fake = Fake::start().await;
    let (mut follower, mut peer) = joined(&fake).await;
    let serve = async {
        for seq in 6..=LAST {
            peer.durable(seq, seq - 1, status(SessionState::Idle)).await;
        }
    };
    soon(serve).await;
    for seq in 6..=LAST {
        let Update::Event(frame) = next(&mut follower).await else { panic!("expected an event") };
        assert_eq!(frame.meta.seq, Some(seq));
    }
}
