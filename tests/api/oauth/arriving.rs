//! Who may become a user by a login elsewhere, and who is nobody's user for it.

use iris_actors::Registration;

use super::*;

async fn invite(admin: &Person, body: Value) -> String {
    let made = admin.post("/v1/admin/invitations", body).await;
    made.json["data"]["token"].as_str().unwrap_or_else(|| panic!("{made:?}")).to_owned()
}

#[tokio::test]
async fn a15_an_address_that_somebody_has_links_nothing() {
    let (app, provider) = lab().await;
    let ann = app.user("ann").await;
    for claims in [
        Value::Null,
        json!({ "email": "ANN@Example.com" }),
        json!({ "email_verified": false }),
        json!({ "sub": "somebody", "email": " ann@example.com " }),
    ] {
        provider.ways().claims = claims.clone();
        let page = log_in(&app, &provider, "ann").await;
        assert_eq!(refused(&page), (ErrorCode::Conflict, "link_required".to_owned()), "{claims}");
    }
    assert_eq!(ann.get("/v1/me/identities").await.json["data"], json!([]));
    let program = Program::new();
    let back = program.back(&mut browser_of(&provider, "ann"), &program.start(&app)).await;
    assert_eq!((back["error"].as_str(), back.len()), ("link_required", 2));
}

#[tokio::test]
async fn an_address_that_nobody_verified_makes_no_account() {
    let (app, provider) = lab().await;
    let admin = app.admin().await;
    let refusal = (ErrorCode::Forbidden, "email_not_verified".to_owned());
    for claims in [
        json!({ "email_verified": false }),
        json!({ "email_verified": null }),
        json!({ "email_verified": "false" }),
        json!({ "email": "no address" }),
        json!({ "email": "a b@example.com" }),
    ] {
        provider.ways().claims = claims.clone();
        assert_eq!(refused(&log_in(&app, &provider, "ann").await), refusal, "{claims}");
    }
    // Where the ID token has none the provider is asked, about the same person.
    provider.ways().claims = json!({ "email": null });
    provider.ways().userinfo = json!({ "email_verified": false });
    assert_eq!(refused(&log_in(&app, &provider, "ann").await), refusal);
    provider.ways().userinfo = json!({ "email": null });
    assert_eq!(refused(&log_in(&app, &provider, "ann").await), refusal);
    provider.ways().userinfo = json!({ "sub": "ben" });
    let wrong = (ErrorCode::Unauthenticated, "login_not_proven".to_owned());
    assert_eq!(refused(&log_in(&app, &provider, "ann").await), wrong);
    assert_eq!(accounts(&admin).await, ["root@example.com"]);
    provider.ways().userinfo = Value::Null;
    assert_eq!(grant(&log_in(&app, &provider, "ann").await).user.email, "ann@example.com");
    // Who has an account is known by other things.
    provider.ways().claims = json!({ "email_verified": false, "email": "x" });
    grant(&log_in(&app, &provider, "ann").await);
}

#[tokio::test]
async fn a_provider_of_ones_own_may_be_trusted_with_addresses() {
    let provider = IdentityProvider::start().await;
    let settings = provider.settings(ProviderKind::Oidc);
    let settings = ProviderSettings { trusts_email: true, ..settings };
    let app = spawn_app_with(known(AppOptions::default(), settings)).await;
    provider.ways().claims = json!({ "email_verified": false });
    grant(&log_in(&app, &provider, "ann").await);
    let _ben = app.user("ben").await;
    let page = log_in(&app, &provider, "ben").await;
    assert_eq!(refused(&page).1, "link_required", "no account of somebody else for that");
}

#[tokio::test]
async fn where_registration_is_closed_only_who_has_an_account_gets_in() {
    let (app, provider) = lab().await;
    let admin = app.admin().await;
    grant(&log_in(&app, &provider, "ann").await);
    let closed = json!({ "registration": "closed" });
    assert!(admin.rest("PATCH", "/v1/admin/settings", Some(closed)).await.is_success());
    let refusal = (ErrorCode::Forbidden, "registration_closed".to_owned());
    assert_eq!(refused(&log_in(&app, &provider, "ben").await), refusal);
    grant(&log_in(&app, &provider, "ann").await);
    let secret = invite(&admin, json!({})).await;
    let url = start(&app, &[("invitation", &secret)]);
    let (_, page) = browser_of(&provider, "ben").go(&url, "nowhere").await;
    assert_eq!(refused(&page), refusal, "also with an invitation");
    assert_eq!(accounts(&admin).await, ["root@example.com", "ann@example.com"]);
}

#[tokio::test]
async fn who_is_invited_gets_in_once_and_into_the_project() {
    let options = AppOptions { registration: Registration::Invite, ..AppOptions::default() };
    let (app, provider) = lab_with(options).await;
    let admin = app.admin().await;
    let project = admin.project("p").await.id;
    let page = log_in(&app, &provider, "ann").await;
    assert_eq!(refused(&page), (ErrorCode::Forbidden, "invitation_needed".to_owned()));

    let path = format!("/v1/projects/{project}/invitations");
    let body = json!({ "role": "member", "email": "ann@example.com" });
    let made = admin.post(&path, body).await;
    let secret =
        made.json["data"]["token"].as_str().unwrap_or_else(|| panic!("{made:?}")).to_owned();
    let bring = async |who: &str, secret: &str| {
        let url = start(&app, &[("invitation", secret)]);
        browser_of(&provider, who).go(&url, "nowhere").await.1
    };
    let missing = (ErrorCode::NotFound, String::new());
    assert_eq!(refused(&bring("ben", &secret).await), missing, "it is for somebody else");
    assert_eq!(refused(&bring("ann", "wrong").await), missing);
    let ann = Person::new(app.client(), grant(&bring("ann", &secret).await));
    assert!(ann.get(&format!("/v1/projects/{project}")).await.is_success());
    assert_eq!(refused(&bring("cas", &secret).await), missing, "it is good once");
    assert_eq!(accounts(&admin).await, ["root@example.com", "ann@example.com"]);
}

#[tokio::test]
async fn names_that_are_taken_are_told_apart() {
    let (app, provider) = lab().await;
    provider.ways().claims = json!({ "preferred_username": "Ann\n" });
    let mut names = Vec::new();
    for who in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
        names.push(grant(&log_in(&app, &provider, who).await).user.username);
    }
    assert_eq!(names[..3], ["Ann", "Ann-2", "Ann-3"]);
    assert!(names[9].len() > 30 && names[9].starts_with("Ann-"), "{names:?}");
}

#[tokio::test]
async fn a_disabled_account_stays_closed() {
    let (app, provider) = lab().await;
    let admin = app.admin().await;
    let ann = grant(&log_in(&app, &provider, "ann").await);
    let program = Program::new();
    let code = program.code(&app, &provider, "ann").await;
    let account = format!("/v1/admin/users/{}", ann.user.id);
    let close = json!({ "disabled": true });
    assert!(admin.rest("PATCH", &account, Some(close)).await.is_success());
    let refusal = (ErrorCode::Forbidden, "account_disabled".to_owned());
    assert_eq!(refused(&log_in(&app, &provider, "ann").await), refusal);
    let late = rest_refusal(&program.redeem(&app, &code).await);
    assert_eq!(code_of(&late), (ErrorCode::Forbidden, "account_disabled"));
    assert!(admin.rest("PATCH", &account, Some(json!({ "disabled": false }))).await.is_success());
    grant(&log_in(&app, &provider, "ann").await);
}

#[tokio::test]
async fn who_is_deleted_may_come_again_as_somebody_new() {
    let (app, provider) = lab().await;
    let ann = Person::new(app.client(), grant(&log_in(&app, &provider, "ann").await));
    let export = ann.get("/v1/me/export").await.json["data"].clone();
    assert_eq!(export["identities"][0]["subject"], "ann");
    let program = Program::new();
    let code = program.code(&app, &provider, "ann").await;
    assert!(ann.rest("DELETE", "/v1/me", Some(json!({}))).await.is_success());
    assert!(!program.redeem(&app, &code).await.is_success());
    let again = grant(&log_in(&app, &provider, "ann").await);
    assert_ne!(again.user.id, *ann.id());
}

#[tokio::test]
async fn who_somebody_is_elsewhere_outlives_the_server() {
    let (app, provider) = lab().await;
    let ann = grant(&log_in(&app, &provider, "ann").await);
    let app = app.restart().await;
    assert_eq!(grant(&log_in(&app, &provider, "ann").await).user.id, ann.user.id);
}
