//! The database of one project: sessions, runs, messages, approvals, agents, tools, MCP servers, tasks of
//! sub-agents, files and the log of events.
//!
//! Each command changes rows and publishes the events that say so in one transaction. Deliberately
//! absent: users and rights, which are in the root database, and the content of files, which is on
//! the disk.

mod log;
mod queries;
mod records;
mod rows;

mod agents;
mod approvals;
mod attachments;
pub mod blobs;
mod cancelling;
mod captures;
mod context;
mod departing;
mod dequeuing;
mod ending;
mod exporting;
mod family;
mod file_agents;
mod files;
mod forking;
mod joining;
mod mcp;
mod messages;
mod pages;
mod permissions;
mod provider_data;
mod questions;
pub(crate) mod quotas;
mod reader;
mod reading;
mod recovery;
mod resuming;
mod retention;
mod retries;
mod reverting;
mod runs;
mod sealing;
mod search;
mod session_budget;
mod sessions;
mod steps;
mod streams;
mod superseding;
mod tasks;
mod titles;
mod todos;
mod tools;
mod uploads;
mod usage;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use iris_protocol::ProjectId;
use rusqlite::{Connection, params};

use crate::condition::Condition;
use crate::head::{self, HeadFile};
use crate::writer::Guards;
use crate::{Reader, Storage, StoreError, StoredEvent, Writer, database};

pub use agents::{AGENTS_MAX, CreateAgent, DeleteAgent, UpdateAgent};
pub use approvals::{Decision, ResolveApproval, Yes};
pub use attachments::StoredAttachment;
pub use blobs::{Bite, BlobHash, CollectBlobs};
pub use cancelling::{ChooseCancelled, ChosenRun};
pub use captures::{ExpireCaptures, KeepExchange, StartCapture, StopCapture};
pub use context::{CompactSession, LeaveOutOutputs};
pub use departing::{EndWorkOf, EndedWork};
pub use dequeuing::DequeueMessage;
pub use exporting::Conversation;
pub use file_agents::TellFileAgents;
pub use files::{
    Author, BeginRestore, ChangedPath, CreateSnapshot, DiskFacts, EndLocks, EndLocksOf, FileAt,
    FileBetween, FileRetention, FoundContent, FoundFile, KnownFile, NoteFilesKnown, PublishRunDiff,
    RecordFiles, RecordedFiles, ReleaseLock, RestoreEnd, RestoreTarget, StoredRestore,
    StoredSnapshot, TakeLock, TreeEntry, TreeFile, TrimVersions, file_of, locked_for_others,
};
pub use forking::ForkSession;
pub use joining::JoinMessages;
pub use log::PublishOutbox;
pub use mcp::{
    BeginMcpAuthorization, BegunMcpAuthorization, CreateMcpServer, DeleteMcpServer,
    KeepMcpAuthorization, MCP_AUTHORIZATIONS_MAX, MCP_SERVERS_MAX, McpApproval, McpOauthConfig,
    McpSecrets, PublishMcpStatus, RenewMcpTokens, StoredMcpServer, TakeMcpAuthorization,
    UpdateMcpServer,
};
pub use messages::{AcceptMessage, AcceptedMessage, AttachedFile};
pub use pages::{HISTORY_MESSAGES_MAX, PAGE_BYTES_MAX, Replay};
pub use permissions::{
    CreatePermission, DeletePermission, NewRule, PERMISSIONS_MAX, PERMISSIONS_OF_SESSION_MAX,
    PERMISSIONS_OF_SESSIONS_MAX, RulePlace, UpdatePermission,
};
pub use provider_data::{DataOwner, ForgetProviderData, PROVIDER_DATA_BYTES_MAX, ProviderData};
pub use questions::{AskDuringCall, NewQuestion, Reply, ResolveQuestion};
pub use quotas::{ProjectUsage, Quotas};
pub use reader::{AskedAbout, OpenWork, ProjectReader};
pub use reading::MarkRead;
pub use recovery::{FailRuns, RecoverRuns, Recovered};
pub use resuming::{OpenRun, RESUMES_MAX, ResumeRun};
pub use retention::{TRIMMED_EVENTS_MAX, TrimEvents, Trimmed};
pub use retries::{EndRetry, RecordRetry};
pub use reverting::{EndRevert, PathThen, Undoing};
pub use runs::{FailQueuedRun, FinishRun, FinishedRun, StartRun, StartedRun};
pub use sealing::{BegunAuthorization, McpSealedAgain, McpSecret, SealAgain, ToolSealedAgain};
pub use search::IndexParts;
pub use session_budget::SetSessionBudget;
pub use sessions::{CreateSession, PurgeSession, SetSessionStatus, UpdateSession};
pub use steps::{NewApproval, NewAttachment, NewPart, Outcome, RecordResult, RecordStep, StepEnd};
pub use streams::{CheckpointText, TextChunk};
pub use superseding::{EditMessage, RetryMessage};
pub use tasks::{SpawnTask, TaskChild, TaskIds, TaskResult};
pub use titles::{SetTitle, TITLE_DEFAULT};
pub use todos::{NewTodo, WriteTodos};
pub use tools::{CreateTool, DeleteTool, StoredTool, ToolConfig, ToolDefinition, UpdateTool};
pub use uploads::{BeginUpload, BegunUpload, EndUpload, ExpireUploads, StoredUpload};
pub use usage::{DayUsed, Rest, Spending, Spent, USAGE_ROWS_MAX};

/// The migrations, oldest first.
pub(crate) const SCHEMA: &[&str] = &[
    include_str!("../migrations/project/0001_conversations.sql"),
    include_str!("../migrations/project/0002_durable_work.sql"),
    include_str!("../migrations/project/0003_permissions.sql"),
    include_str!("../migrations/project/0004_agents_and_tools.sql"),
    include_str!("../migrations/project/0005_turns.sql"),
    include_str!("../migrations/project/0006_context.sql"),
    include_str!("../migrations/project/0007_usage.sql"),
    include_str!("../migrations/project/0008_files.sql"),
    include_str!("../migrations/project/0009_uploads.sql"),
    include_str!("../migrations/project/0010_reading_and_captures.sql"),
    include_str!("../migrations/project/0011_provider_data_of_keys.sql"),
    include_str!("../migrations/project/0012_shared_versions.sql"),
];

/// The open database of a project.
///
/// Opening, closing and dropping it wait for the disk: do that off the async threads.
#[derive(Debug)]
pub struct ProjectDatabase {
    writer: Writer,
    reader: Reader,
    epoch: String,
    committed_head: Arc<AtomicU64>,
    condition: Arc<Condition>,
}

impl ProjectDatabase {
    /// Makes the database of a new project at `path`.
    ///
    /// `epoch` is random and never empty; `at` is now, in milliseconds since 1970 UTC.
    ///
    /// # Errors
    /// `Conflict` with `database_exists`; `Corrupt` when a write-ahead log of another database lies
    /// there; `StorageFull` and `Internal` as the disk fails.
    pub fn create(
        path: &Path,
        project_id: &ProjectId,
        epoch: &str,
        at: i64,
    ) -> Result<(), StoreError> {
        database::create(path, SCHEMA, |conn| {
            let sql =
                "INSERT INTO meta (one, project_id, epoch, created_at) VALUES (1, ?1, ?2, ?3)";
            conn.execute(sql, params![project_id.as_str(), epoch, at])?;
            Ok(())
        })
    }

    /// Opens the database at `path`, which must be that of `project_id`.
    ///
    /// `on_commit` runs on the writer's thread with the events of each commit, in order (INV-1); it
    /// must not block.
    ///
    /// # Errors
    /// `Corrupt` for a file that is missing, empty, cut off, no database of ours or another
    /// project's, and for one that lacks what was acknowledged; `Newer` for one of a newer server. Such
    /// a file is left as it is.
    pub fn open(
        path: &Path,
        project_id: &ProjectId,
        on_commit: impl Fn(Vec<StoredEvent>) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let conn = database::open(path, SCHEMA, |conn| {
            identify(conn, project_id)?;
            head::check(path, &queries::epoch(conn)?, queries::head(conn)?)
        })?;
        let epoch = queries::epoch(&conn)?;
        let condition = Arc::new(Condition::new(path)?);
        let guards = Guards::new(Arc::clone(&condition), HeadFile::open(path, &epoch).ok());
        let committed_head = Arc::new(AtomicU64::new(queries::head(&conn)?));
        let head = Arc::clone(&committed_head);
        let writer = Writer::new(conn, "db-project", guards, move |events: Vec<StoredEvent>| {
            if let Some(last) = events.last() {
                head.store(last.seq, Ordering::Release);
            }
            on_commit(events);
        });
        let reader = Reader::new(Arc::clone(&condition));
        Ok(Self { writer, reader, epoch, committed_head, condition })
    }

    /// Where commands go.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Reads; stays usable as long as the file is there.
    pub fn reader(&self) -> ProjectReader {
        ProjectReader::new(self.reader.clone())
    }

    /// Tells this database from the one that it was before a restore.
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// The number of the last event; 0 before the first. Waits for the disk.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn head(&self) -> Result<u64, StoreError> {
        self.reader.read_blocking(queries::head)
    }

    /// The number of the last event that `on_commit` was given, set just before; that of the last
    /// event in the file when it was given none yet. Never waits.
    pub fn committed_head(&self) -> u64 {
        self.committed_head.load(Ordering::Acquire)
    }

    /// Whether anything in it is unfinished: a run that has not ended, something that waits for a person, or
    /// files that are being put back. Waits for the disk.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn has_open_work(&self) -> Result<bool, StoreError> {
        self.reader.read_blocking(queries::has_open_work)
    }

    /// The files that are being received over sockets.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn uploads(&self) -> Result<Vec<StoredUpload>, StoreError> {
        self.reader.read_blocking(uploads::all)
    }

    /// What is wrong with the files, once anybody who reads or writes noticed.
    pub fn damage(&self) -> Option<String> {
        self.condition.damage().map(str::to_owned)
    }

    /// Calls `listener` with what is wrong with the files, now or when it is noticed, on the thread
    /// that does; it must not block. From then on nothing is written any more, and whoever reads or
    /// writes is answered `Corrupt`.
    pub fn on_damage(&self, listener: impl FnOnce(&str) + Send + 'static) {
        self.condition.on_damage(listener);
    }

    /// Lets the writer know of the disk: it says when it is full, and then refuses what takes space.
    pub fn use_storage(&self, storage: &Storage) {
        self.condition.use_storage(storage, &self.writer);
    }

    /// Ends the writer's thread by a panic outside of a command.
    ///
    /// # Errors
    /// As [`Writer::kill`].
    #[cfg(any(test, feature = "faults"))]
    pub fn kill_writer(&self) -> Result<(), StoreError> {
        self.writer.kill()
    }

    /// Writes what was submitted and waits for the writer's thread to end, as dropping does too.
    pub fn close(self) {
        self.writer.close();
    }
}

fn identify(conn: &Connection, project_id: &ProjectId) -> Result<(), StoreError> {
    let sql = "SELECT project_id FROM meta";
    let found: String = conn
        .query_row(sql, [], |row| row.get(0))
        .map_err(|error| StoreError::corrupt(format!("not a project's database: {error}")))?;
    if found != project_id.as_str() {
        return Err(StoreError::corrupt(format!("it belongs to project `{found}`")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use iris_protocol::{Event, UserId};

    use super::*;
    use crate::WriteContext;
    use crate::root::OutboxEntry;

    fn member_removed(id: u64) -> PublishOutbox {
        let user_id = UserId::from_bits(1);
        let event = Event::MemberRemoved { user_id: user_id.clone() };
        PublishOutbox { entries: vec![OutboxEntry { id, event, by: user_id, at: 0 }] }
    }

    #[tokio::test]
    async fn a_writer_that_was_killed_is_dead_and_what_was_acknowledged_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("project.db");
        let project_id = ProjectId::from_bits(1);
        ProjectDatabase::create(&path, &project_id, "epoch", 0).unwrap();
        let database = ProjectDatabase::open(&path, &project_id, |_| {}).unwrap();
        let submit = || database.writer().submit(member_removed(1), WriteContext::default());
        submit().await.unwrap();
        assert!(database.writer().is_alive());

        database.kill_writer().unwrap();
        while database.writer().is_alive() {
            std::thread::yield_now();
        }
        assert!(matches!(submit().await, Err(StoreError::Closed)));
        assert!(matches!(database.kill_writer(), Err(StoreError::Closed)));
        assert_eq!(database.writer().queue_depth(), 0);
        assert_eq!((database.committed_head(), database.head().unwrap()), (1, 1));
        database.close();

        let database = ProjectDatabase::open(&path, &project_id, |_| {}).unwrap();
        assert_eq!(database.committed_head(), 1);
        let receipt = database.writer().submit(member_removed(2), WriteContext::default());
        assert_eq!(receipt.await.unwrap().seq, Some(2));
    }

    #[test]
    fn every_migration_in_the_folder_is_embedded_and_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/project");
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        let files: Vec<_> =
            names.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
        assert_eq!(files, SCHEMA);
        database::migrations(SCHEMA).validate().unwrap();
    }
}
