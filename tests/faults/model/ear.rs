//! What one listener heard, and whether a server may have said it.

use std::collections::{BTreeMap, HashMap};

use iris_protocol::{
    Event, EventFrame, Message, MessageId, MessageState, Part, PartId, Position, Room, RoomOutcome,
    RoomStatus, Session, SessionSnapshot, Usage,
};

/// What a client makes of a session: all of its messages, and what its events tell of the session itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Known {
    session: Option<Session>,
    messages: BTreeMap<MessageId, Message>,
}

/// What no event of the room tells at once.
fn told(session: &Session) -> Session {
    let (usage, message_count, updated_at) = (Usage::default(), 0, 0);
    Session { usage, message_count, updated_at, ..session.clone() }
}

/// The event of an error says neither what came before nor which of the states of failures it is.
fn told_of(message: &Message) -> Message {
    let message = message.clone();
    match message.error {
        Some(_) => {
            let (state, finish_reason, usage) = (MessageState::Error, None, None);
            Message { state, finish_reason, usage, ..message }
        }
        None => message,
    }
}

impl Known {
    pub(super) fn of(snapshot: &SessionSnapshot) -> Self {
        let messages = snapshot.messages.iter().map(|it| (it.id.clone(), told_of(it)));
        Self { session: Some(told(&snapshot.session)), messages: messages.collect() }
    }

    fn apply(&mut self, EventFrame { meta, event }: &EventFrame) {
        let session = self.session.as_mut();
        match event {
            Event::SessionUpdated { session: changed } => {
                let state = session.map_or(changed.state, |session| session.state);
                self.session = Some(Session { state, ..told(changed) });
            }
            Event::SessionStatus { state, .. } => {
                if let Some(session) = session {
                    session.state = *state;
                }
            }
            Event::MessageCreated { message, .. } => {
                self.messages.insert(message.id.clone(), message.clone());
            }
            Event::MessageUpdated { message, .. } => {
                self.change(&message.id, |known| {
                    let parts = std::mem::take(&mut known.parts);
                    *known = Message { parts, ..told_of(message) };
                });
            }
            Event::MessageTextComplete { message_id, part_id, text, interrupted, .. } => {
                let (id, text, interrupted) = (part_id.clone(), text.clone(), *interrupted);
                let part = Part::Text { id, text, interrupted };
                self.change(message_id, |known| known.parts.push(part));
            }
            Event::MessageStepFinished {
                message_id,
                part_id,
                index,
                usage,
                price_version,
                finish_reason,
                answered_by,
                raw_finish_reason,
                ..
            } => {
                let part = Part::Step {
                    id: part_id.clone(),
                    index: *index,
                    usage: *usage,
                    price_version: price_version.clone(),
                    finish_reason: *finish_reason,
                    answered_by: answered_by.clone(),
                    raw_finish_reason: raw_finish_reason.clone(),
                };
                self.change(message_id, |known| known.parts.push(part));
            }
            Event::MessageComplete { message_id, finish_reason, usage, .. } => {
                self.change(message_id, |known| {
                    known.state = MessageState::Complete;
                    (known.finish_reason, known.usage) = (Some(*finish_reason), Some(*usage));
                    known.completed_at = meta.at;
                });
            }
            Event::MessageError { message_id, error, .. } => {
                self.change(message_id, |known| {
                    (known.error, known.completed_at) = (Some(error.clone()), meta.at);
                    *known = told_of(known);
                });
            }
            _ => {}
        }
    }

    fn change(&mut self, id: &MessageId, change: impl FnOnce(&mut Message)) {
        if let Some(message) = self.messages.get_mut(id) {
            change(message);
        }
    }
}

/// One room.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Where it began to listen; later the last event.
    pub(super) position: Option<Position>,
    /// Before the first event.
    pub(super) began_at: u64,
    /// Whether the position is an event of this room.
    is_event: bool,
    pub(super) is_joined: bool,
    /// Every durable one since.
    pub(super) events: Vec<EventFrame>,
    pub(super) known: Known,
    /// Text that streams, from its first byte on.
    streams: HashMap<PartId, String>,
    /// It was joined again while it was heard: what came in between comes twice, up to here.
    twice_until: Option<u64>,
}

/// All rooms.
#[derive(Debug, Default)]
pub(super) struct Ear {
    pub(super) rooms: HashMap<Room, Heard>,
    /// What no server may do.
    pub(super) wrongs: Vec<String>,
    /// For whoever looks whether the plans do anything.
    pub(super) joins: usize,
    pub(super) pieces: usize,
}

impl Ear {
    pub(super) fn position(&self, room: &Room) -> Option<Position> {
        self.rooms.get(room)?.position.clone()
    }

    /// Begins with a snapshot.
    pub(super) fn begin(&mut self, room: &Room, at: &Position, known: Known) {
        let (position, began_at) = (Some(at.clone()), at.seq);
        let heard = Heard { position, began_at, known, ..Heard::default() };
        self.rooms.insert(room.clone(), heard);
    }

    /// `is_again` says whether it may have been heard until now.
    pub(super) fn joined(&mut self, room: &Room, outcome: &RoomOutcome, is_again: bool) {
        let heard = self.rooms.entry(room.clone()).or_default();
        let since = heard.position.as_ref().map(|position| position.seq);
        match outcome.status {
            RoomStatus::Replayed if Some(outcome.from) == since => {
                heard.is_joined = true;
                heard.twice_until = is_again.then_some(outcome.to);
                // What streams is told anew.
                heard.streams.clear();
                self.joins += 1;
            }
            RoomStatus::Live | RoomStatus::Replayed | RoomStatus::Reset | RoomStatus::Refused => {
                self.wrongs.push(format!("{room} since {since:?}: {outcome:?}"));
            }
        }
    }

    /// Nothing is joined on a new connection.
    pub(super) fn disconnected(&mut self) {
        for heard in self.rooms.values_mut() {
            heard.is_joined = false;
        }
    }

    pub(super) fn hear(&mut self, frame: EventFrame) {
        let room = frame.meta.room.clone();
        let Some(heard) = self.rooms.get_mut(&room).filter(|heard| heard.is_joined) else {
            return self.wrongs.push(format!("not joined: {frame:?}"));
        };
        if let Event::RoomLeft { .. } = frame.event {
            heard.is_joined = false;
        } else if let Err(wrong) = heard.hear(frame) {
            self.wrongs.push(format!("{room}: {wrong}"));
        } else {
            self.pieces += heard.streams.len();
        }
    }

    pub(super) fn is_joined(&self, room: &Room) -> bool {
        self.rooms.get(room).is_some_and(|heard| heard.is_joined)
    }

    /// The last event of any room.
    pub(super) fn last(&self) -> u64 {
        let positions = self.rooms.values().filter_map(|heard| heard.position.as_ref());
        positions.map(|position| position.seq).max().unwrap_or_default()
    }

    /// Whether a room is heard up to this event, which is its last.
    pub(super) fn is_at(&self, room: &Room, head: u64) -> bool {
        self.is_joined(room) && self.position(room).is_some_and(|position| position.seq >= head)
    }
}

impl Heard {
    fn hear(&mut self, frame: EventFrame) -> Result<(), String> {
        let (Some(seq), Some(position)) = (frame.meta.seq, &mut self.position) else {
            return self.stream(&frame.event);
        };
        let (prev, last) = (frame.meta.prev.unwrap_or_default(), position.seq);
        if seq <= last && self.twice_until.is_some_and(|until| seq <= until) {
            return Ok(());
        }
        if seq <= last {
            return Err(format!("{seq} again after {last}"));
        }
        let follows = if self.is_event { prev == last } else { prev <= last };
        if !follows {
            return Err(format!("a gap: {seq} follows {prev}, not {last}"));
        }
        (position.seq, self.is_event) = (seq, true);
        self.known.apply(&frame);
        let ended = self.end(&frame.event);
        self.events.push(frame);
        ended
    }

    /// Pieces have to follow each other, unless a snapshot takes their place.
    fn stream(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::MessageTextDelta { part_id, offset, delta, .. } => {
                let text = self.streams.entry(part_id.clone()).or_default();
                let (have, offset) = (text.len(), usize::try_from(*offset).unwrap());
                let Some(new) = (have >= offset).then(|| delta.get(have - offset..)).flatten()
                else {
                    self.streams.remove(part_id);
                    // It may be a piece from before.
                    return self
                        .twice_until
                        .map(|_| ())
                        .ok_or_else(|| format!("{part_id}: a piece at {offset} for {have} bytes"));
                };
                text.push_str(new);
            }
            Event::MessagePartSnapshot { part_id, length, text, .. } => {
                let have = self.streams.insert(part_id.clone(), text.clone()).unwrap_or_default();
                if !text.starts_with(&have) || *length != text.len() as u64 {
                    return Err(format!("{part_id}: {text:?} in place of {have:?}"));
                }
            }
            Event::MessagePartRemoved { part_id, .. } => {
                self.streams.remove(part_id);
            }
            _ => {}
        }
        Ok(())
    }

    /// The end of a text has all of its pieces; of one that was cut off some may be lost.
    fn end(&mut self, event: &Event) -> Result<(), String> {
        let Event::MessageTextComplete { part_id, text, interrupted, .. } = event else {
            return Ok(());
        };
        let have = self.streams.remove(part_id).unwrap_or_default();
        if *interrupted || text.starts_with(&have) {
            return Ok(());
        }
        Err(format!("{part_id}: {have:?} streamed of {text:?}"))
    }
}

#[cfg(test)]
mod tests {
    use iris_protocol::{ErrorCode, EventMeta, ProjectId, SessionId, SessionState};

    use super::*;

    fn event(seq: u64, prev: u64) -> EventFrame {
        let meta = EventMeta {
            project_id: None,
            room: Room::Project(ProjectId::from_bits(1)),
            seq: Some(seq),
            prev: Some(prev),
            at: None,
            by: None,
        };
        let (session_id, state) = (SessionId::from_bits(1), SessionState::Idle);
        EventFrame { meta, event: Event::session_status(session_id, state) }
    }

    #[test]
    fn what_no_server_may_do_is_noticed() {
        let room = event(1, 0).meta.room;
        let left = Event::RoomLeft { room: room.to_string(), code: ErrorCode::NotFound };
        let left = EventFrame { meta: EventMeta { seq: None, ..event(1, 0).meta }, event: left };
        for (frames, wrong) in [
            (vec![event(6, 4), event(7, 6)], None),
            (vec![event(5, 4)], Some("again")),
            (vec![event(6, 5), event(6, 5)], Some("again")),
            (vec![event(8, 6)], Some("a gap")),
            (vec![event(6, 4), event(8, 7)], Some("a gap")),
            (vec![left, event(6, 4)], Some("not joined")),
        ] {
            let mut ear = Ear::default();
            let at = Position { epoch: "e".to_owned(), seq: 5 };
            ear.begin(&room, &at, Known::default());
            ear.rooms.get_mut(&room).unwrap().is_joined = true;
            for frame in frames {
                ear.hear(frame);
            }
            let first = ear.wrongs.first().map_or("", String::as_str);
            assert!(wrong.map_or(first.is_empty(), |wrong| first.contains(wrong)), "{first}");
        }
    }
}
