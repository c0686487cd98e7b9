//! A model that nobody scripted behind the real program, where there is one: `IRIS_REAL_MODEL`, as in the tests
//! of the adapters, names a server that speaks Chat Completions, Messages and Responses. Without it nothing
//! is asked.

use std::time::Duration;

use iris_protocol::{AgentCreate, ModelRef, SessionCreate, ToolState};
use iris_testkit::{Conversation, ServerProcess, calls_of, text_of};

use crate::{iris, root};

/// The address of the server, without a path.
const ADDRESS: &str = "IRIS_REAL_MODEL";
/// Kind of the provider and what its base URL has behind the address.
const WIRES: [(&str, &str); 3] =
    [("openai-compatible", "/v1"), ("anthropic", ""), ("openai", "/v1")];
/// The longest that a small model on a busy machine takes for a run.
const PATIENCE: Duration = Duration::from_mins(5);
/// How often a model that samples is given the chance to call the tool.
const TRIES: usize = 10;

/// A run that called `read` and ended well, if it did.
async fn try_once(talk: &mut Conversation, wire: &str) -> bool {
    let run = talk.send_message("Use the tool read: README.md").await.run_id;
    let ended = async {
        loop {
            let frame = talk.socket.next_event().await.unwrap();
            if frame.event.name() == "run.completed" {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    let answer = talk.answer(&run).await;
    let calls = calls_of(&answer);
    for call in &calls {
        eprintln!(
            "{wire}: {} {} -> {:?} {:?}",
            call.tool_name, call.input, call.state, call.output
        );
    }
    eprintln!("{wire}: {:?} `{}` {:?}", answer.finish_reason, text_of(&answer), answer.usage);
    let has_read = calls.iter().any(|call| {
        let output = call.output.as_deref().unwrap_or_default();
        call.tool_name == "read" && call.state == ToolState::Completed && output.contains("heron")
    });
    let is_counted =
        answer.usage.is_some_and(|usage| usage.input_tokens > 0 && usage.output_tokens > 0);
    has_read && answer.error.is_none() && is_counted
}

#[tokio::test]
async fn a_real_model_calls_a_tool_of_the_real_server_on_every_wire() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    let data_dir = tempfile::tempdir().unwrap();
    let mut command = iris(data_dir.path());
    for (kind, path) in WIRES {
        let key = format!("IRIS_PROVIDERS__{}", kind.replace('-', "").to_uppercase());
        command
            .env(format!("{key}__KIND"), kind)
            .env(format!("{key}__BASE_URL"), format!("{address}{path}"))
            .env(format!("{key}__MAX_OUTPUT_TOKENS"), "200");
    }
    command.env("IRIS_PROVIDERS__OPENAI__REASONING", "off");
    let server = ServerProcess::start(command).await;
    let person = root(&server).await;
    let project = person.project("real").await.id;
    let readme = "# Hello\nThe secret word is heron.\n";
    person.client.file_put(&project, "README.md", readme).await.unwrap();
    for (kind, _) in WIRES {
        let provider_id = kind.replace('-', "");
        let model = ModelRef { provider_id, model_id: "smollm2-135m-instruct".to_owned() };
        let reader = AgentCreate {
            name: format!("reader-{kind}"),
            tools: Some(["read", "list", "glob", "grep"].map(str::to_owned).to_vec()),
            model: Some(model),
            description: None,
            mode: None,
            prompt: None,
            tuning: iris_protocol::AgentTuning::default(),
            permissions: None,
        };
        let agent = person.client.call(Some(&project), reader).await.unwrap().agent;
        let mut has_called = false;
        for _ in 0..TRIES {
            let request = SessionCreate {
                title: None,
                agent: Some(agent.name.clone()),
                model: None,
                mode: None,
            };
            let session = person.client.call(Some(&project), request).await.unwrap().session;
            let mut talk = person.join(&project, &session.id).await;
            has_called = try_once(&mut talk, kind).await;
            if has_called {
                break;
            }
        }
        assert!(has_called, "{kind}: the model did not call the tool");
    }
}
