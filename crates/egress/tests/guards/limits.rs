//! S4: bodies without end, bombs, drips; and how much goes on at once.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use iris_egress::{Config, Egress, Request};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc};
use tokio::time::interval;

use crate::fixture::{Server, answer, code, config_to, egress_to, get, ok};

/// Writes until the client is gone; tells `gone` when it is.
async fn endless(head: &'static str, gone: mpsc::Sender<()>) -> Server {
    Server::serve("127.0.0.1:0", move |mut stream, _| {
        let gone = gone.clone();
        async move {
            stream.write_all(head.as_bytes()).await.expect("a client");
            let noise = vec![b'x'; 64 << 10];
            while stream.write_all(&noise).await.is_ok() {}
            gone.send(()).await.expect("a test that waits");
        }
    })
    .await
}

#[tokio::test]
async fn s4_an_endless_body_is_cut_at_the_limit_and_the_connection_closed() {
    let (gone, mut is_gone) = mpsc::channel(1);
    let server = endless("HTTP/1.1 200 OK\r\n\r\n", gone).await;
    let egress = egress_to(&[&server]);
    let response = get(&egress, &server.url("/")).await.expect("an answer");
    assert_eq!((response.body.len(), response.is_truncated), (5 << 20, true));
    is_gone.recv().await.expect("the server");

    let request = Request::get(server.url("/")).body_bytes_max(1000);
    let response = egress.fetch(request).await.expect("an answer");
    assert_eq!((response.body.len(), response.is_truncated), (1000, true));

    // A request asks for less, never for more.
    let request = Request::get(server.url("/")).body_bytes_max(usize::MAX);
    assert_eq!(egress.fetch(request).await.expect("an answer").body.len(), 5 << 20);
}

#[tokio::test]
async fn s4_a_body_of_ten_gigabytes_is_cut_at_the_limit() {
    let (gone, mut is_gone) = mpsc::channel(1);
    let server = endless("HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n", gone).await;
    let response = get(&egress_to(&[&server]), &server.url("/")).await.expect("an answer");
    assert_eq!((response.body.len(), response.is_truncated), (5 << 20, true));
    is_gone.recv().await.expect("the server");
}

fn gzip(bytes: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    for piece in bytes {
        encoder.write_all(&piece).expect("memory");
    }
    encoder.finish().expect("memory")
}

#[tokio::test]
async fn s4_a_gzip_bomb_is_cut_at_the_decoded_limit() {
    let bomb = gzip((0..32).map(|_| vec![0; 1 << 20]));
    assert!(bomb.len() < 1 << 20);
    let server =
        Server::start(move |_| answer("200 OK", "content-encoding: gzip\r\n", &bomb)).await;
    let response = get(&egress_to(&[&server]), &server.url("/")).await.expect("an answer");
    assert_eq!((response.body.len(), response.is_truncated), (5 << 20, true));
}

#[tokio::test]
async fn compressed_bodies_are_read_and_a_body_of_exactly_the_limit_is_whole() {
    let text = "Iris ".repeat(2000);
    let packed = gzip(std::iter::once(text.clone().into_bytes()));
    let server =
        Server::start(move |_| answer("200 OK", "content-encoding: gzip\r\n", &packed)).await;
    let egress = egress_to(&[&server]);
    let read = |bytes| egress.fetch(Request::get(server.url("/")).body_bytes_max(bytes));
    let whole = read(text.len()).await.expect("an answer");
    assert_eq!((&whole.body[..], whole.is_truncated), (text.as_bytes(), false));
    let cut = read(text.len() - 1).await.expect("an answer");
    assert_eq!((cut.body.len(), cut.is_truncated), (text.len() - 1, true));
    assert!(server.requests()[0].contains("\r\naccept-encoding: gzip\r\n"));

    let request = Request::new("HEAD", server.url("/")).expect("a request");
    assert!(egress.fetch(request).await.expect("an answer").body.is_empty());
}

fn impatient(server: &Server) -> Egress {
    let timeout = Duration::from_millis(200);
    Egress::new(Config { timeout, ..config_to(&[server]) }).expect("a client")
}

#[tokio::test]
async fn s4_a_body_that_drips_is_given_up_when_the_whole_takes_too_long() {
    let server = Server::serve("127.0.0.1:0", |mut stream, _| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("a client");
        // Each byte comes long before any timeout of a single read would.
        let mut drops = interval(Duration::from_millis(5));
        while stream.write_all(b"x").await.is_ok() {
            drops.tick().await;
        }
    })
    .await;
    assert_eq!(code(&impatient(&server), &server.url("/")).await, "timed_out");
}

#[tokio::test]
async fn s4_headers_that_never_come_or_drip_are_given_up() {
    let silent = Server::serve("127.0.0.1:0", |stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    assert_eq!(code(&impatient(&silent), &silent.url("/")).await, "timed_out");

    let dripping = Server::serve("127.0.0.1:0", |mut stream, _| async move {
        let mut drops = interval(Duration::from_millis(5));
        let mut is_open = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await.is_ok();
        while is_open {
            drops.tick().await;
            is_open = stream.write_all(b"x").await.is_ok();
        }
    })
    .await;
    assert_eq!(code(&impatient(&dripping), &dripping.url("/")).await, "timed_out");

    let request = Request::get(silent.url("/")).timeout(Duration::from_millis(50));
    let error = egress_to(&[&silent]).fetch(request).await.expect_err("no answer");
    assert_eq!(error.to_string(), "not answered within 0.05 seconds");
}

#[tokio::test]
async fn headers_beyond_the_limits_are_refused() {
    let server = Server::start(|request| {
        let header = match request.split(' ').nth(1).expect("a path") {
            "/fits" => format!("x: {}\r\n", "x".repeat(60 << 10)),
            "/large" => format!("x: {}\r\n", "x".repeat(65 << 10)),
            "/huge" => format!("x: {}\r\n", "x".repeat(1 << 20)),
            _ => "x: x\r\n".repeat(1000),
        };
        answer("200 OK", &header, b"")
    })
    .await;
    let egress = egress_to(&[&server]);
    assert_eq!(get(&egress, &server.url("/fits")).await.expect("an answer").status, 200);
    assert_eq!(code(&egress, &server.url("/large")).await, "too_large");
    assert_eq!(code(&egress, &server.url("/huge")).await, "bad_response");
    assert_eq!(code(&egress, &server.url("/many")).await, "bad_response");
}

#[tokio::test]
async fn a_streamed_body_comes_while_it_is_sent_and_ends_at_the_limit() {
    let more = Arc::new(Notify::new());
    let wanted = Arc::clone(&more);
    let server = Server::serve("127.0.0.1:0", move |mut stream, _| {
        let wanted = Arc::clone(&wanted);
        async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nfirst").await.expect("a client");
            wanted.notified().await;
            stream.write_all(b"second").await.expect("a client");
        }
    })
    .await;
    let egress = egress_to(&[&server]);
    let request = Request::get(server.url("/")).body_bytes_max(8);
    let mut body = egress.send(request).await.expect("an answer").body;
    assert_eq!(body.chunk().await.expect("a piece").expect("a piece"), "first");
    more.notify_one();
    assert_eq!(body.chunk().await.expect("a piece").expect("a piece"), "sec");
    assert_eq!(body.chunk().await.expect_err("too much").code(), "too_large");
    assert_eq!(body.chunk().await.expect("nothing more"), None);
}

#[tokio::test]
async fn one_too_many_is_refused_or_waits_for_its_turn() {
    let server = Server::start(|_| ok("done")).await;
    let config = Config {
        requests_max: 1,
        waiting_max: 1,
        timeout: Duration::from_millis(300),
        ..config_to(&[&server])
    };
    let egress = Egress::new(config).expect("a client");
    // An answer whose body nobody has read yet is under way.
    let held = egress.send(Request::get(server.url("/"))).await.expect("an answer");
    let url = server.url("/");
    let (waited, refused) = tokio::join!(get(&egress, &url), get(&egress, &url));
    assert_eq!(waited.expect_err("no turn").code(), "timed_out");
    assert_eq!(refused.expect_err("no place").code(), "busy");
    assert_eq!(server.accepted(), 1);
    drop(held);
    assert_eq!(get(&egress, &url).await.expect("an answer").body, "done");
}
