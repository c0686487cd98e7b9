//! What a writer watches besides its commands: the files, the disk, and what it has acknowledged.

use std::sync::Arc;

use rusqlite::Connection;

use crate::condition::Condition;
use crate::figures::Figures;
use crate::head::HeadFile;
use crate::{Storage, StoreError, database};

/// The guards of one writer.
pub(crate) struct Guards {
    condition: Arc<Condition>,
    /// Of a database that numbers its events.
    head: Option<HeadFile>,
}

impl Guards {
    pub(crate) fn new(condition: Arc<Condition>, head: Option<HeadFile>) -> Self {
        Self { condition, head }
    }

    /// Whether anything may be written.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.condition.check()
    }

    /// Whether what was committed may be acknowledged.
    pub(super) fn check_committed(&self) -> Result<(), StoreError> {
        self.condition.check_committed()
    }

    /// Notes that a transaction ended, one way or the other.
    pub(super) fn transaction_ended(&self) {
        self.condition.transaction_ended();
    }

    /// Whether the disk is full.
    pub(super) fn is_full(&self) -> bool {
        self.condition.storage().is_some_and(Storage::is_full)
    }

    /// Where is counted what is written.
    pub(super) fn figures(&self) -> Option<&Figures> {
        self.condition.storage().map(Storage::figures)
    }

    /// Writes down the last event of a commit that is on the disk.
    pub(super) fn acknowledge(&mut self, seq: u64) {
        if let Some(head) = &mut self.head {
            head.write(seq);
        }
    }

    /// Looks at why a transaction was lost: remembers damage, and that the disk is full. Answers what
    /// callers are told.
    pub(super) fn explain(&self, lost: StoreError, conn: &Connection) -> StoreError {
        match (&lost, self.condition.storage()) {
            (StoreError::Corrupt { .. }, _) => {
                drop(self.condition.judge::<()>(Err(lost.clone())));
                self.leave_as_it_is(conn);
                lost
            }
            (StoreError::StorageFull, Some(storage)) => {
                storage.report_full();
                lost
            }
            // Some failures of a full disk are named after what they befell.
            (StoreError::Internal { .. }, Some(storage)) if storage.has_nothing_free() => {
                tracing::error!(error = ?lost, "a write failed, and the disk is full");
                storage.report_full();
                StoreError::StorageFull
            }
            _ => lost,
        }
    }

    /// Whether the log may be emptied into the file. Where it may not, closing does not do it either.
    pub(super) fn may_empty_log(&self, conn: &Connection) -> bool {
        let is_sound = self.condition.check().is_ok();
        if !is_sound {
            self.leave_as_it_is(conn);
        }
        is_sound
    }

    fn leave_as_it_is(&self, conn: &Connection) {
        if let Err(error) = database::leave_as_it_is(conn, true) {
            let path = self.condition.path().display();
            tracing::error!(%path, %error, "a damaged database may be written when it is closed");
        }
    }
}
