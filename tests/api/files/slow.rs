//! Contents of files, and archives, that are sent or read slowly: they hold little of the server, and not
//! for ever.

use std::time::Duration;

use futures_util::future::select_all;
use iris_client::ClientError;
use iris_protocol::limits::FILE_BYTES_MAX;
use iris_protocol::{Backup, ErrorCode, ProjectId, Role};
use iris_testkit::{AppOptions, Person, TestApp, patiently, spawn_app, spawn_app_with};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, TcpStream};

use crate::{code_of, refusal, rest_refusal};

/// Bytes that the kernel may buffer for a reader that does not read.
const RECEIVE_BUFFER_BYTES: u32 = 4096;
/// More than the server and the kernel buffer of an answer.
pub(super) const LARGE_BYTES: usize = 4 * 1024 * 1024;
/// Answers of one user that may be on their way.
const ANSWERS_OF_USER_MAX: usize = 64;

fn content(project: &ProjectId, path: &str) -> String {
    format!("/v1/projects/{project}/files/content?path={path}")
}

/// Sends the head of a request over a socket of its own.
async fn begin(app: &TestApp, person: &Person, line: &str, length: usize) -> TcpStream {
    let host = app.url.strip_prefix("http://").unwrap();
    let raw = TcpSocket::new_v4().unwrap();
    raw.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).unwrap();
    let mut raw = raw.connect(host.parse().unwrap()).await.unwrap();
    let token = person.token();
    let head = format!(
        "{line} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\n\r\n"
    );
    raw.write_all(head.as_bytes()).await.unwrap();
    raw
}

/// Reads the status of an answer and not more.
async fn status(raw: &mut TcpStream) -> u16 {
    let mut line = [0; 12];
    patiently("the status", raw.read_exact(&mut line)).await.unwrap();
    std::str::from_utf8(&line).unwrap().strip_prefix("HTTP/1.1 ").unwrap().parse().unwrap()
}

/// Begins to read and does not go on.
pub(super) async fn stall(app: &TestApp, person: &Person, path: &str) -> TcpStream {
    let mut raw = begin(app, person, &format!("GET {path}"), 0).await;
    assert_eq!(status(&mut raw).await, 200);
    raw
}

/// How many bytes of the answer come before its end.
async fn rest(mut raw: TcpStream) -> usize {
    let mut bytes = Vec::new();
    // The end may be that of a connection that was aborted.
    patiently("the end", raw.read_to_end(&mut bytes)).await.ok();
    bytes.len()
}

/// Tries again what is refused for what others of the same user hold.
async fn at_last<T>(what: &str, attempt: impl AsyncFn() -> Result<T, ClientError>) -> T {
    let trying = async {
        loop {
            match attempt().await {
                Ok(done) => return done,
                Err(error) => assert_eq!(refusal::<()>(Err(error)).code, ErrorCode::Overloaded),
            }
        }
    };
    patiently(what, trying).await
}

#[tokio::test]
async fn answers_that_a_user_does_not_read_are_bounded_and_keep_nobody_else_out() {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &bob, Role::Viewer).await;
    let bytes: Vec<u8> = (0_u32..1024 * 1024).flat_map(u32::to_le_bytes).collect();
    let file = ann.client.file_put(&project, "large", bytes.clone()).await.unwrap();
    let path = content(&project, "large");
    let mut stalled = Vec::new();
    for _ in 0..ANSWERS_OF_USER_MAX {
        stalled.push(stall(&app, &ann, &path).await);
    }
    let refused = rest_refusal(&ann.get(&path).await);
    assert_eq!((refused.code, refused.retryable), (ErrorCode::Overloaded, true));
    assert!(refused.retry_after_ms.is_some());
    let others = bob.get(&path).await;
    assert_eq!(others.headers["etag"], format!("\"{}\"", file.hash));
    assert_eq!(others.headers["content-length"], LARGE_BYTES.to_string());
    assert_eq!(others.body, bytes);

    // One goes away, another one is read to its end.
    drop(stalled.pop());
    let read = at_last("an answer", async || ann.client.file_get(&project, "large").await).await;
    assert_eq!(read, bytes);
    let mut last = stalled.pop().unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(&bytes) {
        assert_ne!(patiently("the rest", last.read_buf(&mut answer)).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn an_answer_that_its_reader_does_not_take_is_ended() {
    let answer_stall = Duration::from_millis(100);
    let app = spawn_app_with(AppOptions { answer_stall, ..AppOptions::default() }).await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    // Of which an archive has to be as large.
    let mut random = vec![0; LARGE_BYTES];
    fastrand::Rng::with_seed(1).fill(&mut random);
    ann.client.file_put(&project, "large", random).await.unwrap();
    let project_path = format!("/v1/projects/{project}");
    let backup: Backup =
        ann.post(&format!("{project_path}/backup"), json!({})).await.data().unwrap();
    for path in
        [content(&project, "large"), format!("{project_path}/backups/{}/content", backup.id)]
    {
        let stalled = stall(&app, &ann, &path).await;
        // Nothing is read meanwhile.
        patiently("the abort", stalled.ready(Interest::ERROR)).await.unwrap();
        assert!(rest(stalled).await < LARGE_BYTES);
    }
}

#[tokio::test]
async fn an_answer_ends_early_when_its_file_changes_meanwhile() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let old = vec![b'o'; LARGE_BYTES];
    for changed in [vec![b'n'; LARGE_BYTES], vec![b'o'; LARGE_BYTES / 2]] {
        ann.client.file_put(&project, "a", old.clone()).await.unwrap();
        let stalled = stall(&app, &ann, &content(&project, "a")).await;
        // Into the very file: one that takes its place is another one.
        let files = app.data_dir().join("projects").join(project.as_str()).join("files");
        std::fs::write(files.join("a"), &changed).unwrap();
        assert!(rest(stalled).await < LARGE_BYTES);
        assert_eq!(ann.get(&content(&project, "a")).await.body, changed);
    }
}

/// Whoever loses the right while an answer is on its way gets no more of it.
#[tokio::test]
async fn an_answer_ends_early_when_its_reader_is_taken_out_or_signs_out() {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &bob, Role::Viewer).await;
    ann.client.file_put(&project, "a", vec![b'o'; LARGE_BYTES]).await.unwrap();
    let of_bob = stall(&app, &bob, &content(&project, "a")).await;
    let of_ann = stall(&app, &ann, &content(&project, "a")).await;
    let member = format!("/v1/projects/{project}/members/{}", bob.id());
    assert!(ann.rest("DELETE", &member, None).await.is_success());
    assert!(rest(of_bob).await < LARGE_BYTES);
    assert!(ann.post("/v1/auth/logout", json!({})).await.is_success());
    assert!(rest(of_ann).await < LARGE_BYTES);
}

/// Row H14: what is compressed is refused and not decompressed.
#[tokio::test]
async fn h14_a_compressed_body_is_refused_before_it_can_grow() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let headers = [("content-encoding", "gzip")];
    let (path, bomb) = (content(&project, "bomb"), vec![0; 10 * 1024]);
    let client = &ann.client;
    let sent = client.raw("PUT", &path, Some(ann.token()), &headers, bomb.into()).await.unwrap();
    let refused = rest_refusal(&sent);
    assert_eq!(code_of(&refused), (ErrorCode::UnsupportedMediaType, "content_encoding"));
    assert_eq!(refusal(ann.client.file_get(&project, "bomb").await).code, ErrorCode::NotFound);
    let json = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let route = "/v1/projects";
    let sent = client.raw("POST", route, Some(ann.token()), &json, "{}".into()).await.unwrap();
    assert_eq!(rest_refusal(&sent).code, ErrorCode::UnsupportedMediaType);
}

/// Row H16: of a content that is cut off nothing is left.
#[tokio::test]
async fn h16_a_content_that_is_cut_off_leaves_the_file_as_it_was_and_nothing_else() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    ann.client.file_put(&project, "dir/a", "before").await.unwrap();
    let line = format!("PUT {}", content(&project, "dir/a"));
    let mut raw = begin(&app, &ann, &line, 1000).await;
    raw.write_all(&[b'x'; 500]).await.unwrap();
    raw.shutdown().await.unwrap();
    // Answered or not: the end of the connection is the end of the request.
    rest(raw).await;
    assert_eq!(ann.client.file_get(&project, "dir/a").await.unwrap(), "before");
    let files = app.data_dir().join("projects").join(project.as_str()).join("files/dir");
    assert_eq!(std::fs::read_dir(files).unwrap().count(), 1);
    let written = ann.client.file_put(&project, "dir/a", "after").await.unwrap();
    assert_eq!(written.version, 2);
}

#[tokio::test]
async fn contents_that_a_user_sends_at_the_same_time_are_bounded() {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &bob, Role::Member).await;
    let line = format!("PUT {}", content(&project, "large"));
    let mut sending = Vec::new();
    for _ in 0..3 {
        sending.push(begin(&app, &ann, &line, FILE_BYTES_MAX).await);
    }
    // Only one that finds two others is answered before its body comes.
    let answers = sending.iter_mut().map(|raw| Box::pin(status(raw)));
    let (answer, refused, _) = select_all(answers).await;
    assert_eq!(answer, 503);
    sending.remove(refused);
    let refused = refusal(ann.client.file_put(&project, "small", "x").await);
    assert_eq!((refused.code, refused.retryable), (ErrorCode::Overloaded, true));
    assert!(refused.retry_after_ms.is_some());
    bob.client.file_put(&project, "small", "x").await.unwrap();

    // One goes away, the other one arrives.
    drop(sending.pop());
    at_last("room", async || ann.client.file_put(&project, "small", "x").await).await;
    let whole = vec![b'x'; FILE_BYTES_MAX];
    let mut other = sending.pop().unwrap();
    patiently("the other one", other.write_all(&whole)).await.unwrap();
    assert_eq!(status(&mut other).await, 200);
    let (one, other) = tokio::join!(
        ann.client.file_put(&project, "one", whole.clone()),
        ann.client.file_put(&project, "other", whole.clone()),
    );
    assert_eq!((one.unwrap().version, other.unwrap().version), (1, 1));
}
