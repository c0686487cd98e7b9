//! The queries of a project's database, off the caller's thread.

use iris_protocol::{
    Agent, Approval, ApprovalPage, ApprovalState, CaptureId, CapturePage, CapturedExchange,
    Capturing, File, FileLock, FileVersionPage, Message, MessageId, MessagePage, ModelRef,
    PermissionId, PermissionRule, Question, QuestionId, QuestionPage, QuestionState, Room, Run,
    RunId, RunPage, SearchPage, Session, SessionId, SessionPage, SessionSnapshot, SnapshotId,
    SnapshotPage, SubtaskPart, Todo, ToolCallId, ToolId, UsageReport, UsageTotals, UserId,
};

use super::{
    BegunAuthorization, BlobHash, ChangedPath, Conversation, DayUsed, FileAt, FileBetween,
    KnownFile, OpenRun, ProjectUsage, ProviderData, Quotas, Replay, RulePlace, Spending,
    StoredAttachment, StoredMcpServer, StoredRestore, StoredSnapshot, StoredTool, TaskResult,
    TreeEntry, TreeFile, Undoing, attachments, blobs, captures, context, exporting, family,
    file_agents, files, joining, mcp, pages, permissions, provider_data, queries, questions,
    quotas, reading, resuming, reverting, rows, sealing, search, tasks, titles, todos, tools,
    usage,
};
use crate::totals::Days;
use crate::{Command, Committed, IdempotencyKey, Reader, StoreError};

/// What a model is asked about.
#[derive(Debug)]
pub struct AskedAbout {
    /// The conversation, as [`ProjectReader::history`] has it.
    pub history: Vec<Message>,
    /// What is kept with it for the model's provider: of the newest answers, at most
    /// [`super::PROVIDER_DATA_BYTES_MAX`].
    pub provider_data: Vec<ProviderData>,
    /// The last call of which models are not told the output any more, nor of those before it.
    pub left_out_to: Option<ToolCallId>,
    /// How many sessions are above this one: 0 for one of people.
    pub depth: usize,
    /// Whether messages wait to join the run.
    pub waits_to_join: bool,
}

/// How much of a project has not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenWork {
    /// Runs that wait for others.
    pub queued: u64,
    /// Runs that work.
    pub running: u64,
    /// Runs that wait for a person.
    pub waiting: u64,
    /// Approvals that nobody decided.
    pub approvals: u64,
    /// Questions that nobody answered.
    pub questions: u64,
}

/// Reads the database of a project. Cheap to clone.
///
/// Each query sees one state of the database and waits for its turn among all readers of the
/// process. Limits of pages are taken as at least 1 and at most `iris_protocol::limits::PAGE_MAX`;
/// pages of messages end earlier at [`super::PAGE_BYTES_MAX`], but never without a message.
#[derive(Debug, Clone)]
pub struct ProjectReader {
    reader: Reader,
}

impl ProjectReader {
    pub(super) fn new(reader: Reader) -> Self {
        Self { reader }
    }

    /// What is open: read through the indexes of that alone.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn open_work(&self) -> Result<OpenWork, StoreError> {
        self.reader.read(queries::open_work).await
    }

    /// A session, whatever its status.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn session(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.reader.read(move |conn| queries::session(conn, &id)).await
    }

    /// The session of a run with those whose messages joined it, in one query: every call of a tool asks for
    /// both. None for a session that is not there.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn session_of_run(
        &self,
        id: SessionId,
        run_id: RunId,
    ) -> Result<Option<(Session, Vec<UserId>)>, StoreError> {
        let read = move |conn: &_| {
            let Some(session) = queries::session(conn, &id)? else { return Ok(None) };
            Ok(Some((session, joining::joined_by(conn, &run_id)?)))
        };
        self.reader.read(read).await
    }

    /// A page of sessions, newest first, deleted ones never: those of the sub-agents of `parent_id`, or
    /// those of no sub-agent. `cursor` is the `next_cursor` of the page before.
    ///
    /// # Errors
    /// `NotFound` (session), `InvalidCursor`, otherwise as [`Reader::read`].
    pub async fn sessions(
        &self,
        limit: u32,
        cursor: Option<String>,
        include_archived: bool,
        parent_id: Option<SessionId>,
    ) -> Result<SessionPage, StoreError> {
        let read = move |conn: &_| {
            pages::sessions(conn, limit, cursor.as_deref(), include_archived, parent_id.as_ref())
        };
        self.reader.read(read).await
    }

    /// The same as a user is shown it, who has not read all of them.
    ///
    /// # Errors
    /// As [`Self::sessions`].
    pub async fn sessions_for(
        &self,
        user_id: UserId,
        limit: u32,
        cursor: Option<String>,
        include_archived: bool,
        parent_id: Option<SessionId>,
    ) -> Result<SessionPage, StoreError> {
        let read = move |conn: &_| {
            let (cursor, parent) = (cursor.as_deref(), parent_id.as_ref());
            let page = pages::sessions(conn, limit, cursor, include_archived, parent)?;
            let unread = |session: &Session| reading::unread(conn, &session.id, &user_id);
            let unread = page.sessions.iter().map(unread).collect::<Result<_, _>>()?;
            Ok(SessionPage { unread, ..page })
        };
        self.reader.read(read).await
    }

    /// The sessions that are recorded, those of sub-agents too.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn captures(&self) -> Result<Vec<(SessionId, Capturing)>, StoreError> {
        self.reader.read(captures::on).await
    }

    /// When the next capture ends by itself, in milliseconds since 1970 UTC.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn next_end_of_capture(&self) -> Result<Option<i64>, StoreError> {
        self.reader.read(captures::next_end).await
    }

    /// A page of what was recorded of a session and its sub-agents, newest first.
    ///
    /// # Errors
    /// `NotFound` (session, capture), `InvalidCursor`, otherwise as [`Reader::read`].
    pub async fn capture(
        &self,
        session_id: SessionId,
        limit: u32,
        cursor: Option<String>,
    ) -> Result<CapturePage, StoreError> {
        let read = move |conn: &_| captures::page(conn, &session_id, limit, cursor.as_deref());
        self.reader.read(read).await
    }

    /// One recorded request to a provider with its response.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn captured(
        &self,
        session_id: SessionId,
        id: CaptureId,
    ) -> Result<Option<CapturedExchange>, StoreError> {
        self.reader.read(move |conn| captures::exchange(conn, &session_id, &id)).await
    }

    /// What a session used with its sub-agents, or the whole project.
    ///
    /// # Errors
    /// `NotFound` (session), `InvalidQuery` for too many rows, otherwise as [`Reader::read`].
    pub async fn usage_report(
        &self,
        session_id: Option<SessionId>,
        days: Days,
    ) -> Result<UsageReport, StoreError> {
        self.reader.read(move |conn| usage::report(conn, session_id.as_ref(), days)).await
    }

    /// What the budgets that count for a run are compared with. `at` is now, in milliseconds since 1970 UTC.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn spending(
        &self,
        session_id: SessionId,
        run_id: RunId,
        user_id: UserId,
        at: i64,
    ) -> Result<Spending, StoreError> {
        let read = move |conn: &_| usage::spending(conn, &session_id, &run_id, &user_id, at);
        self.reader.read(read).await
    }

    /// What sessions used with their sub-agents, and those above them.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn usage_of_sessions(
        &self,
        ids: Vec<SessionId>,
    ) -> Result<Vec<(SessionId, UsageTotals)>, StoreError> {
        self.reader.read(move |conn| usage::of_sessions(conn, &ids)).await
    }

    /// What the project used since `revision`, as much as is told at once; nothing where there is no more.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn used_after(&self, revision: i64) -> Result<Vec<DayUsed>, StoreError> {
        self.reader.read(move |conn| usage::changed_after(conn, revision)).await
    }

    /// The sessions that spawned a session, the nearest one first.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn sessions_above(&self, id: SessionId) -> Result<Vec<SessionId>, StoreError> {
        self.reader.read(move |conn| family::above(conn, &id)).await
    }

    /// The session in which a call waits for a person, which is `session_id` or one below it.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn session_of_approval(
        &self,
        session_id: SessionId,
        tool_call_id: ToolCallId,
    ) -> Result<Option<SessionId>, StoreError> {
        let sql = "SELECT session_id FROM approvals WHERE tool_call_id = ?1";
        let key = tool_call_id.to_string();
        self.reader.read(move |conn| family::found_in(conn, sql, &key, &session_id)).await
    }

    /// The session in which something was asked, which is `session_id` or one below it.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn session_of_question(
        &self,
        session_id: SessionId,
        id: QuestionId,
    ) -> Result<Option<SessionId>, StoreError> {
        let sql = "SELECT session_id FROM questions WHERE id = ?1";
        let key = id.to_string();
        self.reader.read(move |conn| family::found_in(conn, sql, &key, &session_id)).await
    }

    /// What became of the run of a sub-agent.
    ///
    /// # Errors
    /// `NotFound` (run), otherwise as [`Reader::read`].
    pub async fn task_result(
        &self,
        session_id: SessionId,
        run_id: RunId,
    ) -> Result<TaskResult, StoreError> {
        self.reader.read(move |conn| tasks::result(conn, &session_id, &run_id)).await
    }

    /// What a call of `task` began, if it did.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn begun_task(
        &self,
        tool_call_id: ToolCallId,
    ) -> Result<Option<SubtaskPart>, StoreError> {
        self.reader.read(move |conn| tasks::begun(conn, &tool_call_id)).await
    }

    /// The sessions and runs of the sub-agents of a session that are to end, because the runs that wait for
    /// them have ended, or somebody cancelled them.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn tasks_to_end(
        &self,
        session_id: SessionId,
    ) -> Result<Vec<(SessionId, RunId)>, StoreError> {
        self.reader.read(move |conn| tasks::to_end(conn, &session_id)).await
    }

    /// The sessions of the sub-agents in the background of a session that work, and the runs that do.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn tasks_in_background(
        &self,
        session_id: SessionId,
    ) -> Result<Vec<(SessionId, RunId)>, StoreError> {
        self.reader.read(move |conn| tasks::in_background(conn, &session_id)).await
    }

    /// A session with all that a client needs to follow it; its messages as [`Self::messages`].
    ///
    /// # Errors
    /// `InvalidCursor`, otherwise as [`Reader::read`].
    pub async fn snapshot(
        &self,
        session_id: SessionId,
        limit: u32,
        before: Option<String>,
    ) -> Result<Option<SessionSnapshot>, StoreError> {
        let read = move |conn: &_| pages::snapshot(conn, &session_id, limit, before.as_deref());
        self.reader.read(read).await
    }

    /// The same as a user is shown it, who has not read all of it.
    ///
    /// # Errors
    /// As [`Self::snapshot`].
    pub async fn snapshot_for(
        &self,
        user_id: UserId,
        session_id: SessionId,
        limit: u32,
        before: Option<String>,
    ) -> Result<Option<SessionSnapshot>, StoreError> {
        let read = move |conn: &_| {
            let found = pages::snapshot(conn, &session_id, limit, before.as_deref())?;
            let Some(snapshot) = found else { return Ok(None) };
            let unread = Some(reading::unread(conn, &session_id, &user_id)?);
            Ok(Some(SessionSnapshot { unread, ..snapshot }))
        };
        self.reader.read(read).await
    }

    /// A message of a session.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn message(
        &self,
        session_id: SessionId,
        message_id: MessageId,
    ) -> Result<Option<Message>, StoreError> {
        self.reader.read(move |conn| queries::message(conn, &session_id, &message_id)).await
    }

    /// The last messages of a session, or the last ones before a cursor; oldest first. `before` is
    /// the `next_cursor` of the page after.
    ///
    /// # Errors
    /// `NotFound` (session), `InvalidCursor`, otherwise as [`Reader::read`].
    pub async fn messages(
        &self,
        session_id: SessionId,
        limit: u32,
        before: Option<String>,
    ) -> Result<MessagePage, StoreError> {
        let read = move |conn: &_| pages::messages(conn, &session_id, limit, before.as_deref());
        self.reader.read(read).await
    }

    /// A session with all of its messages, as long as their parts have at most `bytes_max` bytes of JSON.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn conversation(
        &self,
        session_id: SessionId,
        bytes_max: usize,
    ) -> Result<Option<Conversation>, StoreError> {
        self.reader.read(move |conn| exporting::conversation(conn, &session_id, bytes_max)).await
    }

    /// The conversation as a run sees it: all messages of the runs before it and its own, the answer
    /// as far as it is recorded included, oldest first, at most [`super::HISTORY_MESSAGES_MAX`]. What is
    /// superseded is left out.
    ///
    /// # Errors
    /// `NotFound` (run), otherwise as [`Reader::read`].
    pub async fn history(
        &self,
        session_id: SessionId,
        run_id: RunId,
    ) -> Result<Vec<Message>, StoreError> {
        self.reader.read(move |conn| pages::history(conn, &session_id, &run_id)).await
    }

    /// What a model is asked about, in one query: each has its way to another thread, and every step of every
    /// run asks for all of it. `model` is the one whose data is wanted, with any key; none for one that keeps
    /// nothing.
    ///
    /// # Errors
    /// As [`ProjectReader::history`].
    pub async fn asked_about(
        &self,
        session_id: SessionId,
        run_id: RunId,
        model: Option<ModelRef>,
    ) -> Result<AskedAbout, StoreError> {
        let read = move |conn: &_| {
            let data = |model| provider_data::of_history(conn, &session_id, &run_id, model);
            Ok(AskedAbout {
                history: pages::history(conn, &session_id, &run_id)?,
                provider_data: model.as_ref().map(data).transpose()?.unwrap_or_default(),
                left_out_to: context::left_out_to(conn, &session_id)?,
                depth: family::above(conn, &session_id)?.len(),
                waits_to_join: joining::has_joining(conn, &run_id)?,
            })
        };
        self.reader.read(read).await
    }

    /// The users whose messages joined a run, or one of those that set it to work as a sub-agent.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn joined_by(&self, id: RunId) -> Result<Vec<UserId>, StoreError> {
        self.reader.read(move |conn| joining::joined_by(conn, &id)).await
    }

    /// The last call of which models are not told the output any more, nor of those before it.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn left_out_to(
        &self,
        session_id: SessionId,
    ) -> Result<Option<ToolCallId>, StoreError> {
        self.reader.read(move |conn| context::left_out_to(conn, &session_id)).await
    }

    /// What was said first in a session; none before anything was.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn first_words(&self, session_id: SessionId) -> Result<Option<String>, StoreError> {
        self.reader.read(move |conn| titles::first_words(conn, &session_id)).await
    }

    /// Whether a model may give the session a title.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn is_untitled(&self, session_id: SessionId) -> Result<bool, StoreError> {
        self.reader.read(move |conn| titles::is_untitled(conn, &session_id)).await
    }

    /// A run.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn run(&self, id: RunId) -> Result<Option<Run>, StoreError> {
        let found = self.reader.read(move |conn| queries::run(conn, &id)).await?;
        Ok(found.map(|found| found.run))
    }

    /// A page of the runs of a session, newest first. `cursor` is the `next_cursor` of the page before.
    ///
    /// # Errors
    /// `NotFound` (session), `InvalidCursor`, otherwise as [`Reader::read`].
    pub async fn runs(
        &self,
        session_id: SessionId,
        limit: u32,
        cursor: Option<String>,
    ) -> Result<RunPage, StoreError> {
        self.reader.read(move |conn| pages::runs(conn, &session_id, limit, cursor.as_deref())).await
    }

    /// The first run of a session that has not ended, with all that is needed to let it go on.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn open_run(&self, session_id: SessionId) -> Result<Option<OpenRun>, StoreError> {
        self.reader.read(move |conn| resuming::first_open_run(conn, &session_id)).await
    }

    /// The answer of a run of a session; none before the run starts.
    ///
    /// # Errors
    /// `NotFound` (run), otherwise as [`Reader::read`].
    pub async fn answer(
        &self,
        session_id: SessionId,
        run_id: RunId,
    ) -> Result<Option<Message>, StoreError> {
        self.reader.read(move |conn| resuming::answer_of(conn, &session_id, &run_id)).await
    }

    /// The agents that the project defined, by name.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn agents(&self) -> Result<Vec<Agent>, StoreError> {
        let sql = "SELECT * FROM agents ORDER BY name";
        self.reader.read(move |conn| queries::all(conn, sql, [], rows::agent)).await
    }

    /// The names of the agents that stood in files when somebody looked last, each with a hash of its file; by
    /// name.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn file_agents(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.reader.read(file_agents::all).await
    }

    /// The tools that the project defined, by name.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn tools(&self) -> Result<Vec<StoredTool>, StoreError> {
        self.reader.read(tools::all).await
    }

    /// A tool that the project defined.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn tool(&self, id: ToolId) -> Result<Option<StoredTool>, StoreError> {
        self.reader.read(move |conn| tools::one(conn, &id)).await
    }

    /// All permission rules of the project and of its sessions, in the order of their ids.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn permissions(&self) -> Result<Vec<PermissionRule>, StoreError> {
        self.reader.read(permissions::all).await
    }

    /// The permission rules behind a place in their list, at most `limit`: of the project and of all its
    /// sessions, or of the project and of one session.
    ///
    /// # Errors
    /// `NotFound` (session), otherwise as [`Reader::read`].
    pub async fn permissions_behind(
        &self,
        session_id: Option<SessionId>,
        place: Option<RulePlace>,
        limit: usize,
    ) -> Result<Vec<PermissionRule>, StoreError> {
        let read =
            move |conn: &_| permissions::behind(conn, session_id.as_ref(), place.as_ref(), limit);
        self.reader.read(read).await
    }

    /// A permission rule.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn permission(&self, id: PermissionId) -> Result<Option<PermissionRule>, StoreError> {
        self.reader.read(move |conn| permissions::one(conn, &id)).await
    }

    /// The approval about a call of a session.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn approval(
        &self,
        session_id: SessionId,
        tool_call_id: ToolCallId,
    ) -> Result<Option<Approval>, StoreError> {
        self.reader.read(move |conn| queries::approval(conn, &session_id, &tool_call_id)).await
    }

    /// A page of the approvals in one state, of one session or of all, newest first. `cursor` is the
    /// `next_cursor` of the page before.
    ///
    /// # Errors
    /// `NotFound` (session), `InvalidCursor`, otherwise as [`Reader::read`].
    pub async fn approvals(
        &self,
        session_id: Option<SessionId>,
        state: ApprovalState,
        limit: u32,
        cursor: Option<String>,
    ) -> Result<ApprovalPage, StoreError> {
        let read = move |conn: &_| {
            pages::approvals(conn, session_id.as_ref(), state, limit, cursor.as_deref())
        };
        self.reader.read(read).await
    }

    /// The MCP servers of the project, by name.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn mcp_servers(&self) -> Result<Vec<StoredMcpServer>, StoreError> {
        self.reader.read(mcp::all).await
    }

    /// An MCP server of the project.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn mcp_server(&self, name: String) -> Result<Option<StoredMcpServer>, StoreError> {
        self.reader.read(move |conn| mcp::one(conn, &name)).await
    }

    /// The authorizations of MCP servers that were begun, with what is sealed of them.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn begun_mcp_authorizations(&self) -> Result<Vec<BegunAuthorization>, StoreError> {
        self.reader.read(sealing::begun).await
    }

    /// What an agent asked in a session.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn question(
        &self,
        session_id: SessionId,
        id: QuestionId,
    ) -> Result<Option<Question>, StoreError> {
        self.reader.read(move |conn| questions::one(conn, &session_id, &id)).await
    }

    /// A page of what agents asked, in one state, in one session or in all, newest first. `cursor` is the
    /// `next_cursor` of the page before.
    ///
    /// # Errors
    /// `NotFound` (session), `InvalidCursor`, otherwise as [`Reader::read`].
    pub async fn questions(
        &self,
        session_id: Option<SessionId>,
        state: QuestionState,
        limit: u32,
        cursor: Option<String>,
    ) -> Result<QuestionPage, StoreError> {
        let read = move |conn: &_| {
            questions::page(conn, session_id.as_ref(), state, limit, cursor.as_deref())
        };
        self.reader.read(read).await
    }

    /// The to-do list of a session, in its order.
    ///
    /// # Errors
    /// `NotFound` (session), otherwise as [`Reader::read`].
    pub async fn todos(&self, session_id: SessionId) -> Result<Vec<Todo>, StoreError> {
        self.reader.read(move |conn| todos::list(conn, &session_id)).await
    }

    /// What a call of a session was answered with besides what the model read at once.
    ///
    /// # Errors
    /// `BlobCorrupt`, otherwise as [`Reader::read`].
    pub async fn attachment(
        &self,
        session_id: SessionId,
        call_id: ToolCallId,
    ) -> Result<Option<StoredAttachment>, StoreError> {
        self.reader.read(move |conn| attachments::get(conn, &session_id, &call_id)).await
    }

    /// What a file holds that goes with a message, by its hash.
    ///
    /// # Errors
    /// `BlobCorrupt`, otherwise as [`Reader::read`].
    pub async fn attached(&self, hash: String) -> Result<Vec<u8>, StoreError> {
        let read = move |conn: &_| {
            let hash = BlobHash::from_hex(&hash).ok_or(StoreError::BlobCorrupt { hash })?;
            blobs::get(conn, hash)
        };
        self.reader.read(read).await
    }

    /// A file that was changed through Iris.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn file(&self, path: String) -> Result<Option<File>, StoreError> {
        self.reader.read(move |conn| queries::file(conn, &path)).await
    }

    /// The events of a room after `since_seq` and up to `to_seq`, or that they are more than
    /// `events_max` or `bytes_max` bytes of payload, or that some of them are not kept any more.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn events(
        &self,
        room: Room,
        since_seq: u64,
        to_seq: u64,
        events_max: usize,
        bytes_max: usize,
    ) -> Result<Replay, StoreError> {
        let range = (since_seq, to_seq);
        let read = move |conn: &_| pages::replay(conn, &room, range, events_max, bytes_max);
        self.reader.read(read).await
    }

    /// A page of the text parts that hold every word of `query`, newest first; those of deleted
    /// sessions never. `cursor` is the `next_cursor` of the page before.
    ///
    /// # Errors
    /// `InvalidQuery`, `InvalidCursor`, otherwise as [`Reader::read`].
    pub async fn search(
        &self,
        query: String,
        session_id: Option<SessionId>,
        limit: u32,
        cursor: Option<String>,
    ) -> Result<SearchPage, StoreError> {
        let read = move |conn: &_| {
            search::search(conn, &query, session_id.as_ref(), limit, cursor.as_deref())
        };
        self.reader.read(read).await
    }

    /// Whether there is text that [`super::IndexParts`] has to bring into the index before it can be
    /// found.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn has_unindexed(&self) -> Result<bool, StoreError> {
        self.reader.read(search::is_waiting).await
    }

    /// How much the project holds.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn usage(&self) -> Result<ProjectUsage, StoreError> {
        self.reader.read(quotas::usage).await
    }

    /// Whether the project may hold a file of `size` bytes at `path`, for work that has to be done
    /// before its command: [`super::RecordFiles`] checks again. Without a size, whether it has room
    /// at all.
    ///
    /// # Errors
    /// `QuotaExceeded`, otherwise as [`Reader::read`].
    pub async fn check_file(
        &self,
        quotas: Quotas,
        path: String,
        size: Option<u64>,
    ) -> Result<(), StoreError> {
        self.reader.read(move |conn| quotas.check_file(conn, &path, size)).await
    }

    /// What is known of a file of that path.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn known_file(&self, path: String) -> Result<Option<KnownFile>, StoreError> {
        self.reader.read(move |conn| files::known(conn, &path)).await
    }

    /// The files that are known, by path, from the one after `after` on.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn known_files(
        &self,
        after: String,
        limit: u32,
    ) -> Result<Vec<KnownFile>, StoreError> {
        self.reader.read(move |conn| files::known_after(conn, &after, limit)).await
    }

    /// The file at a path of a project without a directory. On this thread, which may block.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn tree_file(&self, path: &str) -> Result<Option<TreeFile>, StoreError> {
        self.reader.read_here(|conn| files::tree_file(conn, path))
    }

    /// The file at a path of a project without a directory, with its content. On this thread, which may block.
    ///
    /// # Errors
    /// `BlobCorrupt`, otherwise as [`Reader::read`].
    pub fn tree_read(&self, path: &str) -> Result<Option<(TreeFile, Vec<u8>)>, StoreError> {
        self.reader.read_here(|conn| files::tree_read(conn, path))
    }

    /// What stands in a directory of a project without one on the disk, at most `entries_max` names. The path
    /// is empty for that of the project. On this thread, which may block.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn tree_entries(
        &self,
        directory: &str,
        entries_max: usize,
    ) -> Result<Vec<TreeEntry>, StoreError> {
        self.reader.read_here(|conn| files::tree_entries(conn, directory, entries_max))
    }

    /// Whether there was a look at all files of the project, however far it came.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn files_are_known(&self) -> Result<bool, StoreError> {
        self.reader.read(files::are_known).await
    }

    /// A version of a path.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn file_version(
        &self,
        path: String,
        version: u64,
    ) -> Result<Option<FileAt>, StoreError> {
        self.reader.read(move |conn| files::one(conn, &path, version)).await
    }

    /// The newest version of a path, also one that says that it is gone.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn newest_file_version(&self, path: String) -> Result<Option<FileAt>, StoreError> {
        self.reader.read(move |conn| files::newest(conn, &path)).await
    }

    /// A page of the versions of a path, newest first. `cursor` is the `next_cursor` of the page before.
    ///
    /// # Errors
    /// `InvalidCursor`, otherwise as [`Reader::read`].
    pub async fn file_versions(
        &self,
        path: String,
        limit: u32,
        cursor: Option<String>,
    ) -> Result<FileVersionPage, StoreError> {
        self.reader.read(move |conn| files::page(conn, &path, limit, cursor.as_deref())).await
    }

    /// What a version of a path holds; none where it is not kept.
    ///
    /// # Errors
    /// `BlobCorrupt`, otherwise as [`Reader::read`].
    pub async fn file_content(
        &self,
        path: String,
        version: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.reader.read(move |conn| files::content(conn, &path, version)).await
    }

    /// What a run, with the sub-agents that worked for it, made of each path, at most `limit` of them.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn changed_by_run(
        &self,
        run_id: RunId,
        limit: usize,
    ) -> Result<Vec<ChangedPath>, StoreError> {
        let read = move |conn: &_| {
            let runs = files::runs_below(conn, &run_id)?;
            files::changed_by(conn, &runs, limit)
        };
        self.reader.read(read).await
    }

    /// A snapshot.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn snapshot_of_files(
        &self,
        id: SnapshotId,
    ) -> Result<Option<StoredSnapshot>, StoreError> {
        self.reader.read(move |conn| files::snapshot(conn, &id)).await
    }

    /// The snapshot before the first change of a run.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn snapshot_of_run(
        &self,
        run_id: RunId,
    ) -> Result<Option<StoredSnapshot>, StoreError> {
        self.reader.read(move |conn| files::snapshot_of_run(conn, &run_id)).await
    }

    /// A page of snapshots, newest first. `cursor` is the `next_cursor` of the page before.
    ///
    /// # Errors
    /// `InvalidCursor`, otherwise as [`Reader::read`].
    pub async fn snapshots(
        &self,
        limit: u32,
        cursor: Option<String>,
    ) -> Result<SnapshotPage, StoreError> {
        self.reader.read(move |conn| files::snapshots(conn, limit, cursor.as_deref())).await
    }

    /// The paths that differ between two moments of the order of changes, sorted, each with its version at the
    /// first and at the second, which is now when none is named; and whether there are more than `limit`.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn files_between(
        &self,
        from: i64,
        to: Option<i64>,
        limit: usize,
    ) -> Result<(Vec<FileBetween>, bool), StoreError> {
        let read = move |conn: &_| {
            let (paths, is_cut) = files::changed_between(conn, from, to, limit)?;
            let mut between = Vec::with_capacity(paths.len());
            for path in paths {
                let before = files::state_at(conn, &path, from)?;
                let after = files::state_at(conn, &path, to.unwrap_or(i64::MAX))?;
                between.push(FileBetween { path, before, after });
            }
            Ok((between, is_cut))
        };
        self.reader.read(read).await
    }

    /// The files that are being put back together, if any are.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn begun_restore(&self) -> Result<Option<StoredRestore>, StoreError> {
        self.reader.read(files::begun_restore).await
    }

    /// What undoing a turn of a session, and all that follows it, would be about.
    ///
    /// # Errors
    /// `NotFound` (session, message), `Conflict`: `session_archived`, `session_deleted`, `session_busy`,
    /// `message_superseded`, `no_question`, `too_much_follows`, `too_many_files`; otherwise as
    /// [`Reader::read`].
    pub async fn plan_revert(
        &self,
        session_id: SessionId,
        message_id: MessageId,
    ) -> Result<Undoing, StoreError> {
        self.reader.read(move |conn| reverting::plan_revert(conn, &session_id, &message_id)).await
    }

    /// What undoing the last revert of a session would be about.
    ///
    /// # Errors
    /// `NotFound` (session), `Conflict`: `session_archived`, `session_deleted`, `session_busy`,
    /// `not_reverted`; otherwise as [`Reader::read`].
    pub async fn plan_unrevert(&self, session_id: SessionId) -> Result<Undoing, StoreError> {
        self.reader.read(move |conn| reverting::plan_unrevert(conn, &session_id)).await
    }

    /// The locks of the project, by path, also those whose time is over.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn file_locks(&self) -> Result<Vec<FileLock>, StoreError> {
        self.reader.read(files::all_locks).await
    }

    /// Whether the project has room for files at all, for work that does not say which.
    ///
    /// # Errors
    /// `QuotaExceeded`, otherwise as [`Reader::read`].
    pub async fn check_files(&self, quotas: Quotas) -> Result<(), StoreError> {
        self.reader.read(move |conn| quotas.check_files(conn)).await
    }

    /// The bytes of a blob.
    ///
    /// # Errors
    /// `BlobCorrupt`, otherwise as [`Reader::read`].
    pub async fn blob(&self, hash: BlobHash) -> Result<Vec<u8>, StoreError> {
        self.reader.read(move |conn| blobs::get(conn, hash)).await
    }

    /// The number of the last event of the project, kept or not; 0 before the first.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn head(&self) -> Result<u64, StoreError> {
        self.reader.read(queries::head).await
    }

    /// The number of the last event that came from the root database; 0 before the first.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn outbox_seq(&self) -> Result<u64, StoreError> {
        self.reader.read(queries::outbox_seq).await
    }

    /// What a command answered to an earlier write with the same idempotency key.
    ///
    /// For work that has to be done before its command: the command itself checks the key again.
    ///
    /// # Errors
    /// `IdempotencyConflict` when the key was used with another body, otherwise as [`Reader::read`].
    pub async fn recall<C: Command>(
        &self,
        key: IdempotencyKey,
    ) -> Result<Option<Committed<C::Output>>, StoreError> {
        self.reader.read(move |conn| key.recall(conn)).await
    }

    /// Whether a command was written with this idempotency key, with whatever body.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn knows(&self, key: IdempotencyKey) -> Result<bool, StoreError> {
        self.reader.read(move |conn| key.is_known(conn)).await
    }

    /// The number of the last event of a room; 0 for a room without.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn room_head(&self, room: Room) -> Result<u64, StoreError> {
        self.reader.read(move |conn| queries::room_head(conn, &room)).await
    }
}
