//! Projects that are cloned with git: where from, with which credentials, and how far it is. The token comes in
//! sealed: the store cannot open it.

use iris_protocol::limits::CLONES_PER_USER_MAX;
use iris_protocol::{CloneState, Event, GitAction, Project, ProjectId, UserId};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::outbox;
use super::projects::{existing, existing_project};
use crate::column::word;
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Where a new project is cloned from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGit {
    /// Without credentials.
    pub url: String,
    /// The branch to begin with; that of the repository without it.
    pub branch: Option<String>,
    /// The name that goes with the token.
    pub username: Option<String>,
    /// The token, sealed for the project.
    pub sealed: Option<String>,
}

/// What is known of a project's repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredGit {
    /// The project.
    pub project_id: ProjectId,
    /// Where from, and with what.
    pub source: NewGit,
    /// How far it is.
    pub state: CloneState,
    /// Who asked for the last clone.
    pub by: UserId,
}

/// Notes where a new project comes from: one that is to be cloned, or whose files are there.
pub(super) fn insert(
    conn: &Connection,
    id: &ProjectId,
    git: &NewGit,
    by: &UserId,
    at: i64,
    state: CloneState,
) -> Result<(), StoreError> {
    if state == CloneState::Cloning {
        refuse_too_many(conn, by)?;
    }
    let sql = "INSERT INTO project_git
                   (project_id, url, branch, username, sealed, state, by, changed_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    conn.prepare_cached(sql)?.execute(params![
        id.as_str(),
        git.url,
        git.branch,
        git.username,
        git.sealed,
        text(state),
        by.as_str(),
        at
    ])?;
    Ok(())
}

/// How far a clone is, as it stands in its column.
const fn text(state: CloneState) -> &'static str {
    match state {
        CloneState::Cloning => "cloning",
        CloneState::Ready => "ready",
        CloneState::Failed => "failed",
    }
}

/// The server has room for a few clones at once, and nobody is to take all of it.
fn refuse_too_many(conn: &Connection, by: &UserId) -> Result<(), StoreError> {
    let sql = "SELECT count(*) FROM project_git WHERE state = 'cloning' AND by = ?1";
    let under_way: u64 = conn.prepare_cached(sql)?.query_row([by.as_str()], |row| row.get(0))?;
    if under_way >= CLONES_PER_USER_MAX {
        let message = format!(
            "{CLONES_PER_USER_MAX} clones that you asked for are under way: wait, or give one up"
        );
        return Err(StoreError::conflict("too_many_clones", message));
    }
    Ok(())
}

fn changed(project_id: &ProjectId, action: GitAction, error: Option<String>) -> Event {
    let project_id = project_id.clone();
    Event::GitChanged { project_id, action, branch: None, commit: None, error }
}

/// Begins the clone of a project again that failed. The project is told of it. Answers the project as `by` sees
/// it.
///
/// Fails with `NotFound` for no project, with `Conflict`: `not_git`, `clone_not_failed`, `too_many_clones`.
#[derive(Debug, Clone)]
pub struct BeginClone {
    /// The project.
    pub project_id: ProjectId,
    /// Who asks for it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for BeginClone {
    type Output = Project;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Project, StoreError> {
        let git = existing_git(tx.conn(), &self.project_id)?;
        if git.state != CloneState::Failed {
            let message = "the project is being cloned, or was";
            return Err(StoreError::conflict("clone_not_failed", message));
        }
        refuse_too_many(tx.conn(), &self.by)?;
        let sql = "UPDATE project_git SET state = 'cloning', error = NULL, by = ?2, changed_at = ?3
                   WHERE project_id = ?1";
        let values = params![self.project_id.as_str(), self.by.as_str(), self.at];
        tx.conn().prepare_cached(sql)?.execute(values)?;
        let event = changed(&self.project_id, GitAction::Cloning, None);
        outbox::put(tx, &self.project_id, &event, &self.by, self.at)?;
        existing_project(tx.conn(), &self.by, &self.project_id)
    }
}

/// Notes how a clone ended. The project is told of it. Does nothing where none is under way.
#[derive(Debug, Clone)]
pub struct EndClone {
    /// The project.
    pub project_id: ProjectId,
    /// Why it failed; none where it worked.
    pub error: Option<String>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for EndClone {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let git = existing_git(tx.conn(), &self.project_id)?;
        if git.state != CloneState::Cloning {
            return Ok(());
        }
        let (state, action) = match self.error {
            Some(_) => (CloneState::Failed, GitAction::CloneFailed),
            None => (CloneState::Ready, GitAction::Cloned),
        };
        let sql = "UPDATE project_git SET state = ?2, error = ?3, changed_at = ?4
                   WHERE project_id = ?1";
        let values = params![self.project_id.as_str(), text(state), self.error, self.at];
        tx.conn().prepare_cached(sql)?.execute(values)?;
        let event = changed(&self.project_id, action, self.error);
        outbox::put(tx, &self.project_id, &event, &git.by, self.at)
    }
}

/// Sets name and token of a project's repository. The project is told that it was done. Answers the project as
/// `by` sees it.
///
/// Fails with `NotFound` for no project, with `Conflict`: `not_git`.
#[derive(Debug, Clone)]
pub struct SetGitCredentials {
    /// The project.
    pub project_id: ProjectId,
    /// The name that goes with the token.
    pub username: Option<String>,
    /// The token, sealed for the project; none takes it away.
    pub sealed: Option<String>,
    /// Who sets it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for SetGitCredentials {
    type Output = Project;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Project, StoreError> {
        existing_git(tx.conn(), &self.project_id)?;
        let sql = "UPDATE project_git SET username = ?2, sealed = ?3, changed_at = ?4
                   WHERE project_id = ?1";
        let values = params![self.project_id.as_str(), self.username, self.sealed, self.at];
        tx.conn().prepare_cached(sql)?.execute(values)?;
        let event = changed(&self.project_id, GitAction::Credentials, None);
        outbox::put(tx, &self.project_id, &event, &self.by, self.at)?;
        existing_project(tx.conn(), &self.by, &self.project_id)
    }
}

/// Puts a newly sealed token in the place of one that was sealed with the key before, unless it changed meanwhile.
/// Answers whether it did not.
#[derive(Debug, Clone)]
pub struct SealGitAgain {
    /// The project.
    pub project_id: ProjectId,
    /// As it was read.
    pub before: String,
    /// Sealed with the key of now.
    pub sealed: String,
}

impl Command for SealGitAgain {
    type Output = bool;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<bool, StoreError> {
        let sql = "UPDATE project_git SET sealed = ?3 WHERE project_id = ?1 AND sealed = ?2";
        let values = params![self.project_id.as_str(), self.before, self.sealed];
        Ok(tx.conn().prepare_cached(sql)?.execute(values)? > 0)
    }
}

fn existing_git(conn: &Connection, id: &ProjectId) -> Result<StoredGit, StoreError> {
    existing(conn, id)?;
    find(conn, id)?.ok_or_else(|| {
        StoreError::conflict("not_git", "the project was not cloned from a repository")
    })
}

/// The repository of a project; none for a project of another type.
pub(super) fn find(conn: &Connection, id: &ProjectId) -> Result<Option<StoredGit>, StoreError> {
    let sql = "SELECT * FROM project_git WHERE project_id = ?1";
    Ok(conn.prepare_cached(sql)?.query_row([id.as_str()], row).optional()?)
}

/// The projects whose clone did not end.
pub(super) fn cloning(conn: &Connection) -> Result<Vec<ProjectId>, StoreError> {
    let sql = "SELECT project_id FROM project_git WHERE state = 'cloning' ORDER BY project_id";
    let mut statement = conn.prepare_cached(sql)?;
    let found = statement.query_map([], |row| word(row, "project_id"))?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn row(row: &Row<'_>) -> rusqlite::Result<StoredGit> {
    Ok(StoredGit {
        project_id: word(row, "project_id")?,
        source: NewGit {
            url: row.get("url")?,
            branch: row.get("branch")?,
            username: row.get("username")?,
            sealed: row.get("sealed")?,
        },
        state: word(row, "state")?,
        by: word(row, "by")?,
    })
}
