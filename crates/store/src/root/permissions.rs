//! The rules about what tools may touch that count for all projects. Each change is in the audit.

use iris_protocol::{
    PermissionAction, PermissionId, PermissionLayer, PermissionRule, PermissionSetting, UserId,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::audit::RecordAudit;
use crate::column::{to_word, word};
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Most rules of the server.
pub const SERVER_PERMISSIONS_MAX: u64 = 1_000;

/// Makes a rule for all projects. Answers it.
///
/// Fails with `Conflict`: `too_many_permissions` when there are [`SERVER_PERMISSIONS_MAX`].
#[derive(Debug, Clone)]
pub struct CreateServerPermission {
    /// A new id.
    pub id: PermissionId,
    /// What it says; valid.
    pub setting: PermissionSetting,
    /// What the audit says of it: who, when.
    pub audit: RecordAudit,
}

impl Command for CreateServerPermission {
    type Output = PermissionRule;

    /// A full disk keeps nobody from forbidding something.
    fn when_full(&self) -> WhenFull {
        match self.setting.action {
            PermissionAction::Ask | PermissionAction::Deny => WhenFull::Allow,
            PermissionAction::Allow => WhenFull::Refuse,
        }
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<PermissionRule, StoreError> {
        let count = "SELECT count(*) FROM permissions";
        let count: u64 = tx.conn().prepare_cached(count)?.query_row([], |row| row.get(0))?;
        if count >= SERVER_PERMISSIONS_MAX {
            let message =
                format!("the server has {SERVER_PERMISSIONS_MAX} permission rules already");
            return Err(StoreError::conflict("too_many_permissions", message));
        }
        let PermissionSetting { permission, pattern, action } = self.setting;
        let sql =
            "INSERT INTO permissions (id, permission, pattern, action, created_by, created_at,
                     updated_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)";
        tx.conn().prepare_cached(sql)?.execute(params![
            self.id.as_str(),
            permission,
            pattern,
            to_word(&action)?,
            self.audit.user_id.as_ref().map_or("", UserId::as_str),
            self.audit.at,
        ])?;
        self.audit.run(tx)?;
        existing(tx.conn(), &self.id)
    }
}

/// Changes a rule of the server; its place in the order stays. Answers it as it is then.
///
/// Fails with `NotFound`.
#[derive(Debug, Clone)]
pub struct UpdateServerPermission {
    /// The rule.
    pub id: PermissionId,
    /// A tool, a group of tools or `*`; `None` leaves it.
    pub permission: Option<String>,
    /// A valid glob; `None` leaves it.
    pub pattern: Option<String>,
    /// What becomes of a call that it matches; `None` leaves it.
    pub action: Option<PermissionAction>,
    /// What the audit says of it: who, when.
    pub audit: RecordAudit,
}

impl Command for UpdateServerPermission {
    type Output = PermissionRule;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<PermissionRule, StoreError> {
        let rule = existing(tx.conn(), &self.id)?;
        let sql =
            "UPDATE permissions SET permission = ?2, pattern = ?3, action = ?4, updated_at = ?5
                   WHERE id = ?1";
        tx.conn().prepare_cached(sql)?.execute(params![
            self.id.as_str(),
            self.permission.unwrap_or(rule.permission),
            self.pattern.unwrap_or(rule.pattern),
            to_word(&self.action.unwrap_or(rule.action))?,
            self.audit.at,
        ])?;
        self.audit.run(tx)?;
        existing(tx.conn(), &self.id)
    }
}

/// Deletes a rule of the server.
///
/// Fails with `NotFound`.
#[derive(Debug, Clone)]
pub struct DeleteServerPermission {
    /// The rule.
    pub id: PermissionId,
    /// What the audit says of it: who, when.
    pub audit: RecordAudit,
}

impl Command for DeleteServerPermission {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        existing(tx.conn(), &self.id)?;
        let sql = "DELETE FROM permissions WHERE id = ?1";
        tx.conn().prepare_cached(sql)?.execute([self.id.as_str()])?;
        self.audit.run(tx).map(drop)
    }
}

fn existing(conn: &Connection, id: &PermissionId) -> Result<PermissionRule, StoreError> {
    let sql = "SELECT * FROM permissions WHERE id = ?1";
    let found = conn.prepare_cached(sql)?.query_row([id.as_str()], permission).optional()?;
    found.ok_or(StoreError::NotFound { what: "permission" })
}

/// All rules of the server, in the order in which they count.
pub(super) fn all(conn: &Connection) -> Result<Vec<PermissionRule>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT * FROM permissions ORDER BY id")?;
    let rules = statement.query_map([], permission)?.collect::<Result<_, _>>()?;
    Ok(rules)
}

fn permission(row: &Row<'_>) -> rusqlite::Result<PermissionRule> {
    Ok(PermissionRule {
        id: Some(word(row, "id")?),
        layer: PermissionLayer::Server,
        session_id: None,
        permission: row.get("permission")?,
        pattern: row.get("pattern")?,
        action: word(row, "action")?,
        created_by: Some(word(row, "created_by")?),
        created_at: Some(row.get("created_at")?),
        updated_at: Some(row.get("updated_at")?),
    })
}
