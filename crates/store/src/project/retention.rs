//! Shortening the log: its oldest events go, by age and by size.
//!
//! What is dropped is always a prefix of the project's order, so that one number tells what is
//! gone. Heads of rooms stay: the event that comes next in a room still names the one before it.

use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::queries;
use crate::writer::EVENT_BYTES;
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Most events that one command drops.
pub const TRIMMED_EVENTS_MAX: u32 = 1_000;

const RETENTION: &str = "SELECT floor_seq, events_bytes FROM meta";
const OLDEST: &str =
    "SELECT seq, at, octet_length(payload) FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2";
const DROP: &str = "DELETE FROM events WHERE seq > ?1 AND seq <= ?2";
const RAISE_FLOOR: &str = "UPDATE meta SET floor_seq = ?1";

/// Drops the oldest events of the log that are too old, or that make it too large, at most
/// [`TRIMMED_EVENTS_MAX`] at a time. Nothing else changes: numbers go on, and so does the chain of
/// each room.
#[derive(Debug, Clone, Copy)]
pub struct TrimEvents {
    /// Events from before are dropped: milliseconds since 1970 UTC; none for events of any age.
    pub keep_since: Option<i64>,
    /// Most bytes that stay; 0 for no limit.
    pub bytes_max: u64,
}

/// What was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trimmed {
    /// Number of events.
    pub events: u64,
    /// The log holds events after this one alone.
    pub floor: u64,
    /// Whether there may be more to do.
    pub more: bool,
}

/// How the log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Retention {
    pub(super) floor: u64,
    pub(super) bytes: u64,
}

impl Command for TrimEvents {
    type Output = Trimmed;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Trimmed, StoreError> {
        let conn = tx.conn();
        let Retention { floor, mut bytes } = retention(conn)?;
        let key = params![floor, TRIMMED_EVENTS_MAX];
        let oldest = queries::all(conn, OLDEST, key, |row| {
            Ok((row.get::<_, u64>(0)?, row.get::<_, i64>(1)?, row.get::<_, u64>(2)?))
        })?;
        let (mut last, mut events) = (floor, 0);
        for (seq, at, payload) in oldest {
            let is_old = self.keep_since.is_some_and(|since| at < since);
            let is_much = self.bytes_max > 0 && bytes > self.bytes_max;
            if !is_old && !is_much {
                break;
            }
            bytes = bytes.saturating_sub(payload + EVENT_BYTES as u64);
            (last, events) = (seq, events + 1);
        }
        if events > 0 {
            conn.prepare_cached(DROP)?.execute([floor, last])?;
            conn.prepare_cached(RAISE_FLOOR)?.execute([last])?;
        }
        Ok(Trimmed { events, floor: last, more: events == u64::from(TRIMMED_EVENTS_MAX) })
    }
}

pub(super) fn retention(conn: &rusqlite::Connection) -> Result<Retention, StoreError> {
    queries::one(conn, RETENTION, [], |row| {
        Ok(Retention { floor: row.get(0)?, bytes: row.get(1)? })
    })
}
