//! Who users are at other providers of logins. Issuer and subject alone decide who somebody is; an address
//! never does.

use iris_protocol::{AuthSessionId, Identity, IdentityId, UserId, limits::IDENTITIES_PER_USER_MAX};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::invitations::{Accepted, accept};
use super::logins::{TokenHash, end_others};
use super::queries::{Credentials, credentials};
use super::users::{CreateUser, existing_user};
use crate::column::word;
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Somebody at a provider, whom it vouched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewIdentity {
    /// A new id.
    pub id: IdentityId,
    /// As the configuration names it.
    pub provider: String,
    /// What the provider calls itself.
    pub issuer: String,
    /// What the provider calls the user.
    pub subject: String,
    /// What the provider told.
    pub email: Option<String>,
}

/// Links an account with an identity. Answers the identity.
///
/// Fails with `NotFound`: `user`; with `Conflict`: `identity_taken`, `too_many_identities`.
#[derive(Debug, Clone)]
pub struct LinkIdentity {
    /// Whose it is from now on.
    pub user_id: UserId,
    /// The identity.
    pub identity: NewIdentity,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for LinkIdentity {
    type Output = Identity;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Identity, StoreError> {
        existing_user(tx.conn(), &self.user_id)?;
        insert(tx.conn(), &self.user_id, self.identity, self.at)
    }
}

/// Creates a user who is somebody at a provider, and accepts the invitation that they bring: all of it or
/// nothing.
///
/// Fails as [`CreateUser`], [`LinkIdentity`] and [`AcceptInvitation`](super::AcceptInvitation) do.
#[derive(Debug, Clone)]
pub struct CreateLinkedUser {
    /// The new user.
    pub user: CreateUser,
    /// Who they are.
    pub identity: NewIdentity,
    /// Of the secret of an invitation.
    pub invitation: Option<TokenHash>,
}

impl Command for CreateLinkedUser {
    type Output = Accepted;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Accepted, StoreError> {
        let at = self.user.at;
        let user = self.user.run(tx)?;
        insert(tx.conn(), &user.id, self.identity, at)?;
        match self.invitation {
            Some(hash) => accept(tx, user, &hash, at),
            None => Ok(Accepted { user, project_id: None }),
        }
    }
}

/// Takes an identity of a user away, but never the last way in: one that has a password may lose all of them,
/// any other keeps one at a provider that is still there. The user's other logins end: one of them may have come
/// that way.
///
/// Fails with `NotFound`: `identity`; with `Conflict`: `last_way_in`.
#[derive(Debug, Clone)]
pub struct UnlinkIdentity {
    /// Whose it is.
    pub user_id: UserId,
    /// The identity.
    pub id: IdentityId,
    /// What the providers call themselves at which people may log in.
    pub issuers: Vec<String>,
    /// The login that goes on.
    pub keep: Option<AuthSessionId>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for UnlinkIdentity {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let conn = tx.conn();
        let own = of(conn, &self.user_id)?;
        if !own.iter().any(|identity| identity.id == self.id) {
            return Err(StoreError::NotFound { what: "identity" });
        }
        let mut others = own.iter().filter(|identity| identity.id != self.id);
        let has_other = others.any(|identity| self.issuers.contains(&identity.issuer));
        let found = credentials(conn, &self.user_id)?;
        let has_password = found.is_some_and(|found| found.password_hash.is_some());
        if !has_other && !has_password {
            let message = "the account has no password and no other identity to log in with";
            return Err(StoreError::conflict("last_way_in", message));
        }
        let sql = "DELETE FROM identities WHERE id = ?1";
        conn.prepare_cached(sql)?.execute([self.id.as_str()])?;
        end_others(conn, &self.user_id, self.keep.as_ref(), self.at)
    }
}

/// Notes a login with an identity, and what the provider told of the user.
///
/// Fails with `NotFound`: `identity`, for one that was taken away meanwhile.
pub(super) fn note_login(conn: &Connection, used: &IdentityUse, at: i64) -> Result<(), StoreError> {
    let sql = "UPDATE identities SET last_login_at = ?2, email = ?3 WHERE id = ?1";
    let values = params![used.id.as_str(), at, used.email];
    if conn.prepare_cached(sql)?.execute(values)? == 0 {
        return Err(StoreError::NotFound { what: "identity" });
    }
    Ok(())
}

/// With what identity somebody logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityUse {
    /// The identity.
    pub id: IdentityId,
    /// What the provider told now.
    pub email: Option<String>,
}

fn insert(
    conn: &Connection,
    user_id: &UserId,
    identity: NewIdentity,
    at: i64,
) -> Result<Identity, StoreError> {
    let NewIdentity { id, provider, issuer, subject, email } = identity;
    if by_subject(conn, &issuer, &subject)?.is_some() {
        let message = "an account is linked with this identity already";
        return Err(StoreError::conflict("identity_taken", message));
    }
    if of(conn, user_id)?.len() >= IDENTITIES_PER_USER_MAX {
        let message = format!("a user may have {IDENTITIES_PER_USER_MAX} identities");
        return Err(StoreError::conflict("too_many_identities", message));
    }
    let sql = "INSERT INTO identities (id, user_id, provider, issuer, subject, email, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let values = params![id.as_str(), user_id.as_str(), provider, issuer, subject, email, at];
    conn.prepare_cached(sql)?.execute(values)?;
    Ok(Identity { id, provider, issuer, subject, email, created_at: at, last_login_at: None })
}

/// The identity that a provider vouches for, and the account that it is linked with.
pub(super) fn by_subject(
    conn: &Connection,
    issuer: &str,
    subject: &str,
) -> Result<Option<(IdentityId, Credentials)>, StoreError> {
    let sql = "SELECT id, user_id FROM identities WHERE issuer = ?1 AND subject = ?2";
    let found = conn.prepare_cached(sql)?.query_row([issuer, subject], |row| {
        Ok((word::<IdentityId>(row, "id")?, word::<UserId>(row, "user_id")?))
    });
    let Some((id, user_id)) = found.optional()? else { return Ok(None) };
    Ok(credentials(conn, &user_id)?.map(|account| (id, account)))
}

/// The identities of a user, oldest first.
pub(super) fn of(conn: &Connection, user_id: &UserId) -> Result<Vec<Identity>, StoreError> {
    let sql = "SELECT * FROM identities WHERE user_id = ?1 ORDER BY id";
    let mut statement = conn.prepare_cached(sql)?;
    let found = statement.query_map([user_id.as_str()], identity)?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn identity(row: &Row<'_>) -> rusqlite::Result<Identity> {
    Ok(Identity {
        id: word(row, "id")?,
        provider: row.get("provider")?,
        issuer: row.get("issuer")?,
        subject: row.get("subject")?,
        email: row.get("email")?,
        created_at: row.get("created_at")?,
        last_login_at: row.get("last_login_at")?,
    })
}
