//! The agents in `.iris/agents`: found when somebody needs them and every few seconds while the project is
//! open, read again when a file changed, and told of to those who follow the project.

use std::sync::Arc;
use std::time::Duration;

use iris_protocol::limits::PROMPT_BYTES_MAX;
use iris_protocol::{Agent, AgentProblem};
use iris_store::project::TellFileAgents;
use iris_store::{StoreError, WriteContext};
use iris_tools::ToolRegistry;
use iris_workspace::{FileStamp, Workspace, content_hash};

use super::definition::{self, Definition};
use super::front_matter::Wrong;
use crate::project::ProjectHandle;
use crate::{Services, write};

/// Where they stand.
const DIRECTORY: &str = ".iris/agents";
const SUFFIX: &str = ".md";
/// Most files that are read.
const FILES_MAX: usize = 128;
/// Most bytes of one: a prompt and what stands before it.
const FILE_BYTES_MAX: u64 = PROMPT_BYTES_MAX as u64 + 64 * 1024;
/// How often somebody looks in a project that is open.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(3);

/// What the files define, and what is wrong with others.
#[derive(Debug, Default)]
pub(crate) struct FileAgents {
    defined: Vec<Defined>,
    problems: Vec<AgentProblem>,
}

#[derive(Debug, Clone)]
struct Defined {
    definition: Definition,
    /// Of the file.
    hash: String,
}

impl FileAgents {
    pub(super) fn find(&self, name: &str, tools: &ToolRegistry) -> Option<Agent> {
        let found = self.defined.iter().find(|it| it.definition.agent.name == name);
        found.map(|it| it.definition.resolved(tools))
    }

    pub(super) fn all<'a>(&'a self, tools: &'a ToolRegistry) -> impl Iterator<Item = Agent> + 'a {
        self.defined.iter().map(|it| it.definition.resolved(tools))
    }

    /// What a file defines.
    fn of_file(&self, path: &str) -> Option<&Defined> {
        self.defined.iter().find(|it| it.definition.agent.path.as_deref() == Some(path))
    }

    /// Whether an agent of that name is defined.
    fn names(&self, name: &str) -> bool {
        self.defined.iter().any(|it| it.definition.agent.name == name)
    }

    /// What is wrong, with tools that the project does not have among it; `is_taken` for names of agents that
    /// are defined otherwise.
    pub(super) fn problems(
        &self,
        tools: &ToolRegistry,
        is_taken: impl Fn(&str) -> bool,
    ) -> Vec<AgentProblem> {
        let mut problems = self.problems.clone();
        for Definition { agent, tools: named, line } in self.defined.iter().map(|it| &it.definition)
        {
            let path = agent.path.clone().unwrap_or_default();
            if is_taken(&agent.name) {
                let message = format!(
                    "there is an agent `{}` that was made with `agent.create`: that one counts",
                    agent.name
                );
                problems.push(AgentProblem { path: path.clone(), line: *line, message });
            }
            for (name, line) in named.iter().flatten() {
                if tools.get(name).is_none() {
                    let message = tools.unknown(name).to_string();
                    problems.push(AgentProblem { path: path.clone(), line: *line, message });
                }
            }
        }
        problems.sort_by(|one, other| (&one.path, one.line).cmp(&(&other.path, other.line)));
        problems
    }
}

impl Definition {
    /// The agent with the tools that it has: those that the project does not have are left to whoever lists
    /// problems.
    fn resolved(&self, tools: &ToolRegistry) -> Agent {
        let names = match &self.tools {
            Some(names) => names.iter().map(|(name, _)| name.clone()).collect(),
            None => tools.names().map(str::to_owned).collect(),
        };
        Agent { tools: names, ..self.agent.clone() }
    }
}

/// What was seen when somebody looked last.
#[derive(Debug, Default)]
pub(crate) struct AgentFiles(tokio::sync::Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    stamps: Option<Vec<FileStamp>>,
    agents: Arc<FileAgents>,
    /// Whether those who follow the project know.
    is_told: bool,
}

/// The agents in files, as they are now.
///
/// # Errors
/// As the reads of the project's database.
pub(crate) async fn file_agents(
    project: &ProjectHandle,
    services: &Services,
) -> Result<Arc<FileAgents>, StoreError> {
    // One at a time: whoever comes meanwhile gets what is found.
    let mut seen = project.kept.agent_files.0.lock().await;
    // A link might lead to what is no agent.
    let workspace = project.workspace.clone().guarded(Arc::new(|_, _| false));
    let (before, known) = (seen.stamps.clone(), Arc::clone(&seen.agents));
    let looked = tokio::task::spawn_blocking(move || {
        let stamps = workspace.stamps(DIRECTORY, SUFFIX, FILES_MAX + 1).unwrap_or_default();
        let is_new = before.as_ref() != Some(&stamps);
        let agents = is_new.then(|| read_all(&workspace, &stamps, &known));
        (stamps, agents)
    });
    let (stamps, agents) = looked.await.map_err(StoreError::internal)?;
    if let Some(agents) = agents {
        *seen = Seen { stamps: Some(stamps), agents: Arc::new(agents), is_told: false };
    }
    if !seen.is_told {
        seen.is_told = tell(project, services, &seen.agents).await?;
    }
    Ok(Arc::clone(&seen.agents))
}

/// Tells who follows the project what is different; says whether they know now.
async fn tell(
    project: &ProjectHandle,
    services: &Services,
    agents: &FileAgents,
) -> Result<bool, StoreError> {
    let tools = crate::toolbox::tools_of(project, services).await?;
    let now = agents.defined.iter().map(|it| (it.hash.clone(), it.definition.resolved(&tools)));
    let now: Vec<(String, Agent)> = now.collect();
    let known = project.reader.file_agents().await?;
    let mut hashes: Vec<(String, String)> =
        now.iter().map(|(hash, agent)| (agent.name.clone(), hash.clone())).collect();
    hashes.sort();
    if hashes == known {
        return Ok(true);
    }
    let command = TellFileAgents { agents: now, at: services.clock.now_ms() };
    let told = write(&project.address, command, WriteContext::default()).await;
    if let Err(error) = &told {
        tracing::warn!(project.id = %project.id, %error, "agents in files could not be told of");
    }
    Ok(told.is_ok())
}

/// Reads files; of two that define an agent of one name the first by their names counts. Of one that cannot be
/// understood any more what it said before counts on: half of a file must not lift the limits of an agent that
/// is at work.
fn read_all(workspace: &Workspace, stamps: &[FileStamp], known: &FileAgents) -> FileAgents {
    let mut agents = FileAgents::default();
    for stamp in stamps.iter().take(FILES_MAX) {
        let path = format!("{DIRECTORY}/{}", stamp.name);
        let read = read(workspace, &path, &stamp.name).and_then(|defined| {
            let name = &defined.definition.agent.name;
            let mut others = agents.defined.iter().map(|it| &it.definition.agent);
            match others.find(|other| other.name == *name) {
                None => Ok(defined),
                Some(Agent { path: other, .. }) => {
                    let other = other.as_deref().unwrap_or_default();
                    let message = format!("`{other}` defines the agent `{name}` already");
                    Err(Wrong::new(defined.definition.line, message))
                }
            }
        });
        match read {
            Ok(defined) => agents.defined.push(defined),
            Err(Wrong { line, mut message }) => {
                if let Some(before) = known.of_file(&path)
                    && !agents.names(&before.definition.agent.name)
                {
                    message.push_str("; what the file said before counts until it is mended");
                    agents.defined.push(before.clone());
                }
                agents.problems.push(AgentProblem { path, line, message });
            }
        }
    }
    if stamps.len() > FILES_MAX {
        let message = format!("there are more than {FILES_MAX} files: not all of them are read");
        agents.problems.push(AgentProblem { path: DIRECTORY.to_owned(), line: 1, message });
    }
    agents
}

fn read(workspace: &Workspace, path: &str, name: &str) -> Result<Defined, Wrong> {
    let content = workspace.read_bytes(path, FILE_BYTES_MAX);
    let content = content.map_err(|error| Wrong::new(1, error.to_string()))?;
    let text = str::from_utf8(&content.bytes).map_err(|error| {
        let before = content.bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        Wrong::new(u32::try_from(line).unwrap_or(u32::MAX), "the file is no UTF-8 text")
    })?;
    let stem = name.strip_suffix(SUFFIX).unwrap_or(name);
    let definition = definition::read(path, stem, text)?;
    Ok(Defined { definition, hash: content_hash(&content.bytes) })
}
