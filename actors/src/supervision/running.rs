//! What each thread runs at this moment: which actor, which message, for which request. The panic
//! hook, the watchdog and everything that is sent meanwhile read it.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Vitals;

/// The id of a request, on its way with everything that it causes.
pub type RequestTag = Arc<str>;

/// What one thread runs. The thread writes it; the watchdog reads it.
pub(super) struct Pulse {
    /// Name of the thread.
    pub(super) name: String,
    running: Mutex<Option<Running>>,
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

thread_local! {
    static PULSE: RefCell<Option<Arc<Pulse>>> = const { RefCell::new(None) };
}

tokio::task_local! {
    static REQUEST: RequestTag;
}

impl Pulse {
    /// Of the current thread.
    pub(super) fn current() -> Arc<Self> {
        PULSE
            .with_borrow_mut(|pulse| Arc::clone(pulse.get_or_insert_with(|| Arc::new(Self::new()))))
    }

    fn new() -> Self {
        let name = std::thread::current().name().unwrap_or("unnamed").to_owned();
        Self { name, running: Mutex::new(None), answered: AtomicU64::new(0) }
    }

    /// Runs `body` as work of an actor.
    pub(super) fn run<T>(&self, vitals: &Arc<Vitals>, body: impl FnOnce() -> T) -> T {
        let request = vitals.request().cloned();
        let running = Running { vitals: Arc::clone(vitals), message: None, request };
        let outer = self.running.lock().replace(running);
        let _restore = Restore { pulse: self, outer };
        body()
    }

    pub(super) fn running(&self) -> Option<Running> {
        self.running.lock().clone()
    }

    pub(super) fn answer(&self, ping: u64) {
        self.answered.store(ping, Ordering::Relaxed);
    }
}

/// Puts back what ran before, also when the body panicked.
struct Restore<'a> {
    pulse: &'a Pulse,
    outer: Option<Running>,
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        *self.pulse.running.lock() = self.outer.take();
    }
}

/// What the current thread runs.
pub(super) fn running() -> Option<Running> {
    PULSE.with_borrow(|pulse| pulse.as_ref().and_then(|pulse| pulse.running()))
}

/// Runs `body` as the handling of a message by the actor that runs.
pub(super) fn handling<T>(
    message: &'static str,
    request: Option<&RequestTag>,
    body: impl FnOnce() -> T,
) -> T {
    let set = |message, request: Option<RequestTag>| {
        PULSE.with_borrow(|pulse| {
            if let Some(pulse) = pulse
                && let Some(running) = pulse.running.lock().as_mut()
            {
                let request = request.or_else(|| running.vitals.request().cloned());
                (running.message, running.request) = (message, request);
            }
        });
    };
    set(Some(message), request.cloned());
    // After a panic whoever polls the actor puts back what ran before.
    let result = body();
    set(None, None);
    result
}

/// The request for which the current code runs.
pub fn current_request() -> Option<RequestTag> {
    if let Ok(request) = REQUEST.try_with(Arc::clone) {
        return Some(request);
    }
    PULSE.with_borrow(|pulse| {
        pulse.as_ref().and_then(|pulse| pulse.running.lock().as_ref()?.request.clone())
    })
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
