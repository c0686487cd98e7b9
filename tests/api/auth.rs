//! Accounts, tokens and their ends.

use std::sync::Arc;
use std::time::Duration;

use iris_actors::Registration;
use iris_client::{Authentication, ClientError, ConnectOptions};
use iris_protocol::{AuthRefresh, AuthRegister, AuthSetup, ErrorCode, Ping, ServerFrame};
use iris_testkit::{
    AppOptions, PASSWORD, Person, SETUP_TOKEN, TestClock, WireSocket, patiently, spawn_app,
    spawn_app_with,
};
use serde_json::json;

use crate::{code_of, refusal, rest_refusal};

/// Some day in 2026, at 100 ms before a full second.
const NOON_MS: i64 = 1_790_000_000_900;

fn account(name: &str) -> AuthRegister {
    let email = format!("{name}@example.com");
    AuthRegister {
        invitation: None,
        email,
        username: name.to_owned(),
        password: PASSWORD.to_owned(),
    }
}

fn setup(token: &str) -> AuthSetup {
    let AuthRegister { email, username, password, .. } = account("root");
    AuthSetup { token: token.to_owned(), email, username, password }
}

#[tokio::test]
async fn the_setup_token_makes_one_administrator() {
    let app = spawn_app().await;
    let wrong = refusal(app.client().setup(&setup("wrong")).await);
    assert_eq!(code_of(&wrong), (ErrorCode::Unauthenticated, "setup_token"));
    let root = app.admin().await;
    assert!(root.grant.user.is_admin);
    let again = refusal(app.client().setup(&setup(SETUP_TOKEN)).await);
    assert_eq!(code_of(&again), (ErrorCode::Conflict, "already_set_up"));
    let app = app.restart().await;
    let again = refusal(app.client().setup(&setup(SETUP_TOKEN)).await);
    assert_eq!(code_of(&again), (ErrorCode::Conflict, "already_set_up"));
}

#[tokio::test]
async fn two_setups_at_once_make_one_administrator() {
    let app = spawn_app().await;
    let other =
        AuthSetup { email: "b@example.com".into(), username: "b".into(), ..setup(SETUP_TOKEN) };
    let (first, second) = (app.client(), app.client());
    let request = setup(SETUP_TOKEN);
    let both = tokio::join!(first.setup(&request), second.setup(&other));
    assert_eq!(usize::from(both.0.is_ok()) + usize::from(both.1.is_ok()), 1);
}

#[tokio::test]
async fn registration_can_be_closed() {
    let options = AppOptions { registration: Registration::Closed, ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    app.admin().await;
    let refused = refusal(app.client().register(&account("ann")).await);
    assert_eq!(code_of(&refused), (ErrorCode::Forbidden, "registration_closed"));
}

#[tokio::test]
async fn an_account_needs_a_free_address_a_free_name_and_a_password() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    assert!(!ann.grant.user.is_admin);
    assert_eq!(ann.get("/v1/me").await.json["data"]["email"], "ann@example.com");
    let refused = async |change: fn(&mut AuthRegister)| {
        let mut request = account("bob");
        change(&mut request);
        let error = refusal(app.client().register(&request).await);
        let (code, reason) = code_of(&error);
        (code, reason.to_owned())
    };
    let conflict = |reason: &str| (ErrorCode::Conflict, reason.to_owned());
    let invalid = |reason: &str| (ErrorCode::InvalidRequest, reason.to_owned());
    assert_eq!(refused(|a| a.email = "ANN@example.com".into()).await, conflict("email_taken"));
    assert_eq!(refused(|a| a.username = "ann".into()).await, conflict("username_taken"));
    assert_eq!(refused(|a| a.email = "nobody".into()).await, invalid("invalid_email"));
    assert_eq!(refused(|a| a.username = " ".into()).await, invalid("invalid_name"));
    assert_eq!(refused(|a| a.password = "short".into()).await, invalid("password_too_short"));
    let mut more = json!(account("bob"));
    more["isAdmin"] = true.into();
    let answer = app.client().rest("POST", "/v1/auth/register", None, Some(&more)).await.unwrap();
    assert_eq!(rest_refusal(&answer).code, ErrorCode::InvalidRequest);
    app.user("bob").await;
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_get_the_same_answer() {
    let app = spawn_app().await;
    app.user("ann").await;
    let login = async |email: &str, password: &str| {
        let mut error = refusal(app.client().login(email, password).await);
        assert_eq!(code_of(&error), (ErrorCode::Unauthenticated, "invalid_credentials"));
        error.request_id = None;
        error
    };
    let wrong = login("ann@example.com", "wrong password").await;
    assert_eq!(wrong, login("nobody@example.com", PASSWORD).await);
    assert!(app.client().login("ANN@example.com", PASSWORD).await.is_ok());
}

#[tokio::test]
async fn a_refresh_token_works_once_and_using_it_again_ends_the_session() {
    let clock = Arc::new(TestClock::at(NOON_MS));
    let options = AppOptions { clock: Some(clock.clone()), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let ann = app.user("ann").await;
    let other_login = app.client().login("ann@example.com", PASSWORD).await.unwrap();
    let rotate = async |token: &str| {
        let body = json!({ "refreshToken": token });
        app.client().rest("POST", "/v1/auth/refresh", None, Some(&body)).await.unwrap()
    };
    let first = &ann.grant.refresh_token;
    let second = rotate(first).await.json["data"].clone();
    assert_ne!(second["refreshToken"], first.as_str());
    // The answer may have been lost: for a while the same question has the same answer.
    assert_eq!(rotate(first).await.json["data"]["refreshToken"], second["refreshToken"]);
    let third = rotate(second["refreshToken"].as_str().unwrap()).await.json["data"].clone();
    let third_token = third["accessToken"].as_str().unwrap();
    let me =
        async |token: &str| app.client().rest("GET", "/v1/me", Some(token), None).await.unwrap();
    assert!(me(third_token).await.is_success());

    let mut socket = WireSocket::open(&app.url, Some(third_token)).await.unwrap();
    clock.advance(Duration::from_mins(1));
    assert_eq!(rest_refusal(&rotate(first).await).code, ErrorCode::Unauthenticated);
    assert_eq!(socket.close_code().await, 4401);
    assert_eq!(rest_refusal(&me(third_token).await).code, ErrorCode::Unauthenticated);
    let newest = rotate(third["refreshToken"].as_str().unwrap()).await;
    assert_eq!(rest_refusal(&newest).code, ErrorCode::Unauthenticated);
    assert!(me(&other_login.access_token).await.is_success());
    assert_eq!(rest_refusal(&rotate("nonsense").await).code, ErrorCode::Unauthenticated);
}

#[tokio::test]
async fn logging_out_ends_the_tokens_of_that_login_alone() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let second =
        Person::new(app.client(), app.client().login("ann@example.com", PASSWORD).await.unwrap());
    ann.post("/v1/auth/logout", json!({})).await.data::<iris_protocol::Done>().unwrap();
    let after = rest_refusal(&ann.get("/v1/me").await);
    assert_eq!(after.code, ErrorCode::Unauthenticated);
    let body = json!({ "refreshToken": ann.grant.refresh_token });
    let rotated = app.client().rest("POST", "/v1/auth/refresh", None, Some(&body)).await.unwrap();
    assert_eq!(rest_refusal(&rotated).code, ErrorCode::Unauthenticated);
    assert!(second.get("/v1/me").await.is_success());
}

#[tokio::test]
async fn logging_out_closes_the_sockets_of_that_login() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let second =
        Person::new(app.client(), app.client().login("ann@example.com", PASSWORD).await.unwrap());
    let (mut socket, stays) = (ann.wire().await, second.connect().await);
    ann.post("/v1/auth/logout", json!({})).await;
    assert_eq!(socket.close_code().await, 4401);
    stays.call(None, Ping {}).await.unwrap();
}

#[tokio::test]
async fn the_token_of_a_login_that_has_ended_opens_no_socket() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let token = ann.token();
    ann.post("/v1/auth/logout", json!({})).await;
    assert!(WireSocket::open(&app.url, Some(token)).await.is_err());
    let mut socket = WireSocket::open(&app.url, None).await.unwrap();
    socket.ask("1", "hello", None, json!({ "token": token })).await;
    assert_eq!(socket.response("1").await["error"]["code"], "UNAUTHENTICATED");
    assert_eq!(socket.close_code().await, 4401);
}

#[tokio::test]
async fn a_socket_does_not_take_the_token_of_a_login_that_has_ended() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let second =
        Person::new(app.client(), app.client().login("ann@example.com", PASSWORD).await.unwrap());
    ann.post("/v1/auth/logout", json!({})).await;
    let mut socket = second.wire().await;
    socket.ask("1", "auth.refresh", None, json!({ "token": ann.token() })).await;
    assert_eq!(socket.response("1").await["error"]["code"], "UNAUTHENTICATED");
    // It belongs to its own login as before.
    socket.ask("2", "ping", None, json!({})).await;
    assert_eq!(socket.response("2").await["success"], true);
    second.post("/v1/auth/logout", json!({})).await;
    assert_eq!(socket.close_code().await, 4401);
}

#[tokio::test]
async fn a_token_that_is_none_is_refused() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let forged = format!("{}x", ann.token());
    for token in ["x", "a.b.c", forged.as_str()] {
        let answer = app.client().rest("GET", "/v1/me", Some(token), None).await.unwrap();
        assert_eq!(rest_refusal(&answer).code, ErrorCode::Unauthenticated, "{token}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    let headers = [("authorization", "Basic YTpi")];
    let answer = app.client().raw("GET", "/v1/me", None, &headers, "".into()).await.unwrap();
    assert_eq!(rest_refusal(&answer).code, ErrorCode::Unauthenticated);
}

/// Where two processes find the tokens of their login. Nothing here happens at the same time.
#[derive(Clone)]
struct Shared(Arc<parking_lot::Mutex<iris_client::LoginTokens>>);

impl iris_client::TokenStore for Shared {
    fn lock(&self) -> std::io::Result<Box<dyn iris_client::LockedTokens>> {
        Ok(Box::new(self.clone()))
    }
}

impl iris_client::LockedTokens for Shared {
    fn tokens(&self) -> Option<iris_client::LoginTokens> {
        Some(self.0.lock().clone())
    }

    fn keep(&mut self, tokens: &iris_client::LoginTokens) {
        self.0.lock().clone_from(tokens);
    }
}

#[tokio::test]
async fn processes_that_share_a_login_exchange_its_token_once() {
    let clock = Arc::new(TestClock::at(NOON_MS));
    let options = AppOptions { clock: Some(clock.clone()), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let ann = app.user("ann").await;
    let tokens = iris_client::LoginTokens::from(&ann.grant);
    let kept = Arc::new(parking_lot::Mutex::new(tokens.clone()));
    let clients = [0, 1]
        .map(|_| app.client().with_store(tokens.clone(), Arc::new(Shared(Arc::clone(&kept)))));
    for _ in 0..2 {
        clock.advance(Duration::from_mins(16));
        for client in &clients {
            // A second exchange of the same token would end the login.
            client.call(None, iris_protocol::UserGet {}).await.unwrap();
        }
        let used = clients.each_ref().map(iris_client::Client::token);
        assert_eq!(used, [0, 1].map(|_| Some(kept.lock().access.clone())));
    }
}

#[tokio::test]
async fn an_expired_token_is_refused_by_name_and_refreshed_by_the_client() {
    let clock = Arc::new(TestClock::at(NOON_MS));
    let options = AppOptions { clock: Some(clock.clone()), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let ann = app.user("ann").await;
    clock.advance(Duration::from_mins(16));
    assert_eq!(rest_refusal(&ann.get("/v1/me").await).code, ErrorCode::TokenExpired);
    let frame = json!({ "id": "1", "type": "user.get" });
    let command = ann.post("/v1/commands", frame).await;
    assert_eq!((command.status, &command.json["error"]["code"]), (401, &json!("TOKEN_EXPIRED")));
    let upgrade = WireSocket::open(&app.url, Some(ann.token())).await;
    assert_eq!(refusal(upgrade.map(|_| ())).code, ErrorCode::TokenExpired);
    let me = ann.client.call(None, iris_protocol::UserGet {}).await.unwrap();
    assert_eq!(me.user.id, *ann.id());
}

fn short_lived() -> AppOptions {
    AppOptions {
        clock: Some(Arc::new(TestClock::at(NOON_MS))),
        access_token_lifetime: Some(Duration::from_secs(1)),
        ..AppOptions::default()
    }
}

#[tokio::test]
async fn a_socket_is_warned_and_closed_when_its_token_ends() {
    let app = spawn_app_with(short_lived()).await;
    let mut socket = app.user("ann").await.wire().await;
    let warning = socket.next_json().await;
    assert_eq!(warning["type"], "auth.expiring");
    assert_eq!(warning["payload"]["expiresAt"], NOON_MS + 100);
    assert_eq!(socket.close_code().await, 4401);
}

#[tokio::test]
async fn a_new_token_of_the_same_user_keeps_the_socket() {
    let clock = Arc::new(TestClock::at(NOON_MS));
    // So short that one is warned at once, and longer than the test takes.
    let access_token_lifetime = Some(Duration::from_secs(30));
    let options =
        AppOptions { clock: Some(clock.clone()), access_token_lifetime, ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let socket = ann.connect().await;
    let ServerFrame::AuthExpiring { .. } =
        patiently("auth.expiring", socket.next_frame()).await.unwrap()
    else {
        panic!("the first frame is no warning");
    };
    let refresh = |token: &str| AuthRefresh { token: token.to_owned() };
    let other = refusal(socket.call(None, refresh(bob.token())).await);
    assert_eq!(code_of(&other), (ErrorCode::Forbidden, "other_user"));
    assert_eq!(refusal(socket.call(None, refresh("x")).await).code, ErrorCode::Unauthenticated);

    // A token that is issued half a second later by the server's clock lasts a second longer.
    clock.advance(Duration::from_millis(500));
    let grant = ann.client.refresh().await.unwrap();
    assert_eq!(grant.expires_at, NOON_MS + 30_100);
    let kept = socket.call(None, refresh(&grant.access_token)).await.unwrap();
    assert_eq!(kept.payload.expires_at, NOON_MS + 30_100);
    let again = patiently("auth.expiring", socket.next_frame()).await.unwrap();
    assert_eq!(again, ServerFrame::AuthExpiring { expires_at: NOON_MS + 30_100 });
    socket.call(None, Ping {}).await.unwrap();
}

#[tokio::test]
async fn a_client_whose_token_ended_connects_with_a_new_one() {
    let clock = Arc::new(TestClock::at(NOON_MS));
    let options = AppOptions { clock: Some(clock.clone()), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let ann = app.user("ann").await;
    clock.advance(Duration::from_mins(16));
    ann.client.connect(&ConnectOptions::default()).await.unwrap();
    let hello = Authentication::Hello { project_id: None };
    let options = ConnectOptions { authentication: hello, ..ConnectOptions::default() };
    clock.advance(Duration::from_mins(16));
    match ann.client.connect(&options).await {
        Ok(_) => {}
        Err(ClientError::Api(error)) => assert_eq!(error.code, ErrorCode::TokenExpired),
        Err(other) => panic!("{other}"),
    }
}
