//! Rows of the root database as the types of the wire.

use std::error::Error;
use std::str::FromStr;

use iris_protocol::{CloneState, Member, Project, ProjectGit, ProjectType, Role, User};
use rusqlite::Row;
use rusqlite::types::Type;

/// The columns that [`user`] reads, of `users u`.
pub(super) const USER_COLUMNS: &str = "u.id, u.email, u.username, u.is_admin, u.can_execute_code, \
     u.created_at, u.avatar_url, u.preferences, u.disabled";
/// How many those are: the index of the next column of a statement that begins with them.
pub(super) const USER_COLUMN_COUNT: usize = 9;

/// The columns that [`project`] reads, of [`PROJECT_TABLES`].
pub(super) const PROJECT_COLUMNS: &str = "p.id, p.owner_id, p.name, p.description, p.type, p.path, \
     p.settings, p.created_at, p.updated_at, p.archived_at, m.role, g.url, g.branch, g.state, g.error";

/// Projects with the caller's place in them, and where they were cloned from.
pub(super) const PROJECT_TABLES: &str = "project_members m JOIN projects p ON p.id = m.project_id \
     LEFT JOIN project_git g ON g.project_id = p.id";

/// The columns that [`member`] reads, of `project_members m` and `users u`.
pub(super) const MEMBER_COLUMNS: &str = "m.user_id, u.username, m.role, m.joined_at, u.avatar_url";

pub(super) fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    let preferences: String = row.get(7)?;
    Ok(User {
        id: id(row, 0)?,
        email: row.get(1)?,
        username: row.get(2)?,
        is_admin: row.get(3)?,
        can_execute_code: row.get(4)?,
        created_at: row.get(5)?,
        avatar_url: row.get(6)?,
        preferences: serde_json::from_str(&preferences).map_err(|error| unreadable(7, error))?,
        disabled: row.get(8)?,
    })
}

pub(super) fn project(row: &Row<'_>) -> rusqlite::Result<Project> {
    let settings: String = row.get(6)?;
    Ok(Project {
        id: id(row, 0)?,
        owner_id: id(row, 1)?,
        name: row.get(2)?,
        description: row.get(3)?,
        r#type: project_type(row, 4)?,
        path: row.get(5)?,
        git: project_git(row)?,
        settings: serde_json::from_str(&settings).map_err(|error| unreadable(6, error))?,
        created_at: row.get(7)?,
        updated_at: row.get(8)?,
        archived_at: row.get(9)?,
        storage: None,
        role: role(row, 10)?,
    })
}

/// The last columns of [`PROJECT_COLUMNS`].
fn project_git(row: &Row<'_>) -> rusqlite::Result<Option<ProjectGit>> {
    let Some(url) = row.get(11)? else { return Ok(None) };
    let (branch, error) = (row.get(12)?, row.get(14)?);
    Ok(Some(ProjectGit { url, branch, state: clone_state(row, 13)?, error }))
}

fn clone_state(row: &Row<'_>, index: usize) -> rusqlite::Result<CloneState> {
    let text: String = row.get(index)?;
    match text.as_str() {
        "cloning" => Ok(CloneState::Cloning),
        "ready" => Ok(CloneState::Ready),
        "failed" => Ok(CloneState::Failed),
        other => Err(unreadable(index, format!("unknown state of a clone `{other}`"))),
    }
}

pub(super) fn member(row: &Row<'_>) -> rusqlite::Result<Member> {
    Ok(Member {
        user_id: id(row, 0)?,
        username: row.get(1)?,
        role: role(row, 2)?,
        joined_at: row.get(3)?,
        avatar_url: row.get(4)?,
    })
}

/// Reads any kind of id.
pub(crate) fn id<T>(row: &Row<'_>, index: usize) -> rusqlite::Result<T>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    let text = row.get_ref(index)?.as_str().map_err(|error| unreadable(index, error))?;
    text.parse().map_err(|error| unreadable(index, error))
}

pub(crate) fn role(row: &Row<'_>, index: usize) -> rusqlite::Result<Role> {
    let text: String = row.get(index)?;
    role_of(&text, index)
}

pub(super) fn optional_role(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<Role>> {
    let text: Option<String> = row.get(index)?;
    text.map(|text| role_of(&text, index)).transpose()
}

fn role_of(text: &str, index: usize) -> rusqlite::Result<Role> {
    match text {
        "viewer" => Ok(Role::Viewer),
        "member" => Ok(Role::Member),
        "admin" => Ok(Role::Admin),
        "owner" => Ok(Role::Owner),
        other => Err(unreadable(index, format!("unknown role `{other}`"))),
    }
}

pub(super) fn role_text(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Member => "member",
        Role::Admin => "admin",
        Role::Owner => "owner",
    }
}

pub(crate) fn project_type(row: &Row<'_>, index: usize) -> rusqlite::Result<ProjectType> {
    let text: String = row.get(index)?;
    match text.as_str() {
        "local" => Ok(ProjectType::Local),
        "git" => Ok(ProjectType::Git),
        "remote" => Ok(ProjectType::Remote),
        other => Err(unreadable(index, format!("unknown project type `{other}`"))),
    }
}

pub(super) fn project_type_text(kind: ProjectType) -> &'static str {
    match kind {
        ProjectType::Local => "local",
        ProjectType::Git => "git",
        ProjectType::Remote => "remote",
    }
}

pub(crate) fn unreadable(
    index: usize,
    error: impl Into<Box<dyn Error + Send + Sync>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, Type::Text, error.into())
}
