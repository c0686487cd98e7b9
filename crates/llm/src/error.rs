//! How asking a model fails, in classes that a caller treats differently.

use iris_protocol::ErrorCode;
use serde::Serialize;

/// Why there is no whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
#[serde(rename_all = "camelCase")]
pub struct ModelError {
    /// What can be done about it.
    pub class: ErrorClass,
    /// One sentence for people, without secrets; quotes at most 200 bytes of what the provider said.
    pub message: String,
    /// The provider's HTTP status, or the one that it named inside the stream.
    pub status: Option<u16>,
    /// How long the provider wants us to wait, in milliseconds; as it said, so not bounded.
    pub retry_after_ms: Option<u64>,
    /// Whether the provider says itself that asking again is, or is not, of use.
    pub should_retry: Option<bool>,
    /// The provider's own id of the request.
    pub request_id: Option<String>,
    /// Whether the provider was not asked at all, because it is left alone for a while.
    #[serde(skip)]
    pub is_not_asked: bool,
}

impl ModelError {
    /// An error that only has a class and a sentence.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            status: None,
            retry_after_ms: None,
            should_retry: None,
            request_id: None,
            is_not_asked: false,
        }
    }

    /// The error of a stream that ended before the provider's terminal marker.
    pub fn truncated() -> Self {
        Self::new(ErrorClass::Transient, "the provider's stream ended before the answer was whole")
    }

    /// Whether the same request may succeed later: the provider's own word is a no where it says no, but
    /// its yes does not make a wrong request right.
    pub fn is_retryable(&self) -> bool {
        self.class.is_retryable() && self.should_retry != Some(false)
    }

    /// The code on the wire; the class belongs into `details.reason`.
    pub fn code(&self) -> ErrorCode {
        self.class.code()
    }
}

/// What kind of failure it is, and so whether it is worth trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// Too many requests or tokens; wait as told.
    RateLimited,
    /// The provider is too busy; wait, or ask another model.
    Overloaded,
    /// The network, a timeout, a cut stream, an internal error of the provider.
    Transient,
    /// The provider answered, and the model made nothing of it that could be used: it may the next time.
    BadAnswer,
    /// Money or a quota is used up: people have to act.
    Quota,
    /// The provider refused our credentials.
    Auth,
    /// The prompt is larger than the model's window: make it smaller.
    ContextOverflow,
    /// The request is wrong.
    Invalid,
    /// The provider refused to answer that.
    ContentFilter,
    /// What came back is not the provider's protocol, or passes a limit.
    Protocol,
}

impl ErrorClass {
    /// Every class.
    pub const ALL: &[Self] = &[
        Self::RateLimited,
        Self::Overloaded,
        Self::Transient,
        Self::BadAnswer,
        Self::Quota,
        Self::Auth,
        Self::ContextOverflow,
        Self::Invalid,
        Self::ContentFilter,
        Self::Protocol,
    ];

    /// The class in lower snake case, as it stands in `details.reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::Transient => "transient",
            Self::BadAnswer => "bad_answer",
            Self::Quota => "quota",
            Self::Auth => "auth",
            Self::ContextOverflow => "context_overflow",
            Self::Invalid => "invalid",
            Self::ContentFilter => "content_filter",
            Self::Protocol => "protocol",
        }
    }

    /// The code on the wire: whatever the class, it is the provider that failed, not the client.
    pub fn code(self) -> ErrorCode {
        ErrorCode::ProviderError
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(self) -> bool {
        match self {
            Self::RateLimited | Self::Overloaded | Self::Transient | Self::BadAnswer => true,
            Self::Quota
            | Self::Auth
            | Self::ContextOverflow
            | Self::Invalid
            | Self::ContentFilter
            | Self::Protocol => false,
        }
    }
}
