//! The resources that operations return and events carry (docs/protocol.md, "Types").

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    AgentId, AgentSource, AgentTuning, AnswerFormatPart, ApiError, ApprovalId, AttachmentPart,
    BackupId, Budget, Capturing, CompactionPart, FileLock, MessageId, PartId, PermissionId,
    ProjectGit, ProjectId, RunId, SessionId, ToolCallId, UserId,
};

/// A role in a project. The order is the order of power: each role may do all that the ones before it may.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Reads everything, changes nothing.
    Viewer,
    /// Sessions, messages, files, approvals.
    Member,
    /// Members, agents, settings.
    Admin,
    /// Everything, deletion included.
    Owner,
}

/// A user as they see themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The user.
    pub id: UserId,
    /// Lower case, unique on the server.
    pub email: String,
    /// The name that others see, unique on the server.
    pub username: String,
    /// Where there is a picture of them: an `https` URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
    /// May manage users, settings and actors of the server.
    pub is_admin: bool,
    /// May cause code to run on the server's machine.
    pub can_execute_code: bool,
    /// Whether the account is closed: its user may do nothing at all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
    /// Whatever clients keep for the user; at most 16 KiB of JSON.
    #[serde(default)]
    pub preferences: Map<String, Value>,
    /// Milliseconds since 1970 UTC.
    pub created_at: i64,
}

/// A project as its caller sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Project {
    /// The project.
    pub id: ProjectId,
    /// Never empty.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where its files live.
    pub r#type: ProjectType,
    /// The directory that holds the project's files, where it lies outside the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where a project of the type `git` was cloned from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<ProjectGit>,
    /// The user who may do everything with it.
    pub owner_id: UserId,
    /// The caller's own role.
    pub role: Role,
    /// Free-form settings of the project.
    pub settings: Map<String, Value>,
    /// How much it holds; in the answer of `project.get` alone, and absent there while the project cannot be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<ProjectStorage>,
    /// Milliseconds since 1970 UTC.
    pub created_at: i64,
    /// Milliseconds since 1970 UTC.
    pub updated_at: i64,
    /// Milliseconds since 1970 UTC; absent while the project is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived_at: Option<i64>,
}

/// How much a project holds, and how much it may; a limit of 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProjectStorage {
    /// Messages and parts of messages.
    pub rows: u64,
    /// Most of them.
    pub rows_max: u64,
    /// Bytes of its database, without what is free in it.
    pub bytes: u64,
    /// Most of them.
    pub bytes_max: u64,
    /// Files that are known.
    pub files: u64,
    /// Most of them.
    pub files_max: u64,
    /// Bytes of these files.
    pub file_bytes: u64,
    /// Most of them.
    pub file_bytes_max: u64,
}

/// Where the files of a project live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ProjectType {
    /// A directory on the server's machine.
    #[default]
    Local,
    /// A directory of the server that was cloned with git.
    Git,
    /// The project's database: there is no directory.
    Remote,
}

/// A user's place in a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The user.
    pub user_id: UserId,
    /// The name that others see.
    pub username: String,
    /// Where there is a picture of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
    /// What they may do.
    pub role: Role,
    /// Milliseconds since 1970 UTC.
    pub joined_at: i64,
}

/// A provider and one of its models.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct ModelRef {
    /// The name under which the provider is configured.
    pub provider_id: String,
    /// The model's name as that provider knows it.
    pub model_id: String,
}

/// One conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// The session.
    pub id: SessionId,
    /// The session that spawned this one, for a sub-agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<SessionId>,
    /// Never empty.
    pub title: String,
    /// Name of the agent that answers.
    pub agent: String,
    /// The model that answers, where the session chose one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelRef>,
    /// How tool calls are judged.
    pub mode: SessionMode,
    /// Whether it is in use.
    pub status: SessionStatus,
    /// What it is doing.
    pub state: SessionState,
    /// The user who created it.
    pub created_by: UserId,
    /// Milliseconds since 1970 UTC.
    pub created_at: i64,
    /// Milliseconds since 1970 UTC.
    pub updated_at: i64,
    /// Milliseconds since 1970 UTC; absent while it is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived_at: Option<i64>,
    /// Messages of all roles.
    pub message_count: u64,
    /// The sum over all runs.
    pub usage: Usage,
    /// The most that it may use with its sub-agents, where that is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// There while what it asks model providers is recorded, until `until` of it at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capturing: Option<Capturing>,
}

/// How a session judges tool calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SessionMode {
    /// The rules decide; what they do not name asks.
    #[default]
    Default,
    /// As `default`, but files are changed without a question, unless a rule of the server, the project,
    /// the agent or the session says otherwise.
    AcceptEdits,
    /// Nothing is changed: only tools that read, ask people or keep a list of what is to be done run.
    Plan,
    /// As `default`, but what no rule names runs without a question. Only an administrator of the project
    /// may choose it, it counts only for runs that such a one starts, and it needs a sandbox.
    Auto,
}

/// What a permission rule says of what it matches.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum PermissionAction {
    /// The call runs.
    Allow,
    /// A person is asked.
    Ask,
    /// The call is refused, whatever other rules say.
    Deny,
}

/// Where a permission rule stands; from the most general to the most specific.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum PermissionLayer {
    /// What the server brings along.
    Builtin,
    /// What the mode of the session means.
    Mode,
    /// Set for the whole server by its administrators.
    Server,
    /// Set for a project by its administrators.
    Project,
    /// Part of an agent.
    Agent,
    /// Set for one session.
    Session,
    /// An answer to an approval that somebody asked to be remembered.
    Remembered,
}

/// A rule about what tools may touch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PermissionRule {
    /// The rule; absent on those that the server brings along and on those of an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<PermissionId>,
    /// Where it stands.
    pub layer: PermissionLayer,
    /// The session that it is about; absent when it is about all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// A tool, a group of tools (`read`, `edit`, `mcp:<server>`), or `*` for all.
    pub permission: String,
    /// A glob over what a call touches: a path, a command, a host, the name of an agent.
    pub pattern: String,
    /// What becomes of a call that it matches.
    pub action: PermissionAction,
    /// The user who made it; absent where nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<UserId>,
    /// Milliseconds since 1970 UTC; absent on rules without an id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<i64>,
    /// Milliseconds since 1970 UTC; absent on rules without an id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<i64>,
}

/// A permission rule as somebody writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PermissionSetting {
    /// A tool, a group of tools (`read`, `edit`, `mcp:<server>`), or `*` for all.
    pub permission: String,
    /// A glob over what a call touches.
    pub pattern: String,
    /// What becomes of a call that it matches.
    pub action: PermissionAction,
}

/// One thing that a tool call touches, and what the rules say of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JudgedAccess {
    /// The permission that it needs: the tool, or what the tool uses.
    pub permission: String,
    /// What it touches: a path, a command, a host, the name of an agent.
    pub target: String,
    /// What the rules say.
    pub action: PermissionAction,
    /// The rule that decided; absent when none matches, so that a person is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<PermissionRule>,
    /// One sentence that says why.
    pub reason: String,
}

/// Whether a session is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SessionStatus {
    /// In use.
    Active,
    /// Kept, read-only, out of the default list.
    Archived,
    /// Deleted softly: `session.unarchive` brings it back.
    Deleted,
}

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SessionState {
    /// Nothing.
    Idle,
    /// A message waits for its run to start.
    Queued,
    /// A run is working.
    Running,
    /// A run waits for a person.
    Waiting,
    /// A run waits before it asks the provider again.
    Retrying,
    /// The last run was cut off when the server died.
    Interrupted,
}

/// One message: what a user sent, or what one run of the agent produced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// The message.
    pub id: MessageId,
    /// Its session.
    pub session_id: SessionId,
    /// The run that it started, that it joins, or that produced it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// On a message that joined a run: how many steps of the run's answer stand before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_step: Option<u32>,
    /// Who speaks.
    pub role: MessageRole,
    /// Name of the agent, on answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The model, on answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelRef>,
    /// In order of appearance.
    pub parts: Vec<Part>,
    /// How far it is.
    pub state: MessageState,
    /// Why it ended, once it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<FinishReason>,
    /// What went wrong, when something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
    /// The sum over its steps, on answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The user who sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<UserId>,
    /// Milliseconds since 1970 UTC.
    pub created_at: i64,
    /// Milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<i64>,
}

/// A text part in which something was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SearchHit {
    /// Where it was said.
    pub session_id: SessionId,
    /// The message.
    pub message_id: MessageId,
    /// The part of it.
    pub part_id: PartId,
    /// Who said it.
    pub role: MessageRole,
    /// Around the first word that was looked for, on one line: at most 200 bytes, and `…` where
    /// something was cut off.
    pub excerpt: String,
    /// When the message was created, in milliseconds since 1970 UTC.
    pub at: i64,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum MessageRole {
    /// A person or program.
    User,
    /// The model.
    Assistant,
    /// The server: it tells the agent that a sub-agent in the background is done.
    System,
}

/// How far a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum MessageState {
    /// Still being produced.
    Streaming,
    /// Whole.
    Complete,
    /// Cut off when the server died.
    Interrupted,
    /// Ended by an error.
    Error,
    /// Another message or another answer took its place: it is kept, and the model does not read it.
    Superseded,
}

/// Why an answer, or one step of it, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FinishReason {
    /// The model was done.
    Stop,
    /// The model wants tools to run.
    ToolCalls,
    /// The model's output limit.
    Length,
    /// The provider refused.
    ContentFilter,
    /// A user cancelled.
    Cancelled,
    /// A failure, named in `error`.
    Error,
    /// A spending limit.
    Budget,
    /// The run's limit of model calls.
    Steps,
    /// A reason of the provider that this version does not know, named in `rawFinishReason` of the step.
    Other,
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Part {
    /// Text.
    Text {
        /// The part.
        id: PartId,
        /// UTF-8.
        text: String,
        /// Whether it stops where the server did, so that there may have been more of it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        interrupted: bool,
    },
    /// What the model thought before it answered.
    Reasoning {
        /// The part.
        id: PartId,
        /// UTF-8.
        text: String,
        /// Whether it stops where the server did, so that there may have been more of it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        interrupted: bool,
    },
    /// A tool call and, once there is one, its result.
    Tool(ToolPart),
    /// A sub-agent that a call of `task` set to work.
    Subtask(SubtaskPart),
    /// A summary that models are told in place of what came before it.
    Compaction(CompactionPart),
    /// What the answer to this message has to look like.
    AnswerFormat(AnswerFormatPart),
    /// A file that goes with this message.
    Attachment(AttachmentPart),
    /// The end of one model call.
    Step {
        /// The part.
        id: PartId,
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
        /// Why the call ended.
        finish_reason: FinishReason,
        /// The provider's own word for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        raw_finish_reason: Option<String>,
    },
}

impl Part {
    /// The id of the part, whatever its type.
    pub fn id(&self) -> &PartId {
        match self {
            Self::Text { id, .. } | Self::Reasoning { id, .. } | Self::Step { id, .. } => id,
            Self::Tool(part) => &part.id,
            Self::Subtask(part) => &part.id,
            Self::Compaction(part) => &part.id,
            Self::AnswerFormat(part) => &part.id,
            Self::Attachment(part) => &part.id,
        }
    }
}

/// A sub-agent at work, in a session of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubtaskPart {
    /// The part.
    pub id: PartId,
    /// The call of `task`.
    pub tool_call_id: ToolCallId,
    /// The session in which the sub-agent works.
    pub child_session_id: SessionId,
    /// The run in it that does what was asked.
    pub child_run_id: RunId,
    /// Name of the sub-agent.
    pub agent: String,
    /// What it is to do, in a few words.
    pub description: String,
    /// Whether the run that asked goes on without waiting for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub background: bool,
    /// How far it is.
    pub state: SubtaskState,
}

/// How far a sub-agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SubtaskState {
    /// At work, or about to be.
    Running,
    /// Done.
    Completed,
    /// Ended by an error.
    Error,
    /// Ended by a user, or with the run that asked.
    Cancelled,
    /// Cut off when the server died.
    Interrupted,
}

/// A tool call and its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolPart {
    /// The part.
    pub id: PartId,
    /// The call.
    pub tool_call_id: ToolCallId,
    /// The tool's name as the model gave it.
    pub tool_name: String,
    /// An object; a string holding the model's text where that was not a JSON object.
    pub input: Value,
    /// How far it is.
    pub state: ToolState,
    /// What the tool answered, as the model reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// What `tool.output` answers: the whole of a text that `output` has the beginning and the end of, or
    /// an image. Absent when `output` is all there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<Attachment>,
    /// Why there is no output; the model sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Facts for clients that the model does not see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// Whether the model's provider ran it, not this server: nobody approves it, and it has its result
    /// as soon as it is seen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub provider_executed: bool,
    /// Milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<i64>,
    /// Milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<i64>,
}

/// What a tool answered besides what the model read at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// `text/plain`, or that of an image.
    pub mime_type: String,
    /// Bytes.
    pub size: u64,
}

/// How far a tool call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ToolState {
    /// Recorded, not started.
    Pending,
    /// Waits for a person.
    Waiting,
    /// Running.
    Running,
    /// Answered.
    Completed,
    /// Failed; the model sees why.
    Error,
    /// A person or a rule said no.
    Denied,
    /// The run was cancelled first.
    Cancelled,
    /// It was running when the server died: it may or may not have had its effect.
    UnknownOutcome,
}

impl ToolState {
    /// Whether the call has its one result (INV-3).
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Waiting | Self::Running => false,
            Self::Completed
            | Self::Error
            | Self::Denied
            | Self::Cancelled
            | Self::UnknownOutcome => true,
        }
    }
}

/// Tokens and money. Input includes cached tokens; output includes reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// All tokens of the prompt, cached ones included.
    pub input_tokens: u64,
    /// All tokens produced, reasoning included.
    pub output_tokens: u64,
    /// The part of `outputTokens` that was reasoning.
    pub reasoning_tokens: u64,
    /// The part of `inputTokens` that was read from the provider's cache.
    pub cache_read_tokens: u64,
    /// The part of `inputTokens` that was written to the provider's cache.
    pub cache_write_tokens: u64,
    /// The part of `cacheWriteTokens` that is kept for an hour, which some providers charge more for.
    #[serde(default, skip_serializing_if = "is_zero", rename = "cacheWrite1hTokens")]
    pub cache_write_1h_tokens: u64,
    /// How often the provider ran tools of its own, which some charge for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub server_tool_calls: u64,
    /// Billionths of a US dollar; null when it is not known.
    pub cost_nano_usd: Option<i64>,
    /// Whether a provider did not say all of it, because an answer broke off or because it does not count: what
    /// it did not say is estimated.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Usage {
    /// Adds token counts; the cost is known only while both costs are.
    pub fn add(&mut self, other: &Self) {
        let was_empty = *self == Self::default();
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.reasoning_tokens = self.reasoning_tokens.saturating_add(other.reasoning_tokens);
        self.cache_read_tokens = self.cache_read_tokens.saturating_add(other.cache_read_tokens);
        self.cache_write_tokens = self.cache_write_tokens.saturating_add(other.cache_write_tokens);
        self.cache_write_1h_tokens =
            self.cache_write_1h_tokens.saturating_add(other.cache_write_1h_tokens);
        self.server_tool_calls = self.server_tool_calls.saturating_add(other.server_tool_calls);
        self.incomplete |= other.incomplete;
        self.cost_nano_usd = match (self.cost_nano_usd, other.cost_nano_usd) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (None, cost) if was_empty => cost,
            (Some(_) | None, Some(_) | None) => None,
        };
    }
}

/// One run of the agent loop: all model calls and tools that one message caused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// The run.
    pub id: RunId,
    /// Its session.
    pub session_id: SessionId,
    /// How far it is.
    pub status: RunStatus,
    /// The user with whose rights it acts (INV-12).
    pub started_by: UserId,
    /// Whether it only makes a summary, for `session.compact`: there is no message of a user then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compacts: bool,
    /// Model calls so far.
    pub steps: u32,
    /// The sum over its steps.
    pub usage: Usage,
    /// While it waits for a place among those that work: its position in the line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
    /// Milliseconds since 1970 UTC; absent while it is queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<i64>,
    /// Milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<i64>,
    /// Why it failed, when it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
}

/// What a run in the line waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum QueueReason {
    /// As many runs work as the server takes.
    Server,
    /// As many runs of the project work as may.
    Project,
    /// As many runs of the user work as may.
    User,
    /// The server begins no runs while it is looked after.
    Maintenance,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RunStatus {
    /// Waits for the run before it.
    Queued,
    /// Working.
    Running,
    /// Waits for a person.
    Waiting,
    /// Ended by the model.
    Completed,
    /// Ended by an error.
    Failed,
    /// Ended by a user.
    Cancelled,
    /// Cut off when the server died.
    Interrupted,
}

/// A request for a person's decision about one tool call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// The approval.
    pub id: ApprovalId,
    /// Its session; of a sub-agent's call, where a session above it is told, that one.
    pub session_id: SessionId,
    /// The session of the sub-agent that makes the call, where a session above it is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_session_id: Option<SessionId>,
    /// The run that waits.
    pub run_id: RunId,
    /// The message that holds the call.
    pub message_id: MessageId,
    /// The call.
    pub tool_call_id: ToolCallId,
    /// The tool.
    pub tool_name: String,
    /// The arguments that will be used, exactly.
    pub input: Value,
    /// SHA-256 of `input` as compact JSON, 64 hex digits. Who names it in an answer answers for these
    /// arguments alone.
    #[serde(default)]
    pub input_hash: String,
    /// What the call touches, and what the rules say of it.
    #[serde(default)]
    pub accesses: Vec<JudgedAccess>,
    /// One sentence for the person who decides.
    pub message: String,
    /// The values that `remember` may take.
    pub options: Vec<Remember>,
    /// How far it is.
    pub state: ApprovalState,
    /// The user who decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
    /// Why it was rejected; the model sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long the yes holds; absent until there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remember: Option<Remember>,
    /// The arguments that the model gave, where who approved changed them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_input: Option<Value>,
    /// Milliseconds since 1970 UTC.
    pub created_at: i64,
    /// Milliseconds since 1970 UTC; after it the answer is no.
    pub expires_at: i64,
}

/// How long an approval holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Remember {
    /// For this call alone.
    #[default]
    Once,
    /// For what this call touches, in the same session.
    Session,
    /// For what this call touches, in all sessions of the project; only its administrators may say so.
    Project,
}

/// How far an approval is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ApprovalState {
    /// Nobody decided yet.
    Pending,
    /// Yes.
    Approved,
    /// No.
    Rejected,
    /// Nobody decided in time: no.
    Expired,
    /// The run ended first.
    Cancelled,
}

/// A message that waits for the run before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueuedMessage {
    /// The message.
    pub message_id: MessageId,
    /// The run that it will start, or join.
    pub run_id: RunId,
    /// Whether it joins the run as soon as that asks its model again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub steers: bool,
    /// The user who sent it.
    pub created_by: UserId,
    /// Milliseconds since 1970 UTC.
    pub created_at: i64,
}

/// An agent: a prompt, a model and a set of tools under a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Absent on built-in agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<AgentId>,
    /// Unique in the project.
    pub name: String,
    /// What it is for: other agents choose by it; empty when nothing is said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Who may set it to work.
    #[serde(default)]
    pub mode: AgentMode,
    /// Instructions that the model gets before the conversation.
    pub prompt: String,
    /// The model, where the agent chose one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelRef>,
    /// Names of the tools that it may call, in the order in which the model sees them.
    pub tools: Vec<String>,
    /// Rules about what its tool calls may touch; the last one that matches counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<PermissionSetting>,
    /// The most that a run may use that it answers, sub-agents included; absent where that is not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// How its model is asked.
    #[serde(flatten)]
    pub tuning: AgentTuning,
    /// Whether the server brings it along.
    pub builtin: bool,
    /// Where it is defined.
    #[serde(default)]
    pub source: AgentSource,
    /// The file that defines it, relative to the project's directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Whether only the server sets it to work, and lists leave it out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

/// Who may set an agent to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum AgentMode {
    /// People, in sessions that they begin.
    Primary,
    /// Other agents, by calls of `task`.
    Subagent,
    /// Both.
    #[default]
    All,
}

/// A file of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct File {
    /// Relative to the project's directory, with `/`.
    pub path: String,
    /// What it is.
    pub r#type: FileType,
    /// Bytes.
    pub size: u64,
    /// What its content is taken for; absent where nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    /// The number of its newest version; 0 while none is recorded.
    pub version: u64,
    /// SHA-256 of the content, 64 hex digits; empty for a directory and for more than 16 MiB.
    pub hash: String,
    /// When its newest version was recorded, in milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<i64>,
    /// The user who changed it last, by themselves or through an agent; absent where nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_by: Option<UserId>,
    /// The lock that is on it, where that was looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<FileLock>,
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
}

/// Why a backup was made, and how long it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BackupKind {
    /// Somebody asked for it. It is kept until somebody deletes it.
    Manual,
    /// Its time had come. The newest ones are kept.
    Scheduled,
    /// To be downloaded. It is kept for a day.
    Export,
    /// The project was about to be put back to another backup. The newest ones are kept.
    Safety,
}

/// An archive of a project on the server's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    /// The backup.
    pub id: BackupId,
    /// Of which project.
    pub project_id: ProjectId,
    /// Why it was made.
    pub kind: BackupKind,
    /// When it was begun, in milliseconds since 1970 UTC.
    pub at: i64,
    /// Size of the archive.
    pub bytes: u64,
    /// SHA-256 of the archive, lower-case hex.
    pub sha256: String,
    /// The last event in it.
    pub seq: u64,
    /// Of the project's order of events.
    pub epoch: String,
    /// Who asked for it; absent when the server made it by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
    /// When it was read back and found whole, in milliseconds since 1970 UTC.
    pub verified_at: i64,
    /// When it will be gone, in milliseconds since 1970 UTC; absent when no time is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
}

/// A backup of the whole server: the root database and an archive of each project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerBackup {
    /// Of its directory, below `backups/server` in the data directory.
    pub name: String,
    /// When it was begun, in milliseconds since 1970 UTC.
    pub at: i64,
    /// Size of all that is in it.
    pub bytes: u64,
    /// How many projects are in it.
    pub projects: u64,
    /// Projects that could not be read; the log says why.
    pub failed: Vec<ProjectId>,
}

/// What somebody who is present says of themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PresenceStatus {
    /// There.
    #[default]
    Online,
    /// There, and not looking.
    Away,
    /// There, and not to be disturbed.
    Busy,
}

/// A user who is present in a project: one of their connections hears a room of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Presence {
    /// The user.
    pub user_id: UserId,
    /// The name that others see.
    pub username: String,
    /// What they said last of themselves.
    pub status: PresenceStatus,
    /// The session that they look at: they are one of its viewers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// How many connections they have in the project; 0 once they left.
    pub connections: u32,
}
