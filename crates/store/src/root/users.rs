//! Commands on users.

use iris_protocol::{User, UserId};
use rusqlite::{Connection, params};

use super::queries::{has_admin, user};
use crate::{Command, StoreError, WriteTx};

/// Creates a user. Answers the user.
///
/// Fails with `Conflict`: `email_taken`, `username_taken` (names that differ in ASCII case alone are
/// the same name), or `admin_exists` where [`CreateUser::only_if_no_admin`] is set.
#[derive(Debug, Clone)]
pub struct CreateUser {
    /// The new user.
    pub id: UserId,
    /// Stored in lower case, never empty.
    pub email: String,
    /// The name that others see, never empty.
    pub username: String,
    /// The password's hash as a PHC string, never the password; none for who never logs in with one.
    pub password_hash: Option<String>,
    /// May manage the server, and have programs run on it.
    pub is_admin: bool,
    /// Refuses while there is an administrator: for the setup of a new server.
    pub only_if_no_admin: bool,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for CreateUser {
    type Output = User;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<User, StoreError> {
        let email = self.email.to_lowercase();
        if self.only_if_no_admin && has_admin(tx.conn())? {
            let message = "the server has an administrator already";
            return Err(StoreError::conflict("admin_exists", message));
        }
        refuse_taken(tx.conn(), None, Some(&email), Some(&self.username))?;
        tx.conn()
            .prepare_cached(
                "INSERT INTO users (id, email, username, password_hash, is_admin, created_at,
                   can_execute_code)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?5)",
            )?
            .execute(params![
                self.id.as_str(),
                email,
                self.username,
                self.password_hash,
                self.is_admin,
                self.at,
            ])?;
        existing_user(tx.conn(), &self.id)
    }
}

/// Refuses an address or a name that somebody has; `except` may keep its own.
pub(super) fn refuse_taken(
    conn: &Connection,
    except: Option<&UserId>,
    email: Option<&str>,
    username: Option<&str>,
) -> Result<(), StoreError> {
    let except = except.map(UserId::as_str);
    let sql = "SELECT 1 FROM users WHERE email = ?1 AND id IS NOT ?2";
    if let Some(email) = email
        && conn.prepare_cached(sql)?.exists(params![email, except])?
    {
        return Err(StoreError::conflict("email_taken", "the email address is taken"));
    }
    let sql = "SELECT 1 FROM users WHERE username = ?1 AND id IS NOT ?2";
    if let Some(username) = username
        && conn.prepare_cached(sql)?.exists(params![username, except])?
    {
        return Err(StoreError::conflict("username_taken", "the user name is taken"));
    }
    Ok(())
}

/// The user, who has to be there.
pub(super) fn existing_user(conn: &Connection, id: &UserId) -> Result<User, StoreError> {
    user(conn, id)?.ok_or(StoreError::NotFound { what: "user" })
}
