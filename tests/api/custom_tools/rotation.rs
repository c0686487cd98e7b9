//! The master key changes while the server goes on, whatever happens meanwhile.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use iris_auth::{ChangingKey, SealingKeys};
use iris_protocol::ErrorCode;
use iris_store::CrashPoint;
use iris_testkit::{PASSWORD, ServerProcess, moment, patiently, spawn_app_in};
use serde_json::json;

use super::*;
use crate::{ann as register, code_of, iris, rest_refusal, root};

const SECRET: &str = "Bearer canary-0f1e2d3c4b5a";
/// How long the old key stays in these tests, once nothing needs it.
const SETTLES: Duration = Duration::from_millis(50);

fn keyed(url: &str) -> Value {
    let mut body = weather(url);
    body["http"]["secretHeaders"] = json!({ "X-Key": SECRET });
    body
}

fn options(site: &Site) -> AppOptions {
    let egress_allow = vec![site.address.to_string().parse().unwrap()];
    AppOptions { egress_allow, key_settles: SETTLES, ..AppOptions::default() }
}

/// The secrets of a project: of a tool that is used, and of an MCP server that is not reached.
async fn secrets(person: &Person, site: &Site) -> (ProjectId, ToolId) {
    let project = person.project("p").await.id;
    let id = define(person, &project, keyed(&site.url("/"))).await;
    let server = json!({ "name": "web", "enabled": false, "secretHeaders": { "x-key": SECRET },
                         "transport": { "type": "http", "url": site.url("/mcp") } });
    let made = person.post(&format!("/v1/projects/{project}/mcp"), server).await;
    assert_eq!(made.status, 201, "{made:?}");
    (project, id)
}

/// The tool sends its secret.
async fn works(person: &Person, site: &Site, (project, id): &(ProjectId, ToolId)) {
    let tested = test(person, project, id, json!({ "place": "x" })).await;
    assert_eq!(tested.status, 200, "{tested:?}");
    assert_eq!(site.seen().last().unwrap().headers["x-key"], SECRET);
}

async fn rotate(person: &Person) -> Value {
    let rotated = person.post("/v1/admin/keys/rotate", json!({})).await;
    assert_eq!(rotated.status, 200, "{rotated:?}");
    rotated.json["data"].clone()
}

fn previous(data_dir: &Path) -> PathBuf {
    data_dir.join("master.key.previous")
}

async fn old_key_is_gone(data_dir: &Path) {
    let gone = async {
        while previous(data_dir).exists() {
            moment().await;
        }
    };
    patiently("the end of the old key", gone).await;
}

/// The forms and ids of the keys that sealed what the databases hold: `s2.<id>`, wherever it stands in the files.
fn sealed_by(data_dir: &Path) -> Vec<String> {
    let mut ids = Vec::new();
    let mut directories = vec![data_dir.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "db") {
                let database = rusqlite::Connection::open(&path).unwrap();
                ids.extend(ids_in(&database));
            }
        }
    }
    ids
}

fn ids_in(database: &rusqlite::Connection) -> Vec<String> {
    let mut ids = Vec::new();
    for sql in [
        "SELECT sealed FROM provider_credentials",
        "SELECT secrets FROM tools WHERE secrets <> '{}'",
        "SELECT secrets FROM mcp_servers WHERE secrets IS NOT NULL",
    ] {
        // Each database has some of these tables.
        let Ok(mut statement) = database.prepare(sql) else { continue };
        let texts = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        let head = |text: &str| {
            let at = ["s1.", "s2."].iter().find_map(|form| text.find(form)).unwrap();
            text[at..at + "s2.01234567".len()].to_owned()
        };
        ids.extend(texts.map(|text| head(&text.unwrap())));
    }
    ids
}

#[tokio::test]
async fn everything_is_sealed_anew_while_the_server_goes_on_and_the_old_key_goes() {
    let site = Site::start().await;
    let mut options = options(&site);
    options.providers.insert("other".to_owned(), iris_llm_provider(&site));
    let app = spawn_app_with(options).await;
    let admin = app.admin().await;
    let secrets = secrets(&admin, &site).await;
    let key = json!({ "providerId": "other", "apiKey": "sk-0123456789" });
    for path in ["/v1/credentials", "/v1/admin/credentials"] {
        assert_eq!(admin.post(path, key.clone()).await.status, 201);
    }
    let data_dir = app.data_dir().to_owned();
    let first = fs::read(data_dir.join("master.key")).unwrap();
    let before = sealed_by(&data_dir);
    assert_eq!(before.len(), 4, "{before:?}");

    let rotated = rotate(&admin).await;
    assert_eq!(rotated, json!({ "isNew": true, "sealed": 4, "projectsLeft": 0 }));
    assert_ne!(fs::read(data_dir.join("master.key")).unwrap(), first);
    works(&admin, &site, &secrets).await;
    old_key_is_gone(&data_dir).await;
    works(&admin, &site, &secrets).await;
    let after = sealed_by(&data_dir);
    assert!(after.len() == 4 && after.iter().all(|id| !before.contains(id)), "{after:?}");
    // What is not changed by a rotation, changed by the next one.
    assert_eq!(rotate(&admin).await["isNew"], json!(true));

    let audit = admin.get("/v1/admin/audit?action=keys.rotate").await.json;
    let records = audit["data"].as_array().unwrap();
    assert_eq!(records.len(), 4, "what was asked for and what came of it, twice: {audit}");
    assert_eq!(records[2]["details"]["sealed"], json!(4), "{audit}");
    let app = app.restart().await;
    works(&app.again(&admin), &site, &secrets).await;
}

/// Seals a secret again as servers did that knew no envelopes.
fn seal_as_before(database: &Path, [select, update]: [&str; 2], owner: &[&str]) {
    let data_dir = database.ancestors().find(|path| path.join("master.key").exists()).unwrap();
    let (key, _) = ChangingKey::new(data_dir.join("master.key")).read().unwrap();
    let keys = SealingKeys::new(&key, None).unwrap();
    let database = rusqlite::Connection::open(database).unwrap();
    let sealed: String = database.query_row(select, [], |row| row.get(0)).unwrap();
    let opened = keys.open(&sealed, owner).unwrap();
    let before = keys.seal_as_before(&opened, owner).unwrap();
    assert_eq!(database.execute(update, [before]).unwrap(), 1);
}

#[tokio::test]
async fn what_was_sealed_before_there_were_envelopes_opens_and_becomes_one_by_a_rotation() {
    let site = Site::start().await;
    let mut options = options(&site);
    options.providers.insert("other".to_owned(), iris_llm_provider(&site));
    let app = spawn_app_with(options).await;
    let admin = app.admin().await;
    let secrets = secrets(&admin, &site).await;
    let key = json!({ "providerId": "other", "apiKey": "sk-0123456789" });
    for path in ["/v1/credentials", "/v1/admin/credentials"] {
        assert_eq!(admin.post(path, key.clone()).await.status, 201);
    }
    let data_dir = app.data_dir().to_owned();
    let (project, tool) = &secrets;
    let origin = site.url("/");
    let sealed_before = || {
        let statements = [
            "SELECT sealed FROM provider_credentials WHERE user_id IS NULL",
            "UPDATE provider_credentials SET sealed = ?1 WHERE user_id IS NULL",
        ];
        let root = data_dir.join("root.db");
        seal_as_before(&root, statements, &["provider", "server", "", "other"]);
        let statements = [
            "SELECT secrets ->> '$.x-key' FROM tools",
            "UPDATE tools SET secrets = json_object('x-key', ?1)",
        ];
        let database = data_dir.join("projects").join(project.as_str()).join("project.db");
        let owner = [project.as_str(), tool.as_str(), "x-key", origin.strip_suffix('/').unwrap()];
        seal_as_before(&database, statements, &owner);
        let forms = sealed_by(&data_dir).iter().filter(|text| text.starts_with("s1.")).count();
        assert_eq!(forms, 2);
    };
    let app = app.restart_after(sealed_before).await;
    let admin = app.again(&admin);
    works(&admin, &site, &secrets).await;
    let before = sealed_by(&data_dir);
    let old = before.iter().filter(|text| text.starts_with("s1.")).count();
    assert_eq!(old, 1, "keys for providers became envelopes at the start: {before:?}");

    let rotated = rotate(&admin).await;
    assert_eq!(rotated, json!({ "isNew": true, "sealed": 4, "projectsLeft": 0 }));
    works(&admin, &site, &secrets).await;
    old_key_is_gone(&data_dir).await;
    let after = sealed_by(&data_dir);
    assert!(after.len() == 4 && after.iter().all(|text| text.starts_with("s2.")), "{after:?}");
    assert!(after.iter().all(|text| !before.contains(text)), "{before:?} {after:?}");
    let app = app.restart().await;
    works(&app.again(&admin), &site, &secrets).await;
}

/// A provider that takes keys.
fn iris_llm_provider(site: &Site) -> iris_llm::ProviderConfig {
    iris_llm::ProviderConfig {
        base_url: Some(site.url("/v1")),
        ..iris_llm::ProviderConfig::new(iris_llm::ProviderKind::OpenAiCompatible)
    }
}

#[tokio::test]
async fn what_is_written_while_the_key_changes_opens_afterwards() {
    let site = Site::start().await;
    let app = spawn_app_with(options(&site)).await;
    let admin = app.admin().await;
    let secrets = secrets(&admin, &site).await;
    let (project, id) = &secrets;
    for round in 0..8 {
        let http = json!({ "http": { "method": "GET", "url": site.url("/"),
                                     "secretHeaders": { "x-key": SECRET } } });
        let writes = async {
            for _ in 0..4 {
                let changed = change(&admin, project, id, http.clone()).await;
                // Somebody else sealed it anew between the look and the change.
                assert!([200, 409].contains(&changed.status), "{round}: {changed:?}");
                works(&admin, &site, &secrets).await;
            }
        };
        tokio::join!(rotate(&admin), writes);
    }
    old_key_is_gone(app.data_dir()).await;
    let app = app.restart().await;
    works(&app.again(&admin), &site, &secrets).await;
}

/// The two places where the change of the files can be cut off, and where the sealing can.
#[tokio::test]
async fn a_change_that_was_cut_off_anywhere_goes_on_at_the_next_start() {
    let site = Site::start().await;
    let app = spawn_app_with(options(&site)).await;
    let admin = app.admin().await;
    let secrets = secrets(&admin, &site).await;
    let data_dir = app.data_dir().to_owned();
    let key = data_dir.join("master.key");

    // The old one stands beside itself, and the new one is not there yet.
    let copied = || assert!(fs::copy(&key, previous(&data_dir)).unwrap() > 0);
    let app = app.restart_after(copied).await;
    works(&app.again(&admin), &site, &secrets).await;
    let before = fs::read(&key).unwrap();
    old_key_is_gone(&data_dir).await;
    assert_eq!(fs::read(&key).unwrap(), before);

    // The new one is there, and nothing is sealed with it.
    let changed = || drop(ChangingKey::new(key.clone()).change().unwrap());
    let app = app.restart_after(changed).await;
    let admin = app.again(&admin);
    works(&admin, &site, &secrets).await;
    old_key_is_gone(&data_dir).await;
    works(&admin, &site, &secrets).await;
    let app = app.restart().await;
    works(&app.again(&admin), &site, &secrets).await;
}

/// The process ends between two steps: each secret opens with one of the two keys, and the same command goes on.
#[tokio::test]
async fn killed_between_two_steps_of_a_change_the_server_loses_no_secret() {
    let site = Site::start().await;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let serve = |point: Option<CrashPoint>| {
        let mut command = iris(&data);
        command.env("IRIS_EGRESS_ALLOW", site.address.to_string());
        if let Some(point) = point {
            command.env("IRIS_CRASH_AT", point.as_str());
        }
        command
    };
    let server = ServerProcess::start(serve(None)).await;
    let admin = root(&server).await;
    let secrets = secrets(&admin, &site).await;
    server.kill();
    for point in [CrashPoint::KeyChanged, CrashPoint::CredentialsSealed] {
        let key = fs::read(data.join("master.key")).unwrap();
        let server = ServerProcess::start(serve(Some(point))).await;
        let doomed = Person::new(&server.client(), admin.grant.clone());
        // The answer does not come.
        drop(doomed.client.rotate_keys().await);
        assert!(!server.exited().await.success(), "the server did not come to {point:?}");
        assert_eq!(fs::read(previous(&data)).unwrap(), key);
        assert_ne!(fs::read(data.join("master.key")).unwrap(), key);

        let server = ServerProcess::start(serve(None)).await;
        let again = Person::new(&server.client(), admin.grant.clone());
        works(&again, &site, &secrets).await;
        let rotated = rotate(&again).await;
        assert_eq!(rotated, json!({ "isNew": false, "sealed": 2, "projectsLeft": 0 }));
        server.kill();
        // As if it had been finished.
        fs::remove_file(previous(&data)).unwrap();
        let server = ServerProcess::start(serve(None)).await;
        works(&Person::new(&server.client(), admin.grant.clone()), &site, &secrets).await;
        server.kill();
    }
}

#[tokio::test]
async fn a_project_that_cannot_be_opened_keeps_the_old_key_until_it_can() {
    let site = Site::start().await;
    let app = spawn_app_with(options(&site)).await;
    let admin = app.admin().await;
    let secrets = secrets(&admin, &site).await;
    let data_dir = app.data_dir().to_owned();
    let database = data_dir.join("projects").join(secrets.0.as_str()).join("project.db");
    let whole = data_dir.join("whole.db.kept");
    let damaged = || {
        fs::copy(&database, &whole).unwrap();
        fs::write(&database, [7; 8192]).unwrap();
    };
    let app = app.restart_after(damaged).await;
    let admin = app.again(&admin);
    let rotated = rotate(&admin).await;
    assert_eq!(rotated, json!({ "isNew": true, "sealed": 0, "projectsLeft": 1 }));
    let again = rotate(&admin).await;
    assert_eq!(again, json!({ "isNew": false, "sealed": 0, "projectsLeft": 1 }));
    assert!(previous(&data_dir).exists());
    fs::rename(&whole, &database).unwrap();
    old_key_is_gone(&data_dir).await;
    works(&admin, &site, &secrets).await;
}

async fn keys(data_dir: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iris"));
    command.env_clear().arg("keys").args(args);
    if args[0] == "rotate-offline" {
        command.arg("--data-dir").arg(data_dir);
    } else if !args.contains(&"--token") {
        command.env("IRIS_PASSWORD", PASSWORD).args(["--email", "root@example.com"]);
    }
    ServerProcess::ended(command).await
}

#[tokio::test]
async fn the_command_changes_the_key_of_a_server_that_runs_or_does_not_and_a_kill_loses_nothing() {
    let site = Site::start().await;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let serve = || {
        let mut command = iris(&data);
        command.env("IRIS_EGRESS_ALLOW", site.address.to_string());
        command
    };
    let server = ServerProcess::start(serve()).await;
    let operator = root(&server).await;
    let ann = register(&server).await;
    let secrets = secrets(&ann, &site).await;
    let (code, said, why) = keys(&data, &["rotate", "--json", "--url", &server.url]).await;
    assert_eq!(code, Some(0), "{why}");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said, json!({ "isNew": true, "sealed": 2, "projectsLeft": 0 }));
    let key = json!({ "name": "of the operator", "scopes": ["admin:write"] });
    let key = operator.post("/v1/api-keys", key).await.json["data"]["key"].take();
    let with_key = ["rotate", "--url", &server.url, "--token", key.as_str().unwrap()];
    let (code, said, why) = keys(&data, &with_key).await;
    assert_eq!(code, Some(0), "{why}");
    assert!(said.starts_with("sealed 0 secrets with the master key of a change before"), "{said}");
    let (code, _, why) = keys(&data, &["rotate-offline"]).await;
    assert_eq!(code, Some(75), "{why}");

    server.kill();
    let (code, _, why) = keys(&data, &["rotate-offline"]).await;
    assert!(
        code == Some(1) && why.contains("start the server, which finishes the change"),
        "{why}"
    );
    // As if it had been finished.
    fs::remove_file(previous(&data)).unwrap();
    let (code, said, why) = keys(&data, &["rotate-offline"]).await;
    assert_eq!(code, Some(0), "{why}");
    assert!(said.contains("master.key.previous"), "{said}");
    for _ in 0..2 {
        let server = ServerProcess::start(serve()).await;
        works(&Person::new(&server.client(), ann.grant.clone()), &site, &secrets).await;
        server.kill();
    }
    // The place where the server keeps the old key is no setting: the file goes by itself.
    for _ in 0..2 {
        let mut command = serve();
        command.env("IRIS_MASTER_KEY_PREVIOUS_FILE", previous(&data));
        let server = ServerProcess::start(command).await;
        let ann = Person::new(&server.client(), ann.grant.clone());
        works(&ann, &site, &secrets).await;
        let rotated = rotate(&Person::new(&server.client(), operator.grant.clone())).await;
        assert_eq!(rotated["projectsLeft"], json!(0));
        server.kill();
        fs::remove_file(previous(&data)).unwrap();
    }
}

#[tokio::test]
async fn a_key_that_something_else_keeps_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let kept = tempfile::tempdir().unwrap();
    let key = kept.path().join("key");
    fs::write(&key, [7; 32]).unwrap();
    std::os::unix::fs::symlink(&key, dir.path().join("master.key")).unwrap();
    let app = spawn_app_in(AppOptions::default(), dir).await;
    let admin = app.admin().await;
    let refused = rest_refusal(&admin.post("/v1/admin/keys/rotate", json!({})).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "key_kept_elsewhere"));
    assert!(refused.message.contains("IRIS_MASTER_KEY_PREVIOUS_FILE"), "{refused}");
    assert_eq!(fs::read(&key).unwrap(), [7; 32]);
    assert!(!previous(app.data_dir()).exists());
    // Whoever put another one there has not started the server since.
    fs::remove_file(app.data_dir().join("master.key")).unwrap();
    fs::write(app.data_dir().join("master.key"), [8; 32]).unwrap();
    let refused = rest_refusal(&admin.post("/v1/admin/keys/rotate", json!({})).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "key_replaced"));
    assert!(!previous(app.data_dir()).exists());
}
