//! Commands on the members of a project. The owner's membership is fixed: ownership is transferred,
//! not given.

use iris_protocol::{Member, ProjectId, Role, UserId};
use rusqlite::{Connection, params};

use super::queries::{member, project_location};
use super::rows::role_text;
use super::users::existing_user;
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Adds a user to a project. Answers the member.
///
/// Fails with `NotFound` (project, user), or `Conflict`: `already_member`, `owner_role`.
#[derive(Debug, Clone)]
pub struct AddMember {
    /// The project.
    pub project_id: ProjectId,
    /// The user.
    pub user_id: UserId,
    /// Not [`Role::Owner`].
    pub role: Role,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for AddMember {
    type Output = Member;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Member, StoreError> {
        refuse_owner_role(self.role)?;
        if project_location(tx.conn(), &self.project_id)?.is_none() {
            return Err(StoreError::NotFound { what: "project" });
        }
        existing_user(tx.conn(), &self.user_id)?;
        if member(tx.conn(), &self.project_id, &self.user_id)?.is_some() {
            return Err(StoreError::conflict("already_member", "the user is a member already"));
        }
        insert_member(tx.conn(), &self.project_id, &self.user_id, self.role, self.at)?;
        existing_member(tx.conn(), &self.project_id, &self.user_id)
    }
}

/// Gives a member another role. Answers the member.
///
/// Fails with `NotFound` (member), or `Conflict`: `owner_role` when either role is the owner's.
#[derive(Debug, Clone)]
pub struct UpdateMember {
    /// The project.
    pub project_id: ProjectId,
    /// The member.
    pub user_id: UserId,
    /// Not [`Role::Owner`].
    pub role: Role,
}

impl Command for UpdateMember {
    type Output = Member;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Member, StoreError> {
        let member = existing_member(tx.conn(), &self.project_id, &self.user_id)?;
        refuse_owner_role(member.role)?;
        refuse_owner_role(self.role)?;
        tx.conn()
            .prepare_cached(
                "UPDATE project_members SET role = ?3 WHERE project_id = ?1 AND user_id = ?2",
            )?
            .execute(params![
                self.project_id.as_str(),
                self.user_id.as_str(),
                role_text(self.role)
            ])?;
        Ok(Member { role: self.role, ..member })
    }
}

/// Takes a member out of a project.
///
/// Fails with `NotFound` (member), or `Conflict`: `last_owner` for the owner.
#[derive(Debug, Clone)]
pub struct RemoveMember {
    /// The project.
    pub project_id: ProjectId,
    /// The member.
    pub user_id: UserId,
}

impl Command for RemoveMember {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let member = existing_member(tx.conn(), &self.project_id, &self.user_id)?;
        if member.role == Role::Owner {
            return Err(StoreError::conflict("last_owner", "a project cannot lose its owner"));
        }
        tx.conn()
            .prepare_cached("DELETE FROM project_members WHERE project_id = ?1 AND user_id = ?2")?
            .execute([self.project_id.as_str(), self.user_id.as_str()])?;
        Ok(())
    }
}

pub(super) fn insert_member(
    conn: &Connection,
    project_id: &ProjectId,
    user_id: &UserId,
    role: Role,
    joined_at: i64,
) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO project_members (project_id, user_id, role, joined_at)
         VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![project_id.as_str(), user_id.as_str(), role_text(role), joined_at])?;
    Ok(())
}

fn refuse_owner_role(role: Role) -> Result<(), StoreError> {
    if role == Role::Owner {
        return Err(StoreError::conflict(
            "owner_role",
            "the role `owner` cannot be given or taken away",
        ));
    }
    Ok(())
}

fn existing_member(
    conn: &Connection,
    project_id: &ProjectId,
    user_id: &UserId,
) -> Result<Member, StoreError> {
    member(conn, project_id, user_id)?.ok_or(StoreError::NotFound { what: "member" })
}
