//! Requests and responses of the operations, in the order of the operations table.
//!
//! Unknown fields are ignored, except in authentication and permission bodies. Optional fields of an
//! update leave what they do not name as it is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Agent, AgentMode, AgentProblem, AgentTuning, Approval, ApprovalState, Backup, BackupId, Budget,
    ConnectionId, File, FileEncoding, GitSource, JudgedAccess, Member, Message, MessageId,
    ModelRef, PermissionAction, PermissionId, PermissionRule, PermissionSetting, Position,
    Presence, PresenceStatus, Project, ProjectId, ProjectType, Question, QuestionId, QuestionState,
    QueuedMessage, Remember, Role, Run, RunId, SearchHit, SentAttachment, ServerBackup, Session,
    SessionId, SessionMode, Todo, Tool, ToolCallId, Unread, User, UserId,
};

macro_rules! payloads {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })*) => {$(
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase")]
        $(#[$meta])*
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }
    )*};
}

// Authentication: REST only.
payloads! {
    /// Creates the first administrator.
    #[serde(deny_unknown_fields)]
    AuthSetup {
        /// The one-time token that the server printed when it started.
        token: String,
        /// Where mail reaches the user; unique.
        email: String,
        /// What others see; unique.
        username: String,
        /// 8 to 1024 bytes, used as typed.
        password: String,
    }
    /// Creates an account.
    #[serde(deny_unknown_fields)]
    AuthRegister {
        /// Where mail reaches the user; unique.
        email: String,
        /// What others see; unique.
        username: String,
        /// 8 to 1024 bytes, used as typed.
        password: String,
        /// The secret of an invitation, where only who is invited may register; it is accepted with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        invitation: Option<String>,
    }
    /// Begins an authentication session.
    #[serde(deny_unknown_fields)]
    AuthLogin {
        /// As registered, in any case.
        email: String,
        /// As registered.
        password: String,
    }
    /// Exchanges a refresh token for a new pair.
    #[serde(deny_unknown_fields)]
    AuthRotate {
        /// The last refresh token of the authentication session.
        refresh_token: String,
    }
    /// Ends the caller's authentication session.
    #[serde(deny_unknown_fields)]
    AuthLogout {
        /// Whether every other login of the user ends with it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        everywhere: bool,
    }
    /// Asks for a ticket, which may stand in the URL of a WebSocket or of an event stream.
    #[serde(deny_unknown_fields)]
    AuthTicket {}
    /// A ticket.
    TicketGrant {
        /// For `?ticket=`.
        ticket: String,
        /// When it has to be used for the first time, in milliseconds since 1970 UTC.
        expires_at: i64,
    }
    /// What a caller needs to go on.
    AuthGrant {
        /// Who the tokens are for.
        user: User,
        /// For `Authorization: Bearer`.
        access_token: String,
        /// For the next pair; each works once.
        refresh_token: String,
        /// When the access token ends, in milliseconds since 1970 UTC.
        expires_at: i64,
    }
    /// It was done.
    Done {
        /// Always true.
        done: bool,
    }
}

// People.
payloads! {
    /// Reads the caller's own account.
    UserGet {}
    /// An account.
    UserPayload {
        /// The account.
        user: User,
    }
}

// Projects and their members. The project is named by the envelope or the path.
payloads! {
    /// Creates a project that the caller owns.
    ProjectCreate {
        /// 1 to 200 bytes.
        name: String,
        /// At most 4096 bytes.
        #[serde(default)]
        description: Option<String>,
        /// Where its files live.
        #[serde(default)]
        r#type: ProjectType,
        /// An existing directory under one of the server's project roots; without it the files live
        /// in the data directory.
        #[serde(default)]
        path: Option<String>,
        /// Where a project of the type `git` is cloned from; with no other type.
        #[serde(default)]
        git: Option<GitSource>,
    }
    /// Lists the caller's projects, newest first.
    ProjectList {
        /// At most 200; 50 when absent.
        #[serde(default)]
        limit: Option<u32>,
        /// `nextCursor` of the page before.
        #[serde(default)]
        cursor: Option<String>,
        /// Whether archived projects are listed too.
        #[serde(default)]
        include_archived: Option<bool>,
    }
    /// A page of projects.
    ProjectPage {
        /// Newest first.
        projects: Vec<Project>,
        /// For the next page; null on the last.
        next_cursor: Option<String>,
        /// Whether there is a next page.
        has_more: bool,
    }
    /// Reads a project.
    ProjectGet {}
    /// A project.
    ProjectPayload {
        /// The project.
        project: Project,
    }
    /// Changes a project.
    ProjectUpdate {
        /// 1 to 200 bytes.
        #[serde(default)]
        name: Option<String>,
        /// At most 4096 bytes.
        #[serde(default)]
        description: Option<String>,
        /// Replaces the settings; at most 64 KiB of JSON.
        #[serde(default)]
        settings: Option<Map<String, Value>>,
    }
    /// Makes a project read-only and takes it out of the default list.
    ProjectArchive {}
    /// Undoes an archive.
    ProjectUnarchive {}
    /// Deletes a project with its sessions and, where Iris made the directory, its files.
    ProjectDelete {}
    /// Writes an archive of a project to the server's disk, where it stays until it is deleted.
    ProjectBackup {}
    /// A backup.
    BackupPayload {
        /// The backup.
        backup: Backup,
    }
    /// Lists the backups of a project.
    BackupList {}
    /// The backups of a project.
    BackupPage {
        /// Newest first.
        backups: Vec<Backup>,
    }
    /// Downloads a backup.
    BackupRead {
        /// The backup.
        backup_id: BackupId,
    }
    /// Deletes a backup.
    BackupDelete {
        /// The backup.
        backup_id: BackupId,
    }
    /// Puts a project back to a backup.
    ProjectRestore {
        /// The backup.
        backup_id: BackupId,
    }
    /// What a project was put back to.
    RestorePayload {
        /// What it is now.
        restored: Backup,
        /// What it was before; absent when that could not be read any more.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        safety: Option<Backup>,
        /// Of the order of events that begins now.
        epoch: String,
        /// The last event in it.
        seq: u64,
        /// Whether the files were put back too: those of a project with a directory of its own are not.
        files: bool,
    }
    /// Writes an archive of a project that is kept for a day.
    ProjectExport {}
    /// Creates a project from an archive.
    ProjectImport {
        /// Whether it gets a new id.
        #[serde(default)]
        id: ImportId,
        /// What becomes of the members that the archive names.
        #[serde(default)]
        members: ImportMembers,
    }
    /// Lists the members of a project, in the order in which they joined.
    MemberList {}
    /// The members of a project.
    MemberPage {
        /// In the order in which they joined.
        members: Vec<Member>,
    }
    /// Adds a user to a project.
    #[serde(deny_unknown_fields)]
    MemberAdd {
        /// Either this or `email`.
        #[serde(default)]
        user_id: Option<UserId>,
        /// Either this or `userId`.
        #[serde(default)]
        email: Option<String>,
        /// Not `owner`: ownership is transferred, not given.
        role: Role,
    }
    /// Changes a member's role.
    #[serde(deny_unknown_fields)]
    MemberUpdate {
        /// The member.
        user_id: UserId,
        /// Not `owner`.
        role: Role,
    }
    /// Takes a member out of a project.
    #[serde(deny_unknown_fields)]
    MemberRemove {
        /// The member.
        user_id: UserId,
    }
    /// A member.
    MemberPayload {
        /// The member.
        member: Member,
    }
}

// Sessions and messages.
payloads! {
    /// Creates a session.
    SessionCreate {
        /// 1 to 200 bytes; a default when absent.
        #[serde(default)]
        title: Option<String>,
        /// Name of an agent; `default` when absent.
        #[serde(default)]
        agent: Option<String>,
        /// Overrides the agent's and the server's.
        #[serde(default)]
        model: Option<ModelRef>,
        /// How tool calls are judged.
        #[serde(default)]
        mode: Option<SessionMode>,
    }
    /// Reads a session with the state that a client needs to follow it.
    SessionGet {
        /// The session.
        session_id: SessionId,
        /// Messages at most; at most 200; 50 when absent.
        #[serde(default)]
        limit: Option<u32>,
        /// `nextCursor` of `session.message.list`: only messages before it.
        #[serde(default)]
        before: Option<String>,
    }
    /// A session and where it stands. Subscribe with `since: asOf` to go on without a gap.
    SessionSnapshot {
        /// The session.
        session: Session,
        /// The last ones, oldest first.
        messages: Vec<Message>,
        /// For the messages before these; null when these are all.
        next_cursor: Option<String>,
        /// Messages that wait, in order.
        queue: Vec<QueuedMessage>,
        /// The runs that have not ended and the last one that has.
        runs: Vec<Run>,
        /// Approvals that nobody decided yet.
        approvals: Vec<Approval>,
        /// Questions that nobody answered yet.
        #[serde(default)]
        questions: Vec<Question>,
        /// The to-do list, in its order.
        #[serde(default)]
        todos: Vec<Todo>,
        /// What the caller has not read of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unread: Option<Unread>,
        /// The last durable event that this snapshot holds.
        as_of: Position,
    }
    /// Lists sessions, newest first.
    SessionList {
        /// At most 200; 50 when absent.
        #[serde(default)]
        limit: Option<u32>,
        /// `nextCursor` of the page before.
        #[serde(default)]
        cursor: Option<String>,
        /// Whether archived sessions are listed too.
        #[serde(default)]
        include_archived: Option<bool>,
        /// Only those of the sub-agents of this session; none of sub-agents when absent.
        #[serde(default)]
        parent_id: Option<SessionId>,
    }
    /// A page of sessions.
    SessionPage {
        /// Newest first.
        sessions: Vec<Session>,
        /// What the caller has not read of each of them, in the same order.
        #[serde(default)]
        unread: Vec<Unread>,
        /// For the next page; null on the last.
        next_cursor: Option<String>,
        /// Whether there is a next page.
        has_more: bool,
        /// The last durable event that this page holds.
        as_of: Position,
    }
    /// Changes a session.
    SessionUpdate {
        /// The session.
        session_id: SessionId,
        /// 1 to 200 bytes.
        #[serde(default)]
        title: Option<String>,
        /// Name of an agent, from the next run on.
        #[serde(default)]
        agent: Option<String>,
        /// From the next run on.
        #[serde(default)]
        model: Option<ModelRef>,
        /// How tool calls are judged, from the next call on. Only an administrator of the project may
        /// choose `auto`.
        #[serde(default)]
        mode: Option<SessionMode>,
    }
    /// Makes a session read-only and takes it out of the default list.
    SessionArchive {
        /// The session.
        session_id: SessionId,
    }
    /// Brings an archived or softly deleted session back.
    SessionUnarchive {
        /// The session.
        session_id: SessionId,
    }
    /// Deletes a session, softly unless told otherwise.
    SessionDelete {
        /// The session.
        session_id: SessionId,
        /// Whether nothing is kept.
        #[serde(default)]
        permanent: Option<bool>,
    }
    /// A session.
    SessionPayload {
        /// The session.
        session: Session,
    }
    /// Sends a message to the agent of a session.
    MessageSend {
        /// The session.
        session_id: SessionId,
        /// What to say.
        content: Content,
        /// What to do while a run is active; `queue` when absent.
        #[serde(default)]
        when_busy: Option<WhenBusy>,
        /// Files that go with it, at most 20, of 16 MiB together.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        attachments: Vec<SentAttachment>,
    }
    /// The message was taken; the answer comes as events.
    MessageAccepted {
        /// The message.
        message_id: MessageId,
        /// The run that it starts, or that it is to join.
        run_id: RunId,
        /// Whether it waits for another run.
        queued: bool,
    }
    /// Ends the active run of a session.
    RunCancel {
        /// The session.
        session_id: SessionId,
    }
    /// Whether there was something to cancel.
    CancelPayload {
        /// False when there was nothing: cancelling twice is no error.
        cancelled: bool,
    }
    /// Reads one run.
    RunGet {
        /// The session.
        session_id: SessionId,
        /// The run.
        run_id: RunId,
    }
    /// Lists the runs of a session, newest first.
    RunList {
        /// The session.
        session_id: SessionId,
        /// 1 to 200; 50 when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
        /// The `nextCursor` of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    }
    /// A page of runs.
    RunPage {
        /// Newest first.
        runs: Vec<Run>,
        /// For the next page; null on the last.
        next_cursor: Option<String>,
        /// Whether there is a next page.
        has_more: bool,
    }
    /// Lets an interrupted run go on from its last complete step.
    RunResume {
        /// The session.
        session_id: SessionId,
        /// The run, which must be the last of its session.
        run_id: RunId,
    }
    /// A run.
    RunPayload {
        /// The run.
        run: Run,
    }
    /// Reads one message.
    MessageGet {
        /// The session.
        session_id: SessionId,
        /// The message.
        message_id: MessageId,
    }
    /// A message.
    MessagePayload {
        /// The message.
        message: Message,
    }
    /// Lists messages, the last page first.
    MessageList {
        /// The session.
        session_id: SessionId,
        /// At most 200; 50 when absent.
        #[serde(default)]
        limit: Option<u32>,
        /// `nextCursor` of the page after: only messages before it.
        #[serde(default)]
        before: Option<String>,
    }
    /// Looks for text that people and agents said.
    SessionSearch {
        /// Words, all of which must occur, in any order. Nothing in it is an operator. At most 256
        /// bytes.
        query: String,
        /// In this session alone.
        #[serde(default)]
        session_id: Option<SessionId>,
        /// At most 50; 20 when absent.
        #[serde(default)]
        limit: Option<u32>,
        /// `nextCursor` of the page before.
        #[serde(default)]
        cursor: Option<String>,
    }
    /// A page of what was found. It may hold fewer hits than were asked for, and still have more
    /// behind it.
    SearchPage {
        /// Newest first.
        hits: Vec<SearchHit>,
        /// For the page after; null on the last.
        next_cursor: Option<String>,
        /// Whether there may be a page after.
        has_more: bool,
    }
    /// A page of messages.
    MessagePage {
        /// Oldest first.
        messages: Vec<Message>,
        /// For the page before; null on the first.
        next_cursor: Option<String>,
        /// Whether there is a page before.
        has_more: bool,
    }
}

/// What a message says: a string, or a list of parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Content {
    /// Text alone.
    Text(String),
    /// Parts in order.
    Parts(Vec<ContentPart>),
}

impl Content {
    /// All text of it, parts joined by line feeds. What the answer has to look like is not said, but asked
    /// for.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Parts(parts) => {
                let texts = parts.iter().filter_map(|part| match part {
                    ContentPart::Text { text } => Some(text.as_str()),
                    ContentPart::AnswerFormat { .. } => None,
                });
                texts.collect::<Vec<_>>().join("\n")
            }
        }
    }
}

/// A part of what a message says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ContentPart {
    /// Text.
    Text {
        /// UTF-8.
        text: String,
    },
    /// The answer is to be JSON; at most once.
    AnswerFormat {
        /// What the provider is told that it is called: 1 to 64 letters, digits, `-` and `_`; `answer` when
        /// absent.
        #[serde(default)]
        name: Option<String>,
        /// JSON Schema of an object; at most 32 KiB.
        schema: Value,
        /// Whether the provider has to keep to it, which some do only with schemas of a kind of their own;
        /// true when absent.
        #[serde(default)]
        strict: Option<bool>,
    },
}

/// What happens to a message while a run is active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum WhenBusy {
    /// It waits for the run to end.
    #[default]
    Queue,
    /// It joins the run before that asks its model again; where that does not come to it, it is the next
    /// that is answered.
    Steer,
    /// The run is cancelled, and it is the next that is answered.
    Interrupt,
    /// It is refused with `CONFLICT`.
    Reject,
}

// Agents and tools.
payloads! {
    /// Creates an agent.
    AgentCreate {
        /// Letters, digits, `-` and `_`; unique in the project.
        name: String,
        /// What it is for: other agents choose by it. At most 1,000 bytes; empty when absent.
        #[serde(default)]
        description: Option<String>,
        /// Who may set it to work; `all` when absent.
        #[serde(default)]
        mode: Option<AgentMode>,
        /// Instructions for the model; empty when absent.
        #[serde(default)]
        prompt: Option<String>,
        /// Overrides the server's default.
        #[serde(default)]
        model: Option<ModelRef>,
        /// Names of tools, in the order in which the model sees them; all when absent.
        #[serde(default)]
        tools: Option<Vec<String>>,
        /// Rules about what its tool calls may touch; none when absent.
        #[serde(default)]
        permissions: Option<Vec<PermissionSetting>>,
        /// The most that a run may use that it answers; no limit when absent.
        #[serde(default)]
        budget: Option<Budget>,
        /// How its model is asked.
        #[serde(flatten)]
        tuning: AgentTuning,
    }
    /// Changes an agent, from the next run on.
    AgentUpdate {
        /// The agent.
        name: String,
        /// What it is for.
        #[serde(default)]
        description: Option<String>,
        /// Who may set it to work.
        #[serde(default)]
        mode: Option<AgentMode>,
        /// Instructions for the model.
        #[serde(default)]
        prompt: Option<String>,
        /// Overrides the server's default.
        #[serde(default)]
        model: Option<ModelRef>,
        /// Names of tools, in the order in which the model sees them.
        #[serde(default)]
        tools: Option<Vec<String>>,
        /// Rules about what its tool calls may touch, from the next call on.
        #[serde(default)]
        permissions: Option<Vec<PermissionSetting>>,
        /// The most that a run may use that it answers, from the next step on; an empty one is no limit.
        #[serde(default)]
        budget: Option<Budget>,
        /// How its model is asked.
        #[serde(flatten)]
        tuning: AgentTuning,
    }
    /// Reads an agent.
    AgentGet {
        /// The agent.
        name: String,
    }
    /// Deletes an agent; sessions that use it refuse messages until they are given another.
    AgentDelete {
        /// The agent.
        name: String,
    }
    /// An agent.
    AgentPayload {
        /// The agent.
        agent: Agent,
    }
    /// Lists the agents of a project, built-in ones first.
    AgentList {}
    /// The agents of a project.
    AgentPage {
        /// Built-in ones first, then by name.
        agents: Vec<Agent>,
        /// What is wrong with the files that define none.
        #[serde(default)]
        problems: Vec<AgentProblem>,
    }
    /// Lists the tools of a project.
    ToolList {}
    /// The tools of a project.
    ToolPage {
        /// The server's, then those that the project defined, by name; disabled ones are among them.
        tools: Vec<Tool>,
    }
    /// Lets a tool call run that waits for a person.
    #[serde(deny_unknown_fields)]
    ToolApprove {
        /// The session.
        session_id: SessionId,
        /// The call.
        tool_call_id: ToolCallId,
        /// How long the answer holds; `once` when absent.
        #[serde(default)]
        remember: Option<Remember>,
        /// The arguments that the caller saw: `inputHash` of the approval. Others are refused.
        #[serde(default)]
        input_hash: Option<String>,
        /// Arguments to use in place of those of the model. They are checked and judged like those.
        #[serde(default)]
        input: Option<Value>,
    }
    /// Refuses a tool call that waits for a person.
    #[serde(deny_unknown_fields)]
    ToolReject {
        /// The session.
        session_id: SessionId,
        /// The call.
        tool_call_id: ToolCallId,
        /// For the model; at most 4096 bytes.
        #[serde(default)]
        reason: Option<String>,
    }
    /// An approval.
    ApprovalPayload {
        /// The approval.
        approval: Approval,
    }
    /// Lists the approvals of a project or of one session.
    ApprovalList {
        /// Of this session alone.
        #[serde(default)]
        session_id: Option<SessionId>,
        /// In this state alone; those that wait when absent.
        #[serde(default)]
        state: Option<ApprovalState>,
        /// At most 200; 50 when absent.
        #[serde(default)]
        limit: Option<u32>,
        /// `nextCursor` of the page before.
        #[serde(default)]
        cursor: Option<String>,
    }
    /// Approvals, newest first.
    ApprovalPage {
        /// Newest first.
        approvals: Vec<Approval>,
        /// For the next page.
        next_cursor: Option<String>,
        /// Whether there is a next page.
        has_more: bool,
    }
    /// Reads what a tool answered besides what the model read at once, piece by piece.
    ToolOutput {
        /// The session.
        session_id: SessionId,
        /// The call.
        tool_call_id: ToolCallId,
        /// Bytes before the piece; 0 when absent.
        #[serde(default)]
        offset: Option<u64>,
        /// Most bytes of the piece, at most 262,144, which it is when absent.
        #[serde(default)]
        limit: Option<u32>,
    }
    /// A piece of what a tool answered.
    ToolOutputPiece {
        /// Of all of it.
        mime_type: String,
        /// Of all of it, in bytes.
        size: u64,
        /// Bytes before the piece; less than was asked for where that was inside a character.
        offset: u64,
        /// The piece: a text as it is, anything else in base64 (RFC 4648, section 4).
        content: String,
        /// Where the next piece begins; absent when this is the last one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_offset: Option<u64>,
    }
    /// Reads one approval.
    ApprovalGet {
        /// The session.
        session_id: SessionId,
        /// The call that it is about.
        tool_call_id: ToolCallId,
    }
}

// Questions and to-do lists.
payloads! {
    /// Lists the questions of a project or of one session.
    QuestionList {
        /// Of this session alone.
        #[serde(default)]
        session_id: Option<SessionId>,
        /// In this state alone; those that wait when absent.
        #[serde(default)]
        state: Option<QuestionState>,
        /// At most 200; 50 when absent.
        #[serde(default)]
        limit: Option<u32>,
        /// `nextCursor` of the page before.
        #[serde(default)]
        cursor: Option<String>,
    }
    /// Questions, newest first.
    QuestionPage {
        /// Newest first.
        questions: Vec<Question>,
        /// For the next page; null on the last.
        next_cursor: Option<String>,
        /// Whether there is a next page.
        has_more: bool,
    }
    /// Answers what an agent asked.
    #[serde(deny_unknown_fields)]
    QuestionAnswer {
        /// The session.
        session_id: SessionId,
        /// What was asked.
        question_id: QuestionId,
        /// For each question, in their order, the texts that were chosen or written: exactly one, or 0
        /// to 11 where the question takes several. None is empty, and all together have at most 32 KiB.
        answers: Vec<Vec<String>>,
    }
    /// Refuses to answer what an agent asked.
    #[serde(deny_unknown_fields)]
    QuestionReject {
        /// The session.
        session_id: SessionId,
        /// What was asked.
        question_id: QuestionId,
        /// For the model; at most 4096 bytes.
        #[serde(default)]
        reason: Option<String>,
    }
    /// What an agent asked.
    QuestionPayload {
        /// What an agent asked.
        question: Question,
    }
    /// Reads the to-do list of a session.
    TodoList {
        /// The session.
        session_id: SessionId,
    }
    /// The to-do list of a session.
    TodoPage {
        /// In the order of the list.
        todos: Vec<Todo>,
    }
}

// Permissions.
payloads! {
    /// Lists the rules that count in a project or in one of its sessions.
    PermissionList {
        /// The rules of the project and those of this session; without it, those of the project and of
        /// all its sessions.
        #[serde(default)]
        session_id: Option<SessionId>,
        /// At most 200; 50 when absent.
        #[serde(default)]
        limit: Option<u32>,
        /// `nextCursor` of the page before.
        #[serde(default)]
        cursor: Option<String>,
    }
    /// Rules about what tools may touch.
    PermissionPage {
        /// From the most general layer to the most specific one, in each in the order in which they were
        /// made: of one layer the last one that matches counts.
        rules: Vec<PermissionRule>,
        /// For the next page; null on the last.
        next_cursor: Option<String>,
        /// Whether there is a next page.
        has_more: bool,
    }
    /// Makes a rule for a project, or for one session of it.
    #[serde(deny_unknown_fields)]
    PermissionCreate {
        /// The session; the whole project when absent, which needs the role `admin`.
        #[serde(default)]
        session_id: Option<SessionId>,
        /// A tool, a group of tools (`read`, `edit`, `mcp:<server>`), or `*` for all.
        permission: String,
        /// A glob over what a call touches; at most 1024 bytes.
        pattern: String,
        /// What becomes of a call that it matches.
        action: PermissionAction,
    }
    /// Changes a rule; its place in the order stays.
    #[serde(deny_unknown_fields)]
    PermissionUpdate {
        /// The rule.
        permission_id: PermissionId,
        /// A tool, a group of tools, or `*` for all.
        #[serde(default)]
        permission: Option<String>,
        /// A glob over what a call touches.
        #[serde(default)]
        pattern: Option<String>,
        /// What becomes of a call that it matches.
        #[serde(default)]
        action: Option<PermissionAction>,
    }
    /// Deletes a rule or a remembered answer.
    #[serde(deny_unknown_fields)]
    PermissionDelete {
        /// The rule.
        permission_id: PermissionId,
    }
    /// A rule.
    PermissionPayload {
        /// The rule.
        rule: PermissionRule,
        /// What whoever made it may not have meant.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    }
    /// Asks what would become of a tool call, and why.
    PermissionExplain {
        /// The session in which it would be made; the project without a session when absent.
        #[serde(default)]
        session_id: Option<SessionId>,
        /// The agent that would make it; that of the session, or `default`, when absent.
        #[serde(default)]
        agent: Option<String>,
        /// The tool.
        tool_name: String,
        /// Its arguments.
        input: Value,
    }
    /// What would become of a tool call, and why.
    PermissionVerdict {
        /// What would become of it.
        action: PermissionAction,
        /// What it touches, and which rule decides about each of it.
        accesses: Vec<JudgedAccess>,
    }
    /// Changes an account; what is absent stays.
    #[serde(deny_unknown_fields)]
    UserManage {
        /// The user.
        user_id: UserId,
        /// Whether calls of `bash` and the like may run in their runs and by their approval.
        #[serde(default)]
        can_execute_code: Option<bool>,
        /// Whether they may manage the server.
        #[serde(default)]
        is_admin: Option<bool>,
        /// Whether the account is closed.
        #[serde(default)]
        disabled: Option<bool>,
        /// Where mail reaches the user; unique.
        #[serde(default)]
        email: Option<String>,
        /// What others see; unique.
        #[serde(default)]
        username: Option<String>,
    }
    /// Lists the rules of the server.
    ServerPermissionList {
        /// At most 200; 50 when absent.
        #[serde(default)]
        limit: Option<u32>,
        /// `nextCursor` of the page before.
        #[serde(default)]
        cursor: Option<String>,
    }
    /// Makes a rule for all projects of the server.
    #[serde(deny_unknown_fields)]
    ServerPermissionCreate {
        /// A tool, a group of tools (`read`, `edit`, `mcp:<server>`), or `*` for all.
        permission: String,
        /// A glob over what a call touches; at most 1024 bytes.
        pattern: String,
        /// What becomes of a call that it matches.
        action: PermissionAction,
    }
    /// Changes a rule of the server; its place in the order stays.
    #[serde(deny_unknown_fields)]
    ServerPermissionUpdate {
        /// The rule.
        permission_id: PermissionId,
        /// A tool, a group of tools, or `*` for all.
        #[serde(default)]
        permission: Option<String>,
        /// A glob over what a call touches.
        #[serde(default)]
        pattern: Option<String>,
        /// What becomes of a call that it matches.
        #[serde(default)]
        action: Option<PermissionAction>,
    }
    /// Deletes a rule of the server.
    #[serde(deny_unknown_fields)]
    ServerPermissionDelete {
        /// The rule.
        permission_id: PermissionId,
    }
}

// Files.
payloads! {
    /// Reads a file.
    #[derive(Default)]
    FileRead {
        /// Relative to the project's directory, with `/`.
        path: String,
        /// From which byte on; from the first when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
        /// How many bytes at most; all when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
        /// How the content is to stand in the answer; as text when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        encoding: Option<FileEncoding>,
        /// Which version; what stands on the disk when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u64>,
    }
    /// A file and its content.
    FileContent {
        /// The file.
        file: File,
        /// How `content` stands here.
        encoding: FileEncoding,
        /// As text, bytes that are not UTF-8 are replaced by U+FFFD; as base64, they are as they are.
        content: String,
    }
    /// Writes a file whole.
    #[derive(Default)]
    FileWrite {
        /// Relative to the project's directory, with `/`.
        path: String,
        /// All of it.
        content: String,
        /// How `content` stands here; as text when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        encoding: Option<FileEncoding>,
        /// The version that the caller knows, 0 for no file; another one is refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u64>,
    }
    /// A file.
    FilePayload {
        /// The file.
        file: File,
    }
}

// Presence.
payloads! {
    /// Says what the user of a connection does. It replaces what the connection said before.
    PresenceUpdate {
        /// The session that they look at; none when absent.
        #[serde(default)]
        session_id: Option<SessionId>,
        /// `online` when absent.
        #[serde(default)]
        status: Option<PresenceStatus>,
    }
    /// Lists who is present.
    PresenceList {}
    /// Who is present.
    PresencePage {
        /// In the order of their ids.
        users: Vec<Presence>,
    }
    /// Says that the user is writing a message.
    TypingStart {
        /// In which session.
        session_id: SessionId,
    }
    /// Says that the user is not writing any more.
    TypingStop {
        /// In which session.
        session_id: SessionId,
    }
}

// Sockets.
payloads! {
    /// Authenticates a socket that could not send a header.
    #[serde(deny_unknown_fields)]
    Hello {
        /// An access token.
        token: String,
        /// The project for requests that name none.
        #[serde(default)]
        project_id: Option<ProjectId>,
    }
    /// Payload of the first frame that a server sends after authentication.
    Connected {
        /// The connection.
        connection_id: ConnectionId,
        /// Who it acts for.
        user_id: UserId,
        /// The project for requests that name none.
        #[serde(default)]
        project_id: Option<ProjectId>,
        /// Version of the protocol.
        protocol: u32,
        /// Version of the server.
        version: String,
        /// Optional parts of the protocol that this server has.
        features: Vec<String>,
        /// Bounds that a client should know.
        limits: ConnectionLimits,
        /// How often the server sends a ping, in milliseconds; 0 for never.
        ping_interval_ms: u64,
        /// When the access token ends, in milliseconds since 1970 UTC.
        expires_at: i64,
    }
    /// Bounds that a client should know.
    ConnectionLimits {
        /// Largest message that a client may send, in bytes; what the server sends can be larger.
        frame_bytes_max: usize,
        /// Most requests in flight.
        requests_in_flight_max: usize,
        /// Most rooms of one connection.
        rooms_max: usize,
    }
    /// Gives a socket a new access token of the same user.
    #[serde(deny_unknown_fields)]
    AuthRefresh {
        /// The new access token.
        token: String,
    }
    /// When the socket's access token ends.
    AuthExpiry {
        /// Milliseconds since 1970 UTC.
        expires_at: i64,
    }
    /// Payload of `heartbeat`: how far the rooms of a connection are.
    Heartbeat {
        /// The last event of each room that the connection is in, by the name of the room.
        rooms: std::collections::BTreeMap<String, Position>,
        /// The server's time, in milliseconds since 1970 UTC.
        at: i64,
    }
    /// Joins rooms of one project.
    Subscribe {
        /// At most 128 for one connection.
        rooms: Vec<RoomRequest>,
        /// Whether streaming text is sent; true when absent.
        #[serde(default)]
        deltas: Option<bool>,
        /// Whether the room of the project tells who is present; false when absent.
        #[serde(default)]
        presence: Option<bool>,
    }
    /// A room to join and the last event of it that the client has.
    RoomSince {
        /// `session:` or `project:` and an id.
        room: String,
        /// Absent to hear only what comes.
        #[serde(default)]
        since: Option<Position>,
    }
    /// What became of each room.
    SubscribePayload {
        /// In the order of the request.
        rooms: Vec<RoomOutcome>,
    }
    /// What became of one room.
    RoomOutcome {
        /// As asked for.
        room: String,
        /// Whether it was joined, and how.
        status: RoomStatus,
        /// The position that was asked for; 0 when there was none.
        from: u64,
        /// The last event before the live ones.
        to: u64,
        /// Of the project's order; empty when refused.
        epoch: String,
        /// Why it was refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<crate::ErrorCode>,
    }
    /// Leaves rooms.
    Unsubscribe {
        /// Rooms that are not joined are ignored.
        rooms: Vec<String>,
    }
    /// Gives up a request of this socket that is not answered yet.
    Cancel {
        /// Its `id`.
        request_id: String,
    }
    /// Asks for a snapshot of a part that streams in a joined room.
    PartSync {
        /// The part.
        part_id: crate::PartId,
    }
    /// Asks for a sign of life.
    Ping {}
    /// A sign of life.
    Pong {
        /// The server's time, in milliseconds since 1970 UTC.
        pong: i64,
    }
}

/// A room to join: its name, or its name and a position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RoomRequest {
    /// Hear only what comes.
    Live(String),
    /// Hear also what was missed.
    Since(RoomSince),
}

impl RoomRequest {
    /// The room's name and the position, whichever way it was asked.
    pub fn parts(&self) -> (&str, Option<&Position>) {
        match self {
            Self::Live(room) => (room, None),
            Self::Since(request) => (&request.room, request.since.as_ref()),
        }
    }
}

/// Whether a room was joined, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RoomStatus {
    /// Joined; no position was given.
    Live,
    /// Joined; every event after the position was sent.
    Replayed,
    /// Not joined: take a snapshot and subscribe since its `asOf`.
    Reset,
    /// Not joined; see `code`.
    Refused,
}

/// Which id a project gets that is created from an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ImportId {
    /// A new one.
    #[default]
    New,
    /// That of the project in the archive, which must not exist on this server.
    Same,
}

/// What becomes of the members that an archive names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ImportMembers {
    /// Who has an account here with the same email address is a member.
    Map,
    /// Nobody but the caller is a member.
    #[default]
    Drop,
}

// The whole server.
payloads! {
    /// Writes a backup of the whole server to its disk.
    ServerBackupCreate {}
    /// A backup of the whole server.
    ServerBackupPayload {
        /// The backup.
        backup: ServerBackup,
    }
    /// Makes a new master key and seals everything anew; goes on with a change that is not done yet.
    KeysRotate {}
    /// How far the change of the master key is. The old key is forgotten when nothing needs it any more.
    KeysRotated {
        /// Whether a new key was made; no where a change from before is not done yet.
        is_new: bool,
        /// How many secrets were sealed anew just now.
        sealed: u64,
        /// How many projects could not be looked through yet; the server tries again by itself.
        projects_left: u64,
    }
    /// Lists the backups of the whole server.
    ServerBackupList {}
    /// The backups of the whole server.
    ServerBackupPage {
        /// Newest first.
        backups: Vec<ServerBackup>,
    }
}
