//! Publishing in the rooms of a project.

use iris_protocol::{Event, Room, SessionId, UserId};

use super::queries;
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Publishes something that happened to the project itself, in the project's room.
#[derive(Debug, Clone)]
pub struct PublishProjectEvent {
    /// What happened; a durable event.
    pub event: Event,
    /// The user who caused it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for PublishProjectEvent {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        in_project(tx, self.at, Some(&self.by), &self.event)
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
