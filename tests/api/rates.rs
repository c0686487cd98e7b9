//! How much a caller may ask for: by socket, by user, by address.

use std::time::Duration;

use iris_actors::{Rate, RateSettings};
use iris_client::{Authentication, ClientError, ConnectOptions};
use iris_protocol::{ErrorCode, SessionId};
use iris_testkit::{AppOptions, Incoming, PASSWORD, TestApp, WireSocket, moment, spawn_app_with};
use serde_json::{Value, json};

use crate::{refusal, rest_refusal};

/// Nobody gets anything back before the test is over.
const NEVER_AGAIN: Duration = Duration::from_hours(1);

fn at_once(burst: u32) -> Rate {
    Rate { every: NEVER_AGAIN, burst }
}

async fn app(rates: RateSettings) -> TestApp {
    spawn_app_with(AppOptions { rates, ..AppOptions::default() }).await
}

async fn ping(socket: &mut WireSocket) -> Value {
    socket.ask("1", "ping", None, json!({})).await;
    socket.response("1").await
}

#[tokio::test]
async fn a_user_has_one_allowance_over_sockets_and_rest() {
    let app = app(RateSettings { requests: Some(at_once(8)), ..RateSettings::NONE }).await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    // Two handshakes and two pings, then four requests over REST.
    let (mut one, mut other) = (ann.wire().await, ann.wire().await);
    assert_eq!(ping(&mut one).await["success"], true);
    assert_eq!(ping(&mut other).await["success"], true);
    for _ in 0..3 {
        assert!(ann.get("/v1/me").await.is_success());
    }
    let command = json!({ "id": "1", "type": "user.get" });
    assert!(ann.post("/v1/commands", command.clone()).await.is_success());

    let refused = ping(&mut one).await["error"].take();
    assert_eq!((&refused["code"], &refused["retryable"]), (&"RATE_LIMITED".into(), &true.into()));
    let wait = refused["retryAfterMs"].as_u64().unwrap();
    assert!((3_000_000..=3_600_000).contains(&wait), "{wait}");
    let refused = ann.get("/v1/me").await;
    let error = rest_refusal(&refused);
    assert_eq!(error.code, ErrorCode::RateLimited);
    for refused in [refused, ann.post("/v1/commands", command).await] {
        assert_eq!(refused.status, 429);
        let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((3_000..=3_600).contains(&wait), "{wait}");
    }
    let opened = WireSocket::open(&app.url, Some(ann.token())).await;
    assert_eq!(refusal(opened.map(drop)).code, ErrorCode::RateLimited);

    assert!(bob.get("/v1/me").await.is_success());
}

#[tokio::test]
async fn what_was_used_comes_back() {
    let requests = Some(Rate { every: Duration::from_millis(20), burst: 2 });
    let app = app(RateSettings { requests, ..RateSettings::NONE }).await;
    let ann = app.user("ann").await;
    let mut socket = ann.wire().await;
    let refused = loop {
        let answer = ping(&mut socket).await;
        if answer["success"] == false {
            break answer;
        }
    };
    assert!(refused["error"]["retryAfterMs"].as_u64().unwrap() <= 20);
    while ping(&mut socket).await["success"] == false {
        moment().await;
    }
}

#[tokio::test]
async fn strangers_are_counted_by_address_and_people_who_are_known_are_not() {
    let app = app(RateSettings { public: Some(at_once(3)), ..RateSettings::NONE }).await;
    let ann = app.user("ann").await;
    app.client().login("ann@example.com", PASSWORD).await.unwrap();
    let wrong = app.client().login("ann@example.com", "wrong wrong").await;
    assert_eq!(refusal(wrong).code, ErrorCode::Unauthenticated);
    for (path, body) in [
        ("/v1/auth/login", json!({ "email": "ann@example.com", "password": PASSWORD })),
        ("/v1/auth/register", json!({})),
        ("/v1/auth/refresh", json!({ "refreshToken": ann.grant.refresh_token })),
        ("/v1/auth/setup", json!({})),
    ] {
        let refused = app.client().rest("POST", path, None, Some(&body)).await.unwrap();
        assert_eq!(rest_refusal(&refused).code, ErrorCode::RateLimited, "{path}");
        assert!(refused.headers.contains_key("retry-after"));
    }
    for _ in 0..5 {
        assert!(ann.get("/v1/me").await.is_success());
    }
}

#[tokio::test]
async fn one_socket_too_many_is_closed_and_the_others_stay() {
    let rates = RateSettings { connections_per_user_max: Some(2), ..RateSettings::NONE };
    let app = app(rates).await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let (mut first, second) = (ann.wire().await, ann.connect().await);
    let mut third = WireSocket::open(&app.url, Some(ann.token())).await.unwrap();
    assert!(matches!(third.next().await, Incoming::Closed { code: 4409, .. }));
    let authentication = Authentication::Hello { project_id: None };
    let options = ConnectOptions { authentication, ..ConnectOptions::default() };
    let by_hello = ann.client.connect(&options).await;
    assert!(matches!(by_hello, Err(ClientError::Closed { code: 4409, .. })), "{by_hello:?}");
    assert_eq!(ping(&mut first).await["success"], true);
    bob.connect().await;

    // A new token is no new connection.
    let token = json!({ "token": ann.token() });
    first.ask("2", "auth.refresh", None, token).await;
    assert_eq!(first.response("2").await["success"], true);

    second.close().await;
    // The place is free as soon as the server has noticed.
    loop {
        let mut again = WireSocket::open(&app.url, Some(ann.token())).await.unwrap();
        if let Incoming::Json(connected) = again.next().await {
            break assert_eq!(connected["type"], "connected");
        }
    }
}

#[tokio::test]
async fn a_socket_that_lost_its_client_makes_room_for_a_new_one() {
    let rates = RateSettings { connections_per_user_max: Some(1), ..RateSettings::NONE };
    let app = app(rates).await;
    let ann = app.user("ann").await;
    // It does not read, and answers no ping.
    let mut silent = ann.wire().await;
    let mut again = loop {
        let mut again = WireSocket::open(&app.url, Some(ann.token())).await.unwrap();
        match again.next().await {
            Incoming::Json(connected) if connected["type"] == "connected" => break again,
            incoming => assert!(matches!(incoming, Incoming::Closed { code: 4409, .. })),
        }
    };
    assert_eq!(silent.close_code().await, 4012);
    assert_eq!(ping(&mut again).await["success"], true);
}

#[tokio::test]
async fn a_hello_and_the_rooms_of_a_subscription_count_as_requests() {
    let rates = RateSettings { requests: Some(at_once(7)), ..RateSettings::NONE };
    let app = app(rates).await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let mut codes = Vec::new();
    for _ in 0..2 {
        let mut socket = WireSocket::open(&app.url, None).await.unwrap();
        socket.ask("1", "hello", None, json!({ "token": ann.token() })).await;
        assert_eq!(socket.next_json().await["type"], "connected");
        let room = |n: u128| format!("session:{}", SessionId::from_bits(n));
        let rooms: Vec<String> = (0..32).map(room).collect();
        socket.ask("2", "subscribe", Some(project.as_str()), json!({ "rooms": rooms })).await;
        let answer = socket.response("2").await;
        codes.push(answer["error"]["code"].clone());
    }
    // The project, two greetings, and four for the rooms: there is no place for another four.
    assert_eq!(codes, [Value::Null, json!("RATE_LIMITED")]);
    let mut socket = WireSocket::open(&app.url, None).await.unwrap();
    socket.ask("1", "hello", None, json!({ "token": ann.token() })).await;
    assert_eq!(socket.response("1").await["error"]["code"], "RATE_LIMITED");
    assert_eq!(socket.close_code().await, 4029);
}

/// W12: as many as requests are answered, and who goes on is closed.
#[tokio::test]
async fn a_flood_of_pings_is_not_answered_and_ends_the_socket() {
    let rates = RateSettings {
        requests: Some(at_once(2)),
        refusals_per_minute_max: Some(3),
        ..RateSettings::NONE
    };
    let app = app(rates).await;
    let (ann, ben) = (app.user("ann").await, app.user("ben").await);
    let (mut socket, mut other) = (ann.wire().await, ben.wire().await);
    for _ in 0..2 {
        socket.ping(b"x").await;
        assert_eq!(socket.next().await, Incoming::Pong("x".into()));
    }
    for _ in 0..4 {
        socket.ping(b"y").await;
    }
    let Incoming::Closed { code, reason } = socket.next().await else { panic!("still open") };
    assert_eq!((code, reason.starts_with("retryAfterMs=")), (4029, true), "{reason}");
    // Others do not notice, and pings take nothing from requests.
    for _ in 0..2 {
        other.ping(b"z").await;
        assert_eq!(other.next().await, Incoming::Pong("z".into()));
    }
    assert_eq!(ping(&mut other).await["success"], true);
}

#[tokio::test]
async fn who_does_not_listen_to_refusals_is_closed() {
    let rates = RateSettings {
        requests: Some(at_once(2)),
        refusals_per_minute_max: Some(3),
        ..RateSettings::NONE
    };
    let app = app(rates).await;
    let mut socket = app.user("ann").await.wire().await;
    assert_eq!(ping(&mut socket).await["success"], true);
    for _ in 0..4 {
        assert_eq!(ping(&mut socket).await["error"]["code"], "RATE_LIMITED");
    }
    let Incoming::Closed { code, reason } = socket.next().await else { panic!("still open") };
    assert_eq!(code, 4029);
    let wait: u64 = reason.strip_prefix("retryAfterMs=").unwrap().parse().unwrap();
    assert!((1..=60_000).contains(&wait), "{wait}");
}
