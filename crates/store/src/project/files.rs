//! The versions of files that were changed through Iris.

use iris_protocol::{Event, File, SessionId, UserId};
use rusqlite::params;

use super::quotas::Quotas;
use super::{log, queries, rows};
use crate::{Command, StoreError, WriteTx};

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedChange {
    /// Relative to the project's directory, with `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the content, 64 hex digits.
    pub hash: String,
}

/// Records that a user wrote a file themselves. Answers the file with its new version.
///
/// Fails with `QuotaExceeded` when the project would know too many files, or too large ones.
#[derive(Debug, Clone)]
pub struct RecordFileWrite {
    /// Relative to the project's directory, with `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the content, 64 hex digits.
    pub hash: String,
    /// The most that the project may hold.
    pub quotas: Quotas,
    /// The user.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for RecordFileWrite {
    type Output = File;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<File, StoreError> {
        let Self { path, size, hash, quotas, by, at } = self;
        quotas.check_file(tx.conn(), &path, Some(size))?;
        record_change(tx, RecordedChange { path, size, hash }, &by, None, at)
    }
}

/// Gives a file its next version and says so in the project's room.
pub(super) fn record_change(
    tx: &mut WriteTx<'_>,
    change: RecordedChange,
    by: &UserId,
    session_id: Option<&SessionId>,
    at: i64,
) -> Result<File, StoreError> {
    let sql = "INSERT INTO files (path, size, version, hash, updated_at, updated_by)
               VALUES (?1, ?2, 1, ?3, ?4, ?5)
               ON CONFLICT (path) DO UPDATE SET size = excluded.size, version = version + 1,
                 hash = excluded.hash, updated_at = excluded.updated_at,
                 updated_by = excluded.updated_by
               RETURNING *";
    let key = params![change.path, change.size, change.hash, at, by.as_str()];
    let file = queries::one(tx.conn(), sql, key, rows::file)?;
    let (path, version, session_id) = (change.path, file.version, session_id.cloned());
    let event = if version == 1 {
        Event::FileCreated { path, version, by: by.clone(), session_id }
    } else {
        Event::FileUpdated { path, version, by: by.clone(), session_id }
    };
    log::in_project(tx, at, Some(by), &event)?;
    Ok(file)
}
