//! The last event of each room that somebody hears.

use std::collections::{BTreeMap, HashMap};

use actix::prelude::*;
use iris_protocol::{ConnectionId, Position, Room};
use iris_store::StoredEvent;

use super::Project;

/// Rooms that are remembered although nobody may hear them any more; of those that somebody hears
/// there are as many as connections may join.
const UNHEARD_MAX: usize = 1024;

/// What is known of them. A number that is known stays right, because every event passes here.
#[derive(Debug, Default)]
pub(super) struct Heads {
    seqs: HashMap<Room, u64>,
    /// How many are held before those that nobody hears are forgotten.
    forget_at: usize,
}

impl Heads {
    /// An event was published, in a room that somebody hears or not. Where somebody does it is noted: a
    /// look into the database that is on its way may be older.
    pub(super) fn published(&mut self, event: &StoredEvent, is_heard: bool) {
        if let Some(head) = self.seqs.get_mut(&event.room) {
            *head = event.seq;
        } else if is_heard {
            self.seqs.insert(event.room.clone(), event.seq);
        }
    }

    pub(super) fn of(&self, room: &Room) -> Option<u64> {
        self.seqs.get(room).copied()
    }

    /// Notes the last event of a room, unless a later one was published meanwhile.
    pub(super) fn note(&mut self, room: &Room, seq: u64, is_heard: impl Fn(&Room) -> bool) {
        if self.seqs.len() >= self.forget_at.max(UNHEARD_MAX) {
            self.seqs.retain(|room, _| is_heard(room));
            self.forget_at = self.seqs.len() + UNHEARD_MAX;
        }
        let head = self.seqs.entry(room.clone()).or_default();
        *head = seq.max(*head);
    }
}

/// Ask: the last event of each of these rooms that a connection hears.
#[derive(Message)]
#[rtype(result = "BTreeMap<String, Position>")]
pub(crate) struct RoomHeads {
    pub(crate) connection_id: ConnectionId,
    pub(crate) rooms: Vec<Room>,
}

impl Handler<RoomHeads> for Project {
    type Result = MessageResult<RoomHeads>;

    fn handle(&mut self, asked: RoomHeads, _: &mut Context<Self>) -> Self::Result {
        let RoomHeads { connection_id, rooms } = asked;
        let heard = rooms.into_iter().filter(|room| self.rooms.hears(room, &connection_id));
        let heads = heard.filter_map(|room| {
            let seq = self.heads.of(&room)?;
            Some((room.to_string(), Position { epoch: self.epoch.to_string(), seq }))
        });
        MessageResult(heads.collect())
    }
}

#[cfg(test)]
mod tests {
    use iris_protocol::SessionId;

    use super::*;

    #[test]
    fn an_event_that_is_published_while_the_database_is_read_is_the_last_one() {
        let room = Room::Session(SessionId::from_bits(1));
        let event = StoredEvent {
            seq: 6,
            prev: 5,
            room: room.clone(),
            name: "session.updated".to_owned(),
            payload: "{}".to_owned(),
            at: 0,
            by: None,
        };
        let mut heads = Heads::default();
        heads.published(&event, false);
        assert_eq!(heads.of(&room), None);
        heads.published(&event, true);
        heads.note(&room, 5, |_| true);
        assert_eq!(heads.of(&room), Some(6));
    }
}
