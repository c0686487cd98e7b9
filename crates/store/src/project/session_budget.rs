//! The most that a session may use.

use iris_protocol::{Budget, Event, Session, SessionId, UserId};
use rusqlite::params;

use super::sessions::active_session;
use super::{log, queries};
use crate::{Command, StoreError, WriteTx, column};

/// Sets the most that a session may use with its sub-agents; an empty budget limits nothing. Answers the
/// session as it is then.
///
/// Fails with `NotFound`, or `Conflict`: `session_archived`, `session_deleted`.
#[derive(Debug, Clone)]
pub struct SetSessionBudget {
    /// The session.
    pub id: SessionId,
    /// What it may use, in place of what it might before.
    pub budget: Budget,
    /// The user who wants it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for SetSessionBudget {
    type Output = Session;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Session, StoreError> {
        active_session(tx, &self.id)?;
        let budget = Some(self.budget).filter(|budget| !budget.is_empty());
        let sql = "UPDATE sessions SET budget = ?2, updated_at = ?3 WHERE id = ?1";
        let key = params![self.id.as_str(), column::to_optional_json(budget.as_ref())?, self.at];
        tx.conn().prepare_cached(sql)?.execute(key)?;
        let session = queries::existing_session(tx.conn(), &self.id)?;
        let event = Event::SessionUpdated { session: session.clone() };
        log::in_both(tx, &self.id, self.at, Some(&self.by), &event)?;
        Ok(session)
    }
}
