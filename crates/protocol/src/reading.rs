//! What somebody has read of sessions, which nobody else is told.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{MessageId, SessionId};

payloads! {
    /// Says how far the caller has read a session. It only ever moves forward.
    SessionRead {
        /// The session.
        session_id: SessionId,
        /// The newest message that was read.
        message_id: MessageId,
    }
    /// What the caller has not read of a session.
    Unread {
        /// The session.
        session_id: SessionId,
        /// Messages of others, and of agents, that came after the last one that was read: at most 100, which
        /// stands for 100 or more.
        count: u32,
        /// The first of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        first_message_id: Option<MessageId>,
        /// The last message that was read; absent where none was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        read_message_id: Option<MessageId>,
    }
    /// What the caller has not read of a session.
    UnreadPayload {
        /// As it is now.
        unread: Unread,
    }
}
