//! Secrets that the server knows or that look like some: driven through every path on which others repeat them,
//! and looked for wherever anything is shown, kept or logged.

use std::collections::BTreeSet;
use std::fs;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use iris_protocol::{Event, ModelRef, RunStatus, SessionCreate, ToolState};
use iris_testkit::{Conversation, FakeProvider, Reply, ServerProcess, calls_of, spawn_app};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::{ann, bash, canaries, iris, root};

const MARK: &str = "[redacted secret]";
/// The key of a provider: the server knows it.
const KNOWN: &str = "canary/0f1e2d3c+4b5a6978";
/// What the server never saw, of a kind that it knows.
const LOOKS: &str = "ghp_canary0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// What must not be found: both secrets, and the first as it stands in URLs and in base64.
fn forms() -> Vec<String> {
    let [known, in_url, encoded] = canaries::forms(KNOWN);
    vec![known, LOOKS.to_owned(), in_url, encoded]
}

/// Where people and models wrote a secret themselves: nobody hides that from them.
fn written_by_people() -> BTreeSet<&'static str> {
    BTreeSet::from([
        // The file, and its version.
        "secrets.txt",
        "blobs.content",
        // The message that has a tool called, the call, and the events that tell of both.
        "message_parts.body",
        "events.payload",
        "project.db",
        "project.db-wal",
    ])
}

fn leaks(text: &str) -> Vec<String> {
    forms().into_iter().filter(|form| text.contains(form.as_str())).collect()
}

/// Has the scripted model call a tool, and answers what became of it.
async fn call(talk: &mut Conversation, name: &str, input: Value) -> (ToolState, String) {
    let answer = talk.ask(&format!("call {name} {input}\nstep\nsay done")).await;
    let part = calls_of(&answer).remove(0).clone();
    (part.state, part.output.or(part.error).unwrap_or_default())
}

#[tokio::test]
async fn secrets_are_in_no_answer_no_event_no_log_line_and_no_database() {
    let says_it = json!({ "error": { "message": format!("denied: {KNOWN} {LOOKS}") } });
    let replies =
        [Reply::status(400, &says_it.to_string()).header("content-type", "application/json")];
    let provider = FakeProvider::start(replies).await;
    let dir = tempdir().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("stderr"));
    let mut command = iris(&data);
    command
        .env("IRIS_PROVIDERS__FAKE__KIND", "openai-compatible")
        .env("IRIS_PROVIDERS__FAKE__BASE_URL", provider.base_url())
        .env("IRIS_PROVIDERS__FAKE__API_KEY", KNOWN)
        .env("IRIS_LOG", "debug,iris=trace,iris_actors=trace,iris_llm=trace");
    let server = ServerProcess::start_logging(command, &log).await;
    let operator = root(&server).await;
    let mut talk = ann(&server).await.conversation().await;
    let mut shown = String::new();

    // A file repeats them, and a tool reads it.
    let lines = [KNOWN, LOOKS, &forms()[2], &BASE64_STANDARD.encode(KNOWN), "the end"].join("\n");
    let put = talk.person.client.file_put(&talk.project, "secrets.txt", lines.clone()).await;
    put.unwrap();
    for (tool, input) in [
        ("read", json!({ "path": "secrets.txt" })),
        ("grep", json!({ "pattern": "." })),
        // An error repeats its input.
        ("read", json!({ "path": KNOWN })),
    ] {
        let (_, told) = call(&mut talk, tool, input).await;
        assert!(told.contains(MARK), "{tool}: {told}");
        shown += &told;
    }
    // Who owns the file reads it as it is.
    let content = async |talk: &Conversation| {
        talk.person.client.file_get(&talk.project, "secrets.txt").await.unwrap()
    };
    assert_eq!(content(&talk).await, lines);

    // The mark is not written in the place of what it stands for.
    let input = json!({ "path": "secrets.txt", "content": format!("{MARK}\n") });
    let script = format!("call write {input}\nstep\nsay done");
    let run = talk.send_message(&script).await.run_id;
    let asked = talk.approval().await.tool_call_id;
    talk.approve(&asked).await.unwrap();
    talk.run_ended(&run).await;
    let part = calls_of(&talk.answer(&run).await).remove(0).clone();
    assert_eq!(part.state, ToolState::Error);
    assert!(part.error.unwrap().contains("stands for a secret"));
    assert_eq!(content(&talk).await, lines);

    // A provider repeats the key that it was asked with.
    let model = ModelRef { provider_id: "fake".to_owned(), model_id: "m".to_owned() };
    let request = SessionCreate { title: None, agent: None, model: Some(model), mode: None };
    let session = talk.person.client.call(Some(&talk.project), request).await.unwrap().session.id;
    let mut failing = talk.person.join(&talk.project, &session).await;
    let run = failing.send_message("go").await.run_id;
    assert_eq!(failing.run_ended(&run).await, RunStatus::Failed);
    let error = failing.answer(&run).await.error.unwrap();
    assert!(error.message.contains("denied"), "{error}");
    shown += &error.to_string();

    for path in [
        format!("/v1/projects/{}/sessions/{}/export", talk.project, failing.session),
        format!("/v1/projects/{}/sessions/{}/messages", talk.project, failing.session),
    ] {
        shown += &talk.person.get(&path).await.json.to_string();
    }
    for path in ["/v1/admin/audit", "/v1/admin/supervision", "/v1/admin/actors"] {
        shown += &operator.get(path).await.json.to_string();
    }
    // All but what she wrote herself, arguments of calls among it.
    let is_of_server = |event: &Event| {
        matches!(
            event,
            Event::MessageToolResult { .. }
                | Event::MessageToolError { .. }
                | Event::MessageError { .. }
        )
    };
    let events = talk.seen.iter().chain(&failing.seen).filter(|frame| is_of_server(&frame.event));
    shown += &events.map(|frame| serde_json::to_string(&frame.event).unwrap()).collect::<String>();
    assert_eq!(leaks(&shown), Vec::<String>::new(), "{shown}");
    // Nothing of what others said.
    let found = canaries::places(&data, &forms());
    let elsewhere: Vec<_> =
        found.iter().filter(|(place, _)| !written_by_people().contains(place.as_str())).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    assert!(found.contains_key("blobs.content"), "{found:?}");
    server.terminate().await;

    let logged = fs::read_to_string(&log).unwrap();
    assert!(!logged.is_empty() && leaks(&logged).is_empty(), "{:?}", leaks(&logged));
}

#[tokio::test]
async fn what_a_member_has_hidden_is_hidden_in_their_project_alone() {
    const CHOSEN: &str = "ch0sen-by-ann";
    let app = spawn_app().await;
    let mut told = Vec::new();
    for name in ["ann", "bob"] {
        let mut talk = app.user(name).await.conversation().await;
        if name == "ann" {
            let http = json!({ "method": "GET", "url": "https://tool.example/",
                               "secretHeaders": { "x-key": CHOSEN, "x-word": "password" } });
            let tool = json!({ "name": "weather", "description": "d", "http": http,
                               "parameters": { "type": "object" } });
            let path = format!("/v1/projects/{}/tools", talk.project);
            let made = talk.person.post(&path, tool).await;
            assert_eq!(made.status, 201, "{made:?}");
        }
        let text = format!("the password is {CHOSEN}");
        talk.person.client.file_put(&talk.project, "notes.txt", text).await.unwrap();
        told.push(call(&mut talk, "read", json!({ "path": "notes.txt" })).await.1);
    }
    let hidden = format!("the password is {MARK}");
    assert!(told[0].contains(&hidden), "it is hidden, ordinary words are not: {}", told[0]);
    assert!(told[1].contains(CHOSEN), "{}", told[1]);
}

#[tokio::test]
async fn a_command_that_prints_a_secret_shows_it_neither_while_it_runs_nor_afterwards() {
    let Some((app, operator)) = bash::app(bash::sandbox()).await else { return };
    let mut talk = operator.conversation().await;
    // Cut off in the middle, too.
    let (head, tail) = LOOKS.split_at(20);
    let command = format!("echo {head}{tail}; echo cut off; sleep 1.2; echo {head}{tail}");
    let script = format!("call bash {}\nstep\nsay done", json!({ "command": command }));
    let run = talk.send_message(&script).await.run_id;
    let asked = talk.approval().await.tool_call_id;
    talk.approve(&asked).await.unwrap();
    talk.run_ended(&run).await;
    let part = calls_of(&talk.answer(&run).await).remove(0).clone();
    let output = part.output.unwrap();
    assert!(output.matches(MARK).count() == 2 && !output.contains(LOOKS), "{output}");
    let told = talk.seen.iter().filter(|frame| {
        matches!(frame.event, Event::MessageToolProgress { .. } | Event::MessageToolResult { .. })
    });
    let told: String = told.map(|frame| serde_json::to_string(&frame.event).unwrap()).collect();
    assert!(told.contains(MARK) && !told.contains(LOOKS), "{told}");
    drop(app);
}
