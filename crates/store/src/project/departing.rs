//! What is under way for somebody who may not work in the project any more.

use iris_protocol::{RunId, RunStatus, SessionId, UserId};
use serde::{Deserialize, Serialize};

use super::rows::{self, NumberedRun};
use super::{cancelling, ending, queries, uploads};
use crate::{Command, StoreError, WhenFull, WriteTx};

const OPEN_OF_USER: &str = "SELECT * FROM runs WHERE started_by = ?1 AND ended_at IS NULL
     ORDER BY session_id, number";

/// Ends what a user has under way: their runs that are queued end as cancelled, those that work or wait are to
/// end so, as after [`super::ChooseCancelled`], and what they send is given up. Runs of others stay, also those
/// that they steered.
///
/// A repeat answers the runs that have not ended yet.
#[derive(Debug, Clone)]
pub struct EndWorkOf {
    /// The user.
    pub user_id: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

/// What somebody had under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedWork {
    /// Runs that were queued, and those that work or wait: their sessions have to hear that they end.
    pub runs: Vec<(SessionId, RunId)>,
    /// The ids of files that were being received.
    pub uploads: Vec<String>,
}

impl Command for EndWorkOf {
    type Output = EndedWork;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<EndedWork, StoreError> {
        let mut ended = EndedWork::default();
        let open = queries::all(tx.conn(), OPEN_OF_USER, [self.user_id.as_str()], rows::run)?;
        for NumberedRun { mut run, .. } in open {
            if run.status == RunStatus::Queued {
                let mut session = queries::existing_session(tx.conn(), &run.session_id)?;
                let status = RunStatus::Cancelled;
                ending::end_run(tx, &mut session, &mut run, status, None, self.at)?;
            } else {
                cancelling::request(tx.conn(), &run.id)?;
            }
            ended.runs.push((run.session_id, run.id));
        }
        ended.uploads = uploads::give_up_of(tx.conn(), &self.user_id)?;
        Ok(ended)
    }
}
