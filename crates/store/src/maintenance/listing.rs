//! What a root database that may belong to a running server says of its projects.

use std::path::Path;

use iris_protocol::{ProjectId, ProjectType, Role, UserId};
use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::{Map, Value};

use super::{read_only, read_write};
use crate::root::rows;
use crate::{StoreError, root};

/// A project with its members, as the root database knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedProject {
    /// The project.
    pub id: ProjectId,
    /// Never empty.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Where its files live.
    pub r#type: ProjectType,
    /// The directory of its files; `None`: in the data directory.
    pub path: Option<String>,
    /// Where a project of the type `git` was cloned from, without credentials.
    pub git: Option<ListedGit>,
    /// Free-form.
    pub settings: Map<String, Value>,
    /// Milliseconds since 1970 UTC.
    pub created_at: i64,
    /// Milliseconds since 1970 UTC, while it is read-only.
    pub archived_at: Option<i64>,
    /// The user who may do everything with it.
    pub owner_id: UserId,
    /// In the order in which they joined; the owner is among them.
    pub members: Vec<ListedMember>,
}

/// The repository of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedGit {
    /// Where it is.
    pub url: String,
    /// The branch that was asked for, if one was.
    pub branch: Option<String>,
}

/// A member of a project, as other servers can know them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedMember {
    /// The user.
    pub user_id: UserId,
    /// Lower case.
    pub email: String,
    /// The name that others see.
    pub username: String,
    /// What they may do.
    pub role: Role,
}

/// Every project of the root database at `path`, oldest first. Works beside a running server.
///
/// # Errors
/// `Corrupt` for a file that is missing, empty, cut off or no root database; `Newer`.
pub fn list_projects(path: &Path) -> Result<Vec<ListedProject>, StoreError> {
    let mut conn = read_only(path, root::SCHEMA)?;
    root::identify(&conn)?;
    let tx = conn.transaction()?;
    let mut statement = tx.prepare(&format!("SELECT {COLUMNS} FROM projects ORDER BY id"))?;
    let projects = statement.query_map([], project)?;
    let mut projects = projects.collect::<Result<Vec<_>, _>>()?;
    for project in &mut projects {
        project.members = members(&tx, &project.id)?;
        project.git = git(&tx, project)?;
    }
    Ok(projects)
}

const COLUMNS: &str =
    "id, name, description, type, path, settings, created_at, archived_at, owner_id";

/// Without its members and its repository.
fn project(row: &Row<'_>) -> rusqlite::Result<ListedProject> {
    let settings: String = row.get(5)?;
    Ok(ListedProject {
        id: rows::id(row, 0)?,
        name: row.get(1)?,
        description: row.get(2)?,
        r#type: rows::project_type(row, 3)?,
        path: row.get(4)?,
        settings: serde_json::from_str(&settings).map_err(|error| rows::unreadable(5, error))?,
        created_at: row.get(6)?,
        archived_at: row.get(7)?,
        owner_id: rows::id(row, 8)?,
        git: None,
        members: Vec::new(),
    })
}

pub(crate) fn one_sql() -> String {
    format!("SELECT {COLUMNS} FROM projects WHERE id = ?1")
}

/// One of them, for a reader of the root database.
pub(crate) fn one(conn: &Connection, id: &ProjectId) -> Result<Option<ListedProject>, StoreError> {
    let mut statement = conn.prepare_cached(&one_sql())?;
    let found = statement.query_row([id.as_str()], project).optional()?;
    let Some(mut project) = found else { return Ok(None) };
    project.members = members(conn, id)?;
    project.git = git(conn, &project)?;
    Ok(Some(project))
}

/// A database from before there was the type has no table for it.
fn git(conn: &Connection, project: &ListedProject) -> Result<Option<ListedGit>, StoreError> {
    if project.r#type != ProjectType::Git {
        return Ok(None);
    }
    let sql = "SELECT url, branch FROM project_git WHERE project_id = ?1";
    let found = conn.prepare_cached(sql)?.query_row([project.id.as_str()], |row| {
        Ok(ListedGit { url: row.get(0)?, branch: row.get(1)? })
    });
    Ok(found.optional()?)
}

fn members(conn: &Connection, id: &ProjectId) -> Result<Vec<ListedMember>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT m.user_id, u.email, u.username, m.role
         FROM project_members m JOIN users u ON u.id = m.user_id
         WHERE m.project_id = ?1 ORDER BY m.joined_at, m.user_id",
    )?;
    let members = statement.query_map([id.as_str()], |row| {
        Ok(ListedMember {
            user_id: rows::id(row, 0)?,
            email: row.get(1)?,
            username: row.get(2)?,
            role: rows::role(row, 3)?,
        })
    })?;
    Ok(members.collect::<Result<_, _>>()?)
}

/// Moves the files of all projects into the data directory, as far as the root database at `path`
/// says where they are. Changes the file: for a copy that no server has open yet.
///
/// # Errors
/// As [`list_projects`]; `StorageFull` and `Internal` as the disk fails.
pub fn detach_directories(path: &Path) -> Result<(), StoreError> {
    change(path, |conn| {
        conn.execute("UPDATE projects SET path = NULL WHERE path IS NOT NULL", [])?;
        Ok(())
    })
}

/// Has the next start of a server open all projects that the root database at `path` lists, in case
/// there is work to take up: their databases may be younger than what it says about that. Changes the
/// file, see [`detach_directories`].
///
/// # Errors
/// As [`detach_directories`].
pub fn mark_all_unfinished(path: &Path) -> Result<(), StoreError> {
    change(path, |conn| {
        // A database of an older schema is marked as it is brought up to date.
        if conn.table_exists(None, "unfinished_work")? {
            let sql = "INSERT OR IGNORE INTO unfinished_work (project_id, since)
                       SELECT id, created_at FROM projects";
            conn.execute(sql, [])?;
        }
        Ok(())
    })
}

fn change(
    path: &Path,
    change: impl FnOnce(&Connection) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    root::identify(&read_only(path, root::SCHEMA)?)?;
    let conn = read_write(path)?;
    conn.execute_batch("PRAGMA synchronous = FULL")?;
    change(&conn)?;
    conn.close().map_err(|(_, error)| error)?;
    Ok(())
}
