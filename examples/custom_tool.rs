//! A server with a tool of its own: `roll`, which rolls dice.
//!
//! A tool is one type that implements [`Tool`], in one file; a server gets it with one line, in `tools` of its
//! [`Dependencies`]. Everything else comes by itself: models are told of it, arguments are checked against its
//! schema, permission rules are asked about what it touches, results are recorded and shown.
//!
//! `cargo run --example custom_tool` starts the server in a new directory with the scripted model, has the
//! tool called over the wire and prints what it answered.

#![expect(clippy::wildcard_enum_match_arm, reason = "it looks for one kind of part")]

mod common;

use std::sync::{Arc, LazyLock};

use actix_rt::System;
use anyhow::Context;
use futures_util::future::BoxFuture;
use iris::app::{App, Dependencies};
use iris_agent::permissions::{Access, Target};
use iris_protocol::{Part, PermissionAction, PermissionCreate};
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
        let config = common::config(directory.path(), common::SCRIPTED)?;
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
    let ann = common::Guest::enter(app).await?;
    let rule = PermissionCreate {
        session_id: None,
        permission: "roll".to_owned(),
        pattern: "dice".to_owned(),
        action: PermissionAction::Allow,
    };
    ann.client.call(Some(&ann.project), rule).await?;
    let messages = ann.ask("call roll {\"dice\": 2}\nstep\nsay done").await?;
    let output = messages.iter().flat_map(|message| &message.parts).find_map(|part| match part {
        Part::Tool(call) => call.output.clone(),
        _ => None,
    });
    output.context("the tool was called")
}

#[expect(clippy::print_stdout, reason = "this is what the example is for")]
fn print(said: &str) -> anyhow::Result<()> {
    anyhow::ensure!(said.starts_with("rolled ["), "the tool said `{said}`");
    println!("the tool answered: {said}");
    Ok(())
}
