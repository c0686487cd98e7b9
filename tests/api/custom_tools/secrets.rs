//! Secret headers: written once, sent to one server, seen nowhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use iris_protocol::{ErrorCode, ProjectExport, ToolState};
use iris_testkit::{ServerProcess, patiently, spawn_app};
use serde_json::json;

use super::*;
use crate::{ann as register, code_of, iris, rest_refusal};

const SECRET: &str = "Bearer canary-0f1e2d3c4b5a";
/// What must not be found anywhere.
const CANARY: &str = "canary-0f1e2d3c4b5a";

fn keyed(url: &str) -> Value {
    let mut body = weather(url);
    body["http"]["secretHeaders"] = json!({ "X-Key": SECRET });
    body
}

/// All files below a directory that hold a text.
fn holding(directory: &Path, text: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            holding(&path, text, found);
        } else if let Ok(bytes) = fs::read(&path)
            && bytes.windows(text.len()).any(|window| window == text.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
}

#[tokio::test]
async fn a_secret_is_in_no_answer_no_event_no_log_line_and_no_file() {
    let site = Site::start().await;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let log = dir.path().join("stderr");
    let mut command = iris(&data);
    command.env("IRIS_EGRESS_ALLOW", site.address.to_string()).env("IRIS_LOG", "trace");
    let server = ServerProcess::start_logging(command, &log).await;
    let ann = register(&server).await;
    let mut talk = ann.conversation().await;
    let mut wire = ann.wire().await;
    let rooms = json!([format!("project:{}", talk.project), format!("session:{}", talk.session)]);
    wire.ask("s", "subscribe", Some(talk.project.as_str()), json!({ "rooms": rooms })).await;
    let mut said = wire.response("s").await.to_string();

    let made = ann.post(&path(&talk.project), keyed(&site.url("/{{place}}"))).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.json["data"]["http"]["secretHeaders"], json!(["x-key"]));
    let id: ToolId = serde_json::from_value(made.json["data"]["id"].clone()).unwrap();
    said += &made.json.to_string();
    // Not where the redirect leads.
    let rule = json!({ "permission": "weather", "pattern": "127.0.0.1", "action": "allow" });
    ann.post(&format!("/v1/projects/{}/permissions", talk.project), rule).await;
    for place in ["echo", "leak", "fine"] {
        let call = outcome(&mut talk, &calls("weather", &json!({ "place": place }))).await;
        said += &serde_json::to_string(&call).unwrap();
        let told = call.output.or(call.error).unwrap();
        let hides = told.contains("[secret]");
        assert_eq!(hides, place != "fine", "{place}: {told}");
        said += &test(&ann, &talk.project, &id, json!({ "place": place })).await.json.to_string();
    }
    let again = json!({ "http": { "method": "GET", "url": site.url("/x"),
                                  "secretHeaders": { "x-key": SECRET, "x-bad": format!("{SECRET}\n") } } });
    said += &change(&ann, &talk.project, &id, again).await.json.to_string();
    // Over the socket too, with arguments that are refused.
    let mut bad = keyed("no url");
    bad["name"] = json!("bad");
    wire.ask("c", "tool.create", Some(talk.project.as_str()), bad).await;
    loop {
        let frame = patiently("a frame", wire.next_json()).await;
        said += &frame.to_string();
        if frame["id"] == "c" {
            break;
        }
    }
    said += &ann.get(&path(&talk.project)).await.json.to_string();
    said += &ann
        .post(&format!("/v1/projects/{}/backup", talk.project), json!({}))
        .await
        .json
        .to_string();
    assert!(said.contains("tool.updated"), "the events are among it");
    assert!(!said.contains(CANARY), "{said}");
    assert_eq!(site.seen()[0].headers["x-key"], SECRET);
    server.terminate().await;

    let mut found = Vec::new();
    holding(dir.path(), CANARY, &mut found);
    assert_eq!(found, Vec::<String>::new());
    assert!(fs::metadata(&log).unwrap().len() > 0);
    let key = fs::metadata(data.join("master.key")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_secret_stays_until_it_is_written_again_and_goes_to_one_server_alone() {
    let (app, site) = app_and_site().await;
    let ann = app.user("ann").await;
    let mut talk = ann.conversation().await;
    let id = define(&ann, &talk.project, keyed(&site.url("/a"))).await;
    allow(&ann, &talk.project, "weather").await;
    let key = async |talk: &mut Conversation| {
        let call = outcome(talk, &calls("weather", &json!({ "place": "x" }))).await;
        assert_eq!(call.state, ToolState::Completed, "{call:?}");
        site.seen().last().unwrap().headers.get("x-key").cloned()
    };
    let http = |rest: &str, secrets: Value| json!({ "http": { "method": "GET", "url": site.url(rest), "secretHeaders": secrets } });
    // The same server: what is not named stays.
    assert!(change(&ann, &talk.project, &id, http("/b", json!({}))).await.is_success());
    assert_eq!(key(&mut talk).await.as_deref(), Some(SECRET));
    let other = "Bearer another-one";
    assert!(
        change(&ann, &talk.project, &id, http("/b", json!({ "x-KEY": other }))).await.is_success()
    );
    assert_eq!(key(&mut talk).await.as_deref(), Some(other));
    // Another one: whoever leads it there has to know it, or take it away.
    let moved = |secrets: Value| json!({ "http": { "method": "GET", "url": "https://evil.example/", "secretHeaders": secrets } });
    let refused = rest_refusal(&change(&ann, &talk.project, &id, moved(json!({}))).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "secret_needed"));
    assert_eq!(key(&mut talk).await.as_deref(), Some(other));
    let dropped = change(&ann, &talk.project, &id, moved(json!({ "x-key": null }))).await;
    assert_eq!(dropped.status, 200, "{dropped:?}");
    assert!(dropped.json["data"]["http"]["secretHeaders"].is_null(), "{dropped:?}");
    assert!(change(&ann, &talk.project, &id, http("/b", json!({}))).await.is_success());
    assert_eq!(key(&mut talk).await, None);
}

#[tokio::test]
async fn with_another_master_key_a_secret_has_to_be_set_again() {
    let (app, site) = app_and_site().await;
    let ann = app.user("ann").await;
    let talk = ann.conversation().await;
    let id = define(&ann, &talk.project, keyed(&site.url("/"))).await;
    allow(&ann, &talk.project, "weather").await;
    fs::remove_file(app.data_dir().join("master.key")).unwrap();
    let app = app.restart().await;
    let ann = app.again(&ann);
    let mut talk = talk.resume(ann.clone()).await;
    let tool = listed(&ann, &talk.project, "weather").await.unwrap();
    let problem = tool["problem"].as_str().unwrap();
    assert!(problem.starts_with("the secret header `x-key` must be set again"), "{problem}");
    let call = outcome(&mut talk, &calls("weather", &json!({ "place": "x" }))).await;
    assert_eq!((call.state, call.error.as_deref()), (ToolState::Error, Some(problem)));
    let tested = rest_refusal(&test(&ann, &talk.project, &id, json!({ "place": "x" })).await);
    assert_eq!(code_of(&tested), (ErrorCode::Conflict, "tool_unavailable"));
    assert!(site.seen().is_empty());
    let again = keyed(&site.url("/"))["http"].clone();
    assert!(change(&ann, &talk.project, &id, json!({ "http": again })).await.is_success());
    let call = outcome(&mut talk, &calls("weather", &json!({ "place": "x" }))).await;
    assert_eq!(call.state, ToolState::Completed, "{call:?}");
    assert_eq!(site.seen()[0].headers["x-key"], SECRET);
}

#[tokio::test]
async fn the_master_key_is_changed_without_losing_a_secret() {
    let site = Site::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (data, old) = (dir.path().join("data"), dir.path().join("old.key"));
    let serve = |previous: Option<&Path>| {
        let mut command = iris(&data);
        command.env("IRIS_EGRESS_ALLOW", site.address.to_string());
        if let Some(previous) = previous {
            command.env("IRIS_MASTER_KEY_PREVIOUS_FILE", previous);
        }
        command
    };
    let server = ServerProcess::start(serve(None)).await;
    let ann = register(&server).await;
    let project = ann.project("p").await.id;
    let id = define(&ann, &project, keyed(&site.url("/"))).await;
    server.terminate().await;
    let (code, text) = ServerProcess::refused(serve(Some(&old))).await;
    assert!(code != Some(0) && text.contains("old.key"), "{text}");

    fs::rename(data.join("master.key"), &old).unwrap();
    let works = async |server: &ServerProcess| {
        let ann = Person::new(&server.client(), ann.grant.clone());
        let tested = test(&ann, &project, &id, json!({ "place": "x" })).await;
        assert_eq!(tested.status, 200, "{tested:?}");
        assert_eq!(site.seen().last().unwrap().headers["x-key"], SECRET);
        ann
    };
    let server = ServerProcess::start(serve(Some(&old))).await;
    let again = works(&server).await;
    // It names no secret, and seals them all the same.
    let changed = change(&again, &project, &id, json!({ "description": "New." })).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    server.terminate().await;
    let server = ServerProcess::start(serve(None)).await;
    works(&server).await;
    server.terminate().await;
}

#[tokio::test]
async fn an_archive_takes_tools_along_and_no_secrets() {
    let (here, site) = app_and_site().await;
    let ann = here.user("ann").await;
    let project = ann.project("p").await.id;
    define(&ann, &project, keyed(&site.url("/"))).await;
    let export = ann.client.call(Some(&project), ProjectExport {}).await.unwrap().backup;
    let content = format!("/v1/projects/{project}/backups/{}/content", export.id);
    let nothing = Vec::new().into();
    let archive = ann.client.raw("GET", &content, Some(ann.token()), &[], nothing).await.unwrap();
    let there = spawn_app().await;
    let bob = there.user("bob").await;
    for (person, problem) in
        [(&ann, "`x-key` must be set again"), (&bob, "`x-key` must be set again")]
    {
        let body = archive.body.clone();
        let token = Some(person.token());
        let made = person
            .client
            .raw("POST", "/v1/projects/import?id=new", token, &[], body)
            .await
            .unwrap();
        assert_eq!(made.status, 201, "{made:?}");
        let new: ProjectId = serde_json::from_value(made.json["data"]["id"].clone()).unwrap();
        let tool = listed(person, &new, "weather").await.unwrap();
        assert_eq!(tool["http"]["secretHeaders"], json!(["x-key"]));
        assert!(tool["problem"].as_str().unwrap().contains(problem), "{tool}");
    }
    // A backup that is put back on its own server keeps them.
    let backup = ann.post(&format!("/v1/projects/{project}/backup"), json!({})).await;
    let id = &backup.json["data"]["id"];
    let restored =
        ann.post(&format!("/v1/projects/{project}/restore"), json!({ "backupId": id })).await;
    assert_eq!(restored.status, 200, "{restored:?}");
    assert_eq!(listed(&ann, &project, "weather").await.unwrap()["problem"], Value::Null);
}
