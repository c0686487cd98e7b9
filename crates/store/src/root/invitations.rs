//! Commands on invitations. The secret of a link comes in as its hash; whoever has it may accept once.

use iris_protocol::{
    Event, Invitation, InvitationId, InvitationState, ProjectId, Role, User, UserId,
    limits::INVITATIONS_PENDING_MAX,
};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::logins::TokenHash;
use super::members::{insert_member, member_role};
use super::queries::member;
use super::rows::role_text;
use super::users::{CreateUser, existing_user};
use super::{outbox, projects};
use crate::column::{optional_word, word};
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Most invitations that one list has.
const LISTED_MAX: i64 = 200;

/// Invites somebody. Answers the invitation.
///
/// Fails with `NotFound` (project), or `Conflict`: `owner_role`, `too_many_invitations`.
#[derive(Debug, Clone)]
pub struct CreateInvitation {
    /// A new id.
    pub id: InvitationId,
    /// The project and the role in it; none for the server alone.
    pub place: Option<(ProjectId, Role)>,
    /// Lower case; the only address that may accept it.
    pub email: Option<String>,
    /// Of the secret.
    pub hash: TokenHash,
    /// Who invites.
    pub by: UserId,
    /// When it ends, in milliseconds since 1970 UTC.
    pub expires_at: i64,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for CreateInvitation {
    type Output = Invitation;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Invitation, StoreError> {
        let conn = tx.conn();
        let (project_id, role) = self.place.unzip();
        if role == Some(Role::Owner) {
            return Err(StoreError::conflict("owner_role", "nobody is invited as the owner"));
        }
        if let Some(project_id) = &project_id {
            projects::existing(conn, project_id)?;
        }
        let id = project_id.as_ref().map(ProjectId::as_str);
        // Those whose time is long over are of no use to anybody.
        let sql = "DELETE FROM invitations WHERE project_id IS ?1 AND expires_at < ?2";
        let long_ago = self.at.saturating_sub(super::EXPIRED_TOKEN_KEPT_MS);
        conn.prepare_cached(sql)?.execute(params![id, long_ago])?;
        let count = "SELECT count(*) FROM invitations
                     WHERE project_id IS ?1 AND accepted_at IS NULL AND revoked_at IS NULL
                       AND expires_at > ?2";
        let count: u64 =
            conn.prepare_cached(count)?.query_row(params![id, self.at], |row| row.get(0))?;
        if count >= INVITATIONS_PENDING_MAX {
            let message = format!("{INVITATIONS_PENDING_MAX} invitations wait: take some back");
            return Err(StoreError::conflict("too_many_invitations", message));
        }
        let sql = "INSERT INTO invitations
                       (id, project_id, role, email, hash, created_by, created_at, expires_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        conn.prepare_cached(sql)?.execute(params![
            self.id.as_str(),
            id,
            role.map(role_text),
            self.email,
            self.hash,
            self.by.as_str(),
            self.at,
            self.expires_at,
        ])?;
        let sql = "SELECT * FROM invitations WHERE id = ?1";
        let made = |row: &Row<'_>| invitation(row, self.at);
        Ok(conn.prepare_cached(sql)?.query_row([self.id.as_str()], made)?)
    }
}

/// Takes an invitation back. One that was taken back before stays so.
///
/// Fails with `NotFound` when there is none of that id there, with `Conflict` and
/// `invitation_accepted` when somebody accepted it.
#[derive(Debug, Clone)]
pub struct RevokeInvitation {
    /// The invitation.
    pub id: InvitationId,
    /// The project that it is to; none for the server alone.
    pub project_id: Option<ProjectId>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for RevokeInvitation {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let sql = "SELECT accepted_at IS NOT NULL FROM invitations
                   WHERE id = ?1 AND project_id IS ?2";
        let key = params![self.id.as_str(), self.project_id.as_ref().map(ProjectId::as_str)];
        let found = tx.conn().prepare_cached(sql)?.query_row(key, |row| row.get(0)).optional()?;
        match found {
            None => return Err(StoreError::NotFound { what: "invitation" }),
            Some(true) => {
                let message = "somebody accepted the invitation";
                return Err(StoreError::conflict("invitation_accepted", message));
            }
            Some(false) => {}
        }
        let sql = "UPDATE invitations SET revoked_at = COALESCE(revoked_at, ?2) WHERE id = ?1";
        tx.conn().prepare_cached(sql)?.execute(params![self.id.as_str(), self.at])?;
        Ok(())
    }
}

/// What an invitation led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Who accepted it.
    pub user: User,
    /// The project that they are a member of now; none for the server alone.
    pub project_id: Option<ProjectId>,
}

/// Makes a user a member of the project that an invitation is to, which is told of it. A member with a
/// role as high or higher keeps it.
///
/// Fails with `NotFound`: `invitation` when it is not good for this user, or not any more.
#[derive(Debug, Clone)]
pub struct AcceptInvitation {
    /// Of the secret.
    pub hash: TokenHash,
    /// Who accepts.
    pub user_id: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for AcceptInvitation {
    type Output = Accepted;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Accepted, StoreError> {
        let user = existing_user(tx.conn(), &self.user_id)?;
        accept(tx, user, &self.hash, self.at)
    }
}

/// Creates a user who was invited, and accepts the invitation for them, both or neither.
///
/// Fails as [`CreateUser`] and [`AcceptInvitation`] do.
#[derive(Debug, Clone)]
pub struct CreateInvitedUser {
    /// The new user.
    pub user: CreateUser,
    /// Of the secret.
    pub hash: TokenHash,
}

impl Command for CreateInvitedUser {
    type Output = Accepted;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Accepted, StoreError> {
        let at = self.user.at;
        let user = self.user.run(tx)?;
        accept(tx, user, &self.hash, at)
    }
}

pub(super) fn accept(
    tx: &mut WriteTx<'_>,
    user: User,
    hash: &TokenHash,
    at: i64,
) -> Result<Accepted, StoreError> {
    let found = good(tx.conn(), hash, &user.email, at)?;
    let Some(Invitation { id, project_id, role, created_by, .. }) = found else {
        return Err(StoreError::NotFound { what: "invitation" });
    };
    let sql = "UPDATE invitations SET accepted_at = ?2, accepted_by = ?3 WHERE id = ?1";
    tx.conn().prepare_cached(sql)?.execute(params![id.as_str(), at, user.id.as_str()])?;
    if let (Some(project_id), Some(role)) = (&project_id, role) {
        join(tx, project_id, &user.id, role, &created_by, at)?;
    }
    Ok(Accepted { user, project_id })
}

fn join(
    tx: &mut WriteTx<'_>,
    project_id: &ProjectId,
    user_id: &UserId,
    role: Role,
    by: &UserId,
    at: i64,
) -> Result<(), StoreError> {
    let has = member_role(tx.conn(), project_id, user_id)?;
    let is_new = has.is_none();
    match has {
        Some(has) if has >= role => return Ok(()),
        Some(_) => {
            let sql = "UPDATE project_members SET role = ?3 WHERE project_id = ?1 AND user_id = ?2";
            let values = params![project_id.as_str(), user_id.as_str(), role_text(role)];
            tx.conn().prepare_cached(sql)?.execute(values)?;
        }
        None => insert_member(tx.conn(), project_id, user_id, role, at)?,
    }
    let member = member(tx.conn(), project_id, user_id)?;
    let member = member.ok_or(StoreError::NotFound { what: "member" })?;
    let event =
        if is_new { Event::MemberAdded { member } } else { Event::MemberUpdated { member } };
    outbox::put(tx, project_id, &event, by, at)
}

/// The invitation of a secret, if this address may accept it now. One of somebody who may not invite any
/// more is not good: they are gone, disabled, or no administrator of the project.
pub(super) fn good(
    conn: &Connection,
    hash: &TokenHash,
    email: &str,
    at: i64,
) -> Result<Option<Invitation>, StoreError> {
    let sql = "SELECT i.* FROM invitations i
               JOIN users u ON u.id = i.created_by AND u.disabled = 0
               LEFT JOIN project_members m ON m.project_id = i.project_id AND m.user_id = u.id
               WHERE i.hash = ?1 AND i.accepted_at IS NULL AND i.revoked_at IS NULL
                 AND i.expires_at > ?2 AND (i.email IS NULL OR i.email = ?3)
                 AND CASE WHEN i.project_id IS NULL THEN u.is_admin
                          ELSE COALESCE(m.role, '') IN ('admin', 'owner') END";
    let found = conn
        .prepare_cached(sql)?
        .query_row(params![hash, at, email.to_lowercase()], |row| invitation(row, at));
    Ok(found.optional()?)
}

/// The invitations to a project, or to the server alone, newest first.
pub(super) fn list(
    conn: &Connection,
    project_id: Option<&ProjectId>,
    at: i64,
) -> Result<Vec<Invitation>, StoreError> {
    let sql = "SELECT * FROM invitations WHERE project_id IS ?1 ORDER BY id DESC LIMIT ?2";
    let mut statement = conn.prepare_cached(sql)?;
    let values = params![project_id.map(ProjectId::as_str), LISTED_MAX];
    let found = statement.query_map(values, |row| invitation(row, at))?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn invitation(row: &Row<'_>, at: i64) -> rusqlite::Result<Invitation> {
    let accepted_by: Option<UserId> = optional_word(row, "accepted_by")?;
    let is_revoked = row.get::<_, Option<i64>>("revoked_at")?.is_some();
    let expires_at: i64 = row.get("expires_at")?;
    let state = if accepted_by.is_some() {
        InvitationState::Accepted
    } else if is_revoked {
        InvitationState::Revoked
    } else if expires_at <= at {
        InvitationState::Expired
    } else {
        InvitationState::Pending
    };
    Ok(Invitation {
        id: word(row, "id")?,
        project_id: optional_word(row, "project_id")?,
        role: optional_word(row, "role")?,
        email: row.get("email")?,
        state,
        created_by: word(row, "created_by")?,
        created_at: row.get("created_at")?,
        expires_at,
        accepted_by,
    })
}
