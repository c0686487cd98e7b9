//! Commands on accounts that exist: what their users and administrators change, and how they end.

use iris_protocol::{Event, ProjectId, User, UserId};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Map, Value};

use super::logins::{TokenHash, end_all};
use super::users::{existing_user, refuse_taken};
use super::{outbox, rows};
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Changes an account; what is `None` stays as it is. Answers the user.
///
/// Fails with `NotFound`, or `Conflict`: `email_taken`, `username_taken`; where rights are taken away,
/// `last_admin` when nobody would be left who manages the server.
#[derive(Debug, Clone)]
pub struct UpdateUser {
    /// The user.
    pub id: UserId,
    /// Stored in lower case. A link for the old address sets no password any more.
    pub email: Option<String>,
    /// The name that others see.
    pub username: Option<String>,
    /// Where there is a picture; `Some(None)` takes it away.
    pub avatar_url: Option<Option<String>>,
    /// Replaces all preferences.
    pub preferences: Option<Map<String, Value>>,
    /// Whether they may have programs run.
    pub can_execute_code: Option<bool>,
    /// Whether they may manage the server.
    pub is_admin: Option<bool>,
    /// Whether the account is closed. Closing it ends every login at once.
    pub disabled: Option<bool>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl UpdateUser {
    /// One that changes nothing yet.
    pub fn of(id: UserId, at: i64) -> Self {
        Self {
            id,
            email: None,
            username: None,
            avatar_url: None,
            preferences: None,
            can_execute_code: None,
            is_admin: None,
            disabled: None,
            at,
        }
    }

    fn takes_away(&self) -> bool {
        self.disabled == Some(true)
            || self.is_admin == Some(false)
            || self.can_execute_code == Some(false)
    }
}

impl Command for UpdateUser {
    type Output = User;

    /// To take a right away is to clean up.
    fn when_full(&self) -> WhenFull {
        if self.takes_away() { WhenFull::Allow } else { WhenFull::Refuse }
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<User, StoreError> {
        let conn = tx.conn();
        let before = existing_user(conn, &self.id)?;
        let email = self.email.map(|email| email.to_lowercase());
        refuse_taken(conn, Some(&self.id), email.as_deref(), self.username.as_deref())?;
        let loses_admin = self.disabled == Some(true) || self.is_admin == Some(false);
        if before.is_admin && loses_admin {
            refuse_last_admin(conn, &self.id)?;
        }
        if self.disabled == Some(true) && !before.disabled {
            end_all(conn, &self.id, self.at)?;
        }
        let (sets_avatar, avatar) = (self.avatar_url.is_some(), self.avatar_url.flatten());
        let preferences = self.preferences.map(|document| Value::Object(document).to_string());
        let sql = "UPDATE users SET email = COALESCE(?2, email),
                       username = COALESCE(?3, username),
                       avatar_url = CASE WHEN ?4 THEN ?5 ELSE avatar_url END,
                       preferences = COALESCE(?6, preferences),
                       can_execute_code = COALESCE(?7, can_execute_code),
                       is_admin = COALESCE(?8, is_admin), disabled = COALESCE(?9, disabled)
                   WHERE id = ?1";
        conn.prepare_cached(sql)?.execute(params![
            self.id.as_str(),
            email,
            self.username,
            sets_avatar,
            avatar,
            preferences,
            self.can_execute_code,
            self.is_admin,
            self.disabled,
        ])?;
        existing_user(conn, &self.id)
    }
}

/// Refuses to take the last administrator away who can log in.
fn refuse_last_admin(conn: &Connection, id: &UserId) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM users WHERE is_admin = 1 AND disabled = 0 AND id <> ?1 LIMIT 1";
    if conn.prepare_cached(sql)?.exists([id.as_str()])? {
        return Ok(());
    }
    Err(StoreError::conflict("last_admin", "nobody else is an administrator of the server"))
}

/// Sets a password, and ends every login of the user at once. Answers the user's new epoch.
///
/// Fails with `NotFound`.
#[derive(Debug, Clone)]
pub struct SetPassword {
    /// The user.
    pub id: UserId,
    /// A PHC string, never the password.
    pub password_hash: String,
    /// The hash that the old password was checked against: `VersionConflict` when it is another one by
    /// now. None to set it whatever it was.
    pub instead_of: Option<String>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for SetPassword {
    type Output = i64;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<i64, StoreError> {
        existing_user(tx.conn(), &self.id)?;
        if let Some(expected) = self.instead_of {
            let sql = "SELECT 1 FROM users WHERE id = ?1 AND password_hash = ?2";
            if !tx.conn().prepare_cached(sql)?.exists([self.id.as_str(), &expected])? {
                return Err(StoreError::VersionConflict);
            }
        }
        set_password(tx.conn(), &self.id, &self.password_hash, self.at)
    }
}

fn set_password(
    conn: &Connection,
    id: &UserId,
    password_hash: &str,
    at: i64,
) -> Result<i64, StoreError> {
    conn.prepare_cached("UPDATE users SET password_hash = ?2 WHERE id = ?1")?
        .execute([id.as_str(), password_hash])?;
    end_all(conn, id, at)?;
    conn.prepare_cached("DELETE FROM password_resets WHERE user_id = ?1")?
        .execute([id.as_str()])?;
    let sql = "SELECT epoch FROM users WHERE id = ?1";
    Ok(conn.prepare_cached(sql)?.query_row([id.as_str()], |row| row.get(0))?)
}

/// Lets a user set a new password once, with a secret whose hash this is. An earlier secret is void.
///
/// Fails with `NotFound`.
#[derive(Debug, Clone)]
pub struct BeginPasswordReset {
    /// The user.
    pub user_id: UserId,
    /// Of the secret.
    pub hash: TokenHash,
    /// When it ends, in milliseconds since 1970 UTC.
    pub expires_at: i64,
}

impl Command for BeginPasswordReset {
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let user = existing_user(tx.conn(), &self.user_id)?;
        let sql = "INSERT OR REPLACE INTO password_resets (hash, user_id, email, expires_at)
                   VALUES (?1, ?2, ?3, ?4)";
        let values = params![self.hash, self.user_id.as_str(), user.email, self.expires_at];
        tx.conn().prepare_cached(sql)?.execute(values)?;
        Ok(())
    }
}

/// Sets a password with the secret of a link, which is used up, and takes every identity away: whoever got in
/// before may have linked one. Answers whose it was; none when the secret is not good, or not any more.
#[derive(Debug, Clone)]
pub struct FinishPasswordReset {
    /// Of the secret.
    pub hash: TokenHash,
    /// A PHC string, never the password.
    pub password_hash: String,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for FinishPasswordReset {
    type Output = Option<UserId>;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Option<UserId>, StoreError> {
        let Some(id) = password_reset(tx.conn(), &self.hash, self.at)? else { return Ok(None) };
        set_password(tx.conn(), &id, &self.password_hash, self.at)?;
        let sql = "DELETE FROM identities WHERE user_id = ?1";
        tx.conn().prepare_cached(sql)?.execute([id.as_str()])?;
        Ok(Some(id))
    }
}

/// Whose password the secret of a link sets; none when it is not good, or not any more.
pub(super) fn password_reset(
    conn: &Connection,
    hash: &TokenHash,
    at: i64,
) -> Result<Option<UserId>, StoreError> {
    let sql = "SELECT u.id FROM password_resets r JOIN users u ON u.id = r.user_id
               WHERE r.hash = ?1 AND r.expires_at > ?2 AND u.email = r.email AND u.disabled = 0";
    let found = conn.prepare_cached(sql)?.query_row(params![hash, at], |row| rows::id(row, 0));
    Ok(found.optional()?)
}

/// Deletes an account with its logins, keys and memberships; their projects are told. What the user wrote
/// stays in the projects. Answers the projects that they are no member of any more.
///
/// Fails with `NotFound`, or `Conflict`: `owns_projects`, `last_admin`.
#[derive(Debug, Clone)]
pub struct DeleteUser {
    /// The user.
    pub id: UserId,
    /// Who deletes it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for DeleteUser {
    type Output = Vec<ProjectId>;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Vec<ProjectId>, StoreError> {
        let user = existing_user(tx.conn(), &self.id)?;
        let sql = "SELECT 1 FROM projects WHERE owner_id = ?1 LIMIT 1";
        if tx.conn().prepare_cached(sql)?.exists([self.id.as_str()])? {
            let message = "the user owns projects: transfer or delete them first";
            return Err(StoreError::conflict("owns_projects", message));
        }
        if user.is_admin {
            refuse_last_admin(tx.conn(), &self.id)?;
        }
        let projects = memberships(tx.conn(), &self.id)?;
        for project_id in &projects {
            let event = Event::MemberRemoved { user_id: self.id.clone() };
            outbox::put(tx, project_id, &event, &self.by, self.at)?;
        }
        let sql = "DELETE FROM idempotency WHERE user_id = ?1";
        tx.conn().prepare_cached(sql)?.execute([self.id.as_str()])?;
        let sql = "DELETE FROM users WHERE id = ?1";
        tx.conn().prepare_cached(sql)?.execute([self.id.as_str()])?;
        Ok(projects)
    }
}

fn memberships(conn: &Connection, id: &UserId) -> Result<Vec<ProjectId>, StoreError> {
    let sql = "SELECT project_id FROM project_members WHERE user_id = ?1 ORDER BY project_id";
    let mut statement = conn.prepare_cached(sql)?;
    let found = statement.query_map([id.as_str()], |row| rows::id(row, 0))?;
    Ok(found.collect::<Result<_, _>>()?)
}
