//! Finding an agent by its name: the one that every project has, and those that a project defined.

use iris_protocol::Agent;
use iris_store::StoreError;
use iris_tools::ToolRegistry;

use crate::Services;
use crate::project::ProjectHandle;
use crate::toolbox::tools_of;

/// Name of the agent that answers when nobody chose one.
pub(crate) const DEFAULT_AGENT: &str = "default";

const DEFAULT_PROMPT: &str = "You are a careful assistant. Use the tools to read and change the \
                              files of the project. Say what you did.";

/// The agent that every project has: it has all tools of the project.
pub(crate) fn default_agent(tools: &ToolRegistry) -> Agent {
    Agent {
        id: None,
        name: DEFAULT_AGENT.to_owned(),
        prompt: DEFAULT_PROMPT.to_owned(),
        model: None,
        tools: tools.names().map(str::to_owned).collect(),
        permissions: Vec::new(),
        builtin: true,
    }
}

/// The agent that a project knows under this name.
pub(crate) async fn find_agent(
    project: &ProjectHandle,
    services: &Services,
    name: &str,
) -> Result<Option<Agent>, StoreError> {
    if name == DEFAULT_AGENT {
        return Ok(Some(default_agent(&*tools_of(project, services).await?)));
    }
    project.reader.agent(name.to_owned()).await
}
