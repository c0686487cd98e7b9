//! What can go wrong between a client and a server.

use iris_protocol::{ApiError, ErrorCode};

/// Close code of a connection that ended without a close frame (RFC 6455, section 7.1.5).
pub(crate) const CLOSED_ABNORMALLY: u16 = 1006;

/// A request, a connection or a followed session that failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server answered with an error.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The socket is closed; 1006 when the connection was lost without a close frame.
    #[error("connection closed with code `{code}`: {reason}")]
    Closed {
        /// The close code.
        code: u16,
        /// The server's words, or what broke the connection; may be empty.
        reason: String,
    },
    /// The server could not be reached, or the connection broke during a request.
    #[error("no connection to the server")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server, or the caller, said something that is not of this protocol.
    #[error("protocol: {0}")]
    Protocol(String),
    /// No answer in time. A command may have had its effect.
    #[error("no answer in time")]
    Timeout,
}

impl ClientError {
    /// The code that describes the failure best.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Api(error) => error.code,
            Self::Closed { code: 4401 | 4402, .. } => ErrorCode::Unauthenticated,
            Self::Closed { code: 4403, .. } => ErrorCode::Forbidden,
            Self::Closed { code: 4029 | 4409, .. } => ErrorCode::RateLimited,
            Self::Closed { code: 1012, .. } => ErrorCode::ShuttingDown,
            Self::Closed { .. } | Self::Transport(_) => ErrorCode::Overloaded,
            Self::Protocol(_) => ErrorCode::Internal,
            Self::Timeout => ErrorCode::DeadlineExceeded,
        }
    }

    pub(crate) fn protocol(what: &str, source: impl std::fmt::Display) -> Self {
        Self::Protocol(format!("{what}: {source}"))
    }
}

impl From<reqwest::Error> for ClientError {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() { Self::Timeout } else { Self::Transport(Box::new(error)) }
    }
}
