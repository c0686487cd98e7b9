//! Commands on projects.

use std::path::Path;

use iris_protocol::{CloneState, Event, Project, ProjectId, ProjectType, Role, UserId};
use rusqlite::{Connection, params};
use serde_json::{Map, Value};

use super::git::{self, NewGit};
use super::intents::{self, Intent};
use super::members::insert_member;
use super::outbox;
use super::queries::{project, project_location};
use super::rows::project_type_text;
use super::users::existing_user;
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Creates a project with its owner as its first member, and ends the intent to make its directory.
/// Answers the project as the owner sees it.
///
/// Fails with `NotFound` when there is no such owner, with `Conflict` and `path_taken` when another
/// project's directory, or a repository of this machine that it is cloned from, is the same, lies in this one or
/// holds it.
#[derive(Debug, Clone)]
pub struct CreateProject {
    /// The new project.
    pub id: ProjectId,
    /// The user who may do everything with it.
    pub owner_id: UserId,
    /// Never empty.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Where its files live.
    pub r#type: ProjectType,
    /// The directory of its files where that lies outside the data directory: absolute, and without
    /// links, since it is compared with others by its text.
    pub path: Option<String>,
    /// Where a project of the type `git` is cloned from.
    pub git: Option<NewGit>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for CreateProject {
    type Output = Project;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Project, StoreError> {
        existing_user(tx.conn(), &self.owner_id)?;
        if let Some(path) = &self.path {
            refuse_taken_path(tx.conn(), Path::new(path))?;
            refuse_cloned_path(tx.conn(), Path::new(path))?;
        }
        // Whoever clones what another project has sees all of it, members or not.
        if let Some(git) = &self.git
            && is_of_another(tx.conn(), &git.url)?
        {
            return Err(path_taken());
        }
        tx.conn()
            .prepare_cached(
                "INSERT INTO projects
                     (id, owner_id, name, description, type, path, created_at, updated_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)",
            )?
            .execute(params![
                self.id.as_str(),
                self.owner_id.as_str(),
                self.name,
                self.description,
                project_type_text(self.r#type),
                self.path,
                self.at,
            ])?;
        if let Some(git) = &self.git {
            git::insert(tx.conn(), &self.id, git, &self.owner_id, self.at, CloneState::Cloning)?;
        }
        insert_member(tx.conn(), &self.id, &self.owner_id, Role::Owner, self.at)?;
        intents::end(tx, &self.id)?;
        existing_project(tx.conn(), &self.owner_id, &self.id)
    }
}

const AT_PATH: &str = "SELECT 1 FROM projects WHERE path = ?1";
/// A slash is followed by a zero in the order of characters.
const BELOW_PATH: &str =
    "SELECT 1 FROM projects WHERE path > ?1 || '/' AND path < ?1 || '0' LIMIT 1";

/// The same of the repositories of this machine that projects were cloned from.
const AT_SOURCE: &str = "SELECT 1 FROM project_git WHERE url = 'file://' || ?1";
const BELOW_SOURCE: &str = "SELECT 1 FROM project_git
    WHERE url > 'file://' || ?1 || '/' AND url < 'file://' || ?1 || '0' LIMIT 1";

/// Two projects in one place would write each other's files.
fn refuse_taken_path(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    if overlaps(conn, path, AT_PATH, BELOW_PATH)? { Err(path_taken()) } else { Ok(()) }
}

fn path_taken() -> StoreError {
    let message = "the path is, holds or lies in the directory of another project";
    StoreError::conflict("path_taken", message)
}

/// Whether an address leads to the directory of a project of this server.
pub(super) fn is_of_another(conn: &Connection, url: &str) -> Result<bool, StoreError> {
    match url.strip_prefix("file://") {
        Some(path) => overlaps(conn, Path::new(path), AT_PATH, BELOW_PATH),
        None => Ok(false),
    }
}

/// Whoever works there would decide over what another project fetches, and see what it sends.
fn refuse_cloned_path(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    if overlaps(conn, path, AT_SOURCE, BELOW_SOURCE)? {
        let message =
            "the path is, holds or lies in a repository that another project is cloned from";
        return Err(StoreError::conflict("path_taken", message));
    }
    Ok(())
}

/// Whether one of the directories is the path, holds it or lies in it.
fn overlaps(conn: &Connection, path: &Path, at: &str, below: &str) -> Result<bool, StoreError> {
    let mut at = conn.prepare_cached(at)?;
    // Nothing is left of the root directory's slash: all others lie below it.
    let place = path.to_str().unwrap_or_default().trim_end_matches('/');
    for ancestor in Path::new(place).ancestors().chain([path]).filter_map(Path::to_str) {
        if at.exists([ancestor])? {
            return Ok(true);
        }
    }
    Ok(conn.prepare_cached(below)?.exists([place])?)
}

/// Changes a project; what is `None` stays as it is. The project is told of it. Answers the project as
/// `by` sees it.
///
/// Fails with `NotFound` when there is no such project or `by` is not a member.
#[derive(Debug, Clone)]
pub struct UpdateProject {
    /// The project.
    pub id: ProjectId,
    /// Never empty.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Replaces all settings.
    pub settings: Option<Map<String, Value>>,
    /// The user who changes it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for UpdateProject {
    type Output = Project;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Project, StoreError> {
        let settings = self.settings.map(|settings| Value::Object(settings).to_string());
        tx.conn()
            .prepare_cached(
                "UPDATE projects
                 SET name = COALESCE(?2, name), description = COALESCE(?3, description),
                     settings = COALESCE(?4, settings), updated_at = ?5
                 WHERE id = ?1",
            )?
            .execute(params![self.id.as_str(), self.name, self.description, settings, self.at])?;
        let project = existing_project(tx.conn(), &self.by, &self.id)?;
        let event = Event::ProjectUpdated { project_id: self.id, name: project.name.clone() };
        outbox::put(tx, &project.id, &event, &self.by, self.at)?;
        Ok(project)
    }
}

/// Changes settings of a project (RFC 7396, one level deep): null takes one away, others are replaced. The
/// project is told of it. Answers all settings.
///
/// Fails with `NotFound` when there is no such project or `by` is not a member, with `Conflict` and
/// `settings_too_large` when they would be larger than allowed.
#[derive(Debug, Clone)]
pub struct MergeProjectSettings {
    /// The project.
    pub id: ProjectId,
    /// The settings to change.
    pub changes: Map<String, Value>,
    /// Most bytes that all of them may have as JSON.
    pub bytes_max: usize,
    /// The user who changes them.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for MergeProjectSettings {
    type Output = Map<String, Value>;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Map<String, Value>, StoreError> {
        let Project { mut settings, .. } = existing_project(tx.conn(), &self.by, &self.id)?;
        for (key, value) in self.changes {
            if value.is_null() {
                settings.shift_remove(&key);
            } else {
                settings.insert(key, value);
            }
        }
        if serde_json::to_string(&settings)?.len() > self.bytes_max {
            let message =
                format!("the settings of a project have at most {} bytes", self.bytes_max);
            return Err(StoreError::conflict("settings_too_large", message));
        }
        let (id, by, at) = (self.id, self.by, self.at);
        let settings = Some(settings);
        let update = UpdateProject { id, name: None, description: None, settings, by, at };
        Ok(update.run(tx)?.settings)
    }
}

/// Archives a project or brings it back. The project is told of it. Answers the project as `by` sees
/// it.
///
/// A project that is archived already keeps the time of the first archive. Fails with `NotFound` when
/// there is no such project or `by` is not a member.
#[derive(Debug, Clone)]
pub struct SetProjectArchived {
    /// The project.
    pub id: ProjectId,
    /// Whether it is archived, or brought back.
    pub archived: bool,
    /// The user who does it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for SetProjectArchived {
    type Output = Project;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Project, StoreError> {
        tx.conn()
            .prepare_cached(
                "UPDATE projects
                 SET archived_at = CASE WHEN ?2 IS NULL THEN NULL ELSE COALESCE(archived_at, ?2) END
                 WHERE id = ?1",
            )?
            .execute(params![self.id.as_str(), self.archived.then_some(self.at)])?;
        let project = existing_project(tx.conn(), &self.by, &self.id)?;
        let project_id = self.id;
        let event = if self.archived {
            Event::ProjectArchived { project_id }
        } else {
            Event::ProjectUnarchived { project_id }
        };
        outbox::put(tx, &project.id, &event, &self.by, self.at)?;
        Ok(project)
    }
}

/// Deletes a project and its memberships. Its database and files are the caller's to delete, which is
/// written down until [`super::ForgetDirectory`].
///
/// Fails with `NotFound` when there is no such project.
#[derive(Debug, Clone)]
pub struct DeleteProject {
    /// The project.
    pub id: ProjectId,
    /// Whether its backups stay.
    pub keep_backups: bool,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for DeleteProject {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let deleted = tx
            .conn()
            .prepare_cached("DELETE FROM projects WHERE id = ?1")?
            .execute([self.id.as_str()])?;
        if deleted == 0 {
            return Err(StoreError::NotFound { what: "project" });
        }
        let intent = if self.keep_backups { Intent::RemovingFiles } else { Intent::Removing };
        intents::begin(tx, &self.id, intent, self.at)
    }
}

/// Refuses what is about a project that does not exist.
pub(super) fn existing(conn: &Connection, id: &ProjectId) -> Result<(), StoreError> {
    match project_location(conn, id)? {
        Some(_) => Ok(()),
        None => Err(StoreError::NotFound { what: "project" }),
    }
}

/// The project as a user sees it, who has to be a member.
pub(super) fn existing_project(
    conn: &Connection,
    user_id: &UserId,
    id: &ProjectId,
) -> Result<Project, StoreError> {
    project(conn, user_id, id)?.ok_or(StoreError::NotFound { what: "project" })
}
