//! Connections that are joining rooms: one that leaves meanwhile, or loses the right, joins none of those
//! that are still to come.

use std::collections::HashMap;
use std::sync::Arc;

use iris_protocol::{ConnectionId, ErrorCode, Room, UserId};

use super::Follower;

/// As many as there are such requests.
#[derive(Default)]
pub(in crate::project) struct UnderWay {
    by_number: HashMap<u64, Arrival>,
    /// Of the last one.
    number: u64,
}

struct Arrival {
    by: Arc<Follower>,
    /// What it left since it came.
    left: Vec<Room>,
    /// Why it joins nothing more.
    refused: Option<ErrorCode>,
}

impl UnderWay {
    /// Somebody begins; answers the number by which that is known.
    pub(super) fn begin(&mut self, by: &Arc<Follower>) -> u64 {
        self.number += 1;
        let arrival = Arrival { by: Arc::clone(by), left: Vec::new(), refused: None };
        self.by_number.insert(self.number, arrival);
        self.number
    }

    pub(super) fn end(&mut self, number: u64) {
        self.by_number.remove(&number);
    }

    /// Why a room is not joined any more, if it is not.
    pub(super) fn refusal(&self, number: u64, room: &Room) -> Option<ErrorCode> {
        // One that is not known began in an earlier life of the registry.
        let Some(arrival) = self.by_number.get(&number) else { return Some(ErrorCode::Conflict) };
        arrival.refused.or(arrival.left.contains(room).then_some(ErrorCode::Conflict))
    }

    /// A connection leaves these rooms, or all of them.
    pub(super) fn leave(&mut self, connection_id: &ConnectionId, rooms: Option<&[Room]>) {
        for arrival in self.by_number.values_mut().filter(|a| a.by.connection_id == *connection_id)
        {
            match rooms {
                Some(rooms) => arrival.left.extend_from_slice(rooms),
                None => arrival.refused = Some(ErrorCode::Conflict),
            }
        }
    }

    /// This one joins nothing more.
    pub(super) fn refuse(&mut self, number: u64, code: ErrorCode) {
        if let Some(arrival) = self.by_number.get_mut(&number) {
            arrival.refused = Some(code);
        }
    }

    /// These lost the right to hear the project.
    pub(super) fn evict(&mut self, is_out: impl Fn(&ConnectionId, &UserId) -> bool) {
        for arrival in self.by_number.values_mut() {
            if is_out(&arrival.by.connection_id, &arrival.by.user_id) {
                arrival.refused = Some(ErrorCode::NotFound);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use iris_protocol::SessionId;

    use super::*;

    fn follower(connection: u128, user: u128) -> Arc<Follower> {
        Arc::new(Follower {
            connection_id: ConnectionId::from_bits(connection),
            user_id: UserId::from_bits(user),
            username: String::new(),
            deltas: true,
            presence: false,
            outbound: Arc::default(),
        })
    }

    fn room(number: u128) -> Room {
        Room::Session(SessionId::from_bits(number))
    }

    #[test]
    fn who_leaves_a_room_before_it_is_joined_does_not_join_it() {
        let mut under_way = UnderWay::default();
        let [one, other] = [1, 2].map(|number| under_way.begin(&follower(number, 1)));
        under_way.leave(&ConnectionId::from_bits(1), Some(&[room(1)]));
        assert_eq!(under_way.refusal(one, &room(1)), Some(ErrorCode::Conflict));
        assert_eq!(under_way.refusal(one, &room(2)), None);
        assert_eq!(under_way.refusal(other, &room(1)), None);
        under_way.leave(&ConnectionId::from_bits(1), None);
        assert_eq!(under_way.refusal(one, &room(2)), Some(ErrorCode::Conflict));
        // Who comes back afterwards joins.
        let again = under_way.begin(&follower(1, 1));
        assert_eq!(under_way.refusal(again, &room(1)), None);
    }

    #[test]
    fn who_loses_the_right_joins_nothing_more() {
        let mut under_way = UnderWay::default();
        let [one, other] = [1, 2].map(|user| under_way.begin(&follower(user, user)));
        under_way.evict(|_, user_id| *user_id == UserId::from_bits(1));
        assert_eq!(under_way.refusal(one, &room(1)), Some(ErrorCode::NotFound));
        assert_eq!(under_way.refusal(other, &room(1)), None);
        under_way.end(other);
        assert_eq!(under_way.refusal(other, &room(1)), Some(ErrorCode::Conflict));
    }
}
