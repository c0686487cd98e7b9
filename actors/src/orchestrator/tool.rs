//! Running tools: reads side by side, writes one after the other in the order of their calls.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use iris_agent::{FileWritten, Input, ToolOutcome};
use iris_protocol::ToolCallId;
use iris_store::{CrashPoint, crash_point};
use iris_tools::{ToolContext, ToolOutput};
use serde_json::Value;
use tracing::Instrument;

use super::Orchestrator;

/// How long after its timeout a tool call makes the orchestrator count as stuck.
const TOOL_GRACE: Duration = Duration::from_secs(10);

/// The tools of one run that are running.
#[derive(Default)]
pub(super) struct ToolRuns {
    /// Dropping a task ends its tool.
    running: HashMap<ToolCallId, SpawnHandle>,
    /// Held by the writing tool that runs; tokio's mutex is fair, so writes keep their order.
    writing: Arc<tokio::sync::Mutex<()>>,
}

impl ToolRuns {
    pub(super) fn count(&self) -> usize {
        self.running.len()
    }
}

impl Orchestrator {
    pub(super) fn run_tool(
        &mut self,
        call_id: ToolCallId,
        tool_name: &str,
        input: Value,
        ctx: &mut Context<Self>,
    ) {
        let services = self.services();
        let Some(tool) = services.tools.get(tool_name) else {
            let error = format!("unknown tool `{tool_name}`");
            let outcome = ToolOutcome::Failed { error };
            return self.input(Input::ToolEnded { call_id, outcome }, ctx);
        };
        let timeout = services.settings.tool_timeout;
        let context = ToolContext::new(
            self.assignment.place.project.workspace.clone(),
            Arc::clone(&self.assignment.read_log),
        );
        let writing = tool.writes().then(|| Arc::clone(&self.tools.writing));
        let span = tracing::info_span!(
            parent: &self.span,
            "tool",
            run.id = self.assignment.run.id.as_str(),
            tool.name = tool_name,
            tool.call_id = call_id.as_str(),
        );
        let vitals = Arc::clone(&self.vitals);
        let running = async move {
            let _turn = match writing {
                Some(writing) => Some(writing.lock_owned().await),
                None => None,
            };
            // Its own timeout comes first.
            let _work = vitals.begin("RunTool", timeout + TOOL_GRACE);
            crash_point(CrashPoint::ToolStart);
            let ended = tokio::time::timeout(timeout, tool.run(context, input)).await;
            crash_point(CrashPoint::ToolEnd);
            ended
        };
        let running = running.instrument(span);
        let ended = running.into_actor(self).map({
            let call_id = call_id.clone();
            move |result, orchestrator, ctx| {
                orchestrator.tools.running.remove(&call_id);
                let outcome = match result {
                    Ok(Ok(output)) => completed(output),
                    Ok(Err(error)) => ToolOutcome::Failed { error: error.to_string() },
                    Err(_) => {
                        let error = format!("the tool took longer than {} s", timeout.as_secs());
                        ToolOutcome::Failed { error }
                    }
                };
                orchestrator.input(Input::ToolEnded { call_id, outcome }, ctx);
            }
        });
        let task = ctx.spawn(ended);
        self.tools.running.insert(call_id, task);
    }

    pub(super) fn abort_tool(&mut self, call_id: &ToolCallId, ctx: &mut Context<Self>) {
        if let Some(task) = self.tools.running.remove(call_id) {
            ctx.cancel_future(task);
        }
    }
}

fn completed(output: ToolOutput) -> ToolOutcome {
    let changes = output.changes.into_iter().map(|change| FileWritten {
        path: change.path,
        size: change.size,
        hash: change.hash,
    });
    let metadata = (!output.metadata.is_null()).then_some(output.metadata);
    ToolOutcome::Completed { output: output.output, metadata, changes: changes.collect() }
}
