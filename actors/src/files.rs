//! Changes of a project's files, recorded as versions. The disk is the truth for content, the database for
//! history: whoever changes files looks at the disk before and after, and records what is different.
//!
//! In a project without a directory the newest versions are the files. A change is a draft until it is recorded,
//! which is all there is to it: no look finds anything.
//!
//! One change at a time: [`Desk`] is held from the look before to the record after it. A change that a crash
//! cut off is found by the next look, as one from outside.

mod changing;
mod commands;
mod guarding;
mod looking;
mod placing;
mod restoring;
mod reverting;
mod run_diff;
mod storing;
mod tooling;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use commands::Commands;
use iris_protocol::{ApiError, ErrorCode};
use iris_store::project::{Author, FoundFile, RecordFiles, RecordedFiles};
use iris_store::{StoreError, StoredEvent, WriteContext};
use iris_workspace::WorkspaceError;
use tokio::sync::{Notify, OwnedMutexGuard};

use crate::project::ProjectHandle;
use crate::{Services, record};

pub(crate) use changing::{
    By, Delete, Edit, Move, Put, Restore, check_held, check_room, delete, edit, move_to, put,
    restore,
};
pub use guarding::Before;
pub(crate) use looking::{is_same, look_at, look_at_all};
pub(crate) use placing::{Arrived, check_upload, place_all};
pub(crate) use restoring::{difference, restore_snapshot, snapshot, take_turn};
pub(crate) use reverting::{Undo, Undone, undo_turns};
pub(crate) use run_diff::{OfRun, difference_of_run, tell_difference};
pub(crate) use storing::ProjectFiles;
pub(crate) use tooling::ToolFiles;

/// Whose turn it is to change the files of a project.
#[derive(Default)]
pub(crate) struct Desk {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Commands that run now, each of which may change any file at any time.
    commands: Commands,
    /// Whether there was a look at all files since the project was opened, so that what a later one finds is told.
    is_known: AtomicBool,
    /// Whether nothing is left that an earlier life began to put back.
    is_settled: AtomicBool,
    /// Rings when a lock is over.
    unlocked: Notify,
    /// Rings when no command runs any more.
    idle: Notify,
}

impl Desk {
    fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Acquire)
    }

    fn settle(&self) {
        self.is_settled.store(true, Ordering::Release);
    }

    fn unsettle(&self) {
        self.is_settled.store(false, Ordering::Release);
    }

    /// Waits for the turn; [`take_turn`] is what others use.
    async fn turn(&self) -> Turn {
        Turn { _held: Arc::clone(&self.turn).lock_owned().await }
    }

    /// Sees committed events: whoever waits for a lock looks again when one is over.
    pub(crate) fn sees(&self, events: &[StoredEvent]) {
        if events.iter().any(|event| event.name == "file.unlocked") {
            self.unlocked.notify_waiters();
        }
    }

    /// Whether a command runs that may change files.
    pub(crate) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    /// Waits until no command runs any more. For one caller at a time.
    pub(crate) async fn idle(&self) {
        while self.has_commands() {
            self.idle.notified().await;
        }
    }
}

/// The turn to change the files of a project.
pub(crate) struct Turn {
    _held: OwnedMutexGuard<()>,
}

/// Where files are changed.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) project: &'a ProjectHandle,
    pub(crate) services: &'a Services,
}

impl Place<'_> {
    pub(crate) fn now(&self) -> i64 {
        self.services.clock.now_ms()
    }

    /// Most versions of one path that are kept.
    fn versions_max(&self) -> u64 {
        self.services.settings.files.kept.versions_max
    }

    /// Whether the files are in the database, where nobody changes them but through Iris.
    fn is_stored(&self) -> bool {
        self.project.workspace.is_stored()
    }

    /// Runs what takes the disk off the arbiter. What it changes of stored files is a draft of its own: they are
    /// changed by recording what it found.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&iris_workspace::Workspace) -> Result<T, WorkspaceError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let workspace = self.project.workspace.draft();
        let done = tokio::task::spawn_blocking(move || work(&workspace)).await;
        done.map_err(broken)?.map_err(refused)
    }

    /// What records that files are different now, if it is told, and quotas were looked at before.
    fn change(&self, found: Vec<FoundFile>, author: Author) -> RecordFiles {
        RecordFiles {
            found,
            author,
            quotas: None,
            is_quiet: false,
            keeps_all: self.is_stored(),
            ends_restore: None,
            versions_max: self.versions_max(),
            at: self.now(),
        }
    }

    async fn commit(
        &self,
        command: RecordFiles,
        context: WriteContext,
    ) -> Result<Recorded, ApiError> {
        let done = record(&self.project.address, command, context).await.map_err(stored)?;
        Ok(Recorded { files: done.output, seq: done.seq, replayed: done.replayed })
    }
}

/// What was recorded, and with which event.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) files: RecordedFiles,
    pub(crate) seq: Option<u64>,
    pub(crate) replayed: bool,
}

pub(crate) fn refused(error: WorkspaceError) -> ApiError {
    if let WorkspaceError::Store { error } = error {
        return *error;
    }
    let wire = ApiError::new(error.code(), error.to_string());
    match error.reason() {
        Some(reason) => wire.reason(reason),
        None => wire,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn stored(error: StoreError) -> ApiError {
    let wire = error.to_api();
    if wire.code == ErrorCode::Internal {
        tracing::error!(%error, "versions of files could not be read or recorded");
    }
    wire
}

fn broken(error: impl std::fmt::Display) -> ApiError {
    tracing::error!(%error, "work with files failed inside the server");
    ApiError::new(ErrorCode::Internal, "internal error")
}
