//! Keys with which model providers are asked: whose is used, who sets them, and that nobody reads them.

use std::fs;
use std::path::Path;

use iris_protocol::{ErrorCode, Message, Role, RunStatus};
use iris_testkit::{
    AppOptions, Conversation, FakeProvider, Person, Reply, ServerProcess, chat, spawn_app_with,
};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::{ann, code_of, iris_with, rest_refusal, root};

const OWN: &str = "sk-own-0123456789-ANNA";
const OF_PROJECT: &str = "sk-project-0123456789-PROJ";
const OF_SERVER: &str = "sk-server-0123456789-SERV";

async fn set(person: &Person, path: &str, key: &str) -> Value {
    let set = person.post(path, json!({ "providerId": "fake", "apiKey": key })).await;
    assert_eq!(set.status, 201, "{set:?}");
    set.json["data"].clone()
}

async fn unset(person: &Person, path: &str, credential: &Value) {
    let place = format!("{path}/{}", credential["id"].as_str().unwrap());
    assert_eq!(person.rest("DELETE", &place, None).await.status, 200);
}

/// The key that the provider was asked with last.
fn key_of(provider: &FakeProvider) -> Option<String> {
    let asked = provider.asked();
    let head = &asked.last().unwrap().head;
    let header = head.lines().find_map(|line| line.strip_prefix("authorization: Bearer "));
    header.map(str::to_owned)
}

/// Whether any file of the server holds a text.
fn is_on_disk(directory: &Path, text: &str) -> bool {
    fs::read_dir(directory).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return is_on_disk(&path, text);
        }
        let bytes = fs::read(&path).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

async fn failed(talk: &mut Conversation) -> Message {
    let run = talk.send_message("go").await.run_id;
    assert_eq!(talk.run_ended(&run).await, RunStatus::Failed);
    talk.answer(&run).await
}

#[tokio::test]
async fn the_key_that_is_nearest_to_who_asks_is_used_and_nobody_reads_it() {
    let provider = FakeProvider::start((0..9).map(|_| chat::says("yes"))).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let operator = app.admin().await;
    let mut ann = app.user("ann").await.conversation().await;
    let bob = app.user("bob").await;
    ann.person.add_member(&ann.project, &bob, Role::Member).await;
    let mut bob = bob.conversation_in(&ann.project).await;
    let own = "/v1/credentials";
    let of_project = format!("/v1/projects/{}/credentials", ann.project);
    let of_server = "/v1/admin/credentials";

    ann.ask("none").await;
    assert_eq!(key_of(&provider), None);
    let server = set(&operator, of_server, OF_SERVER).await;
    ann.ask("the server's").await;
    assert_eq!(key_of(&provider).as_deref(), Some(OF_SERVER));
    let project = set(&ann.person, &of_project, OF_PROJECT).await;
    ann.ask("the project's").await;
    assert_eq!(key_of(&provider).as_deref(), Some(OF_PROJECT));
    set(&ann.person, own, "sk-mistyped").await;
    // In place of the one before.
    let anns = set(&ann.person, own, OWN).await;
    ann.ask("her own").await;
    assert_eq!(key_of(&provider).as_deref(), Some(OWN));
    bob.ask("he has none").await;
    assert_eq!(key_of(&provider).as_deref(), Some(OF_PROJECT));

    let listed = ann.person.get(own).await;
    assert_eq!(listed.json["data"], json!([anns]));
    assert_eq!((&anns["providerId"], &anns["hint"]), (&json!("fake"), &json!("ANNA")));
    assert_eq!(ann.person.get(&of_project).await.json["data"], json!([project]));
    assert_eq!(operator.get(of_server).await.json["data"], json!([server]));
    let data = ann.person.get("/v1/me/export").await;
    assert_eq!(data.json["data"]["credentials"], json!([anns]));
    let audit = operator.get("/v1/admin/audit").await.json;
    for action in ["credential.create", "project.credential.create", "admin.credential.create"] {
        assert!(audit.to_string().contains(action), "{audit}");
    }
    for key in [OWN, OF_PROJECT, OF_SERVER] {
        assert!(!is_on_disk(app.data_dir(), key), "{key} can be read on the disk");
        assert!(!audit.to_string().contains(key));
    }

    // Nobody else's, whatever its id.
    let place = format!("{own}/{}", anns["id"].as_str().unwrap());
    let refused = bob.person.rest("DELETE", &place, None).await;
    assert_eq!(rest_refusal(&refused).code, ErrorCode::NotFound);
    unset(&ann.person, own, &anns).await;
    ann.ask("the project's again").await;
    assert_eq!(key_of(&provider).as_deref(), Some(OF_PROJECT));
    unset(&ann.person, &of_project, &project).await;
    unset(&operator, of_server, &server).await;
    ann.ask("none again").await;
    assert_eq!(key_of(&provider), None);
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_and_one_that_the_provider_repeats_is_not_shown() {
    let says_it = json!({ "error": { "message": format!("no such key: {OWN}") } }).to_string();
    let replies = [Reply::status(400, &says_it).header("content-type", "application/json")];
    let provider = FakeProvider::start(replies).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let mut ann = app.user("ann").await.conversation().await;
    let long = "x".repeat(4097);
    let wrong = [
        ("none", "k", "unknown_provider"),
        // It plays scripts.
        ("demo", "k", "unknown_provider"),
        ("fake", "", "invalid_api_key"),
        ("fake", "two words", "invalid_api_key"),
        ("fake", "a\nb", "invalid_api_key"),
        ("fake", "schl\u{fc}ssel", "invalid_api_key"),
        ("fake", long.as_str(), "invalid_api_key"),
    ];
    for (provider, key, reason) in wrong {
        let body = json!({ "providerId": provider, "apiKey": key });
        let refused = rest_refusal(&ann.person.post("/v1/credentials", body).await);
        assert_eq!(code_of(&refused), (ErrorCode::InvalidRequest, reason), "{key:?}");
        assert!(key.len() < 2 || !refused.to_string().contains(key));
    }
    assert_eq!(ann.person.get("/v1/credentials").await.json["data"], json!([]));

    set(&ann.person, "/v1/credentials", OWN).await;
    let answer = failed(&mut ann).await;
    let told = serde_json::to_string(&answer).unwrap();
    assert!(told.contains("no such key: [redacted]") && !told.contains(OWN), "{told}");
}

#[tokio::test]
async fn keys_outlive_the_server_and_a_change_of_the_master_key_but_not_its_loss() {
    let provider = FakeProvider::start((0..3).map(|_| chat::says("yes"))).await;
    let dir = tempdir().unwrap();
    let (data, old) = (dir.path().join("data"), dir.path().join("old.key"));
    let server = ServerProcess::start(iris_with(&data, &provider)).await;
    root(&server).await;
    let mut talk = ann(&server).await.conversation().await;
    set(&talk.person, "/v1/credentials", OWN).await;
    server.kill();
    let back = async |server: &ServerProcess, talk: &Conversation| {
        talk.resume(Person::new(&server.client(), talk.person.grant.clone())).await
    };

    let server = ServerProcess::start(iris_with(&data, &provider)).await;
    talk = back(&server, &talk).await;
    talk.ask("after a kill").await;
    assert_eq!(key_of(&provider).as_deref(), Some(OWN));
    server.terminate().await;

    // Once with both keys is enough.
    fs::rename(data.join("master.key"), &old).unwrap();
    let mut both = iris_with(&data, &provider);
    both.env("IRIS_MASTER_KEY_PREVIOUS_FILE", &old);
    ServerProcess::start(both).await.terminate().await;
    let server = ServerProcess::start(iris_with(&data, &provider)).await;
    talk = back(&server, &talk).await;
    talk.ask("with the new key").await;
    assert_eq!(key_of(&provider).as_deref(), Some(OWN));
    server.terminate().await;

    // Without the key nobody else pays for it.
    fs::remove_file(data.join("master.key")).unwrap();
    let mut lost = iris_with(&data, &provider);
    lost.env("IRIS_PROVIDERS__FAKE__API_KEY", "sk-of-the-operator");
    let server = ServerProcess::start(lost).await;
    talk = back(&server, &talk).await;
    let error = failed(&mut talk).await.error.unwrap();
    assert_eq!(code_of(&error), (ErrorCode::ModelUnavailable, "credential_unreadable"));
    assert_eq!(provider.asked().len(), 2);
    set(&talk.person, "/v1/credentials", OWN).await;
    talk.ask("set again").await;
    assert_eq!(key_of(&provider).as_deref(), Some(OWN));
}
