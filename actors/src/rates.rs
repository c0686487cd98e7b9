//! How often callers may ask: a user, one of their connections, an address that nobody is known at.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use iris_protocol::{ApiError, ErrorCode, KeyId, UserId};
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::dispatch::Peer;

/// Most users, and most addresses, that are told apart; the others share one allowance.
const CALLERS_MAX: usize = 10_000;
/// How often callers who have all of their allowance back are forgotten, at most.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// Refusals of one user that the audit records: some at once, then one in this time.
const REFUSALS: Rate = Rate { every: Duration::from_secs(2), burst: 30 };
/// The same for all whom nobody knows together.
const STRANGERS_REFUSALS: Rate = Rate { every: Duration::from_secs(1), burst: 300 };
/// How long a socket is told to wait for a place among the unknown ones: so long one has to say who it is.
const UNKNOWN_RETRY_MS: u64 = 5_000;
/// Links by e-mail that one address gets.
const RESETS: Rate = Rate { every: Duration::from_mins(5), burst: 3 };
/// Invitations by e-mail that one address gets, and that one user sends.
const INVITATIONS_TO: Rate = Rate { every: Duration::from_mins(5), burst: 3 };
const INVITATIONS_BY: Rate = Rate { every: Duration::from_mins(1), burst: 30 };

/// What operators choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateSettings {
    /// Of each connection, and of each user over all of them and REST; none for no limit.
    pub requests: Option<Rate>,
    /// Of each address on the routes that anybody may call; none for no limit.
    pub public: Option<Rate>,
    /// Of each API key, besides what its user may; none for no limit.
    pub keys: Option<Rate>,
    /// Of each user: messages that may begin runs, and runs that are resumed; none for no limit.
    pub runs: Option<Rate>,
    /// Of each user: files and archives that are sent; none for no limit.
    pub uploads: Option<Rate>,
    /// Passwords that are wrong, of each account; none for no limit.
    pub login_failures: Option<Rate>,
    /// Passwords that are wrong, from each address over all accounts; none for no limit.
    pub login_failures_of_address: Option<Rate>,
    /// Most sockets from one address on which nobody has said yet who they are; none for no limit.
    pub unknown_connections_max: Option<usize>,
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
        keys: None,
        runs: None,
        uploads: None,
        login_failures: None,
        login_failures_of_address: None,
        unknown_connections_max: None,
        connections_per_user_max: None,
        refusals_per_minute_max: None,
    };
}

impl Default for RateSettings {
    fn default() -> Self {
        Self {
            requests: Some(Rate { every: Duration::from_millis(20), burst: 100 }),
            public: Some(Rate { every: Duration::from_millis(500), burst: 60 }),
            keys: Some(Rate { every: Duration::from_millis(20), burst: 100 }),
            runs: Some(Rate { every: Duration::from_secs(1), burst: 30 }),
            uploads: Some(Rate { every: Duration::from_millis(500), burst: 60 }),
            login_failures: Some(Rate { every: Duration::from_mins(1), burst: 10 }),
            login_failures_of_address: Some(Rate { every: Duration::from_secs(6), burst: 100 }),
            unknown_connections_max: Some(20),
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

    /// Gives back what was taken.
    fn give_back(&mut self, rate: Option<Rate>) {
        let Some(Rate { every, .. }) = rate else { return };
        self.0 = self.0.and_then(|at| at.checked_sub(every));
    }

    fn is_whole(self, now: Instant) -> bool {
        self.0.is_none_or(|at| at <= now)
    }
}

/// The rates of everybody.
pub(crate) struct Rates {
    settings: RwLock<RateSettings>,
    users: Mutex<Table<UserId>>,
    addresses: Mutex<Table<Network>>,
    keys: Mutex<Table<KeyId>>,
    runs: Mutex<Table<UserId>>,
    uploads: Mutex<Table<UserId>>,
    /// By the hash of their address, so that no text of strangers is kept.
    accounts: Mutex<Table<u64>>,
    guessers: Mutex<Table<Network>>,
    resets: Mutex<Table<u64>>,
    invitations_to: Mutex<Table<u64>>,
    invitations_by: Mutex<Table<UserId>>,
    unknown: Arc<Mutex<HashMap<Network, usize>>>,
    refusals: Mutex<Table<UserId>>,
    refusals_of_strangers: Mutex<Allowance>,
    hasher: RandomState,
}

/// The place of a socket on which nobody has said yet who they are.
#[derive(Debug)]
pub struct UnknownSocket {
    network: Network,
    all: Arc<Mutex<HashMap<Network, usize>>>,
}

impl Drop for UnknownSocket {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.all.lock().entry(self.network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// An attempt to log in that was counted as a failure until it succeeds.
pub(crate) struct LoginAttempt {
    /// None where nobody said which.
    account: Option<u64>,
    network: Option<Network>,
}

impl Rates {
    pub(crate) fn new(settings: RateSettings) -> Self {
        Self {
            settings: RwLock::new(settings),
            users: Mutex::default(),
            addresses: Mutex::default(),
            keys: Mutex::default(),
            runs: Mutex::default(),
            uploads: Mutex::default(),
            accounts: Mutex::default(),
            guessers: Mutex::default(),
            resets: Mutex::default(),
            invitations_to: Mutex::default(),
            invitations_by: Mutex::default(),
            unknown: Arc::default(),
            refusals: Mutex::default(),
            refusals_of_strangers: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// The limits as they are now.
    pub(crate) fn settings(&self) -> RateSettings {
        *self.settings.read()
    }

    /// Other limits, from now on. What was counted stays.
    pub(crate) fn limit(&self, settings: RateSettings) {
        *self.settings.write() = settings;
    }

    /// Counts a request with an API key, besides [`Rates::of_user`].
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub(crate) fn of_key(&self, key: &KeyId) -> Result<(), ApiError> {
        self.keys.lock().take(key, self.settings().keys, Instant::now())
    }

    /// Counts what may begin a run.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub(crate) fn of_runs(&self, user_id: &UserId) -> Result<(), ApiError> {
        self.runs.lock().take(user_id, self.settings().runs, Instant::now())
    }

    /// Counts a file or an archive that is sent.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub(crate) fn of_uploads(&self, user_id: &UserId) -> Result<(), ApiError> {
        self.uploads.lock().take(user_id, self.settings().uploads, Instant::now())
    }

    /// Counts a password that is about to be checked as wrong, for its account and, where there is one, for
    /// its address. The account may be one that there is not: nobody learns which is.
    ///
    /// # Errors
    /// `RATE_LIMITED`, before anything is checked.
    pub(crate) fn begin_login(
        &self,
        email: &str,
        peer: Option<&Peer>,
    ) -> Result<LoginAttempt, ApiError> {
        let (now, account) = (Instant::now(), self.hasher.hash_one(email));
        let network = peer.map(Network::of_peer);
        if let Some(network) = &network {
            let rate = self.settings().login_failures_of_address;
            self.guessers.lock().take(network, rate, now)?;
        }
        let taken = self.accounts.lock().take(&account, self.settings().login_failures, now);
        taken.map_err(|error| error.reason("too_many_failures"))?;
        Ok(LoginAttempt { account: Some(account), network })
    }

    /// Counts what a browser or a program brings from a login elsewhere as wrong, for its address alone: nobody
    /// says whose account it is.
    ///
    /// # Errors
    /// `RATE_LIMITED`, before anything is looked at.
    pub(crate) fn begin_exchange(&self, peer: &Peer) -> Result<LoginAttempt, ApiError> {
        let network = Network::of_peer(peer);
        let rate = self.settings().login_failures_of_address;
        self.guessers.lock().take(&network, rate, Instant::now())?;
        Ok(LoginAttempt { account: None, network: Some(network) })
    }

    /// The password was right, or what was brought.
    pub(crate) fn login_succeeded(&self, attempt: &LoginAttempt) {
        let LoginAttempt { account, network } = attempt;
        if let Some(account) = account {
            self.accounts.lock().give_back(account, self.settings().login_failures);
        }
        if let Some(network) = network {
            let rate = self.settings().login_failures_of_address;
            self.guessers.lock().give_back(network, rate);
        }
    }

    /// Counts a link that is asked for by e-mail: nobody's mailbox is to be filled.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub(crate) fn count_reset(&self, email: &str) -> Result<(), ApiError> {
        let account = self.hasher.hash_one(email);
        self.resets.lock().take(
            &account,
            self.settings().login_failures.and(Some(RESETS)),
            Instant::now(),
        )
    }

    /// Counts an invitation that goes out by e-mail: nobody fills a mailbox, and nobody writes to everybody. What is
    /// refused does not go out, and counts neither for its address nor for who sends it.
    ///
    /// # Errors
    /// `RATE_LIMITED` with reason `too_many_mails`.
    pub(crate) fn count_invitation(&self, by: &UserId, email: &str) -> Result<(), ApiError> {
        let (now, is_limited) = (Instant::now(), self.settings().login_failures.is_some());
        let rate = |rate| is_limited.then_some(rate);
        let (to, all_by) = (self.hasher.hash_one(email), rate(INVITATIONS_BY));
        let too_many = |error: ApiError| error.reason("too_many_mails");
        self.invitations_by.lock().take(by, all_by, now).map_err(too_many)?;
        let taken = self.invitations_to.lock().take(&to, rate(INVITATIONS_TO), now);
        if taken.is_err() {
            self.invitations_by.lock().give_back(by, all_by);
        }
        taken.map_err(too_many)
    }

    /// Takes in a socket on which nobody has said yet who they are; none where there is no limit.
    ///
    /// # Errors
    /// `RATE_LIMITED` with reason `unknown_connections` when its address has as many as it may.
    pub(crate) fn admit_unknown(&self, peer: &Peer) -> Result<Option<UnknownSocket>, ApiError> {
        let Some(most) = self.settings().unknown_connections_max else { return Ok(None) };
        let (network, mut all) = (Network::of_peer(peer), self.unknown.lock());
        let count = all.entry(network).or_default();
        if *count >= most {
            let message = "too many sockets of this address have not said who they are";
            let error = ApiError::new(ErrorCode::RateLimited, message);
            return Err(error.reason("unknown_connections").retry_after(UNKNOWN_RETRY_MS));
        }
        *count += 1;
        Ok(Some(UnknownSocket { network, all: Arc::clone(&self.unknown) }))
    }

    /// Whether a refusal to this user is recorded in the audit, which is not to be filled with them.
    pub(crate) fn may_record_refusal(&self, user_id: &UserId) -> bool {
        self.refusals.lock().take(user_id, Some(REFUSALS), Instant::now()).is_ok()
    }

    /// The same for all whom nobody knows.
    pub(crate) fn may_record_strangers_refusal(&self) -> bool {
        let rate = Some(STRANGERS_REFUSALS);
        self.refusals_of_strangers.lock().take(rate, Instant::now()).is_ok()
    }

    /// Counts a request of a user, whatever it comes over.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub(crate) fn of_user(&self, user_id: &UserId) -> Result<(), ApiError> {
        self.users.lock().take(user_id, self.settings().requests, Instant::now())
    }

    /// Counts a request from somewhere that may come from anybody.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub(crate) fn of_address(&self, peer: &Peer) -> Result<(), ApiError> {
        let network = Network::of_peer(peer);
        self.addresses.lock().take(&network, self.settings().public, Instant::now())
    }
}

/// Whose addresses count as one caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Network {
    V4([u8; 4]),
    /// The first 64 bits: whoever has one address of such a network has all of them.
    V6(u128),
    Unknown,
}

impl Network {
    pub(crate) fn of_peer(peer: &Peer) -> Self {
        let address = peer.ip.as_deref().and_then(|ip| ip.parse().ok());
        address.map_or(Self::Unknown, Self::of)
    }

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

    fn give_back(&mut self, caller: &K, rate: Option<Rate>) {
        if let Some(allowance) = self.callers.get_mut(caller) {
            allowance.give_back(rate);
        }
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

    #[tokio::test(start_paused = true)]
    async fn an_invitation_that_does_not_go_out_counts_for_nobody() {
        let rates = Rates::new(RateSettings::default());
        let [ann, bob] = [1, 2].map(UserId::from_bits);
        let all = |by: &UserId, email: &str, times: usize| {
            (0..times).all(|_| rates.count_invitation(by, email).is_ok())
        };
        let none = |by: &UserId, email: &str| {
            (0..9).all(|_| wait(rates.count_invitation(by, email)).is_some())
        };
        assert!(all(&ann, "full", 3) && none(&ann, "full"));
        assert!((0..27).all(|number| all(&ann, &number.to_string(), 1)));
        assert!(none(&ann, "other"));
        assert!(all(&bob, "other", 3));
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
