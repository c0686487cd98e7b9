//! The one error shape of the wire and its codes (docs/protocol.md, "Errors").

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:literal;)*) => {
        /// What went wrong, for programs. A code is never renamed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The code as it stands on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The HTTP status that goes with it (RFC 9110; 499 is nginx's "client closed request").
            pub fn http_status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }
        }
    };
}

error_codes! {
    /// The request is not well formed; nothing happened.
    InvalidRequest = "INVALID_REQUEST", 400;
    /// No operation has that name.
    UnknownOperation = "UNKNOWN_OPERATION", 400;
    /// A long-lived token stood in a URL.
    TokenInUrl = "TOKEN_IN_URL", 400;
    /// No valid credentials.
    Unauthenticated = "UNAUTHENTICATED", 401;
    /// The access token's time is over: refresh it.
    TokenExpired = "TOKEN_EXPIRED", 401;
    /// The caller may see the thing and may not do this to it.
    Forbidden = "FORBIDDEN", 403;
    /// It does not exist, or the caller may not know that it does.
    NotFound = "NOT_FOUND", 404;
    /// The route exists with other methods.
    MethodNotAllowed = "METHOD_NOT_ALLOWED", 405;
    /// The state of the thing does not allow this now.
    Conflict = "CONFLICT", 409;
    /// Somebody changed it since the caller read it.
    VersionConflict = "VERSION_CONFLICT", 409;
    /// It was there and its time is over.
    Gone = "GONE", 410;
    /// Larger than the limit.
    PayloadTooLarge = "PAYLOAD_TOO_LARGE", 413;
    /// The body is not of the type that the route takes.
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE", 415;
    /// The `Host` header names a host that the server is not.
    BadHost = "BAD_HOST", 421;
    /// The idempotency key was used with another body.
    IdempotencyConflict = "IDEMPOTENCY_CONFLICT", 422;
    /// Somebody holds a lock on it.
    Locked = "LOCKED", 423;
    /// Too many requests.
    RateLimited = "RATE_LIMITED", 429;
    /// A quota is used up.
    QuotaExceeded = "QUOTA_EXCEEDED", 429;
    /// A spending limit is reached.
    BudgetExceeded = "BUDGET_EXCEEDED", 402;
    /// The caller abandoned the request.
    Cancelled = "CANCELLED", 499;
    /// Our fault; the log has the request id.
    Internal = "INTERNAL", 500;
    /// The model's provider failed.
    ProviderError = "PROVIDER_ERROR", 502;
    /// No such model or provider is configured.
    ModelUnavailable = "MODEL_UNAVAILABLE", 502;
    /// Too busy to take it now.
    Overloaded = "OVERLOADED", 503;
    /// The server is stopping.
    ShuttingDown = "SHUTTING_DOWN", 503;
    /// The project's database is damaged and closed.
    ProjectCorrupt = "PROJECT_CORRUPT", 503;
    /// Writing is not possible now.
    ReadOnly = "READ_ONLY", 503;
    /// The sandbox that the tool needs is missing.
    SandboxUnavailable = "SANDBOX_UNAVAILABLE", 503;
    /// The request's deadline passed.
    DeadlineExceeded = "DEADLINE_EXCEEDED", 504;
    /// The disk is full.
    StorageFull = "STORAGE_FULL", 507;
}

impl ErrorCode {
    /// Whether the same request may succeed later without a change.
    pub fn is_retryable(self) -> bool {
        match self {
            Self::RateLimited
            | Self::Overloaded
            | Self::ShuttingDown
            | Self::ProviderError
            | Self::DeadlineExceeded
            | Self::Locked => true,
            Self::InvalidRequest
            | Self::UnknownOperation
            | Self::TokenInUrl
            | Self::Unauthenticated
            | Self::TokenExpired
            | Self::Forbidden
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::Conflict
            | Self::VersionConflict
            | Self::Gone
            | Self::PayloadTooLarge
            | Self::UnsupportedMediaType
            | Self::BadHost
            | Self::IdempotencyConflict
            | Self::QuotaExceeded
            | Self::BudgetExceeded
            | Self::Cancelled
            | Self::Internal
            | Self::ModelUnavailable
            | Self::ProjectCorrupt
            | Self::ReadOnly
            | Self::SandboxUnavailable
            | Self::StorageFull => false,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error as a client sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{code}: {message}")]
pub struct ApiError {
    /// For programs.
    pub code: ErrorCode,
    /// One sentence for people.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// How long to wait before that, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// Finds the request in the server's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Finer facts; `reason` in lower snake case.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub details: Map<String, Value>,
}

impl ApiError {
    /// An error with a code and a sentence for people.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retryable: code.is_retryable(),
            retry_after_ms: None,
            request_id: None,
            details: Map::new(),
        }
    }

    /// Adds `details.reason`, lower snake case.
    #[must_use]
    pub fn reason(self, reason: &str) -> Self {
        self.detail("reason", reason)
    }

    /// Adds one detail.
    #[must_use]
    pub fn detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }

    /// Says how long to wait before trying again, in milliseconds.
    #[must_use]
    pub fn retry_after(mut self, delay_ms: u64) -> Self {
        self.retryable = true;
        self.retry_after_ms = Some(delay_ms);
        self
    }

    /// The answer for a thing that is not there or that the caller may not know of.
    pub fn not_found(what: &str) -> Self {
        Self::new(ErrorCode::NotFound, format!("{what} not found"))
    }

    /// The answer for a request that is not well formed.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }
}
