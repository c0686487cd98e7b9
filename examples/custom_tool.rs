//! A server with a tool of its own: `roll`, which rolls dice.
//!
//! A tool is one type that implements [`Tool`], in one file; a server gets it with one line, in `tools` of its
//! [`Dependencies`]. Everything else comes by itself: models are told of it, arguments are checked against its
//! schema, permission rules are asked about what it touches, results are recorded and shown.
//!
//! `cargo run --example custom_tool` starts the server in a new directory with the scripted model, has the
//! tool called over the wire and prints what it answered.

use std::sync::{Arc, LazyLock};

use actix_rt::System;
use anyhow::Context;
use futures_util::future::BoxFuture;
use iris::app::{App, Dependencies};
use iris::config::{Config, Flags};
use iris_agent::permissions::{Access, Target};
use iris_client::Client;
use iris_protocol::{
    AuthSetup, Content, MessageSend, Part, PermissionAction, PermissionCreate, ProjectCreate,
    ProjectType, SessionCreate, SessionGet, ToolState,
};
use iris_tools::{Tool, ToolContext, ToolError, ToolOutput};
use serde_json::{Value, json};

/// Rolls dice.
struct Roll;

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "type": "object",
        "properties": {
            "dice": {"type": "integer", "minimum": 1, "maximum": 10, "description": "How many"},
        },
        "required": ["dice"],
        "additionalProperties": false,
    })
});

impl Tool for Roll {
    fn name(&self) -> &'static str {
        "roll"
    }

    fn description(&self) -> &'static str {
        "Rolls up to ten dice."
    }

    fn parameters(&self) -> &Value {
        &PARAMETERS
    }

    fn writes(&self) -> bool {
        false
    }

    /// Rules name it by the permission `roll`, for example `{"permission": "roll", "pattern": "dice"}`.
    fn accesses(&self, _: &Value) -> Vec<Access> {
        vec![Access::of("roll", Target::Text("dice".to_owned()))]
    }

    fn summary(&self, input: &Value) -> String {
        format!("roll {} dice", input.get("dice").unwrap_or(&Value::Null))
    }

    fn run(
        &self,
        _: ToolContext,
        input: Value,
    ) -> BoxFuture<'static, Result<ToolOutput, ToolError>> {
        Box::pin(async move {
            let dice = input.get("dice").and_then(Value::as_u64).unwrap_or(1);
            let rolled: Vec<u8> = (0..dice).map(|_| fastrand::u8(1..=6)).collect();
            Ok(ToolOutput::new(&format!("rolled {rolled:?}"), json!({ "rolled": rolled })))
        })
    }
}

fn main() -> anyhow::Result<()> {
    System::new().block_on(async {
        let directory = tempfile::tempdir()?;
        let data_dir = directory.path().to_str().context("a path of text")?.to_owned();
        let settings = [
            ("IRIS_DATA_DIR", data_dir.as_str()),
            ("IRIS_BIND", "127.0.0.1:0"),
            ("IRIS_PROVIDERS__DEMO__KIND", "scripted"),
            ("IRIS_DEFAULT_MODEL", "demo/script"),
            // A program with `bash` has to be the launcher of its sandbox too: `iris_sandbox::launcher_main`.
            ("IRIS_SANDBOX_MINIMUM", "off"),
        ];
        let settings = settings.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        let no_file = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
        let (config, _) = Config::load(Flags::default(), settings, no_file)?;
        // The one line.
        let dependencies = Dependencies { tools: vec![Arc::new(Roll)], ..Dependencies::default() };
        let app = App::start(config, dependencies).await?;
        let said = call_it(&app).await?;
        app.stop().await?;
        print(&said)
    })
}

/// As any client: an account, a project, a rule, a message.
async fn call_it(app: &App) -> anyhow::Result<String> {
    let server = Client::new(&format!("http://{}", app.address()))?;
    let token = app.setup_token().context("a new server has one")?.as_str().to_owned();
    let grant = server
        .setup(&AuthSetup {
            token,
            email: "ann@example.com".to_owned(),
            username: "ann".to_owned(),
            password: "correct horse battery".to_owned(),
        })
        .await?;
    let client = server.with_grant(&grant);
    let project = ProjectCreate {
        name: "dice".to_owned(),
        description: None,
        r#type: ProjectType::Local,
        path: None,
        git: None,
    };
    let project = client.call(None, project).await?.project.id;
    let rule = PermissionCreate {
        session_id: None,
        permission: "roll".to_owned(),
        pattern: "dice".to_owned(),
        action: PermissionAction::Allow,
    };
    client.call(Some(&project), rule).await?;
    let session = SessionCreate { title: None, agent: None, model: None, mode: None };
    let session_id = client.call(Some(&project), session).await?.session.id;
    let content = Content::Text("call roll {\"dice\": 2}\nstep\nsay done".to_owned());
    let message = MessageSend {
        session_id: session_id.clone(),
        content,
        when_busy: None,
        attachments: Vec::new(),
    };
    client.call(Some(&project), message).await?;
    loop {
        let request = SessionGet { session_id: session_id.clone(), limit: None, before: None };
        let snapshot = client.call(Some(&project), request).await?;
        let mut parts = snapshot.messages.iter().flat_map(|message| &message.parts);
        let output = parts.find_map(|part| match part {
            Part::Tool(call) if call.state == ToolState::Completed => call.output.clone(),
            Part::Tool(_)
            | Part::Text { .. }
            | Part::Reasoning { .. }
            | Part::Subtask(_)
            | Part::Compaction(_)
            | Part::AnswerFormat(_)
            | Part::Attachment(_)
            | Part::Step { .. } => None,
        });
        if let Some(output) = output {
            return Ok(output);
        }
    }
}

#[expect(clippy::print_stdout, reason = "this is what the example is for")]
fn print(said: &str) -> anyhow::Result<()> {
    anyhow::ensure!(said.starts_with("rolled ["), "the tool said `{said}`");
    println!("the tool answered: {said}");
    Ok(())
}
