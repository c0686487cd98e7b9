//! S3: redirects.

use iris_egress::{Egress, REDIRECTS_MAX, Request};

use crate::fixture::{Names, Server, allowing, answer, code, egress_to, found, get, ok};

#[tokio::test]
async fn s3_a_redirect_to_an_address_inside_is_refused_and_nobody_knocks() {
    let closed = Server::start(|_| ok("closed")).await;
    let targets = [
        closed.url("/"),
        format!("http://localhost:{}/", closed.port()),
        format!("http://[::ffff:127.0.0.1]:{}/", closed.port()),
        format!("//0x7f.1:{}/", closed.port()),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
    ];
    for target in targets {
        let location = target.clone();
        let open = Server::start(move |_| found(&location)).await;
        let egress = egress_to(&[&open]);
        assert_eq!(code(&egress, &open.url("/")).await, "blocked_address", "{target}");
        assert_eq!(open.accepted(), 1);
    }
    assert_eq!(closed.accepted(), 0);
}

#[tokio::test]
async fn s3_a_redirect_to_the_same_name_is_resolved_and_judged_again() {
    let server = Server::start_at("127.0.0.2:0", |_| found("/again")).await;
    let names = Names::new(&[("a.example", &[&["127.0.0.2"], &["127.0.0.1"]])]);
    let egress = Egress::with_lookup(allowing(&["127.0.0.2"]), names).expect("a client");
    let url = format!("http://a.example:{}/", server.port());
    assert_eq!(code(&egress, &url).await, "blocked_address");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn s3_redirects_to_other_schemes_users_and_ports_are_refused() {
    for (location, expected) in [
        ("file:///etc/passwd", "blocked_scheme"),
        ("gopher://127.0.0.1:6379/_INFO", "blocked_scheme"),
        ("http://user:secret@example.com/", "bad_url"),
        ("http://example.com:6379/", "blocked_port"),
        ("http://[", "bad_url"),
    ] {
        let server = Server::start(move |_| found(location)).await;
        let egress = egress_to(&[&server]);
        assert_eq!(code(&egress, &server.url("/")).await, expected, "{location}");
    }
}

/// Sends on as often as the number in the path says.
fn countdown(request: &str) -> Vec<u8> {
    let number = request.strip_prefix("GET /").and_then(|rest| rest.split(' ').next());
    match number.and_then(|number| number.parse::<usize>().ok()) {
        Some(0) => ok("arrived"),
        Some(left) => found(&format!("/{}", left - 1)),
        None => found("/11"),
    }
}

#[tokio::test]
async fn s3_as_many_redirects_as_allowed_are_followed_and_not_one_more() {
    let server = Server::start(countdown).await;
    let egress = egress_to(&[&server]);
    let response = get(&egress, &server.url("/5")).await.expect("an answer");
    assert_eq!(response.body, "arrived");
    assert_eq!(response.final_url.as_str(), server.url("/0"));
    let passed: Vec<_> = response.redirects.iter().map(url::Url::path).collect();
    assert_eq!(passed, ["/5", "/4", "/3", "/2", "/1"]);
    assert_eq!(passed.len(), REDIRECTS_MAX);

    let before = server.accepted();
    assert_eq!(code(&egress, &server.url("/11")).await, "too_many_redirects");
    assert_eq!(server.accepted() - before, REDIRECTS_MAX + 1);
}

#[tokio::test]
async fn s3_secrets_reach_the_same_origin_and_no_other() {
    let other = Server::start(|_| ok("other")).await;
    let target = other.url("/");
    let first = Server::start(move |request| {
        if request.starts_with("GET /same") { found("/away") } else { found(&target) }
    })
    .await;
    let egress = egress_to(&[&first, &other]);
    let mut request = Request::get(first.url("/same"));
    for (name, value) in [
        ("Authorization", "Bearer secret"),
        ("Cookie", "id=secret"),
        ("X-Api-Key", "secret"),
        ("Accept", "text/html"),
    ] {
        request = request.header(name, value).expect("a header");
    }
    assert_eq!(egress.fetch(request).await.expect("an answer").body, "other");
    for seen in first.requests() {
        assert_eq!(seen.matches("secret").count(), 3, "{seen}");
    }
    let seen = &other.requests()[0];
    assert!(!seen.contains("secret") && seen.contains("\r\naccept: text/html\r\n"), "{seen}");
    // No word of where the client comes from either.
    assert!(!seen.contains("referer"), "{seen}");
}

#[tokio::test]
async fn a_body_goes_along_where_the_status_says_so() {
    let server = Server::start(|request| {
        let status = match request.split(' ').nth(1) {
            Some("/307") => "307 Temporary Redirect",
            Some("/303") => "303 See Other",
            _ => return ok("arrived"),
        };
        answer(status, "location: /end\r\n", b"")
    })
    .await;
    let egress = egress_to(&[&server]);
    for path in ["/307", "/303"] {
        let request = Request::new("POST", server.url(path)).expect("a request");
        egress.fetch(request.body("the body")).await.expect("an answer");
    }
    let seen = server.requests();
    assert!(seen[1].starts_with("post /end ") && seen[1].ends_with("the body"), "{}", seen[1]);
    assert!(seen[3].starts_with("get /end ") && !seen[3].contains("the body"), "{}", seen[3]);
}

#[tokio::test]
async fn a_redirect_without_a_location_is_an_answer() {
    let server = Server::start(|_| answer("302 Found", "", b"nowhere")).await;
    let response = get(&egress_to(&[&server]), &server.url("/")).await.expect("an answer");
    assert_eq!((response.status, &response.body[..]), (302, &b"nowhere"[..]));
}

#[tokio::test]
async fn a_redirect_that_the_caller_does_not_want_is_not_followed() {
    let there = Server::start(|_| ok("there")).await;
    let location = there.url("/");
    let here = Server::start(move |_| found(&location)).await;
    let egress = egress_to(&[&here, &there]);
    let wanted = there.port();
    let request = |follows: bool| {
        Request::get(here.url("/")).follow_if(move |url| follows && url.port() == Some(wanted))
    };
    let refused = egress.fetch(request(false)).await.expect_err("it is not wanted");
    assert_eq!(refused.code(), "refused_redirect");
    assert_eq!(refused.to_string(), format!("the answer is at `{}`", there.url("/")));
    assert_eq!(there.accepted(), 0);
    let followed = egress.fetch(request(true)).await.expect("it is wanted");
    assert_eq!(&followed.body[..], b"there");
}
