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
        if let Err(refused) = admitted {
            return stream::iter([Err(refused.error(&self.provider))]).boxed();
        }
        let mut visit = Visit { provider: Arc::clone(&self.provider), health, is_over: false };
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
    is_over: bool,
}

impl Visit {
    fn hear(&mut self, event: &Result<ModelEvent, ModelError>) {
        let outcome = match event {
            Ok(ModelEvent::Finish { .. }) => Ok(()),
            Ok(_) => return,
            Err(error) => Err(error),
        };
        self.is_over = true;
        let change = self.health.lock().learn(outcome, Instant::now());
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
    /// A request that was given up says nothing of the provider; another one may try in its place.
    fn drop(&mut self) {
        if !self.is_over {
            self.health.lock().is_probed = false;
        }
    }
}

/// What was heard of a provider.
#[derive(Default)]
struct Health {
    /// Requests in a row that it did not answer.
    failures: u32,
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
        ModelError { retry_after_ms: Some(millis), ..ModelError::new(self.class, message) }
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
        self.failures >= FAILURES_MAX
    }

    /// Whether a request may go out now.
    fn admit(&mut self, now: Instant) -> Result<(), Refused> {
        let class = if self.is_open() { ErrorClass::Overloaded } else { ErrorClass::RateLimited };
        if let Some(left) = self.until.and_then(|until| until.checked_duration_since(now))
            && !left.is_zero()
        {
            return Err(Refused { class, left });
        }
        if self.is_open() && std::mem::replace(&mut self.is_probed, true) {
            return Err(Refused { class, left: PROBE_WAIT });
        }
        Ok(())
    }

    /// Takes in how a request ended.
    fn learn(&mut self, outcome: Result<(), &ModelError>, now: Instant) -> Option<Change> {
        let was_open = self.is_open();
        self.is_probed = false;
        let class = outcome.err().map(|error| error.class);
        if matches!(class, Some(ErrorClass::Overloaded | ErrorClass::Transient)) {
            self.failures = self.failures.saturating_add(1);
        } else {
            // Whatever else it says, it is there.
            self.failures = 0;
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

    fn refused(health: &mut Health, at: Instant) -> Option<(ErrorClass, u64)> {
        let refused = health.admit(at).err()?;
        let error = refused.error("p");
        Some((error.class, error.retry_after_ms.unwrap()))
    }

    #[test]
    fn a_provider_that_asks_for_it_is_left_alone_by_all() {
        let (mut health, now) = (Health::default(), Instant::now());
        let busy = failed(ErrorClass::RateLimited, Some(7_000));
        assert_eq!(health.learn(Err(&busy), now), None);
        assert_eq!(refused(&mut health, now), Some((ErrorClass::RateLimited, 7_000)));
        let later = now + Duration::from_millis(6_999);
        assert_eq!(refused(&mut health, later), Some((ErrorClass::RateLimited, 1)));
        // A shorter wait of another answer does not end a longer one.
        let busy = failed(ErrorClass::RateLimited, Some(10));
        health.learn(Err(&busy), now);
        assert!(refused(&mut health, later).is_some());
        assert_eq!(refused(&mut health, now + Duration::from_secs(7)), None);
        // What it says of a single request is no reason, nor is a wait without end.
        health.learn(Err(&failed(ErrorClass::Invalid, Some(60_000))), later);
        assert_eq!(refused(&mut health, now + Duration::from_secs(8)), None);
        health.learn(Err(&failed(ErrorClass::RateLimited, Some(u64::MAX))), now);
        assert_eq!(refused(&mut health, now + HINT_MAX), None);
    }

    #[test]
    fn a_provider_that_only_fails_is_left_alone_until_one_request_finds_it_back() {
        let (mut health, now) = (Health::default(), Instant::now());
        let cut = failed(ErrorClass::Transient, None);
        for _ in 1..FAILURES_MAX {
            assert_eq!(health.learn(Err(&cut), now), None);
            assert_eq!(refused(&mut health, now), None);
        }
        let down = failed(ErrorClass::Overloaded, None);
        assert_eq!(health.learn(Err(&down), now), Some(Change::Opened));
        assert_eq!(refused(&mut health, now), Some((ErrorClass::Overloaded, 15_000)));
        let later = now + OPEN_FOR;
        assert_eq!(refused(&mut health, later), None);
        assert_eq!(refused(&mut health, later), Some((ErrorClass::Overloaded, 1_000)));
        // It is not.
        assert_eq!(health.learn(Err(&cut), later), None);
        assert_eq!(refused(&mut health, later), Some((ErrorClass::Overloaded, 15_000)));
        // It is.
        let later = later + OPEN_FOR;
        assert_eq!(refused(&mut health, later), None);
        assert_eq!(health.learn(Ok(()), later), Some(Change::Closed));
        assert_eq!([refused(&mut health, later), refused(&mut health, later)], [None, None]);
    }

    #[test]
    fn failures_that_are_answers_are_none_of_the_provider() {
        let (mut health, now) = (Health::default(), Instant::now());
        for _ in 0..3 {
            for _ in 1..FAILURES_MAX {
                health.learn(Err(&failed(ErrorClass::Transient, None)), now);
            }
            health.learn(Err(&failed(ErrorClass::Auth, None)), now);
        }
        assert_eq!(refused(&mut health, now), None);
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
        watched.health(&with(Some("a"))).lock().learn(Err(&busy), Instant::now());
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
        watched.health.lock().failures = FAILURES_MAX;
        let tries = watched.stream(ModelRequest::default());
        let mut other = watched.stream(ModelRequest::default());
        let error = other.next().await.unwrap().unwrap_err();
        assert_eq!((error.class, error.retry_after_ms), (ErrorClass::Overloaded, Some(1_000)));
        drop(tries);
        let mut again = watched.stream(ModelRequest::default());
        assert!(futures_util::FutureExt::now_or_never(again.next()).is_none());
    }
}
