//! Authorizations for a place on the web: found out, agreed to, renewed. The row M5 of the threats, where a
//! server says where to go.

use iris_mcp::oauth::{
    AuthorizationRequest, AuthorizationServer, Challenge, Grantor, OauthClient, OauthError, Reach,
    authorization_url, discover, exchange, refresh, register,
};
use iris_mcp::{HttpServer, McpError, Patience, Secret, Target, Token};
use serde_json::json;

use crate::oauthfake::OauthFake;
use crate::web::egress_to;
use crate::webfake::WebFake;

const REDIRECT: &str = "http://127.0.0.1:4747/v1/mcp/callback";
/// RFC 7636 appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

fn reach(fake: &OauthFake, allowed: &[String]) -> Reach {
    Reach::new(format!("{}/mcp", fake.origin()).parse().expect("a url"), allowed)
}

async fn find_out(
    fake: &OauthFake,
    allowed: &[String],
    challenge: &str,
) -> Result<AuthorizationServer, OauthError> {
    let egress = egress_to(&[fake.address]);
    discover(&egress, &reach(fake, allowed), &Challenge::read(challenge)).await
}

#[tokio::test]
async fn somebody_agrees_and_tokens_come_and_are_renewed() {
    let fake = OauthFake::start().await;
    let (egress, reach) = (egress_to(&[fake.address]), reach(&fake, &[]));
    let server = find_out(&fake, &[], "").await.expect("an authorization server");
    assert_eq!(server.scopes, ["tools"]);
    let client = register(&egress, &reach, &server, REDIRECT).await.expect("a client");
    assert_eq!((client.id.as_str(), &client.secret), ("client-1", &None));
    let body = fake.asked_for("/register")[0].body.clone();
    assert_eq!(
        (&body["redirect_uris"], &body["client_name"]),
        (&json!([REDIRECT]), &json!("Iris"))
    );
    let request = AuthorizationRequest {
        client: &client,
        redirect_uri: REDIRECT,
        state: "s t&",
        challenge: CHALLENGE,
        scopes: &server.scopes,
    };
    let url = authorization_url(&server, request).to_string();
    assert!(
        url.starts_with(&format!("{}/agree?tenant=1&response_type=code", fake.origin())),
        "{url}"
    );
    let back = fake.agree(&url);
    assert_eq!(back["state"], "s t&");
    let grantor = Grantor::new(&server, client);
    let code = &back["code"];
    let granted =
        exchange(&egress, &reach, &grantor, code, VERIFIER, REDIRECT).await.expect("tokens");
    assert_eq!(granted.access.expose(), "access-1");
    let again =
        exchange(&egress, &reach, &grantor, code, VERIFIER, REDIRECT).await.expect_err("used");
    assert_eq!(again.to_string(), "the authorization server refused: invalid_grant: no\\u{200b}pe");
    assert!(again.is_final());

    let other =
        refresh(&egress, &reach, &grantor, &granted.refresh.expect("one")).await.expect("more");
    assert_eq!(other.access.expose(), "access-2");
    // A connection that stands shows the new one from the next request on.
    let token = Token::new(granted.access);
    token.replace(other.access);
    let server = HttpServer {
        egress,
        url: reach.server().clone(),
        headers: Vec::new(),
        token: token.clone(),
    };
    let opened = iris_mcp::Connection::open(Target::Http(server), Patience::default()).await;
    let connection = opened.expect("a connection");
    let last =
        refresh(&egress_to(&[fake.address]), &reach, &grantor, &Secret::new("refresh-2")).await;
    token.replace(last.expect("tokens").access);
    assert_eq!(connection.tools().await.expect("tools").len(), 1);
    fake.expire();
    let error = connection.tools().await.expect_err("it is good no more");
    assert!(matches!(error, McpError::Unauthorized { status: 401, .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_says_nothing_of_itself_gives_authorizations_itself() {
    let fake = OauthFake::start().await;
    fake.login().is_old = true;
    let server = find_out(&fake, &[], "Bearer scope=\"a b\"").await.expect("a server");
    assert_eq!((server.issuer, server.resource), (fake.origin(), format!("{}/mcp", fake.origin())));
    assert_eq!(server.scopes, ["a", "b"], "what the server asked for last");
    fake.login().issuer = json!({ "registration_endpoint": null });
    let malformed = find_out(&fake, &[], "").await.expect_err("no url");
    assert!(matches!(malformed, OauthError::Malformed { .. }), "{malformed}");
}

#[tokio::test]
async fn a_client_with_a_secret_shows_it_in_a_header_or_in_the_body() {
    let fake = OauthFake::start().await;
    let (egress, reach) = (egress_to(&[fake.address]), reach(&fake, &[]));
    let server = find_out(&fake, &[], "").await.expect("a server");
    let in_body = AuthorizationServer {
        auth_methods: vec!["client_secret_post".to_owned()],
        ..server.clone()
    };
    for server in [server, in_body] {
        let secret = Some(Secret::new("se:cret"));
        let client = OauthClient::configured("i d".to_owned(), secret, &server);
        let grantor = Grantor::new(&server, client);
        refresh(&egress, &reach, &grantor, &Secret::new("none")).await.expect_err("no such token");
    }
    let asked = fake.asked_for("/token");
    assert_eq!(asked[0].header("authorization"), "Basic aStkOnNlJTNBY3JldA==");
    assert!(!asked[0].text.contains("client_id"), "{}", asked[0].text);
    assert_eq!(asked[1].header("authorization"), "");
    assert!(asked[1].text.ends_with("client_id=i+d&client_secret=se%3Acret"), "{}", asked[1].text);
}

#[tokio::test]
async fn m5_nobody_goes_where_a_server_points_that_was_not_allowed() {
    let fake = OauthFake::start().await;
    let evil = WebFake::start(|_| None).await;
    let place = format!("http://{}", evil.address);
    let egress_to_both = egress_to(&[fake.address, evil.address]);
    let asks = async |challenge: &str| {
        let challenge = Challenge::read(challenge);
        discover(&egress_to_both, &reach(&fake, &[]), &challenge).await.expect_err("a refusal")
    };
    let foreign = asks(&format!("Bearer resource_metadata=\"{place}/x\"")).await;
    assert!(matches!(&foreign, OauthError::Foreign { origin } if *origin == place), "{foreign}");
    for inside in ["http://169.254.169.254/latest", "http://10.0.0.1/", "http://[fd00::1]/"] {
        let refused = asks(&format!("Bearer resource_metadata=\"{inside}\"")).await;
        assert!(matches!(refused, OauthError::Insecure { .. }), "{refused}");
    }
    let file = asks("Bearer resource_metadata=\"file:///etc/passwd\"").await;
    assert!(matches!(file, OauthError::Egress(_)), "{file}");
    fake.login().resource = json!({ "authorization_servers": [place] });
    assert!(matches!(asks("").await, OauthError::Foreign { .. }));
    fake.login().resource = json!({});
    for endpoint in ["authorization_endpoint", "token_endpoint", "registration_endpoint"] {
        fake.login().issuer = json!({ endpoint: format!("{place}/x") });
        assert!(matches!(asks("").await, OauthError::Foreign { .. }), "{endpoint}");
    }
    fake.login().issuer = json!({});
    // Tokens for something else, and what another one says of itself.
    fake.login().resource = json!({ "resource": "https://bank.example/" });
    assert!(matches!(asks("").await, OauthError::WrongResource { .. }));
    fake.login().resource = json!({});
    fake.login().issuer = json!({ "issuer": "https://other.example" });
    assert!(matches!(asks("").await, OauthError::WrongIssuer { .. }));
    fake.login().issuer = json!({ "code_challenge_methods_supported": ["plain"] });
    assert!(matches!(asks("").await, OauthError::NoPkce));
    assert!(evil.asked().is_empty(), "nobody followed");

    // Allowed by name, the way out still refuses private addresses.
    fake.login().issuer = json!({});
    fake.login().resource = json!({ "authorization_servers": [place] });
    let blocked = find_out(&fake, &[place], "").await.expect_err("a private address");
    assert!(
        matches!(&blocked, OauthError::Egress(it) if it.code() == "blocked_address"),
        "{blocked}"
    );
}

#[tokio::test]
async fn m5_a_code_or_a_secret_is_not_sent_on_by_a_redirect() {
    let fake = OauthFake::start().await;
    let evil = WebFake::start(|_| None).await;
    let place = evil.address;
    let login = WebFake::start(move |_| {
        let header = format!("location: http://{place}/token\r\n");
        Some(crate::webfake::status("307 Temporary Redirect", &header))
    })
    .await;
    let server = find_out(&fake, &[], "").await.expect("a server");
    let elsewhere = format!("http://{}/token", login.address).parse().expect("a url");
    let server = AuthorizationServer { token_endpoint: elsewhere, ..server };
    let client = OauthClient { id: "c".to_owned(), secret: None, is_in_body: false };
    let grantor = Grantor::new(&server, client);
    let allowed = [format!("http://{}", login.address), format!("http://{place}")];
    let egress = egress_to(&[login.address, place]);
    let token = Secret::new("refresh");
    let error = refresh(&egress, &reach(&fake, &allowed), &grantor, &token).await;
    let error = error.expect_err("a refusal");
    assert!(matches!(&error, OauthError::Egress(it) if it.code() == "refused_redirect"), "{error}");
    let error = refresh(&egress, &reach(&fake, &[]), &grantor, &token).await.expect_err("foreign");
    assert!(matches!(error, OauthError::Foreign { .. }), "{error}");
    assert!(evil.asked().is_empty());
}
