//! How often callers may ask: a user, one of their connections, an address that nobody is known at.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use iris_protocol::{ApiError, ErrorCode, UserId};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::dispatch::Peer;

/// Most users, and most addresses, that are told apart; the others share one allowance.
const CALLERS_MAX: usize = 10_000;
/// How often callers who have all of their allowance back are forgotten, at most.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// What operators choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateSettings {
    /// Of each connection, and of each user over all of them and REST; none for no limit.
    pub requests: Option<Rate>,
    /// Of each address on the routes that anybody may call; none for no limit.
    pub public: Option<Rate>,
    /// Most connections of one user; none for no limit.
    pub connections_per_user_max: Option<usize>,
    /// Most refusals of one connection in a minute before it is closed; none for no limit.
    pub refusals_per_minute_max: Option<usize>,
}

impl RateSettings {
    /// No limit at all.
    pub const NONE: Self = Self {
        requests: None,
        public: None,
        connections_per_user_max: None,
        refusals_per_minute_max: None,
    };
}

impl Default for RateSettings {
    fn default() -> Self {
        Self {
            requests: Some(Rate { every: Duration::from_millis(20), burst: 100 }),
            public: Some(Rate { every: Duration::from_millis(500), burst: 60 }),
            connections_per_user_max: Some(8),
            refusals_per_minute_max: Some(300),
        }
    }
}

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run once in this time; not zero.
    pub every: Duration,
    /// How often at once, by whoever was quiet before.
    pub burst: u32,
}

/// What one caller has left, as the time at which all of it is back (the generic cell rate algorithm).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Allowance(Option<Instant>);

impl Allowance {
    /// Takes one, if the rate allows it.
    ///
    /// # Errors
    /// `RATE_LIMITED`, and when there is one again.
    pub(crate) fn take(&mut self, rate: Option<Rate>, now: Instant) -> Result<(), ApiError> {
        let Some(Rate { every, burst }) = rate else { return Ok(()) };
        let whole_again = self.0.map_or(now, |at| at.max(now)) + every;
        let latest = now + every * burst;
        if whole_again > latest {
            let wait = whole_again.duration_since(latest).as_micros().div_ceil(1000);
            let wait = u64::try_from(wait).unwrap_or(u64::MAX);
            return Err(
                ApiError::new(ErrorCode::RateLimited, "too many requests").retry_after(wait)
            );
        }
        self.0 = Some(whole_again);
        Ok(())
    }

    fn is_whole(self, now: Instant) -> bool {
        self.0.is_none_or(|at| at <= now)
    }
}

/// The rates of everybody.
pub(crate) struct Rates {
    settings: RateSettings,
    users: Mutex<Table<UserId>>,
    addresses: Mutex<Table<Network>>,
}

impl Rates {
    pub(crate) fn new(settings: RateSettings) -> Self {
        Self { settings, users: Mutex::default(), addresses: Mutex::default() }
    }

    /// Counts a request of a user, whatever it comes over.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub(crate) fn of_user(&self, user_id: &UserId) -> Result<(), ApiError> {
        self.users.lock().take(user_id, self.settings.requests, Instant::now())
    }

    /// Counts a request from somewhere that may come from anybody.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub(crate) fn of_address(&self, peer: &Peer) -> Result<(), ApiError> {
        let address = peer.ip.as_deref().and_then(|ip| ip.parse().ok());
        let network = address.map_or(Network::Unknown, Network::of);
        self.addresses.lock().take(&network, self.settings.public, Instant::now())
    }
}

/// Whose addresses count as one caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Network {
    V4([u8; 4]),
    /// The first 64 bits: whoever has one address of such a network has all of them.
    V6(u128),
    Unknown,
}

impl Network {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => Self::V6(address.to_bits() >> 64),
        }
    }
}

/// The allowances of many callers, of at most [`CALLERS_MAX`].
struct Table<K> {
    callers: HashMap<K, Allowance>,
    /// Of all those for whom there is no place.
    others: Allowance,
    forgotten_at: Option<Instant>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { callers: HashMap::new(), others: Allowance::default(), forgotten_at: None }
    }
}

impl<K: Clone + Eq + Hash> Table<K> {
    fn take(&mut self, caller: &K, rate: Option<Rate>, now: Instant) -> Result<(), ApiError> {
        if rate.is_none() {
            return Ok(());
        }
        if let Some(allowance) = self.callers.get_mut(caller) {
            return allowance.take(rate, now);
        }
        if self.callers.len() >= CALLERS_MAX {
            self.forget(now);
        }
        if self.callers.len() >= CALLERS_MAX {
            return self.others.take(rate, now);
        }
        self.callers.entry(caller.clone()).or_default().take(rate, now)
    }

    fn forget(&mut self, now: Instant) {
        if self.forgotten_at.is_some_and(|at| now.duration_since(at) < FORGET_EVERY) {
            return;
        }
        self.forgotten_at = Some(now);
        self.callers.retain(|_, allowance| !allowance.is_whole(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Option<Rate> = Some(Rate { every: Duration::from_millis(20), burst: 3 });

    fn wait(taken: Result<(), ApiError>) -> Option<u64> {
        let error = taken.err()?;
        assert_eq!(error.code, ErrorCode::RateLimited);
        error.retry_after_ms
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_then_one_at_a_time() {
        let (mut allowance, start) = (Allowance::default(), Instant::now());
        for _ in 0..3 {
            assert_eq!(wait(allowance.take(RATE, start)), None);
        }
        assert_eq!(wait(allowance.take(RATE, start)), Some(20));
        let later = start + Duration::from_millis(19);
        assert_eq!(wait(allowance.take(RATE, later)), Some(1));
        let later = start + Duration::from_millis(20);
        assert_eq!(wait(allowance.take(RATE, later)), None);
        assert_eq!(wait(allowance.take(RATE, later)), Some(20));
        assert!(
            !allowance.is_whole(later) && allowance.is_whole(later + Duration::from_millis(60))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn callers_are_told_apart_up_to_a_bound() {
        let (mut table, now) = (Table::default(), Instant::now());
        for caller in 0..CALLERS_MAX {
            assert_eq!(wait(table.take(&caller, RATE, now)), None);
        }
        for caller in 0..3 {
            assert_eq!(wait(table.take(&(CALLERS_MAX + caller), RATE, now)), None);
        }
        assert!(wait(table.take(&(CALLERS_MAX + 3), RATE, now)).is_some());
        assert_eq!(table.callers.len(), CALLERS_MAX);
        assert_eq!(wait(table.take(&0, RATE, now)), None);
        let later = now + FORGET_EVERY;
        assert_eq!(wait(table.take(&(CALLERS_MAX + 3), RATE, later)), None);
        assert_eq!(table.callers.len(), 1);
    }

    #[test]
    fn a_network_of_ipv6_is_one_caller() {
        let network = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }
}
