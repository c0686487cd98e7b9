//! What git is about to change among the files of a project, written down before it begins. A row that nobody works on
//! was left by a crash.

use iris_protocol::{Event, ProjectId, UserId};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::outbox;
use super::projects::existing;
use crate::column::word;
use crate::writer::IdempotencyKey;
use crate::{Command, StoreError, WhenFull, WriteTx};

/// What of a repository is worked on, by one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GitPart {
    /// The files, the index and the branches of this side.
    Files,
    /// What is known of the branches of the other side.
    Branches,
}

impl GitPart {
    const fn text(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Branches => "branches",
        }
    }
}

/// What git is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum GitWorkKind {
    /// Another branch is checked out.
    Switch {
        /// The branch.
        branch: String,
        /// The branch that was checked out; none where there was none.
        from: Option<String>,
        /// The commit that was checked out; none where there was none.
        before: Option<String>,
        /// The commit that is to be.
        to: Option<String>,
        /// Whether the branch is made.
        is_new: bool,
    },
    /// A commit is made.
    Commit {
        /// The commit that it follows; none where it is the first one.
        before: Option<String>,
        /// The address of who commits.
        email: String,
        /// When it is made, in seconds since 1970 UTC.
        at: i64,
    },
    /// A commit of the other side is brought into the branch.
    Merge {
        /// The commit that was checked out; none where there was none.
        before: Option<String>,
        /// The commit of the other side.
        other: String,
    },
    /// What is known of the branches of the other side changes.
    Track,
}

/// What git was about to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitWork {
    /// The project.
    pub project_id: ProjectId,
    /// What it is.
    pub kind: GitWorkKind,
    /// Locks that others had before it began, as paths below the project's directory.
    pub locks: Vec<String>,
    /// Under which it is noted.
    pub key: Option<IdempotencyKey>,
    /// Who does it.
    pub by: UserId,
    /// When it began, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl GitWork {
    /// What of the repository it works on.
    pub const fn part(&self) -> GitPart {
        match self.kind {
            GitWorkKind::Switch { .. } | GitWorkKind::Commit { .. } | GitWorkKind::Merge { .. } => {
                GitPart::Files
            }
            GitWorkKind::Track => GitPart::Branches,
        }
    }
}

/// How the work stands in its column, beside how often it was tried to settle it.
#[derive(Serialize, Deserialize)]
struct Written {
    kind: GitWorkKind,
    locks: Vec<String>,
}

/// Writes down what git is about to do.
///
/// Fails with `NotFound` for no project, and with `Conflict`, reason `git_busy`, while something is written down for
/// the same part: nobody forgets what another one has not settled.
#[derive(Debug, Clone)]
pub struct BeginGitWork(pub GitWork);

impl Command for BeginGitWork {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let part = self.0.part().text();
        let GitWork { project_id, kind, locks, key, by, at } = self.0;
        existing(tx.conn(), &project_id)?;
        let work = serde_json::to_string(&Written { kind, locks })?;
        let key = key.map(|key| serde_json::to_string(&key)).transpose()?;
        let sql = "INSERT INTO git_work (project_id, part, work, key, by, at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";
        let values = params![project_id.as_str(), part, work, key, by.as_str(), at];
        if tx.conn().prepare_cached(sql)?.execute(values)? == 0 {
            let message = "git works on the repository, or was cut off there".to_owned();
            return Err(StoreError::Conflict { reason: "git_busy", message });
        }
        Ok(())
    }
}

/// Counts a try to settle what was cut off, and answers which one it is.
#[derive(Debug, Clone)]
pub struct TryGitWork {
    /// The project.
    pub project_id: ProjectId,
    /// What of its repository is settled.
    pub part: GitPart,
}

impl Command for TryGitWork {
    type Output = u64;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<u64, StoreError> {
        let sql = "UPDATE git_work SET work = json_set(work, '$.tries', ifnull(work ->> '$.tries', 0) + 1)
                   WHERE project_id = ?1 AND part = ?2 RETURNING work ->> '$.tries'";
        let values = params![self.project_id.as_str(), self.part.text()];
        let tries = tx.conn().prepare_cached(sql)?.query_row(values, |row| row.get(0));
        Ok(tries.optional()?.unwrap_or_default())
    }
}

/// Forgets what git was about to do: it did not do it, or what it did is told by what is there.
#[derive(Debug, Clone)]
pub struct EndGitWork {
    /// The project.
    pub project_id: ProjectId,
    /// What of its repository nobody works on any more.
    pub part: GitPart,
}

impl Command for EndGitWork {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        end(tx.conn(), &self.project_id, self.part)
    }
}

/// Notes what became of a repository, for who asks again under the same key, and ends the work on it. The project is
/// told of it. Answers what the caller was answered.
///
/// Fails with `NotFound` for no project.
#[derive(Debug, Clone)]
pub struct NoteGit {
    /// The project.
    pub project_id: ProjectId,
    /// What became of it.
    pub event: Event,
    /// What the caller is answered.
    pub answer: Value,
    /// What of the repository nobody works on any more.
    pub part: GitPart,
    /// Who did it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for NoteGit {
    type Output = Value;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Value, StoreError> {
        existing(tx.conn(), &self.project_id)?;
        outbox::put(tx, &self.project_id, &self.event, &self.by, self.at)?;
        end(tx.conn(), &self.project_id, self.part)?;
        Ok(self.answer)
    }
}

fn end(conn: &Connection, id: &ProjectId, part: GitPart) -> Result<(), StoreError> {
    let sql = "DELETE FROM git_work WHERE project_id = ?1 AND part = ?2";
    conn.prepare_cached(sql)?.execute(params![id.as_str(), part.text()])?;
    Ok(())
}

/// What git works on, or was about to, in a project.
pub(super) fn find(conn: &Connection, id: &ProjectId) -> Result<Vec<GitWork>, StoreError> {
    let sql = "SELECT * FROM git_work WHERE project_id = ?1 ORDER BY part";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([id.as_str()])?;
    let mut works = Vec::new();
    while let Some(found) = rows.next()? {
        works.push(row(found)?);
    }
    Ok(works)
}

/// The projects in which it does, or was about to.
pub(super) fn projects(conn: &Connection) -> Result<Vec<ProjectId>, StoreError> {
    let sql = "SELECT DISTINCT project_id FROM git_work ORDER BY project_id";
    let mut statement = conn.prepare_cached(sql)?;
    let found = statement.query_map([], |row| word(row, "project_id"))?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn row(row: &Row<'_>) -> Result<GitWork, StoreError> {
    let Written { kind, locks } = serde_json::from_str(&row.get::<_, String>("work")?)?;
    let key: Option<String> = row.get("key")?;
    Ok(GitWork {
        project_id: word(row, "project_id")?,
        kind,
        locks,
        key: key.map(|key| serde_json::from_str(&key)).transpose()?,
        by: word(row, "by")?,
        at: row.get("at")?,
    })
}
