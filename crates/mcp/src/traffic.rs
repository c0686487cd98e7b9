//! What passes between the server and us, counted; shared by a transport and whoever looks at it.

use std::collections::VecDeque;
use std::sync::OnceLock;

use parking_lot::Mutex;
use rmcp::model::{
    ClientJsonRpcMessage, JsonRpcMessage, RequestId, ServerJsonRpcMessage, ServerRequest,
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::correlation::{Admission, Correlation};
use crate::error::McpError;

/// How much of the end of what a program writes to its standard error is kept, in bytes.
const ERRORS_BYTES_MAX: usize = 8 * 1024;
/// So many messages in a row that are none end the connection.
const GARBAGE_IN_A_ROW_MAX: u64 = 1000;
/// So many messages that are too long end the connection.
const TOO_LONG_MAX: u64 = 8;

/// What a server did that it should not have, since the connection began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// What it sent that is no message.
    pub garbage: u64,
    /// Messages that were longer than is taken.
    pub too_long: u64,
    /// Answers to what nobody asked.
    pub unknown_answers: u64,
    /// Second answers, and answers that came too late.
    pub repeated_answers: u64,
    /// Requests for what is not granted to servers, or too many at once.
    pub refused_requests: u64,
}

/// What is known of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What went wrong in small things.
    pub counts: Counts,
    /// The end of what the program wrote to its standard error, as it came.
    pub errors: Vec<u8>,
    /// How the connection ended; none while it has not.
    pub end: Option<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Traffic {
    state: Mutex<State>,
    end: OnceLock<End>,
    pub(crate) ended: CancellationToken,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The server has forgotten the session.
    SessionLost,
    /// The server does not believe who asks; the status, and what it wants instead.
    Unauthorized(u16, Option<String>),
    /// In another way.
    Other(String),
}

impl End {
    /// As an error for whoever waits.
    pub(crate) fn error(&self) -> McpError {
        match self {
            Self::SessionLost => McpError::SessionLost,
            Self::Unauthorized(status, challenge) => {
                McpError::Unauthorized { status: *status, challenge: challenge.clone() }
            }
            Self::Other(reason) => McpError::Closed { reason: reason.clone() },
        }
    }
}

#[derive(Debug, Default)]
struct State {
    correlation: Correlation,
    counts: Counts,
    garbage_in_a_row: u64,
    errors: VecDeque<u8>,
}

impl Traffic {
    /// A message is about to be sent.
    pub(crate) fn sent(&self, message: &ClientJsonRpcMessage) {
        self.state.lock().correlation.sent(message);
    }

    /// A message came whole. Gives it if it is one that somebody waits for.
    pub(crate) fn came(&self, bytes: &[u8]) -> Option<ServerJsonRpcMessage> {
        let Ok(message) = serde_json::from_slice::<ServerJsonRpcMessage>(bytes) else {
            // A line with nothing in it says nothing.
            if !bytes.trim_ascii().is_empty() {
                self.garbage();
            }
            return None;
        };
        self.admitted(message)
    }

    /// The same for a message that was read already.
    pub(crate) fn admitted(&self, message: ServerJsonRpcMessage) -> Option<ServerJsonRpcMessage> {
        let mut state = self.state.lock();
        state.garbage_in_a_row = 0;
        match state.correlation.came(&message) {
            Admission::Taken => {
                if let JsonRpcMessage::Request(request) = &message
                    && !is_granted(&request.request)
                {
                    state.counts.refused_requests += 1;
                }
                return Some(message);
            }
            Admission::Unknown => state.counts.unknown_answers += 1,
            Admission::Repeated => state.counts.repeated_answers += 1,
            Admission::Surplus => state.counts.refused_requests += 1,
        }
        None
    }

    /// Something came that is no message.
    pub(crate) fn garbage(&self) {
        let mut state = self.state.lock();
        state.counts.garbage += 1;
        state.garbage_in_a_row += 1;
        let is_too_much = state.garbage_in_a_row > GARBAGE_IN_A_ROW_MAX;
        drop(state);
        if is_too_much {
            self.end("it writes what is no message");
        }
    }

    /// A message came that is longer than is taken.
    pub(crate) fn too_long(&self) {
        let mut state = self.state.lock();
        state.counts.too_long += 1;
        let is_too_much = state.counts.too_long > TOO_LONG_MAX;
        drop(state);
        if is_too_much {
            self.end("its messages are too long");
        }
    }

    /// Whether `id` is a request of ours that waits.
    pub(crate) fn waits_for(&self, id: &RequestId) -> bool {
        self.state.lock().correlation.waits_for(id)
    }

    /// Waits no longer for the answer to `id`. Tells whether it did.
    pub(crate) fn gives_up(&self, id: &RequestId) -> bool {
        self.state.lock().correlation.end(id)
    }

    /// The program wrote to its standard error.
    pub(crate) fn errors(&self, bytes: &[u8]) {
        let kept = bytes.get(bytes.len().saturating_sub(ERRORS_BYTES_MAX)..).unwrap_or_default();
        let errors = &mut self.state.lock().errors;
        let surplus = (errors.len() + kept.len()).saturating_sub(ERRORS_BYTES_MAX);
        errors.drain(..surplus);
        errors.extend(kept);
    }

    /// The connection is over; the first reason counts.
    pub(crate) fn end(&self, reason: &str) {
        self.end_as(End::Other(reason.to_owned()));
    }

    /// The same where it matters how.
    pub(crate) fn end_as(&self, end: End) {
        drop(self.end.set(end));
        self.ended.cancel();
    }

    /// Why it is over.
    pub(crate) fn error(&self) -> McpError {
        let unknown = || End::Other("the connection ended".to_owned());
        self.end.get().cloned().unwrap_or_else(unknown).error()
    }

    pub(crate) fn report(&self) -> Report {
        let state = self.state.lock();
        let errors = state.errors.iter().copied().collect();
        Report {
            counts: state.counts,
            errors,
            end: self.end.get().map(|it| it.error().to_string()),
        }
    }
}

/// What servers may ask: whether we are there, and people something. Who answers decides about the latter.
fn is_granted(request: &ServerRequest) -> bool {
    matches!(request, ServerRequest::PingRequest(_) | ServerRequest::ElicitRequest(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m3_endless_garbage_ends_the_connection_and_some_does_not() {
        let traffic = Traffic::default();
        for _ in 0..GARBAGE_IN_A_ROW_MAX {
            assert!(traffic.came(b"Starting...").is_none());
        }
        assert!(traffic.came(br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).is_some());
        for _ in 0..GARBAGE_IN_A_ROW_MAX {
            assert!(traffic.came(b"{\"almost\": json").is_none());
        }
        assert!(!traffic.ended.is_cancelled());
        traffic.garbage();
        assert_eq!(
            traffic.report().end.as_deref(),
            Some("the server is gone: it writes what is no message")
        );
        assert_eq!(traffic.report().counts.garbage, 2 * GARBAGE_IN_A_ROW_MAX + 1);
    }

    #[test]
    fn m4_sampling_and_roots_are_counted_as_refused() {
        let traffic = Traffic::default();
        for (id, method) in ["roots/list", "sampling/createMessage", "ping"].iter().enumerate() {
            let params = serde_json::json!({"messages": [], "maxTokens": 1});
            let request = serde_json::json!({"jsonrpc": "2.0", "id": id, "method": method,
                "params": params});
            assert!(traffic.came(request.to_string().as_bytes()).is_some(), "{method}");
        }
        assert_eq!(traffic.report().counts.refused_requests, 2);
    }

    #[test]
    fn the_end_of_the_errors_is_kept_within_bounds() {
        let traffic = Traffic::default();
        for _ in 0..100 {
            traffic.errors(&[b'x'; 1000]);
        }
        traffic.errors(b"last");
        let errors = traffic.report().errors;
        assert!(errors.len() == ERRORS_BYTES_MAX && errors.ends_with(b"xlast"));
        traffic.errors(&vec![b'y'; 3 * ERRORS_BYTES_MAX]);
        assert_eq!(traffic.report().errors, vec![b'y'; ERRORS_BYTES_MAX]);
    }
}
