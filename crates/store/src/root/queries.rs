//! The queries of the root database, on a connection.

use iris_protocol::{
    AuthSessionId, Member, Membership, Project, ProjectId, ProjectPage, ProjectType, Role, User,
    UserId, UserPage, limits,
};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Map, Value};

use super::rows::{
    self, MEMBER_COLUMNS, PROJECT_COLUMNS, PROJECT_TABLES, USER_COLUMN_COUNT, USER_COLUMNS,
};
use crate::StoreError;

/// Sorts after every id.
const AFTER_EVERY_ID: &str = "~";

/// What a login needs to know of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: User,
    /// A PHC string; `None` for users who never log in with a password.
    pub password_hash: Option<String>,
    /// Whether the user may not log in.
    pub disabled: bool,
    /// Access tokens of an older epoch are void.
    pub epoch: i64,
}

/// What decides over a request of a user: their account, their login and their place in a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each from its own row")]
pub struct Access {
    /// Access tokens of an older epoch are void.
    pub user_epoch: i64,
    /// Whether the user may do nothing at all.
    pub disabled: bool,
    /// May manage the server. Gives no right in anybody's project.
    pub is_admin: bool,
    /// Whether the login is over: ended, forgotten, or not this user's.
    pub session_revoked: bool,
    /// `None` when they are not a member, there is no such project, or none was asked for.
    pub role: Option<Role>,
    /// Whether the project is read-only; false without a role.
    pub project_archived: bool,
    /// Whether the project has no files yet, because it is not cloned; false without a role.
    pub project_uncloned: bool,
}

/// Where a project's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectLocation {
    /// `None`: in the data directory.
    pub path: Option<String>,
    /// Where its files are.
    pub r#type: ProjectType,
    /// Whether the project is read-only.
    pub archived: bool,
    /// Whether it stands among those with unfinished work.
    pub is_unfinished: bool,
}

const HAS_ADMIN: &str = "SELECT 1 FROM users WHERE is_admin = 1";

pub(super) fn has_admin(conn: &Connection) -> Result<bool, StoreError> {
    Ok(conn.prepare_cached(HAS_ADMIN)?.exists([])?)
}

fn user_sql() -> String {
    format!("SELECT {USER_COLUMNS} FROM users u WHERE u.id = ?1")
}

pub(super) fn user(conn: &Connection, id: &UserId) -> Result<Option<User>, StoreError> {
    Ok(conn.prepare_cached(&user_sql())?.query_row([id.as_str()], rows::user).optional()?)
}

fn credentials_sql() -> String {
    format!(
        "SELECT {USER_COLUMNS}, u.password_hash, u.disabled, u.epoch
         FROM users u WHERE u.email = ?1"
    )
}

pub(super) fn user_by_email(
    conn: &Connection,
    email: &str,
) -> Result<Option<Credentials>, StoreError> {
    let mut statement = conn.prepare_cached(&credentials_sql())?;
    Ok(statement.query_row([email.to_lowercase()], credentials_row).optional()?)
}

fn credentials_of_sql() -> String {
    format!(
        "SELECT {USER_COLUMNS}, u.password_hash, u.disabled, u.epoch
         FROM users u WHERE u.id = ?1"
    )
}

/// What checking the password of a user who is known needs.
pub(super) fn credentials(
    conn: &Connection,
    id: &UserId,
) -> Result<Option<Credentials>, StoreError> {
    let sql = credentials_of_sql();
    Ok(conn.prepare_cached(&sql)?.query_row([id.as_str()], credentials_row).optional()?)
}

fn credentials_row(row: &Row<'_>) -> rusqlite::Result<Credentials> {
    Ok(Credentials {
        user: rows::user(row)?,
        password_hash: row.get(USER_COLUMN_COUNT)?,
        disabled: row.get(USER_COLUMN_COUNT + 1)?,
        epoch: row.get(USER_COLUMN_COUNT + 2)?,
    })
}

pub(super) fn users_sql() -> String {
    format!("SELECT {USER_COLUMNS} FROM users u WHERE u.id > ?1 ORDER BY u.id LIMIT ?2")
}

/// A page of all users, oldest first.
pub(super) fn users(
    conn: &Connection,
    limit: u32,
    after: Option<&UserId>,
) -> Result<UserPage, StoreError> {
    let limit = limit.clamp(1, limits::PAGE_MAX);
    let after = after.map_or("", UserId::as_str);
    let mut statement = conn.prepare_cached(&users_sql())?;
    let rows = statement.query_map(params![after, limit + 1], rows::user)?;
    let mut users = rows.collect::<Result<Vec<User>, _>>()?;
    let has_more = users.len() > limit as usize;
    users.truncate(limit as usize);
    let next_cursor = users.last().filter(|_| has_more).map(|user| user.id.to_string());
    Ok(UserPage { users, next_cursor, has_more })
}

const MEMBERSHIPS: &str = "SELECT m.project_id, p.name, m.role, m.joined_at
    FROM project_members m JOIN projects p ON p.id = m.project_id
    WHERE m.user_id = ?1 ORDER BY m.project_id";

/// Where a user is a member.
pub(super) fn memberships(conn: &Connection, id: &UserId) -> Result<Vec<Membership>, StoreError> {
    let mut statement = conn.prepare_cached(MEMBERSHIPS)?;
    let found = statement.query_map([id.as_str()], |row| {
        Ok(Membership {
            project_id: rows::id(row, 0)?,
            name: row.get(1)?,
            role: rows::role(row, 2)?,
            joined_at: row.get(3)?,
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

const ACCESS: &str = "SELECT u.epoch, u.disabled, u.is_admin,
        s.id IS NULL OR s.revoked_at IS NOT NULL, m.role, p.archived_at IS NOT NULL,
        g.state IS NOT NULL AND g.state <> 'ready'
    FROM users u
    LEFT JOIN auth_sessions s ON s.id = ?2 AND s.user_id = u.id
    LEFT JOIN project_members m ON m.project_id = ?3 AND m.user_id = u.id
    LEFT JOIN projects p ON p.id = m.project_id
    LEFT JOIN project_git g ON g.project_id = m.project_id
    WHERE u.id = ?1";

pub(super) fn access(
    conn: &Connection,
    user_id: &UserId,
    auth_session_id: &AuthSessionId,
    project_id: Option<&ProjectId>,
) -> Result<Option<Access>, StoreError> {
    let ids =
        params![user_id.as_str(), auth_session_id.as_str(), project_id.map(ProjectId::as_str)];
    let found = conn.prepare_cached(ACCESS)?.query_row(ids, |row| {
        Ok(Access {
            user_epoch: row.get(0)?,
            disabled: row.get(1)?,
            is_admin: row.get(2)?,
            session_revoked: row.get(3)?,
            role: rows::optional_role(row, 4)?,
            project_archived: row.get(5)?,
            project_uncloned: row.get(6)?,
        })
    });
    Ok(found.optional()?)
}

/// What a user may do in a project now, whoever asks; nothing once the account is disabled.
pub(super) fn role(
    conn: &Connection,
    user_id: &UserId,
    project_id: &ProjectId,
) -> Result<Option<Role>, StoreError> {
    let sql = "SELECT m.role FROM project_members m JOIN users u ON u.id = m.user_id
        WHERE m.project_id = ?1 AND m.user_id = ?2 AND NOT u.disabled";
    let ids = params![project_id.as_str(), user_id.as_str()];
    let found = conn.prepare_cached(sql)?.query_row(ids, |row| rows::optional_role(row, 0));
    Ok(found.optional()?.flatten())
}

pub(super) fn projects_sql() -> String {
    format!(
        "SELECT {PROJECT_COLUMNS}
         FROM {PROJECT_TABLES}
         WHERE m.user_id = ?1 AND m.project_id < ?2 AND (?3 OR p.archived_at IS NULL)
         ORDER BY m.project_id DESC LIMIT ?4"
    )
}

pub(super) fn projects(
    conn: &Connection,
    user_id: &UserId,
    limit: u32,
    cursor: Option<&ProjectId>,
    include_archived: bool,
) -> Result<ProjectPage, StoreError> {
    let limit = limit.clamp(1, limits::PAGE_MAX);
    let before = cursor.map_or(AFTER_EVERY_ID, ProjectId::as_str);
    let mut statement = conn.prepare_cached(&projects_sql())?;
    let rows = statement
        .query_map(params![user_id.as_str(), before, include_archived, limit + 1], rows::project)?;
    let mut projects = rows.collect::<Result<Vec<Project>, _>>()?;
    // One row more than asked for tells whether there is a next page.
    let has_more = projects.len() > limit as usize;
    projects.truncate(limit as usize);
    let last = projects.last().filter(|_| has_more);
    let next_cursor = last.map(|project| project.id.to_string());
    Ok(ProjectPage { projects, next_cursor, has_more })
}

fn project_sql() -> String {
    format!(
        "SELECT {PROJECT_COLUMNS}
         FROM {PROJECT_TABLES}
         WHERE m.project_id = ?2 AND m.user_id = ?1"
    )
}

pub(super) fn project(
    conn: &Connection,
    user_id: &UserId,
    id: &ProjectId,
) -> Result<Option<Project>, StoreError> {
    let mut statement = conn.prepare_cached(&project_sql())?;
    Ok(statement.query_row([user_id.as_str(), id.as_str()], rows::project).optional()?)
}

const PROJECT_LOCATION: &str =
    "SELECT p.path, p.archived_at IS NOT NULL, u.project_id IS NOT NULL, p.type
    FROM projects p LEFT JOIN unfinished_work u ON u.project_id = p.id WHERE p.id = ?1";

pub(super) fn project_location(
    conn: &Connection,
    id: &ProjectId,
) -> Result<Option<ProjectLocation>, StoreError> {
    let found = conn.prepare_cached(PROJECT_LOCATION)?.query_row([id.as_str()], |row| {
        Ok(ProjectLocation {
            path: row.get(0)?,
            r#type: rows::project_type(row, 3)?,
            archived: row.get(1)?,
            is_unfinished: row.get(2)?,
        })
    });
    Ok(found.optional()?)
}

const PROJECT_SETTINGS: &str = "SELECT settings FROM projects WHERE id = ?1";

pub(super) fn project_settings(
    conn: &Connection,
    id: &ProjectId,
) -> Result<Map<String, Value>, StoreError> {
    let found = conn.prepare_cached(PROJECT_SETTINGS)?.query_row([id.as_str()], |row| row.get(0));
    let settings: Option<String> = found.optional()?;
    Ok(settings.map_or_else(|| Ok(Map::new()), |settings| serde_json::from_str(&settings))?)
}

/// Reads the whole table, because that is what it is asked for.
const ALL_PROJECT_IDS: &str = "SELECT id FROM projects ORDER BY id";

pub(super) fn all_project_ids(conn: &Connection) -> Result<Vec<ProjectId>, StoreError> {
    let mut statement = conn.prepare_cached(ALL_PROJECT_IDS)?;
    let ids = statement.query_map([], |row| rows::id(row, 0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

fn members_sql() -> String {
    format!(
        "SELECT {MEMBER_COLUMNS} FROM project_members m JOIN users u ON u.id = m.user_id
         WHERE m.project_id = ?1 ORDER BY m.joined_at, m.user_id"
    )
}

pub(super) fn members(
    conn: &Connection,
    project_id: &ProjectId,
) -> Result<Vec<Member>, StoreError> {
    let mut statement = conn.prepare_cached(&members_sql())?;
    let members = statement.query_map([project_id.as_str()], rows::member)?;
    Ok(members.collect::<Result<_, _>>()?)
}

fn member_sql() -> String {
    format!(
        "SELECT {MEMBER_COLUMNS} FROM project_members m JOIN users u ON u.id = m.user_id
         WHERE m.project_id = ?1 AND m.user_id = ?2"
    )
}

pub(super) fn member(
    conn: &Connection,
    project_id: &ProjectId,
    user_id: &UserId,
) -> Result<Option<Member>, StoreError> {
    let mut statement = conn.prepare_cached(&member_sql())?;
    Ok(statement.query_row([project_id.as_str(), user_id.as_str()], rows::member).optional()?)
}
