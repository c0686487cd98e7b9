//! Logins at other providers, from a browser that begins to somebody who is logged in: rows A14 and A15 of the
//! threat model. The provider is a fake on the real wire; in [`real`] it is a real one.

mod arriving;
mod github;
mod linking;
mod playing;
mod programs;
mod proof;
mod real;

use std::collections::{BTreeMap, HashMap};

use iris_auth::PkceVerifier;
use iris_client::RestAnswer;
use iris_identity::{ProviderKind, ProviderSettings};
use iris_protocol::{AuthGrant, ErrorCode};
use iris_testkit::{
    AppOptions, Browser, IdentityProvider, Page, Person, TestApp, moment, patiently, spawn_app_with,
};
use serde_json::{Value, json};
use url::Url;
use url::form_urlencoded::Serializer;

use crate::{code_of, rest_refusal};

/// Where a program listens for its browser. Nobody does: the browser of a test stops before.
const PROGRAM: &str = "http://127.0.0.1:9/callback";

/// A server with one provider of logins, which it knows as `fake`.
async fn lab() -> (TestApp, IdentityProvider) {
    lab_with(AppOptions::default()).await
}

async fn lab_with(options: AppOptions) -> (TestApp, IdentityProvider) {
    let provider = IdentityProvider::start().await;
    let settings = provider.settings(ProviderKind::Oidc);
    (spawn_app_with(known(options, settings)).await, provider)
}

fn known(options: AppOptions, settings: ProviderSettings) -> AppOptions {
    AppOptions { oauth: BTreeMap::from([("fake".to_owned(), settings)]), ..options }
}

/// The browser of somebody whom the provider knows by that name.
fn browser_of(provider: &IdentityProvider, who: &str) -> Browser {
    Browser::default().with_cookie(&provider.issuer(), "who", who)
}

/// Where a login begins.
fn start(app: &TestApp, fields: &[(&str, &str)]) -> String {
    let query = Serializer::new(String::new()).extend_pairs(fields).finish();
    format!("{}/v1/auth/oauth/fake/start?{query}", app.url)
}

/// What a URL says in its query.
fn query(url: &str) -> HashMap<String, String> {
    Url::parse(url).unwrap().query_pairs().into_owned().collect()
}

/// Somebody logs in in their browser and is answered there.
async fn log_in(app: &TestApp, provider: &IdentityProvider, who: &str) -> Page {
    browser_of(provider, who).go(&start(app, &[]), "nowhere").await.1
}

fn grant(page: &Page) -> AuthGrant {
    assert_eq!(page.status, 200, "{page:?}");
    serde_json::from_value(page.json["data"].clone()).unwrap()
}

/// Code and reason of the refusal that a browser was answered.
fn refused(page: &Page) -> (ErrorCode, String) {
    let error: iris_protocol::ApiError =
        serde_json::from_value(page.json["error"].clone()).unwrap_or_else(|_| panic!("{page:?}"));
    assert_eq!(page.status, error.code.http_status(), "{page:?}");
    let (code, reason) = code_of(&error);
    (code, reason.to_owned())
}

/// A program that has people log in in their browser.
struct Program {
    verifier: PkceVerifier,
    redirect: String,
}

impl Program {
    fn new() -> Self {
        Self { verifier: PkceVerifier::random().unwrap(), redirect: PROGRAM.to_owned() }
    }

    /// What it has the browser open.
    fn start(&self, app: &TestApp) -> String {
        let challenge = self.verifier.challenge();
        start(app, &[("redirect", &self.redirect), ("codeChallenge", &challenge)])
    }

    /// What the browser brings.
    async fn back(&self, browser: &mut Browser, url: &str) -> HashMap<String, String> {
        let (back, page) = browser.go(url, &self.redirect).await;
        assert_eq!(page.status, 303, "{page:?}");
        query(&back)
    }

    /// The code that the browser of somebody brings.
    async fn code(&self, app: &TestApp, provider: &IdentityProvider, who: &str) -> String {
        let mut browser = browser_of(provider, who);
        self.back(&mut browser, &self.start(app)).await["code"].clone()
    }

    async fn redeem(&self, app: &TestApp, code: &str) -> RestAnswer {
        redeem(app, code, self.verifier.as_str()).await
    }
}

async fn redeem(app: &TestApp, code: &str, verifier: &str) -> RestAnswer {
    let body = json!({ "code": code, "codeVerifier": verifier });
    app.client().rest("POST", "/v1/auth/oauth/token", None, Some(&body)).await.unwrap()
}

/// The addresses of all accounts.
async fn accounts(admin: &Person) -> Vec<String> {
    let users = admin.get("/v1/admin/users").await.json["data"].clone();
    users.as_array().unwrap().iter().map(|u| u["email"].as_str().unwrap().to_owned()).collect()
}

/// What the audit holds of an action, oldest first: the result, and which provider.
async fn audited(admin: &Person, action: &str) -> Vec<(String, Value)> {
    let page = admin.get(&format!("/v1/admin/audit?action={action}")).await;
    let records = page.json["data"].as_array().unwrap_or_else(|| panic!("{page:?}")).clone();
    let told = records.iter().rev().map(|record| {
        (record["result"].as_str().unwrap().to_owned(), record["details"]["provider"].clone())
    });
    told.collect()
}

/// Waits until the audit holds that many refusals of an action, all of them with this result.
async fn refusals(admin: &Person, action: &str, result: &str, count: usize) {
    let all = async {
        loop {
            let found = audited(admin, action).await;
            assert!(found.iter().all(|(found, _)| found == result), "{found:?}");
            if found.len() == count {
                return;
            }
            // Nobody tells when a refusal is recorded.
            moment().await;
        }
    };
    patiently("refusals in the audit", all).await;
}

#[tokio::test]
async fn somebody_who_logs_in_elsewhere_gets_an_account_and_finds_it_again() {
    let (app, provider) = lab().await;
    let admin = app.admin().await;
    let listed = app.client().rest("GET", "/v1/auth/oauth", None, None).await.unwrap();
    assert_eq!(
        listed.json["data"],
        json!([{ "id": "fake", "title": "Fake", "startUrl": start(&app, &[]).trim_end_matches('?') }])
    );

    let mut browser = browser_of(&provider, "ann");
    let begun = browser.open(&start(&app, &[])).await;
    assert_eq!((begun.status, begun.text.as_str()), (303, ""));
    let [cookie] = begun.cookies.as_slice() else { panic!("{begun:?}") };
    let (pair, bounds) = cookie.split_once("; ").unwrap();
    assert!(pair.starts_with("iris_login=irt_"), "{cookie}");
    assert_eq!(bounds, "Max-Age=600; Path=/v1/auth/oauth; HttpOnly; SameSite=Lax");
    let location = begun.location.unwrap();
    assert!(location.starts_with(&format!("{}/agree?tenant=1&", provider.issuer())), "{location}");
    let asked = query(&location);
    let callback = format!("{}/v1/auth/oauth/fake/callback", app.url);
    assert_eq!(
        (asked["redirect_uri"].as_str(), asked["scope"].as_str()),
        (callback.as_str(), "openid email profile")
    );
    assert_eq!(
        (asked["code_challenge"].len(), asked["code_challenge_method"].as_str()),
        (43, "S256")
    );
    assert!(asked["state"] != asked["nonce"] && !cookie.contains(&asked["state"]));

    let (_, page) = browser.go(&location, "nowhere").await;
    assert!(page.cookies[0].starts_with("iris_login=; Max-Age=0; "), "{page:?}");
    let ann = Person::new(app.client(), grant(&page));
    let me = ann.get("/v1/me").await.json["data"].clone();
    assert_eq!((&me["email"], &me["username"]), (&json!("ann@example.com"), &json!("ann")));
    let own = ann.get("/v1/me/identities").await.json["data"].clone();
    assert_eq!(own.as_array().unwrap().len(), 1);
    assert_eq!(
        (&own[0]["provider"], &own[0]["issuer"], &own[0]["subject"]),
        (&json!("fake"), &json!(provider.issuer()), &json!("ann"))
    );
    assert!(own[0]["lastLoginAt"].is_i64());

    // The address there is another one by now, and decides nothing.
    provider.ways().claims = json!({ "email": "other@example.com", "preferred_username": "x" });
    let again = grant(&log_in(&app, &provider, "ann").await);
    assert_eq!(again.user.id, *ann.id());
    let own = ann.get("/v1/me/identities").await.json["data"].clone();
    assert_eq!(own[0]["email"], "other@example.com");
    assert_eq!(accounts(&admin).await, ["root@example.com", "ann@example.com"]);
    let fake = json!("fake");
    let done = |provider: &Value| ("done".to_owned(), provider.clone());
    assert_eq!(audited(&admin, "auth.register").await, [done(&fake)]);
    let root = done(&Value::Null);
    assert_eq!(audited(&admin, "auth.login").await, [root, done(&fake), done(&fake)]);
    // What it says of itself is asked for once, and its keys.
    assert_eq!(provider.times_asked("GET /.well-known/openid-configuration"), 1);
    assert_eq!((provider.times_asked("GET /keys"), provider.times_asked("POST /token")), (1, 2));
}

#[tokio::test]
async fn what_is_no_provider_is_not_found_and_nobody_is_sent_there() {
    let (app, _provider) = lab().await;
    let mut browser = Browser::default();
    for path in ["other/start", "other/callback?state=x", "Fake/start", "fake%2F..%2Ffake/start"] {
        let page = browser.open(&format!("{}/v1/auth/oauth/{path}", app.url)).await;
        assert!(page.location.is_none() && (400..500).contains(&page.status), "{path}: {page:?}");
    }
    let page = browser.open(&format!("{}/v1/auth/oauth/other/start", app.url)).await;
    assert_eq!(refused(&page), (ErrorCode::NotFound, String::new()));
    let post = app.client().rest("POST", "/v1/auth/oauth/fake/start", None, None).await.unwrap();
    assert_eq!(rest_refusal(&post).code, ErrorCode::MethodNotAllowed);
}
