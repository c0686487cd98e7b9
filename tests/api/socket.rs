//! The socket itself: how it begins, what it takes and when it closes.

use std::time::Duration;

use iris_actors::connection::SocketSettings;
use iris_client::{Authentication, ConnectOptions};
use iris_protocol::{
    ActorInfo, ErrorCode, Event, EventFrame, Ping, ProjectGet, RoomRequest, Subscribe,
    limits::{
        FRAGMENTS_MAX, FRAME_BYTES_MAX, HELLO_BYTES_MAX, OUTBOUND_BYTES_MAX, REQUESTS_IN_FLIGHT_MAX,
    },
};
use iris_testkit::{
    AppOptions, FakeProvider, Incoming, PASSWORD, Person, WireSocket, patiently, spawn_app,
    spawn_app_with,
};
use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::frame::coding::Data;

use crate::metrics::outbound_bytes;
use crate::{code_of, flood, refusal};

#[tokio::test]
async fn the_first_frame_says_who_and_where() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let socket = ann.connect().await;
    let connected = socket.connected().unwrap();
    assert_eq!((&connected.user_id, connected.protocol), (ann.id(), 1));
    assert_eq!(connected.limits.frame_bytes_max, FRAME_BYTES_MAX);
    assert_eq!(connected.features, ["presence", "toolInput", "transfers"]);
    assert_eq!(connected.expires_at, ann.grant.expires_at);
    let pong = socket.call(None, Ping {}).await.unwrap().payload.pong;
    assert!(pong >= ann.grant.user.created_at);
}

#[tokio::test]
async fn a_browser_says_hello_with_a_default_project() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let authentication = Authentication::Hello { project_id: Some(project.clone()) };
    let options = ConnectOptions { authentication, ..ConnectOptions::default() };
    let socket = ann.client.connect(&options).await.unwrap();
    assert_eq!(socket.connected().unwrap().project_id.as_ref(), Some(&project));
    let found = socket.call(None, ProjectGet {}).await.unwrap().payload.project;
    assert_eq!(found.id, project);
    let second = iris_protocol::Hello { token: ann.token().to_owned(), project_id: None };
    let again = refusal(socket.call(None, second).await);
    assert_eq!(code_of(&again), (ErrorCode::Conflict, "already_authenticated"));
}

#[tokio::test]
async fn without_a_project_an_operation_in_one_is_refused() {
    let app = spawn_app().await;
    let socket = app.user("ann").await.connect().await;
    let refused = refusal(socket.call(None, ProjectGet {}).await);
    assert_eq!(code_of(&refused), (ErrorCode::InvalidRequest, "missing_project_id"));
}

#[tokio::test]
async fn a_wrong_hello_closes_the_socket() {
    let app = spawn_app().await;
    let mut socket = WireSocket::open(&app.url, None).await.unwrap();
    socket.ask("1", "hello", None, json!({ "token": "nonsense" })).await;
    assert_eq!(socket.next_json().await["error"]["code"], "UNAUTHENTICATED");
    assert_eq!(socket.close_code().await, 4401);
}

#[tokio::test]
async fn a_socket_that_does_not_say_hello_in_time_is_closed() {
    let options = AppOptions { hello_timeout: Duration::from_millis(30), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let mut silent = WireSocket::open(&app.url, None).await.unwrap();
    assert_eq!(silent.close_code().await, 4402);
    let mut busy = WireSocket::open(&app.url, None).await.unwrap();
    busy.say("{").await;
    assert_eq!(busy.close_code().await, 4402);
    let mut wordy = WireSocket::open(&app.url, None).await.unwrap();
    wordy.say("x".repeat(HELLO_BYTES_MAX + 1)).await;
    assert_eq!(wordy.close_code().await, 1009);
}

#[tokio::test]
async fn a_token_in_the_url_is_refused() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    for query in [format!("?token={}", ann.token()), "?a=b&ACCESS_TOKEN=x".to_owned()] {
        let opened = WireSocket::open_with(&app.url, &query, None, &[]).await;
        assert_eq!(refusal(opened.map(drop)).code, ErrorCode::TokenInUrl, "{query}");
    }
    let bad = WireSocket::open(&app.url, Some("nonsense")).await;
    assert_eq!(refusal(bad.map(drop)).code, ErrorCode::Unauthenticated);
}

#[tokio::test]
async fn only_the_servers_host_and_listed_pages_are_served() {
    let origins = vec!["https://app.example".to_owned()];
    let options = AppOptions { allowed_origins: origins, ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let ann = app.user("ann").await;
    let open = async |header: (&str, &str)| {
        let opened = WireSocket::open_with(&app.url, "", Some(ann.token()), &[header]).await;
        opened.map(drop)
    };
    assert_eq!(refusal(open(("host", "evil.example")).await).code, ErrorCode::BadHost);
    for origin in
        ["https://evil.example", "null", "https://app.example.evil.com", "http://app.example"]
    {
        let evil = refusal(open(("origin", origin)).await);
        assert_eq!(code_of(&evil), (ErrorCode::Forbidden, "origin"), "{origin}");
    }
    open(("origin", "https://app.example")).await.unwrap();
    open(("host", "localhost")).await.unwrap();

    let get = async |header: (&str, &str)| {
        let headers = [header];
        let answer = ann.client.raw("GET", "/v1/me", Some(ann.token()), &headers, "".into());
        answer.await.unwrap().status
    };
    assert_eq!(get(("host", "evil.example")).await, 421);
    assert_eq!(get(("origin", "https://evil.example")).await, 403);
    assert_eq!(get(("origin", "https://app.example")).await, 200);
}

#[tokio::test]
async fn a_page_of_a_listed_origin_may_read_what_it_is_answered() {
    let origins = vec!["https://app.example".to_owned(), "https://other.example".to_owned()];
    let options = AppOptions { allowed_origins: origins, ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let ann = app.user("ann").await;
    let ask = async |method: &str, origin: &str, token: Option<&str>| {
        let wants = [
            ("origin", origin),
            ("access-control-request-method", "PATCH"),
            ("access-control-request-headers", "authorization,content-type,idempotency-key"),
        ];
        // What a browser asks before the request itself has one header more.
        let headers = if method == "OPTIONS" { &wants[..] } else { &wants[..1] };
        ann.client.raw(method, "/v1/projects", token, headers, "".into()).await.unwrap()
    };
    let asked = ask("OPTIONS", "https://app.example", None).await;
    assert_eq!(asked.status, 200);
    assert_eq!(asked.headers["access-control-allow-origin"], "https://app.example");
    assert!(asked.headers["access-control-allow-methods"].to_str().unwrap().contains("PATCH"));
    assert!(
        asked.headers["access-control-allow-headers"].to_str().unwrap().contains("idempotency-key")
    );
    for (token, status) in [(Some(ann.token()), 200), (None, 401)] {
        let answer = ask("GET", "https://app.example", token).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.headers["access-control-allow-origin"], "https://app.example");
        assert!(
            answer.headers["access-control-expose-headers"]
                .to_str()
                .unwrap()
                .contains("retry-after")
        );
        assert!(!answer.headers.contains_key("access-control-allow-credentials"));
    }
    let evil = ask("OPTIONS", "https://evil.example", None).await;
    assert_eq!(evil.status, 403);
    assert!(!evil.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn a_request_that_is_no_upgrade_is_refused() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let error = crate::rest_refusal(&ann.get("/v1/ws").await);
    assert_eq!(code_of(&error), (ErrorCode::InvalidRequest, "handshake"));
}

#[tokio::test]
async fn a_message_may_come_in_fragments_with_pings_between_them() {
    let app = spawn_app().await;
    let mut socket = app.user("ann").await.wire().await;
    socket.frame(Data::Text, br#"{"id":"1","#, false).await;
    socket.ping(b"still there?").await;
    assert_eq!(socket.next().await, Incoming::Pong("still there?".into()));
    socket.frame(Data::Continue, br#""type":"#, false).await;
    socket.frame(Data::Continue, br#""ping"}"#, true).await;
    assert_eq!(socket.response("1").await["success"], true);
}

/// What it is, its payload, and whether it is the last of its message.
type RawFrame<'a> = (Data, &'a [u8], bool);

#[tokio::test]
async fn what_breaks_the_transports_rules_closes_the_socket_with_the_code_for_it() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let large = vec![b' '; FRAME_BYTES_MAX + 1];
    let half = vec![b' '; FRAME_BYTES_MAX / 2 + 1];
    let cases: [(&str, u16, &[RawFrame]); 5] = [
        ("a frame that is too large", 1009, &[(Data::Text, &large, true)]),
        (
            "fragments that are too large",
            1009,
            &[(Data::Text, &half, false), (Data::Continue, &half, true)],
        ),
        ("text that is not UTF-8", 1007, &[(Data::Text, &[0xff, 0xfe], true)]),
        ("a fragment of nothing", 1002, &[(Data::Continue, b"{}", true)]),
        (
            "a message inside a message",
            1002,
            &[(Data::Text, b"{", false), (Data::Text, b"{", true)],
        ),
    ];
    for (what, code, frames) in cases {
        let mut socket = ann.wire().await;
        for (data, bytes, is_last) in frames {
            socket.frame(*data, bytes, *is_last).await;
        }
        assert_eq!(socket.close_code().await, code, "{what}");
    }
    let mut whole = ann.wire().await;
    let mut fits = br#"{"id":"1","type":"ping"}"#.to_vec();
    fits.resize(FRAME_BYTES_MAX, b' ');
    whole.frame(Data::Text, &fits, true).await;
    assert_eq!(whole.response("1").await["success"], true);
}

/// W6: also of fragments without a byte there are so many in a message.
#[tokio::test]
async fn a_message_of_too_many_fragments_closes_the_socket() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    for (count, is_too_many) in [(FRAGMENTS_MAX, false), (FRAGMENTS_MAX + 1, true)] {
        let mut socket = ann.wire().await;
        socket.frame(Data::Text, br#"{"id":"1","type":"ping"}"#, false).await;
        for n in 2..=count {
            socket.frame(Data::Continue, b"", n == count).await;
        }
        if is_too_many {
            assert_eq!(socket.close_code().await, 1008);
        } else {
            assert_eq!(socket.response("1").await["success"], true);
        }
    }
}

#[tokio::test]
async fn requests_in_flight_are_bounded_and_the_socket_goes_on() {
    // A project that is written to by a long commit cannot be had on purpose; many requests at once
    // are more than the server answers before it has read them all.
    let provider = FakeProvider::start([]).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let mut socket = ann.wire().await;
    let total = REQUESTS_IN_FLIGHT_MAX * 8;
    for index in 0..total {
        let payload = json!({ "title": format!("{index}") });
        socket.ask(&index.to_string(), "session.create", Some(project.as_str()), payload).await;
    }
    let (mut done, mut refused) = (0, 0);
    for _ in 0..total {
        let frame = socket.next_json().await;
        if frame["success"] == true {
            done += 1;
        } else {
            assert_eq!(frame["error"]["code"], "RATE_LIMITED");
            assert_eq!(frame["error"]["retryable"], true);
            refused += 1;
        }
    }
    assert!(done >= REQUESTS_IN_FLIGHT_MAX, "{done}");
    assert!(refused > 0, "nothing was refused");
    let list = ann.get(&format!("/v1/projects/{project}/sessions?limit=200")).await.json;
    assert_eq!(list["data"].as_array().unwrap().len(), done.min(200));
    socket.ask("last", "ping", None, json!({})).await;
    assert_eq!(socket.response("last").await["success"], true);
}

/// A closed socket may take its time to read why.
fn late_reading() -> AppOptions {
    let abort_after = Duration::from_mins(1);
    let sockets = SocketSettings { abort_after, ..SocketSettings::default() };
    AppOptions { sockets, ..AppOptions::default() }
}

#[tokio::test]
async fn a_reader_that_never_reads_is_gone_in_time_and_delays_nobody() {
    let sockets = SocketSettings {
        frame_age_max: Duration::from_millis(200),
        abort_after: Duration::from_millis(100),
        ..SocketSettings::default()
    };
    let app = spawn_app_with(AppOptions { sockets, ..AppOptions::default() }).await;
    let mut ann = app.user("ann").await.conversation().await;
    let mut stalled = ann.person.wire().await;
    let rooms = json!({ "rooms": [format!("session:{}", ann.session)] });
    stalled.ask("1", "subscribe", Some(ann.project.as_str()), rooms).await;
    assert_eq!(stalled.response("1").await["success"], true);

    ann.send_message("call write {\"path\": \"a\", \"content\": \"\"}").await;
    ann.approval().await;
    // More than the kernel buffers, and less than may wait.
    let long = format!("say ok\n#{}", "x".repeat(200_000));
    for _ in 0..5 {
        ann.send_message(&long).await;
        ann.wait_for("message.created").await;
    }
    let is_one = |actors: &[ActorInfo]| {
        actors.iter().filter(|actor| actor.kind == "connection").count() == 1
    };
    app.wait_for_actors("the end of the one that does not read", is_one).await;
    // It was cut off in the middle of a frame: there was no room for a close frame.
    assert_eq!(stalled.close_code().await, 1006);
    ann.call(Ping {}).await.unwrap();
}

#[tokio::test]
async fn a_reader_that_stops_reading_is_closed_and_hurts_nobody() {
    let app = spawn_app_with(late_reading()).await;
    let mut ann = app.user("ann").await.conversation().await;
    let mut stalled = ann.person.wire().await;
    let rooms = json!({ "rooms": [format!("session:{}", ann.session)] });
    stalled.ask("1", "subscribe", Some(ann.project.as_str()), rooms).await;
    assert_eq!(stalled.response("1").await["success"], true);

    flood(&mut ann).await;
    assert_eq!(stalled.close_code().await, 4008);
    ann.call(Ping {}).await.unwrap();
}

#[tokio::test]
async fn twenty_others_hear_everything_while_one_never_reads() {
    const MESSAGE_BYTES: usize = 150_000;
    let app = spawn_app_with(late_reading()).await;
    let admin = app.admin().await;
    let mut ann = app.user("ann").await.conversation().await;
    let room = format!("session:{}", ann.session);
    let mut stalled = ann.person.wire().await;
    let rooms = json!({ "rooms": [room] });
    stalled.ask("1", "subscribe", Some(ann.project.as_str()), rooms).await;
    assert_eq!(stalled.response("1").await["success"], true);
    let mut others = Vec::new();
    for _ in 0..20 {
        let other = ann.person.connect().await;
        let rooms = vec![RoomRequest::Live(room.clone())];
        let subscribe = Subscribe { rooms, deltas: None, presence: None };
        other.call(Some(&ann.project), subscribe).await.unwrap();
        others.push((other, Vec::<EventFrame>::new()));
    }
    ann.send_message("call write {\"path\": \"a\", \"content\": \"\"}").await;
    ann.approval().await;
    let long = format!("say ok\n#{}", "x".repeat(MESSAGE_BYTES));
    let mut most = 0;
    for _ in 0..12 {
        let sent = ann.send_message(&long).await.message_id;
        let is_it = |event: &Event| matches!(event, Event::MessageCreated { message, .. } if message.id == sent);
        for (other, heard) in &mut others {
            while heard.last().is_none_or(|frame: &EventFrame| !is_it(&frame.event)) {
                heard.push(patiently("an event", other.next_event()).await.unwrap());
            }
        }
        // Those who read have all of it: what waits is for the one that does not.
        most = most.max(outbound_bytes(&admin).await);
    }
    let bound = (OUTBOUND_BYTES_MAX + 2 * MESSAGE_BYTES) as u64;
    assert!((MESSAGE_BYTES as u64..bound).contains(&most), "{most}");
    for (_, heard) in &others {
        assert_eq!(heard, &others[0].1);
        let durable: Vec<_> = heard.iter().filter(|frame| frame.meta.seq.is_some()).collect();
        for pair in durable.windows(2) {
            assert_eq!(pair[1].meta.prev, pair[0].meta.seq);
        }
    }
    assert_eq!(stalled.close_code().await, 4008);
}

#[tokio::test]
async fn a_client_that_says_goodbye_is_answered() {
    let app = spawn_app().await;
    let socket = app.user("ann").await.connect().await;
    patiently("the closing handshake", socket.close()).await;
}

#[tokio::test]
async fn a_stranger_may_send_few_bytes_of_whatever_kind() {
    const PING: &[u8] = &[b'x'; 100];
    const PING_BYTES: usize = PING.len() + 6;
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let mut pings = WireSocket::open(&app.url, None).await.unwrap();
    for _ in 0..=HELLO_BYTES_MAX / PING_BYTES {
        pings.ping(PING).await;
    }
    assert_eq!(pings.close_code().await, 1009);
    for (data, is_last) in [(Data::Binary, true), (Data::Text, false)] {
        let mut socket = WireSocket::open(&app.url, None).await.unwrap();
        socket.frame(data, &[b'x'; 2000], is_last).await;
        let data = if is_last { data } else { Data::Continue };
        for _ in 0..2 {
            socket.frame(data, &[b'x'; 1100], is_last).await;
        }
        assert_eq!(socket.close_code().await, 1009, "{data:?}");
    }

    let mut patient = WireSocket::open(&app.url, None).await.unwrap();
    for _ in 0..20 {
        patient.ping(PING).await;
    }
    for _ in 0..20 {
        assert_eq!(patient.next().await, Incoming::Pong(PING.into()));
    }
    patient.ask("1", "hello", None, json!({ "token": ann.token() })).await;
    assert_eq!(patient.response("1").await["success"], true);
    patient.ask("2", "ping", None, json!({ "more": "x".repeat(2 * HELLO_BYTES_MAX) })).await;
    assert_eq!(patient.response("2").await["success"], true);
}

#[tokio::test]
async fn a_socket_that_has_ended_runs_no_command() {
    let app = spawn_app_with(late_reading()).await;
    let mut talk = app.user("ann").await.conversation().await;
    let (project, ann) = (talk.project.clone(), talk.person.clone());
    let other_login = app.client().login("ann@example.com", PASSWORD).await.unwrap();
    let (mut stalled, mut logged_out) =
        (ann.wire().await, Person::new(app.client(), other_login.clone()).wire().await);
    let rooms = json!({ "rooms": [format!("session:{}", talk.session)] });
    stalled.ask("1", "subscribe", Some(project.as_str()), rooms).await;
    stalled.response("1").await;
    flood(&mut talk).await;
    let token = Some(other_login.access_token.as_str());
    let logout = app.client().rest("POST", "/v1/auth/logout", token, Some(&json!({}))).await;
    assert!(logout.unwrap().is_success());
    for (socket, code) in [(&mut stalled, 4008), (&mut logged_out, 4401)] {
        socket.ask("2", "session.create", Some(project.as_str()), json!({})).await;
        assert_eq!(socket.close_code().await, code);
    }
    // The conversation's own connection is the only one that stays.
    let is_one = |actors: &[ActorInfo]| {
        actors.iter().filter(|actor| actor.kind == "connection").count() == 1
    };
    app.wait_for_actors("the end of two connections", is_one).await;
    let sessions = ann.get(&format!("/v1/projects/{project}/sessions")).await.json;
    assert_eq!(sessions["data"].as_array().unwrap().len(), 1);
}
