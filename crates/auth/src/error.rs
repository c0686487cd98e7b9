//! What can go wrong with passwords, tokens and keys.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use iris_protocol::{ApiError, ErrorCode};

/// Why a password, token or key was not accepted. No variant carries a secret.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Too many passwords are waiting to be hashed.
    #[error("too many logins at once, try again in {retry_after_ms} ms")]
    Busy {
        /// How long to wait before trying again, in milliseconds.
        retry_after_ms: u64,
    },
    /// The password breaks a rule that holds for everybody's.
    #[error("{message}")]
    BadPassword {
        /// The rule, for programs, lower snake case.
        reason: &'static str,
        /// The rule, for people.
        message: String,
    },
    /// The token was right and its time is over.
    #[error("the access token has expired")]
    Expired,
    /// The token is not one of ours, or not for this purpose.
    #[error("the token is not valid")]
    Invalid,
    /// The configured setup token could be guessed.
    #[error("the setup token needs at least `{min}` bytes", min = crate::SETUP_TOKEN_BYTES_MIN)]
    SetupTokenTooShort,
    /// A key in memory is too short to be safe.
    #[error("a key needs at least {min} bytes, this one has {found}", min = crate::KEY_BYTES_MIN)]
    KeyTooShort {
        /// The length of the key, in bytes.
        found: usize,
    },
    /// A key file is too short to be safe, or too long to be a key file.
    #[error("the key file `{}` holds {found} bytes, it needs {min} to {max}; remove it to have a new one made",
        path.display(), min = crate::KEY_BYTES_MIN, max = crate::keys::KEY_FILE_BYTES_MAX)]
    KeyFileSize {
        /// The file.
        path: PathBuf,
        /// Its size in bytes, or one more than the limit when it is larger than that.
        found: usize,
    },
    /// A key file cannot be read or created.
    #[error("cannot read or create the key file `{}`", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key was changed, and the one before is still needed.
    #[error("the key before is still needed: `{}` is there", path.display())]
    KeyChanging {
        /// Where it stands.
        path: PathBuf,
    },
    /// A key file holds another key than the one that is in use.
    #[error("the key file `{}` holds another key than the one in use", path.display())]
    KeyReplaced {
        /// The file.
        path: PathBuf,
    },
    /// A key file is a link: whoever keeps what it leads to would undo a change.
    #[error("the key file `{}` is a link, so something else keeps the key: change it there", path.display())]
    KeyIsLink {
        /// The file.
        path: PathBuf,
    },
    /// Nobody can act on it: no randomness, a broken stored hash, a lost worker.
    #[error("internal error of authentication")]
    Internal {
        /// For the log.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl AuthError {
    pub(crate) fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Internal { source: source.into() }
    }

    /// The code that a client sees.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Busy { .. } => ErrorCode::Overloaded,
            Self::BadPassword { .. } => ErrorCode::InvalidRequest,
            Self::Expired => ErrorCode::TokenExpired,
            Self::Invalid => ErrorCode::Unauthenticated,
            Self::SetupTokenTooShort
            | Self::KeyTooShort { .. }
            | Self::KeyFileSize { .. }
            | Self::KeyFile { .. }
            | Self::KeyChanging { .. }
            | Self::KeyReplaced { .. }
            | Self::KeyIsLink { .. }
            | Self::Internal { .. } => ErrorCode::Internal,
        }
    }

    /// The error as a client sees it: nothing of keys, files or causes.
    pub fn to_error(&self) -> ApiError {
        let public = || ApiError::new(self.code(), self.to_string());
        match self {
            Self::Busy { retry_after_ms } => public().reason("busy").retry_after(*retry_after_ms),
            Self::BadPassword { reason, .. } => public().reason(reason),
            Self::Expired => public(),
            Self::Invalid => public().reason("invalid_token"),
            Self::SetupTokenTooShort
            | Self::KeyTooShort { .. }
            | Self::KeyFileSize { .. }
            | Self::KeyFile { .. }
            | Self::KeyChanging { .. }
            | Self::KeyReplaced { .. }
            | Self::KeyIsLink { .. }
            | Self::Internal { .. } => ApiError::new(self.code(), "internal error"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_learns_when_to_come_back_and_nothing_of_files() {
        let busy = AuthError::Busy { retry_after_ms: 1_000 }.to_error();
        assert_eq!((busy.code, busy.retry_after_ms), (ErrorCode::Overloaded, Some(1_000)));

        let path = PathBuf::from("/secret/place");
        let file = AuthError::KeyFileSize { path, found: 3 };
        assert!(file.to_string().contains("`/secret/place` holds 3 bytes"), "{file}");
        assert!(!file.to_error().message.contains("secret"), "{:?}", file.to_error());
    }
}
