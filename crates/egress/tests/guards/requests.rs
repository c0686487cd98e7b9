//! What a server gets to see, and through whom.

use iris_egress::{Request, parse_url};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fixture::{Server, again, answer, egress_to, get, ok};

#[tokio::test]
async fn a_request_carries_its_headers_and_body_and_nothing_of_ours() {
    let server =
        Server::start(|_| answer("404 Not Found", "content-type: text/html\r\n", b"no")).await;
    let egress = egress_to(&[&server]);
    let request = Request::new("PUT", server.url("/a?b=c#d")).expect("a request");
    let request = request.header("X-Note", "one").expect("a header").body("body");
    let response = egress.fetch(request).await.expect("an answer");
    assert_eq!((response.status, response.content_type.as_deref()), (404, Some("text/html")));
    assert_eq!((&response.body[..], response.is_truncated), (&b"no"[..], false));
    let seen = &server.requests()[0];
    assert!(
        seen.starts_with("put /a?b=c http/1.1\r\n") && seen.ends_with("\r\n\r\nbody"),
        "{seen}"
    );
    assert!(
        seen.contains("\r\nx-note: one\r\n") && seen.contains("\r\nuser-agent: iris/"),
        "{seen}"
    );
}

#[tokio::test]
async fn line_breaks_in_a_url_make_no_header() {
    let server = Server::start(|_| ok("")).await;
    let egress = egress_to(&[&server]);
    let url = server.url("/a\r\nX-Injected: yes\r\n\r\n?b=\r\nX-Injected: yes");
    get(&egress, &url).await.expect("an answer");
    let seen = &server.requests()[0];
    assert!(!seen.contains("\r\nx-injected"), "{seen}");
    assert!(!parse_url(&url).expect("a url").as_str().contains(['\r', '\n']));
}

#[tokio::test]
async fn no_connection_is_kept_for_the_next_request() {
    let server = Server::serve("127.0.0.1:0", |mut stream, _| async move {
        stream.write_all(&ok("here")).await.expect("a client");
        // It would take a second request.
        let second = stream.read(&mut [0; 1]).await;
        assert!(matches!(second, Ok(0) | Err(_)), "{second:?}");
    })
    .await;
    let egress = egress_to(&[&server]);
    for _ in 0..2 {
        assert_eq!(get(&egress, &server.url("/")).await.expect("an answer").body, "here");
    }
    assert_eq!(server.accepted(), 2);
}

/// Names the server for the second run of the test below, which has a proxy in its environment.
const TARGET: &str = "IRIS_EGRESS_TEST_TARGET";

#[tokio::test]
async fn a_proxy_of_the_environment_is_never_asked() {
    if let Ok(target) = std::env::var(TARGET) {
        let config = crate::fixture::allowing(&[&target]);
        let egress = iris_egress::Egress::new(config).expect("a client");
        let response = get(&egress, &format!("http://{target}/")).await.expect("an answer");
        assert_eq!(response.body, "direct");
        return;
    }
    let server = Server::start(|_| ok("direct")).await;
    let proxy = Server::start(|_| ok("proxied")).await;
    let proxies = ["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"];
    let mut variables: Vec<_> = proxies.map(|name| (name, proxy.url(""))).into();
    variables.push((TARGET, server.address.to_string()));
    // No exception may keep the proxy from being asked.
    variables.extend(["no_proxy", "NO_PROXY"].map(|name| (name, String::new())));
    again("requests::a_proxy_of_the_environment_is_never_asked", variables).await;
    assert_eq!((server.accepted(), proxy.accepted()), (1, 0));
}
