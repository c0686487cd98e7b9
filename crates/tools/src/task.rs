//! `task`: sets a sub-agent to work in a session of its own. What it says last is the result of the call;
//! one in the background is reported when it is done.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::future::BoxFuture;
use iris_agent::permissions::{Access, Target};
use iris_protocol::limits::{NAME_BYTES_MAX, TASKS_OPEN_MAX};
use iris_protocol::{ModelRef, RunStatus, SessionId, Usage};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Tool;
use crate::builtin::{object_schema, parse, shown};
use crate::context::ToolContext;
use crate::error::{Mistake, ToolError};
use crate::output::ToolOutput;

/// The name of the tool, and its permission: rules name agents.
pub const TASK: &str = "task";
/// Longest prompt of a sub-agent, in bytes.
const PROMPT_BYTES_MAX: usize = 128 * 1024;
/// How long a call may take: longer than what it waits for can.
const TIME_MAX: Duration = Duration::from_hours(7 * 24);

/// Sets sub-agents to work for one call.
pub trait SubAgents: Debug + Send + Sync {
    /// Sets one to work, or takes up what this call set to work before; waits until it is done, unless it
    /// works in the background. When the future is dropped the sub-agent ends, unless it works in the
    /// background.
    ///
    /// # Errors
    /// One sentence for the model: nothing was set to work, or what was cannot be waited for.
    fn run(&self, task: TaskDraft) -> BoxFuture<'static, Result<TaskReport, String>>;
}

/// What a sub-agent is to do, as a model writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskDraft {
    /// In a few words; 1 to [`NAME_BYTES_MAX`] bytes.
    pub description: String,
    /// What it is told; 1 to 128 KiB.
    pub prompt: String,
    /// Name of the agent.
    pub agent: String,
    /// Whether the call does not wait for it.
    pub background: bool,
    /// A sub-agent's session that is to go on, with what it knows.
    pub resume: Option<SessionId>,
    /// The model, where one is chosen.
    pub model: Option<ModelRef>,
}

/// What became of a sub-agent.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskReport {
    /// Its session.
    pub session_id: SessionId,
    /// How far it is: only one in the background has not ended.
    pub status: RunStatus,
    /// What it said last, or why it failed.
    pub text: String,
    /// What it used.
    pub usage: Usage,
    /// Model calls that it made.
    pub steps: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    description: String,
    prompt: String,
    agent: String,
    #[serde(default)]
    background: bool,
    resume: Option<String>,
    model: Option<String>,
}

/// The tool `task`.
pub(crate) struct Task {
    parameters: Value,
    description: String,
}

pub(crate) fn tool() -> Task {
    let text = |most: usize, description: &str| json!({"type": "string", "minLength": 1, "maxLength": most, "description": description});
    let parameters = object_schema(
        &json!({
            "description": text(NAME_BYTES_MAX, "What it is to do, in a few words"),
            "prompt": text(PROMPT_BYTES_MAX, "What it is told: all that it needs to know, and what to answer with"),
            "agent": text(NAME_BYTES_MAX, "Name of the agent that does it"),
            "background": {
                "type": "boolean",
                "description": "Whether to go on without waiting: you are told when it is done. By default the call waits",
            },
            "resume": {
                "type": "string",
                "description": "Session of an earlier sub-agent of this session that goes on, with all it knows",
            },
            "model": {
                "type": "string",
                "description": "`provider/model` in place of the agent's own",
            },
        }),
        &["description", "prompt", "agent"],
    );
    let description = format!(
        "Sets a sub-agent to work in a session of its own, which sees nothing of this conversation. Its last \
         words are the result. Call it several times in one step to have up to {TASKS_OPEN_MAX} work side \
         by side."
    );
    Task { parameters, description }
}

impl Tool for Task {
    fn name(&self) -> &str {
        TASK
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn parameters(&self) -> &Value {
        &self.parameters
    }

    /// What the sub-agent changes it changes by calls of its own.
    fn writes(&self) -> bool {
        false
    }

    fn check(&self, input: &Value) -> Result<(), ToolError> {
        draft(input).map(drop)
    }

    fn accesses(&self, input: &Value) -> Vec<Access> {
        let agent = input.get("agent").and_then(Value::as_str).unwrap_or_default();
        vec![Access::of(TASK, Target::Text(agent.to_owned()))]
    }

    /// The sub-agent has its own limits, and may wait for people.
    fn time_limit(&self, _: &Value) -> Option<Duration> {
        Some(TIME_MAX)
    }

    fn summary(&self, input: &Value) -> String {
        let text = |name| input.get(name).and_then(Value::as_str).unwrap_or_default();
        format!("have the agent {} do {}", shown(text("agent")), shown(text("description")))
    }

    fn run(
        &self,
        ctx: ToolContext,
        input: Value,
    ) -> BoxFuture<'static, Result<ToolOutput, ToolError>> {
        Box::pin(async move {
            let task = draft(&input)?;
            let sub_agents = ctx.sub_agents().ok_or_else(|| problem("there is no session"))?;
            let report = sub_agents.run(task).await.map_err(problem)?;
            output(report)
        })
    }
}

fn problem(problem: impl Into<String>) -> ToolError {
    ToolError::Task { problem: problem.into() }
}

fn draft(input: &Value) -> Result<TaskDraft, ToolError> {
    let Input { description, prompt, agent, background, resume, model } = parse(TASK, input)?;
    let mut mistakes = Vec::new();
    let mut mistake = |pointer: &str, problem: &str| {
        mistakes.push(Mistake { pointer: pointer.to_owned(), problem: problem.to_owned() });
    };
    // The schema counts characters.
    for (pointer, text, most) in [
        ("/description", &description, NAME_BYTES_MAX),
        ("/prompt", &prompt, PROMPT_BYTES_MAX),
        ("/agent", &agent, NAME_BYTES_MAX),
    ] {
        if text.trim().is_empty() {
            mistake(pointer, "is wrong: it is empty");
        } else if text.len() > most {
            mistake(pointer, &format!("is wrong: it is longer than {most} bytes"));
        }
    }
    let session = resume.as_deref().map(str::parse::<SessionId>).transpose();
    if session.is_err() {
        mistake("/resume", "is no id of a session");
    }
    let chosen = model.as_deref().map(model_of);
    if chosen == Some(None) {
        mistake("/model", "is wrong: it is not `provider/model`");
    }
    if !mistakes.is_empty() {
        return Err(ToolError::InvalidInput { tool: TASK.to_owned(), mistakes });
    }
    let (resume, model) = (session.ok().flatten(), chosen.flatten());
    Ok(TaskDraft { description, prompt, agent, background, resume, model })
}

fn model_of(text: &str) -> Option<ModelRef> {
    let (provider, model) = text.split_once('/')?;
    if provider.is_empty() || model.is_empty() {
        return None;
    }
    Some(ModelRef { provider_id: provider.to_owned(), model_id: model.to_owned() })
}

/// Why a sub-agent has no result.
fn ended(how: &str, why: &str, session_id: &SessionId) -> ToolError {
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    problem(format!(
        "the sub-agent {how}{why}; what it did so far is in the session {session_id}, which `resume` goes on with"
    ))
}

/// What the model reads, and what clients are told.
fn output(report: TaskReport) -> Result<ToolOutput, ToolError> {
    let TaskReport { session_id, status, text, usage, steps } = report;
    let text = match status {
        RunStatus::Queued | RunStatus::Running | RunStatus::Waiting => {
            format!(
                "It works in the background, in the session {session_id}: you are told when it is done."
            )
        }
        RunStatus::Completed if text.is_empty() => {
            format!("(it said nothing; session {session_id})")
        }
        RunStatus::Completed => format!("{text}\n\n(session {session_id})"),
        RunStatus::Failed => return Err(ended("failed", &text, &session_id)),
        RunStatus::Cancelled => return Err(ended("was cancelled", &text, &session_id)),
        RunStatus::Interrupted => {
            return Err(ended("was cut off when the server stopped", &text, &session_id));
        }
    };
    let metadata = json!({
        "childSessionId": session_id,
        "status": status,
        "steps": steps,
        "usage": usage,
    });
    Ok(ToolOutput::new(&text, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(status: RunStatus, text: &str) -> TaskReport {
        let session_id = SessionId::from_bits(1);
        TaskReport { session_id, status, text: text.to_owned(), usage: Usage::default(), steps: 2 }
    }

    #[test]
    fn a_draft_is_checked_beyond_its_schema() {
        let good = json!({"description": "look", "prompt": "look around", "agent": "explore",
                          "model": "local/small/1", "resume": SessionId::from_bits(1)});
        let task = draft(&good).unwrap();
        assert_eq!(task.model.unwrap().model_id, "small/1");
        assert_eq!(task.resume, Some(SessionId::from_bits(1)));
        let bad = json!({"description": " ", "prompt": "x".repeat(PROMPT_BYTES_MAX + 1),
                         "agent": "a", "model": "local", "resume": "run_1"});
        let ToolError::InvalidInput { mistakes, .. } = draft(&bad).unwrap_err() else {
            panic!("another error")
        };
        let pointers: Vec<_> = mistakes.iter().map(|it| it.pointer.as_str()).collect();
        assert_eq!(pointers, ["/description", "/prompt", "/resume", "/model"]);
    }

    #[test]
    fn the_model_reads_what_was_said_and_where() {
        let said = output(report(RunStatus::Completed, "found it")).unwrap();
        let session = SessionId::from_bits(1);
        assert_eq!(said.output, format!("found it\n\n(session {session})"));
        assert_eq!(said.metadata["childSessionId"], json!(session));
        let works = output(report(RunStatus::Queued, "")).unwrap();
        assert!(works.output.contains("background"));
        let failed = output(report(RunStatus::Failed, "no model")).unwrap_err().to_string();
        assert!(failed.starts_with("the sub-agent failed: no model; "), "{failed}");
    }
}
