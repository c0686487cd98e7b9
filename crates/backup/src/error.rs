//! What can go wrong with an archive.

use std::io;
use std::path::{Path, PathBuf};

use iris_protocol::{ApiError, ErrorCode};
use iris_store::StoreError;

/// Why an archive was not made, not believed or not put in place.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The archive is damaged, incomplete or not one of ours. Nothing of it was used.
    #[error("the archive is not usable: {reason}")]
    Corrupt {
        /// What is wrong with it.
        reason: String,
    },
    /// A newer version of the server made the archive.
    #[error("the archive has {what} {found}, this server knows {known}")]
    Newer {
        /// What is newer: the format or the schema.
        what: &'static str,
        /// The version of the archive.
        found: i64,
        /// The newest version that this server knows.
        known: i64,
    },
    /// There is more in it than may be.
    #[error("the archive has more than {max} {what}")]
    TooLarge {
        /// Of what: bytes, files.
        what: &'static str,
        /// How many may be.
        max: u64,
    },
    /// Something is where the new thing belongs; it was left as it is.
    #[error("`{}` exists already", path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// What was asked for is not there.
    #[error("`{}` does not exist", path.display())]
    NotFound {
        /// What.
        path: PathBuf,
    },
    /// The project was put back to a backup each time while it was read.
    #[error("the project was put back to a backup meanwhile: try again")]
    Replaced,
    /// The master key of the server was changed more than once while it was copied.
    #[error("the master key was changed more than once meanwhile: try again")]
    KeysChanged,
    /// A project was not replaced, but its files elsewhere were before that.
    #[error("{cause}; files were replaced before that, and those that were there are kept in `{}`", files.display())]
    FilesKept {
        /// Where those are that were replaced.
        files: PathBuf,
        /// Why the rest was not.
        cause: Box<BackupError>,
    },
    /// The disk is full. What was begun is gone again.
    #[error("the disk is full")]
    StorageFull,
    /// The database of the project that was to be archived.
    #[error(transparent)]
    Database(StoreError),
    /// The disk, or what lies on it, failed.
    #[error("`{}`: {source}", path.display())]
    Io {
        /// What was worked on.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl BackupError {
    /// An archive that is not what it should be.
    pub(crate) fn corrupt(reason: impl Into<String>) -> Self {
        Self::Corrupt { reason: reason.into() }
    }

    /// A failure of the disk while `path` was worked on.
    pub(crate) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| {
            let kind = source.kind();
            if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                return Self::StorageFull;
            }
            if kind == io::ErrorKind::NotFound {
                return Self::NotFound { path: path.clone() };
            }
            Self::Io { path: path.clone(), source }
        }
    }

    /// A failure of a database that an archive brought with it.
    pub(crate) fn of_archived(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt { reason } => Self::Corrupt { reason },
            StoreError::Newer { found, known } => {
                Self::Newer { what: "schema version", found, known }
            }
            StoreError::BlobCorrupt { .. } => Self::Corrupt { reason: error.to_string() },
            StoreError::StorageFull => Self::StorageFull,
            StoreError::NotFound { .. }
            | StoreError::Conflict { .. }
            | StoreError::VersionConflict
            | StoreError::Locked { .. }
            | StoreError::IdempotencyConflict
            | StoreError::Gone { .. }
            | StoreError::InvalidCursor { .. }
            | StoreError::InvalidQuery { .. }
            | StoreError::QuotaExceeded { .. }
            | StoreError::Overloaded
            | StoreError::Closed
            | StoreError::Internal { .. } => Self::Database(error),
        }
    }

    /// A failure of a database that is to be archived.
    pub(crate) fn of_source(error: StoreError) -> Self {
        if matches!(error, StoreError::StorageFull) {
            Self::StorageFull
        } else {
            Self::Database(error)
        }
    }

    /// The code of the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Corrupt { .. } | Self::Newer { .. } => ErrorCode::InvalidRequest,
            Self::TooLarge { .. } => ErrorCode::PayloadTooLarge,
            Self::Exists { .. } => ErrorCode::Conflict,
            Self::NotFound { .. } => ErrorCode::NotFound,
            Self::Replaced | Self::KeysChanged => ErrorCode::Overloaded,
            Self::FilesKept { cause, .. } => cause.code(),
            Self::StorageFull => ErrorCode::StorageFull,
            Self::Database(error) => error.code(),
            Self::Io { .. } => ErrorCode::Internal,
        }
    }

    /// Lower snake case, for programs; `None` where the code says it all.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Corrupt { .. } => Some("archive_corrupt"),
            Self::Newer { .. } => Some("archive_newer"),
            Self::TooLarge { .. } => Some("archive_too_large"),
            Self::Exists { .. } => Some("archive_exists"),
            Self::FilesKept { cause, .. } => cause.reason(),
            Self::NotFound { .. }
            | Self::Replaced
            | Self::KeysChanged
            | Self::StorageFull
            | Self::Database(_)
            | Self::Io { .. } => None,
        }
    }

    /// The error as a client may see it: a sentence without paths of the server.
    pub fn to_api(&self) -> ApiError {
        let message = match self {
            Self::Corrupt { .. }
            | Self::Newer { .. }
            | Self::TooLarge { .. }
            | Self::Replaced
            | Self::KeysChanged
            | Self::StorageFull => self.to_string(),
            Self::Exists { .. } => "there is one already".to_owned(),
            Self::NotFound { .. } => "the archive is not there".to_owned(),
            Self::FilesKept { cause, .. } => return cause.to_api(),
            Self::Database(error) => return error.to_api(),
            Self::Io { .. } => "the server could not do this".to_owned(),
        };
        let error = ApiError::new(self.code(), message);
        match self.reason() {
            Some(reason) => error.reason(reason),
            None => error,
        }
    }
}
