//! Catching panics: who, while handling what, where in the source, and a text without user data.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use super::running::{RequestTag, running, short_name};
use crate::Threads;

/// Most characters of a panic's text that are kept.
const TEXT_CHARS_MAX: usize = 200;

/// What is known of a panic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct PanicReport {
    /// Its text, without what may be data.
    pub(super) text: String,
    /// `file:line:column`.
    pub(super) location: Option<String>,
    /// The message that was being handled.
    pub(super) message: Option<String>,
    /// The request that caused it.
    pub(super) request: Option<RequestTag>,
}

thread_local! {
    /// What the hook saw of the last panic on this thread.
    static LAST: RefCell<Option<PanicReport>> = const { RefCell::new(None) };
}

/// Makes every panic of an actor a record with the actor's path, its message and the location.
///
/// Panics outside actors are shown as before, but those of [`Threads`](crate::Threads) without what they say:
/// that may be of what somebody sent. A second call has no effect.
pub fn install_panic_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(install);
}

fn install() {
    let previous = take_hook();
    set_hook(Box::new(move |info| match running() {
        Some(running) => LAST.set(Some(PanicReport {
            message: running.message.map(short_name),
            request: running.request,
            ..describe(info)
        })),
        None if is_of_threads() => {
            let PanicReport { text, location, .. } = describe(info);
            tracing::error!(text, location, "what somebody sent could not be read");
        }
        None => previous(info),
    }));
}

fn is_of_threads() -> bool {
    std::thread::current().name().is_some_and(|name| Threads::NAMES.contains(&name))
}

fn describe(info: &PanicHookInfo<'_>) -> PanicReport {
    let location = info.location().map(|at| format!("{}:{}:{}", at.file(), at.line(), at.column()));
    PanicReport { text: payload_text(info.payload()), location, ..PanicReport::default() }
}

/// A literal cannot hold data. A text that was formatted can: only those of the standard library are
/// kept, without the data in them.
fn payload_text(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        return text.chars().take(TEXT_CHARS_MAX).collect();
    }
    match payload.downcast_ref::<String>() {
        Some(text) if STANDARD.iter().any(|start| text.starts_with(start)) => without_data(text),
        Some(_) => WITHHELD.to_owned(),
        None => "a panic without a text".to_owned(),
    }
}

/// Stands for a text that may hold anything.
const WITHHELD: &str = "the text was made at run time and is withheld";

/// How the texts of the standard library's panics begin.
const STANDARD: &[&str] = &[
    "called `",
    "assertion ",
    "index out of bounds",
    "byte index",
    "start byte index",
    "end byte index",
    "begin <= end",
    "range ",
    "slice index",
    "mid > len",
    "RefCell already",
    "already ",
];

/// What the standard library's own panics put between backticks.
const KNOWN: &[&str] = &[
    "Result::unwrap()",
    "Option::unwrap()",
    "Err",
    "Ok",
    "None",
    "left == right",
    "left != right",
];

/// The first line, without what stands in quotes or backticks or behind `value: `.
fn without_data(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let (line, cut) = match line.find("value: ") {
        Some(at) => (line.get(..at + "value: ".len()).unwrap_or_default(), "…"),
        None => (line, ""),
    };
    let mut kept = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(['"', '`', '\'']) {
        let (before, quoted) = rest.split_at(at);
        kept.push_str(before);
        let mut chars = quoted.chars();
        let quote = chars.next().unwrap_or('"');
        let inside = chars.as_str();
        let end = inside.find(quote);
        let content = end.and_then(|end| inside.get(..end)).unwrap_or(inside);
        let shown = if KNOWN.contains(&content) { content } else { "…" };
        kept.extend([quote]);
        kept.push_str(shown);
        kept.extend([quote]);
        rest = end.and_then(|end| inside.get(end + 1..)).unwrap_or_default();
    }
    kept.push_str(rest);
    kept.push_str(cut);
    kept.chars().take(TEXT_CHARS_MAX).collect()
}

/// Runs `body`; a panic becomes its report, whole when the hook is installed.
pub(super) fn catch<T>(body: impl FnOnce() -> T) -> Result<T, PanicReport> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload| {
        let text = || PanicReport { text: payload_text(payload.as_ref()), ..Default::default() };
        LAST.take().unwrap_or_else(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_text_loses_what_may_be_data() {
        let cases = [
            (
                "called `Result::unwrap()` on an `Err` value: Secret(\"x\")",
                "called `Result::unwrap()` on an `Err` value: …",
            ),
            (
                "byte index 2 is not a char boundary; it is inside 'é' (bytes 1..3) of `prompt`",
                "byte index 2 is not a char boundary; it is inside '…' (bytes 1..3) of `…`",
            ),
            (
                "assertion `left == right` failed\n  left: \"a secret\"",
                "assertion `left == right` failed",
            ),
            (
                "index out of bounds: the len is 3 but the index is 7",
                "index out of bounds: the len is 3 but the index is 7",
            ),
            ("index \"sk-123", "index \"…\""),
        ];
        for (text, expected) in cases {
            assert_eq!(without_data(text), expected);
        }
    }

    #[test]
    fn a_text_made_at_run_time_is_withheld_and_a_literal_kept() {
        // A literal for an argument would become part of the text when it is compiled.
        let key = "sk-123".to_owned();
        let report = catch(|| panic!("the key is {key}")).unwrap_err();
        assert_eq!(report.text, WITHHELD);
        assert_eq!(catch(|| panic!("plain")).unwrap_err().text, "plain");
    }
}
