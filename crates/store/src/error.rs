//! What can go wrong with a database.

use std::error::Error;
use std::sync::Arc;

use iris_protocol::{ApiError, ErrorCode, FileLock};
use rusqlite::ffi;

/// Why a command or a query has no result.
///
/// Cheap to clone, because all commands of a batch share the fate of their commit.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The thing is not there.
    #[error("{what} not found")]
    NotFound {
        /// A noun for people: `session`, `approval`.
        what: &'static str,
    },
    /// The state of the thing does not allow this now.
    #[error("{message}")]
    Conflict {
        /// Lower snake case, for programs.
        reason: &'static str,
        /// One sentence for people.
        message: String,
    },
    /// Somebody changed it since the caller read it.
    #[error("it was changed since it was read")]
    VersionConflict,
    /// Somebody else has a lock on it.
    #[error("`{}` is locked by `{}`", lock.path, lock.owner_id)]
    Locked {
        /// Theirs.
        lock: Box<FileLock>,
    },
    /// The idempotency key was used before with another body.
    #[error("the idempotency key was used with another request")]
    IdempotencyConflict,
    /// It was there and its time is over.
    #[error("{what} is over")]
    Gone {
        /// A noun for people: `approval`.
        what: &'static str,
    },
    /// A page cursor that no page gave out.
    #[error("invalid cursor `{cursor}`")]
    InvalidCursor {
        /// As it was given.
        cursor: String,
    },
    /// Nothing can be looked for with this.
    #[error("{problem}")]
    InvalidQuery {
        /// One sentence for people.
        problem: String,
    },
    /// The project would hold more than it may.
    #[error("the project holds `{used}` of at most `{limit}` ({reason})")]
    QuotaExceeded {
        /// Lower snake case, for programs: which quota.
        reason: &'static str,
        /// The most that it may hold.
        limit: u64,
        /// What it holds now.
        used: u64,
    },
    /// A large value is not what it was when it was stored. The rest of the database is not concerned.
    #[error("the blob `{hash}` is damaged")]
    BlobCorrupt {
        /// What its SHA-256 should be, 64 hex digits.
        hash: String,
    },
    /// Too many commands wait already, or the system has no thread left to write; nothing was done.
    #[error("too many writes are waiting")]
    Overloaded,
    /// The file is not the database that it should be. It was left as it is.
    #[error("the database is not usable: {reason}")]
    Corrupt {
        /// What is wrong with it, for the log.
        reason: String,
    },
    /// A newer version of the server wrote the file. It was left as it is.
    #[error("the database has schema version {found}, this server knows {known}")]
    Newer {
        /// The version of the file.
        found: i64,
        /// The newest version that this server knows.
        known: i64,
    },
    /// The disk is full.
    #[error("the disk is full")]
    StorageFull,
    /// The writer has stopped.
    #[error("the database is closed")]
    Closed,
    /// Anything that no caller can act on.
    #[error("the database failed")]
    Internal {
        /// What happened, for the log.
        source: Arc<dyn Error + Send + Sync>,
    },
}

impl StoreError {
    /// A conflict with a reason for programs and a sentence for people.
    pub fn conflict(reason: &'static str, message: impl Into<String>) -> Self {
        Self::Conflict { reason, message: message.into() }
    }

    /// A failure that no caller can act on.
    pub fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Internal { source: Arc::from(source.into()) }
    }

    /// A file that is not the database that it should be.
    pub(crate) fn corrupt(reason: impl Into<String>) -> Self {
        Self::Corrupt { reason: reason.into() }
    }

    /// The code of the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound { .. } => ErrorCode::NotFound,
            Self::Conflict { .. } => ErrorCode::Conflict,
            Self::VersionConflict => ErrorCode::VersionConflict,
            Self::Locked { .. } => ErrorCode::Locked,
            Self::IdempotencyConflict => ErrorCode::IdempotencyConflict,
            Self::Gone { .. } => ErrorCode::Gone,
            Self::InvalidCursor { .. } | Self::InvalidQuery { .. } => ErrorCode::InvalidRequest,
            Self::QuotaExceeded { .. } => ErrorCode::QuotaExceeded,
            // Its owner is on its way out or back in: whoever tries again finds it open.
            Self::Overloaded | Self::Closed => ErrorCode::Overloaded,
            Self::Corrupt { .. } | Self::Newer { .. } | Self::BlobCorrupt { .. } => {
                ErrorCode::ProjectCorrupt
            }
            Self::StorageFull => ErrorCode::StorageFull,
            Self::Internal { .. } => ErrorCode::Internal,
        }
    }

    /// The error as a client may see it: a sentence without internals, and a reason where there is one.
    pub fn to_api(&self) -> ApiError {
        let error = ApiError::new(self.code(), self.public_message());
        match self {
            Self::Conflict { reason, .. } => error.reason(reason),
            Self::InvalidCursor { .. } => error.reason("invalid_cursor"),
            Self::InvalidQuery { .. } => error.reason("invalid_query"),
            Self::QuotaExceeded { reason, limit, used } => {
                error.reason(reason).detail("limit", *limit).detail("used", *used)
            }
            Self::BlobCorrupt { hash } => {
                error.reason("blob_corrupt").detail("hash", hash.as_str())
            }
            Self::Newer { .. } => error.reason("newer_schema"),
            Self::Locked { lock } => error
                .reason("locked")
                .detail("path", lock.path.as_str())
                .detail("ownerId", lock.owner_id.as_str())
                .detail("expiresAt", lock.expires_at),
            Self::Closed => error.reason("database_closed"),
            Self::NotFound { .. }
            | Self::VersionConflict
            | Self::IdempotencyConflict
            | Self::Gone { .. }
            | Self::Overloaded
            | Self::Corrupt { .. }
            | Self::StorageFull
            | Self::Internal { .. } => error,
        }
    }

    fn public_message(&self) -> String {
        match self {
            Self::Corrupt { .. } => "the database is damaged and closed".to_owned(),
            Self::BlobCorrupt { .. } => "a large value in the database is damaged".to_owned(),
            Self::Newer { .. } => "the database is of a newer version of the server".to_owned(),
            Self::Internal { .. } => "the server could not do this".to_owned(),
            Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::VersionConflict
            | Self::Locked { .. }
            | Self::IdempotencyConflict
            | Self::Gone { .. }
            | Self::InvalidCursor { .. }
            | Self::InvalidQuery { .. }
            | Self::QuotaExceeded { .. }
            | Self::Overloaded
            | Self::StorageFull
            | Self::Closed => self.to_string(),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ffi::ErrorCode::DiskFull) => Self::StorageFull,
            Some(ffi::ErrorCode::DatabaseCorrupt | ffi::ErrorCode::NotADatabase) => {
                Self::corrupt(error.to_string())
            }
            Some(_) | None => Self::internal(error),
        }
    }
}

impl From<rusqlite_migration::Error> for StoreError {
    fn from(error: rusqlite_migration::Error) -> Self {
        Self::internal(error)
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(error)
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::StorageFull {
            return Self::StorageFull;
        }
        Self::internal(error)
    }
}

impl From<r2d2::Error> for StoreError {
    fn from(error: r2d2::Error) -> Self {
        Self::internal(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_internal_error_tells_a_client_nothing() {
        let error = StoreError::internal("no such table: secrets");
        assert!(!error.to_api().message.contains("secrets"));
        assert!(Error::source(&error).unwrap().to_string().contains("secrets"));
        let error = StoreError::corrupt("/srv/iris/prj_1.db is empty");
        assert!(!error.to_api().message.contains("/srv"));
    }

    #[test]
    fn a_conflict_carries_its_reason() {
        let error = StoreError::conflict("session_busy", "the session is busy").to_api();
        assert_eq!(
            error,
            ApiError::new(ErrorCode::Conflict, "the session is busy").reason("session_busy")
        );
    }
}
