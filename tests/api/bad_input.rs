//! Requests that are wrong get the documented error, change nothing, and leave the connection usable
//! unless the protocol says that it closes.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use iris_protocol::{
    ErrorCode, ProjectId, Role,
    limits::{FILE_BYTES_MAX, FRAME_BYTES_MAX},
};
use iris_testkit::{
    AppOptions, Person, TestApp, WireSocket, moment, patiently, spawn_app, spawn_app_with,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::{code_of, rest_refusal};

async fn ann() -> (TestApp, Person) {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    (app, ann)
}

async fn assert_usable(socket: &mut WireSocket) {
    socket.ask("still-here", "ping", None, json!({})).await;
    assert_eq!(socket.response("still-here").await["success"], true);
}

/// What a frame that is no request is answered with: its id, the code and the reason.
async fn refused(socket: &mut WireSocket, text: &str) -> (Value, Value, Value) {
    socket.say(text).await;
    let mut frame = socket.next_json().await;
    assert_eq!((&frame["type"], &frame["success"]), (&json!("response"), &json!(false)));
    let error = frame["error"].take();
    (frame["id"].take(), error["code"].clone(), error["details"]["reason"].clone())
}

const BROKEN_FRAMES: &[(&str, Option<&str>, &str, Option<&str>)] = &[
    ("{", None, "INVALID_REQUEST", Some("invalid_json")),
    ("", None, "INVALID_REQUEST", Some("invalid_json")),
    ("[]", None, "INVALID_REQUEST", Some("invalid_message")),
    (r#"{"type":"ping"}"#, None, "INVALID_REQUEST", Some("missing_id")),
    (r#"{"id":7,"type":"ping"}"#, None, "INVALID_REQUEST", Some("invalid_message")),
    (r#"{"id":"a"}"#, Some("a"), "INVALID_REQUEST", Some("missing_type")),
    (r#"{"id":"a","type":"session.explode"}"#, Some("a"), "UNKNOWN_OPERATION", None),
    (r#"{"id":"a","type":"auth.login"}"#, Some("a"), "INVALID_REQUEST", Some("rest_only")),
    (
        r#"{"id":"a","type":"project.get","projectId":"../x"}"#,
        Some("a"),
        "INVALID_REQUEST",
        Some("invalid_project_id"),
    ),
    (
        r#"{"id":"a","type":"session.get","payload":{"sessionId":7}}"#,
        Some("a"),
        "INVALID_REQUEST",
        Some("invalid_payload"),
    ),
];

#[tokio::test]
async fn a_broken_frame_is_answered_and_the_socket_goes_on() {
    let (_app, ann) = ann().await;
    let mut socket = ann.wire().await;
    for (text, id, code, reason) in BROKEN_FRAMES {
        let expected = (json!(id), json!(code), json!(reason));
        assert_eq!(refused(&mut socket, text).await, expected, "{text}");
        assert_usable(&mut socket).await;
    }
}

#[tokio::test]
async fn a_broken_command_is_answered_with_the_same_error() {
    let (_app, ann) = ann().await;
    let json_body = [("content-type", "application/json")];
    for (text, id, code, reason) in BROKEN_FRAMES {
        let answer =
            ann.client.raw("POST", "/v1/commands", Some(ann.token()), &json_body, (*text).into());
        let answer = answer.await.unwrap();
        let error = &answer.json["error"];
        let found = (&answer.json["id"], &error["code"], &error["details"]["reason"]);
        assert_eq!(found, (&json!(id), &json!(code), &json!(reason)), "{text}");
        assert_eq!(answer.status, 400);
    }
}

#[tokio::test]
async fn a_binary_frame_is_refused_and_the_socket_goes_on() {
    let (_app, ann) = ann().await;
    let socket = ann.connect().await;
    socket.send_binary(vec![1, 2, 3]).await.unwrap();
    let frame = format!("{:?}", socket.next_frame().await.unwrap());
    assert!(frame.contains("InvalidRequest"), "{frame}");
    socket.call(None, iris_protocol::Ping {}).await.unwrap();
}

#[tokio::test]
async fn too_many_broken_frames_close_the_socket() {
    let (_app, ann) = ann().await;
    let mut socket = ann.wire().await;
    for _ in 0..=iris_protocol::limits::PROTOCOL_ERRORS_PER_MINUTE_MAX {
        socket.say("nonsense").await;
    }
    assert_eq!(socket.close_code().await, 1008);
}

#[tokio::test]
async fn an_operation_before_authentication_closes_the_socket() {
    let (app, ann) = ann().await;
    for operation in ["ping", "project.list", "subscribe"] {
        let mut socket = WireSocket::open(&app.url, None).await.unwrap();
        socket.ask("1", operation, None, json!({ "rooms": [] })).await;
        assert_eq!(socket.next_json().await["error"]["code"], "UNAUTHENTICATED", "{operation}");
        assert_eq!(socket.close_code().await, 4401, "{operation}");
    }
    assert_usable(&mut ann.wire().await).await;
}

#[tokio::test]
async fn another_tenants_project_and_session_do_not_exist() {
    let (app, ann) = ann().await;
    let (mine, eve) = (ann.conversation().await, app.user("eve").await);
    let her = eve.project("hers").await.id;
    for (project, session) in [(&mine.project, &mine.session), (&her, &mine.session)] {
        let path = format!("/v1/projects/{project}/sessions/{session}");
        assert_eq!(rest_refusal(&eve.get(&path).await).code, ErrorCode::NotFound);
        let answer = eve.post(&format!("{path}/messages"), json!({ "content": "hi" })).await;
        assert_eq!(rest_refusal(&answer).code, ErrorCode::NotFound);
    }
    let mut socket = eve.wire().await;
    let payload = json!({ "sessionId": mine.session, "content": "hi" });
    for project in [&mine.project, &her] {
        socket.ask("1", "session.message.send", Some(project.as_str()), payload.clone()).await;
        assert_eq!(socket.response("1").await["error"]["code"], "NOT_FOUND");
    }
    assert_usable(&mut socket).await;
    assert!(ann.snapshot(&mine.project, &mine.session).await.messages.is_empty());
}

#[tokio::test]
async fn a_viewer_reads_and_does_not_write() {
    let (app, ann) = ann().await;
    let (mine, vic) = (ann.conversation().await, app.user("vic").await);
    ann.add_member(&mine.project, &vic, Role::Viewer).await;
    let path = format!("/v1/projects/{}/sessions/{}", mine.project, mine.session);
    assert!(vic.get(&path).await.is_success());
    let answer = vic.post(&format!("{path}/messages"), json!({ "content": "hi" })).await;
    assert_eq!(code_of(&rest_refusal(&answer)), (ErrorCode::Forbidden, "insufficient_role"));
    let put = vic.client.file_put(&mine.project, "a.txt", "x").await;
    assert_eq!(crate::refusal(put).code, ErrorCode::Forbidden);

    let mut socket = vic.wire().await;
    let payload = json!({ "sessionId": mine.session, "content": "hi" });
    socket.ask("1", "session.message.send", Some(mine.project.as_str()), payload).await;
    assert_eq!(socket.response("1").await["error"]["code"], "FORBIDDEN");
    assert_usable(&mut socket).await;
    assert!(ann.snapshot(&mine.project, &mine.session).await.messages.is_empty());
}

#[tokio::test]
async fn a_body_has_to_be_json_of_a_bounded_size() {
    let (_app, ann) = ann().await;
    let post = async |headers: &[(&str, &str)], body: Vec<u8>| {
        let answer =
            ann.client.raw("POST", "/v1/projects", Some(ann.token()), headers, body.into());
        let answer = answer.await.unwrap();
        rest_refusal(&answer).code
    };
    let json_body = [("content-type", "application/json")];
    assert_eq!(post(&json_body, b"[1]".to_vec()).await, ErrorCode::InvalidRequest);
    assert_eq!(post(&json_body, b"{\"name\":".to_vec()).await, ErrorCode::InvalidRequest);
    assert_eq!(post(&json_body, b"{\"name\":7}".to_vec()).await, ErrorCode::InvalidRequest);
    let text = [("content-type", "text/plain")];
    assert_eq!(post(&text, b"{\"name\":\"x\"}".to_vec()).await, ErrorCode::UnsupportedMediaType);
    let large = vec![b' '; FRAME_BYTES_MAX + 1];
    assert_eq!(post(&json_body, large).await, ErrorCode::PayloadTooLarge);
    assert!(ann.get("/v1/projects").await.is_success());
}

#[tokio::test]
async fn a_route_says_which_methods_it_has() {
    let (_app, ann) = ann().await;
    let answer = ann.rest("PUT", "/v1/projects", None).await;
    assert_eq!(rest_refusal(&answer).code, ErrorCode::MethodNotAllowed);
    assert_eq!(answer.headers["allow"], "POST, GET");
    for (path, allowed) in [
        ("/health/live", "GET"),
        ("/health/ready", "GET"),
        ("/v1/openapi.json", "GET"),
        ("/v1/asyncapi.json", "GET"),
        ("/v1/schema.json", "GET"),
        ("/v1/ws", "GET"),
        ("/v1/commands", "POST"),
        ("/v1/projects/prj_1/events", "GET"),
    ] {
        let answer = ann.rest("TRACE", path, None).await;
        assert_eq!(rest_refusal(&answer).code, ErrorCode::MethodNotAllowed, "{path}");
        assert_eq!(answer.headers["allow"], allowed, "{path}");
    }
    assert_eq!(rest_refusal(&ann.get("/v1/nowhere").await).code, ErrorCode::NotFound);
    assert_eq!(rest_refusal(&ann.get("/v1/projects/prj_1").await).code, ErrorCode::NotFound);
    let answer = ann.get("/v1/projects?limit=many").await;
    assert_eq!(rest_refusal(&answer).code, ErrorCode::InvalidRequest);
    let answer = ann.get("/v1/projects?limit=201").await;
    assert_eq!(rest_refusal(&answer).code, ErrorCode::InvalidRequest);
}

/// The status that a request is answered with whose body never comes.
async fn status_before_body(app: &TestApp, line: &str, token: Option<&str>, length: usize) -> u16 {
    let authority = app.url.trim_start_matches("http://");
    let mut head = format!("{line} HTTP/1.1\r\nhost: {authority}\r\ncontent-length: {length}\r\n");
    head.push_str("content-type: application/json\r\n");
    if let Some(token) = token {
        head.extend(["authorization: Bearer ", token, "\r\n"]);
    }
    let mut stream = TcpStream::connect(authority).await.unwrap();
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    let mut status = [0; 12];
    patiently(line, stream.read_exact(&mut status)).await.unwrap();
    std::str::from_utf8(&status).unwrap().strip_prefix("HTTP/1.1 ").unwrap().parse().unwrap()
}

#[tokio::test]
async fn nobodys_body_is_read_who_may_not_send_it() {
    let (app, ann) = ann().await;
    let (eve, vic) = (app.user("eve").await, app.user("vic").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &vic, Role::Viewer).await;
    let path = format!("/v1/projects/{project}");
    let requests = [
        (format!("PUT {path}/files/content?path=a"), FILE_BYTES_MAX),
        (format!("PATCH {path}"), FRAME_BYTES_MAX),
        (format!("POST {path}/sessions"), FRAME_BYTES_MAX),
    ];
    for (line, length) in &requests {
        for (token, expected) in [(None, 401), (Some(eve.token()), 404), (Some(vic.token()), 403)] {
            assert_eq!(status_before_body(&app, line, token, *length).await, expected, "{line}");
        }
    }
    assert_eq!(status_before_body(&app, "POST /v1/commands", None, FRAME_BYTES_MAX).await, 401);
    for (line, token) in [
        ("POST /v1/auth/login", None),
        ("POST /v1/auth/register", None),
        ("POST /v1/auth/setup", Some(ann.token())),
    ] {
        assert_eq!(status_before_body(&app, line, token, 64 * 1024 + 1).await, 413, "{line}");
    }
    let fits = vec![b' '; 64 * 1024];
    let headers = [("content-type", "application/json")];
    let login = ann.client.raw("POST", "/v1/auth/login", None, &headers, fits.into()).await;
    assert_eq!(login.unwrap().status, 400);
}

/// Sends a head and gives the two halves of its connection.
async fn head_of(
    app: &TestApp,
    line: &str,
    token: Option<&str>,
    length: &str,
) -> (OwnedReadHalf, OwnedWriteHalf) {
    let authority = app.url.trim_start_matches("http://");
    let mut head = format!("{line} HTTP/1.1\r\nhost: {authority}\r\n{length}\r\n");
    head.push_str("content-type: application/json\r\n");
    if let Some(token) = token {
        head.extend(["authorization: Bearer ", token, "\r\n"]);
    }
    let mut stream = TcpStream::connect(authority).await.unwrap();
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    stream.into_split()
}

/// What a connection says until it ends: the status, and what the body says is wrong.
async fn last_word(what: &str, mut answers: OwnedReadHalf) -> (u16, ErrorCode) {
    let mut bytes = Vec::new();
    // The end may be that of a connection that was aborted.
    patiently(what, answers.read_to_end(&mut bytes)).await.ok();
    let text = String::from_utf8(bytes).unwrap();
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let (_, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{what}: {text}"));
    let body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{what}: {text}"));
    (status.unwrap(), serde_json::from_value(body["error"]["code"].clone()).unwrap())
}

/// Every route whose body is read whole, by who may send one.
fn routes_with_a_body<'a>(
    ann: &'a Person,
    project: &ProjectId,
) -> [(String, Option<&'a str>, usize); 5] {
    let token = Some(ann.token());
    [
        ("POST /v1/auth/login".to_owned(), None, 64 * 1024),
        ("POST /v1/projects".to_owned(), token, FRAME_BYTES_MAX),
        (format!("PATCH /v1/projects/{project}"), token, FRAME_BYTES_MAX),
        ("POST /v1/commands".to_owned(), token, FRAME_BYTES_MAX),
        (format!("PUT /v1/projects/{project}/files/content?path=a"), token, FILE_BYTES_MAX),
    ]
}

#[tokio::test]
async fn a_body_that_trickles_is_ended_in_time_and_its_connection_with_it() {
    let body_timeout = Duration::from_millis(500);
    let app = spawn_app_with(AppOptions { body_timeout, ..AppOptions::default() }).await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let routes = routes_with_a_body(&ann, &project);
    let ways = [("content-length: 60000", " "), ("transfer-encoding: chunked", "1\r\n \r\n")];
    let each = routes.iter().flat_map(|(line, token, _)| ways.map(|way| (line, *token, way)));
    let each = each.map(async |(line, token, (length, piece))| {
        let began = Instant::now();
        let (answers, mut body) = head_of(&app, line, token, length).await;
        // A byte every few milliseconds, so that it is never silent, and would take minutes.
        let trickling = tokio::spawn(async move {
            while body.write_all(piece.as_bytes()).await.is_ok() {
                moment().await;
            }
        });
        let found = last_word(line, answers).await;
        let expected = ErrorCode::DeadlineExceeded;
        assert_eq!(found, (expected.http_status(), expected), "{line} {length}");
        assert!(began.elapsed() >= body_timeout, "{line}");
        patiently("the end of the connection", trickling).await.unwrap();
    });
    join_all(each).await;
    // Nothing was made of it, and whoever is in time is served.
    assert!(ann.client.file_get(&project, "a").await.is_err());
    assert!(ann.get("/v1/projects").await.is_success());
}

#[tokio::test]
async fn a_body_that_nobody_wants_does_not_keep_its_connection() {
    let (app, ann) = ann().await;
    for (line, token, status) in [
        ("POST /v1/projects", None, 401),
        ("POST /v1/nowhere", Some(ann.token()), 404),
        ("DELETE /v1/projects", Some(ann.token()), 405),
        ("GET /v1/me", Some(ann.token()), 200),
    ] {
        let (mut answers, mut body) =
            head_of(&app, line, token, "transfer-encoding: chunked").await;
        let endless = tokio::spawn(async move {
            while body.write_all(b"1\r\n \r\n").await.is_ok() {
                moment().await;
            }
        });
        let mut answer = Vec::new();
        patiently(line, answers.read_to_end(&mut answer)).await.ok();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
        patiently("the end of the connection", endless).await.unwrap();
    }
    // One that is read to its end leaves the connection to the next request.
    let length = "transfer-encoding: chunked";
    let (mut answers, mut body) =
        head_of(&app, "POST /v1/projects", Some(ann.token()), length).await;
    body.write_all(b"d\r\n{\"name\": \"p\"}\r\n0\r\n\r\n").await.unwrap();
    let mut status = [0; 12];
    patiently("an answer", answers.read_exact(&mut status)).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 201");
    let authority = app.url.trim_start_matches("http://");
    let next =
        format!("GET /health/live HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    body.write_all(next.as_bytes()).await.unwrap();
    let mut rest = String::new();
    patiently("the next answer", answers.read_to_string(&mut rest)).await.unwrap();
    assert!(rest.contains("HTTP/1.1 200 ") && rest.ends_with("{\"status\":\"live\"}"), "{rest}");
}

#[tokio::test]
async fn a_body_that_comes_slowly_and_in_time_is_taken() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let length = "transfer-encoding: chunked\r\nconnection: close";
    let (mut answers, mut body) =
        head_of(&app, "POST /v1/projects", Some(ann.token()), length).await;
    for byte in "{\"name\": \"slow\"}".chars() {
        body.write_all(format!("1\r\n{byte}\r\n").as_bytes()).await.unwrap();
        moment().await;
    }
    body.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    patiently("the answer", answers.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
}

#[tokio::test]
async fn a_body_of_unknown_length_is_read_up_to_its_limit() {
    let (app, ann) = ann().await;
    let project = ann.project("p").await.id;
    for (line, token, bytes_max) in routes_with_a_body(&ann, &project) {
        let (answers, mut body) = head_of(&app, &line, token, "transfer-encoding: chunked").await;
        let sending = tokio::spawn(async move {
            // It does not say how long it gets.
            let piece = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
            for _ in 0..=bytes_max / 0x1000 {
                body.write_all(piece.as_bytes()).await.unwrap();
            }
            // Nor does it end.
            while body.write_all(b"1\r\n \r\n").await.is_ok() {
                moment().await;
            }
        });
        let found = last_word(&line, answers).await;
        assert_eq!(found, (413, ErrorCode::PayloadTooLarge), "{line}");
        patiently("the end of the connection", sending).await.unwrap();
    }
    assert!(ann.client.file_get(&project, "a").await.is_err(), "nothing of it is kept");
}

#[tokio::test]
async fn the_name_of_a_model_is_one_that_can_be_shown() {
    let (_app, ann) = ann().await;
    let project = ann.project("p").await.id;
    let session = ann.session(&project).await.id;
    let path = format!("/v1/projects/{project}");
    ann.post(&format!("{path}/agents"), json!({ "name": "helper" })).await;
    let requests = [
        ("POST", format!("{path}/sessions")),
        ("PATCH", format!("{path}/sessions/{session}")),
        ("POST", format!("{path}/agents")),
        ("PATCH", format!("{path}/agents/helper")),
    ];
    let long = "x".repeat(1024);
    for (method, path) in requests {
        for name in ["a\nb", "", long.as_str()] {
            for (provider, model) in [(name, "m"), ("demo", name)] {
                let mut body = json!({ "model": { "providerId": provider, "modelId": model } });
                if path.ends_with("/agents") {
                    body["name"] = "another".into();
                }
                let refused = rest_refusal(&ann.rest(method, &path, Some(body)).await);
                let expected = (ErrorCode::InvalidRequest, "invalid_name");
                assert_eq!(code_of(&refused), expected, "{method} {path} {name}");
            }
        }
    }
}
