//! Whole databases as files: copied while they are written, checked, compacted, given to another
//! server.
//!
//! Nothing here goes through a writer thread. What only reads works beside a running server; what
//! changes a file says so, and belongs to whoever holds the data directory's lock. Everything waits
//! for the disk: call it off the async threads.

mod adopt;
mod check;
mod digest;
pub(crate) mod listing;
mod payload;
mod snapshot;

use std::path::Path;

use iris_protocol::ProjectId;
use rusqlite::{Connection, OpenFlags};

use crate::head::Head;
use crate::project::{ProjectUsage, quotas};
use crate::{StoreError, database, wal};

pub use adopt::{Adoption, adopt_project};
pub use check::{audit_after, check_audit, check_project, check_root};
pub use digest::{Digests, TableDigest, digests};
pub use listing::{
    ListedGit, ListedMember, ListedProject, detach_directories, list_projects, mark_all_unfinished,
};
pub use snapshot::{snapshot_project, snapshot_root, vacuum_project, vacuum_root};

/// What a project's database says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectFacts {
    /// Whose database it is.
    pub project_id: ProjectId,
    /// Tells it from what it was before a restore.
    pub epoch: String,
    /// The number of the last event; 0 before the first.
    pub seq: u64,
    /// How many migrations it has gone through.
    pub schema_version: u32,
}

/// For files that may come from strangers: their schema gets no say beyond their own rows, and pages
/// are looked at before they are believed (sqlite.org/security.html). The wait is milliseconds.
const CAUTIOUS: &str = "
    PRAGMA busy_timeout = 5000;
    PRAGMA trusted_schema = OFF;
    PRAGMA cell_size_check = ON;
    PRAGMA temp_store = MEMORY;";

/// Opens a database of ours without a way to write it, whoever else has it open.
fn read_only(path: &Path, schema: &[&'static str]) -> Result<Connection, StoreError> {
    let log = database::log_of(path);
    // The second look is for a header that a server was writing over at the first.
    wal::check(&log).or_else(|_| wal::check(&log))?;
    let conn = database::open_to_read(path, CAUTIOUS)?;
    database::check_length(path, &conn)?;
    database::check_version(&conn, &database::migrations(schema))?;
    Ok(conn)
}

/// Opens a database that is ours alone, to change it in place without a log beside it.
fn read_write(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.execute_batch(CAUTIOUS)?;
    Ok(conn)
}

/// What the database says of itself. Reads a few pages; [`check_project`] reads all.
///
/// # Errors
/// `Corrupt` for a file that is missing, empty, cut off or no project database, for a write-ahead log
/// that is damaged, and for a database that lacks what was acknowledged; `Newer`.
pub fn project_facts(path: &Path) -> Result<ProjectFacts, StoreError> {
    let head = Head::read(path);
    let facts = facts(&read_only(path, crate::project::SCHEMA)?)?;
    head.check(&facts.epoch, facts.seq)?;
    Ok(facts)
}

/// What a project holds, by looking at every row instead of believing its counters.
///
/// # Errors
/// As [`project_facts`].
pub fn project_usage(path: &Path) -> Result<ProjectUsage, StoreError> {
    usage(&read_only(path, crate::project::SCHEMA)?)
}

fn usage(conn: &Connection) -> Result<ProjectUsage, StoreError> {
    let sql = "SELECT (SELECT count(*) FROM messages) + (SELECT count(*) FROM message_parts),
                   count(*), coalesce(sum(size), 0) FROM files";
    let bytes = quotas::bytes(conn)?;
    Ok(conn.query_row(sql, [], |row| {
        Ok(ProjectUsage { rows: row.get(0)?, bytes, files: row.get(1)?, file_bytes: row.get(2)? })
    })?)
}

/// How many migrations the root database at `path` has gone through.
///
/// # Errors
/// `Corrupt` for a file that is missing, empty, cut off or no root database, and for a write-ahead log
/// that is damaged; `Newer`.
pub fn root_version(path: &Path) -> Result<u32, StoreError> {
    let conn = read_only(path, crate::root::SCHEMA)?;
    crate::root::identify(&conn)?;
    Ok(conn.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

fn facts(conn: &Connection) -> Result<ProjectFacts, StoreError> {
    let unreadable = |error: &dyn std::fmt::Display| {
        StoreError::corrupt(format!("not a project database: {error}"))
    };
    let sql = "SELECT project_id, epoch, last_seq FROM meta";
    let (id, epoch, seq) = conn
        .query_row(sql, [], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)))
        .map_err(|error| unreadable(&error))?;
    let project_id = id.parse().map_err(|_| unreadable(&"its project id is none"))?;
    let schema_version = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(ProjectFacts { project_id, epoch, seq, schema_version })
}

/// As [`facts`], of one certain project.
fn facts_of(conn: &Connection, id: &ProjectId) -> Result<ProjectFacts, StoreError> {
    let facts = facts(conn)?;
    if facts.project_id != *id {
        return Err(StoreError::corrupt(format!("the database of `{}`", facts.project_id)));
    }
    Ok(facts)
}
