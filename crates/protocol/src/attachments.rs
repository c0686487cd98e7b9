//! Files that go with a message: as they are named when it is sent, and as they are part of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{MessageId, PartId, SessionId};

/// A file that goes with a new message: one of the project, or one that comes with the request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SentAttachment {
    /// A file of the project. Either this or `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Which version of it; as it is now when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// How `data` is called, 1 to 200 bytes; needed with it, and not taken with `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the file holds, in base64 (RFC 4648, section 4). What it is is told by its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

impl SentAttachment {
    /// A file of the project as it is now.
    pub fn of_path(path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..Self::default() }
    }
}

/// A file that goes with a message. What it held when the message was taken is kept with the message, whatever
/// becomes of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentPart {
    /// The part.
    pub id: PartId,
    /// Without directories.
    pub name: String,
    /// Relative to the project's directory; absent for what came with the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The version of the file that this is, where that was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// That of an image, `text/plain`, or `application/octet-stream`: as the bytes say.
    pub mime_type: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of what is kept, 64 hex digits.
    pub hash: String,
    /// What the model gets of it.
    pub given: AttachmentGiven,
}

/// What a model gets of a file that goes with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum AttachmentGiven {
    /// It is shown the image.
    Image,
    /// It reads the text, or its beginning.
    Text,
    /// It is told name, type and size.
    Named,
}

/// Reads what a file held that went with a message, piece by piece.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageAttachment {
    /// The session.
    pub session_id: SessionId,
    /// The message.
    pub message_id: MessageId,
    /// Which of its attachments, from 0.
    pub index: u32,
    /// Bytes before the piece; 0 when absent.
    #[serde(default)]
    pub offset: Option<u64>,
    /// Most bytes of the piece, at most 262,144, which it is when absent.
    #[serde(default)]
    pub limit: Option<u32>,
}
