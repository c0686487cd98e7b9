//! What the server says of itself: ids of requests, log lines, spans for a collector.

use std::fs;
use std::time::{Duration, Instant};

use iris_client::Client;
use iris_protocol::{ErrorCode, TicketGrant};
use iris_testkit::{
    EventStream, PASSWORD, SETUP_TOKEN, ServerProcess, WireSocket, patiently, spawn_app,
};
use serde_json::{Value, json};
use tempfile::tempdir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::{code_of, iris, rest_refusal, root};

/// Status, id and body of the answer to a request that brings an id along.
async fn answer_to(client: &Client, path: &str, method: &str, id: &str) -> (u16, String, Value) {
    let headers = [("x-request-id", id)];
    let answer = client.raw(method, path, None, &headers, Vec::new().into()).await.unwrap();
    let id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
    (answer.status, id, answer.json)
}

// Ids of requests.

#[tokio::test]
async fn an_answer_bears_the_id_that_its_request_brought() {
    let app = spawn_app().await;
    for (method, path, status) in [
        ("GET", "/health/live", 200),
        ("GET", "/v1/projects", 401),
        ("POST", "/v1/auth/login", 400),
        ("GET", "/v1/nothing", 404),
        ("DELETE", "/v1/projects", 405),
        ("GET", "/v1/ws", 400),
        ("POST", "/v1/commands", 401),
    ] {
        let (found, id, body) = answer_to(app.client(), path, method, "trace.7_a-B").await;
        assert_eq!((found, id.as_str()), (status, "trace.7_a-B"), "{method} {path}");
        if status != 200 {
            assert_eq!(body["error"]["requestId"], "trace.7_a-B", "{method} {path}: {body}");
        }
    }
}

#[tokio::test]
async fn an_answer_to_a_request_without_a_good_id_bears_a_new_one() {
    let app = spawn_app().await;
    let mut seen = Vec::new();
    for bad in ["", "two words", "a\"b", "a/b", &"a".repeat(65)] {
        let (_, id, body) = answer_to(app.client(), "/v1/projects", "GET", bad).await;
        assert!(id.starts_with("req_") && !seen.contains(&id), "{id}");
        assert_eq!(body["error"]["requestId"], id.as_str());
        seen.push(id);
    }
    let answer = app.client().rest("GET", "/health/live", None, None).await.unwrap();
    assert!(answer.headers["x-request-id"].to_str().unwrap().starts_with("req_"));
}

#[tokio::test]
async fn a_refused_host_and_a_handshake_are_answered_with_an_id_too() {
    let app = spawn_app().await;
    let address = app.url.strip_prefix("http://").unwrap();
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (path, host, more, status) in
        [("/health/live", "evil.example", "", "421"), ("/v1/ws", address, upgrade, "101")]
    {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head =
            format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nx-request-id: mine\r\n{more}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = patiently("the head of the answer", read_head(&mut stream)).await.join("\n");
        assert!(answer.starts_with(&format!("http/1.1 {status}")), "{answer}");
        assert!(answer.contains("x-request-id: mine"), "{answer}");
        assert!(answer.contains("x-content-type-options: nosniff"), "{answer}");
    }
}

/// The lines of a head, lower case. Reads byte by byte, so that the body is left for others.
async fn read_head(stream: &mut TcpStream) -> Vec<String> {
    let (mut lines, mut head) = (Vec::new(), BufReader::with_capacity(1, stream));
    loop {
        let mut line = String::new();
        head.read_line(&mut line).await.unwrap();
        if line.trim().is_empty() {
            return lines;
        }
        lines.push(line.trim().to_lowercase());
    }
}

// Log lines.

#[tokio::test]
async fn with_the_format_json_every_line_is_an_object_and_no_secret_is_in_any() {
    let dir = tempdir().unwrap();
    let log = dir.path().join("stderr");
    let mut command = iris(dir.path());
    command.env("IRIS_LOG", "debug").env("IRIS_LOG_FORMAT", "json");
    let server = ServerProcess::start_logging(command, &log).await;
    let root = root(&server).await;
    let path = "/v1/projects?limit=canary-in-query";
    let (_, id, _) = answer_to(&server.client(), path, "GET", "id-of-the-test").await;
    root.project("canary-of-a-name").await;
    let token = root.token().to_owned();
    assert!(server.terminate().await.success());

    let text = fs::read_to_string(&log).unwrap();
    let (_, text) = text.split_once("choose a long one").unwrap();
    let (_, text) = text.split_once('\n').unwrap();
    let lines = text.lines().filter(|line| !line.is_empty());
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_request = |line: &&Value| line["span"]["request.id"] == id.as_str();
    let line = lines.iter().rfind(of_request).unwrap();
    assert_eq!((&line["message"], &line["level"]), (&json!("request answered"), &json!("DEBUG")));
    let span = &line["span"];
    assert_eq!(
        (&span["name"], &span["method"], &span["route"], &span["status"]),
        (&json!("http.request"), &json!("GET"), &json!("/v1/projects"), &json!(401))
    );
    assert!(span["duration_ms"].as_f64().unwrap() > 0.0);
    for secret in [&token, PASSWORD, SETUP_TOKEN, "canary-in-query", "canary-of-a-name"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn an_administrator_changes_the_log_while_the_server_runs() {
    let dir = tempdir().unwrap();
    let log = dir.path().join("stderr");
    let server = ServerProcess::start_logging(iris(dir.path()), &log).await;
    let root = root(&server).await;
    let settings = root.get("/v1/admin/log").await.json["data"].clone();
    assert_eq!(settings, json!({ "filter": "info", "format": "text" }));
    answer_to(&server.client(), "/health/live", "GET", "before").await;

    let change = json!({ "filter": "iris=debug", "format": "json" });
    let answer = root.rest("PUT", "/v1/admin/log", Some(change.clone())).await;
    assert_eq!((answer.status, &answer.json["data"]), (200, &change), "{answer:?}");
    answer_to(&server.client(), "/health/live", "GET", "between").await;

    let bad = root
        .rest("PUT", "/v1/admin/log", Some(json!({ "filter": "iris=loud", "format": "text" })))
        .await;
    let error = rest_refusal(&bad);
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    assert!(error.message.contains("`iris=loud`"), "{error}");
    assert_eq!(root.get("/v1/admin/log").await.json["data"], change);

    let back = root.rest("PUT", "/v1/admin/log", Some(json!({ "filter": "warn" }))).await;
    assert_eq!(back.json["data"], json!({ "filter": "warn", "format": "json" }));
    answer_to(&server.client(), "/health/live", "GET", "after").await;
    let audit = root.get("/v1/admin/audit?action=log.set&limit=9").await.json["data"].clone();
    let filters: Vec<&Value> =
        audit.as_array().unwrap().iter().map(|record| &record["details"]["filter"]).collect();
    assert_eq!(filters, ["warn", "iris=debug"], "{audit}");
    assert_eq!(audit[0]["userId"], json!(root.id()));
    assert!(server.terminate().await.success());

    let text = fs::read_to_string(&log).unwrap();
    let line = text.lines().find(|line| line.contains("\"between\"")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(line).unwrap()["message"], "request answered");
    assert!(!text.contains("\"before\"") && !text.contains("\"after\""), "{text}");
}

#[tokio::test]
async fn the_log_of_a_server_that_writes_none_itself_is_shown_and_not_changed() {
    let app = spawn_app().await;
    let (root, ann) = (app.admin().await, app.user("ann").await);
    let settings = root.get("/v1/admin/log").await;
    assert_eq!(settings.json["data"], json!({ "filter": "info", "format": "text" }));
    let refused =
        rest_refusal(&root.rest("PUT", "/v1/admin/log", Some(json!({ "filter": "debug" }))).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "log_not_ours"));
    assert_eq!(rest_refusal(&ann.get("/v1/admin/log").await).code, ErrorCode::Forbidden);
}

// Spans.

/// Head and body of a request.
type Request = (Vec<String>, Vec<u8>);

/// A collector that answers every request with `status`, and gives the requests it got.
async fn collector(status: u16) -> (String, JoinHandle<Vec<Request>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut requests = Vec::new();
        // Until the server, which keeps its one connection, is gone.
        while stream.peek(&mut [0]).await.is_ok_and(|bytes| bytes > 0) {
            let head = read_head(&mut stream).await;
            let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.unwrap().parse().unwrap()];
            stream.read_exact(&mut body).await.unwrap();
            requests.push((head, body));
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        requests
    });
    (address, serving)
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn spans_of_requests_reach_a_collector_before_the_server_ends() {
    let (endpoint, serving) = collector(200).await;
    let dir = tempdir().unwrap();
    let mut command = iris(dir.path());
    // What is exported does not depend on what is logged.
    command.env("IRIS_OTLP_ENDPOINT", &endpoint).env("IRIS_LOG", "error");
    command.env("IRIS_OTLP_SERVICE_NAME", "iris-of-the-test");
    let server = ServerProcess::start(command).await;
    let root = root(&server).await;
    let (_, id, _) = answer_to(&server.client(), "/v1/nothing", "GET", "id-of-the-test").await;
    let token = root.token().to_owned();
    assert!(server.terminate().await.success());

    let requests = patiently("the collector", serving).await.unwrap();
    let (head, body) = requests.first().unwrap();
    assert_eq!(head[0], "post /v1/traces http/1.1");
    assert!(head.contains(&"content-type: application/x-protobuf".to_owned()), "{head:?}");
    for text in ["iris-of-the-test", "http.request", "request.id", &id, "/v1/auth/setup"] {
        assert!(holds(body, text), "{text}");
    }
    for secret in [&token, PASSWORD, SETUP_TOKEN] {
        assert!(!holds(body, secret), "{secret}");
    }
}

#[tokio::test]
async fn a_collector_that_refuses_costs_one_warning() {
    let (endpoint, serving) = collector(400).await;
    let dir = tempdir().unwrap();
    let log = dir.path().join("stderr");
    let mut command = iris(dir.path());
    command.env("IRIS_OTLP_ENDPOINT", &endpoint);
    let server = ServerProcess::start_logging(command, &log).await;
    root(&server).await;
    assert!(server.terminate().await.success());
    patiently("the collector", serving).await.unwrap();
    let text = fs::read_to_string(&log).unwrap();
    assert_eq!(text.matches("spans could not be sent").count(), 1, "{text}");
}

#[tokio::test]
async fn a_collector_that_never_answers_delays_the_end_by_two_seconds_at_most() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dir = tempdir().unwrap();
    let mut command = iris(dir.path());
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    command.env("IRIS_OTLP_ENDPOINT", &endpoint);
    let server = ServerProcess::start(command).await;
    answer_to(&server.client(), "/health/live", "GET", "1").await;
    let began = Instant::now();
    assert!(server.terminate().await.success());
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

/// W2: whatever stands in a URL stays there, also where everything is logged.
#[tokio::test]
async fn what_stands_in_a_url_is_in_no_log_line_no_span_no_metric_and_no_audit_record() {
    const CANARY: &str = "canary-in-a-url";
    let (endpoint, serving) = collector(200).await;
    let dir = tempdir().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("stderr"));
    let mut command = iris(&data);
    command.env("IRIS_LOG", "trace").env("IRIS_OTLP_ENDPOINT", &endpoint);
    let server = ServerProcess::start_logging(command, &log).await;
    let root = root(&server).await;
    let project = root.project("p").await.id;
    let ticket = async || {
        let made = root.post("/v1/auth/tickets", json!({})).await;
        made.data::<TicketGrant>().unwrap().ticket
    };
    let (of_socket, of_stream) = (ticket().await, ticket().await);
    let query = format!("?ticket={of_socket}");
    let mut socket = WireSocket::open_with(&server.url, &query, None, &[]).await.unwrap();
    assert_eq!(socket.next_json().await["type"], "connected");
    let events = format!("/v1/projects/{project}/events?rooms=project:{project}");
    let with_ticket = format!("{events}&ticket={of_stream}");
    let mut stream = EventStream::open(&server.url, &with_ticket, None, &[]).await.unwrap();
    stream.wait_for("subscribed").await;
    let token = root.token().to_owned();
    let filler = "x".repeat(9 * 1024);
    for (method, path, status) in [
        ("GET", format!("/v1/me?x={CANARY}"), 200),
        ("GET", format!("/v1/ws?token={token}"), 400),
        ("GET", format!("/v1/ws?ticket={CANARY}"), 401),
        ("GET", format!("{events}&ticket={CANARY}"), 401),
        ("GET", format!("{events}&access_token={token}"), 400),
        ("GET", format!("/v1/nowhere?x={CANARY}"), 404),
        ("GET", format!("/{CANARY}"), 404),
        ("DELETE", format!("/v1/projects?x={CANARY}"), 405),
        ("GET", format!("/v1/projects?limit={CANARY}"), 400),
        ("GET", format!("/v1/projects?x={CANARY}%zz"), 400),
        ("GET", format!("/v1/me?x={CANARY}{filler}"), 400),
        ("POST", format!("/v1/auth/login?password={CANARY}"), 400),
        ("GET", format!("/v1/auth/oauth/none/callback?code={CANARY}&state={CANARY}"), 404),
        ("GET", format!("/v1/projects/{project}/files/content?path={CANARY}"), 404),
        ("GET", format!("/v1/projects/{project}/agents/{CANARY}?x={CANARY}"), 404),
        // What it is about is in the audit.
        ("DELETE", format!("/v1/projects/{project}/agents/nobody?x={CANARY}"), 404),
        ("GET", format!("/v1/admin/audit?action={CANARY}"), 200),
    ] {
        let bearer =
            (!path.contains("icket=") && !path.contains("token=")).then_some(token.as_str());
        let answer = server.client().raw(method, &path, bearer, &[], Vec::new().into()).await;
        assert_eq!(answer.unwrap().status, status, "{method} {path:.99}");
    }
    // A host that is not ours.
    let mut refused = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    let head = format!("GET /v1/me?x={CANARY} HTTP/1.1\r\nhost: evil.example\r\n\r\n");
    refused.write_all(head.as_bytes()).await.unwrap();
    assert!(patiently("an answer", read_head(&mut refused)).await[0].contains(" 421 "));

    let metrics = root.get("/metrics").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(metrics.contains("iris_"), "{metrics}");
    let mut told = vec![metrics];
    for path in ["/v1/admin/audit?limit=200", "/v1/admin/supervision", "/v1/admin/actors"] {
        told.push(root.get(path).await.json.to_string());
    }
    drop((socket, stream, refused));
    assert!(server.terminate().await.success());
    told.push(fs::read_to_string(&log).unwrap());
    let requests = patiently("the collector", serving).await.unwrap();
    assert!(requests.iter().any(|(_, body)| holds(body, "/v1/projects/{projectId}/events")));
    for text in [CANARY, &of_socket, &of_stream, &token] {
        for told in &told {
            let line = told.lines().find(|line| line.contains(text));
            assert_eq!(line, None, "`{text}` is told");
        }
        assert!(!requests.iter().any(|(_, body)| holds(body, text)), "`{text}` is in a span");
    }
}
