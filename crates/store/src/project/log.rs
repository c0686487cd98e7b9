//! Publishing in the rooms of a project.

use iris_protocol::{Event, Room, SessionId, UserId};
use rusqlite::params;

use super::{queries, reading};
use crate::root::OutboxEntry;
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Publishes what happened to the project itself in the root database, in the project's room: each
/// entry once, however often it comes. Answers the number of the last event that came this way.
#[derive(Debug, Clone)]
pub struct PublishOutbox {
    /// All that are on their way or the oldest of them, in the order of their ids.
    pub entries: Vec<OutboxEntry>,
}

impl Command for PublishOutbox {
    type Output = u64;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<u64, StoreError> {
        let sql = "SELECT outbox_id, outbox_seq FROM meta";
        let (last, mut seq) =
            queries::one(tx.conn(), sql, [], |row| Ok((row.get::<_, u64>(0)?, row.get(1)?)))?;
        let room = Room::Project(queries::project_id(tx.conn())?);
        for OutboxEntry { id, event, by, at } in self.entries {
            if id <= last {
                continue;
            }
            if let Event::MemberRemoved { user_id } = &event {
                reading::forget(tx.conn(), user_id)?;
            }
            seq = tx.publish(room.clone(), at, Some(&by), &event)?;
            let sql = "UPDATE meta SET outbox_id = ?1, outbox_seq = ?2";
            tx.conn().prepare_cached(sql)?.execute(params![id, seq])?;
        }
        Ok(seq)
    }
}

/// Publishes in the session's room.
pub(super) fn in_session(
    tx: &mut WriteTx<'_>,
    id: &SessionId,
    at: i64,
    by: Option<&UserId>,
    event: &Event,
) -> Result<(), StoreError> {
    tx.publish(Room::Session(id.clone()), at, by, event).map(drop)
}

/// Publishes in the project's room.
pub(super) fn in_project(
    tx: &mut WriteTx<'_>,
    at: i64,
    by: Option<&UserId>,
    event: &Event,
) -> Result<(), StoreError> {
    let room = Room::Project(queries::project_id(tx.conn())?);
    tx.publish(room, at, by, event).map(drop)
}

/// Publishes in the session's room, then in the project's: two events, each with its own number.
pub(super) fn in_both(
    tx: &mut WriteTx<'_>,
    id: &SessionId,
    at: i64,
    by: Option<&UserId>,
    event: &Event,
) -> Result<(), StoreError> {
    in_session(tx, id, at, by, event)?;
    in_project(tx, at, by, event)
}
