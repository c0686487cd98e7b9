//! The place of a client in one room, and whether the next durable event belongs there.

use iris_protocol::{EventMeta, Position};

/// What to do with a durable event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is the next one.
    Deliver,
    /// It was seen, or a replay that is on its way brings it in its place: drop it.
    Drop,
    /// Something before it is missing: subscribe again with [`RoomTracker::position`].
    Gap,
}

/// Follows `(epoch, seq)` of one room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomTracker {
    position: Position,
    /// Whether `position.seq` is an event of this very room. The position of a snapshot counts for
    /// the whole project, so the room's last event may be an earlier one.
    is_event: bool,
    /// The server said that it sends every event up to here.
    promised_seq: u64,
}

impl RoomTracker {
    /// Starts after a position: the `asOf` of a snapshot, or where another connection ended.
    pub fn new(position: Position) -> Self {
        Self { position, is_event: false, promised_seq: 0 }
    }

    /// Where the next subscription starts.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Notes that the server replays every event up to `to_seq`.
    pub fn subscribed(&mut self, to_seq: u64) {
        self.promised_seq = to_seq;
        self.is_event = false;
    }

    /// Whether the room has an event after those that came or are on their way.
    pub fn misses(&self, head: &Position) -> bool {
        let known = self.position.seq.max(self.promised_seq);
        head.epoch == self.position.epoch && head.seq > known
    }

    /// Judges an event of the room, and advances when it is the next one. Ephemeral events, which
    /// have no number, are always delivered.
    pub fn admit(&mut self, meta: &EventMeta) -> Admission {
        let Some(seq) = meta.seq else { return Admission::Deliver };
        if seq <= self.position.seq {
            return Admission::Drop;
        }
        let prev = meta.prev.unwrap_or(0);
        let follows =
            if self.is_event { prev == self.position.seq } else { prev <= self.position.seq };
        if follows {
            self.position.seq = seq;
            self.is_event = true;
            return Admission::Deliver;
        }
        if seq <= self.promised_seq { Admission::Drop } else { Admission::Gap }
    }
}

#[cfg(test)]
mod tests {
    use iris_protocol::{ProjectId, Room, SessionId};
    use proptest::prelude::*;

    use super::*;

    fn position(seq: u64) -> Position {
        Position { epoch: "e".to_owned(), seq }
    }

    fn event(seq: u64, prev: u64) -> EventMeta {
        EventMeta {
            project_id: Some(ProjectId::from_bits(1)),
            room: Room::Session(SessionId::from_bits(1)),
            seq: Some(seq),
            prev: Some(prev),
            at: None,
            by: None,
        }
    }

    #[test]
    fn an_event_follows_a_snapshot_that_is_newer_than_the_rooms_last_event() {
        let mut room = RoomTracker::new(position(100));
        assert_eq!(room.admit(&event(105, 90)), Admission::Deliver);
        assert_eq!(room.admit(&event(107, 90)), Admission::Gap);
        assert_eq!(room.admit(&event(106, 105)), Admission::Deliver);
    }

    #[test]
    fn a_missed_event_is_a_gap_until_a_replay_is_promised() {
        let mut room = RoomTracker::new(position(5));
        assert_eq!(room.admit(&event(8, 7)), Admission::Gap);
        room.subscribed(9);
        assert_eq!(room.admit(&event(9, 8)), Admission::Drop);
        for seq in 6..=9 {
            assert_eq!(room.admit(&event(seq, seq - 1)), Admission::Deliver);
        }
        assert_eq!(room.admit(&event(9, 8)), Admission::Drop);
        assert_eq!(room.admit(&event(11, 10)), Admission::Gap);
    }

    #[test]
    fn a_head_after_all_that_came_or_was_promised_is_missing() {
        let mut tracker = RoomTracker::new(position(3));
        assert!(!tracker.misses(&position(3)));
        assert!(tracker.misses(&position(4)));
        tracker.subscribed(5);
        assert!(!tracker.misses(&position(5)));
        assert!(tracker.misses(&position(6)));
        assert!(!tracker.misses(&Position { epoch: "other".to_owned(), seq: 6 }));
    }

    proptest! {
        #[test]
        fn every_event_is_delivered_once_and_in_order(
            steps in prop::collection::vec(1_u64..4, 1..40),
            repeats in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let mut events = Vec::new();
            let mut last = 0;
            for step in steps {
                events.push(event(last + step, last));
                last += step;
            }
            let mut sent = events.clone();
            for index in repeats {
                // A repeat comes after the event itself, as a replay of what is already there.
                let index = index.index(events.len());
                let place = sent.iter().position(|e| *e == events[index]).unwrap() + 1;
                sent.insert(place, events[index].clone());
            }
            let mut room = RoomTracker::new(position(0));
            let delivered: Vec<_> =
                sent.into_iter().filter(|e| room.admit(e) == Admission::Deliver).collect();
            prop_assert_eq!(delivered, events);
        }
    }
}
