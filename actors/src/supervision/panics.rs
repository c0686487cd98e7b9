//! Catching panics with the actor's path and the source location.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use super::ActorPath;

thread_local! {
    /// The actor that this thread is running.
    static CURRENT: RefCell<Option<ActorPath>> = const { RefCell::new(None) };
    /// What the hook saw of the last panic on this thread.
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Makes every panic one log line with the actor's path and the source location.
///
/// Panics outside actors are shown as before. A second call has no effect.
pub fn install_panic_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(install);
}

fn install() {
    let previous = take_hook();
    set_hook(Box::new(move |info| {
        let path = CURRENT.with_borrow(Clone::clone);
        let text = describe(info);
        LAST.set(Some(text.clone()));
        match path {
            Some(path) => tracing::error!(actor.path = %path, panic = text, "actor panicked"),
            None => previous(info),
        }
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let message = payload_text(info.payload());
    match info.location() {
        Some(at) => format!("{message} at {}:{}:{}", at.file(), at.line(), at.column()),
        None => message,
    }
}

fn payload_text(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        return (*text).to_owned();
    }
    payload.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic without a text".to_owned())
}

/// Runs `body` as the actor at `path`; a panic becomes its text, with the location when the hook is
/// installed.
pub(super) fn catch<T>(path: &ActorPath, body: impl FnOnce() -> T) -> Result<T, String> {
    let outer = CURRENT.replace(Some(path.clone()));
    let result = catch_unwind(AssertUnwindSafe(body));
    CURRENT.set(outer);
    result.map_err(|payload| LAST.take().unwrap_or_else(|| payload_text(payload.as_ref())))
}
