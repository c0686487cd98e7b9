//! What a provider says has to be proof, and a provider that does not do as it should harms nobody.

use std::sync::Arc;
use std::time::Duration;

use iris_testkit::{Bad, TestClock};

use super::*;

#[tokio::test]
async fn an_id_token_that_proves_nothing_makes_nobody() {
    let (app, provider) = lab().await;
    let admin = app.admin().await;
    let wrong = (ErrorCode::Unauthenticated, "login_not_proven".to_owned());
    for claims in [
        json!({ "nonce": "another" }),
        json!({ "nonce": null }),
        json!({ "aud": "another" }),
        json!({ "aud": ["iris", "another"] }),
        json!({ "azp": "another" }),
        json!({ "iss": "https://evil.example" }),
        json!({ "exp": 1_000_000_000 }),
        json!({ "iat": 4_000_000_000_i64 }),
        json!({ "sub": "" }),
        json!({ "sub": null }),
    ] {
        provider.ways().claims = claims.clone();
        assert_eq!(refused(&log_in(&app, &provider, "ann").await), wrong, "{claims}");
    }
    provider.ways().claims = Value::Null;
    for header in [json!({ "kid": "unknown" }), json!({ "crit": ["x"] })] {
        provider.ways().header = header.clone();
        assert_eq!(refused(&log_in(&app, &provider, "ann").await), wrong, "{header}");
    }
    provider.ways().header = Value::Null;
    assert_eq!(accounts(&admin).await, ["root@example.com"]);
    refusals(&admin, "auth.oauth.callback", "UNAUTHENTICATED login_not_proven", 12).await;
    // Unknown names of keys do not have the keys asked for again and again.
    assert_eq!(provider.times_asked("GET /keys"), 1);
    grant(&log_in(&app, &provider, "ann").await);
    // There is one key, so it need not be named.
    provider.ways().header = json!({ "kid": null });
    grant(&log_in(&app, &provider, "ann").await);
}

#[tokio::test]
async fn a_new_key_of_a_provider_is_found_and_not_looked_for_all_the_time() {
    let clock = Arc::new(TestClock::at(1_790_000_000_000));
    let provider = IdentityProvider::start_at(clock.clone()).await;
    let options = AppOptions { clock: Some(clock.clone()), ..AppOptions::default() };
    let app = spawn_app_with(known(options, provider.settings(ProviderKind::Oidc))).await;
    grant(&log_in(&app, &provider, "ann").await);
    provider.ways().key = Some("key-2".to_owned());
    let wrong = (ErrorCode::Unauthenticated, "login_not_proven".to_owned());
    assert_eq!(refused(&log_in(&app, &provider, "ann").await), wrong);
    assert_eq!(provider.times_asked("GET /keys"), 1, "asked for a moment ago");
    clock.advance(Duration::from_mins(1));
    grant(&log_in(&app, &provider, "ann").await);
    assert_eq!(provider.times_asked("GET /keys"), 2);
    // One that is taken back counts for an hour at most.
    provider.ways().published = Some(Vec::new());
    clock.advance(Duration::from_mins(59));
    grant(&log_in(&app, &provider, "ann").await);
    clock.advance(Duration::from_mins(1));
    assert_eq!(refused(&log_in(&app, &provider, "ann").await), wrong);
}

#[tokio::test]
async fn a_token_endpoint_that_fails_floods_or_is_silent_is_given_up_on() {
    let provider = IdentityProvider::start().await;
    let settings = ProviderSettings {
        answer_max: Duration::from_secs(1),
        ..provider.settings(ProviderKind::Oidc)
    };
    let app = spawn_app_with(known(AppOptions::default(), settings)).await;
    let failed = (ErrorCode::ProviderError, "provider_failed".to_owned());
    for bad in [
        Bad::Status(500),
        Bad::Status(404),
        Bad::Status(204),
        Bad::Noise,
        Bad::Flood,
        Bad::Elsewhere,
        Bad::Silence,
    ] {
        provider.ways().token = Some(bad);
        assert_eq!(refused(&log_in(&app, &provider, "ann").await), failed, "{bad:?}");
    }
    assert_eq!(provider.times_asked("GET /elsewhere"), 0);
    provider.ways().token = None;
    grant(&log_in(&app, &provider, "ann").await);
}

#[tokio::test]
async fn a_provider_that_is_not_what_was_configured_is_not_used() {
    let failed = (ErrorCode::ProviderError, "provider_failed".to_owned());
    for discovery in [
        json!({ "issuer": "https://evil.example" }),
        json!({ "issuer": null }),
        json!({ "token_endpoint": "http://192.0.2.1/token" }),
        json!({ "jwks_uri": "file:///etc/passwd" }),
        json!({ "authorization_endpoint": "javascript:alert(1)" }),
        json!({ "code_challenge_methods_supported": ["plain"] }),
    ] {
        let (app, provider) = lab().await;
        provider.ways().discovery = discovery.clone();
        let page = Browser::default().open(&start(&app, &[])).await;
        assert_eq!(refused(&page), failed, "{discovery}");
        // It is asked again: perhaps it was repaired.
        provider.ways().discovery = Value::Null;
        grant(&log_in(&app, &provider, "ann").await);
    }
}

/// The operator named one place of the provider; what it names in turn is on the internet.
#[tokio::test]
async fn a_provider_sends_nobody_into_the_network_of_the_server() {
    let (app, provider) = lab().await;
    let inside = IdentityProvider::start().await;
    let place = inside.issuer();
    provider.ways().discovery = json!({ "token_endpoint": format!("{place}/token") });
    let failed = (ErrorCode::ProviderError, "provider_failed".to_owned());
    assert_eq!(refused(&log_in(&app, &provider, "ann").await), failed);
    assert_eq!(inside.times_asked("POST /token"), 0);
}

#[tokio::test]
async fn a_provider_that_is_gone_is_an_error_and_no_more() {
    let provider = IdentityProvider::start().await;
    let settings = provider.settings(ProviderKind::Oidc);
    let nobody = ProviderSettings { issuer: "http://127.0.0.1:9".to_owned(), ..settings };
    let app = spawn_app_with(known(AppOptions::default(), nobody)).await;
    let page = Browser::default().open(&start(&app, &[])).await;
    assert_eq!(refused(&page), (ErrorCode::ProviderError, "provider_failed".to_owned()));
    // It is left alone for a moment.
    let page = Browser::default().open(&start(&app, &[])).await;
    let error = page.json["error"]["message"].as_str().unwrap();
    assert!(error.contains("does not answer: try again in a few seconds"), "{error}");
    assert!(app.user("ann").await.get("/v1/me").await.is_success());
}
