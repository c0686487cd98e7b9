//! What can go wrong with a project's files.

use std::io::{self, ErrorKind};

use iris_protocol::{ApiError, ErrorCode};

use crate::RelPath;

/// An operation on a project's files failed. Paths in it are relative to the project's directory.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// The text is not a path inside a project.
    #[error("invalid path `{path}`: {problem}")]
    InvalidPath {
        /// What was given, escaped and shortened.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A link on the way leads out of the project's directory, or in a circle.
    #[error("`{path}` leads outside the project")]
    PathEscape {
        /// The path that was asked for.
        path: String,
    },
    /// A link leads the path to another one of the project, which the caller does not admit for it.
    #[error("`{path}` leads to `{real}` now: that has to be named itself")]
    LinkRefused {
        /// The path that was asked for.
        path: String,
        /// Where it leads.
        real: String,
    },
    /// Nobody writes there through Iris: version control and Iris' own settings.
    #[error("`{path}` is protected and cannot be written")]
    ProtectedPath {
        /// The path that was asked for.
        path: String,
    },
    /// Nothing is there.
    #[error("`{path}` does not exist")]
    NotFound {
        /// The path that was asked for.
        path: String,
    },
    /// It is a directory, a pipe, a socket or a device.
    #[error("`{path}` is not a regular file")]
    NotAFile {
        /// The path that was asked for.
        path: String,
    },
    /// A directory was needed there or on the way.
    #[error("`{path}` is not a directory")]
    NotADirectory {
        /// The path that was asked for.
        path: String,
    },
    /// The file has a second name, which may lie outside the project.
    #[error("`{path}` has more than one hard link and cannot be written")]
    HardLinked {
        /// The path that was asked for.
        path: String,
    },
    /// More bytes than the operation takes.
    #[error("`{path}` has `{size}` bytes, more than the limit of `{size_max}`")]
    TooLarge {
        /// The path that was asked for.
        path: String,
        /// Bytes found; for an endless source, the bytes seen so far.
        size: u64,
        /// Bytes allowed.
        size_max: u64,
    },
    /// Text was asked for and the bytes are none.
    #[error("`{path}` is a binary file, not UTF-8 text")]
    IsBinary {
        /// The path that was asked for.
        path: String,
    },
    /// The content is not the one that the caller knows.
    #[error("`{path}` was changed by somebody else")]
    Changed {
        /// The path that was asked for.
        path: String,
    },
    /// There is something where nothing may be.
    #[error("`{path}` exists already")]
    Exists {
        /// The path that was asked for.
        path: String,
    },
    /// It is a directory with something in it.
    #[error("`{path}` is a directory that is not empty")]
    NotEmpty {
        /// The path that was asked for.
        path: String,
    },
    /// More files than one operation takes.
    #[error("`{path}` holds more than {count_max} files and directories")]
    TooMany {
        /// The path that was asked for.
        path: String,
        /// How many may be there.
        count_max: usize,
    },
    /// A directory would be moved into itself.
    #[error("`{path}` cannot be moved below itself")]
    BelowItself {
        /// The path that was asked for.
        path: String,
    },
    /// The glob or regular expression does not compile, or is too large.
    #[error("invalid pattern `{pattern}`: {problem}")]
    InvalidPattern {
        /// What was given, escaped and shortened.
        pattern: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The caller asked to stop.
    #[error("the operation was cancelled")]
    Cancelled,
    /// The project's directory cannot be opened.
    #[error("the project's directory cannot be opened")]
    RootUnavailable {
        /// What the operating system said.
        source: io::Error,
    },
    /// The store of the files failed.
    #[error("{error}")]
    Store {
        /// What it said.
        error: Box<ApiError>,
    },
    /// The operating system refused.
    #[error("`{path}`: {source}")]
    Io {
        /// The path that was asked for.
        path: String,
        /// What the operating system said.
        source: io::Error,
    },
}

impl WorkspaceError {
    /// The code for clients.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::InvalidPath { .. }
            | Self::NotAFile { .. }
            | Self::NotADirectory { .. }
            | Self::IsBinary { .. }
            | Self::BelowItself { .. }
            | Self::InvalidPattern { .. } => ErrorCode::InvalidRequest,
            Self::PathEscape { .. }
            | Self::LinkRefused { .. }
            | Self::ProtectedPath { .. }
            | Self::HardLinked { .. } => ErrorCode::Forbidden,
            Self::NotFound { .. } => ErrorCode::NotFound,
            Self::TooLarge { .. } | Self::TooMany { .. } => ErrorCode::PayloadTooLarge,
            Self::Changed { .. } => ErrorCode::VersionConflict,
            Self::Cancelled => ErrorCode::Cancelled,
            Self::Store { error } => error.code,
            Self::Exists { .. } | Self::NotEmpty { .. } | Self::RootUnavailable { .. } => {
                ErrorCode::Conflict
            }
            Self::Io { source, .. } => io_code(source.kind()),
        }
    }

    /// The `details.reason` that goes with the code.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::InvalidPath { .. } => Some("invalid_path"),
            Self::PathEscape { .. } => Some("path_escape"),
            Self::LinkRefused { .. } => Some("link_refused"),
            Self::ProtectedPath { .. } => Some("protected_path"),
            Self::NotAFile { .. } => Some("not_regular_file"),
            Self::NotADirectory { .. } => Some("not_directory"),
            Self::HardLinked { .. } => Some("hard_linked"),
            Self::IsBinary { .. } => Some("is_binary"),
            Self::InvalidPattern { .. } => Some("invalid_pattern"),
            Self::Exists { .. } => Some("exists"),
            Self::NotEmpty { .. } => Some("not_empty"),
            Self::TooMany { .. } => Some("too_many_files"),
            Self::BelowItself { .. } => Some("below_itself"),
            Self::RootUnavailable { .. } => Some("root_unavailable"),
            Self::NotFound { .. }
            | Self::TooLarge { .. }
            | Self::Changed { .. }
            | Self::Cancelled
            | Self::Store { .. }
            | Self::Io { .. } => None,
        }
    }

    /// Says what an operating system error on `path` means to a caller.
    pub(crate) fn from_io(path: &RelPath, source: io::Error) -> Self {
        let path = path.to_string();
        let errno = source.raw_os_error();
        let kind = source.kind();
        if kind == ErrorKind::NotFound || kind == ErrorKind::NotADirectory {
            return Self::NotFound { path };
        }
        // The handle on the root refuses what leads out with an error that no system call gave.
        if errno == Some(ELOOP) || (kind == ErrorKind::PermissionDenied && errno.is_none()) {
            return Self::PathEscape { path };
        }
        if errno == Some(ENXIO) {
            return Self::NotAFile { path };
        }
        if kind == ErrorKind::InvalidFilename {
            return Self::InvalidPath { path: shown(&path), problem: "a name in it is too long" };
        }
        Self::Io { path, source }
    }
}

/// What opening a socket gives: "no such device or address" on Linux, the BSDs and macOS.
const ENXIO: i32 = 6;
/// Too many links on the way; the standard library has no stable name for it.
const ELOOP: i32 = if cfg!(target_os = "linux") { 40 } else { 62 };

/// How much of a refused path or pattern an error repeats, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// Text for an error message: without characters that do not print, and short.
pub(crate) fn shown(text: &str) -> String {
    let mut short = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == SHOWN_CHARS_MAX {
            short.push('…');
            break;
        }
        match character {
            '\\' | '"' | '\'' => short.push(character),
            other if turns(other) => short.extend(other.escape_unicode()),
            other => short.extend(other.escape_debug()),
        }
    }
    short
}

/// Whether a character turns the direction of the text behind it, so that a name looks like another one.
pub(crate) fn turns(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn io_code(kind: ErrorKind) -> ErrorCode {
    if kind == ErrorKind::PermissionDenied {
        return ErrorCode::Forbidden;
    }
    if kind == ErrorKind::StorageFull || kind == ErrorKind::QuotaExceeded {
        return ErrorCode::StorageFull;
    }
    if kind == ErrorKind::ReadOnlyFilesystem { ErrorCode::ReadOnly } else { ErrorCode::Internal }
}
