//! Everything else that goes wrong, each with its code.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use iris_egress::{Config, Egress, Lookup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::fixture::{Names, Server, allowing, answer, code, egress_to, get};

#[tokio::test]
async fn names_without_addresses_are_not_found() {
    let names = Names::new(&[("empty.example", &[&[]])]);
    let egress = Egress::with_lookup(allowing(&[]), names).expect("a client");
    assert_eq!(code(&egress, "http://unknown.example/").await, "dns");
    assert_eq!(code(&egress, "http://empty.example/").await, "dns");
}

struct Silent;

impl Lookup for Silent {
    fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_name_server_that_says_nothing_uses_up_the_time_to_connect() {
    let connect_timeout = Duration::from_millis(50);
    let config = Config { connect_timeout, ..Config::default() };
    let egress = Egress::with_lookup(config, Arc::new(Silent)).expect("a client");
    let error = get(&egress, "http://a.example/").await.expect_err("no address");
    assert_eq!(error.to_string(), "not answered within 0.05 seconds");
    assert_eq!(error.code(), "timed_out");
}

#[tokio::test]
async fn a_host_that_takes_no_connection_cannot_be_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let egress = Egress::new(allowing(&[&address])).expect("a client");
    assert_eq!(code(&egress, &format!("http://{address}/")).await, "connect");
}

#[tokio::test]
async fn a_host_that_speaks_no_tls_gets_no_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let address = listener.local_addr().expect("an address").to_string();
    let egress = Egress::new(allowing(&[&address])).expect("a client");
    let url = format!("https://{address}/");
    let serve = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("a client");
        let mut seen = Vec::new();
        // The client may close in any way.
        stream.read_to_end(&mut seen).await.ok();
        seen
    };
    let (code, seen) = tokio::join!(code(&egress, &url), serve);
    assert_eq!(code, "tls");
    assert!(!String::from_utf8_lossy(&seen).contains("GET "));
}

#[tokio::test]
async fn broken_answers_are_told_from_whole_ones() {
    let server = Server::start(|request| match request.split(' ').nth(1).expect("a path") {
        "/noise" => b"noise\r\n\r\n".to_vec(),
        "/short" => b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort".to_vec(),
        "/gzip" => answer("200 OK", "content-encoding: gzip\r\n", b"not gzip"),
        "/br" => answer("200 OK", "content-encoding: br\r\n", b"???"),
        "/twice" => b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_vec(),
        "/split" => answer("200 OK", "x: a\rinjected: b\r\n", b""),
        _ => Vec::new(),
    })
    .await;
    let egress = egress_to(&[&server]);
    for path in ["/noise", "/short", "/gzip", "/br", "/twice", "/split", "/nothing"] {
        assert_eq!(code(&egress, &server.url(path)).await, "bad_response", "{path}");
    }
}
