//! What a client knows of one session, and what it tells its caller when something arrives.

use std::time::Duration;

use iris_protocol::{
    Event, EventFrame, Heartbeat, MessageId, PartId, Position, Presence, Room, SessionId,
    SessionSnapshot, StreamKind,
};

use crate::{Admission, PartChange, PartTracker, RoomTracker};

/// What the caller of a [`crate::Follower`] hears.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// The connection is there and the session is joined.
    Connected,
    /// The whole session as it is now; what was known before is void. Always the first update of a
    /// session that is followed without a position.
    Reset(Box<SessionSnapshot>),
    /// The text of a part changed: cut it at `offset`, then append `delta`.
    Text {
        /// The message.
        message_id: MessageId,
        /// The part.
        part_id: PartId,
        /// What the part holds.
        kind: StreamKind,
        /// Bytes of UTF-8 that stay. Less than what was there when the part starts over.
        offset: u64,
        /// What follows them; empty when the part only starts over.
        delta: String,
    },
    /// Something happened. Never a delta or a snapshot of a part: these come as `Text`.
    Event(Box<EventFrame>),
    /// Who is present in the project now, in the order of their ids; where that was asked for.
    Presence(Vec<Presence>),
    /// The connection is gone and will be tried again. Nothing is lost.
    Reconnecting {
        /// Why it is gone.
        reason: String,
        /// How long until the next attempt.
        delay: Duration,
    },
}

/// What became of a frame.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Received {
    /// For the caller, in order.
    pub updates: Vec<Update>,
    /// Whether something is missing: subscribe again since [`SessionFeed::position`].
    pub gap: bool,
}

/// Turns the frames of a session's room into updates: none missing, none twice.
#[derive(Debug)]
pub struct SessionFeed {
    room: Room,
    order: RoomTracker,
    parts: PartTracker,
}

impl SessionFeed {
    /// Goes on from a snapshot of the session.
    pub fn from_snapshot(snapshot: &SessionSnapshot) -> Self {
        Self {
            room: Room::Session(snapshot.session.id.clone()),
            order: RoomTracker::new(snapshot.as_of.clone()),
            parts: PartTracker::from_messages(&snapshot.messages),
        }
    }

    /// Goes on from a position that the caller remembers.
    pub fn resume(session_id: SessionId, since: Position) -> Self {
        Self {
            room: Room::Session(session_id),
            order: RoomTracker::new(since),
            parts: PartTracker::default(),
        }
    }

    /// The session's room.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// Where the next subscription starts.
    pub fn position(&self) -> &Position {
        self.order.position()
    }

    /// Notes that the room is joined and that the server replays every event up to `to_seq`.
    pub fn subscribed(&mut self, to_seq: u64) {
        self.order.subscribed(to_seq);
    }

    /// Whether a heartbeat names an event of the room that never came: subscribe again since
    /// [`SessionFeed::position`].
    pub fn misses(&self, heartbeat: &Heartbeat) -> bool {
        let head = heartbeat.rooms.get(&self.room.to_string());
        head.is_some_and(|head| self.order.misses(head))
    }

    /// Takes a frame. One of another room is ignored.
    pub fn receive(&mut self, frame: EventFrame) -> Received {
        let mut received = Received::default();
        if frame.meta.room != self.room {
            return received;
        }
        match self.order.admit(&frame.meta) {
            Admission::Deliver => {}
            Admission::Drop => return received,
            Admission::Gap => {
                received.gap = true;
                return received;
            }
        }
        match self.parts.apply(&frame.event) {
            PartChange::Piece(piece) => received.updates.push(Update::Text {
                message_id: piece.message_id,
                part_id: piece.part_id,
                kind: piece.kind,
                offset: piece.offset,
                delta: piece.delta,
            }),
            PartChange::Nothing => {}
            PartChange::Gap => received.gap = true,
        }
        if !is_streamed_text(&frame.event) {
            received.updates.push(Update::Event(Box::new(frame)));
        }
        received
    }
}

fn is_streamed_text(event: &Event) -> bool {
    matches!(
        event,
        Event::MessageTextDelta { .. }
            | Event::MessageReasoningDelta { .. }
            | Event::MessagePartSnapshot { .. }
    )
}
