//! MCP servers on the web that want an authorization: begun by an administrator, agreed to in a browser,
//! renewed, forgotten. Rows M5 and T16 of the threats, as far as they go through the whole server.

use crate::mcp_web::webfake;

#[path = "../../crates/mcp/tests/session/oauthfake.rs"]
#[expect(clippy::expect_used, reason = "a helper of a test fails like the test itself")]
mod oauthfake;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use iris_client::{RestAnswer, Socket};
use iris_protocol::{
    ErrorCode, McpAuthorize, McpAuthorizePayload, McpCreate, McpList, McpOauthSettings, McpServer,
    McpState, McpTransport, McpUpdate, MemberUpdate, ProjectArchive, ProjectExport, ProjectId,
    ProjectUnarchive, Role, ToolState,
};
use iris_testkit::{AppOptions, Conversation, Person, TestApp, TestClock, spawn_app_with};
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

use crate::mcp::{allow, approve, change, outcome, status, until};
use crate::{code_of, refusal, rest_refusal};
use oauthfake::OauthFake;
use webfake::WebFake;

const MISSING: &str = "the server wants an authorization";

fn options(fakes: &[std::net::SocketAddr]) -> AppOptions {
    let allow = fakes.iter().map(|address| address.to_string().parse().unwrap()).collect();
    AppOptions { egress_allow: allow, ..AppOptions::default() }
}

async fn app(fake: &OauthFake) -> (TestApp, Person) {
    let app = spawn_app_with(options(&[fake.address])).await;
    let admin = app.admin().await;
    (app, admin)
}

fn new(fake: &OauthFake) -> McpCreate {
    McpCreate {
        name: "web".to_owned(),
        transport: web(&format!("{}/mcp", fake.origin())),
        secret_headers: None,
        oauth: None,
        enabled: None,
        initialize_timeout_ms: None,
        request_timeout_ms: None,
    }
}

fn web(url: &str) -> McpTransport {
    McpTransport::Http { url: url.to_owned(), headers: BTreeMap::new() }
}

fn asking(change: impl FnOnce(&mut McpOauthSettings)) -> McpOauthSettings {
    let mut settings = McpOauthSettings::default();
    change(&mut settings);
    settings
}

async fn begin(talk: &Conversation) -> McpAuthorizePayload {
    talk.call(McpAuthorize { name: "web".to_owned() }).await.unwrap()
}

/// A browser comes back, which has no token of Iris.
async fn come_back(app: &TestApp, back: &HashMap<String, String>) -> RestAnswer {
    let query = Serializer::new(String::new()).extend_pairs(back).finish();
    let path = format!("/v1/mcp/callback?{query}");
    app.client().raw("GET", &path, None, &[], Vec::new().into()).await.unwrap()
}

async fn refused(app: &TestApp, back: &HashMap<String, String>) -> (ErrorCode, String) {
    let error = rest_refusal(&come_back(app, back).await);
    let (code, reason) = code_of(&error);
    (code, reason.to_owned())
}

/// A server whose authorization somebody has given.
async fn authorized(app: &TestApp, talk: &Conversation, room: &mut Socket, fake: &OauthFake) {
    talk.call(new(fake)).await.unwrap();
    until(room, "web", McpState::NeedsAuth).await;
    let back = fake.agree(&begin(talk).await.url);
    assert_eq!(come_back(app, &back).await.status, 200);
    until(room, "web", McpState::NeedsApproval).await;
}

async fn server(talk: &Conversation) -> McpServer {
    talk.call(McpList {}).await.unwrap().servers.remove(0)
}

#[tokio::test]
async fn m5_an_authorization_is_given_used_renewed_and_forgotten() {
    let fake = OauthFake::start().await;
    let (app, ann) = app(&fake).await;
    let mut talk = ann.conversation().await;
    let mut room = talk.connect_to_project().await;
    talk.call(new(&fake)).await.unwrap();
    assert_eq!(until(&mut room, "web", McpState::NeedsAuth).await.as_deref(), Some(MISSING));
    let path = format!("/v1/projects/{}/mcp/web/authorize", talk.project);
    let begun = ann.post(&path, json!({})).await;
    assert_eq!(begun.status, 200, "{begun:?}");
    let url = begun.json["data"]["url"].as_str().unwrap();
    let reason = until(&mut room, "web", McpState::NeedsAuth).await;
    assert_eq!(reason.as_deref(), Some("an authorization was begun"));
    let asked: HashMap<String, String> =
        url::Url::parse(url).unwrap().query_pairs().into_owned().collect();
    assert_eq!(asked["redirect_uri"], format!("{}/v1/mcp/callback", app.url));
    assert_eq!(
        (asked["scope"].as_str(), asked["code_challenge_method"].as_str()),
        ("tools", "S256")
    );
    assert_eq!(asked["resource"], format!("{}/mcp", fake.origin()));

    let back = fake.agree(url);
    let answer = come_back(&app, &back).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let message = answer.json["data"]["message"].as_str().unwrap();
    assert_eq!(message, "Iris may use the MCP server `web` now. You can close this window.");
    until(&mut room, "web", McpState::NeedsApproval).await;
    let given = server(&talk).await.authorization.unwrap();
    assert_eq!((given.issuer, &given.by), (fake.origin(), ann.id()));
    assert_eq!(given.scopes, ["tools"]);
    assert_eq!(
        refused(&app, &back).await,
        (ErrorCode::Gone, "not_begun".to_owned()),
        "it is good once"
    );

    approve(&talk, &mut room, "web").await;
    allow(&talk, "mcp:web").await;
    let works = (ToolState::Completed, "called".to_owned());
    assert_eq!(outcome(&mut talk, "call web__echo {}").await, works);
    // The token is good no more, which a call finds out: it gets another one and is made again.
    fake.expire();
    assert_eq!(outcome(&mut talk, "call web__echo {}").await, works);
    let tokens: Vec<String> = fake.asked_for("/token").iter().map(|it| it.text.clone()).collect();
    assert_eq!(tokens.len(), 2);
    assert!(tokens[1].contains("grant_type=refresh_token&refresh_token=refresh-1&resource="));
    nothing_is_told(&app, &ann, &talk, &fake).await;

    let forget = McpUpdate { forget_authorization: Some(true), ..change("web") };
    assert_eq!(talk.call(forget).await.unwrap().server.authorization, None);
    assert_eq!(until(&mut room, "web", McpState::NeedsAuth).await.as_deref(), Some(MISSING));
    let (state, text) = outcome(&mut talk, "call web__echo {}").await;
    assert!(state == ToolState::Error && text.ends_with(MISSING), "{text}");
}

/// No token is in an answer, an event or a file, and none of Iris goes to the server.
async fn nothing_is_told(app: &TestApp, ann: &Person, talk: &Conversation, fake: &OauthFake) {
    let path = format!("/v1/projects/{}/mcp", talk.project);
    let listed = ann.get(&path).await.json.to_string();
    let shown = ann.get(&format!("{path}/web/status")).await.json.to_string();
    let secrets = ["access-1", "refresh-1", "access-3", "refresh-3"];
    for text in [listed, shown, format!("{:?}", talk.seen)] {
        assert!(!secrets.iter().any(|secret| text.contains(secret)), "{text}");
    }
    let mut folders = vec![app.data_dir().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let is_there = secrets.iter().any(|secret| text.contains(secret));
            assert!(!is_there, "`{}`", path.display());
        }
    }
    for asked in fake.asked() {
        let all = format!("{asked:?}");
        assert!(!all.contains(ann.token()) && !all.contains("cookie"), "{all}");
        // The token goes to the server, and to nobody who gives tokens.
        assert!(asked.path == "/mcp" || asked.header("authorization").is_empty(), "{all}");
    }
}

#[tokio::test]
async fn m5_a_server_is_not_followed_to_a_place_that_nobody_named() {
    let (fake, evil) = (OauthFake::start().await, WebFake::start(|_| None).await);
    let place = format!("http://{}", evil.address);
    let app = spawn_app_with(options(&[fake.address, evil.address])).await;
    let ann = app.admin().await;
    let talk = ann.conversation().await;
    let mut room = talk.connect_to_project().await;
    fake.login().challenge = Some(format!("Bearer resource_metadata=\"{place}/x\""));
    talk.call(new(&fake)).await.unwrap();
    until(&mut room, "web", McpState::NeedsAuth).await;
    let error = refusal(talk.call(McpAuthorize { name: "web".to_owned() }).await);
    assert_eq!(code_of(&error), (ErrorCode::Conflict, "foreign_origin"));
    assert_eq!(error.details["origin"], place);
    fake.login().challenge =
        Some("Bearer resource_metadata=\"http://169.254.169.254/\"".to_owned());
    talk.call(change("web")).await.unwrap();
    until(&mut room, "web", McpState::NeedsAuth).await;
    let error = refusal(talk.call(McpAuthorize { name: "web".to_owned() }).await);
    assert_eq!(code_of(&error), (ErrorCode::ProviderError, "authorization_failed"));
    assert!(evil.asked().is_empty());
    // Tokens are asked for this server alone, whatever it says that it is.
    fake.login().challenge = Some("Bearer".to_owned());
    fake.login().resource = json!({ "resource": "https://bank.example/" });
    talk.call(change("web")).await.unwrap();
    until(&mut room, "web", McpState::NeedsAuth).await;
    let error = refusal(talk.call(McpAuthorize { name: "web".to_owned() }).await);
    assert!(error.message.contains("https://bank.example/"), "{error}");

    // One that an administrator names is asked.
    let login = OauthFake::start().await;
    let app = spawn_app_with(options(&[fake.address, login.address])).await;
    let ann = app.admin().await;
    let talk = ann.conversation().await;
    let mut room = talk.connect_to_project().await;
    fake.login().resource = json!({ "authorization_servers": [login.origin()] });
    let oauth = Some(asking(|it| {
        it.origins = vec![login.origin()];
        it.scopes = vec!["mine".to_owned()];
    }));
    talk.call(McpCreate { oauth, ..new(&fake) }).await.unwrap();
    until(&mut room, "web", McpState::NeedsAuth).await;
    let url = begin(&talk).await.url;
    assert!(url.starts_with(&login.origin()) && url.contains("scope=mine"), "{url}");
}

#[tokio::test]
async fn t16_what_comes_back_is_good_for_who_began_it_in_time_and_once() {
    let fake = OauthFake::start().await;
    let clock = Arc::new(TestClock::at(1_790_000_000_000));
    let options = AppOptions { clock: Some(clock.clone()), ..options(&[fake.address]) };
    let app = spawn_app_with(options).await;
    let ann = app.admin().await;
    let (bob, mel) = (app.user("bob").await, app.user("mel").await);
    let talk = ann.conversation().await;
    ann.add_member(&talk.project, &bob, Role::Admin).await;
    ann.add_member(&talk.project, &mel, Role::Member).await;
    let mut room = talk.connect_to_project().await;
    talk.call(new(&fake)).await.unwrap();
    until(&mut room, "web", McpState::NeedsAuth).await;
    let gone = (ErrorCode::Gone, "not_begun".to_owned());
    let authorize = || McpAuthorize { name: "web".to_owned() };
    let theirs = refusal(mel.client.call(Some(&talk.project), authorize()).await);
    assert_eq!(theirs.code, ErrorCode::Forbidden);

    // Made up, of another user, of a project that is not there.
    let back = fake.agree(&begin(&talk).await.url);
    let with =
        |state: String| HashMap::from([("state".into(), state), ("code".into(), "x".into())]);
    for state in [
        String::new(),
        "x".repeat(300),
        back["state"].replace(ann.id().as_str(), bob.id().as_str()),
        back["state"].replace(talk.project.as_str(), ProjectId::from_bits(1).as_str()),
        format!("{}x", back["state"]),
    ] {
        assert_eq!(refused(&app, &with(state)).await, gone);
    }
    // Somebody says no, or somebody else answers: begun anew.
    let conflict = |reason: &str| (ErrorCode::Conflict, reason.to_owned());
    let no = HashMap::from([
        ("state".to_owned(), back["state"].clone()),
        ("error".to_owned(), "access_denied\u{200b}".to_owned()),
    ]);
    assert_eq!(refused(&app, &no).await, conflict("authorization_refused"));
    assert_eq!(refused(&app, &back).await, gone);
    let mut back = fake.agree(&begin(&talk).await.url);
    back.insert("iss".to_owned(), "https://evil.example".to_owned());
    assert_eq!(refused(&app, &back).await, conflict("wrong_issuer"));
    fake.login().issuer = json!({ "authorization_response_iss_parameter_supported": true });
    let back = fake.agree(&begin(&talk).await.url);
    assert_eq!(refused(&app, &back).await, conflict("wrong_issuer"), "it says who it is, always");
    fake.login().issuer = Value::Null;
    let mut back = fake.agree(&begin(&talk).await.url);
    back.insert("code".to_owned(), "another".to_owned());
    let failed = (ErrorCode::ProviderError, "authorization_refused".to_owned());
    assert_eq!(refused(&app, &back).await, failed);
    let mut back = fake.agree(&begin(&talk).await.url);
    back.remove("code");
    assert_eq!(refused(&app, &back).await.1, "invalid_code");

    // Too late; by who is no administrator any more; for a server that is another one by now; while the
    // project is archived.
    let back = fake.agree(&begin(&talk).await.url);
    clock.advance(Duration::from_mins(10));
    assert_eq!(refused(&app, &back).await, gone);
    let theirs = bob.client.call(Some(&talk.project), authorize()).await.unwrap();
    let back = fake.agree(&theirs.url);
    let demote = MemberUpdate { user_id: bob.id().clone(), role: Role::Member };
    talk.call(demote).await.unwrap();
    assert_eq!(refused(&app, &back).await, gone);
    let back = fake.agree(&begin(&talk).await.url);
    talk.call(McpUpdate { forget_authorization: Some(true), ..change("web") }).await.unwrap();
    assert_eq!(refused(&app, &back).await, gone);
    let back = fake.agree(&begin(&talk).await.url);
    talk.call(ProjectArchive {}).await.unwrap();
    assert_eq!(refused(&app, &back).await, gone);
    talk.call(ProjectUnarchive {}).await.unwrap();
    assert_eq!(come_back(&app, &back).await.status, 200, "it was not used up");
    // All of them were for one client.
    assert!(fake.asked_for("/register").len() <= 2, "one, and one after it was forgotten");
}

#[tokio::test]
async fn what_was_begun_and_what_was_given_survive_a_restart() {
    let fake = OauthFake::start().await;
    let (app, ann) = app(&fake).await;
    let talk = ann.conversation().await;
    let mut room = talk.connect_to_project().await;
    talk.call(new(&fake)).await.unwrap();
    until(&mut room, "web", McpState::NeedsAuth).await;
    let back = fake.agree(&begin(&talk).await.url);
    let app = app.restart().await;
    assert_eq!(come_back(&app, &back).await.status, 200);
    let ann = app.again(&ann);
    let mut talk = talk.resume(ann.clone()).await;
    let mut room = talk.connect_to_project().await;
    talk.call(change("web")).await.unwrap();
    until(&mut room, "web", McpState::NeedsApproval).await;
    approve(&talk, &mut room, "web").await;
    allow(&talk, "mcp:web").await;
    let app = app.restart().await;
    let ann = app.again(&ann);
    talk = talk.resume(ann.clone()).await;
    let works = (ToolState::Completed, "called".to_owned());
    assert_eq!(outcome(&mut talk, "call web__echo {}").await, works);
    assert_eq!(fake.asked_for("/token").len(), 1, "the token was good still");
}

#[tokio::test]
async fn m5_a_token_is_renewed_before_it_runs_out_and_asked_for_once_when_it_is_refused() {
    let fake = OauthFake::start().await;
    let (app, ann) = app(&fake).await;
    let mut talk = ann.conversation().await;
    let mut room = talk.connect_to_project().await;
    fake.login().tokens = json!({ "expires_in": 30 });
    // It is good for half a minute, and renewed before it is shown.
    authorized(&app, &talk, &mut room, &fake).await;
    assert_eq!(fake.asked_for("/token").len(), 2);
    approve(&talk, &mut room, "web").await;
    fake.login().tokens = json!({});
    talk.call(change("web")).await.unwrap();
    until(&mut room, "web", McpState::Ready).await;
    assert_eq!(
        fake.asked_for("/token").len(),
        2,
        "nothing has changed that a connection depends on"
    );
    let off = McpUpdate { enabled: Some(false), ..change("web") };
    talk.call(off).await.unwrap();
    until(&mut room, "web", McpState::Disabled).await;
    talk.call(McpUpdate { enabled: Some(true), ..change("web") }).await.unwrap();
    until(&mut room, "web", McpState::Ready).await;
    assert_eq!(fake.asked_for("/token").len(), 3);

    // One of which nobody says how long it is good turns out to be so no more when the server is reached.
    fake.login().tokens = json!({ "expires_in": null });
    fake.expire();
    talk.call(McpUpdate { enabled: Some(false), ..change("web") }).await.unwrap();
    until(&mut room, "web", McpState::Disabled).await;
    talk.call(McpUpdate { enabled: Some(true), ..change("web") }).await.unwrap();
    until(&mut room, "web", McpState::Ready).await;
    assert_eq!(fake.asked_for("/token").len(), 4);
    fake.login().tokens = json!({});

    // The server refuses the token, and its authorization server the one that would get another.
    fake.expire();
    fake.login().refresh = None;
    allow(&talk, "mcp:web").await;
    let (state, text) = outcome(&mut talk, "call web__echo {}").await;
    let expected =
        "its authorization is good no more: the authorization server refused: invalid_grant";
    assert!(state == ToolState::Error && text.contains(expected), "{text}");
    assert_eq!(status(&talk, "web").await.state, McpState::NeedsAuth);
    assert_eq!(fake.asked_for("/token").len(), 5, "asked once");
    // Somebody agrees anew; what was approved still is.
    let back = fake.agree(&begin(&talk).await.url);
    assert_eq!(come_back(&app, &back).await.status, 200);
    until(&mut room, "web", McpState::Ready).await;
    let works = (ToolState::Completed, "called".to_owned());
    assert_eq!(outcome(&mut talk, "call web__echo {}").await, works);

    // A server that believes no token at all is not asked for ever.
    let before = fake.asked().len();
    fake.login().access = 0;
    fake.login().tokens = json!({ "access_token": "bad" });
    let (state, text) = outcome(&mut talk, "call web__echo {}").await;
    assert!(state == ToolState::Error && text.ends_with(MISSING), "{text}");
    assert!(fake.asked().len() < before + 10, "{}", fake.asked().len() - before);
}

#[tokio::test]
async fn a_client_that_somebody_registered_is_used_and_its_secret_shown_to_nobody() {
    let fake = OauthFake::start().await;
    let (app, ann) = app(&fake).await;
    let talk = ann.conversation().await;
    let mut room = talk.connect_to_project().await;
    fake.login().issuer = json!({ "registration_endpoint": "" });
    talk.call(new(&fake)).await.unwrap();
    until(&mut room, "web", McpState::NeedsAuth).await;
    let error = refusal(talk.call(McpAuthorize { name: "web".to_owned() }).await);
    assert_eq!(error.code, ErrorCode::ProviderError, "{error}");
    let oauth = Some(asking(|it| {
        it.client_id = Some("iris".to_owned());
        it.client_secret = Some("canary-secret".to_owned());
    }));
    fake.login().issuer =
        json!({ "token_endpoint_auth_methods_supported": ["client_secret_post"] });
    let changed = talk.call(McpUpdate { oauth, ..change("web") }).await.unwrap().server;
    assert!(changed.oauth.as_ref().unwrap().has_client_secret);
    assert!(!serde_json::to_string(&changed).unwrap().contains("canary"));
    until(&mut room, "web", McpState::NeedsAuth).await;
    let url = begin(&talk).await.url;
    assert!(url.contains("client_id=iris") && !url.contains("canary"), "{url}");
    assert_eq!(come_back(&app, &fake.agree(&url)).await.status, 200);
    let asked = fake.asked_for("/token");
    assert!(asked[0].text.ends_with("client_id=iris&client_secret=canary-secret"), "{asked:?}");
    assert!(fake.asked_for("/register").is_empty());
    for action in ["mcp.authorize", "mcp.authorize.finish"] {
        let audit = ann.get(&format!("/v1/admin/audit?action={action}")).await.json["data"].clone();
        let records = audit.as_array().unwrap().iter().rev();
        let results: Vec<_> = records.map(|it| it["result"].as_str().unwrap()).collect();
        assert!(results.ends_with(&["begun", "done"]), "{action}: {audit}");
        assert!(!audit.to_string().contains("canary"), "{audit}");
    }
    // Other words about it forget what was given.
    let oauth = Some(asking(|it| it.scopes = vec!["b".to_owned()]));
    let changed = talk.call(McpUpdate { oauth, ..change("web") }).await.unwrap().server;
    assert_eq!(changed.authorization, None);
}

#[tokio::test]
async fn what_cannot_be_authorized_is_said() {
    let fake = OauthFake::start().await;
    let (_app, ann) = app(&fake).await;
    let talk = ann.conversation().await;
    let asks = async |name: &str| {
        let error = refusal(talk.call(McpAuthorize { name: name.to_owned() }).await);
        let (code, reason) = code_of(&error);
        (code, reason.to_owned())
    };
    assert_eq!(asks("none").await.0, ErrorCode::NotFound);
    assert_eq!(asks("A").await.1, "invalid_name");
    let off = |name: &str, transport| McpCreate {
        name: name.to_owned(),
        transport,
        enabled: Some(false),
        ..new(&fake)
    };
    let program = McpTransport::Stdio { command: "a".into(), args: vec![], env: BTreeMap::new() };
    talk.call(off("program", program.clone())).await.unwrap();
    assert_eq!(asks("program").await.1, "not_on_the_web");
    talk.call(off("plain", web("http://mcp.example/"))).await.unwrap();
    assert_eq!(asks("plain").await.1, "invalid_url");
    let secret = BTreeMap::from([("Authorization".to_owned(), "Bearer x".to_owned())]);
    let keyed = McpCreate { secret_headers: Some(secret), ..off("keyed", new(&fake).transport) };
    talk.call(keyed).await.unwrap();
    assert_eq!(asks("keyed").await, (ErrorCode::Conflict, "authorization_set".to_owned()));
    let nobody = WebFake::start(|_| Some(webfake::status("404 Not Found", ""))).await;
    talk.call(off("blocked", web(&format!("http://{}/", nobody.address)))).await.unwrap();
    assert_eq!(asks("blocked").await.1, "authorization_failed");
    let oauth = Some(asking(|it| it.scopes = vec!["a b".to_owned()]));
    let bad = refusal(talk.call(McpCreate { oauth, ..off("bad", new(&fake).transport) }).await);
    assert_eq!(code_of(&bad), (ErrorCode::InvalidRequest, "invalid_oauth"));
    let oauth = Some(asking(|_| {}));
    let bad = refusal(talk.call(McpCreate { oauth, ..off("bad", program) }).await);
    assert_eq!(code_of(&bad), (ErrorCode::InvalidRequest, "invalid_oauth"));
}

#[tokio::test]
async fn m6_an_archive_brings_no_authorization_no_secret_and_no_program_that_runs() {
    let fake = OauthFake::start().await;
    let (app, ann) = app(&fake).await;
    let talk = ann.conversation().await;
    let mut room = talk.connect_to_project().await;
    authorized(&app, &talk, &mut room, &fake).await;
    let secret = BTreeMap::from([("x-key".to_owned(), "canary".to_owned())]);
    let keyed = McpCreate { name: "keyed".into(), secret_headers: Some(secret), ..new(&fake) };
    talk.call(keyed).await.unwrap();
    let command = "/bin/false".to_owned();
    let program = McpTransport::Stdio { command, args: vec![], env: BTreeMap::new() };
    talk.call(McpCreate { name: "program".into(), transport: program, ..new(&fake) })
        .await
        .unwrap();
    let export = talk.call(ProjectExport {}).await.unwrap().backup;
    let content = format!("/v1/projects/{}/backups/{}/content", talk.project, export.id);
    let nothing = Vec::new().into();
    let archive = ann.client.raw("GET", &content, Some(ann.token()), &[], nothing).await.unwrap();
    let bob = app.user("bob").await;
    let import = "/v1/projects/import?id=new";
    let made = bob.client.raw("POST", import, Some(bob.token()), &[], archive.body).await.unwrap();
    assert_eq!(made.status, 201, "{made:?}");
    let project: ProjectId = serde_json::from_value(made.json["data"]["id"].clone()).unwrap();
    let theirs = bob.conversation_in(&project).await;
    let servers = theirs.call(McpList {}).await.unwrap().servers;
    let seen: Vec<_> = servers
        .iter()
        .map(|it| (it.name.as_str(), it.enabled, it.authorization.is_some()))
        .collect();
    assert_eq!(seen, [("keyed", false, false), ("program", false, false), ("web", false, false)]);
    let mut room = theirs.connect_to_project().await;
    assert_eq!(status(&theirs, "program").await.state, McpState::Disabled);
    for name in ["web", "keyed"] {
        theirs.call(McpUpdate { enabled: Some(true), ..change(name) }).await.unwrap();
    }
    status(&theirs, "web").await;
    until(&mut room, "web", McpState::NeedsAuth).await;
    status(&theirs, "keyed").await;
    let reason = until(&mut room, "keyed", McpState::Failed).await.unwrap();
    assert!(reason.contains("set them anew"), "{reason}");
    // Somebody who may have no programs run starts none.
    let on = McpUpdate { enabled: Some(true), ..change("program") };
    let refused = refusal(bob.client.call(Some(&project), on).await);
    assert_eq!(code_of(&refused), (ErrorCode::Forbidden, "no_code"));
}

#[tokio::test]
async fn m6_who_may_have_no_programs_run_starts_none_by_looking() {
    let fake = OauthFake::start().await;
    let (app, ann) = app(&fake).await;
    let eve = app.user("eve").await;
    let talk = ann.conversation().await;
    ann.add_member(&talk.project, &eve, Role::Viewer).await;
    let command = "/bin/false".to_owned();
    let transport = McpTransport::Stdio { command, args: vec![], env: BTreeMap::new() };
    let program = McpCreate { name: "program".into(), transport, ..new(&fake) };
    talk.call(program).await.unwrap();
    let app = app.restart().await;
    let eve = app.again(&eve);
    let ann = app.again(&ann);
    let path = format!("/v1/projects/{}/mcp/program/status", talk.project);
    let seen = eve.get(&path).await;
    assert_eq!(seen.json["data"]["state"], "connecting", "{seen:?}");
    assert_eq!(seen.json["data"]["since"], 0, "nobody has tried");
    let mut room = talk.resume(ann.clone()).await.connect_to_project().await;
    ann.get(&path).await;
    until(&mut room, "program", McpState::Failed).await;
}
