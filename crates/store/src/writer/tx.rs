//! What a command sees of the database: a connection inside a transaction, and a place to publish.

use iris_protocol::{Event, EventKind, Room, UserId};
use rusqlite::{Connection, OptionalExtension, params};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::StoreError;

/// Counted for each event beside its payload, so that the log of a project has a size.
pub(crate) const EVENT_BYTES: usize = 128;

/// A durable event as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its number in the database, from 1, without gaps.
    pub seq: u64,
    /// The number of the event before it in the same room; 0 for the first.
    pub prev: u64,
    /// Where it happened.
    pub room: Room,
    /// Milliseconds since 1970 UTC.
    pub at: i64,
    /// The user who caused it.
    pub by: Option<UserId>,
    /// The event's name on the wire.
    pub name: String,
    /// The event's payload, JSON.
    pub payload: String,
}

/// The transaction of one command.
#[derive(Debug)]
pub struct WriteTx<'a> {
    conn: &'a Connection,
    events: &'a mut Vec<StoredEvent>,
}

impl<'a> WriteTx<'a> {
    pub(super) fn new(conn: &'a Connection, events: &'a mut Vec<StoredEvent>) -> Self {
        Self { conn, events }
    }

    /// The connection, inside the command's savepoint. Do not begin or end transactions on it.
    pub fn conn(&self) -> &Connection {
        self.conn
    }

    /// Appends a durable event to the log and answers its number.
    ///
    /// # Errors
    /// `Internal` for an ephemeral event, or when the database has no log (the root database).
    pub fn publish(
        &mut self,
        room: Room,
        at: i64,
        by: Option<&UserId>,
        event: &Event,
    ) -> Result<u64, StoreError> {
        if event.kind() == EventKind::Ephemeral {
            return Err(StoreError::internal(format!("`{}` is not durable", event.name())));
        }
        let payload = payload_of(event)?;
        let seq = self.next_seq(payload.len() + EVENT_BYTES)?;
        let prev = self.advance_room(&room, seq)?;
        let name = event.name().to_owned();
        let event = StoredEvent { seq, prev, room, at, by: by.cloned(), name, payload };
        self.append(&event)?;
        self.events.push(event);
        Ok(seq)
    }

    /// The number of an event that adds so many bytes to the log.
    fn next_seq(&self, bytes: usize) -> Result<u64, StoreError> {
        let sql = "UPDATE meta SET last_seq = last_seq + 1, events_bytes = events_bytes + ?1
                   RETURNING last_seq";
        Ok(self.conn.prepare_cached(sql)?.query_row([bytes], |row| row.get(0))?)
    }

    /// Makes `seq` the head of the room and answers the head before it.
    fn advance_room(&self, room: &Room, seq: u64) -> Result<u64, StoreError> {
        let room = room.to_string();
        let sql = "SELECT head FROM rooms WHERE room = ?1";
        let prev =
            self.conn.prepare_cached(sql)?.query_row([&room], |row| row.get(0)).optional()?;
        let sql = "INSERT INTO rooms (room, head) VALUES (?1, ?2)
                   ON CONFLICT (room) DO UPDATE SET head = excluded.head";
        self.conn.prepare_cached(sql)?.execute(params![room, seq])?;
        Ok(prev.unwrap_or(0))
    }

    fn append(&self, event: &StoredEvent) -> Result<(), StoreError> {
        let sql = "INSERT INTO events (seq, room, prev, at, user_id, name, payload)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        self.conn.prepare_cached(sql)?.execute(params![
            event.seq,
            event.room.to_string(),
            event.prev,
            event.at,
            event.by.as_ref().map(UserId::as_str),
            event.name,
            event.payload,
        ])?;
        Ok(())
    }
}

/// The payload alone: an event serialises with its name around it.
fn payload_of(event: &Event) -> Result<String, StoreError> {
    #[derive(Deserialize)]
    struct Tagged<'a> {
        #[serde(borrow)]
        payload: &'a RawValue,
    }
    let text = serde_json::to_string(event)?;
    let tagged: Tagged<'_> = serde_json::from_str(&text)?;
    Ok(tagged.payload.get().to_owned())
}
