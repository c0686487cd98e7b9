//! What a call gets to work with.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use iris_agent::permissions::{Access, Judge, Target};
use iris_protocol::{PermissionAction, QuestionItem};
use iris_sandbox::{Sandbox, Space};
use iris_workspace::{Cancel, Workspace};
use tokio::sync::OnceCell;

use crate::stored::OutputStore;
use crate::task::SubAgents;
use crate::todo::TodoStore;

/// Most files that a [`ReadLog`] remembers.
pub const READ_LOG_FILES_MAX: usize = 4096;

/// What one call gets to work with. Make one for each call: it ends with it.
pub struct ToolContext {
    /// The project's files.
    pub workspace: Workspace,
    /// What the session has read.
    pub read_log: Arc<ReadLog>,
    /// What the call may touch: for tools that find out while they run what they would read.
    pub judge: Arc<Judge>,
    /// Where commands run; none where none can.
    pub places: Option<Arc<Places>>,
    progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
    todos: Option<Arc<dyn TodoStore>>,
    sub_agents: Option<Arc<dyn SubAgents>>,
    outputs: Option<Arc<dyn OutputStore>>,
    people: Option<Arc<dyn People>>,
    cancel: Cancel,
}

/// The people of a session, for a call that needs to know something while it runs.
pub trait People: Send + Sync {
    /// Asks, and waits until somebody answers or the time for that is over. Dropping the future takes the
    /// question back.
    fn ask(&self, questions: Vec<QuestionItem>) -> BoxFuture<'static, PeopleReply>;
}

/// What people said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeopleReply {
    /// A list of texts for each question.
    Answers(Vec<Vec<String>>),
    /// They do not want to.
    Refused,
    /// Nobody said anything in time, or could be asked.
    Nobody,
}

/// How far a call is that takes a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of output so far.
    pub bytes: u64,
    /// The end of the output so far.
    pub tail: String,
}

impl fmt::Debug for ToolContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolContext").field("places", &self.places).finish_non_exhaustive()
    }
}

/// Directories of the host, for what runs outside of the server. All other tools use the workspace.
#[derive(Debug)]
pub struct Places {
    /// The project's directory, absolute.
    pub project: PathBuf,
    /// For temporary files of its commands, absolute; made for the first one.
    pub scratch: PathBuf,
    /// The disk space that each command leaves, and that both directories may take.
    pub space: Space,
    is_prepared: OnceCell<()>,
}

impl Places {
    /// The directories of one project; clones of one `Arc` are prepared once.
    pub fn new(project: PathBuf, scratch: PathBuf, space: Space) -> Self {
        Self { project, scratch, space, is_prepared: OnceCell::new() }
    }

    /// Makes the directories ready for commands, the first time.
    ///
    /// # Errors
    ///
    /// What the file system said.
    pub async fn prepare(&self, sandbox: &Sandbox) -> io::Result<()> {
        let prepared = self.is_prepared.get_or_try_init(async || {
            let (sandbox, scratch) = (sandbox.clone(), self.scratch.clone());
            let project = self.project.clone();
            let prepare = move || {
                fs::create_dir_all(&scratch)?;
                sandbox.share_directory(&scratch)?;
                sandbox.share_directory(&project)
            };
            tokio::task::spawn_blocking(prepare).await.map_err(io::Error::other)?
        });
        prepared.await.copied()
    }
}

impl ToolContext {
    /// A context for one call. Without [`with_accesses`](Self::with_accesses) it follows no link.
    pub fn new(workspace: Workspace, read_log: Arc<ReadLog>, judge: Arc<Judge>) -> Self {
        Self {
            workspace: workspace.guarded(Arc::new(|_, _| false)),
            read_log,
            judge,
            places: None,
            progress: None,
            todos: None,
            sub_agents: None,
            outputs: None,
            people: None,
            cancel: Cancel::new(),
        }
    }

    /// A context for a call that touches `accesses`: it opens what their paths say. A path that links lead
    /// to another one by then is opened only if the rules allow that one without a question.
    #[must_use]
    pub fn with_accesses(self, accesses: Vec<Access>) -> Self {
        let judge = Arc::clone(&self.judge);
        let admits = move |named: &str, real: &str| may_lead(&judge, &accesses, named, real);
        Self { workspace: self.workspace.guarded(Arc::new(admits)), ..self }
    }

    /// A context for a call that may run commands, where there is a directory for them.
    #[must_use]
    pub fn with_places(self, places: Option<Arc<Places>>) -> Self {
        Self { places, ..self }
    }

    /// The same with the to-do list of the session.
    #[must_use]
    pub fn with_todos(mut self, todos: Arc<dyn TodoStore>) -> Self {
        self.todos = Some(todos);
        self
    }

    /// The same with the people of the session.
    #[must_use]
    pub fn with_people(mut self, people: Arc<dyn People>) -> Self {
        self.people = Some(people);
        self
    }

    /// The people of the session; `None` for a call outside of one.
    pub fn people(&self) -> Option<Arc<dyn People>> {
        self.people.clone()
    }

    /// The to-do list of the session; `None` for a call outside of one.
    pub(crate) fn todos(&self) -> Option<&dyn TodoStore> {
        self.todos.as_deref()
    }

    /// The same with what sets sub-agents to work.
    #[must_use]
    pub fn with_sub_agents(mut self, sub_agents: Arc<dyn SubAgents>) -> Self {
        self.sub_agents = Some(sub_agents);
        self
    }

    /// The same with what tools answered earlier in the session.
    #[must_use]
    pub fn with_outputs(mut self, outputs: Arc<dyn OutputStore>) -> Self {
        self.outputs = Some(outputs);
        self
    }

    /// What tools answered earlier in the session; `None` for a call outside of one.
    pub(crate) fn outputs(&self) -> Option<&dyn OutputStore> {
        self.outputs.as_deref()
    }

    /// What sets sub-agents to work; `None` for a call outside of a session.
    pub(crate) fn sub_agents(&self) -> Option<&dyn SubAgents> {
        self.sub_agents.as_deref()
    }

    /// What the rules say of reading `path` with the tool called `name`.
    pub(crate) fn may_read(&self, name: &'static str, path: &str) -> PermissionAction {
        self.judge.judge_one(&Access::read(name, Target::Path(path.to_owned()))).action
    }

    /// A context for a call that tells how far it is.
    #[must_use]
    pub fn with_progress(self, progress: Arc<dyn Fn(Progress) + Send + Sync>) -> Self {
        Self { progress: Some(progress), ..self }
    }

    /// Tells those who watch how far the call is; often enough is a few times a second.
    pub fn tell(&self, progress: Progress) {
        if let Some(tell) = &self.progress {
            tell(progress);
        }
    }

    /// The flag that is set once nobody waits for the call any more.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }
}

/// Whether whatever a call does to the path `named` is allowed for the path `real`.
fn may_lead(judge: &Judge, accesses: &[Access], named: &str, real: &str) -> bool {
    let is_named = |access: &&Access| matches!(&access.target, Target::Path(path) if path == named);
    let mut meant = accesses.iter().filter(is_named).peekable();
    meant.peek().is_some()
        && meant.all(|access| {
            let access = Access { target: Target::Path(real.to_owned()), ..access.clone() };
            judge.judge_one(&access).action == PermissionAction::Allow
        })
}

/// Which content of which file the model of one session has seen.
///
/// It remembers [`READ_LOG_FILES_MAX`] files; beyond that it forgets some, and an edit of a forgotten
/// file is treated like one of a file that was never read.
#[derive(Debug, Default)]
pub struct ReadLog {
    /// SHA-256 by path.
    hashes: Mutex<BTreeMap<String, String>>,
}

impl ReadLog {
    /// A log of a session that has read nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that the model knows the content with this SHA-256 of the file at `path`.
    pub fn record(&self, path: String, hash: String) {
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.insert(path, hash);
        if hashes.len() > READ_LOG_FILES_MAX {
            hashes.pop_first();
        }
    }

    /// The SHA-256 of the content that the model knows; `None` if it has not seen the file.
    pub fn hash(&self, path: &str) -> Option<String> {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_keeps_the_last_hash_and_a_bounded_number_of_files() {
        let log = ReadLog::new();
        for number in 0..=READ_LOG_FILES_MAX {
            log.record(format!("{number:05}"), "old".to_owned());
        }
        log.record("04096".to_owned(), "new".to_owned());
        assert_eq!(log.hash("00000"), None);
        assert_eq!(log.hash("00001").as_deref(), Some("old"));
        assert_eq!(log.hash("04096").as_deref(), Some("new"));
    }
}
