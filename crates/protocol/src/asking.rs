//! What agents ask the people of their session, and the to-do lists that they keep for them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{MessageId, QuestionId, RunId, SessionId, TodoId, ToolCallId, UserId};

/// One call of the tool `question`: the run waits until somebody answers all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// What is asked.
    pub id: QuestionId,
    /// Its session; of a sub-agent's question, where a session above it is told, that one.
    pub session_id: SessionId,
    /// The session of the sub-agent that asks, where a session above it is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_session_id: Option<SessionId>,
    /// The run that waits.
    pub run_id: RunId,
    /// The message that holds the call.
    pub message_id: MessageId,
    /// The call, whose result the answers are.
    pub tool_call_id: ToolCallId,
    /// 1 to 8 questions, which are answered together.
    pub questions: Vec<QuestionItem>,
    /// For each question the texts that were chosen or written; absent until it is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Vec<Vec<String>>>,
    /// How far it is.
    pub state: QuestionState,
    /// The user who answered or refused to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
    /// Why nobody is to answer; the model sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Milliseconds since 1970 UTC.
    pub created_at: i64,
    /// Milliseconds since 1970 UTC; after it the model is told that nobody answered.
    pub expires_at: i64,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuestionItem {
    /// 1 to 1000 bytes.
    pub text: String,
    /// Answers to choose from, at most 10; a text of one's own is an answer too. Empty where there is
    /// nothing to choose from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<QuestionOption>,
    /// Whether any number of answers may be given, none included, in place of one.
    #[serde(default)]
    pub multiple: bool,
}

/// An answer to choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuestionOption {
    /// The text that the answer holds when this is chosen; 1 to 200 bytes.
    pub label: String,
    /// What choosing it means; at most 1000 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// How far a question is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum QuestionState {
    /// Nobody answered yet.
    Pending,
    /// Somebody answered.
    Answered,
    /// Somebody refused to answer.
    Rejected,
    /// Nobody answered in time.
    Expired,
    /// The run ended first.
    Cancelled,
}

/// An entry of the to-do list of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Todo {
    /// The entry; it stays the same while the list is rewritten.
    pub id: TodoId,
    /// What is to be done; 1 to 1000 bytes.
    pub content: String,
    /// How far it is.
    pub status: TodoStatus,
    /// How much it matters.
    pub priority: TodoPriority,
}

/// How far an entry of a to-do list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum TodoStatus {
    /// Not begun.
    Pending,
    /// Under way.
    InProgress,
    /// Done.
    Completed,
    /// Not to be done any more.
    Cancelled,
}

/// How much an entry of a to-do list matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum TodoPriority {
    /// Before the others.
    High,
    /// In its turn.
    Medium,
    /// When nothing else is left.
    Low,
}
