//! How the audit stays bounded: its oldest records are let go, and the chain goes on from the hash of the
//! last of them.

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::chain::{self, AuditDamage, AuditHead, Link};
use super::{RecordAudit, append};
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Most records that one command lets go.
pub const AUDIT_RECORDS_TRIMMED_MAX: u64 = 500;

/// Lets the oldest records go that are older, or more, than are to be kept; the newest one stays. That it
/// did is a record itself. Nothing goes that is not what it was when it was written: what is wrong has to
/// be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrimAudit {
    /// Records from before may go, in milliseconds since 1970 UTC; none for no age.
    pub before: Option<i64>,
    /// Most records that stay; 0 for no limit.
    pub keep_max: u64,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

/// What was let go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trimmed {
    /// As many records as that, which are at most [`AUDIT_RECORDS_TRIMMED_MAX`].
    Records(u64),
    /// None: the oldest are not what they were.
    Damaged(AuditDamage),
}

impl Command for TrimAudit {
    type Output = Trimmed;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Trimmed, StoreError> {
        let conn = tx.conn();
        let (begin, end) = (chain::anchor(conn)?, chain::end(conn)?);
        let surplus_through = match self.keep_max {
            0 => 0,
            keep_max => end.id.saturating_sub(keep_max),
        };
        let is_old = |at: i64| self.before.is_some_and(|before| at < before);
        let may_go = |id: u64, at: i64| id <= surplus_through || is_old(at);
        let bounds = (AUDIT_RECORDS_TRIMMED_MAX, end.id.saturating_sub(1));
        let last = match chain::last_alike(conn, bounds, may_go)? {
            Err(damage) => return Ok(Trimmed::Damaged(damage)),
            Ok(None) => return Ok(Trimmed::Records(0)),
            Ok(Some(last)) => last,
        };
        let count = last.id - begin.id;
        let_go(conn, &last)?;
        append(conn, &record_of(count, &last.told(), self.at))?;
        Ok(Trimmed::Records(count))
    }
}

/// Moves the anchor first: the database refuses to delete what is behind it.
fn let_go(conn: &Connection, last: &Link) -> Result<(), StoreError> {
    let sql = "INSERT INTO audit_anchor (one, id, hash) VALUES (1, ?1, ?2)
               ON CONFLICT (one) DO UPDATE SET id = excluded.id, hash = excluded.hash";
    conn.prepare_cached(sql)?.execute(params![last.id, last.hash])?;
    conn.prepare_cached("DELETE FROM audit WHERE id <= ?1")?.execute([last.id])?;
    Ok(())
}

/// Done by nobody but the server.
fn record_of(count: u64, last: &AuditHead, at: i64) -> RecordAudit {
    RecordAudit {
        at,
        action: "audit.trim".to_owned(),
        target: "audit".to_owned(),
        details: json!({ "records": count, "last": last.to_string() }),
        ..RecordAudit::default()
    }
}
