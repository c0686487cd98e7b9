//! One connection.

use std::time::Duration;

use iris_client::{Authentication, ClientError, ConnectOptions, Socket};
use iris_protocol::{ApiError, ErrorCode, Ping, ServerFrame, SessionState, UserGet};
use serde_json::json;

use crate::fake::{Fake, Peer, project, soon, status, user};

async fn connected(fake: &Fake) -> (Socket, Peer) {
    let options = ConnectOptions::default();
    let (socket, peer) =
        tokio::join!(Socket::connect(&fake.url, "secret", &options), fake.connection());
    (socket.unwrap(), peer)
}

#[tokio::test]
async fn a_socket_authenticates_by_header_and_waits_for_connected() {
    let fake = Fake::start().await;
    let (socket, peer) = connected(&fake).await;
    assert_eq!(peer.authorization.as_deref(), Some("Bearer secret"));
    assert_eq!(socket.connected().unwrap().protocol, 1);
}

#[tokio::test]
async fn a_socket_authenticates_by_hello() {
    let fake = Fake::start().await;
    let authentication = Authentication::Hello { project_id: Some(project()) };
    let options = ConnectOptions { authentication, ..ConnectOptions::default() };
    let serve = async {
        let mut peer = fake.upgrade().await;
        assert_eq!(peer.authorization, None);
        let hello = peer.expect("hello").await;
        assert_eq!(hello.payload, json!({ "token": "secret", "projectId": project() }));
        peer.say_connected(0).await;
        peer
    };
    let (socket, _peer) = tokio::join!(Socket::connect(&fake.url, "secret", &options), serve);
    socket.unwrap();
}

#[tokio::test]
async fn a_refused_upgrade_and_a_refused_hello_are_api_errors() {
    let fake = Fake::start().await;
    let options = ConnectOptions::default();
    let (socket, ()) = tokio::join!(
        Socket::connect(&fake.url, "t", &options),
        fake.refuse(ErrorCode::TokenExpired)
    );
    assert_eq!(socket.unwrap_err().code(), ErrorCode::TokenExpired);

    let authentication = Authentication::Hello { project_id: None };
    let options = ConnectOptions { authentication, ..ConnectOptions::default() };
    let serve = async {
        let mut peer = fake.upgrade().await;
        let hello = peer.expect("hello").await;
        peer.fail(&hello, ErrorCode::Unauthenticated.into()).await;
        peer.close(4401, "").await;
    };
    let (socket, ()) = tokio::join!(Socket::connect(&fake.url, "t", &options), serve);
    assert!(matches!(socket, Err(ClientError::Api(e)) if e.code == ErrorCode::Unauthenticated));
}

#[tokio::test]
async fn responses_find_their_requests_in_any_order() {
    let fake = Fake::start().await;
    let (socket, mut peer) = connected(&fake).await;
    let serve = async {
        let first = peer.request().await;
        let second = peer.request().await;
        assert_ne!(first.id, second.id);
        for request in [&second, &first] {
            let payload = match request.r#type.as_str() {
                "ping" => json!({ "pong": 5 }),
                _ => json!({ "user": user() }),
            };
            peer.respond(request, payload).await;
        }
    };
    let (pong, me, ()) =
        tokio::join!(socket.call(None, Ping {}), socket.call(None, UserGet {}), serve);
    let pong = pong.unwrap();
    assert_eq!((pong.payload.pong, pong.seq), (5, Some(7)));
    assert_eq!(me.unwrap().payload.user, user());
}

#[tokio::test]
async fn a_failed_request_leaves_the_socket_usable() {
    let fake = Fake::start().await;
    let (socket, mut peer) = connected(&fake).await;
    let serve = async {
        let request = peer.request().await;
        peer.fail(&request, ApiError::not_found("x")).await;
        let request = peer.request().await;
        peer.respond(&request, json!({ "pong": "soon" })).await;
        let request = peer.request().await;
        peer.respond(&request, json!({ "pong": 1 })).await;
    };
    let calls = async {
        let refused = socket.call(None, Ping {}).await;
        assert_eq!(refused.unwrap_err().code(), ErrorCode::NotFound);
        assert!(matches!(socket.call(None, Ping {}).await, Err(ClientError::Protocol(_))));
        socket.call(None, Ping {}).await.unwrap();
    };
    tokio::join!(calls, serve);
}

#[tokio::test]
async fn events_come_in_order_and_unknown_frames_are_no_error() {
    let fake = Fake::start().await;
    let (socket, mut peer) = connected(&fake).await;
    peer.send(&json!({ "type": "from.the.future", "payload": 1 })).await;
    peer.durable(1, 0, status(SessionState::Running)).await;
    peer.durable(2, 1, status(SessionState::Idle)).await;
    let unknown = soon(socket.next_frame()).await.unwrap();
    assert!(matches!(unknown, ServerFrame::Unknown(_)));
    for (seq, state) in [(1, SessionState::Running), (2, SessionState::Idle)] {
        let frame = soon(socket.next_event()).await.unwrap();
        assert_eq!((frame.meta.seq, frame.event), (Some(seq), status(state)));
    }
}

#[tokio::test]
async fn raw_text_is_sent_as_it_is_and_its_response_is_a_frame() {
    let fake = Fake::start().await;
    let options = ConnectOptions::default();
    let (socket, mut peer) = tokio::join!(Socket::open(&fake.url, None, &options), fake.upgrade());
    let socket = socket.unwrap();
    socket.send_text(r#"{"id":"mine","type":"ping"}"#).await.unwrap();
    let request = peer.expect("ping").await;
    peer.respond(&request, json!({ "pong": 1 })).await;
    let ServerFrame::Response(response) = soon(socket.next_frame()).await.unwrap() else {
        panic!("expected a response")
    };
    assert_eq!(response.id.as_deref(), Some("mine"));
}

#[tokio::test]
async fn the_end_has_code_and_reason_and_fails_what_is_in_flight() {
    let fake = Fake::start().await;
    let (socket, mut peer) = connected(&fake).await;
    let serve = async {
        peer.durable(1, 0, status(SessionState::Idle)).await;
        peer.request().await;
        peer.close(4403, "disabled").await;
    };
    let (call, ()) = tokio::join!(socket.call(None, Ping {}), serve);
    let is_end = |error: &ClientError| matches!(error, ClientError::Closed { code: 4403, reason } if reason == "disabled");
    assert!(is_end(&call.unwrap_err()));
    // What came before the end can still be read.
    soon(socket.next_event()).await.unwrap();
    assert!(is_end(&soon(socket.next_event()).await.unwrap_err()));
    assert!(is_end(&soon(socket.call(None, Ping {})).await.unwrap_err()));
}

#[tokio::test]
async fn a_lost_connection_is_an_abnormal_end() {
    let fake = Fake::start().await;
    let (socket, peer) = connected(&fake).await;
    drop(peer);
    let end = soon(socket.next_frame()).await.unwrap_err();
    assert!(matches!(end, ClientError::Closed { code: 1006, .. }));
}

#[tokio::test]
async fn a_frame_of_a_known_type_and_another_shape_ends_the_socket() {
    let fake = Fake::start().await;
    let (socket, mut peer) = connected(&fake).await;
    peer.send(&json!({ "type": "session.status", "payload": {} })).await;
    let end = soon(socket.next_frame()).await.unwrap_err();
    assert!(matches!(end, ClientError::Closed { code: 1002, .. }));
}

#[tokio::test]
async fn a_request_without_an_answer_times_out() {
    let fake = Fake::start().await;
    let options =
        ConnectOptions { request_timeout: Duration::from_millis(200), ..ConnectOptions::default() };
    let (socket, mut peer) =
        tokio::join!(Socket::connect(&fake.url, "t", &options), fake.connection());
    let socket = socket.unwrap();
    assert!(matches!(soon(socket.call(None, Ping {})).await, Err(ClientError::Timeout)));
    // The late answer belongs to nobody and is a frame like any other.
    let request = peer.request().await;
    peer.respond(&request, json!({ "pong": 1 })).await;
    assert!(matches!(soon(socket.next_frame()).await, Ok(ServerFrame::Response(_))));
}

#[tokio::test]
async fn closing_is_a_handshake_with_code_1000() {
    let fake = Fake::start().await;
    let (socket, peer) = connected(&fake).await;
    let (code, ()) = tokio::join!(peer.closed(), soon(socket.close()));
    assert_eq!(code, 1000);
}

#[tokio::test]
async fn a_caller_that_reads_late_misses_nothing() {
    // More than the socket keeps, so that the reading of the connection stops for a while.
    const EVENTS: u64 = 5000;
    let fake = Fake::start().await;
    let (socket, mut peer) = connected(&fake).await;
    let serve = async {
        for seq in 1..=EVENTS {
            peer.durable(seq, seq - 1, status(SessionState::Idle)).await;
        }
        let request = peer.expect("ping").await;
        peer.respond(&request, json!({ "pong": 1 })).await;
    };
    let read = async {
        for seq in 1..=EVENTS {
            assert_eq!(socket.next_event().await.unwrap().meta.seq, Some(seq));
        }
    };
    // The call is made first: its response waits behind the events that nobody has read yet.
    let (pong, (), ()) =
        soon(async { tokio::join!(socket.call(None, Ping {}), serve, read) }).await;
    assert_eq!(pong.unwrap().payload.pong, 1);
}

#[tokio::test]
async fn a_message_that_is_too_big_ends_the_socket() {
    let fake = Fake::start().await;
    let (socket, mut peer) = connected(&fake).await;
    let text = json!("x".repeat(32 * 1024 * 1024));
    let read = async move { socket.next_frame().await };
    let (end, ()) = soon(async { tokio::join!(read, peer.try_send(&text)) }).await;
    assert!(matches!(end, Err(ClientError::Closed { code: 1009, .. })));
}
