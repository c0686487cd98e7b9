//! Accounts that are linked with who their users are elsewhere, and accounts that have no other way in.

use std::sync::Arc;
use std::time::Duration;

use iris_testkit::{PASSWORD, TestClock};

use super::*;

const NEW_PASSWORD: &str = "another battery staple";

/// Asks for a link and gives what the user opens.
async fn prepared(program: &Program, person: &Person, password: Option<&str>) -> RestAnswer {
    let body = json!({ "provider": "fake", "redirect": program.redirect,
        "codeChallenge": program.verifier.challenge(), "currentPassword": password });
    person.post("/v1/me/identities/link", body).await
}

async fn finish(program: &Program, person: &Person, code: &str) -> RestAnswer {
    let body = json!({ "code": code, "codeVerifier": program.verifier.as_str() });
    person.post("/v1/me/identities", body).await
}

/// Somebody links their account with whom the provider knows by a name.
async fn linked(
    person: &Person,
    provider: &IdentityProvider,
    who: &str,
    password: Option<&str>,
) -> RestAnswer {
    let program = Program::new();
    let begun = prepared(&program, person, password).await;
    let url = begun.json["data"]["url"].as_str().unwrap_or_else(|| panic!("{begun:?}")).to_owned();
    let back = program.back(&mut browser_of(provider, who), &url).await;
    finish(&program, person, &back["code"]).await
}

#[track_caller]
fn assert_refused(answer: &RestAnswer, code: ErrorCode, reason: &str) {
    assert_eq!(code_of(&rest_refusal(answer)), (code, reason), "{answer:?}");
}

#[tokio::test]
async fn an_account_is_linked_by_its_user_and_logs_in_by_that_from_then_on() {
    let (app, provider) = lab().await;
    let admin = app.admin().await;
    let ann = app.user("ann").await;
    for (password, code, reason) in [
        (None, ErrorCode::InvalidRequest, "current_password_missing"),
        (Some("wrong wrong"), ErrorCode::Forbidden, "wrong_password"),
    ] {
        assert_refused(&prepared(&Program::new(), &ann, password).await, code, reason);
    }
    // Who they are there need not have their address.
    let made = linked(&ann, &provider, "annabel", Some(PASSWORD)).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(
        (&made.json["data"]["subject"], &made.json["data"]["provider"]),
        (&json!("annabel"), &json!("fake"))
    );
    assert_eq!(made.json["data"].get("lastLoginAt"), None);
    let grant = grant(&log_in(&app, &provider, "annabel").await);
    assert_eq!((grant.user.id, grant.user.email.as_str()), (ann.id().clone(), "ann@example.com"));
    let told = audited(&admin, "identity.create").await;
    assert_eq!(told, [("done".to_owned(), json!("fake"))]);
    let results: Vec<String> =
        audited(&admin, "identity.link").await.into_iter().map(|(result, _)| result).collect();
    assert_eq!(results, ["FORBIDDEN wrong_password", "done"]);

    let id = made.json["data"]["id"].as_str().unwrap();
    let ben = app.user("ben").await;
    let place = format!("/v1/me/identities/{id}");
    assert_refused(&ben.rest("DELETE", &place, None).await, ErrorCode::NotFound, "");
    let other = app.client().login("ann@example.com", PASSWORD).await.unwrap();
    let other = Person::new(app.client(), other);
    assert!(other.get("/v1/me").await.is_success());
    let unlink = async || {
        let key = [("idempotency-key", "k-1")];
        app.client()
            .raw("DELETE", &place, Some(ann.token()), &key, Vec::new().into())
            .await
            .unwrap()
    };
    assert!(unlink().await.is_success());
    // Who came another way, perhaps that one, is out; who took it away is not.
    assert_eq!(other.get("/v1/me").await.status, 401);
    assert!(ann.get("/v1/me").await.is_success());
    let again = unlink().await;
    assert!(again.is_success(), "{again:?}");
    assert_refused(&ann.rest("DELETE", &place, None).await, ErrorCode::NotFound, "");
    let told = audited(&admin, "identity.delete").await;
    assert_eq!(told.iter().filter(|(result, _)| result == "done").count(), 1);
    // Whoever that is: it is nobody of ours any more.
    let page = log_in(&app, &provider, "annabel").await;
    assert_ne!(super::grant(&page).user.id, *ann.id());
}

#[tokio::test]
async fn a_link_is_made_by_whoever_prepared_it_and_by_nobody_else() {
    let (app, provider) = lab().await;
    let (ann, eve) = (app.user("ann").await, app.user("eve").await);
    let program = Program::new();
    let url = async |person: &Person| {
        let begun = prepared(&program, person, Some(PASSWORD)).await;
        begun.json["data"]["url"].as_str().unwrap().to_owned()
    };
    let refused_code = |answer: &RestAnswer| {
        assert_refused(answer, ErrorCode::InvalidRequest, "invalid_code");
    };
    // Ann opens what Eve prepared: what comes of it is no use to either.
    let opened = url(&eve).await;
    let back = program.back(&mut browser_of(&provider, "ann"), &opened).await;
    refused_code(&finish(&program, &ann, &back["code"]).await);
    let back = program.back(&mut browser_of(&provider, "ann"), &url(&eve).await).await;
    refused_code(&finish(&Program::new(), &eve, &back["code"]).await);
    // It is no login either, and a login is no link.
    let back = program.back(&mut browser_of(&provider, "ann"), &url(&ann).await).await;
    refused_code(&program.redeem(&app, &back["code"]).await);
    provider.ways().claims = json!({ "email": "new@example.com" });
    let code = program.code(&app, &provider, "new").await;
    refused_code(&finish(&program, &ann, &code).await);
    // The URL is good once, at its provider.
    let page = Browser::default().open(&opened).await;
    assert_eq!(refused(&page), (ErrorCode::InvalidRequest, "invalid_link".to_owned()));
    let both = format!("{}&redirect={}", url(&ann).await, program.redirect);
    assert_eq!(refused(&Browser::default().open(&both).await).1, "invalid_link");
    let page = Browser::default().open(&start(&app, &[("link", "irt_none")])).await;
    assert_eq!(refused(&page).1, "invalid_link");
    for person in [&ann, &eve] {
        assert_eq!(person.get("/v1/me/identities").await.json["data"], json!([]));
    }
}

#[tokio::test]
async fn what_is_linked_with_an_account_is_linked_with_no_other() {
    let (app, provider) = lab().await;
    let (ann, ben) = (app.user("ann").await, app.user("ben").await);
    assert_eq!(linked(&ann, &provider, "one", Some(PASSWORD)).await.status, 201);
    for person in [&ann, &ben] {
        let again = linked(person, &provider, "one", Some(PASSWORD)).await;
        assert_refused(&again, ErrorCode::Conflict, "identity_taken");
    }
    assert_eq!(linked(&ben, &provider, "two", Some(PASSWORD)).await.status, 201);
    let mut program = Program::new();
    program.redirect = "https://evil.example/".to_owned();
    let begun = prepared(&program, &ann, Some(PASSWORD)).await;
    assert_refused(&begun, ErrorCode::InvalidRequest, "invalid_redirect");
    let body = json!({ "provider": "none", "redirect": PROGRAM, "codeChallenge": "x" });
    let begun = ann.post("/v1/me/identities/link", body).await;
    assert_refused(&begun, ErrorCode::NotFound, "");
}

#[tokio::test]
async fn the_last_way_in_is_not_taken_away() {
    let (app, provider) = lab().await;
    let ann = Person::new(app.client(), grant(&log_in(&app, &provider, "ann").await));
    let ids = async || {
        let own = ann.get("/v1/me/identities").await.json["data"].clone();
        let ids = own.as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<String>>()
    };
    let unlink =
        async |id: &str| ann.rest("DELETE", &format!("/v1/me/identities/{id}"), None).await;
    let first = ids().await.remove(0);
    assert_refused(&unlink(&first).await, ErrorCode::Conflict, "last_way_in");
    assert_eq!(linked(&ann, &provider, "another", None).await.status, 201);
    assert!(unlink(&first).await.is_success());
    let second = ids().await.remove(0);
    assert_refused(&unlink(&second).await, ErrorCode::Conflict, "last_way_in");
    // A password is a way in.
    let set =
        ann.rest("PUT", "/v1/auth/password", Some(json!({ "newPassword": NEW_PASSWORD }))).await;
    let ann = Person::new(app.client(), set.data().unwrap());
    let place = format!("/v1/me/identities/{second}");
    assert!(ann.rest("DELETE", &place, None).await.is_success());
    app.client().login("ann@example.com", NEW_PASSWORD).await.unwrap();
}

#[tokio::test]
async fn a_provider_that_is_not_configured_any_more_is_no_way_in() {
    let (one, two) = (IdentityProvider::start().await, IdentityProvider::start().await);
    let settings = |provider: &IdentityProvider| provider.settings(ProviderKind::Oidc);
    let both = [("fake".to_owned(), settings(&two)), ("old".to_owned(), settings(&one))];
    let app = spawn_app_with(AppOptions { oauth: both.into(), ..AppOptions::default() }).await;
    let url = start(&app, &[]).replace("/fake/", "/old/");
    let (_, page) = browser_of(&one, "ann").go(&url, "nowhere").await;
    let ann = Person::new(app.client(), grant(&page));
    assert_eq!(linked(&ann, &two, "ann", None).await.status, 201);
    let app = app.restart_with(|options| drop(options.oauth.remove("old"))).await;
    let ann = app.again(&ann);
    let own = ann.get("/v1/me/identities").await.json["data"].clone();
    let unlink = async |at: usize| {
        let id = own[at]["id"].as_str().unwrap();
        ann.rest("DELETE", &format!("/v1/me/identities/{id}"), None).await
    };
    assert_refused(&unlink(1).await, ErrorCode::Conflict, "last_way_in");
    assert!(unlink(0).await.is_success());
}

#[tokio::test]
async fn an_account_without_a_password_proves_itself_by_a_fresh_login() {
    let clock = Arc::new(TestClock::at(1_790_000_000_000));
    let provider = IdentityProvider::start_at(clock.clone()).await;
    let options = AppOptions { clock: Some(clock.clone()), ..AppOptions::default() };
    let app = spawn_app_with(known(options, provider.settings(ProviderKind::Oidc))).await;
    let log_in_again =
        async || Person::new(app.client(), grant(&log_in(&app, &provider, "ann").await));
    let ann = log_in_again().await;
    let patch =
        async |person: &Person, body: Value| person.rest("PATCH", "/v1/me", Some(body)).await;
    let renamed = patch(&ann, json!({ "email": "new@example.com" })).await;
    assert_eq!(renamed.json["data"]["email"], "new@example.com");
    let wrong = patch(&ann, json!({ "email": "x@y.z", "currentPassword": "a password" })).await;
    assert_refused(&wrong, ErrorCode::Forbidden, "wrong_password");
    let key = ann.post("/v1/api-keys", json!({ "name": "k" })).await;
    let key = key.json["data"]["key"].as_str().unwrap().to_owned();

    clock.advance(Duration::from_mins(6));
    let body = json!({ "refreshToken": ann.grant.refresh_token });
    let rotated = app.client().rest("POST", "/v1/auth/refresh", None, Some(&body)).await.unwrap();
    let refreshed = Person::new(app.client(), rotated.data().unwrap());
    // A new token of an old login is no proof, and neither is a key.
    let too_old =
        |answer: &RestAnswer| assert_refused(answer, ErrorCode::Forbidden, "login_too_old");
    too_old(&patch(&refreshed, json!({ "email": "x@y.z" })).await);
    too_old(&refreshed.rest("DELETE", "/v1/me", Some(json!({}))).await);
    too_old(
        &refreshed
            .rest("PUT", "/v1/auth/password", Some(json!({ "newPassword": NEW_PASSWORD })))
            .await,
    );
    too_old(&prepared(&Program::new(), &refreshed, None).await);
    let fresh = log_in_again().await;
    let body = json!({ "email": "x@y.z" });
    let by_key = app.client().rest("PATCH", "/v1/me", Some(&key), Some(&body)).await.unwrap();
    too_old(&by_key);
    assert!(fresh.rest("DELETE", "/v1/me", Some(json!({}))).await.is_success());
}
