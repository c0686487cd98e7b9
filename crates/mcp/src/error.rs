//! Why something with a server failed.

use std::time::Duration;

use iris_egress::EgressError;
use iris_sandbox::SandboxError;

use crate::oauth::OauthError;
use crate::traffic::Report;

/// Why a server could not be reached, or did not answer. What a tool of it does wrong is an answer.
#[derive(Debug, thiserror::Error)]
pub enum McpError {
    /// The program did not start.
    #[error("the server could not be started: {0}")]
    Sandbox(#[from] SandboxError),
    /// The place could not be reached.
    #[error("the server could not be reached: {0}")]
    Egress(#[from] EgressError),
    /// The server wants to know who asks, or does not believe it.
    #[error("the server wants {}", if *.status == 401 { "an authorization" } else { "more than its authorization allows" })]
    Unauthorized {
        /// 401; 403 where what it was shown is not enough, which is about one request and not the connection
        /// once that stands.
        status: u16,
        /// Its `WWW-Authenticate` header, if there was one.
        challenge: Option<String>,
    },
    /// There is an authorization that is good no more. Nothing was asked.
    #[error("its authorization is good no more: {reason}")]
    Expired {
        /// Why.
        reason: String,
    },
    /// The authorization could not be renewed this time.
    #[error("its authorization could not be renewed: {0}")]
    NotRenewed(#[from] OauthError),
    /// The server answered over HTTP with a status that is no answer.
    #[error("the server answered with the HTTP status {status}")]
    Status {
        /// Such as 500.
        status: u16,
    },
    /// The server has forgotten the session; a new one may be begun. Nothing was done.
    #[error("the server has ended the session")]
    SessionLost,
    /// The connection is over.
    #[error("the server is gone: {reason}")]
    Closed {
        /// How it ended.
        reason: String,
    },
    /// No answer in time.
    #[error("the server did not answer within {} s", .limit.as_secs_f32())]
    TimedOut {
        /// What was allowed.
        limit: Duration,
    },
    /// The server refused the request.
    #[error("the server refused: {message}")]
    Refused {
        /// What it said, bounded.
        message: String,
    },
    /// What the server answered is not what was asked for.
    #[error("the server answered with something else than {expected}")]
    Malformed {
        /// What it should have been.
        expected: &'static str,
    },
    /// The server answered with more than is taken.
    #[error("the server has more than {most} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much is taken.
        most: usize,
    },
    /// A definition of a tool that cannot be used.
    #[error("the tool `{tool}` cannot be used: {problem}")]
    BadTool {
        /// Its name, or the beginning of it.
        tool: String,
        /// What is wrong.
        problem: String,
    },
}

/// Why there is no connection, and what the server said meanwhile.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct NotOpened {
    /// Why.
    #[source]
    pub error: McpError,
    /// What was heard of it.
    pub report: Report,
}

/// Longest text of a server that is repeated in an error, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// The beginning of what a server said.
pub(crate) fn bounded(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    text.get(..end).unwrap_or_default().to_owned()
}
