//! Commands on API keys, and what decides over a request with one.

use iris_protocol::{ApiKey, KeyId, ProjectId, Role, Scope, UserId, limits::API_KEYS_PER_USER_MAX};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::logins::TokenHash;
use super::members::member_role;
use super::rows;
use super::users::existing_user;
use crate::column::{json, optional_word, to_json, word};
use crate::{Command, StoreError, WhenFull, WriteTx};

/// How old the time of the last use may be, in milliseconds.
pub const KEY_USE_NOTED_EVERY_MS: i64 = 30_000;

/// Makes an API key. Answers what is known of it afterwards.
///
/// Fails with `NotFound`: `user`, or `project` for one that the user is no member of; with `Conflict`:
/// `too_many_keys`.
#[derive(Debug, Clone)]
pub struct CreateKey {
    /// A new id.
    pub id: KeyId,
    /// Whose it is.
    pub user_id: UserId,
    /// What its owner calls it, never empty.
    pub name: String,
    /// Of the key, which the store never sees.
    pub hash: TokenHash,
    /// By what its owner knows it.
    pub hint: String,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// The only project that it is good for.
    pub project_id: Option<ProjectId>,
    /// When it ends, in milliseconds since 1970 UTC.
    pub expires_at: Option<i64>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for CreateKey {
    type Output = ApiKey;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<ApiKey, StoreError> {
        let conn = tx.conn();
        existing_user(conn, &self.user_id)?;
        if let Some(project_id) = &self.project_id
            && member_role(conn, project_id, &self.user_id)?.is_none()
        {
            return Err(StoreError::NotFound { what: "project" });
        }
        let count = "SELECT count(*) FROM api_keys WHERE user_id = ?1";
        let count: u64 =
            conn.prepare_cached(count)?.query_row([self.user_id.as_str()], |row| row.get(0))?;
        if count >= API_KEYS_PER_USER_MAX {
            let message = format!("a user may have {API_KEYS_PER_USER_MAX} API keys");
            return Err(StoreError::conflict("too_many_keys", message));
        }
        let sql = "INSERT INTO api_keys
                       (id, user_id, name, hash, hint, scopes, project_id, created_at, expires_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        conn.prepare_cached(sql)?.execute(params![
            self.id.as_str(),
            self.user_id.as_str(),
            self.name,
            self.hash,
            self.hint,
            to_json(&self.scopes)?,
            self.project_id.as_ref().map(ProjectId::as_str),
            self.at,
            self.expires_at,
        ])?;
        let found = keys(conn, &self.user_id)?.into_iter().find(|key| key.id == self.id);
        found.ok_or(StoreError::NotFound { what: "key" })
    }
}

/// Ends an API key of a user.
///
/// Fails with `NotFound` when they have no such key.
#[derive(Debug, Clone)]
pub struct RevokeKey {
    /// Whose it is.
    pub user_id: UserId,
    /// The key.
    pub id: KeyId,
}

impl Command for RevokeKey {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let sql = "DELETE FROM api_keys WHERE id = ?1 AND user_id = ?2";
        let key = [self.id.as_str(), self.user_id.as_str()];
        if tx.conn().prepare_cached(sql)?.execute(key)? == 0 {
            return Err(StoreError::NotFound { what: "key" });
        }
        Ok(())
    }
}

/// Notes that a key is used, unless that was noted a moment ago.
#[derive(Debug, Clone)]
pub struct NoteKeyUse {
    /// The key.
    pub id: KeyId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for NoteKeyUse {
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let sql = "UPDATE api_keys SET last_used_at = ?2
                   WHERE id = ?1 AND (last_used_at IS NULL OR last_used_at < ?3)";
        let since = self.at.saturating_sub(KEY_USE_NOTED_EVERY_MS);
        let values = params![self.id.as_str(), self.at, since];
        tx.conn().prepare_cached(sql)?.execute(values)?;
        Ok(())
    }
}

/// A key that was presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundKey {
    /// Its id.
    pub id: KeyId,
    /// Whose it is.
    pub user_id: UserId,
    /// When it ends, in milliseconds since 1970 UTC.
    pub expires_at: Option<i64>,
}

/// The key of a hash; none for one that was never made or is revoked.
pub(super) fn by_hash(conn: &Connection, hash: &TokenHash) -> Result<Option<FoundKey>, StoreError> {
    let sql = "SELECT id, user_id, expires_at FROM api_keys WHERE hash = ?1";
    let found = conn.prepare_cached(sql)?.query_row([hash], |row| {
        Ok(FoundKey {
            id: rows::id(row, 0)?,
            user_id: rows::id(row, 1)?,
            expires_at: row.get("expires_at")?,
        })
    });
    Ok(found.optional()?)
}

/// What decides over a request with an API key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each from its own row")]
pub struct KeyAccess {
    /// Whether the user may do nothing at all.
    pub disabled: bool,
    /// May manage the server.
    pub is_admin: bool,
    /// What the key may be used for.
    pub scopes: Vec<Scope>,
    /// The only project that it is good for.
    pub project_id: Option<ProjectId>,
    /// When its use was noted last, in milliseconds since 1970 UTC.
    pub last_used_at: Option<i64>,
    /// The user's role; none when they are not a member, there is no such project, or none was asked for.
    pub role: Option<Role>,
    /// Whether the project is read-only; false without a role.
    pub project_archived: bool,
    /// Whether the project has no files yet, because it is not cloned; false without a role.
    pub project_uncloned: bool,
}

const ACCESS: &str = "SELECT u.disabled, u.is_admin, k.scopes, k.project_id, k.last_used_at,
        m.role, p.archived_at IS NOT NULL AS is_archived,
        g.state IS NOT NULL AND g.state <> 'ready' AS is_uncloned
    FROM api_keys k JOIN users u ON u.id = k.user_id
    LEFT JOIN project_members m ON m.project_id = ?2 AND m.user_id = u.id
    LEFT JOIN projects p ON p.id = m.project_id
    LEFT JOIN project_git g ON g.project_id = m.project_id
    WHERE k.id = ?1";

/// None once the key is revoked.
pub(super) fn access(
    conn: &Connection,
    id: &KeyId,
    project_id: Option<&ProjectId>,
) -> Result<Option<KeyAccess>, StoreError> {
    let ids = params![id.as_str(), project_id.map(ProjectId::as_str)];
    let found = conn.prepare_cached(ACCESS)?.query_row(ids, |row| {
        Ok(KeyAccess {
            disabled: row.get("disabled")?,
            is_admin: row.get("is_admin")?,
            scopes: json(row, "scopes")?,
            project_id: optional_word(row, "project_id")?,
            last_used_at: row.get("last_used_at")?,
            role: optional_word(row, "role")?,
            project_archived: row.get("is_archived")?,
            project_uncloned: row.get("is_uncloned")?,
        })
    });
    Ok(found.optional()?)
}

/// The keys of a user, newest first.
pub(super) fn keys(conn: &Connection, user_id: &UserId) -> Result<Vec<ApiKey>, StoreError> {
    let sql = "SELECT * FROM api_keys WHERE user_id = ?1 ORDER BY id DESC";
    let mut statement = conn.prepare_cached(sql)?;
    let found = statement.query_map([user_id.as_str()], key)?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn key(row: &Row<'_>) -> rusqlite::Result<ApiKey> {
    Ok(ApiKey {
        id: word(row, "id")?,
        name: row.get("name")?,
        hint: row.get("hint")?,
        scopes: json(row, "scopes")?,
        project_id: optional_word(row, "project_id")?,
        created_at: row.get("created_at")?,
        expires_at: row.get("expires_at")?,
        last_used_at: row.get("last_used_at")?,
    })
}
