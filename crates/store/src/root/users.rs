//! Commands on users.

use iris_protocol::{User, UserId};
use rusqlite::{Connection, params};

use super::audit::RecordAudit;
use super::queries::{has_admin, user};
use crate::{Command, StoreError, WhenFull, WriteTx};

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
    /// The password's hash as a PHC string, never the password.
    pub password_hash: String,
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
        refuse_duplicates(tx.conn(), &self, &email)?;
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

/// Says whether a user may have programs run on the server. Answers the user.
///
/// Fails with `NotFound`.
#[derive(Debug, Clone)]
pub struct SetCanExecuteCode {
    /// The user.
    pub id: UserId,
    /// Whether they may.
    pub can_execute_code: bool,
    /// What the audit says of it: who, when.
    pub audit: RecordAudit,
}

impl Command for SetCanExecuteCode {
    type Output = User;

    /// To take a right away is to clean up.
    fn when_full(&self) -> WhenFull {
        if self.can_execute_code { WhenFull::Refuse } else { WhenFull::Allow }
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<User, StoreError> {
        existing_user(tx.conn(), &self.id)?;
        let sql = "UPDATE users SET can_execute_code = ?2 WHERE id = ?1";
        let key = params![self.id.as_str(), self.can_execute_code];
        tx.conn().prepare_cached(sql)?.execute(key)?;
        self.audit.run(tx)?;
        existing_user(tx.conn(), &self.id)
    }
}

fn refuse_duplicates(
    conn: &Connection,
    command: &CreateUser,
    email: &str,
) -> Result<(), StoreError> {
    if command.only_if_no_admin && has_admin(conn)? {
        return Err(StoreError::conflict(
            "admin_exists",
            "the server has an administrator already",
        ));
    }
    if conn.prepare_cached("SELECT 1 FROM users WHERE email = ?1")?.exists([email])? {
        return Err(StoreError::conflict("email_taken", "the email address is taken"));
    }
    if conn
        .prepare_cached("SELECT 1 FROM users WHERE username = ?1")?
        .exists([&command.username])?
    {
        return Err(StoreError::conflict("username_taken", "the user name is taken"));
    }
    Ok(())
}

/// The user, who has to be there.
pub(super) fn existing_user(conn: &Connection, id: &UserId) -> Result<User, StoreError> {
    user(conn, id)?.ok_or(StoreError::NotFound { what: "user" })
}
