//! Who writes a message where. A user writes in one session at a time, so there are never more writers
//! than users who are present.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use iris_protocol::{Event, SessionId, UserId};
use tokio::time::Instant;

#[derive(Debug)]
struct Writes {
    session_id: SessionId,
    until: Instant,
}

/// Everybody who writes in one project.
#[derive(Debug, Default)]
pub(super) struct Typing {
    writers: BTreeMap<UserId, Writes>,
    /// What the rooms were told last, of those where it is not nobody.
    told: HashMap<SessionId, Vec<UserId>>,
    /// Sessions whose rooms may have to be told something.
    changed: BTreeSet<SessionId>,
}

impl Typing {
    pub(super) fn is_empty(&self) -> bool {
        self.writers.is_empty()
    }

    pub(super) fn count(&self) -> usize {
        self.writers.len()
    }

    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// A user writes until then, and nowhere else.
    pub(super) fn start(&mut self, user_id: UserId, session_id: SessionId, until: Instant) {
        self.changed.insert(session_id.clone());
        if let Some(before) = self.writers.insert(user_id, Writes { session_id, until }) {
            self.changed.insert(before.session_id);
        }
    }

    /// A user does not write any more in this session; in any when none is named.
    pub(super) fn stop(&mut self, user_id: &UserId, session_id: Option<&SessionId>) {
        let Some(writes) = self.writers.get(user_id) else { return };
        if session_id.is_none_or(|session_id| *session_id == writes.session_id) {
            self.changed.insert(writes.session_id.clone());
            self.writers.remove(user_id);
        }
    }

    pub(super) fn stop_all(&mut self) {
        let stopped = std::mem::take(&mut self.writers).into_values();
        self.changed.extend(stopped.map(|writes| writes.session_id));
    }

    /// Whoever did not repeat it does not write any more.
    pub(super) fn expire(&mut self, now: Instant) {
        self.writers.retain(|_, writes| {
            let goes_on = writes.until > now;
            if !goes_on {
                self.changed.insert(writes.session_id.clone());
            }
            goes_on
        });
    }

    /// When [`Typing::expire`] has something to do next.
    pub(super) fn expires_at(&self) -> Option<Instant> {
        self.writers.values().map(|writes| writes.until).min()
    }

    /// What the room of a session was told last, for one who joins it; none where nobody writes.
    pub(super) fn show(&self, session_id: &SessionId) -> Option<Event> {
        let user_ids = self.told.get(session_id)?.clone();
        Some(Event::TypingUpdated { session_id: session_id.clone(), user_ids })
    }

    /// What rooms have to be told so that they know who writes now.
    pub(super) fn tell(&mut self) -> Vec<(SessionId, Event)> {
        let mut events = Vec::new();
        for session_id in std::mem::take(&mut self.changed) {
            let here = self.writers.iter().filter(|(_, writes)| writes.session_id == session_id);
            let user_ids: Vec<UserId> = here.map(|(user_id, _)| user_id.clone()).collect();
            let before = self.told.remove(&session_id).unwrap_or_default();
            if !user_ids.is_empty() {
                self.told.insert(session_id.clone(), user_ids.clone());
            }
            if before != user_ids {
                let event = Event::TypingUpdated { session_id: session_id.clone(), user_ids };
                events.push((session_id, event));
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn user(n: u128) -> UserId {
        UserId::from_bits(n)
    }

    fn session(n: u128) -> SessionId {
        SessionId::from_bits(n)
    }

    /// The sessions whose rooms are told something, and who writes there.
    fn told(typing: &mut Typing) -> Vec<(SessionId, Vec<UserId>)> {
        let told = typing.tell().into_iter().map(|(room, event)| {
            let Event::TypingUpdated { session_id, user_ids } = event else { panic!("{event:?}") };
            assert_eq!(session_id, room);
            (session_id, user_ids)
        });
        told.collect()
    }

    #[test]
    fn a_user_writes_until_the_time_is_over_unless_it_is_repeated() {
        let mut typing = Typing::default();
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        typing.start(user(1), session(1), now + 6 * second);
        typing.start(user(2), session(1), now + 6 * second);
        assert_eq!(told(&mut typing), [(session(1), vec![user(1), user(2)])]);
        typing.start(user(1), session(1), now + 9 * second);
        assert_eq!(told(&mut typing), []);
        assert_eq!(typing.expires_at(), Some(now + 6 * second));
        typing.expire(now + 6 * second);
        assert_eq!(told(&mut typing), [(session(1), vec![user(1)])]);
        typing.expire(now + 9 * second);
        assert_eq!(told(&mut typing), [(session(1), vec![])]);
        assert!(typing.is_empty() && typing.told.is_empty() && typing.expires_at().is_none());
    }

    #[test]
    fn a_user_writes_in_one_session() {
        let mut typing = Typing::default();
        let until = Instant::now();
        typing.start(user(1), session(1), until);
        told(&mut typing);
        typing.start(user(1), session(2), until);
        let both = [(session(1), vec![]), (session(2), vec![user(1)])];
        assert_eq!(told(&mut typing), both);
        typing.stop(&user(1), Some(&session(1)));
        assert_eq!(told(&mut typing), []);
        typing.stop(&user(1), Some(&session(2)));
        assert_eq!(told(&mut typing), [(session(2), vec![])]);
    }

    #[test]
    fn what_comes_to_nothing_is_not_told() {
        let mut typing = Typing::default();
        typing.start(user(1), session(1), Instant::now());
        typing.stop(&user(1), None);
        assert_eq!(told(&mut typing), []);
        assert_eq!(typing.show(&session(1)), None);
    }
}
