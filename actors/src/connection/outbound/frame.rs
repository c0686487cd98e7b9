//! What is said to a reader.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use iris_protocol::{PartId, ProjectId, SessionId, ToolCallId, UserId};
use serde::{Deserialize, Serialize};

/// Something to write to a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutFrame {
    /// A JSON frame, encoded once for all its readers.
    Text(Bytes),
    /// A JSON frame of a replay.
    Replay(Bytes),
    /// A JSON frame with a piece of a streaming part, left out when the reader is slow.
    Delta(Arc<PartId>, Bytes),
    /// A JSON frame with all of a streaming part so far.
    Snapshot(PartId, Bytes),
    /// A JSON frame with all that is so of something now: a slow reader gets none but the latest.
    Latest(About, Bytes),
    /// A JSON frame that says that a room of this project is heard no more.
    Left(ProjectId, Bytes),
    /// A binary frame: a chunk of a file, or an acknowledgement.
    Binary(Bytes),
    /// A WebSocket ping.
    Ping,
    /// The answer to a WebSocket ping, with the ping's payload.
    Pong(Bytes),
    /// The last frame.
    Close(CloseReason),
}

impl OutFrame {
    /// The JSON that it carries to the client.
    pub fn json(&self) -> Option<&Bytes> {
        match self {
            Self::Text(json)
            | Self::Replay(json)
            | Self::Delta(_, json)
            | Self::Snapshot(_, json)
            | Self::Latest(_, json)
            | Self::Left(_, json) => Some(json),
            Self::Binary(_) | Self::Ping | Self::Pong(_) | Self::Close(_) => None,
        }
    }

    /// Of the JSON that counts against the limits of a reader.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Text(json)
            | Self::Delta(_, json)
            | Self::Snapshot(_, json)
            | Self::Latest(_, json)
            | Self::Left(_, json) => json.len(),
            Self::Replay(_) | Self::Binary(_) | Self::Ping | Self::Pong(_) | Self::Close(_) => 0,
        }
    }
}

/// What a frame says all of, so that a later one about it takes its place.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum About {
    /// The presence of a user in a project.
    Presence(ProjectId, UserId),
    /// Who writes in a session.
    Typing(SessionId),
    /// How far a tool call is.
    Tool(ToolCallId),
}

/// What stands in a reason before the milliseconds after which a client may come back.
const RETRY_AFTER: &str = "retryAfterMs=";

/// Why a connection ends: a code of docs/protocol.md and a word for people, or when to come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason {
    /// The close code of RFC 6455 or of the 4000 range.
    pub code: u16,
    /// At most 123 bytes.
    pub text: String,
}

impl CloseReason {
    /// A close reason.
    pub fn new(code: u16, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// The end of a connection that may come back, and says when: after so long at least, and up to twice of it,
    /// so that those that end together do not come together.
    pub fn back_after(code: u16, least: Duration) -> Self {
        let wait = least + least.mul_f64(fastrand::f64());
        Self::new(code, format!("{RETRY_AFTER}{}", wait.as_millis()))
    }

    /// When the connection may come back, in milliseconds from its end, where the reason says so.
    pub fn retry_after_ms(&self) -> Option<u64> {
        self.text.strip_prefix(RETRY_AFTER)?.parse().ok()
    }
}
