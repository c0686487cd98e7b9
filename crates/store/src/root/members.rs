//! Commands on the members of a project. The owner's membership is fixed: ownership is transferred,
//! not given.

use iris_protocol::{Event, Member, ProjectId, Role, UserId};
use rusqlite::{Connection, params};

use super::queries::member;
use super::rows::role_text;
use super::users::existing_user;
use super::{outbox, projects};
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Adds a user to a project, which is told of it. Answers the member.
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
    /// The user who adds them.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for AddMember {
    type Output = Member;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Member, StoreError> {
        refuse_owner_role(self.role)?;
        projects::existing(tx.conn(), &self.project_id)?;
        existing_user(tx.conn(), &self.user_id)?;
        if member(tx.conn(), &self.project_id, &self.user_id)?.is_some() {
            return Err(StoreError::conflict("already_member", "the user is a member already"));
        }
        insert_member(tx.conn(), &self.project_id, &self.user_id, self.role, self.at)?;
        let member = existing_member(tx.conn(), &self.project_id, &self.user_id)?;
        let event = Event::MemberAdded { member: member.clone() };
        outbox::put(tx, &self.project_id, &event, &self.by, self.at)?;
        Ok(member)
    }
}

/// Gives a member another role. The project is told of it. Answers the member.
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
    /// The user who changes it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
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
        let member = Member { role: self.role, ..member };
        let event = Event::MemberUpdated { member: member.clone() };
        outbox::put(tx, &self.project_id, &event, &self.by, self.at)?;
        Ok(member)
    }
}

/// Takes a member out of a project, which is told of it.
///
/// Fails with `NotFound` (member), or `Conflict`: `last_owner` for the owner.
#[derive(Debug, Clone)]
pub struct RemoveMember {
    /// The project.
    pub project_id: ProjectId,
    /// The member.
    pub user_id: UserId,
    /// The user who does it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
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
        let event = Event::MemberRemoved { user_id: self.user_id };
        outbox::put(tx, &self.project_id, &event, &self.by, self.at)
    }
}

/// Gives a project to another member, and makes its owner an administrator of it. The project is told of
/// both. Answers the new owner.
///
/// Fails with `NotFound` (project, member), or `Conflict` and `owner_role` when they own it already.
#[derive(Debug, Clone)]
pub struct TransferProject {
    /// The project.
    pub project_id: ProjectId,
    /// The owner.
    pub from: UserId,
    /// A member.
    pub to: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for TransferProject {
    type Output = Member;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Member, StoreError> {
        let owner = existing_member(tx.conn(), &self.project_id, &self.from)?;
        if owner.role != Role::Owner {
            return Err(StoreError::NotFound { what: "project" });
        }
        let next = existing_member(tx.conn(), &self.project_id, &self.to)?;
        refuse_owner_role(next.role)?;
        let sql = "SELECT 1 FROM users WHERE id = ?1 AND disabled = 1";
        if tx.conn().prepare_cached(sql)?.exists([self.to.as_str()])? {
            let message = "the account of the new owner is closed";
            return Err(StoreError::conflict("user_disabled", message));
        }
        let sql = "UPDATE projects SET owner_id = ?2, updated_at = ?3 WHERE id = ?1";
        let values = params![self.project_id.as_str(), self.to.as_str(), self.at];
        tx.conn().prepare_cached(sql)?.execute(values)?;
        for (member, role) in [(owner, Role::Admin), (next, Role::Owner)] {
            let sql = "UPDATE project_members SET role = ?3 WHERE project_id = ?1 AND user_id = ?2";
            let values =
                params![self.project_id.as_str(), member.user_id.as_str(), role_text(role)];
            tx.conn().prepare_cached(sql)?.execute(values)?;
            let event = Event::MemberUpdated { member: Member { role, ..member } };
            outbox::put(tx, &self.project_id, &event, &self.from, self.at)?;
        }
        existing_member(tx.conn(), &self.project_id, &self.to)
    }
}

/// The role of a member; none for who is none.
pub(super) fn member_role(
    conn: &Connection,
    project_id: &ProjectId,
    user_id: &UserId,
) -> Result<Option<Role>, StoreError> {
    Ok(member(conn, project_id, user_id)?.map(|member| member.role))
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
