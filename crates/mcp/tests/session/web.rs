//! A server that is a place on the web.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use iris_egress::{Config, Egress, Exception};
use iris_mcp::{Connection, HttpServer, McpError, Patience, Secret, Target, Token};
use serde_json::{Map, json};
use tokio::time::timeout;

use crate::lab::{SOON, call, text};
use crate::webfake::{Asked, WebFake, events, message, result_of, status, text as body};

/// A fake as a server that may be reached.
fn server_of(fake: &WebFake) -> HttpServer {
    HttpServer {
        egress: egress_to(&[fake.address]),
        url: format!("http://{}/mcp", fake.address).parse().expect("a url"),
        headers: Vec::new(),
        token: Token::default(),
    }
}

/// A way out that leads to these and nowhere else on this machine.
pub(crate) fn egress_to(addresses: &[SocketAddr]) -> Arc<Egress> {
    let read = |address: &SocketAddr| address.to_string().parse::<Exception>().expect("a place");
    let allow = addresses.iter().map(read).collect();
    Arc::new(Egress::new(Config { allow, ..Config::default() }).expect("a client"))
}

async fn open(server: HttpServer) -> Result<Connection, McpError> {
    let opened = Connection::open(Target::Http(server), Patience::default()).await;
    opened.map_err(|it| it.error)
}

async fn refused(server: HttpServer) -> McpError {
    open(server).await.err().expect("a refusal")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_begun_used_and_ended() {
    let fake = WebFake::start(|_| None).await;
    let mut server = server_of(&fake);
    server.headers = vec![("x-key".to_owned(), Secret::new("canary"))];
    server.token = Token::new(Secret::new("token"));
    assert!(!format!("{server:?}").contains("canary"));
    let connection = open(server).await.expect("a connection");
    assert_eq!(connection.tools().await.expect("tools")[0].name, "echo");
    assert_eq!(text(&connection, "echo", "x").await, "called");
    connection.close().await;
    let asked = fake.asked();
    assert_eq!(asked[0].header("mcp-session-id"), "");
    assert_eq!(asked.last().expect("requests").method, "DELETE");
    for asked in &asked {
        assert_eq!(
            (asked.header("x-key"), asked.header("authorization")),
            ("canary", "Bearer token")
        );
        if asked.says() != "initialize" {
            let session = (asked.header("mcp-session-id"), asked.header("mcp-protocol-version"));
            assert_eq!(session, ("s-1", "2025-11-25"), "{asked:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_as_events_with_others_before_them() {
    let fake = WebFake::start(|asked| {
        let answer = message(asked, &body("by event"));
        let progress = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
        (asked.says() == "tools/call").then(|| {
            events(&format!("event: ping\ndata: x\n\ndata: {progress}\n\ndata: {answer}\n\n"))
        })
    })
    .await;
    let connection = open(server_of(&fake)).await.expect("a connection");
    assert_eq!(text(&connection, "echo", "x").await, "by event");
    timeout(SOON, connection.changed()).await.expect("the change is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_is_taken_up_again_or_told() {
    let is_resumable = Arc::new(AtomicBool::new(true));
    let with_id = Arc::clone(&is_resumable);
    let call: Arc<std::sync::Mutex<Option<Asked>>> = Arc::default();
    let fake = WebFake::start(move |asked| match asked.says() {
        "tools/call" => {
            *call.lock().unwrap() = Some(asked.clone());
            let id = if with_id.load(Ordering::SeqCst) { "id: 5\nretry: 10\n" } else { "" };
            Some(events(&format!("{id}data: \n\n")))
        }
        "" if asked.header("last-event-id") == "5" => {
            let call = call.lock().unwrap().take()?;
            Some(events(&format!("data: {}\n\n", message(&call, &body("taken up")))))
        }
        _ => None,
    })
    .await;
    let connection = open(server_of(&fake)).await.expect("a connection");
    assert_eq!(text(&connection, "echo", "x").await, "taken up");
    is_resumable.store(false, Ordering::SeqCst);
    let error = crate::lab::call(&connection, "echo", "x").await.unwrap_err();
    assert_eq!(error.to_string(), "the server refused: the server's answer broke off");
    assert_eq!(connection.report().counts, iris_mcp::Counts::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_session_and_a_missing_authorization_are_told_apart() {
    let fake =
        WebFake::start(|asked| (asked.says() == "tools/call").then(|| status("404 Not Found", "")))
            .await;
    let connection = open(server_of(&fake)).await.expect("a connection");
    let error = call(&connection, "echo", "x").await.unwrap_err();
    assert!(matches!(error, McpError::SessionLost), "{error}");
    let end = timeout(SOON, connection.ended()).await.expect("an end");
    assert!(matches!(end, McpError::SessionLost), "{end}");

    let fake = WebFake::start(|_| {
        Some(status(
            "401 Unauthorized",
            "www-authenticate: Bearer resource_metadata=\"https://x\"\r\n",
        ))
    })
    .await;
    match refused(server_of(&fake)).await {
        McpError::Unauthorized { status: 401, challenge } => {
            assert_eq!(challenge.as_deref(), Some("Bearer resource_metadata=\"https://x\""));
        }
        other => panic!("{other}"),
    }
    let fake = WebFake::start(|_| Some(status("500 Internal Server Error", ""))).await;
    assert_eq!(
        refused(server_of(&fake)).await.to_string(),
        "the server answered with the HTTP status 500"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn m5_secrets_go_to_no_other_place_and_private_addresses_are_out_of_reach() {
    let other = WebFake::start(|_| None).await;
    let elsewhere = other.address;
    let fake = WebFake::start(move |_| {
        Some(status("307 Temporary Redirect", &format!("location: http://{elsewhere}/mcp\r\n")))
    })
    .await;
    let mut server = server_of(&fake);
    server.egress = egress_to(&[fake.address, other.address]);
    server.token = Token::new(Secret::new("token"));
    let error = refused(server).await;
    assert!(matches!(&error, McpError::Egress(it) if it.code() == "refused_redirect"), "{error}");
    assert!(other.asked().is_empty());

    let mut server = server_of(&fake);
    server.egress = egress_to(&[]);
    let error = refused(server).await;
    assert!(matches!(&error, McpError::Egress(it) if it.code() == "blocked_address"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn m3_answers_that_are_none_are_told_to_who_waits() {
    let turn = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&turn);
    let fake = WebFake::start(move |asked| {
        if asked.says() != "tools/call" {
            return None;
        }
        Some(match count.fetch_add(1, Ordering::SeqCst) {
            0 => result_of(&Asked { body: json!({"id": 99}), ..asked.clone() }, "", &json!({})),
            1 => {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
                format!("{head}{}", "x".repeat(5 << 20)).into_bytes()
            }
            2 => status("204 No Content", ""),
            _ => events("data: nonsense\n\n"),
        })
    })
    .await;
    let connection = open(server_of(&fake)).await.expect("a connection");
    for expected in ["is no message", "is too long", "is no message", "broke off"] {
        let error = connection.call("echo", Map::new(), None).await.unwrap_err().to_string();
        assert!(error.ends_with(expected), "{error}");
    }
    let counts = connection.report().counts;
    assert_eq!((counts.unknown_answers, counts.too_long, counts.garbage), (1, 1, 2));
}
