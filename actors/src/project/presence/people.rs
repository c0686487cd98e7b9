//! Who is present: the users of a project with their connections, and what the project's room was told
//! of each of them.
//!
//! A room is told what a user is now, not what they did: changes that come to nothing before they are
//! told are never told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use iris_protocol::{ConnectionId, Event, Presence, PresenceStatus, SessionId, UserId};
use tokio::time::Instant;

use crate::connection::Outbound;

/// Most connections of one user that count in a project.
const CONNECTIONS_OF_USER_MAX: usize = 32;

/// What somebody does, as one of their connections said it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Doing {
    pub(super) session_id: Option<SessionId>,
    pub(super) status: PresenceStatus,
}

/// A connection that hears a room of the project.
#[derive(Debug)]
pub(super) struct Newcomer<'a> {
    pub(super) connection_id: &'a ConnectionId,
    pub(super) user_id: &'a UserId,
    pub(super) username: &'a str,
    pub(super) outbound: &'a Arc<Outbound>,
}

#[derive(Debug)]
struct Connected {
    id: ConnectionId,
    outbound: Arc<Outbound>,
    doing: Doing,
    /// The number of the update that said so; the last one of a user counts.
    update: u64,
}

/// Whether a user is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stay {
    /// As long as they have a connection.
    Here,
    /// They have none, and may come back until then.
    Until(Instant),
    /// They left; the room was not told yet.
    Over,
}

#[derive(Debug)]
struct User {
    username: String,
    /// At most [`CONNECTIONS_OF_USER_MAX`].
    connections: Vec<Connected>,
    doing: Doing,
    stay: Stay,
    /// What the room was told last.
    told: Option<Presence>,
    /// Whether somebody was shown something else than that meanwhile.
    is_shown: bool,
}

/// Everybody who is present in one project.
#[derive(Debug, Default)]
pub(super) struct People {
    users: BTreeMap<UserId, User>,
    connections: HashMap<ConnectionId, UserId>,
    /// Users whom the room may have to be told of.
    changed: BTreeSet<UserId>,
    updates: u64,
}

impl People {
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// How many users and connections are counted.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.users.len(), self.connections.len())
    }

    pub(super) fn has(&self, user_id: &UserId) -> bool {
        self.users.contains_key(user_id)
    }

    pub(super) fn is_counted(&self, connection_id: &ConnectionId) -> bool {
        self.connections.contains_key(connection_id)
    }

    /// Counts a connection, unless `most` connections or users are counted already, or
    /// [`CONNECTIONS_OF_USER_MAX`] of its user: nobody takes the place of all others. One that is the
    /// first of a user who was gone for a moment goes on where that one was. Says whether it is counted only now.
    pub(super) fn connect(&mut self, newcomer: &Newcomer<'_>, most: usize) -> bool {
        let Newcomer { connection_id, user_id, username, outbound } = *newcomer;
        let own = self.users.get(user_id).map(|user| user.connections.len());
        if self.is_counted(connection_id)
            || self.connections.len() >= most
            || own.map_or(self.users.len() >= most, |own| own >= CONNECTIONS_OF_USER_MAX)
        {
            return false;
        }
        let user = self.users.entry(user_id.clone()).or_insert_with(|| User {
            username: username.to_owned(),
            connections: Vec::new(),
            doing: Doing::default(),
            stay: Stay::Here,
            told: None,
            is_shown: false,
        });
        if user.stay == Stay::Over {
            user.doing = Doing::default();
        }
        user.stay = Stay::Here;
        let (doing, update) = if user.connections.is_empty() {
            self.updates += 1;
            (user.doing.clone(), self.updates)
        } else {
            (Doing::default(), 0)
        };
        let (id, outbound) = (connection_id.clone(), Arc::clone(outbound));
        user.connections.push(Connected { id, outbound, doing, update });
        self.connections.insert(connection_id.clone(), user_id.clone());
        self.changed.insert(user_id.clone());
        true
    }

    /// Counts a connection no more. Answers its user when it was their last one: they are there until
    /// `until`, or left at once.
    pub(super) fn disconnect(
        &mut self,
        connection_id: &ConnectionId,
        until: Option<Instant>,
    ) -> Option<UserId> {
        let user_id = self.connections.remove(connection_id)?;
        let user = self.users.get_mut(&user_id)?;
        user.connections.retain(|connected| connected.id != *connection_id);
        if !user.connections.is_empty() {
            user.look();
            self.changed.insert(user_id);
            return None;
        }
        if let Some(until) = until {
            user.stay = Stay::Until(until);
        } else {
            user.stay = Stay::Over;
            self.changed.insert(user_id.clone());
        }
        Some(user_id)
    }

    /// Takes a user out, with all connections.
    pub(super) fn evict(&mut self, user_id: &UserId) {
        let Some(user) = self.users.get_mut(user_id) else { return };
        for connected in user.connections.drain(..) {
            self.connections.remove(&connected.id);
        }
        user.stay = Stay::Over;
        self.changed.insert(user_id.clone());
    }

    /// Notes what a connection says of its user. Says whether it is counted.
    pub(super) fn update(&mut self, connection_id: &ConnectionId, doing: Doing) -> bool {
        let Some(user_id) = self.connections.get(connection_id) else { return false };
        let Some(user) = self.users.get_mut(user_id) else { return false };
        self.updates += 1;
        let connected = user.connections.iter_mut().find(|c| c.id == *connection_id);
        if let Some(connected) = connected {
            (connected.doing, connected.update) = (doing, self.updates);
        }
        user.look();
        self.changed.insert(user_id.clone());
        true
    }

    /// Nobody looks at a session any more.
    pub(super) fn forget_session(&mut self, session_id: &SessionId) {
        for (user_id, user) in &mut self.users {
            let connections = user.connections.iter_mut().map(|connected| &mut connected.doing);
            for doing in connections.chain([&mut user.doing]) {
                if doing.session_id.as_ref() == Some(session_id) {
                    doing.session_id = None;
                    self.changed.insert(user_id.clone());
                }
            }
        }
    }

    /// Counts connections no more that ended without a word. Answers the users whose last ones they
    /// were: they are there until `until`.
    pub(super) fn sweep(&mut self, until: Instant) -> Vec<UserId> {
        let connections = self.users.values().flat_map(|user| &user.connections);
        let ended = connections.filter(|connected| connected.outbound.is_closed());
        let ended: Vec<ConnectionId> = ended.map(|connected| connected.id.clone()).collect();
        ended.iter().filter_map(|id| self.disconnect(id, Some(until))).collect()
    }

    /// Takes out who did not come back in time.
    pub(super) fn expire(&mut self, now: Instant) {
        for (user_id, user) in &mut self.users {
            if matches!(user.stay, Stay::Until(until) if until <= now) {
                user.stay = Stay::Over;
                self.changed.insert(user_id.clone());
            }
        }
    }

    /// When [`People::expire`] has something to do next.
    pub(super) fn expires_at(&self) -> Option<Instant> {
        let times = self.users.values().filter_map(|user| match user.stay {
            Stay::Until(until) => Some(until),
            Stay::Here | Stay::Over => None,
        });
        times.min()
    }

    /// Everybody who is present, for one who asks.
    pub(super) fn show(&mut self) -> Vec<Presence> {
        let mut shown = Vec::new();
        for (user_id, user) in &mut self.users {
            if let Some(presence) = user.presence(user_id) {
                user.is_shown |= user.told.as_ref() != Some(&presence);
                shown.push(presence);
            }
        }
        shown
    }

    /// What the room has to be told so that it knows everybody as they are now.
    pub(super) fn tell(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for user_id in std::mem::take(&mut self.changed) {
            let Some(user) = self.users.get_mut(&user_id) else { continue };
            let (now, is_shown) = (user.presence(&user_id), std::mem::take(&mut user.is_shown));
            let before = std::mem::replace(&mut user.told, now.clone());
            match (before, now) {
                (None, Some(presence)) => events.push(Event::PresenceJoined { presence }),
                (Some(before), Some(presence)) if is_shown || before != presence => {
                    events.push(Event::PresenceUpdated { presence });
                }
                (Some(_), Some(_)) => {}
                (before, None) => {
                    if before.is_some() || is_shown {
                        let presence = user.gone(&user_id);
                        events.push(Event::PresenceLeft { presence });
                    }
                    self.users.remove(&user_id);
                }
            }
        }
        events
    }
}

impl User {
    /// Takes over what the connection said that was updated last.
    fn look(&mut self) {
        if let Some(last) = self.connections.iter().max_by_key(|connected| connected.update) {
            self.doing = last.doing.clone();
        }
    }

    fn presence(&self, user_id: &UserId) -> Option<Presence> {
        match self.stay {
            Stay::Over => None,
            // Whoever is away for a moment is as they were, and had one connection.
            Stay::Here | Stay::Until(_) => Some(Presence {
                user_id: user_id.clone(),
                username: self.username.clone(),
                status: self.doing.status,
                session_id: self.doing.session_id.clone(),
                connections: u32::try_from(self.connections.len()).unwrap_or(u32::MAX).max(1),
            }),
        }
    }

    fn gone(&self, user_id: &UserId) -> Presence {
        Presence {
            user_id: user_id.clone(),
            username: self.username.clone(),
            status: self.doing.status,
            session_id: None,
            connections: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use iris_protocol::limits::PRESENCE_CONNECTIONS_MAX;

    use super::*;
    use crate::connection::CloseReason;

    fn user(n: u128) -> UserId {
        UserId::from_bits(n)
    }

    fn connection(n: u128) -> ConnectionId {
        ConnectionId::from_bits(n)
    }

    fn connect(people: &mut People, connection_bits: u128, user_bits: u128) -> Arc<Outbound> {
        let outbound = Arc::<Outbound>::default();
        let newcomer = Newcomer {
            connection_id: &connection(connection_bits),
            user_id: &user(user_bits),
            username: &format!("user {user_bits}"),
            outbound: &outbound,
        };
        people.connect(&newcomer, PRESENCE_CONNECTIONS_MAX);
        outbound
    }

    /// What the room is told: the last word of the event, the user and the number of connections.
    fn told(people: &mut People) -> Vec<(&'static str, UserId, u32)> {
        let told = people.tell().into_iter().map(|event| {
            let name = event.name().trim_start_matches("presence.");
            let (Event::PresenceJoined { presence }
            | Event::PresenceUpdated { presence }
            | Event::PresenceLeft { presence }) = event
            else {
                panic!("{event:?}")
            };
            (name, presence.user_id, presence.connections)
        });
        told.collect()
    }

    fn looks_at(n: u128) -> Doing {
        Doing { session_id: Some(SessionId::from_bits(n)), status: PresenceStatus::Busy }
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn a_user_is_there_once_and_until_the_last_connection() {
        let mut people = People::default();
        connect(&mut people, 1, 7);
        connect(&mut people, 2, 7);
        assert_eq!(told(&mut people), [("joined", user(7), 2)]);
        assert_eq!(people.disconnect(&connection(1), Some(later())), None);
        assert_eq!(told(&mut people), [("updated", user(7), 1)]);
        let until = later();
        assert_eq!(people.disconnect(&connection(2), Some(until)), Some(user(7)));
        assert_eq!(people.expires_at(), Some(until));
        people.expire(until - Duration::from_millis(1));
        assert_eq!(told(&mut people), []);
        assert_eq!(people.show().len(), 1);
        people.expire(until);
        assert_eq!(told(&mut people), [("left", user(7), 0)]);
        assert!(people.is_empty());
    }

    #[test]
    fn whoever_comes_back_in_time_was_never_away() {
        let mut people = People::default();
        connect(&mut people, 1, 7);
        assert!(people.update(&connection(1), looks_at(1)));
        people.tell();
        people.disconnect(&connection(1), Some(later()));
        connect(&mut people, 2, 7);
        assert_eq!(told(&mut people), []);
        assert_eq!(people.show()[0].session_id, looks_at(1).session_id);
    }

    #[test]
    fn what_comes_to_nothing_is_not_told_unless_somebody_saw_it() {
        let mut people = People::default();
        connect(&mut people, 1, 7);
        people.disconnect(&connection(1), None);
        assert_eq!(told(&mut people), []);
        assert!(people.is_empty());

        connect(&mut people, 1, 7);
        assert_eq!(people.show().len(), 1);
        people.evict(&user(7));
        assert_eq!(told(&mut people), [("left", user(7), 0)]);

        connect(&mut people, 2, 8);
        people.tell();
        people.update(&connection(2), looks_at(1));
        people.update(&connection(2), Doing::default());
        assert_eq!(told(&mut people), []);
        people.update(&connection(2), looks_at(1));
        people.show();
        people.update(&connection(2), Doing::default());
        assert_eq!(told(&mut people), [("updated", user(8), 1)]);
    }

    #[test]
    fn who_left_and_comes_before_it_is_told_begins_anew() {
        let mut people = People::default();
        connect(&mut people, 1, 7);
        people.update(&connection(1), looks_at(1));
        people.tell();
        people.evict(&user(7));
        connect(&mut people, 2, 7);
        assert_eq!(told(&mut people), [("updated", user(7), 1)]);
        assert_eq!(people.show()[0].session_id, None);
    }

    #[test]
    fn the_last_update_counts_as_long_as_its_connection() {
        let mut people = People::default();
        connect(&mut people, 1, 7);
        connect(&mut people, 2, 7);
        people.update(&connection(2), looks_at(2));
        people.update(&connection(1), looks_at(1));
        assert_eq!(people.show()[0].session_id, looks_at(1).session_id);
        people.disconnect(&connection(1), Some(later()));
        assert_eq!(people.show()[0].session_id, looks_at(2).session_id);
        assert!(!people.update(&connection(1), looks_at(1)));
    }

    #[test]
    fn nobody_looks_at_a_session_that_is_gone() {
        let mut people = People::default();
        connect(&mut people, 1, 7);
        connect(&mut people, 2, 8);
        people.update(&connection(1), looks_at(1));
        people.update(&connection(2), looks_at(2));
        people.tell();
        people.forget_session(&SessionId::from_bits(1));
        assert_eq!(told(&mut people), [("updated", user(7), 1)]);
        assert_eq!(people.show()[0].session_id, None);
    }

    #[test]
    fn a_connection_that_ended_without_a_word_is_noticed() {
        let mut people = People::default();
        let (first, _second) = (connect(&mut people, 1, 7), connect(&mut people, 2, 8));
        people.tell();
        let until = later();
        assert_eq!(people.sweep(until), []);
        first.close(CloseReason::new(1011, "internal error"));
        assert_eq!(people.sweep(until), [user(7)]);
        people.expire(until);
        assert_eq!(told(&mut people), [("left", user(7), 0)]);
    }

    #[test]
    fn nobody_takes_the_place_of_all_others() {
        let mut people = People::default();
        let many = CONNECTIONS_OF_USER_MAX as u128;
        for n in 0..=many {
            connect(&mut people, n, 7);
        }
        assert_eq!(people.counts(), (1, CONNECTIONS_OF_USER_MAX));
        assert!(!people.is_counted(&connection(many)));
        connect(&mut people, many + 1, 8);
        assert!(people.is_counted(&connection(many + 1)));
    }

    #[test]
    fn connections_beyond_the_limit_are_not_counted_nor_are_users() {
        let mut people = People::default();
        let most = PRESENCE_CONNECTIONS_MAX as u128;
        for n in 0..=most {
            connect(&mut people, n, n);
        }
        assert_eq!(people.counts(), (PRESENCE_CONNECTIONS_MAX, PRESENCE_CONNECTIONS_MAX));
        assert!(!people.is_counted(&connection(most)));
        assert!(!people.update(&connection(most), looks_at(1)));
        // Who may come back is kept room for.
        people.disconnect(&connection(0), Some(later()));
        connect(&mut people, most, most);
        assert!(!people.is_counted(&connection(most)));
        connect(&mut people, most, 0);
        assert!(people.is_counted(&connection(most)));
    }
}
