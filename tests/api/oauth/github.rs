//! GitHub, which speaks OAuth and has an API in place of ID tokens.

use super::*;

async fn github() -> (TestApp, IdentityProvider) {
    let provider = IdentityProvider::start().await;
    let settings = provider.settings(ProviderKind::GitHub);
    (spawn_app_with(known(AppOptions::default(), settings)).await, provider)
}

fn emails(primary_verified: bool) -> Value {
    json!([{ "email": "old@example.com", "primary": false, "verified": true, "visibility": null },
           { "email": "octo@example.com", "primary": true, "verified": primary_verified,
             "visibility": "private" }])
}

#[tokio::test]
async fn somebody_of_github_logs_in_by_the_number_that_it_gave_them() {
    let (app, provider) = github().await;
    provider.ways().emails = Some(emails(true));
    let mut browser = browser_of(&provider, "octo");
    let begun = browser.open(&start(&app, &[])).await.location.unwrap();
    assert!(begun.starts_with(&format!("{}/login/oauth/authorize?", provider.issuer())), "{begun}");
    let asked = query(&begun);
    assert_eq!((asked["scope"].as_str(), asked.get("nonce")), ("read:user user:email", None));
    assert_eq!(asked["code_challenge_method"], "S256");
    let octo = Person::new(app.client(), grant(&browser.go(&begun, "nowhere").await.1));
    let me = octo.get("/v1/me").await.json["data"].clone();
    assert_eq!((&me["email"], &me["username"]), (&json!("octo@example.com"), &json!("octo")));
    let own = octo.get("/v1/me/identities").await.json["data"].clone();
    assert!(own[0]["subject"].as_str().unwrap().parse::<u64>().is_ok(), "{own}");
    let again = grant(&log_in(&app, &provider, "octo").await);
    assert_eq!(again.user.id, *octo.id());
    assert_eq!(provider.times_asked("GET /.well-known/openid-configuration"), 0);
}

#[tokio::test]
async fn an_address_of_github_counts_when_it_is_verified() {
    let (app, provider) = github().await;
    let refusal = (ErrorCode::Forbidden, "email_not_verified".to_owned());
    assert_eq!(refused(&log_in(&app, &provider, "octo").await), refusal, "it tells none");
    provider.ways().emails = Some(json!([]));
    assert_eq!(refused(&log_in(&app, &provider, "octo").await), refusal);
    let unverified = json!([{ "email": "octo@example.com", "primary": true, "verified": false }]);
    provider.ways().emails = Some(unverified);
    assert_eq!(refused(&log_in(&app, &provider, "octo").await), refusal);
    provider.ways().emails = Some(emails(false));
    assert_eq!(grant(&log_in(&app, &provider, "octo").await).user.email, "old@example.com");
}

#[tokio::test]
async fn a_code_that_github_refuses_makes_nobody() {
    let provider = IdentityProvider::start().await;
    let settings = ProviderSettings {
        client_secret: Some(iris_auth::PlainSecret::new("wrong".to_owned())),
        ..provider.settings(ProviderKind::GitHub)
    };
    let app = spawn_app_with(known(AppOptions::default(), settings)).await;
    let page = log_in(&app, &provider, "octo").await;
    assert_eq!(refused(&page), (ErrorCode::Unauthenticated, "login_not_proven".to_owned()));
    let message = page.json["error"]["message"].as_str().unwrap();
    assert!(message.ends_with("the provider refused: invalid_client"), "{message}");
    provider.ways().token = Some(iris_testkit::Bad::Noise);
    let failed = (ErrorCode::ProviderError, "provider_failed".to_owned());
    assert_eq!(refused(&log_in(&app, &provider, "octo").await), failed);
}
