//! Which run a repeatable cancel ends.

use iris_protocol::{RunId, SessionId, SessionStatus};

use super::queries;
use crate::{Command, StoreError, WriteTx};

/// Chooses the run that a cancel ends: the one that works or waits, or else the first that is queued;
/// none when no run is open. Changes nothing: it is there to be remembered, so that a repeat ends no
/// later run.
///
/// Fails with `NotFound` when there is no such session, or it is deleted.
#[derive(Debug, Clone)]
pub struct ChooseCancelled {
    /// The session.
    pub session_id: SessionId,
}

impl Command for ChooseCancelled {
    type Output = Option<RunId>;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Option<RunId>, StoreError> {
        let session = queries::existing_session(tx.conn(), &self.session_id)?;
        if session.status == SessionStatus::Deleted {
            return Err(StoreError::NotFound { what: "session" });
        }
        let open = queries::first_open_run(tx.conn(), &self.session_id)?;
        Ok(open.map(|run| run.id))
    }
}
