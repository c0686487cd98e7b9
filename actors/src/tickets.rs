//! Tickets that are good: secrets for a URL, because a browser can send no header with a WebSocket or
//! an event stream.
//!
//! Only hashes are kept, and in memory alone: after a restart a client asks for a new ticket. A ticket
//! stands for the access token that it was asked for with, so it says nothing of rights: they are
//! looked up with each use.

use std::collections::{HashMap, VecDeque};

use iris_auth::{AccessClaims, Ticket};
use iris_protocol::limits::{TICKETS_MAX, TICKETS_PER_USER_MAX};
use iris_protocol::{ApiError, ErrorCode, ProjectId, Room, UserId};
use iris_workspace::content_hash;
use parking_lot::Mutex;

/// How long a ticket may wait for its first use, in milliseconds.
pub(crate) const FIRST_USE_MS: i64 = 30_000;

/// What a ticket is used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TicketUse {
    /// A WebSocket; it is the only use.
    Socket,
    /// An event stream; the same one may be opened again.
    Stream {
        /// The project.
        project_id: ProjectId,
        /// The rooms, in any order.
        rooms: Vec<Room>,
    },
}

impl TicketUse {
    /// The same text for the same stream; none for a WebSocket.
    fn stream(&self) -> Option<String> {
        let Self::Stream { project_id, rooms } = self else { return None };
        let mut names: Vec<String> = rooms.iter().map(ToString::to_string).collect();
        names.sort_unstable();
        Some(content_hash(format!("{project_id} {}", names.join(",")).as_bytes()))
    }
}

type Hash = [u8; 32];

/// The tickets of a server.
#[derive(Debug)]
pub(crate) struct Tickets {
    kept: Mutex<Kept>,
    per_user_max: usize,
    max: usize,
}

#[derive(Debug, Default)]
struct Kept {
    tickets: HashMap<Hash, Good>,
    /// The oldest first.
    of_user: HashMap<UserId, VecDeque<Hash>>,
}

#[derive(Debug)]
struct Good {
    claims: AccessClaims,
    first_use_before: i64,
    /// The stream that it was used for.
    stream: Option<String>,
}

impl Good {
    /// From when on it is good no more, in milliseconds since 1970 UTC.
    fn ends_at(&self) -> i64 {
        let end = self.claims.expires_at_ms;
        if self.stream.is_some() { end } else { self.first_use_before.min(end) }
    }
}

impl Default for Tickets {
    fn default() -> Self {
        Self::bounded(TICKETS_PER_USER_MAX, TICKETS_MAX)
    }
}

impl Tickets {
    fn bounded(per_user_max: usize, max: usize) -> Self {
        Self { kept: Mutex::default(), per_user_max, max }
    }

    /// Takes a new ticket. Answers until when it has to be used for the first time.
    ///
    /// # Errors
    /// `OVERLOADED` when others' tickets fill the place for all of them.
    pub(crate) fn add(
        &self,
        ticket: &Ticket,
        claims: AccessClaims,
        now_ms: i64,
    ) -> Result<i64, ApiError> {
        let mut kept = self.kept.lock();
        kept.remove_ended_of(&claims.user_id, now_ms);
        let own = kept.of_user.get(&claims.user_id).map_or(0, VecDeque::len);
        if own >= self.per_user_max
            && let Some(oldest) = kept.of_user.get(&claims.user_id).and_then(|all| all.front())
        {
            let oldest = *oldest;
            kept.remove(&oldest);
        }
        if kept.tickets.len() >= self.max {
            kept.remove_ended(now_ms);
        }
        if kept.tickets.len() >= self.max {
            let message = "too many tickets are good at the same time";
            let wait_ms = FIRST_USE_MS.unsigned_abs();
            return Err(ApiError::new(ErrorCode::Overloaded, message).retry_after(wait_ms));
        }
        let hash = Ticket::hash_of(ticket.as_str());
        kept.of_user.entry(claims.user_id.clone()).or_default().push_back(hash);
        let first_use_before = now_ms.saturating_add(FIRST_USE_MS);
        let good = Good { claims, first_use_before, stream: None };
        let ends_at = good.ends_at();
        kept.tickets.insert(hash, good);
        Ok(ends_at)
    }

    /// Uses a ticket. Gives what the access token said that it was asked for with; none when it is
    /// not good for this.
    pub(crate) fn redeem(
        &self,
        ticket: &str,
        purpose: &TicketUse,
        now_ms: i64,
    ) -> Option<AccessClaims> {
        let (hash, stream) = (Ticket::hash_of(ticket), purpose.stream());
        let mut kept = self.kept.lock();
        let good = kept.tickets.get_mut(&hash)?;
        if good.ends_at() <= now_ms {
            kept.remove(&hash);
            return None;
        }
        if good.stream.is_some() && good.stream != stream {
            return None;
        }
        let claims = good.claims.clone();
        match stream {
            Some(_) => good.stream = stream,
            None => kept.remove(&hash),
        }
        Some(claims)
    }
}

impl Kept {
    fn remove(&mut self, hash: &Hash) {
        let Some(good) = self.tickets.remove(hash) else { return };
        let user_id = good.claims.user_id;
        if let Some(own) = self.of_user.get_mut(&user_id) {
            own.retain(|other| other != hash);
            if own.is_empty() {
                self.of_user.remove(&user_id);
            }
        }
    }

    /// So that no ticket that is good goes for one that is not.
    fn remove_ended_of(&mut self, user_id: &UserId, now_ms: i64) {
        let own = self.of_user.get(user_id).into_iter().flatten();
        let is_over =
            |hash: &&Hash| self.tickets.get(*hash).is_some_and(|it| it.ends_at() <= now_ms);
        for hash in own.filter(is_over).copied().collect::<Vec<_>>() {
            self.remove(&hash);
        }
    }

    fn remove_ended(&mut self, now_ms: i64) {
        let ended = self.tickets.iter().filter(|(_, good)| good.ends_at() <= now_ms);
        for hash in ended.map(|(hash, _)| *hash).collect::<Vec<_>>() {
            self.remove(&hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use iris_auth::Credential;
    use iris_protocol::AuthSessionId;

    use super::*;

    const NOW: i64 = 1_790_000_000_000;

    fn claims(user: u128) -> AccessClaims {
        AccessClaims {
            user_id: UserId::from_bits(user),
            credential: Credential::Login(AuthSessionId::from_bits(user)),
            epoch: 0,
            expires_at_ms: NOW + 900_000,
        }
    }

    fn add(tickets: &Tickets, user: u128, now_ms: i64) -> Result<Ticket, ApiError> {
        let ticket = Ticket::random().unwrap();
        tickets.add(&ticket, claims(user), now_ms).map(|_| ticket)
    }

    fn is_good(tickets: &Tickets, ticket: &Ticket, now_ms: i64) -> bool {
        tickets.redeem(ticket.as_str(), &TicketUse::Socket, now_ms).is_some()
    }

    #[test]
    fn the_oldest_ticket_of_a_user_goes_when_there_are_too_many() {
        let tickets = Tickets::bounded(2, 10);
        let all: Vec<Ticket> = (0..3).map(|_| add(&tickets, 1, NOW).unwrap()).collect();
        let of_another = add(&tickets, 2, NOW).unwrap();
        let good: Vec<bool> = all.iter().map(|ticket| is_good(&tickets, ticket, NOW)).collect();
        assert_eq!(good, [false, true, true]);
        assert!(is_good(&tickets, &of_another, NOW));
        let kept = tickets.kept.lock();
        assert!(kept.tickets.is_empty() && kept.of_user.is_empty());
    }

    #[test]
    fn a_ticket_that_is_good_does_not_go_for_one_that_ended() {
        let tickets = Tickets::bounded(2, 10);
        let streams = add(&tickets, 1, NOW).unwrap();
        let stream = TicketUse::Stream { project_id: ProjectId::from_bits(1), rooms: Vec::new() };
        assert!(tickets.redeem(streams.as_str(), &stream, NOW).is_some());
        add(&tickets, 1, NOW).unwrap();
        add(&tickets, 1, NOW + FIRST_USE_MS).unwrap();
        assert!(tickets.redeem(streams.as_str(), &stream, NOW + FIRST_USE_MS).is_some());
    }

    #[test]
    fn when_there_is_no_place_for_more_those_that_ended_make_place() {
        let tickets = Tickets::bounded(2, 2);
        add(&tickets, 1, NOW).unwrap();
        let later = add(&tickets, 2, NOW + 1).unwrap();
        let refused = add(&tickets, 3, NOW + 1).unwrap_err();
        assert_eq!((refused.code, refused.retryable), (ErrorCode::Overloaded, true));
        let newest = add(&tickets, 3, NOW + FIRST_USE_MS).unwrap();
        assert!(is_good(&tickets, &later, NOW + FIRST_USE_MS));
        assert!(is_good(&tickets, &newest, NOW + FIRST_USE_MS));
    }
}
