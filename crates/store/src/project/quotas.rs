//! How much a project holds and how much it may.
//!
//! Counters are kept by triggers, so whatever changes rows changes them too. The limits come with
//! the commands by which users make a project grow; what a run that works already writes is not held
//! up by them.

use rusqlite::Connection;

use super::{queries, rows};
use crate::StoreError;

/// The most that a project may hold; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Messages and their parts.
    pub rows_max: u64,
    /// Bytes of the database, without what is free in it.
    pub bytes_max: u64,
    /// Files that are known.
    pub files_max: u64,
    /// Bytes of the files that are known.
    pub file_bytes_max: u64,
}

/// What a project holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProjectUsage {
    /// Messages and their parts.
    pub rows: u64,
    /// Bytes of the database, without what is free in it.
    pub bytes: u64,
    /// Files that are known.
    pub files: u64,
    /// Bytes of the files that are known.
    pub file_bytes: u64,
}

pub(super) fn usage(conn: &Connection) -> Result<ProjectUsage, StoreError> {
    let bytes = bytes(conn)?;
    let sql = "SELECT rows, files, file_bytes FROM usage";
    queries::one(conn, sql, [], |row| {
        Ok(ProjectUsage { rows: row.get(0)?, bytes, files: row.get(1)?, file_bytes: row.get(2)? })
    })
}

/// Bytes of the database, without what is free in it.
pub(crate) fn bytes(conn: &Connection) -> Result<u64, StoreError> {
    let pragma = |sql| queries::one(conn, sql, [], |row| row.get::<_, u64>(0));
    let pages = pragma("PRAGMA page_count")?.saturating_sub(pragma("PRAGMA freelist_count")?);
    Ok(pages.saturating_mul(pragma("PRAGMA page_size")?))
}

impl Quotas {
    /// Refuses `rows` new messages and parts, and anything new in a database that is full.
    pub(super) fn check_rows(&self, conn: &Connection, rows: u64) -> Result<(), StoreError> {
        if *self == Self::default() {
            return Ok(());
        }
        let used = usage(conn)?;
        refuse_beyond("rows_quota", self.rows_max, used.rows, rows)?;
        refuse_beyond("bytes_quota", self.bytes_max, used.bytes, 1)
    }

    /// Refuses to know a file of that size at that path; without a size, once there is no more room.
    pub(super) fn check_file(
        &self,
        conn: &Connection,
        path: &str,
        size: Option<u64>,
    ) -> Result<(), StoreError> {
        if *self == Self::default() {
            return Ok(());
        }
        let used = usage(conn)?;
        refuse_beyond("bytes_quota", self.bytes_max, used.bytes, 1)?;
        let known = queries::first(conn, queries::FILE, [path], rows::file)?;
        if known.is_none() {
            refuse_beyond("files_quota", self.files_max, used.files, 1)?;
        }
        // A file that shrinks, or stays as large as it is, is welcome in a project that is too large.
        let known = known.map_or(0, |file| file.size);
        let more = size.map_or(1, |size| size.saturating_sub(known));
        refuse_beyond("file_bytes_quota", self.file_bytes_max, used.file_bytes, more)
    }

    /// Refuses more in a project that has no more room, or more files than it may: for what does not say
    /// beforehand which files there will be.
    pub(super) fn check_files(&self, conn: &Connection) -> Result<(), StoreError> {
        if *self == Self::default() {
            return Ok(());
        }
        let used = usage(conn)?;
        refuse_beyond("bytes_quota", self.bytes_max, used.bytes, 1)?;
        refuse_beyond("files_quota", self.files_max, 0, used.files)?;
        refuse_beyond("file_bytes_quota", self.file_bytes_max, used.file_bytes, 1)
    }

    /// Refuses a whole project that holds more than it may.
    ///
    /// # Errors
    /// `QuotaExceeded` with the first quota that is exceeded.
    pub fn check_whole(&self, used: &ProjectUsage) -> Result<(), StoreError> {
        refuse_beyond("rows_quota", self.rows_max, 0, used.rows)?;
        refuse_beyond("bytes_quota", self.bytes_max, 0, used.bytes)?;
        refuse_beyond("files_quota", self.files_max, 0, used.files)?;
        refuse_beyond("file_bytes_quota", self.file_bytes_max, 0, used.file_bytes)
    }
}

fn refuse_beyond(reason: &'static str, limit: u64, used: u64, more: u64) -> Result<(), StoreError> {
    if limit == 0 || more == 0 || used.saturating_add(more) <= limit {
        return Ok(());
    }
    Err(StoreError::QuotaExceeded { reason, limit, used })
}
