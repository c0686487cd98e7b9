//! Many requests at once, requests that never end, and requests that may be read in two ways: rows A2, H4,
//! H5, H12, H13 and H18 of the threat model.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::{join, join_all};
use iris_actors::{Rate, RateSettings};
use iris_client::RestAnswer;
use iris_protocol::{ErrorCode, Ping};
use iris_testkit::{AppOptions, Person, TestApp, patiently, spawn_app, spawn_app_with};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::interval;

use crate::rest_refusal;

/// More than may be hashed and may wait for it.
const LOGINS: usize = 100;

/// A2, H18: whoever cannot be served soon is told to come back, and nobody else waits for the hashes, although
/// some are under way all the time.
#[tokio::test]
async fn a_storm_of_logins_is_answered_and_keeps_nobody_else_waiting() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let socket = ann.connect().await;
    let logins = (0..LOGINS).map(|n| {
        let client = app.client().clone();
        let body = json!({ "email": format!("u{n}@example.com"), "password": "wrong wrong" });
        async move { client.rest("POST", "/v1/auth/login", None, Some(&body)).await.unwrap() }
    });
    let are_done = Cell::new(false);
    let logins = logins.map(async |login| (login.await, are_done.get()));
    let others = async {
        for _ in 0..20 {
            socket.call(None, Ping {}).await.unwrap();
            assert!(ann.get("/v1/me").await.is_success());
        }
        are_done.set(true);
    };
    let (answers, ()) = join(join_all(logins), others).await;
    let late = answers.iter().filter(|(answer, are_done)| answer.status == 401 && *are_done);
    assert!(late.count() > 0, "the others waited for the last of the hashes");
    let answers: Vec<_> = answers.into_iter().map(|(answer, _)| answer).collect();
    for answer in &answers {
        let error = rest_refusal(answer);
        match error.code {
            ErrorCode::Unauthenticated => {}
            ErrorCode::Overloaded => assert!(answer.headers.contains_key("retry-after")),
            other => panic!("{other:?}: {error}"),
        }
    }
    assert!(answers.iter().any(|answer| answer.status == 401));
    // And then it is over.
    assert!(app.client().login("ann@example.com", iris_testkit::PASSWORD).await.is_ok());
}

fn authority(app: &TestApp) -> &str {
    app.url.trim_start_matches("http://")
}

async fn connect(app: &TestApp) -> TcpStream {
    TcpStream::connect(authority(app)).await.unwrap()
}

/// What comes until the server ends the connection, whichever way it does.
async fn until_closed(stream: &mut TcpStream) -> String {
    let (mut text, mut bytes) = (Vec::new(), [0; 4096]);
    let reading = async {
        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
            text.extend_from_slice(&bytes[..count]);
        }
    };
    patiently("the end of a connection", reading).await;
    String::from_utf8(text).unwrap()
}

/// H4. A byte now and then gains no time.
#[tokio::test]
async fn a_head_that_does_not_end_is_cut_off_and_nobody_waits_for_it() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = connect(&app).await;
        let head = format!("GET /health/live HTTP/1.1\r\nhost: {}\r\nx-slow: ", authority(&app));
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let dripping = slow.into_iter().map(|stream| async move {
        let (mut reading, mut writing) = stream.into_split();
        let mut answer = Vec::new();
        let drops = async {
            let mut drops = interval(Duration::from_millis(500));
            while writing.write_all(b"x").await.is_ok() {
                drops.tick().await;
            }
        };
        tokio::select! {
            _ = reading.read_to_end(&mut answer) => {}
            () = drops => {}
        }
        String::from_utf8(answer).unwrap()
    });
    let others = async {
        for _ in 0..50 {
            assert!(ann.get("/v1/me").await.is_success());
        }
    };
    let all = join(join_all(dripping), others);
    let (answers, ()) = patiently("the end of slow heads", all).await;
    for answer in answers {
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
}

/// H5. What stands behind such a request is never read as another one.
#[tokio::test]
async fn a_request_whose_length_can_be_read_in_two_ways_is_refused_and_its_connection_ends() {
    let app = spawn_app().await;
    let host = authority(&app);
    let smuggled = format!("GET /health/live HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let post = |version: &str, lines: &str, body: &str| {
        format!(
            "POST /v1/auth/login HTTP/{version}\r\nhost: {host}\r\n\
             content-type: application/json\r\n{lines}\r\n{body}{smuggled}"
        )
    };
    let chunked = "transfer-encoding: chunked\r\n";
    for request in [
        post("1.1", &format!("content-length: 5\r\n{chunked}"), "0\r\n\r\n"),
        post("1.1", &format!("{chunked}content-length: 5\r\n"), "0\r\n\r\n"),
        post("1.0", chunked, "0\r\n\r\n"),
        post("1.1", &format!("{chunked}{chunked}"), "0\r\n\r\n"),
        post("1.1", "content-length: 2\r\ncontent-length: 3\r\n", "{} "),
        post("1.1", "content-length: +2\r\n", "{}"),
        post("1.1", "transfer-encoding: xchunked\r\n", "0\r\n\r\n"),
        post("1.1", "x-folded: a\r\n b\r\ncontent-length: 2\r\n", "{}"),
        post("1.1", "x-bare: a\rb\r\ncontent-length: 2\r\n", "{}"),
        post("1.1", "content-length : 2\r\n", "{}"),
    ] {
        let mut stream = connect(&app).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = until_closed(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request}\n{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{request}\n{answer}");
    }
}

async fn keyed(person: &Person, key: &str, body: &Value) -> RestAnswer {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    let (token, body) = (Some(person.token()), body.to_string().into());
    person.client.raw("POST", "/v1/projects", token, &headers, body).await.unwrap()
}

/// H12.
#[tokio::test]
async fn a_key_that_is_used_again_gives_the_same_answer_or_is_refused() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let (one, other) = (json!({ "name": "one" }), json!({ "name": "other" }));
    let id = |answer: &RestAnswer| answer.json["data"]["id"].as_str().unwrap().to_owned();
    let first = keyed(&ann, "a", &one).await;
    let again = keyed(&ann, "a", &one).await;
    assert_eq!((first.status, id(&first)), (201, id(&again)));
    assert!(!first.headers.contains_key("idempotent-replay"));
    assert_eq!(again.headers["idempotent-replay"], "true");
    let refused = rest_refusal(&keyed(&ann, "a", &other).await);
    assert_eq!(refused.code, ErrorCode::IdempotencyConflict);
    // At once: one is made, and whoever is answered hears of that one.
    let answers = join_all((0..20).map(|_| keyed(&ann, "b", &one))).await;
    let ids: BTreeSet<String> = answers.iter().map(id).collect();
    assert_eq!(ids.len(), 1, "{answers:?}");
    let fresh = answers.iter().filter(|a| !a.headers.contains_key("idempotent-replay"));
    assert_eq!(fresh.count(), 1);
    assert_eq!(ann.get("/v1/projects").await.json["data"].as_array().unwrap().len(), 2);
}

/// H13.
#[tokio::test]
async fn a_number_that_is_none_is_refused_by_the_name_of_its_field() {
    let app = spawn_app().await;
    let (root, ann) = (app.admin().await, app.user("ann").await);
    let project = ann.project("p").await.id;
    let session = ann.session(&project).await.id;
    let messages = format!("/v1/projects/{project}/sessions/{session}/messages");
    for number in ["9007199254740993", "18446744073709551616", "-1", "1e400", "NaN", "0x10", "1.5"]
    {
        for (person, path) in [
            (&ann, format!("/v1/projects?limit={number}")),
            (&ann, format!("{messages}?limit={number}")),
            (&root, format!("/v1/admin/audit?limit={number}")),
        ] {
            let refused = rest_refusal(&person.get(&path).await);
            assert_eq!(refused.code, ErrorCode::InvalidRequest, "{path}");
            // What is no integer is refused before anybody knows what it is for.
            let is_integer = number.parse::<u64>().is_ok();
            assert!(is_integer || refused.message.contains("`limit`"), "{path}: {refused}");
        }
    }
    for cursor in ["-1", "1e400", "NaN", "18446744073709551616"] {
        let refused = rest_refusal(&root.get(&format!("/v1/admin/audit?cursor={cursor}")).await);
        assert_eq!(refused.code, ErrorCode::InvalidRequest, "{cursor}");
        assert!(refused.message.contains("cursor"), "{refused}");
    }
    let mut socket = ann.wire().await;
    for number in ["1e400", "-1", "9007199254740993", "1.5", "NaN"] {
        let payload = format!("{{\"sessionId\":\"{session}\",\"limit\":{number}}}");
        let frame = format!(
            "{{\"id\":\"1\",\"type\":\"session.message.list\",\"projectId\":\"{project}\",\"payload\":{payload}}}"
        );
        socket.say(frame).await;
        let answer = socket.next_json().await;
        assert_eq!(answer["error"]["code"], "INVALID_REQUEST", "{number}: {answer}");
    }
    socket.ask("2", "ping", None, json!({})).await;
    assert_eq!(socket.response("2").await["success"], true);
}

/// H18.
#[tokio::test]
async fn a_key_that_asks_too_much_is_told_when_to_come_back_and_others_do_not_notice() {
    const ALLOWED: u32 = 5;
    let rate = Rate { every: Duration::from_hours(1), burst: ALLOWED };
    let rates = RateSettings { keys: Some(rate), ..RateSettings::NONE };
    let app = spawn_app_with(AppOptions { rates, ..AppOptions::default() }).await;
    let (ann, ben) = (app.user("ann").await, app.user("ben").await);
    let made = ann.post("/v1/api-keys", json!({ "name": "k" })).await;
    let key = made.json["data"]["key"].as_str().unwrap();
    let client = app.client();
    let greedy = join_all(
        (0..1_000).map(|_| async { client.rest("GET", "/v1/me", Some(key), None).await.unwrap() }),
    );
    let others = join_all((0..100).map(|_| ben.get("/v1/me")));
    let (greedy, others) = join(greedy, others).await;
    assert!(others.iter().all(RestAnswer::is_success));
    let (served, limited): (Vec<_>, Vec<_>) = greedy.into_iter().partition(RestAnswer::is_success);
    assert_eq!(served.len(), ALLOWED as usize);
    for answer in limited {
        assert_eq!(rest_refusal(&answer).code, ErrorCode::RateLimited);
        assert!(answer.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    }
    // Its user, by a login, is somebody else to the limit.
    assert!(ann.get("/v1/me").await.is_success());
}
