//! Following the supervision log through everything that can happen to a connection.

use std::time::Duration;

use iris_client::{
    Backoff, ClientError, ConnectOptions, SupervisionFollowOptions, SupervisionFollower,
    SupervisionUpdate,
};
use iris_protocol::{
    ErrorCode, Event, EventFrame, EventMeta, Room, SupervisionKind, SupervisionList,
    SupervisionRecord,
};
use serde_json::{Value, json};

use crate::fake::{Fake, Peer, soon};

fn start(fake: &Fake, records: SupervisionList) -> SupervisionFollower {
    let backoff = Backoff { first: Duration::from_millis(1), max: Duration::from_millis(1) };
    let connect = ConnectOptions::default();
    let options = SupervisionFollowOptions { records, connect, backoff };
    SupervisionFollower::start(fake.client().with_token("access"), options)
}

fn record(id: u64) -> SupervisionRecord {
    SupervisionRecord {
        id,
        at: 0,
        kind: SupervisionKind::Started,
        path: "node/root".to_owned(),
        actor_kind: "root".to_owned(),
        reason: None,
        error: None,
        location: None,
        message: None,
        request_id: None,
        counts: std::collections::BTreeMap::default(),
    }
}

fn page(ids: &[u64], has_more: bool) -> Value {
    let records: Vec<_> = ids.iter().map(|id| record(*id)).collect();
    json!({ "data": records, "meta": { "hasMore": has_more, "dropped": 0 } })
}

/// Accepts a socket and lets it into the room.
async fn joined(fake: &Fake) -> Peer {
    let mut peer = fake.connection().await;
    let request = peer.expect("subscribe").await;
    assert_eq!((&request.project_id, &request.payload["rooms"]), (&None, &json!(["admin"])));
    let outcome = json!({ "room": "admin", "status": "live", "from": 0, "to": 0, "epoch": "" });
    peer.respond(&request, json!({ "rooms": [outcome] })).await;
    peer
}

async fn tell(peer: &mut Peer, record: SupervisionRecord) {
    let meta = EventMeta {
        project_id: None,
        room: Room::Admin,
        seq: None,
        prev: None,
        at: None,
        by: None,
    };
    let frame = EventFrame { meta, event: Event::supervision(record) };
    peer.send(&serde_json::to_value(frame).unwrap()).await;
}

async fn next(follower: &mut SupervisionFollower) -> SupervisionUpdate {
    soon(follower.next()).await.unwrap()
}

/// The ids of the next records, up to something that is none.
async fn ids(follower: &mut SupervisionFollower) -> (Vec<u64>, SupervisionUpdate) {
    let mut ids = Vec::new();
    loop {
        match next(follower).await {
            SupervisionUpdate::Record(record) => ids.push(record.id),
            other @ (SupervisionUpdate::Live
            | SupervisionUpdate::Polling { .. }
            | SupervisionUpdate::Reconnecting { .. }) => return (ids, other),
        }
    }
}

#[tokio::test]
async fn what_was_missed_comes_before_what_comes_and_nothing_twice() {
    let fake = Fake::start().await;
    let mut follower = start(&fake, SupervisionList::default());
    let mut peer = joined(&fake).await;
    // Told before the page was read, and in it as well.
    tell(&mut peer, record(5)).await;
    let asked = fake.answer(200, page(&[3, 5], true)).await;
    assert!(asked.head.starts_with("get /v1/admin/supervision http"), "{}", asked.head);
    let asked = fake.answer(200, page(&[8], false)).await;
    assert!(asked.head.starts_with("get /v1/admin/supervision?since=5&"), "{}", asked.head);
    tell(&mut peer, record(9)).await;
    assert_eq!(ids(&mut follower).await, (vec![3, 5, 8], SupervisionUpdate::Live));
    assert_eq!(next(&mut follower).await, SupervisionUpdate::Record(Box::new(record(9))));

    peer.close(1012, "").await;
    let (none, update) = ids(&mut follower).await;
    assert!(none.is_empty() && matches!(update, SupervisionUpdate::Polling { .. }), "{update:?}");
    let _peer = joined(&fake).await;
    let asked = fake.answer(200, page(&[12], false)).await;
    assert!(asked.head.starts_with("get /v1/admin/supervision?since=9&"), "{}", asked.head);
    assert_eq!(ids(&mut follower).await, (vec![12], SupervisionUpdate::Live));
}

#[tokio::test]
async fn an_empty_log_is_followed_from_its_first_record() {
    let fake = Fake::start().await;
    let mut follower = start(&fake, SupervisionList::default());
    let peer = joined(&fake).await;
    fake.answer(200, page(&[], false)).await;
    assert_eq!(next(&mut follower).await, SupervisionUpdate::Live);
    peer.close(4008, "").await;
    joined(&fake).await;
    let asked = fake.answer(200, page(&[1], false)).await;
    assert!(asked.head.starts_with("get /v1/admin/supervision?since=0&"), "{}", asked.head);
}

#[tokio::test]
async fn only_what_is_wanted_is_told() {
    let fake = Fake::start().await;
    let wanted = SupervisionList {
        since: Some(1),
        kind: Some(SupervisionKind::Panicked),
        path: Some("node/a".to_owned()),
        limit: None,
    };
    let mut follower = start(&fake, wanted);
    let mut peer = joined(&fake).await;
    let asked = fake.answer(200, page(&[], false)).await;
    let query = "?since=1&kind=panicked&path=node%2fa&limit=1000 ";
    assert!(asked.head.contains(query), "{}", asked.head);
    assert_eq!(next(&mut follower).await, SupervisionUpdate::Live);
    let panicked = |id, path: &str| SupervisionRecord {
        kind: SupervisionKind::Panicked,
        path: path.to_owned(),
        ..record(id)
    };
    tell(&mut peer, panicked(2, "node/ab")).await;
    tell(&mut peer, SupervisionRecord { path: "node/a".to_owned(), ..record(3) }).await;
    tell(&mut peer, panicked(4, "node/a/b")).await;
    let expected = SupervisionUpdate::Record(Box::new(panicked(4, "node/a/b")));
    assert_eq!(next(&mut follower).await, expected);
}

#[tokio::test]
async fn without_a_socket_records_come_in_pages() {
    let fake = Fake::start().await;
    let mut follower = start(&fake, SupervisionList::default());
    for id in 1..=3 {
        // Something between client and server that lets no socket through.
        fake.answer(400, json!({})).await;
        fake.answer(200, page(&[id], false)).await;
        let (ids, update) = ids(&mut follower).await;
        assert_eq!(ids, [id]);
        assert!(matches!(update, SupervisionUpdate::Polling { .. }), "{update:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for() {
    let fake = Fake::start().await;
    let mut follower = start(&fake, SupervisionList::default());
    for _ in 0..2 {
        fake.refuse(ErrorCode::ShuttingDown).await;
        fake.answer(503, json!({})).await;
        let update = next(&mut follower).await;
        assert!(matches!(update, SupervisionUpdate::Reconnecting { .. }), "{update:?}");
    }
    let _peer = joined(&fake).await;
    fake.answer(200, page(&[1], false)).await;
    assert_eq!(ids(&mut follower).await, (vec![1], SupervisionUpdate::Live));
}

#[tokio::test]
async fn who_is_refused_is_told_once() {
    let fake = Fake::start().await;
    let mut follower = start(&fake, SupervisionList::default());
    fake.refuse(ErrorCode::Forbidden).await;
    fake.answer(403, json!({ "error": iris_protocol::ApiError::from(ErrorCode::Forbidden) })).await;
    let refused = soon(follower.next()).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Forbidden);
    let ended = soon(follower.next()).await.unwrap_err();
    assert!(matches!(ended, ClientError::Closed { code: 1000, .. }), "{ended}");
}
