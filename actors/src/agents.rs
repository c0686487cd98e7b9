//! Finding an agent by its name: those that every project has, and those that a project defined.

use iris_protocol::{Agent, AgentMode, PermissionAction, PermissionSetting};
use iris_store::StoreError;
use iris_tools::ToolRegistry;

use crate::Services;
use crate::project::ProjectHandle;
use crate::toolbox::tools_of;

/// Name of the agent that answers when nobody chose one. No other one can have it.
pub(crate) const DEFAULT_AGENT: &str = "default";

/// An agent that the server brings along.
struct Builtin {
    name: &'static str,
    description: &'static str,
    mode: AgentMode,
    prompt: &'static str,
    /// Those of its tools that the project has; none for all of them.
    tools: Option<&'static [&'static str]>,
    /// What it may not do, whatever other rules say.
    denied: &'static [&'static str],
}

/// In the order in which they are listed. Their rules hold whatever tools they have.
const BUILTIN: [Builtin; 4] = [
    Builtin {
        name: DEFAULT_AGENT,
        description: "Does what people ask for, with all tools",
        mode: AgentMode::Primary,
        prompt: "You are a careful assistant. Use the tools to read and change the files of the project. \
                 Say what you did.",
        tools: None,
        denied: &[],
    },
    Builtin {
        name: "plan",
        description: "Reads, asks and plans; changes nothing",
        mode: AgentMode::Primary,
        prompt: "You plan work on this project and change nothing. Read what you need, ask what only people \
                 can tell, and write down step by step what is to be done, in which files, and how to see \
                 that it works.",
        tools: Some(&[
            "read",
            "list",
            "glob",
            "grep",
            "webfetch",
            "todoWrite",
            "todoRead",
            "question",
            "task",
        ]),
        denied: &["edit", "bash"],
    },
    Builtin {
        name: "explore",
        description: "Finds out where and how something is done in the project; changes nothing",
        mode: AgentMode::Subagent,
        prompt: "You find things out in the files of this project for another agent, and change nothing. \
                 Search widely, read what matters, and answer with what was asked for: exact paths, lines \
                 and names. Say what you did not find.",
        tools: Some(&["read", "list", "glob", "grep"]),
        denied: &["edit", "bash"],
    },
    Builtin {
        name: "general",
        description: "Does a piece of work by itself, with all tools",
        mode: AgentMode::Subagent,
        prompt: "You do one piece of work for another agent, which sees only your last words. Do all of it, \
                 check that it works, and say shortly what you did and what is left.",
        tools: None,
        denied: &[],
    },
];

impl Builtin {
    fn agent(&self, tools: &ToolRegistry) -> Agent {
        let names: Vec<String> = match self.tools {
            None => tools.names().map(str::to_owned).collect(),
            Some(names) => {
                let there = names.iter().filter(|name| tools.get(name).is_some());
                there.map(|name| (*name).to_owned()).collect()
            }
        };
        let denied = self.denied.iter().map(|permission| PermissionSetting {
            permission: (*permission).to_owned(),
            pattern: "*".to_owned(),
            action: PermissionAction::Deny,
        });
        Agent {
            id: None,
            name: self.name.to_owned(),
            description: self.description.to_owned(),
            mode: self.mode,
            prompt: self.prompt.to_owned(),
            model: None,
            tools: names,
            permissions: denied.collect(),
            budget: None,
            builtin: true,
        }
    }
}

/// The agent that a project knows under this name. One that it defined takes the place of a built-in one,
/// but for `default`.
///
/// # Errors
/// As the reads of the project's database.
pub(crate) async fn find_agent(
    project: &ProjectHandle,
    services: &Services,
    name: &str,
) -> Result<Option<Agent>, StoreError> {
    let builtin = BUILTIN.iter().find(|builtin| builtin.name == name);
    if name != DEFAULT_AGENT {
        let defined = project.reader.agent(name.to_owned()).await?;
        if defined.is_some() || builtin.is_none() {
            return Ok(defined);
        }
    }
    let Some(builtin) = builtin else { return Ok(None) };
    Ok(Some(builtin.agent(&*tools_of(project, services).await?)))
}

/// All agents of a project: the built-in ones, then those that it defined, by name.
///
/// # Errors
/// As the reads of the project's database.
pub(crate) async fn agents_of(
    project: &ProjectHandle,
    services: &Services,
) -> Result<Vec<Agent>, StoreError> {
    let defined = project.reader.agents().await?;
    let tools = tools_of(project, services).await?;
    let stays = |builtin: &&Builtin| {
        builtin.name == DEFAULT_AGENT || defined.iter().all(|agent| agent.name != builtin.name)
    };
    let builtin: Vec<Agent> =
        BUILTIN.iter().filter(stays).map(|builtin| builtin.agent(&tools)).collect();
    Ok(builtin.into_iter().chain(defined).collect())
}

/// Whether other agents may set it to work.
pub(crate) fn is_sub_agent(agent: &Agent) -> bool {
    match agent.mode {
        AgentMode::Subagent | AgentMode::All => true,
        AgentMode::Primary => false,
    }
}

/// Whether people may begin sessions with it.
pub(crate) fn is_primary(agent: &Agent) -> bool {
    match agent.mode {
        AgentMode::Primary | AgentMode::All => true,
        AgentMode::Subagent => false,
    }
}
