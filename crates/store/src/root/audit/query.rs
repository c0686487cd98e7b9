//! Reading the audit. A page looks at a bounded number of records, however few of them it is asked for.

use iris_protocol::{AuditPage, AuditRecord, ProjectId, UserId, limits};
use rusqlite::{Connection, params};

use super::{chain, record};
use crate::StoreError;

/// Most records that one page looks at.
pub const AUDIT_RECORDS_LOOKED_AT_MAX: u64 = 5_000;

/// What of the audit is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Who did it.
    pub user_id: Option<UserId>,
    /// The name of the operation.
    pub action: Option<String>,
    /// What it was done to.
    pub target: Option<String>,
    /// The project that it was done in.
    pub project_id: Option<ProjectId>,
    /// Not before, in milliseconds since 1970 UTC.
    pub from: Option<i64>,
    /// Before, in milliseconds since 1970 UTC.
    pub to: Option<i64>,
    /// Taken as at least 1 and at most [`limits::PAGE_MAX`].
    pub limit: u32,
    /// Only records before this number.
    pub before: Option<u64>,
}

/// A page, newest first.
pub(crate) fn page(conn: &Connection, query: &AuditQuery) -> Result<AuditPage, StoreError> {
    let (head, anchor) = (chain::head(conn)?, chain::anchor(conn)?);
    let limit = query.limit.clamp(1, limits::PAGE_MAX) as usize;
    let before = query.before.unwrap_or(u64::MAX).min(head.id + 1);
    let least = before.saturating_sub(AUDIT_RECORDS_LOOKED_AT_MAX).max(anchor.id + 1);
    let sql = "SELECT * FROM audit
               WHERE id >= ?1 AND id < ?2
                 AND (?3 IS NULL OR user_id = ?3) AND (?4 IS NULL OR action = ?4)
                 AND (?5 IS NULL OR target = ?5) AND (?6 IS NULL OR project_id = ?6)
                 AND (?7 IS NULL OR at >= ?7) AND (?8 IS NULL OR at < ?8)
               ORDER BY id DESC LIMIT ?9";
    let mut statement = conn.prepare_cached(sql)?;
    let values = params![
        least,
        before,
        query.user_id.as_ref().map(UserId::as_str),
        query.action,
        query.target,
        query.project_id.as_ref().map(ProjectId::as_str),
        query.from,
        query.to,
        i64::try_from(limit).unwrap_or(i64::MAX),
    ];
    let records = statement.query_map(values, record)?.collect::<Result<Vec<_>, _>>()?;
    // Where the page is full it goes on behind its last record, else behind the last one looked at.
    let reached =
        if records.len() < limit { least } else { records.last().map_or(least, |r| r.id) };
    let has_more = reached > anchor.id + 1;
    let next_cursor = has_more.then(|| reached.to_string());
    Ok(AuditPage { records, head: head.to_string(), next_cursor, has_more })
}

/// The records behind a number, oldest first.
pub(crate) fn after(
    conn: &Connection,
    id: u64,
    limit: u32,
) -> Result<Vec<AuditRecord>, StoreError> {
    let sql = "SELECT * FROM audit WHERE id > ?1 ORDER BY id LIMIT ?2";
    let mut statement = conn.prepare_cached(sql)?;
    let records = statement.query_map(params![id, limit], record)?;
    Ok(records.collect::<Result<_, _>>()?)
}

/// Reads the table from its end, as far as it is asked to.
const NEWEST: &str = "SELECT * FROM audit ORDER BY id DESC LIMIT ?1";

/// The last `limit` records, newest first.
pub(crate) fn newest(conn: &Connection, limit: usize) -> Result<Vec<AuditRecord>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = conn.prepare_cached(NEWEST)?;
    let rows = statement.query_map([limit], record)?;
    Ok(rows.collect::<Result<_, _>>()?)
}
