//! S1 and S5: what is never connected to. S2: names that change their mind.

use std::sync::Arc;

use iris_egress::Egress;

use crate::fixture::{Names, Server, allowing, code, egress_to, get, ok};

#[tokio::test]
async fn s1_literal_addresses_inside_are_refused_and_nobody_knocks() {
    let open = Server::start(|_| ok("open")).await;
    let closed = Server::start(|_| ok("closed")).await;
    let egress = egress_to(&[&open]);
    let port = closed.port();
    let hosts = [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "017700000001",
        "0177.0.0.01",
        "127.255.255.254",
        "0.0.0.0",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:7f00:1]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::1]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
        "169.254.169.254",
        "100.100.100.200",
        "10.0.0.1",
        "100.64.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "１２７.０.０.１",
        "127%2e0%2e0%2e1",
    ];
    for host in hosts {
        assert_eq!(
            code(&egress, &format!("http://{host}:{port}/")).await,
            "blocked_address",
            "{host}"
        );
    }
    // An address with a zone is no URL at all (WHATWG URL Standard).
    assert_eq!(code(&egress, &format!("http://[fe80::1%eth0]:{port}/")).await, "bad_url");
    assert_eq!(code(&egress, &format!("http://[::1%25lo]:{port}/")).await, "bad_url");
    assert_eq!(closed.accepted(), 0);

    assert_eq!(get(&egress, &open.url("/")).await.expect("an answer").body, "open");
    assert_eq!(open.accepted(), 1);
}

#[tokio::test]
async fn s1_names_that_lead_inside_are_refused_and_nobody_knocks() {
    let closed = Server::start(|_| ok("closed")).await;
    let names = Names::new(&[
        ("loopback.example", &[&["127.0.0.1"]]),
        ("mapped.example", &[&["::ffff:127.0.0.1"]]),
        ("any.example", &[&["0.0.0.0"]]),
        ("six.example", &[&["::1"]]),
        ("metadata.example", &[&["169.254.169.254"]]),
    ]);
    let egress = Egress::with_lookup(allowing(&[]), Arc::clone(&names) as _).expect("a client");
    for host in ["loopback", "mapped", "any", "six", "metadata"] {
        let url = format!("http://{host}.example:{}/", closed.port());
        let error = get(&egress, &url).await.expect_err("blocked");
        assert_eq!(error.code(), "blocked_address", "{host}");
        // Where the name leads is nobody's business.
        let text = error.to_string();
        assert!(!text.contains("127.") && !text.contains("169.254"), "{text}");
    }
    assert_eq!((closed.accepted(), names.asked()), (0, 5));

    // The system's own names, with the system's resolver.
    let egress = egress_to(&[]);
    assert_eq!(
        code(&egress, &format!("http://localhost:{}/", closed.port())).await,
        "blocked_address"
    );
    assert_eq!(closed.accepted(), 0);
}

#[tokio::test]
async fn s2_a_name_that_leads_outside_first_and_inside_later_is_refused_later() {
    let outside = Server::start_at("127.0.0.2:0", |_| ok("outside")).await;
    let port = outside.port();
    let inside = Server::start_at(&format!("127.0.0.1:{port}"), |_| ok("inside")).await;
    let names = Names::new(&[("rebinding.example", &[&["127.0.0.2"], &["127.0.0.1"]])]);
    let egress = Egress::with_lookup(allowing(&["127.0.0.2"]), Arc::clone(&names) as _);
    let egress = egress.expect("a client");
    let url = format!("http://rebinding.example:{port}/");

    assert_eq!(get(&egress, &url).await.expect("an answer").body, "outside");
    // One look-up for one connection: there is nothing between the check and the use.
    assert_eq!(names.asked(), 1);
    assert_eq!(code(&egress, &url).await, "blocked_address");
    assert_eq!(names.asked(), 2);
    assert_eq!((outside.accepted(), inside.accepted()), (1, 0));
}

#[tokio::test]
async fn s2_an_answer_with_addresses_inside_and_outside_is_refused_as_a_whole() {
    let outside = Server::start_at("127.0.0.2:0", |_| ok("outside")).await;
    let port = outside.port();
    let inside = Server::start_at(&format!("127.0.0.1:{port}"), |_| ok("inside")).await;
    let names = Names::new(&[
        ("first.example", &[&["127.0.0.2", "127.0.0.1"]]),
        ("last.example", &[&["127.0.0.1", "127.0.0.2"]]),
    ]);
    let egress = Egress::with_lookup(allowing(&["127.0.0.2/32"]), names).expect("a client");
    for host in ["first", "last"] {
        assert_eq!(
            code(&egress, &format!("http://{host}.example:{port}/")).await,
            "blocked_address"
        );
    }
    assert_eq!((outside.accepted(), inside.accepted()), (0, 0));
}

#[tokio::test]
async fn s5_users_ports_and_schemes_that_are_not_the_web_are_refused() {
    let names = Names::new(&[("a.example", &[&["127.0.0.1"]])]);
    let egress = Egress::with_lookup(allowing(&["127.0.0.0/8"]), Arc::clone(&names) as _);
    let egress = egress.expect("a client");
    for (url, expected) in [
        ("http://user:secret@a.example/", "bad_url"),
        ("http://user@a.example/", "bad_url"),
        ("http://a.example:25/", "blocked_port"),
        ("http://a.example:6379/", "blocked_port"),
        ("https://a.example:22/", "blocked_port"),
        ("http://127.0.0.1:25/", "blocked_port"),
        ("ftp://a.example/", "blocked_scheme"),
        ("file:///etc/passwd", "blocked_scheme"),
        ("a.example", "bad_url"),
    ] {
        assert_eq!(code(&egress, url).await, expected, "{url}");
    }
    assert_eq!(names.asked(), 0, "what is refused is not even looked up");
}

#[tokio::test]
async fn s5_hosts_in_other_scripts_are_looked_up_and_shown_in_ascii() {
    let server = Server::start(|_| ok("books")).await;
    let names = Names::new(&[("xn--bcher-kva.example", &[&["127.0.0.1"]])]);
    let egress = Egress::with_lookup(allowing(&["127.0.0.1"]), names).expect("a client");
    let url = format!("http://BÜCHER.example:{}/", server.port());
    let response = get(&egress, &url).await.expect("an answer");
    let shown = format!("http://xn--bcher-kva.example:{}/", server.port());
    assert_eq!(response.final_url.as_str(), shown);
    assert!(server.requests()[0].contains("\r\nhost: xn--bcher-kva.example:"));
}

#[tokio::test]
async fn a_place_that_the_operator_named_is_reached_wherever_its_name_leads() {
    let server = Server::start(|_| ok("internal")).await;
    let names = Names::new(&[("docs.internal", &[&["127.0.0.1"]])]);
    let place = format!("docs.internal:{}", server.port());
    let egress = Egress::with_lookup(allowing(&[&place]), names).expect("a client");
    assert_eq!(
        get(&egress, &format!("http://{place}/")).await.expect("an answer").body,
        "internal"
    );
    assert_eq!(code(&egress, "http://docs.internal/").await, "blocked_address");
    assert_eq!(code(&egress, &server.url("/")).await, "blocked_address");
    assert_eq!(server.accepted(), 1);
}

/// What a program is given that makes the connection itself.
#[tokio::test]
async fn addresses_for_a_program_are_judged_like_those_of_the_client() {
    let names = Names::new(&[
        ("public.example", &[&["93.184.215.14", "2606:2800::1"]]),
        ("inside.example", &[&["10.0.0.1"]]),
        ("mixed.example", &[&["93.184.215.14", "10.0.0.1"]]),
        ("empty.example", &[&[]]),
        ("open.example", &[&["10.1.0.1"]]),
        ("named.example", &[&["10.9.9.9"]]),
    ]);
    let config = allowing(&["10.1.0.0/16", "named.example:8080"]);
    let egress = Egress::with_lookup(config, names).expect("a client");
    let pin = async |url: &str| match egress.pin(url).await {
        Ok(pinned) => Ok(pinned.addresses.iter().map(ToString::to_string).collect::<Vec<_>>()),
        Err(error) => Err(error.code()),
    };
    let both = ["93.184.215.14", "2606:2800::1"].map(str::to_owned).to_vec();
    assert_eq!(pin("https://public.example/a.git").await, Ok(both));
    assert_eq!(pin("https://93.184.215.14/").await, Ok(vec!["93.184.215.14".to_owned()]));
    for (url, code) in [
        ("http://public.example/", "blocked_scheme"),
        ("https://inside.example/", "blocked_address"),
        ("https://mixed.example/", "blocked_address"),
        ("https://127.0.0.1/", "blocked_address"),
        ("https://public.example:25/", "blocked_port"),
        ("https://empty.example/", "dns"),
        ("https://none.example/", "dns"),
        ("https://named.example/", "blocked_address"),
        ("ssh://public.example/", "blocked_scheme"),
        ("https://ann:x@public.example/", "bad_url"),
    ] {
        assert_eq!(pin(url).await, Err(code), "{url}");
    }
    for url in ["http://open.example/", "https://open.example/", "http://named.example:8080/"] {
        assert!(pin(url).await.is_ok(), "{url}");
    }
}
