//! What a commit costs on this disk, and how many of them happened.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use rusqlite::Connection;

use crate::table::ms;

/// Commits of one measurement.
const COMMITS: u32 = 5;
/// Bytes of the row that each of them adds.
const ROW_BYTES: usize = 1024;

/// Bytes of the header of a write-ahead log and of that of each frame in it (SQLite file format,
/// section 4.1).
const LOG_HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

/// A database of its own with nothing around it.
pub(crate) struct PlainDatabase(Connection);

impl PlainDatabase {
    /// Makes one in `directory`, as durable as those of the server.
    pub(crate) fn create(directory: &Path) -> rusqlite::Result<Self> {
        let conn = Connection::open(directory.join("plain.db"))?;
        conn.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             CREATE TABLE rows (id INTEGER PRIMARY KEY, content BLOB NOT NULL);",
        )?;
        Ok(Self(conn))
    }

    /// Milliseconds of one commit now: the mean of a few that add a row each.
    pub(crate) fn commit_ms(&self) -> rusqlite::Result<f64> {
        let row = vec![0_u8; ROW_BYTES];
        let started_at = Instant::now();
        for _ in 0..COMMITS {
            self.0.prepare_cached("INSERT INTO rows (content) VALUES (?1)")?.execute([&row])?;
        }
        Ok(ms(started_at.elapsed()) / f64::from(COMMITS))
    }
}

/// The number of commits in a write-ahead log that was not yet begun anew: frames that give the size
/// of the database are the last ones of a commit, and old frames have another salt.
pub(crate) fn commits_in_log(path: &Path) -> anyhow::Result<usize> {
    let log = fs::read(path).with_context(|| format!("no log at `{}`", path.display()))?;
    let Some((header, frames)) = log.split_at_checked(LOG_HEADER_BYTES) else { return Ok(0) };
    let page_bytes = u32::from_be_bytes(field(header, 8)?);
    let frame_bytes = FRAME_HEADER_BYTES + usize::try_from(page_bytes)?;
    let salt: [u8; 8] = field(header, 16)?;
    let mut commits = 0;
    for frame in frames.chunks_exact(frame_bytes) {
        let is_current = field::<8>(frame, 8)? == salt;
        let database_pages = u32::from_be_bytes(field(frame, 4)?);
        commits += usize::from(is_current && database_pages > 0);
    }
    Ok(commits)
}

fn field<const BYTES: usize>(header: &[u8], offset: usize) -> anyhow::Result<[u8; BYTES]> {
    let field = header.get(offset..offset + BYTES).context("the header is cut off")?;
    Ok(field.try_into()?)
}
