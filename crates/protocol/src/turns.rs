//! What people do with the messages of a session besides sending them: take them back, ask for another
//! answer, say them differently, go on elsewhere, take them along.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Content, MessageId, SentAttachment, SessionId};

/// Takes back a message that waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageDequeue {
    /// The session.
    pub session_id: SessionId,
    /// A message of its `queue`.
    pub message_id: MessageId,
}

/// Asks for another answer. What follows the question is superseded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageRetry {
    /// The session.
    pub session_id: SessionId,
    /// The question or its answer.
    pub message_id: MessageId,
}

/// Says something else in place of a message. It is superseded, and all that follows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageEdit {
    /// The session.
    pub session_id: SessionId,
    /// A message of a user.
    pub message_id: MessageId,
    /// What to say.
    pub content: Content,
    /// Files that go with it, as with a new message. Those of the message in whose place it stands do not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<SentAttachment>,
}

/// Begins another session with what the model knows of this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionFork {
    /// The session.
    pub session_id: SessionId,
    /// The last message that the other one has; the last that is done with when absent.
    #[serde(default)]
    pub message_id: Option<MessageId>,
    /// 1 to 200 bytes; that of the session when absent.
    #[serde(default)]
    pub title: Option<String>,
}

/// Reads a whole conversation as one document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionExport {
    /// The session.
    pub session_id: SessionId,
    /// `json` when absent.
    #[serde(default)]
    pub format: Option<ExportFormat>,
}

/// What a conversation is exported as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ExportFormat {
    /// `{"session", "messages"}`, as on the wire, with every message that there is.
    #[default]
    Json,
    /// For people: what was said and done, without what is superseded.
    Markdown,
}

impl ExportFormat {
    /// The type of the document.
    pub fn mime_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Markdown => "text/markdown; charset=utf-8",
        }
    }
}

/// A conversation as a document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionDocument {
    /// What it is.
    pub mime_type: String,
    /// All of it.
    pub content: String,
}
