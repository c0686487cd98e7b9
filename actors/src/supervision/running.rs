//! What each thread runs at this moment: which actor, which message, for which request. The panic
//! hook and everything that is sent meanwhile ask the thread itself; the watchdog, which is on another
//! one, sees its pulse.
//!
//! This happens for every message. Therefore most of a pulse is plain stores, and the thread's own
//! copy has no lock.

use std::cell::RefCell;
use std::future::Future;
use std::mem::swap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Vitals;

/// The id of a request, on its way with everything that it causes.
pub type RequestTag = Arc<str>;

/// Stands for no actor where the number of one is expected.
const NOBODY: u64 = u64::MAX;

/// What one thread shows to the watchdog. Its parts are written one after the other: what is read
/// fits together once the thread has stood still for a moment, and only then it is of interest.
pub(super) struct Pulse {
    /// Name of the thread.
    pub(super) name: String,
    /// The number of the actor that runs.
    actor: AtomicU64,
    /// Whether that actor handles `message`, or is between messages.
    is_handling: AtomicBool,
    /// The last message that was begun, and the request that caused it.
    message: Mutex<(&'static str, Option<RequestTag>)>,
    /// The last ping of the watchdog that the thread answered.
    pub(super) answered: AtomicU64,
}

/// An actor at work.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) vitals: Arc<Vitals>,
    /// Type of the message; none between messages.
    pub(super) message: Option<&'static str>,
    pub(super) request: Option<RequestTag>,
}

/// What the current thread does.
struct Now {
    pulse: Option<Arc<Pulse>>,
    running: Option<Running>,
}

thread_local! {
    static NOW: RefCell<Now> = const { RefCell::new(Now { pulse: None, running: None }) };
}

tokio::task_local! {
    static REQUEST: RequestTag;
}

impl Pulse {
    /// Of the current thread.
    pub(super) fn current() -> Arc<Self> {
        NOW.with_borrow_mut(|now| {
            Arc::clone(now.pulse.get_or_insert_with(|| Arc::new(Self::new())))
        })
    }

    fn new() -> Self {
        Self {
            name: std::thread::current().name().unwrap_or("unnamed").to_owned(),
            actor: AtomicU64::new(NOBODY),
            is_handling: AtomicBool::new(false),
            message: Mutex::new(("", None)),
            answered: AtomicU64::new(0),
        }
    }

    /// The number of the actor that runs.
    pub(super) fn actor(&self) -> Option<u64> {
        Some(self.actor.load(Ordering::Relaxed)).filter(|actor| *actor != NOBODY)
    }

    /// The message that is being handled, and the request that caused it.
    pub(super) fn message(&self) -> Option<(&'static str, Option<RequestTag>)> {
        self.is_handling.load(Ordering::Relaxed).then(|| self.message.lock().clone())
    }

    pub(super) fn answer(&self, ping: u64) {
        self.answered.store(ping, Ordering::Relaxed);
    }
}

impl Running {
    /// An actor between messages.
    pub(super) fn new(vitals: &Arc<Vitals>) -> Self {
        Self { vitals: Arc::clone(vitals), message: None, request: vitals.request().cloned() }
    }

    fn pause(&mut self) {
        (self.message, self.request) = (None, self.vitals.request().cloned());
    }
}

impl Now {
    /// Lets the thread run what is in `slot`, and puts there what ran.
    fn exchange(&mut self, slot: &mut Option<Running>) {
        swap(&mut self.running, slot);
        let Some(pulse) = &self.pulse else { return };
        let actor = self.running.as_ref().map_or(NOBODY, |running| running.vitals.number);
        pulse.actor.store(actor, Ordering::Relaxed);
        pulse.is_handling.store(false, Ordering::Relaxed);
    }

    fn begin(&mut self, message: &'static str, request: Option<&RequestTag>) {
        let Self { pulse: Some(pulse), running: Some(running) } = self else { return };
        running.message = Some(message);
        if let Some(request) = request {
            running.request = Some(Arc::clone(request));
        }
        *pulse.message.lock() = (message, running.request.clone());
        pulse.is_handling.store(true, Ordering::Relaxed);
    }

    fn end(&mut self) {
        let Self { pulse: Some(pulse), running: Some(running) } = self else { return };
        running.pause();
        pulse.is_handling.store(false, Ordering::Relaxed);
    }
}

/// Runs `body` as work of the actor in `own`, which is empty meanwhile.
pub(super) fn run<T>(own: &mut Option<Running>, body: impl FnOnce() -> T) -> T {
    if let Some(own) = own {
        own.pause();
    }
    NOW.with_borrow_mut(|now| now.exchange(own));
    let _restore = Restore(own);
    body()
}

/// Puts back what ran before, also when the body panicked.
struct Restore<'a>(&'a mut Option<Running>);

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        NOW.with_borrow_mut(|now| now.exchange(self.0));
    }
}

/// What the current thread runs.
pub(super) fn running() -> Option<Running> {
    NOW.with_borrow(|now| now.running.clone())
}

/// Runs `body` as the handling of a message by the actor that runs.
pub(super) fn handling<T>(
    message: &'static str,
    request: Option<&RequestTag>,
    body: impl FnOnce() -> T,
) -> T {
    NOW.with_borrow_mut(|now| now.begin(message, request));
    // After a panic whoever polls the actor puts back what ran before.
    let result = body();
    NOW.with_borrow_mut(Now::end);
    result
}

/// The request for which the current code runs.
pub fn current_request() -> Option<RequestTag> {
    if let Ok(request) = REQUEST.try_with(Arc::clone) {
        return Some(request);
    }
    NOW.with_borrow(|now| now.running.as_ref()?.request.clone())
}

/// Marks everything that `future` sends as caused by the request.
pub fn in_request<F: Future>(request: RequestTag, future: F) -> impl Future<Output = F::Output> {
    REQUEST.scope(request, future)
}

/// The name of a type without the modules it stands in: `a::b::Write<c::Rename>` is `Write<Rename>`.
pub(super) fn short_name(type_name: &str) -> String {
    let mut short = String::with_capacity(type_name.len());
    let mut word = 0;
    for c in type_name.chars() {
        if c == ':' {
            short.truncate(word);
        } else {
            short.push(c);
            if !(c.is_alphanumeric() || c == '_') {
                word = short.len();
            }
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_modules_and_nothing_else() {
        assert_eq!(short_name("iris::session::SendMessage"), "SendMessage");
        assert_eq!(short_name("a::Write<b_1::c::Rename, &d::E>"), "Write<Rename, &E>");
        assert_eq!(short_name("()"), "()");
    }
}
