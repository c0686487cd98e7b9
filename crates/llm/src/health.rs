//! What is known of a provider from all that asked it: how long it wants to be left alone, and whether it
//! answers at all. One limit for a provider and a key, so that many runs do not all find out by themselves, and
//! whoever has a key of their own is not held up by the others.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{ErrorClass, Model, ModelError, ModelEvent, ModelRequest, ModelStream};

/// Most keys of which something is remembered; those that nobody uses are forgotten first.
const KEYS_KNOWN_MAX: usize = 1024;
/// Failures in a row after which a provider is left alone.
///
/// They count where they are of several sessions: one alone may have a prompt that no provider could answer.
const FAILURES_MAX: u32 = 5;
/// How long it is left alone then, before one request tries whether it is back.
const OPEN_FOR: Duration = Duration::from_secs(15);
/// How long the others wait while that one tries.
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// The longest that a provider is left alone because it says so.
const HINT_MAX: Duration = Duration::from_mins(10);

/// A model whose provider is left alone while it would not answer. What it says then is an error like the
/// provider's own, with the time that is left.
pub(crate) struct Watched {
    provider: Arc<str>,
    model: Arc<dyn Model>,
    /// With the configured key.
    health: Arc<Mutex<Health>>,
    /// With each key that requests brought, by a hash that nobody else can compute.
    by_key: Mutex<HashMap<u64, Arc<Mutex<Health>>>>,
    hasher: RandomState,
}

impl Watched {
    pub(crate) fn new(provider: &str, model: Arc<dyn Model>) -> Self {
        Self {
            provider: provider.into(),
            model,
            health: Arc::default(),
            by_key: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// What was heard with the key of a request.
    fn health(&self, request: &ModelRequest) -> Arc<Mutex<Health>> {
        let Some(key) = &request.api_key else { return Arc::clone(&self.health) };
        let mut by_key = self.by_key.lock();
        if by_key.len() >= KEYS_KNOWN_MAX {
            by_key.retain(|_, health| Arc::strong_count(health) > 1);
        }
        Arc::clone(by_key.entry(self.hasher.hash_one(key.expose())).or_default())
    }
}

impl Model for Watched {
    fn stream(&self, request: ModelRequest) -> ModelStream {
        let health = self.health(&request);
        let admitted = health.lock().admit(Instant::now());
        let is_probe = match admitted {
            Ok(is_probe) => is_probe,
            Err(refused) => return stream::iter([Err(refused.error(&self.provider))]).boxed(),
        };
        let session = self.hasher.hash_one(&request.cache_key);
        let provider = Arc::clone(&self.provider);
        let mut visit = Visit { provider, health, session, is_probe, is_over: false };
        self.model.stream(request).inspect(move |event| visit.hear(event)).boxed()
    }

    fn shows_images(&self) -> Option<bool> {
        self.model.shows_images()
    }

    fn opaque_kind(&self) -> Option<&'static str> {
        self.model.opaque_kind()
    }
}

/// One request that was let through.
struct Visit {
    provider: Arc<str>,
    health: Arc<Mutex<Health>>,
    /// For which session, by a hash.
    session: u64,
    /// Whether it tries whether the provider is back, and nothing came yet.
    is_probe: bool,
    is_over: bool,
}

impl Visit {
    fn hear(&mut self, event: &Result<ModelEvent, ModelError>) {
        let is_end = matches!(event, Ok(ModelEvent::Finish { .. }) | Err(_));
        let was_probe = std::mem::take(&mut self.is_probe);
        // Who waits for the end of an answer may wait for long: that it begins shows that the provider is back.
        if !is_end && !was_probe {
            return;
        }
        self.is_over = is_end;
        let change = {
            let mut health = self.health.lock();
            health.is_probed &= !was_probe;
            health.learn(event.as_ref().map(drop), self.session, Instant::now())
        };
        match change {
            Some(Change::Opened) => {
                tracing::warn!(provider = %self.provider, failures = FAILURES_MAX, "a model provider is left alone for a while: it only fails");
            }
            Some(Change::Closed) => {
                tracing::info!(provider = %self.provider, "a model provider answers again");
            }
            None => {}
        }
    }
}

impl Drop for Visit {
    /// A request that was given up says nothing of the provider; if it was to try, another one may in its place.
    fn drop(&mut self) {
        if self.is_probe && !self.is_over {
            self.health.lock().is_probed = false;
        }
    }
}

/// What was heard of a provider.
#[derive(Default)]
struct Health {
    /// Requests in a row that it did not answer.
    failures: u32,
    /// The session of the first of them.
    failed_session: Option<u64>,
    /// Whether others were of other sessions.
    fails_several: bool,
    /// It is not asked before.
    until: Option<Instant>,
    /// Whether a request tries whether it answers again.
    is_probed: bool,
}

/// Why it is not asked.
struct Refused {
    class: ErrorClass,
    left: Duration,
}

impl Refused {
    fn error(&self, provider: &str) -> ModelError {
        let why = if self.class == ErrorClass::RateLimited {
            "it wants to be left alone"
        } else {
            "it did not answer several times in a row"
        };
        let millis = u64::try_from(self.left.as_millis()).unwrap_or(u64::MAX);
        let message = format!("the provider `{provider}` is not asked for `{millis}` ms: {why}");
        let error = ModelError::new(self.class, message);
        ModelError { retry_after_ms: Some(millis), is_not_asked: true, ..error }
    }
}

/// What somebody may want to know.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Opened,
    Closed,
}

impl Health {
    fn is_open(&self) -> bool {
        self.failures >= FAILURES_MAX && self.fails_several
    }

    /// Whether a request may go out now; if so, whether it is the one that tries for all.
    fn admit(&mut self, now: Instant) -> Result<bool, Refused> {
        let class = if self.is_open() { ErrorClass::Overloaded } else { ErrorClass::RateLimited };
        if let Some(left) = self.until.and_then(|until| until.checked_duration_since(now))
            && !left.is_zero()
        {
            return Err(Refused { class, left });
        }
        if self.is_open() && std::mem::replace(&mut self.is_probed, true) {
            return Err(Refused { class, left: PROBE_WAIT });
        }
        Ok(self.is_open())
    }

    /// Takes in how a request of a session ended, or that one which tried is answered.
    fn learn(
        &mut self,
        outcome: Result<(), &ModelError>,
        session: u64,
        now: Instant,
    ) -> Option<Change> {
        let was_open = self.is_open();
        let class = outcome.err().map(|error| error.class);
        if matches!(class, Some(ErrorClass::Overloaded | ErrorClass::Transient)) {
            self.failures = self.failures.saturating_add(1);
            self.fails_several |= *self.failed_session.get_or_insert(session) != session;
        } else {
            // Whatever else it says, it is there.
            (self.failures, self.failed_session, self.fails_several) = (0, None, false);
        }
        let hint = outcome.err().and_then(|error| error.retry_after_ms).map(Duration::from_millis);
        let hint = hint.filter(|_| class.is_some_and(ErrorClass::is_retryable));
        let open_for = self.is_open().then_some(OPEN_FOR);
        if let Some(wait) = hint.map(|hint| hint.min(HINT_MAX)).max(open_for) {
            self.until = self.until.max(Some(now + wait));
        } else if class.is_none() {
            self.until = None;
        }
        match (was_open, self.is_open()) {
            (false, true) => Some(Change::Opened),
            (true, false) => Some(Change::Closed),
            (true, true) | (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(class: ErrorClass, hint: Option<u64>) -> ModelError {
        ModelError { retry_after_ms: hint, ..ModelError::new(class, "no") }
    }

    /// How a request of one session after the other ends.
    fn learn(
        health: &mut Health,
        outcome: Result<(), &ModelError>,
        now: Instant,
    ) -> Option<Change> {
        let session = u64::from(health.failures);
        // Whoever tries has ended with it.
        health.is_probed = false;
        health.learn(outcome, session, now)
    }

    fn refused(health: &mut Health, at: Instant) -> Option<(ErrorClass, u64)> {
        let refused = health.admit(at).err()?;
        let error = refused.error("p");
        Some((error.class, error.retry_after_ms.unwrap()))
    }

    #[test]
    fn a_provider_that_asks_for_it_is_left_alone_by_all() {
        let (mut health, now) = (Health::default(), Instant::now());
        let busy = failed(ErrorClass::RateLimited, Some(7_000));
        assert_eq!(learn(&mut health, Err(&busy), now), None);
        assert_eq!(refused(&mut health, now), Some((ErrorClass::RateLimited, 7_000)));
        let later = now + Duration::from_millis(6_999);
        assert_eq!(refused(&mut health, later), Some((ErrorClass::RateLimited, 1)));
        // A shorter wait of another answer does not end a longer one.
        let busy = failed(ErrorClass::RateLimited, Some(10));
        learn(&mut health, Err(&busy), now);
        assert!(refused(&mut health, later).is_some());
        assert_eq!(refused(&mut health, now + Duration::from_secs(7)), None);
        // What it says of a single request is no reason, nor is a wait without end.
        learn(&mut health, Err(&failed(ErrorClass::Invalid, Some(60_000))), later);
        assert_eq!(refused(&mut health, now + Duration::from_secs(8)), None);
        learn(&mut health, Err(&failed(ErrorClass::RateLimited, Some(u64::MAX))), now);
        assert_eq!(refused(&mut health, now + HINT_MAX), None);
    }

    #[test]
    fn a_provider_that_only_fails_is_left_alone_until_one_request_finds_it_back() {
        let (mut health, now) = (Health::default(), Instant::now());
        let cut = failed(ErrorClass::Transient, None);
        for _ in 1..FAILURES_MAX {
            assert_eq!(learn(&mut health, Err(&cut), now), None);
            assert_eq!(refused(&mut health, now), None);
        }
        let down = failed(ErrorClass::Overloaded, None);
        assert_eq!(learn(&mut health, Err(&down), now), Some(Change::Opened));
        assert_eq!(refused(&mut health, now), Some((ErrorClass::Overloaded, 15_000)));
        let later = now + OPEN_FOR;
        assert_eq!(refused(&mut health, later), None);
        assert_eq!(refused(&mut health, later), Some((ErrorClass::Overloaded, 1_000)));
        // It is not.
        assert_eq!(learn(&mut health, Err(&cut), later), None);
        assert_eq!(refused(&mut health, later), Some((ErrorClass::Overloaded, 15_000)));
        // It is.
        let later = later + OPEN_FOR;
        assert_eq!(refused(&mut health, later), None);
        assert_eq!(learn(&mut health, Ok(()), later), Some(Change::Closed));
        assert_eq!([refused(&mut health, later), refused(&mut health, later)], [None, None]);
    }

    #[test]
    fn failures_that_are_answers_are_none_of_the_provider() {
        let (mut health, now) = (Health::default(), Instant::now());
        for _ in 0..3 {
            for _ in 1..FAILURES_MAX {
                learn(&mut health, Err(&failed(ErrorClass::Transient, None)), now);
            }
            learn(&mut health, Err(&failed(ErrorClass::Auth, None)), now);
        }
        assert_eq!(refused(&mut health, now), None);
    }

    #[test]
    fn failures_of_one_session_alone_say_nothing_of_the_provider() {
        let (mut health, now) = (Health::default(), Instant::now());
        let cut = failed(ErrorClass::Transient, None);
        for _ in 0..3 * FAILURES_MAX {
            assert_eq!(health.learn(Err(&cut), 1, now), None);
        }
        assert_eq!(refused(&mut health, now), None);
        // Another one finds the same.
        assert_eq!(health.learn(Err(&cut), 2, now), Some(Change::Opened));
        assert!(refused(&mut health, now).is_some());
    }

    #[test]
    fn an_answer_that_is_of_no_use_is_one_all_the_same() {
        let (mut health, now) = (Health::default(), Instant::now());
        for _ in 0..3 * FAILURES_MAX {
            learn(&mut health, Err(&failed(ErrorClass::BadAnswer, None)), now);
        }
        assert_eq!((health.failures, refused(&mut health, now)), (0, None));
    }

    /// Answers nothing, ever.
    struct Silent;

    impl Model for Silent {
        fn stream(&self, _: ModelRequest) -> ModelStream {
            stream::pending().boxed()
        }
    }

    #[tokio::test]
    async fn what_is_heard_with_one_key_says_nothing_of_another() {
        let watched = Watched::new("p", Arc::new(Silent));
        let with = |key: Option<&str>| ModelRequest {
            api_key: key.map(crate::ApiKey::new),
            ..ModelRequest::default()
        };
        let busy = failed(ErrorClass::RateLimited, Some(7_000));
        watched.health(&with(Some("a"))).lock().learn(Err(&busy), 0, Instant::now());
        let is_asked = |key: Option<&str>| {
            let mut answer = watched.stream(with(key));
            futures_util::FutureExt::now_or_never(answer.next()).is_none()
        };
        assert_eq!([Some("a"), Some("b"), None].map(is_asked), [false, true, true]);
        // Many keys that nobody uses any more are not all remembered.
        let in_use = watched.health(&with(Some("a")));
        for other in 0..2 * KEYS_KNOWN_MAX {
            watched.health(&with(Some(&other.to_string())));
        }
        assert!(watched.by_key.lock().len() <= KEYS_KNOWN_MAX + 1);
        assert!(Arc::ptr_eq(&in_use, &watched.health(&with(Some("a")))));
    }

    #[tokio::test]
    async fn a_request_that_is_given_up_lets_another_one_try() {
        let watched = Watched::new("p", Arc::new(Silent));
        open(&watched);
        let tries = watched.stream(ModelRequest::default());
        let mut other = watched.stream(ModelRequest::default());
        let error = other.next().await.unwrap().unwrap_err();
        assert_eq!((error.class, error.retry_after_ms), (ErrorClass::Overloaded, Some(1_000)));
        drop(tries);
        let mut again = watched.stream(ModelRequest::default());
        assert!(futures_util::FutureExt::now_or_never(again.next()).is_none());
    }

    /// Has the provider left alone, so long ago that the next request tries whether it is back.
    fn open(watched: &Watched) {
        let mut health = watched.health.lock();
        (health.failures, health.fails_several) = (FAILURES_MAX, true);
    }

    /// Begins an answer that does not end.
    struct Slow;

    impl Model for Slow {
        fn stream(&self, _: ModelRequest) -> ModelStream {
            let start = ModelEvent::Start { model: String::new(), id: String::new() };
            stream::iter([Ok(start)]).chain(stream::pending()).boxed()
        }
    }

    #[tokio::test]
    async fn an_answer_that_begins_shows_that_the_provider_is_back() {
        let watched = Watched::new("p", Arc::new(Slow));
        open(&watched);
        let mut tries = watched.stream(ModelRequest::default());
        let error = watched.stream(ModelRequest::default()).next().await.unwrap().unwrap_err();
        assert!(error.is_not_asked, "{error}");
        assert!(tries.next().await.unwrap().is_ok());
        // It goes on for long, and nobody waits for that.
        assert!(watched.stream(ModelRequest::default()).next().await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn only_who_tries_makes_room_for_another_try() {
        let watched = Watched::new("p", Arc::new(Silent));
        let earlier = watched.stream(ModelRequest::default());
        open(&watched);
        let _tries = watched.stream(ModelRequest::default());
        drop(earlier);
        let mut other = watched.stream(ModelRequest::default());
        assert!(other.next().await.unwrap().is_err(), "a second one tries");
    }
}
