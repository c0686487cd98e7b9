//! Calls of tools: how they end and how long they take.

use std::sync::Arc;

use iris_agent::ToolOutcome;
use iris_tools::ToolRegistry;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::{Histograms, WORK_SECONDS, add};
use crate::Services;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tool {
    tool: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    tool: String,
    outcome: &'static str,
}

pub(super) struct Counters {
    calls: Family<Ended, Counter>,
    seconds: Histograms<Tool>,
    running: Gauge,
}

impl Counters {
    pub(super) fn new(r: &mut Registry) -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(WORK_SECONDS);
        Self {
            calls: add(
                r,
                "iris_tool_calls",
                "Calls of tools that began, by how they ended",
                Family::default(),
            ),
            seconds: add(
                r,
                "iris_tool_call_duration_seconds",
                "Time of a call of a tool, with its wait for its turn",
                Family::new_with_constructor(seconds),
            ),
            running: add(r, "iris_tools_running", "Calls of tools that run", Gauge::default()),
        }
    }
}

/// Only tools of the server have their names: others are whatever somebody in a project called them.
fn label<'a>(tools: &ToolRegistry, name: &'a str) -> &'a str {
    match name {
        name if tools.get(name).is_some() => name,
        // No other tool has this in its name.
        name if name.contains("__") => "mcp",
        _ => "custom",
    }
}

/// A call of a tool that runs; counted when it ends, however it does.
pub(crate) struct ToolCall {
    services: Arc<Services>,
    tool: String,
    began_at: Instant,
    outcome: &'static str,
}

impl ToolCall {
    pub(crate) fn begin(services: &Arc<Services>, name: &str) -> Self {
        let tool = label(&services.tools, name);
        services.metrics.tools.running.inc();
        let (services, tool) = (Arc::clone(services), tool.to_owned());
        Self { services, tool, began_at: Instant::now(), outcome: "aborted" }
    }

    /// Runs the call; dropped before its end it was aborted.
    pub(crate) async fn watch(mut self, call: impl Future<Output = ToolOutcome>) -> ToolOutcome {
        let outcome = call.await;
        self.outcome = match outcome {
            ToolOutcome::Completed { .. } => "completed",
            ToolOutcome::Failed { .. } => "failed",
        };
        outcome
    }
}

impl Drop for ToolCall {
    fn drop(&mut self) {
        let counters = &self.services.metrics.tools;
        counters.running.dec();
        let (tool, outcome) = (self.tool.clone(), self.outcome);
        counters.calls.get_or_create(&Ended { tool, outcome }).inc();
        let tool = Tool { tool: self.tool.clone() };
        counters.seconds.get_or_create(&tool).observe(self.began_at.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tools_of_the_server_have_their_names() {
        let tools = ToolRegistry::builtin().unwrap();
        for (name, expected) in [
            ("read", "read"),
            ("write", "write"),
            ("salaries_of_ann", "custom"),
            ("tracker__delete", "mcp"),
        ] {
            assert_eq!(label(&tools, name), expected);
        }
    }
}
