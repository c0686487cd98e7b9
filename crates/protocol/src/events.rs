//! Everything that can happen in a room (docs/protocol.md, "Events").

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Agent, ApiError, Approval, ApprovalId, ApprovalState, Attachment, AuthSessionId, BackupId,
    BudgetExceeded, CaptureEnd, ChangedFile, ChangedSince, CompactionPart, FileLock, FileSource,
    FinishReason, GitAction, InvitationId, McpServer, McpState, Member, Message, MessageId, PartId,
    PermissionId, PermissionRule, Presence, ProjectId, Question, QuestionId, QuestionState,
    QueueReason, Remember, Role, Run, RunId, RunStatus, Session, SessionId, SessionState,
    SkippedFile, Snapshot, SnapshotId, SubtaskPart, SupervisionKind, SupervisionRecord, Todo, Tool,
    ToolCallId, ToolId, ToolState, UnlockReason, Unread, Usage, UsageTotals, UserId,
};

/// A row of the table of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventSpec {
    /// On the wire.
    pub name: &'static str,
    /// Whether it is part of the log.
    pub kind: EventKind,
    /// Where it is heard. In several rooms it is as many events, each with its own number.
    pub rooms: &'static [Audience],
}

/// Who hears an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// The room of the session.
    Session,
    /// The room of the project.
    Project,
    /// The room of the user, on all of their connections.
    User,
    /// The room of the server's administrators.
    Admin,
    /// The one connection that it is about.
    Connection,
}

impl Audience {
    /// What it is called in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Project => "project",
            Self::User => "user",
            Self::Admin => "admin",
            Self::Connection => "connection",
        }
    }
}

/// Whether an event is part of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Committed before it is sent, numbered, replayed to whoever missed it.
    Durable,
    /// Sent to whoever is there.
    Ephemeral,
}

impl EventKind {
    /// What it is called in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Ephemeral => "ephemeral",
        }
    }
}

macro_rules! events {
    ($($(#[$doc:meta])* $variant:ident = $name:literal $kind:ident [$($audience:ident),*]
        { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })*) => {
        /// Something that happened. The variant's fields are the event's `payload`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "type", content = "payload", rename_all_fields = "camelCase")]
        pub enum Event {
            $($(#[$doc])* #[serde(rename = $name)] $variant { $($(#[$field_meta])* $field: $type,)* },)*
        }

        impl Event {
            /// Every event, in the order of the documentation.
            pub const ALL: &[EventSpec] = &[$(EventSpec {
                name: $name,
                kind: EventKind::$kind,
                rooms: &[$(Audience::$audience),*],
            },)*];

            /// The name on the wire.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant { .. } => $name,)* }
            }

            /// Whether it is part of the log.
            pub fn kind(&self) -> EventKind {
                match self { $(Self::$variant { .. } => EventKind::$kind,)* }
            }
        }
    };
}

events! {
    /// A session came into being.
    SessionCreated = "session.created" Durable [Session, Project] {
        /// As it is now.
        session: Session,
    }
    /// A session changed, or came back from the archive.
    SessionUpdated = "session.updated" Durable [Session, Project] {
        /// As it is now.
        session: Session,
    }
    /// A session was archived.
    SessionArchived = "session.archived" Durable [Session, Project] {
        /// As it is now.
        session: Session,
    }
    /// A session was deleted.
    SessionDeleted = "session.deleted" Durable [Session, Project] {
        /// As it was last.
        session: Session,
    }
    /// What a session asks model providers is recorded from now on, for the administrators of its project; or
    /// longer than before. Told of the sessions of its sub-agents too.
    SessionCaptureStarted = "session.capture.started" Durable [Session, Project] {
        /// As it is now.
        session: Session,
    }
    /// What a session asks model providers is not recorded any more.
    SessionCaptureEnded = "session.capture.ended" Durable [Session, Project] {
        /// As it is now.
        session: Session,
        /// Why.
        reason: CaptureEnd,
    }
    /// Somebody began another session with what the model knows of this one.
    SessionForked = "session.forked" Durable [Session] {
        /// This session.
        session_id: SessionId,
        /// The last message that the other one has; absent where it has none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message_id: Option<MessageId>,
        /// The other one, as it began.
        fork: Session,
    }
    /// A turn and all that followed it was undone, with what it made of the files: those that are named here
    /// are as they were. Each message is told by its own event before this one.
    SessionReverted = "session.reverted" Durable [Session] {
        /// The session.
        session_id: SessionId,
        /// The message with which the first turn began that is undone.
        message_id: MessageId,
        /// How many messages are superseded by it.
        message_count: u64,
        /// How many files are different by it.
        file_count: u64,
        /// By path, the first 500 of them.
        files: Vec<ChangedFile>,
        /// By path, the first 500: files that somebody else changed since, which stayed as they were.
        changed_since: Vec<ChangedSince>,
        /// By path, the first 500: files that could not be put back, which stayed as they were.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        skipped: Vec<SkippedFile>,
    }
    /// A revert was undone: messages and files are what they were before it.
    SessionUnreverted = "session.unreverted" Durable [Session] {
        /// The session.
        session_id: SessionId,
        /// The message with which the first turn begins that is there again.
        message_id: MessageId,
        /// How many messages are not superseded any more.
        message_count: u64,
        /// How many files are different by it.
        file_count: u64,
        /// By path, the first 500 of them.
        files: Vec<ChangedFile>,
        /// By path, the first 500: files that somebody changed since, which stayed as they were.
        changed_since: Vec<ChangedSince>,
        /// By path, the first 500: files that could not be put back, which stayed as they were.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        skipped: Vec<SkippedFile>,
    }
    /// Models are told a summary in place of what came before it, from here on.
    SessionCompacted = "session.compacted" Durable [Session] {
        /// The session.
        session_id: SessionId,
        /// The message that has the summary.
        message_id: MessageId,
        /// The summary; a new part of the message.
        part: CompactionPart,
    }
    /// A session does something else than before.
    SessionStatus = "session.status" Durable [Session, Project] {
        /// The session.
        session_id: SessionId,
        /// What it does now.
        state: SessionState,
        /// While it is `retrying`: which attempt of the model at the step comes next, from 2; 1 is the first
        /// of another model.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempt: Option<u32>,
        /// While it is `retrying`: the class of the failure, such as `rate_limited`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        class: Option<String>,
        /// While it is `retrying`: how long it waits before that attempt, in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        delay_ms: Option<u64>,
        /// While it is `retrying`: what went wrong, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    }
    /// A message came into being: a user's whole, an answer still empty.
    MessageCreated = "message.created" Durable [Session] {
        /// The session.
        session_id: SessionId,
        /// As it is now.
        message: Message,
    }
    /// A message is in another state than before: an answer that was interrupted goes on, one that waited
    /// joined a run, one was superseded.
    MessageUpdated = "message.updated" Durable [Session] {
        /// The session.
        session_id: SessionId,
        /// As it is now, but for its parts: they stay as they are, and `parts` is empty.
        message: Message,
    }
    /// A message that waited was taken back: it was never answered, and is gone.
    MessageRemoved = "message.removed" Durable [Session] {
        /// The session.
        session_id: SessionId,
        /// The message.
        message_id: MessageId,
        /// The run that it would have started, or joined.
        run_id: RunId,
    }
    /// A text part is whole, or as much of it as is left.
    MessageTextComplete = "message.text.complete" Durable [Session] {
        /// The session.
        session_id: SessionId,
        /// The message.
        message_id: MessageId,
        /// The part.
        part_id: PartId,
        /// Bytes of UTF-8.
        length: u64,
        /// All of it.
        text: String,
        /// Whether it stops where the server did, so that there may have been more of it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        interrupted: bool,
    }
    /// A reasoning part is whole, or as much of it as is left.
    MessageReasoningComplete = "message.reasoning.complete" Durable [Session] {
        /// The session.
        session_id: SessionId,
        /// The message.
        message_id: MessageId,
        /// The part.
        part_id: PartId,
        /// Bytes of UTF-8.
        length: u64,
        /// All of it.
        text: String,
        /// Whether it stops where the server did, so that there may have been more of it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        interrupted: bool,
    }
    /// The model called a tool; nothing has run yet.
    MessageToolCall = "message.tool.call" Durable [Session] {
        /// The session.
        session_id: SessionId,
        /// The message.
        message_id: MessageId,
        /// The part.
        part_id: PartId,
        /// The call.
        tool_call_id: ToolCallId,
        /// The tool.
        tool_name: String,
        /// The arguments.
        input: Value,
        /// Whether the model's provider ran it, not this server; its result follows at once.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        provider_executed: bool,
    }
    /// A tool answered.
    MessageToolResult = "message.tool.result" Durable [Session] {
        /// The session.
        session_id: SessionId,
        /// The message.
        message_id: MessageId,
        /// The part.
        part_id: PartId,
        /// The call.
        tool_call_id: ToolCallId,
        /// What the model reads.
        output: String,
        /// Facts for clients.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        metadata: Option<Value>,
        /// Whether `output` has only the beginning and the end of a longer text.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        truncated: bool,
        /// What `tool.output` answers; absent when `output` is all there is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attachment: Option<Attachment>,
    }
    /// A tool call has no output: it failed, was refused or was cut off.
    MessageToolError = "message.tool.error" Durable [Session] {
        /// The session.
        session_id: SessionId,
        /// The message.
        message_id: MessageId,
        /// The part.
        part_id: PartId,
        /// The call.
        tool_call_id: ToolCallId,
        /// Which of these it was.
        state: ToolState,
        /// What the model reads.
        error: String,
    }
    /// A sub-agent was set to work, or its work ended or goes on.
    MessageSubtaskUpdated = "message.subtask.updated" Durable [Session] {
        /// The session.
        session_id: SessionId,
        /// The message.
        message_id: MessageId,
        /// The part as it is now; new where the message has none with its id.
        part: SubtaskPart,
    }
    /// One model call of an answer ended.
    MessageStepFinished = "message.step.finished" Durable [Session] {
        /// The session.
        session_id: SessionId,
        /// The message.
        message_id: MessageId,
        /// The step's own part.
        part_id: PartId,
        /// From 0.
        index: u32,
        /// Of this call alone.
        usage: Usage,
        /// The table of prices that the cost is of; absent where the cost is not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        price_version: Option<String>,
        /// The model that answered, as the provider calls it; absent where it is the one that was asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answered_by: Option<String>,
        /// Why it ended.
        finish_reason: FinishReason,
        /// The provider's own word for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        raw_finish_reason: Option<String>,
    }
    /// What a session used changed; told after a moment, for several steps at once.
    UsageUpdated = "usage.updated" Ephemeral [Session, Project] {
        /// The session.
        session_id: SessionId,
        /// What it used so far, its sub-agents included.
        totals: UsageTotals,
    }
    /// A run ended because a budget is used up.
    BudgetExceeded = "budget.exceeded" Durable [Session] {
        /// The session.
        session_id: SessionId,
        /// The run that ended.
        run_id: RunId,
        /// Which budget it was.
        budget: BudgetExceeded,
        /// What happened and what to do, for people.
        message: String,
    }
    /// An answer is whole.
    MessageComplete = "message.complete" Durable [Session] {
        /// The session.
        session_id: SessionId,
        /// The message.
        message_id: MessageId,
        /// Why it ended.
        finish_reason: FinishReason,
        /// The sum over its steps.
        usage: Usage,
    }
    /// An answer ended before it was whole.
    MessageError = "message.error" Durable [Session] {
        /// The session.
        session_id: SessionId,
        /// The message.
        message_id: MessageId,
        /// Why.
        error: ApiError,
    }
    /// More text of a part.
    MessageTextDelta = "message.text.delta" Ephemeral [Session] {
        /// The session.
        session_id: SessionId,
        /// The message.
        message_id: MessageId,
        /// The part.
        part_id: PartId,
        /// Rises when the part starts over.
        r#gen: u32,
        /// Bytes of UTF-8 of the part before this piece.
        offset: u64,
        /// The piece.
        delta: String,
    }
    /// More reasoning of a part.
    MessageReasoningDelta = "message.reasoning.delta" Ephemeral [Session] {
        /// The session.
        session_id: SessionId,
        /// The message.
        message_id: MessageId,
        /// The part.
        part_id: PartId,
        /// Rises when the part starts over.
        r#gen: u32,
        /// Bytes of UTF-8 of the part before this piece.
        offset: u64,
        /// The piece.
        delta: String,
    }
    /// More of the arguments of a call that the model is writing. The call is a part, still `pending`; the first
    /// of these may have nothing of the arguments yet. A call that came at once has none.
    MessageToolInputDelta = "message.tool.input.delta" Ephemeral [Session] {
        /// The session.
        session_id: SessionId,
        /// The message.
        message_id: MessageId,
        /// The part.
        part_id: PartId,
        /// The tool, as the model named it.
        tool_name: String,
        /// Rises when the part starts over.
        r#gen: u32,
        /// Bytes of UTF-8 of the arguments before this piece.
        offset: u64,
        /// The piece: JSON, cut anywhere.
        delta: String,
    }
    /// All that a part has so far, for a client that joins while it streams.
    MessagePartSnapshot = "message.part.snapshot" Ephemeral [Session] {
        /// The session.
        session_id: SessionId,
        /// The message.
        message_id: MessageId,
        /// The part.
        part_id: PartId,
        /// What it is.
        kind: SnapshotKind,
        /// The tool; of the arguments of a call only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tool_name: Option<String>,
        /// Rises when the part starts over.
        r#gen: u32,
        /// Bytes of UTF-8 so far.
        length: u64,
        /// The text so far.
        text: String,
    }
    /// A streaming part will not be completed: forget it.
    MessagePartRemoved = "message.part.removed" Ephemeral [Session] {
        /// The session.
        session_id: SessionId,
        /// The message.
        message_id: MessageId,
        /// The part.
        part_id: PartId,
    }
    /// How far a tool call is that takes a while. Each says all there is to say; some may be left out.
    MessageToolProgress = "message.tool.progress" Ephemeral [Session] {
        /// The session.
        session_id: SessionId,
        /// The message.
        message_id: MessageId,
        /// The call.
        tool_call_id: ToolCallId,
        /// Bytes of output so far.
        bytes: u64,
        /// The end of the output so far, at most 2 KiB.
        tail: String,
        /// Of a command that waits for a place among those that run: as many have to become free, from 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        position: Option<u32>,
        /// What it waits for then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<QueueReason>,
    }
    /// A queued run waits for a place among those that work, or has another position in the line; told at most
    /// once a second.
    RunQueued = "run.queued" Ephemeral [Session, Project] {
        /// The session.
        session_id: SessionId,
        /// The run.
        run_id: RunId,
        /// As many places have to become free, from 1.
        position: u32,
        /// What it waits for.
        reason: QueueReason,
    }
    /// A run began, or goes on after it was interrupted.
    RunStarted = "run.started" Durable [Session] {
        /// As it is now.
        run: Run,
    }
    /// A run ended, whichever way.
    RunCompleted = "run.completed" Durable [Session] {
        /// The run.
        run_id: RunId,
        /// Its session.
        session_id: SessionId,
        /// How it ended.
        status: RunStatus,
        /// The sum over its steps.
        usage: Usage,
        /// Why it failed, when it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<ApiError>,
    }
    /// A tool call waits for a person.
    ToolApprovalRequired = "tool.approval.required" Durable [Session, Project] {
        /// The session.
        session_id: SessionId,
        /// The session of the sub-agent that asks, in the rooms of the sessions above it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        child_session_id: Option<SessionId>,
        /// The call.
        tool_call_id: ToolCallId,
        /// The tool.
        tool_name: String,
        /// One sentence for the person who decides.
        message: String,
        /// All of it, in the session's room; the project's room gets a short notice.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        approval: Option<Box<Approval>>,
    }
    /// A tool call does not wait any more.
    ToolApprovalResolved = "tool.approval.resolved" Durable [Session, Project] {
        /// The session.
        session_id: SessionId,
        /// The session of the sub-agent that asks, in the rooms of the sessions above it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        child_session_id: Option<SessionId>,
        /// The approval.
        approval_id: ApprovalId,
        /// The call.
        tool_call_id: ToolCallId,
        /// How it ended.
        state: ApprovalState,
        /// The user who decided.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<UserId>,
        /// Why it was rejected.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// How long a yes holds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remember: Option<Remember>,
        /// The arguments that will be used, where who approved changed them; in the session's room.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<Value>,
    }
    /// An agent asks the people of its session something.
    QuestionAsked = "question.asked" Durable [Session, Project] {
        /// The session.
        session_id: SessionId,
        /// The session of the sub-agent that asks, in the rooms of the sessions above it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        child_session_id: Option<SessionId>,
        /// What is asked.
        question_id: QuestionId,
        /// The call that waits for the answer.
        tool_call_id: ToolCallId,
        /// The text of the first question.
        message: String,
        /// All of it, in the session's room; the project's room gets a short notice.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        question: Option<Box<Question>>,
    }
    /// What an agent asked does not wait for an answer any more.
    QuestionResolved = "question.resolved" Durable [Session, Project] {
        /// The session.
        session_id: SessionId,
        /// The session of the sub-agent that asks, in the rooms of the sessions above it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        child_session_id: Option<SessionId>,
        /// What was asked.
        question_id: QuestionId,
        /// The call that waited.
        tool_call_id: ToolCallId,
        /// How it ended.
        state: QuestionState,
        /// The user who answered or refused to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<UserId>,
        /// Why nobody is to answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// A list of texts for each question, where it was answered; in the session's room.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answers: Option<Vec<Vec<String>>>,
    }
    /// The to-do list of a session changed.
    TodoUpdated = "todo.updated" Durable [Session] {
        /// The session.
        session_id: SessionId,
        /// All of the list as it is now, in its order.
        todos: Vec<Todo>,
    }
    /// A rule about what tools may touch was made, changed or deleted. It counts from now on.
    PermissionUpdated = "permission.updated" Durable [Project] {
        /// The rule.
        permission_id: PermissionId,
        /// As it is now; absent when it was deleted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<Box<PermissionRule>>,
    }
    /// A file came into being.
    FileCreated = "file.created" Durable [Project] {
        /// Relative to the project's directory.
        path: String,
        /// The number of the version that says so.
        version: u64,
        /// The user who caused it; absent where nobody knows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<UserId>,
        /// The session whose agent did it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_id: Option<SessionId>,
        /// Where the change came from.
        source: FileSource,
        /// The user who had a lock on it then, where a command of somebody else changed it all the same.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        despite_lock_of: Option<UserId>,
    }
    /// A file was changed.
    FileUpdated = "file.updated" Durable [Project] {
        /// Relative to the project's directory.
        path: String,
        /// The number of the version that says so.
        version: u64,
        /// The user who caused it; absent where nobody knows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<UserId>,
        /// The session whose agent did it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_id: Option<SessionId>,
        /// Where the change came from.
        source: FileSource,
        /// The user who had a lock on it then, where a command of somebody else changed it all the same.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        despite_lock_of: Option<UserId>,
    }
    /// A file is gone.
    FileDeleted = "file.deleted" Durable [Project] {
        /// Relative to the project's directory.
        path: String,
        /// The number of the version that says so.
        version: u64,
        /// The user who caused it; absent where nobody knows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<UserId>,
        /// The session whose agent did it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_id: Option<SessionId>,
        /// Where the change came from.
        source: FileSource,
        /// The user who had a lock on it then, where a command of somebody else changed it all the same.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        despite_lock_of: Option<UserId>,
    }
    /// A file has another path.
    FileMoved = "file.moved" Durable [Project] {
        /// Relative to the project's directory.
        path: String,
        /// The path that it had.
        from: String,
        /// The number of the version that says so.
        version: u64,
        /// The user who caused it; absent where nobody knows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<UserId>,
        /// The session whose agent did it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_id: Option<SessionId>,
        /// Where the change came from.
        source: FileSource,
        /// The user who had a lock on it then, where a command of somebody else changed it all the same.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        despite_lock_of: Option<UserId>,
    }
    /// Many files changed at once: instead of an event for each of them.
    FileChanged = "file.changed" Durable [Project] {
        /// How many versions were recorded.
        count: u64,
        /// The user who caused it; absent where nobody knows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<UserId>,
        /// The session whose agent did it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_id: Option<SessionId>,
        /// Where the changes came from.
        source: FileSource,
    }
    /// Somebody has a lock now, also where they had it and it lasts longer.
    FileLocked = "file.locked" Durable [Project] {
        /// The lock.
        lock: FileLock,
    }
    /// A lock is over.
    FileUnlocked = "file.unlocked" Durable [Project] {
        /// The path that it was on.
        path: String,
        /// Whose it was.
        owner_id: UserId,
        /// Why: `released`, `expired`, `disconnected` or `takenOver`.
        reason: UnlockReason,
    }
    /// The files can be put back to what they were at this moment.
    SnapshotCreated = "snapshot.created" Durable [Project] {
        /// The snapshot.
        snapshot: Snapshot,
    }
    /// The files were put back to what they were; the events of the files come before this one.
    SnapshotRestored = "snapshot.restored" Durable [Project] {
        /// The snapshot.
        snapshot_id: SnapshotId,
        /// How many files are different now.
        count: u64,
        /// The user who did it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<UserId>,
    }
    /// What a run made of the files changed.
    RunDiffUpdated = "run.diff.updated" Durable [Session] {
        /// The session.
        session_id: SessionId,
        /// The run.
        run_id: RunId,
        /// All that it changed so far, by path.
        files: Vec<ChangedFile>,
        /// Whether there are more than are named here.
        cut: bool,
    }
    /// Something became of the repository of a project.
    GitChanged = "git.changed" Durable [Project] {
        /// The project.
        project_id: ProjectId,
        /// What became of it.
        action: GitAction,
        /// The branch that it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        branch: Option<String>,
        /// The newest commit of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commit: Option<String>,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    }
    /// Name, description or settings of a project changed.
    ProjectUpdated = "project.updated" Durable [Project] {
        /// The project.
        project_id: ProjectId,
        /// Its name now.
        name: String,
    }
    /// A project became read-only.
    ProjectArchived = "project.archived" Durable [Project] {
        /// The project.
        project_id: ProjectId,
    }
    /// A project came back from the archive.
    ProjectUnarchived = "project.unarchived" Durable [Project] {
        /// The project.
        project_id: ProjectId,
    }
    /// The project was put back to a backup. It is the first event of a new epoch.
    ProjectRestored = "project.restored" Durable [Project] {
        /// The project.
        project_id: ProjectId,
        /// What it was put back to.
        backup_id: BackupId,
        /// When that backup was made, in milliseconds since 1970 UTC.
        taken_at: i64,
    }
    /// A user joined a project.
    MemberAdded = "member.added" Durable [Project] {
        /// The member.
        member: Member,
    }
    /// A member has another role.
    MemberUpdated = "member.updated" Durable [Project] {
        /// The member.
        member: Member,
    }
    /// A member left or was taken out.
    MemberRemoved = "member.removed" Durable [Project] {
        /// The user.
        user_id: UserId,
    }
    /// The user has read a session further than before, on one of their devices.
    SessionUnread = "session.unread" Ephemeral [User] {
        /// The project.
        project_id: ProjectId,
        /// What they have not read of it now.
        unread: Unread,
    }
    /// A project of which the user was a member is deleted.
    ProjectDeleted = "project.deleted" Ephemeral [User] {
        /// The project.
        project_id: ProjectId,
        /// Its name.
        name: String,
        /// Who deleted it.
        by: UserId,
    }
    /// Somebody invited the user; the link comes another way.
    InvitationReceived = "invitation.received" Ephemeral [User] {
        /// The invitation.
        invitation_id: InvitationId,
        /// The project; absent for the server alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        project_id: Option<ProjectId>,
        /// The role in the project.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        role: Option<Role>,
        /// Who invites.
        by: UserId,
        /// When it ends, in milliseconds since 1970 UTC.
        expires_at: i64,
    }
    /// A refresh token was used twice, so that two hold it: its login has ended.
    TokenReused = "auth.token.reused" Ephemeral [User] {
        /// The login.
        auth_session_id: AuthSessionId,
        /// Where it was used for the second time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ip: Option<String>,
    }
    /// An agent was created, changed or deleted.
    AgentUpdated = "agent.updated" Durable [Project] {
        /// The agent's name.
        name: String,
        /// As it is now; absent when it was deleted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<Agent>,
    }
    /// An MCP server was configured, changed or deleted, or is in another state than before.
    McpStatusChanged = "mcp.status" Durable [Project] {
        /// The server.
        name: String,
        /// How it is.
        state: McpState,
        /// Why, where there is something to say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// SHA-256 of the definitions that it offers now, where they are known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offered_hash: Option<String>,
        /// How it is configured, where somebody changed that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        server: Option<McpServer>,
        /// Whether it was deleted.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        deleted: bool,
    }
    /// A tool of the project was defined, changed or deleted. It counts from now on.
    ToolUpdated = "tool.updated" Durable [Project] {
        /// The tool.
        tool_id: ToolId,
        /// Its name.
        name: String,
        /// As it is now; absent when it was deleted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tool: Option<Box<Tool>>,
    }
    /// Everybody who is present, for a connection that joins the room of the project.
    PresenceSnapshot = "presence.snapshot" Ephemeral [Project] {
        /// In the order of their ids.
        users: Vec<Presence>,
    }
    /// A user came into the project.
    PresenceJoined = "presence.joined" Ephemeral [Project] {
        /// The user, whose fields are the payload.
        #[serde(flatten)]
        presence: Presence,
    }
    /// A user who is present looks at another session, has another status or another number of
    /// connections.
    PresenceUpdated = "presence.updated" Ephemeral [Project] {
        /// The user, whose fields are the payload.
        #[serde(flatten)]
        presence: Presence,
    }
    /// A user is not present any more.
    PresenceLeft = "presence.left" Ephemeral [Project] {
        /// The user, whose fields are the payload.
        #[serde(flatten)]
        presence: Presence,
    }
    /// Others write in a session than before.
    TypingUpdated = "typing.updated" Ephemeral [Session] {
        /// The session.
        session_id: SessionId,
        /// All who write now, in the order of their ids.
        user_ids: Vec<UserId>,
    }
    /// The position of an event stream cannot be resumed in a room: read a snapshot. What follows on
    /// the stream is what came after `to`.
    RoomReset = "room.reset" Ephemeral [Connection] {
        /// The room.
        room: String,
        /// Of the project's order.
        epoch: String,
        /// The last event before the live ones.
        to: u64,
    }
    /// The connection hears a room no more.
    RoomLeft = "room.left" Ephemeral [Connection] {
        /// The room.
        room: String,
        /// Why.
        code: crate::ErrorCode,
    }
    /// An actor was spawned.
    SupervisionStarted = "supervision.started" Ephemeral [Admin] {
        /// The record of the supervision log, whose fields are the payload.
        #[serde(flatten)]
        record: SupervisionRecord,
    }
    /// An actor ended.
    SupervisionStopped = "supervision.stopped" Ephemeral [Admin] {
        /// The record of the supervision log, whose fields are the payload.
        #[serde(flatten)]
        record: SupervisionRecord,
    }
    /// A handler, a future or the start of an actor panicked.
    SupervisionPanicked = "supervision.panicked" Ephemeral [Admin] {
        /// The record of the supervision log, whose fields are the payload.
        #[serde(flatten)]
        record: SupervisionRecord,
    }
    /// An actor started again.
    SupervisionRestarted = "supervision.restarted" Ephemeral [Admin] {
        /// The record of the supervision log, whose fields are the payload.
        #[serde(flatten)]
        record: SupervisionRecord,
    }
    /// An actor failed more often than its policy allows and ended.
    SupervisionGaveUp = "supervision.gaveUp" Ephemeral [Admin] {
        /// The record of the supervision log, whose fields are the payload.
        #[serde(flatten)]
        record: SupervisionRecord,
    }
    /// An actor works on a message longer than its budget.
    SupervisionStuck = "supervision.stuck" Ephemeral [Admin] {
        /// The record of the supervision log, whose fields are the payload.
        #[serde(flatten)]
        record: SupervisionRecord,
    }
    /// A mailbox is over its limit.
    SupervisionOverloaded = "supervision.overloaded" Ephemeral [Admin] {
        /// The record of the supervision log, whose fields are the payload.
        #[serde(flatten)]
        record: SupervisionRecord,
    }
    /// An idle actor ended to free its memory.
    SupervisionPassivated = "supervision.passivated" Ephemeral [Admin] {
        /// The record of the supervision log, whose fields are the payload.
        #[serde(flatten)]
        record: SupervisionRecord,
    }
    /// A thread stopped answering.
    SupervisionBlocked = "supervision.blocked" Ephemeral [Admin] {
        /// The record of the supervision log, whose fields are the payload.
        #[serde(flatten)]
        record: SupervisionRecord,
    }
    /// A thread that was blocked answers again.
    SupervisionUnblocked = "supervision.unblocked" Ephemeral [Admin] {
        /// The record of the supervision log, whose fields are the payload.
        #[serde(flatten)]
        record: SupervisionRecord,
    }
}

impl Event {
    /// [`Event::SessionStatus`] of a session that does not wait to ask its model again.
    pub fn session_status(session_id: SessionId, state: SessionState) -> Self {
        let (attempt, class, delay_ms, message) = (None, None, None, None);
        Self::SessionStatus { session_id, state, attempt, class, delay_ms, message }
    }

    /// The event that tells the room `admin` of a record of the supervision log.
    pub fn supervision(record: SupervisionRecord) -> Self {
        match record.kind {
            SupervisionKind::Started => Self::SupervisionStarted { record },
            SupervisionKind::Stopped => Self::SupervisionStopped { record },
            SupervisionKind::Panicked => Self::SupervisionPanicked { record },
            SupervisionKind::Restarted => Self::SupervisionRestarted { record },
            SupervisionKind::GaveUp => Self::SupervisionGaveUp { record },
            SupervisionKind::Stuck => Self::SupervisionStuck { record },
            SupervisionKind::Overloaded => Self::SupervisionOverloaded { record },
            SupervisionKind::Passivated => Self::SupervisionPassivated { record },
            SupervisionKind::Blocked => Self::SupervisionBlocked { record },
            SupervisionKind::Unblocked => Self::SupervisionUnblocked { record },
        }
    }
}

/// What kind of text a streaming part holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum StreamKind {
    /// The answer.
    Text,
    /// What the model thinks before it answers.
    Reasoning,
}

/// What streams in a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SnapshotKind {
    /// The answer.
    Text,
    /// What the model thinks before it answers.
    Reasoning,
    /// The arguments of a call.
    ToolInput,
}

impl SnapshotKind {
    /// Which text of the model it is; none for the arguments of a call.
    pub fn text(self) -> Option<StreamKind> {
        match self {
            Self::Text => Some(StreamKind::Text),
            Self::Reasoning => Some(StreamKind::Reasoning),
            Self::ToolInput => None,
        }
    }
}

impl From<StreamKind> for SnapshotKind {
    fn from(kind: StreamKind) -> Self {
        match kind {
            StreamKind::Text => Self::Text,
            StreamKind::Reasoning => Self::Reasoning,
        }
    }
}
