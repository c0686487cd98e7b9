//! Logins at other providers that are under way: begun in a browser, finished there, and not yet taken by the
//! program that wanted them.
//!
//! Kept in memory alone, for minutes, under the hashes of secrets that are good once: after a restart people
//! begin again. When there are too many the oldest goes, so that nobody can keep others from logging in.

use std::collections::{HashMap, VecDeque};

use iris_auth::{PkceVerifier, Ticket};
use iris_identity::Person;
use iris_protocol::UserId;
use iris_store::root::{IdentityUse, TokenHash};
use parking_lot::Mutex;

/// How long somebody may take to log in elsewhere, in milliseconds.
pub(crate) const LOGIN_MS: i64 = 10 * 60 * 1_000;
/// How long a code waits for the program that wanted it, in milliseconds.
pub(crate) const CODE_MS: i64 = 60 * 1_000;
/// Most that is under way at the same time, of each kind.
const MAX: usize = 10_000;

/// The logins of a server that are under way.
#[derive(Debug)]
pub(crate) struct Logins {
    /// By the state that the provider sends back.
    pub(crate) begun: OnceOnly<Begun>,
    /// By the secret in the URL that a user opens.
    pub(crate) links: OnceOnly<WantedLink>,
    /// By the code that the browser brings to whoever wanted it.
    pub(crate) finished: OnceOnly<Finished>,
}

impl Default for Logins {
    fn default() -> Self {
        Self {
            begun: OnceOnly::new(MAX, LOGIN_MS),
            links: OnceOnly::new(MAX, LOGIN_MS),
            finished: OnceOnly::new(MAX, CODE_MS),
        }
    }
}

/// Where a browser goes in the end, and who may use what it brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) redirect: String,
    /// SHA-256 of a secret of the program that began (RFC 7636 section 4.2).
    pub(crate) challenge: String,
}

/// What a login is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To get in, with an invitation for who has no account yet.
    LogIn { invitation: Option<TokenHash> },
    /// To be known to be somebody there, by a user of ours.
    Link { user_id: UserId },
}

/// A login that was begun in a browser.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) provider: String,
    /// Of what only that browser has.
    pub(crate) browser: [u8; 32],
    pub(crate) nonce: String,
    pub(crate) verifier: PkceVerifier,
    /// Where the provider sends the browser.
    pub(crate) redirect_uri: String,
    pub(crate) target: Option<Target>,
    pub(crate) purpose: Purpose,
}

/// A link that a user prepared.
#[derive(Debug)]
pub(crate) struct WantedLink {
    pub(crate) user_id: UserId,
    pub(crate) provider: String,
    pub(crate) target: Target,
}

/// Who came back.
#[derive(Debug)]
pub(crate) enum Came {
    /// A user of ours.
    In {
        user_id: UserId,
        /// Of the user when they came: what ends all their logins ends this one too.
        epoch: i64,
        through: Through,
    },
    /// Somebody whom this user wants to be known as.
    Linking { user_id: UserId, provider: String, person: Person },
}

/// A login that waits for the program that wanted it.
#[derive(Debug)]
pub(crate) struct Finished {
    /// As [`Target::challenge`].
    pub(crate) challenge: String,
    pub(crate) came: Came,
}

/// By which way somebody logged in.
#[derive(Debug, Clone)]
pub(crate) struct Through {
    /// As the configuration names it.
    pub(crate) provider: String,
    pub(crate) identity: IdentityUse,
}

type Hash = [u8; 32];

/// Values that are taken once, each with its secret and within the same time.
#[derive(Debug)]
pub(crate) struct OnceOnly<T> {
    kept: Mutex<Kept<T>>,
    max: usize,
    lifetime_ms: i64,
}

#[derive(Debug)]
struct Kept<T> {
    values: HashMap<Hash, (i64, T)>,
    /// The oldest first, also of those that were taken.
    order: VecDeque<(i64, Hash)>,
}

impl<T> OnceOnly<T> {
    fn new(max: usize, lifetime_ms: i64) -> Self {
        let kept = Kept { values: HashMap::new(), order: VecDeque::new() };
        Self { kept: Mutex::new(kept), max, lifetime_ms }
    }

    /// Keeps a value. Answers until when it can be taken, in milliseconds since 1970 UTC.
    pub(crate) fn add(&self, secret: &Ticket, value: T, now_ms: i64) -> i64 {
        let ends_at = now_ms.saturating_add(self.lifetime_ms);
        let hash = Ticket::hash_of(secret.as_str());
        let mut kept = self.kept.lock();
        while let Some((oldest, hash)) = kept.order.front().copied()
            && (oldest <= now_ms || kept.order.len() >= self.max)
        {
            kept.order.pop_front();
            kept.values.remove(&hash);
        }
        kept.order.push_back((ends_at, hash));
        kept.values.insert(hash, (ends_at, value));
        ends_at
    }

    /// Takes the value of a secret; none for one that was never given, was used, or whose time is over.
    pub(crate) fn take(&self, secret: &str, now_ms: i64) -> Option<T> {
        let (ends_at, value) = self.kept.lock().values.remove(&Ticket::hash_of(secret))?;
        (ends_at > now_ms).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_790_000_000_000;

    fn add(all: &OnceOnly<u8>, value: u8, now_ms: i64) -> Ticket {
        let secret = Ticket::random().unwrap();
        all.add(&secret, value, now_ms);
        secret
    }

    #[test]
    fn a_value_is_taken_once_and_in_time() {
        let all = OnceOnly::new(10, 100);
        let (one, two) = (add(&all, 1, NOW), add(&all, 2, NOW));
        assert_eq!(all.take("irt_none", NOW), None);
        assert_eq!(all.take(one.as_str(), NOW + 99), Some(1));
        assert_eq!(all.take(one.as_str(), NOW + 99), None);
        assert_eq!(all.take(two.as_str(), NOW + 100), None);
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many_and_what_ended_takes_no_place() {
        let all = OnceOnly::new(2, 100);
        let secrets: Vec<Ticket> = (0..3).map(|value| add(&all, value, NOW)).collect();
        let taken: Vec<_> = secrets.iter().map(|it| all.take(it.as_str(), NOW)).collect();
        assert_eq!(taken, [None, Some(1), Some(2)]);
        add(&all, 3, NOW + 100);
        let kept = all.kept.lock();
        assert_eq!((kept.values.len(), kept.order.len()), (1, 1));
    }
}
