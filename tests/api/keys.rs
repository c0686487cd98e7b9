//! API keys over REST, WebSocket and SSE: rows A12 and A13 of the threat model; the kinds of tokens that are
//! none (A5, A6, W2, W3), tokens that are refreshed at once (A10), keys that are rotated.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::{join, join_all};
use iris_actors::{Rate, RateSettings};
use iris_client::RestAnswer;
use iris_protocol::{AuthGrant, ErrorCode, Role};
use iris_testkit::{
    AppOptions, EventStream, PASSWORD, Person, TestApp, TestClock, WireSocket, patiently,
    spawn_app, spawn_app_in, spawn_app_with,
};
use serde_json::{Value, json};

use crate::{code_of, refusal, rest_refusal};

const NOON_MS: i64 = 1_790_000_000_000;

async fn key(person: &Person, body: Value) -> Value {
    let made = person.post("/v1/api-keys", body).await;
    assert_eq!(made.status, 201, "{made:?}");
    made.json["data"].clone()
}

fn secret(key: &Value) -> &str {
    key["key"].as_str().unwrap()
}

async fn get(app: &TestApp, token: &str, path: &str) -> RestAnswer {
    app.client().rest("GET", path, Some(token), None).await.unwrap()
}

#[tokio::test]
async fn a_key_works_over_rest_sockets_and_streams_and_is_shown_once() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let talk = ann.conversation().await;
    let made = key(&ann, json!({ "name": "ci" })).await;
    let token = secret(&made).to_owned();
    assert!(token.starts_with("iris_"));
    assert!(get(&app, &token, "/v1/me").await.is_success());
    let mut socket = WireSocket::open(&app.url, Some(&token)).await.unwrap();
    assert_eq!(socket.next_json().await["type"], "connected");
    let mut by_hello = WireSocket::open(&app.url, None).await.unwrap();
    by_hello.ask("1", "hello", None, json!({ "token": token })).await;
    assert_eq!(by_hello.next_json().await["payload"]["userId"], json!(ann.id()));
    let path = format!("/v1/projects/{}/events?rooms=session:{}", talk.project, talk.session);
    let mut stream = EventStream::open(&app.url, &path, Some(&token), &[]).await.unwrap();
    talk.send_message("say hi").await;
    patiently("an event", stream.next()).await;

    // A13: nothing but what its owner knows it by is told again.
    let listed = ann.get("/v1/api-keys").await;
    assert!(!listed.json.to_string().contains(&token[9..37]), "{listed:?}");
    let hint = listed.json["data"][0]["hint"].as_str().unwrap();
    assert_eq!(hint, format!("{}...{}", &token[..9], &token[37..]));
    let used = async {
        while ann.get("/v1/api-keys").await.json["data"][0].get("lastUsedAt").is_none() {}
    };
    patiently("the use to be noted", used).await;
    let files = std::fs::read(app.data_dir().join("root.db")).unwrap();
    let wal = std::fs::read(app.data_dir().join("root.db-wal")).unwrap_or_default();
    let holds = |bytes: &[u8]| bytes.windows(token.len()).any(|part| part == token.as_bytes());
    assert!(!holds(&files) && !holds(&wal), "the key is in the database");

    let place = format!("/v1/api-keys/{}", made["id"].as_str().unwrap());
    assert!(ann.rest("DELETE", &place, None).await.is_success());
    for socket in [&mut socket, &mut by_hello] {
        let closed = tokio::time::timeout(Duration::from_secs(1), socket.close_code()).await;
        assert_eq!(closed, Ok(4403));
    }
    assert_eq!(rest_refusal(&get(&app, &token, "/v1/me").await).code, ErrorCode::Unauthenticated);
    assert!(WireSocket::open(&app.url, Some(&token)).await.is_err());
}

/// A12.
#[tokio::test]
async fn a_key_that_is_broken_over_or_for_something_else_is_refused() {
    let clock = Arc::new(TestClock::at(NOON_MS));
    let app = spawn_app_with(AppOptions { clock: Some(clock.clone()), ..AppOptions::default() });
    let app = app.await;
    let (ann, ben) = (app.user("ann").await, app.user("ben").await);
    let (own, other) = (ann.project("own").await.id, ann.project("other").await.id);
    let past = ann.post("/v1/api-keys", json!({ "name": "k", "expiresAt": NOON_MS })).await;
    assert_eq!(code_of(&rest_refusal(&past)), (ErrorCode::InvalidRequest, "expires_at"));
    let foreign = ben.post("/v1/api-keys", json!({ "name": "k", "projectId": own })).await;
    assert_eq!(rest_refusal(&foreign).code, ErrorCode::NotFound);
    let unknown = ann.post("/v1/api-keys", json!({ "name": "k", "scopes": ["all"] })).await;
    assert_eq!(rest_refusal(&unknown).code, ErrorCode::InvalidRequest);

    let made = key(
        &ann,
        json!({ "name": "k", "projectId": own, "scopes": ["files:read", "projects:read"],
                "expiresAt": NOON_MS + 60_000 }),
    )
    .await;
    let token = secret(&made);
    let project = |id| format!("/v1/projects/{id}");
    assert!(get(&app, token, &project(&own)).await.is_success());
    assert_eq!(rest_refusal(&get(&app, token, &project(&other)).await).code, ErrorCode::NotFound);
    let all = rest_refusal(&get(&app, token, "/v1/projects").await);
    assert_eq!(code_of(&all), (ErrorCode::Forbidden, "key_of_project"));
    let scope = rest_refusal(&get(&app, token, &format!("{}/members", project(&own))).await);
    assert_eq!(code_of(&scope), (ErrorCode::Forbidden, "insufficient_scope"));
    assert_eq!(scope.details["neededScope"], "members:read");
    let keys = rest_refusal(&get(&app, token, "/v1/api-keys").await);
    assert_eq!(code_of(&keys), (ErrorCode::Forbidden, "needs_login"));
    let mut wrong = token.to_owned();
    wrong.replace_range(6..7, if &token[6..7] == "a" { "b" } else { "a" });
    for wrong in [wrong.as_str(), "iris_", &token[..40]] {
        let refused = rest_refusal(&get(&app, wrong, "/v1/me").await);
        assert_eq!(refused.code, ErrorCode::Unauthenticated, "{wrong}");
    }
    clock.advance(Duration::from_mins(1));
    assert_eq!(get(&app, token, &project(&own)).await.status, 401);
}

/// Every change counts from its answer on, however well the key was known before (decision 0021).
#[tokio::test]
async fn what_is_taken_away_from_a_key_that_is_in_use_is_gone_with_the_answer() {
    let clock = Arc::new(TestClock::at(NOON_MS));
    let options = AppOptions { clock: Some(clock.clone()), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let (root, ann, ben) = (app.admin().await, app.user("ann").await, app.user("ben").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &ben, Role::Member).await;
    let (path, member) =
        (format!("/v1/projects/{project}"), format!("/v1/projects/{project}/members/{}", ben.id()));
    let sessions = format!("{path}/sessions");
    let body = json!({ "name": "k", "expiresAt": NOON_MS + 600_000 });
    let made = key(&ben, body).await;
    let token = secret(&made);
    let post =
        async || app.client().rest("POST", &sessions, Some(token), Some(&json!({}))).await.unwrap();
    // So that it is known, in the project and out of it.
    let warm = async || {
        for _ in 0..3 {
            assert!(get(&app, token, &path).await.is_success());
            assert!(get(&app, token, "/v1/me").await.is_success());
        }
    };
    let code = |answer: &RestAnswer| rest_refusal(answer).code;

    warm().await;
    assert!(post().await.is_success());
    assert!(ann.rest("PATCH", &member, Some(json!({ "role": "viewer" }))).await.is_success());
    assert_eq!(code(&post().await), ErrorCode::Forbidden);
    assert!(ann.rest("PATCH", &member, Some(json!({ "role": "member" }))).await.is_success());
    warm().await;
    assert!(ann.post(&format!("{path}/archive"), json!({})).await.is_success());
    assert_eq!(code_of(&rest_refusal(&post().await)).1, "project_archived");
    assert!(ann.post(&format!("{path}/unarchive"), json!({})).await.is_success());
    warm().await;
    assert!(ann.rest("DELETE", &member, None).await.is_success());
    assert_eq!(code(&get(&app, token, &path).await), ErrorCode::NotFound);
    ann.add_member(&project, &ben, Role::Member).await;
    warm().await;
    let account = format!("/v1/admin/users/{}", ben.id());
    let close = async |disabled: bool| {
        root.rest("PATCH", &account, Some(json!({ "disabled": disabled }))).await
    };
    assert!(close(true).await.is_success());
    assert_eq!(code(&get(&app, token, "/v1/me").await), ErrorCode::Unauthenticated);
    assert!(close(false).await.is_success());
    warm().await;

    // The last use goes on to be noted. The logins of a closed account have ended.
    let grant = app.client().login("ben@example.com", PASSWORD).await.unwrap();
    let ben = Person::new(app.client(), grant);
    let used = async |at: i64| {
        while ben.get("/v1/api-keys").await.json["data"][0]["lastUsedAt"] != at {}
    };
    patiently("the first use", used(NOON_MS)).await;
    clock.advance(Duration::from_secs(31));
    assert!(get(&app, token, "/v1/me").await.is_success());
    patiently("a later use", used(NOON_MS + 31_000)).await;

    // Time needs nobody to tell of it.
    warm().await;
    clock.advance(Duration::from_secs(600 - 31 - 1));
    assert!(get(&app, token, "/v1/me").await.is_success());
    clock.advance(Duration::from_secs(1));
    assert_eq!(code(&get(&app, token, "/v1/me").await), ErrorCode::TokenExpired);
}

/// Programs that ask all the time with a key that is revoked: whoever asks after the answer is refused.
#[tokio::test]
async fn no_request_that_begins_after_a_revocation_gets_through() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    for _ in 0..5 {
        let made = key(&ann, json!({ "name": "k" })).await;
        let (token, is_revoked) = (secret(&made), Cell::new(false));
        let asking = join_all((0..8).map(async |_| {
            let mut served = 0;
            loop {
                let is_late = is_revoked.get();
                let answer = get(&app, token, "/v1/me").await;
                assert!(!is_late || !answer.is_success(), "served after {served} others");
                if !answer.is_success() {
                    return served;
                }
                served += 1;
            }
        }));
        let revoking = async {
            for _ in 0..20 {
                assert!(ann.get("/v1/me").await.is_success());
            }
            let place = format!("/v1/api-keys/{}", made["id"].as_str().unwrap());
            assert!(ann.rest("DELETE", &place, None).await.is_success());
            is_revoked.set(true);
        };
        let (served, ()) = patiently("the end of a key", join(asking, revoking)).await;
        assert!(served.iter().sum::<usize>() > 0, "nobody asked before");
    }
}

#[tokio::test]
async fn a_key_ends_with_the_right_of_its_user_and_has_an_allowance_of_its_own() {
    let hour = Duration::from_hours(1);
    let rates = RateSettings { keys: Some(Rate { every: hour, burst: 2 }), ..RateSettings::NONE };
    let app = spawn_app_with(AppOptions { rates, ..AppOptions::default() }).await;
    let (ann, ben) = (app.user("ann").await, app.user("ben").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &ben, Role::Member).await;
    let made = key(&ben, json!({ "name": "k" })).await;
    let path = format!("/v1/projects/{project}");
    assert!(get(&app, secret(&made), &path).await.is_success());
    let place = format!("{path}/members/{}", ben.id());
    assert!(ann.rest("DELETE", &place, None).await.is_success());
    assert_eq!(rest_refusal(&get(&app, secret(&made), &path).await).code, ErrorCode::NotFound);
    let limited = get(&app, secret(&made), &path).await;
    assert_eq!(rest_refusal(&limited).code, ErrorCode::RateLimited);
    assert!(limited.headers.contains_key("retry-after"));
    assert!(ben.get("/v1/me").await.is_success());
}

/// A10.
#[tokio::test]
async fn fifty_refreshes_of_one_token_at_once_give_one_child() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let refresh = |token: &str| {
        let (client, body) = (app.client().clone(), json!({ "refreshToken": token }));
        async move { client.rest("POST", "/v1/auth/refresh", None, Some(&body)).await.unwrap() }
    };
    let answers = join_all((0..50).map(|_| refresh(&ann.grant.refresh_token))).await;
    let children: std::collections::BTreeSet<String> = answers
        .iter()
        .map(|answer| answer.json["data"]["refreshToken"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(children.len(), 1);
    // The child is good.
    let next = refresh(children.first().unwrap()).await;
    assert!(next.is_success(), "{next:?}");
}

/// A9: the one before the newest alone may be asked with again, an earlier one not even at once.
#[tokio::test]
async fn a_refresh_token_from_before_the_last_one_is_reuse_at_once() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let refresh = async |token: &str| {
        let body = json!({ "refreshToken": token });
        app.client().rest("POST", "/v1/auth/refresh", None, Some(&body)).await.unwrap()
    };
    let token =
        |answer: &RestAnswer| answer.json["data"]["refreshToken"].as_str().unwrap().to_owned();
    let first = &ann.grant.refresh_token;
    let second = token(&refresh(first).await);
    let third = token(&refresh(&second).await);
    assert_eq!(token(&refresh(&second).await), third);
    assert_eq!(rest_refusal(&refresh(first).await).code, ErrorCode::Unauthenticated);
    for ended in [&second, &third] {
        assert_eq!(rest_refusal(&refresh(ended).await).code, ErrorCode::Unauthenticated);
    }
}

/// A7: whoever holds the login too hears that it was stolen.
#[tokio::test]
async fn a_reused_refresh_token_is_told_and_in_the_audit() {
    let clock = Arc::new(TestClock::at(NOON_MS));
    let app = spawn_app_with(AppOptions { clock: Some(clock.clone()), ..AppOptions::default() });
    let app = app.await;
    let (root, ann) = (app.admin().await, app.user("ann").await);
    let other = app.client().login("ann@example.com", PASSWORD).await.unwrap();
    let mut socket = Person::new(app.client(), other).wire().await;
    let body = json!({ "refreshToken": ann.grant.refresh_token });
    let refresh =
        async || app.client().rest("POST", "/v1/auth/refresh", None, Some(&body)).await.unwrap();
    assert!(refresh().await.is_success());
    clock.advance(Duration::from_secs(11));
    assert_eq!(rest_refusal(&refresh().await).code, ErrorCode::Unauthenticated);
    let heard = socket.next_json().await;
    assert_eq!(heard["type"], "auth.token.reused");
    let audit = root.get(&format!("/v1/admin/audit?target={}", ann.id())).await;
    assert_eq!(audit.json["data"][0]["result"], "token_reuse");
    assert_eq!(audit.json["data"][0]["credential"], heard["payload"]["authSessionId"]);
}

/// Access tokens of the key before a rotation are good until they end, and so is the answer to a refresh that
/// was lost around it.
#[tokio::test]
async fn tokens_outlive_a_rotation_of_the_key() {
    let keys = tempfile::tempdir().unwrap();
    let old = keys.path().join("old.key");
    std::fs::write(&old, [7; 32]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(&old, dir.path().join("jwt.key")).unwrap();
    let options =
        AppOptions { jwt_secret_previous_file: Some(old.clone()), ..AppOptions::default() };
    let app = spawn_app_in(options, dir).await;
    let ann = app.user("ann").await;
    let refresh = async |app: &TestApp| {
        let body = json!({ "refreshToken": ann.grant.refresh_token });
        app.client().rest("POST", "/v1/auth/refresh", None, Some(&body)).await.unwrap()
    };
    let before: AuthGrant = refresh(&app).await.data().unwrap();
    std::fs::write(app.data_dir().join("jwt.key"), [8; 32]).unwrap();
    let app = app.restart().await;
    assert!(get(&app, &before.access_token, "/v1/me").await.is_success());
    let after: AuthGrant = refresh(&app).await.data().unwrap();
    assert_eq!(after.refresh_token, before.refresh_token);
    assert!(get(&app, &after.access_token, "/v1/me").await.is_success());
    // Once the old key is taken away, so are its tokens.
    std::fs::write(&old, [9; 32]).unwrap();
    let app = app.restart().await;
    assert_eq!(get(&app, &before.access_token, "/v1/me").await.status, 401);
    assert!(get(&app, &after.access_token, "/v1/me").await.is_success());
}

/// A5, A6: what is no token of ours is none over any way in.
#[tokio::test]
async fn a_token_that_somebody_made_up_is_refused_on_every_way_in() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let claims = ann.token().split('.').nth(1).unwrap();
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let none = part(json!({ "alg": "none", "typ": "JWT" }));
    let hs512 = part(json!({ "alg": "HS512", "typ": "JWT" }));
    let signature = ann.token().rsplit('.').next().unwrap();
    for forged in [
        format!("{none}.{claims}."),
        format!("{none}.{claims}.{signature}"),
        format!("{hs512}.{claims}.{signature}"),
        ann.grant.refresh_token.clone(),
    ] {
        let refused = rest_refusal(&get(&app, &forged, "/v1/me").await);
        assert_eq!(code_of(&refused), (ErrorCode::Unauthenticated, "invalid_token"));
        let opened = WireSocket::open(&app.url, Some(&forged)).await;
        assert_eq!(refusal(opened.map(drop)).code, ErrorCode::Unauthenticated);
        let mut socket = WireSocket::open(&app.url, None).await.unwrap();
        socket.ask("1", "hello", None, json!({ "token": forged })).await;
        assert_eq!(socket.response("1").await["error"]["code"], "UNAUTHENTICATED");
        assert_eq!(socket.close_code().await, 4401);
    }
    // W2: also where it is a good one.
    let made = key(&ann, json!({ "name": "k" })).await;
    for query in [format!("ticket={}", secret(&made)), format!("api_key={}", secret(&made))] {
        let answer =
            app.client().rest("GET", &format!("/v1/ws?{query}"), None, None).await.unwrap();
        assert_eq!(rest_refusal(&answer).code, ErrorCode::TokenInUrl);
    }
}

/// W3.
#[tokio::test]
async fn sockets_that_say_nothing_are_few_for_each_address() {
    let rates = RateSettings { unknown_connections_max: Some(2), ..RateSettings::NONE };
    let app = spawn_app_with(AppOptions { rates, ..AppOptions::default() }).await;
    let ann = app.user("ann").await;
    let mut first = WireSocket::open(&app.url, None).await.unwrap();
    let _second = WireSocket::open(&app.url, None).await.unwrap();
    let third = refusal(WireSocket::open(&app.url, None).await.map(drop));
    assert_eq!(code_of(&third), (ErrorCode::RateLimited, "unknown_connections"));
    ann.wire().await;
    first.ask("1", "hello", None, json!({ "token": ann.token() })).await;
    assert_eq!(first.next_json().await["type"], "connected");
    // Its place is free.
    WireSocket::open(&app.url, None).await.unwrap();
}
