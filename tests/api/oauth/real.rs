//! A real provider (npm `oidc-provider`, pinned in `tests/oidc`): discovery, codes with PKCE, its keys, its
//! tokens.
//!
//! `IRIS_OIDC_PROVIDER` names the directory that it is installed in; `.ci/run test` does that. Without it this
//! is skipped, unless `CI` is `true`.

use std::path::PathBuf;
use std::process::Stdio;

use iris_auth::PlainSecret;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::*;

const CLIENT_ID: &str = "iris at the provider";
/// With what has to be encoded on its way.
const CLIENT_SECRET: &str = "se:cret+%/ of the client";

/// Where the provider is; none where the test is skipped.
fn installed() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("IRIS_OIDC_PROVIDER") {
        return Some(PathBuf::from(path));
    }
    let is_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!is_ci, "IRIS_OIDC_PROVIDER names no provider: .ci/run test installs it");
    eprintln!("skipped: IRIS_OIDC_PROVIDER is not set");
    None
}

/// A port for a server whose address the provider has to know before it is there.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The provider, which knows a client whose browsers come back to `callback`, and what it calls itself.
async fn provider(callback: &str) -> Option<(Child, String)> {
    let script = installed()?.join("server.mjs");
    assert!(script.exists(), "`{}` is not there", script.display());
    let mut child = Command::new("node")
        .arg(script)
        .args([CLIENT_ID, CLIENT_SECRET, callback])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let issuer = patiently("the provider", lines.next_line()).await.unwrap();
    Some((child, issuer.unwrap()))
}

fn settings(issuer: &str, secret: &str) -> ProviderSettings {
    let (title, id) = ("Real".to_owned(), CLIENT_ID.to_owned());
    let settings = ProviderSettings::new(ProviderKind::Oidc, title, Some(issuer.to_owned()), id);
    let client_secret = Some(PlainSecret::new(secret.to_owned()));
    ProviderSettings { client_secret, ..settings.unwrap() }
}

fn browser(issuer: &str, who: &str) -> Browser {
    Browser::default().with_cookie(issuer, "who", who)
}

/// A server and a provider that know each other.
async fn both(secret: &str) -> Option<(TestApp, Child, String)> {
    let port = free_port();
    let callback = format!("http://127.0.0.1:{port}/v1/auth/oauth/fake/callback");
    let (child, issuer) = provider(&callback).await?;
    let options = AppOptions { port, ..known(AppOptions::default(), settings(&issuer, secret)) };
    Some((spawn_app_with(options).await, child, issuer))
}

#[tokio::test]
async fn somebody_logs_in_at_a_real_provider_in_a_browser_and_with_a_program() {
    let Some((app, _child, issuer)) = both(CLIENT_SECRET).await else { return };
    let (_, page) = browser(&issuer, "ann").go(&start(&app, &[]), "nowhere").await;
    let ann = Person::new(app.client(), grant(&page));
    // The address is told by `userinfo` alone.
    let me = ann.get("/v1/me").await.json["data"].clone();
    assert_eq!((&me["email"], &me["username"]), (&json!("ann@example.com"), &json!("ann")));
    let own = ann.get("/v1/me/identities").await.json["data"].clone();
    assert_eq!((&own[0]["issuer"], &own[0]["subject"]), (&json!(issuer), &json!("ann")));

    let program = Program::new();
    let back = program.back(&mut browser(&issuer, "ann"), &program.start(&app)).await;
    let again: AuthGrant = program.redeem(&app, &back["code"]).await.data().unwrap();
    assert_eq!(again.user.id, *ann.id());
}

#[tokio::test]
async fn a_real_provider_links_an_account_that_its_user_wants_linked() {
    let Some((app, _child, issuer)) = both(CLIENT_SECRET).await else { return };
    let ann = app.user("ann").await;
    let (_, page) = browser(&issuer, "ann").go(&start(&app, &[]), "nowhere").await;
    assert_eq!(refused(&page), (ErrorCode::Conflict, "link_required".to_owned()));
    let program = Program::new();
    let body = json!({ "provider": "fake", "redirect": PROGRAM,
        "codeChallenge": program.verifier.challenge(), "currentPassword": iris_testkit::PASSWORD });
    let begun = ann.post("/v1/me/identities/link", body).await;
    let url = begun.json["data"]["url"].as_str().unwrap().to_owned();
    let back = program.back(&mut browser(&issuer, "ann"), &url).await;
    let body = json!({ "code": back["code"], "codeVerifier": program.verifier.as_str() });
    assert_eq!(ann.post("/v1/me/identities", body).await.status, 201);
    let (_, page) = browser(&issuer, "ann").go(&start(&app, &[]), "nowhere").await;
    assert_eq!(grant(&page).user.id, *ann.id());
}

#[tokio::test]
async fn a_real_provider_says_no_and_so_do_we() {
    let Some((app, _child, issuer)) = both(CLIENT_SECRET).await else { return };
    let (_, page) = Browser::default().go(&start(&app, &[]), "nowhere").await;
    assert_eq!(refused(&page), (ErrorCode::Forbidden, "login_refused".to_owned()));
    let (_, page) = browser(&issuer, "unverified").go(&start(&app, &[]), "nowhere").await;
    assert_eq!(refused(&page), (ErrorCode::Forbidden, "email_not_verified".to_owned()));
    // A code is good once there too.
    let mut ann = browser(&issuer, "ann");
    let callback = format!("{}/v1/auth/oauth/fake/callback", app.url);
    let (back, _) = ann.go(&start(&app, &[]), &callback).await;
    grant(&ann.open(&back).await);
    let (second, _) = ann.go(&start(&app, &[]), &callback).await;
    let replayed = second.replace(&query(&second)["code"], &query(&back)["code"]);
    let wrong = (ErrorCode::Unauthenticated, "login_not_proven".to_owned());
    assert_eq!(refused(&ann.open(&replayed).await), wrong);
}

#[tokio::test]
async fn a_real_provider_gives_nothing_to_a_client_with_a_wrong_secret() {
    let Some((app, _child, issuer)) = both("another secret").await else { return };
    let (_, page) = browser(&issuer, "ann").go(&start(&app, &[]), "nowhere").await;
    assert_eq!(refused(&page), (ErrorCode::Unauthenticated, "login_not_proven".to_owned()));
}
