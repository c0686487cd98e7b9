//! What administrators allow a user in all projects together.

use iris_protocol::{UserBudgets, UserId};
use rusqlite::{Connection, OptionalExtension, params};

use super::audit::RecordAudit;
use super::users::existing_user;
use crate::column::{json, to_json};
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Sets what a user may use, in place of what was set before. Answers it.
///
/// Fails with `NotFound`.
#[derive(Debug, Clone)]
pub struct SetUserBudgets {
    /// The user.
    pub id: UserId,
    /// What they may use; empty where the configuration says.
    pub budgets: UserBudgets,
    /// What the audit says of it: who, when.
    pub audit: RecordAudit,
}

impl Command for SetUserBudgets {
    type Output = UserBudgets;

    /// A full disk keeps nobody from limiting somebody.
    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<UserBudgets, StoreError> {
        existing_user(tx.conn(), &self.id)?;
        let sql = "INSERT OR REPLACE INTO user_budgets (user_id, budgets, set_by, set_at)
                   VALUES (?1, ?2, ?3, ?4)";
        tx.conn().prepare_cached(sql)?.execute(params![
            self.id.as_str(),
            to_json(&self.budgets)?,
            self.audit.user_id.as_ref().map_or("", UserId::as_str),
            self.audit.at,
        ])?;
        self.audit.run(tx)?;
        Ok(self.budgets)
    }
}

/// What was set for a user; nothing where nothing was.
pub(super) fn of_user(conn: &Connection, id: &UserId) -> Result<UserBudgets, StoreError> {
    let sql = "SELECT budgets FROM user_budgets WHERE user_id = ?1";
    let read = |row: &rusqlite::Row<'_>| json(row, "budgets");
    let found = conn.prepare_cached(sql)?.query_row([id.as_str()], read).optional()?;
    Ok(found.unwrap_or_default())
}
