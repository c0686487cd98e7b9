//! What is recorded of what a session's model providers are asked and answer, while somebody debugs it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CaptureId, MessageId, ModelRef, RunId, SessionId, UserId};

/// Of a session that is being recorded: what goes to its model providers and comes back is kept for the
/// administrators of its project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capturing {
    /// The session that was asked for: this one, or one above it.
    pub session_id: SessionId,
    /// Who wants it.
    pub by: UserId,
    /// Milliseconds since 1970 UTC.
    pub since: i64,
    /// When it ends by itself; milliseconds since 1970 UTC.
    pub until: i64,
}

/// Why a capture ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CaptureEnd {
    /// Somebody ended it.
    Stopped,
    /// Its time was over.
    Expired,
}

/// What a provider was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CapturePurpose {
    /// The answer of an agent.
    Answer,
    /// A summary of the conversation.
    Summary,
    /// A title for the session.
    Title,
}

/// How a captured exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CaptureOutcome {
    /// The answer was whole.
    Complete,
    /// There was no answer, or not a whole one.
    Failed,
    /// Nobody waited for it any more.
    Abandoned,
}

payloads! {
    /// Begins to record what a session and its sub-agents ask model providers, or makes it last longer. Where
    /// neither `minutes` nor `expiresAt` is there, it lasts an hour.
    CaptureStart {
        /// The session; none of a sub-agent, which is recorded with the one above it.
        session_id: SessionId,
        /// How long, from now on: 1 to 1440.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 1440))]
        minutes: Option<u32>,
        /// In place of `minutes`: until when, at most a day from now. Milliseconds since 1970 UTC.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<i64>,
        /// Most bytes that are kept, 8 MiB to 64 MiB; beyond them the oldest records go. 16 MiB when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 8_388_608, max = 67_108_864))]
        bytes_max: Option<u64>,
    }
    /// Ends the recording of a session.
    CaptureStop {
        /// The session.
        session_id: SessionId,
        /// Whether what was recorded is deleted too; kept when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        discard: Option<bool>,
    }
    /// Lists what was recorded of a session and its sub-agents, newest first.
    CaptureList {
        /// The session.
        session_id: SessionId,
        /// At most 200; 50 when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
        /// `nextCursor` of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    }
    /// Reads one recorded request with its response.
    CaptureRead {
        /// The session.
        session_id: SessionId,
        /// The record.
        capture_id: CaptureId,
    }
    /// The recording of a session.
    Capture {
        /// The session.
        session_id: SessionId,
        /// Who wanted it last.
        by: UserId,
        /// Milliseconds since 1970 UTC.
        since: i64,
        /// When it ends by itself; milliseconds since 1970 UTC.
        until: i64,
        /// When it ended; absent while it goes on. Milliseconds since 1970 UTC.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ended_at: Option<i64>,
        /// Most bytes that are kept.
        bytes_max: u64,
        /// Records that are kept.
        records: u64,
        /// Their bytes.
        bytes: u64,
        /// Records that had to make room for newer ones.
        dropped: u64,
    }
    /// A recording.
    CapturePayload {
        /// As it is now.
        capture: Capture,
    }
    /// What was recorded.
    CapturePage {
        /// The recording.
        capture: Capture,
        /// Newest first.
        records: Vec<CaptureRecord>,
        /// For the next page; null on the last.
        next_cursor: Option<String>,
        /// Whether there is a next page.
        has_more: bool,
    }
    /// One request to a provider and what came of it. Each attempt is one of its own.
    CaptureRecord {
        /// The record.
        id: CaptureId,
        /// The session that asked: the recorded one, or that of a sub-agent.
        session_id: SessionId,
        /// The run for which it was asked.
        run_id: RunId,
        /// The answer that it was to become, or to become a part of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message_id: Option<MessageId>,
        /// What for.
        purpose: CapturePurpose,
        /// Which request of the run it is in this life of its orchestrator, from 1.
        number: u64,
        /// Which attempt in a row it is of that step, from 1.
        attempt: u32,
        /// Who was asked.
        model: ModelRef,
        /// When it was sent; milliseconds since 1970 UTC.
        at: i64,
        /// The HTTP status of the answer; absent where none came.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// How it ended.
        outcome: CaptureOutcome,
        /// What went wrong, as the run was told it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// How long until the head of the answer came, in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        head_ms: Option<u64>,
        /// How long until the first byte of its body came, in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        first_byte_ms: Option<u64>,
        /// How long it took in all, in milliseconds.
        duration_ms: u64,
        /// Bytes of the body that was sent.
        request_bytes: u64,
        /// Bytes of the body that came.
        response_bytes: u64,
    }
    /// A header that says nothing of keys.
    CapturedHeader {
        /// Lower case.
        name: String,
        /// Its value.
        value: String,
    }
    /// When bytes of a body came.
    CapturedChunk {
        /// Since the request was sent, in milliseconds.
        at_ms: u64,
        /// How many bytes came.
        bytes: u64,
    }
    /// A request to a provider and its response. Secrets that are known stand in neither, unless a provider sent one in
    /// more than two pieces.
    CapturedExchange {
        /// What is listed of it.
        record: CaptureRecord,
        /// Where the request went.
        url: String,
        /// Its body, as it was sent.
        request: String,
        /// Whether that is only its beginning.
        request_truncated: bool,
        /// Some headers of the answer.
        response_headers: Vec<CapturedHeader>,
        /// The body of the answer, as it came.
        response: String,
        /// Whether that is only its beginning.
        response_truncated: bool,
        /// When the pieces of the answer came, in order.
        chunks: Vec<CapturedChunk>,
    }
}
