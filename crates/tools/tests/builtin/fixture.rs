//! A project for one test.

use std::fs;
use std::sync::Arc;

use iris_agent::permissions::Judge;
use iris_protocol::SessionMode;
use iris_tools::{ReadLog, ToolContext, ToolError, ToolOutput, ToolRegistry};
use iris_workspace::Workspace;
use serde_json::Value;
use tempfile::TempDir;

/// A project and one session's log in it.
pub(crate) struct Fixture {
    pub(crate) temp: TempDir,
    workspace: Workspace,
    read_log: Arc<ReadLog>,
    registry: ToolRegistry,
    pub(crate) judge: Arc<Judge>,
}

impl Fixture {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(temp.path()).unwrap();
        let registry = ToolRegistry::builtin().unwrap();
        let fixture = Self {
            temp,
            workspace,
            read_log: Arc::default(),
            registry,
            judge: Arc::new(Judge::new(SessionMode::Default, vec![])),
        };
        for (path, content) in files {
            fixture.put(path, content);
        }
        fixture
    }

    /// Changes a file behind the tools' back.
    pub(crate) fn put(&self, path: &str, content: &str) {
        let path = self.temp.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn content(&self, path: &str) -> String {
        fs::read_to_string(self.temp.path().join(path)).unwrap()
    }

    pub(crate) async fn call(&self, tool: &str, input: Value) -> Result<ToolOutput, ToolError> {
        self.registry.validate(tool, &input)?;
        let tool = self.registry.get(tool).unwrap();
        let (read_log, judge) = (Arc::clone(&self.read_log), Arc::clone(&self.judge));
        let ctx = ToolContext::new(self.workspace.clone(), read_log, judge);
        tool.run(ctx.with_accesses(tool.accesses(&input)), input).await
    }

    pub(crate) async fn output(&self, tool: &str, input: Value) -> String {
        self.call(tool, input).await.unwrap().output
    }

    pub(crate) async fn refusal(&self, tool: &str, input: Value) -> String {
        self.call(tool, input).await.unwrap_err().to_string()
    }
}
