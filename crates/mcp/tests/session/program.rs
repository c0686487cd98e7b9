//! A server that is a program in the sandbox.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use iris_mcp::{
    CALLS_MAX, Connection, Elicitation, ElicitationAnswer, ElicitationSource, McpError, Patience,
};
use serde_json::{Map, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::lab::{Lab, SOON, call, text};

/// Short enough to wait for, long enough for a busy machine to answer in.
fn hasty() -> Patience {
    Patience { request: Duration::from_secs(3), ..Patience::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_listed_over_pages_and_called() {
    let Some(lab) = Lab::new().await else { return };
    let connection = lab.open(&[]).await;
    let tools = connection.tools().await.expect("tools");
    assert_eq!((tools.len(), tools[0].name.as_str()), (18, "echo"));
    assert_eq!(tools[0].description, "Gives back the text.");
    assert_eq!(connection.server(), Some(("fake".to_owned(), "1".to_owned())));
    assert_eq!(text(&connection, "echo", "hello").await, "hello");
    let failed = call(&connection, "fail", "it").await.expect("an answer");
    assert!(failed.is_error && failed.text == "cannot it");
    let refused = call(&connection, "refuse", "").await.unwrap_err();
    assert_eq!(refused.to_string(), "the server refused: not today");
    assert!(text(&connection, "big", "").await.len() > 1 << 20);
    connection.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m3_small_misbehaviour_is_ignored_and_counted() {
    let Some(lab) = Lab::new().await else { return };
    let connection = lab.open(&[]).await;
    for (name, answer) in [
        ("garbage", "after garbage"),
        ("long_line", "after a long line"),
        ("wrong_id", "for you"),
        ("twice", "first"),
        ("echo", "still there"),
    ] {
        assert_eq!(text(&connection, name, "still there").await, answer);
    }
    let counts = connection.report().counts;
    assert_eq!((counts.garbage, counts.too_long), (4, 1));
    assert_eq!((counts.unknown_answers, counts.repeated_answers), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn m3_a_server_that_hangs_is_not_waited_for() {
    let Some(lab) = Lab::new().await else { return };
    let connection = Connection::open(lab.fake(&[]), hasty()).await.expect("a connection");
    let error = call(&connection, "sleep", "").await.unwrap_err();
    assert!(matches!(error, McpError::TimedOut { .. }), "{error}");
    assert_eq!(text(&connection, "echo", "on").await, "on");
    let patience = Patience { initialize: Duration::from_millis(300), ..Patience::default() };
    let error =
        Connection::open(lab.fake(&["mute"]), patience).await.err().expect("no greeting").error;
    assert!(matches!(error, McpError::TimedOut { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn m3_a_server_that_crashes_ends_its_calls_and_says_how_it_ended() {
    let Some(lab) = Lab::new().await else { return };
    let connection = lab.open(&[]).await;
    assert_eq!(text(&connection, "complain", "it hurts").await, "complained");
    let (crashed, sleeping) =
        tokio::join!(call(&connection, "crash", ""), call(&connection, "sleep", ""));
    for ended in [crashed, sleeping] {
        let error = ended.unwrap_err();
        assert!(matches!(error, McpError::Closed { .. }), "{error}");
    }
    let end = timeout(SOON, connection.ended()).await.expect("an end");
    assert_eq!(end.to_string(), "the server is gone: the program ended with code 7");
    let report = connection.report();
    assert_eq!(String::from_utf8_lossy(&report.errors), "complaint: it hurts\n");
    assert_eq!(report.end.as_deref(), Some("the server is gone: the program ended with code 7"));
}

#[tokio::test(flavor = "multi_thread")]
async fn m3_endless_garbage_ends_the_connection() {
    let Some(lab) = Lab::new().await else { return };
    let target = lab.program(&["/usr/bin/yes"]);
    let error = Connection::open(target, Patience::default()).await.err().expect("no server").error;
    assert_eq!(error.to_string(), "the server is gone: it writes what is no message");
    let target = lab.program(&["/bin/sh", "-c", "exec tr '\\0' x < /dev/zero"]);
    let patience = Patience { initialize: Duration::from_secs(1), ..Patience::default() };
    let error = Connection::open(target, patience).await.err().expect("no server").error;
    assert!(matches!(error, McpError::TimedOut { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn m4_sampling_and_roots_are_refused() {
    let Some(lab) = Lab::new().await else { return };
    let connection = lab.open(&[]).await;
    assert_eq!(text(&connection, "beg", "").await, "[-32601,-32601]");
    assert_eq!(connection.report().counts.refused_requests, 2);
}

/// Says what a test says, and keeps what was asked.
struct Scripted(ElicitationAnswer, tokio::sync::mpsc::UnboundedSender<Elicitation>);

impl ElicitationSource for Scripted {
    fn ask(&self, elicitation: Elicitation) -> BoxFuture<'static, ElicitationAnswer> {
        drop(self.1.send(elicitation));
        let answer = self.0.clone();
        async move { answer }.boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn m4_people_are_asked_for_a_call_that_has_some_and_otherwise_nobody_is() {
    let Some(lab) = Lab::new().await else { return };
    let connection = lab.open(&[]).await;
    assert_eq!(text(&connection, "ask", "").await, r#"{"action":"decline"}"#);
    let (told, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let content = json!({"name": "lamp", "size": "small"});
    let source = Arc::new(Scripted(ElicitationAnswer::Accept(content.clone()), told));
    let answer = connection.call("ask", Map::new(), Some(source.clone())).await.expect("an answer");
    let result: serde_json::Value = serde_json::from_str(&answer.text).expect("JSON");
    assert_eq!(result, json!({"action": "accept", "content": content}));
    let elicitation = asked.try_recv().expect("a question");
    assert_eq!(elicitation.message, "What shall it be?");
    assert_eq!(elicitation.schema["properties"]["size"]["enum"], json!(["small", "large"]));
    // Whose question it is cannot be told while two calls run: neither is asked.
    let sleeping = connection.call("sleep", Map::new(), None);
    let asking = connection.call("ask", Map::new(), Some(source));
    tokio::pin!(sleeping, asking);
    let answer = tokio::select! {
        biased;
        _ = &mut sleeping => panic!("it sleeps"),
        answer = &mut asking => answer.expect("an answer"),
    };
    assert_eq!(answer.text, r#"{"action":"decline"}"#);
}

/// Answers when it is told to.
struct Later(tokio::sync::mpsc::UnboundedSender<()>, Mutex<Option<oneshot::Receiver<()>>>);

impl ElicitationSource for Later {
    fn ask(&self, _: Elicitation) -> BoxFuture<'static, ElicitationAnswer> {
        let told = self.1.lock().expect("a lock").take();
        self.0.send(()).ok();
        async move {
            told.expect("one question").await.ok();
            ElicitationAnswer::Cancel
        }
        .boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_outlives_its_time_while_people_are_asked() {
    let Some(lab) = Lab::new().await else { return };
    let patience = Patience { request: Duration::from_secs(1), ..Patience::default() };
    let connection = Connection::open(lab.fake(&[]), patience).await.expect("a connection");
    let (asks, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let (tell, told) = oneshot::channel();
    let source: Arc<dyn ElicitationSource> = Arc::new(Later(asks, Mutex::new(Some(told))));
    let asking = connection.call("ask", Map::new(), Some(source));
    let meanwhile = async {
        asked.recv().await.expect("a question");
        // This one began later, and its time is over.
        let late = connection.call("sleep", Map::new(), None).await.expect_err("no answer");
        assert!(matches!(late, McpError::TimedOut { .. }), "{late}");
        tell.send(()).expect("somebody who waits");
    };
    let (answer, ()) = tokio::join!(asking, meanwhile);
    assert_eq!(answer.expect("an answer").text, r#"{"action":"cancel"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn m1_a_change_of_tools_is_told() {
    let Some(lab) = Lab::new().await else { return };
    let connection = lab.open(&[]).await;
    let before = connection.tools().await.expect("tools");
    text(&connection, "change", "").await;
    timeout(SOON, connection.changed()).await.expect("the change is told");
    let after = connection.tools().await.expect("tools");
    assert_ne!(before[0].hash(), after[0].hash());
    assert_eq!(before[1].hash(), after[1].hash());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_call_is_taken_back_and_calls_are_bounded() {
    let Some(lab) = Lab::new().await else { return };
    let connection = Connection::open(lab.fake(&[]), hasty()).await.expect("a connection");
    let mut sleeping: Vec<_> =
        (0..CALLS_MAX).map(|_| Box::pin(call(&connection, "sleep", ""))).collect();
    for sleeper in &mut sleeping {
        assert!(sleeper.now_or_never().is_none());
    }
    // One more waits for its turn, which those that are dropped give back.
    let waiting = call(&connection, "echo", "late");
    tokio::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(sleeping);
    assert_eq!(waiting.await.expect("an answer").text, "late");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_cannot_start_and_one_that_is_none_are_told() {
    let Some(lab) = Lab::new().await else { return };
    let error = Connection::open(lab.program(&["no-such-server"]), Patience::default()).await;
    let error = error.err().expect("no server").to_string();
    assert!(error.contains("`no-such-server` cannot be run"), "{error}");
    let error = Connection::open(lab.program(&["/bin/true"]), Patience::default()).await;
    let error = error.err().expect("no server").to_string();
    assert!(error.starts_with("the server is gone: "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_server_that_is_closed_or_dropped() {
    let Some(lab) = Lab::new().await else { return };
    for is_closed in [true, false] {
        // A server that leaves a child which holds the file open and never ends.
        let path = lab.project().join("alive");
        let path = path.display().to_string();
        let status = std::process::Command::new("mkfifo").args(["-m", "666", &path]).status();
        assert!(status.expect("mkfifo").success());
        let fake = match lab.fake(&[]) {
            iris_mcp::Target::Program { request, .. } => match request.command {
                iris_sandbox::Command::Arguments(arguments) => arguments[0].clone(),
                iris_sandbox::Command::Shell(line) => line,
            },
            iris_mcp::Target::Http(_) => panic!("a program"),
        };
        let line = format!("(exec 9>alive; setsid sleep 99999) & exec {fake}");
        let reading = tokio::net::unix::pipe::OpenOptions::new().open_receiver(&path);
        let mut alive = reading.expect("a pipe");
        let target = lab.program(&["/bin/sh", "-c", &line]);
        let connection = Connection::open(target, Patience::default()).await.expect("a server");
        assert_eq!(text(&connection, "echo", "here").await, "here");
        if is_closed {
            connection.close().await;
        } else {
            drop(connection);
        }
        let mut rest = Vec::new();
        let gone = tokio::io::AsyncReadExt::read_to_end(&mut alive, &mut rest);
        timeout(SOON, gone).await.expect("all are gone").expect("a pipe");
        std::fs::remove_file(&path).expect("a pipe");
    }
}
