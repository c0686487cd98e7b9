//! Repositories of projects: git in the sandbox, never in a shell, with a configuration of ours.
//!
//! There are two repositories of a project that was cloned. The one among the files is for people and agents, and
//! commands may have changed it in any way: git works there without a network and without credentials. The mirror
//! beside it is ours alone: only there does git reach the other side, and what passes between the two is fetched
//! by paths, so nothing that stands among the files decides where a token goes.

mod changing;
mod clones;
mod command;
mod home;
mod parse;
mod reading;
mod remote;
mod settling;
mod source;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use iris_protocol::{ApiError, ErrorCode, User};
use iris_sandbox::{Network, Sandbox, SandboxError};
use iris_tools::Places;

use crate::Node;
use crate::files::Place;
use crate::project::ProjectHandle;

use command::{Ran, Run};
use home::Home;

pub(crate) use clones::{Clones, GIVEN_UP, begin_clone, stop_all, stop_clone, stop_clones_of};
pub(crate) use settling::{Doing, Worked, note};
pub use source::Reach;
pub(crate) use source::{check_branch, check_source, seal, sealed_for};

/// How git works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GitSettings {
    /// How long it may take to clone, to fetch and to push.
    pub time: Duration,
    /// How long the other side may send next to nothing; in whole seconds, at least one.
    pub stall: Duration,
    /// Most bytes of a repository, where the quota of a project's files is not less; its files come on top.
    pub bytes_max: u64,
}

impl Default for GitSettings {
    fn default() -> Self {
        Self {
            time: Duration::from_mins(30),
            stall: Duration::from_secs(30),
            bytes_max: 4 * 1024 * 1024 * 1024,
        }
    }
}

/// What goes before a command whose paths have magic (gitglossary(7), "pathspec").
const WITH_MAGIC: &str = "--no-literal-pathspecs";
/// Paths that leave out what is being received or written, whatever the repository ignores. What people name goes
/// beside them with [`literal`].
const NOTHING_UNFINISHED: [&str; 2] =
    [":(exclude,glob)**/.iris-tmp-*", ":(exclude,glob)**/.iris-tmp-*/**"];

/// How long git may work where it reaches nobody.
const LOCAL_TIME: Duration = Duration::from_mins(5);
/// Most bytes that it may say where an answer is short.
const SHORT: usize = 64 * 1024;

/// The repository among the files of a project.
pub(crate) struct Repository<'a> {
    node: &'a Node,
    project: &'a ProjectHandle,
    /// Where its commands run.
    places: Arc<Places>,
    sandbox: &'a Sandbox,
    home: Home,
}

impl<'a> Repository<'a> {
    /// Makes it ready to be worked with.
    ///
    /// # Errors
    /// `SANDBOX_UNAVAILABLE`; `CONFLICT` with reason `not_a_repository`.
    pub(crate) async fn open(node: &'a Node, project: &'a ProjectHandle) -> Result<Self, ApiError> {
        let Some(places) = &project.places else { return Err(no_repository()) };
        let at = places.project.join(".git");
        let found = tokio::task::spawn_blocking(move || at.symlink_metadata()).await;
        // A file or a link leads elsewhere, where the sandbox has nothing.
        if found.map_err(broken)?.is_ok_and(|found| found.is_dir()) {
            return Self::prepare(node, project).await;
        }
        Err(no_repository())
    }

    /// The same where there may be no repository yet.
    async fn prepare(node: &'a Node, project: &'a ProjectHandle) -> Result<Self, ApiError> {
        let sandbox = sandbox(node)?;
        let home = Home::of(&node.services.settings.data_dir, &project.id);
        home.prepare(sandbox).await?;
        let places = project.places.clone().ok_or_else(no_repository)?;
        places.prepare(sandbox).await.map_err(broken)?;
        Ok(Self { node, project, places, sandbox, home })
    }

    fn place(&self) -> Place<'_> {
        Place { project: self.project, services: &self.node.services }
    }

    /// A run of git among the files, which reaches nobody.
    fn run(&self, arguments: &[&str]) -> Run {
        let places = &self.places;
        let mut run = Run::new(&places.project, &places.scratch, &self.home, arguments);
        run.read_only.push(self.home.directory().to_owned());
        run
    }

    /// Runs git and reads what it says; it must work.
    async fn ask(&self, arguments: &[&str]) -> Result<String, ApiError> {
        let ran = self.run(arguments).within(self.sandbox).await?;
        Ok(String::from_utf8_lossy(&ran.worked()?.output).trim_end().to_owned())
    }

    /// Runs git without taking locks that others could meet.
    async fn look(&self, arguments: &[&str], output_max: usize) -> Result<Ran, ApiError> {
        let mut run = Run { output_max, ..self.run(arguments) };
        run.env.push(("GIT_OPTIONAL_LOCKS".to_owned(), "0".to_owned()));
        run.within(self.sandbox).await
    }

    /// The commit that a name leads to, if it leads to one.
    async fn commit_of(&self, name: &str) -> Result<Option<String>, ApiError> {
        let commit = format!("{name}^{{commit}}");
        let arguments = ["rev-parse", "--verify", "--quiet", "--end-of-options", &commit];
        let ran = self.look(&arguments, SHORT).await?;
        let hash = String::from_utf8_lossy(&ran.output).trim().to_owned();
        Ok((ran.code == 0 && parse::is_hash(&hash)).then_some(hash))
    }

    /// The branch that is checked out.
    pub(crate) async fn current_branch(&self) -> Result<Option<String>, ApiError> {
        Ok(branch_of(&self.look(&HEAD_BRANCH, SHORT).await?))
    }
}

/// What asks for the branch that is checked out: in full, since what is short depends on the tags that there are.
const HEAD_BRANCH: [&str; 3] = ["symbolic-ref", "--quiet", "HEAD"];

/// What git says of [`HEAD_BRANCH`].
fn branch_of(ran: &Ran) -> Option<String> {
    let text = String::from_utf8_lossy(&ran.output);
    let name = text.trim().strip_prefix("refs/heads/")?;
    (ran.code == 0 && check_branch("branch", name).is_ok()).then(|| name.to_owned())
}

/// A path without magic, among others that have some.
fn literal(path: &str) -> String {
    format!(":(literal){path}")
}

fn no_repository() -> ApiError {
    let message = "the project's directory is not the top of a git work tree";
    ApiError::new(ErrorCode::Conflict, message).reason("not_a_repository")
}

/// Where git runs.
fn sandbox(node: &Node) -> Result<&Sandbox, ApiError> {
    let Some(sandbox) = &node.services.sandbox else {
        let message = "this server runs no commands, and git is one";
        return Err(ApiError::new(ErrorCode::SandboxUnavailable, message));
    };
    sandbox.check().map_err(not_run)?;
    Ok(sandbox)
}

/// What people are told of a command that did not run.
fn not_run(error: SandboxError) -> ApiError {
    match &error {
        SandboxError::Unavailable { .. } | SandboxError::NetworkUnavailable { .. } => {
            ApiError::new(ErrorCode::SandboxUnavailable, error.to_string())
        }
        SandboxError::Program { .. } => {
            let message = "git is not installed on the server's machine";
            ApiError::new(ErrorCode::SandboxUnavailable, message)
        }
        SandboxError::InvalidRequest { .. }
        | SandboxError::Directory { .. }
        | SandboxError::Setup { .. }
        | SandboxError::Launcher { .. } => broken(error),
    }
}

fn broken(error: impl std::fmt::Display) -> ApiError {
    tracing::error!(%error, "work with a repository failed inside the server");
    ApiError::new(ErrorCode::Internal, "internal error")
}

fn conflict(reason: &'static str, message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::Conflict, message.into()).reason(reason)
}

/// Who commits.
fn identity(user: &User) -> Vec<(String, String)> {
    let (name, email) = (user.username.as_str(), user.email.as_str());
    let pairs = [
        ("GIT_AUTHOR_NAME", name),
        ("GIT_AUTHOR_EMAIL", email),
        ("GIT_COMMITTER_NAME", name),
        ("GIT_COMMITTER_EMAIL", email),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

/// A path as git is given it.
fn text_of(path: &Path) -> Result<&str, ApiError> {
    path.to_str().ok_or_else(|| broken("a directory of the server is no text"))
}
