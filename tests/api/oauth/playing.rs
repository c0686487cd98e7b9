//! What a browser brings back is of this login, in this browser, at this provider, and is used once.

use std::sync::Arc;
use std::time::Duration;

use iris_actors::{Rate, RateSettings};
use iris_testkit::{PASSWORD, TestClock};

use super::*;

const NOW: i64 = 1_790_000_000_000;

fn not_begun() -> (ErrorCode, String) {
    (ErrorCode::InvalidRequest, "login_not_begun".to_owned())
}

/// Somebody begins and agrees: where their browser is sent back to.
async fn agreed(app: &TestApp, browser: &mut Browser) -> String {
    let callback = format!("{}/v1/auth/oauth/fake/callback", app.url);
    browser.go(&start(app, &[]), &callback).await.0
}

#[tokio::test]
async fn a14_a_state_that_is_wrong_missing_or_used_leads_nowhere() {
    let (app, provider) = lab().await;
    let admin = app.admin().await;
    let mut browser = browser_of(&provider, "ann");
    let back = agreed(&app, &mut browser).await;
    let fields = query(&back);
    let with = |state: &str| back.replace(&fields["state"], state);
    for bad in [with("irt_other"), with(""), back.replace("state=", "stat="), with("%00")] {
        assert_eq!(refused(&browser.open(&bad).await), not_begun(), "{bad}");
    }
    // None of these was it: it is still there.
    grant(&browser.open(&back).await);
    assert_eq!(refused(&browser.open(&back).await), not_begun(), "it is good once");
    assert_eq!(provider.times_asked("POST /token"), 1);
    // The last one had neither a cookie nor a state of ours: any page can have made it.
    refusals(&admin, "auth.oauth.callback", "INVALID_REQUEST login_not_begun", 4).await;
}

#[tokio::test]
async fn a14_the_state_of_another_browser_leads_nowhere_and_is_used_up() {
    let (app, provider) = lab().await;
    let admin = app.admin().await;
    let mut ann = browser_of(&provider, "ann");
    // Ann is to be logged in as Eve, by a link that Eve made.
    let mut eve = browser_of(&provider, "eve");
    let back = agreed(&app, &mut eve).await;
    assert_eq!(refused(&ann.open(&back).await), not_begun(), "without a cookie");
    assert_eq!(refused(&eve.open(&back).await), not_begun(), "it was used up");
    let back = agreed(&app, &mut eve).await;
    agreed(&app, &mut ann).await;
    assert_eq!(refused(&ann.open(&back).await), not_begun(), "with the cookie of another login");
    let back = agreed(&app, &mut eve).await;
    let mut forged = ann.clone().with_cookie(&app.url, "iris_login", &query(&back)["state"]);
    assert_eq!(refused(&forged.open(&back).await), not_begun(), "the state is no cookie");
    assert_eq!(provider.times_asked("POST /token"), 0);
    assert_eq!(accounts(&admin).await, ["root@example.com"]);
}

#[tokio::test]
async fn what_one_provider_sends_back_is_no_login_at_another() {
    let (one, two) = (IdentityProvider::start().await, IdentityProvider::start().await);
    let settings = |provider: &IdentityProvider| provider.settings(ProviderKind::Oidc);
    let oauth = [("fake".to_owned(), settings(&one)), ("other".to_owned(), settings(&two))];
    let options = AppOptions { oauth: oauth.into(), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let mut browser = browser_of(&one, "ann");
    let back = agreed(&app, &mut browser).await;
    let elsewhere = back.replace("/fake/", "/other/");
    assert_eq!(refused(&browser.open(&elsewhere).await), not_begun());
    assert_eq!(two.times_asked("POST /token"), 0, "it got no code of another one");
    // The same by a provider that says who it is (RFC 9207).
    let wrong = (ErrorCode::Unauthenticated, "login_not_proven".to_owned());
    one.ways().iss = Some(two.issuer());
    assert_eq!(refused(&log_in(&app, &one, "ann").await), wrong);
    one.ways().iss = Some(one.issuer());
    grant(&log_in(&app, &one, "ann").await);
    assert_eq!(one.times_asked("POST /token"), 1);
}

#[tokio::test]
async fn a_provider_that_says_it_names_itself_has_to() {
    let (app, provider) = lab().await;
    provider.ways().discovery = json!({ "authorization_response_iss_parameter_supported": true });
    let wrong = (ErrorCode::Unauthenticated, "login_not_proven".to_owned());
    assert_eq!(refused(&log_in(&app, &provider, "ann").await), wrong);
    provider.ways().iss = Some(provider.issuer());
    grant(&log_in(&app, &provider, "ann").await);
}

/// What is under way is in memory alone: people are told to begin again, and can.
#[tokio::test]
async fn what_was_begun_before_the_server_started_again_says_so_and_is_begun_anew() {
    let (app, provider) = lab().await;
    let (ann, program) = (app.user("ann").await, Program::new());
    let mut browser = browser_of(&provider, "somebody");
    let begun = browser.open(&start(&app, &[])).await;
    let cookie = begun.cookies[0].split_once("; ").unwrap().0.split_once('=').unwrap().1.to_owned();
    let callback = format!("{}/v1/auth/oauth/fake/callback", app.url);
    let (back, _) = browser.go(&begun.location.unwrap(), &callback).await;
    let code = program.code(&app, &provider, "somebody").await;
    let body = json!({ "provider": "fake", "redirect": program.redirect,
        "codeChallenge": program.verifier.challenge(), "currentPassword": PASSWORD });
    let link = ann.post("/v1/me/identities/link", body).await;
    let link = link.json["data"]["url"].as_str().unwrap().to_owned();
    let (tokens, before) = (provider.times_asked("POST /token"), app.url.clone());

    let app = app.restart().await;
    let mut browser = browser.with_cookie(&app.url, "iris_login", &cookie);
    let page = browser.open(&back.replace(&before, &app.url)).await;
    assert_eq!(refused(&page), not_begun());
    assert!(page.text.contains("the server started again meanwhile: begin again"), "{page:?}");
    let late = rest_refusal(&program.redeem(&app, &code).await);
    assert_eq!(code_of(&late), (ErrorCode::InvalidRequest, "invalid_code"));
    assert!(late.message.contains("begin again"), "{late}");
    let page = browser.open(&link.replace(&before, &app.url)).await;
    assert_eq!(refused(&page), (ErrorCode::InvalidRequest, "invalid_link".to_owned()));
    assert!(page.text.contains("prepare another one"), "{page:?}");
    assert_eq!(provider.times_asked("POST /token"), tokens, "nobody was asked who it is");
    grant(&log_in(&app, &provider, "somebody").await);
}

#[tokio::test]
async fn a_login_takes_ten_minutes_at_most_and_a_code_one() {
    let clock = Arc::new(TestClock::at(NOW));
    let provider = IdentityProvider::start_at(clock.clone()).await;
    let options = AppOptions { clock: Some(clock.clone()), ..AppOptions::default() };
    let app = spawn_app_with(known(options, provider.settings(ProviderKind::Oidc))).await;
    let mut browser = browser_of(&provider, "ann");
    let back = agreed(&app, &mut browser).await;
    clock.advance(Duration::from_mins(10));
    assert_eq!(refused(&browser.open(&back).await), not_begun());
    let back = agreed(&app, &mut browser).await;
    clock.advance(Duration::from_secs(599));
    grant(&browser.open(&back).await);

    let program = Program::new();
    let code = program.code(&app, &provider, "ann").await;
    clock.advance(Duration::from_mins(1));
    let late = rest_refusal(&program.redeem(&app, &code).await);
    assert_eq!(code_of(&late), (ErrorCode::InvalidRequest, "invalid_code"));
    let code = program.code(&app, &provider, "ann").await;
    clock.advance(Duration::from_secs(59));
    assert!(program.redeem(&app, &code).await.is_success());
}

#[tokio::test]
async fn whoever_brings_too_much_that_is_wrong_has_to_wait() {
    let rate = Some(Rate { every: Duration::from_mins(1), burst: 2 });
    let rates = RateSettings { login_failures_of_address: rate, ..RateSettings::NONE };
    let (app, provider) = lab_with(AppOptions { rates, ..AppOptions::default() }).await;
    // What is right does not count.
    for _ in 0..4 {
        grant(&log_in(&app, &provider, "ann").await);
    }
    let mut browser = browser_of(&provider, "ann");
    let back = agreed(&app, &mut browser).await;
    let wrong = back.replace(&query(&back)["state"], "irt_wrong");
    // Nor does what any page can make a browser ask for.
    for _ in 0..4 {
        assert_eq!(refused(&Browser::default().open(&wrong).await), not_begun());
    }
    assert_eq!(refused(&browser.open(&wrong).await), not_begun());
    let code = rest_refusal(&redeem(&app, "irt_wrong", "x").await);
    assert_eq!(code.code, ErrorCode::InvalidRequest);
    for page in [browser.open(&wrong).await, browser.open(&back).await] {
        assert_eq!(refused(&page).0, ErrorCode::RateLimited);
    }
    let code = rest_refusal(&redeem(&app, "irt_wrong", "x").await);
    assert_eq!(code.code, ErrorCode::RateLimited);
}

#[tokio::test]
async fn a_person_who_does_not_agree_is_told_so() {
    let (app, provider) = lab().await;
    provider.ways().error = Some("access_denied<script>".to_owned());
    let page = log_in(&app, &provider, "ann").await;
    assert_eq!(refused(&page), (ErrorCode::Forbidden, "login_refused".to_owned()));
    let message = page.json["error"]["message"].as_str().unwrap();
    assert_eq!(message, "the provider `fake` did not let you in: access_deniedscript");
    let program = Program::new();
    let back = program.back(&mut browser_of(&provider, "ann"), &program.start(&app)).await;
    assert_eq!((back["error"].as_str(), back.get("code")), ("login_refused", None));
    assert_eq!(back["error_description"], message);
}
